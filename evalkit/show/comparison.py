"""A comparison shown: each function takes the record and returns the whole figure, table or sentence."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from evalkit import stats, wording
from evalkit.answers.metrics import quantile, taken_test
from evalkit.benchmark.benchmark import Costs
from evalkit.benchmark.comparison import Change, Comparison
from evalkit.errors import need_one_of
from evalkit.files import JsonObject
from evalkit.show.tables import Html, Row, answer, joined, note, table
from evalkit.stats import NonInferiorityTest
from evalkit.wording import (
    NOTHING,
    SHOWN,
    amount,
    are,
    capital,
    count,
    label,
    listed,
    p_phrase,
    p_text,
    percent,
    plural,
    points,
    scale_of,
    times,
)

METRIC_NUMBERS = ("Base", "Fine-tuned", "Difference (rates: points)", "p")
MARKS = "Filled: shown. Hollow: not shown. Diamond: worse. Bar: interval."
_examples = partial(plural, noun="example")


def asked(comparison: Comparison) -> Html:
    """Who was compared on what, how they were asked differently, and what was left out."""
    models, n = comparison.declared.models, _examples(comparison.n)
    whole = all(set(one) <= {"ok"} for one in _outcomes(comparison).values())
    told = "answered." if whole else f"were asked. {wrong(comparison)}"
    who = f"{models['base']} against {models['fine_tuned']} on {n} both {told}"
    return note(" ".join([who, *comparison.notes, *_asked_differently(comparison)]))


def _asked_differently(comparison: Comparison) -> list[str]:
    """What was sent otherwise to one model than to the other; nothing where they were asked alike."""
    base, tuned = (comparison.declared.sent.get(role, {}) for role in ("base", "fine_tuned"))
    told = []
    for name in {**base, **tuned}:
        both = base.get(name), tuned.get(name)
        old, new = ("none" if one in (None, "") else str(one)[:200] for one in both)
        if both[0] != both[1]:
            told.append(f"{label(name)} {old} of base, {new} of fine-tuned")
    return [f"Asked differently: {'; '.join(told)}."] if told else []


def _outcomes(comparison: Comparison) -> dict[str, Mapping[str, int]]:
    """Answers by outcome for both models."""
    return {"base": comparison.base.outcomes, "fine-tuned": comparison.fine_tuned.outcomes}


def wrong(comparison: Comparison) -> str:
    """What became of answers that were cut off or failed: "Counted as wrong: base 87 truncated; fine-tuned none."."""
    parts = []
    for role, counts in _outcomes(comparison).items():
        bad = [f"{count(n)} {word}" for word, n in counts.items() if word != "ok" and n]
        parts.append(f"{role} {listed(bad) or 'none'}")
    return f"Counted as wrong: {'; '.join(parts)}."


def caveats(comparison: Comparison) -> Html:
    """The chance level, what was cut off or failed, and what each metric rewards by accident."""
    accident = wording.rewarded_by_accident(comparison.tests)
    return note(" ".join(filter(None, [chance(comparison), wrong(comparison), accident])))


def chance(comparison: Comparison) -> str:
    """The chance level beside both models, or that none was declared."""
    rate, told = comparison.declared.chance_rate, []
    if rate is None:
        return "No chance level was declared for this study."
    for role, side in (("base", comparison.base), ("fine-tuned", comparison.fine_tuned)):
        one = side.by_metric.get("exact_match")
        if one is None or one.estimate is None:
            told.append(f"the {role} model has no examples")
            continue
        above, below = one.ci_low > rate, one.ci_high < rate
        place = "is above it" if above else "is below it" if below else "cannot be told from it"
        ends = wording.interval(one.ci_low, one.ci_high, scale="percent")
        told.append(f"the {role} model {place} ({percent(one.estimate)}, {ends})")
    at_random = f"Picking one candidate at random would reach {percent(rate)} exact match"
    return f"{at_random}: {listed(told)}."


# ---- the metrics


def rates(comparison: Comparison) -> Html:
    """Each metric's level for both models."""
    at_random = comparison.declared.chance_rate
    dashed = " The dashed line is the level of picking one candidate at random."
    dashed = "" if at_random is None else dashed
    return drawn(
        "rates",
        rates_title(comparison),
        comparison,
        chance=at_random,
        told=" ".join(map(_levels, comparison.changes.values())),
        subline=f"Level of each metric over {_examples(comparison.n)}. "
        "Hollow: base. Filled: fine-tuned. Bar: interval.",
        caption=f"Wilson intervals for rates, t for means.{dashed}{_margin_drawn(comparison)}",
    )


def rates_title(comparison: Comparison) -> str:
    """What became of the primary metric, as levels."""
    if not comparison.n:
        return "No examples were answered by both models"
    name, said = label(comparison.primary_metric), comparison.conclusion
    if comparison.primary.estimate is None:
        return f"{capital(name)} is not known of any example"
    moved = f"from {_primary_levels(comparison)}"
    words = f"goes {moved}, {against(comparison) or 'no difference shown'}"
    if said in SHOWN:
        words = f"{wording.moves(comparison.primary.estimate or 0.0)} {moved}"
    return f"{name.capitalize()} {words}{_but(comparison)}"


def _levels(one: Change) -> str:
    old, new = wording.level_of(one.base), wording.level_of(one.fine_tuned)
    return f"{capital(label(one.metric))}: base {old} and fine-tuned {new}."


def _primary_levels(comparison: Comparison) -> str:
    one = comparison.changes[comparison.primary_metric]
    old, new = (side and side.estimate for side in (one.base, one.fine_tuned))
    return wording.levels(old, new, comparison.primary)


def against(comparison: Comparison) -> str:
    """The answer where the question is "no worse", as the end of a sentence; "" where it is another."""
    if comparison.margin is None:
        return ""
    return wording.against(comparison.conclusion, comparison.margin, comparison.primary)


def _loss(comparison: Comparison) -> str:
    """The margin in the unit of the difference that is held against it."""
    return wording.loss_of(comparison.margin, comparison.primary)


def _but(comparison: Comparison) -> str:
    return ", but fragile" if comparison.fragility.fragile else ""


def _margin_drawn(comparison: Comparison) -> str:
    if comparison.noninferiority is None:
        return ""
    loss = wording.loss_of(comparison.noninferiority.margin, comparison.primary)
    return f" The line of the margin lies {loss} worse than base; the interval of the difference must keep clear of it."


def differences(comparison: Comparison) -> Html:
    """Fine-tuned minus base on every metric."""
    methods = wording.methods(comparison.tests.values())
    holm = "Holm over the metrics that are not primary."
    changes = [
        f"{capital(label(one.metric))}: {one.verdict}, {wording.size(one.test)}."
        for one in comparison.changes.values()
    ]
    return drawn(
        "differences",
        differences_title(comparison),
        comparison,
        told=" ".join(changes),
        subline=f"Fine-tuned minus base, points. {MARKS}",
        caption=f"{methods}; {holm}{_margin_drawn(comparison)}",
    )


def differences_title(comparison: Comparison) -> str:
    """Which metrics are better, worse, or neither."""
    if not comparison.n:
        return "No examples, so no differences"
    by: dict[str, list[str]] = {}
    for one in comparison.changes.values():
        by.setdefault(one.verdict, []).append(label(one.metric))
    parts = [f"{name} is {against(comparison)}" for name in by.pop("not worse", [])]
    parts += [f"{against(comparison)} in {name}" for name in by.pop("not shown", [])]
    for word in ("better", "worse"):
        if names := by.pop(word, []):
            parts.append(f"{listed(names)} {are(len(names))} {word}")
    if rest := [name for names in by.values() for name in names]:
        parts.append(f"no difference shown in {listed(rest)}")
    return f"{capital('; '.join(parts))}{_but(comparison)}"


def metrics(comparison: Comparison) -> Html:
    """Every metric with its test, and what else the tests say."""
    rows, title = metric_rows(comparison), "Every metric, with its test"
    made = table(rows, caption=title, numeric=METRIC_NUMBERS)
    return joined(made, note(footnotes(comparison)))


def metric_rows(comparison: Comparison) -> list[Row]:
    """One row a metric: levels, difference with interval, verdict, p (adjusted but for the primary metric)."""
    rows = []
    for name, one in comparison.changes.items():
        adjusted = not one.is_primary or comparison.n_compared > 1
        rows.append(
            {
                "Metric": f"{label(name)}{' (primary)' if one.is_primary else ''}",
                "Base": wording.level_of(one.base),
                "Fine-tuned": wording.level_of(one.fine_tuned),
                "Difference (rates: points)": wording.size(one.test),
                "Verdict": one.verdict,
                "p": f"{p_text(one.p_value)}{' adjusted' if adjusted else ''}",
                "Test": one.test.method,
            }
        )
    return rows


def footnotes(comparison: Comparison) -> str:
    """What else the tests say: exact p, the test that ignores clusters, the margin, failed calls."""
    primary, name, lines = comparison.primary, comparison.primary_metric, []
    if primary.p_exact is not None:
        test = "McNemar p" if hasattr(primary, "fixed") else "sign-flip p"
        lines.append(f"Exact {test} of the primary metric {p_phrase(primary.p_exact)}.")
    if beside := comparison.beside.get(name):
        flatters = (beside.p_value or 0) < (primary.p_value or 0)
        more = ": too optimistic" if flatters else ", which is not valid here"
        lines.append(
            f"Without regard to shared sources, p would be {p_text(beside.p_value)}{more}."
        )
    if comparison.noninferiority is not None:
        lines.append(f"Against the declared margin it is {_kept(comparison.noninferiority)}.")
    notes = [f"{capital(one).rstrip('.')}." for one in primary.notes]
    return " ".join([*lines, str(comparison.fragility), *notes])


def _kept(test: NonInferiorityTest) -> str:
    scale, safe = scale_of(test), test.verdict == "not worse"
    margin = amount(test.margin, scale, sign=False).removesuffix(" points")
    worst = f"lower limit {amount(test.ci_low, scale)}, margin {wording.MINUS}{margin}"
    if test.lower_is_better:
        worst = f"upper limit {amount(test.ci_high, scale)}, margin +{margin}"
    return f"{'not worse' if safe else 'not shown to be safe'} ({worst})"


# ---- the examples


def cells(comparison: Comparison) -> Html:
    """Both right, fixed, regressed, both wrong."""
    return drawn(
        "cells",
        cells_title(comparison.cells),
        comparison,
        subline=f"One mark is one example, by {label(comparison.status_metric)}.",
        caption="Only the fixed and the regressed examples decide the test; "
        "the other two cells say nothing about the difference.",
    )


def cells_title(cells: Mapping[str, int], noun: str = "example") -> str:
    """The four cells in words.

    Example:
        >>> cells_title({"both_right": 2, "fixed": 65, "regressed": 7, "both_wrong": 226})
        '65 examples fixed, 7 regressed, 226 still wrong'
    """
    if not sum(cells.values()):
        return "No examples to count"
    rest = f"{count(cells['regressed'])} regressed, {count(cells['both_wrong'])} still wrong"
    return f"{plural(cells['fixed'], noun)} fixed, {rest}"


def similarity(comparison: Comparison) -> Html:
    """How close both models' answers are to the expected text."""
    return drawn(
        "similarity",
        similarity_title(comparison),
        comparison,
        told=str(comparison.fine_tuned),
        subline="Number of examples by similarity to the expected text. Above: fine-tuned. Below: base.",
        caption="Characters in common in the same order, 0 to 1. It measures text, not meaning.",
    )


def similarity_title(comparison: Comparison) -> str:
    """Whether answers moved towards the expected text; by an adjusted p, as everywhere."""
    one = comparison.changes.get("similarity")
    if one is None or one.test.estimate is None:
        return "No answers to compare with the expected text"
    moved, scale = one.test.estimate, scale_of(one.test)
    if one.verdict not in SHOWN:
        return f"No shift in similarity shown ({amount(moved, scale)})"
    way = "closer to" if moved > 0 else "away from"
    return f"Answers moved {amount(moved, scale, sign=False)} {way} the expected text"


def scatter(comparison: Comparison, metric: str = "similarity") -> Html:
    """One mark an example, base against fine-tuned."""
    to, above = (" to the expected text", "closer") if metric == "similarity" else ("", "more")
    what = f"One mark is one example: {label(metric)} of both answers{to}."
    return drawn(
        "scatter",
        scatter_title(comparison, metric),
        comparison,
        metric=metric,
        told=f"{cells_title(comparison.cells)}.",
        subline=f"{what} Above the line: {above} than before.",
        caption="Diamond: regressed. Filled circle: fixed or both right. Hollow: both wrong.",
    )


def scatter_title(comparison: Comparison, metric: str) -> str:
    """How many answers came closer or scored higher, how many did not, and whether that is more than chance."""
    diffs = [diff for one in comparison.pairs if (diff := one.diff(metric)) is not None]
    if not diffs:
        return "No answers to compare"
    closer, away = (sum(diff * sign > 1e-9 for diff in diffs) for sign in (1, -1))
    up, down = f"scored higher on {label(metric)}", "lower"
    if metric == "similarity":
        up, down = "came closer", "moved away"
    moved = f"{plural(closer, 'answer')} {up}, {count(away)} {down}"
    told = f"{moved}, {count(len(diffs) - closer - away)} stayed"
    change = comparison.changes.get(metric)
    return told if change and change.verdict in SHOWN else f"{told}: no difference shown"


# ---- what the answers took


def spread(comparison: Comparison, field: str = "latency_ms") -> Html:
    """How long answers took (`latency_ms`) or were (`completion_tokens`).

    Raises:
        DesignError: Another field.
    """
    need_one_of(("latency_ms", "completion_tokens", "prompt_tokens"), "field", field)
    what, most = "Tokens of each answer", comparison.declared.max_tokens
    caption = f"An answer is cut off at {count(most)} tokens." if most else ""
    if field == "latency_ms":
        what = "Time of the call that brought the answer"
        caption = "Measured when the answers were recorded; it depends on the machine and on what else it did."
    medians = []
    for role in ("base", "fine_tuned"):
        taken = (getattr(getattr(one, role), field) for one in comparison.pairs)
        if (middle := quantile(taken, 0.5)) is not None:
            unit = wording.measured(field)[1]
            medians.append(f"{role.replace('_', '-')} {count(middle)} {unit}")
    return drawn(
        "spread",
        spread_title(comparison, field),
        comparison,
        field,
        told=f"Median: {listed(medians)}." if medians else "",
        subline=f"{what}. The mark is the median, the bar the middle 90%.",
        caption=caption,
    )


def spread_title(comparison: Comparison, field: str) -> str:
    """Whether answers took more time or tokens, by the paired differences of the examples."""
    what, unit = wording.measured(field)
    options = {"alpha": comparison.alpha, "clustered": comparison.clustered}
    test = taken_test(comparison.pairs, field, **options)
    if test.estimate is None:
        return f"No {what} was recorded for both models"
    ends = wording.interval(test.ci_low, test.ci_high, scale="number", alpha=test.alpha)
    change = f"{wording.signed(test.estimate)} {unit} an answer ({ends})"
    if test.verdict not in SHOWN:
        return f"No difference in {what} shown: {change}"
    return f"{capital(what)} {wording.moves(test.estimate)}: {change}"


def costs(found: Costs) -> Html:
    """What the answers took: tokens, time, money."""
    rows = []
    for role, one in found.by_model.items():
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
    numbers = ("median ms", "95% within ms", "money")
    made = table(rows, caption="What the answers took", numeric=numbers)
    return joined(made, note(told)) if (told := thoughts(found.by_model)) else made


def thoughts(costs: Mapping[str, JsonObject]) -> str:
    """How many answers came after thoughts, and what these took; "" when there were none.

    Example:
        >>> thoughts({"base": {"with_thoughts": 0, "answers": 9, "thoughts_scored": 0},
        ...     "fine_tuned": {"with_thoughts": 9, "answers": 9, "thinking_tokens": 720, "completion_tokens": 900,
        ...     "thoughts_scored": 0}})
        'Thoughts, kept in the journal and not scored: base none; fine-tuned before 9 of 9 answers, 720 of 900 tokens out.'
    """
    told = [f"{role.replace('_', '-')} {_thought(one)}" for role, one in costs.items()]
    scored = [
        f"{role.replace('_', '-')} {count(one['thoughts_scored'])}"
        for role, one in costs.items()
        if one.get("thoughts_scored")
    ]
    lines = []
    if any(one.get("with_thoughts") for one in costs.values()):
        lines.append(f"Thoughts, kept in the journal and not scored: {'; '.join(told)}.")
    if scored:
        lines.append(
            f"Answers in which thoughts still stand, scored with them: {'; '.join(scored)}; "
            "leave strip_think true and ask these afresh."
        )
    return " ".join(lines)


def _thought(cost: JsonObject) -> str:
    if not (n := cost.get("with_thoughts")):
        return "none"
    took, tokens, whole = "tokens not known", cost.get("thinking_tokens"), cost["completion_tokens"]
    if tokens is not None:
        took = f"{count(tokens)}{'' if whole is None else f' of {count(whole)}'} tokens out"
    return f"before {count(n)} of {plural(cost['answers'], 'answer')}, {took}"


# ---- the answer, and what would settle it


@answer.register
def _answered(result: Comparison) -> Html:
    return answer(answer_said(result))


def answer_said(comparison: Comparison) -> str:
    """The chapter's answer: verdict, size, interval, p last; then the chance level and what is fragile."""
    if not comparison.n:
        return "Nothing can be said: no example was answered by both models."
    name, test, cells = label(comparison.primary_metric), comparison.primary, comparison.cells
    if test.estimate is None:
        return f"Nothing can be said: {name} is not known of any example.{_open_ended(comparison)}"
    p_value = f"p {p_phrase(test.p_decides)}"
    if comparison.n_compared > 1:
        p_value += f" adjusted for {comparison.n_compared} models compared"
    told = f"{_head(comparison, name)}: {_primary_levels(comparison)} over {_examples(test.n)}"
    told += f", {wording.effect(test).removesuffix(')')}, {p_value})"
    if sum(cells.values()):  # a score says neither: nothing was counted
        told += f"; {_examples(cells['fixed'])} fixed, {count(cells['regressed'])} regressed"
        if comparison.status_metric != comparison.primary_metric:
            told += f" by {label(comparison.status_metric)}"
    lines = [f"{told}."]
    if comparison.noninferiority is not None:
        lines.append(f"Against the margin it is {_kept(comparison.noninferiority)}.")
    rate, tuned = comparison.declared.chance_rate, comparison.fine_tuned.by_metric
    if rate is not None and "exact_match" in tuned and tuned["exact_match"].ci_low <= rate:
        at_random = f"the {percent(rate)} of picking one candidate at random"
        lines.append(f"But its exact match is not above {at_random}.")
    if comparison.fragility.n_errors:
        lines.append(str(comparison.fragility))
    return " ".join(lines)


def _open_ended(comparison: Comparison) -> str:
    if not comparison.expects_nothing:
        return ""
    return (
        " Nothing is expected of these examples: people decide (human rating), or a metric that needs no right answer, "
        "declared as primary_metric: format, or a scorer of your own."
    )


def _head(comparison: Comparison, name: str) -> str:
    """The answer in a clause."""
    asked, concluded = comparison.margin is not None, comparison.conclusion
    who = "The replacement" if asked else "The fine-tuned model"
    if concluded in SHOWN:
        return f"{who} is {concluded} on {name}"
    if not asked:
        return f"No difference between the models is shown on {name}"
    if concluded == "not worse":
        return f"{who} is {against(comparison)} on {name}"
    loss = _loss(comparison)
    left = f"a loss of {loss} on {name} is not ruled out"
    return f"Not shown that the replacement is no worse: {left}"


def checkpoints(compared: Mapping[str, Comparison]) -> Html:
    """Every model against the same base, by the p adjusted for their number."""
    if len(compared) < 2:
        return note("This study names no further model.")
    rows = []
    for name, one in compared.items():
        head = {"model": name, "examples": one.n, "difference": wording.size(one.primary)}
        cells = {key.replace("_", " "): n for key, n in one.cells.items()}
        p_value = p_text(one.primary.p_decides)
        rows.append({**head, "adjusted p": p_value, "verdict": one.conclusion, **cells})
    title = f"{len(compared)} models compared with base"
    return table(rows, caption=title, numeric=("difference", "adjusted p"))


def settle(comparison: Comparison) -> str:
    """What it would take to settle the primary question at the size and disagreement seen."""
    test = comparison.primary
    if test.estimate is None:
        return "Nothing was seen from which a number of examples could be worked out."
    if comparison.conclusion in {*SHOWN, "not worse"}:
        effect = wording.stated(test)
        if comparison.conclusion == "not worse":
            effect = f"{against(comparison)}, {wording.effect(test)}"
        return f"The question is settled for {label(comparison.primary_metric)}: {effect}."
    if n := comparison.n_to_settle:
        return f"To settle this you need {_more_examples(comparison, n)}."
    if comparison.margin:
        return "The loss seen is as large as the margin: no number of examples would show it safe at the rates seen."
    return "No difference at all was seen: no number of examples would settle a difference of zero."


def _more_examples(comparison: Comparison, needed: int) -> str:
    """What a verdict costs, how often that many examples bring it, and how to test them without breaking the level."""
    looks, n = comparison.extension, comparison.n
    if looks and not looks.first_look:
        return f"the second look that was declared: {count(n)} more examples, then first_look: {n}"
    shown = "a difference of the size seen"
    if comparison.margin is not None:
        shown = f"that it is not worse by more than {_loss(comparison)}"
    found = f"{times(comparison.declared.power)} that shows {shown}, if the rates seen are the true ones"
    # testing again with the examples already read is a second look, which needs its own bounds
    how = (
        "test fresh examples alone, or declare `extension: true` before a first look (old and new tested together as if "
        "nobody had looked show a difference in 7 to 10% of studies without one)"
    )
    if looks:
        how = "both looks are done, so test fresh examples alone"
    more = f"about {count(needed - comparison.primary.n)} more examples, {count(needed)} in all"
    return f"{more}: {found}; {how}"


def detectable(comparison: Comparison) -> Html:
    """The smallest difference a test set of each size finds, and what would settle the question."""
    what, source = "Smallest difference a test set of each size finds, ", "Connor 1987"
    if comparison.margin is not None:
        what = "Smallest loss a test set of each size rules out between equal models, "
        source = "Nam 1997"
    level = f"two-sided level {comparison.alpha:g}, power {comparison.declared.power:.0%}"
    return drawn(
        "detectable",
        detectable_title(comparison),
        comparison,
        told=settle(comparison),
        subline=f"{what}at the share of examples on which these two models disagree.",
        caption=f"{source}, {level}. {comparison.fragility}",
    )


def detects(comparison: Comparison, n: int) -> float | None:
    """What n examples find at this run's disagreement: the smallest difference, or the smallest loss that is ruled out."""
    share = comparison.disagreement
    if not share or not n:
        return None
    found = stats.detectable_difference if comparison.margin is None else stats.detectable_margin
    return found(n, share, alpha=comparison.alpha, power=comparison.declared.power)


def detectable_title(comparison: Comparison) -> str:
    """What this test set could have found in right or wrong answers, against what was seen."""
    cells, often = comparison.cells, times(comparison.declared.power)
    n, found = sum(cells.values()), detects(comparison, comparison.n)
    if not n:
        return "No example is right or wrong, so nothing can be found"
    if not comparison.disagreement:
        return f"The models were right on the same {_examples(n)}: nothing to size a test set by"
    if found is None:
        so_large = "a difference as large as the models' disagreement"
        return f"{_examples(n)} do not find even {so_large} {often}"
    least = (
        f"{points(found, sign=False)} points or more in {label(comparison.status_metric)} {often}"
    )
    if comparison.margin is not None:
        out = f"{_examples(n)} rule out a loss of {least} when the models are truly alike"
        return f"{out}; the margin is {_loss(comparison)}"
    saw = points(abs(cells["fixed"] - cells["regressed"]) / n, sign=False)
    return f"{_examples(n)} find a difference of {least}; {saw} were seen"


def drawn(plot: str, title: str, *args: object, told: str = "", **words: Any) -> Html:
    """Draws one of the benchmark's plots; the plotting library is loaded only now.

    Args:
        plot: Its name.
        title: The conclusion, with which the alternative text begins.
        *args: What is drawn.
        told: What the alternative text says besides.
        **words: What stands around it, and the plot's own options.
    """
    from evalkit.show import plots
    from evalkit.show.figure import picture

    return picture(getattr(plots, plot), *args, alt=f"{title}. {told}".rstrip(), **words)
