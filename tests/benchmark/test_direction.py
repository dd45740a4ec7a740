"""A metric of which less is better: verdicts, margins, slices and the status of examples turn; differences do not."""

import pytest

from evalkit import show, stats
from evalkit.benchmark.comparison import compare_many, compare_models
from evalkit.benchmark.noise import NoiseFloor
from evalkit.benchmark.slices import slice_table
from evalkit.errors import DesignError
from evalkit.records import EvalResult
from evalkit.show.comparison import rates_title
from evalkit.show.regressions import answer_said, scatter_title, slices_title


def results(score, *, n=100):
    """Answers with a score of their own, in two slices."""
    return [
        EvalResult(
            i, f"q {i}", "x", "x", True, True,
            scores={"toxic": float(score(i))}, slices={"half": "a" if i < n // 2 else "b"},
        )
        for i in range(n)
    ]  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 0.7])  # right or wrong, and a number
def test_a_fall_of_what_should_fall_is_better(scale):
    old, new = results(lambda i: scale * (i % 2)), results(lambda i: scale * (i % 10 == 1))
    plain = compare_models(old, new, primary_metric="toxic")
    turned = compare_models(
        old, new, primary_metric="toxic", lower_is_better="toxic", metric_margin=0.02
    )
    # 50 of 100 before, 10 after
    assert plain.primary.estimate == turned.primary.estimate == pytest.approx(-0.4 * scale)
    assert (plain.verdict, turned.verdict) == ("worse", "better")
    assert turned.noninferiority.verdict == "not worse"
    assert turned.fragility.fragile is False
    back = compare_models(
        new, old, primary_metric="toxic", lower_is_better=["toxic"], metric_margin=0.02
    )
    assert (back.verdict, back.noninferiority.verdict) == ("worse", "not shown")


def test_an_example_that_became_bad_has_regressed():
    old, new = results(lambda i: i < 3), results(lambda i: 2 <= i < 10)
    found = compare_models(old, new, primary_metric="toxic", lower_is_better="toxic")
    assert dict(found.cells) == {"both_right": 90, "fixed": 2, "regressed": 7, "both_wrong": 1}
    assert [one.example_id for one in found.fixed] == ["0", "1"]


def test_slices_turn_with_their_metric():
    old, new = results(lambda i: False), results(lambda i: i < 30)
    table = slice_table(
        compare_models(old, new, primary_metric="toxic", lower_is_better="toxic"), margin=0.05
    )
    by = {row.value: row for row in table}
    assert (by["a"].verdict, by["a"].safety, by["a"].gain) == (
        "worse",
        "not shown",
        pytest.approx(-0.6),
    )
    assert by["a"].estimate == pytest.approx(0.6)
    assert [row.value for row in table.worse] == ["a"]


def test_what_should_fall_is_told_as_it_moves():
    good, bad = results(lambda i: False), results(lambda i: i < 30)
    for old, new, way in ((good, bad, "rises from 0.0% to 30.0%"), (bad, good, "falls from 30.0%")):
        found = compare_models(old, new, primary_metric="toxic", lower_is_better="toxic")
        assert rates_title(found).startswith(f"Toxic {way}")
    table = slice_table(compare_models(good, bad, primary_metric="toxic", lower_is_better="toxic"))
    assert slices_title(table) == "Toxic rises on “a” examples"
    assert "toxic rises from 0.0% to 60.0% over 50" in answer_said(table, NoiseFloor())


def test_a_score_that_rises_comes_closer_to_nothing():
    good, bad = results(lambda i: False), results(lambda i: i < 30)
    found = compare_models(good, bad, primary_metric="toxic", lower_is_better="toxic")
    assert scatter_title(found, "toxic") == "30 answers scored higher on toxic, 0 lower, 70 stayed"


def test_the_price_of_a_slice_is_that_of_its_mirror():
    old, new = results(lambda i: i % 10 == 0), results(lambda i: i % 9 == 0)
    up = compare_models(new, old, primary_metric="toxic").primary
    down = compare_models(old, new, primary_metric="toxic", lower_is_better="toxic").primary
    for margin in (0.0, 0.05):
        assert stats.examples_to_settle(up, margin=margin) == stats.examples_to_settle(
            down, margin=margin
        )


def test_an_unknown_name_is_refused():
    with pytest.raises(DesignError, match="lower_is_better names latency: these results carry"):
        compare_models(results(bool), results(bool), lower_is_better="latency")


def test_several_models_are_held_against_the_margin_in_their_metrics_direction():
    # a fall of 50 to 10 of 100 is no loss where less is better, whatever the number of models
    old, new = results(lambda i: i % 2), results(lambda i: i % 10 == 1)
    options = {"primary_metric": "toxic", "lower_is_better": "toxic", "metric_margin": 0.02}
    compared = compare_many(old, {"v1": new, "v2": old, "v3": old}, **options)
    assert compared["v1"].noninferiority.verdict == "not worse"
    rising = compare_many(new, {"v1": old, "v2": new}, **options)
    assert rising["v1"].noninferiority.verdict == "not shown"


def test_where_a_metric_should_fall_the_finder_and_the_regressions_say_which_way_they_count():
    # the half a turns toxic in 40 of 50: +80 points there, and worse
    options = {"primary_metric": "toxic", "lower_is_better": "toxic"}
    old, new = results(lambda i: 0), results(lambda i: i < 40)
    found = compare_models(old, new, **options)
    lost = next(one for one in found.find_slices() if one.where == "half = a")
    row = next(row for row in found.slices() if row.slice == "half = a")
    assert (lost.estimate, lost.test.verdict) == (row.estimate, row.test.verdict) == (0.8, "worse")
    assert "+80.0" in show.segments(found.find_slices()).text
    told = show.regression(found).body
    assert "counted are the right answers, those with a toxic of 0" in told
    assert "counted are" not in show.regression(compare_models(old, new)).body
