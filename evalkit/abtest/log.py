"""The event log: exposures and outcomes (see `routing`) in SQLite or PostgreSQL through SQLAlchemy.

Every write is one transaction: after a crash a row is there whole, or not at all. An exposure is committed before the caller
gets the answer.

`log_meta` holds names and values about the log as a whole: `simulated` = "1" when its users are simulated.
"""

from __future__ import annotations

import hmac
import os
import sqlite3
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from evalkit.abtest.routing import Exposure, OutcomeRow
from evalkit.abtest.source import log_url, shown
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject
from evalkit.wording import cleaned, known_secrets, redacted, without_secrets, without_secrets_in

_BUSY_S = 30.0
_CHUNK = 50_000  # rows


def _table(name: str, record: type[Exposure | OutcomeRow]) -> sa.Table:
    """A column a field; the first is the key, and what may be None may be null."""
    known = {"str": sa.Text, "Outcome": sa.Text, "int": sa.Integer}
    known |= {"float": sa.Double, "bool": sa.Boolean}
    columns = []
    for place, one in enumerate(fields(record)):
        kind, _, or_none = str(one.type).partition(" | ")
        column = sa.Column(one.name, known[kind], primary_key=place == 0, nullable=bool(or_none))
        columns.append(column)
    return sa.Table(name, TABLES, *columns)


TABLES = sa.MetaData()
EXPOSURES, OUTCOMES = _table("exposures", Exposure), _table("outcomes", OutcomeRow)
META = sa.Table(
    "log_meta",
    TABLES,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


class EventLog:
    """Exposures and outcomes in one database; safe to share between threads and to open from many processes."""

    def __init__(
        self, where: str | Path, *, salt: str | None = None, only_read: bool = False
    ) -> None:
        """Opens the log, and creates its tables when they are not there.

        Args:
            where: A file (SQLite, on a local disk) or an SQLAlchemy URL (PostgreSQL, for several machines).
            salt: When given, user ids are stored as HMAC-SHA256 under it. Keep it secret, and keep it.
            only_read: Change nothing, whatever database that is: one without the tables is refused.

        Raises:
            DesignError: The salt is empty.
            DataError: There is no such folder, or no such database to be reached, or it lacks the tables and is only read.
        """
        self.url = log_url(where)
        if salt is not None and (not isinstance(salt, str) or not salt.strip()):
            raise DesignError("the salt is empty; without one, hashed user ids can be guessed")
        self._salt = salt
        try:
            self._engine = _engine(self.url, only_read=only_read)
            self._tables = _there(self._engine, self.url) if only_read else _create(self._engine)
        except (SQLAlchemyError, ImportError) as why:
            told = without_secrets(str(getattr(why, "orig", why)), known_secrets(self.url))
            raise DataError(f"{shown(self.url)}: not opened as an event log ({told})") from None
        os.register_at_fork(after_in_child=partial(_forget_connections, weakref.ref(self._engine)))

    def close(self) -> None:
        """Gives the connections back."""
        self._engine.dispose()

    def record_exposure(self, exposure: Exposure) -> None:
        """Writes and commits one exposure; the same one again changes nothing.

        Raises:
            DataError: Another exposure with this request id stands in the log.
        """
        self.record_exposures([exposure])

    def record_exposures(self, exposures: Sequence[Exposure]) -> None:
        """Writes many exposures in one commit: for imports, not for a router, which must not owe any.

        Raises:
            DataError: Another exposure with one of the request ids stands in the log.
        """
        rows = [self._row(one) for one in exposures]
        self._insert(EXPOSURES, rows, ("experiment", "user_id", "variant"))

    def record_outcome(
        self,
        request_id: str | None,
        metric: str,
        value: float,
        *,
        user_id: str | None = None,
        experiment: str | None = None,
        outcome_id: str | None = None,
        now: float | None = None,
    ) -> str:
        """Writes and commits what came of a request, or of a user; from any process, at any later time.

        A request has one value a metric, so telling it again changes nothing. A user may have many: pass the event's own
        `outcome_id`, or its time as `now`, and a replay is harmless too.

        Args:
            request_id: The exposure's request; None for an event of a user, who needs `user_id` and `experiment`.
            metric: Name as in the plan.
            value: 0 or 1 for a rate, any finite number otherwise.
            user_id: Whose event it is, when no request is named.
            experiment: Which experiment it counts for, when no request is named.
            outcome_id: The event's own id; made from what the row says when not given.
            now: Seconds since 1970; the present time when not given.

        Returns:
            The outcome's id.

        Raises:
            DataError: The request is not in the log, or it has another value for this metric already.
            DesignError: The value is not finite, or neither a request nor a user was named.
        """
        request_id, at_s = str(request_id or "") or None, time.time() if now is None else now
        if request_id:
            who = self._of_request(request_id)
        elif user_id is None or not str(user_id).strip() or not experiment:
            need = "request_id, or user_id together with experiment"
            raise DesignError(f"an outcome needs {need}")
        else:
            who = {"experiment": experiment, "user_id": self.stored_user(user_id)}
        what = {"request_id": request_id, "metric": metric, "value": value, "at_s": at_s}
        row = OutcomeRow(outcome_id=outcome_id or "", **who, **what)
        self.record_outcomes([row])
        return row.outcome_id

    def record_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        """Writes many outcomes in one commit.

        Raises:
            DataError: An outcome id stands in the log with another value.
        """
        same = ("experiment", "user_id", "metric", "value")
        self._insert(OUTCOMES, [asdict(one) for one in rows], same)

    def meta(self) -> dict[str, str]:
        """What the log says about itself, e.g. `{"simulated": "1"}`."""
        with self._engine.connect() as connection:
            return {row.name: row.value for row in connection.execute(sa.select(META))}

    def set_meta(self, name: str, value: str) -> None:
        """Says something about the log as a whole; the first word stands."""
        self._insert(META, [{"name": name, "value": value}], ("value",))

    def count(self, table: sa.Table = EXPOSURES) -> int:
        """Rows in a table."""
        with self._engine.connect() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()

    def rows(self, table: sa.Table = EXPOSURES) -> Iterator[JsonObject]:
        """The rows of a table, streamed."""
        with self._engine.connect() as connection:
            for row in connection.execution_options(yield_per=_CHUNK).execute(sa.select(table)):
                yield dict(row._mapping)

    def stored_user(self, user_id: str) -> str:
        """A user's id as it stands in the log: cleaned, and hashed when the log has a salt."""
        user_id = _storable(str(user_id))
        if self._salt is None:
            return user_id
        return hmac.new(self._salt.encode(), user_id.encode(), "sha256").hexdigest()

    def export(self, folder: str | Path) -> tuple[Path, ...]:
        """Writes `exposures.parquet`, `outcomes.parquet` and `log_meta.parquet`, and returns their paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        there = [table for table in (EXPOSURES, OUTCOMES, META) if table.name in self._tables]
        return tuple(self._export(table, folder / f"{table.name}.parquet") for table in there)

    def _export(self, table: sa.Table, path: Path) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {sa.Text: pa.string(), sa.Integer: pa.int64()}
        kinds |= {sa.Double: pa.float64(), sa.Boolean: pa.bool_()}
        schema = pa.schema([(column.name, kinds[type(column.type)]) for column in table.columns])
        half = path.with_suffix(".tmp")
        with pq.ParquetWriter(half, schema) as writer, self._engine.connect() as connection:
            found = connection.execution_options(yield_per=_CHUNK).execute(sa.select(table))
            for some in found.mappings().partitions():
                rows = [_without_keys(dict(row)) for row in some]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        os.replace(half, path)
        return path

    def _row(self, exposure: Exposure) -> JsonObject:
        said = asdict(exposure)
        row = said | {name: _storable(one) for name, one in said.items() if isinstance(one, str)}
        return _without_keys(row) | {"user_id": self.stored_user(exposure.user_id)}

    def _of_request(self, request_id: str) -> dict[str, str]:
        wanted = sa.select(EXPOSURES.c.experiment, EXPOSURES.c.user_id)
        with self._engine.connect() as connection:
            found = connection.execute(wanted.where(EXPOSURES.c.request_id == request_id)).first()
        if found is None:
            raise DataError(f"{shown(self.url)}: no exposure has request_id {request_id!r}")
        return dict(found._mapping)

    def _insert(self, table: sa.Table, rows: Sequence[JsonObject], same: tuple[str, ...]) -> None:
        """Rows that are not there yet; those that are must say the `same`."""
        if not rows:
            return
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        with self._engine.begin() as connection:
            done = connection.execute(insert(table).on_conflict_do_nothing(), rows)
        if done.rowcount == len(rows):
            return
        key = next(iter(table.primary_key.columns))
        with self._engine.connect() as connection:
            for row in rows:
                wanted = sa.select(table).where(key == row[key.name])
                there = connection.execute(wanted).mappings().one()
                if any(there[name] != row[name] for name in same):
                    taken = f"{key.name} {row[key.name]!r} is taken"
                    told = {name: there[name] for name in same}
                    raise DataError(f"{table.name}: {taken} by {told}; ids must be unique")


def _engine(url: str, *, only_read: bool = False) -> sa.Engine:
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True)
    if not (folder := Path(url.removeprefix("sqlite:///")).parent).is_dir():
        raise DataError(f"{folder}: no such folder; the event log needs one to live in")
    if only_read:
        path = quote(url.removeprefix("sqlite:///"))
        return sa.create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_S})
    event.listen(engine, "connect", _set_wal)
    return engine


def _forget_connections(engine: weakref.ref[sa.Engine]) -> None:
    """In a forked worker: the parent's connections are not ours, neither to use nor to close."""
    if (mine := engine()) is not None:
        mine.dispose(close=False)


def _set_wal(connection: sqlite3.Connection, _record: object) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA journal_mode=WAL")


def _there(engine: sa.Engine, url: str) -> set[str]:
    """The log's tables in a database."""
    known = set(sa.inspect(engine).get_table_names())
    if missing := {EXPOSURES.name, OUTCOMES.name} - known:
        told = f"no table {' or '.join(sorted(missing))}"
        raise DataError(f"{shown(url)}: {told}; it is not an event log, name another in event_log")
    return known & set(TABLES.tables)


def _create(engine: sa.Engine) -> set[str]:
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # IF NOT EXISTS alone is not safe against a twin
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(732201)"))
        for table in TABLES.sorted_tables:
            connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
    return set(TABLES.tables)


def _without_keys(row: JsonObject) -> JsonObject:
    """Logs that others write, and those of older versions, may quote a key that a server refused."""
    safe = without_secrets_in({name: row[name] for name in ("model", "slice") if row.get(name)})
    return row | safe | ({"error": redacted(row["error"])} if row.get("error") else {})


def _storable(text: str) -> str:
    return cleaned(text)[0].replace("\0", "\\x00")  # PostgreSQL holds no NUL
