"""How the benchmark's numbers are said: metrics, levels, differences. Sentences are made of these, never typed by hand."""

from __future__ import annotations

from collections.abc import Iterable

from evalkit import wording
from evalkit.stats.result import Result
from evalkit.wording import amount, percent, scale_of

_LABELS = {"exact_match": "exact match", "normalised_exact": "normalised exact match"}
_SHAPE = "similarity rewards copying the shape of an answer, right or wrong"
_BY_ACCIDENT = {
    "all_lines_present": "all lines present rewards listing every candidate",
    "similarity": _SHAPE,
    "article_similarity": _SHAPE,
    "format": "format is right for a well-formed wrong answer",
    "exact_match": "exact match gives nothing for a right answer in other words",
}
SHOWN = {"better", "worse"}


def label(metric: str) -> str:
    """A metric's name in words.

    Example:
        >>> label("all_lines_present")
        'all lines present'
    """
    return _LABELS.get(metric, metric.replace("_", " "))


def are(n: int) -> str:
    """The verb after a count."""
    return "is" if n == 1 else "are"


def effect(test: Result) -> str:
    """Verdict, size and interval in one phrase; the interval is never left out.

    Example:
        >>> from evalkit.stats import paired_binary_test
        >>> effect(paired_binary_test(250, 10, 8, 32))
        'no difference shown, +0.7 points (95% interval −2.3 to +3.7)'
    """
    if test.estimate is None:
        return "nothing can be said, no examples"
    if test.verdict in SHOWN:
        return f"{test.verdict} by {wording.effect(test, sign=False)}"
    return f"{test.verdict}, {wording.effect(test)}"


def size(test: Result) -> str:
    """A difference with its interval, without its unit: "+10.7 (+6.7 to +15.2)"."""
    low, high, scale = test.ci_low, test.ci_high, scale_of(test)
    digits = wording.decimals(test.estimate, low, high)
    ends = "" if low is None else f" ({wording.limits(low, high, scale, digits=digits)})"
    return f"{amount(test.estimate, scale, digits=digits).removesuffix(' points')}{ends}"


def level(rate: Result | None) -> str:
    """A rate in percent, a mean with two decimals."""
    if rate is None or rate.estimate is None:
        return wording.NOTHING
    return (percent if rate.method == "Wilson" else wording.number)(rate.estimate)


def value(result: Result, at: float | None) -> str:
    """A share of the result in percent, agreement beyond chance as a plain number."""
    return (wording.number if result.scale == "number" else percent)(at)


def ends(result: Result) -> str:
    """Both ends of its interval."""
    return f"{value(result, result.ci_low)} to {value(result, result.ci_high)}"


def interval(result: Result) -> str:
    """Its interval with the level: "95% interval 45.6% to 54.4%"."""
    return f"{wording.confidence(result.alpha)} interval {ends(result)}"


def levels(old: float | None, new: float | None, test: Result) -> str:
    """Both models' levels in the unit of their difference: "25.0% to 60.0%"."""
    return f"{wording.level(old, scale_of(test))} to {wording.level(new, scale_of(test))}"


def moves(estimate: float) -> str:
    """The way of a shown difference: what should fall is better when it falls."""
    return "rises" if estimate > 0 else "falls"


def loss(margin: float | None, test: Result) -> str:
    """A margin in the unit of the difference that is held against it."""
    return wording.loss(margin, scale_of(test))


def against(said: str, margin: float | None, test: Result) -> str:
    """What is said against a margin, as the end of a sentence; any other verdict as it is.

    Example:
        >>> from evalkit.stats import paired_binary_test
        >>> test = paired_binary_test(250, 10, 8, 32)
        >>> against("not worse", 0.02, test), against("not shown", 0.02, test)
        ('not worse by more than 2 points', 'a loss of 2 points is not ruled out')
    """
    lost = loss(margin, test)
    kept, open_ = f"not worse by more than {lost}", f"a loss of {lost} is not ruled out"
    return {"not worse": kept, "not shown": open_}.get(said, said)


def measured(field: str) -> tuple[str, str]:
    """What a field of an answer measures, and its unit."""
    if field == "latency_ms":
        return "latency", "ms"
    return field.replace("_tokens", " length").replace("_", " "), "tokens"


def methods(tests: Iterable[Result]) -> str:
    """The methods behind some tests, each once, in the order they come.

    Example:
        >>> from evalkit.stats import paired_binary_test, paired_mean_test
        >>> methods([paired_binary_test(5, 3, 2, 1), paired_mean_test([0.1, 0.3])])
        'McNemar mid-p with Tango intervals; paired t'
    """
    names = dict.fromkeys(one.method for one in tests)
    tango = {"McNemar mid-p": "McNemar mid-p with Tango intervals"}
    return "; ".join(tango.get(name, name) for name in names) or "No test"


def rewarded_by_accident(metrics: Iterable[str]) -> str:
    """What each metric rewards without meaning to; "" when that is known of none of them."""
    known = dict.fromkeys(filter(None, map(_BY_ACCIDENT.get, metrics)))
    return f"What the metrics reward by accident: {'; '.join(known)}." if known else ""
