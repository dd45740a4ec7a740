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
    Sequence,
)
from concurrent.futures import Future, wait
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from numbers import Integral
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from evalkit.answers import dataset, metrics
from evalkit.answers.functions import CallableModel, ModelFunction, identity
from evalkit.answers.progress import Estimate, Tally, prices_of
from evalkit.answers.request import Parameters
from evalkit.errors import DesignError, ModelError
from evalkit.files import no_number
from evalkit.records import Answer, EvalResult, Example
from evalkit.wording import flattened, listed, plural, visible

if TYPE_CHECKING:
    from evalkit.answers.endpoint import Endpoint
from contextlib import contextmanager, nullcontext
from inspect import signature

from evalkit.answers import journal as journals
from evalkit.answers.progress import Progress
from evalkit.errors import DataError
from evalkit.records import Results

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _End:
    """No more results, and why."""

    failure: Exception | None = None


def run_apart(
    main: Callable[[], Coroutine[Any, Any, T]], *, poll: Callable[[], None], every_s: float = 0.1
) -> T:
    """Runs a coroutine in a worker thread's loop; the caller waits, polls, and passes an interrupt on.

    Args:
        main: Makes the coroutine.
        poll: Called in the caller's thread, e.g. to draw progress.
        every_s: Seconds between two polls.
    """
    done: Future[T] = Future()
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()
    thread = Thread(target=_host, args=(main, started, done), name="evalkit", daemon=True)
    thread.start()
    try:
        while not wait([done], timeout=every_s).done:
            poll()
    except BaseException:  # an interrupt, or a failed drawing: the work must end before we go
        with suppress(RuntimeError):  # its loop has just ended by itself
            loop, task = started.result()
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    thread.join()
    return done.result()


async def in_pool(
    items: Iterator[T], work: Callable[[T], Awaitable[R]], size: int
) -> AsyncGenerator[R, None]:
    """Yields `work(item)` as each is done, with `size` at work at once; takes an item only when a worker is free."""
    results: asyncio.Queue[Any] = asyncio.Queue(maxsize=2 * size)

    async def worker() -> None:
        for item in items:
            await results.put(await work(item))

    async def foreman(workers: list[asyncio.Task[None]]) -> None:
        try:
            await asyncio.gather(*workers)
            await results.put(_End())
        except Exception as why:
            await results.put(_End(why))

    workers = [asyncio.create_task(worker()) for _ in range(size)]
    head = asyncio.create_task(foreman(workers))
    try:
        while not isinstance(result := await results.get(), _End):
            yield result
        if result.failure is not None:
            raise result.failure
    finally:
        for task in (*workers, head):
            task.cancel()
        await asyncio.gather(*workers, head, return_exceptions=True)


def _host(
    main: Callable[[], Coroutine[Any, Any, T]],
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]],
    done: Future[T],
) -> None:
    async def watched() -> T:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task))
        return await main()

    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            done.set_result(runner.run(watched()))
    except BaseException as why:
        done.set_exception(why)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # where it does not install, asyncio's own
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


Scored = Callable[[Example, Answer, int], EvalResult]
AUTO = "auto"
_LONG = 20_000  # characters of answer and expectation
_LONG_VALUE = 120  # characters of a parameter's value that are shown
_CHARS_PER_TOKEN = 3  # an upper bound needs few characters a token; English has about four


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One example to be asked for its n-th sample."""

    example: Example
    sample: int
    key: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A run as planned; each field means what the argument of that name means to `run_automated_eval`.

    Attributes:
        keep: False holds no rows and no results in memory; for `runner.stream_eval`.
    """

    model: str | ModelFunction
    test_file: str | Path
    system_prompt: str = ""
    journal: str | Path | None = None
    endpoint: str = "openai"
    base_url: str | None = None
    checker: str | Callable[[str], bool] = AUTO
    scorers: str | Sequence[str | Callable[[str, str], Any]] = ("similarity",)
    limit: int | None = None
    samples: int = 1
    temperature: float | None = 0.0
    max_tokens: int | None = 1024
    seed: int | None = None
    concurrency: int = 16
    slice_fields: str | Sequence[str] = ()
    cluster_field: str | None = None
    progress: bool = False
    prices: str | Path | Mapping[str, Any] | None = None
    extra_body: Mapping[str, Any] | None = None
    system_prompt_mode: dataset.SystemPromptMode = "auto"
    strip_think: bool | None = None
    strict: bool = True
    timeout_s: float = 120.0
    attempts: int = 6
    abort_after: int = 25
    patience_s: float = 600.0
    max_reply_mb: float = 4.0
    about: Mapping[str, Any] | None = None
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
            raise DesignError(
                f"model is {self.model!r}; need the name of a model, or a function of the messages"
            )
        if self.name and isinstance(self.model, str):
            raise DesignError(
                f"name is {self.name!r}, but model {self.model!r} has one; it is for functions"
            )
        if self.journal is not None:
            self.function()  # what has no name must cost no call either
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
        return self.name or (
            self.model
            if isinstance(self.model, str)
            else getattr(self.model, "__qualname__", type(self.model).__name__)
        )

    @property
    def endpoint_name(self) -> str:
        """The declared name; a function has no endpoint."""
        return (
            self.endpoint
            if isinstance(self.model, str) or self.endpoint != "openai"
            else "function"
        )

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
        return dataset.read_examples(
            self.test_file, slice_fields=names(self.slice_fields), **options
        )

    @cached_property
    def score(self) -> Scored:
        """Scores one answer."""
        return scoring(self.checker, self.scorers, self.test_set)

    @property
    def n_calls(self) -> int:
        """Calls in all, answered before or not."""
        return min(self.test_set.n_rows, self.limit or self.test_set.n_rows) * self.samples

    def header(self) -> dict[str, Any]:
        """The header of this run's journal."""
        return journals.header(
            self.model_name,
            endpoint=self.endpoint_name,
            parameters=self.parameters.recorded(),
            system_prompt=self.system_prompt,
            system_prompt_mode=self.system_prompt_mode,
            test_set=self.test_set.fingerprint,
            versions={
                "evalkit": version("evalkit"),
                "openai": version("openai"),
                "python": platform.python_version(),
            },
            about={**(self.about or {}), "system_prompt_use": self.test_set.system_prompt_mode},
            function=self.function(),
        )

    def calls(self) -> Iterator[Call]:
        """Every call, in file order, sample by sample."""
        key = partial(journals.call_key, self.model_name, self.endpoint_name)
        recorded = self.parameters.recorded()
        for example in self.test_set:
            sent = {**recorded, **example.request}
            for sample in range(self.samples):
                yield Call(example=example, sample=sample, key=key(sent, example.messages, sample))

    def sends(self) -> str:
        """What goes with each call besides the messages, in one line."""
        fields = self.parameters.body()
        said = [f"{name} {_shown(value)}" for name, value in fields.items()]
        rows = [f"{name} of {plural(n, 'row')}" for name, n in self.test_set.requests.items()]
        thoughts = "stay in the answers" if self.strip_think is False else "are not scored"
        parts = [listed(said) or "no parameters", *([listed(rows)] if rows else [])]
        return f"sends {', '.join(parts)}; thoughts {thoughts}"

    def estimate(self, writer: journals.Writer | None = None) -> Estimate:
        """What the run will take before anything is asked: calls, and at most how much money."""
        n_known = sum(call.key in writer for call in self.calls()) if writer else 0
        price = prices_of(self.prices, self.model_name)
        estimate = Estimate(
            n_calls=self.n_calls,
            n_to_ask=self.n_calls - n_known,
            concurrency=self.concurrency,
            price=price,
        )
        if price is None or not self.n_calls:
            return estimate
        chars = sum(
            len(flattened(one.get("content")))
            for call in self.calls()
            for one in call.example.messages
        )
        sent = self.parameters.body()
        most = sent.get("max_completion_tokens") or sent.get("max_tokens")
        if not isinstance(
            most, int | float
        ):  # nothing bounds an answer: what it costs is not known
            return estimate
        bound = price.cost(chars / _CHARS_PER_TOKEN / self.n_calls, float(most))
        return replace(estimate, money=estimate.n_to_ask * bound, is_bound=True)

    async def stream(
        self, writer: journals.Writer | None, tally: Tally
    ) -> AsyncGenerator[EvalResult, None]:
        """Yields each result as soon as it is there; the first call goes alone and finds out whether the endpoint works.

        Raises:
            ModelError: The endpoint cannot be used, or `abort_after` calls in a row failed.
            DataError: The journal cannot be written.
        """
        calls = self.calls()
        for call in calls:
            if known := self._known(call, writer, tally):
                yield await self._scored(call, known)
                continue
            async with aclosing(self._from_here(call, calls, writer, tally)) as rest:
                async for result in rest:
                    yield result

    async def _from_here(
        self, first: Call, calls: Iterator[Call], writer: journals.Writer | None, tally: Tally
    ) -> AsyncGenerator[EvalResult, None]:
        """From the first call that must be made; when the journal answers all, no model is needed."""
        model = self._model()
        tally.access = getattr(model, "access", None)  # a function keeps its own counsel
        n_workers = self.concurrency * (2 if tally.access else 1)  # a row that waits stops no other
        ask = partial(self._asked, model=model, writer=writer, tally=tally)
        syncing = asyncio.create_task(_sync_every_second(writer))
        try:
            work = partial(self._answered, ask=ask, writer=writer, tally=tally, under_way={})
            yield await work(first, first=True)
            async with aclosing(in_pool(calls, work, n_workers)) as rest:
                async for result in rest:
                    yield result
        finally:
            syncing.cancel()
            await asyncio.gather(
                syncing, return_exceptions=True
            )  # what it could not sync, closing the journal reports
            await model.aclose()

    def _model(self) -> Endpoint | CallableModel:
        if not isinstance(self.model, str):
            return CallableModel(
                self.model, n_threads=self.concurrency, strip_think=self.strip_think
            )
        from evalkit.answers.endpoint import (
            Endpoint,
        )  # openai takes most of a second; reading a journal needs none of it

        return Endpoint(
            self.model,
            parameters=self.parameters,
            base_url=self.base_url,
            timeout_s=self.timeout_s,
            attempts=self.attempts,
            concurrency=self.concurrency,
            patience_s=self.patience_s,
            max_reply_mb=self.max_reply_mb,
        )

    async def _answered(
        self,
        call: Call,
        *,
        ask: Any,
        writer: journals.Writer | None,
        tally: Tally,
        under_way: dict[str, asyncio.Task[Answer]],
        first: bool = False,
    ) -> EvalResult:
        """Single flight: rows with the same prompt share one call, as they share one answer when the journal is read."""
        if known := self._known(call, writer, tally):
            return await self._scored(call, known)
        if writer is None:  # each row's answer is its own
            answer = await ask(call, first=first)
        elif same := under_way.get(call.key):
            answer = await same
            tally.known(answer)
        else:
            under_way[call.key] = asyncio.create_task(ask(call, first=first))
            answer = await under_way[call.key]
            if (
                answer.outcome != "error"
            ):  # a failed call stays: its row and the others of that prompt fail alike
                del under_way[call.key]
        return await self._scored(call, answer)

    async def _scored(self, call: Call, answer: Answer) -> EvalResult:
        """Long texts are scored in a thread: calls under way must not wait for them."""
        if len(answer.text) + len(call.example.expected) < _LONG:
            return self.score(call.example, answer, call.sample)
        return await asyncio.to_thread(self.score, call.example, answer, call.sample)

    def _known(self, call: Call, writer: journals.Writer | None, tally: Tally) -> Answer | None:
        answer = writer.find(call.key) if writer else None
        if answer is not None:
            tally.known(answer)
        return answer

    async def _asked(
        self,
        call: Call,
        *,
        model: Endpoint | CallableModel,
        writer: journals.Writer | None,
        tally: Tally,
        first: bool = False,
    ) -> Answer:
        row = call.example
        answer = await model.ask(row.messages, request=row.request, first=first)
        if writer:
            writer.append(call.key, call.example.example_id, call.sample, answer)
        tally.asked(answer)
        if tally.errors_in_a_row >= self.abort_after:
            raise ModelError(
                f"{self.model_name}: {tally.errors_in_a_row} calls in a row failed, the last with: {answer.error}; "
                + (
                    "finished answers stay in the journal, start again to go on"
                    if writer
                    else "without a journal nothing is kept"
                )
            )
        return answer


def scoring(
    checker: str | Callable[[str], bool],
    scorers: str | Sequence[str | Callable[[str, str], Any]],
    rows: Iterable[Example] = (),
) -> Scored:
    """A function that scores one answer; names are looked up now, before anything is asked.

    With the checker "auto" the article's form is asked for where the expected answers of `rows` have it: in another task every
    answer would lack it.
    """
    if checker == AUTO:
        checker = "article" if any(metrics.check_format(one.expected) for one in rows) else "none"
    found = tuple(metrics.scorers_by_name(names(scorers)).values())
    return partial(metrics.score_answer, checker=metrics.checker(checker), scorers=found)


def names(given: str | Sequence[Any] | Callable[..., Any]) -> tuple[Any, ...]:
    """Several names: a sequence, or a text with commas between them; a function stands for itself."""
    given = given.split(",") if isinstance(given, str) else [given] if callable(given) else given
    return tuple(filter(None, (one.strip() if isinstance(one, str) else one for one in given)))


def warn_of_changes(tally: Tally) -> None:
    """Warns when the answers came from more than one model, and when thoughts in them would be scored."""
    if tally.n_unstripped:
        warnings.warn(
            f"{tally.n_unstripped} of {plural(tally.n_done, 'answer')} hold thoughts, which are scored as part of them; "
            "without strip_think: false they are told apart; answers in a journal have to be asked afresh",
            stacklevel=3,
        )
    if len(tally.served) > 1:
        names = listed([f"{name!r} ({plural(n, 'answer')})" for name, n in tally.served.items()])
        warnings.warn(
            f"the server's model changed: {visible(names)}; compare only what one model answered: ask the others afresh",
            stacklevel=3,
        )


def _shown(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else flattened(value) or json.dumps(value)
    return text if len(text) <= _LONG_VALUE else f"{text[:_LONG_VALUE]}…"


async def _sync_every_second(writer: journals.Writer | None) -> None:
    while writer is not None:
        await asyncio.sleep(1)
        await asyncio.to_thread(writer.sync)


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
