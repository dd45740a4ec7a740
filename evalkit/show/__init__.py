"""Results as tables, sentences and pictures; importing this package puts the theme in force where somebody reads along."""

import sys
from importlib import import_module
from typing import Any

_ROOMS = {
    "figure": "picture",
    "tables": "answer chip note sentences table",
    "decision": "history layers missing numbers rules warnings would_change",
    "abtest": "by_hand by_request clustering cuped days duration effect_slices effect_title goal guardrails later ledger "
    "log_notes looks margins over_time peeking plan power sample_ratio watched z_test",
    "human": "agreement disagreements length metric_agreement population preference_slices progress prospects raters "
    "rating_round reasons seal sides titled votes win_rate",
    "benchmark": "asked caveats cells checkpoints coefficients costs detectable differences elsewhere examples flips "
    "forest handed_on metrics rates regression scatter segments similarity slices spread",
    "doctor": "checkup",
    "explorer": "Explorer",
}
_HOMES = {name: f"{__name__}.{room}" for room, names in _ROOMS.items() for name in names.split()}
_MODULES = {"style", "figure", "tables", "plots", "say", "explorer"}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll] - filled lazily below


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext evalkit.show`, and warm kernels, in which this package was imported before there was a shell."""
    import_module(f"{__name__}.style").use_in(shell)


if (
    "IPython" in sys.modules
):  # a script's figures keep the look they have, and importing loads no plotting library
    import_module(f"{__name__}.style").use_where_read()
