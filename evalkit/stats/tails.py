"""What carries a standard error: a few huge values make the test of a mean cry wolf, and one user can be a whole variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.stats.ratio import MeanSums, RatioSums

Moments = tuple[float, float]
LARGE, DOMINATING = 0.1, 1 / 3  # shares of a variant's requests, or of its sum, that one user holds
_FEWEST = 5.0  # of so few users each is a large share
KOHAVI = 355.0
LEANING = 0.2  # skewness of a difference from which its test rejects a true null clearly too often
REMEDY = "declare a cap_per_user in the plan, run longer, or split the traffic equally"


def one_user(
    arms: Mapping[str, MeanSums | RatioSums], *, rate: bool = False
) -> tuple[tuple[str, ...], str]:
    """Notes, and why there can be no verdict ("" when there can): the largest user's share of each variant.

    Of a rate only the requests are looked at: few events are a matter of the exact test.
    """
    notes, refused = [], ""
    for name, sums in arms.items():
        for what, share in _shares(sums, rate).items():
            said = f"one user holds {100 * share:.0f}% of {name}'s {what}"
            if share > max(DOMINATING, _FEWEST / sums.n):
                refused = refused or (
                    f"{said}: the difference is that user's, not the variant's; look at who it is (a bot, a test account), "
                    "and declare a cap_per_user in the plan"
                )
            elif share > max(LARGE, _FEWEST / sums.n):
                notes.append(f"{said}: the interval leans on that user")
    return tuple(notes), refused


def heavy(moments: Sequence[Moments | None], sizes: Sequence[int]) -> tuple[tuple[str, ...], str]:
    """Notes, and why there can be no verdict ("" when there can): skewness of a user's value against the number of users.

    Args:
        moments: Sums of squares and cubes about the middle, of each variant; None where they are not known.
        sizes: Users of each.

    Source: Kohavi, Deng, Longbotham & Xu 2014: a mean is near enough to normal from 355 skewness^2 users. The difference of two
    variants leans less, and not at all at an equal split: past a skewness of its own of 0.2 there is no verdict.
    """
    known = [one for one in moments if one]
    squares, cubes = (sum(one[at] for one in known) for at in (0, 1))
    if len(known) < len(moments) or min(sizes) < 2 or squares <= 0:
        return (), ""
    skew, least = cubes / squares**1.5 * sum(sizes) ** 0.5, min(sizes)
    needed, said = (
        KOHAVI * skew**2,
        f"heavy tails: single users' values have a skewness of {skew:.3g}",
    )
    if least >= needed:
        return (), ""
    if abs(lean_of_difference(skew, sizes)) <= LEANING:
        why = f"{least:,} users in the smaller variant are fewer than the {needed:,.0f} of the usual rule"
        return (f"{said}; {why}",), ""
    return (), (
        f"{said}, too much for {least:,} users in the smaller variant of an unequal split: a test would name winners where "
        f"there are none; {REMEDY}"
    )


def central(n: int, total: float, squares: float, cubes: float | None) -> Moments | None:
    """Sums of squares and cubes about the mean; None where they are not known or rounding has eaten them."""
    mean = total / n if n else 0.0
    second = squares - n * mean**2
    if cubes is None or second <= 1e-6 * abs(squares):
        return None
    return second, cubes - 3 * mean * squares + 2 * n * mean**3


def lean_of_difference(skew: float, sizes: Sequence[int]) -> float:
    """Skewness of the difference of two means of so many values of this skewness; 0 at an equal split."""
    old, new = sizes
    return skew * (old - new) / (old * new * (old + new)) ** 0.5


def _shares(sums: Any, rate: bool) -> dict[str, float]:
    shares: dict[str, float] = {}
    if getattr(sums, "max_x", None) is not None and sums.sum_x > 0:
        shares["requests"] = sums.max_x / sums.sum_x
    if rate or sums.max_y is None or sums.min_y is None:
        return shares
    if sums.min_y >= 0 and sums.sum_y > 0:
        shares["sum"] = sums.max_y / sums.sum_y
    return shares
