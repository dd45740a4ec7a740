"""Figures of the A/B test: what a plan can find and how long it takes, whether anybody is harmed, what users made of it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from evalkit import wording
from evalkit.abtest.effects import Effect, Row, Watched
from evalkit.abtest.plan import ABPlan, Metric, Peeking, durations, power_at, power_curve
from evalkit.abtest.reading import NoReading, PhaseUsers, Reading
from evalkit.show import abtest as words
from evalkit.show import style
from evalkit.show.plots.tracks import Mark, Track, dashed, round_ticks, spans, tracks_axes
from evalkit.show.style import COLOURS


def z_test(found: Reading | NoReading, *, narrow: bool = False) -> Axes:
    """Where z would fall if nothing had changed, the region that counts, and where it fell."""
    if not isinstance(found, Reading) or not found.findings:
        return withheld(found, narrow=narrow)
    test = found.findings.primary
    if test.z_read is None:
        return withheld(found, "z is undefined: the outcome never varied", narrow=narrow)
    z, limit = test.z_read, _limit(test)
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
    ax.set_xticks(
        [-limit, 0, limit],
        [f"limit\n{wording.number(-limit)}", "0", f"limit\n{wording.number(limit)}"],
    )
    left, right = ("better", "worse") if test.lower_is_better else ("worse", "better")
    of_what = " ".join(null.split())
    ax.set_xlabel(f"{left} ←  z, if {of_what}  → {right}")
    return style.titled(ax, _z_title(z, limit, test), narrow=narrow)


def over_time(found: Reading | NoReading, *, narrow: bool = False) -> Axes:
    """The difference so far after each day's users, with its plain interval and the one that may be read every day."""
    done = found.findings
    if done is None:
        return withheld(found, narrow=narrow)
    rows = [row for row in done.over_time if row["ci_low"] is not None]
    if not rows:
        return withheld(found, "No interval can be drawn: the outcome never varied", narrow=narrow)
    test, day = done.primary, np.arange(len(rows))
    scale = 100.0 if test.shown_as == "points" else 1.0
    value = pd.DataFrame(rows)[_SERIES].astype(float) * scale
    _, ax = style.canvas(3.4, narrow=narrow)
    for low, high, role in zip(_SERIES[1::2], _SERIES[2::2], ("base", "fine_tuned"), strict=True):
        ax.fill_between(day, value[low], value[high], color=COLOURS[f"{role}_soft"], lw=0)
    for name in ("ci_low", "ci_high", "sequence_low", "sequence_high"):
        role, dashes = ("fine_tuned", "-") if name.startswith("ci") else ("muted", style.DASHES)
        ax.plot(day, value[name], color=COLOURS[role], lw=0.9, ls=dashes)
    line = {"marker": "o" if len(rows) == 1 else None, "color": COLOURS["fine_tuned"], "lw": 2}
    sns.lineplot(x=day, y=np.asarray(value["estimate"]), ax=ax, **line)
    style.zero_line(ax, vertical=False)
    worst = 0.0
    if test.margin is not None:
        worst = (1 if test.lower_is_better else -1) * test.margin * scale
        style.threshold(ax, worst, vertical=False)
        look = {"va": "bottom", "fontsize": 9, "color": COLOURS["muted"]}
        ax.text(0, worst, f" margin: {words.loss_of(test)} worse", **look)
    settled = value.iloc[min(len(rows) - 1, len(rows) // 6) :]
    ends = [0.0, worst, *settled["ci_low"], *settled["ci_high"]]
    low, high = np.nanmin(ends), np.nanmax(ends)
    pad = 0.12 * ((high - low) or 1.0)
    ax.set_ylim(low - pad, high + pad)
    _name_bands(ax, day[-1], rows[-1], scale)
    ticks = np.unique(np.linspace(0, len(rows) - 1, 3 if narrow else 6).round().astype(int))
    ax.set_xticks(ticks, [rows[at]["date"][5:] for at in ticks])
    ax.set_xlim(0, max(1, len(rows) - 1) * (1.42 if narrow else 1.2))
    if test.shown_as == "points":
        ax.yaxis.set_major_formatter(lambda at, _: wording.points(at / 100, 0))
    ax.set_xlabel("users who came up to this day (UTC)")
    above = "points" if test.shown_as == "points" else words.metric(found)
    return style.titled(ax, _settled_title(test, rows), narrow=narrow, above=above)


def looks(found: Reading | NoReading, *, narrow: bool = False) -> Axes:
    """Z at each planned look inside the limits it must leave to count; looks to come are marked."""
    if not isinstance(found, Reading) or not found.valid:
        return withheld(found, narrow=narrow)
    done = found.findings.looks if found.findings else ()
    at = [one.information for one in found.schedule.due]
    spots = [*at, *found.plan.plan.look_fractions[found.schedule.due[-1].look if at else 0 :]][
        : len(found.bounds)
    ]
    _, ax = style.canvas(3.4, narrow=narrow, width=style.HALF)
    seen = [one.z_read for one in done]
    most = max([5.2, *(abs(z or 0.0) * 1.3 for z in seen)])
    across = [max(0.0, spots[0] - 0.1), *spots, 1.06]
    limits = np.minimum([found.bounds[0], *found.bounds, found.bounds[-1]], most * 2)
    low, high = _zones(found.plan.plan.primary)
    ax.fill_between(across, limits, most * 2, color=high, lw=0)
    ax.fill_between(across, -most * 2, -limits, color=low, lw=0)
    for side in (-1, 1):
        ax.plot(across, side * limits, color=COLOURS["ink"], lw=1.4, ls=style.DASHES)
    style.zero_line(ax, vertical=False)
    for spot, one, z in zip(spots, done, seen, strict=False):
        if z is not None:
            style.interval(ax, spot, z, None, None, one.verdict, vertical=True)
            beside = z + most * (0.07 if z >= 0 else -0.16)
            ax.text(spot, beside, wording.number(z), ha="center", fontsize=9, weight="bold")
    for spot in spots[len(done) :]:
        ax.plot(spot, 0, "|", ms=11, color=COLOURS["muted"], mew=1.4)
    ax.set(ylim=(-most, most), xlim=(0, 1.06))
    ax.set_xticks(spots, [wording.percent(one, 0) for one in spots])
    to_come = len(spots) > len(done) and not narrow
    ax.set_xlabel(
        "share of the planned information"
        + ("; bars across zero: looks to come" if to_come else "")
    )
    title = _looks_title(found.findings.primary if found.findings else None, len(spots))
    with_margin = found.plan.plan.primary.margin is not None
    return style.titled(
        ax, title, narrow=narrow, above="z against the margin" if with_margin else "z"
    )


def sample_ratio(found: Reading | NoReading, *, narrow: bool = False) -> Axes:
    """The treatment's share of users in each phase against the declared split."""
    phases = [one for one in found.sample_ratio if one.test.n] if isinstance(found, Reading) else []
    if not phases:
        return withheld(found, words.sample_ratio_said(found), narrow=narrow)
    tracks = [_share_of(one) for one in phases]
    marks = [mark for track in tracks for mark in track.marks]
    ends = [at for one in marks for at in (one.low, one.high, one.estimate) if at is not None]
    ends += [one.traffic_split for one in phases]
    pad = 0.08 * (max(ends) - min(ends)) or 0.01
    limits = (min(ends) - pad, max(ends) + pad)
    round_numbers = MaxNLocator(4 if narrow else 6, steps=[1, 2, 5, 10]).tick_values(*limits)
    ticks = [float(at) for at in round_numbers if limits[0] <= at <= limits[1]]
    ax = tracks_axes(tracks, limits, ticks, wording.percent, narrow=narrow)
    for place, one in enumerate(phases):
        dashed(ax, one.traffic_split, place, narrow=narrow)
    ax.set_xlabel("treatment's share of users (99.9% interval)" if narrow else _RATIO_LABEL)
    return style.titled(ax, words.sample_ratio_said(found), narrow=narrow)


def guardrails(found: Reading | NoReading, *, narrow: bool = False) -> Axes:
    """Each guardrail's change as a share of its margin: it holds when the whole interval stays left of the limit."""
    rails = [one for one in found.guardrails if one.change.estimate is not None]
    if not rails:
        return withheld(found, words.watched_said(found), narrow=narrow)
    tracks = [_change_of(one) for one in rails]
    ax = tracks_axes(
        tracks, (-_FAR, _FAR), [0, 1], lambda at: "limit" if at else "no change", narrow=narrow
    )
    rows = spans(tracks, narrow=narrow)
    style.pass_zone(ax, -_FAR, 1, spans=rows)
    style.zero_line(ax, spans=rows)
    style.threshold(ax, 1.0, spans=rows)
    ax.set_xlabel("better ←  change as a share of the margin  → worse")
    return style.titled(ax, words.watched_said(found), narrow=narrow)


def withheld(found: Reading | NoReading, title: str = "", *, narrow: bool = False) -> Axes:
    """The box that stands where nothing may be shown, or nothing can be."""
    _, ax = style.canvas(1.2, narrow=narrow)
    look = {"fc": "none", "ec": COLOURS["axis"], "hatch": "///", "lw": 1}
    ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, **look))
    text = "nothing to draw" if title or isinstance(found, NoReading) else words.withheld(found)
    box = {"fc": COLOURS["paper"], "ec": "none", "pad": 6}
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", bbox=box)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return style.titled(ax, title or words.headline(found), narrow=narrow)


_SERIES = ["estimate", "sequence_low", "sequence_high", "ci_low", "ci_high"]
_FAR = 2.5  # margins either way
_FARTHEST_Z = 15.0  # beyond it the curve would be a spike: an arrow instead
_RATIO_LABEL = "treatment's share of users (99.9% interval); dashed: as declared"


def _observed(ax: Axes, z: float, reach: float, verdict: str, null: str) -> None:
    side, beyond = (-1 if z < 0 else 1), abs(z) > reach
    spot = side * reach if beyond else z
    if not beyond:
        ax.plot([spot, spot], [0, 0.33], color=COLOURS[style.kind_of(verdict)], lw=2.4)
    style.interval(ax, 0.33, spot, None, None, verdict, beyond=side * beyond)
    inwards = abs(spot) > 0.62 * reach  # else the words would leave the figure
    at = spot - side * 0.02 * reach if inwards else side * max(abs(spot) + 0.2, 1.3)
    ha = "left" if (side > 0) is not inwards else "right"
    told = f"observed\nz = {wording.number(z)}" + (",\nfar off this scale" if beyond else "")
    ax.text(at, 0.35, told, ha=ha, va="bottom", weight="bold", fontsize=9.6)
    look = {"ha": "right" if side > 0 else "left", "va": "center", "fontsize": 9}
    ax.text(-side * 1.3, 0.36, f"if {null}", color=COLOURS["muted"], **look)


def _name_bands(ax: Axes, day: float, last: Row, scale: float) -> None:
    """Names the two bands beside their upper edges, at least a line apart."""
    low, high = ax.get_ylim()
    plain, sequence = last["ci_high"] * scale, last["sequence_high"]
    style.beside(ax, day, plain, "95% interval", "fine_tuned")
    if sequence is not None:
        at = max(sequence * scale, plain + 0.06 * (high - low))
        style.beside(ax, day, at, "at every look", "muted")


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


def _change_of(one: Watched) -> Track:
    """A change as a share of the margin, positive = worse."""
    change, unit = one.change, (one.margin or 1.0) * (1 if one.better == "lower" else -1)
    ends = sorted(end / unit for end in (change.ci_low, change.ci_high) if end is not None)
    low, high = ends if len(ends) == 2 else (None, None)
    middle = (change.estimate or 0.0) / unit
    return Track(
        name=words.label(one),
        under=one.verdict,
        marks=(Mark(estimate=middle, low=low, high=high, kind=one.verdict),),
        value=words.moved(one, change.estimate),
    )


def _z_title(z: float, limit: float, test: Effect) -> str:
    place = "beyond" if test.verdict in {"better", "worse"} else "inside"
    which = "" if test.bound is None else f" of look {test.look}"
    if test.margin is not None:
        side = "beyond" if words.kept(test) else "not beyond"
        return (
            f"z = {wording.number(z)} against a loss of {words.loss_of(test)} lies {side} "
            f"the limit{which}, {wording.number(limit)}"
        )
    return f"z = {wording.number(z)} lies {place} the limit{which}, {wording.number(limit)}"


def _settled_title(test: Effect, rows: Sequence[Row]) -> str:
    last = rows[-1]
    ends = words.span(test, last["ci_low"], last["ci_high"])
    text = f"After {len(rows)} days of users the difference is {words.difference(test, last['estimate'])} ({ends})"
    if test.looks == 1 or last["n_control"] + last["n_treatment"] == test.n:
        return text
    return f"{text}; look {test.look}, which decides, had {words.difference(test, test.estimate)}"


def _looks_title(test: Effect | None, planned: int) -> str:
    if test is None:
        return f"No look is due yet; {planned} {'is' if planned == 1 else 'are'} planned"
    look = "the only look" if test.looks == 1 else f"look {test.look} of {test.looks}"
    if test.z_read is None or test.z_score is None:
        return "z is undefined: the outcome never varied"
    if test.margin is not None:
        word = "is" if words.kept(test) else "is not"
        z = wording.number(test.z_read)
        return f"At {look} a loss of {words.loss_of(test)} {word} ruled out: z = {z} against it"
    way = "upwards" if test.z_score > 0 else "downwards"
    word = f"leaves the limits {way}" if test.verdict in {"better", "worse"} else None
    return f"At {look} z = {wording.number(test.z_score)} {word or 'is inside the limits'}"


def _zones(one: Effect | Metric) -> tuple[str, str]:
    """Colours below the lower limit and above the upper one."""
    bad, good = COLOURS["fail_zone"], COLOURS["pass_zone"]
    return (good, bad) if one.lower_is_better else (bad, good)


def _limit(test: Effect) -> float:
    return test.bound if test.bound is not None else NormalDist().inv_cdf(1 - test.alpha / 2)


def power(plan: ABPlan, *, narrow: bool = False) -> Axes:
    """The chance to show a true difference, by its size, with the planned users."""
    differences, powers = power_curve(plan)
    _, ax = style.canvas(3.2, narrow=narrow, width=style.HALF)
    scale = 100 if plan.primary.kind == "rate" else 1
    aim = abs(plan.primary.detectable_difference)
    x = np.array(differences) * scale
    ax.axhspan(plan.power, 1, color=COLOURS["pass_zone"], lw=0)
    style.threshold(ax, plan.power, vertical=False)
    ax.plot(x, powers, color=COLOURS["fine_tuned"], lw=2)
    at, reached = (0.0, 0.0) if plan.primary.margin else (aim, plan.primary.aim)
    ax.plot(at * scale, power_at(plan, reached), "o", ms=9, color=COLOURS["fine_tuned"])
    ax.set(ylim=(0, 1.03), xlim=(x[0], x[-1]))
    if plan.primary.margin:
        style.threshold(ax, x[0])
        style.zero_line(ax)
    ax.yaxis.set_major_formatter(lambda value, _: wording.percent(value, 0))
    gain = "true gain, the margin at the left" if plan.primary.margin else "true difference"
    ax.set_xlabel(gain + (", points" if scale == 100 else ""))
    return style.titled(ax, words.power_title(plan), narrow=narrow, above="chance to show it")


def duration(plan: ABPlan, *, narrow: bool = False) -> Axes:
    """Days until the answer, by the treatment's share of traffic."""
    rows = durations(plan)
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
    ax.set_xticks(round_ticks(most))
    ax.set_xlabel("days, in whole weeks")
    return style.titled(
        ax, words.duration_title(plan), narrow=narrow, above="share of users in treatment"
    )


def peeking(runs: Peeking, *, narrow: bool = False) -> Axes:
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
        style.beside(ax, runs.days[-1], at, f"{wording.percent(values[-1])}\n{name}", role)
    ax.plot([0, runs.days[-1]], [runs.alpha] * 2, color=COLOURS["ink"], lw=1.9, ls=style.DASHES)
    ax.set(ylim=(0, top), xlim=(0, runs.days[-1] * (1.75 if narrow else 1.3)))
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))  # ticks in whole percent
    ax.yaxis.set_major_formatter(lambda value, _: wording.percent(value, 0))
    ax.set_xticks(sorted({1, (1 + runs.days[-1]) // 2, runs.days[-1]}))
    ax.set_xlabel("day of the test")
    return style.titled(
        ax, words.peeking_title(runs), narrow=narrow, above="tests with a false winner so far"
    )
