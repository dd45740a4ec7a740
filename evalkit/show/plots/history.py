"""The primary difference over training runs and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.show import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Run = Mapping[str, Any]  # a row of the history, as it was read


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


def alt(runs: Sequence[Run]) -> str:
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
