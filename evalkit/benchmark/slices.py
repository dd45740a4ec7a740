"""Which declared slices moved: one row a slice, its interval, and p adjusted over all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from evalkit import stats, wording
from evalkit.answers.pairs import Pair, mean, paired_test
from evalkit.benchmark.comparison import Comparison, Question
from evalkit.benchmark.frames import NO_VALUE, label, shown_values, slice_fields, value_of
from evalkit.conversation import attachments, conversation_text, own_messages, spoken_text
from evalkit.errors import DataError, DesignError
from evalkit.records import Brief

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MIN_N = 30  # below it a slice is called small; it is tested all the same


Standing = Literal["worse", "shown safe", "looks bad", "could not have been seen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRow:
    """One slice: both rates, the paired difference and what can be said about it.

    Attributes:
        slice: `field = value`, fit to be drawn: unseen and unstorable characters stand as codes.
        n: Examples of which the metric is known for both models.
        p_value: Raw p, McNemar's mid-p or of t; valid on average, a little liberal where few examples decide.
        p_exact: Exact p, valid at any number of examples: McNemar's, or of sign flips where few examples moved (None
            where t decides). It is what Holm adjusts.
        p_adjusted: Holm over all slices.
        test: The slice's own test, not adjusted.
        safety: "not worse" when the interval excludes a loss of the declared margin, else "not shown"; None without margin.
        margin: The declared margin, None without one.
        beyond_margin: The whole interval lies beyond the margin on the bad side, at a level that allows for the number of
            slices: one-sided alpha over all of them.
        chance_to_see: Chance that this slice's test, adjusted, shows a loss of the margin; None without margin.
        wanted_chance: The study's power.
        n_to_settle: Examples of this slice that would settle it at this run's rates: show it safe, or worse; without a
            margin, show the difference. None when it is settled, no number would, or its examples lack the field.
        question: The comparison's: where it is "no_worse", how the slice stands against its margin is what is asked.
    """

    slice: str
    field: str
    value: str
    n: int
    base_rate: float | None
    fine_tuned_rate: float | None
    test: Any
    p_value: float | None
    p_exact: float | None
    p_adjusted: float | None = None
    safety: str | None = None
    margin: float | None = None
    beyond_margin: bool = False
    chance_to_see: float | None = None
    wanted_chance: float = 0.8
    n_to_settle: int | None = None
    question: Question = "better"

    @property
    def estimate(self) -> float | None:
        """Fine-tuned minus base."""
        return self.test.estimate

    @property
    def gain(self) -> float:
        """The difference with the sign of good news; 0 when there is none."""
        return -(self.estimate or 0.0) if self.test.lower_is_better else self.estimate or 0.0

    @property
    def ci_low(self) -> float | None:
        """Lower limit of the slice's own interval."""
        return self.test.ci_low

    @property
    def ci_high(self) -> float | None:
        """Upper limit."""
        return self.test.ci_high

    @property
    def verdict(self) -> str:
        """Better, worse or no difference shown, by the adjusted p; worse as well where the interval is beyond the margin."""
        if self.estimate is None:
            return "too early"
        if self.beyond_margin:
            return "worse"
        if self.p_adjusted is None or self.p_adjusted >= self.test.alpha or self.estimate == 0:
            return "no difference shown"
        return "better" if self.gain > 0 else "worse"

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

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the evidence file."""
        names = (
            "slice",
            "field",
            "value",
            "n",
            "base_rate",
            "fine_tuned_rate",
            "estimate",
            "ci_low",
            "ci_high",
            "p_value",
            "p_exact",
            "p_adjusted",
            "verdict",
            "safety",
            "standing",
            "margin",
            "chance_to_see",
            "n_to_settle",
            "gain",
        )
        return {name: getattr(self, name) for name in names} | {
            "diff": self.estimate,
            "shown_as": self.test.shown_in(),
        }


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
    n_tested: int = 0
    alpha: float = 0.05
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
        return most_lost(self.others) if self.others else None

    def to_frame(self) -> pd.DataFrame:
        """One row a slice of this metric, in the order of the table.

        Columns: `slice` (`field = value`), `field`, `metric`, `verdict`, `standing` (see `SliceRow`): categories; `value`:
        text; `n`, `n_to_settle`: Int64; `base_rate`, `fine_tuned_rate`, `estimate` (fine-tuned minus base), `ci_low`,
        `ci_high`, `p_value`, `p_exact`, `p_adjusted`, `margin`, `chance_to_see`: Float64, missing where undefined;
        `few`: nullable boolean.
        """
        import pandas as pd

        rows = [{**one.to_dict(), "metric": self.metric, "few": one.few} for one in self.rows]
        return pd.DataFrame(rows, columns=list(_DTYPES)).astype(_DTYPES)

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain rows, each with the metric's name."""
        return [{**one.to_dict(), "metric": self.metric} for one in self.rows]

    def _repr_html_(self) -> str:
        return wording.html_table(
            {
                one.slice: f"{one.verdict}, {wording.amount(one.estimate, wording.scale_of(one.test))}"
                for one in self.rows
            }
        )


_DTYPES = {
    "slice": "category",
    "field": "category",
    "value": "str",
    "metric": "category",
    **dict.fromkeys(("n", "n_to_settle"), "Int64"),
    **dict.fromkeys(
        (
            "base_rate",
            "fine_tuned_rate",
            "estimate",
            "ci_low",
            "ci_high",
            "p_value",
            "p_exact",
            "p_adjusted",
            "margin",
            "chance_to_see",
        ),
        "Float64",
    ),
    "verdict": "category",
    "standing": "category",
    "few": "boolean",
}


def own_slice(comparison: Comparison, values: pd.Series) -> Comparison:
    """The comparison with one slice field: a value of one's own an example; an empty one counts as not given.

    Raises:
        DataError: The series has no value for some example, or two.
    """
    name, known = str(values.name or "own"), {}
    for example_id, value in values.items():
        if str(example_id) in known:
            raise DataError(f"the series {name!r} has two values for example {example_id!r}")
        known[str(example_id)] = value
    lacking = [one.example_id for one in comparison.pairs if one.example_id not in known]
    if lacking:
        raise DataError(
            f"the series {name!r} has no value for {wording.plural(len(lacking), 'example')}, first {lacking[0]!r}; its "
            "index must hold the ids: frame.set_index('example_id')[...]"
        )
    empty = {one for one, missing in zip(known, values.isna(), strict=True) if missing}

    def cut(pair: Pair) -> Pair:
        slices = {} if pair.example_id in empty else {name: str(known[pair.example_id])}
        return replace(pair, base=replace(pair.base, slices=slices))

    return replace(comparison, pairs=tuple(cut(one) for one in comparison.pairs))


def slice_table(
    comparison: Comparison,
    *,
    metric: str = "",
    fields: Sequence[str] = (),
    margin: float | None = None,
    power: float = 0.8,
) -> SliceTable:
    """The paired difference in every slice of the declared fields, each tested exactly; Holm over all of them.

    Args:
        comparison: The comparison of the two models.
        metric: The comparison's primary metric by default.
        fields: Declared fields, all that the results carry by default.
        margin: Largest loss, as a fraction, that a slice may show and still be "not worse".
        power: For the number of examples that would settle a slice.

    Raises:
        DesignError: A field that no example carries.
    """
    table = _raw_table(comparison, metric or comparison.primary_metric, fields, margin)
    return _adjusted([table], power)[0]


def _raw_table(
    comparison: Comparison, metric: str, fields: Sequence[str], margin: float | None
) -> SliceTable:
    known = slice_fields(comparison.pairs, fields)
    fields = fields or known
    groups = slices_of(comparison.pairs, fields)
    rows = tuple(
        _row(name, group, comparison, metric=metric, margin=margin or None, n_slices=len(groups))
        for name, group in groups.items()
    )
    shown = {name: shown_values(comparison.pairs, name) for name in fields}
    return SliceTable(
        metric=metric,
        rows=rows,
        margin=margin or None,
        alpha=comparison.alpha,
        folded={
            name: len(values.keys() - {NO_VALUE})
            for name, values in shown.items()
            if any(value != own for value, own in values.items())
        },
    )


def _adjusted(tables: Sequence[SliceTable], power: float) -> tuple[SliceTable, ...]:
    """Holm over the rows of all these tables, and the price of what it leaves open."""
    p_values = [_exact(row) for table in tables for row in table]
    adjusted, n_tested = iter(stats.adjust(p_values)), sum(one is not None for one in p_values)
    return tuple(
        replace(
            table,
            n_tested=n_tested,
            rows=tuple(
                _settled(
                    replace(
                        row,
                        p_adjusted=next(adjusted),
                        chance_to_see=_chance(row, n_tested),
                        wanted_chance=power,
                    ),
                    table.margin or 0.0,
                    n_tested,
                    power,
                )
                for row in table
            ),
        )
        for table in tables
    )


def slice_tables(
    comparison: Comparison,
    *,
    fields: Sequence[str] = (),
    margin: float | None = None,
    power: float = 0.8,
) -> tuple[SliceTable, ...]:
    """One table a metric, the primary one first; the others' p are adjusted together, over all their slices."""
    names = [
        comparison.primary_metric,
        *(name for name in comparison.tests if name != comparison.primary_metric),
    ]
    first, *others = (_raw_table(comparison, name, fields, margin) for name in names)
    return *_adjusted([first], power), *_adjusted(others, power)


def most_lost(tables: Sequence[SliceTable]) -> SliceTable:
    """The table with the largest loss that is shown; the first when none is."""
    return min(tables, key=lambda table: min((row.gain for row in table.worse), default=0.0))


def slices_of(pairs: Sequence[Pair], fields: Sequence[str]) -> Mapping[tuple[str, str], list[Pair]]:
    """Pairs by (field, value), fields in the order given, the most frequent value first; too many values are folded."""
    groups: dict[tuple[str, str], list[Pair]] = {}
    for name in fields:
        mine: dict[tuple[str, str], list[Pair]] = {}
        shown = shown_values(pairs, name)
        for one in pairs:
            mine.setdefault((name, shown[value_of(one, name)]), []).append(one)
        groups |= dict(sorted(mine.items(), key=lambda item: (-len(item[1]), item[0])))
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


def _row(
    name: tuple[str, str],
    group: list[Pair],
    comparison: Comparison,
    *,
    metric: str,
    margin: float | None,
    n_slices: int,
) -> SliceRow:
    better = {"lower_is_better": comparison.tests[metric].lower_is_better}
    clustered = comparison.clustered
    test = paired_test(group, metric, alpha=comparison.alpha, clustered=clustered, **better)
    beyond = False
    if margin and (best := _best_end(test)) is not None and best < -margin:
        # A loss is one side, so all slices together may spend alpha on it; one slice never more than its own interval.
        level = min(1.0, 2 / n_slices) * comparison.alpha
        strict = paired_test(group, metric, alpha=level, clustered=clustered, **better)
        best = _best_end(strict)
        beyond = best is not None and best < -margin and strict.p_decides < level
    return SliceRow(
        slice=label(*name),
        field=name[0],
        value=name[1],
        n=test.n,
        base_rate=mean([one.base_values[metric] for one in group]),
        fine_tuned_rate=mean([one.fine_tuned_values[metric] for one in group]),
        test=test,
        p_value=test.p_value,
        p_exact=test.p_exact,
        safety=stats.noninferiority_test(test, margin).verdict if margin else None,
        margin=margin,
        beyond_margin=beyond,
        question=comparison.question,
    )


def _exact(row: SliceRow) -> float | None:
    """The p that is valid at any number of examples."""
    return row.test.p_decides if row.p_exact is None else row.p_exact


def _chance(row: SliceRow, n_tested: int) -> float | None:
    """Chance that this slice's test shows a loss of the margin, at the level the first of Holm's steps asks for."""
    test, alpha = row.test, row.test.alpha / max(n_tested, 1)
    if row.margin is None or row.estimate is None:
        return None
    if hasattr(test, "fixed"):
        return stats.chance_to_find(test.n, test.disagreement, row.margin, alpha=alpha)
    if test.ci_low is None or test.ci_high is None or test.ci_high == test.ci_low:
        return None
    # Where nothing varied, the interval of about four standard errors stands in for the one that is 0.
    se = test.se if test.t_score is not None else (test.ci_high - test.ci_low) / 4
    return stats.chance_to_find_mean(se, row.margin, alpha=alpha)


def _best_end(test: Any) -> float | None:
    """The limit of the interval on the good side, with the sign of good news."""
    if test.lower_is_better:
        return None if test.ci_low is None else -test.ci_low
    return test.ci_high


def _settled(row: SliceRow, margin: float, n_tested: int, power: float) -> SliceRow:
    """Adds the price of a verdict: of a difference at the level the first of Holm's steps asks for."""
    if row.value == NO_VALUE or row.verdict in {"better", "worse"} or row.safety == "not worse":
        return row
    prices = []
    if margin:
        prices.append(
            examples_to_settle(row.test, margin=margin, alpha=row.test.alpha, power=power)
        )
    if not margin or row.gain < 0:
        prices.append(
            examples_to_settle(row.test, alpha=row.test.alpha / max(n_tested, 1), power=power)
        )
    return replace(row, n_to_settle=min(filter(None, prices), default=None))


def examples_to_settle(
    test: Any, *, margin: float = 0.0, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Examples in all that would show a difference of the size seen, at the disagreement (or spread) seen.

    With a margin: that would show that it is no loss of so much.
    None when no difference (or the loss of the margin) was seen, or no spread to size it by.
    """
    turn = -1 if test.lower_is_better else 1
    away = (
        None
        if test.estimate is None
        else turn * test.estimate + margin
        if margin
        else abs(test.estimate)
    )
    if not test.n or not away or away <= 0:
        return None
    if hasattr(test, "fixed"):
        fixed, regressed = (test.fixed / test.n, test.regressed / test.n)[::turn]
        needed = stats.examples_needed(fixed, regressed, margin=margin, alpha=alpha, power=power)
    elif test.se:
        # Two arms carry twice the variance of one paired difference, so a pair needs half of one arm.
        spread = test.se * test.n**0.5
        arm = stats.users_needed_mean(spread, away, alpha=alpha, power=power).n_control
        needed = -(-arm // 2)
    else:
        return None
    return max(needed, test.n + 1)


Predicate = Callable[[Pair], bool]
LABEL = "exploratory: found by looking, so it needs fresh examples to be believed"
MAX_VALUES = 20  # a field with more values names examples, not slices


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
    test: Any
    p_adjusted: float | None = None

    @property
    def estimate(self) -> float | None:
        """Fine-tuned minus base, inside the segment."""
        return self.test.estimate

    @property
    def where(self) -> str:
        """Its traits in one phrase."""
        return " and ".join(self.traits)

    @property
    def what(self) -> str:
        """What was lost there, with interval (at the test's level) and counts."""
        share = wording.percent(self.share_of_regressed, 0)
        lost = f"{self.n_regressed} regressed of {self.n}, {share} of all regressions"
        return f"{wording.effect(self.test)}, {lost}."

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


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
        import pandas as pd

        floats = ("share_of_regressed", "estimate", "ci_low", "ci_high", "p_adjusted")
        dtypes = {"where": "str", **dict.fromkeys(("n", "n_fixed", "n_regressed"), "Int64")}
        dtypes |= dict.fromkeys(floats, "Float64")
        rows = [
            {"where": one.where, "share_of_regressed": one.share_of_regressed, **row}
            for one, row in zip(self.segments, self.to_dict()["segments"], strict=True)
        ]
        return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the evidence file."""
        rows = [
            {
                "traits": [*one.traits],
                "n": one.n,
                "n_fixed": one.n_fixed,
                "n_regressed": one.n_regressed,
                "estimate": one.estimate,
                "ci_low": one.test.ci_low,
                "ci_high": one.test.ci_high,
                "p_adjusted": one.p_adjusted,
            }
            for one in self.segments
        ]
        return {
            "label": self.label,
            "n_looked_at": self.n_looked_at,
            "min_support": self.min_support,
            "segments": rows,
        }

    def _repr_html_(self) -> str:
        return wording.html_table({one.where: one.what for one in self.segments})


def find_slices(
    comparison: Comparison,
    *,
    predicates: Mapping[str, Predicate | str] | None = None,
    min_support: int = 20,
    depth: int = 2,
    top: int = 8,
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
        depth: 1 for single traits, 2 for pairs as well.
        top: At most so many segments.

    Raises:
        DesignError: A depth other than 1 or 2, or a broken regular expression.
    """
    if depth not in {1, 2}:
        raise DesignError(f"depth is {depth}; the finder combines one or two traits")
    import numpy as np

    pairs = [one for one in comparison.pairs if one.status != "undefined"]
    masks = {
        name: mask
        for name, mask in _traits(pairs, predicates or {}).items()
        if mask.sum() >= min_support
    }
    fixed, regressed = (
        np.array([one.status == status for one in pairs], dtype=bool)
        for status in ("fixed", "regressed")
    )
    both_right = np.array([one.status == "both right" for one in pairs], dtype=bool)
    changes = fixed.astype(float) - regressed
    sources = np.array([one.cluster for one in pairs], dtype=object)
    segments = []
    for traits, mask in _candidates(masks, min_support, depth):
        n, right, b, c = (
            int(one.sum()) for one in (mask, mask & both_right, mask & fixed, mask & regressed)
        )
        test = None
        if c > b and comparison.clustered:
            test = replace(
                stats.paired_mean_test(
                    changes[mask], clusters=list(sources[mask]), alpha=comparison.alpha
                ),
                shown_as="points",
            )
        elif c > b:
            test = stats.paired_binary_test(right, b, c, n - right - b - c, alpha=comparison.alpha)
        share = c / max(int(regressed.sum()), 1)
        segments.append(
            Segment(
                traits=traits, n=n, n_fixed=b, n_regressed=c, share_of_regressed=share, test=test
            )
        )
    # Segments without a loss are not shown, but they were looked at: they count in the adjustment, with p = 1.
    raw = [
        1.0 if one.test is None or one.test.p_decides is None else one.test.p_decides
        for one in segments
    ]
    adjusted = stats.adjust(raw, method="bh")
    losses = [
        replace(one, p_adjusted=p)
        for one, p in zip(segments, adjusted, strict=True)
        if one.test is not None
    ]
    losses.sort(key=lambda one: (one.p_adjusted, one.estimate, len(one.traits)))
    return Found(
        segments=tuple(_without_echoes(losses)[:top]),
        n_looked_at=len(segments),
        min_support=min_support,
    )


def _traits(
    pairs: Sequence[Pair], predicates: Mapping[str, Predicate | str]
) -> dict[str, np.ndarray]:
    import numpy as np

    masks: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for one in pairs for name in one.base.slices):
        values = np.array([str(one.base.slices.get(name, NO_VALUE)) for one in pairs], dtype=object)
        found = sorted(set(values))
        if 1 < len(found) <= MAX_VALUES:
            masks |= {f"{name} = {value}": values == value for value in found}
    own = own_messages([one.base.prompt for one in pairs])
    texts = [spoken_text(messages) for messages in own]
    masks |= _thirds("input characters", [len(text) for text in texts])
    masks |= _thirds("input lines", [text.count("\n") + 1 for text in texts])
    masks |= _thirds("expected lines", [one.base.expected.count("\n") + 1 for one in pairs])
    digits = np.array([any(char.isdigit() for char in text) for text in texts], dtype=bool)
    masks |= {"input with digits": digits, "input without digits": ~digits}
    masks |= _thirds("messages", [len(one.base.prompt) for one in pairs])
    attached = np.array([bool(attachments(messages)) for messages in own], dtype=bool)
    masks |= {"input with an attachment": attached, "input without an attachment": ~attached}
    for name, rule in predicates.items():
        holds = _predicate(name, rule)
        masks[name] = np.array([holds(one) for one in pairs], dtype=bool)
    return {name: mask for name, mask in masks.items() if not mask.all()}


def _thirds(name: str, values: Sequence[int]) -> dict[str, np.ndarray]:
    import numpy as np

    numbers = np.array(values)
    if not len(numbers):
        return {}
    low, high = (int(one) for one in np.quantile(numbers, [1 / 3, 2 / 3], method="lower"))
    parts = {f"{name} ≤ {low}": numbers <= low, f"{name} > {high}": numbers > high}
    middle = (numbers > low) & (numbers <= high)
    return {**parts, f"{low} < {name} ≤ {high}": middle} if middle.any() else parts


def _predicate(name: str, rule: Predicate | str) -> Predicate:
    if callable(rule):
        return rule
    try:
        pattern = re.compile(rule)
    except re.error as why:
        raise DesignError(f"predicate {name!r}: {rule!r} is no regular expression ({why})") from why
    return lambda pair: any(pattern.search(text) for text in _searched(pair))


def _searched(pair: Pair) -> Iterator[str]:
    """Each message by itself, so that ^ and $ mean its ends, and the whole."""
    yield from (spoken_text([message]) for message in pair.base.prompt)
    yield conversation_text(pair.base.prompt)


def _candidates(
    masks: Mapping[str, np.ndarray], min_support: int, depth: int
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    for name, mask in masks.items():
        yield (name,), mask
    for (one, first), (other, second) in combinations(masks.items(), 2) if depth == 2 else ():
        both = first & second
        n = int(both.sum())
        if (
            min_support <= n < min(int(first.sum()), int(second.sum()))
        ):  # as large as one of them: the same examples again
            yield (one, other), both


def _without_echoes(segments: Sequence[Segment]) -> list[Segment]:
    """Drops a pair that loses no more than one of its traits alone, and a segment with the same numbers as one before."""
    alone = {one.traits[0]: one.estimate for one in segments if len(one.traits) == 1}
    kept: dict[tuple[int, int, int], Segment] = {}
    for one in segments:
        adds = len(one.traits) == 1 or all(
            (one.estimate or 0) < (alone.get(trait) or 0) for trait in one.traits
        )
        if adds:
            kept.setdefault((one.n, one.n_fixed, one.n_regressed), one)
    return list(kept.values())
