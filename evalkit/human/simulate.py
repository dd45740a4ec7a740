"""Simulated raters for demos and tests: they work through the real session, and every vote says that it is simulated."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from evalkit.errors import DesignError
from evalkit.human.rounds import Round
from evalkit.human.session import Session
from evalkit.human.votes import Choice

NOISE = 0.08  # spread of a rater's impression of one answer, on a scale from 0 to 1
LEFT_LEAN = 0.02  # raters like what stands on the left a little better
JUST_NOTICED = 0.06
POOR = 0.35


def simulate_votes(round_: Round, expected: Mapping[str, str], *, seed: int = 0) -> None:
    """Lets simulated raters finish a round and locks it; done twice, it changes nothing.

    They like what is close to the expected answer, with noise.

    Args:
        round_: A round made with `simulated=True`.
        expected: Example id -> the expected answer.
        seed: Decides their noise.

    Raises:
        DesignError: The round is for real people.
    """
    if not round_.batch.simulated:
        raise DesignError(
            f"{round_.folder}: this round is for people; simulated votes would spoil it"
        )
    try:
        for rater in () if round_.locked else round_.batch.raters:
            _finish(Session(round_, rater), expected, Random(f"{seed} {rater}"))
        round_.lock()
    except DesignError:
        if not round_.locked:  # else another run has just finished it
            raise


def _finish(session: Session, expected: Mapping[str, str], rng: Random) -> None:
    pairs = session.round.batch.pairs
    while session.current:
        shown = session.view()["item"]
        aim = expected.get(pairs[session.current].example_id, "")
        left = _impression(shown["left"], aim, rng) + LEFT_LEAN
        choice = _choice(left, _impression(shown["right"], aim, rng))
        reasons = (
            rng.sample(session.round.batch.reasons, 1)
            if session.round.batch.reasons and rng.random() < 0.6
            else []
        )
        session.vote(
            session.current,
            choice,
            seconds=2 + rng.lognormvariate(2, 0.5),
            reasons=reasons,
            via="simulated",
        )


def _impression(answer: str, aim: str, rng: Random) -> float:
    from rapidfuzz.distance import Indel

    return Indel.normalized_similarity(answer, aim) + rng.gauss(0, NOISE)


def _choice(left: float, right: float) -> Choice:
    if abs(left - right) > JUST_NOTICED:
        return "left" if left > right else "right"
    return "both_bad" if max(left, right) < POOR else "tie"
