"""One layer's evidence -> its gate word, with the reason in computed sentences: levels first, then the difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from msgspec import structs

from evalkit import stats, wording
from evalkit.decision.concerns import Concern
from evalkit.decision.findings import (
    SLICE_RULES,
    STANDS_AGAINST,
    UNCONFIRMED,
    Finding,
    Stale,
    Standing,
    find,
    of_concerns,
    of_standing,
    sentence,
)
from evalkit.decision.rules import NAMES, Need, Rules
from evalkit.evidence import ABDetails, BenchmarkDetails, Evidence, ReportedTest
from evalkit.records import OPEN_SLICES, Layer, Missing

Word = Literal["passes", "don't ship", "not yet"]

MISSING = "missing"
ABSENT: dict[Layer, str] = {
    "benchmark": "No benchmark has been run",
    "human": "No person has rated these answers",
    "ab_test": "No user has seen this version",
}
_BEFORE_THE_FACTS = (
    "plan_after_exposures",
    "not_whole_weeks",
    "plan_differs",
    "declared_after_results",
)
_SHOWS = {
    "better": "shows the fine-tuned model better in {metric} by {measured} over {n}",
    "worse": "shows the fine-tuned model worse in {metric} by {measured} over {n}",
    "not worse": "shows the fine-tuned model not worse by more than {margin} in {metric}: {effect}",
    "not shown": "does not rule out a loss of {margin} in {metric}: {effect}",
    "no difference shown": "does not show a difference in {metric}: {effect}",
    "too early": "cannot be read yet",
    "invalid": "is invalid, so no winner can be named",
}
_PREFERRED = _SHOWS | {
    "better": "prefers the fine-tuned answers: they win {effect}, over {n}",
    "worse": "prefers the base answers: the fine-tuned ones win {effect}, over {n}",
    "no difference shown": "does not show a preference: the fine-tuned answers win {effect}, over {n}",
    "not worse": "shows that the fine-tuned answers do not win less than {level}: they win {effect}, over {n}",
    "not shown": "does not rule out that the fine-tuned answers win less than {level}: they win {effect}, over {n}",
}
_AFTER_LEVELS = {
    "better": "better by {measured}",
    "worse": "worse by {measured}",
    "not worse": "not worse by more than {margin}, {effect}",
    "not shown": "a loss of {margin} is not ruled out, {effect}",
    "no difference shown": "no difference shown, {effect}",
}
_UNSAFE = {
    "looks bad": ", which looks bad, though chance alone may do that",
    "could not have been seen": ", too few to see a loss of the margin",
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
        missing: What would settle it.
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
    def warned_slices(self) -> list[Finding]:
        """Slices that warn."""
        return [one for one in self.told("warns") if one.rule in SLICE_RULES]

    def told(self, *effects: str) -> list[Finding]:
        """The findings whose rule does one of these: blocks, holds, warns."""
        return [one for one in self.findings if one.effect in effects]

    def effect_text(self) -> str:
        """The effect with its interval: "+19.3 (+14.4 to +24.7)", or for human rating in percent."""
        effect, ends = self._effect_parts()
        return effect if self.estimate is None else f"{effect} ({ends})"

    def fill(self, text: str) -> str:
        """A sentence with this layer's metric, n, margin and effect in the places that it names."""
        # named by the study
        quoted = f"“{self.metric}”" if self.layer == "ab_test" else self.metric
        below = " below 50%" if self.layer == "human" else ""
        return text.format(
            metric=quoted,
            n=wording.plural(self.n or 0, self.unit.removesuffix("s")),
            effect=self.difference(),
            measured=self._measured(),
            size=self._size(self.estimate or 0.0, with_unit=True),
            percent=wording.percent(0.5 + (self.estimate or 0.0)),
            margin=f"{wording.loss(abs(self.limit), self.scale)}{below}",
            level=wording.percent(0.5 + self.limit),
        )

    def difference(self) -> str:
        """The difference with its sign: "+2.0 points (95% interval −3.0 to +7.0)"."""
        effect, ends = self._effect_parts()
        if self.estimate is None:
            return effect
        said = "" if ends == wording.UNDEFINED else f"{wording.confidence(self.alpha)} interval "
        return f"{effect}{self._unit} ({said}{ends})"

    def _measured(self) -> str:
        """The difference as a size, when its whole interval lies on one side: "10.0 points (95% interval 5.0 to 15.0)"."""
        low, high = self.ci_low, self.ci_high
        if self.estimate is None or low is None or high is None or low * high <= 0:
            return self.difference().lstrip("+" + wording.MINUS)
        ends = sorted((abs(low), abs(high)))
        size, near, far = (self._size(value) for value in (abs(self.estimate), *ends))
        return f"{size}{self._unit} ({wording.confidence(self.alpha)} interval {near} to {far})"

    def _effect_parts(self) -> tuple[str, str]:
        """The effect and its interval's ends ("interval undefined" without any), each in words."""
        if self.estimate is None:
            return wording.NOTHING, wording.UNDEFINED
        low, high = self.ci_low, self.ci_high
        if self.layer == "human":
            ends = [None if end is None else end + 0.5 for end in (low, high)]
            said = " to ".join(wording.percent(end).rstrip("%") for end in ends)
            said = wording.UNDEFINED if low is high is None else said
            return wording.percent(self.estimate + 0.5), said
        digits = wording.decimals(self.estimate, low, high)
        effect = wording.amount(self.estimate, self.scale, digits=digits).removesuffix(" points")
        return effect, wording.limits(low, high, self.scale, digits=digits)

    def _size(self, value: float, *, with_unit: bool = False) -> str:
        digits = wording.decimals(self.estimate, self.ci_low, self.ci_high)
        size = wording.amount(value, self.scale, digits=digits, sign=False)
        return size if with_unit else size.removesuffix(" points")

    @property
    def _unit(self) -> str:
        return " points" if self.layer != "human" and self.scale == "points" else ""


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
    standing, changes = standing or Standing(), [one for one in concerns if one.layer == layer]
    stood = (*of_standing(layer, standing), *of_concerns(changes))
    open_ = (*_to_settle(standing), *_to_confirm(changes))
    need, limit = rules.needs(layer), rules.limit(layer)
    begun = _begun(layer, limit)
    if evidence is None or stale:
        why = ABSENT[layer]
        lacks = replace(begun, kind="stale", said=stale.words) if stale else begun
        reasons = [f"The {NAMES[layer]} was {stale.words}." if stale else f"{why}."]
        reasons += [sentence(one.text) for one in stood if one.effect == "holds"]
        return LayerDecision(
            layer=layer,
            word="not yet",
            verdict=MISSING,
            reason=" ".join(reasons),
            required=required,
            findings=stood,
            missing=(*open_, lacks),
            stale=stale.kind if stale else "",
        )
    ours = [one for one in (*told, *find(evidence, rules)) if one.effect != "ignored"]
    findings = (*stood, *ours)
    primary = _counting(evidence, need)
    shift, turned = 0.5 if layer == "human" else 0.0, bool(primary.lower_is_better)
    estimate, low, high = (
        None if value is None else value - shift
        for value in (primary.estimate, primary.ci_low, primary.ci_high)
    )
    verdict = primary.verdict or "too early"
    if need == "not worse":
        worst = low if not turned else None if high is None else -high
        verdict = stats.against_margin(verdict, worst is not None and worst > limit)
    word = _word(verdict, need, evidence.simulated, findings)
    found = LayerDecision(
        layer=layer,
        word=word,
        verdict=verdict,
        reason="",
        simulated=evidence.simulated,
        required=required,
        metric=wording.visible(evidence.metric),
        unit=evidence.unit,
        n=primary.n,
        estimate=estimate,
        ci_low=low,
        ci_high=high,
        p_value=primary.p_of_verdict,
        alpha=primary.alpha or 0.05,
        limit=-limit if turned else limit,
        lower_is_better=turned,
        scale=primary.shown_as or "points",
        findings=findings,
        missing=(*open_, *_still_missing(word, evidence, findings, begun))
        or _fallback(word, verdict, begun),
        need=need,
    )
    return replace(found, reason=_reason(found, evidence))


def _counting(evidence: Evidence, need: Need) -> ReportedTest:
    """The primary result; against a margin, where several models were compared, with the interval that counts then."""
    primary, seen = evidence.primary or ReportedTest(), evidence.details
    wide = seen.widened if isinstance(seen, BenchmarkDetails) and need == "not worse" else None
    if not wide or not evidence.primary:
        return primary
    return structs.replace(primary, ci_low=wide.ci_low, ci_high=wide.ci_high, alpha=wide.alpha)


def _word(verdict: str, need: Need, simulated: bool, findings: Iterable[Finding]) -> Word:
    if simulated:
        return "not yet"
    effects = {one.effect for one in findings}
    if verdict == "worse" or "blocks" in effects:
        return "don't ship"
    good = {"better"} if need == "better" else {"better", "not worse"}
    return "passes" if verdict in good and "holds" not in effects else "not yet"


def _still_missing(
    word: Word, evidence: Evidence, findings: Sequence[Finding], begun: Missing
) -> Iterator[Missing]:
    held = [one for one in findings if one.effect == "holds"]
    if word == "passes":
        if any(one.rule in SLICE_RULES and one.effect == "warns" for one in findings):
            priced = [one for one in evidence.missing if one.kind == OPEN_SLICES]
            yield from priced or [Missing(kind="slices_warned")]
        return
    if word == "don't ship":
        yield Missing(kind="worse", n=evidence.primary and evidence.primary.n)
    if evidence.simulated:
        yield replace(begun, kind="simulated")
    if any(one.rule == "fragile" for one in held):
        yield Missing(kind="failed_calls")
    yield from (one.missing for one in held if one.missing)
    yield from evidence.missing


def _to_settle(standing: Standing) -> Iterator[Missing]:
    for one in standing.against:
        when = f", {one.at[:10]}" if one.at else ""
        told = f": {one.said}" if one.said else ""
        said = wording.visible(f"{one.source}{when}{told}")
        yield Missing(kind=STANDS_AGAINST, key=one.key, said=said)


def _to_confirm(concerns: Iterable[Concern]) -> Iterator[Missing]:
    return (Missing(kind=UNCONFIRMED, key=one.key) for one in concerns if not one.reason)


def _fallback(word: Word, verdict: str, begun: Missing) -> tuple[Missing, ...]:
    """A price even when the layer itself named none."""
    if word == "passes":
        return ()
    return (replace(begun, kind="invalid" if verdict == "invalid" else "more_of_it"),)


@cache
def _begun(layer: Layer, limit: float) -> Missing:
    """What a layer takes from its beginning."""
    if layer == "benchmark":
        return Missing(kind="absent")
    if layer == "ab_test":
        return Missing(kind="absent", needed=stats.users_needed(0.30, 0.35).total)
    if not limit:
        return Missing(kind="absent", needed=stats.ratings_needed(0.65))
    needed = stats.ratings_needed_no_worse(0.5, -limit)
    return Missing(kind="absent", needed=needed, margin=-limit)


def _reason(found: LayerDecision, evidence: Evidence) -> str:
    """Why a layer stands where it stands; the levels of both models are in the benchmark's evidence."""
    if found.simulated:
        stands = [sentence(one.text) for one in found.findings if one.rule == STANDS_AGAINST]
        return " ".join([f"The {found.name} is simulated, so it decides nothing.", *stands])
    # What was not settled before the facts belongs beside the verdict, also where it only warns.
    beside = [sentence(one.text) for one in found.told("warns") if one.rule in _BEFORE_THE_FACTS]
    told = (_levels(found, evidence) or _plainly(found), _later(found, evidence), *beside)
    return " ".join(one for one in told if one)


def _later(found: LayerDecision, evidence: Evidence) -> str:
    """Whose numbers the A/B test's are, when more users are in its log than the look had that decides."""
    done = evidence.details.findings if isinstance(evidence.details, ABDetails) else None
    primary = evidence.primary
    if not done or not done.n_later or found.estimate is None or not primary:
        return ""
    several = (primary.looks or 1) > 1
    look = f"look {primary.look} of {primary.looks}" if several else "the one look planned"
    first = found.fill(f"That is {look}, {{n}}")
    if several and found.verdict in {"better", "worse"}:
        first += ": the first look that leaves its limits decides, whenever it is read"
    whole = done.over_all
    if not whole:
        came = f"{wording.plural(done.n_later, 'user')} came"
        return f"{first}; {came} later, and their outcome windows are still open."
    ends = {"estimate": whole.estimate, "ci_low": whole.ci_low, "ci_high": whole.ci_high}
    n, over = wording.count(whole.n or 0), replace(found, findings=(), **ends)
    return (
        f"{first}; over all {n} whose outcome window has closed the difference is {over.difference()}, "
        "and decides nothing."
    )


def _plainly(found: LayerDecision) -> str:
    """Without levels: what the layer shows, then what stops it."""
    said = (_PREFERRED if found.layer == "human" else _SHOWS).get(found.verdict, found.verdict)
    stops = found.told("blocks", "holds")
    told = [f", but {one.clause}" if one.is_loss else f"; {one.text}" for one in stops]
    return "".join([f"The {found.name} {found.fill(said)}", *told]) + "."


def _levels(found: LayerDecision, evidence: Evidence) -> str:
    """Levels of both models, the difference, then each slice or other thing that stops it; "" where levels are absent."""
    seen = evidence.details
    metric = (
        seen.metrics.get(found.metric.replace(" ", "_"))
        if isinstance(seen, BenchmarkDetails)
        else None
    )
    if not metric or found.estimate is None or found.verdict not in _AFTER_LEVELS:
        return ""
    (before, after), rate = metric.levels, metric.is_rate
    if before is None or after is None:
        return ""
    moves = _moves(before, after, rate=rate, shown=found.verdict in {"better", "worse"})
    name = found.metric[:1].upper() + found.metric[1:]
    size = found.fill("of {n}" if rate else "over {n}")
    whole = f"{name} {moves} {size}: {found.fill(_AFTER_LEVELS[found.verdict])}."
    # The slice that looks worst is told where it only warns, too: some read the deck alone.
    bad = [one for one in found.told("warns") if one.rule == "slice_looks_bad"]
    worst = sorted(bad, key=lambda one: one.numbers.get("gain") or one.numbers["estimate"])[:1]
    stops = [*found.told("blocks", "holds"), *worst]
    return " ".join([whole, *(_stop(one, rate=rate) for one in stops)])


def _stop(one: Finding, *, rate: bool) -> str:
    row = one.numbers
    before, after = row.get("base_rate"), row.get("fine_tuned_rate")
    if one.rule not in SLICE_RULES or before is None or after is None:
        return sentence(one.clause)
    rate = row["shown_as"] != "number" if row.get("shown_as") else rate
    shown = one.rule == "slice_worse"
    moves = _moves(before, after, rate=rate, shown=shown)
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
