"""Runs a model over a test set: `run_automated_eval`, its async twin, and the results a journal already holds."""

from __future__ import annotations

import asyncio
import sys
import time
import warnings
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import wraps
from inspect import signature
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

from evalkit.answers import dataset, scoring
from evalkit.answers import journal as journals
from evalkit.answers.evaluation import SCORERS, Estimate, Evaluation, Names, duration
from evalkit.answers.functions import CallableModel
from evalkit.answers.scoring import Checker
from evalkit.conversation import holds_thoughts
from evalkit.errors import DataError, ModelError
from evalkit.records import Answer, EvalResult, Example, Results
from evalkit.study import named
from evalkit.wording import count, listed, plural, visible

if TYPE_CHECKING:
    from tqdm import tqdm

    from evalkit.answers.endpoint import Access, Endpoint

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

_LONG = 20_000  # characters of answer and expectation


def _taking(
    made: Callable[P, Evaluation],
) -> Callable[[Callable[[Evaluation], R]], Callable[P, R]]:
    """Makes of a function of a run one of the run's own arguments."""

    def taking(function: Callable[[Evaluation], R]) -> Callable[P, R]:
        @wraps(function)
        def called(*arguments: P.args, **options: P.kwargs) -> R:
            try:
                said.bind(*arguments, **options)
            except TypeError as why:  # the error of `made` would name a class that nobody called
                raise TypeError(f"{function.__name__}() {why}") from None
            return function(made(*arguments, **options))

        said = signature(made).replace(return_annotation=signature(function).return_annotation)
        called.__signature__ = said  # pyright: ignore[reportAttributeAccessIssue] - for help and completion
        return called

    return taking


@_taking(Evaluation)
def run_automated_eval(evaluation: Evaluation) -> list[EvalResult]:  # noqa: D417 - the arguments it is called with
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
            method of one, a lambda and a function made inside another have none, so a journal needs it.
        keep: False holds no rows of the test file in memory, and reads them again.

    Raises:
        DataError: Unusable rows (all listed), or a journal that cannot be used.
        ModelError: The endpoint cannot be used: key, name, address, quota, no answer for `patience_s`, or too many errors
            in a row.
        DesignError: A parameter that cannot be.
    """
    with _opened(evaluation) as asking:
        results = run_apart(asking.collected, poll=asking.drawn.draw)
    return _in_file_order(results, evaluation)


@_taking(Evaluation)
async def run_automated_eval_async(evaluation: Evaluation) -> list[EvalResult]:
    """The async twin of `run_automated_eval`: same arguments, same results, in the caller's own loop."""
    return _in_file_order([result async for result in stream_eval(evaluation)], evaluation)


async def stream_eval(evaluation: Evaluation) -> AsyncGenerator[EvalResult, None]:
    """Yields results as they come, holding none; with `keep=False` the memory stays flat for any number of rows."""
    with _opened(evaluation) as asking:
        async with aclosing(asking.results()) as stream:
            async for result in stream:
                yield result
                asking.drawn.draw()


def results_from_journal(
    journal_path: str | Path,
    test_file: str | Path,
    *,
    checker: str | Checker = scoring.AUTO,
    scorers: scoring.Scorers = SCORERS,
    slice_fields: Names = (),
    cluster_field: str | None = None,
    limit: int | None = None,
    samples: int | None = None,
    strict: bool = True,
    remedy: str | None = "run the benchmark again to ask them",
    read: Callable[..., dataset.TestSet] = dataset.read_examples,
) -> list[EvalResult]:
    """Joins a test file with the answers one model's journal holds and scores them; nothing is asked.

    The options are those of `run_automated_eval`; `samples` takes sample numbers below it, None all there are.
    `remedy` is what the warning on unanswered rows advises; None gives no warning. `read` reads the test file.

    Raises:
        DataError: The journal answers none of these rows, or one of the files cannot be used.
    """
    found = journals.read_journal(journal_path)
    head, entries = found.header, {entry.key: entry for entry in found.entries}
    test_set = read(
        test_file,
        system_prompt=head.get("system_prompt", ""),
        system_prompt_mode=head.get("system_prompt_mode", "auto"),
        slice_fields=named(slice_fields),
        cluster_field=cluster_field,
        limit=limit,
        strict=strict,
    )
    n_samples = samples or 1 + max((entry.sample for entry in found.entries), default=0)
    score = scoring.prepared(checker, scorers, test_set.examples)
    asked = head["model"], head.get("endpoint", ""), head["parameters"]
    results, unanswered = Results(), list[Example]()
    for call in journals.calls(*asked, test_set, n_samples):
        if entry := entries.get(call.key):
            results.append(score(call.example, entry.answer, call.sample))
        elif call.sample == 0:
            unanswered.append(call.example)
    if unanswered and remedy is not None:
        known, n = {entry.example_id for entry in found.entries}, len(test_set.examples)
        changed = sum(example.example_id in known for example in unanswered)
        reworded = f", {changed} of them asked in other words" if changed else ""
        told = (
            f"{found.path}: no answer to {plural(len(unanswered), 'row')} of {n} in {test_set.path}"
            f" (first: line {unanswered[0].line}){reworded}; {remedy}"
        )
        if len(unanswered) == n:
            raise DataError(told)
        warnings.warn(visible(told), stacklevel=2)
    return results


@dataclass(slots=True, kw_only=True)
class _Asking:
    """A run under way: its plan, the journal that keeps the answers, and the count of what came."""

    plan: Evaluation
    writer: journals.Writer | None
    tally: Tally
    drawn: Progress
    model: Endpoint | CallableModel = field(init=False)
    under_way: dict[str, asyncio.Task[Answer]] = field(default_factory=dict)

    async def collected(self) -> list[EvalResult]:
        async with aclosing(self.results()) as stream:
            return [result async for result in stream]

    async def results(self) -> AsyncGenerator[EvalResult, None]:
        """Yields each result as soon as it is there; the first call goes alone and finds out whether the endpoint works.

        Where the journal answers all, no model is needed.

        Raises:
            ModelError: The endpoint cannot be used, or `abort_after` calls in a row failed.
            DataError: The journal cannot be written.
        """
        calls = self.plan.calls()
        for call in calls:
            if known := self._known(call):
                yield await self._scored(call, known)
                continue
            self.model = self.plan.asked_model()
            self.tally.access = getattr(self.model, "access", None)  # a function has none
            # one waits, one asks
            n_workers = self.plan.concurrency * (2 if self.tally.access else 1)
            syncing = asyncio.create_task(self._sync_every_second())
            try:
                yield await self._answered(call, first=True)
                async with aclosing(in_pool(calls, self._answered, n_workers)) as rest:
                    async for result in rest:
                        yield result
            finally:
                syncing.cancel()  # what it could not sync, closing the journal reports
                await asyncio.gather(syncing, return_exceptions=True)
                await self.model.aclose()

    async def _answered(self, call: journals.Call, *, first: bool = False) -> EvalResult:
        """Single flight: rows with the same prompt share one call, as they share one answer when the journal is read."""
        if answer := self._known(call):
            pass
        elif self.writer is None:  # each row's answer is its own
            answer = await self._asked(call, first)
        elif same := self.under_way.get(call.key):
            answer = await same
            self.tally.known(answer)
        else:
            task = self.under_way[call.key] = asyncio.create_task(self._asked(call, first))
            answer = await task
            if answer.outcome != "error":  # a failed call stays: all rows of that prompt fail alike
                del self.under_way[call.key]
        return await self._scored(call, answer)

    async def _asked(self, call: journals.Call, first: bool) -> Answer:
        row, tally = call.example, self.tally
        answer = await self.model.ask(row.messages, request=row.request, first=first)
        if self.writer:
            self.writer.append(call.key, row.example_id, call.sample, answer)
        tally.asked(answer)
        if tally.errors_in_a_row >= self.plan.abort_after:
            kept = "finished answers stay in the journal, start again to go on"
            raise ModelError(
                f"{self.plan.model_name}: {tally.errors_in_a_row} calls in a row failed, the last with: {answer.error}; "
                f"{kept if self.writer else 'without a journal nothing is kept'}"
            )
        return answer

    async def _scored(self, call: journals.Call, answer: Answer) -> EvalResult:
        """Long texts are scored in a thread: calls under way must not wait for them."""
        if len(answer.text) + len(call.example.expected) < _LONG:
            return self.plan.score(call.example, answer, call.sample)
        return await asyncio.to_thread(self.plan.score, call.example, answer, call.sample)

    def _known(self, call: journals.Call) -> Answer | None:
        answer = self.writer.find(call.key) if self.writer else None
        if answer:
            self.tally.known(answer)
        return answer

    async def _sync_every_second(self) -> None:
        while self.writer:
            await asyncio.sleep(1)
            await asyncio.to_thread(self.writer.sync)


@contextmanager
def _opened(plan: Evaluation) -> Iterator[_Asking]:
    """Opens the journal and the display, says what is ahead, and closes both whatever happens."""
    kept = journals.Writer(plan.journal, plan.header()) if plan.journal else nullcontext()
    with kept as writer:
        tally = Tally(n_calls=plan.n_calls)
        estimate = plan.estimate(writer) if plan.progress else None
        drawn = Progress(tally, estimate, name=plan.model_name)
        try:
            for note in (plan.sends(), *plan.test_set.notes):
                drawn.say(note)
            yield _Asking(plan=plan, writer=writer, tally=tally, drawn=drawn)
        finally:
            drawn.close()
    if tally.n_unstripped:
        warnings.warn(
            f"{tally.n_unstripped} of {plural(tally.n_done, 'answer')} hold thoughts, which are scored as part of them; "
            "without strip_think: false they are told apart; answers in a journal have to be asked afresh",
            stacklevel=3,  # past contextlib
        )
    if len(tally.served) > 1:
        served = listed([f"{name!r} ({plural(n, 'answer')})" for name, n in tally.served.items()])
        warnings.warn(
            f"the server's model changed: {visible(served)}; compare only what one model answered: ask the others afresh",
            stacklevel=3,
        )


def _in_file_order(results: list[EvalResult], evaluation: Evaluation) -> list[EvalResult]:
    place = {example.example_id: example.line for example in evaluation.test_set}
    return Results(sorted(results, key=lambda one: (place[str(one.example_id)], one.sample)))


def run_apart(
    main: Callable[[], Coroutine[None, None, T]], *, poll: Callable[[], None], every_s: float = 0.1
) -> T:
    """Runs a coroutine in a loop of its own in a worker thread, so that it works where a loop is running already.

    The caller waits, polls, and passes an interrupt on.

    Args:
        main: Makes the coroutine.
        poll: Called in the caller's thread, e.g. to draw progress.
        every_s: Seconds between two polls.
    """
    runner, done = asyncio.Runner(loop_factory=_new_loop), Event()
    loop = runner.get_loop()
    task = loop.create_task(main())

    def hosted() -> None:
        try:
            with runner, suppress(BaseException):  # which the task keeps
                loop.run_until_complete(task)
        finally:
            done.set()

    thread = Thread(target=hosted, name="evalkit", daemon=True)
    thread.start()
    try:
        while not done.wait(every_s):
            poll()
    except BaseException:  # an interrupt, or a failed drawing: the work must end before we go
        with suppress(RuntimeError):  # its loop has just ended by itself
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    thread.join()
    return task.result()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # where it does not install, asyncio's own
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def in_pool(
    items: Iterator[T], work: Callable[[T], Coroutine[None, None, R]], size: int
) -> AsyncGenerator[R, None]:
    """Yields `work(item)` as each is done, with `size` at work at once; takes an item only when there is room for it."""
    at_work, done = set[asyncio.Task[R]](), asyncio.Queue[asyncio.Task[R]]()

    def begin(n: int) -> None:
        for item in islice(items, n):
            at_work.add(task := asyncio.create_task(work(item)))
            task.add_done_callback(done.put_nowait)

    try:
        begin(size)
        while at_work:
            at_work.discard(task := await done.get())
            begin(1)
            yield task.result()
    finally:
        for task in at_work:
            task.cancel()
        await asyncio.gather(*at_work, return_exceptions=True)


LINE_EVERY_S = 10.0


@dataclass(slots=True)
class Tally:
    """What has happened so far; the run writes it, the one who draws reads it.

    Attributes:
        n_calls: Calls in all, answered before or not.
        n_known: Answers found in the journal.
        latency_ms: Of the first answer asked for.
        served: Model names in the replies, in order of appearance.
        n_unstripped: Answers that hold thoughts, which nothing told apart.
        access: What the calls share of account and server; None for a function.
    """

    n_calls: int
    n_known: int = 0
    n_asked: int = 0
    n_retries: int = 0
    errors_in_a_row: int = 0
    latency_ms: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    n_unstripped: int = 0
    started: float = field(default_factory=time.monotonic)
    access: Access | None = None

    @property
    def n_done(self) -> int:
        """Calls answered, now or before."""
        return self.n_known + self.n_asked

    def known(self, answer: Answer) -> None:
        """Counts an answer found in the journal."""
        self.n_known += 1
        self._note(answer)

    def asked(self, answer: Answer) -> None:
        """Counts an answer asked for now."""
        self.n_asked += 1
        self.n_retries += answer.attempts - 1
        self.errors_in_a_row = self.errors_in_a_row + 1 if answer.outcome == "error" else 0
        self.latency_ms = self.latency_ms or answer.latency_ms
        self.prompt_tokens += answer.prompt_tokens or 0
        self.completion_tokens += answer.completion_tokens or 0
        self._note(answer)

    def _note(self, answer: Answer) -> None:
        self.outcomes[answer.outcome] += 1
        self.n_unstripped += holds_thoughts(answer.text)
        if answer.served_model:
            self.served[answer.served_model] += 1

    def __str__(self) -> str:
        """What came of it, in one line."""
        words = [f"{count(n)} {outcome}" for outcome, n in self.outcomes.most_common()]
        again = f", {plural(self.n_retries, 'retry', 'retries')}" if self.n_retries else ""
        waited_s = self.access.waited_s if self.access else 0.0
        waited = f", {duration(waited_s)} of it waiting for the server" if waited_s else ""
        took = duration(time.monotonic() - self.started) + waited
        return f"{count(self.n_done)} of {plural(self.n_calls, 'call')} done: {listed(words) or 'none'}{again}, {took}"

    @property
    def waiting(self) -> str:
        """What the run waits for, and how far it is; "" when calls are answered."""
        why = str(self.access or "")
        return why and f"{why}, waiting; {count(self.n_done)} of {count(self.n_calls)} done"


class Progress:
    """Draws a tally: a bar in notebooks and terminals, plain lines elsewhere, nothing without an estimate."""

    def __init__(
        self, tally: Tally, estimate: Estimate | None, *, name: str, every_s: float = LINE_EVERY_S
    ) -> None:
        """Prepares the bar or the lines for a run of `name`; without an estimate nothing is ever shown."""
        self._tally, self._estimate, self._name = tally, estimate, name
        self._every_s, self._said_at = every_s, time.monotonic()
        self._bar = _bar(tally.n_calls, visible(name)) if estimate and tally.n_calls else None
        self.say(str(estimate))

    def say(self, text: str) -> None:
        """One line, beside the bar if there is one."""
        if not self._estimate:
            return
        line, out = visible(f"{self._name}: {text}"), sys.stdout if _kernel() else sys.stderr
        if self._bar is not None:
            self._bar.write(line, file=out)
        else:
            print(line, file=out, flush=True)

    def draw(self) -> None:
        """Moves the bar, or writes a line every ten seconds; after the first answer says what is left to do.

        While nothing is answered both say so, every ten seconds.
        """
        tally = self._tally
        if self._estimate and tally.latency_ms is not None and self._estimate.seconds is None:
            self._estimate = self._estimate.after(tally)
            took = duration(tally.latency_ms / 1000)
            self.say(f"the first answer took {took}; {self._estimate}")
        if self._bar is not None and self._bar.n != tally.n_done:
            self._bar.update(tally.n_done - self._bar.n)
        if time.monotonic() - self._said_at < self._every_s:
            return
        self._said_at = time.monotonic()
        if told := tally.waiting or ("" if self._bar is not None else str(tally)):
            self.say(told)

    def close(self) -> None:
        """The last line: what came of it."""
        if self._bar is not None:
            self._bar.update(self._tally.n_done - self._bar.n)
            self._bar.close()
            self._bar = None
        self.say(str(self._tally))


def _bar(n: int, name: str) -> tqdm[NoReturn] | None:
    kernel = _kernel()
    if getattr(kernel, "_allow_stdin", False):  # somebody sits in front of it
        from tqdm.notebook import tqdm
    elif kernel is None and sys.stderr.isatty():
        from tqdm import tqdm
    else:
        return None
    return tqdm(total=n, desc=name, unit="answer")


def _kernel() -> object:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None)
