"""A run over a test set as it is planned: what is asked of whom, how, and what it will take at most."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.answers import dataset, metrics
from evalkit.answers import journal as journals
from evalkit.answers.checkers import Checker
from evalkit.answers.functions import CallableModel, ModelFunction, identity
from evalkit.answers.progress import Estimate, PriceList, prices_of
from evalkit.answers.request import Parameters
from evalkit.errors import DesignError
from evalkit.files import JsonObject, no_number
from evalkit.settings import named
from evalkit.wording import flattened, listed, plural

if TYPE_CHECKING:
    from evalkit.answers.endpoint import Endpoint

Names = str | Iterable[str]

SCORERS = ("similarity",)
_LONG_VALUE = 120  # characters of a parameter's value that are shown
_CHARS_PER_TOKEN = 3  # an upper bound needs few characters a token; English has about four


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
    checker: str | Checker = metrics.AUTO
    scorers: metrics.Scorers = SCORERS
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
            object.__setattr__(self, name, named(getattr(self, name)))
        metrics.scoring(self.checker, self.scorers)  # an unknown name must cost no call

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
        fields = named(self.slice_fields)
        return dataset.read_examples(self.test_file, slice_fields=fields, **options)

    @cached_property
    def score(self) -> metrics.Scoring:
        """Scores one answer."""
        return metrics.scoring(self.checker, self.scorers, self.test_set)

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

    def calls(self) -> Iterator[journals.Call]:
        """Every call, in file order, sample by sample."""
        asked = self.model_name, self.endpoint_name, self.parameters.recorded()
        return journals.calls(*asked, self.test_set, self.samples)

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
        n_to_ask, money = self.n_calls - n_known, None
        price, sent = prices_of(self.prices, self.model_name), self.parameters.body()
        most = sent.get("max_completion_tokens") or sent.get("max_tokens")
        is_bound = isinstance(most, int | float)  # else nothing bounds an answer
        if price and self.n_calls and is_bound:
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


def _shown(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else flattened(value) or json.dumps(value)
    return text if len(text) <= _LONG_VALUE else f"{text[:_LONG_VALUE]}…"
