import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from evalkit.errors import DesignError
from evalkit.stats import (
    MeanSums,
    RatioSums,
    combine_phases,
    cuped_test,
    cuped_test_from_sums,
    mean_test,
    mean_test_from_sums,
    noninferiority_test,
    proportion_z_test,
    quantile_interval,
    quantile_test,
    ratio_sums,
    ratio_test,
    ratio_test_from_sums,
)
from evalkit.stats.users import newcombe_by_user, wilson_by_user

user = st.integers(1, 12).flatmap(lambda x: st.tuples(st.just(x), st.integers(0, x)))
users = st.lists(user, min_size=3, max_size=60).map(
    lambda rows: tuple(map(list, zip(*rows, strict=True)))
)
numbers = st.lists(st.floats(-1000, 1000, allow_nan=False), min_size=3, max_size=50)


def simulated_users(seed, n, rate=0.3):
    rng = np.random.default_rng(seed)
    requests = rng.poisson(4, n) + 1
    return requests, rng.binomial(requests, rng.beta(9 * rate, 9 * (1 - rate), n))


def test_a_hand_worked_ratio():
    # users (requests, successes): (2, 1) and (2, 2): ratio 3/4; residuals y - .75 x = -.5 and .5
    # se^2 = n/(n-1) * sum(residual^2) / (sum x)^2 = 2 * .5 / 16 = .0625, se = .25
    # the other arm (3, 0), (1, 1): ratio 1/4; residuals -.75 and .75, se^2 = 2 * 1.125 / 16 = .140625
    # under the null the ratio is 4/8: residuals y - .5 x are 0, 1, -1.5, .5, squares 3.5; 3.5 * 4/3 / 8 = .58333 a request,
    # z = -.5 / sqrt(.58333 * (1/4 + 1/4)) = -.92582; four users: Fisher on 2 of 2 and 1 of 2 with a success, p = 1
    test = ratio_test(([2, 2], [1, 2]), ([3, 1], [0, 1]))
    assert (test.control_rate, test.treatment_rate, test.diff) == (0.75, 0.25, -0.5)
    assert test.se == pytest.approx(0.203125**0.5)
    assert test.z_score == pytest.approx(-0.92582, abs=5e-6)
    assert (test.p_value, test.p_exact) == (1.0, 1.0)
    assert test.n == 4


def test_the_ratio_by_cluster_robust_regression():
    control, treatment = simulated_users(1, 60), simulated_users(2, 40, 0.4)
    rows = [
        (f"{arm}{u}", arm, int(i < y))
        for arm, (xs, ys) in enumerate((control, treatment))
        for u, (x, y) in enumerate(zip(xs, ys, strict=True))
        for i in range(x)
    ]
    frame = pd.DataFrame(rows, columns=["user", "t", "y"])
    groups = pd.factorize(frame["user"])[0]
    fit = smf.ols("y ~ t", frame).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    # the regression divides by n where the delta method divides by n - 1: undo that in each arm
    variance = sum(
        ratio_test(arm, arm).se ** 2 / 2 * (n - 1) / n
        for arm, n in ((control, 60), (treatment, 40))
    )
    test = ratio_test(control, treatment)
    assert test.diff == pytest.approx(fit.params["t"])
    assert variance**0.5 == pytest.approx(fit.bse["t"])
    assert test.se == pytest.approx(fit.bse["t"], rel=0.02)


@given(users, users)
def test_sums_say_what_arrays_say(control, treatment):
    one = ratio_test(control, treatment)
    assert one == ratio_test_from_sums(ratio_sums(*control), ratio_sums(*treatment))


@given(users, users)
def test_swapping_the_arms_mirrors_the_ratio_test(control, treatment):
    one, other = ratio_test(control, treatment), ratio_test(treatment, control)
    assert one.diff == -other.diff
    assert one.p_value == other.p_value
    if one.ci_low is not None:
        assert one.ci_low == pytest.approx(-other.ci_high)
        assert one.ci_low <= one.diff <= one.ci_high


@given(users, users)
def test_the_order_of_users_changes_nothing(control, treatment):
    turned = tuple(list(reversed(column)) for column in control)
    assert ratio_test(control, treatment).diff == pytest.approx(ratio_test(turned, treatment).diff)


def test_one_request_a_user_is_nearly_the_z_test():
    control, treatment = ([1] * 1000, [1] * 80 + [0] * 920), ([1] * 1000, [1] * 110 + [0] * 890)
    by_user, by_request = ratio_test(control, treatment), proportion_z_test(80, 1000, 110, 1000)
    assert by_user.diff == pytest.approx(by_request.diff)
    assert by_user.z_score == pytest.approx(by_request.z_score, rel=0.005)
    assert (by_user.lift_ci_low, by_user.lift_ci_high) == pytest.approx(
        (by_request.lift_ci_low, by_request.lift_ci_high), abs=0.02
    )


@pytest.mark.parametrize(
    "pair",
    [
        (([], []), ([1], [1])),
        (([0, 0], [0, 0]), ([1, 2], [1, 1])),
        (([1], [1]), ([1], [0])),
        (([1, 1], [2, 2]),) * 2,
    ],
)
def test_what_is_undefined_is_none_with_a_reason(pair):
    test = ratio_test(*pair)
    assert (test.p_value, test.z_score, test.ci_low) == (None, None, None)
    assert test.notes


@pytest.mark.parametrize("successes", [0, 1])
def test_where_nothing_varied_there_is_no_test_but_an_interval(successes):
    arms = [([1] * n, [successes] * n) for n in (400, 300)]
    test = ratio_test(*arms)
    # 0 of 400 and 0 of 300: Wilson's upper limits z^2 / (n + z^2), Newcombe's interval lies between them
    z2 = 1.959964**2
    ends = [z2 / (400 + z2), z2 / (300 + z2)]
    low, high = (-ends[0], ends[1]) if not successes else (-ends[1], ends[0])
    assert (test.ci_low, test.ci_high) == (pytest.approx(low), pytest.approx(high))
    assert (test.p_value, test.z_score, test.verdict) == (None, None, "no difference shown")
    assert noninferiority_test(test, 0.02).verdict == "not worse"


def test_a_mean_that_varies_in_neither_variant_has_the_interval_of_its_test():
    test = mean_test([3.0] * 40, [1.0] * 60)
    assert (test.verdict, test.p_value) == ("worse", None)
    # of 40 (60) users who are all alike at most 1 - .025^(1/40) (1/60) may be of the other kind
    reach = 2.0 * ((1 - 0.025 ** (1 / 40)) ** 2 + (1 - 0.025 ** (1 / 60)) ** 2) ** 0.5
    assert (test.ci_low, test.ci_high) == (pytest.approx(-2 - reach), pytest.approx(-2 + reach))
    tiny = mean_test([1.0] * 2, [3.0] * 2)
    assert tiny.p_exact == pytest.approx(2 / 6)
    assert tiny.ci_low < 0 < tiny.ci_high


def test_a_zero_control_has_no_lift():
    test = ratio_test(([2, 3], [0, 0]), ([2, 3], [1, 1]))
    assert (test.lift, test.lift_ci_low, test.lift_ci_high) == (None, None, None)
    assert any("lift" in note for note in test.notes)


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(DesignError, match="need both for each user"):
        ratio_test(([1, 2], [1]), ([1, 2], [1, 1]))
    with pytest.raises(DesignError, match="fewer than 0"):
        ratio_test(([1, -2], [1, 1]), ([1, 2], [1, 1]))
    with pytest.raises(DesignError, match="missing"):
        ratio_test(([1, None], [1, 1]), ([1, 2], [1, 1]))


def test_sums_that_cannot_be_are_refused():
    good = RatioSums(n=4, sum_x=10, sum_y=4, sum_xx=30, sum_xy=12, sum_yy=6)
    with pytest.raises(DesignError, match="variance is negative"):
        ratio_test_from_sums(
            good, RatioSums(n=4, sum_x=10, sum_y=4, sum_xx=30, sum_xy=120, sum_yy=6)
        )
    with pytest.raises(DesignError, match="finite"):
        mean_test_from_sums(
            MeanSums(n=2, sum_y=float("nan"), sum_yy=1), MeanSums(n=2, sum_y=1, sum_yy=1)
        )


@given(numbers, numbers)
def test_the_mean_test_is_welchs(control, treatment):
    if np.std(control) < 1e-2 or np.std(treatment) < 1e-2:
        return
    test, other = (
        mean_test(control, treatment),
        stats.ttest_ind(treatment, control, equal_var=False),
    )
    assert test.z_score == pytest.approx(other.statistic, rel=1e-4, abs=1e-7)
    assert test.p_value == pytest.approx(other.pvalue, rel=1e-4, abs=1e-7)
    assert (test.ci_low, test.ci_high) == pytest.approx(
        tuple(other.confidence_interval()), rel=1e-4, abs=1e-3
    )


def test_a_mean_without_variance_is_undefined():
    test = mean_test([2, 2, 2], [2, 2, 2])
    assert (test.diff, test.p_value, test.verdict) == (0.0, None, "no difference shown")


def test_big_sums_keep_their_variance():
    # 1,000,000 latencies around 2,000 ms: sums of squares near 4e12 must not lose the spread of 300 ms
    values = np.random.default_rng(3).normal(2000, 300, 1_000_000)
    assert mean_test(values, values + 1).se == pytest.approx(300 * (2 / 1e6) ** 0.5, rel=0.01)


def test_cuped_agrees_with_the_regression_and_is_sharper():
    rng = np.random.default_rng(4)
    before, t = rng.normal(10, 3, 4000), rng.integers(0, 2, 4000)
    y = 2 + 0.8 * before + 0.1 * t + rng.normal(0, 1, 4000)
    frame = pd.DataFrame({"y": y, "t": t, "x": before - before.mean()})
    fit = smf.ols("y ~ t + x", frame).fit(cov_type="HC1")
    arms = [(before[t == arm], y[t == arm]) for arm in (0, 1)]
    test = cuped_test(*arms)
    assert test.diff == pytest.approx(fit.params["t"], abs=2e-4)
    assert test.se == pytest.approx(fit.bse["t"], rel=0.002)
    assert test.se < mean_test(arms[0][1], arms[1][1]).se / 2
    assert test == cuped_test_from_sums(*(ratio_sums(*arm) for arm in arms))


def test_cuped_without_users_or_spread_falls_back():
    assert cuped_test(([], []), ([], [])).estimate is None
    flat, y = [5, 5, 5], [1.0, 2.0, 3.0]
    assert (
        cuped_test((flat, y), (flat, [2.0, 3.0, 4.5])).p_value
        == mean_test(y, [2.0, 3.0, 4.5]).p_value
    )


def test_two_phases_worked_by_hand():
    # weights 1/.01^2 = 10000 and 1/.02^2 = 2500: diff = (10000 * .03 + 2500 * -.02) / 12500 = .02, se = 12500^-.5
    phases = [proportion_z_test(80, 1000, 110, 1000)] * 2
    same = combine_phases(phases)
    assert same.diff == pytest.approx(0.03)
    assert same.se == pytest.approx(phases[0].se / 2**0.5)
    assert same.n == 4000


def test_a_phase_without_variance_is_left_out_and_said_so():
    test = combine_phases([proportion_z_test(0, 50, 0, 50), proportion_z_test(80, 1000, 110, 1000)])
    assert test.diff == pytest.approx(0.03)
    assert "1 of 2 phases" in test.notes[0]
    nothing = combine_phases([proportion_z_test(0, 50, 0, 50)])
    assert (nothing.estimate, nothing.p_value, nothing.verdict) == (None, None, "too early")


def test_a_ramp_does_not_fool_the_phases():
    # rates .30 then .32 in both arms, 10% then 50% in treatment: pooled users differ, phases do not
    first, second = (
        proportion_z_test(2700, 9000, 300, 1000),
        proportion_z_test(1600, 5000, 1600, 5000),
    )
    pooled = proportion_z_test(2700 + 1600, 14000, 300 + 1600, 6000)
    assert combine_phases([first, second]).diff == pytest.approx(0.0, abs=1e-12)
    assert pooled.diff > 0.009


def test_small_differences_of_large_values_keep_their_variance():
    # milliseconds since 1970 and the like: sums of squares of 1e9 + 1 have no digit left for a variance of 1
    small, large = ([1.0, 2.0, 3.0], [1.0, 2.0, 4.0]), 1e9
    near, far = (
        mean_test(*small),
        mean_test(*([value + large for value in values] for values in small)),
    )
    assert far.p_value == pytest.approx(near.p_value, rel=1e-6)
    assert mean_test([0.1] * 7, [0.3] * 1000).p_value is None


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_newcombes_interval_by_user_is_statsmodels_where_each_has_one_request(n_old, n_new, data):
    old, new = data.draw(st.integers(0, n_old)), data.draw(st.integers(0, n_new))
    sums = [ratio_sums(np.ones(n), np.arange(n) < k) for k, n in ((old, n_old), (new, n_new))]
    other = confint_proportions_2indep(
        new, n_new, old, n_old, compare="diff", method="newcomb", alpha=0.05
    )
    assert newcombe_by_user(*sums, 0.05) == pytest.approx(other, abs=1e-9)


def test_wilson_by_user_is_wilson_at_the_requests_that_users_are_worth():
    # Rao & Scott 1992: the variance by user over that by request, here of twins: two requests that are always alike
    k = np.array([2.0] * 30 + [0.0] * 70)
    _, low, high = wilson_by_user(ratio_sums(np.full(100, 2.0), k), 0.05)
    assert (low, high) == pytest.approx(proportion_confint(30, 100, method="wilson"))


def test_the_difference_of_quantiles_has_limits_from_those_of_both():
    users, values = np.arange(400) % 80, np.random.default_rng(2).exponential(1, (2, 400))
    old, new = (quantile_interval(users, one, 0.9) for one in values)
    test = quantile_test(old, new)
    fall = (new.estimate - new.ci_low) ** 2 + (old.ci_high - old.estimate) ** 2
    rise = (new.ci_high - new.estimate) ** 2 + (old.estimate - old.ci_low) ** 2
    assert test.ci_low == pytest.approx(test.diff - fall**0.5)
    assert test.ci_high == pytest.approx(test.diff + rise**0.5)


def test_the_lift_of_a_mean_by_the_errors_of_the_logs():
    rng = np.random.default_rng(5)
    old, new = rng.gamma(2, 3, 500), rng.gamma(2, 3.5, 400)
    test = mean_test(old, new)
    se = sum(one.var(ddof=1) / len(one) / one.mean() ** 2 for one in (old, new)) ** 0.5
    middle, reach = np.log(new.mean() / old.mean()), stats.t.isf(0.025, test.df) * se
    ends = np.exp([middle - reach, middle + reach]) - 1
    assert (test.lift_ci_low, test.lift_ci_high) == pytest.approx(tuple(ends))
