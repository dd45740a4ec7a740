"""Figures of the human layer: who wins, whether sides mattered, whether raters agree, why, and where."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import TYPE_CHECKING

from evalkit import wording
from evalkit.human import words
from evalkit.show import style
from evalkit.show.plots.tracks import Mark, Track, spans, tracks_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evalkit.human.preference import Preference
    from evalkit.stats.result import Result


def win_rate(found: Preference, *, narrow: bool = False) -> Axes:
    """The fine-tuned model's win rate against an even split, in every way it was counted."""
    rows = words.win_rate_rows(found)
    kinds = {name: one.verdict for name, one in rows.items() if one is not None}
    ax = _intervals(rows, kinds, words.headline(found), narrow=narrow, zone=True)
    ax.set_xlabel(
        "Share won by the fine-tuned answer"
        if narrow
        else "Share won by the fine-tuned answer, a tie counted half"
    )
    return ax


def sides(found: Preference, *, narrow: bool = False) -> Axes:
    """What a place on the screen did: left chosen, and the fine-tuned model's wins on either side."""
    rows = words.side_rows(found)
    kinds = dict.fromkeys(rows, "fine_tuned")
    kinds["Left chosen"] = (
        "unsure" if found.position.verdict in {"no difference shown", "too early"} else "worse"
    )
    ax = _intervals(rows, kinds, words.sides(found), narrow=narrow)
    ax.set_xlabel("Share of decided votes")
    return ax


def agreement(found: Preference, *, narrow: bool = False) -> Axes:
    """How far raters agree with each other and with themselves."""
    rows = words.agreement_rows(found)
    low = min(0.0, found.agreement.ci_low or 0.0)
    ax = _intervals(
        rows,
        dict.fromkeys(rows, "fine_tuned"),
        words.agreement(found),
        narrow=narrow,
        low=low,
        even=None,
    )
    ax.set_xlabel(
        "0% is chance for the first row"
        if narrow
        else "Agreement; 0% is chance for the first row, 100% is perfect"
    )
    return ax


def slices(found: Preference, *, narrow: bool = False) -> Axes:
    """The win rate within each slice; hollow unless shown after Holm."""
    rows = {one.slice: one.result for one in found.slices}
    kinds = {one.slice: one.result.verdict if one.shown else "unsure" for one in found.slices}
    ax = _intervals(rows, kinds, words.slices(found), narrow=narrow, zone=True)
    ax.set_xlabel("Share won by the fine-tuned answer")
    return ax


def reasons(found: Preference, *, narrow: bool = False) -> Axes:
    """How often each reason came with a vote for either model."""
    given = sorted(found.reasons, key=lambda one: one.fine_tuned + one.base)
    _, ax = style.canvas(0.9 + 0.62 * max(len(given), 1), narrow=narrow)
    most = max([one.fine_tuned for one in given] + [one.base for one in given] + [1])
    for y, one in enumerate(given):
        for offset, role, count in (
            (0.17, "fine_tuned", one.fine_tuned),
            (-0.17, "base", one.base),
        ):
            ax.barh(y + offset, count, height=0.3, color=style.COLOURS[role])
            label = f"{count} {role.replace('_', '-')}"
            ax.text(
                count + most * 0.015,
                y + offset,
                label,
                va="center",
                size=9,
                color=style.COLOURS["muted"],
            )
    ax.set_yticks(range(len(given)), [_wrapped(one.reason, 18 if narrow else 34) for one in given])
    ax.set_xlim(0, most * (1.5 if narrow else 1.2))
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("Votes that name the reason")
    return style.titled(ax, words.reasons(found), narrow=narrow)


def _wrapped(text: str, width: int) -> str:
    return fill(wording.visible(text), width, break_on_hyphens=False)


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
    shown = {
        name: one for name, one in rows.items() if one is not None and one.estimate is not None
    }
    tracks = [
        Track(
            name=name,
            under=f"n = {wording.count(one.n)}",
            marks=_marks(one, kinds[name]),
            value=_value(one),
        )
        for name, one in shown.items()
    ]
    ticks = [tick for tick in (-1, -0.5, 0, 0.25, 0.5, 0.75, 1) if tick >= low]
    ax = tracks_axes(tracks, (low, 1), ticks, lambda at: wording.percent(at, 0), narrow=narrow)
    if zone:
        style.pass_zone(ax, 0.5, 1, spans=spans(tracks, narrow=narrow))
    if even is not None:
        style.zero_line(ax, even, spans=spans(tracks, narrow=narrow))
    return style.titled(ax, title, narrow=narrow)


def _marks(result: Result, kind: str) -> tuple[Mark, ...]:
    return (
        Mark(estimate=result.estimate or 0.0, low=result.ci_low, high=result.ci_high, kind=kind),
    )


def _value(result: Result) -> str:
    text = wording.number if result.scale == "number" else wording.percent
    low, high = (text(end).rstrip("%") for end in (result.ci_low, result.ci_high))
    return f"{text(result.estimate)} ({low} to {high})"
