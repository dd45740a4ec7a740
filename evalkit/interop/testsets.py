"""Test sets as people have them - JSON arrays, tables, other tools' rows and logs - as chat rows."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.answers.shapes import (
    Shape,
    UnclearError,
    UnusableError,
    chat_row,
    is_chat,
    shape_of,
    spelled,
)
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, to_line
from evalkit.interop.logs import Log, columns_named, read_json, read_log, start_of, text_in
from evalkit.wording import count, listed, plural, visible, without_secrets_in

_TABLES = {".csv", ".tsv"}
_SHEETS = {".xlsx", ".xls", ".ods"}
_LOGS = {"testIdx", "doc_id", "custom_id", "datasource_item", "eval", "results"}
_NEED = (
    "need a JSON array or JSON lines of chat, ShareGPT, Gemini, Alpaca, prompt and completion, input and ideal or "
    "preference rows, a CSV or Parquet table, or a log that `evalkit compare` reads"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A file's rows in chat form.

    Attributes:
        understood: What was taken for what, in one line.
        is_chat: The file is chat JSONL already; it need not be converted.
    """

    rows: tuple[JsonObject, ...]
    understood: str
    is_chat: bool = False

    @property
    def lines(self) -> bytes:
        """The rows as chat JSONL, without known keys."""
        rows = (without_secrets_in(one) for one in self.rows)
        return b"".join(to_line(one, ascii_only=False) + b"\n" for one in rows)


def convert(path: str | Path, *, columns: Mapping[str, str] | str = "") -> Converted:
    """Reads a file's rows as chat rows; what is said of them stands in one line.

    Args:
        path: The file.
        columns: Which field holds what, where it is not plain: `{"input": ..., "expected": ..., "id": ...}`, or
            "input=..., expected=..."; an empty name says that there is none.

    Raises:
        DataError: The file is damaged, empty, or of no known form; a row cannot be converted.
        DesignError: Something could mean two things; the message names the choices and the option that answers.
    """
    path, named = Path(path), columns_named(columns)
    kind, rows = _rows(path)
    if kind == "log":
        return _of_log(read_log(path))
    if not rows:
        raise DataError(f"{path}: holds no rows; {_NEED}")
    try:
        made = _converted(path, kind, rows, named)
    except UnclearError as why:
        raise DesignError(f"{path}: {visible(str(why))}") from why
    for number, row in enumerate(made.rows, start=1):
        try:
            to_line(row)
        except ValueError as why:
            told = "holds NaN or an infinite number, which is not JSON; write null, or leave it out"
            raise DataError(f"{path}: row {number}: {told}") from why
    return made


def _converted(
    path: Path, kind: str, rows: list[JsonObject], named: Mapping[str, str]
) -> Converted:
    if not named and all(map(is_chat, rows)):
        told = f"{path.name}: {kind}, {plural(len(rows), 'row')} of chat"
        return Converted(rows=tuple(rows), understood=told, is_chat=kind == "JSON lines")
    named = {what: spelled(name) for what, name in named.items()}
    rows = [_spelled(path, one) for one in rows]
    fields = dict.fromkeys(name for one in rows for name in one)
    shape = shape_of(rows[0], fields, named)
    made = []
    for number, row in enumerate(rows, start=1):
        try:
            made.append(chat_row(row, shape, columns=named))
        except UnusableError as why:
            what = f"{path}: row {number}: {why.problem}; {why.remedy}"
            raise DataError(visible(what)) from why
    told = _told(path, kind, shape, made)
    if _ids_repeat(made):
        for one in made:  # a label, as it names nothing: rows are known by their content
            one["metadata"] = {**one.get("metadata", {}), shape.row_id: one.pop("id", None)}
    return Converted(rows=tuple(made), understood=told)


def _spelled(path: Path, row: JsonObject) -> JsonObject:
    """A row under the names known here; none is lost to another."""
    found = {spelled(name): value for name, value in row.items()}
    if len(found) < len(row):
        raise DataError(_twice(path, [spelled(name) for name in row]))
    return found


def _twice(path: Path, names: Sequence[str]) -> str:
    name = next(name for name in names if names.count(name) > 1)
    return f"{path}: the field {visible(repr(name))} stands twice; give each a name of its own"


def _ids_repeat(rows: list[JsonObject]) -> bool:
    ids = [str(one["id"]) for one in rows if "id" in one]
    return len({*ids}) < len(ids)


def _told(path: Path, kind: str, shape: Shape, rows: list[JsonObject]) -> str:
    open_ended = sum(one["messages"][-1]["role"] != "assistant" for one in rows)
    several = sum("also_right" in one for one in rows)
    told = [f"{path.name}: {kind}, {plural(len(rows), 'row')}, {shape}"]
    told += [f"{plural(several, 'row')} with several right answers"] * bool(several)
    of = "any" if open_ended == len(rows) else f"{count(open_ended)}"
    told += [f"nothing is expected of {of}"] * bool(open_ended)
    told += [f"{shape.row_id} repeats, so it is a label"] * _ids_repeat(rows)
    labels = [*dict.fromkeys(name for one in rows for name in one.get("metadata", ()))]
    told += [f"kept as metadata: {listed(labels)}"] * bool(labels)
    return visible("; ".join(told))


def _of_log(log: Log) -> Converted:
    """The questions and right answers of a log; its answers are left out (`evalkit import` takes them)."""
    rows: dict[str, JsonObject] = {}
    for row in log.rows:
        if not row.messages:
            raise DataError(f"{log.path}: {log.tool}: it holds no questions, so no test set")
        right = [{"role": "assistant", "content": one} for one in row.expected[:1]]
        made = {"id": row.example_id, "messages": [*map(dict, row.messages), *right]}
        more = {"also_right": [*row.expected[1:]], "metadata": {**row.slices}}
        rows.setdefault(row.example_id, made | {name: one for name, one in more.items() if one})
    open_ended = len({row.example_id for row in log.rows if not row.expected})
    told = f"{log.path.name}: the questions of {log.tool}, {plural(len(rows), 'row')}"
    told += f"; nothing is expected of {count(open_ended)}" if open_ended else ""
    return Converted(rows=tuple(rows.values()), understood=visible(told))


def _rows(path: Path) -> tuple[str, list[JsonObject]]:
    start, suffix = start_of(path), path.suffix.lower()
    if suffix in _SHEETS:
        raise DataError(f"{path}: is a spreadsheet; save the sheet as CSV")
    if start[:2] == b"PK" or b'"evalkit-journal"' in start:
        return "log", []
    if start[:4] == b"PAR1" or suffix == ".parquet":
        return "a Parquet table", _parquet(path)
    if start[:1] in {b"{", b"["}:
        return _json(path)
    if suffix in _TABLES:
        return "a table", _csv(path)
    what = "no JSON and no table" if start else "empty"
    raise DataError(f"{path}: is {what}; {_NEED}")


def _json(path: Path) -> tuple[str, list[JsonObject]]:
    found, is_lines = read_json(path, _NEED)
    kind = "JSON lines" if is_lines else "a JSON array"
    if isinstance(found, dict):
        if _LOGS & found.keys():
            return "log", []
        found, kind = _one(found)
    rows: list[Any] = [{"messages": one} if isinstance(one, list) else one for one in found]
    if wrong := next((n for n, one in enumerate(rows, start=1) if not isinstance(one, dict)), None):
        raise DataError(f"{path}: row {wrong} is no object; {_NEED}")
    return ("log", []) if rows and _LOGS & rows[0].keys() else (kind, rows)


def _one(whole: JsonObject) -> tuple[list[object], str]:
    """One object: a row by itself, or the only list of objects in it."""
    lists = [one for one in whole.values() if isinstance(one, list) and one]
    wrapped = [one for one in lists if isinstance(one[0], Mapping) and "role" not in one[0]]
    if len(wrapped) == 1 and not {"messages", "conversations", "contents"} & whole.keys():
        return wrapped[0], "a JSON array"
    return [dict(whole)], "JSON lines"


def _csv(path: Path) -> list[JsonObject]:
    """A table's rows as texts: 007 stays 007, NA stays NA."""
    text = text_in(path)
    head = text.split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    csv.field_size_limit(2**27)
    try:
        reader = csv.DictReader(text.splitlines(keepends=True), delimiter=separator, strict=True)
        names = [*(reader.fieldnames or ())]
        rows = [*reader]
    except csv.Error as why:
        raise DataError(f"{path}: not a whole table ({why}); export it again") from why
    if len({*names}) < len(names):
        raise DataError(_twice(path, names))
    ragged = next((n for n, one in enumerate(rows, 1) if None in one or None in one.values()), None)
    if ragged:
        raise DataError(
            f"{path}: row {ragged} has not as many cells as the table has columns; is a text with {separator!r} in quotes?"
        )
    return rows


def _parquet(path: Path) -> list[JsonObject]:
    try:
        return pq.read_table(path).to_pylist()
    except (pa.ArrowException, ValueError, OSError) as why:
        told = str(why).split("\n")[0][:200]
        raise DataError(f"{path}: not a whole table ({told}); export it again") from why
