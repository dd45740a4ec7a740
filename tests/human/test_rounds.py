import subprocess
from pathlib import Path

import pytest

from evalkit.errors import DataError, DesignError
from evalkit.human.rater import Session
from evalkit.human.round import Round


def test_locking_closes_the_round_and_only_then_the_key_opens(new_round, rate):
    round_ = new_round()
    rate(round_, "rater1", lambda _: "left")
    with pytest.raises(DesignError, match="still open"):
        round_.key()
    record = round_.lock()
    assert record["complete"] is True
    assert record["votes"]["rater1"]["votes"] == 22  # 20 pairs and 2 repeats
    assert round_.key().fine_tuned_side
    assert round_.lock() == record


def test_a_vote_or_an_undo_after_the_lock_is_refused(new_round):
    round_ = new_round()
    session = Session(round_, "rater1")
    session.vote(session.current, "left", seconds=2)
    with pytest.raises(DesignError, match=r"1 of 22 votes are in \(rater1 1 of 22\)"):
        round_.lock()
    assert not round_.locked
    assert round_.lock(unfinished=True)["complete"] is False
    before = round_.votes("rater1").path.read_bytes()
    for act in (lambda: session.vote(session.current, "left", seconds=2), session.undo):
        with pytest.raises(DesignError, match="closed"):
            act()
    assert round_.votes("rater1").path.read_bytes() == before
    assert session.view()["state"] == "closed"
    assert session.view()["item"] == {}


def test_a_round_without_votes_or_without_its_key_cannot_be_locked(new_round, rate):
    empty = new_round()
    with pytest.raises(DesignError, match="nobody has voted"):
        empty.lock()
    assert not empty.locked
    keyless = new_round()
    rate(keyless, "rater1", lambda _: "left")
    (keyless.folder / "key.json").unlink()
    with pytest.raises(DataError, match=r"key\.json"):
        keyless.lock()
    assert not keyless.locked


@pytest.mark.parametrize("name", ["batch.json", "votes/rater1.jsonl", "key.json"])
def test_what_changes_after_the_lock_is_found(new_round, rate, name):
    round_ = new_round()
    rate(round_, "rater1", lambda _: "left")
    round_.lock()
    with (round_.folder / name).open("a") as file:
        file.write("\n")
    with pytest.raises(DataError, match=r"changed after|sealed with|jsonl:\d+: not a vote"):
        Round.open(round_.folder).key()


def test_progress_counts_what_stands(new_round):
    round_ = new_round(raters=("ann", "bob"))
    session = Session(round_, "ann")
    for _ in range(3):
        session.vote(session.current, "left", seconds=2)
    session.undo()
    ann, bob = round_.progress()
    assert (ann.rater, ann.done, ann.total) == ("ann", 2, 22)
    assert (bob.rater, bob.done, bob.last_at) == ("bob", 0, None)


def test_votes_of_another_round_are_found_before_the_lock(new_round, rate):
    round_, other = new_round(), new_round(seed=8)
    rate(round_, "rater1", lambda _: "left")
    rate(other, "rater1", lambda _: "left")
    with (round_.folder / "votes/rater1.jsonl").open("a") as file:
        file.write((other.folder / "votes/rater1.jsonl").read_text())
    for read in (round_.progress, round_.lock):
        with pytest.raises(DataError, match="is of another round"):
            read()
    assert not round_.locked


def test_a_folder_without_a_round_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="prepare the round first"):
        Round.open(tmp_path)
    (tmp_path / "batch.json").write_text('{"kind": "something", "version": 9}')
    with pytest.raises(DataError, match="need evalkit-batch version 1"):
        Round.open(tmp_path)


def test_git_takes_pairs_votes_and_lock_but_neither_key_nor_links():
    folder = "data/mystudy/ratings/round1"
    names = ("batch.json", "key.json", "links.json", "lock.json", "votes/ann.jsonl")
    command = ["git", "check-ignore", "--no-index", *(f"{folder}/{name}" for name in names)]
    out = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    ).stdout
    assert out.split() == [f"{folder}/key.json", f"{folder}/links.json"]


def test_a_clone_without_the_key_says_where_to_take_it_from(new_round, rate):
    round_ = new_round()
    rate(round_, "rater1", lambda _: "left")
    round_.lock()
    (round_.folder / "key.json").unlink()
    with pytest.raises(
        DataError,
        match=r"key\.json: no such file; .*bring the file from the machine that drew the round",
    ):
        round_.key()
