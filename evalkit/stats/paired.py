"""Two models on the same examples: the difference inside each example, of all of them and by regression in each slice."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from evalkit import wording
from evalkit.errors import DesignError
from evalkit.files import JsonObject
from evalkit.stats import result
from evalkit.stats.result import UNKNOWN, Difference, Limits, Result, Scale

if TYPE_CHECKING:
    import pandas as pd

FEW_PAIRS = 10
FEW_CLUSTERS = 20
# below it every sign flip of the units is counted; above it t agrees with that count
FEW_MOVED = 30
Fit = Any  # a fitted model of statsmodels, which declares no types
METHOD = {"points": "linear probability", "odds ratio": "GEE"}
READING = {
    "points": "A row says by how many points of accuracy the fine-tuned model differs from the base model.",
    "odds ratio": "An odds ratio above 1 says the fine-tuned model is right more often; 2 is twice the odds, 1 no difference.",
}
MOST_VALUES = 40  # that a field may have to be cut by: more is an id or a text, no kind of example
N_LARGEST = 20  # that are shown of a field with more
NO_SLICE = "(none)"
FEW = 30  # examples in a group below which no p is given
UNDEFINED = "n/a: too few examples, or a model is always or never right here"
TOO_FAR = 15.0  # log odds: beyond this a logit is separated, not estimated


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest(Difference):
    """Both models on the same examples.

    Attributes:
        p_compared: p after the correction for several models compared with one base; where it is given it decides.
    """

    deciding: ClassVar[tuple[str, ...]] = ("p_compared", "p_value")
    p_compared: float | None = None

    def to_dict(self) -> JsonObject:
        """As any result; `p_compared` only where several models were compared."""
        found = Difference.to_dict(self)
        return {k: v for k, v in found.items() if k != "p_compared" or v is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedBinaryTest(PairedTest):
    """Right or wrong, both models on the same examples; `diff` is `fine_tuned_rate - base_rate`,
    which is `(fixed - regressed) / n`, a fraction.

    Attributes:
        p_value: McNemar mid-p, which decides the verdict.
        p_exact: McNemar exact p.
        fixed: Examples only the newer model got right.
        regressed: Examples only the older model got right.
    """

    both_right: int
    fixed: int
    regressed: int
    both_wrong: int
    p_exact: float | None

    @property
    def base_rate(self) -> float | None:
        """Share the older model got right."""
        return (self.both_right + self.regressed) / self.n if self.n else None

    @property
    def fine_tuned_rate(self) -> float | None:
        """Share the newer model got right."""
        return (self.both_right + self.fixed) / self.n if self.n else None

    @property
    def disagreement(self) -> float | None:
        """Share of examples on which exactly one model is right."""
        return (self.fixed + self.regressed) / self.n if self.n else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedMeanTest(PairedTest):
    """Mean of per-example differences of a numeric score.

    Attributes:
        p_value: Of t; of the exact test where nothing varies and t is undefined.
        p_exact: Exact sign-flip p over the examples (or clusters), where fewer than `FEW_MOVED` of them moved or all
            moved alike: there it decides. Else None, and t decides.
        se: Standard error, cluster-robust when clusters are declared.
        df: Degrees of freedom of t: `n - 1`, or clusters - 1.
        n_clusters: Distinct clusters, None when each example stands alone.
        shown_as: Points where the score is right or wrong, averaged over samples or tested by clusters.
    """

    scale: ClassVar[Scale] = "number"
    deciding: ClassVar[tuple[str, ...]] = ("p_compared", "p_exact", "p_value")
    se: float | None
    df: int
    t_score: float | None
    n_clusters: int | None = None
    p_exact: float | None = None
    shown_as: Scale = field(default="number", compare=False)


def paired_binary_test(
    both_right: int, fixed: int, regressed: int, both_wrong: int, *, alpha: float = 0.05
) -> PairedBinaryTest:
    """Is the fine-tuned model more often right, and by how much?

    McNemar's mid-p test with Tango's score interval. Examples both models get right (or wrong) leave p unchanged.

    Source: Fagerland, Lydersen & Laake 2013 (mid-p); Tango 1998 (interval).

    Raises:
        DesignError: Not counts.

    Example:
        >>> print(paired_binary_test(61, 38, 6, 195))
        Better: +10.7 points (95% interval +6.7 to +15.2, p < 0.0001, McNemar mid-p, n = 300 examples).
    """
    both, b = result.whole(both_right, "both_right"), result.whole(fixed, "fixed")
    c, neither = result.whole(regressed, "regressed"), result.whole(both_wrong, "both_wrong")
    n = both + b + c + neither
    mid_p, exact = mcnemar(b, c) if n else (None, None)
    decided = f"{wording.plural(b + c, 'example')} decided it"
    notes = {
        "no examples: nothing to compare": not n,
        f"only {decided}: mid-p can exceed its level slightly, see p_exact": 0 < b + c < FEW_PAIRS,
    }
    limits = tango_interval(b, c, n, alpha=alpha)
    return PairedBinaryTest(
        **result.measured((b - c) / n if n else None, n, limits, alpha=alpha, p_value=mid_p),
        method="McNemar mid-p",
        notes=result.noted(notes),
        p_exact=exact,
        both_right=both,
        fixed=b,
        regressed=c,
        both_wrong=neither,
    )


def mcnemar(b: int, c: int) -> tuple[float, float]:
    """Two-sided mid-p and exact p that b and c are equally likely; mid-p is `1 - pmf / 2` when b = c."""
    from scipy.stats import binom, binomtest

    if b + c == 0:
        return 1.0, 1.0
    pmf = float(binom.pmf(min(b, c), b + c, 0.5))
    # Far in the tail the sum underflows to 0 before its first terms do: both ends' own terms bound it from below.
    exact = min(1.0, max(float(binomtest(min(b, c), b + c).pvalue), 2 * pmf if b != c else 0.0))
    return (1 - pmf / 2 if b == c else exact - pmf), exact


def tango_interval(b: int, c: int, n: int, *, alpha: float = 0.05) -> Limits:
    """Score interval of the paired difference `(b - c) / n`; None, None when n is 0.

    Source: Tango 1998: the limits solve `(b - c - n d) / sqrt(n (2 q + d (1 - d))) = z` and `= -z` in d, where q is
    the rate of regressed examples that is most likely when the difference is d.

    Example:
        >>> [round(limit, 4) for limit in tango_interval(1, 2, 50)]
        [-0.1182, 0.0711]
    """
    z = result.z_quantile(alpha)
    if n == 0:
        return UNKNOWN
    estimate = (b - c) / n

    def score(delta: float) -> float:
        linear = -b - c + (2 * n - b + c) * delta
        rate = (max(0.0, linear**2 + 8 * n * c * delta * (1 - delta)) ** 0.5 - linear) / (4 * n)
        variance = n * (2 * rate + delta * (1 - delta))
        gap = b - c - n * delta
        return gap / variance**0.5 if variance > 1e-15 else float(np.sign(gap)) * 1e9

    low = (
        -1.0 if c == n else result.root(lambda delta: score(delta) - z, -1.0, estimate, xtol=1e-12)
    )
    high = 1.0 if b == n else result.root(lambda delta: score(delta) + z, estimate, 1.0, xtol=1e-12)
    return min(low, estimate), max(high, estimate)


def paired_mean_test(
    differences: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    alpha: float = 0.05,
    largest: float | None = 1.0,
    noun: str = "",
) -> PairedMeanTest:
    """Is the mean per-example difference away from 0?

    t over the examples, or over clusters. Where fewer than `FEW_MOVED` of them differ from 0, or all differ alike, the
    verdict follows the exact test on them: all sign flips counted. It is valid at any number, equals the sign test when
    there is no spread, and a larger gain never weakens it, as it can weaken t.

    Args:
        differences: Newer - older, one per example, in the score's own unit.
        clusters: The source each example belongs to (document, patient, template); then the standard error is
            cluster-robust and t has clusters - 1 degrees of freedom.
        alpha: Two-sided level.
        largest: Largest size a difference can have: 1 for rates and similarities, None where there is none. It sizes
            the interval where every difference is 0.
        noun: What the notes count; examples, or clusters, when not given.

    Source: paired t; Liang & Zeger 1986 with the G/(G-1) correction, as statsmodels `cov_type="cluster"`. Sign flips:
    Fisher 1935, section 21; Pitman 1937. Without spread: Clopper & Pearson 1934 for the units that may be otherwise.

    Raises:
        DesignError: A difference is missing, or clusters do not match the differences.

    Example:
        >>> print(paired_mean_test([0.1, 0.3, 0.2, 0.4, 0.2, 0.1]))
        Better: +0.217 (95% interval +0.094 to +0.339, p = 0.031, paired t, n = 6 examples).
        >>> print(paired_mean_test([0.2] * 50))
        Better: +0.200 (95% interval +0.172 to +0.228, p < 0.0001, exact sign test, n = 50 examples).
    """
    from scipy.stats import t as student

    values, alpha = result.numbers(differences, "differences"), result.between(alpha, "alpha")
    n, noun = len(values), noun or ("example" if clusters is None else "cluster")
    mean = float(values.mean()) if n else None
    n_units, units, residuals = n, values, values - values.mean() if n else values
    if clusters is not None:
        codes, n_units = result.codes_of(clusters, n)
        units, residuals = (
            np.bincount(codes, weights=one, minlength=n_units) for one in (values, residuals)
        )
    df = max(n_units - 1, 0)
    se = float((residuals @ residuals * (df + 1) / df) ** 0.5 / n) if df else None
    flat = se is not None and se <= 1e-12 * max(1.0, abs(mean or 0.0))
    limits, method = UNKNOWN, "paired t" if clusters is None else "cluster-robust t"
    score = p_value = exact = None
    if mean is not None and se is not None:
        n_moved, n_up = int((units != 0).sum()), int((units > 0).sum())
        if flat and n_moved:
            exact = mcnemar(n_up, n_units - n_up)[1]
        elif n_moved < FEW_MOVED:
            exact = sign_flip_p(units)
        if flat:
            method = "exact sign test" if clusters is None else "exact sign test on clusters"
            p_value, limits = exact, _no_spread_interval(mean, n_units, alpha, largest)
        else:
            half, score = float(student.isf(alpha / 2, df)) * se, mean / se
            limits, p_value = (mean - half, mean + half), float(2 * student.sf(abs(score), df))
    few = clusters is not None and 2 <= n_units < FEW_CLUSTERS
    parts = p_value is not None and exact is not None and (p_value < alpha) != (exact < alpha)
    counted = wording.plural(n_units, noun)
    notes = {
        f"{counted}: need at least two for an interval": n_units < 2,
        f"all differences are equal: the exact sign test on {counted} decides": flat,
        f"few {noun}s moved: the exact test decides (p_exact), not the interval, from t": parts,
        f"only {n_units} clusters: below {FEW_CLUSTERS} the interval is approximate": few,
    }
    return PairedMeanTest(
        **result.measured(mean, n, limits, alpha=alpha, p_value=p_value),
        method=method,
        notes=result.noted(notes),
        se=se,
        df=df,
        t_score=score,
        n_clusters=None if clusters is None else n_units,
        p_exact=exact,
    )


def sign_flip_p(units: ArrayLike) -> float:
    """Two-sided exact p that each unit's difference could as well have had the other sign.

    Every subset of the units is counted whose sum lies on the wrong side of 0 (Hartigan's typical values), in two
    halves that meet in the middle: 2^15 sums each, so at most 30 units that are not 0.

    Source: Fisher 1935; Pitman 1937; Hartigan 1969 (subset sums).

    Raises:
        DesignError: More than `FEW_MOVED` units moved.

    Example:
        >>> sign_flip_p([1, 1, 1, 1, 1]), sign_flip_p([3, 1, 0, -1])
        (0.0625, 0.75)
    """
    # In order of size, so that the rows' order and rounding cannot matter.
    moved = np.sort(result.numbers(units, "units"))
    moved = moved[moved != 0]
    if len(moved) > FEW_MOVED:
        raise DesignError(f"{len(moved)} units moved; sign flips are counted for up to {FEW_MOVED}")
    slack = 1e-9 * float(np.abs(moved).sum())
    left, right = _subset_sums(moved[::2]), np.sort(_subset_sums(moved[1::2]))
    halves = (right, left), (np.sort(-right), -left)
    wrong = [int(np.searchsorted(one, slack - by, side="right").sum()) for one, by in halves]
    return min(1.0, 2 * min(wrong) / 2 ** len(moved))


def _subset_sums(values: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for one in values:
        sums = np.concatenate([sums, sums + one])
    return sums


def _no_spread_interval(value: float, n_units: int, alpha: float, largest: float | None) -> Limits:
    """Limits where n units all show one value: the share that may be otherwise, of the other sign and the same size.

    It leaves out 0 exactly when the sign test does; where the value is 0, the others may be as large as can be.
    """
    otherwise = 1 - (alpha / 2) ** (1 / n_units)
    if value == 0:
        return UNKNOWN if largest is None else (-otherwise * largest, otherwise * largest)
    reach = 2 * otherwise * abs(value)
    most = math.inf if largest is None or abs(value) > largest else largest
    return max(value - reach, -most), min(value + reach, most)


# ---- the same by regression: of all examples, of each slice, and of a slice against another


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionRow(Result):
    """One line: what changes with the fine-tuned model, in all examples or in one slice.

    Attributes:
        term: In words, e.g. "fine-tuned, kind = multi".
        slice: The slice's value, None for all examples and for comparisons between slices.
        base_rate: Share the base model got right, None for comparisons.
        fine_tuned_rate: The same for the fine-tuned model.
        effect: "points" (difference of rates) or "odds ratio".
        few: A slice of the row has fewer than 30 examples: its interval is given, but no p.
    """

    with_sign: ClassVar[bool] = False
    term: str
    slice: str | None = None
    base_rate: float | None = None
    fine_tuned_rate: float | None = None
    effect: str = "points"
    few: bool = False

    def no_effect(self) -> float:
        """0 points, or odds ratio 1."""
        return 0.0 if self.effect == "points" else 1.0

    def shown_in(self) -> Scale:
        """Points, or the ratio as a number."""
        return "points" if self.effect == "points" else "number"

    def _headline(self) -> str:
        return self.term


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionTable:
    """Rows of one regression.

    Attributes:
        rows: One for all examples, one a slice (the largest first), then how the others differ from the largest.
        effect: "points" or "odds ratio".
        reading: How to read a row, in words.
        method: The model's name.
        notes: Anything unusual.
    """

    rows: tuple[RegressionRow, ...]
    effect: str
    reading: str
    method: str
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[RegressionRow]:
        return iter(self.rows)

    def __str__(self) -> str:
        return "\n".join([self.reading, *(str(row) for row in self.rows), *self.notes])

    def to_dict(self) -> JsonObject:
        """Plain numbers, safe for JSON."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return found | {"rows": [row.to_dict() for row in self.rows], "notes": [*self.notes]}

    def _repr_html_(self) -> str:
        cells = {row.term: str(row).removeprefix(f"{row.term}: ") for row in self.rows}
        notes = "; ".join(self.notes)
        return wording.html_table({"how to read": self.reading, **cells, "notes": notes})


def linear_probability_table(
    frame: pd.DataFrame, *, cluster: str = "example_id", alpha: float = 0.05
) -> RegressionTable:
    """What the fine-tuned model changes, in points, overall and in each slice.

    Least squares of `correct ~ fine_tuned * slice`, standard errors clustered by example. Without slices the
    coefficient of `fine_tuned` is exactly (fixed - regressed) / n.

    Args:
        frame: Two rows an example: columns example_id, fine_tuned (0 or 1), correct (0 or 1), and slice if any.
        cluster: The column to cluster by, e.g. a declared source of examples.
        alpha: Two-sided level.

    Source: Angrist & Pischke 2009, section 3.4.2; statsmodels OLS with `cov_type="cluster"`.

    Raises:
        DesignError: A column is missing, or holds something else than 0 and 1.

    Example:
        >>> import pandas as pd
        >>> rows = [(i, model, int(i % 3 == 0 or (model and i % 2))) for i in range(30) for model in (0, 1)]
        >>> print(linear_probability_table(pd.DataFrame(rows, columns=["example_id", "fine_tuned", "correct"])).rows[0])
        Fine-tuned, all examples: +33.3 points (95% interval +15.3 to +51.4, p = 0.0007, linear probability, n = 30 examples).
    """
    return _table(frame, cluster, alpha, effect="points")


def gee_odds_table(
    frame: pd.DataFrame, *, cluster: str = "example_id", alpha: float = 0.05
) -> RegressionTable:
    """What the fine-tuned model does to the odds of a right answer, overall and in each slice.

    GEE, binomial, clustered by example. A slice in which a model is always (or never) right separates the logit:
    its row says n/a and the other slices are fitted without it. The arguments are those of `linear_probability_table`.

    Source: Liang & Zeger 1986; statsmodels GEE, independence working correlation.

    Raises:
        DesignError: A column is missing, or holds something else than 0 and 1.

    Example:
        >>> import pandas as pd
        >>> rows = [(i, model, int(i % 3 == 0 or (model and i % 2))) for i in range(30) for model in (0, 1)]
        >>> round(gee_odds_table(pd.DataFrame(rows, columns=["example_id", "fine_tuned", "correct"])).rows[0].estimate, 2)
        4.0
    """
    return _table(frame, cluster, alpha, effect="odds ratio")


def clustered_fit(model: Fit, clusters: Iterable[Hashable]) -> Fit:
    """A statsmodels least-squares model, fitted with standard errors clustered by the source of each row.

    The same as `model.fit(cov_type="cluster", cov_kwds={"groups": ...}, use_t=True)`; but where nothing is left over to
    estimate a spread from (fewer than two clusters, or no more rows than terms) it is None instead of an error, and a
    standard error is 0 or NaN where nothing varied.

    Args:
        model: Such as `smf.ols("right.astype(float) ~ fine_tuned", frame)`.
        clusters: One entry a row: a column of the frame.

    Source: Liang & Zeger 1986, with the small-sample factor G/(G-1) * (N-1)/(N-K); t with G - 1 degrees of freedom.
    """
    codes, n_clusters = result.codes_of(clusters, len(model.exog))
    if n_clusters < 2 or len(model.exog) <= model.exog.shape[1]:
        return None
    fit = model.fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    with np.errstate(invalid="ignore"):  # a variance may be a hair below 0 where nothing varied
        _ = fit.bse  # kept by the fit: NaN there, which says it without a warning
    return fit


def fitted_logit(outcome: np.ndarray, design: np.ndarray, clusters: np.ndarray) -> Fit:
    """A binomial GEE with independent working correlation; None when the data separate or the fit does not settle."""
    import statsmodels.api as sm

    order = np.argsort(clusters, kind="stable")
    if len(set(outcome.tolist())) < 2:
        return None
    options = {"groups": clusters[order], "family": sm.families.Binomial()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fit: Fit = sm.GEE(outcome[order], design[order], **options).fit()
            settled = np.isfinite(fit.bse).all() and (np.abs(fit.params) < TOO_FAR).all()
        except (Warning, ValueError, ArithmeticError, np.linalg.LinAlgError):
            return None
    return fit if settled else None


def _answers(frame: pd.DataFrame, cluster: str) -> pd.DataFrame:
    """The columns of a table, one row an answer; refuses what the tables cannot use."""
    import pandas as pd

    needed = ["example_id", "fine_tuned", "correct", cluster]
    if lacking := [name for name in needed if name not in frame.columns]:
        raise DesignError(
            f"the table lacks {wording.listed(lacking)}; need {wording.listed(needed)}"
        )
    for name in ("fine_tuned", "correct"):
        if not {*frame[name].tolist()} <= {0, 1}:
            raise DesignError(f"column {name} holds something else than 0 and 1")
    if len({*frame["fine_tuned"]}) < 2:
        raise DesignError("column fine_tuned holds one model only; need rows of both")
    slices = [""] * len(frame)
    if "slice" in frame:
        slices = [NO_SLICE if pd.isna(one) else str(one) for one in frame["slice"].tolist()]
    shown = folded(slices, keep=[NO_SLICE])
    columns = {
        "example": frame["example_id"].to_numpy(),
        "fine_tuned": frame["fine_tuned"].to_numpy(float),
        "correct": frame["correct"].to_numpy(float),
        "slice": np.array([shown[one] for one in slices], dtype=object),
        "cluster": frame[cluster].to_numpy(),
    }
    return pd.DataFrame(columns)


def _n(answers: pd.DataFrame) -> int:
    """Examples."""
    return len({*answers["example"]})


def _rates(answers: pd.DataFrame) -> dict[float, float]:
    """Share of right answers of each model that is there, 0 for the base."""
    return {
        float(str(name)): float(own["correct"].to_numpy().mean())
        for name, own in answers.groupby("fine_tuned")
    }


def _has_both(answers: pd.DataFrame, odds: bool) -> bool:
    """Whether both models answered; for odds also, that neither is always or never right, which separates the logit."""
    rates = _rates(answers)
    return len(rates) == 2 and not (odds and {0.0, 1.0} & {*rates.values()})


def _fit(answers: pd.DataFrame, slices: list[str], odds: bool) -> Fit:
    """With a level of the base model for each slice, then an effect of the fine-tuned model for each."""
    from statsmodels.regression.linear_model import OLS

    correct, tuned = answers["correct"].to_numpy(), answers["fine_tuned"].to_numpy()
    member = np.ones((len(answers), 1))
    if len(slices) > 1:
        member = np.column_stack([answers["slice"] == one for one in slices])
    design = np.column_stack([member, member * tuned[:, None]]).astype(float)
    if not odds:
        return clustered_fit(OLS(correct, design), answers["cluster"].to_numpy())
    codes, _ = result.codes_of(answers["cluster"], len(answers))
    return fitted_logit(correct, design, codes) if _has_both(answers, odds) else None


def _table(frame: pd.DataFrame, cluster: str, alpha: float, *, effect: str) -> RegressionTable:
    """All examples, each slice, then how each slice's effect differs from that of the largest one."""
    data, odds = _answers(frame, cluster), effect != "points"
    parts = {str(name): part for name, part in data.groupby("slice") if name}
    slices = sorted(parts, key=lambda one: (-_n(parts[one]), one))
    usable = [one for one in slices if _has_both(parts[one], odds)]
    fit = _fit(data.loc[data["slice"].isin(usable)], usable, odds) if usable else None
    picks = dict(zip(usable, np.eye(2 * len(usable))[len(usable) :], strict=True))

    alpha = result.between(alpha, "alpha")
    rows = [("all examples", None, data, _fit(data, [], odds), np.array([0.0, 1.0]))]
    rows += [(one, one, parts[one], fit, picks.get(one)) for one in slices]
    for one in usable[1:]:
        both, against = data.loc[data["slice"].isin([one, usable[0]])], picks[usable[0]]
        rows.append((f"{one} against {usable[0]}", None, both, fit, picks[one] - against))
    left_out = [one for one in slices if odds and one not in usable]
    said = "a model is always or never right, so there is no odds ratio"
    return RegressionTable(
        rows=tuple(_row(*one, effect=effect, alpha=alpha) for one in rows),
        effect=effect,
        reading=READING[effect],
        method=f"{METHOD[effect]}, clustered",
        notes=(f"{said}: {wording.listed(left_out)}",) if left_out else (),
    )


def _row(
    what: str,
    name: str | None,
    part: pd.DataFrame,
    fit: Fit,
    weights: np.ndarray | None,
    *,
    effect: str,
    alpha: float,
) -> RegressionRow:
    """A weighted sum of coefficients with limits and p, as far as they exist."""
    from scipy.stats import norm
    from scipy.stats import t as student

    estimate, limits, p_value, few = None, UNKNOWN, None, False
    is_contrast = weights is not None and weights.sum() == 0
    if fit is not None and weights is not None:
        estimate = float(weights @ fit.params)
        se = float(max(0.0, weights @ fit.cov_params() @ weights) ** 0.5)
        if se >= 1e-10:
            law = student(fit.df_resid_inference) if effect == "points" else norm
            half, p_value = float(law.isf(alpha / 2)) * se, float(2 * law.sf(abs(estimate / se)))
            limits = estimate - half, estimate + half
            if effect != "points":
                estimate, *limits = np.exp([estimate, *limits]).tolist()
    notes = () if p_value is not None else (UNDEFINED,)
    fewest = min(_n(own) for _, own in part.groupby("slice"))
    if p_value is not None and (name is not None or is_contrast) and fewest < FEW:
        few, notes, p_value = True, (f"n < {FEW}: no p",), None
    rates = {} if is_contrast else _rates(part)
    low, high = limits
    return RegressionRow(
        **result.measured(estimate, _n(part), (low, high), alpha=alpha, p_value=p_value),
        term=f"Fine-tuned, {what}",
        slice=name,
        effect=effect,
        few=few,
        base_rate=rates.get(0.0),
        fine_tuned_rate=rates.get(1.0),
        method=METHOD[effect],
        notes=notes,
    )


def folded(values: Iterable[str], *, keep: Iterable[str] = ()) -> Mapping[str, str]:
    """Each value with the name it is shown under: its own, or "(the rest: 100 values)" beyond the twenty largest.

    Args:
        values: One entry an example.
        keep: Values that stay whatever their size, such as the one that stands for no value; they are not counted.

    Example:
        >>> shown = folded(["a", "a", *map(str, range(100))])
        >>> len(set(shown.values())), shown["a"], shown["99"]
        (21, 'a', '(the rest: 81 values)')
    """
    sizes = Counter(values)
    ordered = sorted(sizes.keys() - {*keep}, key=lambda one: (-sizes[one], one))
    rest = ordered[N_LARGEST:] if len(ordered) > MOST_VALUES else []
    named = f"(the rest: {wording.count(len(rest))} values)"
    return {one: one for one in sizes} | dict.fromkeys(rest, named)
