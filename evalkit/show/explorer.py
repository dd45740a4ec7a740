"""Stepping through examples in JupyterLab: filter, search, both answers side by side, a note to oneself."""

from __future__ import annotations

import html
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets as widgets

from evalkit import wording
from evalkit.answers.pairs import Pair
from evalkit.benchmark.frames import examples_frame
from evalkit.conversation import (
    Messages,
    conversation_css,
    conversation_html,
    conversation_text,
)
from evalkit.errors import DataError
from evalkit.files import append_line, lines
from evalkit.records import EvalResult
from evalkit.redaction import without_secrets
from evalkit.show import say
from evalkit.show.difference import marked
from evalkit.show.tables import note

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
LONG, LONG_LINES = 800, 10  # characters and lines from which a text scrolls in its own box
STATUSES = ("regressed", "fixed", "both wrong", "both right")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which examples to step through.

    Attributes:
        status: One of `STATUSES`, or "all".
        slice_value: "name = value", or "all".
        metric: The examples with the largest loss on this metric come first; "" keeps the file's order.
        text: Every word must stand in the input, the expected answer, either answer or the id; case does not matter.
    """

    status: str = ALL
    slice_value: str = ALL
    metric: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a filter leaves of the compared examples, with what was kept on them.

    Attributes:
        pairs: The examples, in the order of stepping.
        metrics: Names of the metrics that become columns.
        notes: Example id to its note.
        marked: Ids that were marked.
        flaky: Example id to "flips", "stable" or "not re-asked", from the noise floor.
    """

    pairs: Sequence[Pair]
    metrics: Sequence[str]
    notes: Mapping[str, str]
    marked: frozenset[str]
    flaky: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.pairs)

    def to_frame(self) -> pd.DataFrame:
        """One row an example, as `Comparison.to_frame(by="example")`, and three columns more.

        `asked_again`: category, missing where it was no regression; `marked`: nullable boolean; `note`: text, missing
        where there is none.
        """
        import pandas as pd

        ids = [one.example_id for one in self.pairs]
        notes = [wording.cleaned(self.notes.get(one, ""))[0] or None for one in ids]
        return examples_frame(self.pairs, self.metrics).assign(
            asked_again=pd.Categorical([self.flaky.get(one) for one in ids]),
            marked=pd.array([one in self.marked for one in ids], dtype="boolean"),
            note=pd.array(notes, dtype="str"),
        )


class Guard(anywidget.AnyWidget):
    """Shows nothing; keeps JupyterLab's keys out of the explorer it is in."""

    _esm = Path(__file__).with_name("explorer.js")
    _css = Path(__file__).with_name("explorer.css").read_text(encoding="utf-8") + conversation_css()


class Explorer:
    """An explorer over compared examples; display it as a notebook cell's last expression.

    A note that was changed is saved when another example is shown, or by its button. Where nobody sits in front of the
    notebook, a line says where to step through the examples; `widget` is the explorer itself.

    Args:
        pairs: Compared examples, such as `Comparison.pairs`.
        metrics: Names by whose loss the examples can be sorted.
        flaky: Example id to "flips", "stable" or "not re-asked", from the noise floor.
        notes_file: JSONL file that notes are appended to; without it notes cannot be saved.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        metrics: Sequence[str] = (),
        flaky: Mapping[str, str] | None = None,
        notes_file: Path | None = None,
    ) -> None:
        self._pairs = pairs
        self._metrics = metrics
        self._texts = [_searchable(pair) for pair in pairs]
        self._flaky = flaky or {}
        self._notes_file = notes_file
        self._kept = read_notes(notes_file)
        self._notes = dict(self._kept)
        self._marked = read_marks(notes_file)
        self._found: list[int] = []
        self._at = 0
        self._build(metrics)
        self._search()

    @property
    def found(self) -> list[str]:
        """Ids of the examples that the filter leaves, in the order of stepping."""
        return [self._pairs[index].example_id for index in self._found]

    @property
    def selected(self) -> Selection:
        """The examples that the filter leaves, with their notes and marks; `selected.to_frame()` goes on with them."""
        typed = {self._here: self._note.value} if self._found else {}
        return Selection(
            pairs=[self._pairs[index] for index in self._found],
            metrics=self._metrics,
            notes={**self._notes, **typed},
            marked=frozenset(self._marked),
            flaky=self._flaky,
        )

    def _build(self, metrics: Sequence[str]) -> None:
        slices = sorted(
            {
                f"{name} = {value}"
                for pair in self._pairs
                for name, value in pair.base.slices.items()
            }
        )
        narrow = widgets.Layout(width="auto", min_width="9em", flex="1 1 12em")
        self._status = widgets.Dropdown(
            options=[ALL, *STATUSES], value=ALL, description="Status", layout=narrow
        )
        self._slice = widgets.Dropdown(options=[ALL, *slices], description="Slice", layout=narrow)
        orders = [("file order", ""), *((say.label(name), name) for name in metrics)]
        self._metric = widgets.Dropdown(options=orders, description="Worst first", layout=narrow)
        self._text = widgets.Text(
            placeholder="words in any text", description="Search", layout=narrow
        )
        self._back = widgets.Button(
            description="Previous", tooltip="Previous example", layout={"width": "auto"}
        )
        self._next = widgets.Button(
            description="Next", tooltip="Next example", layout={"width": "auto"}
        )
        self._place = widgets.Label().add_class("ek-place")
        self._body = widgets.HTML()
        self._note = widgets.Textarea(
            placeholder="to yourself", description="Note", layout={"width": "auto"}
        )
        self._save = widgets.Button(
            description="Save note", disabled=self._notes_file is None, layout={"width": "auto"}
        )
        self._mark = widgets.ToggleButton(
            description="Mark", tooltip="Mark this example", layout={"width": "auto"}
        )
        self._saved = widgets.Label().add_class("ek-saved")
        self._wire()

    def _wire(self) -> None:
        for control in (self._status, self._slice, self._metric, self._text):
            control.observe(lambda _: self._search(), "value")
        self._back.on_click(lambda _: self._step(-1))
        self._next.on_click(lambda _: self._step(+1))
        self._save.on_click(lambda _: self._save_note())
        self._mark.observe(lambda _: self._keep_mark(), "value")
        row = widgets.Layout(display="flex", flex_flow="row wrap", align_items="center")
        filters = widgets.Box([self._status, self._slice, self._metric, self._text], layout=row)
        steps = widgets.Box([self._back, self._next, self._place], layout=row)
        notes = widgets.Box([self._save, self._mark, self._saved], layout=row)
        guard = Guard().add_class("ek-guard")
        self.widget = widgets.VBox(
            [guard, filters, steps, self._body, self._note, notes]
        ).add_class("ek-explorer")

    def _ipython_display_(self) -> None:
        from IPython.display import display

        from evalkit.human.study_round import in_jupyter

        many = wording.plural(len(self._pairs), "example")
        display(
            self.widget
            if in_jupyter()
            else note(f"Open this notebook in JupyterLab to step through the {many} one by one.")
        )

    def _search(self) -> None:
        self._leave()
        chosen = Filter(
            status=self._status.value or ALL,
            slice_value=self._slice.value or ALL,
            metric=self._metric.value or "",
            text=self._text.value,
        )
        self._found = select(self._pairs, self._texts, chosen)
        self._at = 0
        self._draw()

    def _step(self, by: int) -> None:
        self._leave()
        if self._found:
            self._at = (self._at + by) % len(self._found)
        self._draw()

    def _draw(self) -> None:
        self._back.disabled = self._next.disabled = len(self._found) < 2
        self._note.disabled = self._mark.disabled = not self._found
        self._save.disabled = not self._found or self._notes_file is None
        if not self._found:
            self._place.value, self._body.value, self._note.value = "no example fits", "", ""
            self._mark.value = False
            return
        pair = self._pairs[self._found[self._at]]
        self._place.value = f"{wording.count(self._at + 1)} of {wording.count(len(self._found))}"
        self._body.value = side_by_side(pair, flaky=self._flaky.get(pair.example_id, ""))
        self._note.value = self._notes.get(pair.example_id, "")
        self._mark.value = pair.example_id in self._marked

    def _leave(self) -> None:
        """Saves what was typed on the example that stood here, if anything was."""
        self._saved.value = ""
        if self._found and self._note.value != self._kept.get(self._here, ""):
            self._save_note()

    @property
    def _here(self) -> str:
        return self._pairs[self._found[self._at]].example_id

    def _keep_mark(self) -> None:
        """Keeps a changed mark at once, and the note with it; showing another example changes none."""
        if not self._found or self._mark.value == (self._here in self._marked):
            return
        (self._marked.add if self._mark.value else self._marked.discard)(self._here)
        self._save_note()

    def _save_note(self) -> None:
        if not self._found:
            return
        here, self._notes[self._here] = self._here, self._note.value
        if self._notes_file is None:
            return
        try:
            is_marked = here in self._marked
            write_note(self._notes_file, here, self._note.value, marked=is_marked)
            self._kept[here] = self._note.value
            self._saved.value = f"note on {wording.visible(here)} saved to {self._notes_file.name}"
        except DataError as why:
            self._saved.value = f"NOT SAVED: note on {wording.visible(here)} ({why})"


def select(pairs: Sequence[Pair], texts: Sequence[str], chosen: Filter) -> list[int]:
    """Positions of the examples that fit, the largest loss first when a metric is chosen."""
    words = chosen.text.casefold().split()
    fits = [
        index
        for index, pair in enumerate(pairs)
        if chosen.status in (ALL, pair.status)
        and (chosen.slice_value == ALL or chosen.slice_value in _slice_values(pair))
        and all(word in texts[index] for word in words)
    ]
    if chosen.metric:
        fits.sort(key=lambda index: _loss(pairs[index], chosen.metric))
    return fits


def side_by_side(pair: Pair, *, flaky: str = "") -> str:
    """One example as safe HTML: the whole conversation, expected answer and both answers with their differences marked."""
    facts = [pair.status, *sorted(_slice_values(pair)), *([flaky] if flaky else [])]
    texts = marked(pair.base.predicted, pair.fine_tuned.predicted)
    sides = zip(("Base", "Fine-tuned"), (pair.base, pair.fine_tuned), texts, strict=True)
    answers = "".join(
        f"<section><h3>{name} <small>{html.escape(_outcome(one))}</small></h3>{_block(name, one.predicted, safe)}</section>"
        for name, one, safe in sides
    )
    expected = pair.base.expected
    asked = (
        f"<h3>Input</h3>{_given(pair.base.prompt)}"
        f"<h3>Expected</h3>{_block('Expected', expected, wording.render_text(expected))}"
    )
    return (
        f'<div class="ek-pair"><p><b>{wording.render_text(pair.example_id)}</b> · '
        f'{wording.render_text(" · ".join(facts))}</p>{asked}<div class="ek-sides">{answers}</div></div>'
    )


def read_notes(path: Path | None) -> dict[str, str]:
    """The latest note of each example; what is no note is passed over with a warning."""
    return {example_id: str(row["note"]) for example_id, row in _latest(path).items()}


def read_marks(path: Path | None) -> set[str]:
    """Ids of the examples whose latest note says that they are marked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reading the notes has warned already
        return {example_id for example_id, row in _latest(path).items() if row.get("marked")}


def _latest(path: Path | None) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    if path is None or not path.exists():
        return found
    for number, _, line in lines(path):
        try:
            row: Any = json.loads(line)
            found[row["example_id"]] = {"note": row["note"], "marked": row.get("marked")}
        except (ValueError, TypeError, KeyError) as why:  # the other notes must still show
            warnings.warn(
                wording.visible(f"{path}:{number}: not a note ({why}); passed over"), stacklevel=3
            )
    return found


def write_note(path: Path, example_id: str, note: str, *, marked: bool = False) -> None:
    """Appends one note as a JSON line.

    Raises:
        DataError: It cannot be written.
    """
    row = {
        "example_id": example_id,
        "note": without_secrets(wording.cleaned(note)[0]),
        **({"marked": True} if marked else {}),
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    append_line(path, json.dumps(row).encode())


def _given(messages: Messages) -> str:
    """A lone text in a box as answers are; of several messages the long ones are folded, so that the last is in sight."""
    safe = conversation_html(messages, folds_last=len(messages) > 1)
    text = conversation_text(messages) if len(messages) == 1 else ""
    return _block("Input", text, safe)


def _block(name: str, text: str, safe: str) -> str:
    """A text as it is; a long one in a box of its own that scrolls, by keyboard too."""
    if len(text) < LONG and text.count("\n") < LONG_LINES:
        return f'<div class="ek-block">{safe}</div>'
    return (
        f'<div class="ek-block ek-long" tabindex="0" role="group" aria-label="{name}">{safe}</div>'
    )


def _outcome(result: EvalResult) -> str:
    return (
        ("right" if result.exact_match else "wrong") if result.outcome == "ok" else result.outcome
    )


def _slice_values(pair: Pair) -> set[str]:
    return {f"{name} = {value}" for name, value in pair.base.slices.items()}


def _loss(pair: Pair, metric: str) -> float:
    diff = pair.diff(metric)
    return 0.0 if diff is None else diff


def _searchable(pair: Pair) -> str:
    parts = (
        pair.example_id,
        conversation_text(pair.base.prompt),
        pair.base.expected,
        pair.base.predicted,
        pair.fine_tuned.predicted,
    )
    return "\n".join(parts).casefold()
