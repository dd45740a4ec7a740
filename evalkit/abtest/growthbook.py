"""Users as GrowthBook's SDKs spread them, so that an experiment or a roll-out that runs there can be read and served here.

Source: GrowthBook's SDK specification (hash, getBucketRanges, inRange, isIncludedInRollout); the tests hold its vectors.
Its SDKs differ: here characters outside ASCII count by their UTF-16 units, and the last bucket of a roll-out is within it, as
in JavaScript (the Python SDK leaves it out from 4.0 on).
"""

from __future__ import annotations

from functools import lru_cache

_OFFSET, _PRIME, _MASK = 0x811C9DC5, 0x01000193, 0xFFFFFFFF
_BUCKETS = {1: 1_000, 2: 10_000}
_DIGITS = 10  # 1 - 0.7 is 0.30000000000000004, where people gave GrowthBook the weight 0.3

Range = tuple[float, float]


def bucket(seed: str, user_id: str, version: int = 2) -> float:
    """The user's place, 0..1, in thousandths (hash version 1) or ten thousandths (2).

    Example:
        >>> bucket("seed", "a"), bucket("", "a", 1)
        (0.0505, 0.22)
    """
    hashed = _fnv1a(user_id + seed) if version == 1 else _fnv1a(str(_fnv1a(user_id, _seeded(seed))))
    return hashed % _BUCKETS[version] / _BUCKETS[version]


def ranges(treated: float, coverage: float = 1.0) -> tuple[Range, Range]:
    """Where control and treatment of an experiment of two variations lie: each covers a part of its own weight."""
    control = round(1 - treated, _DIGITS)
    return (0.0, coverage * control), (control, control + coverage * treated)


def rolled_out(place: float, coverage: float) -> bool:
    """True for who gets the forced value of a roll-out: one bucket more than the coverage says, but for 0."""
    return coverage > 0 and place <= coverage


def within(place: float, range_: Range) -> bool:
    """True for a place in a range; its end is outside."""
    return range_[0] <= place < range_[1]


def places(version: int) -> list[float]:
    """All places there are."""
    return [place / _BUCKETS[version] for place in range(_BUCKETS[version])]


@lru_cache(maxsize=64)
def _seeded(seed: str) -> int:
    return _fnv1a(seed)


def _fnv1a(text: str, state: int = _OFFSET) -> int:
    """FNV-1a of 32 bits, over UTF-16 units as JavaScript's charCodeAt gives them."""
    units = text.encode("utf-16-le", "surrogatepass")
    for low, high in zip(units[::2], units[1::2], strict=True):
        state = (state ^ (low | high << 8)) * _PRIME & _MASK
    return state
