"""Human votes: who wins, do sides matter, what remains at equal length, and do the raters agree."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
from scipy.special import expit

from evalkit import wording
from evalkit.errors import DesignError
from evalkit.stats import result
from evalkit.stats.paired import fitted_logit, mcnemar, paired_mean_test, tango_interval
from evalkit.stats.proportions import wilson
from evalkit.stats.result import UNKNOWN, Limits, Result, Scale

FEW_NEAR = 20  # votes near equal length below which the adjusted value rests on the fitted curve
Rank = Literal["nominal", "ordinal", "interval"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteShare(Result):
    """A share of people or votes, of which 0.5 is even."""

    scale: ClassVar[Scale] = "percent"
    null: ClassVar[float] = 0.5
    unit: ClassVar[str] = "item"


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate(VoteShare):
    """Win rate of the fine-tuned model, ties counted half; `estimate` is `score`, and 0.5 is even.

    Attributes:
        wins: Votes (or items, when several raters voted) for the fine-tuned model.
        losses: The same for the base model.
        ties: Neither.
        p_exact: With several raters, the exact sign-flip p over items where it decides (see `paired_mean_test`).
    """

    deciding: ClassVar[tuple[str, ...]] = ("p_exact", "p_value")
    wins: int
    losses: int
    ties: int
    p_exact: float | None = None

    @property
    def score(self) -> float | None:
        """`(wins + ties / 2) / n`, or the mean of the items' scores."""
        return self.estimate

    @property
    def parts_from_interval(self) -> bool:
        """Whether the deciding `p_value` and the interval, side by side, say different things."""
        if self.p_value is None or self.p_exact is not None:
            return False
        is_even = self.ci_low is None or self.ci_high is None or self.ci_low <= 0.5 <= self.ci_high
        return (self.p_value < self.alpha) == is_even


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterSampleTest(VoteShare):
    """Preference among raters like these, who are a sample as the items are; 0.5 is even.

    Attributes:
        n: Items that every rater judged.
        n_raters: Raters.
        df: Degrees of freedom of t (Satterthwaite).
    """

    n_raters: int
    df: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionBias(VoteShare):
    """How often the answer on side A was chosen, of all decided votes; `estimate` is `rate_slot_a`.

    `verdict` reads "better" when A is favoured and "worse" when B is: use the sentence, not the word.
    """

    unit: ClassVar[str] = "vote"

    @property
    def rate_slot_a(self) -> float | None:
        """Share of decided votes for side A."""
        return self.estimate

    def _headline(self) -> str:
        words = {"better": "Side A is favoured", "worse": "Side B is favoured"}
        return words.get(self.verdict, "No position bias shown") + ", side A chosen"


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthAdjustedPreference(VoteShare):
    """Preference for the fine-tuned model were both answers equally long; 0.5 is even.

    Attributes:
        raw_rate: The same without adjustment.
        length_odds_ratio: Odds of being preferred when longer by a standard deviation, over those at equal length.
        near_rate: Raw rate among votes on pairs of nearly equal length: what the fitted value must agree with.
        near_low: Wilson interval of `near_rate`.
        near_n: Votes behind it.
    """

    unit: ClassVar[str] = "vote"
    raw_rate: float | None
    length_odds_ratio: float | None = None
    near_rate: float | None = None
    near_low: float | None = None
    near_high: float | None = None
    near_n: int = 0

    @property
    def near_is_few(self) -> bool:
        """Whether so few votes lie near equal length that the value rests on the fitted curve."""
        return 0 < self.near_n < FEW_NEAR

    @property
    def off_near(self) -> bool:
        """Whether the value lies outside the interval of the votes near equal length, where they are enough to say so."""
        lowest, highest = self.near_low or 0.0, self.near_high or 0.0
        known = self.estimate is not None and self.near_n >= FEW_NEAR
        return known and not lowest <= (self.estimate or 0.0) <= highest

    @property
    def explains(self) -> bool:
        """Whether length explains a preference: nothing is shown at equal length, and at most half of it is left."""
        if self.estimate is None or self.raw_rate is None or self.p_value is None:
            return False
        left, raw = self.estimate - 0.5, self.raw_rate - 0.5
        return self.p_value >= self.alpha and left * raw <= raw * raw / 2


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
    with_sign: ClassVar[bool] = False
    percent_agreement: float | None
    level: str
    n_raters: int

    def _headline(self) -> str:
        return "Krippendorff's alpha"


def win_rate(wins: int, losses: int, ties: int, *, alpha: float = 0.05) -> WinRate:
    """Who wins? Exact sign test on the decided votes; the interval counts ties half.

    Source: the sign test, Dixon & Mood 1946; interval `0.5 + Tango(wins, losses, n) / 2`.

    Raises:
        DesignError: Not counts.

    Example:
        >>> print(win_rate(30, 12, 8))
        Better: 68.0% (95% interval 55.4% to 78.3%, p = 0.008, exact sign test, n = 50 items).
    """
    won, lost, tied = (
        result.whole(wins, "wins"),
        result.whole(losses, "losses"),
        result.whole(ties, "ties"),
    )
    n, alpha = won + lost + tied, result.between(alpha, "alpha")
    low, high = tango_interval(won, lost, n, alpha=alpha)
    p_value = mcnemar(won, lost)[1] if n else None
    is_shown = p_value is not None and p_value < alpha
    is_even = low is None or high is None or low <= 0 <= high
    notes = {
        "no votes yet": not n,
        "every vote is a tie: p is 1": n and not won + lost,
        "interval and exact test differ: the verdict follows the test, which leaves ties out": n
        and is_shown == is_even,
    }
    limits = result.moved((low, high), 0.5, 0.5)
    return WinRate(
        **result.measured(
            (won + tied / 2) / n if n else None, n, limits, alpha=alpha, p_value=p_value
        ),
        method="exact sign test",
        notes=result.noted(notes),
        wins=won,
        losses=lost,
        ties=tied,
    )


def item_mean_test(item_votes: Sequence[Sequence[float]], *, alpha: float = 0.05) -> WinRate:
    """Who wins when several raters vote on each item? The item is the unit: t-test of item means.

    Where fewer than 30 items lean to a side, or all lean alike, the exact test on items decides.

    Args:
        item_votes: For each item its votes: 1 fine-tuned, 0 tie, -1 base. Items without votes are left out.
        alpha: Two-sided level.

    With one vote for each item, or one item, this is `win_rate`.

    Source: summary-measure analysis, Matthews et al. 1990.

    Raises:
        DesignError: A vote other than -1, 0, 1.

    Example:
        >>> item_mean_test([[1, 1, 0], [1, -1, 1], [0, 1, 1], [1, 1, 1], [1, 0, 0], [1, 1, 0]]).verdict
        'better'
        >>> print(item_mean_test([[1, 1, 1]] * 50))
        Better: 100.0% (95% interval 92.9% to 100.0%, p < 0.0001, exact sign test on items, n = 50 items).
    """
    if not all(hasattr(votes, "__len__") for votes in item_votes):
        raise DesignError(
            "item_votes needs a list of votes for each item; for one vote each use win_rate"
        )
    voted = [votes for votes in item_votes if len(votes)]
    if any(vote not in (-1, 0, 1) for votes in voted for vote in votes):
        raise DesignError("a vote is not -1 (base), 0 (tie) or 1 (fine-tuned)")
    means = np.array([float(np.mean(votes)) for votes in voted])
    n, won, lost = len(voted), int((means > 0).sum()), int((means < 0).sum())
    if n == 1 or all(len(votes) == 1 for votes in voted):
        return win_rate(won, lost, n - won - lost, alpha=alpha)
    test = paired_mean_test(means / 2, alpha=alpha, largest=0.5, noun="item")
    score = None if test.estimate is None else 0.5 + test.estimate
    limits = _within(result.moved((test.ci_low, test.ci_high), 0.5))
    is_exact = test.t_score is None and test.p_value is not None
    return WinRate(
        **result.measured(score, n, limits, alpha=alpha, p_value=test.p_value),
        method="exact sign test on items" if is_exact else "t-test of item means",
        notes=test.notes,
        p_exact=test.p_exact,
        wins=won,
        losses=lost,
        ties=n - won - lost,
    )


def _within(limits: Limits) -> Limits:
    """Limits of a share, from 0 to 1."""
    low, high = limits
    return None if low is None else max(0.0, low), None if high is None else min(1.0, high)


def rater_sample_test(votes: Sequence[Sequence[float]], *, alpha: float = 0.05) -> RaterSampleTest:
    """Would other raters like these prefer it too? Items and raters both random, crossed.

    Args:
        votes: Raters x items, each 1 fine-tuned, 0 tie, -1 base; None where a rater did not vote. Items that not every
            rater judged are left out.
        alpha: Two-sided level.

    A rater's own taste moves all of that rater's votes together, so two or three raters say little about others; one
    says nothing. Ties that nobody was asked about do not belong here.

    Source: quasi-t of the two-way random model without replication, Cochran 1951 and Satterthwaite 1946, as Judd,
    Westfall & Kenny 2012 use it for participants crossed with stimuli.

    Raises:
        DesignError: Raters with different numbers of items, or a vote other than -1, 0, 1.

    Example:
        >>> one = [1, 1, 0, 1, -1, 1, 1, 1]
        >>> rater_sample_test([one, one, one]).verdict
        'better'
        >>> rater_sample_test([one, [-vote for vote in one]]).estimate
        0.5
    """
    from scipy.stats import t as student

    if len({len(row) for row in votes}) > 1:
        raise DesignError("every rater needs one entry for each item, None where not rated")
    if any(vote not in (-1, 0, 1, None) for row in votes for vote in row):
        raise DesignError("a vote is not -1 (base), 0 (tie) or 1 (fine-tuned)")
    whole_items = [item for item in zip(*votes, strict=True) if None not in item]
    table = np.array(whole_items, dtype=float).reshape(len(whole_items), len(votes)) / 2
    n, n_raters = table.shape
    mean = float(table.mean()) if table.size else None
    limits, p_value, df, note = UNKNOWN, None, None, ""
    if n_raters < 2:
        note = "one rater speaks for nobody else: at least two are needed, better five"
    elif n < 2:
        note = "no two items were judged by every rater"
    elif mean is not None:
        spread = [(float(student.isf(alpha / 2, df)), v, df) for v, df in _variances(table) if v]
        note = "" if spread else "every vote is the same: nothing tells raters or items apart"
        if spread:
            quantile, variance, df = max(spread, key=lambda one: one[0] * one[1] ** 0.5)
            half = quantile * variance**0.5
            limits = _within((0.5 + mean - half, 0.5 + mean + half))
            p_value = max(float(2 * student.sf(abs(mean) / v**0.5, df)) for _, v, df in spread)
    score = None if mean is None else 0.5 + mean
    return RaterSampleTest(
        **result.measured(score, n, limits, alpha=alpha, p_value=p_value),
        method="raters and items crossed, the larger p of quasi-t and raters' t",
        notes=(note,) if note else (),
        n_raters=n_raters,
        df=df,
    )


def _variances(table: np.ndarray) -> list[tuple[float, float]]:
    """Variance of the grand mean and its degrees of freedom, crossed and among raters alone; items x raters.

    The residual is subtracted only as far as it leaves the larger of the two one-way variances. With two or three
    raters the crossed one is too small where their tastes happen to look alike (simulated: 8 to 11% for 5%), so the
    raters' own t stands beside it and the larger p counts.
    """
    n, n_raters = table.shape
    items, raters = table.mean(axis=1), table.mean(axis=0)
    rest = table - items[:, None] - raters[None, :] + table.mean()
    cells = n * n_raters
    squares = {
        "items": (n_raters * items.var(ddof=1), n - 1),
        "raters": (n * raters.var(ddof=1), n_raters - 1),
        "rest": ((rest**2).sum() / ((n - 1) * (n_raters - 1)), (n - 1) * (n_raters - 1)),
    }
    (by_item, _), (by_rater, _), (residual, _) = squares.values()
    variance = max(by_item + by_rater - residual, by_item, by_rater) / cells
    spread = sum((square / cells) ** 2 / df for square, df in squares.values())
    crossed = (float(variance), float(variance**2 / spread)) if variance > 1e-15 else (0.0, 1.0)
    return [crossed, (float(by_rater / cells) if by_rater / cells > 1e-15 else 0.0, n_raters - 1)]


def position_bias(slot_a: int, slot_b: int, *, alpha: float = 0.05) -> PositionBias:
    """Do raters favour a side? Exact binomial test of A against B, whatever model stood there.

    Source: `scipy.stats.binomtest`; Wilson interval.

    Raises:
        DesignError: Not counts.

    Example:
        >>> print(position_bias(30, 20))
        No position bias shown, side A chosen: 60.0% (95% interval 46.2% to 72.4%, p = 0.20, exact binomial, n = 50 votes).
    """
    a, b = result.whole(slot_a, "slot_a"), result.whole(slot_b, "slot_b")
    n, alpha = a + b, result.between(alpha, "alpha")
    rate, p_value = (a / n, mcnemar(a, b)[1]) if n else (None, None)
    return PositionBias(
        **result.measured(rate, n, wilson(a, n, alpha), alpha=alpha, p_value=p_value),
        method="exact binomial",
        notes=() if n else ("no decided votes yet",),
    )


def length_adjusted_preference(
    preferred: Iterable[float | None],
    length_difference: Iterable[float],
    items: Sequence[Hashable] | None = None,
    *,
    alpha: float = 0.05,
) -> LengthAdjustedPreference:
    """Is the fine-tuned answer preferred for more than its length? Logistic regression, clustered by item.

    Args:
        preferred: 1 fine-tuned, 0 base, 0.5 or None a tie (left out), one a vote.
        length_difference: Length of the fine-tuned answer - length of the base answer, one a vote.
        items: The item of each vote; each vote its own when not given.
        alpha: Two-sided level.

    Source: Dubois et al. 2024 (length-controlled win rate): a logit on `tanh(difference / sd)`, so that a text twice too
    long counts no more than one that is long; the intercept is the preference at equal length. Where no pair lies
    near equal length, nothing is said: it would be read off a line where there is no data.

    Raises:
        DesignError: Lists that do not match.

    Example:
        >>> test = length_adjusted_preference([1, 1, 1, 0, 0, 1, 0, 1], [40, 35, 5, -30, -10, -5, 10, 60])
        >>> round(test.raw_rate, 3), test.verdict
        (0.625, 'no difference shown')
    """
    preferred, lengths = list(preferred), list(length_difference)
    owners = list(items) if items is not None else list(range(len(preferred)))
    if not len(preferred) == len(lengths) == len(owners):
        raise DesignError("preferred, length_difference and items need one entry for each vote")
    kept = [place for place, vote in enumerate(preferred) if vote in (0, 1)]
    votes = np.array([preferred[place] for place in kept], dtype=float)
    lengths = result.numbers([lengths[place] for place in kept], "length_difference")
    codes, _ = result.codes_of([owners[place] for place in kept], len(kept))
    fitted = _equal_length_fit(votes, lengths, codes, result.between(alpha, "alpha"))
    # Near in length are pairs that differ by at most a quarter of what they differ by in the middle.
    near = votes[abs(lengths) <= np.median(abs(lengths)) / 4] if len(votes) else votes
    near_low, near_high = wilson(int(near.sum()), len(near), alpha)
    n_dropped, known = len(preferred) - len(kept), fitted if len(near) else None
    estimate, low, high, p_value, odds_ratio = known or [None] * 5
    found = LengthAdjustedPreference(
        **result.measured(estimate, len(kept), (low, high), alpha=alpha, p_value=p_value),
        method="logistic regression on tanh(length difference / sd), clustered by item",
        raw_rate=float(votes.mean()) if len(votes) else None,
        length_odds_ratio=odds_ratio,
        near_rate=float(near.mean()) if len(near) else None,
        near_low=near_low,
        near_high=near_high,
        near_n=len(near),
    )
    near_by = "pairs of nearly equal length"
    few = f"only {wording.plural(len(near), 'vote')} on {near_by}: the value rests on the curve"
    unfit = "votes or lengths hardly vary, or length decides every vote: no adjusted value exists"
    notes = {
        f"{wording.plural(n_dropped, 'tie')} left out": n_dropped,
        unfit: not fitted,
        f"no {near_by}: no adjusted value exists": fitted and not known,
        few: known and found.near_is_few,
        f"the fitted value lies outside the interval of the {near_by}": found.off_near,
    }
    return replace(found, notes=result.noted(notes))


def _equal_length_fit(
    votes: np.ndarray, lengths: np.ndarray, codes: np.ndarray, alpha: float
) -> list[float] | None:
    """The logit's intercept as a share, its limits and p, and the odds ratio of the slope; None where it does not exist."""
    spread = float(lengths.std()) if len(lengths) else 0.0
    if spread == 0 or len(set(codes.tolist())) < 3:
        return None
    design = np.column_stack([np.ones(len(votes)), np.tanh(lengths / spread)])
    fit = fitted_logit(votes, design, codes)
    if fit is None:
        return None
    shares = expit([fit.params[0], *fit.conf_int(alpha=alpha)[0]])
    return [*shares.tolist(), float(fit.pvalues[0]), float(np.exp(fit.params[1] * np.tanh(1)))]


def krippendorff_alpha(
    ratings: Sequence[Sequence[object]],
    level: Rank = "nominal",
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
    counts, places = _value_counts(ratings, level)
    alpha = result.between(alpha, "alpha")
    pairable = counts[counts.sum(axis=1) > 1]
    n = len(pairable)
    point = _alpha(pairable, np.ones(n), level, places) if n else None
    limits = UNKNOWN
    if point is not None and n > 1:
        draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
        sample = [_alpha(pairable, weights, level, places) for weights in draws]
        ends = np.quantile([one for one in sample if one is not None], [alpha / 2, 1 - alpha / 2])
        limits = ends[0], ends[1]
    notes = {
        "no item has two ratings: agreement is undefined": n == 0,
        "only one category was used: agreement beyond chance is undefined": n and point is None,
        "a single item: no interval": n == 1 and point is not None,
    }
    m = pairable.sum(axis=1)
    agreeing = (pairable * (pairable - 1)).sum(axis=1) / (m * (m - 1))
    return KrippendorffAlpha(
        **result.measured(point, n, limits, alpha=alpha),
        method=f"{level}, bootstrap over items",
        notes=result.noted(notes),
        percent_agreement=float(agreeing.mean()) if n else None,
        level=level,
        n_raters=len(ratings),
    )


def _value_counts(ratings: Sequence[Sequence[object]], level: str) -> tuple[np.ndarray, np.ndarray]:
    """Items x values, how many raters gave an item that value; and where the values lie, which only intervals ask."""
    if level not in ("nominal", "ordinal", "interval"):
        raise DesignError(f"level is {level!r}; need 'nominal', 'ordinal' or 'interval'")
    if isinstance(ratings, Mapping):
        ratings = list(ratings.values())
    ratings = getattr(ratings, "to_numpy", lambda: ratings)()
    is_list = all(hasattr(row, "__len__") and not isinstance(row, str) for row in ratings)
    if not is_list or len({len(row) for row in ratings}) > 1:
        need = "one entry for each item, None where not rated"
        raise DesignError(f"ratings need a list for each rater, with {need}")
    items = [[None if pd.isna(one) else one for one in item] for item in zip(*ratings, strict=True)]
    found = {one for item in items for one in item if one is not None}
    try:
        values = sorted(found, key=repr if level == "nominal" else None)
        places = np.array(values if level == "interval" else [], dtype=float)
    except (TypeError, ValueError):
        what = "not all numbers" if level == "interval" else "without an order"
        raise DesignError(f"level is {level!r} but the labels are {what}; use 'nominal'") from None
    counts = [[item.count(value) for value in values] for item in items]
    return np.array(counts, dtype=float).reshape(len(items), len(values)), places


def _alpha(counts: np.ndarray, weights: np.ndarray, level: str, places: np.ndarray) -> float | None:
    totals = weights @ counts
    if level == "ordinal":  # between two ranks lie so many values, each end counted half
        places = np.cumsum(totals) - totals / 2
    squares = np.subtract.outer(places, places) ** 2
    delta = 1 - np.eye(len(totals)) if level == "nominal" else squares
    within = ((counts @ delta) * counts).sum(axis=1) / (counts.sum(axis=1) - 1)
    expected = float(totals @ delta @ totals)
    if expected <= 0:
        return None
    return 1 - float(weights @ within) * (float(totals.sum()) - 1) / expected
