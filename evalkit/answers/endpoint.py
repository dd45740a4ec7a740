"""An OpenAI-compatible endpoint: one call, one retry loop, what each fault means, and no key in any message."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from random import uniform
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient

from evalkit.answers import reply as replies
from evalkit.answers.evaluation import Parameters
from evalkit.errors import ModelError
from evalkit.records import Answer, Outcome
from evalkit.wording import known_secrets, told_by, without_secrets

ATTEMPTS = 6  # at 15% faults a call is lost once in 88,000
WAIT_MAX_S = 60.0  # of our own; without patience also the longest a server may ask for
MAX_TIMEOUTS = 3  # at 2% slow calls one is lost in 125,000; and a server that hangs costs three time-outs, not six
IMPATIENT_ATTEMPTS = 2  # after a call for which all attempts were in vain, until the next answer
_PROBE_EVERY_S = 15.0  # at the longest: a server that is back should not stand idle
_SPREAD = 0.25  # of a wait the server asked for, on top: those it asked must not come back as one
_STARVED = 10  # times the concurrency: so many others answered, and it is no bad luck any more
_ADDRESS = re.compile(r"https?://(\[[\da-fA-F:.]+\]|[^\s/@:?#\[\]]+)(:\d{1,5})?(/[^\s@]*)?")
_NO_KEY = "no-key-needed"  # sent when none is set: many local servers ask for none


@dataclass(slots=True)
class _Call:
    """What one row has been through.

    Attributes:
        n: Attempts made.
        n_failed: Those that speak against the row itself, the last of them at `failed_at`.
        limited_at: When it was first refused for the rate; `n_answered` others had been answered by then.
    """

    first: bool
    n: int = 0
    n_failed: int = 0
    n_timeouts: int = 0
    failed_at: float = -math.inf
    limited_at: float = math.inf
    n_answered: float = math.inf
    had_place: bool = False

    def after(self, said: str) -> str:
        """What is said of its last fault."""
        return f"{said} (after {self.n} attempts)" if self.n > 1 else said


class Endpoint:
    """One model behind an OpenAI-compatible address; `await endpoint.ask(messages)` never raises for one bad row.

    Address and key come from OPENAI_BASE_URL and OPENAI_API_KEY unless given.
    """

    def __init__(
        self,
        model: str,
        *,
        parameters: Parameters | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        attempts: int = ATTEMPTS,
        concurrency: int = 16,
        patience_s: float = 0.0,
        max_reply_mb: float = 4.0,
        wait_initial_s: float = 0.5,
    ) -> None:
        """Prepares the client; nothing is sent yet.

        Args:
            model: The name the server knows the model by.
            parameters: Sent with every call.
            base_url: Address up to and with `/v1`.
            api_key: Better left to the environment.
            timeout_s: Seconds one attempt may take in all.
            attempts: Attempts at one call, the first included.
            concurrency: Calls under way at once; fewer while the server limits their rate.
            patience_s: How long a rate limit or an outage is waited for, which then ends no row; 0: not at all.
            max_reply_mb: The largest reply, in millions of bytes, unpacked; a larger one is not read to its end.
            wait_initial_s: First pause between attempts; it doubles, with full jitter.

        Raises:
            ModelError: Neither key nor address is known.
        """
        self.model, self.parameters = model, parameters or Parameters()
        self._timeout_s, self._attempts = timeout_s, attempts
        self._n_asking, self._in_vain = 0, False
        self.access = Access(concurrency, patience_s=patience_s, wait_initial_s=wait_initial_s)
        key, address = key_and_address(api_key, base_url)
        self._secrets = known_secrets(key, address)
        self.host = urlsplit(address).hostname or address
        self._has_key, self._has_answered = key != _NO_KEY, False
        reading = partial(read_within, max_bytes=int(max_reply_mb * 1e6))
        self._client = AsyncOpenAI(
            api_key=key,
            base_url=address,
            max_retries=0,
            timeout=timeout_s,
            http_client=DefaultAioHttpClient(event_hooks={"response": [reading]}),
        )
        self._url = f"{address.rstrip('/')}/chat/completions"  # absolute: saves the SDK joining it for every call

    async def ask(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        request: Mapping[str, object] | None = None,
        first: bool = False,
    ) -> Answer:
        """Asks once, repeating what is worth repeating; `first` marks the call that finds out whether the endpoint works.

        Args:
            messages: The prompt.
            request: What this row adds to the request: tools and the like.
            first: Whether this is the call that finds out.

        Raises:
            ModelError: The endpoint cannot be used: key, model name, quota; nothing was answered for `patience_s`; with
                `first` also the address.
        """
        asked = self.parameters.call(self.model, messages, request)
        call = _Call(first=first)
        self._n_asking += 1
        try:
            while True:
                # where many are refused for the rate, a call keeps its place while it waits
                async with self.access.place(in_front=call.had_place):
                    found = await self._tried(asked, call)
                    if isinstance(found, Answer):
                        return found
                    if keeps_place := self.access.limit < max(2.0, self.access.size / 2):
                        await asyncio.sleep(found)
                if not keeps_place:
                    await asyncio.sleep(found)
        finally:
            self._n_asking -= 1

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def _tried(self, asked: Mapping[str, object], call: _Call) -> Answer | float:
        """One attempt: its answer, or the seconds to wait for another one."""
        async with self.access.alone_while_away():
            call.n, begun = call.n + 1, time.monotonic()
            reply, is_away = await self._reply(asked), False
            if isinstance(reply, Fault) and reply.kind in _AWAY:
                is_away = self.access.unanswered(_AWAY[reply.kind], begun, reply.wait_s)
            elif isinstance(reply, Fault) and reply.kind == "limited":
                self.access.limited()
            else:
                self.access.replied(is_answer=isinstance(reply, Answer))
        if isinstance(reply, Answer):
            return reply if call.n == 1 else replace(reply, attempts=call.n)
        if reply.kind == "end":
            # out here it drags no exception along that may hold the key
            raise ModelError(reply.said)
        outcome, reason = _LAST.get(reply.kind, ("error", None))
        lost = Answer(text="", outcome=outcome, finish_reason=reason, attempts=call.n)
        if reply.kind in _LAST:
            return replace(lost, error=reply.said)
        if self._is_over(call, reply, is_away=is_away):
            self._in_vain = True
            return replace(lost, error=call.after(reply.said))
        call.had_place = not is_away  # while the server is away each row has its turn to probe
        return 0.0 if is_away else self.access.pause_s(call.n, reply.wait_s)

    def _is_over(self, call: _Call, why: Fault, *, is_away: bool) -> bool:
        """Whether the row gets an error; a rate limit costs it no attempt, an outage two at most as it begins.

        Raises:
            ModelError: No row can be answered.
        """
        no_endpoint = "is OPENAI_BASE_URL right, and is the server running?"
        if call.first and why.kind == "unreachable" and call.n > 1:
            raise ModelError(f"{self.host}: {call.after(why.said)}; {no_endpoint}")
        waits = self.access.patience_s > 0 and (is_away or why.kind == "limited")
        longest_s = self.access.patience_s if waits else WAIT_MAX_S
        if why.wait_s and why.wait_s > longest_s:
            if not waits:
                return True
            later = "start again later to go on from what was answered"
            raise ModelError(f"{self.host}: {why.said}, patience_s is {longest_s:g}: {later}")
        others_fare_better = self.access.answered_at > call.failed_at
        if not waits or (why.kind not in {"limited", "unreachable"} and others_fare_better):
            call.n_failed, call.failed_at = call.n_failed + 1, time.monotonic()
            call.n_timeouts += why.kind == "timeout"
        attempts = min(self._attempts, IMPATIENT_ATTEMPTS) if self._in_vain else self._attempts
        if call.n_failed >= attempts or call.n_timeouts >= MAX_TIMEOUTS:
            if call.first and why.kind == "page":
                raise ModelError(f"{self.host}: {call.after(why.said)}; {no_endpoint}")
            return True
        return waits and self._waited_in_vain(call, why)

    def _waited_in_vain(self, call: _Call, why: Fault) -> bool:
        """Ends the run when patience does; a call that is alone, or alone refused, may itself be to blame and fails alone."""
        if self.access.exhausted:
            if not (call.first or why.kind == "unreachable" or self._n_asking > 1):
                return True
            raise ModelError(
                f"{self.host}: {self.access}, the last time: {why.said}; "
                f"given up after patience_s = {self.access.patience_s:g}: start again to go on from what was answered"
            )
        if why.kind != "limited":
            return False
        call.limited_at = min(call.limited_at, time.monotonic())
        call.n_answered = min(call.n_answered, self.access.n_answered)
        # others got through all the while: this row is too large for the limit
        n_others = self.access.n_answered - call.n_answered
        is_long = time.monotonic() - call.limited_at > self.access.patience_s
        return is_long and n_others > _STARVED * self.access.size

    async def _reply(self, asked: Mapping[str, object]) -> Answer | Fault:
        """One attempt: the answer, or what went wrong, without the SDK's exception."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._client.post(self._url, cast_to=object, body=asked)
            found = replies.answer(reply, strip_think=self.parameters.strip_think)
        except Exception as why:
            return self._fault(why)
        latency_ms = (time.perf_counter() - started) * 1000
        self._in_vain, self._has_answered = False, True
        kept = ("text", "thinking", "served_model", "finish_reason", "error")
        said = {name: getattr(found, name) for name in kept}
        safe = {name: one and without_secrets(one, self._secrets) for name, one in said.items()}
        return replace(found, **safe, latency_ms=round(latency_ms, 3))

    def _fault(self, why: Exception) -> Fault:
        """What an exception of the SDK means for the row, without its key and without its past."""
        if isinstance(why, openai.APIStatusError):
            return self._refusal(why)
        if isinstance(why, replies.NoAnswerError):
            return self._told(why)
        return self._unread(why)

    def _unread(self, why: Exception) -> Fault:
        """No reply, or one that could not be read."""
        causes = list[BaseException]([why])
        while (cause := causes[-1].__cause__) is not None:
            causes.append(cause)
        if too_large := next((one for one in causes if isinstance(one, TooLargeError)), None):
            return Fault(str(too_large), "oversized")
        unreadable = json.JSONDecodeError | UnicodeDecodeError | httpx2.DecodingError
        if any(isinstance(cause, unreadable) for cause in causes):
            return Fault("the reply is not JSON, or cannot be unpacked", "reply")
        if isinstance(why, TimeoutError) or isinstance(causes[-1], TimeoutError):
            return Fault(f"no answer within {self._timeout_s:g} s", "timeout")
        if isinstance(why, openai.APIConnectionError | aiohttp.ClientError | OSError):
            said = f"no connection ({type(causes[-1]).__name__}: {causes[-1]})"
            is_there = not any(isinstance(one, aiohttp.ClientConnectorError) for one in causes)
            return Fault(self._clean(said), "dropped" if is_there else "unreachable")
        return Fault(self._clean(f"{type(why).__name__}: {why}"), "row")

    def _told(self, why: replies.NoAnswerError) -> Fault:
        """An error inside an HTTP 200: sorted by the status and the names it tells, repeated when they are unknown."""
        message, names = self._clean(str(why)), why.names
        status = 429 if why.status is None and names & _LIMITED else why.status
        if status is None and not names & _CURELESS:
            return Fault(message, "page" if why.is_page else "reply")
        found = self._by_status(status or 400, names, message, replies.seconds_asked({}, message))
        if why.in_choice and found.kind == "end" and not names & _NO_QUOTA:
            # the model was found and had begun: the next row may go well
            return Fault(message, "row")
        return found

    def _refusal(self, why: openai.APIStatusError) -> Fault:
        status, names = why.status_code, {str(name) for name in (why.code, why.type) if name}
        message = f"{status}: {self._clean(replies.message_of(why.body, why.message))}"
        is_about = status in {400, 404, 422} or (status >= 500 and " requires --" in message)
        is_about = is_about and not names & (FILTERED | _NO_QUOTA | _TOO_LONG)
        if is_about and (told := replies.refused(message, self.parameters.body(), param=why.param)):
            told, others_went_well = f"{told} ({message})", self._has_answered
            is_row = others_went_well and not names & _WRONG_REQUEST
            return Fault(told, "row") if is_row else self._end(told)
        if status == 403 and _FLAGGED.search(message):
            return Fault(message, "filtered")  # this prompt, not this key
        wait_s = replies.seconds_asked(why.response.headers, message, status=status)
        return self._by_status(status, names, message, wait_s)

    def _by_status(
        self, status: int, names: set[str] | frozenset[str], message: str, wait_s: float | None
    ) -> Fault:
        says_so = status in {400, 403, 429} and replies.SPENT.search(message[:100])
        if names & _NO_QUOTA or (says_so and wait_s is None):
            said = f"{self.host}: no quota left ({message}); top it up and start again"
            return Fault(said, "end")
        if status in STOPS or names & _WRONG_REQUEST:
            what = STOPS.get(status, _REFUSED)
            if status == 401 and not self._has_key:
                what = "it wants a key, and OPENAI_API_KEY is not set"
            return self._end(f"{what} ({message})")
        if names & FILTERED:
            return Fault(message, "filtered")
        if status == 429 and _TOO_LARGE_FOR_THE_RATE.search(message):
            return Fault(message, "row")
        if status not in {408, 409, 425, 429} and status < 500:
            return Fault(message, "row")
        if wait_s:
            message = f"{message}; the server asks to wait {wait_s:g} s"
        kind = "limited" if status == 429 else "gone" if status in _GONE else "status"
        return Fault(message, kind, wait_s)

    def _end(self, said: str) -> Fault:
        return Fault(f"{self.host}: model {self.model!r}: {said}", "end")

    def _clean(self, text: str) -> str:
        """A message fit to be kept: secrets go first, then it is cut, lest half a key is left."""
        return told_by(text, self._secrets)


async def read_within(response: httpx2.Response, *, max_bytes: int) -> None:
    """Reads a reply before the client does, unpacked piece by piece; of an error's page only the beginning is kept.

    Raises:
        TooLargeError: An answer of more than `max_bytes`, unpacked; its connection is closed.
    """
    parts, n_bytes = [], 0
    async for part in response.aiter_bytes():
        n_bytes += len(part)
        if n_bytes > max_bytes:
            if response.is_success:
                length = response.headers.get("content-length", "")
                says_so = length.isdigit() and "content-encoding" not in response.headers
                known = f", {int(length) / 1e6:,.1f} MB" if says_so else ""
                raise TooLargeError(
                    f"the reply is larger than {max_bytes / 1e6:g} MB (max_reply_mb){known}; it was not read to its end"
                )
            break
        parts.append(part)
    response._content = b"".join(parts)  # what `aread` would set, so that it need not read


def key_and_address(api_key: str | None, base_url: str | None) -> tuple[str, str]:
    """Key and address as given, else from the environment.

    Raises:
        ModelError: Neither is known, or the address is none.
    """
    key = (api_key or os.environ.get("OPENAI_API_KEY", "")).strip()
    address = (base_url or os.environ.get("OPENAI_BASE_URL", "")).strip()
    if not key and not address:
        raise ModelError(
            "no endpoint: set OPENAI_API_KEY, and OPENAI_BASE_URL for a server other than OpenAI's"
        )
    if address and not _ADDRESS.fullmatch(address):
        raise ModelError(
            "OPENAI_BASE_URL is no address without user and password; need such as http://127.0.0.1:8080/v1, with the key in "
            "OPENAI_API_KEY"
        )
    return key or _NO_KEY, address or "https://api.openai.com/v1"


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

    def __init__(self, size: int, *, patience_s: float, wait_initial_s: float = 0.5) -> None:
        """`size` places; after `patience_s` without an answer it is `exhausted`."""
        self.size, self.patience_s, self._wait_initial_s = size, patience_s, wait_initial_s
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
            self.limit = min(float(self.size), self.limit + 1 / self.limit)
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
        backoff_s = min(WAIT_MAX_S, self._wait_initial_s * 2 ** min(n - 1, 30))
        if not asked_s:
            return uniform(0, backoff_s)
        return max(asked_s, backoff_s) * (1 + uniform(0, _SPREAD))

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
        return self.patience_s - self.quiet_s

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


_AWAY = {
    "unreachable": "no connection",
    "dropped": "no connection",
    "timeout": "no answer",
    "gone": "no answer",
}
_LAST: Mapping[str, tuple[Outcome, str | None]] = {
    "row": ("error", None),
    "filtered": ("refused", "content_filter"),
    "oversized": ("oversized", None),
}
_GONE = {502, 503, 504, 529, *range(520, 525)}  # what gateways say of a server behind them
_TOO_LARGE_FOR_THE_RATE = re.compile(
    r"request too large|reduce (?:the|your) (?:prompt|input)", re.I
)
STOPS = {
    401: "the key is not accepted, check OPENAI_API_KEY",
    402: "the account must be paid for",
    403: "this key may not use it",
    404: "not found, check the model's name; does OPENAI_BASE_URL end in /v1?",
}
_REFUSED = "request refused; a parameter set to None is left out, extra_body adds others"
_NO_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_FLAGGED = re.compile(r"flagged|moderation|content (?:policy|filter)|safety", re.IGNORECASE)
_WRONG_REQUEST = {"model_not_found", "invalid_model", "unknown_parameter"}
_WRONG_REQUEST |= {"unsupported_parameter", "unsupported_value"}
FILTERED = {"content_filter", "content_policy_violation"}
_TOO_LONG = {"context_length_exceeded", "string_above_max_length"}
_WRONG_ROW = {"invalid_request_error", "invalid_argument", "badrequesterror"}
_LIMITED = {"rate_limit_exceeded", "rate_limit_error", "rate_limited", "too_many_requests"}
_LIMITED |= {"resource_exhausted"}
_CURELESS = _NO_QUOTA | _WRONG_REQUEST | FILTERED | _TOO_LONG | _WRONG_ROW  # told without a status


@dataclass(frozen=True, slots=True)
class Fault:
    """An attempt without an answer.

    Attributes:
        said: What the row keeps of it; no key stands in it.
        kind: Worth repeating: limited, gone, unreachable, dropped, timeout, status, reply, page. Only this row fails: row,
            filtered, oversized. No row can be answered: end.
        wait_s: How long the server asks to wait.
    """

    said: str
    kind: str
    wait_s: float | None = None


class TooLargeError(Exception):
    """A reply went beyond the limit; the message says how large it is, as far as is known."""
