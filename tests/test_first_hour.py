"""What somebody meets who has never seen the kit: a wrong record, role or name says what is needed."""

from pathlib import Path

import pytest

import evalkit as ek
from evalkit import show
from evalkit.errors import DataError, DesignError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def here():
    return ek.Study.open("icd10", root=ROOT)


@pytest.fixture(scope="module")
def comparison(here):
    return here.compare()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("forest", "got a Comparison; need a SliceTable, as comparison.slices"),
        ("z_test", "got a Comparison; need a Reading, as here.reading"),
        ("power", "got a Comparison; need an ABPlan, as here.draft"),
    ],
)
def test_another_record_than_a_figure_takes_is_named_with_what_gives_it(comparison, name, told):
    with pytest.raises(DesignError, match=f"show.{name} {told}"):
        getattr(show, name)(comparison)


def test_a_frame_of_answers_is_not_taken_for_one_of_examples(comparison):
    with pytest.raises(
        DesignError, match=r'no column status, .* comparison.to_frame\(by="example"'
    ):
        show.examples(comparison.to_frame())
    with pytest.raises(DesignError, match=r'no column status, .*rows of comparison.to_frame\(by="example"'):
        show.examples(comparison)


def test_of_what_an_answer_took_only_what_is_recorded_is_drawn(comparison):
    with pytest.raises(DesignError, match="field is 'tokens'; need 'latency_ms' or"):
        show.spread(comparison, "tokens")


def test_a_row_or_a_role_of_another_name_is_refused_not_taken_for_the_last_one(here, comparison):
    for told, asked in (
        ("by is 'examples'; need 'answer' or 'example'", lambda: comparison.to_frame("examples")),
        ("role is 'Base'; need 'base' or 'fine_tuned'", lambda: here.answers("Base")),
        ("kind is 'vote'; need 'look'", lambda: here.ledger("vote")),
        ("DataFrame is no result of a chapter", lambda: here.write(comparison.to_frame())),
    ):
        with pytest.raises(DesignError, match=told):
            asked()


def test_answers_that_are_none_are_told_from_a_file_and_a_frame():
    for given, came in (("base.csv", "str with str"), ([{"example_id": 1}], "list with dict")):
        with pytest.raises(DataError, match=f"base results: got {came} in it.*ek.read_log"):
            ek.compare_models(given, [])
