import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from evalkit.errors import DesignError
from evalkit.stats import adjust

p_lists = st.lists(st.none() | st.floats(0, 1), max_size=12)


def test_holm_worked_by_hand():
    # sorted .01 .02 .03 .04 times 4, 3, 2, 1 = .04 .06 .06 .04, made rising: .04 .06 .06 .06
    assert adjust([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_bh_worked_by_hand():
    # sorted .01 .02 .03 .04 times 4/1, 4/2, 4/3, 4/4 = .04 each
    assert adjust([0.04, 0.01, 0.03, 0.02], method="bh") == pytest.approx([0.04] * 4)


@given(p_lists)
def test_holm_is_at_least_bh_is_at_least_raw(p_values):
    for raw, bh, holm in zip(
        p_values, adjust(p_values, "bh"), adjust(p_values, "holm"), strict=True
    ):
        assert (raw is None) == (bh is None) == (holm is None)
        if raw is not None:
            assert raw - 1e-12 <= bh <= holm + 1e-12 <= 1 + 1e-12


@given(p_lists)
def test_an_untested_entry_does_not_count(p_values):
    assert [p for p in adjust(p_values) if p is not None] == adjust(
        [p for p in p_values if p is not None]
    )


@pytest.mark.parametrize(("ours", "theirs"), [("holm", "holm"), ("bh", "fdr_bh")])
def test_it_is_statsmodels_adjustment(ours, theirs):
    p_values = np.random.default_rng(1).random(40) ** 3
    assert adjust(p_values.tolist(), ours) == pytest.approx(
        multipletests(p_values, method=theirs)[1]
    )


def test_nothing_and_only_none_stay_themselves():
    assert adjust([]) == []
    assert adjust([None, None]) == [None, None]
    assert all(type(one) is float for one in adjust([0.01, 0.2]))


@pytest.mark.parametrize("bad", [[1.2], [-0.1], [float("nan")], ["0.1"]])
def test_what_is_no_p_value_is_refused(bad):
    with pytest.raises(DesignError, match="p-value"):
        adjust(bad)


def test_an_unknown_method_is_refused():
    with pytest.raises(DesignError, match="'holm' or 'bh'"):
        adjust([0.1], method="bonferroni")
