import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import evalkit.stats as kit
from evalkit.errors import DesignError

RESULTS = {
    "rate": lambda: kit.rate_interval(67, 300),
    "proportions": lambda: kit.proportion_z_test(80, 1000, 110, 1000),
    "split": lambda: kit.sample_ratio_test([9000, 1000], [0.9, 0.1]),
    "paired": lambda: kit.paired_binary_test(61, 38, 6, 195),
    "mean of differences": lambda: kit.paired_mean_test([0.1, 0.2, -0.1, 0.4]),
    "clusters": lambda: kit.paired_mean_test([0.1, 0.2, -0.1, 0.4], list("aabb")),
    "wins": lambda: kit.win_rate(30, 12, 8),
    "items": lambda: kit.item_mean_test([[1, 1, 0], [1, -1, 1], [0, 1, 1]]),
    "sides": lambda: kit.position_bias(26, 24),
    "length": lambda: kit.length_adjusted_preference([1, 0, 1, 0, 1, 0], [3, 1, -2, 4, 5, -1]),
    "agreement": lambda: kit.krippendorff_alpha([list("abba"), list("abaa")]),
    "ratio": lambda: kit.ratio_test(([1, 2, 3], [1, 1, 2]), ([2, 2, 2], [1, 2, 2])),
    "mean": lambda: kit.mean_test([1.0, 2.0, 3.0], [2.0, 3.0, 5.0]),
    "cuped": lambda: kit.cuped_test(([1, 2, 3], [1.0, 2.0, 3.5]), ([1, 2, 4], [2.0, 3.0, 5.5])),
    "phases": lambda: kit.combine_phases([kit.proportion_z_test(80, 1000, 110, 1000)]),
    "quantile": lambda: kit.quantile_interval([n % 50 for n in range(500)], range(500)),
    "quantiles": lambda: kit.quantile_by_user(
        ([1, 2, 3], [1.0, 2.0, 3.0]), ([1, 2, 3], [2.0, 3.0, 4.0])
    ),
    "margin": lambda: kit.noninferiority_test(kit.paired_binary_test(250, 10, 8, 32), 0.05),
    "nothing": lambda: kit.paired_binary_test(0, 0, 0, 0),
}
COMMON = {"estimate", "n", "ci_low", "ci_high", "alpha", "p_value", "method", "notes", "verdict"}
VERDICTS = {
    "better",
    "worse",
    "no difference shown",
    "too early",
    "invalid",
    "not worse",
    "not shown",
}


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_is_frozen_plain_and_json_safe(name):
    result = RESULTS[name]()
    record = result.to_dict()
    assert record.keys() >= COMMON
    assert record["verdict"] in VERDICTS
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert all(
        type(value) in {int, float, bool, str, list, type(None)} for value in record.values()
    )
    assert not hasattr(result, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.estimate = 1.0


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_says_itself_in_one_sentence(name):
    sentence = str(RESULTS[name]())
    assert sentence.endswith(").")
    assert "\n" not in sentence
    assert "nan" not in sentence.lower()
    assert "0.0000" not in sentence


def test_the_table_is_escaped():
    result = dataclasses.replace(kit.rate_interval(1, 2), notes=("<script>alert(1)</script>",))
    page = result._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "Wilson" in page


def test_a_number_that_does_not_exist_becomes_none():
    result = dataclasses.replace(
        kit.rate_interval(1, 2), estimate=float("nan"), ci_high=float("inf")
    )
    assert (result.estimate, result.ci_high) == (None, None)


def test_importing_the_package_loads_no_library():
    heavy = "{'numpy', 'scipy', 'statsmodels', 'pandas'}"
    code = f"import sys, evalkit.stats; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there_and_no_other():
    assert all(getattr(kit, name) is not None for name in kit.__all__)
    assert set(kit.__all__) <= set(dir(kit))
    with pytest.raises(AttributeError, match="no attribute 'z_test'"):
        _ = kit.z_test


LISTS = st.lists(st.none() | st.floats() | st.integers(-3, 10**9), max_size=5)
TESTS = (
    kit.paired_mean_test,
    kit.mean_test,
    kit.length_adjusted_preference,
    kit.sample_ratio_test,
    lambda a, b: kit.paired_mean_test(a + b),
    lambda a, b: kit.ratio_test((a, b), (b, a)),
    lambda a, b: kit.cuped_test((a, b), (a, b)),
    lambda a, b: kit.quantile_by_user((a, b), (b, b)),
    lambda a, b: kit.krippendorff_alpha([a, b], resamples=5),
)


@pytest.mark.parametrize("test", TESTS)
@given(LISTS, LISTS)
def test_any_data_gives_a_record_or_says_what_is_needed(test, one, other):
    try:
        record = test(one, other).to_dict()
    except DesignError as why:
        record = {"refused": str(why)}
    json.dumps(record, allow_nan=False)
    assert record.get("verdict", "too early") in VERDICTS
    assert any(word in record.get("refused", "need") for word in ("need", "drop", "give", "check"))


def test_a_narrow_interval_is_shown_with_more_decimals():
    assert "+0.0015 points" in str(kit.proportion_z_test(30, 10**6, 45, 10**6))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, None, "0.05"])
def test_a_level_lies_between_0_and_1(alpha):
    for call in (
        lambda: kit.rate_interval(1, 2, alpha=alpha),
        lambda: kit.paired_binary_test(1, 1, 1, 1, alpha=alpha),
        lambda: kit.paired_mean_test([1, 2], alpha=alpha),
        lambda: kit.mean_test([1, 2], [1, 2], alpha=alpha),
        lambda: kit.ratio_test(([1, 2], [1, 1]), ([1, 2], [1, 1]), alpha=alpha),
        lambda: kit.krippendorff_alpha([[1, 2], [1, 2]], alpha=alpha),
    ):
        with pytest.raises(DesignError, match="alpha is"):
            call()


@pytest.mark.parametrize("three", [3.0, np.float32(3), np.int8(3), np.uint64(3)])
def test_a_count_may_be_of_any_numeric_type_without_fraction(three):
    assert kit.rate_interval(three, 10) == kit.rate_interval(3, 10)


@pytest.mark.parametrize(
    "no_count", [2.5, np.float32(2.5), "3", None, float("nan"), float("inf"), [3], -1]
)
def test_what_is_no_count_is_refused_in_plain_words(no_count):
    with pytest.raises(DesignError, match="need a whole number, 0 or more"):
        kit.rate_interval(no_count, 10)
