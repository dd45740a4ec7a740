import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import DesignError
from evalkit.stats import krippendorff_alpha

KRIPPENDORFF_2011 = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
tables = st.integers(2, 12).flatmap(
    lambda n: st.lists(
        st.lists(st.sampled_from([1, 2, 3, None]), min_size=n, max_size=n), min_size=2, max_size=4
    )
)


@pytest.mark.parametrize(
    ("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_the_published_example(level, published):
    found = krippendorff_alpha(KRIPPENDORFF_2011, level)
    assert round(found.estimate, 3) == published
    assert found.n == 11  # the twelfth item has a single rating
    assert found.ci_low < found.estimate < found.ci_high


def test_two_raters_worked_by_hand():
    # a a / b b / b a / a a: coincidences aa 4, bb 2, ab + ba 2 of 8; n_a = 5, n_b = 3
    # alpha = 1 - (n - 1) * 2 / (2 * 5 * 3) = 1 - 7 * 2 / 30 = .5333
    assert krippendorff_alpha([list("abba"), list("abaa")]).estimate == pytest.approx(1 - 14 / 30)
    assert krippendorff_alpha([list("abba"), list("abaa")]).percent_agreement == 0.75


def test_one_category_only_is_undefined_with_a_reason():
    found = krippendorff_alpha([["a", "a"], ["a", "a"]])
    assert (found.estimate, found.ci_low, found.percent_agreement) == (None, None, 1.0)
    assert "one category" in str(found)


@pytest.mark.parametrize("ratings", [[], [["a", "b"]], [["a", None], [None, "b"]], [[], []]])
def test_without_two_ratings_on_an_item_nothing_is_defined(ratings):
    found = krippendorff_alpha(ratings)
    assert (found.estimate, found.percent_agreement, found.n) == (None, None, 0)
    assert found.notes


def test_the_kappa_paradox_shows_beside_the_percentage():
    # 95 of 100 agree, but nearly all on one category: alpha is about 0
    one = ["ok"] * 95 + ["bad"] * 5
    found = krippendorff_alpha([one, ["ok"] * 100])
    assert found.percent_agreement == pytest.approx(0.95)
    assert found.estimate < 0.05


@given(tables)
def test_the_order_of_raters_and_items_changes_nothing(table):
    found = krippendorff_alpha(table, resamples=2).estimate
    turned = krippendorff_alpha([row[::-1] for row in table[::-1]], resamples=2).estimate
    assert found == pytest.approx(turned)
    assert found is None or found <= 1


@given(tables)
def test_nan_is_missing_too(table):
    with_nan = [[float("nan") if one is None else one for one in row] for row in table]
    assert (
        krippendorff_alpha(with_nan, resamples=2).estimate
        == krippendorff_alpha(table, resamples=2).estimate
    )


def test_perfect_agreement_is_1_and_the_seed_settles_the_interval():
    assert krippendorff_alpha([[1, 2, 3], [1, 2, 3]], "ordinal").estimate == 1.0
    one, other = (krippendorff_alpha(KRIPPENDORFF_2011, seed=7) for _ in range(2))
    assert one == other


def test_bad_tables_are_refused():
    with pytest.raises(DesignError, match="one entry for each item"):
        krippendorff_alpha([[1, 2], [1]])
    with pytest.raises(DesignError, match="level is 'ratio'"):
        krippendorff_alpha([[1], [1]], "ratio")
    with pytest.raises(DesignError, match="not all numbers"):
        krippendorff_alpha([["a", "b"], ["a", "b"]], "interval")
    with pytest.raises(DesignError, match="without an order"):
        krippendorff_alpha([["a", 1], ["a", 1]], "ordinal")


def test_raters_may_come_by_name_as_a_table_or_with_the_gaps_of_pandas():
    rows = [["a", "b", "b", None], ["a", "c", "b", "a"]]
    expected = krippendorff_alpha(rows).estimate
    table = pd.DataFrame(rows, index=["ann", "bob"], columns=["i1", "i2", "i3", "i4"])
    with_na = [["a", "b", "b", pd.NA], rows[1]]
    for same in (
        dict(zip(("ann", "bob"), rows, strict=True)),
        table,
        np.array(rows, dtype=object),
        with_na,
    ):
        assert krippendorff_alpha(same).estimate == expected
        assert krippendorff_alpha(same).n_raters == 2
    with pytest.raises(DesignError, match="a list for each rater"):
        krippendorff_alpha(["abb", "acb"])


def by_pairs(ratings, level):
    """Krippendorff's alpha from its definition: observed over expected disagreement of pairs of ratings."""
    units = [[one for one in unit if one is not None] for unit in zip(*ratings, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    pooled = [one for unit in units for one in unit]
    below = {one: sum(other < one for other in pooled) for one in pooled}

    def apart(a, b):
        if level == "nominal":
            return float(a != b)
        if level == "interval":
            return (a - b) ** 2
        ends = [below[one] + pooled.count(one) / 2 for one in (a, b)]
        return (ends[0] - ends[1]) ** 2

    n = len(pooled)
    seen = sum(
        sum(apart(a, b) for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1)
        for unit in units
    )
    expected = sum(apart(a, b) for a, b in itertools.permutations(pooled, 2))
    return 1 - (n - 1) * seen / expected if expected else None


@given(tables, st.sampled_from(["nominal", "ordinal", "interval"]))
def test_alpha_by_its_definition_over_pairs(ratings, level):
    found = krippendorff_alpha(ratings, level, resamples=2).estimate
    assert found == (None if found is None else pytest.approx(by_pairs(ratings, level), abs=1e-9))
    assert (found is None) == (by_pairs(ratings, level) is None)
