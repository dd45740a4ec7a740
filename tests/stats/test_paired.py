import itertools
import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar

from evalkit.errors import DesignError
from evalkit.stats import (
    noninferiority_test,
    paired_binary_test,
    paired_mean_test,
    tango_interval,
)
from evalkit.stats.paired import sign_flip_p

cells = st.tuples(*[st.integers(0, 60)] * 4).filter(lambda four: sum(four) > 0)
groups = st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 5)), min_size=6, max_size=40)


def test_a_hand_worked_case():
    # b = 1 fixed, c = 5 regressed: exact p = 2 * (C(6,0) + C(6,1)) / 2^6 = 14/64 = 0.21875
    # pmf(1; 6, 1/2) = 6/64 = 0.09375, so mid-p = 0.21875 - 0.09375 = 0.125
    test = paired_binary_test(20, 1, 5, 14)
    assert test.p_exact == pytest.approx(0.21875)
    assert test.p_value == pytest.approx(0.125)
    assert test.diff == pytest.approx(-4 / 40)
    assert (test.base_rate, test.fine_tuned_rate) == (
        pytest.approx(25 / 40),
        pytest.approx(21 / 40),
    )
    assert (test.estimate, test.n, test.verdict) == (test.diff, 40, "no difference shown")


def test_a_published_case():
    # Fagerland, Lydersen & Laake 2013 and 2014: airway hyper-responsiveness, n12 = 1, n21 = 7 of 21
    test = paired_binary_test(1, 1, 7, 12)
    assert test.p_exact == pytest.approx(0.0703, abs=5e-5)
    assert test.p_value == pytest.approx(0.0391, abs=5e-5)
    assert (test.ci_low, test.ci_high) == (
        pytest.approx(-0.517, abs=5e-4),
        pytest.approx(-0.026, abs=5e-4),
    )
    assert test.verdict == "worse"


def test_the_exact_p_is_statsmodels_exact_p():
    for b, c in [(0, 3), (9, 4), (30, 55), (400, 333)]:
        assert paired_binary_test(5, b, c, 5).p_exact == pytest.approx(
            sm_mcnemar([[5, b], [c, 5]], exact=True).pvalue
        )


def test_tango_by_a_second_implementation():
    # the score statistic with the restricted rate found by maximising the multinomial likelihood numerically
    def score(b, c, n, delta):
        def loss(q):
            p_b, p_c = q + delta, q
            rest = 1 - p_b - p_c
            return -(b * np.log(p_b) + c * np.log(p_c) + (n - b - c) * np.log(rest))

        low, high = max(0, -delta) + 1e-10, (1 - delta) / 2 - 1e-10
        q = optimize.minimize_scalar(
            loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
        ).x
        return (b - c - n * delta) / np.sqrt(n * (2 * q + delta * (1 - delta)))

    for b, c, n in [(12, 5, 60), (3, 14, 100), (20, 20, 90)]:
        low, high = tango_interval(b, c, n)
        assert score(b, c, n, low) == pytest.approx(1.959964, abs=1e-3)
        assert score(b, c, n, high) == pytest.approx(-1.959964, abs=1e-3)


def test_nothing_discordant_is_p_1_and_has_an_interval():
    test = paired_binary_test(30, 0, 0, 20)
    assert (test.p_value, test.p_exact, test.diff, test.verdict) == (
        1.0,
        1.0,
        0.0,
        "no difference shown",
    )
    assert test.ci_low < 0 < test.ci_high


def test_equal_discordant_counts_use_the_mid_p_of_their_own():
    # b = c = 3: mid-p = 1 - C(6,3) / 2^6 / 2 = 1 - 20/128
    assert paired_binary_test(1, 3, 3, 1).p_value == pytest.approx(1 - 20 / 128)


def test_no_examples_are_too_early_not_an_error():
    test = paired_binary_test(0, 0, 0, 0)
    assert (test.diff, test.p_value, test.ci_low, test.verdict) == (None, None, None, "too early")
    assert "no examples" in str(test)


def test_few_discordant_examples_say_so():
    assert "p_exact" in " ".join(paired_binary_test(90, 5, 0, 5).notes)


@pytest.mark.parametrize("bad", [-1, 2.5, "3", None, float("nan"), float("inf")])
def test_impossible_counts_are_refused(bad):
    with pytest.raises(DesignError, match="fixed is"):
        paired_binary_test(1, bad, 1, 1)


def test_numpy_counts_give_plain_numbers():
    test = paired_binary_test(*np.array([30, 9, 2, 9]))
    assert {type(value) for value in test.to_dict().values()} <= {int, float, str, list, bool}
    assert json.loads(json.dumps(test.to_dict(), allow_nan=False)) == test.to_dict()


@given(cells)
def test_swapping_the_models_mirrors_the_result(four):
    a, b, c, d = four
    one, other = paired_binary_test(a, b, c, d), paired_binary_test(a, c, b, d)
    assert one.p_value == other.p_value
    assert one.diff == -other.diff
    assert one.ci_low == pytest.approx(-other.ci_high, abs=1e-8)
    assert {one.verdict, other.verdict} in ({"better", "worse"}, {"no difference shown"})


@given(cells)
def test_the_interval_contains_the_estimate_and_widens_with_confidence(four):
    wide, narrow = paired_binary_test(*four, alpha=0.01), paired_binary_test(*four)
    assert -1 <= wide.ci_low <= narrow.ci_low <= narrow.diff <= narrow.ci_high <= wide.ci_high <= 1


@given(cells, st.integers(1, 500))
def test_examples_both_get_right_change_neither_p_nor_the_counts(four, more):
    a, b, c, d = four
    before, after = paired_binary_test(a, b, c, d), paired_binary_test(a + more, b, c, d)
    assert (before.p_value, before.fixed, before.regressed) == (
        after.p_value,
        after.fixed,
        after.regressed,
    )


def test_a_paired_mean_worked_by_hand():
    # d = 1, 2, 3, 6: mean 3, squares 4 + 1 + 0 + 9 = 14, se = sqrt(14/3/4) = 1.0801, t = 2.7775, df 3
    test = paired_mean_test([1, 2, 3, 6])
    assert (test.estimate, test.se, test.df) == (3.0, pytest.approx(1.080123), 3)
    assert test.t_score == pytest.approx(2.777460)
    assert test.p_value == pytest.approx(stats.ttest_rel([1, 2, 3, 6], [0, 0, 0, 0]).pvalue)


@given(groups)
def test_clusters_agree_with_statsmodels(rows):
    d, g = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if len(set(g)) < 2 or d.std() < 1e-3:
        return
    fit = smf.ols("d ~ 1", pd.DataFrame({"d": d})).fit(
        cov_type="cluster", cov_kwds={"groups": g}, use_t=True
    )
    test = paired_mean_test(d, g)
    assert test.se == pytest.approx(fit.bse.iloc[0], rel=1e-6, abs=1e-9)
    if test.p_value is not None:
        assert test.p_value == pytest.approx(fit.pvalues.iloc[0], rel=1e-5, abs=1e-9)
        assert (test.ci_low, test.ci_high) == pytest.approx(
            tuple(fit.conf_int().iloc[0]), rel=1e-5, abs=1e-8
        )


@given(groups, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows, random):
    mixed = random.sample(rows, len(rows))
    one, other = (
        paired_mean_test([d for d, _ in some], [g for _, g in some]) for some in (rows, mixed)
    )
    assert one.estimate == pytest.approx(other.estimate, abs=1e-9)
    assert one.n_clusters == other.n_clusters
    if one.p_value is not None and other.p_value is not None:
        assert one.p_value == pytest.approx(other.p_value, rel=1e-5, abs=1e-9)


def test_ones_own_cluster_each_is_the_plain_t_test():
    d = [0.1, -0.2, 0.4, 0.3, 0.0]
    assert paired_mean_test(d, list("abcde")).p_value == pytest.approx(paired_mean_test(d).p_value)


def test_few_clusters_and_one_cluster_say_so():
    assert "only 3 clusters" in " ".join(paired_mean_test([1, 2, 3], list("abc")).notes)
    lonely = paired_mean_test([1, 2, 3], list("aaa"))
    assert (lonely.p_value, lonely.ci_low, lonely.estimate) == (None, None, 2.0)
    assert "at least two" in lonely.notes[0]


@pytest.mark.parametrize("values", [[], [0.5]])
def test_undefined_is_none_with_a_reason(values):
    test = paired_mean_test(values)
    assert (test.p_value, test.ci_low, test.ci_high) == (None, None, None)
    assert test.notes
    assert test.verdict in {"too early", "no difference shown"}


def test_no_spread_is_the_sign_test_on_units_with_an_interval():
    # n of n one way: p = 2 / 2^n; otherwise could be 1 - .025^(1/n) of the units, of the other sign
    for n, verdict in ((2, "no difference shown"), (5, "no difference shown"), (6, "worse")):
        test = paired_mean_test([-0.2] * n)
        assert (test.p_value, test.verdict) == (pytest.approx(2 / 2**n), verdict)
        reach = 2 * 0.2 * (1 - 0.025 ** (1 / n))
        assert (test.ci_low, test.ci_high) == pytest.approx((-0.2 - reach, -0.2 + reach))
        assert "sign test" in test.method
        assert "equal" in test.notes[0]


def test_no_spread_between_clusters_counts_clusters_not_examples():
    # 12 clusters of 5, every difference +1: p = 2 / 2^12
    test = paired_mean_test([1.0] * 60, np.repeat(np.arange(12), 5))
    assert (test.p_value, test.verdict) == (pytest.approx(2 / 2**12), "better")
    assert test.ci_low == pytest.approx(1 - 2 * (1 - 0.025 ** (1 / 12)))
    assert test.ci_high == 1.0


def test_identical_models_have_an_interval_by_the_number_of_units():
    for clusters, units in ((None, 200), (np.arange(200) // 4, 50)):
        test = paired_mean_test([0.0] * 200, clusters)
        assert (test.p_value, test.verdict) == (1.0, "no difference shown")
        assert test.ci_high == -test.ci_low == pytest.approx(1 - 0.025 ** (1 / units))
        assert noninferiority_test(test, 0.1).verdict == "not worse"
    assert noninferiority_test(paired_mean_test([0.0] * 5), 0.1).verdict == "not shown"
    assert paired_mean_test([0.0] * 50, largest=None).ci_low is None


@pytest.mark.parametrize("n", [5, 6, 12, 29, 30, 50])
def test_one_tie_among_the_unanimous_flips_nothing(n):
    unanimous, tied = paired_mean_test([1.0] * n), paired_mean_test([1.0] * (n - 1) + [0.0])
    assert unanimous.verdict == ("better" if n > 5 else "no difference shown")
    assert tied.verdict in {unanimous.verdict, "no difference shown"}
    assert tied.verdict == ("better" if n > 6 else "no difference shown")


def test_sign_flips_counted_one_by_one():
    rng = np.random.default_rng(3)
    for n in (1, 4, 9):
        d = rng.integers(-3, 5, n) / 3
        flips = np.array(list(itertools.product([-1, 1], repeat=n))) @ d
        up, down = (float((side <= 1e-9).mean()) for side in (d.sum() - flips, flips - d.sum()))
        # as large as seen, or larger: sum of flipped >= sum seen
        assert sign_flip_p(d) == pytest.approx(min(1.0, 2 * min(up, down)))


def test_sign_flips_agree_with_scipys_permutation_test():
    d = np.array([0.4, -0.1, 0.3, 0.25, 0.6, -0.2, 0.15, 0.5])
    found = stats.permutation_test(
        (d, np.zeros(8)), lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples", vectorized=True,
    )  # fmt: skip
    assert sign_flip_p(d) == pytest.approx(found.pvalue)


def test_too_many_units_to_flip_are_refused():
    with pytest.raises(DesignError, match="31 units"):
        sign_flip_p([1.0] * 31)


votes = st.lists(
    st.lists(st.sampled_from([-1, 0, 1]), min_size=3, max_size=3), min_size=2, max_size=29
)


@given(votes, st.data())
def test_more_agreement_never_weakens_a_verdict(items, data):
    place = data.draw(st.integers(0, len(items) - 1))
    raised = [max(vote, data.draw(st.sampled_from([-1, 0, 1]))) for vote in items[place]]
    means = [sum(votes) / 3 for votes in items]
    more = [*means[:place], sum(raised) / 3, *means[place + 1 :]]
    before, after = paired_mean_test(means), paired_mean_test(more)
    order = ["worse", "no difference shown", "better"]
    assert order.index(after.verdict) >= order.index(before.verdict)
    if before.verdict == "better":
        assert after.p_decides <= before.p_decides + 1e-12


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 12)), min_size=4, max_size=60), st.data()
)
def test_a_cluster_moved_towards_the_winner_never_weakens_a_verdict(rows, data):
    d, owners = [one for one, _ in rows], [owner for _, owner in rows]
    if len(set(owners)) < 2:
        return
    chosen, lift = data.draw(st.sampled_from(owners)), data.draw(st.floats(0, 2))
    more = [one + lift * (owner == chosen) for one, owner in rows]
    before, after = paired_mean_test(d, owners), paired_mean_test(more, owners)
    order = ["worse", "no difference shown", "better"]
    assert order.index(after.verdict) >= order.index(before.verdict)


@given(cells, st.sampled_from([(2, 0), (2, 3), (2, 1), (0, 1), (3, 1)]))
def test_an_example_moved_towards_the_winner_never_weakens_a_verdict(four, move):
    # from regressed to both right, both wrong or fixed; from both right or both wrong to fixed
    source, target = move
    if not four[source]:
        return
    more = [k - (at == source) + (at == target) for at, k in enumerate(four)]
    before, after = paired_binary_test(*four), paired_binary_test(*more)
    order = ["worse", "no difference shown", "better"]
    assert order.index(after.verdict) >= order.index(before.verdict)
    assert after.ci_low >= before.ci_low - 1e-9


def test_gaps_are_refused_not_dropped():
    with pytest.raises(DesignError, match="missing"):
        paired_mean_test([0.1, float("nan")])
    with pytest.raises(DesignError, match="missing"):
        paired_mean_test([0.1, None])
    with pytest.raises(DesignError, match="one for each"):
        paired_mean_test([0.1, 0.2], ["a"])
    with pytest.raises(DesignError, match="1 of them missing"):
        paired_mean_test([0.1, 0.2], ["a", None])


def test_p_stays_above_zero_however_far_in_the_tail():
    # 2 * C(1088, 5) / 2^1088 is about 8e-315, where the distribution function has become 0
    found = paired_binary_test(0, 1083, 5, 0)
    assert 0 < found.p_value < found.p_exact < 1e-300
