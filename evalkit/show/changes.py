"""What a study's history says of this run: what is different from the run before, and how worn the test set is.

And the picture of it: the primary difference over training runs and checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from evalkit.decision.history import FILE, History
from evalkit.decision.rules import NAMES
from evalkit.files import JsonObject as Run  # a row of the history, as it was read
from evalkit.show import style
from evalkit.wording import decimals, interval, limits, plural, points, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BOUND = {
    "test_set": "the test set",
    "base": "the base model's answers",
    "fine_tuned": "the fine-tuned model's answers",
}


def told(history: History) -> str:
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
        n = plural(len(earlier), "earlier run")
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
        digits = max(decimals(old), decimals(new))
        was, is_now = points(old, digits), points(new, digits)
        if was != is_now:
            words = f"the difference in {name.replace('_', ' ')}"
            yield f"{words} went from {was} to {is_now} points (not tested)"


def _said(row: Run, layer: str, *, with_effect: bool) -> str:
    word, effect = row["layers"][layer], row.get("effects", {}).get(layer)
    return f"{word}, {effect}" if with_effect and effect else word


def _given(before: Run, now: Run) -> Iterator[str]:
    """Parameters, the stage, own code that scores, and rules."""
    old, new = (row.get("parameters") or {} for row in (before, now))
    for name in new:
        if name in old and old[name] != new[name]:
            yield f"{name} went from {_value(old[name])} to {_value(new[name])}"
    stages = [row.get("stage") for row in (before, now)]
    if all(stages) and stages[0] != stages[1]:
        yield f"stage went from {stages[0]} to {stages[1]}"
    old, new = (row.get("own_code") or {} for row in (before, now))
    for name in new:
        if name in old and old[name] != new[name]:
            yield f"{_value(name)}, which scores answers, is another"
    for rule in now.get("rules") or ():
        if before.get("rules") and rule not in before["rules"]:
            yield f"a rule is new: {rule.rstrip('.')}"


def _value(value: object) -> str:
    return visible(str(value)) or "nothing"


def _day(row: Run) -> str:
    return str(row.get("made_at", ""))[:16].replace("T", " ") or str(row.get("run"))


def differences(runs: Sequence[Run], *, narrow: bool = False) -> Axes:
    """The primary metric's difference over training runs: one interval for each set of answers, newest at the right."""
    runs = distinct(runs)[-(6 if narrow else 12) :]
    _, ax = style.canvas(2.8, narrow=narrow)
    for place, run in enumerate(runs):
        one = _primary(run)
        estimate, low, high = one["estimate"], one["ci_low"], one["ci_high"]
        style.interval(ax, place, estimate, low, high, one["verdict"], width=7, vertical=True)
        at = (place, estimate)
        ax.annotate(_size(one), at, (9, 0), textcoords="offset points", va="center")
    style.zero_line(ax, vertical=False)
    ax.set_xlim(-0.6, max(len(runs), 3) - 0.4)
    ax.set_xticks(range(len(runs)), [_when(run) for run in runs])
    low, high = ax.get_ylim()
    digits = 0 if high - low >= 0.03 else 2
    ax.yaxis.set_major_formatter(lambda value, _: points(value, digits))
    return style.titled(ax, _title(runs), narrow=narrow, above="points over the base model")


def described(runs: Sequence[Run]) -> str:
    """The history in sentences."""
    shown, told = distinct(runs)[-12:], []
    for run in shown:
        one, day = _primary(run), str(run.get("made_at") or "this run")[:10]
        ends = interval(one["ci_low"], one["ci_high"], digits=_digits(one))
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
    return points(metric["estimate"], _digits(metric))


def _with_limits(metric: Run) -> str:
    ends = limits(metric["ci_low"], metric["ci_high"], digits=_digits(metric))
    return f"{_size(metric)} ({ends})"


def _digits(metric: Run) -> int:
    return decimals(metric["estimate"], metric["ci_low"], metric["ci_high"])


def _when(run: Run) -> str:
    day = str(run["made_at"])[5:10] if run.get("made_at") else "this run"
    return f"{day}\n{str(run['models'].get('fine_tuned', ''))[:14]}"
