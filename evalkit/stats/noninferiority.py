"""Is the new one no worse than the old one, within a margin declared beforehand?"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from evalkit.errors import DesignError
from evalkit.stats.result import Result, Scale, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class NonInferiorityTest(Result):
    """An interval against a margin, both in the unit of the tested result.

    Attributes:
        margin: The largest loss that would be accepted, 0 or more.
        tested: Verdict of the result it was made from.
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

    def shown_in(self) -> Scale:
        """As the result it was made from."""
        return self.shown_as

    def _headline(self) -> str:
        margin = self._text(self.margin).lstrip("+")
        return f"{self.verdict.capitalize()} (margin {margin})"


def noninferiority_test(
    result: Result, margin: float, *, lower_is_better: bool | None = None
) -> NonInferiorityTest:
    """Does the interval of `result` exclude a loss of `margin` or more? "Not significant" would not show that.

    Args:
        result: Any difference with an interval; its two-sided 95% interval is a one-sided 2.5% test.
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
    shift = result.no_effect()
    low, high = (
        None if limit is None else limit - shift for limit in (result.ci_low, result.ci_high)
    )
    return NonInferiorityTest(
        estimate=None if result.estimate is None else result.estimate - shift,
        n=result.n,
        ci_low=low,
        ci_high=high,
        alpha=result.alpha,
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
