"""The rating page: a thin widget over a session. Every press is answered by Python, which stores before it shows."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

from evalkit.conversation import conversation_css
from evalkit.errors import DesignError, EvalkitError
from evalkit.files import JsonObject
from evalkit.human.rounds import PRACTICE, Round
from evalkit.human.session import Session


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
