"""What earlier runs found against a model is in the study's history, and nothing in reports/ is needed for it."""

import json

import pytest

from evalkit.decision import decide, history
from evalkit.errors import DataError
from evalkit.evidence import Evidence
from evalkit.show import verdict as spoken
from evalkit.show.decision import what_changed
from evalkit.study import Study

MODELS = {"base": "old", "fine_tuned": "new"}
FILES = {"benchmark": "comparison", "human": "preference", "ab_test": "ab_test"}
DETAILS = {
    "human": {"round": "round1"},
    "ab_test": {"experiment": "exp"},
    "benchmark": {"metrics": {}},
}
METRICS = {"benchmark": "exact match", "human": "win rate", "ab_test": "solved"}
RUN = "20261128T100000Z-{:08x}"


def made(layer, verdict, *, test_set="t1", answers="f1", **changes):
    estimate = {"worse": -0.1, "better": 0.1}[verdict] + (0.5 if layer == "human" else 0.0)
    primary = {"verdict": verdict, "n": 300, "estimate": estimate, "alpha": 0.05, "p_value": 0.01}
    primary |= {"ci_low": estimate - 0.05, "ci_high": estimate + 0.05}
    details = DETAILS[layer] | {"noise_floor": {"n": 1}}
    if layer == "benchmark":
        details["metrics"] = {"exact_match": {"test": primary}}
    fields = {
        "layer": layer, "study": "tiny", "made_at": "2026-11-28", "models": MODELS, "simulated": False, "unit": "items",
        "bound_to": {"test_set": test_set, "base": "b1", "fine_tuned": answers}, "metric": METRICS[layer], "primary": primary,
        "details": details,
    }  # fmt: skip
    return Evidence.of(fields | changes)


@pytest.fixture
def night(tmp_path):
    """One run of a study: evidence in, the gate's verdict out, the row in the history; reports are thrown away."""
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    (tmp_path / "data/tiny/study.yaml").write_text("study: tiny\n")
    home = Study.open("tiny", root=tmp_path)
    nights = []

    def run(*evidence, decides=True, **parameters):
        folder = home.run_folder(RUN.format(len(nights)))
        nights.append(folder)
        book = {"metadata": {"papermill": {"parameters": parameters}}}
        (folder / "01_x.ipynb").write_text(json.dumps(book))
        for one in evidence:
            one.write(folder / f"{FILES[one.layer]}.json")
        against = history.results_against(home, folder)
        decision = decide({one.layer: one for one in evidence}, study="tiny", against=against)
        if decides:
            spoken.write(decision, folder)
        history.append(home, folder, made_at="2026-11-28T10:00:00+00:00", failed={})
        for path in folder.iterdir():
            path.unlink()
        return decision.verdict

    return run


SOUND = made("benchmark", "better"), made("human", "better", details={"round": "round2"})


@pytest.mark.parametrize("layer", ["benchmark", "human", "ab_test"])
def test_a_result_against_holds_every_later_run_that_does_not_answer_it(night, layer):
    assert night(*SOUND) == "ship"
    assert night(*SOUND[:1], made(layer, "worse", test_set="t0", answers="f0")) != "ship"
    assert [night(*SOUND), night(*SOUND)] == ["not yet", "not yet"]
    renamed = [
        made(one.layer, "better", models=MODELS | {"fine_tuned": "newer"}, details=one.details)
        for one in SOUND
    ]
    assert night(*renamed) == "ship"


def test_of_one_checkpoint_after_another_on_one_test_set_the_latest_counts(night):
    assert night(made("benchmark", "worse", answers="f0"), SOUND[1]) == "don't ship"
    assert night(*SOUND) == "ship"
    other = made("benchmark", "better", test_set="t2"), made("human", "better", test_set="t2")
    assert night(*other) == "ship"
    assert night(made("benchmark", "worse", answers="f2"), SOUND[1]) == "don't ship"
    assert night(*other) == "not yet"


def test_a_benchmark_against_counts_also_from_a_run_without_a_decision(night):
    night(made("benchmark", "worse", test_set="t0"), decides=False)
    assert night(*SOUND) == "not yet"


@pytest.mark.parametrize(
    ("then", "now", "verdict"),
    [(20, 0, "ship"), (20, 40, "ship"), (40, 20, "not yet"), (0, 20, "not yet")],
)
def test_a_trial_on_fewer_rows_does_not_outlive_a_run_on_more_of_them(night, then, now, verdict):
    night(made("benchmark", "worse", test_set="t0"), limit=then)
    assert night(*SOUND, limit=now) == verdict


def test_simulated_votes_leave_nothing_behind(night):
    night(SOUND[0], made("human", "worse", simulated=True))
    assert night(*SOUND) == "ship"


def test_a_row_from_before_rows_named_them_still_says_what_its_benchmark_said():
    primary = {"estimate": -0.1, "verdict": "worse"}
    row = {"run": "a", "models": MODELS, "bound_to": {"test_set": "t0"}, "primary": "exact_match",
           "metrics": {"exact_match": primary}, "parameters": {}}  # fmt: skip
    (found,) = history.against_in([row], {})
    assert (found.source, found.models, found.said) == ("exact match", MODELS, "−10.0")
    fine = row | {"metrics": {"exact_match": primary | {"verdict": "better"}}}
    assert history.against_in([row, fine], {}) == ()
    assert history.against_in([{"run": "b", "failed": ["01"]}], {}) == ()


def test_a_row_of_the_history_holds_every_setting_of_its_run_not_only_what_notebooks_declare(
    tmp_path,
):
    rows = []
    for n, said in enumerate(({}, {"checker": "icd10cm", "alpha": 0.01, "cluster_field": "who"})):
        folder = tmp_path / RUN.format(n)
        folder.mkdir()
        (folder / "settings.json").write_text(json.dumps({"study": "tiny", "run": "x"} | said))
        book = {"metadata": {"papermill": {"parameters": {"limit": 40}}}}
        (folder / "01_x.ipynb").write_text(json.dumps(book))
        made("benchmark", "better").write(folder / "comparison.json")
        rows.append(history.row_now(folder))
    before, now = rows
    assert (now["parameters"]["limit"], now["parameters"]["alpha"]) == (40, 0.01)
    assert before["parameters"]["alpha"] == 0.05  # not said: the default
    assert what_changed([before | {"made_at": "2026-11-28T10:00"}], now) == (
        "Since the run of 2026-11-28 10:00: checker went from none to icd10cm; "
        "cluster_field went from nothing to who; alpha went from 0.05 to 0.01."
    )


def test_a_row_that_names_half_a_result_is_told_with_its_run():
    row = {"run": "a", "against": [{"layer": "human"}]}
    with pytest.raises(DataError, match=r"ledger\.jsonl: the row of run a .* restore the file"):
        history.against_in([row], {})


@pytest.mark.parametrize(
    ("then", "now", "verdict"),
    [(0, 20, "not yet"), (40, 20, "not yet"), (0, 0, "ship"), (20, 20, "ship"), (20, 40, "ship")],
)
def test_a_run_on_fewer_rows_of_the_test_set_does_not_answer_one_on_more(night, then, now, verdict):
    night(made("benchmark", "worse"), limit=then)
    assert night(*SOUND, limit=now) == verdict
    assert night(*SOUND, limit=then) == "ship"
