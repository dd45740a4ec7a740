"""What the benchmark's chapters say: answers and caveats, computed from the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.show import say

if TYPE_CHECKING:
    from evalkit.benchmark.comparison import Comparison
    from evalkit.benchmark.noise import NoiseFloor
    from evalkit.benchmark.slices import SliceRow, SliceTable
    from evalkit.records import Evidence

_BY_ACCIDENT = {
    "all_lines_present": "all lines present rewards listing every candidate",
    "similarity": "similarity rewards copying the shape of an answer, right or wrong",
    "article_similarity": "similarity rewards copying the shape of an answer, right or wrong",
    "format": "format is right for a well-formed wrong answer",
    "exact_match": "exact match gives nothing for a right answer in other words",
}


def benchmark_answer(comparison: Comparison, chance_rate: float | None = None) -> str:
    """The chapter's answer: verdict, size, interval, p last; then the chance level and what is fragile."""
    if not comparison.n:
        return "Nothing can be said: no example was answered by both models."
    name, old, new = say.primary_levels(comparison)
    if comparison.primary.estimate is None:
        return f"Nothing can be said: {name} is not known of any example.{_open_ended(comparison)}"
    head = _head(comparison)
    test, cells = comparison.primary, comparison.cells
    p_text = f"p {wording.p_phrase(test.p_decides)}"
    if comparison.n_compared > 1:
        p_text += f" adjusted for {comparison.n_compared} models compared"
    size = f"{wording.effect(test).removesuffix(')')}, {p_text})"
    changed = f"; {wording.plural(cells['fixed'], 'example')} fixed, {wording.count(cells['regressed'])} regressed"
    if comparison.status_metric != comparison.primary_metric:
        changed += f" by {say.label(comparison.status_metric)}"
    changed = changed if sum(cells.values()) else ""  # a score says neither: nothing was counted
    lines = [
        f"{head.format(name=name)}: {old} to {new} over {wording.plural(test.n, 'example')}, {size}{changed}."
    ]
    if comparison.noninferiority is not None:
        lines.append(f"Against the margin it is {_margin(comparison.noninferiority)}.")
    tuned = comparison.fine_tuned.by_metric.get("exact_match")
    if chance_rate is not None and tuned and tuned.ci_low <= chance_rate:
        lines.append(
            f"But its exact match is not above the {wording.percent(chance_rate)} of picking one candidate at random."
        )
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


def _head(comparison: Comparison) -> str:
    """The answer in a clause, with `{name}` for the metric."""
    asked = comparison.margin is not None
    who = "The replacement" if asked else "The fine-tuned model"
    if comparison.conclusion in {"better", "worse"}:
        return f"{who} is {comparison.conclusion} on {{name}}"
    if not asked:
        return "No difference between the models is shown on {name}"
    if comparison.conclusion == "not worse":
        return f"{who} is {say.against(comparison)} on {{name}}"
    loss = wording.loss(comparison.margin, wording.scale_of(comparison.primary))
    return (
        f"Not shown that the replacement is no worse: a loss of {loss} on {{name}} is not ruled out"
    )


def sent(declared: Mapping[str, Mapping[str, object]]) -> str:
    """How the two models were asked differently; "" when they were asked alike.

    Example:
        >>> sent({"base": {"temperature": 0.0}, "fine_tuned": {"reasoning_effort": "low"}})
        'Asked differently: temperature 0.0 of base, none of fine-tuned; reasoning effort none of base, low of fine-tuned.'
    """
    base, tuned = declared.get("base", {}), declared.get("fine_tuned", {})
    told = []
    for name in {**base, **tuned}:
        old, new = base.get(name), tuned.get(name)
        if old != new:
            first, second = ("none" if one in (None, "") else str(one)[:200] for one in (old, new))
            told.append(f"{say.label(name)} {first} of base, {second} of fine-tuned")
    return f"Asked differently: {'; '.join(told)}." if told else ""


def thoughts(costs: Mapping[str, Mapping[str, Any]]) -> str:
    """How many answers came after thoughts, and what these took; "" when there were none.

    Example:
        >>> thoughts({"base": {"with_thoughts": 0, "answers": 9, "thoughts_scored": 0},
        ...     "fine_tuned": {"with_thoughts": 9, "answers": 9, "thinking_tokens": 720, "completion_tokens": 900,
        ...     "thoughts_scored": 0}})
        'Thoughts, kept in the journal and not scored: base none; fine-tuned before 9 of 9 answers, 720 of 900 tokens out.'
    """
    told, scored = [], []
    for role, one in costs.items():
        name, n = role.replace("_", "-"), one.get("with_thoughts", 0)
        tokens = one.get("thinking_tokens")
        took = "tokens not known"
        if n and tokens is not None:
            all_of_them = one.get("completion_tokens")
            of = "" if all_of_them is None else f" of {wording.count(all_of_them)}"
            took = f"{wording.count(tokens)}{of} tokens out"
        answers = f"before {wording.count(n)} of {wording.plural(one['answers'], 'answer')}, {took}"
        told.append(f"{name} {answers if n else 'none'}")
        if in_answers := one.get("thoughts_scored"):
            scored.append(f"{name} {wording.count(in_answers)}")
    lines = []
    if any(one.get("with_thoughts") for one in costs.values()):
        lines.append(f"Thoughts, kept in the journal and not scored: {'; '.join(told)}.")
    if scored:
        lines.append(
            f"Answers in which thoughts still stand, scored with them: {'; '.join(scored)}; "
            "leave strip_think true and ask these afresh."
        )
    return " ".join(lines)


def truncated(outcomes: Mapping[str, Mapping[str, int]]) -> str:
    """What became of answers that were cut off or failed, by role; they count as wrong.

    Example:
        >>> truncated({"base": {"ok": 213, "truncated": 87}, "fine-tuned": {"ok": 300}})
        'Counted as wrong: base 87 truncated; fine-tuned none.'
    """
    parts = []
    for role, counts in outcomes.items():
        bad = [
            f"{wording.count(n)} {outcome}"
            for outcome, n in counts.items()
            if outcome != "ok" and n
        ]
        parts.append(f"{role} {wording.listed(bad) if bad else 'none'}")
    return f"Counted as wrong: {'; '.join(parts)}."


def chance(
    comparison: Comparison, rate: float | None, choice: str = "picking one candidate at random"
) -> str:
    """The chance level beside both models, or that none was declared."""
    if rate is None:
        return "No chance level was declared for this study."
    level = wording.percent(rate)
    sides = {"base": comparison.base, "fine-tuned": comparison.fine_tuned}
    told = [
        f"the {role} model {_against(one.by_metric.get('exact_match'), rate)}"
        for role, one in sides.items()
    ]
    return f"{say.sentence(choice)} would reach {level} exact match: {wording.listed(told)}."


def rewarded_by_accident(metrics: Iterable[str]) -> str:
    """What each metric rewards without meaning to; "" when that is known of none of them."""
    known = dict.fromkeys(_BY_ACCIDENT[name] for name in metrics if name in _BY_ACCIDENT)
    return f"What the metrics reward by accident: {'; '.join(known)}." if known else ""


def regression_answer(
    tables: Sequence[SliceTable], noise: NoiseFloor | None, n_regressed: int
) -> str:
    """The second chapter's answer: how many, where, what would settle the rest, and whether they hold."""
    if noise and noise.by_model and not any(one.flip_rate.n for one in noise.by_model.values()):
        lines = ["Nothing is right or wrong here, so no example can be shown to have got worse."]
    else:
        n_worse = wording.plural(n_regressed, "example") if n_regressed else "no example"
        lines = [say.sentence(f"{n_worse} got worse.")]
    first, others = (tables[0], tables[1:]) if tables else (None, ())
    worse = [_loss(row, first.metric) for row in first.worse] if first else []
    none = ["No declared slice is shown worse on the primary metric."] if first else []
    if first and len(first) and first.margin and first.rows[0].question == "no_worse":
        none = [f"{say.slices_title(first)}."]
    lines += worse or none
    elsewhere = [
        f"{say.label(table.metric)} on {wording.listed(_losses(table))}"
        for table in others
        if table.worse
    ]
    lines += [f"Also shown worse: {'; '.join(elsewhere)}."] if elsewhere else []
    unsettled = [
        f"about {wording.count(row.n_to_settle - row.n)} more {wording.examples_of(row.slice, row.n_to_settle - row.n)}"
        for row in first or ()
        if row.n_to_settle
    ]
    if unsettled and first:
        often = wording.times(first.rows[0].wanted_chance)
        lines.append(f"To settle the other slices {often}: {wording.listed(unsettled)}.")
    return " ".join([*lines, _held(noise)])


def _loss(row: SliceRow, metric: str) -> str:
    scale = wording.scale_of(row.test)
    old, new = wording.level(row.base_rate, scale), wording.level(row.fine_tuned_rate, scale)
    effect = wording.effect(row.test).replace(" (", ", ", 1).removesuffix(")")
    size = f"{effect}, adjusted p {wording.p_phrase(row.p_adjusted)}"
    where = (
        f"Worse on {wording.examples_of(row.slice)}: {say.label(metric)} falls from {old} to {new}"
    )
    return f"{where} over {wording.plural(row.n, 'example')} ({size})."


def _losses(table: SliceTable) -> list[str]:
    return [
        f"{wording.examples_of(row.slice)} ({wording.amount(row.estimate, wording.scale_of(row.test))})"
        for row in table.worse
    ]


def _held(noise: NoiseFloor | None) -> str:
    if noise is None or not noise.n:
        return "Whether the regressions hold when asked again was not measured."
    flips = sum(mark == "flips" for mark in noise.marks.values())
    asked = sum(mark != "not re-asked" for mark in noise.marks.values())
    if not asked:
        return "No regression was asked again."
    return f"Asked again, {flips} of {wording.plural(asked, 'regression')} flipped."


def _against(rate: Any, level: float) -> str:
    if rate is None or rate.estimate is None:
        return "has no examples"
    place = (
        "is above it"
        if rate.ci_low > level
        else "is below it"
        if rate.ci_high < level
        else "cannot be told from it"
    )
    return f"{place} ({wording.percent(rate.estimate)}, {wording.interval(rate.ci_low, rate.ci_high, as_points=False)})"


def _margin(test: Any) -> str:
    scale = wording.scale_of(test)
    margin = wording.amount(test.margin, scale, sign=False).removesuffix(" points")
    worst = f"lower limit {wording.amount(test.ci_low, scale)}, margin {wording.MINUS}{margin}"
    if test.lower_is_better:
        worst = f"upper limit {wording.amount(test.ci_high, scale)}, margin +{margin}"
    return f"{'not worse' if test.verdict == 'not worse' else 'not shown to be safe'} ({worst})"


def asked(comparison: Comparison, base_model: str, fine_tuned_model: str) -> str:
    """Who was compared on what, and what was left out."""
    n = wording.plural(comparison.n, "example")
    who, failed = f"{base_model} against {fine_tuned_model}", truncated(outcomes(comparison))
    whole = all(set(one) <= {"ok"} for one in outcomes(comparison).values())
    head = f"{who} on {n} both {'answered.' if whole else f'were asked. {failed}'}"
    return " ".join([head, *comparison.notes])


def outcomes(comparison: Comparison) -> dict[str, Mapping[str, int]]:
    """Answers by outcome for both models."""
    return {"base": comparison.base.outcomes, "fine-tuned": comparison.fine_tuned.outcomes}


def footnotes(comparison: Comparison) -> str:
    """What else the tests say: exact p, the test that ignores clusters, the margin, failed calls."""
    primary, lines = comparison.primary, []
    if primary.p_exact is not None:
        name = "McNemar p" if hasattr(primary, "fixed") else "sign-flip p"
        lines.append(f"Exact {name} of the primary metric {wording.p_phrase(primary.p_exact)}.")
    if beside := comparison.beside.get(comparison.primary_metric):
        flatters = (beside.p_value or 0) < (primary.p_value or 0)
        more = ": too optimistic" if flatters else ", which is not valid here"
        lines.append(
            f"Without regard to shared sources, p would be {wording.p_text(beside.p_value)}{more}."
        )
    if comparison.noninferiority is not None:
        lines.append(f"Against the declared margin it is {_margin(comparison.noninferiority)}.")
    return " ".join(
        [
            *lines,
            str(comparison.fragility),
            *(f"{say.sentence(one).rstrip('.')}." for one in primary.notes),
        ]
    )


def settle(comparison: Comparison) -> str:
    """What it would take to settle the primary question at the size and disagreement seen."""
    from evalkit.benchmark.evidence import more_examples
    from evalkit.benchmark.slices import examples_to_settle

    if comparison.primary.estimate is None:
        return "Nothing was seen from which a number of examples could be worked out."
    if comparison.conclusion in {"better", "worse", "not worse"}:
        size = say.effect(comparison.primary)
        if comparison.conclusion == "not worse":
            size = f"{say.against(comparison)}, {wording.effect(comparison.primary)}"
        return f"The question is settled for {say.label(comparison.primary_metric)}: {size}."
    margin, power = comparison.margin or 0.0, comparison.declared.power
    needed = examples_to_settle(
        comparison.primary, margin=margin, alpha=comparison.price_level, power=power
    )
    if needed is None and margin:
        return "The loss seen is as large as the margin: no number of examples would show it safe at the rates seen."
    if needed is None:
        return "No difference at all was seen: no number of examples would settle a difference of zero."
    return f"To settle this you need {more_examples(comparison, needed, power)}."


def marks(noise: NoiseFloor) -> str:
    """What became of the regressions when they were asked again."""
    if not noise.marks:
        return "There is no regression to ask again."
    counted = [
        f"{sum(one == word for one in noise.marks.values())} {word}"
        for word in ("flips", "stable", "not re-asked")
    ]
    gone = (
        f" Of the stable ones {noise.n_gone} are no regression on this machine."
        if noise.n_gone
        else ""
    )
    return f"Of {wording.plural(len(noise.marks), 'regression')}: {wording.listed(counted)}.{gone}"


def handed_on(record: Evidence | None) -> str:
    """Whether this chapter's findings reached the benchmark's record."""
    if record is None:
        return "Not added to comparison.json: the benchmark chapter has not written it for these answers; run it first."
    prices = [f"{one.action}: {one.price}" for one in record.missing]
    return f"Missing: {'; '.join(prices)}." if prices else "No undecided slice needs more examples."


def methods(tests: Iterable[Any]) -> str:
    """The methods behind some tests, each once, in the order they come.

    Example:
        >>> from evalkit.stats import paired_binary_test, paired_mean_test
        >>> methods([paired_binary_test(5, 3, 2, 1), paired_mean_test([0.1, 0.3])])
        'McNemar mid-p with Tango intervals; paired t'
    """
    names = dict.fromkeys(one.method for one in tests)
    return (
        "; ".join(
            f"{name} with Tango intervals" if name == "McNemar mid-p" else name for name in names
        )
        or "No test"
    )
