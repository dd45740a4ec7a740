"""People beside the benchmark: where a metric and the raters name the same model, and where they part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalkit.conversation import conversation_text
from evalkit.human.ratings import Rating, by_item
from evalkit.records import EvalResult

if TYPE_CHECKING:
    from evalkit.stats import RateInterval


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One rated example with both answers; `people` is the mean vote, -1 (base) to 1 (fine-tuned)."""

    example_id: str
    people: float
    base: EvalResult
    fine_tuned: EvalResult

    def gain(self, metric: str) -> float | None:
        """The metric's fine-tuned value minus its base value."""
        values = [_value(one, metric) for one in (self.base, self.fine_tuned)]
        return None if values[0] is None or values[1] is None else values[1] - values[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricAgreement:
    """Of the examples on which metric and people both decide: how many name the same model."""

    metric: str
    agreement: RateInterval
    undecided_by_metric: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """An example on which people prefer one answer and the metric the other; `gap` runs from 0 to 2."""

    example_id: str
    input: str
    expected: str
    base: str
    fine_tuned: str
    people: float
    metric: float
    gap: float
    messages: Sequence[Mapping[str, Any]] = ()


def compared(
    votes: Sequence[Rating], base: Sequence[EvalResult], fine_tuned: Sequence[EvalResult]
) -> tuple[Compared, ...]:
    """The rated examples whose answers are at hand."""
    first, second = _first(base), _first(fine_tuned)
    rated = {items[0].example_id: items for items in by_item(votes).values()}
    people = {who: sum(one.score for one in items) / len(items) for who, items in rated.items()}
    return tuple(
        Compared(example_id=who, people=score, base=first[who], fine_tuned=second[who])
        for who, score in people.items()
        if who in first and who in second
    )


def metric_agreement(
    pairs: Sequence[Compared], *, alpha: float = 0.05
) -> tuple[MetricAgreement, ...]:
    """One row a metric that the results carry; the form of an answer is none where it was not checked."""
    names = dict.fromkeys(
        ["exact_match", "format", *(name for pair in pairs for name in pair.base.scores)]
    )
    return tuple(
        _agreement(pairs, name, alpha)
        for name in names
        if any(pair.gain(name) is not None for pair in pairs)
    )


def disagreements(
    pairs: Sequence[Compared], metric: str, *, most: int = 10
) -> tuple[Disagreement, ...]:
    """The examples on which the metric and people pull apart, the farthest first."""
    known = metric if any(metric in pair.base.scores for pair in pairs) else "exact_match"
    apart = [
        (pair, gain)
        for pair in pairs
        if (gain := pair.gain(known)) is not None and gain * pair.people < 0
    ]
    ranked = sorted(apart, key=lambda one: (-abs(one[1] - one[0].people), one[0].example_id))
    return tuple(_disagreement(pair, gain) for pair, gain in ranked[:most])


def _agreement(pairs: Sequence[Compared], metric: str, alpha: float) -> MetricAgreement:
    from evalkit import stats

    gains = [(gain, pair.people) for pair in pairs if (gain := pair.gain(metric)) is not None]
    decided = [(gain > 0) == (people > 0) for gain, people in gains if gain and people]
    return MetricAgreement(
        metric=metric,
        agreement=stats.rate_interval(sum(decided), len(decided), alpha=alpha),
        undecided_by_metric=sum(not gain for gain, _ in gains),
    )


def _disagreement(pair: Compared, gain: float) -> Disagreement:
    return Disagreement(
        example_id=pair.example_id,
        input=conversation_text(pair.base.prompt),
        expected=pair.base.expected_text,
        base=pair.base.predicted,
        fine_tuned=pair.fine_tuned.predicted,
        people=pair.people,
        metric=gain,
        gap=abs(gain - pair.people),
        messages=pair.base.prompt,
    )


def _value(result: EvalResult, metric: str) -> float | None:
    own = {"exact_match": result.exact_match, "format": result.format_correct}
    value = own.get(metric, result.scores.get(metric))
    return None if value is None else float(value)


def _first(results: Sequence[EvalResult]) -> Mapping[str, EvalResult]:
    return {str(one.example_id): one for one in sorted(results, key=lambda one: -one.sample)}
