"""Keys of five shapes, and a server that says them back in every way: no file and no terminal of a whole run has any."""

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from aiohttp import web
from faulty_server import FaultyServer, broken_off, completion, failure

pytestmark = pytest.mark.slow
PASSWORD = "p4ss/Wort#mit@Zeichen"
KEYS = {
    "OPENAI_API_KEY": "sk-proj-Q7w2E9r4T1y8U3i6O5p0A2s4D6f8G1h3",
    "HF_TOKEN": "hf_zXcVbNmLkJhGfDsAqWeRtYuIoP12345678",
    "GATEWAY_TOKEN": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4iLCJpYXQiOjE3fQ.c2lnbmF0dXJlLW9mLWFubg",
    "EVENT_LOG": f"postgresql://ann:{quote(PASSWORD, safe='')}@127.0.0.1:1/log",
    "OTHER_API_KEY": "9f3a7c1e5b8d2046af71",
}
SECRETS = [*(one for name, one in KEYS.items() if name != "EVENT_LOG"), PASSWORD]
BASE64 = [base64.b64encode(one.encode()).decode() for one in SECRETS]
HALVES = [one[: len(one) // 2] for one in SECRETS]


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(char):04x}" for char in text)


ALL = " and ".join(SECRETS)
SPLIT = "\n".join(half + "\n" + one[len(half) :] for half, one in zip(HALVES, SECRETS, strict=True))
EVENTS = "".join(f"data: {json.dumps(completion(one))}\n\n" for one in SECRETS)
MEANT = completion(ALL) | {"system_fingerprint": ALL, "id": ALL}
TOOL = {"id": ALL, "type": "function", "function": {"name": ALL[:60], "arguments": json.dumps({"q": ALL})}}  # fmt: skip
REPLIES = {
    "content": completion(ALL),
    "error": (400, failure(f"no {ALL}", ALL)),
    "model": completion(model=ALL),
    "finish reason": completion(finish_reason=ALL),
    "header": (400, failure("see the header")),
    "HTML": (400, f"<html><title>{ALL}</title><body>{ALL}</body></html>"),
    "broken off": broken_off(message=ALL, code=ALL),
    "nested JSON": completion(json.dumps({"a": json.dumps({"b": SECRETS})})),
    "base64": completion(" ".join(BASE64)),
    "base64 of a header": completion(base64.b64encode(f"Authorization: Bearer {ALL}".encode()).decode()),
    "percent": completion(" ".join(quote(one, safe="") for one in SECRETS)),
    "upper case": completion(ALL.upper()),
    "events": (200, EVENTS),
    "two lines": completion(SPLIT),
    "thoughts": completion(reasoning_content=ALL),
    "tool": completion(None, finish_reason="tool_calls", tool_calls=[TOOL]),
    "refusal": completion(None, refusal=ALL),
    "escaped": completion(escaped(ALL)),
    "cut off": completion(f"key {SECRETS[0][:-3]}..."),
    "more fields": MEANT,
}  # fmt: skip


@dataclass
class Echo(FaultyServer):
    """Says the keys back, each row of the test set in another way."""

    async def _reply(self, request, how, hit):
        found = REPLIES[how]
        status, body = found if isinstance(found, tuple) else (200, found)
        headers = {"X-Request-Id": "".join(ALL.split()), "X-Error": ALL, "Retry-After": "0"}
        kind = "text/html" if isinstance(body, str) else "application/json"
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(text=text, status=status, headers=headers, content_type=kind)


def study(root: Path) -> None:
    home = root / "data/canary"
    home.mkdir(parents=True)
    (root / "notebooks").symlink_to(Path(__file__).parents[1] / "notebooks")
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{n} {how}"},
                {"role": "assistant", "content": "R07.0"},
            ]
        }
        for n, how in enumerate(REPLIES)
    ]
    (home / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = {"study": "canary", "base_model": "old", "fine_tuned_model": "new", "live": True}
    said |= {"reask_n": 4, "event_log": "EVENT_LOG"}
    (home / "study.yaml").write_text(yaml.safe_dump(said))


def everything_written(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text("utf-8", "replace")
        for part in ("data", "reports")
        for path in (root / part).rglob("*")
        if path.is_file() and path.name != "test.jsonl"
    }


def test_no_key_is_in_any_file_or_output_however_the_server_said_it(tmp_path):
    study(tmp_path)
    forms = [*SECRETS, *BASE64, *HALVES, *(quote(one, safe="") for one in SECRETS)]
    forms += [one.encode().hex() for one in SECRETS] + [one.rstrip("=")[4:-4] for one in BASE64]
    forms += [escaped(one[:9]) for one in SECRETS]
    with Echo(behave=lambda hit: hit.asked.split(maxsplit=1)[1]) as server:
        environment = os.environ | KEYS | {"OPENAI_BASE_URL": server.url}
        written = {}
        for command in (["run", "canary", "--only", "01", "02", "07"], ["gate", "canary"], ["verify", "canary"]):  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-m", "evalkit", *command],
                cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            written[" ".join(command)] = done.stdout + done.stderr
    assert {hit.asked.split(maxsplit=1)[1] for hit in server.hits} == set(REPLIES)
    written |= everything_written(tmp_path)
    assert sum(name.endswith("report.html") for name in written) == 1
    assert sum("[key removed]" in text for text in written.values()) > 2
    found = [
        (name, form, text.lower().index(form.lower()))
        for name, text in written.items()
        for form in forms
        if form.lower() in text.lower()
    ]
    assert found == []
