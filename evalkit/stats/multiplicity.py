"""Many tests at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from evalkit.errors import DesignError
from evalkit.stats.result import between


def adjust(
    p_values: Sequence[float | None], method: Literal["holm", "bh"] = "holm"
) -> list[float | None]:
    """Adjusted p-values in the given order; an untested entry (None) stays None and does not count.

    Args:
        p_values: Raw p-values in [0, 1], or None.
        method: "holm" keeps the chance of any false alarm (declared slices); "bh" the share of false alarms
            (exploration).

    Source: Holm 1979; Benjamini & Hochberg 1995. (statsmodels' `multipletests` says the same, but sweeps the
    whole memory at every call.)

    Raises:
        DesignError: An unknown method, or a p-value outside [0, 1].

    Example:
        >>> adjust([0.01, None, 0.04])
        [0.02, None, 0.04]
    """
    import numpy as np

    if method not in ("holm", "bh"):
        raise DesignError(f"method is {method!r}; need 'holm' or 'bh'")
    tested = np.array([between(p, "a p-value", closed=True) for p in p_values if p is not None])
    order, m = np.argsort(tested, kind="stable"), len(tested)
    adjusted = np.empty(m)
    if method == "holm":
        adjusted[order] = np.maximum.accumulate(tested[order] * np.arange(m, 0, -1))
    else:
        adjusted[order] = np.minimum.accumulate((tested[order] * m / np.arange(1, m + 1))[::-1])[
            ::-1
        ]
    filled = iter(np.minimum(adjusted, 1.0).tolist())
    return [None if p is None else next(filled) for p in p_values]
