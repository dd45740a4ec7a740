"""A resampling check beside the formulas: whole clusters are drawn, so what belongs together stays together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from evalkit.errors import DesignError
from evalkit.stats.result import Result, Scale, between, codes_of, numbers, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapInterval(Result):
    """A statistic with its percentile interval; nothing is tested.

    Attributes:
        se: Standard deviation of the resampled statistic.
    """

    scale: ClassVar[Scale] = "number"
    unit: ClassVar[str] = "cluster"
    se: float | None

    def _headline(self) -> str:
        return "Estimate"


def cluster_bootstrap(
    values: Any,
    clusters: Sequence[Hashable] | None = None,
    *,
    statistic: Callable[[Any], float] | None = None,
    alpha: float = 0.05,
    resamples: int = 2000,
    seed: int = 0,
) -> BootstrapInterval:
    """A percentile interval from resampled clusters: a check, as at small n it covers less than it says.

    Args:
        values: One number each.
        clusters: What each belongs to (user, document); None: each stands alone.
        statistic: A function of an array; the mean when not given.
        alpha: Two-sided level.
        resamples: Bootstrap samples.
        seed: Seed of the draws.

    Source: Davison & Hinkley 1997, section 3.8 (resampling clusters).

    Raises:
        DesignError: Missing values, or clusters that do not match.

    Example:
        >>> cluster_bootstrap([1.0, 2.0, 3.0, 4.0], ["a", "a", "b", "b"]).estimate
        2.5
    """
    import numpy as np

    array, alpha = numbers(values, "values"), between(alpha, "alpha")
    codes, g = codes_of(clusters if clusters is not None else range(len(array)), len(array))
    if g < 2 or whole(resamples, "resamples") < 2:
        raise DesignError(f"{g} clusters and {resamples} resamples; need at least two of each")
    rng = np.random.default_rng(seed)
    if statistic is None:
        sums, sizes = np.bincount(codes, weights=array), np.bincount(codes)
        weights = rng.multinomial(g, np.full(g, 1 / g), size=resamples)
        sample, estimate = (weights @ sums) / (weights @ sizes), float(array.mean())
    else:
        members = np.split(
            array[np.argsort(codes, kind="stable")], np.cumsum(np.bincount(codes))[:-1]
        )
        draws = rng.integers(g, size=(resamples, g))
        sample = np.array(
            [statistic(np.concatenate([members[one] for one in draw])) for draw in draws]
        )
        estimate = float(statistic(array))
    low, high = np.quantile(sample, [alpha / 2, 1 - alpha / 2])
    return BootstrapInterval(
        estimate=estimate,
        n=g,
        ci_low=low,
        ci_high=high,
        alpha=alpha,
        se=sample.std(ddof=1),
        method=f"percentile bootstrap, {resamples} resamples of clusters",
    )
