"""What somebody meets who has never seen the kit: a wrong record, role or name says what is needed."""

import re
from pathlib import Path

import pandas as pd
import pytest
from lab import project_copy

import evalkit as ek
from evalkit import show
from evalkit.errors import DataError, DesignError

ROLES = ("base", "fine_tuned")
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
        ("forest", "got a Comparison; need SliceTable, as comparison.slices"),
        ("z_test", "got a Comparison; need Reading, as here.reading"),
        ("power", "got a Comparison; need ABPlan, as here.draft"),
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
    with pytest.raises(
        DesignError, match=r'no column status, .*rows of comparison.to_frame\(by="example"'
    ):
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


def test_a_value_of_another_kind_is_refused_by_its_name(here, comparison):
    answers = dict(zip(("base_results", "ft_results"), map(here.answers, ROLES), strict=True))
    asked = {"model": lambda _: "I10", "test_file": ROOT / "data/icd10/test.jsonl", "limit": 1}
    table = pd.Series(["kind"])
    for told, function, given in (
        (r"checker \['article'\]: use article", ek.run_automated_eval, {"checker": ["article"]}),
        (r"scorer \['exact'\]: use exact", ek.run_automated_eval, {"scorers": [["exact"]]}),
        (r"limit '3': need", ek.run_automated_eval, {"limit": "3"}),
        (r"cluster_field \['id'\]: need", ek.run_automated_eval, {"cluster_field": ["id"]}),
        (r"primary metric \['format'\]: these", ek.compare_models, {"primary_metric": ["format"]}),
        ("lower_is_better names 3: these", ek.compare_models, {"lower_is_better": 3}),
        ("slice field '3': no example", comparison.slices, {"by": 3}),
        (r"slice_fields: got .*Series\); need str", ek.Study.open, {"slice_fields": table}),
        (r"limit: got <NA> \(NAType\); need int", ek.Study.open, {"limit": pd.NA}),
    ):
        known = {ek.run_automated_eval: asked, ek.compare_models: answers}.get(function, {})
        known = known or ({"name": "icd10", "root": ROOT} if function == ek.Study.open else {})
        with pytest.raises(DesignError, match=re.compile(told, re.DOTALL)):
            function(**known | given)


def test_a_setting_tried_by_hand_turns_no_answer(tmp_path):
    project = project_copy(tmp_path, "icd10")
    own, tried = (
        ek.Study.open("icd10", root=project, primary_metric=metric) for metric in ("", "similarity")
    )
    for one in (own, tried):
        one.write(one.compare())
    for one, metric in ((own, "exact match"), (tried, "similarity")):
        assert one.decide().layers[0].metric == metric
    same = ek.Study.open("icd10", root=project, primary_metric="exact_match", stage="rollout")
    assert same.decide().layers[0].metric == "exact match"  # what the study says is nothing else


def test_answers_that_are_none_are_told_from_a_file_and_a_frame():
    for given, came in (("base.csv", "str with str"), ([{"example_id": 1}], "list with dict")):
        with pytest.raises(DataError, match=f"base results: got {came} in it.*ek.read_log"):
            ek.compare_models(given, [])
