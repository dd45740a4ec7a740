"""One rating round on disk: the batch, its raters' votes, and the lock that lets the key open.

Each file is sealed by what was written before or with it: the key by the hash in the batch, the sides of a vote by the batch,
batch and votes by the lock, the lock by a line in `locks.jsonl`, which also tells of a lock that somebody removed. In a study
its ledger knows all of them, so that those who rewrite them together are found out too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalkit import ledger, wording
from evalkit.errors import DataError, DesignError
from evalkit.files import LineFile, append_line, from_json, kept_quiet, lines, write_whole
from evalkit.human.blind import Batch, Key, read_batch, read_key, read_record, study_folder
from evalkit.human.shape import ANY_NAME, misfit
from evalkit.human.votes import Vote, VoteFile, read_standing
from evalkit.records import Brief
from evalkit.study import Study, checked_name

LOCK, LOCKS = "lock.json", "locks.jsonl"
_LOCK = {
    **dict.fromkeys(("locked_at", "batch_sha256", "key_sha256"), str),
    "votes": {ANY_NAME: {"votes": int, "sha256": str}},
    "complete": bool,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one rater is."""

    rater: str
    done: int
    total: int
    last_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True, repr=False)
class Round(Brief):
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
        return (self.folder / LOCK).exists()

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
            DataError: The file is damaged, or holds a vote that does not fit the batch: on a pair that is not of it, or
                with the sides otherwise than it has them for this rater.
        """
        path, swapped = self.votes(rater).path, set(self.batch.swapped[rater])
        votes = tuple(read_standing(path).values())
        foreign = [vote.item_id for vote in votes if vote.item_id not in self.batch.orders[rater]]
        if foreign:
            raise DataError(
                f"{path}: a vote on {foreign[0]!r}, a pair that is not of this round; restore the file from a copy"
            )
        turned = [one.item_id for one in votes if (one.left == "b") != (one.item_id in swapped)]
        if turned:
            raise DataError(
                f"{path}: the vote on {turned[0]!r} has the answers on other sides than the batch showed {rater}; "
                "restore the file from a copy"
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
            The lock's record: when, the hashes of batch, key and each rater's votes, whether all were done, and when it
            was locked before, if somebody removed that lock.

        Raises:
            DataError: The key is missing or not the one the batch was sealed with, or another file does not fit.
            DesignError: Nobody has voted yet, or somebody has not finished.
        """
        if self.locked:
            return self.lock_record()
        self.check("batch.json")
        self._sealed_key()
        self._refuse_strangers()
        with ExitStack() as stack:
            for rater in self.batch.raters:  # no vote can slip in between the hash and the lock
                stack.enter_context(LineFile(self.votes(rater).path, told=kept_quiet))
            if not self.locked:
                self._write_lock(unfinished=unfinished)
        return self.lock_record()

    def lock_record(self) -> dict[str, Any]:
        """What stood when the round was locked; the files it speaks of are checked by `key`.

        Raises:
            DataError: It is not whole, or speaks of another key or other raters than the batch.
        """
        path = self.folder / LOCK
        record = read_record(path, "evalkit-lock", _LOCK)
        if record["key_sha256"] != self.batch.key_sha256:
            raise DataError(
                f"{path}: sealed with another key than the batch carries; restore batch, key and lock from a copy"
            )
        for at in (record["locked_at"], *record.get("locked_before", ())):
            _refuse_no_time(at, path)
        if odd := sorted(set(self.batch.raters) ^ set(record["votes"])):
            raise DataError(
                f"{path}: the batch and the lock do not name the same raters ({', '.join(odd)}); restore both from a copy"
            )
        return record

    def key(self) -> Key:
        """The key, once the round is locked and every file of it is as it was sealed.

        The key is checked against the batch, which was sealed before it was shown; batch and votes against the lock; the
        lock against the record of locks, where there is one, and against the votes it counts.

        Raises:
            DesignError: The round is still open.
            DataError: A file is missing, or not what it was when it was sealed.
        """
        if not self.locked:
            raise DesignError(
                f"{self.folder}: the round is still open; lock it first, the key opens only then"
            )
        self.check()
        record = self.lock_record()
        sealed = {f"votes/{rater}.jsonl": one["sha256"] for rater, one in record["votes"].items()}
        sealed["batch.json"] = record["batch_sha256"]
        if locks := self._locks():
            sealed[LOCK] = locks[-1]["lock_sha256"]
        changed = [name for name, sha256 in sealed.items() if _sha256(self.folder / name) != sha256]
        if changed:
            raise DataError(
                f"{self.folder}: changed after the round was locked: {', '.join(changed)}; restore from a copy"
            )
        self._refuse_strangers()
        if (record["complete"], record["votes"]) != self._counted():
            raise DataError(
                f"{self.folder / 'lock.json'}: counts other votes than there are; restore it from a copy"
            )
        return self._sealed_key()

    def check(self, only: str = "") -> None:
        """Refuses a round of which the study's ledger knows other files; without a ledger there is nothing to compare.

        Args:
            only: One file of it; all by default.

        Raises:
            DataError: Some file is not what it was when it was sealed, or is gone.
        """
        if study := study_folder(self.folder):
            ledger.check(study, f"ratings/{self.folder.name}/{only}")

    def _sealed_key(self) -> Key:
        key = read_key(self.folder, self.batch.key_sha256)
        decoded = {**key.fine_tuned_side, **key.gold}
        if set(decoded) != set(self.batch.pairs) or not set(decoded.values()) <= {"a", "b"}:
            raise DataError(
                f"{self.folder / 'key.json'}: does not decode every pair of the batch; restore batch and key from a copy"
            )
        return key

    def _counted(self) -> tuple[bool, dict[str, dict[str, Any]]]:
        """Whether every rater finished, and each one's number of votes with the hash of the file."""
        votes = {
            rater: {
                "votes": len(self.standing(rater)),
                "sha256": _sha256(self.folder / "votes" / f"{rater}.jsonl"),
            }
            for rater in self.batch.raters
        }
        return all(one.done >= one.total for one in self.progress()), votes

    def _locks(self) -> list[dict[str, Any]]:
        """Every lock this round was given, oldest first; none for a round locked before they were kept."""
        path, found = self.folder / LOCKS, []
        for number, _, line in lines(path):
            try:
                found.append(from_json(line))
            except ValueError as why:
                raise DataError(f"{path}:{number}: {why}; restore the file from a copy") from why
            if said := misfit(found[-1], {"locked_at": str, "lock_sha256": str}):
                raise DataError(f"{path}:{number}: {said}; restore the file from a copy")
        return found

    def _refuse_strangers(self) -> None:
        found = {path.stem for path in (self.folder / "votes").glob("*.jsonl")}
        if strangers := sorted(found - set(self.batch.raters)):
            raise DataError(
                f"{self.folder / 'votes' / strangers[0]}.jsonl: votes of nobody on this round's list; move the file away"
            )

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
        complete, votes = self._counted()
        n_votes = sum(one["votes"] for one in votes.values())
        if not n_votes and any(self.batch.orders.values()):
            raise DesignError(f"{self.folder}: nobody has voted yet; there is nothing to lock")
        if not complete and not unfinished:
            behind = [one for one in self.progress() if one.done < one.total]
            total = sum(map(len, self.batch.orders.values()))
            who = ", ".join(f"{one.rater} {one.done} of {one.total}" for one in behind)
            raise DesignError(
                f"{self.folder}: {n_votes} of {total} votes are in ({who}); wait, or close it anyway: --unfinished"
            )
        record = {
            "kind": "evalkit-lock",
            "version": 1,
            "locked_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "batch_sha256": _sha256(self.folder / "batch.json"),
            "key_sha256": self.batch.key_sha256,
            "votes": votes,
            "complete": complete,
        }
        if before := [one["locked_at"] for one in self._locks()]:
            record["locked_before"] = before
        text = json.dumps(record, indent=1).encode() + b"\n"
        about = {
            "locked_at": record["locked_at"],
            "lock_sha256": hashlib.sha256(text).hexdigest(),
        }
        names = ("batch.json", "key.json", *(f"votes/{rater}.jsonl" for rater in votes))
        sealed = {self.folder / name: _sha256(self.folder / name) for name in names}
        sealed[self.folder / LOCK] = about["lock_sha256"]
        known = {"round": self.folder.name, "simulated": self.batch.simulated}
        with ledger.sealing(study_folder(self.folder), "round locked", known, sealed):
            append_line(self.folder / LOCKS, json.dumps(about).encode())  # a lock never lacks it
            write_whole(self.folder / LOCK, text)


def _refuse_no_time(at: str, path: Path) -> None:
    try:
        datetime.fromisoformat(at)
    except (TypeError, ValueError):
        raise DataError(
            f"{path}: says it was locked at {at!r}, need a time such as 2026-11-24T12:00:00Z; restore it from a copy"
        ) from None


def locked_before(record: Mapping[str, Any]) -> str:
    """What a lock tells of an earlier one that was removed; "" when there was none."""
    times = record.get("locked_before", ())
    return (
        f" It had been locked before ({wording.listed(list(times))}) and was opened again by removing that lock: "
        "votes may have been given after results were seen."
        if times
        else ""
    )


def round_folder(study: Study, name: str) -> Path:
    """Where a round of this name lives."""
    return study.folder / "ratings" / checked_name(name, what="rating_round")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
