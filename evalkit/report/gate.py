"""The gate: a run's answer as an exit code, for schedulers and deployment pipelines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from evalkit.decision import read_decision
from evalkit.decision.record import FILE as DECISION
from evalkit.errors import DataError, DesignError, EvalkitError
from evalkit.report import manifest
from evalkit.study import Study, checked_run, project_root
from evalkit.wording import listed, plural

SHIP, DONT_SHIP, NOT_YET, BROKEN = 0, 10, 11, 12
_CODES = {"ship": SHIP, "don't ship": DONT_SHIP, "not yet": NOT_YET}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The exit code, the sentence that goes with it, and which run of a study was judged ("" when a run was named)."""

    code: int
    sentence: str
    judged: str = ""


def gate(run_or_study: str, *, root: Path | None = None) -> Gate:
    """Reads the decision of a run.

    Args:
        run_or_study: A run's folder, a run's name, or a study, whose newest complete run is meant.
        root: The project's folder; found from here by default.

    Raises:
        DataError: There is no such run or study, or the study has never run.
    """
    folder, judged = _named_run(run_or_study, root), ""
    if folder is None:
        folder, judged = newest_run(Study.open(run_or_study, root=root))
    code, sentence = _answer(folder)
    return Gate(code=code, sentence=sentence, judged=judged)


def newest_run(study: Study) -> tuple[Path, str]:
    """The newest run that left out no notebook, the newest of all when none is complete, and a sentence that says which.

    A run that did not finish may have been a complete one, so it is not passed over.

    Raises:
        DataError: The study has never run.
    """
    runs = sorted((path for path in study.reports.glob("*T*Z-*") if path.is_dir()), reverse=True)
    if not runs:
        raise DataError(
            f"{study.reports}: the study has never run; start it with `evalkit run {study.name}`"
        )
    complete = [one for one in runs if not _left_out(one)]
    if not complete:
        return runs[
            0
        ], f"judged {runs[0]}, a partial run (--only): {study.name} has no complete one yet"
    newer = runs[: runs.index(complete[0])]
    passed = f"; passed over {plural(len(newer), 'newer partial run')} (--only): {listed([one.name for one in newer])}"
    return complete[0], f"judged {complete[0]}{passed if newer else ''}"


def _answer(folder: Path) -> tuple[int, str]:
    try:
        record = manifest.read(folder)
        if record["failed"]:
            return BROKEN, f"Broken run: {', '.join(record['failed'])} failed; no verdict is given."
        if (lacking := _left_out(folder)) and not (folder / DECISION).is_file():
            why = f"it was a partial run (--only) without {listed(lacking)}; `evalkit run {folder.parent.name}` runs all"
            return BROKEN, f"No decision in this run: {why}."
        decision = read_decision(folder)
        return _CODES[decision.verdict], decision.headline
    except (EvalkitError, KeyError, OSError, json.JSONDecodeError) as why:
        return BROKEN, f"Broken run: {why}"


def _left_out(folder: Path) -> list[str]:
    try:
        return manifest.read(folder).get("left_out", [])
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
