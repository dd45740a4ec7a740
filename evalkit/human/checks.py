"""Careless raters: flagged with the figure that shows it, never dropped in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from evalkit import wording
from evalkit.human.ratings import Rating, by_item

FAST_S = 3.0
_LEAST = 3  # known or repeated pairs below which nothing is concluded


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterCheck:
    """What one rater's votes look like; shares are fractions, None where there is nothing to judge by.

    Attributes:
        gold_rate: Known winners found.
        self_agreement: Same judgement on a hidden repeat.
        left_rate: Left chosen, of all decided votes; `left_p` is its exact test against a half.
        fast_rate: Votes given in under 3 seconds.
        others_rate: Agreement with the majority of the other raters.
        flags: Why this rater looks careless; empty when nothing stands out.
    """

    rater: str
    votes: int
    gold_rate: float | None
    self_agreement: float | None
    left_rate: float | None
    left_p: float | None
    fast_rate: float | None
    others_rate: float | None
    median_s: float | None
    flags: tuple[str, ...]


def check_raters(ratings: Sequence[Rating]) -> tuple[RaterCheck, ...]:
    """One check a rater, in order of their codes."""
    return tuple(_check(rater, ratings) for rater in sorted({one.rater for one in ratings}))


def repeat_pairs(ratings: Sequence[Rating]) -> list[tuple[Rating, Rating]]:
    """Each repeat with the same rater's first vote on that item."""
    first = {(one.rater, one.item_id): one for one in ratings if one.kind == "asked"}
    repeats = [one for one in ratings if one.kind == "repeat"]
    return [
        (first[one.rater, one.item_id], one) for one in repeats if (one.rater, one.item_id) in first
    ]


def _check(rater: str, ratings: Sequence[Rating]) -> RaterCheck:
    from evalkit import stats

    own = [one for one in ratings if one.rater == rater]
    gold = [one.label == "fine_tuned" for one in own if one.kind == "gold"]
    same = [a.label == b.label for a, b in repeat_pairs(own)]
    side = stats.position_bias(
        sum(one.choice == "left" for one in own), sum(one.choice == "right" for one in own)
    )
    fast = [one.seconds < FAST_S for one in own]
    others = _with_others(rater, ratings)
    found = {
        f"finds {wording.share(sum(gold), len(gold))} of the known winners": len(gold) >= _LEAST
        and _rate(gold) < 0.7,
        f"judges the same again on {wording.share(sum(same), len(same))} repeats": len(same)
        >= _LEAST
        and _rate(same) < 0.5,
        f"chooses left in {wording.percent(side.estimate, 0)} of decided votes": side.p_value
        is not None
        and side.p_value < 0.01,
        f"votes in under {FAST_S:g} s {wording.percent(_rate(fast), 0)} of the time": _rate(fast)
        > 0.3,
        f"agrees with the others on {wording.share(sum(others), len(others))}": len(others) >= 10
        and _rate(others) < 0.4,
    }
    seconds = sorted(one.seconds for one in own)
    return RaterCheck(
        rater=rater,
        votes=len(own),
        gold_rate=_rate(gold) if gold else None,
        self_agreement=_rate(same) if same else None,
        left_rate=side.estimate,
        left_p=side.p_value,
        fast_rate=_rate(fast) if fast else None,
        others_rate=_rate(others) if others else None,
        median_s=seconds[len(seconds) // 2] if seconds else None,
        flags=tuple(text for text, flagged in found.items() if flagged),
    )


def _with_others(rater: str, ratings: Sequence[Rating]) -> list[bool]:
    agrees = []
    for votes in by_item(ratings).values():
        own = [one.label for one in votes if one.rater == rater]
        ranked = Counter(one.label for one in votes if one.rater != rater).most_common(2)
        if (
            own and ranked and (len(ranked) == 1 or ranked[0][1] > ranked[1][1])
        ):  # the others have a majority
            agrees.append(own[0] == ranked[0][0])
    return agrees


def _rate(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits) if hits else 0.0
