"""Fakes and small logs for the A/B tests: a client, a PostgreSQL of one's own, and logs in every awkward state."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evalkit.abtest.assignment import ABTestConfig, assign_variants
from evalkit.abtest.log import EventLog
from evalkit.abtest.routing import Exposure, OutcomeRow

DAY_S = 86400.0
START_S = 1_790_000_000.0 // DAY_S * DAY_S


class FakeClient:
    """`client.chat.completions.create(...)` calls a function and remembers what it was asked."""

    def __init__(self, answer: Any = "fine") -> None:
        self.asked: list[dict[str, Any]] = []
        self._answer = answer
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    def _create(self, **asked: Any) -> Any:
        self.asked.append(asked)
        found = self._answer(asked["model"]) if callable(self._answer) else self._answer
        return found if not isinstance(found, str) else reply(found)


class FakeAsyncClient(FakeClient):
    async def _create(self, **asked: Any) -> Any:
        found = super()._create(**asked)
        return await found if hasattr(found, "__await__") else found


def reply(content: Any, finish_reason: str = "stop", refusal: str | None = None) -> Any:
    message = SimpleNamespace(content=content, refusal=refusal)
    usage = SimpleNamespace(prompt_tokens=11, completion_tokens=7)
    return SimpleNamespace(
        choices=[SimpleNamespace(message=message, finish_reason=finish_reason)], usage=usage
    )


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A small log by construction: who came when, which split ruled, and how often an outcome was 1."""

    n_users: int = 4000
    days: int = 14
    splits: tuple[tuple[int, float], ...] = ((0, 0.5),)  # (from day, split)
    control: float = 0.30
    treatment: float = 0.30
    second_week: float = 0.0  # added to both rates from the second half on
    lost_treated: float = 0.0  # share of treated users who never reach the log
    requests_per_user: float = 1.5
    user_sd: float = 0.1
    numeric: bool = False


SCENARIOS = {
    "nothing": Scenario(),
    "better": Scenario(treatment=0.38),
    "worse": Scenario(treatment=0.22),
    "broken_split": Scenario(lost_treated=0.15),
    "too_early": Scenario(n_users=300),
    "ramp": Scenario(n_users=8000, splits=((0, 0.1), (7, 0.5)), second_week=0.1),
    "no_variance": Scenario(n_users=1000, control=0.0, treatment=0.0, user_sd=0.0),
    "numeric": Scenario(numeric=True, control=20.0, treatment=22.0),
}


def write_scenario(
    log: EventLog,
    scenario: Scenario,
    *,
    seed: int = 0,
    experiment: str = "demo",
    metric: str = "accepted",
) -> int:
    """Writes the scenario's rows, users assigned by the real hash; returns the number of requests."""
    rng, n = np.random.default_rng(seed), scenario.n_users
    ids = np.array([f"u{number}" for number in range(n)], dtype=object)
    arrival = np.sort(rng.uniform(0, scenario.days, n))
    phase = np.searchsorted([day for day, _ in scenario.splits], arrival, side="right")
    treated = np.zeros(n, dtype=bool)
    for number, (_, split) in enumerate(scenario.splits, 1):
        config = ABTestConfig(experiment, "base", "tuned", split)
        treated |= (phase == number) & (assign_variants(ids, config) == "treatment")
    kept = ~(treated & (rng.uniform(size=n) < scenario.lost_treated))
    user = np.repeat(
        np.flatnonzero(kept), rng.geometric(1 / scenario.requests_per_user, kept.sum())
    )
    at_s = START_S + arrival[user] * DAY_S + np.arange(len(user)) * 1e-3
    level = np.where(treated, scenario.treatment, scenario.control) + scenario.second_week * (
        arrival >= scenario.days / 2
    )
    mood = rng.normal(0, scenario.user_sd, n)
    if scenario.numeric:
        value = rng.gamma(2.0, np.maximum(level + mood, 0)[user] / 2)
    else:
        value = (rng.uniform(size=len(user)) < (level + mood)[user]).astype(float)
    rows = list(
        zip(
            ids[user],
            treated[user],
            phase[user].tolist(),
            at_s.tolist(),
            value.tolist(),
            strict=True,
        )
    )
    common = Exposure(
        request_id="",
        experiment=experiment,
        user_id="",
        variant="control",
        model="base",
        at_s=0.0,
        latency_ms=200.0,
    )
    log.record_exposures(
        [
            replace(common, request_id=f"{experiment}-r{i}", user_id=who, at_s=at, phase=number)
            if not new
            else replace(
                common,
                request_id=f"{experiment}-r{i}",
                user_id=who,
                at_s=at,
                phase=number,
                variant="treatment",
                model="tuned",
            )
            for i, (who, new, number, at, _) in enumerate(rows)
        ]
    )
    log.record_outcomes(
        [
            OutcomeRow(
                experiment=experiment,
                user_id=who,
                metric=metric,
                value=v,
                at_s=at + 1,
                request_id=f"{experiment}-r{i}",
            )
            for i, (who, _, _, at, v) in enumerate(rows)
        ]
    )
    log.set_meta("simulated", "1")
    return len(rows)


@pytest.fixture
def scenario_log(tmp_path):
    """`scenario_log("ramp")` -> the path of an SQLite log in that state."""

    def make(name: str, *, seed: int = 0, **changes: Any) -> Path:
        path = tmp_path / f"{name}-{seed}.sqlite"
        log = EventLog(path)
        write_scenario(log, replace(SCENARIOS[name], **changes), seed=seed)
        log.close()
        return path

    return make


@pytest.fixture
def fake_client():
    return FakeClient


@pytest.fixture
def fake_async_client():
    return FakeAsyncClient


@pytest.fixture
def model_reply():
    return reply


@pytest.fixture(scope="session")
def postgres_socket():
    """A private PostgreSQL cluster of Debian's package on a Unix socket, run by an unprivileged user."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    assert found, "no /usr/lib/postgresql/*/bin/initdb: install Debian's postgresql"
    tools, folder = found[-1].parent, Path(tempfile.mkdtemp(prefix="ek-pg-", dir="/tmp"))
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)

    def run(tool: str, *options: str) -> None:
        with (folder / "output").open("ab") as output:  # pg_ctl's server keeps it open
            subprocess.run(
                [tools / tool, *options],
                check=True,
                user=user,
                cwd=folder,
                stdout=output,
                stderr=output,
            )

    run(
        "initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"
    )
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    run("pg_ctl", "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", options, "start")
    try:
        yield folder
    finally:
        run("pg_ctl", "-D", f"{folder}/data", "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_socket):
    """The URL of a fresh, empty database."""
    import psycopg

    name = f"t{os.urandom(6).hex()}"
    with psycopg.connect(
        f"host={postgres_socket} user=postgres dbname=postgres", autocommit=True
    ) as server:
        server.execute(f"CREATE DATABASE {name}")
    return f"postgresql://postgres@/{name}?host={postgres_socket}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def log_place(request, tmp_path):
    """Where a log may live: each test that asks for it runs on SQLite and on PostgreSQL."""
    return (
        tmp_path / "events.sqlite"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres_url")
    )
