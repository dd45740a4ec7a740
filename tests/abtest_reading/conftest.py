"""Logs made of arrays, and plans locked for them."""

from datetime import UTC, datetime

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from evalkit.abtest.analysis import Log
from evalkit.abtest.lock import amend, lock
from evalkit.abtest.plan import ABPlan, Metric

DAY = 86400.0
START = 20_000 * DAY  # a midnight, UTC


def frames(users, *, seed=0):
    """Exposures and outcomes from one row a user: variant, phase, day, requests, rate, latency."""
    rng = np.random.default_rng(seed)
    who = users.loc[users.index.repeat(users["requests"])].reset_index(drop=True)
    n, first = len(who), ~who["user_id"].duplicated().to_numpy()
    at = (
        START
        + who["day"].to_numpy() * DAY
        + 3600
        + np.where(first, 0.0, rng.uniform(1, 1.5 * DAY, n))
    )
    exposures = pd.DataFrame({
        "request_id": [f"r{i}" for i in range(n)], "experiment": "exp", "phase": who["phase"], "user_id": who["user_id"],
        "variant": who["variant"], "model": "m", "at_s": at, "latency_ms": rng.gamma(4, 50, n), "outcome": "ok",
        "error": pd.Series([None] * n, dtype=object), "fallback": False, "prompt_tokens": 10, "completion_tokens": 5,
        "slice": np.where(rng.uniform(size=n) < 0.5, "short", "long"),
    })  # fmt: skip
    hit = (rng.uniform(size=n) < who["rate"]).astype(float)
    outcomes = pd.DataFrame({
        "outcome_id": [f"o{i}" for i in range(n)], "experiment": "exp", "request_id": exposures["request_id"],
        "user_id": who["user_id"], "metric": "accepted", "value": hit, "at_s": at + 60,
    })  # fmt: skip
    return exposures, outcomes


def people(
    n_control,
    n_treatment,
    *,
    rate=0.3,
    lift=0.0,
    days=7,
    requests=2,
    phase=1,
    from_day=0,
    prefix="u",
    seed=1,
):
    """One row a user; user-level rates vary."""
    rng = np.random.default_rng(seed)
    n, treated = n_control + n_treatment, np.arange(n_control + n_treatment) >= n_control
    own = np.clip(rate + lift * treated + rng.normal(0, 0.1, n), 0, 1)
    return pd.DataFrame({
        "user_id": [f"{prefix}{i}" for i in range(n)], "variant": np.where(treated, "treatment", "control"), "phase": phase,
        "day": from_day + np.arange(n) % days, "requests": rng.poisson(requests - 1, n) + 1, "rate": own,
    })  # fmt: skip


def as_log(exposures, outcomes, **options):
    tables = (pa.Table.from_pandas(one, preserve_index=False) for one in (exposures, outcomes))
    return Log(
        **dict(zip(("exposures", "outcomes"), map(ibis.memtable, tables), strict=True)), **options
    )


@pytest.fixture
def make_people():
    return people


@pytest.fixture
def make_frames():
    return frames


@pytest.fixture
def make_log():
    return as_log


@pytest.fixture
def later():
    """A time at which every window has closed."""
    return START + 365 * DAY


@pytest.fixture
def locked(tmp_path):
    """Locks a plan; `ramp` amends the split afterwards."""

    def _locked(
        *,
        kind="rate",
        ramp=None,
        name="accepted",
        sd=None,
        expected=0.3,
        difference=0.4,
        better=None,
        margin=None,
        now=START,
        **options,
    ):
        metric = Metric(
            name=name,
            kind=kind,
            expected=expected,
            detectable_difference=difference,
            sd=sd,
            better=better,
            margin=margin,
        )
        usual = {
            "traffic_split": 0.5,
            "min_samples": 100,
            "outcome_window_days": 2,
            "users_per_day": 100.0,
        }
        plan = ABPlan(
            experiment_name="exp", control_model="a", treatment_model="b", primary=metric, **usual | options
        )  # fmt: skip
        path = tmp_path / f"plan-{len(list(tmp_path.iterdir()))}.json"
        made = lock(plan, path, now=datetime.fromtimestamp(now, UTC))
        return amend(path, "ramp up", traffic_split=ramp) if ramp else made

    return _locked
