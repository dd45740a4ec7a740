"""A model's missing answers, asked for as a batch: one step a call, nothing paid twice, nothing answered lost."""

import json
from dataclasses import replace

import pytest
from batch_server import BatchServer
from faulty_server import THOUGHTS, FaultyServer

from evalkit.__main__ import main
from evalkit.answers import journal
from evalkit.answers.submission import AwayError, Submission
from evalkit.benchmark.benchmark import Benchmark
from evalkit.errors import DataError, ModelError
from evalkit.study import Study

N = 6
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project with a study of six questions; the last row has a tool, and two rows ask the same."""
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (folder / "study.yaml").write_text(
        "base_model: m\nfine_tuned_model: ft\nlive: true\nsystem_prompt: One code.\nattempts: 2\n"
        "request_seed: 7\nmax_tokens: 96\n"
    )
    rows = [
        {
            "id": f"row#{n}",
            "messages": [
                {"role": "user", "content": f"q\u2028{max(n, 1)}"},
                {"role": "assistant", "content": "R07.0: Pain in throat"},
            ],
        }
        for n in range(N)
    ]
    rows[-1]["tools"] = [TOOL]
    write_rows(tmp_path, rows)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback-key-1234567890")
    return tmp_path


def write_rows(root, rows):
    text = "".join(json.dumps(one) + "\n" for one in rows)
    (root / "data/mine/test.jsonl").write_text(text)


@pytest.fixture
def server(monkeypatch):
    with BatchServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


def submission(root, **settings) -> Submission:
    return benchmark(root, **settings).submission("base")


def benchmark(root, **settings) -> Benchmark:
    return Benchmark(study=Study.open("mine", root=root, **settings), asks=True)


def walked(root, steps=3, **settings):
    """What several calls of the command say."""
    return [" ".join(submission(root, **settings).step()) for _ in range(steps)]


def outcomes(root):
    return [one.outcome for one in benchmark(root).base]


def test_each_call_goes_one_step_and_then_a_run_asks_nothing(root, server):
    sent, going, done = walked(root)
    assert "batch_1: 5 calls sent to 127.0.0.1, validating" in sent  # of six two are the same
    assert "in progress, 0 of 5 calls answered" in going
    assert "completed; 5 answers of 5" in done
    assert "answers all 6 calls" in done
    assert [one.predicted for one in benchmark(root).base] == ["R07.0: Pain in throat"] * N
    assert not server.hits
    assert walked(root, 1) == [f"{root}/data/mine/journals/base.jsonl lacks no answer; there is nothing to send"]  # fmt: skip
    assert len(server.batches) == 1
    assert [one.name for one in (root / "data/mine/batches").iterdir()] == ["base.json"]


def test_a_batch_asks_exactly_what_single_calls_ask(root, server):
    walked(root, 1)
    bodies = {one["custom_id"]: one["body"] for one in server.sent()}
    assert bodies["row#0#0"]["messages"][0] == {"role": "system", "content": "One code."}
    assert bodies["row#5#0"]["tools"] == [TOOL]
    with FaultyServer() as alone:
        benchmark(root).ask("base", root / "alone.jsonl", base_url=alone.url, progress=False)
    asked = {json.dumps(hit.body, sort_keys=True) for hit in alone.hits}
    assert asked == {json.dumps(one, sort_keys=True) for one in bodies.values()}


def test_replies_are_read_as_those_of_single_calls(root, server):
    hows = ["refusal", "length", "blank content", THOUGHTS[2], "content_filter"]
    server.reply = lambda body: hows[int(body["messages"][-1]["content"][-1]) - 1]
    walked(root)
    found = {e.example_id: e.answer for e in journal.read_journal("data/mine/journals/base.jsonl").entries}  # fmt: skip
    assert [one.outcome for one in found.values()] == ["refused", "truncated", "empty", "ok", "refused"]  # fmt: skip
    assert found["row#4"].thinking == "throat, so R07"
    assert (found["row#4"].thinking_tokens, found["row#4"].completion_tokens) == (4, 5)


@pytest.mark.parametrize(
    ("fault", "n_answered", "said"),
    [
        ("out of order", 5, "5 answers of 5"),
        ("twice", 5, "5 answers of 5 and 5 lines left out: told twice, or of no call"),
        ("a line missing", 4, "1 call without a line"),
        ("torn", 4, "1 call without a line and 1 line left out"),
        ("expired", 2, "expired; 2 answers of 5 and 3 calls without a line"),
        ("failed", 0, "failed (line 1: model m cannot be batched); 0 answers of 5"),
    ],
)
def test_what_was_answered_is_kept_and_the_rest_is_sent_again(
    root, server, fault, n_answered, said
):
    server.reply = lambda body: "say " + body["messages"][-1]["content"]
    server.fault = fault
    assert said in walked(root)[-1]
    entries = journal.read_journal("data/mine/journals/base.jsonl").entries
    asked = {one["custom_id"]: one["body"]["messages"][-1]["content"] for one in server.sent()}
    assert len(entries) == n_answered
    assert all(e.answer.text == asked[f"{e.example_id}#0"] for e in entries if fault != "twice")
    server.fault = ""
    if n_answered < 5:
        assert f"{5 - n_answered} call" in walked(root)[0]
        assert len(server.sent()) == 5 - n_answered
    assert len(benchmark(root).base) == N
    assert not server.hits


def test_rows_the_server_refused_stand_as_errors_and_are_asked_again(root, server):
    server.reply = lambda body: "too long" if "tools" in body else "ok"
    done = walked(root)[-1]
    assert "4 answers of 5 and 1 error (1 times: 400: the reply has no choices: too long)" in done
    assert "1 call of 6 without an answer; the same command sends them again" in done
    assert len(server.sent()) == 5
    walked(root, 1)
    assert [one["custom_id"] for one in server.sent()] == ["row#5#0"]


def test_a_filter_in_the_error_file_is_a_refusal(root, server):
    server.reply = lambda body: "content_policy_violation" if "tools" in body else "ok"
    walked(root)
    assert outcomes(root)[-1] == "refused"


@pytest.mark.parametrize("fault", ["html output", "unknown ids"])
def test_a_file_that_is_no_output_takes_nothing_and_can_be_fetched_again(root, server, fault):
    walked(root, 2)
    server.fault = fault
    with pytest.raises(ModelError, match="nothing was taken, ask again later"):
        walked(root, 1)
    assert not (root / "data/mine/journals/base.jsonl").exists()
    server.fault = ""
    for batch in server.batches.values():
        batch["status"] = "in_progress"
    assert "5 answers of 5" in walked(root, 1)[0]


def test_a_web_page_instead_of_the_api_is_said_in_one_line(root, server):
    server.fault = "list html"
    with pytest.raises(
        ModelError, match=r"127\.0\.0\.1: the reply is not JSON, perhaps a web page"
    ):
        walked(root, 1)
    server.fault = "html"
    with pytest.raises(ModelError, match=r"127\.0\.0\.1: .*perhaps a web page"):
        walked(root, 1)
    assert not server.batches
    server.fault = ""
    assert "5 calls sent" in walked(root, 1)[0]


def test_a_kill_after_the_creation_creates_no_second_batch(root, server):
    server.fault = "drop after create"
    with pytest.raises(AwayError):
        walked(root, 1)
    server.fault = ""
    assert "batch_1: was sent before" in walked(root, 1)[0]
    assert "answers all 6 calls" in walked(root, 2)[-1]
    assert len(server.batches) == 1


def test_a_lost_state_finds_its_batch_again_among_others(root, server):
    walked(root, 1)
    for n in range(3):  # two pages of other people's
        server.batches[f"other_{n}"] = {"id": f"other_{n}", "status": "completed", "metadata": None}
    (root / "data/mine/batches/base.json").unlink()
    assert "batch_1: was sent before, validating" in walked(root, 1)[0]
    assert "5 answers" in walked(root, 2)[-1]


def test_parts_keep_to_the_limits_and_a_kill_between_them_sends_the_rest_only(root, server):
    small = replace(submission(root), most_requests=2)
    told = list(small.step())
    assert [one.split()[1] for one in told] == ["2", "2", "1"]
    assert [len(server.sent(n)) for n in range(3)] == [2, 2, 1]
    line = len(json.dumps(server.sent(0)[0])) + 30
    assert len(list(replace(small, most_requests=99, most_bytes=2 * line)._inputs(set()))) >= 3
    state = json.loads(small.path.read_text())
    state["parts"][2] |= {"batch_id": "", "file_id": ""}
    small.path.write_text(json.dumps(state))
    del server.batches["batch_3"]
    told = list(small.step())
    assert [one.split(",")[0] for one in told[:2]] == ["batch_1: was sent before", "batch_2: was sent before"]  # fmt: skip
    assert "1 call sent" in told[2]
    assert [one["custom_id"] for one in server.sent()] == ["row#5#0"]


def test_cancelling_keeps_what_was_answered(root, server):
    walked(root, 1)
    assert list(submission(root).cancel()) == ["batch_1: cancelling"]
    assert "cancelled; 2 answers of 5 and 3 calls without a line" in walked(root, 1)[0]
    assert list(submission(root).cancel()) == ["no batch is under way"]
    assert "3 calls sent" in walked(root, 1)[0]


def test_waiting_looks_ever_less_often_and_outlasts_a_server_that_is_away(root, server):
    walked(root, 1)
    server.busy = 3  # at two attempts a look: one look in vain, the second at its second attempt
    pauses = list[float]()
    told = list(submission(root).wait(pause=pauses.append))
    assert pauses == [5.0, 7.5, 11.25]
    assert "503: overloaded; asking again" in told[0]
    assert "answers all 6 calls" in told[-1]
    assert list(submission(root).wait(pause=pauses.append)) == []
    walked(root, 0)


def test_other_settings_or_another_server_are_refused_while_a_batch_is_under_way(root, server):
    walked(root, 1)
    with pytest.raises(DataError, match="asked with other parameters; set it as it was"):
        walked(root, 1, max_tokens=5)
    with pytest.raises(DataError, match="asked with other model"):
        walked(root, 1, base_model="m2")
    assert "5 answers" in walked(root, 2)[-1]
    with pytest.raises(DataError, match="holds answers for parameters"):  # before anything is paid
        walked(root, 1, max_tokens=5)
    assert len(server.batches) == 1


def test_a_batch_the_server_has_forgotten_and_a_state_that_is_damaged_are_named(root, server):
    walked(root, 1)
    server.batches.clear()
    with pytest.raises(ModelError, match="knows no batch batch_1"):
        walked(root, 1)
    state = root / "data/mine/batches/base.json"
    state.write_text(state.read_text()[:-20])
    with pytest.raises(DataError, match=r"base\.json: not the state of a batch"):
        walked(root, 1)


@pytest.mark.parametrize("other", ["--wait", "--cancel"])
def test_a_file_that_is_only_written_is_nothing_to_wait_for_or_to_cancel(other, root, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["batch", "mine", "--as", "base", "--write-only", "in.jsonl", other])
    assert "--write-only: sends nothing" in capsys.readouterr().err
    assert not (root / "in.jsonl").exists()


def test_by_hand_the_input_is_written_and_import_reads_what_comes_back(root, server, capsys):
    walked(root, 1)  # for the output only
    assert main(["batch", "mine", "--as", "fine_tuned", "--write-only", "in.jsonl"]) == 0
    assert capsys.readouterr().out == "in.jsonl\n"
    lines = [json.loads(one) for one in (root / "in.jsonl").read_bytes().splitlines()]
    assert [(one["method"], one["url"]) for one in lines] == [("POST", "/v1/chat/completions")] * 5
    assert {one["body"]["model"] for one in lines} == {"ft"}
    assert main(["batch", "mine", "--as", "fine_tuned", "--write-only", "in.jsonl"]) == 1
    assert "in.jsonl: is there already" in capsys.readouterr().err
    assert not (root / "data/mine/journals").exists()
    walked(root, 2)
    batch = server.batches["batch_1"]
    (root / "out.jsonl").write_bytes(server.files[batch["output_file_id"]])
    assert main(["import", "out.jsonl", "--as", "fine_tuned", "--study", "mine"]) == 0
    assert len(benchmark(root).fine_tuned) == N


def test_one_command_waits_and_no_key_stands_anywhere(root, server, capsys, monkeypatch):
    server.reply = lambda body: "say sk-loopback-key-1234567890"
    assert main(["batch", "mine", "--as", "base"]) == 0
    assert main(["batch", "mine", "--as", "base"]) == 0
    assert main(["batch", "mine", "--as", "base", "--wait"]) == 0
    assert "answers all 6 calls" in capsys.readouterr().out
    texts = [path.read_text() for path in (root / "data").rglob("*.json*")]
    assert not any("sk-loopback" in one for one in texts)
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert main(["batch", "mine", "--as", "fine_tuned"]) == 1
    assert "no endpoint: set OPENAI_API_KEY" in capsys.readouterr().err
