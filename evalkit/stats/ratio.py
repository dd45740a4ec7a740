"""Production metrics with the user as the unit: ratios of sums, and means per user."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from evalkit.errors import DesignError
from evalkit.stats.null import FEW, Null, exact_p, null_of, p_under, residual_moments
from evalkit.stats.proportions import wilson
from evalkit.stats.result import (
    ByUser,
    Scale,
    between,
    numbers,
    two_sided_p,
    whole,
    z_quantile,
)
from evalkit.stats.tails import central, heavy, one_user

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

FEW_USERS = 30
_OPTIONAL = {"max_x", "max_y", "min_y", "n_hit", "n_miss"} | {
    "sum_xxx",
    "sum_xxy",
    "sum_xyy",
    "sum_yyy",
}
Pair = tuple[Any, Any]
Levelled = tuple[float | None, float | None]  # a level and its standard error


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioSums:
    """All that is needed of one variant: over its users, x = requests and y = successes of each.

    For CUPED x is the covariate from before the experiment and y the metric. What may be None is looked at where it is there:
    third powers for the skewness, the largest and smallest user for one who outweighs the rest, `n_hit` (users with y > 0) and
    `n_miss` (users with y < x) for the exact test.
    """

    n: int
    sum_x: float
    sum_y: float
    sum_xx: float
    sum_xy: float
    sum_yy: float
    sum_xxx: float | None = None
    sum_xxy: float | None = None
    sum_xyy: float | None = None
    sum_yyy: float | None = None
    max_x: float | None = None
    max_y: float | None = None
    min_y: float | None = None
    n_hit: int | None = None
    n_miss: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanSums:
    """All that is needed of one variant for a per-user mean; the rest is looked at where it is there."""

    n: int
    sum_y: float
    sum_yy: float
    sum_yyy: float | None = None
    max_y: float | None = None
    min_y: float | None = None


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
    control_mean: float | None
    treatment_mean: float | None
    df: float | None
    p_exact: float | None = None

    def _deciding_p(self) -> float | None:
        return self.p_value if self.p_exact is None else self.p_exact


def ratio_test(control: Pair, treatment: Pair, *, alpha: float = 0.05) -> RatioTest:
    """Did successes per request change, when one user makes many requests?

    Args:
        control: Two arrays `(requests, successes)`, one entry a user.
        treatment: The same for the treatment's users.
        alpha: Two-sided level.

    The interval has each variant's own errors, the test those both share when nothing differs. Where a variant expects fewer
    than 5 users with an event (or without one) Fisher's exact test on users decides, and the interval is Newcombe's.

    Source: Deng, Knoblich & Lu 2018, delta method, with n - 1 variances; the test as in `evalkit.stats.null`.

    Raises:
        DesignError: Arrays that do not match, or missing or negative requests.

    Example:
        >>> test = ratio_test(([4, 1, 3, 2], [1, 0, 2, 1]), ([2, 2, 4, 1], [2, 1, 3, 1]))
        >>> round(test.control_rate, 3), round(test.treatment_rate, 3), round(test.diff, 3)
        (0.4, 0.778, 0.378)
    """
    if any((numbers(requests, "requests") < 0).any() for requests, _ in (control, treatment)):
        raise DesignError("a user has fewer than 0 requests; need counts")
    return ratio_test_from_sums(
        ratio_sums(*control, "control"), ratio_sums(*treatment, "treatment"), alpha=alpha
    )


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
    old, new = ratio_with_se(control, "control"), ratio_with_se(treatment, "treatment")
    plain = RatioTest(
        **_difference(old, new, (control.n, treatment.n), alpha, None),
        method="delta method by user",
        control_rate=old[0],
        treatment_rate=new[0],
        n_control=control.n,
        n_treatment=treatment.n,
    )
    null = null_of(control, treatment)
    if plain.diff == 0 and plain.se == 0 and null.se is None and _no_event(control, treatment):
        return _nothing_happened(plain, (control, treatment))
    if plain.diff is None or null.se is None or plain.se is None:
        return plain
    return _tested(plain, null, (control, treatment))


def _tested(plain: RatioTest, null: Null, both: tuple[RatioSums, RatioSums]) -> RatioTest:
    """The test under the null, and what stands against a verdict."""
    diff, se = plain.diff or 0.0, null.se or 1.0
    p_value, source = p_under([null], diff, se)
    notes, no_verdict = one_user(
        dict(zip(("control", "treatment"), both, strict=True)), rate=null.expected is not None
    )
    if null.expected is None and not no_verdict:
        own = [residual_moments(one, one.sum_y / one.sum_x) for one in both]
        more, no_verdict = heavy(own, null.n)
        notes += more
    low, high, method = plain.ci_low, plain.ci_high, plain.method
    if null.expected is not None and (source or not all(0 < one.sum_y < one.sum_x for one in both)):
        low, high = newcombe_by_user(*both, plain.alpha)
    if source == "exact":
        method = "Fisher's exact test on users"
    kept = tuple(one for one in plain.notes if low is None or not one.startswith("no variance"))
    return replace(
        plain,
        ci_low=low,
        ci_high=high,
        z_score=diff / se,
        p_value=p_value,
        p_exact=p_value if source == "exact" else None,
        se_null=null.se,
        skew_null=null.skew,
        expected_events=null.expected,
        n_hit=null.hits,
        n_miss=null.misses,
        method=method,
        notes=(*kept, *FEW[source], *notes, *([f"no verdict: {no_verdict}"] if no_verdict else [])),
        no_verdict=no_verdict,
    )


def _no_event(*both: RatioSums) -> bool:
    """No success in either variant, or nothing but successes."""
    return any(all(part(one) for one in both) for part in (_never, _always))


def _never(one: RatioSums) -> bool:
    return one.sum_yy == 0


def _always(one: RatioSums) -> bool:
    return one.sum_y == one.sum_x and one.sum_xx == one.sum_xy == one.sum_yy


def _nothing_happened(plain: RatioTest, both: tuple[RatioSums, RatioSums]) -> RatioTest:
    """Both at 0% or both at 100%: nothing to test, but Newcombe says how much of a difference is left open."""
    low, high = newcombe_by_user(*both, plain.alpha)
    notes = ("both variants are at 0% or both at 100%: no test, but the interval is Newcombe's",)
    kept = tuple(one for one in plain.notes if not one.startswith("no variance"))
    return replace(plain, ci_low=low, ci_high=high, notes=(*notes, *kept))


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
    old, new = numbers(control, "control"), numbers(treatment, "treatment")
    plain = welch(_level(old), _level(new), (len(old), len(new)), alpha, "Welch's t")
    return _weighed(plain, mean_sums(old), mean_sums(new))


def mean_test_from_sums(control: MeanSums, treatment: MeanSums, *, alpha: float = 0.05) -> MeanTest:
    """`mean_test` from a few sums per variant, as a database makes them.

    Raises:
        DesignError: Sums that no data can have.

    Example:
        >>> mean_test_from_sums(MeanSums(n=4, sum_y=10, sum_yy=30), MeanSums(n=4, sum_y=18, sum_yy=86)).diff
        2.0
    """
    plain = welch(
        _mean(control, "control"),
        _mean(treatment, "treatment"),
        (control.n, treatment.n),
        alpha,
        "Welch's t",
    )
    return _weighed(plain, control, treatment)


def _weighed(plain: MeanTest, control: MeanSums, treatment: MeanSums) -> MeanTest:
    """With what stands against a verdict; without any spread by the exact test on users."""
    if plain.se == 0 and plain.diff:
        null = Null(
            se=None, n=(control.n, treatment.n), hits=(0, treatment.n), misses=(control.n, 0)
        )
        note = "all users of a variant have the same value: Fisher's exact test on users decides (p_exact)"
        reach = abs(plain.diff) * _left_open(control.n, treatment.n, plain.alpha)
        return replace(
            plain,
            ci_low=plain.diff - reach,
            ci_high=plain.diff + reach,
            p_exact=exact_p([null]),
            method="Fisher's exact test on users",
            notes=(*(one for one in plain.notes if not one.startswith("no variance")), note),
        )
    notes, no_verdict = one_user({"control": control, "treatment": treatment})
    if not no_verdict:
        pair = (control, treatment)
        own = [central(one.n, one.sum_y, one.sum_yy, one.sum_yyy) for one in pair]
        more, no_verdict = heavy(own, [one.n for one in pair])
        notes += more
    notes += (f"no verdict: {no_verdict}",) if no_verdict else ()
    return replace(plain, notes=(*plain.notes, *notes), no_verdict=no_verdict)


def newcombe_by_user(control: RatioSums, treatment: RatioSums, alpha: float) -> tuple[float, float]:
    """Interval of a difference of rates that holds for rare events too.

    Source: Newcombe 1998 method 10, on effective sample sizes as Rao & Scott 1992.
    """
    (old, old_low, old_high), (new, new_low, new_high) = (
        wilson_by_user(one, alpha) for one in (control, treatment)
    )
    fall, rise = (
        math.hypot(new - new_low, old_high - old),
        math.hypot(new_high - new, old - old_low),
    )
    return max(-1.0, new - old - fall), min(1.0, new - old + rise)


def _left_open(n_old: int, n_new: int, alpha: float) -> float:
    """Share of users who may be of the other variant's kind, where all that were seen are of their own.

    Source: Clopper & Pearson 1934 in each variant, combined as Newcombe 1998.
    """
    return math.hypot(*(1 - (alpha / 2) ** (1 / n) for n in (n_old, n_new)))


def wilson_by_user(sums: RatioSums, alpha: float) -> tuple[float, float, float]:
    """A rate with Wilson limits at the number of independent requests that its users are worth."""
    rate = sums.sum_y / sums.sum_x
    squares = sums.sum_yy - 2 * rate * sums.sum_xy + rate**2 * sums.sum_xx
    alone = rate * (1 - rate) * sums.sum_x
    inflation = (
        max(1.0, squares / alone) if alone > 0 else max(1.0, sums.sum_x / sums.n)
    )  # no event at all: count users
    low, high = wilson(rate * sums.sum_x / inflation, sums.sum_x / inflation, alpha)  # pyright: ignore[reportArgumentType]
    return rate, min(low or 0.0, rate), max(high or 0.0, rate)


def mean_sums(values: np.ndarray) -> MeanSums:
    """The sums of one variant from one number a user."""
    shape = _shape(values, values)
    return MeanSums(
        n=len(values),
        sum_y=float(values.sum()),
        sum_yy=float(values @ values),
        **{name: shape.get(name) for name in ("sum_yyy", "max_y", "min_y")},
    )


def ratio_sums(x: ArrayLike, y: ArrayLike, name: str = "the group") -> RatioSums:
    """The sums of one variant from two arrays, one entry a user.

    Raises:
        DesignError: Arrays that do not match, or missing values.
    """
    requests, successes = numbers(x, f"{name}'s x"), numbers(y, f"{name}'s y")
    if len(requests) != len(successes):
        raise DesignError(
            f"{name} has x for {len(requests)} users and y for {len(successes)}; need both for each user"
        )
    return RatioSums(
        n=len(requests),
        sum_x=float(requests.sum()),
        sum_y=float(successes.sum()),
        sum_xx=float(requests @ requests),
        sum_xy=float(requests @ successes),
        sum_yy=float(successes @ successes),
        **_shape(requests, successes),
    )


def _shape(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """What the sums say on tails, dominating users and few events; None where it overflows."""
    import numpy as np

    if not len(x):
        return {}
    with np.errstate(over="ignore", invalid="ignore"):
        cubes = {
            "sum_xxx": float(x @ (x * x)),
            "sum_xxy": float(y @ (x * x)),
            "sum_xyy": float(x @ (y * y)),
            "sum_yyy": float(y @ (y * y)),
        }
    known = {name: one if math.isfinite(one) else None for name, one in cubes.items()}
    ends = {"max_x": float(x.max()), "max_y": float(y.max()), "min_y": float(y.min())}
    return known | ends | {"n_hit": int((y > 0).sum()), "n_miss": int((y < x).sum())}


def _level(values: np.ndarray) -> Levelled:
    """Mean and standard error by deviations from the mean: sums of raw squares lose small differences of large values."""
    if (n := len(values)) < 2:
        return float(values[0]) if n else None, None
    deviations = values - values.mean()
    squares = float(deviations @ deviations)
    squares = 0.0 if squares <= 1e-28 * float(values @ values) else squares
    return float(values.mean()), (squares / (n - 1) / n) ** 0.5


def checked_n(sums: RatioSums | MeanSums, name: str) -> int:
    """The users of one variant, once its sums are finite numbers."""
    for field, value in asdict(sums).items():
        if value is None and field in _OPTIONAL:
            continue
        if value is None or not math.isfinite(value):
            raise DesignError(
                f"{name}'s {field} is {value!r}; need a finite number (0 for a group without users)"
            )
    return whole(sums.n, f"{name}'s n")


def ratio_with_se(sums: RatioSums, name: str) -> tuple[float | None, float | None]:
    """The ratio and its standard error; the residuals y - ratio x sum to 0, so raw sums of squares do."""
    n = checked_n(sums, name)
    if sums.sum_x < 0:
        raise DesignError(f"{name}'s requests sum to {sums.sum_x:g}; need 0 or more")
    if sums.sum_x == 0:
        return None, None
    rate = sums.sum_y / sums.sum_x
    squares = square_sum(
        sums.sum_yy - 2 * rate * sums.sum_xy + rate**2 * sums.sum_xx, sums.sum_yy, name
    )
    return rate, (n * squares / (n - 1)) ** 0.5 / sums.sum_x if n > 1 else None


def _mean(sums: MeanSums, name: str) -> tuple[float | None, float | None]:
    n = checked_n(sums, name)
    if n == 0:
        return None, None
    squares = square_sum(sums.sum_yy - sums.sum_y**2 / n, sums.sum_yy, name)
    return sums.sum_y / n, (squares / (n - 1) / n) ** 0.5 if n > 1 else None


def square_sum(squares: float, scale: float, name: str) -> float:
    """A sum of squares that rounding may leave a hair below 0; clearly below, the sums are wrong."""
    if squares < -1e-9 * abs(scale) - 1e-12:
        raise DesignError(
            f"{name}'s sums cannot come from data: a variance is negative; check how they were made"
        )
    return 0.0 if squares < 1e-13 * abs(scale) else squares


def welch(
    old: Levelled, new: Levelled, sizes: tuple[int, int], alpha: float, method: str
) -> MeanTest:
    """Welch's test of two means with their standard errors."""
    parts, df, (n_old, n_new) = [(se or 0.0) ** 2 for _, se in (old, new)], None, sizes
    if min(n_old, n_new) > 1 and sum(parts) > 0:
        df = sum(parts) ** 2 / (parts[0] ** 2 / (n_old - 1) + parts[1] ** 2 / (n_new - 1))
    return MeanTest(
        **_difference(old, new, sizes, alpha, df),
        method=method,
        df=df,
        control_mean=old[0],
        treatment_mean=new[0],
        n_control=n_old,
        n_treatment=n_new,
    )


def _difference(
    old: Levelled, new: Levelled, sizes: tuple[int, int], alpha: float, df: float | None
) -> dict[str, Any]:
    """The fields both tests share, by t with `df` degrees of freedom, or by z when df is None."""
    quantile, (rate_old, se_old), (rate_new, se_new) = _quantile(alpha, df), old, new
    diff = None if rate_old is None or rate_new is None else rate_new - rate_old
    se = None if se_old is None or se_new is None else math.hypot(se_old, se_new)
    low = high = score = p_value = None
    if diff is not None and se:
        low, high, score = diff - quantile * se, diff + quantile * se, diff / se
        p_value = _p(score, df)
    lift, lift_low, lift_high = _log_lift(old, new, quantile)
    return {
        "estimate": diff,
        "n": sum(sizes),
        "ci_low": low,
        "ci_high": high,
        "alpha": alpha,
        "p_value": p_value,
        "notes": _notes(diff, se, lift, min(sizes)),
        "se": se,
        "z_score": score,
        "lift": lift,
        "lift_ci_low": lift_low,
        "lift_ci_high": lift_high,
    }


def _quantile(alpha: float, df: float | None) -> float:
    from scipy.special import stdtrit

    return z_quantile(alpha) if df is None else -float(stdtrit(df, between(alpha, "alpha") / 2))


def _p(score: float, df: float | None) -> float:
    from scipy.special import stdtr

    return two_sided_p(score) if df is None else float(2 * stdtr(df, -abs(score)))


def _log_lift(
    old: Levelled, new: Levelled, quantile: float
) -> tuple[float | None, float | None, float | None]:
    """Relative change; its interval by the delta method on the log of the ratio."""
    (rate_old, se_old), (rate_new, se_new) = old, new
    if rate_old is None or rate_new is None or rate_old <= 0:
        return None, None, None
    lift = rate_new / rate_old - 1
    if rate_new <= 0 or se_old is None or se_new is None:
        return lift, None, None
    half = quantile * math.hypot(se_old / rate_old, se_new / rate_new)
    log_ratio = math.log(rate_new) - math.log(rate_old)
    return lift, math.expm1(min(700.0, log_ratio - half)), math.expm1(min(700.0, log_ratio + half))


def _notes(
    diff: float | None, se: float | None, lift: float | None, smallest: int
) -> tuple[str, ...]:
    if diff is None:
        return ("a group has no users or no requests: the difference is undefined",)
    notes = []
    if se is None:
        notes.append("need at least two users in each group for an interval")
    elif se == 0:
        notes.append("no variance between users: the test is undefined")
    if smallest < FEW_USERS:
        notes.append(f"fewer than {FEW_USERS} users in a group: the interval is approximate")
    if lift is None:
        notes.append("the control value is not above 0: the relative lift is undefined")
    return tuple(notes)
