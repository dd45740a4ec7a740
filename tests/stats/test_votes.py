import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.api import GLM, families
from statsmodels.stats.anova import anova_lm

from evalkit.errors import DesignError
from evalkit.stats import (
    item_mean_test,
    length_adjusted_preference,
    paired_binary_test,
    position_bias,
    rater_sample_test,
    win_rate,
)

votes = st.tuples(*[st.integers(0, 60)] * 3).filter(lambda three: sum(three) > 0)


def test_a_hand_worked_win_rate():
    # 7 wins, 1 loss, 2 ties: score = (7 + 1) / 10 = .8; sign test p = 2 * (1 + 8) / 2^8 = .0703125
    test = win_rate(7, 1, 2)
    assert (test.score, test.p_value) == (pytest.approx(0.8), pytest.approx(0.0703125))
    assert (test.n, test.verdict) == (10, "no difference shown")


def test_the_sign_test_is_scipys():
    assert win_rate(30, 12, 8).p_value == pytest.approx(stats.binomtest(30, 42).pvalue)


@given(votes)
def test_the_interval_is_tangos_halved(three):
    won, lost, tied = three
    test, paired = win_rate(won, lost, tied), paired_binary_test(0, won, lost, tied)
    assert (test.ci_low, test.ci_high) == pytest.approx(
        (0.5 + paired.ci_low / 2, 0.5 + paired.ci_high / 2)
    )
    assert 0 <= test.ci_low <= test.score <= test.ci_high <= 1


@given(votes)
def test_swapping_the_models_mirrors_the_votes(three):
    won, lost, tied = three
    one, other = win_rate(won, lost, tied), win_rate(lost, won, tied)
    assert one.score == pytest.approx(1 - other.score)
    assert one.p_value == other.p_value


def test_all_ties_are_p_1_and_no_votes_are_too_early():
    assert (win_rate(0, 0, 9).p_value, win_rate(0, 0, 9).score) == (1.0, 0.5)
    nothing = win_rate(0, 0, 0)
    assert (nothing.score, nothing.p_value, nothing.verdict) == (None, None, "too early")


def test_a_bot_that_always_prefers_the_fine_tuned_text_scores_1():
    assert (win_rate(50, 0, 0).score, win_rate(50, 0, 0).verdict) == (1.0, "better")
    assert win_rate(2, 40, 0).verdict == "worse"


def test_items_not_votes_are_counted():
    # three raters agreeing on 5 items are 5 observations: means 1, 1, -1, 0, 1 -> t-test of those
    items = [[1, 1, 1], [1, 1, 1], [-1, -1, -1], [0, 0, 0], [1, 1, 1]]
    test = item_mean_test(items)
    assert test.n == 5
    assert test.p_value == pytest.approx(stats.ttest_1samp([1, 1, -1, 0, 1], 0).pvalue)
    assert test.score == pytest.approx(0.5 + 0.4 / 2)
    assert (test.wins, test.losses, test.ties) == (3, 1, 1)


def test_one_vote_an_item_is_the_sign_test():
    assert item_mean_test([[1], [1], [0], [-1], []]) == win_rate(2, 1, 1)


def test_unanimous_items_win_by_the_sign_test_on_items():
    # 3 raters x 50 items, all for the fine-tuned model: p = 2 / 2^50 over items, not votes
    test = item_mean_test([[1, 1, 1]] * 50)
    assert (test.score, test.verdict, test.ci_high) == (1.0, "better", 1.0)
    assert test.p_value == pytest.approx(2 / 2**50)
    assert test.ci_low == pytest.approx(0.025 ** (1 / 50))
    assert (test.wins, test.losses, test.ties) == (50, 0, 0)
    assert item_mean_test([[-1, -1]] * 50).verdict == "worse"


@pytest.mark.parametrize("ties", range(0, 40, 3))
def test_ties_among_the_unanimous_flip_nothing(ties):
    items = [[1, 1, 1]] * (50 - ties) + [[0, 0, 0]] * ties
    assert item_mean_test(items).verdict == "better"


def test_three_unanimous_items_are_too_few_and_say_by_which_test():
    test = item_mean_test([[1, 1], [1, 1], [1, 1]])
    assert (test.score, test.p_value, test.verdict) == (1.0, 0.25, "no difference shown")
    assert test.ci_low < 0.5
    assert "sign test" in test.method
    assert test.notes


def test_a_vote_must_be_a_vote():
    with pytest.raises(DesignError, match="-1"):
        item_mean_test([[2, 1]])
    with pytest.raises(DesignError, match="losses is"):
        win_rate(1, -1, 0)


def test_position_bias_worked_by_hand():
    # 9 of 10 on side A: p = 2 * (1 + 10) / 2^10 = .0214844
    test = position_bias(9, 1)
    assert (test.rate_slot_a, test.p_value) == (0.9, pytest.approx(22 / 1024))
    assert str(test).startswith("Side A is favoured")
    assert position_bias(0, 0).rate_slot_a is None
    assert position_bias(1, 9).p_value == test.p_value


def simulated_votes(seed, n, preference, per_length):
    rng = np.random.default_rng(seed)
    lengths = rng.normal(20, 30, n)
    chance = 1 / (1 + np.exp(-(preference + per_length * lengths / 30)))
    return (rng.random(n) < chance).astype(int), lengths


def test_length_explains_what_length_explains():
    preferred, lengths = simulated_votes(6, 800, 0.0, 1.5)
    test = length_adjusted_preference(preferred, lengths)
    assert test.raw_rate > 0.6
    assert test.verdict == "no difference shown"
    assert test.ci_low < 0.5 < test.ci_high
    assert test.length_odds_ratio > 3


def test_a_real_preference_survives():
    preferred, lengths = simulated_votes(7, 800, 1.0, 0.5)
    test = length_adjusted_preference(preferred, lengths)
    assert (test.verdict, round(test.estimate, 1)) == ("better", 0.7)


def test_the_adjusted_value_is_the_logits_intercept():
    preferred, lengths = simulated_votes(8, 300, 0.4, 0.5)
    bounded = np.tanh(lengths / lengths.std())  # as Dubois et al. 2024
    fit = GLM(preferred, np.column_stack([np.ones(300), bounded]), family=families.Binomial()).fit()
    assert length_adjusted_preference(preferred, lengths).estimate == pytest.approx(
        1 / (1 + np.exp(-fit.params[0])), abs=1e-6
    )


def test_ties_are_left_out_and_counted():
    preferred, lengths = simulated_votes(9, 100, 0.4, 0.5)
    test = length_adjusted_preference([*preferred.tolist(), 0.5, None], [*lengths, 1, 2])
    assert test.n == 100
    assert "2 ties" in test.notes[0]


@pytest.mark.parametrize(
    ("preferred", "lengths"),
    [
        ([], []),
        ([1], [3]),
        ([1, 1, 1, 1], [1, 2, 3, 4]),
        ([1, 0, 1, 0], [5, 5, 5, 5]),
        ([0, 0, 1, 1], [-2, -1, 1, 2]),
    ],
)
def test_what_length_alone_decides_is_undefined(preferred, lengths):
    test = length_adjusted_preference(preferred, lengths)
    assert (test.estimate, test.p_value) == (None, None)
    assert any("no adjusted value" in note for note in test.notes)


def test_lists_must_match():
    with pytest.raises(DesignError, match="for each vote"):
        length_adjusted_preference([1, 0], [1])


def test_a_bounded_length_term_does_not_read_a_preference_off_outliers():
    # nobody prefers a model; being longer helps, but a text ten times too long helps no more than one that is long
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(4, 1.5, 3000)) - 20
    chance = 1 / (1 + np.exp(-2 * np.tanh(lengths / lengths.std())))
    preferred = (rng.random(3000) < chance).astype(int)
    test = length_adjusted_preference(preferred, lengths)
    assert test.ci_low < 0.5 < test.ci_high
    straight = GLM(preferred, np.column_stack([np.ones(3000), lengths]), family=families.Binomial())
    assert straight.fit().pvalues[0] < 0.001  # a line in raw length says "better" at equal length
    assert test.explains


def test_without_pairs_of_nearly_equal_length_nothing_is_adjusted():
    rng = np.random.default_rng(4)
    lengths = np.where(rng.random(200) < 0.5, 100.0, -100.0) + rng.normal(0, 5, 200)
    preferred = (rng.random(200) < 0.6).astype(int)
    test = length_adjusted_preference(preferred, lengths)
    assert (test.estimate, test.near_n, test.explains) == (None, 0, False)
    assert "no pairs of nearly equal length: no adjusted value exists" in test.notes


def test_the_rate_near_equal_length_stands_beside_the_fitted_one():
    preferred, lengths = simulated_votes(11, 2000, 0.5, 0.8)
    test = length_adjusted_preference(preferred, lengths)
    near = preferred[abs(lengths) <= np.median(abs(lengths)) / 4]
    assert (test.near_rate, test.near_n) == (pytest.approx(near.mean()), len(near))
    assert test.near_low < 1 / (1 + np.exp(-0.5)) < test.near_high


def crossed(seed, n_raters, taste, n=50):
    rng = np.random.default_rng(seed)
    latent = rng.normal(0, 0.6, n) + rng.normal(0, taste, (n_raters, 1))
    latent = latent + rng.normal(0, 1, (n_raters, n))
    return np.where(latent > 0.4, 1, np.where(latent < -0.4, -1, 0)).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("n_raters", [2, 3, 5])
@pytest.mark.parametrize("taste", [0.0, 0.2, 0.4])
def test_raters_as_a_sample_keep_the_level_whatever_their_tastes(n_raters, taste):
    rounds = [crossed(seed, n_raters, taste) for seed in range(500)]
    shown = [rater_sample_test(votes).verdict != "no difference shown" for votes in rounds]
    assert np.mean(shown) <= 0.075  # 2.5 standard errors above .05
    if taste == 0.4:  # the negative control: items alone mistake a taste for a difference
        items = [item_mean_test(list(zip(*votes, strict=True))).verdict for votes in rounds]
        assert np.mean([verdict != "no difference shown" for verdict in items]) > 0.2


def test_a_preference_all_raters_share_is_shown_for_raters_like_them():
    rng = np.random.default_rng(5)
    votes = rng.choice([-1, 0, 1], p=[0.1, 0.2, 0.7], size=(4, 60)).tolist()
    assert rater_sample_test(votes).verdict == "better"
    mirrored = rater_sample_test([[-vote for vote in row] for row in votes])
    assert mirrored.estimate == pytest.approx(1 - rater_sample_test(votes).estimate)
    assert mirrored.p_value == pytest.approx(rater_sample_test(votes).p_value)


@pytest.mark.parametrize(
    ("votes", "why"),
    [([], "one rater"), ([[1, 0, 1]], "one rater"), ([[1], [1]], "no two items"), ([[1, 1], [1, 1]], "every vote is the same")],
)  # fmt: skip
def test_what_cannot_speak_for_others_says_why(votes, why):
    test = rater_sample_test(votes)
    assert test.p_value is None
    assert why in test.notes[0]


def test_where_test_and_interval_part_a_sentence_says_which_decides():
    parted = [
        test
        for won in range(40)
        for lost in range(won)
        for tied in (0, 10, 40)
        if ((test := win_rate(won, lost, tied)).p_value < 0.05) is not (test.ci_low > 0.5)
    ]
    assert parted
    assert all(any("verdict follows the test" in note for note in one.notes) for one in parted)
    assert not any("verdict follows" in note for note in win_rate(30, 12, 8).notes)


@pytest.mark.parametrize("seed", range(4))
def test_raters_as_a_sample_by_the_mean_squares_of_an_analysis_of_variance(seed):
    votes = crossed(seed, 4, 0.3)
    rows = [(i, r, v / 2) for r, row in enumerate(votes) for i, v in enumerate(row)]
    frame = pd.DataFrame(rows, columns=["item", "rater", "y"])
    table = anova_lm(smf.ols("y ~ C(item) + C(rater)", frame).fit())
    square, df = table["sum_sq"] / table["df"], table["df"]
    n, ways = len(frame), ["C(item)", "C(rater)", "Residual"]
    by_item, by_rater, rest = square[ways]
    variance = max(by_item + by_rater - rest, by_item, by_rater) / n
    crossed_df = variance**2 / sum((square[one] / n) ** 2 / df[one] for one in ways)
    mean, alone = frame["y"].mean(), by_rater / n
    p_value = max(
        2 * stats.t.sf(abs(mean) / variance**0.5, crossed_df),
        2 * stats.t.sf(abs(mean) / alone**0.5, 3),
    )
    test = rater_sample_test(votes)
    assert test.p_value == pytest.approx(p_value)
    half = max(stats.t.isf(0.025, crossed_df) * variance**0.5, stats.t.isf(0.025, 3) * alone**0.5)
    assert test.ci_low == pytest.approx(max(0.0, 0.5 + mean - half))


@given(
    st.lists(
        st.lists(st.sampled_from([-1, 0, 1]), min_size=2, max_size=4), min_size=40, max_size=60
    )
)
def test_with_many_items_the_t_test_of_their_means_is_scipys(item_votes):
    test, means = item_mean_test(item_votes), [np.mean(one) for one in item_votes]
    if test.method == "t-test of item means":
        assert test.p_value == pytest.approx(stats.ttest_1samp(means, 0).pvalue, abs=1e-12)
