"""Every file of a round is checked against what was sealed before it: the ways to tamper with one, and what is said."""

import hashlib
import json
import shutil

import pytest

from evalkit.errors import DataError
from evalkit.human.preference import read_preference
from evalkit.human.rater import Session
from evalkit.human.round import Round
from evalkit.show import human


@pytest.fixture
def locked(new_round, rate, likes):
    round_ = new_round(raters=("ann", "bob"))
    for rater in round_.batch.raters:
        rate(round_, rater, likes("base"))
    round_.lock()
    return round_.folder


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def turned(key):
    for sides in (key["fine_tuned_side"], key["gold"]):
        sides.update({item: "b" if side == "a" else "a" for item, side in sides.items()})


def swap_key(folder, *, batch=False):
    """The key's sides exchanged, and every hash that the forger thinks of."""
    (folder / "locks.jsonl").unlink()
    key = edit(folder / "key.json", turned)
    seals = {"key_sha256": key}
    if batch:
        edited = edit(folder / "batch.json", lambda record: record.update(key_sha256=key))
        seals |= {"batch_sha256": edited} if batch == "and its hash" else {}
    edit(folder / "lock.json", lambda record: record.update(seals))


def flip_votes(folder):
    for path in (folder / "votes").iterdir():
        text = path.read_text().replace('"left",', '"x",').replace('"right",', '"left",')
        path.write_text(text.replace('"x",', '"right",'))


def without_votes(folder):
    flip_votes(folder)
    edit(folder / "lock.json", lambda record: record.update(votes={}))


def without_bob(folder):
    edit(folder / "lock.json", lambda record: record["votes"].pop("bob"))


def with_eve(folder):
    edit(
        folder / "lock.json",
        lambda record: record["votes"].update(eve=record["votes"]["bob"]),
    )


def bobs_votes_copied_from_ann(folder):
    shutil.copy(folder / "votes/ann.jsonl", folder / "votes/bob.jsonl")


def doubled_line(folder):
    path = folder / "votes/ann.jsonl"
    path.write_bytes(path.read_bytes() + path.read_bytes().split(b"\n")[0] + b"\n")


def other_count(folder):
    (folder / "locks.jsonl").unlink()
    edit(folder / "lock.json", lambda record: record["votes"]["ann"].update(votes=21))


def said_complete(folder):
    (folder / "locks.jsonl").unlink()
    edit(folder / "lock.json", lambda record: record.update(complete=False))


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (swap_key, r"changed after .*key\.json"),
        (lambda f: swap_key(f, batch=True), r"changed after the round was locked.*: batch\.json"),
        (without_votes, r"changed after .*votes/ann\.jsonl, votes/bob\.jsonl"),
        (without_bob, r"changed after .*: lock\.json, votes/bob\.jsonl"),
        (with_eve, r"changed after .*: lock\.json, votes/eve\.jsonl"),
        (flip_votes, r"changed after .*votes/ann\.jsonl, votes/bob\.jsonl"),
        (bobs_votes_copied_from_ann, r"votes/bob\.jsonl: .*other sides than"),
        (doubled_line, r"changed after .*votes/ann\.jsonl"),
        (other_count, r"changed after .*: votes/ann\.jsonl"),
        (said_complete, r"changed after .*: lock\.json"),
        (lambda f: (f / "votes/bob.jsonl").unlink(), r"changed after .*votes/bob\.jsonl"),
        (lambda f: (f / "votes/bob.jsonl").write_bytes(b""), r"changed after .*bob\.jsonl"),
        (lambda f: (f / "votes/eve.jsonl").write_bytes(b""), r"eve\.jsonl: votes of nobody"),
        (lambda f: edit(f / "lock.json", lambda r: None), r"changed after .*lock\.json"),
        (lambda f: edit(f / "key.json", turned), r"key\.json: not the key"),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_a_round_that_was_tampered_with_gives_no_result(locked, tamper, said):
    assert read_preference(Round.open(locked)).win_rate.estimate == 0
    tamper(locked)
    with pytest.raises(DataError, match=said) as caught:
        read_preference(Round.open(locked))
    assert "\n" not in str(caught.value)


FILES = ("batch.json", "key.json", "lock.json", "locks.jsonl", "votes/ann.jsonl")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"7", b'"text"', b"{}", b'{"kind": []}\n', b"\xff\xfe\n"],
)
def test_what_is_no_file_of_a_round_is_named_in_one_line(locked, name, content):
    if name == "locks.jsonl" and not content:
        pytest.skip("an empty record of locks is that of a round locked before there was one")
    (locked / name).write_bytes(content)
    if name == "locks.jsonl" and not content.endswith(b"\n"):
        (locked / name).write_bytes(content + b"\n")
    with pytest.raises(DataError, match=rf"{name.split('.')[0]}.*(re)?(store|start)") as caught:
        read_preference(Round.open(locked))
    assert str(locked) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["batch.json", "key.json", "lock.json"])
def test_half_a_file_is_named(locked, name):
    whole = (locked / name).read_bytes()
    (locked / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"{name}: not readable"):
        read_preference(Round.open(locked))


WRONG = [[], {}, "text", None, 5, True]


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize("name", ["batch.json", "lock.json"])
def test_a_value_of_another_type_is_named_wherever_it_stands(locked, name, value):
    whole = json.loads((locked / name).read_text())
    for field in whole:
        if type(value) is type(whole[field]):
            continue
        (locked / name).write_text(json.dumps(whole | {field: value}))
        with pytest.raises(DataError) as caught:
            read_preference(Round.open(locked))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"item_id":"', '"item_id":["'),
        ('"seconds":9.0', '"seconds":NaN'),
        ('"seconds":9.0', '"seconds":true'),
        ('"simulated":false', '"simulated":"no"'),
        ('"note":""', '"note":null'),
        ('"reasons":[]', '"reasons":"tone"'),
        ('"kind":"vote"', '"kind":["vote"]'),
        ('"choice":"', '"choice":7,"x":"'),
    ],
)
def test_a_vote_with_a_value_of_another_type_is_named_with_its_line(new_round, rate, old, new):
    round_ = new_round()
    rate(round_, "rater1", lambda _: "left")
    path = round_.folder / "votes/rater1.jsonl"
    text = path.read_text()
    if old == '"item_id":"':
        new = f'{new}{json.loads(text.splitlines()[0])["item_id"]}"]'
        old = f'"item_id":"{json.loads(text.splitlines()[0])["item_id"]}"'
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=r"rater1\.jsonl:1: not a vote"):
        round_.lock()


def test_votes_with_the_sides_exchanged_do_not_fit_the_batch_even_before_the_lock(new_round, rate):
    round_ = new_round()
    rate(round_, "rater1", lambda _: "left")
    path = round_.folder / "votes/rater1.jsonl"
    text = path.read_text().replace('"left":"a"', '"left":"x"').replace('"left":"b"', '"left":"a"')
    path.write_text(text.replace('"left":"x"', '"left":"b"'))
    with pytest.raises(DataError, match="other sides than the batch showed rater1"):
        round_.lock()


def test_a_round_locked_before_locks_were_recorded_is_read_as_ever(locked):
    (locked / "locks.jsonl").unlink()
    found = read_preference(Round.open(locked))
    at = found.lock["locked_at"]
    assert found.win_rate.estimate == 0
    told = human.seal(found).text
    assert told.startswith(f"Locked {at[:10]} {at[11:16]} UTC, every rater")
    assert "batch and votes are unchanged since. The round" in told


@pytest.mark.parametrize("at", ["soon", "2026-13-45T12:00:00Z", "2026-11-24T12:00 or so"])
def test_a_lock_of_no_time_is_refused(at, locked):
    (locked / "locks.jsonl").unlink()
    edit(locked / "lock.json", lambda record: record.update(locked_before=[at]))
    with pytest.raises(DataError, match=r"lock\.json: not readable .*datetime"):
        Round.open(locked).key()
    edit(locked / "lock.json", lambda record: record.update(locked_at=at, locked_before=[]))
    with pytest.raises(DataError, match=r"lock\.json: not readable .*datetime"):
        Round.open(locked).key()


def test_a_lock_that_was_removed_and_given_again_says_so(locked, rate):
    first = Round.open(locked).lock_record()["locked_at"]
    (locked / "lock.json").unlink()
    again = Round.open(locked)
    session = Session(again, "ann")
    session.undo()
    rate(again, "ann", lambda _: "left")
    assert again.lock()["locked_before"] == [first]
    said = f"It had been locked before ({first[:10]} {first[11:16]} UTC)"
    assert said in human.seal(read_preference(again)).text
