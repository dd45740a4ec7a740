"""Correctness on model and slice, as tables a reader without statistics can use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from evalkit import wording
from evalkit.errors import DesignError
from evalkit.stats.multiplicity import folded
from evalkit.stats.result import Result, between

NEEDED = ("example_id", "fine_tuned", "correct")
NO_SLICE = "(none)"
FEW = 30  # examples in a group below which no p is given
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

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, safe for JSON."""
        rows = [row.to_dict() for row in self.rows]
        return {
            "rows": rows,
            "effect": self.effect,
            "reading": self.reading,
            "method": self.method,
            "notes": [*self.notes],
        }

    def _repr_html_(self) -> str:
        cells = {row.term: str(row)[len(row.term) :].removeprefix(": ") for row in self.rows}
        return wording.html_table(
            {"how to read": self.reading, **cells, "notes": "; ".join(self.notes)}
        )


def linear_probability_table(
    frame: object, *, cluster: str = "example_id", alpha: float = 0.05
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
    data = _checked(frame, cluster)
    slices = _slices(data)
    both = [one for one in slices if data.loc[data["slice"] == one, "fine_tuned"].nunique() == 2]
    fit = _linear_fit(data[data["slice"].isin(both)], both, cluster) if both else None
    return RegressionTable(
        rows=tuple(
            _rows(data, _linear_fit(data, [], cluster), fit, (slices, both), ("points", alpha))
        ),
        effect="points",
        reading="A row says by how many points of accuracy the fine-tuned model differs from the base model.",
        method="linear probability, clustered",
    )


def gee_odds_table(
    frame: object, *, cluster: str = "example_id", alpha: float = 0.05
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
    data = _checked(frame, cluster)
    slices = _slices(data)
    usable = [one for one in slices if not _is_separated(data[data["slice"] == one])]
    fit = _gee_fit(data[data["slice"].isin(usable)], usable, cluster) if usable else None
    left_out = wording.listed([one for one in slices if one not in usable])
    return RegressionTable(
        rows=tuple(
            _rows(data, _gee_fit(data, [], cluster), fit, (slices, usable), ("odds ratio", alpha))
        ),
        effect="odds ratio",
        reading="An odds ratio above 1 says the fine-tuned model is right more often; 2 is twice the odds, 1 no difference.",
        method="GEE, clustered",
        notes=(f"a model is always or never right, so there is no odds ratio: {left_out}",)
        if left_out
        else (),
    )


def clustered_fit(model: Any, clusters: Any) -> Any:
    """A statsmodels least-squares model, fitted with standard errors clustered by the source of each row.

    The same as `model.fit(cov_type="cluster", cov_kwds={"groups": ...}, use_t=True)`; but where nothing is left over to
    estimate a spread from (fewer than two clusters, or no more rows than terms) it is None instead of an error, and a
    standard error is 0 or NaN where nothing varied.

    Args:
        model: Such as `smf.ols("right.astype(float) ~ fine_tuned", frame)`.
        clusters: One entry a row: a column of the frame.

    Source: Liang & Zeger 1986, with the small-sample factor G/(G-1) * (N-1)/(N-K); t with G - 1 degrees of freedom.
    """
    import numpy as np
    import pandas as pd

    codes = pd.factorize(clusters)[0]
    if len(set(codes.tolist())) < 2 or len(model.exog) <= model.exog.shape[1]:
        return None
    fit = model.fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    with np.errstate(
        invalid="ignore"
    ):  # where nothing varied a variance may come out a hair below 0
        _ = fit.bse  # kept by the fit: NaN there, which says it without a warning
    return fit


def fitted_logit(outcome: Any, design: Any, clusters: Any) -> Any:
    """A binomial GEE with independent working correlation; None when the data separate or the fit does not settle."""
    import warnings

    import numpy as np
    import statsmodels.api as sm

    order = np.argsort(clusters, kind="stable")
    if len(set(np.asarray(outcome).tolist())) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            model = sm.GEE(
                outcome[order],
                design[order],
                groups=np.asarray(clusters)[order],
                family=sm.families.Binomial(),
            )
            fit: Any = model.fit()
            settled = np.isfinite(fit.bse).all() and (np.abs(fit.params) < TOO_FAR).all()
        except (Warning, ValueError, ArithmeticError, np.linalg.LinAlgError):
            return None
    return fit if settled else None


def _checked(frame: Any, cluster: str) -> Any:
    """The frame with plain columns; refuses what the tables cannot use."""
    lacking = [name for name in (*NEEDED, cluster) if name not in frame.columns]
    if lacking:
        raise DesignError(
            f"the table lacks {wording.listed(lacking)}; need example_id, fine_tuned, correct and {cluster}"
        )
    data = frame.reset_index(drop=True).copy()
    for name in ("fine_tuned", "correct"):
        if not data[name].isin([0, 1]).all():
            raise DesignError(f"column {name} holds something else than 0 and 1")
        data[name] = data[name].astype(float)
    if data["fine_tuned"].nunique() < 2:
        raise DesignError("column fine_tuned holds one model only; need rows of both")
    data["slice"] = _folded(data["slice"]) if "slice" in data else ""
    return data


def _folded(column: Any) -> Any:
    """The slices as text; too many to be estimated one by one are the largest and the rest."""
    values = column.astype(object).where(column.notna(), NO_SLICE).astype(str)
    return values.map(dict(folded(values.tolist(), keep=[NO_SLICE])))


def _slices(data: Any) -> list[str]:
    sizes = data.groupby("slice")["example_id"].nunique().to_dict()
    return sorted((one for one in sizes if one), key=lambda one: (-sizes[one], one))


def _is_separated(data: Any) -> bool:
    means = data.groupby("fine_tuned")["correct"].mean()
    return len(means) < 2 or bool(means.isin([0.0, 1.0]).any())


def _design(data: Any, slices: list[str]) -> Any:
    """Columns: one level of the base model a slice, then one effect of the fine-tuned model a slice."""
    import numpy as np

    member = (
        np.column_stack([data["slice"] == one for one in slices])
        if len(slices) > 1
        else np.ones((len(data), 1))
    )
    return np.column_stack([member, member * data[["fine_tuned"]].to_numpy()]).astype(float)


def _linear_fit(data: Any, slices: list[str], cluster: str) -> Any:
    import statsmodels.api as sm

    return clustered_fit(sm.OLS(data["correct"].to_numpy(), _design(data, slices)), data[cluster])


def _gee_fit(data: Any, slices: list[str], cluster: str) -> Any:
    import pandas as pd

    if _is_separated(data):
        return None
    return fitted_logit(
        data["correct"].to_numpy(), _design(data, slices), pd.factorize(data[cluster])[0]
    )


def _rows(
    data: Any, overall: Any, fit: Any, named: tuple[list[str], list[str]], spec: tuple[str, float]
) -> list[RegressionRow]:
    """All examples, each slice, then how each slice's effect differs from that of the largest one."""
    slices, usable = named
    rows = [_row(("Fine-tuned, all examples", None), overall, _weights([], ""), data, spec)]
    for one in slices:
        part = data[data["slice"] == one]
        rows.append(
            _row(
                (f"Fine-tuned, {one}", one),
                fit if one in usable else None,
                _weights(usable, one),
                part,
                spec,
            )
        )
    for one in usable[1:]:
        contrast, part = (
            _weights(usable, one) - _weights(usable, usable[0]),
            data[data["slice"].isin([one, usable[0]])],
        )
        rows.append(
            _row((f"Fine-tuned, {one} against {usable[0]}", None), fit, contrast, part, spec)
        )
    return rows


def _weights(usable: list[str], one: str) -> Any:
    """Picks a slice's effect out of the coefficients: base levels first, then effects."""
    import numpy as np

    size, place = max(1, len(usable)), usable.index(one) if one in usable else 0
    return np.eye(2 * size)[size + place]


def _row(
    named: tuple[str, str | None], fit: Any, weights: Any, part: Any, spec: tuple[str, float]
) -> RegressionRow:
    (effect, alpha), (term, one) = spec, named
    is_contrast = weights.sum() == 0
    rates = {} if is_contrast else part.groupby("fine_tuned")["correct"].mean().to_dict()
    numbers = _contrast(fit, weights, between(alpha, "alpha"), odds=effect != "points")
    smallest = part.groupby("slice")["example_id"].nunique().min()
    few = (
        numbers["p_value"] is not None and (one is not None or is_contrast) and bool(smallest < FEW)
    )
    undefined = "n/a: too few examples, or a model is always or never right here"
    notes = [f"n < {FEW}: no p"] if few else [undefined] if numbers["p_value"] is None else []
    return RegressionRow(
        **numbers | ({"p_value": None} if few else {}),  # pyright: ignore[reportArgumentType] - no flags among them
        n=int(part["example_id"].nunique()),
        alpha=alpha,
        term=term,
        slice=one,
        effect=effect,
        few=few,
        base_rate=rates.get(0.0),
        fine_tuned_rate=rates.get(1.0),
        method="linear probability" if effect == "points" else "GEE",
        notes=tuple(notes),
    )


def _contrast(fit: Any, weights: Any, alpha: float, *, odds: bool) -> dict[str, float | None]:
    """Estimate, limits and p of a weighted sum of coefficients; None where they do not exist."""
    import numpy as np
    from scipy.stats import norm
    from scipy.stats import t as student

    names = ("estimate", "ci_low", "ci_high", "p_value")
    if fit is None:
        return dict.fromkeys(names)
    estimate, se = (
        float(weights @ fit.params),
        float(max(0.0, weights @ fit.cov_params() @ weights) ** 0.5),
    )
    if se < 1e-10:
        return {**dict.fromkeys(names), "estimate": estimate}
    law = norm if odds else student(fit.df_resid_inference)
    half = float(law.isf(alpha / 2)) * se
    limits = [estimate, estimate - half, estimate + half]
    shown = [float(np.exp(value)) for value in limits] if odds else limits
    return dict(zip(names, [*shown, float(2 * law.sf(abs(estimate / se)))], strict=True))
