"""The same example answered by two models: joined on id, never by position."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from evalkit import stats, wording
from evalkit.answers import metrics
from evalkit.answers.metrics import mean
from evalkit.errors import DataError
from evalkit.records import Brief, EvalResult

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
        {metric: mean([metrics.value(one, metric) for one in group]) for metric in names}
        for group in (old, new)
    )
    return Pair(
        example_id=name,
        base=old[0],
        fine_tuned=new[0],
        status=_status(base.get(status_metric), tuned.get(status_metric), lower_is_better),
        base_values=base,
        fine_tuned_values=tuned,
        any_error=any(one.outcome == "error" for one in (*old, *new)),
    )


def _status(old: float | None, new: float | None, lower_is_better: bool) -> Status:
    if old is None or new is None:
        return "undefined"
    return _STATUS[(old > 0.5) != lower_is_better, (new > 0.5) != lower_is_better]


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
    return metrics.within(test, -1.0, 1.0) if is_share else test


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
        metrics.value(side, metric) in (0.0, 1.0, None)
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
