import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from evalkit import ledger
from evalkit.abtest.lock import amend, lock, read_lock
from evalkit.abtest.plan import ABPlan, Guardrail, Metric
from evalkit.errors import DataError, DesignError

PLAN = ABPlan(
    experiment_name="exp",
    control_model="base",
    treatment_model="tuned",
    primary=Metric(name="accepted", expected=0.30, detectable_difference=0.05),
    guardrails=(Guardrail(name="error", margin=0.01),),
    traffic_split=0.1,
    users_per_day=300,
)
MONDAY, FRIDAY = datetime(2026, 11, 2, 9, tzinfo=UTC), datetime(2026, 11, 6, 9, tzinfo=UTC)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "plan.lock.json"


def test_a_locked_plan_comes_back_with_its_hash_and_time(path):
    locked = lock(PLAN, path, now=MONDAY)
    assert (locked.plan, locked.first, locked.locked_at) == (
        PLAN,
        PLAN,
        "2026-11-02T09:00:00+00:00",
    )
    assert (locked.n_control, locked.n_treatment, locked.days) == (
        PLAN.n_control,
        PLAN.n_treatment,
        PLAN.days,
    )
    record = json.loads(path.read_text())
    assert record["sha256"] == locked.sha256
    assert len(locked.sha256) == 64


def test_the_hash_is_taken_over_canonical_json(path):
    import hashlib

    record = json.loads((lock(PLAN, path) and path).read_text())
    text = json.dumps(record["plan"], sort_keys=True, separators=(",", ":"))
    assert record["sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_locking_the_same_plan_again_changes_nothing(path):
    first = lock(PLAN, path, now=MONDAY)
    before = path.read_bytes()
    assert lock(replace(PLAN), path, now=FRIDAY) == first
    assert path.read_bytes() == before
    files = sorted(file.name for file in path.parent.iterdir())
    assert files == [ledger.HEAD, ledger.FILE, "plan.lock.json"]
    assert len(ledger.read(path.with_name("ledger.jsonl")).lines) == 1


def test_another_plan_is_refused_with_what_differs_and_what_to_do(path):
    lock(PLAN, path)
    before = path.read_bytes()
    with pytest.raises(
        DesignError, match=r"differs in min_samples, alpha.*amend\(.*new experiment_name"
    ):
        lock(replace(PLAN, min_samples=500, alpha=0.1), path)
    assert path.read_bytes() == before


def test_when_two_lock_at_once_one_plan_stands(path):
    plans = [replace(PLAN, users_per_day=n) for n in range(100, 108)]

    def outcome(plan):
        try:
            return lock(plan, path).plan
        except DesignError:
            return None

    with ThreadPoolExecutor(8) as threads:
        won = [found for found in threads.map(outcome, plans) if found]
    assert won == [read_lock(path).plan]


def test_another_split_opens_a_phase_and_is_on_record_for_ever(path):
    first = lock(PLAN, path, now=MONDAY)
    locked = amend(path, "no complaints in the first week", traffic_split=0.5, now=FRIDAY)
    assert [(phase.phase, phase.from_at[:10], phase.traffic_split) for phase in locked.phases] == [
        (1, "2026-11-02", 0.1),
        (2, "2026-11-06", 0.5),
    ]
    assert (locked.config.traffic_split, locked.config.phase) == (0.5, 2)
    (entry,) = locked.amendments
    assert (entry.reason, dict(entry.changed)) == (
        "no complaints in the first week",
        {"traffic_split": (0.1, 0.5)},
    )
    assert locked.first == PLAN
    assert locked.sha256 != first.sha256


def test_an_amendment_that_keeps_the_split_keeps_the_phase(path):
    lock(PLAN, path)
    locked = amend(path, "traffic is lower than thought", users_per_day=150)
    assert len(locked.phases) == 1
    assert locked.days == locked.plan.days > PLAN.days


def test_after_an_amendment_both_the_old_and_the_new_study_file_may_run_again(path):
    lock(PLAN, path)
    locked = amend(path, "ramp", traffic_split=0.5)
    assert lock(PLAN, path) == locked
    assert lock(locked.plan, path) == locked


@pytest.mark.parametrize(
    ("reason", "changes", "message"),
    [
        ("", {"traffic_split": 0.5}, "needs a reason"),
        (None, {"traffic_split": 0.5}, "needs a reason"),
        ("why not", {}, "at least one changed value"),
        ("why not", {"traffic_split": 0.1}, "at least one changed value"),
        ("why not", {"hash": "md5-1000"}, "another test"),
        (
            "why not",
            {"primary": Metric(name="clicks", expected=0.1, detectable_difference=0.02)},
            "another test",
        ),
        ("why not", {"split": 0.5}, "a plan has no split"),
        ("why not", {"traffic_split": 1.5}, "need a number between 0 and 1"),
    ],
)
def test_an_amendment_that_would_hide_something_is_refused(path, reason, changes, message):
    lock(PLAN, path)
    before = path.read_bytes()
    with pytest.raises(DesignError, match=message):
        amend(path, reason, **changes)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"min_samples": 1000', '"min_samples": 100'),
        ("ramp up", "harmless"),
        ('"traffic_split": 0.2', '"traffic_split": 0.3'),
    ],
)
def test_a_file_changed_by_hand_is_noticed(path, old, new):
    lock(PLAN, path)
    amend(path, "ramp up", traffic_split=0.2)
    amend(path, "ramp on", traffic_split=0.5)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match="no longer matches its hash"):
        read_lock(path)


def test_a_dropped_amendment_is_noticed(path):
    lock(PLAN, path)
    amend(path, "ramp up", traffic_split=0.2)
    amend(path, "ramp on", traffic_split=0.5)
    record = json.loads(path.read_text())
    del record["amendments"][0]
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match="no longer matches its hash"):
        read_lock(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[]", "not a locked plan"), ('{"kind": "x"}', "not a locked")],
)
def test_a_file_that_is_no_plan_is_named(path, text, message):
    path.write_text(text)
    with pytest.raises(DataError, match=rf"plan\.lock\.json: {message}"):
        read_lock(path)


def test_no_plan_yet_says_who_makes_one(path):
    with pytest.raises(DataError, match="no plan is locked; notebook 05 makes and locks one"):
        read_lock(path)


def test_a_plan_written_with_lists_and_numbers_of_numpy_is_the_same_plan(path):
    first = lock(
        replace(
            PLAN,
            guardrails=list(PLAN.guardrails),
            traffic_split=np.float32(0.5),
            min_samples=np.int64(10),
        ),
        path,
    )
    again = lock(
        replace(PLAN, guardrails=list(PLAN.guardrails), traffic_split=0.5, min_samples=10), path
    )
    assert again.sha256 == first.sha256


@pytest.mark.parametrize("missing", ["plan", "sha256", "locked_at", "amendments"])
def test_a_lock_that_lacks_a_part_is_named(path, missing):
    lock(PLAN, path)
    record = json.loads(path.read_text())
    del record[missing]
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match="not a locked plan"):
        read_lock(path)


@pytest.mark.parametrize("entries", [None, ["x"], [{"at": "2026-11-06", "reason": "?"}]])
def test_amendments_that_are_not_whole_are_named(entries, path):
    lock(PLAN, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"amendments": entries}))
    with pytest.raises(DataError, match=r"not a locked plan .*amendments"):
        read_lock(path)


AMEND = """
import sys
from evalkit.abtest.lock import amend
for n in range(5):
    amend(sys.argv[1], f"{sys.argv[2]} {n}", users_per_day=float(sys.argv[2]) + n)
"""


@pytest.mark.slow
def test_amendments_of_the_same_moment_are_all_on_record_and_the_file_stays_sound(path):
    lock(PLAN, path, now=MONDAY)
    running = [
        subprocess.Popen([sys.executable, "-c", AMEND, str(path), str(1000 * n)])
        for n in range(1, 5)
    ]
    assert [process.wait(60) for process in running] == [0] * 4
    reasons = [one.reason for one in read_lock(path).amendments]  # read_lock checks each hash
    assert sorted(reasons) == [f"{1000 * n} {i}" for n in range(1, 5) for i in range(5)]
    assert sorted(one.name for one in path.parent.iterdir()) == [
        ledger.HEAD,
        ledger.FILE,
        path.name,
    ]


def test_two_splits_of_the_same_moment_open_two_phases(path):
    lock(PLAN, path, now=MONDAY)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda split: amend(path, "ramp", traffic_split=split), (0.2, 0.3)))
    found = read_lock(path)
    assert [one.phase for one in found.phases] == [1, 2, 3]
    assert {one.traffic_split for one in found.phases[1:]} == {0.2, 0.3}


def test_a_plan_without_a_cap_keeps_the_hash_it_always_had(path):
    lock(PLAN, path, now=MONDAY)
    assert "cap_per_user" not in json.loads(path.read_text())["plan"]
    capped = amend(path, "one bot", cap_per_user=50.0)
    assert read_lock(path).plan.cap_per_user == capped.plan.cap_per_user == 50.0
    with pytest.raises(DesignError, match="cap_per_user is 0"):
        replace(PLAN, cap_per_user=0)
