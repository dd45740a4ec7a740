"""Stepping through examples in JupyterLab: filter, sort, search, all answers side by side, notes, tags and marks to oneself."""

from __future__ import annotations

import html
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import anywidget
import ipywidgets as widgets
import pandas as pd
import traitlets
from IPython.display import display

from evalkit import wording
from evalkit.answers import scoring
from evalkit.answers.metrics import Pair
from evalkit.benchmark.frames import example_record, examples_frame
from evalkit.conversation import Messages, conversation_css, conversation_html, conversation_text
from evalkit.errors import DataError
from evalkit.files import append_line, lines, to_line, utc, write_whole
from evalkit.human.rater import in_jupyter
from evalkit.records import Brief, EvalResult
from evalkit.show.regressions import marked, merged
from evalkit.show.tables import note
from evalkit.wording import without_secrets

ALL, CHANGE = "all", "change"
MARKED, NOTED, TAG = "marked", "with a note", "tag: "
STATUSES = ("regressed", "fixed", "both wrong", "both right", "undefined")
TAKEN = ("latency_ms", "completion_tokens")  # sorted by like metrics, the largest as the worst
Others = Mapping[str, Mapping[str, Pair]]
LONG, LONG_LINES = 800, 10  # characters and lines from which a text scrolls in its own box
EXPORT = "selection.jsonl"
_OTHER, _EXPECTED = "the other answer", "the expected answer"
_STYLE = Path(__file__).with_name("explorer.css").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What somebody keeps on one example while stepping through them."""

    note: str = ""
    tags: tuple[str, ...] = ()
    marked: bool = False

    def fits(self, wanted: str) -> bool:
        """Whether it is "marked", "with a note", or has the tag of "tag: name"."""
        known = {MARKED: self.marked, NOTED: bool(self.note)}
        return known[wanted] if wanted in known else wanted.removeprefix(TAG) in self.tags


NONE_KEPT = Kept()


def read_kept(path: Path | None) -> dict[str, Kept]:
    """What is kept on each example, by its last line; what is no note is passed over with a warning."""
    found: dict[str, Kept] = {}
    for number, _, line in lines(path) if path and path.exists() else ():
        try:
            row = json.loads(line)
            tags = tuple(str(one) for one in row.get("tags") or ())
            kept = Kept(note=str(row["note"]), tags=tags, marked=bool(row.get("marked")))
            found[row["example_id"]] = kept
        except (ValueError, TypeError, KeyError, AttributeError) as why:  # the others must show
            told = f"{path}:{number}: not a note ({why}); passed over"
            warnings.warn(wording.visible(told), stacklevel=2)
    return found


def write_kept(path: Path, example_id: str, kept: Kept) -> None:
    """Appends what is kept on one example as a JSON line.

    Raises:
        DataError: It cannot be written.
    """
    row = {
        "example_id": example_id,
        "note": without_secrets(wording.cleaned(kept.note)[0]),
        "tags": [without_secrets(wording.cleaned(one)[0]) for one in kept.tags],
        "marked": kept.marked,
        "at": utc(),
    }
    said = {name: value for name, value in row.items() if value or name == "note"}
    append_line(path, to_line(said))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which examples to step through.

    Attributes:
        status: One of `STATUSES`, or "all".
        slice_value: "name = value", or "all".
        kept: "marked", "with a note", "tag: name", or "all".
        metric: The worst examples by this metric come first; "" keeps the file's order.
        of: Worst by what: "change" from base to fine-tuned, or the value of "base", "fine-tuned" or a further model.
        reverse: The best come first.
        text: Every word must stand in the input, the expected answer, any answer or the id; case does not matter.
    """

    status: str = ALL
    slice_value: str = ALL
    kept: str = ALL
    metric: str = ""
    of: str = CHANGE
    reverse: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Selection(Brief):
    """Compared examples, with what was kept on them.

    Attributes:
        pairs: The examples, in the order of stepping.
        metrics: Names of the metrics that become columns.
        kept: Example id to its note, tags and mark.
        flaky: Example id to "flips", "stable" or "not re-asked", from the noise floor.
        others: Further models by name: example id to the pair of base and that model.
    """

    pairs: Sequence[Pair]
    metrics: Sequence[str] = ()
    kept: Mapping[str, Kept] = field(default_factory=dict)
    flaky: Mapping[str, str] = field(default_factory=dict)
    others: Others = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pairs)

    def to_frame(self) -> pd.DataFrame:
        """One row an example, as `Comparison.to_frame(by="example")`, and what is kept on it.

        `asked_again`: category, missing where it was no regression; `marked`: nullable boolean; `tags` ("a, b") and `note`:
        text, missing where there is none; `answer_<model>`: text, of each further model.
        """
        ids = [one.example_id for one in self.pairs]
        kept = [self.kept.get(one, NONE_KEPT) for one in ids]
        frame = examples_frame(self.pairs, self.metrics).assign(
            asked_again=pd.Categorical([self.flaky.get(one) for one in ids]),
            marked=pd.array([one.marked for one in kept], dtype="boolean"),
            tags=_texts([", ".join(one.tags) for one in kept]),
            note=_texts([one.note for one in kept]),
        )
        for name in self.others:
            told = _texts([self.answer(name, one) for one in ids])
            frame[f"answer_{wording.cleaned(name)[0]}"] = told
        return frame

    def write(self, path: Path) -> Path:
        """A JSON line an example, as in `regressed.jsonl`, with its note, tags and mark, and each further model's answer.

        Raises:
            DataError: It cannot be written.
        """
        return write_whole(path, b"".join(to_line(self._record(one)) + b"\n" for one in self.pairs))

    def answer(self, model: str, example_id: str) -> str:
        """A further model's answer to an example; "" where it gave none."""
        pair = self.others[model].get(example_id)
        return pair.fine_tuned.predicted if pair else ""

    def searchable(self, pair: Pair) -> str:
        """All texts of an example, in lower case."""
        parts = (
            pair.example_id,
            conversation_text(pair.base.prompt),
            pair.base.expected_text,
            pair.base.predicted,
            pair.fine_tuned.predicted,
            *(self.answer(name, pair.example_id) for name in self.others),
        )
        return "\n".join(parts).casefold()

    def _record(self, pair: Pair) -> dict[str, object]:
        here = pair.example_id
        kept = self.kept.get(here, NONE_KEPT)
        again = {"asked_again": self.flaky[here]} if here in self.flaky else {}
        answers = {name: self.answer(name, here) for name in self.others}
        own = {"marked": kept.marked, "tags": list(kept.tags), "note": kept.note}
        return example_record(pair, **again) | ({"others": answers} if answers else {}) | own


def select(
    among: Selection, chosen: Filter, texts: Sequence[str], *, lower_is_better: Sequence[str] = ()
) -> list[int]:
    """Positions of the examples that fit, the worst first when a metric is chosen; where it is undefined they come last.

    Args:
        among: The examples.
        chosen: Which of them, and in which order.
        texts: What is searched of each, see `Selection.searchable`.
        lower_is_better: Metrics of which less is better.
    """
    words = chosen.text.casefold().split()
    fits = [
        index
        for index, pair in enumerate(among.pairs)
        if chosen.status in (ALL, pair.status)
        and (chosen.slice_value == ALL or chosen.slice_value in slice_values(pair))
        and (chosen.kept == ALL or among.kept.get(pair.example_id, NONE_KEPT).fits(chosen.kept))
        and all(word in texts[index] for word in words)
    ]
    if not chosen.metric:
        return fits
    lower = chosen.metric in (*TAKEN, *lower_is_better)
    turned = -1 if lower is not chosen.reverse else 1
    values = {index: _value(among.pairs[index], chosen, among.others) for index in fits}
    known = {index: value * turned for index, value in values.items() if value is not None}
    return [*sorted(known, key=known.__getitem__), *(one for one in fits if one not in known)]


def slice_values(pair: Pair) -> set[str]:
    """An example's slices as "name = value"."""
    return {f"{name} = {value}" for name, value in pair.base.slices.items()}


def value_of(pair: Pair, metric: str, *, tuned: bool) -> float | None:
    """One side's value of a metric, or of what its answer took."""
    if metric in TAKEN:
        return getattr(pair.fine_tuned if tuned else pair.base, metric)
    return (pair.fine_tuned_values if tuned else pair.base_values).get(metric)


def _value(pair: Pair, chosen: Filter, others: Others) -> float | None:
    old, new = (value_of(pair, chosen.metric, tuned=tuned) for tuned in (False, True))
    if chosen.of == CHANGE:
        return None if old is None or new is None else new - old
    if chosen.of in others:
        other = others[chosen.of].get(pair.example_id)
        return other and value_of(other, chosen.metric, tuned=True)
    return old if chosen.of == "base" else new


def _texts(told: Sequence[str]) -> pd.api.extensions.ExtensionArray:
    return pd.array([wording.cleaned(one)[0] or None for one in told], dtype="str")


class Guard(anywidget.AnyWidget):
    """Shows nothing; keeps JupyterLab's keys out of the explorer it is in."""

    _esm = Path(__file__).with_name("explorer.js")
    _css = _STYLE + conversation_css()


class Points(anywidget.AnyWidget):
    """One mark an example, base across and fine-tuned up; a click picks the nearest.

    Attributes:
        points: x, y and place in `STATUSES` of each example that has both values, with its place in the selection.
        at: Place in the selection of the example shown.
        picked: Place of the one that was clicked, -1 when none was.
        axes: What lies across and up, in words.
    """

    _esm = Path(__file__).with_name("points.js")
    points = traitlets.List().tag(sync=True)
    at = traitlets.Int(-1).tag(sync=True)
    picked = traitlets.Int(-1).tag(sync=True)
    axes = traitlets.List(["", ""]).tag(sync=True)


class Explorer:
    """An explorer over compared examples; display it as a notebook cell's last expression.

    What was typed on an example is saved when another one is shown, or by its button. Where nobody sits in front of the
    notebook, a line says where to step through the examples; `widget` is the explorer itself.

    Args:
        pairs: Compared examples, such as `Comparison.pairs`.
        metrics: Names by which the examples can be sorted.
        flaky: Example id to "flips", "stable" or "not re-asked", from the noise floor.
        notes_file: JSONL file that notes are appended to, and in whose folder the export goes; without it neither is saved.
        others: Further models by name, such as checkpoints: the pairs of their comparison with the same base.
        lower_is_better: Metrics of which less is better.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        metrics: Sequence[str] = (),
        flaky: Mapping[str, str] | None = None,
        notes_file: Path | None = None,
        others: Mapping[str, Sequence[Pair]] | None = None,
        lower_is_better: Sequence[str] = (),
    ) -> None:
        self._notes_file, self._lower = notes_file, lower_is_better
        self._on_file = read_kept(notes_file)
        self._kept = dict(self._on_file)
        self._all = Selection(
            pairs=pairs,
            metrics=metrics,
            kept=self._kept,
            flaky=flaky or {},
            others={
                name: {one.example_id: one for one in theirs}
                for name, theirs in (others or {}).items()
            },
        )
        self._texts = [self._all.searchable(pair) for pair in pairs]
        self._places = {pair.example_id: place for place, pair in enumerate(pairs)}
        self._found: list[int] = []
        self._at = 0
        self._quiet = False
        self._build()
        self._search()

    @property
    def found(self) -> list[str]:
        """Ids of the examples that the filter leaves, in the order of stepping."""
        return [self._all.pairs[index].example_id for index in self._found]

    @property
    def selected(self) -> Selection:
        """The examples that the filter leaves, with what is kept on them; `.to_frame()` and `.write(path)` go on with them."""
        typed = {self._here: self._typed} if self._found else {}
        pairs = [self._all.pairs[index] for index in self._found]
        return replace(self._all, pairs=pairs, kept={**self._kept, **typed})

    def show(self, example_id: str) -> None:
        """Goes to one example, such as a point of a figure or a row of a frame; a filter that hides it is taken off.

        Raises:
            DataError: No example has this id.
        """
        place = self._places.get(str(example_id))
        if place is None:
            hint = wording.did_you_mean(str(example_id), self._places, repr)
            raise DataError(f"no example {str(example_id)!r} among {len(self._places):,}{hint}")
        self._leave()
        if place not in self._found:
            with self._quietly():  # the order stays
                self._status.value = self._slice.value = self._only.value = ALL
                self._text.value = ""
            self._search()
        self._at = self._found.index(place)
        self._draw()

    def _build(self) -> None:
        pairs, metrics = self._all.pairs, self._all.metrics
        every = sorted({value for pair in pairs for value in slice_values(pair)})
        taken = [one for one in TAKEN if any(getattr(p.base, one) is not None for p in pairs)]
        orders = [("file order", ""), *((_metric_name(name), name) for name in (*metrics, *taken))]
        sides = [CHANGE, "base", "fine-tuned", *self._all.others]
        self._status = _dropdown("Status", [ALL, *STATUSES], self._search)
        self._slice = _dropdown("Slice", [ALL, *every], self._search)
        self._only = _dropdown("Kept", self._kept_options(), self._search)
        self._metric = _dropdown("Worst first", orders, self._search)
        self._of = _dropdown("Judged by", sides, self._search)
        self._reverse = _toggle("Best first", "Turn the order round", self._search)
        self._text = _words("Search", "words in any text")
        self._text.observe(self._search, "value")
        self._against = _dropdown("Compare with", [_OTHER, _EXPECTED], self._draw_body)
        self._back = _button("Previous", "Previous example", lambda _: self._step(-1))
        self._next = _button("Next", "Next example", lambda _: self._step(+1))
        self._place = widgets.Label().add_class("ek-place")
        self._picture = _toggle(
            "Points", "One mark an example; a click goes to it", self._draw_points
        )
        self._points = Points(layout={"display": "none"})
        self._points.observe(self._pick, "picked")
        self._body = widgets.HTML()
        self._note = widgets.Textarea(
            placeholder="to yourself", description="Note", layout={"width": "auto"}
        )
        self._tags = _words("Tags", "words, separated by commas")
        self._save = _button("Save note", "Save note and tags", self._save_note)
        self._mark = _toggle("Mark", "Mark this example", self._keep_mark)
        self._export = _button(
            "Export",
            "Write the examples that the filter leaves, a JSON line each",
            self._write_selection,
        )
        self._export.disabled = self._notes_file is None
        self._saved = widgets.Label().add_class("ek-saved")
        chosen = (self._status, self._slice, self._only, self._metric, self._of)
        filters = _row(*chosen, self._reverse, self._text, self._against)
        steps = _row(self._back, self._next, self._place, self._picture)
        notes = _row(self._tags, self._save, self._mark, self._export, self._saved)
        guard = Guard().add_class("ek-guard")
        rows = [guard, filters, steps, self._points, self._body, self._note, notes]
        self.widget = widgets.VBox(rows).add_class("ek-explorer")

    def _ipython_display_(self) -> None:
        many = wording.plural(len(self._all), "example")
        display(
            self.widget
            if in_jupyter()
            else note(f"Open this notebook in JupyterLab to step through the {many} one by one.")
        )

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Filters are set without searching."""
        self._quiet = True
        yield
        self._quiet = False

    def _search(self, _change: object = None) -> None:
        if self._quiet:
            return
        self._leave()
        chosen = Filter(
            status=self._status.value or ALL,
            slice_value=self._slice.value or ALL,
            kept=self._only.value or ALL,
            metric=self._metric.value or "",
            of=self._of.value or CHANGE,
            reverse=self._reverse.value,
            text=self._text.value,
        )
        self._found = select(self._all, chosen, self._texts, lower_is_better=self._lower)
        self._at = 0
        self._draw()
        self._draw_points()

    def _step(self, by: int) -> None:
        self._leave()
        if self._found:
            self._at = (self._at + by) % len(self._found)
        self._draw()

    def _pick(self, change: traitlets.Bunch) -> None:
        if not 0 <= change.new < len(self._found):
            return
        self._leave()
        self._at, self._points.picked = change.new, -1
        self._draw()

    def _draw(self) -> None:
        n_found = len(self._found)
        self._back.disabled = self._next.disabled = n_found < 2
        self._note.disabled = self._tags.disabled = self._mark.disabled = not n_found
        self._save.disabled = not n_found or self._notes_file is None
        self._points.at = self._at if n_found else -1
        kept = self._kept.get(self._here, NONE_KEPT) if n_found else NONE_KEPT
        place = f"{wording.count(self._at + 1)} of {wording.count(n_found)}"
        self._place.value = place if n_found else "no example fits"
        self._draw_body()
        self._note.value, self._tags.value = kept.note, ", ".join(kept.tags)
        self._mark.value = kept.marked

    def _draw_body(self, _change: object = None) -> None:
        if not self._found:
            self._body.value = ""
            return
        here, others = self._here, self._all.others
        self._body.value = side_by_side(
            self._all.pairs[self._found[self._at]],
            flaky=self._all.flaky.get(here, ""),
            others={name: one[here].fine_tuned for name, one in others.items() if here in one},
            against="expected" if self._against.value == _EXPECTED else "other",
        )

    def _draw_points(self, _change: object = None) -> None:
        """Sends the marks of what the filter leaves, only while the picture is open."""
        self._points.layout.display = "" if self._picture.value else "none"
        if not self._picture.value:
            return
        metric = self._metric.value or next(iter(self._all.metrics), "")
        points = []
        for place, index in enumerate(self._found):
            one = self._all.pairs[index]
            x, y = (value_of(one, metric, tuned=tuned) for tuned in (False, True))
            if x is not None and y is not None:
                points.append([x, y, STATUSES.index(one.status), place])
        self._points.axes = [f"{side}, {_metric_name(metric)}" for side in ("base", "fine-tuned")]
        self._points.points = points

    def _leave(self) -> None:
        """Saves what was typed on the example that stood here, if anything was."""
        self._saved.value = ""
        if self._found and self._typed != self._on_file.get(self._here, NONE_KEPT):
            self._save_note()

    @property
    def _here(self) -> str:
        return self._all.pairs[self._found[self._at]].example_id

    @property
    def _typed(self) -> Kept:
        tags = (word.strip() for word in self._tags.value.split(","))
        kept = tuple(dict.fromkeys(word for word in tags if word))
        is_marked = self._kept.get(self._here, NONE_KEPT).marked
        return Kept(note=self._note.value, tags=kept, marked=is_marked)

    def _keep_mark(self, _change: object) -> None:
        """Keeps a changed mark at once, and the note with it; showing another example changes none."""
        if not self._found or self._mark.value == self._typed.marked:
            return
        self._kept[self._here] = replace(self._typed, marked=self._mark.value)
        self._save_note()

    def _save_note(self, _button: object = None) -> None:
        if not self._found:
            return
        here, typed = self._here, self._typed
        self._kept[here] = typed
        was, options = self._only.value, self._kept_options()
        if list(self._only.options) != options:
            with self._quietly():
                self._only.options = options
                self._only.value = was if was in options else ALL
        if self._notes_file is None:
            return
        about = f"note on {wording.visible(here)}"
        try:
            write_kept(self._notes_file, here, typed)
            self._on_file[here] = typed
            self._saved.value = f"{about} saved to {self._notes_file.name}"
        except DataError as why:
            self._saved.value = f"NOT SAVED: {about} ({why})"

    def _kept_options(self) -> list[str]:
        tags = sorted({tag for one in self._kept.values() for tag in one.tags})
        return [ALL, MARKED, NOTED, *(f"{TAG}{tag}" for tag in tags)]

    def _write_selection(self, _button: object) -> None:
        if self._notes_file is None:
            return
        try:
            path = self.selected.write(self._notes_file.with_name(EXPORT))
            many = wording.plural(len(self._found), "example")
            self._saved.value = f"{many} written to {path.name}"
        except DataError as why:
            self._saved.value = f"NOT WRITTEN ({why})"


def side_by_side(
    pair: Pair,
    *,
    flaky: str = "",
    others: Mapping[str, EvalResult] | None = None,
    against: Literal["other", "expected"] = "other",
) -> str:
    """One example as safe HTML: the whole conversation, the expected answer and every model's with differences marked.

    Args:
        pair: The example.
        flaky: What became of a regression when it was asked again.
        others: Further models' answers, by name.
        against: What is marked: where base and fine-tuned (and each further model) differ, or each from what is expected.
    """
    facts = [pair.status, *sorted(slice_values(pair)), *([flaky] if flaky else [])]
    expected, base = pair.base.expected_text, pair.base.predicted
    named = {"Base": pair.base, "Fine-tuned": pair.fine_tuned, **(others or {})}
    if against == "expected":
        texts = {name: merged(_closest(one), one.predicted) for name, one in named.items()}
    else:
        texts = {name: marked(base, one.predicted)[1] for name, one in named.items()}
        texts["Base"] = marked(base, pair.fine_tuned.predicted)[0]
    answers = "".join(_answer(name, one, texts[name]) for name, one in named.items())
    asked = (
        f"<h3>Input</h3>{_given(pair.base.prompt)}"
        f"<h3>Expected</h3>{_block('Expected', expected, wording.render_text(expected))}"
    )
    return (
        f'<div class="ek-pair"><p><b>{wording.render_text(pair.example_id)}</b> · '
        f'{wording.render_text(" · ".join(facts))}</p>{asked}<div class="ek-sides">{answers}</div></div>'
    )


def _closest(one: EvalResult) -> str:
    """Of several right answers the one that the answer comes closest to."""
    return max(one.right, default="", key=lambda right: scoring.similarity(right, one.predicted))


def _given(messages: Messages) -> str:
    """A lone text in a box as answers are; of several messages the long ones are folded, so that the last is in sight."""
    safe = conversation_html(messages, folds_last=len(messages) > 1)
    text = conversation_text(messages) if len(messages) == 1 else ""
    return _block("Input", text, safe)


def _block(name: str, text: str, safe: str) -> str:
    """A text as it is; a long one in a box of its own that scrolls, by keyboard too."""
    if len(text) < LONG and text.count("\n") < LONG_LINES:
        return f'<div class="ek-block">{safe}</div>'
    return f'<div class="ek-block ek-long" tabindex="0" role="group" aria-label="{html.escape(name)}">{safe}</div>'


def _answer(name: str, one: EvalResult, safe: str) -> str:
    right = {None: "answered", True: "right", False: "wrong"}[one.exact_match]
    outcome = html.escape(right if one.outcome == "ok" else one.outcome)
    title, text = html.escape(wording.visible(name)), _block(name, one.predicted, safe)
    return f"<section><h3>{title} <small>{outcome}</small></h3>{text}</section>"


def _metric_name(metric: str) -> str:
    return wording.measured(metric)[0] if metric in TAKEN else wording.label(metric)


def _dropdown(
    name: str, options: Sequence[object], changed: Callable[..., None]
) -> widgets.Dropdown:
    made = widgets.Dropdown(options=options, description=name, layout=_narrow())
    made.observe(changed, "value")
    return made


def _words(name: str, hint: str) -> widgets.Text:
    return widgets.Text(placeholder=hint, description=name, layout=_narrow())


def _button(name: str, tooltip: str, pressed: Callable[..., None]) -> widgets.Button:
    made = widgets.Button(description=name, tooltip=tooltip, layout={"width": "auto"})
    made.on_click(pressed)
    return made


def _toggle(name: str, tooltip: str, changed: Callable[..., None]) -> widgets.ToggleButton:
    made = widgets.ToggleButton(description=name, tooltip=tooltip, layout={"width": "auto"})
    made.observe(changed, "value")
    return made


def _narrow() -> widgets.Layout:
    return widgets.Layout(width="auto", min_width="9em", flex="1 1 17em")


def _row(*held: widgets.Widget) -> widgets.Box:
    look = widgets.Layout(display="flex", flex_flow="row wrap", align_items="center")
    return widgets.Box(held, layout=look)
