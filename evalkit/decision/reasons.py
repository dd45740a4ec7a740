"""Why a layer stands where it stands, in computed sentences: levels first, then the difference with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.decision.findings import (
    BEFORE_THE_FACTS,
    SLICE_RULES,
    STANDS_AGAINST,
    clause,
    sentence,
)

if TYPE_CHECKING:
    from evalkit.decision.layers import Finding, LayerDecision

_SAID = {
    "better": "shows the fine-tuned model better in {metric} by {amount}",
    "worse": "shows the fine-tuned model worse in {metric} by {amount}",
    "not worse": "shows the fine-tuned model not worse by more than {margin} in {metric}: {effect}",
    "not shown": "does not rule out a loss of {margin} in {metric}: {effect}",
    "no difference shown": "does not show a difference in {metric}: {effect}",
    "too early": "cannot be read yet",
    "invalid": "is invalid, so no winner can be named",
}
_PREFERRED = {
    "better": "prefers the fine-tuned answers: they win {effect}, over {n}",
    "worse": "prefers the base answers: the fine-tuned ones win {effect}, over {n}",
    "no difference shown": "does not show a preference: the fine-tuned answers win {effect}, over {n}",
    "not worse": "shows that the fine-tuned answers do not win less than {level}: they win {effect}, over {n}",
    "not shown": "does not rule out that the fine-tuned answers win less than {level}: they win {effect}, over {n}",
}
_AFTER_LEVELS = {
    "better": "better by {amount}",
    "worse": "worse by {amount}",
    "not worse": "not worse by more than {margin}, {effect}",
    "not shown": "a loss of {margin} is not ruled out, {effect}",
    "no difference shown": "no difference shown, {effect}",
}


_ENDS = ("estimate", "ci_low", "ci_high")
_UNSAFE = {
    "looks bad": ", which looks bad, though chance alone may do that",
    "could not have been seen": ", too few to see a loss of the margin",
}


def with_reason(found: LayerDecision, details: Mapping[str, object]) -> LayerDecision:
    """The layer with its reason.

    Args:
        found: The layer at the gate.
        details: Its evidence's details, where the benchmark keeps the levels of both models.
    """
    if found.simulated:
        stands = [sentence(one.text) for one in found.findings if one.rule == STANDS_AGAINST]
        whole = " ".join([f"The {found.name} is simulated, so it decides nothing.", *stands])
        return replace(found, reason=whole)
    told = (_levels(found, details) or _plainly(found), _later(found, details), *_beside(found))
    return replace(found, reason=" ".join(one for one in told if one))


def _later(found: LayerDecision, details: Mapping[str, Any]) -> str:
    """Whose numbers the A/B test's are, when more users are in its log than the look had that decides."""
    done, primary = details.get("findings") or {}, details.get("primary") or {}
    if found.layer != "ab_test" or not done.get("n_later") or found.estimate is None:
        return ""
    several = (primary.get("looks") or 1) > 1
    look = f"look {primary['look']} of {primary['looks']}" if several else "the one look planned"
    first = f"That is {look}, {_n(found)}"
    if several and found.verdict in {"better", "worse"}:
        first += ": the first look that leaves its limits decides, whenever it is read"
    whole = done.get("over_all")
    if not whole:
        return f"{first}; {_came(done['n_later'])} later, and their outcome windows are still open."
    over = replace(found, findings=(), **{end: whole.get(end) for end in _ENDS})
    n = wording.count(whole.get("n") or 0)
    return f"{first}; over all {n} whose outcome window has closed the difference is {_effect(over)}, and decides nothing."


def _came(n: int) -> str:
    return f"{wording.plural(n, 'user')} came"


def _beside(found: LayerDecision) -> Iterable[str]:
    """What was not settled before the facts, where it only warns: it belongs beside the verdict all the same."""
    return [
        sentence(one.text)
        for one in found.findings
        if one.effect == "warns" and one.rule in BEFORE_THE_FACTS
    ]


def _plainly(found: LayerDecision) -> str:
    """Without levels: what the layer shows, then what stops it."""
    said = (_PREFERRED if found.layer == "human" else {}).get(found.verdict) or _SAID.get(
        found.verdict, found.verdict
    )
    amount = f"{_amount(found)} over {_n(found)}"
    words = {
        "metric": found.metric_text,
        "n": _n(found),
        "effect": _effect(found),
        "amount": amount,
        "margin": found.margin_text,
        "level": wording.percent(0.5 + found.limit),
    }
    told = [f", but {clause(one)}" if one.is_loss else f"; {one.text}" for one in _stopping(found)]
    return "".join([f"The {found.name} {said.format(**words)}", *told]) + "."


def _levels(found: LayerDecision, details: Mapping[str, Any]) -> str:
    """Levels of both models, the difference, then each slice or other thing that stops it; "" where levels are absent."""
    if found.layer != "benchmark" or found.estimate is None or found.verdict not in _AFTER_LEVELS:
        return ""  # the other layers keep lists of their own under "metrics"
    metric = (details.get("metrics") or {}).get(found.metric.replace(" ", "_")) or {}
    base, tuned = metric.get("base") or {}, metric.get("fine_tuned") or {}
    before, after = base.get("estimate"), tuned.get("estimate")
    if before is None or after is None:
        return ""
    rate = "successes" in base
    then = _AFTER_LEVELS[found.verdict].format(
        amount=_amount(found), effect=_effect(found), margin=found.margin_text
    )
    name = found.metric[:1].upper() + found.metric[1:]
    shown = found.verdict in {"better", "worse"}
    moves = _moves(before, after, rate=rate, shown=shown)
    whole = f"{name} {moves} {'of' if rate else 'over'} {_n(found)}: {then}."
    return " ".join(
        [whole, *(_stop(one, rate=rate) for one in (*_stopping(found), *_worst(found)))]
    )


def _worst(found: LayerDecision) -> Iterable[Finding]:
    """The slice that looks worst where it only warns: who reads the deck alone reads of it too."""
    named = ("slice_looks_bad", "warns")
    bad = [one for one in found.findings if (one.rule, one.effect) == named]
    return sorted(bad, key=lambda one: one.numbers.get("gain") or one.numbers["estimate"])[:1]


def _stop(one: Finding, *, rate: bool) -> str:
    row = one.numbers
    if (
        one.rule not in SLICE_RULES
        or row.get("base_rate") is None
        or row.get("fine_tuned_rate") is None
    ):
        return sentence(clause(one))
    rate = row.get("shown_as") != "number" if row.get("shown_as") else rate
    shown = one.rule == "slice_worse"
    moves = _moves(row["base_rate"], row["fine_tuned_rate"], rate=rate, shown=shown)
    size = f"{'of' if rate else 'over'} {wording.count(row.get('n') or 0)}"
    unsafe = _UNSAFE.get(str(row.get("standing")), "" if shown else ", not shown safe")
    return f"On {wording.examples_of(str(row['slice']))} it {moves} {size}{unsafe}."


def _moves(base: float, tuned: float, *, rate: bool, shown: bool) -> str:
    """From level to level; it rises or falls only where a test has shown it."""
    text = wording.percent if rate else wording.number
    if text(base) == text(tuned):
        return f"stays at {text(base)}"
    way = "goes" if not shown else "rises" if tuned > base else "falls"
    return f"{way} from {text(base)} to {text(tuned)}"


def _stopping(found: LayerDecision) -> Iterable[Finding]:
    return [one for one in found.findings if one.effect in {"blocks", "holds"}]


def _n(found: LayerDecision) -> str:
    return wording.plural(found.n or 0, found.unit.removesuffix("s"))


def _effect(found: LayerDecision) -> str:
    """The difference with its sign: "+2.0 points (95% interval −3.0 to +7.0)"."""
    if found.estimate is None:
        return found.effect_text()
    effect, ends = found.effect_parts()
    if ends == wording.UNDEFINED:
        return f"{effect}{_unit(found)} ({ends})"
    return f"{effect}{_unit(found)} ({_interval(found)} {ends})"


def _amount(found: LayerDecision) -> str:
    """The difference as a size, when its whole interval lies on one side: "10.0 points (95% interval 5.0 to 15.0)"."""
    low, high = found.ci_low, found.ci_high
    if found.estimate is None or low is None or high is None or low * high <= 0:
        return _effect(found).lstrip("+" + wording.MINUS)
    near, far = sorted((abs(low), abs(high)))
    size, first, last = (_size(found, value) for value in (abs(found.estimate), near, far))
    return f"{size}{_unit(found)} ({_interval(found)} {first} to {last})"


def _size(found: LayerDecision, value: float) -> str:
    if found.scale == "number":
        return wording.amount(value, "number", sign=False)
    digits = wording.decimals(found.estimate, found.ci_low, found.ci_high)
    return wording.points(value, digits, sign=False)


def _unit(found: LayerDecision) -> str:
    return " points" if found.layer != "human" and found.scale == "points" else ""


def _interval(found: LayerDecision) -> str:
    return f"{wording.confidence(found.alpha)} interval"
