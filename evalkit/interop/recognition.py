"""Which tool wrote a file: recognised by what it holds, read as one model's answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evalkit.errors import DataError
from evalkit.files import JsonObject
from evalkit.interop.raw_file import read_json, start_of
from evalkit.interop.run_log import Log
from evalkit.study import project_root
from evalkit.wording import listed, whole

_KNOWN = (
    "Need a log of Inspect (.json, .eval), samples of lm-eval (samples_*.jsonl), results of promptfoo (.json, .jsonl), the "
    "output of an OpenAI batch, output items of OpenAI Evals, a table (CSV, Parquet, JSON lines), or a journal of evalkit"
)
_ROW = {"testIdx", "doc_id", "custom_id", "datasource_item"}  # of a file of JSON lines


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
    from evalkit.interop import (
        answer_table,
        inspect_logs,
        lm_eval,
        openai_batch,
        openai_evals,
        own_journal,
        promptfoo,
    )

    path, questions = _found(path), _found(test_file) if test_file else None
    columns, start = columns_named(columns), start_of(path)
    if b'"evalkit-journal"' in start:
        return own_journal.read(path, questions).checked()
    if start[:2] == b"PK" or (start[:1] == b"{" and b'"eval"' in start and b'"status"' in start):
        return inspect_logs.read(path).with_questions(questions).checked()
    if start[:4] == b"PAR1" or path.suffix.lower() in answer_table.SEPARATORS:
        return answer_table.read(path, columns).with_questions(questions).checked()
    if start[:1] not in {b"{", b"["}:
        raise _unknown(path, "is no JSON" if start else "is empty; copy it again")
    about, rows = _records(path)
    fields = set() if about else {*rows[0]}
    if isinstance(about.get("results"), Mapping) or {"testIdx", "promptIdx"} <= fields:
        log = promptfoo.read(path, about, rows, arm)
    elif {"doc_id", "filtered_resps"} <= fields:
        log = lm_eval.read(path, rows, filter_name)
    elif {"custom_id", "response"} <= fields:
        log = openai_batch.read(path, rows)
    elif about or "datasource_item" in fields:
        log = openai_evals.read(path, about, rows)
    else:
        log = answer_table.read_rows(path, rows, columns)
    return log.with_questions(questions).checked()


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


def _records(path: Path) -> tuple[JsonObject, list[JsonObject]]:
    """One object and the rows in it, or the rows of a list or of JSON lines."""
    found, _ = read_json(path, _KNOWN)
    rows = found if isinstance(found, list) else [found]
    wrong = next((n for n, one in enumerate(rows, start=1) if not isinstance(one, dict)), None)
    if wrong or not rows:
        raise _unknown(path, f"row {wrong} is no object" if wrong else "holds no rows")
    about = {} if isinstance(found, list) or _ROW & set(rows[0]) else whole(rows[0])
    if told := _no_answers({*rows[0]}):
        raise _unknown(path, told)
    if not about:
        return {}, whole(rows)
    inner, items = about.get("results"), about.get("data")
    if isinstance(inner, Mapping) and {"prompts", "results"} <= set(inner):
        return about, inner["results"]
    items = items if isinstance(items, list) else []
    if items and isinstance(items[0], Mapping) and "datasource_item" in items[0]:
        return about, items
    named = listed(sorted(map(str, about))[:6])
    raise _unknown(path, f"holds {named}, which no known tool writes")


def _no_answers(keys: set[str]) -> str:
    if {"custom_id", "body"} <= keys:
        return "is the input of a batch, without answers; name its output file"
    if {"results", "config", "versions"} <= keys or "lm_eval_version" in keys:
        return "is the results file of lm-eval, without samples; run it with --log_samples and name samples_*.jsonl"
    if "messages" in keys:
        return "is a chat file without a model's answers; it is what a study's test file looks like"
    return ""


def _unknown(path: Path, told: str) -> DataError:
    return DataError(f"{path}: {told}. {_KNOWN}")
