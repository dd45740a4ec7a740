"""A comparison as tidy pandas frames, and a frame of answers as results."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit import stats, wording
from evalkit.answers.pairs import Pair
from evalkit.conversation import conversation_text
from evalkit.errors import DataError, DesignError
from evalkit.records import EvalResult
from evalkit.redaction import without_secrets_in

if TYPE_CHECKING:
    import pandas as pd

MODELS = ("base", "fine-tuned")
STATUSES = ("regressed", "fixed", "both wrong", "both right")
OUTCOMES = ("ok", "truncated", "refused", "empty", "oversized", "error")
NO_VALUE = "(not given)"
ALL = "all examples"
_NEEDED = ("example_id", "input_text", "expected", "predicted")
_FACTS = ("outcome", "latency_ms", "prompt_tokens", "completion_tokens", "cluster")
_OURS = ("model", "fine_tuned", "right", "slice")  # say nothing of an answer by itself
_ANSWER = {*_NEEDED, *_FACTS, *_OURS}
_SIDES = ("answer_base", "answer_fine_tuned", "outcome_base", "outcome_fine_tuned")
_EXAMPLE = {"example_id", "status", "slice", "cluster", "input", "messages", "expected", *_SIDES}


def answers_frame(pairs: Sequence[Pair], names: Iterable[str], *, field: str = "") -> pd.DataFrame:
    """One row an answer, as formulas and seaborn want it; `Comparison.to_frame` says what the columns hold."""
    import pandas as pd

    both = [*(one.base for one in pairs), *(one.fine_tuned for one in pairs)]
    columns: dict[str, Any] = {
        "example_id": _category([one.example_id for one in pairs] * 2),
        "model": pd.Categorical([one for one in MODELS for _ in pairs], categories=MODELS),
        "fine_tuned": pd.array([one for one in (0, 1) for _ in pairs], dtype="int64"),
        "right": pd.array(
            [
                None if one.status == "undefined" else one.status in {"both right", side}
                for side in STATUSES[:2]
                for one in pairs
            ],
            dtype="boolean",
        ),
    }
    for name in names:
        values = [one.base_values.get(name) for one in pairs]
        values += [one.fine_tuned_values.get(name) for one in pairs]
        columns[_free(name, "metric_", _ANSWER, columns)] = _numbers(values)
    for name, values in slice_columns(pairs, field, _ANSWER | {*columns}):
        columns[name] = _category(values * 2)
    columns |= {
        "outcome": pd.Categorical([one.outcome for one in both], categories=OUTCOMES),
        "latency_ms": pd.array([one.latency_ms for one in both], dtype="Float64"),
        "prompt_tokens": pd.array([one.prompt_tokens for one in both], dtype="Int64"),
        "completion_tokens": pd.array([one.completion_tokens for one in both], dtype="Int64"),
        "cluster": _category([one.cluster for one in pairs] * 2),
    }
    columns |= {name: _texts(getattr(one, name) for one in both) for name in _NEEDED[1:]}
    return pd.DataFrame(columns)


def examples_frame(pairs: Sequence[Pair], names: Iterable[str], *, field: str = "") -> pd.DataFrame:
    """One row an example, as people read it; `Comparison.to_frame` says what the columns hold."""
    import pandas as pd

    columns: dict[str, Any] = {
        "example_id": _category([one.example_id for one in pairs]),
        "status": pd.Categorical(
            [one.status if one.status in STATUSES else None for one in pairs], categories=STATUSES
        ),
    }
    for name in names:
        values = {
            "base": [one.base_values.get(name) for one in pairs],
            "fine_tuned": [one.fine_tuned_values.get(name) for one in pairs],
            "change": [one.diff(name) for one in pairs],
        }
        for side, numbers in values.items():
            columns[_free(f"{name}_{side}", "metric_", _EXAMPLE, columns)] = _numbers(numbers)
    for name, values in slice_columns(pairs, field, _EXAMPLE | {*columns}):
        columns[name] = _category(values)
    columns |= {
        "input": _texts(conversation_text(one.base.prompt) for one in pairs),
        "expected": _texts(one.base.expected_text for one in pairs),
        "answer_base": _texts(one.base.predicted for one in pairs),
        "answer_fine_tuned": _texts(one.fine_tuned.predicted for one in pairs),
    }
    for side in ("base", "fine_tuned"):
        made = [getattr(one, side).outcome for one in pairs]
        columns[f"outcome_{side}"] = pd.Categorical(made, categories=OUTCOMES)
    columns["cluster"] = _category([one.cluster for one in pairs])
    columns["messages"] = pd.Series([[dict(m) for m in p.base.prompt] for p in pairs], dtype=object)
    return pd.DataFrame(columns)


def slice_columns(
    pairs: Sequence[Pair], field: str, taken: set[str]
) -> Iterator[tuple[str, list[str]]]:
    """The column `slice` by one field, the first by default, then every field's own values."""
    fields = slice_fields(pairs, [field] if field else [])
    field = field or next(iter(fields), "")
    yield "slice", labels(pairs, field) if field else [ALL] * len(pairs)
    for name in fields:
        free = _free(name, "slice_", taken, {})
        taken = {*taken, free}
        yield free, _texts(value_of(one, name) for one in pairs)


def slice_fields(pairs: Sequence[Pair], asked: Sequence[str] = ()) -> list[str]:
    """The slice fields that the examples carry; those asked for must be among them."""
    known = list(dict.fromkeys(name for one in pairs for name in one.base.slices))
    if pairs and (unknown := [name for name in asked if name not in known]):
        raise DesignError(
            f"slice field {unknown[0]!r}: no example carries it; known are {', '.join(known) or 'none'}. Other fields of "
            'the test set are read where they are named: Study.open(..., slice_fields="kind,style")'
        )
    return known


def value_of(pair: Pair, field: str) -> str:
    """An example's value of a slice field."""
    return str(pair.base.slices.get(field, NO_VALUE))


def shown_values(pairs: Sequence[Pair], field: str) -> dict[str, str]:
    """A field's values with the names they are shown under: beyond the largest, all others count together."""
    return dict(stats.folded([value_of(one, field) for one in pairs], keep=[NO_VALUE]))


def labels(pairs: Sequence[Pair], field: str) -> list[str]:
    """`field = value` of each example as tables and figures show it."""
    shown = shown_values(pairs, field)
    return [label(field, shown[value_of(one, field)]) for one in pairs]


def label(field: str, value: str) -> str:
    """A slice's name, fit to be drawn: unseen and unstorable characters stand as codes."""
    return wording.visible(wording.cleaned(f"{field} = {value}")[0])


def results_of(frame: pd.DataFrame, side: str) -> list[EvalResult]:
    """A frame with a row an answer as results; `compare_models` says what its columns mean.

    Raises:
        DataError: A needed column is missing, a cell of it is empty, or a score is no number from 0 to 1.
    """
    from evalkit.answers import metrics

    if lacking := [name for name in _NEEDED if name not in frame.columns]:
        raise DataError(
            f"{side} frame: no column {wording.listed(lacking)}; it has "
            f"{wording.listed([str(name) for name in frame.columns]) or 'none'}"
        )
    scores, slices = _scores(frame, side), _slices(frame)
    results = []
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        if (empty := [name for name in _NEEDED if row[name] is None]) and empty != ["predicted"]:
            raise DataError(f"{side} frame: example {row['example_id']!r} has no {empty[0]}")
        outcome = row.get("outcome") or ("ok" if row["predicted"] is not None else "empty")
        expected, predicted = str(row["expected"]), str(row["predicted"] or "")
        matched = row.get("exact_match")
        form = row.get("format_correct", row.get("format"))
        results.append(
            EvalResult(
                row["example_id"] if isinstance(row["example_id"], int) else str(row["example_id"]),
                str(row["input_text"]),
                expected,
                predicted,
                outcome == "ok" and metrics.exact(expected, predicted)
                if matched is None
                else bool(matched),
                None if form is None else bool(form),
                outcome=outcome,
                sample=int(row.get("sample") or 0),
                scores={name: None if row[name] is None else float(row[name]) for name in scores},
                slices={name: str(row[name]) for name in slices if row[name] is not None},
                cluster=_own_cluster(row),
                latency_ms=row.get("latency_ms"),
                prompt_tokens=row.get("prompt_tokens"),
                completion_tokens=row.get("completion_tokens"),
            )
        )
    return results


def _scores(frame: pd.DataFrame, side: str) -> list[str]:
    from pandas.api.types import is_numeric_dtype

    named = [one for one in _others(frame) if is_numeric_dtype(frame[one])]
    for name in named:
        wrong = [
            (who, value)
            for who, value in zip(frame["example_id"], frame[name].astype(float), strict=True)
            if value < 0 or value > 1
        ]
        if wrong:
            raise DataError(
                f"{side} frame: column {name!r} holds {wrong[0][1]:g} for example {str(wrong[0][0])!r}; a score is "
                "a number from 0 to 1: drop the column, or give it as text to cut by it"
            )
    return named


def _slices(frame: pd.DataFrame) -> list[str]:
    from pandas.api.types import is_numeric_dtype

    return [one for one in _others(frame) if not is_numeric_dtype(frame[one])]


def _others(frame: pd.DataFrame) -> list[str]:
    known = _ANSWER | {"exact_match", "format", "format_correct", "sample"}
    return [name for name in map(str, frame.columns) if name not in known]


def _own_cluster(row: dict[str, Any]) -> str | None:
    """The source an example shares; a frame of ours names the example itself where it shares none."""
    cluster = row.get("cluster")
    return None if cluster is None or str(cluster) == str(row["example_id"]) else str(cluster)


def _free(name: str, prefix: str, *taken: Iterable[str]) -> str:
    """The name itself, or with a prefix where a column of ours has it."""
    used = {one for some in taken for one in some}
    name = wording.cleaned(name)[0]
    while name in used:
        name = prefix + name
    return name


def _category(values: Sequence[str]) -> Any:
    """Categories in the order of their first value."""
    import pandas as pd

    texts = _texts(values)
    return pd.Categorical(texts, categories=list(dict.fromkeys(texts)))


def _numbers(values: Iterable[float | None]) -> Any:
    """Plain floats, for formulas read no others; NaN where undefined."""
    import numpy as np

    return np.array([np.nan if one is None else one for one in values], dtype=float)


def _texts(values: Iterable[str]) -> list[str]:
    return [wording.cleaned(str(one))[0] for one in values]


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
