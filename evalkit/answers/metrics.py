"""Metrics: an answer's value of each, and what they come to per model."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from evalkit import stats, wording
from evalkit.answers.scoring import SCORERS, score
from evalkit.files import JsonObject
from evalkit.records import Brief, EvalResult


def value(result: EvalResult, metric: str) -> float | None:
    """One answer's value of a metric: `exact_match`, `format`, a score it carries, or a built-in scorer's.

    None where it is undefined, and of an answer that was scored without it.
    """
    if metric in {"exact_match", "format"}:
        given = result.exact_match if metric == "exact_match" else result.format_correct
        return None if given is None else float(given)
    if metric in result.scores:
        return result.scores[metric]
    if metric not in SCORERS or result.exact_match is None:  # of the latter nothing is expected
        return None
    return score(SCORERS[metric], result.right, result.predicted, result.outcome)


def carries(results: Iterable[EvalResult], metric: str) -> bool:
    """Whether any of these answers was scored by a metric, or can be by what it holds.

    Example:
        >>> carries([EvalResult(0, "q", "a", "a", True, None)], "format")
        False
    """
    if metric == "format":
        return any(one.format_correct is not None for one in results)
    if metric == "exact_match" or metric in SCORERS:
        return any(one.exact_match is not None or metric in one.scores for one in results)
    return any(metric in one.scores for one in results)


def metric_names(results: Sequence[EvalResult]) -> tuple[str, ...]:
    """Every metric these results carry: exact_match, format, similarity (where they are defined) first."""
    own = dict.fromkeys(name for one in results for name in one.scores if name != "exact")
    first = ("exact_match", "format", "similarity")
    ours = [name for name in first if not results or carries(results, name)]
    return tuple(dict.fromkeys([*ours, *own]))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Metrics(Brief):
    """One model's metrics over a test set; rates are fractions, None when there is no example.

    Attributes:
        total_examples: Examples, whatever their outcome: the denominator of every rate.
        total_answers: Answers; more than examples when each was asked several times.
        format_accuracy: None too where no checker was asked ("none").
        avg_similarity: Mean over examples; an answer that failed counts as 0.
        by_metric: Every metric's mean with its interval, by name.
        outcomes: Answers by outcome.
    """

    total_examples: int
    exact_match_rate: float | None
    format_accuracy: float | None
    avg_similarity: float | None
    min_similarity: float | None
    total_answers: int
    by_metric: Mapping[str, Any] = field(default_factory=dict)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> JsonObject:
        """Plain values, ready for JSON."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        by_metric = {name: one.to_dict() for name, one in self.by_metric.items()}
        more = {"outcomes": dict(self.outcomes), "notes": list(self.notes)}
        return {**plain, "by_metric": by_metric, **more}

    def __str__(self) -> str:
        if not self.total_examples:
            return "No examples, so no rates."
        form, percent = self.format_accuracy, wording.percent
        return (
            f"{wording.plural(self.total_examples, 'example')}: exact match {percent(self.exact_match_rate)}, "
            f"{'' if form is None else f'format {percent(form)}, '}similarity {wording.number(self.avg_similarity)}."
        )

    def _repr_html_(self) -> str:
        rows: dict[str, object] = {"examples": self.total_examples}
        for name, one in self.by_metric.items():
            value, low, high = map(_in_table, (one.estimate, one.ci_low, one.ci_high))
            rows[name] = f"{value} ({low} to {high})"
        return wording.html_table({**rows, **self.outcomes, "notes": " ".join(self.notes)})


_in_table = partial(wording.number, digits=3)


def compute_metrics(results: Iterable[EvalResult], *, alpha: float = 0.05) -> Metrics:
    """One model's metrics, with an interval each; samples of one example are averaged first.

    Args:
        results: One entry an answer.
        alpha: 1 - coverage of the intervals.

    Returns:
        With no results at all: None for every rate, and a note.

    Example:
        >>> compute_metrics([EvalResult(0, "2+2", "4", "4", True, True), EvalResult(1, "3+3", "6", "5", False, True)])
        ... # doctest: +ELLIPSIS
        Metrics(total_examples=2, exact_match_rate=0.5, format_accuracy=1.0, avg_similarity=0.5, ...
    """
    answers = list(results)
    groups, notes = _examples(answers)
    by_metric = {name: _interval(groups, name, alpha) for name in metric_names(answers)}
    rates = {name: one.estimate for name, one in by_metric.items()}
    similarities = [value(one, "similarity") for one in answers]
    return Metrics(
        total_examples=len(groups),
        exact_match_rate=rates.get("exact_match"),
        format_accuracy=rates.get("format"),
        avg_similarity=rates.get("similarity"),
        min_similarity=min((one for one in similarities if one is not None), default=None),
        total_answers=len(answers),
        by_metric=by_metric,
        outcomes=dict(Counter(one.outcome for one in answers).most_common()),
        notes=notes,
    )


def _examples(answers: list[EvalResult]) -> tuple[list[list[EvalResult]], tuple[str, ...]]:
    """The samples of each example; an id's n-th row is an example of its own."""
    seen = Counter[tuple[str, int]]()
    groups = defaultdict[tuple[str, int], list[EvalResult]](list)
    for one in answers:
        who = (str(one.example_id), one.sample)
        groups[who[0], seen[who]].append(one)
        seen[who] += 1
    if not answers:
        return [], ("No examples: nothing can be said.",)
    repeated = sum(times > 1 for times in seen.values())
    said = f"{wording.plural(repeated, 'id')} stand more than once; each row counts as an example."
    return list(groups.values()), (said,) if repeated else ()


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the known values; None when there is none."""
    known = [one for one in values if one is not None]
    return math.fsum(known) / len(known) if known else None


def _interval(groups: Iterable[Sequence[EvalResult]], metric: str, alpha: float) -> Any:
    means = (mean(value(one, metric) for one in group) for group in groups)
    values = [one for one in means if one is not None]
    if all(one in (0.0, 1.0) for one in values):
        return stats.rate_interval(int(sum(values)), len(values), alpha=alpha)
    test = stats.paired_mean_test(values, alpha=alpha)
    return within(test, 0.0, 1.0) if all(0 <= one <= 1 for one in values) else test


def within(test: Any, lowest: float, highest: float) -> Any:
    """A result with its interval cut at the ends of the scale, which t knows nothing of."""
    if test.ci_low is None or (test.ci_low >= lowest and test.ci_high <= highest):
        return test
    return replace(test, ci_low=max(test.ci_low, lowest), ci_high=min(test.ci_high, highest))
