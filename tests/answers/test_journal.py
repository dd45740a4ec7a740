"""The journal: what is written survives, what contradicts is refused, what is torn is mended."""

import json
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.answers import journal
from evalkit.errors import DataError
from evalkit.records import Answer

HEAD = journal.Header(
    model="m", endpoint="local", parameters={"temperature": 0.0}, test_set="ab" * 32
).record()
PROMPT = [{"role": "user", "content": "hi"}]
OK = Answer(text="hello", outcome="ok", latency_ms=12.5, prompt_tokens=3)


def key(n=0):
    return journal.call_key("m", "local", {"temperature": 0.0}, PROMPT, n)


def begun(path, *answers):
    """A journal with these answers, as samples 0, 1, 2 ... of example x."""
    with journal.Writer(path, HEAD) as writer:
        for n, answer in enumerate(answers):
            writer.append(key(n), "x", n, answer)
    return path


def test_what_is_written_is_read_back(tmp_path):
    path = begun(
        tmp_path / "sub" / "j.jsonl",
        OK,
        Answer(text="a\u2028b \U0001f600 \\ud83d", outcome="truncated", sanitized=True),
    )
    found = journal.read_journal(path)
    assert found.header == json.loads(json.dumps(HEAD))
    assert [entry.answer.text for entry in found.entries] == [
        "hello",
        "a\u2028b \U0001f600 \\ud83d",
    ]
    assert found.entries[0].answer == OK
    assert [(entry.example_id, entry.sample, entry.line) for entry in found.entries] == [
        ("x", 0, 2),
        ("x", 1, 3),
    ]


def test_each_line_is_on_the_file_before_the_next_answer(tmp_path):
    with journal.Writer(tmp_path / "j.jsonl", HEAD) as writer:
        writer.append(key(), "x", 0, OK)
        assert len((tmp_path / "j.jsonl").read_bytes().splitlines()) == 2


@pytest.mark.parametrize("outcome", ["empty", "ok"])
def test_an_answer_the_server_broke_off_was_no_answer_and_is_asked_again(tmp_path, outcome):
    # lines as they were written before: the reason stands in the file, the outcome did not heed it
    broken = Answer(text="R0" if outcome == "ok" else "", outcome=outcome, finish_reason="error")
    silent = Answer(text="", outcome="empty", finish_reason="stop")  # nothing tells these apart
    path = begun(tmp_path / "j.jsonl", broken, silent)
    first, second = (entry.answer for entry in journal.read_journal(path).entries)
    assert (first.outcome, first.text, second.outcome) == ("error", "", "empty")
    assert "finish_reason 'error'" in first.error
    with journal.Writer(path, HEAD) as writer:
        assert (writer.find(key(0)), writer.find(key(1))) == (None, silent)


def test_a_finished_call_is_found_again_and_an_error_is_not(tmp_path):
    path = begun(
        tmp_path / "j.jsonl",
        OK,
        Answer(text="", outcome="error", error="500"),
        Answer(text="", outcome="refused"),
    )
    with journal.Writer(path, HEAD) as writer:
        assert writer.find(key(0)) == OK
        assert writer.find(key(1)) is None
        assert key(1) not in writer
        assert writer.find(key(2)) == Answer(text="", outcome="refused")
        writer.append(key(1), "x", 1, OK)
        assert writer.find(key(1)) == OK
    assert [entry.answer.outcome for entry in journal.read_journal(path).entries] == [
        "ok",
        "ok",
        "refused",
    ]


def test_an_error_after_an_answer_asks_again(tmp_path):
    path = begun(tmp_path / "j.jsonl", OK)
    with path.open("a") as file:
        file.write(
            json.dumps(
                {"key": key(0), "example_id": "x", "sample": 0, "text": "", "outcome": "error"}
            )
            + "\n"
        )
    with journal.Writer(path, HEAD) as writer:
        assert writer.find(key(0)) is None


def test_the_key_knows_model_endpoint_parameters_messages_and_sample():
    keys = {
        journal.call_key("m", "local", {"a": 1, "b": 2}, PROMPT, 0),
        journal.call_key("n", "local", {"a": 1, "b": 2}, PROMPT, 0),
        journal.call_key("m", "other", {"a": 1, "b": 2}, PROMPT, 0),
        journal.call_key("m", "local", {"a": 1, "b": 3}, PROMPT, 0),
        journal.call_key("m", "local", {"a": 1, "b": 2}, [{"role": "user", "content": "ho"}], 0),
        journal.call_key("m", "local", {"a": 1, "b": 2}, PROMPT, 1),
    }
    assert len(keys) == 6
    assert (
        journal.call_key("m", "local", {"b": 2, "a": 1}, tuple(PROMPT), 0) in keys
    )  # order of names does not matter


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(4)))
def test_the_answers_hash_does_not_depend_on_the_order_of_writing(order, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hash")
    answers = [
        Answer(text=f"answer {n}", outcome="ok", latency_ms=float(order[n])) for n in range(4)
    ]
    for name, turn in (("a", range(4)), ("b", order)):
        with journal.Writer(folder / name, HEAD) as writer:
            for n in turn:
                writer.append(key(n), "x", n, answers[n])
    assert journal.answers_hash(folder / "a") == journal.answers_hash(folder / "b")


def test_the_answers_hash_changes_with_text_outcome_and_place(tmp_path):
    answers = {
        "text": [OK],
        "other text": [Answer(text="bye", outcome="ok")],
        "outcome": [Answer(text="hello", outcome="truncated")],
        "more": [OK, OK],
    }
    assert (
        len(
            {
                journal.answers_hash(begun(tmp_path / name, *given_))
                for name, given_ in answers.items()
            }
        )
        == 4
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "n"}, "for model 'm', now asked: 'n'"),
        ({"endpoint": "openai"}, "for endpoint 'local'"),
        (
            {"parameters": {"temperature": 0.7}},
            "for parameters {'temperature': 0.0}, now asked: {'temperature': 0.7}",
        ),
        ({"system_prompt": "Be brief."}, "for system_prompt ''"),
    ],
)
def test_a_journal_of_other_answers_is_refused_and_left_alone(tmp_path, change, said):
    path = begun(tmp_path / "j.jsonl", OK)
    before = path.read_bytes()
    with pytest.raises(DataError, match="name another journal") as caught:
        journal.Writer(path, {**HEAD, **change})
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}:1: ")
    assert path.read_bytes() == before


@pytest.mark.parametrize("failed", [0, 2])
def test_a_journal_without_an_answer_binds_nothing(tmp_path, failed):
    # a misspelt model name leaves the header, and perhaps calls that failed
    path = begun(tmp_path / "j.jsonl", *[Answer(text="", outcome="error", error="404")] * failed)
    right = {**HEAD, "model": "right", "parameters": {}, "test_set": "cd" * 32}
    with journal.Writer(path, right) as writer:
        writer.append(key(), "x", 0, OK)
    found = journal.read_journal(path)
    assert (found.header, [one.answer for one in found.entries]) == (right, [OK])
    with pytest.raises(DataError, match="for model 'right', now asked: 'm'"):
        journal.Writer(path, HEAD)


def test_an_answer_that_a_later_error_took_back_still_binds(tmp_path):
    path = begun(tmp_path / "j.jsonl", OK)
    with journal.Writer(path, HEAD) as writer:
        writer.append(key(), "x", 0, Answer(text="", outcome="error", error="500"))
    with pytest.raises(DataError, match="for model 'm'"):
        journal.Writer(path, {**HEAD, "model": "n"})


def test_another_version_of_the_test_set_is_said_but_its_answers_are_used(tmp_path):
    path = begun(tmp_path / "j.jsonl", OK)
    with (
        pytest.warns(UserWarning, match="another version of the test set"),
        journal.Writer(path, {**HEAD, "test_set": "cd" * 32}) as w,
    ):
        assert w.find(key(0)) == OK


def test_a_name_that_stands_twice_in_a_header_or_an_answer_is_refused(tmp_path):
    path = begun(tmp_path / "j.jsonl", OK)
    head, answer = path.read_text().splitlines()
    path.write_text(head.replace('"model"', '"model": "other", "model"') + f"\n{answer}\n")
    told = r'j\.jsonl:1: not JSON \(the name "model" stands twice in one object'
    with pytest.raises(DataError, match=told):
        journal.read_journal(path)
    with pytest.raises(DataError, match=told):
        journal.Writer(path, HEAD)
    path.write_text(head + "\n" + answer.replace('"outcome"', '"outcome": "ok", "outcome"') + "\n")
    with pytest.raises(
        DataError, match=r':2: not JSON \(the name "outcome" stands twice .*; remove this line'
    ):
        journal.read_journal(path)


@pytest.mark.parametrize(
    "edit", [{"system_prompt": ["x"]}, {"system_prompt": None}, {"function": {"module": []}}]
)
def test_a_header_whose_texts_are_no_texts_is_refused(tmp_path, edit):
    path = begun(tmp_path / "j.jsonl", OK)
    head, answer = path.read_text().splitlines()
    path.write_text(f"{json.dumps(json.loads(head) | edit)}\n{answer}\n")
    with pytest.raises(DataError, match=r"j\.jsonl:1: not the header of a journal \(Expected"):
        journal.read_journal(path)


def test_an_infinite_number_in_an_answer_is_refused(tmp_path):
    path = begun(tmp_path / "j.jsonl", OK)
    path.write_text(path.read_text().replace('"sample": 0', '"sample": 1e999'))
    with pytest.raises(DataError, match=r"j\.jsonl:2: not JSON \(1e999"):
        journal.read_journal(path)


def test_a_torn_tail_is_cut_off_with_a_warning_and_asked_again(tmp_path):
    path = begun(tmp_path / "j.jsonl", OK, OK)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.warns(UserWarning, match="the last line is unfinished and was left out"):
        assert len(journal.read_journal(path).entries) == 1
    with pytest.warns(UserWarning, match=r"the last line was unfinished.*asked again"):
        writer = journal.Writer(path, HEAD)
    with writer:
        assert writer.find(key(1)) is None
        writer.append(key(1), "x", 1, OK)
    assert len(journal.read_journal(path).entries) == 2


@settings(max_examples=50, deadline=None)
@given(cut=st.integers(min_value=0, max_value=900))
def test_wherever_a_journal_is_torn_it_opens_again_and_loses_one_line_at_most(
    cut, tmp_path_factory
):
    path = begun(tmp_path_factory.mktemp("torn") / "j.jsonl", OK, OK)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    n_whole = path.read_bytes().count(b"\n")
    with _torn_or_not(), journal.Writer(path, HEAD) as writer:
        found = sum(key(n) in writer for n in range(2))
        writer.append(key(5), "x", 5, OK)
    assert found == max(0, n_whole - 1)
    assert len(journal.read_journal(path).entries) == found + 1


@contextmanager
def _torn_or_not():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{not json}\n", "not JSON"),
        (b'{"key": "ab"}\n', "not an answer (Object missing required field"),
        (
            b'{"key": "xyz", "example_id": "x", "sample": 0, "text": "", "outcome": "ok"}\n',
            "not an answer",
        ),
        (b"\n", "not JSON"),
        (
            b'{"key": "ab", "example_id": "x", "sample": 0, "text": null, "outcome": "ok"}\n',
            "Expected `str`, got `null` - at `$.answer.text`",
        ),
        (
            b'{"key": "ab", "example_id": "x", "sample": 0, "text": "", "outcome": "fine"}\n',
            "Invalid enum value 'fine' - at `$.answer.outcome`",
        ),
    ],
)
def test_a_broken_line_is_named_with_its_remedy(tmp_path, line, said):
    path = begun(tmp_path / "j.jsonl", OK)
    path.write_bytes(path.read_bytes() + line)
    for opening in (journal.read_journal, lambda path: journal.Writer(path, HEAD)):
        with pytest.raises(
            DataError, match="remove this line, and that call is asked again"
        ) as caught:
            opening(path)
        assert str(caught.value).startswith(f"{path}:3: ")
        assert said in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"messages": []}\n',
        b"hello\n",
        b'{"kind": "evalkit-journal"}\n',
        b"no line end",
        b"two\nlines",
        b'{"a": 1}',
    ],
)
def test_what_is_no_journal_is_neither_read_nor_overwritten(tmp_path, content):
    path = tmp_path / "j.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="journal"):
        journal.read_journal(path)
    if content:
        with pytest.raises(DataError, match="journal"):
            journal.Writer(path, HEAD)
        assert path.read_bytes() == content


def test_a_newer_version_says_update(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_text(json.dumps({**HEAD, "version": 2}) + "\n")
    with pytest.raises(DataError, match="update evalkit"):
        journal.read_journal(path)


def test_a_missing_journal_says_what_writes_it(tmp_path):
    with pytest.raises(DataError, match="run the benchmark"):
        journal.read_journal(tmp_path / "none.jsonl")


def test_a_second_writer_is_refused_and_the_first_is_not_disturbed(tmp_path):
    path = tmp_path / "j.jsonl"
    with journal.Writer(path, HEAD) as first:
        with pytest.raises(DataError, match="another run is writing this journal"):
            journal.Writer(path, HEAD)
        first.append(key(), "x", 0, OK)
    with journal.Writer(path, HEAD) as later:
        assert later.find(key()) == OK


def test_a_killed_writer_leaves_no_lock_and_no_loss(tmp_path):
    path = tmp_path / "j.jsonl"
    script = (
        "import sys; from evalkit.answers import journal; from evalkit.records import Answer\n"
        "head = journal.Header(model='m', endpoint='local', parameters={'temperature': 0.0}).record()\n"
        f"writer = journal.Writer({str(path)!r}, head)\n"
        "n = 0\n"
        "while True:\n"
        "    writer.append(journal.call_key('m', 'local', {}, [], n), 'x', n, Answer(text='hello', outcome='ok'))\n"
        "    n += 1; print(n, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        while int(child.stdout.readline()) < 50:
            pass
        with pytest.raises(DataError, match="another run"):
            journal.Writer(path, {**HEAD, "test_set": ""})
        child.kill()
        told = [int(line) for line in child.stdout if line.strip()] or [50]
    with _torn_or_not(), journal.Writer(path, {**HEAD, "test_set": ""}):
        pass
    assert len(journal.read_journal(path).entries) >= told[-1]


def test_a_full_disk_is_said_in_plain_words():
    with pytest.raises(
        DataError,
        match=r"/dev/full: cannot write \(No space left on device\); free some space and start again",
    ):
        journal.Writer("/dev/full", HEAD)


def test_a_disk_that_fills_up_leaves_whole_lines_only(tmp_path):
    # a limit on the file size stands in for the full disk: 700 bytes more hold two answers of about 330 bytes, not three
    path = begun(tmp_path / "j.jsonl", OK)
    room = path.stat().st_size + 700
    script = (
        "import resource, signal; from evalkit.answers import journal\n"
        "from evalkit.errors import DataError; from evalkit.records import Answer\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))\n"
        f"writer = journal.Writer({str(path)!r}, journal.read_header({str(path)!r}))\n"
        "try:\n"
        "    for n in range(1, 9):\n"
        "        writer.append(journal.call_key('m', 'local', {}, [], n), 'x', n, Answer(text='hello', outcome='ok'))\n"
        "except DataError as why:\n"
        "    print(why)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert "what was written is kept" in said
    assert path.read_bytes().endswith(b"\n")
    assert len(journal.read_journal(path).entries) == 1 + 2


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose a folder you may write to"):
        journal.Writer(tmp_path / "file" / "j.jsonl", HEAD)


def test_a_thousand_answers_take_well_under_a_second(tmp_path):
    started = time.process_time()
    begun(tmp_path / "j.jsonl", *[OK] * 1000)
    assert time.process_time() - started < 0.5


def test_half_characters_in_a_journal_made_elsewhere_are_gone_when_it_is_read(tmp_path):
    path = begun(tmp_path / "j.jsonl", OK)
    path.write_text(
        path.read_text().replace('"hello"', '"he\\ud800llo"').replace('"m"', '"m\\udfff"')
    )
    found = journal.read_journal(path)
    assert found.entries[0].answer.text == r"he\ud800llo"
    assert found.header["model"] == r"m\udfff"
