"""The layers at the gate, and the decision they make: the verdict, what it lacks, and which layers would turn it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import structs

from evalkit import stats, wording
from evalkit.decision.rules import (
    NAMES,
    STAGES,
    STANDS_AGAINST,
    UNCONFIRMED,
    Finding,
    Need,
    OnRecord,
    Rules,
    Stage,
    find,
)
from evalkit.decision.standing import (
    Concern,
    Differs,
    Stale,
    after_results,
    against_of,
    stale_in,
    standing,
)
from evalkit.errors import DataError, DesignError
from evalkit.evidence import (
    ABDetails,
    BenchmarkDetails,
    Evidence,
    HumanDetails,
    ReportedTest,
    apart,
    as_json,
    details_of,
)
from evalkit.files import JsonObject, as_record, read_json, utc
from evalkit.records import OPEN_SLICES, Against, Brief, Change, Layer, Missing

if TYPE_CHECKING:
    import pandas as pd

Word = Literal["passes", "don't ship", "not yet"]
Verdict = Literal["ship", "don't ship", "not yet"]

MISSING = "missing"
FILE = "decision.json"
FILES: dict[Layer, str] = {
    "benchmark": "comparison.json",
    "human": "preference.json",
    "ab_test": "ab_test.json",
}


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
        differs: What it was made for that is another now.
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
    differs: tuple[Differs, ...] = ()
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
    def slices(self) -> list[Finding]:
        """Slices of which a rule speaks."""
        return [one for one in self.findings if one.slice]

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
    stood: tuple[Finding, ...] = (),
    told: Iterable[Finding] = (),
) -> LayerDecision:
    """Puts one layer before the gate.

    Args:
        layer: Which.
        evidence: What it handed over; None when nothing.
        rules: The study's rules.
        required: Whether the stage needs it.
        stale: Why the evidence is not for these answers; None when it is.
        stood: What is on record against it, or was changed after a result.
        told: Further findings that are not in the evidence; they count where there is some.
    """
    open_ = _open(stood)
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
            differs=stale.differs if stale else (),
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
    made = LayerDecision(
        layer=layer,
        word="not yet",
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
        need=need,
        levels=_levels(evidence),
        later=_later(evidence),
    )
    made = replace(made, word=word_of(made))
    missing = (*open_, *_still_missing(made, evidence, begun))
    if not missing and made.word != "passes":  # a price even when the layer itself named none
        missing = (replace(begun, kind="invalid" if verdict == "invalid" else "more_of_it"),)
    return replace(made, missing=missing)


def _open(stood: Iterable[Finding]) -> list[Missing]:
    """What settles a result against the model, or a change that nobody has confirmed."""
    return [
        Missing(kind=one.rule, key=key)
        for one in stood
        if one.rule in (STANDS_AGAINST, UNCONFIRMED) and isinstance(one.numbers, OnRecord)
        for key in one.numbers.keys
    ]


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


def word_of(layer: LayerDecision) -> Word:
    if layer.simulated:
        return "not yet"
    if layer.verdict == "worse" or layer.told("blocks"):
        return "don't ship"
    good = layer.verdict == "better" or (layer.need, layer.verdict) == ("not worse", "not worse")
    return "passes" if good and not layer.told("holds") else "not yet"


def _still_missing(layer: LayerDecision, evidence: Evidence, begun: Missing) -> Iterator[Missing]:
    if layer.word == "passes":
        if any(one.effect == "warns" for one in layer.slices):
            priced = [one for one in evidence.missing if one.kind == OPEN_SLICES]
            yield from priced or [Missing(kind="slices_warned")]
        return
    if layer.word == "don't ship":
        yield Missing(kind="worse", n=layer.n)
    if layer.simulated:
        yield replace(begun, kind="simulated")
    held = layer.told("holds")
    if any(one.rule == "fragile" for one in held):
        yield Missing(kind="failed_calls")
    yield from (one.missing for one in held if one.missing)
    yield from evidence.missing


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


# ---- the decision


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Decision(Brief):
    """One decision on one version.

    Its words - headline, deck, warnings, what is missing and what would change it - are made by `evalkit.show.verdict`.

    Attributes:
        verdict: ship, don't ship or not yet.
        layers: The three layers, in order; one that the stage does not need is there too.
        ruled_by: The rules it was made by.
        sliced: False where a benchmark declares no slice.
        n_regressed: Answers that were right and are now wrong; None where nobody counted.
        simulated: Layers with simulated ratings or users.
        declared: What decided, for later runs to compare with; see `evalkit.decision.concerns`.
    """

    study: str
    stage: Stage
    made_at: str
    verdict: Verdict
    layers: tuple[LayerDecision, ...]
    models: Mapping[str, str]
    bound_to: Mapping[str, str]
    ruled_by: Rules = field(default_factory=Rules)
    sliced: bool = True
    n_regressed: int | None = None
    declared: JsonObject = field(default_factory=dict)

    @property
    def simulated(self) -> tuple[str, ...]:
        """Layers in which something is simulated."""
        return tuple(layer.layer for layer in self.layers if layer.simulated)

    @property
    def rests_on_simulated(self) -> bool:
        """Whether a layer that the decision hears is simulated."""
        return any(layer.simulated and layer.speaks for layer in self.layers)

    @property
    def lacks(self) -> list[tuple[LayerDecision, Missing, str]]:
        """What the verdict waits for, then what would settle a warning: the layer, it, and the word it would turn."""
        heard = [layer for layer in self.layers if layer.speaks]
        open_ = [(layer, one, layer.word) for layer in heard for one in layer.missing]
        waits = [row for row in open_ if row[2] != "passes"]
        settle = [
            (layer, one.missing) for layer in heard for one in layer.told("warns") if one.missing
        ]
        warns = [*((layer, one) for layer, one, word in open_ if word == "passes"), *settle]
        return [*waits, *((layer, one, "warns") for layer, one in warns)]

    @property
    def turned_by(self) -> tuple[LayerDecision, ...]:
        """The fewest layers whose passing would make it "ship", found by turning each and asking the gate again."""
        if self.verdict == "ship":
            return ()
        short = [layer for layer in self.layers if layer.word != "passes" and layer.speaks]
        sets = (chosen for n in range(len(short)) for chosen in combinations(short, n + 1))
        for turned in sets:
            others = [layer for layer in self.layers if layer not in turned]
            passed = [replace(layer, word="passes", findings=()) for layer in turned]
            if overall([*others, *passed]) == "ship":
                return turned
        return ()

    def to_frame(self) -> pd.DataFrame:
        """A row a layer, in the order of the gate.

        Returns:
            Columns: `layer`, `gate` (passes, don't ship, not yet), `verdict` (of the layer's test, or "missing"), `metric`,
            `unit`, `n`, `estimate`, `ci_low`, `ci_high` and `limit` (fine-tuned minus base, human rating minus 50%; on the
            metric's own scale), `p_value`, `alpha`, `lower_is_better`, `required` (by the stage) and `simulated`.
            An effect that is withheld is missing.
        """
        import pandas as pd

        numbers = ("estimate", "ci_low", "ci_high", "limit", "p_value", "alpha")
        columns = ["layer", "word", "verdict", "metric", "unit", "n", *numbers]
        columns += ["lower_is_better", "required", "simulated"]
        gate = pd.CategoricalDtype(["don't ship", "not yet", "passes"], ordered=True)
        kinds = {"layer": pd.CategoricalDtype([*FILES]), "gate": gate, "verdict": "category"}
        frame = pd.DataFrame([asdict(one) for one in self.layers], columns=columns)
        frame = frame.rename(columns={"word": "gate"})
        return frame.astype(kinds | {"n": "Int64"} | dict.fromkeys(numbers, float))

    def to_dict(self) -> JsonObject:
        """Plain values for JSON."""
        return as_json(self) | {"simulated": [*self.simulated]}

    def __str__(self) -> str:
        gates = (f"{one.name} {one.word}" for one in self.layers if one.speaks)
        return f"{self.study}: {self.verdict} ({', '.join(gates)})"


def decide(
    evidence: Mapping[Layer, Evidence],
    *,
    study: str,
    stage: str = "pre_deploy",
    rules: Rules | None = None,
    against: Iterable[Against] = (),
    concerns: Iterable[Concern] = (),
    declared: Mapping[str, object] | None = None,
    changed: Iterable[Change] = (),
    now: datetime | None = None,
) -> Decision:
    """Joins the layers' evidence into one decision.

    Args:
        evidence: What there is, by layer.
        study: The study's name.
        stage: "pre_deploy" (benchmark and human rating) or "rollout" (the A/B test too).
        rules: The study's rules; the defaults otherwise.
        against: Results against any model of the study, from any time; see `evalkit.decision.standing`.
        concerns: What was changed after it could be known how it turns out; see `evalkit.decision.concerns`.
        declared: Settings and rules that decide, kept on record.
        changed: What is declared otherwise than when results were seen; see `evalkit.decision.concerns`.
        now: Time of the decision; the present by default.

    Raises:
        DesignError: No such stage.
    """
    if stage not in STAGES:
        raise DesignError(f"stage {stage!r}: need {' or '.join(STAGES)}")
    rules = rules or Rules()
    stale: dict[Layer, Stale | None] = {name: stale_in(evidence, name) for name in FILES}
    every = [*against, *_stale_against(evidence, stale, rules)]
    open_, told = [*concerns], {"benchmark": [*after_results(changed, rules)]}
    layers = tuple(
        read_layer(
            name,
            evidence.get(name),
            rules=rules,
            required=name in rules.required(stage),
            stale=stale[name],
            stood=(
                *standing(name, every, evidence, retired=rules.retired_evidence),
                *(one.finding for one in open_ if one.layer == name),
            ),
            told=told.get(name, ()),
        )
        for name in FILES
    )
    benchmark = evidence.get("benchmark")
    about = benchmark or next(iter(evidence.values()), None)
    seen = details_of(evidence, BenchmarkDetails)
    return Decision(
        study=study,
        stage=stage,
        made_at=utc(now),
        verdict=overall(layers),
        layers=layers,
        models=dict(about.models) if about else {},
        bound_to=dict(about.bound_to) if about else {},
        ruled_by=rules,
        sliced=benchmark is None or bool(seen.slices),
        n_regressed=seen.cells.get("regressed") or None,
        declared=dict(declared or {}),
    )


def overall(layers: Sequence[LayerDecision]) -> Verdict:
    """Any layer against it: don't ship. All required layers for it, and nothing standing against it: ship. Else: not yet."""
    if any(layer.word == "don't ship" for layer in layers):
        return "don't ship"
    needed = [layer.word for layer in layers if layer.required]
    stands = any(layer.stands_against for layer in layers)
    return "ship" if needed and {*needed} == {"passes"} and not stands else "not yet"


def read_evidence(folder: Path) -> dict[Layer, Evidence]:
    """The evidence that stands in a run's folder.

    Raises:
        DataError: A file is damaged or holds another layer.
    """
    found: dict[Layer, Evidence] = {}
    for layer, file in FILES.items():
        if (path := folder / file).is_file():
            found[layer] = one = Evidence.read(path)
            if one.layer != layer:
                raise DataError(f"{path}: holds the layer {one.layer!r}; need {layer!r}")
    return found


def read_decision(folder: Path) -> Decision:
    """The kinds and numbers of the decision that was written into a run's folder; of its words the headline's first is read.

    Raises:
        DataError: It is missing or damaged, lacks a layer, or says another thing than its layers make.
    """
    path, said, remedy = folder / FILE, "not a decision", "run its chapter again"
    if not path.exists():
        raise DataError(f"{folder}: no {FILE}; no decision was made in this run")
    file = read_json(path, said=said, remedy=remedy)
    found = as_record(apart(file, Decision), Decision, f"{path}: {said}", remedy)
    if (names := [one.layer for one in found.layers]) != [*FILES]:
        told = f"holds the layers {wording.listed([*names]) or 'none'}; need {wording.listed([*FILES])}"
        raise DataError(f"{path}: {told}; {remedy}")
    says = [(one.word, word_of(one)) for one in found.layers]
    for word, made in (*says, (found.verdict, overall(found.layers))):
        if word != made:
            raise DataError(f"{path}: says {word!r}, and its layers make {made!r}; {remedy}")
    headline = str(file.get("headline"))
    if not headline.lower().replace("’", "'").startswith(f"{found.verdict} "):
        told = f"says {found.verdict!r}, and its headline “{wording.visible(headline)}”"
        raise DataError(f"{path}: {told}; {remedy}")
    return found


def _stale_against(
    evidence: Mapping[Layer, Evidence], stale: Mapping[Layer, Stale | None], rules: Rules
) -> Iterable[Against]:
    """Evidence of this run that is not for these answers, where it would have said "don't ship"."""
    for layer, why in stale.items():
        if why:
            read = read_layer(layer, evidence[layer], rules=rules, required=True)
            if found := against_of(evidence[layer], read.word, wording.effect_text(read)):
                yield found
