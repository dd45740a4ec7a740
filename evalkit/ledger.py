"""A study's one append-only record, `data/<study>/ledger.jsonl`: a line for each event that seals something.

A line is JSON: `previous` (SHA-256 of the line before, "" in the first), `kind`, `at` (UTC) and `facts`. Facts may hold
`files`, hashes of the study's files as they are from then on, and `made`, hashes of what a run wrote. So no line can be
changed, dropped from among others or put between them, and no sealed file changed, without the chain telling it; of the last
line the head in `ledger.head` tells it. Whoever may write every file and owns no older head of the chain can write all of it
anew; see SECURITY.md.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec

from evalkit.errors import DataError
from evalkit.files import (
    JsonObject,
    LineFile,
    Told,
    alone,
    as_record,
    canonical,
    from_json,
    kept_quiet,
    lines,
    utc,
    warned,
    write_whole,
)
from evalkit.wording import without_secrets_in

FILE, HEAD = "ledger.jsonl", "ledger.head"
SEAL_KEY = "EVALKIT_SEAL_KEY"  # environment variable: each line then carries an HMAC by this key
BEFORE = {"look": "looks.jsonl", "run": "history.jsonl"}  # where earlier versions kept these kinds
CARRIED = "carried over"
_SEALING = ("plan.lock.json", "ratings/*/batch.json", "ratings/*/lock.json")
_MERGED = (
    "a git merge of two branches, and one chain cannot have two ends; take the study's folder whole from one of them "
    "(git checkout --ours or --theirs), and take again there what the other branch had added"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One event.

    Attributes:
        number: From 1; 0 stands for what earlier versions kept and no line holds yet.
        at: UTC time, ISO 8601.
        sha256: Hash of this line, which the next one names.
        is_sealed: Whether it carries a seal.
        seal: Whether it was written by the holder of the key at hand: None without a key.
        version: 2 for lines whose head was kept beside the ledger; 1 before that.
    """

    number: int
    kind: str
    at: str
    facts: JsonObject
    sha256: str = ""
    is_sealed: bool = False
    seal: bool | None = None
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A file that is not what the ledger knows, with a sentence that says what it was, what it is, and since when.

    Attributes:
        is_unknown: Whether the ledger has never heard of it.
    """

    file: str
    words: str
    is_unknown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The events of a study, oldest first.

    Attributes:
        torn: Whether a kill or a full disk left the last line unfinished; it is left out.
    """

    path: Path
    lines: tuple[Line, ...]
    torn: bool = False

    @property
    def head(self) -> str:
        """Hash of the last line, which stands for all of them; "" without any."""
        return self.lines[-1].sha256 if self.lines else ""

    @property
    def heads(self) -> dict[str, int]:
        """Every head the chain has had, with the number of its line."""
        return {one.sha256: one.number for one in self.lines if one.number}

    def of(self, *kinds: str) -> Iterator[Line]:
        """The lines of these kinds, what was carried over among them."""
        for line in self.lines:
            if line.kind == CARRIED:
                for kind in kinds:
                    for facts in line.facts.get(kind, ()):
                        yield replace(line, kind=kind, at=facts.get("at") or "", facts=facts)
            elif line.kind in kinds:
                yield line

    def sealed(self) -> dict[str, tuple[str, Line]]:
        """The hash that each sealed file has by the last line that speaks of it, and that line."""
        return {
            name: (sha256, line)
            for line in self.lines
            for name, sha256 in line.facts.get("files", {}).items()
        }


def read(path: str | Path, *, told: Told = kept_quiet) -> Ledger:
    """The ledger, with what earlier versions kept in other files while no line of it holds that; empty when neither is there.

    `told` hears of a torn last line, which is left out.

    Raises:
        DataError: A line is damaged or does not follow the one before it.
    """
    path, torn = Path(path), list[str]()
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: not a file; need the study's ledger")
    found = tuple(_chained((line for _, _, line in lines(path, told=torn.append)), path))
    for one in torn:
        told(one)
    if not found and (old := _before(path)):
        found = (Line(number=0, kind=CARRIED, at="", facts=old),)
    return Ledger(path=path, lines=found, torn=bool(torn))


def append(
    path: str | Path,
    kind: str,
    facts: Mapping[str, object],
    *,
    at: str = "",
    told: Told = warned,
    without_head: bool = False,
) -> str:
    """Adds a line, on the disk on return, and returns its hash; the first takes over what earlier versions kept.

    Args:
        path: The ledger.
        kind: What happened.
        facts: What there is to know of it, as JSON has it.
        at: UTC time, ISO 8601; the present when not given.
        told: Hears of a torn line that was removed, and of what was taken over.
        without_head: Go on though the head beside it is gone.

    Raises:
        DataError: It cannot be written, or what stands there is damaged; it stays as it is.
    """
    path = Path(path)
    with LineFile(path, told=told) as file:
        known = [*_chained(file.read((0, file.size)).split(b"\n")[:-1], path)]
        if (lost := _lost(path, _kept(path), known)) and not (lost.is_unknown and without_head):
            raise DataError(lost.words)
        head = known[-1].sha256 if known else ""
        if not known and (old := _before(path)):
            head = _written(file, CARRIED, old, "", "")
            if taken := [name for one, name in BEFORE.items() if one in old]:
                told(f"{path}: takes the place of {' and '.join(taken)}, whose lines it now holds")
        return _written(file, kind, facts, head, at)


@contextmanager
def sealing(
    folder: Path | None, kind: str, facts: Mapping[str, object], files: Mapping[Path, str]
) -> Iterator[None]:
    """Puts on record which hashes files of a study will have, and holds its folder until they are there.

    The line comes first: a file that no line knows is refused, and what a kill prevented can be done again.

    Args:
        folder: The study's; None where files belong to none.
        kind: What happens.
        facts: What else there is to know.
        files: Hashes by path.
    """
    if folder is None:
        yield
        return
    with alone(folder):
        named = {one.relative_to(folder).as_posix(): sha256 for one, sha256 in files.items()}
        append(folder / FILE, kind, {**facts, "files": named})
        yield


def files_sealed(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Hashes of a study's files by their path in its folder; "" for one that is not there."""
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}


def sha256_of(path: Path) -> str:
    """SHA-256 hex of a file; "" when it is not there.

    Raises:
        DataError: It cannot be read.
    """
    return hashlib.sha256(found).hexdigest() if (found := _bytes(path)) is not None else ""


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as why:
        raise DataError(f"{path}: cannot be read ({why.strerror}); check its permissions") from why


def mismatches(folder: Path, under: str = "") -> tuple[Mismatch, ...]:
    """The files of a study that are not what its ledger knows; none while it has no ledger.

    Args:
        folder: The study's.
        under: Only files whose path in it starts so.

    Raises:
        DataError: The ledger itself is damaged.
    """
    if not _mismatches(folder, under):
        return ()
    with alone(folder):  # a file that was being sealed meanwhile is there now
        return _mismatches(folder, under)


def _mismatches(folder: Path, under: str) -> tuple[Mismatch, ...]:
    kept, found = _kept(folder / FILE), read(folder / FILE)  # in this order: a line comes first
    if lost := _lost(folder / FILE, kept, found.lines):
        return (lost,)
    if not found.head:
        return ()
    sealed = {one: at for one, at in found.sealed().items() if one.startswith(under)}
    told = (_differing(folder, name, *one) for name, one in sealed.items())
    there = {one.relative_to(folder).as_posix() for kind in _SEALING for one in folder.glob(kind)}
    said = (
        "stands in no line of the ledger, which knows all that was sealed here; restore both from one copy, or, if it was "
        f'sealed elsewhere, take it up with a reason: evalkit confirm {folder.name} "reason"'
    )
    strangers = (
        Mismatch(file=one, words=f"{folder / one}: {said}", is_unknown=True)
        for one in sorted(there - sealed.keys())
        if one.startswith(under)
    )
    return (*(one for one in told if one), *strangers)


def check(folder: Path, under: str = "") -> None:
    """Refuses files of a study that are not what its ledger knows.

    Raises:
        DataError: There are some; the message names each, what it was, what it is, and since when.
    """
    if told := mismatches(folder, under):
        raise DataError("; ".join(one.words for one in told))


def lost_heads(folder: Path, reports: Path) -> tuple[Mismatch, ...]:
    """The runs of a study whose manifest names a head that its ledger has not, for lines were dropped or written anew."""
    known, found = read(folder / FILE).heads, []
    for path in sorted(reports.glob("*/manifest.json")):
        try:
            record = from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # whoever reads this run says so
            continue
        head = record.get("ledger") if isinstance(record, dict) else None
        if head and head not in known and record.get("study") == folder.name:
            said = (
                f"{folder / FILE}: has not the head {head[:16]}... that the run {path.parent.name} was made with: lines were "
                "dropped or written anew; restore it from a copy"
            )
            found.append(Mismatch(file=FILE, words=said))
    for path in sorted(reports.glob("*/report.html")):  # written after the manifest
        if not path.with_name("manifest.json").is_file():
            said = f"{path.with_name('manifest.json')}: is gone, and {path.name} beside it is not; restore it from a copy"
            found.append(Mismatch(file=FILE, words=said))
    return tuple(found)


def _differing(folder: Path, name: str, sha256: str, line: Line) -> Mismatch | None:
    path, is_now = folder / name, sha256_of(folder / name)
    kept_apart = name.endswith("/key.json") or "-simulated-" in name  # git has neither
    if is_now == sha256 or (not is_now and kept_apart):
        return None
    since = f"by line {line.number} of the ledger ({line.kind}, {line.at})"
    was = f"sha256 {sha256[:12]}..." if sha256 else "not there"
    now, remedy = "gone", "restore it from a copy"
    if is_now:
        now = f"sha256 {is_now[:12]}..., written {utc(path.stat().st_mtime)}"
    elif name.endswith((".lock.json", "/lock.json")):
        remedy += ", or lock it again, which stays on record"
    return Mismatch(file=name, words=f"{path}: was {was} {since}, is {now}; {remedy}")


def head_of(folder: Path) -> str:
    """The head of a study's ledger; "" where it is damaged, which whoever decides by it says."""
    try:
        return read(folder / FILE).head
    except DataError:
        return ""


def _written(file: LineFile, kind: str, facts: Mapping[str, object], head: str, at: str) -> str:
    record: JsonObject = {"version": 2, "previous": head, "kind": kind, "at": at or utc()}
    record["facts"] = without_secrets_in(dict(facts))
    if key := os.environ.get(SEAL_KEY):
        record["seal"] = _seal(record, key)
    line = canonical(record)
    file.append(line, sync=True)
    made = hashlib.sha256(line).hexdigest()
    write_whole(file.path.with_name(HEAD), f"{made}\n".encode())
    return made


def _kept(path: Path) -> str:
    """The head as it stands beside a ledger; "" where it does not."""
    return (_bytes(path.with_name(HEAD)) or b"").decode(errors="replace").strip()


def _lost(path: Path, kept: str, found: Sequence[Line]) -> Mismatch | None:
    """That a chain has not the head which stands beside it; a kill leaves an older one there, or none at first."""
    had_one = [one for one in found if one.version > 1]
    if kept in {one.sha256 for one in found} or (not kept and len(had_one) < 2):
        return None
    if not kept:
        said = (
            f"{path.with_name(HEAD)}: is gone, and {path.name} beside it is not; restore both from a copy, or go on with a "
            f'reason: evalkit confirm {path.parent.name} "reason"'
        )
        return Mismatch(file=HEAD, words=said, is_unknown=True)
    said = (
        f"{path}: has not the head {kept[:16]}... that stands in {HEAD} beside it: lines were dropped, changed or written "
        "anew; restore both from a copy"
    )
    return Mismatch(file=FILE, words=said)


def _seal(record: Mapping[str, object], key: str) -> str:
    body = canonical({name: value for name, value in record.items() if name != "seal"})
    return hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def _chained(found: Iterable[bytes], path: Path) -> Iterator[Line]:
    """The lines, each checked to follow the one before."""
    head, named, key = "", set[str](), os.environ.get(SEAL_KEY)
    for number, line in enumerate((one.rstrip(b"\n") for one in found), start=1):
        where = f"{path}:{number}"
        if line.startswith((b"<<<<<<<", b"=======", b">>>>>>>", b"|||||||")):
            raise DataError(f"{where}: {_MERGED}")
        record = _record(line, where)
        if record["previous"] in named:
            raise DataError(f"{where}: follows the same line as another one does: {_MERGED}")
        if record["previous"] != head:
            raise DataError(
                f"{where}: does not follow line {number - 1} (it names {record['previous'][:12] or 'none'}, that is "
                f"{head[:12] or 'none'}): a line was changed, dropped or put between; restore the ledger from a copy"
            )
        named.add(head)
        head = hashlib.sha256(line).hexdigest()
        seal = record.pop("seal", None)
        known = _seal(record, key).encode() if key else b""
        is_ours = hmac.compare_digest(str(seal).encode(), known) if key else None
        del record["previous"]
        yield Line(number=number, sha256=head, is_sealed=bool(seal), seal=is_ours, **record)


class _Facts(msgspec.Struct):
    """What is relied on without a look at the kind."""

    files: dict[str, str] = {}
    made: dict[str, str] = {}
    inputs: dict[str, JsonObject] = {}
    metrics: JsonObject | None = None
    models: JsonObject | None = None
    bound_to: JsonObject | None = None
    parameters: JsonObject | None = None
    layers: JsonObject | None = None
    rules: JsonObject | list[str] = {}
    settings: JsonObject = {}
    left_out: list[str] = []
    keys: JsonObject = {}
    reason: str = ""


class _Written(msgspec.Struct, forbid_unknown_fields=True):
    previous: str
    kind: str
    at: str
    facts: _Facts
    seal: object = None
    version: Literal[2] = 2


def _record(line: bytes, where: str) -> JsonObject:
    said, remedy = f"{where}: not a line of a ledger", "restore it from a copy"
    try:
        record = from_json(line)
    except ValueError as why:
        raise DataError(f"{said} ({why}); {remedy}") from why
    as_record(record, _Written, said, remedy)
    return record


def _before(path: Path) -> JsonObject:
    """What a study of an earlier version has: looks and runs in files of their own, and files that no line seals yet."""
    found: JsonObject = {}
    for kind, name in BEFORE.items():
        old = path.with_name(name)
        numbered = [(number, line) for number, _, line in lines(old, told=kept_quiet)]
        if kept := [_old(line, f"{old}:{number}") for number, line in numbered if line.strip()]:
            found[kind] = kept
    there = [one for kind in _SEALING for one in path.parent.glob(kind)]
    locks = [one.parent for one in there if one.name == "lock.json"]
    there += [vote for folder in locks for vote in folder.glob("votes/*")]
    return found | ({"files": files_sealed(path.parent, there)} if there else {})


def _old(line: bytes, where: str) -> JsonObject:
    try:
        return dict(from_json(line))
    except (TypeError, ValueError) as why:
        raise DataError(f"{where}: not JSON ({why}); mend or remove the line") from why
