"""Chat JSONL: every broken row is listed with its line and remedy, and nothing is passed over in silence."""

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.answers import dataset as lines
from evalkit.answers.dataset import read_examples
from evalkit.errors import DataError


def row(question="Pharyngalgia", expected="R07.0: Pain in throat", **more):
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": expected},
        ],
        **more,
    }


def written(path, *rows, end="\n"):
    """Rows as JSON lines; bytes and texts are written as they are."""
    raw = [
        one
        if isinstance(one, bytes)
        else (one if isinstance(one, str) else json.dumps(one)).encode()
        for one in rows
    ]
    path.write_bytes(b"".join(line + end.encode() for line in raw))
    return path


def many(n, **more):
    return [row(f"question {i}", id=f"q{i}", **more) for i in range(n)]


def chat(*turns):
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]})


def test_the_last_message_is_expected_and_all_before_it_the_prompt(tmp_path):
    system = {"role": "system", "content": "Code it."}
    first = {
        "messages": [system, *row()["messages"]],
        "id": "007",
        "metadata": {"kind": "single", "n": 2, "nos": False},
    }
    test_set = read_examples(
        written(tmp_path / "t.jsonl", first),
        slice_fields=("kind", "n", "nos"),
        cluster_field="kind",
    )
    (example,) = test_set.examples
    assert example.messages == (system, {"role": "user", "content": "Pharyngalgia"})
    assert (example.example_id, example.expected, example.line) == (
        "007",
        "R07.0: Pain in throat",
        1,
    )
    assert example.slices == {"kind": "single", "n": "2", "nos": "false"}
    assert example.cluster == "single"


BROKEN = {
    "bad JSON": (
        "{oops",
        "not JSON (Expecting property name enclosed in double quotes, column 2); write one JSON",
    ),
    "two objects": ("{} {}", "not JSON (Extra data"),
    "a list": ("[]", "the row: Expected object, got array"),
    "no messages": ('{"id": 1, "text": "x"}', "the row: Object missing required field messages"),
    "empty list": ('{"messages": []}', "missing required field messages"),
    "messages a text": ('{"messages": "x"}', "messages: Expected array, got str"),
    "message a text": ('{"messages": ["x"]}', "messages[0]: Expected object, got str"),
    "no role": (
        '{"messages": [{"content": "x"}]}',
        "messages[0]: Object missing required field role",
    ),
    "strange role": (
        chat(("human", "x"), ("assistant", "y")),
        "messages[0].role: Invalid enum value 'human'",
    ),
    "content a number": (
        '{"messages": [{"role": "user", "content": 7}]}',
        "messages[0].content: Expected str | array | null, got int",
    ),
    "empty question": (
        chat(("user", " \n"), ("assistant", "y")),
        "message 1 (role 'user') has no text",
    ),
    "empty answer": (
        chat(("user", "x"), ("assistant", "")),
        "message 2 (role 'assistant') has no text",
    ),
    "empty parts as answer": (
        chat(("user", "x"), ("assistant", [])),
        "the expected answer has no text",
    ),
    "nothing asked": (chat(("system", "x")), "last message has role 'system', so nothing is asked"),
    "text under another name": (
        '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "parts": ["y"]}]}',
        "message 2 (role 'assistant') has no text, thoughts left out; it has parts",
    ),
    "text under another name in a part": (
        chat(("user", "x"), ("assistant", [{"type": "text", "value": "y"}])),
        "the expected answer has no text, thoughts left out; it has value",
    ),
    "a call under another name": (
        '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "toolCalls": [{"a": 1}]}]}',
        "message 2 (role 'assistant') has no text, thoughts left out; it has toolCalls",
    ),
    "also_right a text": (json.dumps(row(also_right="y")), "also_right: Expected array, got str"),
    "also_right without an answer": (
        '{"messages": [{"role": "user", "content": "x"}], "also_right": ["y"]}',
        "also_right stands beside no expected answer",
    ),
    "answer only": (chat(("assistant", "y")), "nothing stands before the expected answer"),
    "id a list": (json.dumps(row(id=[1])), "id: Expected int | str | null, got array"),
    "id true": (json.dumps(row(id=True)), "id: Expected int | str | null, got bool"),
    "id empty": (json.dumps(row(id="")), "id: Expected a text, not blank"),
    "id an empty list": (json.dumps(row(id=[])), "id: Expected int | str | null, got array"),
    "id blank": (json.dumps(row(id=" ")), "id: Expected a text, not blank"),
    "not UTF-8": (
        b'{"messages": "\xe4"}',
        "not JSON ('utf-8' codec can't decode byte 0xe4 in position 14",
    ),
    "NaN": ('{"messages": [], "x": NaN}', "not JSON (NaN is no number"),
    "duplicate name": (
        '{"messages": [], "messages": []}',
        'not JSON (the name "messages" stands twice in one object); write one JSON object on each '
        "line, as UTF-8, no name twice in it",
    ),
    "deep nesting": ('{"messages": ' + "[" * 100_000, "nested too deeply"),
    "endless number": ('{"messages": [], "x": ' + "9" * 5000 + "}", "not JSON (Exceeds the limit"),
    "infinite number": (
        '{"messages": [], "tools": [{"x": 1e999}]}',
        "not JSON (1e999 is no number",
    ),
    "lone surrogate": (chat(("user", "half \ud83d"), ("assistant", "y")), "holds half a character"),
    "lone surrogate in the id": (
        json.dumps(row(id="\udfff")).replace("udfff", "uDFFF"),
        "holds half a character",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_row_is_listed_with_line_problem_and_remedy(tmp_path, case):
    raw, said = BROKEN[case]
    path = written(tmp_path / "t.jsonl", row(id="a"), raw, row(id="b"))
    with pytest.raises(DataError) as caught:
        read_examples(path)
    heading, line, hint = str(caught.value).splitlines()
    assert heading == f"{path}: 1 problem, 2 usable rows; nothing was asked"
    assert line.startswith(f"{path}:2: ")
    assert said in line
    assert "; " in line
    assert "strict=False" in hint
    lenient = read_examples(path, strict=False)
    assert [example.example_id for example in lenient.examples] == ["a", "b"]
    assert [(one.line, f":2: {one.problem}; {one.remedy}" in line) for one in lenient.problems] == [
        (2, True)
    ]
    assert "1 row left out that cannot be used, the first is line 2" in lenient.notes


def test_all_problems_are_listed_at_once(tmp_path):
    path = written(tmp_path / "t.jsonl", *[raw for raw, _ in BROKEN.values()])
    with pytest.raises(DataError) as caught:
        read_examples(path)
    lines = str(caught.value).splitlines()[1:-1]
    assert [line.split(":")[1] for line in lines] == [str(n) for n in range(1, len(BROKEN) + 1)]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_a_file_without_rows_is_a_problem(tmp_path, content):
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="the file has no rows"):
        read_examples(path)
    assert read_examples(path, strict=False).examples == ()


def test_a_missing_file_and_a_folder_are_said(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DataError, match="cannot read this file"):
            read_examples(path)


def test_utf_16_is_said_once(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in many(5)), encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16; save it as UTF-8") as caught:
        read_examples(path)
    assert len(str(caught.value).splitlines()) == 3


def test_bom_crlf_key_order_and_row_order_change_nothing(tmp_path):
    rows = many(3, metadata={"kind": "x"})
    plain = read_examples(written(tmp_path / "a", *rows))
    turned = [{name: one[name] for name in reversed(one)} for one in reversed(rows)]
    odd = read_examples(
        written(
            tmp_path / "b",
            b"\xef\xbb\xbf" + json.dumps(turned[0]).encode(),
            *turned[1:],
            end="\r\n",
        )
    )
    assert odd.fingerprint == plain.fingerprint
    assert len(plain.fingerprint) == 64
    assert sorted(example.example_id for example in odd.examples) == ["q0", "q1", "q2"]


def test_ids_and_words_change_the_fingerprint(tmp_path):
    files = [
        many(2),
        [*many(1), row("other", id="q1")],
        [*many(1), row("question 1", id="q2")],
        many(3),
    ]
    found = {
        read_examples(written(tmp_path / str(n), *rows)).fingerprint for n, rows in enumerate(files)
    }
    assert len(found) == 4


def test_a_whole_pair_of_surrogates_is_a_character(tmp_path):
    (example,) = read_examples(
        written(tmp_path / "t.jsonl", json.dumps(row("smile \U0001f600")))
    ).examples
    assert example.messages[0]["content"] == "smile \U0001f600"


@settings(max_examples=50, deadline=None)
@given(
    text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
)
def test_any_text_survives_as_one_row(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "t.jsonl"
    path.write_text(
        json.dumps(row(f"a\u2028b\u0085c {text}", text), ensure_ascii=False) + "\n",
        encoding="utf-8",
        newline="\n",
    )
    (example,) = read_examples(path).examples  # str.splitlines() would have made three rows of it
    assert example.messages[0]["content"] == f"a\u2028b\u0085c {text}"
    assert example.expected == text


def test_a_line_that_is_far_too_long_is_named_without_being_held(tmp_path):
    path = tmp_path / "t.jsonl"
    with path.open("w") as file:
        file.write(json.dumps(row(id="a")) + "\n" + '{"messages": "')
        for _ in range(50):
            file.write("x" * 2**20)
        file.write('"}\n' + json.dumps(row(id="b")) + "\n")
    tracemalloc.start()
    lenient = read_examples(path, strict=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (problem,) = lenient.problems
    assert (problem.line, problem.problem) == (
        2,
        "the line is 50 MB long, more than 16 MB, which no model reads",
    )
    assert [example.line for example in lenient.examples] == [1, 3]
    assert peak < 3 * lines.MAX_LINE_BYTES


def test_a_long_line_below_the_limit_is_read(tmp_path):
    long = "word " * 10**6
    assert (
        read_examples(written(tmp_path / "t.jsonl", row(long))).examples[0].messages[0]["content"]
        == long
    )


def test_an_id_used_twice_names_both_lines(tmp_path):
    path = written(tmp_path / "t.jsonl", row("a", id=7), row("b"), row("c", id="7"))
    with pytest.raises(
        DataError, match=r':3: id "7" stands on line 1 too; give each row an id of its own'
    ):
        read_examples(path)


def test_rows_without_id_are_known_by_their_content(tmp_path):
    with pytest.warns(
        UserWarning, match=r"t\.jsonl: 2 rows without id stand in the file more than once"
    ):
        test_set = read_examples(
            written(tmp_path / "t.jsonl", row("a"), row("b"), row("a"), row("a"))
        )
    first, other, second, third = (example.example_id for example in test_set.examples)
    assert (second, third) == (f"{first}-2", f"{first}-3")
    assert other != first
    assert any(
        "2 rows without id stand in the file more than once" in note for note in test_set.notes
    )
    moved = read_examples(written(tmp_path / "u.jsonl", row("b"), row("a")))
    assert [example.example_id for example in moved.examples] == [other, first]


def test_prompts_asked_twice_few_rows_and_blank_lines_are_noted(tmp_path):
    path = written(tmp_path / "t.jsonl", row("a", "x", id=1), "", row("a", "y", id=2))
    notes = " | ".join(read_examples(path).notes)
    assert "1 prompt asked before (line 3 repeats 1)" in notes
    assert "1 blank line passed over, the first is line 2" in notes
    assert "only 2 examples: below 100" in notes
    assert read_examples(written(tmp_path / "u.jsonl", *many(100))).notes == ()


def test_the_system_prompt_replaces_or_stands_in_front_and_that_is_recorded(tmp_path):
    own = {"messages": [{"role": "system", "content": "Old."}, *row()["messages"]], "id": "own"}
    path = written(tmp_path / "t.jsonl", own, row(id="bare"))

    def systems(**options):
        test_set = read_examples(path, **options)
        return [
            [m["content"] for m in example.messages if m["role"] == "system"]
            for example in test_set.examples
        ], test_set.system_prompt_mode

    assert systems() == ([["Old."], []], "none in 1 row and the row's own in 1 row")
    assert read_examples(written(tmp_path / "all.jsonl", own)).system_prompt_mode == "the row's own"
    assert read_examples(written(tmp_path / "no.jsonl", row())).system_prompt_mode == "none"
    assert systems(system_prompt="New.") == (
        [["New."], ["New."]],
        "prepended in 1 row and replaced in 1 row",
    )
    assert systems(system_prompt="New.", system_prompt_mode="prepend") == (
        [["New.", "Old."], ["New."]],
        "prepended",
    )
    assert systems(system_prompt="New.", system_prompt_mode="replace")[0] == [["New."], ["New."]]
    assert read_examples(path).fingerprint == read_examples(path, system_prompt="New.").fingerprint


def test_parts_are_kept_in_the_prompt_and_flattened_in_the_expectation(tmp_path):
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    (example,) = read_examples(written(tmp_path / "t.jsonl", row(parts, parts))).examples
    assert example.messages[0]["content"] == parts
    assert example.expected == "one two"


def test_a_limit_keeps_the_first_rows_but_checks_and_fingerprints_the_whole_file(tmp_path):
    path = written(tmp_path / "t.jsonl", *many(5))
    assert [example.example_id for example in read_examples(path, limit=2).examples] == ["q0", "q1"]
    assert read_examples(path, limit=2).fingerprint == read_examples(path).fingerprint
    assert read_examples(path, limit=2).n_rows == 5
    assert len(read_examples(path, limit=0).examples) == 5
    with pytest.raises(DataError, match=r":6: not JSON"):
        read_examples(written(path, *many(5), "{oops"), limit=2)


def test_a_field_no_row_has_is_refused_with_those_there_are(tmp_path):
    path = written(tmp_path / "t.jsonl", *many(2, metadata={"kind": "x"}))
    with pytest.raises(DataError, match="no row has 'knd'; the rows have id, kind and metadata"):
        read_examples(path, slice_fields=("knd",))
    with pytest.raises(
        DataError, match="no row has 'patnt'; the rows have"
    ):  # one message, not one a row
        read_examples(path, cluster_field="patnt")


def test_a_row_without_its_cluster_is_a_problem(tmp_path):
    path = written(tmp_path / "t.jsonl", row("a", patient="p1", id=1), row("b", id=2))
    with pytest.raises(DataError, match=":2: no 'patient' to cluster by"):
        read_examples(path, cluster_field="patient")


def test_rows_can_be_streamed_without_being_kept(tmp_path):
    path = written(tmp_path / "t.jsonl", *many(5))
    checked = read_examples(path, keep=False)
    assert (checked.examples, checked.n_rows) == ((), 5)
    assert (
        list(checked)
        == list(checked)
        == list(read_examples(path))
        == list(read_examples(path).examples)
    )
    assert [one.example_id for one in read_examples(path, keep=False, limit=2)] == ["q0", "q1"]
