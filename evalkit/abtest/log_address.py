"""Where an event log is: a file, a URL or the name of an environment variable that holds one; and how it is told."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from evalkit.errors import DataError, DesignError
from evalkit.redaction import passwords_in
from evalkit.settings import VARIABLE, is_elsewhere
from evalkit.study import Study

if TYPE_CHECKING:
    import sqlalchemy as sa

_NEED = "need a file or folder of the study, postgresql://host/database, or the name of an environment variable with a URL"


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
