"""Results as tables, sentences and pictures; importing this package puts the theme in force where somebody reads along."""

import sys
from importlib import import_module
from typing import Any

_HOMES = {
    "picture": "evalkit.show.figure",
    "table": "evalkit.show.tables",
    "answer": "evalkit.show.tables",
    "note": "evalkit.show.tables",
    "sentences": "evalkit.show.tables",
    "chip": "evalkit.show.tables",
    "chips": "evalkit.show.tables",
    **dict.fromkeys(
        ("layers", "numbers", "missing", "would_change", "warnings", "rules", "history"),
        "evalkit.show.decision",
    ),
    **dict.fromkeys(
        (
            *("goal", "power", "duration", "peeking", "margins", "clustering", "plan"),
            *(
                "sample_ratio",
                "log_notes",
                "watched",
                "guardrails",
                "z_test",
                "by_hand",
                "by_request",
            ),
            *(
                "looks",
                "later",
                "over_time",
                "cuped",
                "effect_slices",
                "days",
                "ledger",
                "effect_title",
            ),
        ),
        "evalkit.show.abtest",
    ),
    **dict.fromkeys(
        (
            *("rating_round", "prospects", "progress"),
            *("seal", "win_rate", "votes", "length", "population", "sides", "agreement", "raters"),
            *("preference_slices", "reasons", "metric_agreement", "disagreements", "titled"),
        ),
        "evalkit.show.human",
    ),
    **dict.fromkeys(
        (
            "asked",
            "checkup",
            "rates",
            "caveats",
            "differences",
            "metrics",
            "cells",
            "similarity",
            "spread",
            "costs",
            "checkpoints",
            "forest",
            "slices",
            "elsewhere",
            "regression",
            "coefficients",
            "flips",
            "examples",
            "scatter",
            "segments",
            "detectable",
            "handed_on",
        ),
        "evalkit.show.benchmark",
    ),
    "Explorer": "evalkit.show.explorer",
}
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
    import_module(f"{__name__}.theme").use_in(shell)


if (
    "IPython" in sys.modules
):  # a script's figures keep the look they have, and importing loads no plotting library
    import_module(f"{__name__}.theme").use_where_read()
