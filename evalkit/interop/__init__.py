"""Other tools' formats: logs of their runs read as ours, votes and answers written for them; no tool is needed for it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.interop.recognition import read_log
    from evalkit.interop.run_log import Log

__all__ = ["Log", "read_log"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'evalkit.interop' has no attribute {name!r}")
    home = "run_log" if name == "Log" else "recognition"
    return getattr(import_module(f"evalkit.interop.{home}"), name)
