import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import samplesize_proportions_2indep_onetail

from evalkit.errors import DesignError
from evalkit.stats import (
    chance_to_find,
    chance_to_find_mean,
    days_needed,
    detectable_difference,
    examples_needed,
    ratings_needed,
    sign_test_power,
    tango_interval,
    users_needed,
    users_needed_mean,
)

POINTS = {  # points of accuracy, 80% power, two-sided 5%, by n and disagreement
    (100, 0.05): None, (100, 0.1): 8.8, (100, 0.2): 12.4, (100, 0.3): 15.2,
    (200, 0.05): 4.4, (200, 0.1): 6.2, (200, 0.2): 8.8, (200, 0.3): 10.8,
    (300, 0.05): 3.6, (300, 0.1): 5.1, (300, 0.2): 7.2, (300, 0.3): 8.8,
    (500, 0.05): 2.8, (500, 0.1): 4.0, (500, 0.2): 5.6, (500, 0.3): 6.8,
    (1000, 0.05): 2.0, (1000, 0.1): 2.8, (1000, 0.2): 4.0, (1000, 0.3): 4.8,
}  # fmt: skip


@pytest.mark.parametrize(("n", "disagreement"), POINTS)
def test_the_table_of_detectable_differences(n, disagreement):
    found, published = detectable_difference(n, disagreement), POINTS[n, disagreement]
    assert (found and round(100 * found, 1)) == published


def test_examples_needed_worked_by_hand():
    # psi = .15, d = .05: ((1.959964 * sqrt(.15) + .841621 * sqrt(.15 - .0025)) / .05)^2 = (1.08232 / .05)^2 = 468.6
    assert examples_needed(0.10, 0.05) == 469


def test_examples_needed_to_be_safe_worked_by_hand():
    # nothing changed, margin .05: Tango's variance is m (1 - m) = .0475 and psi 0, so n = 1.959964^2 * .0475 / .0025 = 72.99
    assert examples_needed(0.0, 0.0, margin=0.05) == 73
    assert tango_interval(0, 0, 73)[0] > -0.05 > tango_interval(0, 0, 72)[0]


@pytest.mark.parametrize(("fixed", "regressed"), [(0.10, 0.10), (0.14, 0.09), (0.03, 0.05)])
def test_examples_needed_to_be_safe_have_the_power_promised(fixed, regressed):
    n, draw = examples_needed(fixed, regressed, margin=0.05), np.random.default_rng(1)
    cells = draw.multinomial(n, [fixed, regressed, 1 - fixed - regressed], size=400)
    safe = sum(tango_interval(int(b), int(c), n)[0] > -0.05 for b, c, _ in cells)
    assert safe / 400 == pytest.approx(0.8, abs=0.06)


@given(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0.001, 0.5))
def test_a_wider_margin_needs_fewer_examples(fixed, regressed, margin):
    if fixed - regressed + margin > 1e-6:
        assert examples_needed(fixed, regressed, margin=2 * margin) <= examples_needed(
            fixed, regressed, margin=margin
        )


def test_a_loss_of_the_margin_is_never_safe():
    with pytest.raises(DesignError, match="no loss of"):
        examples_needed(0.05, 0.10, margin=0.05)


@given(st.integers(30, 5000), st.floats(0.02, 0.6))
def test_needed_and_detectable_are_each_others_inverse(n, disagreement):
    diff = detectable_difference(n, disagreement)
    if diff is not None:
        needed = examples_needed((disagreement + diff) / 2, max(0.0, (disagreement - diff) / 2))
        assert abs(needed - n) <= 1


@given(st.integers(30, 4000), st.floats(0.02, 0.9))
def test_more_examples_see_smaller_differences(n, disagreement):
    few, many = detectable_difference(n, disagreement), detectable_difference(2 * n, disagreement)
    assert few is None or many < few
    stricter = detectable_difference(n, disagreement, power=0.9)
    assert stricter is None or few < stricter


@pytest.mark.parametrize(("n", "disagreement"), [(0, 0.1), (300, 0.0), (1, 1.0)])
def test_what_cannot_be_found_is_none(n, disagreement):
    assert detectable_difference(n, disagreement) is None


def test_no_difference_needs_no_number():
    for call in (
        lambda: examples_needed(0.1, 0.1),
        lambda: users_needed(0.3, 0.3),
        lambda: users_needed_mean(1, 0),
    ):
        with pytest.raises(DesignError, match="no number of"):
            call()
    with pytest.raises(DesignError, match=r"p_fixed \+ p_regressed"):
        examples_needed(0.7, 0.6)
    with pytest.raises(DesignError, match="alpha"):
        examples_needed(0.1, 0.05, alpha=1.5)


def test_users_needed_is_the_textbook_number():
    # .30 against .35: pooled .325; (1.959964 sqrt(2 * .325 * .675) + .841621 sqrt(.21 + .2275))^2 / .0025 = 1376.3
    size = users_needed(0.30, 0.35)
    assert (size.n_control, size.n_treatment, size.total) == (1377, 1377, 2754)


def test_users_needed_agrees_with_statsmodels():
    # statsmodels takes the one-sided alpha and ratio = control / treatment here
    for share in (0.5, 0.2):
        other = samplesize_proportions_2indep_onetail(
            0.05, 0.30, 0.8, ratio=(1 - share) / share, alpha=0.05
        )
        assert users_needed(0.30, 0.35, share).n_treatment == pytest.approx(other, rel=0.02)


def test_an_uneven_split_costs_more():
    assert users_needed(0.3, 0.35, 0.1).total / users_needed(0.3, 0.35).total == pytest.approx(
        2.7, abs=0.05
    )
    size = users_needed(0.3, 0.35, 0.1)
    assert size.n_control / size.n_treatment == pytest.approx(9, rel=0.01)


def test_a_thousand_users_a_variant_find_only_six_points():
    assert users_needed(0.30, 0.359).n_control <= 1000 < users_needed(0.30, 0.3585).n_control


def test_users_needed_mean_agrees_with_statsmodels():
    other = NormalIndPower().solve_power(0.2, power=0.8, alpha=0.05, ratio=1)
    assert users_needed_mean(1.0, 0.2).n_control == math.ceil(other)
    assert users_needed_mean(1.0, -0.2, design_effect=2.0).n_control == math.ceil(2 * other)


def test_the_sign_test_table():
    assert round(sign_test_power(50, 0.6), 2) == 0.24
    assert [ratings_needed(rate) for rate in (0.6, 0.65, 0.7)] == [199, 90, 49]
    assert ratings_needed(0.6, 0.2) == math.ceil(199 / 0.8)
    assert ratings_needed(0.4) == ratings_needed(0.6)


def test_the_sign_tests_power_by_summing_the_binomial():
    outcomes = np.arange(51)
    rejected = [stats.binomtest(int(k), 50).pvalue <= 0.05 for k in outcomes]
    assert sign_test_power(50, 0.65) == pytest.approx(
        stats.binom.pmf(outcomes, 50, 0.65)[rejected].sum()
    )
    assert sign_test_power(4, 0.99) == 0.0  # four ratings cannot reach p < .05
    with pytest.raises(DesignError, match=r"0\.5"):
        ratings_needed(0.5)


def test_days_come_in_whole_weeks():
    assert days_needed(2754, 200) == 14
    assert days_needed(10, 200) == 7
    assert days_needed(2754, 200, outcome_window_days=1) == 21
    with pytest.raises(DesignError, match="users_per_day"):
        days_needed(10, 0)


def test_a_difference_that_is_no_number_is_refused():
    with pytest.raises(DesignError, match="difference is nan"):
        users_needed_mean(1.0, float("nan"))


@pytest.mark.parametrize(("n", "psi", "loss"), [(12, 0.4, 0.2), (9, 0.5, 0.5), (15, 0.3, 0.1)])
def test_the_chance_to_find_by_every_table_of_examples(n, psi, loss):
    up, down = (psi + loss) / 2, (psi - loss) / 2
    found = sum(
        stats.multinomial.pmf([b, c, n - b - c], n, [up, down, 1 - psi])
        for b in range(n + 1)
        for c in range(n + 1 - b)
        if b + c and stats.binomtest(b, b + c).pvalue < 0.05
    )
    assert chance_to_find(n, psi, loss) == pytest.approx(found)


def test_the_chance_to_find_a_mean_by_the_normal_tail():
    assert chance_to_find_mean(0.05, 0.1) == pytest.approx(
        stats.norm.sf(1.959964, loc=2.0), abs=1e-6
    )
