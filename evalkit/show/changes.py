"""What a study's history says of this run: what is different from the run before, and how worn the test set is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.decision.history import FILE, History
from evalkit.decision.rules import NAMES
from evalkit.show import style
from evalkit.wording import decimals, plural, points, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Run = Mapping[str, Any]  # a row of the history, as it was read


def told(history: History) -> str:
    """All there is to say, in a few sentences."""
    rows, now = history.rows, history.now
    torn = (
        f"The last line of {FILE} is unfinished and was left out; the end of this run removes it."
        if history.torn
        else ""
    )
    return " ".join(filter(None, (what_changed(rows, now), worn_out(rows, now), torn)))


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
    changes = [
        *_named(earlier, before, now),
        *_layers(before, now),
        *_metrics(before, now),
        *_parameters(before, now),
    ]
    if not changes:
        return f"Nothing changed since the run of {_day(before)}: same parameters, same answers, same layers, same verdict."
    return f"Since the run of {_day(before)}: {'; '.join(changes)}."


def worn_out(rows: Sequence[Run], now: Run) -> str:
    """What it means that one test set has judged several sets of answers; "" when this is its first.

    Each look at a test set to choose by it makes the chosen model look better on it than it is.
    """
    test_set = (now.get("bound_to") or {}).get("test_set")
    judged = {
        bound.get("fine_tuned")
        for row in [*rows, now]
        if (bound := row.get("bound_to") or {}).get("test_set") == test_set and test_set
    } - {None}
    n = max(len(judged), now.get("n_compared") or 1)
    if n < 2:
        return ""
    return (
        f"This test set has judged {n} sets of answers. One used for choosing wears out: the best of several looks better "
        "on it than it is, so keep a fresh test set for the last word."
    )


def _named(earlier: Sequence[Run], before: Run, now: Run) -> list[str]:
    changes = []
    for name, words in (
        ("test_set", "the test set"),
        ("base", "the base model's answers"),
        ("fine_tuned", "the fine-tuned model's answers"),
    ):
        old, new = (row.get("bound_to", {}).get(name) for row in (before, now))
        if old and new and old != new:
            changes.append(f"{words} {_otherwise(name, earlier, before, now)}")
    if before.get("verdict") != now.get("verdict"):
        changes.append(
            f"the verdict went from {before.get('verdict') or 'none'} to {now.get('verdict') or 'none'}"
        )
    return changes


def _otherwise(
    name: str,
    earlier: Sequence[Run],
    before: Run,
    now: Run,
) -> str:
    """What became of a hash; answers are new when no earlier run has seen them, and the model is the same."""
    if name == "test_set":
        return "is another"
    known = [r for r in earlier if (r.get("bound_to") or {}).get(name) == now["bound_to"][name]]
    if known:
        return f"are those of the run of {_day(known[-1])}"
    old, new = ((row.get("models") or {}).get(name) for row in (before, now))
    return "are another model's" if old and new and old != new else "are new"


def _parameters(before: Run, now: Run) -> list[str]:
    old, new = (row.get("parameters") or {} for row in (before, now))
    changed = [name for name in new if name in old and old[name] != new[name]]
    code = [(row.get("own_code") or {}) for row in (before, now)]
    rules = [
        one for one in now.get("rules") or () if before.get("rules") and one not in before["rules"]
    ]
    given = [f"{name} went from {_value(old[name])} to {_value(new[name])}" for name in changed]
    if before.get("stage") and now.get("stage") and before["stage"] != now["stage"]:
        given.append(f"stage went from {before['stage']} to {now['stage']}")
    other = [name for name in code[1] if name in code[0] and code[0][name] != code[1][name]]
    given += [f"{_value(name)}, which scores answers, is another" for name in other]
    return [*given, *(f"a rule is new: {one.rstrip('.')}" for one in rules)]


def _value(value: object) -> str:
    return visible(str(value)) or "nothing"


def _layers(before: Run, now: Run) -> list[str]:
    """What the layers say; the benchmark's effects follow metric by metric, and older rows know no effects."""
    changes = []
    for layer in now.get("layers") or {}:
        if layer in (before.get("layers") or {}):
            told = layer != "benchmark" and "effects" in before
            old, new = (_said(row, layer, with_effect=told) for row in (before, now))
            changes += [f"the {NAMES[layer]} went from {old} to {new}"] if old != new else []
    return changes


def _said(row: Run, layer: str, *, with_effect: bool) -> str:
    effect = row.get("effects", {}).get(layer)
    return f"{row['layers'][layer]}, {effect}" if with_effect and effect else row["layers"][layer]


def _metrics(before: Run, now: Run) -> list[str]:
    changes = []
    for name, metric in now.get("metrics", {}).items():
        old, new = before.get("metrics", {}).get(name, {}).get("estimate"), metric.get("estimate")
        if old is None or new is None:
            continue
        digits = max(decimals(one) for one in (old, new))
        if points(old, digits) != points(new, digits):
            told = f"from {points(old, digits)} to {points(new, digits)} points (not tested)"
            changes.append(f"the difference in {name.replace('_', ' ')} went {told}")
    return changes


def _day(row: Run) -> str:
    return str(row.get("made_at", ""))[:16].replace("T", " ") or str(row.get("run"))


def differences(runs: Sequence[Run], *, narrow: bool = False) -> Axes:
    """The primary metric's difference over training runs: one interval for each set of answers, newest at the right."""
    runs = distinct(runs)[-(6 if narrow else 12) :]
    _, ax = style.canvas(2.8, narrow=narrow)
    for place, run in enumerate(runs):
        metric = _primary(run)
        style.interval(
            ax,
            place,
            metric["estimate"],
            metric["ci_low"],
            metric["ci_high"],
            metric["verdict"],
            width=7,
            vertical=True,
        )
        ax.annotate(
            _size(metric),
            (place, metric["estimate"]),
            (9, 0),
            textcoords="offset points",
            va="center",
        )
    style.zero_line(ax, vertical=False)
    ax.set_xlim(-0.6, max(len(runs), 3) - 0.4)
    ax.set_xticks(range(len(runs)), [_when(run) for run in runs])
    low, high = ax.get_ylim()
    digits = 0 if high - low >= 0.03 else 2
    ax.yaxis.set_major_formatter(lambda value, _: wording.points(value, digits))
    return style.titled(ax, _title(runs), narrow=narrow, above="points over the base model")


def described(runs: Sequence[Run]) -> str:
    """The history in sentences."""
    shown = distinct(runs)[-12:]
    told = [
        f"{str(run.get('made_at') or 'this run')[:10]}: {_size(_primary(run))} points, "
        f"{wording.interval(_primary(run)['ci_low'], _primary(run)['ci_high'], digits=_digits(_primary(run)))}."
        for run in shown
    ]
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
    metrics = run.get("metrics") or {}
    return metrics.get(run.get("primary")) or {}


def _title(runs: Sequence[Run]) -> str:
    if not runs:
        return "No run has a primary effect yet"
    last, name = _primary(runs[-1]), str(runs[-1].get("primary")).replace("_", " ")
    if len(runs) == 1:
        return f"The first training run: {name} {_with_limits(last)} points"
    before = _with_limits(_primary(runs[-2]))
    return (
        f"{name.capitalize()} is {_with_limits(last)} points over base, the answers before {before}"
    )


def _size(metric: Run) -> str:
    return wording.points(metric["estimate"], _digits(metric))


def _with_limits(metric: Run) -> str:
    limits = wording.limits(metric["ci_low"], metric["ci_high"], digits=_digits(metric))
    return f"{_size(metric)} ({limits})"


def _digits(metric: Run) -> int:
    return wording.decimals(metric["estimate"], metric["ci_low"], metric["ci_high"])


def _when(run: Run) -> str:
    day = str(run["made_at"])[5:10] if run.get("made_at") else "this run"
    return f"{day}\n{str(run['models'].get('fine_tuned', ''))[:14]}"
