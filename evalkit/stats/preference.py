"""Human votes: who wins, do sides matter, and what remains at equal length."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from evalkit import wording
from evalkit.errors import DesignError
from evalkit.stats.paired import mcnemar, paired_mean_test, tango_interval
from evalkit.stats.proportions import wilson
from evalkit.stats.regression import fitted_logit
from evalkit.stats.result import Result, Scale, between, codes_of, numbers, whole

if TYPE_CHECKING:
    import numpy as np

FEW_NEAR = 20  # votes near equal length below which the adjusted value rests on the fitted curve


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate(Result):
    """Win rate of the fine-tuned model, ties counted half; `estimate` is `score`, and 0.5 is even.

    Attributes:
        wins: Votes (or items, when several raters voted) for the fine-tuned model.
        losses: The same for the base model.
        ties: Neither.
        p_exact: With several raters, the exact sign-flip p over items where it decides (see `paired_mean_test`).
    """

    scale: ClassVar[Scale] = "percent"
    null: ClassVar[float] = 0.5
    unit: ClassVar[str] = "item"
    wins: int
    losses: int
    ties: int
    p_exact: float | None = None

    @property
    def score(self) -> float | None:
        """`(wins + ties / 2) / n`, or the mean of the items' scores."""
        return self.estimate

    def _deciding_p(self) -> float | None:
        return self.p_value if self.p_exact is None else self.p_exact


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterSampleTest(Result):
    """Preference among raters like these, who are a sample as the items are; 0.5 is even.

    Attributes:
        n: Items that every rater judged.
        n_raters: Raters.
        df: Degrees of freedom of t (Satterthwaite).
    """

    scale: ClassVar[Scale] = "percent"
    null: ClassVar[float] = 0.5
    unit: ClassVar[str] = "item"
    n_raters: int
    df: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionBias(Result):
    """How often the answer on side A was chosen, of all decided votes; `estimate` is `rate_slot_a`.

    `verdict` reads "better" when A is favoured and "worse" when B is: use the sentence, not the word.
    """

    scale: ClassVar[Scale] = "percent"
    null: ClassVar[float] = 0.5
    unit: ClassVar[str] = "vote"

    @property
    def rate_slot_a(self) -> float | None:
        """Share of decided votes for side A."""
        return self.estimate

    def _headline(self) -> str:
        words = {"better": "Side A is favoured", "worse": "Side B is favoured"}
        return words.get(self.verdict, "No position bias shown") + ", side A chosen"


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthAdjustedPreference(Result):
    """Preference for the fine-tuned model were both answers equally long; 0.5 is even.

    Attributes:
        raw_rate: The same without adjustment.
        length_odds_ratio: Odds of being preferred when longer by a standard deviation, over those at equal length.
        near_rate: Raw rate among votes on pairs of nearly equal length: what the fitted value must agree with.
        near_low: Wilson interval of `near_rate`.
        near_n: Votes behind it.
    """

    scale: ClassVar[Scale] = "percent"
    null: ClassVar[float] = 0.5
    unit: ClassVar[str] = "vote"
    raw_rate: float | None
    length_odds_ratio: float | None = None
    near_rate: float | None = None
    near_low: float | None = None
    near_high: float | None = None
    near_n: int = 0

    @property
    def explains(self) -> bool:
        """Whether length explains a preference: nothing is shown at equal length, and at most half of it is left."""
        if self.estimate is None or self.raw_rate is None or self.p_value is None:
            return False
        left, raw = self.estimate - 0.5, self.raw_rate - 0.5
        return self.p_value >= self.alpha and left * raw <= raw * raw / 2


def win_rate(wins: int, losses: int, ties: int, *, alpha: float = 0.05) -> WinRate:
    """Who wins? Exact sign test on the decided votes; the interval counts ties half.

    Source: the sign test, Dixon & Mood 1946; interval `0.5 + Tango(wins, losses, n) / 2`.

    Raises:
        DesignError: Not counts.

    Example:
        >>> print(win_rate(30, 12, 8))
        Better: 68.0% (95% interval 55.4% to 78.3%, p = 0.008, exact sign test, n = 50 items).
    """
    won, lost, tied = whole(wins, "wins"), whole(losses, "losses"), whole(ties, "ties")
    n, alpha = won + lost + tied, between(alpha, "alpha")
    low, high = tango_interval(won, lost, n, alpha=alpha)
    p_value = mcnemar(won, lost)[1] if n else None
    notes = ("every vote is a tie: p is 1",) if n and not won + lost else ()
    notes = (*notes, *_parted(p_value, low, high, alpha)) if n else ("no votes yet",)
    return WinRate(
        estimate=(won + tied / 2) / n if n else None,
        n=n,
        ci_low=None if low is None else 0.5 + low / 2,
        ci_high=None if high is None else 0.5 + high / 2,
        alpha=alpha,
        p_value=p_value,
        method="exact sign test",
        notes=notes,
        wins=won,
        losses=lost,
        ties=tied,
    )


def _parted(
    p_value: float | None, low: float | None, high: float | None, alpha: float
) -> tuple[str, ...]:
    """Says so where the test and the interval part: the test is exact and leaves ties out, the interval does neither."""
    if (
        p_value is None
        or low is None
        or high is None
        or (p_value < alpha) is not (low <= 0 <= high)
    ):
        return ()
    parted = (
        "the interval reaches even, but the exact test shows a difference"
        if p_value < alpha
        else "the interval lies on one side of even, but the exact test, which leaves ties out, shows no difference"
    )
    return (f"{parted}: the verdict follows the test",)


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
    import numpy as np

    if not all(hasattr(votes, "__len__") for votes in item_votes):
        raise DesignError(
            "item_votes needs a list of votes for each item; for one vote each use win_rate"
        )
    voted = [votes for votes in item_votes if len(votes)]
    if any(vote not in (-1, 0, 1) for votes in voted for vote in votes):
        raise DesignError("a vote is not -1 (base), 0 (tie) or 1 (fine-tuned)")
    means = np.array([float(np.mean(votes)) for votes in voted])
    won, lost = int((means > 0).sum()), int((means < 0).sum())
    if len(voted) == 1 or all(len(votes) == 1 for votes in voted):
        return win_rate(won, lost, len(voted) - won - lost, alpha=alpha)
    test = paired_mean_test(means / 2, alpha=alpha, largest=0.5)
    low, high = test.ci_low, test.ci_high
    return WinRate(
        estimate=None if test.estimate is None else 0.5 + test.estimate,
        n=len(voted),
        ci_low=None if low is None else max(0.0, 0.5 + low),
        ci_high=None if high is None else min(1.0, 0.5 + high),
        alpha=alpha,
        p_value=test.p_value,
        method="exact sign test on items"
        if test.t_score is None and test.p_value is not None
        else "t-test of item means",
        notes=tuple(one.replace("example", "item") for one in test.notes),
        p_exact=test.p_exact,
        wins=won,
        losses=lost,
        ties=len(voted) - won - lost,
    )


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
    import numpy as np
    from scipy.stats import t as student

    if len({len(row) for row in votes}) > 1:
        raise DesignError("every rater needs one entry for each item, None where not rated")
    if any(vote not in (-1, 0, 1, None) for row in votes for vote in row):
        raise DesignError("a vote is not -1 (base), 0 (tie) or 1 (fine-tuned)")
    whole_items = [item for item in zip(*votes, strict=True) if None not in item]
    table = np.array(whole_items, dtype=float).reshape(len(whole_items), len(votes)) / 2
    n, n_raters = table.shape
    mean = float(table.mean()) if table.size else None
    low = high = p_value = df = None
    notes = _too_few_to_sample(n, n_raters)
    if mean is not None and not notes:
        widest = [(float(student.isf(alpha / 2, df)), v, df) for v, df in _variances(table) if v]
        notes = () if widest else ("every vote is the same: nothing tells raters or items apart",)
        if widest:
            quantile, variance, df = max(widest, key=lambda one: one[0] * one[1] ** 0.5)
            half = quantile * variance**0.5
            low, high = max(0.0, 0.5 + mean - half), min(1.0, 0.5 + mean + half)
            p_value = max(float(2 * student.sf(abs(mean) / v**0.5, df)) for _, v, df in widest)
    return RaterSampleTest(
        estimate=None if mean is None else 0.5 + mean,
        n=n,
        ci_low=low,
        ci_high=high,
        alpha=alpha,
        p_value=p_value,
        method="raters and items crossed, the larger p of quasi-t and raters' t",
        notes=notes,
        n_raters=n_raters,
        df=df,
    )


def _too_few_to_sample(n: int, n_raters: int) -> tuple[str, ...]:
    if n_raters < 2:
        return ("one rater speaks for nobody else: at least two are needed, better five",)
    return ("no two items were judged by every rater",) if n < 2 else ()


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
    a, b = whole(slot_a, "slot_a"), whole(slot_b, "slot_b")
    n, alpha = a + b, between(alpha, "alpha")
    low, high = wilson(a, n, alpha)
    return PositionBias(
        estimate=a / n if n else None,
        n=n,
        ci_low=low,
        ci_high=high,
        alpha=alpha,
        p_value=mcnemar(a, b)[1] if n else None,
        method="exact binomial",
        notes=() if n else ("no decided votes yet",),
    )


def length_adjusted_preference(
    preferred: Iterable[Any],
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
    import numpy as np

    preferred, lengths = list(preferred), list(length_difference)
    owners = list(items) if items is not None else list(range(len(preferred)))
    if not len(preferred) == len(lengths) == len(owners):
        raise DesignError("preferred, length_difference and items need one entry for each vote")
    kept = [place for place, vote in enumerate(preferred) if vote in (0, 1)]
    votes = np.array([float(preferred[place]) for place in kept])
    lengths = numbers([lengths[place] for place in kept], "length_difference")
    codes, _ = codes_of([owners[place] for place in kept], len(kept))
    fitted = _equal_length_fit(votes, lengths, codes, between(alpha, "alpha"))
    dropped = len(preferred) - len(kept)
    notes = [f"{wording.plural(dropped, 'tie')} left out"] if dropped else []
    near = _near(votes, lengths, alpha)
    if fitted["estimate"] is not None and not near["near_n"]:
        fitted = dict.fromkeys(fitted)
        notes.append("no pair is of nearly equal length: no adjusted value exists")
    elif fitted["estimate"] is None:
        notes.append(
            "votes or lengths hardly vary, or length alone decides every vote: no adjusted value exists"
        )
    elif (
        near["near_n"] >= FEW_NEAR
        and not near["near_low"] <= fitted["estimate"] <= near["near_high"]
    ):
        notes.append(
            "the fitted value lies outside the interval of the pairs of nearly equal length"
        )
    elif near["near_n"] < FEW_NEAR:
        told = wording.plural(near["near_n"], "vote")
        notes.append(
            f"only {told} on pairs of nearly equal length: the value rests on the fitted curve"
        )
    return LengthAdjustedPreference(
        **fitted,
        **near,
        n=len(kept),
        alpha=alpha,
        method="logistic regression on tanh(length difference / sd), clustered by item",
        notes=tuple(notes),
        raw_rate=float(votes.mean()) if len(votes) else None,
    )


def _near(votes: np.ndarray, lengths: np.ndarray, alpha: float) -> dict[str, Any]:
    """Raw rate among pairs whose lengths differ by at most a quarter of what they differ by in the middle."""
    import numpy as np

    apart = abs(lengths)
    near = votes[apart <= np.median(apart) / 4] if len(lengths) else votes
    low, high = wilson(int(near.sum()), len(near), alpha)
    rate = float(near.mean()) if len(near) else None
    return {"near_rate": rate, "near_low": low, "near_high": high, "near_n": len(near)}


def _equal_length_fit(
    votes: np.ndarray, lengths: np.ndarray, codes: np.ndarray, alpha: float
) -> dict[str, Any]:
    """Intercept (as a share) and slope of the logit; all None where it does not exist."""
    import numpy as np
    from scipy.special import expit

    spread = float(lengths.std()) if len(lengths) else 0.0
    names = ("estimate", "ci_low", "ci_high", "p_value", "length_odds_ratio")
    if spread == 0 or len(set(codes.tolist())) < 3:
        return dict.fromkeys(names)
    bounded = np.tanh(lengths / spread)
    fit = fitted_logit(votes, np.column_stack([np.ones(len(votes)), bounded]), codes)
    if fit is None:
        return dict.fromkeys(names)
    low, high = fit.conf_int(alpha=alpha)[0]
    slope = float(np.exp(fit.params[1] * np.tanh(1)))
    return dict(
        zip(
            names,
            (expit(fit.params[0]), expit(low), expit(high), fit.pvalues[0], slope),
            strict=True,
        )
    )
