"""The benchmark's two chapters: each function takes a record and returns the whole figure, table or sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.benchmark.comparison import Comparison
from evalkit.benchmark.slices import SliceTable, regression_frame
from evalkit.show import answers, rows, say
from evalkit.show.tables import Html, answer, joined, note, table

if TYPE_CHECKING:
    import pandas as pd

    from evalkit.benchmark.bench import Costs
    from evalkit.benchmark.doctor import Checkup
    from evalkit.benchmark.finder import Found
    from evalkit.benchmark.noise import NoiseFloor
    from evalkit.records import Evidence


def asked(comparison: Comparison) -> Html:
    """Who was compared on what, and what was left out."""
    models = comparison.declared.models
    asked_of = answers.asked(comparison, models["base"], models["fine_tuned"])
    return note(" ".join(filter(None, [asked_of, answers.sent(comparison.declared.sent)])))


def checkup(found: Checkup) -> Html:
    """What the doctor found in the test set."""
    told = table(found.rows(), caption=say.checkup_title(found))
    return joined(told, note(f"{found.undeclared}.")) if found.undeclared else told


def rates(comparison: Comparison) -> Html:
    """Each metric's level for both models."""
    chance = comparison.declared.chance_rate
    dashed = (
        ""
        if chance is None
        else " The dashed line is the level of picking one candidate at random."
    )
    return _picture(
        "rates",
        comparison,
        chance=chance,
        alt=say.rates_alt(comparison),
        subline=f"Level of each metric over {wording.plural(comparison.n, 'example')}. "
        "Hollow: base. Filled: fine-tuned. Bar: interval.",
        caption=f"Wilson intervals for rates, t for means.{dashed}{_margin_said(comparison)}",
    )


def _margin_said(comparison: Comparison) -> str:
    if comparison.noninferiority is None:
        return ""
    loss = wording.loss(comparison.noninferiority.margin, wording.scale_of(comparison.primary))
    return f" The line of the margin lies {loss} worse than base; the interval of the difference must keep clear of it."


def caveats(comparison: Comparison) -> Html:
    """The chance level, what was cut off or failed, and what each metric rewards by accident."""
    said = [
        answers.chance(comparison, comparison.declared.chance_rate),
        answers.truncated(answers.outcomes(comparison)),
        answers.rewarded_by_accident(comparison.tests),
    ]
    return note(" ".join(filter(None, said)))


def differences(comparison: Comparison) -> Html:
    """Fine-tuned minus base on every metric."""
    return _picture(
        "differences",
        comparison,
        alt=say.differences_alt(comparison),
        subline="Fine-tuned minus base, points. Filled: shown. Hollow: not shown. Diamond: worse. Bar: interval.",
        caption=f"{answers.methods(comparison.tests.values())}; Holm over the metrics that are not primary."
        f"{_margin_said(comparison)}",
    )


def metrics(comparison: Comparison) -> Html:
    """Every metric with its test, and what else the tests say."""
    made = table(
        rows.metric_rows(comparison),
        caption="Every metric, with its test",
        numeric=rows.METRIC_NUMBERS,
    )
    return joined(made, note(answers.footnotes(comparison)))


def cells(comparison: Comparison) -> Html:
    """Both right, fixed, regressed, both wrong."""
    return _picture(
        "cells",
        comparison,
        alt=f"{say.cells_title(comparison.cells)}.",
        subline=f"One mark is one example, by {say.label(comparison.status_metric)}.",
        caption="Only the fixed and the regressed examples decide the test; "
        "the other two cells say nothing about the difference.",
    )


def similarity(comparison: Comparison) -> Html:
    """How close both models' answers are to the expected text."""
    return _picture(
        "similarity",
        comparison,
        alt=f"{say.similarity_title(comparison)}. {comparison.fine_tuned}",
        subline="Number of examples by similarity to the expected text. Above: fine-tuned. Below: base.",
        caption="Characters in common in the same order, 0 to 1. It measures text, not meaning.",
    )


def spread(comparison: Comparison, field: str = "latency_ms") -> Html:
    """How long answers took (`latency_ms`) or were (`completion_tokens`)."""
    is_time = field == "latency_ms"
    what = "Time of the call that brought the answer" if is_time else "Tokens of each answer"
    most = comparison.declared.max_tokens
    capped = f"An answer is cut off at {wording.count(most)} tokens." if most else ""
    machine = "Measured when the answers were recorded; it depends on the machine and on what else it did."
    return _picture(
        "spread",
        comparison,
        field,
        alt=say.spread_alt(comparison, field),
        subline=f"{what}. The mark is the median, the bar the middle 90%.",
        caption=machine if is_time else capped,
    )


def costs(found: Costs) -> Html:
    """What the answers took: tokens, time, money."""
    numbers = ("median ms", "95% within ms", "money")
    made = table(rows.cost_rows(found.by_model), caption="What the answers took", numeric=numbers)
    thoughts = answers.thoughts(found.by_model)
    return joined(made, note(thoughts)) if thoughts else made


def checkpoints(compared: Mapping[str, Comparison]) -> Html:
    """Every model against the same base, by the p adjusted for their number."""
    if len(compared) < 2:
        return note("This study names no further model.")
    adjusted = {name: one.primary.p_decides for name, one in compared.items()}
    return table(
        rows.checkpoint_rows(compared, adjusted),
        caption=f"{len(compared)} models compared with base",
        numeric=("difference", "adjusted p"),
    )


def forest(slices: SliceTable) -> Html:
    """The difference in every slice, on this table's metric."""
    if not len(slices):
        return note("No slices were declared.")
    margin = " Dashed: the largest loss a slice may show." if slices.margin else ""
    caption = f"{answers.methods(row.test for row in slices)}, Holm over the slices.{margin}"
    accident = answers.rewarded_by_accident([slices.metric])
    return _picture(
        "forest",
        slices,
        alt=say.slices_alt(slices),
        subline=f"{say.sentence(say.label(slices.metric))}, fine-tuned minus base in each slice (rates in points). "
        "Filled: shown. Hollow: not shown. Diamond: worse. Bar: interval.",
        caption=" ".join(filter(None, [caption, accident])),
    )


def slices(found: SliceTable) -> Html:
    """Every slice in numbers, with what would settle it."""
    if not len(found):
        return joined()
    return table(
        rows.slice_rows(found),
        caption=say.slices_caption(found),
        numeric=rows.SLICE_NUMBERS,
    )


def elsewhere(found: SliceTable) -> Html:
    """The same slices on the metric, of those that are not primary, with the largest shown loss."""
    most = found.most_lost
    return joined(forest(most), slices(most)) if most is not None and len(most) else joined()


def regression(comparison: Comparison) -> Html:
    """What the fine-tuned model changes in each slice field: in points, and as odds."""
    from evalkit.stats import gee_odds_table, linear_probability_table

    made = []
    column = "cluster" if comparison.clustered else "example_id"
    for field in dict.fromkeys(name for one in comparison.pairs for name in one.base.slices):
        frame = regression_frame(comparison, field=field)
        if frame.empty:
            return note("No example is right or wrong, so there is nothing to regress.")
        linear, odds = (
            fit(frame, cluster=column, alpha=comparison.alpha)
            for fit in (linear_probability_table, gee_odds_table)
        )
        both = rows.regression_rows(linear, odds)
        made += [
            table(both, caption=f"By {field}", numeric=("points", "p", "odds ratio", "p of odds")),
            note(" ".join(odds.notes)),
        ]
    return joined(*made)


def coefficients(fit: Any, *, keep: str = "") -> Html:
    """A statsmodels fit: the terms whose names hold `keep`, as statsmodels names them, with their intervals and p."""
    if fit is None:
        return note("No regression: too few examples to estimate a spread from.")
    limits, found = fit.conf_int(), []
    for name in fit.params.index:
        if keep not in str(name):
            continue
        known = fit.bse[name] > 1e-10  # 0 where nothing varied: there is no interval then
        low, high = (wording.number(limits.loc[name][side], 3) for side in (0, 1))
        found.append(
            {
                "term": str(name),
                "estimate": wording.number(fit.params[name], 3),
                "95% interval": f"{low} to {high}" if known else "n/a",
                "p": wording.p_text(fit.pvalues[name] if known else None),
            }
        )
    caption = f"{fit.model.formula}; {wording.plural(int(fit.nobs), 'row')}, errors: {fit.cov_type}"
    return table(found, caption=caption, numeric=("estimate", "95% interval", "p"))


def flips(noise: NoiseFloor) -> Html:
    """How often each model's answer changed when it was asked twice, and what became of the regressions."""
    told = note(f"{noise} {answers.marks(noise)}")
    if not noise.n:
        return told
    drawn = _picture(
        "flips",
        noise,
        alt=f"{say.noise_title(noise)}. {noise}",
        subline="Share of answers that changed between two live passes over the same drawn examples. Bar: interval.",
        caption="Only the seeded draw enters the rates; regressed examples are asked besides, to mark each of them.",
    )
    return joined(told, drawn)


def examples(frame: pd.DataFrame, *, most: int = 30, open_rows: int | None = 5) -> Html:
    """Examples of `to_frame(by="example")` in its order, words that differ between the two answers marked.

    Args:
        frame: The rows to show; with a column `asked_again` it says what became of each when asked again.
        most: At most so many.
        open_rows: How many rows stand open; the rest is folded away.
    """
    shown = frame.head(most)
    counts = frame["status"].astype(str).value_counts().to_dict()
    return table(
        rows.frame_rows(shown),
        caption=f"{say.examples_title(counts, len(shown))}. Marked: words that stand in only one of the two answers.",
        numeric=("Similarity",),
        open_rows=open_rows,
    )


def scatter(comparison: Comparison, metric: str = "similarity") -> Html:
    """One mark an example, base against fine-tuned."""
    is_text = metric == "similarity"
    to, above = (" to the expected text", "closer") if is_text else ("", "more")
    return _picture(
        "scatter",
        comparison,
        metric=metric,
        alt=f"{say.scatter_title(comparison, metric)}. {say.cells_title(comparison.cells)}.",
        subline=f"One mark is one example: {say.label(metric)} of both answers{to}. Above the line: {above} than before.",
        caption="Diamond: regressed. Filled circle: fixed or both right. Hollow: both wrong.",
    )


def segments(found: Found) -> Html:
    """What the slice finder found: hunches, found by looking."""
    return table(
        rows.segment_rows(found),
        caption=f"Exploratory: {found.n_looked_at} places looked at, the largest losses first",
        numeric=("of all regressions", "difference, points", "adjusted p"),
    )


def detectable(comparison: Comparison) -> Html:
    """The smallest difference a test set of each size finds, and what would settle the question."""
    power, alpha = comparison.declared.power, comparison.alpha
    found, source = "Smallest difference a test set of each size finds, ", "Connor 1987"
    if comparison.margin is not None:
        found, source = (
            "Smallest loss a test set of each size rules out between equal models, ",
            "Nam 1997",
        )
    return _picture(
        "detectable",
        comparison,
        alt=f"{say.detectable_alt(comparison)} {answers.settle(comparison)}",
        subline=f"{found}at the share of examples on which these two models disagree.",
        caption=f"{source}, two-sided level {alpha:g}, power {power:.0%}. {comparison.fragility}",
    )


def handed_on(record: Evidence | None) -> Html:
    """Whether this chapter's findings reached the benchmark's record, and what is still missing."""
    return note(answers.handed_on(record))


@answer.register(Comparison)
def _benchmark(result: Comparison) -> Html:
    return answer(answers.benchmark_answer(result, result.declared.chance_rate))


@answer.register(SliceTable)
def _regressions(result: SliceTable, noise: NoiseFloor) -> Html:
    tables = (result, *result.others)
    return answer(answers.regression_answer(tables, noise, len(noise.marks)))


def _picture(plot: str, *args: Any, **words: Any) -> Html:
    """Draws one of the benchmark's plots; the plotting library is loaded only now."""
    from evalkit.show.figure import picture
    from evalkit.show.plots import benchmark as plots

    return picture(getattr(plots, plot), *args, **words)
