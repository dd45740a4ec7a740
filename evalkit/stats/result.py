"""What every statistic hands back: a frozen record of plain numbers that can say itself in one sentence."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from evalkit import wording
from evalkit.errors import DesignError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

Verdict = Literal[
    "better", "worse", "no difference shown", "too early", "invalid", "not worse", "not shown"
]
Scale = Literal["points", "percent", "number"]
HUGE = 1e150  # beyond it squares overflow: no measurement is that large


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
        p_value = self._deciding_p()
        if self.estimate is None:
            return "too early"
        if p_value is None or p_value >= self.alpha or self.estimate == self.no_effect():
            return "no difference shown"
        return which_way(self.estimate - self.no_effect(), lower_is_better=self.lower_is_better)

    @property
    def p_decides(self) -> float | None:
        """The p-value that the verdict follows: `p_value`, or the exact or adjusted one where that decides."""
        return self._deciding_p()

    def no_effect(self) -> float:
        """The estimate that would mean no difference."""
        return self.null

    def to_dict(self) -> dict[str, Any]:
        """Every field and every derived value (`verdict` too), safe for JSON."""
        names = [one.name for one in fields(self)]
        derived = sorted(
            name for name in dir(type(self)) if isinstance(getattr(type(self), name), property)
        )
        return {name: _json(getattr(self, name)) for name in [*names, *derived]}

    def __str__(self) -> str:
        if self.estimate is None:
            return f"{self._headline()}: not defined ({'; '.join(self.notes) or 'no data'})."
        parts = [
            self._interval_text(),
            *self._evidence(),
            self.method,
            f"n = {wording.plural(self.n, self.counted_in())}",
        ]
        return f"{self._headline()}: {self._estimate_text()} ({', '.join(part for part in parts if part)})."

    def _repr_html_(self) -> str:
        rows = {
            "verdict": self._headline(),
            "estimate": self._estimate_text(),
            f"{wording.confidence(self.alpha)} interval": self._ends(),
            "p": wording.p_text(self._deciding_p()),
            "n": wording.plural(self.n, self.counted_in()),
            "method": self.method,
            "notes": "; ".join(self.notes),
        }
        return wording.html_table({name: value for name, value in rows.items() if value})

    def _deciding_p(self) -> float | None:
        return self.p_value

    def _headline(self) -> str:
        return self.verdict.capitalize()

    def _text(self, value: float | None) -> str:
        if self.shown_in() == "number":
            return wording.signed(value)
        text = wording.points if self.shown_in() == "points" else wording.percent
        return text(value, self._digits())

    def _digits(self) -> int:
        """One decimal of a point, more where the interval is a point wide or less, or the estimate is as small."""
        shift = self.no_effect()
        return wording.decimals(
            *(
                None if one is None else one - shift
                for one in (self.estimate, self.ci_low, self.ci_high)
            )
        )

    def counted_in(self) -> str:
        """What `n` counts."""
        return self.unit

    def shown_in(self) -> Scale:
        """How the estimate is written: points, percent, or a number in its own unit."""
        return self.scale

    def _estimate_text(self) -> str:
        unit = " points" if self.shown_in() == "points" and self.estimate is not None else ""
        return self._text(self.estimate) + unit

    def _interval_text(self) -> str:
        if self.ci_low is None and self.ci_high is None:
            return wording.UNDEFINED
        return f"{wording.confidence(self.alpha)} interval {self._ends()}"

    def _ends(self) -> str:
        if self.ci_low is None and self.ci_high is None:
            return ""
        return f"{self._text(self.ci_low)} to {self._text(self.ci_high)}"

    def _evidence(self) -> list[str]:
        p_value = self._deciding_p()
        if p_value is None:
            return []
        text = wording.p_text(p_value)
        return [f"p {text}" if text.startswith("<") else f"p = {text}"]


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


def which_way(difference: float, *, lower_is_better: bool = False) -> Literal["better", "worse"]:
    """Is a difference, new - old and not 0, good news? The one place that knows."""
    return "better" if (difference > 0) != lower_is_better else "worse"


def whole(value: Any, name: str) -> int:
    """A count: a whole number from 0 on, of any integer type.

    Raises:
        DesignError: It is negative, has a fraction, or is no number.
    """
    try:
        count = int(value)
        if isinstance(value, str) or count != value:
            raise TypeError
    except (TypeError, ValueError, OverflowError):
        raise DesignError(f"{name} is {value!r}; need a whole number, 0 or more") from None
    if count < 0:
        raise DesignError(f"{name} is {count}; need a whole number, 0 or more")
    return count


def part_of(count: object, total: object, name: str, total_name: str) -> tuple[int, int]:
    """A count and its total, checked against each other.

    Raises:
        DesignError: The count exceeds the total, or either is no count.
    """
    k, n = whole(count, name), whole(total, total_name)
    if k > n:
        raise DesignError(f"{name} is {k} but {total_name} is {n}; a part cannot exceed its total")
    return k, n


def between(
    value: float, name: str, low: float = 0.0, high: float = 1.0, *, closed: bool = False
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
        raise DesignError(
            f"{name} is {value!r}; need a number {'from' if closed else 'between'} {low:g} {'to' if closed else 'and'} {high:g}"
        )
    return number


def numbers(values: ArrayLike, name: str) -> np.ndarray:
    """A flat float array without gaps.

    Raises:
        DesignError: A value is missing or not finite, or the array is not flat.
    """
    import numpy as np

    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise DesignError(
            f"{name} holds something that is not a number; drop or score missing values first"
        ) from None
    if array.ndim != 1:
        raise DesignError(f"{name} has {array.ndim} dimensions; need a flat list of numbers")
    if not (np.abs(array) < HUGE).all():
        raise DesignError(f"{name} holds missing or infinite values; drop or score them first")
    return array


def codes_of(clusters: Iterable[Hashable], n: int) -> tuple[np.ndarray, int]:
    """Clusters as codes 0, 1, ... in order of appearance, and how many there are.

    Raises:
        DesignError: A cluster is missing, or there is not one for each of n values.
    """
    import numpy as np
    import pandas as pd

    names = np.fromiter(clusters, dtype=object)
    if len(names) != n:
        raise DesignError(f"{len(names)} clusters or users for {n} values; need one for each")
    codes, found = pd.factorize(names)
    if (codes < 0).any():
        raise DesignError(
            "a cluster is missing; give every value one, its own id if it stands alone"
        )
    return codes, len(found)


def z_quantile(alpha: float) -> float:
    """The two-sided normal quantile z(1 - alpha/2)."""
    from scipy.special import ndtri  # of scipy.stats, which loads for a second, only what is needed

    return -float(ndtri(between(alpha, "alpha") / 2))


def z_of_p(p_value: float) -> float:
    """The z-score that has this two-sided normal p, 0 or more."""
    from scipy.special import ndtri

    return -float(ndtri(max(p_value, 1e-300) / 2))


def two_sided_p(z_score: float) -> float:
    """Two-sided normal p from the lower tail, which keeps p = 1e-49 apart from 0."""
    from scipy.special import ndtr

    return float(2 * ndtr(-abs(z_score)))


def _plain(value: Any) -> Any:
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return tuple(_plain(one) for one in value) if isinstance(value, tuple | list) else value


def _json(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return value.to_dict() if isinstance(value, Result) else asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _json(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_json(one) for one in value]
    return value
