"""An A/B test for its readers: figures, tables and sentences, each made whole from a plan, a reading or the ledger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from evalkit import wording
from evalkit.abtest import plan as plans
from evalkit.abtest.effects import Effect, Watched
from evalkit.abtest.lock import LockedPlan
from evalkit.abtest.plan import UNNAMED, ABPlan, Guardrail, Metric, Peeking
from evalkit.abtest.reading import CAUSES, NoReading, Reading
from evalkit.show import tables
from evalkit.show.lacking import in_words, next_look
from evalkit.show.tables import Html, Row
from evalkit.stats import keeps_margin
from evalkit.stats.result import two_sided_p

if TYPE_CHECKING:
    from evalkit.abtest.outcomes import Findings

NAMES = {
    "error": "Failed calls",
    "refused": "Refused answers",
    "truncated": "Truncated answers",
    "empty": "Empty answers",
    "latency_ms": "Slowest 5% wait at least",
}
NO_TIMES = "The log is a table without times, so nothing is shown by day"
_FIRST = " The first look that leaves its limits decides, whenever it is read."
_FAR_OFF = 0.005  # share by which a z by hand may miss the kit's before a reason is told
_DIFFERENCE = "Difference (95% interval)"
_LATEST = 12


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
    return _drawn("power", plan, alt_plan(power_title(plan), plan), caption)


def duration(plan: ABPlan) -> Html:
    """Days until the answer, by the treatment's share of users."""
    caption = "Whole weeks, at least one, with the outcome window of the last user."
    return _drawn("duration", plan, alt_plan(duration_title(plan), plan), caption)


def peeking(plan: ABPlan, *, seed: int = 0, n_runs: int = 10_000) -> Html:
    """False alarms of daily looks, in that many A/A tests of the planned size, simulated now."""
    runs = plans.peeking(plan, seed=seed, n_runs=n_runs)
    title = f"{peeking_title(runs)}; looked at once, {runs.once:.1%}"
    caption = f"{runs.n_runs:,} tests of {len(runs.days)} days. Dashed: the level that was meant. Limits: O'Brien-Fleming."
    return _drawn("peeking", runs, alt_plan(title, plan), caption)


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


def _kind(one: Metric) -> str:
    asked = f", to be no worse by more than {_accepted(one)}" if one.margin else ""
    return one.kind + (", lower is better" if one.lower_is_better else "") + asked


def _accepted(one: Metric) -> str:
    return wording.loss(one.margin, "points" if one.is_rate else "number")


def sample_ratio(found: Reading | NoReading) -> Html:
    """The split against the declared one, phase by phase; where it is broken, the usual causes."""
    told = alt_rows(found, sample_ratio_said(found), sample_ratio_rows(found))
    caption = "Chi-square on users, phase by phase; alarm below 0.001."
    drawn = _drawn("sample_ratio", found, told, caption)
    if not causes(found):
        return drawn
    usual = tables.table(causes(found), caption="Usual causes of a broken split")
    return tables.joined(drawn, usual)


def log_notes(found: Reading | NoReading, *, since: Reading | NoReading | None = None) -> Html:
    """Anything unusual about the log; `since` leaves out what was told of that reading."""
    told = [one for one in found.notes if since is None or one not in since.notes]
    usual = "Nobody was seen in both variants."
    if since is not None:
        usual = (
            "Nothing unusual about the outcomes." if found.findings else "Withheld with the effect."
        )
    elif isinstance(found, NoReading):
        usual = "No log was read."
    return tables.note(" ".join(f"{one[0].upper()}{one[1:]}." for one in told) or usual)


def watched(found: Reading | NoReading) -> Html:
    """What is watched, in a table: levels, differences, limits."""
    numeric = ("Control", "Treatment", _DIFFERENCE, "Limit")
    title = titled("What is watched", found)
    return tables.table(watched_rows(found), caption=title, numeric=numeric)


def guardrails(found: Reading | NoReading) -> Html:
    """Each guardrail's change as a share of its margin."""
    said = watched_said(found)
    if not found.guardrails:
        return tables.note(f"{said}.")
    caption = (
        "Change as a share of the margin; an arrow at the edge: further off. "
        "The whole interval must stay left of the limit."
    )
    return _drawn("guardrails", found, alt_rows(found, said, watched_rows(found)), caption)


def z_test(found: Reading | NoReading) -> Html:
    """Where z would fall if nothing had changed, the region that counts, and where it fell."""
    caption = "By user; the dashed lines are the limits of the plan. The verdict follows z."
    if found.findings and found.findings.primary.margin:
        caption = (
            "By user; the dashed line is z at which a loss of the margin is just ruled out. "
            "The verdict follows the interval against the margin."
        )
    return _drawn("z_test", found, alt(found), caption)


def by_hand(found: Reading | NoReading, z: float) -> Html:
    """A z of one's own beside the one that decides, and what lies between them."""
    test = found.findings.primary if found.findings else None
    if test is None or not found.findings:
        return tables.note(f"{headline(found)}: no z by hand either.")
    if test.z_score is None or not math.isfinite(z):
        return tables.note("z is undefined: the outcome never varied.")
    which = "the z that decides" if test.margin is None else "the z of the difference"
    near = abs(z - test.z_score) <= _FAR_OFF * max(1.0, abs(test.z_score))
    text = f"By hand z = {wording.number(z)} (p {p_said(two_sided_p(z))}); {which} = {wording.number(test.z_score)}"
    why = ": the same." if near else f". {_why_another(found.findings, test)}"
    return tables.note(_marked(text + why, found))


def _why_another(done: Findings, test: Effect) -> str:
    """Why the z that decides is not the one by hand."""
    if test.is_exact:
        few = "A variant expects fewer than 5 users with an event, or without one"
        return f"{few}: Fisher's exact test on users decides, told as the z that has its p."
    if test.shown_as != "points":
        return "The metric is no rate, so another test decides: the one above."
    if len(set(done.cells["phase"])) > 1:
        return "The one that decides keeps the phases of the split apart."
    return (
        "The one that decides also weighs how lopsided the outcomes are and, where events are few, takes the clustering of "
        "both variants together."
    )


def by_request(found: Reading | NoReading, z: float | None = None) -> Html:
    """The article's test, which counts requests, beside the one by user; and a z of one's own."""
    known = z is not None and math.isfinite(z) and found.findings and found.findings.article
    own = f" By hand z = {wording.number(z)}." if known else ""
    return tables.note(f"{article_said(found)}{own}")


def effect_title(found: Reading | NoReading) -> str:
    """What the effect says in one clause, as the title of a figure of one's own."""
    return titled(headline(found), found)


def looks(found: Reading | NoReading) -> Html:
    """Z at each planned look, inside the limits it must leave to count."""
    caption = "O'Brien-Fleming limits by Lan and DeMets, at the information each look had."
    if found.plan and found.plan.plan.primary.margin:
        caption += " z is of the difference and the margin together: above its limit a loss of the margin is ruled out."
    return _drawn("looks", found, alt_looks(found), caption)


def later(found: Reading | NoReading) -> Html:
    """Users who came after the look that decides, and a split that changed on the way."""
    said = " ".join(one for one in (ramp_said(found), later_said(found)) if one)
    if not said:
        whole = "Every user in the log counts."
        return tables.note(whole if found.findings else "Withheld with the effect.")
    return tables.note(_marked(said, found))


def over_time(found: Reading | NoReading) -> Html:
    """The difference so far after each day's users."""
    if isinstance(found, Reading) and not found.timed:
        return tables.note(f"{NO_TIMES}.")
    caption = "Inner band: for one look. Outer band: a confidence sequence, which holds however often one looks."
    if found.plan and found.plan.plan.primary.margin:
        caption += " Dashed across: the margin."
    return _drawn("over_time", found, alt_over_time(found), caption)


def cuped(found: Reading | NoReading) -> Html:
    """The difference adjusted for what users did before, beside the one that decides."""
    if not found.findings:
        return tables.note(
            "The difference adjusted for what users did before is withheld with the effect."
        )
    test, plain = found.findings.cuped, found.findings.primary
    if test is None:
        return tables.note(
            "Nothing from before the test is named to adjust by: only a mean can be, by the plan's covariate."
        )
    text = f"Adjusted for what users did before (CUPED) {_beside(test)}, p {p_said(test.p_value)}"
    text += f", {wording.count(test.n)} users"
    if test.se and plain.se:
        text += f"; its standard error is {wording.percent(test.se / plain.se, 0)} of the plain one. It decides nothing"
    return tables.note(_marked(f"{text}.", found))


def effect_slices(found: Reading | NoReading) -> Html:
    """The difference in each slice, in a table."""
    return _parts(found, "by_slice", slices_said(found))


def days(found: Reading | NoReading) -> Html:
    """The difference of each day's new users, in a table."""
    if isinstance(found, Reading) and not found.timed:
        return tables.note(f"{NO_TIMES}.")
    return _parts(found, "by_day", days_said(found))


def _parts(found: Reading | NoReading, which: str, title: str) -> Html:
    rows = part_rows(found, which)
    if rows and found.findings:  # those of the effect above it
        test = found.findings.primary
        look = f" of look {test.look}, which decides" if found.findings.n_later else ""
        title += f"; the {wording.plural(test.n, 'user')}{look}"
    numeric = ("Users", "Control", "Treatment", _DIFFERENCE, "p (Holm)")
    return tables.table(rows, caption=titled(title, found), numeric=numeric)


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


@tables.answer.register
def _answer_of_a_reading(found: Reading | NoReading) -> Html:
    return tables.answer(answer_said(found), simulated=found.simulated)


@tables.answer.register
def _answer_of_a_plan(found: ABPlan) -> Html:
    return tables.answer(f"{needed(found)}. {power_title(found)}.")


def _drawn(
    name: str, shown: ABPlan | Peeking | Reading | NoReading, told: str, caption: str
) -> Html:
    from evalkit.show.figure import picture
    from evalkit.show.plots import abtest as plots

    simulated = isinstance(shown, Peeking) or getattr(shown, "simulated", False)
    return picture(getattr(plots, name), shown, alt=told, caption=caption, simulated=simulated)


def answer_said(found: Reading | NoReading) -> str:
    """The chapter's answer."""
    lacks = [in_words(one) for one in found.missing]
    text = f"{lacks[0].why if isinstance(found, NoReading) else headline(found)}."
    if isinstance(found, Reading) and found.findings and found.valid:
        text += f" {figures(found.findings.primary)}"
        text += f" {later_said(found)}" if found.findings.n_later else ""
    if lacks:
        text += f" Missing: {lacks[0].action} ({lacks[0].price})."
    return _marked(text, found)


def alt(found: Reading | NoReading) -> str:
    """The effect as an alternative text; while it is withheld, only that."""
    effect = [figures(found.findings.primary)] if found.findings else []
    return _told(found, [headline(found), *effect])


def alt_looks(found: Reading | NoReading) -> str:
    """Every look so far as an alternative text."""
    done = found.findings.looks if found.findings else ()
    return _told(found, [headline(found), *(f"Look {one.look}: {figures(one)}" for one in done)])


def alt_over_time(found: Reading | NoReading) -> str:
    """How the difference began and where it stands, as an alternative text."""
    if not found.findings:
        return alt(found)
    test, rows = found.findings.primary, found.findings.over_time
    ends = [rows[0], rows[-1]] if len(rows) > 1 else rows
    said = [
        f"{row['date']}: {difference(test, row['estimate'])} ({span(test, row['ci_low'], row['ci_high'])})"
        for row in ends
    ]
    return _told(found, [headline(found), f"Users up to {'; up to '.join(said)}"])


def alt_rows(found: Reading | NoReading, title: str, rows: Sequence[Row]) -> str:
    """A figure's rows as an alternative text."""
    told = ("; ".join(f"{name} {value}" for name, value in row.items()) for row in rows)
    return _told(found, [title, *told])


def _told(found: Reading | NoReading, said: Sequence[str]) -> str:
    return _marked(" ".join(f"{one.rstrip('.')}." for one in said), found)


def _marked(text: str, found: Reading | NoReading) -> str:
    return f"{text} Users are simulated." if found.simulated else text


def titled(title: str, found: Reading | NoReading) -> str:
    """A table's caption; simulated users are named in it."""
    return f"{title} (simulated users)" if found.simulated else title


def headline(found: Reading | NoReading) -> str:
    """The verdict in one clause; without any effect while that is withheld."""
    if isinstance(found, Reading) and not found.is_read and found.valid and found.schedule.due:
        return "A look is due, and the effect is not read yet"
    if isinstance(found, Reading) and not found.recorded:
        return "The effect is due and withheld: this look could not be put on record"
    if isinstance(found, NoReading):
        lacks = in_words(found.missing[0])
        return f"{lacks.why}. {lacks.action}"
    if not found.valid:
        return "Invalid: the sample ratio is off, so no winner is named and no effect is shown"
    if found.findings is None:
        state, planned_users = found.schedule, wording.count(found.plan.n_users)
        n = wording.count(state.closed_control + state.closed_treatment)
        price = next_look(state.users_more, state.days_more)
        return f"Too early: {n} of {planned_users} planned users count; the next look needs {price}"
    test, name = found.findings.primary, metric(found)
    size = difference(test, test.estimate, sign=False)
    way = "higher" if (test.estimate or 0.0) > 0 else "lower"
    inside = "the difference is inside the limits"
    if test.margin:
        inside = f"a loss of {loss_of(test)} is not ruled out"
    return {
        "not worse": f'Not worse by more than {loss_of(test)}: "{name}"',
        "not shown": f'Not shown: a loss of {loss_of(test)} in "{name}" is not ruled out after the planned users',
        "better": f'Better: "{name}" is {size} {way} in treatment',
        "worse": f'Worse: "{name}" is {size} {way} in treatment',
        "invalid": f"No verdict: {test.no_verdict}",
        "too early": f"Too early: at look {test.look} of {test.looks} {inside}",
    }.get(test.verdict, f'No difference shown in "{name}" after the planned users')


def loss_of(test: Effect) -> str:
    """The loss still accepted, in words."""
    return wording.loss(test.margin, test.shown_as)


def kept(test: Effect) -> bool:
    """Whether a loss of the margin is ruled out."""
    return keeps_margin(test, test.margin or 0.0)


def withheld(found: Reading) -> str:
    """What stands in place of an effect."""
    return "withheld until the next look" if found.valid else "withheld: the split is broken"


def figures(test: Effect) -> str:
    """Estimate, interval, levels and p in one sentence."""
    interval = "no interval, as nothing varied" if test.ci_low is None else _interval(test)
    text = f"Difference {difference(test, test.estimate)} ({interval}): {level(test, test.control_rate)} in control, "
    text += f"{level(test, test.treatment_rate)} in treatment, {wording.count(test.n)} users"
    if test.margin is not None:
        how = f" of look {test.look}, widened to hold over all {test.looks} looks,"
        how = "" if test.bound is None else how
        return f"{text}; the interval{how} is read against a loss of {loss_of(test)}."
    if test.bound is not None and test.z_score is not None:
        return f"{text}; z = {wording.number(test.z_score)} against a limit of {wording.number(test.bound)}."
    return f"{text}; p {p_said(test.p_value)}."


def _interval(test: Effect) -> str:
    return f"{(1 - test.alpha) * 100:g}% interval {span(test, test.ci_low, test.ci_high)}"


def _beside(test: Effect) -> str:
    interval = "no interval" if test.ci_low is None else _interval(test)
    return f"the difference is {difference(test, test.estimate)} ({interval}, as if looked at once)"


def later_said(found: Reading | NoReading) -> str:
    """How many users came after the look that decides, and the effect over all beside it."""
    if not found.findings or not found.findings.n_later:
        return ""
    done, whole = found.findings, found.findings.over_all
    came = f"{wording.plural(done.n_later, 'user')} of {wording.count(done.primary.n + done.n_later)} came after this look"
    if done.primary.verdict == "too early":
        return f"{came} and are not counted in it."
    if whole is None:
        return f"{came} and change nothing; their outcome windows are still open."
    return (
        f"{came} and change nothing: over all {wording.count(whole.n)} whose window has closed {_beside(whole)}."
        + (_FIRST if done.primary.looks > 1 else "")
    )


def ramp_said(found: Reading | NoReading) -> str:
    """What a changed split does to the estimate, and the last phase's own beside it; "" without a change."""
    last = found.findings.last_phase if found.findings else None
    if last is None or not found.plan:
        return ""
    phase = found.plan.phases[-1].phase
    return (
        "The split changed on the way. Users of earlier phases may be served by the other model once it has changed, and count "
        f"where first seen, so the size of the difference is understated. Over the {wording.count(last.n)} users of phase "
        f"{phase} alone {_beside(last)}; it decides nothing."
    )


def sample_ratio_said(found: Reading | NoReading) -> str:
    """Is the split the declared one?"""
    if isinstance(found, NoReading) or not any(one.test.n for one in found.sample_ratio):
        return "No users yet"
    off = [one for one in found.sample_ratio if one.test.verdict == "invalid"]
    if off:
        worst = min(off, key=lambda one: one.test.p_value or 0.0)
        return f"The split is broken in phase {worst.phase}: p {p_said(worst.test.p_value)} under the declared split"
    return f"No alarm about the split: {wording.count(found.n_users)} users"


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


def label(one: Guardrail | Watched) -> str:
    """A guardrail's name in words."""
    if one.name == "latency_ms" and one.kind != "p95":
        return "Mean waiting time"
    return NAMES.get(one.name, one.name.replace("_", " ").capitalize())


def slices_said(found: Reading | NoReading) -> str:
    """Does the effect differ between slices?"""
    done = found.findings
    if not done or not done.by_slice:
        return "No slices to show"
    by = {
        word: [one["name"] for one in done.by_slice if one["verdict"] == word]
        for word in ("better", "worse")
    }
    said = [f"{word} in {wording.listed(names)}" for word, names in by.items() if names]
    told = f"After Holm's correction: {wording.listed(said)}"
    if not said:
        told = f"No difference shown in any of {wording.plural(len(done.by_slice), 'slice')}"
    if sum(one["n"] for one in done.by_slice) > done.primary.n:
        told += "; a user with requests in several slices counts in each"
    return told


def days_said(found: Reading | NoReading) -> str:
    """Does the effect differ between the days on which users came?"""
    done = found.findings
    if not done or not done.by_day:
        return "No days to show"
    moved = sum(one["verdict"] != "no difference shown" for one in done.by_day)
    where = "is not shown on any single day"
    if moved:
        where = f"shows in {moved} of {wording.plural(len(done.by_day), 'day')}"
    return f"A difference {where}, after Holm's correction"


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


def alt_plan(title: str, plan: ABPlan) -> str:
    """A figure on a plan as an alternative text."""
    return f"{title}. The plan: {planned(plan)}."


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


def article_said(found: Reading | NoReading) -> str:
    """The simple test over requests, beside the one by user."""
    done = found.findings
    if not done:
        return "The simple z-test that counts requests is withheld with the effect."
    if (test := done.article) is None:
        return (
            "The simple z-test that counts requests is not made here: it needs a rate counted in 0 and 1, "
            "and a single split."
        )
    z = "undefined" if test.z_score is None else f"= {wording.number(test.z_score)}"
    text = (
        f"The simple z-test that counts requests: z {z}, p {p_said(test.p_value)}, {wording.points(test.diff)} points "
        f"({wording.points(test.ci_low)} to {wording.points(test.ci_high)} by Newcombe)."
    )
    if test.lift is not None:
        lift = (wording.percent(one) for one in (test.lift, test.lift_ci_low, test.lift_ci_high))
        text += " Relative lift {} ({} to {}).".format(*lift)
    if done.design_effect and done.primary.z_score is not None:
        text += (
            f" By user, as they were randomised, z = {wording.number(done.primary.z_score)}: the variance is "
            f"{wording.number(done.design_effect)} times as large."
        )
    return _marked(text, found)


def metric(found: Reading | NoReading) -> str:
    """The primary metric in words; "" without a plan."""
    return found.plan.plan.primary.name.replace("_", " ") if found.plan else ""


def difference(test: Effect, value: float | None, *, sign: bool = True) -> str:
    """A difference in points or in the metric's unit."""
    return wording.amount(value, wording.scale_of(test), digits=_digits(test), sign=sign)


def _digits(test: Effect) -> int:
    return wording.decimals(test.estimate, test.ci_low, test.ci_high)


def span(test: Effect, low: float | None, high: float | None) -> str:
    """Both ends of an interval, the unit once."""
    if low is None and high is None:
        return "no interval"
    return wording.limits(low, high, wording.scale_of(test), digits=_digits(test))


def level(test: Effect, value: float | None) -> str:
    """A level in percent or in the metric's unit."""
    return wording.level(value, wording.scale_of(test))


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


def p_said(p_value: float | None) -> str:
    """A p-value within a sentence."""
    return "undefined" if p_value is None else wording.p_phrase(p_value)


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


def watched_rows(found: Reading | NoReading) -> list[Row]:
    """Health and guardrails; calls, waiting times and the like are not the effect and may be shown at any time."""
    if isinstance(found, NoReading):
        return []
    shown = (*found.health, *(found.findings.guardrails if found.findings else ()))
    return [_watched_row(one) for one in shown]


def part_rows(found: Reading | NoReading, which: str) -> list[Row]:
    """Days or slices as table rows, by the name of the field of the findings."""
    if not found.findings:
        return []
    test = found.findings.primary
    return [
        {
            "Part": one["name"],
            "Users": wording.count(one["n"]),
            "Control": level(test, one["control_rate"]),
            "Treatment": level(test, one["treatment_rate"]),
            _DIFFERENCE: f"{difference(test, one['estimate'])} ({span(test, one['ci_low'], one['ci_high'])})",
            "p (Holm)": wording.p_text(one["p_adjusted"]),
        }
        for one in getattr(found.findings, which)
    ]


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
        _DIFFERENCE: f"{moved(one, change.estimate)} ({said})",
        "Limit": moved(one, worse),
        "Status": one.verdict,
    }


def moved(one: Watched, value: float | None) -> str:
    """A difference of something watched with its unit."""
    if value is None:
        return wording.NOTHING
    is_rate, ms = one.change.shown_as == "points", one.name == "latency_ms"
    return _signed(one, value) + (" points" if is_rate else " ms" if ms else "")


def _signed(one: Watched, value: float | None) -> str:
    return (wording.points if one.change.shown_as == "points" else wording.signed)(value)
