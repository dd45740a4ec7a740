"""A figure for notebooks and the report: drawn wide and narrow, title as real text, colours that follow dark mode."""

from __future__ import annotations

import base64
import html
import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import pyplot
from matplotlib.category import StrCategoryLocator
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.container import BarContainer
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, Formatter, ScalarFormatter

from evalkit import wording
from evalkit.show import style, typeface
from evalkit.show.tables import Html, chip, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


MOST_SVG_MARKS = 1000
_GEOMETRY = re.compile(r' (d|transform|x|y|x1|y1|x2|y2|points|width|height)="[^"]*"')
_TEXT = re.compile(r'<text style="([^"]*)"[^>]*>(.*?)</text>', re.DOTALL)
_MARKS = re.compile(
    r'<g (clip-path="[^"]*")><use [^>]*? style="([^"]*)"/></g>(?:<g \1><use [^>]*? style="\2"/></g>)+'
)
_USES = re.compile(r'<use [^>]*? style="([^"]*)"/>(?:<use [^>]*? style="\1"/>)+')
_ROLES = {light: role.replace("_", "-") for role, (light, _) in style.PALETTE.items()}
_HEX = re.compile(r"#[0-9a-f]{6}\b", re.IGNORECASE)


def picture(
    plot: Callable[..., Axes],
    *args: Any,
    alt: str,
    caption: str = "",
    subline: str = "",
    simulated: bool = False,
    phone: bool = True,
    **options: Any,
) -> Html:
    """Draws a plot for wide and narrow screens and returns it as one `<figure>`, as the last value of a cell.

    Args:
        plot: A function `(*args, narrow=False, **options) -> Axes` whose axes title is the conclusion.
        *args: Passed to the plot.
        alt: Full sentences with the numbers, for those who cannot see it.
        caption: Method and caveat, below.
        subline: What is shown, unit, n, what the marks mean; between title and image.
        simulated: Adds the chip to the title and the word to the alternative text.
        phone: False when the wide figure reads well at 390 px already.
        **options: Passed to the plot.
    """
    wide, title = _drawn(plot, *args, narrow=False, **options)
    narrow = _drawn(plot, *args, narrow=True, **options)[0] if phone else ""
    if simulated:
        alt = f"{alt.rstrip()} Simulated."
    source = f'<source media="(max-width:640px)" srcset="{narrow}">' if narrow else ""
    png = ' class="ek-png"' if wide.startswith("data:image/png") else ""
    image = f'<picture>{source}<img{png} src="{wide}" alt="{html.escape(wording.visible(alt))}"></picture>'
    return Html(
        f'<figure class="ek-figure">{words(title, subline, simulated)}{image}{_caption(caption)}</figure>',
        f"{title}\n{alt}",
    )


def svg(figure: Figure, *, tight: bool = False) -> str:
    """A figure as SVG whose colours are variables, so that one file serves light and dark pages.

    `tight` cuts it to what is drawn, for figures that nobody laid out.

    It carries the letters it uses: an image sees neither the fonts of the page around it nor those it was measured with.
    """
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        transparent=True,
        bbox_inches="tight" if tight else None,
        metadata={"Date": None, "Creator": None},
    )
    text = wording.visible(
        buffer.getvalue()
    )  # XML forbids some characters: no browser would draw it
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: _tidied(tag[0]), text)
    text = _compacted(text)
    look = f"<style>{typeface.css(_letters(text))}{_theme(text)}</style>"
    return re.sub(r"<svg[^>]*>", lambda tag: tag[0] + look, text, count=1)


def data_url(figure: Figure, *, tight: bool = False) -> str:
    """A figure as a `data:` address: SVG, or PNG when it holds an image or too many marks for that to be small."""
    if _marks(figure) <= MOST_SVG_MARKS and not _has_image(figure):
        return _encoded("svg+xml", svg(figure, tight=tight).encode())
    buffer = io.BytesIO()
    figure.savefig(
        buffer,
        format="png",
        dpi=192,
        facecolor=style.COLOURS["paper"],
        transparent=False,
        bbox_inches="tight" if tight else None,
        metadata={"Software": None},
    )
    return _encoded("png", buffer.getvalue())


def _drawn(plot: Callable[..., Axes], *args: Any, narrow: bool, **options: Any) -> tuple[str, str]:
    with style.style(), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing from"
        )  # text stays text in the SVG: the reader's fonts draw it
        axes = plot(*args, narrow=narrow, **options)
        figure = axes.get_figure(root=True)
        if figure is None:
            raise TypeError(f"{plot} returned axes without a figure")
        title = _title_taken(axes)
        try:
            return data_url(figure), title
        finally:
            pyplot.close(figure)


def _title_taken(axes: Axes) -> str:
    titles = [axes.get_title(loc=where) for where in ("left", "center", "right")]
    for where in ("left", "center", "right"):
        axes.set_title("", loc=where)
    return " ".join(" ".join(title for title in titles if title).split())


def words(title: str, subline: str = "", simulated: bool = False) -> str:
    """A figure's title and what stands below it, as text."""
    label = f" {chip('simulated').body}" if simulated else ""
    head = f'<p class="ek-title">{wording.render_text(title)}{label}</p>' if title else label
    return head + (f'<p class="ek-sub">{wording.render_text(subline)}</p>' if subline else "")


def _caption(text: str) -> str:
    return f"<figcaption>{wording.render_text(text)}</figcaption>" if text else ""


def _encoded(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _has_image(figure: Figure) -> bool:
    """A heat map or photograph: its shades mean something, so dark pages leave them as they are."""
    return any(axes.images for axes in figure.axes) or any(
        isinstance(one, QuadMesh) for axes in figure.axes for one in axes.collections
    )


def _marks(figure: Figure) -> int:
    n_marks = 0
    for axes in figure.axes:
        n_marks += sum(
            np.size(line.get_xdata())
            for line in axes.lines
            if line.get_marker() not in {"None", "", " ", None}
        )
        n_marks += sum(
            np.shape(dots.get_offsets())[0]
            for dots in axes.collections
            if isinstance(dots, PathCollection)
        )
        n_marks += len(axes.patches) + len(axes.texts)
    return n_marks


def _tidied(tag: str) -> str:
    """Colours to variables and numbers to two decimals, in tags only: text is never touched."""
    tag = _HEX.sub(lambda found: f"var(--{_variable(found[0].lower())})", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    tag = _GEOMETRY.sub(lambda part: re.sub(r"(\.\d\d)\d+", r"\1", part[0]), tag)
    return re.sub(r"\s*\n\s*", " ", tag)


def _compacted(text: str) -> str:
    """The same picture in fewer bytes: no indents, no names that nothing refers to, one group for marks of one look."""
    text = re.sub(r">\s+<", "><", text)
    named = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in named else "", text)
    return _USES.sub(_under_one_look, _MARKS.sub(_grouped, text))


def _under_one_look(uses: re.Match[str]) -> str:
    look = f' style="{uses[1]}"'
    return f"<g{look}>{uses[0].replace(look, '')}</g>"


def _grouped(marks: re.Match[str]) -> str:
    clip, look = marks[1], marks[2]
    uses = marks[0].replace(f"<g {clip}>", "").replace("</g>", "").replace(f' style="{look}"', "")
    return f'<g {clip} style="{look}">{uses}</g>'


def _letters(text: str) -> dict[typeface.Weight, str]:
    found: dict[typeface.Weight, str] = {400: "", 700: ""}
    for look, words in _TEXT.findall(text):
        found[700 if "font-weight: 700" in look else 400] += html.unescape(words)
    return found


def _variable(colour: str) -> str:
    return _ROLES.get(colour) or f"c{colour[1:]}"


def _theme(text: str) -> str:
    used = {
        role.replace("_", "-"): both
        for role, both in style.PALETTE.items()
        if f"var(--{role.replace('_', '-')})" in text
    }
    foreign = dict.fromkeys(re.findall(r"var\(--c([0-9a-f]{6})\)", text))
    used |= {f"c{colour}": (f"#{colour}", style.in_the_dark(f"#{colour}")) for colour in foreign}
    light, dark = ("".join(f"--{name}:{both[n]};" for name, both in used.items()) for n in (0, 1))
    black = style.in_the_dark(
        "#000000"
    )  # matplotlib leaves out a fill that is black, which is SVG's default
    return (
        f"text{{font-family:{typeface.STACK}}}svg{{{light}}}"
        f"@media screen and (prefers-color-scheme:dark){{svg{{fill:{black};{dark}}}}}"
    )


_MOST_NAMES = 12
_NONE = {"None", "none", "", " ", None}


def whole(figure: Figure) -> Html:
    """The figure with its title as text and an alternative text made from what is drawn; the figure itself stays as it is.

    Of axes without anything in them, as a frame without rows leaves them, there is a line that says so.
    """
    title, alt = title_of(figure), described(figure)
    panels = list(_panels(figure))
    if panels and not any(one.has_data() or one.texts for one in panels):
        return note(f"{title}: nothing to draw." if title else "Nothing to draw.")
    with _without_title(figure), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the reader's fonts draw it
        source = data_url(figure, tight=True)
    width = round(figure.get_size_inches()[0] * 96)
    png = f' class="ek-png" width="{width}"' if source.startswith("data:image/png") else ""
    image = f'<img{png} src="{source}" alt="{html.escape(wording.visible(alt))}">'
    box = f'<div class="ek-wide" tabindex="0" role="region" aria-label="Figure">{image}</div>'
    return Html(
        f'<figure class="ek-figure">{words(title)}{box}</figure>', f"{title}\n{alt}".strip()
    )


def title_of(figure: Figure) -> str:
    """What the figure says above everything: its own title, or that of its only axes."""
    suptitle = figure.get_suptitle()
    panels = list(_panels(figure))
    return _line(suptitle or (_titles(panels[0]) if len(panels) == 1 else ""))


def described(figure: Figure) -> str:
    """The alternative text: title, panels, axes, legend, and how many points, lines and bars there are.

    Example:
        >>> from matplotlib.figure import Figure
        >>> figure = Figure()
        >>> axes = figure.subplots()
        >>> _ = axes.plot([1, 2, 3], [2, 4, 8], "o-", label="base")
        >>> _ = axes.set(title="It doubles", xlabel="day", ylabel="users")
        >>> described(figure)
        'It doubles. Across: day, 1 to 3. Up: users, 2 to 8. Drawn: 1 line, 3 points.'
    """
    panels = list(_panels(figure))
    told = [title_of(figure), _told_panels(panels) if len(panels) > 1 else ""]
    if panels:
        names = (_shared(panels, "x"), _shared(panels, "y"))
        told += [_axis("Across", panels, "x", names[0]), _axis("Up", panels, "y", names[1])]
    told += [_legend(figure), _counted(panels)]
    return (
        " ".join(f"{one.rstrip('.')}." for one in told if one)
        or "A figure without words of its own."
    )


def _panels(figure: Figure) -> Iterable[Axes]:
    """The axes that hold data; a colour bar is part of another's."""
    return (one for one in figure.axes if one.get_visible() and one.get_label() != "<colorbar>")


def _told_panels(panels: list[Axes]) -> str:
    names = [name for one in panels if (name := _titles(one))]
    return f"{wording.plural(len(panels), 'panel')}{': ' if names else ''}{_some(names)}"


def _titles(axes: Axes) -> str:
    return _line(" ".join(axes.get_title(loc=where) for where in ("left", "center", "right")))


def _shared(panels: list[Axes], name: str) -> str:
    """Labels stand at the outer panels only."""
    return _line(
        ", ".join(
            dict.fromkeys(text for one in panels if (text := getattr(one, f"get_{name}label")()))
        )
    )


def _axis(where: str, panels: list[Axes], name: str, label: str) -> str:
    axis = getattr(panels[0], f"{name}axis")
    if isinstance(axis.get_major_locator(), FixedLocator | StrCategoryLocator):
        span = _some([_line(one.get_text()) for one in axis.get_ticklabels() if one.get_text()])
    else:
        limits = [getattr(one.dataLim, f"interval{name}") for one in panels]
        known = [(low, high) for low, high in limits if low <= high and np.isfinite(low + high)]
        ends = (min(low for low, _ in known), max(high for _, high in known)) if known else ()
        span = " to ".join(_value(axis.get_major_formatter(), end) for end in ends)
    return f"{where}: {', '.join(one for one in (label, span) if one)}" if label or span else ""


def _value(formatter: Formatter, value: float) -> str:
    known = isinstance(
        formatter, ScalarFormatter
    )  # its short form depends on the width of the figure
    return f"{round(value, 12) + 0.0:.4g}" if known else _line(formatter.format_data_short(value))


def _legend(figure: Figure) -> str:
    found = [*figure.legends, *(legend for one in figure.axes if (legend := one.get_legend()))]
    told = []
    for one in found:
        names = _some([_line(text.get_text()) for text in one.get_texts()])
        title = _line(one.get_title().get_text())
        told += [f"{title}: {names}" if title else names] if names else []
    return f"Legend: {'; '.join(dict.fromkeys(told))}" if told else ""


def _counted(panels: list[Axes]) -> str:
    lines = [line for one in panels for line in one.lines if np.size(line.get_xdata()) > 1]
    drawn = [line for line in lines if line.get_linestyle() not in _NONE]
    straight = [line for line in drawn if _is_straight(line)]
    marked = [line for one in panels for line in one.lines if line.get_marker() not in _NONE]
    clouds = [
        dots for one in panels for dots in one.collections if isinstance(dots, PathCollection)
    ]
    n_points = sum(np.size(line.get_xdata()) for line in marked)
    n_points += sum(np.shape(dots.get_offsets())[0] for dots in clouds)
    n_bars = sum(
        len(bars) for one in panels for bars in one.containers if isinstance(bars, BarContainer)
    )
    meshes = [one for axes in panels for one in axes.collections if isinstance(one, QuadMesh)]
    n_cells = sum(
        len(np.ravel(values)) for one in meshes if (values := one.get_array()) is not None
    )
    counts = {
        "line": len(drawn) - len(straight),
        "point": n_points,
        "bar": n_bars,
        "shaded cell": n_cells,
    }
    told = [wording.plural(n, name) for name, n in counts.items() if n]
    bounded = told and len(straight) >= max(n_points, n_bars) > 0
    return f"Drawn: {', '.join(told)}{', with error bars' if bounded else ''}" if told else ""


def _is_straight(line: Line2D) -> bool:
    """An error bar or a line of reference: it stands at one place of an axis."""
    sides = (line.get_xdata(orig=False), line.get_ydata(orig=False))
    return any(np.unique(np.asarray(side, float)).size == 1 for side in sides)


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {wording.count(more)} more" if more > 0 else "")


def _line(text: object) -> str:
    return wording.visible(" ".join(str(text).split()))


@contextmanager
def _without_title(figure: Figure) -> Iterator[None]:
    """While it is saved: the title stands above the image as text."""
    texts = [text for text in figure.texts if text.get_text() == figure.get_suptitle()]
    panels = [] if texts else list(_panels(figure))
    for axes in panels[:1] if len(panels) == 1 else ():
        inside = {id(text) for text in axes.texts}
        texts = [
            one for one in axes.get_children() if isinstance(one, Text) and id(one) not in inside
        ]
    seen = [text.get_visible() for text in texts]
    for text in texts:
        text.set_visible(False)
    try:
        yield
    finally:
        for text, visible in zip(texts, seen, strict=True):
            text.set_visible(visible)
