"""Figures of the human layer: who wins, whether sides mattered, whether raters agree, why, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from evalkit import wording
from evalkit.human import words
from evalkit.show import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evalkit.human.preference import Preference
    from evalkit.stats.result import Result

ROW_IN = 0.42  # height of a row in inches


class Row(NamedTuple):
    """One interval with its name; `kind` as in `style.interval`."""

    name: str
    result: Result | None
    kind: str


def win_rate(found: Preference, *, narrow: bool = False) -> Axes:
    """The fine-tuned model's win rate against an even split, in every way it was counted."""
    rows = [
        Row("All pairs", found.win_rate, found.win_rate.verdict),
        Row("Only pairs shown", found.asked_only, found.asked_only.verdict),
        Row("Without flagged raters", found.without_flagged, found.without_flagged.verdict if found.without_flagged else ""),
        Row(
            "At equal length",
            found.length_adjusted,
            "unsure" if found.length_adjusted is None else found.length_adjusted.verdict,
        ),
    ]
    ax = _intervals(rows, words.headline(found), narrow=narrow, zone=True)
    ax.set_xlabel("Share won by the fine-tuned answer" if narrow else "Share won by the fine-tuned answer, a tie counted half")
    return ax


def sides(found: Preference, *, narrow: bool = False) -> Axes:
    """What a place on the screen did: left chosen, and the fine-tuned model's wins on either side."""
    rows = [
        Row("Left chosen", found.position, "unsure" if found.position.verdict == "no difference shown" else "worse"),
        Row("Fine-tuned wins, on the left", found.as_left, "fine_tuned"),
        Row("Fine-tuned wins, on the right", found.as_right, "fine_tuned"),
    ]
    ax = _intervals(rows, words.sides(found), narrow=narrow)
    ax.set_xlabel("Share of decided votes")
    return ax


def agreement(found: Preference, *, narrow: bool = False) -> Axes:
    """How far raters agree with each other and with themselves."""
    alpha = found.agreement
    rows = [
        Row("Between raters, beyond chance", alpha, "fine_tuned"),
        Row("With themselves, on repeats", found.self_agreement, "fine_tuned"),
    ]
    ax = _intervals(rows, words.agreement(found), narrow=narrow, low=min(0.0, alpha.ci_low or 0.0), even=None)
    ax.set_xlabel("0% is chance for the first row" if narrow else "Agreement; 0% is chance for the first row, 100% is perfect")
    return ax


def slices(found: Preference, *, narrow: bool = False) -> Axes:
    """The win rate within each slice; hollow below 30 items."""
    rows = [
        Row(
            f"{one.slice} (n = {one.result.n})",
            one.result,
            one.result.verdict if one.p_adjusted is not None and one.p_adjusted < one.result.alpha else "unsure",
        )
        for one in found.slices
    ]
    ax = _intervals(rows, words.slices(found), narrow=narrow, zone=True)
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
    ax.set_xlabel("Votes that name the reason")
    return _titled(ax, words.reasons(found), narrow)


def _intervals(
    rows: Sequence[Row], title: str, *, narrow: bool, zone: bool = False, low: float = 0.0, even: float | None = 0.5
) -> Axes:
    shown = [row for row in rows if row.result is not None and row.result.estimate is not None]
    _, ax = style.canvas(0.9 + (ROW_IN + 0.2 * narrow) * max(len(shown), 1), narrow=narrow)
    if zone:
        ax.axvspan(0.5, 1, color=style.COLOURS["pass_zone"], zorder=0)
    if even is not None:
        style.zero_line(ax, even)
    for y, row in enumerate(reversed(shown)):
        _draw(ax, y, row, narrow)
    if not shown:
        ax.text(0.5, 0, "No votes to show yet", ha="center", va="center", color=style.COLOURS["muted"])
    names = [_wrapped(row.name, narrow) for row in reversed(shown)]
    ax.set_yticks(range(len(shown)), [""] * len(shown) if narrow else names)
    ax.set_ylim(-0.6, max(len(shown), 1) - 0.3)
    ax.set_xlim(low, 1)
    ax.set_xticks([tick for tick in (-1, -0.5, 0, 0.25, 0.5, 0.75, 1) if tick >= low])
    ax.xaxis.set_major_formatter(lambda value, _: wording.percent(value, 0))
    return _titled(ax, title, narrow)


def _draw(ax: Axes, y: float, row: Row, narrow: bool) -> None:
    result = row.result
    if result is None or result.estimate is None:
        return
    style.interval(ax, y, result.estimate, result.ci_low, result.ci_high, row.kind)
    text = f"{wording.percent(result.estimate)} ({wording.percent(result.ci_low)} to {wording.percent(result.ci_high)})"
    if narrow:
        ax.text(0, y + 0.27, f"{row.name}: {text}", transform=ax.get_yaxis_transform(), size=9, va="bottom")
    else:
        ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center")


def _titled(ax: Axes, title: str, narrow: bool) -> Axes:
    ax.set_title(_wrapped(title, narrow, width=44 if narrow else 72))
    return ax


def _wrapped(text: str, narrow: bool, *, width: int = 0) -> str:
    from textwrap import fill

    return fill(wording.visible(text), width or (18 if narrow else 34))
