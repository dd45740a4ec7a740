"""Sentences computed from the benchmark's results: titles, answers, alternative texts. Never typed by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.stats.result import Result, which_way

if TYPE_CHECKING:
    from evalkit.benchmark.comparison import Comparison
    from evalkit.benchmark.doctor import Checkup
    from evalkit.benchmark.noise import NoiseFloor
    from evalkit.benchmark.slices import SliceRow, SliceTable
    from evalkit.records import Evidence

_LABELS = {
    "exact_match": "exact match",
    "format": "format",
    "normalised_exact": "normalised exact match",
}


def label(metric: str) -> str:
    """A metric's name in words.

    Example:
        >>> label("all_lines_present")
        'all lines present'
    """
    return _LABELS.get(metric, metric.replace("_", " "))


def effect(test: Result) -> str:
    """Verdict, size and interval in one phrase; the interval is never left out.

    Example:
        >>> from evalkit.stats import paired_binary_test
        >>> effect(paired_binary_test(250, 10, 8, 32))
        'no difference shown, +0.7 points (95% interval −2.3 to +3.7)'
    """
    if test.estimate is None:
        return "nothing can be said, no examples"
    if test.verdict in {"better", "worse"}:
        return f"{test.verdict} by {wording.effect(test, sign=False)}"
    return f"{test.verdict}, {wording.effect(test)}"


def rates_title(comparison: Comparison) -> str:
    """What became of the primary metric, as levels."""
    name, old, new = primary_levels(comparison)
    if not comparison.n:
        return "No examples were answered by both models"
    shown = comparison.margin is None or comparison.conclusion in {"better", "worse"}
    change = {"better": "rises", "worse": "falls"}.get(comparison.verdict) if shown else None
    words = (
        f"{change} from {old} to {new}"
        if change
        else f"goes from {old} to {new}, {against(comparison) or 'no difference shown'}"
    )
    return f"{name.capitalize()} {words}{_fragile(comparison)}"


def against(comparison: Comparison) -> str:
    """The answer where the question is "no worse", as the end of a sentence; "" where it is another.

    Example: "not worse by more than 2 points", "a loss of 2 points is not ruled out".
    """
    if comparison.margin is None:
        return ""
    loss = wording.loss(comparison.margin, wording.scale_of(comparison.primary))
    said = {
        "not worse": f"not worse by more than {loss}",
        "not shown": f"a loss of {loss} is not ruled out",
    }
    return said.get(comparison.conclusion, comparison.conclusion)


def differences_title(comparison: Comparison) -> str:
    """How many metrics are better, worse, or neither."""
    if not comparison.n:
        return "No examples, so no differences"
    by: dict[str, list[str]] = {}
    for name, verdict in metric_verdicts(comparison).items():
        by.setdefault(verdict, []).append(label(name))
    kept, lost = by.pop("not worse", []), by.pop("not shown", [])
    parts = [f"{name} is {against(comparison)}" for name in kept]
    parts += [f"{against(comparison)} in {name}" for name in lost]
    parts += [
        f"{wording.listed(by[word])} {_are(len(by[word]))} {word}"
        for word in ("better", "worse")
        if word in by
    ]
    rest = [name for word, names in by.items() if word not in {"better", "worse"} for name in names]
    parts += [f"no difference shown in {wording.listed(rest)}"] if rest else []
    return f"{sentence('; '.join(parts))}{_fragile(comparison)}"


def metric_verdicts(comparison: Comparison) -> dict[str, str]:
    """Every metric's verdict: the primary's on what was asked, the others by p adjusted over them (Holm)."""
    said = {
        name: verdict_by(test, comparison.p_adjusted.get(name, test.p_decides))
        for name, test in comparison.tests.items()
    }
    if comparison.margin is None:
        return said
    return said | {comparison.primary_metric: comparison.conclusion}


def cells_title(cells: Mapping[str, int], noun: str = "example") -> str:
    """The four cells in words.

    Example:
        >>> cells_title({"both_right": 2, "fixed": 65, "regressed": 7, "both_wrong": 226})
        '65 examples fixed, 7 regressed, 226 still wrong'
    """
    if not sum(cells.values()):
        return "No examples to count"
    fixed = f"{wording.plural(cells['fixed'], noun)} fixed"
    return f"{fixed}, {wording.count(cells['regressed'])} regressed, {wording.count(cells['both_wrong'])} still wrong"


def similarity_title(comparison: Comparison) -> str:
    """Whether answers moved towards the expected text."""
    test = comparison.tests.get("similarity")
    if test is None or test.estimate is None:
        return "No answers to compare with the expected text"
    scale = wording.scale_of(test)
    verdict = metric_verdicts(comparison)["similarity"]  # adjusted, as everywhere else
    if verdict not in {"better", "worse"}:
        return f"No shift in similarity shown ({wording.amount(test.estimate, scale)})"
    way = "closer to" if verdict == "better" else "away from"
    moved = wording.amount(test.estimate, scale, sign=False)
    return f"Answers moved {moved} {way} the expected text"


def spread_title(comparison: Comparison, field: str) -> str:
    """Whether answers took more time or tokens, by the paired differences of the examples."""
    from evalkit.answers.pairs import taken_test

    what, unit = measured(field)
    options = {"alpha": comparison.alpha, "clustered": comparison.clustered}
    test = taken_test(comparison.pairs, field, **options)
    if test.estimate is None:
        return f"No {what} was recorded for both models"
    ends = wording.interval(test.ci_low, test.ci_high, scale="number", alpha=test.alpha)
    size = f"{wording.signed(test.estimate)} {unit} an answer ({ends})"
    if test.verdict not in {"better", "worse"}:
        return f"No difference in {what} shown: {size}"
    return f"{sentence(what)} {'rises' if test.estimate > 0 else 'falls'}: {size}"


def slices_title(table: SliceTable) -> str:
    """Which slices lost, and which of them is the worst."""
    if not len(table):
        return "No slices were declared"
    better = sum(row.verdict == "better" for row in table)
    if table.worse:
        worst = [wording.examples_of(row.slice) for row in table.worse]
        return f"{label(table.metric).capitalize()} falls on {' and on '.join(worst)}"
    if table.margin and table.rows[0].question == "no_worse":
        kept = sum(row.verdict == "better" or row.safety == "not worse" for row in table)
        loss = wording.loss(table.margin, wording.scale_of(table.rows[0].test))
        of = f"{kept or 'none'} of {wording.plural(len(table), 'slice')}"
        return f"{sentence(of)} {_are(kept or 1)} shown not worse by more than {loss} on {label(table.metric)}"
    gains = (
        f"{better or 'none'} of {wording.plural(len(table), 'slice')} {_are(better or 1)} better"
    )
    return f"No slice shown worse on {label(table.metric)}; {gains}"


def slices_caption(table: SliceTable) -> str:
    """What the table of slices holds, and what its last column is the price of."""
    margin = (
        f"it no worse than {wording.points(table.margin, sign=False)} points, or worse"
        if table.margin
        else "the difference"
    )
    told = f"shows {margin}, with power {table.rows[0].wanted_chance:.0%} at the rates seen"
    folded = "".join(
        f"; {name} has {wording.count(n)} values: the largest are shown, the rest together"
        for name, n in table.folded.items()
    )
    return f"Every slice, {label(table.metric)}{folded}; to settle it: {told}"


def slice_sentence(row: SliceRow, metric: str) -> str:
    """One slice in full: level, difference, interval, adjusted p, and what would settle it."""
    if row.estimate is None:
        return f"{row.slice}: nothing known."
    scale = wording.scale_of(row.test)
    old, new = wording.level(row.base_rate, scale), wording.level(row.fine_tuned_rate, scale)
    p_text = (
        "no test" if row.p_adjusted is None else f"adjusted p {wording.p_phrase(row.p_adjusted)}"
    )
    more = (
        f" To settle this: about {wording.count(row.n_to_settle - row.n)} more such examples, "
        f"enough {wording.times(row.wanted_chance)}."
        if row.n_to_settle
        else ""
    )
    size = f"{wording.effect(row.test).removesuffix(')')}; {p_text})"
    small = ", few" if row.few else ""
    where = f"{row.slice}, {wording.plural(row.n, 'example')}{small}"
    return f"{where}: {label(metric)} {old} to {new}, {slice_verdict(row)}, {size}.{more}"


def slice_verdict(row: SliceRow) -> str:
    """A slice's verdict, and where it is none of better and worse, how it stands against the margin.

    Example: "no difference shown; could not have been seen: would have found a loss of 5.0 points 4 times in 10".
    """
    if row.standing is None or row.verdict != "no difference shown":
        return row.verdict
    verdict = row.verdict
    if row.question == "no_worse":
        loss = wording.loss(row.margin, wording.scale_of(row.test))
        if row.standing == "shown safe":
            return f"not worse by more than {loss}"
        verdict = f"a loss of {loss} is not ruled out"
    if row.standing != "could not have been seen" or row.chance_to_see is None:
        return f"{verdict}; {row.standing}"
    loss = wording.amount(row.margin, wording.scale_of(row.test), sign=False)
    found = f"would have found a loss of {loss} {wording.times(row.chance_to_see)}"
    return f"{verdict}; {row.standing}: {found}"


def noise_title(noise: NoiseFloor | None) -> str:
    """How often the same question got another answer."""
    if noise is None or not noise.n:
        return "The noise floor was not measured"
    parts = [
        f"{role}: {wording.share(one.n_changed, one.flip_rate.n)}"
        for role, one in noise.by_model.items()
    ]
    return f"Asked twice, the verdict on an answer changed for {wording.listed(parts)}"


def scatter_title(comparison: Comparison, metric: str) -> str:
    """How many answers came closer and how many moved away, and whether that is more than chance."""
    diffs = [diff for one in comparison.pairs if (diff := one.diff(metric)) is not None]
    if not diffs:
        return "No answers to compare"
    closer, away = (sum(diff * sign > 1e-9 for diff in diffs) for sign in (1, -1))
    same = wording.count(len(diffs) - closer - away)
    told = f"{wording.plural(closer, 'answer')} came closer, {wording.count(away)} moved away, {same} stayed"
    shown = metric_verdicts(comparison).get(metric) in {"better", "worse"}
    return told if shown else f"{told}: no difference shown"


def detects(comparison: Comparison, n: int) -> float | None:
    """What n examples find at this run's disagreement: the smallest difference, or the smallest loss that is ruled out."""
    from evalkit import stats

    share = comparison.disagreement
    level = {"alpha": comparison.alpha, "power": comparison.declared.power}
    if not share or not n:
        return None
    if comparison.margin is None:
        return stats.detectable_difference(n, share, **level)
    return stats.detectable_margin(n, share, **level)


def detectable_title(comparison: Comparison, detectable: float | None) -> str:
    """What this test set could have found in right or wrong answers, against what was seen."""
    cells = comparison.cells
    n, often = sum(cells.values()), wording.times(comparison.declared.power)
    if not n:
        return "No example is right or wrong, so nothing can be found"
    if not comparison.disagreement:
        return f"The models were right on the same {wording.plural(n, 'example')}: nothing to size a test set by"
    if detectable is None:
        return (
            f"{wording.plural(n, 'example')} do not find even a difference as large as the models' disagreement "
            f"{often}"
        )
    if comparison.margin is not None:
        out = f"{wording.plural(n, 'example')} rule out a loss of {wording.points(detectable, sign=False)} points or more"
        return (
            f"{out} in {label(comparison.status_metric)} {often} when the models are truly alike; "
            f"the margin is {wording.loss(comparison.margin, wording.scale_of(comparison.primary))}"
        )
    saw = wording.points(abs(cells["fixed"] - cells["regressed"]) / n, sign=False)
    find = f"{wording.plural(n, 'example')} find a difference of {wording.points(detectable, sign=False)} points or more"
    return f"{find} in {label(comparison.status_metric)} {often}; {saw} were seen"


def primary_levels(comparison: Comparison) -> tuple[str, str, str]:
    """The primary metric's name and both levels."""
    name, scale = comparison.primary_metric, wording.scale_of(comparison.primary)
    sides = (one.by_metric.get(name) for one in (comparison.base, comparison.fine_tuned))
    old, new = (wording.level(None if one is None else one.estimate, scale) for one in sides)
    return label(name), old, new


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def _fragile(comparison: Comparison) -> str:
    return ", but fragile" if comparison.fragility.fragile else ""


def verdict_by(test: Result, p_value: float | None) -> str:
    """The verdict when another, adjusted p decides."""
    if test.estimate is None:
        return "too early"
    if p_value is None or p_value >= test.alpha or test.estimate == 0:
        return "no difference shown"
    return which_way(test.estimate, lower_is_better=test.lower_is_better)


def sentence(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]


def checkup_title(checkup: Checkup) -> str:
    """What the doctor found, and what the size of the set can show."""
    found = checkup.told()
    sees = [
        f"{wording.points(size, sign=False)} points at {share:.0%}"
        for share, size in checkup.detectable.items()
        if size
    ]
    size = f"; it finds {wording.listed(sees)} disagreement, 4 times in 5" if sees else ""
    leaked = any(kind.startswith("leak") for kind in checkup.counts())
    clean = "" if leaked else "; none of them was found in the training file"
    leaks = clean if checkup.train else "; no training file was searched for leaks"
    return f"{wording.plural(checkup.n, 'row')}: {wording.listed(found) if found else 'nothing to mend'}{size}{leaks}"


def rates_alt(comparison: Comparison) -> str:
    """Both models' levels on every metric, in sentences."""
    sides = {"base": comparison.base, "fine-tuned": comparison.fine_tuned}
    levels = {
        name: [f"{role} {level(one.by_metric.get(name))}" for role, one in sides.items()]
        for name in comparison.tests
    }
    parts = [f"{sentence(label(name))}: {wording.listed(both)}." for name, both in levels.items()]
    return " ".join([f"{rates_title(comparison)}.", *parts])


def differences_alt(comparison: Comparison) -> str:
    """Every metric's difference and verdict, in sentences."""
    verdicts = metric_verdicts(comparison)
    parts = [
        f"{sentence(label(name))}: {verdicts[name]}, {size(test)}."
        for name, test in comparison.tests.items()
    ]
    return " ".join([f"{differences_title(comparison)}.", *parts])


def slices_alt(table: SliceTable) -> str:
    """Every slice in a sentence."""
    return " ".join(
        [f"{slices_title(table)}.", *(slice_sentence(row, table.metric) for row in table)]
    )


def spread_alt(comparison: Comparison, field: str) -> str:
    """The difference by example, and the medians of both models."""
    from evalkit.answers.pairs import quantile

    unit = measured(field)[1]
    medians = [
        f"{role.replace('_', '-')} {wording.count(middle)} {unit}"
        for role in ("base", "fine_tuned")
        if (middle := quantile((getattr(getattr(p, role), field) for p in comparison.pairs), 0.5))
        is not None
    ]
    told = f" Median: {wording.listed(medians)}." if medians else ""
    return f"{spread_title(comparison, field)}.{told}"


def measured(field: str) -> tuple[str, str]:
    """What a field of an answer measures, and its unit."""
    return (
        ("latency", "ms")
        if field == "latency_ms"
        else (field.replace("_tokens", " length").replace("_", " "), "tokens")
    )


def level(rate: Result | None) -> str:
    """A rate in percent, a mean with two decimals."""
    if rate is None or rate.estimate is None:
        return wording.NOTHING
    return (
        wording.percent(rate.estimate) if rate.method == "Wilson" else wording.number(rate.estimate)
    )


def size(test: Result) -> str:
    """A difference with its interval, without its unit: "+10.7 (+6.7 to +15.2)"."""
    scale, digits = (
        wording.scale_of(test),
        wording.decimals(test.estimate, test.ci_low, test.ci_high),
    )
    limits = (
        ""
        if test.ci_low is None
        else f" ({wording.limits(test.ci_low, test.ci_high, scale, digits=digits)})"
    )
    return f"{wording.amount(test.estimate, scale, digits=digits).removesuffix(' points')}{limits}"


def regressed_title(n: int, shown: int) -> str:
    """How many examples got worse, and how many of them the table shows."""
    rest = f"; the {wording.count(shown)} with the largest loss" if shown < n else ""
    return f"{wording.plural(n, 'example')} got worse{rest}"


def examples_title(counts: Mapping[str, int], shown: int) -> str:
    """How many examples of each status there are, and how many of them the table shows.

    Example:
        >>> examples_title({"fixed": 39}, 10)
        '10 of the 39 examples that were fixed'
    """
    known = {status: n for status, n in counts.items() if n}
    if not known:
        return "No examples"
    if set(known) == {"regressed"}:
        return regressed_title(known["regressed"], shown)
    n = sum(known.values())
    if set(known) == {"fixed"}:
        return f"{wording.count(shown)} of the {wording.plural(n, 'example')} that were fixed"
    parts = [f"{wording.count(one)} {status}" for status, one in known.items()]
    rest = f"; the first {wording.count(shown)}" if shown < n else ""
    return f"{wording.plural(n, 'example')}: {wording.listed(parts)}{rest}"


def detectable_alt(comparison: Comparison) -> str:
    """What this many examples find, in a sentence."""
    return f"{detectable_title(comparison, detects(comparison, comparison.n))}."


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
    name, old, new = primary_levels(comparison)
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
        changed += f" by {label(comparison.status_metric)}"
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
        return f"{who} is {against(comparison)} on {{name}}"
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
            told.append(f"{label(name)} {first} of base, {second} of fine-tuned")
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
    return f"{sentence(choice)} would reach {level} exact match: {wording.listed(told)}."


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
        lines = [sentence(f"{n_worse} got worse.")]
    first, others = (tables[0], tables[1:]) if tables else (None, ())
    worse = [_loss(row, first.metric) for row in first.worse] if first else []
    none = ["No declared slice is shown worse on the primary metric."] if first else []
    if first and len(first) and first.margin and first.rows[0].question == "no_worse":
        none = [f"{slices_title(first)}."]
    lines += worse or none
    elsewhere = [
        f"{label(table.metric)} on {wording.listed(_losses(table))}"
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
    where = f"Worse on {wording.examples_of(row.slice)}: {label(metric)} falls from {old} to {new}"
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
    return f"{place} ({wording.percent(rate.estimate)}, {wording.interval(rate.ci_low, rate.ci_high, scale='percent')})"


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
            *(f"{sentence(one).rstrip('.')}." for one in primary.notes),
        ]
    )


def settle(comparison: Comparison) -> str:
    """What it would take to settle the primary question at the size and disagreement seen."""
    from evalkit.benchmark.evidence import more_examples
    from evalkit.benchmark.slices import examples_to_settle

    if comparison.primary.estimate is None:
        return "Nothing was seen from which a number of examples could be worked out."
    if comparison.conclusion in {"better", "worse", "not worse"}:
        size = effect(comparison.primary)
        if comparison.conclusion == "not worse":
            size = f"{against(comparison)}, {wording.effect(comparison.primary)}"
        return f"The question is settled for {label(comparison.primary_metric)}: {size}."
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
