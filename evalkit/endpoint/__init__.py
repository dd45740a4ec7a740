"""A model as a callable: any OpenAI-compatible endpoint, or a function of one's own."""

from evalkit.endpoint.callables import CallableModel, ModelFunction
from evalkit.endpoint.client import Endpoint, Parameters

__all__ = ["CallableModel", "Endpoint", "ModelFunction", "Parameters"]
