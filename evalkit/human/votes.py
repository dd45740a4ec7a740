"""The votes of one rater: an append-only file, synced to the disk before the next pair is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from evalkit.errors import DataError
from evalkit.files import LineFile, from_json, kept_quiet, lines
from evalkit.human.shape import misfit

Choice = Literal["left", "right", "tie", "both_bad"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
_UNDO = {"item_id": str, "at": str}
_VOTE = {
    **dict.fromkeys(("item_id", "choice", "left", "at", "note", "via"), str),
    "seconds": float,
    "reasons": [str],
    "simulated": bool,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One judgement of one pair.

    Attributes:
        choice: Where the better answer stood on the screen (left = shown as A), tie or both_bad.
        left: The side of the batch (a or b) that stood on the left.
        seconds: From the pair's appearance to the vote.
        via: click, key or simulated.
        at: UTC time, ISO 8601.
    """

    item_id: str
    choice: Choice
    left: Literal["a", "b"]
    seconds: float
    at: str
    reasons: tuple[str, ...] = ()
    note: str = ""
    via: str = ""
    simulated: bool = False


class VoteFile:
    """One rater's file. Safe with several writers at once, a kill at any moment, a torn tail and a full disk.

    Each append takes a lock, reads what others wrote since, writes one line and syncs it; when that fails, nothing of
    the line stays in the file and the caller is told.
    """

    def __init__(self, path: Path, *, refuse: Callable[[], None] = lambda: None) -> None:
        """`refuse` is called under the lock before each write and raises when votes are no longer taken."""
        self.path = path
        self.repaired = 0
        self._refuse = refuse
        self._standing: dict[str, Vote] = {}
        self._offset = self._lines = 0

    def standing(self) -> Mapping[str, Vote]:
        """The votes that count, in the order given: the last one of each item, without those undone."""
        with self._opened():
            return dict(self._standing)

    def append(self, vote: Vote) -> bool:
        """Stores a vote; True when it replaces one that another page of the same rater stored meanwhile.

        Raises:
            DataError: The file cannot be written; the vote is not stored.
        """
        with self._opened() as file:
            self._refuse()
            replaces = vote.item_id in self._standing
            self._write(file, {"kind": "vote", **asdict(vote)})
        return replaces

    def undo(self, at: str) -> Vote | None:
        """Takes back the vote given last, by a line of its own; None when there is none."""
        with self._opened() as file:
            self._refuse()
            if not self._standing:
                return None
            last = list(self._standing.values())[-1]
            self._write(file, {"kind": "undo", "item_id": last.item_id, "at": at})
        return last

    @contextmanager
    def _opened(self) -> Iterator[LineFile]:
        """The file, locked, and read as far as it goes; a torn line in it was never confirmed to anybody."""
        try:
            with LineFile(self.path, told=kept_quiet) as file:  # the rater is told on the page
                self.repaired += bool(file.n_removed)
                self._catch_up(file)
                yield file
        except DataError as why:
            if not isinstance(cause := why.__cause__, OSError):
                raise
            raise DataError(
                f"{self.path}: cannot be written ({cause.strerror}); make room and the folder writable, then vote again"
            ) from why

    def _catch_up(self, file: LineFile) -> None:
        if file.size < self._offset:  # replaced by hand: start again
            self._standing, self._offset, self._lines = {}, 0, 0
        new = file.read((self._offset, file.size - self._offset))
        for line in new.split(b"\n")[:-1]:
            self._lines += 1
            _apply(parse_line(line, f"{self.path}:{self._lines}"), self._standing)
        self._offset += len(new)

    def _write(self, file: LineFile, record: Mapping[str, object]) -> None:
        line = json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode()
        self._offset += file.append(line, sync=True)[1]
        self._lines += 1
        _apply(parse_line(line, str(self.path)), self._standing)


def read_standing(path: Path) -> dict[str, Vote]:
    """The votes of a file that count, read without touching it; an unfinished last line counts for nothing."""
    standing: dict[str, Vote] = {}
    for number, _, line in lines(path, told=kept_quiet):  # its rater is told on the page
        _apply(parse_line(line, f"{path}:{number}"), standing)
    return standing


def parse_line(line: bytes, where: str) -> dict[str, Any]:
    """One line of a vote file.

    Raises:
        DataError: It is not a vote or an undo.
    """
    try:
        record = from_json(line)
        kind = record["kind"]
        if said := misfit(record, _UNDO if kind == "undo" else _VOTE):
            raise ValueError(said)
        if kind == "undo":
            return record
        if kind != "vote" or record["choice"] not in CHOICES or record["left"] not in {"a", "b"}:
            raise ValueError(f"kind {kind}, choice {record['choice']}, left {record['left']}")
        Vote(**{name: value for name, value in record.items() if name != "kind"})
        return record | {"reasons": tuple(record["reasons"]), "seconds": float(record["seconds"])}
    except (ValueError, TypeError, KeyError) as why:
        raise DataError(f"{where}: not a vote ({why}); restore the file from a copy") from why


def _apply(record: dict[str, Any], standing: dict[str, Vote]) -> None:
    standing.pop(record["item_id"], None)
    if record.pop("kind") == "vote":
        standing[record["item_id"]] = Vote(**record)
