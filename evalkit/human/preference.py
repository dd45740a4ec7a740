"""Which answers do people prefer? Everything a locked round can say, the item as the unit, and the evidence made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import pandas as pd

from evalkit import evidence, stats
from evalkit.errors import DesignError, need_one_of
from evalkit.files import JsonObject, utc
from evalkit.human import ratings
from evalkit.human.batch import first_samples, n_differing
from evalkit.human.ratings import LABELS, Columns, RaterCheck, first_votes
from evalkit.human.round import LOCK, LOCKS, Lock, Progress, Round
from evalkit.records import Against, Brief, EvalResult, Missing
from evalkit.study import Study

EVEN = 0.02  # so close to an even split no round of people is long enough
MEASURED_VOTES, SLOWEST_GLANCE_S = 20, 5.0  # fewer or faster votes measure no pace
MOST_DISAGREEMENTS = 10
Withheld = Literal["", "no round", "open"]

_RATES = dict.fromkeys(("win_rate", "ci_low", "ci_high"), "Float64")
_CHECKS = ("gold_rate", "self_agreement", "others_rate", "left_rate", "left_p", "fast_rate")
_RATER: Columns = {
    "rater": "string",
    "votes": "Int64",
    **_RATES,
    **dict.fromkeys((*_CHECKS, "median_s"), "Float64"),
    "flags": "string",
}
_SLICE: Columns = {
    "field": "category",
    "slice": "string",
    **dict.fromkeys(("n", "wins", "losses", "ties"), "Int64"),
    **_RATES,
    **dict.fromkeys(("p_value", "p_adjusted"), "Float64"),
    "shown": "boolean",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePreference:
    """The win rate within one slice, with Holm over all slices; where few items lean to a side they are tested exactly."""

    field: str
    slice: str
    result: stats.WinRate
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


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricAgreement:
    """Of the examples on which metric and people both decide: how many name the same model."""

    metric: str
    agreement: stats.RateInterval
    undecided_by_metric: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One rated example with both answers.

    Attributes:
        people: The mean vote, -1 (base) to 1 (fine-tuned).
        metric: What the fine-tuned answer gains by the metric that ranks the disagreements; None where undefined.
    """

    example_id: str
    people: float
    base: EvalResult
    fine_tuned: EvalResult
    metric: float | None = None

    @property
    def gap(self) -> float:
        """How far people and the metric pull apart, 0 to 2; 0 where they name the same model."""
        gain = self.metric or 0.0
        return abs(gain - self.people) if gain * self.people < 0 else 0.0

    def gain(self, metric: str) -> float | None:
        """The metric's fine-tuned value minus its base value."""
        base, fine_tuned = (
            {**one.scores, "exact_match": one.exact_match, "format": one.format_correct}.get(metric)
            for one in (self.base, self.fine_tuned)
        )
        return None if base is None or fine_tuned is None else float(fine_tuned) - float(base)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Preference(Brief):
    """What people prefer.

    Attributes:
        withheld: Why nothing is shown: there is "no round", or it is "open"; "" when it is locked and decoded.
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
        votes: The votes themselves, un-blinded (see `ratings.unblind`); none while nothing is shown.
        margin: The loss against 50% still accepted, where the question is whether the fine-tuned answers are no worse.
    """

    simulated: bool
    win_rate: stats.WinRate
    asked_only: stats.WinRate
    without_flagged: stats.WinRate | None
    by_rater: Mapping[str, stats.WinRate]
    rater_sample: stats.RaterSampleTest
    identical: int
    labels: Mapping[str, int]
    position: stats.PositionBias
    as_left: stats.RateInterval
    as_right: stats.RateInterval
    agreement: stats.KrippendorffAlpha
    self_agreement: stats.RateInterval
    raters: tuple[RaterCheck, ...]
    reasons: tuple[ReasonCount, ...]
    votes: pd.DataFrame = field(repr=False, compare=False)
    round: str = ""
    withheld: Withheld = ""
    stale: bool = False
    progress: tuple[Progress, ...] = ()
    lock: Lock | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    bound_to: Mapping[str, str] = field(default_factory=dict)
    length_adjusted: stats.LengthAdjustedPreference | None = None
    slices: tuple[SlicePreference, ...] = ()
    metrics: tuple[MetricAgreement, ...] = ()
    disagreements: tuple[Compared, ...] = ()
    missing: tuple[Missing, ...] = ()
    margin: float | None = None

    @property
    def conclusion(self) -> str:
        """The verdict of the win rate, or where the question is "no worse" its interval against 50% less the margin."""
        return self.concluded(self.win_rate)

    def concluded(self, rate: stats.WinRate) -> str:
        """The same of the win rate counted in another way."""
        if self.margin is None or rate.estimate is None:
            return rate.verdict
        kept = rate.ci_low is not None and rate.ci_low > rate.no_effect() - self.margin
        return stats.against_margin(rate.verdict, kept)

    def to_frame(self, by: Literal["vote", "rater", "slice"] = "vote") -> pd.DataFrame:
        """The votes as a tidy frame, or what was found of each rater or slice; without rows while results are sealed.

        Args:
            by: "vote" for one row a vote (see `ratings.votes_frame`). "rater" for rater; votes, repeats and known pairs
                included; win_rate with ci_low and ci_high, over the pairs this rater judged; gold_rate, self_agreement,
                others_rate, left_rate, left_p, fast_rate and median_s (see `RaterCheck`); flags (the checks that stand
                out, joined by "; ", "" when none does); shares are fractions, missing where nothing tells. "slice" for field,
                slice; n, wins, losses and ties (items); win_rate with ci_low and ci_high; p_value, the one that decides;
                p_adjusted (Holm over all slices); shown (whether a preference is shown after it).
        """
        need_one_of(("vote", "rater", "slice"), "by", by)
        if by == "vote":
            return ratings.votes_frame(self.votes)
        if by == "rater":
            rows = [
                _counted(self.by_rater[one.rater], asdict(one) | {"flags": "; ".join(one.flags)})
                for one in self.raters
            ]
            return ratings.typed(rows, _RATER)
        rows = [_counted(one.result, asdict(one) | {"shown": one.shown}) for one in self.slices]
        return ratings.typed(rows, _SLICE)


def _counted(result: stats.WinRate, more: JsonObject) -> JsonObject:
    own = {"win_rate": result.estimate, "p_value": result.p_decides}
    return asdict(result) | own | more


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
    opened = round_ if round_ and round_.locked else None
    withheld: Withheld = "" if opened else "open" if round_ else "no round"
    stale = round_ is not None and bound_to is not None and not round_.batch.made_from(bound_to)
    present = {} if bound_to is None or stale else bound_to
    votes = ratings.unblind(opened) if opened else ratings.NO_VOTES
    asked = first_votes(votes)
    decided = asked.query("score != 0")
    raters = ratings.check_raters(votes)
    flagged = [one.rater for one in raters if one.flags]
    kept = asked.query("rater not in @flagged")
    identical = len(opened.batch.identical) if opened else 0
    choices, labels = Counter(decided["choice"]), Counter(asked["label"])
    pairs = _compared(asked, base_results, ft_results, metric) if opened and not stale else []
    apart = sorted((one for one in pairs if one.gap), key=lambda one: (-one.gap, one.example_id))
    length, key = None, opened.key() if opened else None
    if opened:
        won = [score > 0 for score in decided["score"]]
        lengths, items = list(decided["longer"]), list(decided["item_id"])
        length = stats.length_adjusted_preference(won, lengths, items, alpha=alpha)
    found = Preference(
        round=round_.folder.name if round_ else "",
        withheld=withheld,
        stale=stale,
        simulated=round_.batch.simulated if round_ and withheld else any(votes["simulated"]),
        progress=round_.progress() if round_ else (),
        lock=opened.lock_record() if opened else None,
        models=key.models if key else {},
        bound_to=(present or key.bound_to) if key else {},
        win_rate=_win_rate(asked, identical, alpha),
        asked_only=_win_rate(asked, 0, alpha),
        without_flagged=_win_rate(kept, identical, alpha) if flagged and len(kept) else None,
        by_rater={
            one.rater: _win_rate(asked.loc[asked["rater"] == one.rater], 0, alpha) for one in raters
        },
        rater_sample=stats.rater_sample_test(_table(asked, "score"), alpha=alpha),
        identical=identical,
        labels={label: labels[label] for label in LABELS},
        position=stats.position_bias(choices["left"], choices["right"], alpha=alpha),
        as_left=_rate(decided.query("side == 'left'")["score"] > 0, alpha),
        as_right=_rate(decided.query("side == 'right'")["score"] > 0, alpha),
        agreement=stats.krippendorff_alpha(_table(asked, "label"), alpha=alpha),
        self_agreement=_rate(ratings.same_again(votes), alpha),
        raters=raters,
        reasons=tuple(_reason(one, asked) for one in (opened.batch.reasons if opened else ())),
        votes=votes,
        length_adjusted=length,
        slices=_slices(votes, slice_fields if opened else (), alpha),
        metrics=_metrics(pairs, alpha),
        disagreements=tuple(apart[:MOST_DISAGREEMENTS]),
        margin=margin,
    )
    is_told = base_results and ft_results and opened and not stale
    differing = n_differing(base_results, ft_results) if is_told else None
    return replace(found, missing=_missing(found, round_, differing, power))


def _win_rate(asked: pd.DataFrame, identical: int, alpha: float) -> stats.WinRate:
    items = [own.tolist() for _, own in asked.groupby("item_id", sort=False)["score"]]
    return stats.item_mean_test([*items, *[[0]] * identical], alpha=alpha)


def _rate(hits: Iterable[bool], alpha: float) -> stats.RateInterval:
    marks = [*hits]
    return stats.rate_interval(sum(marks), len(marks), alpha=alpha)


def _table(asked: pd.DataFrame, column: str) -> list[list[object]]:
    """Raters x items, None where a rater did not vote."""
    table = asked.pivot(index="rater", columns="item_id", values=column)
    table = table.reindex(columns=asked["item_id"].unique()).astype(object)
    return table.where(table.notna(), None).to_numpy().tolist()


def _reason(reason: str, asked: pd.DataFrame) -> ReasonCount:
    named = [reason in one for one in asked["reasons"]]
    given = Counter(asked.loc[named, "score"])
    return ReasonCount(reason=reason, fine_tuned=given[1], base=given[-1], neither=given[0])


def _slices(
    votes: pd.DataFrame, fields: Sequence[str], alpha: float
) -> tuple[SlicePreference, ...]:
    asked, cuts = first_votes(votes), []
    for name in fields:
        shown = stats.folded([one[name] for one in votes["slices"] if name in one])
        own = asked.assign(cut=[shown.get(one.get(name, "")) for one in asked["slices"]])
        cuts += [(name, str(value), part) for value, part in own.groupby("cut")]
    results = [_win_rate(own, 0, alpha) for _, _, own in cuts]
    adjusted = stats.adjust([result.p_decides for result in results], method="holm")
    return tuple(
        SlicePreference(field=name, slice=value, result=result, p_adjusted=p)
        for (name, value, _), result, p in zip(cuts, results, adjusted, strict=True)
    )


# ---- people beside the benchmark: where a metric and the raters name the same model, and where they part


def _compared(
    asked: pd.DataFrame, base: Sequence[EvalResult], fine_tuned: Sequence[EvalResult], metric: str
) -> list[Compared]:
    """The rated examples whose answers are at hand; where no answer carries the metric, exact match takes its place."""
    first, second = first_samples(base), first_samples(fine_tuned)
    pairs = []
    for name, votes in asked.groupby("example_id", sort=False)["score"]:
        who, mean = str(name), sum(votes) / len(votes)
        if who in first and who in second:
            base_one, tuned = first[who], second[who]
            pairs.append(Compared(example_id=who, people=mean, base=base_one, fine_tuned=tuned))
    known = metric if any(metric in one.base.scores for one in pairs) else "exact_match"
    return [replace(one, metric=one.gain(known)) for one in pairs]


def _metrics(pairs: Sequence[Compared], alpha: float) -> tuple[MetricAgreement, ...]:
    """One row a metric that the results carry; the form of an answer is none where it was not checked."""
    found, scores = [], (name for one in pairs for name in one.base.scores)
    for metric in dict.fromkeys(["exact_match", "format", *scores]):
        known = [(gain, one.people) for one in pairs if (gain := one.gain(metric)) is not None]
        same = [(gain > 0) == (people > 0) for gain, people in known if gain and people]
        if known:
            rate, undecided = _rate(same, alpha), sum(not gain for gain, _ in known)
            found.append(
                MetricAgreement(metric=metric, agreement=rate, undecided_by_metric=undecided)
            )
    return tuple(found)


# ---- what would settle it, priced in pairs that the test set has and in hours at a pace that was really measured


def _missing(
    found: Preference, round_: Round | None, differing: int | None, power: float
) -> tuple[Missing, ...]:
    """What the round needs next; votes of two rounds are not added up, so a number is that of a whole new round.

    Args:
        found: The analysed round.
        round_: The round; None where there is none.
        differing: Pairs with different answers in the whole test set; None when not known.
        power: Wanted probability to show the preference.
    """
    if round_ is None:
        return (Missing(kind="no_round"),)
    if found.stale:
        return (Missing(kind="other_round", key=found.round, needed=len(round_.batch)),)
    if found.withheld:
        left = sum(one.total - one.done for one in found.progress)
        return (Missing(kind="open_round", more=left),)
    if found.conclusion in {"better", "worse", "not worse"}:
        return ()
    if not found.asked_only.n:
        return (Missing(kind="nothing_to_rate"),)
    return (_further(found, differing, power),)


def _further(found: Preference, differing: int | None, power: float) -> Missing:
    """A round that would show what this one did not: a preference, or a win rate not below 50% by the margin."""
    result, asked = found.win_rate, found.asked_only
    seen = Missing(
        kind="more_ratings", n=result.n, estimate=result.estimate, margin=found.margin, chance=power
    )
    decided, level = asked.wins + asked.losses, {"alpha": result.alpha, "power": power}
    if found.margin is None:
        rate = asked.wins / decided if decided else 0.5
        if even := abs(rate - 0.5) < EVEN:
            seen, rate = replace(seen, kind="even_split"), 0.5 + EVEN
        needed = stats.ratings_needed(rate, asked.ties / asked.n if decided else 0.0, **level)
    else:  # at the rate and the ties seen
        rate, even = 0.5 if result.estimate is None else result.estimate, False
        ties = min(result.ties / result.n, 2 * min(rate, 1 - rate))
        try:
            needed = stats.ratings_needed_no_worse(rate, found.margin, ties, **level)
        except DesignError:
            return replace(seen, kind="no_ratings_would")
    needed = max(needed, asked.n + 1)
    there = differing if differing is not None and differing < needed else None
    # the middle of the raters' median times, where people gave enough votes and did not just glance
    medians = sorted(one.median_s for one in found.raters)
    pace = medians[len(medians) // 2] if medians else 0.0
    is_measured = len(found.votes) >= MEASURED_VOTES and pace >= SLOWEST_GLANCE_S
    known = is_measured and not found.simulated and not even
    return replace(seen, needed=needed, there=there, pace_s=pace if known else None)


# ---- what the decision reads


def human_evidence(
    found: Preference, *, study: str, models: Mapping[str, str], bound_to: Mapping[str, str]
) -> evidence.HumanEvidence:
    """The layer's record; an open round carries no result.

    Args:
        found: The analysed round.
        study: Its study.
        models: Names for a round that is not decoded yet.
        bound_to: Hashes for a round that is not decoded yet; a decoded one brings its own.
    """
    result = found.win_rate
    return evidence.HumanEvidence(
        study=study,
        made_at=utc(),
        models=found.models or models,
        bound_to=found.bound_to or bound_to,
        simulated=found.simulated,
        metric="win rate, ties counted half",
        unit="items",
        primary=None if found.withheld else evidence.ReportedTest.of(result.to_dict()),
        missing=found.missing,
        details=evidence.HumanDetails.of(_details(found)),
    )


def results_against(home: Study, *, alpha: float = 0.05) -> tuple[Against, ...]:
    """Every locked round of people in this study that prefers the base, whatever answers it was made from.

    A round for former answers of a model of the same name still speaks: the name is all that says which model it was,
    and a model that people did not prefer is not mended by asking it again. A checkpoint with a name of its own is
    another model, of which the round says nothing. Further votes on the same answers, in another round, do not take
    back the first ones either. A locked round that cannot be read any more could have said anything, so it stands too;
    and so does one whose lock somebody removed.
    """
    folder, found = home.folder / "ratings", []
    were_locked = {path.parent for name in (LOCK, LOCKS) for path in folder.glob(f"*/{name}")}
    for one in sorted(were_locked):
        try:
            round_ = Round.open(one)
            key, asked = round_.key(), first_votes(ratings.unblind(round_))
            at = round_.lock_record()["locked_at"]
        except (ValueError, KeyError, TypeError, OSError) as why:  # a DataError is a ValueError
            fault = " ".join(str(why).split())
            found.append(Against(layer="human", source=one.name, models={}, fault=fault))
            continue
        result = _win_rate(asked, len(round_.batch.identical), alpha)
        if not round_.batch.simulated and result.verdict == "worse":
            about = Against(layer="human", source=one.name, models=key.models, at=at)
            seen = replace(about, bound_to=key.bound_to, win_rate=result.estimate, n=result.n)
            found.append(seen)
    return tuple(found)


def _details(found: Preference) -> JsonObject:
    told = {"round": found.round, "progress": [asdict(one) for one in found.progress]}
    if found.withheld:
        return told | {"withheld": found.withheld, "votes": 0}
    result = found.win_rate
    results: Mapping[str, stats.result.Result | None] = {
        "asked_only": found.asked_only,
        "without_flagged": found.without_flagged,
        "length_adjusted": found.length_adjusted,
        "rater_sample": found.rater_sample,
        "agreement": found.agreement,
        "self_agreement": found.self_agreement,
        "position_bias": found.position,
        "shown_left": found.as_left,
        "shown_right": found.as_right,
    }
    return told | {
        "identical": found.identical,
        "raters": [asdict(one) for one in found.raters],
        "lock": found.lock,
        "votes": sum(found.labels.values()),
        "labels": found.labels,
        "ties": found.labels["tie"],
        "both_bad": found.labels["both_bad"],
        "margin": found.margin,
        "conclusion": found.conclusion,
        "items": {"wins": result.wins, "losses": result.losses, "ties": result.ties},
        **{name: one and one.to_dict() for name, one in results.items()},
        "by_rater": {rater: one.to_dict() for rater, one in found.by_rater.items()},
        "reasons": [asdict(one) for one in found.reasons],
        "slices": [
            {"field": one.field, "slice": one.slice, "p_adjusted": one.p_adjusted}
            | one.result.to_dict()
            | {"verdict": one.verdict}
            for one in found.slices
        ],
        "metrics": [{"metric": one.metric, **one.agreement.to_dict()} for one in found.metrics],
    }
