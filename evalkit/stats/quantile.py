"""Quantiles of requests, with the user as the unit."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from evalkit.errors import DesignError
from evalkit.stats.result import (
    UNKNOWN,
    Difference,
    Limits,
    Result,
    Scale,
    between,
    codes_of,
    measured,
    numbers,
    z_quantile,
)
from evalkit.stats.sums import RatioSums, ratio_sums

Requests = tuple[Sequence[Hashable], ArrayLike]


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
        fall = _apart((new.estimate, new.ci_low), (old.estimate, old.ci_high))
        rise = _apart((new.estimate, new.ci_high), (old.estimate, old.ci_low))
        limits = None if fall is None else diff - fall, None if rise is None else diff + rise
    return QuantileTest(
        **measured(diff, old.n + new.n, limits, alpha=old.alpha),
        method="Woodruff intervals by user, MOVER",
        notes=tuple(dict.fromkeys(old.notes + new.notes)),
        control=old.estimate,
        treatment=new.estimate,
        q=old.q,
    )


def _apart(*ends: tuple[float, float | None]) -> float | None:
    """Root of the sum of squares of the ways from estimates to limits."""
    ways = [limit - estimate for estimate, limit in ends if limit is not None]
    return math.hypot(*ways) if len(ways) == len(ends) else None


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
    array, q = numbers(values, "values"), between(q, "q")
    codes, n = codes_of(users, len(array))
    point, limits = None, UNKNOWN
    if n:
        point = float(np.quantile(array, q, method="inverted_cdf"))
        seen = np.bincount(codes), np.bincount(codes, weights=array <= point)
        low, high = (
            None if level is None else float(np.quantile(array, level, method="inverted_cdf"))
            for level in quantile_levels(ratio_sums(*seen), q, alpha=alpha)
        )
        limits = low, high
    too_few = (
        "too few users for a limit on both sides" if n else "no requests: the quantile is undefined"
    )
    return QuantileInterval(
        **measured(point, n, limits, alpha=alpha),
        method="Woodruff by user",
        notes=(too_few,) if None in limits else (),
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
    half = z_quantile(alpha) * se
    low, high = between(q, "q") - half, q + half
    return low if low > 0 else None, high if high < 1 else None
