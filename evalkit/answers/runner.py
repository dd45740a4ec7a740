"""Runs a model over a test set: `run_automated_eval`, its async twin, and the results a journal already holds."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, nullcontext
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from evalkit.answers import dataset
from evalkit.answers import journal as journals
from evalkit.answers.background import run_apart
from evalkit.answers.endpoint import ModelFunction
from evalkit.answers.evaluation import AUTO, Evaluation, names, scoring, warn_of_changes
from evalkit.answers.progress import Progress, Tally
from evalkit.errors import DataError
from evalkit.records import EvalResult, Example, Results
from evalkit.wording import plural, visible

SCORERS = ("similarity",)


def run_automated_eval(
    model: str | ModelFunction,
    test_file: str | Path,
    system_prompt: str = "",
    *,
    journal: str | Path | None = None,
    endpoint: str = "openai",
    base_url: str | None = None,
    checker: str | Callable[[str], bool] = AUTO,
    scorers: str | Sequence[str | Callable[[str, str], Any]] = SCORERS,
    limit: int | None = None,
    samples: int = 1,
    temperature: float | None = 0.0,
    max_tokens: int | None = 1024,
    seed: int | None = None,
    concurrency: int = 16,
    slice_fields: str | Sequence[str] = (),
    cluster_field: str | None = None,
    progress: bool = True,
    prices: str | Path | Mapping[str, Any] | None = None,
    extra_body: Mapping[str, Any] | None = None,
    system_prompt_mode: dataset.SystemPromptMode = "auto",
    strip_think: bool | None = None,
    strict: bool = True,
    timeout_s: float = 120.0,
    attempts: int = 6,
    abort_after: int = 25,
    patience_s: float = 600.0,
    max_reply_mb: float = 4.0,
    about: Mapping[str, Any] | None = None,
    name: str = "",
) -> list[EvalResult]:
    """Asks a model every question of a test file and scores the answers; results stand in file order.

    Works inside a running event loop (Jupyter) too. Interrupting it stops it; answers in the journal are kept, and the
    same call goes on from there.

    Args:
        model: A name the endpoint knows, or a function `messages -> text`, sync (in `concurrency` threads) or async.
        test_file: Chat JSONL; the last message of a row is the expected answer.
        system_prompt: Sent with each row: replaces the row's own, else stands in front (see `system_prompt_mode`).
        journal: JSONL file that keeps every answer; a call that stands in it is not made again.
        endpoint: A name for where the model lives, part of what makes two calls the same; not the address.
        base_url: Address; OPENAI_BASE_URL unless given. The key comes from OPENAI_API_KEY only.
        checker: How the form is checked: a name (article, icd10cm, regex:..., schema:..., FILE.py:NAME, none) or a function.
            "auto" is the article's form where expected answers have it, else none: then `format_correct` is None, no metric.
        scorers: Further metrics by name (several: a sequence, or commas), or functions `(expected, predicted) -> score`.
        limit: Only the first so many rows; None or 0 takes all.
        samples: How often each question is asked.
        temperature: None leaves it out of the request; the same goes for `max_tokens` (so does 0) and `seed`.
        max_tokens: Longest answer; one that reaches it is recorded as truncated.
        seed: Sent to servers that heed it.
        concurrency: Calls under way at once; fewer while the server limits their rate.
        slice_fields: Fields of a row (or of its metadata) by which results may be cut.
        cluster_field: Field that rows from one source share.
        progress: Show a bar (notebook, terminal) or plain lines (log).
        prices: Mapping or YAML file `model: {prompt_per_million, completion_per_million, currency}`, for the estimate.
        extra_body: Further fields of the request.
        system_prompt_mode: auto, prepend or replace.
        strip_think: False leaves a model's thoughts in its answer, to be scored with it. Else they are told apart and kept
            in the journal; True does so too, and goes on with journals that were begun with it.
        strict: Stop when rows cannot be used; False leaves them out.
        timeout_s: Seconds one attempt may take.
        attempts: Attempts at one call, the first included; a rate limit costs none, an outage two at most.
        abort_after: So many errors in a row stop the run.
        patience_s: Seconds without any answer, for a rate limit or since the server is away, after which the run gives
            up; 0 waits for neither. A function does its own waiting.
        max_reply_mb: The largest reply, in millions of bytes; a larger one is recorded as oversized.
        about: Anything the journal's header should say of the server or the model.
        name: For a function: the model's name in the journal, instead of the function's own. A partial, an object, a
            method of one and a lambda have none, so a journal needs it.

    Raises:
        DataError: Unusable rows (all listed), or a journal that cannot be used.
        ModelError: The endpoint cannot be used: key, name, address, quota, no answer for `patience_s`, or too many errors
            in a row.
        DesignError: A parameter that cannot be.
    """
    return _run(Evaluation(**locals()))  # each argument is a field of that name


async def run_automated_eval_async(*arguments: Any, **options: Any) -> list[EvalResult]:
    """The async twin of `run_automated_eval`: same arguments, same results, in the caller's own loop."""
    given = _ARGUMENTS.bind(*arguments, **options)
    given.apply_defaults()
    evaluation = Evaluation(**given.arguments)
    return _in_file_order([result async for result in stream_eval(evaluation)], evaluation)


_ARGUMENTS = signature(run_automated_eval)
run_automated_eval_async.__signature__ = _ARGUMENTS  # pyright: ignore[reportFunctionMemberAccess] - for help and completion


async def stream_eval(evaluation: Evaluation) -> AsyncGenerator[EvalResult, None]:
    """Yields results as they come, holding none; with `keep=False` the memory stays flat for any number of rows."""
    with _recording(evaluation) as (writer, tally, drawn):
        async with aclosing(evaluation.stream(writer, tally)) as stream:
            async for result in stream:
                yield result
                drawn.draw()
    warn_of_changes(tally)


def results_from_journal(
    journal_path: str | Path,
    test_file: str | Path,
    *,
    checker: str | Callable[[str], bool] = AUTO,
    scorers: str | Sequence[str | Callable[[str, str], Any]] = SCORERS,
    slice_fields: str | Sequence[str] = (),
    cluster_field: str | None = None,
    limit: int | None = None,
    samples: int | None = None,
    strict: bool = True,
    remedy: str | None = "run the benchmark again to ask them",
) -> list[EvalResult]:
    """Joins a test file with the answers one model's journal holds and scores them; nothing is asked.

    The options are those of `run_automated_eval`; `samples` takes sample numbers below it, None all there are.
    `remedy` is what the warning on unanswered rows advises; None gives no warning.

    Raises:
        DataError: The journal answers none of these rows, or one of the files cannot be used.
    """
    found = journals.read_journal(journal_path)
    head, entries = found.header, found.by_key()
    test_set = dataset.read_examples(
        test_file,
        system_prompt=head.get("system_prompt", ""),
        system_prompt_mode=head.get("system_prompt_mode", "auto"),
        slice_fields=names(slice_fields),
        cluster_field=cluster_field,
        limit=limit,
        strict=strict,
    )
    n_samples = samples or 1 + max((entry.sample for entry in found.entries), default=0)
    score = scoring(checker, scorers, test_set.examples)
    key = partial(journals.call_key, head["model"], head.get("endpoint", ""))
    results, unanswered = Results(), []
    for example in test_set.examples:
        sent = {**head["parameters"], **example.request}
        for sample in range(n_samples):
            entry = entries.get(key(sent, example.messages, sample))
            if entry is not None:
                results.append(score(example, entry.answer, sample))
            elif sample == 0:
                unanswered.append(example)
    if remedy is not None:
        _check_answered(found, test_set, unanswered, remedy)
    return results


def _run(evaluation: Evaluation) -> list[EvalResult]:
    with _recording(evaluation) as (writer, tally, drawn):

        async def collected() -> list[EvalResult]:
            async with aclosing(evaluation.stream(writer, tally)) as stream:
                return [result async for result in stream]

        results = run_apart(collected, poll=drawn.draw)
    warn_of_changes(tally)
    return _in_file_order(results, evaluation)


@contextmanager
def _recording(evaluation: Evaluation) -> Iterator[tuple[journals.Writer | None, Tally, Progress]]:
    """Opens the journal and the display, says what is ahead, and closes both whatever happens."""
    path = evaluation.journal
    with journals.Writer(path, evaluation.header()) if path else nullcontext() as writer:
        tally = Tally(n_calls=evaluation.n_calls)
        drawn = Progress(
            tally,
            evaluation.estimate(writer) if evaluation.progress else None,
            name=evaluation.model_name,
        )
        try:
            for note in (evaluation.sends(), *evaluation.test_set.notes):
                drawn.say(note)
            yield writer, tally, drawn
        finally:
            drawn.close()


def _in_file_order(results: list[EvalResult], evaluation: Evaluation) -> list[EvalResult]:
    place = {example.example_id: example.line for example in evaluation.test_set.examples}
    return Results(
        sorted(results, key=lambda result: (place[str(result.example_id)], result.sample))
    )


def _check_answered(
    found: journals.Journal, test_set: dataset.TestSet, unanswered: list[Example], remedy: str
) -> None:
    if not unanswered:
        return
    known = {entry.example_id for entry in found.entries}
    changed = sum(example.example_id in known for example in unanswered)
    reworded = f", {changed} of them asked in other words" if changed else ""
    text = (
        f"{found.path}: no answer to {plural(len(unanswered), 'row')} of {len(test_set.examples)} in {test_set.path}"
        f" (first: line {unanswered[0].line}){reworded}; {remedy}"
    )
    if len(unanswered) == len(test_set.examples):
        raise DataError(text)
    warnings.warn(visible(text), stacklevel=3)
