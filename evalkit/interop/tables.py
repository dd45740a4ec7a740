"""Tables of answers - CSV, Parquet, JSON rows, as pandas and Hugging Face datasets write them - by the names of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import DataError, DesignError
from evalkit.interop.log import Log, Row, answer_of, number, score_name, score_values, text_of
from evalkit.wording import listed

if TYPE_CHECKING:
    import pandas as pd

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
_NEEDED = ("id", "predicted")
_COUNTS = {"sample", "latency_ms", "prompt_tokens", "completion_tokens"}


def read(path: Path, frame: pd.DataFrame, columns: Mapping[str, str]) -> Log:
    """The answers of a table; further numbers are scores, further short texts slices.

    Args:
        path: The file, for messages.
        frame: Its rows.
        columns: Names of columns by what they hold (`id`, `input`, `expected`, `predicted` ...), where they are not the usual.

    Raises:
        DesignError: A column that was named is not there, or several could be meant.
        DataError: No column can be the id, or the answer.
    """
    found = _found(path, [str(name) for name in frame.columns], columns)
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    others = [name for name in frame.columns if name not in found.values()]
    numbers = [name for name in others if _are_numbers(frame[name])]
    texts: list[str] = [
        name
        for name in others
        if name not in numbers and frame[name].drop_duplicates().size <= len(frame) / 2
    ]
    models = frame[found["model"]].dropna().unique() if "model" in found else ()
    if len(models) > 1:
        raise DesignError(
            f"{path}: answers of several models, {listed([repr(str(one)) for one in models])}; one file a model"
        )
    return Log(
        path=path,
        tool="table",
        model="".join(map(str, models)),
        rows=tuple(
            _row({name: one[column] for name, column in found.items()}, one, numbers, texts)
            for one in _with_ids(path, records, found)
        ),
    )


def _are_numbers(column: Any) -> bool:
    """Also of a CSV, whose cells are texts: numbers, or true and false; letters may be any label."""
    if column.dtype.kind in "iufb":
        return True
    told = {str(one).lower() for one in column.dropna()}
    return bool(told) and all(
        number(one) is not None and (not one.isalpha() or one in {"true", "false"}) for one in told
    )


def _found(path: Path, there: list[str], given: Mapping[str, str]) -> dict[str, str]:
    unknown = [name for name in given if name not in COLUMNS]
    missing = [column for column in given.values() if column not in there]
    if unknown or missing:
        what = (
            f"no column {missing[0]!r}; it has {listed(there)}"
            if missing
            else f"{unknown[0]!r} is none of {listed(list(COLUMNS))}"
        )
        raise DesignError(f"{path}: {what}")
    found = dict(given)
    lower = {name.lower(): name for name in reversed(there)}
    for what, usual in COLUMNS.items():
        could_be = [
            lower[name] for name in usual if name in lower and lower[name] not in found.values()
        ]
        if what not in found and could_be:
            if len(could_be) > 1 and what != "id":
                several = listed([repr(name) for name in could_be])
                raise DesignError(
                    f"{path}: {what} could be {several}; say which: --columns {what}=NAME"
                )
            found[what] = could_be[0]
    lacks = [what for what in _NEEDED if what not in found]
    if lacks:
        raise DataError(
            f"{path}: no column is known to hold the {lacks[0]}; it has {listed(there)}; --columns {lacks[0]}=NAME"
        )
    return found


def _with_ids(
    path: Path, records: list[dict[Any, Any]], found: Mapping[str, str]
) -> Iterator[dict[Any, Any]]:
    """Each row, once its id is there and its counts are numbers."""
    for n, one in enumerate(records, start=1):
        if one[found["id"]] is None:
            raise DataError(f"{path}: row {n} has no {found['id']}; give each row an id")
        for what in _COUNTS & found.keys():
            if one[found[what]] is not None and number(one[found[what]]) is None:
                told = f"{found[what]} is {one[found[what]]!r}, need a number"
                raise DataError(f"{path}: row {n}: {told}; name another column with --columns")
        yield one


def _row(
    known: Mapping[str, Any], one: Mapping[str, Any], numbers: list[str], texts: list[str]
) -> Row:
    asked, expected = known.get("input"), known.get("expected")
    right = expected if isinstance(expected, list) else [expected]
    return Row(
        example_id=str(known["id"]),
        sample=int(number(known.get("sample")) or 0),
        messages=({"role": "user", "content": text_of(asked)},) if asked is not None else (),
        expected=tuple(text for text in map(text_of, right) if text.strip()),
        answer=answer_of(
            text_of(known["predicted"]),
            error=text_of(known.get("error")),
            finish_reason=known.get("finish_reason"),
            latency_ms=number(known.get("latency_ms")),
            prompt_tokens=_whole(known.get("prompt_tokens")),
            completion_tokens=_whole(known.get("completion_tokens")),
        ),
        scores={
            score_name(key, "table"): told
            for name in numbers
            for key, told in score_values(name, one[name])
        },
        slices={name: text_of(one[name]) for name in texts if one[name] is not None},
    )


def _whole(value: Any) -> int | None:
    told = number(value)
    return None if told is None else int(told)
