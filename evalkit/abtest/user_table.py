"""A finished experiment as others hand it over: one table with a row a user, a variant and outcomes in columns, no times.

It becomes a log in which everybody came at one moment: sample ratio, users and effect hold, days do not exist.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from evalkit import wording
from evalkit.abtest.analysis import Column, Log, Table, fetched, quiet
from evalkit.abtest.assignment import VARIANTS
from evalkit.errors import DataError

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
    engine, rows = _read(path, columns)
    try:
        return _log(path, columns, engine, rows)
    except DataError:
        engine.disconnect()
        raise


def _read(path: Path, columns: Columns) -> tuple[Any, Table]:
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
        raise DataError(f"{path}: {lacks(lacking[0], table.columns)}")
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

    text = column.strip()
    text = text.isin(_MISSING).ifelse(None, text)
    truth = text.try_cast("boolean").cast("int32").cast("float64")
    value = ibis.coalesce(text.try_cast("float64"), truth)
    return value, (text.notnull() & value.isnull()).ifelse(text, None)


def _log(path: Path, columns: Columns, engine: Any, table: Table) -> Log:
    values = [*columns.outcomes, *columns.before]
    import ibis

    user = _named(table[columns.user]) if columns.user else ibis.row_number().cast("string")
    numbers = {f"y{place}": number(table, name, path) for place, name in enumerate(values)}
    with quiet():
        arms = _named(table[columns.variant])
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


def lacks(name: str, there: Iterable[str]) -> str:
    folded = {one.strip().casefold(): one for one in there}
    near = difflib.get_close_matches(name.strip().casefold(), folded, n=1)
    hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
    return f"no column {name!r}; it has {', '.join(map(repr, there))}{hint}"


def _named(column: Column) -> Column:
    """An id or a variant as text: 7 for 7.0, "true" for true, nothing for blanks."""
    if column.type().is_floating():
        whole = column.cast("int64").cast("string")
        column = (column == column.floor()).ifelse(whole, column.cast("string"))
    return column.cast("string").strip().nullif("")


def number(table: Table, name: str, path: Path | str) -> Column:
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
