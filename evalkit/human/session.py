"""One rater's session: what to show next, and what to do with a vote. Pure Python; any page or test can drive it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from threading import RLock
from typing import Any

from evalkit import wording
from evalkit.conversation import structure
from evalkit.errors import DesignError
from evalkit.human.rounds import Round
from evalkit.human.votes import CHOICES, Choice, Vote

LONGEST_NOTE = 2000


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
        self._order = round_.batch.orders[rater]
        self._pairs = round_.batch.pairs
        self._swapped = frozenset(round_.batch.swapped[rater])
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
        with self._guard:
            if item_id != self._current:
                raise DesignError("that pair is no longer on the screen; nothing was stored")
            self._check(choice, reasons)
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
                simulated=self.round.batch.simulated,
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

    def view(self) -> dict[str, Any]:
        """What the page shows: plain values, cleaned text, nothing that tells whose answer is whose."""
        with self._guard:
            self._rev += 1
            done = len(self._file.standing())
            batch, closed = self.round.batch, self.round.locked
            return {
                "rev": self._rev,
                "state": "closed" if closed else "rating" if self._current else "done",
                "item": self._shown() if self._current and not closed else {},
                "conversation": self._conversation() if self._current and not closed else {},
                "done": done,
                "total": len(self._order),
                "can_undo": bool(done) and not closed,
                "notice": self.notice,
                "question": wording.visible(batch.question),
                "rubric": wording.visible(batch.rubric),
                "reasons": list(batch.reasons),
            }

    def _shown(self) -> Mapping[str, str]:
        pair = self._pairs[self._current or ""]
        answers = (
            (pair.response_a, pair.response_b)
            if self._left(pair.item_id) == "a"
            else (pair.response_b, pair.response_a)
        )
        left, right = (_text(answer) for answer in answers)
        return {"id": pair.item_id, "input": _text(pair.input), "left": left, "right": right}

    def _conversation(self) -> Mapping[str, Any]:
        return structure(self._pairs[self._current or ""].prompt)

    def _left(self, item_id: str) -> Any:
        return "b" if item_id in self._swapped else "a"

    def _next(self) -> str | None:
        standing = self._file.standing()
        return next((item_id for item_id in self._order if item_id not in standing), None)

    def _check(self, choice: str, reasons: Sequence[str]) -> None:
        if choice not in CHOICES:
            raise DesignError(f"choice {choice!r}: use {', '.join(CHOICES)}")
        unknown = [reason for reason in reasons if reason not in self.round.batch.reasons]
        if unknown:
            raise DesignError(f"reason {unknown[0]!r} is not on this round's list")


def _text(text: str) -> str:
    return wording.visible(wording.cleaned(text)[0]) or "(empty answer)"


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
