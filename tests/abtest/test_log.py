import math
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from evalkit.abtest.log import EXPOSURES, OUTCOMES, EventLog
from evalkit.abtest.routing import Exposure
from evalkit.abtest.source import log_url
from evalkit.errors import DataError, DesignError

SEEN = Exposure(
    request_id="r1",
    experiment="exp",
    user_id="ann",
    variant="treatment",
    model="tuned",
    at_s=1_790_000_000.25,
    latency_ms=12.5,
    phase=2,
    prompt_tokens=3,
    slice="single",
)


@pytest.fixture
def log(log_place):
    log = EventLog(log_place)
    yield log
    log.close()


def test_an_exposure_comes_back_as_it_was_written(log):
    log.record_exposure(SEEN)
    (row,) = log.rows()
    assert Exposure(**row) == SEEN


def test_a_replay_changes_nothing(log):
    for _ in range(3):
        log.record_exposure(SEEN)
        log.record_outcome("r1", "accepted", 1, now=5.0)
    assert (log.count(), log.count(OUTCOMES)) == (1, 1)


def test_a_replay_inside_a_batch_keeps_the_rest_of_it(log):
    log.record_exposure(SEEN)
    log.record_exposures([replace(SEEN, request_id=f"r{n}") for n in range(5)])
    assert log.count() == 5


def test_a_request_id_taken_by_another_user_is_an_error(log):
    log.record_exposure(SEEN)
    with pytest.raises(DataError, match=r"request_id 'r1' is taken by .*ann"):
        log.record_exposure(replace(SEEN, user_id="bob"))


def test_a_second_value_for_a_request_is_an_error_unless_it_is_an_event_of_its_own(log):
    log.record_exposure(SEEN)
    log.record_outcome("r1", "accepted", 1)
    with pytest.raises(DataError, match="is taken by"):
        log.record_outcome("r1", "accepted", 0)
    log.record_outcome("r1", "accepted", 0, outcome_id="another click")
    assert log.count(OUTCOMES) == 2


def test_an_event_with_an_id_of_its_own_may_come_from_a_column_of_whole_seconds(log):
    who = {"user_id": "ann", "experiment": "exp", "outcome_id": "click"}
    assert log.record_outcome(None, "spent", 9.5, now=np.int64(7), **who) == "click"
    (row,) = log.rows(OUTCOMES)
    assert row["at_s"] == 7.0


def test_an_outcome_takes_user_and_experiment_from_its_request(log):
    log.record_exposure(SEEN)
    log.record_outcome("r1", "accepted", True, now=7.0)
    (row,) = log.rows(OUTCOMES)
    del row["outcome_id"]
    assert row == {
        "experiment": "exp", "request_id": "r1", "user_id": "ann", "metric": "accepted", "value": 1.0, "at_s": 7.0
    }  # fmt: skip


def test_an_outcome_of_a_user_counts_each_event_once(log):
    for at in (1.0, 2.0, 2.0):  # the last one is a replay
        log.record_outcome(None, "spent", 9.5, user_id="ann", experiment="exp", now=at)
    assert [(row["value"], row["at_s"]) for row in log.rows(OUTCOMES)] == [(9.5, 1.0), (9.5, 2.0)]


def test_an_outcome_of_nobody_is_refused(log):
    with pytest.raises(DataError, match="no exposure has request_id 'r9'"):
        log.record_outcome("r9", "accepted", 1)
    with pytest.raises(DesignError, match="request_id, or user_id together with experiment"):
        log.record_outcome(None, "accepted", 1, user_id="ann")


@pytest.mark.parametrize("value", [math.nan, math.inf, "1", None])
def test_a_value_that_is_no_number_is_refused(log, value):
    log.record_exposure(SEEN)
    with pytest.raises(DesignError, match="not a finite number"):
        log.record_outcome("r1", "accepted", value)
    assert log.count(OUTCOMES) == 0


def test_with_a_salt_no_user_id_reaches_the_database_and_outcomes_still_match(log_place):
    log = EventLog(log_place, salt="pepper")
    log.record_exposure(SEEN)
    log.record_outcome("r1", "accepted", 1)
    log.record_outcome(None, "spent", 1, user_id="ann", experiment="exp")
    users = {row["user_id"] for table in (EXPOSURES, OUTCOMES) for row in log.rows(table)}
    # printf ann | openssl dgst -sha256 -hmac pepper
    assert users == {"62ac51ded8a2e8b977c55c069a6e4940c70b294e885a396e11132b0d1235a390"}
    log.close()


def test_awkward_texts_can_be_stored_and_keys_cannot(log):
    log.record_exposure(replace(SEEN, user_id="a\ud800b", error="bad\0key sk-abcdefgh123"))
    (row,) = log.rows()
    assert row["user_id"] == "a\\ud800b"
    assert row["error"] == "bad\\x00key [key removed]"


def test_what_the_log_says_of_itself_stands(log):
    log.set_meta("simulated", "1")
    log.set_meta("simulated", "1")
    assert log.meta() == {"simulated": "1"}
    with pytest.raises(DataError):
        log.set_meta("simulated", "0")


def test_export_gives_parquet_with_the_same_rows_and_types(log, tmp_path):
    import pyarrow.parquet as pq

    log.record_exposures(
        [replace(SEEN, request_id=f"r{n}", prompt_tokens=n or None) for n in range(3)]
    )
    log.record_outcome("r1", "accepted", 1)
    paths = log.export(tmp_path / "out")
    assert [path.name for path in paths] == [
        "exposures.parquet",
        "outcomes.parquet",
        "log_meta.parquet",
    ]
    table = pq.read_table(paths[0])
    assert [Exposure(**row) for row in table.to_pylist()] == [Exposure(**row) for row in log.rows()]
    assert str(table.schema.field("at_s").type) == "double"
    assert str(table.schema.field("fallback").type) == "bool"
    assert str(table.schema.field("error").type) == "string"  # though all are missing


def test_an_export_of_an_empty_log_still_has_its_columns(log, tmp_path):
    import pyarrow.parquet as pq

    assert pq.read_table(log.export(tmp_path)[1]).column_names == [
        column.name for column in OUTCOMES.columns
    ]


def test_threads_may_share_a_log(log):
    with ThreadPoolExecutor(8) as threads:
        list(
            threads.map(
                lambda n: log.record_exposure(replace(SEEN, request_id=f"r{n % 100}")), range(200)
            )
        )
    assert log.count() == 100


WRITER = """
import sys
from evalkit.abtest.log import EventLog
from evalkit.abtest.routing import Exposure
place, name, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
log = EventLog(place)
for number in range(n):
    for request_id in (f"{name}-{number}", f"shared-{number}"):
        log.record_exposure(Exposure(request_id=request_id, experiment="e", user_id="ann", variant="control", model="base",
                                     at_s=1.0, latency_ms=1.0))
    log.record_outcome(f"shared-{number}", "accepted", 1)
"""


@pytest.mark.slow
def test_many_processes_may_write_to_one_log_from_its_first_moment(log_place):
    """Each opens the log itself, writes 40 rows of its own, and 40 rows that all the others write too."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(log_place), f"w{number}", "40"],
            stderr=subprocess.PIPE,
        )
        for number in range(4)
    ]
    complaints = [writer.communicate(timeout=120)[1].decode() for writer in writers]
    assert complaints == [""] * 4
    log = EventLog(log_place)
    assert (log.count(), log.count(OUTCOMES)) == (4 * 40 + 40, 40)
    log.close()


def test_workers_forked_from_an_open_log_have_connections_of_their_own(log_place):
    import multiprocessing

    log = EventLog(log_place)
    log.record_exposure(SEEN)
    fork = multiprocessing.get_context("fork")

    def work(name):
        for number in range(20):
            log.record_exposure(replace(SEEN, request_id=f"{name}-{number}"))

    workers = [fork.Process(target=work, args=(name,)) for name in "ab"]
    for worker in workers:
        worker.start()
    work("parent")
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert log.count() == 1 + 3 * 20
    log.close()


def test_sqlite_keeps_a_write_ahead_log_and_waits_for_others(tmp_path):
    path = tmp_path / "events.sqlite"
    log = EventLog(path)
    with sqlite3.connect(path) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(log.record_exposure, SEEN)
            assert not waiting.done()
            other.rollback()
            waiting.result(10)
    other.close()
    assert log.count() == 1
    log.close()


def test_a_log_is_named_by_file_url_or_environment_variable(tmp_path, monkeypatch):
    assert log_url(tmp_path / "e.sqlite") == f"sqlite:///{tmp_path}/e.sqlite"
    assert log_url("postgresql://db.example/x") == "postgresql+psycopg://db.example/x"
    monkeypatch.setenv("AB_LOG_URL", "postgres://db.example/x")
    assert log_url("AB_LOG_URL") == "postgresql+psycopg://db.example/x"
    with pytest.raises(DesignError, match="AB_OTHER_URL is not set"):
        log_url("AB_OTHER_URL")


def test_no_message_shows_the_databases_password():
    from evalkit.abtest.source import shown

    assert "secret" not in shown("postgresql+psycopg://me:secret@db.example/x")


def test_a_log_in_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        EventLog(tmp_path / "nowhere" / "events.sqlite")


@pytest.mark.parametrize("salt", ["", " ", b"bytes"])
def test_an_empty_salt_is_refused_since_it_hides_nobody(tmp_path, salt):
    with pytest.raises(DesignError, match="salt"):
        EventLog(tmp_path / "events.sqlite", salt=salt)


def test_user_ids_may_be_whole_numbers_in_both_tables(log):
    log.record_exposure(replace(SEEN, user_id=7))
    log.record_outcome(None, "bought", 1, user_id=7, experiment="exp")
    assert {row["user_id"] for table in (EXPOSURES, OUTCOMES) for row in log.rows(table)} == {"7"}


@pytest.mark.parametrize(
    "where",
    [
        "text",
        "folder",
        "nosuch://kim:hush@host/db",
        pytest.param("postgresql+psycopg://kim:hush@127.0.0.1:1/db", marks=pytest.mark.postgres),
    ],
)
def test_what_is_no_event_log_is_said_without_the_password(tmp_path, where):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("not a database, and long enough to be seen as none " * 50)
    with pytest.raises(DataError, match="not opened as an event log") as caught:
        EventLog(where if "://" in where else tmp_path / where)
    assert "hush" not in str(caught.value)


def test_ids_that_are_numbers_are_taken_by_outcomes_too(log):
    log.record_exposure(replace(SEEN, request_id="7", user_id="0"))
    log.record_outcome(7, "accepted", 1)
    log.record_outcome(None, "spent", 2.5, user_id=0, experiment="exp")
    assert [(one["request_id"], one["user_id"]) for one in log.rows(OUTCOMES)] == [
        ("7", "0"),
        (None, "0"),
    ]
