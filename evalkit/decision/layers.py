"""One layer's evidence -> its gate word, with the reason in one computed sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from evalkit import wording
from evalkit.benchmark.evidence import OPEN_SLICES
from evalkit.decision.concerns import Concern
from evalkit.decision.findings import (
    BEFORE_THE_FACTS,
    SLICE_RULES,
    STANDS_AGAINST,
    UNCONFIRMED,
    Finding,
    clause,
    find,
    of_concerns,
    of_standing,
    sentence,
)
from evalkit.decision.rules import NAMES, Rules
from evalkit.decision.standing import Stale, Standing
from evalkit.records import Evidence, Layer, Missing

Word = Literal["passes", "don't ship", "not yet"]

MISSING = "missing"
WORDS: dict[Layer, tuple[str, str]] = {
    "benchmark": ("No benchmark has been run", "Answer the test set with both models"),
    "human": ("No person has rated these answers", "Have people rate pairs of answers, blind"),
    "ab_test": ("No user has seen this version", "Run an A/B test on production traffic"),
}


_CONFIRM: dict[Layer, str] = {
    "benchmark": "Confirm it on the test set and against the base it was made for",
    "human": "Confirm it under its own rating_round, with the answers it was made from",
    "ab_test": "Confirm it by reading that test again",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDecision:
    """One layer at the gate.

    Attributes:
        word: passes, don't ship or not yet.
        verdict: The verdict of its test, or "missing".
        reason: Why, in one sentence.
        simulated: True when any rating or user in it is simulated.
        required: True when the stage needs this layer.
        estimate: The effect as a difference (human rating: minus 50%); None when withheld.
        limit: What the whole interval must lie beyond, on the better side.
        need: What it must show: "better", or "not worse" by more than the margin.
        lower_is_better: The metric's direction; it turns the side on which the limit lies.
        scale: "points" for rates, "number" for a metric in its own unit.
        findings: What the rules had to say.
        missing: What would settle it, priced.
        stale: Why what was handed over does not count: other_answers, other_models or unbound; "" when it does.
    """

    layer: Layer
    word: Word
    verdict: str
    reason: str
    simulated: bool = False
    required: bool = True
    metric: str = ""
    unit: str = ""
    n: int | None = None
    estimate: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    alpha: float = 0.05
    limit: float = 0.0
    lower_is_better: bool = False
    scale: str = "points"
    findings: tuple[Finding, ...] = ()
    missing: tuple[Missing, ...] = ()
    stale: str = ""
    need: str = "better"

    @property
    def margin_text(self) -> str:
        """The loss still accepted, in words: "2 points", "2 points below 50%"."""
        below = " below 50%" if self.layer == "human" else ""
        return f"{wording.loss(abs(self.limit), self.scale)}{below}"

    @property
    def stands_against(self) -> bool:
        """Whether a result against this model stands that nothing at the gate answers."""
        return any(one.rule == STANDS_AGAINST for one in self.findings)

    @property
    def speaks(self) -> bool:
        """Whether the decision hears it: the stage needs it, or it has something against this model."""
        return self.required or self.word == "don't ship" or self.stands_against

    @property
    def name(self) -> str:
        """The layer in words."""
        return NAMES[self.layer]

    @property
    def metric_text(self) -> str:
        """The metric in a sentence: quoted where the study named it itself."""
        return f"“{self.metric}”" if self.layer == "ab_test" else self.metric

    def effect_text(self) -> str:
        """The effect with its interval: "+19.3 (+14.4 to +24.7)", or for human rating in percent."""
        if self.estimate is None:
            return wording.NOTHING
        effect, ends = self.effect_parts()
        return f"{effect} ({ends})"

    def effect_parts(self) -> tuple[str, str]:
        """The effect and its interval's ends ("interval undefined" without any), each in words."""
        if self.estimate is None:
            return wording.NOTHING, wording.UNDEFINED
        if self.layer == "human":
            low, high = (
                wording.percent(None if end is None else end + 0.5).rstrip("%")
                for end in (self.ci_low, self.ci_high)
            )
            ends = wording.UNDEFINED if self.ci_low is self.ci_high is None else f"{low} to {high}"
            return wording.percent(self.estimate + 0.5), ends
        digits = wording.decimals(self.estimate, self.ci_low, self.ci_high)
        effect = wording.amount(self.estimate, self.scale, digits=digits).removesuffix(" points")
        return effect, wording.limits(self.ci_low, self.ci_high, self.scale, digits=digits)


def read_layer(
    layer: Layer,
    evidence: Evidence | None,
    *,
    rules: Rules,
    required: bool,
    stale: Stale | None = None,
    standing: Standing | None = None,
    concerns: Iterable[Concern] = (),
    told: Iterable[Finding] = (),
) -> LayerDecision:
    """Puts one layer before the gate.

    Args:
        layer: Which.
        evidence: What it handed over; None when nothing.
        rules: The study's rules.
        required: Whether the stage needs it.
        stale: Why the evidence is not for these answers; None when it is.
        standing: Results against this model that nothing at the gate answers.
        concerns: Changes of this layer after it could be known how it turns out.
        told: Findings that are not in the evidence, told first.
    """
    standing, changes = standing or Standing(), tuple(one for one in concerns if one.layer == layer)
    stood = (*of_standing(layer, standing), *of_concerns(changes))
    open_ = (*_to_settle(layer, standing), *_to_confirm(changes))
    price = _price(layer, rules.limit(layer))
    if evidence is None or stale:
        why, action = WORDS[layer]
        words = stale.words if stale else why
        reasons = [f"The {NAMES[layer]} was {words}." if stale else f"{why}."]
        reasons += [sentence(one.text) for one in stood if one.effect == "holds"]
        return LayerDecision(
            layer=layer,
            word="not yet",
            verdict=MISSING,
            reason=" ".join(reasons),
            required=required,
            findings=stood,
            missing=(*open_, Missing(action=action, why=words, price=price, kind="stale")),
            stale=stale.kind if stale else "",
        )
    ours = tuple(one for one in (*told, *find(evidence, rules)) if one.effect != "ignored")
    findings = (*stood, *ours)
    numbers = _numbers(layer, _against_margin(evidence, rules.needs(layer)))
    verdict = _verdict(evidence.primary, numbers, rules.limit(layer), rules.needs(layer))
    word = _word(verdict, rules.needs(layer), evidence.simulated, findings)
    found = LayerDecision(
        layer=layer,
        word=word,
        verdict=verdict,
        reason="",
        simulated=evidence.simulated,
        required=required,
        metric=wording.visible(evidence.metric),
        unit=evidence.unit,
        limit=-rules.limit(layer) if numbers["lower_is_better"] else rules.limit(layer),
        scale=str((evidence.primary or {}).get("shown_as") or "points"),
        need=rules.needs(layer),
        findings=findings,
        missing=(*open_, *_still_missing(layer, word, evidence, findings, price))
        or _fallback(layer, word, verdict, price),
        **numbers,
    )
    return with_reason(found, evidence.details)


def _against_margin(evidence: Evidence, need: str) -> Mapping[str, Any] | None:
    """The primary result, with the interval that counts against a margin where several models were compared."""
    widened = evidence.details.get("widened") if need == "not worse" else None
    return evidence.primary and {**evidence.primary, **(widened or {})}


def _numbers(layer: Layer, primary: Mapping[str, Any] | None) -> dict[str, Any]:
    primary = primary or {}
    shift = 0.5 if layer == "human" else 0.0
    values = {name: primary.get(name) for name in ("estimate", "ci_low", "ci_high")}
    shifted = {name: None if value is None else value - shift for name, value in values.items()}
    return shifted | {
        "n": primary.get("n"),
        "p_value": primary.get("p_decides", primary.get("p_value")),
        "alpha": primary.get("alpha") or 0.05,
        "lower_is_better": bool(primary.get("lower_is_better")),
    }


def _verdict(
    primary: Mapping[str, Any] | None, numbers: Mapping[str, Any], limit: float, need: str
) -> str:
    from evalkit.stats import against_margin

    verdict = str((primary or {}).get("verdict") or "too early")
    low, high = numbers["ci_low"], numbers["ci_high"]
    worst = low if not numbers["lower_is_better"] else None if high is None else -high
    return (
        against_margin(verdict, worst is not None and worst > limit)
        if need == "not worse"
        else verdict
    )


def _word(verdict: str, need: str, simulated: bool, findings: Iterable[Finding]) -> Word:
    if simulated:
        return "not yet"
    effects = {one.effect for one in findings}
    if verdict == "worse" or "blocks" in effects:
        return "don't ship"
    good = {"better"} if need == "better" else {"better", "not worse"}
    return "passes" if verdict in good and "holds" not in effects else "not yet"


def _still_missing(
    layer: Layer, word: Word, evidence: Evidence, findings: Iterable[Finding], price: str
) -> Iterable[Missing]:
    if word == "passes":
        yield from _warned_slices(evidence, findings)
        return
    blocks = [one for one in findings if one.effect == "blocks"]
    if word == "don't ship":
        yield _mend(layer, evidence, blocks)
    if evidence.simulated:
        yield Missing(
            action=WORDS[layer][1],
            why="What stands here is simulated and decides nothing",
            price=price,
        )
    if any(one.rule == "fragile" and one.effect == "holds" for one in findings):
        yield Missing(
            action="Ask the failed calls again",
            why="The verdict hangs on them",
            price="one more run; only failed calls are made",
        )
    yield from (one.missing for one in findings if one.missing and one.effect == "holds")
    yield from evidence.missing


def _warned_slices(evidence: Evidence, findings: Iterable[Finding]) -> Iterable[Missing]:
    """The price of slices that a passing benchmark warns of, as the benchmark names it."""
    warned = [one for one in findings if one.rule in SLICE_RULES and one.effect == "warns"]
    priced = [one for one in evidence.missing if one.kind == OPEN_SLICES]
    if warned and not priced:
        price = "no number of examples is known that would settle it at the rates seen"
        why = sentence(warned[0].text).rstrip(".")
        priced = [Missing(action="Collect more such examples", why=why, price=price)]
    yield from priced if warned else ()


def _to_settle(layer: Layer, standing: Standing) -> Iterable[Missing]:
    for one in standing.against:
        when = f", {one.at[:10]}" if one.at else ""
        told = f": {one.said}" if one.said else ""
        yield Missing(
            kind=STANDS_AGAINST,
            action=f"{_CONFIRM[layer]}, or retire it: write `retired_evidence: {{{one.key}: why}}` into the study's "
            "rules_file",
            why=f"{wording.visible(f'{one.source}{when}{told}')}; nothing at the gate answers it",
            price="a reason in one line, which every report prints",
        )


def _to_confirm(concerns: Iterable[Concern]) -> Iterable[Missing]:
    for one in concerns:
        if not one.reason:
            yield Missing(
                kind=UNCONFIRMED,
                action='Undo it, or say why it is all right: evalkit confirm STUDY "the reason"',
                why=sentence(one.text).rstrip("."),
                price="a reason in one line, which every report prints",
            )


def _fallback(layer: Layer, word: Word, verdict: str, price: str) -> tuple[Missing, ...]:
    """A price even when the layer itself named none."""
    if word == "passes":
        return ()
    if verdict == "invalid":
        return (
            Missing(
                action=f"Mend the {NAMES[layer]}, then start it again",
                why="Its result is invalid",
                price=price,
            ),
        )
    why = f"What is there says: {verdict}"
    return (Missing(action=WORDS[layer][1] + ", more of it", why=why, price=price),)


def _mend(layer: Layer, evidence: Evidence, blocks: list[Finding]) -> Missing:
    n, told = (evidence.primary or {}).get("n"), wording.listed([one.text for one in blocks])
    why = f"The {NAMES[layer]} shows the fine-tuned model worse"
    if blocks:
        why = (
            f"The fine-tuned model is {told}"
            if blocks[0].is_loss
            else f"{told[:1].upper()}{told[1:]}"
        )
    what = "Train another version"
    if blocks:
        what = (
            "Mend what got worse: train again"
            if any(one.is_loss or one.numbers.get("verdict") == "worse" for one in blocks)
            else "Mend that"
        )
    price = (
        f"a training run, then {wording.count(n)} {evidence.unit} again"
        if n
        else "a training run, then this layer again"
    )
    return Missing(action=f"{what}, then repeat the {NAMES[layer]}", why=why, price=price)


@cache
def _price(layer: Layer, limit: float) -> str:
    from evalkit.stats import ratings_needed, ratings_needed_no_worse, users_needed

    if layer == "benchmark":
        return "one run over the test set; its cost is printed before it starts"
    if layer == "human":
        n = ratings_needed_no_worse(0.5, -limit) if limit else ratings_needed(0.65)
        what = (
            f"rule out a loss of {wording.points(-limit, sign=False)} points where both are alike"
            if limit
            else "show a true 65%"
        )
        return f"about {wording.count(n)} decided ratings to {what}, {n / 60:,.1f} rater hours at one a minute"
    n = users_needed(0.30, 0.35).total
    return f"about {wording.count(n)} users to show 30% becoming 35%, half of them on the fine-tuned model"


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
