"""Whole logs in every awkward state, read as the notebook reads them; the same numbers on PostgreSQL as on SQLite."""

import json
from contextlib import closing
from datetime import UTC, datetime

import pytest

from evalkit.abtest.lock import amend, lock
from evalkit.abtest.log import OUTCOMES, EventLog
from evalkit.abtest.plan import ABPlan, Metric
from evalkit.abtest.reading import read_ab_test
from evalkit.abtest.routing import Exposure, OutcomeRow
from evalkit.abtest.source import open_log

DAY_S = 86400.0
START_S = 1_790_000_000.0 // DAY_S * DAY_S


def plan_for(name, folder):
    kind, difference = ("mean", 2.0) if name == "numeric" else ("rate", 0.3)
    metric = Metric(
        name="accepted", kind=kind, expected=0.3, detectable_difference=difference, sd=10.0
    )
    plan = ABPlan(
        experiment_name="demo", control_model="base", treatment_model="tuned", primary=metric,
        min_samples=1800 if name == "numeric" else 400,
        traffic_split=0.1 if name == "ramp" else 0.5, outcome_window_days=1, users_per_day=300.0,
    )  # fmt: skip
    locked = lock(plan, folder / "plan.lock.json", now=datetime.fromtimestamp(START_S, UTC))
    return (
        amend(locked.path, "no harm in week one", traffic_split=0.5, min_samples=1500)
        if name == "ramp"
        else locked
    )


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("nothing", "no difference shown"),
        ("better", "better"),
        ("worse", "worse"),
        ("broken_split", "invalid"),
        ("too_early", "too early"),
        ("ramp", "no difference shown"),
        ("no_variance", "no difference shown"),
        ("numeric", "better"),
    ],
)
def test_each_state_is_read_for_what_it_is(name, verdict, scenario_log, tmp_path):
    with closing(open_log(scenario_log(name, seed=3))) as log:
        found = read_ab_test(log, plan_for(name, tmp_path), now=START_S + 60 * DAY_S)
    assert found.verdict == verdict
    assert found.simulated
    assert (found.findings is None) == (verdict in {"invalid", "too early"})
    assert json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.slow
def test_pooling_over_the_ramp_would_have_shown_the_calendar(scenario_log, tmp_path):
    path, events = scenario_log("ramp", seed=3), {"control": [], "treatment": []}
    with closing(open_log(path)) as log:
        found = read_ab_test(log, plan_for("ramp", tmp_path), now=START_S + 60 * DAY_S)
    with closing(EventLog(path)) as log:
        values = {row["request_id"]: row["value"] for row in log.rows(OUTCOMES)}
        for row in log.rows():
            events[row["variant"]].append(values[row["request_id"]])
    control, treatment = events.values()
    pooled = sum(treatment) / len(treatment) - sum(control) / len(control)
    # the second week is 10 points better for all, and most treated users came in it
    assert pooled > 0.03
    assert abs(found.findings.primary.estimate) < 2.5 * found.findings.primary.se
    assert [one.test.verdict for one in found.sample_ratio] == ["no difference shown"] * 2


@pytest.mark.postgres
def test_postgres_gives_the_numbers_of_sqlite(scenario_log, postgres_url, tmp_path):
    there, here = EventLog(postgres_url), EventLog(scenario_log("better", seed=3))
    there.record_exposures([Exposure(**row) for row in here.rows()])
    there.record_outcomes([OutcomeRow(**row) for row in here.rows(OUTCOMES)])
    plan, now = plan_for("better", tmp_path), START_S + 60 * DAY_S
    found = []
    for log in (here, there):
        log.close()
        with closing(open_log(log.url)) as opened:
            found.append(read_ab_test(opened, plan, now=now))
    ours, theirs = found
    names = ("estimate", "se", "n", "ci_low", "ci_high", "z_score")
    assert [getattr(theirs.findings.primary, name) for name in names] == pytest.approx(
        [getattr(ours.findings.primary, name) for name in names], rel=1e-9
    )
    assert [one.change for one in theirs.health] == [one.change for one in ours.health]


@pytest.mark.postgres
def test_a_warehouse_in_postgres_gives_the_numbers_of_the_log(scenario_log, postgres_url, tmp_path):
    import sqlalchemy as sa

    here = scenario_log("better", seed=3)
    with closing(EventLog(here)) as log, closing(EventLog(postgres_url)) as there:
        there.record_exposures([Exposure(**row) for row in log.rows()])
        there.record_outcomes([OutcomeRow(**row) for row in log.rows(OUTCOMES)])
        engine = sa.create_engine(there.url)
    with engine.begin() as connection:
        for line in (
            "CREATE SCHEMA dwh",
            """CREATE VIEW dwh.viewed AS SELECT user_id AS account, experiment AS experiment_id,
            variant = 'treatment' AS variation_id, to_timestamp(at_s) AS seen_at FROM exposures""",
            """CREATE TABLE dwh.rated AS SELECT user_id AS account, to_timestamp(at_s) AS seen_at,
            value::numeric AS accepted FROM outcomes""",
        ):
            connection.execute(sa.text(line))
    engine.dispose()
    columns = {
        "user": "account",
        "variant": "variation_id",
        "time": "seen_at",
        "experiment": "experiment_id",
    }
    tables = {"exposures": "dwh.viewed", "events": "dwh.rated", "outcomes": ["accepted"]}
    plan, now = plan_for("better", tmp_path), START_S + 60 * DAY_S
    found = open_log(postgres_url, **columns, **tables, variants=("false", "true"))
    with closing(found) as warehouse, closing(open_log(here)) as log:
        one, other = (read_ab_test(each, plan, now=now) for each in (warehouse, log))
    assert one.verdict == "better"
    assert one.findings.primary.estimate == pytest.approx(other.findings.primary.estimate)
    assert (one.n_users, one.n_requests) == (other.n_users, other.n_requests)
