"""Three layers of evidence, one decision: ship, don't ship, or not yet, with what is missing and its price."""

from evalkit.decision.layers import Decision, LayerDecision, decide, read_decision, read_evidence
from evalkit.decision.rules import Rules

__all__ = ["Decision", "LayerDecision", "Rules", "decide", "read_decision", "read_evidence"]
