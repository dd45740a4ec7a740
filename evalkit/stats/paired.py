"""Two models on the same examples: the difference is measured inside each example."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from evalkit import wording
from evalkit.stats.result import Difference, Scale, between, codes_of, numbers, whole, z_quantile

FEW_PAIRS = 10
FEW_CLUSTERS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedBinaryTest(Difference):
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
class PairedMeanTest(Difference):
    """Mean of per-example differences of a numeric score.

    Attributes:
        se: Standard error, cluster-robust when clusters are declared.
        df: Degrees of freedom of t: `n - 1`, or clusters - 1.
        n_clusters: Distinct clusters, None when each example stands alone.
    """

    scale: ClassVar[Scale] = "number"
    se: float | None
    df: int
    t_score: float | None
    n_clusters: int | None = None


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
    named = {
        "both_right": both_right,
        "fixed": fixed,
        "regressed": regressed,
        "both_wrong": both_wrong,
    }
    cells = {name: whole(value, name) for name, value in named.items()}
    b, c, n = cells["fixed"], cells["regressed"], sum(cells.values())
    mid_p, exact = mcnemar(b, c) if n else (None, None)
    low, high = tango_interval(b, c, n, alpha=alpha)
    notes = []
    if not n:
        notes.append("no examples: nothing to compare")
    elif b + c == 0:
        notes.append("the models are never right on different examples: p is 1")
    elif b + c < FEW_PAIRS:
        notes.append(
            f"only {wording.plural(b + c, 'example')} decided it: mid-p can exceed its level slightly, see p_exact"
        )
    return PairedBinaryTest(
        estimate=(b - c) / n if n else None,
        n=n,
        ci_low=low,
        ci_high=high,
        alpha=alpha,
        p_value=mid_p,
        method="McNemar mid-p",
        notes=tuple(notes),
        p_exact=exact,
        **cells,  # pyright: ignore[reportArgumentType] - the four counts, and nothing else
    )


def mcnemar(b: int, c: int) -> tuple[float, float]:
    """Two-sided mid-p and exact p that b and c are equally likely; mid-p is `1 - pmf / 2` when b = c."""
    from scipy.stats import binom, binomtest

    if b + c == 0:
        return 1.0, 1.0
    pmf = float(binom.pmf(min(b, c), b + c, 0.5))
    # Far in the tail the sum underflows to 0 before its first terms do: both ends' own terms bound it from below.
    exact = max(float(binomtest(min(b, c), b + c).pvalue), 2 * pmf if b != c else 0.0)
    return (1 - pmf / 2 if b == c else exact - pmf), exact


def tango_interval(
    b: int, c: int, n: int, *, alpha: float = 0.05
) -> tuple[float | None, float | None]:
    """Score interval of the paired difference `(b - c) / n`; None, None when n is 0.

    Source: Tango 1998: the limits solve `(b - c - n d) / sqrt(n (2 q + d (1 - d))) = z` and `= -z` in d, where q is
    the rate of regressed examples that is most likely when the difference is d.

    Example:
        >>> [round(limit, 4) for limit in tango_interval(1, 2, 50)]
        [-0.1182, 0.0711]
    """
    z = z_quantile(alpha)
    if n == 0:
        return None, None
    estimate = (b - c) / n
    low = -1.0 if c == n else _tango_limit(b, c, n, z, (-1.0, estimate))
    high = 1.0 if b == n else _tango_limit(b, c, n, -z, (estimate, 1.0))
    return min(low, estimate), max(high, estimate)


def paired_mean_test(
    differences: Any, clusters: Sequence[Hashable] | None = None, *, alpha: float = 0.05
) -> PairedMeanTest:
    """Is the mean per-example difference away from 0?

    Args:
        differences: Newer - older, one per example, in the score's own unit.
        clusters: The source each example belongs to (document, patient, template); then the standard error is
            cluster-robust and t has clusters - 1 degrees of freedom.
        alpha: Two-sided level.

    Source: paired t; Liang & Zeger 1986 with the G/(G-1) correction, as statsmodels `cov_type="cluster"`.

    Raises:
        DesignError: A difference is missing, or clusters do not match the differences.

    Example:
        >>> print(paired_mean_test([0.1, 0.3, 0.2, 0.4]))
        Better: +0.250 (95% interval +0.045 to +0.455, p = 0.030, paired t, n = 4 examples).
    """
    from scipy.stats import t as student

    values, alpha = numbers(differences, "differences"), between(alpha, "alpha")
    n = len(values)
    mean = float(values.mean()) if n else None
    sums, n_clusters = _score_sums(values, clusters)
    df = max((n if n_clusters is None else n_clusters) - 1, 0)
    se = float((sums @ sums * (df + 1) / df) ** 0.5 / n) if df else None
    flat = se is not None and se <= 1e-12 * max(1.0, abs(mean or 0.0))
    low = high = score = p_value = None
    if mean is not None and se is not None and not flat:
        half, score = float(student.isf(alpha / 2, df)) * se, mean / se
        low, high, p_value = mean - half, mean + half, float(2 * student.sf(abs(score), df))
    return PairedMeanTest(
        estimate=mean,
        n=n,
        ci_low=low,
        ci_high=high,
        alpha=alpha,
        p_value=p_value,
        method="paired t" if n_clusters is None else "cluster-robust t",
        notes=_mean_notes(n, n_clusters, flat),
        se=se,
        df=df,
        t_score=score,
        n_clusters=n_clusters,
    )


def _tango_limit(b: int, c: int, n: int, z: float, bracket: tuple[float, float]) -> float:
    from scipy.optimize import brentq

    return float(brentq(lambda delta: _tango_score(b, c, n, delta) - z, *bracket, xtol=1e-12))  # pyright: ignore[reportArgumentType]


def _tango_score(b: int, c: int, n: int, delta: float) -> float:
    linear = -b - c + (2 * n - b + c) * delta
    root = max(0.0, linear**2 + 8 * n * c * delta * (1 - delta)) ** 0.5
    rate = (root - linear) / (4 * n)
    variance = n * (2 * rate + delta * (1 - delta))
    gap = b - c - n * delta
    return (
        gap / variance**0.5 if variance > 1e-15 else (1e9 if gap > 0 else -1e9 if gap < 0 else 0.0)
    )


def _score_sums(values: Any, clusters: Sequence[Hashable] | None) -> tuple[Any, int | None]:
    """Residuals from the mean, summed within each cluster."""
    import numpy as np

    residuals = values - values.mean() if len(values) else values
    if clusters is None:
        return residuals, None
    codes, n_clusters = codes_of(clusters, len(values))
    return np.bincount(codes, weights=residuals, minlength=n_clusters), n_clusters


def _mean_notes(n: int, n_clusters: int | None, flat: bool) -> tuple[str, ...]:
    units, noun = (n, "example") if n_clusters is None else (n_clusters, "cluster")
    if units < 2:
        return (f"{wording.plural(units, noun)}: need at least two for an interval",)
    notes = ["no variance: all differences are equal, so the test is undefined"] if flat else []
    if n_clusters is not None and n_clusters < FEW_CLUSTERS:
        notes.append(
            f"only {n_clusters} clusters: below {FEW_CLUSTERS} the interval is approximate"
        )
    return tuple(notes)
