"""Is somebody beyond a rule, and how sure is that? Exact one-sided tests, and the level for many of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from evalkit.stats.result import between, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTest:
    """An exact test of a share against a rule.

    Attributes:
        p_value: Chance of a count so far beyond the rule from somebody who just keeps it.
        p_least: The smallest p that so many trials could give; 1 where there are none.
    """

    successes: int
    n: int
    p_value: float
    p_least: float

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

    hits, n, rule = whole(successes, "successes"), whole(n, "n"), between(rule, "rule", closed=True)
    if not n:
        return RuleTest(successes=hits, n=n, p_value=1.0, p_least=1.0)
    ends = {"less": (0,), "greater": (n,), "two-sided": (0, n)}[side]
    p_value, *least = (
        float(binomtest(count, n, rule, alternative=side).pvalue) for count in (hits, *ends)
    )
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
        return RuleTest(successes=successes, n=n, p_value=1.0, p_least=1.0)
    drawn = hypergeom(n + n_others, successes + others, n)
    fewest = max(0, successes + others - n_others)
    return RuleTest(
        successes=successes,
        n=n,
        p_value=float(drawn.cdf(successes)),
        p_least=float(drawn.cdf(fewest)),
    )


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
    counted = next(
        k for k in range(1, len(least) + 2) if sum(one <= alpha / k for one in least) <= k
    )
    return alpha / counted
