"""A metric of which less is better: the sign stays as measured, the verdict turns, everywhere it is told."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from evalkit import show
from evalkit.abtest.experiment import Experiment, ab_evidence
from evalkit.abtest.lock import read_lock
from evalkit.abtest.plan import ABPlan, Metric
from evalkit.abtest.reading import read_ab_test
from evalkit.decision import decide
from evalkit.decision.rules import Rules
from evalkit.errors import DesignError
from evalkit.evidence import Evidence
from evalkit.show import abtest as words
from evalkit.show import decision as decision_plots
from evalkit.show import effect, style
from evalkit.show import verdict as spoken
from evalkit.stats import noninferiority_test, paired_binary_test, paired_mean_test
from evalkit.study import Study

pytestmark = pytest.mark.slow  # a log is read in the engine for each case

AIM = {"rate": {"expected": 0.3, "difference": 0.1}, "mean": {"expected": None, "difference": 1.0}}


@pytest.fixture
def churn(make_log, make_people, make_frames, locked, later):
    """Reads a log in which the metric moves by `lift` points, one look or several."""

    def _churn(lift, better, *, kind="rate", looks=1, secondary=()):
        exposures, outcomes = make_frames(make_people(1500, 1500, rate=0.3, lift=lift))
        outcomes = outcomes.assign(metric="churned")
        more = [
            outcomes.assign(metric=one.name, outcome_id=one.name + outcomes["outcome_id"])
            for one in secondary
        ]
        plan = locked(
            name="churned",
            kind=kind,
            sd=1.0 if kind != "rate" else None,
            better=better,
            looks=looks,
            secondary=secondary,
            min_samples=1500,
            **AIM["rate" if kind == "rate" else "mean"],
        )
        log = make_log(exposures, pd.concat([outcomes, *more]))
        return read_ab_test(log, plan, now=later)

    return _churn


@pytest.mark.parametrize("kind", ["rate", "mean", "ratio"])
@pytest.mark.parametrize("looks", [1, 3])
@pytest.mark.parametrize(
    ("lift", "better", "verdict", "way"),
    [
        (-0.08, "lower", "better", "lower"),  # churn falls from 30% to 22%
        (0.08, "lower", "worse", "higher"),
        (-0.08, "higher", "worse", "lower"),
        (0.08, None, "better", "higher"),
    ],
)
def test_the_verdict_turns_and_the_sign_does_not(lift, better, verdict, way, kind, looks, churn):
    found = churn(lift, better, kind=kind, looks=looks)
    test = found.findings.primary
    assert (found.verdict, test.estimate > 0) == (verdict, lift > 0)
    assert f"{way} in treatment" in effect.headline(found)
    assert {one["verdict"] for one in found.findings.by_slice} <= {verdict}
    assert {one.verdict for one in found.findings.looks[-1:]} == {verdict}


def test_each_secondary_metric_has_its_own_direction(churn):
    fields = {"expected": 0.3, "detectable_difference": 0.1}
    more = (Metric(name="lost", better="lower", **fields), Metric(name="kept", **fields))
    found = churn(-0.08, "lower", secondary=more).findings
    assert [one["verdict"] for one in found.secondary] == ["better", "worse"]


@pytest.mark.parametrize(("lift", "ships"), [(-0.08, True), (0.08, False)])
def test_falling_churn_ships_and_rising_churn_does_not(lift, ships, churn):
    found = churn(lift, "lower")
    evidence = ab_evidence(found, study="toy")
    made = decide({"ab_test": evidence}, study="toy", stage="rollout")
    layer = next(one for one in made.layers if one.layer == "ab_test")
    assert layer.word == ("passes" if ships else "don't ship")
    assert (layer.estimate < 0) is ships
    row = decision_plots.rows_of(made)[-1]
    # the track shows better on the right: a fall of 8 points reaches as far as a gain of 8 points would
    turned = {"estimate": -layer.estimate, "ci_low": -layer.ci_high, "ci_high": -layer.ci_low}
    gain = replace(row, of=replace(layer, **turned, lower_is_better=False))
    assert row.span == gain.span
    assert ("lose" in spoken.headline(made)) is False


def test_not_worse_looks_at_the_bad_side():
    # 30% churn in 2,000, 30.2% in treatment: a rise of at most about 3 points, a margin of 4
    rules = Rules(ab_test_needs="not worse", ab_test_margin=0.04)
    numbers = {"estimate": 0.002, "ci_low": -0.026, "ci_high": 0.030, "lower_is_better": True}
    primary = {"verdict": "no difference shown", "n": 4000, **numbers}
    about = {
        "layer": "ab_test",
        "study": "toy",
        "made_at": "2026-01-01T00:00:00Z",
        "models": {},
        "bound_to": {},
        "simulated": False,
        "metric": "churned",
        "unit": "users",
    }

    def layer(**changes):
        one = Evidence.of(about | {"primary": primary | changes})
        return decide({"ab_test": one}, study="toy", rules=rules, stage="rollout").layers[-1]

    assert (layer().verdict, layer().limit) == ("not worse", 0.04)
    assert layer(ci_low=-0.05).verdict == "not worse"  # a large fall is no loss
    assert layer(ci_high=0.05).verdict == "not shown"


@pytest.mark.parametrize(
    "test", [paired_binary_test(250, 10, 40, 0), paired_mean_test([-0.1, -0.3, -0.2, -0.4] * 5)]
)
def test_every_result_can_face_the_other_way(test):
    turned = replace(test, lower_is_better=True)
    assert (test.verdict, turned.verdict, turned.estimate) == ("worse", "better", test.estimate)
    assert json.loads(json.dumps(turned.to_dict()))["verdict"] == "better"
    assert noninferiority_test(turned, 0.02).verdict == "not worse"
    assert noninferiority_test(test, 0.02).verdict == "not shown"


@pytest.mark.parametrize("kind", ["rate", "mean"])
def test_a_negative_difference_without_a_direction_is_refused(kind):
    fields = {"name": "churned", "kind": kind, "expected": 0.3, "sd": 1.0}
    with pytest.raises(DesignError, match=r"a fall, .* better: lower \(ab_metric_better in study"):
        Metric(**fields, detectable_difference=-0.05)
    assert Metric(**fields, detectable_difference=-0.05, better="lower").aim == -0.05
    assert Metric(**fields, detectable_difference=0.05, better="lower").aim == -0.05
    assert Metric(**fields, detectable_difference=-0.05, better="higher").aim == 0.05
    with pytest.raises(DesignError, match=r"need .higher. or .lower."):
        Metric(**fields, detectable_difference=0.05, better="less")
    with pytest.raises(DesignError, match=r"leads to no rate"):
        Metric(name="churned", expected=0.3, detectable_difference=0.4, better="lower")


def test_a_fall_is_sized_as_a_fall():
    from evalkit.stats import users_needed

    metric = Metric(name="churned", expected=0.3, detectable_difference=0.05, better="lower")
    plan = ABPlan(
        experiment_name="x", control_model="a", treatment_model="b", primary=metric,
        traffic_split=0.5, min_samples=1, users_per_day=100.0,
    )  # fmt: skip
    assert plan.n_control == pytest.approx(users_needed(0.3, 0.25).n_control, rel=0.05)
    assert "lower is better, expected at 30.0%; worth finding: −5.0 points" in words.aim(plan)


# as the version before directions locked it
OLD = {
    "experiment_name": "exp", "control_model": "a", "treatment_model": "b",
    "primary": {"name": "accepted", "kind": "rate", "expected": 0.3, "detectable_difference": 0.05, "sd": None},
    "secondary": [{"name": "spent", "kind": "mean", "expected": None, "detectable_difference": 1.0, "sd": 2.0}],
    "guardrails": [{"name": "error", "margin": 0.01, "kind": "rate", "better": "lower"}],
    "traffic_split": 0.1, "min_samples": 1000, "hash": "sha256", "outcome_window_days": 0, "users_per_day": 100.0,
    "looks": 1, "alpha": 0.05, "power": 0.8, "design_effect": 1.0,
}  # fmt: skip


def locked_before(path, plan):
    from evalkit.abtest.lock import _hash

    whole = plan | {
        "needs": {"n_control": 9000, "n_treatment": 1000, "n_users": 10000, "days": 105}
    }
    record = {"kind": "evalkit-plan", "version": 1, "plan": whole, "sha256": _hash(whole)}
    record |= {"locked_at": "2026-01-05T00:00:00+00:00", "amendments": []}
    path.write_text(json.dumps(record), encoding="utf-8")
    return read_lock(path)


def test_plans_locked_before_keep_what_they_hash(tmp_path):
    read = locked_before(tmp_path / "plan.lock.json", OLD)
    assert read.plan.primary.better == "higher"
    written = {name: value for name, value in read.plan.to_dict().items() if name != "needs"}
    assert json.loads(json.dumps(written)) == OLD


def test_a_plan_locked_before_with_a_fall_is_read_and_says_how(
    tmp_path, make_log, make_people, make_frames, later
):
    old = OLD | {"primary": OLD["primary"] | {"detectable_difference": -0.05}, "secondary": []}
    read = locked_before(tmp_path / "plan.lock.json", old)
    log = make_log(*make_frames(make_people(900, 100)))
    found = read_ab_test(log, read, now=later)
    assert "counts higher as better" in show.log_notes(found).text


def test_a_direction_survives_the_lock(tmp_path):
    from evalkit.abtest.lock import lock

    metric = Metric(name="churned", expected=0.3, detectable_difference=-0.05, better="lower")
    plan = ABPlan.from_dict(OLD | {"secondary": []})
    locked = lock(replace(plan, primary=metric), tmp_path / "plan.lock.json")
    assert read_lock(locked.path).plan.primary == metric


def test_the_parameter_of_a_study(tmp_path):
    (tmp_path / "data/toy").mkdir(parents=True)
    said = "experiment_name: exp\nab_metric: churned\nexpected_rate: 0.3\ndetectable_difference: 0.05\n"
    (tmp_path / "data/toy/study.yaml").write_text(said)

    def metric(**overrides):
        return Experiment(study=Study.open("toy", root=tmp_path, **overrides)).draft().primary

    assert metric(ab_metric_better="lower").aim == -0.05
    assert metric().better == metric(ab_metric_better="").better == "higher"


def test_the_figures_turn_their_zones(churn):
    import matplotlib.pyplot as plt

    found = churn(-0.08, "lower")
    with style.style():
        ax = effect.draw_z_test(found)
        assert ax.get_xlabel().startswith("better ←")
        plt.close(ax.figure)
        ax = effect.draw_looks(found)
        assert "lies beyond the limit" in (ax.get_title("left") or ax.get_title())
        plt.close(ax.figure)
