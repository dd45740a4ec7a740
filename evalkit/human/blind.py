"""The records of a blind batch and their files: pairs without a trace of the model, and the sealed key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, overload

from evalkit import ledger, wording
from evalkit.errors import DataError, DesignError
from evalkit.files import alone, read_json, write_whole
from evalkit.human.shape import ANY_NAME, misfit
from evalkit.records import Brief

Side = Literal["a", "b"]
VERSION = 1
RESTORE = "restore it or start a new round"
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Pair(Brief, Mapping[str, Any]):
    """One input with two answers, readable by attribute or as a mapping.

    Attributes:
        item_id: What a vote names; says nothing about the pair.
        input: The conversation as plain text; of a single user message, what it says.
        response_a: One of the two answers; only the key knows whose.
        slices: Named values by which the result may be cut; never shown to raters.
        messages: The conversation as it was sent; empty in rounds drawn before it was kept, and of gold pairs.
    """

    item_id: str
    example_id: str
    input: str
    response_a: str
    response_b: str
    slices: Mapping[str, str] = field(default_factory=dict)
    messages: Sequence[Mapping[str, Any]] = field(default_factory=list)

    @property
    def prompt(self) -> Sequence[Mapping[str, Any]]:
        """The messages to show; the input alone where they are not kept."""
        return self.messages or [{"role": "user", "content": self.input}]

    def __getitem__(self, name: str) -> Any:
        if name not in self.__slots__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return (one.name for one in fields(self))

    def __len__(self) -> int:
        return len(fields(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What decodes a batch; a file of its own that opens only when the round is locked.

    Attributes:
        seed: Everything drawn follows from it, so it stands here and never in the batch.
        fine_tuned_side: The fine-tuned model's side in the batch, by item, repeats included.
        repeats: Item shown a second time -> the item it repeats.
        gold: The better side of each pair whose winner is known beforehand.
        bound_to: Hashes of the test set and of both models' answers.
    """

    seed: int
    fine_tuned_side: Mapping[str, Side]
    repeats: Mapping[str, str]
    gold: Mapping[str, Side]
    models: Mapping[str, str]
    bound_to: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """The key's file; its sha256 stands in the batch."""
        return _as_json("evalkit-key", self, ())


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Batch(Brief, Sequence[Pair]):
    """The pairs of one round; as a sequence, the article's list.

    Attributes:
        items: The sampled pairs, each once.
        repeats: Some of them again with sides swapped, to see whether raters agree with themselves.
        gold: Pairs whose winner is known.
        identical: Examples with the same answer from both models: ties, never asked.
        left_out: Why examples could not be drawn, e.g. `{"no answer": 2, "unmatched": 0}`.
        orders: Rater -> item ids in the order shown.
        swapped: Rater -> the items shown with `response_b` on the left.
        bound_to: `test_set` and `answers`, hashes of what the batch was made from.
        key_sha256: Hash of the key's file.
        key: Only in the memory of whoever made the batch; None when read from a file.
    """

    items: tuple[Pair, ...]
    repeats: tuple[Pair, ...]
    gold: tuple[Pair, ...]
    identical: tuple[str, ...]
    left_out: Mapping[str, int]
    raters: tuple[str, ...]
    orders: Mapping[str, tuple[str, ...]]
    swapped: Mapping[str, tuple[str, ...]]
    question: str
    rubric: str
    reasons: tuple[str, ...]
    study: str
    round: str
    simulated: bool
    created_at: str
    bound_to: Mapping[str, str]
    key_sha256: str
    key: Key | None = field(default=None, repr=False, compare=False)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Pair, ...]: ...
    def __getitem__(self, index: int | slice) -> Pair | tuple[Pair, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def advice(self) -> str:
        """What this many pairs can show, from the exact sign test's power."""
        from evalkit import stats

        shown = stats.sign_test_power(len(self), 0.6)
        needed = {rate: stats.ratings_needed(rate) for rate in (0.6, 0.65, 0.7)}
        return (
            f"{wording.plural(len(self), 'pair')} without ties can show a true win rate of 60% "
            f"with probability {wording.percent(shown, 0)}; "
            f"80% would need {needed[0.6]} pairs at 60%, {needed[0.65]} at 65%, {needed[0.7]} at 70%."
        )

    @property
    def pairs(self) -> Mapping[str, Pair]:
        """Every pair a rater may see, by item id."""
        return {pair.item_id: pair for pair in (*self.items, *self.repeats, *self.gold)}

    def save(self, folder: str | Path) -> Path:
        """Writes batch.json and key.json (readable by its owner only) into a new round's folder.

        Raises:
            DesignError: The folder holds a batch already, or the key is not at hand.
        """
        folder = Path(folder)
        if self.key is None:
            raise DesignError(
                "only a batch fresh from prepare_human_eval_batch can be saved; this one was read from a file"
            )
        (folder / "votes").mkdir(parents=True, exist_ok=True)
        with alone(folder):  # else two runs leave the batch of one and the key of the other
            if (folder / "batch.json").exists():
                raise DesignError(f"{folder}: holds a batch already; name a new round")
            key, text = self.key.to_bytes(), _as_json("evalkit-batch", self, ("key",))
            sealed = {folder / "key.json": key, folder / "batch.json": text}
            hashes = {one: hashlib.sha256(made).hexdigest() for one, made in sealed.items()}
            about = {"round": folder.name, "simulated": self.simulated}
            with ledger.sealing(study_folder(folder), "round drawn", about, hashes):
                write_whole(folder / "key.json", key, mode=0o600)
                return write_whole(folder / "batch.json", text)


def study_folder(round_folder: Path) -> Path | None:
    """The folder of the study that a round in `data/<study>/ratings/<round>` belongs to; None for one elsewhere."""
    return round_folder.parents[1] if round_folder.parent.name == "ratings" else None


_PAIR = dict.fromkeys(("item_id", "example_id", "input", "response_a", "response_b"), str)
_BATCH = {
    **{name: [_PAIR | {"slices": {ANY_NAME: str}}] for name in ("items", "repeats", "gold")},
    **{name: [str] for name in ("identical", "raters", "reasons")},
    **{name: {ANY_NAME: [str]} for name in ("orders", "swapped")},
    **dict.fromkeys(("question", "rubric", "study", "round", "created_at", "key_sha256"), str),
    "left_out": {ANY_NAME: int},
    "simulated": bool,
    "bound_to": {ANY_NAME: str},
}
_KEY = {
    "seed": int,
    **{
        name: {ANY_NAME: str}
        for name in ("fine_tuned_side", "repeats", "gold", "models", "bound_to")
    },
}


def read_batch(folder: Path) -> Batch:
    """The batch of a round's folder, without its key.

    Raises:
        DataError: There is none, or it is not readable.
    """
    path = folder / "batch.json"
    record = read_record(path, "evalkit-batch", _BATCH)
    try:
        for name in ("items", "repeats", "gold"):
            record[name] = tuple(Pair(**one) for one in record[name])
        for name in ("identical", "raters", "reasons"):
            record[name] = tuple(record[name])
        for name in ("orders", "swapped"):
            record[name] = {rater: tuple(ids) for rater, ids in record[name].items()}
        batch = Batch(**record)
    except TypeError as why:
        raise DataError(f"{path}: not a batch ({why}); {RESTORE}") from why
    if said := _contradiction(batch):
        raise DataError(f"{path}: {said}; {RESTORE}")
    return batch


def _contradiction(batch: Batch) -> str:
    raters, known = set(batch.raters), set(batch.pairs)
    if set(batch.orders) != raters or set(batch.swapped) != raters:
        return "its raters are not those it has orders for"
    if len(known) < len(batch.items) + len(batch.repeats) + len(batch.gold):
        return "an item stands in it twice"
    odd = [who for who, ids in batch.orders.items() if sorted(ids) != sorted(known)]
    odd += [who for who, ids in batch.swapped.items() if not set(ids) <= known]
    return f"rater {odd[0]!r} is shown other pairs than it holds" if odd else ""


def read_key(folder: Path, sha256: str) -> Key:
    """The key of a round's folder, when its hash is the one the batch carries.

    Raises:
        DataError: It is missing, unreadable, or not the key this batch was sealed with.
    """
    path = folder / "key.json"
    if not path.exists():
        raise DataError(
            f"{path}: no such file; bring it from the machine that drew the round, as git ignores it until it is added"
        )
    record = read_record(path, "evalkit-key", _KEY)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path}: sha256 is {found[:12]}..., the batch was sealed with {sha256[:12]}...; restore the key"
        )
    try:
        return Key(**record)
    except TypeError as why:
        raise DataError(f"{path}: not a key ({why}); restore the key") from why


def _as_json(kind: str, record: Any, without: tuple[str, ...]) -> bytes:
    values = {
        one.name: getattr(record, one.name) for one in fields(record) if one.name not in without
    }
    text = json.dumps(
        {"kind": kind, "version": VERSION, **values}, indent=1, ensure_ascii=True, default=dict
    )
    return text.encode() + b"\n"


def read_record(path: Path, kind: str, shape: Mapping[str, object]) -> dict[str, Any]:
    """A file of a round, checked and without its kind and version.

    Raises:
        DataError: It is missing, half, of another kind or version, or a value is not what it should be.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file; prepare the round first (notebook 03_rate)")
    record = read_json(path, said="not readable", remedy=RESTORE)
    if said := misfit(record, {"kind": str, "version": int}):
        raise DataError(f"{path}: not readable ({said}); {RESTORE}")
    found = (record.pop("kind"), record.pop("version"))
    if found != (kind, VERSION):
        raise DataError(
            f"{path}: holds {found[0]} version {found[1]}; need {kind} version {VERSION}"
        )
    if said := misfit(record, shape):
        raise DataError(f"{path}: {said}; {RESTORE}")
    return record
