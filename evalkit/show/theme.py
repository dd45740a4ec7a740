"""The kit's look for a notebook's own plots: colours, type and grid in force, each figure shown as the report shows it."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from evalkit.show import typeface
from evalkit.show.style import SHEET

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A plot of one's own has nobody to lay it out by hand: a grid, a canvas of paper, and seaborn's own way to find room.
_OWN_PLOTS: Any = {
    "figure.constrained_layout.use": False,
    "figure.figsize": (6.4, 3.8),
    "figure.facecolor": "#fffffe",
    "savefig.facecolor": "auto",
    "savefig.transparent": False,
    "axes.grid": True,
    "axes.formatter.use_mathtext": False,
    "legend.title_fontsize": 9.75,
    "legend.fontsize": 9.75,
}


def use() -> None:
    """Puts the theme in force for every figure from now on; `sns.set_theme` or `plt.style.use` after it wins."""
    import matplotlib

    typeface.tell_matplotlib()
    look: Any = matplotlib.rc_params_from_file(str(SHEET), use_default_template=False)
    matplotlib.rcParams.update(look)
    matplotlib.rcParams.update(_OWN_PLOTS)


def use_in(shell: Any) -> None:
    """The theme in an IPython shell; in a notebook's kernel plain figures are shown as whole, accessible ones too."""
    use()
    if not hasattr(shell, "kernel"):
        return
    if "inline" in os.environ.get("MPLBACKEND", ""):
        # Set up on import; were it our first figure that did it, leaving our style would undo its interactive mode.
        import_module("matplotlib_inline.backend_inline")
    shown = (
        shell.display_formatter.ipython_display_formatter
    )  # asked before any format, so the backend draws no PNG
    shown.for_type_by_name("matplotlib.figure", "Figure", _show)
    shown.for_type_by_name("matplotlib.axes._axes", "Axes", _show_once)
    shown.for_type_by_name("seaborn.axisgrid", "Grid", _show_once)


def use_where_read() -> None:
    """The theme, where somebody reads along: in IPython. Scripts and tests keep the look they have."""
    interactive: Any = sys.modules.get("IPython")
    if interactive and (shell := interactive.get_ipython()):
        use_in(shell)


def _show(figure: Figure) -> None:
    from IPython.display import display

    from evalkit.show.plain import whole

    display(whole(figure))


def _show_once(drawn: Any) -> None:
    """Axes or a grid as a cell's last value: the backend shows an open figure at the cell's end, a closed one is shown now."""
    from matplotlib import pyplot

    if getattr(drawn.figure, "number", None) not in pyplot.get_fignums():
        _show(drawn.figure)
