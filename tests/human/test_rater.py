import json
import re

import pytest

from evalkit.human.rater import Rater, Session


@pytest.fixture
def page(new_round):
    """A rater without a browser: `press` sends what the page would send and returns the answer."""

    def make(round_=None):
        round_ = round_ or new_round()
        rater, sent = Rater(Session(round_, "rater1")), []
        rater.send = lambda content, buffers=None: sent.append(content)

        def press(**message):
            item = rater.view["item"].get("id")
            given = {
                "kind": "vote",
                "seq": "s1",
                "item_id": item,
                "choice": "left",
                "reasons": [],
                "note": "",
                "seconds": 1,
            }
            rater._received(rater, {**given, **message}, [])
            return sent[-1]

        return rater, press, round_

    return make


def test_every_press_is_answered_and_moves_the_view(page):
    rater, press, _ = page()
    before = rater.view
    assert press() == {"kind": "ack", "seq": "s1", "ok": True}
    assert rater.view["rev"] > before["rev"]
    assert rater.view["item"]["id"] != before["item"]["id"]
    assert press(kind="undo")["ok"]
    assert rater.view["item"] == before["item"]


@pytest.mark.parametrize(
    "message",
    [
        {"item_id": "stale"},
        {"choice": "x"},
        {"seconds": "soon"},
        {"reasons": None},
        {"reasons": ["unknown"]},
    ],
)
def test_a_refused_press_is_answered_with_why_and_the_page_is_not_left_busy(page, message):
    rater, press, _ = page()
    before = rater.view
    reply = press(**message)
    assert reply["ok"] is False
    assert reply["error"]
    assert rater.view["item"] == before["item"]
    assert rater.view["rev"] > before["rev"]


def test_a_disk_that_fails_reaches_the_page(page):
    rater, press, round_ = page()
    file = round_.votes("rater1").path
    file.unlink()
    file.mkdir()
    assert "cannot be written" in press()["error"]
    assert "cannot be written" in rater.view["notice"]


def test_only_the_view_is_synced_and_scripts_come_from_no_other_machine(page):
    rater, _, _ = page()
    state = rater.get_state()
    own = {name for name in state if not name.startswith("_")}
    assert own == {"view", "layout", "tooltip", "tabbable"}
    script = state["_esm"]
    assert not re.search(r"https?://|import\s", script)
    assert "url(" not in state["_css"]
    assert ".innerHTML" not in script
    json.dumps(rater.view)


def test_the_page_says_practice_when_it_is(new_round):
    rater = Rater(Session(new_round(), "rater1"), banner="Practice")
    assert rater.view["banner"] == "Practice"
