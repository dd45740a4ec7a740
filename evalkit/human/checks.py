"""Careless raters: flagged with the figure that shows it, never dropped in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from evalkit import wording
from evalkit.human.ratings import Rating, by_item

if TYPE_CHECKING:
    from evalkit.stats import RuleTest

FAST_S = 3.0
# What somebody who looks at the pairs keeps to. A flag needs a count that would surprise from one who just keeps it.
GOLD_LEAST, REPEATS_LEAST, FAST_MOST = 0.7, 0.5, 0.3


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


def check_raters(ratings: Sequence[Rating], *, alpha: float = 0.05) -> tuple[RaterCheck, ...]:
    """One check a rater, in order of their codes.

    Each flag is an exact one-sided test against its rule, at a level at which a round of careful raters has a flag in at
    most `alpha` of rounds: the page names a person.
    """
    from evalkit.stats import tarone_level

    tested = {rater: _tests(rater, ratings) for rater in sorted({one.rater for one in ratings})}
    every = [test for tests in tested.values() for test in tests.values()]
    level = tarone_level(every, alpha=alpha)
    return tuple(_check(rater, ratings, tests, level) for rater, tests in tested.items())


def repeat_pairs(ratings: Sequence[Rating]) -> list[tuple[Rating, Rating]]:
    """Each repeat with the same rater's first vote on that item."""
    first = {(one.rater, one.item_id): one for one in ratings if one.kind == "asked"}
    repeats = [one for one in ratings if one.kind == "repeat"]
    return [
        (first[one.rater, one.item_id], one) for one in repeats if (one.rater, one.item_id) in first
    ]


def _tests(rater: str, ratings: Sequence[Rating]) -> dict[str, RuleTest]:
    from evalkit.stats import rule_test

    own = [one for one in ratings if one.rater == rater]
    gold = [one.label == "fine_tuned" for one in own if one.kind == "gold"]
    same = [a.label == b.label for a, b in repeat_pairs(own)]
    sides = [one.choice == "left" for one in own if one.choice in {"left", "right"}]
    fast = [one.seconds < FAST_S for one in own]
    return {
        "gold": rule_test(sum(gold), len(gold), GOLD_LEAST),
        "repeats": rule_test(sum(same), len(same), REPEATS_LEAST),
        "left": rule_test(sum(sides), len(sides), 0.5, "two-sided"),
        "fast": rule_test(sum(fast), len(fast), FAST_MOST, "greater"),
        "others": _against_others(rater, ratings),
    }


def _against_others(rater: str, ratings: Sequence[Rating]) -> RuleTest:
    """Fewer agreements than the others have among themselves; p is 1 where two alone could not say who is careless,
    and where agreement is shown to be above chance.
    """
    from evalkit.stats import less_than_others, rule_test

    raters = {one.rater for one in ratings}
    own = _with_others(rater, ratings)
    agrees = sum(mine == theirs for mine, theirs in own)
    rest = [one for one in ratings if one.rater != rater]
    others = [
        mine == theirs for one in raters - {rater} for mine, theirs in _with_others(one, rest)
    ]
    test = less_than_others(agrees, len(own), sum(others), len(others))
    above_chance = rule_test(agrees, len(own), _by_chance(own), "greater").p_value < 0.05
    enough = len(raters) > 2 and not above_chance
    return test if enough else replace(test, p_value=1.0, p_least=test.p_least if own else 1.0)


def _by_chance(own: Sequence[tuple[str, str]]) -> float:
    """Agreement of two who choose these labels as often, without looking."""
    if not own:
        return 0.0
    mine, theirs = (Counter(labels) for labels in zip(*own, strict=True))
    return sum(mine[label] * theirs[label] for label in mine) / len(own) ** 2


def _check(
    rater: str, ratings: Sequence[Rating], tests: dict[str, RuleTest], level: float
) -> RaterCheck:
    own = [one for one in ratings if one.rater == rater]
    seconds = sorted(one.seconds for one in own)
    return RaterCheck(
        rater=rater,
        votes=len(own),
        gold_rate=tests["gold"].rate,
        self_agreement=tests["repeats"].rate,
        left_rate=tests["left"].rate,
        left_p=tests["left"].p_value if tests["left"].n else None,
        fast_rate=tests["fast"].rate,
        others_rate=tests["others"].rate,
        median_s=seconds[len(seconds) // 2] if seconds else None,
        flags=tuple(
            _flag(name, one) for name, one in tests.items() if one.p_value <= level and one.n
        ),
    )


def _flag(name: str, test: RuleTest) -> str:
    counted = wording.share(test.successes, test.n)
    rate = wording.percent(test.rate, 0)
    told = {
        "gold": f"finds {counted} of the known winners",
        "repeats": f"judges the same again on {counted} repeats",
        "left": f"chooses left in {rate} of decided votes",
        "fast": f"votes in under {FAST_S:g} s {rate} of the time",
        "others": f"agrees with the others on {counted}, no more than by chance",
    }
    return f"{told[name]} (p {wording.p_phrase(test.p_value)})"


def _with_others(rater: str, ratings: Sequence[Rating]) -> list[tuple[str, str]]:
    """This rater's label and the other raters' majority label, on each item where they have one."""
    both = []
    for votes in by_item(ratings).values():
        own = [one.label for one in votes if one.rater == rater]
        ranked = Counter(one.label for one in votes if one.rater != rater).most_common(2)
        if own and ranked and (len(ranked) == 1 or ranked[0][1] > ranked[1][1]):
            both.append((own[0], ranked[0][0]))
    return both
