"""What every statistic hands back: a frozen record of plain numbers that can say itself in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, ClassVar, Literal, SupportsInt

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri  # not scipy.stats, which loads for a second: plans do without

from evalkit import wording
from evalkit.errors import DesignError
from evalkit.files import JsonObject

Verdict = Literal[
    "better", "worse", "no difference shown", "too early", "invalid", "not worse", "not shown"
]
Scale = Literal["points", "percent", "number"]
Limits = tuple[float | None, float | None]
UNKNOWN: Limits = (None, None)
HUGE = 1e150  # beyond it squares overflow: no measurement is that large


def measured(
    estimate: float | None,
    n: int,
    limits: Limits = UNKNOWN,
    *,
    alpha: float,
    p_value: float | None = None,
) -> dict[str, Any]:
    """The fields of a `Result` that are measured, for the making of one."""
    low, high = limits
    named = {"estimate": estimate, "n": n, "ci_low": low, "ci_high": high}
    return named | {"alpha": alpha, "p_value": p_value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An estimate with its interval and test; a difference is new - old, its sign as measured.

    Attributes:
        estimate: The effect; None when the data cannot define it (`notes` says why).
        n: Independent units behind it (examples, items or users).
        ci_low: Lower limit of the two-sided `1 - alpha` interval, None when undefined.
        ci_high: Upper limit.
        alpha: Two-sided significance level.
        p_value: Two-sided; None when nothing is tested or the test is undefined.
        method: The method's name.
        notes: Plain sentences on anything unusual.
        lower_is_better: True for churn, cost or waiting times, where a fall is good news. It turns the verdict and nothing
            else.
    """

    scale: ClassVar[Scale] = "points"
    null: ClassVar[float] = 0.0
    unit: ClassVar[str] = "example"
    with_sign: ClassVar[bool] = True
    deciding: ClassVar[tuple[str, ...]] = ("p_value",)  # the first of these p-values that is there

    estimate: float | None = None
    n: int
    ci_low: float | None = None
    ci_high: float | None = None
    alpha: float = 0.05
    p_value: float | None = None
    method: str
    notes: tuple[str, ...] = ()
    lower_is_better: bool = False

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, _plain(getattr(self, one.name)))

    @property
    def verdict(self) -> Verdict:
        """Better, worse or no difference shown by the primary p-value; too early without an estimate."""
        return self.verdict_by(self.p_decides)

    def verdict_by(self, p_value: float | None) -> Verdict:
        """The verdict where another p decides, such as one adjusted for several tests."""
        if self.estimate is None:
            return "too early"
        if p_value is None or p_value >= self.alpha or self.estimate == self.no_effect():
            return "no difference shown"
        return which_way(self.estimate - self.no_effect(), lower_is_better=self.lower_is_better)

    @property
    def p_decides(self) -> float | None:
        """The p-value that the verdict follows: `p_value`, or the exact or adjusted one where that decides."""
        found = (getattr(self, name) for name in self.deciding)
        return next((one for one in found if one is not None), None)

    def no_effect(self) -> float:
        """The estimate that would mean no difference."""
        return self.null

    def counted_in(self) -> str:
        """What `n` counts."""
        return self.unit

    def shown_in(self) -> Scale:
        """How the estimate is written: points, percent, or a number in its own unit; a field `shown_as` says it itself."""
        return getattr(self, "shown_as", self.scale)

    def to_dict(self) -> JsonObject:
        """Every field and every derived value (`verdict` too), safe for JSON."""
        kind = type(self)
        derived = [name for name in dir(kind) if isinstance(getattr(kind, name), property)]
        names = [*(one.name for one in fields(self)), *derived]
        found = {name: getattr(self, name) for name in names}
        return {name: [*one] if isinstance(one, tuple) else one for name, one in found.items()}

    def __str__(self) -> str:
        if self.estimate is None:
            return f"{self._headline()}: not defined ({'; '.join(self.notes) or 'no data'})."
        ends, p_value = self._ends(), self.p_decides
        limits = f"{wording.confidence(self.alpha)} interval {ends}" if ends else wording.UNDEFINED
        p_said = "" if p_value is None else f", p {wording.p_phrase(p_value)}"
        n_said = wording.plural(self.n, self.counted_in())
        said = f"{limits}{p_said}, {self.method}, n = {n_said}"
        return f"{self._headline()}: {self._estimate_text()} ({said})."

    def _repr_html_(self) -> str:
        rows = {
            "verdict": self._headline(),
            "estimate": self._estimate_text(),
            f"{wording.confidence(self.alpha)} interval": self._ends(),
            "p": wording.p_text(self.p_decides),
            "n": wording.plural(self.n, self.counted_in()),
            "method": self.method,
            "notes": "; ".join(self.notes),
        }
        return wording.html_table({name: value for name, value in rows.items() if value})

    def _headline(self) -> str:
        return self.verdict.capitalize()

    def _text(self, value: float | None) -> str:
        """In its scale: a point has one decimal, more where the interval is a point wide or less, or the estimate as small."""
        if self.shown_in() == "number":
            return wording.signed(value) if self.with_sign else wording.signed(value).lstrip("+")
        ends = (self.estimate, self.ci_low, self.ci_high)
        away = (None if one is None else one - self.no_effect() for one in ends)
        said = wording.points if self.shown_in() == "points" else wording.percent
        return said(value, wording.decimals(*away))

    def _estimate_text(self) -> str:
        unit = " points" if self.shown_in() == "points" and self.estimate is not None else ""
        return self._text(self.estimate) + unit

    def _ends(self) -> str:
        if self.ci_low is None and self.ci_high is None:
            return ""
        return f"{self._text(self.ci_low)} to {self._text(self.ci_high)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference(Result):
    """A result whose estimate is a difference, new - old."""

    @property
    def diff(self) -> float | None:
        """`estimate` by its other name."""
        return self.estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class ByUser(Difference):
    """A difference between variants whose users may not bear a verdict.

    Attributes:
        no_verdict: Why no verdict can be given; "" when it can.
    """

    unit: ClassVar[str] = "user"
    no_verdict: str = ""

    @property
    def verdict(self) -> Verdict:
        """By the p-value; invalid where what carries the numbers does not bear one."""
        return "invalid" if self.no_verdict else super(ByUser, self).verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class NonInferiorityTest(Result):
    """An interval against a margin, both in the unit of the tested result.

    Attributes:
        margin: The largest loss that would be accepted, 0 or more.
        tested: Verdict of the result it was made from.
        shown_as: How that one is written.
        unit_counted: What that one counts.
    """

    margin: float
    tested: Verdict
    shown_as: Scale = "points"
    unit_counted: str = "example"

    @property
    def verdict(self) -> Verdict:
        """Not worse when the whole interval lies on the good side of the margin."""
        if self.tested in ("too early", "invalid"):
            return self.tested
        return "not worse" if keeps_margin(self, self.margin) else "not shown"

    def counted_in(self) -> str:
        """As the result it was made from."""
        return self.unit_counted

    def _headline(self) -> str:
        return f"{self.verdict.capitalize()} (margin {self._text(self.margin).lstrip('+')})"


def noninferiority_test(
    result: Result, margin: float, *, lower_is_better: bool | None = None
) -> NonInferiorityTest:
    """Does the interval of `result` exclude a loss of `margin` or more? "Not significant" would not show that.

    Args:
        result: A difference with an interval; its two-sided 95% interval is a one-sided 2.5% test.
        margin: Largest acceptable loss, in the result's unit (0.02 = 2 points for rates).
        lower_is_better: The quantity is bad, such as latency: then the upper limit must stay below the margin. As the
            result says when not given.

    Source: Piaggio et al. 2012 (CONSORT non-inferiority).

    Raises:
        DesignError: A negative margin.

    Example:
        >>> from evalkit.stats import paired_binary_test
        >>> noninferiority_test(paired_binary_test(250, 10, 8, 32), 0.05).verdict
        'not worse'
    """
    if not isinstance(margin, Real) or not 0 <= margin < float("inf"):
        raise DesignError(f"margin is {margin!r}; need the largest acceptable loss, 0 or more")
    even = result.no_effect()
    return NonInferiorityTest(
        **measured(
            None if result.estimate is None else result.estimate - even,
            result.n,
            moved((result.ci_low, result.ci_high), -even),
            alpha=result.alpha,
        ),
        method=f"{result.method}, interval against the margin",
        notes=result.notes,
        margin=margin,
        lower_is_better=result.lower_is_better if lower_is_better is None else lower_is_better,
        tested=result.verdict,
        unit_counted=result.counted_in(),
        shown_as="number" if result.shown_in() == "number" else "points",
    )


def keeps_margin(result: Result, margin: float) -> bool:
    """Whether the whole interval of a difference lies on the good side of a loss of the margin."""
    worst = result.ci_high if result.lower_is_better else result.ci_low
    return worst is not None and (worst if result.lower_is_better else -worst) < margin


def against_margin(tested: str, kept: bool) -> str:
    """The verdict where the question is "no worse": a result that shows better still says so.

    A loss that is shown, within the margin, is "not worse"; one of which that is not shown is "worse".

    Args:
        tested: Verdict of the test of the difference.
        kept: Whether the whole interval keeps the margin.

    Source: Piaggio et al. 2012, figure 1; better after not worse costs no alpha (a fixed sequence of the same interval).

    Example:
        >>> against_margin("no difference shown", True), against_margin("worse", True), against_margin("worse", False)
        ('not worse', 'not worse', 'worse')
    """
    if tested in ("better", "too early", "invalid"):
        return tested
    return "not worse" if kept else "worse" if tested == "worse" else "not shown"


def which_way(difference: float, *, lower_is_better: bool = False) -> Literal["better", "worse"]:
    """Is a difference, new - old and not 0, good news? The one place that knows."""
    return "better" if (difference > 0) != lower_is_better else "worse"


def whole(value: SupportsInt | str, name: str) -> int:
    """A count: a whole number from 0 on, of any integer type.

    Raises:
        DesignError: It is negative, has a fraction, or is no number.
    """
    try:
        count = -1 if isinstance(value, str) else int(value)
    except (TypeError, ValueError, OverflowError):
        count = -1
    if count < 0 or count != value:
        raise DesignError(f"{name} is {value!r}; need a whole number, 0 or more")
    return count


def part_of(count: int, total: int, name: str, total_name: str) -> tuple[int, int]:
    """A count and its total, checked against each other.

    Raises:
        DesignError: The count exceeds the total, or either is no count.
    """
    k, n = whole(count, name), whole(total, total_name)
    if k > n:
        raise DesignError(f"{name} is {k} but {total_name} is {n}; a part cannot exceed its total")
    return k, n


def between(
    value: float | str, name: str, low: float = 0.0, high: float = 1.0, *, closed: bool = False
) -> float:
    """A number inside (low, high), or [low, high] when closed.

    Raises:
        DesignError: It is outside, or no number.
    """
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (low <= number <= high if closed else low < number < high):
        ends = f"from {low:g} to {high:g}" if closed else f"between {low:g} and {high:g}"
        raise DesignError(f"{name} is {value!r}; need a number {ends}")
    return number


def numbers(values: ArrayLike, name: str) -> np.ndarray:
    """A flat float array without gaps.

    Raises:
        DesignError: A value is missing, no number or not finite, or the array is not flat.
    """
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError, OverflowError):
        array = np.array(math.nan)
    if array.ndim != 1 or not (np.abs(array) < HUGE).all():
        need = "a flat list of finite numbers; drop or score missing values first"
        raise DesignError(f"{name}: need {need}")
    return array


def codes_of(clusters: Iterable[Hashable], n: int) -> tuple[np.ndarray, int]:
    """Clusters as codes 0, 1, ... in order of appearance, and how many there are.

    Raises:
        DesignError: A cluster is missing, or there is not one for each of n values.
    """
    import pandas as pd

    names = np.fromiter(clusters, dtype=object)
    codes, found = pd.factorize(names)
    if len(names) != n or (codes < 0).any():
        told = f"{len(names)} for {n} values, {(codes < 0).sum()} of them missing"
        raise DesignError(f"clusters or users: {told}; need one for each value")
    return codes, len(found)


def noted(notes: Mapping[str, object]) -> tuple[str, ...]:
    """The notes that hold, of notes with what they hold by."""
    return tuple(note for note, holds in notes.items() if holds)


def moved(limits: Limits, by: float, factor: float = 1.0) -> Limits:
    """Limits times a factor and shifted; what is None stays so."""
    low, high = (None if one is None else by + factor * one for one in limits)
    return low, high


def z_quantile(alpha: float) -> float:
    """The two-sided normal quantile z(1 - alpha/2)."""
    return -float(ndtri(between(alpha, "alpha") / 2))


def z_of_p(p_value: float) -> float:
    """The z-score that has this two-sided normal p, 0 or more."""
    return -float(ndtri(max(p_value, 1e-300) / 2))


def two_sided_p(z_score: float) -> float:
    """Two-sided normal p from the lower tail, which keeps p = 1e-49 apart from 0."""
    return float(2 * ndtr(-abs(z_score)))


def root(
    excess: Callable[[float], float], low: float, high: float, *, xtol: float = 2e-12
) -> float:
    """Where a function that changes its sign between low and high is 0."""
    from scipy.optimize import brentq

    return float(brentq(excess, low, high, xtol=xtol))  # pyright: ignore[reportArgumentType]


def _plain(value: object) -> object:
    item = getattr(value, "item", None)  # of NumPy's numbers
    value = item() if callable(item) else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return tuple(_plain(one) for one in value) if isinstance(value, tuple | list) else value
