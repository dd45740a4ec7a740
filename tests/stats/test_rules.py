import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from evalkit.errors import DesignError
from evalkit.stats import less_than_others, rule_test, tarone_level


def test_hand_worked_rules():
    assert rule_test(0, 4, 0.7).p_value == pytest.approx(0.3**4)
    assert rule_test(5, 5, 0.3, "greater").p_value == pytest.approx(0.3**5)
    assert rule_test(10, 10, 0.5, "two-sided").p_value == pytest.approx(2 / 2**10)
    assert (rule_test(0, 0, 0.5).p_value, rule_test(0, 0, 0.5).rate) == (1.0, None)
    with pytest.raises(DesignError, match="rule is 2"):
        rule_test(1, 2, 2)


@given(st.integers(0, 30), st.integers(1, 30), st.integers(0, 30), st.integers(1, 30))
def test_less_than_others_is_fishers_lower_tail(a, n, b, m):
    a, b = min(a, n), min(b, m)
    expected = fisher_exact([[a, n - a], [b, m - b]], alternative="less").pvalue
    test = less_than_others(a, n, b, m)
    assert test.p_value == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert test.p_least <= test.p_value + 1e-12


def test_tests_that_cannot_reach_a_level_are_not_counted():
    hopeless, able = rule_test(1, 2, 0.5), rule_test(0, 30, 0.5)
    assert tarone_level([hopeless] * 9 + [able]) == 0.05
    assert tarone_level([able] * 10) == pytest.approx(0.005)
    assert tarone_level([]) == 0.05


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_the_family_never_errs_more_often_than_alpha(sizes):
    tests = [rule_test(0, n, 0.5) for n in sizes]
    level = tarone_level(tests)
    # the most each test can err is the largest attainable p not above the level
    assert sum(one.p_least <= level for one in tests) * level <= 0.05 + 1e-12
