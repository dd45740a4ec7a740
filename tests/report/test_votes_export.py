import json

import pytest

from evalkit.records import RatedPair
from evalkit.report.export import write_dpo, write_llm_comparator


def vote(label, **more):
    return {
        "rater": "ann",
        "label": label,
        "reasons": (),
        "note": "",
        "fine_tuned_left": True,
        **more,
    }


def pair(*labels, **more):
    votes = tuple(vote(label) for label in labels)
    return RatedPair(
        example_id="e1", input="2+2?", base="five", fine_tuned="four", votes=votes, **more
    )


def test_the_majoritys_answer_is_chosen_and_ties_are_left_out(tmp_path):
    path = tmp_path / "dpo.jsonl"
    pairs = [
        pair("fine_tuned", "fine_tuned", "base"),
        pair("base"),
        pair("tie", "both_bad"),
        pair("base", "fine_tuned"),
    ]
    assert write_dpo(pairs, str(path)) == 2
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first == {
        "prompt": [{"role": "user", "content": "2+2?"}],
        "chosen": [{"role": "assistant", "content": "four"}],
        "rejected": [{"role": "assistant", "content": "five"}],
    }
    assert second["chosen"][0]["content"] == "five"


def test_the_other_spelling_of_the_same_pair_and_the_label_of_simulated_ones(tmp_path):
    path = tmp_path / "dpo.jsonl"
    write_dpo([pair("fine_tuned", simulated=True)], str(path), style="openai")
    assert json.loads(path.read_text()) == {
        "input": {"messages": [{"role": "user", "content": "2+2?"}]},
        "preferred_output": [{"role": "assistant", "content": "four"}],
        "non_preferred_output": [{"role": "assistant", "content": "five"}],
        "simulated": True,
    }


def test_llm_comparator_gets_every_field_it_requires(tmp_path):
    path = tmp_path / "comparator.json"
    votes = (
        vote("fine_tuned", reasons=("tone",), note="nice"),
        vote("tie", fine_tuned_left=False),
        vote("fine_tuned"),
        vote("base"),
    )
    rated = RatedPair(
        example_id="e1",
        input="q",
        base="five",
        fine_tuned="four",
        votes=votes,
        slices={"kind": "sum"},
    )
    assert write_llm_comparator([rated], path, models={"base": "x", "fine_tuned": "y"}) == 1
    record = json.loads(path.read_text())
    assert [model["name"] for model in record["models"]] == ["y", "x"]  # A is the fine-tuned one
    example = record["examples"][0]
    assert example["score"] == pytest.approx(0.25)  # (1 + 0 + 1 - 1) / 4
    assert (example["output_text_a"], example["output_text_b"]) == ("four", "five")
    assert example["tags"] == ["sum"]
    assert example["individual_rater_scores"][0] == {
        "is_flipped": False,
        "score": 1.0,
        "rationale": "tone; nice",
    }
    assert example["individual_rater_scores"][1]["is_flipped"] is True


def test_a_locked_round_exports_the_right_texts(tmp_path):
    from evalkit.human.batch import prepare_human_eval_batch
    from evalkit.human.rater import Session
    from evalkit.human.ratings import rated_pairs
    from evalkit.human.round import Round
    from evalkit.records import EvalResult

    base, tuned = (
        [EvalResult(i, f"q{i}", "x", f"{who} {i}", False, True) for i in range(9)]
        for who in ("base", "tuned")
    )
    prepare_human_eval_batch(base, tuned, seed=1, folder=tmp_path / "r")
    session = Session(Round.open(tmp_path / "r"), "rater1")
    while session.current:
        item = session.view()["item"]
        session.vote(item["id"], "left" if "tuned" in item["left"] else "right", seconds=1)
    session.round.lock()
    write_dpo(rated_pairs(session.round), tmp_path / "dpo.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "dpo.jsonl").read_text().splitlines()]
    assert len(rows) == 9
    assert all(row["chosen"][0]["content"].startswith("tuned") for row in rows)


def test_a_preference_pair_has_the_conversation_that_was_answered(tmp_path):
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
    rated = RatedPair(
        example_id="a",
        input="system: Be brief.\n\nuser: 2+2?",
        base="5",
        fine_tuned="4",
        votes=({"label": "fine_tuned"},),
        messages=asked,
    )
    write_dpo([rated], tmp_path / "dpo.jsonl")
    assert json.loads((tmp_path / "dpo.jsonl").read_text())["prompt"] == asked
