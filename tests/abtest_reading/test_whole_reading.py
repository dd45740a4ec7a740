"""A/A tests from the users to the verdict: ramps, days, one user, heavy tails; and some through a real log."""

import numpy as np
import pandas as pd
import pytest

from evalkit.abtest.effects import design_effect_in, effect, side_by_side
from evalkit.abtest.lock import limits, schedule
from evalkit.abtest.outcomes import deciding, read_looks
from evalkit.abtest.reading import read_ab_test
from evalkit.show.lacking import in_words
from evalkit.stats import combine_phases, ratio_test

DAY = 86400.0
START_DAY = 20_000


def cells_of(phase, treated, day, hits):
    """The sums `Log.cells` returns, for users with one request each."""
    keys = ["phase", "treated", "day"]
    table = pd.DataFrame({"phase": phase, "treated": treated, "day": day, "y": hits.astype(float)})
    found = table.groupby(keys)["y"].agg(["size", "sum", "min", "max"]).reset_index()
    n, y = found["size"].astype(float), found["sum"]
    sums = {f"sum_{name}": n for name in ("x", "xx", "xxx")}
    sums |= {f"sum_{name}": y for name in ("y", "xy", "yy", "xxy", "xyy", "yyy")}
    ends = {"max_x": 1.0, "max_y": found["max"], "min_y": found["min"]}
    return found[keys].assign(n=n, **sums, **ends, n_hit=y, n_miss=n - y)


@pytest.mark.slow
@pytest.mark.parametrize("looks", [1, 4])
def test_a_ramp_at_a_low_rate_keeps_the_level(locked, looks):
    # 10% for a week, then 50%, at 1%: weights by observed variances named a winner in 13.5%
    plan = locked(traffic_split=0.1, ramp=0.5, min_samples=1500, looks=looks)
    rng, now, found = np.random.default_rng(1), (START_DAY + 100) * DAY, []
    for _ in range(1500):
        day = rng.integers(0, 14, 8000)
        phase = 1 + (day >= 7)
        treated = rng.uniform(size=8000) < np.where(phase == 1, 0.1, 0.5)
        cells = cells_of(phase, treated.astype(int), START_DAY + day, rng.uniform(size=8000) < 0.01)
        state = schedule(cells, plan, now)
        _, test = deciding(read_looks(cells, plan, state.due, limits(state, plan)))
        found.append(test.verdict)
    assert 0.036 <= np.mean([one in {"better", "worse"} for one in found]) <= 0.062
    assert np.mean([one == "worse" for one in found]) <= 0.04


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.002, 0.02])
def test_some_single_day_is_worse_in_few_tests(rate):
    # 14 days of 1,000 users at 10/90: own errors named some day "worse" in 12% to 95% of A/A tests
    rng, worse = np.random.default_rng(2), []
    for _ in range(500):
        day, treated = rng.integers(0, 14, 14_000), rng.uniform(size=14_000) < 0.1
        cells = cells_of(1, treated.astype(int), START_DAY + day, rng.uniform(size=14_000) < rate)
        days = {str(one): effect(part, "rate") for one, part in cells.groupby("day")}
        worse.append(any(row["verdict"] != "no difference shown" for row in side_by_side(days)))
    assert np.mean(worse) <= 0.065


def log_of(users, *, metric="accepted", per_user=False):
    """Exposures and outcomes from one row a user: variant, requests, successes (or one value)."""
    who = users.loc[users.index.repeat(users["requests"])].reset_index(drop=True)
    place = who.groupby("user_id").cumcount().to_numpy()
    at = START_DAY * DAY + 60 + place
    exposures = pd.DataFrame(
        {
            "request_id": [f"r{i}" for i in range(len(who))],
            "user_id": who["user_id"],
            "variant": who["variant"],
            "at_s": at,
            "phase": 1,
        }
    )
    value = who["value"] if per_user else (place < who["successes"].to_numpy()).astype(float)
    outcomes = exposures[["request_id", "user_id"]].assign(metric=metric, value=value, at_s=at + 1)
    return exposures, outcomes


def users_of(n_control, n_treatment, **columns):
    n = n_control + n_treatment
    variant = np.where(np.arange(n) < n_control, "control", "treatment")
    return pd.DataFrame({"user_id": [f"u{i}" for i in range(n)], "variant": variant} | columns)


def test_no_event_in_the_small_variant_is_no_verdict_of_worse(make_log, locked, later):
    users = users_of(9000, 1000, requests=1, successes=(np.arange(10_000) < 27).astype(int))
    plan = locked(traffic_split=0.1, min_samples=1000)
    found = read_ab_test(make_log(*log_of(users)), plan, now=later, slices=False)
    assert found.verdict == "no difference shown"
    assert found.findings.primary.p_value == pytest.approx(0.1047, abs=1e-4)
    rows = found.to_dict()["findings"]["by_day"]
    assert [row["verdict"] for row in rows] == ["no difference shown"]


def test_unanimous_users_are_better(make_log, locked, later):
    users = users_of(50, 50, requests=2, successes=2 * (np.arange(100) >= 50))
    for looks in (1, 2):
        plan = locked(min_samples=50, looks=looks)
        found = read_ab_test(make_log(*log_of(users)), plan, now=later, slices=False)
        assert found.verdict == "better"
        assert 0 < found.findings.primary.ci_low < found.findings.primary.ci_high


def test_one_user_of_many_requests_is_invalid_and_a_cap_mends_it(make_log, locked, later):
    rng = np.random.default_rng(3)
    requests, hits = np.ones(1000, int), (rng.uniform(size=1000) < 0.2).astype(int)
    requests[-1], hits[-1] = 3000, 2990
    log = make_log(*log_of(users_of(500, 500, requests=requests, successes=hits)))
    found = read_ab_test(log, locked(min_samples=500), now=later, slices=False)
    assert found.verdict == "invalid"
    assert found.findings.primary.p_value is None
    assert "one user holds 86% of treatment's requests" in in_words(found.missing[0]).why
    plan = locked(min_samples=500, cap_per_user=20.0)
    capped = read_ab_test(log, plan, now=later, slices=False)
    assert capped.verdict == "no difference shown"
    assert abs(capped.findings.primary.estimate) < 0.1


def test_the_design_effect_comes_from_the_log(make_log):
    rng = np.random.default_rng(4)
    requests = np.where(rng.uniform(size=3000) < 0.02, 60, 1)
    hits = rng.binomial(requests, rng.beta(0.45, 1.05, 3000))
    exposures, outcomes = log_of(users_of(3000, 0, requests=requests, successes=hits))
    assert design_effect_in(make_log(exposures, outcomes).users("exp"), "accepted") > 3


def test_a_small_slice_that_falls_to_nothing_is_shown_worse():
    # 25 users a variant, 100% against 0%; and 6 against 8, where Fisher's test is all there is
    for n_old, n_new in ((25, 25), (6, 8)):
        treated = np.repeat([0, 1], [n_old, n_new])
        small = effect(cells_of(1, treated, START_DAY, treated == 0), "rate")
        big = effect(
            cells_of(1, np.repeat([0, 1], 200), START_DAY, np.arange(400) % 3 == 0), "rate"
        )
        rows = side_by_side({"small": small, "big": big})
        assert [row["verdict"] for row in rows] == ["worse", "no difference shown"], (n_old, n_new)


def ramp(rng, sizes, rate=0.1):
    """A test a phase, with heavy users: each has a rate of its own and up to 300 requests."""

    def arm(n):
        requests = np.minimum(300, np.ceil(rng.lognormal(1, 1.3, n)).astype(int))
        return requests, rng.binomial(requests, rng.beta(5 * rate, 5 * (1 - rate), n))

    return [ratio_test(arm(old), arm(new)) for old, new in sizes]


def test_a_first_phase_of_twenty_users_does_not_make_a_ramp_invalid():
    # 1%, then 10%, then 50%: one of its 20 treatment users often holds a third of their requests
    rng, found = np.random.default_rng(5), []
    for _ in range(400):
        parts = ramp(rng, ((2000, 20), (900, 100), (1000, 1000)))
        found.append((combine_phases(parts), bool(parts[0].no_verdict)))
    refused = [one for one, small in found if small]
    assert len(refused) > 40
    assert np.mean([one.verdict == "invalid" for one in refused]) < 0.05
    assert all(one.weights[0] == 0 for one in refused)
    assert np.mean([one.verdict in {"better", "worse"} for one, _ in found]) < 0.08


def test_a_phase_that_counts_and_bears_no_verdict_still_refuses_the_whole():
    heavy = ([1] * 499 + [3000], [0] * 499 + [2990]), ([1] * 500, [0, 1] * 250)
    small = ([1] * 500, [0, 1] * 250), ([1] * 500, [0, 1] * 250)
    whole = combine_phases([ratio_test(*heavy), ratio_test(*small)])
    assert (whole.verdict, whole.no_verdict[:20]) == ("invalid", ratio_test(*heavy).no_verdict[:20])
