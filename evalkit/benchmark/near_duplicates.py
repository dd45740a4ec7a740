"""Near-duplicates among texts: which are almost the same.

Where all pairs cost little, all are compared. In a larger set, only pairs that share runs of five characters are: each text
keeps the smallest hash of its runs in each of 64 classes, and texts that keep the same one meet.

Source: Broder 1997 (resemblance by the smallest hashes of shingles); Li, Owen & Zhang 2012 (one permutation, in classes).
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

from evalkit.answers.scoring import common_start
from evalkit.errors import DataError
from evalkit.files import read_record, write_whole

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
    found = _found([texts[place] for place in order], alike)
    groups = (tuple(sorted(order[place] for place in group)) for group in found.groups)
    near = Near(groups=tuple(groups), n_left_out=found.n_left_out, key=key)
    with suppress(DataError):  # a read-only folder: the findings are made again next time
        if memory:
            write_whole(memory, json.dumps(asdict(near)).encode())
    return near


def run_hashes(values: ArrayLike, size: int) -> np.ndarray:
    """64-bit hashes of all runs of `size` values in a row; one of all values when there are fewer."""
    values = np.asarray(values, dtype=np.uint64)
    size = max(1, min(size, len(values)))
    total = np.zeros(max(0, len(values) - size + 1), dtype=np.uint64)
    for place in range(size):
        total = total * _FACTOR + values[place : len(values) - size + 1 + place]
    total ^= total >> np.uint64(29)
    total *= _MIX
    return total ^ (total >> np.uint64(32))


def _found(texts: Sequence[str], alike: float) -> Near:
    """For texts sorted by length."""
    sizes = np.array([len(text) for text in texts], dtype=float)
    reach = np.searchsorted(sizes, sizes * alike / (2 - alike))  # the shortest that can be alike
    behind = np.cumsum(np.append(0.0, sizes))
    cells = sizes * (behind[:-1] - behind[reach]) + PAIR_CELLS * (np.arange(len(sizes)) - reach)
    if cells.sum() <= MOST_CELLS:
        return Near(groups=_all_compared(texts, sizes, alike))
    return _some_compared(texts, sizes, _meetings(texts), alike)


def _all_compared(
    texts: Sequence[str], sizes: np.ndarray, alike: float, chunk: int = 256
) -> tuple[tuple[int, ...], ...]:
    """Every text with every one of similar length."""
    labels = np.arange(len(texts))
    for start in range(0, len(texts), chunk):
        queries = texts[start : start + chunk]
        longest = len(queries[-1]) * (2 - alike) / alike
        stop = int(np.searchsorted(sizes, longest, side="right"))
        near = cdist(
            queries, texts[start:stop], scorer=Indel.normalized_similarity, score_cutoff=alike
        )
        for row in near > 0:
            joined = np.unique(labels[start:stop][row])
            labels[np.isin(labels, joined)] = joined[0]
    return _grouped(labels.tolist())


def _some_compared(
    texts: Sequence[str], sizes: np.ndarray, pairs: Sequence[tuple[int, int]], alike: float
) -> Near:
    """The pairs that may be alike, the most promising ones first.

    Each text is compared with its best match whatever it costs, with others until `MOST_CELLS` are spent.
    """
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


def _meetings(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of places that share enough of their runs, the shorter text first, those that share most in front."""
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
    parts = [slice(at, at + 65536) for at in range(0, len(one), 65536)]
    alike = [_shared(kept[one[part]], kept[other[part]]) for part in parts]
    shared = np.concatenate([np.zeros(0), *alike])
    order = np.argsort(-shared, kind="stable")
    order = order[shared[order] >= LEAST_SHARED]
    return np.column_stack([one, other])[order].tolist()


def _smallest(text: str) -> np.ndarray:
    """The smallest hash of the text's runs in each class; `_NONE` where there is none."""
    hashes = run_hashes(np.frombuffer(text.encode("utf-32-le", "replace"), dtype=np.uint32), RUN)
    kept = np.full(N_CLASSES, _NONE)
    np.minimum.at(kept, (hashes >> np.uint64(58)).astype(np.intp), hashes)
    return kept


def _shared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Share of classes in which two texts keep the same hash: an estimate of their runs in common."""
    filled = (one != _NONE) | (other != _NONE)
    return ((one == other) & filled).sum(axis=1) / filled.sum(axis=1)


def _grouped(labels: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    groups: dict[int, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        groups[label].append(place)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)
