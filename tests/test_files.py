import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from evalkit.errors import DataError
from evalkit.files import (
    LineFile,
    alone,
    append_line,
    lines,
    read_json,
    read_text,
    read_yaml,
    write_new,
    write_whole,
)
from tests.full_disk import largest_file


def test_lines_come_back_with_number_and_offset(tmp_path):
    path = tmp_path / "new folder" / "a.jsonl"
    assert list(lines(path)) == []
    for line in (b"one", b"three"):
        append_line(path, line)
    assert list(lines(path)) == [(1, 0, b"one\n"), (2, 4, b"three\n")]


@pytest.mark.parametrize("tail", [b"t", b'{"run": "b"', b"\x00" * 5000, b"x" * 200_000])
def test_a_torn_tail_is_left_out_by_readers_and_removed_by_the_next_append(tmp_path, tail):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\n" + tail)
    with pytest.warns(UserWarning, match=r"a\.jsonl:2: the last line is unfinished"):
        assert [line for *_, line in lines(path)] == [b"one\n"]
    with pytest.warns(UserWarning, match=rf"was unfinished \({len(tail)} bytes\); removed"):
        append_line(path, b"two")
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_full_disk_leaves_whole_lines_and_later_nights_go_on(tmp_path):
    path = tmp_path / "a.jsonl"
    append_line(path, b"one")
    with (
        largest_file(9),  # 4 bytes are there: room for 5 of the next 11
        pytest.raises(DataError, match=r"a\.jsonl: cannot write \(File too large\)"),
    ):
        append_line(path, b"0123456789")
    assert path.read_bytes() == b"one\n"
    append_line(path, b"two")
    assert path.read_bytes() == b"one\ntwo\n"


def test_many_hands_append_whole_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: append_line(path, f"{n:03d}".encode() * 50), range(80)))
    assert sorted(line for *_, line in lines(path)) == [
        f"{n:03d}".encode() * 50 + b"\n" for n in range(80)
    ]


def test_who_does_not_wait_is_refused(tmp_path):
    with (
        LineFile(tmp_path / "a"),
        pytest.raises(DataError, match="another run is writing"),
    ):
        LineFile(tmp_path / "a", wait=False)


def test_a_whole_file_replaces_another_or_nothing_changes(tmp_path):
    path = write_whole(tmp_path / "a.json", b"old")
    with largest_file(2), pytest.raises(DataError, match=r"a\.json: cannot write"):
        write_whole(path, b"newer")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", ["a.json"])
    write_whole(path, b"new", mode=0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)


def test_a_new_file_is_put_once(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        put = list(threads.map(lambda n: write_new(tmp_path / "a", b"%d" % n), range(16)))
    assert sum(put) == 1
    assert (tmp_path / "a").read_bytes() == b"%d" % put.index(True)
    assert os.listdir(tmp_path) == ["a"]


COUNT = """
import sys
from pathlib import Path
from evalkit.files import alone, write_whole
path = Path(sys.argv[1])
for _ in range(100):
    with alone(path.parent):
        write_whole(path, b"%d" % (int(path.read_bytes()) + 1))
"""


def test_what_is_read_changed_and_written_alone_loses_nothing(tmp_path):
    path = write_whole(tmp_path / "n", b"0")
    running = [subprocess.Popen([sys.executable, "-c", COUNT, str(path)]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert path.read_bytes() == b"300"


def test_a_folder_that_is_not_there_cannot_be_held(tmp_path):
    with pytest.raises(DataError, match="cannot be held"), alone(tmp_path / "none"):
        pass


@pytest.mark.parametrize("name", ["gone", "\0"])
def test_what_is_no_path_to_a_file_is_named_with_its_remedy(tmp_path, name):
    with pytest.raises(DataError, match=r"no plan .*; write one"):
        read_text(tmp_path / name, said="no plan", remedy="write one")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("alpha: 0.05\npower: 0.8\nalpha: 0.5\n", ":3: alpha stands twice, first in line 1;"),
        ("base:\n  seed: 1\n  seed: 2\n", ":3: seed stands twice, first in line 2;"),
        (
            "- {name: error}\n- {name: p95,\n   margin: 1, name: a}\n",
            ":3: name stands twice, first",
        ),
        ("yes: 1\ntrue: 2\n", ":2: true stands twice, first in line 1;"),
        ("1: a\n'1': b\n", ":2: 1 stands twice, first in line 1;"),
        ('"a": 1\na: 2\n', ":2: a stands twice, first in line 1;"),
        ("a: {<<: {b: 1},\n <<: {c: 2}}\n", ":2: << stands twice, first in line 1;"),
    ],
)
def test_a_name_that_stands_twice_in_yaml_is_refused_with_both_lines(tmp_path, text, told):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(f"{path}{told}")) as refused:
        read_yaml(path, need="`name: value` lines")
    assert str(refused.value).endswith("keep one of them")


def test_what_a_yaml_mapping_says_itself_goes_before_what_it_takes_over(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("a: &a {prompt: 1, currency: EUR}\nb: {<<: *a, prompt: 2}\nc: *a\n")
    assert read_yaml(path, need="prices") == {
        "a": {"prompt": 1, "currency": "EUR"},
        "b": {"prompt": 2, "currency": "EUR"},
        "c": {"prompt": 1, "currency": "EUR"},
    }


def test_a_yaml_value_that_holds_itself_is_refused(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("a: &a [*a]\n")
    with pytest.raises(DataError, match="not YAML"):
        read_yaml(path, need="rules")


def test_a_name_that_stands_twice_in_json_is_refused(tmp_path):
    path = tmp_path / "lock.json"
    path.write_text('{"plan": {"alpha": 0.05, "n": 1, "alpha": 0.5}}')
    told = f'{path}: no lock (the name "alpha" stands twice in one object); restore it'
    with pytest.raises(DataError, match=re.escape(told)):
        read_json(path, said="no lock", remedy="restore it")
