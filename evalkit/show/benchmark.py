"""The benchmark's two chapters: each function takes a record and returns the whole figure, table or sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.benchmark.comparison import Comparison
from evalkit.benchmark.frames import NO_VALUE
from evalkit.benchmark.slices import MIN_N, SliceTable, regression_frame
from evalkit.conversation import Conversation
from evalkit.show import say
from evalkit.show.tables import Html, Row, answer, joined, note, table
from evalkit.wording import render_text

if TYPE_CHECKING:
    import pandas as pd

    from evalkit.benchmark.bench import Costs
    from evalkit.benchmark.comparison import Comparison
    from evalkit.benchmark.doctor import Checkup
    from evalkit.benchmark.noise import NoiseFloor
    from evalkit.benchmark.slices import Found, SliceTable
    from evalkit.records import Evidence
    from evalkit.stats import RegressionRow, RegressionTable


def asked(comparison: Comparison) -> Html:
    """Who was compared on what, and what was left out."""
    models = comparison.declared.models
    asked_of = say.asked(comparison, models["base"], models["fine_tuned"])
    return note(" ".join(filter(None, [asked_of, say.sent(comparison.declared.sent)])))


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
        say.chance(comparison, comparison.declared.chance_rate),
        say.truncated(say.outcomes(comparison)),
        say.rewarded_by_accident(comparison.tests),
    ]
    return note(" ".join(filter(None, said)))


def differences(comparison: Comparison) -> Html:
    """Fine-tuned minus base on every metric."""
    return _picture(
        "differences",
        comparison,
        alt=say.differences_alt(comparison),
        subline="Fine-tuned minus base, points. Filled: shown. Hollow: not shown. Diamond: worse. Bar: interval.",
        caption=f"{say.methods(comparison.tests.values())}; Holm over the metrics that are not primary."
        f"{_margin_said(comparison)}",
    )


def metrics(comparison: Comparison) -> Html:
    """Every metric with its test, and what else the tests say."""
    made = table(
        metric_rows(comparison),
        caption="Every metric, with its test",
        numeric=METRIC_NUMBERS,
    )
    return joined(made, note(say.footnotes(comparison)))


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
    made = table(cost_rows(found.by_model), caption="What the answers took", numeric=numbers)
    thoughts = say.thoughts(found.by_model)
    return joined(made, note(thoughts)) if thoughts else made


def checkpoints(compared: Mapping[str, Comparison]) -> Html:
    """Every model against the same base, by the p adjusted for their number."""
    if len(compared) < 2:
        return note("This study names no further model.")
    adjusted = {name: one.primary.p_decides for name, one in compared.items()}
    return table(
        checkpoint_rows(compared, adjusted),
        caption=f"{len(compared)} models compared with base",
        numeric=("difference", "adjusted p"),
    )


def forest(slices: SliceTable) -> Html:
    """The difference in every slice, on this table's metric."""
    if not len(slices):
        return note("No slices were declared.")
    margin = " Dashed: the largest loss a slice may show." if slices.margin else ""
    caption = f"{say.methods(row.test for row in slices)}, Holm over the slices.{margin}"
    accident = say.rewarded_by_accident([slices.metric])
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
        slice_rows(found),
        caption=say.slices_caption(found),
        numeric=SLICE_NUMBERS,
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
        both = regression_rows(linear, odds)
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
    told = note(f"{noise} {say.marks(noise)}")
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
        frame_rows(shown),
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
        segment_rows(found),
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
        alt=f"{say.detectable_alt(comparison)} {say.settle(comparison)}",
        subline=f"{found}at the share of examples on which these two models disagree.",
        caption=f"{source}, two-sided level {alpha:g}, power {power:.0%}. {comparison.fragility}",
    )


def handed_on(record: Evidence | None) -> Html:
    """Whether this chapter's findings reached the benchmark's record, and what is still missing."""
    return note(say.handed_on(record))


@answer.register(Comparison)
def _benchmark(result: Comparison) -> Html:
    return answer(say.benchmark_answer(result, result.declared.chance_rate))


@answer.register(SliceTable)
def _regressions(result: SliceTable, noise: NoiseFloor) -> Html:
    tables = (result, *result.others)
    return answer(say.regression_answer(tables, noise, len(noise.marks)))


def _picture(plot: str, *args: Any, **words: Any) -> Html:
    """Draws one of the benchmark's plots; the plotting library is loaded only now."""
    from evalkit.show.figure import picture
    from evalkit.show.plots import benchmark as plots

    return picture(getattr(plots, plot), *args, **words)


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


_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_LONGEST = 20_000
_Runs = list[tuple[bool, str, str]]


def marked(old: str, new: str) -> tuple[str, str]:
    """Both texts as HTML: `<del>` around what only the first holds, `<ins>` around what only the second holds.

    Texts with more than 20,000 words and spaces together are shown unmarked: drawing them would take a second.

    Example:
        >>> old, new = marked("I10: Hypertension", "I11: Hypertension")
        >>> "<del>" in old and "<ins>" in new
        True
    """
    if (runs := _runs(old, new)) is None:
        return render_text(old), render_text(new)
    return (
        "".join(_part(left, "" if same else "del") for same, left, _ in runs),
        "".join(_part(right, "" if same else "ins") for same, _, right in runs),
    )


def merged(old: str, new: str) -> str:
    """The second text as HTML with what it lacks of the first standing in it, in `<del>`, and what it adds in `<ins>`.

    Example:
        >>> merged("I10", "I11").count("<del>"), merged("I10", "I10").count("<del>")
        (1, 0)
    """
    if (runs := _runs(old, new)) is None:
        return render_text(new)
    return "".join(
        _part(left, "") if same else _part(left, "del") + _part(right, "ins")
        for same, left, right in runs
    )


def _runs(old: str, new: str) -> _Runs | None:
    """The texts in runs that are the same in both or not; a space between two changes belongs to them."""
    from rapidfuzz.distance import Indel

    left, right = _WORDS.findall(old), _WORDS.findall(new)
    if len(left) + len(right) > _LONGEST:
        return None
    steps = Indel.opcodes(left, right)
    runs: _Runs = []
    for place, step in enumerate(steps):
        a = "".join(left[step.src_start : step.src_end])
        b = "".join(right[step.dest_start : step.dest_end])
        between = a.isspace() and 0 < place < len(steps) - 1
        same = step.tag == "equal" and not between
        if runs and runs[-1][0] == same:
            a, b = runs[-1][1] + a, runs.pop()[2] + b
        runs.append((same, a, b))
    return runs


def _part(text: str, tag: str) -> str:
    if not text:
        return ""
    return f"<{tag}>{render_text(text)}</{tag}>" if tag else render_text(text)
