"""One rating round on disk: the batch, its raters' votes, and the lock that lets the key open."""

from __future__ import annotations

import fcntl
import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalkit.errors import DataError, DesignError
from evalkit.files import write_whole
from evalkit.human.pairs import Batch, Key, read_batch, read_key
from evalkit.human.votes import Vote, VoteFile, read_standing
from evalkit.study import Study, checked_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one rater is."""

    rater: str
    done: int
    total: int
    last_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A round's folder, `data/<study>/ratings/<round>`, and the batch in it."""

    folder: Path
    batch: Batch

    @classmethod
    def open(cls, folder: str | Path) -> Round:
        """The round in a folder.

        Raises:
            DataError: There is no readable batch in it.
        """
        return cls(folder=Path(folder), batch=read_batch(Path(folder)))

    @property
    def locked(self) -> bool:
        """Whether the round is closed to votes."""
        return (self.folder / "lock.json").exists()

    def votes(self, rater: str) -> VoteFile:
        """One rater's file.

        Raises:
            DesignError: The code is not on the batch's list.
        """
        if rater not in self.batch.raters:
            raise DesignError(
                f"rater {rater!r} is not on this round's list; ask whoever set up the round for your link"
            )
        return VoteFile(self.folder / "votes" / f"{rater}.jsonl", refuse=self._refuse_when_locked)

    def standing(self, rater: str) -> tuple[Vote, ...]:
        """The votes of one rater that count, read without touching the file.

        Raises:
            DataError: The file is damaged, or holds a vote on a pair that is not of this batch.
        """
        path = self.votes(rater).path
        votes = tuple(read_standing(path).values())
        foreign = [vote.item_id for vote in votes if vote.item_id not in self.batch.orders[rater]]
        if foreign:
            raise DataError(
                f"{path}: a vote on {foreign[0]!r}, a pair that is not of this round; restore the file from a copy"
            )
        return votes

    def progress(self) -> tuple[Progress, ...]:
        """How far every rater is."""
        return tuple(self._progress(rater) for rater in self.batch.raters)

    def lock(self, *, unfinished: bool = False) -> dict[str, Any]:
        """Closes the round for good; locking it twice changes nothing.

        Args:
            unfinished: Close it even though raters have not finished.

        Returns:
            The lock's record: when, the hashes of batch, key and each rater's votes, and whether all were done.

        Raises:
            DataError: The key is missing or not the one the batch was sealed with.
            DesignError: Nobody has voted yet, or somebody has not finished.
        """
        if self.locked:
            return self.lock_record()
        read_key(self.folder, self.batch.key_sha256)
        with ExitStack() as stack:
            for rater in self.batch.raters:
                self.votes(rater).standing()  # mends a torn tail
                file = stack.enter_context(self.votes(rater).path.open("ab"))
                fcntl.flock(
                    file, fcntl.LOCK_EX
                )  # no vote can slip in between the hash and the lock
            if not self.locked:
                self._write_lock(unfinished=unfinished)
        return self.lock_record()

    def lock_record(self) -> dict[str, Any]:
        """What stood when the round was locked."""
        return json.loads((self.folder / "lock.json").read_text(encoding="utf-8"))

    def key(self) -> Key:
        """The key, once the round is locked and nothing has changed since.

        Raises:
            DesignError: The round is still open.
            DataError: A file is not what it was when the round was locked.
        """
        if not self.locked:
            raise DesignError(
                f"{self.folder}: the round is still open; lock it first, the key opens only then"
            )
        record = self.lock_record()
        sealed = {f"votes/{rater}.jsonl": one["sha256"] for rater, one in record["votes"].items()}
        sealed["batch.json"] = record["batch_sha256"]
        changed = [name for name, sha256 in sealed.items() if _sha256(self.folder / name) != sha256]
        if changed:
            raise DataError(
                f"{self.folder}: changed after the round was locked: {', '.join(changed)}; restore from a copy"
            )
        return read_key(self.folder, record["key_sha256"])

    def _refuse_when_locked(self) -> None:
        if self.locked:
            raise DesignError("this round is closed; the vote was not stored")

    def _progress(self, rater: str) -> Progress:
        standing = self.standing(rater)
        last = max((vote.at for vote in standing), default=None)
        return Progress(
            rater=rater, done=len(standing), total=len(self.batch.orders[rater]), last_at=last
        )

    def _write_lock(self, *, unfinished: bool) -> None:
        files = {rater: self.votes(rater).path for rater in self.batch.raters}
        votes = {
            rater: {"votes": len(self.standing(rater)), "sha256": _sha256(path)}
            for rater, path in files.items()
        }
        if not any(one["votes"] for one in votes.values()) and any(self.batch.orders.values()):
            raise DesignError(f"{self.folder}: nobody has voted yet; there is nothing to lock")
        behind = [one for one in self.progress() if one.done < one.total]
        if behind and not unfinished:
            done, total = (
                sum(one["votes"] for one in votes.values()),
                sum(map(len, self.batch.orders.values())),
            )
            who = ", ".join(f"{one.rater} {one.done} of {one.total}" for one in behind)
            raise DesignError(
                f"{self.folder}: {done} of {total} votes are in ({who}); wait, or close it anyway: --unfinished"
            )
        record = {
            "kind": "evalkit-lock",
            "version": 1,
            "locked_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "batch_sha256": _sha256(self.folder / "batch.json"),
            "key_sha256": self.batch.key_sha256,
            "votes": votes,
            "complete": not behind,
        }
        write_whole(self.folder / "lock.json", json.dumps(record, indent=1).encode() + b"\n")


def round_folder(study: Study, name: str) -> Path:
    """Where a round of this name lives."""
    return study.folder / "ratings" / checked_name(name, what="rating_round")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
