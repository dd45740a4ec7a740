"""Two models on the same examples: the difference is measured inside each example."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from evalkit import wording
from evalkit.errors import DesignError
from evalkit.files import JsonObject
from evalkit.stats.result import (
    UNKNOWN,
    Difference,
    Limits,
    Scale,
    between,
    codes_of,
    measured,
    noted,
    numbers,
    root,
    whole,
    z_quantile,
)

FEW_PAIRS = 10
FEW_CLUSTERS = 20
# below it every sign flip of the units is counted; above it t agrees with that count
FEW_MOVED = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest(Difference):
    """Both models on the same examples.

    Attributes:
        p_compared: p after the correction for several models compared with one base; where it is given it decides.
    """

    deciding: ClassVar[tuple[str, ...]] = ("p_compared", "p_value")
    p_compared: float | None = None

    def to_dict(self) -> JsonObject:
        """As any result; `p_compared` only where several models were compared."""
        found = Difference.to_dict(self)
        return {k: v for k, v in found.items() if k != "p_compared" or v is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedBinaryTest(PairedTest):
    """Right or wrong, both models on the same examples; `diff` is `fine_tuned_rate - base_rate`,
    which is `(fixed - regressed) / n`, a fraction.

    Attributes:
        p_value: McNemar mid-p, which decides the verdict.
        p_exact: McNemar exact p.
        fixed: Examples only the newer model got right.
        regressed: Examples only the older model got right.
    """

    both_right: int
    fixed: int
    regressed: int
    both_wrong: int
    p_exact: float | None

    @property
    def base_rate(self) -> float | None:
        """Share the older model got right."""
        return (self.both_right + self.regressed) / self.n if self.n else None

    @property
    def fine_tuned_rate(self) -> float | None:
        """Share the newer model got right."""
        return (self.both_right + self.fixed) / self.n if self.n else None

    @property
    def disagreement(self) -> float | None:
        """Share of examples on which exactly one model is right."""
        return (self.fixed + self.regressed) / self.n if self.n else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedMeanTest(PairedTest):
    """Mean of per-example differences of a numeric score.

    Attributes:
        p_value: Of t; of the exact test where nothing varies and t is undefined.
        p_exact: Exact sign-flip p over the examples (or clusters), where fewer than `FEW_MOVED` of them moved or all
            moved alike: there it decides. Else None, and t decides.
        se: Standard error, cluster-robust when clusters are declared.
        df: Degrees of freedom of t: `n - 1`, or clusters - 1.
        n_clusters: Distinct clusters, None when each example stands alone.
        shown_as: Points where the score is right or wrong, averaged over samples or tested by clusters.
    """

    scale: ClassVar[Scale] = "number"
    deciding: ClassVar[tuple[str, ...]] = ("p_compared", "p_exact", "p_value")
    se: float | None
    df: int
    t_score: float | None
    n_clusters: int | None = None
    p_exact: float | None = None
    shown_as: Scale = field(default="number", compare=False)


def paired_binary_test(
    both_right: int, fixed: int, regressed: int, both_wrong: int, *, alpha: float = 0.05
) -> PairedBinaryTest:
    """Is the fine-tuned model more often right, and by how much?

    McNemar's mid-p test with Tango's score interval. Examples both models get right (or wrong) leave p unchanged.

    Source: Fagerland, Lydersen & Laake 2013 (mid-p); Tango 1998 (interval).

    Raises:
        DesignError: Not counts.

    Example:
        >>> print(paired_binary_test(61, 38, 6, 195))
        Better: +10.7 points (95% interval +6.7 to +15.2, p < 0.0001, McNemar mid-p, n = 300 examples).
    """
    both = whole(both_right, "both_right")
    b, c = whole(fixed, "fixed"), whole(regressed, "regressed")
    neither = whole(both_wrong, "both_wrong")
    n = both + b + c + neither
    mid_p, exact = mcnemar(b, c) if n else (None, None)
    few, moved = 0 < b + c < FEW_PAIRS, wording.plural(b + c, "example")
    notes = {
        "no examples: nothing to compare": not n,
        "the models are never right on different examples: p is 1": n and b + c == 0,
        f"only {moved} decided it: mid-p can exceed its level slightly, see p_exact": few,
    }
    limits = tango_interval(b, c, n, alpha=alpha)
    return PairedBinaryTest(
        **measured((b - c) / n if n else None, n, limits, alpha=alpha, p_value=mid_p),
        method="McNemar mid-p",
        notes=noted(notes),
        p_exact=exact,
        both_right=both,
        fixed=b,
        regressed=c,
        both_wrong=neither,
    )


def mcnemar(b: int, c: int) -> tuple[float, float]:
    """Two-sided mid-p and exact p that b and c are equally likely; mid-p is `1 - pmf / 2` when b = c."""
    from scipy.stats import binom, binomtest

    if b + c == 0:
        return 1.0, 1.0
    pmf = float(binom.pmf(min(b, c), b + c, 0.5))
    # Far in the tail the sum underflows to 0 before its first terms do: both ends' own terms bound it from below.
    exact = min(1.0, max(float(binomtest(min(b, c), b + c).pvalue), 2 * pmf if b != c else 0.0))
    return (1 - pmf / 2 if b == c else exact - pmf), exact


def tango_interval(b: int, c: int, n: int, *, alpha: float = 0.05) -> Limits:
    """Score interval of the paired difference `(b - c) / n`; None, None when n is 0.

    Source: Tango 1998: the limits solve `(b - c - n d) / sqrt(n (2 q + d (1 - d))) = z` and `= -z` in d, where q is
    the rate of regressed examples that is most likely when the difference is d.

    Example:
        >>> [round(limit, 4) for limit in tango_interval(1, 2, 50)]
        [-0.1182, 0.0711]
    """
    z = z_quantile(alpha)
    if n == 0:
        return UNKNOWN
    estimate = (b - c) / n

    def score(delta: float) -> float:
        linear = -b - c + (2 * n - b + c) * delta
        rate = (max(0.0, linear**2 + 8 * n * c * delta * (1 - delta)) ** 0.5 - linear) / (4 * n)
        variance = n * (2 * rate + delta * (1 - delta))
        gap = b - c - n * delta
        if variance > 1e-15:
            return gap / variance**0.5
        return 1e9 if gap > 0 else -1e9 if gap < 0 else 0.0

    low = -1.0 if c == n else root(lambda delta: score(delta) - z, -1.0, estimate, xtol=1e-12)
    high = 1.0 if b == n else root(lambda delta: score(delta) + z, estimate, 1.0, xtol=1e-12)
    return min(low, estimate), max(high, estimate)


def paired_mean_test(
    differences: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    alpha: float = 0.05,
    largest: float | None = 1.0,
    noun: str = "",
) -> PairedMeanTest:
    """Is the mean per-example difference away from 0?

    t over the examples, or over clusters. Where fewer than `FEW_MOVED` of them differ from 0, or all differ alike, the
    verdict follows the exact test on them: all sign flips counted. It is valid at any number, equals the sign test when
    there is no spread, and a larger gain never weakens it, as it can weaken t.

    Args:
        differences: Newer - older, one per example, in the score's own unit.
        clusters: The source each example belongs to (document, patient, template); then the standard error is
            cluster-robust and t has clusters - 1 degrees of freedom.
        alpha: Two-sided level.
        largest: Largest size a difference can have: 1 for rates and similarities, None where there is none. It sizes
            the interval where every difference is 0.
        noun: What the notes count; examples, or clusters, when not given.

    Source: paired t; Liang & Zeger 1986 with the G/(G-1) correction, as statsmodels `cov_type="cluster"`. Sign flips:
    Fisher 1935, section 21; Pitman 1937. Without spread: Clopper & Pearson 1934 for the units that may be otherwise.

    Raises:
        DesignError: A difference is missing, or clusters do not match the differences.

    Example:
        >>> print(paired_mean_test([0.1, 0.3, 0.2, 0.4, 0.2, 0.1]))
        Better: +0.217 (95% interval +0.094 to +0.339, p = 0.031, paired t, n = 6 examples).
        >>> print(paired_mean_test([0.2] * 50))
        Better: +0.200 (95% interval +0.172 to +0.228, p < 0.0001, exact sign test, n = 50 examples).
    """
    from scipy.stats import t as student

    values, alpha = numbers(differences, "differences"), between(alpha, "alpha")
    n, noun = len(values), noun or ("example" if clusters is None else "cluster")
    mean = float(values.mean()) if n else None
    n_units, units, residuals = n, values, values - values.mean() if n else values
    if clusters is not None:
        codes, n_units = codes_of(clusters, n)
        units, residuals = (
            np.bincount(codes, weights=one, minlength=n_units) for one in (values, residuals)
        )
    df = max(n_units - 1, 0)
    se = float((residuals @ residuals * (df + 1) / df) ** 0.5 / n) if df else None
    flat = se is not None and se <= 1e-12 * max(1.0, abs(mean or 0.0))
    limits, method = UNKNOWN, "paired t" if clusters is None else "cluster-robust t"
    score = p_value = exact = None
    if mean is not None and se is not None:
        exact = _exact_p(units, flat)
        if flat:
            method = "exact sign test" if clusters is None else "exact sign test on clusters"
            p_value, limits = exact, _no_spread_interval(mean, n_units, alpha, largest)
        else:
            half, score = float(student.isf(alpha / 2, df)) * se, mean / se
            limits, p_value = (mean - half, mean + half), float(2 * student.sf(abs(score), df))
    few = clusters is not None and 2 <= n_units < FEW_CLUSTERS
    parts = p_value is not None and exact is not None and (p_value < alpha) != (exact < alpha)
    counted = wording.plural(n_units, noun)
    notes = {
        f"{counted}: need at least two for an interval": n_units < 2,
        f"all differences are equal: the exact sign test on {counted} decides, "
        "and the interval is what so many leave open": flat,
        f"few {noun}s moved: the exact test of their signs decides (p_exact), and it does not say what the "
        "interval, from t, seems to say": parts,
        f"only {n_units} clusters: below {FEW_CLUSTERS} the interval is approximate": few,
    }
    return PairedMeanTest(
        **measured(mean, n, limits, alpha=alpha, p_value=p_value),
        method=method,
        notes=noted(notes),
        se=se,
        df=df,
        t_score=score,
        n_clusters=None if clusters is None else n_units,
        p_exact=exact,
    )


def sign_flip_p(units: ArrayLike) -> float:
    """Two-sided exact p that each unit's difference could as well have had the other sign.

    Every subset of the units is counted whose sum lies on the wrong side of 0 (Hartigan's typical values), in two
    halves that meet in the middle: 2^15 sums each, so at most 30 units that are not 0.

    Source: Fisher 1935; Pitman 1937; Hartigan 1969 (subset sums).

    Raises:
        DesignError: More than `FEW_MOVED` units moved.

    Example:
        >>> sign_flip_p([1, 1, 1, 1, 1]), sign_flip_p([3, 1, 0, -1])
        (0.0625, 0.75)
    """
    # In order of size, so that the rows' order and rounding cannot matter.
    moved = np.sort(numbers(units, "units"))
    moved = moved[moved != 0]
    if len(moved) > FEW_MOVED:
        raise DesignError(f"{len(moved)} units moved; sign flips are counted for up to {FEW_MOVED}")
    slack = 1e-9 * float(np.abs(moved).sum())
    left, right = _subset_sums(moved[::2]), np.sort(_subset_sums(moved[1::2]))
    wrong = [
        int(np.searchsorted(side, slack - other, side="right").sum())
        for side, other in ((right, left), (np.sort(-right), -left))
    ]
    return min(1.0, 2 * min(wrong) / 2 ** len(moved))


def _subset_sums(values: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for one in values:
        sums = np.concatenate([sums, sums + one])
    return sums


def _exact_p(units: np.ndarray, flat: bool) -> float | None:
    """P of the exact test where it decides; None where t may."""
    n_moved = int((units != 0).sum())
    if flat and n_moved:
        n_up = int((units > 0).sum())
        return mcnemar(n_up, len(units) - n_up)[1]
    return sign_flip_p(units) if n_moved < FEW_MOVED else None


def _no_spread_interval(value: float, n_units: int, alpha: float, largest: float | None) -> Limits:
    """Limits where n units all show one value: the share that may be otherwise, of the other sign and the same size.

    It leaves out 0 exactly when the sign test does; where the value is 0, the others may be as large as can be.
    """
    otherwise = 1 - (alpha / 2) ** (1 / n_units)
    if value == 0:
        return UNKNOWN if largest is None else (-otherwise * largest, otherwise * largest)
    reach = 2 * otherwise * abs(value)
    low, high = value - reach, value + reach
    if largest is None or abs(value) > largest:
        return low, high
    return max(low, -largest), min(high, largest)
