"""A study's own scorer and checker: from its file through comparison, slices and decision, and what goes wrong with them."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from evalkit.answers import scoring
from evalkit.answers.runner import run_automated_eval
from evalkit.answers.scoring import scorers_by_name
from evalkit.benchmark.comparison import compare_models
from evalkit.errors import DataError, DesignError, EvalkitError
from evalkit.records import Answer, Example
from evalkit.workbench import Study

MINE = """
def half(expected, predicted):
    return 0.5 + 0.5 * (predicted == expected)


def shouted(answer):
    return answer.isupper()


called_otherwise = lambda expected, predicted: len(predicted) == len(expected)  # noqa: E731
not_a_function = 3


def at_seven(expected, predicted):
    return 1 / (len(predicted) - 7)


def in_a_library(expected, predicted):
    return len(__import__("json").loads("{"))


def one_argument(expected):
    return 1
"""
ASKED = ({"role": "user", "content": "q"},)
ROW = Example(example_id="a7", messages=ASKED, expected="yes", line=17)


def scored(function, text="yes", outcome="ok", **options):
    return scoring.score_answer(
        ROW, Answer(text=text, outcome=outcome), scorers=(function,), **options
    )


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "data" / "mine"
    home.mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (home / "mine.py").write_text(MINE)
    return home


@pytest.fixture
def study(folder):
    """Twenty rows; the base model says "no" to all, the fine-tuned one "yes" to those of kind a."""
    rows = [
        {
            "id": f"r{i}",
            "messages": [
                {"role": "user", "content": f"{'ab'[i % 2]} question {i}"},
                {"role": "assistant", "content": "yes"},
            ],
            "metadata": {"kind": "ab"[i % 2]},
        }
        for i in range(20)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "study.yaml").write_text(
        "base_model: base\nfine_tuned_model: tuned\nslice_fields: kind\nprimary_metric: half\n"
        "scorers: similarity,mine.py:half, mine.py:called_otherwise\nchecker: mine.py:shouted\n"
    )

    def base(messages):
        return "no"

    def tuned(messages):
        return "yes" if messages[-1]["content"].startswith("a") else "NO"

    for name, model in (("base", base), ("fine_tuned", tuned)):
        journal = folder / "journals" / f"{name}.jsonl"
        run_automated_eval(
            model, folder / "test.jsonl", name=name, journal=journal, progress=False, checker="none"
        )
    return Study.open("mine", root=folder.parents[1], run="20261129T000000Z-0123abcd")


def test_an_own_metric_goes_through_comparison_slices_record_and_decision(study, folder):
    comparison = study.compare()
    # half: 0.5 for a wrong answer, 1.0 for a right one; right are 10 of 20, so the means are 0.5 and 0.75
    assert comparison.primary.estimate == pytest.approx(0.25)
    assert comparison.base.by_metric["half"].estimate == 0.5
    assert comparison.verdict == "better"
    assert set(comparison.tests) == {
        "exact_match",
        "format",
        "similarity",
        "half",
        "called_otherwise",
    }
    assert comparison.tests["format"].estimate == pytest.approx(0.5)  # NO is shouted
    slices = comparison.slices()
    assert {row.slice: row.estimate for row in slices.rows} == {"kind = a": 0.5, "kind = b": 0.0}
    study.write(comparison)
    record = json.loads((study.run_folder() / "comparison.json").read_text())
    sha256 = hashlib.sha256((folder / "mine.py").read_bytes()).hexdigest()
    assert (record["metric"], record["details"]["own_code"]) == ("half", {"mine.py": sha256})
    assert "half" in str(study.decide().to_dict())
    assert not (folder / "__pycache__").exists()


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("mine.py:absent", r"mine\.py: scorer mine\.py:absent: no function absent in it"),
        ("mine.py:not_a_function", "no function not_a_function"),
        ("other.py:half", r"other\.py: no such file"),
        ("../mine.py:half", "leaves"),
        ("/etc/mine.py:half", "leaves"),
        ("broken.py:f", r"broken\.py:2: .*SyntaxError"),
        ("raises.py:f", r"raises\.py:3: .*ZeroDivisionError"),
        ("needs.py:f", r"needs\.py:1: .*ModuleNotFoundError: No module named 'absent_library'"),
        ("leaves.py:f", "SystemExit: 3"),
        ("mine.py", "use exact, .*FILE.py:NAME"),
        ("mine.py:half()", "use exact, .*FILE.py:NAME"),
        ("mine:half", "use exact, .*FILE.py:NAME"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line(folder, choice, told):
    for name, source in {
        "broken": "x = 1\ndef f(:\n",
        "raises": "\n\n1 / 0\n",
        "needs": "import absent_library\n",
        "leaves": "raise SystemExit(3)\n",
    }.items():
        (folder / f"{name}.py").write_text(source)
    (folder.parent / "mine.py").write_text(MINE)
    with pytest.raises(EvalkitError, match=told):
        scoring.scorer(choice, folder=folder)


def test_a_link_to_another_folder_is_not_followed(folder, tmp_path):
    (tmp_path / "elsewhere.py").write_text(MINE)
    (folder / "link.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(DataError, match="leaves"):
        scoring.scorer("link.py:half", folder=folder)


def similarity(expected, predicted):
    return 0


@pytest.mark.parametrize(
    "scorers",
    [
        ("mine.py:half", "mine.py:half"),
        (lambda e, p: 1, lambda e, p: 0),
        ("similarity", similarity),
        (similarity,),
    ],
)
def test_two_metrics_of_one_name_are_refused(folder, scorers):
    with pytest.raises(DesignError, match="another metric is called"):
        scorers_by_name(scorers, folder=folder)


@pytest.mark.parametrize("name", ["exact_match", "format"])
def test_a_metric_that_is_always_there_is_not_hidden(name):
    def mine(expected, predicted):
        return 0

    mine.__name__ = name
    with pytest.raises(DesignError, match=f"called {name} too"):
        scorers_by_name((mine,))


def test_a_scorer_that_raises_names_row_line_and_place(folder):
    place = str(folder / "mine.py")
    for name, why, end in (
        ("at_seven", "ZeroDivisionError: ", f" ({place}:15)"),
        ("in_a_library", "JSONDecodeError: ", f" ({place}:19)"),
        ("one_argument", "TypeError: ", "2 were given"),
    ):
        with pytest.raises(DesignError) as told:
            scored(scoring.scorer(f"mine.py:{name}", folder=folder), text="seven .")
        assert str(told.value).startswith(f"scorer {name}, row 'a7' (line 17): {why}")
        assert str(told.value).endswith(end)


def test_it_ends_a_run_whose_answers_are_kept(study, folder):
    calls = []

    def model(messages):
        calls.append(messages)
        return "seven ."

    options = {"journal": folder / "third.jsonl", "progress": False, "concurrency": 1}
    at_seven = scoring.scorer("mine.py:at_seven", folder=folder)
    with pytest.raises(DesignError, match="scorer at_seven, row 'r0'"):
        run_automated_eval(model, folder / "test.jsonl", name="m", scorers=at_seven, **options)
    n_asked = len(calls)
    assert n_asked >= 1
    run_automated_eval(model, folder / "test.jsonl", name="m", **options)
    assert len(calls) == 20  # none was asked twice


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("good", r"gave 'good' \(str\)"),
        (1.5, r"gave 1\.5"),
        (-0.1, r"gave -0\.1"),
        (7, "gave 7"),
        (float("inf"), "gave inf"),
        ([0.5], "gave"),
        ((True, "why"), "gave"),
        (np.array([0.2, 0.4]), "gave"),
        (1j, "gave"),
    ],
)
def test_what_is_no_score_is_told_with_its_row(given, told):
    with pytest.raises(DesignError, match=rf"scorer .*, row 'a7' \(line 17\): {told}.*from 0 to 1"):
        scored(lambda expected, predicted: given)


@pytest.mark.parametrize(
    ("given", "score"),
    [
        (None, None),
        (float("nan"), None),
        (np.float32("nan"), None),
        (True, 1.0),
        (np.True_, 1.0),
        (1, 1.0),
        (np.float32(0.5), 0.5),
        (np.int64(0), 0.0),
        (1.0000000000000002, 1.0),
        (-1e-17, 0.0),
    ],
)
def test_what_is_a_score_or_undefined(given, score):
    assert [*scored(lambda expected, predicted: given).scores.values()] == [score]


def test_a_right_answer_that_was_cut_off_is_wrong_to_a_yes_or_no_scorer_of_any_kind():
    for yes in (True, np.True_):
        cut = scored(lambda expected, predicted, yes=yes: yes, outcome="truncated")
        assert [*cut.scores.values()] == [0.0]


@pytest.mark.parametrize("given", [None, "yes", 1.0, float("nan")])
def test_a_checker_says_true_or_false(given):
    def mine(answer):
        return given

    with pytest.raises(
        DesignError, match=r"checker mine, row 'a7' \(line 17\): gave .*True or False"
    ):
        scored("similarity", checker=mine)


def test_a_checker_that_raises_names_its_row():
    def mine(answer):
        raise KeyError("code")

    with pytest.raises(
        DesignError, match=r"checker mine, row 'a7' \(line 17\): KeyError: 'code' \("
    ):
        scored("similarity", checker=mine)


def test_rows_for_which_a_metric_is_undefined_are_counted(answers):
    base = answers([1, 0, 1, 0], scores=[{"mine": v} for v in (None, 0.5, 1.0, 0.0)])
    tuned = answers([1, 0, 1, 0], scores=[{"mine": v} for v in (1.0, None, 1.0, 1.0)])
    found = compare_models(base, tuned)
    assert "mine is undefined for 2 of 4 examples, which count nowhere in it." in found.notes
    assert found.tests["mine"].n == 2


def test_answers_scored_differently_are_compared_by_what_both_have(answers):
    right = [1, 0, 1, 0, 1]
    base = answers(right, scores={"mine": 0.5, "theirs": 1.0})
    tuned = [replace(one, format_correct=None) for one in answers(right, scores={"theirs": 0.5})]
    found = compare_models(base, tuned)
    assert list(found.tests) == ["exact_match", "similarity", "theirs"]
    assert found.format_improvement is None
    assert [one for one in found.notes if "not compared" in one] == [
        "format is not compared: only the base answers were scored by it.",
        "mine is not compared: only the base answers were scored by it.",
    ]
    with pytest.raises(
        DesignError, match=r"carry exact_match, similarity, theirs. .*only the fine-tuned"
    ):
        compare_models(tuned, base, primary_metric="mine")


def test_a_score_that_some_answers_of_a_side_lack_is_undefined_there(answers):
    base = answers([1, 0, 1], scores=[{"mine": 0.5}, {}, {"mine": 1.0}])
    tuned = answers([1, 0, 1], scores={"mine": 1.0})
    found = compare_models(base, tuned, primary_metric="mine")
    assert (found.primary.n, found.n) == (2, 3)
    assert "mine is undefined for 1 of 3 examples, which count nowhere in it." in found.notes
