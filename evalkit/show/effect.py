"""The effect of an A/B test for its readers: figures, tables and sentences, each made whole from a reading."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from evalkit import wording
from evalkit.abtest.effects import Effect, Row
from evalkit.abtest.plan import Metric
from evalkit.abtest.reading import NoReading, Reading
from evalkit.records import Missing
from evalkit.show import style, tables
from evalkit.show.figure import picture
from evalkit.show.lacking import in_words
from evalkit.show.style import COLOURS
from evalkit.show.tables import Html
from evalkit.show.tracks import beside, draw_interval, draw_line, empty_axes
from evalkit.stats import keeps_margin
from evalkit.stats.result import two_sided_p

DIFFERENCE = "Difference (95% interval)"
SHOWN = ("better", "worse")
NO_TIMES = "The log is a table without times, so nothing is shown by day"
_FAR_OFF = 0.005  # share by which a z by hand may miss the kit's before a reason is told
_MARGIN = " Where a margin is asked for, z is of the difference and the margin together."
_BANDS = (  # the outer one first: its colour, and its edges' colour and dashes
    ("sequence", "base_soft", "muted", style.DASHES),
    ("ci", "fine_tuned_soft", "fine_tuned", "-"),
)
_FARTHEST_Z = 15.0  # beyond it the curve would be a spike: an arrow instead


def z_test(found: Reading | NoReading) -> Html:
    """Where z would fall if nothing had changed, the region that counts, and where it fell."""
    caption = f"By user; the dashed lines are the limits of the plan.{_MARGIN}"
    return pictured(draw_z_test, found, alt(found), caption)


def by_hand(found: Reading | NoReading, z: float) -> Html:
    """A z of one's own beside the one that decides, and what lies between them."""
    if not found.findings:
        return tables.note("Withheld with the effect.")
    test = found.findings.primary
    if test.z_score is None or not math.isfinite(z):
        return tables.note("z is undefined: the outcome never varied.")
    near = abs(z - test.z_score) <= _FAR_OFF * max(1.0, abs(test.z_score))
    why = (
        ". The kit's keeps the phases of the split apart and weighs how lopsided the outcomes are; where few users have an "
        "event, Fisher's exact test on users decides, told as the z that has its p; a metric that is no rate has another test."
    )
    why = ": the same." if near else why
    own = f"By hand z = {wording.number(z)} (p {p_said(two_sided_p(z))})"
    return tables.note(marked(f"{own}; z of the kit = {wording.number(test.z_score)}{why}", found))


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
    return pictured(draw_looks, found, alt_looks(found), f"{caption}{_MARGIN}")


def later(found: Reading | NoReading) -> Html:
    """Users who came after the look that decides, and a split that changed on the way."""
    said = " ".join(one for one in (ramp_said(found), later_said(found)) if one)
    if not found.findings:
        said = "Withheld with the effect."
    return tables.note(marked(said, found) if said else "Every user in the log counts.")


def over_time(found: Reading | NoReading) -> Html:
    """The difference so far after each day's users."""
    caption = (
        "Inner band: for one look. Outer band: a confidence sequence, which holds however often one looks. "
        "Dashed across: the margin, where one is asked for."
    )
    return pictured(draw_over_time, found, alt_over_time(found), caption)


def cuped(found: Reading | NoReading) -> Html:
    """The difference adjusted for what users did before, beside the one that decides."""
    if not found.findings:
        return tables.note("Withheld with the effect.")
    test, plain = found.findings.cuped, found.findings.primary
    if test is None:
        return tables.note(
            "Nothing from before the test is named to adjust by: only a mean can be, by the plan's covariate."
        )
    text = (
        f"Adjusted for what users did before (CUPED) {_beside(test)}, p {p_said(test.p_value)}, "
        f"{wording.count(test.n)} users"
    )
    if test.se and plain.se:
        text += f"; its standard error is {wording.percent(test.se / plain.se, 0)} of the plain one. It decides nothing"
    return tables.note(marked(f"{text}.", found))


def effect_slices(found: Reading | NoReading) -> Html:
    """The difference in each slice, in a table."""
    return _parts(found, "by_slice", slices_said(found))


def days(found: Reading | NoReading) -> Html:
    """The difference of each day's new users, in a table."""
    return _parts(found, "by_day", days_said(found))


def _parts(found: Reading | NoReading, which: str, title: str) -> Html:
    rows = part_rows(found, which)
    if rows and found.findings:  # those of the effect above it
        test = found.findings.primary
        title += f"; the {wording.plural(test.n, 'user')} of look {test.look}, which decides"
    numeric = ("Users", "Control", "Treatment", DIFFERENCE, "p (Holm)")
    return tables.table(rows, caption=titled(title, found), numeric=numeric)


@tables.answer.register
def _answer_of_a_reading(found: Reading | NoReading) -> Html:
    return tables.answer(answer_said(found), simulated=found.simulated)


# ---- in words


def answer_said(found: Reading | NoReading) -> str:
    """The chapter's answer."""
    text = f"{headline(found)}."
    if found.findings:
        lacks = [f"Missing: {_price(one)}." for one in found.missing]
        text = " ".join([text, figures(found.findings.primary), later_said(found), *lacks])
    return marked(" ".join(text.split()), found)


def _price(one: Missing) -> str:
    said = in_words(one)
    return f"{said.action} ({said.price})"


def headline(found: Reading | NoReading) -> str:
    """The verdict in one clause; without any effect while that is withheld, but with what is missing for it."""
    if not found.findings or not found.plan:
        lacks = found.missing[0]
        is_held = isinstance(found, Reading) and lacks.kind != "not_read"
        held = f"{found.verdict}: " if is_held else ""
        return wording.capital(f"{held}{in_words(lacks).why}. Missing: {_price(lacks)}")
    test, name = found.findings.primary, metric(found)
    size = difference(test, test.estimate, sign=False)
    way = "higher" if (test.estimate or 0.0) > 0 else "lower"
    loss = wording.loss_of(test.margin, test)
    inside = (
        f"a loss of {loss} is not ruled out"
        if test.margin
        else "the difference is inside the limits"
    )
    return {
        "not worse": f'Not worse by more than {loss}: "{name}"',
        "not shown": f'Not shown: a loss of {loss} in "{name}" is not ruled out after the planned users',
        "better": f'Better: "{name}" is {size} {way} in treatment',
        "worse": f'Worse: "{name}" is {size} {way} in treatment',
        "invalid": f"No verdict: {test.no_verdict}",
        "too early": f"Too early: at look {test.look} of {test.looks} {inside}",
    }.get(test.verdict, f'No difference shown in "{name}" after the planned users')


def alt(found: Reading | NoReading) -> str:
    """The effect as an alternative text; while it is withheld, only that."""
    effect = [figures(found.findings.primary)] if found.findings else []
    return alt_of(found, [headline(found), *effect])


def alt_looks(found: Reading | NoReading) -> str:
    """Every look so far as an alternative text."""
    done = found.findings.looks if found.findings else ()
    return alt_of(found, [headline(found), *(f"Look {one.look}: {figures(one)}" for one in done)])


def alt_over_time(found: Reading | NoReading) -> str:
    """How the difference began and where it stands, as an alternative text."""
    rows = found.findings.over_time if found.findings else ()
    if not found.findings or not rows:
        return alt(found)
    ends = [f"{row['date']}: {sized(found.findings.primary, row)}" for row in (rows[0], rows[-1])]
    return alt_of(found, [headline(found), f"Users up to {'; up to '.join(ends)}"])


def slices_said(found: Reading | NoReading) -> str:
    """Does the effect differ between slices?"""
    done = found.findings
    if not done or not done.by_slice:
        return "No slices to show"
    by = {word: [one["name"] for one in done.by_slice if one["verdict"] == word] for word in SHOWN}
    said = [f"{word} in {wording.listed(names)}" for word, names in by.items() if names]
    told = f"No difference shown in any of {wording.plural(len(done.by_slice), 'slice')}"
    if said:
        told = f"After Holm's correction: {wording.listed(said)}"
    return f"{told}; a user with requests in several slices counts in each"


def days_said(found: Reading | NoReading) -> str:
    """Does the effect differ between the days on which users came?"""
    done = found.findings
    if not done or not done.by_day:
        return "No days to show" if found.timed else NO_TIMES
    moved = sum(one["verdict"] != "no difference shown" for one in done.by_day)
    among = wording.plural(len(done.by_day), "day")
    where = f"shows in {moved} of {among}" if moved else "is not shown on any single day"
    return f"A difference {where}, after Holm's correction"


def later_said(found: Reading | NoReading) -> str:
    """How many users came after the look that decides, and the effect over all beside it; "" when none did."""
    if not found.findings or not found.findings.n_later:
        return ""
    done, whole = found.findings, found.findings.over_all
    said = (
        f"{wording.plural(done.n_later, 'user')} of {wording.count(done.primary.n + done.n_later)} came after this look and "
        f"change nothing"
    )
    if whole is None:
        return f"{said}."
    return f"{said}: over all {wording.count(whole.n)} whose window has closed {_beside(whole)}."


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
    p = p_said(test.p_value)
    text = (
        f"The simple z-test that counts requests: z {z}, p {p}, {wording.effect(test)} by Newcombe."
    )
    if test.lift is not None:
        lift = (wording.percent(one) for one in (test.lift, test.lift_ci_low, test.lift_ci_high))
        text += " Relative lift {} ({} to {}).".format(*lift)
    if done.design_effect and done.primary.z_score is not None:
        text += (
            f" By user, as they were randomised, z = {wording.number(done.primary.z_score)}: the variance is "
            f"{wording.number(done.design_effect)} times as large."
        )
    return marked(text, found)


def part_rows(found: Reading | NoReading, which: str) -> list[tables.Row]:
    """Days or slices as table rows, by the name of the field of the findings."""
    if not found.findings:
        return []
    test = found.findings.primary
    scale = wording.scale_of(test)
    return [
        {
            "Part": one["name"],
            "Users": wording.count(one["n"]),
            "Control": wording.level(one["control_rate"], scale),
            "Treatment": wording.level(one["treatment_rate"], scale),
            DIFFERENCE: sized(test, one),
            "p (Holm)": wording.p_text(one["p_adjusted"]),
        }
        for one in getattr(found.findings, which)
    ]


def figures(test: Effect) -> str:
    """Estimate, interval, levels and p in one sentence."""
    old, new = (
        wording.level(one, wording.scale_of(test))
        for one in (test.control_rate, test.treatment_rate)
    )
    text = f"Difference {wording.effect(test)}: {old} in control, {new} in treatment, {wording.count(test.n)} users"
    if test.margin is not None:
        return (
            f"{text}; the interval is read against a loss of {wording.loss_of(test.margin, test)}."
        )
    if test.bound is not None and test.z_score is not None:
        return f"{text}; z = {wording.number(test.z_score)} against a limit of {wording.number(test.bound)}."
    return f"{text}; p {p_said(test.p_value)}."


def _beside(test: Effect) -> str:
    return f"the difference is {wording.effect(test)}, as if looked at once"


def difference(test: Effect, value: float | None, *, sign: bool = True) -> str:
    """A difference in points or in the metric's unit, in the decimals of the whole."""
    digits = wording.decimals(test.estimate, test.ci_low, test.ci_high)
    return wording.amount(value, wording.scale_of(test), digits=digits, sign=sign)


def sized(test: Effect, row: Row) -> str:
    """The difference of a day or a slice with its interval, in the decimals of the whole."""
    digits = wording.decimals(test.estimate, test.ci_low, test.ci_high)
    ends = wording.limits(row["ci_low"], row["ci_high"], wording.scale_of(test), digits=digits)
    return f"{difference(test, row['estimate'])} ({ends})"


def metric(found: Reading | NoReading) -> str:
    """The primary metric in words; "" without a plan."""
    return found.plan.plan.primary.name.replace("_", " ") if found.plan else ""


def p_said(p_value: float | None) -> str:
    """A p-value within a sentence."""
    return "undefined" if p_value is None else wording.p_phrase(p_value)


# ---- drawn


def draw_z_test(found: Reading | NoReading, *, narrow: bool = False) -> Axes:
    """Where z would fall if nothing had changed, the region that counts, and where it fell."""
    test = found.findings.primary if found.findings else None
    if test is None or test.z_read is None:
        return nothing_drawn(found, z_said(test) if test else "", narrow=narrow)
    z, limit = test.z_read, test.z_limit()
    null = "nothing\nhad changed" if test.margin is None else "the loss\nwere the margin"
    reach = max(4.4, limit + 1.2, abs(z) + 1.2 if abs(z) <= _FARTHEST_Z else 0.0)
    _, ax = style.canvas(3.4, narrow=narrow, width=style.HALF)
    x = np.linspace(-reach, reach, 1200)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    low, high = _zones(test)
    ax.axvspan(limit, reach, ymax=0.37, color=high, lw=0)
    ax.axvspan(-reach, -limit, ymax=0.37, color=low, lw=0)
    ax.fill_between(x, density, where=np.abs(x) <= limit, color=COLOURS["base_soft"], lw=0)
    ax.fill_between(x, density, where=np.abs(x) >= limit, color=COLOURS["fine_tuned"], lw=0)
    ax.plot(x, density, color=COLOURS["base"], lw=1.4)
    for side in (-1, 1):
        ax.plot([side * limit] * 2, [0, 0.17], color=COLOURS["ink"], lw=1.4, ls=style.DASHES)
    _observed(ax, z, reach, test.verdict, null)
    ax.set(ylim=(0, 0.46), xlim=(-reach, reach), yticks=[])
    low, high = (f"limit\n{wording.number(at)}" for at in (-limit, limit))
    ax.set_xticks([-limit, 0, limit], [low, "0", high])
    left, right = ("better", "worse") if test.lower_is_better else ("worse", "better")
    ax.set_xlabel(f"{left} ←  z, if {' '.join(null.split())}  → {right}")
    return style.titled(ax, z_said(test), narrow=narrow)


def _observed(ax: Axes, z: float, reach: float, verdict: str, null: str) -> None:
    side, beyond = (-1 if z < 0 else 1), abs(z) > reach
    spot = side * reach if beyond else z
    if not beyond:
        ax.plot([spot, spot], [0, 0.33], color=COLOURS[style.kind_of(verdict)], lw=2.4)
    draw_interval(ax, 0.33, spot, None, None, verdict, beyond=side * beyond)
    inwards = abs(spot) > 0.62 * reach  # else the words would leave the figure
    at = spot - side * 0.02 * reach if inwards else side * max(abs(spot) + 0.2, 1.3)
    ha = "left" if (side > 0) is not inwards else "right"
    told = f"observed\nz = {wording.number(z)}" + (",\nfar off this scale" if beyond else "")
    ax.text(at, 0.35, told, ha=ha, va="bottom", weight="bold", fontsize=9.6)
    look = {"ha": "right" if side > 0 else "left", "va": "center", "fontsize": 9}
    ax.text(-side * 1.3, 0.36, f"if {null}", color=COLOURS["muted"], **look)


def z_said(test: Effect) -> str:
    """Where z lies, as a figure's title."""
    if test.z_read is None:
        return "z is undefined: the outcome never varied"
    where = "beyond" if test.verdict in SHOWN else "inside"
    against = ""
    if test.margin is not None:
        where = "beyond" if keeps_margin(test, test.margin) else "not beyond"
        against = f" against a loss of {wording.loss_of(test.margin, test)}"
    look = f" of look {test.look} of {test.looks}" if test.looks > 1 else ""
    return f"z = {wording.number(test.z_read)}{against} lies {where} the limit{look}, {wording.number(test.z_limit())}"


def draw_over_time(found: Reading | NoReading, *, narrow: bool = False) -> Axes:
    """The difference so far after each day's users, with its plain interval and the one that may be read every day."""
    done = found.findings
    rows = [row for row in done.over_time if row["ci_low"] is not None] if done else []
    if not done or not rows:
        none = "No interval can be drawn: the outcome never varied" if found.timed else NO_TIMES
        return nothing_drawn(found, none if done else "", narrow=narrow)
    test, day = done.primary, np.arange(len(rows))
    scale = 100.0 if test.shown_as == "points" else 1.0
    value = pd.DataFrame(rows).drop(columns="date").astype(float) * scale
    _, ax = style.canvas(3.4, narrow=narrow)
    for band, soft, role, dashes in _BANDS:
        edges = value[f"{band}_low"], value[f"{band}_high"]
        ax.fill_between(day, *edges, color=COLOURS[soft], lw=0)
        for edge in edges:
            ax.plot(day, edge, color=COLOURS[role], lw=0.9, ls=dashes)
    line = {"marker": "o" if len(rows) == 1 else None, "color": COLOURS["fine_tuned"], "lw": 2}
    sns.lineplot(x=day, y=np.asarray(value["estimate"]), ax=ax, **line)
    draw_line(ax, "zero", vertical=False)
    worst = 0.0
    if test.margin is not None:
        worst = (1 if test.lower_is_better else -1) * test.margin * scale
        draw_line(ax, "limit", worst, vertical=False)
        look = {"va": "bottom", "fontsize": 9, "color": COLOURS["muted"]}
        ax.text(0, worst, f" margin: {wording.loss_of(test.margin, test)} worse", **look)
    settled = value.iloc[min(len(rows) - 1, len(rows) // 6) :]
    ends = [0.0, worst, *settled["ci_low"], *settled["ci_high"]]
    low, high = np.nanmin(ends), np.nanmax(ends)
    pad = 0.12 * ((high - low) or 1.0)
    ax.set_ylim(low - pad, high + pad)
    plain, sequence = value[["ci_high", "sequence_high"]].iloc[-1]
    beside(ax, day[-1], plain, "95% interval", "fine_tuned")
    if not math.isnan(sequence):  # at least a line above the other
        top = max(sequence, plain + 0.06 * (high - low + 2 * pad))
        beside(ax, day[-1], top, "at every look", "muted")
    ticks = np.unique(np.linspace(0, len(rows) - 1, 3 if narrow else 6).round().astype(int))
    ax.set_xticks(ticks, [rows[at]["date"][5:] for at in ticks])
    ax.set_xlim(0, max(1, len(rows) - 1) * (1.42 if narrow else 1.2))
    if test.shown_as == "points":
        ax.yaxis.set_major_formatter(lambda at, _: wording.points(at / 100, 0))
    ax.set_xlabel("users who came up to this day (UTC)")
    title = f"After {len(rows)} days of users the difference is {sized(test, rows[-1])}"
    above = "points" if test.shown_as == "points" else metric(found)
    return style.titled(ax, title, narrow=narrow, above=above)


def draw_looks(found: Reading | NoReading, *, narrow: bool = False) -> Axes:
    """Z at each planned look inside the limits it must leave to count; looks to come are marked."""
    if isinstance(found, NoReading) or not found.valid:
        return nothing_drawn(found, narrow=narrow)
    plan, due, limits = found.plan.plan, found.schedule.due, np.array(found.bounds)
    done = found.findings.looks if found.findings else ()
    to_come = plan.look_fractions[due[-1].look if due else 0 :]
    spots = [*(one.information for one in due), *to_come][: len(limits)]
    _, ax = style.canvas(3.4, narrow=narrow, width=style.HALF)
    most = max([5.2, *(abs(one.z_read or 0.0) * 1.3 for one in done)])
    across = [max(0.0, spots[0] - 0.1), *spots, 1.06]
    edge = np.minimum(np.pad(limits, 1, mode="edge"), most * 2)
    low, high = _zones(plan.primary)
    ax.fill_between(across, edge, most * 2, color=high, lw=0)
    ax.fill_between(across, -most * 2, -edge, color=low, lw=0)
    for side in (-1, 1):
        ax.plot(across, side * edge, color=COLOURS["ink"], lw=1.4, ls=style.DASHES)
    draw_line(ax, "zero", vertical=False)
    for spot, one in zip(spots, done, strict=False):
        if (z := one.z_read) is not None:
            draw_interval(ax, spot, z, None, None, one.verdict, vertical=True)
            place = z + most * (0.07 if z >= 0 else -0.16)
            ax.text(spot, place, wording.number(z), ha="center", fontsize=9, weight="bold")
    for spot in spots[len(done) :]:
        ax.plot(spot, 0, "|", ms=11, color=COLOURS["muted"], mew=1.4)
    ax.set(ylim=(-most, most), xlim=(0, 1.06))
    ax.set_xticks(spots, [wording.percent(one, 0) for one in spots])
    ax.set_xlabel("share of the planned information" + ("" if narrow else "; bars: looks to come"))
    title = f"No look is read yet of {len(spots)} planned"
    title = z_said(found.findings.primary) if found.findings else title
    above = "z" if plan.primary.margin is None else "z against the margin"
    return style.titled(ax, title, narrow=narrow, above=above)


def _zones(one: Effect | Metric) -> tuple[str, str]:
    """Colours below the lower limit and above the upper one."""
    bad, good = COLOURS["fail_zone"], COLOURS["pass_zone"]
    return (good, bad) if one.lower_is_better else (bad, good)


# ---- how any reading is shown


def pictured(plot: Callable[..., Axes], found: Reading | NoReading, alt: str, caption: str) -> Html:
    """A figure of a reading, whole."""
    return picture(plot, found, alt=alt, caption=caption, simulated=found.simulated)


def nothing_drawn(found: Reading | NoReading, title: str = "", *, narrow: bool = False) -> Axes:
    """The box that stands where nothing may be shown, or nothing can be."""
    box = empty_axes("nothing to draw", narrow=narrow)
    return style.titled(box, title or headline(found), narrow=narrow)


def alt_of(found: Reading | NoReading, said: Sequence[str]) -> str:
    """Clauses as an alternative text."""
    return marked(" ".join(f"{one.rstrip('.')}." for one in said), found)


def marked(text: str, found: Reading | NoReading) -> str:
    """A text that names simulated users."""
    return f"{text} Users are simulated." if found.simulated else text


def titled(title: str, found: Reading | NoReading) -> str:
    """A table's caption; simulated users are named in it."""
    return f"{title} (simulated users)" if found.simulated else title
