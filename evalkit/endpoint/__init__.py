"""A model as a callable: any OpenAI-compatible endpoint, or a function of one's own.

Loaded when asked for: who only reads replies does not wait for openai's client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.endpoint.callables import CallableModel, ModelFunction
    from evalkit.endpoint.client import Endpoint, Parameters

_HOMES = {"CallableModel": "callables", "ModelFunction": "callables", "Endpoint": "client", "Parameters": "client"}
__all__ = ["CallableModel", "Endpoint", "ModelFunction", "Parameters"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evalkit.endpoint' has no attribute {name!r}")
    return getattr(import_module(f"evalkit.endpoint.{_HOMES[name]}"), name)
