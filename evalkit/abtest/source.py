"""Opens an event log - a file, a folder, an address, a table with a row a user - with the engine that fits.

A finished experiment is often handed over as one table with a row a user, a variant and outcomes in columns, no times. It
becomes a log in which everybody came at one moment: sample ratio, users and effect hold, days do not exist.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from evalkit import wording
from evalkit.abtest.analysis import Log, Note, Table, fetched, quiet, text
from evalkit.abtest.assignment import VARIANTS, Column
from evalkit.abtest.routing import TEXTS
from evalkit.errors import DataError, DesignError, EvalkitError
from evalkit.study import VARIABLE, Study, is_elsewhere
from evalkit.wording import known_secrets, passwords_in, without_secrets

if TYPE_CHECKING:
    import sqlalchemy as sa
    from ibis import BaseBackend
    from ibis.backends.duckdb import Backend as DuckDB

_NEED = "need a file or folder of the study, postgresql://host/database, or the name of an environment variable with a URL"
SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
_KEPT = ("user_id", "at_s", "experiment", "request_id")
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
_MOMENT_S, _BEFORE_S = 0.0, -1.0  # everybody's first exposure, and what was before it
_TRUTHS = {"true": "1", "yes": "1", "false": "0", "no": "0"}
_NAMES = 5  # values that a message lists


@dataclass(frozen=True, slots=True)
class _Columns:
    """What a log's columns are called, as `open_log` explains; "" for those that have the kit's own name."""

    user: str
    variant: str
    outcomes: Sequence[str]
    before: Sequence[str]
    variants: tuple[str, str]
    time: str
    experiment: str

    @property
    def measured(self) -> list[str]:
        """Columns that hold numbers."""
        return [*self.outcomes, *self.before]

    @property
    def ours(self) -> dict[str, str]:
        """Names of columns, by the kit's."""
        pairs = zip(_KEPT[:3], (self.user, self.time, self.experiment), strict=True)
        return {name: given for name, given in (*pairs, ("variant", self.variant)) if given}


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
    columns = _Columns(user, variant, outcomes, before, variants, time, experiment)
    with quiet():
        try:
            return _opened(where, (exposures, events), columns, settings)
        except EvalkitError:
            raise
        except Exception as why:  # each engine, and each driver below it, has errors of its own
            said = without_secrets(" ".join(str(why).split()), known_secrets(log_url(where)))[:300]
            raise DataError(
                f"{shown(where)}: cannot be read as an event log ({type(why).__name__}: {said}); "
                "restore it from a copy, or name another in event_log"
            ) from None


def is_user_table(where: str | Path) -> bool:
    """True for a single CSV or Parquet file."""
    return str(where).lower().endswith(SUFFIXES) and Path(where).is_file()


def is_duckdb(path: Path) -> bool:
    """True for a database of DuckDB, by its first bytes."""
    with path.open("rb") as file:
        return file.read(12)[8:] == b"DUCK"


def _opened(
    where: str | Path,
    tables: tuple[str, str],
    columns: _Columns,
    settings: Mapping[str, object],
) -> Log:
    import ibis

    path, name = Path(where), str(where)
    of_users = is_user_table(where) and bool(columns.variant and columns.outcomes)
    engine: Any
    if of_users or path.is_dir():
        engine = ibis.duckdb.connect(**{"preserve_insertion_order": False, **settings})
        read = partial(_files_table, engine, path, columns)
    else:
        engine, name = _connected(log_url(where))
        read = partial(_table, engine)
    try:
        if of_users:
            return _log_of_users(path, columns, engine)
        exposures, outcomes, meta = found = [read(one) for one in (*tables, "log_meta")]
        if missing := [one for one, table in zip(tables, found, strict=False) if table is None]:
            raise DataError(
                f"{name}: no table {' or '.join(sorted(missing))}; it is not an event log (in a folder: .parquet or .csv)"
            )
        rows = () if meta is None else fetched(meta)[["name", "value"]].itertuples(index=False)
        said = dict(rows)
        simulated = said.get("simulated", "0") not in {"", "0", "false"}
        kept = {"simulated": simulated, "where": name, "engine": engine}
        return _renamed(Log(exposures=exposures, outcomes=outcomes, **kept), columns)
    except BaseException:
        engine.disconnect()
        raise


def _connected(url: str) -> tuple[BaseBackend, str]:
    """The database at a URL, and what to call it."""
    import ibis

    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        if not path.is_file():
            raise DataError(
                f"{path}: no event log there; send traffic through the router, or name the log's place"
            )
        if is_duckdb(path):
            return ibis.duckdb.connect(path, read_only=True), str(path)
        return _sqlite(path), str(path)
    parts = read_url(url)
    if parts.drivername == "duckdb":
        if not Path(parts.database or "").is_file():
            raise DataError(f"{parts.database}: no event log there; name the log's place")
        return ibis.duckdb.connect(parts.database, read_only=True), shown(url)
    if not parts.drivername.startswith("postgresql"):
        return ibis.connect(url), shown(url)
    known = parts.translate_connect_args(username="user") | dict(parts.query)
    return ibis.postgres.connect(**known), shown(url)


def _sqlite(path: Path) -> BaseBackend:
    """A log where nothing may be written is opened so that SQLite can make no file beside it.

    Rows that still stand in its write-ahead log are not in the file: then both are copied and the copy is read.
    """
    import ibis

    with path.open("rb") as file:
        if file.read(15) not in {b"SQLite format 3", b""}:
            raise DataError(
                f"{path}: no SQLite file; a log in Parquet or CSV is named by its folder, and a table with a row a user needs "
                f"the names of its columns: log_variant, log_user and log_outcomes in study.yaml, variant=..., user=... and "
                f"outcomes=[...] in open_log"
            )
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return ibis.sqlite.connect(path)
    wal = path.with_name(f"{path.name}-wal")
    if not wal.is_file() or not wal.stat().st_size:
        name = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
        return ibis.sqlite.from_connection(sqlite3.connect(name, uri=True))
    with tempfile.TemporaryDirectory(prefix="evalkit-log-", ignore_cleanup_errors=True) as folder:
        for one in (path, wal):
            shutil.copyfile(one, Path(folder) / one.name)
        copy = sqlite3.connect(Path(folder) / path.name)
        copy.execute("SELECT count(*) FROM sqlite_master").fetchall()  # opens its files
    # the files are gone by name, and go for good with the connection
    return ibis.sqlite.from_connection(copy)


def _table(engine: BaseBackend, name: str) -> Table | None:
    """A table, also one of a named schema; None when it is not there."""
    from ibis.common.exceptions import TableNotFound

    schema, _, table = name.rpartition(".")
    try:
        return engine.table(table, database=schema or None)
    except TableNotFound:
        return None


def _files_table(engine: DuckDB, folder: Path, columns: _Columns, name: str) -> Table | None:
    """One file, several, or a folder of parts as Spark writes them; None when there is none."""
    for pattern in (f"{name}*.parquet", f"{name}/**/*.parquet", f"{name}*.csv"):
        if files := sorted(path for path in folder.glob(pattern) if path.is_file()):
            paths = [str(file) for file in files]
            if files[0].suffix == ".parquet":
                return engine.read_parquet(paths, table_name=name)
            types = {} if name == "log_meta" else _csv_types(files[0], columns)
            return engine.read_csv(paths, table_name=name, types=types)
    return None


def _csv_types(file: Path, columns: _Columns) -> dict[str, str]:
    """Ids stay text: "007" is not 7. Without a row there is nothing to tell numbers by."""
    with file.open(encoding="utf-8-sig") as lines:
        header, is_empty = lines.readline().strip(), not lines.readline().strip()
    texts = {*TEXTS, columns.user, columns.variant, columns.experiment} - {""}
    numbers = ("at_s", "value", "latency_ms", "phase") if is_empty else ()
    names = [name.strip('"') for name in header.split(",")]
    types = {name: "double" for name in names if name in numbers}
    return types | {name: "string" for name in names if name in texts}


def _renamed(log: Log, columns: _Columns) -> Log:
    """Exposures and outcomes as a warehouse keeps them, under the kit's names, within the engine that holds them."""
    import ibis

    exposures = _with_names(log.exposures, columns.ours, f"{log.where}: exposures")
    told, there = f"{log.where}: outcomes", log.outcomes.columns
    of_outcomes = {
        ours: theirs
        for ours, theirs in columns.ours.items()
        if theirs in there or (ours in ("user_id", "at_s") and ours not in there)
    }
    outcomes = _with_names(log.outcomes, of_outcomes, told)
    if columns.measured and not {"metric", "value"} & set(outcomes.columns):
        names = [*dict.fromkeys(columns.measured)]
        _refuse_lacking(told, [*_KEPT[:2], *names], outcomes)
        numbers = {name: _number(outcomes, name, told) for name in names}
        outcomes = _united(_measured(outcomes, one, name) for name, one in numbers.items())
    if columns.variants != VARIANTS and "variant" in exposures.columns:
        given = text(exposures.variant)
        named = [(given == one, ours) for one, ours in zip(columns.variants, VARIANTS, strict=True)]
        taken = given.isin(VARIANTS), "(" + given + ")"  # called so before, and neither of the two
        exposures = exposures.mutate(variant=ibis.cases(*named, taken, else_=given))
    return replace(log, exposures=exposures, outcomes=outcomes)


def _with_names(table: Table, given: Mapping[str, str], where: str) -> Table:
    """The table with its columns renamed; another column that has one of the kit's names makes room."""
    _refuse_lacking(where, given.values(), table)
    changed = {ours: theirs for ours, theirs in given.items() if ours != theirs}
    return table.drop(*(one for one in changed if one in table.columns)).rename(changed)


def _refuse_lacking(where: str, named: Iterable[str], table: Table) -> None:
    there = table.columns
    if (name := next((one for one in named if one not in there), None)) is None:
        return
    folded = {one.strip().casefold(): one for one in there}
    hint = wording.did_you_mean(name.strip().casefold(), folded, lambda one: repr(folded[one]))
    raise DataError(f"{where}: no column {name!r}; it has {', '.join(map(repr, there))}{hint}")


def _measured(rows: Table, number: Column, metric: str) -> Table:
    """One column of outcomes as rows of the log: what is missing is no outcome."""
    import ibis

    rows = rows.mutate(metric=ibis.literal(metric), value=number)
    kept = [one for one in _KEPT if one in rows.columns]
    return rows.filter(rows.value.notnull()).select(*kept, "metric", "value")


def _united(tables: Iterable[Table]) -> Table:
    return reduce(lambda one, other: one.union(other), tables)


def _number(table: Table, name: str, where: Path | str) -> Column:
    """An outcome: true is 1; NaN is missing, as a blank is."""
    column = table[name]
    if column.type().is_boolean():
        return column.cast("int32").cast("float64")
    if not column.type().is_numeric():
        raise _no_number(table.filter(column.notnull()).select(one=column), name, where)
    value = column.cast("float64")
    return value.isnan().ifelse(None, value)


def _no_number(odd: Table, name: str, where: Path | str) -> DataError:
    known = fetched(odd.limit(1))
    some = f", such as {known['one'].iloc[0]!r}" if len(known) else ""
    kind = odd.schema()["one"]
    return DataError(
        f"{where}: column {name!r} holds {kind}{some}; need numbers, or true and false"
    )


def _log_of_users(path: Path, columns: _Columns, engine: DuckDB) -> Log:
    """A log of one moment from a file with a row a user.

    Rows without a user, in no variant of the two, and of users seen in both are left out; all of it is told in the log's notes.
    """
    import ibis

    table = _users_table(path, columns, engine)
    user = text(table[columns.user]) if columns.user else ibis.row_number().cast("string")
    names = {f"y{place}": name for place, name in enumerate(columns.measured)}
    numbers = {place: _number(table, name, path) for place, name in names.items()}
    rows = table.select(user_id=user, variant=text(table[columns.variant]), **numbers)
    rows = rows.mutate(**{one: rows[one].strip().nullif("") for one in ("user_id", "variant")})
    rows: Table = engine.create_table("rows_read", rows)
    nobody = rows.user_id.isnull().ifelse(1, 0).sum()
    seen = fetched(rows.group_by("variant").agg(n=rows.count(), nobody=nobody))
    seen = seen.fillna({"variant": ""}).sort_values("n", ascending=False).set_index("variant")
    n, by_name = int(seen["n"].sum()), seen["n"].to_dict()
    sides = _sides(columns, by_name, path)
    notes = [Note(kind="no_times")]
    if strays := {one: rows for one, rows in by_name.items() if one not in sides}:
        notes.append(Note(kind="strays", n=sum(strays.values()), of=n, names=strays))
    unnamed = tuple(int(seen["nobody"][side]) for side in sides)
    if any(unnamed):
        notes.append(Note(kind="nobody", n=sum(unnamed), of=n, by_variant=unnamed))
    rows = rows.filter(rows.variant.isin(sides) & rows.user_id.notnull())
    rows = rows.mutate(variant=(rows.variant == sides[0]).ifelse(*VARIANTS))
    users = rows.group_by("user_id").agg(n=rows.count(), arms=rows.variant.nunique())
    kept: Table = engine.create_table(
        "rows_kept", rows.anti_join(users.filter(users.arms > 1), "user_id")
    )
    moments = [_MOMENT_S] * len(columns.outcomes) + [_BEFORE_S] * len(columns.before)
    outcomes = _united(
        _measured(kept.mutate(at_s=ibis.literal(at_s)), kept[place], name)
        for (place, name), at_s in zip(names.items(), moments, strict=True)
    )
    return Log(
        exposures=kept.select("user_id", "variant", at_s=ibis.literal(_MOMENT_S)),
        outcomes=outcomes,
        where=str(path),
        engine=engine,
        timed=False,
        notes=(*notes, *_on_several_rows(users), *_gaps(kept, names, n)),
    )


def _users_table(path: Path, columns: _Columns, engine: DuckDB) -> Table:
    """The file, its outcomes as numbers where it holds them as texts."""
    import ibis

    named = [columns.variant, *columns.measured, *([columns.user] if columns.user else [])]
    if path.suffix == ".parquet":
        table = engine.read_parquet(str(path))
    else:
        read = partial(engine.read_csv, str(path), sample_size=-1, nullstr=_MISSING)
        there = read().columns
        table = read(types={one: "string" for one in named if one in there})  # 007 is not 7
    _refuse_lacking(str(path), named, table)
    table = engine.create_table("rows_told", table.select(*dict.fromkeys(named)))
    for name in columns.measured:
        if not table[name].type().is_string():
            continue
        told: Column = table[name]
        said = told.strip()
        said = said.isin(_MISSING).ifelse(None, said)
        truth = said.try_cast("boolean").cast("int32").cast("float64")
        value = ibis.coalesce(said.try_cast("float64"), truth)
        odd = table.filter(said.notnull() & value.isnull()).select(one=said)
        if fetched(odd.count()):
            raise _no_number(odd, name, path)
        table = table.mutate(**{name: value})
    return table


def _sides(columns: _Columns, seen: Mapping[str, int], path: Path) -> list[str]:
    """The two variants as the table spells them; each must be there."""
    sides = []
    for given in columns.variants:
        found = [one for one in seen if one == given.strip()]
        found = found or [one for one in seen if one and _meant(one) == _meant(given)]
        if len(found) != 1 or found[0] in sides:
            named = [f"{one or 'none'!r} ({wording.count(n)})" for one, n in seen.items()]
            what = "is named as control and as treatment" if found else "is in no row"
            raise DataError(
                f"{path}: {given!r} {what}; column {columns.variant!r} holds {wording.listed(named[:_NAMES])}: say which "
                f"is which, control_variant and treatment_variant in study.yaml, variants=(control, treatment) in open_log"
            )
        sides += found
    return sides


def _meant(name: str) -> float | str:
    """A variant's name, whatever its case; numbers and truths by value, so that 1, 1.0 and True are one."""
    folded = name.strip().casefold()
    try:
        return float(_TRUTHS.get(folded, folded))
    except ValueError:
        return folded


def _on_several_rows(users: Table) -> Iterator[Note]:
    """Users who stand on more than one row."""
    flags = {"mixed_left_out": users.arms > 1, "several_rows": (users.arms == 1) & (users.n > 1)}
    sums = {name: flag.ifelse(1, 0).sum().fill_null(0) for name, flag in flags.items()}
    found = fetched(users.agg(total=users.count(), **sums)).iloc[0]
    for kind in flags:
        if n := int(found[kind]):
            yield Note(kind=kind, n=n, of=int(found["total"]))


def _gaps(kept: Table, names: Mapping[str, str], n: int) -> Iterator[Note]:
    """Outcomes that are missing."""
    sums = {place: kept[place].isnull().ifelse(1, 0).sum() for place in names}
    lost = fetched(kept.group_by("variant").agg(**sums)).set_index("variant")
    for place, name in names.items():
        by_variant = tuple(int(lost[place].get(arm, 0)) for arm in VARIANTS)
        if any(by_variant):
            yield Note(kind="gaps", n=sum(by_variant), of=n, by_variant=by_variant, about=name)


# ---- where a log is, and how that place is told


def place_of(home: Study, event_log: str) -> str | Path:
    """What `event_log` names in a study's settings, files as whole paths, and never one outside the study's folder.

    Where the log is outside of it, an environment variable says so: it belongs to who runs the study, not to the study.

    Raises:
        DesignError: The URL holds a password, or is of no database that a study may name.
        DataError: The path leaves the study's folder.
    """
    if not is_elsewhere(event_log):
        return home.path(event_log)
    if "://" not in event_log:
        return event_log
    if passwords_in(event_log):
        raise DesignError(
            "event_log holds a password; put the URL into an environment variable and name the variable in event_log"
        )
    url = read_url(event_log)
    kind = url.drivername.partition("+")[0]
    if kind in {"sqlite", "duckdb"} and url.database:
        path = home.path(url.database)
        return path if kind == "sqlite" else f"duckdb:///{quote(str(path))}"
    if kind != "postgresql":
        raise DesignError(f"event_log {shown(event_log)}: {_NEED}")
    return event_log


def log_url(where: str | Path) -> str:
    """An SQLAlchemy URL for a file, a URL, or the upper-case name of an environment variable that holds one.

    Raises:
        DesignError: The environment variable is not set.
        DataError: The URL cannot be read.
    """
    text = str(where)
    if VARIABLE.fullmatch(text) and not (text := os.environ.get(text, "").strip()):
        raise DesignError(
            f"the environment variable {where} is not set; put the URL of the event log in it"
        )
    if "://" not in text:
        return f"sqlite:///{Path(text).resolve()}"
    if text.startswith("sqlite:///"):
        return text
    return read_url(text).render_as_string(hide_password=False)


def read_url(text: str) -> sa.URL:
    """A database's URL, taken apart by SQLAlchemy; `/`, `#`, `?` and `@` may stand in the password as they are.

    Raises:
        DataError: It is no URL; the message shows nothing of it.
    """
    from sqlalchemy import exc, make_url  # a log that is a file is read without it

    try:
        url = make_url(_escaped(text))
    except (exc.ArgumentError, ValueError):
        raise DataError(
            "the event log's URL cannot be read; need such as postgresql://user:password@host:5432/database"
        ) from None
    if url.drivername in {"postgres", "postgresql"}:
        url = url.set(drivername="postgresql+psycopg")
    return url


def shown(where: str | Path) -> str:
    """A file as it is; of a URL the kind, host and database alone: its user, password and query stand in no message."""
    if "://" not in str(where):
        return str(where)
    try:
        url = read_url(str(where))
    except DataError:
        return "the event log"
    port = f":{url.port}" if url.port else ""
    return f"{url.drivername}://{url.host or ''}{port}/{url.database or ''}"


def _escaped(text: str) -> str:
    """The URL with its password escaped, which ends at the last "@" before the query; SQLAlchemy takes it to the first one."""
    scheme, _, rest = text.partition("://")
    main, mark, query = rest.partition("?")
    user, colon, behind = main.partition(":")
    if "@" not in main and (not colon or re.match(r"\d+(/|$)", behind)):  # a port, no password
        return f"{scheme}://{main}{mark}{query.replace('@', '%40')}"
    if not colon or "/" in user or "@" in user:
        return text
    if "@" not in main or not re.match(r"[\w.]+=", query):  # the "?" is the password's
        behind, mark, query = rest.partition(":")[2], "", ""
    password, _, host = behind.rpartition("@")
    return f"{scheme}://{user}:{quote(unquote(password), safe='')}@{host}{mark}{query}"
