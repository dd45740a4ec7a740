"""A figure for notebooks and the report: drawn wide and narrow, title as real text, colours that follow dark mode."""

from __future__ import annotations

import base64
import html
import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import pyplot
from matplotlib.collections import PathCollection, QuadMesh

from evalkit import wording
from evalkit.show import style, typeface
from evalkit.show.tables import Html, chip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
