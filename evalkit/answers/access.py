"""The state of an account and its server, which all calls of a run share: how many may be under way, who waits, who probes."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
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
