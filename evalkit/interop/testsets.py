"""Test sets as people have them - JSON arrays, tables, other tools' rows and logs - as chat rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from evalkit.interop import Log, columns_named, read_log
from evalkit.redaction import without_secrets_in
from evalkit.wording import count, listed, plural, visible

_TABLES = {".csv", ".tsv"}
_SHEETS = {".xlsx", ".xls", ".ods"}
_OTHER = {  # by how a file begins, in lower case
    b"\x1f\x8b": "packed (gzip); unpack it first",
    b"\x28\xb5\x2f\xfd": "packed (zstd); unpack it first",
    b"bzh": "packed (bzip2); unpack it first",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    b"<!doctype": "no JSON and no table but a web page; download the file itself",
    b"<html": "no JSON and no table but a web page; download the file itself",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; `git lfs pull` brings it",
}
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

    rows: tuple[dict[str, Any], ...]
    understood: str
    is_chat: bool = False

    @property
    def lines(self) -> bytes:
        """The rows as chat JSONL, without known keys."""
        rows = (without_secrets_in(one) for one in self.rows)
        return b"".join(_line(one) for one in rows)


def _line(row: dict[str, Any]) -> bytes:
    text = json.dumps(row, ensure_ascii=False)
    return text.encode(errors="backslashreplace") + b"\n"  # half characters: as JSON escapes them


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
        return _converted(path, kind, rows, named)
    except UnclearError as why:
        raise DesignError(f"{path}: {visible(str(why))}") from why


def _converted(
    path: Path, kind: str, rows: list[dict[str, Any]], named: Mapping[str, str]
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
    return Converted(
        rows=tuple(_with_ids_apart(made, shape)), understood=_told(path, kind, shape, made)
    )


def _spelled(path: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row under the names known here; none is lost to another."""
    found = {spelled(name): value for name, value in row.items()}
    if len(found) < len(row):
        raise DataError(_twice(path, [spelled(name) for name in row]))
    return found


def _twice(path: Path, names: Sequence[str]) -> str:
    name = next(name for name in names if names.count(name) > 1)
    return f"{path}: the field {visible(repr(name))} stands twice; give each a name of its own"


def _with_ids_apart(rows: list[dict[str, Any]], shape: Shape) -> list[dict[str, Any]]:
    """Ids that repeat name nothing: they become a label, and rows are known by their content."""
    if not _ids_repeat(rows):
        return rows
    return [
        {
            **{name: value for name, value in one.items() if name != "id"},
            "metadata": {**one.get("metadata", {}), shape.row_id: one.get("id")},
        }
        for one in rows
    ]


def _ids_repeat(rows: list[dict[str, Any]]) -> bool:
    ids = [str(one["id"]) for one in rows if "id" in one]
    return len({*ids}) < len(ids)


def _told(path: Path, kind: str, shape: Shape, rows: list[dict[str, Any]]) -> str:
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
    first = {row.example_id: row for row in reversed(log.rows)}
    rows = []
    for row in reversed(first.values()):
        if not row.messages:
            raise DataError(f"{log.path}: {log.tool}: it holds no questions, so no test set")
        right = [{"role": "assistant", "content": one} for one in row.expected[:1]]
        rows.append(
            {
                "id": row.example_id,
                "messages": [*map(dict, row.messages), *right],
                **({"also_right": [*row.expected[1:]]} if row.expected[1:] else {}),
                **({"metadata": dict(row.slices)} if row.slices else {}),
            }
        )
    open_ended = sum(not row.expected for row in first.values())
    told = f"{log.path.name}: the questions of {log.tool}, {plural(len(rows), 'row')}"
    told += f"; nothing is expected of {count(open_ended)}" if open_ended else ""
    return Converted(rows=tuple(rows), understood=visible(told))


def _rows(path: Path) -> tuple[str, list[dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        if other := next(
            (told for begin, told in _OTHER.items() if start.lower().startswith(begin)), ""
        ):
            raise DataError(f"{path}: is {other}")
        if path.suffix.lower() in _SHEETS:
            raise DataError(f"{path}: is a spreadsheet; save the sheet as CSV")
        if start[:2] == b"PK" or b'"evalkit-journal"' in start:
            return "log", []
        if start[:4] == b"PAR1" or path.suffix.lower() == ".parquet":
            return "a Parquet table", _parquet(path)
        if start[:1] not in {b"{", b"["} and path.suffix.lower() in _TABLES:
            return "a table", _csv(path)
        if start[:1] not in {b"{", b"["}:
            what = "no JSON and no table" if start else "empty"
            raise DataError(f"{path}: is {what}; {_NEED}")
        return _json(path)
    except OSError as why:
        raise DataError(f"{path}: cannot read this file ({why.strerror}); check the path") from why
    except UnicodeDecodeError as why:
        raise DataError(f"{path}: not UTF-8 (byte {why.start + 1}); save it as UTF-8") from why


def _json(path: Path) -> tuple[str, list[dict[str, Any]]]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        whole, kind = json.loads(text), "a JSON array"
    except RecursionError as why:
        raise DataError(f"{path}: nested too deeply; {_NEED}") from why
    except ValueError as why:
        if text.lstrip()[:1] == "[" and not _is_json(text.lstrip().split("\n", 1)[0]):
            raise DataError(
                f"{path}: not a whole JSON array ({why}); copy it again or export it anew"
            ) from why
        whole, kind = _lines(path, text), "JSON lines"
    if isinstance(whole, Mapping):
        if _LOGS & whole.keys():
            return "log", []
        whole, kind = _one(whole)
    whole = [{"messages": one} if isinstance(one, list) else one for one in whole]
    wrong = next((n for n, one in enumerate(whole, start=1) if not isinstance(one, dict)), None)
    if wrong:
        raise DataError(f"{path}: row {wrong} is no object; {_NEED}")
    return ("log", []) if whole and _LOGS & whole[0].keys() else (kind, whole)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _one(whole: Mapping[str, Any]) -> tuple[list[Any], str]:
    """One object: a row by itself, or the only list of objects in it."""
    lists = [one for one in whole.values() if isinstance(one, list) and one]
    wrapped = [one for one in lists if isinstance(one[0], Mapping) and "role" not in one[0]]
    if len(wrapped) == 1 and not {"messages", "conversations", "contents"} & whole.keys():
        return wrapped[0], "a JSON array"
    return [dict(whole)], "JSON lines"


def _lines(path: Path, text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as why:
                what = f"{path}:{number}: not JSON ({type(why).__name__}: {str(why)[:80]})"
                raise DataError(f"{what}; write one JSON object on each line") from why
    return rows


def _csv(path: Path) -> list[dict[str, Any]]:
    """A table's rows as texts: 007 stays 007, NA stays NA."""
    text = path.read_text(encoding="utf-8-sig")
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


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except (pa.ArrowException, ValueError) as why:
        told = str(why).split("\n")[0][:200]
        raise DataError(f"{path}: not a whole table ({told}); export it again") from why
