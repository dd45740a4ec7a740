"""The event log's rows and tables.

`exposures`, one row a request, committed before the caller gets the answer:

| column | type | meaning |
|---|---|---|
| request_id | text, primary key | the caller's, or a fresh one |
| experiment | text | the plan's experiment name |
| phase | integer | 1, and one more for each change of the split |
| user_id | text | as given, or hashed with the log's salt |
| variant | text | "control" or "treatment", as assigned |
| model | text | the model that gave the answer |
| at_s | double | UTC, seconds since 1970 |
| latency_ms | double | around the model call(s) only |
| outcome | text | ok, error, refused, truncated, empty, oversized |
| error | text or null | what failed, also when a fallback answered |
| fallback | boolean | the control model answered for a failed treatment |
| prompt_tokens, completion_tokens | integer or null | as the endpoint counted |
| slice | text or null | a value to cut the result by |

`outcomes`, one row an event that followed:

| column | type | meaning |
|---|---|---|
| outcome_id | text, primary key | the caller's, or made from what the row says |
| experiment, user_id | text | copied from the exposure when a request is named |
| request_id | text or null | null: the event belongs to the user, not to one request |
| metric | text | what was measured, e.g. "accepted" |
| value | double | 0 or 1 for a rate, a number otherwise |
| at_s | double | UTC, seconds since 1970 |

`log_meta` holds names and values about the log as a whole: `simulated` = "1" when its users are simulated.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from dataclasses import dataclass
from numbers import Real
from typing import Any

import sqlalchemy as sa

from evalkit.errors import DesignError
from evalkit.records import Outcome

TABLES = sa.MetaData()
EXPOSURES = sa.Table(
    "exposures",
    TABLES,
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("experiment", sa.Text, nullable=False),
    sa.Column("phase", sa.Integer, nullable=False),
    sa.Column("user_id", sa.Text, nullable=False),
    sa.Column("variant", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("at_s", sa.Double, nullable=False),
    sa.Column("latency_ms", sa.Double, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("fallback", sa.Boolean, nullable=False),
    sa.Column("prompt_tokens", sa.Integer),
    sa.Column("completion_tokens", sa.Integer),
    sa.Column("slice", sa.Text),
)
OUTCOMES = sa.Table(
    "outcomes",
    TABLES,
    sa.Column("outcome_id", sa.Text, primary_key=True),
    sa.Column("experiment", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text),
    sa.Column("user_id", sa.Text, nullable=False),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("at_s", sa.Double, nullable=False),
)
META = sa.Table(
    "log_meta",
    TABLES,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """One row of `exposures`; the module's docstring explains the columns."""

    request_id: str
    experiment: str
    user_id: str
    variant: str
    model: str
    at_s: float
    latency_ms: float
    phase: int = 1
    outcome: Outcome = "ok"
    error: str | None = None
    fallback: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    slice: str | None = None


def outcome_row(
    *,
    experiment: str,
    user_id: str,
    metric: str,
    value: float,
    at_s: float,
    request_id: str | None = None,
    outcome_id: str | None = None,
) -> dict[str, Any]:
    """One row of `outcomes`, its id made from what it says unless given; `user_id` is the stored one.

    Raises:
        DesignError: The value is not finite.
    """
    if not isinstance(value, Real) or not math.isfinite(value):
        raise DesignError(f"outcome {metric!r}: value {value!r} is not a finite number")
    named = (
        [experiment, request_id, metric]
        if request_id
        else [experiment, user_id, metric, float(value), at_s]
    )
    return {
        "outcome_id": outcome_id or hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32],
        "experiment": experiment,
        "request_id": request_id,
        "user_id": user_id,
        "metric": metric,
        "value": float(value),
        "at_s": at_s,
    }


def new_request_id() -> str:
    """A fresh request id."""
    return uuid.uuid4().hex
