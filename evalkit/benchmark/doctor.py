"""Is the test set fit to test with? Repeated rows, contradictions, leaks from training, thin slices, size."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evalkit import stats, wording
from evalkit.answers import dataset
from evalkit.answers.metrics import common_start, icd10cm_format
from evalkit.conversation import (
    INSTRUCTIONS,
    Messages,
    attachments,
    conversation_text,
    own_messages,
    spoken_text,
)
from evalkit.records import Brief, Example

MEMORY = "near_duplicates.json"  # in reports/<study>: a run need not look for them again
NEAR = 0.9  # similarity of two inputs from which they are near-duplicates
GRAM = 8  # words in a row that are unlikely to be shared by chance
LEAKED = 0.5  # share of a row's own 8-grams found in training from which it counts as leaked
COMMON = 0.05  # an 8-gram in more rows than this is the prompt's template, not a row's own
FEW_IN_SLICE = 30
MOST_LINES = 12  # lines that a finding names
MOST_ALIKE = 3  # findings of a kind that are told one by one when all have the same remedy
USEFUL = (
    100,
    200,
    500,
    1000,
)  # below 100 unreliable, 200 to 500 the usual size, above 1,000 mostly cost

WARNINGS = {"near-duplicate", "no slice value", "nothing expected", "thin slice", "size"}
_NOUNS = {
    "unusable": ("unusable row", "unusable rows"),
    "near-duplicate": ("group of near-duplicates", "groups of near-duplicates"),
    "leak (exact)": ("exact leak", "exact leaks"),
    "leak (8-gram)": ("8-gram leak", "8-gram leaks"),
    "nothing expected": ("row without expected answer", "rows without expected answer"),
    "no slice value": ("slice field with gaps", "slice fields with gaps"),
    "too many slices": ("slice field with too many values", "slice fields with too many values"),
    "size": ("remark on the size", "remarks on the size"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to know about one row or one slice.

    Attributes:
        kind: unusable, nothing expected, duplicate, near-duplicate, conflict, leak (exact), leak (8-gram), no slice value,
            too many slices, thin slice or size.
        lines: 1-based lines of the test file it is about.
        what: What was found, with numbers.
        remedy: What to do about it.
    """

    kind: str
    lines: tuple[int, ...]
    what: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Checkup(Brief):
    """All findings about a test set.

    Attributes:
        n: Usable rows looked at.
        detectable: Smallest difference found with power 80%, by the share of examples on which the models disagree.
        slices: Rows by `field = value`, of fields that can be cut by.
        n_sources: Values of the cluster field; None where none was named.
        undeclared: That no slice field is declared, and which could be; "" when some are.
    """

    path: str
    n: int
    findings: tuple[Finding, ...]
    detectable: Mapping[float, float | None]
    slices: Mapping[str, int]
    train: str | None = None
    n_sources: int | None = None
    undeclared: str = ""

    @property
    def healthy(self) -> bool:
        """True when nothing was found that must be mended: the other kinds widen intervals or leave rows out of slices."""
        return all(one.kind in WARNINGS for one in self.findings)

    def counts(self) -> dict[str, int]:
        """Findings by kind."""
        return dict(Counter(one.kind for one in self.findings))

    def told(self) -> list[str]:
        """Findings by kind, in words: "2 duplicates"."""
        return [wording.plural(n, *_NOUNS.get(kind, (kind,))) for kind, n in self.counts().items()]

    def rows(self) -> list[dict[str, Any]]:
        """Findings as rows of a table: kind, lines, what, how to mend; many with the same remedy share the last row."""
        rows = []
        for kind in self.counts():
            alike = [one for one in self.findings if one.kind == kind]
            many = len(alike) > MOST_ALIKE + 1 and len({one.remedy for one in alike}) == 1
            named, rest = (alike[:MOST_ALIKE], alike[MOST_ALIKE:]) if many else (alike, [])
            rows += [_row(one, _lines(one.lines), one.what) for one in named]
            if rest:
                lines = sorted(line for one in rest for line in one.lines)
                rows.append(
                    _row(rest[0], _lines(lines), f"{wording.count(len(rest))} more such findings")
                )
        return rows

    def __str__(self) -> str:
        found = wording.listed(self.told())
        fit = "Fit to test with." if self.healthy else "Mend it before a run."
        against = (
            f", compared with {self.train}" if self.train else ", not compared with a training file"
        )
        sources = (
            "" if self.n_sources is None else f" from {wording.plural(self.n_sources, 'source')}"
        )
        sees = ", ".join(
            f"{wording.points(d, sign=False)} at {share:.0%}"
            for share, d in self.detectable.items()
            if d is not None
        )
        lines = [
            f"{self.path}: {wording.plural(self.n, 'row')}{sources}{against}. Found: {found or 'nothing'}. {fit}",
            *(
                [
                    f"Differences it finds, in points, by share of examples the models disagree on: {sees}."
                ]
                if sees
                else []
            ),
        ]
        lines += [f"{self.undeclared}."] if self.undeclared else []
        return "\n".join([*lines, *(f"  {_told(one)}" for one in self.rows())])

    def _repr_html_(self) -> str:
        sources = {} if self.n_sources is None else {"sources": self.n_sources}
        head = {"file": self.path, "rows": self.n, **sources, **self.counts()}
        rows = {f"{place}. {_where(one)}": _what(one) for place, one in enumerate(self.rows(), 1)}
        return wording.html_table(head | rows)


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
    test_set = dataset.read_examples(
        path,
        slice_fields=tuple(slice_fields),
        cluster_field=cluster_field,
        limit=limit,
        strict=False,
    )
    rows = test_set.examples
    cut_by = [
        name
        for name in slice_fields
        if len({str(one.slices[name]) for one in rows if name in one.slices}) <= stats.MOST_VALUES
    ]
    slices = Counter(
        f"{name} = {value}" for one in rows for name, value in one.slices.items() if name in cut_by
    )
    findings = [
        Finding(kind="unusable", lines=(x.line,), what=x.problem, remedy=x.remedy)
        for x in test_set.problems
    ]
    findings += [*_open_ended(rows), *_repeated(rows), *_near(rows, memory)]
    if train:
        findings += _leaks(rows, dataset.read_examples(train, strict=False).examples)
    findings += [*_without_value(rows, slice_fields), *_too_many(rows, slice_fields)]
    findings += [*_thin(slices), *_size(len(rows))]
    shares, n_expecting = (0.1, 0.2, 0.3), sum(one.expects for one in rows)
    return Checkup(
        path=str(path),
        n=len(rows),
        findings=tuple(findings),
        detectable={
            share: stats.detectable_difference(n_expecting, share) if n_expecting else None
            for share in shares
        },
        slices=dict(slices),
        train=str(train) if train else None,
        n_sources=len({one.cluster for one in rows}) if cluster_field else None,
        undeclared="" if slice_fields else _undeclared(Path(path)),
    )


def _undeclared(path: Path) -> str:
    advice = hints(path).advice() or "rows have no field to cut by: add one to their metadata"
    return wording.visible(f"No slice is declared, so none can be shown worse or safe; {advice}")


def _repeated(rows: Iterable[Example]) -> Iterator[Finding]:
    """Rows with the same prompt: duplicates when they expect the same, contradictions when they don't."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for one in rows:
        groups[_level(_prompt(one))].append(one)
    for group in groups.values():
        lines = tuple(one.line for one in group)
        if len({_expectation(one) for one in group}) > 1:
            what = "same prompt, different expected answers"
            yield Finding(kind="conflict", lines=lines, what=what, remedy="keep the right one")
        elif len(group) > 1:
            yield Finding(
                kind="duplicate",
                lines=lines,
                what="same prompt, same expected answer"
                if group[0].expects
                else "same prompt, nothing expected",
                remedy="keep one of them",
            )


def _open_ended(rows: Sequence[Example]) -> Iterator[Finding]:
    if lines := tuple(one.line for one in rows if not one.expects):
        what = f"nothing is expected of {wording.count(len(lines))} of {wording.plural(len(rows), 'row')}"
        remedy = (
            "nothing, where people or the form decide; else end the row with the expected answer"
        )
        yield Finding(kind="nothing expected", lines=lines, what=what, remedy=remedy)


def _expectation(one: Example) -> frozenset[str]:
    return frozenset(map(_level, one.right))


def _near(rows: Sequence[Example], memory: Path | None) -> Iterator[Finding]:
    """Groups of inputs, each at least `NEAR` alike to another of its group: rows of one template are one finding."""
    texts_of_rows = map(_whole, own_messages([one.messages for one in rows]))
    known = {_level(text): one.line for text, one in zip(texts_of_rows, rows, strict=True)}
    lines, found = list(known.values()), groups_of(list(known), NEAR, memory=memory)
    source = {one.line: one.cluster for one in rows}
    for group in found.groups:
        sources = {source[lines[place]] for place in group}
        if len(sources) == 1 and sources != {None}:  # counted as one source already
            continue
        yield Finding(
            kind="near-duplicate",
            lines=tuple(sorted(lines[place] for place in group)),
            what=f"{len(group)} inputs, each at least {NEAR:.0%} alike to another",
            remedy="keep one, or declare a cluster_field (doctor: --cluster) that they share"
            if None in sources
            else "keep one; their sources differ, so they count apart",
        )
    if found.n_left_out:
        what = f"{wording.plural(found.n_left_out, 'pair')} of long inputs that share part of their text not compared"
        remedy = "nothing, when they share a template; near-duplicates among them may be missed"
        yield Finding(kind="size", lines=(), what=what, remedy=remedy)


def _leaks(rows: Sequence[Example], training: Iterable[Example]) -> Iterator[Finding]:
    training = list(training)
    shared = _instructions([*rows, *training])
    own = [_grams(one, shared) for one in rows]
    spread = Counter(gram for one in own for gram in one)
    limit = max(3, COMMON * len(rows))
    prompts: dict[str, int] = {}
    grams: set[int] = set()
    for one in training:
        prompts.setdefault(_level(_prompt(one)), one.line)
        grams |= spread.keys() & _grams(
            one, shared
        )  # the test set's own: a training file may be large
    for one, mine in zip(rows, own, strict=True):
        line = prompts.get(_level(_prompt(one)))
        if line is not None:
            yield _leak("exact", one, f"its prompt is line {line} of the training file")
            continue
        rare = {gram for gram in mine if spread[gram] <= limit}
        shared = len(rare & grams)
        if rare and shared / len(rare) >= LEAKED:
            yield _leak(
                "8-gram",
                one,
                f"{wording.share(shared, len(rare))} of its 8-word runs stand in the training file",
            )


def _leak(kind: str, one: Example, what: str) -> Finding:
    return Finding(
        kind=f"leak ({kind})",
        lines=(one.line,),
        what=what,
        remedy="take it out of the test set or of the training",
    )


def _without_value(rows: Sequence[Example], fields: Iterable[str]) -> Iterator[Finding]:
    for name in fields:
        if lines := tuple(one.line for one in rows if name not in one.slices):
            remedy = f"fill in {name} for {wording.plural(len(lines), 'row')}"
            yield Finding(
                kind="no slice value", lines=lines, what=f"no value of {name}", remedy=remedy
            )


def _too_many(rows: Sequence[Example], fields: Iterable[str]) -> Iterator[Finding]:
    """Ids and texts taken for slice fields: each value would be a slice of its own."""
    for name in fields:
        values = dict.fromkeys(str(one.slices[name]) for one in rows if name in one.slices)
        if len(values) > stats.MOST_VALUES:
            some = wording.listed([repr(one[:40]) for one in [*values][:3]])
            what = (
                f"slice field {name} has {wording.count(len(values))} values in "
                f"{wording.plural(len(rows), 'row')}, such as {some}; at most {stats.MOST_VALUES} can be cut by"
            )
            remedy = f"declare a field with fewer values, or take {name} out of slice_fields"
            yield Finding(kind="too many slices", lines=(), what=what, remedy=remedy)


def _thin(slices: Mapping[str, int]) -> Iterator[Finding]:
    for name, n in slices.items():
        if n < FEW_IN_SLICE:
            more = f"{FEW_IN_SLICE - n} more would give it a p-value of its own"
            yield Finding(
                kind="thin slice",
                lines=(),
                what=f"{name} has {wording.plural(n, 'row')}",
                remedy=more,
            )


def _size(n: int) -> Iterator[Finding]:
    few, low, _, many = USEFUL
    if n < few:
        what = f"{wording.plural(n, 'row')}: single rows have too much influence"
        remedy = f"{few - n} more rows reach {few}, {low - n} the usual {low}"
        yield Finding(kind="size", lines=(), what=what, remedy=remedy)
    elif n > many:
        what = f"{wording.plural(n, 'row')}: above {wording.count(many)} each row costs more than it tells"
        yield Finding(kind="size", lines=(), what=what, remedy="use a limit while you iterate")


def _prompt(one: Example) -> str:
    """With other tools the same words are another prompt."""
    asked = json.dumps(dict(one.request), sort_keys=True) if one.request else ""
    return f"{_whole(one.messages)}{asked}"


def _whole(messages: Messages) -> str:
    """The whole conversation, and what is attached by its hash: another image is another prompt."""
    return "\n".join([conversation_text(messages), *attachments(messages)])


def _instructions(rows: Iterable[Example]) -> set[str]:
    """System prompts that several rows share: they are the set's template, not a row's own."""
    seen = Counter(
        conversation_text([message])
        for one in rows
        for message in one.messages
        if message.get("role") in INSTRUCTIONS
    )
    return {text for text, n in seen.items() if n > 1}


def _level(text: str) -> str:
    return " ".join(text.casefold().split())


def _grams(one: Example, shared: set[str]) -> set[int]:
    """Hashes of the runs of eight words in the conversation and its expected answer; a shorter text is one run."""
    own = [message for message in one.messages if conversation_text([message]) not in shared]
    words = _level(f"{spoken_text(own)} {one.expected}").split()
    return {hash(tuple(words[at : at + GRAM])) for at in range(max(1, len(words) - GRAM + 1))}


def _row(one: Finding, lines: str, what: str) -> dict[str, str]:
    return {"kind": one.kind, "lines": lines, "what": what, "how to mend": one.remedy}


def _told(row: Mapping[str, str]) -> str:
    return f"{_where(row)}: {_what(row)}"


def _where(row: Mapping[str, str]) -> str:
    return row["kind"] + (f" (line {row['lines']})" if row["lines"] else "")


def _what(row: Mapping[str, str]) -> str:
    return f"{row['what']}; {row['how to mend']}"


def _lines(lines: Sequence[int]) -> str:
    more = f" and {wording.count(len(lines) - MOST_LINES)} more" if len(lines) > MOST_LINES else ""
    return ", ".join(map(str, lines[:MOST_LINES])) + more


MOST_SLICES = 20  # values of a field that is cut by; more make slices of a few rows
LEAST_ROWS = (
    5  # rows a value has on average, so that a slice or a label is a kind and not a single row
)
_MOST_NAMED = 6
_LONGEST_LABEL = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What could be declared.

    Attributes:
        slices: Rows by value, largest first, of each field with a few values that come back.
        clusters: Number of values of each field that every row has and several rows share.
        checker: A value for the setting `checker`, "" for none.
        labels: What the expected answers look like, in words; "" for free text.
    """

    slices: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    clusters: Mapping[str, int] = field(default_factory=dict)
    checker: str = ""
    labels: str = ""

    def told(self) -> list[str]:
        """Each hint as a line of plain text, fit for a comment and a terminal."""
        lines = [*self._slices(), *self._clusters()]
        if self.labels:
            lines.append(f"Expected answers {self.labels}: checker: {_quoted(self.checker)}")
        return [wording.visible(" ".join(one.splitlines())) for one in lines]

    def advice(self) -> str:
        """What to declare where no slice is; "" when the rows have no field to cut by."""
        return f"declare slice_fields: {_quoted(','.join(self.slices))}" if self.slices else ""

    def _slices(self) -> Iterator[str]:
        if not self.slices:
            yield "No row has a field to cut results by; a metadata field such as kind or language would be one"
            return
        told = [f"{name} ({_counted(values)})" for name, values in self.slices.items()]
        yield f"Rows have {wording.listed(told)}; to cut by: slice_fields: {_quoted(','.join(self.slices))}"

    def _clusters(self) -> Iterator[str]:
        for name, n in self.clusters.items():
            yield f"Rows share {name} ({n} values); rows of one source count together: cluster_field: {_quoted(name)}"


def hints(path: Path) -> Hints:
    """Reads a test set for what could be declared.

    Raises:
        DataError: The file cannot be read at all.
    """
    names = dataset.read_examples(path, strict=False, keep=False).fields
    usable = tuple(name for name in names if name.strip() and not re.search(r"[,\n]", name))
    rows = dataset.read_examples(path, slice_fields=usable, strict=False).examples
    values = {
        name: Counter(row.slices[name] for row in rows if name in row.slices) for name in usable
    }
    flat = {name: seen for name, seen in values.items() if not _nested(seen)}
    slices = {name: dict(seen.most_common()) for name, seen in flat.items() if _is_kind(seen)}
    clusters = {
        name: len(seen)
        for name, seen in flat.items()
        if name not in slices and _is_source(seen, len(rows))
    }
    checker, labels = _labels(rows)
    return Hints(slices=slices, clusters=clusters, checker=checker, labels=labels)


def _is_kind(seen: Counter[str]) -> bool:
    return 2 <= len(seen) <= MOST_SLICES and seen.total() >= LEAST_ROWS * len(seen)


def _is_source(seen: Counter[str], n_rows: int) -> bool:
    """Every row has it (a cluster field needs that), and a fifth of the rows or more share theirs with another."""
    shared = sum(n for n in seen.values() if n > 1)
    return len(seen) > 1 and seen.total() == n_rows and shared >= n_rows / 5


def _nested(seen: Counter[str]) -> bool:
    return any(value.startswith(("{", "[")) for value in seen)


def _labels(rows: Sequence[Example]) -> tuple[str, str]:
    """A checker that every expected answer passes, and what they look like."""
    answers = [row.expected.strip() for row in rows if row.expects]
    if not answers:
        return "", ""
    if all(map(_is_json, answers)):
        return "schema:answer.schema.json", "are JSON; put a JSON schema beside the test file"
    if all(map(icd10cm_format, answers)):
        return "icd10cm", "are codes of ICD-10-CM"
    seen = Counter(answers)
    short = all(len(one) <= _LONGEST_LABEL and "\n" not in one for one in seen)
    if short and _is_kind(seen):
        return f"regex:{'|'.join(map(re.escape, sorted(seen)))}", f"are one of {len(seen)} labels"
    return "", ""


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _counted(values: Mapping[str, int]) -> str:
    named = [f"{value} {wording.count(n)}" for value, n in [*values.items()][:_MOST_NAMED]]
    more = len(values) - _MOST_NAMED
    return ", ".join([*named, *([f"and {more} more"] if more > 0 else [])])


def _quoted(text: str) -> str:
    """As study.yaml takes it."""
    return json.dumps(text, ensure_ascii=False)


RUN = 5  # characters
N_CLASSES = 64
N_NEIGHBOURS = 8  # texts that a text meets for each hash it keeps: a template that all share makes no n * n pairs
LEAST_SHARED = 0.3  # share of classes that agree, below which two texts are never compared
MOST_CELLS = 1.5e11  # characters of one text times those of the other, over all pairs: two seconds of comparing
PAIR_CELLS, LONE_PAIR_CELLS = 1e4, 5e5  # what a pair costs besides: in bulk, and one by one
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """Groups of texts, each at least as alike as asked to another of its group.

    Attributes:
        groups: Places of the texts, each group in order.
        n_left_out: Pairs of long, partly alike texts that were not compared: the least alike ones.
    """

    groups: tuple[tuple[int, ...], ...]
    n_left_out: int = 0


def groups_of(texts: Sequence[str], alike: float, *, memory: Path | None = None) -> Near:
    """Groups of near-duplicates among different texts, by rapidfuzz's normalised Indel similarity.

    Args:
        texts: No two of them the same.
        alike: Similarity from which two texts are near-duplicates, above 0.5.
        memory: A JSON file that keeps what was found for these very texts, so that it is found once.
    """
    key = hashlib.sha256(repr((_VERSION, alike, [*texts])).encode("utf-8", "replace")).hexdigest()
    if known := _remembered(memory, key):
        return known
    order = sorted(range(len(texts)), key=lambda place: (len(texts[place]), texts[place]))
    found = _found([texts[place] for place in order], alike)
    groups = (tuple(sorted(order[place] for place in group)) for group in found.groups)
    near = Near(groups=tuple(groups), n_left_out=found.n_left_out)
    _remember(memory, key, near)
    return near


def run_hashes(values: object, size: int) -> Any:
    """64-bit hashes of all runs of `size` values in a row; one of all values when there are fewer."""
    values = np.asarray(values, dtype=np.uint64)
    size = max(1, min(size, len(values)))
    total = np.zeros(max(0, len(values) - size + 1), dtype=np.uint64)
    for place in range(size):
        total = total * _FACTOR + values[place : len(values) - size + 1 + place]
    total ^= total >> np.uint64(29)
    total *= _MIX
    return total ^ (total >> np.uint64(32))


_FACTOR, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_NONE = np.uint64(2**64 - 1)


def _found(texts: Sequence[str], alike: float) -> Near:
    """For texts sorted by length."""
    sizes = np.array([len(text) for text in texts], dtype=float)
    reach = np.searchsorted(sizes, sizes * alike / (2 - alike))  # the shortest that can be alike
    behind = np.cumsum(np.append(0.0, sizes))
    cells = sizes * (behind[:-1] - behind[reach]) + PAIR_CELLS * (np.arange(len(sizes)) - reach)
    if cells.sum() <= MOST_CELLS:
        return Near(groups=_all_compared(texts, alike))
    return _some_compared(texts, sizes, _candidates(texts), alike)


def _all_compared(texts: Sequence[str], alike: float, chunk: int = 256) -> tuple[Any, ...]:
    """Every text with every one of similar length."""
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    labels = np.arange(len(texts))
    for start in range(0, len(texts), chunk):
        queries = texts[start : start + chunk]
        longest = len(queries[-1]) * (2 - alike) / alike
        stop = next(
            (place for place in range(start, len(texts)) if len(texts[place]) > longest), len(texts)
        )
        near = cdist(
            queries, texts[start:stop], scorer=Indel.normalized_similarity, score_cutoff=alike
        )
        for row in near > 0:
            joined = np.unique(labels[start:stop][row])
            labels[np.isin(labels, joined)] = joined[0]
    return _grouped(labels.tolist())


def _some_compared(
    texts: Sequence[str], sizes: Any, pairs: Sequence[tuple[int, int]], alike: float
) -> Near:
    """The pairs that may be alike, the most promising ones first.

    Each text is compared with its best match whatever it costs, with others until `MOST_CELLS` are spent.
    """
    from rapidfuzz.distance import Indel

    parents, left, n_left_out, met = list(range(len(texts))), MOST_CELLS, 0, set()

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = place = parents[parents[place]]
        return place

    for one, other in pairs:
        first, second = root(one), root(other)
        if first == second or sizes[one] < sizes[other] * alike / (2 - alike):
            continue
        if left < 0 and one in met and other in met:
            n_left_out += 1
            continue
        met |= {one, other}
        same = common_start(texts[one], texts[other])
        left -= (sizes[one] - same) * (sizes[other] - same) + LONE_PAIR_CELLS
        if Indel.normalized_similarity(texts[one], texts[other], score_cutoff=alike):
            parents[second] = first
    return Near(groups=_grouped([root(place) for place in parents]), n_left_out=n_left_out)


def _candidates(texts: Sequence[str]) -> Any:
    """Pairs of places that share enough of their runs, the shorter text first, those that share most in front."""
    kept = np.array([_smallest(text) for text in texts], dtype=np.uint64).reshape(-1, N_CLASSES)
    tagged = kept ^ (np.arange(N_CLASSES, dtype=np.uint64) * _FACTOR)
    hashes, places = tagged.ravel(), np.repeat(np.arange(len(texts)), N_CLASSES)
    known = kept.ravel() != _NONE
    order = np.lexsort((places[known], hashes[known]))
    hashes, places = hashes[known][order], places[known][order]
    met = [
        places[:-step][hashes[:-step] == hashes[step:]] * len(texts)
        + places[step:][hashes[:-step] == hashes[step:]]
        for step in range(1, N_NEIGHBOURS + 1)
    ]
    one, other = np.divmod(np.unique(np.concatenate(met)), len(texts))
    shared = np.concatenate(
        [_shared(kept[one[at : at + 65536]], kept[other[at : at + 65536]])
         for at in range(0, len(one), 65536)] or [np.zeros(0)]
    )  # fmt: skip
    order = np.argsort(-shared, kind="stable")
    order = order[shared[order] >= LEAST_SHARED]
    return np.column_stack([one, other])[order].tolist()


def _smallest(text: str) -> Any:
    """The smallest hash of the text's runs in each class; `_NONE` where there is none."""
    hashes = run_hashes(np.frombuffer(text.encode("utf-32-le", "replace"), dtype=np.uint32), RUN)
    kept = np.full(N_CLASSES, _NONE)
    np.minimum.at(kept, (hashes >> np.uint64(58)).astype(np.intp), hashes)
    return kept


def _shared(one: Any, other: Any) -> Any:
    """Share of classes in which two texts keep the same hash: an estimate of their runs in common."""
    filled = (one != _NONE) | (other != _NONE)
    return ((one == other) & filled).sum(axis=1) / filled.sum(axis=1)


def _grouped(labels: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    groups: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        groups.setdefault(label, []).append(place)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _remembered(memory: Path | None, key: str) -> Near | None:
    """What the file knows of these texts; a file that is not there or torn knows nothing."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8")) if memory else {}
        if known.get("key") != key:
            return None
        return Near(groups=tuple(map(tuple, known["groups"])), n_left_out=known["n_left_out"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _remember(memory: Path | None, key: str, near: Near) -> None:
    if memory is None:
        return
    record = {"key": key, "groups": near.groups, "n_left_out": near.n_left_out}
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        half = memory.with_name(f"{memory.name}.{os.getpid()}")
        half.write_text(json.dumps(record), encoding="utf-8")
        os.replace(half, memory)
    except OSError:  # a read-only folder: the findings are made again next time
        return
