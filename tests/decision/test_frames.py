"""The decision and the history of a study as frames, and shown whole from the records alone."""

import json
from dataclasses import replace

import pandas as pd
import pytest

import evalkit as ek
from evalkit import show
from evalkit.decision import decide
from evalkit.decision.history import History
from evalkit.errors import DesignError
from evalkit.evidence import Evidence
from evalkit.show import verdict as spoken

MODELS = {"base": "old", "fine_tuned": "new"}
PRIMARY = {
    "verdict": "better",
    "n": 500,
    "estimate": 0.1,
    "ci_low": 0.05,
    "ci_high": 0.15,
    "p_value": 0.01,
    "alpha": 0.05,
}
BOUND = {"test_set": "t1", "base": "b1", "fine_tuned": "f1"}
SLICE = {
    "slice": "kind = multi",
    "n": 150,
    "verdict": "worse",
    "standing": "worse",
    "estimate": -0.14,
}
SLICE |= {"ci_low": -0.2, "ci_high": -0.08, "p_adjusted": 0.001}
RUN = {
    "run": "a", "made_at": "2026-11-23T01:00:00+00:00", "verdict": "not yet", "stage": "pre_deploy", "failed": [],
    "primary": "exact_match", "models": MODELS, "bound_to": BOUND,
    "metrics": {"exact_match": PRIMARY | {"base": 0.4, "fine_tuned": 0.5}, "format": {"estimate": 0.0}},
}  # fmt: skip


def benchmark(**details):
    noise = {"noise_floor": {"n": 1}, "metrics": {"exact_match": {"test": PRIMARY}}}
    return Evidence.of(
        {
            "layer": "benchmark",
            "study": "tiny",
            "made_at": "2026-11-28",
            "models": MODELS,
            "bound_to": BOUND,
            "simulated": False,
            "unit": "examples",
            "metric": "exact match",
            "primary": PRIMARY,
            "details": noise | details,
        }
    )


def test_a_decision_is_a_row_a_layer_with_types_to_reckon_with():
    layers = decide({"benchmark": benchmark()}, study="tiny").to_frame()
    assert list(layers["layer"]) == ["benchmark", "human", "ab_test"]
    assert list(layers["gate"]) == ["passes", "not yet", "not yet"]
    assert list(layers["verdict"]) == ["better", "missing", "missing"]
    assert (layers["gate"] >= "not yet").all()  # ordered: don't ship, not yet, passes
    first, second = layers.iloc[0], layers.iloc[1]
    assert (first["n"], first["estimate"], first["ci_low"], first["limit"]) == (500, 0.1, 0.05, 0.0)
    assert layers["n"].isna().tolist() == [False, True, True]
    assert pd.isna(second["estimate"])
    assert layers.dtypes.astype(str)[["n", "estimate", "required", "simulated"]].tolist() == [
        "Int64",
        "float64",
        "bool",
        "bool",
    ]
    assert layers["required"].tolist() == [True, True, False]


def test_a_history_is_a_row_a_run_and_metric_with_utc_times():
    now = RUN | {"run": "b", "made_at": None, "verdict": None, "metrics": {}, "failed": ["02"]}
    runs = History(rows=(RUN,), now=now).to_frame()
    assert list(runs["run"]) == ["a", "a", "b"]
    assert list(runs["metric"].astype(object))[:2] == ["exact_match", "format"]
    assert runs["is_primary"].tolist() == [True, False, False]
    assert str(runs["made_at"].dtype) == "datetime64[us, UTC]"
    assert runs["made_at"].isna().tolist() == [False, False, True]
    assert runs.loc[0, ["estimate", "base_value", "fine_tuned_value"]].tolist() == [0.1, 0.4, 0.5]
    assert runs["n"].astype(object).where(runs["n"].notna(), None).tolist() == [500, None, None]
    assert runs["failed"].tolist() == [False, False, True]


def test_a_history_of_nothing_has_the_same_columns():
    bare = History(rows=(), now={"run": "a"}).to_frame()
    assert list(bare.columns) == list(History(rows=(RUN,), now=RUN).to_frame().columns)


def test_each_display_needs_the_record_alone():
    decision = decide({"benchmark": benchmark()}, study="tiny")
    whole = (show.layers, show.numbers, show.missing, show.would_change, show.warnings, show.rules)
    assert all(one(decision).text for one in (*whole, show.answer))
    assert 'alt="3 tracks share one line' in show.layers(decision).body
    assert show.answer(decision).text == spoken.headline(decision)
    assert "picture begins with the second" in show.history(History(rows=(), now=RUN)).text
    later = RUN | {"run": "b", "bound_to": BOUND | {"fine_tuned": "f2"}}
    told = show.history(History(rows=(RUN,), now=later, torn=True))
    assert "the fine-tuned model's answers are new" in told.text
    assert "unfinished and was left out" in told.text
    assert "<img" in told.body


def test_what_answers_nothing_is_told_so():
    with pytest.raises(
        TypeError, match="int answers nothing; give a chapter's record or a sentence"
    ):
        show.answer(1)


@pytest.fixture
def here(tmp_path):
    (tmp_path / "data/tiny").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data/tiny/study.yaml").write_text("study: tiny\nrules_file: rules.yaml\n")
    (tmp_path / "data/tiny/rules.yaml").write_text(
        "slice_worse: warns\nhuman_before_deployment: false\n"
    )
    study = ek.Study.open("tiny", root=tmp_path)
    benchmark(slices=[SLICE]).write(study.run_folder() / "comparison.json")
    return study


def test_a_study_decides_by_its_own_rules_and_tries_others_without_a_trace(here):
    assert here.rules.slice_worse == "warns"
    assert here.decide().verdict == "ship"
    stricter = here.decide(rules=replace(here.rules, human_before_deployment=True))
    assert stricter.verdict == "not yet"
    assert sorted(path.name for path in here.run_folder().iterdir()) == ["comparison.json"]


def test_rules_that_are_none_are_refused_with_how_to_make_some(here):
    with pytest.raises(DesignError, match=r"rules is a dict; need Rules, such as .*here\.rules"):
        here.decide(rules={"slice_worse": "warns"})


def test_a_decision_becomes_the_runs_own_when_it_is_written(here):
    decision = here.decide()
    assert json.loads(here.write(decision).read_text())["verdict"] == decision.verdict
    assert (here.run_folder() / "summary.png").is_file()
    assert here.history().now["verdict"] == decision.verdict
    assert here.history().to_frame()["decision"].tolist() == ["ship"]
