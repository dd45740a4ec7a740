"""How many examples, ratings or users an answer costs, and what a given number can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, ndtr, ndtri, xlog1py, xlogy

from evalkit.errors import DesignError
from evalkit.stats.paired import PairedBinaryTest, PairedMeanTest
from evalkit.stats.result import Result, between, root, whole, z_quantile
from evalkit.stats.sequential import crossing_chance, single_look_power
from evalkit.stats.sums import RatioSums, binary_p, ratio_sums, skewed_quantile, skewed_tail

_MANY_EVENTS = 200.0  # from so many in the smaller group the normal approximation has the power to a tenth of a point
_FEWEST = 10.0  # users: what so few need is a matter of the least number planned, not of power
_CLOSE = 0.002  # part of the users to which their number is searched
_COUNTED = 20.0  # below so many, outcomes are counted one by one
_ROUNDING = 1e-12  # what is left where the means of several samples cancel


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSize:
    """Users needed in each group."""

    n_control: int
    n_treatment: int

    @property
    def total(self) -> int:
        """Both groups."""
        return self.n_control + self.n_treatment


def examples_needed(
    p_fixed: float,
    p_regressed: float,
    *,
    margin: float = 0.0,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int:
    """Test examples needed to find this paired difference, or to show that it is no loss of `margin`.

    Args:
        p_fixed: Expected share of examples only the newer model gets right.
        p_regressed: Expected share only the older model gets right.
        margin: Largest acceptable loss, a fraction; 0 asks for the difference itself.
        alpha: Two-sided level.
        power: Chance to find it.

    Source: Connor 1987: `n = ((z_a sqrt(psi) + z_b sqrt(psi - d^2)) / d)^2`, psi = disagreement, d = difference; with a
    margin m Nam 1997, `n = ((z_a sqrt(v) + z_b sqrt(psi - d^2)) / (d + m))^2`, v = Tango's variance at a loss of m.

    Raises:
        DesignError: Shares that are no shares, or equal (no number finds no difference), or that lose the margin.

    Example:
        >>> examples_needed(0.10, 0.05), examples_needed(0.10, 0.10, margin=0.05)
        (469, 644)
    """
    fixed, regressed = _share(p_fixed, "p_fixed"), _share(p_regressed, "p_regressed")
    disagreement, diff = _share(fixed + regressed, "p_fixed + p_regressed"), fixed - regressed
    away = diff + margin if margin else abs(diff)
    if away <= 0:
        wanted = f"no loss of {margin:g}" if margin else "a difference"
        raise DesignError(
            f"p_fixed - p_regressed is {diff:g}; no number of examples shows {wanted}"
        )
    null = _variance_at_loss(fixed, regressed, _share(margin, "margin"))
    alternative = max(0.0, disagreement - diff**2)
    return _up(_needed(null**0.5, alternative**0.5, away, alpha, power))


def detectable_difference(
    n: int, disagreement: float, *, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Smallest paired difference of rates that n examples find, as a fraction; `disagreement` is psi, a share.

    Returns:
        None when not even a gain on every disagreement would be found.

    Source: Connor 1987 (see `examples_needed`), solved for the difference.

    Example:
        >>> round(detectable_difference(300, 0.10), 3)
        0.051
    """
    n, psi = whole(n, "n"), _share(disagreement, "disagreement")
    z_a, z_b = z_quantile(alpha), _z_power(power)
    square = z_a**2 * n * psi - (n + z_b**2) * (z_a**2 - z_b**2) * psi
    if n == 0 or psi == 0 or square < 0:
        return None
    diff = (z_a * (n * psi) ** 0.5 + square**0.5) / (n + z_b**2)
    return diff if diff <= psi else None


def detectable_margin(
    n: int, disagreement: float, *, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Smallest loss that n examples rule out between models truly alike, a fraction; `disagreement` is psi, a share.

    Returns:
        None when not even a loss of everything would be ruled out.

    Source: Nam 1997 (see `examples_needed`), solved for the margin.

    Example:
        >>> round(detectable_margin(644, 0.20), 3)
        0.05
    """
    size, psi = whole(n, "n"), _share(disagreement, "disagreement")
    z_a, z_b = z_quantile(alpha), _z_power(power)

    def spare(margin: float) -> float:
        null = _variance_at_loss(psi / 2, psi / 2, margin)
        return margin * size**0.5 - z_a * max(0.0, null) ** 0.5 - z_b * psi**0.5

    most = 1.0 - 1e-9
    return root(spare, 0.0, most) if psi and spare(most) > 0 else None


def chance_to_find(n: int, disagreement: float, loss: float, *, alpha: float = 0.05) -> float:
    """Chance that McNemar's exact test on n examples shows a true loss (or gain) of this size.

    Args:
        n: Examples.
        disagreement: Share of examples on which exactly one model is right; at least `loss` is taken.
        loss: The true difference, a fraction above 0.
        alpha: Two-sided level.

    Source: the multinomial itself: the number of disagreements is binomial, the losses among them again.

    Example:
        >>> round(chance_to_find(100, 0.2, 0.1), 2), round(chance_to_find(29, 0.2, 0.1), 2)
        (0.54, 0.09)
    """
    from scipy.stats import binom

    examples, size = whole(n, "n"), _share(loss, "loss")
    psi = max(_share(disagreement, "disagreement"), size)
    if psi == 0:
        return 0.0
    decided = np.arange(examples + 1)
    found = _sign_test_powers(decided, (1 + size / psi) / 2, between(alpha, "alpha"))
    return float(binom.pmf(decided, examples, psi) @ found)


def chance_to_find_mean(se: float, loss: float, *, alpha: float = 0.05) -> float:
    """Chance that a mean with this standard error shows a true loss (or gain) of this size, in the same unit.

    Source: the normal distribution; the tail on the other side is left out.

    Example:
        >>> round(chance_to_find_mean(0.05, 0.14), 2)
        0.8
    """
    error = between(se, "se", 0, math.inf)
    return float(ndtr(between(loss, "loss", 0, math.inf) / error - z_quantile(alpha)))


def users_needed(
    p_control: float,
    p_treatment: float,
    treatment_share: float = 0.5,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    design_effect: float = 1.0,
    looks: int = 1,
) -> SampleSize:
    """Users needed in each group to tell these two rates apart by the test that will read them, `ratio_test`.

    Args:
        p_control: Expected rate in control.
        p_treatment: Rate that should be found in treatment.
        treatment_share: Share of users in treatment.
        alpha: Two-sided level.
        power: Chance to find it.
        design_effect: Inflation for users with several requests; see `user_design_effect`.
        looks: How often the effect is read, within O'Brien-Fleming limits.

    Source: Fleiss, Levin & Paik 2003, chapter 4: pooled variance under the null, unequal groups, no continuity correction;
    where a group expects few events, the number at which `users_power` reaches the power.

    Raises:
        DesignError: Rates outside (0, 1) or equal.

    Example:
        >>> users_needed(0.30, 0.35).n_control
        1377
    """
    old, new = _share(p_control, "p_control"), _share(p_treatment, "p_treatment")
    if old == new:
        raise DesignError("p_control equals p_treatment; no number of users finds a difference")
    ratio = _odds(treatment_share)
    pooled = (old + ratio * new) / (1 + ratio)
    null = (pooled * (1 - pooled) * (1 + 1 / ratio)) ** 0.5
    alternative = (old * (1 - old) + new * (1 - new) / ratio) ** 0.5
    once = single_look_power(looks, alpha=alpha, power=power)
    n = _needed(null, alternative, new - old, alpha, once)
    least = n * min(1.0, ratio)
    if least >= _FEWEST and least * min(pooled, 1 - pooled) < _MANY_EVENTS:
        n *= _few_events(n, ratio, (old, new), alpha, once)
    return _sizes(n, ratio, design_effect)


def users_power(
    n_control: float,
    n_treatment: float,
    p_control: float,
    p_treatment: float,
    *,
    alpha: float = 0.05,
    design_effect: float = 1.0,
    looks: int = 1,
) -> float:
    """Chance that `ratio_test` shows these two rates apart with so many users; the arguments are those of `users_needed`.

    Source: Fleiss, Levin & Paik 2003, eq. 4.14, with the skewness of both the null and the difference (Pearson III curves).
    From few events on all outcomes are counted; looks as `crossing_chance`.

    Raises:
        DesignError: No users, or rates outside [0, 1].

    Example:
        >>> round(users_power(1377, 1377, 0.30, 0.35), 3)
        0.8
    """
    inflation = between(design_effect, "design_effect", 0, math.inf)
    sizes = [between(n, "users", 0, math.inf) / inflation for n in (n_control, n_treatment)]
    rates = _share(p_control, "p_control"), _share(p_treatment, "p_treatment")
    once = _chance(sizes, rates, alpha)
    if looks == 1 or not 0 < once < 1:
        return once
    drift = float(ndtri(once)) + z_quantile(alpha) if once > alpha else 0.0
    times = [look / looks for look in range(1, looks + 1)]
    return crossing_chance(times, drift, alpha=alpha)


def users_needed_mean(
    sd: float,
    difference: float,
    treatment_share: float = 0.5,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    design_effect: float = 1.0,
    looks: int = 1,
) -> SampleSize:
    """Users needed in each group to find a difference of per-user means, given in the unit of the standard deviation `sd`.

    The other arguments are those of `users_needed`.

    Source: the two-sample normal formula `(z_a + z_b)^2 sd^2 (1 + 1/r) / d^2`, r = treatment / control.

    Raises:
        DesignError: A difference of 0 or a negative sd.

    Example:
        >>> users_needed_mean(1.0, 0.2).n_control
        393
    """
    if difference == 0:
        raise DesignError("difference is 0; no number of users finds it")
    wanted = between(difference, "difference", -math.inf, math.inf)
    ratio = _odds(treatment_share)
    spread = between(sd, "sd", 0, math.inf) * (1 + 1 / ratio) ** 0.5
    once = single_look_power(looks, alpha=between(alpha, "alpha"), power=power)
    return _sizes(_needed(spread, spread, wanted, alpha, once), ratio, design_effect)


def sign_test_power(n: int, true_win_rate: float, *, alpha: float = 0.05) -> float:
    """Chance that n decided ratings show a true win rate, by the exact sign test.

    Source: the binomial distribution itself.

    Example:
        >>> round(sign_test_power(50, 0.6), 2)
        0.24
    """
    rate = _share(true_win_rate, "true_win_rate")
    return float(_sign_test_powers(whole(n, "n"), rate, between(alpha, "alpha")))


def ratings_needed(
    true_win_rate: float, tie_rate: float = 0.0, *, alpha: float = 0.05, power: float = 0.8
) -> int:
    """Ratings needed to show a true win rate among decided ones, by the exact sign test.

    The power of an exact test rises in a saw-tooth: this is the first number that reaches `power`. A share `tie_rate`
    of the ratings decides nothing.

    Source: exact binomial power, searched around the normal approximation.

    Raises:
        DesignError: A win rate of 0.5, which no number of ratings shows.

    Example:
        >>> ratings_needed(0.6), ratings_needed(0.65), ratings_needed(0.7)
        (199, 90, 49)
    """
    rate, ties = _share(true_win_rate, "true_win_rate"), _share(tie_rate, "tie_rate")
    if rate == 0.5 or ties == 1:
        raise DesignError("a true win rate of 0.5, or ties only, is shown by no number of ratings")
    n = _needed(0.5, 0.5, rate - 0.5, alpha, power)
    candidates = np.arange(1, math.ceil(1.2 * n) + 50)
    decided = int(candidates[_sign_test_powers(candidates, rate, alpha) >= power][0])
    return _up(decided / (1 - ties))


def ratings_needed_no_worse(
    win_rate: float,
    margin: float,
    tie_rate: float = 0.0,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int:
    """Ratings needed to show that a win rate, ties counted half, is not below 50% by the margin or more.

    Args:
        win_rate: Expected, ties counted half.
        margin: Largest loss still accepted, a fraction.
        tie_rate: Share of ratings that decide nothing.
        alpha: Two-sided level.
        power: Chance to show it.

    Source: one-sample normal formula `(z_a + z_b)^2 v / (rate - 1/2 + margin)^2`, v = variance of a score of 0, 1/2 or 1.

    Raises:
        DesignError: A win rate as low as the margin, which no number of ratings shows safe.

    Example:
        >>> ratings_needed_no_worse(0.5, 0.05), ratings_needed_no_worse(0.5, 0.05, 0.4)
        (785, 471)
    """
    rate, ties = _share(win_rate, "win_rate"), _share(tie_rate, "tie_rate")
    away = rate - 0.5 + between(margin, "margin")
    if away <= 1e-12:
        raise DesignError(
            f"a win rate of {rate:g} loses the margin; no number of ratings is enough"
        )
    spread = max(0.0, rate - ties / 4 - rate**2) ** 0.5
    return max(1, _up(_needed(spread, spread, away, alpha, power)))


def user_design_effect(requests: ArrayLike, successes: ArrayLike) -> float | None:
    """How many times more users a rate over requests takes than one with a single request of each user, from users seen before.

    Below 1 where many requests of a user say more than one; above 1 where few heavy users whose requests are alike hold many of
    the requests. None when nothing varies.

    Args:
        requests: One number a user.
        successes: The same users' successes.

    Source: delta method by user (Deng, Knoblich & Lu 2018) over the variance of one request a user, `n se^2 / (r (1 - r))`.

    Raises:
        DesignError: Arrays that do not match, or missing values.

    Example:
        >>> round(user_design_effect([1, 1, 1, 20, 20], [0, 1, 0, 19, 2]), 3)
        1.967
    """
    return user_design_effect_from_sums(ratio_sums(requests, successes, "the log"))


def user_design_effect_from_sums(sums: RatioSums) -> float | None:
    """`user_design_effect` from a few sums, as a database makes them."""
    rate, se = sums.rate("the log")
    if not se or rate is None or not 0 < rate < 1:
        return None
    return sums.n * se**2 / (rate * (1 - rate))


def days_needed(users: int, users_per_day: float, *, outcome_window_days: int = 0) -> int:
    """Days until so many users were seen and their outcome window has closed, in whole weeks, at least one.

    Raises:
        DesignError: No traffic.

    Example:
        >>> days_needed(2754, 200), days_needed(100, 200)
        (14, 7)
    """
    traffic = between(users_per_day, "users_per_day", 0, math.inf)
    days = math.ceil(whole(users, "users") / traffic)
    days += whole(outcome_window_days, "outcome_window_days")
    return 7 * max(1, math.ceil(days / 7))


def _sign_test_powers(n: ArrayLike, rate: float, alpha: float) -> np.ndarray:
    """Chance of at most k or at least n - k wins, k the largest count still significant; for one n or many."""
    from scipy.stats import binom

    limit = binom.ppf(alpha / 2, n, 0.5)
    limit = limit - (2 * binom.cdf(limit, n, 0.5) > alpha)
    return binom.cdf(limit, n, rate) + binom.sf(n - limit - 1, n, rate)


@lru_cache(maxsize=256)
def _few_events(
    n: float, ratio: float, rates: tuple[float, float], alpha: float, power: float
) -> float:
    """How many times n the test needs with few events; its power rises in a fine saw-tooth, so any crossing will do."""

    def missing(log_factor: float) -> float:
        size = n * math.exp(log_factor)
        return _chance([size, size * ratio], rates, alpha) - power

    low = high = 0.0
    while missing(low) > 0:
        low -= 0.1
    while missing(high) < 0:
        high += 0.1
    while high - low > _CLOSE:
        middle = (low + high) / 2
        low, high = (middle, high) if missing(middle) < 0 else (low, middle)
    return math.exp(high)


def _chance(sizes: Sequence[float], rates: Sequence[float], alpha: float) -> float:
    """Chance that one look shows the difference, in either direction."""
    (n_old, n_new), (old, new) = sizes, rates
    pooled = (n_old * old + n_new * new) / (n_old + n_new)
    rarer = min(pooled, 1 - pooled)
    if rarer <= 0:
        return 0.0
    spread = (n_old * old * (1 - old)) ** 0.5 * (n_new * new * (1 - new)) ** 0.5
    if min(sizes) * rarer < _COUNTED and spread < 2e3:
        return _counted_chance([round(n) for n in sizes], rates, alpha)
    return min(1.0, sum(_side_chance(sizes, rates, alpha, side) for side in (1, -1)))


def _side_chance(sizes: Sequence[float], rates: Sequence[float], alpha: float, side: int) -> float:
    """One direction: the difference less its limit is near to a sum of two binomials, read with its skewness."""
    (n_old, n_new), (old, new), n = sizes, rates, sum(sizes)
    pooled = (n_old * old + n_new * new) / n
    at_once = pooled * (1 - pooled)
    se = (at_once * (1 / n_old + 1 / n_new)) ** 0.5
    skew = (n_old - n_new) * (1 - 2 * pooled) / (n_old * n_new * n * at_once) ** 0.5
    limit = skewed_quantile(alpha / 2, side * skew)
    slope = limit * se * (1 - 2 * pooled) / (2 * at_once) / n  # it moves with the pooled rate
    if min(sizes) * min(pooled, 1 - pooled) >= _MANY_EVENTS:
        slope = 0.0  # hardly any more, and Fleiss has it without
    arms = ((side / n_new - slope, n_new, new), (-side / n_old - slope, n_old, old))
    variance = max(sum(f**2 * (n * p * (1 - p)) for f, n, p in arms), 1e-300)
    third = sum(f**3 * (n * p * (1 - p) * (1 - 2 * p)) for f, n, p in arms)
    away = (limit * se - side * (new - old)) / variance**0.5
    return float(skewed_tail(away, third / variance**1.5))


def _counted_chance(sizes: Sequence[int], rates: Sequence[float], alpha: float) -> float:
    """Summed over all counts that can come out."""
    counts, chances = [], []
    for n, p in zip(sizes, rates, strict=True):
        reach = 5 * (n * p * (1 - p)) ** 0.5 + 5
        k = np.arange(max(0, math.floor(n * p - reach)), min(n, math.ceil(n * p + reach)) + 1)
        log_mass = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
        counts.append(k)
        chances.append(np.exp(log_mass + xlogy(k, p) + xlog1py(n - k, -p)))
    old, new = np.meshgrid(*counts, indexing="ij")
    shown = binary_p(old, sizes[0], new, sizes[1]) < alpha
    return float(chances[0] @ shown @ chances[1])


def _variance_at_loss(fixed: float, regressed: float, margin: float) -> float:
    """Variance of one example's difference, at the rates likeliest when the true difference is a loss of `margin`.

    Source: Tango 1998; Nam 1997.
    """
    linear = fixed + regressed + (2 - fixed + regressed) * margin
    rate = (linear + max(0.0, linear**2 - 8 * regressed * margin * (1 + margin)) ** 0.5) / 4
    return 2 * rate - margin * (1 + margin)


def _share(value: float, name: str) -> float:
    return between(value, name, closed=True)


def _needed(null: float, alternative: float, away: float, alpha: float, power: float) -> float:
    """Units at which a mean this far away is found, of the deviations that one unit has if it is there or is not."""
    return ((z_quantile(alpha) * null + _z_power(power) * alternative) / away) ** 2


def _z_power(power: float) -> float:
    return float(ndtri(between(power, "power")))


def _odds(treatment_share: float) -> float:
    share = between(treatment_share, "treatment_share")
    return share / (1 - share)


def _up(n: float) -> int:
    return math.ceil(round(n, 9))


def _sizes(n_control: float, ratio: float, inflation: float) -> SampleSize:
    n = n_control * between(inflation, "design_effect", 0, math.inf)
    return SampleSize(n_control=_up(n), n_treatment=_up(n * ratio))


def examples_to_settle(
    test: Result, *, margin: float = 0.0, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Examples in all that would show a difference of the size seen, at the disagreement (or spread) seen.

    With a margin: that would show that it is no loss of so much.
    None when no difference (or the loss of the margin) was seen, or no spread to size it by.
    """
    turn = -1 if test.lower_is_better else 1
    seen = test.estimate or 0.0
    away = turn * seen + margin if margin else abs(seen)
    if test.estimate is None or not test.n or away < _ROUNDING:
        return None
    if isinstance(test, PairedBinaryTest):
        fixed, regressed = (test.fixed / test.n, test.regressed / test.n)[::turn]
        needed = examples_needed(fixed, regressed, margin=margin, alpha=alpha, power=power)
    elif isinstance(test, PairedMeanTest) and test.se:
        # Two arms carry twice the variance of one paired difference, so a pair needs half of one arm.
        spread = test.se * test.n**0.5
        arm = users_needed_mean(spread, away, alpha=alpha, power=power).n_control
        needed = -(-arm // 2)
    else:
        return None
    return max(needed, test.n + 1)
