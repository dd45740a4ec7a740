"""Reasoning models from a study: what a strict server refuses, what a model thinks, and what the two were asked."""

import html
import json
from pathlib import Path

import pytest
import yaml
from faulty_server import ANSWER, FaultyServer, reasoning

from evalkit import run_automated_eval
from evalkit.answers import runner
from evalkit.answers.evaluation import options
from evalkit.answers.journal import read_journal
from evalkit.answers.reply import answer
from evalkit.answers.runner import results_from_journal
from evalkit.errors import DesignError, EvalkitError, ModelError
from evalkit.report import chain
from evalkit.report.new import new_study
from evalkit.study import Settings

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
MENDED = {"temperature": 1.0, "max_tokens": 0, "extra_body": {"max_completion_tokens": 4096}}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")


@pytest.fixture
def test_file(tmp_path):
    return write_rows(tmp_path / "test.jsonl", 8)


def write_rows(path, n):
    rows = [
        {
            "id": f"q{i}",
            "messages": [
                {"role": "user", "content": f"question {i}"},
                {"role": "assistant", "content": ANSWER if i % 2 else f"other {i}"},
            ],
        }
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def run(server, path, **given):
    return run_automated_eval("m", path, base_url=server.url, **{"progress": False, **given})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {},
            r"max_tokens 1024: change or leave it out \(max_tokens: 0, in whose place max_completion",
        ),
        ({"max_tokens": 0}, r"leave it out \(send_temperature: false\) in study.yaml"),
        ({**MENDED, "seed": 3}, r"leave it out \(request_seed: 0\) in study.yaml"),
    ],
)
def test_a_refusal_names_the_setting_and_costs_one_call(test_file, given, told):
    with FaultyServer(reasoning) as server:
        with pytest.raises(ModelError, match=told):
            run(server, test_file, **given)
        assert len(server.hits) == 1


def test_a_refusal_after_an_answer_is_the_rows_own(test_file):
    def behave(hit):
        return "400 seed" if "question 3" in hit.asked else "ok"

    with FaultyServer(behave) as server:
        results = run(server, test_file, seed=1)
    assert [one.outcome for one in results].count("error") == 1
    assert "request_seed: 0" in (results[3].error or "")


def test_thoughts_are_kept_counted_and_not_scored(test_file, tmp_path):
    journal = tmp_path / "j.jsonl"
    with FaultyServer(reasoning) as server:
        results = run(server, test_file, journal=journal, **MENDED)
        assert server.hits[0].body.keys() == {
            "model",
            "messages",
            "temperature",
            "max_completion_tokens",
        }
    assert [one.predicted for one in results] == [ANSWER] * 8
    assert [one.exact_match for one in results] == [False, True] * 4
    entries = read_journal(journal).entries
    assert all("throat, so R07" in one.answer.thinking for one in entries)
    # 5 tokens an answer; where the server does not count 4 of them as thoughts, they are shared out by length
    counted = {one.answer.thinking_tokens for one in entries}
    assert counted == {4, None}
    share = 5 * len("throat, so R07") / (len("throat, so R07") + len(ANSWER))
    assert {one.thinking_tokens for one in results} == {4, round(share)}
    again = results_from_journal(journal, test_file)
    assert [one.thinking_tokens for one in again] == [one.thinking_tokens for one in results]


def test_an_unfinished_thought_is_no_answer_and_a_quoted_tag_no_thought(test_file):
    with FaultyServer(lambda _: "think, cut off") as server:
        cut_off = run(server, test_file)[0]
    assert (cut_off.predicted, cut_off.outcome) == ("", "truncated")
    assert cut_off.has_thoughts
    with FaultyServer(lambda _: "quotes a tag") as server:
        quoted = run(server, test_file)[0]
    assert (quoted.predicted, quoted.has_thoughts) == ("It ends with `</think>`.", False)


def test_thoughts_that_nothing_tells_apart_are_told_of(test_file):
    with (
        FaultyServer(lambda _: "think") as server,
        pytest.warns(UserWarning, match="8 of 8 answers hold thoughts, which are scored") as told,
    ):
        results = run(server, test_file, strip_think=False)
    assert told[0].filename == runner.__file__
    assert results[1].predicted.startswith("<think>")
    assert not results[1].exact_match


def test_a_function_may_think_too(test_file):
    results = run_automated_eval(
        lambda messages: f"<think>hm</think>{ANSWER}", test_file, progress=False
    )
    assert results[1].exact_match


def test_an_expected_answer_is_taken_without_its_thoughts(tmp_path):
    row = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": f"<think>hm</think>\n{ANSWER}"},
    ]
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"messages": row}))
    with FaultyServer(lambda _: "think") as server:
        assert run(server, path)[0].exact_match


@pytest.mark.parametrize(
    "message",
    [
        {"content": "42", "reasoning_content": "hm"},
        {"content": "42", "reasoning": "hm", "reasoning_details": [{"text": "hm"}]},
        {"content": "42", "thinking_blocks": [{"type": "thinking", "thinking": "hm"}]},
        {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "42"}]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "42"},
            ]
        },
        {"content": [{"text": "hm", "thought": True}, {"text": "42"}]},
        {"content": "<think>\n\n</think>\n\n42", "reasoning_content": "hm"},
        {"content": "42", "reasoning_content": None, "reasoning": {"summary": [{"text": "hm"}]}},
    ],
)
def test_thoughts_come_in_fields_and_parts_too(message):
    found = answer({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert (found.text, found.thinking, found.outcome) == ("42", "hm", "ok")


def test_hidden_thoughts_are_known_by_their_number_alone():
    reply = {
        "choices": [{"message": {"content": "42"}, "finish_reason": "stop"}],
        "usage": {
            "completion_tokens": 90,
            "completion_tokens_details": {"reasoning_tokens": 64},
        },
    }
    found = answer(reply)
    assert (found.has_thoughts, found.tokens_of_thoughts(), found.thinking) == (True, 64, "")


REQUEST = """
reasoning_effort: low
extra_body: {top_k: 1}
base:
  temperature: 0.5
fine_tuned:
  max_tokens: 0
  max_completion_tokens: 4096
  send_temperature: false
  extra_body: {chat_template_kwargs: {enable_thinking: true}}
"""


def test_a_request_file_says_it_for_both_models_or_for_one(tmp_path):
    (tmp_path / "request.yaml").write_text(REQUEST)
    base, tuned = (
        options(Settings(request_seed=3), role, tmp_path / "request.yaml")
        for role in ("base", "fine_tuned")
    )
    assert (base["temperature"], base["max_tokens"], base["seed"]) == (0.5, 1024, 3)
    assert base["extra_body"] == {"reasoning_effort": "low", "top_k": 1}
    assert (tuned["temperature"], tuned["max_tokens"]) == (None, 0)
    assert tuned["extra_body"] == {
        "reasoning_effort": "low",
        "max_completion_tokens": 4096,
        "top_k": 1,
        "chat_template_kwargs": {"enable_thinking": True},
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_tokns: 3", "max_tokns: no such setting; did you mean max_tokens"),
        ("base: {temprature: 1}", "request.yaml: base:\n.*did you mean temperature"),
        ("fine_tuned: 3", "need the names of settings"),
        ("[1]", "need the names of settings"),
        ("", "it is empty.; need the names of settings"),
        ("temperature: cold", "need float"),
        ("extra_body: [1]", "need dict"),
        ("alpha: 0.1", "alpha: no such setting"),
    ],
)
def test_a_request_file_that_cannot_be_is_refused_by_name(tmp_path, text, told):
    (tmp_path / "request.yaml").write_text(text)
    with pytest.raises(EvalkitError, match=told):
        options(Settings(), "base", tmp_path / "request.yaml")


def test_what_evalkit_says_itself_is_not_to_be_replaced(test_file):
    with FaultyServer() as server, pytest.raises(DesignError, match="extra_body holds stream"):
        run(server, test_file, extra_body={"stream": True})


def test_every_option_of_a_run_is_a_setting_or_stands_in_the_request_file():
    from inspect import signature

    elsewhere = {
        "model", "test_file", "journal", "base_url", "progress", "keep", "name",  # files, the environment, functions
        "prices", "seed",  # prices_file, request_seed
        "extra_body", "about",  # request.yaml
    }  # fmt: skip
    mine = signature(run_automated_eval).parameters.keys() - elsewhere
    assert mine <= set(Settings.__struct_fields__)


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "notebooks").symlink_to(NOTEBOOKS)
    source = write_rows(tmp_path / "mine.jsonl", 30)
    file = new_study("ours", test=source, base="plain", fine_tuned="thinker", root=tmp_path)
    said = yaml.safe_load(file.read_text()) | {"reask_n": 0, "raters": "a"}
    file.write_text(yaml.safe_dump(said))
    (file.parent / "request.yaml").write_text(
        "base: {temperature: 0}\n"
        "fine_tuned: {temperature: 1, max_tokens: 0, max_completion_tokens: 4096, reasoning_effort: low}\n"
    )
    return tmp_path


def each(hit):
    return reasoning(hit) if hit.body["model"] == "thinker" else "ok"


@pytest.mark.slow
def test_a_strict_endpoint_goes_from_a_new_study_to_the_report_with_settings_alone(
    project, monkeypatch
):
    with FaultyServer(each) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        made = chain.run_study("ours", root=project, only=["01"], say=lambda _: None)
    assert made.failed == {}
    page = html.unescape((made.folder / "report.html").read_text())
    # the thinker is asked after the other model, calls 31 to 60: the server counts the thoughts of 7 of them, 4 tokens each,
    # and by their length those of the other 23 are 2 of 5
    for told in (
        "reasoning effort none of base, low of fine-tuned",
        "temperature 0.0 of base, 1.0 of fine-tuned",
        "max completion tokens none of base, 4096 of fine-tuned",
        "tokens of thoughts",
    ):
        assert told in page
    record = (made.folder / "comparison.json").read_text()
    assert '"with_thoughts": 30' in record
    assert '"thinking_tokens": 74' in record
    assert "Asked differently" in page
    assert 'sends temperature 1.0, max_completion_tokens 4096 and reasoning_effort "low"' in page
