"""Around the notebooks: what is missing is said, locking twice is harmless, a withheld effect is not in the evidence."""

import gc
import json

import pytest
import yaml

from evalkit.abtest import lock
from evalkit.abtest.experiment import NOT_ASKED, Experiment, ab_evidence
from evalkit.abtest.lock import Look, read_looks, record_look
from evalkit.abtest.reading import Reading
from evalkit.errors import DataError, DesignError
from evalkit.evidence import Evidence, ReportedTest, as_json
from evalkit.records import EvalResult
from evalkit.show import abtest as words
from evalkit.show import effect
from evalkit.show.lacking import in_words
from evalkit.study import Study

FIELDS = {
    "experiment_name": "exp", "control_model": "a", "treatment_model": "b", "ab_metric": "accepted", "ab_metric_kind": "rate",
    "expected_rate": 0.3, "detectable_difference": 0.4, "users_per_day": 100.0, "traffic_split": 0.5, "min_samples": 100,
    "outcome_window_days": 2,
}  # fmt: skip


@pytest.fixture
def home(tmp_path):
    (tmp_path / "data" / "toy").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    return saying(tmp_path)


def saying(root, **settings):
    """The study with these settings in its file."""
    (root / "data/toy/study.yaml").write_text(yaml.safe_dump(FIELDS | settings))
    return Study.open("toy", root=root)


def lock_draft(home):
    """Locks the plan that the study's settings describe."""
    experiment = Experiment(study=home)
    return lock.lock(experiment.draft(), experiment.path)


def results(right):
    return [
        EvalResult(
            i,
            f"question {i}",
            "x",
            "x" if i < right else "y",
            i < right,
            True,
            latency_ms=100.0 + i,
        )
        for i in range(10)
    ]


def test_no_plan_is_said(home):
    found = Experiment(study=home).reading().effect()
    assert effect.headline(found) == (
        "No A/B plan is locked. Missing: Fill in the A/B plan, its experiment_name and lock_plan: true in study.yaml, "
        "then run notebook 05 (minutes)"
    )
    evidence = ab_evidence(found, study="toy")
    assert evidence.primary is None
    assert in_words(evidence.missing[0]).price == "minutes"


def test_no_log_is_said_with_its_price(home):
    lock_draft(home)
    found = Experiment(study=home).reading().effect()
    assert "No user has been logged yet" in effect.headline(found)
    assert in_words(found.missing[0]).price == "200 users, about 7 days"


def test_locking_again_changes_nothing_and_another_plan_is_refused_in_words(home):
    experiment = Experiment(study=saying(home.root, lock_plan=True))
    plan = experiment.draft()
    first, said = experiment.settle(plan)
    assert said.startswith("Locked now")
    again, said = experiment.settle(plan)
    assert (again, said[:14]) == (first, "Locked already")
    other, said = experiment.settle(plan.changed(min_samples=999))
    assert (other, said[:10]) == (first, "Not locked")
    assert "min_samples is 999 there" in said


@pytest.mark.parametrize("name", ["", "  "])
def test_a_plan_without_a_name_is_drawn_but_never_locked(name, home):
    draft = Experiment(study=saying(home.root, experiment_name=name)).draft()
    plan, said = Experiment(study=home).settle(draft)
    assert plan.n_users == 200
    assert said == NOT_ASKED
    assert words.needed(plan).startswith(
        "Nothing is locked. With the numbers given a test would need 100 control"
    )
    assert [path.name for path in home.folder.iterdir()] == ["study.yaml"]
    assert Experiment(study=home).simulate([results(3), results(6)]) == ""
    assert Experiment(study=home).reading().effect().missing
    home = saying(home.root)
    asked, said = Experiment(study=home).settle(Experiment(study=home).draft())
    assert said == NOT_ASKED
    assert words.needed(asked).startswith("Nothing is locked")
    assert not home.path(lock.PLAN_FILE).exists()
    home = saying(home.root, lock_plan=True)
    named, said = Experiment(study=home).settle(Experiment(study=home).draft())
    assert (said[:10], words.needed(named)[:21]) == ("Locked now", "The locked plan needs")
    plan, said = Experiment(study=home).settle(draft)  # a lock outlives its name in the study file
    assert (plan, said.split("; ")[1][:15]) == (named, "the plan locked")


def test_a_mean_needs_its_standard_deviation(home):
    with pytest.raises(DesignError, match="needs sd"):
        Experiment(study=saying(home.root, ab_metric_kind="mean")).draft()


@pytest.mark.parametrize("min_samples", [100, 5000])
def test_simulated_traffic_is_read_and_written_as_evidence(min_samples, home, tmp_path):
    home = saying(home.root, min_samples=min_samples, simulate_users=500, ab_seed=1)
    lock_draft(home)
    said = Experiment(study=home).simulate([results(3), results(6)])
    assert said.startswith("Simulated: 500 users")
    assert "already" in Experiment(study=home).simulate([results(3), results(6)])
    found = Experiment(study=Study.open("toy", root=home.root, run="nightly")).reading().effect()
    assert isinstance(found, Reading)
    evidence = ab_evidence(found, study="toy")
    read = Evidence.read(evidence.write(tmp_path / "ab_test.json"))
    assert read.simulated
    assert as_json(read.details)["users"] == 500
    if min_samples == 5000:
        assert read.primary == ReportedTest(verdict="too early", n=read.primary.n)
        assert read.details.looks == ()
        assert "control_rate" not in json.dumps(as_json(read.details))
    else:
        assert read.primary.verdict in {"better", "no difference shown"}
    assert [one.run for one in read_looks(home.path(lock.LEDGER))] == ["nightly"]


def test_an_ab_test_is_bound_to_the_models_of_its_plan_and_to_no_test_set(home):
    nothing = ab_evidence(Experiment(study=home).reading().effect(), study="toy")
    assert (nothing.models, nothing.bound_to, nothing.metric) == ({}, {}, "")
    lock_draft(home)
    planned = ab_evidence(Experiment(study=home).reading().effect(), study="toy")
    names = {"base": FIELDS["control_model"], "fine_tuned": FIELDS["treatment_model"]}
    assert planned.models == names
    assert planned.bound_to == {}


LOOK = {
    "experiment": "toy", "plan_sha256": "0", "look": 1, "information": 1.0, "n_control": 900, "n_treatment": 905,
    "effect_shown": True, "verdict": "worse", "control_model": "a", "treatment_model": "b", "simulated": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "unshown", [{"effect_shown": False}, {"verdict": "better"}, {"simulated": True}]
)
def test_what_a_look_has_shown_against_a_model_outlives_its_plan_and_its_log(home, unshown):
    ledger = home.path(lock.LEDGER)
    record_look(ledger, Look(**LOOK | unshown))
    assert lock.results_against(home) == ()
    record_look(ledger, Look(**LOOK))
    record_look(ledger, Look(**LOOK | {"verdict": "too early", "effect_shown": False}))
    (found,) = lock.results_against(home)
    assert (found.source, found.models) == ("toy", {"base": "a", "fine_tuned": "b"})
    assert found.key.startswith("ab_test-")


def test_a_look_from_before_looks_named_their_models_is_of_the_plan_of_that_name_or_of_none(home):
    old = {name: value for name, value in LOOK.items() if not name.endswith("_model")}
    lock_draft(home)
    for experiment in (FIELDS["experiment_name"], "another"):
        record_look(
            home.path(lock.LEDGER), Look(**old | {"experiment": experiment, "simulated": None})
        )
    of_plan, of_another = lock.results_against(home)
    assert of_plan.models == {
        "base": FIELDS["control_model"],
        "fine_tuned": FIELDS["treatment_model"],
    }
    assert of_another.models == {}


def test_a_design_effect_of_what_is_no_rate_is_refused_and_leaves_no_table_to_a_closed_log(
    home, tmp_path, make_people, make_frames
):
    exposures, outcomes = make_frames(make_people(50, 50))
    (log := tmp_path / "data/toy/log").mkdir()
    exposures.to_parquet(log / "exposures.parquet")
    outcomes.assign(value=3.0).to_parquet(log / "outcomes.parquet")
    lock_draft(home)
    with pytest.raises(DataError, match="'accepted' is no rate"):
        Experiment(study=saying(tmp_path, event_log="log")).design_effect()
    gc.collect()  # what is dropped too late is told by no exception, but it is a warning here


def test_nothing_is_simulated_without_a_plan_or_over_a_log_elsewhere(home, monkeypatch):
    assert Experiment(study=home).simulate([results(3), results(6)]) == ""
    lock_draft(home)
    assert Experiment(study=home).simulate([]) == ""
    elsewhere = saying(home.root, event_log="EVENTS_URL")
    assert Experiment(study=elsewhere).simulate([results(3), results(6)]) == ""
    monkeypatch.delenv("EVENTS_URL", raising=False)
    assert "The variable EVENTS_URL that event_log names is not there" in effect.headline(
        Experiment(study=elsewhere).reading().effect()
    )
