"""Where the fine-tuned model is worse, shown: slices, segments, regressions, examples, and whether they hold."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from rapidfuzz.distance import Indel

from evalkit import wording
from evalkit.benchmark.comparison import Comparison
from evalkit.benchmark.frames import NO_VALUE
from evalkit.benchmark.noise import MARKS, NoiseFloor
from evalkit.benchmark.slices import MIN_N, Found, SliceRow, SliceTable, regression_frame
from evalkit.conversation import Conversation
from evalkit.errors import DesignError
from evalkit.evidence import Evidence
from evalkit.show import style, tracks
from evalkit.show.comparison import CELLS, ROLES, cells_title
from evalkit.show.comparison import MARKS as LEGEND
from evalkit.show.figure import picture
from evalkit.show.lacking import in_words
from evalkit.show.style import COLOURS
from evalkit.show.tables import Html, Row, answer, joined, note, table
from evalkit.show.tracks import Track, mark_of
from evalkit.stats import RegressionRow, RegressionTable, gee_odds_table, linear_probability_table
from evalkit.wording import (
    NOTHING,
    SHOWN,
    capital,
    count,
    label,
    listed,
    number,
    p_text,
    percent,
    plural,
)

MOST_ROWS = 40
LONGEST = 800  # characters of an answer in a table
_EXAMPLE = ("status", "answer_base", "answer_fine_tuned", "similarity_change", "messages")
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_MOST_WORDS = 20_000
_Runs = list[tuple[bool, str, str]]
_examples = partial(plural, noun="example")


# ---- slices


def forest(slices: SliceTable) -> Html:
    """The difference in every slice, on this table's metric."""
    if not len(slices):
        return note("No slices were declared.")
    methods, metric = wording.methods(row.test for row in slices), label(slices.metric)
    margin = " Dashed: the largest loss a slice may show." if slices.margin else ""
    more = len(slices) - MOST_ROWS
    first = f" Drawn: the first {MOST_ROWS} of {plural(len(slices), 'slice')}." if more > 0 else ""
    accident = wording.rewarded_by_accident([slices.metric])
    return picture(
        draw_forest,
        slices,
        title=slices_title(slices),
        alt=" ".join(slice_sentence(row) for row in slices),
        subline=f"{capital(metric)}, fine-tuned minus base in each slice (rates in points). {LEGEND}",
        caption=f"{methods}, Holm over the slices.{margin}{first} {accident}".rstrip(),
    )


def draw_forest(table: SliceTable, *, narrow: bool = False) -> Axes:
    """The difference in every declared slice; hollow where nothing is shown."""
    rows = []
    for row in table.rows[:MOST_ROWS]:
        under = f"{_examples(row.n)}, {adjusted_p(row)}"
        marks, value = mark_of(row.test, row.verdict), wording.size(row.test)
        rows.append(Track(name=row.slice, under=under, marks=marks, value=value))
    tests, margin = [row.test for row in table], table.margin or 0.0
    ax = tracks.difference_axes(rows, tests, reach=margin, narrow=narrow)
    if margin and tests:
        at = tracks.name_margin(ax, tests[0], margin)
        tracks.draw_line(ax, "limit", at, spans=tracks.spans(rows, narrow=narrow))
    return ax


def slices_title(table: SliceTable) -> str:
    """Which slices lost, and which of them is the worst."""
    if not len(table):
        return "No slices were declared"
    name, of = label(table.metric), plural(len(table), "slice")
    if table.worse:
        worst = " and on ".join(wording.examples_of(row.slice) for row in table.worse)
        return f"{name.capitalize()} {wording.moves(table.worse[0].estimate or 0.0)} on {worst}"
    better = [row for row in table if row.verdict == "better"]
    if _asks_no_worse(table):
        n = sum(row.verdict == "better" or row.safety == "not worse" for row in table)
        loss = wording.loss_of(table.margin, table.rows[0].test)
        told = capital(f"{n or 'none'} of {of} {wording.are(n or 1)} shown")
        return f"{told} not worse by more than {loss} on {name}"
    n = len(better)
    return f"No slice shown worse on {name}; {n or 'none'} of {of} {wording.are(n or 1)} better"


def _asks_no_worse(table: SliceTable) -> bool:
    return bool(table.margin) and table.rows[0].question == "no_worse"


def slices(found: SliceTable) -> Html:
    """Every slice in numbers, with what would settle it."""
    if not len(found):
        return joined()
    numbers = ("base", "fine-tuned", "difference", "p", "exact p", "adjusted p")
    return table(slice_rows(found), caption=slices_caption(found), numeric=numbers)


def slices_caption(table: SliceTable) -> str:
    """What the table of slices holds, and what its last column is the price of."""
    shown = "the difference"
    if table.margin:
        shown = f"it no worse than {wording.points(table.margin, sign=False)} points, or worse"
    told = f"shows {shown}, with power {table.rows[0].wanted_chance:.0%} at the rates seen"
    folded = "".join(
        f"; {name} has {count(n)} values: the largest are shown, the rest together"
        for name, n in table.folded.items()
    )
    return f"Every slice, {label(table.metric)} (differences of rates in points){folded}; to settle it: {told}"


def slice_rows(table: SliceTable) -> list[Row]:
    """One row a slice: both levels, the difference with its interval, every p, the verdict, what would settle it."""
    rows = []
    for row in table:
        scale, n = wording.scale_of(row.test), row.n_to_settle
        rows.append(
            {
                "slice": row.slice + (" (few)" if row.few else ""),
                "n": row.n,
                "base": wording.level(row.base_rate, scale),
                "fine-tuned": wording.level(row.fine_tuned_rate, scale),
                "difference": wording.size(row.test),
                "p": p_text(row.test.p_value),
                "exact p": p_text(row.test.p_exact),
                "adjusted p": p_text(row.p_adjusted),
                "verdict": slice_verdict(row),
                "to settle it": f"about {count(n - row.n)} more" if n else NOTHING,
            }
        )
    return rows


def slice_sentence(row: SliceRow) -> str:
    """One slice in full: verdict, difference, interval, adjusted p."""
    where = f"{row.slice}, {_examples(row.n)}"
    if row.estimate is None:
        return f"{where}: nothing known."
    return f"{where}: {slice_verdict(row)}, {wording.effect(row.test)}; {adjusted_p(row)}."


def _levels(row: SliceRow) -> str:
    return wording.levels(row.base_rate, row.fine_tuned_rate, row.test)


def slice_verdict(row: SliceRow) -> str:
    """A slice's verdict, and where it is none of better and worse, how it stands against the margin.

    Example: "no difference shown; could not have been seen: would have found a loss of 5.0 points 4 times in 10".
    """
    verdict, standing = row.verdict, row.standing
    if standing is None or verdict != "no difference shown":
        return verdict
    if row.question == "no_worse":
        verdict = wording.against(row.safety or "", row.margin, row.test)
        if standing == "shown safe":
            return verdict
    if standing != "could not have been seen" or row.chance_to_see is None:
        return f"{verdict}; {standing}"
    lost = wording.amount(row.margin, wording.scale_of(row.test), sign=False)
    return f"{verdict}; {standing}: would have found a loss of {lost} {wording.times(row.chance_to_see)}"


def adjusted_p(row: SliceRow) -> str:
    """The p of a slice that decides."""
    return "no test" if row.p_adjusted is None else f"adjusted p {wording.p_phrase(row.p_adjusted)}"


def elsewhere(found: SliceTable) -> Html:
    """The same slices on the metric, of those that are not primary, with the largest shown loss."""
    most = found.most_lost
    return joined(forest(most), slices(most)) if most is not None and len(most) else joined()


def segments(found: Found) -> Html:
    """What the slice finder found, one row a segment: hunches, found by looking."""
    rows = [
        {
            "where": one.where,
            "n": one.n,
            "fixed": one.n_fixed,
            "regressed": one.n_regressed,
            "of all regressions": percent(one.share_of_regressed, 0),
            "difference, points": wording.size(one.test),
            "adjusted p": p_text(one.p_adjusted),
        }
        for one in found
    ]
    title = f"Exploratory: {found.n_looked_at} places looked at, the largest losses first"
    numeric = ("of all regressions", "difference, points", "adjusted p")
    return table(rows, caption=title, numeric=numeric)


# ---- both regressions, and anybody's


def regression(comparison: Comparison) -> Html:
    """What the fine-tuned model changes in each slice field: in points, and as odds."""
    made, numbers, metric = [], ("points", "p", "odds ratio", "p of odds"), comparison.status_metric
    cluster = "cluster" if comparison.clustered else "example_id"
    how = {"cluster": cluster, "alpha": comparison.alpha}
    right, test = "", comparison.tests.get(metric)
    if test is not None and test.lower_is_better:  # right answers are counted: more is better
        right = f"; counted are the right answers, those with a {label(metric)} of 0"
    for field in dict.fromkeys(name for one in comparison.pairs for name in one.base.slices):
        frame = regression_frame(comparison, field=field)
        if frame.empty:
            return note("No example is right or wrong, so there is nothing to regress.")
        linear, odds = linear_probability_table(frame, **how), gee_odds_table(frame, **how)
        rows = regression_rows(linear, odds)
        made += [table(rows, caption=f"By {field}{right}", numeric=numbers)]
        made += [note(" ".join(odds.notes))]
    return joined(*made)


def regression_rows(linear: RegressionTable, odds: RegressionTable) -> list[Row]:
    """Both regressions side by side, one row a term; n/a where a model is always or never right."""
    by_term, rows = {row.term: row for row in odds}, []
    for row in linear:
        other, ratio = by_term.get(row.term), "n/a"
        if other is not None and other.estimate is not None and other.ci_low is not None:
            limits = f"{number(other.ci_low)} to {number(other.ci_high)}"
            ratio = f"{number(other.estimate)} ({limits})"
        shown = {"term": row.term, "n": row.n, "points": wording.size(row), "p": _p(row)}
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


# ---- asked again


def flips(noise: NoiseFloor) -> Html:
    """How often each model's answer changed when it was asked twice, and what became of the regressions."""
    told = note(f"{noise} {marks(noise)}")
    if not noise.n:
        return told
    drawn = picture(
        draw_flips,
        noise,
        title=noise_title(noise),
        alt=str(noise),
        subline="Share of answers that changed between two live passes over the same drawn examples. Bar: interval.",
        caption="Only the seeded draw enters the rates; regressed examples are asked besides, to mark each of them.",
    )
    return joined(told, drawn)


def draw_flips(noise: NoiseFloor, *, narrow: bool = False) -> Axes:
    """How often each model's answer changed between two live passes: other words, and another verdict."""
    rows = []
    for role, one in noise.by_model.items():
        for change, rate in (("other words", one.text_rate), ("right ↔ wrong", one.flip_rate)):
            marks = mark_of(rate, "base" if role == "base" else "fine_tuned")
            name, value = f"{role.capitalize()}: {change}", wording.share(rate.successes, rate.n)
            rows.append(Track(name=name, under="", marks=marks, value=value))
    return tracks.rate_axes(rows, narrow=narrow)


def noise_title(noise: NoiseFloor) -> str:
    """How often the same question got another answer."""
    flips = {role: one.flip_rate for role, one in noise.by_model.items()}
    parts = [f"{role}: {wording.share(one.successes, one.n)}" for role, one in flips.items()]
    return f"Asked twice, the verdict on an answer changed for {listed(parts)}"


def marks(noise: NoiseFloor) -> str:
    """What became of the regressions when they were asked again."""
    if not noise.marks:
        return "There is no regression to ask again."
    n = Counter(noise.marks.values())
    told = f"Of {plural(n.total(), 'regression')}: {listed([f'{n[one]} {one}' for one in MARKS])}."
    if not noise.n_gone:
        return told
    return f"{told} Of the stable ones {noise.n_gone} are no regression on this machine."


# ---- the examples


def examples(frame: pd.DataFrame, *, most: int = 30, open_rows: int | None = 5) -> Html:
    """Examples of `to_frame(by="example")` in its order, words that differ between the two answers marked.

    Args:
        frame: The rows to show; with a column `asked_again` it says what became of each when asked again.
        most: At most so many.
        open_rows: How many rows stand open; the rest is folded away.

    Raises:
        DesignError: A frame with another row.
    """
    if lacking := [name for name in _EXAMPLE if name not in getattr(frame, "columns", ())]:
        raise DesignError(
            f'the frame has no column {listed(lacking)}; need rows of comparison.to_frame(by="example")'
        )
    rows = frame_rows(frame.head(most))
    counts = {name: n for name, n in frame["status"].astype(str).value_counts().items() if n}
    told = listed([f"{count(n)} {status}" for status, n in counts.items()])
    first = f"; the first {count(len(rows))}" if len(rows) < len(frame) else ""
    title = f"{_examples(len(frame))}: {told}{first}" if len(frame) else "No examples"
    caption = f"{title}. Marked: words that stand in only one of the two answers."
    return table(rows, caption=caption, numeric=("Similarity",), open_rows=open_rows)


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
            "Similarity": wording.signed(None if pd.isna(moved) else moved),
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
    return picture(
        draw_scatter,
        comparison,
        metric,
        title=scatter_title(comparison, metric),
        alt=f"{cells_title(comparison)}.",
        subline=f"One mark is one example: {label(metric)} of both answers. Above the line: more than before.",
        caption="Diamond: regressed. Filled circle: fixed or both right. Hollow: both wrong.",
    )


def draw_scatter(
    comparison: Comparison, metric: str = "similarity", *, narrow: bool = False
) -> Axes:
    """One mark an example, base against fine-tuned: above the line the new answer has more; regressed ones are diamonds."""
    _, ax = style.canvas(3.5 if narrow else 4.4, narrow=narrow, width=style.HALF)
    known = [one for one in comparison.pairs if one.diff(metric) is not None]
    # the last lie on top; one marker a call, as SVG holds it once
    for status in ("both wrong", "both right", "fixed", "regressed"):
        role = CELLS[status]
        mine = [one for one in known if one.status == status]
        x, y = ([getattr(one, f"{side}_values")[metric] for one in mine] for side in ROLES)
        look = {
            "marker": "D" if status == "regressed" else "o",
            "edgecolor": COLOURS[role],
            "s": 14,
        }
        face = COLOURS["paper" if status == "both wrong" else role]
        sns.scatterplot(x=x, y=y, color=face, linewidth=0.8, clip_on=False, ax=ax, **look)
    ax.plot([0, 1], [0, 1], color=COLOURS["axis"], lw=0.9, zorder=0)
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    ax.set_xlabel(f"base, {label(metric)}")
    return style.name_above(ax, f"fine-tuned, {label(metric)}")


def scatter_title(comparison: Comparison, metric: str) -> str:
    """How many answers scored higher, how many did not, and whether that is more than chance."""
    diffs = [diff for one in comparison.pairs if (diff := one.diff(metric)) is not None]
    if not diffs:
        return "No answers to compare"
    more, less = (sum(diff * sign > 1e-9 for diff in diffs) for sign in (1, -1))
    moved = f"{plural(more, 'answer')} scored higher on {label(metric)}, {count(less)} lower"
    told = f"{moved}, {count(len(diffs) - more - less)} stayed"
    change = comparison.changes.get(metric)
    return told if change and change.verdict in SHOWN else f"{told}: no difference shown"


# ---- the answer


@answer.register
def _answered(result: SliceTable, noise: NoiseFloor) -> Html:
    return answer(answer_said(result, noise))


def answer_said(slices: SliceTable, noise: NoiseFloor) -> str:
    """The second chapter's answer: how many, where, what would settle the rest, and whether they hold."""
    n, name = len(noise.marks), label(slices.metric)
    lines = [f"{_examples(n)} got worse." if n else "No example is known to have got worse."]
    for row in slices.worse:
        change = wording.effect(row.test).replace(" (", ", ", 1).removesuffix(")")
        moves = f"{name} {wording.moves(row.estimate or 0.0)} from {_levels(row)} over {_examples(row.n)}"
        where = f"Worse on {wording.examples_of(row.slice)}"
        lines.append(f"{where}: {moves} ({change}, {adjusted_p(row)}).")
    if len(slices) and not slices.worse:
        lines.append(f"{slices_title(slices)}.")
    for one in (other for other in slices.others if other.worse):
        sizes = [
            (row.slice, wording.amount(row.estimate, wording.scale_of(row.test)))
            for row in one.worse
        ]
        lost = listed([f"{wording.examples_of(where)} ({size})" for where, size in sizes])
        lines.append(f"Also worse in {label(one.metric)}: {lost}.")
    lacking = [(row, row.n_to_settle - row.n) for row in slices if row.n_to_settle]
    if lacking:
        often = wording.times(lacking[0][0].wanted_chance)
        more = [f"about {count(n)} more {wording.examples_of(row.slice, n)}" for row, n in lacking]
        lines.append(f"To settle the other slices {often}: {listed(more)}.")
    asked = Counter(noise.marks.values())
    asked_again = asked["flips"] + asked["stable"]
    held = f"Asked again, {asked['flips']} of {plural(asked_again, 'regression')} flipped."
    if not asked_again:
        held = "Whether the regressions hold when asked again was not measured."
    return " ".join([*lines, held])


def handed_on(record: Evidence | None) -> Html:
    """Whether this chapter's findings reached the benchmark's record, and what is still missing."""
    if record is None:
        return note(
            "Not added to comparison.json: the benchmark chapter has not written it for these answers and settings; "
            "run it first."
        )
    prices = "; ".join(f"{one.action}: {one.price}" for one in map(in_words, record.missing))
    return note(f"Missing: {prices}." if prices else "No undecided slice needs more examples.")


# ---- two texts with their differences marked


def marked(old: str, new: str) -> tuple[str, str]:
    """Both texts as HTML: `<del>` around what only the first holds, `<ins>` around what only the second holds.

    Texts with more than 20,000 words and spaces together are shown unmarked: drawing them would take a second.

    Example:
        >>> old, new = marked("I10: Hypertension", "I11: Hypertension")
        >>> "<del>" in old and "<ins>" in new
        True
    """
    if (runs := _runs(old, new)) is None:
        return wording.render_text(old), wording.render_text(new)
    left = "".join(_part(text, "" if same else "del") for same, text, _ in runs)
    return left, "".join(_part(text, "" if same else "ins") for same, _, text in runs)


def merged(old: str, new: str) -> str:
    """The second text as HTML with what it lacks of the first standing in it, in `<del>`, and what it adds in `<ins>`.

    Example:
        >>> merged("I10", "I11").count("<del>"), merged("I10", "I10").count("<del>")
        (1, 0)
    """
    if (runs := _runs(old, new)) is None:
        return wording.render_text(new)
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
    safe = wording.render_text(text)
    return f"<{tag}>{safe}</{tag}>" if tag else safe
