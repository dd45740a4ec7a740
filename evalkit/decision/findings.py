"""What the rules have to say about one layer's evidence, and what still stands against the model from before.

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

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from evalkit import wording
from evalkit.decision.concerns import Concern
from evalkit.decision.rules import Effect, Rules
from evalkit.evidence import (
    ABEvidence,
    BenchmarkDetails,
    BenchmarkEvidence,
    Evidence,
    HumanDetails,
    HumanEvidence,
    ReportedGuardrail,
    ReportedOutcomes,
    ReportedSlice,
    as_json,
)
from evalkit.files import JsonObject
from evalkit.records import Against, Layer, Missing

SLICE_RULES = ("slice_worse", "slice_looks_bad", "slice_could_not_be_seen")
STANDS_AGAINST, RETIRED = "stands_against", "retired_evidence"
UNCONFIRMED, CONFIRMED = "unconfirmed", "confirmed"  # changes after a result, by a reason
_SLICE_NUMBERS = (
    "slice",
    "n",
    "base_rate",
    "fine_tuned_rate",
    "gain",
    "ci_low",
    "ci_high",
    "p_adjusted",
    "verdict",
    "standing",
    "margin",
    "chance_to_see",
    "shown_as",
)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something a rule speaks about: a slice, a metric, a guardrail, fragility.

    Attributes:
        rule: The rule's name in `Rules`, or `STANDS_AGAINST`, which no rule can change.
        effect: What that rule does.
        numbers: What was found, by the names that the layer's own file has; `evalkit.show.lacking` says it.
        missing: What would settle it; None where nothing is named.
    """

    rule: str
    effect: Effect
    numbers: JsonObject = field(default_factory=dict)
    missing: Missing | None = None

    @property
    def is_loss(self) -> bool:
        """Whether it says that the fine-tuned model is worse in something."""
        return self.rule in {"slice_worse", "other_metric_worse"}

    @property
    def gain(self) -> float:
        """A slice's difference with the sign of good news."""
        gain = self.numbers.get("gain")
        return self.numbers["estimate"] if gain is None else gain


def find(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    """Everything in a layer's evidence that a rule speaks about, whatever the rule does."""
    match evidence:
        case BenchmarkEvidence(details=seen):
            yield from _test_set(seen, rules)
            yield from _slices(seen.slices, rules)
            yield from _other_metrics(evidence, rules)
            yield from _chance(seen, rules)
        case HumanEvidence(details=seen):
            yield from _raters(seen, rules)
            yield from _preference(evidence, rules)
        case ABEvidence(details=seen):
            yield from _plan(evidence, rules)
            yield from _guardrails(seen.guardrails, rules)


def of_changes(changed: Iterable[str], rules: Rules) -> Iterator[Finding]:
    """What is declared otherwise than when results on this test set were seen, as `concerns` tells it."""
    for what in changed:
        settle = Missing(kind="declared_after_results", said=what)
        yield _by_rule(rules, "declared_after_results", {"what": what}, settle)


def of_standing(standing: Standing) -> Iterator[Finding]:
    """What stands against the model from before, which holds, and what of it the study has retired, which is told."""
    if keys := [found.key for found in standing.against]:
        yield Finding(rule=STANDS_AGAINST, effect="holds", numbers={"keys": keys})
    for found, why in standing.retired:
        numbers = {"keys": [found.key], "source": found.source, "reason": why}
        yield Finding(rule=RETIRED, effect="warns", numbers=numbers)


def of_concerns(concerns: Iterable[Concern]) -> Iterator[Finding]:
    """What was changed after it could be known how it turns out: it holds until a reason is on record, which is told."""
    for one in concerns:
        numbers = {"keys": [one.key], "what": one.text, "reason": one.reason}
        if one.reason:
            yield Finding(rule=CONFIRMED, effect="warns", numbers=numbers)
        else:
            yield Finding(rule=UNCONFIRMED, effect="holds", numbers=numbers)


def _by_rule(
    rules: Rules,
    rule: str,
    numbers: Mapping[str, object] | None = None,
    missing: Missing | None = None,
) -> Finding:
    known = dict(numbers or {})
    return Finding(rule=rule, effect=getattr(rules, rule), numbers=known, missing=missing)


def _test_set(seen: BenchmarkDetails, rules: Rules) -> Iterator[Finding]:
    for kind, n in (("leak", seen.n_leaks), ("conflict", seen.n_conflicts)):
        if n:
            yield _by_rule(rules, "test_set_faulty", {"kind": kind, "n": n})


def _slices(rows: Iterable[ReportedSlice], rules: Rules) -> Iterator[Finding]:
    for row in rows:
        if rule := _of_slice(row):
            numbers = {name: getattr(row, name) for name in _SLICE_NUMBERS}
            known = {"estimate": row.difference, "if_worse": rules.slice_worse}
            yield _by_rule(rules, rule, numbers | known)


def _of_slice(row: ReportedSlice) -> str:
    """Which rule speaks about a slice; "" when none does."""
    if "worse" in {row.verdict, row.standing}:
        return "slice_worse"
    if row.standing == "looks bad":
        return "slice_looks_bad"
    # Evidence written before the three words were told apart knows no standing.
    unsafe = row.standing is None and "not shown" in {row.safety, row.verdict}
    unseen = row.standing == "could not have been seen"
    return "slice_could_not_be_seen" if unseen or unsafe else ""


def _other_metrics(evidence: BenchmarkEvidence, rules: Rules) -> Iterator[Finding]:
    adjusted = evidence.details.p_adjusted
    for name, metric in evidence.details.metrics.items():
        test, p_value = metric.test, adjusted.get(name, metric.test.p_value)
        shown = p_value is not None and p_value < (test.alpha or 0.05)
        is_other = name.replace("_", " ") != evidence.metric.replace("_", " ")
        if test.verdict == "worse" and shown and is_other:
            yield _by_rule(rules, "other_metric_worse", as_json(test) | {"metric": name})


def _chance(seen: BenchmarkDetails, rules: Rules) -> Iterator[Finding]:
    if seen.fragile:
        yield _by_rule(rules, "fragile")
    if not seen.noise_floor:
        yield _by_rule(rules, "noise_not_measured")


def _raters(seen: HumanDetails, rules: Rules) -> Iterator[Finding]:
    if careless := [one.rater for one in seen.raters if one.flags]:
        yield _by_rule(rules, "careless_raters", {"raters": careless, "n": len(seen.raters)})


def _preference(evidence: HumanEvidence, rules: Rules) -> Iterator[Finding]:
    length, sample = evidence.details.length_adjusted, evidence.details.rater_sample
    if evidence.verdict != "better":
        return
    if length and length.explains:
        yield _by_rule(rules, "length_explains", as_json(length))
    if sample and sample.verdict != "better":
        yield _by_rule(rules, "few_raters", as_json(sample))


def _plan(evidence: ABEvidence, rules: Rules) -> Iterator[Finding]:
    """What was not settled before the first user came, and what the users of the deciding look cannot tell."""
    details = evidence.details
    done = details.findings or ReportedOutcomes()
    if evidence.simulated:
        return
    if came := details.came_first:
        n, days = details.planned.n_control + details.planned.n_treatment, details.planned.days
        settle = Missing(kind="plan_after_exposures", needed=n, days=days)
        numbers = {"locked_at": details.locked_at, "came_first": came}
        yield _by_rule(rules, "plan_after_exposures", numbers, settle)
    if done.uneven and (evidence.verdict == "better" or rules.ab_test_needs == "not worse"):
        settle = Missing(kind="not_whole_weeks", days=done.days_to_weeks)
        yield _by_rule(rules, "not_whole_weeks", {"days": done.days}, settle)
    if differs := [one for one in details.plan_differs or () if not one.amended]:
        settle = Missing(kind="plan_differs")
        yield _by_rule(rules, "plan_differs", {"differs": as_json(differs)}, settle)


def _guardrails(rows: Iterable[ReportedGuardrail], rules: Rules) -> Iterator[Finding]:
    for guard in rows:
        verdict = guard.verdict
        if verdict not in {"not worse", "better"}:
            yield Finding(
                rule="guardrail_not_shown",
                effect="blocks" if verdict == "worse" else rules.guardrail_not_shown,
                numbers=as_json(guard),
            )


# ---- results against this model that nothing at the gate answers: they hold until they are settled or retired


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
