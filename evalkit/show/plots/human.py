"""Figures of the human layer: who wins, whether sides mattered, whether raters agree, why, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.human import words
from evalkit.show import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evalkit.human.preference import Preference
    from evalkit.stats.result import Result

ROW_IN = 0.42  # height of a row in inches


def win_rate(found: Preference, *, narrow: bool = False) -> Axes:
    """The fine-tuned model's win rate against an even split, in every way it was counted."""
    rows = words.win_rate_rows(found)
    kinds = {name: one.verdict for name, one in rows.items() if one is not None}
    ax = _intervals(rows, kinds, words.headline(found), narrow=narrow, zone=True)
    ax.set_xlabel("Share won by the fine-tuned answer" if narrow else "Share won by the fine-tuned answer, a tie counted half")
    return ax


def sides(found: Preference, *, narrow: bool = False) -> Axes:
    """What a place on the screen did: left chosen, and the fine-tuned model's wins on either side."""
    rows = words.side_rows(found)
    kinds = dict.fromkeys(rows, "fine_tuned")
    kinds["Left chosen"] = "unsure" if found.position.verdict in {"no difference shown", "too early"} else "worse"
    ax = _intervals(rows, kinds, words.sides(found), narrow=narrow)
    ax.set_xlabel("Share of decided votes")
    return ax


def agreement(found: Preference, *, narrow: bool = False) -> Axes:
    """How far raters agree with each other and with themselves."""
    rows = words.agreement_rows(found)
    low = min(0.0, found.agreement.ci_low or 0.0)
    ax = _intervals(rows, dict.fromkeys(rows, "fine_tuned"), words.agreement(found), narrow=narrow, low=low, even=None)
    ax.set_xlabel("0% is chance for the first row" if narrow else "Agreement; 0% is chance for the first row, 100% is perfect")
    return ax


def slices(found: Preference, *, narrow: bool = False) -> Axes:
    """The win rate within each slice; hollow unless shown after Holm."""
    rows = words.slice_rows(found)
    kinds = {name: one.result.verdict if one.shown else "unsure" for name, one in zip(rows, found.slices, strict=True)}
    ax = _intervals(rows, kinds, words.slices(found), narrow=narrow, zone=True)
    ax.set_xlabel("Share won by the fine-tuned answer")
    return ax


def reasons(found: Preference, *, narrow: bool = False) -> Axes:
    """How often each reason came with a vote for either model."""
    given = sorted(found.reasons, key=lambda one: one.fine_tuned + one.base)
    _, ax = style.canvas(0.9 + 0.62 * max(len(given), 1), narrow=narrow)
    most = max([one.fine_tuned for one in given] + [one.base for one in given] + [1])
    for y, one in enumerate(given):
        for offset, role, count in ((0.17, "fine_tuned", one.fine_tuned), (-0.17, "base", one.base)):
            ax.barh(y + offset, count, height=0.3, color=style.COLOURS[role])
            label = f"{count} {role.replace('_', '-')}"
            ax.text(count + most * 0.015, y + offset, label, va="center", size=9, color=style.COLOURS["muted"])
    ax.set_yticks(range(len(given)), [_wrapped(one.reason, narrow) for one in given])
    ax.set_xlim(0, most * (1.5 if narrow else 1.2))
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("Votes that name the reason")
    return _titled(ax, words.reasons(found), narrow)


def _intervals(
    rows: Mapping[str, Result | None],
    kinds: Mapping[str, str],
    title: str,
    *,
    narrow: bool,
    zone: bool = False,
    low: float = 0.0,
    even: float | None = 0.5,
) -> Axes:
    shown = [(name, one) for name, one in rows.items() if one is not None and one.estimate is not None][::-1]
    _, ax = style.canvas(0.9 + (ROW_IN + 0.2 * narrow) * max(len(shown), 1), narrow=narrow)
    if zone:
        ax.axvspan(0.5, 1, color=style.COLOURS["pass_zone"], zorder=0)
    if even is not None:
        style.zero_line(ax, even)
    for y, (name, one) in enumerate(shown):
        _draw(ax, y, name, one, kind=kinds[name], narrow=narrow)
    if not shown:
        ax.text(0.5, 0, "No votes to show yet", ha="center", va="center", color=style.COLOURS["muted"])
    ax.set_yticks(range(len(shown)), ["" if narrow else _wrapped(name, narrow) for name, _ in shown])
    ax.set_ylim(-0.6, max(len(shown), 1) - 0.3)
    ax.set_xlim(low, 1)
    ax.set_xticks([tick for tick in (-1, -0.5, 0, 0.25, 0.5, 0.75, 1) if tick >= low])
    ax.xaxis.set_major_formatter(lambda value, _: wording.percent(value, 0))
    return _titled(ax, title, narrow)


def _draw(ax: Axes, y: float, name: str, result: Any, *, kind: str, narrow: bool) -> None:
    style.interval(ax, y, result.estimate, result.ci_low, result.ci_high, kind)
    text = f"{wording.percent(result.estimate)} ({wording.percent(result.ci_low)} to {wording.percent(result.ci_high)})"
    if narrow:
        ax.text(0, y + 0.27, f"{name}: {text}", transform=ax.get_yaxis_transform(), size=9, va="bottom")
    else:
        ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center")


def _titled(ax: Axes, title: str, narrow: bool) -> Axes:
    ax.set_title(_wrapped(title, narrow, width=44 if narrow else 72))
    return ax


def _wrapped(text: str, narrow: bool, *, width: int = 0) -> str:
    from textwrap import fill

    return fill(wording.visible(text), width or (18 if narrow else 34), break_on_hyphens=False)
