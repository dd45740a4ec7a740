"""How long a server asks to be left alone: in its headers, or in the words of its refusal."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_RESET_AT_MOST_S = 60.0  # a limit often resets little by little: to be whole again takes longer than to let one through
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = (
    r"(\d+(?:\.\d+)?)\s*"
    r"(ms|milliseconds?|msecs?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z])"
)
_PARTS = re.compile(_PART, re.IGNORECASE)
_WHOLE = re.compile(rf"(?:{_PART}[\s,]*)+", re.IGNORECASE)
_IN_WORDS = re.compile(
    rf"(?:again|retry(?:ing)?|wait|resets?|available)\W+(?:(?:in|after|for|again|about|at least|another)\W+){{0,3}}"
    rf"((?:{_PART}(?:[\s,]|and)*)+)",
    re.IGNORECASE,
)
_RESET = re.compile(r"(?:x-|[a-z]+-)?ratelimit-(?:(?P<before>.+)-)?reset(?:-(?P<after>.+))?")


def seconds_asked(headers: Mapping[str, str], words: str = "") -> float | None:
    """Seconds the server asks to wait: `retry-after-ms`, `retry-after`, its words, or when its limit resets.

    Example:
        >>> seconds_asked({}, "Please try again in 1m30s."), seconds_asked({"retry-after-ms": "350"})
        (90.0, 0.35)
    """
    if (ms := _number(headers.get("retry-after-ms"))) is not None:
        return max(0.0, ms / 1000)
    text = headers.get("retry-after")
    if text and (asked := _seconds(text)) is not None:
        return asked
    if (asked := seconds_in_words(words)) is not None:
        return asked
    return _until_reset(headers)


def seconds_in_words(words: str) -> float | None:
    """Seconds from "try again in 4.1s", "retry after 43 seconds", "wait 1m30s"; None where nothing of the kind stands."""
    found = _IN_WORDS.search(words)
    return _sum(found[1]) if found else None


def _until_reset(headers: Mapping[str, str]) -> float | None:
    """Of several limits (requests, tokens) the used-up ones count, the last of them; else the one that resets first."""
    lower = {name.lower(): value for name, value in headers.items()}
    resets = dict(_resets(lower))
    spent = [asked for name, asked in resets.items() if _is_spent(lower, name)]
    found = max(spent) if spent else min(resets.values(), default=None)
    return None if found is None else min(found, _RESET_AT_MOST_S)


def _resets(headers: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for name, value in headers.items():
        if _RESET.fullmatch(name) and (asked := _seconds(value)) is not None:
            yield name, asked


def _is_spent(headers: Mapping[str, str], reset: str) -> bool:
    return _number(headers.get(reset.replace("reset", "remaining"))) == 0


def _seconds(text: str) -> float | None:
    """A number of seconds, a time of day (as seconds or milliseconds since 1970, ISO or HTTP date), or "6m0s"."""
    now = datetime.now(UTC)
    if (number := _number(text)) is not None:
        since_1970 = number / 1000 if number > 1e11 else number
        return max(0.0, since_1970 - now.timestamp() if since_1970 > 1e9 else number)
    if _WHOLE.fullmatch(text.strip()):
        return _sum(text)
    at = _date(text)
    return (
        None
        if at is None
        else max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
    )


def _date(text: str) -> datetime | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            return read(text.strip())
        except ValueError:
            continue
    return None


def _sum(text: str) -> float:
    parts = _PARTS.findall(text)
    return sum(float(number) * _UNITS[_unit(name.lower())] for number, name in parts)


def _unit(name: str) -> str:
    return "ms" if name.startswith(("ms", "milli")) else name[0]


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
