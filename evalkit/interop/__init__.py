"""Other tools' formats: logs of their runs read as ours, votes and answers written for them; no tool is needed for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import DataError
from evalkit.interop import journals
from evalkit.interop.log import Log, checked
from evalkit.study import project_root
from evalkit.wording import listed, whole

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Log", "read_log"]

_KNOWN = (
    "a log of Inspect (.json, .eval), samples of lm-eval (samples_*.jsonl), results of promptfoo (.json, .jsonl), the output "
    "of an OpenAI batch, output items of OpenAI Evals, a table (CSV, Parquet, JSON lines), or a journal of evalkit"
)
_MOST_BYTES = 4 * 2**30
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_log(
    path: str | Path,
    *,
    arm: str = "",
    filter_name: str = "",
    columns: Mapping[str, str] | str = "",
    test_file: str | Path | None = None,
) -> Log:
    """Reads one model's answers from another tool's file, which is recognised by what it holds.

    Args:
        path: The file; a relative one is looked for here, then in the project's folder.
        arm: Of promptfoo's arms (providers, prompts) the one that is meant.
        filter_name: Of lm-eval's filters the one that is meant.
        columns: Of a table, which column holds what: `{"id": ..., "predicted": ...}`, or "id=..., predicted=...".
        test_file: Chat JSONL with the questions and right answers, for a file that holds answers only.

    Raises:
        DataError: The file is damaged, empty, of a newer version or no such file; one line that names the next step.
        DesignError: There are several arms, filters or columns that could be meant, and none was named.
    """
    path, test_file = _found(path), _found(test_file) if test_file else None
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as why:
        raise DataError(f"{path}: cannot read this file ({why.strerror}); check the path") from why
    if b'"evalkit-journal"' in start:
        return checked(journals.read(path, test_file))
    log = _read(path, start, arm=arm, filter_name=filter_name, columns=columns_named(columns))
    return checked(journals.with_questions(log, test_file))


def _found(path: str | Path) -> Path:
    path = Path(path)
    if path.is_absolute() or path.exists():
        return path
    try:
        there = project_root() / path
    except DataError:
        return path
    return there if there.exists() else path


def columns_named(columns: Mapping[str, str] | str) -> Mapping[str, str]:
    """`what=name, what=name`, as an option gives it, by what."""
    if not isinstance(columns, str):
        return columns
    pairs = [one.partition("=") for one in columns.split(",") if one.strip()]
    return {what.strip(): name.strip() for what, _, name in pairs}


def _read(
    path: Path, start: bytes, *, arm: str, filter_name: str, columns: Mapping[str, str]
) -> Log:
    from evalkit.interop import inspect_logs, lm_eval, openai_files, promptfoo, tables

    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:2] == b"PK" or _is_inspect(text):
        return inspect_logs.read(path)
    if start[:4] == b"PAR1" or path.suffix.lower() in _SEPARATORS:
        return tables.read(path, _frame(path), columns)
    record, lines = whole(_json(path, text))
    keys: set[str] = set(record or next(iter(lines), ()))
    if told := _no_answers(keys):
        raise _unknown(path, told)
    inner = record.get("results")
    items = _items(record) or lines
    readers: tuple[tuple[bool, Callable[[], Log]], ...] = (
        (
            isinstance(inner, Mapping) and {"prompts", "results"} <= set(inner),
            lambda: promptfoo.read(path, record, record["results"]["results"], arm=arm),
        ),
        ({"testIdx", "promptIdx"} <= keys, lambda: promptfoo.read(path, {}, lines, arm=arm)),
        (
            {"doc_id", "filtered_resps"} <= keys,
            lambda: lm_eval.read(path, lines, filter_name=filter_name),
        ),
        ({"custom_id", "response"} <= keys, lambda: openai_files.read_batch(path, lines)),
        (
            bool(items) and "datasource_item" in items[0],
            lambda: openai_files.read_evals(path, items, is_page=bool(record.get("has_more"))),
        ),
        (bool(lines), lambda: tables.read(path, _rows_frame(lines), columns)),
    )
    for fits, read in readers:
        if fits:
            return read()
    raise _unknown(path, f"holds {listed(sorted(map(str, keys))[:6])}, which no known tool writes")


def _is_inspect(text: bytes) -> bool:
    return text[:1] == b"{" and b'"eval"' in text and b'"status"' in text


def _items(record: Mapping[str, object]) -> list[dict[str, Any]]:
    listing = record.get("data") if record else None
    return (
        listing if isinstance(listing, list) and listing and "datasource_item" in listing[0] else []
    )


def _no_answers(keys: set[str]) -> str:
    if {"custom_id", "body"} <= keys:
        return "is the input of a batch, without answers; name its output file"
    if {"results", "config", "versions"} <= keys or "lm_eval_version" in keys:
        return "is the results file of lm-eval, without samples; run it with --log_samples and name samples_*.jsonl"
    if "messages" in keys:
        return "is a chat file without a model's answers; it is what a study's test file looks like"
    return ""


def _unknown(path: Path, told: str) -> DataError:
    return DataError(f"{path}: {told}. Need {_KNOWN}")


def _json(path: Path, start: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One object, or the rows of a list or of JSON lines."""
    if not start:
        raise _unknown(path, "is empty; copy it again")
    if start[:1] not in b"{[":
        page = "is a web page; save the file itself, not the page that shows it"
        raise _unknown(path, page if start[:1] == b"<" else "is no JSON")
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(
            f"{path}: {path.stat().st_size / 2**30:.0f} GB, too much to be one run's answers; split it"
        )
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        found = json.loads(content)
    except UnicodeDecodeError as why:
        raise _unknown(path, "is not UTF-8") from why
    except RecursionError as why:
        raise _unknown(path, "is nested too deeply") from why
    except ValueError:
        return {}, _lines(path, content)
    rows = found if isinstance(found, list) else [found]
    _all_objects(path, rows)
    return (found, []) if isinstance(found, dict) and not _is_row(found) else ({}, rows)


def _is_row(one: Mapping[str, object]) -> bool:
    """A file of JSON lines that has one line."""
    return any({"testIdx", "doc_id", "custom_id", "datasource_item"} & set(one))


def _lines(path: Path, content: bytes) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as why:
                torn = "the file ends in the middle of a line" if number > 1 else "is not JSON"
                raise DataError(
                    f"{path}:{number}: {torn} ({why}); copy it again or export it anew"
                ) from why
    _all_objects(path, rows)
    return rows


def _all_objects(path: Path, rows: list[Any]) -> None:
    wrong = next((n for n, one in enumerate(rows, start=1) if not isinstance(one, dict)), None)
    if wrong or not rows:
        raise _unknown(path, f"row {wrong} is no object" if wrong else "holds no rows")


def _rows_frame(lines: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame.from_records(lines)


def _frame(path: Path) -> pd.DataFrame:
    import pandas as pd

    separator = _SEPARATORS.get(path.suffix.lower())
    try:
        if separator:
            return pd.read_csv(
                path, sep=separator, dtype=str, keep_default_na=False, na_values=[""]
            )  # texts as they stand: "007" is an id and an answer, not 7
        return pd.read_parquet(path)
    except (ValueError, OSError) as why:
        raise DataError(f"{path}: not a whole table ({why}); export it again") from why
