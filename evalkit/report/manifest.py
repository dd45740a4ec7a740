"""What a run read, with what, and how long it took: `manifest.json` in its folder."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

import evalkit
from evalkit import ledger
from evalkit.abtest.lock import PLAN_FILE
from evalkit.answers.journal import read_header
from evalkit.decision.rules import CONFIRMED
from evalkit.errors import DataError, EvalkitError
from evalkit.files import JsonObject, read_record, to_json, utc, write_whole
from evalkit.report.notebook import Executed
from evalkit.study import Study, Value, is_elsewhere
from evalkit.wording import without_secrets_in

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
_OF_JOURNAL = ("problem", "model", "endpoint", "parameters", "versions", "created_at", "about")
_BEFORE_USERS = {"01", "02", "03", "04"}  # numbers of chapters that read nothing of an A/B test
# What runs themselves add to a study never makes a chapter out of date.
_RECORDS = ("ledger.jsonl", "ledger.head", "history.jsonl", "looks.jsonl")
_BESIDE = ("events.sqlite-wal", "events.sqlite-shm", ".lock", ".partial")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A run's own record; of an earlier version's only `failed` is relied on.

    Attributes:
        headline: What the page begins with where no decision is made; `deck` is the line below it.
        left_out: Notebooks that the run was told not to run.
        files: sha256 by path.
        fingerprint: By chapter, one hash over all it may depend on.
        notes: What the page says above the run's answer.
    """

    failed: dict[str, str]
    study: str = ""
    run: str = ""
    made_at: str = ""
    seconds: float = 0.0
    headline: str = ""
    deck: str = ""
    parameters: dict[str, Value] = {}
    chapters: dict[str, Executed] = {}
    left_out: list[str] = []
    versions: dict[str, str] = {}
    platform: str = ""
    journals: dict[str, JsonObject] = {}
    files: dict[str, str] = {}
    ledger: str = ""
    fingerprint: dict[str, str] = {}
    notes: list[str] = []


def write(
    study: Study,
    folder: Path,
    chapters: Mapping[str, Executed],
    *,
    books: Sequence[Path],
    parameters: Mapping[str, Value],
    seconds: float,
    left_out: Sequence[str] = (),
    headline: str = "",
    deck: str = "",
) -> Manifest:
    """Writes the manifest of a run and returns it."""
    versions = {"evalkit": evalkit.__version__, "python": platform.python_version()}
    made = Manifest(
        study=study.name,
        run=folder.name,
        made_at=utc(),
        seconds=round(seconds, 1),
        headline=headline,
        deck=deck,
        parameters=dict(parameters),
        chapters=dict(chapters),
        failed={name: one.error for name, one in chapters.items() if one.error},
        left_out=list(left_out),
        versions=versions | {name: version(name) for name in _PACKAGES},
        platform=platform.platform(),
        journals=_journals(study, parameters),
        files=_hashes([*_below(study.folder), *books], study.root),
        ledger=ledger.head_of(study.folder),
        fingerprint=fingerprint(study, books, parameters),
    )
    return _write(folder, made)


def note(folder: Path, sentence: str) -> None:
    """Adds a sentence to what the page says above a run's answer."""
    made = read(folder)
    _write(folder, msgspec.structs.replace(made, notes=[*made.notes, sentence]))


def _write(folder: Path, made: Manifest) -> Manifest:
    record = without_secrets_in(msgspec.to_builtins(made))
    write_whole(folder / FILE, to_json(record, sort_keys=True))
    return msgspec.convert(record, Manifest)


def read(folder: Path) -> Manifest:
    """Reads a run's manifest.

    Raises:
        DataError: The run was not finished, or the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        raise DataError(f"{folder}: no {FILE}; the run did not finish")
    return read_record(path, Manifest, said="not a manifest", remedy="run the study again")


def _below(folder: Path) -> list[Path]:
    """Every file that a run may read, without ledgers and locks."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    passed_over = (*_RECORDS, *_BESIDE, ".pyc")
    return [path for path in found if not path.name.endswith(passed_over)]


def _hashes(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """sha256 of each file, by its path relative to `root`."""
    return {str(path.relative_to(root)): ledger.sha256_of(path) for path in paths}


def fingerprint(
    study: Study, books: Sequence[Path], parameters: Mapping[str, Value]
) -> dict[str, str]:
    """One hash a chapter over all it may depend on: its notebook, the parameters, the study's files and this code.

    For chapters that may read an A/B log also over what no file tells of it.
    """
    code = Path(evalkit.__file__).parent
    try:
        confirmed = [one.sha256 for one in ledger.read(study.folder / ledger.FILE).of(CONFIRMED)]
    except EvalkitError:
        confirmed = ["damaged"]
    shared = {
        "parameters": {name: value for name, value in parameters.items() if name != "run"},
        "journals": _journals(study, parameters),
        "files": _hashes(_below(study.folder), study.root),
        "confirmed": confirmed,
        "code": _hashes(_below(code), code),
    }
    # A log outside the study may hold more by the next run; in one inside, looks fall due as days go by.
    of_log = f"{datetime.now(UTC):%F}" if study.path(PLAN_FILE).exists() else ""
    if is_elsewhere(str(parameters.get("event_log") or "")):
        of_log = str(parameters.get("run"))
    made = {}
    for book in books:
        known = json.dumps(shared, sort_keys=True)
        known += "" if book.stem[:2] in _BEFORE_USERS else of_log
        made[book.stem] = hashlib.sha256(known.encode() + book.read_bytes()).hexdigest()
    return made


def _journals(study: Study, parameters: Mapping[str, Value]) -> dict[str, JsonObject]:
    """What the answers' journals say of themselves: model, server, settings."""
    made = {}
    for name in ("base_journal", "fine_tuned_journal"):
        named = parameters.get(name) or f"journals/{name.removesuffix('_journal')}.jsonl"
        header: JsonObject = {}
        try:
            if (path := study.path(str(named))).is_file():
                header = read_header(path)
        except DataError as why:  # its chapter says so too; the report must still come
            header = {"problem": str(why)}
        about = header.get("about", {})
        if about.get("system_prompt_use") == "none":
            # Written before the rows' own were told apart: what it says is that the study gave none.
            about["system_prompt_use"] = "none beside the rows' own"
        if header:
            made[name] = {one: header[one] for one in _OF_JOURNAL if one in header}
    return made
