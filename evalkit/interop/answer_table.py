"""Answers in a table, as pandas and Hugging Face datasets write one, by the names of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject
from evalkit.interop import fields
from evalkit.interop.logs import Log, Row
from evalkit.wording import listed

SEPARATORS = {".csv": ",", ".tsv": "\t"}
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("example_id", "id", "question_id", "sample_id", "idx", "index", "key"),
    "input": ("input", "input_text", "prompt", "question", "instruction", "query"),
    "expected": (
        "expected",
        "target",
        "ideal",
        "reference",
        "label",
        "gold",
        "ground_truth",
        "answer",
    ),
    "predicted": (
        "predicted",
        "prediction",
        "output",
        "response",
        "completion",
        "generated_text",
        "model_output",
    ),
    "sample": ("sample", "epoch", "repeat"),
    "error": ("error",),
    "model": ("model", "model_name"),
    "finish_reason": ("finish_reason", "stop_reason"),
    "latency_ms": ("latency_ms",),
    "prompt_tokens": ("prompt_tokens",),
    "completion_tokens": ("completion_tokens",),
}
_COUNTS = {"sample", "latency_ms", "prompt_tokens", "completion_tokens"}


def read(path: Path, columns: Mapping[str, str], rows: list[JsonObject] | None = None) -> Log:
    """The answers of a CSV or Parquet file, as pandas and Hugging Face datasets write them, or of rows of JSON.

    Raises:
        DesignError: A column that was named is not there, or several could be meant.
        DataError: It is no whole table, or no column can be the id, or the answer.
    """
    separator = SEPARATORS.get(path.suffix.lower())
    try:
        if rows is not None:
            frame = pd.DataFrame.from_records(rows)
        elif separator:
            # texts as they stand: "007" is an id and an answer, not 7
            frame = pd.read_csv(
                path, sep=separator, dtype=str, keep_default_na=False, na_values=[""]
            )
        else:
            frame = pd.read_parquet(path)
    except (ValueError, OSError) as why:
        raise DataError(f"{path}: not a whole table ({why}); export it again") from why
    return _log(path, frame, columns)


def _log(path: Path, frame: pd.DataFrame, columns: Mapping[str, str]) -> Log:
    """The answers of a table; further numbers are scores, further short texts slices."""
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    found = _columns_found(path, list(frame.columns), columns)
    others = [name for name in frame.columns if name not in found.values()]
    numbers = [name for name in others if _are_numbers(frame.loc[:, name])]
    texts = [
        name
        for name in others
        if name not in numbers and frame[name].drop_duplicates().size <= len(frame) / 2
    ]
    models = frame[found["model"]].dropna().unique() if "model" in found else ()
    if len(models) > 1:
        names = listed([repr(str(one)) for one in models])
        raise DesignError(f"{path}: answers of several models, {names}; one file a model")
    rows = []
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    for place, one in enumerate(records, start=1):
        known = {what: one[name] for what, name in found.items()}
        if known["id"] is None:
            raise DataError(f"{path}: row {place} has no {found['id']}; give each row an id")
        for what in _COUNTS & known.keys():
            if known[what] is not None and fields.number(known[what]) is None:
                told = f"{found[what]} is {known[what]!r}, need a number"
                raise DataError(f"{path}: row {place}: {told}; name another column with --columns")
        rows.append(_row(known, one, numbers, texts))
    return Log(path=path, tool="table", model="".join(map(str, models)), rows=tuple(rows))


def _are_numbers(column: pd.Series) -> bool:
    """Also of a CSV, whose cells are texts: numbers, or true and false; letters may be any label."""
    if column.dtype.kind in "iufb":
        return True
    told = {str(one).lower() for one in column.dropna()}
    return bool(told) and all(
        fields.number(one) is not None and (not one.isalpha() or one in {"true", "false"})
        for one in told
    )


def _columns_found(path: Path, there: list[str], given: Mapping[str, str]) -> dict[str, str]:
    if missing := [column for column in given.values() if column not in there]:
        raise DesignError(f"{path}: no column {missing[0]!r}; it has {listed(there) or 'none'}")
    if unknown := [name for name in given if name not in COLUMNS]:
        raise DesignError(f"{path}: {unknown[0]!r} is none of {listed(list(COLUMNS))}")
    found = dict(given)
    lower = {name.lower(): name for name in reversed(there)}
    for what, usual in COLUMNS.items():
        could_be = [lower[name] for name in usual if name in lower]
        could_be = [name for name in could_be if name not in found.values()]
        if what in found or not could_be:
            continue
        if len(could_be) > 1 and what != "id":
            several = listed([repr(name) for name in could_be])
            told = f"{what} could be {several}; say which: --columns {what}=NAME"
            raise DesignError(f"{path}: {told}")
        found[what] = could_be[0]
    if lacks := next((what for what in ("id", "predicted") if what not in found), ""):
        told = f"no column is known to hold the {lacks}; it has {listed(there) or 'none'}"
        raise DataError(f"{path}: {told}; --columns {lacks}=NAME")
    return found


def _row(known: JsonObject, one: JsonObject, numbers: list[str], texts: list[str]) -> Row:
    asked, right = known.get("input"), known.get("expected")
    count = {what: fields.number(known.get(what)) for what in _COUNTS}
    prompt, completion = (
        None if count[name] is None else int(count[name] or 0)
        for name in ("prompt_tokens", "completion_tokens")
    )
    return Row(
        example_id=str(known["id"]),
        sample=int(count["sample"] or 0),
        messages=fields.user_says(fields.text_of(asked)) if asked is not None else (),
        expected=fields.texts_of(right if isinstance(right, list) else [right]),
        answer=fields.answered(
            fields.text_of(known["predicted"]),
            error=fields.text_of(known.get("error")),
            finish_reason=known.get("finish_reason"),
            latency_ms=count["latency_ms"],
            prompt_tokens=prompt,
            completion_tokens=completion,
        ),
        scores=fields.scores_of("table", [(name, one[name]) for name in numbers]),
        slices={name: fields.text_of(one[name]) for name in texts if one[name] is not None},
    )
