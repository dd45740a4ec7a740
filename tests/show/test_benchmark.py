"""A record goes in, the whole figure comes out: title with the conclusion, what is drawn in words, caption."""

import pandas as pd
import pytest

from evalkit import show
from evalkit.benchmark.benchmark import Costs
from evalkit.benchmark.comparison import compare_models
from evalkit.benchmark.noise import NoiseFloor
from evalkit.records import EvalResult
from evalkit.stats import clustered_fit

HOSTILE = "<img src=x onerror=window.x=1> $5 and $6"


def result(i, right, kind):
    said = "yes" if right else f"no {HOSTILE}"
    return EvalResult(
        f"e{i}", f"q{i}", "yes", said, right, True, slices={"kind": kind}, latency_ms=10.0 * i + 1
    )


@pytest.fixture(scope="module")
def comparison():
    """Sixty examples: odd ones fixed, every tenth regressed, the other even ones wrong in both."""
    base = [result(i, i % 10 == 0, "odd" if i % 2 else HOSTILE) for i in range(60)]
    tuned = [result(i, i % 2 == 1, "odd" if i % 2 else HOSTILE) for i in range(60)]
    return compare_models(base, tuned)


@pytest.mark.parametrize(
    "figure", ["rates", "differences", "cells", "similarity", "spread", "scatter", "detectable"]
)
def test_a_comparison_is_drawn_whole(comparison, figure):
    made = getattr(show, figure)(comparison).body
    assert made.startswith('<figure class="ek-figure">')
    assert 'class="ek-title"' in made
    assert 'class="ek-sub"' in made
    assert len(made.split('alt="')[1].split('"')[0]) > 20
    assert "<img src=x" not in made


def test_slices_are_drawn_and_told_in_numbers(comparison):
    slices = comparison.slices()
    assert "odd" in show.forest(slices).text
    assert "kind = odd" in show.slices(slices).text
    assert show.elsewhere(slices).body.count("<figure") == 1
    assert "Fine-tuned, kind = odd" in show.regression(comparison).text
    assert "<img src=x" not in show.regression(comparison).body + show.slices(slices).body


def test_without_slices_it_is_said_once():
    alone = compare_models(
        [EvalResult(1, "q", "a", "a", True, True)], [EvalResult(1, "q", "a", "b", False, True)]
    )
    slices = alone.slices()
    shown = [show.forest(slices), show.slices(slices), show.elsewhere(slices)]
    assert [one.text for one in shown] == ["No slices were declared.", "", ""]


def test_examples_are_shown_in_the_order_of_the_frame(comparison):
    examples = comparison.to_frame(by="example")
    worse = examples[examples["status"] == "regressed"].iloc[::-1]
    made = show.examples(worse)
    assert "6 examples: 6 regressed" in made.body
    ids = [line.split()[0] for line in made.text.splitlines()[1:] if line.startswith("e")]
    assert ids == ["e50", "e40", "e30", "e20", "e10", "e0"]
    assert "Asked again" not in made.body
    assert "<img src=x" not in made.body
    fixed = show.examples(examples[examples["status"] == "fixed"], most=10)
    assert "30 examples: 30 fixed; the first 10" in fixed.body
    assert "No examples" in show.examples(examples.head(0)).body
    assert "30 fixed" in show.examples(examples).body


def test_examples_say_what_became_of_them_when_asked_again(comparison):
    noise = NoiseFloor(marks={"e0": "flips", "e10": "stable"})
    examples = comparison.to_frame(by="example")
    joined = examples.join(noise.asked_again(), on="example_id")
    assert joined["flaky"].dtype == "boolean"
    assert joined["flaky"].isna().sum() == 58
    assert "flips" in show.examples(joined[joined["flaky"].notna()]).text


def test_coefficients_are_those_of_the_fit_that_hold_the_word(comparison):
    import statsmodels.formula.api as smf

    answers = comparison.to_frame()
    fit = clustered_fit(smf.ols("exact_match ~ fine_tuned", answers), answers["cluster"])
    told = show.coefficients(fit, keep="fine_tuned").text
    # 30 right after, 6 before, of 60: +0.4
    assert "0.400" in told
    assert "Intercept" not in told
    one = answers[answers["example_id"] == "e0"]
    assert clustered_fit(smf.ols("exact_match ~ fine_tuned", one), one["cluster"]) is None
    assert "too few examples" in show.coefficients(None).text


@pytest.mark.parametrize("n", range(3, 11))
def test_a_slice_without_any_right_answer_has_no_interval_and_warns_of_nothing(n):
    import statsmodels.formula.api as smf

    rows = [
        {"right": float(one == "some" and (i % 3 == 0 or new)), "slice": one, "new": new, "c": i}
        for one, size in (("none", n), ("some", 7))
        for i in range(size)
        for new in (0, 1)
    ]
    frame = pd.DataFrame(rows)
    fit = clustered_fit(
        smf.ols("right ~ C(slice) + C(slice):new", frame), frame["slice"] + frame["c"].astype(str)
    )
    told = show.coefficients(fit, keep="[none]").text
    assert "n/a" in told
    assert "nan" not in told


def test_records_answer_and_a_sentence_is_its_own_answer(comparison):
    assert "better" in show.answer(comparison).text
    told = show.answer(comparison.slices(), NoiseFloor(marks={"e0": "not re-asked"}))
    assert told.text.startswith("1 example got worse.")
    assert show.answer("So it is.", simulated=True).body.startswith(
        '<p class="ek-answer ek-simulated">'
    )
    with pytest.raises(TypeError, match="Costs answers nothing; give a chapter's record"):
        show.answer(Costs(by_model={}))


def test_costs_open_and_are_shown():
    one = {
        "answers": 3,
        "prompt_tokens": 30,
        "completion_tokens": None,
        "latency_median_ms": 3292.76,
        "latency_p95_ms": None,
        "money": None,
        "currency": None,
    }
    costs = Costs(by_model={"base": one, "fine_tuned": one})
    frame = costs.to_frame()
    assert frame["model"].tolist() == ["base", "fine-tuned"]
    assert frame["completion_tokens"].isna().all()
    assert isinstance(frame["prompt_tokens"].dtype, pd.Int64Dtype)
    assert "fine-tuned" in (told := show.costs(costs).text)
    assert "3,293 " in told


def test_noise_opens_by_model_and_kind_of_change():
    frame = NoiseFloor().to_frame()
    assert len(frame) == 0
    assert str(frame["rate"].dtype) == "Float64"
