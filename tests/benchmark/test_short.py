"""The last line of a cell: what a result says of itself is a line or two, however much it holds."""

import pickle
from dataclasses import replace
from importlib import import_module

import pytest

from evalkit.answers.runner import results_from_journal, run_automated_eval
from evalkit.benchmark.comparison import compare_models
from evalkit.evidence import Evidence
from evalkit.records import Brief, EvalResult, Results

LONG = "a long answer " * 300


@pytest.fixture
def compared(cells):
    base, tuned = cells(100, 60, 40, 100, slices={"kind": "x", "note": LONG})
    return compare_models(
        base, [replace(one, input_text=one.input_text, error=LONG) for one in tuned]
    )


def test_a_comparison_and_what_it_holds_say_themselves_shortly(compared):
    said = {name: repr(getattr(compared, name)) for name in ("pairs", "regressed", "fixed", "base")}
    said |= {
        "it": repr(compared),
        "slices": repr(compared.slices("kind")),
        "pair": repr(compared.pairs[0]),
    }
    del said["pairs"]
    for name, text in said.items():
        assert len(text) < 2000, name
        assert text.count("\n") < 5, name
    assert repr(compared).startswith("Comparison(exact_match_improvement=0.0666")
    assert "pairs=<300>" in repr(compared)
    assert repr(compared.regressed).startswith("<40 x Pair, the first: Pair(example_id='e160'")
    assert compared.regressed == tuple(one for one in compared.pairs if one.status == "regressed")


def test_results_are_a_list_that_counts_itself(tmp_path):
    path, journal = tmp_path / "test.jsonl", tmp_path / "m.jsonl"
    row = '{{"id": "r{}", "messages": [{{"role": "user", "content": "q{}"}}, {{"role": "assistant", "content": "yes"}}]}}\n'
    path.write_text("".join(row.format(i, i) for i in range(200)))
    found = run_automated_eval(lambda _: LONG, path, name="m", journal=journal, progress=False)
    for results in (found, results_from_journal(journal, path)):
        assert isinstance(results, list)
        assert repr(results).startswith("<200 x EvalResult, the first: EvalResult(example_id='r0'")
        assert len(repr(results)) < 2000
        assert results == list(results) == pickle.loads(pickle.dumps(results))
    assert repr(Results()) == "<0 x record>"


def test_one_answer_shows_its_beginning():
    one = EvalResult("e1", "q", "yes", LONG, False, None, scores={"half": 0.5})
    text = repr(one)
    assert text.startswith(
        "EvalResult(example_id='e1', input_text='q', expected='yes', predicted='a long answer a"
    )
    assert "scores={'half': 0.5}" in text
    assert len(text) < 600


def test_evidence_counts_what_it_holds():
    one = Evidence.of(
        {
            "layer": "benchmark",
            "study": "s",
            "made_at": "",
            "models": {},
            "bound_to": {},
            "simulated": False,
            "metric": "m",
            "unit": "examples",
            "primary": None,
            "missing": (),
            "details": {str(i): i for i in range(500)},
        }
    )
    assert "details=<BenchmarkDetails>" in repr(one)


@pytest.mark.parametrize(
    "kind",
    [
        "answers.dataset.TestSet",
        "answers.journal.Journal",
        "human.batch.Batch",
        "human.preference.Preference",
        "human.round.StudyRound",
        "abtest.reading.Reading",
        "abtest.lock.LockedPlan",
        "decision.layers.Decision",
        "decision.history.History",
    ],
)
def test_whatever_a_chapter_holds_counts_what_it_holds(kind):
    module, _, name = kind.rpartition(".")
    assert getattr(import_module(f"evalkit.{module}"), name).__repr__ is Brief.__repr__


@pytest.mark.parametrize(
    ("expected", "form"),
    [("A00.0: Cholera", False), ("yes", None), ("I10: Hypertension", None)],
)
def test_form_is_a_metric_where_the_task_has_the_articles_form_or_a_checker_is_named(
    tmp_path, expected, form
):
    path = tmp_path / "test.jsonl"
    row = '{{"messages": [{{"role": "user", "content": "q{}"}}, {{"role": "assistant", "content": "{}"}}]}}\n'
    path.write_text("".join(row.format(i, expected) for i in range(3)))
    found = {
        name: run_automated_eval(lambda _: "no", path, name="m", progress=False, **options)
        for name, options in (("auto", {}), ("named", {"checker": "article"}))
    }
    assert [one.format_correct for one in found["auto"]] == [form] * 3
    assert [one.format_correct for one in found["named"]] == [False] * 3
    assert ("format" in compare_models(found["auto"], found["auto"]).tests) is (form is not None)
    assert "format" in compare_models(found["named"], found["named"]).tests
    both = compare_models(found["auto"], found["named"])
    assert any("format is not compared" in one for one in both.notes) is (form is None)
