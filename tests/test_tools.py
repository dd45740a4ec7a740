"""Rows with tools: sent as they say, told apart by it, and a tool call is an answer that is scored and shown as one."""

import json

import pytest
from faulty_server import ANSWER, FaultyServer

from evalkit import run_automated_eval
from evalkit.answers.dataset import read_examples
from evalkit.answers.journal import call_key, read_journal
from evalkit.answers.reply import answer
from evalkit.answers.runner import results_from_journal
from evalkit.answers.scoring import score_answer, tool_call
from evalkit.benchmark.doctor import examine
from evalkit.conversation import calls_in, spoken
from evalkit.errors import DataError, DesignError, ModelError
from evalkit.records import Answer, Example

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")


def called(name="weather", given='{"city": "Oslo", "unit": "c"}'):
    function = {"name": name, "arguments": given}
    return {"id": "call_id", "type": "function", "function": function}


def row(question="How warm is it in Oslo?", *calls, **more):
    """A row as OpenAI's guide to fine-tuning with tools has it: no content beside the calls."""
    asked = {"role": "user", "content": question}
    return {
        "messages": [asked, {"role": "assistant", "tool_calls": list(calls) or [called()]}],
        "parallel_tool_calls": False,
        "tools": [WEATHER],
        **more,
    }


@pytest.fixture
def file_of(tmp_path):
    def made(*rows):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
        return path

    return made


def run(server, path, **given):
    options = {"progress": False, "scorers": "tool_call", **given}
    return run_automated_eval("m", path, base_url=server.url, **options)


def test_published_fine_tuning_rows_with_tools_are_sent_and_scored(file_of, tmp_path):
    path = file_of(row(), row("And in Rome?", called(given='{"city": "Rome"}')))
    journal = tmp_path / "j.jsonl"
    with FaultyServer(lambda _: "tool call") as server:
        right, wrong = run(server, path, journal=journal)
    assert server.hits[0].body["tools"] == [WEATHER]
    assert server.hits[0].body["parallel_tool_calls"] is False
    assert server.hits[0].body["messages"] == [row()["messages"][0]]
    # the names of the arguments come in another order than expected
    assert right.predicted == right.expected == '[call of weather: {"city": "Oslo", "unit": "c"}]'
    assert (right.outcome, right.exact_match, right.scores["tool_call"]) == ("ok", True, 1.0)
    assert (wrong.exact_match, wrong.scores["tool_call"]) == (False, 0.0)
    again = results_from_journal(journal, path, scorers="tool_call")
    assert [one.scores["tool_call"] for one in again] == [1.0, 0.0]


def test_rows_that_differ_in_their_tools_alone_are_two_calls(file_of, tmp_path):
    other = {**WEATHER, "function": {"name": "forecast"}}
    plain = {name: one for name, one in row().items() if name == "messages"}
    path, journal = file_of(row(), row(tools=[other]), plain), tmp_path / "j.jsonl"
    with FaultyServer(lambda _: "tool call") as server:
        run(server, path, journal=journal)
    assert [one.body.get("tools") for one in server.hits] == [[WEATHER], [other], None]
    assert len({one.key for one in read_journal(journal).entries}) == 3
    assert len({one.example_id for one in read_examples(path).examples}) == 3


def test_a_row_without_tools_keeps_the_key_and_the_identity_it_had(file_of, tmp_path):
    plain = {"role": "user", "content": "q"}
    said = {"role": "assistant", "content": ANSWER}
    nulls = {"function_call": None, "tool_calls": None, "name": None, "refusal": None}
    rows = [{"messages": [plain, said]}, {"messages": [{**plain, **nulls}, {**said, **nulls}]}]
    rows[1] |= {"tools": None, "response_format": None, "tool_choice": None}
    for one in rows:
        path, journal = file_of(one), tmp_path / f"j{rows.index(one)}.jsonl"
        with FaultyServer() as server:
            run(server, path, journal=journal, scorers=())
        assert server.hits[0].body == {
            "model": "m",
            "messages": [plain],
            "temperature": 0.0,
            "max_tokens": 1024,
        }
        parameters = {"temperature": 0.0, "max_tokens": 1024}
        (entry,) = read_journal(journal).entries
        assert entry.key == call_key("m", "openai", parameters, [plain], 0)
        same = file_of({**rows[0], "id": entry.example_id})
        assert read_examples(path).fingerprint == read_examples(same).fingerprint


def test_a_null_content_beside_a_call_is_kept_as_models_have_it(file_of):
    call = {"role": "assistant", "content": None, "tool_calls": [called()]}
    result = {"role": "tool", "tool_call_id": "call_id", "content": "12"}
    said = {"role": "assistant", "content": "12 degrees"}
    path = file_of({"messages": [{"role": "user", "content": "q"}, call, result, said]})
    assert read_examples(path).examples[0].messages[1] == call


def test_all_a_row_may_say_of_a_request_is_sent(file_of):
    more = {
        "tool_choice": "required",
        "response_format": {"type": "json_object"},
        "function_call": None,
    }
    with FaultyServer(lambda _: "tool call") as server:
        run(server, file_of(row(**more)))
    sent = server.hits[0].body
    assert (sent["tool_choice"], sent["response_format"]) == ("required", {"type": "json_object"})
    assert "function_call" not in sent


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"temperature": 0.7}, "temperature stands beside the messages, from where it is not sent"),
        ({"stop": ["x"]}, "stop stands beside the messages"),
        ({"tools": "[]"}, "tools: Expected array, got str"),
        ({"tools": ["weather"]}, r"tools\[0\]: Expected object, got str"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls: Expected bool, got str"),
        ({"response_format": "json"}, "response_format: Expected object, got str"),
        ({"tool_choice": 1}, r"tool_choice: Expected str \| object, got int"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_name(file_of, more, told):
    with pytest.raises(DataError, match=f":1: .*{told}"):
        read_examples(file_of(row(**more)))


def test_a_label_may_be_named_like_a_parameter(file_of):
    path = file_of(row(temperature=0.7), row("q2", metadata={"stop": "x"}, temperature=0.1))
    found = read_examples(path, slice_fields=("temperature",)).examples
    assert [one.slices["temperature"] for one in found] == ["0.7", "0.1"]


def test_a_function_is_not_asked_what_it_would_not_hear(file_of):
    asked = []
    with pytest.raises(DesignError, match="rows of the test set hold tools"):
        run_automated_eval(asked.append, file_of(row()), name="f", progress=False)
    assert asked == []


def test_a_server_without_tools_is_told_and_costs_one_call(file_of):
    with (
        FaultyServer(lambda _: "400 tools") as server,
        pytest.raises(ModelError, match="the server refuses tools, which rows of the test set"),
    ):
        run(server, file_of(row(), row("q2")))
    assert len(server.hits) == 1


def test_a_run_says_what_it_sends(file_of, capfd):
    plain = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    with FaultyServer(lambda _: "tool call") as server:
        run(server, file_of(row(), row("q2"), {"messages": plain}), progress=True, max_tokens=0)
    said = "m: sends temperature 0.0, tools of 2 rows and parallel_tool_calls of 2 rows; thoughts are not scored"
    assert said in capfd.readouterr().err.splitlines()


def texts(*calls):
    return spoken({"content": None, "tool_calls": list(calls)})


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ('{"unit":"c","city":"Oslo"}', True),
        ('{"city": "Oslo", "unit": "c"}', True),
        ('{"city": "Oslo", "unit": "C"}', False),
        ('{"city": "Oslo"}', False),
        ('{"city": "Oslo", "unit": "c", "more": null}', False),
        ('{"city": "Oslo", "unit": "c"', False),
        ("", False),
    ],
)
def test_arguments_count_as_json(given, same):
    assert tool_call(texts(called()), texts(called(given=given))) is same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("{}", "", True),
        ('{"n": 1}', '{"n": 1.0}', True),
        ('{"n": 1}', '{"n": true}', False),
        ('{"n": 1}', '{"n": "1"}', False),
        ('{"n": [1, 2]}', '{"n": [2, 1]}', False),
        ('{"n": {"a": 1, "b": 2}}', '{"n": {"b": 2, "a": 1}}', True),
        ('{"n": "a\\nb"}', '{"n": "a\\u000ab"}', True),
        ('{"n": "]\\n[call of x: {}]"}', '{"n": "]"}', False),
        ("not json", "not json", True),
        ("[" * 100_000, "{}", False),
    ],
)
def test_two_sets_of_arguments_are_the_same_by_their_meaning(one, other, same):
    assert tool_call(texts(called(given=one)), texts(called(given=other))) is same


def test_of_several_calls_each_counts_and_their_order_does_not():
    oslo, rome = called(), called(given='{"city": "Rome"}')
    assert tool_call(texts(oslo, rome), texts(rome, oslo))
    assert not tool_call(texts(oslo, rome), texts(oslo))
    assert not tool_call(texts(oslo), texts(oslo, oslo))
    assert not tool_call(texts(oslo), texts(called("forecast")))
    assert tool_call(texts(oslo), spoken({"content": "I look.", "tool_calls": [oslo]}))
    assert not tool_call(texts(oslo), "It is warm.")
    assert tool_call("It is warm.", texts(oslo)) is None


@pytest.mark.parametrize("outcome", ["error", "refused", "empty"])
def test_a_failed_answer_is_wrong_where_a_call_was_expected_and_undefined_elsewhere(outcome):
    for expected, score in ((texts(called()), 0.0), ("warm", None)):
        example = Example(example_id="a", messages=(), expected=expected)
        found = score_answer(example, Answer(text="", outcome=outcome), scorers=["tool_call"])
        assert found.scores["tool_call"] == score


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "tool_calls": [called()]},
        {"content": "", "tool_calls": [called()], "function_call": None},
        {"function_call": {"name": "weather", "arguments": '{"city": "Oslo", "unit": "c"}'}},
        {"tool_calls": [{"name": "weather", "arguments": {"unit": "c", "city": "Oslo"}}]},
        {
            "content": [
                {"type": "tool_use", "name": "weather", "input": {"city": "Oslo", "unit": "c"}}
            ]
        },
        {"content": "<think>hm</think>", "tool_calls": [called()]},
    ],
)
def test_a_call_in_any_spelling_is_the_same_answer(message):
    found = answer({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    assert found.outcome == "ok"
    assert found.text == texts(called())
    assert calls_in(found.text) == [("weather", '{"city": "Oslo", "unit": "c"}')]


def test_an_expected_call_in_the_old_spelling_is_one_too(file_of):
    call = {"name": "weather", "arguments": '{"city": "Oslo", "unit": "c"}'}
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "function_call": call},
    ]
    one = read_examples(file_of({"messages": messages, "functions": [WEATHER["function"]]}))
    assert one.examples[0].expected == texts(called())
    assert one.examples[0].request == {"functions": [WEATHER["function"]]}


def test_the_doctor_takes_rows_with_other_tools_for_other_prompts(file_of):
    other = {**WEATHER, "function": {"name": "forecast"}}
    path = file_of(row(), row("How warm is it in Oslo?", called("forecast"), tools=[other]))
    assert not {one.kind for one in examine(path).findings} & {"conflict", "duplicate", "unusable"}
