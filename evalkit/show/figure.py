"""A figure as the notebooks and the report show it, ours or anybody's: title as real text, colours that follow dark mode.

A plot of ours is drawn wide and narrow by `picture`; of a figure drawn with plain matplotlib or seaborn `whole` reads the
words off the axes.
"""

from __future__ import annotations

import base64
import html
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.category import StrCategoryLocator
from matplotlib.collections import PathCollection, PolyCollection, QuadMesh
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, Formatter, ScalarFormatter

from evalkit import wording
from evalkit.show import style
from evalkit.show.tables import Html, chip, note

Drawn = TypeVar("Drawn")
MOST_SVG_MARKS = 1000
_MOST_NAMES = 12
_NONE = {"None", "none", "", " ", None}
_GEOMETRY = re.compile(r' (d|transform|x|y|x1|y1|x2|y2|points|width|height)="[^"]*"')
_TEXT = re.compile(r'<text style="([^"]*)"[^>]*>(.*?)</text>', re.DOTALL)
_ROLES = {light: role.replace("_", "-") for role, (light, _) in style.PALETTE.items()}
_HEX = re.compile(r"#[0-9a-f]{6}\b", re.IGNORECASE)


def picture(
    plot: Callable[..., Axes],
    *args: object,
    alt: str = "",
    title: str = "",
    caption: str = "",
    subline: str = "",
    simulated: bool = False,
) -> Html:
    """Draws a plot for wide and narrow screens and returns it as one `<figure>`, as the last value of a cell.

    Args:
        plot: A function `(*args, narrow=False) -> Axes`.
        *args: Passed to the plot.
        alt: Full sentences with the numbers, for those who cannot see it.
        title: The conclusion, with which the alternative text begins then; by default the axes' title stands above.
        caption: Method and caveat, below.
        subline: What is shown, unit, n, what the marks mean; between title and image.
        simulated: Adds the chip to the title and the word to the alternative text.
    """

    def drawn(*, narrow: bool) -> tuple[str, str]:
        with style.style():
            figure = plot(*args, narrow=narrow).get_figure(root=True)
            if figure is None:
                raise TypeError(f"{plot} returned axes without a figure")
            try:
                with _without_title(figure):
                    return data_url(figure), title_of(figure)
            finally:
                pyplot.close(figure)

    (narrow, _), (wide, own) = drawn(narrow=True), drawn(narrow=False)
    alt = f"{title.rstrip('.')}. {alt}".rstrip() if title else alt
    alt = f"{alt.rstrip()} Simulated." if simulated else alt
    source = f'<source media="(max-width:640px)" srcset="{narrow}">'
    image = f"<picture>{source}{_image(wide, alt)}</picture>"
    below = f"<figcaption>{wording.render_text(caption)}</figcaption>" if caption else ""
    return _framed(title or own, f"{image}{below}", alt, subline=subline, simulated=simulated)


def whole(figure: Figure) -> Html:
    """The figure with its title as text and an alternative text made from what is drawn; the figure itself stays as it is.

    Of axes without anything in them, as a frame without rows leaves them, there is a line that says so.
    """
    title, alt, panels = title_of(figure), described(figure), _panels(figure)
    if panels and not any(one.has_data() or one.texts for one in panels):
        return note(f"{title}: nothing to draw." if title else "Nothing to draw.")
    with _without_title(figure):
        source = data_url(figure, tight=True)
    image = _image(source, alt, width=round(figure.get_size_inches()[0] * 96))
    box = f'<div class="ek-wide" tabindex="0" role="region" aria-label="Figure">{image}</div>'
    return _framed(title, box, alt)


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
    # XML forbids some characters: no browser would draw it
    text = wording.visible(buffer.getvalue())
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: _tidied(tag[0]), text)
    text = re.sub(r">\s+<", "><", text)
    named = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in named else "", text)
    letters: dict[style.Weight, str] = {400: "", 700: ""}
    for look, words in _TEXT.findall(text):
        letters[700 if "font-weight: 700" in look else 400] += html.unescape(words)
    look = f"<style>{style.font_css(letters)}{_theme(text)}</style>"
    return re.sub(r"<svg[^>]*>", lambda tag: tag[0] + look, text, count=1)


def data_url(figure: Figure, *, tight: bool = False) -> str:
    """A figure as a `data:` address: SVG, or PNG when it holds an image or too many marks for that to be small.

    Shades of a heat map or a photograph mean something, so dark pages leave them as they are.
    """
    shaded = any(axes.images or _of(QuadMesh, [axes]) for axes in figure.axes)
    n_marks = _n_points(figure.axes)
    n_marks += sum(len(axes.patches) + len(axes.texts) for axes in figure.axes)
    kind, content = "png", io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the reader's fonts draw it
        if n_marks <= MOST_SVG_MARKS and not shaded:
            kind, content = "svg+xml", io.BytesIO(svg(figure, tight=tight).encode())
        else:
            figure.savefig(
                content,
                format="png",
                dpi=192,
                facecolor=style.COLOURS["paper"],
                transparent=False,
                bbox_inches="tight" if tight else None,
                metadata={"Software": None},
            )
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def _image(source: str, alt: str, *, width: int = 0) -> str:
    png = ' class="ek-png"' if source.startswith("data:image/png") else ""
    png += f' width="{width}"' if png and width else ""
    return f'<img{png} src="{source}" alt="{html.escape(wording.visible(alt))}">'


def _framed(title: str, inside: str, alt: str, subline: str = "", simulated: bool = False) -> Html:
    """A figure with its title and what stands below that, as text."""
    label = f" {chip('simulated').body}" if simulated else ""
    head = f'<p class="ek-title">{wording.render_text(title)}{label}</p>' if title else label
    head += f'<p class="ek-sub">{wording.render_text(subline)}</p>' if subline else ""
    return Html(f'<figure class="ek-figure">{head}{inside}</figure>', f"{title}\n{alt}".strip())


def _tidied(tag: str) -> str:
    """Colours to variables and numbers to two decimals, in tags only: text is never touched."""

    def variable(found: re.Match[str]) -> str:
        colour = found[0].lower()
        return f"var(--{_ROLES.get(colour) or f'c{colour[1:]}'})"

    tag = _HEX.sub(variable, tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = _GEOMETRY.sub(lambda part: re.sub(r"(\.\d\d)\d+", r"\1", part[0]), tag)
    return re.sub(r"\s*\n\s*", " ", tag)


def _theme(text: str) -> str:
    roles = {role.replace("_", "-"): both for role, both in style.PALETTE.items()}
    used = {role: both for role, both in roles.items() if f"var(--{role})" in text}
    foreign = dict.fromkeys(re.findall(r"var\(--c([0-9a-f]{6})\)", text))
    used |= {f"c{colour}": (f"#{colour}", style.in_the_dark(f"#{colour}")) for colour in foreign}
    light, dark = ("".join(f"--{name}:{both[n]};" for name, both in used.items()) for n in (0, 1))
    # matplotlib leaves out a fill that is black, which is SVG's default
    black = style.in_the_dark("#000000")
    return (
        f"text{{font-family:{style.STACK}}}svg{{{light}}}"
        f"@media screen and (prefers-color-scheme:dark){{svg{{fill:{black};{dark}}}}}"
    )


def title_of(figure: Figure) -> str:
    """What the figure says above everything: its own title, or that of its only axes."""
    panels = _panels(figure)
    only = _titles(panels[0]) if len(panels) == 1 else ""
    return _line(figure.get_suptitle() or only)


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
    panels, told = _panels(figure), [title_of(figure)]
    if len(panels) > 1:
        names = _some([name for one in panels if (name := _line(_titles(one)))])
        told.append(f"{wording.plural(len(panels), 'panel')}{': ' if names else ''}{names}")
    if panels:
        told += [_axis("Across", panels, "x"), _axis("Up", panels, "y")]
    told += [_legend(figure), _counted(panels)]
    said = " ".join(f"{one.rstrip('.')}." for one in told if one)
    return said or "A figure without words of its own."


def _panels(figure: Figure) -> list[Axes]:
    """The axes that hold data; a colour bar is part of another's."""
    return [one for one in figure.axes if one.get_visible() and one.get_label() != "<colorbar>"]


def _titles(axes: Axes) -> str:
    titles = [axes.get_title(loc=where) for where in ("left", "center", "right")]
    return " ".join(" ".join(titles).split())


def _axis(where: str, panels: list[Axes], name: str) -> str:
    """What an axis counts, by the labels of all panels (they stand at the outer ones only), and from where to where."""
    labels = (getattr(one, f"get_{name}label")() for one in panels)
    label = _line(", ".join(dict.fromkeys(text for text in labels if text)))
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
    if isinstance(formatter, ScalarFormatter):  # its short form depends on the figure's width
        return f"{round(value, 12) + 0.0:.4g}"
    return _line(formatter.format_data_short(value))


def _legend(figure: Figure) -> str:
    found, told = [*figure.legends, *(one.get_legend() for one in figure.axes)], []
    for legend in found:
        if legend and (names := _some([_line(text.get_text()) for text in legend.get_texts()])):
            title = _line(legend.get_title().get_text())
            told.append(f"{title}: {names}" if title else names)
    return f"Legend: {'; '.join(dict.fromkeys(told))}" if told else ""


def _counted(panels: list[Axes]) -> str:
    lines = [line for one in panels for line in one.lines if line.get_linestyle() not in _NONE]
    sides = [_n_sides(line) for line in lines]
    n_straight = sides.count(1)  # an error bar or a line of reference
    bars = (found for one in panels for found in one.containers if isinstance(found, BarContainer))
    shades = (mesh.get_array() for mesh in _of(QuadMesh, panels))
    counts = {
        "line": sides.count(2),
        "point": _n_points(panels),
        "bar": sum(map(len, bars)),
        "box": sum(isinstance(patch, PathPatch) for one in panels for patch in one.patches),
        "shaded area": sum(bool(one.get_paths()) for one in _of(PolyCollection, panels)),
        "shaded cell": sum(np.size(values) for values in shades if values is not None),
    }
    nouns = {"box": "boxes"}
    told = [wording.plural(n, name, nouns.get(name, "")) for name, n in counts.items() if n]
    filled = counts["box"] or counts["shaded area"]
    has_bars = not filled and n_straight >= max(counts["point"], counts["bar"]) > 0
    return f"Drawn: {', '.join(told)}{', with error bars' if has_bars else ''}" if told else ""


def _n_points(panels: list[Axes]) -> int:
    lines = [line for one in panels for line in one.lines if line.get_marker() not in _NONE]
    n = sum(np.size(line.get_xdata()) for line in lines)
    return n + sum(np.shape(dots.get_offsets())[0] for dots in _of(PathCollection, panels))


def _of(kind: type[Drawn], panels: list[Axes]) -> list[Drawn]:
    return [one for axes in panels for one in axes.collections if isinstance(one, kind)]


def _n_sides(line: Line2D) -> int:
    """Along how many axes a line runs: none of a point, or where nothing is known."""
    ends = np.asarray([line.get_xdata(orig=False), line.get_ydata(orig=False)], float)
    known = ends[:, np.isfinite(ends).all(axis=0)]
    return sum(np.unique(side).size > 1 for side in known)


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {wording.count(more)} more" if more > 0 else "")


def _line(text: object) -> str:
    return wording.visible(" ".join(str(text).split()))


@contextmanager
def _without_title(figure: Figure) -> Iterator[None]:
    """While it is saved: the title stands above the image as text."""
    texts = [text for text in figure.texts if text.get_text() == figure.get_suptitle()]
    panels = [] if texts else _panels(figure)
    if len(panels) == 1:
        known = [one for one in panels[0].get_children() if isinstance(one, Text)]
        texts = [one for one in known if not any(one is inside for inside in panels[0].texts)]
    seen = [text.get_visible() for text in texts]
    for text in texts:
        text.set_visible(False)
    try:
        yield
    finally:
        for text, visible in zip(texts, seen, strict=True):
            text.set_visible(visible)
