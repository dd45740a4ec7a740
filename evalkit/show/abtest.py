"""An A/B test for its readers: figures, tables and sentences, each made whole from a plan, a reading or the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.abtest import plan as plans
from evalkit.abtest.effects import Effect, Watched
from evalkit.abtest.lock import LockedPlan
from evalkit.abtest.plan import UNNAMED, ABPlan, Guardrail
from evalkit.abtest.reading import CAUSES, NoReading, Reading
from evalkit.show import tables
from evalkit.show.tables import Html, Row
from evalkit.stats.result import two_sided_p

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from evalkit.abtest.findings import Findings

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
    from evalkit.show.plots import abtest as plots

    caption = "Two-sided test, pooled under the null. The zone is the wanted power."
    if plan.primary.margin:
        caption = "The interval against the margin (dashed). The zone is the wanted power; the mark: both models alike."
    return _of_a_plan(plots.power, plots.power_title(plan), plan, caption)


def duration(plan: ABPlan) -> Html:
    """Days until the answer, by the treatment's share of users."""
    from evalkit.show.plots import abtest as plots

    caption = "Whole weeks, at least one, with the outcome window of the last user."
    return _of_a_plan(plots.duration, plots.duration_title(plan), plan, caption)


def peeking(plan: ABPlan, *, seed: int = 0, n_runs: int = 10_000) -> Html:
    """False alarms of daily looks, in that many A/A tests of the planned size, simulated now."""
    from evalkit.show.figure import picture
    from evalkit.show.plots import abtest as plots

    runs = plans.peeking(plan, seed=seed, n_runs=n_runs)
    title = f"{plots.peeking_title(runs)}; looked at once, {runs.once:.1%}"
    caption = f"{runs.n_runs:,} tests of {len(runs.days)} days. Dashed: the level that was meant. Limits: O'Brien-Fleming."
    return picture(plots.peeking, runs, alt=alt_plan(title, plan), caption=caption, simulated=True)


def margins(plan: ABPlan) -> Html:
    """The plan's guardrails as a table."""
    return tables.table(guardrail_rows(plan), caption="Guardrails of the plan")


def clustering(plan: ABPlan, seen: float | None) -> Html:
    """The design effect in a log beside the one that was planned with."""
    return tables.note(clustering_said(plan, seen))


def plan(found: LockedPlan | NoReading) -> Html:
    """The locked plan in sentences, and every change since."""
    if isinstance(found, NoReading):
        return tables.note(f"{headline(found)}.")
    said = tables.note(locked_said(found))
    changes = _amendments(found)
    return (
        tables.joined(said, tables.table(changes, caption="Amendments of the plan"))
        if changes
        else said
    )


def sample_ratio(found: Reading | NoReading) -> Html:
    """The split against the declared one, phase by phase; where it is broken, the usual causes."""
    title, rows = sample_ratio_said(found), sample_ratio_rows(found)
    caption = "Chi-square on users, phase by phase; alarm below 0.001."
    drawn = _of_a_reading("sample_ratio", found, alt_rows(found, title, rows), caption)
    if not causes(found):
        return drawn
    usual = tables.table(causes(found), caption="Usual causes of a broken split")
    return tables.joined(drawn, usual)


def log_notes(found: Reading | NoReading, *, since: Reading | NoReading | None = None) -> Html:
    """Anything unusual about the log; `since` leaves out what was told of that reading."""
    if since is None:
        return tables.note(notes_said(found))
    new = [one for one in found.notes if one not in since.notes]
    usual = "Nothing unusual about the outcomes." if found.findings else "Withheld with the effect."
    return tables.note(_sentences(new) or usual)


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
    return _of_a_reading("guardrails", found, alt_rows(found, said, watched_rows(found)), caption)


def z_test(found: Reading | NoReading) -> Html:
    """Where z would fall if nothing had changed, the region that counts, and where it fell."""
    caption = "By user; the dashed lines are the limits of the plan. The verdict follows z."
    if found.findings and found.findings.primary.margin:
        caption = (
            "By user; the dashed line is z at which a loss of the margin is just ruled out. "
            "The verdict follows the interval against the margin."
        )
    return _of_a_reading("z_test", found, alt(found), caption)


def by_hand(found: Reading | NoReading, z: float) -> Html:
    """A z of one's own beside the one that decides, and what lies between them."""
    return tables.note(by_hand_said(found, z))


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
    return _of_a_reading("looks", found, alt_looks(found), caption)


def later(found: Reading | NoReading) -> Html:
    """Users who came after the look that decides, and a split that changed on the way."""
    return tables.note(beside_said(found))


def over_time(found: Reading | NoReading) -> Html:
    """The difference so far after each day's users."""
    if isinstance(found, Reading) and not found.timed:
        return tables.note(f"{NO_TIMES}.")
    caption = "Inner band: for one look. Outer band: a confidence sequence, which holds however often one looks."
    if found.plan and found.plan.plan.primary.margin:
        caption += " Dashed across: the margin."
    return _of_a_reading("over_time", found, alt_over_time(found), caption)


def cuped(found: Reading | NoReading) -> Html:
    """The difference adjusted for what users did before."""
    return tables.note(cuped_said(found))


def effect_slices(found: Reading | NoReading) -> Html:
    """The difference in each slice, in a table."""
    return _parts(slice_rows(found), slices_said(found), found)


def days(found: Reading | NoReading) -> Html:
    """The difference of each day's new users, in a table."""
    if isinstance(found, Reading) and not found.timed:
        return tables.note(f"{NO_TIMES}.")
    return _parts(day_rows(found), days_said(found), found)


def ledger(found: pd.DataFrame) -> Html:
    """The latest looks, newest first, from `Study.ledger`."""
    simulated = bool(found["simulated"].fillna(False).any())
    title = f"The latest looks{' (simulated users)' if simulated else ''}"
    return tables.table(ledger_rows(found), caption=title)


@tables.answer.register
def _answer_of_a_reading(found: Reading | NoReading) -> Html:
    return tables.answer(answer_said(found), simulated=found.simulated)


@tables.answer.register
def _answer_of_a_plan(found: ABPlan) -> Html:
    from evalkit.show.plots import abtest as plots

    return tables.answer(f"{needed(found)}. {plots.power_title(found)}.")


def _of_a_plan(plot: Callable[..., Axes], title: str, one: ABPlan, caption: str) -> Html:
    from evalkit.show.figure import picture

    return picture(plot, one, alt=alt_plan(title, one), caption=caption)


def _of_a_reading(name: str, found: Reading | NoReading, told: str, caption: str) -> Html:
    from evalkit.show.figure import picture
    from evalkit.show.plots import abtest as plots

    plot = getattr(plots, name)
    return picture(plot, found, alt=told, caption=caption, simulated=found.simulated)


def _parts(rows: list[Row], title: str, found: Reading | NoReading) -> Html:
    title = f"{title}{_of_whom(found)}" if rows else title
    numeric = ("Users", "Control", "Treatment", _DIFFERENCE, "p (Holm)")
    return tables.table(rows, caption=titled(title, found), numeric=numeric)


def answer_said(found: Reading | NoReading) -> str:
    """The chapter's answer."""
    text = f"{found.missing[0].why if isinstance(found, NoReading) else headline(found)}."
    if isinstance(found, Reading) and found.findings and found.valid:
        text += f" {figures(found.findings.primary)}"
        text += f" {later_said(found)}" if found.findings.n_later else ""
    if found.missing:
        text += f" Missing: {found.missing[0].action} ({found.missing[0].price})."
    return f"{text} Users are simulated." if found.simulated else text


def alt(found: Reading | NoReading) -> str:
    """The effect as an alternative text; while it is withheld, only that."""
    return _told(
        found, [headline(found), *([figures(found.findings.primary)] if found.findings else [])]
    )


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
    return _told(
        found,
        [title, *("; ".join(f"{name} {value}" for name, value in row.items()) for row in rows)],
    )


def headline(found: Reading | NoReading) -> str:
    """The verdict in one clause; without any effect while that is withheld."""
    if isinstance(found, Reading) and not found.is_read and found.valid and found.schedule.due:
        return "A look is due, and the effect is not read yet"
    if isinstance(found, Reading) and not found.recorded:
        return "The effect is due and withheld: this look could not be put on record"
    if isinstance(found, NoReading):
        return found.why.rstrip(".")
    if not found.valid:
        return "Invalid: the sample ratio is off, so no winner is named and no effect is shown"
    if found.findings is None:
        return f"Too early: {held(found)}"
    test, name = found.findings.primary, metric(found)
    size = difference(test, test.estimate, sign=False)
    way = "higher" if (test.estimate or 0.0) > 0 else "lower"
    return {
        "not worse": f'Not worse by more than {loss_of(test)}: "{name}"',
        "not shown": f'Not shown: a loss of {loss_of(test)} in "{name}" is not ruled out after the planned users',
        "better": f'Better: "{name}" is {size} {way} in treatment',
        "worse": f'Worse: "{name}" is {size} {way} in treatment',
        "invalid": f"No verdict: {test.no_verdict}",
        "too early": f"Too early: at look {test.look} of {test.looks} "
        + (
            f"a loss of {loss_of(test)} is not ruled out"
            if test.margin
            else "the difference is inside the limits"
        ),
    }.get(test.verdict, f'No difference shown in "{name}" after the planned users')


def loss_of(test: Effect) -> str:
    """The loss still accepted, in words."""
    return wording.loss(test.margin, test.shown_as)


def kept(test: Effect) -> bool:
    """Whether a loss of the margin is ruled out."""
    from evalkit.stats import keeps_margin

    return keeps_margin(test, test.margin or 0.0)


def held(found: Reading) -> str:
    """Why the effect is withheld, in users and days."""
    state = found.schedule
    n = wording.count(state.closed_control + state.closed_treatment)
    return f"{n} of {wording.count(found.plan.n_users)} planned users count; the next look needs {state.price}"


def withheld(found: Reading) -> str:
    """What stands in place of an effect."""
    return "withheld until the next look" if found.valid else "withheld: the split is broken"


def figures(test: Effect) -> str:
    """Estimate, interval, levels and p in one sentence."""
    interval = f"{(1 - test.alpha) * 100:g}% interval {span(test, test.ci_low, test.ci_high)}"
    interval = "no interval, as nothing varied" if test.ci_low is None else interval
    text = f"Difference {difference(test, test.estimate)} ({interval}): {level(test, test.control_rate)} in control, "
    text += f"{level(test, test.treatment_rate)} in treatment, {wording.count(test.n)} users"
    if test.margin is not None:
        how = (
            ""
            if test.bound is None
            else f" of look {test.look}, widened to hold over all {test.looks} looks,"
        )
        return f"{text}; the interval{how} is read against a loss of {loss_of(test)}."
    if test.bound is not None and test.z_score is not None:
        return f"{text}; z = {wording.number(test.z_score)} against a limit of {wording.number(test.bound)}."
    return f"{text}; p {p_said(test.p_value)}."


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


def beside_said(found: Reading | NoReading) -> str:
    """Both of these; what there is when there is neither."""
    said = " ".join(one for one in (ramp_said(found), later_said(found)) if one)
    if not said:
        return "Every user in the log counts." if found.findings else "Withheld with the effect."
    return f"{said} Users are simulated." if found.simulated else said


def _beside(test: Effect) -> str:
    interval = f"{(1 - test.alpha) * 100:g}% interval {span(test, test.ci_low, test.ci_high)}"
    interval = "no interval" if test.ci_low is None else interval
    return f"the difference is {difference(test, test.estimate)} ({interval}, as if looked at once)"


def cuped_said(found: Reading | NoReading) -> str:
    """The difference adjusted for what users did before, beside the one that decides."""
    if not found.findings:
        return "The difference adjusted for what users did before is withheld with the effect."
    test = found.findings.cuped
    if test is None:
        return "Nothing from before the test is named to adjust by: only a mean can be, by the plan's covariate."
    plain = found.findings.primary
    text = f"Adjusted for what users did before (CUPED) {_beside(test)}, p {p_said(test.p_value)}"
    text += f", {wording.count(test.n)} users"
    if test.se and plain.se:
        text += f"; its standard error is {wording.percent(test.se / plain.se, 0)} of the plain one. It decides nothing"
    return f"{text}. Users are simulated." if found.simulated else f"{text}."


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
    return (
        f"Not shown to hold yet: {wording.listed(unsettled)}"
        if unsettled
        else "Every guardrail holds"
    )


def label(one: Guardrail | Watched) -> str:
    """A guardrail's name in words."""
    if one.name == "latency_ms" and one.kind != "p95":
        return "Mean waiting time"
    return NAMES.get(one.name, one.name.replace("_", " ").capitalize())


def amount(change: Effect, value: float | None, name: str = "", *, sign: bool = False) -> str:
    """A level or difference of something watched, in its unit."""
    if value is None:
        return wording.NOTHING
    if change.shown_as == "points":
        return wording.points(value) if sign else wording.percent(value)
    if sign:
        return wording.signed(value)
    return wording.count(value) if name == "latency_ms" else wording.number(value)


def unit(change: Effect, name: str) -> str:
    """The unit of a difference of something watched, with a space before it; "" when it has none."""
    return " points" if change.shown_as == "points" else " ms" if name == "latency_ms" else ""


def _of_whom(found: Reading | NoReading) -> str:
    """Whose numbers stand in a table of parts: those of the effect above it."""
    if not found.findings:
        return ""
    test = found.findings.primary
    look = f" of look {test.look}, which decides" if found.findings.n_later else ""
    return f"; the {wording.plural(test.n, 'user')}{look}"


def slices_said(found: Reading | NoReading) -> str:
    """Does the effect differ between slices?"""
    rows = found.findings.by_slice if found.findings else ()
    if not rows:
        return "No slices to show"
    by = {
        word: [one["name"] for one in rows if one["verdict"] == word]
        for word in ("better", "worse")
    }
    said = [f"{word} in {wording.listed(names)}" for word, names in by.items() if names]
    told = (
        f"After Holm's correction: {wording.listed(said)}"
        if said
        else f"No difference shown in any of {wording.plural(len(rows), 'slice')}"
    )
    shared = sum(one["n"] for one in rows) > (found.findings.primary.n if found.findings else 0)
    return f"{told}; a user with requests in several slices counts in each" if shared else told


def days_said(found: Reading | NoReading) -> str:
    """Does the effect differ between the days on which users came?"""
    rows = found.findings.by_day if found.findings else ()
    if not rows:
        return "No days to show"
    moved = [one["name"] for one in rows if one["verdict"] != "no difference shown"]
    show = "shows" if moved else "is not shown"
    where = (
        f"in {len(moved)} of {wording.plural(len(rows), 'day')}" if moved else "on any single day"
    )
    return f"A difference {show} {where}, after Holm's correction"


def locked_said(locked: LockedPlan) -> str:
    """The locked plan in a few sentences."""
    name = locked.plan.primary.name.replace("_", " ")
    said = (
        f"Locked {locked.locked_at[:10]}, sha256 {locked.sha256[:16]}...: {planned(locked.plan)}."
    )
    amended = wording.plural(len(locked.amendments), "amendment")
    return f"{said} The metric that decides: {name} ({_kind(locked.plan)}). {amended}."


def notes_said(found: Reading | NoReading) -> str:
    """Anything unusual about the log."""
    if isinstance(found, NoReading):
        return "No log was read."
    return _sentences(found.notes) or "Nobody was seen in both variants."


def _sentences(notes: Sequence[str]) -> str:
    return " ".join(f"{one[0].upper()}{one[1:]}." for one in notes)


def titled(title: str, found: Reading | NoReading) -> str:
    """A table's caption; simulated users are named in it."""
    return f"{title} (simulated users)" if found.simulated else title


def aim(plan: ABPlan) -> str:
    """What the plan wants to find, with which risks."""
    one = plan.primary
    is_rate = one.kind == "rate"
    found = (
        []
        if one.expected is None
        else [f"expected at {wording.percent(one.expected) if is_rate else f'{one.expected:g}'}"]
    )
    size = f"{wording.points(one.aim)} points" if is_rate else wording.signed(one.aim)
    risks = f"level {wording.percent(plan.alpha, 0)}, power {wording.percent(plan.power, 0)}"
    name = one.name.replace("_", " ") + (", lower is better" if one.lower_is_better else "")
    if one.margin:
        asked = f"to be shown not worse by more than {wording.loss(one.margin, 'points' if is_rate else 'number')}"
        return f"The metric that decides: {', '.join([name, *found])}; {asked} ({risks}, one-sided {plan.alpha / 2:.1%})."
    return f"The metric that decides: {', '.join([name, *found])}; worth finding: {size} ({risks})."


def alt_plan(title: str, plan: ABPlan) -> str:
    """A figure on a plan as an alternative text."""
    return f"{title}. The plan: {planned(plan)}."


def article_said(found: Reading | NoReading) -> str:
    """The simple test over requests, beside the one by user."""
    if not found.findings:
        return "The simple z-test that counts requests is withheld with the effect."
    if found.findings.article is None:
        return (
            "The simple z-test that counts requests is not made here: it needs a rate counted in 0 and 1, "
            "and a single split."
        )
    test, by_user, inflation = (
        found.findings.article,
        found.findings.primary,
        found.findings.design_effect,
    )
    z = "undefined" if test.z_score is None else f"= {wording.number(test.z_score)}"
    span = f"{wording.points(test.ci_low)} to {wording.points(test.ci_high)} by Newcombe"
    text = f"The simple z-test that counts requests: z {z}, p {p_said(test.p_value)}, {wording.points(test.diff)} points "
    text += f"({span})."
    if test.lift is not None:
        lift = f"{wording.percent(test.lift)} ({wording.percent(test.lift_ci_low)} to {wording.percent(test.lift_ci_high)})"
        text += f" Relative lift {lift}."
    if inflation and by_user.z_score is not None:
        text += f" By user, as they were randomised, z = {wording.number(by_user.z_score)}: the variance is "
        text += f"{wording.number(inflation)} times as large."
    return f"{text} Users are simulated." if found.simulated else text


def by_hand_said(found: Reading | NoReading, z: float) -> str:
    """Whether a z by hand is the one that decides, and why not where it is not."""
    if not found.findings:
        return f"{headline(found)}: no z by hand either."
    test = found.findings.primary
    if test.z_score is None or not math.isfinite(z):
        return "z is undefined: the outcome never varied."
    which = "the z that decides" if test.margin is None else "the z of the difference"
    text = f"By hand z = {wording.number(z)} (p {p_said(two_sided_p(z))}); {which} = {wording.number(test.z_score)}"
    near = abs(z - test.z_score) <= _FAR_OFF * max(1.0, abs(test.z_score))
    text = f"{text}: the same." if near else f"{text}. {_why_another(found.findings, test)}"
    return f"{text} Users are simulated." if found.simulated else text


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


def clustering_said(plan: ABPlan, seen: float | None) -> str:
    """What a log says of the plan's design effect."""
    if seen is None:
        return "No log says yet how much alike the requests of one user are; the plan has its own design effect."
    planned, found = f"{plan.design_effect:g}", wording.number(seen)
    text = (
        f"In the log requests of one user make a design effect of {found}; this plan has {planned}"
    )
    more = (
        "would need more users: give design_effect to the next plan"
        if seen > plan.design_effect
        else "needs no more users"
    )
    return f"{text}, so a plan like it {more}. A locked plan stays as it is."


def metric(found: Reading | NoReading) -> str:
    """The primary metric in words; "" without a plan."""
    return found.plan.plan.primary.name.replace("_", " ") if found.plan else ""


def difference(test: Effect | None, value: float | None, *, sign: bool = True) -> str:
    """A difference in points or in the metric's unit."""
    if value is None:
        return wording.NOTHING
    if test is not None and test.shown_as == "points":
        return wording.amount(value, digits=_digits(test), sign=sign)
    return wording.amount(value, "number", sign=sign)


def _digits(test: Effect) -> int:
    return wording.decimals(test.estimate, test.ci_low, test.ci_high)


def span(test: Effect | None, low: float | None, high: float | None) -> str:
    """Both ends of an interval, the unit once."""
    if low is None and high is None:
        return "no interval"
    if test is None or test.shown_as != "points":
        return f"{wording.signed(low)} to {wording.signed(high)}"
    return wording.limits(low, high, digits=_digits(test))


def level(test: Effect | None, value: float | None) -> str:
    """A level in percent or in the metric's unit."""
    return (
        wording.percent(value)
        if test is not None and test.shown_as == "points"
        else wording.number(value)
    )


def planned(plan: ABPlan) -> str:
    """A plan in one sentence."""
    looks = (
        "one look at the end"
        if plan.looks == 1
        else f"{plan.looks} looks with O'Brien-Fleming limits"
    )
    return (
        f"{wording.count(plan.n_control)} control and {wording.count(plan.n_treatment)} treatment users, about "
        f"{plan.days} days at {wording.count(plan.users_per_day)} new users a day; {looks}; outcomes count for "
        f"{wording.plural(plan.outcome_window_days, 'day')} after a user's first request"
    )


def _kind(plan: ABPlan) -> str:
    one = plan.primary
    asked = ""
    if one.margin:
        scale = "points" if one.kind == "rate" else "number"
        asked = f", to be no worse by more than {wording.loss(one.margin, scale)}"
    return one.kind + (", lower is better" if one.lower_is_better else "") + asked


def needed(plan: ABPlan) -> str:
    """What a locked plan, or a draft, asks for."""
    if plan.experiment_name == UNNAMED:
        return f"Nothing is locked. With the numbers given a test would need {planned(plan)}"
    return f"The locked plan needs {planned(plan)}"


def _told(found: Reading | NoReading, said: Sequence[str]) -> str:
    text = " ".join(f"{one.rstrip('.')}." for one in said)
    return f"{text} Users are simulated." if found.simulated else text


def p_said(p_value: float | None) -> str:
    """A p-value within a sentence."""
    text = wording.p_text(p_value)
    return text if text.startswith("<") else "undefined" if p_value is None else f"= {text}"


_DIFFERENCE = "Difference (95% interval)"
_LATEST = 12


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


def part_rows(rows: Sequence[Mapping[str, Any]], found: Reading | NoReading) -> list[Row]:
    """Days, slices or further metrics as table rows."""
    test = found.findings.primary if found.findings else None
    return [
        {
            "Part": one["name"],
            "Users": wording.count(one["n"]),
            "Control": level(test, one["control_rate"]),
            "Treatment": level(test, one["treatment_rate"]),
            _DIFFERENCE: f"{difference(test, one['estimate'])} ({span(test, one['ci_low'], one['ci_high'])})",
            "p (Holm)": wording.p_text(one["p_adjusted"]),
        }
        for one in rows
        if test
    ]


def _watched_row(one: Watched) -> dict[str, Any]:
    change, name = one.change, one.name
    limit = None if one.margin is None else one.margin if one.better == "lower" else -one.margin
    suffix, level_suffix = (
        unit(change, name),
        "" if change.shown_as == "points" else unit(change, name),
    )
    middle, low, high, most = (
        amount(change, v, sign=True)
        for v in (change.estimate, change.ci_low, change.ci_high, limit)
    )
    old, new = (
        amount(change, value, name) for value in (change.control_rate, change.treatment_rate)
    )
    return {
        "What is watched": label(one),
        "Control": f"{old}{level_suffix}",
        "Treatment": f"{new}{level_suffix}",
        _DIFFERENCE: _without_interval(change, middle + suffix)
        if change.ci_low is None
        else f"{middle}{suffix} ({low} to {high})",
        "Limit": most if limit is None else f"{most}{suffix}",
        "Status": one.verdict,
    }


def _without_interval(change: Effect, text: str) -> str:
    return f"{wording.NOTHING if change.estimate is None else text} ({change.notes[0] if change.notes else 'no interval'})"


def slice_rows(found: Reading | NoReading) -> list[Row]:
    """The effect in each slice."""
    return part_rows(found.findings.by_slice if found.findings else (), found)


def day_rows(found: Reading | NoReading) -> list[Row]:
    """The effect on the users of each day."""
    return part_rows(found.findings.by_day if found.findings else (), found)


def guardrail_rows(plan: ABPlan) -> list[Row]:
    """The plan's guardrails."""
    return [
        {"What is watched": label(one), "May be worse by": _margin(one), "Better": one.better}
        for one in plan.guardrails
    ]


def _margin(one: Guardrail) -> str:
    if one.kind == "rate":
        return f"{wording.points(one.margin, sign=False)} points"
    return f"{one.margin:g} ms" if one.name == "latency_ms" else f"{one.margin:g}"


def _amendments(locked: LockedPlan) -> list[Row]:
    return [
        {
            "when": one.at[:10],
            "reason": one.reason,
            "phase": one.phase,
            "changed": "; ".join(
                f"{name}: {old} to {new}" for name, (old, new) in one.changed.items()
            ),
        }
        for one in locked.amendments
    ]


def ledger_rows(looks: pd.DataFrame) -> list[Row]:
    """The latest looks at the test, newest first."""
    latest = looks.tail(_LATEST).iloc[::-1].astype(object)
    latest = latest.where(latest.notna(), None)
    return [
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
