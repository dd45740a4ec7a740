"""A preference that length explains, or that is these raters' own, is told beside the verdict."""

import pytest

from evalkit.decision import Rules, decide
from evalkit.show import verdict as spoken

LENGTH = {"estimate": 0.51, "raw_rate": 0.7, "p_value": 0.8, "explains": True}
SAMPLE = {"verdict": "no difference shown", "n_raters": 3, "estimate": 0.7}


def decided(evidence, rules=None, **details):
    layers = {
        "benchmark": evidence("benchmark", "better"),
        "human": evidence("human", "better", details=details),
    }
    return decide(layers, study="x", rules=rules or Rules())


def test_length_and_few_raters_warn_and_do_not_stop(evidence):
    found = decided(evidence, length_adjusted=LENGTH, rater_sample=SAMPLE)
    assert found.verdict == "ship"
    told = " ".join(spoken.warnings(found))
    assert "for its length: 51.0% at equal length" in told
    assert "referred by 3 raters, which is not shown for others" in told


def test_one_rater_speaks_for_nobody_else(evidence):
    found = decided(evidence, rater_sample=SAMPLE | {"n_raters": 1, "verdict": "too early"})
    assert "1 rater, which is not shown for others" in " ".join(spoken.warnings(found))


@pytest.mark.parametrize("rule", ["length_explains", "few_raters"])
def test_a_study_may_hold_on_them(evidence, rule):
    found = decided(evidence, Rules(**{rule: "holds"}), length_adjusted=LENGTH, rater_sample=SAMPLE)
    assert found.verdict == "not yet"


def test_a_preference_shown_for_all_raters_at_equal_length_has_no_warning(evidence):
    fine = {
        "length_adjusted": LENGTH | {"explains": False},
        "rater_sample": SAMPLE | {"verdict": "better"},
    }
    told = " ".join(spoken.warnings(decided(evidence, **fine)))
    assert "length" not in told
    assert "raters" not in told
