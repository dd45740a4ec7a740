from dataclasses import replace

import numpy as np
import pytest

from evalkit import show
from evalkit.benchmark.comparison import compare_models
from evalkit.benchmark.slices import find_slices
from evalkit.errors import DesignError
from evalkit.records import EvalResult


def compared(
    n=400, *, lost=lambda i: False, slices=lambda i: {}, text=lambda i: f"question {i}", seed=0
):
    """Both models right half the time, each on its own; where `lost`, base is right and fine-tuned wrong."""
    rng = np.random.default_rng(seed)
    draws = rng.random((n, 2)) < 0.5
    base, tuned = [], []
    for i in range(n):
        right = (True, False) if lost(i) else draws[i]
        for side, ok in zip((base, tuned), right, strict=True):
            side.append(
                EvalResult(i, text(i), "a", "a" if ok else "b", bool(ok), True, slices=slices(i))
            )
    return compare_models(base, tuned)


def test_the_planted_combination_is_found_first():
    found = find_slices(
        compared(
            lost=lambda i: i % 4 == 0 and i % 5 == 0,
            slices=lambda i: {
                "kind": "even" if i % 4 == 0 else "odd",
                "tail": "five" if i % 5 == 0 else "other",
            },
        )
    )
    assert set(found.segments[0].traits) == {"kind = even", "tail = five"}
    assert found.segments[0].n == 20
    assert found.segments[0].n_regressed == 20
    assert found.segments[0].p_adjusted < 0.001


def test_traits_of_the_text_are_looked_at():
    found = find_slices(
        compared(lost=lambda i: i % 3 == 0, text=lambda i: "note 7" if i % 3 == 0 else "note x")
    )
    assert "input with digits" in found.segments[0].traits


def test_predicates_and_patterns_of_ones_own():
    one = compared(
        lost=lambda i: i % 6 == 0, text=lambda i: "urgent note" if i % 6 == 0 else "calm note"
    )
    found = find_slices(
        one,
        predicates={"urgent": r"^urgent", "long": lambda pair: len(pair.base.input_text) > 100},
    )
    assert found.segments[0].traits in {("urgent",), ("input characters > 9",)}
    with pytest.raises(DesignError, match="'bad'"):
        find_slices(one, predicates={"bad": "("})


def test_small_places_are_not_looked_at():
    found = find_slices(
        compared(lost=lambda i: i < 10, slices=lambda i: {"kind": "x" if i < 10 else "y"}),
        min_support=20,
    )
    assert all("kind = x" not in one.traits for one in found)


def test_everything_looked_at_counts_in_the_adjustment():
    # nothing is planted: over 40 seeds the share of runs with any p_adjusted < .05 stays near the level
    alarms = sum(
        any(
            (s.p_adjusted or 1) < 0.05
            for s in find_slices(compared(200, slices=lambda i: {"k": str(i % 4)}, seed=seed))
        )
        for seed in range(40)
    )
    assert alarms <= 5


def test_shared_sources_count_once():
    # 40 examples from 4 sources, each source lost whole or not at all: 30 regressions are 3 facts, not 30
    base, tuned = (
        [
            EvalResult(
                i,
                "q",
                "a",
                "a",
                side == 0 or i % 4 == 3,
                True,
                slices={"kind": str(i < 40)},
                cluster=f"c{i % 4}" if i < 40 else f"d{i}",
            )
            for i in range(100)
        ]
        for side in (0, 1)
    )
    tuned = [
        one if one.slices["kind"] == "True" else replace(one, exact_match=True) for one in tuned
    ]
    alone = [[replace(one, cluster=None) for one in side] for side in (base, tuned)]
    shared, single = find_slices(compare_models(base, tuned)), find_slices(compare_models(*alone))
    assert shared.segments[0].n_regressed == single.segments[0].n_regressed == 30
    assert single.segments[0].p_adjusted < 1e-6
    assert shared.segments[0].p_adjusted > 0.01


def test_a_value_with_a_colon_keeps_its_name_in_the_table():
    found = find_slices(
        compared(
            lost=lambda i: i % 4 == 0,
            slices=lambda i: {"kind": "code: odd" if i % 4 == 0 else "even"},
        )
    )
    assert found.segments[0].where == "kind = code: odd"
    assert "−100.0" in show.segments(found).text


def test_examples_without_a_value_are_named_as_in_the_slices():
    found = find_slices(
        compared(lost=lambda i: i % 4 == 0, slices=lambda i: {} if i % 4 == 0 else {"kind": "odd"})
    )
    assert found.segments[0].where == "kind = (not given)"


def test_it_is_labelled_exploratory():
    assert "exploratory" in find_slices(compared()).to_dict()["label"]


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_look_at_finds_nothing(n):
    assert find_slices(compared(n)).segments == ()


def test_order_of_rows_changes_nothing():
    one = compared(lost=lambda i: i % 4 == 0, slices=lambda i: {"kind": str(i % 4)})
    turned = replace(one, pairs=one.pairs[::-1])
    assert [s.traits for s in find_slices(one)] == [s.traits for s in find_slices(turned)]


def talk(i, *, first="hello"):
    return (
        {"role": "system", "content": "Answer in 3 words."},
        {"role": "user", "content": first},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": f"and {'x' * (i % 7)}"},
    )


def test_the_whole_conversation_is_looked_at_and_what_all_share_is_not():
    one = compared(lost=lambda i: i % 5 == 0)
    pairs = [
        replace(
            pair,
            base=replace(
                pair.base,
                messages=talk(i, first=f"invoice {i}" if i % 5 == 0 else f"letter {'y' * i}"),
            ),
        )
        for i, pair in enumerate(one.pairs)
    ]
    found = find_slices(replace(one, pairs=tuple(pairs)), predicates={"bill": r"^invoice"})
    assert found.segments[0].where in {"bill", "input with digits"}
    # 80 of 400 lost; were the system prompt's "3" counted, no text would be without digits
    assert {"input with digits", "bill"} & {one.where for one in found}
