import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from evalkit import stats
from evalkit.benchmark.comparison import compare_many, compare_models
from evalkit.errors import DataError, DesignError
from evalkit.records import EvalResult


def test_the_articles_fields_by_hand(cells):
    # 20 examples: 5 both right, 6 fixed, 2 regressed, 7 both wrong; base 7/20 = .35, fine-tuned 11/20 = .55
    found = compare_models(*cells(5, 6, 2, 7))
    assert found.base.exact_match_rate == 0.35
    assert found.fine_tuned.exact_match_rate == 0.55
    assert found.exact_match_improvement == pytest.approx(0.2)
    assert found.format_improvement == 0.0
    # "no" against "yes" has no character in common: similarity moves like exact match
    assert found.similarity_improvement == pytest.approx(0.2)
    assert found.cells == {"both_right": 5, "fixed": 6, "regressed": 2, "both_wrong": 7}


def test_the_primary_test_is_mcnemars_mid_p(cells):
    found = compare_models(*cells(5, 6, 2, 7))
    # exact: 2 * P(X <= 2 | 8, 1/2) = 2 * 37/256 = .2890625; mid-p = exact - pmf(2) = .2890625 - 28/256
    assert found.primary.p_exact == pytest.approx(0.2890625)
    assert found.primary.p_value == pytest.approx(0.2890625 - binom.pmf(2, 8, 0.5))
    assert found.verdict == "no difference shown"


def test_fixed_and_regressed_lists_equal_mcnemars_counts(cells):
    found = compare_models(*cells(5, 6, 2, 7))
    assert [one.example_id for one in found.regressed] == ["e11", "e12"]
    assert len(found.fixed) == found.primary.fixed == 6
    assert found.regressed[0].base.predicted == "yes"


def test_rows_are_joined_on_id_whatever_their_order(cells):
    base, tuned = cells(5, 6, 2, 7)
    shuffled = random.Random(1).sample(tuned, len(tuned))
    assert compare_models(base, shuffled).primary == compare_models(base, tuned).primary


@given(st.tuples(*[st.integers(0, 12)] * 4).filter(sum))
def test_swapping_the_models_mirrors_the_result(counts):
    def made(right):
        return [
            EvalResult(i, "q", "a", "a" if ok else "b", bool(ok), True)
            for i, ok in enumerate(right)
        ]

    both, fixed, regressed, wrong = counts
    base = made([1] * both + [0] * fixed + [1] * regressed + [0] * wrong)
    tuned = made([1] * both + [1] * fixed + [0] * regressed + [0] * wrong)
    one, other = compare_models(base, tuned).primary, compare_models(tuned, base).primary
    assert one.p_value == other.p_value
    assert one.estimate == -other.estimate
    assert one.ci_low == pytest.approx(-other.ci_high, abs=1e-9)


def test_unmatched_examples_are_listed_and_count_nowhere(cells):
    base, tuned = cells(5, 6, 2, 7)
    found = compare_models(base[1:], tuned[:-1])
    assert (found.unmatched_base, found.unmatched_fine_tuned) == (("e19",), ("e0",))
    assert found.n == found.base.total_examples == found.fine_tuned.total_examples == 18
    assert "18 examples" in found.notes[0]


@pytest.mark.parametrize("field", ["input_text", "expected"])
def test_contradicting_rows_are_refused(cells, field):
    base, tuned = cells(2, 2, 2, 2)
    tuned[3] = replace(tuned[3], **{field: "another"})
    with pytest.raises(DataError, match="'e3'"):
        compare_models(base, tuned)


def test_nothing_in_common_is_refused(cells):
    base, tuned = cells(2, 2, 0, 0)
    with pytest.raises(DataError, match="no example id is in both"):
        compare_models(base, [replace(one, example_id=f"x{one.example_id}") for one in tuned])
    with pytest.raises(DataError, match="no example id is in both"):
        compare_models(base, [])


def test_an_id_that_stands_twice_is_refused(cells):
    base, tuned = cells(2, 2, 0, 0)
    with pytest.raises(DataError, match="base results: id 'e0' stands twice"):
        compare_models([*base, base[0]], tuned)


def test_no_examples_are_a_result():
    found = compare_models([], [])
    assert (found.n, found.exact_match_improvement, found.primary.p_value, found.verdict) == (
        0,
        None,
        None,
        "too early",
    )
    assert found.disagreement is None
    assert found.notes == ("No examples: nothing can be said.",)


def test_the_articles_whole_numbers_are_ids_too():
    base = [EvalResult(0, "q", "a", "b", False, False), EvalResult(1, "r", "a", "a", True, True)]
    tuned = [EvalResult(1, "r", "a", "a", True, True), EvalResult(0, "q", "a", "a", True, True)]
    found = compare_models(base, tuned)
    assert found.exact_match_improvement == found.format_improvement == 0.5


def test_failed_calls_are_wrong_and_the_verdict_is_fragile_when_it_hangs_on_them(cells, answers):
    # With errors counted as wrong: 30 fixed (20 of them base errors), 10 regressed -> better. Without: 10 against 10.
    base, tuned = cells(40, 30, 10, 20)
    outcome = ["ok"] * 40 + ["error"] * 20 + ["ok"] * 40
    base = [replace(one, outcome=word) for one, word in zip(base, outcome, strict=True)]
    found = compare_models(base, tuned)
    assert found.verdict == "better"
    assert found.fragility.n_errors == 20
    assert found.fragility.fragile
    assert found.fragility.without_errors == stats.paired_binary_test(40, 10, 10, 20)
    assert "Fragile" in str(found.fragility)
    assert "with them" in str(found.fragility)


def test_truncated_answers_are_answers_not_failed_calls(cells):
    base, tuned = cells(40, 30, 10, 20)
    base = [
        replace(one, outcome="truncated") if 40 <= i < 60 else one for i, one in enumerate(base)
    ]
    found = compare_models(base, tuned)
    assert found.fragility.n_errors == 0
    assert not found.fragility.fragile


def test_a_declared_cluster_widens_the_test_and_mid_p_stands_beside_it(cells):
    # Every change comes 10 times from one source: 60 changes are 6 independent ones.
    cluster = [str(i // 10) for i in range(100)]
    found = compare_models(*cells(30, 50, 10, 10, cluster=cluster))
    assert found.clustered
    assert found.primary.method == "cluster-robust t"
    assert found.primary.p_value > found.beside["exact_match"].p_value
    diffs = [0] * 30 + [1] * 50 + [-1] * 10 + [0] * 10
    assert found.primary == stats.paired_mean_test(diffs, clusters=cluster)


@pytest.mark.parametrize("side", [0, 1])
def test_a_cluster_that_only_one_side_declares_counts(cells, side):
    both = [list(some) for some in cells(30, 50, 10, 10)]
    both[side] = [replace(one, cluster=str(n // 10)) for n, one in enumerate(both[side])]
    assert (
        compare_models(*both).primary
        == compare_models(
            *cells(30, 50, 10, 10, cluster=[str(n // 10) for n in range(100)])
        ).primary
    )


def test_no_spread_has_an_interval_and_the_sign_tests_verdict(answers):
    # every example gains exactly one of two samples: 4 of 4 one way, p = 2 / 2^4
    base, tuned = (
        [*answers(first), *(replace(one, sample=1) for one in answers([0] * 4))]
        for first in ([0] * 4, [1] * 4)
    )
    found = compare_models(base, tuned)
    assert found.primary.p_value == pytest.approx(2 / 16)
    assert "no difference shown, +50.0 points (95% interval −10.2 to +100.0)" in str(found)


def test_no_interval_leaves_the_scale(answers):
    # two clusters have one degree of freedom, and t(1) reaches far beyond the ends of a rate
    base, tuned = (
        answers([1, 0, 1, 0], cluster=["a", "a", "b", "b"]),
        answers([1, 1, 0, 0], cluster=["a", "a", "b", "b"]),
    )
    found = compare_models(base, tuned)
    assert (found.primary.ci_low, found.primary.ci_high) == (-1.0, 1.0)
    graded = answers([1, 0], scores=[{"grade": 0.9}, {"grade": 0.2}])
    grade = compare_models(graded, graded).base.by_metric["grade"]
    assert (grade.ci_low, grade.ci_high) == (0.0, 1.0)


def test_one_metric_decides_and_holm_adjusts_the_others(cells):
    base, tuned = cells(5, 6, 2, 7, scores={"half": 0.5})
    found = compare_models(base, tuned)
    others = ["format", "similarity", "half"]
    assert list(found.p_adjusted) == others
    assert list(found.p_adjusted.values()) == stats.adjust(
        [found.tests[name].p_value for name in others]
    )


def test_another_primary_metric_decides_the_cells_too(answers):
    base = answers(
        [1, 1, 0, 0], scores=[{"full": 0.0}, {"full": 1.0}, {"full": 1.0}, {"full": 0.0}]
    )
    tuned = answers(
        [1, 1, 0, 0], scores=[{"full": 1.0}, {"full": 1.0}, {"full": 0.0}, {"full": 0.0}]
    )
    found = compare_models(base, tuned, primary_metric="full")
    assert found.cells == {"both_right": 1, "fixed": 1, "regressed": 1, "both_wrong": 1}
    assert found.status_metric == "full"


def test_a_numeric_primary_metric_is_tested_by_t_and_the_cells_stay_exact_match(answers):
    base = answers([1, 0, 0], scores=[{"grade": 0.2}, {"grade": 0.4}, {"grade": 0.1}])
    tuned = answers([1, 1, 0], scores=[{"grade": 0.3}, {"grade": 0.9}, {"grade": 0.2}])
    found = compare_models(base, tuned, primary_metric="grade")
    assert found.primary.method == "paired t"
    assert found.primary.estimate == pytest.approx((0.1 + 0.5 + 0.1) / 3)
    assert found.cells["fixed"] == 1


def test_samples_are_averaged_before_the_test(answers):
    base = [*answers([1, 0], sample=0), *answers([0, 0], sample=1)]  # means 0.5, 0
    tuned = [*answers([1, 1], sample=0), *answers([1, 0], sample=1)]  # means 1, 0.5
    found = compare_models(base, tuned)
    assert (found.n, found.primary.method) == (2, "exact sign test")  # both gain 0.5: no spread
    assert found.primary.estimate == pytest.approx(0.5)


def test_not_worse_needs_a_margin_and_an_interval_inside_it(cells):
    found = compare_models(*cells(250, 10, 8, 32), metric_margin=0.05)
    assert found.verdict == "no difference shown"
    assert found.noninferiority.verdict == "not worse"
    assert (
        compare_models(*cells(25, 1, 1, 3), metric_margin=0.05).noninferiority.verdict
        == "not shown"
    )
    assert compare_models(*cells(25, 1, 1, 3)).noninferiority is None


@pytest.mark.parametrize("margin", [-0.1, 1.5])
def test_a_margin_is_a_fraction(cells, margin):
    with pytest.raises(DesignError, match="metric_margin"):
        compare_models(*cells(2, 2, 2, 2), metric_margin=margin)


def test_a_question_that_nobody_knows_is_refused_not_taken_for_better(cells):
    with pytest.raises(DesignError, match="question is 'no worse'; need 'better' or 'no_worse'"):
        compare_models(*cells(2, 2, 2, 2), metric_margin=0.1, question="no worse")  # pyright: ignore[reportArgumentType]


def test_an_unknown_primary_metric_lists_those_there_are(cells):
    with pytest.raises(DesignError, match="exact_match, format, similarity"):
        compare_models(*cells(2, 2, 2, 2), primary_metric="bleu")


def test_several_models_are_adjusted_for_their_number(cells):
    base, tuned = cells(5, 16, 4, 7)
    compared = compare_many(base, {"one": tuned, "two": tuned, "same": base})
    adjusted = {name: one.primary.p_decides for name, one in compared.items()}
    p_value = compared["one"].primary.p_value  # the smallest of three
    assert adjusted["one"] == pytest.approx(3 * p_value)
    assert adjusted["same"] == 1.0


def test_identical_models_differ_by_nothing(cells):
    base, _ = cells(5, 6, 2, 7)
    found = compare_models(base, base)
    assert (found.primary.p_value, found.primary.estimate, found.verdict) == (
        1.0,
        0.0,
        "no difference shown",
    )


def test_five_thousand_examples_are_compared_in_a_moment(cells):
    import time

    started = time.process_time()
    found = compare_models(*cells(2000, 1000, 500, 1500))
    json.dumps(found.primary.to_dict())
    assert found.n == 5000
    assert time.process_time() - started < 3


def test_the_form_nobody_checked_is_neither_tested_nor_adjusted_for(cells):
    sides = [[replace(one, format_correct=None) for one in side] for side in cells(20, 12, 8, 20)]
    found = compare_models(*sides)
    assert (list(found.tests), list(found.p_adjusted)) == (
        ["exact_match", "similarity"],
        ["similarity"],
    )
    assert found.format_improvement is None
    with pytest.raises(DesignError, match="primary metric 'format'"):
        compare_models(*sides, primary_metric="format")


def test_it_names_its_metrics_in_words(cells):
    found = compare_models(*cells(20, 12, 8, 20))
    assert str(found).startswith(
        "Exact match over 60 examples: no difference shown, +6.7 points (95% interval"
    )
    assert "exact_match" not in found._repr_html_()


def judged(best_of, seed=0, n=200, runs=300):
    """Share of null studies whose best checkpoint is called better, by the adjusted and by its own p."""
    rng, adjusted, own = np.random.default_rng(seed), 0, 0
    for _ in range(runs):
        cells = rng.multinomial(n, [0.3, 0.1, 0.1, 0.5], size=best_of).tolist()
        tests = [stats.paired_binary_test(*one) for one in cells]
        p_values = stats.adjust([one.p_decides for one in tests])
        decided = [replace(one, p_compared=p) for one, p in zip(tests, p_values, strict=True)]
        adjusted += any(one.verdict == "better" for one in decided)
        own += any(one.verdict == "better" for one in tests)
    return adjusted / runs, own / runs


def test_the_best_of_ten_null_checkpoints_is_better_in_at_most_one_study_of_twenty():
    adjusted, own = judged(10)
    assert adjusted <= 0.05
    assert own > 0.12  # negative control: by its own p


def test_where_several_were_compared_the_adjusted_p_decides(cells):
    # 26 fixed, 13 regressed of 100: mid-p .040 alone, three models double or treble it
    base, tuned = cells(40, 26, 13, 21)
    alone = compare_many(base, {"v1": tuned})
    assert (alone["v1"].verdict, alone["v1"].primary.p_compared) == ("better", None)
    several = compare_many(base, {"v1": tuned, "v2": base, "v3": base}, metric_margin=0.1)
    one = several["v1"]
    assert one.primary.p_compared == one.primary.p_decides == pytest.approx(3 * one.primary.p_value)
    assert (one.verdict, one.tests["exact_match"].verdict) == ("no difference shown",) * 2
    assert one.fragility.fragile is False
    assert "3 models" in one.notes[-1]
    assert one.primary.to_dict()["verdict"] == "no difference shown"
    assert one.noninferiority.alpha == pytest.approx(0.05 / 3)


def test_an_extension_shares_the_level_between_two_looks(cells):
    # O'Brien-Fleming at one half: levels .00305 and .0490, together .05
    base, tuned = cells(40, 26, 13, 21)
    first = compare_models(base, tuned, extension=True)
    assert first.primary.alpha == pytest.approx(0.00305, abs=5e-5)
    assert first.verdict == "no difference shown"
    assert "second is due at 200 examples" in first.notes[-1]
    second = compare_models(base, tuned, extension=True, first_look=50)
    assert second.primary.alpha == pytest.approx(0.049, abs=2e-4)
    assert second.verdict == "better"
    assert second.tests["similarity"].alpha == 0.05
    with pytest.raises(DesignError, match="as many again"):
        compare_models(base, tuned, extension=True, first_look=100)
    with pytest.raises(DesignError, match="no extension was declared"):
        compare_models(base, tuned, first_look=50)


@pytest.mark.slow
def test_nulls_extended_once_keep_the_level_by_two_looks_and_not_without():
    rng = np.random.default_rng(5)
    first = rng.multinomial(200, [0.1, 0.1, 0.8], 40_000)[:, :2]
    both = first + rng.multinomial(200, [0.1, 0.1, 0.8], 40_000)[:, :2]
    table = {}

    def p_of(b, c):
        if (b, c) not in table:
            table[b, c] = stats.paired_binary_test(0, b, c, 400 - b - c).p_value
        return table[b, c]

    p1, p2 = (np.array([p_of(*one) for one in look.tolist()]) for look in (first, both))
    one, two = stats.extension_levels()
    assert 0.035 < ((p1 < one) | (p2 < two)).mean() <= 0.05
    assert (
        (p1 < 0.05) | (p2 < 0.05)
    ).mean() > 0.065  # negative control: pooled as if nobody had looked
