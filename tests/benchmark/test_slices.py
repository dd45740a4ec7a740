import math
import time
from dataclasses import replace

import pytest

from evalkit import stats
from evalkit.benchmark.comparison import compare_models
from evalkit.benchmark.slices import (
    examples_to_settle,
    most_lost,
    regression_frame,
    slice_table,
    slice_tables,
)
from evalkit.errors import DesignError
from evalkit.show import say


@pytest.fixture
def sliced(cells):
    """Single: 100 examples, 40 fixed. Double: 60 examples, 12 regressed. Rare: 10 examples, 5 regressed."""
    parts = [
        ("single", cells(20, 40, 0, 40)),
        ("double", cells(10, 0, 12, 38)),
        ("rare", cells(0, 0, 5, 5)),
    ]
    base, tuned = (
        [
            replace(one, example_id=f"{kind}-{i}", slices={"kind": kind})
            for kind, sides in parts
            for i, one in enumerate(sides[s])
        ]
        for s in (0, 1)
    )
    return compare_models(base, tuned)


def test_a_slice_lost_behind_a_better_average(sliced):
    table = slice_table(sliced)
    single, double, rare = table
    assert sliced.verdict == "better"
    assert (single.verdict, double.verdict, rare.verdict) == (
        "better",
        "worse",
        "no difference shown",
    )
    assert double.test == stats.paired_binary_test(10, 0, 12, 38)
    assert double.estimate == pytest.approx(-12 / 60)
    assert (double.base_rate, double.fine_tuned_rate) == pytest.approx((22 / 60, 10 / 60))
    assert [one.slice for one in table.worse] == ["kind = double"]


def test_holm_runs_over_the_slices_with_a_p(sliced):
    single, double, _ = slice_table(sliced)
    # two slices are tested: the smaller p is doubled, the larger stays
    assert single.p_adjusted == pytest.approx(2 * single.p_value)
    assert double.p_adjusted == pytest.approx(double.p_value)
    # 12 of 12 one way: exact p = 2 / 2^12, mid-p half of it
    assert double.p_exact == pytest.approx(2 / 4096)
    assert double.p_value == pytest.approx(1 / 4096)


def test_a_slice_below_thirty_shows_no_p_but_its_interval(sliced):
    rare = slice_table(sliced).rows[2]
    assert (rare.p_value, rare.p_exact, rare.p_adjusted) == (None, None, None)
    assert rare.ci_low < rare.estimate < rare.ci_high


def test_what_would_settle_a_slice_is_more_than_there_is(sliced):
    single, double, rare = slice_table(sliced)
    assert (single.n_to_settle, double.n_to_settle) == (None, None)
    # 5 of 10 regressed: Connor at alpha / 2 slices
    assert rare.n_to_settle == max(stats.examples_needed(0.0, 0.5, alpha=0.025), 11)


def priced(found, **options):
    return {row.value: row.n_to_settle for row in slice_table(found, **{"margin": 0.05, **options})}


def test_a_slice_not_shown_safe_is_priced_by_what_shows_it_safe(cells):
    # 84 examples, 16 fixed and 12 regressed, +4.8 points: detecting it takes 1,152, being safe within 5 points 278
    found = compare_models(*cells(30, 16, 12, 26, slices={"kind": "one"}))
    (row,) = slice_table(found, margin=0.05)
    assert row.safety == "not shown"
    assert row.n_to_settle == stats.examples_needed(16 / 84, 12 / 84, margin=0.05) == 278
    assert (
        priced(found, margin=None)
        == {"one": stats.examples_needed(16 / 84, 12 / 84)}
        == {"one": 1152}
    )


def test_a_safe_slice_has_no_price(cells):
    found = compare_models(*cells(450, 12, 10, 28, slices={"kind": "one"}))
    (row,) = slice_table(found, margin=0.05)
    assert (row.verdict, row.safety, row.n_to_settle) == ("no difference shown", "not worse", None)


def test_a_loss_of_the_margin_or_more_is_priced_by_what_shows_it_worse(cells):
    found = compare_models(*cells(40, 6, 12, 26, slices={"kind": "one"}))  # -7.1 points
    assert priced(found) == {"one": stats.examples_needed(6 / 84, 12 / 84)}


def test_a_score_is_safe_by_its_spread():
    # as below, but 0.1 + 0.05 away: n = (1.959964 + 0.841621)^2 * 0.48 / 0.0225 = 167.4
    test = stats.paired_mean_test([-0.5, 0.7, -0.5, 0.7])
    assert examples_to_settle(test, margin=0.05) == math.ceil(
        (1.959964 + 0.841621) ** 2 * 0.48 / 0.0225
    )
    assert examples_to_settle(stats.paired_mean_test([-0.5, 0.3, -0.5, 0.3]), margin=0.05) is None


def test_examples_without_the_field_have_no_price(cells):
    base, tuned = cells(10, 3, 5, 12)
    labelled = [
        [replace(one, slices={"kind": "one"} if i < 25 else {}) for i, one in enumerate(side)]
        for side in (base, tuned)
    ]
    found = priced(compare_models(*labelled))
    assert found["(not given)"] is None
    assert found["one"]


def test_nothing_seen_sizes_nothing():
    assert examples_to_settle(stats.paired_binary_test(5, 3, 3, 5)) is None
    assert examples_to_settle(stats.paired_binary_test(0, 0, 0, 0)) is None


def test_a_score_is_sized_by_its_spread():
    # mean 0.1, variance (4 * 0.36) / 3 = 0.48: n = (1.959964 + 0.841621)^2 * 0.48 / 0.01 = 376.7, rounded up
    test = stats.paired_mean_test([-0.5, 0.7, -0.5, 0.7])
    assert test.se * 2 == pytest.approx(0.6928, abs=1e-4)
    assert examples_to_settle(test) == math.ceil((1.959964 + 0.841621) ** 2 * 0.48 / 0.01)


def test_a_margin_asks_whether_a_slice_is_safe(sliced):
    single, double, rare = slice_table(sliced, margin=0.05)
    assert (single.safety, double.safety, rare.safety) == ("not worse", "not shown", "not shown")


def test_the_other_metrics_are_adjusted_together(sliced):
    first, formats, likeness = slice_tables(sliced)
    assert [one.metric for one in (first, formats, likeness)] == [
        "exact_match",
        "format",
        "similarity",
    ]
    raw = [row.p_value for table in (formats, likeness) for row in table]
    assert [row.p_adjusted for table in (formats, likeness) for row in table] == stats.adjust(raw)
    assert most_lost((formats, likeness)).metric == "similarity"
    for row in (*formats, *likeness):  # priced at the level of the family it was adjusted in
        level = row.test.alpha / formats.n_tested
        assert row.n_to_settle == (
            None
            if row.verdict in {"better", "worse"}
            else examples_to_settle(row.test, alpha=level)
        )


def test_examples_without_a_value_are_not_counted(answers):
    # 100 examples of one slice, the score is known of 20: too few for a p, and what would settle it is more than 20
    scores = [{"s": 0.5 + i % 3 / 10} if i < 20 else {"s": None} for i in range(100)]
    better = [{"s": one["s"] and one["s"] + 0.01 * (i % 2)} for i, one in enumerate(scores)]
    slices = {"kind": "x"}
    found = compare_models(
        answers([1] * 100, scores=scores, slices=slices),
        answers([1] * 100, scores=better, slices=slices),
        primary_metric="s",
    )
    (row,) = slice_table(found)
    assert (row.n, row.p_value) == (20, None)
    assert row.n_to_settle is not None
    assert row.n_to_settle > 20


def test_an_undeclared_field_is_named(sliced):
    with pytest.raises(DesignError, match=r"'colour'.*known are kind"):
        slice_table(sliced, fields=["colour"])


def test_no_examples_have_no_slices():
    assert len(slice_table(compare_models([], []), fields=["kind"])) == 0


def test_rows_for_the_evidence_hold_what_the_decision_reads(sliced):
    rows = slice_table(sliced).to_dict()
    wanted = {
        "slice",
        "n",
        "base_rate",
        "fine_tuned_rate",
        "diff",
        "ci_low",
        "ci_high",
        "p_value",
        "p_exact",
        "p_adjusted",
        "verdict",
    }
    assert wanted <= rows[0].keys()
    assert rows[1]["diff"] == pytest.approx(-0.2)


def test_the_plain_regression_gives_the_paired_difference_exactly(sliced):
    frame = regression_frame(sliced, field="kind")
    table = stats.linear_probability_table(frame)
    assert table.rows[0].estimate == pytest.approx((40 - 17) / 170, abs=1e-12)
    by_slice = {row.slice: row.estimate for row in table if row.slice}
    assert by_slice["kind = double"] == pytest.approx(-0.2)
    assert len(frame) == 2 * sliced.n


def test_a_slice_at_zero_separates_the_odds_and_says_so(sliced):
    odds = stats.gee_odds_table(regression_frame(sliced, field="kind"))
    assert "kind = rare" in " ".join(odds.notes)  # the fine-tuned model is never right there


def test_clusters_reach_the_slices(cells):
    found = compare_models(
        *cells(30, 30, 10, 10, cluster=[str(i // 4) for i in range(80)], slices={"kind": "all"})
    )
    assert slice_table(found).rows[0].test.method == "cluster-robust t"


@pytest.fixture
def by_id(cells):
    """120 examples, each with a value of its own in `patient`, two in `kind`."""
    base, tuned = (
        [
            replace(one, slices={"patient": f"p{i}", "kind": "ab"[i % 2]})
            for i, one in enumerate(side)
        ]
        for side in cells(30, 40, 20, 30)
    )
    return compare_models(base, tuned)


def test_a_field_with_a_value_a_row_is_twenty_values_and_the_rest(by_id):
    table = slice_table(by_id, fields=["patient", "kind"])
    patients = [row for row in table if row.field == "patient"]
    assert [row.n for row in patients] == [100, *[1] * 20]
    assert patients[0].value == "(the rest: 100 values)"
    assert sum(row.n for row in patients) == 120
    assert table.folded == {"patient": 120}
    assert "patient has 120 values" in say.slices_caption(table, 0.8)
    assert [row.value for row in table if row.field == "kind"] == ["a", "b"]


def test_the_regression_of_a_field_with_a_value_a_row_is_made_of_the_same_slices(by_id):
    frame = regression_frame(by_id, field="patient")
    assert frame["slice"].nunique() == 21
    for fit in (stats.linear_probability_table, stats.gee_odds_table):
        rows = list(fit(frame))
        assert rows[0].estimate is not None
        assert sum(row.slice is not None for row in rows) == 21


def test_forty_values_are_shown_one_by_one_and_none_given_is_not_counted(cells):
    base, tuned = (
        [
            replace(one, slices={"kind": f"k{i % 41}"} if i % 41 < 40 else {})
            for i, one in enumerate(side)
        ]
        for side in cells(30, 30, 30, 33)
    )
    table = slice_table(compare_models(base, tuned))
    assert len(table) == 41
    assert table.folded == {}


def test_ten_thousand_values_cost_no_more_than_twenty(cells):
    base, tuned = (
        [replace(one, slices={"id": str(i)}) for i, one in enumerate(side)]
        for side in cells(2500, 3000, 2000, 2500)
    )
    began = time.process_time()
    comparison = compare_models(base, tuned)
    frame = regression_frame(comparison, field="id")
    made = (
        slice_table(comparison),
        *(fit(frame) for fit in (stats.linear_probability_table, stats.gee_odds_table)),
    )
    assert time.process_time() - began < 15
    assert len(made[0]) == 21
