"""Results against this model that nothing at the gate answers: they hold the decision until they are settled or retired.

Evidence for a model counts only for the answers it was made for. Evidence against it is the other way round: that the
answers, the test set or the plan changed since does not take it back. So a result against stands until

- the same question has been asked again and its present answer is at the gate (a benchmark in the same metric, against
  the same base, on the same test set; the same rating round, unless its lock was removed to vote again; the same A/B
  test, unless a planned look had decided it),
- or the study retires it by its key, with a reason, in `retired_evidence` of its rules file; the report prints that.

Whom it is about is told by names, because names are what a plan, a round and a log know of a model: a fine-tuned model
of another name is another model, unless its recorded answers are the very same. A result that names no model stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from evalkit.records import Against, Evidence, Layer

StaleKind = Literal["other_answers", "other_models", "unbound"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """Why a layer's evidence is not about what the benchmark compared: a kind for code, words for people."""

    kind: StaleKind
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What stands against this model in one layer, and what of it the study has retired, with the reason."""

    against: tuple[Against, ...] = ()
    retired: tuple[tuple[Against, str], ...] = ()


def standing(
    found: Iterable[Against],
    evidence: Mapping[Layer, Evidence],
    *,
    stale: Mapping[Layer, Stale | None],
    retired: Mapping[str, str],
) -> dict[Layer, Standing]:
    """What stands against the model at the gate, by layer, each result once.

    Args:
        found: Results against any model of the study, from any time.
        evidence: What is at the gate now.
        stale: Which of it is not about the present answers or models.
        retired: Reasons by key, from the study's rules.
    """
    at_gate: dict[Layer, Evidence] = {
        layer: one for layer, one in evidence.items() if not stale.get(layer)
    }
    once = {
        one.key: one for one in found if _is_about(one, evidence) and not _settled(one, at_gate)
    }
    layers: dict[Layer, Standing] = {}
    for layer in stale:
        ours = [one for one in once.values() if one.layer == layer]
        layers[layer] = Standing(
            against=tuple(one for one in ours if one.key not in retired),
            retired=tuple((one, retired[one.key]) for one in ours if one.key in retired),
        )
    return layers


def _is_about(one: Against, evidence: Mapping[Layer, Evidence]) -> bool:
    """Same name of the fine-tuned model, same recorded answers of it, or no way to tell."""
    now = evidence.get("benchmark") or next(iter(evidence.values()), None)
    name, hash_ = one.models.get("fine_tuned"), one.bound_to.get("fine_tuned")
    if now is None or not name or not now.models.get("fine_tuned"):
        return True
    same_answers = bool(hash_) and hash_ == now.bound_to.get("fine_tuned")
    return name == now.models["fine_tuned"] or same_answers


def _settled(one: Against, at_gate: Mapping[Layer, Evidence]) -> bool:
    """Whether what is at the gate is the present answer to the question that this result answered."""
    now = at_gate.get(one.layer)
    if now is None or now.simulated or (now.primary or {}).get("estimate") is None:
        return False
    if one.layer == "benchmark":
        same_base = one.models.get("base") == now.models.get("base")
        same_test = one.bound_to.get("test_set") == now.bound_to.get("test_set")
        return same_base and same_test and one.source == now.metric
    if one.layer == "human":
        same = dict(one.bound_to) == dict(now.bound_to)
        opened_again = bool((now.details.get("lock") or {}).get("locked_before"))
        turned = opened_again and (now.primary or {}).get("verdict") != "worse"
        return same and one.source == now.details.get("round") and not turned
    repeated = one.replaced_by_later or (now.primary or {}).get("verdict") == "worse"
    return repeated and one.source == now.details.get("experiment")
