"""Answers that came without their questions - the kit's own journals, a batch's output - joined with a test set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalkit.answers import dataset, journal, runner
from evalkit.errors import DataError
from evalkit.interop.log import Log, Row, matched
from evalkit.records import Answer, EvalResult


def read(path: Path, test_file: str | Path | None) -> Log:
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
        rows=tuple(map(_row, results)),
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


def _row(result: EvalResult) -> Row:
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
