"""What the rules have to say about one layer's evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit import wording
from evalkit.decision.rules import Effect, Rules
from evalkit.records import Evidence

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
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something a rule speaks about: a slice, a metric, a guardrail, fragility.

    Attributes:
        rule: The rule's name in `Rules`.
        effect: What that rule does.
        text: What was found, as the end of a sentence: "worse by 6.2 points on “multi” examples".
        numbers: estimate, ci_low, ci_high, n where there are any.
    """

    rule: str
    effect: Effect
    text: str
    numbers: Mapping[str, Any]


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


def _rater_findings(raters: Sequence[Mapping[str, Any]], rules: Rules) -> Iterable[Finding]:
    careless = [wording.visible(str(one.get("rater"))) for one in raters if one.get("flags")]
    if careless:
        verb = "looks" if len(careless) == 1 else "look"
        text = f"{len(careless)} of {wording.plural(len(raters), 'rater')} {verb} careless: {wording.listed(careless)}"
        yield Finding(rule="careless_raters", effect=rules.careless_raters, text=text, numbers={})


def _slice_findings(slices: Iterable[Mapping[str, Any]], rules: Rules) -> Iterable[Finding]:
    for row in slices:
        examples, diff = (
            wording.examples_of(str(row.get("slice"))),
            row.get("estimate", row.get("diff")),
        )
        numbers = {key: row.get(key) for key in _SLICE_NUMBERS} | {
            "estimate": diff,
            "if_worse": rules.slice_worse,
        }
        if row.get("verdict") == "worse":
            text = f"worse by {wording.points(diff, sign=False)} points on {examples}"
            yield Finding(rule="slice_worse", effect=rules.slice_worse, text=text, numbers=numbers)
        elif "not shown" in {row.get("safety"), row.get("verdict")}:
            text = f"{examples} are not shown safe"
            yield Finding(
                rule="slice_not_shown_safe",
                effect=rules.slice_not_shown_safe,
                text=text,
                numbers=numbers,
            )


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
            text = f"worse by {wording.points(test.get('estimate'), sign=False)} points in {words}"
            yield Finding(
                rule="other_metric_worse", effect=rules.other_metric_worse, text=text, numbers=test
            )
