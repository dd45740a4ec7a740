"""Figures of the benchmark: each takes a result, draws it, and states its conclusion as the title."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns

from evalkit import wording
from evalkit.answers.metrics import quantile
from evalkit.show import comparison as told
from evalkit.show import regressions, style, tracks
from evalkit.show.style import COLOURS
from evalkit.show.tracks import Mark, Track, dashed, difference_axes, draw_line, rate_axes
from evalkit.stats import Result
from evalkit.wording import count, loss, number, percent, plural, points, scale_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evalkit.benchmark.comparison import Comparison
    from evalkit.benchmark.noise import NoiseFloor
    from evalkit.benchmark.slices import SliceTable

MOST_SQUARES = 600
MOST_ROWS = 40
_CELLS = {"fixed": "good", "regressed": "bad", "both_right": "ink", "both_wrong": "base"}
_LOOKS = {  # marker, role and size of an example in a scatter
    "both wrong": ("o", "base", 12),
    "both right": ("o", "ink", 12),
    "fixed": ("o", "good", 18),
    "regressed": ("D", "bad", 22),
}


def rates(comparison: Comparison, *, chance: float | None = None, narrow: bool = False) -> Axes:
    """Each metric's level for both models, with intervals; the dashed line is the chance level of exact match."""
    at_random = "" if chance is None else f"at random {percent(chance, 0)}"
    rows = []
    for name, one in comparison.changes.items():
        under = ["primary metric"] if one.is_primary else []
        under += [at_random] if at_random and narrow and name == "exact_match" else []
        marks = (*_mark(one.base, "base"), *_mark(one.fine_tuned, "fine_tuned"))
        value = f"{wording.level_of(one.base)} → {wording.level_of(one.fine_tuned)}"
        rows.append(Track(name=_title(name), under=", ".join(under), marks=marks, value=value))
    ax = rate_axes(rows, narrow=narrow)
    _name_sides(ax, rows, narrow=narrow)
    if chance is not None and "exact_match" in comparison.tests:
        place = [*comparison.tests].index("exact_match")
        dashed(ax, chance, place, narrow=narrow)
        if not narrow:
            _small(ax, chance, place + 0.36, at_random, va="top")
    before = comparison.base.by_metric.get(comparison.primary_metric)
    if comparison.margin is not None and before is not None and before.estimate is not None:
        _margin(ax, comparison, before.estimate, narrow=narrow)
    return style.titled(ax, told.rates_title(comparison), narrow=narrow)


def differences(comparison: Comparison, *, narrow: bool = False) -> Axes:
    """Fine-tuned minus base for each metric, with intervals on one scale; the primary metric is named."""
    rows, against = [], comparison.noninferiority
    for name, one in comparison.changes.items():
        under = f"{one.verdict}{', primary metric' if one.is_primary else ''}"
        marks, value = _mark(one.test, one.verdict), wording.size(one.test)
        rows.append(Track(name=_title(name), under=under, marks=marks, value=value))
    reach = against.margin if against else 0.0
    ax = _difference_axes(rows, comparison.tests.values(), reach=reach, narrow=narrow)
    _margin(ax, comparison, 0.0, narrow=narrow)
    return style.titled(ax, told.differences_title(comparison), narrow=narrow)


def _margin(ax: Axes, comparison: Comparison, no_change: float, *, narrow: bool) -> None:
    """The line that the primary metric's whole interval must keep away from, and what it is."""
    if comparison.noninferiority is None:
        return
    margin = comparison.noninferiority.margin
    place = [*comparison.tests].index(comparison.primary_metric)
    at = no_change + _worst(margin, comparison.primary)
    low, high = ax.get_xlim()
    if not low <= at <= high:
        return
    dashed(ax, at, place, narrow=narrow)
    if narrow:  # no room beside the line: the caption says it
        return
    # away from the marks, where there is room
    left = at < no_change and at - low > 0.25 * (high - low)
    words = _margin_said(margin, comparison.primary)
    _small(ax, at, place + 0.36, words, va="top", ha="right" if left else "left")


def _margin_said(margin: float, test: Result) -> str:
    return f"margin: {wording.loss_of(margin, test)} worse"


def cells(comparison: Comparison, *, noun: str = "example", narrow: bool = False) -> Axes:
    """The four cells: one square an example up to a few hundred, bars with the number above that."""
    ax = (_squares if 0 < comparison.n <= MOST_SQUARES else _bars)(comparison.cells, narrow=narrow)
    return style.titled(ax, told.cells_title(comparison.cells, noun), narrow=narrow)


def similarity(comparison: Comparison, *, narrow: bool = False) -> Axes:
    """How close the answers are: fine-tuned above the line, base below it, their means marked."""
    _, ax = style.canvas(2.7 if narrow else 3.0, narrow=narrow, width=style.WIDE)
    edges, ends = np.linspace(0, 1, 21), []
    for side, sign, role in (
        (comparison.fine_tuned, 1, "fine_tuned"),
        (comparison.base, -1, "base"),
    ):
        found = (getattr(one, f"{role}_values").get("similarity") for one in comparison.pairs)
        values = np.clip([value for value in found if value is not None], 0, 1)
        heights, weights = np.histogram(values, edges)[0], np.full(len(values), sign)
        bins, colour = list(edges), COLOURS[role]
        sns.histplot(
            x=values, weights=weights, bins=bins, shrink=0.96, color=colour, alpha=1, ax=ax
        )
        most, mean = heights.max(), side.avg_similarity
        ends.append(max(1.0, float(most)))
        if mean is not None:
            ax.plot([mean] * 2, [0, sign * most * 1.08], color=COLOURS["ink"], lw=1.2)
            text = f"{role.replace('_', '-')}, mean {number(mean)}"
            ha, va = "right" if mean > 0.5 else "left", "bottom" if sign > 0 else "top"
            _small(ax, mean, sign * most * 1.1, text, ha=ha, va=va)
    ax.axhline(0, color=COLOURS["ink"], lw=0.9)
    ax.set(xlim=(0, 1), ylim=(-ends[1] - 0.25 * max(ends), 1.25 * ends[0]), yticks=[])
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    ax.set(xlabel="similarity to the expected text", ylabel="")
    return style.titled(ax, told.similarity_title(comparison), narrow=narrow)


def spread(comparison: Comparison, field: str = "latency_ms", *, narrow: bool = False) -> Axes:
    """Latency or tokens (`field`) of each answer: bar from 5% to 95%, the mark is the median."""
    rows = []
    for role in ("base", "fine_tuned"):
        found = [getattr(getattr(one, role), field) for one in comparison.pairs]
        known = [value for value in found if value is not None]
        low, middle, high = (quantile(known, share) for share in (0.05, 0.5, 0.95))
        marks, value = (), wording.NOTHING
        if low is not None and middle is not None and high is not None:
            marks = (Mark(estimate=middle, low=low, high=high, kind=role),)
            value = f"{count(middle)} ({count(low)} to {count(high)})"
        name, under = role.replace("_", "-").capitalize(), plural(len(known), "answer")
        rows.append(Track(name=name, under=under, marks=marks, value=value))
    most = max((one.high or 0 for row in rows for one in row.marks), default=1.0) or 1.0
    ticks = tracks.round_ticks(0, most)
    ax = tracks.tracks_axes(rows, (0, most * 1.06), ticks, count, narrow=narrow)
    ax.set_xlabel(f"{wording.measured(field)[1]}, median and the middle 90%")
    return style.titled(ax, told.spread_title(comparison, field), narrow=narrow)


def forest(table: SliceTable, *, narrow: bool = False) -> Axes:
    """The difference in every declared slice; hollow where nothing is shown."""
    rows, tests, margin = [], [row.test for row in table], table.margin
    for row in table.rows[:MOST_ROWS]:
        under = f"{plural(row.n, 'example')}, {regressions.adjusted_p(row)}"
        marks, value = _mark(row.test, row.verdict), wording.size(row.test)
        rows.append(Track(name=row.slice, under=under, marks=marks, value=value))
    ax = _difference_axes(rows, tests, reach=margin or 0.0, narrow=narrow)
    if len(table) > MOST_ROWS:
        first = f"the first {MOST_ROWS} of {plural(len(table), 'slice')}"
        ax.set_xlabel(f"{first}; {ax.get_xlabel()}")
    if margin and tests:
        at = _worst(margin, tests[0])
        draw_line(ax, "limit", at, spans=tracks.spans(rows, narrow=narrow))
        _small(ax, at, ax.get_ylim()[1], _margin_said(margin, tests[0]), va="bottom")
    return style.titled(ax, regressions.slices_title(table), narrow=narrow)


def flips(noise: NoiseFloor, *, narrow: bool = False) -> Axes:
    """How often each model's answer changed between two live passes: other words, and another verdict."""
    rows = []
    for role, one in noise.by_model.items():
        for change, rate in (("other words", one.text_rate), ("right ↔ wrong", one.flip_rate)):
            marks = _mark(rate, "base" if role == "base" else "fine_tuned")
            name, value = f"{role.capitalize()}: {change}", wording.share(rate.successes, rate.n)
            rows.append(Track(name=name, under="", marks=marks, value=value))
    return style.titled(
        rate_axes(rows, narrow=narrow), regressions.noise_title(noise), narrow=narrow
    )


def scatter(comparison: Comparison, *, metric: str = "similarity", narrow: bool = False) -> Axes:
    """One mark an example, base against fine-tuned: above the line the new answer is closer; regressed ones are diamonds."""
    _, ax = style.canvas(3.5 if narrow else 4.4, narrow=narrow, width=style.HALF)
    known = [one for one in comparison.pairs if one.diff(metric) is not None]
    for status, (marker, role, size) in _LOOKS.items():
        mine = [one for one in known if one.status == status]
        sns.scatterplot(
            x=[one.base_values[metric] for one in mine],
            y=[one.fine_tuned_values[metric] for one in mine],
            s=size,
            marker=marker,
            color=COLOURS["paper" if role == "base" else role],
            edgecolor=COLOURS[role],
            linewidth=0.8,
            ax=ax,
        )
    ax.plot([0, 1], [0, 1], color=COLOURS["axis"], lw=0.9, zorder=0)
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    ax.set_xlabel(f"base, {wording.label(metric)}")
    title, above = told.scatter_title(comparison, metric), f"fine-tuned, {wording.label(metric)}"
    return style.titled(ax, title, narrow=narrow, above=above)


def detectable(comparison: Comparison, *, narrow: bool = False) -> Axes:
    """The smallest difference a test set of each size finds, at this run's disagreement; this run is marked."""
    _, ax = style.canvas(2.8 if narrow else 3.0, narrow=narrow)
    n, margin, colour = comparison.n, comparison.margin, COLOURS["fine_tuned"]
    sizes = [int(size) for size in np.unique(np.geomspace(50, max(2000, 2 * n), 60).astype(int))]
    found = {size: at * 100 for size in sizes if (at := told.detects(comparison, size)) is not None}
    here, most = told.detects(comparison, n), float(sizes[-1])
    if found:
        sns.lineplot(x=[*found], y=[*found.values()], color=colour, errorbar=None, ax=ax)
    if here is not None:
        ax.plot([n], [here * 100], "o", ms=9, mfc=colour, mec=colour)
        text = f"this run: {points(here, sign=False)} points"
        # below the line of a margin, which has its own words
        spot = (8, -14 if margin is not None and here < margin else 6)
        ax.annotate(text, (n, here * 100), spot, textcoords="offset points", fontsize=9)
    if margin is not None:
        draw_line(ax, "limit", margin * 100, vertical=False)
        if not narrow:  # there the title says it
            _small(ax, most, margin * 100, f"margin: {loss(margin)}", va="bottom", ha="right")
    ax.set(ylim=(0, None), xlim=(0, most))
    ax.grid(axis="y")
    ax.set_xlabel("examples in the test set")
    ax.locator_params(axis="x", nbins=4 if narrow else 8)
    ax.xaxis.set_major_formatter(lambda value, _: count(int(value)))
    what = "points found" if margin is None else "loss ruled out, points,"
    above = f"{what} with power {percent(comparison.declared.power, 0)}"
    return style.titled(ax, told.detectable_title(comparison), narrow=narrow, above=above)


def _title(metric: str) -> str:
    return wording.label(metric).capitalize()


def _difference_axes(
    rows: Sequence[Track], tests: Iterable[Result], *, reach: float, narrow: bool
) -> Axes:
    """Axes that say what these differences measure, and which side of them is good news."""
    tests = list(tests)
    sides = {"left" if one.lower_is_better else "right" for one in tests} or {"right"}
    scales = {scale_of(one) for one in tests} or {"points"}
    better = sides.pop() if len(sides) == 1 else ""
    return difference_axes(rows, narrow=narrow, reach=reach, scales=scales, better=better)


def _worst(margin: float, test: Result) -> float:
    """Where a loss of the margin lies."""
    return margin if test.lower_is_better else -margin


def _squares(counts: Mapping[str, int], *, narrow: bool) -> Axes:
    """Each cell's examples as squares in columns of ten, the four cells side by side."""
    per_row, top = (24 if narrow else 60), 0.0
    heights = {name: -(-counts[name] // per_row) + 2.6 for name in _CELLS}
    _, ax = style.canvas(0.5 + 0.14 * sum(heights.values()), narrow=narrow)
    for name, role in _CELLS.items():
        words, ink = f"{_word(name)} {count(counts[name])}", COLOURS["ink"]
        ax.text(0.0, top, words, weight="bold", va="bottom", color=ink)
        at, face = np.arange(counts[name]), "none" if name == "both_wrong" else COLOURS[role]
        x, y = at % per_row + 0.5, top + 0.7 + at // per_row
        marker = "D" if name == "regressed" else "s"
        ax.scatter(x, y, s=20, marker=marker, facecolors=face, edgecolors=COLOURS[role], lw=0.9)
        top += heights[name]
    ax.set(xlim=(0, per_row), ylim=(top - 1.6, -1.6))
    ax.set_axis_off()
    return ax


def _bars(counts: Mapping[str, int], *, narrow: bool) -> Axes:
    _, ax = style.canvas(2.4, narrow=narrow)
    most = max([*counts.values(), 1])
    for place, (name, role) in enumerate(_CELLS.items()):
        n, face = counts[name], COLOURS["base_soft" if name == "both_wrong" else role]
        ax.barh(place, n, height=0.6, color=face, edgecolor=COLOURS[role], lw=1)
        ax.text(n + most * 0.015, place, count(n), va="center", fontsize=9.4)
    ax.set_yticks(range(len(_CELLS)), [_word(name) for name in _CELLS])
    ax.set(xlim=(0, most * 1.15), ylim=(len(_CELLS) - 0.5, -0.5))
    ax.xaxis.set_visible(False)
    ax.spines["bottom"].set_visible(False)
    return ax


def _word(cell: str) -> str:
    return cell.replace("_", " ").capitalize()


def _name_sides(ax: Axes, rows: Sequence[Track], *, narrow: bool) -> None:
    """Names the two marks once, in the row with room for both names where they lie furthest apart."""
    both = [(place, row.marks) for place, row in enumerate(rows) if len(row.marks) == 2]
    room = [
        (place, marks) for place, marks in both if all(0.2 < at < 0.8 for at, _ in _outsides(marks))
    ]
    if not room:
        return
    place, marks = max(room, key=lambda one: abs(one[1][0].estimate - one[1][1].estimate))
    for one, (at, ha) in zip(marks, _outsides(marks), strict=True):
        y = place + (0.1 if one.kind == "base" else -0.1) + tracks.BELOW_WORDS * narrow
        _small(ax, at, y, one.kind.replace("_", "-"), va="center", ha=ha)


def _outsides(marks: Sequence[Mark]) -> list[tuple[float, str]]:
    """Where a name of each of two marks would stand, on its side away from the other."""
    left, places = min(marks, key=lambda one: one.estimate), []
    for one in marks:
        end = one.low if one is left else one.high
        end = one.estimate if end is None else end
        places.append((end - 0.02, "right") if one is left else (end + 0.02, "left"))
    return places


def _mark(test: Result | None, kind: str) -> tuple[Mark, ...]:
    if test is None or test.estimate is None:
        return ()
    return (Mark(estimate=test.estimate, low=test.ci_low, high=test.ci_high, kind=kind),)


def _small(ax: Axes, x: float, y: float, text: str, *, va: str, ha: str = "center") -> None:
    ax.text(x, y, text, va=va, ha=ha, fontsize=9, color=COLOURS["muted"])  # pyright: ignore[reportArgumentType]
