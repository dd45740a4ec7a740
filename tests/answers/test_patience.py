"""A rate limit is a state of the account, an outage one of the server: neither costs a row, and both have an end."""

import json
import os
import signal
import threading
import time
from collections import Counter, deque

import pytest
from faulty_server import FaultyServer

from evalkit import run_automated_eval
from evalkit.answers.journal import read_journal
from evalkit.errors import DesignError, ModelError


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Asks so many questions of a server, with a journal."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")
    path = tmp_path / "test.jsonl"

    def asked(server, n=40, **options):
        turns = [{"role": "user"}, {"role": "assistant"}]
        rows = ([one | {"content": f"question {i}"} for one in turns] for i in range(n))
        path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
        given = {"progress": False, "timeout_s": 5, "concurrency": 8, **options}
        return run_automated_eval(
            "m", path, base_url=server.url, journal=tmp_path / "m.jsonl", **given
        )

    asked.kept = lambda: Counter(
        one.answer.outcome for one in read_journal(tmp_path / "m.jsonl").entries
    )
    return asked


def at_most(n, every_s, refusal):
    """So many requests in any window of `every_s`; the others are refused."""
    let_through = deque()

    def behave(hit):
        now = time.monotonic()
        while let_through and let_through[0] < now - every_s:
            let_through.popleft()
        if len(let_through) >= n:
            return refusal
        let_through.append(now)
        return "echo"

    return behave


def after(n, server, then):
    """Does something once the server was asked so often."""

    def watch():
        while len(server.hits) < n:
            time.sleep(0.005)
        then()

    threading.Thread(target=watch, daemon=True).start()


def away_for(server, seconds):
    def go():
        server.leave()
        time.sleep(seconds)
        server.come_back()

    return go


@pytest.mark.slow
@pytest.mark.parametrize("refusal", ["429 in words", "429", "429 wait in ms", "429 in 200"])
def test_a_throttled_account_answers_every_row(ask, refusal):
    with FaultyServer(at_most(10, 1.0, refusal), delay_s=0.01) as server:
        results = ask(server, n=40, concurrency=16)
    assert [one.predicted for one in results] == [f"question {i}" for i in range(40)]
    assert ask.kept() == {"ok": 40}


def test_a_refusal_for_the_rate_stops_only_the_call_it_concerns(ask):
    def behave(hit):
        n_times = [one.asked for one in server.hits].count("question 1")
        return "429 wait a second" if hit.asked == "question 1" and n_times == 1 else "echo"

    with FaultyServer(behave, delay_s=0.01) as server:
        results = ask(server, n=200)
    assert {one.outcome for one in results} == {"ok"}
    assert len(server.hits) == 201
    refused, again = (hit.number for hit in server.hits if hit.asked == "question 1")
    assert again - refused > 2 * 8  # the others went on: not only those that were under way


def test_refusals_without_end_do_not_ask_ever_more(ask):
    behave = lambda hit: "ok" if hit.number == 1 else "429 wait a little"  # noqa: E731
    told = r"rate limited for [12] s.*given up after patience_s = 1"
    with FaultyServer(behave) as server, pytest.raises(ModelError, match=told):
        ask(server, n=200, concurrency=16, patience_s=1)
    # 16 places at once, and half of them again before calls keep their places; then one at a time
    assert len(server.hits) < 60
    assert ask.kept() == {"ok": 1}


def test_a_wait_longer_than_our_patience_stops_at_once(ask):
    behave = lambda hit: "ok" if hit.number <= 5 else "429 wait 600"  # noqa: E731
    told = "asks to wait 600 s, patience_s is 60: start again later"
    with FaultyServer(behave) as server, pytest.raises(ModelError, match=told):
        ask(server, patience_s=60)
    assert ask.kept()["ok"] == 5


def test_a_row_too_large_for_the_rate_fails_alone(ask):
    behave = lambda hit: "429 too large" if hit.asked == "question 7" else "echo"  # noqa: E731
    with FaultyServer(behave) as server:
        results = ask(server)
    assert Counter(one.outcome for one in results) == {"ok": 39, "error": 1}
    assert len(server.hits) == 40


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_server_that_is_away_for_a_while_is_waited_for(ask, concurrency):
    with FaultyServer(lambda hit: "echo", delay_s=0.01) as server:
        after(15, server, away_for(server, 0.5))
        results = ask(
            server, attempts=3, concurrency=concurrency
        )  # at most two are lost as it begins
    assert [one.predicted for one in results] == [f"question {i}" for i in range(40)]
    assert ask.kept() == {"ok": 40}


@pytest.mark.parametrize(
    ("fault", "concurrency"), [("502", 8), ("503", 1), ("reset", 8), ("cut body", 1), ("slow", 8)]
)
def test_a_gateway_without_a_server_behind_it_is_an_outage_too(ask, fault, concurrency):
    away_until = []

    def behave(hit):
        if hit.number == 15:
            away_until.append(time.monotonic() + 0.5)
        return fault if away_until and time.monotonic() < away_until[0] else "echo"

    with FaultyServer(behave, delay_s=0.01) as server:
        results = ask(server, attempts=3, concurrency=concurrency, timeout_s=0.4)
    assert {one.outcome for one in results} == {"ok"}
    assert len(server.hits) < 40 + 3 * 8 + 10  # three tries of those under way, then single probes


def test_nobody_there_any_more_ends_the_run_when_patience_does(ask):
    with FaultyServer(lambda hit: "echo", delay_s=0.01) as server:
        after(15, server, server.leave)
        started = time.monotonic()
        with pytest.raises(
            ModelError, match=r"no connection for [12] s.*patience_s = 1: start again"
        ):
            ask(server, patience_s=1)
        took = time.monotonic() - started
        n_kept = ask.kept()["ok"]
        assert 1 < took < 3
        assert 5 <= n_kept < 40
        server.come_back()
        before = len(server.hits)
        assert {one.outcome for one in ask(server)} == {"ok"}
        assert len(server.hits) - before == 40 - n_kept


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_row_that_breaks_the_server_fails_alone(ask, concurrency):
    behave = lambda hit: "reset" if hit.asked == "question 20" else "echo"  # noqa: E731
    with FaultyServer(behave, delay_s=0.01) as server:
        results = ask(server, attempts=2, concurrency=concurrency)
    assert Counter(one.outcome for one in results) == {"ok": 39, "error": 1}


def test_a_last_row_that_breaks_the_server_fails_alone_when_patience_ends(ask):
    behave = lambda hit: "503" if hit.asked == "question 39" else "echo"  # noqa: E731
    with FaultyServer(behave) as server:
        results = ask(server, patience_s=0.5)
    assert [one.outcome for one in results] == ["ok"] * 39 + ["error"]


@pytest.mark.parametrize("fault", ["401", "403", "429 quota", "quota in 200"])
def test_a_key_or_a_quota_that_is_spent_in_mid_run_stops_at_once(ask, fault):
    with FaultyServer(lambda hit: "echo" if hit.number <= 10 else fault) as server:
        started = time.monotonic()
        with pytest.raises(ModelError, match=r"quota|key"):
            ask(server, n=200)
    assert time.monotonic() - started < 2
    assert len(server.hits) < 30
    assert ask.kept() == {"ok": 10}


@pytest.mark.parametrize("how", ["away", "429 wait 600"])
def test_stop_works_while_the_run_waits(ask, how):
    with FaultyServer(lambda hit: "echo" if hit.number <= 15 else how, delay_s=0.01) as server:
        if how == "away":
            server.behave = lambda hit: "echo"
            after(15, server, server.leave)
        pressed = []

        def press():
            time.sleep(0.8)
            pressed.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        after(15, server, press)
        with pytest.raises(KeyboardInterrupt):
            ask(server)
        assert time.monotonic() - pressed[0] < 1
    assert 5 <= ask.kept()["ok"] < 40


@pytest.mark.parametrize("value", [-1, float("nan"), "600", None])
def test_patience_is_a_number_of_seconds(ask, value):
    with FaultyServer() as server, pytest.raises(DesignError, match=r"patience_s is .*at least 0"):
        ask(server, patience_s=value)
    with FaultyServer() as server, pytest.raises(DesignError, match="max_reply_mb is 0; need"):
        ask(server, max_reply_mb=0)
