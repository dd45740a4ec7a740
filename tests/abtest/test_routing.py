import asyncio
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from evalkit.abtest.assignment import ABTestConfig, assign_variant
from evalkit.abtest.lock import lock
from evalkit.abtest.log import OUTCOMES, EventLog
from evalkit.abtest.plan import ABPlan, Metric
from evalkit.abtest.routing import run_ab_request, run_ab_request_async
from evalkit.errors import DesignError, ModelError

MESSAGES = [{"role": "user", "content": "hello"}]
TREATED = ABTestConfig("exp", "base", "tuned", 1.0, phase=2)
CONTROL = ABTestConfig("exp", "base", "tuned", 0.0)


@pytest.fixture
def log(tmp_path):
    log = EventLog(tmp_path / "events.sqlite")
    yield log
    log.close()


def only_base(model):
    if model == "tuned":
        raise RuntimeError("tuned is down, key sk-abcdefgh1234")
    return "fine"


def test_the_client_is_asked_as_in_the_article(fake_client):
    client = fake_client()
    result = run_ab_request("ann", MESSAGES, TREATED, client)
    assert client.asked == [{"model": "tuned", "messages": MESSAGES, "temperature": 0.0}]
    assert (result.model, result.variant, result.user_id, result.response) == (
        "tuned",
        "treatment",
        "ann",
        "fine",
    )
    assert abs(result.timestamp - time.time()) < 60
    assert (result.outcome, result.error, result.prompt_tokens, result.completion_tokens) == (
        "ok",
        None,
        11,
        7,
    )


def test_options_are_passed_on(fake_client):
    client = fake_client()
    run_ab_request("ann", MESSAGES, CONTROL, client, temperature=0.7, options={"max_tokens": 5})
    assert client.asked == [
        {"model": "base", "messages": MESSAGES, "temperature": 0.7, "max_tokens": 5}
    ]


def test_each_user_gets_the_assigned_model(fake_client):
    config = ABTestConfig("exp", "base", "tuned", 0.5)
    for user in map(str, range(50)):
        result = run_ab_request(user, MESSAGES, config, fake_client())
        assert result.variant == assign_variant(user, config)
        assert result.model == {"control": "base", "treatment": "tuned"}[result.variant]


def test_the_exposure_is_committed_before_the_answer_is_handed_over(log, fake_client):
    result = run_ab_request(
        "ann",
        MESSAGES,
        TREATED,
        fake_client(),
        log=log,
        request_id="r1",
        slice="single",
        now=1000.5,
    )
    (row,) = log.rows()
    assert row.pop("latency_ms") == result.latency_ms
    assert row == {
        "request_id": "r1", "experiment": "exp", "phase": 2, "user_id": "ann", "variant": "treatment", "model": "tuned",
        "at_s": 1000.5, "outcome": "ok", "error": None, "fallback": False, "prompt_tokens": 11, "completion_tokens": 7,
        "slice": "single",
    }  # fmt: skip


def test_the_guides_example_runs_as_it_stands(tmp_path, monkeypatch, fake_client):
    guide = (Path(__file__).parents[2] / "docs/data-formats.md").read_text(encoding="utf-8")
    (snippet,) = (
        one
        for one in re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
        if "log.record_outcome(" in one
    )
    (tmp_path / "data" / "my_study").mkdir(parents=True)
    plan = ABPlan(
        experiment_name="exp",
        control_model="base",
        treatment_model="tuned",
        primary=Metric(name="accepted", expected=0.30, detectable_difference=0.05),
        traffic_split=0.1,
        users_per_day=300,
    )
    lock(plan, tmp_path / "data/my_study/plan.lock.json")
    monkeypatch.chdir(tmp_path)
    client = fake_client()
    names = {"user_id": "ann", "messages": MESSAGES, "client": client}
    exec(snippet, names)  # what people copy
    assert names["result"].response == "fine"
    assert client.asked[0]["max_tokens"] == 512
    (row,) = names["log"].rows()
    assert (row["slice"], row["user_id"]) == ("mobile", "ann")
    names["log"].close()


def test_an_outcome_follows_by_the_results_request_id(log, fake_client):
    result = run_ab_request("ann", MESSAGES, TREATED, fake_client(), log=log)
    log.record_outcome(result.request_id, "accepted", 1)
    assert [row["user_id"] for row in log.rows(OUTCOMES)] == ["ann"]


def test_a_failed_call_is_logged_and_raised_again_as_it_came(log, fake_client):
    with pytest.raises(RuntimeError, match="tuned is down") as failure:
        run_ab_request("ann", MESSAGES, TREATED, fake_client(only_base), log=log, request_id="r1")
    (row,) = log.rows()
    assert (row["outcome"], row["variant"], row["model"], row["fallback"]) == (
        "error",
        "treatment",
        "tuned",
        False,
    )
    assert row["error"] == "tuned: RuntimeError: tuned is down, key [key removed]"
    assert failure.value.__notes__ == ["evalkit request_id: r1"]


def test_a_fallback_answers_and_the_user_stays_in_treatment(log, fake_client):
    result = run_ab_request(
        "ann", MESSAGES, TREATED, fake_client(only_base), log=log, fallback=True
    )
    assert (result.response, result.model, result.variant, result.fallback) == (
        "fine",
        "base",
        "treatment",
        True,
    )
    assert (result.outcome, result.error) == (
        "ok",
        "tuned: RuntimeError: tuned is down, key [key removed]",
    )
    (row,) = log.rows()
    assert (row["variant"], row["model"], row["fallback"], row["outcome"]) == (
        "treatment",
        "base",
        True,
        "ok",
    )
    assert row["error"] == result.error


def test_control_has_nothing_to_fall_back_on(log, fake_client):
    def down(model):
        raise RuntimeError(f"{model} is down")

    with pytest.raises(RuntimeError, match="base is down"):
        run_ab_request("ann", MESSAGES, CONTROL, fake_client(down), log=log, fallback=True)
    with pytest.raises(RuntimeError, match="base is down"):
        run_ab_request("bob", MESSAGES, TREATED, fake_client(down), log=log, fallback=True)
    assert [(row["user_id"], row["variant"], row["outcome"]) for row in log.rows()] == [
        ("ann", "control", "error"),
        ("bob", "treatment", "error"),
    ]
    assert (
        list(log.rows())[1]["error"]
        == "tuned: RuntimeError: tuned is down; then base: RuntimeError: base is down"
    )


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_during_the_call_is_logged_and_never_answered_by_a_fallback(log, fake_client, stop):
    def stopped(model):
        raise stop

    with pytest.raises(stop):
        run_ab_request("ann", MESSAGES, TREATED, fake_client(stopped), log=log, fallback=True)
    assert [row["outcome"] for row in log.rows()] == ["error"]


@pytest.mark.parametrize(
    ("content", "finish_reason", "refusal", "outcome", "response"),
    [
        ("fine", "stop", None, "ok", "fine"),
        (None, "stop", None, "empty", ""),
        ("  ", "stop", None, "empty", "  "),
        ("cut o", "length", None, "truncated", "cut o"),
        (None, "stop", "I must not", "refused", "I must not"),
        (None, "content_filter", None, "refused", ""),
        ([{"type": "text", "text": "in parts"}], "stop", None, "ok", "in parts"),
        ("lone \ud800", "stop", None, "ok", "lone \\ud800"),
    ],
)
def test_what_a_reply_means(
    log, fake_client, model_reply, content, finish_reason, refusal, outcome, response
):
    client = fake_client(lambda model: model_reply(content, finish_reason, refusal))
    result = run_ab_request("ann", MESSAGES, TREATED, client, log=log)
    assert (result.outcome, result.response) == (outcome, response)
    assert [row["outcome"] for row in log.rows()] == [outcome]


@pytest.mark.parametrize("choices", [[], None])
def test_a_reply_without_an_answer_is_a_failed_call(log, fake_client, choices):
    from types import SimpleNamespace

    client = fake_client(lambda model: SimpleNamespace(choices=choices))
    with pytest.raises(ModelError, match="no choices"):
        run_ab_request("ann", MESSAGES, TREATED, client, log=log)
    assert [row["outcome"] for row in log.rows()] == ["error"]


@pytest.mark.parametrize("where", ["environment", "client", "url"])
def test_a_key_that_a_server_quotes_is_not_in_the_log_nor_in_its_export(
    log, fake_client, tmp_path, monkeypatch, where
):
    key = "Zq7-no-known-form-Zq7"
    client = fake_client(lambda model: refuse(key))
    if where == "environment":
        monkeypatch.setenv("SOME_API_KEY", key)
    elif where == "client":
        client.api_key = key
    else:
        client.base_url = f"https://ann:{key}@gateway/v1"

    def refuse(key):
        raise RuntimeError(f"401 Incorrect API key provided: {key}. " + "x" * 1960 + key)

    with pytest.raises(RuntimeError):
        run_ab_request("ann", MESSAGES, TREATED, client, log=log)
    (row,) = log.rows()
    assert "401 Incorrect API key provided: [key removed]." in row["error"]
    written = [path.read_bytes() for path in log.export(tmp_path)]
    assert not [one for one in [repr(row).encode(), *written] if key[:8].encode() in one]


def test_an_error_told_in_the_answers_place_is_a_failed_call(log, fake_client):
    from types import SimpleNamespace

    message = SimpleNamespace(content="")
    error = {"code": 502, "message": "Provider returned error"}
    choice = SimpleNamespace(message=message, finish_reason="error", error=error)
    client = fake_client(lambda model: SimpleNamespace(choices=[choice]))
    with pytest.raises(ModelError, match=r"502: .*: Provider returned error"):
        run_ab_request("ann", MESSAGES, TREATED, client, log=log)
    assert [row["outcome"] for row in log.rows()] == ["error"]


def test_any_object_shaped_like_a_reply_will_do():
    from unittest.mock import MagicMock

    client = MagicMock()
    client.chat.completions.create.return_value.choices[0].message.content = "fine"
    result = run_ab_request("ann", MESSAGES, TREATED, client)
    assert (result.response, result.outcome, result.prompt_tokens) == ("fine", "ok", None)


def test_only_the_call_is_timed(fake_client):
    class SlowLog:
        def record_exposure(self, exposure):
            ticks["now"] += 100.0

    ticks = {"now": 50.0}

    def answer(model):
        ticks["now"] += 0.25
        return "fine" if model == "base" else only_base(model)

    def clock():
        return ticks["now"]

    assert (
        run_ab_request(
            "ann", MESSAGES, CONTROL, fake_client(answer), log=SlowLog(), clock=clock
        ).latency_ms
        == 250
    )
    both = run_ab_request(
        "ann", MESSAGES, TREATED, fake_client(answer), log=SlowLog(), clock=clock, fallback=True
    )
    assert both.latency_ms == 500  # what the user waited for: the failed call and the one after it


@pytest.mark.parametrize("nobody", ["", " ", None])
def test_an_empty_user_id_is_refused(fake_client, nobody):
    client = fake_client()
    with pytest.raises(DesignError, match="user_id is empty"):
        run_ab_request(nobody, MESSAGES, TREATED, client)
    assert client.asked == []


def test_a_log_that_cannot_be_written_is_not_kept_quiet(fake_client):
    class FullLog:
        def record_exposure(self, exposure):
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        run_ab_request("ann", MESSAGES, TREATED, fake_client(), log=FullLog())


def test_a_request_told_twice_counts_once(log, fake_client):
    for _ in range(2):
        run_ab_request("ann", MESSAGES, TREATED, fake_client(), log=log, request_id="r1")
    assert log.count() == 1


def test_the_async_twin_does_the_same(log, fake_async_client):
    client = fake_async_client(only_base)
    result = asyncio.run(
        run_ab_request_async("ann", MESSAGES, TREATED, client, log=log, fallback=True)
    )
    assert (result.response, result.variant, result.model, result.fallback) == (
        "fine",
        "treatment",
        "base",
        True,
    )
    with pytest.raises(RuntimeError, match="tuned is down"):
        asyncio.run(run_ab_request_async("bob", MESSAGES, TREATED, client, log=log))
    assert [(row["user_id"], row["outcome"]) for row in log.rows()] == [
        ("ann", "ok"),
        ("bob", "error"),
    ]


def test_the_twins_take_the_same_arguments():
    import inspect

    assert (
        inspect.signature(run_ab_request).parameters
        == inspect.signature(run_ab_request_async).parameters
    )


def test_a_cancelled_request_is_logged_too(log, fake_async_client):
    async def never(model):
        await asyncio.sleep(60)

    async def impatient():
        async with asyncio.timeout(0.05):
            await run_ab_request_async(
                "ann", MESSAGES, TREATED, fake_async_client(never), log=log, fallback=True
            )

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    (row,) = log.rows()
    assert (row["outcome"], row["error"]) == ("error", "tuned: CancelledError: ")
    assert 40 < row["latency_ms"] < 30_000


def test_many_async_requests_share_a_log(log, fake_async_client):
    async def all_at_once():
        client = fake_async_client()
        await asyncio.gather(
            *(run_ab_request_async(f"u{n}", MESSAGES, TREATED, client, log=log) for n in range(100))
        )

    asyncio.run(all_at_once())
    assert {row["user_id"] for row in log.rows()} == {f"u{n}" for n in range(100)}


class Completions(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["model"] == "tuned":
            self.reply(500, {"error": {"message": "out of memory"}})
        else:
            message = {"role": "assistant", "content": f"hello from {asked['model']}"}
            usage = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            self.reply(
                200,
                {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 1,
                    "model": asked["model"],
                    "choices": choices,
                    "usage": usage,
                },
            )

    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def address():
    server = HTTPServer(("127.0.0.1", 0), Completions)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_openais_own_clients_work(log, address):
    import openai

    with openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client:
        result = run_ab_request("ann", MESSAGES, CONTROL, client, log=log)
        assert (result.response, result.prompt_tokens) == ("hello from base", 4)
        with pytest.raises(openai.InternalServerError):
            run_ab_request("bob", MESSAGES, TREATED, client, log=log)

    async def ask():
        async with openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0) as client:
            return await run_ab_request_async(
                "eve", MESSAGES, TREATED, client, log=log, fallback=True
            )

    assert asyncio.run(ask()).response == "hello from base"
    assert [(row["user_id"], row["outcome"], row["fallback"]) for row in log.rows()] == [
        ("ann", "ok", False),
        ("bob", "error", False),
        ("eve", "ok", True),
    ]
