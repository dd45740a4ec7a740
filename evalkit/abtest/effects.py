"""From sums per phase, variant and day to one difference, tested or against a margin: phases apart, the user as the unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import mul, sub
from typing import Any, Literal

import pandas as pd

from evalkit import stats
from evalkit.abtest.analysis import BIN, Users
from evalkit.abtest.plan import Better, Kind
from evalkit.files import JsonObject
from evalkit.stats import ProportionTest, QuantileInterval, RatioSums, keeps_margin
from evalkit.stats.result import ByUser, Scale, Verdict, which_way, z_of_p, z_quantile
from evalkit.stats.sums import of_metric, one_user
from evalkit.stats.users import UserTest, newcombe_by_user

SUMS = ("n", "sum_x", "sum_y", "sum_xx", "sum_xy", "sum_yy")
THIRDS = ("sum_xxx", "sum_xxy", "sum_xyy", "sum_yyy", "n_hit", "n_miss")
ENDS = {"max_x": max, "max_y": max, "min_y": min}
NUMBERS = ("n", "control_rate", "treatment_rate", "estimate", "ci_low", "ci_high")
FEW_USERS = 30
Row = Mapping[str, Any]  # numbers of one part: a day, a slice, a further metric
_SMALLEST = 1e-250  # p below which a z-score is told as it is
_P95 = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect(ByUser):
    """`treatment_rate - control_rate` of one metric, as the plan lets it be read; `estimate` is `diff`.

    Of what is only watched it says no more than levels, difference and interval.

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

    control_rate: float | None = None
    treatment_rate: float | None = None
    n_control: int = 0
    n_treatment: int = 0
    se: float | None = None
    z_score: float | None = None
    lift: float | None = None
    lift_ci_low: float | None = None
    lift_ci_high: float | None = None
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
        return stats.against_margin(
            "no difference shown" if tested == "too early" else tested, kept
        )

    def z_limit(self) -> float:
        """The |z| from which it counts."""
        return z_quantile(self.alpha) if self.bound is None else self.bound

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
        margin = -self.margin if self.lower_is_better else self.margin
        return self.z_limit() * (self.estimate + margin) / abs(self.estimate - worst)

    def _tested(self) -> Verdict:
        if self.no_verdict or self.bound is None or self.estimate is None:
            return super(Effect, self).verdict
        if self.z_score is not None and abs(self.z_score) >= self.bound:
            return which_way(self.z_score, lower_is_better=self.lower_is_better)
        return "no difference shown" if self.look == self.looks else "too early"


def effect(
    cells: pd.DataFrame,
    kind: Kind | Literal["cuped"],
    *,
    alpha: float = 0.05,
    lower_is_better: bool = False,
) -> Effect:
    """The difference of one metric over all phases in `cells`.

    Args:
        cells: Sums as `Log.cells` returns them.
        kind: rate and ratio: y per x by the delta method; mean: y per user by Welch's t; cuped: the same adjusted for x, what
            each user did before.
        alpha: Two-sided level.
        lower_is_better: The metric's direction; it turns the verdict, never the sign.
    """
    test = stats.cuped_test_from_sums if kind == "cuped" else stats.ratio_test_from_sums
    if kind == "mean":
        tests = [
            stats.mean_test_from_sums(*map(of_metric, pair), alpha=alpha) for pair in pairs(cells)
        ]
    else:
        tests = [test(*pair, alpha=alpha) for pair in pairs(cells)]
    whole = _joined(tests, "points" if kind == "rate" else "number", alpha)
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


def article_test(cells: pd.DataFrame, *, alpha: float = 0.05) -> ProportionTest | None:
    """The article's z-test over requests, as if each were a user of its own; None when they are no counts of one phase."""
    phases = pairs(cells)
    if len(phases) != 1 or not all(one.sum_x and one.sum_y.is_integer() for one in phases[0]):
        return None
    old, new = phases[0]
    return stats.proportion_z_test(
        round(old.sum_y), round(old.sum_x), round(new.sum_y), round(new.sum_x), alpha=alpha
    )


def side_by_side(tests: Mapping[str, Effect], *, alpha: float = 0.05) -> tuple[Row, ...]:
    """Differences by name (days, slices, metrics), p adjusted by Holm.

    Means of few users are shown without p, as theirs is approximate. The test of a rate holds at any number: where few
    events are expected Fisher's exact test on users decides (simulated: at most 6.7% with 10 to 29 users a variant).
    """
    raw = []
    for test in tests.values():
        enough = test.shown_as == "points" or min(test.n_control, test.n_treatment) >= FEW_USERS
        raw.append(test.p_value if enough else None)
    rows = []
    for name, p, adjusted in zip(tests, raw, stats.adjust(raw, method="holm"), strict=True):
        test, verdict = tests[name], "no difference shown"
        if test.no_verdict:
            verdict = "invalid"
        elif test.estimate and adjusted is not None and adjusted < alpha:
            verdict = which_way(test.estimate, lower_is_better=test.lower_is_better)
        row = {"name": name} | {one: getattr(test, one) for one in NUMBERS}
        rows.append(row | {"p_value": p, "p_adjusted": adjusted, "verdict": verdict})
    return tuple(rows)


def up_to(cells: pd.DataFrame, day: float) -> pd.DataFrame:
    """The cells of users who came on that day or before."""
    return cells.loc[cells["day"] <= day]


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


def _joined(parts: Sequence[UserTest], shown_as: Scale, alpha: float) -> Effect:
    whole = parts[0] if len(parts) == 1 else stats.combine_phases(parts, alpha=alpha)
    old, new = _levels(parts, getattr(whole, "weights", ()))
    z, p = whole.z_score, whole.p_value
    if p is None or whole.estimate is None:
        z = None
    elif p >= _SMALLEST:
        # what p says, skewness and exact tests included, so that a look's limit reads them as well
        z = math.copysign(z_of_p(p), whole.estimate)
    same = ("estimate", "n", "ci_low", "ci_high", "method", "notes", "se", "no_verdict")
    return Effect(
        **{name: getattr(whole, name) for name in same},
        alpha=alpha,
        p_value=None if whole.no_verdict else p,
        control_rate=old,
        treatment_rate=new,
        n_control=sum(one.n_control for one in parts),
        n_treatment=sum(one.n_treatment for one in parts),
        z_score=z,
        lift=new / old - 1 if old and old > 0 and new is not None else None,
        lift_ci_low=getattr(whole, "lift_ci_low", None),
        lift_ci_high=getattr(whole, "lift_ci_high", None),
        is_exact=getattr(whole, "p_exact", None) is not None,
        shown_as=shown_as,
    )


def _levels(parts: Sequence[UserTest], weights: Sequence[float]) -> Sequence[float | None]:
    """Each variant's level; over several phases with the weights of the difference, so that they differ by just that."""
    what = "rate" if hasattr(parts[0], "control_rate") else "mean"
    levels = [[getattr(one, f"{arm}_{what}") for one in parts] for arm in ("control", "treatment")]
    if len(parts) == 1:
        return [of_arm[0] for of_arm in levels]
    if not any(weights):
        return None, None
    return [sum(map(mul, weights, (one or 0.0 for one in of_arm))) for of_arm in levels]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One guardrail as it came out.

    Attributes:
        change: Treatment minus control; it has no good direction of its own.
        margin: How much worse is acceptable; None when the plan declares no limit and it is only shown.
    """

    name: str
    kind: Kind
    better: Better = "lower"
    change: Effect
    margin: float | None = None

    @property
    def verdict(self) -> str:
        """The change against the margin.

        "not worse", "not shown", "worse" (the whole interval lies beyond the margin), "too early" (no users on a side),
        "invalid" (the change's notes say why), or "no limit declared".
        """
        if self.margin is None:
            return "no limit declared"
        lower_is_better, change = self.better == "lower", self.change
        test = stats.noninferiority_test(change, self.margin, lower_is_better=lower_is_better)
        best = change.ci_low if lower_is_better else change.ci_high
        beyond = best is not None and (best if lower_is_better else -best) > self.margin
        return "worse" if beyond and not change.no_verdict else test.verdict

    def to_dict(self) -> JsonObject:
        """Plain numbers."""
        own = {
            name: getattr(self, name) for name in ("name", "kind", "better", "margin", "verdict")
        }
        names = ("estimate", "ci_low", "ci_high", "n", "method")
        change = self.change
        levels = {"control": change.control_rate, "treatment": change.treatment_rate}
        numbers = {name: getattr(change, name) for name in names}
        return own | numbers | levels | {"notes": list(change.notes)}


def unknown(n: int, why: str, alpha: float) -> Effect:
    """No change can be told."""
    return Effect(n=n, alpha=alpha, method="none", notes=(why,))


def change(cells: pd.DataFrame, kind: Kind, alpha: float) -> Effect:
    """The change of something watched that is counted in cells; each variant's levels where the split was one."""
    if kind == "rate":
        return rate_change(cells, alpha=alpha)
    found = effect(cells, kind, alpha=alpha)
    one_split = len(set(cells["phase"])) < 2
    return found if one_split else replace(found, control_rate=None, treatment_rate=None)


def rate_change(cells: pd.DataFrame, *, alpha: float = 0.05) -> Effect:
    """Change of a rate over requests: Newcombe's interval on effective sample sizes, which holds for rare events too.

    Phases are weighted by n_control x n_treatment / n, whatever came out.

    Source: Newcombe 1998 method 10; effective sizes as Rao & Scott 1992.
    """
    both, n = pairs(cells), int(cells["n"].to_numpy().sum())
    known = [(old, new) for old, new in both if old.sum_x and new.sum_x]
    if not known:
        return unknown(n, "a variant has no requests", alpha)
    weights = [old.n * new.n / (old.n + new.n) for old, new in known]
    shares = [one / sum(weights) for one in weights]
    rates = [[one.sum_y / one.sum_x for one in arm] for arm in zip(*known, strict=True)]
    old, new = (sum(map(mul, shares, of_arm)) for of_arm in rates)
    limits = [newcombe_by_user(*pair, alpha) for pair in known]
    each = [later - before for before, later in zip(*rates, strict=True)]
    fall, rise = (
        math.hypot(*map(mul, shares, map(sub, ends, each))) for ends in zip(*limits, strict=True)
    )
    carried = [one_user({"control": old, "treatment": new}, rate=True) for old, new in both]
    why = next((one for _, one in carried if one), "")
    notes = [note for some, _ in carried for note in some]
    return Effect(
        estimate=new - old,
        n=n,
        ci_low=new - old - fall,
        ci_high=new - old + rise,
        alpha=alpha,
        method="Newcombe by user",
        notes=(*notes, *([f"no verdict: {why}"] if why else [])),
        control_rate=old,
        treatment_rate=new,
        no_verdict=why,
    )


def latency_change(users: Users, *, alpha: float = 0.05) -> Effect | None:
    """Change of the p95 latency in ms: histograms and counts below their p95 come from the engine.

    Source: Woodruff 1952 by user; the difference as Zou & Donner 2008. Several phases are weighted by the inverse square of
    their intervals' width.
    """
    histogram = users.latency_histogram()
    if histogram is None or histogram.empty:
        return None
    curves: dict[Any, pd.DataFrame] = dict(iter(histogram.groupby(["phase", "treated"])))
    limits = {arm: _quantile(part, _P95) for arm, part in curves.items()}
    sums = pairs(users.latency_cells(limits))
    tests = []
    for phase, both in zip(sorted({phase for phase, _ in curves}), sums, strict=True):
        if (phase, 0) in curves and (phase, 1) in curves:
            arms = (_woodruff(curves[phase, arm], both[arm], alpha) for arm in (0, 1))
            tests.append(stats.quantile_test(*arms))
    if not tests:
        return None
    first, n = tests[0], sum(one.n for one in tests)
    shown: dict[str, Any] = {
        "n": n,
        "alpha": alpha,
        "method": "p95, Woodruff by user",
        "shown_as": "number",
    }
    if len(tests) == 1:
        names = ("estimate", "ci_low", "ci_high", "notes")
        same = {name: getattr(first, name) for name in names}
        return Effect(**shown, **same, control_rate=first.control, treatment_rate=first.treatment)
    known = [one for one in tests if one.ci_low is not None and one.ci_high is not None]
    if not known:
        return unknown(n, "too few users for an interval", alpha)
    weights = [1 / max(one.ci_high - one.ci_low, 1e-9) ** 2 for one in known]
    middle = sum(map(mul, weights, (one.estimate or 0.0 for one in known))) / sum(weights)
    half = sum(weights) ** -0.5 / 2  # widths are twice a half
    return Effect(
        **shown, notes=first.notes, estimate=middle, ci_low=middle - half, ci_high=middle + half
    )


def _woodruff(curve: pd.DataFrame, sums: RatioSums, alpha: float) -> QuantileInterval:
    low, high = (
        None if level is None else _quantile(curve, level)
        for level in stats.quantile_levels(sums, _P95, alpha=alpha)
    )
    return QuantileInterval(
        estimate=_quantile(curve, _P95),
        n=sums.n,
        ci_low=low,
        ci_high=high,
        alpha=alpha,
        method="Woodruff by user",
        q=_P95,
    )


def _quantile(curve: pd.DataFrame, level: float) -> float:
    """The value at a level of a histogram, straight across the bin that reaches it."""
    n, ms = curve["n"].to_numpy(), curve["ms"].to_numpy()
    so_far = n.cumsum()
    at = int((so_far / so_far[-1]).searchsorted(level - 1e-12))
    inside = (level * so_far[-1] - (so_far[at] - n[at])) / n[at]
    return float(ms[at] * (1 - BIN * (1 - min(1.0, max(0.0, inside)))))


def design_effect_in(users: Users, metric: str) -> float | None:
    """The plan's `design_effect` for a rate, from the control users of an experiment in a log; None when nothing varies.

    Raises:
        DataError: The log cannot be read.
    """
    cells = users.checked(users.cells(metric), metric, is_rate=True)
    control = [old for old, _ in pairs(cells)]
    joined = {name: sum(getattr(one, name) for one in control) for name in SUMS}
    return stats.user_design_effect_from_sums(RatioSums(**joined))
