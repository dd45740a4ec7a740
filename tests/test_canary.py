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
from batch_server import BatchServer
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
    given = {"test.jsonl", "foreign.jsonl", "mine.py"}
    return {
        str(path.relative_to(root)): path.read_bytes().decode("utf-8", "replace")
        for path in root.rglob("*")
        if path.is_file() and path.name not in given and "notebooks" not in path.parts
    }


FORMS = [
    *(form for one in SECRETS for form in (one, one[: len(one) // 2], quote(one, safe=""))),
    *(form for one in SECRETS for form in (one.encode().hex(), escaped(one[:9]))),
    *(form for one in BASE64 for form in (one, one.rstrip("=")[4:-4])),
]


def holding_a_key(texts: dict[str, str]) -> list[tuple[str, str]]:
    low = {name: text.lower() for name, text in texts.items()}
    return [(name, form) for name, text in low.items() for form in FORMS if form.lower() in text]


def test_no_key_is_in_any_file_or_output_however_the_server_said_it(tmp_path):
    study(tmp_path)
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
    assert holding_a_key(written) == []


BODIES = {how: found for how, found in REPLIES.items() if isinstance(found, dict)}
SAID = {  # of the fields of one reply each; content and error are those of REPLIES
    "upload": {"id": f"file-{KEYS['OTHER_API_KEY']}"},
    "create": {"id": f"batch_{KEYS['HF_TOKEN']}", "status": KEYS["OPENAI_API_KEY"]},
    "status": {"status": f"in_progress {PASSWORD}"},
    "failed": {"status": "failed", "errors": {"data": [{"line": 1, "message": ALL, "code": ALL}]}},
}


@dataclass
class BatchEcho(BatchServer):
    """Says the keys back at one place of a batch's life."""

    at: str = ""

    def _told(self, record):
        is_file = record.get("object") == "file"
        said = SAID.get(self.at, {}) if is_file == (self.at == "upload") else {}
        return super()._told(record | said)

    async def _upload(self, request):
        if self.at == "refused":
            return web.json_response(failure(ALL + " ".join(BASE64), ALL), status=400)
        return await super()._upload(request)


def asked(body) -> str:
    how = body["messages"][-1]["content"].split(maxsplit=1)[1]
    return how if how in BODIES else ALL


LEAKY = """import os
def leak(example, text): raise ValueError("no " + os.environ["HF_TOKEN"] + os.environ["EVENT_LOG"])
"""
MORE = {"experiment_name": "exp", "lock_plan": True, "scorers": "mine.py:leak"}


def test_no_key_comes_through_batches_archives_other_tools_files_and_code_of_ones_own(tmp_path):
    study(tmp_path)
    home, told = tmp_path / "data/canary", {}

    def command(server, *words, **more):
        done = subprocess.run(
            [sys.executable, "-m", "evalkit", *words], cwd=tmp_path,
            env=os.environ | KEYS | {"OPENAI_BASE_URL": server.url} | more,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        told[f"{len(told)} {' '.join(words)}"] = done.stdout + done.stderr

    for at in ("refused", *SAID, ""):
        with BatchEcho(reply=asked, replies=BODIES, at=at) as server:
            for _ in range(3 if at in {"", "status"} else 2):
                command(server, "batch", "canary", "--as", "base")
            assert holding_a_key(everything_written(tmp_path)) == []
            (home / "batches/base.json").unlink(missing_ok=True)
    (home / "mine.py").write_text(LEAKY)
    rows = [json.loads(line) for line in (home / "test.jsonl").read_text().splitlines()]
    foreign = [{"id": f"{n} {ALL}", "input": row["messages"][0]["content"], "output": ALL, "expected": "x", "model": ALL}
               for n, row in enumerate(rows)]  # fmt: skip
    (tmp_path / "foreign.jsonl").write_text("".join(json.dumps(one) + "\n" for one in foreign))
    with Echo(behave=lambda hit: hit.asked.split(maxsplit=1)[1]) as server:
        command(server, "freeze", "canary", "--as", "base")
        address = server.url.replace("://", f"://ann:{quote(PASSWORD, safe='')}@")
        command(server, "freeze", "canary", "--as", "fine_tuned", OPENAI_BASE_URL=address)
        (home / "journals/fine_tuned.jsonl").unlink(missing_ok=True)
        command(server, "import", "foreign.jsonl", "--study", "canary", "--as", "fine_tuned")
        command(server, "compare", "foreign.jsonl", "foreign.jsonl", "--metric", "similarity")
        columns = "--columns=input=input,expected=output"
        command(server, "convert", "foreign.jsonl", "--to", "made.jsonl", columns)
        with (home / "study.yaml").open("a") as file:
            file.write(yaml.safe_dump(MORE))
        command(server, "run", "canary", "--only", "01", "05", "06")
        command(server, "export", "canary", "--to", "out")
    written = everything_written(tmp_path) | told
    assert {"made.jsonl", "data/canary/plan.lock.json"} <= written.keys()
    assert sum(name.endswith(("frozen.json", ".html")) for name in written) == 3, told
    assert "20 answers written to" in told["16 import foreign.jsonl --study canary --as fine_tuned"]
    assert holding_a_key(written) == []
