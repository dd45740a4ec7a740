"""Do raters agree, beyond chance? Always computed on un-blinded labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from evalkit.errors import DesignError
from evalkit.stats.result import Result, Scale, between

if TYPE_CHECKING:
    import numpy as np

Level = Literal["nominal", "ordinal", "interval"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KrippendorffAlpha(Result):
    """Agreement beyond chance: 1 is perfect, 0 is chance.

    Attributes:
        n: Items with at least two ratings.
        percent_agreement: Share of agreeing pairs of ratings, averaged over those items.
        level: nominal, ordinal or interval.
        n_raters: Raters.
    """

    scale: ClassVar[Scale] = "number"
    unit: ClassVar[str] = "item"
    percent_agreement: float | None
    level: str
    n_raters: int

    def _headline(self) -> str:
        return "Krippendorff's alpha"

    def _text(self, value: float | None) -> str:
        return Result._text(self, value).lstrip("+")


def krippendorff_alpha(
    ratings: Sequence[Sequence[object]],
    level: Level = "nominal",
    *,
    alpha: float = 0.05,
    resamples: int = 1000,
    seed: int = 0,
) -> KrippendorffAlpha:
    """Krippendorff's alpha with a bootstrap interval over items.

    Args:
        ratings: Raters x items, also as a mapping or a table with a row a rater; None where a rater did not rate.
            Labels must mean the same for every rater.
        level: "nominal" for names, "ordinal" for ranks, "interval" for numbers.
        alpha: Two-sided level of the interval.
        resamples: Bootstrap samples of items.
        seed: Seed of the bootstrap.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".

    Raises:
        DesignError: Ragged rows, an unknown level, or labels without order on an ordered level.

    Example:
        >>> round(krippendorff_alpha([["a", "b", "b", "a"], ["a", "b", "a", None]]).estimate, 3)
        0.444
    """
    import numpy as np

    counts, values = _value_counts(ratings, level)
    alpha = between(alpha, "alpha")
    pairable = counts[counts.sum(axis=1) > 1]
    n, distance = len(pairable), _distance(level, values)
    point = _alpha(pairable, np.ones(n), distance) if n else None
    low = high = None
    if point is not None and n > 1:
        draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
        sample = [
            one for weights in draws if (one := _alpha(pairable, weights, distance)) is not None
        ]
        low, high = (float(one) for one in np.quantile(sample, [alpha / 2, 1 - alpha / 2]))
    return KrippendorffAlpha(
        estimate=point,
        n=n,
        ci_low=low,
        ci_high=high,
        alpha=alpha,
        method=f"{level}, bootstrap over items",
        notes=_notes(n, point),
        percent_agreement=_agreement(pairable),
        level=level,
        n_raters=len(ratings),
    )


def _value_counts(ratings: Sequence[Sequence[Any]], level: str) -> tuple[np.ndarray, list[Any]]:
    """Items x values: how many raters gave an item that value."""
    import numpy as np

    if level not in ("nominal", "ordinal", "interval"):
        raise DesignError(f"level is {level!r}; need 'nominal', 'ordinal' or 'interval'")
    ratings = (
        list(ratings.values())
        if isinstance(ratings, Mapping)
        else getattr(ratings, "to_numpy", lambda: ratings)()
    )
    if not all(hasattr(row, "__len__") and not isinstance(row, str) for row in ratings):
        raise DesignError("ratings need a list for each rater, with one entry for each item")
    if len({len(row) for row in ratings}) > 1:
        raise DesignError("every rater needs one entry for each item, None where not rated")
    rows = [[None if _is_missing(one) else one for one in row] for row in ratings]
    found = {one for row in rows for one in row if one is not None}
    try:
        values = sorted(found) if level != "nominal" else sorted(found, key=repr)
    except TypeError:
        raise DesignError(
            f"level is {level!r} but the labels have no order; use 'nominal' or numbers"
        ) from None
    place = {value: column for column, value in enumerate(values)}
    counts = np.zeros((len(rows[0]) if rows else 0, len(values)))
    for row in rows:
        for item, value in enumerate(row):
            if value is not None:
                counts[item, place[value]] += 1
    return counts, values


def _is_missing(value: object) -> bool:
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or type(value).__name__ == "NAType"
    )  # of pandas


def _distance(level: str, values: list[object]) -> Callable[[np.ndarray], np.ndarray]:
    """Squared distances between values, given how often each occurs (only ordinal asks)."""
    import numpy as np

    if level == "nominal":
        return lambda _: 1 - np.eye(len(values))
    if level == "interval":
        try:
            place = np.array(values, dtype=float)
        except (TypeError, ValueError):
            raise DesignError(
                "level is 'interval' but a label is not a number; use 'nominal'"
            ) from None
        return lambda _: np.subtract.outer(place, place) ** 2
    return _ordinal_distance


def _ordinal_distance(totals: np.ndarray) -> np.ndarray:
    """Between two ranks: how many values lie between them, each end counted half."""
    import numpy as np

    middle = np.cumsum(totals) - totals / 2
    return np.subtract.outer(middle, middle) ** 2


def _alpha(
    counts: np.ndarray, weights: np.ndarray, distance: Callable[[np.ndarray], np.ndarray]
) -> float | None:
    totals = weights @ counts
    delta = distance(totals)
    within = ((counts @ delta) * counts).sum(axis=1) / (counts.sum(axis=1) - 1)
    expected = float(totals @ delta @ totals)
    return (
        None
        if expected <= 0
        else 1 - float(weights @ within) * (float(totals.sum()) - 1) / expected
    )


def _agreement(counts: np.ndarray) -> float | None:
    m = counts.sum(axis=1)
    return (
        float(((counts * (counts - 1)).sum(axis=1) / (m * (m - 1))).mean()) if len(counts) else None
    )


def _notes(n: int, point: float | None) -> tuple[str, ...]:
    if n == 0:
        return ("no item has two ratings: agreement is undefined",)
    if point is None:
        return ("only one category was used: agreement beyond chance is undefined",)
    return ("a single item: no interval",) if n == 1 else ()
