"""Metrics: an answer's value of each, what they come to per model, and of two models joined on id, never by position."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from evalkit import stats, wording
from evalkit.answers.scoring import SCORERS, score
from evalkit.errors import DataError
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
    is_ours = metric == "exact_match" or metric in SCORERS
    return any(metric in one.scores or (is_ours and one.exact_match is not None) for one in results)


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


Status = Literal["both right", "fixed", "regressed", "both wrong", "undefined"]
_STATUS: Mapping[tuple[bool, bool], Status] = {
    (True, True): "both right",
    (False, True): "fixed",
    (True, False): "regressed",
    (False, False): "both wrong",
}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Pair(Brief):
    """One example with both models' answers; with several samples the first is shown and values are means.

    Attributes:
        status: By the comparison's primary metric when it is right or wrong, else by exact match; "undefined" where that
            metric is, as exact match is of a row of which nothing is expected.
        base_values: The base model's value of each metric; None where undefined.
    """

    example_id: str
    base: EvalResult
    fine_tuned: EvalResult
    status: Status
    base_values: Mapping[str, float | None]
    fine_tuned_values: Mapping[str, float | None]
    any_error: bool = False

    @property
    def cluster(self) -> str:
        """The source it shares with others, as either side declares it; its own id when neither does."""
        declared = (one.cluster for one in (self.base, self.fine_tuned))
        return next((str(one) for one in declared if one is not None), self.example_id)

    def diff(self, metric: str) -> float | None:
        """Fine-tuned minus base; None when either is undefined."""
        old, new = self.base_values.get(metric), self.fine_tuned_values.get(metric)
        return None if old is None or new is None else new - old


def by_id(results: Iterable[EvalResult], side: str) -> dict[str, list[EvalResult]]:
    """One side's answers by example id; an id and sample that stands twice is refused."""
    groups: dict[str, list[EvalResult]] = defaultdict(list)
    for one in results:
        groups[str(one.example_id)].append(one)
    for name, group in groups.items():
        if len({one.sample for one in group}) < len(group):
            raise DataError(
                f"{side} results: id {name!r} stands twice with the same sample number; ids must be unique"
            )
    return groups


def check_matches(
    old: Mapping[str, list[EvalResult]], new: Mapping[str, list[EvalResult]], matched: list[str]
) -> None:
    """Refuses when nothing matches, or when one id stands for different texts."""
    if (old or new) and not matched:
        raise DataError(
            f"no example id is in both results ({len(old)} base, {len(new)} fine-tuned); both models must answer the same file"
        )
    faulty = [
        repr(name)
        for name in matched
        if len({(one.input_text, one.expected) for one in (*old[name], *new[name])}) > 1
    ]
    if faulty:
        raise DataError(
            f"{wording.plural(len(faulty), 'id')} with different input or expected text in the two results, first: "
            f"{', '.join(faulty[:5])}; answer the same version of the test file with both models"
        )


def pair_of(
    name: str,
    old: list[EvalResult],
    new: list[EvalResult],
    names: Sequence[str],
    status_metric: str,
    *,
    lower_is_better: bool = False,
) -> Pair:
    """One pair; values are means over its samples. Where lower is better, right means 0."""
    base, tuned = (
        {metric: mean([value(one, metric) for one in group]) for metric in names}
        for group in (old, new)
    )
    before, after = base.get(status_metric), tuned.get(status_metric)
    status: Status = "undefined"
    if before is not None and after is not None:
        status = _STATUS[(before > 0.5) != lower_is_better, (after > 0.5) != lower_is_better]
    return Pair(
        example_id=name,
        base=old[0],
        fine_tuned=new[0],
        status=status,
        base_values=base,
        fine_tuned_values=tuned,
        any_error=any(one.outcome == "error" for one in (*old, *new)),
    )


def paired_test(
    pairs: Sequence[Pair],
    metric: str,
    *,
    alpha: float = 0.05,
    clustered: bool = False,
    lower_is_better: bool = False,
) -> Any:
    """The paired test that fits: mid-p for right or wrong, t for numbers, cluster-robust t where a source is shared."""
    known = [one for one in pairs if one.diff(metric) is not None]
    old = [one.base_values[metric] for one in known]
    new = [one.fine_tuned_values[metric] for one in known]
    if not clustered and all(v in (0.0, 1.0) for v in (*old, *new)):
        cells = Counter(_STATUS[bool(a), bool(b)] for a, b in zip(old, new, strict=True))
        counts = (cells[status] for status in _STATUS.values())
        test = stats.paired_binary_test(*counts, alpha=alpha)
        return replace(test, lower_is_better=lower_is_better)
    is_share = all(0 <= v <= 1 for v in (*old, *new) if v is not None)
    test = stats.paired_mean_test(
        [one.diff(metric) or 0.0 for one in known],
        clusters=[one.cluster for one in known] if clustered else None,
        alpha=alpha,
        largest=1.0 if is_share else None,
    )
    unit = "points" if is_rate(known, metric) else "number"
    test = replace(test, shown_as=unit, lower_is_better=lower_is_better)
    return within(test, -1.0, 1.0) if is_share else test


def taken_test(
    pairs: Sequence[Pair], field: str, *, alpha: float = 0.05, clustered: bool = False
) -> stats.PairedMeanTest:
    """Did answers take more of something: the mean by-example difference of `latency_ms` or a number of tokens."""
    sides = [(one, getattr(one.base, field), getattr(one.fine_tuned, field)) for one in pairs]
    known = [(one, new - old) for one, old, new in sides if old is not None and new is not None]
    return stats.paired_mean_test(
        [diff for _, diff in known],
        clusters=[one.cluster for one, _ in known] if clustered else None,
        alpha=alpha,
        largest=None,
    )


def is_rate(pairs: Sequence[Pair], metric: str) -> bool:
    """Is each single answer right or wrong by this metric, whatever their mean over samples?"""
    if metric in {"exact_match", "format"}:
        return True
    return all(
        value(side, metric) in (0.0, 1.0, None)
        for one in pairs
        for side in (one.base, one.fine_tuned)
    )


def cells_of(pairs: Iterable[Pair]) -> dict[str, int]:
    """Examples by status: both_right, fixed, regressed, both_wrong; those without one count nowhere."""
    counted: Counter[str] = Counter(one.status for one in pairs)
    return {status.replace(" ", "_"): counted[status] for status in _STATUS.values()}


def quantile(values: Iterable[float | None], share: float) -> float | None:
    """The value below which `share` of the known values lie; None when there is none."""
    known = sorted(one for one in values if one is not None)
    return known[min(int(share * len(known)), len(known) - 1)] if known else None
