"""Every fault of an endpoint, from a real server on loopback."""

import asyncio
import subprocess
import sys
import time

import pytest
from faulty_server import ANSWER, FaultyServer

from evalkit.answers.endpoint import Endpoint
from evalkit.answers.evaluation import Parameters
from evalkit.errors import DesignError, ModelError

KEY = "sk-canary-0123456789abcdef"
PROMPT = [{"role": "user", "content": "Pharyngalgia"}]


def ask(server, *, n=1, first=False, parameters=None, **options):
    """Asks n times, one after another."""

    async def main():
        endpoint = Endpoint(
            "m",
            base_url=server.url,
            api_key=KEY,
            parameters=parameters,
            **{"timeout_s": 2, "wait_initial_s": 0.01, **options},
        )
        try:
            return [await endpoint.ask(PROMPT, first=first) for _ in range(n)]
        finally:
            await endpoint.aclose()

    answers = asyncio.run(main())
    return answers[0] if n == 1 else answers


def once(fault):
    """The fault on the first request, then a proper answer."""
    return lambda hit: fault if hit.number == 1 else "ok"


def test_a_proper_answer_carries_text_tokens_latency_and_the_served_name():
    with FaultyServer(delay_s=0.05) as server:
        answer = ask(server)
    assert (answer.text, answer.outcome, answer.finish_reason, answer.attempts) == (
        ANSWER,
        "ok",
        "stop",
        1,
    )
    assert (answer.prompt_tokens, answer.completion_tokens, answer.served_model) == (20, 5, "m")
    assert answer.latency_ms is not None
    assert answer.latency_ms >= 50


def test_json_is_read_whatever_its_content_type_says():
    # as the SDK itself does; home-made servers often send it as text
    with FaultyServer(lambda _: "json as text") as server:
        answer = ask(server)
    assert (answer.text, answer.outcome, answer.attempts) == (ANSWER, "ok", 1)


def test_the_request_holds_what_was_asked_for_and_nothing_else():
    with FaultyServer() as server:
        ask(
            server,
            parameters=Parameters(temperature=None, max_tokens=96, seed=7, extra={"top_k": 1}),
        )
        ask(server)
    assert server.hits[0].body == {
        "model": "m",
        "messages": PROMPT,
        "max_tokens": 96,
        "seed": 7,
        "top_k": 1,
    }
    assert server.hits[1].body == {
        "model": "m",
        "messages": PROMPT,
        "max_tokens": 1024,
        "temperature": 0.0,
    }
    assert server.hits[0].authorization == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("fault", "outcome", "text", "finish_reason"),
    [
        ("null content", "empty", "", "stop"),
        ("blank content", "empty", " \n", "stop"),
        ("refusal", "refused", "I cannot help with that.", "stop"),
        ("content_filter", "refused", "", "content_filter"),
        ("400 filter", "refused", "", "content_filter"),
        ("403 flagged", "refused", "", "content_filter"),
        ("length", "truncated", "R07.0: Pain in", "length"),
        ("list content", "ok", ANSWER, "stop"),
    ],
)
def test_each_edge_of_a_reply_is_an_outcome_and_is_not_asked_again(
    fault, outcome, text, finish_reason
):
    with FaultyServer(lambda hit: fault) as server:
        answer = ask(server)
    assert (answer.outcome, answer.text, answer.finish_reason, answer.attempts) == (
        outcome,
        text,
        finish_reason,
        1,
    )
    assert len(server.hits) == 1


@pytest.mark.parametrize(
    "fault",
    [
        *(
            "429",
            "429 wait a little",
            "500",
            "503",
            "reset",
            "cut body",
            "slow",
            "broken json",
            "html",
        ),
        *("no choices", "null choices", "no message", "error in 200"),
    ],
)
def test_a_passing_fault_is_repeated_by_one_loop(fault):
    with FaultyServer(once(fault)) as server:
        started = time.monotonic()
        answer = ask(server, timeout_s=0.5 if fault == "slow" else 5)
        took_ms = (time.monotonic() - started) * 1000
    assert (answer.text, answer.outcome, answer.attempts) == (ANSWER, "ok", 2)
    assert len(server.hits) == 2  # the SDK's own retries would make it more
    waited_ms = {"slow": 500, "429 wait a little": 200}.get(fault, 0)
    assert 0 < (answer.latency_ms or 0) <= took_ms - waited_ms  # of the attempt that succeeded


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("500", "500: boom (after 3 attempts)"),
        ("429", "429: slow down (after 3 attempts)"),
        ("broken json", "the reply is not JSON"),
        ("html", "the address answers with a web page, not with JSON"),
        ("no choices", "the reply has no choices"),
        ("error in 200", "the reply has no choices: upstream went away"),
        ("slow", "no answer within 0.2 s"),
        ("reset", "no connection ("),
    ],
)
def test_a_lasting_fault_becomes_that_rows_error(fault, said):
    with FaultyServer(lambda hit: fault) as server:
        answer = ask(server, attempts=3, timeout_s=0.2 if fault == "slow" else 5)
    assert (answer.outcome, answer.text, answer.attempts, len(server.hits)) == ("error", "", 3, 3)
    assert said in (answer.error or "")


ERRORS_IN_200 = [
    "502 in choice",
    "502 in choice, partly answered",
    "502 in choice, no reason",
    "502 beside an answer",
    "error without a code",
    "reason error",
    "reason network_error",
    "reason insufficient_system_resource",
    "error as text",
    "error spread",
]


@pytest.mark.parametrize("fault", ERRORS_IN_200)
def test_an_error_told_inside_a_200_is_an_error_and_is_repeated(fault):
    with FaultyServer(once(fault)) as server:
        answer = ask(server)
    assert (answer.text, answer.outcome, answer.attempts) == (ANSWER, "ok", 2)
    with FaultyServer(lambda hit: fault) as server:
        answer = ask(server, attempts=2)
    assert (answer.text, answer.outcome, len(server.hits)) == ("", "error", 2)
    assert answer.error


def test_an_error_inside_a_200_is_told_in_the_servers_words():
    with FaultyServer(lambda hit: "502 in choice") as server:
        answer = ask(server, attempts=1)
    assert answer.error == (
        "502: the server told an error instead of an answer: Provider returned error"
    )


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("400 in choice", "error"),
        ("403 in choice", "error"),
        ("too long in 200", "error"),
        ("filter in choice", "refused"),
        ("success as error", "ok"),
        ("empty error", "ok"),
    ],
)
def test_what_no_repeating_cures_inside_a_200_costs_one_call(fault, outcome):
    with FaultyServer(lambda hit: fault) as server:
        answer = ask(server)
    assert (answer.outcome, len(server.hits)) == (outcome, 1)


@pytest.mark.parametrize("fault", ["quota in 200", "401 in 200"])
def test_a_key_or_a_quota_refused_inside_a_200_stops_the_run(fault):
    with FaultyServer(lambda hit: fault) as server:
        with pytest.raises(ModelError, match=r"quota|not accepted"):
            ask(server)
        assert len(server.hits) == 1


@pytest.mark.parametrize(
    "fault", ["429 out of credits", "429 quota in a list", "400 out of credits"]
)
def test_a_quota_that_only_words_call_spent_stops_the_run(fault):
    with FaultyServer(lambda hit: fault) as server:
        with pytest.raises(ModelError, match=r"no quota left \(4..: You[^{]*\)"):
            ask(server, patience_s=5)
        assert len(server.hits) == 1


def test_a_quota_that_comes_back_in_a_moment_is_a_rate_limit():
    with FaultyServer(once("429 quota of a minute")) as server:
        assert ask(server, patience_s=5).text == ANSWER


def test_retry_after_is_waited_for():
    with FaultyServer(once("429 wait a little")) as server:
        started = time.monotonic()
        ask(server)
        took = time.monotonic() - started
    assert took >= 0.2


@pytest.mark.parametrize(
    ("fault", "at_least"),
    [
        ("429 wait in ms", 0.2),
        ("429 wait in ms of Azure", 0.2),
        ("429 wait for the limit", 1.0),
        ("429 wait for a limit of old", 1.0),
        ("429 wait till 2001", 0.0),
        ("429 wait nan", 0.0),
    ],
)
def test_each_form_of_retry_after_is_understood(fault, at_least):
    with FaultyServer(once(fault)) as server:
        started = time.monotonic()
        assert ask(server).attempts == 2
        assert at_least <= time.monotonic() - started < 10


def test_when_one_call_is_told_to_wait_the_others_go_on():
    async def main(server):
        endpoint = Endpoint("m", base_url=server.url, api_key=KEY, wait_initial_s=0.01)
        try:
            first = asyncio.create_task(endpoint.ask(PROMPT))
            while not server.hits:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            started = time.monotonic()
            await endpoint.ask(PROMPT)
            took = time.monotonic() - started
            await first
        finally:
            await endpoint.aclose()
        return took

    with FaultyServer(once("429 wait a second")) as server:
        assert asyncio.run(main(server)) < 0.3  # of the second, 0.7 were left


def test_a_wait_beyond_the_limit_is_an_error_that_states_the_limit():
    with FaultyServer(lambda hit: "429 wait 600") as server:
        started = time.monotonic()
        answer = ask(server)
        took = time.monotonic() - started
    assert answer.outcome == "error"
    assert answer.error == "429: slow down; the server asks to wait 600 s"
    assert len(server.hits) == 1
    assert took < 5


@pytest.mark.parametrize("fault", ["401", "404", "429 quota", "400 parameter"])
def test_what_no_repeating_cures_stops_the_run(fault):
    with FaultyServer(lambda hit: fault) as server:
        with pytest.raises(ModelError, match=r"'m'|quota") as caught:
            ask(server)
        assert len(server.hits) == 1
    assert "127.0.0.1" in str(caught.value)


def test_a_row_that_is_too_long_fails_alone_and_is_not_repeated():
    with FaultyServer(once("400 too long")) as server:
        first, second = ask(server, n=2)
    assert (first.outcome, first.error, first.attempts) == (
        "error",
        "400: maximum context length is 4096 tokens",
        1,
    )
    assert second.outcome == "ok"


def test_the_first_call_finds_out_that_the_address_is_no_endpoint():
    with (
        FaultyServer(lambda hit: "html") as server,
        pytest.raises(ModelError, match="is OPENAI_BASE_URL right"),
    ):
        ask(server, first=True, attempts=3)


@pytest.mark.parametrize("fault", ["no choices", "broken json", "reset", "500", "slow"])
def test_a_first_call_that_fails_otherwise_is_only_a_row(fault):
    with FaultyServer(lambda hit: fault) as server:
        assert ask(server, first=True, attempts=3, timeout_s=0.2).outcome == "error"


def test_a_server_that_hangs_costs_three_time_outs():
    with FaultyServer(lambda hit: "slow") as server:
        answer = ask(server, timeout_s=0.1)
    assert (answer.attempts, answer.error) == (3, "no answer within 0.1 s (after 3 attempts)")


def test_after_patience_in_vain_the_next_calls_are_brief_until_one_is_answered():
    with FaultyServer(lambda hit: "ok" if hit.number in {9, 10} else "500") as server:
        answers = ask(server, n=5, attempts=6)
    # 6 attempts, then 2, then the 9th and 10th request are answered, then 6 again
    assert [answer.attempts for answer in answers] == [6, 2, 1, 1, 6]


def test_a_short_wait_asked_for_again_and_again_grows():
    with FaultyServer(lambda hit: "429 wait a little" if hit.number <= 3 else "ok") as server:
        started = time.monotonic()
        ask(server, wait_initial_s=0.2)
        took = time.monotonic() - started
    assert (
        took >= 0.2 + 0.4 + 0.8
    )  # the back-off's doubling, since the server's 0.2 s were never enough


@pytest.mark.parametrize("key", ["x", "EMPTY", "Pain"])
def test_a_placeholder_for_a_key_does_not_change_answers(key):
    async def main(url):
        endpoint = Endpoint("m", base_url=url, api_key=key)
        try:
            return await endpoint.ask(PROMPT)
        finally:
            await endpoint.aclose()

    with FaultyServer() as server:
        assert asyncio.run(main(server.url)).text == ANSWER


def test_nobody_listening_is_said_at_once():
    with FaultyServer() as server:
        pass
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"ConnectionRefusedError.*is the server running"):
        ask(server, first=True)
    assert time.monotonic() - started < 2


def test_thoughts_are_kept_apart_unless_they_are_wanted_in_the_answer():
    with FaultyServer(lambda hit: "think") as server:
        apart, kept = ask(server), ask(server, parameters=Parameters(strip_think=False))
    assert (apart.text, apart.thinking) == (ANSWER, "throat, so R07")
    assert kept.text.startswith("<think>")
    # journals keep their keys: those begun with strip_think=True have it in them, all others nothing
    assert Parameters(strip_think=True).recorded()["strip_think"] is True
    assert Parameters(strip_think=False).recorded()["strip_think"] is False
    assert "strip_think" not in Parameters().recorded()


def test_text_that_no_file_can_hold_is_cleaned_once_and_flagged():
    with FaultyServer(lambda hit: "surrogate") as server:
        answer = ask(server)
    assert (answer.text, answer.sanitized) == ("half a smile \\ud83d", True)
    answer.text.encode("utf-8")


def everything_said(error):
    """An exception with all it drags along, as a log or a notebook could show it."""
    seen = []
    while error is not None:
        seen += [repr(error), str(error), repr(error.args)]
        error = error.__cause__ or error.__context__
    return " ".join(seen)


@pytest.mark.parametrize("key", [KEY, "no-known-form-of-a-key-77"])
def test_a_key_the_server_echoes_is_removed_everywhere(key):
    async def main(url):
        endpoint = Endpoint("m", base_url=url, api_key=key, attempts=2, wait_initial_s=0.01)
        try:
            return [await endpoint.ask(PROMPT), await endpoint.ask(PROMPT)], await refused(endpoint)
        finally:
            await endpoint.aclose()

    async def refused(endpoint):
        with pytest.raises(ModelError) as caught:
            await endpoint.ask(PROMPT)
        return caught.value

    faults = {1: "echo key", 2: "500 echo key", 3: "500 echo key", 4: "401"}
    with FaultyServer(lambda hit: faults[hit.number]) as server:
        answers, error = asyncio.run(main(server.url))
    assert server.hits[0].authorization == f"Bearer {key}"
    assert key not in repr(answers)
    assert "[key removed]" in answers[0].text
    assert "[key removed]" in (answers[1].error or "")
    assert key not in everything_said(error)
    assert "[key removed]" in str(error)


@pytest.mark.parametrize("padding", [470, 480, *range(940, 1010, 6)])
def test_a_key_at_the_place_where_a_message_is_cut_is_removed_first(padding):
    behave = lambda hit: f"500 echo key behind {padding}"  # noqa: E731
    with FaultyServer(behave) as server:
        answer = ask(server, attempts=1)
    assert KEY[:18] not in (answer.error or "")
    assert KEY[-8:] not in (answer.error or "")


@pytest.mark.parametrize("fault", ["echo key in upper case", "echo key in base64"])
def test_a_key_the_server_echoes_in_another_spelling_is_removed_too(fault):
    with FaultyServer(lambda hit: fault) as server:
        assert ask(server).text.endswith("[key removed]")


def test_answers_are_kept_letter_by_letter_whatever_looks_like_a_key_in_them():
    text = "Who holds a bearer certificate? sk-learn-based, Sk-Zellen-Test, sk-9876543210fedcba"
    with FaultyServer(lambda hit: f"say {text}") as server:
        assert ask(server).text == text


def test_parameters_that_are_not_json_are_refused():
    with pytest.raises(DesignError, match="cannot be written as JSON"):
        Parameters(extra={"stop": {1, 2}}).recorded()


def test_a_key_among_the_parameters_is_refused():
    with pytest.raises(DesignError, match="environment"):
        Parameters(extra={"auth": KEY}).recorded()


def test_without_key_and_address_the_way_out_is_said(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ModelError, match="set OPENAI_API_KEY"):
        Endpoint("m")
    with pytest.raises(ModelError, match="need such as http"):
        Endpoint("m", base_url="127.0.0.1:8080")


def test_the_environment_gives_key_and_address(monkeypatch):
    with FaultyServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")

        async def main():
            endpoint = Endpoint("m")
            try:
                return await endpoint.ask(PROMPT)
            finally:
                await endpoint.aclose()

        assert asyncio.run(main()).outcome == "ok"
    assert server.hits[0].authorization == f"Bearer {KEY}"


def test_a_key_that_is_not_set_is_told_from_one_that_is_wrong(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    async def said(url, **options):
        endpoint = Endpoint("m", base_url=url, **options)
        try:
            with pytest.raises(ModelError) as refused:
                await endpoint.ask(PROMPT)
            return str(refused.value)
        finally:
            await endpoint.aclose()

    with FaultyServer(lambda hit: "401") as server:
        assert "OPENAI_API_KEY is not set" in asyncio.run(said(server.url))
        assert "the key is not accepted" in asyncio.run(said(server.url, api_key=KEY))
    with FaultyServer(lambda hit: "404") as server:
        assert "does OPENAI_BASE_URL end in /v1?" in asyncio.run(said(server.url, api_key=KEY))


@pytest.mark.parametrize("reply", ["mb 3", "bomb 30", "bomb 30 twice"])
def test_a_reply_that_is_too_large_is_an_outcome_of_its_own(reply):
    with FaultyServer(once(reply)) as server:
        large, next_one = ask(server, n=2, max_reply_mb=2)
    assert (large.outcome, large.text, large.attempts) == ("oversized", "", 1)
    assert "larger than 2 MB (max_reply_mb)" in (large.error or "")
    assert next_one.outcome == "ok"
    assert len(server.hits) == 2


def test_a_reply_up_to_the_limit_is_read_packed_or_not():
    with FaultyServer(lambda hit: "mb 1" if hit.number == 1 else "bomb 1") as server:
        answers = ask(server, n=2, max_reply_mb=1.1)
    assert [(one.outcome, len(one.text)) for one in answers] == [("ok", 1_000_000)] * 2


def test_an_error_with_a_large_page_stays_an_error():
    with FaultyServer(lambda hit: "500 mb 5") as server:
        answer = ask(server, attempts=2)
    assert (answer.outcome, answer.attempts) == ("error", 2)
    assert (answer.error or "").startswith("500: ")
    assert len(answer.error or "") < 1100


def test_the_size_a_server_announces_is_said():
    with FaultyServer(lambda hit: f"say {'x' * 3_000_000}") as server:
        answer = ask(server, max_reply_mb=2)
    assert answer.error == (
        "the reply is larger than 2 MB (max_reply_mb), 3.0 MB; it was not read to its end"
    )


@pytest.mark.slow
@pytest.mark.parametrize("reply", ["mb 300", "bomb 100", "bomb 100 twice"])
def test_a_reply_of_hundreds_of_mb_takes_no_memory(reply):
    script = """
import asyncio, resource, sys
from evalkit.answers.endpoint import Endpoint
async def main():
    endpoint = Endpoint("m", base_url=sys.argv[1], api_key="x")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = await endpoint.ask([{"role": "user", "content": "q"}])
    print(answer.outcome, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    await endpoint.aclose()
asyncio.run(main())
"""
    with FaultyServer(lambda hit: reply) as server:
        command = [sys.executable, "-c", script, server.url]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert out[0] == "oversized"
    assert int(out[1]) < 60  # MB
