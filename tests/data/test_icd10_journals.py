"""The demo's recorded answers belong to the committed test set, models and settings, and show what the README says."""

from collections import Counter

import pytest

from evalkit import compare_models
from evalkit.answers import dataset, journal
from evalkit.answers.runner import results_from_journal
from evalkit.stats import paired_binary_test

JOURNALS = {"base": "base.jsonl", "fine-tuned": "fine_tuned.jsonl"}


@pytest.fixture(scope="module", params=sorted(JOURNALS))
def recorded(request, data):
    return request.param, journal.read_journal(
        data / "icd10" / "journals" / JOURNALS[request.param]
    )


@pytest.fixture(scope="module")
def test_set(data):
    return dataset.read_examples(data / "icd10" / "test.jsonl")


@pytest.fixture(scope="module")
def results(data):
    folder = data / "icd10"
    read = {
        "slice_fields": ("kind", "style", "distractors"),
        "scorers": ("similarity", "all_lines_present"),
    }
    return [
        results_from_journal(folder / "journals" / name, folder / "test.jsonl", **read)
        for name in JOURNALS.values()
    ]


def test_every_row_has_one_answer_and_its_key_is_that_of_the_call(recorded, test_set):
    model, found = recorded
    keys = {
        journal.call_key(
            model, found.header["endpoint"], found.header["parameters"], one.messages, 0
        ): one.example_id
        for one in test_set.examples
    }
    assert {entry.key: entry.example_id for entry in found.entries} == keys
    assert len(found.entries) == 500


def test_the_header_names_the_test_set_the_models_and_the_settings(recorded, test_set, serve):
    model, found = recorded
    about = found.header["about"]
    assert found.header["test_set"] == test_set.fingerprint
    assert found.header["parameters"] == {"temperature": 0.0, "max_tokens": 96}
    assert about["model_sha256"] == serve.MODEL_SHA256
    assert about["adapter_sha256"] == (
        serve.sha256(serve.ADAPTER) if model == "fine-tuned" else "none"
    )
    assert (about["slots"], about["prompt_cache"], about["threads"]) == (1, False, 1)


def test_no_call_failed(recorded):
    _, found = recorded
    assert set(Counter(entry.answer.outcome for entry in found.entries)) <= {"ok", "truncated"}


def test_the_average_rose_and_the_notes_with_two_diagnoses_were_lost(results):
    base, tuned = results
    assert compare_models(base, tuned).primary.verdict == "better"
    two = [
        (b.exact_match, t.exact_match)
        for b, t in zip(base, tuned, strict=True)
        if b.slices["kind"] == "two diagnoses"
    ]
    cells = Counter(two)
    found = paired_binary_test(
        cells[True, True], cells[False, True], cells[True, False], cells[False, False]
    )
    assert found.verdict == "worse"
    assert sum(right for _, right in two) == 0


def test_the_fine_tuned_model_is_better_than_chance_on_notes_with_one_diagnosis(results):
    _, tuned = results
    single = [one for one in tuned if one.slices["kind"] == "one diagnosis"]
    rate = sum(one.exact_match for one in single) / len(single)
    # chance is 1/4; its standard deviation over 350 notes is sqrt(1/4 * 3/4 / 350) = 0.023
    assert rate > 0.25 + 4 * 0.023
