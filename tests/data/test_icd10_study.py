"""The demo study's data: what the README of data/icd10 claims of it."""

import re
from collections import Counter

import pytest

from evalkit.decision.rules import Rules
from evalkit.human.batch import read_rubric

CODE = re.compile(r"\b[A-Z]\d{2}\.\d{1,2}\b")


def shortlist(row):
    return row["messages"][1]["content"].split("Candidates:\n")[1].split("\n")


def categories(rows):
    """The categories of all candidates, right or wrong."""
    return {
        CODE.findall(line)[0 if row["metadata"]["style"] == "line" else -1][:3]
        for row in rows
        for line in shortlist(row)
    }


def test_500_held_out_notes_of_which_150_have_two_diagnoses_and_100_for_validation(rows):
    assert Counter(row["metadata"]["kind"] for row in rows("icd10", "test")) == {
        "one diagnosis": 350,
        "two diagnoses": 150,
    }
    assert len(rows("icd10", "val")) == 100


def test_training_saw_notes_with_one_diagnosis_only(rows):
    assert {len(row["messages"][-1]["content"].split("\n")) for row in rows("icd10", "train")} == {
        1
    }


def test_no_category_of_any_candidate_stands_in_two_splits(rows):
    test, val, train = (categories(rows("icd10", split)) for split in ("test", "val", "train"))
    assert not test & train
    assert not test & val
    assert not val & train
    assert len(test) > 150


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_answer_is_the_right_lines_of_the_shortlist_in_its_order(rows, split):
    for row in rows("icd10", split):
        codes = [
            CODE.findall(line)[0 if row["metadata"]["style"] == "line" else -1]
            for line in shortlist(row)
        ]
        answer = [line.split(":")[0] for line in row["messages"][-1]["content"].split("\n")]
        assert answer == [code for code in codes if code in answer]
        assert len(answer) == (1 if row["metadata"]["kind"] == "one diagnosis" else 2)
        assert len(set(codes)) == len(codes) == row["metadata"]["n_candidates"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_chance_is_that_of_one_candidate_picked_at_random(rows, split):
    # one of four lines is right: 1/4; two lines are asked for and one is picked: never
    for row in rows("icd10", split):
        two = "\n" in row["messages"][-1]["content"]
        assert row["metadata"]["chance"] == (0.0 if two else 1 / len(shortlist(row)))


def test_near_mixed_and_far_distractors_are_there_in_equal_shares(rows):
    found = Counter(
        row["metadata"]["distractors"]
        for row in rows("icd10", "test")
        if row["metadata"]["kind"] == "one diagnosis"
    )
    assert set(found) == {"near", "mixed", "far"}
    assert max(found.values()) - min(found.values()) <= 1


def test_the_right_line_stands_at_each_place_about_equally_often(rows):
    # 350 notes, 4 places: 87.5 expected, standard deviation sqrt(350 * 1/4 * 3/4) = 8.1
    places = Counter(
        row["metadata"]["position"][0]
        for row in rows("icd10", "test")
        if row["metadata"]["kind"] == "one diagnosis"
    )
    assert all(87.5 - 4 * 8.1 < places[place] < 87.5 + 4 * 8.1 for place in (1, 2, 3, 4))


def test_the_studys_own_files_can_be_read(data, parameters):
    found = parameters("icd10")
    assert {type(value) for value in found.values()} <= {str, int, float, bool}
    assert Rules.read(data / "icd10" / found["rules_file"]).slice_worse == "blocks"
    rubric = read_rubric(data / "icd10" / found["rubric_file"])
    assert rubric["question"].endswith("?")
    assert "missed diagnosis" in rubric["reasons"]
