"""How far a run is: a bar where somebody watches, plain lines in a log, and what is left to do in calls, time and money."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from evalkit.answers.thinking import holds_thoughts
from evalkit.errors import DataError
from evalkit.files import JsonObject, no_number, read_yaml
from evalkit.marks import visible
from evalkit.records import Answer
from evalkit.wording import count, listed, plural

if TYPE_CHECKING:
    from tqdm import tqdm

    from evalkit.answers.access import Access

LINE_EVERY_S = 10.0
PriceList = Mapping[str, "Prices | JsonObject"]


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
        waited = f", {_duration(waited_s)} of it waiting for the server" if waited_s else ""
        took = _duration(time.monotonic() - self.started) + waited
        return f"{count(self.n_done)} of {plural(self.n_calls, 'call')} done: {listed(words) or 'none'}{again}, {took}"

    @property
    def waiting(self) -> str:
        """What the run waits for, and how far it is; "" when calls are answered."""
        why = str(self.access or "")
        return why and f"{why}, waiting; {count(self.n_done)} of {count(self.n_calls)} done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a million tokens cost."""

    prompt_per_million: float
    completion_per_million: float
    currency: str = "USD"

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            DataError: A price is not a number of at least 0.
        """
        for name in ("prompt_per_million", "completion_per_million"):
            if no_number(value := getattr(self, name)) or value < 0:
                raise DataError(f"prices: {name} is {value}; need a number of at least 0")

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
            parts.append(f"about {_duration(self.seconds)} at {self.concurrency} at a time")
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
    try:
        named = ("prompt_per_million", "completion_per_million")
        return Prices(**{**entry, **{name: float(entry[name]) for name in named}})
    except (TypeError, KeyError, ValueError, OverflowError) as why:
        raise DataError(
            f"prices of {model!r}: {entry!r}; need prompt_per_million and completion_per_million as numbers, and a currency"
        ) from why


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
            took = _duration(tally.latency_ms / 1000)
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


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
