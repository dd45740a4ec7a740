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

from evalkit import wording
from evalkit.evidence import Evidence, HumanDetails
from evalkit.records import Against, Layer

StaleKind = Literal["other_answers", "other_models", "unbound"]
_OTHERS = {
    "test_set": "another test set",
    "base": "other answers of the base model",
    "fine_tuned": "other answers of the fine-tuned model",
    "base_journal": "other answers of the base model",
    "fine_tuned_journal": "other answers of the fine-tuned model",
}


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
    at_gate = {layer: one for layer, one in evidence.items() if not stale.get(layer)}
    once = {
        one.key: one
        for one in found
        if _is_about(one, evidence) and not _settled(one, at_gate.get(one.layer))
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


def _settled(one: Against, now: Evidence | None) -> bool:
    """Whether what is at the gate is the present answer to the question that this result answered."""
    if now is None or now.simulated or not now.primary or now.primary.estimate is None:
        return False
    is_worse, same_source = now.verdict == "worse", one.source == now.source
    if one.layer == "benchmark":
        same_base = one.models.get("base") == now.models.get("base")
        same_test = one.bound_to.get("test_set") == now.bound_to.get("test_set")
        return same_base and same_test and same_source
    if isinstance(now.details, HumanDetails):
        same, lock = dict(one.bound_to) == dict(now.bound_to), now.details.lock
        return same and same_source and (is_worse or not (lock and lock.locked_before))
    return (one.replaced_by_later or is_worse) and same_source


def against_of(evidence: Evidence, word: str, said: str = "") -> Against | None:
    """A layer's evidence as a result against the model; None when it says nothing against it, or is simulated."""
    if word != "don't ship" or evidence.simulated:
        return None
    of_users = evidence.layer == "ab_test"
    return Against(
        layer=evidence.layer,
        source=evidence.source,
        models=dict(evidence.models),
        bound_to={} if of_users else dict(evidence.bound_to),
        said=said,
        at=evidence.made_at,
        replaced_by_later=of_users and evidence.verdict != "worse",
    )


def stale_in(evidence: Mapping[Layer, Evidence], layer: Layer) -> Stale | None:
    """Why a layer's evidence is not about what the benchmark compared; None when it is.

    Raters saw these very answers, so all the hashes that both know must agree. Users saw the models that the plan names,
    never the test set; without a plan (no metric) nothing can be stale.
    """
    this, benchmark, of_users = evidence.get(layer), evidence.get("benchmark"), layer == "ab_test"
    if this is None or benchmark is None or layer == "benchmark" or (of_users and not this.metric):
        return None
    if of_users and (told := _other_models(this, benchmark)):
        return Stale(kind="other_models", words=f"made for {wording.listed(told)}")
    ours, theirs = this.bound_to, benchmark.bound_to
    names = ("base", "fine_tuned") if of_users else [*theirs]
    both = [name for name in names if ours.get(name) and theirs.get(name)]
    if differ := [_OTHERS.get(name, name) for name in both if ours[name] != theirs[name]]:
        return Stale(kind="other_answers", words=f"made for {wording.listed(differ)}")
    named, bound = (
        this.models.get("fine_tuned"),
        ours.get("fine_tuned") and theirs.get("fine_tuned"),
    )
    told = ""
    if of_users and not named and this.primary and this.primary.estimate is not None:
        told = "made for another model, or names none"
    if not of_users and named != benchmark.models.get("fine_tuned"):
        told = "made for another model, or not bound to any answers"
    return Stale(kind="unbound", words=told) if told and not bound else None


def _other_models(ab_test: Evidence, benchmark: Evidence) -> list[str]:
    """The log holds no answers to hash, so the plan's names say who answered."""
    named, compared = ab_test.models, benchmark.models
    return [
        f"another {words} model, {wording.visible(named[side])} instead of {wording.visible(compared[side])}"
        for side, words in (("base", "base"), ("fine_tuned", "fine-tuned"))
        if named.get(side) and compared.get(side) and named[side] != compared[side]
    ]
