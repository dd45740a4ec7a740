"""What of the log counts and what does not: rows that fit no variant, answers of another model, outcomes that fit no user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evalkit import wording
from evalkit.abtest.analysis import DAY_S, Log, Table
from evalkit.abtest.assignment import VARIANTS
from evalkit.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from evalkit.abtest.plan import ABPlan

STRAY = 0.01  # share of exposures in no variant from which the log is refused: more than a handful is a fault of the router
_FEW = 0.01  # share of outcomes from which a loss needs a cause
_FEWEST = 5
_OTHERS = 5  # names that a sentence holds
_CLOCK_S = 36 * 3600.0  # the furthest that a clock or a time zone is off; beyond lies a past
_FAR = (
    0.99  # of the outcomes before the exposure, the share that lies within the shift of the clock
)

Cause = Literal["", "clock", "past", "ids", "unit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposed:
    """Requests by variant and by the model that answered.

    Attributes:
        n: Rows in all.
        strays: Rows by a value of `variant` that is neither control nor treatment; they are left out.
        n_stray: All of them, named or not.
        models: Requests by (variant, model), without those that a fallback answered.
    """

    n: int
    n_stray: int
    strays: Mapping[str, int]
    models: Mapping[tuple[str, str | None], int]

    def swapped(self, plan: ABPlan) -> dict[str, tuple[int, int]]:
        """Requests that a model other than the variant's own answered, and all of them, by variant.

        A variant that never names its own model, nor the other one's, goes by another name in the log and is no fault.
        """
        own = {"control": plan.control_model, "treatment": plan.treatment_model}
        found = {}
        for variant, model in own.items():
            by = {name: n for (arm, name), n in self.models.items() if arm == variant and name}
            known = set(own.values()) & set(by)
            wrong = sum(n for name, n in by.items() if name != model)
            if wrong and known and len(set(own.values())) > 1:
                found[variant] = (wrong, sum(by.values()))
        return found

    def notes(self, plan: ABPlan) -> Iterator[str]:
        """What a reader must know of them."""
        if self.n_stray:
            yield f"{_strays(self)}; they are left out"
        for variant, (wrong, n) in self.swapped(plan).items():
            own = plan.control_model if variant == "control" else plan.treatment_model
            others = [
                f"{_name(name)} ({wording.count(k)})"
                for (arm, name), k in self.models.items()
                if arm == variant and name not in (own, None)
            ]
            yield (
                f"{wording.percent(wrong / n)} of requests in {variant} ({wording.count(wrong)} of {wording.count(n)}) were "
                f"not answered by {_name(own)}, as planned, but by {wording.listed(others[:_OTHERS])}: the difference "
                f"between the models is larger than what is shown"
            )


def exposed(log: Log, experiment: str) -> Exposed:
    """Counts the exposures of an experiment by variant and model.

    Raises:
        DataError: More than `STRAY` of them are in no variant; the message names the values.
    """
    table = log.answered(experiment)
    total = int(table["total"].iloc[0]) if len(table) else 0
    strays: dict[str, int] = {}
    models: dict[tuple[str, str | None], int] = {}
    for variant, model, n in zip(table["variant"], table["model"], table["n"], strict=True):
        if variant in VARIANTS:
            models[variant, model if isinstance(model, str) else None] = int(n)
        else:
            name = variant if isinstance(variant, str) else ""
            strays[name] = strays.get(name, 0) + int(n)
    found = Exposed(n=total, n_stray=total - sum(models.values()), strays=strays, models=models)
    if found.n_stray > max(STRAY * total, min(_FEWEST, total / 10)):
        raise DataError(
            f"{log.where}: {_strays(found)}; more than {wording.percent(STRAY, 0)} are no stray rows: name the "
            f"variants control and treatment before the test is read, or say what they are called: control_variant and "
            f"treatment_variant in study.yaml"
        )
    return found


def _strays(found: Exposed) -> str:
    named = [f"{_name(one)} ({wording.count(n)})" for one, n in found.strays.items()]
    more = ["others"] if len(named) > _OTHERS else []
    rows = f"{wording.count(found.n_stray)} of {wording.plural(found.n, 'exposure')}"
    share = wording.percent(found.n_stray / found.n)
    return (
        f"{rows} ({share}) have a variant other than control and treatment: "
        f"{wording.listed(named[:_OTHERS] + more)}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Where the outcomes of one metric went.

    Attributes:
        metric: Its name.
        n: Outcomes under this name.
        n_within: Those within their user's outcome window, which count.
        n_before: Before their user's first exposure.
        n_after: After the window.
        n_unknown: Of users who were never exposed.
        n_untimed: Without a time.
        cause: The likeliest cause of a loss, "" where there is none to tell: the clock of the outcomes is behind by
            `behind_s`, they hold a past, their user ids are those of another system, their times are in another unit.
        behind_s: Seconds by which the outcomes' clock seems to be behind.
        others: Outcomes by the names of other metrics in the log.
    """

    metric: str
    n: int
    n_within: int
    n_before: int
    n_after: int
    n_unknown: int
    n_untimed: int = 0
    cause: Cause = ""
    behind_s: float | None = None
    others: Mapping[str, int]

    @property
    def lost(self) -> float:
        """Share of the outcomes that `cause` keeps from counting."""
        n = self.n_unknown if self.cause == "ids" else self.n_before if self.cause else 0
        n = self.n_after if self.cause == "unit" else n
        return n / self.n if self.n else 0.0

    def sentence(self) -> str:
        """What does not count, and why; "" when all do."""
        parts = {
            "before their user's first exposure": self.n_before,
            "after the outcome window": self.n_after,
            "of users who were never exposed": self.n_unknown,
            "without a time": self.n_untimed,
        }
        told = [f"{_part(n, self.n)} {where}" for where, n in parts.items() if n]
        if not told:
            return ""
        text = f"of {wording.plural(self.n, 'outcome')} of {_name(self.metric)} these do not count: {wording.listed(told)}"
        return text + (f"; {self.why()}" if self.cause else "")

    def why(self) -> str:
        """The likeliest cause, in words."""
        return {
            "": "",
            "clock": f"the clock of the outcomes is likely behind by {_span(self.behind_s or 0.0)}: mend at_s and read again",
            "past": "they lie up to days before it: what users did before the test, or the log of an earlier one",
            "ids": "their user ids are likely those of another system: record the id that the router was given",
            "unit": "outcomes.at_s is likely in milliseconds; need seconds since 1970",
        }[self.cause]


def joined(
    log: Log,
    users: Table,
    experiment: str,
    metric: str,
    cells: pd.DataFrame,
    *,
    level_is_low: bool = False,
) -> Joined:
    """Counts what became of a metric's outcomes, from the sums of all users; asks for more only where many are lost.

    Args:
        log: Where to ask.
        users: All of them.
        experiment: Its name.
        metric: The outcome's name.
        cells: From `Log.cells` over all users.
        level_is_low: Control lies well below what the plan expected, as it does when outcomes do not find their users.
    """
    names = log.recorded(experiment)
    n, others = names.get(metric, 0), {k: v for k, v in names.items() if k != metric}
    within, before, known = (
        int(cells[name].to_numpy().sum()) for name in ("n_within", "n_before", "n_joined")
    )
    cause: Cause = ""
    behind = None
    if _many(before, known):
        cause, behind = _cause_before(log.lags(users, experiment, metric), within)
    elif known and not within:
        cause = _unit(log.lags(users, experiment, metric))
    untimed = log.untimed(experiment, metric) if n > known else 0
    unknown = max(0, n - known - untimed)
    if not cause and _many(unknown, n):
        by_request = log.known_by_request(users, experiment, metric)
        cause = "ids" if level_is_low or not known or 2 * by_request > unknown else ""
    return Joined(
        metric=metric,
        n=n,
        n_within=within,
        n_before=before,
        n_after=known - within - before,
        n_unknown=unknown,
        n_untimed=untimed,
        cause=cause,
        behind_s=behind,
        others=others,
    )


def nothing_counts(found: Joined, experiment: str) -> str:
    """Why no outcome of a metric counts, for an error's message."""
    said = f"no outcome {found.metric!r} of {experiment!r} within any user's outcome window"
    if found.n:
        return f"{said}: {found.sentence()}"
    by_size = sorted(found.others.items(), key=lambda one: -one[1])
    named = [f"{_name(one)} ({wording.count(n)})" for one, n in by_size[:_OTHERS]]
    others = f"the log holds {wording.listed(named)}" if named else "the log holds no outcome of it"
    return f"{said}: {others}; record it under the plan's name"


def _many(n: int, of: int) -> bool:
    return n >= _FEWEST and n >= _FEW * of


def _cause_before(lags: pd.DataFrame, within: int) -> tuple[Cause, float | None]:
    """A clock that is behind shifts all outcomes alike, so those before the exposure have an edge; a past has none near."""
    n, lag = lags["n"].to_numpy(), lags["lag_s"].to_numpy()
    n, lag = n[lag < 0], lag[lag < 0]
    far = float(-lag[(n.cumsum() > (1 - _FAR) * n.sum()).argmax()])
    if far <= _CLOCK_S or within <= _FEW * n.sum():
        return "clock", far
    return "past", None


def _unit(lags: pd.DataFrame) -> Cause:
    return "unit" if float(lags["lag_s"].to_numpy().min()) > 1000 * 365 * DAY_S else ""


def _span(seconds: float) -> str:
    """A time to the precision that an estimate has: minutes, half hours, days."""
    if seconds < 5400:
        return f"about {wording.plural(max(1, round(seconds / 60)), 'minute')}"
    if seconds < 2 * DAY_S:
        return f"about {round(seconds / 1800) / 2:g} hours"
    return f"about {round(seconds / DAY_S):,} days"


def _part(n: int, of: int) -> str:
    return f"{wording.count(n)} ({wording.percent(n / of)})"


def _name(value: str | None) -> str:
    """A name of the log or the plan, as it may be shown."""
    return wording.visible(repr(value)) if value else "none"
