"""Other tools' formats: logs of their runs read as ours, votes and answers written for them; no tool is needed for it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.interop.logs import Log, read_log

__all__ = ["Log", "read_log"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from evalkit.interop import logs

    return getattr(logs, name)
