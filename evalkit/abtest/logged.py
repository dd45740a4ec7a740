"""The event log without its database: what a row holds, where the log is, and how that place is told.

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
import os
import re
import uuid
from dataclasses import dataclass, fields
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from evalkit.errors import DataError, DesignError
from evalkit.records import Outcome
from evalkit.redaction import passwords_in
from evalkit.settings import VARIABLE, is_elsewhere
from evalkit.study import Study

if TYPE_CHECKING:
    import sqlalchemy as sa


DAY_S = 86400.0
_NEED = "need a file or folder of the study, postgresql://host/database, or the name of an environment variable with a URL"


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
