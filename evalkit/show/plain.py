"""A figure drawn with plain matplotlib or seaborn as the report's `<figure>`: its words are read off the axes."""

from __future__ import annotations

import html
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.category import StrCategoryLocator
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.container import BarContainer
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, Formatter, ScalarFormatter

from evalkit import wording
from evalkit.show.figure import data_url, words
from evalkit.show.tables import Html, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

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
