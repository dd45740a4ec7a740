"""The gate: a run's answer as an exit code, for schedulers and deployment pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from evalkit import ledger
from evalkit.decision import read_decision
from evalkit.decision.intact import refuse_changed_run
from evalkit.decision.record import FILE as DECISION
from evalkit.errors import DataError, DesignError, EvalkitError
from evalkit.ledger import Ledger
from evalkit.report import manifest
from evalkit.settings import retirement
from evalkit.study import Study, checked_run, project_root
from evalkit.wording import listed, plural

SHIP, DONT_SHIP, NOT_YET, BROKEN = 0, 10, 11, 12
_CODES = {"ship": SHIP, "don't ship": DONT_SHIP, "not yet": NOT_YET}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The exit code, the sentence that goes with it, and which run of a study was judged ("" when a run was named).

    Attributes:
        head: Head of the study's ledger: who keeps it can show later that nothing before it was written anew.
        warning: That the base model retires soon, or has; "" otherwise.
    """

    code: int
    sentence: str
    judged: str = ""
    head: str = ""
    warning: str = ""


def gate(run_or_study: str, *, root: Path | None = None, today: date | None = None) -> Gate:
    """Reads the decision of a run.

    Args:
        run_or_study: A run's folder, a run's name, or a study, whose newest complete run is meant.
        root: The project's folder; found from here by default.
        today: The day from which a retirement is counted; the present one (UTC) by default.

    Raises:
        DataError: There is no such run or study, or the study has never run.
    """
    folder, judged = _named_run(run_or_study, root), ""
    if folder is None:
        study = Study.open(run_or_study, root=root)
        try:
            kept = ledger.read(study.folder / ledger.FILE)
        except DataError as why:
            return Gate(code=BROKEN, sentence=f"Broken record: {why}")
        folder, judged = newest_run(study, kept)
    code, sentence = _answer(folder)
    if code == SHIP and not judged:
        judged = _newer(folder)
    warning = _retires(folder, today or datetime.now(UTC).date())
    return Gate(code=code, sentence=sentence, judged=judged, head=_head(folder), warning=warning)


def _newer(folder: Path) -> str:
    """What stands beside a run that was named and ships: the newest one of its study, where that does not."""
    if (study := _study_of(folder)) is None:
        return (
            f"judged {folder} by itself: the ledger of its study is not there to check it against"
        )
    try:
        newest, _ = newest_run(study, ledger.read(study.folder / ledger.FILE))
    except DataError:  # the sentence says it
        return ""
    code, sentence = _answer(newest)
    if code == SHIP:
        return ""
    return f"judged {folder}, as named; the newest complete run of {study.name} is {newest.name}: {sentence}"


def newest_run(study: Study, kept: Ledger) -> tuple[Path, str]:
    """The newest run that left out no notebook, the newest of all when none is complete, and a sentence that says which.

    Newest is the ledger's last, whatever the clock said that named the folder. A run that did not finish may have been a
    complete one, so it is not passed over; nor is one whose folder is gone.

    Raises:
        DataError: The study has never run.
    """
    ended = {str(line.facts.get("run")): line.facts for line in kept.of("run")}
    runs = _newest_first(study, ended)
    if not runs:
        raise DataError(
            f"{study.reports}: the study has never run; start it with `evalkit run {study.name}`"
        )
    complete = [one for one in runs if not _left_out(one, ended.get(one.name, {}))]
    if not complete:
        return runs[
            0
        ], f"judged {runs[0]}, a partial run (--only): {study.name} has no complete one yet"
    newer = runs[: runs.index(complete[0])]
    passed = f"; passed over {plural(len(newer), 'newer partial run')} (--only): {listed([one.name for one in newer])}"
    return complete[0], f"judged {complete[0]}{passed if newer else ''}"


def _newest_first(study: Study, ended: Mapping[str, Mapping[str, object]]) -> list[Path]:
    """Newer runs that the ledger does not know, then those it knows, last first, then older ones it does not know.

    A complete run that it knows stands among them though its folder is gone; an earlier version's may have been cleared.
    """
    there = {path.name for path in study.reports.glob("*T*Z-*") if path.is_dir()}
    known = [
        one
        for one, facts in reversed([*ended.items()])
        if one in there or (there and facts.get("left_out") == [])
    ]
    others = sorted(there - ended.keys(), reverse=True)
    newer = [one for one in others if one > (known[0] if known else "")]
    return [study.reports / one for one in (*newer, *known, *others[len(newer) :])]


def _answer(folder: Path) -> tuple[int, str]:
    """Exit code and sentence of one run, once it and all it rests on is what the study's ledger knows."""
    try:
        if (study := _study_of(folder)) is not None:
            refuse_changed_run(study, folder)
        record = manifest.read(folder)
        _check_place(record, folder)
        if record["failed"]:
            return BROKEN, f"Broken run: {', '.join(record['failed'])} failed; no verdict is given."
        if (lacking := _left_out(folder, {})) and not (folder / DECISION).is_file():
            why = f"it was a partial run (--only) without {listed(lacking)}; `evalkit run {folder.parent.name}` runs all"
            return BROKEN, f"No decision in this run: {why}."
        decision = read_decision(folder)
        if study and decision.study != study.name:
            return BROKEN, f"Broken run: {folder}: its decision is of the study {decision.study}."
        return _CODES[decision.verdict], decision.headline
    except (EvalkitError, KeyError, OSError) as why:
        return BROKEN, f"Broken run: {why}"


def _study_of(folder: Path) -> Study | None:
    """The study whose run a folder is; None where only the folder was brought along."""
    folder = folder.resolve()
    root, name = folder.parents[2], folder.parent.name
    return Study.open(name, root=root) if (root / "data" / name).is_dir() else None


def _check_place(record: Mapping[str, object], folder: Path) -> None:
    """Refuses a run that was copied from another study, or under another name."""
    here = {"study": folder.resolve().parent.name, "run": folder.resolve().name}
    if odd := [f"{one} {record[one]}" for one in here if record.get(one, here[one]) != here[one]]:
        raise DataError(
            f"{folder}: holds {listed(odd)}, which is not what its folder says; run the study again"
        )


def _head(folder: Path) -> str:
    study = _study_of(folder)
    return ledger.head_of(study.folder) if study else ""


def _retires(folder: Path, today: date) -> str:
    study = _study_of(folder)
    try:
        return retirement(study.settings, today) if study else ""
    except EvalkitError:  # a study file that was broken since: the run's own answer stands
        return ""


def _left_out(folder: Path, ended: Mapping[str, Any]) -> list[str]:
    """Notebooks that a run did not have, by the ledger where it knows."""
    try:
        return (
            ended["left_out"] if "left_out" in ended else manifest.read(folder).get("left_out", [])
        )
    except DataError:
        return []


def _named_run(text: str, root: Path | None) -> Path | None:
    """The folder of a run that was named; None for a study."""
    if "/" in text or (Path(text) / manifest.FILE).is_file():
        return _checked_folder(Path(text))
    if "Z-" not in text:
        return None
    reports = (root or project_root()) / "reports"
    found = list(reports.glob(f"*/{checked_run(text)}"))
    if not found:
        raise DataError(f"{reports}: holds no run {text}; name a study to judge its newest one")
    return found[0]


def _checked_folder(folder: Path) -> Path:
    try:
        checked_run(folder.resolve().name)
    except DesignError:
        raise DataError(
            f"{folder}: not a run's folder; name a study, or reports/<study>/<run>"
        ) from None
    if not folder.is_dir():
        raise DataError(f"{folder}: no such run; name a study to judge its newest one")
    return folder
