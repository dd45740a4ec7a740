"""An A/B test for its readers, all but the effect: the plan, whether the split holds, what is watched, who has looked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from evalkit import wording
from evalkit.abtest import plan as plans
from evalkit.abtest.effects import Watched
from evalkit.abtest.lock import LockedPlan
from evalkit.abtest.plan import UNNAMED, ABPlan, Guardrail, Metric, Peeking
from evalkit.abtest.reading import CAUSES, NoReading, PhaseUsers, Reading
from evalkit.show import style, tables
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
from evalkit.show.tracks import (
    Mark,
    Track,
    beside,
    dashed,
    draw_line,
    pass_zone,
    round_ticks,
    spans,
    tracks_axes,
)

NAMES = {
    "error": "Failed calls",
    "refused": "Refused answers",
    "truncated": "Truncated answers",
    "empty": "Empty answers",
    "latency_ms": "Slowest 5% wait at least",
}
_LATEST = 12
_FAR = 2.5  # margins either way
_RATIO_LABEL = "treatment's share of users (99.9% interval); dashed: as declared"


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
    caption = "Two-sided test, pooled under the null. The zone is the wanted power."
    if plan.primary.margin:
        caption = "The interval against the margin (dashed). The zone is the wanted power; the mark: both models alike."
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
        {"What is watched": label(one), "May be worse by": _margin(one), "Better": one.better}
        for one in plan.guardrails
    ]
    return tables.table(rows, caption="Guardrails of the plan")


def _margin(one: Guardrail) -> str:
    if one.kind == "rate":
        return f"{wording.points(one.margin, sign=False)} points"
    return f"{one.margin:g} ms" if one.name == "latency_ms" else f"{one.margin:g}"


def clustering(plan: ABPlan, seen: float | None) -> Html:
    """The design effect in a log beside the one that was planned with."""
    if seen is None:
        return tables.note(
            "No log says yet how much alike the requests of one user are; the plan has its own design effect."
        )
    more = "needs no more users"
    if seen > plan.design_effect:
        more = "would need more users: give design_effect to the next plan"
    return tables.note(
        f"In the log requests of one user make a design effect of {wording.number(seen)}; this plan has "
        f"{plan.design_effect:g}, so a plan like it {more}. A locked plan stays as it is."
    )


def plan(found: LockedPlan | NoReading) -> Html:
    """The locked plan in sentences, and every change since."""
    if isinstance(found, NoReading):
        return tables.note(f"{headline(found)}.")
    one = found.plan.primary
    said = tables.note(
        f"Locked {found.locked_at[:10]}, sha256 {found.sha256[:16]}...: {planned(found.plan)}. The metric that decides: "
        f"{one.name.replace('_', ' ')} ({_kind(one)}). {wording.plural(len(found.amendments), 'amendment')}."
    )
    rows = [
        {
            "when": one.at[:10],
            "reason": one.reason,
            "phase": one.phase,
            "changed": "; ".join(
                f"{name}: {old} to {new}" for name, (old, new) in one.changed.items()
            ),
        }
        for one in found.amendments
    ]
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


def _kind(one: Metric) -> str:
    asked = f", to be no worse by more than {_accepted(one)}" if one.margin else ""
    return one.kind + (", lower is better" if one.lower_is_better else "") + asked


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
    ax.set_xticks(round_ticks(0, most))
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
        beside(ax, runs.days[-1], at, f"{wording.percent(values[-1])}\n{name}", role)
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
    told = alt_rows(found, sample_ratio_said(found), sample_ratio_rows(found))
    caption = "Chi-square on users, phase by phase; alarm below 0.001."
    drawn = pictured(draw_sample_ratio, found, told, caption)
    if not causes(found):
        return drawn
    usual = tables.table(causes(found), caption="Usual causes of a broken split")
    return tables.joined(drawn, usual)


def sample_ratio_said(found: Reading | NoReading) -> str:
    """Is the split the declared one?"""
    if isinstance(found, NoReading) or not any(one.test.n for one in found.sample_ratio):
        return "No users yet"
    off = [one for one in found.sample_ratio if one.test.verdict == "invalid"]
    if off:
        worst = min(off, key=lambda one: one.test.p_value or 0.0)
        return f"The split is broken in phase {worst.phase}: p {p_said(worst.test.p_value)} under the declared split"
    return f"No alarm about the split: {wording.count(found.n_users)} users"


def sample_ratio_rows(found: Reading | NoReading) -> list[Row]:
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
    return [] if found.valid else [{"Cause": one} for one in CAUSES]


def draw_sample_ratio(found: Reading | NoReading, *, narrow: bool = False) -> Axes:
    """The treatment's share of users in each phase against the declared split."""
    phases = [one for one in found.sample_ratio if one.test.n] if isinstance(found, Reading) else []
    if not phases:
        return nothing_drawn(found, sample_ratio_said(found), narrow=narrow)
    tracks = [_share_of(one) for one in phases]
    marks = [mark for track in tracks for mark in track.marks]
    ends = [at for one in marks for at in (one.low, one.high, one.estimate) if at is not None]
    ends += [one.traffic_split for one in phases]
    pad = 0.08 * (max(ends) - min(ends)) or 0.01
    limits = (min(ends) - pad, max(ends) + pad)
    ticks = round_ticks(*limits, n=4 if narrow else 6, steps=(1, 2, 5, 10))
    ax = tracks_axes(tracks, limits, ticks, wording.percent, narrow=narrow)
    for place, one in enumerate(phases):
        dashed(ax, one.traffic_split, place, narrow=narrow)
    ax.set_xlabel("treatment's share of users (99.9% interval)" if narrow else _RATIO_LABEL)
    return style.titled(ax, sample_ratio_said(found), narrow=narrow)


def _share_of(phase: PhaseUsers) -> Track:
    seen, low, high = (
        None if at is None else at + phase.traffic_split
        for at in (phase.test.estimate, phase.test.ci_low, phase.test.ci_high)
    )
    kind = "worse" if phase.test.verdict == "invalid" else "fine_tuned"
    marks = () if seen is None else (Mark(estimate=seen, low=low, high=high, kind=kind),)
    return Track(
        name=f"Phase {phase.phase}",
        under=f"{wording.count(phase.test.n)} users, declared {wording.percent(phase.traffic_split, 0)}",
        marks=marks,
        value=f"{wording.percent(seen)} ({wording.percent(low)} to {wording.percent(high)})",
    )


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
    if isinstance(found, NoReading):
        return []
    shown = (*found.health, *(found.findings.guardrails if found.findings else ()))
    return [_watched_row(one) for one in shown]


def _watched_row(one: Watched) -> Row:
    change, is_rate, ms = one.change, one.change.shown_as == "points", one.name == "latency_ms"
    shown = wording.percent if is_rate else wording.count if ms else wording.number
    unit = " ms" if ms and not is_rate else ""
    old, new = (
        (wording.NOTHING if value is None else shown(value)) + unit
        for value in (change.control_rate, change.treatment_rate)
    )
    said = change.notes[0] if change.notes else "no interval"
    if change.ci_low is not None:
        said = " to ".join(_signed(one, end) for end in (change.ci_low, change.ci_high))
    worse = one.margin if one.margin is None or one.better == "lower" else -one.margin
    return {
        "What is watched": label(one),
        "Control": old,
        "Treatment": new,
        DIFFERENCE: f"{moved(one, change.estimate)} ({said})",
        "Limit": moved(one, worse),
        "Status": one.verdict,
    }


def guardrails(found: Reading | NoReading) -> Html:
    """Each guardrail's change as a share of its margin."""
    said = watched_said(found)
    if not found.guardrails:
        return tables.note(f"{said}.")
    caption = (
        "Change as a share of the margin; an arrow at the edge: further off. "
        "The whole interval must stay left of the limit."
    )
    return pictured(draw_guardrails, found, alt_rows(found, said, watched_rows(found)), caption)


def draw_guardrails(found: Reading | NoReading, *, narrow: bool = False) -> Axes:
    """Each guardrail's change as a share of its margin: it holds when the whole interval stays left of the limit."""
    rails = [one for one in found.guardrails if one.change.estimate is not None]
    if not rails:
        return nothing_drawn(found, watched_said(found), narrow=narrow)
    tracks = [_change_of(one) for one in rails]
    ax = tracks_axes(
        tracks, (-_FAR, _FAR), [0, 1], lambda at: "limit" if at else "no change", narrow=narrow
    )
    rows = spans(tracks, narrow=narrow)
    pass_zone(ax, -_FAR, 1, spans=rows)
    draw_line(ax, "zero", spans=rows)
    draw_line(ax, "limit", 1.0, spans=rows)
    ax.set_xlabel("better ←  change as a share of the margin  → worse")
    return style.titled(ax, watched_said(found), narrow=narrow)


def _change_of(one: Watched) -> Track:
    """A change as a share of the margin, positive = worse."""
    change, unit = one.change, (one.margin or 1.0) * (1 if one.better == "lower" else -1)
    ends = sorted(end / unit for end in (change.ci_low, change.ci_high) if end is not None)
    low, high = ends if len(ends) == 2 else (None, None)
    middle = (change.estimate or 0.0) / unit
    return Track(
        name=label(one),
        under=one.verdict,
        marks=(Mark(estimate=middle, low=low, high=high, kind=one.verdict),),
        value=moved(one, change.estimate),
    )


def label(one: Guardrail | Watched) -> str:
    """A guardrail's name in words."""
    if one.name == "latency_ms" and one.kind != "p95":
        return "Mean waiting time"
    return NAMES.get(one.name, one.name.replace("_", " ").capitalize())


def moved(one: Watched, value: float | None) -> str:
    """A difference of something watched with its unit."""
    if value is None:
        return wording.NOTHING
    is_rate, ms = one.change.shown_as == "points", one.name == "latency_ms"
    return _signed(one, value) + (" points" if is_rate else " ms" if ms else "")


def _signed(one: Watched, value: float | None) -> str:
    return (wording.points if one.change.shown_as == "points" else wording.signed)(value)


def alt_rows(found: Reading | NoReading, title: str, rows: Sequence[Row]) -> str:
    """A figure's rows as an alternative text."""
    told = ("; ".join(f"{name} {value}" for name, value in row.items()) for row in rows)
    return alt_of(found, [title, *told])


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
