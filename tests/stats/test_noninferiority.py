import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import DesignError
from evalkit.stats import (
    mean_test,
    noninferiority_test,
    paired_binary_test,
    proportion_z_test,
    rate_interval,
    win_rate,
)

cells = st.tuples(*[st.integers(0, 60)] * 4).filter(lambda four: sum(four) > 0)


def test_the_lower_limit_against_the_margin():
    result = paired_binary_test(250, 10, 8, 32)  # +0.67 points, interval -2.2 to +3.7
    assert noninferiority_test(result, 0.05).verdict == "not worse"
    assert noninferiority_test(result, 0.02).verdict == "not shown"
    assert (
        noninferiority_test(result, -result.ci_low).verdict == "not shown"
    )  # touching is not excluding


def test_not_significant_is_not_the_same_as_not_worse():
    result = paired_binary_test(10, 2, 4, 14)
    assert result.verdict == "no difference shown"
    assert noninferiority_test(result, 0.05).verdict == "not shown"


def test_a_bad_quantity_must_not_rise():
    errors = proportion_z_test(20, 5000, 25, 5000)  # +0.1 points of errors, interval -0.2 to +0.4
    assert noninferiority_test(errors, 0.01, lower_is_better=True).verdict == "not worse"
    assert noninferiority_test(errors, 0.003, lower_is_better=True).verdict == "not shown"
    assert noninferiority_test(errors, 0.01).verdict == "not worse"


def test_a_win_rate_is_measured_from_one_half():
    test = noninferiority_test(win_rate(200, 190, 10), 0.10)
    assert test.estimate == pytest.approx(0.0125)
    assert test.verdict == "not worse"


@given(cells, st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_wider_margin_is_easier(four, one, more):
    narrow, wide = (
        noninferiority_test(paired_binary_test(*four), margin) for margin in (one, one + more)
    )
    assert not (narrow.verdict == "not worse" and wide.verdict == "not shown")
    assert {narrow.verdict, wide.verdict} <= {"not worse", "not shown"}


def test_too_early_stays_too_early_and_no_interval_shows_nothing():
    assert noninferiority_test(paired_binary_test(0, 0, 0, 0), 0.05).verdict == "too early"
    assert noninferiority_test(mean_test([1, 1], [1, 1]), 5).verdict == "not shown"


def test_it_says_its_margin_in_the_unit_of_the_result():
    assert str(noninferiority_test(paired_binary_test(250, 10, 8, 32), 0.05)).startswith(
        "Not worse (margin 5.0"
    )
    assert "users" in str(noninferiority_test(mean_test([1.0, 2.0, 3.0], [1.0, 2.0, 4.0]), 9))


@pytest.mark.parametrize("margin", [-0.01, float("nan"), float("inf"), "2"])
def test_a_margin_is_a_loss_of_0_or_more(margin):
    with pytest.raises(DesignError, match="margin is"):
        noninferiority_test(rate_interval(1, 2), margin)
