"""Results as tables, sentences and pictures; importing this package puts the theme in force where somebody reads along."""

import sys
from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from inspect import isfunction, signature
from typing import Any

from evalkit.errors import DesignError

_ROOMS = {
    "figure": "picture",
    "tables": "answer chip note sentences table",
    "decision": "history layers missing numbers rules warnings would_change",
    "abtest": "clustering duration goal guardrails ledger log_notes margins peeking plan power sample_ratio watched",
    "effect": "by_hand by_request cuped days effect_slices effect_title later looks over_time z_test",
    "human": "agreement disagreements length metric_agreement population preference_slices progress prospects raters "
    "rating_round reasons seal sides titled votes win_rate",
    "comparison": "asked caveats cells checkpoints costs detectable differences metrics rates similarity spread",
    "regressions": "coefficients elsewhere examples flips forest handed_on regression scatter segments slices",
    "doctor": "checkup",
    "explorer": "Explorer",
}
_HOMES = {name: f"{__name__}.{room}" for room, names in _ROOMS.items() for name in names.split()}
RECORDS = {  # where each stands: what shows it as a cell's last value, and what gives it to a function here
    "benchmark.comparison.Comparison": ("", "here.compare()"),
    "benchmark.slices.SliceTable": ("slices", "comparison.slices()"),
    "benchmark.noise.NoiseFloor": ("flips", "here.ask_twice(comparison)"),
    "benchmark.slices.Found": ("segments", "comparison.find_slices()"),
    "benchmark.doctor.Checkup": ("checkup", "here.checkup()"),
    "benchmark.benchmark.Costs": ("costs", "here.costs()"),
    "human.round.StudyRound": ("rating_round", "here.round()"),
    "human.preference.Preference": ("win_rate", "here.preference()"),
    "abtest.plan.ABPlan": ("goal", "here.draft(), or here.plan().plan"),
    "abtest.lock.LockedPlan": ("plan", "here.plan()"),
    "abtest.reading.Reading": ("z_test", "here.reading()"),
    "abtest.reading.NoReading": ("plan", ""),
    "decision.layers.Decision": ("layers", "here.decide()"),
    "decision.history.History": ("history", "here.history()"),
}
_MADE_BY = {place.rpartition(".")[2]: made for place, (_, made) in RECORDS.items() if made}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll] - filled lazily below


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(import_module(_HOMES[name]), name)
        return _asking(found) if isfunction(found) else found
    if name in {*_ROOMS, "style", "tracks"}:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _asking(show: Callable[..., Any]) -> Callable[..., Any]:
    """The function; given another record than it takes, it says which one, and what gives it."""
    wanted = [str(one.annotation).split(" | ") for one in signature(show).parameters.values()]

    @wraps(show)
    def asking(*given: Any, **options: Any) -> Any:
        for one, kinds in zip(given, wanted, strict=False):
            made = {base.__name__ for base in type(one).__mro__}
            if kinds[0] in _MADE_BY and not made & set(kinds):
                need = f"{kinds[0]}, as {_MADE_BY[kinds[0]]} gives it"
                raise DesignError(f"show.{show.__name__} got a {type(one).__name__}; need {need}")
        return show(*given, **options)

    return asking


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext evalkit.show`, and warm kernels, in which this package was imported before there was a shell."""
    import_module(f"{__name__}.style").use_in(shell)


if (
    "IPython" in sys.modules
):  # a script's figures keep the look they have, and importing loads no plotting library
    import_module(f"{__name__}.style").use_where_read()
