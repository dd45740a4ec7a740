"""Rows of which nothing is expected, and rows with several right answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from faulty_server import FaultyServer

from evalkit.answers.dataset import read_examples
from evalkit.answers.metrics import carries, compute_metrics, value
from evalkit.answers.scoring import score_answer
from evalkit.benchmark.comparison import compare_models
from evalkit.benchmark.doctor import examine
from evalkit.records import Answer, Example
from evalkit.report import chain
from evalkit.report.new import new_study
from evalkit.show import doctor as shown
from evalkit.show.comparison import answer_said, rates_title

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def written(path, *rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def row(question, *right, **more):
    asked = [{"role": "user", "content": question}]
    given = [{"role": "assistant", "content": one} for one in right[:1]]
    also = {"also_right": [*right[1:]]} if right[1:] else {}
    return {"messages": asked + given, **also, **more}


def example(*right):
    asked = ({"role": "user", "content": "q"},)
    first, *also = right or ("",)
    return Example(
        example_id="a", messages=asked, expected=first, also_right=(*also,), expects=bool(right)
    )


def said(text):
    return Answer(text=text, outcome="ok")


def results(path, answers, **options):
    rows = read_examples(path).examples
    return [
        score_answer(one, said(text), **options) for one, text in zip(rows, answers, strict=True)
    ]


@pytest.mark.parametrize("roles", [("user",), ("user", "assistant", "user"), ("user", "tool")])
def test_a_row_that_ends_in_a_question_expects_nothing(tmp_path, roles):
    messages = [{"role": role, "content": role} for role in roles]
    found = read_examples(written(tmp_path / "t.jsonl", {"messages": messages, "id": 1}))
    (one,) = found.examples
    assert (one.expects, one.right, [*one.messages]) == (False, (), messages)
    assert any(note.startswith("nothing is expected of 1 row of 1") for note in found.notes)


def test_a_mixed_file_is_told_and_its_open_rows_count_nowhere_in_exact_match(tmp_path):
    path = written(tmp_path / "t.jsonl", row("a", "A"), row("b"), row("c", "C"))
    notes = read_examples(path).notes
    assert (
        "nothing is expected of 1 row of 3, the first is line 2: they count nowhere in exact match and similarity; "
        "people decide, or as primary_metric format (with a checker) or a scorer of your own"
        in notes
    )
    old, new = results(path, ["A", "x", "z"]), results(path, ["A", "y", "C"])
    made = compare_models(old, new)
    # two rows expect something: one right before and after, one fixed
    assert dict(made.cells) == {"both_right": 1, "fixed": 1, "regressed": 0, "both_wrong": 0}
    assert (made.primary.n, made.n, made.disagreement) == (2, 3, 0.5)
    assert made.base.exact_match_rate == 0.5
    assert [one.status for one in made.pairs] == ["both right", "undefined", "fixed"]
    assert made.to_frame(by="example")["status"].isna().tolist() == [False, True, False]


def test_nothing_expected_gives_no_exact_match_but_format_and_scorers_of_ones_own(tmp_path):
    def short(expected, predicted):
        assert expected == ""
        return len(predicted) < 3

    (one,) = results(
        written(tmp_path / "t.jsonl", row("a")),
        ["xx"],
        checker=str.islower,
        scorers=("similarity", short),
    )
    assert (one.exact_match, one.format_correct, dict(one.scores)) == (None, True, {"short": 1.0})
    assert value(one, "similarity") is value(one, "normalised_exact") is None
    assert not carries([one], "exact_match")
    assert [*compute_metrics([one]).by_metric] == ["format", "short"]


def test_a_comparison_of_open_rows_says_who_decides_instead_of_failing(tmp_path):
    path = written(tmp_path / "t.jsonl", row("a"), row("b"))
    sides = (results(path, ["x", "y"]), results(path, ["z", "y"]))
    made = compare_models(*sides)
    assert (made.primary.n, made.primary.estimate, made.verdict) == (0, None, "too early")
    assert "people decide" in answer_said(made)


@pytest.mark.parametrize("metric", ["format", "polite"])
def test_format_and_a_scorer_of_ones_own_decide_an_open_study(tmp_path, metric):
    def polite(_, predicted):
        return 0.9 if "please" in predicted else 0.1

    path = written(tmp_path / "t.jsonl", *(row(str(n)) for n in range(40)))
    how = {"checker": lambda text: "please" in text, "scorers": (polite,)}
    sides = (results(path, ["no"] * 40, **how), results(path, ["please"] * 39 + ["no"], **how))
    made = compare_models(*sides, primary_metric=metric)
    assert made.verdict == "better"
    assert "better on" in answer_said(made)


@pytest.mark.parametrize("answer", ["four", " 4 ", "IV"])
def test_an_answer_like_any_right_one_is_an_exact_match(answer):
    one = score_answer(example("4", "four", "IV"), said(answer))
    assert (one.exact_match, value(one, "similarity")) == (True, 1.0)
    assert one.expected_text == "4\n or \nfour\n or \nIV"


def test_scores_are_those_against_the_closest_right_answer():
    one = score_answer(example("zzzz", "abcd"), said("ABCd"), scorers=("similarity",))
    assert one.exact_match is False
    assert value(one, "normalised_exact") == 1.0
    assert value(one, "similarity") == 0.25  # one of four letters in common with "abcd"


def test_also_right_changes_the_fingerprint_and_a_file_without_it_keeps_its_own(tmp_path):
    plain = read_examples(written(tmp_path / "a", row("q", "4", id=1)))
    more = read_examples(written(tmp_path / "b", row("q", "4", "four", id=1)))
    assert plain.fingerprint != more.fingerprint
    # as it was before rows could have several right answers
    assert (
        plain.fingerprint
        == read_examples(
            written(tmp_path / "c", {**row("q", "4", id=1), "also_right": []})
        ).fingerprint
    )
    assert more.examples[0].right == ("4", "four")


def test_the_same_open_question_twice_is_a_duplicate_and_no_conflict(tmp_path):
    path = written(tmp_path / "t.jsonl", row("q", id=1), row("q", id=2))
    found = [shown.said(one)[0] for one in examine(path).findings if one.kind == "duplicate"]
    assert found == ["same prompt, and the same or nothing expected"]


def test_the_doctor_counts_the_rows_that_expect_nothing(tmp_path):
    rows = [row(f"q {i}", *(["4"] if i else []), id=i) for i in range(5)]
    few, none = (
        examine(written(tmp_path / name, *some))
        for name, some in (("few", rows), ("none", [row(f"q {i}", id=i) for i in range(7)]))
    )
    assert "nothing expected 1" in shown.title(few)
    assert "nothing is expected of 7 of 7 rows" in "".join(shown.lines(none))


def test_of_a_metric_that_is_known_of_no_example_no_change_is_told():
    answers = [score_answer(example(), said("a text"))]
    found = compare_models(answers, answers)
    assert rates_title(found) == "Exact match is not known of any example"


@pytest.mark.slow
@pytest.mark.parametrize("is_open", [lambda _: True, lambda i: i % 2])
def test_a_study_with_open_rows_goes_through_every_chapter(tmp_path, is_open):
    rows = [
        row(f"q {i}", *([] if is_open(i) else ["R07.0"]), id=i, metadata={"kind": f"k{i % 2}"})
        for i in range(30)
    ]
    (tmp_path / "notebooks").symlink_to(NOTEBOOKS)
    file = new_study(
        "s", test=written(tmp_path / "t.jsonl", *rows), base="b", fine_tuned="f", root=tmp_path
    )
    said = re.sub(r"^(live|slice_fields|raters):.*\n", "", file.read_text(), flags=re.MULTILINE)
    file.write_text(f"{said}live: true\nslice_fields: kind\nraters: ann\n")
    with FaultyServer(lambda _: "ok") as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_BASE_URL", server.url)
        environment.setenv("OPENAI_API_KEY", "not-needed")
        only = ["01", "02", "03", "07"]
        run = chain.run_study("s", root=tmp_path, only=only, say=lambda _: None)
    assert run.failed == {}
    (missing, *_) = json.loads((run.folder / "comparison.json").read_text())["missing"]
    assert missing["action"].startswith("Declare a primary_metric") == all(
        is_open(i) for i in range(30)
    )
