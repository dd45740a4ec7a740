"""The benchmark's two chapters: each function takes a record and returns the whole figure, table or sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rapidfuzz.distance import Indel

from evalkit import wording
from evalkit.benchmark.bench import Costs
from evalkit.benchmark.comparison import Comparison
from evalkit.benchmark.frames import NO_VALUE
from evalkit.benchmark.noise import NoiseFloor
from evalkit.benchmark.slices import MIN_N, Found, SliceTable, regression_frame
from evalkit.conversation import Conversation
from evalkit.errors import DesignError
from evalkit.evidence import Evidence
from evalkit.files import JsonObject
from evalkit.show import say
from evalkit.show.tables import Html, Row, answer, joined, note, table
from evalkit.stats import RegressionRow, RegressionTable, gee_odds_table, linear_probability_table
from evalkit.wording import (
    NOTHING,
    count,
    listed,
    number,
    p_text,
    percent,
    plural,
    render_text,
    scale_of,
    signed,
)

LONGEST = 800  # characters of an answer in a table
METRIC_NUMBERS = ("Base", "Fine-tuned", "Difference (rates: points)", "p")
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
_MARKS = "Filled: shown. Hollow: not shown. Diamond: worse. Bar: interval."
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_MOST_WORDS = 20_000
_EXAMPLE = ("status", "answer_base", "answer_fine_tuned", "similarity_change", "messages")
_Runs = list[tuple[bool, str, str]]


def asked(comparison: Comparison) -> Html:
    """Who was compared on what, and what was left out."""
    models, declared = comparison.declared.models, comparison.declared
    asked_of = say.asked(comparison, models["base"], models["fine_tuned"])
    return note(" ".join(filter(None, [asked_of, say.sent(declared.sent)])))


def rates(comparison: Comparison) -> Html:
    """Each metric's level for both models."""
    chance = comparison.declared.chance_rate
    dashed = " The dashed line is the level of picking one candidate at random."
    dashed = "" if chance is None else dashed
    return _picture(
        "rates",
        comparison,
        chance=chance,
        alt=say.rates_alt(comparison),
        subline=f"Level of each metric over {plural(comparison.n, 'example')}. "
        "Hollow: base. Filled: fine-tuned. Bar: interval.",
        caption=f"Wilson intervals for rates, t for means.{dashed}{_margin_said(comparison)}",
    )


def _margin_said(comparison: Comparison) -> str:
    if comparison.noninferiority is None:
        return ""
    loss = wording.loss(comparison.noninferiority.margin, scale_of(comparison.primary))
    return f" The line of the margin lies {loss} worse than base; the interval of the difference must keep clear of it."


def caveats(comparison: Comparison) -> Html:
    """The chance level, what was cut off or failed, and what each metric rewards by accident."""
    chance = say.chance(comparison, comparison.declared.chance_rate)
    wrong = say.truncated(say.outcomes(comparison))
    return note(" ".join(filter(None, [chance, wrong, say.rewarded_by_accident(comparison.tests)])))


def differences(comparison: Comparison) -> Html:
    """Fine-tuned minus base on every metric."""
    methods = say.methods(comparison.tests.values())
    holm = "Holm over the metrics that are not primary."
    return _picture(
        "differences",
        comparison,
        alt=say.differences_alt(comparison),
        subline=f"Fine-tuned minus base, points. {_MARKS}",
        caption=f"{methods}; {holm}{_margin_said(comparison)}",
    )


def metrics(comparison: Comparison) -> Html:
    """Every metric with its test, and what else the tests say."""
    rows, title = metric_rows(comparison), "Every metric, with its test"
    made = table(rows, caption=title, numeric=METRIC_NUMBERS)
    return joined(made, note(say.footnotes(comparison)))


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
                "Metric": f"{say.label(name)}{' (primary)' if primary else ''}",
                "Base": old,
                "Fine-tuned": new,
                "Difference (rates: points)": say.size(test),
                "Verdict": verdicts[name],
                "p": f"{p_text(p_value)}{' adjusted' if adjusted else ''}",
                "Test": test.method,
            }
        )
    return rows


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
    what, most = "Tokens of each answer", comparison.declared.max_tokens
    caption = f"An answer is cut off at {count(most)} tokens." if most else ""
    if field == "latency_ms":
        what = "Time of the call that brought the answer"
        caption = "Measured when the answers were recorded; it depends on the machine and on what else it did."
    return _picture(
        "spread",
        comparison,
        field,
        alt=say.spread_alt(comparison, field),
        subline=f"{what}. The mark is the median, the bar the middle 90%.",
        caption=caption,
    )


def costs(found: Costs) -> Html:
    """What the answers took: tokens, time, money."""
    numbers = ("median ms", "95% within ms", "money")
    made = table(cost_rows(found.by_model), caption="What the answers took", numeric=numbers)
    thoughts = say.thoughts(found.by_model)
    return joined(made, note(thoughts)) if thoughts else made


def cost_rows(costs: Mapping[str, JsonObject]) -> list[Row]:
    """What the answers of each model took."""
    rows = []
    for role, one in costs.items():
        times = [one["latency_median_ms"], one["latency_p95_ms"]]
        middle, most = (NOTHING if ms is None else count(ms) for ms in times)
        money = NOTHING if one["money"] is None else f"{one['money']:.2f} {one['currency']}"
        rows.append(
            {
                "model": role.replace("_", "-"),
                "answers": one["answers"],
                "tokens in": one["prompt_tokens"],
                "tokens out": one["completion_tokens"],
                "median ms": middle,
                "95% within ms": most,
                "money": money,
            }
        )
    return rows


def checkpoints(compared: Mapping[str, Comparison]) -> Html:
    """Every model against the same base, by the p adjusted for their number."""
    if len(compared) < 2:
        return note("This study names no further model.")
    rows = []
    for name, one in compared.items():
        p_value = one.primary.p_decides
        verdict = one.conclusion if one.margin is not None else say.verdict_by(one.primary, p_value)
        head = {"model": name, "examples": one.n, "difference": say.size(one.primary)}
        cells = {key.replace("_", " "): n for key, n in one.cells.items()}
        rows.append({**head, "adjusted p": p_text(p_value), "verdict": verdict, **cells})
    title = f"{len(compared)} models compared with base"
    return table(rows, caption=title, numeric=("difference", "adjusted p"))


def forest(slices: SliceTable) -> Html:
    """The difference in every slice, on this table's metric."""
    if not len(slices):
        return note("No slices were declared.")
    margin = " Dashed: the largest loss a slice may show." if slices.margin else ""
    caption = f"{say.methods(row.test for row in slices)}, Holm over the slices.{margin}"
    metric, accident = say.label(slices.metric), say.rewarded_by_accident([slices.metric])
    what = f"{say.sentence(metric)}, fine-tuned minus base in each slice (rates in points)."
    return _picture(
        "forest",
        slices,
        alt=say.slices_alt(slices),
        subline=f"{what} {_MARKS}",
        caption=" ".join(filter(None, [caption, accident])),
    )


def slices(found: SliceTable) -> Html:
    """Every slice in numbers, with what would settle it."""
    if not len(found):
        return joined()
    caption = say.slices_caption(found)
    return table(slice_rows(found), caption=caption, numeric=SLICE_NUMBERS)


def slice_rows(table: SliceTable) -> list[Row]:
    """One row a slice: both levels, the difference with its interval, every p, the verdict, what would settle it."""
    in_points = {scale_of(row.test) for row in table} == {"points"}
    difference, rows = "difference, points" if in_points else "difference", []
    for row in table:
        scale, n = scale_of(row.test), row.n_to_settle
        rows.append(
            {
                "slice": row.slice + (" (few)" if row.few else ""),
                "n": row.n,
                "base": wording.level(row.base_rate, scale),
                "fine-tuned": wording.level(row.fine_tuned_rate, scale),
                difference: say.size(row.test),
                "p": p_text(row.p_value),
                "exact p": p_text(row.p_exact),
                "adjusted p": p_text(row.p_adjusted),
                "verdict": say.slice_verdict(row),
                "to settle it": f"about {count(n - row.n)} more" if n else NOTHING,
            }
        )
    return rows


def elsewhere(found: SliceTable) -> Html:
    """The same slices on the metric, of those that are not primary, with the largest shown loss."""
    most = found.most_lost
    return joined(forest(most), slices(most)) if most is not None and len(most) else joined()


def regression(comparison: Comparison) -> Html:
    """What the fine-tuned model changes in each slice field: in points, and as odds."""
    made, numbers = [], ("points", "p", "odds ratio", "p of odds")
    how = {
        "cluster": "cluster" if comparison.clustered else "example_id",
        "alpha": comparison.alpha,
    }
    for field in dict.fromkeys(name for one in comparison.pairs for name in one.base.slices):
        frame = regression_frame(comparison, field=field)
        if frame.empty:
            return note("No example is right or wrong, so there is nothing to regress.")
        linear, odds = linear_probability_table(frame, **how), gee_odds_table(frame, **how)
        made.append(table(regression_rows(linear, odds), caption=f"By {field}", numeric=numbers))
        made.append(note(" ".join(odds.notes)))
    return joined(*made)


def regression_rows(linear: RegressionTable, odds: RegressionTable) -> list[Row]:
    """Both regressions side by side, one row a term; n/a where a model is always or never right."""
    by_term, rows = {row.term: row for row in odds}, []
    for row in linear:
        other = by_term.get(row.term)
        shown, ratio = {"term": row.term, "n": row.n, "points": say.size(row), "p": _p(row)}, "n/a"
        if other is not None and other.estimate is not None and other.ci_low is not None:
            limits = f"{number(other.ci_low)} to {number(other.ci_high)}"
            ratio = f"{number(other.estimate)} ({limits})"
        rows.append({**shown, "odds ratio": ratio, "p of odds": _p(other)})
    return rows


def _p(row: RegressionRow | None) -> str:
    if row is None:
        return NOTHING
    return f"n < {MIN_N}" if row.few else p_text(row.p_value)


def coefficients(fit: Any, *, keep: str = "") -> Html:
    """A statsmodels fit: the terms whose names hold `keep`, as statsmodels names them, with their intervals and p."""
    if fit is None:
        return note("No regression: too few examples to estimate a spread from.")
    limits, found = fit.conf_int(), []
    for name in (one for one in fit.params.index if keep in str(one)):
        known = fit.bse[name] > 1e-10  # 0 where nothing varied: there is no interval then
        low, high = (number(limits.loc[name][side], 3) for side in (0, 1))
        ends, p_value = (f"{low} to {high}", fit.pvalues[name]) if known else ("n/a", None)
        term = {"term": str(name), "estimate": number(fit.params[name], 3)}
        found.append({**term, "95% interval": ends, "p": p_text(p_value)})
    caption = f"{fit.model.formula}; {plural(int(fit.nobs), 'row')}, errors: {fit.cov_type}"
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

    Raises:
        DesignError: A frame with another row.
    """
    if lacking := [name for name in _EXAMPLE if name not in frame]:
        raise DesignError(
            f'the frame has no column {listed(lacking)}; need rows of comparison.to_frame(by="example")'
        )
    rows, counts = (
        frame_rows(frame.head(most)),
        frame["status"].astype(str).value_counts().to_dict(),
    )
    title = f"{say.examples_title(counts, len(rows))}. Marked: words that stand in only one of the two answers."
    return table(rows, caption=title, numeric=("Similarity",), open_rows=open_rows)


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
        old, new = _cut(row["answer_base"]), _cut(row["answer_fine_tuned"])
        base, tuned = marked(old, new)
        moved = row["similarity_change"]
        shown = {
            "Example": row["example_id"],
            "Input": Conversation(row["messages"]),
            "Expected": _cut(row["expected"]),
            "Base": Html(base, old),
            "Fine-tuned": Html(tuned, new),
            "Similarity": signed(None if pd.isna(moved) else moved),
            "Slice": ", ".join(str(row[name]) for name in slices if row[name] != NO_VALUE),
        }
        again = {"Asked again": row["asked_again"]} if "asked_again" in row else {}
        rows.append(shown | again)
    return rows


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]} … ({count(len(text))} characters)"


def scatter(comparison: Comparison, metric: str = "similarity") -> Html:
    """One mark an example, base against fine-tuned."""
    to, above = (" to the expected text", "closer") if metric == "similarity" else ("", "more")
    what = f"One mark is one example: {say.label(metric)} of both answers{to}."
    return _picture(
        "scatter",
        comparison,
        metric=metric,
        alt=f"{say.scatter_title(comparison, metric)}. {say.cells_title(comparison.cells)}.",
        subline=f"{what} Above the line: {above} than before.",
        caption="Diamond: regressed. Filled circle: fixed or both right. Hollow: both wrong.",
    )


def segments(found: Found) -> Html:
    """What the slice finder found: hunches, found by looking."""
    title = f"Exploratory: {found.n_looked_at} places looked at, the largest losses first"
    numeric = ("of all regressions", "difference, points", "adjusted p")
    return table(segment_rows(found), caption=title, numeric=numeric)


def segment_rows(found: Found) -> list[Row]:
    """What the slice finder found, one row a segment."""
    return [
        {
            "where": one.where,
            "n": one.n,
            "fixed": one.n_fixed,
            "regressed": one.n_regressed,
            "of all regressions": percent(one.share_of_regressed, 0),
            "difference, points": say.size(one.test),
            "adjusted p": p_text(one.p_adjusted),
        }
        for one in found
    ]


def detectable(comparison: Comparison) -> Html:
    """The smallest difference a test set of each size finds, and what would settle the question."""
    what, source = "Smallest difference a test set of each size finds, ", "Connor 1987"
    if comparison.margin is not None:
        what, source = (
            "Smallest loss a test set of each size rules out between equal models, ",
            "Nam 1997",
        )
    level = f"two-sided level {comparison.alpha:g}, power {comparison.declared.power:.0%}"
    return _picture(
        "detectable",
        comparison,
        alt=f"{say.detectable_alt(comparison)} {say.settle(comparison)}",
        subline=f"{what}at the share of examples on which these two models disagree.",
        caption=f"{source}, {level}. {comparison.fragility}",
    )


def handed_on(record: Evidence | None) -> Html:
    """Whether this chapter's findings reached the benchmark's record, and what is still missing."""
    return note(say.handed_on(record))


@answer.register
def _benchmark(result: Comparison) -> Html:
    return answer(say.benchmark_answer(result, result.declared.chance_rate))


@answer.register
def _regressions(result: SliceTable, noise: NoiseFloor) -> Html:
    return answer(say.regression_answer((result, *result.others), noise, len(noise.marks)))


def _picture(plot: str, *args: Any, **words: Any) -> Html:
    """Draws one of the benchmark's plots; the plotting library is loaded only now."""
    from evalkit.show.figure import picture
    from evalkit.show.plots import benchmark as plots

    return picture(getattr(plots, plot), *args, **words)


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
    left = "".join(_part(text, "" if same else "del") for same, text, _ in runs)
    return left, "".join(_part(text, "" if same else "ins") for same, _, text in runs)


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
    left, right = _WORDS.findall(old), _WORDS.findall(new)
    if len(left) + len(right) > _MOST_WORDS:
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
