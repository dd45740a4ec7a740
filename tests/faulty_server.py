"""A real loopback server that misbehaves on purpose: every fault an OpenAI-compatible endpoint was seen to have."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from aiohttp import web

ANSWER = "R07.0: Pain in throat"


@dataclass(frozen=True)
class Hit:
    """One request as the server saw it; `number` counts from 1."""

    number: int
    body: dict[str, Any]
    authorization: str

    @property
    def asked(self) -> str:
        return self.body["messages"][-1]["content"]


def completion(
    content: Any = ANSWER, *, finish_reason: str | None = "stop", model: str = "m", **message: Any
) -> dict[str, Any]:
    return {
        "model": model,
        "choices": [
            {
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 5},
    }


def failure(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code}}


def broken_off(
    content: Any = "", finish_reason: str | None = "error", **error: Any
) -> dict[str, Any]:
    """An error told in the answer's place, as gateways do when the server behind them fails."""
    reply = completion(content, finish_reason=finish_reason)
    reply["choices"][0]["error"] = error
    return reply


REPLIES: dict[str, dict[str, Any]] = {
    "ok": completion(),
    "null content": completion(None),
    "blank content": completion(" \n"),
    "refusal": completion(None, refusal="I cannot help with that."),
    "content_filter": completion("", finish_reason="content_filter"),
    "length": completion("R07.0: Pain in", finish_reason="length"),
    "list content": completion(
        [{"type": "text", "text": "R07.0: "}, {"type": "text", "text": "Pain in throat"}]
    ),
    "think": completion(f"<think>throat, so R07</think>\n{ANSWER}"),
    "think, opened by the template": completion(f"throat, so R07\n</think>\n\n{ANSWER}"),
    "think in channels": completion(
        "<|channel|>analysis<|message|>throat, so R07<|end|><|start|>assistant<|channel|>final<|message|>"
        f"{ANSWER}<|return|>"
    ),
    "think in a field": completion(reasoning_content="throat, so R07"),
    "think, cut off": completion("<think>throat, so", finish_reason="length"),
    "quotes a tag": completion("It ends with `</think>`."),
    "tool call": completion(
        None,
        finish_reason="tool_calls",
        tool_calls=[
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"unit": "c", "city": "Oslo"}'},
            }
        ],
    ),
    "surrogate": completion("half a smile \ud83d"),
    "other model": completion(model="m-2"),
    "no choices": {"model": "m", "choices": []},
    "null choices": {"model": "m", "choices": None},
    "no message": {"model": "m", "choices": [{"message": None}]},
    "error in 200": failure("upstream went away"),
    "502 in choice": broken_off(code=502, message="Provider returned error"),
    "502 in choice, partly answered": broken_off("R07", code=502, message="Provider gave up"),
    "502 in choice, no reason": broken_off(finish_reason=None, code="502", message="gone"),
    "502 beside an answer": {**completion("R07"), **failure("gone", "502")},
    "error without a code": broken_off(message="something broke"),
    "reason error": completion("", finish_reason="error"),
    "reason network_error": completion("R07", finish_reason="network_error"),
    "reason insufficient_system_resource": completion(
        "", finish_reason="insufficient_system_resource"
    ),
    "error as text": {**completion("", finish_reason=None), "error": "upstream overloaded"},
    "error spread": {"object": "error", "message": "busy", "type": "x", "code": 503},
    "400 in choice": broken_off(code=400, message="maximum context length is 4096 tokens"),
    "403 in choice": broken_off(code=403, message="your input was flagged"),
    "filter in choice": broken_off(code="content_filter", message="flagged"),
    "429 in 200": failure("Please try again in 410ms", "rate_limit_exceeded"),
    "too long in 200": failure("too long", "context_length_exceeded"),
    "quota in 200": failure("You exceeded your current quota", "insufficient_quota"),
    "401 in 200": {"error": {"message": "no auth", "code": 401}},
    "success as error": {
        **completion(),
        "error": {"code": 0, "message": "success"},
    },
    "empty error": {**completion(), "error": {"code": None, "message": ""}},
}
STATUSES: dict[str, tuple[int, dict[str, Any], dict[str, str]]] = {
    "429": (429, failure("slow down", "rate_limit_exceeded"), {}),
    "429 wait a little": (429, failure("slow down", "rate_limit_exceeded"), {"Retry-After": "0.2"}),
    "429 wait a second": (429, failure("slow down", "rate_limit_exceeded"), {"Retry-After": "1"}),
    "429 wait in ms": (429, failure("slow down"), {"retry-after-ms": "200"}),
    "429 wait in ms of Azure": (429, failure("slow down"), {"x-ms-retry-after-ms": "200"}),
    "429 wait for the limit": (
        429,
        failure("slow down"),
        {
            "RateLimit": '"tokens";r=7;t=60, "requests";r=0;t=1',
            "RateLimit-Policy": '"requests";q=9',
        },
    ),
    "429 wait for a limit of old": (
        429,
        failure("slow down"),
        {"RateLimit": "limit=9, remaining=0, reset=1"},
    ),
    "429 wait till 2001": (
        429,
        failure("slow down"),
        {"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"},
    ),
    "429 wait nan": (429, failure("slow down"), {"Retry-After": "nan"}),
    "429 wait 600": (429, failure("slow down", "rate_limit_exceeded"), {"Retry-After": "600"}),
    "429 in words": (429, failure("Rate limit reached. Please try again in 410ms."), {}),
    "429 too large": (429, failure("Request too large for m: Limit 10000, Requested 12000"), {}),
    "429 quota": (429, failure("You exceeded your current quota", "insufficient_quota"), {}),
    "429 out of credits": (429, failure("You have run out of credits."), {}),
    "429 quota in a list": (429, [failure("You exceeded your current quota, see your plan")], {}),
    "429 quota of a minute": (
        429,
        failure("You exceeded your current quota. Please retry in 410ms."),
        {},
    ),
    "400 out of credits": (400, failure("Your credit balance is too low to access the API"), {}),
    "403 flagged": (403, failure("Your input was flagged by moderation"), {}),
    "500": (500, failure("boom"), {}),
    "502": (502, failure("bad gateway"), {}),
    "403": (403, failure("not for you"), {}),
    "503": (503, failure("loading model"), {}),
    "404": (404, failure("The model `m` does not exist", "model_not_found"), {}),
    "400 too long": (
        400,
        failure("maximum context length is 4096 tokens", "context_length_exceeded"),
        {},
    ),
    "400 filter": (400, failure("The prompt was filtered", "content_filter"), {}),
    "400 parameter": (
        400,
        failure(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "unsupported_parameter",
        ),
        {},
    ),
    "400 temperature": (
        400,
        failure(
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
            "unsupported_value",
        ),
        {},
    ),
    "400 tools": (400, failure("model `m` does not support tools"), {}),
    "400 seed": (400, failure("Unrecognized request argument supplied: seed"), {}),
}
REPLIES["think in a field"]["usage"]["completion_tokens_details"] = {"reasoning_tokens": 4}
THOUGHTS = ("think, opened by the template", "think in channels", "think in a field", "think")


def reasoning(hit: Hit) -> str:
    """A strict reasoning endpoint: it refuses what such endpoints refuse, and thinks in four shapes."""
    if "max_tokens" in hit.body:
        return "400 parameter"
    if hit.body.get("temperature", 1) != 1:
        return "400 temperature"
    return "400 seed" if "seed" in hit.body else THOUGHTS[hit.number % len(THOUGHTS)]


@dataclass
class FaultyServer:
    """Answers each request as `behave(hit)` names it, after `delay_s`; use it as a context manager."""

    behave: Callable[[Hit], str] = lambda hit: "ok"
    delay_s: float = 0.0
    hits: list[Hit] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    def __enter__(self) -> FaultyServer:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def leave(self) -> None:
        """Drops every connection and listens no more."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()

    def come_back(self) -> None:
        """Listens again at the same address."""
        asyncio.run_coroutine_threadsafe(self._start(self.port), self._loop).result()

    async def _start(self, port: int = 0) -> int:
        app = web.Application()
        self._routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        return self._runner.addresses[0][1]

    def _routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/chat/completions", self._answer)

    async def _stop(self) -> None:
        await self._runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:  # handlers that still sleep
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        hit = Hit(
            len(self.hits) + 1, await request.json(), request.headers.get("Authorization", "")
        )
        self.hits.append(hit)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay_s)
            return await self._reply(request, self.behave(hit), hit)
        finally:
            self.in_flight -= 1

    async def _reply(self, request: web.Request, how: str, hit: Hit) -> web.StreamResponse:
        if how in REPLIES:
            return _json(REPLIES[how])
        if how in STATUSES:
            status, body, headers = STATUSES[how]
            return _json(body, status=status, headers=headers)
        if how == "401":
            return _json(
                failure(f"Incorrect API key provided: {hit.authorization}", "invalid_api_key"),
                status=401,
            )
        if how == "echo key":
            sent = hit.authorization
            return _json(completion(f"you sent {sent}", model=f"m for {sent}", finish_reason=sent))
        if how == "echo key in upper case":
            return _json(completion(hit.authorization.upper()))
        if how == "echo key in base64":
            return _json(completion(base64.b64encode(hit.authorization[7:].encode()).decode()))
        if how.startswith("say "):
            return _json(completion(how.removeprefix("say ")))
        if how.startswith("500 echo key behind "):
            padding = "x" * int(how.rsplit(maxsplit=1)[-1])
            return _json(failure(f"{padding}{hit.authorization}"), status=500)
        if how == "500 echo key":
            return _json(failure(f"boom for {hit.authorization}"), status=500)
        if how == "echo":
            return _json(completion(hit.asked))
        if how == "broken json":
            return web.Response(text='{"choices": [{"mess', content_type="application/json")
        if how == "json as text":
            return web.Response(text=json.dumps(REPLIES["ok"]), content_type="text/plain")
        if how == "html":
            return web.Response(
                text="<!doctype html><html><body>Please log in</body></html>",
                content_type="text/html",
            )
        if how == "slow":
            await asyncio.sleep(5)
            return _json(REPLIES["ok"])
        if how == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if how.startswith("mb "):
            return await _large(request, int(how.split()[1]))
        if how.startswith("bomb "):
            return _packed(int(how.split()[1]), layers=1 + ("twice" in how))
        if how.startswith("500 mb "):
            return web.Response(text="x" * int(how.split()[2]) * 1_000_000, status=500)
        if how == "cut body":
            return await _cut(request)
        raise LookupError(how)


def _json(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        text=json.dumps(body), status=status, headers=headers, content_type="application/json"
    )


async def _large(request: web.Request, n_mb: int) -> web.StreamResponse:
    """An answer of so many million letters, sent as it is made."""
    head, tail = json.dumps(completion("LETTERS")).split("LETTERS")
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(head.encode())
    for _ in range(n_mb):
        await response.write(b"x" * 1_000_000)
    await response.write(tail.encode())
    return response


def _packed(n_mb: int, *, layers: int) -> web.Response:
    """A reply of a few kilobytes that unpacks to an answer of so many million letters."""
    body = json.dumps(completion("x" * n_mb * 1_000_000)).encode()
    for _ in range(layers):
        body = gzip.compress(body)
    headers = {"Content-Encoding": ", ".join(["gzip"] * layers)}
    return web.Response(body=body, headers=headers, content_type="application/json")


async def _cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Length": "5000", "Content-Type": "application/json"}
    )
    await response.prepare(request)
    await response.write(b'{"choices": ')
    assert request.transport is not None
    request.transport.abort()
    return response
