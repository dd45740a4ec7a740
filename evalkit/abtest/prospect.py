"""What a plan can find, how long it takes, and what looking every day would do to it: before the first user."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from evalkit.abtest.analysis import Log
from evalkit.abtest.effects import SUMS, pairs
from evalkit.abtest.plan import ABPlan
from evalkit.stats import (
    RatioSums,
    crossing_chance,
    obrien_fleming_bounds,
    user_design_effect_from_sums,
    users_power,
)

SPLITS = (0.05, 0.1, 0.2, 0.3, 0.5)
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeking:
    """Simulated A/A tests, in which nothing differs, looked at every day.

    Attributes:
        days: The days looked at.
        naive: Share of tests that had shown p < alpha on any day so far.
        after_minimum: The same when looking begins once both variants have `min_samples` users.
        bounded: The same when each day's look is read against its O'Brien-Fleming limit.
        once: Share that shows p < alpha at the end, looked at once.
        n_runs: Simulated tests.
    """

    days: tuple[int, ...]
    naive: tuple[float, ...]
    after_minimum: tuple[float, ...]
    bounded: tuple[float, ...]
    once: float
    n_runs: int
    alpha: float


def power_at(plan: ABPlan, difference: float) -> float:
    """Chance that the planned users show a true difference of this size, in either direction and at any of the looks.

    Source: `stats.users_power` for a rate; two-sample normal formula for means.
    """
    metric, sizes = plan.primary, (plan.n_control, plan.n_treatment)
    if metric.margin:
        return _power_against(plan, metric.margin, difference)
    options: dict[str, Any] = {"alpha": plan.alpha, "looks": plan.looks}
    if metric.kind == "rate" and metric.expected is not None:
        new = min(1.0, max(0.0, metric.expected + difference))
        effect = plan.design_effect
        return users_power(*sizes, metric.expected, new, design_effect=effect, **options)
    se = (metric.sd or 0.0) * (plan.design_effect * sum(1 / n for n in sizes)) ** 0.5
    looks = [look / plan.looks for look in range(1, plan.looks + 1)]
    return crossing_chance(looks, difference / se, alpha=plan.alpha)


def _power_against(plan: ABPlan, margin: float, difference: float) -> float:
    """Chance that it is shown no worse, at any of the looks, by the normal formula.

    Source: Jennison & Turnbull 1989: z of the difference and the margin together, within the same limits.
    """
    metric, sizes = plan.primary, (plan.n_control, plan.n_treatment)
    variances = [(metric.sd or 0.0) ** 2] * 2
    if metric.kind == "rate" and metric.expected is not None:
        levels = (metric.expected, min(1.0, max(0.0, metric.expected + difference)))
        variances = [one * (1 - one) for one in levels]
    se = (plan.design_effect * sum(v / n for v, n in zip(variances, sizes, strict=True))) ** 0.5
    away = margin - difference if metric.lower_is_better else margin + difference
    looks = [look / plan.looks for look in range(1, plan.looks + 1)]
    drift, limit = away / se, _NORMAL.inv_cdf(1 - plan.alpha / 2)
    if drift <= 0:
        return _NORMAL.cdf(drift - limit)
    wrong_side = _NORMAL.cdf(-drift - limit)  # of one look; over several it is hardly another
    return crossing_chance(looks, drift, alpha=plan.alpha) - wrong_side


def design_effect_in(log: Log, experiment: str, metric: str) -> float | None:
    """The plan's `design_effect` for a rate, from the control users of an experiment in a log; None when nothing varies.

    Raises:
        DataError: The log cannot be read.
    """
    cells = log.cells(log.users(experiment), experiment, metric, is_rate=True)
    control = [old for old, _ in pairs(cells)]
    joined = {name: sum(getattr(one, name) for one in control) for name in SUMS}
    return user_design_effect_from_sums(RatioSums(**joined))


def power_curve(plan: ABPlan, *, points: int = 61) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Sizes of a difference in the direction that is better, 0 to twice the planned one, and the power at each.

    Where the question is whether treatment is no worse: from a loss of the margin to a gain as large.
    """
    if margin := plan.primary.margin:
        turn = -1 if plan.primary.lower_is_better else 1
        across = tuple(margin * (2 * at / (points - 1) - 1) for at in range(points))
        return across, tuple(power_at(plan, turn * one) for one in across)
    aim, expected = plan.primary.aim, plan.primary.expected or 0.0
    most = 2 * abs(aim)
    if plan.primary.kind == "rate":
        most = min(most, 0.999 * expected if aim < 0 else 0.999 - expected)
    sizes = tuple(most * at / (points - 1) for at in range(points))
    return sizes, tuple(power_at(plan, one if aim > 0 else -one) for one in sizes)


def durations(plan: ABPlan, splits: Sequence[float] = SPLITS) -> list[dict[str, Any]]:
    """Users and days of the same plan under other splits."""
    plans = [plan.changed(traffic_split=split) for split in sorted({*splits, plan.traffic_split})]
    return [{"split": one.traffic_split, "users": one.n_users, "days": one.days} for one in plans]


def peeking(plan: ABPlan, *, n_runs: int = 10_000, seed: int = 0) -> Peeking:
    """Runs so many A/A tests of the planned size, one request a user, and looks at each of them every day.

    Source: Armitage, McPherson & Rowe 1969, by simulation.
    """
    import numpy as np

    days = max(2, min(plan.days, math.ceil(plan.n_users / plan.users_per_day)))
    rate = plan.primary.expected if plan.primary.kind == "rate" and plan.primary.expected else 0.5
    rng, a_day = np.random.default_rng(seed), plan.n_users / days
    n = (
        np.outer([1 - plan.traffic_split, plan.traffic_split], np.diff(np.arange(days + 1) * a_day))
        .round()
        .astype(int)
    )
    hits = rng.binomial(n[:, None, :], rate, (2, n_runs, days)).cumsum(axis=2)
    so_far = n.cumsum(axis=1)[:, None, :]
    pooled = hits.sum(axis=0) / so_far.sum(axis=0)
    se = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12) * (1 / so_far).sum(axis=0))
    z = np.abs(hits[1] / so_far[1] - hits[0] / so_far[0]) / se
    limit = _NORMAL.inv_cdf(1 - plan.alpha / 2)
    enough = so_far.min(axis=0)[0] >= min(plan.min_samples, so_far.min(axis=0)[0][-1])
    bounds = np.array(
        obrien_fleming_bounds([(day + 1) / days for day in range(days)], alpha=plan.alpha)
    )
    return Peeking(
        days=tuple(range(1, days + 1)),
        naive=_ever(z > limit),
        after_minimum=_ever((z > limit) & enough),
        bounded=_ever(z > bounds),
        once=float((z[:, -1] > limit).mean()),
        n_runs=n_runs,
        alpha=plan.alpha,
    )


def _ever(shown: Any) -> tuple[float, ...]:
    import numpy as np

    return tuple(np.maximum.accumulate(shown, axis=1).mean(axis=0).tolist())
