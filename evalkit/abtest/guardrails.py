"""What must not get worse: one-sided questions against margins declared beforehand, with the user as the unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalkit.abtest.analysis import BIN, Log, Table
from evalkit.abtest.assignment import VARIANTS
from evalkit.abtest.effects import pairs, phase_tests
from evalkit.abtest.plan import Guardrail
from evalkit.stats import (
    QuantileInterval,
    RatioSums,
    combine_phases,
    noninferiority_test,
    quantile_levels,
    quantile_test,
)
from evalkit.stats.ratio import wilson_by_user
from evalkit.stats.result import ByUser, Scale
from evalkit.stats.sums import one_user

if TYPE_CHECKING:
    import pandas as pd

FROM_EXPOSURES = ("error", "refused", "truncated", "empty", "latency_ms")
_P95 = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(ByUser):
    """Treatment minus control of something watched; it has no good direction of its own.

    Attributes:
        control: The control's level.
        treatment: The treatment's.
    """

    control: float | None = None
    treatment: float | None = None
    shown_as: Scale = "points"

    def shown_in(self) -> Scale:
        """Points or a number."""
        return self.shown_as


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One guardrail as it came out.

    Attributes:
        change: Treatment minus control.
        margin: How much worse is acceptable; None when the plan declares no limit and it is only shown.
        verdict: "not worse", "not shown", "worse" (the whole interval lies beyond the margin), "too early" (no users on a
            side), "invalid" (the change's notes say why), or "no limit declared".
    """

    name: str
    kind: str
    better: str = "lower"
    change: Change
    margin: float | None = None
    verdict: str = "no limit declared"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        names = ("estimate", "ci_low", "ci_high", "control", "treatment", "n", "method", "notes")
        numbers = {name: getattr(self.change, name) for name in names}
        own = {
            name: getattr(self, name) for name in ("name", "kind", "better", "margin", "verdict")
        }
        return own | numbers | {"notes": list(self.change.notes)}


def watch(
    log: Log, users: Table, guardrail: Guardrail, *, experiment: str, window_s: float, alpha: float
) -> Watched:
    """A guardrail against its margin; one that the log says nothing on is too early to tell, never left out."""
    change = change_of(log, users, guardrail, experiment=experiment, window_s=window_s, alpha=alpha)
    change = change or _unknown(
        0, f"the log says nothing on {guardrail.name!r} of both variants", alpha
    )
    test = noninferiority_test(
        change, guardrail.margin, lower_is_better=guardrail.better == "lower"
    )
    return Watched(
        name=guardrail.name,
        kind=guardrail.kind,
        better=guardrail.better,
        change=change,
        margin=guardrail.margin,
        verdict="worse" if _beyond(change, guardrail) and not change.no_verdict else test.verdict,
    )


def watch_health(
    log: Log, users: Table, guardrails: Sequence[Guardrail], *, experiment: str, alpha: float
) -> list[Watched]:
    """Failed and refused calls and p95 latency: with the plan's margin, or as they are when the plan has none for them."""
    declared = [one for one in guardrails if one.name in FROM_EXPOSURES]
    names = {(one.name, one.kind) for one in declared}
    usual: list[tuple[str, Any]] = [("error", "rate"), ("refused", "rate"), ("latency_ms", "p95")]
    options: dict[str, Any] = {"experiment": experiment, "window_s": math.inf, "alpha": alpha}
    found = [watch(log, users, one, **options) for one in declared]
    for name, kind in usual:
        if (name, kind) not in names:
            change = change_of(log, users, Guardrail(name=name, kind=kind, margin=1.0), **options)
            if change:
                found.append(Watched(name=name, kind=kind, change=change))
    return found


def change_of(
    log: Log, users: Table, guardrail: Guardrail, *, experiment: str, window_s: float, alpha: float
) -> Change | None:
    """The change of what a guardrail watches, phases kept apart."""
    if guardrail.kind == "p95":
        return latency_change(log, users, experiment, alpha=alpha)
    if guardrail.name in FROM_EXPOSURES:
        cells = log.exposure_cells(users, experiment, guardrail.name)
    else:
        cells = log.cells(
            users, experiment, guardrail.name, window_s=window_s, is_rate=guardrail.kind == "rate"
        )
    if cells is None or cells.empty:
        return None
    if "n_found" in cells and not cells["n_found"].to_numpy().any():
        return _unknown(
            int(cells["n"].to_numpy().sum()), f"no outcome {guardrail.name!r} was recorded", alpha
        )
    return (
        rate_change(cells, alpha=alpha)
        if guardrail.kind == "rate"
        else _number_change(cells, guardrail, alpha)
    )


def rate_change(cells: pd.DataFrame, *, alpha: float = 0.05) -> Change:
    """Change of a rate over requests: Newcombe's interval on effective sample sizes, which holds for rare events too.

    Phases are weighted by n_control x n_treatment / n, whatever came out.

    Source: Newcombe 1998 method 10; effective sizes as Rao & Scott 1992.
    """
    parts = [_newcombe(old, new, alpha) for old, new in pairs(cells) if old.sum_x and new.sum_x]
    n = int(cells["n"].to_numpy().sum())
    if not parts:
        return _unknown(n, "a variant has no requests", alpha)
    total = sum(part["weight"] for part in parts)
    shares = [part["weight"] / total for part in parts]
    old, new, diff = (
        sum(w * part[name] for w, part in zip(shares, parts, strict=True))
        for name in ("old", "new", "diff")
    )
    fall, rise = (
        math.hypot(*(w * part[name] for w, part in zip(shares, parts, strict=True)))
        for name in ("fall", "rise")
    )
    notes, why = _carried(cells)
    return Change(
        estimate=diff,
        n=n,
        ci_low=diff - fall,
        ci_high=diff + rise,
        alpha=alpha,
        method="Newcombe by user",
        notes=notes,
        control=old,
        treatment=new,
        no_verdict=why,
    )


def _carried(cells: pd.DataFrame) -> tuple[tuple[str, ...], str]:
    """One user who outweighs a variant's other users, phase by phase."""
    found = [one_user({"control": old, "treatment": new}, rate=True) for old, new in pairs(cells)]
    why = next((one for _, one in found if one), "")
    notes = [note for some, _ in found for note in some]
    return (*notes, *([f"no verdict: {why}"] if why else [])), why


def latency_change(
    log: Log, users: Table, experiment: str, *, alpha: float = 0.05
) -> Change | None:
    """Change of the p95 latency in ms: histograms and counts below their p95 come from the engine.

    Source: Woodruff 1952 by user; the difference as Zou & Donner 2008.
    """
    histogram = log.latency_histogram(users, experiment)
    if histogram is None or histogram.empty:
        return None
    curves = {}
    for phase, arm in histogram[["phase", "treated"]].drop_duplicates().itertuples(index=False):
        curves[phase, arm] = histogram.loc[
            (histogram["phase"] == phase) & (histogram["treated"] == arm)
        ]
    cells = log.latency_cells(
        users, experiment, {arm: _quantile(part, _P95) for arm, part in curves.items()}
    )
    tests = []
    for phase, (old, new) in zip(sorted({phase for phase, _ in curves}), pairs(cells), strict=True):
        if (phase, 0) in curves and (phase, 1) in curves:
            sides = zip((0, 1), (old, new), strict=True)
            tests.append(
                quantile_test(*(_woodruff(curves[phase, arm], sums, alpha) for arm, sums in sides))
            )
    return _joined_quantiles(tests, alpha) if tests else None


def _newcombe(old: RatioSums, new: RatioSums, alpha: float) -> Mapping[str, float]:
    (rate_old, low_old, high_old), (rate_new, low_new, high_new) = (
        wilson_by_user(old, alpha),
        wilson_by_user(new, alpha),
    )
    return {
        "old": rate_old,
        "new": rate_new,
        "diff": rate_new - rate_old,
        "weight": old.n * new.n / (old.n + new.n),
        "fall": math.hypot(rate_new - low_new, high_old - rate_old),
        "rise": math.hypot(high_new - rate_new, rate_old - low_old),
    }


def _number_change(cells: pd.DataFrame, guardrail: Guardrail, alpha: float) -> Change:
    mean_of_requests = guardrail.name == "latency_ms" or guardrail.kind == "ratio"
    parts = phase_tests(cells, "ratio" if mean_of_requests else "mean", alpha=alpha)
    whole = parts[0] if len(parts) == 1 else combine_phases(parts, alpha=alpha)
    level = "rate" if mean_of_requests else "mean"
    old, new = (getattr(whole, f"{arm}_{level}", None) for arm in VARIANTS)
    return Change(
        estimate=whole.estimate,
        n=whole.n,
        ci_low=whole.ci_low,
        ci_high=whole.ci_high,
        alpha=alpha,
        method=whole.method,
        notes=whole.notes,
        control=old,
        treatment=new,
        no_verdict=whole.no_verdict,
        shown_as="number",
    )


def _unknown(n: int, why: str, alpha: float) -> Change:
    return Change(n=n, alpha=alpha, method="none", notes=(why,))


def _beyond(change: Change, guardrail: Guardrail) -> bool:
    best = change.ci_low if guardrail.better == "lower" else change.ci_high
    return best is not None and (best if guardrail.better == "lower" else -best) > guardrail.margin


def _woodruff(curve: pd.DataFrame, sums: RatioSums, alpha: float) -> QuantileInterval:
    low, high = (
        None if level is None else _quantile(curve, level)
        for level in quantile_levels(sums, _P95, alpha=alpha)
    )
    return QuantileInterval(
        estimate=_quantile(curve, _P95),
        n=sums.n,
        ci_low=low,
        ci_high=high,
        alpha=alpha,
        method="Woodruff by user",
        q=_P95,
    )


def _quantile(curve: pd.DataFrame, level: float) -> float:
    """The value at a level of a histogram, straight across the bin that reaches it."""
    n, ms = curve["n"].to_numpy(), curve["ms"].to_numpy()
    so_far = n.cumsum()
    at = int((so_far / so_far[-1]).searchsorted(level - 1e-12))
    inside = (level * so_far[-1] - (so_far[at] - n[at])) / n[at]
    return float(ms[at] * (1 - BIN * (1 - min(1.0, max(0.0, inside)))))


def _joined_quantiles(tests: Sequence[Any], alpha: float) -> Change:
    """One difference; several phases weighted by the inverse square of their intervals' width."""
    only, n = tests[0] if len(tests) == 1 else None, sum(one.n for one in tests)
    known = [one for one in tests if one.ci_low is not None and one.ci_high is not None]
    if only is None and not known:
        return _unknown(n, "too few users for an interval", alpha)
    middle, low, high = (only.estimate, only.ci_low, only.ci_high) if only else _weighted(known)
    return Change(
        estimate=middle,
        n=n,
        ci_low=low,
        ci_high=high,
        alpha=alpha,
        method="p95, Woodruff by user",
        shown_as="number",
        notes=tests[0].notes,
        control=only.control if only else None,
        treatment=only.treatment if only else None,
    )


def _weighted(tests: Sequence[Any]) -> tuple[float, float, float]:
    weights = [1 / max(one.ci_high - one.ci_low, 1e-9) ** 2 for one in tests]
    middle = sum(w * one.estimate for w, one in zip(weights, tests, strict=True)) / sum(weights)
    half = sum(weights) ** -0.5 / 2  # widths are twice a half
    return middle, middle - half, middle + half
