"""Votes un-blinded: what each rater said about which model, once the round is locked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from evalkit.human.blind import Batch, Key, Pair, Side
from evalkit.human.rounds import Round
from evalkit.human.votes import Vote
from evalkit.records import Brief, RatedPair

Label = Literal["fine_tuned", "base", "tie", "both_bad"]
LABELS: tuple[Label, ...] = ("fine_tuned", "base", "tie", "both_bad")
_SCORES: Mapping[Label, int] = {"fine_tuned": 1, "base": -1, "tie": 0, "both_bad": 0}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Rating(Brief):
    """One vote, un-blinded.

    Attributes:
        kind: asked, repeat (shown before with the sides swapped) or gold (the winner is known).
        item_id: For a repeat, the item it repeats.
        label: Who won; of a gold pair, "fine_tuned" stands for the better answer.
        fine_tuned_left: Whether the fine-tuned (or better) answer stood on the left.
        longer: Characters by which the fine-tuned (or better) answer is longer than the other.
        at: UTC time of the vote, ISO 8601.
    """

    rater: str
    kind: Literal["asked", "repeat", "gold"]
    item_id: str
    example_id: str
    label: Label
    choice: str
    fine_tuned_left: bool
    seconds: float
    reasons: tuple[str, ...]
    note: str
    slices: Mapping[str, str]
    simulated: bool
    longer: int = 0
    at: str = ""

    @property
    def score(self) -> int:
        """1 for the fine-tuned model, -1 for the base model, 0 for a tie or both bad."""
        return _SCORES[self.label]


def unblind(round_: Round) -> tuple[Rating, ...]:
    """All votes of a locked round, decoded.

    Raises:
        DesignError: The round is still open.
        DataError: A file changed after the lock.
    """
    key = round_.key()
    return tuple(
        _decoded(rater, vote, round_.batch, key)
        for rater in round_.batch.raters
        for vote in round_.standing(rater)
    )


def by_item(ratings: Iterable[Rating]) -> dict[str, list[Rating]]:
    """The first-time votes of each item."""
    items: dict[str, list[Rating]] = {}
    for one in ratings:
        if one.kind == "asked":
            items.setdefault(one.item_id, []).append(one)
    return items


def rated_pairs(round_: Round) -> tuple[RatedPair, ...]:
    """Every rated pair of a locked round with both answers, for other tools.

    Raises:
        DesignError: The round is still open.
        DataError: A file changed after the lock.
    """
    sides, pairs = round_.key().fine_tuned_side, round_.batch.pairs
    return tuple(
        _with_answers(pairs[item_id], sides[item_id], votes)
        for item_id, votes in by_item(unblind(round_)).items()
    )


def _with_answers(pair: Pair, side: Side, votes: list[Rating]) -> RatedPair:
    answers = (pair.response_a, pair.response_b)
    names = ("rater", "label", "reasons", "note", "fine_tuned_left")
    return RatedPair(
        example_id=pair.example_id,
        input=pair.input,
        base=answers[side == "a"],
        fine_tuned=answers[side == "b"],
        votes=tuple({name: getattr(vote, name) for name in names} for vote in votes),
        slices=pair.slices,
        simulated=any(vote.simulated for vote in votes),
        messages=pair.messages,
    )


def _decoded(rater: str, vote: Vote, batch: Batch, key: Key) -> Rating:
    pair = batch.pairs[vote.item_id]
    better_side = key.gold.get(vote.item_id) or key.fine_tuned_side[vote.item_id]
    left = vote.left == better_side
    won: Label = "fine_tuned" if (vote.choice == "left") == left else "base"
    a_longer = len(pair.response_a) - len(pair.response_b)
    return Rating(
        rater=rater,
        kind="gold"
        if vote.item_id in key.gold
        else "repeat"
        if vote.item_id in key.repeats
        else "asked",
        item_id=key.repeats.get(vote.item_id, vote.item_id),
        example_id=pair.example_id,
        slices=pair.slices,
        label=vote.choice if vote.choice in {"tie", "both_bad"} else won,  # pyright: ignore[reportArgumentType]
        choice=vote.choice,
        fine_tuned_left=left,
        seconds=vote.seconds,
        reasons=vote.reasons,
        note=vote.note,
        simulated=vote.simulated,
        longer=a_longer if better_side == "a" else -a_longer,
        at=vote.at,
    )
