"""A sharper comparison of per-user means by what the users did before the experiment."""

from __future__ import annotations

from evalkit.stats.ratio import (
    Levelled,
    MeanTest,
    Pair,
    RatioSums,
    checked_n,
    ratio_sums,
    square_sum,
    welch,
)


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
    return welch(
        levels[0], levels[1], (control.n, treatment.n), alpha, "CUPED, Welch's t on adjusted means"
    )


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
