"""Sentences computed from the benchmark's results: titles, answers, caveats, alternative texts. Never typed by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from evalkit import stats, wording
from evalkit.answers.pairs import quantile, taken_test
from evalkit.benchmark.comparison import Comparison
from evalkit.benchmark.evidence import more_examples, needed
from evalkit.benchmark.noise import MARKS, NoiseFloor
from evalkit.benchmark.slices import SliceRow, SliceTable
from evalkit.evidence import Evidence
from evalkit.stats.result import Result, which_way
from evalkit.wording import (
    amount,
    count,
    examples_of,
    listed,
    p_phrase,
    percent,
    plural,
    points,
    scale_of,
    times,
)

if TYPE_CHECKING:
    from evalkit.files import JsonObject
    from evalkit.stats import NonInferiorityTest

_LABELS = {"exact_match": "exact match", "normalised_exact": "normalised exact match"}
_SHAPE = "similarity rewards copying the shape of an answer, right or wrong"
_BY_ACCIDENT = {
    "all_lines_present": "all lines present rewards listing every candidate",
    "similarity": _SHAPE,
    "article_similarity": _SHAPE,
    "format": "format is right for a well-formed wrong answer",
    "exact_match": "exact match gives nothing for a right answer in other words",
}
_SHOWN = {"better", "worse"}
_examples = partial(plural, noun="example")


def label(metric: str) -> str:
    """A metric's name in words.

    Example:
        >>> label("all_lines_present")
        'all lines present'
    """
    return _LABELS.get(metric, metric.replace("_", " "))


def sentence(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def effect(test: Result) -> str:
    """Verdict, size and interval in one phrase; the interval is never left out.

    Example:
        >>> from evalkit.stats import paired_binary_test
        >>> effect(paired_binary_test(250, 10, 8, 32))
        'no difference shown, +0.7 points (95% interval −2.3 to +3.7)'
    """
    if test.estimate is None:
        return "nothing can be said, no examples"
    if test.verdict in _SHOWN:
        return f"{test.verdict} by {wording.effect(test, sign=False)}"
    return f"{test.verdict}, {wording.effect(test)}"


def size(test: Result) -> str:
    """A difference with its interval, without its unit: "+10.7 (+6.7 to +15.2)"."""
    low, high, scale = test.ci_low, test.ci_high, scale_of(test)
    digits = wording.decimals(test.estimate, low, high)
    ends = "" if low is None else f" ({wording.limits(low, high, scale, digits=digits)})"
    return f"{amount(test.estimate, scale, digits=digits).removesuffix(' points')}{ends}"


def level(rate: Result | None) -> str:
    """A rate in percent, a mean with two decimals."""
    if rate is None or rate.estimate is None:
        return wording.NOTHING
    return (percent if rate.method == "Wilson" else wording.number)(rate.estimate)


def measured(field: str) -> tuple[str, str]:
    """What a field of an answer measures, and its unit."""
    if field == "latency_ms":
        return "latency", "ms"
    return field.replace("_tokens", " length").replace("_", " "), "tokens"


def verdict_by(test: Result, p_value: float | None) -> str:
    """The verdict when another, adjusted p decides."""
    if test.estimate is None:
        return "too early"
    if p_value is None or p_value >= test.alpha or test.estimate == 0:
        return "no difference shown"
    return which_way(test.estimate, lower_is_better=test.lower_is_better)


def metric_verdicts(comparison: Comparison) -> dict[str, str]:
    """Every metric's verdict: the primary's on what was asked, the others by p adjusted over them (Holm)."""
    adjusted, primary = comparison.p_adjusted, comparison.primary_metric
    tests = comparison.tests.items()
    said = {name: verdict_by(test, adjusted.get(name, test.p_decides)) for name, test in tests}
    return said if comparison.margin is None else said | {primary: comparison.conclusion}


def methods(tests: Iterable[Result]) -> str:
    """The methods behind some tests, each once, in the order they come.

    Example:
        >>> from evalkit.stats import paired_binary_test, paired_mean_test
        >>> methods([paired_binary_test(5, 3, 2, 1), paired_mean_test([0.1, 0.3])])
        'McNemar mid-p with Tango intervals; paired t'
    """
    names = dict.fromkeys(one.method for one in tests)
    tango = {"McNemar mid-p": "McNemar mid-p with Tango intervals"}
    return "; ".join(tango.get(name, name) for name in names) or "No test"


def primary_levels(comparison: Comparison) -> tuple[str, str, str]:
    """The primary metric's name and both levels."""
    name, scale = comparison.primary_metric, scale_of(comparison.primary)
    sides = [one.by_metric.get(name) for one in (comparison.base, comparison.fine_tuned)]
    old, new = (wording.level(None if one is None else one.estimate, scale) for one in sides)
    return label(name), old, new


def _loss(comparison: Comparison) -> str:
    return wording.loss(comparison.margin, scale_of(comparison.primary))


def against(comparison: Comparison) -> str:
    """The answer where the question is "no worse", as the end of a sentence; "" where it is another.

    Example: "not worse by more than 2 points", "a loss of 2 points is not ruled out".
    """
    if comparison.margin is None:
        return ""
    loss = _loss(comparison)
    kept, lost = f"not worse by more than {loss}", f"a loss of {loss} is not ruled out"
    said = comparison.conclusion
    return {"not worse": kept, "not shown": lost}.get(said, said)


def _but(comparison: Comparison) -> str:
    return ", but fragile" if comparison.fragility.fragile else ""


def rates_title(comparison: Comparison) -> str:
    """What became of the primary metric, as levels."""
    name, old, new = primary_levels(comparison)
    if not comparison.n:
        return "No examples were answered by both models"
    words = f"goes from {old} to {new}, {against(comparison) or 'no difference shown'}"
    if comparison.verdict in _SHOWN and (
        comparison.margin is None or comparison.conclusion in _SHOWN
    ):
        words = f"{'rises' if comparison.verdict == 'better' else 'falls'} from {old} to {new}"
    return f"{name.capitalize()} {words}{_but(comparison)}"


def rates_alt(comparison: Comparison) -> str:
    """Both models' levels on every metric, in sentences."""
    told = [f"{rates_title(comparison)}."]
    for name in comparison.tests:
        old, new = (
            level(one.by_metric.get(name)) for one in (comparison.base, comparison.fine_tuned)
        )
        told.append(f"{sentence(label(name))}: base {old} and fine-tuned {new}.")
    return " ".join(told)


def differences_title(comparison: Comparison) -> str:
    """How many metrics are better, worse, or neither."""
    if not comparison.n:
        return "No examples, so no differences"
    by: dict[str, list[str]] = {}
    for name, verdict in metric_verdicts(comparison).items():
        by.setdefault(verdict, []).append(label(name))
    parts = [f"{name} is {against(comparison)}" for name in by.pop("not worse", [])]
    parts += [f"{against(comparison)} in {name}" for name in by.pop("not shown", [])]
    for word in ("better", "worse"):
        if names := by.pop(word, []):
            parts.append(f"{listed(names)} {_are(len(names))} {word}")
    if rest := [name for names in by.values() for name in names]:
        parts.append(f"no difference shown in {listed(rest)}")
    return f"{sentence('; '.join(parts))}{_but(comparison)}"


def differences_alt(comparison: Comparison) -> str:
    """Every metric's difference and verdict, in sentences."""
    said, tests = metric_verdicts(comparison), comparison.tests.items()
    parts = [f"{sentence(label(name))}: {said[name]}, {size(test)}." for name, test in tests]
    return " ".join([f"{differences_title(comparison)}.", *parts])


def cells_title(cells: Mapping[str, int], noun: str = "example") -> str:
    """The four cells in words.

    Example:
        >>> cells_title({"both_right": 2, "fixed": 65, "regressed": 7, "both_wrong": 226})
        '65 examples fixed, 7 regressed, 226 still wrong'
    """
    if not sum(cells.values()):
        return "No examples to count"
    regressed, wrong = count(cells["regressed"]), count(cells["both_wrong"])
    return f"{plural(cells['fixed'], noun)} fixed, {regressed} regressed, {wrong} still wrong"


def similarity_title(comparison: Comparison) -> str:
    """Whether answers moved towards the expected text."""
    test = comparison.tests.get("similarity")
    if test is None or test.estimate is None:
        return "No answers to compare with the expected text"
    # adjusted, as everywhere
    verdict, scale = (
        metric_verdicts(comparison)["similarity"],
        scale_of(test),
    )
    if verdict not in _SHOWN:
        return f"No shift in similarity shown ({amount(test.estimate, scale)})"
    way = "closer to" if verdict == "better" else "away from"
    return f"Answers moved {amount(test.estimate, scale, sign=False)} {way} the expected text"


def scatter_title(comparison: Comparison, metric: str) -> str:
    """How many answers came closer and how many moved away, and whether that is more than chance."""
    diffs = [diff for one in comparison.pairs if (diff := one.diff(metric)) is not None]
    if not diffs:
        return "No answers to compare"
    closer, away = (sum(diff * sign > 1e-9 for diff in diffs) for sign in (1, -1))
    moved = f"{plural(closer, 'answer')} came closer, {count(away)} moved away"
    told = f"{moved}, {count(len(diffs) - closer - away)} stayed"
    shown = metric_verdicts(comparison).get(metric) in _SHOWN
    return told if shown else f"{told}: no difference shown"


def spread_title(comparison: Comparison, field: str) -> str:
    """Whether answers took more time or tokens, by the paired differences of the examples."""
    what, unit = measured(field)
    options = {"alpha": comparison.alpha, "clustered": comparison.clustered}
    test = taken_test(comparison.pairs, field, **options)
    if test.estimate is None:
        return f"No {what} was recorded for both models"
    ends = wording.interval(test.ci_low, test.ci_high, scale="number", alpha=test.alpha)
    change = f"{wording.signed(test.estimate)} {unit} an answer ({ends})"
    if test.verdict not in _SHOWN:
        return f"No difference in {what} shown: {change}"
    return f"{sentence(what)} {'rises' if test.estimate > 0 else 'falls'}: {change}"


def spread_alt(comparison: Comparison, field: str) -> str:
    """The difference by example, and the medians of both models."""
    unit, medians = measured(field)[1], []
    for role in ("base", "fine_tuned"):
        taken = (getattr(getattr(one, role), field) for one in comparison.pairs)
        if (middle := quantile(taken, 0.5)) is not None:
            medians.append(f"{role.replace('_', '-')} {count(middle)} {unit}")
    told = f" Median: {listed(medians)}." if medians else ""
    return f"{spread_title(comparison, field)}.{told}"


def slices_title(table: SliceTable) -> str:
    """Which slices lost, and which of them is the worst."""
    if not len(table):
        return "No slices were declared"
    name, of = label(table.metric), plural(len(table), "slice")
    better = [row for row in table if row.verdict == "better"]
    if table.worse:
        worst = " and on ".join(examples_of(row.slice) for row in table.worse)
        return f"{name.capitalize()} falls on {worst}"
    if table.margin and table.rows[0].question == "no_worse":
        kept = sum(row.verdict == "better" or row.safety == "not worse" for row in table)
        loss = wording.loss(table.margin, scale_of(table.rows[0].test))
        told = f"{kept or 'none'} of {of} {_are(kept or 1)} shown"
        return f"{sentence(told)} not worse by more than {loss} on {name}"
    n = len(better)
    return f"No slice shown worse on {name}; {n or 'none'} of {of} {_are(n or 1)} better"


def slices_alt(table: SliceTable) -> str:
    """Every slice in a sentence."""
    told = [slice_sentence(row, table.metric) for row in table]
    return " ".join([f"{slices_title(table)}.", *told])


def slices_caption(table: SliceTable) -> str:
    """What the table of slices holds, and what its last column is the price of."""
    shown = "the difference"
    if table.margin:
        shown = f"it no worse than {points(table.margin, sign=False)} points, or worse"
    told = f"shows {shown}, with power {table.rows[0].wanted_chance:.0%} at the rates seen"
    folded = "".join(
        f"; {name} has {count(n)} values: the largest are shown, the rest together"
        for name, n in table.folded.items()
    )
    return f"Every slice, {label(table.metric)}{folded}; to settle it: {told}"


def _levels(row: SliceRow) -> str:
    old, new = (wording.level(r, scale_of(row.test)) for r in (row.base_rate, row.fine_tuned_rate))
    return f"{old} to {new}"


def adjusted_p(row: SliceRow) -> str:
    """The p of a slice that decides."""
    return "no test" if row.p_adjusted is None else f"adjusted p {p_phrase(row.p_adjusted)}"


def slice_sentence(row: SliceRow, metric: str) -> str:
    """One slice in full: level, difference, interval, adjusted p, and what would settle it."""
    if row.estimate is None:
        return f"{row.slice}: nothing known."
    change = f"{wording.effect(row.test).removesuffix(')')}; {adjusted_p(row)})"
    where = f"{row.slice}, {_examples(row.n)}{', few' if row.few else ''}"
    told = f"{where}: {label(metric)} {_levels(row)}, {slice_verdict(row)}, {change}."
    if not row.n_to_settle:
        return told
    more = f"about {count(row.n_to_settle - row.n)} more such examples"
    return f"{told} To settle this: {more}, enough {times(row.wanted_chance)}."


def slice_verdict(row: SliceRow) -> str:
    """A slice's verdict, and where it is none of better and worse, how it stands against the margin.

    Example: "no difference shown; could not have been seen: would have found a loss of 5.0 points 4 times in 10".
    """
    verdict, standing = row.verdict, row.standing
    if standing is None or verdict != "no difference shown":
        return verdict
    scale = scale_of(row.test)
    if row.question == "no_worse":
        loss = wording.loss(row.margin, scale)
        if standing == "shown safe":
            return f"not worse by more than {loss}"
        verdict = f"a loss of {loss} is not ruled out"
    if standing != "could not have been seen" or row.chance_to_see is None:
        return f"{verdict}; {standing}"
    found = f"a loss of {amount(row.margin, scale, sign=False)} {times(row.chance_to_see)}"
    return f"{verdict}; {standing}: would have found {found}"


def noise_title(noise: NoiseFloor | None) -> str:
    """How often the same question got another answer."""
    if noise is None or not noise.n:
        return "The noise floor was not measured"
    flips = {role: one.flip_rate for role, one in noise.by_model.items()}
    parts = [f"{role}: {wording.share(one.successes, one.n)}" for role, one in flips.items()]
    return f"Asked twice, the verdict on an answer changed for {listed(parts)}"


def detects(comparison: Comparison, n: int) -> float | None:
    """What n examples find at this run's disagreement: the smallest difference, or the smallest loss that is ruled out."""
    share = comparison.disagreement
    if not share or not n:
        return None
    found = stats.detectable_difference if comparison.margin is None else stats.detectable_margin
    return found(n, share, alpha=comparison.alpha, power=comparison.declared.power)


def detectable_title(comparison: Comparison, detectable: float | None) -> str:
    """What this test set could have found in right or wrong answers, against what was seen."""
    cells, often = comparison.cells, times(comparison.declared.power)
    n, name = sum(cells.values()), label(comparison.status_metric)
    if not n:
        return "No example is right or wrong, so nothing can be found"
    if not comparison.disagreement:
        return f"The models were right on the same {_examples(n)}: nothing to size a test set by"
    if detectable is None:
        so_large = "a difference as large as the models' disagreement"
        return f"{_examples(n)} do not find even {so_large} {often}"
    least = f"{points(detectable, sign=False)} points or more in {name} {often}"
    if comparison.margin is not None:
        out = f"{_examples(n)} rule out a loss of {least} when the models are truly alike"
        return f"{out}; the margin is {_loss(comparison)}"
    saw = points(abs(cells["fixed"] - cells["regressed"]) / n, sign=False)
    return f"{_examples(n)} find a difference of {least}; {saw} were seen"


def detectable_alt(comparison: Comparison) -> str:
    """What this many examples find, in a sentence."""
    return f"{detectable_title(comparison, detects(comparison, comparison.n))}."


def examples_title(counts: Mapping[str, int], shown: int) -> str:
    """How many examples of each status there are, and how many of them the table shows.

    Example:
        >>> examples_title({"fixed": 39}, 10)
        '10 of the 39 examples that were fixed'
    """
    known = {status: n for status, n in counts.items() if n}
    n = sum(known.values())
    if not known:
        return "No examples"
    if set(known) == {"fixed"}:
        return f"{count(shown)} of the {_examples(n)} that were fixed"
    worse = set(known) == {"regressed"}
    rest = f"; the {count(shown)} with the largest loss" if worse else f"; the first {count(shown)}"
    told = listed([f"{count(one)} {status}" for status, one in known.items()])
    head = f"{_examples(n)} got worse" if worse else f"{_examples(n)}: {told}"
    return f"{head}{rest if shown < n else ''}"


def benchmark_answer(comparison: Comparison, chance_rate: float | None = None) -> str:
    """The chapter's answer: verdict, size, interval, p last; then the chance level and what is fragile."""
    if not comparison.n:
        return "Nothing can be said: no example was answered by both models."
    name, old, new = primary_levels(comparison)
    test, cells = comparison.primary, comparison.cells
    if test.estimate is None:
        return f"Nothing can be said: {name} is not known of any example.{_open_ended(comparison)}"
    p_value = f"p {p_phrase(test.p_decides)}"
    if comparison.n_compared > 1:
        p_value += f" adjusted for {comparison.n_compared} models compared"
    told = f"{_head(comparison, name)}: {old} to {new} over {_examples(test.n)}"
    told += f", {wording.effect(test).removesuffix(')')}, {p_value})"
    if sum(cells.values()):  # a score says neither: nothing was counted
        told += f"; {_examples(cells['fixed'])} fixed, {count(cells['regressed'])} regressed"
        if comparison.status_metric != comparison.primary_metric:
            told += f" by {label(comparison.status_metric)}"
    lines = [f"{told}."]
    if comparison.noninferiority is not None:
        lines.append(f"Against the margin it is {_margin(comparison.noninferiority)}.")
    tuned = comparison.fine_tuned.by_metric.get("exact_match")
    if chance_rate is not None and tuned and tuned.ci_low <= chance_rate:
        rate = percent(chance_rate)
        lines.append(
            f"But its exact match is not above the {rate} of picking one candidate at random."
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


def _head(comparison: Comparison, name: str) -> str:
    """The answer in a clause."""
    asked, said = comparison.margin is not None, comparison.conclusion
    who = "The replacement" if asked else "The fine-tuned model"
    if said in _SHOWN:
        return f"{who} is {said} on {name}"
    if not asked:
        return f"No difference between the models is shown on {name}"
    if said == "not worse":
        return f"{who} is {against(comparison)} on {name}"
    left = f"a loss of {_loss(comparison)} on {name} is not ruled out"
    return f"Not shown that the replacement is no worse: {left}"


def _margin(test: NonInferiorityTest) -> str:
    scale, safe = scale_of(test), test.verdict == "not worse"
    margin = amount(test.margin, scale, sign=False).removesuffix(" points")
    worst = f"lower limit {amount(test.ci_low, scale)}, margin {wording.MINUS}{margin}"
    if test.lower_is_better:
        worst = f"upper limit {amount(test.ci_high, scale)}, margin +{margin}"
    return f"{'not worse' if safe else 'not shown to be safe'} ({worst})"


def asked(comparison: Comparison, base_model: str, fine_tuned_model: str) -> str:
    """Who was compared on what, and what was left out."""
    answered = outcomes(comparison)
    whole = all(set(one) <= {"ok"} for one in answered.values())
    told = "answered." if whole else f"were asked. {truncated(answered)}"
    who = f"{base_model} against {fine_tuned_model} on {_examples(comparison.n)}"
    return " ".join([f"{who} both {told}", *comparison.notes])


def outcomes(comparison: Comparison) -> dict[str, Mapping[str, int]]:
    """Answers by outcome for both models."""
    return {"base": comparison.base.outcomes, "fine-tuned": comparison.fine_tuned.outcomes}


def sent(declared: Mapping[str, Mapping[str, object]]) -> str:
    """How the two models were asked differently; "" when they were asked alike.

    Example:
        >>> sent({"base": {"temperature": 0.0}, "fine_tuned": {"reasoning_effort": "low"}})
        'Asked differently: temperature 0.0 of base, none of fine-tuned; reasoning effort none of base, low of fine-tuned.'
    """
    base, tuned = declared.get("base", {}), declared.get("fine_tuned", {})
    told = []
    for name in {**base, **tuned}:
        both = base.get(name), tuned.get(name)
        old, new = ("none" if one in (None, "") else str(one)[:200] for one in both)
        if both[0] != both[1]:
            told.append(f"{label(name)} {old} of base, {new} of fine-tuned")
    return f"Asked differently: {'; '.join(told)}." if told else ""


def truncated(outcomes: Mapping[str, Mapping[str, int]]) -> str:
    """What became of answers that were cut off or failed, by role; they count as wrong.

    Example:
        >>> truncated({"base": {"ok": 213, "truncated": 87}, "fine-tuned": {"ok": 300}})
        'Counted as wrong: base 87 truncated; fine-tuned none.'
    """
    parts = []
    for role, counts in outcomes.items():
        bad = [f"{count(n)} {word}" for word, n in counts.items() if word != "ok" and n]
        parts.append(f"{role} {listed(bad) or 'none'}")
    return f"Counted as wrong: {'; '.join(parts)}."


def thoughts(costs: Mapping[str, JsonObject]) -> str:
    """How many answers came after thoughts, and what these took; "" when there were none.

    Example:
        >>> thoughts({"base": {"with_thoughts": 0, "answers": 9, "thoughts_scored": 0},
        ...     "fine_tuned": {"with_thoughts": 9, "answers": 9, "thinking_tokens": 720, "completion_tokens": 900,
        ...     "thoughts_scored": 0}})
        'Thoughts, kept in the journal and not scored: base none; fine-tuned before 9 of 9 answers, 720 of 900 tokens out.'
    """
    told, scored = [], []
    for role, one in costs.items():
        name, n, tokens = (
            role.replace("_", "-"),
            one.get("with_thoughts"),
            one.get("thinking_tokens"),
        )
        took, whole = "tokens not known", one.get("completion_tokens")
        if tokens is not None:
            of = "" if whole is None else f" of {count(whole)}"
            took = f"{count(tokens)}{of} tokens out"
        before = f"before {count(n or 0)} of {plural(one['answers'], 'answer')}, {took}"
        told.append(f"{name} {before if n else 'none'}")
        if in_answers := one.get("thoughts_scored"):
            scored.append(f"{name} {count(in_answers)}")
    lines = []
    if any(one.get("with_thoughts") for one in costs.values()):
        lines.append(f"Thoughts, kept in the journal and not scored: {'; '.join(told)}.")
    if scored:
        lines.append(
            f"Answers in which thoughts still stand, scored with them: {'; '.join(scored)}; "
            "leave strip_think true and ask these afresh."
        )
    return " ".join(lines)


def chance(
    comparison: Comparison, rate: float | None, choice: str = "picking one candidate at random"
) -> str:
    """The chance level beside both models, or that none was declared."""
    if rate is None:
        return "No chance level was declared for this study."
    told = []
    for role, side in (("base", comparison.base), ("fine-tuned", comparison.fine_tuned)):
        one = side.by_metric.get("exact_match")
        if one is None or one.estimate is None:
            told.append(f"the {role} model has no examples")
            continue
        above, below = one.ci_low > rate, one.ci_high < rate
        place = "is above it" if above else "is below it" if below else "cannot be told from it"
        ends = wording.interval(one.ci_low, one.ci_high, scale="percent")
        told.append(f"the {role} model {place} ({percent(one.estimate)}, {ends})")
    return f"{sentence(choice)} would reach {percent(rate)} exact match: {listed(told)}."


def rewarded_by_accident(metrics: Iterable[str]) -> str:
    """What each metric rewards without meaning to; "" when that is known of none of them."""
    known = dict.fromkeys(_BY_ACCIDENT[name] for name in metrics if name in _BY_ACCIDENT)
    return f"What the metrics reward by accident: {'; '.join(known)}." if known else ""


def footnotes(comparison: Comparison) -> str:
    """What else the tests say: exact p, the test that ignores clusters, the margin, failed calls."""
    primary, name, lines = comparison.primary, comparison.primary_metric, []
    if primary.p_exact is not None:
        test = "McNemar p" if hasattr(primary, "fixed") else "sign-flip p"
        lines.append(f"Exact {test} of the primary metric {p_phrase(primary.p_exact)}.")
    if beside := comparison.beside.get(name):
        flatters = (beside.p_value or 0) < (primary.p_value or 0)
        more = ": too optimistic" if flatters else ", which is not valid here"
        p_value = wording.p_text(beside.p_value)
        lines.append(f"Without regard to shared sources, p would be {p_value}{more}.")
    if comparison.noninferiority is not None:
        lines.append(f"Against the declared margin it is {_margin(comparison.noninferiority)}.")
    notes = [f"{sentence(one).rstrip('.')}." for one in primary.notes]
    return " ".join([*lines, str(comparison.fragility), *notes])


def settle(comparison: Comparison) -> str:
    """What it would take to settle the primary question at the size and disagreement seen."""
    test, power = comparison.primary, comparison.declared.power
    if test.estimate is None:
        return "Nothing was seen from which a number of examples could be worked out."
    if comparison.conclusion in {*_SHOWN, "not worse"}:
        said = effect(test)
        if comparison.conclusion == "not worse":
            said = f"{against(comparison)}, {wording.effect(test)}"
        return f"The question is settled for {label(comparison.primary_metric)}: {said}."
    if n := needed(comparison, power):
        return f"To settle this you need {more_examples(comparison, n, power)}."
    if comparison.margin:
        return "The loss seen is as large as the margin: no number of examples would show it safe at the rates seen."
    return "No difference at all was seen: no number of examples would settle a difference of zero."


def regression_answer(
    tables: Sequence[SliceTable], noise: NoiseFloor | None, n_regressed: int
) -> str:
    """The second chapter's answer: how many, where, what would settle the rest, and whether they hold."""
    n_worse = _examples(n_regressed) if n_regressed else "no example"
    lines = [sentence(f"{n_worse} got worse.")]
    if noise and noise.by_model and not any(one.flip_rate.n for one in noise.by_model.values()):
        lines = ["Nothing is right or wrong here, so no example can be shown to have got worse."]
    first, others = (tables[0], tables[1:]) if tables else (None, ())
    if first and len(first):
        lines += [_lost(row, first.metric) for row in first.worse] or [_none_worse(first)]
    elsewhere = [
        f"{label(table.metric)} on {listed([_lost_here(row) for row in table.worse])}"
        for table in others
        if table.worse
    ]
    if elsewhere:
        lines.append(f"Also shown worse: {'; '.join(elsewhere)}.")
    lacking = [(row, row.n_to_settle - row.n) for row in first or () if row.n_to_settle]
    if lacking:
        often = times(lacking[0][0].wanted_chance)
        more = [f"about {count(n)} more {examples_of(row.slice, n)}" for row, n in lacking]
        lines.append(f"To settle the other slices {often}: {listed(more)}.")
    return " ".join([*lines, _held(noise)])


def _none_worse(table: SliceTable) -> str:
    if table.margin and table.rows[0].question == "no_worse":
        return f"{slices_title(table)}."
    return "No declared slice is shown worse on the primary metric."


def _lost(row: SliceRow, metric: str) -> str:
    change = wording.effect(row.test).replace(" (", ", ", 1).removesuffix(")")
    where = f"Worse on {examples_of(row.slice)}: {label(metric)} falls from {_levels(row)}"
    return f"{where} over {_examples(row.n)} ({change}, {adjusted_p(row)})."


def _lost_here(row: SliceRow) -> str:
    return f"{examples_of(row.slice)} ({amount(row.estimate, scale_of(row.test))})"


def _held(noise: NoiseFloor | None) -> str:
    if noise is None or not noise.n:
        return "Whether the regressions hold when asked again was not measured."
    n = Counter(noise.marks.values())
    if not n["flips"] + n["stable"]:
        return "No regression was asked again."
    return f"Asked again, {n['flips']} of {plural(n['flips'] + n['stable'], 'regression')} flipped."


def marks(noise: NoiseFloor) -> str:
    """What became of the regressions when they were asked again."""
    if not noise.marks:
        return "There is no regression to ask again."
    n = Counter(noise.marks.values())
    told = f"Of {plural(n.total(), 'regression')}: {listed([f'{n[one]} {one}' for one in MARKS])}."
    if not noise.n_gone:
        return told
    return f"{told} Of the stable ones {noise.n_gone} are no regression on this machine."


def handed_on(record: Evidence | None) -> str:
    """Whether this chapter's findings reached the benchmark's record."""
    if record is None:
        return "Not added to comparison.json: the benchmark chapter has not written it for these answers; run it first."
    prices = [f"{one.action}: {one.price}" for one in record.missing]
    return f"Missing: {'; '.join(prices)}." if prices else "No undecided slice needs more examples."
