"""Is the test set fit to test with? Repeated rows, contradictions, leaks from training, thin slices, size.

And what its rows suggest to declare before the first look: slices, a cluster, a checker; nothing is declared by it.
What was found are kinds and numbers; `show.doctor` says them in words.

Near-duplicates: where all pairs cost little, all are compared. In a larger set, only pairs that share runs of five
characters are: each text keeps the smallest hash of its runs in each of 64 classes, and texts that keep the same one meet.

Source: Broder 1997 (resemblance by the smallest hashes of shingles); Li, Owen & Zhang 2012 (one permutation, in classes).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

from evalkit import conversation as talk
from evalkit import stats
from evalkit.answers import dataset
from evalkit.answers.dataset import Problem
from evalkit.answers.scoring import common_start, icd10cm_format, tool_call
from evalkit.conversation import Messages, attachments, conversation_text
from evalkit.errors import DataError
from evalkit.files import read_record, to_line, write_whole
from evalkit.records import Brief, Example
from evalkit.wording import listed, plural

NEAR = 0.9  # similarity of two inputs from which they are near-duplicates
GRAM = 8  # words in a row that are unlikely to be shared by chance
LEAKED = 0.5  # share of a row's own 8-grams found in training from which it counts as leaked
COMMON = 0.05  # an 8-gram in more rows than this is the prompt's template, not a row's own
FEW_IN_SLICE = 30
FEW, USUAL, MANY = 100, 200, 1000  # below unreliable; 200 to 500 the usual size; mostly cost

MOST_SLICES = 20  # values of a field that is cut by; more make slices of a few rows
LEAST_ROWS = 5  # that a value has on average, so that a slice or a label is a kind, not a row
_LONGEST_LABEL = 40
SCHEMA, ICD = "schema:answer.schema.json", "icd10cm"  # checkers for answers that are JSON, or codes

MEMORY = "near_duplicates.json"  # in reports/<study>: a run need not look for them again
RUN = 5  # characters
N_CLASSES = 64
N_NEIGHBOURS = 8  # texts that a text meets for each hash it keeps: a template that all share makes no n * n pairs
LEAST_SHARED = 0.3  # share of classes that agree, below which two texts are never compared
MOST_CELLS = 1.5e11  # characters of one text times those of the other, over all pairs: two seconds of comparing
PAIR_CELLS, LONE_PAIR_CELLS = 1e4, 5e5  # what a pair costs besides: in bulk, and one by one
_VERSION = 1
_FACTOR, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_NONE = np.uint64(2**64 - 1)
WARNINGS = {"near-duplicate", "no slice value", "nothing expected", "thin slice", "size"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to know about one row or one slice.

    Attributes:
        kind: unusable, nothing expected, duplicate, near-duplicate, conflict, leak (exact), leak (8-gram), no slice value,
            too many slices, thin slice or size.
        lines: 1-based lines of the test file it is about.
        about: The slice field or the slice; of a size what it counts, "rows" or the "pairs" that were not compared.
        n: How many: rows, pairs, values of a field, 8-word runs that stand in training; of an exact leak the line there.
        of: What `n` is a part of: rows, or all of a row's own 8-word runs.
        examples: Some values of a field with too many.
        problem: Why a row is unusable.
    """

    kind: str
    lines: tuple[int, ...] = ()
    about: str = ""
    n: int = 0
    of: int = 0
    examples: tuple[str, ...] = ()
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Checkup(Brief):
    """All findings about a test set.

    Attributes:
        n: Usable rows looked at.
        detectable: Smallest difference found with power 80%, by the share of examples on which the models disagree.
        slices: Rows by `field = value`, of fields that can be cut by.
        n_sources: Values of the cluster field; None where none was named.
        candidates: Fields that could be cut by, where no slice field is declared; None where some are.
    """

    path: str
    n: int
    findings: tuple[Finding, ...]
    detectable: Mapping[float, float | None]
    slices: Mapping[str, int]
    train: str | None = None
    n_sources: int | None = None
    candidates: tuple[str, ...] | None = None

    @property
    def healthy(self) -> bool:
        """True when nothing was found that must be mended: the other kinds widen intervals or leave rows out of slices."""
        return all(one.kind in WARNINGS for one in self.findings)

    def counts(self) -> dict[str, int]:
        """Findings by kind."""
        return dict(Counter(one.kind for one in self.findings))

    def __str__(self) -> str:
        found = [f"{kind} {n}" for kind, n in self.counts().items()]
        return f"{self.path}: {plural(self.n, 'row')}, found: {listed(found) or 'nothing'}."


def examine(
    path: str | Path,
    train: str | Path | None = None,
    *,
    slice_fields: Sequence[str] = (),
    cluster_field: str | None = None,
    limit: int | None = None,
    memory: Path | None = None,
) -> Checkup:
    """Examines a test set, and with a training file whether training has seen it.

    Args:
        path: The test set, chat JSONL.
        train: The training set of the fine-tuned model, chat JSONL.
        slice_fields: Declared slice fields, whose coverage is counted.
        cluster_field: Field that rows of one source share: near-duplicates of one source count as one, and are no finding.
        limit: Only the first so many rows of the test set.
        memory: A file that keeps the near-duplicates of these very inputs, so that the next run need not look again.

    Raises:
        DataError: A file cannot be read at all.
    """
    cut = {"slice_fields": tuple(slice_fields), "cluster_field": cluster_field, "limit": limit}
    test_set = dataset.read_examples(path, strict=False, **cut)
    rows, unusable = test_set.examples, test_set.problems
    findings = [Finding(kind="unusable", lines=(one.line,), problem=one) for one in unusable]
    if lines := tuple(one.line for one in rows if not one.expects):
        findings.append(Finding(kind="nothing expected", lines=lines, n=len(lines), of=len(rows)))
    findings += [*_repeated(rows), *_near(rows, memory)]
    if train:
        findings += _leaks(rows, dataset.read_examples(train, strict=False).examples)
    values = {name: [row.slices.get(name) for row in rows] for name in slice_fields}
    cut_by = {k for k, seen in values.items() if len({*seen} - {None}) <= stats.MOST_VALUES}
    told = ((name, value) for one in rows for name, value in one.slices.items())
    slices = Counter(f"{name} = {value}" for name, value in told if name in cut_by)
    findings += _of_slices(rows, values, slices)
    if not FEW <= len(rows) <= MANY:
        findings.append(Finding(kind="size", about="rows", n=len(rows)))
    n, parts = sum(one.expects for one in rows), (0.1, 0.2, 0.3)
    return Checkup(
        path=str(path),
        n=len(rows),
        findings=tuple(findings),
        detectable={part: stats.detectable_difference(n, part) if n else None for part in parts},
        slices=dict(slices),
        train=str(train) if train else None,
        n_sources=len({one.cluster for one in rows}) if cluster_field else None,
        candidates=None if slice_fields else (*hints(Path(path)).slices,),
    )


def _repeated(rows: Iterable[Example]) -> Iterator[Finding]:
    """Rows with the same prompt: duplicates when they expect the same, contradictions when they don't."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for one in rows:
        groups[_prompt(one)].append(one)
    for group in groups.values():
        lines = tuple(one.line for one in group)
        if len({frozenset(map(_level, one.right)) for one in group}) > 1:
            yield Finding(kind="conflict", lines=lines)
        elif len(group) > 1:
            yield Finding(kind="duplicate", lines=lines)


def _near(rows: Sequence[Example], memory: Path | None) -> Iterator[Finding]:
    """Groups of inputs, each at least `NEAR` alike to another of its group: rows of one template are one finding."""
    texts_of_rows = map(_whole, talk.own_messages([one.messages for one in rows]))
    known = {_level(text): one for text, one in zip(texts_of_rows, rows, strict=True)}
    owners, found = list(known.values()), groups_of(list(known), NEAR, memory=memory)
    for group in found.groups:
        sources = {owners[place].cluster for place in group}
        if len(sources) == 1 and sources != {None}:  # counted as one source already
            continue
        lines = tuple(sorted(owners[place].line for place in group))
        yield Finding(kind="near-duplicate", lines=lines)
    if found.n_left_out:
        yield Finding(kind="size", about="pairs", n=found.n_left_out)


def _leaks(rows: Sequence[Example], training: Sequence[Example]) -> Iterator[Finding]:
    # system prompts that several rows share are the set's template, not a row's own
    asked = (one for row in (*rows, *training) for one in row.messages)
    told = (conversation_text([one]) for one in asked if one.get("role") in talk.INSTRUCTIONS)
    shared = {text for text, n in Counter(told).items() if n > 1}
    own = [_grams(one, shared) for one in rows]
    spread = Counter(gram for one in own for gram in one)
    limit = max(3, COMMON * len(rows))
    prompts: dict[str, int] = {}
    grams: set[int] = set()
    for one in training:
        prompts.setdefault(_prompt(one), one.line)
        # the test set's own: a training file may be large
        grams |= spread.keys() & _grams(one, shared)
    for one, mine in zip(rows, own, strict=True):
        line = prompts.get(_prompt(one))
        rare = {gram for gram in mine if spread[gram] <= limit}
        n_known = len(rare & grams)
        if line is not None:
            yield Finding(kind="leak (exact)", lines=(one.line,), n=line)
        elif rare and n_known / len(rare) >= LEAKED:
            yield Finding(kind="leak (8-gram)", lines=(one.line,), n=n_known, of=len(rare))


def _of_slices(
    rows: Sequence[Example],
    values: Mapping[str, Sequence[str | None]],
    slices: Mapping[str, int],
) -> Iterator[Finding]:
    for name in values:
        if lines := tuple(one.line for one in rows if name not in one.slices):
            yield Finding(kind="no slice value", lines=lines, about=name, n=len(lines))
    for name, seen in values.items():
        known = [one for one in dict.fromkeys(seen) if one is not None]
        if len(known) > stats.MOST_VALUES:  # ids or texts: each would be a slice of its own
            n, some = len(known), tuple(known[:3])
            yield Finding(kind="too many slices", about=name, n=n, of=len(seen), examples=some)
    for name, n in slices.items():
        if n < FEW_IN_SLICE:
            yield Finding(kind="thin slice", about=name, n=n)


def _prompt(one: Example) -> str:
    """With other tools the same words are another prompt."""
    asked = json.dumps(dict(one.request), sort_keys=True) if one.request else ""
    return _level(f"{_whole(one.messages)}{asked}")


def _whole(messages: Messages) -> str:
    """The whole conversation, and what is attached by its hash: another image is another prompt."""
    return "\n".join([conversation_text(messages), *attachments(messages)])


def _level(text: str) -> str:
    return " ".join(text.casefold().split())


def _grams(one: Example, shared: set[str]) -> set[int]:
    """Hashes of the runs of eight words in the conversation and its expected answer; a shorter text is one run."""
    own = [message for message in one.messages if conversation_text([message]) not in shared]
    words = _level(f"{talk.spoken_text(own)} {one.expected}").split()
    return {hash(tuple(words[at : at + GRAM])) for at in range(max(1, len(words) - GRAM + 1))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What could be declared.

    Attributes:
        slices: Rows by value, largest first, of each field with a few values that come back.
        clusters: Number of values of each field that every row has and several rows share.
        checker: A value for the setting `checker`, "" for none.
        n_labels: Different expected answers, where each is one of a few short ones; 0 where they are not.
        expects: What all rows expect, where it is no text: "nothing", or "calls" of tools.
    """

    slices: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    clusters: Mapping[str, int] = field(default_factory=dict)
    checker: str = ""
    n_labels: int = 0
    expects: Literal["text", "nothing", "calls"] = "text"


def hints(path: Path) -> Hints:
    """Reads a test set for what could be declared.

    Raises:
        DataError: The file cannot be read at all.
    """
    names = dataset.read_examples(path, strict=False, keep=False).fields
    usable = tuple(name for name in names if name.strip() and not re.search(r"[,\n]", name))
    rows = dataset.read_examples(path, slice_fields=usable, strict=False).examples
    slices, clusters = dict[str, Mapping[str, int]](), dict[str, int]()
    for name in usable:
        seen = Counter(row.slices[name] for row in rows if name in row.slices)
        shared = sum(n for n in seen.values() if n > 1)
        if any(value.startswith(("{", "[")) for value in seen):  # a list or an object, no kind
            continue
        if _is_kind(seen):
            slices[name] = dict(seen.most_common())
        # a cluster field needs every row, and a fifth of them or more share theirs with another
        elif len(seen) > 1 and seen.total() == len(rows) and shared >= len(rows) / 5:
            clusters[name] = len(seen)
    answers = [row.expected.strip() for row in rows if row.expects]
    labels, checker = Counter(answers), ""
    short = all(len(one) <= _LONGEST_LABEL and "\n" not in one for one in labels)
    if answers and all(map(_is_json, answers)):
        checker = SCHEMA
    elif answers and all(map(icd10cm_format, answers)):
        checker = ICD
    elif short and _is_kind(labels):
        checker = f"regex:{'|'.join(map(re.escape, sorted(labels)))}"
    calls = all(tool_call(one, "") is not None for one in answers)
    return Hints(
        slices=slices,
        clusters=clusters,
        checker=checker,
        n_labels=len(labels) if checker.startswith("regex:") else 0,
        expects="nothing" if not answers else "calls" if calls else "text",
    )


def _is_kind(seen: Counter[str]) -> bool:
    return 2 <= len(seen) <= MOST_SLICES and seen.total() >= LEAST_ROWS * len(seen)


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """Groups of texts, each at least as alike as asked to another of its group.

    Attributes:
        groups: Places of the texts, each group in order.
        n_left_out: Pairs of long, partly alike texts that were not compared: the least alike ones.
        key: Of which texts this is known.
    """

    groups: tuple[tuple[int, ...], ...]
    n_left_out: int = 0
    key: str = ""


def groups_of(texts: Sequence[str], alike: float, *, memory: Path | None = None) -> Near:
    """Groups of near-duplicates among different texts, by rapidfuzz's normalised Indel similarity.

    Args:
        texts: No two of them the same.
        alike: Similarity from which two texts are near-duplicates, above 0.5.
        memory: A JSON file that keeps what was found for these very texts, so that it is found once.
    """
    key = hashlib.sha256(repr((_VERSION, alike, [*texts])).encode("utf-8", "replace")).hexdigest()
    with suppress(DataError):  # none yet, or a torn one: it knows nothing
        known = read_record(memory, Near, said="", remedy="") if memory else None
        if known and known.key == key:
            return known
    order = sorted(range(len(texts)), key=lambda place: (len(texts[place]), texts[place]))
    ordered = [texts[place] for place in order]
    sizes = np.array([len(text) for text in ordered], dtype=float)
    reach = np.searchsorted(sizes, sizes * alike / (2 - alike))  # the shortest that can be alike
    behind = np.cumsum(np.append(0.0, sizes))
    cells = sizes * (behind[:-1] - behind[reach]) + PAIR_CELLS * (np.arange(len(sizes)) - reach)
    compared = _all_compared if cells.sum() <= MOST_CELLS else _some_compared
    labels, n_left_out = compared(ordered, sizes, alike)
    groups: dict[int, list[int]] = defaultdict(list)
    for place, label in zip(order, labels, strict=True):
        groups[label].append(place)
    found = tuple(tuple(sorted(group)) for group in groups.values() if len(group) > 1)
    near = Near(groups=found, n_left_out=n_left_out, key=key)
    with suppress(DataError):  # a read-only folder: the findings are made again next time
        if memory:
            write_whole(memory, to_line(asdict(near)))
    return near


def _all_compared(
    texts: Sequence[str], sizes: np.ndarray, alike: float, chunk: int = 256
) -> tuple[list[int], int]:
    """A label a text, the same within a group: every text, sorted by length, with every one of similar length."""
    labels = np.arange(len(texts))
    for start in range(0, len(texts), chunk):
        queries = texts[start : start + chunk]
        longest = len(queries[-1]) * (2 - alike) / alike
        others = texts[start : int(np.searchsorted(sizes, longest, side="right"))]
        near = cdist(queries, others, scorer=Indel.normalized_similarity, score_cutoff=alike)
        for row in near > 0:
            joined = np.unique(labels[start : start + len(others)][row])
            labels[np.isin(labels, joined)] = joined[0]
    return labels.tolist(), 0


def _some_compared(texts: Sequence[str], sizes: np.ndarray, alike: float) -> tuple[list[int], int]:
    """A label a text, and how many pairs were left out: those that may be alike, the most promising ones first.

    Each text is compared with its best match whatever it costs, with others until `MOST_CELLS` are spent.
    """
    labels, left, n_left_out, met = np.arange(len(texts)), MOST_CELLS, 0, set[int]()
    for one, other in _meetings(texts):
        if labels[one] == labels[other] or sizes[one] < sizes[other] * alike / (2 - alike):
            continue
        if left < 0 and one in met and other in met:
            n_left_out += 1
            continue
        met |= {one, other}
        same = common_start(texts[one], texts[other])
        left -= (sizes[one] - same) * (sizes[other] - same) + LONE_PAIR_CELLS
        if Indel.normalized_similarity(texts[one], texts[other], score_cutoff=alike):
            labels[labels == labels[other]] = labels[one]
    return labels.tolist(), n_left_out


def _meetings(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of places that share enough of their runs, the shorter text first, those that share most in front.

    The share of classes in which two texts keep the same hash estimates their runs in common.
    """
    n = len(texts)
    kept = np.array([_smallest(text) for text in texts], dtype=np.uint64).reshape(-1, N_CLASSES)
    tagged = (kept ^ (np.arange(N_CLASSES, dtype=np.uint64) * _FACTOR)).ravel()
    places, known = np.repeat(np.arange(n), N_CLASSES), kept.ravel() != _NONE
    hashes, places = tagged[known], places[known]
    order = np.lexsort((places, hashes))
    hashes, places = hashes[order], places[order]
    met = []
    for step in range(1, N_NEIGHBOURS + 1):
        same = hashes[:-step] == hashes[step:]
        met.append(places[:-step][same] * n + places[step:][same])
    one, other = np.divmod(np.unique(np.concatenate(met)), n)
    shares = [np.zeros(0)]
    for at in range(0, len(one), 65536):
        first, second = (kept[side[at : at + 65536]] for side in (one, other))
        filled = (first != _NONE) | (second != _NONE)
        shares.append(((first == second) & filled).sum(axis=1) / filled.sum(axis=1))
    shared = np.concatenate(shares)
    order = np.argsort(-shared, kind="stable")
    order = order[shared[order] >= LEAST_SHARED]
    return np.column_stack([one, other])[order].tolist()


def _smallest(text: str) -> np.ndarray:
    """The smallest 64-bit hash of the text's runs in each class; `_NONE` where there is none. A shorter text is one run."""
    chars = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    size = max(1, min(RUN, len(chars)))
    n = max(0, len(chars) - size + 1)
    total = np.zeros(n, dtype=np.uint64)
    for place in range(size):
        total = total * _FACTOR + chars[place : n + place]
    total ^= total >> np.uint64(29)
    total *= _MIX
    hashes = total ^ (total >> np.uint64(32))
    kept = np.full(N_CLASSES, _NONE)
    np.minimum.at(kept, (hashes >> np.uint64(58)).astype(np.intp), hashes)
    return kept
