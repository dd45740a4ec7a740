"""Votes un-blinded: what each rater said about which model once the round is locked, and which raters look careless."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from msgspec import structs

from evalkit import stats
from evalkit.human.batch import Key, Pair
from evalkit.human.round import CHOICES, Round, Vote
from evalkit.records import RatedPair

Label = Literal["fine_tuned", "base", "tie", "both_bad"]
Check = Literal["gold", "repeats", "left", "fast", "others"]
LABELS: tuple[Label, ...] = ("fine_tuned", "base", "tie", "both_bad")
FAST_S = 3.0
# What somebody who looks at the pairs keeps to. A flag needs a count that would surprise from one who just keeps it.
GOLD_LEAST, REPEATS_LEAST, FAST_MOST = 0.7, 0.5, 0.3

Columns = Mapping[str, str | tuple[str, ...]]
_VOTE: Columns = {
    "rater": "category",
    "item_id": "string",
    "example_id": "string",
    "shown_as": ("asked", "repeat", "gold"),
    "label": LABELS,
    "score": "Int8",
    "choice": CHOICES,
    "side": ("left", "right"),
    "longer": "Int64",
    "seconds": "Float64",
    "reasons": "string",
    "note": "string",
    "at": "datetime64[us, UTC]",
    "simulated": "boolean",
}
_PAIR = ("item_id", "example_id", "input", "response_a", "response_b")
PROGRESS: Columns = {
    "rater": "string",
    "done": "Int64",
    "total": "Int64",
    "last_at": "datetime64[us, UTC]",
}


NO_VOTES = pd.DataFrame(columns=[*_VOTE, "slices"])


def unblind(round_: Round) -> pd.DataFrame:
    """All votes of a locked round, decoded, a row each; `votes_frame` says the columns.

    Here `reasons` are a tuple and `slices` a mapping; of a gold pair, "fine_tuned" stands for the better answer.

    Raises:
        DesignError: The round is still open.
        DataError: A file changed after the lock.
    """
    key, pairs = round_.key(), round_.batch.pairs
    rows = [
        {"rater": rater, **_decoded(vote, pairs[vote.item_id], key)}
        for rater in round_.batch.raters
        for vote in round_.standing(rater)
    ]
    return pd.DataFrame(rows, columns=NO_VOTES.columns)


def _decoded(vote: Vote, pair: Pair, key: Key) -> dict[str, object]:
    better_side = key.gold.get(vote.item_id) or key.fine_tuned_side[vote.item_id]
    side = "left" if vote.left == better_side else "right"
    won: dict[str, Label] = {side: "fine_tuned", "tie": "tie", "both_bad": "both_bad"}
    label = won.get(vote.choice, "base")
    a_longer = len(pair.response_a) - len(pair.response_b)
    shown_as = "repeat" if vote.item_id in key.repeats else "asked"
    return {
        **structs.asdict(vote),
        "item_id": key.repeats.get(vote.item_id, vote.item_id),
        "example_id": pair.example_id,
        "shown_as": "gold" if vote.item_id in key.gold else shown_as,
        "label": label,
        "score": {"fine_tuned": 1, "base": -1}.get(label, 0),
        "side": side,
        "longer": a_longer if better_side == "a" else -a_longer,
        "slices": pair.slices,
    }


def first_votes(votes: pd.DataFrame) -> pd.DataFrame:
    """Those on pairs shown for the first time, which alone make the result."""
    return votes.loc[votes["shown_as"] == "asked"]


def same_again(votes: pd.DataFrame) -> list[bool]:
    """For each repeat, whether it got the label of the same rater's first vote on that item."""
    what, of = ["rater", "item_id", "label"], votes["shown_as"] == "repeat"
    both = votes.loc[of, what].merge(first_votes(votes)[what], on=["rater", "item_id"])
    return [one == other for one, other in zip(both["label_x"], both["label_y"], strict=True)]


def rated_pairs(round_: Round) -> tuple[RatedPair, ...]:
    """Every rated pair of a locked round with both answers, for other tools.

    Raises:
        DesignError: The round is still open.
        DataError: A file changed after the lock.
    """
    sides, pairs = round_.key().fine_tuned_side, round_.batch.pairs
    made = []
    for item_id, votes in first_votes(unblind(round_)).groupby("item_id", sort=False):
        pair = pairs[str(item_id)]
        answers = (pair.response_a, pair.response_b)
        told = votes.assign(fine_tuned_left=votes["side"] == "left")
        told = told.filter(["rater", "label", "reasons", "note", "fine_tuned_left"])
        rated = RatedPair(
            example_id=pair.example_id,
            input=pair.input,
            base=answers[sides[pair.item_id] == "a"],
            fine_tuned=answers[sides[pair.item_id] == "b"],
            votes=tuple(told.to_dict("records")),
            slices=pair.slices,
            simulated=bool(votes["simulated"].any()),
            messages=pair.messages,
        )
        made.append(rated)
    return tuple(made)


# ---- careless raters: flagged with the figure that shows it, never dropped in silence


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterCheck:
    """What one rater's votes look like; shares are fractions, None where there is nothing to judge by.

    Attributes:
        gold_rate: Known winners found.
        self_agreement: Same judgement on a hidden repeat.
        left_rate: Left chosen, of all decided votes; `left_p` is its exact test against a half.
        fast_rate: Votes given in under 3 seconds.
        others_rate: Agreement with the majority of the other raters.
        flags: The checks by which this rater looks careless; empty when nothing stands out.
        tests: What each check counted, and its p.
    """

    rater: str
    votes: int
    gold_rate: float | None
    self_agreement: float | None
    left_rate: float | None
    left_p: float | None
    fast_rate: float | None
    others_rate: float | None
    median_s: float
    flags: tuple[Check, ...]
    tests: Mapping[Check, stats.RuleTest]


def check_raters(votes: pd.DataFrame, *, alpha: float = 0.05) -> tuple[RaterCheck, ...]:
    """One check a rater, in order of their codes.

    Each flag is an exact one-sided test against its rule, at a level at which a round of careful raters has a flag in at
    most `alpha` of rounds: the page names a person.
    """
    labels = _labels(votes)
    by_rater = list(votes.groupby("rater"))
    tested = [_tests(own, labels, place) for place, (_, own) in enumerate(by_rater)]
    level = stats.tarone_level([one for tests in tested for one in tests.values()], alpha=alpha)
    return tuple(
        RaterCheck(
            rater=str(rater),
            votes=len(own),
            gold_rate=tests["gold"].rate,
            self_agreement=tests["repeats"].rate,
            left_rate=tests["left"].rate,
            left_p=tests["left"].p_value if tests["left"].n else None,
            fast_rate=tests["fast"].rate,
            others_rate=tests["others"].rate,
            median_s=sorted(own["seconds"])[len(own) // 2],
            flags=tuple(name for name, one in tests.items() if one.n and one.p_value <= level),
            tests=tests,
        )
        for (rater, own), tests in zip(by_rater, tested, strict=True)
    )


def _tests(own: pd.DataFrame, labels: np.ndarray, place: int) -> dict[Check, stats.RuleTest]:
    gold = own.loc[own["shown_as"] == "gold", "label"] == "fine_tuned"
    left = own.loc[own["choice"].isin(["left", "right"]), "choice"] == "left"
    return {
        "gold": _ruled(gold, GOLD_LEAST),
        "repeats": _ruled(same_again(own), REPEATS_LEAST),
        "left": _ruled(left, 0.5, "two-sided"),
        "fast": _ruled(own["seconds"] < FAST_S, FAST_MOST, "greater"),
        "others": _against_others(labels, place),
    }


def _ruled(
    kept: Iterable[bool], rule: float, side: Literal["less", "greater", "two-sided"] = "less"
) -> stats.RuleTest:
    marks = [*kept]
    return stats.rule_test(sum(marks), len(marks), rule, side)


def _against_others(labels: np.ndarray, place: int) -> stats.RuleTest:
    """Fewer agreements than the others have among themselves; p is 1 where two alone could not say who is careless,
    and where agreement is shown to be above chance.
    """
    mine, theirs = _with_others(labels, place)
    agrees, rest = mine == theirs, np.delete(labels, place, axis=0)
    pairs = [_with_others(rest, one) for one in range(len(rest))]
    others = np.concatenate([one == other for one, other in pairs] or [agrees[:0]])
    test = stats.less_than_others(int(agrees.sum()), len(agrees), int(others.sum()), len(others))
    # agreement of two who choose these labels as often, without looking
    chosen = [np.bincount(one, minlength=len(LABELS)) for one in (mine, theirs)]
    by_chance = float(chosen[0] @ chosen[1]) / len(mine) ** 2 if len(mine) else 0.0
    above_chance = _ruled(agrees, by_chance, "greater").p_value < 0.05
    if len(labels) > 2 and not above_chance:
        return test
    return replace(test, p_value=1.0, p_least=test.p_least if len(mine) else 1.0)


def _labels(votes: pd.DataFrame) -> np.ndarray:
    """Raters x items x labels: 1 where a rater gave an item that label at first sight."""
    asked = first_votes(votes)
    raters = pd.Index(sorted(votes["rater"].unique()))
    items = pd.Index(asked["item_id"].unique())
    found = np.zeros((len(raters), len(items), len(LABELS)), dtype=int)
    places = (raters.get_indexer([*asked["rater"]]), items.get_indexer([*asked["item_id"]]))
    found[(*places, pd.Index(LABELS).get_indexer([*asked["label"]]))] = 1
    return found


def _with_others(labels: np.ndarray, place: int) -> tuple[np.ndarray, np.ndarray]:
    """This rater's label and the one most of the other raters gave, on each item where one leads."""
    others = np.delete(labels, place, axis=0).sum(axis=0)
    leads = (others == others.max(axis=1, keepdims=True)).sum(axis=1) == 1
    both = leads & labels[place].any(axis=1)
    return labels[place][both].argmax(axis=1), others[both].argmax(axis=1)


# ---- tidy frames, documented columns, none that is a whole object


def votes_frame(votes: pd.DataFrame) -> pd.DataFrame:
    """One row a vote, un-blinded.

    Returns:
        rater (category); item_id, of a repeat that of the item it repeats; example_id; shown_as (asked, repeat or gold:
        only asked ones enter the result); label (fine_tuned, base, tie, both_bad); score (1, -1, 0, 0); choice (left,
        right, tie, both_bad); side (where the fine-tuned answer stood); longer (characters by which it is longer);
        seconds; reasons (joined by "; "); note; at (UTC); simulated. Then a category for each slice field under its own
        name, `slice_<field>` when a column above has that name.
    """
    joined = votes.assign(reasons=votes["reasons"].map("; ".join))
    return _with_slices(typed(joined, _VOTE), votes["slices"])


def pairs_frame(items: Sequence[Pair]) -> pd.DataFrame:
    """One row a pair as raters see it, blind: item_id, example_id, input, response_a, response_b; then the slice fields."""
    frame = typed(items, dict.fromkeys(_PAIR, "string"))
    return _with_slices(frame, [one.slices for one in items])


def typed(rows: pd.DataFrame | Sequence[object], columns: Columns) -> pd.DataFrame:
    """These columns of the rows, in this order, each of its type; a tuple stands for the categories."""
    frame = pd.DataFrame(rows).reindex(columns=list(columns))
    for name, kind in columns.items():
        if isinstance(kind, tuple):
            frame[name] = pd.Categorical(frame[name], kind)
        elif kind.startswith("datetime"):
            known = frame[name].astype("string").replace("", None)
            times = pd.to_datetime(known, utc=True, format="ISO8601")
            frame[name] = times.astype("datetime64[us, UTC]")
        else:
            frame[name] = frame[name].astype(kind)  # pyright: ignore[reportArgumentType]
    return frame


def _with_slices(frame: pd.DataFrame, slices: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    own, slices = set(frame.columns), list(slices)
    for name in sorted({name for one in slices for name in one}):
        values = [one.get(name) for one in slices]
        kinds = sorted({one for one in values if one is not None})
        frame[f"slice_{name}" if name in own else name] = pd.Categorical(values, kinds)
    return frame
