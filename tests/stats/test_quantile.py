import numpy as np
import pytest

from evalkit.errors import DesignError
from evalkit.stats import (
    noninferiority_test,
    quantile_by_user,
    quantile_interval,
    quantile_levels,
    quantile_test,
    ratio_sums,
)


def simulated_latencies(seed, n_users=300, factor=1.0):
    """Simulated: users with a pace of their own and a few requests each."""
    rng = np.random.default_rng(seed)
    requests = rng.poisson(4, n_users) + 1
    users = np.repeat(np.arange(n_users), requests)
    return users, factor * 500 * np.exp(
        rng.normal(0, 0.4, n_users)[users] + rng.normal(0, 0.3, len(users))
    )


def test_the_quantile_is_numpys():
    users, values = simulated_latencies(1)
    interval = quantile_interval(users, values)
    assert interval.estimate == np.quantile(values, 0.95, method="inverted_cdf")
    assert interval.ci_low < interval.estimate < interval.ci_high
    assert interval.n == 300


def test_levels_worked_by_hand():
    # 4 users, 5 requests each, 5, 5, 4 and 5 at or below the p90: share .95; residuals .25 .25 -.75 .25
    # se^2 = 4/3 * .75 / 400 = .0025, se = .05; levels .9 -+ 1.96 * .05 = .802 and .998
    low, high = quantile_levels(ratio_sums([5, 5, 5, 5], [5, 5, 4, 5]), 0.9)
    assert (low, high) == pytest.approx((0.802002, 0.997998), abs=1e-6)


def test_it_agrees_with_a_bootstrap_of_users():
    users, values = simulated_latencies(2, 400)
    found, rng = quantile_interval(users, values), np.random.default_rng(0)
    own = [values[users == user] for user in range(400)]  # whole users are drawn
    drawn = [np.concatenate([own[user] for user in rng.integers(0, 400, 400)]) for _ in range(400)]
    low, high = np.quantile([np.quantile(one, 0.95) for one in drawn], [0.025, 0.975])
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high), rel=0.05)


def test_a_slower_treatment_fails_its_guardrail_and_an_equal_one_passes():
    control = simulated_latencies(3, 3000)
    same, slower = simulated_latencies(4, 3000), simulated_latencies(4, 3000, factor=1.4)
    assert (
        noninferiority_test(quantile_by_user(control, same), 250, lower_is_better=True).verdict
        == "not worse"
    )
    assert (
        noninferiority_test(quantile_by_user(control, slower), 250, lower_is_better=True).verdict
        == "not shown"
    )


def test_swapping_the_arms_mirrors_the_difference():
    one, other = simulated_latencies(5), simulated_latencies(6)
    there, back = quantile_by_user(one, other), quantile_by_user(other, one)
    assert there.diff == -back.diff
    assert (there.ci_low, there.ci_high) == pytest.approx((-back.ci_high, -back.ci_low))


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_users_have_no_limits(n):
    interval = quantile_interval(list(range(n)), [float(i) for i in range(n)])
    assert (interval.ci_low, interval.ci_high) == (None, None)
    assert interval.notes
    assert quantile_test(interval, interval).ci_low is None


def test_requests_and_users_must_match():
    with pytest.raises(DesignError, match="need one for each"):
        quantile_interval([1, 2], [1.0])
    with pytest.raises(DesignError, match="same"):
        quantile_test(quantile_interval([1], [1.0], 0.5), quantile_interval([1], [1.0], 0.9))
