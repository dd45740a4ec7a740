"""What the rules have to say about one layer's evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit import wording
from evalkit.decision.concerns import Concern
from evalkit.decision.rules import Effect, Rules
from evalkit.decision.standing import Standing
from evalkit.records import Evidence, Layer, Missing

SLICE_RULES = ("slice_worse", "slice_looks_bad", "slice_could_not_be_seen")
BEFORE_THE_FACTS = (
    "plan_after_exposures",
    "not_whole_weeks",
    "plan_differs",
    "declared_after_results",
)
STANDS_AGAINST, RETIRED = "stands_against", "retired_evidence"
UNCONFIRMED, CONFIRMED = (
    "unconfirmed",
    "confirmed",
)  # changes after a result, by a reason's being there
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
        missing: What would settle it, and its price; None where nothing is named.
    """

    rule: str
    effect: Effect
    text: str
    numbers: Mapping[str, Any]
    missing: Missing | None = None

    @property
    def is_loss(self) -> bool:
        """Whether it says that the fine-tuned model is worse in something, so that its text follows "it is"."""
        return self.rule in {"slice_worse", "other_metric_worse"}


def find(evidence: Evidence, rules: Rules) -> Iterable[Finding]:
    """Everything in a layer's evidence that a rule speaks about, whatever the rule does."""
    details = evidence.details
    if evidence.layer == "benchmark":
        yield from _test_set_findings(details.get("test_set_findings") or {}, rules)
        yield from _slice_findings(details.get("slices") or (), rules)
        yield from _metric_findings(details, evidence.metric, rules)
        if details.get("fragile"):
            yield Finding(
                rule="fragile",
                effect=rules.fragile,
                text="the verdict hangs on failed calls",
                numbers={},
            )
        if not details.get("noise_floor"):
            text = "how often answers flip by chance was not measured"
            yield Finding(
                rule="noise_not_measured", effect=rules.noise_not_measured, text=text, numbers={}
            )
    if evidence.layer == "human":
        yield from _rater_findings(details.get("raters") or (), rules)
        yield from _preference_findings(evidence.primary or {}, details, rules)
    if evidence.layer == "ab_test" and not evidence.simulated:
        yield from _plan_findings(evidence, rules)
    for guard in details.get("guardrails") or () if evidence.layer == "ab_test" else ():
        if guard.get("verdict") not in {"not worse", "better"}:
            name, verdict = wording.visible(str(guard.get("name"))), guard.get("verdict")
            effect: Effect = "blocks" if verdict == "worse" else rules.guardrail_not_shown
            yield Finding(
                rule="guardrail_not_shown",
                effect=effect,
                text=f"guardrail {name}: {verdict}",
                numbers=guard,
            )


def of_changes(changed: Iterable[str], rules: Rules) -> Iterable[Finding]:
    """What is declared otherwise than when results on this test set were seen, from `declared.changed_after_results`."""
    for text in changed:
        settle = Missing(
            action="Put it back, or decide on a test set on which nobody has seen results",
            why=text,
            price="one line, or fresh examples",
        )
        yield _by_rule("declared_after_results", rules, text, settle)


def of_standing(layer: Layer, standing: Standing) -> Iterable[Finding]:
    """What stands against the model from before, which holds, and what of it the study has retired, which is told."""
    one, several = _RESULTS[layer]
    if n := len(standing.against):
        text = f"{one if n == 1 else f'{n} {several}'} against this model {'stands' if n == 1 else 'stand'}"
        keys = [found.key for found in standing.against]
        yield Finding(rule=STANDS_AGAINST, effect="holds", text=text, numbers={"keys": keys})
    for found, why in standing.retired:
        told = f"{one} against this model ({found.source}) is retired: {why}"
        numbers = {"keys": [found.key]}
        yield Finding(rule=RETIRED, effect="warns", text=wording.visible(told), numbers=numbers)


def of_concerns(concerns: Iterable[Concern]) -> Iterable[Finding]:
    """What was changed after it could be known how it turns out: it holds until a reason is on record, which is told."""
    for one in concerns:
        told = f"{one.text}; confirmed: {wording.visible(one.reason)}" if one.reason else one.text
        yield Finding(
            rule=CONFIRMED if one.reason else UNCONFIRMED,
            effect="warns" if one.reason else "holds",
            text=told,
            numbers={"keys": [one.key]},
        )


def clause(finding: Finding) -> str:
    """A finding within a sentence: "it is worse by ..." or what was found."""
    return f"it is {finding.text}" if finding.is_loss else finding.text


def sentence(text: str) -> str:
    """A finding's text as a sentence of its own."""
    return f"{text[:1].upper()}{text[1:]}."


def _test_set_findings(kinds: Mapping[str, int], rules: Rules) -> Iterable[Finding]:
    leaks, conflicts = (
        sum(n for kind, n in kinds.items() if kind.startswith("leak")),
        kinds.get("conflict") or 0,
    )
    told = {
        wording.plural(leaks, "test example leaks", "test examples leak")
        + " from the training file": leaks,
        wording.plural(conflicts, "test prompt has", "test prompts have")
        + " different expected answers": conflicts,
    }
    for text, n in told.items():
        if n:
            yield Finding(
                rule="test_set_faulty", effect=rules.test_set_faulty, text=text, numbers={"n": n}
            )


def _rater_findings(raters: Sequence[Mapping[str, object]], rules: Rules) -> Iterable[Finding]:
    careless = [wording.visible(str(one.get("rater"))) for one in raters if one.get("flags")]
    if careless:
        verb = "looks" if len(careless) == 1 else "look"
        text = f"{len(careless)} of {wording.plural(len(raters), 'rater')} {verb} careless: {wording.listed(careless)}"
        yield Finding(rule="careless_raters", effect=rules.careless_raters, text=text, numbers={})


def _preference_findings(
    primary: Mapping[str, Any], details: Mapping[str, Any], rules: Rules
) -> Iterable[Finding]:
    if primary.get("verdict") != "better":
        return
    length, sample = details.get("length_adjusted") or {}, details.get("rater_sample") or {}
    if length.get("explains"):
        level = wording.percent(length.get("estimate"))
        text = f"perhaps preferred for its length: {level} at equal length, where no preference is shown"
        yield Finding(
            rule="length_explains", effect=rules.length_explains, text=text, numbers=length
        )
    if sample and sample.get("verdict") != "better":
        n_raters = int(sample.get("n_raters") or 0)
        text = (
            "preferred by one rater, who speaks for nobody else"
            if n_raters == 1
            else f"preferred by these {n_raters} raters, which is not shown for raters like them"
        )
        yield Finding(rule="few_raters", effect=rules.few_raters, text=text, numbers=sample)


def _plan_findings(evidence: Evidence, rules: Rules) -> Iterable[Finding]:
    """What was not settled before the first user came, and what the users of the deciding look cannot tell."""
    details, done = evidence.details, evidence.details.get("findings") or {}
    if came := details.get("came_first"):
        locked = str(details.get("locked_at"))[:10]
        text = (
            f"the A/B plan was locked on {locked}, after its users had begun to come ({came[:10]})"
        )
        settle = Missing(
            action="Lock a plan under a new experiment_name before its users come, and run the test",
            why=text,
            price=_test_again(details),
        )
        yield _by_rule("plan_after_exposures", rules, text, settle)
    shown = (evidence.primary or {}).get("verdict")
    if done.get("uneven") and (shown == "better" or rules.ab_test_needs == "not worse"):
        text = f"the A/B test’s users came on {wording.plural(done['days'], 'day')}, not in whole weeks"
        more = done.get("days_to_weeks")
        wait = f"about {wording.plural(more or 0, 'day')} more, when users keep coming"
        settle = Missing(
            action="Let the test run on to whole weeks, then read it again",
            why=f"{text}; weekdays may differ",
            price=wait if more else "its whole weeks do not show the same: a new test",
        )
        yield _by_rule("not_whole_weeks", rules, text, settle)
    if differs := [one for one in details.get("plan_differs") or () if not one.get("amended")]:
        said = [f"{one['name']} {one['study']} instead of {one['plan']}" for one in differs]
        text = f"study.yaml says {wording.listed(said)} of the locked A/B plan, which counts"
        settle = Missing(
            action="Write the locked values into study.yaml, or amend the plan with a reason",
            why=wording.visible(text),
            price="minutes",
        )
        yield _by_rule("plan_differs", rules, wording.visible(text), settle)


def _by_rule(rule: str, rules: Rules, text: str, missing: Missing) -> Finding:
    return Finding(rule=rule, effect=getattr(rules, rule), text=text, numbers={}, missing=missing)


def _test_again(details: Mapping[str, Any]) -> str:
    planned = details.get("planned") or {}
    n = (planned.get("n_control") or 0) + (planned.get("n_treatment") or 0)
    days = planned.get("days")
    return f"{wording.count(n)} users" + (f", about {wording.plural(days, 'day')}" if days else "")


def _slice_findings(slices: Iterable[Mapping[str, Any]], rules: Rules) -> Iterable[Finding]:
    for row in slices:
        diff = row.get("estimate", row.get("diff"))
        numbers = {key: row.get(key) for key in _SLICE_NUMBERS} | {
            "estimate": diff,
            "if_worse": rules.slice_worse,
        }
        rule, text = _slice_said(row, diff)
        if rule:
            yield Finding(rule=rule, effect=getattr(rules, rule), text=text, numbers=numbers)


def _slice_said(row: Mapping[str, Any], diff: float | None) -> tuple[str, str]:
    """Which rule speaks about a slice, and what is found; "" when none does."""
    examples, standing = wording.examples_of(str(row.get("slice"))), row.get("standing")
    scale = str(row.get("shown_as") or "points")
    if row.get("verdict") == "worse" or standing == "worse":
        return "slice_worse", f"worse by {_amount(row, diff)} on {examples}"
    if standing == "looks bad":
        lost = f"look bad, {_amount(row, diff)} lost over {wording.count(row.get('n') or 0)}"
        return "slice_looks_bad", f"{examples} {lost}, though chance alone may do that"
    if standing == "could not have been seen":
        loss = wording.amount(row.get("margin"), scale, sign=False)
        chance = row.get("chance_to_see")
        found = "" if chance is None else f": the test would have found it {wording.times(chance)}"
        though = _though(row, diff)
        could = "is not ruled out" if though else "could not have been seen"
        return "slice_could_not_be_seen", f"a loss of {loss} on {examples} {could}{though or found}"
    if standing is None and "not shown" in {row.get("safety"), row.get("verdict")}:
        # Evidence written before the three words were told apart.
        return "slice_could_not_be_seen", f"{examples} are not shown safe{_though(row, diff)}"
    return "", ""


def _though(row: Mapping[str, Any], diff: float | None) -> str:
    """What a slice did that is doubted for its size alone: a gain of few examples shows no more than a loss of few."""
    gain = diff if row.get("gain") is None else row["gain"]
    if not gain or gain < 0:
        return ""
    few = f"over only {wording.plural(row.get('n') or 0, 'example')}"
    return f", though {_amount(row, diff)} {'were' if _is_points(row) else 'was'} gained {few}"


def _is_points(row: Mapping[str, object]) -> bool:
    return str(row.get("shown_as") or "points") == "points"


def _amount(row: Mapping[str, Any], diff: float | None) -> str:
    """The size of a loss: points for rates, a number for scores."""
    digits = wording.decimals(diff, row.get("ci_low"), row.get("ci_high"))
    return wording.amount(diff, str(row.get("shown_as") or "points"), digits=digits, sign=False)


def _metric_findings(details: Mapping[str, Any], primary: str, rules: Rules) -> Iterable[Finding]:
    adjusted = details.get("p_adjusted") or {}
    for name, metric in (details.get("metrics") or {}).items():
        test, words = metric.get("test") or {}, str(name).replace("_", " ")
        p_value = adjusted.get(name, test.get("p_value"))
        worse = (
            test.get("verdict") == "worse"
            and p_value is not None
            and p_value < (test.get("alpha") or 0.05)
        )
        if worse and words != primary.replace("_", " "):
            text = f"worse by {_amount(test, test.get('estimate'))} in {words}"
            yield Finding(
                rule="other_metric_worse", effect=rules.other_metric_worse, text=text, numbers=test
            )
