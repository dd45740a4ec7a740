import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evalkit.errors import DesignError
from evalkit.stats import (
    confidence_sequence,
    crossing_chance,
    extension_levels,
    obrien_fleming_bounds,
    spent_alpha,
)

fractions = st.lists(st.integers(1, 100), min_size=1, max_size=6, unique=True).map(
    lambda all_: [n / 100 for n in sorted(all_)]
)


def test_five_equal_looks_are_the_published_bounds():
    published = [4.877, 3.357, 2.680, 2.290, 2.031]
    assert [
        round(bound, 3) for bound in obrien_fleming_bounds([0.2, 0.4, 0.6, 0.8, 1.0])
    ] == published


def test_a_single_look_at_the_end_is_the_fixed_test():
    assert obrien_fleming_bounds([1.0]) == pytest.approx([stats.norm.isf(0.025)])


def test_two_looks_by_the_bivariate_normal():
    first, second = obrien_fleming_bounds([0.5, 1.0])
    assert first == pytest.approx(stats.norm.isf(spent_alpha(0.5) / 2))
    joint = stats.multivariate_normal([0, 0], [[1, 0.5**0.5], [0.5**0.5, 1]])
    inside = joint.cdf([first, second], lower_limit=[-first, -second])
    assert 1 - inside == pytest.approx(0.05, abs=2e-4)


@given(fractions)
def test_no_look_is_easier_than_the_fixed_test(times):
    bounds = obrien_fleming_bounds(times)
    assert len(bounds) == len(times)
    assert all(bound >= stats.norm.isf(0.025) - 1e-6 for bound in bounds)
    assert spent_alpha(1.0) == pytest.approx(0.05)


@given(fractions)
def test_later_looks_do_not_change_earlier_bounds(times):
    assert obrien_fleming_bounds(times[:-1]) == pytest.approx(
        obrien_fleming_bounds(times)[:-1], abs=1e-4
    )


def test_one_percent_bounds_are_wider():
    assert obrien_fleming_bounds([0.5, 1.0], alpha=0.01)[1] > obrien_fleming_bounds([0.5, 1.0])[1]


@pytest.mark.parametrize("times", [[0.5, 0.5], [0.6, 0.4], [0.0, 1.0], [0.5, 1.2], [-0.1]])
def test_fractions_that_do_not_rise_are_refused(times):
    with pytest.raises(DesignError):
        obrien_fleming_bounds(times)


def test_nothing_looked_at_has_no_bounds():
    assert obrien_fleming_bounds([]) == []


def test_a_confidence_sequence_worked_by_hand():
    # alpha .05: -2 ln a = 5.99146; rho^2 n_opt = 5.99146 + ln 6.99146 = 7.93614; at n = n_opt: grown = 8.93614
    # half = se sqrt(8.93614 / 7.93614 * (ln 8.93614 + 5.99146)) = se sqrt(1.12601 * 8.18156) = 3.03520 se
    low, high = confidence_sequence(0.1, 0.01, 5000, 5000)
    assert high - 0.1 == pytest.approx(0.0303520, abs=5e-7)
    assert 0.1 - low == pytest.approx(high - 0.1)


def test_the_sequence_is_tightest_near_its_optimum_and_wider_than_a_fixed_interval():
    def width(n):
        low, high = confidence_sequence(0.0, 1.0, n, 1000)
        return high - low

    widths = {n: width(n) for n in (50, 1000, 20000)}
    assert min(widths, key=widths.get) == 1000
    assert widths[1000] > 2 * 1.96
    assert np.isfinite(width(1))


def test_a_sequence_without_users_is_refused():
    with pytest.raises(DesignError, match="n is"):
        confidence_sequence(0.1, 0.1, 0, 100)


def test_fractions_that_rounding_took_a_hair_above_one_are_one():
    times = [*(n / 9 for n in range(1, 9)), 1.0000000000000002]
    assert obrien_fleming_bounds(times) == pytest.approx(
        obrien_fleming_bounds([n / 9 for n in range(1, 10)])
    )
    with pytest.raises(DesignError, match="information fraction"):
        obrien_fleming_bounds([0.5, 1.001])


@pytest.mark.parametrize("drift", [0.0, 1.5, 2.8])
def test_the_chance_to_cross_by_the_bivariate_normal(drift):
    times = (0.4, 1.0)
    bounds = np.array(obrien_fleming_bounds(times))
    law = stats.multivariate_normal([drift * 0.4**0.5, drift], [[1, 0.4**0.5], [0.4**0.5, 1]])
    inside = law.cdf(bounds, lower_limit=-bounds)
    assert crossing_chance(times, drift) == pytest.approx(1 - inside, abs=1e-5)


def test_the_levels_of_an_extension_by_the_bivariate_normal():
    levels = extension_levels(0.6, declared=0.5)
    bounds = stats.norm.isf(np.array(levels) / 2)
    law = stats.multivariate_normal([0, 0], [[1, 0.6**0.5], [0.6**0.5, 1]])
    assert 1 - law.cdf(bounds, lower_limit=-bounds) == pytest.approx(0.05, abs=1e-5)
    assert levels[0] == spent_alpha(0.5)
