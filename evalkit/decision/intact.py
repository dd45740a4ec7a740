"""Whether what decides is what the ledger knows: the study's sealed files, a run's own files, and its decision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evalkit import ledger
from evalkit.errors import DataError
from evalkit.ledger import FILE, Ledger, Line
from evalkit.study import Study

_MADE = {".json", ".ipynb", ".html"}


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
