"""Exposures and outcomes as a warehouse keeps them: its names become the log's, within the engine that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from evalkit.abtest.analysis import Log
from evalkit.abtest.user_table import lacks, number
from evalkit.errors import DataError

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
    exposures = _named(log.exposures, given, f"{log.where}: exposures")
    told = f"{log.where}: outcomes"
    there = set(log.outcomes.columns)
    of_outcomes = {
        ours: theirs
        for ours, theirs in given.items()
        if theirs in there or (ours in ("user_id", "at_s") and ours not in there)
    }
    outcomes = _named(log.outcomes, of_outcomes, told)
    if values and not _LONG & set(outcomes.columns):
        outcomes = reduce(
            lambda one, other: one.union(other),
            [_measured(outcomes, name, told) for name in dict.fromkeys(values)],
        )
    return replace(log, exposures=exposures, outcomes=outcomes)


def _named(table: Any, given: Mapping[str, str], where: str) -> Any:
    """The table with its columns renamed; another column that has one of the kit's names makes room."""
    _refuse_lacking(given.values(), table, where)
    changed = {ours: theirs for ours, theirs in given.items() if ours != theirs}
    return table.drop(*(one for one in changed if one in table.columns)).rename(changed)


def _measured(table: Any, name: str, where: str) -> Any:
    """One column of outcomes as rows of the log: what is missing is no outcome."""
    import ibis

    _refuse_lacking([*_KEPT[:2], name], table, where)
    rows = table.mutate(metric=ibis.literal(name), value=number(table, name, where))
    kept = [one for one in _KEPT if one in table.columns]
    return rows.filter(rows.value.notnull()).select(*kept, "metric", "value")


def _refuse_lacking(named: Any, table: Any, where: str) -> None:
    if lacking := [one for one in named if one not in table.columns]:
        raise DataError(f"{where}: {lacks(lacking[0], table.columns)}")
