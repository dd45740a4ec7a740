"""A journal of this kit as the log of a run, scored against its test set."""

from __future__ import annotations

from pathlib import Path

from evalkit.answers import journal, runner
from evalkit.errors import DataError
from evalkit.interop.run_log import Log, Row
from evalkit.records import Answer, EvalResult


def read(path: Path, test_file: Path | None) -> Log:
    """The answers of a journal.

    Raises:
        DataError: No test file is named, or one of both is damaged.
    """
    if test_file is None:
        raise DataError(
            f"{path}: a journal holds answers only; name the test file that was asked with --test"
        )
    head = journal.read_header(path)
    results = runner.results_from_journal(path, test_file, checker="none", scorers=())
    return Log(
        path=path,
        tool=f"evalkit {head.get('versions', {}).get('evalkit', '')}".strip(),
        model=str(head["model"]),
        made_at=str(head.get("created_at", "")),
        rows=tuple(map(_row, results)),
    )


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
