"""The demo's local server: finds its way without packages, hands requests on, and really answers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import aiohttp
import pytest
from aiohttp import web

from evalkit import run_automated_eval

SHOW = "import os; print(os.environ.get('OPENAI_BASE_URL'), os.environ.get('OPENAI_API_KEY')); raise SystemExit(7)"


@pytest.fixture
def run_serve(data):
    """Runs serve.py; without packages when the interpreter is told to see none (-S)."""

    def run(*arguments, packages=True):
        python = [sys.executable] if packages else [sys.executable, "-I", "-S"]
        command = [*python, str(data / "icd10" / "serve.py"), *arguments]
        env = {
            **os.environ,
            "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
            "OPENAI_API_KEY": "for-another-place",
        }
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=env, check=False
        )

    return run


def test_without_packages_an_optional_server_says_so_and_the_command_runs_asking_nobody(run_serve):
    found = run_serve("--optional", "--", sys.executable, "-c", SHOW, packages=False)
    assert found.returncode == 7
    assert found.stdout.strip() == "None None"
    assert "not installed; uv pip install --no-deps -r" in found.stderr
    assert "nothing is asked live" in found.stderr


def test_without_packages_a_required_server_is_an_error_and_the_command_does_not_run(run_serve):
    found = run_serve("--", sys.executable, "-c", SHOW, packages=False)
    assert (found.returncode, found.stdout) == (1, "")


def test_a_command_that_does_not_exist_gives_the_shells_exit_code(run_serve):
    found = run_serve("--optional", "--", "no-such-command", packages=False)
    assert found.returncode == 127
    assert "no-such-command" in found.stderr


def test_a_request_goes_to_the_model_it_names(serve):
    async def talk():
        upstream = [await listening(model_that_says(name)) for name in ("one", "two")]
        async with aiohttp.ClientSession() as session:
            addresses = {
                name: address for name, (_, address) in zip(("a", "b"), upstream, strict=True)
            }
            runner, address = await listening(
                serve.router({**addresses, "gone": "http://127.0.0.1:9"}, session)
            )
            found = [
                await asked(session, address, {"model": name}) for name in ("a", "b", "c", "gone")
            ]
            found.append(await asked(session, address, ["not an object"]))
            for one in (runner, *(server for server, _ in upstream)):
                await one.cleanup()
            return found

    replies = asyncio.run(talk())
    assert [status for status, _ in replies] == [200, 200, 404, 502, 400]
    assert [reply.get("text") for _, reply in replies[:2]] == ["one", "two"]
    assert replies[2][1]["error"]["code"] == "model_not_found"


def model_that_says(text):
    async def answer(request):
        return web.json_response({"text": text, "asked": await request.json()})

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", answer)])
    return app


async def listening(app):
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def asked(session, address, body):
    async with session.post(f"{address}/v1/chat/completions", json=body) as reply:
        return reply.status, await reply.json()


@pytest.mark.model
def test_the_command_finds_the_server_and_its_exit_code_comes_back(run_serve):
    found = run_serve("--", sys.executable, "-c", SHOW)
    assert found.returncode == 7
    assert found.stdout.startswith("http://127.0.0.1:")
    assert found.stdout.endswith("/v1 local\n")


@pytest.fixture(scope="module")
def address(data):
    """The address of a server that is really there, stopped as a terminal would."""
    process = subprocess.Popen(
        [sys.executable, str(data / "icd10" / "serve.py")], stdout=subprocess.PIPE, text=True
    )
    line = process.stdout.readline()
    yield line.split(" at ")[1].split(";")[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    process.stdout.close()


@pytest.mark.model
def test_both_models_are_there_and_say_what_they_are(address):
    with urllib.request.urlopen(f"{address}/models", timeout=10) as reply:
        base, tuned = json.load(reply)["data"]
    assert (base["id"], tuned["id"]) == ("base", "fine-tuned")
    assert base["about"]["adapter_sha256"] == "none"
    assert len(tuned["about"]["adapter_sha256"]) == 64
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/nothing", timeout=10)


@pytest.mark.model
def test_the_models_differ_and_repeat_themselves_to_the_letter(address, data, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "local")
    ask = {
        "limit": 3,
        "max_tokens": 48,
        "endpoint": "local",
        "concurrency": 3,
        "base_url": address,
        "progress": False,
    }

    def answers(model):
        return [
            one.predicted for one in run_automated_eval(model, data / "icd10" / "test.jsonl", **ask)
        ]

    first = {model: answers(model) for model in ("base", "fine-tuned")}
    assert first["base"] != first["fine-tuned"]
    assert {model: answers(model) for model in ("base", "fine-tuned")} == first


@pytest.mark.model
def test_it_stops_while_a_model_is_still_answering(run_serve, data):
    ask = (
        "import json, os, sys, threading, urllib.request as u\n"
        "row = json.loads(open(sys.argv[1]).readline())\n"
        "body = json.dumps({'model': 'base', 'messages': row['messages'][:1], 'max_tokens': 400}).encode()\n"
        "r = u.Request(os.environ['OPENAI_BASE_URL'] + '/chat/completions', body, {'Content-Type': 'application/json'})\n"
        "threading.Thread(target=u.urlopen, args=(r,), daemon=True).start()\n"
        "threading.Event().wait(1)\n"
        "os._exit(5)\n"
    )
    assert (
        run_serve("--", sys.executable, "-c", ask, str(data / "icd10" / "test.jsonl")).returncode
        == 5
    )
