"""A run as a user starts it, against a real server: kept, resumed, stopped, counted."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pandas as pd
import pytest
from faulty_server import ANSWER, FaultyServer

from evalkit import run_automated_eval
from evalkit.answers.evaluation import Evaluation
from evalkit.answers.journal import answers_hash, read_journal
from evalkit.answers.runner import (
    results_from_journal,
    run_automated_eval_async,
    stream_eval,
)
from evalkit.errors import DataError, DesignError, ModelError
from evalkit.study import named


@pytest.fixture
def test_file(tmp_path):
    """Makes a test set of n questions, the first of which the server's answer fits."""

    def made(n=20, **more):
        path = tmp_path / f"test-{n}.jsonl"
        rows = [
            {
                "id": f"q{i}",
                "messages": [
                    {"role": "user", "content": f"question {i}"},
                    {"role": "assistant", "content": ANSWER if i == 0 else f"question {i}"},
                ],
                "metadata": {"parity": i % 2},
                **more,
            }
            for i in range(n)
        ]
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
        return path

    return made


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")
    return "sk-canary-0123456789abcdef"


def interrupt_when(condition):
    """Presses Stop as soon as the condition holds, and notes when."""
    pressed = []

    def watch():
        deadline = time.monotonic() + 30
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
    return pressed


def run(server, path, **options):
    return run_automated_eval(
        "m", path, base_url=server.url, progress=False, **{"timeout_s": 5, **options}
    )


def test_results_stand_in_file_order_with_the_articles_fields(test_file):
    with FaultyServer() as server:
        results = run(server, test_file(20), slice_fields=("parity",))
    assert [result.example_id for result in results] == [f"q{i}" for i in range(20)]
    first, second = results[:2]
    assert (first.input_text, first.expected, first.predicted) == ("question 0", ANSWER, ANSWER)
    assert (first.exact_match, second.exact_match, first.format_correct) == (True, False, True)
    assert (second.slices, second.outcome, second.prompt_tokens) == ({"parity": "1"}, "ok", 20)


def test_so_many_calls_are_under_way_at_once_and_no_more(test_file):
    with FaultyServer(delay_s=0.03) as server:
        run(server, test_file(40), concurrency=8)
    assert server.most_in_flight == 8


def test_the_first_call_goes_alone_and_a_wrong_key_or_name_costs_one_call(test_file):
    for fault in ("401", "404", "429 quota"):
        with FaultyServer(lambda hit, fault=fault: fault) as server, pytest.raises(ModelError):
            run(server, test_file(20))
        assert len(server.hits) == 1


def test_a_second_run_asks_nothing_and_gives_the_same_results(test_file, tmp_path):
    journal = tmp_path / "m.jsonl"
    with FaultyServer(lambda hit: "echo") as server:
        first = run(server, test_file(20), journal=journal)
        size = journal.stat().st_size
        again = run(server, test_file(20), journal=journal)
    assert len(server.hits) == 20
    assert again == first
    assert journal.stat().st_size == size
    assert results_from_journal(journal, test_file(20)) == first


def test_a_journal_that_answers_everything_needs_no_endpoint(test_file, tmp_path, monkeypatch):
    with FaultyServer() as server:
        first = run(server, test_file(3), journal=tmp_path / "m.jsonl")
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert (
        run_automated_eval("m", test_file(3), journal=tmp_path / "m.jsonl", progress=False) == first
    )
    with pytest.raises(ModelError, match="no endpoint"):
        run_automated_eval("m", test_file(4), journal=tmp_path / "n.jsonl", progress=False)


def test_samples_are_asked_and_numbered_and_more_of_them_go_on_from_there(test_file, tmp_path):
    journal = tmp_path / "m.jsonl"
    with FaultyServer() as server:
        run(server, test_file(3), journal=journal)
        results = run(server, test_file(3), journal=journal, samples=3)
    assert len(server.hits) == 9
    assert [(result.example_id, result.sample) for result in results[:4]] == [
        ("q0", 0),
        ("q0", 1),
        ("q0", 2),
        ("q1", 0),
    ]
    assert len(results_from_journal(journal, test_file(3))) == 9
    assert len(results_from_journal(journal, test_file(3), samples=1)) == 3


def test_errors_are_asked_again_but_refused_truncated_and_empty_are_answers(test_file, tmp_path):
    journal, faults = (
        tmp_path / "m.jsonl",
        {"q1": "400 too long", "q2": "refusal", "q3": "length", "q4": "null content"},
    )
    with FaultyServer(lambda hit: faults.get(hit.asked.replace("question ", "q"), "ok")) as server:
        outcomes = [result.outcome for result in run(server, test_file(6), journal=journal)]
        assert outcomes == ["ok", "error", "refused", "truncated", "empty", "ok"]
        faults.clear()
        outcomes = [result.outcome for result in run(server, test_file(6), journal=journal)]
    assert outcomes == ["ok", "ok", "refused", "truncated", "empty", "ok"]
    assert [hit.asked for hit in server.hits[6:]] == ["question 1"]
    assert Counter(entry.answer.outcome for entry in read_journal(journal).entries)["error"] == 0


def test_the_header_says_what_was_asked_of_whom(test_file, tmp_path, key):
    journal = tmp_path / "m.jsonl"
    with FaultyServer() as server:
        run(
            server, test_file(2), journal=journal, endpoint="local", max_tokens=96, seed=0, system_prompt="Be brief.",
            extra_body={"top_k": 1}, about={"server": "faulty"},
        )  # fmt: skip
    head = read_journal(journal).header
    assert (head["model"], head["endpoint"], head["system_prompt"]) == ("m", "local", "Be brief.")
    assert head["parameters"] == {"temperature": 0.0, "max_tokens": 96, "seed": 0, "top_k": 1}
    assert head["about"] == {"server": "faulty", "system_prompt_use": "prepended"}
    assert len(head["test_set"]) == 64
    assert server.hits[0].body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert key not in journal.read_text()
    assert (
        server.url not in journal.read_text()
    )  # the address is not part of it: the answers are the model's


def test_another_address_finds_the_same_answers(test_file, tmp_path):
    with FaultyServer() as one:
        run(one, test_file(3), journal=tmp_path / "m.jsonl")
    with FaultyServer() as other:
        run(other, test_file(3), journal=tmp_path / "m.jsonl")
    assert other.hits == []


def test_a_journal_of_other_parameters_is_refused_before_anything_is_asked(test_file, tmp_path):
    with FaultyServer() as server:
        run(server, test_file(2), journal=tmp_path / "m.jsonl")
        with pytest.raises(DataError, match=r"temperature.*name another journal"):
            run(server, test_file(2), journal=tmp_path / "m.jsonl", temperature=0.7)
    assert len(server.hits) == 2


def test_changed_rows_are_asked_again_and_said(test_file, tmp_path):
    journal, path = tmp_path / "m.jsonl", test_file(4)
    with FaultyServer() as server:
        run(server, path, journal=journal)
        path.write_text(path.read_text().replace('"question 3"', '"question three"'))
        with pytest.warns(
            UserWarning, match="no answer to 1 row of 4 .*line 4.*1 of them asked in other words"
        ):
            assert len(results_from_journal(journal, path)) == 3
        with pytest.warns(UserWarning, match="another version of the test set"):
            run(server, path, journal=journal)
    assert [hit.asked for hit in server.hits[4:]] == ["question three"]


def test_a_journal_that_answers_none_of_the_rows_is_refused(test_file, tmp_path):
    with FaultyServer() as server:
        run(server, test_file(2), journal=tmp_path / "m.jsonl")
    other = tmp_path / "other.jsonl"
    other.write_text(test_file(2).read_text().replace("question", "frage"))
    with pytest.raises(DataError, match="no answer to 2 rows of 2"):
        results_from_journal(tmp_path / "m.jsonl", other)


def test_a_limit_takes_the_first_rows_from_server_and_journal(test_file, tmp_path):
    with FaultyServer() as server:
        assert len(run(server, test_file(20), journal=tmp_path / "m.jsonl", limit=5)) == 5
        assert len(run(server, test_file(20), journal=tmp_path / "m.jsonl")) == 20
    assert len(server.hits) == 20
    assert len(results_from_journal(tmp_path / "m.jsonl", test_file(20), limit=7)) == 7


@pytest.mark.slow
def test_nothing_is_lost_when_every_seventh_call_fails(test_file, tmp_path):
    # of 100 first attempts 5 are told 429, 5 fail with 500, 3 are cut off and 2 hang; a second attempt fares as badly
    seen = Counter()
    faults = {**dict.fromkeys(range(5), "429 wait a little"), **dict.fromkeys(range(5, 10), "500")}
    faults |= {10: "reset", 11: "reset", 12: "cut body", 13: "slow", 14: "slow"}

    def behave(hit):
        seen[hit.asked] += 1
        return faults.get((int(hit.asked.split()[1]) * 37 + 53 * seen[hit.asked]) % 100, "echo")

    with FaultyServer(behave) as server:
        results = run(
            server, test_file(500), journal=tmp_path / "m.jsonl", concurrency=64, timeout_s=2
        )
    assert Counter(result.outcome for result in results) == {"ok": 500}
    assert all(result.predicted == result.input_text for result in results)
    assert 560 < len(server.hits) < 620  # 500 and about 15% of them again, and of those again
    assert sum(
        entry.answer.attempts for entry in read_journal(tmp_path / "m.jsonl").entries
    ) == len(server.hits)


def test_a_server_that_breaks_for_good_stops_the_run_and_the_answers_are_kept(test_file, tmp_path):
    with FaultyServer(lambda hit: "ok" if hit.number <= 10 else "400 too long") as server:
        with pytest.raises(
            ModelError, match="5 calls in a row failed, the last with: 400: maximum context length"
        ):
            run(server, test_file(200), journal=tmp_path / "m.jsonl", abort_after=5, concurrency=4)
        assert len(server.hits) < 25
    kept = Counter(entry.answer.outcome for entry in read_journal(tmp_path / "m.jsonl").entries)
    assert kept["ok"] == 10
    assert kept["error"] >= 5


def test_quota_used_up_in_the_middle_stops_the_run(test_file, tmp_path):
    with FaultyServer(lambda hit: "ok" if hit.number <= 10 else "429 quota") as server:
        with pytest.raises(ModelError, match="no quota left"):
            run(server, test_file(200), journal=tmp_path / "m.jsonl", concurrency=4)
        assert len(server.hits) < 20
    assert len(read_journal(tmp_path / "m.jsonl").entries) == 10


def test_a_served_model_that_changes_is_warned_of_and_recorded(test_file, tmp_path):
    with FaultyServer(lambda hit: "other model" if hit.number > 3 else "ok") as server:
        with pytest.warns(
            UserWarning, match=r"model changed: 'm' \(3 answers\) and 'm-2' \(2 answers\)"
        ):
            run(server, test_file(5), journal=tmp_path / "m.jsonl", concurrency=1)
        served = [entry.answer.served_model for entry in read_journal(tmp_path / "m.jsonl").entries]
    assert served == ["m"] * 3 + ["m-2"] * 2


def test_it_works_inside_a_running_loop_as_in_jupyter(test_file):
    async def cell():
        return run(server, test_file(5))

    with FaultyServer() as server:
        assert len(asyncio.run(cell())) == 5


@pytest.mark.parametrize("called", [run_automated_eval, run_automated_eval_async])
def test_a_wrong_argument_is_told_with_the_functions_name(called):
    with pytest.raises(TypeError, match=rf"^{called.__name__}\(\) missing .*'model'"):
        called()
    with pytest.raises(TypeError, match=rf"^{called.__name__}\(\) got .*'sampels'"):
        called("m", "t.jsonl", sampels=3)


def test_a_system_prompt_that_is_no_text_is_refused(test_file):
    with pytest.raises(DesignError, match=r"system_prompt None: need a text"):
        run_automated_eval("m", test_file(1), None)  # pyright: ignore[reportArgumentType]


def test_the_async_twin_gives_the_same_in_the_callers_loop(test_file, tmp_path):
    with FaultyServer(lambda hit: "echo") as server:
        plain = run(server, test_file(5), journal=tmp_path / "m.jsonl")
        twin = asyncio.run(
            run_automated_eval_async(
                "m", test_file(5), base_url=server.url, journal=tmp_path / "m.jsonl", progress=False
            )
        )
    assert twin == plain
    assert len(server.hits) == 5


def test_both_twins_take_the_same_arguments():
    import inspect

    assert (
        inspect.signature(run_automated_eval).parameters
        == inspect.signature(run_automated_eval_async).parameters
    )
    assert list(inspect.signature(run_automated_eval).parameters)[:3] == [
        "model",
        "test_file",
        "system_prompt",
    ]


def test_stop_stops_and_keeps_what_was_finished(test_file, tmp_path):
    with FaultyServer(lambda hit: "slow" if hit.number > 10 else "ok") as server:
        pressed = interrupt_when(lambda: len(server.hits) >= 14)  # 10 are answered, 4 hang for 5 s
        with pytest.raises(KeyboardInterrupt):
            run(server, test_file(50), journal=tmp_path / "m.jsonl", concurrency=4)
        assert time.monotonic() - pressed[0] < 3
    assert len(read_journal(tmp_path / "m.jsonl").entries) == 10
    with FaultyServer() as server:
        assert len(run(server, test_file(50), journal=tmp_path / "m.jsonl")) == 50
    assert len(server.hits) == 40


def test_stop_does_not_wait_for_a_function_that_hangs(test_file):
    release, entered = threading.Event(), threading.Event()

    def hangs(messages):
        entered.set()
        release.wait(20)
        return "x"

    pressed = interrupt_when(entered.is_set)
    with pytest.raises(KeyboardInterrupt):
        run_automated_eval(hangs, test_file(5), progress=False)
    took = time.monotonic() - pressed[0]
    release.set()
    assert took < 3


@pytest.mark.slow
def test_killed_in_the_middle_no_finished_call_is_made_twice(test_file, tmp_path):
    journal, path = tmp_path / "m.jsonl", test_file(60)
    script = (
        "import sys; from evalkit import run_automated_eval\n"
        "run_automated_eval('m', sys.argv[1], journal=sys.argv[2], concurrency=8)\n"
    )
    with FaultyServer(delay_s=0.1) as server:
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(path), str(journal)],
            env={**os.environ, "OPENAI_BASE_URL": server.url},
            stderr=subprocess.DEVNULL,
        )
        while len(server.hits) < 30:
            time.sleep(0.02)
        child.kill()
        child.wait()
        finished = {json.loads(line)["example_id"] for line in journal.read_text().splitlines()[1:]}
        n_before = len(server.hits)
        results = run(server, path, journal=journal, concurrency=8)
    asked_after = {hit.asked.replace("question ", "q") for hit in server.hits[n_before:]}
    assert len(finished) >= 20
    assert not asked_after & finished
    assert len(server.hits) <= 60 + 8
    assert len(results) == 60


def same_prompt(tmp_path, n=6):
    """Rows with one and the same prompt, and one other after the second of them."""
    asked = ["again"] * 2 + ["another"] + ["again"] * (n - 2)
    rows = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": "1"}] for text in asked
    ]
    path = tmp_path / "same.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"q{i}", "messages": row}) + "\n" for i, row in enumerate(rows))
    )
    return path


@pytest.mark.parametrize("fails", [False, True])
def test_rows_with_the_same_prompt_share_one_call_and_every_reading_agrees(tmp_path, fails):
    calls, path, journal = Counter(), same_prompt(tmp_path), tmp_path / "m.jsonl"

    async def model(messages):
        calls[messages[-1]["content"]] += 1
        await asyncio.sleep(0.05)
        if fails and sum(calls.values()) == 1:
            raise ValueError("down for a moment")
        return str(sum(calls.values()))  # another answer each time

    first = run_automated_eval(model, path, name="m", journal=journal, progress=False)
    assert calls == {"again": 1, "another": 1}
    assert results_from_journal(journal, path) == first
    bound = answers_hash(journal)
    second = run_automated_eval(model, path, name="m", journal=journal, progress=False)
    assert (second == first, answers_hash(journal) == bound) == (
        not fails,
        not fails,
    )  # failed calls are made again


def test_rows_with_the_same_prompt_in_the_pool_share_one_call(tmp_path):
    n_calls, path = 0, tmp_path / "pool.jsonl"
    rows = [{"id": f"q{i}", "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "1"}]}
            for i, text in enumerate(["first", *["again"] * 8])]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    async def model(messages):
        nonlocal n_calls
        n_calls += 1
        await asyncio.sleep(0.05)
        return str(n_calls)

    kept = tmp_path / "m.jsonl"
    results = run_automated_eval(model, path, name="m", journal=kept, progress=False)
    assert n_calls == 2
    assert [one.predicted for one in results] == ["1", *["2"] * 8]
    run_automated_eval(model, path, progress=False)  # nothing is kept, so each row is asked
    assert n_calls == 2 + 9


def test_two_runs_on_one_journal_the_second_is_refused(test_file, tmp_path):
    journal, refused = tmp_path / "m.jsonl", []

    def second():
        while not server.hits:
            time.sleep(0.02)
        try:
            run(server, test_file(10), journal=journal)
        except DataError as why:
            refused.append(str(why))

    with FaultyServer(delay_s=0.1) as server:
        other = threading.Thread(target=second)
        other.start()
        assert len(run(server, test_file(10), journal=journal, concurrency=1)) == 10
        other.join()
    assert len(refused) == 1
    assert "another run is writing this journal" in refused[0]
    assert len(server.hits) == 10


def test_a_full_disk_stops_the_run_with_a_plain_message(test_file):
    with FaultyServer() as server, pytest.raises(DataError, match="No space left on device"):
        run(server, test_file(3), journal="/dev/full")
    assert server.hits == []


def test_functions_are_models_too_sync_and_async(test_file, tmp_path):
    async def later(messages):
        await asyncio.sleep(0.01)
        return messages[-1]["content"]

    for model in (lambda messages: messages[-1]["content"], later):
        results = run_automated_eval(model, test_file(20), progress=False)
        assert [result.predicted for result in results] == [f"question {i}" for i in range(20)]
    kept = {"journal": tmp_path / "f.jsonl", "name": "later", "progress": False}
    results = run_automated_eval(later, test_file(20), **kept)
    head = read_journal(tmp_path / "f.jsonl").header
    assert (head["endpoint"], head["parameters"]) == ("function", {})
    assert head["model"] == "later"


def test_sync_functions_run_side_by_side(test_file):
    barrier = threading.Barrier(4, timeout=5)  # passes only when four are inside at once

    def waits(messages):
        if "question 0" not in messages[-1]["content"]:
            barrier.wait()
        return "x"

    results = run_automated_eval(waits, test_file(9), concurrency=4, progress=False)
    assert {result.outcome for result in results} == {"ok"}


def test_a_function_that_raises_or_returns_no_text_fails_that_row(test_file):
    def model(messages):
        number = int(messages[-1]["content"].split()[1])
        return (
            {1: None, 2: 7, 3: "\ud800"}[number] if number in {1, 2, 3} else str(1 / (number - 4))
        )

    results = run_automated_eval(model, test_file(6), progress=False)
    assert [result.outcome for result in results] == ["ok", "empty", "error", "ok", "error", "ok"]
    assert results[2].error == "the model function returned int; it must return text"
    assert results[3].predicted == "\\ud800"
    assert results[4].error == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("option", ["concurrency", "samples", "attempts", "abort_after"])
def test_what_cannot_be_is_refused(test_file, option):
    with pytest.raises(DesignError, match=f"{option} is 0; need a whole number of at least 1"):
        run_automated_eval("m", test_file(2), **{option: 0})
    with pytest.raises(DesignError, match=f"{option} is 1.5"):
        run_automated_eval("m", test_file(2), **{option: 1.5})


@pytest.mark.parametrize(
    "options", [{"limit": -1}, {"system_prompt_mode": "append"}, {"checker": None}, {"model": None}]
)
def test_what_would_silently_ask_nothing_or_something_else_is_refused(test_file, options):
    with pytest.raises(
        DesignError, match=f"{next(iter(options))}.* {next(iter(options.values()))}|'append'"
    ):
        run_automated_eval(
            **{"model": str, "test_file": test_file(2), "progress": False, **options}
        )


def test_one_scorer_may_be_given_as_it_is(test_file):
    def length(expected, predicted):
        return len(predicted) / 10

    results = run_automated_eval(lambda _: "four", test_file(2), scorers=length, progress=False)
    assert results[0].scores == {"length": 0.4}


def test_names_that_can_be_read_only_once_are_read_once(test_file):
    results = run_automated_eval(
        lambda _: "question 1",
        test_file(2),
        scorers=iter(["exact", "similarity"]),
        slice_fields=(name for name in ["parity"]),
        name="m",
        progress=False,
    )
    assert results[1].scores == {"exact": 1.0, "similarity": 1.0}
    assert results[1].slices == {"parity": "1"}


@pytest.mark.parametrize(
    "options", [{"checker": "no such"}, {"scorers": ["no such"]}, {"slice_fields": "no such"}]
)
def test_an_unknown_checker_scorer_or_field_costs_no_call(test_file, tmp_path, options):
    with FaultyServer() as server, pytest.raises((DataError, DesignError), match="no such"):
        run(server, test_file(2), journal=tmp_path / "m.jsonl", **options)
    assert server.hits == []


def test_several_names_may_stand_in_one_text(test_file):
    with FaultyServer() as server:
        results = run(server, test_file(2), scorers="exact, similarity", slice_fields="parity")
    assert set(results[0].scores) == {"exact", "similarity"}
    assert results[0].slices == {"parity": "0"}


@pytest.mark.parametrize("kind", [set, dict.fromkeys, pd.Index, pd.Series, iter])
def test_several_names_may_come_as_a_set_or_as_the_columns_of_a_frame(kind):
    assert sorted(named(kind(["exact", " tool_call"]))) == ["exact", "tool_call"]


def test_a_broken_test_file_costs_no_call(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("{oops\n")
    with FaultyServer() as server, pytest.raises(DataError, match=r"t\.jsonl:1: not JSON"):
        run(server, path)
    assert server.hits == []


def test_the_stream_yields_as_answers_come_and_can_be_left(test_file):
    async def main():
        seen = []
        stream = stream_eval(
            Evaluation(
                model="m",
                test_file=test_file(50),
                base_url=server.url,
                concurrency=2,
                keep=False,
                progress=False,
            )
        )
        async for result in stream:
            seen.append(result.example_id)
            if len(seen) == 5:
                break
        await stream.aclose()
        return seen

    with FaultyServer(delay_s=0.02) as server:
        assert len(asyncio.run(main())) == 5
        assert len(server.hits) < 15  # the rest was never asked


def test_results_do_not_depend_on_how_many_are_asked_at_once(test_file, tmp_path):
    with FaultyServer(lambda hit: "echo") as server:
        for n in (1, 7, 32):
            run(server, test_file(40), journal=tmp_path / f"{n}.jsonl", concurrency=n)
    assert len({answers_hash(tmp_path / f"{n}.jsonl") for n in (1, 7, 32)}) == 1


def test_the_key_is_in_no_file_no_message_and_no_exception(test_file, tmp_path, key, capfd):
    faults = {1: "echo key", 2: "400 too long", **dict.fromkeys(range(3, 40), "500 echo key")}
    with (
        FaultyServer(lambda hit: faults.get(hit.number, "ok")) as server,
        pytest.raises(ModelError) as aborted,
    ):
        run_automated_eval(
            "m",
            test_file(9),
            base_url=server.url,
            journal=tmp_path / "m.jsonl",
            attempts=1,
            abort_after=3,
        )
    with FaultyServer(lambda hit: "401") as server, pytest.raises(ModelError) as refused:
        run_automated_eval("m", test_file(9), base_url=server.url, journal=tmp_path / "n.jsonl")
    shown = capfd.readouterr()
    errors = [
        aborted.value,
        refused.value,
        *[error.__context__ for error in (aborted.value, refused.value)],
    ]
    everything = [
        *map(repr, errors),
        shown.out,
        shown.err,
        *[path.read_text() for path in tmp_path.glob("*.jsonl")],
    ]
    assert server.hits[0].authorization == f"Bearer {key}"
    assert not [text for text in everything if key in text]
    assert "[key removed]" in (tmp_path / "m.jsonl").read_text()


def test_a_lambda_cannot_share_a_journal_with_another(tmp_path):
    (tmp_path / "test.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
    )
    with pytest.raises(DesignError, match="no name of its own"):
        run_automated_eval(
            lambda messages: "a", tmp_path / "test.jsonl", journal=tmp_path / "journal.jsonl"
        )


def test_scoring_a_huge_answer_does_not_hold_up_the_calls_under_way(tmp_path):
    row = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a" * 50_000}]
    rows = [{"messages": [{"role": "user", "content": f"q{i}"}, *row[1:]]} for i in range(3)]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps({"messages": one["messages"]}) + "\n" for one in rows))
    scored_in = set()

    def where(expected, predicted):
        scored_in.add(threading.current_thread())
        return 1.0

    async def main():
        evaluation = Evaluation(
            model=lambda messages: "b", test_file=path, scorers=[where], progress=False
        )
        here = threading.current_thread()
        n = len([one async for one in stream_eval(evaluation)])
        return n, here in scored_in

    assert asyncio.run(main()) == (3, False)
