"""A study on a disk that takes nothing: the report comes, and says what is not on record."""

import json
import shutil
import sqlite3
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from evalkit import ledger
from evalkit.abtest.analysis import fetched
from evalkit.abtest.experiment import Experiment, ab_evidence
from evalkit.abtest.lock import LEDGER, lock, read_looks
from evalkit.abtest.plan import UNNAMED
from evalkit.abtest.reading import Reading
from evalkit.abtest.source import open_log
from evalkit.decision import history
from evalkit.evidence import as_json
from evalkit.records import EvalResult
from evalkit.report import chain
from evalkit.show import effect
from evalkit.show.abtest import notes as told_of
from evalkit.study import Study

BOOK = Path(__file__).parent / "report/notebooks/01_fine.ipynb"
FIELDS = {
    "experiment_name": "exp", "base_model": "a", "fine_tuned_model": "b", "ab_metric": "accepted", "ab_metric_kind": "rate",
    "expected_rate": 0.3, "detectable_difference": 0.4, "users_per_day": 100.0, "traffic_split": 0.5, "min_samples": 100,
    "outcome_window_days": 2, "simulate_users": 500, "ab_seed": 1, "study": "tiny", "title": "A tiny study",
    "lock_plan": True,
}  # fmt: skip


@contextmanager
def read_only(folder):
    """The folder mounted so that nobody, not even root, may write in it."""
    for options in (["--bind", str(folder), str(folder)], ["-o", "remount,ro,bind", str(folder)]):
        if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "data/tiny").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    shutil.copy(BOOK, tmp_path / "notebooks")
    (tmp_path / "data/tiny/study.yaml").write_text(json.dumps(FIELDS))  # which is YAML
    return Study.open("tiny", root=tmp_path)


def results(right):
    return [
        EvalResult(i, f"q {i}", "x", "x" if i < right else "y", i < right, True, latency_ms=100.0)
        for i in range(10)
    ]


def simulated(home):
    return Experiment(study=home).simulate([results(3), results(6)])


@pytest.fixture
def tested(home):
    lock(Experiment(study=home).draft(), Experiment(study=home).path)
    simulated(home)
    return home


def test_a_look_that_cannot_be_recorded_shows_no_effect_and_says_so(tested):
    with read_only(tested.folder):
        found = Experiment(study=tested).reading().effect()
        found.opened.users.log.close()
        assert simulated(tested).startswith("Nothing was simulated: ")
    assert isinstance(found, Reading)
    assert (found.recorded, found.findings, found.verdict) == (False, None, "too early")
    assert found.n_users == 500
    assert effect.answer_said(found) == (
        "Too early: a look off the record is a peek, so the effect is withheld. "
        "Missing: Make ledger.jsonl writable and read the test again (minutes). Users are simulated."
    )
    assert "Read-only file system" in " ".join(told_of(found))
    evidence = ab_evidence(found, study="tiny")
    assert "control_rate" not in json.dumps(as_json(evidence.details))
    assert read_looks(tested.path(LEDGER)) == ()


def test_a_look_on_record_may_be_read_again(tested):
    first = Experiment(study=tested).reading().effect()
    first.opened.users.log.close()
    with read_only(tested.folder):
        again = Experiment(study=tested).reading().effect()
        again.opened.users.log.close()
    assert again.primary_dict() == first.primary_dict()
    assert again.recorded
    assert "the same look was recorded before" in " ".join(told_of(again))


def test_a_log_with_rows_still_in_its_write_ahead_log_is_read_whole(tested, tmp_path):
    path = tested.folder / "events.sqlite"
    with sqlite3.connect(path) as writer:
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("UPDATE exposures SET user_id = 'somebody else'")
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("events.sqlite", "events.sqlite-wal"):  # as a snapshot of a running router has it
        shutil.copy(tested.folder / name, copy)
    writer.close()
    with read_only(copy):
        log = open_log(copy / "events.sqlite")
        rows = fetched(log.exposures)
        log.close()
    assert set(rows["user_id"]) == {"somebody else"}
    assert len(rows) > 500


def test_a_plan_that_cannot_be_locked_is_a_draft(home):
    with read_only(home.folder):
        plan, said = Experiment(study=home).settle(Experiment(study=home).draft())
    assert plan.experiment_name == UNNAMED
    assert said.startswith("Not locked: ")


def page(run):
    return run.report.read_text()


@pytest.mark.slow
def test_a_study_that_is_read_only_gives_a_report(home):
    said = []
    with read_only(home.folder):
        run = chain.run_study("tiny", root=home.root, say=said.append)
    assert run.failed == {}
    assert "This run does not stand in the study's history" in page(run).replace("&#39;", "'")
    assert any("Read-only file system" in line for line in said)


@pytest.mark.slow
def test_a_ledger_that_cannot_be_written_costs_the_row_of_the_history_and_nothing_more(home):
    path = home.folder / history.FILE
    path.symlink_to("/dev/full")
    run = chain.run_study("tiny", root=home.root, say=lambda _: None)
    assert run.failed == {}
    assert "does not stand in the study" in page(run)
    assert "not a file; need the study" in page(run)
    path.unlink()
    ledger.append(path, "run", {"run": "earlier"})
    path.write_bytes(path.read_bytes() + b'{"run": "torn on a full')
    assert ledger.read(path).torn
    said: list[str] = []
    run = chain.run_study("tiny", root=home.root, say=said.append)
    assert any("the last line was unfinished" in line for line in said)
    assert "history" not in page(run)
    assert [row["run"] for row in history.read(home)] == ["earlier", run.folder.name]
    assert not ledger.read(path).torn
