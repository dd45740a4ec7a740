"""Which declared slices moved: one row a slice, its interval, and p adjusted over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from evalkit import stats, wording
from evalkit.answers.pairs import Pair, mean, paired_test
from evalkit.benchmark.comparison import Comparison, Question
from evalkit.benchmark.frames import NO_VALUE, label, shown_values, slice_fields, value_of
from evalkit.errors import DataError
from evalkit.records import Brief

if TYPE_CHECKING:
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
