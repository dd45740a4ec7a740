import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit import stats
from evalkit.benchmark.comparison import compare_models
from evalkit.benchmark.slices import regression_frame, slice_table
from evalkit.errors import DesignError
from evalkit.records import EvalResult
from evalkit.show.regressions import slices_caption


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


@pytest.mark.parametrize("margin", ["x", -0.1, math.nan, math.inf, [0.05]])
def test_a_margin_that_is_no_number_is_refused(sliced, margin):
    with pytest.raises(DesignError, match=r"margin is .*; need a number of at least 0"):
        sliced.slices(by="kind", margin=margin)


def test_holm_runs_over_every_slice_by_its_exact_p(sliced):
    single, double, rare = slice_table(sliced)
    # three slices are tested: the smallest exact p three times, the next twice, the largest as it is
    assert single.p_adjusted == pytest.approx(3 * single.test.p_exact)
    assert double.p_adjusted == pytest.approx(2 * double.test.p_exact)
    assert rare.p_adjusted == pytest.approx(rare.test.p_exact)
    # 12 of 12 one way: exact p = 2 / 2^12, mid-p half of it
    assert double.test.p_exact == pytest.approx(2 / 4096)
    assert double.test.p_value == pytest.approx(1 / 4096)


def test_a_slice_below_thirty_is_tested_exactly_and_called_small(sliced):
    # 5 of 5 one way: exact p = 2 / 2^5
    rare = slice_table(sliced).rows[2]
    assert (rare.few, rare.test.p_exact, rare.verdict) == (True, 2 / 32, "no difference shown")
    assert rare.test.ci_low < rare.estimate < rare.test.ci_high


def sliced_by(cells, parts):
    """A comparison of slices, each given by its four cells."""
    sides = [[], []]
    for name, four in parts.items():
        for side, answers in zip(sides, cells(*four), strict=True):
            side += [
                replace(one, example_id=f"{name}-{i}", slices={"kind": name})
                for i, one in enumerate(answers)
            ]
    return compare_models(*sides)


@pytest.mark.parametrize("margin", [0.05, 0.0, None])
@pytest.mark.parametrize("n", [8, 12, 29])
def test_a_small_slice_that_falls_from_all_to_nothing_is_worse(cells, n, margin):
    # n of n lost: exact p = 2 / 2^n; the larger slice has the smaller p, so Holm's second step leaves it as it is
    found = sliced_by(cells, {"big": (100, 60, 5, 35), "small": (0, 0, n, 0)})
    big, small = slice_table(found, margin=margin)
    assert (found.verdict, big.verdict, small.verdict) == ("better", "better", "worse")
    assert small.p_adjusted == pytest.approx(2 / 2**n)


def test_an_interval_wholly_beyond_the_margin_is_worse_whatever_holm_says(cells):
    # 8 of 20 lost and none gained: exact p = 2 / 2^8 = .0078, over ten slices .078; Tango's 99% limit is -5.1 points
    rest = {f"k{i}": (20, 4, 4, 20) for i in range(9)}
    found = sliced_by(cells, {**rest, "small": (12, 0, 8, 0)})
    small = slice_table(found, margin=0.05).rows[-1]
    assert small.p_adjusted == pytest.approx(10 * 2 / 2**8)
    assert (small.beyond_margin, small.verdict, small.standing) == (True, "worse", "worse")
    assert slice_table(found).rows[-1].verdict == "no difference shown"  # no margin to be beyond


def test_what_is_not_shown_worse_has_one_of_three_words(cells):
    parts = {
        "safe": (430, 22, 20, 28),
        "bad": (10, 1, 4, 15),  # -10 points of 30
        "blind": (12, 2, 2, 14),
    }
    rows = {row.value: row for row in slice_table(sliced_by(cells, parts), margin=0.05)}
    assert {name: row.standing for name, row in rows.items()} == {
        "safe": "shown safe",
        "bad": "looks bad",
        "blind": "could not have been seen",
    }
    assert rows["blind"].chance_to_see < 0.1
    assert all(row.standing is None for row in slice_table(sliced_by(cells, parts)))


def test_the_chance_to_see_a_loss_is_the_exact_tests_own(cells):
    # simulated: 100 examples, 20% disagreement, a true loss of 10 points, at .05 over two slices
    found = sliced_by(cells, {"one": (50, 10, 10, 30), "two": (50, 10, 10, 30)})
    row = slice_table(found, margin=0.1).rows[0]
    draws = np.random.default_rng(0).multinomial(100, [0.05, 0.15, 0.8], 20_000)
    exact = {
        (b, c): stats.paired_binary_test(0, b, c, 100 - b - c).p_exact
        for b, c, _ in set(map(tuple, draws.tolist()))
    }
    seen = np.mean([exact[b, c] < 0.025 for b, c, _ in draws.tolist()])
    assert row.chance_to_see == pytest.approx(seen, abs=0.01)


def test_a_score_that_falls_everywhere_alike_is_worse_in_its_slice(answers):
    scores = [[{"s": 0.5 + i % 5 / 10 - drop} for i in range(60)] for drop in (0.0, 0.2)]
    slices = [{"kind": "small" if i < 12 else "big"} for i in range(60)]
    found = compare_models(
        *(answers([1] * 60, scores=side, slices=slices) for side in scores), primary_metric="s"
    )
    for row in slice_table(found, margin=0.05):
        assert row.verdict == "worse"
        assert row.test.ci_high < 0


@given(st.lists(st.tuples(*[st.integers(0, 9)] * 4).filter(sum), min_size=2, max_size=6), st.data())
def test_a_slice_that_loses_more_is_never_less_worse(parts, data):
    place = data.draw(st.integers(0, len(parts) - 1))
    both, fixed, lost, wrong = parts[place]
    source = data.draw(st.sampled_from([0, 1, 3]))
    if not (both, fixed, 0, wrong)[source]:
        return
    more = [k - (at == source) + (at == 2) for at, k in enumerate((both, fixed, lost, wrong))]
    before, after = (
        rows_of([*parts[:place], tuple(four), *parts[place + 1 :]])[f"k{place}"]
        for four in (parts[place], more)
    )
    order = ["worse", "no difference shown", "better"]
    assert order.index(after.verdict) <= order.index(before.verdict)


def rows_of(parts):
    sides = [[], []]
    for place, four in enumerate(parts):
        base = [1] * four[0] + [0] * four[1] + [1] * four[2] + [0] * four[3]
        tuned = [1] * four[0] + [1] * four[1] + [0] * four[2] + [0] * four[3]
        for side, flags in zip(sides, (base, tuned), strict=True):
            side += [
                EvalResult(
                    f"k{place}-{i}",
                    "q",
                    "a",
                    "a" if ok else "b",
                    bool(ok),
                    True,
                    slices={"kind": f"k{place}"},
                )
                for i, ok in enumerate(flags)
            ]
    return {row.value: row for row in slice_table(compare_models(*sides), margin=0.05)}


def test_what_cancels_but_for_rounding_has_no_price():
    test = stats.paired_mean_test([1 / 3, 1 / 3, -2 / 3, 1 / 3, 1 / 3, -2 / 3, 1e-17])
    assert 0 < abs(test.estimate) < 1e-15
    assert stats.examples_to_settle(test) is None  # it was 10^34 examples, which no frame holds


def test_what_would_settle_a_slice_is_more_than_there_is(sliced):
    single, double, rare = slice_table(sliced)
    assert (single.n_to_settle, double.n_to_settle) == (None, None)
    # 5 of 10 regressed: Connor at alpha / 3 slices
    assert rare.n_to_settle == max(stats.examples_needed(0.0, 0.5, alpha=0.05 / 3), 11)


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
    assert stats.examples_to_settle(test, margin=0.05) == math.ceil(
        (1.959964 + 0.841621) ** 2 * 0.48 / 0.0225
    )
    assert (
        stats.examples_to_settle(stats.paired_mean_test([-0.5, 0.3, -0.5, 0.3]), margin=0.05)
        is None
    )


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
    assert stats.examples_to_settle(stats.paired_binary_test(5, 3, 3, 5)) is None
    assert stats.examples_to_settle(stats.paired_binary_test(0, 0, 0, 0)) is None


def test_a_score_is_sized_by_its_spread():
    # mean 0.1, variance (4 * 0.36) / 3 = 0.48: n = (1.959964 + 0.841621)^2 * 0.48 / 0.01 = 376.7, rounded up
    test = stats.paired_mean_test([-0.5, 0.7, -0.5, 0.7])
    assert test.se * 2 == pytest.approx(0.6928, abs=1e-4)
    assert stats.examples_to_settle(test) == math.ceil((1.959964 + 0.841621) ** 2 * 0.48 / 0.01)


def test_a_margin_asks_whether_a_slice_is_safe(sliced):
    single, double, rare = slice_table(sliced, margin=0.05)
    assert (single.safety, double.safety, rare.safety) == ("not worse", "not shown", "not shown")


def test_the_other_metrics_are_adjusted_together(sliced):
    first = slice_table(sliced, others=True)
    formats, likeness = first.others
    assert [one.metric for one in (first, formats, likeness)] == [
        "exact_match",
        "format",
        "similarity",
    ]
    raw = [row.test.p_exact for table in (formats, likeness) for row in table]
    assert [row.p_adjusted for table in (formats, likeness) for row in table] == stats.adjust(raw)
    assert first.most_lost.metric == "similarity"
    for row in (*formats, *likeness):  # priced at the level of the family it was adjusted in
        level = row.test.alpha / row.n_tested
        assert row.n_to_settle == (
            None
            if row.verdict in {"better", "worse"}
            else stats.examples_to_settle(row.test, alpha=level)
        )


def test_examples_without_a_value_are_not_counted(answers):
    # 100 examples of one slice, the score is known of 20: what would settle it is more than 20
    scores = [{"s": 0.5 + i % 3 / 10} if i < 20 else {"s": None} for i in range(100)]
    better = [{"s": one["s"] and one["s"] + 0.01 * (i % 2)} for i, one in enumerate(scores)]
    slices = {"kind": "x"}
    found = compare_models(
        answers([1] * 100, scores=scores, slices=slices),
        answers([1] * 100, scores=better, slices=slices),
        primary_metric="s",
    )
    (row,) = slice_table(found)
    assert (row.n, row.few) == (20, True)
    # the 10 that moved all gained 0.01: exact p = 2 / 2^10, so it is settled
    assert (row.test.p_exact, row.verdict) == (pytest.approx(2 / 2**10), "better")


def test_an_undeclared_field_is_named(sliced):
    with pytest.raises(DesignError, match=r"'colour'.*known are kind.*Study.open\(.*slice_fields="):
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
    assert "patient has 120 values" in slices_caption(table)
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


@pytest.mark.slow
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
