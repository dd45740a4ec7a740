"""What a layer hands to the decision, as a JSON file in the run's folder: its result, and what else it reports.

A record has a field for whatever code reads of it. The rest, which only people and other programs read, stays as it is
under `reported`; in the file both stand beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType

from evalkit.errors import DataError
from evalkit.files import JsonObject, as_record, read_json, to_json, write_whole
from evalkit.records import Brief, Layer, Lean, Missing
from evalkit.wording import without_secrets_in

_SAID, _REMEDY = "not a record of evidence", "run its chapter again"


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """A part of what a layer reports; a field that is unset stands in no file.

    Attributes:
        reported: What no code reads, by its name in the file.
    """

    reported: JsonObject = {}

    @classmethod
    def of(cls, numbers: Mapping[str, object]) -> Self:
        """The part whose JSON this is.

        Raises:
            DataError: A field is of another type.
        """
        return as_record(apart(as_json(numbers), cls), cls, _SAID, _REMEDY)


class Interval(Reported, frozen=True, kw_only=True):
    """An estimate and its interval, None where undefined; `n` counts what carries it."""

    estimate: float | None = None
    n: int | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    alpha: float | UnsetType | None = UNSET


class ReportedTest(Interval, frozen=True, kw_only=True):
    """The result of a test; while it is withheld `verdict` and `n` at most.

    Attributes:
        p_decides: The p-value that the verdict follows, where that may be another than `p_value`.
        shown_as: "points" or "number"; points where unset.
        look: The planned look it was read at, of `looks`.
    """

    verdict: str = ""
    p_value: float | None = None
    p_decides: float | UnsetType | None = UNSET
    lower_is_better: bool | None = None
    shown_as: str | UnsetType = UNSET
    look: int | UnsetType = UNSET
    looks: int | UnsetType = UNSET

    @property
    def p_of_verdict(self) -> float | None:
        """The p-value that the verdict follows."""
        return self.p_value if self.p_decides is UNSET else self.p_decides


class Level(Interval, frozen=True, kw_only=True):
    """One model's level in a metric; a rate counts its successes."""

    successes: int | UnsetType = UNSET


class ReportedMetric(Reported, frozen=True, kw_only=True):
    """Both models' levels in a metric, and the test of their difference."""

    base: Level | float | None = None
    fine_tuned: Level | float | None = None
    test: ReportedTest = ReportedTest()

    @property
    def levels(self) -> tuple[float | None, float | None]:
        """Base and fine-tuned, None where undefined."""
        base, tuned = (
            one.estimate if isinstance(one, Level) else one for one in (self.base, self.fine_tuned)
        )
        return base, tuned

    @property
    def is_rate(self) -> bool:
        """Whether a level is a share of examples."""
        return isinstance(self.base, Level) and self.base.successes is not UNSET


class ReportedSlice(Interval, frozen=True, kw_only=True):
    """What is known of one slice in the primary metric.

    Attributes:
        slice: Such as "kind = multi".
        gain: The estimate with the sign of good news.
    """

    slice: str = ""
    base_rate: float | None = None
    fine_tuned_rate: float | None = None
    gain: float | None = None
    p_adjusted: float | None = None
    verdict: str | None = None
    standing: str | None = None
    margin: float | None = None
    chance_to_see: float | None = None
    shown_as: str | None = None


class BenchmarkDetails(Reported, frozen=True, kw_only=True):
    """What the benchmark reports.

    Attributes:
        metrics: By name, the primary one included.
        p_adjusted: Holm over the metrics that are not primary.
        cells: By what became of the examples.
        fragile: Whether the verdict hangs on failed calls.
        noise_floor: How often answers flip by chance; None, or nothing in it, where that was not measured.
        slices: Of the primary metric.
        widened: The interval where several models were compared, which counts against a margin.
        test_set_findings: The doctor's, counted by kind.
        own_code: Files with functions of one's own, and their hashes.
        costs: Tokens, waiting time and money, by model.
    """

    metrics: Mapping[str, ReportedMetric] = {}
    p_adjusted: Mapping[str, float | None] = {}
    cells: Mapping[str, int] = {}
    fragile: bool = False
    noise_floor: JsonObject | None = None
    slices: tuple[ReportedSlice, ...] = ()
    widened: Interval | None = None
    n_compared: int = 1
    test_set_findings: Mapping[str, int] = {}
    own_code: Mapping[str, str] = {}
    costs: Mapping[str, JsonObject] = {}

    @property
    def n_leaks(self) -> int:
        """Test examples that stand in the training file."""
        return sum(n for kind, n in self.test_set_findings.items() if kind.startswith("leak"))

    @property
    def n_conflicts(self) -> int:
        """Test prompts with different expected answers."""
        return self.test_set_findings.get("conflict", 0)


class ReportedRater(Reported, frozen=True, kw_only=True):
    """One rater, and why this one looks careless."""

    rater: str = ""
    flags: tuple[str, ...] = ()


class AtEqualLength(ReportedTest, frozen=True, kw_only=True):
    """The preference were both answers equally long, and whether their length explains it."""

    explains: bool = False


class OfRaters(ReportedTest, frozen=True, kw_only=True):
    """The preference of raters like these."""

    n_raters: int = 0


class HumanDetails(Reported, frozen=True, kw_only=True):
    """What a rating round reports; while it is open its progress alone.

    Attributes:
        lock: Of the round; `locked_before` where somebody removed an earlier one.
        identical: Pairs with identical answers, which count as ties without anybody having been asked.
    """

    round: str = ""
    identical: int = 0
    raters: tuple[ReportedRater, ...] = ()
    lock: JsonObject | None = None
    length_adjusted: AtEqualLength | None = None
    rater_sample: OfRaters | None = None


class Planned(Reported, frozen=True, kw_only=True):
    """The size of an A/B test as planned."""

    n_control: int = 0
    n_treatment: int = 0
    days: int = 0


class ReportedGuardrail(Interval, frozen=True, kw_only=True):
    """One guardrail and its verdict against its margin."""

    name: str = ""
    verdict: str = ""


class ReportedOutcomes(Reported, frozen=True, kw_only=True):
    """What the outcomes say, beside the primary result.

    Attributes:
        uneven: Whether weekdays may decide.
        days: Days on which the users of the look that decides came.
        days_to_weeks: Days until its weeks are whole.
        n_later: Users who came after that look.
        over_all: The effect with those whose outcome window has closed.
    """

    uneven: bool = False
    days: int = 0
    days_to_weeks: int = 0
    n_later: int = 0
    over_all: Interval | None = None


class PlanDiffers(Reported, frozen=True, kw_only=True):
    """A setting that study.yaml and the locked plan say differently; `amended` where the plan was changed, not the study."""

    name: str
    study: str | int | float | bool | None
    plan: str | int | float | bool | None
    amended: bool = False


class ABDetails(Reported, frozen=True, kw_only=True):
    """What an A/B test reports; without a reading why there is none.

    Attributes:
        came_first: When the first user came, if that was before the plan was locked; else "".
        guardrails: Those that may be shown.
        looks: The primary result at each look due.
        findings: What the outcomes say; unset while the effect is withheld.
    """

    experiment: str = ""
    plan_hash: str = ""
    locked_at: str = ""
    came_first: str = ""
    planned: Planned = Planned()
    guardrails: tuple[ReportedGuardrail, ...] = ()
    looks: tuple[ReportedTest, ...] = ()
    findings: ReportedOutcomes | UnsetType = UNSET
    plan_differs: tuple[PlanDiffers, ...] | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Evidence(Brief):
    """What one layer hands to the decision.

    Attributes:
        layer: benchmark, human or ab_test.
        models: Names, `{"base": ..., "fine_tuned": ...}`.
        bound_to: Hashes this evidence is valid for: `test_set`; `base` and `fine_tuned` (answers, see
            `records.answers_hash`); `base_journal` and `fine_tuned_journal` (all that the journals hold).
        simulated: True when any rating or user in it is simulated.
        metric: What `primary` measures, in words, e.g. "exact match".
        unit: What its `n` counts: examples, items or users.
        primary: The primary test result; None when withheld.
        missing: What would settle it.
        details: What else the layer reports.
    """

    layer: Layer
    study: str
    made_at: str
    models: Mapping[str, str]
    bound_to: Mapping[str, str]
    simulated: bool
    metric: str
    unit: str
    primary: ReportedTest | None
    missing: tuple[Missing, ...] = ()
    details: BenchmarkDetails | HumanDetails | ABDetails

    @property
    def verdict(self) -> str:
        """The primary result's; "" while it is withheld."""
        return self.primary.verdict if self.primary else ""

    @property
    def source(self) -> str:
        """What asked: the metric, the rating round or the experiment."""
        return self.metric

    def write(self, path: Path, *, missing: Sequence[JsonObject] = ()) -> Path:
        """Writes the evidence as JSON; refuses NaN, which is not JSON.

        Args:
            path: The file.
            missing: What is missing with its words beside its kind and numbers, for people who open the file.
        """
        known = as_json(self) | ({"missing": [*missing]} if missing else {})
        return write_whole(path, to_json(without_secrets_in(known)))

    @classmethod
    def of(cls, value: object, said: str = _SAID, remedy: str = _REMEDY) -> Evidence:
        """The evidence whose JSON this is, of the kind that its layer hands over.

        Raises:
            DataError: It is no such record.
        """
        value = as_json(value)
        kind = _KINDS[as_record(value, _Named, said, remedy).layer]
        found = as_record(apart(value, kind), kind, said, remedy)
        for one in found.missing:
            if one.lacks:
                raise DataError(f"{said} ({one.kind} lacks {' and '.join(one.lacks)}); {remedy}")
        return found

    @classmethod
    def read(cls, path: Path) -> Evidence:
        """Reads what `write` wrote.

        Raises:
            DataError: The file is not such a record.
        """
        value = read_json(path, said=_SAID, remedy=_REMEDY)
        return cls.of(value, f"{path}: {_SAID}")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BenchmarkEvidence(Evidence):
    """The benchmark's evidence."""

    layer: Literal["benchmark"] = "benchmark"
    details: BenchmarkDetails = field(default_factory=BenchmarkDetails)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HumanEvidence(Evidence):
    """A rating round's evidence."""

    layer: Literal["human"] = "human"
    details: HumanDetails = field(default_factory=HumanDetails)

    @property
    def source(self) -> str:
        """The round."""
        return self.details.round


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ABEvidence(Evidence):
    """An A/B test's evidence."""

    layer: Literal["ab_test"] = "ab_test"
    details: ABDetails = field(default_factory=ABDetails)

    @property
    def source(self) -> str:
        """The experiment."""
        return self.details.experiment


_KINDS: Mapping[Layer, type[Evidence]] = {
    "benchmark": BenchmarkEvidence,
    "human": HumanEvidence,
    "ab_test": ABEvidence,
}
Details = TypeVar("Details", BenchmarkDetails, HumanDetails, ABDetails)
_hints = cache(get_type_hints)


class _Named(msgspec.Struct):
    layer: Layer


def details_of(evidence: Mapping[Layer, Evidence], kind: type[Details]) -> Details:
    """What one layer reports besides its result; an empty record where it handed nothing over."""
    return next((one.details for one in evidence.values() if isinstance(one.details, kind)), kind())


def as_json(value: object) -> Any:
    """Records as the values of their JSON."""
    if isinstance(value, Reported):
        known = msgspec.structs.asdict(value)
        del known["reported"]
        value = {name: one for name, one in known.items() if one is not UNSET} | value.reported
    elif is_dataclass(value):
        known = {one.name: (getattr(value, one.name), one.default) for one in fields(value)}
        lean = isinstance(value, Lean)
        value = {name: one for name, (one, default) in known.items() if not lean or one != default}
    if isinstance(value, Mapping):
        return {str(name): as_json(one) for name, one in value.items()}
    return [*map(as_json, value)] if isinstance(value, tuple | list) else value


def apart(value: Any, kind: Any) -> Any:
    """JSON with what a record has no field for under `reported`; of several types a record or a list stands first."""
    kind = get_args(kind)[0] if isinstance(kind, UnionType) else kind
    parts = get_args(kind)
    if isinstance(value, list) and get_origin(kind) is tuple:
        return [apart(one, parts[0]) for one in value]
    if isinstance(value, dict) and get_origin(kind) is Mapping:
        return {name: apart(one, parts[1]) for name, one in value.items()}
    if not (isinstance(value, dict) and isinstance(kind, type)):
        return value
    hints = _hints(kind)
    known = {name: apart(one, hints[name]) for name, one in value.items() if name in hints}
    return known | {"reported": {name: one for name, one in value.items() if name not in hints}}
