"""A few sums over a variant's users: all that a database has to hand over, and the levels with errors they say."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike

from evalkit.errors import DesignError
from evalkit.stats.result import numbers, whole

Level = tuple[float | None, float | None]  # a rate or mean, and its standard error

Moments = tuple[float, float]  # sums of squares and of cubes


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioSums:
    """All that is needed of one variant: over its users, x = requests and y = successes of each.

    For CUPED x is the covariate from before the experiment and y the metric. What may be None is looked at where it is there:
    third powers for the skewness, the largest and smallest user for one who outweighs the rest, `n_hit` (users with y > 0) and
    `n_miss` (users with y < x) for the exact test.
    """

    n: int
    sum_x: float
    sum_y: float
    sum_xx: float
    sum_xy: float
    sum_yy: float
    sum_xxx: float | None = None
    sum_xxy: float | None = None
    sum_xyy: float | None = None
    sum_yyy: float | None = None
    max_x: float | None = None
    max_y: float | None = None
    min_y: float | None = None
    n_hit: int | None = None
    n_miss: int | None = None

    def rate(self, name: str) -> Level:
        """The ratio and its standard error; the residuals y - ratio x sum to 0, so raw sums of squares do.

        Source: Deng, Knoblich & Lu 2018, delta method, with n - 1 variances.

        Raises:
            DesignError: Sums that no data can have.
        """
        n = checked_n(self, name)
        if self.sum_x < 0:
            raise DesignError(f"{name}'s requests sum to {self.sum_x:g}; need 0 or more")
        if self.sum_x == 0:
            return None, None
        rate = self.sum_y / self.sum_x
        squares = square_sum(self.squares(rate), self.sum_yy, name)
        return rate, (n * squares / (n - 1)) ** 0.5 / self.sum_x if n > 1 else None

    def squares(self, ratio: float) -> float:
        """Sum over the users of (y - ratio x)^2; rounding may leave it below 0."""
        return self.sum_yy - 2 * ratio * self.sum_xy + ratio**2 * self.sum_xx

    def cubes(self, ratio: float) -> float | None:
        """Sum of (y - ratio x)^3; None without the third powers."""
        xxx, xxy, xyy, yyy = self.sum_xxx, self.sum_xxy, self.sum_xyy, self.sum_yyy
        if xxx is None or xxy is None or xyy is None or yyy is None:
            return None
        return yyy - ratio**3 * xxx - 3 * ratio * (xyy - ratio * xxy)

    def moments(self, ratio: float) -> Moments | None:
        """Sums of squares and cubes of y - ratio x; None without the third powers."""
        cubes = self.cubes(ratio)
        return None if cubes is None else (max(0.0, self.squares(ratio)), cubes)

    def tails(self, slope: float) -> Moments | None:
        """The same of y - slope x about its mean."""
        total = self.sum_y - slope * self.sum_x
        return central(self.n, total, self.squares(slope), self.cubes(slope))

    def centred(self, name: str) -> tuple[float, float, float]:
        """Sums of squares and products of x and x, x and y, y and y about their means.

        Raises:
            DesignError: Sums that no data can have.
        """
        n = max(checked_n(self, name), 1)
        xx = square_sum(self.sum_xx - self.sum_x**2 / n, self.sum_xx, name)
        yy = square_sum(self.sum_yy - self.sum_y**2 / n, self.sum_yy, name)
        return xx, self.sum_xy - self.sum_x * self.sum_y / n, yy

    def is_part(self) -> bool:
        """Whether y can be a part of x for every user: then y^2 <= x y <= x^2 in the sums too."""
        slack = 1e-9 * abs(self.sum_xx)
        return (
            -slack <= self.sum_y <= self.sum_x + slack
            and self.sum_yy <= self.sum_xy + slack
            and self.sum_xy <= self.sum_xx + slack
        )

    def varies(self) -> bool:
        """Whether there is a success, and a request without one."""
        return 0 < self.sum_y < self.sum_x


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanSums:
    """All that is needed of one variant for a per-user mean; the rest is looked at where it is there."""

    n: int
    sum_y: float
    sum_yy: float
    sum_yyy: float | None = None
    max_y: float | None = None
    min_y: float | None = None

    def mean(self, name: str) -> Level:
        """The mean and its standard error.

        Raises:
            DesignError: Sums that no data can have.
        """
        n = checked_n(self, name)
        if n == 0:
            return None, None
        squares = square_sum(self.sum_yy - self.sum_y**2 / n, self.sum_yy, name)
        return self.sum_y / n, (squares / (n - 1) / n) ** 0.5 if n > 1 else None

    def tails(self) -> Moments | None:
        """Sums of squares and cubes about the mean."""
        return central(self.n, self.sum_y, self.sum_yy, self.sum_yyy)


def ratio_sums(x: ArrayLike, y: ArrayLike, name: str = "the group") -> RatioSums:
    """The sums of one variant from two arrays, one entry a user; None for third powers that overflow.

    Raises:
        DesignError: Arrays that do not match, or missing values.
    """
    x, y = numbers(x, f"{name}'s x"), numbers(y, f"{name}'s y")
    if len(x) != len(y):
        raise DesignError(
            f"{name} has x for {len(x)} users and y for {len(y)}; need both for each user"
        )
    sums = RatioSums(
        n=len(x),
        sum_x=float(x.sum()),
        sum_y=float(y.sum()),
        sum_xx=float(x @ x),
        sum_xy=float(x @ y),
        sum_yy=float(y @ y),
    )
    if not len(x):
        return sums
    with np.errstate(over="ignore", invalid="ignore"):
        thirds = [float(one) for one in (x @ (x * x), y @ (x * x), x @ (y * y), y @ (y * y))]
    xxx, xxy, xyy, yyy = (one if math.isfinite(one) else None for one in thirds)
    return replace(
        sums,
        sum_xxx=xxx,
        sum_xxy=xxy,
        sum_xyy=xyy,
        sum_yyy=yyy,
        max_x=float(x.max()),
        max_y=float(y.max()),
        min_y=float(y.min()),
        n_hit=int((y > 0).sum()),
        n_miss=int((y < x).sum()),
    )


def of_metric(sums: RatioSums) -> MeanSums:
    """The sums of y alone."""
    return MeanSums(**{one.name: getattr(sums, one.name) for one in fields(MeanSums)})


def checked_n(sums: RatioSums | MeanSums, name: str) -> int:
    """The users of one variant, once its sums are finite numbers."""
    for field in fields(sums):
        value, is_optional = getattr(sums, field.name), field.default is None
        if not (value is None and is_optional) and (value is None or not math.isfinite(value)):
            raise DesignError(
                f"{name}'s {field.name} is {value!r}; need a finite number (0 for a group without users)"
            )
    return whole(sums.n, f"{name}'s n")


def square_sum(squares: float, scale: float, name: str) -> float:
    """A sum of squares that rounding may leave a hair below 0; clearly below, the sums are wrong."""
    if squares < -1e-9 * abs(scale) - 1e-12:
        raise DesignError(
            f"{name}'s sums cannot come from data: a variance is negative; check how they were made"
        )
    return 0.0 if squares < 1e-13 * abs(scale) else squares


def central(n: int, total: float, squares: float, cubes: float | None) -> Moments | None:
    """Sums of squares and cubes about the mean; None where they are not known or rounding has eaten them."""
    mean = total / n if n else 0.0
    second = squares - n * mean**2
    if cubes is None or second <= 1e-6 * abs(squares):
        return None
    return second, cubes - 3 * mean * squares + 2 * n * mean**3
