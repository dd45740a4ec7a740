"""One layer's evidence -> its gate word, and all that speaks for it and against it."""

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
)
from evalkit.decision.rules import NAMES, Need, Rules
from evalkit.evidence import ABDetails, BenchmarkDetails, Evidence, HumanDetails, ReportedTest
from evalkit.records import OPEN_SLICES, Layer, Missing

Word = Literal["passes", "don't ship", "not yet"]

MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Both models' levels in a metric; a rate is a share of examples."""

    base: float
    fine_tuned: float
    is_rate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """Users who came after the look that decides, of `looks`; `over_all` counts those whose outcome window has closed."""

    look: int | None
    looks: int
    n: int
    over_all: int | None = None
    estimate: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDecision:
    """One layer at the gate.

    Attributes:
        word: passes, don't ship or not yet.
        verdict: The verdict of its test, or "missing".
        simulated: True when any rating or user in it is simulated.
        required: True when the stage needs this layer.
        identical: Of `n`, those that nobody was asked about, as both answers are the same: they count as ties.
        estimate: The effect as a difference (human rating: minus 50%); None when withheld.
        limit: What the whole interval must lie beyond, on the better side.
        need: What it must show: "better", or "not worse" by more than the margin.
        lower_is_better: The metric's direction; it turns the side on which the limit lies.
        scale: "points" for rates, "number" for a metric in its own unit.
        findings: What the rules had to say.
        missing: What would settle it.
        stale: Why what was handed over does not count: other_answers, other_models or unbound; "" when it does.
        made_for: What it was made for instead.
        levels: Of both models in the metric, where the benchmark has them.
        later: What came after the look of an A/B test that decides, where anybody did.
    """

    layer: Layer
    word: Word
    verdict: str
    simulated: bool = False
    required: bool = True
    metric: str = ""
    unit: str = ""
    n: int | None = None
    identical: int = 0
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
    made_for: str = ""
    need: str = "better"
    levels: Levels | None = None
    later: Later | None = None

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

    @property
    def asked(self) -> int:
        """`n` without what is identical."""
        return (self.n or 0) - self.identical


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
    stood = (*of_standing(standing), *of_concerns(changes))
    open_ = (*_to_settle(standing), *_to_confirm(changes))
    need, limit = rules.needs(layer), rules.limit(layer)
    begun = _begun(layer, limit)
    if evidence is None or stale:
        return LayerDecision(
            layer=layer,
            word="not yet",
            verdict=MISSING,
            required=required,
            findings=stood,
            missing=(*open_, replace(begun, kind="stale") if stale else begun),
            stale=stale.kind if stale else "",
            made_for=stale.words if stale else "",
        )
    ours = [one for one in (*told, *find(evidence, rules)) if one.effect != "ignored"]
    findings = (*stood, *ours)
    primary, details = _counting(evidence, need), evidence.details
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
    return LayerDecision(
        layer=layer,
        word=word,
        verdict=verdict,
        simulated=evidence.simulated,
        required=required,
        metric=wording.visible(evidence.metric),
        unit=evidence.unit,
        n=primary.n,
        identical=details.identical if isinstance(details, HumanDetails) else 0,
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
        levels=_levels(evidence),
        later=_later(evidence),
    )


def _levels(evidence: Evidence) -> Levels | None:
    """The benchmark's; the other layers keep lists of their own under "metrics"."""
    seen, name = evidence.details, wording.visible(evidence.metric).replace(" ", "_")
    metric = seen.metrics.get(name) if isinstance(seen, BenchmarkDetails) else None
    base, tuned = metric.levels if metric else (None, None)
    if metric is None or base is None or tuned is None:
        return None
    return Levels(base=base, fine_tuned=tuned, is_rate=metric.is_rate)


def _later(evidence: Evidence) -> Later | None:
    done = evidence.details.findings if isinstance(evidence.details, ABDetails) else None
    if not done or not done.n_later or not evidence.primary:
        return None
    primary, whole = evidence.primary, done.over_all
    at = Later(look=primary.look or None, looks=primary.looks or 1, n=done.n_later)
    if not whole:
        return at
    ends = {"estimate": whole.estimate, "ci_low": whole.ci_low, "ci_high": whole.ci_high}
    return replace(at, over_all=whole.n or 0, **ends)


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
    open_ = (one for one in concerns if not one.reason)
    return (Missing(kind=UNCONFIRMED, key=one.key, said=one.text) for one in open_)


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
