"""Figures of the benchmark: each takes a result, draws it, and states its conclusion as the title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns

from evalkit import wording
from evalkit.answers.pairs import quantile
from evalkit.show import say, style
from evalkit.show.plots.tracks import (
    BELOW_WORDS,
    Mark,
    Track,
    dashed,
    difference_axes,
    rate_axes,
    round_ticks,
    spans,
    tracks_axes,
)
from evalkit.show.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evalkit.benchmark.comparison import Comparison
    from evalkit.benchmark.noise import NoiseFloor
    from evalkit.benchmark.slices import SliceTable

MOST_SQUARES = 600
MOST_ROWS = 40
_CELLS = {"fixed": "good", "regressed": "bad", "both_right": "ink", "both_wrong": "base"}
_WORDS = {
    "both_right": "Both right",
    "fixed": "Fixed",
    "regressed": "Regressed",
    "both_wrong": "Both wrong",
}


def rates(comparison: Comparison, *, chance: float | None = None, narrow: bool = False) -> Axes:
    """Each metric's level for both models, with intervals; the dashed line is the chance level of exact match."""
    tracks = [
        Track(
            name=say.label(name).capitalize(),
            under=", ".join(_under(comparison, name, chance if narrow else None)),
            marks=_sides(comparison, name),
            value=f"{say.level(comparison.base.by_metric.get(name))} → {say.level(comparison.fine_tuned.by_metric.get(name))}",
        )
        for name in comparison.tests
    ]
    ax = rate_axes(tracks, narrow=narrow)
    _name_sides(ax, comparison, narrow=narrow)
    if chance is not None and tracks:
        place = [*comparison.tests].index("exact_match")
        dashed(ax, chance, place, narrow=narrow)
        if not narrow:
            _small(ax, chance, place + 0.36, _at_random(chance), va="top", ha="center")
    base = comparison.base.by_metric.get(comparison.primary_metric)
    if comparison.margin is not None and base is not None and base.estimate is not None:
        _margin(ax, comparison, base.estimate, narrow=narrow)
    return style.titled(ax, say.rates_title(comparison), narrow=narrow)


def differences(comparison: Comparison, *, narrow: bool = False) -> Axes:
    """Fine-tuned minus base for each metric, with intervals on one scale; the primary metric is named."""
    verdicts = say.metric_verdicts(comparison)
    tracks = [
        Track(
            name=say.label(name).capitalize(),
            under=f"{verdicts[name]}{', primary metric' if name == comparison.primary_metric else ''}",
            marks=_mark(test, verdicts[name]),
            value=say.size(test),
        )
        for name, test in comparison.tests.items()
    ]
    margin = comparison.noninferiority.margin if comparison.noninferiority is not None else 0.0
    scale = _scale_of([*comparison.tests.values()])
    ax = difference_axes(tracks, narrow=narrow, reach=margin, **scale)
    if comparison.noninferiority is not None:
        _margin(ax, comparison, 0.0, narrow=narrow)
    return style.titled(ax, say.differences_title(comparison), narrow=narrow)


def _margin(ax: Axes, comparison: Comparison, no_change: float, *, narrow: bool) -> None:
    """The line that the primary metric's whole interval must keep away from, and what it is."""
    margin, place = (
        comparison.noninferiority.margin,
        [*comparison.tests].index(comparison.primary_metric),
    )
    at = no_change + _worst(margin, comparison.primary)
    low, high = ax.get_xlim()
    if not low <= at <= high:
        return
    dashed(ax, at, place, narrow=narrow)
    if narrow:  # no room beside the line: the caption says it
        return
    told = f"margin: {wording.loss(margin, wording.scale_of(comparison.primary))} worse"
    left = at < no_change and at - low > 0.25 * (
        high - low
    )  # away from the marks, where there is room
    _small(ax, at, place + 0.36, told, va="top", ha="right" if left else "left")


def cells(comparison: Comparison, *, noun: str = "example", narrow: bool = False) -> Axes:
    """The four cells: one square an example up to a few hundred, bars with the number above that."""
    ax = (_squares if 0 < comparison.n <= MOST_SQUARES else _bars)(comparison.cells, narrow=narrow)
    return style.titled(ax, say.cells_title(comparison.cells, noun), narrow=narrow)


def similarity(comparison: Comparison, *, narrow: bool = False) -> Axes:
    """How close the answers are: fine-tuned above the line, base below it, their means marked."""
    _, ax = style.canvas(2.7 if narrow else 3.0, narrow=narrow, width=style.WIDE)
    edges, ends = np.linspace(0, 1, 21), {1: 1.0, -1: 1.0}
    for side, sign, role in (
        (comparison.fine_tuned, 1, "fine_tuned"),
        (comparison.base, -1, "base"),
    ):
        values = [
            v
            for one in comparison.pairs
            if (v := getattr(one, f"{role}_values").get("similarity")) is not None
        ]
        heights = np.histogram(np.clip(values, 0, 1), edges)[0]
        sns.histplot(
            x=np.clip(values, 0, 1),
            weights=np.full(len(values), sign),
            bins=list(edges),
            shrink=0.96,
            color=COLOURS[role],
            alpha=1,
            ax=ax,
        )
        ends[sign] = max(1.0, float(heights.max()))
        if side.avg_similarity is not None:
            ax.plot(
                [side.avg_similarity] * 2,
                [0, sign * heights.max() * 1.08],
                color=COLOURS["ink"],
                lw=1.2,
            )
            text = f"{role.replace('_', '-')}, mean {wording.number(side.avg_similarity)}"
            ha, va = (
                "right" if side.avg_similarity > 0.5 else "left",
                "bottom" if sign > 0 else "top",
            )
            _small(ax, side.avg_similarity, sign * heights.max() * 1.1, text, ha=ha, va=va)
    ax.axhline(0, color=COLOURS["ink"], lw=0.9)
    ax.set(xlim=(0, 1), ylim=(-ends[-1] - 0.25 * max(ends.values()), 1.25 * ends[1]), yticks=[])
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    ax.set(xlabel="similarity to the expected text", ylabel="")
    return style.titled(ax, say.similarity_title(comparison), narrow=narrow)


def spread(comparison: Comparison, field: str = "latency_ms", *, narrow: bool = False) -> Axes:
    """Latency or tokens (`field`) of each answer: bar from 5% to 95%, the mark is the median."""
    tracks = []
    for role in ("base", "fine_tuned"):
        known = [
            v for one in comparison.pairs if (v := getattr(getattr(one, role), field)) is not None
        ]
        low, middle, high = (quantile(known, share) for share in (0.05, 0.5, 0.95))
        mark, value = (), wording.NOTHING
        if low is not None and middle is not None and high is not None:
            mark = (Mark(estimate=middle, low=low, high=high, kind=role),)
            value = f"{wording.count(middle)} ({wording.count(low)} to {wording.count(high)})"
        under = wording.plural(len(known), "answer")
        tracks.append(
            Track(name=role.replace("_", "-").capitalize(), under=under, marks=mark, value=value)
        )
    most = max((one.high or 0 for track in tracks for one in track.marks), default=1.0) or 1.0
    ticks = round_ticks(most)
    ax = tracks_axes(tracks, (0, most * 1.06), ticks, wording.count, narrow=narrow)
    ax.set_xlabel(f"{say.measured(field)[1]}, median and the middle 90%")
    return style.titled(ax, say.spread_title(comparison, field), narrow=narrow)


def forest(table: SliceTable, *, narrow: bool = False) -> Axes:
    """The difference in every declared slice; hollow where nothing is shown."""
    tracks = [
        Track(
            name=row.slice,
            under=f"{wording.plural(row.n, 'example')}, "
            + (
                "no test"
                if row.p_adjusted is None
                else f"adjusted p {wording.p_phrase(row.p_adjusted)}"
            ),
            marks=_mark(row.test, row.verdict),
            value=say.size(row.test),
        )
        for row in table.rows[:MOST_ROWS]
    ]
    tests = [row.test for row in table]
    ax = difference_axes(tracks, narrow=narrow, reach=table.margin or 0.0, **_scale_of(tests))
    if len(table) > MOST_ROWS:
        first = f"the first {MOST_ROWS} of {wording.plural(len(table), 'slice')}"
        ax.set_xlabel(f"{first}; {ax.get_xlabel()}")
    if table.margin and tests:
        at = _worst(table.margin, tests[0])
        style.threshold(ax, at, spans=spans(tracks, narrow=narrow))
        told = f"margin: {wording.loss(table.margin, wording.scale_of(tests[0]))} worse"
        _small(ax, at, ax.get_ylim()[1], told, va="bottom", ha="center")
    return style.titled(ax, say.slices_title(table), narrow=narrow)


def flips(noise: NoiseFloor | None, *, narrow: bool = False) -> Axes:
    """How often each model's answer changed between two live passes: other words, and another verdict."""
    tracks = []
    for role, one in noise.by_model.items() if noise else ():
        for name, rate in (("other words", one.text_rate), ("right ↔ wrong", one.flip_rate)):
            marks = _mark(rate, "base" if role == "base" else "fine_tuned")
            value = wording.share(rate.successes, rate.n)
            tracks.append(
                Track(name=f"{role.capitalize()}: {name}", under="", marks=marks, value=value)
            )
    ax = rate_axes(tracks, narrow=narrow)
    return style.titled(ax, say.noise_title(noise), narrow=narrow)


def scatter(comparison: Comparison, *, metric: str = "similarity", narrow: bool = False) -> Axes:
    """One mark an example, base against fine-tuned: above the line the new answer is closer; regressed ones are diamonds."""
    _, ax = style.canvas(3.5 if narrow else 4.4, narrow=narrow, width=style.HALF)
    looks = {
        "both wrong": ("o", "base", 12),
        "both right": ("o", "ink", 12),
        "fixed": ("o", "good", 18),
    }
    looks["regressed"] = ("D", "bad", 22)
    for status, (marker, role, size) in looks.items():
        known = [
            one for one in comparison.pairs if one.status == status and one.diff(metric) is not None
        ]
        sns.scatterplot(
            x=[one.base_values[metric] for one in known],
            y=[one.fine_tuned_values[metric] for one in known],
            s=size,
            marker=marker,
            color=COLOURS["paper" if role == "base" else role],
            edgecolor=COLOURS[role],
            linewidth=0.8,
            ax=ax,
        )
    ax.plot([0, 1], [0, 1], color=COLOURS["axis"], lw=0.9, zorder=0)
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    ax.set_xlabel(f"base, {say.label(metric)}")
    return style.titled(
        ax,
        say.scatter_title(comparison, metric),
        narrow=narrow,
        above=f"fine-tuned, {say.label(metric)}",
    )


def detectable(comparison: Comparison, *, narrow: bool = False) -> Axes:
    """The smallest difference a test set of each size finds, at this run's disagreement; this run is marked."""
    _, ax = style.canvas(2.8 if narrow else 3.0, narrow=narrow)
    n = comparison.n
    detects = partial(say.detects, comparison)
    sizes = [int(size) for size in np.unique(np.geomspace(50, max(2000, 2 * n), 60).astype(int))]
    found = [(size, at * 100) for size in sizes if (at := detects(size)) is not None]
    here = detects(n)
    if found:
        x, y = zip(*found, strict=True)
        sns.lineplot(x=x, y=y, color=COLOURS["fine_tuned"], errorbar=None, ax=ax)
    if here is not None:
        ax.plot([n], [here * 100], "o", ms=9, mfc=COLOURS["fine_tuned"], mec=COLOURS["fine_tuned"])
        text = f"this run: {wording.points(here, sign=False)} points"
        below = (
            comparison.margin is not None and here < comparison.margin
        )  # the line has its own words
        spot = (8, -14 if below else 6)
        ax.annotate(text, (n, here * 100), spot, textcoords="offset points", fontsize=9)
    if comparison.margin is not None:
        style.threshold(ax, comparison.margin * 100, vertical=False)
        told = f"margin: {wording.loss(comparison.margin)}"
        if not narrow:  # there the title says it
            _small(ax, float(sizes[-1]), comparison.margin * 100, told, va="bottom", ha="right")
    ax.set(ylim=(0, None), xlim=(0, float(sizes[-1])))
    ax.grid(axis="y")
    ax.set_xlabel("examples in the test set")
    ax.locator_params(axis="x", nbins=4 if narrow else 8)
    ax.xaxis.set_major_formatter(lambda value, _: wording.count(int(value)))
    what = "points found" if comparison.margin is None else "loss ruled out, points,"
    above = f"{what} with power {wording.percent(comparison.declared.power, 0)}"
    return style.titled(ax, say.detectable_title(comparison, here), narrow=narrow, above=above)


def _scale_of(tests: Sequence[Any]) -> dict[str, Any]:
    """What the axis of these differences measures, and which side of it is good news."""
    sides = {"left" if one.lower_is_better else "right" for one in tests} or {"right"}
    return {
        "scales": {wording.scale_of(one) for one in tests} or {"points"},
        "better": sides.pop() if len(sides) == 1 else "",
    }


def _worst(margin: float, test: Any) -> float:
    """Where a loss of the margin lies."""
    return margin if test.lower_is_better else -margin


def _squares(counts: Mapping[str, int], *, narrow: bool) -> Axes:
    """Each cell's examples as squares in columns of ten, the four cells side by side."""
    per_row, left = (24 if narrow else 60), 0.0
    _, ax = style.canvas(
        0.5 + 0.14 * sum(-(-n // per_row) + 2.6 for n in counts.values()), narrow=narrow
    )
    top = 0.0
    for name, role in _CELLS.items():
        n = counts[name]
        ax.text(
            left,
            top,
            f"{_WORDS[name]} {wording.count(n)}",
            weight="bold",
            va="bottom",
            color=COLOURS["ink"],
        )
        at = np.arange(n)
        marker, face = (
            ("D", COLOURS[role])
            if name == "regressed"
            else ("s", "none" if name == "both_wrong" else COLOURS[role])
        )
        x, y = at % per_row + 0.5, top + 0.7 + at // per_row
        ax.scatter(x, y, s=20, marker=marker, facecolors=face, edgecolors=COLOURS[role], lw=0.9)
        top += -(-n // per_row) + 2.6
    ax.set(xlim=(0, per_row), ylim=(top - 1.6, -1.6))
    ax.set_axis_off()
    return ax


def _bars(counts: Mapping[str, int], *, narrow: bool) -> Axes:
    _, ax = style.canvas(2.4, narrow=narrow)
    most = max([*counts.values(), 1])
    for place, (name, role) in enumerate(_CELLS.items()):
        hollow = name == "both_wrong"
        ax.barh(
            place,
            counts[name],
            height=0.6,
            color=COLOURS["base_soft" if hollow else role],
            edgecolor=COLOURS[role],
            lw=1,
        )
        ax.text(
            counts[name] + most * 0.015,
            place,
            wording.count(counts[name]),
            va="center",
            fontsize=9.4,
        )
    ax.set_yticks(range(len(_CELLS)), [_WORDS[name] for name in _CELLS])
    ax.set(xlim=(0, most * 1.15), ylim=(len(_CELLS) - 0.5, -0.5))
    ax.xaxis.set_visible(False)
    ax.spines["bottom"].set_visible(False)
    return ax


def _sides(comparison: Comparison, name: str) -> tuple[Mark, ...]:
    sides = ((comparison.base, "base"), (comparison.fine_tuned, "fine_tuned"))
    return tuple(
        mark
        for side, kind in sides
        if name in side.by_metric
        for mark in _mark(side.by_metric[name], kind)
    )


def _under(comparison: Comparison, name: str, chance: float | None) -> list[str]:
    primary = ["primary metric"] if name == comparison.primary_metric else []
    return primary + ([_at_random(chance)] if chance is not None and name == "exact_match" else [])


def _at_random(chance: float) -> str:
    return f"at random {wording.percent(chance, 0)}"


def _name_sides(ax: Axes, comparison: Comparison, *, narrow: bool) -> None:
    """Names the two marks once, in the row with room for both names where they lie furthest apart."""
    rows = [(place, _sides(comparison, name)) for place, name in enumerate(comparison.tests)]
    room = [
        (place, marks)
        for place, marks in rows
        if len(marks) == 2 and all(0.2 < at < 0.8 for at, _ in _outsides(marks))
    ]
    if not room:
        return
    place, marks = max(room, key=lambda one: abs(one[1][0].estimate - one[1][1].estimate))
    for one, (at, ha) in zip(marks, _outsides(marks), strict=True):
        y = place + (0.1 if one.kind == "base" else -0.1) + BELOW_WORDS * narrow
        _small(ax, at, y, one.kind.replace("_", "-"), va="center", ha=ha)


def _outsides(marks: tuple[Mark, ...]) -> list[tuple[float, str]]:
    """Where a name of each of two marks would stand, on its side away from the other."""
    left = min(marks, key=lambda one: one.estimate)
    return [
        ((one.estimate if one.low is None else one.low) - 0.02, "right")
        if one is left
        else ((one.estimate if one.high is None else one.high) + 0.02, "left")
        for one in marks
    ]


def _mark(test: Any, kind: str) -> tuple[Mark, ...]:
    return (
        ()
        if test.estimate is None
        else (Mark(estimate=test.estimate, low=test.ci_low, high=test.ci_high, kind=kind),)
    )


def _small(
    ax: Axes, x: float, y: float, text: str, *, va: str, ha: str, colour: str = "muted"
) -> None:
    ax.text(x, y, text, va=va, ha=ha, fontsize=9, color=COLOURS[colour])  # pyright: ignore[reportArgumentType]
