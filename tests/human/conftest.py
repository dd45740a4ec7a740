"""Small sets of results and rounds, made afresh for each test."""

import itertools

import pytest

from evalkit.human.batch import prepare_human_eval_batch
from evalkit.human.rater import Session
from evalkit.human.round import Round
from evalkit.records import EvalResult


@pytest.fixture
def results():
    def make(
        n=40,
        *,
        who="base",
        same=(),
        outcome="ok",
        slices=lambda i: {"kind": "odd" if i % 2 else "even"},
    ):
        return [
            EvalResult(
                i,
                f"note {i}",
                f"tuned answer {i}",
                "the same answer" if i in same else f"{who} answer {i}",
                who == "tuned",
                True,
                slices=slices(i),
                scores={"similarity": 1.0 if who == "tuned" else 0.5},
                outcome=outcome,
            )
            for i in range(n)
        ]

    return make


@pytest.fixture
def new_round(tmp_path, results):
    count = itertools.count()

    def make(n=40, size=20, *, same=(), **options):
        folder = tmp_path / f"round{next(count)}"
        base, tuned = results(n, same=same), results(n, who="tuned", same=same)
        prepare_human_eval_batch(
            base, tuned, size, seed=options.pop("seed", 7), folder=folder, **options
        )
        return Round.open(folder)

    return make


@pytest.fixture
def rate():
    """Lets a rater finish a round: `judge(item)` sees what the page shows and returns a choice."""

    def work(round_, rater, judge, seconds=9.0, **more):
        session = Session(round_, rater)
        while session.current:
            item = session.view()["item"]
            session.vote(item["id"], judge(item), seconds=seconds, **more)
        return session

    return work


@pytest.fixture
def likes():
    """A judge that prefers the answer that holds a word; a tie when both or neither do."""

    def judge_for(word):
        def judge(item):
            left, right = word in item["left"], word in item["right"]
            return "tie" if left == right else "left" if left else "right"

        return judge

    return judge_for
