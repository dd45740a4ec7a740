"""Is the test set fit to test with? Repeated rows, contradictions, leaks from training, thin slices, size.

And what its rows suggest to declare before the first look: slices, a cluster, a checker; nothing is declared by it.
What was found are kinds and numbers; `show.doctor` says them in words.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evalkit import conversation as talk
from evalkit import stats
from evalkit.answers import dataset
from evalkit.answers.dataset import Problem
from evalkit.answers.scoring import icd10cm_format
from evalkit.benchmark.near_duplicates import groups_of
from evalkit.conversation import Messages, attachments, conversation_text
from evalkit.records import Brief, Example
from evalkit.wording import html_table, listed, plural

NEAR = 0.9  # similarity of two inputs from which they are near-duplicates
GRAM = 8  # words in a row that are unlikely to be shared by chance
LEAKED = 0.5  # share of a row's own 8-grams found in training from which it counts as leaked
COMMON = 0.05  # an 8-gram in more rows than this is the prompt's template, not a row's own
FEW_IN_SLICE = 30
FEW, USUAL, MANY = 100, 200, 1000  # below unreliable; 200 to 500 the usual size; mostly cost

MOST_SLICES = 20  # values of a field that is cut by; more make slices of a few rows
LEAST_ROWS = (
    5  # that a value has on average, so that a slice or a label is a kind, not a single row
)
_LONGEST_LABEL = 40
SCHEMA, ICD = "schema:answer.schema.json", "icd10cm"  # checkers for answers that are JSON, or codes

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
        declared: Of duplicates that an answer is expected of them, of near-duplicates that each has a source.
        problem: Why a row is unusable.
    """

    kind: str
    lines: tuple[int, ...] = ()
    about: str = ""
    n: int = 0
    of: int = 0
    examples: tuple[str, ...] = ()
    declared: bool = True
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

    def _repr_html_(self) -> str:
        return html_table({"file": self.path, "rows": self.n, **self.counts()})


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
    rows = test_set.examples
    findings = [
        Finding(kind="unusable", lines=(one.line,), problem=one) for one in test_set.problems
    ]
    findings += [*_open_ended(rows), *_repeated(rows), *_near(rows, memory)]
    if train:
        findings += _leaks(rows, dataset.read_examples(train, strict=False).examples)
    values = {name: [row.slices.get(name) for row in rows] for name in slice_fields}
    findings += [*_without_value(rows, values), *_too_many(values)]
    cut_by = {k for k, seen in values.items() if len({*seen} - {None}) <= stats.MOST_VALUES}
    told = ((name, value) for one in rows for name, value in one.slices.items())
    slices = Counter(f"{name} = {value}" for name, value in told if name in cut_by)
    findings += [*_thin(slices), *_size(len(rows))]
    n = sum(one.expects for one in rows)
    return Checkup(
        path=str(path),
        n=len(rows),
        findings=tuple(findings),
        detectable={
            part: stats.detectable_difference(n, part) if n else None for part in (0.1, 0.2, 0.3)
        },
        slices=dict(slices),
        train=str(train) if train else None,
        n_sources=len({one.cluster for one in rows}) if cluster_field else None,
        candidates=None if slice_fields else (*hints(Path(path)).slices,),
    )


def _open_ended(rows: Sequence[Example]) -> Iterator[Finding]:
    if lines := tuple(one.line for one in rows if not one.expects):
        yield Finding(kind="nothing expected", lines=lines, n=len(lines), of=len(rows))


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
            yield Finding(kind="duplicate", lines=lines, declared=group[0].expects)


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
        yield Finding(kind="near-duplicate", lines=lines, declared=None not in sources)
    if found.n_left_out:
        yield Finding(kind="size", about="pairs", n=found.n_left_out)


def _leaks(rows: Sequence[Example], training: Sequence[Example]) -> Iterator[Finding]:
    shared = _instructions([*rows, *training])
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


def _without_value(
    rows: Sequence[Example], values: Mapping[str, Sequence[str | None]]
) -> Iterator[Finding]:
    for name in values:
        if lines := tuple(one.line for one in rows if name not in one.slices):
            yield Finding(kind="no slice value", lines=lines, about=name, n=len(lines))


def _too_many(values: Mapping[str, Sequence[str | None]]) -> Iterator[Finding]:
    """Ids and texts taken for slice fields: each value would be a slice of its own."""
    for name, seen in values.items():
        known = [one for one in dict.fromkeys(seen) if one is not None]
        if len(known) > stats.MOST_VALUES:
            n, some = len(known), tuple(known[:3])
            yield Finding(kind="too many slices", about=name, n=n, of=len(seen), examples=some)


def _thin(slices: Mapping[str, int]) -> Iterator[Finding]:
    for name, n in slices.items():
        if n < FEW_IN_SLICE:
            yield Finding(kind="thin slice", about=name, n=n)


def _size(n: int) -> Iterator[Finding]:
    if not FEW <= n <= MANY:
        yield Finding(kind="size", about="rows", n=n)


def _prompt(one: Example) -> str:
    """With other tools the same words are another prompt."""
    asked = json.dumps(dict(one.request), sort_keys=True) if one.request else ""
    return _level(f"{_whole(one.messages)}{asked}")


def _whole(messages: Messages) -> str:
    """The whole conversation, and what is attached by its hash: another image is another prompt."""
    return "\n".join([conversation_text(messages), *attachments(messages)])


def _instructions(rows: Iterable[Example]) -> set[str]:
    """System prompts that several rows share: they are the set's template, not a row's own."""
    told = (one for row in rows for one in row.messages if one.get("role") in talk.INSTRUCTIONS)
    return {text for text, n in Counter(conversation_text([one]) for one in told).items() if n > 1}


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
    """

    slices: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    clusters: Mapping[str, int] = field(default_factory=dict)
    checker: str = ""
    n_labels: int = 0


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
        if any(value.startswith(("{", "[")) for value in seen):  # a list or an object, no kind
            continue
        if _is_kind(seen):
            slices[name] = dict(seen.most_common())
        elif _is_source(seen, len(rows)):
            clusters[name] = len(seen)
    checker, n_labels = _labels([row.expected.strip() for row in rows if row.expects])
    return Hints(slices=slices, clusters=clusters, checker=checker, n_labels=n_labels)


def _is_kind(seen: Counter[str]) -> bool:
    return 2 <= len(seen) <= MOST_SLICES and seen.total() >= LEAST_ROWS * len(seen)


def _is_source(seen: Counter[str], n_rows: int) -> bool:
    """Every row has it (a cluster field needs that), and a fifth of the rows or more share theirs with another."""
    shared = sum(n for n in seen.values() if n > 1)
    return len(seen) > 1 and seen.total() == n_rows and shared >= n_rows / 5


def _labels(answers: Sequence[str]) -> tuple[str, int]:
    """A checker that every expected answer passes, and how many labels there are."""
    if answers and all(map(_is_json, answers)):
        return SCHEMA, 0
    if answers and all(map(icd10cm_format, answers)):
        return ICD, 0
    seen = Counter(answers)
    short = all(len(one) <= _LONGEST_LABEL and "\n" not in one for one in seen)
    if short and _is_kind(seen):
        return f"regex:{'|'.join(map(re.escape, sorted(seen)))}", len(seen)
    return "", 0


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False
