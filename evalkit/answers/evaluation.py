"""One model asked every question of a test set: known answers from the journal, the rest from a pool of workers."""

from __future__ import annotations

import asyncio
import json
import platform
import warnings
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.answers import dataset, journal, metrics
from evalkit.answers.background import in_pool
from evalkit.answers.checkers import check_format
from evalkit.answers.endpoint import CallableModel, ModelFunction, Parameters, identity
from evalkit.answers.progress import Estimate, Tally, prices_of
from evalkit.errors import DesignError, ModelError
from evalkit.files import no_number
from evalkit.records import Answer, EvalResult, Example
from evalkit.wording import flattened, listed, plural, visible

if TYPE_CHECKING:
    from evalkit.answers.endpoint import Endpoint

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
        return journal.header(
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
        key = partial(journal.call_key, self.model_name, self.endpoint_name)
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

    def estimate(self, writer: journal.Writer | None = None) -> Estimate:
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
        self, writer: journal.Writer | None, tally: Tally
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
        self, first: Call, calls: Iterator[Call], writer: journal.Writer | None, tally: Tally
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
        writer: journal.Writer | None,
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

    def _known(self, call: Call, writer: journal.Writer | None, tally: Tally) -> Answer | None:
        answer = writer.find(call.key) if writer else None
        if answer is not None:
            tally.known(answer)
        return answer

    async def _asked(
        self,
        call: Call,
        *,
        model: Endpoint | CallableModel,
        writer: journal.Writer | None,
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
        checker = "article" if any(check_format(one.expected) for one in rows) else "none"
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


async def _sync_every_second(writer: journal.Writer | None) -> None:
    while writer is not None:
        await asyncio.sleep(1)
        await asyncio.to_thread(writer.sync)
