"""An experiment whose split changed on the way: compared within each phase, then combined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from evalkit.errors import DesignError
from evalkit.stats.result import Difference, Scale, two_sided_p, z_quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinedTest(Difference):
    """Phases of one experiment combined by inverse variance; `estimate` is `diff`.

    Attributes:
        se: Standard error of the combined difference.
        phases: The phases' own differences, in order.
    """

    unit: ClassVar[str] = "user"
    se: float | None
    z_score: float | None
    phases: tuple[float | None, ...]
    shown_as: Scale = "points"

    def shown_in(self) -> Scale:
        """As the results it was made from."""
        return self.shown_as


def combine_phases(results: Sequence[Any], *, alpha: float = 0.05) -> CombinedTest:
    """One answer from the phases of an experiment whose split changed: inverse-variance mean of the differences.

    Pooling the users of all phases instead would mix the split with the calendar (Simpson's paradox).

    Args:
        results: One test a phase, of the same kind, each with `estimate`, `se` and `n`.
        alpha: Two-sided level.

    Source: fixed-effect combination, Cochran 1954.

    Raises:
        DesignError: No phase given.

    Example:
        >>> from evalkit.stats import proportion_z_test
        >>> weeks = [proportion_z_test(270, 900, 35, 100), proportion_z_test(320, 1000, 360, 1000)]
        >>> print(combine_phases(weeks))
        Better: +4.2 points (95% interval +0.3 to +8.0, p = 0.033, inverse variance over 2 phases, n = 3,000 users).
    """
    if not results:
        raise DesignError("no phases to combine; need at least one")
    usable = [one for one in results if one.estimate is not None and one.se]
    weights = [1 / one.se**2 for one in usable]
    notes = [
        f"{len(results) - len(usable)} of {len(results)} phases have no variance yet and are left out"
    ]
    diff = low = high = se = None
    if usable:
        se = sum(weights) ** -0.5
        diff = (
            sum(weight * one.estimate for weight, one in zip(weights, usable, strict=True)) * se**2
        )
        low, high = diff - z_quantile(alpha) * se, diff + z_quantile(alpha) * se
    return CombinedTest(
        estimate=diff,
        n=sum(one.n for one in results),
        ci_low=low,
        ci_high=high,
        alpha=alpha,
        p_value=two_sided_p(diff / se) if diff is not None and se else None,
        method=f"inverse variance over {len(usable)} phases",
        notes=tuple(notes if len(usable) < len(results) else ()),
        se=se,
        z_score=diff / se if diff is not None and se else None,
        phases=tuple(one.estimate for one in results),
        shown_as=results[0].shown_in(),
    )
