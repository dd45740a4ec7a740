"""Which of the compared examples are looked at, in which order, what somebody keeps on them, and what goes on from there."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pandas as pd

from evalkit import wording
from evalkit.answers.pairs import Pair
from evalkit.benchmark.frames import example_record, examples_frame
from evalkit.conversation import conversation_text
from evalkit.files import append_line, lines, write_whole
from evalkit.redaction import without_secrets

ALL, CHANGE = "all", "change"
MARKED, NOTED, TAG = "marked", "with a note", "tag: "
STATUSES = ("regressed", "fixed", "both wrong", "both right", "undefined")
TAKEN = ("latency_ms", "completion_tokens")  # sorted by like metrics, the largest as the worst
Others = Mapping[str, Mapping[str, Pair]]


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
            found[row["example_id"]] = msgspec.convert(row, Kept)
        except (ValueError, TypeError, KeyError) as why:  # the others must show
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
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    said = {name: value for name, value in row.items() if value or name == "note"}
    append_line(path, json.dumps(said).encode())


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
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
        text = "".join(json.dumps(self._record(one)) + "\n" for one in self.pairs)
        return write_whole(path, text.encode())

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
    among: Selection,
    chosen: Filter,
    texts: Sequence[str],
    *,
    lower_is_better: Sequence[str] = (),
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
