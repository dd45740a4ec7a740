"""A reading, a plan and the ledger as tidy data frames; while an effect is withheld, what outcomes say is missing in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from evalkit.abtest.analysis import DAY_S, Table, quiet
from evalkit.abtest.assignment import VARIANTS
from evalkit.abtest.looks import Look
from evalkit.abtest.plan import ABPlan
from evalkit.stats import obrien_fleming_bounds

if TYPE_CHECKING:
    import pandas as pd

_SUMS = {
    "users": "n",
    "requests": "sum_x",
    "successes": "sum_y",
    "requests_squared": "sum_xx",
    "successes_requests": "sum_xy",
    "successes_squared": "sum_yy",
    "users_with_success": "n_hit",
    "users_with_failure": "n_miss",
}
_DAILY = ["day", "slice", "variant", "users", "requests", "successes"]


def sums(cells: pd.DataFrame | None, counts: pd.DataFrame | None) -> pd.DataFrame:
    """A row a variant: what the database summed over users.

    Args:
        cells: Sums a phase, variant and day; None while the effect is withheld.
        counts: Users and requests without any outcome, for that time.
    """
    import pandas as pd

    variants = pd.CategoricalIndex(VARIANTS, categories=VARIANTS, name="variant")
    found = pd.DataFrame(math.nan, index=variants, columns=list(_SUMS))
    known = _SUMS if cells is not None else {"users": "n", "requests": "requests"}
    table = counts if cells is None else cells
    if table is not None:
        treated = table["treated"].to_numpy()
        for name, column in known.items():
            values = table[column].to_numpy(dtype=float)
            found[name] = [values[treated == arm].sum() for arm in (0, 1)]
    return found.fillna({"users": 0.0}).astype({"users": "int64"})


def daily(
    cells: pd.DataFrame | None,
    slice_cells: Mapping[str, pd.DataFrame],
    counts: pd.DataFrame | None,
) -> pd.DataFrame:
    """A row a day, slice and variant; arguments as for `sums`."""
    import pandas as pd

    names = sorted(slice_cells)
    if names:
        parts = [_by_day(slice_cells[name], name) for name in names]
    else:
        parts = [
            _by_day(one, None)
            for one in (cells if cells is not None else counts,)
            if one is not None
        ]
    found: pd.DataFrame = pd.concat(parts) if parts else pd.DataFrame(columns=_DAILY)
    found = found.assign(
        day=pd.to_datetime(found["day"].astype(float) * DAY_S, unit="s", utc=True),
        slice=pd.Categorical(found["slice"], categories=names),
        variant=pd.Categorical(found["variant"], categories=VARIANTS),
        users=found["users"].astype("Int64"),
        requests=found["requests"].astype(float),
        successes=found["successes"].astype(float),
    ).reindex(columns=_DAILY)
    return found.sort_values(by=["day", "slice", "variant"], ignore_index=True)


def _by_day(table: pd.DataFrame, name: str | None) -> pd.DataFrame:
    import pandas as pd

    names = {"users": "n", "requests": "sum_x", "successes": "sum_y"}
    if "sum_y" not in table.columns:  # counts: no outcome has been looked at
        table = table.assign(sum_x=table["requests"], sum_y=float("nan"))
    by_day = table.groupby(["day", "treated"])
    found = pd.DataFrame({new: by_day[old].sum(min_count=1) for new, old in names.items()})
    found = found.reset_index()
    return found.assign(slice=name, variant=[VARIANTS[arm] for arm in found["treated"]])


def users(table: Table | None, *, timed: bool = True) -> Table:
    """Users as an Ibis table without any outcome; None gives an empty one.

    Args:
        table: From `Log.users`.
        timed: Whether the log knows times.
    """
    import ibis

    if table is None:
        kinds = {
            "user_id": "string",
            "variant": "string",
            "phase": "int64",
            "first_at_s": "float64",
            "requests": "int64",
            "in_both": "boolean",
        }
        with quiet():
            return ibis.memtable([], schema=ibis.schema(kinds))
    return table.select(
        "user_id",
        variant=(table.treated == 1).ifelse(VARIANTS[1], VARIANTS[0]),
        phase=table.phase,
        # not every engine makes a time of it
        first_at_s=table.first_at if timed else ibis.null("float64"),
        requests=table.n_rows,
        in_both=table.mixed == 1,
    )


def looks(found: Iterable[Look]) -> pd.DataFrame:
    """A row a look, oldest first."""
    import pandas as pd

    names = [one.name for one in fields(Look)]
    table = pd.DataFrame([asdict(one) for one in found], columns=names)
    kinds = dict.fromkeys(("effect_shown", "simulated"), "boolean")
    kinds |= dict.fromkeys(("look", "n_control", "n_treatment"), "Int64")
    kinds |= dict.fromkeys(("experiment", "verdict"), "category")
    kinds |= {"information": "float64"}
    return table.assign(at=pd.to_datetime(table["at"], utc=True)).astype(kinds)


def planned_looks(plan: ABPlan) -> pd.DataFrame:
    """A row a planned look."""
    import pandas as pd

    fractions = plan.look_fractions
    return pd.DataFrame(
        {
            "look": range(1, plan.looks + 1),
            "information": fractions,
            "n_control": [round(one * plan.n_control) for one in fractions],
            "n_treatment": [round(one * plan.n_treatment) for one in fractions],
            "z_limit": obrien_fleming_bounds(fractions, alpha=plan.alpha),
        }
    )
