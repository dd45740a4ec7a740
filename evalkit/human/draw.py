"""What chance decides in a batch: which examples, which side, which order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from random import Random

from evalkit.conversation import without_instructions
from evalkit.errors import DataError, DesignError
from evalkit.human.blind import Side
from evalkit.records import EvalResult, answers_hash

Matched = tuple[EvalResult, EvalResult]
_GAP = 10  # pairs between an item and its repeat, where the round is long enough


def matched(
    base: Sequence[EvalResult], fine_tuned: Sequence[EvalResult]
) -> tuple[list[Matched], dict[str, int]]:
    """Pairs the first samples by example id; a call that failed has no answer to show and is left out.

    Raises:
        DataError: No id matches, or the same id carries different inputs.
    """
    first, second = _first_samples(base), _first_samples(fine_tuned)
    both = [(first[who], second[who]) for who in first if who in second]
    if not both:
        raise DataError(
            "no example id stands in both sets of results; were they made from the same test set?"
        )
    for one, other_one in both:
        if one.input_text != other_one.input_text or _said_differently(one, other_one):
            raise DataError(
                f"example {one.example_id}: the two models got different inputs; use the same test set"
            )
    shown = [pair for pair in both if "error" not in {pair[0].outcome, pair[1].outcome}]
    return shown, {
        "no answer": len(both) - len(shown),
        "unmatched": len(first) + len(second) - 2 * len(both),
    }


def _said_differently(one: EvalResult, other_one: EvalResult) -> bool:
    """Whether the conversations differ in more than the system prompt, as far as both are known."""
    return bool(one.messages and other_one.messages) and without_instructions(
        one.messages
    ) != without_instructions(other_one.messages)


def differing(base: Sequence[EvalResult], fine_tuned: Sequence[EvalResult]) -> int:
    """How many examples have two answers that differ, so that people could be shown them."""
    return sum(
        one.predicted != other_one.predicted for one, other_one in matched(base, fine_tuned)[0]
    )


def sample(
    pairs: Iterable[Matched], size: int, rng: Random, stratify_by: str | None
) -> tuple[list[Matched], tuple[str, ...]]:
    """Walks through the examples in random order until `size` pairs differ; identical answers met on the way are ties."""
    asked: list[Matched] = []
    identical: list[str] = []
    for one, other_one in _shuffled(list(pairs), rng, stratify_by):
        if len(asked) == size:
            break
        if one.predicted == other_one.predicted:
            identical.append(str(one.example_id))
        else:
            asked.append((one, other_one))
    return asked, tuple(identical)


def balanced(n: int, rng: Random) -> list[Side]:
    """`n` sides, each equally often (one more of either when n is odd), in random order."""
    both: tuple[Side, Side] = ("a", "b")
    sides: list[Side] = [*both * (n // 2), *rng.sample(both, n % 2)]
    rng.shuffle(sides)
    return sides


def other(side: Side) -> Side:
    """The other side."""
    return "b" if side == "a" else "a"


def order(item_ids: Sequence[str], repeat_of: Mapping[str, str], rng: Random) -> tuple[str, ...]:
    """A random order in which a repeat stands well after the item it repeats."""
    shown = rng.sample(list(item_ids), len(item_ids))
    for again, first in repeat_of.items():
        earliest = min(shown.index(first) + 1 + _GAP, len(shown))
        shown.insert(rng.randint(earliest, len(shown)), again)
    return tuple(shown)


def swaps(
    item_ids: Sequence[str],
    sides: Mapping[str, Side],
    repeat_of: Mapping[str, str],
    gold: Sequence[str],
    rng: Random,
) -> tuple[str, ...]:
    """The items one rater sees with `response_b` on the left.

    The fine-tuned answer stands on the left equally often (+-1) among the items, and among all shown: the items that
    are repeated are balanced among themselves, so their repeats, which show the other side, are too.
    """
    again = [one for one in item_ids if one in set(repeat_of.values())]
    once = [one for one in item_ids if one not in set(repeat_of.values())]
    lefts_again, lefts_once = balanced(len(again), rng), balanced(len(once), rng)
    if len(again) % 2 and len(once) % 2 and _lean(lefts_again) == _lean(lefts_once):
        lefts_once = [other(side) for side in lefts_once]
    wanted = dict(
        zip([*again, *once], [*lefts_again, *lefts_once], strict=True)
    )  # a: the fine-tuned answer stands left
    turned = {one for one in item_ids if (sides[one] == "a") != (wanted[one] == "a")}
    turned |= {repeat for repeat, first in repeat_of.items() if first in turned}
    turned |= {one for one, side in zip(gold, balanced(len(gold), rng), strict=True) if side == "b"}
    return tuple(one for one in (*item_ids, *repeat_of, *gold) if one in turned)


def bound_to(base: Iterable[EvalResult], fine_tuned: Iterable[EvalResult]) -> dict[str, str]:
    """Hashes of both models' answers, from the results alone: which file of tests they came from is not known."""
    return {"base": answers_hash(base), "fine_tuned": answers_hash(fine_tuned)}


def _first_samples(results: Iterable[EvalResult]) -> dict[str, EvalResult]:
    first: dict[str, EvalResult] = {}
    for one in sorted(results, key=lambda one: one.sample):
        first.setdefault(str(one.example_id), one)
    return first


def _shuffled(pairs: list[Matched], rng: Random, stratify_by: str | None) -> list[Matched]:
    known = {name: None for pair in pairs for name in pair[0].slices}
    if stratify_by is not None and stratify_by not in known and pairs:
        raise DesignError(
            f"no example carries a slice {stratify_by!r} to stratify by; known are {', '.join(known) or 'none'}"
        )
    strata: dict[str, list[Matched]] = defaultdict(list)
    for pair in pairs:
        strata["" if stratify_by is None else str(pair[0].slices.get(stratify_by, ""))].append(pair)
    placed = []
    for name in sorted(strata):
        stratum = rng.sample(strata[name], len(strata[name]))
        # evenly spread places: any first part of the whole holds each stratum in proportion
        placed += [((i + rng.random()) / len(stratum), pair) for i, pair in enumerate(stratum)]
    return [pair for _, pair in sorted(placed, key=lambda one: one[0])]


def _lean(sides: Sequence[Side]) -> bool:
    return sides.count("a") > sides.count("b")
