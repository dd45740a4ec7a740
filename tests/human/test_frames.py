"""The frames of a round: one row an observation, right dtypes, and the kit's numbers again by hand."""

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats
from scipy.special import expit

from evalkit.human.preference import read_preference
from evalkit.human.round import StudyRound

JUDGES = ("ann", "bob", "cid")


@pytest.fixture
def found(new_round, rate, likes):
    """60 pairs and 10 identical ones, three raters who lean to the tuned answers and hesitate now and then."""
    round_ = new_round(
        90, 60, same=range(10), raters=JUDGES, repeat_share=0.2, reasons=["tone", "facts"]
    )
    rng = np.random.default_rng(5)
    likes_tuned, likes_base = likes("tuned"), likes("base")

    def judge(item):
        draw = rng.random()
        return "tie" if draw < 0.1 else (likes_tuned if draw < 0.7 else likes_base)(item)

    for rater in JUDGES:
        rate(round_, rater, judge, reasons=["tone", "facts"])
    round_.lock()
    return read_preference(round_, slice_fields=["kind"])


def by_hand(found):
    """As notebook 04 counts it: the mean vote on each pair, identical answers as ties."""
    votes = found.to_frame()
    asked = votes[votes["shown_as"] == "asked"]
    scores = asked.groupby("item_id")["score"].mean().astype(float)
    return (1 + pd.concat([scores, pd.Series(0.0, index=range(found.identical))])) / 2


def test_the_win_rate_by_hand_is_the_kits(found):
    won = by_hand(found)
    assert len(won) == found.win_rate.n == 60 + found.identical
    assert won.mean() == pytest.approx(found.win_rate.estimate)
    assert found.win_rate.method == "t-test of item means"
    assert stats.ttest_1samp(won, 0.5).pvalue == pytest.approx(found.win_rate.p_value)
    low, high = stats.t.interval(0.95, len(won) - 1, won.mean(), won.sem())
    assert (low, high) == pytest.approx((found.win_rate.ci_low, found.win_rate.ci_high))


def test_the_rate_on_each_side_by_hand_is_the_kits(found):
    votes = found.to_frame()
    decided = votes[(votes["shown_as"] == "asked") & (votes["score"] != 0)]
    for side, kit in (("left", found.as_left), ("right", found.as_right)):
        won = decided.loc[decided["side"] == side, "score"] > 0
        limits = sm.stats.proportion_confint(int(won.sum()), len(won), method="wilson")
        assert won.mean() == pytest.approx(kit.estimate)
        assert limits == pytest.approx((kit.ci_low, kit.ci_high))


def test_the_logit_at_equal_length_by_hand_is_the_kits(results, rate, likes, tmp_path):
    from dataclasses import replace

    from evalkit.human.batch import prepare_human_eval_batch
    from evalkit.human.round import Round

    rng = np.random.default_rng(2)
    tuned = [
        replace(one, predicted=f"tuned {'x' * int(rng.integers(1, 40))}")
        for one in results(60, who="tuned")
    ]
    prepare_human_eval_batch(results(60), tuned, 60, seed=1, raters=("ann", "bob"), folder=tmp_path)
    round_ = Round.open(tmp_path)

    def judge(item):  # likes the longer answer more often than not
        longer = "left" if len(item["left"]) > len(item["right"]) else "right"
        return longer if rng.random() < 0.7 else "right" if longer == "left" else "left"

    for rater in ("ann", "bob"):
        rate(round_, rater, judge)
    round_.lock()
    found = read_preference(round_)
    asked = found.to_frame().query("shown_as == 'asked' and score != 0")
    asked = asked.assign(won=(asked["score"] > 0).astype(int), longer=asked["longer"].astype(float))
    fit = smf.logit("won ~ np.tanh(longer / longer.std())", asked).fit(
        disp=False,
        cov_type="cluster",
        cov_kwds={"groups": asked["item_id"].astype("category").cat.codes},
    )
    assert expit(fit.params["Intercept"]) == pytest.approx(found.length_adjusted.estimate, rel=1e-3)


def test_votes_are_tidy_and_typed(found):
    votes = found.to_frame()
    assert len(votes) == 3 * (60 + 12)
    assert list(votes["label"].cat.categories) == ["fine_tuned", "base", "tie", "both_bad"]
    assert votes["shown_as"].value_counts().to_dict() == {"asked": 180, "repeat": 36, "gold": 0}
    kinds = {name: str(kind) for name, kind in votes.dtypes.items()}
    assert kinds["rater"] == kinds["side"] == kinds["kind"] == "category"
    assert (kinds["score"], kinds["longer"], kinds["seconds"]) == ("Int8", "Int64", "Float64")
    assert (kinds["at"], kinds["simulated"]) == ("datetime64[us, UTC]", "boolean")
    assert not votes.drop(columns="note").isna().any(axis=None)
    assert set(votes["reasons"]) == {"tone; facts"}
    asked = votes[votes["shown_as"] == "asked"]
    assert asked["label"].value_counts().to_dict() == found.labels
    # the side of a decided vote is where the chosen answer stood, when the fine-tuned one won
    won = asked[asked["label"] == "fine_tuned"]
    assert (won["choice"].astype(str) == won["side"].astype(str)).all()


def test_a_slice_named_like_a_column_keeps_both(new_round, results, rate, likes, tmp_path):
    from evalkit.human.batch import prepare_human_eval_batch
    from evalkit.human.round import Round

    def named(i):
        return {"side": "dorsal" if i % 2 else "ventral", "style": "terse"}

    base, tuned = results(slices=named), results(who="tuned", slices=named)
    prepare_human_eval_batch(base, tuned, 20, seed=1, folder=tmp_path)
    round_ = Round.open(tmp_path)
    rate(round_, "rater1", likes("tuned"))
    round_.lock()
    votes = read_preference(round_).to_frame()
    assert set(votes["side"]) == {"left", "right"}
    assert set(votes["slice_side"]) == {"dorsal", "ventral"}
    assert set(votes["style"]) == {"terse"}


def test_raters_and_slices_say_what_the_record_says(found):
    raters = found.to_frame(by="rater").set_index("rater")
    assert list(raters.index) == list(JUDGES)
    assert raters["win_rate"].to_dict() == {
        name: pytest.approx(one.estimate) for name, one in found.by_rater.items()
    }
    assert raters["gold_rate"].isna().all()
    slices = found.to_frame(by="slice")
    assert list(slices["slice"]) == [one.slice for one in found.slices]
    assert slices["p_adjusted"].tolist() == [one.p_adjusted for one in found.slices]
    assert str(slices["shown"].dtype) == "boolean"


@pytest.mark.parametrize("by", ["vote", "rater", "slice"])
def test_a_sealed_round_gives_the_same_columns_and_no_row(new_round, rate, likes, found, by):
    round_ = new_round(raters=("ann", "bob"))
    rate(round_, "ann", likes("tuned"))
    for sealed in (read_preference(round_), read_preference(None)):
        frame = sealed.to_frame(by=by)
        assert len(frame) == 0
        assert frame.dtypes.drop("rater", errors="ignore").astype(str).to_dict() == {
            name: kind
            for name, kind in found.to_frame(by=by).dtypes.astype(str).items()
            if name not in {"kind", "rater"}
        }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(by_hand(sealed).mean())


def test_an_open_rounds_progress_and_pairs_are_frames_that_tell_nothing_of_models(
    new_round, rate, likes
):
    round_ = new_round(raters=("ann", "bob"))
    rate(round_, "ann", likes("tuned"))
    rating = StudyRound(round=round_, bound_to={})
    progress = rating.to_frame()
    assert progress["done"].tolist() == [22, 0]
    assert progress["last_at"].isna().tolist() == [False, True]
    assert str(progress["last_at"].dtype) == "datetime64[us, UTC]"
    pairs = rating.to_frame(by="pair")
    assert list(pairs) == ["item_id", "example_id", "input", "response_a", "response_b", "kind"]
    assert len(pairs) == 20
    none = StudyRound(round=None, bound_to={})
    assert len(none.to_frame()) == len(none.to_frame(by="pair")) == 0
