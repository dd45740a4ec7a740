"""What decides an A/B difference where the usual error bars do not hold; each case with its figure."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from evalkit.stats import (
    RatioSums,
    combine_phases,
    cuped_test,
    mean_test,
    ratio_test,
    ratio_test_from_sums,
    single_look_power,
    user_design_effect,
    users_needed,
    users_power,
)
from evalkit.stats.result import two_sided_p
from evalkit.stats.sequential import crossing_chance, obrien_fleming_bounds
from evalkit.stats.sums import (
    Null,
    binary_p,
    exact_p,
    lean_of_difference,
    null_of,
    ratio_sums,
    skewed_p,
    skewed_quantile,
    skewed_tail,
)


def once(n, k):
    """Users with one request each, k of them with a success."""
    return np.ones(n), (np.arange(n) < k).astype(float)


def test_no_event_in_the_small_variant_is_not_worse():
    # Fisher on 27 of 9,000 against 0 of 1,000: p = 0.105
    test = ratio_test(once(9000, 27), once(1000, 0))
    assert test.p_value == test.p_exact == pytest.approx(0.1047, abs=1e-4)
    assert test.verdict == "no difference shown"
    assert test.ci_low < 0 < test.ci_high


def test_no_failure_in_the_small_variant_is_read_alike():
    one, other = (
        ratio_test(once(9000, 27), once(1000, 0)),
        ratio_test(once(9000, 8973), once(1000, 1000)),
    )
    assert other.p_value == pytest.approx(one.p_value)
    assert other.diff == pytest.approx(-one.diff)


def test_few_events_without_counts_have_no_p_and_say_why():
    sums = RatioSums(n=1000, sum_x=3000, sum_y=2, sum_xx=12000, sum_xy=6, sum_yy=2)
    test = ratio_test_from_sums(sums, sums)
    assert test.p_value is None
    assert any("n_hit" in note for note in test.notes)


def test_counts_of_users_may_be_whole_floats_as_frames_have_them():
    sums = RatioSums(n=3, sum_x=3, sum_y=2, sum_xx=3, sum_xy=2, sum_yy=2, n_hit=2, n_miss=1)
    floats = replace(sums, n_hit=2.0, n_miss=np.float64(1))
    assert ratio_test_from_sums(floats, sums) == ratio_test_from_sums(sums, sums)


@pytest.mark.parametrize("each", [1, 3])
def test_unanimous_users_are_a_difference(each):
    # 0% of 50 users against 100% of 50: no spread within either, p < 1e-10, and an interval
    control = (np.full(50, each), np.zeros(50))
    test = ratio_test(control, (np.full(50, each), np.full(50, each)))
    assert test.verdict == "better"
    assert test.p_value < 1e-10
    assert 0.8 < test.ci_low < test.diff == 1.0
    # six against six: 2 / C(12, 6) = 2 / 924
    assert ratio_test(once(6, 0), once(6, 6)).p_value == pytest.approx(2 / 924)


def test_means_without_spread_follow_the_exact_test():
    test = mean_test([2.0] * 6, [3.0] * 6)
    assert (test.p_value, test.verdict) == (None, "better")
    assert test.p_exact == pytest.approx(2 / 924)
    assert mean_test([2.0] * 6, [2.0] * 6).verdict == "no difference shown"


@given(st.integers(0, 12), st.integers(0, 12))
def test_the_exact_p_is_fishers(old, new):
    null = Null(se=None, n=(30, 12), hits=(old, new), misses=(30 - old, 12 - new))
    other = stats.fisher_exact([[new, 12 - new], [old, 30 - old]])[1]
    assert exact_p([null]) == pytest.approx(other, rel=1e-9)


@given(st.floats(-4, 4), st.floats(-0.9, 0.9))
@example(0.0, 5e-4)
@example(-2.0, -9e-4)
def test_the_skewed_curve_is_pearsons(value, skew):
    assert skewed_tail(value, skew) == pytest.approx(stats.pearson3.sf(value, skew), abs=1e-6)
    assert skewed_quantile(skewed_tail(0.5, skew), skew) == pytest.approx(0.5, abs=2e-3)
    assert skewed_p(value, 0.0) == pytest.approx(two_sided_p(value))


@pytest.mark.parametrize(("old", "new"), [(27, 0), (300, 50), (4500, 480), (8990, 1000), (0, 0)])
def test_all_outcomes_at_once_say_what_one_test_says(old, new):
    test = ratio_test(once(9000, old), once(1000, new))
    assert binary_p(old, 9000, new, 1000) == pytest.approx(test.p_value or 1.0, rel=2e-3)


def test_a_phase_without_events_gets_no_weight_from_it():
    # phase 1: 30 of 9,000 and 0 of 1,000; own errors give it (30 / 9000^2)^-1 = 2.7 million, the common rate 1/3.0e-6
    first, second = (
        ratio_test(once(9000, 30), once(1000, 0)),
        ratio_test(once(5000, 50), once(5000, 50)),
    )
    both = combine_phases([first, second])
    assert both.weights[0] == pytest.approx(
        first.se_null**-2 / (first.se_null**-2 + second.se_null**-2)
    )
    assert (first.se, first.se_null) == pytest.approx((6.08e-4, 1.82e-3), rel=0.01)
    assert both.verdict == "no difference shown"


def test_one_user_who_is_a_variant_gives_no_verdict():
    rng = np.random.default_rng(0)
    x, y = np.ones(4000), (rng.uniform(size=4000) < 0.2).astype(float)
    heavy_x, heavy_y = x.copy(), (rng.uniform(size=4000) < 0.2).astype(float)
    heavy_x[0], heavy_y[0] = 20_000, 19_990
    test = ratio_test((x, y), (heavy_x, heavy_y))
    assert test.verdict == "invalid"
    assert "one user holds 83% of treatment's requests" in test.no_verdict
    heavy_x[0], heavy_y[0] = 600, 120  # 13%: a note
    test = ratio_test((x, y), (heavy_x, heavy_y))
    assert (test.verdict, test.no_verdict) == ("no difference shown", "")
    assert any("leans on that user" in note for note in test.notes)


def revenue(rng, n, paying=0.05, sd=1.5):
    return np.where(rng.uniform(size=n) < paying, rng.lognormal(0, sd, n), 0.0)


def test_heavy_tails_at_an_unequal_split_are_refused_with_the_remedy():
    rng = np.random.default_rng(1)
    test = mean_test(revenue(rng, 9000), revenue(rng, 1000))
    assert test.verdict == "invalid"
    assert "cap_per_user" in test.no_verdict
    equal = mean_test(revenue(rng, 5000), revenue(rng, 5000))
    assert equal.no_verdict == ""
    assert any("skewness" in note for note in equal.notes)
    capped = [np.minimum(revenue(rng, n), 3.0) for n in (90_000, 10_000)]
    assert mean_test(*capped).no_verdict == ""


def test_heavy_users_need_more_than_a_design_effect_of_1():
    rng = np.random.default_rng(2)
    x = np.where(rng.uniform(size=20_000) < 0.02, 100, 1)
    own = rng.beta(0.3 * 1.5, 0.7 * 1.5, 20_000)
    found = user_design_effect(x, rng.binomial(x, own))
    # icc 0.4: sum m^2 / (sum m)^2 n = (.98 + .02 * 1e4) / (.98 + 2)^2 = 22.6, times about .4
    assert 7 < found < 12


def test_looks_cost_what_the_tables_say():
    # O'Brien-Fleming spending, 80%: the users grow by 1.6% for 4 looks and 4% for 14
    for looks, inflation in ((2, 1.008), (4, 1.021), (14, 1.043)):
        power = single_look_power(looks)
        drift = stats.norm.ppf(power) + 1.95996
        assert (drift / 2.80159) ** 2 == pytest.approx(inflation, abs=0.008)
        assert crossing_chance([n / looks for n in range(1, looks + 1)], drift) == pytest.approx(
            0.8, abs=1e-4
        )


def simulated(rng, rates, sizes, looks, n_runs=8000):
    """Shares of runs in which a plan of so many looks names treatment better, and worse."""
    levels = [
        two_sided_p(one) for one in obrien_fleming_bounds([n / looks for n in range(1, looks + 1)])
    ]
    shown, so_far, users = np.zeros(n_runs), np.zeros((2, n_runs), int), np.zeros(2, int)
    for look, level in enumerate(levels, 1):
        now = np.round(np.array(sizes) * look / looks).astype(int)
        for arm in (0, 1):
            so_far[arm] += rng.binomial(now[arm] - users[arm], rates[arm], n_runs)
        users = now
        crossed = (shown == 0) & (binary_p(so_far[0], users[0], so_far[1], users[1]) <= level)
        shown[crossed] = np.sign(so_far[1] / users[1] - so_far[0] / users[0])[crossed]
    return float((shown > 0).mean()), float((shown < 0).mean())


PLANS = [
    (0.001, 0.001),
    (0.003, 0.006),
    (0.01, 0.01),
    (0.01, -0.005),
    (0.05, 0.02),
    (0.05, -0.02),
    (0.3, 0.05),
    (0.5, 0.05),
]


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize(("rate", "difference"), PLANS)
def test_plans_keep_their_level_and_their_promise(rate, difference, share):
    rng = np.random.default_rng(7)
    for looks in (1, 4, 14):
        size = users_needed(rate, rate + difference, share, looks=looks)
        sizes = (size.n_control, size.n_treatment)
        promised = users_power(*sizes, rate, rate + difference, looks=looks)
        assert promised == pytest.approx(0.8, abs=0.006)
        better, worse = simulated(rng, (rate, rate + difference), sizes, looks, 20_000)
        assert better + worse == pytest.approx(0.8, abs=0.015)  # 1 point, and 0.3 of simulation
        better, worse = simulated(rng, (rate, rate), sizes, looks, 20_000)
        assert better + worse <= 0.06
        if min(sizes) * rate >= 10:
            assert better + worse >= 0.04
            assert 0.015 <= worse <= 0.035


@pytest.mark.slow
def test_own_errors_at_an_uneven_split_must_fail():
    # negative control: each variant's own errors, 0.1%, 10/90: far too many, nearly all of them worse
    rng = np.random.default_rng(8)
    old, new = rng.binomial(18_000, 0.001, 20_000), rng.binomial(2000, 0.001, 20_000)
    se = (old / 18_000**2 + new / 2000**2) ** 0.5
    z = (new / 2000 - old / 18_000) / se
    assert (np.abs(z) > 1.96).mean() > 0.10
    assert (binary_p(old, 18_000, new, 2000) < 0.05).mean() < 0.06


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "sizes"), [(0.01, (9000, 1000)), (0.3, (900, 100))])
def test_returning_and_heavy_users_keep_the_level(rate, sizes):
    rng, found = np.random.default_rng(9), []
    for _ in range(2500):
        arms = []
        for n in sizes:
            x = np.ceil(rng.pareto(1.5, n) + 0.2).clip(1, 300).astype(int)
            arms.append((x, rng.binomial(x, rng.beta(rate * 9, (1 - rate) * 9, n))))
        test = ratio_test(*arms)
        found.append(test.verdict in {"better", "worse"})
    assert 0.035 <= np.mean(found) <= 0.062


@pytest.mark.slow
def test_revenue_names_no_winner_where_there_is_none():
    rng = np.random.default_rng(10)
    tests = [mean_test(revenue(rng, 9000), revenue(rng, 1000)) for _ in range(600)]
    assert np.mean([one.p_value < 0.05 for one in tests]) > 0.08  # negative control: Welch alone
    assert np.mean([one.verdict in {"better", "worse"} for one in tests]) < 0.05


def test_cuped_refuses_heavy_tails_at_an_unequal_split_as_the_mean_test_does():
    # 5% pay, lognormal: after the adjustment still 9% of A/A tests at 10/90 named a winner
    rng, n = np.random.default_rng(2), 8000
    named, refused = {0.5: [], 0.1: []}, {0.5: [], 0.1: []}
    for split, runs in ((0.5, 200), (0.1, 60)):
        for _ in range(runs):
            habit = rng.normal(0, 1, n)
            x, y = (
                (rng.random(n) < 0.05) * np.exp(1.5 * (0.6 * habit + 0.8 * rng.normal(0, 1, n)))
                for _ in "xy"
            )
            new = rng.random(n) < split
            test = cuped_test((x[~new], y[~new]), (x[new], y[new]))
            named[split].append(test.verdict in {"better", "worse"})
            refused[split].append(test.verdict == "invalid")
    assert np.mean(named[0.5]) <= 0.1
    assert np.mean(refused[0.5]) <= 0.1
    assert np.mean(refused[0.1]) > 0.95


def test_the_tails_of_what_is_left_are_those_of_the_residuals():
    rng = np.random.default_rng(3)
    x = rng.gamma(2, 1, 400)
    y = 3 * x + rng.exponential(1, 400) ** 2
    left = y - 3 * x
    squares, cubes = ratio_sums(x, y).tails(3.0)
    assert squares == pytest.approx(((left - left.mean()) ** 2).sum())
    assert cubes == pytest.approx(((left - left.mean()) ** 3).sum())


@pytest.mark.parametrize(
    "phases",
    [
        [((40, 10), (1, 3))],
        [((40, 10), (1, 3)), ((20, 25), (2, 0))],
        [((9, 30), (0, 2)), ((12, 12), (1, 1)), ((50, 5), (3, 2))],
    ],
)
def test_the_exact_p_over_phases_by_every_table_they_could_have_given(phases):
    """Zelen 1971: the chance of all sums of treatment's events that are no likelier than the one seen."""
    nulls = [
        Null(se=None, n=n, hits=hits, misses=(n[0] - hits[0], n[1] - hits[1])) for n, hits in phases
    ]
    chances = {}
    for tables in itertools.product(*(range(sum(hits) + 1) for _, hits in phases)):
        laws = [stats.hypergeom(sum(n), sum(hits), n[1]) for n, hits in phases]
        chance = math.prod(law.pmf(k) for law, k in zip(laws, tables, strict=True))
        chances[sum(tables)] = chances.get(sum(tables), 0.0) + chance
    seen = chances[sum(hits[1] for _, hits in phases)]
    other = sum(one for one in chances.values() if one <= seen * (1 + 1e-7))
    assert exact_p(nulls) == pytest.approx(other)


def test_the_null_has_the_spread_and_skewness_of_users_assigned_anew():
    # every way in which 3 of 12 users, two requests each, may fall to treatment
    n, m, y = 12, 3, np.array([0, 0, 1, 0, 2, 0, 0, 1, 0, 0, 0, 2], float)
    x, e = np.full(n, 2.0), y - y.mean()
    sums = np.array([e[list(one)].sum() for one in itertools.combinations(range(n), m)])
    found = null_of(ratio_sums(x[m:], y[m:]), ratio_sums(x[:m], y[:m]))
    assert found.se == pytest.approx(sums.std() * (1 / (2 * m) + 1 / (2 * (n - m))))
    # a sample without replacement is skewed a little more: by sqrt(n (n - 1)) / (n - 2)
    assert found.skew * (n * (n - 1)) ** 0.5 / (n - 2) == pytest.approx(stats.skew(sums))


@pytest.mark.parametrize(("old", "new"), [(0.02, 0.2), (0.1, 0.4), (0.5, 0.5)])
def test_the_power_of_few_users_by_every_outcome_they_could_have(old, new):
    sizes, shown = (40, 25), 0.0
    for a, b in itertools.product(range(sizes[0] + 1), range(sizes[1] + 1)):
        p_value = ratio_test(once(sizes[0], a), once(sizes[1], b)).p_value
        chance = stats.binom.pmf(a, sizes[0], old) * stats.binom.pmf(b, sizes[1], new)
        shown += chance * (p_value is not None and p_value < 0.05)
    assert users_power(*sizes, old, new) == pytest.approx(shown, abs=1e-4)


def test_the_lean_of_a_difference_by_its_cumulants():
    # third cumulants of means: skew / n^2, with a minus for the one that is taken away
    lean = lean_of_difference(2.0, (900, 100))
    assert lean == pytest.approx((2 / 100**2 - 2 / 900**2) / (1 / 100 + 1 / 900) ** 1.5)
    assert lean_of_difference(2.0, (500, 500)) == 0
