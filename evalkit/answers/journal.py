"""A journal: one model's answers as an append-only JSONL file, which is resume, cache and archive at once.

Line 1 is the header (model, endpoint's declared name, parameters, test set); each further line is one answer.
A journal holds one model's answers under one set of parameters: opening it for other ones is refused. One without any answer
(after a misspelt model name, all calls failed) binds nothing, and is begun anew.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec

from evalkit import files, wording
from evalkit.errors import DataError
from evalkit.files import JsonObject
from evalkit.records import Answer, Brief, Example, ends_in_error, hash_rows

ARCHIVE = "frozen.json"  # beside a journal that is to stay as it is
_START = b'{"kind": "evalkit-journal"'
_ANSWER_FIELDS = tuple(field.name for field in fields(Answer))
_ASKED_AGAIN = "remove this line, and that call is asked again"
_NO_JOURNAL = "name another journal, restore this one from a copy, or update evalkit"
BOUND = ("model", "endpoint", "parameters", "system_prompt", "system_prompt_mode")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Entry(Brief):
    """One answer and where it belongs.

    Attributes:
        key: What was asked, as `call_key` hashes it.
        sample: 0-based sample number.
        at: UTC time at which it was written, ISO 8601.
        line: 1-based line in the journal.
    """

    key: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2})+$")]
    example_id: str
    sample: int
    answer: Answer
    at: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Journal(Brief):
    """A journal as read: the header, and the last answer to each call."""

    path: Path
    header: JsonObject
    entries: tuple[Entry, ...]


def call_key(
    model: str,
    endpoint: str,
    parameters: Mapping[str, object],
    messages: Sequence[Mapping[str, object]],
    sample: int,
) -> str:
    """SHA-256 hex over what makes two calls the same call; the address is not part of it.

    Example:
        >>> call_key("m", "local", {"temperature": 0.0}, [{"role": "user", "content": "hi"}], 0)[:12]
        '1e6abffe61ed'
    """
    asked = [model, endpoint, dict(parameters), [dict(message) for message in messages], sample]
    return hashlib.sha256(files.canonical(asked)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One example to be asked for its n-th sample."""

    example: Example
    sample: int
    key: str


def calls(
    model: str,
    endpoint: str,
    parameters: Mapping[str, object],
    rows: Iterable[Example],
    n_samples: int,
) -> Iterator[Call]:
    """Every call, in file order, sample by sample."""
    key = partial(call_key, model, endpoint)
    for row in rows:
        sent = {**parameters, **row.request}
        for sample in range(n_samples):
            yield Call(example=row, sample=sample, key=key(sent, row.messages, sample))


class Header(msgspec.Struct, kw_only=True):
    """The first line of a journal; `function` tells a function that answers from another of its name."""

    kind: Literal["evalkit-journal"] = "evalkit-journal"
    version: Literal[1] = 1
    model: str
    endpoint: str = ""
    parameters: JsonObject
    system_prompt: str = ""
    system_prompt_mode: str = "auto"
    test_set: str = ""
    versions: dict[str, str] = {}
    created_at: str = msgspec.field(default_factory=partial(files.utc, unit="milliseconds"))
    about: JsonObject = {}
    function: dict[str, str | None] | None = None

    def record(self) -> JsonObject:
        """As it stands in the file; a model has no function."""
        return {name: one for name, one in msgspec.to_builtins(self).items() if one is not None}


def read_journal(path: str | Path) -> Journal:
    """Reads a journal, keeping the last answer to each call; an unfinished last line is left out with a warning.

    Raises:
        DataError: No such file, no header, or a line that is not an answer; the message carries file and line.
    """
    path = Path(path)
    head, latest = read_header(path), {}
    for entry, _ in _entries(path):
        latest[entry.key] = entry
    return Journal(path=path, header=head, entries=tuple(latest.values()))


def read_header(path: str | Path) -> JsonObject:
    """Reads and checks the first line of a journal.

    Raises:
        DataError: There is no such file or its first line is not a header this version knows.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            first = file.readline()
    except OSError as why:
        told = f"cannot read this journal ({why.strerror}); run the benchmark that writes it"
        raise DataError(f"{path}: {told}") from why
    record = _parsed(first, f"{path}:1", _NO_JOURNAL)
    said = {"kind": "", "version": 0, **record} if isinstance(record, dict) else record
    files.as_record(said, Header, f"{path}:1: not the header of a journal", _NO_JOURNAL)
    return record


def answers_hash(path: str | Path) -> str:
    """SHA-256 hex over the sorted (example_id, sample, text, outcome) of all answers a journal holds, as they came.

    `records.answers_hash` is taken over the answers of a test set's rows, as they are scored.
    """
    latest = {(e.example_id, e.sample): e.answer for e in read_journal(path).entries}
    return hash_rows([*place, answer.text, answer.outcome] for place, answer in latest.items())


def is_frozen(path: Path) -> bool:
    """Whether a journal stands in an archive, which is read and never written."""
    return path.with_name(ARCHIVE).exists()


class Writer:
    """Appends answers to a journal; one writer at a time, and what is written survives a kill.

    Opening repairs an unfinished last line, refuses a header that contradicts, and finds the answers already there.
    """

    def __init__(self, path: str | Path, head: Mapping[str, object]) -> None:
        """Opens or begins the journal at `path`.

        Raises:
            DataError: Another run is writing it, it belongs to another model or other parameters, or it cannot be written.
        """
        self.path, self._secrets = Path(path), wording.known_secrets()
        _refuse_other_files(self.path)
        self._file = files.LineFile(
            self.path, wait=False, remedy="removed, that call is asked again"
        )
        self._places: dict[bytes, files.Place] = {}
        try:
            self._begin(wording.without_secrets_in(dict(head), self._secrets))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        """Whether that call was finished before; errors are not answers, they are asked again."""
        return bytes.fromhex(key) in self._places

    def find(self, key: str) -> Answer | None:
        """The answer to a call that was finished before."""
        place = self._places.get(bytes.fromhex(key))
        return _entry(self._file.read(place), self.path, 0).answer if place else None

    def append(self, key: str, example_id: str, sample: int, answer: Answer) -> None:
        """Writes one answer as one line, at once.

        Raises:
            DataError: The disk is full or the file cannot be written; what was there before stays whole.
        """
        said = {name: getattr(answer, name) for name in _ANSWER_FIELDS}
        said["scores"] = dict(answer.scores)
        if not answer.has_thoughts:
            del said["thinking"], said["thinking_tokens"]
        if not answer.scores:
            del said["scores"]
        at = files.utc(unit="milliseconds")
        place = self._write(
            {"key": key, "example_id": example_id, "sample": sample, **said, "at": at}
        )
        if answer.outcome != "error":
            self._places[bytes.fromhex(key)] = place

    def sync(self) -> None:
        """Makes sure what was written is on the disk; the runner calls it every second."""
        self._file.sync()

    def close(self) -> None:
        """Syncs and closes; the lock goes with it."""
        self._file.close()

    def _begin(self, head: JsonObject) -> None:
        if self._file.size == 0:
            self._write(head)
            return
        found, answered = read_header(self.path), False
        for entry, place in _entries(self.path):
            if entry.answer.outcome == "error":
                self._places.pop(bytes.fromhex(entry.key), None)
            else:
                self._places[bytes.fromhex(entry.key)] = place
                answered = True
        if answered:
            _check_same(found, head, self.path)
        elif any(found.get(name) != head.get(name) for name in (*BOUND, "function", "test_set")):
            self._file.clear()  # no answer stands in it, as after a misspelt name: it binds nothing
            self._write(head)

    def _write(self, record: Mapping[str, object]) -> files.Place:
        safe = wording.without_secrets_in(record, self._secrets)
        return self._file.append(files.to_line(safe, ascii_only=False))


def _refuse_other_files(path: Path) -> None:
    """Before the end of a file that is no journal is taken for an unfinished answer and cut off."""
    if is_frozen(path):
        told = "belongs to a frozen archive, which stays as it is"
        raise DataError(f"{path}: {told}; name another journal, or a copy of this one")
    if not path.is_file() or not os.access(path, os.R_OK):  # opening it says so
        return
    with path.open("rb") as file:
        first = file.readline()
    if first.endswith(b"\n"):
        read_header(path)
    elif not first.startswith(_START[: len(first)]):
        raise DataError(f"{path}:1: not the header of a journal; name another file")


def _check_same(found: JsonObject, asked: JsonObject, path: Path) -> None:
    for name in (*BOUND, "function"):
        old, new = found.get(name), asked.get(name)
        is_other = name in found and old != new
        if _another_function(old or {}, new or {}) if name == "function" else is_other:
            raise DataError(
                f"{path}:1: this journal holds answers for {name} {old!r}, now asked: {new!r}; name another journal, move this "
                'one away to ask afresh, or tell functions apart by name="..."'
            )
    if found.get("test_set") and asked.get("test_set") and found["test_set"] != asked["test_set"]:
        place = wording.visible(str(path))
        warnings.warn(
            f"{place}:1: begun with another version of the test set; answers to unchanged prompts are used again, "
            "those to changed prompts stay in the file unused",
            stacklevel=5,
        )


def _another_function(found: JsonObject, asked: JsonObject) -> bool:
    """Whether both are known and differ; a script's own module has another name where it is imported."""
    if not (found and asked):
        return False
    modules = {found.get("module"), asked.get("module")}
    is_moved = len(modules) > 1 and "__main__" not in modules
    return is_moved or found.get("made_with") != asked.get("made_with")


def _entries(path: Path) -> Iterator[tuple[Entry, files.Place]]:
    """Each whole answer line with its place (offset, length)."""
    for number, offset, line in files.lines(path):
        if number > 1:
            yield _entry(line, path, number), (offset, len(line))


def _parsed(line: bytes, where: str, remedy: str) -> JsonObject:
    try:
        record = files.from_json(line)
    except ValueError as why:
        raise DataError(f"{where}: not JSON ({why}); {remedy}") from why
    return wording.whole(record) if b"\\ud" in line.lower() else record


def _entry(line: bytes, path: Path, number: int) -> Entry:
    where, record = f"{path}:{number}", _parsed(line, f"{path}:{number}", _ASKED_AGAIN)
    if isinstance(record, dict):
        record = {**record, "answer": record, "line": number}
    entry = files.as_record(record, Entry, f"{where}: not an answer", _ASKED_AGAIN)
    answer = entry.answer
    if answer.outcome in {"error", "refused"} or not ends_in_error(answer.finish_reason):
        return entry
    # which the server broke off; such lines once stood here as "empty" or "ok"
    why = f"the server told an error instead of an answer: finish_reason {answer.finish_reason!r}"
    lost = replace(answer, text="", outcome="error", error=answer.error or why)
    return replace(entry, answer=lost)
