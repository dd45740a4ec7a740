"""A blind batch: which pairs people see, on which side; what decodes it goes into a sealed key."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from evalkit import wording
from evalkit.conversation import conversation_text, without_instructions
from evalkit.errors import DesignError
from evalkit.human import draw
from evalkit.human.blind import NOTHING, Batch, Key, Pair, Side
from evalkit.records import EvalResult
from evalkit.study import checked_name

QUESTION = "Which answer is better?"
REASONS = (
    "tone",
    "helpfulness",
    "factual correctness in context",
    "addresses the user's intent",
    "hallucination",
)


def prepare_human_eval_batch(
    base_results: Sequence[EvalResult],
    ft_results: Sequence[EvalResult],
    sample_size: int = 50,
    *,
    seed: int | None = None,
    raters: Sequence[str] = ("rater1",),
    stratify_by: str | None = None,
    repeat_share: float = 0.1,
    gold: Sequence[Mapping[str, str]] = (),
    question: str = QUESTION,
    rubric: str = "",
    reasons: Sequence[str] = REASONS,
    study: str = "",
    round: str = "",  # noqa: A002 - the word people use for it
    models: Mapping[str, str] = NOTHING,
    bound_to: Mapping[str, str] = NOTHING,
    simulated: bool = False,
    folder: str | Path | None = None,
) -> Batch:
    """Draws a blind batch: a seeded sample of examples on which the two models' answers differ.

    Args:
        base_results: The base model's answers; sample 0 of each example is used.
        ft_results: The fine-tuned model's, paired by `example_id`.
        sample_size: Pairs to show; all that differ when there are fewer.
        seed: Decides everything drawn; None draws one. It stands in the key, never in the batch.
        raters: Their codes; nobody else can vote.
        stratify_by: A slice to draw from in proportion.
        repeat_share: Share of the pairs shown once more with sides swapped, 0 to 0.5.
        gold: Pairs with a known winner: mappings with `id`, `input`, `better`, `worse`.
        question: What raters are asked.
        rubric: The study's own guidance, plain text.
        reasons: Tags a rater may add to a vote.
        study: Name, kept in the batch.
        round: Name, kept in the batch.
        models: Names, `{"base": ..., "fine_tuned": ...}`; kept in the key.
        bound_to: Hashes `test_set`, `base`, `fine_tuned`; those of the answers are computed from the results when not given.
        simulated: True when the raters are simulated.
        folder: Where to save the batch and its key at once.

    Raises:
        DataError: Nothing matches, or the same id carries different inputs.
        DesignError: An impossible size, share or rater's code.
    """
    _check(sample_size, repeat_share, raters)
    seed = secrets.randbits(128) if seed is None else seed
    shown, sealed = _stream(seed, "shown"), _stream(seed, "sealed")
    matched, left_out = draw.matched(base_results, ft_results)
    asked, identical = draw.sample(matched, sample_size, shown, stratify_by)
    pairs, sides = _blinded(asked, shown, sealed)
    repeats, repeat_of = _repeats(pairs, shown, repeat_share)
    gold_pairs, better = _gold_pairs(gold, shown, sealed)
    sides |= {again: draw.other(sides[first]) for again, first in repeat_of.items()}
    seen = [pair.item_id for pair in (*pairs, *gold_pairs)]
    orders = {rater: draw.order(seen, repeat_of, shown) for rater in raters}
    items = [pair.item_id for pair in pairs]
    swapped = {rater: draw.swaps(items, sides, repeat_of, list(better), sealed) for rater in raters}
    bound = dict(bound_to) or draw.bound_to(base_results, ft_results)
    key = Key(
        seed=seed,
        fine_tuned_side=sides,
        repeats=repeat_of,
        gold=better,
        models=dict(models),
        bound_to=bound,
    )
    batch = Batch(
        items=pairs,
        repeats=repeats,
        gold=gold_pairs,
        identical=identical,
        left_out=left_out,
        raters=tuple(raters),
        orders=orders,
        swapped=swapped,
        question=wording.whole(question),
        rubric=wording.whole(rubric),
        reasons=tuple(wording.whole([*reasons])),
        study=study,
        round=round,
        simulated=simulated,
        created_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        bound_to={"test_set": bound.get("test_set", ""), "answers": answers_seal(bound)},
        key_sha256=hashlib.sha256(key.to_bytes()).hexdigest(),
        key=key,
    )
    if folder is not None:
        batch.save(folder)
    return batch


def answers_seal(bound_to: Mapping[str, str]) -> str:
    """One hash over both models' answers that does not say which is which."""
    return _seal(bound_to.get("base"), bound_to.get("fine_tuned"))


def _seal(base: str | None, fine_tuned: str | None) -> str:
    return hashlib.sha256(f"{base} {fine_tuned}".encode()).hexdigest()


def made_from(batch: Batch, bound_to: Mapping[str, str]) -> bool:
    """Whether a batch was drawn from the answers of these hashes, and from this test set as far as both name one.

    A batch made from results alone names no test set. Rounds of earlier versions are bound to all that the journals held.
    """
    earlier = _seal(bound_to.get("base_journal"), bound_to.get("fine_tuned_journal"))
    made_of, asked = batch.bound_to.get("test_set"), bound_to.get("test_set")
    return batch.bound_to.get("answers") in {answers_seal(bound_to), earlier} and (
        made_of == asked or not made_of or not asked
    )


def _stream(seed: int, what: str) -> Random:
    """A generator whose draws tell nothing of another's: a few hundred item ids give away the state that drew them."""
    return Random(hashlib.sha256(f"evalkit rating {what} {seed}".encode()).hexdigest())


def _check(sample_size: int, repeat_share: float, raters: Sequence[str]) -> None:
    if isinstance(raters, str):
        raise DesignError(f"raters {raters!r}: give a list of codes, not one text")
    if sample_size < 1 or sample_size % 1:
        raise DesignError(f"sample_size {sample_size}: give a whole number of pairs, at least 1")
    if not 0 <= repeat_share <= 0.5:
        raise DesignError(f"repeat_share {repeat_share}: give a share from 0 to 0.5")
    if not raters or len(set(raters)) < len(raters):
        raise DesignError(
            f"raters {', '.join(raters) or '(none)'}: name at least one code, each once"
        )
    for rater in raters:
        checked_name(rater, what="rater")


def _blinded(
    asked: Sequence[draw.Matched], shown: Random, sealed: Random
) -> tuple[tuple[Pair, ...], dict[str, Side]]:
    ids = _item_ids(len(asked), shown)
    sides = dict(zip(ids, draw.balanced(len(asked), sealed), strict=True))
    pairs = (
        _pair(item_id, *one, side=sides[item_id]) for item_id, one in zip(ids, asked, strict=True)
    )
    return tuple(pairs), sides


def _pair(item_id: str, base: EvalResult, fine_tuned: EvalResult, *, side: Side) -> Pair:
    a, b = (
        (fine_tuned.predicted, base.predicted)
        if side == "a"
        else (base.predicted, fine_tuned.predicted)
    )
    messages = _both_got(base, fine_tuned)
    return Pair(
        item_id=item_id,
        example_id=str(base.example_id),
        input=conversation_text(messages or base.prompt),
        response_a=a,
        response_b=b,
        slices=dict(base.slices),
        messages=messages,
    )


def _both_got(base: EvalResult, fine_tuned: EvalResult) -> list[dict[str, Any]]:
    """The conversation both models were given; system prompts that differ would tell who answered, and are left out."""
    known = base.messages or fine_tuned.messages
    differ = bool(base.messages and fine_tuned.messages) and base.messages != fine_tuned.messages
    return [dict(message) for message in (without_instructions(known) if differ else known)]


def _repeats(
    pairs: Sequence[Pair], rng: Random, share: float
) -> tuple[tuple[Pair, ...], dict[str, str]]:
    again = rng.sample(list(pairs), round(share * len(pairs)))
    ids = _item_ids(len(again), rng)
    made = tuple(
        Pair(
            **{
                **pair,
                "item_id": item_id,
                "response_a": pair.response_b,
                "response_b": pair.response_a,
            }
        )
        for item_id, pair in zip(ids, again, strict=True)
    )
    return made, {item_id: pair.item_id for item_id, pair in zip(ids, again, strict=True)}


def _gold_pairs(
    gold: Sequence[Mapping[str, str]], shown: Random, sealed: Random
) -> tuple[tuple[Pair, ...], dict[str, Side]]:
    ids, sides = _item_ids(len(gold), shown), draw.balanced(len(gold), sealed)
    made = []
    for item_id, one, side in zip(ids, gold, sides, strict=True):
        a, b = (one["better"], one["worse"]) if side == "a" else (one["worse"], one["better"])
        made.append(
            Pair(
                item_id=item_id,
                example_id=one["id"],
                input=one["input"],
                response_a=a,
                response_b=b,
            )
        )
    return tuple(made), dict(zip(ids, sides, strict=True))


def _item_ids(n: int, rng: Random) -> list[str]:
    return [f"{rng.getrandbits(48):012x}" for _ in range(n)]
