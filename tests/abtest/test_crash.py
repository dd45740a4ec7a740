"""A router is killed with -9 under load: what it had answered is logged, whole, and once."""

import random
import signal
import sqlite3
import subprocess
import sys

import pytest

from evalkit.abtest.log import EventLog

ROUTER = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from evalkit.abtest.assignment import ABTestConfig
from evalkit.abtest.log import EventLog
from evalkit.abtest.routing import run_ab_request

place, name = sys.argv[1:]
log = EventLog(place)
config = ABTestConfig("exp", "base", "tuned", 0.5)


def create(*, model, messages, temperature):
    time.sleep(0.002)
    message = SimpleNamespace(content="fine")
    return SimpleNamespace(choices=[SimpleNamespace(message=message)], usage=None)


client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))


def serve(n):
    result = run_ab_request(f"user-{n % 500}", [], config, client, log=log, request_id=f"{name}-{n}")
    log.record_outcome(result.request_id, "accepted", n % 2)
    sys.stdout.write(f"{result.request_id}\\n")  # the user has the answer
    sys.stdout.flush()


with ThreadPoolExecutor(8) as threads:
    list(threads.map(serve, range(100_000)))
"""


def answered(router, n):
    """Reads until n answers were given, kills, and returns all that had been given."""
    ids = [router.stdout.readline().strip() for _ in range(n)]
    router.send_signal(signal.SIGKILL)
    rest = router.stdout.read().split("\n")
    router.wait(30)
    return ids + [
        one for one in rest[:-1] if one
    ]  # the last line may be torn: it is the pipe's, not the log's


@pytest.mark.slow
def test_kill_9_under_load_loses_no_answered_request_and_leaves_no_half_row(log_place):
    told = []
    for turn in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", ROUTER, str(log_place), f"run{turn}"],
            stdout=subprocess.PIPE,
            text=True,
        ) as router:
            told += answered(router, random.Random(turn).randint(60, 200))
    log = EventLog(log_place)
    exposures = {row["request_id"]: row for row in log.rows()}
    assert len(exposures) == log.count()  # no duplicates
    assert set(told) <= exposures.keys()  # every answered request is there
    assert all(
        row["latency_ms"] > 0 and row["variant"] in {"control", "treatment"}
        for row in exposures.values()
    )
    assert len(exposures) - len(told) <= 2 * 8  # at most what was in flight
    log.close()


@pytest.mark.slow
def test_after_a_kill_the_file_is_sound_and_the_same_requests_can_be_told_again(tmp_path):
    path = tmp_path / "events.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", ROUTER, str(path), "a"], stdout=subprocess.PIPE, text=True
    ) as router:
        told = answered(router, 50)
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    file.close()
    with subprocess.Popen(
        [sys.executable, "-c", ROUTER, str(path), "a"], stdout=subprocess.PIPE, text=True
    ) as router:
        again = answered(router, 50)
    log = EventLog(path)
    assert set(told) | set(again) <= {row["request_id"] for row in log.rows()}
    log.close()
