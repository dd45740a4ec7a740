"""Texts that are almost the same, found through an index: not every pair is compared.

Where all pairs cost little, all are compared. In a larger set, only pairs that share runs of five characters are:
each text keeps the smallest hash of its runs in each of 64 classes, and texts that keep the same one meet.

Source: Broder 1997 (resemblance by the smallest hashes of shingles); Li, Owen & Zhang 2012 (one permutation, in classes).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.answers.metrics import common_start

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
