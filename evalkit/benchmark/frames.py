"""A comparison as tidy pandas frames and as files of examples, and a frame of answers as results."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from evalkit import stats
from evalkit.answers import scoring
from evalkit.answers.metrics import Pair
from evalkit.conversation import conversation_text
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, to_line
from evalkit.records import EvalResult
from evalkit.wording import cleaned, for_spreadsheet, listed, visible, without_secrets_in

MODELS = ("base", "fine-tuned")
STATUSES = ("regressed", "fixed", "both wrong", "both right")
OUTCOMES = ("ok", "truncated", "refused", "empty", "oversized", "error")
NO_VALUE = "(not given)"
ALL = "all examples"
_NEEDED = ("example_id", "input_text", "expected", "predicted")
_FACTS = ("outcome", "latency_ms", "prompt_tokens", "completion_tokens", "cluster")
_OURS = ("model", "fine_tuned", "right", "slice")  # say nothing of an answer by itself
_TRUE_OR_FALSE = ("exact_match", "format", "format_correct")
_ANSWER = {*_NEEDED, *_FACTS, *_OURS}
_SIDES = ("answer_base", "answer_fine_tuned", "outcome_base", "outcome_fine_tuned")
_EXAMPLE = {"example_id", "status", "slice", "cluster", "input", "messages", "expected", *_SIDES}
_ASKED = ("example_id", "status", "input", "expected", "base", "fine_tuned", "similarity_drop")
_TOLD = ("base_outcome", "fine_tuned_outcome", "slices", "asked_again")
_Columns = dict[str, object]


def answers_frame(pairs: Sequence[Pair], names: Iterable[str], *, field: str = "") -> pd.DataFrame:
    """One row an answer, as formulas and seaborn want it; `Comparison.to_frame` says what the columns hold."""
    both = [*(one.base for one in pairs), *(one.fine_tuned for one in pairs)]
    known = [None if one.status == "undefined" else one.status for one in pairs]
    right = [one and one in {"both right", side} for side in STATUSES[:2] for one in known]
    columns: _Columns = {
        "example_id": _category(one.example_id for one in (*pairs, *pairs)),
        "model": pd.Categorical(np.repeat(MODELS, len(pairs)), categories=MODELS),
        "fine_tuned": np.repeat([0, 1], len(pairs)),
        "right": pd.array(right, dtype="boolean"),
    }
    for name in names:
        values = [one.base_values.get(name) for one in pairs]
        values += [one.fine_tuned_values.get(name) for one in pairs]
        columns[_free(name, "metric_", {*_ANSWER, *columns})] = np.array(values, dtype=float)
    for name, values in slice_columns(pairs, field, {*_ANSWER, *columns}):
        columns[name] = _category(values * 2)
    columns["outcome"] = pd.Categorical([one.outcome for one in both], categories=OUTCOMES)
    for name in _FACTS[1:4]:
        dtype = "Float64" if name == "latency_ms" else "Int64"
        columns[name] = pd.array([getattr(one, name) for one in both], dtype=dtype)
    columns["cluster"] = _category(one.cluster for one in (*pairs, *pairs))
    columns |= {name: _texts(getattr(one, name) for one in both) for name in _NEEDED[1:]}
    return pd.DataFrame(columns)


def examples_frame(pairs: Sequence[Pair], names: Iterable[str], *, field: str = "") -> pd.DataFrame:
    """One row an example, as people read it; `Comparison.to_frame` says what the columns hold."""
    known = [one.status if one.status in STATUSES else None for one in pairs]
    columns: _Columns = {
        "example_id": _category(one.example_id for one in pairs),
        "status": pd.Categorical(known, categories=STATUSES),
    }
    for name in names:
        values = {
            "base": [one.base_values.get(name) for one in pairs],
            "fine_tuned": [one.fine_tuned_values.get(name) for one in pairs],
            "change": [one.diff(name) for one in pairs],
        }
        for side, numbers in values.items():
            free = _free(f"{name}_{side}", "metric_", {*_EXAMPLE, *columns})
            columns[free] = np.array(numbers, dtype=float)
    for name, values in slice_columns(pairs, field, {*_EXAMPLE, *columns}):
        columns[name] = _category(values)
    columns["input"] = _texts(conversation_text(one.base.prompt) for one in pairs)
    columns["expected"] = _texts(one.base.expected_text for one in pairs)
    sides = {"base": [one.base for one in pairs], "fine_tuned": [one.fine_tuned for one in pairs]}
    for side, made in sides.items():
        columns[f"answer_{side}"] = _texts(one.predicted for one in made)
    for side, made in sides.items():
        outcomes = pd.Categorical([one.outcome for one in made], categories=OUTCOMES)
        columns[f"outcome_{side}"] = outcomes
    columns["cluster"] = _category(one.cluster for one in pairs)
    columns["messages"] = pd.Series([[dict(m) for m in p.base.prompt] for p in pairs], dtype=object)
    return pd.DataFrame(columns)


def typed(rows: Iterable[Mapping[str, object]], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """Rows as a frame of these columns, typed also where there is no row."""
    return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)


def slice_columns(
    pairs: Sequence[Pair], field: str, taken: set[str]
) -> Iterator[tuple[str, list[str]]]:
    """The column `slice` by one field, the first by default, then every field's own values."""
    fields = slice_fields(pairs, [field] if field else [])
    field = field or next(iter(fields), "")
    yield "slice", labels(pairs, field) if field else [ALL] * len(pairs)
    for name in fields:
        free = _free(name, "slice_", taken)
        taken = {*taken, free}
        yield free, _texts(value_of(one, name) for one in pairs)


def slice_fields(pairs: Sequence[Pair], asked: Sequence[str] = ()) -> list[str]:
    """The slice fields that the examples carry; those asked for must be among them."""
    known = list(dict.fromkeys(name for one in pairs for name in one.base.slices))
    if pairs and (unknown := [name for name in asked if name not in known]):
        wanted = ",".join(dict.fromkeys([*known, *unknown]))
        raise DesignError(
            f"slice field {unknown[0]!r}: no example carries it; known are {', '.join(known) or 'none'}. Other fields of "
            f'the test set are read where they are named: Study.open(..., slice_fields="{wanted}")'
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
    return visible(cleaned(f"{field} = {value}")[0])


def results_of(frame: pd.DataFrame, side: str) -> list[EvalResult]:
    """A frame with a row an answer as results; `compare_models` says what its columns mean.

    Raises:
        DataError: A needed column is missing, a cell of it is empty, or a score is no number from 0 to 1.
    """
    columns = [str(name) for name in frame.columns]
    if lacking := [name for name in _NEEDED if name not in columns]:
        has = listed(columns) or "none"
        raise DataError(f"{side} frame: no column {listed(lacking)}; it has {has}")
    known = _ANSWER | {*_TRUE_OR_FALSE, "sample"}
    others = {name: is_numeric_dtype(frame[name]) for name in columns if name not in known}
    scores = [name for name, is_number in others.items() if is_number]
    slices = [name for name in others if name not in scores]
    _check_scores(frame, scores, side)
    results = []
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        who, answer = row["example_id"], row["predicted"]
        if (empty := [name for name in _NEEDED if row[name] is None]) and empty != ["predicted"]:
            raise DataError(f"{side} frame: example {who!r} has no {empty[0]}")
        outcome = row.get("outcome") or ("empty" if answer is None else "ok")
        expected, predicted = str(row["expected"]), str(answer or "")
        matched, form = row.get("exact_match"), row.get("format_correct", row.get("format"))
        if matched is None:
            matched = outcome == "ok" and scoring.exact(expected, predicted)
        facts: JsonObject = {name: row.get(name) for name in _FACTS[1:4]}
        # a frame of ours names the example itself where it shares none
        cluster = row.get("cluster")
        results.append(
            EvalResult(
                who if isinstance(who, int) else str(who),
                str(row["input_text"]),
                expected,
                predicted,
                bool(matched),
                None if form is None else bool(form),
                outcome=outcome,
                sample=int(row.get("sample") or 0),
                scores={name: None if row[name] is None else float(row[name]) for name in scores},
                slices={name: str(row[name]) for name in slices if row[name] is not None},
                cluster=None if cluster is None or str(cluster) == str(who) else str(cluster),
                **facts,
            )
        )
    return results


def _check_scores(frame: pd.DataFrame, scores: Iterable[str], side: str) -> None:
    """A score is a number from 0 to 1; what is true or false is nothing between."""
    for name in (*scores, *({*_TRUE_OR_FALSE} & set(frame.columns))):
        needs, right = "a number from 0 to 1 (or a text, to cut by it)", range(0)
        if name in _TRUE_OR_FALSE:
            needs, right = "true or false, of several samples one row each", (0, 1)
        for who, value in frame[["example_id", name]].dropna().itertuples(index=False):
            is_number = isinstance(value, Real | np.bool_)
            given = float(value) if is_number else np.nan
            if not 0 <= given <= 1 or (right and given not in right):
                said = f"{value:g}" if is_number else visible(repr(value)[:40])
                raise DataError(
                    f"{side} frame: column {name!r} holds {said} for example {str(who)!r}; need {needs}"
                )


def _free(name: str, prefix: str, taken: set[str]) -> str:
    """The name itself, or with a prefix where a column of ours has it."""
    name = cleaned(name)[0]
    while name in taken:
        name = prefix + name
    return name


def _category(values: Iterable[str]) -> pd.Categorical:
    """Categories in the order of their first value."""
    texts = _texts(values)
    return pd.Categorical(texts, categories=list(dict.fromkeys(texts)))


def _texts(values: Iterable[str]) -> list[str]:
    return [cleaned(str(one))[0] for one in values]


def example_record(pair: Pair, *, asked_again: str = "not re-asked") -> JsonObject:
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
        "slices": {name: str(value) for name, value in base.slices.items()},
        "asked_again": asked_again,
    }


def write_examples(
    pairs: Iterable[Pair], marks: Mapping[str, str], folder: Path, name: str = "regressed"
) -> Sequence[Path]:
    """Writes `<name>.csv` and `<name>.jsonl`; in the CSV nothing is a formula and unseen characters stand as codes."""
    again = [(one, marks.get(one.example_id, "not re-asked")) for one in pairs]
    records = without_secrets_in([example_record(one, asked_again=mark) for one, mark in again])
    folder.mkdir(parents=True, exist_ok=True)
    table, lines = folder / f"{name}.csv", folder / f"{name}.jsonl"
    lines.write_bytes(b"".join(to_line(one) + b"\n" for one in records))
    with table.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, (*_ASKED, *_TOLD), extrasaction="ignore")
        writer.writeheader()
        writer.writerows({k: _for_people(one) for k, one in row.items()} for row in records)
    return table, lines


def _for_people(value: object) -> object:
    if isinstance(value, Mapping):
        value = "; ".join(f"{name} = {one}" for name, one in value.items())
    return for_spreadsheet(visible(cleaned(value)[0])) if isinstance(value, str) else value
