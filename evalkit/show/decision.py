"""The decision for a reader: its picture and numbers, what is missing, what would change it, its rules, and its history.

The picture has one track a layer, each on its own scale, with its limit.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from evalkit import wording
from evalkit.decision import Decision, LayerDecision
from evalkit.decision.history import FILE, History
from evalkit.decision.layers import MISSING, word_of
from evalkit.decision.rules import NAMES, FoundSlice
from evalkit.files import JsonObject as Run
from evalkit.records import OPEN_WINDOWS
from evalkit.show import style, verdict
from evalkit.show.figure import picture
from evalkit.show.style import COLOURS
from evalkit.show.tables import Html, answer, joined, note, sentences, table
from evalkit.show.tracks import draw_interval, draw_line

TITLE = "A layer passes when its whole interval lies in the tinted zone"
SUBLINE = "Fine-tuned minus base, each track on its own scale. Dashed line: the limit set beforehand. Bar: 95% interval."
ONE_OF_MANY = "The slice warns and does not block: of several slices, one may lie wholly left of the line by chance."
_WIDTH = 7.7
_BOUND = {
    "test_set": "the test set",
    "base": "the base model's answers",
    "fine_tuned": "the fine-tuned model's answers",
}
_NAMES = {"benchmark": "1 Benchmark", "human": "2 Human rating", "ab_test": "3 A/B test"}
_KINDS = {"passes": "better", "don't ship": "worse"}
_EFFECTS = ("blocks", "holds", "warns")
_EFFECT, _LIMIT = "Difference (95% interval)", "Limit"


def layers(decision: Decision) -> Html:
    """Every layer against its limit: the picture of the report's first screen."""
    told = ["Hatched at the left: simulated."] if decision.simulated else []
    drawn = {row.under for row in rows_of(decision)}
    unshown = (
        one for layer in decision.layers for one in layer.slices if one.rule != "slice_worse"
    )
    lost = [one.slice for one in unshown if one.slice and one.slice.signed < 0]
    beyond = [row for row in lost if (row.ci_low or 0) * (row.ci_high or 0) > 0]
    if any(row.slice in drawn for row in beyond):  # p is adjusted for their number
        told.append(ONE_OF_MANY)
    alt = described(decision)
    return picture(tracks, decision, alt=alt, subline=SUBLINE, caption=" ".join(told))


def numbers(decision: Decision) -> Html:
    """The same in numbers, a row a track; `decision.to_frame()` has them unrounded."""
    rows = number_rows(decision)
    return table(rows, caption="Each layer against its limit", numeric=(_EFFECT, _LIMIT))


def missing(decision: Decision) -> Html:
    """What each layer still lacks, and its price."""
    columns = {"name": "Layer", "action": "What", "why": "Why", "price": "Price"}
    return table(verdict.missing(decision), caption="Evidence still missing", columns=columns)


def would_change(decision: Decision) -> Html:
    """What would turn the verdict."""
    return sentences(verdict.would_change(decision), none="Nothing within the rules of this study.")


def warnings(decision: Decision) -> Html:
    """What does not stop the decision but must be read."""
    return sentences(verdict.warnings(decision), none="No rule has a warning.")


def rules(decision: Decision) -> Html:
    """The rules it was made by, in words."""
    return sentences(verdict.rules(decision))


def history(history: History) -> Html:
    """What changed since the run before, and the primary difference over training runs once there are two."""
    shown, told = list(history.runs), note(told_of(history))
    if len(distinct(shown)) < 2:
        return joined(told, note("The picture begins with the second set of answers."))
    caption = (
        "Each point is one set of answers, a training run or a checkpoint, against its base model. "
        "95% intervals of the paired difference."
    )
    alt = described_runs(shown)
    return joined(told, picture(differences, shown, alt=alt, caption=caption))


@answer.register
def _answer(result: Decision) -> Html:
    return answer(verdict.headline(result), simulated=result.rests_on_simulated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One track of the decision picture: a layer, or a slice as if it were one; an effect of None draws an empty track."""

    name: str
    of: LayerDecision
    word: str
    at_limit: str = ""

    @property
    def under(self) -> str:
        """What is measured."""
        return self.of.metric or "not there yet"

    @property
    def n(self) -> str:
        """How many, with their noun."""
        of = self.of
        if of.identical:
            return f"{wording.count(of.asked)} rated, {wording.count(of.identical)} identical"
        n = wording.plural(of.asked, of.unit.removesuffix("s"), of.unit)
        return wording.NOTHING if of.n is None else n

    @property
    def shift(self) -> float:
        """Where no difference lies: people's choice is at 50% then."""
        return 0.5 if self.of.layer == "human" else 0.0

    @property
    def kind(self) -> str:
        """How it is drawn."""
        return _KINDS.get(self.word, "unsure")

    @property
    def turn(self) -> int:
        """-1 where a fall is better: better stays on the right."""
        return -1 if self.of.lower_is_better else 1

    @property
    def span(self) -> float:
        """Half-width of the scale: the part right of zero."""
        known = (self.of.estimate, self.of.ci_low, self.of.ci_high, self.of.limit)
        values = [self.turn * value for value in known if value is not None]
        return max([0.02, *(value * 1.15 if value > 0 else -value * 0.8 for value in values)])

    def text(self, value: float) -> str:
        """A tick of this scale."""
        if self.shift:
            return wording.percent(value + self.shift, 0)
        if self.of.scale != "points":
            return wording.number(value)
        return wording.points(value, 0 if self.span >= 0.04 else 1)

    def ticks(self) -> list[float]:
        """About three round values; where people vote, half of them is one."""
        power = 10 ** math.floor(math.log10(self.span))
        sizes = (nice * power for nice in (5, 2.5, 2, 1, 0.5))
        step = next(one for one in sizes if one <= self.span * 0.9)
        left = [-2 * step] if 2 * step < self.span * 1.35 else []
        turned = [self.turn * one for one in (*left, -step, step)]
        return [*turned, 0.0] if self.shift else turned


def rows_of(decision: Decision) -> list[Row]:
    """The tracks: every layer, and under the benchmark the slice that decides: what blocks first, then the greatest loss."""
    rows = []
    for layer in decision.layers:
        rows.append(Row(name=_NAMES[layer.layer], of=layer, word=_track_word(layer)))
        known = [
            (_EFFECTS.index(one.effect), one.slice.signed, one.slice)
            for one in layer.findings
            if one.slice and one.slice.estimate is not None
        ]
        if known:
            worst = min(known, key=lambda one: one[1])
            effect, _, row = decides = min(known, key=lambda one: one[:2])
            name = "Its worst slice" if decides is worst else "Its slice that decides"
            word = {"blocks": "don't ship", "holds": "not yet"}.get(_EFFECTS[effect], "warns")
            limit = f"0, {row.if_worse} if shown worse" if row.if_worse in _EFFECTS else ""
            rows.append(Row(name=name, of=_as_layer(layer, row), word=word, at_limit=limit))
    return rows


def described(decision: Decision) -> str:
    """The picture in sentences."""
    told = []
    for row in rows_of(decision):
        name = f"{row.name}, {row.under}{', simulated' if row.of.simulated else ''}"
        told.append(f"{name}: {row.word}, {row.of.verdict}, {wording.effect_text(row.of)}.")
    return f"{len(told)} tracks share one line of no difference. {' '.join(told)}"


def number_rows(decision: Decision) -> list[dict[str, str]]:
    """The numbers of the picture, a row a track."""
    return [
        {
            "Evidence": f"{row.name}, {row.under}" + (" (simulated)" if row.of.simulated else ""),
            "n": row.n,
            _EFFECT: wording.effect_text(row.of),
            _LIMIT: row.at_limit
            or (row.text(row.of.limit) if row.shift else wording.points(row.of.limit)),
            "Verdict": row.of.verdict,
            "Gate": row.word,
        }
        for row in rows_of(decision)
    ]


def tracks(decision: Decision, *, narrow: bool = False) -> Axes:
    """Every layer against its limit, on one line of no difference."""
    rows = rows_of(decision)
    height = 32 + 118 * len(rows) if narrow else 12 + 90 * len(rows)
    figure, ax = style.canvas(height / 96, narrow=narrow, width=_WIDTH)
    figure.set_layout_engine("none")
    ax.set_position((0, 0, 1, 1))
    _draw(ax, rows, height, narrow=narrow)
    return style.titled(ax, TITLE, narrow=narrow)


def summary(decision: Decision, path: Path, *, title: str) -> Path:
    """Writes the decision as one picture for a chat message."""
    rows, lines = rows_of(decision), textwrap.wrap(verdict.headline(decision), 62)
    head, height = 62 + 30 * len(lines), 26 + 90 * len(rows)
    hatched = " Hatched: simulated." if decision.simulated else ""
    foot = f"{decision.made_at[:10]}, {SUBLINE}{hatched}"
    paper, muted = COLOURS["paper"], COLOURS["muted"]
    with style.style():
        size = (8.3, (head + height + 40) / 96)
        figure = pyplot.figure(figsize=size, layout="none", facecolor=paper)
        whole = figure.get_size_inches()[1] * 96
        name, said = wording.visible(title), "\n".join(lines)
        figure.text(0.036, 1 - 24 / whole, name, va="top", color=muted, fontsize=10)
        top = figure.text(0.036, 1 - 46 / whole, said, va="top", weight="bold", fontsize=17)
        top.set_linespacing(1.25)
        figure.text(0.036, 14 / whole, foot, va="bottom", color=muted, fontsize=8.4)
        ax = figure.add_axes((0.036, 34 / whole, 0.928, height / whole))
        _draw(ax, rows, height, narrow=False)
        look = {"facecolor": paper, "transparent": False, "metadata": {"Software": None}}
        figure.savefig(path, dpi=144, **look)
        pyplot.close(figure)
    return path


def _as_layer(layer: LayerDecision, row: FoundSlice) -> LayerDecision:
    """A slice as the gate has a layer."""
    verdict = row.standing or str(row.verdict)
    return replace(
        layer,
        metric=row.slice,
        unit="examples",
        n=row.n or 0,
        verdict=verdict.replace("could not have been seen", "too few to see a loss"),
        estimate=row.estimate,
        ci_low=row.ci_low,
        ci_high=row.ci_high,
        limit=0.0,
        lower_is_better=row.signed * (row.estimate or 0.0) < 0,
        scale=row.shown_as or "points",
        simulated=False,
    )


def _why_empty(layer: LayerDecision) -> str:
    """What stands on a track without an effect."""
    if layer.stale:
        return (
            "made for other models" if layer.stale == "other_models" else "made for other answers"
        )
    if any(one.kind == OPEN_WINDOWS for one in layer.missing):
        return "users came, none counts yet"
    nothing = layer.verdict in {MISSING, "too early"} and not layer.n
    return "nothing recorded yet" if nothing else "no effect is shown yet"


def _track_word(layer: LayerDecision) -> str:
    """The word of the layer's own effect: what a slice blocks is said on the slice's track."""
    if not layer.speaks:
        return "comes later"
    others = tuple(one for one in layer.findings if not one.slice)
    return word_of(replace(layer, findings=others))


def _draw(ax: Axes, rows: Sequence[Row], height: float, *, narrow: bool) -> None:
    width, step, top = (style.NARROW, 118, 28) if narrow else (_WIDTH, 90, 26)
    width *= 96
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    hatched = any(row.of.simulated for row in rows)
    left, right = (18.0 if hatched else 4.0, width - 8) if narrow else (188.0, width - 168)
    zero = left + (right - left) * 0.6
    look = {"va": "bottom", "color": COLOURS["muted"], "fontsize": 9}
    ax.text(left, top - 11, "\u2190 worse", ha="left", **look)
    ax.text(zero, top - 11, "no difference", ha="center", **look)
    ax.text(right, top - 11, "better \u2192", ha="right", **look)
    if not narrow:
        draw_line(ax, "zero", zero, spans=[(top - 6, top + step * len(rows) - 26)])
    for place, row in enumerate(rows):
        y = top + place * step + (74 if narrow else 30)
        _track(ax, row, y, left=left, zero=zero, right=right, narrow=narrow)
        _words(ax, row, y, right=right, narrow=narrow)


def _track(
    ax: Axes, row: Row, y: float, *, left: float, zero: float, right: float, narrow: bool
) -> None:
    def at(value: float) -> float:
        return min(max(zero + row.turn * value * (right - zero) / row.span, left), right)

    empty = row.of.estimate is None
    edge = {"ec": COLOURS["grid"], "lw": 0.6, "hatch": "///"} if empty else {"ec": "none", "lw": 0}
    ax.add_patch(Rectangle((left, y - 12), right - left, 24, fc=COLOURS["track"], zorder=0, **edge))
    if narrow:
        draw_line(ax, "zero", zero, spans=[(y - 12, y + 12)])
    for k in range(5 if row.of.simulated else 0):
        rise = [y - 4 + k * 4, y - 11 + k * 4]
        ax.plot([left - 13, left - 6], rise, color=COLOURS["base"], lw=1, clip_on=narrow)
    if row.of.estimate is None:
        look = {"ha": "center", "va": "center", "fontsize": 9, "color": COLOURS["muted"]}
        box = {"facecolor": COLOURS["paper"], "edgecolor": "none", "pad": 2.5}
        ax.text((left + right) / 2, y, _why_empty(row.of), zorder=5, bbox=box, **look)
        return
    limit, green = at(row.of.limit), COLOURS["pass_zone"]
    ax.add_patch(Rectangle((limit, y - 12), right - limit, 24, fc=green, ec="none", zorder=1))
    ax.plot([limit] * 2, [y - 17, y + 12], color=COLOURS["paper"], lw=2.6, zorder=2)
    draw_line(ax, "limit", limit, spans=[(y - 17, y + 12)])
    if told := row.at_limit or (row.text(row.of.limit) if row.of.limit else ""):
        x, below = (limit, y + 29) if narrow else (limit - 5, y - 15)
        ha, va = ("center", "top") if narrow else ("right", "bottom")
        ax.text(x, below, f"limit {told}", ha=ha, va=va, fontsize=9)
    ends = [None if end is None else at(end) for end in (row.of.ci_low, row.of.ci_high)]
    low, high = ends[:: row.turn]
    draw_interval(ax, y, at(row.of.estimate), low, high, row.kind, width=8, size=10)
    bare = {"facecolor": COLOURS["paper"], "edgecolor": "none", "pad": 0.8}
    for tick in row.ticks():
        ax.plot([at(tick)] * 2, [y + 12, y + 15], color=COLOURS["axis"], lw=0.8)
        look = {"fontsize": 9, "color": COLOURS["muted"], "bbox": None if tick else bare}
        ax.text(at(tick), y + 17, row.text(tick), ha="center", va="top", zorder=3, **look)


def _words(ax: Axes, row: Row, y: float, *, right: float, narrow: bool) -> None:
    """A row's name and numbers: beside its track, on phones above it."""
    lines = [y - 63, y - 45, y - 29] if narrow else [y - 17, y, y + 16]
    left, side = (4.0, "right") if narrow else (0.0, "left")
    right = right if narrow else right + 16
    bold = {"weight": "bold", "fontsize": 10 if narrow else 10.4}
    muted = {"color": COLOURS["muted"]}
    slanted = {"style": "italic" if row.of.simulated else "normal"}
    n, word = row.n + (", simulated" if row.of.simulated else ""), row.word.replace("'", "’")
    said = [
        (left, row.name, bold),
        (left, _cut(row.under, 28 if narrow else 29), muted),
        (left, n, muted | slanted),
        (right, wording.capital(word), bold | {"color": COLOURS[row.kind]}),
        (right, row.of.verdict, muted),
        (right, wording.effect_text(row.of), {} if narrow else {"fontsize": 9.4}),
    ]
    for (x, text, look), at in zip(said, lines * 2, strict=True):
        ha = "left" if x == left else side
        ax.text(x, at, text, **{"va": "center", "ha": ha, "fontsize": 9.2} | look)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


# ---- its history: what changed since the run before, how worn the test set is, and the primary difference over the runs


def told_of(history: History) -> str:
    """All there is to say, in a few sentences."""
    said = [what_changed(history.rows, history.now), worn_out(history.rows, history.now)]
    if history.torn:
        torn = f"The last line of {FILE} is unfinished and was left out"
        said.append(f"{torn}; the end of this run removes it.")
    return " ".join(one for one in said if one)


def what_changed(rows: Sequence[Run], now: Run) -> str:
    """One sentence: what is different from the run before."""
    earlier = [row for row in rows if row.get("run") != now.get("run")]
    sound = [row for row in earlier if row.get("metrics") and not row.get("failed")]
    if not earlier:
        return "This is the first run of this study, so there is nothing to compare it with."
    if not sound:
        n = wording.plural(len(earlier), "earlier run")
        return f"There is nothing to compare it with: of {n}, none finished without a failure and with a benchmark."
    before = sound[-1]
    if changes := [*_named(earlier, before, now), *_outcomes(before, now), *_given(before, now)]:
        return f"Since the run of {_day(before)}: {'; '.join(changes)}."
    return f"Nothing changed since the run of {_day(before)}: same parameters, same answers, same layers, same verdict."


def worn_out(rows: Sequence[Run], now: Run) -> str:
    """What it means that one test set has judged several sets of answers; "" when this is its first.

    Each look at a test set to choose by it makes the chosen model look better on it than it is.
    """
    bounds = [row.get("bound_to") or {} for row in (*rows, now)]
    test_set = bounds[-1].get("test_set")
    judged = {one.get("fine_tuned") for one in bounds if one.get("test_set") == test_set}
    n = max(len(judged - {None}) if test_set else 0, now.get("n_compared") or 1)
    if n < 2:
        return ""
    return (
        f"This test set has judged {n} sets of answers. One used for choosing wears out: the best of several looks better "
        "on it than it is, so keep a fresh test set for the last word."
    )


def _named(earlier: Sequence[Run], before: Run, now: Run) -> Iterator[str]:
    """The test set, the answers and the verdict."""
    for name, words in _BOUND.items():
        old, new = (row.get("bound_to", {}).get(name) for row in (before, now))
        if old and new and old != new:
            yield f"{words} {_otherwise(name, earlier, before, now)}"
    old, new = (row.get("verdict") for row in (before, now))
    if old != new:
        yield f"the verdict went from {old or 'none'} to {new or 'none'}"


def _otherwise(name: str, earlier: Sequence[Run], before: Run, now: Run) -> str:
    """What became of a hash; answers are new when no earlier run has seen them, and the model is the same."""
    if name == "test_set":
        return "is another"
    hash_ = now["bound_to"][name]
    if known := [row for row in earlier if (row.get("bound_to") or {}).get(name) == hash_]:
        return f"are those of the run of {_day(known[-1])}"
    old, new = ((row.get("models") or {}).get(name) for row in (before, now))
    return "are another model's" if old and new and old != new else "are new"


def _outcomes(before: Run, now: Run) -> Iterator[str]:
    """What the layers say; the benchmark's effects follow metric by metric, and older rows know no effects."""
    for layer in now.get("layers") or {}:
        if layer in (before.get("layers") or {}):
            told = layer != "benchmark" and "effects" in before
            was, is_now = (_said(row, layer, with_effect=told) for row in (before, now))
            if was != is_now:
                yield f"the {NAMES[layer]} went from {was} to {is_now}"
    for name, metric in now.get("metrics", {}).items():
        old, new = before.get("metrics", {}).get(name, {}).get("estimate"), metric.get("estimate")
        if old is None or new is None:
            continue
        digits = max(wording.decimals(old), wording.decimals(new))
        was, is_now = wording.points(old, digits), wording.points(new, digits)
        if was != is_now:
            words = f"the difference in {name.replace('_', ' ')}"
            yield f"{words} went from {was} to {is_now} points (not tested)"


def _said(row: Run, layer: str, *, with_effect: bool) -> str:
    word, effect = row["layers"][layer], row.get("effects", {}).get(layer)
    return f"{word}, {effect}" if with_effect and effect else word


def _given(before: Run, now: Run) -> Iterator[str]:
    """Parameters, the stage, rules, and own code that scores."""
    old, new = _settings(before), _settings(now)
    for name in new:
        if name in old and old[name] != new[name]:
            yield f"{name} went from {_value(old[name])} to {_value(new[name])}"
    old, new = (row.get("own_code") or {} for row in (before, now))
    for name in new:
        if name in old and old[name] != new[name]:
            yield f"{_value(name)}, which scores answers, is another"


def _settings(run: Run) -> Run:
    stage = {"stage": run["stage"]} if run.get("stage") else {}
    return (run.get("parameters") or {}) | stage | ((run.get("declared") or {}).get("rules") or {})


def _value(value: object) -> str:
    return wording.visible(str(value)) or "nothing"


def _day(row: Run) -> str:
    return wording.minute(str(row.get("made_at", ""))) or str(row.get("run"))


def differences(runs: Sequence[Run], *, narrow: bool = False) -> Axes:
    """The primary metric's difference over training runs: one interval for each set of answers, newest at the right."""
    runs = distinct(runs)[-(6 if narrow else 12) :]
    _, ax = style.canvas(2.8, narrow=narrow)
    for place, run in enumerate(runs):
        one = _primary(run)
        estimate, low, high = one["estimate"], one["ci_low"], one["ci_high"]
        draw_interval(ax, place, estimate, low, high, one["verdict"], width=7, vertical=True)
        at = (place, estimate)
        ax.annotate(_size(one), at, (9, 0), textcoords="offset points", va="center")
    draw_line(ax, "zero", vertical=False)
    ax.set_xlim(-0.6, max(len(runs), 3) - 0.4)
    days = [str(run["made_at"])[5:10] if run.get("made_at") else "this run" for run in runs]
    models = [str(run["models"].get("fine_tuned", ""))[:14] for run in runs]
    ax.set_xticks(
        range(len(runs)), [f"{day}\n{model}" for day, model in zip(days, models, strict=True)]
    )
    low, high = ax.get_ylim()
    digits = 0 if high - low >= 0.03 else 2
    ax.yaxis.set_major_formatter(lambda value, _: wording.points(value, digits))
    return style.titled(ax, _title(runs), narrow=narrow, above="points over the base model")


def described_runs(runs: Sequence[Run]) -> str:
    """The history in sentences."""
    shown, told = distinct(runs)[-12:], []
    for run in shown:
        one, day = _primary(run), str(run.get("made_at") or "this run")[:10]
        ends = wording.interval(one["ci_low"], one["ci_high"], digits=_digits(one))
        told.append(f"{day}: {_size(one)} points, {ends}.")
    return f"{_title(shown)}. {' '.join(told)}"


def distinct(runs: Sequence[Run]) -> list[Run]:
    """Runs with a primary effect, the last one only for each set of answers, oldest first."""
    kept = {
        str(sorted(run["bound_to"].items())): run
        for run in runs
        if run.get("bound_to") and _primary(run).get("estimate") is not None
    }
    return sorted(kept.values(), key=lambda run: str(run.get("made_at") or "~"))


def _primary(run: Run) -> Run:
    return (run.get("metrics") or {}).get(run.get("primary")) or {}


def _title(runs: Sequence[Run]) -> str:
    if not runs:
        return "No run has a primary effect yet"
    name, last = str(runs[-1].get("primary")).replace("_", " "), _with_limits(_primary(runs[-1]))
    if len(runs) == 1:
        return f"The first training run: {name} {last} points"
    before = _with_limits(_primary(runs[-2]))
    return f"{name.capitalize()} is {last} points over base, the answers before {before}"


def _size(metric: Run) -> str:
    return wording.points(metric["estimate"], _digits(metric))


def _with_limits(metric: Run) -> str:
    ends = wording.limits(metric["ci_low"], metric["ci_high"], digits=_digits(metric))
    return f"{_size(metric)} ({ends})"


def _digits(metric: Run) -> int:
    return wording.decimals(metric["estimate"], metric["ci_low"], metric["ci_high"])
