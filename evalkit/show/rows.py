"""Rows of the benchmark's tables: numbers as text, one mapping a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.show import say

if TYPE_CHECKING:
    from evalkit.benchmark.comparison import Comparison

METRIC_COLUMNS = {"metric": "Metric", "base": "Base", "fine_tuned": "Fine-tuned", "difference": "Difference, points",
                  "verdict": "Verdict", "p": "p", "method": "Test"}  # fmt: skip
METRIC_NUMBERS = ("base", "fine_tuned", "difference", "p")


def metric_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row a metric: levels, difference with interval, verdict, p (adjusted but for the primary metric)."""
    verdicts, sides = say.metric_verdicts(comparison), (comparison.base, comparison.fine_tuned)
    rows = []
    for name, test in comparison.tests.items():
        primary = name == comparison.primary_metric
        p_value = test.p_value if primary else comparison.p_adjusted.get(name)
        old, new = (say.level(side.by_metric.get(name)) for side in sides)
        rows.append({
            "metric": say.label(name) + (" (primary)" if primary else ""),
            "base": old, "fine_tuned": new, "difference": say.size(test),
            "verdict": verdicts[name], "p": wording.p_text(p_value) + ("" if primary else " adjusted"), "method": test.method,
        })  # fmt: skip
    return rows


def checkpoint_rows(compared: Mapping[str, Comparison], adjusted: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """One row a model against the same base."""
    return [
        {"model": name, "examples": one.n, "difference": say.size(one.primary), "adjusted p": wording.p_text(adjusted[name]),
         "verdict": say.verdict_by(one.primary, adjusted[name]), **{key.replace("_", " "): n for key, n in one.cells.items()}}
        for name, one in compared.items()
    ]  # fmt: skip
