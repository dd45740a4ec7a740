"""The gate: a run's answer as an exit code, for schedulers and deployment pipelines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from evalkit.decision import read_decision
from evalkit.errors import DataError, EvalkitError
from evalkit.report import manifest
from evalkit.study import Study, checked_run, project_root

SHIP, DONT_SHIP, NOT_YET, BROKEN = 0, 10, 11, 12
_CODES = {"ship": SHIP, "don't ship": DONT_SHIP, "not yet": NOT_YET}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The exit code and the sentence that goes with it."""

    code: int
    sentence: str


def gate(run_or_study: str, *, root: Path | None = None) -> Gate:
    """Reads the decision of a run.

    Args:
        run_or_study: A run's folder, a run's name, or a study, whose newest run is meant.
        root: The project's folder; found from here by default.

    Raises:
        DataError: There is no such run or study.
    """
    folder = run_folder(run_or_study, root=root)
    try:
        record = manifest.read(folder)
        if record["failed"]:
            return Gate(code=BROKEN, sentence=f"Broken run: {', '.join(record['failed'])} failed; no verdict is given.")
        decision = read_decision(folder)
        return Gate(code=_CODES[decision.verdict], sentence=decision.headline)
    except (EvalkitError, KeyError, OSError, json.JSONDecodeError) as why:
        return Gate(code=BROKEN, sentence=f"Broken run: {why}")


def run_folder(run_or_study: str, *, root: Path | None = None) -> Path:
    """The folder that is meant.

    Raises:
        DataError: There is no such run or study, or the study has never run.
    """
    if Path(run_or_study).is_dir() and ("/" in run_or_study or (Path(run_or_study) / manifest.FILE).is_file()):
        return Path(run_or_study)
    root = root or project_root()
    if "Z-" in run_or_study:
        found = list((root / "reports").glob(f"*/{checked_run(run_or_study)}"))
        if not found:
            raise DataError(f"{root / 'reports'}: holds no run {run_or_study}")
        return found[0]
    study = Study.open(run_or_study, root=root)
    newest = latest_run(study)
    if newest is None:
        raise DataError(f"{study.reports}: the study has never run; start it with `evalkit run {study.name}`")
    return newest


def latest_run(study: Study) -> Path | None:
    """The folder of the newest run, finished or not; None when there is none."""
    return max((path for path in study.reports.glob("*T*Z-*") if path.is_dir()), default=None)
