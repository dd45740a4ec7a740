import json
from dataclasses import replace

import pytest

from evalkit.errors import DataError, DesignError
from evalkit.human.batch import prepare_human_eval_batch
from evalkit.human.rater import Session
from evalkit.human.round import Round, read_standing


def rows(round_, rater="rater1"):
    path = round_.votes(rater).path
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_each_vote_is_one_row_before_the_next_pair_shows(new_round):
    round_ = new_round()
    session = Session(round_, "rater1")
    for i in range(1, 6):
        item = session.view()["item"]
        session.vote(item["id"], "left", seconds=2)
        assert rows(round_) == i
        assert session.view()["item"]["id"] != item["id"]
        assert session.view()["done"] == i


def test_a_late_or_doubled_press_is_refused_and_stores_nothing(new_round):
    round_ = new_round()
    session = Session(round_, "rater1")
    item_id = session.view()["item"]["id"]
    session.vote(item_id, "left", seconds=2)
    with pytest.raises(DesignError, match="no longer on the screen"):
        session.vote(item_id, "left", seconds=2)
    assert rows(round_) == 1


def test_a_new_session_goes_on_at_the_same_pair_with_the_same_sides_and_says_so(new_round):
    round_ = new_round()
    first = Session(round_, "rater1")
    assert first.view()["notice"] == ""
    for _ in range(3):
        first.vote(first.current, "right", seconds=2)
    again = Session(Round.open(round_.folder), "rater1")
    assert again.view()["item"] == first.view()["item"]
    assert "3 ratings saved" in again.view()["notice"]


def test_undo_brings_the_last_pair_back_with_the_same_sides(new_round):
    session = Session(new_round(), "rater1")
    shown = session.view()["item"]
    assert session.view()["can_undo"] is False
    session.vote(shown["id"], "tie", seconds=2)
    session.undo()
    assert session.view()["item"] == shown
    assert session.view()["done"] == 0
    session.undo()
    assert "Nothing was taken back" in session.view()["notice"]


def test_the_page_learns_nothing_that_tells_whose_answer_is_whose(new_round):
    round_ = new_round(models={"base": "llama-x", "fine_tuned": "llama-y"}, seed=123456789)
    view = Session(round_, "rater1").view()
    assert set(view["item"]) == {"id", "input", "left", "right"}
    for word in ("llama", "fine_tuned", "123456789", "swapped", "slices", "key", "response_a"):
        assert word not in json.dumps(view)


def test_the_screen_shows_what_the_vote_records(new_round):
    round_ = new_round(raters=("ann", "bob"))
    for rater in round_.batch.raters:
        session = Session(round_, rater)
        while session.current:
            item = session.view()["item"]
            session.vote(item["id"], "left", seconds=2)
            vote, pair = (
                read_standing(round_.votes(rater).path)[item["id"]],
                round_.batch.pairs[item["id"]],
            )
            assert item["left"] == (pair.response_a if vote.left == "a" else pair.response_b)


def test_the_last_pair_ends_the_work(new_round):
    session = Session(new_round(size=3), "rater1")
    for _ in range(3):
        session.vote(session.current, "left", seconds=2)
    view = session.view()
    assert (view["state"], view["item"], view["done"], view["total"]) == ("done", {}, 3, 3)


def test_the_same_pair_on_two_pages_counts_once_the_later_one_and_says_so(new_round):
    round_ = new_round()
    one, two = Session(round_, "rater1"), Session(round_, "rater1")
    item_id = one.current
    one.vote(item_id, "left", seconds=2)
    two.vote(item_id, "right", seconds=2)
    assert "another page" in two.view()["notice"]
    assert read_standing(round_.votes("rater1").path)[item_id].choice == "right"
    assert one.view()["done"] == 1


def test_hostile_text_becomes_plain_and_visible(new_round, results, tmp_path):
    from dataclasses import replace

    from evalkit.human.batch import prepare_human_eval_batch

    base = [
        replace(one, predicted="cut \ud800 off", input_text="abc\u202egpj.exe")
        for one in results(2)
    ]
    tuned = [
        replace(one, predicted="", input_text="abc\u202egpj.exe") for one in results(2, who="tuned")
    ]
    prepare_human_eval_batch(base, tuned, seed=1, folder=tmp_path / "r", question="Which?\u200b")
    view = Session(Round.open(tmp_path / "r"), "rater1").view()
    json.dumps(view, ensure_ascii=False).encode()  # a lone surrogate would raise
    assert view["item"]["input"] == "abc\\u202egpj.exe"
    assert {view["item"]["left"], view["item"]["right"]} == {"cut \\ud800 off", "(empty answer)"}
    assert view["question"] == "Which?\\u200b"


@pytest.mark.parametrize(
    ("choice", "more"),
    [("best", {}), ("left", {"reasons": ["not on the list"]}), ("", {}), ("left; drop", {})],
)
def test_what_the_page_cannot_send_is_refused(new_round, choice, more):
    round_ = new_round()
    session = Session(round_, "rater1")
    with pytest.raises(DesignError):
        session.vote(session.current, choice, seconds=2, **more)
    assert rows(round_) == 0


@pytest.mark.parametrize("seconds", [float("inf"), float("nan")])
def test_a_time_that_json_cannot_hold_is_refused(new_round, seconds):
    session = Session(round_ := new_round(), "rater1")
    with pytest.raises(DesignError, match="seconds"):
        session.vote(session.current, "left", seconds=seconds)
    assert rows(round_) == 0


def test_notes_are_kept_whole_cleaned_and_bounded(new_round):
    round_ = new_round()
    session = Session(round_, "rater1")
    first = session.current
    session.vote(first, "left", seconds=-5, note="\ud800" + "x" * 5000, reasons=["tone"], via="key")
    vote = read_standing(round_.votes("rater1").path)[first]
    assert vote.note.startswith("\\ud800x")
    assert len(vote.note) == 2000
    assert (vote.seconds, vote.reasons, vote.via) == (0.0, ("tone",), "key")


def test_only_raters_on_the_list_get_in(new_round):
    round_ = new_round(raters=("ann",))
    for rater in ("bob", "", "../ann", "ann\n", "key"):
        with pytest.raises(DesignError, match="not on this round's list"):
            Session(round_, rater)
    assert list((round_.folder / "votes").iterdir()) == []


def test_a_torn_tail_is_told_to_the_rater(new_round):
    round_ = new_round()
    session = Session(round_, "rater1")
    session.vote(session.current, "left", seconds=2)
    with round_.votes("rater1").path.open("a") as file:
        file.write('{"kind":"vote","it')
    assert "unfinished" in Session(round_, "rater1").notice


def test_a_vote_that_cannot_be_stored_stays_on_the_screen(new_round):
    round_ = new_round()
    session = Session(round_, "rater1")
    shown = session.current
    round_.votes("rater1").path.unlink()
    round_.votes("rater1").path.mkdir()  # nothing can be appended to a folder
    with pytest.raises(DataError, match="cannot be written"):
        session.vote(shown, "left", seconds=2)
    assert session.current == shown


def test_the_rater_sees_every_message_that_the_models_saw(tmp_path, results):
    asked = (
        {"role": "system", "content": "You answer in French."},
        {"role": "user", "content": "Capital of Spain?"},
        {"role": "assistant", "content": "Madrid"},
        {"role": "user", "content": "And its population?"},
    )
    sides = [
        [replace(one, messages=asked) for one in some] for some in (results(), results(who="tuned"))
    ]
    prepare_human_eval_batch(*sides, 5, seed=3, folder=tmp_path / "r")
    view = Session(Round.open(tmp_path / "r"), "rater1").view()
    shown = [(one["role"], one["parts"][0]["text"]) for one in view["conversation"]["turns"]]
    assert shown == [(one["role"], one["content"]) for one in asked]
    assert "Capital of Spain?" in view["item"]["input"]
