from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from evalkit import ledger
from evalkit.abtest.lock import Look, read_looks, record_look
from evalkit.errors import DataError

LOOK = Look(
    experiment="exp",
    plan_sha256="0" * 64,
    look=1,
    information=0.5,
    n_control=500,
    n_treatment=490,
    effect_shown=True,
    verdict="no difference shown",
    at="2026-11-02T09:00:00+00:00",
)


def test_every_look_is_kept_in_order(tmp_path):
    path = tmp_path / "ledger.jsonl"
    assert read_looks(path) == ()
    looks = [record_look(path, replace(LOOK, look=number)) for number in (1, 2, None)]
    assert read_looks(path) == tuple(looks)
    assert record_look(str(path), LOOK) == read_looks(str(path))[-1]


def test_a_look_without_a_time_gets_the_present_one(tmp_path):
    assert record_look(tmp_path / "ledger.jsonl", replace(LOOK, at="")).at[:2] == "20"


def test_looks_from_many_hands_do_not_mix(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: record_look(path, replace(LOOK, look=number)), range(100)))
    assert sorted(look.look for look in read_looks(path)) == list(range(100))


def test_a_torn_last_look_is_passed_over_and_the_next_one_takes_its_place(tmp_path):
    path = tmp_path / "ledger.jsonl"
    record_look(path, LOOK)
    path.write_bytes(path.read_bytes() + b'{"experiment": "ex')
    with pytest.warns(UserWarning, match=r"ledger\.jsonl:2: the last line is unfinished"):
        assert read_looks(path) == (LOOK,)
    with pytest.warns(
        UserWarning, match=r"ledger\.jsonl: the last line was unfinished \(18 bytes\)"
    ):
        record_look(path, LOOK)
    assert read_looks(path) == (LOOK, LOOK)


def test_a_broken_line_among_looks_is_named(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, "look", {"experiment": "ex"})
    with pytest.raises(DataError, match=r"ledger\.jsonl:1: not a look"):
        read_looks(path)
