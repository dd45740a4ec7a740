"""A real loopback server with files and batches, which misbehaves on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from faulty_server import REPLIES, FaultyServer, failure

HTML = "<!doctype html><html><body>Please log in</body></html>"
EXPIRED = {"code": "batch_expired", "message": "This request could not be executed in time."}


@dataclass
class BatchServer(FaultyServer):
    """Keeps what is sent, and answers a batch at the second look; each request as `reply(body)` names it.

    `fault` is one of: out of order, twice, a line missing, torn, unknown ids, expired, failed, html output, html, list html,
    drop after create. The next `busy` looks are refused with 503.
    """

    reply: Callable[[dict[str, Any]], str] = lambda body: "ok"
    fault: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: list[str] = field(default_factory=list)
    busy: int = 0
    replies: dict[str, Any] = field(default_factory=lambda: REPLIES)

    def _routes(self, app: web.Application) -> None:
        super()._routes(app)
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{id}/content", self._content)
        app.router.add_post("/v1/batches", self._create)
        app.router.add_get("/v1/batches", self._list)
        app.router.add_get("/v1/batches/{id}", self._look)
        app.router.add_post("/v1/batches/{id}/cancel", self._cancel)

    def sent(self, number: int = -1) -> list[dict[str, Any]]:
        """The calls of a batch."""
        file_id = list(self.batches.values())[number]["input_file_id"]
        return [json.loads(line) for line in self.files[file_id].splitlines()]

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        content = form["file"]
        assert isinstance(content, web.FileField)
        return self._told({"id": self._kept(content.file.read()), "object": "file"})

    async def _content(self, request: web.Request) -> web.Response:
        content = self.files.get(request.match_info["id"])
        if content is None:
            return web.json_response(failure("No such File object"), status=404)
        if self.fault == "html output":
            return web.Response(text=HTML, content_type="text/html")
        return web.Response(body=content, content_type="application/octet-stream")

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["endpoint"] == "/v1/chat/completions"
        assert len(self.files[body["input_file_id"]]) < 10_000_000
        name = f"batch_{len(self.batches) + 1}"
        self.batches[name] = {**body, "id": name, "object": "batch", "status": "validating"}
        if self.fault == "drop after create":
            assert request.transport is not None
            request.transport.abort()
        return self._told(self.batches[name])

    async def _list(self, request: web.Request) -> web.Response:
        if self.fault == "list html":
            return web.Response(text=HTML, content_type="text/html")
        newest = list(reversed(self.batches.values()))
        names = [one["id"] for one in newest]
        start = names.index(request.query["after"]) + 1 if "after" in request.query else 0
        page = newest[start : start + 2]
        return self._told(
            {"object": "list", "data": page, "has_more": start + 2 < len(self.batches)}
        )

    async def _look(self, request: web.Request) -> web.Response:
        if self.busy:
            self.busy -= 1
            return web.json_response(failure("overloaded"), status=503)
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return web.json_response(failure("No batch found"), status=404)
        self.looks.append(batch["id"])
        following = {"validating": "in_progress", "in_progress": "completed"}
        batch["status"] = following.get(batch["status"], batch["status"])
        if batch["status"] in {"completed", "cancelling"}:
            self._finish(batch)
        return self._told(batch)

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        batch["status"] = "cancelling"
        return self._told(batch)

    def _told(self, record: Any) -> web.Response:
        if self.fault == "html":
            return web.Response(text=HTML, content_type="text/html")
        return web.json_response(record)

    def _kept(self, content: bytes) -> str:
        name = f"file-{len(self.files) + 1}"
        self.files[name] = content
        return name

    def _finish(self, batch: dict[str, Any]) -> None:
        calls = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        batch["status"] = {"cancelling": "cancelled"}.get(batch["status"], batch["status"])
        n = len(calls)
        if self.fault == "failed":
            told = {"code": "invalid", "message": "model m cannot be batched", "line": 1}
            batch |= {"status": "failed", "errors": {"object": "list", "data": [told]}}
            return
        if self.fault == "expired" or batch["status"] == "cancelled":
            n = len(calls) // 2
        if self.fault == "expired":
            batch["status"] = "expired"
        good, bad = list[str](), [_line(one, error=EXPIRED) for one in calls[n:]]
        for one in calls[:n]:
            how = self.reply(one["body"])
            if how in self.replies:
                good.append(_line(one, status=200, body=self.replies[how]))
            elif how.startswith("say "):
                good.append(_line(one, status=200, body=_saying(how[4:])))
            else:
                bad.append(_line(one, status=400, body=failure(how, how)))
        good = self._garbled(good)
        batch["request_counts"] = {"total": len(calls), "completed": len(good), "failed": len(bad)}
        for name, lines in (("output_file_id", good), ("error_file_id", bad)):
            batch[name] = self._kept("".join(lines).encode()) if lines else None

    def _garbled(self, lines: list[str]) -> list[str]:
        if self.fault == "out of order":
            return lines[::-1]
        if self.fault == "twice":
            return [*lines, *(one.replace("Pain", "Ache") for one in lines)]
        if self.fault == "a line missing":
            return lines[1:]
        if self.fault == "torn":
            return [*lines[:-1], lines[-1][:40]]
        if self.fault == "unknown ids":
            return [one.replace('"custom_id": "', '"custom_id": "other-') for one in lines]
        return lines


def _saying(text: str) -> dict[str, Any]:
    reply = json.loads(json.dumps(REPLIES["ok"]))
    reply["choices"][0]["message"]["content"] = text
    return reply


def _line(call: dict[str, Any], *, error: Any = None, status: int = 0, body: Any = None) -> str:
    response = {"status_code": status, "request_id": "r", "body": body} if status else None
    record = {"id": "b", "custom_id": call["custom_id"], "response": response, "error": error}
    return json.dumps(record) + "\n"
