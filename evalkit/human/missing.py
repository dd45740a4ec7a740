"""What would settle a round, priced in pairs that the test set has and in hours at a pace that was really measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalkit import wording
from evalkit.errors import DesignError
from evalkit.records import Missing

if TYPE_CHECKING:
    from evalkit.human.preference import Preference
    from evalkit.human.rounds import Round

FIRST_ROUND = "50 pairs for a start"
EVEN = 0.02  # so close to an even split no round of people is long enough
MEASURED_VOTES, SLOWEST_GLANCE_S = 20, 5.0  # fewer or faster votes measure no pace


def first_round() -> Missing:
    """A round where there is none."""
    why = "nobody was asked yet: name the raters in study.yaml, then run notebook 03"
    return Missing(action="Prepare a rating round", why=why, price=FIRST_ROUND)


def to_finish(round_: Round) -> Missing:
    """The ratings an open round still waits for."""
    left = sum(one.total - one.done for one in round_.progress())
    price = (
        wording.plural(left, "rating") + ", then lock the round"
        if left
        else "one command: lock the round"
    )
    return Missing(
        action="Finish and lock the rating round", why="results open only then", price=price
    )


def for_present_answers(round_: Round) -> Missing:
    """A round in place of one that was made from other answers."""
    why = f"round {round_.folder.name} was made from other answers or another test set, and is never drawn anew"
    price = _price(len(round_.batch), None) if len(round_.batch) else FIRST_ROUND
    return Missing(
        action="Name another rating_round and have the present answers rated", why=why, price=price
    )


def to_settle(found: Preference, *, differing: int | None, power: float) -> tuple[Missing, ...]:
    """How many pairs would show what a locked round did not.

    Votes of two rounds are not added up, so the number is that of a whole new round.

    Args:
        found: The analysed round.
        differing: Pairs with different answers in the whole test set; None when not known.
        power: Wanted probability to show the preference.
    """
    from evalkit import stats

    result, asked = found.win_rate, found.asked_only
    if found.conclusion in {"better", "worse", "not worse"}:
        return ()
    if not result.n:
        why = "no example had two answers to show"
        return (Missing(action="Prepare another rating round", why=why, price=FIRST_ROUND),)
    if found.margin is not None:
        return (_to_keep(found, found.margin, differing=differing, power=power),)
    rate = asked.wins / (asked.wins + asked.losses) if asked.wins + asked.losses else 0.5
    even = abs(rate - 0.5) < EVEN
    why = f"{wording.percent(result.estimate)} is not shown to differ from 50% with {wording.plural(result.n, 'item')}"
    tie_rate = asked.ties / asked.n if asked.wins + asked.losses else 0.0
    try:
        needed = stats.ratings_needed(
            0.5 + EVEN if even else rate, tie_rate, alpha=result.alpha, power=power
        )
    except DesignError as why_not:
        return (Missing(action="Rate more pairs", why=why, price=str(why_not)),)
    return (_round_of(max(needed, asked.n + 1), found, differing=differing, why=why, even=even),)


def _to_keep(found: Preference, margin: float, *, differing: int | None, power: float) -> Missing:
    """A round that shows the win rate not below 50% by the margin, at the rate and the ties seen."""
    from evalkit import stats

    result, asked = found.win_rate, found.asked_only
    rate = 0.5 if result.estimate is None else result.estimate
    why = f"a win rate below {wording.percent(0.5 - margin)} is not ruled out with {wording.plural(result.n, 'item')}"
    ties = min(result.ties / result.n, 2 * min(rate, 1 - rate)) if result.n else 0.0
    try:
        needed = stats.ratings_needed_no_worse(rate, margin, ties, alpha=result.alpha, power=power)
    except DesignError as why_not:
        return Missing(action="Rate more pairs", why=why, price=str(why_not))
    return _round_of(max(needed, asked.n + 1), found, differing=differing, why=why, even=False)


def _round_of(
    needed: int, found: Preference, *, differing: int | None, why: str, even: bool
) -> Missing:
    short = differing is not None and differing < needed
    only = (
        f"; the test set has only {wording.plural(differing or 0, 'pair')} with different answers"
        if short
        else ""
    )
    if even:
        price = f"more than {wording.plural(needed, 'pair')} at so even a split{only}"
        return Missing(action="Look for a larger effect", why=why, price=price)
    action = "Add examples to the test set, then rate" if short else "Rate"
    action = f"{action} {wording.plural(needed, 'pair')} in another rating_round"
    return Missing(action=action, why=why, price=_price(needed, _pace_s(found)) + only)


def _pace_s(found: Preference) -> float | None:
    """The middle of the raters' median times; None where people gave too few votes, or glanced."""
    medians = sorted(one.median_s for one in found.raters if one.median_s is not None)
    middle = medians[len(medians) // 2] if medians else 0.0
    measured = (
        sum(one.votes for one in found.raters) >= MEASURED_VOTES and middle >= SLOWEST_GLANCE_S
    )
    return middle if measured and not found.simulated else None


def _price(pairs: int, pace_s: float | None) -> str:
    minutes = pairs * (pace_s or 60) / 60
    time = (
        f"{wording.number(minutes / 60, 1)} hours"
        if minutes >= 90
        else wording.plural(max(round(minutes), 1), "minute")
    )
    pace = f"the {wording.number(pace_s, 0)} s a pair of this round" if pace_s else "one a minute"
    return f"{wording.plural(pairs, 'pair')}, about {time} a rater at {pace}"
