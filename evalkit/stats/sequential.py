"""Looks at an experiment on its way: what each may spend, what they find together, an interval that holds at every one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri

from evalkit.errors import DesignError
from evalkit.stats.result import between, root, two_sided_p, z_of_p, z_quantile

Density = tuple[np.ndarray, np.ndarray]  # nodes, and the mass at each
_NODES = (120, 800)
_SURE = 9.0  # a drift that no look misses


def obrien_fleming_bounds(fractions: Sequence[float], *, alpha: float = 0.05) -> list[float]:
    """Bounds of |z| at each look, O'Brien-Fleming-like spending at whatever information fractions came about.

    Args:
        fractions: Information at each look over planned information, rising, in (0, 1]; a hair above 1 is 1.
        alpha: Two-sided level of all looks together; each side spends half.

    Source: Lan & DeMets 1983; recursive integration of Armitage, McPherson & Rowe 1969.

    Raises:
        DesignError: Fractions that do not rise within (0, 1].

    Example:
        >>> [round(bound, 3) for bound in obrien_fleming_bounds([0.2, 0.4, 0.6, 0.8, 1.0])]
        [4.877, 3.357, 2.68, 2.29, 2.031]
    """
    # sums of 1/9, nine times, end above 1
    fractions = [1.0 if 1 < one < 1 + 1e-9 else one for one in fractions]
    times = [between(one, "an information fraction", closed=True) for one in fractions]
    if any(new <= old for old, new in zip([0.0, *times], times, strict=False)):
        raise DesignError(f"information fractions are {times}; need rising ones from above 0 to 1")
    spent = [0.0, *(spent_alpha(t, alpha=alpha) / 2 for t in times)]
    nodes = _nodes(times)
    bounds, density = [], None
    for look, time in enumerate(times):
        step = time - (times[look - 1] if look else 0.0)
        bounds.append(_bound(spent[look + 1] - spent[look], density, step, time))
        density = _carried_on(density, step, bounds[-1] * time**0.5, nodes)
    return bounds


def spent_alpha(fraction: float, *, alpha: float = 0.05) -> float:
    """Two-sided alpha spent by an information fraction: `4 - 4 Phi(z(1 - alpha/4) / sqrt(t))`.

    Source: Lan & DeMets 1983, O'Brien-Fleming type, each side spending alpha / 2.

    Example:
        >>> round(spent_alpha(1.0), 6)
        0.05
    """
    time = between(fraction, "an information fraction", closed=True)
    return float(4 * ndtr(-z_quantile(between(alpha, "alpha") / 2) / time**0.5)) if time else 0.0


def crossing_chance(fractions: Sequence[float], drift: float, *, alpha: float = 0.05) -> float:
    """Chance that z leaves the O'Brien-Fleming limits at one of these looks, in either direction.

    Args:
        fractions: Information at each look, as `obrien_fleming_bounds` takes them.
        drift: Expected z with all the information; 0 when nothing differs.
        alpha: Two-sided level of all looks together.

    Source: recursive integration of Armitage, McPherson & Rowe 1969; Jennison & Turnbull 2000, chapter 19.

    Example:
        >>> round(crossing_chance([0.5, 1.0], 0.0), 4), round(crossing_chance([0.5, 1.0], 2.8016), 3)
        (0.05, 0.799)
    """
    if abs(drift) > _SURE:
        return 1.0
    if list(fractions) == [1.0]:
        limit = z_quantile(alpha)
        return float(ndtr(drift - limit) + ndtr(-drift - limit))
    bounds, nodes = obrien_fleming_bounds(fractions, alpha=alpha), _nodes(fractions)
    density, before = None, 0.0
    for time, bound in zip(fractions, bounds, strict=True):
        density = _carried_on(density, time - before, bound * time**0.5, nodes, drift)
        before = time
    return 1.0 - float(density[1].sum()) if density is not None else 0.0


@lru_cache(maxsize=256)
def single_look_power(looks: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Power that one look with all the users must have so that so many looks within the limits have `power`.

    The users grow with it: for a power of 80% by 1% (2 looks) to 4% (14 looks).

    Source: `crossing_chance` solved for the drift.

    Example:
        >>> single_look_power(1), round(single_look_power(4), 3)
        (0.8, 0.808)
    """
    if looks == 1:
        return between(power, "power")
    times = [look / looks for look in range(1, looks + 1)]
    wanted = between(power, "power", alpha)

    def missing(drift: float) -> float:
        return crossing_chance(times, drift, alpha=alpha) - wanted

    return float(ndtr(root(missing, 0.0, _SURE, xtol=1e-6) - z_quantile(alpha)))


def extension_levels(
    fraction: float = 0.5, *, alpha: float = 0.05, declared: float = 0.5
) -> tuple[float, float]:
    """Two-sided levels of a first look and of a second one over all examples, together `alpha`.

    The first look spends what was declared, whatever became of the second.

    Args:
        fraction: Examples at the first look over all examples at the second.
        alpha: Two-sided level of both looks together.
        declared: The fraction as declared before the first look.

    Source: Lan & DeMets 1983, O'Brien-Fleming type (see `obrien_fleming_bounds`).

    Raises:
        DesignError: A fraction outside (0, 1).

    Example:
        >>> [round(level, 4) for level in extension_levels()]
        [0.0031, 0.049]
    """
    first = spent_alpha(between(declared, "declared"), alpha=alpha)
    time = between(fraction, "fraction")
    inside = _carried_on(None, time, z_of_p(first) * time**0.5, _NODES[1])
    last = _bound((alpha - first) / 2, inside, 1 - time, 1.0)
    return first, two_sided_p(last)


def confidence_sequence(
    estimate: float, se: float, n: int, n_opt: float, *, alpha: float = 0.05
) -> tuple[float, float]:
    """An interval that holds at every look at once, however often one looks; from about 100 users per group.

    Args:
        estimate: The difference so far.
        se: Its standard error so far.
        n: Users so far, both groups.
        n_opt: Users at which the sequence is tightest; half the planned number is a good choice.
        alpha: Level of the whole sequence.

    Source: Waudby-Smith et al. 2024 (asymptotic, normal mixture): `se sqrt(2 (n r + 1) / (n r) log(sqrt(n r + 1) / alpha))`
    on each side, with `r = (-2 log(alpha) + log(1 - 2 log(alpha))) / n_opt`.

    Raises:
        DesignError: No users or a negative standard error.

    Example:
        >>> low, high = confidence_sequence(0.05, 0.02, 2000, 2000)
        >>> round(low, 3), round(high, 3)
        (-0.011, 0.111)
    """
    users = between(n, "n", 0, math.inf)
    budget = -2 * math.log(between(alpha, "alpha"))
    rho_squared = (budget + math.log(budget + 1)) / between(n_opt, "n_opt", 0, math.inf)
    grown = users * rho_squared + 1
    error = between(se, "se", 0, math.inf, closed=True)
    half = error * (grown / (users * rho_squared) * (math.log(grown) + budget)) ** 0.5
    centre = between(estimate, "estimate", -math.inf, math.inf)
    return centre - half, centre + half


def _nodes(times: Sequence[float]) -> int:
    """Enough quadrature points for the narrowest step."""
    steps = (new - old for old, new in zip([0.0, *times], times, strict=False))
    narrowest = min(steps, default=1.0)
    return int(min(_NODES[1], max(_NODES[0], 30 / narrowest**0.5)))


def _bound(spend: float, density: Density | None, step: float, time: float) -> float:
    """The bound whose upper crossing costs `spend`, given the paths that have not crossed yet."""
    if density is None or spend < 1e-14:
        return -float(ndtri(max(spend, 1e-300)))
    points, mass = density

    def excess(z: float) -> float:
        return float(mass @ ndtr((points - z * time**0.5) / step**0.5)) - spend

    return root(excess, -1.0, 40.0, xtol=1e-10)


_quadrature = lru_cache(maxsize=8)(np.polynomial.legendre.leggauss)


def _carried_on(
    density: Density | None, step: float, limit: float, n_nodes: int, drift: float = 0.0
) -> Density:
    """Nodes and masses of the paths inside [-limit, limit] after one more step."""
    nodes, weights = _quadrature(n_nodes)
    reach = min(limit, 10.0)
    points, weights = nodes * reach, weights * reach
    if density is None:
        return points, weights * _bell(points - drift * step, step)
    old, mass = density
    return points, weights * (_bell(points[:, None] - old[None, :] - drift * step, step) @ mass)


def _bell(values: np.ndarray, variance: float) -> np.ndarray:
    return np.exp(-(values**2) / (2 * variance)) / (2 * math.pi * variance) ** 0.5
