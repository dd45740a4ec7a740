"""Quantiles of requests, such as p95 latency, when the user is the unit."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from evalkit.errors import DesignError
from evalkit.stats.ratio import RatioSums, ratio_sums, ratio_with_se
from evalkit.stats.result import Difference, Result, Scale, between, codes_of, numbers, z_quantile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Requests = tuple[Sequence[Hashable], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileInterval(Result):
    """A quantile of requests, in their own unit; `n` counts users."""

    scale: ClassVar[Scale] = "number"
    unit: ClassVar[str] = "user"
    q: float

    def _headline(self) -> str:
        return f"p{self.q * 100:g}"

    def _text(self, value: float | None) -> str:
        return Result._text(self, value).lstrip("+")


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
    old, new = control, treatment
    diff = None if old.estimate is None or new.estimate is None else new.estimate - old.estimate
    fall = _root_sum(_gap(new.estimate, new.ci_low), _gap(old.estimate, old.ci_high))
    rise = _root_sum(_gap(new.estimate, new.ci_high), _gap(old.estimate, old.ci_low))
    low = None if diff is None or fall is None else diff - fall
    high = None if diff is None or rise is None else diff + rise
    return QuantileTest(
        estimate=diff,
        n=old.n + new.n,
        ci_low=low,
        ci_high=high,
        alpha=old.alpha,
        method="Woodruff intervals by user, MOVER",
        notes=tuple(dict.fromkeys(old.notes + new.notes)),
        control=old.estimate,
        treatment=new.estimate,
        q=old.q,
    )


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
    import numpy as np

    array, q = numbers(values, "values"), between(q, "q")
    codes, n = codes_of(users, len(array))
    if not n:
        none = ("no requests: the quantile is undefined",)
        return QuantileInterval(n=0, alpha=alpha, method="Woodruff by user", notes=none, q=q)
    point = float(np.quantile(array, q, method="inverted_cdf"))
    sums = ratio_sums(np.bincount(codes), np.bincount(codes, weights=array <= point), "the group")
    low_q, high_q = quantile_levels(sums, q, alpha=alpha)
    low, high = (
        None if level is None else float(np.quantile(array, level, method="inverted_cdf"))
        for level in (low_q, high_q)
    )
    notes = ("too few users for a limit on both sides",) if low is None or high is None else ()
    return QuantileInterval(
        estimate=point,
        n=n,
        ci_low=low,
        ci_high=high,
        alpha=alpha,
        method="Woodruff by user",
        notes=notes,
        q=q,
    )


def quantile_levels(
    sums: RatioSums, q: float, *, alpha: float = 0.05
) -> tuple[float | None, float | None]:
    """Levels whose quantiles are the limits of the q-quantile; None where a limit lies beyond the data.

    In `sums`, over users, x = requests and y = requests at or below the q-quantile.

    Source: Woodruff 1952, with the delta-method standard error by user.

    Raises:
        DesignError: Sums that no data can have.
    """
    _, se = ratio_with_se(sums, "the group")
    if not se:
        return None, None
    half = z_quantile(alpha) * se
    low, high = between(q, "q") - half, q + half
    return low if low > 0 else None, high if high < 1 else None


def _gap(estimate: float | None, limit: float | None) -> float | None:
    return None if estimate is None or limit is None else limit - estimate


def _root_sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else math.hypot(one, other)
