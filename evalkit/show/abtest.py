"""An A/B test for its readers, all but the effect: the plan, the log, what is watched and what is odd, who has looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from msgspec import structs

from evalkit import wording
from evalkit.abtest import plan as plans
from evalkit.abtest.analysis import Note
from evalkit.abtest.assignment import VARIANTS
from evalkit.abtest.effects import Watched
from evalkit.abtest.lock import LockedPlan
from evalkit.abtest.outcomes import WEEK, counted
from evalkit.abtest.plan import UNNAMED, ABPlan, Guardrail, Metric, Peeking
from evalkit.abtest.reading import CAUSES, NoReading, Reading
from evalkit.evidence import ABEvidence
from evalkit.show import style, tables
from evalkit.show import tracks as rows_of
from evalkit.show.effect import (
    DIFFERENCE,
    alt_of,
    headline,
    nothing_drawn,
    p_said,
    pictured,
    titled,
)
from evalkit.show.figure import picture
from evalkit.show.style import COLOURS
from evalkit.show.tables import Html, Row
from evalkit.show.tracks import Mark, Track, draw_line

NAMES = {
    "error": "Failed calls",
    "refused": "Refused answers",
    "truncated": "Truncated answers",
    "empty": "Empty answers",
    "latency_ms": "Slowest 5% wait at least",
}
_LATEST = 12
_FAR = 2.5  # margins either way
_NOTES = {
    "no_times": "the log is a table without times: days and weeks cannot be shown, outcomes count whenever they came, and "
    "nobody can tell whether the plan was made before them; where no column of users is named each row is a user of its own",
    "strays": "{part} rows are in neither of the two variants and left out: {names}",
    "nobody": "{part} rows without a user are left out ({sides})",
    "mixed_left_out": "{part} users in both variants are left out: without times nobody knows where they were first",
    "several_rows": "{part} users with several rows: each row counts as a request of its own, and errors are taken by user",
    "gaps": "{part} rows have no {about} ({sides}) and count as 0",
    "other_model": "{part} requests in {about} were not answered by the planned model, but by {names}: the difference "
    "between the models is larger than what is shown",
    "level_off": "{metric} is {level} of requests in control, where the plan expected {expected}",
    "once_a_user": "{metric} is {level} of requests in control, where the plan expected {expected}; it is recorded once for a "
    "user, not for each request: plan it as a mean",
    "no_slices": "no slices are shown: {n} outcomes of {metric} name no request_id",
}


# ---- a plan


def goal(plan: ABPlan, differs: Sequence[Row] = ()) -> Html:
    """What a plan wants to find, with which risks; `differs` is what the locked plan says otherwise, which counts."""
    said = tables.note(aim(plan))
    if not differs:
        return said
    title = "study.yaml differs from the locked plan, which counts; the figures of this chapter are drawn by study.yaml"
    columns = {"name": "Setting", "study": "study.yaml", "plan": "Locked plan, counts"}
    return tables.joined(said, tables.table(differs, caption=title, columns=columns))


def power(plan: ABPlan) -> Html:
    """The chance to show a true difference, by its size."""
    caption = "By the plan's own test. The zone is the wanted power; the mark: what it aims at. Dashed upright: a margin."
    return picture(draw_power, plan, alt=alt_plan(power_title(plan), plan), caption=caption)


def duration(plan: ABPlan) -> Html:
    """Days until the answer, by the treatment's share of users."""
    caption = "Whole weeks, at least one, with the outcome window of the last user."
    return picture(draw_duration, plan, alt=alt_plan(duration_title(plan), plan), caption=caption)


def peeking(plan: ABPlan, *, seed: int = 0, n_runs: int = 10_000) -> Html:
    """False alarms of daily looks, in that many A/A tests of the planned size, simulated now."""
    runs = plans.peeking(plan, seed=seed, n_runs=n_runs)
    title = f"{peeking_title(runs)}; looked at once, {runs.once:.1%}"
    caption = f"{runs.n_runs:,} tests of {len(runs.days)} days. Dashed: the level that was meant. Limits: O'Brien-Fleming."
    return picture(draw_peeking, runs, alt=alt_plan(title, plan), caption=caption, simulated=True)


def margins(plan: ABPlan) -> Html:
    """The plan's guardrails as a table."""
    rows = [
        {
            "What is watched": label(one),
            "May be worse by": moved(one, one.margin).lstrip("+"),
            "Better": one.better,
        }
        for one in plan.guardrails
    ]
    return tables.table(rows, caption="Guardrails of the plan")


def clustering(plan: ABPlan, seen: float | None) -> Html:
    """The design effect in a log beside the one that was planned with."""
    if seen is None:
        return tables.note("No log says yet how much alike the requests of one user are.")
    return tables.note(
        f"In the log requests of one user make a design effect of {wording.number(seen)}; this plan has "
        f"{plan.design_effect:g}. Where the log's is larger, give it to the next plan; a locked one stays as it is."
    )


def plan(found: LockedPlan | NoReading) -> Html:
    """The locked plan in sentences, and every change since."""
    if isinstance(found, NoReading):
        return tables.note(f"{headline(found)}.")
    said = tables.note(
        f"Locked {found.locked_at[:10]}, sha256 {found.sha256[:16]}...: {planned(found.plan)}. {aim(found.plan)} "
        f"{wording.plural(len(found.amendments), 'amendment')}."
    )
    rows = []
    for one in found.amendments:
        changed = "; ".join(f"{name}: {old} to {new}" for name, (old, new) in one.changed.items())
        row = {"when": one.at[:10], "reason": one.reason, "phase": one.phase, "changed": changed}
        rows.append(row)
    changes = [tables.table(rows, caption="Amendments of the plan")] if rows else []
    return tables.joined(said, *changes)


@tables.answer.register
def _answer_of_a_plan(found: ABPlan) -> Html:
    return tables.answer(f"{needed(found)}. {power_title(found)}.")


def aim(plan: ABPlan) -> str:
    """What the plan wants to find, with which risks."""
    one = plan.primary
    name = one.name.replace("_", " ") + (", lower is better" if one.lower_is_better else "")
    if one.expected is not None:
        expected = wording.percent(one.expected) if one.is_rate else f"{one.expected:g}"
        name += f", expected at {expected}"
    risks = f"level {wording.percent(plan.alpha, 0)}, power {wording.percent(plan.power, 0)}"
    if one.margin:
        asked = f"to be shown not worse by more than {_accepted(one)}"
        risks += f", one-sided {plan.alpha / 2:.1%}"
    else:
        size = f"{wording.points(one.aim)} points" if one.is_rate else wording.signed(one.aim)
        asked = f"worth finding: {size}"
    return f"The metric that decides: {name}; {asked} ({risks})."


def _accepted(one: Metric) -> str:
    return wording.loss(one.margin, "points" if one.is_rate else "number")


def power_title(plan: ABPlan) -> str:
    """What the planned users can find, in one sentence."""
    one, users = plan.primary, wording.count(plan.n_users)
    chance = wording.percent(plans.power_at(plan, 0.0 if one.margin else one.aim), 0)
    if one.margin:
        return f"{users} users rule out a loss of {_accepted(one)} in {chance} of tests of equal models"
    size = abs(one.detectable_difference)
    told = f"{wording.points(size, sign=False)} points" if one.is_rate else wording.number(size)
    return f"{users} users show a true difference of {told} with a chance of {chance}"


def duration_title(plan: ABPlan) -> str:
    """How long the chosen split takes, and how much an even one would."""
    even = plan.changed(traffic_split=0.5)
    text = f"At {wording.percent(plan.traffic_split, 0)} treatment the test takes {plan.days} days"
    return text if even.days >= plan.days else f"{text}; an even split would take {even.days}"


def peeking_title(runs: Peeking) -> str:
    """What daily looks do, in one sentence."""
    naive, bounded = wording.percent(runs.naive[-1]), wording.percent(runs.bounded[-1])
    return f"Looking every day finds a winner in {naive} of tests without any; with limits in {bounded}"


def planned(plan: ABPlan) -> str:
    """A plan in one sentence."""
    many = f"{plan.looks} looks with O'Brien-Fleming limits"
    looks = many if plan.looks > 1 else "one look at the end"
    return (
        f"{wording.count(plan.n_control)} control and {wording.count(plan.n_treatment)} treatment users, about "
        f"{plan.days} days at {wording.count(plan.users_per_day)} new users a day; {looks}; outcomes count for "
        f"{wording.plural(plan.outcome_window_days, 'day')} after a user's first request"
    )


def needed(plan: ABPlan) -> str:
    """What a locked plan, or a draft, asks for."""
    if plan.experiment_name == UNNAMED:
        return f"Nothing is locked. With the numbers given a test would need {planned(plan)}"
    return f"The locked plan needs {planned(plan)}"


def alt_plan(title: str, plan: ABPlan) -> str:
    """A figure on a plan as an alternative text."""
    return f"{title}. The plan: {planned(plan)}."


def draw_power(plan: ABPlan, *, narrow: bool = False) -> Axes:
    """The chance to show a true difference, by its size, with the planned users."""
    differences, powers = plans.power_curve(plan)
    _, ax = style.canvas(3.2, narrow=narrow, width=style.HALF)
    scale = 100 if plan.primary.kind == "rate" else 1
    aim = abs(plan.primary.detectable_difference)
    x = np.array(differences) * scale
    ax.axhspan(plan.power, 1, color=COLOURS["pass_zone"], lw=0)
    draw_line(ax, "limit", plan.power, vertical=False)
    sns.lineplot(x=x, y=powers, color=COLOURS["fine_tuned"], lw=2, ax=ax)
    at, reached = (0.0, 0.0) if plan.primary.margin else (aim, plan.primary.aim)
    ax.plot(at * scale, plans.power_at(plan, reached), "o", ms=9, color=COLOURS["fine_tuned"])
    ax.set(ylim=(0, 1.03), xlim=(x[0], x[-1]))
    if plan.primary.margin:
        draw_line(ax, "limit", x[0])
        draw_line(ax, "zero")
    ax.yaxis.set_major_formatter(lambda value, _: wording.percent(value, 0))
    gain = "true gain, the margin at the left" if plan.primary.margin else "true difference"
    ax.set_xlabel(gain + (", points" if scale == 100 else ""))
    return style.titled(ax, power_title(plan), narrow=narrow, above="chance to show it")


def draw_duration(plan: ABPlan, *, narrow: bool = False) -> Axes:
    """Days until the answer, by the treatment's share of traffic."""
    rows = plans.durations(plan)
    splits = [wording.percent(row.traffic_split, 0) for row in rows]
    chosen = [row.traffic_split == plan.traffic_split for row in rows]
    days = [row.days for row in rows]
    most = max(days)
    _, ax = style.canvas(0.9 + 0.36 * len(rows), narrow=narrow, width=style.HALF)
    roles = {True: COLOURS["fine_tuned"], False: COLOURS["base"]}
    look = {"palette": roles, "saturation": 1, "width": 0.62, "legend": False}
    sns.barplot(x=days, y=splits, hue=chosen, ax=ax, **look)
    for y, row in enumerate(rows):
        text = f"{row.days} days, {wording.count(row.n_users)} users"
        weight = "bold" if chosen[y] else "normal"
        ax.text(row.days + most * 0.02, y, text, va="center", fontsize=9, weight=weight)
    ax.set_xlim(0, most * (2.1 if narrow else 1.55))
    ax.set_xticks(rows_of.round_ticks(0, most))
    ax.set_xlabel("days, in whole weeks")
    return style.titled(
        ax, duration_title(plan), narrow=narrow, above="share of users in treatment"
    )


def draw_peeking(runs: Peeking, *, narrow: bool = False) -> Axes:
    """False alarms so far in tests where nothing differs, by the way they are looked at."""
    _, ax = style.canvas(3.3, narrow=narrow)
    ways = (
        (f"every day, p < {runs.alpha:g}", runs.naive, "bad"),
        ("from the minimum on", runs.after_minimum, "unsure"),
        ("every day, limits", runs.bounded, "good"),
    )
    top, at = max(0.1, max(runs.naive) * 1.2), -1.0
    for name, values, role in sorted(ways, key=lambda way: way[1][-1]):
        sns.lineplot(x=runs.days, y=values, color=COLOURS[role], lw=2, ax=ax)
        at = max(values[-1], at + 0.14 * top)  # two lines of words need their room
        rows_of.beside(ax, runs.days[-1], at, f"{wording.percent(values[-1])}\n{name}", role)
    ax.plot([0, runs.days[-1]], [runs.alpha] * 2, color=COLOURS["ink"], lw=1.9, ls=style.DASHES)
    ax.set(ylim=(0, top), xlim=(0, runs.days[-1] * (1.75 if narrow else 1.3)))
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))  # ticks in whole percent
    ax.yaxis.set_major_formatter(lambda value, _: wording.percent(value, 0))
    ax.set_xticks(sorted({1, (1 + runs.days[-1]) // 2, runs.days[-1]}))
    ax.set_xlabel("day of the test")
    return style.titled(
        ax, peeking_title(runs), narrow=narrow, above="tests with a false winner so far"
    )


# ---- a log, and what is watched in it


def sample_ratio(found: Reading | NoReading) -> Html:
    """The split against the declared one, phase by phase; where it is broken, the usual causes."""
    alt = _alt(found, sample_ratio_said(found), _shares(found))
    caption = "Chi-square on users, phase by phase; alarm below 0.001."
    drawn = pictured(draw_sample_ratio, found, alt, caption)
    if found.valid:
        return drawn
    causes = [{"Cause": one} for one in CAUSES]
    return tables.joined(drawn, tables.table(causes, caption="Usual causes of a broken split"))


def sample_ratio_said(found: Reading | NoReading) -> str:
    """Is the split the declared one?"""
    off = [one for one in found.sample_ratio if one.test.verdict == "invalid"]
    if off:
        worst = min(off, key=lambda one: one.test.p_value or 0.0)
        return f"The split is broken in phase {worst.phase}: p {p_said(worst.test.p_value)} under the declared split"
    n = sum(one.test.n for one in found.sample_ratio)
    return f"No alarm about the split: {wording.count(n)} users" if n else "No users yet"


def _shares(found: Reading | NoReading) -> list[Track]:
    """The treatment's share of users in each phase."""
    tracks = []
    for one in found.sample_ratio:
        test, declared = one.test, one.traffic_split
        if test.estimate is None:
            continue
        seen = test.estimate + declared
        low, high = (None if at is None else at + declared for at in (test.ci_low, test.ci_high))
        kind = "worse" if test.verdict == "invalid" else "fine_tuned"
        under = f"{wording.count(test.n)} users, declared {wording.percent(declared, 0)}"
        value = f"{wording.percent(seen)} ({wording.percent(low)} to {wording.percent(high)})"
        mark = Mark(estimate=seen, low=low, high=high, kind=kind)
        tracks.append(Track(name=f"Phase {one.phase}", under=under, marks=(mark,), value=value))
    return tracks


def draw_sample_ratio(found: Reading | NoReading, *, narrow: bool = False) -> Axes:
    """The treatment's share of users in each phase against the declared split."""
    tracks = _shares(found)
    if not tracks:
        return nothing_drawn(found, sample_ratio_said(found), narrow=narrow)
    declared = [one.traffic_split for one in found.sample_ratio if one.test.estimate is not None]
    marks = [mark for track in tracks for mark in track.marks]
    ends = [at for one in marks for at in (one.low, one.high, one.estimate) if at is not None]
    ends += declared
    pad = 0.08 * (max(ends) - min(ends)) or 0.01
    limits = (min(ends) - pad, max(ends) + pad)
    ticks = rows_of.round_ticks(*limits, n=4 if narrow else 6, steps=(1, 2, 5, 10))
    ax = rows_of.tracks_axes(tracks, limits, ticks, wording.percent, narrow=narrow)
    for place, at in enumerate(declared):
        rows_of.dashed(ax, at, place, narrow=narrow)
    dashed = "" if narrow else "; dashed: as declared"
    ax.set_xlabel(f"treatment's share of users (99.9% interval){dashed}")
    return style.titled(ax, sample_ratio_said(found), narrow=narrow)


def watched(found: Reading | NoReading) -> Html:
    """What is watched, in a table: levels, differences, limits."""
    numeric = ("Control", "Treatment", DIFFERENCE, "Limit")
    title = titled("What is watched", found)
    return tables.table(watched_rows(found), caption=title, numeric=numeric)


def watched_said(found: Reading | NoReading) -> str:
    """Do the guardrails hold?"""
    rails = found.guardrails if found.valid else ()
    if not rails:
        none = found.plan is not None and not found.plan.plan.guardrails
        return "The plan declares no guardrail" if none else "No guardrail can be shown yet"
    broken = [label(one) for one in rails if one.verdict == "worse"]
    unsettled = [label(one) for one in rails if one.verdict not in {"not worse", "worse"}]
    if broken:
        return f"Worse beyond its limit: {wording.listed(broken)}"
    if unsettled:
        return f"Not shown to hold yet: {wording.listed(unsettled)}"
    return "Every guardrail holds"


def watched_rows(found: Reading | NoReading) -> list[Row]:
    """Health and guardrails; calls, waiting times and the like are not the effect and may be shown at any time."""
    rows = []
    for one in (*found.health, *(found.findings.guardrails if found.findings else ())):
        change, scale = one.change, "points" if one.kind == "rate" else "number"
        said = change.notes[0] if change.notes else "no interval"
        if change.ci_low is not None:
            said = wording.limits(change.ci_low, change.ci_high, scale)
        worse = one.margin if one.margin is None or one.better == "lower" else -one.margin
        rows.append(
            {
                "What is watched": label(one),
                "Control": _level(one, change.control_rate),
                "Treatment": _level(one, change.treatment_rate),
                DIFFERENCE: f"{moved(one, change.estimate)} ({said})",
                "Limit": moved(one, worse),
                "Status": one.verdict,
            }
        )
    return rows


def guardrails(found: Reading | NoReading) -> Html:
    """Each guardrail's change as a share of its margin."""
    said = watched_said(found)
    if not found.guardrails:
        return tables.note(f"{said}.")
    caption = (
        "Change as a share of the margin; an arrow at the edge: further off. "
        "The whole interval must stay left of the limit."
    )
    return pictured(draw_guardrails, found, _alt(found, said, _changes(found)), caption)


def draw_guardrails(found: Reading | NoReading, *, narrow: bool = False) -> Axes:
    """Each guardrail's change as a share of its margin: it holds when the whole interval stays left of the limit."""
    tracks = _changes(found)
    if not tracks:
        return nothing_drawn(found, watched_said(found), narrow=narrow)
    limits, name = (-_FAR, _FAR), lambda at: "limit" if at else "no change"
    ax = rows_of.tracks_axes(tracks, limits, [0, 1], name, narrow=narrow)
    spans = rows_of.spans(tracks, narrow=narrow)
    rows_of.pass_zone(ax, -_FAR, 1, spans=spans)
    draw_line(ax, "zero", spans=spans)
    draw_line(ax, "limit", 1.0, spans=spans)
    ax.set_xlabel("better ←  change as a share of the margin  → worse")
    return style.titled(ax, watched_said(found), narrow=narrow)


def _changes(found: Reading | NoReading) -> list[Track]:
    """Changes as shares of their margins, positive = worse."""
    tracks = []
    for one in found.guardrails:
        change, unit = one.change, (one.margin or 1.0) * (1 if one.better == "lower" else -1)
        if change.estimate is None:
            continue
        ends = sorted(end / unit for end in (change.ci_low, change.ci_high) if end is not None)
        low, high = ends if len(ends) == 2 else (None, None)
        mark = Mark(estimate=change.estimate / unit, low=low, high=high, kind=one.verdict)
        value = moved(one, change.estimate)
        tracks.append(Track(name=label(one), under=one.verdict, marks=(mark,), value=value))
    return tracks


def _alt(found: Reading | NoReading, title: str, tracks: Sequence[Track]) -> str:
    """A figure of rows as an alternative text."""
    return alt_of(found, [title, *(f"{one.name}: {one.value}, {one.under}" for one in tracks)])


def label(one: Guardrail | Watched) -> str:
    """A guardrail's name in words."""
    if one.name == "latency_ms" and one.kind != "p95":
        return "Mean waiting time"
    return NAMES.get(one.name, one.name.replace("_", " ").capitalize())


def moved(one: Guardrail | Watched, value: float | None) -> str:
    """A difference of something watched with its unit."""
    if value is None or one.kind == "rate":
        return wording.amount(value)
    return wording.signed(value) + (" ms" if one.name == "latency_ms" else "")


def _level(one: Watched, value: float | None) -> str:
    if value is None or one.kind == "rate":
        return wording.percent(value)
    return f"{wording.count(value)} ms" if one.name == "latency_ms" else wording.number(value)


# ---- what is unusual, and who has looked


def log_notes(found: Reading | NoReading, *, since: Reading | NoReading | None = None) -> Html:
    """Anything unusual about the log; `since` leaves out what was told of that reading."""
    before = notes(since) if since else []
    told = [f"{one[0].upper()}{one[1:]}." for one in notes(found) if one not in before]
    return tables.note(" ".join(told) or "Nothing unusual is known.")


def notes(found: Reading | NoReading) -> list[str]:
    """All of it, a clause each: of the log, then of the plan, then of the outcomes."""
    if isinstance(found, NoReading):
        return []
    told, plan, done = [_said(one, found) for one in found.notes], found.plan, found.findings
    primary = plan.plan.primary
    if not found.n_users:
        told.append(f"the log has no users of experiment {plan.plan.experiment_name}")
    if found.n_mixed:
        told.append(
            f"{wording.plural(found.n_mixed, 'user')} of {wording.count(found.n_users)} seen in both variants (ids shared, two "
            f"splits at work, or a split raised while they used it); each counts where seen first"
        )
    if found.came_first:
        told.append(
            f"the plan was locked on {plan.locked_at[:10]}, after users had come (from {found.came_first[:10]}): it was not "
            f"made before the facts"
        )
    if primary.detectable_difference < 0 and not primary.lower_is_better:
        told.append(
            f"the plan looks for a fall of {primary.name} and counts higher as better; where a fall is good, a new plan says "
            f"better: lower"
        )
    if found.timed and not plan.plan.outcome_window_days:
        told.append(
            "no outcome window is planned: outcomes of later days still change what was read, and looks count users seen"
        )
    if done and done.days % WEEK:
        came = f"the users of this look came on {wording.plural(done.days, 'day')}"
        told.append(f"{came}, not in whole weeks: weekdays may weigh unevenly")
    if done:
        told += [text] if (text := done.outcomes.sentence()) else []
        told += [_said(one, found) for one in done.notes]
    if found.off_record:
        again = "; the same look was recorded before, so its effect is shown" if done else ""
        told.append(f"this look could not be put on record ({found.off_record}){again}")
    return told


def _said(one: Note, found: Reading) -> str:
    metric = found.plan.plan.primary
    pairs = zip(VARIANTS, one.by_variant, strict=False)
    share = wording.percent(one.n / one.of if one.of else None)
    level = found.findings.primary.control_rate if found.findings else None
    return _NOTES[one.kind].format(
        n=wording.count(one.n),
        part=f"{wording.count(one.n)} of {wording.count(one.of)} ({share})",
        names=wording.listed(counted(one.names)),
        sides=", ".join(f"{wording.count(n)} in {variant}" for variant, n in pairs),
        about=wording.visible(one.about),
        metric=metric.name,
        level=wording.percent(level),
        expected=wording.percent(metric.expected),
    )


def written(record: ABEvidence, found: Reading | NoReading) -> ABEvidence:
    """The record as its file has it: with the notes in words, for people who open it."""
    if isinstance(found, NoReading):
        return record
    reported = record.details.reported | {"notes": notes(found)}
    return replace(record, details=structs.replace(record.details, reported=reported))


def ledger(found: pd.DataFrame) -> Html:
    """The latest looks, newest first, from `Study.ledger`."""
    latest = found.tail(_LATEST).iloc[::-1].astype(object)
    latest = latest.where(latest.notna(), None)
    rows = [
        {
            "When": f"{one.at:%Y-%m-%d %H:%M}",
            "Run": one.run or "by hand",
            "Look": wording.NOTHING if one.look is None else one.look,
            "Information": wording.percent(one.information, 0),
            "Users": wording.count(one.n_control + one.n_treatment),
            "Effect shown": "yes" if one.effect_shown else "no",
            "Verdict": one.verdict,
        }
        for one in latest.itertuples()
    ]
    simulated = bool(found["simulated"].fillna(False).any())
    title = f"The latest looks{' (simulated users)' if simulated else ''}"
    return tables.table(rows, caption=title)
