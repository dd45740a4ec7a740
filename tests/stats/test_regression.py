import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from evalkit.errors import DesignError
from evalkit.stats import gee_odds_table, linear_probability_table, paired_binary_test


def frame_of(rates, n, seed=1):
    """Both models on n examples a slice; rates are {slice: (base, fine_tuned)}."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "example_id": f"{one}{i}",
            "fine_tuned": model,
            "correct": int(rng.random() < rate[model]),
            "slice": one,
        }
        for one, rate in rates.items()
        for i in range(n)
        for model in (0, 1)
    ]
    return pd.DataFrame(rows)


TWO = frame_of({"multi": (0.5, 0.3), "single": (0.4, 0.7)}, 120)


def counts(frame):
    wide = frame.pivot_table(index="example_id", columns="fine_tuned", values="correct")
    return [
        int(((wide[0] == a) & (wide[1] == b)).sum()) for a, b in ((1, 1), (0, 1), (1, 0), (0, 0))
    ]


def test_a_slice_with_a_colon_in_its_name_keeps_its_numbers_apart_from_it():
    named = linear_probability_table(frame_of({"a: b": (0.5, 0.3), "worse: c": (0.4, 0.7)}, 120))
    plain = linear_probability_table(frame_of({"ab": (0.5, 0.3), "worsec": (0.4, 0.7)}, 120))

    def cells(table):
        return [part.split("</td>")[0] for part in table._repr_html_().split("<td>")[1:]]

    assert cells(named)[1:3] == cells(plain)[1:3]


def test_the_plain_coefficient_is_b_minus_c_over_n_exactly():
    row = linear_probability_table(TWO).rows[0]
    assert row.estimate == pytest.approx(paired_binary_test(*counts(TWO)).diff, abs=1e-12)
    assert row.n == 240


def test_slices_and_their_contrast_are_the_interaction_model():
    fit = smf.ols("correct ~ fine_tuned * slice", TWO).fit(
        cov_type="cluster", cov_kwds={"groups": pd.factorize(TWO["example_id"])[0]}, use_t=True
    )
    _, multi, single, contrast = linear_probability_table(TWO).rows
    assert multi.estimate == pytest.approx(fit.params["fine_tuned"])
    assert multi.p_value == pytest.approx(fit.pvalues["fine_tuned"])
    name = "fine_tuned:slice[T.single]"
    assert (
        contrast.estimate
        == pytest.approx(fit.params[name])
        == pytest.approx(single.estimate - multi.estimate)
    )
    assert (contrast.ci_low, contrast.ci_high) == pytest.approx(tuple(fit.conf_int().loc[name]))
    assert contrast.p_value == pytest.approx(fit.pvalues[name])


def test_odds_ratios_are_statsmodels_gee():
    fit = smf.gee(
        "correct ~ fine_tuned * slice", "example_id", TWO, family=sm.families.Binomial()
    ).fit()
    _, multi, single, contrast = gee_odds_table(TWO).rows
    assert multi.estimate == pytest.approx(np.exp(fit.params["fine_tuned"]), rel=1e-6)
    name = "fine_tuned:slice[T.single]"
    assert contrast.estimate == pytest.approx(np.exp(fit.params[name]), rel=1e-6)
    assert contrast.p_value == pytest.approx(fit.pvalues[name], rel=1e-5)
    assert (multi.verdict, single.verdict) == ("worse", "better")


def test_an_odds_ratio_worked_by_hand():
    # base 1 of 4 right (odds 1/3), fine-tuned 2 of 4 (odds 1): ratio 3
    rows = [(i, m, int(i < (2 if m else 1))) for i in range(4) for m in (0, 1)]
    row = gee_odds_table(pd.DataFrame(rows, columns=["example_id", "fine_tuned", "correct"])).rows[
        0
    ]
    assert row.estimate == pytest.approx(3.0)


def test_a_slice_at_100_percent_is_caught_and_the_others_stay():
    data = pd.concat([TWO, frame_of({"easy": (0.6, 1.0)}, 40)])
    table = gee_odds_table(data)
    rows = {row.slice: row for row in table.rows if row.slice}
    assert (rows["easy"].estimate, rows["easy"].p_value) == (None, None)
    assert "n/a" in str(rows["easy"])
    assert "easy" in table.notes[0]
    assert rows["multi"].estimate == pytest.approx(gee_odds_table(TWO).rows[1].estimate, rel=1e-6)
    linear = {row.slice: row for row in linear_probability_table(data).rows}
    assert linear["easy"].fine_tuned_rate == 1.0
    assert linear["easy"].estimate > 0.2


def test_perfect_models_have_no_odds_and_no_interval_but_no_crash():
    data = pd.DataFrame(
        [(i, m, 1) for i in range(5) for m in (0, 1)],
        columns=["example_id", "fine_tuned", "correct"],
    )
    for table in (gee_odds_table(data), linear_probability_table(data)):
        assert table.rows[0].p_value is None
        assert table.rows[0].notes
        json.dumps(table.to_dict(), allow_nan=False)


def test_slices_are_set_against_the_largest_and_small_ones_show_no_p():
    sizes = {"alpha": 12, "beta": 100, "gamma": 40}
    data = pd.concat([frame_of({one: (0.5, 0.7)}, n) for one, n in sizes.items()])
    for table in (linear_probability_table(data), gee_odds_table(data)):
        rows = {row.term.removeprefix("Fine-tuned, "): row for row in table}
        wanted = [
            "all examples",
            "beta",
            "gamma",
            "alpha",
            "gamma against beta",
            "alpha against beta",
        ]
        assert list(rows) == wanted
        assert [name for name, row in rows.items() if row.p_value is None] == [
            "alpha",
            "alpha against beta",
        ]
        assert [row.few for row in rows.values()] == [name.startswith("alpha") for name in wanted]
        assert rows["alpha"].ci_low < rows["alpha"].estimate < rows["alpha"].ci_high
        assert rows["alpha"].notes == ("n < 30: no p",)


def test_a_slice_only_one_model_answered_is_not_fitted():
    half = frame_of({"lost": (0.5, 0.5)}, 20).query("fine_tuned == 0")
    rows = {row.slice: row for row in linear_probability_table(pd.concat([TWO, half])).rows}
    assert rows["lost"].estimate is None


def test_a_single_example_gives_no_interval():
    data = pd.DataFrame({"example_id": [1, 1], "fine_tuned": [0, 1], "correct": [0, 1]})
    assert linear_probability_table(data).rows[0].p_value is None
    assert gee_odds_table(data).rows[0].estimate is None


def test_pandas_categories_booleans_and_gaps_are_accepted():
    data = TWO.assign(
        fine_tuned=TWO["fine_tuned"].astype(bool), correct=TWO["correct"].astype(bool)
    )
    data["slice"] = data["slice"].where(data["slice"] != "multi", None).astype("category")
    terms = [row.slice for row in linear_probability_table(data).rows if row.slice]
    assert terms == ["(none)", "single"]


def test_a_declared_source_can_be_the_cluster():
    data = TWO.assign(source=[i // 20 for i in range(len(TWO))])
    by_source, by_example = (
        linear_probability_table(data, cluster="source"),
        linear_probability_table(data),
    )
    assert by_source.rows[0].estimate == pytest.approx(by_example.rows[0].estimate)
    assert by_source.rows[0].p_value != by_example.rows[0].p_value


def test_it_reads_without_statistics():
    table = linear_probability_table(TWO)
    assert table.reading.startswith("A row says by how many points")
    assert str(table.rows[1]).startswith("Fine-tuned, multi: ")
    assert table.rows[0].term == "Fine-tuned, all examples"
    hostile = TWO.assign(slice="<script>alert(1)</script>")
    assert "<script>" not in gee_odds_table(hostile)._repr_html_()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.drop(columns="correct"), "lacks correct"),
        (lambda data: data.assign(correct=0.5), "something else than 0 and 1"),
        (lambda data: data.assign(fine_tuned=1), "one model only"),
    ],
)
def test_frames_that_cannot_be_used_are_refused(change, message):
    with pytest.raises(DesignError, match=message):
        linear_probability_table(change(TWO))


@pytest.mark.parametrize("fit", [linear_probability_table, gee_odds_table])
@pytest.mark.parametrize("n_slices", [1, 2, 39, 40, 41, 500])
@pytest.mark.parametrize("n_each", [1, 2])
def test_slices_of_one_or_two_examples_never_end_the_table(fit, n_slices, n_each):
    frame = frame_of({f"s{i}": (0.4, 0.6) for i in range(n_slices)}, n_each)
    table = fit(frame)
    shown = [row.slice for row in table if row.slice is not None]
    assert len(shown) == (n_slices if n_slices <= 40 else 21)
    assert all(row.p_value is None for row in table if row.slice in shown and row.few)


@pytest.mark.parametrize("fit", [linear_probability_table, gee_odds_table])
def test_missing_and_single_values_of_a_slice_are_slices_too(fit):
    frame = frame_of({"a": (0.5, 0.5), "b": (1.0, 1.0)}, 40)
    frame.loc[frame["slice"] == "b", "slice"] = None
    assert {row.slice for row in fit(frame)} == {None, "a", "(none)"}
    assert len(list(fit(frame.assign(slice="only")))) == 2
