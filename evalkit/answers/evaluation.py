"""A run over a test set as it is planned: what is asked of whom, how, and what it will take at most."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from evalkit import wording
from evalkit.answers import dataset, scoring
from evalkit.answers import journal as journals
from evalkit.answers.functions import CallableModel, ModelFunction, identity
from evalkit.answers.scoring import Checker
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, as_record, no_number, read_yaml
from evalkit.study import TYPES, Settings, checked, named
from evalkit.wording import count, flattened, listed, plural

if TYPE_CHECKING:
    from evalkit.answers.endpoint import Endpoint
    from evalkit.answers.runner import Tally

PriceList = Mapping[str, "Prices | JsonObject"]
Names = str | Iterable[str]

SCORERS = ("similarity",)
_LEAST = {  # whole numbers, and numbers
    **dict.fromkeys(("samples", "concurrency", "attempts", "abort_after"), 1),
    **{"patience_s": 0.0, "timeout_s": 0.001, "max_reply_mb": 0.001},
}
_LONG_VALUE = 120  # characters of a parameter's value that are shown
_CHARS_PER_TOKEN = 3  # an upper bound needs few characters a token; English has about four


@dataclass(frozen=True)
class Evaluation:
    """A run as planned; its fields are the arguments of `run_automated_eval`, which says what each means."""

    model: str | ModelFunction
    test_file: str | Path
    system_prompt: str = ""
    _: KW_ONLY
    journal: str | Path | None = None
    endpoint: str = "openai"
    base_url: str | None = None
    checker: str | Checker = scoring.AUTO
    scorers: scoring.Scorers = SCORERS
    limit: int | None = None
    samples: int = 1
    temperature: float | None = 0.0
    max_tokens: int | None = 1024
    seed: int | None = None
    concurrency: int = 16
    slice_fields: Names = ()
    cluster_field: str | None = None
    progress: bool = True
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
        for name, least in _LEAST.items():
            kind, value = Integral if isinstance(least, int) else Real, getattr(self, name)
            if not isinstance(value, kind) or no_number(value) or value < least:
                whole = "a whole number" if kind is Integral else "a number"
                raise DesignError(f"{name} is {value!r}; need {whole} of at least {least:g}")
        if not callable(self.model) and (self.name or not isinstance(self.model, str)):
            need = "need the name of a model, or a function of the messages, which may be given one"
            raise DesignError(f"model is {self.model!r}, name {self.name!r}; {need}")
        if self.journal is not None:
            self.function()  # what has no name must cost no call either
        for name in ("scorers", "slice_fields"):  # any iterable, also one that is read only once
            object.__setattr__(self, name, named(getattr(self, name)))
        scoring.prepared(self.checker, self.scorers)  # an unknown name must cost no call

    def function(self) -> dict[str, str | None] | None:
        """What tells the function that answers from another of its name; None for a model or a given name.

        Raises:
            DesignError: It has no name of its own, and none was given.
        """
        return None if self.name or isinstance(self.model, str) else identity(self.model)

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
    def score(self) -> scoring.Scoring:
        """Scores one answer."""
        return scoring.prepared(self.checker, self.scorers, self.test_set)

    @property
    def n_calls(self) -> int:
        """Calls in all, answered before or not."""
        return min(self.test_set.n_rows, self.limit or self.test_set.n_rows) * self.samples

    def header(self) -> JsonObject:
        """The header of this run's journal."""
        versions = {name: version(name) for name in ("evalkit", "openai")}
        return journals.Header(
            model=self.model_name,
            endpoint=self.endpoint_name,
            parameters=self.parameters.recorded(),
            system_prompt=self.system_prompt,
            system_prompt_mode=self.system_prompt_mode,
            test_set=self.test_set.fingerprint,
            versions={**versions, "python": platform.python_version()},
            about={**(self.about or {}), "system_prompt_use": self.test_set.system_prompt_mode},
            function=self.function(),
        ).record()

    def calls(self) -> Iterator[journals.Call]:
        """Every call, in file order, sample by sample."""
        asked = self.model_name, self.endpoint_name, self.parameters.recorded()
        return journals.calls(*asked, self.test_set, self.samples)

    def sends(self) -> str:
        """What goes with each call besides the messages, in one line."""
        said = [f"{k} {json.dumps(one)[:_LONG_VALUE]}" for k, one in self.parameters.body().items()]
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


CALLS_TO = "/v1/chat/completions"  # what a batch says of where its calls go


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What is sent with every call; None leaves a parameter out, and so does 0 for `max_tokens`.

    Attributes:
        strip_think: False keeps a model's thoughts in its answer; None and True tell them apart. True is written down, as
            journals of a time when it was no default have it.
        extra: Further fields of the request body, e.g. `{"max_completion_tokens": 96}`.
    """

    temperature: float | None = 0.0
    max_tokens: int | None = 1024
    seed: int | None = None
    strip_think: bool | None = None
    extra: Mapping[str, object] = field(default_factory=dict)

    def body(self) -> JsonObject:
        """The fields as sent."""
        most = self.max_tokens or None
        own = {"temperature": self.temperature, "max_tokens": most, "seed": self.seed}
        return {**{name: value for name, value in own.items() if value is not None}, **self.extra}

    def call(
        self,
        model: str,
        messages: Sequence[Mapping[str, object]],
        request: Mapping[str, object] | None = None,
    ) -> JsonObject:
        """The whole body of one call; `request` is what its row adds: tools and the like."""
        return {"model": model, **self.body(), **(request or {}), "messages": messages}

    def recorded(self) -> JsonObject:
        """The fields as a journal records them and keys its calls by.

        Raises:
            DesignError: One of them is not JSON, is not to be chosen, or looks like a key, which no file may hold.
        """
        if wrong := {"model", "messages", "stream"} & self.extra.keys():
            named = ", ".join(sorted(wrong))
            raise DesignError(f"extra_body holds {named}, which evalkit says itself")
        thoughts = {} if self.strip_think is None else {"strip_think": self.strip_think}
        fields = {**self.body(), **thoughts}
        try:
            text = json.dumps(fields, allow_nan=False)
        except (TypeError, ValueError) as why:
            told = f"the parameters cannot be written as JSON ({why}): {fields}"
            raise DesignError(told) from why
        if wording.redacted(text) != text:
            remedy = "give keys through the environment (OPENAI_API_KEY) only"
            raise DesignError(f"a parameter looks like a key; {remedy}")
        return fields


Role = Literal["base", "fine_tuned"]
ROLES = ("base", "fine_tuned")
REQUEST_FILE = "request.yaml"
_PLAIN = (
    "system_prompt",
    "system_prompt_mode",
    "temperature",
    "send_temperature",
    "max_tokens",
    "max_completion_tokens",
    "reasoning_effort",
    "request_seed",
    "strip_think",
    "concurrency",
    "timeout_s",
    "attempts",
    "abort_after",
    "patience_s",
    "max_reply_mb",
)
_RICH = ("extra_body", "about")  # only in the file: they are no single values


def options(settings: Settings, role: Role, file: Path | None) -> JsonObject:
    """What `run_automated_eval` is given for one of a study's two models.

    Args:
        settings: The study's.
        role: Which of the two.
        file: The study's `request.yaml`: names as in the settings, `extra_body` and `about`, for both models or, under
            `base:` and `fine_tuned:`, for one of them. None where there is no such file.

    Raises:
        DataError: The file is no mapping of names to values.
        DesignError: It holds what is no setting of a request.
    """
    plain = {name: getattr(settings, name) for name in _PLAIN}
    said = {**plain, **dict.fromkeys(_RICH), **(_read(file, role) if file else {})}
    body = {name: said.pop(name) for name in ("max_completion_tokens", "reasoning_effort")}
    body = {name: value for name, value in body.items() if value}
    has_temperature, seed = said.pop("send_temperature"), said.pop("request_seed")
    return {
        **said,
        "temperature": said["temperature"] if has_temperature else None,
        "seed": seed or None,
        "strip_think": None if said["strip_think"] else False,
        "extra_body": {**body, **(said["extra_body"] or {})},
    }


def _read(path: Path, role: Role) -> JsonObject:
    """What the file says of a model: of both, and then of this one."""
    names = "the names of settings, extra_body, about; and base and fine_tuned with the same again"
    need = f"need {names}"
    found = as_record(read_yaml(path, need=names) or {}, dict[str, Any], f"{path}: not so", need)
    own = {
        one: as_record(found.pop(one, None) or {}, dict[str, Any], f"{path}: {one}: not so", need)
        for one in ROLES
    }[role]
    types = {**{name: TYPES[name] for name in _PLAIN}, **dict.fromkeys(_RICH, dict)}
    said: JsonObject = {**checked(found, types=types, where=str(path))}
    own |= checked(own, types=types, where=f"{path}: {role}")
    rich = {name: {**said.get(name, {}), **own.get(name, {})} for name in _RICH}
    return {**said, **own, **{name: one for name, one in rich.items() if one}}


_Money = Annotated[float, msgspec.Meta(ge=0, le=1e15)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a million tokens cost."""

    prompt_per_million: _Money
    completion_per_million: _Money
    currency: str = "USD"

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """The money for so many tokens."""
        asked = prompt_tokens * self.prompt_per_million
        return (asked + completion_tokens * self.completion_per_million) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run will take.

    Attributes:
        n_to_ask: Calls still to make.
        seconds: None before the first answer.
        money: None without prices; an upper bound (`is_bound`) before the first answer.
    """

    n_calls: int
    n_to_ask: int
    concurrency: int
    price: Prices | None = None
    seconds: float | None = None
    money: float | None = None
    is_bound: bool = False

    def after(self, tally: Tally) -> Estimate:
        """The same in the light of the answers there are."""
        n, seconds, money = max(self.n_to_ask - tally.n_asked, 0), None, None
        if tally.latency_ms is not None:
            seconds = n * tally.latency_ms / 1000 / min(self.concurrency, max(n, 1))
        if self.price:
            spent = self.price.cost(tally.prompt_tokens, tally.completion_tokens)
            money = n * spent / max(tally.n_asked, 1)
        return replace(self, n_to_ask=n, seconds=seconds, money=money, is_bound=False)

    def __str__(self) -> str:
        """One line for the log."""
        parts = [f"{count(self.n_to_ask)} of {plural(self.n_calls, 'call')} to make"]
        if self.seconds is not None and self.n_to_ask:
            parts.append(f"about {duration(self.seconds)} at {self.concurrency} at a time")
        if self.money is not None and self.price is not None and self.n_to_ask:
            bound = "at most" if self.is_bound else "about"
            parts.append(f"{bound} {self.money:,.2f} {self.price.currency}")
        return ", ".join(parts)


def prices_of(prices: str | Path | PriceList | None, model: str) -> Prices | None:
    """The model's prices from a mapping or a YAML file of that form; None when it is not listed.

    Raises:
        DataError: The file or the entry is not of the form `model: {prompt_per_million, completion_per_million, currency}`.
    """
    if isinstance(prices, str | Path):
        path = Path(prices)
        prices = read_yaml(path, need="prices: model names, each with its prices")
        if not isinstance(prices, Mapping):
            raise DataError(f"{path}: not prices; need model names, each with its prices")
    entry = (prices or {}).get(model)
    if entry is None or isinstance(entry, Prices):
        return entry
    need = (
        "need prompt_per_million and completion_per_million, numbers of at least 0, and a currency"
    )
    return as_record(entry, Prices, f"prices of {model!r}: {entry!r}", need)


def duration(seconds: float) -> str:
    """A time as people say it: seconds, minutes, hours."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
