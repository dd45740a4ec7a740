"""What a reading says, in sentences and table rows: titles, alternative texts and the answer, all computed from the result."""

from __future__ import annotations

from typing import Any

from evalkit import wording
from evalkit.abtest.chapter import NoReading
from evalkit.abtest.effects import Effect
from evalkit.abtest.guardrails import Change, Watched
from evalkit.abtest.plan import ABPlan
from evalkit.abtest.reading import CAUSES, Reading

NAMES = {
    "error": "Failed calls", "refused": "Refused answers", "truncated": "Truncated answers", "empty": "Empty answers",
    "latency_ms": "Slowest 5% wait at least",
}  # fmt: skip
WATCHED_COLUMNS = {
    "name": "What is watched", "control": "Control", "treatment": "Treatment", "change": "Difference (95% interval)",
    "limit": "Limit", "status": "Status",
}  # fmt: skip
PART_COLUMNS = {
    "name": "Part", "n": "Users", "control": "Control", "treatment": "Treatment", "effect": "Difference (95% interval)",
    "p": "p (Holm)",
}  # fmt: skip


def answer(found: Reading | NoReading) -> str:
    """The chapter's answer."""
    text = f"{headline(found)}."
    if isinstance(found, Reading) and found.findings and found.valid:
        text += f" {figures(found.findings.primary)}"
    if found.missing:
        text += f" Missing: {found.missing[0].action} ({found.missing[0].price})."
    return f"{text} Users are simulated." if found.simulated else text


def headline(found: Reading | NoReading) -> str:
    """The verdict in one clause; without any effect while that is withheld."""
    if isinstance(found, NoReading):
        return found.why.rstrip(".")
    if not found.valid:
        return "Invalid: the sample ratio is off, so no winner is named and no effect is shown"
    if found.findings is None:
        return f"Too early: {held(found)}"
    test, name = found.findings.primary, metric(found)
    size = difference(test, test.estimate, sign=False)
    return {
        "better": f"Better: users of the treatment have {name} higher by {size}",
        "worse": f"Worse: users of the treatment have {name} lower by {size}",
        "too early": f"Too early: at look {test.look} of {test.looks} the difference in {name} is inside the limits",
    }.get(test.verdict, f"No difference shown in {name} after the planned users")


def held(found: Reading) -> str:
    """Why the effect is withheld, in users and days."""
    state = found.schedule
    n = wording.count(state.closed_control + state.closed_treatment)
    more = f"{wording.plural(state.users_more, 'more user')}, about {wording.plural(state.days_more, 'day')}"
    return f"{n} of {wording.count(found.plan.n_users)} planned users count, {more} to the next look"


def figures(test: Effect) -> str:
    """Estimate, interval, levels and p in one sentence."""
    span = f"{difference(test, test.ci_low)} to {difference(test, test.ci_high)}"
    text = f"Difference {difference(test, test.estimate)} (95% interval {span}): {level(test, test.control_rate)} in control, "
    text += f"{level(test, test.treatment_rate)} in treatment, {wording.count(test.n)} users"
    if test.bound is not None and test.z_score is not None:
        return f"{text}; z = {wording.number(test.z_score)} against a limit of {wording.number(test.bound)}."
    return f"{text}; p {_p(test.p_value)}."


def sample_ratio(found: Reading | NoReading) -> str:
    """Is the split the declared one?"""
    if isinstance(found, NoReading) or not any(one.test.n for one in found.sample_ratio):
        return "No users yet"
    off = [one for one in found.sample_ratio if one.test.verdict == "invalid"]
    if off:
        worst = min(off, key=lambda one: one.test.p_value or 0.0)
        return f"The split is broken in phase {worst.phase}: p {_p(worst.test.p_value)} under the declared split"
    return f"The split is as declared: {wording.count(found.n_users)} users, no alarm"


def sample_ratio_rows(found: Reading | NoReading) -> list[dict[str, Any]]:
    """Users per phase against the declared split."""
    if isinstance(found, NoReading):
        return []
    return [
        {
            "phase": one.phase, "control": wording.count(one.n_control), "treatment": wording.count(one.n_treatment),
            "declared": wording.percent(one.traffic_split),
            "observed": wording.percent(one.n_treatment / one.test.n if one.test.n else None),
            "p": wording.p_text(one.test.p_value), "status": "alarm" if one.test.verdict == "invalid" else "passes",
        }
        for one in found.sample_ratio
    ]  # fmt: skip


def causes(found: Reading | NoReading) -> list[dict[str, str]]:
    """The usual causes of a broken split; none when it is not broken."""
    return [] if found.valid else [{"cause": one} for one in CAUSES]


def watched(found: Reading | NoReading) -> str:
    """Do the guardrails hold?"""
    rails = found.guardrails if isinstance(found, Reading) and found.valid else ()
    if not rails:
        return "No guardrail can be shown yet"
    broken = [label(one.name) for one in rails if one.verdict == "worse"]
    unsettled = [label(one.name) for one in rails if one.verdict not in {"not worse", "worse"}]
    if broken:
        return f"Worse beyond its limit: {wording.listed(broken)}"
    return f"Not shown to hold yet: {wording.listed(unsettled)}" if unsettled else "Every guardrail holds"


def watched_rows(found: Reading | NoReading) -> list[dict[str, Any]]:
    """Health and guardrails; calls, waiting times and the like are not the effect and may be shown at any time."""
    if isinstance(found, NoReading):
        return []
    shown = (*found.health, *(found.findings.guardrails if found.findings else ()))
    return [_watched_row(one) for one in shown]


def label(name: str) -> str:
    """A guardrail's name in words."""
    return NAMES.get(name, name.replace("_", " ").capitalize())


def amount(change: Change, value: float | None, name: str = "", *, sign: bool = False) -> str:
    """A level or difference of something watched, in its unit."""
    if value is None:
        return wording.NOTHING
    if change.shown_as == "points":
        return wording.points(value) if sign else wording.percent(value)
    unit = " ms" if name == "latency_ms" else ""
    return f"{wording.signed(value) if sign else wording.number(value)}{unit}"


def part_rows(rows: Any, found: Reading) -> list[dict[str, Any]]:
    """Days, slices or further metrics as table rows."""
    test = found.findings.primary if found.findings else None
    return [
        {
            "name": one["name"], "n": wording.count(one["n"]), "control": level(test, one["control_rate"]),
            "treatment": level(test, one["treatment_rate"]),
            "effect": f"{difference(test, one['estimate'])} ({difference(test, one['ci_low'])} to "
            f"{difference(test, one['ci_high'])})",
            "p": wording.p_text(one["p_adjusted"]),
        }
        for one in rows if test
    ]  # fmt: skip


def slices(found: Reading | NoReading) -> str:
    """Does the effect differ between slices?"""
    rows = found.findings.by_slice if found.findings else ()
    if not rows:
        return "No slices to show"
    by = {word: [one["name"] for one in rows if one["verdict"] == word] for word in ("better", "worse")}
    said = [f"{word} in {wording.listed(names)}" for word, names in by.items() if names]
    return f"After Holm's correction: {wording.listed(said)}" if said else f"No difference shown in any of {len(rows)} slices"


def article(found: Reading) -> str:
    """The article's test over requests, beside the one by user."""
    if not found.findings or found.findings.article is None:
        return "The article's test over requests is not made here: it needs a rate and a single split."
    test, by_user, inflation = found.findings.article, found.findings.primary, found.findings.design_effect
    z = "undefined" if test.z_score is None else wording.number(test.z_score)
    span = f"{wording.points(test.ci_low)} to {wording.points(test.ci_high)} by Newcombe"
    text = f"The article's test counts requests: z = {z}, p {_p(test.p_value)}, {wording.points(test.diff)} points ({span})."
    if test.lift is not None:
        lift = f"{wording.percent(test.lift)} ({wording.percent(test.lift_ci_low)} to {wording.percent(test.lift_ci_high)})"
        text += f" Relative lift {lift}."
    if inflation and by_user.z_score is not None:
        text += f" By user, as they were randomised, z = {wording.number(by_user.z_score)}: the variance is "
        text += f"{wording.number(inflation)} times as large."
    return text


def metric(found: Reading) -> str:
    """The primary metric in words."""
    return found.plan.plan.primary.name.replace("_", " ")


def difference(test: Effect | None, value: float | None, *, sign: bool = True) -> str:
    """A difference in points or in the metric's unit."""
    if value is None:
        return wording.NOTHING
    if test is not None and test.shown_as == "points":
        return f"{wording.points(value, sign=sign)} points"
    return wording.signed(value) if sign else wording.number(abs(value))


def level(test: Effect | None, value: float | None) -> str:
    """A level in percent or in the metric's unit."""
    return wording.percent(value) if test is not None and test.shown_as == "points" else wording.number(value)


def planned(plan: ABPlan) -> str:
    """A plan in one sentence."""
    looks = "one look at the end" if plan.looks == 1 else f"{plan.looks} looks with O'Brien-Fleming limits"
    return (
        f"{wording.count(plan.n_control)} control and {wording.count(plan.n_treatment)} treatment users, about "
        f"{plan.days} days at {wording.count(plan.users_per_day)} new users a day; {looks}; outcomes count for "
        f"{wording.plural(plan.outcome_window_days, 'day')} after a user's first request"
    )


def _watched_row(one: Watched) -> dict[str, Any]:
    change, name = one.change, one.name
    span = f"{amount(change, change.ci_low, name, sign=True)} to {amount(change, change.ci_high, name, sign=True)}"
    limit = None if one.margin is None else one.margin if one.better == "lower" else -one.margin
    return {
        "name": label(name), "control": amount(change, change.control, name),
        "treatment": amount(change, change.treatment, name),
        "change": f"{amount(change, change.estimate, name, sign=True)} ({span})",
        "limit": amount(change, limit, name, sign=True), "status": one.verdict,
    }  # fmt: skip


def _p(p_value: float | None) -> str:
    text = wording.p_text(p_value)
    return text if text.startswith("<") else "undefined" if p_value is None else f"= {text}"
