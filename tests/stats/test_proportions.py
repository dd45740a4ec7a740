import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

from evalkit.errors import DesignError
from evalkit.stats import proportion_z_test, rate_interval, sample_ratio_test

arms = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_a_hand_worked_case():
    # pooled = 190/2000 = 0.095; se = sqrt(.095 * .905 * 2/1000) = 0.0131130; z = 0.03 / 0.0131130 = 2.28781
    test = proportion_z_test(80, 1000, 110, 1000)
    assert test.z_score == pytest.approx(2.28781, abs=5e-6)
    assert test.p_value == pytest.approx(2 * stats.norm.sf(2.28781), rel=1e-4)
    assert (test.control_rate, test.treatment_rate, test.diff) == (0.08, 0.11, pytest.approx(0.03))
    assert test.lift == pytest.approx(0.375)
    assert (test.significant, test.verdict, test.p_exact) == (True, "better", None)


def test_newcombes_published_interval():
    # Newcombe 1998, example (a), method 10: 56/70 - 48/80 = 0.20, 0.0524 to 0.3339
    test = proportion_z_test(48, 80, 56, 70)
    assert (round(test.ci_low, 4), round(test.ci_high, 4)) == (0.0524, 0.3339)


def test_wilsons_published_interval():
    # Newcombe 1998: 81 of 263 is 0.2553 to 0.3662
    interval = rate_interval(81, 263)
    assert (round(interval.ci_low, 4), round(interval.ci_high, 4)) == (0.2553, 0.3662)


def test_the_lift_interval_is_statsmodels_score_ratio():
    for k_a, n_a, k_b, n_b in [(120, 1000, 150, 1000), (5, 100, 9, 300), (70, 100, 90, 100)]:
        low, high = confint_proportions_2indep(k_b, n_b, k_a, n_a, compare="ratio", method="score")
        test = proportion_z_test(k_a, n_a, k_b, n_b)
        assert (test.lift_ci_low, test.lift_ci_high) == pytest.approx((low - 1, high - 1), abs=1e-6)


def test_the_lift_interval_holds_at_100_percent_where_the_closed_form_fails():
    test = proportion_z_test(100, 100, 50, 100)
    assert -0.65 < test.lift_ci_low < test.lift == -0.5 < test.lift_ci_high < -0.35


def test_a_worse_treatment_that_is_significant_reads_worse():
    test = proportion_z_test(150, 1000, 110, 1000)
    assert (test.significant, test.verdict) == (True, "worse")
    assert str(test).startswith("Worse: −4.0 points")


def test_tiny_p_values_survive():
    # z = 15.1 here; 1 - erf would give exactly 0
    assert 0 < proportion_z_test(100, 1000, 400, 1000).p_value < 1e-49


def test_no_variance_gives_none_not_a_verdict_and_keeps_its_interval():
    for successes in (0, 1000):
        test = proportion_z_test(successes, 1000, successes, 1000)
        assert (test.z_score, test.p_value, test.significant, test.verdict) == (
            None,
            None,
            False,
            "no difference shown",
        )
        assert test.ci_low < 0 < test.ci_high
        assert any("no variance" in note for note in test.notes)


def test_no_variance_has_the_same_shape():
    assert (
        proportion_z_test(0, 9, 0, 9).to_dict().keys()
        == proportion_z_test(80, 1000, 110, 1000).to_dict().keys()
    )


def test_zero_control_has_no_lift_and_no_upper_limit():
    test = proportion_z_test(0, 1000, 12, 1000)
    assert (test.lift, test.lift_ci_high) == (None, None)
    assert test.lift_ci_low > 0
    assert any("lift" in note for note in test.notes)


def test_tiny_counts_are_decided_by_fisher_beside_the_z_test():
    # 9000 against 1000 at .001: the smaller group expects 1.3 successes; z says .03, Fisher disagrees
    test = proportion_z_test(9, 9000, 4, 1000)
    assert test.p_value == pytest.approx(0.013, abs=0.005)
    assert test.p_exact == pytest.approx(stats.fisher_exact([[4, 996], [9, 8991]])[1])
    border = proportion_z_test(10, 9000, 4, 1000)
    assert border.p_value < 0.05
    assert border.significant
    exact_says = "better" if border.p_exact < 0.05 else "no difference shown"
    assert border.verdict == exact_says


def test_a_note_says_when_the_verdict_differs_from_significant():
    test = proportion_z_test(0, 40, 4, 40)  # z p = .040, Fisher p = .116; each group expects 2
    assert test.significant
    assert test.verdict == "no difference shown"
    assert any("differs" in note for note in test.notes)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((0, 0, 1, 10), "at least 1 in each"),
        ((1, 10, 1, 0), "exceed"),
        ((11, 10, 1, 10), "exceed"),
        ((-1, 10, 1, 10), "0 or more"),
        ((1.5, 10, 1, 10), "whole number"),
        ((1, 10, "1", 10), "whole number"),
    ],
)
def test_impossible_counts_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        proportion_z_test(*counts)


def test_whole_floats_and_numpy_integers_are_counts():
    test = proportion_z_test(np.int64(80), 1000.0, np.int32(110), np.uint16(1000))
    assert test == proportion_z_test(80, 1000, 110, 1000)
    assert all(
        type(value) in {int, float, bool, str, list}
        for value in test.to_dict().values()
        if value is not None
    )


@given(arms, arms)
def test_swapping_the_groups_mirrors_the_result(control, treatment):
    one, other = proportion_z_test(*control, *treatment), proportion_z_test(*treatment, *control)
    assert one.diff == -other.diff
    assert one.p_exact == pytest.approx(other.p_exact)
    assert (one.ci_low, one.ci_high) == pytest.approx((-other.ci_high, -other.ci_low), abs=1e-12)
    if one.z_score is not None:
        assert one.z_score == pytest.approx(-other.z_score)
        assert one.p_value == pytest.approx(other.p_value)


@given(arms, arms)
def test_intervals_contain_their_estimates_and_99_contains_95(control, treatment):
    wide, narrow = (
        proportion_z_test(*control, *treatment, alpha=0.01),
        proportion_z_test(*control, *treatment),
    )
    tiny = 1e-9
    assert wide.ci_low - tiny <= narrow.ci_low <= narrow.diff + tiny
    assert narrow.diff - tiny <= narrow.ci_high <= wide.ci_high + tiny
    if narrow.lift is not None:
        assert wide.lift_ci_low - tiny <= narrow.lift_ci_low <= narrow.lift + tiny
        assert narrow.lift - tiny <= narrow.lift_ci_high <= wide.lift_ci_high + tiny


@given(arms, arms)
def test_every_number_is_json(control, treatment):
    record = proportion_z_test(*control, *treatment).to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@given(arms)
def test_a_rate_lies_inside_its_interval(arm):
    interval = rate_interval(*arm)
    assert 0 <= interval.ci_low <= interval.estimate <= interval.ci_high <= 1


def test_a_rate_of_nothing_is_undefined():
    interval = rate_interval(0, 0)
    assert (interval.estimate, interval.ci_low, interval.ci_high) == (None, None, None)
    assert "undefined" in str(interval)


def test_the_sample_ratio_worked_by_hand():
    # 5200 and 4800 against 5000: chi-square = 40000/5000 * 2 = 16
    test = sample_ratio_test([5200, 4800], [0.5, 0.5])
    assert test.statistic == pytest.approx(16.0)
    assert test.p_value == pytest.approx(stats.chi2.sf(16, 1))
    assert test.verdict == "invalid"
    assert "usual causes" in test.notes[0]


def test_the_declared_split_raises_no_alarm():
    test = sample_ratio_test(
        {"control": 9010, "treatment": 990}, {"treatment": 0.1, "control": 0.9}
    )
    assert test.verdict == "no difference shown"
    assert test.estimate == pytest.approx(9010 / 10000 - 0.9)


def test_a_few_early_users_do_not_ring_the_alarm():
    # 5 of 10 users in a group of 10%: chi-square p = .00002, exactly 1 - binom.cdf(4; 10, .1) = .0016
    test = sample_ratio_test([5, 5], [0.9, 0.1])
    assert test.statistic == pytest.approx((5 - 1) ** 2 / 1 + (5 - 9) ** 2 / 9)
    assert test.p_value == pytest.approx(stats.binom.sf(4, 10, 0.1))
    assert test.verdict == "no difference shown"


def test_no_users_are_too_early():
    test = sample_ratio_test([0, 0], [0.9, 0.1])
    assert (test.verdict, test.statistic, test.p_value) == ("too early", None, None)


@pytest.mark.parametrize("shares", [[0.5, 0.6], [1.0, 0.0], [0.5], [0.2, 0.3, 0.5]])
def test_a_split_that_cannot_be_is_refused(shares):
    with pytest.raises(DesignError):
        sample_ratio_test([10, 10], shares)
