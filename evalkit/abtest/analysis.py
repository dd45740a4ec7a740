"""The event log as sums: each query runs in the engine that holds the log, and a few numbers a day and variant come back.

With `source`, the only door to Ibis. A log is reduced per user first and joined after. A user's variant, phase and day are
those of the first exposure (intention to treat); what counts lies between it and the end of that user's outcome window.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from evalkit.abtest.assignment import VARIANTS, Column
from evalkit.abtest.plan import DAY_S
from evalkit.abtest.routing import TEXTS
from evalkit.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from ibis import BaseBackend


Table: TypeAlias = Any  # of Ibis: which columns it has is known when the query runs
Cap: TypeAlias = tuple[Literal["x", "y"], float]  # which sum of a user is cut, and to what
KEYS = ("phase", "treated", "day")
_NEEDED = {
    "exposures": ("user_id", "variant", "at_s"),
    "outcomes": ("user_id", "metric", "value", "at_s"),
}
_READ_AS_TEXT = TEXTS - {"model", "outcome_id"}  # a model called 3.5 is no id with a gap beside it
BIN = 0.002  # histogram bins of latency are 0.2% wide
TALLIED = ("found", "over", "within", "before", "joined")
_FINE_S, _COARSE_S = 60.0, 86400.0  # bins of a lag: minutes up to two days, then days
_ENDLESS = 1e300
_LATEST_S = 1e11  # the year 5138: a larger time is in milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something unusual about a log or its outcomes, as a kind and numbers.

    Attributes:
        kind: What it is; `show.log_notes` says it.
        n: Rows, users or outcomes that it concerns, of `of`; by variant where that is known.
        names: What they are called, with how often each is there.
        about: The metric or the variant that it concerns.
    """

    kind: str
    n: int = 0
    of: int = 0
    by_variant: tuple[int, ...] = ()
    names: Mapping[str, int] = field(default_factory=dict)
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Exposures and outcomes of any experiments as Ibis tables of any engine.

    Attributes:
        exposures: One row a request; needs user_id, variant and at_s, the other columns of the log when there.
        outcomes: One row an event; needs user_id, metric, value and at_s.
        simulated: True when the log says that its users are simulated.
        where: What to call it in messages.
        engine: The Ibis connection to close; None when the tables came from elsewhere.
        timed: False where no times are known: everybody came at one moment, and nothing is shown by day.
        notes: What a reader must know of how it was made.
    """

    exposures: Table
    outcomes: Table
    simulated: bool = False
    where: str = "the log"
    engine: BaseBackend | None = None
    timed: bool = True
    notes: tuple[Note, ...] = ()

    def close(self) -> None:
        """Gives the connection back, when `open_log` made it."""
        if self.engine is not None:
            self.engine.disconnect()

    def users(self, experiment: str, *, window_s: float = math.inf, kept: bool = True) -> Users:
        """The users of an experiment.

        Args:
            experiment: Its name.
            window_s: Length of a user's outcome window.
            kept: The engine keeps them while the result is in use, for every other query starts from them.
        """
        rows = self.exposed(experiment)
        control, treated = rows.variant == "control", rows.variant == "treatment"
        # few sums: their state for every user is what takes the memory
        users = rows.group_by("user_id").agg(
            first_control=control.ifelse(rows.at_s, None).min(),
            first_treated=treated.ifelse(rows.at_s, None).min(),
            n_rows=rows.count(),
            phase=rows.phase.min() if "phase" in rows.columns else rows.count() * 0 + 1,
            known=_ones((control | treated) & _is_finite(rows.at_s)).min(),
        )
        is_treated = users.first_control.isnull() | (users.first_treated < users.first_control)
        first_at = is_treated.ifelse(users.first_treated, users.first_control)
        users = users.mutate(first_at=first_at)
        day = _is_finite(users.first_at).ifelse((users.first_at / DAY_S).floor(), None)
        table = users.select(
            "user_id",
            "first_at",
            "n_rows",
            phase=users.phase.cast("int64"),
            treated=_ones(is_treated),
            mixed=_ones(users.first_control.notnull() & users.first_treated.notnull()),
            unknown=1 - users.known,
            day=day.cast("int64"),
        )
        with quiet():
            table = table.cache() if kept else table
        return Users(log=self, experiment=experiment, table=table, window_s=window_s)

    def answered(self, experiment: str) -> Table:
        """A query for requests per variant and model, the most frequent first, at most a hundred rows of `n`.

        `total` counts all rows. Answers that a fallback gave for a failed model are left out; `model` is null where the log
        names none.
        """
        import ibis

        rows = self.rows("exposures", experiment)
        if "fallback" in rows.columns:
            rows = rows.filter(~rows.fallback.cast("boolean").fill_null(False))
        model = rows.model.cast("string") if "model" in rows.columns else ibis.null("string")
        rows = rows.mutate(model=model)
        found = rows.group_by(["variant", "model"]).agg(n=rows.count())
        found = found.mutate(total=found.n.sum().over())
        return found.order_by(ibis.desc("n"), "variant").limit(100)

    def recorded(self, experiment: str) -> Table:
        """A query for outcomes, `n`, by the name of their metric."""
        rows = self.rows("outcomes", experiment)
        found = rows.group_by("metric").agg(n=rows.count())
        return found.filter(found.metric != "")

    def rows(self, name: Literal["exposures", "outcomes"], experiment: str) -> Table:
        """Rows of an experiment, in columns of the log's own types: ids are text, times seconds, counts numbers.

        Raises:
            DataError: A column is not there, or text where a number is needed.
        """
        table: Table = getattr(self, name)
        if missing := [column for column in _NEEDED[name] if column not in table.columns]:
            raise DataError(
                f"{self.where}: {name} lacks the columns {', '.join(missing)}; it has {', '.join(table.columns)}"
            )
        needs = {"at_s": "seconds since 1970 or a timestamp", "value": "a number"}
        made: dict[str, Column] = {}
        for column, kind in table.schema().items():
            if column in needs and kind.is_string():
                raise DataError(f"{self.where}: {name}.{column} is text; need {needs[column]}")
            if column in _READ_AS_TEXT and not kind.is_string():
                made[column] = text(table[column])
            elif column in ("value", "latency_ms") and not kind.is_floating():
                made[column] = _float(table[column])
            elif column == "at_s" and not kind.is_numeric():
                made[column] = _seconds(table[column])
        table = table.mutate(**made)
        if "experiment" not in table.columns:
            return table
        return table.filter(table.experiment == experiment)

    def exposed(self, experiment: str) -> Table:
        """Exposures to one of the two variants; `answered` counts what else is there."""
        rows = self.rows("exposures", experiment)
        return rows.filter(rows.variant.isin(VARIANTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """The users of one experiment in a log, and what is asked of them.

    Attributes:
        table: One row a user: first exposure, its variant, phase and UTC day, requests in all, whether seen in both variants.
        window_s: Length of a user's outcome window.
    """

    log: Log
    experiment: str
    table: Table
    window_s: float = math.inf

    def until(self, day: int) -> Users:
        """Those who came until that day."""
        return replace(self, table=self.table.filter(self.table.day <= day))

    def counts(self) -> pd.DataFrame:
        """Users, users seen in both variants and requests, per phase, variant and day of first exposure.

        Raises:
            DataError: Rows without a user or a time, or with a variant that is neither control nor treatment.
        """
        users = self.table
        found = users.group_by(list(KEYS)).agg(
            n=users.count(),
            mixed=users.mixed.sum(),
            requests=users.n_rows.sum(),
            unknown=users.unknown.sum(),
            nobody=_ones(users.user_id.isnull() | (users.user_id == "")).sum(),
            first_at=users.first_at.min(),
            last_at=users.first_at.max(),
        )
        table, where = _sorted(found), self.log.where
        repair = {
            "unknown": "no time, or a variant other than control and treatment",
            "nobody": "no user_id",
        }
        for column, what in repair.items():
            if table[column].to_numpy().sum() > 0:
                raise DataError(
                    f"{where}: exposures hold rows with {what}; repair them and read again"
                )
        latest = float(table["last_at"].to_numpy(dtype=float).max(initial=0.0))
        if latest > _LATEST_S:
            raise DataError(
                f"{where}: exposures.at_s reaches {latest:g}; need seconds since 1970, not ms"
            )
        return table.drop(columns=[*repair])

    def cells(self, metric: str, *, before: Table = None, cap: Cap | None = None) -> pd.DataFrame:
        """The result of `cells_query`; `checked` looks at what no test could read."""
        return _sorted(self.cells_query(metric, before=before, cap=cap))

    def cells_query(self, metric: str, *, before: Table = None, cap: Cap | None = None) -> Table:
        """Per phase, variant and day the sums of x and y, one term a user: y = summed outcome, 0 for a user without any.

        `n_found` counts users with an outcome: none at all means that the metric was never recorded, not that it is 0.
        `n_within`, `n_before` and `n_joined` count their outcomes: within the window, before the first exposure, at any time.

        Args:
            metric: The outcome's name.
            before: Table of user_id and value from before the experiment: x is its mean, and the usual one for users not
                in it. Otherwise x is the user's requests.
            cap: ("y", most) cuts a user's y; ("x", most) a user's x, and y with it in proportion.
        """
        usual = 0.0
        if before is not None:
            rows = _as_table(before)
            rows = rows.select(user_id=text(rows.user_id), value=_float(rows.value))
            known = rows.group_by("user_id").agg(x=rows.value.mean())
            usual = float(fetched(known.x.mean()) or 0.0)
        elif math.isfinite(self.window_s):
            rows = self._windowed(self._exposed())
            known = rows.group_by("user_id").agg(x=rows.count())
        else:
            known = self.table.select("user_id", x=self.table.n_rows)
        joined = self.table.left_join(known, "user_id").left_join(self._tallied(metric), "user_id")
        cells = joined.select(
            *KEYS,
            x=_number(joined.x, usual),
            y=_number(joined.y),
            found=_ones(joined.y.notnull()),
            **{name: joined[name].fill_null(0) for name in ("within", "before", "joined")},
        )
        cells = cells.mutate(over=_ones((cells.y > cells.x + 1e-9) | (cells.y < 0)))
        if cap and cap[0] == "y":
            over = cells.y.between(cap[1], _ENDLESS)  # what is infinite stays so, for `checked`
            cells = cells.mutate(y=over.ifelse(cap[1], cells.y))
        elif cap:
            over = cells.x > cap[1]
            y = over.ifelse(cells.y * cap[1] / cells.x, cells.y)
            cells = cells.mutate(x=over.ifelse(cap[1], cells.x), y=y)
        return _sums(cells)

    def checked(self, cells: pd.DataFrame, metric: str, *, is_rate: bool) -> pd.DataFrame:
        """The cells of a metric, once it is sure that they can be read.

        Raises:
            DataError: A value is not finite, or a user has more successes than requests where y is a part of x.
        """
        told = f"{self.log.where}: {metric!r}"
        if not math.isfinite(cells[["sum_x", "sum_y"]].to_numpy(dtype=float).sum()):
            raise DataError(f"{told}: outcomes hold values that are no finite numbers; repair them")
        if is_rate and (n_over := int(cells["n_over"].to_numpy().sum())):
            raise DataError(
                f"{told} is no rate for {n_over} users: their values add up to less than 0 or to more than their requests; "
                f"remove outcomes recorded twice, or plan it as a mean or ratio"
            )
        return cells

    def exposure_cells(self, name: str) -> pd.DataFrame | None:
        """As `cells`, of requests (x) and what the exposures themselves say (y); None when they don't.

        Args:
            name: "error" (also when a fallback answered), another outcome such as "refused", or "latency_ms".
        """
        rows = self._exposed()
        if (name if name == "latency_ms" else "outcome") not in rows.columns:
            return None
        y = rows.latency_ms if name == "latency_ms" else _ones(rows.outcome == name)
        if name == "error" and "error" in rows.columns:
            y = _ones((rows.outcome == name) | rows.error.notnull())
        each = rows.group_by("user_id").agg(x=rows.count(), y=y.cast("float64").sum())
        # not an inner join: SQLite would start from the unindexed side
        joined = self.table.left_join(each, "user_id")
        return _sorted(_sums(joined.select(*KEYS, x=_number(joined.x), y=_number(joined.y))))

    def slice_cells(self, metric: str) -> dict[str, pd.DataFrame]:
        """The cells of each slice; outcomes find their slice through their request."""
        rows = self._windowed(self._exposed())
        rows = rows.filter(rows.slice.notnull())
        values = self._windowed(self._outcomes(metric))
        per_request = values.group_by("request_id").agg(value=values.value.sum())
        joined = rows.left_join(per_request, "request_id")
        each = joined.group_by(["user_id", "slice"]).agg(x=joined.count(), y=joined.value.sum())
        wide = self.table.left_join(each, "user_id")
        wide = wide.filter(wide.slice.notnull())
        wide = wide.select(*KEYS, "slice", x=_number(wide.x), y=_number(wide.y))
        keys = ("slice", *KEYS)
        by_slice = _sorted(_sums(wide, keys), keys).groupby("slice", sort=True)
        return {str(name): part.drop(columns="slice") for name, part in by_slice}

    def without_request(self, metric: str) -> int:
        """Outcomes of one metric that name no request, so that their slice is not known."""
        rows = self.log.rows("outcomes", self.experiment)
        rows = rows.filter(rows.metric == metric)
        if "request_id" in rows.columns:
            rows = rows.filter(rows.request_id.isnull() | (rows.request_id == ""))
        return int(fetched(rows.count()))

    def latency_histogram(self) -> pd.DataFrame | None:
        """Requests per phase, variant and latency bin; `ms` is a bin's upper edge. None without latencies."""
        if "latency_ms" not in self.log.exposures.columns:
            return None
        joined = self._latencies()
        joined = joined.mutate(bin=(joined.latency_ms.ln() / BIN).floor().cast("int64"))
        keys = ("phase", "treated", "bin")
        table = _sorted(joined.group_by(list(keys)).agg(n=joined.count()), keys)
        return table.assign(ms=[math.exp((bin_ + 1) * BIN) for bin_ in table["bin"]])

    def latency_cells(self, limits: Mapping[tuple[int, int], float]) -> pd.DataFrame:
        """Cells of x = requests and y = requests at or below the limit of their (phase, treated)."""
        import ibis

        joined = self._latencies()
        cases = [
            ((joined.phase == phase) & (joined.treated == treated), ms)
            for (phase, treated), ms in limits.items()
        ]
        joined = joined.mutate(below=_ones(joined.latency_ms < ibis.cases(*cases, else_=0.0)))
        each = joined.group_by(["user_id", *KEYS]).agg(x=joined.count(), y=joined.below.sum())
        return _sorted(_sums(each.select(*KEYS, x=_number(each.x), y=_number(each.y))))

    def lags(self, metric: str) -> Table:
        """A query for outcomes by `lag_s` after their user's first exposure, in bins of a minute, beyond two days of a day."""
        import ibis

        known = self._joined(self._outcomes(metric))
        lag = known.at_s - known.first_at
        fine = (lag / _FINE_S).floor() * _FINE_S
        coarse = (lag / _COARSE_S).floor() * _COARSE_S
        binned = known.mutate(lag_s=ibis.cases((lag.abs() < 2 * DAY_S, fine), else_=coarse))
        return binned.group_by("lag_s").agg(n=binned.count()).order_by("lag_s")

    def untimed(self, metric: str) -> Table:
        """A query for outcomes without a time."""
        rows = self._outcomes(metric)
        return rows.filter(rows.at_s.isnull()).count()

    def known_by_request(self, metric: str) -> Table:
        """A query for outcomes of a user whom nobody exposed, though their request was logged: under another user id."""
        of_user = self.table.select("user_id")
        strangers = self._outcomes(metric).anti_join(of_user, "user_id")
        known = self._exposed().select("request_id")
        return strangers.semi_join(known, "request_id").count()

    def past(self, metric: str) -> Table:
        """Each user's sum of one metric before the first exposure, 0 without any: user_id and value."""
        known = self._joined(self._outcomes(metric))
        known = known.filter(known.at_s < known.first_at)
        total = known.group_by("user_id").agg(value=known.value.sum())
        joined = self.table.left_join(total, "user_id")
        return joined.select("user_id", value=joined.value.fill_null(0.0))

    def after_exposure(self, before: Table) -> int:
        """Rows of a covariate that lie after their user's first exposure; 0 where it has no times."""
        table = _as_table(before)
        if "at_s" not in table.columns:
            return 0
        kinds = table.schema()
        at_s = table.at_s if kinds["at_s"].is_numeric() else _seconds(table.at_s)
        known = self._joined(table.select(user_id=text(table.user_id), at_s=at_s))
        return int(fetched(known.filter(known.at_s >= known.first_at).count()))

    def _exposed(self) -> Table:
        return self.log.exposed(self.experiment)

    def _latencies(self) -> Table:
        rows = self._exposed()
        rows = rows.filter(rows.latency_ms.notnull() & (rows.latency_ms > 0))
        users = self.table.select("user_id", *KEYS)
        return rows.select("user_id", "latency_ms").join(users, "user_id")

    def _outcomes(self, metric: str) -> Table:
        rows = self.log.rows("outcomes", self.experiment)
        # no value is no failure
        return rows.filter(rows.metric == metric).mutate(value=rows.value.fill_null(math.inf))

    def _joined(self, rows: Table) -> Table:
        return rows.join(self.table.select("user_id", "first_at"), "user_id")

    def _in_window(self, known: Table) -> Column:
        since = known.at_s >= known.first_at
        if not math.isfinite(self.window_s):
            return since
        return since & (known.at_s < known.first_at + self.window_s)

    def _windowed(self, rows: Table) -> Table:
        """Rows from their user's first exposure until the window closes."""
        known = self._joined(rows)
        return known.filter(self._in_window(known))

    def _tallied(self, metric: str) -> Table:
        """Per user the sum y within the window, and how many outcomes lay there, before it, or at any time."""
        known = self._joined(self._outcomes(metric))
        within = self._in_window(known)
        return known.group_by("user_id").agg(
            y=within.ifelse(known.value, None).sum(),
            within=_ones(within).sum(),
            before=_ones(known.at_s < known.first_at).sum(),
            joined=known.at_s.count(),
        )


def _as_table(frame: Table) -> Table:
    import ibis

    with quiet():
        return frame if isinstance(frame, ibis.Table) else ibis.memtable(frame)


def text(column: Column) -> Column:
    """Ids and names as text, whatever the column holds: 7 for 7.0, which a gap in the column made of it."""
    if column.type().is_floating():
        whole = column.cast("int64").cast("string")
        return (column == column.floor()).ifelse(whole, column.cast("string"))
    return column if column.type().is_string() else column.cast("string")


def _float(column: Column) -> Column:
    return (column.cast("int32") if column.type().is_boolean() else column).cast("float64")


def _seconds(column: Column) -> Column:
    """DuckDB has timestamps that Ibis does not know by name: those of pandas, in nanoseconds with a time zone."""
    if not column.type().is_timestamp():
        column = column.cast("timestamp('UTC')")
    return column.epoch_seconds().cast("float64")


@contextmanager
def quiet() -> Iterator[None]:
    """Ibis 12 still calls pandas 3 and DuckDB 2 by names that are on their way out."""
    with warnings.catch_warnings():
        for name in ("The 'future.infer_string' option", r"fetch_\w+\(\) is deprecated"):
            warnings.filterwarnings("ignore", name, DeprecationWarning)
        yield


def fetched(expression: Any) -> Any:
    """Runs a query."""
    with quiet():
        return expression.execute()


def _ones(flag: Column) -> Column:
    """1 where true, else 0: some engines don't add booleans up."""
    return flag.ifelse(1, 0)


def _is_finite(column: Column) -> Column:
    """False for NaN too, which the engines hold to be the largest number."""
    return column.abs() < _ENDLESS


def _number(column: Column, otherwise: float = 0.0) -> Column:
    return column.cast("float64").fill_null(otherwise)


def _sums(rows: Table, keys: Sequence[str] = KEYS) -> Table:
    x, y = rows.x, rows.y
    sums = {
        "sum_x": x.sum(),
        "sum_y": y.sum(),
        "sum_xx": (x * x).sum(),
        "sum_xy": (x * y).sum(),
        "sum_yy": (y * y).sum(),
        # what the test looks at before it trusts the sums: skewness, one user that outweighs the rest, few users with an event
        "sum_xxx": (x * x * x).sum(),
        "sum_xxy": (x * x * y).sum(),
        "sum_xyy": (x * y * y).sum(),
        "sum_yyy": (y * y * y).sum(),
        "max_x": x.max(),
        "max_y": y.max(),
        "min_y": y.min(),
        "n_hit": _ones(y > 0).sum(),
        "n_miss": _ones(y < x).sum(),
    }
    sums |= {f"n_{name}": rows[name].sum() for name in TALLIED if name in rows.columns}
    return rows.group_by(list(keys)).agg(n=rows.count(), **sums)


def _sorted(query: Table, keys: Sequence[str] = KEYS) -> pd.DataFrame:
    return fetched(query).sort_values(list(keys), ignore_index=True)
