"""Other tools' files, written by the tools themselves on small data, and what people send instead of them."""

import json
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from evalkit import compare_models
from evalkit.errors import DataError, DesignError
from evalkit.interop.logs import read_log

LOGS = Path(__file__).with_name("logs")
LM_EVAL = next(LOGS.glob("samples_*.jsonl"))


@pytest.mark.parametrize("name", ["inspect_base.json", "inspect_base.eval"])
def test_a_log_of_inspect_reads_the_same_in_both_of_its_forms(name):
    log = read_log(LOGS / name)
    assert (log.tool, log.model) == ("Inspect 0.3.285", "mockllm/model")
    assert len(log.rows) == 24  # 12 samples, 2 epochs
    first = next(row for row in log.rows if row.example_id == "s0" and row.sample == 0)
    assert (first.answer.text, first.expected, first.answer.scores) == (
        "yes",
        ("yes",),
        {"match": 1.0},
    )
    assert first.slices == {"grp": "0"}


def test_a_laid_out_log_and_the_same_in_one_line_are_the_same(tmp_path):
    packed = tmp_path / "log.json"
    packed.write_text(json.dumps(json.loads((LOGS / "inspect_base.json").read_text())))
    assert read_log(packed).rows == read_log(LOGS / "inspect_base.json").rows


def test_reductions_of_several_scorers_are_no_samples(tmp_path):
    log = json.loads((LOGS / "inspect_base.json").read_text())
    log["reductions"] *= 2  # one list a scorer, laid out as the samples are
    path = tmp_path / "log.json"
    path.write_text(json.dumps(log, indent=2))
    assert read_log(path).rows == read_log(LOGS / "inspect_base.json").rows


def test_the_one_score_of_version_1_is_kept(sample, tmp_path):
    log = read_log(sample(tmp_path, version=1, scores=None, score={"value": "C"}))
    assert log.rows[0].answer.scores == {"score": 1.0}


def test_two_logs_of_inspect_are_compared_in_pairs_of_examples_not_of_epochs():
    base, tuned = (read_log(LOGS / f"inspect_{side}.eval") for side in ("base", "ft"))
    compared = compare_models(base.results, tuned.results, primary_metric="match")
    assert compared.n == 12
    assert sum(compared.cells.values()) == 12


@pytest.fixture
def sample():
    """A log of one sample, with what a test changes in it."""

    def made(tmp_path, *, version=2, status="success", **changes):
        one = {
            "id": 1,
            "epoch": 1,
            "input": "q",
            "target": "a",
            "output": {
                "model": "m",
                "choices": [{"message": {"content": "a"}, "stop_reason": "stop"}],
            },
            "scores": {"match": {"value": "C"}},
        }
        log = {
            "version": version,
            "status": status,
            "eval": {"model": "m", "task": "t", "run_id": "r"},
            "samples": [one | changes],
        }
        path = tmp_path / "log.json"
        path.write_text(json.dumps(log))
        return path

    return made


@pytest.mark.parametrize(
    ("value", "scores"),
    [
        ("C", {"match": 1.0}),
        ("P", {"match": 0.5}),
        ("I", {"match": 0.0}),
        ("N", {"match": 0.0}),
        (True, {"match": 1.0}),
        (0.25, {"match": 0.25}),
        ({"f1": 0.5, "em": "C"}, {"match_f1": 0.5, "match_em": 1.0}),
        (float("nan"), {"match": None}),
        ({"a": float("inf"), "b": 0.5}, {"match_a": None, "match_b": 0.5}),
        ("refused to say", {"match": None}),
    ],
)
def test_a_score_of_inspect_is_a_number_or_is_told_to_be_none(value, scores, sample, tmp_path):
    log = read_log(sample(tmp_path, scores={"match": {"value": value}}))
    assert log.rows[0].answer.scores == scores
    assert any("no numbers" in note for note in log.notes) == (None in scores.values())


@pytest.mark.parametrize(
    ("changes", "text", "outcome"),
    [
        ({"output": {"choices": [], "completion": "c"}}, "c", "ok"),
        ({"output": {"choices": []}}, "", "empty"),
        ({"output": None}, "", "error"),
        ({"error": {"message": "boom"}}, "a", "error"),
        (
            {"output": {"choices": [{"message": {"content": "x"}, "stop_reason": "max_tokens"}]}},
            "x",
            "truncated",
        ),
        (
            {"output": {"choices": [{"message": {"content": [{"type": "text", "text": "p"}]}}]}},
            "p",
            "ok",
        ),
        (
            {
                "output": {
                    "choices": [
                        {
                            "message": {
                                "content": "",
                                "tool_calls": [{"id": "1", "function": "f", "arguments": {"n": 1}}],
                            }
                        }
                    ]
                }
            },
            '[call of f: {"n": 1}]',
            "ok",
        ),
    ],
)
def test_every_shape_of_an_answer_of_inspect_is_read(changes, text, outcome, sample, tmp_path):
    answer = read_log(sample(tmp_path, **changes)).rows[0].answer
    assert (answer.text, answer.outcome) == (text, outcome)


def test_a_text_kept_as_an_attachment_is_put_back(sample, tmp_path):
    log = read_log(sample(tmp_path, input="attachment://x", attachments={"x": "the question"}))
    assert log.rows[0].messages == ({"role": "user", "content": "the question"},)


def test_any_of_several_targets_is_right(sample, tmp_path):
    log = read_log(sample(tmp_path, target=["b", "a"]))
    assert log.results[0].exact_match is True


def test_a_target_that_is_not_there_is_no_wrong_answer(sample, tmp_path):
    result = read_log(sample(tmp_path, target="")).results[0]
    assert result.exact_match is None
    compared = compare_models([result], [result], primary_metric="match")
    assert "exact_match" not in compared.tests
    assert "similarity" not in compared.tests


def test_a_killed_run_gives_what_was_finished_and_says_so(sample, tmp_path):
    head = json.loads((sample(tmp_path)).read_text())
    with zipfile.ZipFile(tmp_path / "killed.eval", "w") as log:
        log.writestr("_journal/start.json", json.dumps({"version": 2, "eval": head["eval"]}))
        log.writestr("samples/1_epoch_1.json", json.dumps(head["samples"][0]))
    found = read_log(tmp_path / "killed.eval")
    assert len(found.rows) == 1
    assert "status is 'started'" in found.notes[0]


def _zip(path, name, content, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as log:
        log.writestr("header.json", json.dumps({"version": 2, "eval": {"model": "m"}}))
        log.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("samples/1.json", b" " * (40 * 2**20), "which no log does; nothing was read"),
        ("../samples/1.json", b"{}", "which Inspect does not write"),
        ("/samples/1.json", b"{}", "which Inspect does not write"),
        ("samples/1.json", b"{", "not a whole log of Inspect"),
        ("notes.txt", b"", "no sample was finished"),
    ],
)
def test_a_zip_that_is_no_honest_log_is_refused_in_one_line(name, content, told, tmp_path):
    with pytest.raises(DataError, match=told) as refused:
        read_log(_zip(tmp_path / "log.eval", name, content))
    assert "\n" not in str(refused.value)


def test_a_newer_version_is_told_before_its_fields_are_missed(sample, tmp_path):
    with pytest.raises(DataError, match=r"version 9, this evalkit reads 1 to 3; update evalkit"):
        read_log(sample(tmp_path, version=9, target={"new": "shape"}))


def test_lm_eval_names_its_own_exact_match_apart_from_ours():
    log = read_log(LM_EVAL)
    assert (log.tool, log.model, len(log.rows)) == ("lm-eval 0.4.13", "qdpv68r5", 3)
    assert log.scores == ("lm_eval_exact_match",)
    assert log.rows[0].expected == ("I10",)
    assert log.rows[0].example_id == (
        "170fc8704cc5b8d09845776e4d23c8d59ab10f1a45c9dc70c11a19f03ba71a95"
    )


def test_several_filters_of_lm_eval_are_asked_for(tmp_path):
    lines = [json.loads(line) for line in LM_EVAL.read_text().splitlines()]
    path = tmp_path / "samples_t_2026.jsonl"
    both = [*lines, *({**one, "filter": "strict", "filtered_resps": ["x"]} for one in lines)]
    path.write_text("".join(json.dumps(one) + "\n" for one in both))
    with pytest.raises(DesignError, match=r"several filters, none is guessed.*'none' and 'strict'"):
        read_log(path)
    assert {row.answer.text for row in read_log(path, filter_name="strict").rows} == {"x"}


def test_a_choice_of_lm_eval_is_the_likeliest_option(tmp_path):
    line = {
        "doc_id": 0,
        "target": 1,
        "arguments": {
            f"gen_args_{n}": {"arg_0": "q", "arg_1": f" {one}"} for n, one in enumerate("ab")
        },
        "filtered_resps": [[-3.0, False], [-1.0, True]],
        "metrics": ["acc"],
        "acc": 1.0,
    }
    path = tmp_path / "samples_t_2026.jsonl"
    path.write_text(json.dumps(line) + "\n")
    row = read_log(path).rows[0]
    assert (row.answer.text, row.expected, row.example_id) == ("b", ("b",), "t-0")


@pytest.mark.parametrize("name", ["promptfoo_results.json", "promptfoo_results.jsonl"])
def test_an_arm_of_promptfoo_is_asked_for_and_read(name):
    with pytest.raises(
        DesignError, match=r"several arms, none is guessed; it holds 'base' and 'ft'"
    ):
        read_log(LOGS / name)
    log = read_log(LOGS / name, arm="ft")
    assert [row.example_id for row in log.rows] == ["0", "1"]
    assert log.rows[0].expected == ("I10.1: hypertension",)
    assert log.rows[0].answer.scores == {"promptfoo_exact": 1.0, "passed": 1.0}
    assert log.rows[1].answer.outcome == "ok"  # an assertion that failed is no failed call


def test_prompts_of_one_provider_are_arms_too(tmp_path):
    row = {"testIdx": 0, "provider": {"id": "echo", "label": ""}, "vars": {"q": "x"}, "score": 1}
    rows = [row | {"promptIdx": n, "prompt": {"label": f"say {n}"}} for n in (0, 1)]
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    with pytest.raises(DesignError, match="'prompt 0' and 'prompt 1'"):
        read_log(path)


def _batch_line(custom_id, text="hi", **changes):
    body = {"model": "m", "choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    reply = {"status_code": 200, "body": body}
    return {"id": "b", "custom_id": custom_id, "response": reply, "error": None} | changes


def test_a_batch_is_joined_on_its_ids_and_its_failures_are_errors(tmp_path):
    refused = {"status_code": 400, "body": {"error": {"message": "too long"}}}
    lines = [
        _batch_line("r2#1"),
        _batch_line("r1"),
        _batch_line("r3", response=refused),
        _batch_line("r4", response=None, error={"code": "batch_expired", "message": "expired"}),
    ]
    path = tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    rows = {row.example_id: row for row in read_log(path).rows}
    assert rows["r2"].sample == 1
    assert rows["r1"].answer.text == "hi"
    assert (rows["r3"].answer.outcome, rows["r3"].answer.error) == ("error", "too long")
    assert (rows["r4"].answer.outcome, rows["r4"].answer.error) == ("error", "expired")


def test_a_reply_of_a_batch_is_read_as_the_endpoint_reads_one(tmp_path):
    message = {"content": None, "refusal": "I will not."}
    body = {"choices": [{"message": message, "finish_reason": "stop"}]}
    lines = [
        _batch_line("r1", "<think>so it is</think>\n42"),
        _batch_line("r2", response={"status_code": 200, "body": body}),
    ]
    path = tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    thought, refused = (row.answer for row in read_log(path).rows)
    assert (thought.text, thought.thinking) == ("42", "so it is")
    assert (refused.text, refused.outcome) == ("I will not.", "refused")


def test_items_of_openai_evals_keep_what_their_graders_said(tmp_path):
    item = {
        "id": "outputitem_1",
        "datasource_item_id": 5,
        "datasource_item": {"question": "q", "correct_label": "a"},
        "run_id": "evalrun_1",
        "results": [{"name": "match-1f0c9a77-aa", "passed": True, "score": 1.0}],
        "sample": {
            "model": "m",
            "input": [{"role": "user", "content": "q"}],
            "output": [{"role": "assistant", "content": "a"}],
            "finish_reason": "stop",
            "error": None,
            "usage": {"prompt_tokens": 3, "completion_tokens": 1},
        },
    }
    for name, content in (("list", {"object": "list", "data": [item]}), ("lines", item)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        row = read_log(path).rows[0]
        assert (row.example_id, row.answer.text, row.expected) == ("5", "a", ("a",))
        assert row.answer.scores == {"match": 1.0}


def test_a_table_is_read_by_the_names_of_its_columns(tmp_path):
    frame = pd.DataFrame(
        {
            "id": [1, 2],
            "question": ["p", "q"],
            "target": ["a", "b"],
            "output": ["a", "c"],
            "judge": [1.0, 0.2],
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    for name in ("t.csv", "t.parquet", "t.jsonl"):
        results = read_log(tmp_path / name).results
        assert [one.exact_match for one in results] == [True, False]
        assert [dict(one.scores) for one in results] == [{"judge": 1.0}, {"judge": 0.2}]


def test_the_index_that_pandas_writes_is_no_column_of_a_table(tmp_path):
    frame = pd.DataFrame({"id": ["a", "b"], "output": ["x", "y"], "judge": [1.0, 0.2]}, [3, 7])
    frame.to_csv(tmp_path / "t.csv")
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        log = read_log(tmp_path / name)
        assert (log.model, log.scores) == ("", ("judge",))


def test_how_an_answer_of_a_table_ended_is_a_text(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": 1, "output": "x", "finish_reason": 1}\n')
    assert read_log(path).rows[0].answer.finish_reason == "1"


def test_a_column_that_could_be_meant_twice_is_asked_for(tmp_path):
    path = tmp_path / "t.csv"
    pd.DataFrame({"id": [1], "output": ["a"], "response": ["b"]}).to_csv(path, index=False)
    with pytest.raises(DesignError, match=r"predicted could be 'output' and 'response'"):
        read_log(path)
    assert read_log(path, columns={"predicted": "response"}).rows[0].answer.text == "b"
    with pytest.raises(DesignError, match="no column 'nope'"):
        read_log(path, columns={"predicted": "nope"})


REAL = [
    "inspect_base.json",
    "inspect_base.eval",
    LM_EVAL.name,
    "promptfoo_results.json",
    "promptfoo_results.jsonl",
]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_was_cut_off_is_refused_in_one_line(name, share, tmp_path):
    whole = (LOGS / name).read_bytes()
    cut = tmp_path / name
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"copy it again|export") as refused:
        read_log(cut, arm="ft")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".eval", ".csv", ".parquet"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!doctype html><p>Sign in</p>",
        b"\x00\x01\x02",
        b"PK\x03\x04",
        b"[]",
        b"[1]",
        b"{}",
        b'{"a": 1}',
        b"null",
        b"PAR1",
    ],
)
def test_what_is_no_log_at_all_is_refused_in_one_line(suffix, content, tmp_path):
    path = tmp_path / f"log{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_log(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_the_same_id_with_two_contents_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    pd.DataFrame({"id": [1, 1], "output": ["a", "b"]}).to_csv(path, index=False)
    with pytest.raises(DataError, match="id '1' stands more than once with different contents"):
        read_log(path)


def test_a_log_is_read_a_sample_at_a_time(tmp_path):
    log = json.loads((LOGS / "inspect_base.json").read_text())
    log["samples"] = [
        {**log["samples"][0], "id": f"s{n}", "store": {"x": "y" * 9_000}} for n in range(900)
    ]
    path = tmp_path / "big.json"
    path.write_text(json.dumps(log, indent=2))
    assert [row.example_id for row in read_log(path).rows] == [f"s{n}" for n in range(900)]


def test_half_characters_are_read_as_their_codes_and_depth_is_told_by_its_line(tmp_path):
    rows = [{"id": f"{n}\ud800", "input": "q \udc00", "output": f"a\x00\ud83d {n}"} for n in range(3)]  # fmt: skip
    (path := tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    log = read_log(path)
    assert [row.example_id for row in log.rows] == [rf"{n}\ud800" for n in range(3)]
    assert log.rows[0].answer.text == "a\x00\\ud83d 0"
    path.write_text('{"id": "1", "output": "a"}\n' + "[" * 100_000 + "\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:2: .*copy it again"):
        read_log(path)


def test_what_a_table_of_texts_says_stays_as_it_stands(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "id,prediction,target,acc,ok,letter\n001,007,007,0.5,True,C\n01,1.0,1,,False,N\n"
    )
    log = read_log(path)
    assert [row.example_id for row in log.rows] == ["001", "01"]
    assert [row.answer.text for row in log.rows] == ["007", "1.0"]
    assert [row.answer.scores for row in log.rows] == [
        {"acc": 0.5, "ok": 1.0},
        {"acc": None, "ok": 0.0},
    ]
    assert [one.exact_match for one in log.results] == [True, False]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,prediction\na,x\n,y\n", "row 2 has no id"),
        ("id,prediction,epoch\na,x,one\n", "row 1: epoch is 'one', need a number"),
    ],
)
def test_a_row_of_a_table_that_cannot_be_placed_is_named(text, told, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=told):
        read_log(path)


def test_lm_evals_texts_of_logarithms_are_options_too(tmp_path):
    line = {"doc_id": 0, "doc_hash": "h", "target": "1", "filter": "none", "metrics": ["acc"]}
    said = {"filtered_resps": [["-9.5", "False"], ["-10.5", "False"]], "acc": 0.0}
    path = tmp_path / "samples_t_1.jsonl"
    path.write_text(json.dumps(line | said | {"arguments": [["q", " no"], ["q", " yes"]]}) + "\n")
    row = read_log(path).rows[0]  # -9.5 > -10.5, though "-9.5" is the later text
    assert (row.answer.text, row.expected) == ("no", ("yes",))


def test_a_document_that_lm_eval_holds_twice_is_two_examples(tmp_path):
    line = {"doc_hash": "h", "target": "a", "filter": "none", "metrics": ["acc"], "acc": 1.0}
    path = tmp_path / "samples_t_1.jsonl"
    path.write_text(
        "".join(json.dumps(line | {"doc_id": n, "filtered_resps": [str(n)]}) + "\n" for n in (0, 1))
    )
    assert [row.example_id for row in read_log(path).rows] == ["h-0", "h-1"]


@pytest.mark.parametrize(
    ("changes", "text", "outcome"),
    [
        ({}, "hi", "ok"),
        ({"incomplete_details": {"reason": "max_output_tokens"}}, "hi", "truncated"),
        (
            {"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}]},
            "no",
            "refused",
        ),
        (
            {"output": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
            "[call of f: {}]",
            "ok",
        ),
    ],
)
def test_a_batch_of_the_responses_api_is_read_as_chat_is(changes, text, outcome, tmp_path):
    said = [{"type": "output_text", "text": "hi"}]
    body = {
        "object": "response",
        "model": "m",
        "output": [{"type": "reasoning"}, {"type": "message", "content": said}],
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }
    path = tmp_path / "out.jsonl"
    reply = {"status_code": 200, "body": body | changes}
    path.write_text(json.dumps(_batch_line("r1", response=reply)) + "\n")
    answer = read_log(path).rows[0].answer
    assert (answer.text, answer.outcome, answer.prompt_tokens) == (text, outcome, 3)


def test_a_bomb_spread_over_many_members_is_refused(tmp_path):
    path = tmp_path / "x.eval"
    head = json.dumps({"version": 2, "eval": {}})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as log:
        log.writestr("header.json", head)
        for n in range(36):  # 36 * 15 MB, each below what one sample may be
            log.writestr(f"samples/{n}_epoch_1.json", bytes(15 * 2**20))
    with pytest.raises(DataError, match="unpacks to 540 MB"):
        read_log(path)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (
            "promptfoo_results.json",
            {"metadata": "x"},
            "not the results of promptfoo .AttributeError",
        ),
        ("items.json", {"data": [True]}, "row 1 is no object"),
    ],
)
def test_what_a_tool_would_never_write_is_refused_in_one_line(name, change, told, tmp_path):
    there = LOGS / name
    content = json.loads(there.read_text()) if there.exists() else {}
    path = tmp_path / name
    path.write_text(json.dumps(content | change))
    with pytest.raises(DataError, match=told):
        read_log(path, arm="ft")


def test_a_number_too_large_to_be_one_is_no_score(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text(json.dumps([{"id": 1, "output": "a", "judge": 10**400}]))
    assert read_log(path).rows[0].answer.scores == {}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            '{"id": 1, "output": "a"}\n{"id": 2, "output": "a", "output": "b"}',
            ':2: the name "output"',
        ),
        ('[\n{"id": 1, "id": 2,\n"output": "a"}\n]', ': the name "id"'),
    ],
)
def test_a_name_that_stands_twice_is_refused_and_not_read_by_its_last_value(
    content, told, tmp_path
):
    (path := tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(DataError, match=f"rows.jsonl{told} stands twice in one object; keep one"):
        read_log(path)
