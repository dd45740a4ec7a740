"""A comparison shown: each function takes the record and returns the whole figure, table or sentence."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from evalkit import stats, wording
from evalkit.answers.metrics import Metrics, quantile, taken_test
from evalkit.benchmark.benchmark import Costs
from evalkit.benchmark.comparison import Comparison
from evalkit.errors import need_one_of
from evalkit.show import style, tracks
from evalkit.show.figure import picture
from evalkit.show.style import COLOURS
from evalkit.show.tables import Html, Row, answer, joined, note, table
from evalkit.show.tracks import Mark, Track, mark_of
from evalkit.wording import NOTHING, SHOWN, capital, count, label, listed, p_text, percent, plural

MARKS = "Filled: shown. Hollow: not shown. Diamond: worse. Bar: interval."
CELLS = {"fixed": "good", "regressed": "bad", "both right": "ink", "both wrong": "base"}
_COSTS = {  # of a table's columns
    "model": "model",
    "answers": "answers",
    "prompt_tokens": "tokens in",
    "completion_tokens": "tokens out",
    "with_thoughts": "after thoughts",
    "thinking_tokens": "tokens of thoughts",
    "latency_median_ms": "median ms",
    "latency_p95_ms": "95% within ms",
    "money": "money",
    "currency": "currency",
}
ROLES = ("base", "fine_tuned")
_examples = partial(plural, noun="example")


def asked(comparison: Comparison) -> Html:
    """Who was compared on what, how they were asked differently, and what was left out."""
    models, sent = comparison.declared.models, comparison.declared.sent
    whole = all(set(side.outcomes) <= {"ok"} for side in _sides(comparison).values())
    told = "answered." if whole else f"were asked. {wrong(comparison)}"
    who = f"{models['base']} against {models['fine_tuned']} on {_examples(comparison.n)}"
    lines = [f"{who} both {told}", *comparison.notes]
    base, tuned = sent.get("base", {}), sent.get("fine_tuned", {})
    otherwise = []
    for name in {**base, **tuned}:
        both = base.get(name), tuned.get(name)
        old, new = ("none" if one in (None, "") else str(one)[:200] for one in both)
        if both[0] != both[1]:
            otherwise.append(f"{label(name)} {old} of base, {new} of fine-tuned")
    lines += [f"Asked differently: {'; '.join(otherwise)}."] if otherwise else []
    return note(" ".join(lines))


def _sides(comparison: Comparison) -> dict[str, Metrics]:
    return {"base": comparison.base, "fine-tuned": comparison.fine_tuned}


def wrong(comparison: Comparison) -> str:
    """What became of answers that were cut off or failed: "Counted as wrong: base 87 truncated; fine-tuned none."."""
    parts = []
    for role, side in _sides(comparison).items():
        bad = [f"{count(n)} {word}" for word, n in side.outcomes.items() if word != "ok" and n]
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
    for role, side in _sides(comparison).items():
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
    dashed = " The dashed line is the level of picking one candidate at random."
    levels = [
        f"{capital(label(name))}: base {wording.level_of(one.base)} and fine-tuned {wording.level_of(one.fine_tuned)}."
        for name, one in comparison.changes.items()
    ]
    return picture(
        draw_rates,
        comparison,
        title=rates_title(comparison),
        alt=" ".join(levels),
        subline=f"Level of each metric over {_examples(comparison.n)}. "
        "Hollow: base. Filled: fine-tuned. Bar: interval.",
        caption="Wilson intervals for rates, t for means."
        f"{'' if comparison.declared.chance_rate is None else dashed}",
    )


def draw_rates(comparison: Comparison, *, narrow: bool = False) -> Axes:
    """Both levels of each metric, with intervals; the dashed line is the chance level of exact match."""
    rows, at_random = [], comparison.declared.chance_rate
    for name, one in comparison.changes.items():
        under = ["primary metric"] if one.is_primary else []
        if at_random is not None and name == "exact_match":
            under.append(f"at random {percent(at_random, 0)}")
        marks = (*mark_of(one.base, "base"), *mark_of(one.fine_tuned, "fine_tuned"))
        value = f"{wording.level_of(one.base)} → {wording.level_of(one.fine_tuned)}"
        rows.append(
            Track(name=capital(label(name)), under=", ".join(under), marks=marks, value=value)
        )
    ax = tracks.rate_axes(rows, narrow=narrow)
    if at_random is not None and "exact_match" in comparison.tests:
        place = [*comparison.tests].index("exact_match")
        tracks.dashed(ax, at_random, place, narrow=narrow)
    return ax


def rates_title(comparison: Comparison) -> str:
    """What became of the primary metric, as levels."""
    name, test = label(comparison.primary_metric), comparison.primary
    if not comparison.n:
        return "No examples were answered by both models"
    if test.estimate is None:
        return f"{capital(name)} is not known of any example"
    moved = f"from {_primary_levels(comparison)}"
    words = f"goes {moved}, {against(comparison) or 'no difference shown'}"
    if comparison.conclusion in SHOWN:
        words = f"{wording.moves(test.estimate)} {moved}"
    return f"{name.capitalize()} {words}{_but(comparison)}"


def _primary_levels(comparison: Comparison) -> str:
    one = comparison.changes[comparison.primary_metric]
    old, new = (side and side.estimate for side in (one.base, one.fine_tuned))
    return wording.levels(old, new, comparison.primary)


def against(comparison: Comparison) -> str:
    """The answer where the question is "no worse", as the end of a sentence; "" where it is another."""
    if comparison.margin is None:
        return ""
    return wording.against(comparison.conclusion, comparison.margin, comparison.primary)


def _but(comparison: Comparison) -> str:
    return ", but fragile" if comparison.fragility.fragile else ""


def differences(comparison: Comparison) -> Html:
    """Fine-tuned minus base on every metric."""
    changes = [
        f"{capital(label(name))}: {one.verdict}, {wording.size(one.test)}."
        for name, one in comparison.changes.items()
    ]
    methods, margin = wording.methods(comparison.tests.values()), ""
    if comparison.noninferiority is not None:
        lost = wording.loss_of(comparison.noninferiority.margin, comparison.primary)
        margin = f" Dashed: the margin of {lost}, of which the interval must keep clear."
    return picture(
        draw_differences,
        comparison,
        title=differences_title(comparison),
        alt=" ".join(changes),
        subline=f"Fine-tuned minus base, points. {MARKS}",
        caption=f"{methods}; Holm over the metrics that are not primary.{margin}",
    )


def draw_differences(comparison: Comparison, *, narrow: bool = False) -> Axes:
    """Fine-tuned minus base for each metric, with intervals on one scale; the primary metric has its margin."""
    rows, kept = [], comparison.noninferiority
    for name, one in comparison.changes.items():
        under = f"{one.verdict}{', primary metric' if one.is_primary else ''}"
        marks, value = mark_of(one.test, one.verdict), wording.size(one.test)
        rows.append(Track(name=capital(label(name)), under=under, marks=marks, value=value))
    reach = kept.margin if kept else 0.0
    ax = tracks.difference_axes(rows, comparison.tests.values(), reach=reach, narrow=narrow)
    if kept:
        place = [*comparison.tests].index(comparison.primary_metric)
        at = tracks.name_margin(ax, comparison.primary, kept.margin)
        tracks.dashed(ax, at, place, narrow=narrow)
    return ax


def differences_title(comparison: Comparison) -> str:
    """Which metrics are better, worse, or neither."""
    if not comparison.n:
        return "No examples, so no differences"
    by: dict[str, list[str]] = {}
    for name, one in comparison.changes.items():
        said = against(comparison) if one.is_primary else ""
        by.setdefault(said or one.verdict, []).append(label(name))
    parts = [f"{said} in {listed(names)}" for said, names in by.items()]
    return f"{capital('; '.join(parts))}{_but(comparison)}"


def metrics(comparison: Comparison) -> Html:
    """Every metric with its test, and what else the tests say."""
    numeric = ("Base", "Fine-tuned", "Difference (rates: points)", "p")
    title = "Every metric, with its test"
    made = table(metric_rows(comparison), caption=title, numeric=numeric)
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
    primary, lines = comparison.primary, []
    if primary.p_exact is not None:
        test = "McNemar p" if hasattr(primary, "fixed") else "sign-flip p"
        lines.append(f"Exact {test} of the primary metric {wording.p_phrase(primary.p_exact)}.")
    if beside := comparison.beside.get(comparison.primary_metric):
        flatters = (beside.p_value or 0) < (primary.p_value or 0)
        more = ": too optimistic" if flatters else ", which is not valid here"
        lines.append(
            f"Without regard to shared sources, p would be {p_text(beside.p_value)}{more}."
        )
    lines += _kept(comparison)
    notes = [f"{capital(one).rstrip('.')}." for one in primary.notes]
    return " ".join([*lines, str(comparison.fragility), *notes])


def _kept(comparison: Comparison) -> list[str]:
    """How the difference stands against a declared margin, in a sentence; none without one."""
    if (test := comparison.noninferiority) is None:
        return []
    said = "not worse" if test.verdict == "not worse" else "not shown to be safe"
    lost = wording.loss_of(test.margin, test)
    return [f"Against the margin of {lost} it is {said}: {wording.effect(test)}."]


# ---- the examples


def cells(comparison: Comparison) -> Html:
    """Both right, fixed, regressed, both wrong."""
    return picture(
        draw_cells,
        comparison,
        title=cells_title(comparison),
        subline=f"Number of examples, by {label(comparison.status_metric)}.",
        caption="Only the fixed and the regressed examples decide the test; "
        "the other two cells say nothing about the difference.",
    )


def draw_cells(comparison: Comparison, *, narrow: bool = False) -> Axes:
    """A bar a cell, with its number."""
    _, ax = style.canvas(2.4, narrow=narrow)
    counts = [comparison.cells[name.replace(" ", "_")] for name in CELLS]
    colours = [COLOURS[role] for role in CELLS.values()]
    bars = ax.barh([capital(name) for name in CELLS], counts, height=0.6, color=colours)
    ax.bar_label(bars, [count(n) for n in counts], padding=4, fontsize=9.4)
    ax.set(xlim=(0, max([*counts, 1]) * 1.15))
    ax.invert_yaxis()
    ax.xaxis.set_visible(False)
    ax.spines["bottom"].set_visible(False)
    return ax


def cells_title(comparison: Comparison) -> str:
    """The four cells in words: "65 examples fixed, 7 regressed, 226 still wrong"."""
    n = comparison.cells
    if not sum(n.values()):
        return "No examples to count"
    rest = f"{count(n['regressed'])} regressed, {count(n['both_wrong'])} still wrong"
    return f"{_examples(n['fixed'])} fixed, {rest}"


def similarity(comparison: Comparison) -> Html:
    """How close both models' answers are to the expected text."""
    return picture(
        draw_similarity,
        comparison,
        title=similarity_title(comparison),
        alt=str(comparison.fine_tuned),
        subline="Number of examples by similarity to the expected text.",
        caption="Characters in common in the same order, 0 to 1. It measures text, not meaning.",
    )


def draw_similarity(comparison: Comparison, *, narrow: bool = False) -> Axes:
    """How close the answers of both models are."""
    _, ax = style.canvas(2.7 if narrow else 3.0, narrow=narrow)
    found = (
        [getattr(one, f"{role}_values").get("similarity") for one in comparison.pairs]
        for role in ROLES
    )
    sides = {
        role: np.array(values, float)
        for role, values in zip(_sides(comparison), found, strict=True)
    }
    palette = {role: COLOURS[role.replace("-", "_")] for role in sides}
    look = {"multiple": "dodge", "shrink": 0.9, "alpha": 1, "palette": palette}
    if comparison.fine_tuned.avg_similarity is not None:
        sns.histplot(sides, bins=20, binrange=(0, 1), ax=ax, **look)
    ax.set(xlim=(0, 1), xlabel="similarity to the expected text", ylabel="")
    return style.name_above(ax, "examples")


def similarity_title(comparison: Comparison) -> str:
    """Whether answers moved towards the expected text; by an adjusted p, as everywhere."""
    one = comparison.changes.get("similarity")
    if one is None or one.test.estimate is None:
        return "No answers to compare with the expected text"
    return _moved("similarity", one.test.estimate, one.verdict, wording.effect(one.test))


def _moved(what: str, estimate: float, verdict: str, change: str) -> str:
    if verdict not in SHOWN:
        return f"No difference in {what} shown: {change}"
    return f"{capital(what)} {wording.moves(estimate)}: {change}"


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
    rows = [one for one in _taken(comparison, field) if one.marks]
    told = listed([f"{one.name} {one.value}" for one in rows])
    return picture(
        draw_spread,
        comparison,
        field,
        title=spread_title(comparison, field),
        alt=f"Median (middle 90%): {told}." if rows else "",
        subline=f"{what}. The mark is the median, the bar the middle 90%.",
        caption=caption,
    )


def _taken(comparison: Comparison, field: str) -> list[Track]:
    """Latency or tokens of each model's answers: bar from 5% to 95%, the mark is the median."""
    rows = []
    for role in ROLES:
        found = [getattr(getattr(one, role), field) for one in comparison.pairs]
        known = [value for value in found if value is not None]
        low, middle, high = (quantile(known, share) for share in (0.05, 0.5, 0.95))
        marks, value = (), NOTHING
        if low is not None and middle is not None and high is not None:
            marks = (Mark(estimate=middle, low=low, high=high, kind=role),)
            value = f"{count(middle)} ({count(low)} to {count(high)})"
        name, under = role.replace("_", "-").capitalize(), plural(len(known), "answer")
        rows.append(Track(name=name, under=under, marks=marks, value=value))
    return rows


def draw_spread(comparison: Comparison, field: str = "latency_ms", *, narrow: bool = False) -> Axes:
    """Latency or tokens (`field`) of each model's answers."""
    rows = _taken(comparison, field)
    most = max((one.high or 0 for row in rows for one in row.marks), default=1.0) or 1.0
    ticks = tracks.round_ticks(0, most)
    ax = tracks.tracks_axes(rows, (0, most * 1.06), ticks, count, narrow=narrow)
    ax.set_xlabel(f"{wording.measured(field)[1]}, median and the middle 90%")
    return ax


def spread_title(comparison: Comparison, field: str) -> str:
    """Whether answers took more time or tokens, by the paired differences of the examples."""
    what, unit = wording.measured(field)
    options = {"alpha": comparison.alpha, "clustered": comparison.clustered}
    test = taken_test(comparison.pairs, field, **options)
    if test.estimate is None:
        return f"No {what} was recorded for both models"
    ends = wording.interval(test.ci_low, test.ci_high, scale="number", alpha=test.alpha)
    change = f"{wording.signed(test.estimate)} {unit} an answer ({ends})"
    return _moved(what, test.estimate, test.verdict, change)


def costs(found: Costs) -> Html:
    """What the answers took: tokens, time, money; and the thoughts before them, where there were any."""
    rows = [{"model": role.replace("_", "-"), **one} for role, one in found.by_model.items()]
    for row in rows:
        waits = {name: row.get(name) for name in ("latency_median_ms", "latency_p95_ms")}
        row |= {name: ms if ms is None else round(ms) for name, ms in waits.items()}
    thought = any(row.get("with_thoughts") for row in rows)
    columns = {
        k: v for k, v in _COSTS.items() if thought or ("though" not in k and "think" not in k)
    }
    made = table(rows, caption="What the answers took", columns=columns)
    scored = {row["model"]: row["thoughts_scored"] for row in rows if row.get("thoughts_scored")}
    lines = [
        f"{role}: thoughts still stand in {plural(n, 'answer')} and were scored with them; leave strip_think true and ask "
        "these afresh."
        for role, n in scored.items()
    ]
    return joined(made, *map(note, lines))


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
        told = f"Nothing can be said: {name} is not known of any example."
        people = (
            " Nothing is expected of these examples: people decide (human rating), or a metric that needs no right "
            "answer, declared as primary_metric: format, or a scorer of your own."
        )
        return f"{told}{people if comparison.expects_nothing else ''}"
    p_value = f"p {wording.p_phrase(test.p_decides)}"
    if comparison.n_compared > 1:
        p_value += f" adjusted for {comparison.n_compared} models compared"
    told = f"{_head(comparison, name)}: {_primary_levels(comparison)} over {_examples(test.n)}"
    told += f", {wording.effect(test).removesuffix(')')}, {p_value})"
    if sum(cells.values()):  # a score says neither: nothing was counted
        told += f"; {_examples(cells['fixed'])} fixed, {count(cells['regressed'])} regressed"
        if comparison.status_metric != comparison.primary_metric:
            told += f" by {label(comparison.status_metric)}"
    lines = [f"{told}.", *_kept(comparison)]
    rate, tuned = comparison.declared.chance_rate, comparison.fine_tuned.by_metric
    if rate is not None and "exact_match" in tuned and tuned["exact_match"].ci_low <= rate:
        at_random = f"the {percent(rate)} of picking one candidate at random"
        lines.append(f"But its exact match is not above {at_random}.")
    if comparison.fragility.n_errors:
        lines.append(str(comparison.fragility))
    return " ".join(lines)


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
    lost = wording.loss_of(comparison.margin, comparison.primary)
    left = f"a loss of {lost} on {name} is not ruled out"
    return f"Not shown that the replacement is no worse: {left}"


def checkpoints(compared: Mapping[str, Comparison]) -> Html:
    """Every model against the same base, by the p adjusted for their number."""
    if len(compared) < 2:
        return note("This study names no further model.")
    rows = []
    for name, one in compared.items():
        head = {"model": name, "examples": one.n, "difference": wording.size(one.primary)}
        cells = {label(key): n for key, n in one.cells.items()}
        p_value = p_text(one.primary.p_decides)
        rows.append({**head, "adjusted p": p_value, "verdict": one.conclusion, **cells})
    title = f"{len(compared)} models compared with base"
    return table(rows, caption=title, numeric=("difference", "adjusted p"))


def settle(comparison: Comparison) -> str:
    """What it would take to settle the primary question at the size and disagreement seen."""
    test, looks, n = comparison.primary, comparison.extension, comparison.n
    if test.estimate is None:
        return "Nothing was seen from which a number of examples could be worked out."
    if comparison.conclusion in {*SHOWN, "not worse"}:
        effect = wording.stated(test)
        if comparison.conclusion == "not worse":
            effect = f"{against(comparison)}, {wording.effect(test)}"
        return f"The question is settled for {label(comparison.primary_metric)}: {effect}."
    if not (needed := comparison.n_to_settle):
        return "At the rates seen no number of examples would settle the question."
    if looks and not looks.first_look:
        more = f"the second look that was declared: {count(n)} more examples, then first_look: {n}"
        return f"To settle this you need {more}."
    shown = "a difference of the size seen"
    if comparison.margin is not None:
        shown = f"that it is not worse by more than {wording.loss_of(comparison.margin, test)}"
    often = wording.times(comparison.declared.power)
    # testing again with the examples already read is a second look, which needs its own bounds
    how = (
        "test fresh examples alone, or declare `extension: true` before a first look (old and new tested together as if "
        "nobody had looked show a difference in 7 to 10% of studies without one)"
    )
    if looks:
        how = "both looks are done, so test fresh examples alone"
    more = f"about {count(needed - test.n)} more examples, {count(needed)} in all: {often} that shows {shown}"
    return f"To settle this you need {more}, if the rates seen are the true ones; {how}."


def detectable(comparison: Comparison) -> Html:
    """The smallest difference a test set of each size finds, and what would settle the question."""
    what, source = "Smallest difference a test set of each size finds, ", "Connor 1987"
    if comparison.margin is not None:
        what = "Smallest loss a test set of each size rules out between equal models, "
        source = "Nam 1997"
    level = f"two-sided level {comparison.alpha:g}, power {comparison.declared.power:.0%}"
    return picture(
        draw_detectable,
        comparison,
        title=detectable_title(comparison),
        alt=settle(comparison),
        subline=f"{what}at the share of examples on which these two models disagree.",
        caption=f"{source}, {level}. {comparison.fragility}",
    )


def draw_detectable(comparison: Comparison, *, narrow: bool = False) -> Axes:
    """The smallest difference a test set of each size finds, at this run's disagreement; this run is marked."""
    _, ax = style.canvas(2.8 if narrow else 3.0, narrow=narrow)
    n, margin, colour = comparison.n, comparison.margin, COLOURS["fine_tuned"]
    sizes = [int(size) for size in np.unique(np.geomspace(50, max(2000, 2 * n), 60).astype(int))]
    found = {size: at * 100 for size in sizes if (at := _detects(comparison, size)) is not None}
    here, most = _detects(comparison, n), float(sizes[-1])
    if found:
        sns.lineplot(x=[*found], y=[*found.values()], color=colour, errorbar=None, ax=ax)
    if here is not None:
        ax.plot([n], [here * 100], "o", ms=9, mfc=colour, mec=colour)
        text = f"this run: {wording.points(here, sign=False)} points"
        # below the line of a margin, which has its own words
        spot = (8, -14 if margin is not None and here < margin else 6)
        ax.annotate(text, (n, here * 100), spot, textcoords="offset points", fontsize=9)
    if margin is not None:
        tracks.draw_line(ax, "limit", margin * 100, vertical=False)
        if not narrow:  # there the title says it
            text = f"margin: {wording.loss(margin)}"
            tracks.small(ax, most, margin * 100, text, va="bottom", ha="right")
    ax.set(ylim=(0, None), xlim=(0, most))
    ax.grid(axis="y")
    ax.set_xlabel("examples in the test set")
    ax.locator_params(axis="x", nbins=4 if narrow else 8)
    ax.xaxis.set_major_formatter(lambda value, _: count(int(value)))
    what = "points found" if margin is None else "loss ruled out, points,"
    return style.name_above(ax, f"{what} with power {percent(comparison.declared.power, 0)}")


def _detects(comparison: Comparison, n: int) -> float | None:
    """What n examples find at this run's disagreement: the smallest difference, or the smallest loss that is ruled out."""
    share = comparison.disagreement
    if not share or not n:
        return None
    found = stats.detectable_difference if comparison.margin is None else stats.detectable_margin
    return found(n, share, alpha=comparison.alpha, power=comparison.declared.power)


def detectable_title(comparison: Comparison) -> str:
    """What this test set could have found in right or wrong answers, against what was seen."""
    cells, often = comparison.cells, wording.times(comparison.declared.power)
    n, found = sum(cells.values()), _detects(comparison, comparison.n)
    if not comparison.disagreement:
        return "No example is right for one model and wrong for the other: nothing to size a test set by"
    if found is None:
        so_large = "a difference as large as the models' disagreement"
        return f"{_examples(n)} do not find even {so_large} {often}"
    size = f"{wording.points(found, sign=False)} points or more"
    least = f"{size} in {label(comparison.status_metric)} {often}"
    if comparison.margin is not None:
        out = f"{_examples(n)} rule out a loss of {least} when the models are truly alike"
        return f"{out}; the margin is {wording.loss_of(comparison.margin, comparison.primary)}"
    saw = wording.points(abs(cells["fixed"] - cells["regressed"]) / n, sign=False)
    return f"{_examples(n)} find a difference of {least}; {saw} were seen"
