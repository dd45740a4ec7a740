"""The rules of the decision as data - defaults here, a study's own in the file that `rules_file` names - and what they find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType, structs

from evalkit.errors import DataError, DesignError
from evalkit.evidence import (
    ABEvidence,
    AtEqualLength,
    BenchmarkEvidence,
    Evidence,
    HumanEvidence,
    OfRaters,
    PlanDiffers,
    Reported,
    ReportedGuardrail,
    ReportedOutcomes,
    ReportedSlice,
    ReportedTest,
    apart,
    as_json,
)
from evalkit.files import JsonObject, read_yaml
from evalkit.records import Against, Change, Layer, Missing
from evalkit.study import Study
from evalkit.wording import is_blank, listed

Effect = Literal["blocks", "holds", "warns", "ignored"]
Need = Literal["better", "not worse"]
Stage = Literal["pre_deploy", "rollout"]

NAMES: dict[str, str] = {"benchmark": "benchmark", "human": "human rating", "ab_test": "A/B test"}
STAGES: dict[Stage, str] = {"pre_deploy": "before deployment", "rollout": "rollout"}
# what no rule can change: results against the model from before, changes after a result, by whether a reason is on record
STANDS_AGAINST, RETIRED = "stands_against", "retired_evidence"
UNCONFIRMED, CONFIRMED = "unconfirmed", "confirmed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a version ships. A simulated layer never leads to "ship", and evidence for other answers never counts: no rule.

    Attributes:
        human_before_deployment: People must have rated the answers before anything is deployed.
        benchmark_needs: What the benchmark must show: "better", or "not worse" by more than the margin.
        benchmark_margin: Loss still accepted under "not worse", as a fraction.
        human_needs: The same for human rating, whose margin counts from 50%.
        human_margin: Loss still accepted.
        ab_test_needs: The same for the A/B test.
        ab_test_margin: Loss still accepted.
        slice_worse: A declared slice shown worse (Holm over the slices, or its interval beyond the margin) blocks, holds,
            warns or is ignored.
        slice_looks_bad: A slice not shown worse, whose loss is larger than the declared margin.
        slice_could_not_be_seen: A slice neither worse nor shown safe, with too few examples to see a loss of the margin.
        other_metric_worse: A metric beside the primary one shown worse (Holm over the metrics).
        fragile: The verdict changes when failed calls are left out.
        noise_not_measured: No model was asked twice, so flips by chance are unknown.
        test_set_faulty: Test examples leak from the training file, or one prompt has different expected answers.
        length_explains: Raters prefer the fine-tuned answers, and at equal length no preference is shown.
        few_raters: A preference of these raters that is not shown for raters like them, or that only one rater stated.
        careless_raters: Raters whom the checks of the round flag, such as for votes of a second.
        guardrail_not_shown: A guardrail of the A/B test that is not shown to hold.
        plan_after_exposures: An A/B plan that was locked when users had come already: who saw how it went chose what decides.
        not_whole_weeks: An A/B result of users who came on part of a week, until whole weeks show the same.
        plan_differs: A study.yaml that says otherwise than the locked plan, which counts.
        declared_after_results: The primary metric, slices, margins or rules of this test set, made easier to pass or another
            after a run had shown results on it.
        retired_evidence: Results against this model that no longer hold the decision: a reason for each, by the key under
            which the report lists it. Each is printed for as long as it would stand.
    """

    human_before_deployment: bool = True
    benchmark_needs: Need = "better"
    benchmark_margin: float = 0.0
    human_needs: Need = "better"
    human_margin: float = 0.0
    ab_test_needs: Need = "better"
    ab_test_margin: float = 0.0
    slice_worse: Effect = "blocks"
    slice_looks_bad: Effect = "warns"
    slice_could_not_be_seen: Effect = "warns"
    other_metric_worse: Effect = "warns"
    fragile: Effect = "holds"
    noise_not_measured: Effect = "warns"
    test_set_faulty: Effect = "warns"
    length_explains: Effect = "warns"
    few_raters: Effect = "warns"
    careless_raters: Effect = "warns"
    guardrail_not_shown: Effect = "holds"
    plan_after_exposures: Effect = "holds"
    not_whole_weeks: Effect = "holds"
    plan_differs: Effect = "holds"
    declared_after_results: Effect = "warns"
    retired_evidence: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one in fields(self):
            _check(one.name, getattr(self, one.name), one.default)

    @classmethod
    def of(cls, home: Study) -> Rules:
        """A study's rules by its `rules_file` and its question; raises as `read` does."""
        said = home.settings
        path = home.named_file(said.rules_file)
        return cls.read(path, question=said.question, margin=said.question_margin)

    @classmethod
    def read(cls, path: Path | None, *, question: str = "better", margin: float = 0.0) -> Rules:
        """A study's rules; the defaults without a file.

        Args:
            path: The study's `rules_file`; what it says of a layer wins over the question.
            question: "no_worse" asks of every layer that it shows no loss of the margin, where the file says nothing.
            margin: That margin, as a fraction.

        Raises:
            DataError: The file is missing or is not `name: value` lines.
            DesignError: A rule is unknown or has an impossible value, or nothing is left of the question.
        """
        asked: JsonObject = {}
        if question == "no_worse":
            asked = {f"{layer}_needs": "not worse" for layer in NAMES}
            asked |= {f"{layer}_margin": margin for layer in NAMES}
        if path is None:
            return cls(**asked)
        found = read_yaml(path, need="`name: value` lines") or {}
        if not isinstance(found, dict):
            raise DataError(f"{path}: not rules; need `name: value` lines")
        try:
            said, known = _renamed(found), [one.name for one in fields(cls)]
            if unknown := [str(name) for name in said if name not in known]:
                told = f"no rule is called {listed(unknown)}; there are {listed(known)}"
                raise DesignError(told)
            against = [one for one in asked if said.get(one) == "better"]
            if len(against) == len(NAMES):
                raise DesignError(
                    "asks for better in every layer, where study.yaml asks `question: no_worse`; take "
                    f"{listed(against)} out, or the question"
                )
            return cls(**{**asked, **said})
        except DesignError as why:
            raise DesignError(f"{path}: {why}") from None

    def required(self, stage: Stage) -> tuple[Layer, ...]:
        """The layers that must pass at this stage."""
        human: tuple[Layer, ...] = ("human",) if self.human_before_deployment else ()
        return ("benchmark", *human, *(("ab_test",) if stage == "rollout" else ()))

    def needs(self, layer: Layer) -> Need:
        """What a layer must show."""
        return getattr(self, f"{layer}_needs")

    def limit(self, layer: Layer) -> float:
        """The difference the whole interval must lie beyond: 0, or minus the margin."""
        return -getattr(self, f"{layer}_margin") if self.needs(layer) == "not worse" else 0.0


_SPLIT = {"slice_not_shown_safe": ("slice_looks_bad", "slice_could_not_be_seen")}


def _renamed(found: JsonObject) -> JsonObject:
    """An old rule by the names it has now; both of them at once would contradict each other.

    Raises:
        DesignError: There is an old name and one of its new ones.
    """
    rules = dict(found)
    for old in rules.keys() & _SPLIT.keys():
        names, value = _SPLIT[old], rules.pop(old)
        if twice := [name for name in names if name in rules]:
            now = f"{old} is now {listed([*names])}, and {listed(twice)} stands there too"
            raise DesignError(f"{now}; remove {old}")
        rules |= dict.fromkeys(names, value)
    return rules


def _check(name: str, value: object, default: object) -> None:
    got, wanted = f"rule {name}: got {value!r}; need", ()
    if name == "retired_evidence":
        reasons = value.values() if isinstance(value, Mapping) else [None]
        if not all(isinstance(why, str) and not is_blank(why) for why in reasons):
            raise DesignError(
                f"{got} a reason in words for each key that the report lists, such as "
                "{human-1a2b3c4d: the votes were for a checkpoint that is gone}"
            )
        return
    if isinstance(default, bool):
        wanted = (True, False)
    elif isinstance(default, str):
        wanted = get_args(Need if name.endswith("_needs") else Effect)
    elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise DesignError(f"{got} a fraction of at least 0 and below 1, such as 0.02")
    if wanted and not any(type(value) is type(one) and value == one for one in wanted):
        raise DesignError(f"{got} {' or '.join(str(one).lower() for one in wanted)}")


# ---- what they find in a layer's evidence


class FoundSlice(ReportedSlice, frozen=True, kw_only=True):
    """A slice that is worse, or not shown safe; `if_worse` is what shown worse would do."""

    if_worse: str | None = None

    @property
    def signed(self) -> float:
        """Its difference with the sign of good news."""
        return (self.estimate if self.gain is None else self.gain) or 0.0


class FoundMetric(ReportedTest, frozen=True, kw_only=True):
    """Another metric that is worse."""

    metric: str


class Faults(Reported, frozen=True, kw_only=True):
    """Faults of the test set, of one kind."""

    kind: Literal["leak", "conflict"]
    n: int


class Careless(Reported, frozen=True, kw_only=True):
    """Of `n` raters those who look careless."""

    raters: tuple[str, ...]
    n: int


class LatePlan(Reported, frozen=True, kw_only=True):
    """When a plan was locked, and when its first user came."""

    locked_at: str
    came_first: str


class Days(Reported, frozen=True, kw_only=True):
    """Days on which users came."""

    days: int


class OtherPlan(Reported, frozen=True, kw_only=True):
    """What study.yaml says otherwise than the locked plan."""

    differs: tuple[PlanDiffers, ...]


class OnRecord(Reported, frozen=True, kw_only=True):
    """What the study's own record tells: results against the model, or a change after a result was seen.

    Attributes:
        keys: Their short names.
        source: What a retired result came from.
        reason: Why it is retired, or why the change is all right.
        what: The change in words, all that a file of an earlier version has of it.
    """

    keys: tuple[str, ...] = ()
    source: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    against: tuple[Against, ...] | UnsetType = UNSET
    change: Change | UnsetType = UNSET
    what: str | UnsetType = UNSET


_NUMBERS: Mapping[str, type[Reported]] = {
    **dict.fromkeys(("slice_worse", "slice_looks_bad", "slice_could_not_be_seen"), FoundSlice),
    **dict.fromkeys((STANDS_AGAINST, RETIRED, UNCONFIRMED, CONFIRMED), OnRecord),
    "declared_after_results": OnRecord,
    "other_metric_worse": FoundMetric,
    "test_set_faulty": Faults,
    "length_explains": AtEqualLength,
    "few_raters": OfRaters,
    "careless_raters": Careless,
    "guardrail_not_shown": ReportedGuardrail,
    "plan_after_exposures": LatePlan,
    "not_whole_weeks": Days,
    "plan_differs": OtherPlan,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something a rule speaks about: a slice, a metric, a guardrail, fragility.

    Attributes:
        rule: The rule's name in `Rules`, or one that no rule can change.
        effect: What that rule does.
        numbers: What was found; `evalkit.show.findings` says it.
        missing: What would settle it; None where nothing is named.
    """

    rule: str
    effect: Effect
    numbers: Reported = field(default_factory=Reported)
    missing: Missing | None = None

    def __post_init__(self) -> None:
        """Read from a file, the numbers are those of its rule."""
        kind = _NUMBERS.get(self.rule)
        if kind and type(self.numbers) is Reported:
            try:
                numbers = msgspec.convert(apart(self.numbers.reported, kind), kind)
            except msgspec.ValidationError as why:
                raise ValueError(f"{self.rule}: {why}") from why
            object.__setattr__(self, "numbers", numbers)

    @property
    def is_loss(self) -> bool:
        """Whether it says that the fine-tuned model is worse in something."""
        return self.rule in {"slice_worse", "other_metric_worse"}

    @property
    def slice(self) -> FoundSlice | None:
        """The slice it is about."""
        return self.numbers if isinstance(self.numbers, FoundSlice) else None

    @property
    def change(self) -> Change | None:
        """The change after a result that it is about."""
        return (self.numbers.change or None) if isinstance(self.numbers, OnRecord) else None


def find(evidence: Evidence, rules: Rules) -> Iterator[Finding]:
    """Everything in a layer's evidence that a rule speaks about, whatever the rule does."""
    match evidence:
        case BenchmarkEvidence():
            told = _in_benchmark(evidence, rules)
        case HumanEvidence():
            told = _in_ratings(evidence)
        case ABEvidence():
            told = _in_ab_test(evidence, rules)
        case _:
            return
    for rule, numbers, missing in told:
        effect: Effect = getattr(rules, rule)
        if isinstance(numbers, ReportedGuardrail) and numbers.verdict == "worse":
            effect = "blocks"
        yield Finding(rule=rule, effect=effect, numbers=numbers, missing=missing)


_Told = Iterator[tuple[str, Reported, Missing | None]]
_OF_SLICE = {
    "worse": "slice_worse",
    "looks bad": "slice_looks_bad",
    "could not have been seen": "slice_could_not_be_seen",
}


def _in_benchmark(evidence: BenchmarkEvidence, rules: Rules) -> _Told:
    seen = evidence.details
    if seen.n_leaks:
        yield "test_set_faulty", Faults(kind="leak", n=seen.n_leaks), None
    if seen.n_conflicts:
        yield "test_set_faulty", Faults(kind="conflict", n=seen.n_conflicts), None
    for row in seen.slices:
        standing = "worse" if row.verdict == "worse" else row.standing
        if rule := _OF_SLICE.get(standing or ""):
            numbers = structs.asdict(row) | {"if_worse": rules.slice_worse, "reported": {}}
            yield rule, FoundSlice(**numbers), None
    for name, metric in seen.metrics.items():
        test, p_value = metric.test, seen.p_adjusted.get(name, metric.test.p_value)
        shown = p_value is not None and p_value < (test.alpha or 0.05)
        is_other = name.replace("_", " ") != evidence.metric.replace("_", " ")
        if test.verdict == "worse" and shown and is_other:
            yield "other_metric_worse", FoundMetric.of(as_json(test) | {"metric": name}), None
    if seen.fragile:
        yield "fragile", Reported(), None
    if not seen.noise_floor:
        yield "noise_not_measured", Reported(), None


def _in_ratings(evidence: HumanEvidence) -> _Told:
    seen, prefers = evidence.details, evidence.verdict == "better"
    if careless := tuple(one.rater for one in seen.raters if one.flags):
        yield "careless_raters", Careless(raters=careless, n=len(seen.raters)), None
    if prefers and seen.length_adjusted and seen.length_adjusted.explains:
        yield "length_explains", seen.length_adjusted, None
    if prefers and seen.rater_sample and seen.rater_sample.verdict != "better":
        yield "few_raters", seen.rater_sample, None


def _in_ab_test(evidence: ABEvidence, rules: Rules) -> _Told:
    """What was not settled before the first user came, what those of the deciding look cannot tell, and the guardrails."""
    seen, done = evidence.details, evidence.details.findings or ReportedOutcomes()
    planned, is_real = seen.planned, not evidence.simulated
    if is_real and seen.came_first:
        n = planned.n_control + planned.n_treatment
        settle = Missing(kind="plan_after_exposures", needed=n, days=planned.days)
        numbers = LatePlan(locked_at=seen.locked_at, came_first=seen.came_first)
        yield "plan_after_exposures", numbers, settle
    decides = evidence.verdict == "better" or rules.ab_test_needs == "not worse"
    if is_real and done.uneven and decides:
        settle = Missing(kind="not_whole_weeks", days=done.days_to_weeks)
        yield "not_whole_weeks", Days(days=done.days), settle
    differs = tuple(one for one in seen.plan_differs or () if not one.amended)
    if is_real and differs:
        yield "plan_differs", OtherPlan(differs=differs), Missing(kind="plan_differs")
    for guard in seen.guardrails:
        if guard.verdict not in {"not worse", "better"}:
            yield "guardrail_not_shown", guard, None
