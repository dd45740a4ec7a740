"""Values of a field that are too many to be looked at one by one: the largest stay, the others count together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from evalkit import wording

MOST_VALUES = (
    40  # that a field may have to be cut by: more is an id or a text, not a kind of example
)
N_LARGEST = 20  # that are shown of a field with more


def folded(values: Iterable[str], *, keep: Iterable[str] = ()) -> Mapping[str, str]:
    """Each value with the name it is shown under: its own, or "(the rest: 100 values)" beyond the twenty largest.

    Args:
        values: One entry an example.
        keep: Values that stay whatever their size, such as the one that stands for no value; they are not counted.

    Example:
        >>> shown = folded(["a", "a", *map(str, range(100))])
        >>> len(set(shown.values())), shown["a"], shown["99"]
        (21, 'a', '(the rest: 81 values)')
    """
    sizes, kept = Counter(values), set(keep)
    ordered = sorted((one for one in sizes if one not in kept), key=lambda one: (-sizes[one], one))
    own = {one: one for one in sizes}
    if len(ordered) <= MOST_VALUES:
        return own
    rest = ordered[N_LARGEST:]
    return own | dict.fromkeys(rest, f"(the rest: {wording.count(len(rest))} values)")
