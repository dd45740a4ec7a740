"""What results were read from: a test file and journals grow, and what they held when results were seen stays as it was.

Own code that scores stays as it was too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalkit.answers.metrics import own_hashes
from evalkit.ledger import Ledger
from evalkit.settings import named
from evalkit.study import Study

_JOURNAL = b'{"kind": "evalkit-journal"'


def inputs(home: Study, kept: Ledger) -> dict[str, Any]:
    """Size and hashes of a run's test file and journals, for its line in the ledger; `as_before` where one only grew."""
    said, known = home.settings, {name: one for _, name, one in _seen(kept)}
    names = [said.test_file, said.base_journal, said.fine_tuned_journal]
    names += own_hashes((said.checker, *named(said.scorers)), home.folder)
    names += [said.checker.removeprefix("schema:")] if said.checker.startswith("schema:") else []
    found = {name: _read(home.path(name), known.get(name) or {}) for name in names}
    return {name: one for name, one in found.items() if one}


def changed(home: Study, kept: Ledger) -> Iterator[tuple[str, str, str, str]]:
    """Name, when results were seen, hash then and hash later, of each input that was changed and did not only grow."""
    known: dict[str, tuple[str, str]] = {}
    now = [("", name, one) for name, one in inputs(home, kept).items()]
    for at, name, one in (*_seen(kept), *now):
        if name in known and not one["as_before"]:
            yield name, *known[name], one["sha256"]
        known[name] = at, one["sha256"]


def _seen(kept: Ledger) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Each input as a run with results left it, oldest first."""
    for line in kept.of("run"):
        if line.facts.get("metrics"):
            for name, one in (line.facts.get("inputs") or {}).items():
                yield line.at, name, one


def _read(path: Path, before: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing of a file that is not there: its chapter says so."""
    if not path.is_file():
        return {}
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1] or text  # without what a kill left of a last line
    made = {
        "size": len(whole),
        "sha256": _sha256(whole),
        "first": _sha256(whole.split(b"\n", 1)[0]),
    }
    # A journal with another header was begun anew: its answers are others, which their hash tells.
    anew = bool(before) and whole.startswith(_JOURNAL) and before["first"] != made["first"]
    then = text[: before["size"]] if before and path.suffix == ".jsonl" else whole
    return made | {"as_before": not before or anew or _sha256(then) == before["sha256"]}


def _sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
