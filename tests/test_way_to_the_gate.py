"""What a layer shows, carried through to the decision: the numbers that decide there are those that hold."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from msgspec import structs

from evalkit.abtest.lock import amend, limits, lock, schedule
from evalkit.abtest.outcomes import deciding, read_looks
from evalkit.abtest.plan import ABPlan, Metric
from evalkit.benchmark.benchmark import evidence_of
from evalkit.benchmark.comparison import compare_many
from evalkit.decision import Rules, decide
from evalkit.evidence import Evidence
from evalkit.records import EvalResult
from evalkit.show import verdict as spoken

ABOUT = {
    "study": "small",
    "bound_to": {"test_set": "0"},
    "costs": {},
}


def answers(right):
    return [
        EvalResult(i, f"q {i}", "x", "x" if one else "y", bool(one), True)
        for i, one in enumerate(right)
    ]


def gate(record, **rules):
    found = replace(record, details=structs.replace(record.details, noise_floor={"flip_rate": 0.0}))
    return decide(
        {"benchmark": found}, study="small", rules=Rules(human_before_deployment=False, **rules)
    )


@pytest.mark.parametrize("lower", [False, True])
def test_one_of_several_checkpoints_is_held_against_the_margin_by_the_wider_interval(lower):
    # 10 fixed, 10 regressed of 200: 95% interval +-4.6 points, at 5% / 5 models +-6.1
    old, new = [1] * 100 + [0] * 100, [1] * 90 + [0] * 10 + [1] * 10 + [0] * 90
    others = {"v1": answers(new)} | {f"v{i}": answers(old) for i in range(2, 6)}
    options = {"lower_is_better": "exact_match"} if lower else {}
    alone = compare_many(answers(old), {"v1": answers(new)}, **options)
    several = compare_many(answers(old), others, **options)
    words = {}
    for name, one in (("alone", alone["v1"]), ("several", several["v1"])):
        found = gate(evidence_of(one, **ABOUT), benchmark_needs="not worse", benchmark_margin=0.055)
        layer = found.layers[0]
        words[name] = (layer.verdict, found.verdict)
        inside = layer.ci_low > -0.055
        assert inside is (name == "alone")
        assert ("99% interval" in spoken.reason(layer)) is (name == "several")
    assert words == {"alone": ("not worse", "ship"), "several": ("not shown", "not yet")}


# From sums of users to decision.json


def planned(tmp_path, *, rate, gain, split, looks, splits=(), better="higher"):
    """A locked plan; `splits` are those of further phases."""
    metric = Metric(name="m", expected=rate, detectable_difference=gain, better=better)
    plan = ABPlan(
        experiment_name="exp", control_model="a", treatment_model="b", primary=metric, traffic_split=split,
        users_per_day=1000.0, looks=looks, min_samples=100,
    )  # fmt: skip
    path = tmp_path / "plan.json"
    made = lock(plan, path, now=datetime.fromtimestamp(0, UTC))
    for one in splits:
        made = amend(path, "ramp", traffic_split=one)
    return made


def cells_of(rng, plan, rates, days=24):
    """Users with one request each, by phase, variant and day, as `Log.cells` sums them; more than planned."""
    phases = plan.phases
    weight = sum(p.traffic_split * (1 - p.traffic_split) for p in phases) / len(phases)
    now = plan.plan.traffic_split
    a_day = math.ceil(1.3 * plan.n_users * now * (1 - now) / weight / days)
    rows = []
    for day in range(days):
        phase = phases[day * len(phases) // days]
        treated = rng.binomial(a_day, phase.traffic_split)
        rows += [(phase.phase, arm, day, n) for arm, n in ((0, a_day - treated), (1, treated))]
    table = pd.DataFrame(rows, columns=["phase", "treated", "day", "n"])
    n = table["n"].to_numpy(float)
    y = rng.binomial(table["n"], np.asarray(rates)[table["treated"]]).astype(float)
    sums = {f"sum_{name}": n for name in ("x", "xx", "xxx")}
    sums |= {f"sum_{name}": y for name in ("y", "xy", "yy", "xxy", "xyy", "yyy")}
    return table.assign(**sums, max_x=1.0, max_y=1.0, min_y=0.0, n_hit=y, n_miss=n - y)


def rollout(primary):
    """The verdict of the gate where benchmark and people are for it, so that users decide."""
    decided = {"verdict": "better", "n": 300, "estimate": 0.2, "ci_low": 0.1, "ci_high": 0.3}
    fields = {
        "study": "s", "made_at": "2026-11-24T00:00:00+00:00", "models": {"base": "a", "fine_tuned": "b"},
        "bound_to": {}, "simulated": False, "unit": "users",
    }  # fmt: skip
    found = {
        layer: Evidence.of({"layer": layer, "metric": "m", "primary": one, "details": {}, **fields})
        for layer, one in (("benchmark", decided), ("human", decided), ("ab_test", primary))
    }
    return decide(found, study="s", stage="rollout").verdict


def shares(plan, rates, *, runs, seed):
    """Shares of tests that end in ship and in don't ship."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(runs):
        cells = cells_of(rng, plan, rates)
        state = schedule(cells, plan, 1e9)
        assert state.due[-1].look == plan.plan.looks
        _, test = deciding(read_looks(cells, plan, state.due, limits(state, plan)))
        found.append(rollout(test.to_dict()))
    return [float(np.mean([one == word for one in found])) for word in ("ship", "don't ship")]


CASES = {
    "10/90, 0.5%, four looks": {"rate": 0.005, "gain": 0.005, "split": 0.1, "looks": 4},
    "50/50, 30%, one look": {"rate": 0.3, "gain": 0.05, "split": 0.5, "looks": 1},
    "three phases, 2%": {"rate": 0.02, "gain": 0.01, "split": 0.05, "looks": 2, "splits": (0.2, 0.5)},
    "churn, 8%": {"rate": 0.08, "gain": -0.03, "split": 0.2, "looks": 3, "better": "lower"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_users_of_two_equal_models_ship_or_stop_one_in_forty_times(case, tmp_path):
    plan = planned(tmp_path, **CASES[case])
    ship, stop = shares(plan, [CASES[case]["rate"]] * 2, runs=600, seed=1)
    # 2.5% on either side; three standard errors of 600 runs are 1.9 points
    assert max(ship, stop) <= 0.044
    assert 0.026 <= ship + stop <= 0.078


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_planned_gain_ships_four_times_in_five(case, tmp_path):
    plan, rate = planned(tmp_path, **CASES[case]), CASES[case]["rate"]
    ship, stop = shares(plan, [rate, rate + plan.plan.primary.aim], runs=300, seed=2)
    assert 0.73 <= ship <= 0.9  # promised 80%; a look waits for the end of a day
    assert stop <= 0.01
    loss = rate - plan.plan.primary.aim
    if 0 < loss < 1:
        ship, stop = shares(plan, [rate, loss], runs=100, seed=3)
        assert ship == 0 < 0.6 < stop
