"""The look of every figure: colours by role, sizes, the typeface, and the theme where somebody reads along.

What is measured here is what the reader's device draws, whatever fonts stand on either machine: the files of the typeface
come with two packages and are found by their path, and figures and page hold the letters they use. The families' names are
ours, so that no font installed under the fonts' own names can take their place.
"""

from __future__ import annotations

import base64
import os
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from importlib import import_module
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from evalkit import wording
from evalkit.show import RECORDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Kind = Literal["better", "worse", "unsure", "base", "fine_tuned"]

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

FAMILY, SIGNS = "evalkit", "evalkit signs"
STACK = f"{FAMILY},'{SIGNS}','Segoe UI',-apple-system,Roboto,'Helvetica Neue',Arial,sans-serif"
"""For CSS: the typeface, then what the reader's device has for the letters of other scripts."""

Weight = Literal[400, 700]
_ARROWS_BOXES_MARKS = range(0x2190, 0x2800)
_ALL = range(0x20, 0x2800)
_READING = ("kern", "mark", "mkmk", "ccmp", "locl")
_NOTICES = (0, 13, 14)  # copyright, licence and its address
_UNUSED = ["BASE", "DSIG", "FFTM", "gasp"]
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

    tell_matplotlib()
    is_interactive = matplotlib.is_interactive()
    try:
        with styles.context(str(SHEET), after_reset=True):
            yield
            # A notebook's backend comes into force with its first figure and says so by this: it outlasts the context.
            is_interactive = is_interactive or matplotlib.is_interactive()
    finally:
        matplotlib.interactive(is_interactive)


def in_the_dark(colour: str) -> str:
    """A colour of a plot that is not ours for a dark page: greys mirrored, a dark colour light enough to be seen.

    Source: the contrast of WCAG 2.2; 3:1 is what it asks of graphics, which a lightness of 0.65 has in every hue.
    """
    from colorsys import hls_to_rgb, rgb_to_hls

    from matplotlib.colors import to_hex, to_rgb

    hue, light, saturation = rgb_to_hls(*to_rgb(colour))
    is_grey = saturation < 0.12 or light > 0.97
    return to_hex(hls_to_rgb(hue, 0.93 - 0.84 * light if is_grey else max(light, 0.65), saturation))


def canvas(height: float, *, narrow: bool = False, width: float = WIDE) -> tuple[Figure, Axes]:
    """An empty figure of the report's width; `height` in inches."""
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(NARROW if narrow else width, height))


def titled(ax: Axes, title: str, *, narrow: bool = False, above: str = "") -> Axes:
    """Sets a figure's conclusion as its title: wrapped, unseen characters shown, never read as a formula.

    Args:
        ax: The axes of the figure.
        title: The conclusion, in one line.
        narrow: Wrapped for a phone.
        above: What the y axis counts, upright above it.
    """
    lines = textwrap.fill(wording.visible(title), 44 if narrow else 80, break_on_hyphens=False)
    ax.set_title(lines, parse_math=False, pad=24 if above else None)
    return name_above(ax, above) if above else ax


def name_above(ax: Axes, counted: str) -> Axes:
    """Says what the y axis counts, upright above it."""
    look = {"textcoords": "offset points", "color": COLOURS["muted"], "fontsize": 9}
    ax.annotate(counted, (0, 1), (0, 6), xycoords="axes fraction", **look)
    return ax


def use() -> None:
    """Puts the theme in force for every figure from now on; `sns.set_theme` or `plt.style.use` after it wins."""
    from matplotlib import style as styles

    tell_matplotlib()
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
    backend = os.environ.get("MPLBACKEND", "").lower()
    if backend == "agg":
        # It draws for nobody and leaves figures open: the next plot would land in one.
        shell.enable_matplotlib("inline")
    elif "inline" in backend:
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


# ---- the typeface


@cache
def font_files() -> Mapping[tuple[str, Weight], Path]:
    """Source Sans Pro, and for arrows, boxes and marks that it lacks the DejaVu Sans that matplotlib brings along."""
    import matplotlib

    ours = Path(str(files("font_source_sans_pro"))) / "files"
    signs = Path(matplotlib.get_data_path()) / "fonts/ttf"
    return {
        (FAMILY, 400): ours / "SourceSansPro-Regular.ttf",
        (FAMILY, 700): ours / "SourceSansPro-Bold.ttf",
        (SIGNS, 400): signs / "DejaVuSans.ttf",
        (SIGNS, 700): signs / "DejaVuSans-Bold.ttf",
    }


def tell_matplotlib() -> None:
    """Puts the files on matplotlib's list; again when it has read its list anew, as it does after a stale cache."""
    from matplotlib.font_manager import FontEntry, fontManager

    known = {font.name for font in fontManager.ttflist}
    fontManager.ttflist += [
        FontEntry(fname=str(path), name=family, weight=weight, size="scalable")
        for (family, weight), path in font_files().items()
        if family not in known
    ]


def font_css(letters: Mapping[Weight, str], *, reading: bool = False) -> str:
    """`@font-face` rules with the letters of a text as `data:` fonts; letters that the typeface lacks are left out.

    Args:
        letters: Text by weight.
        reading: For running text: kerning, placed accents, and the fonts' notices of copyright. Figures do without.
    """
    return "".join(
        f"@font-face{{font-family:'{family}';font-weight:{weight};src:url(data:font/woff;base64,{font})}}"
        for weight, text in letters.items()
        for family, codes in _shared_out(text, weight).items()
        if (font := _woff(family, weight, codes, reading))
    )


def _shared_out(text: str, weight: Weight) -> dict[str, frozenset[int]]:
    codes = {ord(one) for one in text + unicodedata.normalize("NFC", text)}  # as browsers compose
    ours = codes & _codes(FAMILY, weight)
    rest = (codes - ours).intersection(_ARROWS_BOXES_MARKS)
    signs = rest & _codes(SIGNS, weight) if rest else rest
    return {FAMILY: frozenset(ours), SIGNS: frozenset(signs)}


@lru_cache(maxsize=512)
def _woff(family: str, weight: Weight, codes: frozenset[int], reading: bool) -> str:
    if not codes:
        return ""
    source = font_files()[family, weight] if reading else BytesIO(_plain(family, weight))
    font = _cut(source, codes, features=_READING if reading else (), flavor="woff")
    return base64.b64encode(font).decode()


@cache
def _plain(family: str, weight: Weight) -> bytes:
    """A font without layout rules, made once: letters are cut from it in milliseconds."""
    return _cut(font_files()[family, weight], _ALL)


@cache
def _codes(family: str, weight: Weight) -> frozenset[int]:
    from fontTools.ttLib import TTFont

    with TTFont(font_files()[family, weight], lazy=True) as font:
        return frozenset(font.getBestCmap() or ())


def _cut(
    source: Path | BytesIO,
    codes: Iterable[int],
    *,
    features: Iterable[str] = (),
    flavor: str | None = None,
) -> bytes:
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont

    options = Options()
    options.set(
        hinting=False,
        notdef_outline=True,
        layout_features=list(features),
        name_IDs=list(_NOTICES if features else ()),
        drop_tables=[
            *options.drop_tables,
            *_UNUSED,
            *([] if features else ["GDEF", "GPOS", "GSUB"]),
        ],
    )
    # a font without the time of its making, so that the same figure is the same bytes
    with TTFont(source, lazy=True, recalcTimestamp=False) as font, BytesIO() as made:
        cutter = Subsetter(options)
        cutter.populate(unicodes=codes)
        cutter.subset(font)
        font.flavor = flavor
        font.save(made, reorderTables=False)
        return made.getvalue()
