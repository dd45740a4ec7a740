"""Rows of the benchmark's tables: numbers as text, one mapping a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.benchmark.frames import NO_VALUE
from evalkit.benchmark.slices import MIN_N
from evalkit.conversation import Conversation
from evalkit.show import say
from evalkit.show.difference import marked
from evalkit.show.tables import Html, Row

if TYPE_CHECKING:
    import pandas as pd

    from evalkit.benchmark.comparison import Comparison
    from evalkit.benchmark.finder import Found
    from evalkit.benchmark.slices import SliceTable
    from evalkit.stats import RegressionRow, RegressionTable

METRIC_NUMBERS = ("Base", "Fine-tuned", "Difference (rates: points)", "p")


def metric_rows(comparison: Comparison) -> list[Row]:
    """One row a metric: levels, difference with interval, verdict, p (adjusted but for the primary metric)."""
    verdicts, sides = say.metric_verdicts(comparison), (comparison.base, comparison.fine_tuned)
    rows = []
    for name, test in comparison.tests.items():
        primary = name == comparison.primary_metric
        p_value = test.p_decides if primary else comparison.p_adjusted.get(name)
        adjusted = not primary or comparison.n_compared > 1
        old, new = (say.level(side.by_metric.get(name)) for side in sides)
        rows.append(
            {
                "Metric": say.label(name) + (" (primary)" if primary else ""),
                "Base": old,
                "Fine-tuned": new,
                "Difference (rates: points)": say.size(test),
                "Verdict": verdicts[name],
                "p": wording.p_text(p_value) + (" adjusted" if adjusted else ""),
                "Test": test.method,
            }
        )
    return rows


def checkpoint_rows(
    compared: Mapping[str, Comparison], adjusted: Mapping[str, float | None]
) -> list[Row]:
    """One row a model against the same base."""
    return [
        {
            "model": name,
            "examples": one.n,
            "difference": say.size(one.primary),
            "adjusted p": wording.p_text(adjusted[name]),
            "verdict": say.verdict_by(one.primary, adjusted[name])
            if one.margin is None
            else one.conclusion,
            **{key.replace("_", " "): n for key, n in one.cells.items()},
        }
        for name, one in compared.items()
    ]


SLICE_NUMBERS = (
    "n",
    "base",
    "fine-tuned",
    "difference, points",
    "difference",
    "p",
    "exact p",
    "adjusted p",
)


def slice_rows(table: SliceTable) -> list[Row]:
    """One row a slice: both levels, the difference with its interval, every p, the verdict, what would settle it."""
    rows = []
    for row in table:
        scale = wording.scale_of(row.test)
        rows.append(
            {
                "slice": row.slice + (" (few)" if row.few else ""),
                "n": row.n,
                "base": wording.level(row.base_rate, scale),
                "fine-tuned": wording.level(row.fine_tuned_rate, scale),
                _difference(table): say.size(row.test),
                "p": wording.p_text(row.p_value),
                "exact p": wording.p_text(row.p_exact),
                "adjusted p": wording.p_text(row.p_adjusted),
                "verdict": say.slice_verdict(row),
                "to settle it": f"about {wording.count(row.n_to_settle - row.n)} more"
                if row.n_to_settle
                else wording.NOTHING,
            }
        )
    return rows


def _difference(table: SliceTable) -> str:
    """The column of differences, with their unit where it is one."""
    scales = {wording.scale_of(row.test) for row in table}
    return "difference, points" if scales == {"points"} else "difference"


def regression_rows(linear: RegressionTable, odds: RegressionTable) -> list[Row]:
    """Both regressions side by side, one row a term; n/a where a model is always or never right."""
    by_term = {row.term: row for row in odds}
    return [
        {
            "term": row.term,
            "n": row.n,
            "points": say.size(row),
            "p": _p(row),
            "odds ratio": _odds(by_term.get(row.term)),
            "p of odds": _p(by_term.get(row.term)),
        }
        for row in linear
    ]


LONGEST = 800


def frame_rows(frame: pd.DataFrame) -> list[Row]:
    """The examples of a frame in its order; its categories that are nothing else are slices.

    The input is the whole conversation, long messages folded; long answers are cut at `LONGEST` characters, and the
    files hold them whole.
    """
    known = {"example_id", "status", "slice", "cluster", "asked_again", "flaky"}
    known |= {"outcome_base", "outcome_fine_tuned"}
    kinds = frame.dtypes.astype(str)
    slices = [name for name in frame.columns if kinds[name] == "category" and name not in known]
    rows = []
    for row in frame.to_dict("records"):
        old, new = marked(_cut(row["answer_base"]), _cut(row["answer_fine_tuned"]))
        rows.append(
            {
                "Example": row["example_id"],
                "Input": Conversation(row["messages"]),
                "Expected": _cut(row["expected"]),
                "Base": Html(old, _cut(row["answer_base"])),
                "Fine-tuned": Html(new, _cut(row["answer_fine_tuned"])),
                "Similarity": wording.signed(_known(row["similarity_change"])),
                "Slice": ", ".join(str(row[name]) for name in slices if row[name] != NO_VALUE),
            }
            | ({"Asked again": row["asked_again"]} if "asked_again" in row else {})
        )
    return rows


def _known(value: float) -> float | None:
    return None if value != value else value  # noqa: PLR0124 - NaN alone differs from itself


def segment_rows(found: Found) -> list[Row]:
    """What the slice finder found, one row a segment."""
    return [
        {
            "where": one.where,
            "n": one.n,
            "fixed": one.n_fixed,
            "regressed": one.n_regressed,
            "of all regressions": wording.percent(one.share_of_regressed, 0),
            "difference, points": say.size(one.test),
            "adjusted p": wording.p_text(one.p_adjusted),
        }
        for one in found
    ]


def _p(row: RegressionRow | None) -> str:
    if row is not None and row.few:
        return f"n < {MIN_N}"
    return wording.NOTHING if row is None else wording.p_text(row.p_value)


def _odds(row: RegressionRow | None) -> str:
    if row is None or row.estimate is None or row.ci_low is None:
        return "n/a"
    return f"{wording.number(row.estimate)} ({wording.number(row.ci_low)} to {wording.number(row.ci_high)})"


def cost_rows(costs: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """What the answers of each model took."""
    return [
        {
            "model": role.replace("_", "-"),
            "answers": one["answers"],
            "tokens in": one["prompt_tokens"],
            "tokens out": one["completion_tokens"],
            "median ms": _count(one["latency_median_ms"]),
            "95% within ms": _count(one["latency_p95_ms"]),
            "money": wording.NOTHING
            if one["money"] is None
            else f"{one['money']:.2f} {one['currency']}",
        }
        for role, one in costs.items()
    ]


def _count(value: float | None) -> str:
    return wording.NOTHING if value is None else wording.count(value)


def _cut(text: str) -> str:
    return (
        text
        if len(text) <= LONGEST
        else f"{text[:LONGEST]} … ({wording.count(len(text))} characters)"
    )
