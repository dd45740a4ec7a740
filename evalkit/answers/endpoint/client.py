"""An OpenAI-compatible endpoint: one fast call, one retry loop, and no key in any message."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import openai
import stamina
from openai import AsyncOpenAI, DefaultAioHttpClient

from evalkit.answers.endpoint.parameters import Parameters
from evalkit.answers.endpoint.reply import NoAnswerError, answer
from evalkit.errors import ModelError
from evalkit.records import Answer
from evalkit.redaction import known_secrets, without_secrets
from evalkit.wording import cleaned, redacted

ATTEMPTS = 6  # at 15% faults a call is lost once in 88,000; about 15 s of patience with a server that is down
WAIT_MAX_S = 60.0
MAX_TIMEOUTS = 3  # at 2% slow calls one is lost in 125,000; and a server that hangs costs three time-outs, not six
IMPATIENT_ATTEMPTS = 2  # after a call for which all patience was in vain, until the next answer
_STOPS = {
    401: "the key is not accepted, check OPENAI_API_KEY",
    402: "the account must be paid for",
    403: "this key may not use it",
    404: "not found, check the model's name; does OPENAI_BASE_URL end in /v1?",
}
_LONGEST = 1000  # characters kept of a message
_NO_KEY = "no-key-needed"  # sent when none is set: many local servers ask for none
_NO_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_WRONG_REQUEST = {
    "model_not_found",
    "unsupported_parameter",
    "unsupported_value",
    "unknown_parameter",
    "invalid_model",
}
_FILTERED = {"content_filter", "content_policy_violation"}
_WRONG_ROW = {  # told inside an HTTP 200 without a status: no repeating cures them
    "context_length_exceeded",
    "string_above_max_length",
    "invalid_request_error",
    "invalid_argument",
    "badrequesterror",
}
_SORTED_NAMES = _NO_QUOTA | _WRONG_REQUEST | _FILTERED | _WRONG_ROW

logging.getLogger("stamina").addHandler(
    logging.NullHandler()
)  # retries are counted in the answers, not printed


class _TransientError(Exception):
    """An attempt worth repeating; `kind` is status, unreachable, dropped, timeout, reply or page."""

    def __init__(self, message: str, kind: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.wait_s = kind, wait_s


class _RowError(Exception):
    """An attempt not worth repeating; only this row fails."""


class _FilteredError(Exception):
    """The server's filter refused the prompt."""


@dataclass(slots=True)
class _Attempts:
    """How often one call was tried, and how often nothing came back in time."""

    first: bool
    n: int = 0
    n_timeouts: int = 0


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
        wait_initial_s: float = 0.5,
        wait_max_s: float = WAIT_MAX_S,
    ) -> None:
        """Prepares the client; nothing is sent yet.

        Args:
            model: The name the server knows the model by.
            parameters: Sent with every call.
            base_url: Address up to and with `/v1`.
            api_key: Better left to the environment.
            timeout_s: Seconds one attempt may take in all.
            attempts: Attempts at one call, the first included.
            wait_initial_s: First pause between attempts; it doubles, with jitter.
            wait_max_s: Longest pause, also when the server's Retry-After asks for more: then the row gets an error.

        Raises:
            ModelError: Neither key nor address is known.
        """
        self.model, self.parameters = model, parameters or Parameters()
        self._timeout_s, self._attempts = timeout_s, attempts
        self._wait_initial_s, self._wait_max_s, self._resume_at = wait_initial_s, wait_max_s, 0.0
        self._is_down = False
        self._key, address = _key_and_address(api_key, base_url)
        self._secrets = known_secrets(self._key, address)
        self.host = urlsplit(address).hostname or address
        self._body = {"model": model, **self.parameters.body()}
        self._client = AsyncOpenAI(
            api_key=self._key,
            base_url=address,
            max_retries=0,
            timeout=timeout_s,
            http_client=DefaultAioHttpClient(timeout=timeout_s),
        )
        self._url = f"{address.rstrip('/')}/chat/completions"  # absolute: saves the SDK joining it for every call

    async def ask(self, messages: Sequence[Mapping[str, Any]], *, first: bool = False) -> Answer:
        """Asks once, repeating what is worth repeating; `first` marks the call that finds out whether the endpoint works.

        Raises:
            ModelError: The endpoint cannot be used at all: key, model name, quota; with `first` also the address.
        """
        reply = await self._reply(messages)
        return (
            reply if isinstance(reply, Answer) else await self._again(messages, reply, first=first)
        )

    async def _again(
        self, messages: Sequence[Mapping[str, Any]], reply: Answer | Exception, *, first: bool
    ) -> Answer:
        """The retry loop, entered with the first attempt's failure: most calls need none, and it is not free."""
        attempts, failure = _Attempts(first=first), ""
        try:
            async for attempt in stamina.retry_context(
                on=partial(self._pause, attempts),
                attempts=min(self._attempts, IMPATIENT_ATTEMPTS)
                if self._is_down
                else self._attempts,
                timeout=None,
                wait_initial=self._wait_initial_s,
                wait_max=self._wait_max_s,
                wait_jitter=self._wait_initial_s,
            ):
                with attempt:
                    attempts.n += 1
                    reply = reply if attempts.n == 1 else await self._reply(messages)
                    if isinstance(
                        reply, Exception
                    ):  # raised out here, it drags no exception along that may hold the key
                        raise reply
                    return replace(reply, attempts=attempts.n)
        except _FilteredError as why:
            return Answer(
                text="",
                outcome="refused",
                finish_reason="content_filter",
                error=str(why),
                attempts=attempts.n,
            )
        except _RowError as why:
            failure = str(why)
        except _TransientError as why:
            self._is_down = True
            failure = f"{why} (after {attempts.n} attempts)" if attempts.n > 1 else str(why)
            if first and why.kind in {"unreachable", "page"}:
                raise ModelError(
                    f"{self.host}: {failure}; is OPENAI_BASE_URL right, and is the server running?"
                ) from None
        return Answer(text="", outcome="error", error=failure, attempts=attempts.n)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.close()

    def _pause(self, attempts: _Attempts, why: Exception) -> bool | float:
        """Whether to try again, or after how many seconds."""
        if not isinstance(why, _TransientError):
            return False
        attempts.n_timeouts += why.kind == "timeout"
        if attempts.n_timeouts >= MAX_TIMEOUTS or (
            attempts.first and why.kind == "unreachable" and attempts.n > 1
        ):
            return False
        if not why.wait_s:
            return True
        if why.wait_s > self._wait_max_s:
            return False
        self._resume_at = max(self._resume_at, time.monotonic() + why.wait_s)
        return min(self._wait_max_s, max(why.wait_s, self._wait_initial_s * 2 ** (attempts.n - 1)))

    async def _reply(self, messages: Sequence[Mapping[str, Any]]) -> Answer | Exception:
        """One attempt: the answer, or what went wrong, without the SDK's exception."""
        if (wait_s := self._resume_at - time.monotonic()) > 0:  # the server asked all of us to wait
            await asyncio.sleep(wait_s)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._client.post(
                    self._url, cast_to=object, body={**self._body, "messages": messages}
                )
            found = answer(reply, strip_think=self.parameters.strip_think)
        except Exception as why:
            return self._sorted(why)
        latency_ms, self._is_down = (time.perf_counter() - started) * 1000, False
        said = {
            name: getattr(found, name)
            for name in ("text", "served_model", "finish_reason", "error")
        }
        safe = {name: one and without_secrets(one, self._secrets) for name, one in said.items()}
        return replace(found, **safe, latency_ms=round(latency_ms, 3))

    def _sorted(self, why: Exception) -> Exception:
        """What an exception of the SDK means for the row, without its key and without its past."""
        if isinstance(why, openai.APIStatusError):
            return self._status(why)
        if isinstance(why, NoAnswerError):
            return self._told(why)
        if isinstance(why, json.JSONDecodeError | UnicodeDecodeError):
            return _TransientError("the reply is not JSON", "reply")
        causes = [why, *_causes(why)]
        if any(isinstance(cause, TimeoutError) for cause in (why, causes[-1])):
            return _TransientError(f"no answer within {self._timeout_s:g} s", "timeout")
        if isinstance(why, openai.APIConnectionError | aiohttp.ClientError | OSError):
            kind = (
                "unreachable"
                if any(isinstance(cause, aiohttp.ClientConnectorError) for cause in causes)
                else "dropped"
            )
            return _TransientError(
                self._clean(f"no connection ({type(causes[-1]).__name__}: {causes[-1]})"), kind
            )
        return _RowError(self._clean(f"{type(why).__name__}: {why}"))

    def _told(self, why: NoAnswerError) -> Exception:
        """An error inside an HTTP 200: sorted by the status and the names it tells, repeated when they are unknown."""
        message, names = self._clean(str(why)), set(why.names)
        if why.status is None and not names & _SORTED_NAMES:
            return _TransientError(message, "page" if why.is_page else "reply")
        found = self._by_status(why.status or 400, names, message)
        if why.in_choice and isinstance(found, ModelError) and not names & _NO_QUOTA:
            return _RowError(message)  # the model was found and had begun: the next row may go well
        return found

    def _status(self, why: openai.APIStatusError) -> Exception:
        names = {str(name) for name in (why.code, why.type) if name}
        message = f"{why.status_code}: {self._clean(_message(why))}"
        return self._by_status(why.status_code, names, message, _retry_after(why.response.headers))

    def _by_status(
        self, status: int, names: set[str], message: str, wait_s: float | None = None
    ) -> Exception:
        if names & _NO_QUOTA:
            return ModelError(f"{self.host}: no quota left ({message}); top it up and start again")
        if status in _STOPS or names & _WRONG_REQUEST:
            what = _STOPS.get(
                status,
                "request refused; a parameter set to None is left out, extra_body adds others",
            )
            if status == 401 and self._key == _NO_KEY:
                what = "it wants a key, and OPENAI_API_KEY is not set"
            return ModelError(f"{self.host}: model {self.model!r}: {what} ({message})")
        if names & _FILTERED:
            return _FilteredError(message)
        if status in {408, 409, 425, 429} or status >= 500:
            return self._busy(message, wait_s)
        return _RowError(message)

    def _busy(self, message: str, wait_s: float | None) -> _TransientError:
        if wait_s is not None and wait_s > self._wait_max_s:
            message = f"{message}; the server asks to wait {wait_s:g} s, the limit is {self._wait_max_s:g} s: start again later"
        return _TransientError(message, "status", wait_s)

    def _clean(self, text: str) -> str:
        """A message fit to be kept: secrets go first, then it is cut, lest half a key is left."""
        return redacted(cleaned(text)[0], self._secrets)[:_LONGEST]


def _key_and_address(api_key: str | None, base_url: str | None) -> tuple[str, str]:
    key = (api_key or os.environ.get("OPENAI_API_KEY", "")).strip()
    address = (base_url or os.environ.get("OPENAI_BASE_URL", "")).strip()
    if not key and not address:
        raise ModelError(
            "no endpoint: set OPENAI_API_KEY, and OPENAI_BASE_URL for a server other than OpenAI's"
        )
    if address and urlsplit(address).scheme not in {"http", "https"}:
        raise ModelError(
            "OPENAI_BASE_URL must start with http:// or https://, e.g. http://127.0.0.1:8080/v1"
        )
    try:
        parts = urlsplit(address)
        told = "holds a user or a password" if parts.username or parts.password else ""
        _ = parts.port
    except ValueError:
        told = "is no address"
    if told or re.search(r"://[^/@]*:[^@]*@", address):
        raise ModelError(
            f"OPENAI_BASE_URL {told or 'holds a password'}; need such as http://127.0.0.1:8080/v1, "
            "with the key in OPENAI_API_KEY"
        )
    return key or _NO_KEY, address or "https://api.openai.com/v1"


def _message(why: openai.APIStatusError) -> str:
    body = why.body
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("error") or body
    text = " ".join(str(body or why.message).split())
    return "a web page" if text.lower().startswith(("<!doctype", "<html")) else text


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait: `retry-after-ms`, seconds or a date."""
    if (ms := _number(headers.get("retry-after-ms"))) is not None:
        return max(0.0, ms / 1000)
    text = headers.get("retry-after")
    if (seconds := _number(text)) is not None:
        return max(0.0, seconds)
    try:
        at = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _causes(why: BaseException) -> Iterator[BaseException]:
    while (cause := why.__cause__) is not None:
        yield cause
        why = cause
