"""A/A tests through the schedule, the limits and the test by user; and the ways of reading that must fail.

A run is 2,000 to 4,000 users reduced to the sums the engine would return (`test_the_sums_are_the_engines` checks that).
"""

import numpy as np
import pandas as pd
import pytest

from evalkit.abtest.effects import article_test, effect
from evalkit.abtest.lock import limits, schedule
from evalkit.abtest.outcomes import deciding, read_looks
from evalkit.abtest.plan import peeking
from evalkit.stats import obrien_fleming_bounds, ratio_test

START_DAY = 20_000


def draw(rng, n_users, *, days=14, splits=((0, 0.5),), rate=0.3, drift=0.0, requests=3.0, icc=0.1):
    """Users of an A/A test: day, phase, treated, requests, successes; each user has an own rate."""
    day = rng.integers(0, days, n_users)
    phase = np.searchsorted([start for start, _ in splits], day, side="right")
    treated = rng.uniform(size=n_users) < np.array([split for _, split in splits])[phase - 1]
    level = rate + drift * (day >= days / 2)
    own = rng.beta(level * (1 - icc) / icc, (1 - level) * (1 - icc) / icc)
    x = rng.geometric(1 / requests, n_users)
    return pd.DataFrame(
        {
            "phase": phase,
            "treated": treated.astype(int),
            "day": START_DAY + day,
            "x": x,
            "y": rng.binomial(x, own),
        }
    )


def sums_of(users):
    """The sums `Log.cells` returns."""
    x, y = users["x"].to_numpy(float), users["y"].to_numpy(float)
    keys = users[["phase", "treated", "day"]].to_numpy()
    code = (keys[:, 0] * 2 + keys[:, 1]) * 100_000 + keys[:, 2]
    cells, where = np.unique(code, return_inverse=True)
    table = {"phase": cells // 200_000, "treated": cells // 100_000 % 2, "day": cells % 100_000}
    terms = {
        "n": np.ones(len(x)),
        "sum_x": x,
        "sum_y": y,
        "sum_xx": x * x,
        "sum_xy": x * y,
        "sum_yy": y * y,
    }
    return pd.DataFrame(
        table | {name: np.bincount(where, weights=term) for name, term in terms.items()}
    )


def shares(n_runs, plan, seed, **options):
    """Share of A/A runs that name a winner: by the plan, by the article's test over requests, and pooled over phases."""
    rng, now = np.random.default_rng(seed), (START_DAY + 100) * 86400.0
    found = np.zeros((n_runs, 3))
    for run in range(n_runs):
        cells = sums_of(draw(rng, **options))
        state = schedule(cells, plan, now)
        _, test = deciding(read_looks(cells, plan, state.due, limits(state, plan)))
        whole = cells.assign(phase=1)
        article = article_test(whole)
        pooled = effect(whole, "rate")
        found[run] = (
            test.verdict in {"better", "worse"},
            article.p_value < 0.05,
            pooled.p_value < 0.05,
        )
    return found.mean(axis=0)


def test_the_sums_are_the_engines(make_log, make_people, make_frames):
    log = make_log(*make_frames(make_people(60, 60)))
    users = log.users("exp")
    engine = users.cells("accepted")
    exposures, outcomes = make_frames(make_people(60, 60))
    rows = exposures.merge(outcomes[["request_id", "value"]])
    table = rows.groupby("user_id").agg(
        phase=("phase", "first"),
        treated=("variant", "first"),
        at_s=("at_s", "min"),
        x=("value", "size"),
        y=("value", "sum"),
    )
    table = table.assign(
        treated=(table["treated"] == "treatment").astype(int),
        day=(table["at_s"] // 86400).astype(int),
    )
    assert np.allclose(sums_of(table).to_numpy(), engine[sums_of(table).columns].to_numpy())


def test_peeking_daily_finds_winners_where_there_are_none(locked):
    plan = locked(traffic_split=0.5, min_samples=1000, users_per_day=150.0, difference=0.3).plan
    runs = peeking(plan, n_runs=10_000, seed=1)
    assert len(runs.days) == 14
    assert runs.naive[-1] > 0.15
    assert 0.043 < runs.bounded[-1] < 0.057
    assert 0.043 < runs.once < 0.057


@pytest.mark.slow
def test_returning_users_once_at_the_end(locked):
    by_user, by_request, _ = shares(2500, locked(min_samples=900), 1, n_users=2000)
    assert 0.04 < by_user < 0.065
    assert by_request > 0.08  # negative control: requests counted as if each were a user of its own


@pytest.mark.slow
def test_frequent_users_counted_by_request_must_fail(locked):
    by_user, by_request, _ = shares(1500, locked(min_samples=900), 2, n_users=2000, requests=10.0)
    assert 0.04 < by_user < 0.065
    assert by_request > 0.12


@pytest.mark.slow
def test_interim_looks_keep_the_level(locked):
    by_plan, _, _ = shares(2000, locked(min_samples=900, looks=4), 3, n_users=2000)
    assert 0.04 < by_plan < 0.065


@pytest.mark.slow
def test_a_ramp_under_a_week_effect_keeps_the_level_and_pooling_fails(locked):
    plan = locked(traffic_split=0.1, ramp=0.5, min_samples=1500)
    ramp = {"n_users": 6000, "splits": ((0, 0.1), (7, 0.5)), "drift": 0.04}
    by_phase, _, pooled = shares(1200, plan, 4, **ramp)
    assert 0.04 < by_phase < 0.065
    assert pooled > 0.15


@pytest.mark.slow
def test_users_seen_as_information_must_fail():
    # regulars are all seen early and come back every few days: at each look more is still to come than users seen say
    rng, n_runs, n, looks = np.random.default_rng(5), 3000, 600, np.array([5.0, 10.0, 15.0, 20.0])
    crossed = {"seen": 0, "information": 0}
    for _ in range(n_runs):
        start = np.minimum(rng.exponential(4.0, 2 * n), 19.9)
        visits = rng.poisson(0.6 * (20 - start)) + 1
        who = np.repeat(np.arange(2 * n), visits)
        at = start[who] + rng.uniform(size=len(who)) * (20 - start[who])
        at[np.cumsum(visits) - visits] = start
        hit = rng.uniform(size=len(who)) < np.repeat(rng.beta(1.2, 2.8, 2 * n), visits)
        tests, seen = [], []
        for look in looks:
            now = at <= look
            x = np.bincount(who[now], minlength=2 * n).astype(float)
            y = np.bincount(who[now], weights=hit[now], minlength=2 * n)
            arms = [
                (x[half][x[half] > 0], y[half][x[half] > 0])
                for half in (slice(0, n), slice(n, 2 * n))
            ]
            tests.append(ratio_test(*arms))
            seen.append(min(1.0, (x > 0).mean()))
        z, information = (
            np.array([abs(one.z_score) for one in tests]),
            np.array([1 / one.se**2 for one in tests]),
        )
        crossed["seen"] += _crosses(z, np.array(seen))
        crossed["information"] += _crosses(z, information / information[-1])
    assert 0.04 < crossed["information"] / n_runs < 0.065
    assert crossed["seen"] / n_runs > 0.06


def _crosses(z, fractions):
    rising = np.concatenate([[True], np.diff(np.maximum.accumulate(fractions)) > 1e-6])
    rounded = np.round(np.minimum(fractions, 1.0)[rising], 2)
    keep = np.concatenate([[True], np.diff(rounded) > 0])
    times = tuple(rounded[keep].tolist())
    if times not in _BOUNDS:
        _BOUNDS[times] = obrien_fleming_bounds(times)
    return bool((z[rising][keep] > _BOUNDS[times]).any())


_BOUNDS = {}
