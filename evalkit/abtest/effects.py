"""From sums per phase, variant and day to one tested difference: phases kept apart, the user as the unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from evalkit.abtest.plan import Kind
from evalkit.stats import (
    MeanSums,
    ProportionTest,
    RatioSums,
    adjust,
    against_margin,
    combine_phases,
    cuped_test_from_sums,
    keeps_margin,
    mean_test_from_sums,
    proportion_z_test,
    ratio_test_from_sums,
)
from evalkit.stats.result import ByUser, Scale, Verdict, which_way, z_of_p, z_quantile

if TYPE_CHECKING:
    import pandas as pd

SUMS = ("n", "sum_x", "sum_y", "sum_xx", "sum_xy", "sum_yy")
THIRDS = ("sum_xxx", "sum_xxy", "sum_xyy", "sum_yyy", "n_hit", "n_miss")
ENDS = {"max_x": max, "max_y": max, "min_y": min}
FEW_USERS = 30
_SMALLEST = 1e-250  # p below which a z-score is told as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect(ByUser):
    """`treatment_rate - control_rate` of one metric, as the plan lets it be read; `estimate` is `diff`.

    Attributes:
        control_rate: The control's level: a rate, a mean per user or a ratio per request. With several phases a mean over
            them with the weights of the difference.
        treatment_rate: The treatment's.
        se: Standard error of the difference, by user: each variant's own, that of the interval.
        z_score: The z-score that has the p-value of the test by user, with the sign of the difference.
        bound: Limit of |z| at this look of several; None when the plan has one look, where `p_value` decides.
        is_exact: Whether Fisher's exact test on users decided.
        look: The planned look it was read at, of `looks`.
        shown_as: Points for a rate, else a number in the metric's unit.
        margin: The loss still accepted where the plan asks whether treatment is no worse; None where it asks for better.
    """

    control_rate: float | None
    treatment_rate: float | None
    n_control: int
    n_treatment: int
    se: float | None
    z_score: float | None
    lift: float | None
    lift_ci_low: float | None
    lift_ci_high: float | None
    bound: float | None = None
    look: int = 1
    looks: int = 1
    is_exact: bool = False
    shown_as: Scale = "points"
    margin: float | None = None

    @property
    def verdict(self) -> Verdict:
        """By the p-value of a plan with one look; by the limit of this look otherwise.

        Where the plan asks whether treatment is no worse, the interval against the margin answers, at each look the repeated
        interval, which holds over all of them.

        Source: Jennison & Turnbull 1989 (repeated confidence intervals).
        """
        tested = self._tested()
        if self.margin is None or tested == "invalid" or self.estimate is None:
            return tested
        kept = keeps_margin(self, self.margin)
        if tested == "too early" and not kept:
            return tested
        return against_margin("no difference shown" if tested == "too early" else tested, kept)

    @property
    def z_read(self) -> float | None:
        """The z that is read against the limit: of the difference, or where a margin is asked for, of both together.

        It lies beyond the limit, on the better side, just where the interval keeps clear of a loss of the margin.
        """
        worst = self.ci_high if self.lower_is_better else self.ci_low
        if self.margin is None or self.estimate is None:
            return self.z_score
        if worst is None or worst == self.estimate:
            return None
        limit = self.bound if self.bound is not None else z_quantile(self.alpha)
        margin = -self.margin if self.lower_is_better else self.margin
        return limit * (self.estimate + margin) / abs(self.estimate - worst)

    def _tested(self) -> Verdict:
        if self.no_verdict or self.bound is None or self.estimate is None:
            return super(Effect, self).verdict
        if self.z_score is not None and abs(self.z_score) >= self.bound:
            return which_way(self.z_score, lower_is_better=self.lower_is_better)
        return "no difference shown" if self.look == self.looks else "too early"

    def shown_in(self) -> Scale:
        """Points or a number."""
        return self.shown_as


def effect(
    cells: pd.DataFrame, kind: Kind, *, alpha: float = 0.05, lower_is_better: bool = False
) -> Effect:
    """The difference of one metric over all phases in `cells`.

    Args:
        cells: Sums as `Log.cells` returns them.
        kind: rate and ratio: y per x by the delta method; mean: y per user by Welch's t.
        alpha: Two-sided level.
        lower_is_better: The metric's direction; it turns the verdict, never the sign.
    """
    shown_as = "points" if kind == "rate" else "number"
    whole = _joined(phase_tests(cells, kind, alpha=alpha), shown_as, alpha)
    return replace(whole, lower_is_better=lower_is_better)


def at_look(test: Effect, bound: float, look: int, looks: int) -> Effect:
    """The same difference as one of several looks: z against the limit, and the repeated interval, estimate -+ bound x se.

    Limits that are no multiple of an error (few events) are widened as much.
    """
    note = f"look {look} of {looks}: z is read against {bound:.2f}, and the interval is widened to match"
    low = high = None
    if test.estimate is not None and test.ci_low is not None and test.ci_high is not None:
        wider = bound / z_quantile(test.alpha)
        low = test.estimate - wider * (test.estimate - test.ci_low)
        high = test.estimate + wider * (test.ci_high - test.estimate)
        if test.shown_as == "points":
            low, high = max(-1.0, low), min(1.0, high)
    return replace(
        test,
        ci_low=low,
        ci_high=high,
        p_value=None,
        bound=bound,
        look=look,
        looks=looks,
        notes=(*test.notes, note),
        lift_ci_low=None,
        lift_ci_high=None,
        method=f"{test.method}, O'Brien-Fleming limits",
    )


def cuped_effect(
    cells: pd.DataFrame, *, alpha: float = 0.05, lower_is_better: bool = False
) -> Effect:
    """The difference of per-user means, adjusted for x, what each user did before."""
    tests = [cuped_test_from_sums(*pair, alpha=alpha) for pair in pairs(cells)]
    return replace(_joined(tests, "number", alpha), lower_is_better=lower_is_better)


def phase_tests(cells: pd.DataFrame, kind: Kind, *, alpha: float = 0.05) -> list[Any]:
    """One test a phase, in order."""
    both = pairs(cells)
    if kind != "mean":
        return [ratio_test_from_sums(*pair, alpha=alpha) for pair in both]
    means = [
        [MeanSums(**{one.name: getattr(arm, one.name) for one in fields(MeanSums)}) for arm in pair]
        for pair in both
    ]
    return [mean_test_from_sums(*pair, alpha=alpha) for pair in means]


def article_test(cells: pd.DataFrame, *, alpha: float = 0.05) -> ProportionTest | None:
    """The article's z-test over requests, as if each were a user of its own; None when they are no counts of one phase."""
    phases = pairs(cells)
    if len(phases) != 1 or not all(one.sum_x and one.sum_y.is_integer() for one in phases[0]):
        return None
    old, new = phases[0]
    return proportion_z_test(
        round(old.sum_y), round(old.sum_x), round(new.sum_y), round(new.sum_x), alpha=alpha
    )


def design_effect(test: Effect, article: ProportionTest | None) -> float | None:
    """How much larger the variance is by user than by request."""
    return (test.se / article.se) ** 2 if article is not None and test.se and article.se else None


def side_by_side(tests: Mapping[str, Effect], *, alpha: float = 0.05) -> tuple[dict[str, Any], ...]:
    """Differences by name (days, slices, metrics), p adjusted by Holm.

    Means of few users are shown without p, as theirs is approximate. The test of a rate holds at any number: where few
    events are expected Fisher's exact test on users decides (simulated: at most 6.7% with 10 to 29 users a variant).
    """
    raw = [
        test.p_value
        if test.shown_as == "points" or min(test.n_control, test.n_treatment) >= FEW_USERS
        else None
        for test in tests.values()
    ]
    fields = ("n", "control_rate", "treatment_rate", "estimate", "ci_low", "ci_high")
    return tuple(
        {
            "name": name,
            **{field: getattr(test, field) for field in fields},
            "p_value": p,
            "p_adjusted": adjusted,
        }
        | {"verdict": "invalid" if test.no_verdict else _holm_verdict(test, adjusted, alpha)}
        for (name, test), p, adjusted in zip(
            tests.items(), raw, adjust(raw, method="holm"), strict=True
        )
    )


def up_to(cells: pd.DataFrame, day: float) -> pd.DataFrame:
    """The cells of users who came on that day or before."""
    return cells.loc[cells["day"] <= day]


def _holm_verdict(test: Effect, p_adjusted: float | None, alpha: float) -> str:
    if test.estimate is None or p_adjusted is None or p_adjusted >= alpha:
        return "no difference shown"
    return which_way(test.estimate, lower_is_better=test.lower_is_better)


def pairs(cells: pd.DataFrame) -> list[list[RatioSums]]:
    """Sums of control and treatment, phase by phase; cells without third powers, ends and counts give sums without them."""
    phase, treated = cells["phase"].to_numpy(), cells["treated"].to_numpy()
    summed = [*SUMS, *(name for name in THIRDS if name in cells.columns)]
    values = cells[summed].to_numpy(dtype=float)
    ends = {name: cells[name].to_numpy(dtype=float) for name in ENDS if name in cells.columns}

    def sums(one: int, arm: int) -> RatioSums:
        rows = (phase == one) & (treated == arm)
        found = dict(zip(summed, values[rows].sum(axis=0).tolist(), strict=True))
        if rows.any():
            found |= {name: ENDS[name](column[rows].tolist()) for name, column in ends.items()}
        counts = {name: round(found[name]) for name in ("n", "n_hit", "n_miss") if name in found}
        return RatioSums(**found | counts)

    return [[sums(one, arm) for arm in (0, 1)] for one in sorted(set(phase.tolist())) or [1]]


def _joined(parts: Sequence[Any], shown_as: Scale, alpha: float) -> Effect:
    whole = parts[0] if len(parts) == 1 else combine_phases(parts, alpha=alpha)
    old, new = _levels(parts, getattr(whole, "weights", ()))
    exact = getattr(whole, "p_exact", None)
    p_value = whole.p_value if exact is None else exact
    return Effect(
        estimate=whole.estimate,
        n=whole.n,
        ci_low=whole.ci_low,
        ci_high=whole.ci_high,
        alpha=alpha,
        p_value=None if whole.no_verdict else p_value,
        method=whole.method,
        notes=whole.notes,
        control_rate=old,
        treatment_rate=new,
        n_control=sum(one.n_control for one in parts),
        n_treatment=sum(one.n_treatment for one in parts),
        se=whole.se,
        z_score=_z_of(p_value, whole.z_score, whole.estimate),
        lift=new / old - 1 if old and old > 0 and new is not None else None,
        lift_ci_low=getattr(whole, "lift_ci_low", None),
        lift_ci_high=getattr(whole, "lift_ci_high", None),
        is_exact=exact is not None,
        no_verdict=whole.no_verdict,
        shown_as=shown_as,
    )


def _z_of(p_value: float | None, z_score: float | None, estimate: float | None) -> float | None:
    """The z that says what the p-value says, skewness and exact tests included, so that a look's limit reads them as well."""
    if p_value is None or estimate is None:
        return None
    return z_score if p_value < _SMALLEST else math.copysign(z_of_p(p_value), estimate)


def _levels(parts: Sequence[object], weights: Sequence[float]) -> tuple[float | None, float | None]:
    """Each variant's level; over several phases with the weights of the difference, so that they differ by just that."""
    if len(parts) == 1:
        return _level(parts[0], "control"), _level(parts[0], "treatment")
    if not any(weights):
        return None, None
    old, new = (
        sum(w * (_level(one, arm) or 0.0) for w, one in zip(weights, parts, strict=True))
        for arm in ("control", "treatment")
    )
    return old, new


def _level(test: object, arm: str) -> float | None:
    return (
        getattr(test, f"{arm}_rate")
        if hasattr(test, f"{arm}_rate")
        else getattr(test, f"{arm}_mean")
    )
