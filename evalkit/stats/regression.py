"""Correctness on model and slice, as tables a reader without statistics can use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from evalkit import wording
from evalkit.errors import DesignError
from evalkit.files import JsonObject
from evalkit.stats.result import UNKNOWN, Result, between, measured

Fit = Any  # a fitted model of statsmodels, which declares no types
NEEDED = ("example_id", "fine_tuned", "correct")
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

    term: str
    slice: str | None = None
    base_rate: float | None = None
    fine_tuned_rate: float | None = None
    effect: str = "points"
    few: bool = False

    def no_effect(self) -> float:
        """0 points, or odds ratio 1."""
        return 0.0 if self.effect == "points" else 1.0

    def _headline(self) -> str:
        return self.term

    def _text(self, value: float | None) -> str:
        if self.effect == "points":
            return wording.points(value)
        return "n/a" if value is None else wording.number(value)

    def _estimate_text(self) -> str:
        return self._text(self.estimate) + (" points" if self.effect == "points" else "")


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
        cells = {row.term: str(row)[len(row.term) :].removeprefix(": ") for row in self.rows}
        return wording.html_table(
            {"how to read": self.reading, **cells, "notes": "; ".join(self.notes)}
        )


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


def clustered_fit(model: Fit, clusters: pd.Series | np.ndarray) -> Fit:
    """A statsmodels least-squares model, fitted with standard errors clustered by the source of each row.

    The same as `model.fit(cov_type="cluster", cov_kwds={"groups": ...}, use_t=True)`; but where nothing is left over to
    estimate a spread from (fewer than two clusters, or no more rows than terms) it is None instead of an error, and a
    standard error is 0 or NaN where nothing varied.

    Args:
        model: Such as `smf.ols("right.astype(float) ~ fine_tuned", frame)`.
        clusters: One entry a row: a column of the frame.

    Source: Liang & Zeger 1986, with the small-sample factor G/(G-1) * (N-1)/(N-K); t with G - 1 degrees of freedom.
    """
    codes = pd.factorize(clusters)[0]
    if len(set(codes.tolist())) < 2 or len(model.exog) <= model.exog.shape[1]:
        return None
    fit = model.fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    with np.errstate(invalid="ignore"):  # a variance may be a hair below 0 where nothing varied
        _ = fit.bse  # kept by the fit: NaN there, which says it without a warning
    return fit


def fitted_logit(outcome: np.ndarray, design: np.ndarray, clusters: np.ndarray) -> Fit:
    """A binomial GEE with independent working correlation; None when the data separate or the fit does not settle."""
    import warnings

    import statsmodels.api as sm

    order = np.argsort(clusters, kind="stable")
    if len(set(outcome.tolist())) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fit: Fit = sm.GEE(
                outcome[order],
                design[order],
                groups=clusters[order],
                family=sm.families.Binomial(),
            ).fit()
            settled = np.isfinite(fit.bse).all() and (np.abs(fit.params) < TOO_FAR).all()
        except (Warning, ValueError, ArithmeticError, np.linalg.LinAlgError):
            return None
    return fit if settled else None


def _answers(frame: pd.DataFrame, cluster: str) -> pd.DataFrame:
    """The columns of a table, one row an answer; refuses what the tables cannot use."""
    if lacking := [name for name in (*NEEDED, cluster) if name not in frame.columns]:
        raise DesignError(
            f"the table lacks {wording.listed(lacking)}; need example_id, fine_tuned, correct and {cluster}"
        )
    for name in ("fine_tuned", "correct"):
        if not set(frame[name].tolist()) <= {0, 1}:
            raise DesignError(f"column {name} holds something else than 0 and 1")
    if len(set(frame["fine_tuned"].tolist())) < 2:
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


def _within(answers: pd.DataFrame, *slices: str) -> pd.DataFrame:
    return answers.loc[answers["slice"].isin(slices).to_numpy()]


def _n(answers: pd.DataFrame) -> int:
    """Examples."""
    return len(set(answers["example"]))


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
    if not _has_both(answers, odds):
        return None
    return fitted_logit(correct, design, pd.factorize(answers["cluster"])[0])


def _table(frame: pd.DataFrame, cluster: str, alpha: float, *, effect: str) -> RegressionTable:
    """All examples, each slice, then how each slice's effect differs from that of the largest one."""
    data, odds = _answers(frame, cluster), effect != "points"
    parts = {str(name): part for name, part in data.groupby("slice") if name}
    slices = sorted(parts, key=lambda one: (-_n(parts[one]), one))
    usable = [one for one in slices if _has_both(parts[one], odds)]
    fit = _fit(_within(data, *usable), usable, odds) if usable else None
    picks = dict(zip(usable, np.eye(2 * len(usable))[len(usable) :], strict=True))

    rows = [("all examples", None, data, _fit(data, [], odds), np.array([0.0, 1.0]))]
    rows += [(one, one, parts[one], fit, picks.get(one)) for one in slices]
    for one in usable[1:]:
        both = _within(data, one, usable[0])
        rows.append((f"{one} against {usable[0]}", None, both, fit, picks[one] - picks[usable[0]]))
    left_out = [one for one in slices if odds and one not in usable]
    said = "a model is always or never right, so there is no odds ratio"
    return RegressionTable(
        rows=tuple(_row(*one, effect=effect, alpha=between(alpha, "alpha")) for one in rows),
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
                estimate, *limits = (float(np.exp(one)) for one in (estimate, *limits))
    notes = () if p_value is not None else (UNDEFINED,)
    fewest = min(_n(own) for _, own in part.groupby("slice"))
    if p_value is not None and (name is not None or is_contrast) and fewest < FEW:
        few, notes, p_value = True, (f"n < {FEW}: no p",), None
    rates = {} if is_contrast else _rates(part)
    low, high = limits
    return RegressionRow(
        **measured(estimate, _n(part), (low, high), alpha=alpha, p_value=p_value),
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
    sizes, kept = Counter(values), set(keep)
    ordered = sorted((one for one in sizes if one not in kept), key=lambda one: (-sizes[one], one))
    own = {one: one for one in sizes}
    if len(ordered) <= MOST_VALUES:
        return own
    rest = ordered[N_LARGEST:]
    return own | dict.fromkeys(rest, f"(the rest: {wording.count(len(rest))} values)")
