"""Whether what decides is what the ledger knows: sealed files, a run's own files, and what its results were read from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from evalkit import ledger
from evalkit.answers.scoring import own_hashes
from evalkit.errors import DataError
from evalkit.files import JsonObject
from evalkit.ledger import FILE, Ledger, Line
from evalkit.settings import named
from evalkit.study import Study

_MADE = {".json", ".ipynb", ".html"}
_JOURNAL = b'{"kind": "evalkit-journal"'


def refuse_changed(home: Study) -> None:
    """Refuses to decide on files that are not what the ledger knows, or by a ledger that was cut.

    Raises:
        DataError: The message names each file, what it was, what it is, and since when.
    """
    found = (*ledger.mismatches(home.folder), *ledger.lost_heads(home.folder, home.reports))
    if found:
        raise DataError("; ".join(one.words for one in found))


def made_in(folder: Path) -> dict[str, str]:
    """Hashes of what a run wrote: its evidence, its notebooks, its report."""
    paths = sorted(one for one in folder.iterdir() if one.suffix in _MADE and one.is_file())
    return ledger.files_sealed(folder, paths)


def run_line(kept: Ledger, run: str) -> Line | None:
    """The line of a run that ended; None when no line speaks of it."""
    return next((one for one in reversed([*kept.of("run")]) if one.facts.get("run") == run), None)


def changed_files(folder: Path, line: Line, *, but: str = "none") -> Iterator[str]:
    """What of a run is not as its line in the ledger has it; nothing is known of runs of earlier versions.

    Files whose name ends in `but` are passed over: a notebook that somebody goes on with has no say in the decision.
    """
    for name, sha256 in line.facts.get("made", {}).items():
        if not name.endswith(but) and (is_now := ledger.sha256_of(folder / name)) != sha256:
            now = f"sha256 {is_now[:12]}..." if is_now else "gone"
            yield (
                f"{folder / name}: was sha256 {sha256[:12]}... by line {line.number} of the ledger (run, {line.at}), is "
                f"{now}; run the study again"
            )


def refuse_changed_run(home: Study, folder: Path) -> None:
    """Refuses a run that is not as it ended: another study's, edited, or one that the ledger never saw.

    Raises:
        DataError: The message says what differs.
    """
    refuse_changed(home)
    kept = ledger.read(home.folder / FILE)
    line = run_line(kept, folder.name)
    if line is None and kept.head:
        raise DataError(
            f"{folder}: stands in no line of {home.folder / FILE}: it did not end, was copied here, or the ledger could "
            f"not be written; run the study again: evalkit run {home.name}"
        )
    if line and (told := [*changed_files(folder, line, but=".ipynb")]):
        raise DataError("; ".join(told))


def inputs(home: Study, kept: Ledger) -> JsonObject:
    """Size and hashes of what a run read, for its line in the ledger; `as_before` where one only grew.

    A test file and journals grow, and what they held when results were seen stays as it was; own code that scores does too.
    """
    said, known = home.settings, {name: one for _, name, one in _seen(kept)}
    names = [said.test_file, said.base_journal, said.fine_tuned_journal]
    names += own_hashes((said.checker, *named(said.scorers)), home.folder)
    names += [said.checker.removeprefix("schema:")] if said.checker.startswith("schema:") else []
    found = {name: _read(home.path(name), known.get(name) or {}) for name in names}
    return {name: one for name, one in found.items() if one}


def changed_inputs(home: Study, kept: Ledger) -> Iterator[tuple[str, str, str, str]]:
    """Name, when results were seen, hash then and hash later, of each input that was changed and did not only grow."""
    known: dict[str, tuple[str, str]] = {}
    now = [("", name, one) for name, one in inputs(home, kept).items()]
    for at, name, one in (*_seen(kept), *now):
        if name in known and not one["as_before"]:
            yield name, *known[name], one["sha256"]
        known[name] = at, one["sha256"]


def _seen(kept: Ledger) -> Iterator[tuple[str, str, JsonObject]]:
    """Each input as a run with results left it, oldest first."""
    for line in kept.of("run"):
        if line.facts.get("metrics"):
            for name, one in (line.facts.get("inputs") or {}).items():
                yield line.at, name, one


def _read(path: Path, before: JsonObject) -> JsonObject:
    """Nothing of a file that is not there: its chapter says so."""
    if not path.is_file():
        return {}
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1] or text  # without what a kill left of a last line
    sha256, first = _sha256(whole), _sha256(whole.split(b"\n", 1)[0])
    # A journal with another header was begun anew: its answers are others, which their hash tells.
    anew = bool(before) and whole.startswith(_JOURNAL) and before["first"] != first
    then = text[: before["size"]] if before and path.suffix == ".jsonl" else whole
    as_before = not before or anew or _sha256(then) == before["sha256"]
    return {"size": len(whole), "sha256": sha256, "first": first, "as_before": as_before}


def _sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
