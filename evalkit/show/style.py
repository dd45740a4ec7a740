"""The look of every figure: colours by role, sizes, and the one way to draw an interval."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from evalkit import wording
from evalkit.show import RECORDS, typeface

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Kind = Literal["better", "worse", "unsure", "base", "fine_tuned"]
Spans = Sequence[tuple[float, float]]  # from y to y

WIDE, HALF, NARROW = 7.5, 5.3, 3.6
"""Widths of figures in inches; a narrow twin of each is drawn for phones at the same font size."""

# Each pair is (light, dark), and every light value is used once only: the page finds a role by its colour.
PALETTE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "ink": ("#1b2430", "#e9ecf0"),
        "muted": ("#5a6472", "#aab3be"),
        "axis": ("#b4bbc5", "#566070"),
        "grid": ("#d9dde3", "#343c47"),
        "paper": ("#fffffe", "#14181e"),
        "base": ("#8b93a0", "#929cab"),
        "fine_tuned": ("#1f5fa8", "#7fb4f2"),
        "good": ("#0a6b5c", "#52c7ab"),
        "bad": ("#b93a0e", "#ff946b"),
        "unsure": ("#6a7380", "#a3acb8"),
        "pass_zone": ("#cde7dd", "#1c4a3c"),
        "fail_zone": ("#f9e0d4", "#4a261b"),
        "fine_tuned_soft": ("#dde8f6", "#1b3352"),
        "base_soft": ("#eceff3", "#262d36"),
        "track": ("#f3f5f7", "#20262e"),
        "on_base": ("#10151b", "#10151c"),
    }
)
COLOURS: Mapping[str, str] = MappingProxyType(
    {role: light for role, (light, _) in PALETTE.items()}
    | {"better": PALETTE["good"][0], "worse": PALETTE["bad"][0]}
)
DASHES = (0, (3, 2))
SHEET = Path(__file__).with_name("evalkit.mplstyle")

_BETTER = {"better", "not worse", "passes", "ship"}
_WORSE = {"worse", "invalid", "don't ship", "blocks"}


def kind_of(verdict: str | None) -> Kind:
    """How a verdict or gate word is drawn: better, worse, or unsure for all that is not shown."""
    said = (verdict or "").lower()
    return "better" if said in _BETTER else "worse" if said in _WORSE else "unsure"


@contextmanager
def style() -> Iterator[None]:
    """A context in which figures look like ours, whatever theme is in force around it."""
    import matplotlib
    from matplotlib import style as styles

    typeface.tell_matplotlib()
    is_interactive = matplotlib.is_interactive()
    try:
        with styles.context(str(SHEET), after_reset=True):
            yield
            # A notebook's backend comes into force with its first figure and says so by this: it outlasts the context.
            is_interactive = is_interactive or matplotlib.is_interactive()
    finally:
        matplotlib.interactive(is_interactive)


def in_the_dark(colour: str) -> str:
    """A colour of a plot that is not ours for a dark page: greys mirrored, a colour too dark to be seen made lighter.

    Source: the contrast of WCAG 2.2 (relative luminance); 3:1 is what it asks of graphics.
    """
    from colorsys import hls_to_rgb, rgb_to_hls

    from matplotlib.colors import to_hex, to_rgb

    hue, light, saturation = rgb_to_hls(*to_rgb(colour))
    if saturation < 0.12 or light > 0.97:
        return to_hex(hls_to_rgb(hue, 0.93 - 0.84 * light, saturation))
    paper = _luminance(to_rgb(PALETTE["paper"][1])) + 0.05
    while (_luminance(hls_to_rgb(hue, light, saturation)) + 0.05) / paper < 3 and light < 1:
        light += 0.02
    return to_hex(hls_to_rgb(hue, min(light, 1.0), saturation))


def _luminance(rgb: tuple[float, float, float]) -> float:
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def canvas(height: float, *, narrow: bool = False, width: float = WIDE) -> tuple[Figure, Axes]:
    """An empty figure of the report's width; `height` in inches."""
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(NARROW if narrow else width, height))


def interval(  # noqa: PLR0917 - the six are what an interval is
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
    colour = COLOURS[kind]
    hollow = kind in {"unsure", "base"}
    if low is not None and high is not None:
        ends, across = [low, high], [y, y]
        ax.plot(
            *((across, ends) if vertical else (ends, across)),
            color=colour,
            lw=width,
            alpha=0.4,
            solid_capstyle="butt",
            zorder=3,
        )
    spot = ([y], [estimate]) if vertical else ([estimate], [y])
    face = COLOURS["paper"] if hollow else colour
    marker, shrink = ("D", 1.2) if kind == "worse" else ("o", 0.0)
    marker = {1: ">", -1: "<"}.get(beyond, marker)
    ax.plot(*spot, marker, ms=size - shrink, mfc=face, mec=colour, mew=1.6, zorder=4, clip_on=False)


def threshold(ax: Axes, at: float, *, vertical: bool = True, spans: Spans = ()) -> None:
    """The dashed line of a limit set beforehand; over `spans` of y only, when given."""
    _line(ax, at, "ink", 1.9, 2.5, vertical=vertical, spans=spans, dashes=(0, (2.2, 1.6)))


def zero_line(ax: Axes, at: float = 0.0, *, vertical: bool = True, spans: Spans = ()) -> None:
    """The solid line of no difference; over `spans` of y only, when given."""
    _line(ax, at, "ink", 0.9, 2, vertical=vertical, spans=spans)


def grid_line(ax: Axes, at: float, *, spans: Spans = ()) -> None:
    """The faint line of a tick; over `spans` of y only, when given."""
    _line(ax, at, "grid", 0.6, 1, spans=spans)


def pass_zone(ax: Axes, low: float, high: float, *, spans: Spans = ()) -> None:
    """The tinted zone in which an interval passes; over `spans` of y only, when given."""
    for ends in spans:
        ax.fill_betweenx(ends, low, high, color=COLOURS["pass_zone"], lw=0, zorder=0)
    if not spans:
        ax.axvspan(low, high, color=COLOURS["pass_zone"], lw=0, zorder=0)


def beside(ax: Axes, x: float, y: float, text: str, role: str) -> None:
    """Names a line at its end, a little to the right of it."""
    ax.annotate(
        text,
        (x, y),
        (6, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=COLOURS[role],
    )


def titled(ax: Axes, title: str, *, narrow: bool = False, above: str = "") -> Axes:
    """Sets a figure's conclusion as its title: wrapped, unseen characters shown, never read as a formula.

    Args:
        ax: The axes of the figure.
        title: The conclusion, in one line.
        narrow: Wrapped for a phone.
        above: What the y axis counts, upright above it.
    """
    if above:
        look = {"textcoords": "offset points", "color": COLOURS["muted"], "fontsize": 9}
        ax.annotate(above, (0, 1), (0, 6), xycoords="axes fraction", **look)
    lines = textwrap.fill(wording.visible(title), 44 if narrow else 80, break_on_hyphens=False)
    ax.set_title(lines, parse_math=False, pad=24 if above else None)
    return ax


def _line(
    ax: Axes,
    at: float,
    role: str,
    width: float,
    order: float,
    *,
    vertical: bool = True,
    spans: Spans = (),
    dashes: str | tuple[float, tuple[float, ...]] = "-",
) -> None:
    whole = ax.axvline if vertical else ax.axhline
    for draw in [partial(ax.plot, [at, at], span) for span in spans] or [partial(whole, at)]:
        draw(color=COLOURS[role], lw=width, ls=dashes, zorder=order)


def use() -> None:
    """Puts the theme in force for every figure from now on; `sns.set_theme` or `plt.style.use` after it wins."""
    from matplotlib import style as styles

    typeface.tell_matplotlib()
    styles.use(str(SHEET))
    # A plot of one's own has nobody to lay it out by hand: a grid, a canvas of paper, and seaborn's own way to find room.
    styles.use(
        {
            "figure.constrained_layout.use": False,
            "figure.figsize": (6.4, 3.8),
            "figure.facecolor": PALETTE["paper"][0],
            "savefig.facecolor": "auto",
            "savefig.transparent": False,
            "axes.grid": True,
            "axes.formatter.use_mathtext": False,
            "legend.title_fontsize": 9.75,
            "legend.fontsize": 9.75,
        }
    )


def use_in(shell: Any) -> None:
    """The theme in an IPython shell; in a notebook's kernel plain figures are shown as whole, accessible ones too."""
    use()
    if not hasattr(shell, "kernel"):
        return
    if "inline" in os.environ.get("MPLBACKEND", ""):
        # Set up on import; were it our first figure that did it, leaving our style would undo its interactive mode.
        import_module("matplotlib_inline.backend_inline")
    # asked before any format, so the backend draws no PNG
    shown = shell.display_formatter.ipython_display_formatter
    shown.for_type_by_name("matplotlib.figure", "Figure", _show)
    shown.for_type_by_name("matplotlib.axes._axes", "Axes", _show_once)
    shown.for_type_by_name("seaborn.axisgrid", "Grid", _show_once)
    for record, (how, _) in RECORDS.items():
        if how:
            module, _, name = record.rpartition(".")
            shown.for_type_by_name(f"evalkit.{module}", name, partial(_show_record, how))


def use_where_read() -> None:
    """The theme, where somebody reads along: in IPython. Scripts and tests keep the look they have."""
    if "IPython" in sys.modules:
        from IPython.core.getipython import get_ipython

        if shell := get_ipython():
            use_in(shell)


def _show_record(how: str, record: object) -> None:
    from IPython.display import display

    from evalkit import show

    display(getattr(show, how)(record))


def _show(figure: Figure) -> None:
    from IPython.display import display

    from evalkit.show.figure import whole

    display(whole(figure))


def _show_once(drawn: Any) -> None:
    """Axes or a grid as a cell's last value: the backend shows an open figure at the cell's end, a closed one is shown now."""
    from matplotlib import pyplot

    if getattr(drawn.figure, "number", None) not in pyplot.get_fignums():
        _show(drawn.figure)
