"""Stepping through examples in JupyterLab: filter, sort, search, all answers side by side, notes, tags and marks to oneself."""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import anywidget
import ipywidgets as widgets
import msgspec
import pandas as pd
import traitlets
from IPython.display import display

from evalkit import wording
from evalkit.answers import scoring
from evalkit.answers.metrics import Pair
from evalkit.benchmark.frames import example_record, examples_frame
from evalkit.conversation import conversation_css, conversation_html, conversation_text
from evalkit.errors import DataError
from evalkit.files import append_line, lines, to_line, utc, write_whole
from evalkit.human.rater import in_jupyter
from evalkit.records import Brief, EvalResult
from evalkit.show.regressions import marked, merged
from evalkit.show.tables import note

ALL, CHANGE = "all", "change"
MARKED, NOTED, TAG = "marked", "with a note", "tag: "
STATUSES = ("regressed", "fixed", "both wrong", "both right", "undefined")
LONG, LONG_LINES = 800, 10  # characters and lines from which a text scrolls in its own box
EXPORT = "selection.jsonl"
_OTHER, _EXPECTED = "the other answer", "the expected answer"
_STYLE = Path(__file__).with_name("explorer.css").read_text(encoding="utf-8")
_FLEXIBLE = {"width": "auto", "min_width": "9em", "flex": "1 1 17em"}
_IN_A_ROW = {"display": "flex", "flex_flow": "row wrap", "align_items": "center"}


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What somebody keeps on one example while stepping through them."""

    note: str = ""
    tags: tuple[str, ...] = ()
    marked: bool = False

    def fits(self, wanted: str) -> bool:
        """Whether it is "marked", "with a note", or has the tag of "tag: name"; "all" is anything."""
        known = {ALL: True, MARKED: self.marked, NOTED: bool(self.note)}
        return known[wanted] if wanted in known else wanted.removeprefix(TAG) in self.tags


class _Line(msgspec.Struct):
    example_id: str
    note: str
    tags: tuple[str, ...] = ()
    marked: bool = False


NONE_KEPT = Kept()


def read_kept(path: Path | None) -> dict[str, Kept]:
    """What is kept on each example, by its last line; what is no note is passed over with a warning."""
    found: dict[str, Kept] = {}
    for number, _, line in lines(path) if path and path.exists() else ():
        try:
            row = msgspec.json.decode(line, type=_Line)
        except (ValueError, TypeError) as why:  # the others must show
            told = f"{path}:{number}: not a note ({why}); passed over"
            warnings.warn(wording.visible(told), stacklevel=2)
        else:
            found[row.example_id] = Kept(note=row.note, tags=row.tags, marked=row.marked)
    return found


def write_kept(path: Path, example_id: str, kept: Kept) -> None:
    """Appends what is kept on one example as a JSON line.

    Raises:
        DataError: It cannot be written.
    """
    safe = wording.without_secrets_in(wording.whole(asdict(kept)))
    append_line(path, to_line({"example_id": example_id, **safe, "at": utc()}))


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
    others: Mapping[str, Mapping[str, Pair]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pairs)

    def to_frame(self) -> pd.DataFrame:
        """One row an example, as `Comparison.to_frame(by="example")`, and what is kept on it.

        `asked_again`: category, missing where it was no regression; `marked`: nullable boolean; `tags` ("a, b") and `note`:
        text, missing where there is none; `answer_<model>`: text, of each further model.
        """
        ids = [one.example_id for one in self.pairs]
        kept = [self.kept.get(one, NONE_KEPT) for one in ids]
        texts = {"tags": [", ".join(one.tags) for one in kept], "note": [one.note for one in kept]}
        answers = [self.answers(one) for one in ids]
        texts |= {f"answer_{name}": [one[name] for one in answers] for name in self.others}
        frame = examples_frame(self.pairs, self.metrics).assign(
            asked_again=pd.Categorical([self.flaky.get(one) for one in ids]),
            marked=pd.array([one.marked for one in kept], dtype="boolean"),
        )
        for name, told in texts.items():
            safe = [wording.cleaned(one)[0] or None for one in told]
            frame[wording.cleaned(name)[0]] = pd.array(safe, dtype="str")
        return frame

    def write(self, path: Path) -> Path:
        """A JSON line an example, as in `regressed.jsonl`, with its note, tags and mark, and each further model's answer.

        Raises:
            DataError: It cannot be written.
        """
        told = []
        for pair in self.pairs:
            here = pair.example_id
            again = {"asked_again": self.flaky[here]} if here in self.flaky else {}
            others = {"others": self.answers(here)} if self.others else {}
            kept = asdict(self.kept.get(here, NONE_KEPT))
            told.append(to_line(example_record(pair, **again) | others | kept) + b"\n")
        return write_whole(path, b"".join(told))

    def answers(self, example_id: str) -> dict[str, str]:
        """The further models' answers to an example, by name; "" of one that gave none."""
        found = {name: pairs.get(example_id) for name, pairs in self.others.items()}
        return {name: pair.fine_tuned.predicted if pair else "" for name, pair in found.items()}

    def searchable(self) -> list[str]:
        """All texts of each example, in lower case."""
        texts = []
        for one in self.pairs:
            asked = (one.example_id, conversation_text(one.base.prompt), one.base.expected_text)
            answers = self.answers(one.example_id).values()
            said = (one.base.predicted, one.fine_tuned.predicted, *answers)
            texts.append("\n".join((*asked, *said)).casefold())
        return texts

    def values(self) -> pd.DataFrame:
        """Metrics, a row an example, by place: columns (metric, model) and (metric, "change")."""
        sides: dict[str, tuple[Sequence[Pair | None], str]]
        sides = {"base": (self.pairs, "base"), "fine-tuned": (self.pairs, "fine_tuned")}
        for name, pairs in self.others.items():
            sides[name] = [pairs.get(one.example_id) for one in self.pairs], "fine_tuned"
        made = {}
        for metric in self.metrics:
            for name, (theirs, role) in sides.items():
                found = [one and getattr(one, f"{role}_values").get(metric) for one in theirs]
                made[metric, name] = pd.Series(found, dtype=float)
            made[metric, CHANGE] = made[metric, "fine-tuned"] - made[metric, "base"]
        return pd.DataFrame(made)


def slice_values(pair: Pair) -> set[str]:
    """An example's slices as "name = value"."""
    return {f"{name} = {value}" for name, value in pair.base.slices.items()}


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
        further = {
            name: {one.example_id: one for one in theirs} for name, theirs in (others or {}).items()
        }
        self._all = Selection(
            pairs=pairs, metrics=metrics, kept=self._kept, flaky=flaky or {}, others=further
        )
        self._texts, self._values = self._all.searchable(), self._all.values()
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
        if place not in self._found:
            self._leave()
            with self._quietly():  # the order stays
                self._status.value = self._slice.value = self._only.value = ALL
                self._text.value = ""
            self._search()
        self._go(self._found.index(place))

    def _build(self) -> None:
        pairs = self._all.pairs
        every = sorted({value for pair in pairs for value in slice_values(pair)})
        orders = [("file order", ""), *((wording.label(one), one) for one in self._all.metrics)]
        sides = [CHANGE, "base", "fine-tuned", *self._all.others]
        self._status = _dropdown("Status", [ALL, *STATUSES], self._search)
        self._slice = _dropdown("Slice", [ALL, *every], self._search)
        self._only = _dropdown("Kept", self._kept_options(), self._search)
        self._metric = _dropdown("Worst first", orders, self._search)
        self._of = _dropdown("Judged by", sides, self._search)
        self._reverse = _toggle("Best first", "Turn the order round", self._search)
        self._text = _words("Search", "words in any text")
        self._text.observe(self._search, "value")
        self._against = _dropdown("Compare with", [_OTHER, _EXPECTED], self._draw)
        self._back = _button("Previous", "Previous example", lambda _: self._go(self._at - 1))
        self._next = _button("Next", "Next example", lambda _: self._go(self._at + 1))
        self._place = widgets.Label().add_class("ek-place")
        hint = "One mark an example; a click goes to it"
        self._picture = _toggle("Points", hint, self._draw_points)
        self._points = Points(layout={"display": "none"})
        self._points.observe(self._pick, "picked")
        self._body = widgets.HTML()
        look = {"description": "Note", "layout": {"width": "auto"}}
        self._note = widgets.Textarea(placeholder="to yourself", **look)
        self._tags = _words("Tags", "words, separated by commas")
        self._save = _button("Save note", "Save note and tags", self._save_note)
        self._mark = _toggle("Mark", "Mark this example", self._keep_mark)
        hint = "Write the examples that the filter leaves, a JSON line each"
        self._export = _button("Export", hint, self._write_selection)
        self._export.disabled = self._notes_file is None
        self._saved = widgets.Label().add_class("ek-saved")
        chosen = (self._status, self._slice, self._only, self._metric, self._of)
        filters = (*chosen, self._reverse, self._text, self._against)
        steps = (self._back, self._next, self._place, self._picture)
        notes = (self._tags, self._save, self._mark, self._export, self._saved)
        top, middle, low = (widgets.Box(one, layout=_IN_A_ROW) for one in (filters, steps, notes))
        guard = Guard().add_class("ek-guard")
        rows = [guard, top, middle, self._points, self._body, self._note, low]
        self.widget = widgets.VBox(rows).add_class("ek-explorer")

    def _ipython_display_(self) -> None:
        many = wording.plural(len(self._all), "example")
        told = note(f"Open this notebook in JupyterLab to step through the {many} one by one.")
        display(self.widget if in_jupyter() else told)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Filters are set without searching."""
        self._quiet = True
        yield
        self._quiet = False

    def _search(self, _change: object = None) -> None:
        """Finds the examples that fit, the worst first when a metric is chosen; where it is undefined they come last."""
        if self._quiet:
            return
        self._leave()
        words, status = self._text.value.casefold().split(), self._status.value
        part, only = self._slice.value, str(self._only.value)
        found = [
            place
            for place, pair in enumerate(self._all.pairs)
            if status in (ALL, pair.status)
            and (part == ALL or part in slice_values(pair))
            and self._kept.get(pair.example_id, NONE_KEPT).fits(only)
            and all(word in self._texts[place] for word in words)
        ]
        if metric := self._metric.value:
            values = self._values[metric, self._of.value].iloc[found]
            up = (metric in self._lower) is self._reverse.value
            found = [*values.sort_values(ascending=up, kind="stable").index]
        self._found, self._at = found, 0
        self._draw()
        self._draw_points()

    def _go(self, to: int) -> None:
        self._leave()
        self._at = to % max(len(self._found), 1)
        self._draw()

    def _pick(self, change: traitlets.Bunch) -> None:
        if 0 <= change.new < len(self._found):
            self._points.picked = -1
            self._go(change.new)

    def _draw(self, _change: object = None) -> None:
        n_found = len(self._found)
        self._back.disabled = self._next.disabled = n_found < 2
        self._note.disabled = self._tags.disabled = self._mark.disabled = not n_found
        self._save.disabled = not n_found or self._notes_file is None
        self._points.at = self._at if n_found else -1
        kept = self._kept.get(self._here, NONE_KEPT) if n_found else NONE_KEPT
        place = f"{wording.count(self._at + 1)} of {wording.count(n_found)}"
        self._place.value = place if n_found else "no example fits"
        self._body.value = self._example() if n_found else ""
        self._note.value, self._tags.value = kept.note, ", ".join(kept.tags)
        self._mark.value = kept.marked

    def _example(self) -> str:
        here, others = self._here, self._all.others
        return side_by_side(
            self._all.pairs[self._found[self._at]],
            flaky=self._all.flaky.get(here, ""),
            others={name: one[here].fine_tuned for name, one in others.items() if here in one},
            against="expected" if self._against.value == _EXPECTED else "other",
        )

    def _draw_points(self, _change: object = None) -> None:
        """Sends the marks of what the filter leaves, only while the picture is open."""
        self._points.layout.display = "" if self._picture.value else "none"
        metric = self._metric.value or next(iter(self._all.metrics), "")
        if not self._picture.value or not metric:
            return
        kinds = [STATUSES.index(self._all.pairs[index].status) for index in self._found]
        both = self._values.loc[self._found, [(metric, "base"), (metric, "fine-tuned")]]
        known = both.reset_index(drop=True).dropna().itertuples(name=None)
        self._points.axes = [f"{side}, {wording.label(metric)}" for side in ("base", "fine-tuned")]
        self._points.points = [[x, y, kinds[place], place] for place, x, y in known]

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
        return Kept(note=self._note.value, tags=kept, marked=self._mark.value)

    def _keep_mark(self, _change: object) -> None:
        """Keeps a changed mark at once, and the note with it; showing another example changes none."""
        if self._found and self._mark.value != self._kept.get(self._here, NONE_KEPT).marked:
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
        many = wording.plural(len(self._found), "example")
        try:
            path = self.selected.write(self._notes_file.with_name(EXPORT))
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
    expected, base, prompt = pair.base.expected_text, pair.base.predicted, pair.base.prompt
    named = {"Base": pair.base, "Fine-tuned": pair.fine_tuned, **(others or {})}
    answers = []
    for name, one in named.items():
        if against == "expected":  # of several right answers, the one it comes closest to
            near = max(one.right, default="", key=lambda r: scoring.similarity(r, one.predicted))
            text = merged(near, one.predicted)
        elif one is pair.base:
            text = marked(base, pair.fine_tuned.predicted)[0]
        else:
            text = marked(base, one.predicted)[1]
        right = {None: "answered", True: "right", False: "wrong"}[one.exact_match]
        outcome = html.escape(right if one.outcome == "ok" else one.outcome)
        title = f"<h3>{html.escape(wording.visible(name))} <small>{outcome}</small></h3>"
        answers.append(f"<section>{title}{_block(name, one.predicted, text)}</section>")
    # of several messages the long ones are folded, so that the last is in sight
    given = conversation_html(prompt, folds_last=len(prompt) > 1)
    lone = conversation_text(prompt) if len(prompt) == 1 else ""
    asked = (
        f"<h3>Input</h3>{_block('Input', lone, given)}"
        f"<h3>Expected</h3>{_block('Expected', expected, wording.render_text(expected))}"
    )
    return (
        f'<div class="ek-pair"><p><b>{wording.render_text(pair.example_id)}</b> · '
        f'{wording.render_text(" · ".join(facts))}</p>{asked}<div class="ek-sides">{"".join(answers)}</div></div>'
    )


def _block(name: str, text: str, safe: str) -> str:
    """A text as it is; a long one in a box of its own that scrolls, by keyboard too."""
    look = 'class="ek-block"'
    if len(text) >= LONG or text.count("\n") >= LONG_LINES:
        look = (
            f'class="ek-block ek-long" tabindex="0" role="group" aria-label="{html.escape(name)}"'
        )
    return f"<div {look}>{safe}</div>"


def _dropdown(
    name: str, options: Sequence[object], changed: Callable[..., None]
) -> widgets.Dropdown:
    made = widgets.Dropdown(options=options, description=name, layout=_FLEXIBLE)
    made.observe(changed, "value")
    return made


def _words(name: str, hint: str) -> widgets.Text:
    return widgets.Text(placeholder=hint, description=name, layout=_FLEXIBLE)


def _button(name: str, tooltip: str, pressed: Callable[..., None]) -> widgets.Button:
    made = widgets.Button(description=name, tooltip=tooltip, layout={"width": "auto"})
    made.on_click(pressed)
    return made


def _toggle(name: str, tooltip: str, changed: Callable[..., None]) -> widgets.ToggleButton:
    made = widgets.ToggleButton(description=name, tooltip=tooltip, layout={"width": "auto"})
    made.observe(changed, "value")
    return made
