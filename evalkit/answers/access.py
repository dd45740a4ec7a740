"""What the calls of a run share of account and server: how many may be under way, who waits how long, who probes."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import uniform

_PROBE_EVERY_S = 15.0  # at the longest: a server that is back should not stand idle
_SPREAD = 0.25  # of a wait the server asked for, on top: those it asked must not come back as one


class Access:
    """Who may call now: the places for calls under way, fewer when the server limits them, one at a time while it is away.

    A rate limit is a state of the account, an outage one of the server; all calls of a run share both.

    The number of places follows DCTCP (RFC 8257, section 3.3): an answer adds 1/places, a refusal for the rate takes one
    half, so that a round of refusals halves them and a round of answers adds one; one refusal in twenty costs nothing.

    Attributes:
        limit: Places at present.
        n_answered: Replies that are neither a refusal for the rate nor a sign that the server is away.
        answered_at: When the last of them came (monotonic).
        waited_s: Seconds for which nothing was answered, in all.
    """

    def __init__(
        self, size: int, *, patience_s: float, wait_initial_s: float, wait_max_s: float
    ) -> None:
        """`size` places; after `patience_s` without an answer it is `exhausted`."""
        self._size, self._patience_s = size, patience_s
        self._wait_initial_s, self._wait_max_s = wait_initial_s, wait_max_s
        self.limit, self._in_use = float(size), 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._probing, self._back = asyncio.Lock(), asyncio.Event()
        self._back.set()
        self.n_answered, self.answered_at, self.waited_s = 0, -math.inf, 0.0
        self._why, self._quiet_since = "", math.inf
        self._n_probes, self._failed_at, self._probe_at = 0, -math.inf, -math.inf

    @asynccontextmanager
    async def place(self, *, in_front: bool) -> AsyncIterator[None]:
        """A place for one call, in the order of asking; `in_front` for one that had a place before."""
        if self._in_use < int(self.limit):
            self._in_use += 1
        else:
            await self._queued(in_front)
        try:
            yield
        finally:
            self._in_use -= 1
            self._admit()

    @asynccontextmanager
    async def alone_while_away(self) -> AsyncIterator[None]:
        """Lets calls through while the server is there, else one at a time, each after a pause: the probes."""
        if not self._back.is_set():
            async with self._probing:
                pause_s = max(self._probe_at - time.monotonic(), 0.0)
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(pause_s, max(self._left_s, 0.0))):
                        await self._back.wait()
                if not self._back.is_set():
                    yield
                    return
        yield

    def replied(self, *, is_answer: bool) -> None:
        """The server is there and does not limit us."""
        self.n_answered, self.answered_at = self.n_answered + 1, time.monotonic()
        if self.quiet_s >= 1:
            self.waited_s += self.quiet_s
        self._quiet_since, self._n_probes = math.inf, 0
        self._back.set()
        if is_answer:
            self.limit = min(float(self._size), self.limit + 1 / self.limit)
            self._admit()

    def limited(self) -> None:
        """The server is there but refused a call for the rate."""
        self._quiet("rate limited", time.monotonic())
        self._back.set()
        self.limit = max(1.0, self.limit - 0.5)

    def unanswered(self, why: str, begun: float, wait_s: float | None) -> bool:
        """Whether the server is away: a call begun then failed, and nothing was answered since."""
        if self.answered_at > begun:
            return False
        self._quiet(why, begun)
        self._back.clear()
        if begun > self._failed_at:  # those that were under way together are one failure
            self._failed_at, self._n_probes = time.monotonic(), self._n_probes + 1
            pause_s = min(self.pause_s(self._n_probes, None), _PROBE_EVERY_S)
            self._probe_at = self._failed_at + max(pause_s, wait_s or 0.0)
        return True

    def pause_s(self, n: int, asked_s: float | None) -> float:
        """Seconds to wait after the n-th failure: what the server asked for, else a growing back-off with full jitter."""
        backoff_s = min(self._wait_max_s, self._wait_initial_s * 2 ** min(n - 1, 30))
        if not asked_s:
            return uniform(0, backoff_s)
        return max(asked_s, backoff_s) * (1 + uniform(0, _SPREAD))

    @property
    def is_scarce(self) -> bool:
        """Whether so many calls were refused for the rate that a call keeps its place while it waits."""
        return self.limit < max(2.0, self._size / 2)

    @property
    def quiet_s(self) -> float:
        """Seconds since the first failure after the last answer."""
        return max(time.monotonic() - self._quiet_since, 0.0)

    @property
    def exhausted(self) -> bool:
        """Whether nothing was answered for too long; a server that seems away is asked at least once more."""
        return self._n_probes != 1 and self._left_s <= 0

    def __str__(self) -> str:
        """What we wait for and for how long, "" when calls are answered."""
        return f"{self._why} for {self.quiet_s:,.0f} s" if self.quiet_s >= 0.5 else ""

    @property
    def _left_s(self) -> float:
        return self._patience_s - self.quiet_s

    def _quiet(self, why: str, since: float) -> None:
        self._why = why
        self._quiet_since = min(self._quiet_since, max(since, self.answered_at))

    async def _queued(self, in_front: bool) -> None:
        place = asyncio.get_running_loop().create_future()
        self._queue.insert(0 if in_front else len(self._queue), place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # given a place in the same moment
                self._in_use -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._queue and self._in_use < int(self.limit):
            if not (place := self._queue.popleft()).done():
                self._in_use += 1
                place.set_result(None)


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
    is left, and with 429 only when nothing is said to be left.

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
    """Of several limits (requests, tokens) the used-up ones count, the last of them.

    Else, when the rate was refused, the one that resets first: but none of which something is left, for what refused the
    call is another limit then, such as one of calls under way, which ends long before that one resets.
    """
    told = [
        (_number(headers.get(name.replace("reset", "remaining"))), _seconds(value))
        for name, value in headers.items()
        if _RESET.fullmatch(name)
    ]
    limits = [*told, *_combined(headers.get("ratelimit", ""))]
    resets = [(left, asked) for left, asked in limits if asked is not None]
    spent = [asked for left, asked in resets if left == 0]
    unknown = [asked for left, asked in resets if left is None] if is_limited else []
    if not spent and not unknown:
        return None
    found = max(spent) if spent else min(unknown)
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
