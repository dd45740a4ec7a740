"""What is written down of the traffic: what each user was shown, and what came of it.

`exposures`, one row a request:

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
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from dataclasses import dataclass, fields
from numbers import Real

from evalkit.errors import DesignError
from evalkit.records import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """One row of `exposures`; the module's docstring explains the columns."""

    request_id: str
    experiment: str
    phase: int = 1
    user_id: str
    variant: str
    model: str
    at_s: float
    latency_ms: float
    outcome: Outcome = "ok"
    error: str | None = None
    fallback: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    slice: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """One row of `outcomes`, its id made from what it says unless given; `user_id` is the stored one."""

    outcome_id: str = ""
    experiment: str
    request_id: str | None = None
    user_id: str
    metric: str
    value: float
    at_s: float

    def __post_init__(self) -> None:
        """Makes the id.

        Raises:
            DesignError: The value is not finite.
        """
        if not isinstance(self.value, Real) or not math.isfinite(self.value):
            raise DesignError(
                f"outcome {self.metric!r}: value {self.value!r} is not a finite number"
            )
        object.__setattr__(self, "value", float(self.value))
        if self.outcome_id:
            return
        of_user = [self.experiment, self.user_id, self.metric, self.value, self.at_s]
        of_request = [self.experiment, self.request_id, self.metric]
        named = json.dumps(of_request if self.request_id else of_user)
        made = hashlib.sha256(named.encode()).hexdigest()[:32]
        object.__setattr__(self, "outcome_id", made)


TEXTS = {
    one.name
    for record in (Exposure, OutcomeRow)
    for one in fields(record)
    if str(one.type).partition(" | ")[0] in ("str", "Outcome")
}


def new_request_id() -> str:
    """A fresh request id."""
    return uuid.uuid4().hex
