"""The examples that changed, as files: CSV for people and spreadsheets, JSONL for programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit import wording
from evalkit.answers.pairs import Pair
from evalkit.conversation import conversation_text
from evalkit.redaction import without_secrets_in


def example_record(pair: Pair, *, asked_again: str = "not re-asked") -> dict[str, Any]:
    """One changed example, raw; `input` is the whole conversation as text, `messages` the same as it was sent."""
    diff, base, tuned = pair.diff("similarity"), pair.base, pair.fine_tuned
    return {
        "example_id": pair.example_id,
        "status": pair.status,
        "input": conversation_text(base.prompt),
        "messages": [dict(message) for message in base.prompt],
        "expected": base.expected_text,
        "base": base.predicted,
        "fine_tuned": tuned.predicted,
        "similarity_drop": None if diff is None else -diff,
        "base_outcome": base.outcome,
        "fine_tuned_outcome": tuned.outcome,
        "slices": dict(base.slices),
        "asked_again": asked_again,
    }


def write_examples(
    pairs: Iterable[Pair], marks: Mapping[str, str], folder: Path, name: str = "regressed"
) -> Sequence[Path]:
    """Writes `<name>.csv` and `<name>.jsonl`; in the CSV nothing is a formula and unseen characters stand as codes."""
    records = without_secrets_in(
        [
            example_record(one, asked_again=marks.get(one.example_id, "not re-asked"))
            for one in pairs
        ]
    )
    folder.mkdir(parents=True, exist_ok=True)
    table, lines = folder / f"{name}.csv", folder / f"{name}.jsonl"
    lines.write_text(
        "".join(json.dumps(one, ensure_ascii=True) + "\n" for one in records), encoding="utf-8"
    )
    with table.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows([_for_people(one[column]) for column in _COLUMNS] for one in records)
    return table, lines


_COLUMNS = (
    "example_id",
    "status",
    "input",
    "expected",
    "base",
    "fine_tuned",
    "similarity_drop",
    "base_outcome",
    "fine_tuned_outcome",
    "slices",
    "asked_again",
)


def _for_people(value: object) -> Any:
    if isinstance(value, Mapping):
        value = "; ".join(f"{name} = {one}" for name, one in value.items())
    return (
        wording.for_spreadsheet(wording.visible(wording.cleaned(value)[0]))
        if isinstance(value, str)
        else value
    )
