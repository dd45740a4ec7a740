"""Where an event log lives: a file, a folder or an address, opened with the engine that fits."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evalkit.abtest.analysis import Log, fetched, quiet, text
from evalkit.abtest.assignment import VARIANTS
from evalkit.abtest.log_address import log_url, read_url, shown
from evalkit.abtest.user_table import Columns, is_user_table, open_user_table
from evalkit.abtest.warehouse import with_columns
from evalkit.errors import DataError, EvalkitError
from evalkit.redaction import known_secrets, without_secrets


def open_log(
    where: str | Path,
    *,
    user: str = "",
    variant: str = "",
    outcomes: Sequence[str] = (),
    before: Sequence[str] = (),
    variants: tuple[str, str] = VARIANTS,
    time: str = "",
    experiment: str = "",
    exposures: str = "exposures",
    events: str = "outcomes",
    **settings: Any,
) -> Log:
    """Opens a log by file, folder or address, with the engine that fits.

    Args:
        where: An SQLite or DuckDB file; a folder with exposures and outcomes as Parquet or CSV (DuckDB); a URL such as
            postgresql://...; the upper-case name of an environment variable that holds one; or, as most finished
            experiments are handed over, one CSV or Parquet file with a row a user and no times.
        user: The column of user ids. In the one file each row is a user of its own when not given; in a log it is user_id.
        variant: The column of variants; in a log variant when not given.
        outcomes: The columns of outcomes, numbers or true and false: of the one file, or of a table of events with neither
            metric nor value, whose rows say by their time when each was measured.
        before: Columns of such a kind that hold what users did before the experiment.
        variants: What control and treatment are called in it.
        time: The column of times of a log's two tables; at_s when not given.
        experiment: The column of a log that names the experiment, where several share its tables.
        exposures: What the table (or the files) of exposures is called: "viewed", "schema.viewed".
        events: What the table of outcomes is called.
        settings: DuckDB's, for a folder: threads, memory_limit ...

    Raises:
        DataError: Nothing is there, or it holds no such tables or columns.
    """
    with quiet():
        try:
            if is_user_table(where) and variant and outcomes:
                named = {"user": user, "variant": variant, "outcomes": outcomes, "before": before}
                return open_user_table(Path(where), Columns(**named, variants=variants))
            texts = {user, variant, experiment} - {""}
            log = _opened(where, (exposures, events), texts, settings)
            names = {"user_id": user, "variant": variant, "at_s": time, "experiment": experiment}
            return _named(log, names, (*outcomes, *before), variants)
        except EvalkitError:
            raise
        except Exception as why:  # each engine, and each driver below it, has errors of its own
            said = without_secrets(" ".join(str(why).split()), known_secrets(log_url(where)))[:300]
            raise DataError(
                f"{shown(where)}: cannot be read as an event log ({type(why).__name__}: {said}); "
                "restore it from a copy, or name another in event_log"
            ) from None


def is_duckdb(path: Path) -> bool:
    """True for a database of DuckDB, by its first bytes."""
    with path.open("rb") as file:
        return file.read(12)[8:] == b"DUCK"


def _named(
    log: Log, names: Mapping[str, str], outcomes: Sequence[str], variants: tuple[str, str]
) -> Log:
    try:
        return _renamed(with_columns(log, names, outcomes), variants)
    except DataError:
        log.close()
        raise


def _opened(
    where: str | Path, tables: tuple[str, str], texts: set[str], settings: Mapping[str, object]
) -> Log:
    if Path(where).is_dir():
        return _open_folder(Path(where), tables, texts, settings)
    url = log_url(where)
    return _open_file(url, tables) if url.startswith("sqlite") else _open_url(url, tables)


def _renamed(log: Log, variants: tuple[str, str]) -> Log:
    """The log with its variants under the kit's names; what else was called so before is neither."""
    if variants == VARIANTS or "variant" not in log.exposures.columns:
        return log
    import ibis

    given = text(log.exposures.variant)
    named = [(given == one, ours) for one, ours in zip(variants, VARIANTS, strict=True)]
    taken = given.isin(VARIANTS), "(" + given + ")"
    return replace(
        log, exposures=log.exposures.mutate(variant=ibis.cases(*named, taken, else_=given))
    )


def _open_file(url: str, tables: tuple[str, str]) -> Log:
    path = Path(url.removeprefix("sqlite:///"))
    if not path.is_file():
        raise DataError(
            f"{path}: no event log there; send traffic through the router, or name the log's place"
        )
    import ibis

    if is_duckdb(path):
        return _of_connection(ibis.duckdb.connect(path, read_only=True), str(path), tables)
    with path.open("rb") as file:
        if file.read(15) not in {b"SQLite format 3", b""}:
            raise DataError(
                f"{path}: no SQLite file; a log in Parquet or CSV is named by its folder, and a table with a row a user needs "
                f"the names of its columns: log_variant, log_user and log_outcomes in study.yaml, variant=..., user=... and "
                f"outcomes=[...] in open_log"
            )
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return _of_connection(ibis.sqlite.connect(path), str(path), tables)
    return _of_connection(ibis.sqlite.from_connection(_read_only(path)), str(path), tables)


def _read_only(path: Path) -> sqlite3.Connection:
    """A log where nothing may be written, so that SQLite can make no file beside it.

    Rows that still stand in its write-ahead log are not in the file: then both are copied and the copy is read.
    """
    wal = path.with_name(f"{path.name}-wal")
    if not wal.is_file() or not wal.stat().st_size:
        return sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1", uri=True)
    with tempfile.TemporaryDirectory(prefix="evalkit-log-", ignore_cleanup_errors=True) as folder:
        for one in (path, wal):
            shutil.copyfile(one, Path(folder) / one.name)
        copy = sqlite3.connect(Path(folder) / path.name)
        copy.execute("SELECT count(*) FROM sqlite_master").fetchall()  # opens its files
        return copy  # the files are gone by name, and go for good with the connection


def _open_url(url: str, tables: tuple[str, str]) -> Log:
    import ibis

    parts, where = read_url(url), shown(url)
    if parts.drivername == "duckdb":
        if not Path(parts.database or "").is_file():
            raise DataError(f"{parts.database}: no event log there; name the log's place")
        return _of_connection(ibis.duckdb.connect(parts.database, read_only=True), where, tables)
    if not parts.drivername.startswith("postgresql"):
        return _of_connection(ibis.connect(url), where, tables)
    known = parts.translate_connect_args(username="user") | dict(parts.query)
    return _of_connection(ibis.postgres.connect(**known), where, tables)


def _of_connection(engine: Any, where: str, tables: tuple[str, str]) -> Log:
    exposures, outcomes, meta = found = [_table(engine, name) for name in (*tables, "log_meta")]
    if missing := sorted(name for name, one in zip(tables, found, strict=False) if one is None):
        engine.disconnect()
        raise DataError(f"{where}: no table {' or '.join(missing)}; it is not an event log")
    simulated = _says_simulated(None if meta is None else fetched(meta))
    return Log(
        exposures=exposures, outcomes=outcomes, simulated=simulated, where=where, engine=engine
    )


def _table(engine: Any, name: str) -> Any:
    """A table, also one of a named schema; None when it is not there."""
    from ibis.common.exceptions import TableNotFound

    schema, _, table = name.rpartition(".")
    try:
        return engine.table(table, database=schema or None)
    except TableNotFound:
        return None


def _open_folder(
    folder: Path, tables: tuple[str, str], texts: set[str], settings: Mapping[str, object]
) -> Log:
    import ibis

    engine = ibis.duckdb.connect(**{"preserve_insertion_order": False, **settings})
    exposures, outcomes = (_read(engine, folder, name, texts) for name in tables)
    meta = fetched(_read(engine, folder, "log_meta")) if _files(folder, "log_meta") else None
    simulated = _says_simulated(meta)
    return Log(
        exposures=exposures,
        outcomes=outcomes,
        simulated=simulated,
        where=str(folder),
        engine=engine,
    )


def _read(engine: Any, folder: Path, name: str, texts: Iterable[str] = ()) -> Any:
    if not (files := _files(folder, name)):
        raise DataError(f"{folder}: no {name}.parquet or {name}.csv; export the log there first")
    if files[0].suffix == ".parquet":
        return engine.read_parquet([str(file) for file in files], table_name=name)
    return engine.read_csv(
        [str(file) for file in files], table_name=name, types=_csv_types(files[0], texts)
    )


def _files(folder: Path, name: str) -> list[Path]:
    """One file, several, or a folder of parts as Spark writes them."""
    for pattern in (f"{name}*.parquet", f"{name}/**/*.parquet", f"{name}*.csv"):
        if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
            return found
    return []


def _csv_types(file: Path, more: Iterable[str]) -> dict[str, str]:
    """Ids stay text: "007" is not 7. Without a row there is nothing to tell numbers by."""
    with file.open(encoding="utf-8-sig") as lines:
        header, empty = lines.readline().strip().split(","), not lines.readline().strip()
    texts = {
        *more,
        "request_id",
        "outcome_id",
        "experiment",
        "user_id",
        "variant",
        "model",
        "outcome",
        "error",
        "slice",
        "metric",
    }
    names = [name.strip('"') for name in header]
    numbers = {"at_s", "value", "latency_ms", "phase"} if empty else set()
    return {
        name: "string" if name in texts else "double" for name in names if name in texts | numbers
    }


def _says_simulated(meta: Any) -> bool:
    if meta is None:
        return False
    said: dict[str, str] = dict(zip(meta["name"], meta["value"], strict=True))
    return said.get("simulated", "0") not in {"", "0", "false"}
