"""What a plan and a reading say, as rows for tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalkit import wording
from evalkit.abtest import words
from evalkit.abtest.chapter import NoReading
from evalkit.abtest.guardrails import Change, Watched
from evalkit.abtest.plan import ABPlan, Guardrail
from evalkit.abtest.reading import CAUSES, Reading

WATCHED_COLUMNS = {
    "name": "What is watched",
    "control": "Control",
    "treatment": "Treatment",
    "change": "Difference (95% interval)",
    "limit": "Limit",
    "status": "Status",
}
PART_COLUMNS = {
    "name": "Part",
    "n": "Users",
    "control": "Control",
    "treatment": "Treatment",
    "effect": "Difference (95% interval)",
    "p": "p (Holm)",
}
LEDGER_COLUMNS = {
    "at": "When",
    "run": "Run",
    "look": "Look",
    "information": "Information",
    "users": "Users",
    "effect_shown": "Effect shown",
    "verdict": "Verdict",
}
_LATEST = 12


def sample_ratio_rows(found: Reading | NoReading) -> list[dict[str, Any]]:
    """Users per phase against the declared split."""
    if isinstance(found, NoReading):
        return []
    return [
        {
            "phase": one.phase,
            "control": wording.count(one.n_control),
            "treatment": wording.count(one.n_treatment),
            "declared": wording.percent(one.traffic_split),
            "observed": wording.percent(one.n_treatment / one.test.n if one.test.n else None),
            "p": wording.p_text(one.test.p_value),
            "status": "alarm" if one.test.verdict == "invalid" else "passes",
        }
        for one in found.sample_ratio
    ]


def causes(found: Reading | NoReading) -> list[dict[str, str]]:
    """The usual causes of a broken split; none when it is not broken."""
    return [] if found.valid else [{"cause": one} for one in CAUSES]


def watched_rows(found: Reading | NoReading) -> list[dict[str, Any]]:
    """Health and guardrails; calls, waiting times and the like are not the effect and may be shown at any time."""
    if isinstance(found, NoReading):
        return []
    shown = (*found.health, *(found.findings.guardrails if found.findings else ()))
    return [_watched_row(one) for one in shown]


def part_rows(rows: Any, found: Reading | NoReading) -> list[dict[str, Any]]:
    """Days, slices or further metrics as table rows."""
    test = found.findings.primary if found.findings else None
    return [
        {
            "name": one["name"],
            "n": wording.count(one["n"]),
            "control": words.level(test, one["control_rate"]),
            "treatment": words.level(test, one["treatment_rate"]),
            "effect": f"{words.difference(test, one['estimate'])} ({words.span(test, one['ci_low'], one['ci_high'])})",
            "p": wording.p_text(one["p_adjusted"]),
        }
        for one in rows
        if test
    ]


def _watched_row(one: Watched) -> dict[str, Any]:
    change, name = one.change, one.name
    limit = None if one.margin is None else one.margin if one.better == "lower" else -one.margin
    unit, level_unit = (
        words.unit(change, name),
        "" if change.shown_as == "points" else words.unit(change, name),
    )
    middle, low, high, most = (
        words.amount(change, v, sign=True)
        for v in (change.estimate, change.ci_low, change.ci_high, limit)
    )
    old, new = (words.amount(change, value, name) for value in (change.control, change.treatment))
    return {
        "name": words.label(one),
        "control": f"{old}{level_unit}",
        "treatment": f"{new}{level_unit}",
        "change": _without_interval(change, middle + unit)
        if change.ci_low is None
        else f"{middle}{unit} ({low} to {high})",
        "limit": most if limit is None else f"{most}{unit}",
        "status": one.verdict,
    }


def _without_interval(change: Change, text: str) -> str:
    return f"{wording.NOTHING if change.estimate is None else text} ({change.notes[0] if change.notes else 'no interval'})"


def slice_rows(found: Reading | NoReading) -> list[dict[str, Any]]:
    """The effect in each slice."""
    return part_rows(found.findings.by_slice if found.findings else (), found)


def day_rows(found: Reading | NoReading) -> list[dict[str, Any]]:
    """The effect on the users of each day."""
    return part_rows(found.findings.by_day if found.findings else (), found)


def guardrail_rows(plan: ABPlan) -> list[dict[str, Any]]:
    """The plan's guardrails."""
    return [
        {"What is watched": words.label(one), "May be worse by": _margin(one), "Better": one.better}
        for one in plan.guardrails
    ]


def _margin(one: Guardrail) -> str:
    if one.kind == "rate":
        return f"{wording.points(one.margin, sign=False)} points"
    return f"{one.margin:g} ms" if one.name == "latency_ms" else f"{one.margin:g}"


def amendment_rows(found: Reading | NoReading) -> list[dict[str, Any]]:
    """Every change of the plan since it was locked."""
    changes = found.plan.amendments if found.plan else ()
    return [
        {
            "when": one.at[:10],
            "reason": one.reason,
            "phase": one.phase,
            "changed": "; ".join(
                f"{name}: {old} to {new}" for name, (old, new) in one.changed.items()
            ),
        }
        for one in changes
    ]


def ledger_rows(looks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The latest looks at the test, newest first."""
    return [
        {
            "at": one["at"][:16].replace("T", " "),
            "run": one["run"] or "by hand",
            "look": one["look"] or wording.NOTHING,
            "information": wording.percent(one["information"], 0),
            "users": wording.count(one["n_control"] + one["n_treatment"]),
            "effect_shown": "yes" if one["effect_shown"] else "no",
            "verdict": one["verdict"],
        }
        for one in reversed(looks[-_LATEST:])
    ]
