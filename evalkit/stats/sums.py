"""A few sums over a variant's users: all that a database has to hand over, and all that they say.

First the levels with their errors. Then what a difference of two variants would be if nothing differed, and the p of one that
was seen: a standard error made of each variant's own outcomes is small just where a variant had few events, so that its
difference looks large just then; the test takes the spread both variants share under the null, the interval keeps each
variant's own. Last what stands against a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammainc, gammaincc, gammainccinv, gammaincinv, gammaln, ndtr, ndtri

from evalkit.errors import DesignError
from evalkit.stats.result import numbers, whole

Level = tuple[float | None, float | None]  # a rate or mean, and its standard error
Moments = tuple[float, float]  # sums of squares and of cubes
Told = tuple[tuple[str, ...], str]  # notes, and why there can be no verdict; "" when there can

FEW_EVENTS = 5.0  # users with an event that a variant expects: below, the exact test decides
_RARE = "a variant expects fewer than 5 users with an event, or without one"
FEW = {
    "": (),
    "exact": (f"{_RARE}: Fisher's exact test on users decides (p_exact)",),
    "unknown": (f"{_RARE}: no p without counts of such users (n_hit, n_miss)",),
}
_OWN_FROM = 100.0  # from so many in each variant its own clustering is known well enough
_NORMAL_BELOW = 1e-3  # skewness
LARGE, DOMINATING = 0.1, 1 / 3  # shares of a variant's requests, or of its sum, that one user holds
_FEWEST = 5.0  # of so few users each is a large share
KOHAVI = 355.0
LEANING = 0.2  # skewness of a difference from which its test rejects a true null clearly too often
REMEDY = "declare a cap_per_user in the plan, run longer, or split the traffic equally"


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

    def rate(self, name: str) -> Level:
        """The ratio and its standard error; the residuals y - ratio x sum to 0, so raw sums of squares do.

        Source: Deng, Knoblich & Lu 2018, delta method, with n - 1 variances.

        Raises:
            DesignError: Sums that no data can have.
        """
        n = checked_n(self, name)
        if self.sum_x < 0:
            raise DesignError(f"{name}'s requests sum to {self.sum_x:g}; need 0 or more")
        if self.sum_x == 0:
            return None, None
        rate = self.sum_y / self.sum_x
        squares = square_sum(self.squares(rate), self.sum_yy, name)
        return rate, (n * squares / (n - 1)) ** 0.5 / self.sum_x if n > 1 else None

    def squares(self, ratio: float) -> float:
        """Sum over the users of (y - ratio x)^2; rounding may leave it below 0."""
        return self.sum_yy - 2 * ratio * self.sum_xy + ratio**2 * self.sum_xx

    def cubes(self, ratio: float) -> float | None:
        """Sum of (y - ratio x)^3; None without the third powers."""
        xxx, xxy, xyy, yyy = self.sum_xxx, self.sum_xxy, self.sum_xyy, self.sum_yyy
        if xxx is None or xxy is None or xyy is None or yyy is None:
            return None
        return yyy - ratio**3 * xxx - 3 * ratio * (xyy - ratio * xxy)

    def moments(self, ratio: float) -> Moments | None:
        """Sums of squares and cubes of y - ratio x; None without the third powers."""
        cubes = self.cubes(ratio)
        return None if cubes is None else (max(0.0, self.squares(ratio)), cubes)

    def tails(self, slope: float) -> Moments | None:
        """The same of y - slope x about its mean."""
        total = self.sum_y - slope * self.sum_x
        return central(self.n, total, self.squares(slope), self.cubes(slope))

    def centred(self, name: str) -> tuple[float, float, float]:
        """Sums of squares and products of x and x, x and y, y and y about their means.

        Raises:
            DesignError: Sums that no data can have.
        """
        n = max(checked_n(self, name), 1)
        xx = square_sum(self.sum_xx - self.sum_x**2 / n, self.sum_xx, name)
        yy = square_sum(self.sum_yy - self.sum_y**2 / n, self.sum_yy, name)
        return xx, self.sum_xy - self.sum_x * self.sum_y / n, yy

    def is_part(self) -> bool:
        """Whether y can be a part of x for every user: then y^2 <= x y <= x^2 in the sums too."""
        slack = 1e-9 * abs(self.sum_xx)
        return (
            -slack <= self.sum_y <= self.sum_x + slack
            and self.sum_yy <= self.sum_xy + slack
            and self.sum_xy <= self.sum_xx + slack
        )

    def varies(self) -> bool:
        """Whether there is a success, and a request without one."""
        return 0 < self.sum_y < self.sum_x


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanSums:
    """All that is needed of one variant for a per-user mean; the rest is looked at where it is there."""

    n: int
    sum_y: float
    sum_yy: float
    sum_yyy: float | None = None
    max_y: float | None = None
    min_y: float | None = None

    def mean(self, name: str) -> Level:
        """The mean and its standard error.

        Raises:
            DesignError: Sums that no data can have.
        """
        n = checked_n(self, name)
        if n == 0:
            return None, None
        squares = square_sum(self.sum_yy - self.sum_y**2 / n, self.sum_yy, name)
        return self.sum_y / n, (squares / (n - 1) / n) ** 0.5 if n > 1 else None

    def tails(self) -> Moments | None:
        """Sums of squares and cubes about the mean."""
        return central(self.n, self.sum_y, self.sum_yy, self.sum_yyy)


def ratio_sums(x: ArrayLike, y: ArrayLike, name: str = "the group") -> RatioSums:
    """The sums of one variant from two arrays, one entry a user; None for third powers that overflow.

    Raises:
        DesignError: Arrays that do not match, or missing values.
    """
    x, y = numbers(x, f"{name}'s x"), numbers(y, f"{name}'s y")
    if len(x) != len(y):
        told = f"x for {len(x)} users and y for {len(y)}"
        raise DesignError(f"{name} has {told}; need both for each user")
    xx, yy = x * x, y * y
    sums = {"sum_x": x.sum(), "sum_y": y.sum(), "sum_xx": x @ x, "sum_xy": x @ y, "sum_yy": y @ y}
    with np.errstate(over="ignore", invalid="ignore"):
        thirds = {"sum_xxx": x @ xx, "sum_xxy": y @ xx, "sum_xyy": x @ yy, "sum_yyy": y @ yy}
    if len(x):
        sums |= {name: one for name, one in thirds.items() if np.isfinite(one)}
        sums |= {"max_x": x.max(), "max_y": y.max(), "min_y": y.min()}
        sums |= {"n_hit": (y > 0).sum(), "n_miss": (y < x).sum()}
    return RatioSums(n=len(x), **{name: one.item() for name, one in sums.items()})


def of_metric(sums: RatioSums) -> MeanSums:
    """The sums of y alone."""
    return MeanSums(**{one.name: getattr(sums, one.name) for one in fields(MeanSums)})


def checked_n(sums: RatioSums | MeanSums, name: str) -> int:
    """The users of one variant, once its sums are finite numbers."""
    for field in fields(sums):
        value, is_optional = getattr(sums, field.name), field.default is None
        if not (value is None and is_optional) and (value is None or not math.isfinite(value)):
            raise DesignError(f"{name}'s {field.name} is {value!r}; need a finite number")
    return whole(sums.n, f"{name}'s n")


def square_sum(squares: float, scale: float, name: str) -> float:
    """A sum of squares that rounding may leave a hair below 0; clearly below, the sums are wrong."""
    if squares < -1e-9 * abs(scale) - 1e-12:
        raise DesignError(f"{name}'s sums cannot come from data: a variance is negative")
    return 0.0 if squares < 1e-13 * abs(scale) else squares


def central(n: int, total: float, squares: float, cubes: float | None) -> Moments | None:
    """Sums of squares and cubes about the mean; None where they are not known or rounding has eaten them."""
    mean = total / n if n else 0.0
    second = squares - n * mean**2
    if cubes is None or second <= 1e-6 * abs(squares):
        return None
    return second, cubes - 3 * mean * squares + 2 * n * mean**3


# ---- the difference if nothing differed


@dataclass(frozen=True, slots=True, kw_only=True)
class Null:
    """A difference of two variants if nothing differed.

    Attributes:
        se: Its standard error; None when no outcome varies.
        skew: Its skewness.
        n: Users of control and treatment.
        expected: Independent events that the poorer variant expects; None where events are no matter of counts.
        hits: Users with an event, control and treatment; None when the sums do not say.
        misses: Users with a request without one.
    """

    se: float | None
    skew: float = 0.0
    n: tuple[int, int]
    expected: float | None = None
    hits: tuple[int, int] | None = None
    misses: tuple[int, int] | None = None


def null_of(control: RatioSums, treatment: RatioSums) -> Null:
    """The null of a difference of ratios, from the sums of both variants.

    Every user's residual y - r x is taken about the common ratio r. Where y is a part of x (a rate) the variance of a variant
    is r (1 - r) times its clustering over its requests; the clustering is the variant's own where it has many events, else
    that of both together. Elsewhere it is the variant's own sum of squares about the common ratio.

    Source: a score test; clustering as Rao & Scott 1992; the skewness is that of the residuals under random assignment.
    """
    both, n = (control, treatment), (control.n, treatment.n)
    x, y = control.sum_x + treatment.sum_x, control.sum_y + treatment.sum_y
    if not (control.sum_x > 0 and treatment.sum_x > 0 and min(n) > 1):
        return Null(se=None, n=n)
    ratio = y / x
    squares = [max(0.0, one.squares(ratio)) for one in both]
    total = sum(squares)
    if total <= 1e-12 * (abs(control.sum_yy) + abs(treatment.sum_yy)):
        return Null(se=None, n=n)
    if not all(one.is_part() for one in both):
        own = zip(both, squares, strict=True)
        variance = sum(one.n / (one.n - 1) * square / one.sum_x**2 for one, square in own)
        return Null(se=variance**0.5, n=n)
    expected = _expected(both)
    each = [total * sum(n) / (sum(n) - 1) / x] * 2
    if expected >= _OWN_FROM and all(one.varies() for one in both):
        each = [_own_clustering(one) * ratio * (1 - ratio) for one in both]
    variance = sum(one / arm.sum_x for one, arm in zip(each, both, strict=True))
    return Null(
        se=variance**0.5,
        skew=_skew(both, ratio, total),
        n=n,
        expected=expected,
        hits=_counted(both, "n_hit"),
        misses=_counted(both, "n_miss"),
    )


def p_under(nulls: Sequence[Null], diff: float, se: float) -> tuple[float | None, str]:
    """Two-sided p of a difference, and what it comes from: "" (the score test), "exact", or "unknown" without the counts.

    Args:
        nulls: One a phase.
        diff: The difference, phases combined by the inverse square of `Null.se`.
        se: Its standard error under the null.
    """
    counted = [one.expected for one in nulls if one.expected is not None]
    if counted and sum(counted) < FEW_EVENTS:
        p_value = exact_p(nulls)
        return p_value, "unknown" if p_value is None else "exact"
    known = [(one.skew, one.se) for one in nulls if one.se]
    cubes = sum(skew / own**3 for skew, own in known)
    skew = cubes / sum(own**-2 for _, own in known) ** 1.5
    return float(skewed_p(diff / se, skew)), ""


def skewed_p(z_score: ArrayLike, skew: ArrayLike) -> np.ndarray:
    """Two-sided p of a standardised difference with this skewness: twice the tail on its side; for one or many.

    Source: Mielke & Berry 2007, permutation tests by their first three moments (Pearson III curves).
    """
    lean = np.where(np.signbit(z_score), -np.asarray(skew), skew)
    return np.clip(2 * skewed_tail(np.abs(z_score), lean), 1e-300, 1.0)


def skewed_tail(value: ArrayLike, skew: ArrayLike) -> np.ndarray:
    """Chance that a standardised Pearson III variable of this skewness exceeds a value; for one or many."""
    at, skew = np.asarray(value, float), np.asarray(skew, float)
    straight = np.abs(skew) < _NORMAL_BELOW
    lean = np.where(straight, 1.0, skew)
    shape = 4 / lean**2
    far = np.maximum(shape + np.copysign(1.0, lean) * at * shape**0.5, 0.0)
    leaning = np.where(lean > 0, gammaincc(shape, far), gammainc(shape, far))
    # Cramér 1946, section 17.6: the first term of the skewness, enough where it is as good as none
    lift = np.where(np.abs(at) < 6, skew / 6 * (at**2 - 1) * np.exp(-(at**2) / 2) / 2.5066283, 0.0)
    return np.where(straight, ndtr(-at) + lift, leaning)


def binary_p(k_old: ArrayLike, n_old: int, k_new: ArrayLike, n_new: int) -> np.ndarray:
    """The p of `ratio_test` for users with one request each, from arrays of successes; 1 where nothing varies.

    Source: as `null_of`, `skewed_p` and `exact_p`, all outcomes at once; for power, and for simulations.
    """
    old, new = np.broadcast_arrays(np.asarray(k_old, float), np.asarray(k_new, float))
    n, events = n_old + n_new, old + new
    rate = events / n
    spread = rate * (1 - rate)
    varies = spread > 0
    safe = np.where(varies, spread, 1.0)
    se = (safe * n / (n - 1) * (1 / n_old + 1 / n_new)) ** 0.5
    skew = (n_old - n_new) / (n_old * n_new) ** 0.5 * (1 - 2 * rate) / (n * safe) ** 0.5
    p_value = np.where(varies, skewed_p((new / n_new - old / n_old) / se, skew), 1.0)
    few = varies & (np.minimum(events, n - events) * min(n_old, n_new) / n < FEW_EVENTS)
    for total in np.unique(events[few]):
        here = few & (events == total)
        chances, low = _split_chances([(n_old, n_new)], [int(total)], 1)
        p_value[here] = _at_most(chances)[new[here].astype(int) - low]
    return p_value


def skewed_quantile(tail: float, skew: float) -> float:
    """The value that a standardised Pearson III variable of this skewness exceeds with this chance."""
    if abs(skew) < _NORMAL_BELOW:
        return -float(ndtri(tail))
    shape = 4 / skew**2
    reached = gammainccinv(shape, tail) if skew > 0 else gammaincinv(shape, tail)
    return math.copysign((float(reached) - shape) / shape**0.5, skew * (float(reached) - shape))


def exact_p(nulls: Sequence[Null]) -> float | None:
    """Fisher's exact p on users, the user being what was assigned: users with the rarer outcome, phases kept apart.

    Source: Fisher 1935; over phases the exact conditional test of Zelen 1971.
    """
    if any(one.hits is None or one.misses is None for one in nulls):
        return None
    hits, misses = ([getattr(one, name) for one in nulls] for name in ("hits", "misses"))
    rare = hits if sum(map(sum, hits)) <= sum(map(sum, misses)) else misses
    users, seen = [one.n for one in nulls], [sum(one) for one in zip(*rare, strict=True)]
    sizes = [(sum(n), k) for n, k in zip(zip(*users, strict=True), seen, strict=True)]
    arm = int(sizes[1] < sizes[0])  # whichever is called treatment, the same p to the last digit
    chances, low = _split_chances(users, [sum(one) for one in rare], arm)
    return float(_at_most(chances)[seen[arm] - low])


def _split_chances(
    users: Sequence[tuple[int, int]], events: Sequence[int], arm: int
) -> tuple[np.ndarray, int]:
    """Chances of how many users with the event fall to one variant, from the lowest number on; phases are kept apart."""
    chances, lowest = np.ones(1), 0
    for n, total in zip(users, events, strict=True):
        low, high = max(0, total - n[1 - arm]), min(total, n[arm])
        k = np.arange(low, high + 1)
        log_mass = _log_choose(n[arm], k) + _log_choose(n[1 - arm], total - k)
        mass = np.exp(log_mass - _log_choose(sum(n), total))
        chances, lowest = np.convolve(chances, mass), lowest + low
    return chances, lowest


def _log_choose(n: int, k: np.ndarray | int) -> np.ndarray:
    """Of scipy.stats, which loads for a second, a plan should have no need."""
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def _at_most(chances: np.ndarray) -> np.ndarray:
    """Fisher's two-sided p of each outcome: the chance of all that are no likelier."""
    order = np.argsort(chances, kind="stable")
    so_far, ranked = np.cumsum(chances[order]), chances[order]
    last = np.searchsorted(ranked, chances * (1 + 1e-7), side="right") - 1
    return np.where(so_far[last] < 1 - 1e-7, so_far[last], 1.0)


def _skew(both: Sequence[RatioSums], ratio: float, total: float) -> float:
    """Skewness of the difference when users fall to treatment by chance p: (q - p) / sqrt(pq) sum e^3 / (sum e^2)^1.5."""
    thirds = [one.cubes(ratio) for one in both]
    if None in thirds:
        return 0.0
    n_old, n_new = (one.n for one in both)
    cubes = sum(one or 0.0 for one in thirds)
    return (n_old - n_new) / (n_old * n_new) ** 0.5 * cubes / total**1.5


def _expected(both: Sequence[RatioSums]) -> float:
    """Events, or their absence, that the smaller variant expects: (sum y)^2 / sum y^2 users' worth, by its share of users."""
    names = ("sum_x", "sum_y", "sum_xx", "sum_xy", "sum_yy")
    x, y, xx, xy, yy = (sum(getattr(one, name) for one in both) for name in names)
    without = xx - 2 * xy + yy
    worth = min(y**2 / yy if yy > 0 else 0.0, (x - y) ** 2 / without if without > 0 else 0.0)
    return worth * min(one.n for one in both) / sum(one.n for one in both)


def _own_clustering(one: RatioSums) -> float:
    """Variance by user over variance by request."""
    rate = one.sum_y / one.sum_x
    return one.n / (one.n - 1) * max(0.0, one.squares(rate)) / (rate * (1 - rate) * one.sum_x)


def _counted(both: Sequence[RatioSums], name: str) -> tuple[int, int] | None:
    """Users with the outcome; sums of users with one request each, right or wrong, say it themselves."""
    counts = [getattr(one, name) for one in both]
    for place, one in enumerate(both):
        if counts[place] is None and one.sum_xx == one.sum_x == one.n and one.sum_yy == one.sum_y:
            counts[place] = one.sum_y if name == "n_hit" else one.n - one.sum_y
    return None if None in counts else (round(counts[0]), round(counts[1]))


# ---- what stands against a verdict: one user who outweighs the rest, heavy tails


def burdens(
    both: Sequence[RatioSums | MeanSums],
    moments: Sequence[Moments | None] = (),
    *,
    rate: bool = False,
) -> Told:
    """What stands against a verdict, the notes with the reason: one user, else tails where moments are given."""
    notes, refused = one_user(dict(zip(("control", "treatment"), both, strict=True)), rate=rate)
    if moments and not refused:
        more, refused = heavy(moments, [one.n for one in both])
        notes += more
    return (*notes, f"no verdict: {refused}") if refused else notes, refused


def one_user(arms: Mapping[str, MeanSums | RatioSums], *, rate: bool = False) -> Told:
    """Notes, and why there can be no verdict: the largest user's share of each variant.

    Of a rate only the requests are looked at: few events are a matter of the exact test.
    """
    notes, refused = [], ""
    for name, sums in arms.items():
        shares = {}
        if isinstance(sums, RatioSums) and sums.max_x is not None and sums.sum_x > 0:
            shares["requests"] = sums.max_x / sums.sum_x
        largest, least = sums.max_y, sums.min_y
        if not (rate or largest is None or least is None) and least >= 0 and sums.sum_y > 0:
            shares["sum"] = largest / sums.sum_y
        for what, share in shares.items():
            said = f"one user holds {100 * share:.0f}% of {name}'s {what}"
            if share > max(DOMINATING, _FEWEST / sums.n):
                why = f"{said}: the difference is that user's, not the variant's"
                refused = refused or f"{why}; look at who it is (a bot?), or {REMEDY}"
            elif share > max(LARGE, _FEWEST / sums.n):
                notes.append(f"{said}: the interval leans on that user")
    return tuple(notes), refused


def heavy(moments: Sequence[Moments | None], sizes: Sequence[int]) -> Told:
    """Notes, and why there can be no verdict: skewness of a user's value against the number of users.

    Args:
        moments: Sums of squares and cubes about the middle, of each variant; None where they are not known.
        sizes: Users of each.

    Source: Kohavi, Deng, Longbotham & Xu 2014: a mean is near enough to normal from 355 skewness^2 users. The difference of two
    variants leans less, and not at all at an equal split: past a skewness of its own of 0.2 there is no verdict.
    """
    known = [one for one in moments if one]
    squares, cubes = (sum(one[at] for one in known) for at in (0, 1))
    if len(known) < len(moments) or min(sizes) < 2 or squares <= 0:
        return (), ""
    skew, least = cubes / squares**1.5 * sum(sizes) ** 0.5, min(sizes)
    needed = KOHAVI * skew**2
    said = (
        f"heavy tails: single users' values have a skewness of {skew:.3g}, and {least:,} users in the smaller variant are "
        f"fewer than the {needed:,.0f} of the usual rule"
    )
    if least >= needed:
        return (), ""
    if abs(lean_of_difference(skew, sizes)) <= LEANING:
        return (said,), ""
    return (
        (),
        f"{said}: at an unequal split a test would name winners where there are none; {REMEDY}",
    )


def lean_of_difference(skew: float, sizes: Sequence[int]) -> float:
    """Skewness of the difference of two means of so many values of this skewness; 0 at an equal split."""
    old, new = sizes
    return skew * (old - new) / (old * new * (old + new)) ** 0.5
