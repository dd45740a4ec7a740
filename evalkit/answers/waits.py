"""How long a server asks to be left alone: in headers, in words, or by when its limit resets."""

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
_ALL_PARTS = re.compile(rf"(?:{_PART}[\s,]*)+", re.IGNORECASE)
_IN_WORDS = re.compile(
    rf"(?:again|retry(?:ing)?|wait|resets?|available)\W+(?:(?:in|after|for|again|about|at least|another)\W+){{0,3}}"
    rf"((?:{_PART}(?:[\s,]|and)*)+)",
    re.IGNORECASE,
)
_RESET = re.compile(r"(?:x-|[a-z]+-)?ratelimit-(?:.+-)?reset(?:-.+)?")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def seconds_asked(
    headers: Mapping[str, str], words: str = "", *, status: int = 429
) -> float | None:
    """Seconds the server asks to wait: `retry-after-ms` or `retry-after`, its words, or when its limit resets.

    Many servers tell the state of their limits with every reply: with another status than 429 it counts only when nothing
    is left.

    Example:
        >>> seconds_asked({}, "Please try again in 1m30s."), seconds_asked({"retry-after-ms": "350"})
        (90.0, 0.35)
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if (ms := _number(headers.get(name))) is not None:
            return max(0.0, ms / 1000)
    if (asked := _seconds(headers.get("retry-after") or "")) is not None:
        return asked
    if (asked := seconds_in_words(words)) is not None:
        return asked
    lower = {name.lower(): value for name, value in headers.items()}
    return _until_reset(lower, is_limited=status == 429)


def seconds_in_words(words: str) -> float | None:
    """Seconds from "try again in 4.1s", "retry after 43 seconds", "wait 1m30s"; None where nothing of the kind stands."""
    found = _IN_WORDS.search(words)
    return _sum(found[1]) if found else None


def _until_reset(headers: Mapping[str, str], *, is_limited: bool) -> float | None:
    """Of several limits (requests, tokens) the used-up ones count, the last of them; else the one that resets first."""
    told = [
        (_number(headers.get(name.replace("reset", "remaining"))), _seconds(value))
        for name, value in headers.items()
        if _RESET.fullmatch(name)
    ]
    limits = [*told, *_combined(headers.get("ratelimit", ""))]
    resets = [(left, asked) for left, asked in limits if asked is not None]
    spent = [asked for left, asked in resets if left == 0]
    if not resets or not (spent or is_limited):
        return None
    found = max(spent) if spent else min(asked for _, asked in resets)
    return min(found, _RESET_AT_MOST_S)


def _combined(header: str) -> Iterator[tuple[float | None, float | None]]:
    """Of each limit in one header what is left of it, and the seconds until it resets.

    Source: draft-ietf-httpapi-ratelimit-headers: `"default";r=50;t=30, "daily";r=0;t=900`, and of one limit, before its
    version 08, `limit=100, remaining=50, reset=30`.
    """
    text = _QUOTED.sub("", header.lower())
    for limit in [text] if "reset" in text else text.split(","):
        said = dict(re.findall(r"([a-z]+)\s*=\s*([\d.]+)", limit))
        left, reset = said.get("remaining", said.get("r")), said.get("reset", said.get("t"))
        yield _number(left), _seconds(reset or "")


def _seconds(text: str) -> float | None:
    """A number of seconds, a time of day (as seconds or milliseconds since 1970, ISO or HTTP date), or "6m0s"."""
    now = datetime.now(UTC)
    if (number := _number(text)) is not None:
        since_1970 = number / 1000 if number > 1e11 else number
        return max(0.0, since_1970 - now.timestamp() if since_1970 > 1e9 else number)
    if _ALL_PARTS.fullmatch(text.strip()):
        return _sum(text)
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = read(text.strip())
        except ValueError:
            continue
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
    return None


def _sum(text: str) -> float:
    parts = [(float(number), unit.lower()) for number, unit in _PARTS.findall(text)]
    short = ["ms" if unit.startswith(("ms", "milli")) else unit[0] for _, unit in parts]
    return sum(n * _UNITS[unit] for (n, _), unit in zip(parts, short, strict=True))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
