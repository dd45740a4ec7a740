"""The rating round as a web page on this machine: one link a rater, nothing from anywhere else."""

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
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from evalkit import wording
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, as_record, read_json, to_json, to_line, write_new, write_whole
from evalkit.human.batch import sha256
from evalkit.human.round import PRACTICE, Round, locked_before, round_folder
from evalkit.study import Study

if TYPE_CHECKING:
    from IPython.display import HTML

    from evalkit.human.rater import Rater

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


def main(study: str, port: int = 8866, *, rating_round: str = "", root: Path | None = None) -> int:
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
    home = Study.open(study, root=root)
    round_ = _round_to_serve(home, rating_round or home.settings.rating_round)
    if round_.locked:
        raise DesignError(
            f"{round_.folder}: this round is closed; name a new rating_round to go on"
        )
    _check_port(port)
    token = round_token(round_)
    with tempfile.TemporaryDirectory(prefix="evalkit-rate-") as folder:
        _furnish(Path(folder), token, port)
        print(page_of_links(round_, token, port), flush=True)  # noqa: T201 - what the command is for
        return _serve(Path(folder), round_)


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
    home = Study.open(study, root=root)
    round_ = _prepared(home, rating_round or home.settings.rating_round)
    already = round_.locked
    record = round_.lock(unfinished=unfinished)
    round_.key()  # also of a round that was closed before: what is told below is checked now
    sealed = [
        f"  {rater}: {wording.plural(one['votes'], 'vote')}, sha256 {one['sha256'][:16]}..."
        for rater, one in record["votes"].items()
    ]
    state = f"was closed already, {record['locked_at']}" if already else "is closed now, for good"
    whole = "everybody had finished" if record["complete"] else "NOT everybody had finished"
    before = locked_before(record)
    first = f"Rating round {round_.folder.name} {state}; {whole}.{before} Sealed with the batch and the key:"
    return "\n".join([first, *sealed, f"The key opens now. Next: evalkit run {study}"])


def _round_to_serve(study: Study, name: str) -> Round:
    folder = round_folder(study, name)
    simulated = sorted(folder.parent.glob(f"{folder.name}-simulated-*"))
    if simulated and not folder.exists():
        return Round.open(simulated[-1]).practice_copy()
    return _prepared(study, name)


def _prepared(study: Study, name: str) -> Round:
    folder = round_folder(study, name)
    if not (folder / "batch.json").exists():
        other = "" if name == study.settings.rating_round else f" -p rating_round={name}"
        raise DataError(
            f"{folder}: no such round; name its raters in study.yaml, and prepare the round first: "
            f"evalkit run {study.name} --only 03{other}"
        )
    return Round.open(folder)


def _check_port(port: int) -> None:
    with socket.socket() as trial:
        # as the server does: a port just left is free
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as why:
            raise DesignError(
                f"port {port} cannot be used ({why}); name another with --port"
            ) from why


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
    what = (
        "Practice, nothing counts"
        if round_.batch.simulated
        else f"Rating round {round_.folder.name}"
    )
    pairs = wording.plural(len(round_.batch), "pair")
    again = len(round_.batch.repeats)
    pairs += f", {again} of them shown twice" if again else ""
    return "\n".join([f"{what}: {pairs}. One link a rater:", *lines, "Stop with Ctrl+C."])


def page(environment: Mapping[str, str] = os.environ) -> Rater | HTML:
    """The one cell of the served notebook: the rater whose code stands in the address, or a plain refusal."""
    from IPython.display import HTML

    from evalkit.human.rater import Rater, Session

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

    cell = v4.new_code_cell("from evalkit.human import serve\n\nserve.page()", id="rate")
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": spec, "title": "Blind rating"}
    notebook = v4.new_notebook(cells=[cell], metadata=metadata, nbformat_minor=5)
    (folder / "rate.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    write_whole(folder / "voila.json", to_line(_settings(token, port)), mode=0o600)


def _settings(token: str, port: int) -> JsonObject:
    return {
        "Voila": {
            "ip": "127.0.0.1",
            "port": port,
            "port_retries": 0,
            "open_browser": False,
            "token": token,
            "identity_provider_class": "evalkit.human.serve.Links",
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
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


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
