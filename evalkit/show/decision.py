"""The decision for a reader: its picture and numbers, what is missing, what would change it, its rules, and its history."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.patches import Rectangle

from evalkit import wording
from evalkit.abtest.reading import OPEN_WINDOWS
from evalkit.decision import Decision, LayerDecision
from evalkit.decision.findings import SLICE_RULES, Finding
from evalkit.decision.history import History
from evalkit.decision.layers import MISSING
from evalkit.show import changes, style
from evalkit.show.figure import picture
from evalkit.show.style import COLOURS
from evalkit.show.tables import Html, answer, joined, note, sentences, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def layers(decision: Decision) -> Html:
    """Every layer against its limit: the picture of the report's first screen."""
    told = ["Hatched at the left: simulated."] if decision.simulated else []
    caption = " ".join([*told, *([ONE_OF_MANY] if one_of_many(decision) else [])])
    return picture(tracks, decision, alt=described(decision), subline=SUBLINE, caption=caption)


def numbers(decision: Decision) -> Html:
    """The same in numbers, a row a track; `decision.to_frame()` has them unrounded."""
    return table(
        number_rows(decision),
        caption="Each layer against its limit",
        numeric=("Difference (95% interval)", "Limit"),
    )


def missing(decision: Decision) -> Html:
    """What each layer still lacks, and its price."""
    return table(decision.missing, caption="Evidence still missing", columns=MISSING_COLUMNS)


def would_change(decision: Decision) -> Html:
    """What would turn the verdict."""
    return sentences(decision.would_change, none="Nothing within the rules of this study.")


def warnings(decision: Decision) -> Html:
    """What does not stop the decision but must be read."""
    return sentences(decision.warnings, none="No rule has a warning.")


def rules(decision: Decision) -> Html:
    """The rules it was made by, in words."""
    return sentences(decision.rules)


def history(history: History) -> Html:
    """What changed since the run before, and the primary difference over training runs once there are two."""
    shown, told = list(history.runs), note(changes.told(history))
    if len(changes.distinct(shown)) < 2:
        return joined(told, note("The picture begins with the second set of answers."))
    caption = (
        "Each point is one set of answers, a training run or a checkpoint, against its base model. "
        "95% intervals of the paired difference."
    )
    alt = changes.described(shown)
    return joined(told, picture(changes.differences, shown, alt=alt, caption=caption))


@answer.register
def _answer(result: Decision) -> Html:
    return answer(result.headline, simulated=result.rests_on_simulated)


TITLE = "A layer passes when its whole interval lies in the tinted zone"
SUBLINE = "Fine-tuned minus base, each track on its own scale. Dashed line: the limit set beforehand. Bar: 95% interval."
ONE_OF_MANY = "The slice warns and does not block: of several slices, one may lie wholly left of the line by chance."
MISSING_COLUMNS = {"name": "Layer", "action": "What", "why": "Why", "price": "Price"}
_WIDTH = 7.7
_NAMES = {"benchmark": "1 Benchmark", "human": "2 Human rating", "ab_test": "3 A/B test"}
_KINDS = {"passes": "better", "don't ship": "worse"}
_EFFECTS = ("blocks", "holds", "warns")
_NO_EFFECT = "no effect is shown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One track of the decision picture; an effect of None draws an empty track."""

    name: str
    under: str
    n: str
    word: str
    verdict: str
    value: str
    simulated: bool = False
    needed: bool = True
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float = 0.0
    shift: float = 0.0
    scale: str = "points"
    lower_is_better: bool = False
    empty: str = _NO_EFFECT
    at_limit: str = ""

    @property
    def kind(self) -> str:
        """How it is drawn."""
        return _KINDS.get(self.word, "unsure")

    @property
    def turn(self) -> int:
        """-1 where a fall is better: better stays on the right."""
        return -1 if self.lower_is_better else 1

    @property
    def span(self) -> float:
        """Half-width of the scale: the part right of zero."""
        known = (self.estimate, self.low, self.high, self.limit)
        values = [self.turn * value for value in known if value is not None]
        return max([0.02, *(value * 1.15 if value > 0 else -value * 0.8 for value in values)])

    def text(self, value: float) -> str:
        """A tick of this scale."""
        if self.shift:
            return wording.percent(value + self.shift, 0)
        if self.scale != "points":
            return wording.number(value)
        return wording.points(value, 0 if self.span >= 0.04 else 1)


def rows_of(decision: Decision) -> list[Row]:
    """The tracks: every layer, and under the benchmark the slice that decides: what blocks first, then the greatest loss."""
    rows = []
    for layer in decision.layers:
        rows.append(_layer_row(layer))
        slices = [
            one
            for one in layer.findings
            if one.rule in SLICE_RULES and one.numbers.get("estimate") is not None
        ]
        if slices:
            worst = min(slices, key=_gain)
            decides = min(slices, key=lambda one: (_EFFECTS.index(one.effect), _gain(one)))
            rows.append(
                _slice_row(
                    decides, "Its worst slice" if decides is worst else "Its slice that decides"
                )
            )
    return rows


def one_of_many(decision: Decision) -> bool:
    """Whether a slice is drawn whose whole interval is a loss, though none is shown: p is adjusted for their number."""
    drawn = {row.under for row in rows_of(decision)}
    return any(
        _gain(one) < 0 and (one.numbers.get("ci_low") or 0) * (one.numbers.get("ci_high") or 0) > 0
        for layer in decision.layers
        for one in layer.findings
        if one.rule in SLICE_RULES[1:] and one.numbers.get("slice") in drawn
    )


def _gain(slice_: Finding) -> float:
    """A slice's difference with the sign of good news."""
    gain = slice_.numbers.get("gain")
    return slice_.numbers["estimate"] if gain is None else gain


def tracks(decision: Decision, *, narrow: bool = False) -> Axes:
    """Every layer against its limit, on one line of no difference."""
    rows = rows_of(decision)
    step, top = (118, 28) if narrow else (90, 26)
    height = top + step * len(rows) + (4 if narrow else -14)
    figure, ax = style.canvas(height / 96, narrow=narrow, width=_WIDTH)
    figure.set_layout_engine("none")
    ax.set_position((0, 0, 1, 1))
    _draw(
        ax,
        rows,
        width=(style.NARROW if narrow else _WIDTH) * 96,
        height=height,
        step=step,
        top=top,
        narrow=narrow,
    )
    return style.titled(ax, TITLE, narrow=narrow)


def described(decision: Decision) -> str:
    """The picture in sentences."""
    told = [
        f"{row.name}, {row.under}{', simulated' if row.simulated else ''}: {row.word}, {row.verdict}, {row.value}."
        for row in rows_of(decision)
    ]
    return f"{len(told)} tracks share one line of no difference. {' '.join(told)}"


def number_rows(decision: Decision) -> list[dict[str, str]]:
    """The numbers of the picture, a row a track."""
    return [
        {
            "Evidence": f"{row.name}, {row.under}" + (" (simulated)" if row.simulated else ""),
            "n": row.n,
            "Difference (95% interval)": row.value,
            "Limit": row.at_limit
            or (row.text(row.limit) if row.shift else wording.points(row.limit)),
            "Verdict": row.verdict,
            "Gate": row.word,
        }
        for row in rows_of(decision)
    ]


def summary(decision: Decision, path: Path, *, title: str) -> Path:
    """Writes the decision as one picture for a chat message."""
    from matplotlib import pyplot

    rows = rows_of(decision)
    lines = textwrap.wrap(decision.headline, 62)
    head, height = 62 + 30 * len(lines), 26 + 90 * len(rows)
    with style.style():
        figure = pyplot.figure(
            figsize=(8.3, (head + height + 40) / 96), layout="none", facecolor=COLOURS["paper"]
        )
        whole = figure.get_size_inches()[1] * 96
        figure.text(
            0.036,
            1 - 24 / whole,
            wording.visible(title),
            va="top",
            color=COLOURS["muted"],
            fontsize=10,
        )
        figure.text(
            0.036,
            1 - 46 / whole,
            "\n".join(lines),
            va="top",
            weight="bold",
            fontsize=17,
            linespacing=1.25,
        )
        foot = f"{decision.made_at[:10]}, {SUBLINE}" + (
            " Hatched: simulated." if decision.simulated else ""
        )
        figure.text(0.036, 14 / whole, foot, va="bottom", color=COLOURS["muted"], fontsize=8.4)
        ax = figure.add_axes((0.036, 34 / whole, 0.928, height / whole))
        _draw(ax, rows, width=_WIDTH * 96, height=height, step=90, top=26, narrow=False)
        figure.savefig(
            path,
            dpi=144,
            facecolor=COLOURS["paper"],
            transparent=False,
            metadata={"Software": None},
        )
        pyplot.close(figure)
    return path


def _layer_row(layer: LayerDecision) -> Row:
    return Row(
        name=_NAMES[layer.layer],
        under=layer.metric or "not there yet",
        n=wording.plural(layer.n, layer.unit.removesuffix("s"), layer.unit)
        if layer.n is not None
        else wording.NOTHING,
        word=_track_word(layer),
        verdict=layer.verdict,
        value=layer.effect_text(),
        simulated=layer.simulated,
        needed=layer.required,
        estimate=layer.estimate,
        low=layer.ci_low,
        high=layer.ci_high,
        limit=layer.limit,
        shift=0.5 if layer.layer == "human" else 0.0,
        scale=layer.scale,
        lower_is_better=layer.lower_is_better,
        empty=_why_empty(layer),
    )


def _why_empty(layer: LayerDecision) -> str:
    """What stands on a track without an effect."""
    if layer.stale:
        return (
            "users saw other models" if layer.stale == "other_models" else "made for other answers"
        )
    if any(one.kind == OPEN_WINDOWS for one in layer.missing):
        return "users came, none counts yet"
    if layer.verdict in {MISSING, "too early"} and not layer.n:
        return "nothing recorded yet"
    return (
        "withheld until the plan allows it"
        if (layer.layer, layer.verdict) == ("ab_test", "too early")
        else _NO_EFFECT
    )


def _track_word(layer: LayerDecision) -> str:
    """The word of the layer's own effect: what a slice blocks is said on the slice's track."""
    if not layer.speaks:
        return "comes later"
    slices = {one.effect for one in layer.findings if one.rule in SLICE_RULES}
    others = {one.effect for one in layer.findings if one.rule not in SLICE_RULES}
    if layer.simulated or not slices & {"blocks", "holds"} or "blocks" in others:
        return layer.word
    if layer.verdict == "worse":
        return "don't ship"
    passes = layer.verdict in {"better", "not worse"} and "holds" not in others
    return "passes" if passes else "not yet"


def _slice_row(finding: Any, name: str) -> Row:
    row = finding.numbers
    low, high, scale = row.get("ci_low"), row.get("ci_high"), str(row.get("shown_as") or "points")
    digits = wording.decimals(row["estimate"], low, high)
    effect = wording.amount(row["estimate"], scale, digits=digits).removesuffix(" points")
    return Row(
        name=name,
        under=str(row.get("slice")),
        n=wording.plural(row.get("n") or 0, "example"),
        word={"blocks": "don't ship", "holds": "not yet"}.get(finding.effect, "warns"),
        verdict=str(row.get("standing") or row.get("verdict")).replace(
            "could not have been seen", "too few to see a loss"
        ),
        value=f"{effect} ({wording.limits(low, high, scale, digits=digits)})",
        estimate=row["estimate"],
        lower_is_better=_gain(finding) * row["estimate"] < 0,
        low=row.get("ci_low"),
        high=row.get("ci_high"),
        at_limit=f"0, {row['if_worse']} if shown worse"
        if row.get("if_worse") in {"blocks", "holds", "warns"}
        else "",
    )


def _draw(
    ax: Axes,
    rows: Sequence[Row],
    *,
    width: float,
    height: float,
    step: float,
    top: float,
    narrow: bool,
) -> None:
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    hatched = any(row.simulated for row in rows)
    left, right = (18.0 if hatched else 4.0, width - 8) if narrow else (188.0, width - 168)
    zero = left + (right - left) * 0.6
    for at, side, text in (
        (left, "left", "\u2190 worse"),
        (zero, "center", "no difference"),
        (right, "right", "better \u2192"),
    ):
        ax.text(at, top - 11, text, ha=side, va="bottom", color=COLOURS["muted"], fontsize=9)
    if not narrow:
        ax.plot(
            [zero, zero],
            [top - 6, top + step * len(rows) - 26],
            color=COLOURS["ink"],
            lw=0.9,
            zorder=2,
        )
    for place, row in enumerate(rows):
        start = top + place * step
        y = start + (74 if narrow else 30)
        _track(ax, row, y, left=left, zero=zero, right=right, narrow=narrow)
        if narrow:
            _words_above(ax, row, start, left=4.0, right=right)
        else:
            _words_beside(ax, row, y, left=0.0, right=right + 16)


def _track(
    ax: Axes, row: Row, y: float, *, left: float, zero: float, right: float, narrow: bool
) -> None:
    def at(value: float) -> float:
        return min(max(zero + row.turn * value * (right - zero) / row.span, left), right)

    empty = row.estimate is None
    box = Rectangle(
        (left, y - 12),
        right - left,
        24,
        fc=COLOURS["track"],
        ec=COLOURS["grid"] if empty else "none",
        lw=0.6 * empty,
        zorder=0,
    )
    if empty:
        box.set_hatch("///")
    ax.add_patch(box)
    if narrow:
        ax.plot([zero, zero], [y - 12, y + 12], color=COLOURS["ink"], lw=0.9, zorder=2)
    if row.simulated:
        for k in range(5):
            ax.plot(
                [left - 13, left - 6],
                [y - 4 + k * 4, y - 11 + k * 4],
                color=COLOURS["base"],
                lw=1,
                clip_on=narrow,
            )
    if row.estimate is None:
        look = {
            "color": COLOURS["muted"],
            "bbox": {"facecolor": COLOURS["paper"], "edgecolor": "none", "pad": 2.5},
        }
        ax.text(
            (left + right) / 2, y, row.empty, ha="center", va="center", fontsize=9, zorder=5, **look
        )
        return
    ax.add_patch(
        Rectangle(
            (at(row.limit), y - 12),
            right - at(row.limit),
            24,
            fc=COLOURS["pass_zone"],
            ec="none",
            zorder=1,
        )
    )
    ax.plot([at(row.limit)] * 2, [y - 17, y + 12], color=COLOURS["paper"], lw=2.6, zorder=2)
    ax.plot(
        [at(row.limit)] * 2,
        [y - 17, y + 12],
        color=COLOURS["ink"],
        lw=1.9,
        ls=(0, (2.2, 1.6)),
        zorder=2.5,
    )
    if told := row.at_limit or (row.text(row.limit) if row.limit else ""):
        x, below = (at(row.limit), y + 29) if narrow else (at(row.limit) - 5, y - 15)
        ax.text(
            x,
            below,
            f"limit {told}",
            ha="center" if narrow else "right",
            va="top" if narrow else "bottom",
            fontsize=9,
        )
    ends = [None if end is None else at(end) for end in (row.low, row.high)][:: row.turn]
    style.interval(ax, y, at(row.estimate), ends[0], ends[1], row.kind, width=8, size=10)
    bare = {"facecolor": COLOURS["paper"], "edgecolor": "none", "pad": 0.8}
    ticks = [row.turn * one for one in _ticks(row.span)]
    for tick in [*ticks, *([0.0] if row.shift else [])]:
        ax.plot([at(tick)] * 2, [y + 12, y + 15], color=COLOURS["axis"], lw=0.8)
        look = {"fontsize": 9, "color": COLOURS["muted"], "bbox": None if tick else bare}
        ax.text(at(tick), y + 17, row.text(tick), ha="center", va="top", zorder=3, **look)


def _ticks(span: float) -> list[float]:
    power = 10 ** math.floor(math.log10(span))
    step = next(nice * power for nice in (5, 2.5, 2, 1, 0.5) if nice * power <= span * 0.9)
    return [-2 * step if 2 * step < span * 1.35 else -step, -step, step][
        1 if 2 * step >= span * 1.35 else 0 :
    ]


def _words_beside(ax: Axes, row: Row, y: float, *, left: float, right: float) -> None:
    put = _writer(ax)
    put(left, y - 17, row.name, weight="bold", fontsize=10.4)
    put(left, y, _cut(row.under, 29), color=COLOURS["muted"])
    put(
        0,
        y + 16,
        row.n + (", simulated" if row.simulated else ""),
        color=COLOURS["muted"],
        style="italic" if row.simulated else "normal",
    )
    put(right, y - 17, _shown(row.word), weight="bold", fontsize=10.4, color=COLOURS[row.kind])
    put(right, y, row.verdict, color=COLOURS["muted"])
    put(right, y + 16, row.value, fontsize=9.4)


def _words_above(ax: Axes, row: Row, y: float, *, left: float, right: float) -> None:
    put = _writer(ax)
    put(left, y + 11, row.name, weight="bold", fontsize=10)
    put(left, y + 29, _cut(row.under, 28), color=COLOURS["muted"])
    put(
        left,
        y + 45,
        row.n + (", simulated" if row.simulated else ""),
        color=COLOURS["muted"],
        style="italic" if row.simulated else "normal",
    )
    put(
        right,
        y + 11,
        _shown(row.word),
        weight="bold",
        fontsize=10,
        ha="right",
        color=COLOURS[row.kind],
    )
    put(right, y + 29, row.verdict, ha="right", color=COLOURS["muted"])
    put(right, y + 45, row.value, ha="right")


def _writer(ax: Axes) -> Callable[..., None]:
    def put(x: float, y: float, text: str, **look: Any) -> None:
        ax.text(x, y, text, **{"va": "center", "fontsize": 9.2} | look)

    return put


def _shown(word: str) -> str:
    return word[:1].upper() + word[1:].replace("'", "’")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
