"""Intervals, the lines and zones they are read against, and figures made of rows of them: a name, marks, the numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from evalkit import wording
from evalkit.show import style
from evalkit.show.style import COLOURS, kind_of
from evalkit.stats.result import Result

Spans = Sequence[tuple[float, float]]  # from y to y
LONGEST_NAME = 34
BELOW_WORDS = 0.13  # how far below a row's middle the marks of a narrow figure lie, in rows

_LINES = {  # role, width, order and dashes
    "limit": ("ink", 1.9, 2.5, (0, (2.2, 1.6))),
    "zero": ("ink", 0.9, 2, "-"),
    "tick": ("grid", 0.6, 1, "-"),
}


def draw_interval(  # noqa: PLR0917 - the six are what an interval is
    ax: Axes,
    y: float,
    estimate: float,
    low: float | None,
    high: float | None,
    kind: str,
    *,
    width: float = 5.0,
    size: float = 9.0,
    vertical: bool = False,
    beyond: int = 0,
) -> None:
    """An interval as a soft thick bar with its estimate on it: filled when shown, hollow when not, a diamond when worse.

    Args:
        ax: Where to draw, in data coordinates.
        y: Position across the interval (x when `vertical`).
        estimate: The point estimate.
        low: Lower end, None to draw no bar.
        high: Upper end.
        kind: A kind or a verdict: better, worse, unsure, base or fine_tuned.
        width: Thickness of the bar in points.
        size: Diameter of the marker in points.
        vertical: Draw along y instead of x.
        beyond: 1 or -1 when the value lies above or below all that the axis shows: an arrow, whose number must stand by it.
    """
    kind = kind if kind in {"base", "fine_tuned"} else kind_of(kind)
    colour, is_worse = COLOURS[kind], kind == "worse"

    def along(*values: float) -> tuple[Sequence[float], Sequence[float]]:
        return ([y] * len(values), values) if vertical else (values, [y] * len(values))

    if low is not None and high is not None:
        bar = {"lw": width, "alpha": 0.4, "solid_capstyle": "butt"}
        ax.plot(*along(low, high), color=colour, zorder=3, **bar)
    marker = {1: ">", -1: "<"}.get(beyond, "D" if is_worse else "o")
    face = COLOURS["paper"] if kind in {"unsure", "base"} else colour
    look = {"mfc": face, "mec": colour, "mew": 1.6, "clip_on": False}
    ax.plot(*along(estimate), marker, ms=size - 1.2 * is_worse, zorder=4, **look)


def draw_line(
    ax: Axes, what: str, at: float = 0.0, *, vertical: bool = True, spans: Spans = ()
) -> None:
    """The dashed line of a "limit" set beforehand, the solid one of "zero" difference, or the faint one of a "tick".

    Over `spans` of y only, when given.
    """
    role, width, order, dashes = _LINES[what]
    look = {"color": COLOURS[role], "lw": width, "ls": dashes, "zorder": order}
    for span in spans:
        ax.plot([at, at], span, **look)
    if not spans:
        (ax.axvline if vertical else ax.axhline)(at, **look)


def pass_zone(ax: Axes, low: float, high: float, *, spans: Spans = ()) -> None:
    """The tinted zone in which an interval passes; over `spans` of y only, when given."""
    for ends in spans:
        ax.fill_betweenx(ends, low, high, color=COLOURS["pass_zone"], lw=0, zorder=0)
    if not spans:
        ax.axvspan(low, high, color=COLOURS["pass_zone"], lw=0, zorder=0)


def small(ax: Axes, x: float, y: float, text: str, *, va: Any, ha: Any = "center") -> None:
    """A few words in the figure."""
    ax.text(x, y, text, va=va, ha=ha, fontsize=9, color=COLOURS["muted"])


def beside(ax: Axes, x: float, y: float, text: str, role: str) -> None:
    """Names a line at its end, a little to the right of it."""
    look = {"textcoords": "offset points", "va": "center", "fontsize": 9}
    ax.annotate(text, (x, y), (6, 0), color=COLOURS[role], **look)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One interval on a track; without limits only the estimate is drawn."""

    estimate: float
    low: float | None
    high: float | None
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One row of a figure: its name, what stands under it, its marks, and the numbers at its right."""

    name: str
    under: str
    marks: tuple[Mark, ...]
    value: str


def mark_of(test: Result | None, kind: str) -> tuple[Mark, ...]:
    """A result's interval as the only mark of a row; none of a result without estimate."""
    if test is None or test.estimate is None:
        return ()
    return (Mark(estimate=test.estimate, low=test.ci_low, high=test.ci_high, kind=kind),)


def tracks_axes(
    tracks: Sequence[Track],
    limits: tuple[float, float],
    ticks: Sequence[float],
    text: Callable[[float], str],
    *,
    narrow: bool,
) -> Axes:
    """Rows with their names at the left and numbers at the right; on phones both stand above the row."""
    n = max(len(tracks), 1)
    _, ax = style.canvas((0.84 if narrow else 0.46) * n + 0.95, narrow=narrow)
    ax.set(xlim=limits, ylim=(n - 0.45, -0.62), yticks=[])
    ax.set_xticks(list(ticks), [text(at) for at in ticks])
    for at in ticks:
        draw_line(ax, "tick", at, spans=spans(tracks, narrow=narrow))
    least, most = limits
    for place, track in enumerate(tracks):
        _name(ax, place, track, narrow=narrow)
        for mark in track.marks:
            shift = 0.0 if len(track.marks) == 1 else 0.1 if mark.kind == "base" else -0.1
            at = min(max(mark.estimate, least), most)
            ends = (mark.low, mark.high)
            low, high = (None if end is None else min(max(end, least), most) for end in ends)
            beyond = (mark.estimate > most) - (mark.estimate < least)
            y = place + shift + BELOW_WORDS * narrow
            draw_interval(ax, y, at, low, high, mark.kind, beyond=beyond)
    if not tracks:
        small(ax, sum(limits) / 2, 0, "nothing to draw", va="center")
    return ax


def spans(tracks: Sequence[Track], *, narrow: bool) -> Spans:
    """On phones the height of each row's marks, so that lines and zones pass no words; on wide figures none, which is all."""
    return [(place - 0.07, place + 0.38) for place in range(len(tracks))] if narrow else []


def rate_axes(tracks: Sequence[Track], *, narrow: bool) -> Axes:
    """Rows on the scale of a rate, 0 to 100%."""
    ticks, text = [0, 0.25, 0.5, 0.75, 1], partial(wording.percent, digits=0)
    return tracks_axes(tracks, (-0.02, 1.02), ticks, text, narrow=narrow)


def dashed(ax: Axes, at: float, place: int, *, narrow: bool) -> None:
    """A dashed mark across one row."""
    draw_line(ax, "limit", at, spans=[(place - (0.07 if narrow else 0.3), place + 0.36)])


def name_margin(ax: Axes, test: Result, margin: float) -> float:
    """Names the margin above the rows, and returns where a loss of it lies."""
    at = margin if test.lower_is_better else -margin
    text = f"margin: {wording.loss_of(margin, test)} worse"
    small(ax, at, ax.get_ylim()[1] - 0.05, text, va="bottom")
    return at


def difference_axes(
    tracks: Sequence[Track], tests: Iterable[Result], *, narrow: bool, reach: float = 0.0
) -> Axes:
    """Rows on one scale with zero in the middle; the axis says what is measured, and which side is good news.

    Args:
        tracks: The rows.
        tests: What they show.
        narrow: For a phone.
        reach: How far from zero it shows at least, such as to a margin.
    """
    tests = list(tests)
    marks = [one for track in tracks for one in track.marks]
    ends = [at for one in marks for at in (one.low, one.high, one.estimate) if at is not None]
    reach = min(max([abs(at) for at in ends] + [0.1, reach]) * 1.08, 1.02)
    most = 2.2 if narrow else 4.2  # ticks on either side of zero
    step = next(one for one in (0.05, 0.1, 0.2, 0.25, 0.5) if reach / one <= most)
    ticks = [at * step for at in range(-int(reach / step), int(reach / step) + 1)]
    scales = {wording.scale_of(one) for one in tests}
    numbers = scales == {"number"}
    text = wording.signed if numbers else lambda at: wording.points(at, 0)
    ax = tracks_axes(tracks, (-reach, reach), ticks, text, narrow=narrow)
    draw_line(ax, "zero", spans=spans(tracks, narrow=narrow))
    unit = "points (of scores: hundredths)" if "number" in scales else "points"
    told, below = "fine-tuned − base", "" if numbers else f"\n{unit}"
    if below and not narrow:
        told, below = f"{unit}, {told}", ""
    falls = {one.lower_is_better for one in tests}
    if len(falls) == 1:
        told = f"better ←  {told}  → worse" if True in falls else f"worse ←  {told}  → better"
    ax.set_xlabel(told + below)
    return ax


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """A figure of rows with an interval each.

    Attributes:
        title: Its conclusion.
        rows: What is drawn, by name; those without an estimate are left out.
        axis: What the numbers are.
        caption: Method and caveat.
        kinds: Verdicts by row; the others have the colour of the fine-tuned model.
        zone: Where the zone begins in which an interval passes; None for none.
        low: Where the axis begins.
        even: Where the line of no difference stands; None for none.
    """

    title: str
    rows: Mapping[str, Result | None]
    axis: str
    caption: str
    kinds: Mapping[str, str] = field(default_factory=dict)
    zone: float | None = None
    low: float = 0.0
    even: float | None = 0.5

    @property
    def alt(self) -> str:
        """The alternative text: the title, and each row's name with its numbers."""
        told = [
            f"{name}: {wording.value_of(one, one.estimate)} ({wording.interval_of(one)}, n = {wording.count(one.n)})."
            for name, one in _known(self.rows)
        ]
        return " ".join([f"{self.title.rstrip('.')}.", *told])

    def draw(self, *, narrow: bool = False) -> Axes:
        """Each row with its interval, its name and its numbers."""
        tracks = [self._track(name, one) for name, one in _known(self.rows)]
        ticks = [tick for tick in (-1, -0.5, 0, 0.25, 0.5, 0.75, 1) if tick >= self.low]
        limits, place = (self.low, 1), spans(tracks, narrow=narrow)
        ax = tracks_axes(tracks, limits, ticks, lambda at: wording.percent(at, 0), narrow=narrow)
        if self.zone is not None:
            pass_zone(ax, self.zone, 1, spans=place)
        if self.zone is not None and self.zone < (self.even or 0.0):
            draw_line(ax, "limit", self.zone, spans=place)
            told = f"margin: {wording.percent(self.zone)}"
            small(ax, self.zone, ax.get_ylim()[1], told, va="bottom", ha="right")
        if self.even is not None:
            draw_line(ax, "zero", self.even, spans=place)
        ax.set_xlabel(textwrap.fill(self.axis, 44) if narrow else self.axis)
        return style.titled(ax, self.title, narrow=narrow)

    def _track(self, name: str, one: Result) -> Track:
        low, high = (wording.value_of(one, end).rstrip("%") for end in (one.ci_low, one.ci_high))
        marks = mark_of(one, self.kinds.get(name, "fine_tuned"))
        value = f"{wording.value_of(one, one.estimate)} ({low} to {high})"
        return Track(name=name, under=f"n = {wording.count(one.n)}", marks=marks, value=value)


def _known(rows: Mapping[str, Result | None]) -> list[tuple[str, Result]]:
    return [(name, one) for name, one in rows.items() if one and one.estimate is not None]


def _name(ax: Axes, place: int, track: Track, *, narrow: bool) -> None:
    """Its name, what stands under it and its numbers: around the row, on a phone above it."""
    name = wording.visible(track.name)
    name = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    look: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 9}
    bold: dict[str, Any] = look | {"weight": "bold", "fontsize": 9.5}
    grey: dict[str, Any] = look | {"color": COLOURS["muted"]}
    if narrow:
        ax.text(0, place - 0.4, name, **bold)
        ax.text(0, place - 0.2, track.under, **grey)
        ax.text(1, place - 0.2, track.value, ha="right", **look)
        return
    ax.text(-0.03, place - 0.14 if track.under else place, name, ha="right", **bold)
    ax.text(-0.03, place + 0.22, track.under, ha="right", **grey)
    ax.text(1.03, place, track.value, ha="left", **look)


def empty_axes(text: str, *, narrow: bool) -> Axes:
    """A hatched box with words in it, where no figure can be."""
    _, ax = style.canvas(1.2, narrow=narrow)
    look = {"fc": "none", "ec": COLOURS["axis"], "hatch": "///", "lw": 1}
    ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, **look))
    box = {"fc": COLOURS["paper"], "ec": "none", "pad": 6}
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", bbox=box)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def round_ticks(
    low: float, high: float, *, n: int = 4, steps: Sequence[float] = (1, 2, 2.5, 5, 10)
) -> list[float]:
    """About n round numbers between two limits."""
    round_numbers = MaxNLocator(n, steps=list(steps)).tick_values(low, high)
    return [float(at) for at in round_numbers if low <= at <= high]
