"""One model's answers from another tool's file: what such a log is, which tool wrote a file, or why none can read it."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, SupportsFloat

from evalkit import stats
from evalkit.answers import dataset, journal, runner, scoring
from evalkit.conversation import Message
from evalkit.errors import DataError, DesignError, EvalkitError
from evalkit.files import DoubledNameError, JsonObject, once_each
from evalkit.records import Answer, EvalResult, Example, Outcome
from evalkit.study import project_root
from evalkit.wording import cleaned, listed, plural, visible, whole

_KNOWN = (
    "Need a log of Inspect (.json, .eval), samples of lm-eval (samples_*.jsonl), results of promptfoo (.json, .jsonl), the "
    "output of an OpenAI batch, output items of OpenAI Evals, a table (CSV, Parquet, JSON lines), or a journal of evalkit"
)
_NO_KIND = re.compile(r"[\[{].*|-?\d*\.\d+", re.DOTALL)
_BOM = b"\xef\xbb\xbf"
_PAGE = "no JSON and no table but a web page; download the file itself"
_OTHER = {  # by how a file begins, in lower case
    (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"bzh"): "packed; unpack it first",
    (b"\xff\xfe", b"\xfe\xff"): "UTF-16; save it as UTF-8",
    (b"<!doctype", b"<html"): _PAGE,
    (
        b"version https://git-lfs",
    ): "a pointer of Git LFS, not the file itself; `git lfs pull` brings it",
}
_ROW = {"testIdx", "doc_id", "custom_id", "datasource_item"}  # of a file of JSON lines

_OURS = {"exact_match", "format", *scoring.SCORERS}  # what these names mean is said by this kit
_NO_NAME = re.compile(r"[^\w-]+")
_GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # correct, partial, incorrect, no answer
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_ENDED: Mapping[str | None, Outcome] = {
    "length": "truncated",
    "max_tokens": "truncated",
    "model_length": "truncated",
    "content_filter": "refused",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One answer of another tool's run.

    Attributes:
        answer: With what the tool said of it: scores by our name of the scorer, None where one is no number.
        sample: 0-based: an epoch or a repeat of the same question.
        messages: The prompt; () where the file does not hold it.
        expected: The right answers, any of which is right; () where the file names none.
    """

    example_id: str
    answer: Answer
    sample: int = 0
    messages: tuple[Message, ...] = ()
    expected: tuple[str, ...] = ()
    slices: Mapping[str, str] = field(default_factory=dict)

    @property
    def example(self) -> Example:
        """What was asked."""
        right = self.expected or ("",)
        return Example(
            example_id=self.example_id,
            messages=self.messages,
            expected=right[0],
            also_right=right[1:],
            expects=bool(self.expected),
            slices=self.slices,
        )


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
        told = (one for row in self.rows for one in row.answer.scores.items())
        return tuple(dict.fromkeys(name for name, value in told if value is not None))

    @property
    def results(self) -> list[EvalResult]:
        """Its rows as any other answers, ready for `compare_models`: without the scores that are never a number."""
        there, found = {*self.scores}, []
        for row in self.rows:
            scores = {name: one for name, one in row.answer.scores.items() if name in there}
            answer = replace(row.answer, scores=scores)
            how = {"checker": "none", "scorers": ()}
            found.append(scoring.score_answer(row.example, answer, row.sample, **how))
        return found

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

    def only_here(self, ids: Iterable[str]) -> tuple[str, ...]:
        """What of it has no counterpart among the ids, in a sentence; () when all have."""
        known = set(ids)
        lone = dict.fromkeys(one.example_id for one in self.rows if one.example_id not in known)
        if not lone:
            return ()
        some = listed([repr(visible(name)) for name in list(lone)[:3]])
        what = f"{plural(len(lone), 'id')} of {self.path.name} stand only there, first {some}"
        return (f"{what}; they count nowhere",)

    def with_questions(self, test_file: Path | None) -> Log:
        """The log with the questions and right answers of a test set, where its rows have none."""
        if test_file is None or all(row.messages for row in self.rows):
            return self
        examples = {one.example_id: one for one in _asked(test_file)}
        rows = tuple(
            replace(row, messages=one.messages, expected=one.right, slices=one.slices)
            for row in self.rows
            if (one := examples.get(row.example_id))
        )
        if not rows:
            raise DataError(f"{self.path}: none of its ids is the id of a row of {test_file}")
        return replace(self, rows=rows, notes=(*self.notes, *self.only_here(examples)))

    def checked(self) -> Log:
        """The log with what does not count of it told; nothing without rows passes, nor one id with different contents."""
        if not self.rows:
            raise DataError(
                f"{self.path}: {self.tool}: no sample was finished, so there is nothing to compare; run it to its end"
            )
        seen: dict[tuple[str, int], Row] = {}
        for row in self.rows:
            kept = seen.setdefault((row.example_id, row.sample), row)
            if (kept.answer.text, kept.messages) != (row.answer.text, row.messages):
                raise DataError(
                    f"{self.path}: id {row.example_id!r} stands more than once with different contents; "
                    "give each example an id of its own"
                )
        notes = [*self.notes]
        if n := len(self.rows) - len(seen):
            notes.append(f"{plural(n, 'row')} stood twice, word for word; each counts once")
        names = dict.fromkeys(name for row in self.rows for name in row.answer.scores)
        if no_number := [name for name in names if name not in self.scores]:
            notes.append(f"scores that are no numbers are left out: {listed(no_number)}")
        return replace(self, rows=tuple(seen.values()), notes=tuple(notes))


def told_apart(old: Log, new: Log, names: Sequence[str]) -> list[str]:
    """A name for each of two logs; of one name each with what differs first: the model, the file's name, a folder."""
    places = zip(*(reversed(log.path.resolve().parts) for log in (old, new)), strict=False)
    pairs = [(old.model, new.model), *places] if len({*names}) == 1 else []
    differ = next((pair for pair in pairs if all(pair) and pair[0] != pair[1]), None)
    if differ is None:
        return [*names]
    return [f"{name} ({visible(one)})" for name, one in zip(names, differ, strict=True)]


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
    from evalkit.interop import inspect_logs, row_logs

    path, questions = _found(path), _found(test_file) if test_file else None
    columns, start = columns_named(columns), start_of(path)
    is_inspect = start[:1] == b"{" and b'"eval"' in start and b'"status"' in start
    if b'"evalkit-journal"' in start:
        log = _journal(path, questions)
    elif start[:2] == b"PK" or is_inspect:
        log = inspect_logs.read(path)
    elif (rows := table_rows(path, start)) is not None:
        log = row_logs.table(path, rows, columns)
    else:
        log = _of_records(path, arm, filter_name, columns)
    return log.with_questions(questions).checked()


def _found(path: str | Path) -> Path:
    here = Path(path)
    with suppress(DataError):  # not in a project
        there = project_root() / here
        return here if here.exists() or not there.exists() else there
    return here


def columns_named(columns: Mapping[str, str] | str) -> Mapping[str, str]:
    """`what=name, what=name`, as an option gives it, by what."""
    if not isinstance(columns, str):
        return columns
    pairs = [one.partition("=") for one in columns.split(",") if one.strip()]
    return {what.strip(): name.strip() for what, _, name in pairs}


def _of_records(path: Path, arm: str, filter_name: str, columns: Mapping[str, str]) -> Log:
    """From one object with rows in it, or the rows of a list or of JSON lines."""
    from evalkit.interop import row_logs

    found = whole(read_json(path, _KNOWN)[0])
    about = found if isinstance(found, dict) and not _ROW & found.keys() else {}
    inner = about.get("results")
    rows = inner.get("results") if isinstance(inner, dict) else about.get("data")
    rows = objects(path, rows or found, _KNOWN)
    keys = rows[0].keys()
    if (isinstance(inner, dict) and rows[0] is not about) or keys >= {"testIdx", "promptIdx"}:
        return row_logs.promptfoo(path, about, rows, arm)
    if keys >= {"doc_id", "filtered_resps"}:
        return row_logs.lm_eval(path, rows, filter_name)
    if keys >= {"custom_id", "response"}:
        return row_logs.openai_batch(path, rows)
    if "datasource_item" in keys:
        return row_logs.openai_evals(path, about, rows)
    if keys >= {"custom_id", "body"}:
        told = "is the input of a batch, without answers; name its output file"
    elif keys >= {"results", "config", "versions"}:
        told = "is the results file of lm-eval, without samples; run it with --log_samples and name samples_*.jsonl"
    elif "messages" in keys:
        told = "is a chat file without a model's answers; it is what a study's test file looks like"
    else:
        return row_logs.table(path, rows, columns)
    raise DataError(f"{path}: {told}. {_KNOWN}")


def start_of(path: Path) -> bytes:
    """How a file begins, without a byte order mark and blanks.

    Raises:
        DataError: It cannot be read, or is what no reader can read: packed, UTF-16, a web page, a pointer.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(_BOM).lstrip()
    except OSError as why:
        raise DataError(f"{path}: cannot read this file ({why.strerror}); check the path") from why
    for begins, told in _OTHER.items():
        if start.lower().startswith(begins):
            raise DataError(f"{path}: is {told}")
    return start


def text_in(path: Path) -> str:
    """A file's text, without a byte order mark; its lines end alike, whichever system wrote them."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as why:
        raise DataError(f"{path}: not UTF-8 (byte {why.start + 1}); save it as UTF-8") from why


def read_json(path: Path, need: str) -> tuple[Any, bool]:
    """What a file of JSON or of JSON lines holds, and whether it is lines.

    Raises:
        DataError: It is neither, or damaged.
    """
    parse = partial(json.loads, object_pairs_hook=once_each)
    text, rows = text_in(path), []
    if not text.strip():
        raise DataError(f"{path}: is empty; copy it again")
    try:
        return parse(text), False
    except (ValueError, RecursionError) as why:
        fault = why
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            rows += [parse(line)] if line.strip() else []
        except (ValueError, RecursionError) as why:
            where, told = (f"{path}:{number}", why) if rows else (path, fault)
            if isinstance(told, DoubledNameError):
                raise DataError(f"{where}: {told}; keep one of them") from why
            kind = f"{type(told).__name__}: {str(told)[:80]}"
            raise DataError(
                f"{where}: not JSON ({kind}); copy it again, or export it anew. {need}"
            ) from why
    return rows, True


def objects(path: Path, rows: Any, need: str) -> list[JsonObject]:
    """The rows, where they are objects.

    Raises:
        DataError: They are not, or there is none.
    """
    rows = rows if isinstance(rows, list) else [rows]
    wrong = next((n for n, one in enumerate(rows, start=1) if not isinstance(one, dict)), 0)
    if wrong or not rows:
        told = f"row {wrong} is no object" if wrong else "holds no rows"
        raise DataError(f"{path}: {told}. {need}")
    return rows


def table_rows(path: Path, start: bytes) -> list[JsonObject] | None:
    """The rows of a CSV or Parquet file; cells of a CSV are texts: 007 stays 007, NA stays NA. None where it is neither.

    Raises:
        DataError: It is no whole table, or names a column twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    suffix = path.suffix.lower()
    is_parquet = start[:4] == b"PAR1" or suffix == ".parquet"
    if not is_parquet and suffix not in {".csv", ".tsv"}:
        return None
    text = "" if is_parquet else text_in(path)
    try:
        if is_parquet:
            return pq.read_table(path).to_pylist()
        separator = max(",;\t", key=text.split("\n", 1)[0].count)
        csv.field_size_limit(2**27)
        lines = io.StringIO(text, newline="")
        reader = csv.DictReader(lines, delimiter=separator, strict=True)
        names, rows = [*(reader.fieldnames or ())], [*reader]
    except (pa.ArrowException, csv.Error, ValueError, OSError) as why:
        told = str(why).split("\n")[0][:200]
        raise DataError(f"{path}: not a whole table ({told}); export it again") from why
    if len({*names}) < len(names):
        raise DataError(named_twice(path, names))
    ragged = next((n for n, one in enumerate(rows, 1) if None in one or None in one.values()), None)
    if ragged:
        raise DataError(
            f"{path}: row {ragged} has not as many cells as the table has columns; is a text with {separator!r} in quotes?"
        )
    return rows


def named_twice(path: Path, names: Sequence[str]) -> str:
    """The refusal of fields of which two have one name."""
    name = next(name for name in names if names.count(name) > 1)
    return f"{path}: the field {visible(repr(name))} stands twice; give each a name of its own"


def _journal(path: Path, test_file: Path | None) -> Log:
    """The answers of a journal of this kit to the rows of its test set."""
    if test_file is None:
        raise DataError(
            f"{path}: a journal holds answers only; name the test file that was asked with --test"
        )
    head = journal.read_header(path)
    results = runner.results_from_journal(path, test_file, checker="none", scorers=())
    same = ("outcome", "finish_reason", "prompt_tokens", "completion_tokens", "latency_ms", "error")
    rows = [
        Row(
            example_id=str(one.example_id),
            sample=one.sample,
            answer=Answer(
                text=one.predicted,
                scores=one.scores,
                **{name: getattr(one, name) for name in same},
            ),
        )
        for one in results
    ]
    return Log(
        path=path,
        tool=f"evalkit {head.get('versions', {}).get('evalkit', '')}".strip(),
        model=str(head["model"]),
        made_at=str(head.get("created_at", "")),
        rows=tuple(rows),
    )


def _asked(test_file: Path) -> Iterator[Example]:
    """The rows of a test set, cut by its kinds: fields of a few values, none of them a list or a measure."""
    fields = dataset.read_examples(test_file, keep=False).fields
    names = [name for name in fields if name == name.strip() != ""]  # as they can be named
    rows = dataset.read_examples(test_file, slice_fields=names).examples
    values = {name: {row.slices[name] for row in rows if name in row.slices} for name in names}
    kinds = {
        name
        for name, seen in values.items()
        if 1 < len(seen) <= stats.MOST_VALUES and not any(map(_NO_KIND.fullmatch, seen))
    }
    for row in rows:
        yield replace(row, slices={k: one for k, one in row.slices.items() if k in kinds})


# ---- what another tool's row holds, as ours: texts, numbers, scores by our names, labels, an answer with its outcome


@contextmanager
def reading(what: str, remedy: str = "") -> Iterator[None]:
    """Tells what is not as the tool writes it, in place of the fault that Python finds."""
    try:
        yield
    except EvalkitError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as why:
        raise DataError(f"{what} ({type(why).__name__}: {why}){remedy}") from why


def answered(text: str, error: str = "", finish_reason: str | None = None) -> Answer:
    """An answer cleaned as any other, with the outcome that its error, its end and its text tell."""
    said, sanitized = cleaned(text)
    outcome = _ENDED.get(finish_reason, "ok" if said.strip() else "empty")
    return Answer(
        text=said,
        outcome="error" if error else outcome,
        error=cleaned(error)[0][:2_000] or None,
        sanitized=sanitized,
        finish_reason=finish_reason,
    )


def fault(error: object) -> str:
    """What went wrong, in the tool's words; "" for nothing."""
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("code") or "error"
    return str(error or "")


def scores_of(tool: str, given: Iterable[tuple[str, object]]) -> dict[str, float | None]:
    """Scores by their names here, as numbers: a mapping key by key; None for what is no number."""
    found = dict[str, float | None]()
    for name, value in given:
        if isinstance(value, Mapping):
            found |= scores_of(tool, [(f"{name}_{key}", one) for key, one in value.items()])
        else:
            found[score_name(name, tool)] = number(value)
    return found


def score_name(name: str, tool: str) -> str:
    """A score's name among our metrics: one that means something else here has the tool's before it.

    Example:
        >>> score_name("match", "inspect"), score_name("exact_match", "lm_eval"), score_name("F1 (macro)", "table")
        ('match', 'lm_eval_exact_match', 'F1_macro')
    """
    plain = _NO_NAME.sub("_", name).strip("_") or "score"
    return f"{tool}_{plain}" if plain in _OURS else plain


def number(value: object) -> float | None:
    """A grade, a yes or no or a number as a number; None for all else."""
    if isinstance(value, str):
        told = _GRADES.get(value, _WORDS.get(value.strip().lower()))
        value = value if told is None else told
    try:
        found = float(value) if isinstance(value, str | SupportsFloat) else math.nan
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def labels_of(
    given: Mapping[str, object], *, without: Sequence[str] = (), longest: float = 80
) -> dict[str, str]:
    """Short texts, whole numbers and truths, by which results can be cut."""
    return {
        str(name): text_of(value)
        for name, value in given.items()
        if isinstance(value, str | int | bool)
        and len(str(value)) <= longest
        and name not in without
    }


def user_says(text: str) -> tuple[Message, ...]:
    """A prompt of one message."""
    return ({"role": "user", "content": text},)


def texts_of(values: Iterable[object]) -> tuple[str, ...]:
    """Right answers as texts, without blank ones."""
    return tuple(text for text in map(text_of, values) if text.strip())


def text_of(content: object) -> str:
    """A message's text: parts of another kind by their kind, calls of tools as JSON."""
    if isinstance(content, list):
        return "\n".join(filter(None, map(_part, content)))
    if content is None or isinstance(content, str):
        return content or ""
    return json.dumps(content, ensure_ascii=False)


def _part(one: object) -> str:
    if not isinstance(one, Mapping):
        return str(one)
    if isinstance(text := one.get("text"), str):
        return text
    return "" if one.get("type") == "reasoning" else f"[{one.get('type', 'part')}]"
