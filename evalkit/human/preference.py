"""Which answers do people prefer? Everything a locked round can say, the item as the unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from evalkit.human import benchmark_view, checks, draw, missing, ratings
from evalkit.human.batch import made_from
from evalkit.human.ratings import LABELS, Rating
from evalkit.human.rounds import Progress, Round
from evalkit.records import Brief, EvalResult, Missing

if TYPE_CHECKING:
    import pandas as pd

    from evalkit.stats import (
        KrippendorffAlpha,
        PositionBias,
        RateInterval,
        RaterSampleTest,
        WinRate,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePreference:
    """The win rate within one slice, with Holm over all slices; where few items lean to a side they are tested exactly."""

    field: str
    slice: str
    result: WinRate
    p_adjusted: float | None

    @property
    def shown(self) -> bool:
        """Whether a preference is shown after Holm."""
        return self.p_adjusted is not None and self.p_adjusted < self.result.alpha

    @property
    def verdict(self) -> str:
        """By the adjusted p: the slice's own may say more than all slices together allow."""
        own = self.result.verdict
        return own if self.shown or own == "too early" else "no difference shown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCount:
    """How often a reason was given with a vote for either model, or with neither."""

    reason: str
    fine_tuned: int
    base: int
    neither: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Preference(Brief):
    """What people prefer.

    Attributes:
        withheld: Why nothing is shown, "" when the round is locked and decoded.
        stale: Whether it was made from other answers than the present ones; what the benchmark says is then left out.
        win_rate: The primary result: every item, identical answers as ties.
        asked_only: The same over the pairs people were shown.
        without_flagged: The same without raters that look careless; None when nobody does.
        by_rater: Each rater's own win rate over the pairs that rater judged.
        rater_sample: The same question for raters like these: raters and items both taken as a sample.
        labels: First-time votes by label.
        position: Side chosen in first-time decided votes; repeats would count one judgement twice.
        as_left: Fine-tuned wins among those while it stood on the left; `as_right` likewise.
        self_agreement: Same judgement on hidden repeats.
        length_adjusted: Preference were both answers equally long; None when that cannot be fitted.
        metrics: Where a metric and people both decide: how often they name the same model.
        disagreements: Pairs on which people and the benchmark disagree most.
        ratings: The votes themselves, un-blinded; none while nothing is shown.
        margin: The loss against 50% still accepted, where the question is whether the fine-tuned answers are no worse.
    """

    simulated: bool
    win_rate: WinRate
    asked_only: WinRate
    without_flagged: WinRate | None
    by_rater: Mapping[str, WinRate]
    rater_sample: RaterSampleTest
    identical: int
    labels: Mapping[str, int]
    position: PositionBias
    as_left: RateInterval
    as_right: RateInterval
    agreement: KrippendorffAlpha
    self_agreement: RateInterval
    raters: tuple[checks.RaterCheck, ...]
    reasons: tuple[ReasonCount, ...]
    round: str = ""
    withheld: str = ""
    stale: bool = False
    progress: tuple[Progress, ...] = ()
    lock: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    bound_to: Mapping[str, str] = field(default_factory=dict)
    length_adjusted: Any = None
    slices: tuple[SlicePreference, ...] = ()
    metrics: tuple[benchmark_view.MetricAgreement, ...] = ()
    disagreements: tuple[benchmark_view.Disagreement, ...] = ()
    missing: tuple[Missing, ...] = ()
    ratings: tuple[Rating, ...] = field(default=(), repr=False)
    margin: float | None = None

    @property
    def conclusion(self) -> str:
        """The verdict of the win rate, or where the question is "no worse" its interval against 50% less the margin."""
        return self.concluded(self.win_rate)

    def concluded(self, rate: Any) -> str:
        """The same of the win rate counted in another way."""
        from evalkit import stats

        if self.margin is None or rate.estimate is None:
            return rate.verdict
        kept = rate.ci_low is not None and rate.ci_low > rate.no_effect() - self.margin
        return stats.against_margin(rate.verdict, kept)

    def to_frame(self, by: Literal["vote", "rater", "slice"] = "vote") -> pd.DataFrame:
        """The votes as a tidy frame, or what was found of each rater or slice; without rows while results are sealed.

        Args:
            by: "vote" for one row a vote (see `frames.votes`), "rater" (`frames.raters`) or "slice" (`frames.slices`).
        """
        from evalkit.human import frames

        if by == "vote":
            return frames.votes(self.ratings)
        return frames.raters(self) if by == "rater" else frames.slices(self)


def read_preference(
    round_: Round | None,
    *,
    base_results: Sequence[EvalResult] = (),
    ft_results: Sequence[EvalResult] = (),
    bound_to: Mapping[str, str] | None = None,
    slice_fields: Sequence[str] = (),
    metric: str = "similarity",
    alpha: float = 0.05,
    power: float = 0.8,
    margin: float | None = None,
) -> Preference:
    """Analyses a round; before it is locked there is progress, and no result.

    Args:
        round_: None when no round was prepared yet.
        base_results: For the comparison of people with the benchmark; the base model's answers.
        ft_results: The fine-tuned model's answers.
        bound_to: Hashes of these answers; a round made from others is called stale.
        slice_fields: Slices to cut by.
        metric: Orders the pairs on which people and benchmark disagree.
        alpha: Two-sided level.
        power: For the number of pairs still needed.
        margin: The loss against 50% still accepted, where the question is whether the answers are no worse.

    Raises:
        DataError: A file of the round changed after the lock.
    """
    withheld = _withheld(round_)
    stale = round_ is not None and bound_to is not None and not made_from(round_.batch, bound_to)
    if round_ is None or withheld:
        return replace(_nothing_yet(round_, withheld, stale=stale, alpha=alpha), margin=margin)
    votes, key = ratings.unblind(round_), round_.key()
    found = _analysed(
        votes, identical=len(round_.batch.identical), reasons=round_.batch.reasons, alpha=alpha
    )
    pairs = () if stale else benchmark_view.compared(votes, base_results, ft_results)
    found = replace(
        found,
        stale=stale,
        margin=margin,
        round=round_.folder.name,
        progress=round_.progress(),
        lock=round_.lock_record(),
        models=key.models,
        bound_to=key.bound_to if stale or bound_to is None else bound_to,
        ratings=votes,
        slices=_slices(votes, slice_fields, alpha),
        length_adjusted=_length_adjusted([one for one in votes if one.kind == "asked"], alpha),
        metrics=benchmark_view.metric_agreement(pairs, alpha=alpha),
        disagreements=benchmark_view.disagreements(pairs, metric),
    )
    if stale:
        return replace(found, missing=(missing.for_present_answers(round_),))
    differing = draw.differing(base_results, ft_results) if base_results and ft_results else None
    return replace(found, missing=missing.to_settle(found, differing=differing, power=power))


def win_rate_of(round_: Round, *, alpha: float = 0.05) -> WinRate:
    """The primary result of a locked round, and nothing else of it.

    Raises:
        DesignError: The round is still open.
        DataError: A file of the round changed after the lock.
    """
    asked = [one for one in ratings.unblind(round_) if one.kind == "asked"]
    return _win_rate(asked, len(round_.batch.identical), alpha)


def _withheld(round_: Round | None) -> str:
    if round_ is None:
        return "No rating round was drawn yet: name the raters in study.yaml, then run notebook 03_rate."
    if round_.locked:
        return ""
    done, total = (
        sum(getattr(one, name) for one in round_.progress()) for name in ("done", "total")
    )
    return f"The round is open: {done} of {total} ratings are in. Results open when it is locked."


def _nothing_yet(round_: Round | None, withheld: str, *, stale: bool, alpha: float) -> Preference:
    empty = _analysed((), identical=0, reasons=(), alpha=alpha)
    if round_ is None:
        return replace(empty, withheld=withheld, missing=(missing.first_round(),))
    next_step = missing.for_present_answers(round_) if stale else missing.to_finish(round_)
    return replace(
        empty,
        withheld=withheld,
        stale=stale,
        missing=(next_step,),
        round=round_.folder.name,
        progress=round_.progress(),
        simulated=round_.batch.simulated,
    )


def _analysed(
    votes: Sequence[Rating], *, identical: int, reasons: Sequence[str], alpha: float
) -> Preference:
    from evalkit import stats

    asked = [one for one in votes if one.kind == "asked"]
    raters = checks.check_raters(votes)
    flagged = {one.rater for one in raters if one.flags}
    kept = [one for one in asked if one.rater not in flagged]
    decided = [one for one in asked if one.score]
    same = [first.label == again.label for first, again in checks.repeat_pairs(votes)]
    labels = Counter(one.label for one in asked)
    return Preference(
        simulated=any(one.simulated for one in votes),
        win_rate=_win_rate(asked, identical, alpha),
        asked_only=_win_rate(asked, 0, alpha),
        without_flagged=_win_rate(kept, identical, alpha) if flagged and kept else None,
        by_rater={one.rater: _rater_rate(asked, one.rater, alpha) for one in raters},
        rater_sample=stats.rater_sample_test(_table(asked, "score"), alpha=alpha),
        identical=identical,
        labels={label: labels[label] for label in LABELS},
        position=stats.position_bias(
            sum(one.choice == "left" for one in decided),
            sum(one.choice == "right" for one in decided),
            alpha=alpha,
        ),
        as_left=_wins([one for one in decided if one.fine_tuned_left], alpha),
        as_right=_wins([one for one in decided if not one.fine_tuned_left], alpha),
        agreement=stats.krippendorff_alpha(_table(asked, "label"), alpha=alpha),
        self_agreement=stats.rate_interval(sum(same), len(same), alpha=alpha),
        raters=raters,
        reasons=tuple(_reason(reason, asked) for reason in reasons),
    )


def _win_rate(asked: Sequence[Rating], identical: int, alpha: float) -> WinRate:
    from evalkit import stats

    items = [[one.score for one in votes] for votes in ratings.by_item(asked).values()]
    return stats.item_mean_test([*items, *[[0]] * identical], alpha=alpha)


def _wins(decided: Sequence[Rating], alpha: float) -> RateInterval:
    from evalkit import stats

    return stats.rate_interval(sum(one.score > 0 for one in decided), len(decided), alpha=alpha)


def _rater_rate(asked: Sequence[Rating], rater: str, alpha: float) -> WinRate:
    return _win_rate([one for one in asked if one.rater == rater], 0, alpha)


def _table(asked: Sequence[Rating], field: str) -> list[list[Any]]:
    """Raters x items, None where a rater did not vote."""
    said = {(one.rater, one.item_id): getattr(one, field) for one in asked}
    items = list(dict.fromkeys(one.item_id for one in asked))
    return [
        [said.get((rater, item)) for item in items]
        for rater in sorted({one.rater for one in asked})
    ]


def _reason(reason: str, asked: Sequence[Rating]) -> ReasonCount:
    given = Counter(one.score for one in asked if reason in one.reasons)
    return ReasonCount(reason=reason, fine_tuned=given[1], base=given[-1], neither=given[0])


def _slices(
    votes: Sequence[Rating], fields: Sequence[str], alpha: float
) -> tuple[SlicePreference, ...]:
    from evalkit import stats

    shown = {
        field: stats.folded([one.slices[field] for one in votes if field in one.slices])
        for field in fields
    }
    cuts = [(field, value) for field in fields for value in sorted(set(shown[field].values()))]
    asked = [one for one in votes if one.kind == "asked"]
    results = [
        _win_rate(
            [one for one in asked if shown[field].get(one.slices.get(field, "")) == value],
            0,
            alpha,
        )
        for field, value in cuts
    ]
    adjusted = stats.adjust([result.p_decides for result in results], method="holm")
    return tuple(
        SlicePreference(field=field, slice=value, result=result, p_adjusted=p)
        for (field, value), result, p in zip(cuts, results, adjusted, strict=True)
    )


def _length_adjusted(asked: Sequence[Rating], alpha: float) -> Any:
    from evalkit import stats

    decided = [one for one in asked if one.score]
    return stats.length_adjusted_preference(
        [one.score > 0 for one in decided],
        [one.longer for one in decided],
        [one.item_id for one in decided],
        alpha=alpha,
    )
