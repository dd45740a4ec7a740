"""What the rules have to say about one layer's evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from evalkit import wording
from evalkit.decision.concerns import Concern
from evalkit.decision.rules import Effect, Rules
from evalkit.decision.standing import Standing
from evalkit.files import JsonObject
from evalkit.records import Evidence, Layer, Missing

SLICE_RULES = ("slice_worse", "slice_looks_bad", "slice_could_not_be_seen")
STANDS_AGAINST, RETIRED = "stands_against", "retired_evidence"
UNCONFIRMED, CONFIRMED = "unconfirmed", "confirmed"  # changes after a result, by a reason
_RESULTS: dict[Layer, tuple[str, str]] = {
    "benchmark": ("a benchmark result", "benchmark results"),
    "human": ("a human rating", "human ratings"),
    "ab_test": ("an A/B result", "A/B results"),
}
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
        text: What was found, as the end of a sentence: "worse by 6.2 points on “multi” examples".
        numbers: estimate, ci_low, ci_high, n where there are any.
        missing: What would settle it; None where nothing is named.
    """

    rule: str
    effect: Effect
    text: str
    numbers: JsonObject = field(default_factory=dict)
    missing: Missing | None = None

    @property
    def is_loss(self) -> bool:
        """Whether it says that the fine-tuned model is worse in something, so that its text follows "it is"."""
        return self.rule in {"slice_worse", "other_metric_worse"}

    @property
    def clause(self) -> str:
        """Within a sentence: "it is worse by ..." or what was found."""
        return f"it is {self.text}" if self.is_loss else self.text

    @property
    def gain(self) -> float:
        """A slice's difference with the sign of good news."""
        gain = self.numbers.get("gain")
        return self.numbers["estimate"] if gain is None else gain


def find(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    """Everything in a layer's evidence that a rule speaks about, whatever the rule does."""
    by_layer = {
        "benchmark": (_test_set, _slices, _other_metrics, _chance),
        "human": (_raters, _preference),
        "ab_test": (_plan, _guardrails),
    }
    for look in by_layer[evidence.layer]:
        yield from look(evidence, rules)


def of_changes(changed: Iterable[str], rules: Rules) -> Iterator[Finding]:
    """What is declared otherwise than when results on this test set were seen, as `concerns` tells it."""
    for text in changed:
        settle = Missing(kind="declared_after_results", said=text)
        yield _by_rule(rules, "declared_after_results", text, missing=settle)


def of_standing(layer: Layer, standing: Standing) -> Iterator[Finding]:
    """What stands against the model from before, which holds, and what of it the study has retired, which is told."""
    one, several = _RESULTS[layer]
    if n := len(standing.against):
        stands = f"{one} against this model stands" if n == 1 else ""
        text = stands or f"{n} {several} against this model stand"
        keys = [found.key for found in standing.against]
        yield Finding(rule=STANDS_AGAINST, effect="holds", text=text, numbers={"keys": keys})
    for found, why in standing.retired:
        text = wording.visible(f"{one} against this model ({found.source}) is retired: {why}")
        yield Finding(rule=RETIRED, effect="warns", text=text, numbers={"keys": [found.key]})


def of_concerns(concerns: Iterable[Concern]) -> Iterator[Finding]:
    """What was changed after it could be known how it turns out: it holds until a reason is on record, which is told."""
    for one in concerns:
        text, keys = one.text, {"keys": [one.key]}
        if one.reason:
            text += f"; confirmed: {wording.visible(one.reason)}"
            yield Finding(rule=CONFIRMED, effect="warns", text=text, numbers=keys)
        else:
            yield Finding(rule=UNCONFIRMED, effect="holds", text=text, numbers=keys)


def sentence(text: str) -> str:
    """A finding's text as a sentence of its own."""
    return f"{text[:1].upper()}{text[1:]}."


def _by_rule(
    rules: Rules,
    rule: str,
    text: str,
    numbers: Mapping[str, object] | None = None,
    missing: Missing | None = None,
) -> Finding:
    effect, known = getattr(rules, rule), dict(numbers or {})
    return Finding(rule=rule, effect=effect, text=text, numbers=known, missing=missing)


def _test_set(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    kinds: dict[str, int] = evidence.details.get("test_set_findings") or {}
    if n := sum(n for kind, n in kinds.items() if kind.startswith("leak")):
        leaks = wording.plural(n, "test example leaks", "test examples leak")
        yield _by_rule(rules, "test_set_faulty", f"{leaks} from the training file", {"n": n})
    if n := kinds.get("conflict"):
        prompts = wording.plural(n, "test prompt has", "test prompts have")
        text = f"{prompts} different expected answers"
        yield _by_rule(rules, "test_set_faulty", text, {"n": n})


def _slices(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    for row in evidence.details.get("slices") or ():
        diff = row.get("estimate", row.get("diff"))
        rule, text = _slice_said(row, diff)
        if rule:
            numbers = {name: row.get(name) for name in _SLICE_NUMBERS}
            known = {"estimate": diff, "if_worse": rules.slice_worse}
            yield _by_rule(rules, rule, text, numbers | known)


def _slice_said(row: JsonObject, diff: float | None) -> tuple[str, str]:
    """Which rule speaks about a slice, and what is found; "" when none does."""
    examples, standing = wording.examples_of(str(row.get("slice"))), row.get("standing")
    scale, n = str(row.get("shown_as") or "points"), row.get("n") or 0
    size, gain = _amount(row, diff), diff if row.get("gain") is None else row["gain"]
    though = ""  # of a slice doubted for its size alone: a gain of few shows no more than a loss
    if gain and gain > 0:
        few = f"over only {wording.plural(n, 'example')}"
        though = f", though {size} {'were' if scale == 'points' else 'was'} gained {few}"
    if row.get("verdict") == "worse" or standing == "worse":
        return "slice_worse", f"worse by {size} on {examples}"
    if standing == "looks bad":
        lost = f"look bad, {size} lost over {wording.count(n)}"
        return "slice_looks_bad", f"{examples} {lost}, though chance alone may do that"
    if standing == "could not have been seen":
        loss = wording.amount(row.get("margin"), scale, sign=False)
        chance = row.get("chance_to_see")
        found = "" if chance is None else f": the test would have found it {wording.times(chance)}"
        could = f"is not ruled out{though}" if though else f"could not have been seen{found}"
        return "slice_could_not_be_seen", f"a loss of {loss} on {examples} {could}"
    if standing is None and "not shown" in {row.get("safety"), row.get("verdict")}:
        # Evidence written before the three words were told apart.
        return "slice_could_not_be_seen", f"{examples} are not shown safe{though}"
    return "", ""


def _amount(row: JsonObject, diff: float | None) -> str:
    """The size of a loss: points for rates, a number for scores."""
    digits = wording.decimals(diff, row.get("ci_low"), row.get("ci_high"))
    return wording.amount(diff, str(row.get("shown_as") or "points"), digits=digits, sign=False)


def _other_metrics(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    adjusted = evidence.details.get("p_adjusted") or {}
    for name, metric in (evidence.details.get("metrics") or {}).items():
        test, words = metric.get("test") or {}, str(name).replace("_", " ")
        p_value = adjusted.get(name, test.get("p_value"))
        shown = p_value is not None and p_value < (test.get("alpha") or 0.05)
        is_other = words != evidence.metric.replace("_", " ")
        if test.get("verdict") == "worse" and shown and is_other:
            text = f"worse by {_amount(test, test.get('estimate'))} in {words}"
            yield _by_rule(rules, "other_metric_worse", text, test)


def _chance(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    if evidence.details.get("fragile"):
        yield _by_rule(rules, "fragile", "the verdict hangs on failed calls")
    if not evidence.details.get("noise_floor"):
        text = "how often answers flip by chance was not measured"
        yield _by_rule(rules, "noise_not_measured", text)


def _raters(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    raters = evidence.details.get("raters") or ()
    careless = [wording.visible(str(one.get("rater"))) for one in raters if one.get("flags")]
    if careless:
        n, verb = len(careless), "looks" if len(careless) == 1 else "look"
        of_all = f"{n} of {wording.plural(len(raters), 'rater')}"
        text = f"{of_all} {verb} careless: {wording.listed(careless)}"
        yield _by_rule(rules, "careless_raters", text)


def _preference(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    if (evidence.primary or {}).get("verdict") != "better":
        return
    length = evidence.details.get("length_adjusted") or {}
    if length.get("explains"):
        level = wording.percent(length.get("estimate"))
        text = f"perhaps preferred for its length: {level} at equal length, where no preference is shown"
        yield _by_rule(rules, "length_explains", text, length)
    sample = evidence.details.get("rater_sample") or {}
    if sample and sample.get("verdict") != "better":
        n, text = (
            int(sample.get("n_raters") or 0),
            "preferred by one rater, who speaks for nobody else",
        )
        if n != 1:
            text = f"preferred by these {n} raters, which is not shown for raters like them"
        yield _by_rule(rules, "few_raters", text, sample)


def _plan(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    """What was not settled before the first user came, and what the users of the deciding look cannot tell."""
    details, done = evidence.details, evidence.details.get("findings") or {}
    if evidence.simulated:
        return
    if came := details.get("came_first"):
        locked = str(details.get("locked_at"))[:10]
        text = (
            f"the A/B plan was locked on {locked}, after its users had begun to come ({came[:10]})"
        )
        planned = details.get("planned") or {}
        n = (planned.get("n_control") or 0) + (planned.get("n_treatment") or 0)
        price = {"needed": n, "days": planned.get("days")}
        settle = Missing(kind="plan_after_exposures", said=text, **price)
        yield _by_rule(rules, "plan_after_exposures", text, missing=settle)
    shown = (evidence.primary or {}).get("verdict")
    if done.get("uneven") and (shown == "better" or rules.ab_test_needs == "not worse"):
        text = f"the A/B test’s users came on {wording.plural(done['days'], 'day')}, not in whole weeks"
        more = done.get("days_to_weeks")
        settle = Missing(kind="not_whole_weeks", said=text, days=more)
        yield _by_rule(rules, "not_whole_weeks", text, missing=settle)
    if differs := [one for one in details.get("plan_differs") or () if not one.get("amended")]:
        said = [f"{one['name']} {one['study']} instead of {one['plan']}" for one in differs]
        told = f"study.yaml says {wording.listed(said)} of the locked A/B plan, which counts"
        told = wording.visible(told)
        settle = Missing(kind="plan_differs", said=told)
        yield _by_rule(rules, "plan_differs", told, missing=settle)


def _guardrails(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    for guard in evidence.details.get("guardrails") or ():
        verdict = guard.get("verdict")
        if verdict not in {"not worse", "better"}:
            yield Finding(
                rule="guardrail_not_shown",
                effect="blocks" if verdict == "worse" else rules.guardrail_not_shown,
                text=f"guardrail {wording.visible(str(guard.get('name')))}: {verdict}",
                numbers=guard,
            )
