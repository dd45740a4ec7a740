"""Tests with the user as the unit: ratios of sums, means per user, phases of one test, quantiles of requests."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from evalkit.errors import DesignError
from evalkit.stats import result
from evalkit.stats.proportions import ProportionTest, wilson
from evalkit.stats.result import UNKNOWN, ByUser, Difference, Limits, Result, Scale
from evalkit.stats.sums import (
    FEW,
    Level,
    MeanSums,
    Moments,
    Null,
    RatioSums,
    burdens,
    exact_p,
    null_of,
    of_metric,
    p_under,
    ratio_sums,
)

FEW_USERS = 30
NO_VARIANCE = "no variance between users: the test is undefined"

PerUser = tuple[ArrayLike, ArrayLike]
Requests = tuple[Sequence[Hashable], ArrayLike]
_SMALL = 0.1  # share of what the users can tell up to which a phase that bears no verdict is left out, and the others decide


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTest(ByUser):
    """Treatment - control with the user as the unit.

    Attributes:
        se: Standard error of the difference, each variant's own: that of the interval.
        z_score: The difference over the standard error of its test.
        lift: Relative change, None unless the control value is positive.
    """

    n_control: int
    n_treatment: int
    se: float | None
    z_score: float | None
    lift: float | None
    lift_ci_low: float | None
    lift_ci_high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioTest(UserTest):
    """Difference of two ratios of sums; `se` is the delta method's.

    Attributes:
        se_null: Standard error of the difference if nothing differed; `z_score` is `diff / se_null`.
        skew_null: Skewness of that.
        expected_events: Independent events that the poorer variant expects; None where events are no matter of counts.
        n_hit: Users with an event, control and treatment; None when the sums do not say.
        n_miss: Users with a request without one.
        p_exact: Fisher's exact p on users, where a variant expects too few events for another; then also `p_value`.
    """

    control_rate: float | None
    treatment_rate: float | None
    se_null: float | None = None
    skew_null: float = 0.0
    expected_events: float | None = None
    n_hit: tuple[int, int] | None = None
    n_miss: tuple[int, int] | None = None
    p_exact: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanTest(UserTest):
    """Difference of two per-user means in the metric's own unit; `z_score` is read against t with `df` degrees of freedom.

    Attributes:
        p_exact: Fisher's exact p on users where all of a variant have the same value, so that t is undefined; it decides.
    """

    scale: ClassVar[Scale] = "number"
    deciding: ClassVar[tuple[str, ...]] = ("p_exact", "p_value")
    control_mean: float | None
    treatment_mean: float | None
    df: float | None
    p_exact: float | None = None


def ratio_test(control: PerUser, treatment: PerUser, *, alpha: float = 0.05) -> RatioTest:
    """Did successes per request change, when one user makes many requests?

    Args:
        control: Two arrays `(requests, successes)`, one entry a user.
        treatment: The same for the treatment's users.
        alpha: Two-sided level.

    The interval has each variant's own errors, the test those both share when nothing differs. Where a variant expects fewer
    than 5 users with an event (or without one) Fisher's exact test on users decides, and the interval is Newcombe's.

    Source: Deng, Knoblich & Lu 2018, delta method, with n - 1 variances; the test as in `evalkit.stats.sums`.

    Raises:
        DesignError: Arrays that do not match, or missing or negative requests.

    Example:
        >>> test = ratio_test(([4, 1, 3, 2], [1, 0, 2, 1]), ([2, 2, 4, 1], [2, 1, 3, 1]))
        >>> round(test.control_rate, 3), round(test.treatment_rate, 3), round(test.diff, 3)
        (0.4, 0.778, 0.378)
    """
    if any(
        (result.numbers(requests, "requests") < 0).any() for requests, _ in (control, treatment)
    ):
        raise DesignError("a user has fewer than 0 requests; need counts")
    return ratio_test_from_sums(*_sums_of(control, treatment), alpha=alpha)


def ratio_test_from_sums(
    control: RatioSums, treatment: RatioSums, *, alpha: float = 0.05
) -> RatioTest:
    """`ratio_test` from a few sums per variant, as a database makes them.

    Raises:
        DesignError: Sums that no data can have.

    Example:
        >>> sums = RatioSums(n=4, sum_x=10, sum_y=4, sum_xx=30, sum_xy=12, sum_yy=6)
        >>> ratio_test_from_sums(sums, sums).diff
        0.0
    """
    both = control, treatment
    old, new = control.rate("control"), treatment.rate("treatment")
    plain = RatioTest(
        **_compared(old, new, (control.n, treatment.n), alpha),
        method="delta method by user",
        control_rate=old[0],
        treatment_rate=new[0],
    )
    null = null_of(control, treatment)
    varied = tuple(one for one in plain.notes if one != NO_VARIANCE)
    if plain.diff == 0 and plain.se == 0 and null.se is None:
        never = all(one.sum_yy == 0 for one in both)
        always = all(one.sum_y == one.sum_x and one.squares(1.0) == 0 for one in both)
        if never or always:
            low, high = newcombe_by_user(control, treatment, alpha)
            note = "both variants at 0% or both at 100%: no test, but the interval is Newcombe's"
            return replace(plain, ci_low=low, ci_high=high, notes=(note, *varied))
    if plain.diff is None or null.se is None or plain.se is None:
        return plain
    p_value, source = p_under([null], plain.diff, null.se)
    is_rate = null.expected is not None
    moments = () if is_rate else [one.moments(one.sum_y / one.sum_x) for one in both]
    notes, no_verdict = burdens(both, moments, rate=is_rate)
    low, high = plain.ci_low, plain.ci_high
    if is_rate and (source or not all(one.varies() for one in both)):
        low, high = newcombe_by_user(control, treatment, alpha)
    return replace(
        plain,
        ci_low=low,
        ci_high=high,
        z_score=plain.diff / null.se,
        p_value=p_value,
        p_exact=p_value if source == "exact" else None,
        se_null=null.se,
        skew_null=null.skew,
        expected_events=null.expected,
        n_hit=null.hits,
        n_miss=null.misses,
        method="Fisher's exact test on users" if source == "exact" else plain.method,
        notes=(*(plain.notes if low is None else varied), *FEW[source], *notes),
        no_verdict=no_verdict,
    )


def _sums_of(control: PerUser, treatment: PerUser) -> tuple[RatioSums, RatioSums]:
    return ratio_sums(*control, "control"), ratio_sums(*treatment, "treatment")


def newcombe_by_user(control: RatioSums, treatment: RatioSums, alpha: float) -> tuple[float, float]:
    """Interval of a difference of rates that holds for rare events too.

    Source: Newcombe 1998 method 10, on effective sample sizes as Rao & Scott 1992.
    """
    old, old_low, old_high = wilson_by_user(control, alpha)
    new, new_low, new_high = wilson_by_user(treatment, alpha)
    fall, rise = (
        math.hypot(new - new_low, old_high - old),
        math.hypot(new_high - new, old - old_low),
    )
    return max(-1.0, new - old - fall), min(1.0, new - old + rise)


def wilson_by_user(sums: RatioSums, alpha: float) -> tuple[float, float, float]:
    """A rate with Wilson limits at the number of independent requests that its users are worth.

    Source: Wilson 1927; effective sample size as Rao & Scott 1992.
    """
    rate = sums.sum_y / sums.sum_x
    alone = rate * (1 - rate) * sums.sum_x
    # where there is no event at all, users are counted
    inflation = max(1.0, sums.squares(rate) / alone if alone > 0 else sums.sum_x / sums.n)
    low, high = wilson(rate * sums.sum_x / inflation, sums.sum_x / inflation, alpha)
    return rate, min(low or 0.0, rate), max(high or 0.0, rate)


def mean_test(control: ArrayLike, treatment: ArrayLike, *, alpha: float = 0.05) -> MeanTest:
    """Did a numeric metric change per user? Welch's t-test.

    Args:
        control: One number a user.
        treatment: The same for the treatment's users.
        alpha: Two-sided level.

    Source: Welch 1947; `scipy.stats.ttest_ind(equal_var=False)`.

    Raises:
        DesignError: Missing values.

    Example:
        >>> print(mean_test([1, 2, 3, 4], [3, 4, 5, 6]))
        No difference shown: +2.00 (95% interval −0.234 to +4.23, p = 0.071, Welch's t, n = 8 users).
    """
    old, new = result.numbers(control, "control"), result.numbers(treatment, "treatment")
    plain = _welch((_level(old), _level(new)), (len(old), len(new)), alpha)
    return _of_means(plain, [of_metric(ratio_sums(one, one)) for one in (old, new)])


def mean_test_from_sums(control: MeanSums, treatment: MeanSums, *, alpha: float = 0.05) -> MeanTest:
    """`mean_test` from a few sums per variant, as a database makes them.

    Raises:
        DesignError: Sums that no data can have.

    Example:
        >>> mean_test_from_sums(MeanSums(n=4, sum_y=10, sum_yy=30), MeanSums(n=4, sum_y=18, sum_yy=86)).diff
        2.0
    """
    levels = control.mean("control"), treatment.mean("treatment")
    return _of_means(_welch(levels, (control.n, treatment.n), alpha), [control, treatment])


def _of_means(plain: MeanTest, both: Sequence[MeanSums]) -> MeanTest:
    """With what stands against a verdict; without any spread by the exact test on users.

    Source of the limits then: Clopper & Pearson 1934 in each variant for the users who may be of the other's kind, combined as
    Newcombe 1998.
    """
    if not (plain.se == 0 and plain.diff):
        return _weighed(plain, both, [one.tails() for one in both])
    n_old, n_new = (one.n for one in both)
    null = Null(se=None, n=(n_old, n_new), hits=(0, n_new), misses=(n_old, 0))
    note = "all users of a variant have one value: Fisher's exact test on users decides (p_exact)"
    left_open = math.hypot(*(1 - (plain.alpha / 2) ** (1 / n) for n in (n_old, n_new)))
    reach = abs(plain.diff) * left_open
    return replace(
        plain,
        ci_low=plain.diff - reach,
        ci_high=plain.diff + reach,
        p_exact=exact_p([null]),
        method="Fisher's exact test on users",
        notes=(*(one for one in plain.notes if one != NO_VARIANCE), note),
    )


def cuped_test(control: PerUser, treatment: PerUser, *, alpha: float = 0.05) -> MeanTest:
    """`mean_test` made sharper by what each user did before the experiment; not for ratio metrics.

    Each variant is two arrays `(before, metric)`, one entry a user.

    Source: Deng, Xu, Kohavi & Walker 2013; as `ols("y ~ t + x_centred")` with HC1 errors, to order 1/n.

    Raises:
        DesignError: Arrays that do not match, or missing values.

    Example:
        >>> before, after = [1, 2, 3, 4], [1.1, 2.0, 3.1, 3.9]
        >>> round(cuped_test((before, after), (before, [y + 1 for y in after])).diff, 6)
        1.0
    """
    return cuped_test_from_sums(*_sums_of(control, treatment), alpha=alpha)


def cuped_test_from_sums(
    control: RatioSums, treatment: RatioSums, *, alpha: float = 0.05
) -> MeanTest:
    """`cuped_test` from a few sums per variant: x is the covariate, y the metric.

    Raises:
        DesignError: Sums that no data can have.
    """
    both, n = (control, treatment), control.n + treatment.n
    products = [control.centred("control"), treatment.centred("treatment")]
    spread, shared = sum(xx for xx, _, _ in products), sum(xy for _, xy, _ in products)
    slope = shared / spread if spread else 0.0
    centre = (control.sum_x + treatment.sum_x) / n if n else 0.0

    def adjusted(one: RatioSums, products: tuple[float, float, float]) -> Level:
        """Mean and standard error of y - slope (x - centre)."""
        n, (xx, xy, yy) = one.n, products
        if n == 0:
            return None, None
        squares = max(0.0, yy - 2 * slope * xy + slope**2 * xx)
        squares = 0.0 if squares < 1e-13 * yy else squares
        mean = one.sum_y / n - slope * (one.sum_x / n - centre)
        return mean, (squares / (n - 1) / n) ** 0.5 if n > 1 else None

    levels = adjusted(control, products[0]), adjusted(treatment, products[1])
    method = "CUPED, Welch's t on adjusted means"
    plain = _welch(levels, (control.n, treatment.n), alpha, method)
    return _weighed(plain, [of_metric(one) for one in both], [one.tails(slope) for one in both])


def _weighed(
    plain: MeanTest, both: Sequence[MeanSums], tails: Sequence[Moments | None]
) -> MeanTest:
    """With what stands against a verdict."""
    notes, refused = burdens(both, tails)
    return replace(plain, notes=(*plain.notes, *notes), no_verdict=refused)


def _level(values: np.ndarray) -> Level:
    """Mean and standard error by deviations from the mean: sums of raw squares lose small differences of large values."""
    if (n := len(values)) < 2:
        return float(values[0]) if n else None, None
    deviations = values - values.mean()
    squares = float(deviations @ deviations)
    squares = 0.0 if squares <= 1e-28 * float(values @ values) else squares
    return float(values.mean()), (squares / (n - 1) / n) ** 0.5


def _welch(
    levels: tuple[Level, Level], sizes: tuple[int, int], alpha: float, method: str = "Welch's t"
) -> MeanTest:
    """Welch's test of two means with their standard errors."""
    (old, new), df, (n_old, n_new) = levels, None, sizes
    parts = [(se or 0.0) ** 2 for _, se in levels]
    if min(n_old, n_new) > 1 and sum(parts) > 0:
        df = sum(parts) ** 2 / (parts[0] ** 2 / (n_old - 1) + parts[1] ** 2 / (n_new - 1))
    return MeanTest(
        **_compared(old, new, sizes, alpha, df),
        method=method,
        df=df,
        control_mean=old[0],
        treatment_mean=new[0],
    )


def _compared(
    old: Level, new: Level, sizes: tuple[int, int], alpha: float, df: float | None = None
) -> dict[str, Any]:
    """The fields both tests share, by t with `df` degrees of freedom, or by z when df is None."""
    tail = result.between(alpha, "alpha") / 2
    quantile = result.z_quantile(alpha) if df is None else -float(stdtrit(df, tail))
    (rate_old, se_old), (rate_new, se_new) = old, new
    diff = None if rate_old is None or rate_new is None else rate_new - rate_old
    se = None if se_old is None or se_new is None else math.hypot(se_old, se_new)
    limits, score, p_value = UNKNOWN, None, None
    if diff is not None and se:
        limits, score = (diff - quantile * se, diff + quantile * se), diff / se
        p_value = result.two_sided_p(score) if df is None else float(2 * stdtr(df, -abs(score)))
    lift, (lift_low, lift_high) = _log_lift(old, new, quantile)
    defined, few = diff is not None, diff is not None and min(sizes) < FEW_USERS
    notes = {
        "a group has no users or no requests: the difference is undefined": not defined,
        "need at least two users in each group for an interval": defined and se is None,
        NO_VARIANCE: defined and se == 0,
        f"fewer than {FEW_USERS} users in a group: the interval is approximate": few,
        "the control value is not above 0: the lift is undefined": defined and lift is None,
    }
    found = result.measured(diff, sum(sizes), limits, alpha=alpha, p_value=p_value)
    found |= {"n_control": sizes[0], "n_treatment": sizes[1], "se": se, "z_score": score}
    found |= {"lift": lift, "lift_ci_low": lift_low, "lift_ci_high": lift_high}
    return found | {"notes": result.noted(notes)}


def _log_lift(old: Level, new: Level, quantile: float) -> tuple[float | None, Limits]:
    """Relative change; its interval by the delta method on the log of the ratio."""
    (rate_old, se_old), (rate_new, se_new) = old, new
    if rate_old is None or rate_new is None or rate_old <= 0:
        return None, UNKNOWN
    lift = rate_new / rate_old - 1
    if rate_new <= 0 or se_old is None or se_new is None:
        return lift, UNKNOWN
    half = quantile * math.hypot(se_old / rate_old, se_new / rate_new)
    log_ratio = math.log(rate_new) - math.log(rate_old)
    low, high = (math.expm1(min(700.0, end)) for end in (log_ratio - half, log_ratio + half))
    return lift, (low, high)


# ---- phases of a split that changed


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinedTest(ByUser):
    """Phases of one experiment combined by inverse variance; `estimate` is `diff`.

    Attributes:
        se: Standard error of the combined difference, that of the interval.
        z_score: The difference over its standard error if nothing differed.
        phases: The phases' own differences, in order.
        weights: What each phase counts in it, in order; they sum to 1.
        shown_as: As the results it was made from.
    """

    se: float | None
    z_score: float | None
    phases: tuple[float | None, ...]
    weights: tuple[float, ...] = ()
    p_exact: float | None = None
    shown_as: Scale = "points"


def null_in(test: RatioTest | MeanTest | ProportionTest) -> Null:
    """The null that a test was read against; its own error where it has no other."""
    n = test.n_control, test.n_treatment
    if not isinstance(test, RatioTest):
        return Null(se=test.se if isinstance(test, MeanTest) else test.se_null, n=n)
    return Null(
        se=test.se_null,
        skew=test.skew_null,
        n=n,
        expected=test.expected_events,
        hits=test.n_hit,
        misses=test.n_miss,
    )


def combine_phases(
    results: Sequence[RatioTest | MeanTest | ProportionTest], *, alpha: float = 0.05
) -> CombinedTest:
    """One answer from the phases of an experiment whose split changed: inverse-variance mean of the differences.

    Pooling the users of all phases instead would mix the split with the calendar (Simpson's paradox).

    Args:
        results: One test a phase, of the same kind, each with `estimate`, `se` and `n`.
        alpha: Two-sided level.

    Source: fixed-effect combination, Cochran 1954; weights and test by the errors under the null. The limits are combined from
    those of the phases (Zou & Donner 2008).

    A phase that bears no verdict of its own (one user outweighs its others) is left out where its users can tell no more
    than a tenth; else there is no verdict at all.

    Raises:
        DesignError: No phase given.

    Example:
        >>> from evalkit.stats import proportion_z_test
        >>> weeks = [proportion_z_test(270, 900, 35, 100), proportion_z_test(320, 1000, 360, 1000)]
        >>> print(combine_phases(weeks))
        Better: +4.2 points (95% interval +0.4 to +8.0, p = 0.032, inverse variance over 2 phases, n = 3,000 users).
    """
    if not results:
        raise DesignError("no phases to combine; need at least one")
    nulls, n = [null_in(one) for one in results], len(results)
    counted = [at for at in range(n) if results[at].estimate is not None and nulls[at].se]
    left_out = n - len(counted)
    notes = [f"{left_out} of {n} phases have no variance yet and are left out"] if left_out else []
    # By users, not by errors: one user who outweighs half of a test makes that half's error large, and is no small matter.
    worth = {at: math.prod(nulls[at].n) / max(sum(nulls[at].n), 1) for at in counted}
    refusals = {at: getattr(one, "no_verdict", "") for at, one in enumerate(results)}
    limit = _SMALL * sum(worth.values())
    small = [at for at in counted if refusals[at] and worth[at] <= limit]
    counted = [at for at in counted if at not in small]
    refused = [why for at, why in refusals.items() if why and at not in small]
    notes += [f"a small phase is left out: {refusals[at]}" for at in small]
    notes += [f"no verdict: {why}" for why in refused]
    diff = se = z_score = p_value = None
    limits, source, weights = UNKNOWN, "", {}
    if counted:
        usable = [results[at] for at in counted]
        inverse = [1 / (nulls[at].se or 1.0) ** 2 for at in counted]
        se_null, weight = sum(inverse) ** -0.5, np.array(inverse) / sum(inverse)
        estimates, lows, highs, errors = (
            np.array([getattr(one, name) for one in usable], dtype=float)
            for name in ("estimate", "ci_low", "ci_high", "se")
        )
        diff = float(sum(weight * estimates))
        p_value, source = p_under([nulls[at] for at in counted], diff, se_null)
        scale = result.z_quantile(alpha) / result.z_quantile(usable[0].alpha)
        fall, rise = (math.hypot(*(weight * abs(ends - estimates))) for ends in (lows, highs))
        limits = diff - scale * fall, diff + scale * rise
        se, z_score = math.hypot(*(weight * errors)), diff / se_null
        weights = dict(zip(counted, weight.tolist(), strict=True))
    return CombinedTest(
        **result.measured(
            diff, sum(one.n for one in results), limits, alpha=alpha, p_value=p_value
        ),
        phases=tuple(one.estimate for one in results),
        no_verdict=next(iter(refused), ""),
        shown_as=results[0].shown_in(),
        method=f"inverse variance over {len(counted)} phases",
        p_exact=p_value if source == "exact" else None,
        notes=(*notes, *FEW[source]),
        se=se,
        z_score=z_score,
        weights=tuple(weights.get(at, 0.0) for at in range(n)) if weights else (),
    )


# ---- quantiles of requests


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileInterval(Result):
    """A quantile of requests, in their own unit; `n` counts users."""

    scale: ClassVar[Scale] = "number"
    unit: ClassVar[str] = "user"
    with_sign: ClassVar[bool] = False
    q: float

    def _headline(self) -> str:
        return f"p{self.q * 100:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileTest(Difference):
    """Difference of two quantiles, treatment - control; positive means higher, for latency that is the bad side.

    Attributes:
        control: The control's quantile.
        treatment: The treatment's.
    """

    scale: ClassVar[Scale] = "number"
    unit: ClassVar[str] = "user"
    control: float | None
    treatment: float | None
    q: float

    def _headline(self) -> str:
        return f"p{self.q * 100:g}, treatment minus control"


def quantile_by_user(
    control: Requests, treatment: Requests, q: float = 0.95, *, alpha: float = 0.05
) -> QuantileTest:
    """Did a quantile of requests change, with the user as the unit? For `noninferiority_test(lower_is_better=True)`.

    Each variant is `(users, values)`, one entry a request.

    Raises:
        DesignError: Values are missing or do not match the users.

    Example:
        >>> users, ms = [n % 50 for n in range(500)], [100.0 + n for n in range(500)]
        >>> quantile_by_user((users, ms), (users, [value + 20 for value in ms])).diff
        20.0
    """
    old, new = (quantile_interval(*one, q, alpha=alpha) for one in (control, treatment))
    return quantile_test(old, new)


def quantile_test(control: QuantileInterval, treatment: QuantileInterval) -> QuantileTest:
    """The difference of two quantiles from their intervals.

    Source: Zou & Donner 2008, recovering the variance from the limits (MOVER).

    Raises:
        DesignError: Different quantiles or levels.
    """
    if (control.q, control.alpha) != (treatment.q, treatment.alpha):
        raise DesignError("the two intervals are of different quantiles or levels; need the same")
    old, new, diff, limits = control, treatment, None, UNKNOWN
    if old.estimate is not None and new.estimate is not None:
        diff = new.estimate - old.estimate
        low = high = None
        if new.ci_low is not None and old.ci_high is not None:
            low = diff - math.hypot(new.ci_low - new.estimate, old.ci_high - old.estimate)
        if new.ci_high is not None and old.ci_low is not None:
            high = diff + math.hypot(new.ci_high - new.estimate, old.ci_low - old.estimate)
        limits = low, high
    return QuantileTest(
        **result.measured(diff, old.n + new.n, limits, alpha=old.alpha),
        method="Woodruff intervals by user, MOVER",
        notes=tuple(dict.fromkeys(old.notes + new.notes)),
        control=old.estimate,
        treatment=new.estimate,
        q=old.q,
    )


def quantile_interval(
    users: Sequence[Hashable], values: ArrayLike, q: float = 0.95, *, alpha: float = 0.05
) -> QuantileInterval:
    """A quantile of requests with a cluster-robust interval.

    The share of requests at or below the quantile gets a by-user standard error; its limits are turned back into values.

    Source: Woodruff 1952; Francisco & Fuller 1991.

    Raises:
        DesignError: Values are missing or do not match the users.

    Example:
        >>> print(quantile_interval([n % 50 for n in range(500)], range(500)))
        p95: 474 (95% interval 468 to 481, Woodruff by user, n = 50 users).
    """
    array, q = result.numbers(values, "values"), result.between(q, "q")
    codes, n = result.codes_of(users, len(array))
    point, limits = None, UNKNOWN
    if n:
        at = partial(np.quantile, array, method="inverted_cdf")
        point = float(at(q))
        seen = np.bincount(codes), np.bincount(codes, weights=array <= point)
        low, high = quantile_levels(ratio_sums(*seen), q, alpha=alpha)
        limits = None if low is None else float(at(low)), None if high is None else float(at(high))
    return QuantileInterval(
        **result.measured(point, n, limits, alpha=alpha),
        method="Woodruff by user",
        notes=("too few users for a limit on both sides",) if None in limits else (),
        q=q,
    )


def quantile_levels(sums: RatioSums, q: float, *, alpha: float = 0.05) -> Limits:
    """Levels whose quantiles are the limits of the q-quantile; None where a limit lies beyond the data.

    In `sums`, over users, x = requests and y = requests at or below the q-quantile.

    Source: Woodruff 1952, with the delta-method standard error by user.

    Raises:
        DesignError: Sums that no data can have.
    """
    _, se = sums.rate("the group")
    if not se:
        return UNKNOWN
    half = result.z_quantile(alpha) * se
    low, high = result.between(q, "q") - half, q + half
    return low if low > 0 else None, high if high < 1 else None
