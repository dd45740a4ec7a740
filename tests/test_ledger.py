"""The ledger is one chain: whatever is changed in it or beside it is told, with the place and what to do."""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from evalkit import ledger
from evalkit.errors import DataError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / ledger.FILE
    for n in range(4):
        ledger.append(path, "run", {"run": n})
    return path


def rewritten(path, change):
    lines = path.read_bytes().splitlines(keepends=True)
    change(lines)
    path.write_bytes(b"".join(lines))


def test_a_line_names_the_one_before_it_and_the_head_stands_for_all(path):
    found = ledger.read(path)
    raw = path.read_bytes().splitlines()
    assert [json.loads(one)["previous"] for one in raw] == ["", *list(found.heads)[:3]]
    assert (found.head, found.heads[found.head]) == (found.lines[-1].sha256, 4)
    assert [line.facts["run"] for line in found.of("run")] == [0, 1, 2, 3]
    assert all(line.seal is None and line.at[:2] == "20" for line in found.lines)


@pytest.mark.parametrize(
    ("change", "where", "said"),
    [
        (lambda a: a.__setitem__(1, a[1].replace(b'{"run":1}', b'{"run":7}')), 3, "was changed"),
        (lambda a: a.pop(1), 2, "was changed, dropped or put between"),
        (lambda a: a.pop(0), 1, r"names [0-9a-f]{12}, that is none"),
        (lambda a: a.insert(2, a[2]), 4, "follows the same line"),
        (lambda a: a.insert(0, a[0]), 2, "follows the same line as another one does: a git merge"),
        (lambda a: a.reverse(), 1, "was changed"),
        (lambda a: a.insert(2, b"<<<<<<< ours\n"), 3, "a git merge of two branches"),
        (lambda a: a.append(b">>>>>>> theirs\n"), 5, "--ours or --theirs"),
        (lambda a: a.append(b"[]\n"), 5, "not a line of a ledger"),
        (lambda a: a.append(b'{"kind": 7}\n'), 5, "not a line of a ledger"),
        (lambda a: a.append(b"\xff\xfe\n"), 5, "not a line of a ledger"),
    ],
)
def test_what_was_done_to_the_chain_is_told_with_its_line_and_nothing_is_added_to_it(
    path, change, where, said
):
    rewritten(path, change)
    before = path.read_bytes()
    for act in (ledger.read, lambda path: ledger.append(path, "run", {})):
        with pytest.raises(DataError, match=rf"ledger\.jsonl:{where}: .*{said}"):
            act(path)
    assert path.read_bytes() == before


def test_a_last_line_that_was_dropped_leaves_a_chain_without_its_head(path):
    head = ledger.read(path).head
    rewritten(path, lambda lines: lines.pop())
    assert head not in ledger.read(path).heads


def test_a_torn_tail_is_left_out_and_goes_with_the_next_line(path):
    whole = ledger.read(path)
    path.write_bytes(path.read_bytes() + b'{"at": "20')
    assert (ledger.read(path).lines, ledger.read(path).torn) == (whole.lines, True)
    with pytest.warns(UserWarning, match="the last line was unfinished"):
        ledger.append(path, "run", {"run": 4})
    assert (len(ledger.read(path).lines), ledger.read(path).torn) == (5, False)


def _add(path):
    for _ in range(20):
        ledger.append(path, "run", {"by": os.getpid()})


def test_several_processes_write_one_chain(tmp_path):
    with ProcessPoolExecutor(3) as pool:
        list(pool.map(_add, [tmp_path / ledger.FILE] * 3))
    assert len(ledger.read(tmp_path / ledger.FILE).lines) == 60


def test_a_kill_at_any_write_leaves_a_whole_chain(tmp_path):
    path = tmp_path / ledger.FILE
    code = (
        "import sys; from evalkit import ledger\n"
        "while True: ledger.append(sys.argv[1], 'run', {'x': 'y' * 9000}); print(1, flush=True)"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
    assert len(ledger.read(path).lines) >= 3


def test_what_earlier_versions_kept_is_read_and_carried_over_once_and_it_is_said(tmp_path):
    (tmp_path / "looks.jsonl").write_text('{"look": 1, "at": "2026-01-01T00:00:00+00:00"}\n{"to')
    (tmp_path / "history.jsonl").write_text('{"run": "a"}\n{"run": "b"}\n')
    (tmp_path / "plan.lock.json").write_text("{}")
    path = tmp_path / ledger.FILE
    before = ledger.read(path)
    assert ([one.facts["run"] for one in before.of("run")], before.head) == (["a", "b"], "")
    assert ledger.mismatches(tmp_path) == ()
    told = []
    ledger.append(path, "run", {"run": "c"}, told=told.append)
    ledger.append(path, "look", {"look": 2}, told=told.append)
    (said,) = told
    assert said.endswith(
        "takes the place of looks.jsonl and history.jsonl, whose lines it now holds"
    )
    (tmp_path / "history.jsonl").unlink()
    after = ledger.read(path)
    assert [one.facts["run"] for one in after.of("run")] == ["a", "b", "c"]
    assert next((one.facts["look"], one.at[:4]) for one in after.of("look")) == (1, "2026")
    (tmp_path / "plan.lock.json").write_text("{ }")
    assert [one.file for one in ledger.mismatches(tmp_path)] == ["plan.lock.json"]


def test_a_damaged_line_of_an_earlier_file_is_named(tmp_path):
    (tmp_path / "looks.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"looks\.jsonl:1: not JSON"):
        ledger.read(tmp_path / ledger.FILE)


def test_a_seal_says_whether_the_holder_of_the_key_wrote_a_line_and_the_key_stands_nowhere(
    path, monkeypatch
):
    monkeypatch.setenv(ledger.SEAL_KEY, "q7Vx-2Lr9-Kt4w-88Zp")
    ledger.append(path, "run", {"run": 4, "note": "q7Vx-2Lr9-Kt4w-88Zp"})
    assert [line.seal for line in ledger.read(path).lines] == [False] * 4 + [True]
    assert b"q7Vx" not in path.read_bytes()
    monkeypatch.setenv(ledger.SEAL_KEY, "another key")
    assert ledger.read(path).lines[-1].seal is False
    monkeypatch.delenv(ledger.SEAL_KEY)
    assert ledger.read(path).lines[-1].seal is None


def test_a_sealed_file_is_told_with_what_it_was_what_it_is_and_since_when(tmp_path):
    plan, lock = tmp_path / "plan.lock.json", tmp_path / "ratings/r1/lock.json"
    lock.parent.mkdir(parents=True)
    plan.write_text("{}")
    lock.write_text("{}")
    sealed = ledger.files_sealed(tmp_path, [plan])
    ledger.append(tmp_path / ledger.FILE, "run", {})  # takes stock of what is there
    ledger.append(tmp_path / ledger.FILE, "plan", {"files": sealed}, at="2026-11-28T10:00:00+00:00")
    ledger.check(tmp_path)
    plan.write_text("[]")
    (told,) = ledger.mismatches(tmp_path)
    assert (
        "was sha256 44136fa355b3... by line 3 of the ledger (plan, 2026-11-28T10:00" in told.words
    )
    assert "is sha256 4f53cda18c2b..., written 20" in told.words
    plan.unlink()
    with pytest.raises(DataError, match="is gone; restore it from a copy, or lock it again"):
        ledger.check(tmp_path, "plan")
    ledger.check(tmp_path, "ratings/r1")
    batch = tmp_path / "ratings/r2/batch.json"
    batch.parent.mkdir()
    batch.write_text("{}")
    with pytest.raises(DataError, match="stands in no line of the ledger"):
        ledger.check(tmp_path, "ratings/r2")


def test_a_ledger_from_before_its_head_was_kept_goes_on_and_has_one_then(tmp_path):
    lines, head = [], ""
    for n in range(3):
        record = {"previous": head, "kind": "look", "at": f"2026-11-2{n}", "facts": {"n": n}}
        lines.append(json.dumps(record).encode())
        head = hashlib.sha256(lines[-1]).hexdigest()
    (path := tmp_path / ledger.FILE).write_bytes(b"\n".join(lines) + b"\n")
    assert ledger.mismatches(tmp_path) == ()
    made = ledger.append(path, "look", {"n": 3})
    assert (tmp_path / ledger.HEAD).read_text().strip() == made
    ledger.append(path, "look", {"n": 4})
    (tmp_path / ledger.HEAD).unlink()  # two lines know of it now
    (lost,) = ledger.mismatches(tmp_path)
    assert "ledger.head: is gone" in lost.words
