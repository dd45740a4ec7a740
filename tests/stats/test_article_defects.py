"""What the article's own z-test gets wrong, and this one must not."""

import inspect
import json

import pytest

from evalkit import proportion_z_test as from_the_top
from evalkit.stats import proportion_z_test, sample_ratio_test

ARTICLE = ("control_rate", "treatment_rate", "lift", "z_score", "p_value", "significant")


def test_the_articles_parameters_come_first_and_the_name_is_at_the_top():
    names = list(inspect.signature(proportion_z_test).parameters)
    assert names[:4] == ["successes_a", "total_a", "successes_b", "total_b"]
    assert from_the_top is proportion_z_test


def test_fields_are_numbers_not_strings():
    test = proportion_z_test(80, 1000, 110, 1000)
    assert [type(getattr(test, name)) for name in ARTICLE] == [float] * 5 + [bool]


def test_a_tiny_p_value_is_not_0():
    # |z| = 8.6; 1 - erf(8.6 / sqrt 2) is exactly 0.0 in floating point
    test = proportion_z_test(200, 1000, 377, 1000)
    assert test.z_score > 8.3
    assert 0 < test.p_value < 1e-16
    assert "p < 0.0001" in str(test)
    assert "0.0000" not in str(test)


def test_no_variance_has_the_same_fields():
    test = proportion_z_test(0, 100, 0, 100)
    assert all(hasattr(test, name) for name in ARTICLE)
    assert (test.p_value, test.significant) == (None, False)
    json.dumps(test.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    "counts", [(0, 0, 1, 10), (1, 10, 0, 0), (20, 10, 1, 10), (-1, 10, 1, 10), (0.5, 10, 1, 10)]
)
def test_impossible_counts_raise_a_value_error_never_a_zero_division(counts):
    with pytest.raises(ValueError, match=r"need|exceed"):
        proportion_z_test(*counts)


def test_a_significant_loss_is_not_a_win():
    test = proportion_z_test(400, 1000, 300, 1000)
    assert test.significant
    assert test.verdict == "worse"
    assert test.lift == pytest.approx(-0.25)


def test_a_broken_split_names_no_winner():
    assert sample_ratio_test([5500, 4500], [0.5, 0.5]).verdict == "invalid"
