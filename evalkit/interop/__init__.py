"""Other tools' formats: logs of their runs read as ours, votes and answers written for them; no tool is needed for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.answers import dataset, journal, metrics, runner
from evalkit.errors import DataError, DesignError
from evalkit.records import Answer, EvalResult, Example, Outcome
from evalkit.study import project_root
from evalkit.wording import cleaned, listed, plural, visible, whole

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
        return checked(_journal(path, test_file))
    log = _read(path, start, arm=arm, filter_name=filter_name, columns=columns_named(columns))
    return checked(with_questions(log, test_file))


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
    from evalkit.interop import inspect_logs, tools

    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:2] == b"PK" or _is_inspect(text):
        return inspect_logs.read(path)
    if start[:4] == b"PAR1" or path.suffix.lower() in _SEPARATORS:
        return tools.read_table(path, _frame(path), columns)
    record, lines = whole(_json(path, text))
    keys: set[str] = set(record or next(iter(lines), ()))
    if told := _no_answers(keys):
        raise _unknown(path, told)
    inner = record.get("results")
    items = _items(record) or lines
    readers: tuple[tuple[bool, Callable[[], Log]], ...] = (
        (
            isinstance(inner, Mapping) and {"prompts", "results"} <= set(inner),
            lambda: tools.read_promptfoo(path, record, record["results"]["results"], arm=arm),
        ),
        ({"testIdx", "promptIdx"} <= keys, lambda: tools.read_promptfoo(path, {}, lines, arm=arm)),
        (
            {"doc_id", "filtered_resps"} <= keys,
            lambda: tools.read_lm_eval(path, lines, filter_name=filter_name),
        ),
        ({"custom_id", "response"} <= keys, lambda: tools.read_batch(path, lines)),
        (
            bool(items) and "datasource_item" in items[0],
            lambda: tools.read_evals(path, items, is_page=bool(record.get("has_more"))),
        ),
        (bool(lines), lambda: tools.read_table(path, _rows_frame(lines), columns)),
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


_OURS = {"exact_match", "format", *metrics.SCORERS}  # what these names mean is said by this kit
_NO_NAME = re.compile(r"[^\w-]+")
_GRADES = {
    "C": 1.0,
    "P": 0.5,
    "I": 0.0,
    "N": 0.0,
}  # Inspect's CORRECT, PARTIAL, INCORRECT, NOANSWER
_YES_NO = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One answer of another tool's run.

    Attributes:
        sample: 0-based: an epoch or a repeat of the same question.
        messages: The prompt; () where the file does not hold it.
        expected: The right answers, any of which is right; () where the file names none.
        scores: What the tool said of the answer, by our name of its scorer; None where it is no number.
    """

    example_id: str
    answer: Answer
    sample: int = 0
    messages: tuple[Mapping[str, Any], ...] = ()
    expected: tuple[str, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict)
    slices: Mapping[str, str] = field(default_factory=dict)

    @property
    def scored(self) -> Answer:
        """The answer with what the tool said of it."""
        return replace(self.answer, scores=self.scores)

    @property
    def result(self) -> EvalResult:
        """The row as any other answer; a right answer among several is an exact match."""
        right = self.expected or ("",)
        example = Example(
            example_id=self.example_id,
            messages=self.messages,
            expected=right[0],
            also_right=right[1:],
            expects=bool(self.expected),
            slices=self.slices,
        )
        return metrics.score_answer(example, self.scored, self.sample, checker="none", scorers=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One model's answers from another tool's file.

    Attributes:
        tool: Its name, with its version where the file says it: "Inspect 0.3.285".
        run: The tool's own name of the run; "" where it has none.
        made_at: As the file says it.
        lower_is_better: Scores of which the tool says so.
        notes: What was left out or read in a way that a reader should know.
    """

    path: Path
    tool: str
    model: str
    rows: tuple[Row, ...]
    run: str = ""
    made_at: str = ""
    lower_is_better: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def scores(self) -> tuple[str, ...]:
        """The scores of which its rows hold a number, in the order they come."""
        told = (one for row in self.rows for one in row.scores.items())
        return tuple(dict.fromkeys(name for name, value in told if value is not None))

    @property
    def results(self) -> list[EvalResult]:
        """Its rows as any other answers, ready for `compare_models`."""
        return [row.result for row in self.rows]

    @property
    def about(self) -> dict[str, str]:
        """Where the answers came from, for a journal's header and the page."""
        known = {"tool": self.tool, "model": self.model, "run": self.run, "made_at": self.made_at}
        return {"file": self.path.name} | {name: told for name, told in known.items() if told}

    def __str__(self) -> str:
        n = len({row.example_id for row in self.rows})
        run = f", run {visible(self.run)}" if self.run else ""
        scores = f", scored by {listed(list(self.scores))}" if self.scores else ""
        return (
            f"{self.path.name}: {self.tool}{run}, model {visible(self.model) or 'not named'}, "
            f"{plural(len(self.rows), 'answer')} to {plural(n, 'example')}{scores}"
        )


def checked(log: Log) -> Log:
    """The log with its repeated ids told; nothing without rows passes.

    Raises:
        DataError: It holds no answers, or the same sample of one id with different contents.
    """
    if not log.rows:
        raise DataError(
            f"{log.path}: {log.tool}: no sample was finished, so there is nothing to compare; run it to its end"
        )
    seen: dict[tuple[str, int], Row] = {}
    for row in log.rows:
        kept = seen.setdefault((row.example_id, row.sample), row)
        if (kept.answer.text, kept.messages) != (row.answer.text, row.messages):
            raise DataError(
                f"{log.path}: id {row.example_id!r} stands more than once with different contents; give each example "
                "an id of its own"
            )
    n = len(log.rows) - len(seen)
    notes = (f"{plural(n, 'row')} stood twice, word for word; each counts once",) if n else ()
    return replace(log, rows=tuple(seen.values()), notes=(*log.notes, *notes))


def chosen(
    what: str, found: Iterable[str], asked: str, path: Path, option: str, *, by_itself: bool = True
) -> str:
    """The one of several that was asked for; the only one without asking.

    Raises:
        DesignError: There are several and none was named, or the named one is not there.
    """
    names = list(dict.fromkeys(found))
    if asked in names:
        return asked
    if not asked and len(names) == 1 and by_itself:
        return names[0]
    if not names:
        raise DataError(f"{path}: holds no rows; name a run that has some")
    few = listed([repr(visible(name)) for name in names[:20]])
    problem = f"no {what} {asked!r}" if asked else f"several {what}s, none is guessed"
    raise DesignError(f"{path}: {problem}; it holds {few}; name one with {option}")


def score_name(name: str, tool: str) -> str:
    """A score's name among our metrics: one that means something else here has the tool's before it.

    Example:
        >>> score_name("match", "inspect"), score_name("exact_match", "lm_eval"), score_name("F1 (macro)", "table")
        ('match', 'lm_eval_exact_match', 'F1_macro')
    """
    plain = _NO_NAME.sub("_", name).strip("_") or "score"
    return f"{tool}_{plain}" if plain in _OURS else plain


def score_values(name: str, value: object) -> Iterator[tuple[str, float | None]]:
    """A score as numbers: grades and yes or no as Inspect reads them, a mapping key by key; None for other texts."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from score_values(f"{name}_{key}", one)
    else:
        yield name, number(value)


def number(value: Any) -> float | None:
    """A grade, a yes or no or a number as a number; None for all else."""
    if isinstance(value, str):
        told = _GRADES.get(value, _YES_NO.get(value.strip().lower()))
        if told is not None:
            return told
    try:
        told = float(value)
    except (TypeError, ValueError):
        return None
    return told if abs(told) < float("inf") else None


def text_of(content: object) -> str:
    """A message's text: parts of another kind by their kind, calls of tools as JSON."""
    if isinstance(content, list):
        parts = (one if isinstance(one, str) else _part(one) for one in content)
        return "\n".join(part for part in parts if part)
    if content is None:
        return ""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _part(one: object) -> str:
    if not isinstance(one, Mapping):
        return str(one)
    if isinstance(text := one.get("text"), str):
        return text
    return "" if one.get("type") == "reasoning" else f"[{one.get('type', 'part')}]"


def answer_of(
    text: str,
    *,
    error: str = "",
    finish_reason: str | None = None,
    latency_ms: float | None = None,
    prompt_tokens: int | None = None,
    completion_tokens: int | None = None,
    served_model: str | None = None,
) -> Answer:
    """An answer with its outcome, cleaned as any other."""
    told, sanitized = cleaned(text)
    return Answer(
        text=told,
        outcome=_outcome(told, error, finish_reason),
        finish_reason=finish_reason,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        latency_ms=latency_ms,
        served_model=served_model,
        error=cleaned(error)[0][:2_000] or None,
        sanitized=sanitized,
    )


def _outcome(text: str, error: str, finish_reason: str | None) -> Outcome:
    if error:
        return "error"
    if finish_reason in {"length", "max_tokens", "model_length"}:
        return "truncated"
    if finish_reason == "content_filter":
        return "refused"
    return "ok" if text.strip() else "empty"


def matched(log: Log, ids: Sequence[str]) -> str:
    """What of a log has no counterpart, in a sentence; "" when all have."""
    known = set(ids)
    missing = list(dict.fromkeys(row.example_id for row in log.rows if row.example_id not in known))
    if not missing:
        return ""
    some = listed([repr(visible(name)) for name in missing[:3]])
    return f"{plural(len(missing), 'id')} of {log.path.name} stand only there, first {some}; they count nowhere"


def _journal(path: Path, test_file: str | Path | None) -> Log:
    """A journal of this kit, scored against its test set.

    Raises:
        DataError: No test set was named, or it is another one.
    """
    if test_file is None:
        raise DataError(
            f"{path}: a journal holds answers only; name the test file that was asked with --test"
        )
    head = journal.read_header(path)
    results = runner.results_from_journal(path, test_file, checker="none", scorers=())
    return Log(
        path=path,
        tool=" ".join(["evalkit", str(head.get("versions", {}).get("evalkit", ""))]).strip(),
        model=str(head["model"]),
        made_at=str(head.get("created_at", "")),
        rows=tuple(map(_result_row, results)),
    )


def with_questions(log: Log, test_file: str | Path | None) -> Log:
    """The log with the questions and right answers of a test set, where its rows have none.

    Raises:
        DataError: No id of the log is in the test set.
    """
    if test_file is None or all(row.messages for row in log.rows):
        return log
    examples = {one.example_id: one for one in dataset.read_examples(test_file).examples}
    rows = tuple(
        replace(row, messages=one.messages, expected=one.right, slices=one.slices)
        for row in log.rows
        if (one := examples.get(row.example_id))
    )
    if not rows:
        raise DataError(f"{log.path}: none of its ids is the id of a row of {test_file}")
    note = matched(log, list(examples))
    return replace(log, rows=rows, notes=(*log.notes, *([note] if note else [])))


def _result_row(result: EvalResult) -> Row:
    return Row(
        example_id=str(result.example_id),
        sample=result.sample,
        messages=result.messages,
        expected=result.right,
        answer=Answer(
            text=result.predicted,
            outcome=result.outcome,
            finish_reason=result.finish_reason,
            prompt_tokens=result.prompt_tokens,
            completion_tokens=result.completion_tokens,
            latency_ms=result.latency_ms,
            error=result.error,
        ),
        scores=result.scores,
        slices=result.slices,
    )
