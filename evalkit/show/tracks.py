"""Intervals, the lines and zones they are read against, and figures made of rows of them: a name, marks, the numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from evalkit import wording
from evalkit.show import style
from evalkit.show.style import COLOURS, kind_of
from evalkit.stats.result import Result

Spans = Sequence[tuple[float, float]]  # from y to y
LONGEST_NAME = 34
NARROW_LINE = 50  # characters of a name and its numbers that fit on one line of a phone
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


def tracks_axes(
    tracks: Sequence[Track],
    limits: tuple[float, float],
    ticks: Sequence[float],
    text: Callable[[float], str],
    *,
    narrow: bool,
) -> Axes:
    """Rows with their names at the left and numbers at the right; on phones both stand above the row."""
    n, height = max(len(tracks), 1), (0.84 if _two_lines(tracks) else 0.66) if narrow else 0.46
    _, ax = style.canvas(height * n + 0.95, narrow=narrow)
    ax.set(xlim=limits, ylim=(n - 0.45, -0.62), yticks=[])
    ax.set_xticks(list(ticks), [text(at) for at in ticks])
    for at in ticks:
        draw_line(ax, "tick", at, spans=spans(tracks, narrow=narrow))
    for place, track in enumerate(tracks):
        if narrow:
            _name_above(ax, place, track, two_lines=_two_lines(tracks))
        else:
            _name_beside(ax, place, track)
        for mark in track.marks:
            shift = 0.0 if len(track.marks) == 1 else 0.1 if mark.kind == "base" else -0.1
            _drawn(ax, place + shift + BELOW_WORDS * narrow, mark, limits)
    if not tracks:
        side, grey = ax.transAxes, COLOURS["muted"]
        ax.text(0.5, 0.5, "nothing to draw", transform=side, ha="center", color=grey)
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


def difference_axes(
    tracks: Sequence[Track],
    *,
    narrow: bool,
    scales: Collection[str] = ("points",),
    better: str = "right",
    reach: float = 0.0,
) -> Axes:
    """Rows on one scale with zero in the middle.

    Args:
        tracks: The rows.
        narrow: For a phone.
        scales: What the rows are: "points" of rates, "number" for scores such as similarity, or both.
        better: The side of better differences: "right", "left" where less is better, "" where the rows differ in it.
        reach: How far from zero it shows at least, such as to a margin.
    """
    marks = [one for track in tracks for one in track.marks]
    ends = [at for one in marks for at in (one.low, one.high, one.estimate) if at is not None]
    reach = min(max([abs(at) for at in ends] + [0.1, reach]) * 1.08, 1.02)
    most = 2.2 if narrow else 4.2  # ticks on either side of zero
    step = next(one for one in (0.05, 0.1, 0.2, 0.25, 0.5) if reach / one <= most)
    ticks = [at * step for at in range(-int(reach / step), int(reach / step) + 1)]
    numbers = set(scales) == {"number"}
    text = wording.signed if numbers else lambda at: wording.points(at, 0)
    ax = tracks_axes(tracks, (-reach, reach), ticks, text, narrow=narrow)
    draw_line(ax, "zero", spans=spans(tracks, narrow=narrow))
    unit = "points (of scores: hundredths)" if "number" in scales else "points"
    unit = "" if numbers else unit
    sides = {"right": "worse ←  {}  → better", "left": "better ←  {}  → worse", "": "{}"}[better]
    before, below = ("", f"\n{unit}") if narrow else (f"{unit}, " if unit else "", "")
    ax.set_xlabel(sides.format(f"{before}fine-tuned − base") + below)
    return ax


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """A figure of rows with an interval each.

    Attributes:
        title: Its conclusion.
        rows: What is drawn, by name; those without an estimate are left out.
        axis: What the numbers are; `axis_narrow` on a phone, where it is too long.
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
    axis_narrow: str = ""
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
            look = {"va": "bottom", "ha": "right", "fontsize": 9, "color": style.COLOURS["muted"]}
            told = f"margin: {wording.percent(self.zone)}"
            ax.text(self.zone, ax.get_ylim()[1], told, **look)
        if self.even is not None:
            draw_line(ax, "zero", self.even, spans=place)
        ax.set_xlabel((narrow and self.axis_narrow) or self.axis)
        return style.titled(ax, self.title, narrow=narrow)

    def _track(self, name: str, one: Result) -> Track:
        low, high = (wording.value_of(one, end).rstrip("%") for end in (one.ci_low, one.ci_high))
        mark = Mark(
            estimate=one.estimate or 0.0,
            low=one.ci_low,
            high=one.ci_high,
            kind=self.kinds.get(name, "fine_tuned"),
        )
        value = f"{wording.value_of(one, one.estimate)} ({low} to {high})"
        return Track(name=name, under=f"n = {wording.count(one.n)}", marks=(mark,), value=value)


def _known(rows: Mapping[str, Result | None]) -> list[tuple[str, Result]]:
    return [(name, one) for name, one in rows.items() if one and one.estimate is not None]


def _drawn(ax: Axes, y: float, mark: Mark, limits: tuple[float, float]) -> None:
    least, most = limits
    ends = (mark.low, mark.high)
    low, high = (None if end is None else min(max(end, least), most) for end in ends)
    at = min(max(mark.estimate, least), most)
    beyond = (mark.estimate > most) - (mark.estimate < least)
    draw_interval(ax, y, at, low, high, mark.kind, beyond=beyond)


def _name_above(ax: Axes, place: int, track: Track, *, two_lines: bool) -> None:
    side, first = ax.get_yaxis_transform(), place - (0.4 if two_lines else 0.3)
    second = place - 0.2 if two_lines else first
    look = {"transform": side, "va": "center", "fontsize": 9}
    ax.text(0, first, _short(track.name), **look | {"weight": "bold", "fontsize": 9.2})
    ax.text(1, second if _too_long(track) else first, track.value, ha="right", **look)
    if track.under:
        ax.text(0, second, track.under, color=COLOURS["muted"], **look)


def _name_beside(ax: Axes, place: int, track: Track) -> None:
    side, y = ax.get_yaxis_transform(), place - 0.14 if track.under else place
    look = {"transform": side, "va": "center"}
    ax.text(-0.03, y, _short(track.name), ha="right", weight="bold", **look)
    grey, value = COLOURS["muted"], track.value
    ax.text(-0.03, place + 0.22, track.under, ha="right", fontsize=9, color=grey, **look)
    ax.text(1.03, place, value, ha="left", fontsize=9.4, **look)


def _two_lines(tracks: Sequence[Track]) -> bool:
    return any(track.under or _too_long(track) for track in tracks)


def _too_long(track: Track) -> bool:
    return len(_short(track.name)) + len(track.value) > NARROW_LINE


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


def _short(name: str) -> str:
    name = wording.visible(name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
