"""Human votes: who wins, do sides matter, and what remains at equal length."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from evalkit import wording
from evalkit.errors import DesignError
from evalkit.stats.paired import mcnemar, paired_mean_test, tango_interval
from evalkit.stats.proportions import wilson
from evalkit.stats.regression import fitted_logit
from evalkit.stats.result import Result, Scale, between, codes_of, numbers, whole


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
        length_odds_ratio: Odds of being preferred per standard deviation of extra length.
    """

    scale: ClassVar[Scale] = "percent"
    null: ClassVar[float] = 0.5
    unit: ClassVar[str] = "vote"
    raw_rate: float | None
    length_odds_ratio: float | None = None


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
    notes = (
        ("no votes yet",) if not n else ("every vote is a tie: p is 1",) if not won + lost else ()
    )
    return WinRate(
        estimate=(won + tied / 2) / n if n else None,
        n=n,
        ci_low=None if low is None else 0.5 + low / 2,
        ci_high=None if high is None else 0.5 + high / 2,
        alpha=alpha,
        p_value=mcnemar(won, lost)[1] if n else None,
        method="exact sign test",
        notes=notes,
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

    With one vote for each item this is `win_rate`.

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
    if all(len(votes) == 1 for votes in voted):
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
    preferred: Any,
    length_difference: Any,
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

    Source: Dubois et al. 2024 (length-controlled win rate), here as a logit with a length term; the intercept
    is the preference at equal length.

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
    if fitted["estimate"] is None:
        notes.append(
            "votes or lengths hardly vary, or length alone decides every vote: no adjusted value exists"
        )
    return LengthAdjustedPreference(
        **fitted,
        n=len(kept),
        alpha=alpha,
        method="logistic regression on length, clustered by item",
        notes=tuple(notes),
        raw_rate=float(votes.mean()) if len(votes) else None,
    )


def _equal_length_fit(votes: Any, lengths: Any, codes: Any, alpha: float) -> dict[str, Any]:
    """Intercept (as a share) and slope of the logit; all None where it does not exist."""
    import numpy as np
    from scipy.special import expit

    spread = float(lengths.std()) if len(lengths) else 0.0
    names = ("estimate", "ci_low", "ci_high", "p_value", "length_odds_ratio")
    if spread == 0 or len(set(codes.tolist())) < 3:
        return dict.fromkeys(names)
    fit = fitted_logit(votes, np.column_stack([np.ones(len(votes)), lengths / spread]), codes)
    if fit is None:
        return dict.fromkeys(names)
    low, high = fit.conf_int(alpha=alpha)[0]
    slope = float(np.exp(fit.params[1]))
    return dict(
        zip(
            names,
            (expit(fit.params[0]), expit(low), expit(high), fit.pvalues[0], slope),
            strict=True,
        )
    )
