"""What a test set's rows suggest to declare before the first look: slices, a cluster, a checker. Nothing is declared by it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evalkit import wording
from evalkit.answers import dataset
from evalkit.answers.metrics import icd10cm_format
from evalkit.records import Example

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
