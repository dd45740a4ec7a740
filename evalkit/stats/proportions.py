"""Rates of independent units: one, two, several held against a rule; the declared split; and many p-values at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy.special import chdtrc

from evalkit.errors import DesignError
from evalkit.stats import result
from evalkit.stats.result import UNKNOWN, Difference, Limits, Result, Scale, Verdict

TINY = 5.0
CAUSES = (
    "usual causes: a redirect or crash on one side, bots, users logged before they are assigned, "
    "a changed split, joins that lose rows"
)
Groups = Sequence[float] | Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateInterval(Result):
    """One rate with its Wilson interval; nothing is tested."""

    scale: ClassVar[Scale] = "percent"
    successes: int

    def _headline(self) -> str:
        return "Rate"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProportionTest(Difference):
    """Two independent rates; rates and bounds are fractions in [0, 1], `estimate` is `diff`.

    Attributes:
        p_value: Pooled z, two-sided; None when both groups are all successes or all failures.
        p_exact: Fisher's exact p at tiny counts, where the verdict follows it; else None.
        lift: Relative change `treatment_rate / control_rate - 1`; None when the control rate is 0.
        se: Unpooled standard error of the difference.
    """

    unit: ClassVar[str] = "user"
    deciding: ClassVar[tuple[str, ...]] = ("p_exact", "p_value")
    control_rate: float
    treatment_rate: float
    n_control: int
    n_treatment: int
    lift: float | None
    lift_ci_low: float | None
    lift_ci_high: float | None
    z_score: float | None
    se: float
    p_exact: float | None = None

    @property
    def se_null(self) -> float:
        """Standard error of the difference under the common rate, the pooled z-test's."""
        n_old, n_new = self.n_control, self.n_treatment
        pooled = (n_old * self.control_rate + n_new * self.treatment_rate) / self.n
        return (pooled * (1 - pooled) * (1 / n_old + 1 / n_new)) ** 0.5

    @property
    def significant(self) -> bool:
        """The pooled z-test's `p_value < alpha`, in either direction."""
        return self.p_value is not None and self.p_value < self.alpha


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRatioTest(Result):
    """Observed against declared split; `estimate` is the last group's observed minus declared share.

    Attributes:
        statistic: Chi-square; None without users.
    """

    unit: ClassVar[str] = "user"
    statistic: float | None
    observed: tuple[int, ...]
    expected: tuple[float, ...]

    @property
    def verdict(self) -> Verdict:
        """Invalid on alarm."""
        if self.p_value is None:
            return "too early"
        return "invalid" if self.p_value < self.alpha else "no difference shown"

    def _headline(self) -> str:
        alarm, unknown = "Invalid: the split is not the declared one", "Split not known yet"
        words = {"invalid": alarm, "too early": unknown}
        return words.get(self.verdict, "No alarm about the split")


def rate_interval(successes: int, n: int, *, alpha: float = 0.05) -> RateInterval:
    """The rate of one model, with Wilson's interval.

    Source: Wilson 1927; `statsmodels.stats.proportion.proportion_confint(method="wilson")`.

    Raises:
        DesignError: Not counts, or more successes than n.

    Example:
        >>> print(rate_interval(67, 300))
        Rate: 22.3% (95% interval 18.0% to 27.4%, Wilson, n = 300 examples).
    """
    k, n = result.part_of(successes, n, "successes", "n")
    alpha = result.between(alpha, "alpha")
    return RateInterval(
        **result.measured(k / n if n else None, n, wilson(k, n, alpha), alpha=alpha),
        method="Wilson",
        notes=() if n else ("no examples: the rate is undefined",),
        successes=k,
    )


def wilson(k: float, n: float, alpha: float) -> Limits:
    """Wilson limits clipped to [0, 1] and to the rate itself; None, None for 0 of 0."""
    from statsmodels.stats.proportion import proportion_confint

    if n == 0:
        return UNKNOWN
    low, high = np.asarray(proportion_confint(k, n, alpha=alpha, method="wilson")).tolist()
    return min(max(0.0, low), k / n), max(min(1.0, high), k / n)


def proportion_z_test(
    successes_a: int, total_a: int, successes_b: int, total_b: int, *, alpha: float = 0.05
) -> ProportionTest:
    """Two independent groups (a = control, b = treatment): is b's rate different, and by how much?

    Pooled z-test; Newcombe interval of the difference; score interval of the ratio for the lift. Where a group
    expects fewer than 5 of an outcome, Fisher's exact p stands beside it and decides the verdict.

    Source: Newcombe 1998 method 10; Miettinen & Nurminen 1985 (ratio); statsmodels `proportions_ztest` and
    `confint_proportions_2indep`.

    Raises:
        DesignError: A total of 0, or counts that cannot be.

    Example:
        >>> print(proportion_z_test(80, 1000, 110, 1000))
        Better: +3.0 points (95% interval +0.4 to +5.6, p = 0.022, pooled z, n = 2,000 users).
    """
    from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

    k_a, n_a = result.part_of(successes_a, total_a, "successes_a", "total_a")
    k_b, n_b = result.part_of(successes_b, total_b, "successes_b", "total_b")
    if not (n_a and n_b):
        raise DesignError(f"total_a is {n_a} and total_b is {n_b}; need at least 1 in each group")
    alpha = result.between(alpha, "alpha")
    rate_a, rate_b, n = k_a / n_a, k_b / n_b, n_a + n_b
    z_score = p_value = p_exact = None
    if 0 < k_a + k_b < n:
        z_score = float(proportions_ztest([k_b, k_a], [n_b, n_a])[0])
        p_value = result.two_sided_p(z_score)
    pooled = (k_a + k_b) / n
    if is_tiny := min(n_a, n_b) * min(pooled, 1 - pooled) < TINY:
        from scipy.stats import fisher_exact

        p_exact = min(1.0, float(fisher_exact([[k_b, n_b - k_b], [k_a, n_a - k_a]])[1]))  # pyright: ignore[reportArgumentType, reportIndexIssue]
    options = {"compare": "diff", "method": "newcomb", "alpha": alpha}
    ends = confint_proportions_2indep(k_b, n_b, k_a, n_a, **options)
    low, high = np.asarray(ends).tolist()
    lift, (lift_low, lift_high) = _lift(k_a, n_a, k_b, n_b, result.z_quantile(alpha))
    limits = max(-1.0, low), min(1.0, high)
    parts = (p_value is not None and p_value < alpha) != (p_exact is not None and p_exact < alpha)
    notes = {
        "no variance, all successes or all failures: the z-test is undefined": z_score is None,
        "a group expects fewer than 5 of an outcome: Fisher's exact p (p_exact) decides": is_tiny,
        "the verdict differs from `significant`, the z-test's p_value < alpha": is_tiny and parts,
        "the control rate is 0: the lift is undefined": lift is None,
    }
    return ProportionTest(
        **result.measured(rate_b - rate_a, n, limits, alpha=alpha, p_value=p_value),
        method="pooled z" if p_exact is None else "Fisher's exact test",
        notes=result.noted(notes),
        control_rate=rate_a,
        treatment_rate=rate_b,
        n_control=n_a,
        n_treatment=n_b,
        lift=lift,
        lift_ci_low=lift_low,
        lift_ci_high=lift_high,
        z_score=z_score,
        se=(rate_a * (1 - rate_a) / n_a + rate_b * (1 - rate_b) / n_b) ** 0.5,
        p_exact=p_exact,
    )


def sample_ratio_test(
    observed: Sequence[int] | Mapping[str, int],
    expected_shares: Sequence[float] | Mapping[str, float],
    alpha: float = 0.001,
) -> SampleRatioTest:
    """Is the assignment broken? Chi-square of users per group against the declared split.

    Args:
        observed: Users per group (not requests).
        expected_shares: Declared shares, in the same order or under the same names; they sum to 1.
        alpha: Alarm level; small, because it is looked at every day.

    Source: Fabijan et al. 2019; Pearson's chi-square; the exact binomial p where two groups are too small for it.

    Raises:
        DesignError: Shares that are not positive or do not sum to 1, or groups that do not match.

    Example:
        >>> sample_ratio_test([5200, 4800], [0.5, 0.5]).verdict
        'invalid'
    """
    counts, shares = _groups(observed, expected_shares)
    alpha, n = result.between(alpha, "alpha"), sum(counts)
    expected = [share * n for share in shares]
    statistic = p_value = None
    method = "chi-square against the declared split"
    if n:
        pairs = zip(counts, expected, strict=True)
        statistic = sum((count - mean) ** 2 / mean for count, mean in pairs)
        p_value = float(chdtrc(len(counts) - 1, statistic))
    if n and len(counts) == 2 and min(expected) < TINY:
        from scipy.stats import binomtest

        p_value = float(binomtest(counts[-1], n, expected[-1] / n).pvalue)
        method = "exact binomial against the declared split"
    excess = counts[-1] / n - shares[-1] if n else None
    limits = result.moved(wilson(counts[-1], n, alpha), -shares[-1])
    return SampleRatioTest(
        **result.measured(excess, n, limits, alpha=alpha, p_value=p_value),
        method=method,
        notes=("no users yet",) if p_value is None else (CAUSES,) if p_value < alpha else (),
        statistic=statistic,
        observed=tuple(counts),
        expected=tuple(expected),
    )


def _groups(observed: Groups, shares: Groups) -> tuple[list[int], list[float]]:
    if isinstance(observed, Mapping) and isinstance(shares, Mapping) and {*observed} == {*shares}:
        observed, shares = [observed[name] for name in shares], list(shares.values())
    by_name = isinstance(observed, Mapping) or isinstance(shares, Mapping)
    if by_name or len(observed) != len(shares) or len(shares) < 2:
        need = "the same groups, at least two, both as lists or both by the same names"
        raise DesignError(f"observed has {observed}, expected_shares {shares}; need {need}")
    declared = [result.between(share, "a declared share") for share in shares]
    total = sum(declared)
    if abs(total - 1) > 1e-6:
        raise DesignError(f"expected_shares sum to {total:g}; need 1")
    counts = [result.whole(count, "a group's user count") for count in observed]
    return counts, [share / total for share in declared]


def _lift(k_a: int, n_a: int, k_b: int, n_b: int, z: float) -> tuple[float | None, Limits]:
    """Relative change, its limits by root finding: statsmodels' closed form fails at rates of 100%."""

    def score(log_ratio: float) -> float:
        """Miettinen and Nurminen's statistic for `rate_b / rate_a = ratio`, at the constrained rates."""
        ratio = math.exp(log_ratio)
        b = ratio * (n_b + k_a) + k_b + n_a
        square = max(0.0, b * b - 4 * (n_a + n_b) * ratio * (k_a + k_b))
        rate_b = min(1.0, 2 * ratio * (k_a + k_b) / (b + square**0.5))
        rate_a = min(1.0, rate_b / ratio)
        correction = (n_a + n_b) / (n_a + n_b - 1)
        spread = rate_b * (1 - rate_b) / n_b + ratio**2 * rate_a * (1 - rate_a) / n_a
        gap, variance = k_b / n_b - ratio * k_a / n_a, spread * correction
        return gap / variance**0.5 if variance > 0 else math.copysign(1e9, gap) if gap else 0.0

    low = math.expm1(result.root(lambda at: score(at) - z, -40, 40)) if k_b else -1.0
    if k_a == 0:
        return None, (low if k_b else None, None)
    high = math.expm1(result.root(lambda at: score(at) + z, -40, 40))
    return (k_b / n_b) / (k_a / n_a) - 1, (low, high)


# ---- many at once: people held against a rule, and tests of which some would err by chance


def adjust(
    p_values: Sequence[float | None], method: Literal["holm", "bh"] = "holm"
) -> list[float | None]:
    """Adjusted p-values in the given order; an untested entry (None) stays None and does not count.

    Args:
        p_values: Raw p-values in [0, 1], or None.
        method: "holm" keeps the chance of any false alarm (declared slices); "bh" the share of false alarms
            (exploration).

    Source: Holm 1979; Benjamini & Hochberg 1995. (statsmodels' `multipletests` says the same, but sweeps the
    whole memory at every call.)

    Raises:
        DesignError: An unknown method, or a p-value outside [0, 1].

    Example:
        >>> adjust([0.01, None, 0.04])
        [0.02, None, 0.04]
    """
    if method not in ("holm", "bh"):
        raise DesignError(f"method is {method!r}; need 'holm' or 'bh'")
    tested = np.array(
        [result.between(p, "a p-value", closed=True) for p in p_values if p is not None]
    )
    order, m = np.argsort(tested, kind="stable"), len(tested)
    adjusted, ranked = np.empty(m), tested[order]
    if method == "holm":
        adjusted[order] = np.maximum.accumulate(ranked * np.arange(m, 0, -1))
    else:
        adjusted[order[::-1]] = np.minimum.accumulate((ranked * m / np.arange(1, m + 1))[::-1])
    filled = iter(np.minimum(adjusted, 1.0).tolist())
    return [None if p is None else next(filled) for p in p_values]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTest:
    """An exact test of a share against a rule.

    Attributes:
        p_value: Chance of a count so far beyond the rule from somebody who just keeps it.
        p_least: The smallest p that so many trials could give; 1 where there are none.
    """

    successes: int
    n: int
    p_value: float = 1.0
    p_least: float = 1.0

    @property
    def rate(self) -> float | None:
        """Share of successes; None without trials."""
        return self.successes / self.n if self.n else None


def rule_test(
    successes: int,
    n: int,
    rule: float,
    side: Literal["less", "greater", "two-sided"] = "less",
) -> RuleTest:
    """Does a share lie beyond a rule?

    Args:
        successes: Out of `n`.
        n: Trials.
        rule: The share that is still fine, a fraction.
        side: "less" finds shares below the rule, "greater" those above, "two-sided" both.

    Source: exact binomial test, `scipy.stats.binomtest`.

    Raises:
        DesignError: Not counts, or the rule is no fraction.

    Example:
        >>> rule_test(0, 4, 0.7).p_value  # 0.3 ** 4
        0.0081
    """
    from scipy.stats import binomtest

    hits, n, rule = (
        result.whole(successes, "successes"),
        result.whole(n, "n"),
        result.between(rule, "rule", closed=True),
    )
    if not n:
        return RuleTest(successes=hits, n=n)
    ends = {"less": (0,), "greater": (n,), "two-sided": (0, n)}[side]
    counts = (hits, *ends)
    p_value, *least = (float(binomtest(k, n, rule, alternative=side).pvalue) for k in counts)
    return RuleTest(successes=hits, n=n, p_value=round(p_value, 15), p_least=round(min(least), 15))


def less_than_others(successes: int, n: int, others: int, n_others: int) -> RuleTest:
    """Is a share below that of the others? Fisher's exact one-sided test.

    Source: Fisher 1935; the lower tail of `scipy.stats.hypergeom`.

    Example:
        >>> round(less_than_others(1, 10, 9, 10).p_value, 6)
        0.000547
    """
    from scipy.stats import hypergeom

    if not n or not n_others:
        return RuleTest(successes=successes, n=n)
    drawn = hypergeom(n + n_others, successes + others, n)
    fewest = max(0, successes + others - n_others)
    p_value, p_least = float(drawn.cdf(successes)), float(drawn.cdf(fewest))
    return RuleTest(successes=successes, n=n, p_value=p_value, p_least=p_least)


def tarone_level(tests: Iterable[RuleTest], *, alpha: float = 0.05) -> float:
    """The level for each of several exact tests at which all together err in at most `alpha` of families.

    Tests that could never reach a level are not counted against the others, as Bonferroni would.

    Source: Tarone 1990.

    Example:
        >>> tests = [rule_test(0, 4, 0.7), rule_test(1, 2, 0.5)]  # the second can't go below 0.25
        >>> tarone_level(tests)
        0.05
    """
    least = [one.p_least for one in tests]
    families = range(1, len(least) + 2)
    return alpha / next(k for k in families if sum(one <= alpha / k for one in least) <= k)
