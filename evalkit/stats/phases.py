"""An experiment whose split changed on the way: compared within each phase, then combined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.errors import DesignError
from evalkit.stats.null import FEW, Null, null_in, p_under
from evalkit.stats.result import ByUser, Scale, z_quantile

_SMALL = 0.1  # share of what the users can tell up to which a phase that bears no verdict is left out, and the others decide


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinedTest(ByUser):
    """Phases of one experiment combined by inverse variance; `estimate` is `diff`.

    Attributes:
        se: Standard error of the combined difference, that of the interval.
        z_score: The difference over its standard error if nothing differed.
        phases: The phases' own differences, in order.
        weights: What each phase counts in it, in order; they sum to 1.
    """

    se: float | None
    z_score: float | None
    phases: tuple[float | None, ...]
    weights: tuple[float, ...] = ()
    p_exact: float | None = None
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

    Source: fixed-effect combination, Cochran 1954; weights and test by the errors under the null. The limits are combined from
    those of the phases (Zou & Donner 2008).

    A phase that bears no verdict of its own (one user outweighs its others) is left out where its users can tell no more
    than a tenth; else there is no verdict at all.

    Raises:
        DesignError: No phase given.

    Example:
        >>> from evalkit.stats import proportion_z_test
        >>> weeks = [proportion_z_test(270, 900, 35, 100), proportion_z_test(320, 1000, 360, 1000)]
        >>> print(combine_phases(weeks))
        Better: +4.2 points (95% interval +0.4 to +8.0, p = 0.032, inverse variance over 2 phases, n = 3,000 users).
    """
    if not results:
        raise DesignError("no phases to combine; need at least one")
    nulls = [null_in(one) for one in results]
    usable = [
        (one, null)
        for one, null in zip(results, nulls, strict=True)
        if one.estimate is not None and null.se
    ]
    left_out = len(results) - len(usable)
    said = f"{left_out} of {len(results)} phases have no variance yet and are left out"
    notes = [said] if left_out else []
    usable, dropped = _without_small(usable)
    notes += [f"a small phase is left out: {one.no_verdict}" for one in dropped]
    refused = [
        why
        for one in results
        if not any(one is small for small in dropped) and (why := getattr(one, "no_verdict", ""))
    ]
    notes += [f"no verdict: {why}" for why in refused]
    common = {
        "n": sum(one.n for one in results),
        "alpha": alpha,
        "phases": tuple(one.estimate for one in results),
        "no_verdict": next(iter(refused), ""),
        "shown_as": results[0].shown_in(),
        "method": f"inverse variance over {len(usable)} phases",
    }
    if not usable:
        return CombinedTest(**common, se=None, z_score=None, notes=tuple(notes))
    return _combined(
        [one for one, _ in usable], [null for _, null in usable], results, common, notes
    )


def _without_small(
    usable: Sequence[tuple[object, Null]],
) -> tuple[Sequence[tuple[Any, Null]], Sequence[Any]]:
    """The phases that count, and those that bear no verdict and have so few users that the others decide without them.

    By users, not by errors: one user who outweighs half of a test makes that half's error large, and is no small matter.
    """
    worth = [null.n[0] * null.n[1] / max(sum(null.n), 1) for _, null in usable]
    small = [
        one
        for (one, _), own in zip(usable, worth, strict=True)
        if getattr(one, "no_verdict", "") and own <= _SMALL * sum(worth)
    ]
    return [pair for pair in usable if not any(pair[0] is one for one in small)], small


def _combined(
    usable: Sequence[Any],
    nulls: Sequence[Null],
    results: Sequence[Any],
    common: dict[str, Any],
    notes: list[str],
) -> CombinedTest:
    """Weights, and the test, by the errors under the null: a phase without events weighs no more for it."""
    inverse = [1 / (null.se or 1.0) ** 2 for null in nulls]
    weights = [one / sum(inverse) for one in inverse]
    diff = sum(weight * one.estimate for weight, one in zip(weights, usable, strict=True))
    se_null = sum(inverse) ** -0.5
    p_value, source = p_under(nulls, diff, se_null)
    fall, rise = (
        math.hypot(*(w * _gap(one, side) for w, one in zip(weights, usable, strict=True)))
        for side in ("ci_low", "ci_high")
    )
    scale = z_quantile(common["alpha"]) / z_quantile(usable[0].alpha)
    of = {id(one): weight for one, weight in zip(usable, weights, strict=True)}
    return CombinedTest(
        **common,
        estimate=diff,
        ci_low=diff - scale * fall,
        ci_high=diff + scale * rise,
        p_value=p_value,
        p_exact=p_value if source == "exact" else None,
        notes=(*notes, *FEW[source]),
        se=math.hypot(*(w * (one.se or 0.0) for w, one in zip(weights, usable, strict=True))),
        z_score=diff / se_null,
        weights=tuple(of.get(id(one), 0.0) for one in results),
    )


def _gap(test: Any, side: str) -> float:
    """From the estimate to a limit."""
    return abs(getattr(test, side) - test.estimate)
