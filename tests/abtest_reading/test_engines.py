"""The same numbers from every engine, and a log that is not there said plainly."""

from contextlib import closing

import pytest

from evalkit.abtest.analysis import Log, Users
from evalkit.abtest.log import EventLog
from evalkit.abtest.reading import read_ab_test
from evalkit.abtest.routing import Exposure, OutcomeRow
from evalkit.abtest.source import open_log
from evalkit.errors import DataError


def numbers(found):
    """The estimates of a reading, flat."""
    parts = [found.findings.primary, *found.findings.looks, *(one.change for one in found.health)]
    flat = [value for one in parts for value in (one.estimate, one.ci_low, one.ci_high, one.n)]
    return [*flat, *(row["estimate"] for row in (*found.findings.by_slice, *found.findings.by_day))]


@pytest.fixture
def small(make_people, make_frames):
    return make_frames(make_people(130, 130, lift=0.1))


@pytest.fixture
def expected(small, make_log, locked, later):
    return numbers(read_ab_test(make_log(*small), locked(looks=2), now=later))


def write_log(where, frames):
    log = EventLog(where)
    known = Exposure.__dataclass_fields__
    rows = frames[0].astype(object).where(frames[0].notna(), None).to_dict("records")
    log.record_exposures([Exposure(**{name: row[name] for name in known}) for row in rows])
    log.record_outcomes([OutcomeRow(**row) for row in frames[1].to_dict("records")])
    log.set_meta("simulated", "1")
    return log


def test_sqlite_through_its_own_backend(small, expected, locked, later, tmp_path):
    write_log(tmp_path / "events.sqlite", small).close()
    with closing(open_log(tmp_path / "events.sqlite")) as log:
        assert log.simulated
        found = read_ab_test(log, locked(looks=2), now=later)
    assert numbers(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found.to_dict()["simulated"]


def test_parquet_as_the_log_exports_it(small, expected, locked, later, tmp_path):
    log = write_log(tmp_path / "events.sqlite", small)
    log.export(tmp_path / "export")
    log.close()
    opened = open_log(tmp_path / "export")
    assert opened.simulated
    assert numbers(read_ab_test(opened, locked(looks=2), now=later)) == pytest.approx(
        expected, rel=1e-9, abs=1e-12
    )


def test_csv_keeps_ids_as_text(small, expected, locked, later, tmp_path):
    exposures, outcomes = (one.assign(user_id="00" + one["user_id"].str[1:]) for one in small)
    exposures.to_csv(tmp_path / "exposures.csv", index=False)
    outcomes.to_csv(tmp_path / "outcomes.csv", index=False)
    found = read_ab_test(open_log(tmp_path), locked(looks=2), now=later)
    assert numbers(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "nothing.sqlite", "no event log there"),
        (lambda folder: folder, "no table exposures or outcomes; it is not an event log"),
    ],
)
def test_a_missing_log_is_said(make, said, tmp_path):
    with pytest.raises(DataError, match=said):
        open_log(make(tmp_path))


def test_a_file_that_is_no_log_is_said(tmp_path):
    import sqlite3

    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
        other.execute("create table t(x)")
    with pytest.raises(DataError, match="no table exposures or outcomes"):
        open_log(tmp_path / "other.sqlite")


@pytest.mark.spark
@pytest.mark.filterwarnings("ignore")  # pyspark and Ibis on pandas 3
def test_spark_gives_the_same_numbers(spark, small, expected, locked, later):
    import ibis

    engine = ibis.pyspark.connect(spark)
    rows = [one.drop(columns="error", errors="ignore") for one in small]
    for name, frame in zip(("exposures", "outcomes"), rows, strict=True):
        spark.createDataFrame(frame.to_dict("records")).createOrReplaceTempView(name)
    log = Log(exposures=engine.table("exposures"), outcomes=engine.table("outcomes"))
    found = numbers(read_ab_test(log, locked(looks=2), now=later))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "dialect", ["bigquery", "snowflake", "trino", "clickhouse", "postgres", "sqlite", "duckdb"]
)
def test_the_queries_compile(dialect):
    import ibis

    users = ibis.table(
        {
            "user_id": "string",
            "first_at": "float64",
            "n_rows": "int64",
            "phase": "int64",
            "treated": "int64",
            "day": "int64",
        },
        name="users",
    )
    log = Log(
        exposures=ibis.table(
            {"user_id": "string", "variant": "string", "at_s": "float64", "latency_ms": "float64"},
            name="e",
        ),
        outcomes=ibis.table(
            {"user_id": "string", "metric": "string", "value": "float64", "at_s": "float64"},
            name="o",
        ),
    )
    for query in (
        log.users("exp", kept=False).table,
        Users(log=log, experiment="exp", table=users, window_s=86400.0).cells_query("accepted"),
    ):
        assert "GROUP BY" in ibis.to_sql(query, dialect=dialect)
