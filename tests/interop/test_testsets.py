"""Test sets in the forms people have them: what is understood, what is asked about, what is refused."""

from __future__ import annotations

import gzip
import json

import pytest

from evalkit.answers.dataset import read_examples
from evalkit.benchmark.doctor import examine
from evalkit.errors import DataError, DesignError
from evalkit.interop.logs import read_log
from evalkit.interop.testsets import convert
from evalkit.report.new import convert_file, new_study

QA = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
SAID = "You add."
WITH_SYSTEM = [{"role": "system", "content": SAID}, *QA]
OPEN = QA[:1]

ROWS = {  # a row of each form, and the messages it means
    "chat": ({"messages": QA}, QA),
    "chat with other roles": (
        {"messages": [{"role": "human", "content": "2+2?"}, {"role": "gpt", "content": "4"}]},
        QA,
    ),
    "ShareGPT": (
        {
            "conversations": [
                {"from": "system", "value": SAID},
                {"from": "human", "value": "2+2?"},
                {"from": "gpt", "value": "4"},
            ]
        },
        WITH_SYSTEM,
    ),
    "ShareGPT, system beside": (
        {
            "conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}],
            "system": SAID,
        },
        WITH_SYSTEM,
    ),
    "chat, system beside": ({"messages": QA, "system": SAID}, WITH_SYSTEM),
    "chat, system beside as parts": ({"messages": QA, "system": [{"text": SAID}]}, WITH_SYSTEM),
    "fields in capitals": ({"Question ": "2+2?", " ANSWER": "4"}, QA),
    "Dolly": (
        {"instruction": "2+2?", "context": "Digits.", "response": "4"},
        [{"role": "user", "content": "2+2?\n\nDigits."}, QA[1]],
    ),
    "ShareGPT, open": ({"conversations": [{"from": "human", "value": "2+2?"}]}, OPEN),
    "Gemini": (
        {
            "systemInstruction": {"role": "system", "parts": [{"text": SAID}]},
            "contents": [
                {"role": "user", "parts": [{"text": "2+"}, {"text": "2?"}]},
                {"role": "model", "parts": [{"text": "4"}]},
            ],
        },
        WITH_SYSTEM,
    ),
    "preference data": (
        {
            "input": {"messages": OPEN, "tools": [], "parallel_tool_calls": True},
            "preferred_output": QA[1:],
            "non_preferred_output": [{"role": "assistant", "content": "5"}],
        },
        QA,
    ),
    "preference data of texts": ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, QA),
    "prompt and completion": ({"prompt": "2+2?", "completion": "4"}, QA),
    "prompt and completion as messages": ({"prompt": OPEN, "completion": QA[1:]}, QA),
    "OpenAI Evals": ({"input": WITH_SYSTEM[:2], "ideal": "4"}, WITH_SYSTEM),
    "OpenAI Evals, a text": ({"input": "2+2?", "ideal": ["4"]}, QA),
    "Alpaca": ({"instruction": "2+2?", "input": "", "output": "4"}, QA),
    "Alpaca with history": (
        {"instruction": "2+2?", "output": "4", "system": SAID, "history": [["Hi", "Hello"]]},
        [
            WITH_SYSTEM[0],
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            *QA,
        ],
    ),
    "MT-bench": ({"question_id": 1, "category": "math", "turns": ["2+2?"]}, OPEN),
    "question and answer": ({"question": "2+2?", "answer": 4}, QA),
}


def array(path, *rows, indent=None):
    path.write_text(json.dumps([*rows], indent=indent))
    return path


def lined(path, *rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.mark.parametrize("write", [array, lined])
@pytest.mark.parametrize("name", ROWS)
def test_each_form_becomes_chat_that_a_study_reads(tmp_path, name, write):
    row, means = ROWS[name]
    made = convert(write(tmp_path / "x.json", row))
    assert [one["messages"] for one in made.rows] == [means]
    assert "\n" not in made.understood
    assert made.understood.startswith("x.json: ")
    (tmp_path / "t.jsonl").write_bytes(made.lines)
    (example,) = read_examples(tmp_path / "t.jsonl").examples
    assert [*example.messages] == (means if means is OPEN else means[:-1])
    assert example.right == (() if means is OPEN else ("4",))


def test_the_line_says_what_was_understood(tmp_path):
    rows = [
        {"id": n, "input": "2+2?", "ideal": right, "topic": "sums"}
        for n, right in enumerate((["4", "four"], "4", None))
    ]
    made = convert(array(tmp_path / "x.json", *rows, indent=1))
    assert made.understood == (
        "x.json: a JSON array, 3 rows, input asks, ideal is the expected answer; "
        "1 row with several right answers; nothing is expected of 1; kept as metadata: topic"
    )
    assert made.rows[0] == {
        "id": 0,
        "messages": QA,
        "also_right": ["four"],
        "metadata": {"topic": "sums"},
    }


def test_calls_of_tools_are_kept_in_every_form(tmp_path):
    tools = [{"name": "weather", "parameters": {}}]
    call = {"name": "weather", "arguments": {"city": "Oslo"}}
    shared = {
        "conversations": [
            {"from": "human", "value": "Rain?"},
            {"from": "function_call", "value": json.dumps(call)},
            {"from": "observation", "value": "yes"},
            {"from": "function_call", "value": json.dumps(call)},
        ],
        "tools": json.dumps(tools),
    }
    parts = {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}}
    gemini = {
        "contents": [
            {"role": "user", "parts": [{"text": "Rain?"}]},
            {"role": "model", "parts": [parts]},
            {
                "role": "user",
                "parts": [{"functionResponse": {"name": "weather", "response": "yes"}}],
            },
            {"role": "model", "parts": [parts]},
        ]
    }
    for row in (shared, gemini):
        made = convert(array(tmp_path / "x.json", row))
        (tmp_path / "t.jsonl").write_bytes(made.lines)
        (example,) = read_examples(tmp_path / "t.jsonl").examples
        assert example.expected == '[call of weather: {"city": "Oslo"}]'
        assert [one["role"] for one in example.messages] == ["user", "assistant", "tool"]
        assert example.messages[2]["tool_call_id"] == example.messages[1]["tool_calls"][0]["id"]
    assert convert(array(tmp_path / "x.json", shared)).rows[0]["tools"] == [
        {"type": "function", "function": tools[0]}
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_keeps_its_texts_as_they_are(tmp_path, separator):
    path = tmp_path / "x.csv"
    lines = [["id", "question", "answer"], ["007", '"a\nb"', "NA"], ["008", "c", ""]]
    path.write_text("\n".join(separator.join(one) for one in lines))
    made = convert(path)
    assert [one["id"] for one in made.rows] == ["007", "008"]
    assert [[m["content"] for m in one["messages"]] for one in made.rows] == [["a\nb", "NA"], ["c"]]
    assert made.understood.endswith("nothing is expected of 1")


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_the_ends_of_lines_of_another_system_change_no_row(tmp_path, end):
    table = 'id,question,answer\n007,"a\nb",NA\n008,c,d\n'
    lines = '{"id": "1", "predicted": "a"}\n{"id": "2", "predicted": "b"}\n'
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    here.write_bytes(table.encode())
    there.write_bytes(table.replace("\n", end).encode())
    assert convert(there).lines == convert(here).lines
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines.replace("\n", end).encode())
    assert [row.answer.text for row in read_log(log).rows] == ["a", "b"]


def test_a_parquet_table_with_lists_in_its_cells(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([{"prompt": OPEN, "ideal": ["4", "four"]}])
    pq.write_table(table, tmp_path / "x.parquet")
    (row,) = convert(tmp_path / "x.parquet").rows
    assert row == {"messages": QA, "also_right": ["four"]}


def test_the_questions_of_a_log_are_a_test_set(tmp_path):
    rows = [
        {
            "doc_id": n,
            "doc": {"q": "2+2?"},
            "target": "4",
            "arguments": {"gen_args_0": {"arg_0": "2+2?", "arg_1": {}}},
            "resps": [["4"]],
            "filtered_resps": ["4"],
            "filter": "none",
            "metrics": ["exact_match"],
            "exact_match": 1.0,
        }
        for n in range(2)
    ]
    made = convert(lined(tmp_path / "samples_x.jsonl", *rows))
    assert [one["messages"] for one in made.rows] == [QA, QA]
    assert "the questions of lm-eval" in made.understood


UNCLEAR = {
    "two answers": (
        {"prompt": "q", "output": "a", "completion": "b"},
        "the right answer could be 'output' and 'completion' (none where nothing is expected: --columns expected=)",
        "expected=completion",
    ),
    "two questions": (
        {"prompt": "q", "question": "p", "answer": "b"},
        "the question could be 'prompt' and 'question': say --columns input=NAME",
        "input=prompt",
    ),
    "no known question": (
        {"frage": "q", "antwort": "b"},
        "the question could be 'frage' and 'antwort': say --columns input=NAME",
        "input=frage, expected=antwort",
    ),
    "no known answer": (
        {"prompt": "q", "antwort": "b"},
        "'antwort' (none where nothing is expected: --columns expected=): say --columns expected=NAME",
        "expected=antwort",
    ),
    "several turns": (
        {"turns": ["q", "and then?"]},
        "say --columns input=turns to ask the first alone",
        "input=turns",
    ),
    "two conversations": (
        {"messages": [{"role": "human", "content": "q"}], "conversations": OPEN},
        "the conversation could be 'messages' and 'conversations'",
        "input=messages",
    ),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_could_mean_two_things_is_asked_with_the_option_that_answers(tmp_path, case):
    row, asked, answer = UNCLEAR[case]
    path = array(tmp_path / "x.json", row)
    with pytest.raises(DesignError) as caught:
        convert(path)
    assert asked in str(caught.value)
    assert "\n" not in str(caught.value)
    (made,) = convert(path, columns=answer).rows
    assert made["messages"][0] == {"role": "user", "content": "q"}
    with pytest.raises(
        DesignError, match="input=nothing: no such field; input, expected and id may be"
    ):
        convert(path, columns="input=nothing")
    with pytest.raises(DesignError, match="what=x: no such field; input, expected and id may be"):
        convert(path, columns="what=x")


def test_an_empty_name_says_that_nothing_is_expected(tmp_path):
    path = array(tmp_path / "x.json", {"prompt": "q", "topic": "b"})
    made = convert(path, columns="expected=")
    assert made.rows == (
        {"messages": [{"role": "user", "content": "q"}], "metadata": {"topic": "b"}},
    )


BAD = {
    "empty.json": (b"", "is empty"),
    "none.json": (b"[]", "holds no rows"),
    "cut.json": (b'[{"prompt": "q"', ": not JSON"),
    "cut.jsonl": (b'{"prompt": "q", "completion": "a"}\n{"prom', ":2: not JSON"),
    "page.json": (b"<html>", "no JSON and no table"),
    "numbers.json": (b"[1, 2]", "row 1 is no object"),
    "cut.parquet": (b"PAR1xx", "not a whole table"),
    "text.parquet": (b"hello", "not a whole table"),
    "latin.csv": ("frage,antwort\nä,b".encode("latin-1"), "not UTF-8"),
    "ragged.csv": (b"prompt,completion\nq\n", "row 1 has not as many cells"),
    "empty_question.csv": (b"prompt,completion\n,a\n", "prompt is empty, so nothing is asked"),
    "role.json": (b'[{"conversations": [{"from": "cat", "value": "x"}]}]', 'message 1 has role "cat"'),
    "talk.json": (b'[{"conversations": "x"}]', "the conversation is"),
    "image.json": (
        b'[{"contents": [{"role": "user", "parts": [{"inlineData": {}}]}]}]',
        "which has no place in a chat row here",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_that_names_the_file(tmp_path, name):
    content, said = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        convert(tmp_path / name)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("begins", "told"),
    [
        (gzip.compress(b'{"messages": []}'), r"packed; unpack it"),
        ('{"question": "a"}'.encode("utf-16"), "UTF-16; save it as UTF-8"),
        (b"\n<!DOCTYPE html><p>", "no JSON and no table but a web page; download"),
        (b"version https://git-lfs.github.com/spec/v1", "pointer of Git LFS, .*`git lfs pull`"),
    ],
    ids=["gzip", "utf-16", "web page", "git lfs"],
)
@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet"])
def test_a_file_that_is_something_else_is_named_with_what_to_do(tmp_path, name, begins, told):
    (tmp_path / name).write_bytes(begins)
    with pytest.raises(DataError, match=f"{name}: is (a )?{told}"):
        convert(tmp_path / name)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_what_is_no_number_in_json_is_refused_with_its_row(tmp_path, number):
    rows = '{"input": "q", "ideal": "a"}\n{"input": "r", "ideal": "b", "weight": 0}\n'
    (tmp_path / "x.jsonl").write_text(rows.replace("0", number))
    with pytest.raises(DataError, match=r"x\.jsonl: row 2: holds NaN or an infinite number"):
        convert(tmp_path / "x.jsonl")


def test_a_field_that_stands_twice_is_not_lost(tmp_path):
    (tmp_path / "x.csv").write_text("question,Question,answer\na,b,c\n")
    with pytest.raises(DataError, match="'question' stands twice"):
        convert(tmp_path / "x.csv")


@pytest.mark.parametrize("write", [array, lined])
def test_rows_may_be_bare_lists_of_messages(tmp_path, write):
    made = convert(write(tmp_path / "x.json", QA, QA))
    assert [one["messages"] for one in made.rows] == [QA, QA]


def test_a_system_prompt_beside_the_messages_is_never_dropped(tmp_path):
    path = lined(
        tmp_path / "x.jsonl", {"messages": QA, "system": SAID}, {"messages": OPEN, "system": ""}
    )
    with pytest.raises(DataError, match=r"system stands beside the messages(.|\n)*evalkit convert"):
        read_examples(path)
    assert read_examples(path, slice_fields=["system"])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "a", "completion": "b", "label": True}, "--columns expected=NAME"),
        ({"message": "a", "response": "b"}, "--columns input=NAME"),
    ],
)
def test_a_new_study_asks_what_convert_asks(tmp_path, row, told):
    path = lined(tmp_path / "x.jsonl", row, row)
    with pytest.raises(DesignError, match=told):
        new_study("s", test=path, base="b", fine_tuned="f", root=tmp_path)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(DataError, match="cannot read this file"):
        convert(tmp_path / "none.json")


def test_ids_that_repeat_become_a_label(tmp_path):
    rows = [{"id": "x", "prompt": str(n), "completion": "a"} for n in range(2)]
    made = convert(array(tmp_path / "x.json", *rows))
    assert [one["metadata"] for one in made.rows] == [{"id": "x"}, {"id": "x"}]
    assert not any("id" in one for one in made.rows)


@pytest.mark.parametrize(
    ("write", "seems"),
    [
        (
            lined,
            "looks like rows in which instruction and input ask, output is the expected answer",
        ),
        (array, "a JSON array"),
        (lambda p, *r: array(p, *r, indent=1), "a JSON array"),
    ],
)
def test_a_fault_of_the_whole_file_is_told_once_with_its_remedy(tmp_path, write, seems):
    rows = [{"instruction": f"{n}?", "input": "", "output": "4"} for n in range(500)]
    path = write(tmp_path / "x.json", *rows)
    with pytest.raises(DataError) as caught:
        read_examples(path)
    assert seems in str(caught.value)
    assert f"evalkit convert {path} --to test.jsonl" in str(caught.value)
    assert len(str(caught.value)) < 1000
    unusable = [one for one in examine(path).findings if one.kind == "unusable"]
    assert len(unusable) == 1


def test_the_same_fault_of_many_rows_is_told_once_and_counted(tmp_path):
    rows = [{"messages": QA, "id": 0}, *({"text": "x"} for _ in range(400))]
    with pytest.raises(DataError) as caught:
        read_examples(lined(tmp_path / "x.jsonl", *rows))
    assert "(399 more rows alike)" in str(caught.value)
    assert len(str(caught.value)) < 1000
    broken = ["{" + "x" * n for n in range(400)]
    (tmp_path / "y.jsonl").write_text("\n".join([json.dumps(rows[0]), *broken]))
    with pytest.raises(DataError) as caught:
        read_examples(tmp_path / "y.jsonl")
    assert len(str(caught.value)) < 20_000


def test_a_study_starts_from_any_known_file(tmp_path):
    path = array(
        tmp_path / "x.json", *({"input": f"{n}?", "ideal": ["4", "four"]} for n in range(3))
    )
    said = []
    made = new_study("s", test=path, base="b", fine_tuned="f", root=tmp_path, say=said.append)
    (example, *_) = read_examples(made.with_name("test.jsonl")).examples
    assert example.right == ("4", "four")
    assert said == [convert(path).understood]


def test_a_study_whose_file_must_be_asked_about_leaves_nothing_behind(tmp_path):
    path = array(tmp_path / "x.json", {"prompt": "q", "output": "a", "completion": "b"})
    how = {"base": "b", "fine_tuned": "f", "root": tmp_path}
    with pytest.raises(DesignError, match="--columns expected=NAME"):
        new_study("s", test=path, **how)
    assert not (tmp_path / "data").exists()
    new_study("s", test=path, columns="expected=output", **how)


def test_converting_overwrites_nothing_and_copies_chat_as_it_is(tmp_path):
    path = lined(tmp_path / "x.jsonl", {"messages": QA, "id": 1})
    assert "1 row of chat" in convert_file(path, tmp_path / "t.jsonl")
    assert read_examples(path).fingerprint == read_examples(tmp_path / "t.jsonl").fingerprint
    with pytest.raises(DataError, match="exists already"):
        convert_file(path, tmp_path / "t.jsonl")
