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
from evalkit.decision.rules import CONFIRMED
from evalkit.errors import DataError, EvalkitError
from evalkit.files import from_json, read_record, to_json, utc, write_whole
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
    journals: dict[str, dict[str, object]] = {}
    files: dict[str, str] = {}
    ledger: str = ""
    fingerprint: dict[str, str] = {}
    notes: list[str] | msgspec.UnsetType = msgspec.UNSET


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
        chapters={
            name: msgspec.structs.replace(one, seconds=round(one.seconds, 1))
            for name, one in chapters.items()
        },
        failed={name: one.error for name, one in chapters.items() if one.error},
        left_out=list(left_out),
        versions=versions | {name: version(name) for name in _PACKAGES},
        platform=platform.platform(),
        journals=_journals(study, parameters),
        files=hashes([*files(study), *books], study.root),
        ledger=ledger.head_of(study.folder),
        fingerprint=fingerprint(study, books, parameters),
    )
    return _write(folder, made)


def note(folder: Path, sentence: str) -> None:
    """Adds a sentence to what the page says above a run's answer."""
    made = read(folder)
    _write(folder, msgspec.structs.replace(made, notes=[*(made.notes or ()), sentence]))


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


def files(study: Study) -> list[Path]:
    """Every file of the study that a run may read, without ledgers and locks."""
    return [path for path in _below(study.folder) if not path.name.endswith(_RECORDS + _BESIDE)]


def _below(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*"))
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


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
    code = Path(evalkit.__file__).parent
    shared = {
        "parameters": {name: value for name, value in parameters.items() if name != "run"},
        "journals": _journals(study, parameters),
        "files": hashes(files(study), study.root),
        "confirmed": _confirmed(study),
        "code": hashes(_below(code), code),
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


def _journals(study: Study, parameters: Mapping[str, Value]) -> dict[str, dict[str, object]]:
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


def _header(path: Path) -> dict[str, object]:
    with path.open(encoding="utf-8", errors="replace") as file:
        line = file.readline()
    try:
        header = from_json(line)
        if (header.get("about") or {}).get("system_prompt_use") == "none":
            # Written before the rows' own were told apart: what it says is that the study gave none.
            header["about"]["system_prompt_use"] = "none beside the rows' own"
    except (ValueError, AttributeError):  # its chapter says more; the report must still come
        return {"problem": "its first line is no header"}
    names = ("model", "endpoint", "parameters", "versions", "created_at", "about")
    return {name: header.get(name) for name in names}
