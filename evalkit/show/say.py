"""Sentences computed from the benchmark's results: titles, answers, alternative texts. Never typed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from evalkit import wording
from evalkit.stats.result import Result, which_way

if TYPE_CHECKING:
    from evalkit.benchmark.comparison import Comparison
    from evalkit.benchmark.doctor import Checkup
    from evalkit.benchmark.noise import NoiseFloor
    from evalkit.benchmark.slices import SliceRow, SliceTable

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
