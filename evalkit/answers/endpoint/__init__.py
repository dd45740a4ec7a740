"""A model as a callable: any OpenAI-compatible endpoint, or a function of one's own."""

from typing import TYPE_CHECKING, Any

from evalkit.answers.endpoint.callables import CallableModel, ModelFunction
from evalkit.answers.endpoint.identity import identity
from evalkit.answers.endpoint.parameters import Parameters

if TYPE_CHECKING:
    from evalkit.answers.endpoint.client import Endpoint

__all__ = ["CallableModel", "Endpoint", "ModelFunction", "Parameters", "identity"]


def __getattr__(name: str) -> Any:
    if name != "Endpoint":
        raise AttributeError(f"module 'evalkit.answers.endpoint' has no attribute {name!r}")
    from evalkit.answers.endpoint.client import (
        Endpoint,
    )  # openai takes most of a second: only who asks a model waits for it

    return Endpoint
