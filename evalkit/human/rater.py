"""A rater at work: the session, pure Python; the page it is shown on, a thin widget; and where that page opens.

It opens in a cell of a notebook, or served from this machine: one link a rater, nothing from anywhere else. A vote is stored
before more shows.
"""

from __future__ import annotations

import html
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from threading import RLock
from urllib.parse import parse_qs

import anywidget
import traitlets

from evalkit import wording
from evalkit.conversation import conversation_css, structure
from evalkit.errors import DataError, DesignError, EvalkitError
from evalkit.files import JsonObject, as_record, read_json, to_json, utc, write_new, write_whole
from evalkit.human.batch import Pair, Side, sha256
from evalkit.human.round import CHOICES, Choice, Round, Vote, locked_before, round_folder
from evalkit.study import Study

LONGEST_NOTE = 2000
EMPTY = "(empty answer)"
NOISE = 0.08  # spread of a simulated rater's impression of one answer, on a scale from 0 to 1
LEFT_LEAN = 0.02  # raters like what stands on the left a little better
JUST_NOTICED = 0.06
POOR = 0.35
PRACTICE = "Practice: these pairs are from a simulated round; what you choose is kept nowhere."
ROUND = "EVALKIT_ROUND"  # environment variable: the folder of the round being served
IDLE_S = 1800
DEAD = (
    "This link is not complete or not valid any more. Ask whoever sent it to you for a new one; "
    "votes that you have given are kept."
)
_DEAD_PAGE = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Blind rating</title><link rel="icon" href="data:;base64,=">
<style>
  :root {{ color-scheme: light dark }}
  body {{ max-width: 40em; margin: 4em auto; padding: 0 1em; font: 16px/1.5 system-ui, sans-serif }}
</style>
<h1>Blind rating</h1>
<p role="alert">{DEAD}</p>
"""
# scripts and sockets from this server only; Voila's own start-up is inline, and the widget arrives as a blob
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline' blob:; "
    "connect-src 'self'; img-src 'self' data:; font-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Session:
    """A rater at work on a round.

    Each vote names the pair it is for, so that a late or doubled press is refused instead of hitting the next pair.
    All state is in the vote file: a new session goes on where the last one stopped, with the same sides.

    Attributes:
        current: The pair to rate, None when all are done.
        notice: What the page tells besides the pair.
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
        self.notice = ""
        if done := len(self._file.standing()):
            saved = wording.plural(done, "rating")
            self.notice = f"Welcome back. {saved} saved; you go on where you stopped."
        if self._file.repaired:
            self.notice += " The last line of your file was unfinished and was removed; please rate that pair again."
        self.current = self._next()

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
            if item_id != self.current:
                raise DesignError("that pair is no longer on the screen; nothing was stored")
            if choice not in CHOICES or not {*reasons} <= {*batch.reasons}:
                given = f"choice {choice!r}, reasons {[*reasons]}"
                raise DesignError(f"{given}: need a choice and reasons of this round")
            vote = Vote(
                item_id=item_id,
                choice=choice,
                left=self._left(item_id),
                seconds=round(max(float(seconds), 0.0), 3),  # NaN stays NaN, and is refused
                at=utc(unit="microseconds"),
                reasons=tuple(reasons),
                note=wording.cleaned(note)[0][:LONGEST_NOTE],
                via=via,
                simulated=batch.simulated,
            )
            also = "This pair was also rated on another page of yours; the later rating counts."
            self.notice = also if self._file.append(vote) else ""
            self.current = self._next()

    def undo(self) -> None:
        """Takes the last vote back and shows its pair again.

        Raises:
            DesignError: The round is closed.
            DataError: The undo could not be stored.
        """
        with self._guard:
            undone = self._file.undo(utc(unit="microseconds"))
            self.notice = f"{'Your last rating' if undone else 'Nothing'} was taken back."
            self.current = undone.item_id if undone else self._next()

    def view(self) -> JsonObject:
        """What the page shows: plain values, cleaned text, nothing that tells whose answer is whose."""
        with self._guard:
            self._rev += 1
            done = len(self._file.standing())
            batch, closed = self.round.batch, self.round.locked
            pair = self._pairs[self.current] if self.current and not closed else None
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
        left, right = pair.response_a, pair.response_b
        if self._left(pair.item_id) == "b":
            left, right = right, left
        texts = {"input": pair.input, "left": left, "right": right}
        shown = {name: wording.visible(wording.cleaned(text)[0]) for name, text in texts.items()}
        return {"id": pair.item_id} | {name: text or EMPTY for name, text in shown.items()}

    def _left(self, item_id: str) -> Side:
        return "b" if item_id in self.round.batch.swapped[self.rater] else "a"

    def _next(self) -> str | None:
        standing, order = self._file.standing(), self.round.batch.orders[self.rater]
        return next((item_id for item_id in order if item_id not in standing), None)


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


def in_jupyter(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody sits in front of this notebook, so that a rater makes sense."""
    return bool(environment.get("JPY_SESSION_NAME") or environment.get("VSCODE_PID"))


def inline_rater(round_: Round, rater: str = "") -> Rater:
    """The rater for a notebook cell; a simulated round is shown as practice.

    Args:
        round_: The round.
        rater: A code of the batch; the only one when empty.

    Raises:
        DesignError: The code is missing or not on the list.
    """
    first, *others = round_.batch.raters
    if round_.batch.simulated:
        return Rater(Session(round_.practice_copy(), first), banner=PRACTICE)
    return Rater(Session(round_, rater if rater or others else first))


# ---- the page served on this machine


def serve(study: str, port: int = 8866, *, rating_round: str = "", root: Path | None = None) -> int:
    """Serves a study's round until interrupted and prints one link a rater; a simulated round is served as practice.

    Args:
        study: Its name; `rating_round` is read from its study.yaml unless given.
        port: On 127.0.0.1.
        rating_round: The round's name.
        root: The project's folder; found from the working directory by default.

    Raises:
        DataError: The study or the round is not there.
        DesignError: The round is closed, or the port is taken.
    """
    home = Study.open(study, root=root, rating_round=rating_round or None)
    folder = round_folder(home, home.settings.rating_round)
    simulated = sorted(folder.parent.glob(f"{folder.name}-simulated-*"))
    is_practice = simulated and not folder.exists()
    round_ = Round.open(simulated[-1]).practice_copy() if is_practice else _prepared(home)
    if round_.locked:
        raise DesignError(
            f"{round_.folder}: this round is closed; name a new rating_round to go on"
        )
    with socket.socket() as trial:
        # as the server does: a port just left is free
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as why:
            told = f"port {port} cannot be used ({why}); name another with --port"
            raise DesignError(told) from why
    token = round_token(round_)
    with tempfile.TemporaryDirectory(prefix="evalkit-rate-") as served:
        _furnish(Path(served), token, port)
        print(page_of_links(round_, token, port), flush=True)  # noqa: T201 - what the command is for
        return _serve(Path(served), round_)


def close(
    study: str, *, rating_round: str = "", unfinished: bool = False, root: Path | None = None
) -> str:
    """Closes a study's round of people for good; returns what was sealed, and what comes next.

    Args:
        study: Its name; `rating_round` is read from its study.yaml unless given.
        rating_round: The round's name.
        unfinished: Close it even though raters have not finished.
        root: The project's folder; found from the working directory by default.

    Raises:
        DataError: The study or the round is not there, or the key is not the sealed one.
        DesignError: Nobody has voted yet, or somebody has not finished.
    """
    round_ = _prepared(Study.open(study, root=root, rating_round=rating_round or None))
    already = round_.locked
    record = round_.lock(unfinished=unfinished)
    round_.key()  # also of a round that was closed before: what is told below is checked now
    sealed = [
        f"  {rater}: {wording.plural(one['votes'], 'vote')}, sha256 {one['sha256'][:16]}..."
        for rater, one in record["votes"].items()
    ]
    closed_at = f"{wording.minute(record['locked_at'])} UTC"
    state = f"was closed already, {closed_at}" if already else "is closed now, for good"
    whole = "everybody had finished" if record["complete"] else "NOT everybody had finished"
    sealing = f"{whole}.{locked_before(record)} Sealed with the batch and the key:"
    first = f"Rating round {round_.folder.name} {state}; {sealing}"
    return "\n".join([first, *sealed, f"The key opens now. Next: evalkit run {study}"])


def _prepared(study: Study) -> Round:
    name = study.settings.rating_round
    folder = round_folder(study, name)
    if not (folder / "batch.json").exists():
        raise DataError(
            f"{folder}: no such round; name its raters in study.yaml, and prepare the round first: "
            f"evalkit run {study.name} --only 03 -p rating_round={name}"
        )
    return Round.open(folder)


def links(round_: Round) -> Mapping[str, str]:
    """Link code -> rater: random codes, drawn once a round and kept beside its key."""
    path = round_.folder / "links.json"
    if not path.exists():
        codes = {secrets.token_urlsafe(12): rater for rater in round_.batch.raters}
        write_new(path, to_json(codes), mode=0o600)
    remedy = "delete it, start again and send the new links"
    found = read_json(path, said="not readable", remedy=remedy)
    return as_record(found, dict[str, str], f"{path}: not readable", remedy)


def round_token(round_: Round) -> str:
    """What opens the server, made of the round's codes: it lives as long as they do, and no further file holds it."""
    return sha256(json.dumps(sorted(links(round_))).encode())[:32]


def page_of_links(round_: Round, token: str, port: int) -> str:
    """What the command prints."""
    lines = [
        f"  {rater}: http://127.0.0.1:{port}/?token={token}&rater={code}"
        for code, rater in links(round_).items()
    ]
    batch = round_.batch
    what = "Practice, nothing counts" if batch.simulated else f"Rating round {round_.folder.name}"
    pairs = f"{wording.plural(len(batch), 'pair')}, {len(batch.repeats)} of them shown twice"
    return "\n".join([f"{what}: {pairs}. One link a rater:", *lines, "Stop with Ctrl+C."])


def page(environment: Mapping[str, str] = os.environ) -> object:
    """The one cell of the served notebook: the rater whose code stands in the address, or a plain refusal."""
    from IPython.display import HTML

    round_ = Round.open(Path(environment[ROUND]))
    code = parse_qs(environment.get("QUERY_STRING", "")).get("rater", [""])[0]
    try:
        if rater := links(round_).get(code):
            return Rater(Session(round_, rater), banner=PRACTICE if round_.batch.simulated else "")
        refusal = DEAD
    except DataError as why:
        refusal = f"Ratings cannot be stored just now, so none are taken. {why}"
    return HTML(f'<p role="alert">{html.escape(refusal)}</p>')


def _furnish(folder: Path, token: str, port: int) -> None:
    """A folder with nothing but the page's notebook and the server's settings; the token never stands in a command line."""
    from nbformat import v4

    cell = v4.new_code_cell("from evalkit.human import rater\n\nrater.page()", id="rate")
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": spec, "title": "Blind rating"}
    notebook = v4.new_notebook(cells=[cell], metadata=metadata, nbformat_minor=5)
    write_whole(folder / "rate.ipynb", to_json(notebook))
    write_whole(folder / "voila.json", to_json(_server_settings(token, port)), mode=0o600)


def _server_settings(token: str, port: int) -> JsonObject:
    return {
        "Voila": {
            "ip": "127.0.0.1",
            "port": port,
            "port_retries": 0,
            "open_browser": False,
            "token": token,
            "identity_provider_class": "evalkit.human.rater.Links",
            "tornado_settings": {
                "headers": {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
            },
        },
        "VoilaConfiguration": {
            "template": "evalkit",
            "allow_template_override": "NO",
            "allow_theme_override": "NO",
            "file_allowlist": [],
            "extension_allowlist": [
                "anywidget",
                "@jupyter-widgets/jupyterlab-manager",
                "@voila-dashboards/widgets-manager8",
            ],
        },
        "MappingKernelManager": {"cull_idle_timeout": IDLE_S, "cull_interval": 60},
    }


def _serve(folder: Path, round_: Round) -> int:
    templates = str(Path(__file__).with_name("share"))
    paths = os.pathsep.join(filter(None, [templates, os.environ.get("JUPYTER_PATH", "")]))
    environment = {**os.environ, "JUPYTER_PATH": paths, ROUND: str(round_.folder.resolve())}
    server = subprocess.Popen(
        [sys.executable, "-m", "voila", "rate.ipynb"], cwd=folder, env=environment
    )
    # else a terminated command would leave its server behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()


def __getattr__(name: str) -> type:
    """`Links`, made when the server asks for it: what it is made of takes seconds to load."""
    if name == "Links":
        return _links()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _links() -> type:
    """Who may enter the page: who has the token; there is no other way in."""
    from jupyter_server.auth.decorator import allow_unauthenticated
    from jupyter_server.auth.login import LoginFormHandler
    from voila.voila_identity_provider import VoilaIdentityProvider

    class DeadLink(LoginFormHandler):
        """Where a link without the round's token ends: words for a rater, in place of a login."""

        @allow_unauthenticated
        def get(self) -> None:
            """The page."""
            self.set_status(403)
            self.finish(_DEAD_PAGE)

        post = get

    class Links(VoilaIdentityProvider):
        """Lets in who has the token."""

        def get_handlers(self) -> list[tuple[str, object]]:
            """The page for those without it."""
            return [(r"/login", DeadLink)]

    return Links


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
    from rapidfuzz.distance import Indel

    batch = session.round.batch
    while session.current:
        shown = session.view()["item"]
        aim = expected.get(batch.pairs[session.current].example_id, "")
        left, right = (
            Indel.normalized_similarity(shown[side], aim) + rng.gauss(0, NOISE)
            for side in ("left", "right")
        )
        left += LEFT_LEAN
        choice: Choice = "both_bad" if max(left, right) < POOR else "tie"
        if abs(left - right) > JUST_NOTICED:
            choice = "left" if left > right else "right"
        gives_one = batch.reasons and rng.random() < 0.6
        reasons = rng.sample(batch.reasons, 1) if gives_one else []
        seconds = 2 + rng.lognormvariate(2, 0.5)
        session.vote(session.current, choice, seconds=seconds, reasons=reasons, via="simulated")
