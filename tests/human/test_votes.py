import json
import os
import signal
import subprocess
import sys
import time

import pytest

from evalkit.errors import DataError, DesignError
from evalkit.human.round import Vote, VoteFile, read_standing
from tests.full_disk import largest_file

AT = "2026-11-24T12:00:00Z"
WRITER = """
import sys
from pathlib import Path
from evalkit.human.round import Vote, VoteFile
file = VoteFile(Path(sys.argv[1]))
for i in range(int(sys.argv[3])):
    file.append(Vote(item_id=f"{sys.argv[2]}-{i}", choice="left", left="a", seconds=1.0, at="now"))
    print(i, flush=True)
"""


def vote(item_id, choice="left", **more):
    return Vote(item_id=item_id, choice=choice, left="a", seconds=1.5, at=AT, **more)


def writer(path, name, n):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(n)], stdout=subprocess.PIPE, text=True
    )


def test_a_vote_is_one_line_and_reads_back_with_everything(tmp_path):
    path = tmp_path / "votes" / "ann.jsonl"
    given = vote(
        "i1", "both_bad", reasons=("tone",), note="naïve \u202e", via="key", simulated=True
    )
    assert VoteFile(path).append(given) is False
    assert path.read_bytes().count(b"\n") == 1
    assert read_standing(path) == {"i1": given}
    assert json.loads(path.read_text())["kind"] == "vote"


def test_undo_is_a_new_line_and_the_last_vote_on_an_item_wins(tmp_path):
    file = VoteFile(tmp_path / "ann.jsonl")
    for one in (vote("i1"), vote("i2"), vote("i1", "right")):
        file.append(one)
    assert list(file.standing().items()) == [("i2", vote("i2")), ("i1", vote("i1", "right"))]
    assert file.undo(AT) == vote("i1", "right")
    assert list(file.standing()) == ["i2"]
    assert file.path.read_bytes().count(b"\n") == 4
    file.undo(AT)
    assert file.undo(AT) is None
    assert file.path.read_bytes().count(b"\n") == 5


def test_two_pages_of_one_rater_see_each_others_votes(tmp_path):
    one, two = (VoteFile(tmp_path / "ann.jsonl") for _ in range(2))
    assert one.append(vote("i1")) is False
    assert two.append(vote("i1", "right")) is True
    assert one.standing()["i1"].choice == "right"


@pytest.mark.parametrize("tail", ['{"kind":"vote","item_id":"i2","cho', '{"kind"', "\x00\x00"])
def test_a_torn_tail_is_cut_off_and_the_next_vote_is_whole(tmp_path, tail):
    path = tmp_path / "ann.jsonl"
    VoteFile(path).append(vote("i1"))
    with path.open("a") as file:
        file.write(tail)
    assert list(read_standing(path)) == ["i1"]
    again = VoteFile(path)
    again.append(vote("i3"))
    assert again.repaired == 1
    assert list(read_standing(path)) == ["i1", "i3"]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "ann.jsonl"
    VoteFile(path).append(vote("i1"))
    path.write_bytes(path.read_bytes() + b'{"kind":"vote","item_id":"i2"}\n')
    for read in (lambda: read_standing(path), lambda: VoteFile(path).standing()):
        with pytest.raises(DataError, match=r"ann\.jsonl:2"):
            read()


@pytest.mark.parametrize(
    ("old", "new"),
    [('"reasons":[]', '"reasons":null'), ('"left":"a"', '"left":"c"'), ("1.5", "{}")],
)
def test_a_line_with_values_that_no_vote_has_is_named(tmp_path, old, new):
    path = tmp_path / "ann.jsonl"
    VoteFile(path).append(vote("i1"))
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=r"ann\.jsonl:1: not a vote"):
        read_standing(path)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_a_time_that_is_no_number_never_gets_into_the_file(seconds):
    with pytest.raises(DesignError, match=f"seconds is {seconds}; need a number"):
        Vote(item_id="a", choice="left", left="a", seconds=seconds, at=AT)


def test_a_full_disk_is_said_and_leaves_no_half_line(tmp_path):
    file = VoteFile(tmp_path / "ann.jsonl")
    file.append(vote("i1"))
    before = file.path.read_bytes()
    with largest_file(len(before) + 20), pytest.raises(DataError, match="cannot be written"):
        file.append(vote("i2"))
    assert file.path.read_bytes() == before
    assert list(file.standing()) == ["i1"]
    file.append(vote("i2"))
    assert list(read_standing(file.path)) == ["i1", "i2"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "votes").write_text(
        "a file where a folder should be"
    )  # root may write anywhere, so no chmod
    with pytest.raises(DataError, match="cannot be written"):
        VoteFile(tmp_path / "votes" / "ann.jsonl").append(vote("i1"))


def test_a_refusal_stores_nothing(tmp_path):
    def refuse():
        raise DesignError("closed")

    file = VoteFile(tmp_path / "ann.jsonl", refuse=refuse)
    for act in (lambda: file.append(vote("i1")), lambda: file.undo(AT)):
        with pytest.raises(DesignError):
            act()
    assert file.path.read_bytes() == b""


def test_a_thousand_votes_of_two_processes_are_all_there(tmp_path):
    path = tmp_path / "ann.jsonl"
    running = [writer(path, name, 500) for name in ("x", "y")]
    for process in running:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert set(read_standing(path)) == {f"{name}-{i}" for name in "xy" for i in range(500)}
    assert path.read_bytes().count(b"\n") == 1000


def test_a_kill_loses_no_vote_that_was_acknowledged(tmp_path):
    path = tmp_path / "ann.jsonl"
    told = 0
    for turn in range(5):
        process = writer(path, f"t{turn}", 100_000)
        process.stdout.readline()  # up and writing
        time.sleep(0.03 * turn)
        os.kill(process.pid, signal.SIGKILL)
        told += 1 + process.communicate()[0].count("\n")
    VoteFile(path).append(vote("last"))
    assert len(read_standing(path)) >= told + 1
