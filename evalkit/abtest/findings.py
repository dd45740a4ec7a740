"""What the outcomes say, for the users of the looks that are due; asked only when the plan lets the effect be read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.abtest.analysis import DAY_S, Log
from evalkit.abtest.effects import (
    Effect,
    article_test,
    at_look,
    cuped_effect,
    design_effect,
    effect,
    side_by_side,
    up_to,
)
from evalkit.abtest.guardrails import FROM_EXPOSURES, Watched, watch
from evalkit.abtest.lock import LockedPlan
from evalkit.abtest.plan import Guardrail, Metric
from evalkit.abtest.schedule import DueLook, date_of
from evalkit.errors import DataError
from evalkit.stats import ProportionTest, confidence_sequence

if TYPE_CHECKING:
    import pandas as pd

_OFF = 0.25  # share of the expected level from which a reader is told that control lies elsewhere
_SEQUENCE_FROM = 100  # users per variant from which the confidence sequence is trusted


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the outcomes say; exists only when the plan lets the effect be read.

    Attributes:
        primary: The metric that decides: at the first look that leaves the limits, else at the latest one due.
        looks: The same at each look due; what comes after the deciding one changes nothing.
        article: The article's z-test over requests, beside it; None over several phases or for a numeric metric.
        days: Days on which the users of that look came.
        design_effect: Variance by user over variance by request.
        cuped: The primary adjusted for what users did before, when that was given and the metric is a mean.
        over_time: Per day the difference so far, with its plain interval and its confidence sequence.
        by_day: The difference of each day's new users, Holm.
        by_slice: The difference in each slice, Holm.
        secondary: Further metrics, Holm.
        guardrails: Those measured by outcomes.
        notes: What the reader of these numbers must know.
    """

    primary: Effect
    looks: tuple[Effect, ...]
    article: ProportionTest | None
    days: int
    design_effect: float | None
    cuped: Effect | None
    over_time: tuple[Mapping[str, Any], ...]
    by_day: tuple[Mapping[str, Any], ...]
    by_slice: tuple[Mapping[str, Any], ...]
    secondary: tuple[Mapping[str, Any], ...]
    guardrails: tuple[Watched, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        tables = {
            name: [dict(row) for row in getattr(self, name)]
            for name in ("over_time", "by_day", "by_slice", "secondary")
        }
        return tables | {
            "looks": [one.to_dict() for one in self.looks],
            "article": self.article and self.article.to_dict(),
            "design_effect": self.design_effect,
            "days": self.days,
            "cuped": self.cuped and self.cuped.to_dict(),
            "guardrails": [one.to_dict() for one in self.guardrails],
        }


@dataclass(frozen=True, slots=True)
class Question:
    """The log, cut to the users of the latest look due.

    Attributes:
        log: Where to ask.
        all_users: From `Log.users`.
        plan: The locked plan.
        due: Looks that may be read, in order.
        bounds: Their limits of |z|.
    """

    log: Log
    all_users: Any
    plan: LockedPlan
    due: tuple[DueLook, ...]
    bounds: tuple[float, ...]

    @property
    def users(self) -> Any:
        """Users who came in time for the latest look due."""
        return self.all_users.filter(self.all_users.day <= self.due[-1].day)

    @property
    def window_s(self) -> float:
        """Length of the outcome window; endless when none is planned."""
        return self.plan.plan.outcome_window_days * DAY_S or math.inf

    @property
    def experiment(self) -> str:
        """Its name."""
        return self.plan.plan.experiment_name

    def cells(self, metric: Metric, before: Any = None) -> pd.DataFrame:
        """Sums of one metric.

        Raises:
            DataError: No user has an outcome of that name, or what is there is no rate.
        """
        options: dict[str, Any] = {
            "window_s": self.window_s,
            "before": before,
            "is_rate": metric.kind == "rate",
        }
        plan = self.plan.plan
        if plan.cap_per_user is not None and metric.name == plan.primary.name:
            options["cap"] = ("y" if metric.kind == "mean" else "x", plan.cap_per_user)
        found = self.log.cells(self.users, self.experiment, metric.name, **options)
        if not found["n_found"].to_numpy().any():
            raise DataError(
                f"{self.log.where}: no outcome {metric.name!r} of {self.experiment!r} within any user's outcome window; "
                f"record it under the plan's name"
            )
        return found

    def slices(self, metric: str) -> dict[str, pd.DataFrame]:
        """Sums of one metric in each slice."""
        return self.log.slice_cells(self.users, self.experiment, metric, window_s=self.window_s)

    @property
    def sliced(self) -> bool:
        """True when requests have slices, and outcomes can be counted in them."""
        plan = self.plan.plan
        return plan.primary.kind != "mean" and {"slice", "request_id"} <= set(
            self.log.exposures.columns
        )

    def guardrail(self, guardrail: Guardrail) -> Watched | None:
        """One guardrail measured by outcomes."""
        if guardrail.name in FROM_EXPOSURES:
            return None
        options: dict[str, Any] = {
            "experiment": self.experiment,
            "window_s": self.window_s,
            "alpha": self.plan.plan.alpha,
        }
        return watch(self.log, self.users, guardrail, **options)


def findings(ask: Question, *, before: Any = None, slices: bool = True) -> Findings:
    """All that is read at the looks due; the first one that leaves the limits decides."""
    plan = ask.plan.plan
    kind, alpha = plan.primary.kind, plan.alpha
    cells = ask.cells(plan.primary)
    looks = read_looks(cells, ask.plan, ask.due, ask.bounds)
    at, primary = deciding(looks)
    decided = up_to(cells, ask.due[at].day)
    article = article_test(decided, alpha=alpha) if kind == "rate" else None
    by_day = {date_of(day): effect(part, kind, alpha=alpha) for day, part in cells.groupby("day")}  # type: ignore[arg-type]
    sliced = slices and ask.sliced
    lost = ask.log.without_request(ask.experiment, plan.primary.name) if sliced else 0
    parts = ask.slices(plan.primary.name) if sliced and not lost else {}
    by_slice = {name: effect(part, kind, alpha=alpha) for name, part in parts.items()}
    secondary = {one.name: effect(ask.cells(one), one.kind, alpha=alpha) for one in plan.secondary}
    cuped = (
        cuped_effect(ask.cells(plan.primary, before), alpha=alpha)
        if before is not None and kind == "mean"
        else None
    )
    return Findings(
        primary=primary,
        looks=looks,
        article=article,
        days=len(set(decided["day"])),
        design_effect=design_effect(primary, article),
        cuped=cuped,
        over_time=_over_time(cells, ask.plan),
        by_day=side_by_side(by_day, alpha=alpha),
        by_slice=side_by_side(by_slice, alpha=alpha),
        secondary=side_by_side(secondary, alpha=alpha),
        guardrails=tuple(one for one in map(ask.guardrail, plan.guardrails) if one),
        notes=tuple(_notes(plan.primary, primary.control_rate, lost)),
    )


def _notes(metric: Metric, level: float | None, lost: int) -> Iterator[str]:
    if (
        metric.kind == "rate"
        and level is not None
        and metric.expected
        and abs(level / metric.expected - 1) > _OFF
    ):
        shown, planned = wording.percent(level), wording.percent(metric.expected)
        yield (
            f"{metric.name} is {shown} of requests in control, where the plan expected {planned}; if it is decided once for "
            f"a user, not for each request, plan it as a mean"
        )
    if lost:
        yield f"no slices are shown: {wording.plural(lost, 'outcome')} of {metric.name} without a request_id"


def read_looks(
    cells: pd.DataFrame, plan: LockedPlan, due: Sequence[DueLook], bounds: Sequence[float]
) -> tuple[Effect, ...]:
    """The primary metric at each look due."""
    kind, alpha, looks = plan.plan.primary.kind, plan.plan.alpha, plan.plan.looks
    tests = [(one.look, effect(up_to(cells, one.day), kind, alpha=alpha)) for one in due]
    if looks == 1:
        return tuple(test for _, test in tests)
    return tuple(
        at_look(test, bound, look, looks)
        for (look, test), bound in zip(tests, bounds, strict=False)
    )


def deciding(looks: Sequence[Effect]) -> tuple[int, Effect]:
    """The first look that leaves the limits, else the latest; with its place."""
    return next(
        ((n, one) for n, one in enumerate(looks) if one.verdict in {"better", "worse"}),
        (-1, looks[-1]),
    )


def _over_time(cells: pd.DataFrame, plan: LockedPlan) -> tuple[Mapping[str, Any], ...]:
    found = []
    for day in sorted(set(cells["day"].tolist())):
        test = effect(up_to(cells, day), plan.plan.primary.kind, alpha=plan.plan.alpha)
        low = high = None
        if (
            test.estimate is not None
            and test.se
            and min(test.n_control, test.n_treatment) >= _SEQUENCE_FROM
        ):
            n_opt = max(1.0, plan.n_users / 2)
            low, high = confidence_sequence(
                test.estimate, test.se, test.n, n_opt, alpha=plan.plan.alpha
            )
        names = ("estimate", "ci_low", "ci_high", "n_control", "n_treatment")
        row = {name: getattr(test, name) for name in names} | {
            "sequence_low": low,
            "sequence_high": high,
        }
        found.append({"day": day, "date": date_of(day)} | row)
    return tuple(found)
