"""Many tests at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from evalkit.errors import DesignError
from evalkit.stats.result import between

METHODS = {"holm": "holm", "bh": "fdr_bh"}


def adjust(p_values: Sequence[float | None], method: Literal["holm", "bh"] = "holm") -> list[float | None]:
    """Adjusted p-values in the given order; an untested entry (None) stays None and does not count.

    Args:
        p_values: Raw p-values in [0, 1], or None.
        method: "holm" keeps the chance of any false alarm (declared slices); "bh" the share of false alarms
            (exploration).

    Source: Holm 1979; Benjamini & Hochberg 1995; `statsmodels.stats.multitest.multipletests`.

    Raises:
        DesignError: An unknown method, or a p-value outside [0, 1].

    Example:
        >>> adjust([0.01, None, 0.04])
        [0.02, None, 0.04]
    """
    import numpy as np
    from statsmodels.stats.multitest import multipletests

    if method not in METHODS:
        raise DesignError(f"method is {method!r}; need 'holm' or 'bh'")
    tested = [between(p, "a p-value", closed=True) for p in p_values if p is not None]
    adjusted = iter(np.asarray(multipletests(tested, method=METHODS[method])[1]).tolist() if tested else ())
    return [None if p is None else min(1.0, next(adjusted)) for p in p_values]
