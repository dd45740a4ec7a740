"""Results as tables, sentences and pictures; importing this package draws nothing and loads no plotting library."""

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
