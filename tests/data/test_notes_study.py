"""The second study: long JSON answers, several turns, no ids, clusters."""

import json

import pytest

from evalkit import run_automated_eval
from evalkit.answers import dataset, scoring
from evalkit.answers.runner import results_from_journal
from evalkit.benchmark.comparison import compare_models


@pytest.fixture
def results(data, parameters):
    """A model's scored answers, as the study's own parameters say."""
    study, folder = parameters("notes"), data / "notes"

    def read(role):
        return results_from_journal(
            folder / study[f"{role}_journal"],
            folder / study["test_file"],
            checker=scoring.checker(study["checker"], folder=folder),
            scorers=study["scorers"].split(","),
            slice_fields=study["slice_fields"].split(","),
            cluster_field=study["cluster_field"],
        )

    return read


def test_every_row_has_the_shape_the_study_is_there_for(rows, data):
    found = rows("notes", "test")
    check = scoring.checker("schema:note.schema.json", folder=data / "notes")
    assert len(found) == 32
    assert all("id" not in row for row in found)
    assert all(len(row["messages"][-1]["content"]) > 400 for row in found)
    assert all(check(row["messages"][-1]["content"]) for row in found)
    assert {sum(turn["role"] == "user" for turn in row["messages"]) for row in found} == {2, 3}


def test_a_rows_identity_is_its_content_and_its_cluster_its_patient(data):
    found = dataset.read_examples(data / "notes" / "test.jsonl", cluster_field="patient").examples
    assert len({one.example_id for one in found}) == 32
    assert len({one.cluster for one in found}) == 8


def test_the_whole_conversation_is_the_prompt(data):
    one = dataset.read_examples(data / "notes" / "test.jsonl", limit=3).examples[-1]
    assert [turn["role"] for turn in one.messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert all(json.loads(turn["content"]) for turn in one.messages if turn["role"] == "assistant")


def test_both_models_answered_and_the_comparison_is_clustered(results):
    base, tuned = results("base"), results("fine_tuned")
    assert len(base) == len(tuned) == 32
    compared = compare_models(base, tuned, primary_metric="similarity")
    assert compared.n == 32
    assert len({one.cluster for one in base}) == 8
    assert compared.clustered
    json.dumps(compared.primary.to_dict(), allow_nan=False)


def test_a_model_that_knows_the_notes_gets_everything_right(data):
    folder = data / "notes"
    known = {
        one.messages[-1]["content"]: one.expected
        for one in dataset.read_examples(folder / "test.jsonl").examples
    }
    check = scoring.checker("schema:note.schema.json", folder=folder)
    found = run_automated_eval(
        lambda turns: known[turns[-1]["content"]],
        folder / "test.jsonl",
        checker=check,
        progress=False,
    )
    assert all(one.exact_match and one.format_correct for one in found)
