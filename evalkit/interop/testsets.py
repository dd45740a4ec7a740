"""Test sets as people have them - JSON arrays, tables, other tools' rows and logs - as chat rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evalkit.answers import shapes
from evalkit.answers.shapes import spelled
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, to_line
from evalkit.interop import logs
from evalkit.wording import count, listed, plural, visible, without_secrets_in

_SHEETS = {".xlsx", ".xls", ".ods"}
_LOGS = {"testIdx", "doc_id", "custom_id", "datasource_item", "eval", "results"}
_NEED = (
    "Need a JSON array or JSON lines of chat, ShareGPT, Gemini, Alpaca, prompt and completion, input and ideal or "
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
    path, named = Path(path), logs.columns_named(columns)
    kind, rows = _rows(path)
    if kind == "log":
        return _of_log(logs.read_log(path))
    logs.objects(path, rows, _NEED)
    try:
        made = _converted(path, kind, rows, named)
    except shapes.UnclearError as why:
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
    if not named and all(map(shapes.is_chat, rows)):
        told = f"{path.name}: {kind}, {plural(len(rows), 'row')} of chat"
        return Converted(rows=tuple(rows), understood=told, is_chat=kind == "JSON lines")
    named = {what: spelled(name) for what, name in named.items()}
    rows = [_spelled(path, one) for one in rows]
    fields = dict.fromkeys(name for one in rows for name in one)
    shape = shapes.shape_of(rows[0], fields, named)
    made = []
    for number, row in enumerate(rows, start=1):
        try:
            made.append(shapes.chat_row(row, shape, columns=named))
        except shapes.UnusableError as why:
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
        raise DataError(logs.named_twice(path, [spelled(name) for name in row]))
    return found


def _ids_repeat(rows: list[JsonObject]) -> bool:
    ids = [str(one["id"]) for one in rows if "id" in one]
    return len({*ids}) < len(ids)


def _told(path: Path, kind: str, shape: shapes.Shape, rows: list[JsonObject]) -> str:
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


def _of_log(log: logs.Log) -> Converted:
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
    start, suffix = logs.start_of(path), path.suffix.lower()
    if suffix in _SHEETS:
        raise DataError(f"{path}: is a spreadsheet; save the sheet as CSV")
    if start[:2] == b"PK" or b'"evalkit-journal"' in start:
        return "log", []
    if start[:1] not in {b"{", b"["} and (rows := logs.table_rows(path, start)) is not None:
        return "a table" if suffix in {".csv", ".tsv"} else "a Parquet table", rows
    found, is_lines = logs.read_json(path, _NEED)
    kind = "JSON lines" if is_lines else "a JSON array"
    if isinstance(found, dict):
        # a row by itself, or the only list of objects in it
        lists = [one for one in found.values() if isinstance(one, list) and one]
        wrapped = [one for one in lists if isinstance(one[0], Mapping) and "role" not in one[0]]
        is_row = {"messages", "conversations", "contents"} & found.keys() or len(wrapped) != 1
        is_log = _LOGS & found.keys()
        found, kind = ([found], "JSON lines") if is_row or is_log else (wrapped[0], kind)
    rows = found if isinstance(found, list) else [found]
    rows = [{"messages": one} if isinstance(one, list) else one for one in rows]
    rows = logs.objects(path, rows, _NEED)
    return ("log", []) if _LOGS & rows[0].keys() else (kind, rows)
