"""Results open as tidy frames, and frames of answers are compared like results."""

import pandas as pd
import pytest

from evalkit.benchmark.comparison import compare_models
from evalkit.benchmark.frames import results_of
from evalkit.benchmark.slices import NO_VALUE
from evalkit.errors import DataError, DesignError
from evalkit.records import EvalResult


def result(i, right, **more):
    more = {"slices": {"kind": "even" if i % 2 == 0 else "odd"}, **more}
    return EvalResult(f"e{i}", f"q{i}", "yes", "yes" if right else "no", right, True, **more)


@pytest.fixture
def comparison():
    """Twelve examples: 0-2 both right, 3 regressed, 4-8 fixed, 9-11 both wrong."""
    base = [result(i, i < 4, latency_ms=100.0, completion_tokens=3) for i in range(12)]
    tuned = [result(i, i < 9 and i != 3) for i in range(12)]
    return compare_models(base, tuned)


def test_a_row_is_an_answer(comparison):
    frame = comparison.to_frame()
    assert len(frame) == 24
    # base right on 0-3: 4/12; fine-tuned on 0-2 and 4-8: 8/12
    means = frame.groupby("model", observed=True)["exact_match"].mean()
    assert means.to_dict() == {"base": pytest.approx(4 / 12), "fine-tuned": pytest.approx(8 / 12)}
    assert frame["fine_tuned"].tolist() == [0] * 12 + [1] * 12
    assert frame["right"].sum() == 12
    assert (frame["right"].astype(float) == frame["exact_match"]).all()
    dtypes = frame.dtypes.astype(str).to_dict()
    assert dtypes["right"] == "boolean"
    assert {dtypes[name] for name in ("example_id", "model", "kind", "slice", "outcome")} == {
        "category"
    }
    assert dtypes["completion_tokens"] == "Int64"
    assert frame["completion_tokens"].isna().sum() == 12
    assert set(frame["slice"]) == {"kind = even", "kind = odd"}


def test_a_row_is_an_example(comparison):
    frame = comparison.to_frame(by="example")
    assert len(frame) == 12
    counts = frame["status"].value_counts().to_dict()
    assert counts == {"fixed": 5, "both right": 3, "both wrong": 3, "regressed": 1}
    change = frame["exact_match_fine_tuned"] - frame["exact_match_base"]
    assert (change == frame["exact_match_change"]).all()
    worse = frame[frame["status"] == "regressed"].iloc[0]
    assert worse[["example_id", "answer_base", "answer_fine_tuned", "kind"]].tolist() == [
        "e3",
        "yes",
        "no",
        "odd",
    ]


def test_an_example_without_a_field_is_counted_as_the_table_of_slices_counts_it():
    slices = [{"kind": "a"}, {}, {"kind": "a"}, {}]
    base = [result(i, False, slices=slices[i]) for i in range(4)]
    tuned = [result(i, i > 0, slices=slices[i]) for i in range(4)]
    comparison = compare_models(base, tuned)
    counts = comparison.to_frame(by="example")["slice"].value_counts().to_dict()
    assert counts == {row.slice: row.n for row in comparison.slices()}
    assert counts[f"kind = {NO_VALUE}"] == 2


@pytest.mark.parametrize("name", ["model", "status", "slice", "exact_match", "input", "right"])
def test_a_field_named_like_a_column_of_ours_keeps_its_values(name):
    made = [[result(i, i < turn, slices={name: str(i % 2)}) for i in range(4)] for turn in (1, 3)]
    comparison = compare_models(*made)
    for by, n in (("answer", 8), ("example", 4)):
        frame = comparison.to_frame(by=by)
        assert len(frame.columns) == len(set(frame.columns))
        held = [one for one in (name, f"slice_{name}") if one in frame.columns]
        assert frame[held[-1]].astype(str).tolist() == ["0", "1"] * (n // 2)


def test_nothing_to_compare_is_an_empty_frame_with_its_columns():
    empty = compare_models([], [])
    assert len(empty.to_frame()) == len(empty.to_frame(by="example")) == 0
    assert {"example_id", "right", "exact_match"} <= {*empty.to_frame().columns}
    assert len(empty.slices().to_frame()) == 0
    assert str(empty.slices().to_frame()["estimate"].dtype) == "Float64"


def test_two_frames_are_compared_as_their_results_are(comparison):
    answers = comparison.to_frame()
    sides = [answers[answers["model"] == one] for one in ("base", "fine-tuned")]
    again = compare_models(*sides)
    assert again.primary == comparison.primary
    assert again.cells == comparison.cells
    assert [row.n for row in again.slices()] == [row.n for row in comparison.slices()]
    assert again.clustered is False


def test_a_frame_needs_four_columns_and_the_rest_is_scored():
    base = pd.DataFrame(
        {
            "example_id": [1, 2],
            "input_text": ["a", "b"],
            "expected": ["x", "y"],
            "predicted": ["x", "n"],
            "fluent": [0.5, 1.0],
            "topic": ["t", "u"],
        }
    )
    tuned = base.assign(predicted=["x ", "y"], fluent=[1.0, None])
    comparison = compare_models(base, tuned)
    assert comparison.cells == {"both_right": 1, "fixed": 1, "regressed": 0, "both_wrong": 0}
    assert "format" not in comparison.tests
    assert comparison.tests["fluent"].n == 1
    assert [row.slice for row in comparison.slices()] == ["topic = t", "topic = u"]
    with pytest.raises(DataError, match="fine-tuned frame: no column expected"):
        compare_models(base, tuned.drop(columns="expected"))
    with pytest.raises(DataError, match=r"'fluent' holds 7 for example '1'"):
        compare_models(base.assign(fluent=7.0), tuned)
    with pytest.raises(DataError, match="example 2 has no expected"):
        compare_models(base.assign(expected=["x", None]), tuned)


def test_a_missing_answer_is_an_empty_one_and_wrong():
    base = pd.DataFrame(
        {"example_id": ["a"], "input_text": ["q"], "expected": ["x"], "predicted": ["x"]}
    )
    comparison = compare_models(base, base.assign(predicted=None))
    assert comparison.cells["regressed"] == 1
    assert comparison.to_frame()["outcome"].tolist() == ["ok", "empty"]


def test_a_slice_of_ones_own_is_tested_like_a_declared_one(comparison):
    declared = {row.value: row.test for row in comparison.slices(by="kind")}
    examples = comparison.to_frame(by="example").set_index("example_id")
    own = comparison.slices(by=(examples["kind"] == "even").rename("even"))
    tests = {row.value: row.test for row in own}
    assert tests["True"] == declared["even"]
    assert tests["False"] == declared["odd"]
    assert own.others


def test_slices_by_names_with_commas_as_in_the_study_file():
    two = [result(i, True, slices={"kind": "ab"[i % 2], "length": "cd"[i // 6]}) for i in range(12)]
    table = compare_models(two, two).slices(by="kind, length")
    assert table.to_frame()["field"].unique().tolist() == ["kind", "length"]


def test_an_own_slice_needs_a_value_an_example(comparison):
    examples = comparison.to_frame(by="example")
    with pytest.raises(DataError, match="set_index"):
        comparison.slices(by=examples["kind"])
    with pytest.raises(DataError, match="two values for example 'e0'"):
        comparison.slices(by=pd.Series(1, index=["e0", "e0"]))
    with pytest.raises(DesignError, match=r"known are kind.*slice_fields=\"kind,kid\""):
        comparison.slices(by="kid")
    for by in ("answer", "example"):
        with pytest.raises(DesignError, match="'kid': no example carries it"):
            comparison.to_frame(by, field="kid")
    some = examples.set_index("example_id")["kind"].where(examples.index.to_numpy() > 5)
    assert {row.value for row in comparison.slices(by=some)} == {"even", "odd", NO_VALUE}


def test_a_table_of_slices_opens(comparison):
    slices = comparison.slices(margin=0.1)
    frame = slices.to_frame()
    assert frame["slice"].tolist() == [row.slice for row in slices]
    assert frame["estimate"].tolist() == pytest.approx([row.estimate for row in slices])
    assert str(frame["p_exact"].dtype) == "Float64"
    assert str(frame["few"].dtype) == "boolean"
    assert slices.most_lost in slices.others


def test_what_the_finder_found_opens(comparison):
    frame = comparison.find_slices().to_frame()
    assert {"where", "estimate", "p_adjusted"} <= {*frame.columns}


def test_a_mean_over_samples_is_not_taken_for_a_right_answer():
    sampled = [
        result(i, right, sample=k) for i in range(3) for k, right in enumerate([True, False])
    ]
    answers = compare_models(sampled, sampled).to_frame()
    with pytest.raises(
        DataError, match=r"'exact_match' holds 0.5 for example 'e0'; .* one row each"
    ):
        compare_models(answers[answers["model"] == "base"], sampled)


def answered(**columns):
    """A frame of two answers as people bring it."""
    said = {"input_text": "q", "expected": "yes", "predicted": "yes"}
    return pd.DataFrame({"example_id": ["a", "b"], **said, **columns})


@pytest.mark.parametrize("missing", [None, pd.NA, float("nan")])
def test_where_rightness_is_missing_the_answer_is_scored(missing):
    marked = answered(exact_match=pd.Series([False, missing], dtype=object))
    assert [one.exact_match for one in results_of(marked, "base")] == [False, True]


@pytest.mark.parametrize("name", ["exact_match", "format", "format_correct"])
@pytest.mark.parametrize("text", ["no", "False", "0"])
def test_a_text_is_neither_true_nor_false(name, text):
    with pytest.raises(DataError, match=f"{name!r} holds {text!r} for example 'a'; need true or"):
        results_of(answered(**{name: text}), "base")
