"""A sharper comparison of per-user means by what the users did before the experiment."""

from __future__ import annotations

from dataclasses import replace

from evalkit.stats.ratio import (
    Levelled,
    MeanSums,
    MeanTest,
    Pair,
    RatioSums,
    checked_n,
    ratio_sums,
    square_sum,
    welch,
)
from evalkit.stats.tails import central, heavy, one_user


def cuped_test(control: Pair, treatment: Pair, *, alpha: float = 0.05) -> MeanTest:
    """`mean_test` made sharper by what each user did before the experiment; not for ratio metrics.

    Each variant is two arrays `(before, metric)`, one entry a user.

    Source: Deng, Xu, Kohavi & Walker 2013; as `ols("y ~ t + x_centred")` with HC1 errors, to order 1/n.

    Raises:
        DesignError: Arrays that do not match, or missing values.

    Example:
        >>> before, after = [1, 2, 3, 4], [1.1, 2.0, 3.1, 3.9]
        >>> round(cuped_test((before, after), (before, [y + 1 for y in after])).diff, 6)
        1.0
    """
    return cuped_test_from_sums(
        ratio_sums(*control, "control"), ratio_sums(*treatment, "treatment"), alpha=alpha
    )


def cuped_test_from_sums(
    control: RatioSums, treatment: RatioSums, *, alpha: float = 0.05
) -> MeanTest:
    """`cuped_test` from a few sums per variant: x is the covariate, y the metric.

    Raises:
        DesignError: Sums that no data can have.
    """
    moments = [_moments(control, "control"), _moments(treatment, "treatment")]
    spread, shared = sum(one["xx"] for one in moments), sum(one["xy"] for one in moments)
    slope = shared / spread if spread else 0.0
    n = control.n + treatment.n
    centre = (control.sum_x + treatment.sum_x) / n if n else 0.0
    levels = [_adjusted(one, slope, centre) for one in moments]
    plain = welch(
        levels[0], levels[1], (control.n, treatment.n), alpha, "CUPED, Welch's t on adjusted means"
    )
    return _weighed(plain, (control, treatment), slope)


def _weighed(plain: MeanTest, both: tuple[RatioSums, RatioSums], slope: float) -> MeanTest:
    """With what stands against a verdict: one user's share of the metric, and the tails of what is left after adjusting."""
    sides = {
        name: _of_metric(one) for name, one in zip(("control", "treatment"), both, strict=True)
    }
    notes, refused = one_user(sides)
    if not refused:
        more, refused = heavy([_tails(one, slope) for one in both], [one.n for one in both])
        notes += more
    told = (f"no verdict: {refused}",) if refused else ()
    return replace(plain, notes=(*plain.notes, *notes, *told), no_verdict=refused)


def _of_metric(one: RatioSums) -> MeanSums:
    return MeanSums(n=one.n, sum_y=one.sum_y, sum_yy=one.sum_yy, max_y=one.max_y, min_y=one.min_y)


def _tails(one: RatioSums, slope: float) -> tuple[float, float] | None:
    """Sums of squares and cubes of y - slope x about its mean; None without the third powers."""
    thirds = (one.sum_yyy, one.sum_xyy, one.sum_xxy, one.sum_xxx)
    if None in thirds:
        return None
    yyy, xyy, xxy, xxx = (float(cube or 0.0) for cube in thirds)
    squares = one.sum_yy - 2 * slope * one.sum_xy + slope**2 * one.sum_xx
    cubes = yyy - 3 * slope * xyy + 3 * slope**2 * xxy - slope**3 * xxx
    return central(one.n, one.sum_y - slope * one.sum_x, squares, cubes)


def _moments(sums: RatioSums, name: str) -> dict[str, float]:
    """Means and centred sums of squares and products."""
    n = max(checked_n(sums, name), 1)
    xx = square_sum(sums.sum_xx - sums.sum_x**2 / n, sums.sum_xx, name)
    yy = square_sum(sums.sum_yy - sums.sum_y**2 / n, sums.sum_yy, name)
    xy = sums.sum_xy - sums.sum_x * sums.sum_y / n
    return {"n": sums.n, "x": sums.sum_x / n, "y": sums.sum_y / n, "xx": xx, "xy": xy, "yy": yy}


def _adjusted(one: dict[str, float], slope: float, centre: float) -> Levelled:
    n = one["n"]
    if n == 0:
        return None, None
    squares = max(0.0, one["yy"] - 2 * slope * one["xy"] + slope**2 * one["xx"])
    squares = 0.0 if squares < 1e-13 * one["yy"] else squares
    return one["y"] - slope * (one["x"] - centre), (squares / (n - 1) / n) ** 0.5 if n > 1 else None
