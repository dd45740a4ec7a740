import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.abtest.experiment import Experiment
from evalkit.abtest.plan import ABPlan, Guardrail, Metric, read_guardrails
from evalkit.errors import DataError, DesignError
from evalkit.study import Study

ACCEPTED = Metric(name="accepted", expected=0.30, detectable_difference=0.05)


def plan(**changes):
    fields = {
        "experiment_name": "exp",
        "control_model": "base",
        "treatment_model": "tuned",
        "primary": ACCEPTED,
        "traffic_split": 0.5,
        "users_per_day": 300,
    }
    return ABPlan(**fields | changes)


def test_users_come_from_the_power_when_that_asks_for_more_than_min_samples():
    # 30% -> 35% at 50/50, alpha 5%, power 80%: 1,377 a group (Fleiss); 2,754 users / 300 a day = 9.2 days -> 2 weeks
    found = plan()
    assert (found.n_control, found.n_treatment, found.n_users, found.days) == (1377, 1377, 2754, 14)


def test_min_samples_holds_for_the_smaller_variant():
    # 10 points need fewer than 1,000 each, so the smaller variant gets 1,000, and the other nine times as many
    found = plan(
        primary=Metric(name="accepted", expected=0.30, detectable_difference=0.10),
        traffic_split=0.1,
    )
    assert (found.n_control, found.n_treatment) == (9000, 1000)


def test_both_variants_keep_the_split_and_reach_their_number():
    from evalkit.stats import users_needed

    found, needed = plan(traffic_split=0.1, min_samples=1), users_needed(0.30, 0.35, 0.1)
    assert found.n_treatment >= needed.n_treatment
    assert found.n_control >= needed.n_control
    assert found.n_treatment / found.n_users == pytest.approx(0.1, abs=1e-3)


def test_a_numeric_metric_needs_its_standard_deviation():
    # n = 2 (1.95996 + 0.84162)^2 (20 / 2)^2 = 1569.8
    found = plan(
        primary=Metric(
            name="seconds", kind="mean", detectable_difference=-2.0, sd=20.0, better="lower"
        )
    )
    assert (found.n_control, found.n_treatment) == (1570, 1570)
    with pytest.raises(DesignError, match="needs sd"):
        Metric(name="seconds", kind="mean", detectable_difference=-2.0, better="lower")


def test_the_window_counts_into_the_days_and_weeks_are_whole():
    # 2,754 / 300 = 9.2 -> 10 days, and 7 more until the last window closes: 17 -> 3 weeks
    assert plan(outcome_window_days=7).days == 21
    assert plan(users_per_day=1e6).days == 7


@given(st.floats(0.02, 0.9), st.floats(0.01, 0.09), st.floats(0.05, 0.95), st.integers(1, 5000))
def test_neither_variant_is_ever_planned_below_min_samples(
    expected, difference, split, min_samples
):
    found = plan(
        primary=Metric(name="accepted", expected=expected, detectable_difference=difference),
        traffic_split=split,
        min_samples=min_samples,
    )
    assert min(found.n_control, found.n_treatment) >= min_samples
    assert found.days % 7 == 0
    assert found.days * found.users_per_day >= found.n_users


def test_looks_are_equally_spaced_and_end_at_1():
    assert plan(looks=4).look_fractions == (0.25, 0.5, 0.75, 1.0)
    assert plan().look_fractions == (1.0,)


def test_a_plan_survives_json():
    import json

    full = plan(
        secondary=(Metric(name="spent", kind="ratio", detectable_difference=1.0, sd=3.0),),
        guardrails=(
            Guardrail(name="error", margin=0.01),
            Guardrail(name="latency_ms", kind="p95", margin=50),
        ),
        looks=3,
    )
    assert ABPlan.from_dict(json.loads(json.dumps(full.to_dict(), allow_nan=False))) == full
    with pytest.raises(DataError, match="not a plan"):
        ABPlan.from_dict({"experiment_name": "exp"})


def test_the_router_gets_the_plans_split():
    config = plan(traffic_split=0.2, min_samples=50, hash="md5-1000").config(phase=3)
    assert (config.traffic_split, config.min_samples, config.hash, config.phase) == (
        0.2,
        50,
        "md5-1000",
        3,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"traffic_split": 0.0}, "between 0 and 1"),
        ({"traffic_split": 1.0}, "between 0 and 1"),
        ({"traffic_split": 1.5}, "between 0 and 1"),
        ({"users_per_day": 0}, "users_per_day is 0"),
        ({"users_per_day": math.inf}, "users_per_day"),
        ({"looks": 0}, "looks is 0"),
        ({"looks": 2.0}, "looks is 2.0"),
        ({"outcome_window_days": -1}, "outcome_window_days is -1"),
        ({"secondary": (ACCEPTED,)}, "each name may stand once"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(changes, message):
    with pytest.raises(DesignError, match=message):
        plan(**changes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"expected": None}, "needs the expected control rate"),
        ({"expected": 0.0}, "needs the expected control rate"),
        ({"expected": 0.98}, "leads to no rate"),
        ({"detectable_difference": 0.0}, "other than 0"),
        ({"detectable_difference": math.nan}, "need a finite number"),
        ({"kind": "median"}, "need 'rate' or 'mean' or 'ratio'"),
        ({"name": ""}, "name is ''; need a text"),
    ],
)
def test_a_metric_that_gives_no_number_of_users_is_refused(fields, message):
    with pytest.raises(DesignError, match=message):
        Metric(**{"name": "accepted", "expected": 0.3, "detectable_difference": 0.05} | fields)


@pytest.mark.parametrize("margin", [0, -0.1, math.nan])
def test_a_guardrail_needs_a_margin(margin):
    with pytest.raises(DesignError, match="need a number above 0"):
        Guardrail(name="error", margin=margin)


def test_guardrails_are_read_from_yaml(tmp_path):
    path = tmp_path / "guardrails.yaml"
    path.write_text("- {name: error, margin: 0.01}\n- {name: latency_ms, kind: p95, margin: 50}\n")
    assert read_guardrails(path) == (
        Guardrail(name="error", margin=0.01),
        Guardrail(name="latency_ms", kind="p95", margin=50),
    )
    path.write_text("- {name: error, limit: 0.01}\n")
    with pytest.raises(DataError, match=r"guardrails\.yaml: .*limit"):
        read_guardrails(path)
    with pytest.raises(DataError, match=r"gone\.yaml: cannot be read \(No such file.*need a list"):
        read_guardrails(tmp_path / "gone.yaml")


def test_a_value_that_a_plan_does_not_have_is_refused_with_the_nearest():
    with pytest.raises(DesignError, match=r"a plan has no lookz; it has .*; did you mean looks\?"):
        plan().changed(lookz=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": "0.05"}, "alpha is '0.05'; need a number"),
        ({"alpha": "\ud800"}, "alpha is .*; need a number"),
        ({"alpha": [0.05, 0.1]}, "alpha is .*; need a number"),
        ({"looks": np.array([1, 2])}, "looks is array.*; need a whole number"),
        ({"control_model": 0}, "control_model is 0; need a text"),
        ({"users_per_day": None}, "users_per_day is None; need a number"),
        ({"guardrails": ["error"]}, "guardrails is .*need tuple.Guardrail"),
        ({"guardrails": None}, "guardrails is None; need tuple.Guardrail"),
        ({"guardrails": [{"name": "error", "margin": 0.1}]}, "need tuple.Guardrail"),
        ({"primary": "cost"}, "primary is 'cost'; need Metric"),
        (
            {"primary": [Metric(name="cost", kind="mean", sd=1.0, detectable_difference=1.0)] * 2},
            "primary is .*need Metric",
        ),
        (
            {"primary": {"name": "cost", "expected": "x", "detectable_difference": 1}},
            "primary is .*need Metric",
        ),
    ],
)
def test_what_is_no_number_metric_or_guardrail_is_refused_by_its_name(changes, message):
    with pytest.raises(DesignError, match=message):
        plan().changed(**changes)


@pytest.mark.parametrize("rate", [np.float64(300.0), Decimal(300)])
def test_numbers_of_other_types_are_plain_in_the_plan(rate):
    given = plan(users_per_day=rate, looks=np.int64(2), guardrails=[])
    assert given == plan(users_per_day=300.0, looks=2)
    assert [type(one) for one in (given.users_per_day, given.looks)] == [float, int]


def test_a_log_is_read_by_the_locked_plan_alone(tmp_path):
    with pytest.raises(DesignError, match=r"change it by evalkit\.abtest\.lock\.amend"):
        Experiment(study=Study(name="s", root=tmp_path)).reading(plan().changed(looks=2))
