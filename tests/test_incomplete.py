"""A quota that ends in the middle of the night: nothing is drawn from half the answers, and the report says what to do."""

import json
from pathlib import Path

import pytest
from faulty_server import FaultyServer

from evalkit.benchmark.benchmark import gaps
from evalkit.records import EvalResult, Example
from evalkit.report import chain
from evalkit.study import Study

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
N = 60
STUDY = """
study: tickets
live: true
endpoint: loopback
train_file: ""
prices_file: ""
checker: none
scorers: similarity
slice_fields: ""
chance_field: ""
max_tokens: 64
rubric_file: ""
raters: anna,ben
sample_size: 40
"""


def examples(n):
    return [
        Example(example_id=f"t{i}", messages=({"role": "user", "content": f"q {i}"},), expected="x")
        for i in range(n)
    ]


def result(i, *, outcome="ok", sample=0):
    return EvalResult(f"t{i}", f"q {i}", "x", "x", True, None, outcome=outcome, sample=sample)


def test_an_answer_that_failed_or_was_never_asked_is_missing_and_a_refusal_is_an_answer():
    base = [result(i, outcome="refused") for i in range(10)]
    tuned = [result(i, outcome="error" if i < 2 else "ok") for i in range(7)]
    found = gaps(examples(10), base, tuned)
    # 10 rows, two models: 20 answers; of the fine-tuned model 3 were never asked and 2 failed
    assert (found.n_calls, found.base, found.fine_tuned, found.n_failed, found.n) == (
        20,
        0,
        5,
        2,
        5,
    )
    assert str(found) == (
        "The comparison is not complete: 5 of 20 answers are missing "
        "(5 of the fine-tuned model; 2 calls of these failed)."
    )


def test_every_sample_of_every_row_is_asked_of_both_models():
    base = [result(i, sample=s) for i in range(4) for s in range(3)]
    tuned = base[:-1]
    assert gaps(examples(4), base, base).n == 0
    assert gaps(examples(4), base, tuned).n == 1
    assert gaps(examples(4), base[::3], base[::3], samples=3).n == 16  # one sample of three each


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "data/tickets"
    folder.mkdir(parents=True)
    (tmp_path / "notebooks").symlink_to(NOTEBOOKS)
    (folder / "study.yaml").write_text(STUDY)
    rows = [
        {
            "id": f"t{i}",
            "messages": [
                {"role": "user", "content": f"ticket {i}"},
                {"role": "assistant", "content": "R07.0"},
            ],
        }
        for i in range(N)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Study.open("tickets", root=tmp_path)


def night(home, behave, **parameters):
    with FaultyServer(behave) as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_BASE_URL", server.url)
        environment.setenv("OPENAI_API_KEY", "not-needed")
        run = chain.run_study(
            "tickets", root=home.root, only=["01", "03"], parameters=parameters, say=lambda _: None
        )
    return run, json.loads((run.folder / "03_rate.ipynb").read_text())


def shown(book):
    return json.dumps([cell.get("outputs") for cell in book["cells"]])


def other(hit):
    """The two models answer otherwise, so that there is something to rate."""
    return "length" if hit.body["model"] == "fine-tuned" else "ok"


@pytest.mark.slow
def test_no_round_is_drawn_while_a_quota_holds_back_answers_and_one_is_when_they_are_in(home):
    run, book = night(home, lambda hit: other(hit) if hit.number <= 95 else "429 quota")
    assert list(run.failed) == ["01_benchmark"]
    assert not (home.folder / "ratings").exists()
    assert "25 of 120 answers are missing (25 of the fine-tuned model" in shown(book)
    assert "allow_incomplete: true" in shown(book)

    run, book = night(home, other)
    assert run.failed == {}
    assert "The comparison is complete: 120 answers." in shown(book)
    batch = json.loads((home.folder / "ratings/round1/batch.json").read_text())
    assert len(batch["items"]) == 40


@pytest.mark.slow
def test_who_wants_a_round_from_what_there_is_says_so(home):
    run, book = night(
        home,
        lambda hit: other(hit) if hit.number <= 95 else "429 quota",
        allow_incomplete=True,
    )
    assert list(run.failed) == ["01_benchmark"]
    batch = json.loads((home.folder / "ratings/round1/batch.json").read_text())
    assert len(batch["items"]) == 35
    assert "25 of 120 answers are missing" in shown(book)


@pytest.mark.slow
def test_calls_that_failed_for_good_hold_a_round_back_too(home):
    run, book = night(home, lambda hit: "400 too long" if hit.number % 20 == 0 else other(hit))
    assert run.failed == {}
    assert not (home.folder / "ratings").exists()
    assert "6 of 120 answers are missing" in shown(book)
