"""Runs a model over a test set: `run_automated_eval`, its async twin, and the results a journal already holds."""

from __future__ import annotations

import asyncio
import json
import platform
import warnings
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import aclosing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from inspect import signature
from numbers import Integral
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar

from evalkit.answers import dataset, metrics
from evalkit.answers import journal as journals
from evalkit.answers.functions import CallableModel, ModelFunction, identity
from evalkit.answers.metrics import Checker, Scorer
from evalkit.answers.progress import Estimate, PriceList, Progress, Tally, prices_of
from evalkit.answers.request import Parameters
from evalkit.errors import DataError, DesignError, ModelError
from evalkit.files import JsonObject, no_number
from evalkit.records import Answer, EvalResult, Example, Results
from evalkit.wording import flattened, listed, plural, visible

if TYPE_CHECKING:
    from evalkit.answers.endpoint import Endpoint

T = TypeVar("T")
R = TypeVar("R")
Scored = Callable[[Example, Answer, int], EvalResult]
Names = str | Iterable[str]
Scorers = str | Scorer | Iterable[str | Scorer]

AUTO = "auto"
SCORERS = ("similarity",)
_LONG = 20_000  # characters of answer and expectation
_LONG_VALUE = 120  # characters of a parameter's value that are shown
_CHARS_PER_TOKEN = 3  # an upper bound needs few characters a token; English has about four
_END = object()


def run_automated_eval(
    model: str | ModelFunction,
    test_file: str | Path,
    system_prompt: str = "",
    *,
    journal: str | Path | None = None,
    endpoint: str = "openai",
    base_url: str | None = None,
    checker: str | Checker = AUTO,
    scorers: Scorers = SCORERS,
    limit: int | None = None,
    samples: int = 1,
    temperature: float | None = 0.0,
    max_tokens: int | None = 1024,
    seed: int | None = None,
    concurrency: int = 16,
    slice_fields: Names = (),
    cluster_field: str | None = None,
    progress: bool = True,
    prices: str | Path | PriceList | None = None,
    extra_body: Mapping[str, object] | None = None,
    system_prompt_mode: dataset.SystemPromptMode = "auto",
    strip_think: bool | None = None,
    strict: bool = True,
    timeout_s: float = 120.0,
    attempts: int = 6,
    abort_after: int = 25,
    patience_s: float = 600.0,
    max_reply_mb: float = 4.0,
    about: Mapping[str, object] | None = None,
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
    evaluation = Evaluation(**locals())  # each argument is a field of that name
    with _opened(evaluation) as asking:
        results = run_apart(asking.collected, poll=asking.drawn.draw)
    return _in_file_order(results, evaluation)


async def run_automated_eval_async(*arguments: object, **options: object) -> list[EvalResult]:
    """The async twin of `run_automated_eval`: same arguments, same results, in the caller's own loop."""
    given = _ARGUMENTS.bind(*arguments, **options)
    given.apply_defaults()
    evaluation = Evaluation(**given.arguments)
    return _in_file_order([result async for result in stream_eval(evaluation)], evaluation)


_ARGUMENTS = signature(run_automated_eval)
run_automated_eval_async.__signature__ = _ARGUMENTS  # pyright: ignore[reportFunctionMemberAccess] - for help and completion


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
    checker: str | Checker = AUTO,
    scorers: Scorers = SCORERS,
    slice_fields: Names = (),
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
    asked = head["model"], head.get("endpoint", ""), head["parameters"]
    results, unanswered = Results(), list[Example]()
    for call in _calls(*asked, test_set, n_samples):
        if entry := entries.get(call.key):
            results.append(score(call.example, entry.answer, call.sample))
        elif call.sample == 0:
            unanswered.append(call.example)
    if unanswered and remedy is not None:
        _tell_unanswered(found, test_set, unanswered, remedy)
    return results


def _tell_unanswered(
    found: journals.Journal, test_set: dataset.TestSet, unanswered: list[Example], remedy: str
) -> None:
    known, n = {entry.example_id for entry in found.entries}, len(test_set.examples)
    changed = sum(example.example_id in known for example in unanswered)
    reworded = f", {changed} of them asked in other words" if changed else ""
    text = (
        f"{found.path}: no answer to {plural(len(unanswered), 'row')} of {n} in {test_set.path}"
        f" (first: line {unanswered[0].line}){reworded}; {remedy}"
    )
    if len(unanswered) == n:
        raise DataError(text)
    warnings.warn(visible(text), stacklevel=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One example to be asked for its n-th sample."""

    example: Example
    sample: int
    key: str


def _calls(
    model: str,
    endpoint: str,
    parameters: Mapping[str, object],
    rows: Iterable[Example],
    n_samples: int,
) -> Iterator[Call]:
    """Every call, in file order, sample by sample."""
    key = partial(journals.call_key, model, endpoint)
    for row in rows:
        sent = {**parameters, **row.request}
        for sample in range(n_samples):
            yield Call(example=row, sample=sample, key=key(sent, row.messages, sample))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A run as planned; each field means what the argument of that name means to `run_automated_eval`.

    Attributes:
        keep: False holds no rows and no results in memory; for `stream_eval`.
    """

    model: str | ModelFunction
    test_file: str | Path
    system_prompt: str = ""
    journal: str | Path | None = None
    endpoint: str = "openai"
    base_url: str | None = None
    checker: str | Checker = AUTO
    scorers: Scorers = SCORERS
    limit: int | None = None
    samples: int = 1
    temperature: float | None = 0.0
    max_tokens: int | None = 1024
    seed: int | None = None
    concurrency: int = 16
    slice_fields: Names = ()
    cluster_field: str | None = None
    progress: bool = False
    prices: str | Path | PriceList | None = None
    extra_body: Mapping[str, object] | None = None
    system_prompt_mode: dataset.SystemPromptMode = "auto"
    strip_think: bool | None = None
    strict: bool = True
    timeout_s: float = 120.0
    attempts: int = 6
    abort_after: int = 25
    patience_s: float = 600.0
    max_reply_mb: float = 4.0
    about: Mapping[str, object] | None = None
    name: str = ""
    keep: bool = True

    def __post_init__(self) -> None:
        for name in ("samples", "concurrency", "attempts", "abort_after"):
            if not isinstance(n := getattr(self, name), Integral) or n < 1:
                raise DesignError(f"{name} is {n!r}; need at least 1, a whole number")
        for name, least in (("patience_s", 0.0), ("timeout_s", 0.001), ("max_reply_mb", 0.001)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or no_number(value) or value < least:
                raise DesignError(f"{name} is {value!r}; need a number of at least {least:g}")
        if not isinstance(self.model, str) and not callable(self.model):
            need = "need the name of a model, or a function of the messages"
            raise DesignError(f"model is {self.model!r}; {need}")
        if self.name and isinstance(self.model, str):
            raise DesignError(
                f"name is {self.name!r}, but model {self.model!r} has one; it is for functions"
            )
        if self.journal is not None:
            self.function()  # what has no name must cost no call either
        for name in ("scorers", "slice_fields"):  # any iterable, also one that is read only once
            object.__setattr__(self, name, names(getattr(self, name)))
        scoring(self.checker, self.scorers)  # an unknown name must cost no call

    def function(self) -> dict[str, str]:
        """What tells the function that answers from another of its name; nothing for a model or a given name.

        Raises:
            DesignError: It has no name of its own, and none was given.
        """
        return {} if self.name or isinstance(self.model, str) else identity(self.model)

    @property
    def model_name(self) -> str:
        """The model's name, or the function's: the one given, else its own."""
        if isinstance(self.model, str):
            return self.model
        return self.name or getattr(self.model, "__qualname__", type(self.model).__name__)

    @property
    def endpoint_name(self) -> str:
        """The declared name; a function has no endpoint."""
        is_function = not isinstance(self.model, str) and self.endpoint == "openai"
        return "function" if is_function else self.endpoint

    @cached_property
    def parameters(self) -> Parameters:
        """What goes with each call; a function is given the messages only."""
        if not isinstance(self.model, str):
            return Parameters(temperature=None, max_tokens=None, strip_think=self.strip_think)
        return Parameters(
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            seed=self.seed,
            strip_think=self.strip_think,
            extra=self.extra_body or {},
        )

    @cached_property
    def test_set(self) -> dataset.TestSet:
        """The test set, read and checked once."""
        same = ("system_prompt", "system_prompt_mode", "cluster_field", "limit", "strict", "keep")
        options = {name: getattr(self, name) for name in same}
        fields = names(self.slice_fields)
        return dataset.read_examples(self.test_file, slice_fields=fields, **options)

    @cached_property
    def score(self) -> Scored:
        """Scores one answer."""
        return scoring(self.checker, self.scorers, self.test_set)

    @property
    def n_calls(self) -> int:
        """Calls in all, answered before or not."""
        return min(self.test_set.n_rows, self.limit or self.test_set.n_rows) * self.samples

    def header(self) -> JsonObject:
        """The header of this run's journal."""
        versions = {name: version(name) for name in ("evalkit", "openai")}
        return journals.header(
            self.model_name,
            endpoint=self.endpoint_name,
            parameters=self.parameters.recorded(),
            system_prompt=self.system_prompt,
            system_prompt_mode=self.system_prompt_mode,
            test_set=self.test_set.fingerprint,
            versions={**versions, "python": platform.python_version()},
            about={**(self.about or {}), "system_prompt_use": self.test_set.system_prompt_mode},
            function=self.function(),
        )

    def calls(self) -> Iterator[Call]:
        """Every call, in file order, sample by sample."""
        asked = self.model_name, self.endpoint_name, self.parameters.recorded()
        return _calls(*asked, self.test_set, self.samples)

    def sends(self) -> str:
        """What goes with each call besides the messages, in one line."""
        said = [f"{name} {_shown(value)}" for name, value in self.parameters.body().items()]
        rows = [f"{name} of {plural(n, 'row')}" for name, n in self.test_set.requests.items()]
        thoughts = "stay in the answers" if self.strip_think is False else "are not scored"
        parts = [listed(said) or "no parameters", *([listed(rows)] if rows else [])]
        return f"sends {', '.join(parts)}; thoughts {thoughts}"

    def estimate(self, writer: journals.Writer | None = None) -> Estimate:
        """What the run will take before anything is asked: calls, and at most how much money."""
        n_known = sum(call.key in writer for call in self.calls()) if writer else 0
        n_to_ask, price, money = (
            self.n_calls - n_known,
            prices_of(self.prices, self.model_name),
            None,
        )
        sent = self.parameters.body()
        most = sent.get("max_completion_tokens") or sent.get("max_tokens")
        if (
            price and self.n_calls and isinstance(most, int | float)
        ):  # else nothing bounds an answer
            messages = (message for row in self.test_set for message in row.messages)
            n_chars = sum(len(flattened(one.get("content"))) for one in messages) * self.samples
            money = n_to_ask * price.cost(n_chars / _CHARS_PER_TOKEN / self.n_calls, most)
        return Estimate(
            n_calls=self.n_calls,
            n_to_ask=n_to_ask,
            concurrency=self.concurrency,
            price=price,
            money=money,
            is_bound=money is not None,
        )

    def asked_model(self) -> Endpoint | CallableModel:
        """The model, ready to be asked."""
        if not isinstance(self.model, str):
            threads = self.concurrency
            return CallableModel(self.model, n_threads=threads, strip_think=self.strip_think)
        from evalkit.answers.endpoint import Endpoint  # openai takes most of a second

        same = ("base_url", "timeout_s", "attempts", "concurrency", "patience_s", "max_reply_mb")
        options = {name: getattr(self, name) for name in same}
        return Endpoint(self.model, parameters=self.parameters, **options)


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

    async def _answered(self, call: Call, *, first: bool = False) -> EvalResult:
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

    async def _asked(self, call: Call, first: bool) -> Answer:
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

    async def _scored(self, call: Call, answer: Answer) -> EvalResult:
        """Long texts are scored in a thread: calls under way must not wait for them."""
        if len(answer.text) + len(call.example.expected) < _LONG:
            return self.plan.score(call.example, answer, call.sample)
        return await asyncio.to_thread(self.plan.score, call.example, answer, call.sample)

    def _known(self, call: Call) -> Answer | None:
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
    _warn_of_changes(tally)


def _warn_of_changes(tally: Tally) -> None:
    """Warns when the answers came from more than one model, and when thoughts in them would be scored."""
    if tally.n_unstripped:
        warnings.warn(
            f"{tally.n_unstripped} of {plural(tally.n_done, 'answer')} hold thoughts, which are scored as part of them; "
            "without strip_think: false they are told apart; answers in a journal have to be asked afresh",
            stacklevel=4,  # past `_opened` and contextlib
        )
    if len(tally.served) > 1:
        served = listed([f"{name!r} ({plural(n, 'answer')})" for name, n in tally.served.items()])
        warnings.warn(
            f"the server's model changed: {visible(served)}; compare only what one model answered: ask the others afresh",
            stacklevel=4,
        )


def _in_file_order(results: list[EvalResult], evaluation: Evaluation) -> list[EvalResult]:
    place = {example.example_id: example.line for example in evaluation.test_set.examples}
    return Results(sorted(results, key=lambda one: (place[str(one.example_id)], one.sample)))


def scoring(checker: str | Checker, scorers: Scorers, rows: Iterable[Example] = ()) -> Scored:
    """A function that scores one answer; names are looked up now, before anything is asked.

    With the checker "auto" the article's form is asked for where the expected answers of `rows` have it: in another task every
    answer would lack it.
    """
    if checker == AUTO:
        has_form = any(metrics.check_format(one.expected) for one in rows)
        checker = "article" if has_form else "none"
    found = tuple(metrics.scorers_by_name(names(scorers)).values())
    return partial(metrics.score_answer, checker=metrics.checker(checker), scorers=found)


def names(given: str | T | Iterable[str | T]) -> tuple[str | T, ...]:
    """Several names: any iterable, or a text with commas between them; a function stands for itself."""
    several = given.split(",") if isinstance(given, str) else given
    if callable(several) or not isinstance(several, Iterable):
        several = [several]
    stripped = (one.strip() if isinstance(one, str) else one for one in several)
    return tuple(one for one in stripped if one)


def _shown(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else flattened(value) or json.dumps(value)
    return text if len(text) <= _LONG_VALUE else f"{text[:_LONG_VALUE]}…"


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
    items: Iterator[T], work: Callable[[T], Awaitable[R]], size: int
) -> AsyncGenerator[R, None]:
    """Yields `work(item)` as each is done, with `size` at work at once; takes an item only when a worker is free."""
    results, failures = asyncio.Queue[R | object](maxsize=2 * size), list[Exception]()

    async def worker() -> None:
        for item in items:
            await results.put(await work(item))

    async def foreman() -> None:
        try:
            await asyncio.gather(*workers)
        except Exception as why:
            failures.append(why)
        await results.put(_END)

    workers = [asyncio.create_task(worker()) for _ in range(size)]
    head = asyncio.create_task(foreman())
    try:
        while (result := await results.get()) is not _END:
            yield result  # pyright: ignore[reportReturnType] - all but the end is a result
        if failures:
            raise failures[0]
    finally:
        for task in (*workers, head):
            task.cancel()
        await asyncio.gather(*workers, head, return_exceptions=True)
