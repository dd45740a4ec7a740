"""Figures of the plan: what its users can find, how long it takes, and why nobody should look every day."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evalkit import wording
from evalkit.abtest import prospect
from evalkit.abtest.plan import ABPlan
from evalkit.show import style
from evalkit.show.plots.tracks import round_ticks
from evalkit.show.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def power(plan: ABPlan, *, narrow: bool = False) -> Axes:
    """The chance to show a true difference, by its size, with the planned users."""
    differences, powers = prospect.power_curve(plan)
    _, ax = style.canvas(3.2, narrow=narrow, width=style.HALF)
    scale = 100 if plan.primary.kind == "rate" else 1
    aim = abs(plan.primary.detectable_difference)
    x = np.array(differences) * scale
    ax.axhspan(plan.power, 1, color=COLOURS["pass_zone"], lw=0)
    style.threshold(ax, plan.power, vertical=False)
    ax.plot(x, powers, color=COLOURS["fine_tuned"], lw=2)
    at = 0.0 if plan.primary.margin else aim
    ax.plot(at * scale, _reached(plan), "o", ms=9, color=COLOURS["fine_tuned"])
    ax.set(ylim=(0, 1.03), xlim=(x[0], x[-1]))
    if plan.primary.margin:
        style.threshold(ax, x[0])
        style.zero_line(ax)
    ax.yaxis.set_major_formatter(lambda value, _: wording.percent(value, 0))
    gain = "true gain, the margin at the left" if plan.primary.margin else "true difference"
    ax.set_xlabel(gain + (", points" if scale == 100 else ""))
    return style.titled(ax, power_title(plan), narrow=narrow, above="chance to show it")


def power_title(plan: ABPlan) -> str:
    """What the planned users can find, in one sentence."""
    aim = abs(plan.primary.detectable_difference)
    size = (
        f"{wording.points(aim, sign=False)} points"
        if plan.primary.kind == "rate"
        else wording.number(aim)
    )
    chance = wording.percent(_reached(plan), 0)
    if plan.primary.margin:
        loss = wording.loss(
            plan.primary.margin, "points" if plan.primary.kind == "rate" else "number"
        )
        users = wording.count(plan.n_users)
        return f"{users} users rule out a loss of {loss} in {chance} of tests of equal models"
    return f"{wording.count(plan.n_users)} users show a true difference of {size} with a chance of {chance}"


def _reached(plan: ABPlan) -> float:
    """The power at what is planned for: the difference worth finding, or none where a loss is to be ruled out."""
    return prospect.power_at(plan, 0.0 if plan.primary.margin else plan.primary.aim)


def duration(plan: ABPlan, *, narrow: bool = False) -> Axes:
    """Days until the answer, by the treatment's share of traffic."""
    import seaborn as sns

    rows = prospect.durations(plan)
    splits = [wording.percent(row["split"], 0) for row in rows]
    chosen = [row["split"] == plan.traffic_split for row in rows]
    days = [row["days"] for row in rows]
    most = max(days)
    _, ax = style.canvas(0.9 + 0.36 * len(rows), narrow=narrow, width=style.HALF)
    roles = {True: COLOURS["fine_tuned"], False: COLOURS["base"]}
    look = {"palette": roles, "saturation": 1, "width": 0.62, "legend": False}
    sns.barplot(x=days, y=splits, hue=chosen, ax=ax, **look)
    for y, row in enumerate(rows):
        text = f"{row['days']} days, {wording.count(row['users'])} users"
        weight = "bold" if chosen[y] else "normal"
        ax.text(row["days"] + most * 0.02, y, text, va="center", fontsize=9, weight=weight)
    ax.set_xlim(0, most * (2.1 if narrow else 1.55))
    ax.set_xticks(round_ticks(most))
    ax.set_xlabel("days, in whole weeks")
    return style.titled(
        ax, duration_title(plan), narrow=narrow, above="share of users in treatment"
    )


def duration_title(plan: ABPlan) -> str:
    """How long the chosen split takes, and how much an even one would."""
    even = plan.changed(traffic_split=0.5)
    text = f"At {wording.percent(plan.traffic_split, 0)} treatment the test takes {plan.days} days"
    return text if even.days >= plan.days else f"{text}; an even split would take {even.days}"


def peeking(runs: prospect.Peeking, *, narrow: bool = False) -> Axes:
    """False alarms so far in tests where nothing differs, by the way they are looked at."""
    import seaborn as sns
    from matplotlib.ticker import MaxNLocator

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
        ax, peeking_title(runs), narrow=narrow, above="tests with a false winner so far"
    )


def peeking_title(runs: prospect.Peeking) -> str:
    """What daily looks do, in one sentence."""
    naive, bounded = wording.percent(runs.naive[-1]), wording.percent(runs.bounded[-1])
    return f"Looking every day finds a winner in {naive} of tests without any; with limits in {bounded}"
