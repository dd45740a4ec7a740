"""A rater at work: the session, pure Python, and the page it is shown on, a thin widget. A vote is stored before more shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from random import Random
from threading import RLock

import anywidget
import traitlets

from evalkit import wording
from evalkit.conversation import conversation_css, structure
from evalkit.errors import DesignError, EvalkitError
from evalkit.files import JsonObject, utc
from evalkit.human.batch import Pair, Side, on_sides
from evalkit.human.round import CHOICES, PRACTICE, Choice, Round, Vote

LONGEST_NOTE = 2000
NOISE = 0.08  # spread of a simulated rater's impression of one answer, on a scale from 0 to 1
LEFT_LEAN = 0.02  # raters like what stands on the left a little better
JUST_NOTICED = 0.06
POOR = 0.35


class Session:
    """A rater at work on a round.

    Each vote names the pair it is for, so that a late or doubled press is refused instead of hitting the next pair.
    All state is in the vote file: a new session goes on where the last one stopped, with the same sides.
    """

    def __init__(self, round_: Round, rater: str) -> None:
        """Resumes `rater`'s work.

        Raises:
            DesignError: The code is not on the batch's list.
        """
        self.round, self.rater = round_, rater
        self._file = round_.votes(rater)
        self._pairs = round_.batch.pairs
        self._guard = RLock()  # JupyterLab calls from threads of its own
        self._rev = 0
        done = len(self._file.standing())
        self.notice = (
            f"Welcome back. {wording.plural(done, 'rating')} saved; you go on where you stopped."
            if done
            else ""
        )
        if self._file.repaired:
            self.notice += " The last line of your file was unfinished and was removed; please rate that pair again."
        self._current = self._next()

    @property
    def current(self) -> str | None:
        """The pair to rate, None when all are done."""
        return self._current

    def vote(
        self,
        item_id: str,
        choice: Choice,
        *,
        seconds: float,
        reasons: Sequence[str] = (),
        note: str = "",
        via: str = "",
    ) -> None:
        """Stores a vote and moves on to the next pair.

        Args:
            item_id: The pair on the screen.
            choice: left, right, tie or both_bad.
            seconds: From the pair's appearance to the vote.
            reasons: Tags from the batch's list.
            note: Free text.
            via: click, key or simulated.

        Raises:
            DesignError: The pair is not the one shown, the choice or a tag is unknown, or the round is closed.
            DataError: The vote could not be stored.
        """
        batch = self.round.batch
        with self._guard:
            if item_id != self._current:
                raise DesignError("that pair is no longer on the screen; nothing was stored")
            if choice not in CHOICES:
                raise DesignError(f"choice {choice!r}: use {', '.join(CHOICES)}")
            if unknown := [reason for reason in reasons if reason not in batch.reasons]:
                raise DesignError(f"reason {unknown[0]!r} is not on this round's list")
            if not isfinite(seconds):
                raise DesignError(f"seconds is {seconds}; need a number")
            vote = Vote(
                item_id=item_id,
                choice=choice,
                left=self._left(item_id),
                seconds=round(max(0.0, float(seconds)), 3),
                at=_now(),
                reasons=tuple(reasons),
                note=wording.cleaned(note)[0][:LONGEST_NOTE],
                via=via,
                simulated=batch.simulated,
            )
            replaced = self._file.append(vote)
            self.notice = (
                "This pair was also rated on another page of yours; the later rating counts."
                if replaced
                else ""
            )
            self._current = self._next()

    def undo(self) -> None:
        """Takes the last vote back and shows its pair again.

        Raises:
            DesignError: The round is closed.
            DataError: The undo could not be stored.
        """
        with self._guard:
            undone = self._file.undo(_now())
            self.notice = (
                "Your last rating was taken back." if undone else "There is nothing to take back."
            )
            self._current = undone.item_id if undone else self._next()

    def view(self) -> JsonObject:
        """What the page shows: plain values, cleaned text, nothing that tells whose answer is whose."""
        with self._guard:
            self._rev += 1
            done = len(self._file.standing())
            batch, closed = self.round.batch, self.round.locked
            pair = self._pairs[self._current] if self._current and not closed else None
            return {
                "rev": self._rev,
                "state": "closed" if closed else "rating" if pair else "done",
                "item": self._shown(pair) if pair else {},
                "conversation": structure(pair.prompt) if pair else {},
                "done": done,
                "total": len(batch.orders[self.rater]),
                "can_undo": bool(done) and not closed,
                "notice": self.notice,
                "question": wording.visible(batch.question),
                "rubric": wording.visible(batch.rubric),
                "reasons": list(batch.reasons),
            }

    def _shown(self, pair: Pair) -> Mapping[str, str]:
        left, right = on_sides(pair.response_a, pair.response_b, self._left(pair.item_id))
        shown = {"input": pair.input, "left": left, "right": right}
        return {"id": pair.item_id} | {name: _text(text) for name, text in shown.items()}

    def _left(self, item_id: str) -> Side:
        return "b" if item_id in self.round.batch.swapped[self.rater] else "a"

    def _next(self) -> str | None:
        standing, order = self._file.standing(), self.round.batch.orders[self.rater]
        return next((item_id for item_id in order if item_id not in standing), None)


def _text(text: str) -> str:
    return wording.visible(wording.cleaned(text)[0]) or "(empty answer)"


def _now() -> str:
    return utc(unit="microseconds")


class Rater(anywidget.AnyWidget):
    """Shows a session's pairs inline in a notebook or on a web page.

    Only `view` reaches the browser: the pair on the screen and how far the rater is, nothing about models.
    """

    _esm = Path(__file__).with_name("rater.js")
    _css = Path(__file__).with_name("rater.css").read_text(encoding="utf-8") + conversation_css()
    view = traitlets.Dict().tag(sync=True)

    def __init__(self, session: Session, *, banner: str = "") -> None:
        """`banner` is a line above everything, for practice rounds."""
        self._session, self._banner = session, banner
        super().__init__(view={**session.view(), "banner": banner})
        self.on_msg(self._received)

    def _received(self, _widget: object, message: JsonObject, _buffers: object) -> None:
        reply = {"kind": "ack", "seq": message.get("seq"), "ok": True}
        try:
            self._act(message)
        except Exception as why:  # whatever went wrong, the page must hear that nothing was stored
            said = str(why) if isinstance(why, EvalkitError) else f"{type(why).__name__}: {why}"
            reply |= {"ok": False, "error": said}
        try:
            self.view = {**self._session.view(), "banner": self._banner}
        except (EvalkitError, OSError) as why:  # the acknowledgement still goes out
            self.view = {**self.view, "rev": self.view["rev"] + 1, "notice": str(why)}
        self.send(reply)

    def _act(self, message: JsonObject) -> None:
        if message.get("kind") == "undo":
            self._session.undo()
        elif message.get("kind") == "vote":
            self._session.vote(
                str(message["item_id"]),
                message["choice"],
                seconds=float(message["seconds"]),
                reasons=[str(reason) for reason in message["reasons"]],
                note=str(message["note"]),
                via="key" if message.get("via") == "key" else "click",
            )


def inline_rater(round_: Round, rater: str = "") -> Rater:
    """The rater for a notebook cell; a simulated round is shown as practice.

    Args:
        round_: The round.
        rater: A code of the batch; the only one when empty.

    Raises:
        DesignError: The code is missing or not on the list.
    """
    raters = round_.batch.raters
    if round_.batch.simulated:
        return Rater(Session(round_.practice_copy(), raters[0]), banner=PRACTICE)
    if not rater and len(raters) > 1:
        raise DesignError(
            f"set the parameter rater to your code, one of the {len(raters)} on this round's list"
        )
    return Rater(Session(round_, rater or next(iter(raters))))


# ---- simulated raters of a demo


def simulate_votes(round_: Round, expected: Mapping[str, str], *, seed: int = 0) -> None:
    """Lets simulated raters of a demo finish a round and locks it; done twice, it changes nothing.

    They like what is close to the expected answer, with noise, and every vote says that it is simulated.

    Args:
        round_: A round made with `simulated=True`.
        expected: Example id -> the expected answer.
        seed: Decides their noise.

    Raises:
        DesignError: The round is for real people.
    """
    if not round_.batch.simulated:
        raise DesignError(
            f"{round_.folder}: this round is for people; simulated votes would spoil it"
        )
    try:
        for rater in () if round_.locked else round_.batch.raters:
            _finish(Session(round_, rater), expected, Random(f"{seed} {rater}"))
        round_.lock()
    except DesignError:
        if not round_.locked:  # else another run has just finished it
            raise


def _finish(session: Session, expected: Mapping[str, str], rng: Random) -> None:
    batch = session.round.batch
    while session.current:
        shown = session.view()["item"]
        aim = expected.get(batch.pairs[session.current].example_id, "")
        left = _impression(shown["left"], aim, rng) + LEFT_LEAN
        right = _impression(shown["right"], aim, rng)
        choice: Choice = "both_bad" if max(left, right) < POOR else "tie"
        if abs(left - right) > JUST_NOTICED:
            choice = "left" if left > right else "right"
        gives_one = batch.reasons and rng.random() < 0.6
        reasons = rng.sample(batch.reasons, 1) if gives_one else []
        seconds = 2 + rng.lognormvariate(2, 0.5)
        session.vote(session.current, choice, seconds=seconds, reasons=reasons, via="simulated")


def _impression(answer: str, aim: str, rng: Random) -> float:
    from rapidfuzz.distance import Indel

    return Indel.normalized_similarity(answer, aim) + rng.gauss(0, NOISE)
