"""Which of the compared examples are looked at, in which order, and what goes on from there: a frame, a JSONL file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit import wording
from evalkit.answers.pairs import Pair
from evalkit.benchmark.frames import example_record, examples_frame
from evalkit.conversation import conversation_text
from evalkit.files import write_whole
from evalkit.show.notes import Kept

if TYPE_CHECKING:
    import pandas as pd

ALL, CHANGE = "all", "change"
MARKED, NOTED, TAG = "marked", "with a note", "tag: "
STATUSES = ("regressed", "fixed", "both wrong", "both right", "undefined")
TAKEN = ("latency_ms", "completion_tokens")  # sorted by like metrics, the largest as the worst
Others = Mapping[str, Mapping[str, Pair]]


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
    """What a filter leaves of the compared examples, with what was kept on them.

    Attributes:
        pairs: The examples, in the order of stepping.
        metrics: Names of the metrics that become columns.
        kept: Example id to its note, tags and mark.
        flaky: Example id to "flips", "stable" or "not re-asked", from the noise floor.
        others: Further models by name: example id to the pair of base and that model.
    """

    pairs: Sequence[Pair]
    metrics: Sequence[str]
    kept: Mapping[str, Kept]
    flaky: Mapping[str, str]
    others: Others = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pairs)

    def to_frame(self) -> pd.DataFrame:
        """One row an example, as `Comparison.to_frame(by="example")`, and what is kept on it.

        `asked_again`: category, missing where it was no regression; `marked`: nullable boolean; `tags` ("a, b") and `note`:
        text, missing where there is none; `answer_<model>`: text, of each further model.
        """
        import pandas as pd

        ids = [one.example_id for one in self.pairs]
        kept = [self.kept.get(one, Kept()) for one in ids]
        notes = [wording.cleaned(one.note)[0] or None for one in kept]
        tags = [wording.cleaned(", ".join(one.tags))[0] or None for one in kept]
        frame = examples_frame(self.pairs, self.metrics).assign(
            asked_again=pd.Categorical([self.flaky.get(one) for one in ids]),
            marked=pd.array([one.marked for one in kept], dtype="boolean"),
            tags=pd.array(tags, dtype="str"),
            note=pd.array(notes, dtype="str"),
        )
        for name, pairs in self.others.items():
            told = [wording.cleaned(_answer(pairs.get(one)))[0] or None for one in ids]
            frame[f"answer_{wording.cleaned(name)[0]}"] = pd.array(told, dtype="str")
        return frame

    def write(self, path: Path) -> Path:
        """A JSON line an example, as in `regressed.jsonl`, with its note, tags and mark, and each further model's answer.

        Raises:
            DataError: It cannot be written.
        """
        text = "".join(json.dumps(self._record(one)) + "\n" for one in self.pairs)
        return write_whole(path, text.encode())

    def _record(self, pair: Pair) -> dict[str, object]:
        here = pair.example_id
        kept = self.kept.get(here, Kept())
        again = {"asked_again": self.flaky[here]} if here in self.flaky else {}
        answers = {name: _answer(pairs.get(here)) for name, pairs in self.others.items()}
        own = {"marked": kept.marked, "tags": list(kept.tags), "note": kept.note}
        return example_record(pair, **again) | ({"others": answers} if answers else {}) | own


def select(
    pairs: Sequence[Pair],
    texts: Sequence[str],
    chosen: Filter,
    *,
    kept: Mapping[str, Kept] | None = None,
    others: Others | None = None,
    lower_is_better: Sequence[str] = (),
) -> list[int]:
    """Positions of the examples that fit, the worst first when a metric is chosen; where it is undefined they come last."""
    words = chosen.text.casefold().split()
    fits = [
        index
        for index, pair in enumerate(pairs)
        if chosen.status in (ALL, pair.status)
        and (chosen.slice_value == ALL or chosen.slice_value in slice_values(pair))
        and (chosen.kept == ALL or _is_kept((kept or {}).get(pair.example_id), chosen.kept))
        and all(word in texts[index] for word in words)
    ]
    if not chosen.metric:
        return fits
    lower = chosen.metric in (*TAKEN, *lower_is_better)
    turned = -1 if lower is not chosen.reverse else 1
    values = {index: _value(pairs[index], chosen, others or {}) for index in fits}
    known = {index: value * turned for index, value in values.items() if value is not None}
    return [*sorted(known, key=known.__getitem__), *(one for one in fits if one not in known)]


def slice_values(pair: Pair) -> set[str]:
    """An example's slices as "name = value"."""
    return {f"{name} = {value}" for name, value in pair.base.slices.items()}


def searchable(pair: Pair, others: Others) -> str:
    """All texts of an example, in lower case."""
    parts = (
        pair.example_id,
        conversation_text(pair.base.prompt),
        pair.base.expected_text,
        pair.base.predicted,
        pair.fine_tuned.predicted,
        *(_answer(pairs.get(pair.example_id)) for pairs in others.values()),
    )
    return "\n".join(parts).casefold()


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


def _is_kept(one: Kept | None, wanted: str) -> bool:
    if one is None:
        return False
    known = {MARKED: one.marked, NOTED: bool(one.note)}
    return known[wanted] if wanted in known else wanted.removeprefix(TAG) in one.tags


def _answer(pair: Pair | None) -> str:
    return pair.fine_tuned.predicted if pair else ""
