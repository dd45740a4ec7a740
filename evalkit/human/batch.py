"""A blind batch: which pairs people see, on which side, in which order; what decodes it goes into a sealed key."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Literal, overload

from evalkit import files, ledger, wording
from evalkit.conversation import Messages, conversation_text, without_instructions
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, Record
from evalkit.records import Brief, EvalResult, answers_hash
from evalkit.study import checked_name

Side = Literal["a", "b"]
Matched = tuple[EvalResult, EvalResult]
OTHER: Mapping[Side, Side] = {"a": "b", "b": "a"}
VERSION = 1
RESTORE = "restore it or start a new round"
QUESTION = "Which answer is better?"
REASONS = (
    "tone",
    "helpfulness",
    "factual correctness in context",
    "addresses the user's intent",
    "hallucination",
)
_NOTHING: Mapping[str, str] = MappingProxyType({})
_GAP = 10  # pairs between an item and its repeat, where the round is long enough


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Pair(Brief, Mapping[str, object]):
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
    messages: Messages = field(default_factory=list)

    @property
    def prompt(self) -> Messages:
        """The messages to show; the input alone where they are not kept."""
        return self.messages or [{"role": "user", "content": self.input}]

    def __getitem__(self, name: str) -> object:
        if name not in self.__slots__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__slots__)

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
        return _as_json("evalkit-key", asdict(self))


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
    def pairs(self) -> Mapping[str, Pair]:
        """Every pair a rater may see, by item id."""
        return {pair.item_id: pair for pair in (*self.items, *self.repeats, *self.gold)}

    def made_from(self, bound_to: Mapping[str, str]) -> bool:
        """Whether it was drawn from the answers of these hashes, and from this test set as far as both name one.

        A batch made from results alone names no test set. Rounds of earlier versions are bound to all that the journals held.
        """
        answers = {answers_seal(bound_to), answers_seal(bound_to, of="_journal")}
        tests = {one["test_set"] for one in (self.bound_to, bound_to) if one.get("test_set")}
        return self.bound_to.get("answers") in answers and len(tests) < 2

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
        with files.alone(folder):  # else two runs leave the batch of one and the key of the other
            if (folder / "batch.json").exists():
                raise DesignError(f"{folder}: holds a batch already; name a new round")
            shown = {name: value for name, value in asdict(self).items() if name != "key"}
            key, text = self.key.to_bytes(), _as_json("evalkit-batch", shown)
            sealed = {folder / "key.json": sha256(key), folder / "batch.json": sha256(text)}
            about = {"round": folder.name, "simulated": self.simulated}
            with ledger.sealing(study_folder(folder), "round drawn", about, sealed):
                files.write_whole(folder / "key.json", key, mode=0o600)
                return files.write_whole(folder / "batch.json", text)


def prepare_human_eval_batch(
    base_results: Sequence[EvalResult],
    ft_results: Sequence[EvalResult],
    sample_size: int = 50,
    *,
    seed: int | None = None,
    raters: Sequence[str] = ("rater1",),
    stratify_by: str | None = None,
    repeat_share: float = 0.1,
    gold: Sequence[Mapping[str, str]] = (),
    question: str = QUESTION,
    rubric: str = "",
    reasons: Sequence[str] = REASONS,
    study: str = "",
    round: str = "",  # noqa: A002 - the word people use for it
    models: Mapping[str, str] = _NOTHING,
    bound_to: Mapping[str, str] = _NOTHING,
    simulated: bool = False,
    folder: str | Path | None = None,
) -> Batch:
    """Draws a blind batch: a seeded sample of examples on which the two models' answers differ.

    Args:
        base_results: The base model's answers; sample 0 of each example is used.
        ft_results: The fine-tuned model's, paired by `example_id`.
        sample_size: Pairs to show; all that differ when there are fewer.
        seed: Decides everything drawn; None draws one. It stands in the key, never in the batch.
        raters: Their codes; nobody else can vote.
        stratify_by: A slice to draw from in proportion.
        repeat_share: Share of the pairs shown once more with sides swapped, 0 to 0.5.
        gold: Pairs with a known winner: mappings with `id`, `input`, `better`, `worse`.
        question: What raters are asked.
        rubric: The study's own guidance, plain text.
        reasons: Tags a rater may add to a vote.
        study: Name, kept in the batch.
        round: Name, kept in the batch.
        models: Names, `{"base": ..., "fine_tuned": ...}`; kept in the key.
        bound_to: Hashes `test_set`, `base`, `fine_tuned`; those of the answers are computed from the results when not given.
        simulated: True when the raters are simulated.
        folder: Where to save the batch and its key at once.

    Raises:
        DataError: Nothing matches, or the same id carries different inputs.
        DesignError: An impossible size, share or rater's code.
    """
    _check(sample_size, repeat_share, raters)
    seed = secrets.randbits(128) if seed is None else seed
    shown, sealed = _stream(seed, "shown"), _stream(seed, "sealed")
    found, left_out = matched(base_results, ft_results)
    asked, identical = _sample(found, sample_size, shown, stratify_by)
    items = _item_ids(len(asked), shown)
    sides = dict(zip(items, _balanced(len(asked), sealed), strict=True))
    pairs = [_pair(one, sides[one], *both) for one, both in zip(items, asked, strict=True)]
    again, repeat_of = _again(pairs, repeat_share, shown)
    gold_ids = _item_ids(len(gold), shown)
    better = dict(zip(gold_ids, _balanced(len(gold), sealed), strict=True))
    known = []
    for item_id, one in zip(gold_ids, gold, strict=True):
        a, b = _on_sides(one["better"], one["worse"], better[item_id])
        who, asked_of = one["id"], one["input"]
        pair = Pair(item_id=item_id, example_id=who, input=asked_of, response_a=a, response_b=b)
        known.append(pair)
    orders = {rater: _order([*items, *gold_ids], repeat_of, shown) for rater in raters}
    sides |= {item_id: OTHER[sides[one]] for item_id, one in repeat_of.items()}
    swapped = {rater: _swaps(items, sides, repeat_of, gold_ids, sealed) for rater in raters}
    hashes = {"base": answers_hash(base_results), "fine_tuned": answers_hash(ft_results)}
    bound = dict(bound_to) or hashes
    key = Key(
        seed=seed,
        fine_tuned_side=sides,
        repeats=repeat_of,
        gold=better,
        models=dict(models),
        bound_to=bound,
    )
    batch = Batch(
        items=tuple(pairs),
        repeats=tuple(again),
        gold=tuple(known),
        identical=identical,
        left_out=left_out,
        raters=tuple(raters),
        orders=orders,
        swapped=swapped,
        question=wording.whole(question),
        rubric=wording.whole(rubric),
        reasons=tuple(wording.whole([*reasons])),
        study=study,
        round=round,
        simulated=simulated,
        created_at=files.utc(),
        bound_to={"test_set": bound.get("test_set", ""), "answers": answers_seal(bound)},
        key_sha256=sha256(key.to_bytes()),
        key=key,
    )
    if folder is not None:
        batch.save(folder)
    return batch


def matched(
    base: Sequence[EvalResult], fine_tuned: Sequence[EvalResult]
) -> tuple[list[Matched], dict[str, int]]:
    """Pairs the first samples by example id; a call that failed has no answer to show and is left out.

    Raises:
        DataError: No id matches, or the same id carries different inputs.
    """
    first, second = first_samples(base), first_samples(fine_tuned)
    both = [(first[who], second[who]) for who in first if who in second]
    if not both:
        raise DataError(
            "no example id stands in both sets of results; were they made from the same test set?"
        )
    for one, other in both:
        said = [without_instructions(side.messages) for side in (one, other) if side.messages]
        if one.input_text != other.input_text or (len(said) == 2 and said[0] != said[1]):
            raise DataError(
                f"example {one.example_id}: the two models got different inputs; use the same test set"
            )
    shown = [pair for pair in both if "error" not in {one.outcome for one in pair}]
    unmatched = len(first) + len(second) - 2 * len(both)
    return shown, {"no answer": len(both) - len(shown), "unmatched": unmatched}


def first_samples(results: Iterable[EvalResult]) -> dict[str, EvalResult]:
    """The first sample of each example, by id."""
    first: dict[str, EvalResult] = {}
    for one in sorted(results, key=lambda one: one.sample):
        first.setdefault(str(one.example_id), one)
    return first


def n_differing(base: Sequence[EvalResult], fine_tuned: Sequence[EvalResult]) -> int:
    """How many examples have two answers that differ, so that people could be shown them."""
    return sum(one.predicted != other.predicted for one, other in matched(base, fine_tuned)[0])


def answers_seal(bound_to: Mapping[str, str], of: str = "") -> str:
    """One hash over both models' answers that does not say which is which."""
    return sha256(f"{bound_to.get(f'base{of}')} {bound_to.get(f'fine_tuned{of}')}".encode())


def study_folder(round_folder: Path) -> Path | None:
    """The folder of the study that a round in `data/<study>/ratings/<round>` belongs to; None for one elsewhere."""
    return round_folder.parents[1] if round_folder.parent.name == "ratings" else None


def read_batch(folder: Path) -> Batch:
    """The batch of a round's folder, without its key.

    Raises:
        DataError: There is none, or it is not readable.
    """
    path = folder / "batch.json"
    batch = read_sealed(path, "evalkit-batch", Batch)
    known, raters = set(batch.pairs), set(batch.raters)
    fits = raters == set(batch.orders) == set(batch.swapped)
    fits &= len(known) == len(batch.items) + len(batch.repeats) + len(batch.gold)
    fits &= all(sorted(ids) == sorted(known) for ids in batch.orders.values())
    if not fits or any(set(ids) - known for ids in batch.swapped.values()):
        said = "its pairs, and its raters with what each is shown, do not fit each other"
        raise DataError(f"{path}: {said}; {RESTORE}")
    return batch


def read_key(folder: Path, batch: Batch) -> Key:
    """The key of a round's folder, when its hash is the one the batch carries.

    Raises:
        DataError: It is missing, unreadable, or not the key this batch was sealed with.
    """
    path = folder / "key.json"
    key = read_sealed(path, "evalkit-key", Key)
    decodes = {*key.fine_tuned_side, *key.gold} == set(batch.pairs)
    if not decodes or sha256(path.read_bytes()) != batch.key_sha256:
        raise DataError(f"{path}: not the key that the batch was sealed with; restore both")
    return key


def read_sealed(path: Path, kind: str, shape: type[Record]) -> Record:
    """A file of a round as the record that was written there, checked, without its kind and version.

    Raises:
        DataError: It is missing, half, of another kind or version, or a value is not what it should be.
    """
    if not path.exists():
        raise DataError(
            f"{path}: no such file; prepare the round first (notebook 03_rate), or bring the file from the machine that drew "
            "the round: git ignores a key until it is added"
        )
    found = wording.whole(files.read_json(path, said="not readable", remedy=RESTORE))
    said = f"{path}: not readable"
    content = files.as_record(found, JsonObject, said, RESTORE)
    held = f"{content.pop('kind', None)} version {content.pop('version', None)}"
    if held != (needed := f"{kind} version {VERSION}"):
        raise DataError(f"{path}: holds {held}; need {needed}; {RESTORE}")
    if strange := sorted(content.keys() - shape.__annotations__.keys()):
        raise DataError(f"{said} (an unknown {strange[0]!r} stands in it); {RESTORE}")
    return files.as_record(content, shape, said, RESTORE)


def _as_json(kind: str, values: JsonObject) -> bytes:
    try:
        return files.to_json({"kind": kind, "version": VERSION, **values})
    except (TypeError, ValueError) as why:
        raise DataError(
            f"{kind}: cannot be written ({why}); need texts as inputs, answers and slices"
        ) from why


def sha256(content: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def read_rubric(path: Path | None) -> JsonObject:
    """A study's own `question`, `rubric` and `reasons`, from one text file.

    The question is the first line, when it starts with "#"; the reasons are the list under a heading "Reasons", each
    item's text up to a colon. What a file does not say keeps its default.

    Raises:
        DataError: No such file, or no text in UTF-8.
    """
    if path is None:
        return {}
    remedy = "write it as plain text, or leave rubric_file empty"
    text = files.read_text(path, said="cannot read the rubric", remedy=remedy).strip()
    first, _, rest = text.partition("\n")
    said: JsonObject = {"rubric": text}
    if first.startswith("#"):
        said = {"question": first.lstrip("# "), "rubric": rest.strip()}
    part = re.search(
        r"^#+ *reasons *\n(.*?)(?=^#|\Z)", text, re.IGNORECASE | re.MULTILINE | re.DOTALL
    )
    reasons = re.findall(r"^[-*] *([^:\n]+)", part[1], re.MULTILINE) if part else []
    if reasons:
        said["reasons"] = [one.strip().replace("_", " ") for one in reasons]
    return said


def read_gold(path: Path) -> list[dict[str, str]]:
    """Pairs with a known winner, one JSON object a line.

    Raises:
        DataError: A line is not such a pair.
    """
    pairs = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                pair = files.from_json(line)
                pairs.append({name: str(pair[name]) for name in ("id", "input", "better", "worse")})
            except (ValueError, KeyError, TypeError) as why:
                raise DataError(
                    f"{path}:{number}: not a gold pair ({why}); need id, input, better and worse"
                ) from why
    return pairs


# ---- what chance decides: which examples, which side, which order


def _check(sample_size: int, repeat_share: float, raters: Sequence[str]) -> None:
    if sample_size < 1 or sample_size % 1:
        raise DesignError(f"sample_size {sample_size}: give a whole number of pairs, at least 1")
    if not 0 <= repeat_share <= 0.5:
        raise DesignError(f"repeat_share {repeat_share}: give a share from 0 to 0.5")
    if isinstance(raters, str) or not raters or len(set(raters)) < len(raters):
        raise DesignError(f"raters {raters!r}: give a list of codes, at least one, each once")
    for rater in raters:
        checked_name(rater, what="rater")


def _stream(seed: int, what: str) -> Random:
    """A generator whose draws tell nothing of another's: a few hundred item ids give away the state that drew them."""
    return Random(sha256(f"evalkit rating {what} {seed}".encode()))


def _item_ids(n: int, rng: Random) -> list[str]:
    return [f"{rng.getrandbits(48):012x}" for _ in range(n)]


def _sample(
    pairs: Sequence[Matched], size: int, rng: Random, stratify_by: str | None
) -> tuple[list[Matched], tuple[str, ...]]:
    """Walks through the examples in random order until `size` pairs differ; identical answers met on the way are ties."""
    asked: list[Matched] = []
    identical: list[str] = []
    for one, other in _shuffled(pairs, rng, stratify_by):
        if len(asked) == size:
            break
        if one.predicted == other.predicted:
            identical.append(str(one.example_id))
        else:
            asked.append((one, other))
    return asked, tuple(identical)


def _shuffled(pairs: Sequence[Matched], rng: Random, stratify_by: str | None) -> list[Matched]:
    known = {name: None for pair in pairs for name in pair[0].slices}
    if stratify_by is not None and stratify_by not in known and pairs:
        raise DesignError(
            f"no example carries a slice {stratify_by!r} to stratify by; known are {', '.join(known) or 'none'}"
        )
    strata: dict[str, list[Matched]] = defaultdict(list)
    for pair in pairs:
        strata["" if stratify_by is None else str(pair[0].slices.get(stratify_by, ""))].append(pair)
    placed = []
    for name in sorted(strata):
        stratum = rng.sample(strata[name], len(strata[name]))
        # evenly spread places: any first part of the whole holds each stratum in proportion
        placed += [((i + rng.random()) / len(stratum), pair) for i, pair in enumerate(stratum)]
    return [pair for _, pair in sorted(placed, key=lambda one: one[0])]


def _balanced(n: int, rng: Random) -> list[Side]:
    """`n` sides, each equally often (one more of either when n is odd), in random order."""
    both: tuple[Side, Side] = ("a", "b")
    sides: list[Side] = [*both * (n // 2), *rng.sample(both, n % 2)]
    rng.shuffle(sides)
    return sides


def _order(item_ids: Sequence[str], repeat_of: Mapping[str, str], rng: Random) -> tuple[str, ...]:
    """A random order in which a repeat stands well after the item it repeats."""
    shown = rng.sample(item_ids, len(item_ids))
    for again, first in repeat_of.items():
        earliest = min(shown.index(first) + 1 + _GAP, len(shown))
        shown.insert(rng.randint(earliest, len(shown)), again)
    return tuple(shown)


def _swaps(
    item_ids: Sequence[str],
    sides: Mapping[str, Side],
    repeat_of: Mapping[str, str],
    gold: Sequence[str],
    rng: Random,
) -> tuple[str, ...]:
    """The items one rater sees with `response_b` on the left.

    The fine-tuned answer stands on the left equally often (+-1) among the items, and among all shown: the items that
    are repeated are balanced among themselves, so their repeats, which show the other side, are too.
    """
    repeated = set(repeat_of.values())
    again = [one for one in item_ids if one in repeated]
    once = [one for one in item_ids if one not in repeated]
    lefts_again, lefts_once = _balanced(len(again), rng), _balanced(len(once), rng)
    lean = [lefts.count("a") - lefts.count("b") for lefts in (lefts_again, lefts_once)]
    if lean[0] and lean[0] == lean[1]:  # both are odd, and their ones too many would add up
        lefts_once = [OTHER[side] for side in lefts_once]
    lefts = zip([*again, *once], [*lefts_again, *lefts_once], strict=True)
    turned = {one for one, left in lefts if left != sides[one]}  # a: fine-tuned stands left
    turned |= {repeat for repeat, first in repeat_of.items() if first in turned}
    turned |= {
        one for one, side in zip(gold, _balanced(len(gold), rng), strict=True) if side == "b"
    }
    return tuple(one for one in (*item_ids, *repeat_of, *gold) if one in turned)


def _pair(item_id: str, side: Side, base: EvalResult, fine_tuned: EvalResult) -> Pair:
    """A pair as shown; system prompts that differ would tell who answered, and are left out."""
    known = base.messages or fine_tuned.messages
    differ = bool(base.messages and fine_tuned.messages) and base.messages != fine_tuned.messages
    messages = [dict(one) for one in (without_instructions(known) if differ else known)]
    a, b = _on_sides(fine_tuned.predicted, base.predicted, side)
    return Pair(
        item_id=item_id,
        example_id=str(base.example_id),
        input=conversation_text(messages or base.prompt),
        slices=dict(base.slices),
        messages=messages,
        response_a=a,
        response_b=b,
    )


def _again(pairs: Sequence[Pair], share: float, rng: Random) -> tuple[list[Pair], dict[str, str]]:
    """Some pairs once more with their sides swapped, and which item each of them repeats."""
    first = rng.sample(pairs, round(share * len(pairs)))
    ids = _item_ids(len(first), rng)
    again = [
        replace(one, item_id=item_id, response_a=one.response_b, response_b=one.response_a)
        for item_id, one in zip(ids, first, strict=True)
    ]
    return again, dict(zip(ids, (one.item_id for one in first), strict=True))


def _on_sides(first: str, other: str, side: Side) -> tuple[str, str]:
    """Both answers, the first one where its side is a."""
    return (first, other) if side == "a" else (other, first)
