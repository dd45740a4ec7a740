"""What the rules have to say about one layer's evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from evalkit.decision.concerns import Concern
from evalkit.decision.rules import Effect, Rules
from evalkit.decision.standing import Standing
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
from evalkit.records import Missing

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
