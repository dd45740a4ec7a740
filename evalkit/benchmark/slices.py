"""Which slices moved: the declared ones, each with its interval and p adjusted over all; and those found by looking.

The finder looks first and tests afterwards: which combination of traits holds the regressions is a hunch.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from evalkit import stats
from evalkit.answers.metrics import Pair, mean
from evalkit.benchmark.frames import NO_VALUE, label, shown_values, slice_fields, typed, value_of
from evalkit.conversation import attachments, conversation_text, own_messages, spoken_text
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject
from evalkit.records import Brief
from evalkit.stats import PairedBinaryTest, Result
from evalkit.wording import plural

if TYPE_CHECKING:
    from evalkit.benchmark.comparison import Comparison, Question

MIN_N = 30  # below it a slice is called small; it is tested all the same
LABEL = "exploratory: found by looking, so it needs fresh examples to be believed"
MOST_FOUND = 8  # segments that are shown
MAX_VALUES = 20  # a field with more values names examples, not slices

Standing = Literal["worse", "shown safe", "looks bad", "could not have been seen"]
Predicate = Callable[[Pair], bool]
_OF_TEST = ("estimate", "ci_low", "ci_high", "p_value", "p_exact")
_RATES = ("base_rate", "fine_tuned_rate")
_FLOATS = (*_RATES, *_OF_TEST, "p_adjusted", "margin", "chance_to_see")
_DTYPES = {
    **dict.fromkeys(("slice", "field"), "category"),
    "value": "str",
    "metric": "category",
    **dict.fromkeys(("n", "n_to_settle"), "Int64"),
    **dict.fromkeys(_FLOATS, "Float64"),
    **dict.fromkeys(("verdict", "standing"), "category"),
    "few": "boolean",
}
_SHARES = ("share_of_regressed", "estimate", "ci_low", "ci_high", "p_adjusted")
_FOUND = {
    "where": "str",
    **dict.fromkeys(("n", "n_fixed", "n_regressed"), "Int64"),
    **dict.fromkeys(_SHARES, "Float64"),
}


@dataclass(frozen=True, kw_only=True)
class SliceRow:
    """One slice: both rates, the paired difference and what can be said about it.

    Attributes:
        slice: `field = value`, fit to be drawn: unseen and unstorable characters stand as codes.
        test: The slice's own test, not adjusted. Its `p_value`, McNemar's mid-p or of t, is valid on average, a little
            liberal where few examples decide; its `p_exact` at any number of examples: McNemar's, or of sign flips where
            few examples moved; None where t decides.
        p_adjusted: Holm over all slices, of the exact p.
        n_tested: Slices that share the level.
        margin: The declared margin, None without one.
        beyond_margin: The whole interval lies beyond the margin on the bad side, at a level that allows for the number of
            slices: one-sided alpha over all of them.
        wanted_chance: The study's power.
        question: The comparison's: where it is "no_worse", how the slice stands against its margin is what is asked.
    """

    slice: str
    field: str
    value: str
    base_rate: float | None
    fine_tuned_rate: float | None
    test: Result
    p_adjusted: float | None = None
    n_tested: int = 0
    margin: float | None = None
    beyond_margin: bool = False
    wanted_chance: float = 0.8
    question: Question = "better"

    @property
    def n(self) -> int:
        """Examples of which the metric is known for both models."""
        return self.test.n

    @property
    def estimate(self) -> float | None:
        """Fine-tuned minus base."""
        return self.test.estimate

    @property
    def gain(self) -> float:
        """The difference with the sign of good news; 0 when there is none."""
        return -(self.estimate or 0.0) if self.test.lower_is_better else self.estimate or 0.0

    @property
    def verdict(self) -> str:
        """Better, worse or no difference shown, by the adjusted p; worse as well where the interval is beyond the margin."""
        return "worse" if self.beyond_margin else self.test.verdict_by(self.p_adjusted)

    @cached_property
    def safety(self) -> str | None:
        """Says "not worse" when the interval excludes a loss of the declared margin, else "not shown"; None without margin."""
        return stats.noninferiority_test(self.test, self.margin).verdict if self.margin else None

    @property
    def few(self) -> bool:
        """Fewer than `MIN_N` examples: a note, not an exemption."""
        return self.n < MIN_N

    @property
    def standing(self) -> Standing | None:
        """What can be said of the slice against its margin; None without a margin or examples.

        It looks bad when the estimate lies beyond the margin, or when a loss of the margin would have been seen, the
        estimate is a loss, and it is still not shown safe.
        """
        if self.verdict == "worse":
            return "worse"
        if self.margin is None or self.estimate is None:
            return None
        if self.safety == "not worse":
            return "shown safe"
        seen = (self.chance_to_see or 0.0) >= self.wanted_chance
        bad = self.gain <= -self.margin or (seen and self.gain < 0)
        return "looks bad" if bad else "could not have been seen"

    @property
    def _first_level(self) -> float:
        """The level that the first of Holm's steps asks for."""
        return self.test.alpha / max(self.n_tested, 1)

    @cached_property
    def chance_to_see(self) -> float | None:
        """Chance that this slice's test, adjusted, shows a loss of the margin; None without margin."""
        test, alpha = self.test, self._first_level
        if self.margin is None or self.estimate is None:
            return None
        if isinstance(test, PairedBinaryTest):
            return stats.chance_to_find(test.n, test.disagreement, self.margin, alpha=alpha)
        if test.ci_low is None or test.ci_high is None or test.ci_high == test.ci_low:
            return None
        # Where nothing varied, the interval of about four standard errors stands in for the one that is 0.
        se = test.se if test.t_score is not None else (test.ci_high - test.ci_low) / 4
        return stats.chance_to_find_mean(se, self.margin, alpha=alpha)

    @cached_property
    def n_to_settle(self) -> int | None:
        """Examples of this slice that would settle it at this run's rates: show it safe, or worse.

        Without a margin, show the difference. None when it is settled, no number would, or its examples lack the field.
        """
        settled = self.verdict in {"better", "worse"} or self.safety == "not worse"
        if self.value == NO_VALUE or settled:
            return None
        margin, test, power = self.margin or 0.0, self.test, self.wanted_chance
        # against the margin, and where a difference is to be shown by Holm's first step
        asked = [(margin, test.alpha)] if margin else []
        asked += [(0.0, self._first_level)] if not margin or self.gain < 0 else []
        settle = (
            stats.examples_to_settle(test, margin=limit, alpha=level, power=power)
            for limit, level in asked
        )
        return min(filter(None, settle), default=None)

    def to_dict(self) -> JsonObject:
        """Plain values for the evidence file."""
        said = ("verdict", "safety", "standing", "margin", "chance_to_see", "n_to_settle", "gain")
        names = ("slice", "field", "value", "n", *_FLOATS[:-2], *said)
        plain = {one: getattr(self.test if one in _OF_TEST else self, one) for one in names}
        return {**plain, "diff": self.estimate, "shown_as": self.test.shown_in()}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SliceTable(Brief):
    """Every slice of the declared fields, for one metric.

    Attributes:
        folded: Fields with too many values, and how many they have: the largest are rows, the others one row together.
        others: The same slices on the other metrics, their p adjusted together, where they were asked for.
    """

    metric: str
    rows: tuple[SliceRow, ...]
    margin: float | None = None
    folded: Mapping[str, int] = field(default_factory=dict)
    others: tuple[SliceTable, ...] = ()

    def __iter__(self) -> Iterator[SliceRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def worse(self) -> tuple[SliceRow, ...]:
        """Slices shown worse, the largest loss first."""
        found = (one for one in self.rows if one.verdict == "worse")
        return tuple(sorted(found, key=lambda one: one.gain))

    @property
    def most_lost(self) -> SliceTable | None:
        """Of the other metrics the one with the largest shown loss, the first when none is shown; None without others."""
        lost = {
            one.metric: min((row.gain for row in one.worse), default=0.0) for one in self.others
        }
        return min(self.others, key=lambda one: lost[one.metric], default=None)

    def to_frame(self) -> pd.DataFrame:
        """One row a slice of this metric, in the order of the table.

        Columns: `slice` (`field = value`), `field`, `metric`, `verdict`, `standing` (see `SliceRow`): categories; `value`:
        text; `n`, `n_to_settle`: Int64; `base_rate`, `fine_tuned_rate`, `estimate` (fine-tuned minus base), `ci_low`,
        `ci_high`, `p_value`, `p_exact`, `p_adjusted`, `margin`, `chance_to_see`: Float64, missing where undefined;
        `few`: nullable boolean.
        """
        more = {"metric": self.metric}
        return typed([one.to_dict() | more | {"few": one.few} for one in self.rows], _DTYPES)

    def to_dict(self) -> list[JsonObject]:
        """Plain rows, each with the metric's name."""
        return [{**one.to_dict(), "metric": self.metric} for one in self.rows]


def own_slice(comparison: Comparison, values: pd.Series) -> Comparison:
    """The comparison with one slice field: a value of one's own an example; an empty one counts as not given.

    Raises:
        DataError: The series has no value for some example, or two.
    """
    name, ids = str(values.name or "own"), values.index.map(str)
    if ids.has_duplicates:
        twice = values.index[ids.duplicated()].tolist()[0]
        raise DataError(f"the series {name!r} has two values for example {twice!r}")
    known = {*ids}
    if lacking := [one.example_id for one in comparison.pairs if one.example_id not in known]:
        raise DataError(
            f"the series {name!r} has no value for {plural(len(lacking), 'example')}, first {lacking[0]!r}; its "
            "index must hold the ids: frame.set_index('example_id')[...]"
        )
    given = values.set_axis(ids).dropna().map(str).to_dict()
    pairs = []
    for one in comparison.pairs:
        slices = {name: given[one.example_id]} if one.example_id in given else {}
        pairs.append(replace(one, base=replace(one.base, slices=slices)))
    return replace(comparison, pairs=tuple(pairs))


def slice_table(
    comparison: Comparison,
    *,
    fields: Sequence[str] = (),
    margin: float | None = None,
    power: float = 0.8,
    others: bool = False,
) -> SliceTable:
    """The paired difference in every slice of the declared fields, each tested exactly; Holm over all of them.

    Args:
        comparison: The comparison of the two models.
        fields: Declared fields, all that the results carry by default.
        margin: Largest loss, as a fraction, that a slice may show and still be "not worse".
        power: For the number of examples that would settle a slice.
        others: The metrics that are not primary too; their p are adjusted together, over all their slices.

    Raises:
        DesignError: A field that no example carries.
    """
    pairs, margin = comparison.pairs, margin or None
    known = slice_fields(pairs, fields)
    shown = {name: shown_values(pairs, name) for name in fields or known}
    groups = _groups(pairs, shown)
    n_values = {name: len(values.keys() - {NO_VALUE}) for name, values in shown.items()}
    folded = {k: n for k, n in n_values.items() if any(v != own for v, own in shown[k].items())}

    def is_beyond(test: Result, group: Sequence[Pair], metric: str) -> bool:
        """A loss is one side, so all slices together may spend alpha on it; one slice never more than its own interval."""
        if not margin or _best_end(test) >= -margin:
            return False
        level = min(1.0, 2 / len(groups)) * comparison.alpha
        strict = comparison.test_of(group, metric, alpha=level)
        return _best_end(strict) < -margin and (strict.p_decides or 0.0) < level

    def tables(metrics: Iterable[str]) -> Iterator[SliceTable]:
        tests = {(m, name): comparison.test_of(groups[name], m) for m in metrics for name in groups}
        exact = [one.p_decides if one.p_exact is None else one.p_exact for one in tests.values()]
        adjusted = dict(zip(tests, stats.adjust(exact), strict=True))
        n_tested = sum(one is not None for one in exact)
        for metric in metrics:
            rows = []
            for name, group in groups.items():
                test = tests[metric, name]
                row = SliceRow(
                    slice=label(*name),
                    field=name[0],
                    value=name[1],
                    base_rate=mean([one.base_values[metric] for one in group]),
                    fine_tuned_rate=mean([one.fine_tuned_values[metric] for one in group]),
                    test=test,
                    p_adjusted=adjusted[metric, name],
                    beyond_margin=is_beyond(test, group, metric),
                    wanted_chance=power,
                    question=comparison.question,
                    n_tested=n_tested,
                    margin=margin,
                )
                rows.append(row)
            yield SliceTable(metric=metric, rows=tuple(rows), margin=margin, folded=folded)

    (first,) = tables([comparison.primary_metric])
    rest = [name for name in comparison.tests if name != comparison.primary_metric]
    return replace(first, others=tuple(tables(rest if others else [])))


def _best_end(test: Result) -> float:
    """The limit of the interval on the good side, with the sign of good news; 0 where there is none."""
    return -(test.ci_low or 0.0) if test.lower_is_better else test.ci_high or 0.0


def _groups(
    pairs: Sequence[Pair], shown: Mapping[str, Mapping[str, str]]
) -> dict[tuple[str, str], list[Pair]]:
    """Pairs by (field, value), fields in the order given, the most frequent value first; too many values are folded."""
    groups: dict[tuple[str, str], list[Pair]] = {}
    for name, values in shown.items():
        mine: dict[tuple[str, str], list[Pair]] = defaultdict(list)
        for one in pairs:
            mine[name, values[value_of(one, name)]].append(one)
        groups |= sorted(mine.items(), key=lambda item: (-len(item[1]), item[0]))
    return groups


def regression_frame(comparison: Comparison, *, field: str = "") -> pd.DataFrame:
    """Two rows an example, as the regression tables want them: example_id, fine_tuned, correct, cluster and slice.

    "correct" is `right` of `Comparison.to_frame`: by the comparison's status metric, with several samples in more than half
    of them; examples of which it is not known are left out.
    """
    known = comparison.to_frame(field=field).dropna(subset="right")
    frame = known.assign(correct=lambda one: one["right"].astype(int))
    names = ["example_id", "fine_tuned", "correct", "cluster", *(["slice"] if field else [])]
    return frame.loc[:, names].astype({"example_id": str, "cluster": str})


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Examples that share one or two traits.

    Attributes:
        traits: The one or two traits, in words.
        n_regressed: Right before, wrong now.
        share_of_regressed: Of all regressions, the part that lies here.
        test: Paired test inside the segment, not adjusted; cluster-robust where sources are shared.
        p_adjusted: Benjamini-Hochberg over every segment looked at.
    """

    traits: tuple[str, ...]
    n: int
    n_fixed: int
    n_regressed: int
    share_of_regressed: float
    test: Result
    p_adjusted: float | None = None

    @property
    def estimate(self) -> float | None:
        """Fine-tuned minus base, inside the segment."""
        return self.test.estimate

    @property
    def gain(self) -> float:
        """The difference with the sign of good news."""
        return (self.n_fixed - self.n_regressed) / self.n

    @property
    def where(self) -> str:
        """Its traits in one phrase."""
        return " and ".join(self.traits)

    def to_dict(self) -> JsonObject:
        """Plain values for the evidence file."""
        names = ("n", "n_fixed", "n_regressed", "estimate", "p_adjusted")
        told = {name: getattr(self, name) for name in names}
        limits = {"ci_low": self.test.ci_low, "ci_high": self.test.ci_high}
        return {"traits": [*self.traits], **told, **limits}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Found(Brief):
    """The worst segments, and how many were looked at."""

    segments: tuple[Segment, ...]
    n_looked_at: int
    min_support: int
    label: str = LABEL

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def to_frame(self) -> pd.DataFrame:
        """One row a segment, the smallest adjusted p first.

        Columns: `where`: text, its traits; `n`, `n_fixed`, `n_regressed`: Int64; `share_of_regressed` (of all regressions),
        `estimate` (fine-tuned minus base inside it), `ci_low`, `ci_high`, `p_adjusted` (over everything looked at): Float64.
        """
        rows = []
        for one in self.segments:
            more = {"where": one.where, "share_of_regressed": one.share_of_regressed}
            rows.append(one.to_dict() | more)
        return typed(rows, _FOUND)

    def to_dict(self) -> JsonObject:
        """Plain values for the evidence file."""
        names = ("label", "n_looked_at", "min_support")
        told = {name: getattr(self, name) for name in names}
        return {**told, "segments": [one.to_dict() for one in self.segments]}


def find_slices(
    comparison: Comparison,
    *,
    predicates: Mapping[str, Predicate | str] | None = None,
    min_support: int = 20,
) -> Found:
    """Looks through single traits and pairs of traits for those in which the fine-tuned model lost most.

    Traits: every slice value the examples carry; of the whole conversation its length, number of lines and of messages
    (by thirds), whether it holds digits and whether something is attached; predicates come on top. What the test set's
    prompts share, such as a system prompt, is left out. Only losses are reported; p by Benjamini-Hochberg over everything
    looked at.

    Args:
        comparison: The comparison of the two models.
        predicates: Name to a function of the pair, or to a regular expression searched in every message of the prompt.
        min_support: Smallest number of examples in a segment.

    Raises:
        DesignError: A broken regular expression.
    """
    metric = comparison.status_metric
    order = ("both right", "fixed", "regressed", "both wrong")
    pairs = [one for one in comparison.pairs if one.status in order]
    statuses = np.array([order.index(one.status) for one in pairs], dtype=int)
    sources = np.array([one.cluster for one in pairs], dtype=object)
    lower = comparison.tests[metric].lower_is_better if metric in comparison.tests else False
    turn = -1 if lower else 1  # what should fall, has fallen where it is right
    changes = turn * ((statuses == 1).astype(float) - (statuses == 2))

    def tested(mask: np.ndarray, cells: Sequence[int]) -> Result:
        alpha = comparison.alpha
        if not comparison.clustered:
            test = stats.paired_binary_test(*cells[::turn], alpha=alpha)
            return replace(test, lower_is_better=lower)
        test = stats.paired_mean_test(changes[mask], clusters=[*sources[mask]], alpha=alpha)
        return replace(test, shown_as="points", lower_is_better=lower)

    n_lost, n_looked_at, losses = max(int((statuses == 2).sum()), 1), 0, []
    for traits, mask in _candidates(_traits(pairs, predicates or {}), min_support):
        n_looked_at += 1
        cells = np.bincount(statuses[mask], minlength=4).tolist()
        _, fixed, regressed, _ = cells
        if regressed > fixed:
            counts = {"n": sum(cells), "n_fixed": fixed, "n_regressed": regressed}
            share, test = regressed / n_lost, tested(mask, cells)
            losses.append(Segment(traits=traits, share_of_regressed=share, test=test, **counts))
    # Segments without a loss are not shown, but they were looked at: they count in the adjustment, with p = 1.
    known = [1.0 if (p := one.test.p_decides) is None else p for one in losses]
    adjusted = stats.adjust([*known, *[1.0] * (n_looked_at - len(losses))], method="bh")
    losses = [replace(one, p_adjusted=p) for one, p in zip(losses, adjusted, strict=False)]
    losses.sort(key=lambda one: (one.p_adjusted, one.gain, len(one.traits)))
    worst = tuple(_without_echoes(losses)[:MOST_FOUND])
    return Found(segments=worst, n_looked_at=n_looked_at, min_support=min_support)


def _traits(
    pairs: Sequence[Pair], predicates: Mapping[str, Predicate | str]
) -> dict[str, np.ndarray]:
    masks: dict[str, np.ndarray] = {}
    for name in slice_fields(pairs):
        values = np.array([value_of(one, name) for one in pairs], dtype=object)
        found = sorted(set(values))
        if 1 < len(found) <= MAX_VALUES:
            masks |= {f"{name} = {value}": values == value for value in found}
    own = own_messages([one.base.prompt for one in pairs])
    texts = [spoken_text(messages) for messages in own]
    masks |= _thirds("input characters", [len(text) for text in texts])
    masks |= _thirds("input lines", [text.count("\n") + 1 for text in texts])
    masks |= _thirds("expected lines", [one.base.expected.count("\n") + 1 for one in pairs])
    digits = _flags(any(map(str.isdigit, text)) for text in texts)
    masks |= {"input with digits": digits, "input without digits": ~digits}
    masks |= _thirds("messages", [len(one.base.prompt) for one in pairs])
    attached = _flags(map(attachments, own))
    masks |= {"input with an attachment": attached, "input without an attachment": ~attached}
    for name, rule in predicates.items():
        try:
            pattern = rule if callable(rule) else re.compile(rule)
        except re.error as why:
            told = f"predicate {name!r}: {rule!r} is no regular expression ({why})"
            raise DesignError(told) from why
        masks[name] = _flags(
            pattern(one) if callable(pattern) else _found(pattern, one) for one in pairs
        )
    return {name: mask for name, mask in masks.items() if not mask.all()}


def _flags(values: Iterable[object]) -> np.ndarray:
    return np.array([bool(one) for one in values], dtype=bool)


def _thirds(name: str, values: Sequence[int]) -> dict[str, np.ndarray]:
    numbers = np.array(values)
    if not len(numbers):
        return {}
    low, high = (int(one) for one in np.quantile(numbers, [1 / 3, 2 / 3], method="lower"))
    parts = {f"{name} ≤ {low}": numbers <= low, f"{name} > {high}": numbers > high}
    middle = (numbers > low) & (numbers <= high)
    return {**parts, f"{low} < {name} ≤ {high}": middle} if middle.any() else parts


def _found(pattern: re.Pattern[str], pair: Pair) -> bool:
    """In a message by itself, so that ^ and $ mean its ends, or in the whole."""
    texts = [spoken_text([message]) for message in pair.base.prompt]
    return any(map(pattern.search, [*texts, conversation_text(pair.base.prompt)]))


def _candidates(
    traits: Mapping[str, np.ndarray], min_support: int
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    masks = {name: mask for name, mask in traits.items() if mask.sum() >= min_support}
    for name, mask in masks.items():
        yield (name,), mask
    for (one, first), (other, second) in combinations(masks.items(), 2):
        both = first & second
        # as large as one of them: the same examples again
        if min_support <= both.sum() < min(first.sum(), second.sum()):
            yield (one, other), both


def _without_echoes(segments: Sequence[Segment]) -> list[Segment]:
    """Drops a pair that loses no more than one of its traits alone, and a segment with the same numbers as one before."""
    alone = {one.traits[0]: one.gain for one in segments if len(one.traits) == 1}
    kept: dict[tuple[int, int, int], Segment] = {}
    for one in segments:
        less = [one.gain < alone.get(trait, 0.0) for trait in one.traits]
        if len(one.traits) == 1 or all(less):
            kept.setdefault((one.n, one.n_fixed, one.n_regressed), one)
    return list(kept.values())
