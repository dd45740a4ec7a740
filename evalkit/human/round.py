"""One rating round on disk: the batch, its raters' votes, and the lock that lets the key open.

Each file is sealed by what was written before or with it: the key by the hash in the batch, the sides of a vote by the batch,
batch and votes by the lock, the lock by a line in `locks.jsonl`, which also tells of a lock that somebody removed. In a study
its ledger knows all of them, so that those who rewrite them together are found out too.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict, get_args

import msgspec

from evalkit import files, ledger, wording
from evalkit.errors import DataError, DesignError, need_one_of
from evalkit.files import JsonObject, LineFile, kept_quiet
from evalkit.human import batch as batches
from evalkit.human.batch import Batch, Key, Side, sha256, study_folder
from evalkit.records import Brief, EvalResult
from evalkit.study import Study, checked_name, named

if TYPE_CHECKING:
    import pandas as pd

Choice = Literal["left", "right", "tie", "both_bad"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
LOCK, LOCKS = "lock.json", "locks.jsonl"
NotDrawn = Literal["unanswered", "nobody named"]
NOT_DRAWN: Mapping[NotDrawn, str] = {
    "unanswered": "No round was drawn: its votes would be on answers that change when the rest comes in. "
    "Have them answered first (notebook 01 with live: true asks only what is missing), or set allow_incomplete: true in "
    "study.yaml to have these rated as they are.",
    "nobody named": "No round was drawn: nobody is named to rate. Name the raters in study.yaml (codes, such as "
    "raters: anna,ben) with the sample_size and the rubric you want, then run notebook 03: a round is drawn once.",
}


class _Line(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True
):
    """A line of a rater's file, a vote or one that takes a vote back."""

    item_id: str
    at: str


class Vote(_Line, frozen=True, kw_only=True, tag="vote"):
    """One judgement of one pair.

    Attributes:
        choice: Where the better answer stood on the screen (left = shown as A), tie or both_bad.
        left: The side of the batch (a or b) that stood on the left.
        seconds: From the pair's appearance to the vote.
        via: click, key or simulated.
        at: UTC time, ISO 8601.
    """

    choice: Choice
    left: Side
    seconds: float
    reasons: tuple[str, ...] = ()
    note: str = ""
    via: str = ""
    simulated: bool = False

    def __post_init__(self) -> None:
        if not isfinite(self.seconds):
            raise DesignError(f"seconds is {self.seconds}; need a number")


class _Undo(_Line, frozen=True, kw_only=True, tag="undo"):
    """The vote given last is taken back."""


class VoteFile:
    """One rater's append-only file. Safe with several writers at once, a kill at any moment, a torn tail and a full disk.

    Each append takes a lock, reads what others wrote since, writes one line and syncs it; when that fails, nothing of
    the line stays in the file and the caller is told.
    """

    def __init__(self, path: Path, *, refuse: Callable[[], None] = lambda: None) -> None:
        """`refuse` is called under the lock before each write and raises when votes are no longer taken."""
        self.path, self.repaired, self._refuse = path, 0, refuse

    def standing(self) -> Mapping[str, Vote]:
        """The votes that count, in the order given: the last one of each item, without those undone."""
        with self._opened() as (_, standing):
            return standing

    def append(self, vote: Vote) -> bool:
        """Stores a vote; True when it replaces one that another page of the same rater stored meanwhile.

        Raises:
            DataError: The file cannot be written; the vote is not stored.
        """
        with self._opened() as (file, standing):
            self._refuse()
            file.append(msgspec.json.encode(vote), sync=True)
            return vote.item_id in standing

    def undo(self, at: str) -> Vote | None:
        """Takes back the vote given last, by a line of its own; None when there is none."""
        with self._opened() as (file, standing):
            self._refuse()
            last = next(reversed(standing.values()), None)
            if last:
                undone = _Undo(item_id=last.item_id, at=at)
                file.append(msgspec.json.encode(undone), sync=True)
            return last

    @contextmanager
    def _opened(self) -> Iterator[tuple[LineFile, dict[str, Vote]]]:
        """The file, locked, and the votes in it that count; a torn line was never confirmed to anybody."""
        try:
            with LineFile(self.path, told=kept_quiet) as file:  # the rater is told on the page
                self.repaired += bool(file.n_removed)
                yield file, read_standing(self.path)
        except DataError as why:
            if not isinstance(cause := why.__cause__, OSError):
                raise
            raise DataError(
                f"{self.path}: cannot be written ({cause.strerror}); make room and the folder writable, then vote again"
            ) from why


def read_standing(path: Path) -> dict[str, Vote]:
    """The votes of a file that count, read without touching it; an unfinished last line counts for nothing."""
    standing: dict[str, Vote] = {}
    for number, _, line in files.lines(path, told=kept_quiet):  # its rater is told on the page
        try:
            found = msgspec.convert(wording.whole(files.from_json(line)), Vote | _Undo)
        except ValueError as why:
            where = f"{path}:{number}"
            raise DataError(f"{where}: not a vote ({why}); restore the file from a copy") from why
        standing.pop(found.item_id, None)
        if isinstance(found, Vote):
            standing[found.item_id] = found
    return standing


class Sealed(TypedDict):
    """What a lock says of one rater's file."""

    votes: int
    sha256: str


class Lock(TypedDict):
    """A lock's record: when, the hashes of batch, key and each rater's votes, whether all were done.

    `locked_before` tells when it was locked before, if somebody removed that lock.
    """

    locked_at: str
    batch_sha256: str
    key_sha256: str
    votes: dict[str, Sealed]
    complete: bool
    locked_before: NotRequired[list[str]]


class _Times(msgspec.Struct):
    """Of a lock, what must be times."""

    locked_at: datetime
    locked_before: list[datetime] = []


class _Kept(TypedDict):
    """A line of the record of locks."""

    locked_at: str
    lock_sha256: str


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
        return cls(folder=Path(folder), batch=batches.read_batch(Path(folder)))

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
                f"rater {rater!r} is not on this round's list; give your code, or ask whoever set up the round for a link"
            )

        def refuse_when_locked() -> None:
            if self.locked:
                raise DesignError("this round is closed; the vote was not stored")

        return VoteFile(self.folder / "votes" / f"{rater}.jsonl", refuse=refuse_when_locked)

    def standing(self, rater: str) -> tuple[Vote, ...]:
        """The votes of one rater that count, read without touching the file.

        Raises:
            DataError: The file is damaged, or holds a vote that does not fit the batch: on a pair that is not of it, or
                with the sides otherwise than it has them for this rater.
        """
        path, swapped = self.votes(rater).path, self.batch.swapped[rater]
        sides = {one: "b" if one in swapped else "a" for one in self.batch.orders[rater]}
        votes = tuple(read_standing(path).values())
        for vote in votes:
            if sides.get(vote.item_id) != vote.left:
                raise DataError(
                    f"{path}: the vote on {vote.item_id!r} is of another round, or its answers stood on other sides than "
                    f"the batch showed {rater}; restore the file from a copy"
                )
        return votes

    def progress(self) -> tuple[Progress, ...]:
        """How far every rater is."""
        found = []
        for rater in self.batch.raters:
            times = [vote.at for vote in self.standing(rater)]
            total, last_at = len(self.batch.orders[rater]), max(times, default=None)
            found += [Progress(rater=rater, done=len(times), total=total, last_at=last_at)]
        return tuple(found)

    def lock(self, *, unfinished: bool = False) -> Lock:
        """Closes the round for good; locking it twice changes nothing.

        Args:
            unfinished: Close it even though raters have not finished.

        Raises:
            DataError: The key is missing or not the one the batch was sealed with, or another file does not fit.
            DesignError: Nobody has voted yet, or somebody has not finished.
        """
        if self.locked:
            return self.lock_record()
        self.check("batch.json")
        batches.read_key(self.folder, self.batch)
        self._refuse_strangers()
        with ExitStack() as stack:
            for rater in self.batch.raters:  # no vote can slip in between the hash and the lock
                stack.enter_context(LineFile(self.votes(rater).path, told=kept_quiet))
            if not self.locked:
                self._write_lock(unfinished=unfinished)
        return self.lock_record()

    def lock_record(self) -> Lock:
        """What stood when the round was locked; the files it speaks of are checked by `key`.

        Raises:
            DataError: It is not whole.
        """
        path = self.folder / LOCK
        record = batches.read_sealed(path, "evalkit-lock", Lock)
        files.as_record(record, _Times, f"{path}: not readable", batches.RESTORE)
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
        self._refuse_strangers()
        (behind, votes), record, locks = self._counted(), self.lock_record(), self._locks()
        raters, is_last = votes.keys() | record["votes"].keys(), True
        if locks:
            is_last = locks[-1]["lock_sha256"] == self._sha256(LOCK)
        fits = {
            "batch.json": record["batch_sha256"] == self._sha256("batch.json"),
            "key.json": record["key_sha256"] == self.batch.key_sha256,
            LOCK: is_last and record["complete"] is (not behind),
            **{f"votes/{one}.jsonl": record["votes"].get(one) == votes.get(one) for one in raters},
        }
        if changed := sorted(name for name, is_same in fits.items() if not is_same):
            raise DataError(
                f"{self.folder}: changed after the round was locked, or {LOCK} was: {', '.join(changed)}; restore from a copy"
            )
        return batches.read_key(self.folder, self.batch)

    def check(self, only: str = "") -> None:
        """Refuses a round of which the study's ledger knows other files; without a ledger there is nothing to compare.

        Args:
            only: One file of it; all by default.

        Raises:
            DataError: Some file is not what it was when it was sealed, or is gone.
        """
        if study := study_folder(self.folder):
            ledger.check(study, f"ratings/{self.folder.name}/{only}")

    def practice_copy(self) -> Round:
        """The same pairs without votes, to try the rater out, in a folder that goes with the copy, or when Python ends."""
        folder = Path(tempfile.mkdtemp(prefix="evalkit-practice-"))
        for name in ("batch.json", "key.json"):
            shutil.copy(self.folder / name, folder / name)
        copy = Round.open(folder)
        weakref.finalize(copy, shutil.rmtree, folder, ignore_errors=True)
        return copy

    def _counted(self) -> tuple[list[Progress], dict[str, Sealed]]:
        """Who has not finished, and each rater's number of votes with the hash of the file."""
        seen = self.progress()
        votes: dict[str, Sealed] = {
            one.rater: {"votes": one.done, "sha256": self._sha256(f"votes/{one.rater}.jsonl")}
            for one in seen
        }
        return [one for one in seen if one.done < one.total], votes

    def _locks(self) -> list[_Kept]:
        """Every lock this round was given, oldest first; none for a round locked before they were kept."""
        path, found = self.folder / LOCKS, []
        for number, _, line in files.lines(path):
            try:
                found.append(msgspec.convert(files.from_json(line), _Kept))
            except ValueError as why:
                raise DataError(f"{path}:{number}: {why}; restore the file from a copy") from why
        return found

    def _refuse_strangers(self) -> None:
        found = {path.stem for path in (self.folder / "votes").glob("*.jsonl")}
        if strangers := sorted(found - set(self.batch.raters)):
            raise DataError(
                f"{self.folder / 'votes' / strangers[0]}.jsonl: votes of nobody on this round's list; move the file away"
            )

    def _write_lock(self, *, unfinished: bool) -> None:
        behind, votes = self._counted()
        n_votes = sum(one["votes"] for one in votes.values())
        total = sum(map(len, self.batch.orders.values()))
        if total and not n_votes:
            raise DesignError(f"{self.folder}: nobody has voted yet; there is nothing to lock")
        if behind and not unfinished:
            who = ", ".join(f"{one.rater} {one.done} of {one.total}" for one in behind)
            raise DesignError(
                f"{self.folder}: {n_votes} of {total} votes are in ({who}); wait, or close it anyway: --unfinished"
            )
        record: JsonObject = {
            "kind": "evalkit-lock",
            "version": 1,
            "locked_at": files.utc(),
            "batch_sha256": self._sha256("batch.json"),
            "key_sha256": self.batch.key_sha256,
            "votes": votes,
            "complete": not behind,
        }
        if before := [one["locked_at"] for one in self._locks()]:
            record["locked_before"] = before
        text = files.to_json(record)
        kept = {"locked_at": record["locked_at"], "lock_sha256": sha256(text)}
        names = ("batch.json", "key.json", *(f"votes/{rater}.jsonl" for rater in votes))
        sealed = {self.folder / name: self._sha256(name) for name in names}
        sealed[self.folder / LOCK] = kept["lock_sha256"]
        about = {"round": self.folder.name, "simulated": self.batch.simulated}
        with ledger.sealing(study_folder(self.folder), "round locked", about, sealed):
            files.append_line(self.folder / LOCKS, files.to_line(kept))  # a lock never lacks it
            files.write_whole(self.folder / LOCK, text)

    def _sha256(self, name: str) -> str:
        path = self.folder / name
        return sha256(path.read_bytes()) if path.exists() else ""


def locked_before(record: Lock) -> str:
    """What a lock tells of an earlier one that was removed; "" when there was none."""
    times = [f"{wording.minute(at)} UTC" for at in record.get("locked_before", ())]
    return (
        f" It had been locked before ({wording.listed(times)}) and was opened again by removing that lock: "
        "votes may have been given after results were seen."
        if times
        else ""
    )


def round_folder(study: Study, name: str) -> Path:
    """Where a round of this name lives."""
    return study.folder / "ratings" / checked_name(name, what="rating_round")


# ---- the round a study has: drawn when it is not there yet, found again by what it was made from


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StudyRound(Brief):
    """The round a study has, or none yet, and the answers it would have rated.

    Attributes:
        round: None when it was not drawn: answers are missing, or nobody is named to rate.
        bound_to: Hashes of the study's present test set and answers.
        otherwise: Settings that the study now has otherwise than the round it drew before, which stays as it is.
        not_drawn: Why there is no round: answers are "unanswered", or "nobody named" to rate.
    """

    round: Round | None
    bound_to: Mapping[str, str]
    otherwise: tuple[str, ...] = ()
    not_drawn: NotDrawn = "unanswered"

    @property
    def simulated(self) -> bool:
        """Whether its raters are simulated."""
        return self.round is not None and self.round.batch.simulated

    @property
    def current(self) -> bool:
        """Whether it was made from the present answers."""
        return self.round is not None and self.round.batch.made_from(self.bound_to)

    @property
    def n_pairs(self) -> int:
        """Pairs shown to raters; 0 when there is no round."""
        return len(self.round.batch) if self.round else 0

    def progress(self) -> tuple[Progress, ...]:
        """How far every rater is; nobody when there is no round."""
        return self.round.progress() if self.round else ()

    def to_frame(self, by: Literal["rater", "pair"] = "rater") -> pd.DataFrame:
        """How far every rater is, one row each; or the pairs as raters see them, blind.

        Args:
            by: "rater" for rater, done and total (votes, repeats included) and last_at (UTC); "pair" for item_id,
                example_id, input, response_a and response_b, then the slice fields.
        """
        from evalkit.human import ratings

        need_one_of(("rater", "pair"), "by", by)
        if by == "rater":
            return ratings.typed(self.progress(), ratings.PROGRESS)
        return ratings.pairs_frame(self.round.batch.items if self.round else ())

    def lock(self, *, unfinished: bool = False) -> Lock:
        """Closes the round for good; see `Round.lock`.

        Raises:
            DesignError: There is no round, nobody has voted yet, or somebody has not finished.
        """
        if self.round is None:
            raise DesignError(NOT_DRAWN[self.not_drawn])
        return self.round.lock(unfinished=unfinished)


def open_round(
    study: Study,
    base: Sequence[EvalResult],
    fine_tuned: Sequence[EvalResult],
    *,
    bound_to: Mapping[str, str],
    models: Mapping[str, str],
    stratify_by: str = "",
    n_unanswered: int = 0,
) -> StudyRound:
    """The study's round by its settings, made when it is not there yet; an existing one is never touched.

    None is drawn for nobody: who rates is the study's to say. And none from answers that are not complete: it would be bound
    to answers that change when the rest comes in, unless the study says `allow_incomplete`. Simulated raters are taken only
    when no real ones are named; their round has a folder of its own, and without a seed is the same on every machine.

    Args:
        study: Where it lives.
        base: The base model's answers.
        fine_tuned: The fine-tuned model's.
        bound_to: Hashes of what they were made from.
        models: Their names.
        stratify_by: A slice to draw from in proportion, "" for none.
        n_unanswered: Answers of either model that are still missing.

    Raises:
        DesignError: The name belongs to a round of people and simulated raters are asked for.
    """
    said, people = study.settings, round_folder(study, study.settings.rating_round)
    n_simulated = 0 if said.raters.strip() else said.simulate_raters
    if n_simulated and (people / "batch.json").exists():
        raise DesignError(
            f"{people}: a round of people; set simulate_raters to 0 or name another rating_round"
        )
    folder = simulated_folder(study, bound_to) if n_simulated else people
    codes = tuple(f"simulated-{i + 1}" for i in range(n_simulated)) or named(said.raters)
    is_there = (folder / "batch.json").exists()
    if not is_there and (not codes or (n_unanswered and not said.allow_incomplete)):
        why: NotDrawn = "unanswered" if codes else "nobody named"
        return StudyRound(round=None, bound_to=bound_to, not_drawn=why)
    rubric = batches.read_rubric(study.named_file(said.rubric_file))
    if not is_there:
        drawn = int(batches.answers_seal(bound_to)[:12], 16) if n_simulated else None
        try:
            batches.prepare_human_eval_batch(
                base,
                fine_tuned,
                said.sample_size,
                seed=said.rating_seed or drawn,
                raters=codes,
                stratify_by=stratify_by or None,
                repeat_share=said.repeat_share,
                gold=batches.read_gold(study.path(said.gold_file)) if said.gold_file else (),
                study=study.name,
                round=folder.name,
                models=models,
                bound_to=bound_to,
                simulated=n_simulated > 0,
                folder=folder,
                **rubric,
            )
        except DesignError:
            if not (folder / "batch.json").exists():  # else another run has just made it
                raise
    found = Round.open(folder)
    batch, n_pairs = found.batch, min(said.sample_size, batches.n_differing(base, fine_tuned))
    differs = {
        "raters": not batch.simulated and {*batch.raters} != {*(codes or batch.raters)},
        "sample_size": len(batch) != n_pairs,
        "rubric_file": any([*getattr(batch, name)] != [*value] for name, value in rubric.items()),
    }
    otherwise = tuple(name for name, does in differs.items() if does)
    return StudyRound(round=found, bound_to=bound_to, otherwise=otherwise)


def find_round(study: Study, bound_to: Mapping[str, str]) -> Round | None:
    """The round of people of the study's `rating_round`, else the simulated one of these very answers, else None."""
    folders = (round_folder(study, study.settings.rating_round), simulated_folder(study, bound_to))
    return next(
        (Round.open(folder) for folder in folders if (folder / "batch.json").exists()), None
    )


def simulated_folder(study: Study, bound_to: Mapping[str, str]) -> Path:
    """Where simulated raters work: apart from people, and anew for other answers."""
    name = study.settings.rating_round[:40]
    return round_folder(study, f"{name}-simulated-{batches.answers_seal(bound_to)[:8]}")
