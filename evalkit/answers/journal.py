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
from typing import Self, TypedDict, get_args

from evalkit.errors import DataError
from evalkit.files import (
    DoubledNameError,
    JsonObject,
    LineFile,
    Place,
    as_record,
    canonical,
    from_json,
    lines,
    to_line,
    utc,
)
from evalkit.records import Answer, Brief, Example, Outcome, ends_in_error, hash_rows
from evalkit.wording import known_secrets, plural, visible, whole, without_secrets_in

KIND = "evalkit-journal"
VERSION = 1
ARCHIVE = "frozen.json"  # beside a journal that is to stay as it is
_START = b'{"kind": "evalkit-journal"'
_ANSWER_FIELDS = tuple(field.name for field in fields(Answer))
_ASKED_AGAIN = "remove this line, and that call is asked again"
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

    key: str
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

    def by_key(self) -> dict[str, Entry]:
        """The entries by call key."""
        return {entry.key: entry for entry in self.entries}


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
    return hashlib.sha256(canonical(asked)).hexdigest()


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


def header(
    model: str,
    *,
    endpoint: str,
    parameters: Mapping[str, object],
    system_prompt: str = "",
    system_prompt_mode: str = "auto",
    test_set: str = "",
    versions: Mapping[str, str] | None = None,
    about: Mapping[str, object] | None = None,
    function: Mapping[str, str] | None = None,
) -> JsonObject:
    """The first line of a journal; `function` tells a function that answers from another of its name."""
    return {
        "kind": KIND,
        "version": VERSION,
        "model": model,
        "endpoint": endpoint,
        "parameters": dict(parameters),
        "system_prompt": system_prompt,
        "system_prompt_mode": system_prompt_mode,
        "test_set": test_set,
        "versions": dict(versions or {}),
        "created_at": utc(unit="milliseconds"),
        "about": dict(about or {}),
        **({"function": dict(function)} if function else {}),
    }


class _Used(TypedDict, total=False):
    """What is made of a header's texts: prompts to ask with, another function told apart."""

    endpoint: str
    system_prompt: str
    system_prompt_mode: str
    function: dict[str, str | None] | None


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
            record = _parsed(file.readline(), path, 1)
    except OSError as why:
        told = f"cannot read this journal ({why.strerror}); run the benchmark that writes it"
        raise DataError(f"{path}: {told}") from why
    is_header = isinstance(record.get("parameters"), dict) and "model" in record
    if record.get("kind") != KIND or not is_header:
        told = f"not the header of a journal (kind {record.get('kind')!r}); name another file"
        raise DataError(f"{path}:1: {told}")
    as_record(record, _Used, f"{path}:1: not the header of a journal", "restore it from a copy")
    if record.get("version") != VERSION:
        told = f"journal version {record.get('version')!r}, this evalkit reads {VERSION}"
        raise DataError(f"{path}:1: {told}; update evalkit")
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
        self.path, self._secrets = Path(path), known_secrets()
        _refuse_other_files(self.path)
        self._file = LineFile(self.path, wait=False, remedy="removed, that call is asked again")
        self._places: dict[bytes, Place] = {}
        try:
            self._begin(without_secrets_in(dict(head), self._secrets))
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
        at = utc(unit="milliseconds")
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

    def _write(self, record: Mapping[str, object]) -> Place:
        safe = without_secrets_in(record, self._secrets)
        return self._file.append(to_line(safe, ascii_only=False))


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
    where = f"{path}:1: this journal holds answers"
    for name in BOUND:
        if name in found and found[name] != asked.get(name):
            raise DataError(
                f"{where} for {name} {found[name]!r}, now asked: {asked.get(name)!r}; "
                "name another journal, or move this one away to ask afresh"
            )
    if _another_function(found.get("function") or {}, asked.get("function") or {}):
        raise DataError(
            f"{where} of another function of the name {found['model']!r}, from another module "
            'or made with other values; name another journal, or tell them apart by name="..."'
        )
    if found.get("test_set") and asked.get("test_set") and found["test_set"] != asked["test_set"]:
        warnings.warn(
            f"{visible(str(path))}:1: begun with another version of the test set; answers to unchanged prompts are used again, "
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


def _entries(path: Path) -> Iterator[tuple[Entry, Place]]:
    """Each whole answer line with its place (offset, length)."""
    for number, offset, line in lines(path):
        if number > 1:
            yield _entry(line, path, number), (offset, len(line))


def _parsed(line: bytes, path: Path, number: int) -> JsonObject:
    try:
        record = from_json(line)
    except DoubledNameError as why:
        remedy = "keep one of them" if number == 1 else _ASKED_AGAIN
        raise DataError(f"{path}:{number}: {why}; {remedy}") from why
    except ValueError:
        record = None
    if not isinstance(record, dict):
        remedy = "this file is not a journal" if number == 1 else _ASKED_AGAIN
        told = f"not a JSON object ({plural(len(line), 'byte')})"
        raise DataError(f"{path}:{number}: {told}; {remedy}")
    return whole(record) if b"\\ud" in line.lower() else record


def _entry(line: bytes, path: Path, number: int) -> Entry:
    record = _parsed(line, path, number)
    try:
        bytes.fromhex(key := record["key"])
        told = [name for name in _ANSWER_FIELDS if name in record or name in {"text", "outcome"}]
        answer = Answer(**{name: record[name] for name in told})
        if not isinstance(answer.text, str) or answer.outcome not in get_args(Outcome):
            raise ValueError(f"text is {type(answer.text).__name__}, outcome {answer.outcome!r}")
        return Entry(
            key=key,
            example_id=str(record["example_id"]),
            sample=int(record["sample"]),
            answer=_as_it_ended(answer),
            at=record.get("at", ""),
            line=number,
        )
    except (KeyError, TypeError, ValueError) as why:
        told = f"not an answer ({type(why).__name__}: {why})"
        raise DataError(f"{path}:{number}: {told}; {_ASKED_AGAIN}") from why


def _as_it_ended(answer: Answer) -> Answer:
    """An answer that the server broke off is an error, asked again; such lines once stood here as "empty" or "ok"."""
    if answer.outcome in {"error", "refused"} or not ends_in_error(answer.finish_reason):
        return answer
    why = f"the server told an error instead of an answer: finish_reason {answer.finish_reason!r}"
    return replace(answer, text="", outcome="error", error=answer.error or why)
