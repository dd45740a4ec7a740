"""What a run read, with what, and how long it took: `manifest.json` in its folder."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

import evalkit
from evalkit import ledger
from evalkit.abtest.lock import PLAN_FILE
from evalkit.abtest.log import is_elsewhere
from evalkit.decision.concerns import CONFIRMED
from evalkit.errors import DataError, EvalkitError
from evalkit.files import as_record, from_json, read_json, write_whole
from evalkit.redaction import without_secrets_in
from evalkit.report.notebook import Executed
from evalkit.settings import Value
from evalkit.study import Study

FILE = "manifest.json"
_PACKAGES = (
    "openai",
    "pandas",
    "numpy",
    "scipy",
    "statsmodels",
    "rapidfuzz",
    "matplotlib",
    "ibis-framework",
    "duckdb",
    "papermill",
)
_BEFORE_USERS = {"01", "02", "03", "04"}  # numbers of chapters that read nothing of an A/B test
# What runs themselves add to a study never makes a chapter out of date.
_LEDGERS = (
    "ledger.jsonl",
    "ledger.head",
    "history.jsonl",
    "looks.jsonl",
    "events.sqlite-wal",
    "events.sqlite-shm",
    ".lock",
    ".partial",
)


class _Needed(msgspec.Struct):
    """What readers of an earlier run's manifest rely on."""

    failed: dict[str, str]
    chapters: dict[str, dict[str, Any]] = {}
    fingerprint: dict[str, str] = {}
    left_out: list[str] = []
    notes: list[str] = []


def write(
    study: Study,
    folder: Path,
    chapters: Mapping[str, Executed],
    *,
    books: Sequence[Path],
    parameters: Mapping[str, Value],
    skipped: Sequence[str],
    left_out: Sequence[str] = (),
    seconds: float,
    headline: str = "",
    deck: str = "",
) -> dict[str, Any]:
    """Writes the manifest of a run and returns it; `left_out` are the notebooks it was told not to run.

    `headline` and `deck` are what the page begins with where no decision is made.
    """
    record = {
        "study": study.name,
        "run": folder.name,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "headline": headline,
        "deck": deck,
        "parameters": dict(parameters),
        "chapters": {
            name: {
                "title": one.title,
                "error": one.error,
                "seconds": round(one.seconds, 1),
                "skipped": name in skipped,
            }
            for name, one in chapters.items()
        },
        "failed": {name: one.error for name, one in chapters.items() if one.error},
        "left_out": list(left_out),
        "versions": {"evalkit": evalkit.__version__, "python": platform.python_version()}
        | dict(_versions()),
        "platform": platform.platform(),
        "journals": _journals(study, parameters),
        "files": hashes([*files(study), *books], study.root),
        "ledger": ledger.head_of(study.folder),
        "fingerprint": fingerprint(study, books, parameters),
    }
    record = without_secrets_in(record)
    _write(folder, record)
    return record


def note(folder: Path, sentence: str) -> None:
    """Adds a sentence to what the page says above a run's answer."""
    record = read(folder)
    _write(folder, record | {"notes": [*record.get("notes", ()), sentence]})


def _write(folder: Path, record: Mapping[str, object]) -> None:
    text = json.dumps(record, indent=1, sort_keys=True)
    write_whole(folder / FILE, text.encode() + b"\n")


def read(folder: Path) -> dict[str, Any]:
    """Reads a run's manifest.

    Raises:
        DataError: The run was not finished, or the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        raise DataError(f"{folder}: no {FILE}; the run did not finish")
    said, remedy = "not a manifest", "run the study again"
    found = read_json(path, said=said, remedy=remedy)
    as_record(found, _Needed, f"{path}: {said}", remedy)
    return found


def files(study: Study) -> list[Path]:
    """Every file of the study that a run may read, without ledgers and locks."""
    found = (
        path
        for path in sorted(study.folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    )
    return [path for path in found if not path.name.endswith(_LEDGERS)]


def hashes(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """sha256 of each file, by its path relative to `root`."""
    made = {}
    for path in paths:
        with path.open("rb") as file:
            name = path.relative_to(root) if path.is_relative_to(root) else path
            made[str(name)] = hashlib.file_digest(file, "sha256").hexdigest()
    return made


def fingerprint(
    study: Study, books: Sequence[Path], parameters: Mapping[str, Value]
) -> dict[str, str]:
    """One hash a chapter over all it may depend on: its notebook, the parameters, the study's files and this code.

    For chapters that may read an A/B log also over what no file tells of it.
    """
    code = sorted(
        path
        for path in Path(evalkit.__file__).parent.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    shared = {
        "parameters": {name: value for name, value in parameters.items() if name != "run"},
        "journals": _journals(study, parameters),
        "files": hashes(files(study), study.root),
        "confirmed": _confirmed(study),
        "code": hashes(code, Path(evalkit.__file__).parent),
    }
    text = json.dumps(shared, sort_keys=True)
    of_log = _of_log(study, parameters)
    made = {}
    for book in books:
        known = text if book.stem[:2] in _BEFORE_USERS else text + of_log
        made[book.stem] = hashlib.sha256(known.encode() + book.read_bytes()).hexdigest()
    return made


def _of_log(study: Study, parameters: Mapping[str, Value]) -> str:
    """A log outside the study may hold more by the next run; in one inside, looks fall due as days go by."""
    if is_elsewhere(str(parameters.get("event_log") or "")):
        return str(parameters.get("run"))
    return f"{datetime.now(UTC):%F}" if study.path(PLAN_FILE).exists() else ""


def _confirmed(study: Study) -> list[str]:
    try:
        return [one.sha256 for one in ledger.read(study.folder / ledger.FILE).of(CONFIRMED)]
    except EvalkitError:
        return ["damaged"]


def _journals(study: Study, parameters: Mapping[str, Value]) -> dict[str, Any]:
    """What the answers' journals say of themselves: model, server, settings."""
    made = {}
    for name in ("base_journal", "fine_tuned_journal"):
        named = parameters.get(name) or f"journals/{name.removesuffix('_journal')}.jsonl"
        try:
            path = study.path(str(named))
        except DataError as why:  # its chapter says so too; the report must still come
            made[name] = {"problem": str(why)}
            continue
        if path.is_file():
            made[name] = _header(path)
    return made


def _header(path: Path) -> dict[str, Any]:
    with path.open(encoding="utf-8", errors="replace") as file:
        line = file.readline()
    try:
        header = from_json(line)
        if (header.get("about") or {}).get("system_prompt_use") == "none":
            # Written before the rows' own were told apart: what it says is that the study gave none.
            header["about"]["system_prompt_use"] = "none beside the rows' own"
        return {
            key: header.get(key)
            for key in ("model", "endpoint", "parameters", "versions", "created_at", "about")
        }
    except (ValueError, AttributeError):
        return {
            "problem": "its first line is no header"
        }  # its chapter says more; the report must still come


def _versions() -> Iterable[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
