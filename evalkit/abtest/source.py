"""Where an event log lives: a file, a folder or an address, opened with the engine that fits."""

from __future__ import annotations

import difflib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evalkit import wording
from evalkit.abtest.analysis import Column, Log, Table, fetched, quiet, text
from evalkit.abtest.assignment import VARIANTS
from evalkit.abtest.log import log_url, read_url, shown
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
            return _under_our_names(log, names, (*outcomes, *before), variants)
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


def _under_our_names(
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


SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
_MOMENT_S, _BEFORE_S = 0.0, -1.0  # everybody's first exposure, and what was before it
_TRUTHS = {"true": "1", "yes": "1", "false": "0", "no": "0"}
_NAMES = 5  # values that a message lists
NO_TIMES = (
    "the log is a table without times: days and weeks cannot be shown, outcomes count whenever they came, and nobody can tell "
    "whether the plan was made before them"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which column holds what.

    Attributes:
        user: The user's id; "" where each row is a user of its own.
        variant: The variant.
        outcomes: Numbers, or true and false.
        before: Numbers from before the experiment, for CUPED.
        variants: The values of control and of treatment; "control" and "treatment" when not given.
    """

    user: str = ""
    variant: str
    outcomes: Sequence[str]
    before: Sequence[str] = ()
    variants: tuple[str, str] = VARIANTS


def is_user_table(where: str | Path) -> bool:
    """True for a single CSV or Parquet file."""
    return str(where).lower().endswith(SUFFIXES) and Path(where).is_file()


def open_user_table(path: Path, columns: Columns) -> Log:
    """A log of one moment from a file with a row a user.

    Rows without a user, in no variant of the two, and of users seen in both are left out; all of it is told in the log's notes.

    Raises:
        DataError: It cannot be read, a column is not there or holds no numbers, or its variants are other ones.
    """
    engine, rows = _read_table(path, columns)
    try:
        return _log_of_users(path, columns, engine, rows)
    except DataError:
        engine.disconnect()
        raise


def _read_table(path: Path, columns: Columns) -> tuple[Any, Table]:
    import duckdb
    import ibis

    engine = ibis.duckdb.connect()
    named = [columns.variant, *columns.outcomes, *columns.before]
    named += [columns.user] if columns.user else []
    try:
        if path.suffix == ".parquet":
            table = engine.read_parquet(str(path))
        else:
            options: dict[str, Any] = {"sample_size": -1, "nullstr": _MISSING}
            there = engine.read_csv(str(path), **options).columns
            texts = {one: "string" for one in named if one in there}
            table = engine.read_csv(str(path), types=texts, **options)  # "007" is not 7
    except (duckdb.Error, OSError) as why:
        engine.disconnect()
        first = str(why).strip().splitlines()[0]
        raise DataError(f"{path}: cannot be read as a table ({first})") from why
    if lacking := [one for one in named if one not in table.columns]:
        engine.disconnect()
        raise DataError(f"{path}: {_lacks(lacking[0], table.columns)}")
    values = (*columns.outcomes, *columns.before)
    return engine, _read_as_numbers(table, values)


def _read_as_numbers(table: Table, names: Iterable[str]) -> Table:
    """Columns of texts that are all numbers or truths as numbers; of others, those texts that are not. Looks once."""
    read = {name: _number_in(table[name]) for name in names if table[name].type().is_string()}
    if not read:
        return table
    found = {name: one.notnull().any().fill_null(False) for name, (_, one) in read.items()}
    odd = fetched(table.agg(**found))
    told = {name: odd[name].iloc[0] for name in read}
    return table.mutate(**{name: one[1] if told[name] else one[0] for name, one in read.items()})


def _number_in(column: Column) -> tuple[Column, Column]:
    """What a text says as a number, and the texts that say none."""
    import ibis

    told = column.strip()
    told = told.isin(_MISSING).ifelse(None, told)
    truth = told.try_cast("boolean").cast("int32").cast("float64")
    value = ibis.coalesce(told.try_cast("float64"), truth)
    return value, (told.notnull() & value.isnull()).ifelse(told, None)


def _log_of_users(path: Path, columns: Columns, engine: Any, table: Table) -> Log:
    values = [*columns.outcomes, *columns.before]
    import ibis

    user = _as_name(table[columns.user]) if columns.user else ibis.row_number().cast("string")
    numbers = {f"y{place}": _number(table, name, path) for place, name in enumerate(values)}
    with quiet():
        arms = _as_name(table[columns.variant])
        rows = engine.create_table("rows_read", table.select(user_id=user, variant=arms, **numbers))
        _check_finite(rows, dict(zip(numbers, values, strict=True)), path)
        seen = _variants(rows)
        control, treatment = _sides(columns, seen, path)
        rows = rows.filter(rows.variant.isin([control, treatment]) & rows.user_id.notnull())
        arm = (rows.variant == control).ifelse(*VARIANTS)
        rows = rows.mutate(variant=arm)
        users = rows.group_by("user_id").agg(n=rows.count(), arms=rows.variant.nunique())
        kept = rows.anti_join(users.filter(users.arms > 1), "user_id")
        kept = engine.create_table("rows_kept", kept)
        moments = [_MOMENT_S] * len(columns.outcomes) + [_BEFORE_S] * len(columns.before)
        named = zip(numbers, values, moments, strict=True)
        outcomes = [_outcome(kept, place, name, at_s) for place, name, at_s in named]
        exposures = kept.select("user_id", "variant", at_s=ibis.literal(_MOMENT_S))
    told = (
        *_left_out(columns, seen, (control, treatment)),
        *_on_several_rows(users),
        *_gaps(kept, dict(zip(numbers, values, strict=True)), sum(seen.values())),
    )
    return Log(
        exposures=exposures,
        outcomes=reduce(lambda one, other: one.union(other), outcomes),
        where=str(path),
        engine=engine,
        timed=False,
        notes=told,
    )


def _check_finite(rows: Table, names: Mapping[str, str], path: Path) -> None:
    endless = fetched(rows.agg(**{place: rows[place].isinf().any() for place in names}))
    for place, name in names.items():
        if endless[place].fillna(value=False).iloc[0]:
            raise DataError(
                f"{path}: column {name!r} holds a number that is not finite; mend it, or leave it empty"
            )


def _lacks(name: str, there: Iterable[str]) -> str:
    folded = {one.strip().casefold(): one for one in there}
    near = difflib.get_close_matches(name.strip().casefold(), folded, n=1)
    hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
    return f"no column {name!r}; it has {', '.join(map(repr, there))}{hint}"


def _as_name(column: Column) -> Column:
    """An id or a variant as text: 7 for 7.0, "true" for true, nothing for blanks."""
    if column.type().is_floating():
        whole = column.cast("int64").cast("string")
        column = (column == column.floor()).ifelse(whole, column.cast("string"))
    return column.cast("string").strip().nullif("")


def _number(table: Table, name: str, path: Path | str) -> Column:
    """An outcome: true is 1; NaN is missing, as a blank is."""
    column = table[name]
    if column.type().is_boolean():
        return column.cast("int32").cast("float64")
    if not column.type().is_numeric():
        known = fetched(table.filter(column.notnull()).select(one=column).limit(1))
        some = f", such as {known['one'].iloc[0]!r}" if len(known) else ""
        raise DataError(
            f"{path}: column {name!r} holds {column.type()}{some}; need numbers, or true and false"
        )
    value = column.cast("float64")
    return value.isnan().ifelse(None, value)


def _variants(rows: Table) -> dict[tuple[str | None, bool], int]:
    """Rows by variant and whether they name a user, the most frequent first."""
    found = rows.group_by(variant=rows.variant, known=rows.user_id.notnull()).agg(n=rows.count())
    table = fetched(found).sort_values("n", ascending=False)
    return {
        (variant if isinstance(variant, str) else None, bool(known)): int(n)
        for variant, known, n in table[["variant", "known", "n"]].itertuples(index=False)
    }


def _sides(
    columns: Columns, seen: Mapping[tuple[str | None, bool], int], path: Path
) -> tuple[str, str]:
    """The two variants as the table spells them.

    Raises:
        DataError: One of them is not there.
    """
    by_size: dict[str, int] = {}
    for (name, _), n in seen.items():
        by_size[name or "none"] = by_size.get(name or "none", 0) + n
    sides = []
    for given in columns.variants:
        found = [one for one in by_size if one == given.strip()]
        found = found or [one for one in by_size if _meant(one) == _meant(given)]
        if len(found) != 1:
            some = [f"{one!r} ({wording.count(n)})" for one, n in [*by_size.items()][:_NAMES]]
            raise DataError(
                f"{path}: no row has the variant {given!r}; column {columns.variant!r} holds {wording.listed(some)}: say which "
                f"is which, control_variant and treatment_variant in study.yaml, variants=(control, treatment) in open_log"
            )
        sides += found
    if sides[0] == sides[1]:
        raise DataError(
            f"{path}: {sides[0]!r} is named as control and as treatment; say which is which"
        )
    return sides[0], sides[1]


def _meant(name: str) -> float | str:
    """A variant's name, whatever its case; numbers and truths by value, so that 1, 1.0 and True are one."""
    folded = name.strip().casefold()
    try:
        return float(_TRUTHS.get(folded, folded))
    except ValueError:
        return folded


def _outcome(rows: Table, place: str, name: str, at_s: float) -> Table:
    import ibis

    known = rows.filter(rows[place].notnull())
    metric, moment = ibis.literal(name), ibis.literal(at_s)
    return known.select("user_id", metric=metric, value=known[place], at_s=moment)


def _left_out(
    columns: Columns, seen: Mapping[tuple[str | None, bool], int], sides: tuple[str, str]
) -> Iterator[str]:
    """What a table without times cannot say, and which of its rows do not count."""
    n = sum(seen.values())
    yield NO_TIMES
    if not columns.user:
        yield "no column of user ids is named, so each row counts as a user of its own"
    others: dict[str, int] = {}
    for (variant, _), rows in seen.items():
        if variant not in sides:
            others[variant or "none"] = others.get(variant or "none", 0) + rows
    if others:
        some = [f"{wording.visible(one)} ({wording.count(k)})" for one, k in others.items()]
        which = wording.listed(some[:_NAMES] + (["others"] if len(some) > _NAMES else []))
        rows = _rows(sum(others.values()), n)
        yield f"{rows} in neither of the two variants are left out: {which}"
    nobody = [seen.get((arm, False), 0) for arm in sides]
    if any(nobody):
        yield f"{_rows(sum(nobody), n)} without a user are left out ({_by_arm(nobody)})"


def _on_several_rows(users: Table) -> Iterator[str]:
    """Users who stand on more than one row."""
    with quiet():
        mixed, twice = users.arms > 1, (users.arms == 1) & (users.n > 1)
        counted = users.agg(
            total=users.count(),
            mixed=mixed.ifelse(1, 0).sum().fill_null(0),
            twice=twice.ifelse(1, 0).sum().fill_null(0),
        )
    found = {name: int(value.iloc[0]) for name, value in fetched(counted).items()}
    of = f"of {wording.count(found['total'])}"
    if n := found["mixed"]:
        why = "without times nobody knows where they were first"
        yield f"{wording.plural(n, 'user')} {of} in both variants are left out: {why}"
    if n := found["twice"]:
        how = "each row counts as a request of its own, and errors are taken by user"
        yield f"{wording.plural(n, 'user')} {of} with several rows: {how}"


def _gaps(kept: Table, names: Mapping[str, str], n: int) -> Iterator[str]:
    """Outcomes that are missing."""
    with quiet():
        sums = {place: kept[place].isnull().ifelse(1, 0).sum() for place in names}
        lost = fetched(kept.group_by("variant").agg(**sums)).set_index("variant")
    for place, name in names.items():
        by_arm = [int(lost[place].get(arm, 0)) for arm in VARIANTS]
        if any(by_arm):
            shown = wording.visible(name)
            yield f"{_rows(sum(by_arm), n)} have no {shown} ({_by_arm(by_arm)}) and count as 0"


def _rows(k: int, n: int) -> str:
    return f"{wording.count(k)} of {wording.plural(n, 'row')} ({wording.percent(k / n)})"


def _by_arm(counts: Sequence[int]) -> str:
    return ", ".join(
        f"{wording.count(k)} in {arm}" for arm, k in zip(VARIANTS, counts, strict=True)
    )


_LONG = {"metric", "value"}
_KEPT = ("user_id", "at_s", "experiment", "request_id")


def with_columns(log: Log, names: Mapping[str, str], values: Sequence[str]) -> Log:
    """The log with its columns under the kit's names.

    Args:
        log: As opened.
        names: What user_id, variant, at_s and experiment are called in it; "" for a column that has the kit's own name.
        values: Columns of outcomes, each a metric, for a table of outcomes that has no columns metric and value.

    Raises:
        DataError: A column that is named is not there, or holds no numbers.
    """
    given = {ours: theirs for ours, theirs in names.items() if theirs}
    exposures = _renamed_columns(log.exposures, given, f"{log.where}: exposures")
    told = f"{log.where}: outcomes"
    there = set(log.outcomes.columns)
    of_outcomes = {
        ours: theirs
        for ours, theirs in given.items()
        if theirs in there or (ours in ("user_id", "at_s") and ours not in there)
    }
    outcomes = _renamed_columns(log.outcomes, of_outcomes, told)
    if values and not _LONG & set(outcomes.columns):
        outcomes = reduce(
            lambda one, other: one.union(other),
            [_measured(outcomes, name, told) for name in dict.fromkeys(values)],
        )
    return replace(log, exposures=exposures, outcomes=outcomes)


def _renamed_columns(table: Any, given: Mapping[str, str], where: str) -> Any:
    """The table with its columns renamed; another column that has one of the kit's names makes room."""
    _refuse_lacking(given.values(), table, where)
    changed = {ours: theirs for ours, theirs in given.items() if ours != theirs}
    return table.drop(*(one for one in changed if one in table.columns)).rename(changed)


def _measured(table: Any, name: str, where: str) -> Any:
    """One column of outcomes as rows of the log: what is missing is no outcome."""
    import ibis

    _refuse_lacking([*_KEPT[:2], name], table, where)
    rows = table.mutate(metric=ibis.literal(name), value=_number(table, name, where))
    kept = [one for one in _KEPT if one in table.columns]
    return rows.filter(rows.value.notnull()).select(*kept, "metric", "value")


def _refuse_lacking(named: Any, table: Any, where: str) -> None:
    if lacking := [one for one in named if one not in table.columns]:
        raise DataError(f"{where}: {_lacks(lacking[0], table.columns)}")
