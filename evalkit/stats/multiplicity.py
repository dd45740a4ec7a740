"""Many at once: many tests, many people held against a rule, and more values of a field than anybody can look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evalkit import wording
from evalkit.errors import DesignError
from evalkit.stats.result import between, whole

MOST_VALUES = 40  # that a field may have to be cut by: more is an id or a text, no kind of example
N_LARGEST = 20  # that are shown of a field with more


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
    tested = np.array([between(p, "a p-value", closed=True) for p in p_values if p is not None])
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

    hits, n, rule = whole(successes, "successes"), whole(n, "n"), between(rule, "rule", closed=True)
    if not n:
        return RuleTest(successes=hits, n=n)
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


def folded(values: Iterable[str], *, keep: Iterable[str] = ()) -> Mapping[str, str]:
    """Each value with the name it is shown under: its own, or "(the rest: 100 values)" beyond the twenty largest.

    Args:
        values: One entry an example.
        keep: Values that stay whatever their size, such as the one that stands for no value; they are not counted.

    Example:
        >>> shown = folded(["a", "a", *map(str, range(100))])
        >>> len(set(shown.values())), shown["a"], shown["99"]
        (21, 'a', '(the rest: 81 values)')
    """
    sizes, kept = Counter(values), set(keep)
    ordered = sorted((one for one in sizes if one not in kept), key=lambda one: (-sizes[one], one))
    own = {one: one for one in sizes}
    if len(ordered) <= MOST_VALUES:
        return own
    rest = ordered[N_LARGEST:]
    return own | dict.fromkeys(rest, f"(the rest: {wording.count(len(rest))} values)")
