"""The decision: the layers at the gate, the overall verdict in a sentence, what is missing and what would change it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from evalkit import wording
from evalkit.decision.concerns import Concern
from evalkit.decision.findings import of_changes, sentence
from evalkit.decision.layers import MISSING, LayerDecision, read_layer
from evalkit.decision.rules import STAGES, Rules, Stage
from evalkit.decision.standing import Stale, against_of, stale_in, standing
from evalkit.errors import DataError, DesignError
from evalkit.evidence import BenchmarkDetails, Evidence, details_of
from evalkit.files import JsonObject, read_record, write_whole
from evalkit.records import Against, Brief, Layer
from evalkit.redaction import without_secrets_in

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["ship", "don't ship", "not yet"]

FILE = "decision.json"
FILES: dict[Layer, str] = {
    "benchmark": "comparison.json",
    "human": "preference.json",
    "ab_test": "ab_test.json",
}
VERDICTS = {"ship": "Ship", "don't ship": "Don’t ship", "not yet": "Not yet"}
_OPEN = "no difference shown"
_GAINS: dict[Layer, str] = {
    "benchmark": "better by {size} in {metric}",
    "human": "people prefer it ({percent} against 50%)",
    "ab_test": "better by {size} in {metric} with users",
}
_KEPT: dict[Layer, str] = {
    "benchmark": "not worse by more than {margin} in {metric}",
    "human": "people prefer it in no less than {level}",
    "ab_test": "not worse by more than {margin} in {metric} with users",
}
_NOT_KEPT: dict[Layer, str] = {
    "benchmark": "a loss of {margin} in {metric} is not ruled out",
    "human": "that people prefer it in less than {level} is not ruled out",
    "ab_test": "a loss of {margin} in {metric} with users is not ruled out",
}
_LOSSES: dict[Layer, str] = {
    "benchmark": "it is worse by {size} in {metric}",
    "human": "people prefer the base ({percent} against 50%)",
    "ab_test": "users lose {size} in {metric}",
}
_LOWER_IS_BETTER = "it is worse by {size} in {metric} with users"  # nobody "loses" churn
_UNKNOWN: dict[tuple[Layer, str], str] = {
    ("benchmark", MISSING): "no benchmark of these answers is there",
    ("benchmark", "too early"): "the benchmark cannot be read yet",
    ("human", MISSING): "no person has rated these answers",
    ("human", "too early"): "too few ratings are in",
    ("ab_test", MISSING): "no user has seen it",
    ("ab_test", "too early"): "it is too early to read the A/B test",
}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Decision(Brief):
    """One decision on one version.

    Attributes:
        verdict: ship, don't ship or not yet.
        headline: `<Ship | Don't ship | Not yet> this version: <gain>, but <cost>.`
        deck: The numbers behind the headline, in two or three sentences.
        layers: The three layers, in order; one that the stage does not need is there too.
        warnings: What does not stop the decision but must be read.
        missing: What is missing, by layer and priced.
        would_change: What would turn the verdict.
        rules: The rules in words.
        simulated: Layers with simulated ratings or users.
        declared: What decided, for later runs to compare with; see `evalkit.decision.concerns`.
    """

    study: str
    stage: Stage
    made_at: str
    verdict: Verdict
    headline: str
    deck: str
    layers: tuple[LayerDecision, ...]
    warnings: tuple[str, ...]
    missing: tuple[Mapping[str, str], ...]
    would_change: tuple[str, ...]
    rules: tuple[str, ...]
    models: Mapping[str, str]
    bound_to: Mapping[str, str]
    declared: JsonObject = field(default_factory=dict)

    @property
    def simulated(self) -> tuple[str, ...]:
        """Layers in which something is simulated."""
        return tuple(layer.layer for layer in self.layers if layer.simulated)

    @property
    def rests_on_simulated(self) -> bool:
        """Whether a layer that the decision hears is simulated."""
        return any(layer.simulated and layer.speaks for layer in self.layers)

    def to_frame(self) -> pd.DataFrame:
        """A row a layer, in the order of the gate.

        Returns:
            Columns: `layer`, `gate` (passes, don't ship, not yet), `verdict` (of the layer's test, or "missing"), `metric`,
            `unit`, `n`, `estimate`, `ci_low`, `ci_high` and `limit` (fine-tuned minus base, human rating minus 50%; on the
            metric's own scale), `p_value`, `alpha`, `lower_is_better`, `required` (by the stage), `simulated`, and `reason`.
            An effect that is withheld is missing.
        """
        import pandas as pd

        numbers = ("estimate", "ci_low", "ci_high", "limit", "p_value", "alpha")
        columns = ["layer", "word", "verdict", "metric", "unit", "n", *numbers]
        columns += ["lower_is_better", "required", "simulated", "reason"]
        gate = pd.CategoricalDtype(["don't ship", "not yet", "passes"], ordered=True)
        kinds = {"layer": pd.CategoricalDtype([*FILES]), "gate": gate, "verdict": "category"}
        frame = pd.DataFrame([asdict(one) for one in self.layers], columns=columns)
        frame = frame.rename(columns={"word": "gate"})
        return frame.astype(kinds | {"n": "Int64"} | dict.fromkeys(numbers, float))

    def to_dict(self) -> JsonObject:
        """Plain values for JSON."""
        known = json.loads(json.dumps(asdict(self)))  # tuples are lists there
        return known | {"simulated": [*self.simulated]}

    def write(self, folder: Path) -> Path:
        """Writes `decision.json` into a run's folder."""
        text = json.dumps(without_secrets_in(self.to_dict()), indent=1, allow_nan=False)
        return write_whole(folder / FILE, text.encode() + b"\n")

    def __str__(self) -> str:
        return self.headline


def decide(
    evidence: Mapping[Layer, Evidence],
    *,
    study: str,
    stage: str = "pre_deploy",
    rules: Rules | None = None,
    against: Iterable[Against] = (),
    concerns: Iterable[Concern] = (),
    declared: Mapping[str, object] | None = None,
    changed: Iterable[str] = (),
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
    rules, changes = rules or Rules(), tuple(concerns)
    stale: dict[Layer, Stale | None] = {name: stale_in(evidence, name) for name in FILES}
    every = [*against, *_stale_against(evidence, stale, rules)]
    stood = standing(every, evidence, stale=stale, retired=rules.retired_evidence)
    told = tuple(of_changes(changed, rules))
    layers = tuple(
        read_layer(
            name,
            evidence.get(name),
            rules=rules,
            required=name in rules.required(stage),
            stale=stale[name],
            standing=stood.get(name),
            concerns=changes,
            told=told if name == "benchmark" else (),
        )
        for name in FILES
    )
    verdict, benchmark = overall(layers), evidence.get("benchmark")
    about = benchmark or next(iter(evidence.values()), None)
    seen = details_of(evidence, BenchmarkDetails)
    sliced = benchmark is None or bool(seen.slices)
    return Decision(
        study=study,
        stage=stage,
        made_at=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
        verdict=verdict,
        headline=_headline(verdict, layers, seen.cells.regressed or 0),
        deck=" ".join(layer.reason for layer in layers if layer.speaks),
        layers=layers,
        warnings=tuple(sentence(one.text) for layer in layers for one in layer.told("warns")),
        missing=tuple(_missing(layers)),
        would_change=_would_change(verdict, layers),
        rules=tuple(rules.sentences(stage, sliced=sliced)),
        models=dict(about.models) if about else {},
        bound_to=dict(about.bound_to) if about else {},
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
    """Reads what `Decision.write` wrote.

    Raises:
        DataError: It is missing or damaged, or its verdict is not what its layers make and its sentence says.
    """
    path, remedy = folder / FILE, "run its chapter again"
    if not path.exists():
        raise DataError(f"{folder}: no {FILE}; no decision was made in this run")
    found = read_record(path, Decision, said="not a decision", remedy=remedy)
    says = f"{path}: says {found.verdict!r}, and its"
    if (made := overall(found.layers)) != found.verdict:
        raise DataError(f"{says} layers make {made!r}; {remedy}")
    if not found.headline.startswith(VERDICTS[found.verdict]):
        raise DataError(f"{says} sentence “{wording.visible(found.headline)}”; {remedy}")
    return found


def _stale_against(
    evidence: Mapping[Layer, Evidence], stale: Mapping[Layer, Stale | None], rules: Rules
) -> Iterable[Against]:
    """Evidence of this run that is not for these answers, where it would have said "don't ship"."""
    for layer, why in stale.items():
        if why:
            read = read_layer(layer, evidence[layer], rules=rules, required=True)
            if found := against_of(evidence[layer], read.word, read.effect_text()):
                yield found


def _missing(layers: Sequence[LayerDecision]) -> Iterable[dict[str, str]]:
    """What the verdict waits for, then what would settle a warning."""
    heard = [layer for layer in layers if layer.speaks]
    open_ = [(layer, one, layer.word) for layer in heard for one in layer.missing]
    waits = [row for row in open_ if row[2] != "passes"]
    settle = [(layer, one.missing) for layer in heard for one in layer.told("warns") if one.missing]
    warns = [*((layer, one) for layer, one, word in open_ if word == "passes"), *settle]
    for layer, one, word in (*waits, *((*row, "warns") for row in warns)):
        simulated = "yes" if layer.simulated else ""
        known = {"layer": layer.layer, "name": layer.name, "word": word, "simulated": simulated}
        yield known | asdict(one)


def _headline(verdict: str, layers: Sequence[LayerDecision], n_regressed: int) -> str:
    """`<Ship | Don't ship | Not yet> this version: <gain>, but <cost>.`; "and" where there is no gain to set against it."""
    gained, joint, undecided = _gain(layers), "but", False
    if not gained and any(one.required and one.need == "not worse" for one in layers):
        spoken = _cost(layers, n_regressed)  # a gain was not asked for, so none is missed
        return f"{VERDICTS[verdict]} this version: {spoken}."
    if not gained:
        shown = {layer.verdict for layer in layers if layer.required and not layer.simulated}
        undecided = _OPEN in shown and verdict == "not yet"
        gained, joint = "no difference is shown so far" if undecided else "no gain is shown", "and"
    spoken = _cost(layers, n_regressed, undecided=undecided)
    return f"{VERDICTS[verdict]} this version: {gained}{f', {joint} {spoken}' if spoken else ''}."


def _gain(layers: Sequence[LayerDecision]) -> str:
    """The best thing that is shown, and not by simulation; "" when there is none."""
    for verdict, said in (("better", _GAINS), ("not worse", _KEPT)):
        for layer in layers:
            if layer.verdict == verdict and not layer.simulated:
                return layer.fill(said[layer.layer])
    return ""


def _cost(layers: Sequence[LayerDecision], n_regressed: int, *, undecided: bool = False) -> str:
    """The first thing that speaks against it: a loss, then what is not known, then what to watch.

    Args:
        layers: All layers.
        n_regressed: Answers that were right and are now wrong.
        undecided: Whether it is said already that no difference is shown.
    """
    for layer in layers:
        if layer.word == "don't ship":
            return _loss(layer)
    first = sorted((one for one in layers if one.speaks), key=lambda one: not one.stands_against)
    if short := [layer for layer in first if layer.word != "passes"]:
        told = [_unknown(layer) for layer in short if not (undecided and _says_open(layer))]
        return wording.listed(told[:2])
    if warned := [one.text for layer in layers for one in layer.told("warns")]:
        return warned[0]
    if n_regressed:
        lost = ("answer that was right is", "answers that were right are")
        return f"{wording.plural(n_regressed, *lost)} now wrong"
    n = next((layer.n for layer in layers if layer.n), 0)
    return f"only as far as {wording.count(n or 0)} examples can tell"


def _loss(layer: LayerDecision) -> str:
    blocks = layer.told("blocks")
    if layer.verdict == "worse" or not blocks:
        falls = layer.layer == "ab_test" and layer.lower_is_better
        return layer.fill(_LOWER_IS_BETTER if falls else _LOSSES[layer.layer])
    more = wording.plural(len(blocks) - 1, "more loss", "more losses")
    return blocks[0].clause + (f" and {more}" if len(blocks) > 1 else "")


def _unknown(layer: LayerDecision) -> str:
    held, verdict = layer.told("holds"), layer.verdict
    shown = verdict in {"better", "not worse"} and not layer.simulated
    if held and (shown or layer.stands_against):
        return held[0].text
    if layer.simulated or verdict == "invalid":
        return f"the {layer.name} is {'simulated' if layer.simulated else 'invalid'}"
    if verdict == _OPEN:
        return f"no difference is shown so far in the {layer.name}"
    if verdict == "not shown":
        return layer.fill(_NOT_KEPT[layer.layer])
    return _UNKNOWN.get((layer.layer, verdict), f"the {layer.name} says: {verdict}")


def _says_open(layer: LayerDecision) -> bool:
    """Whether all that `_unknown` has to say is that no difference is shown."""
    return layer.verdict == _OPEN and not layer.simulated and not layer.stands_against


def _would_change(verdict: Verdict, layers: Sequence[LayerDecision]) -> tuple[str, ...]:
    """What would turn the verdict, found by turning each layer and asking the gate again."""
    if verdict == "ship":
        needed = (wording.article(layer.name) for layer in layers if layer.required)
        return tuple(f"{one} that shows it worse would stop it." for one in needed)
    short = [layer for layer in layers if layer.word != "passes" and layer.speaks]
    sets = (chosen for n in range(len(short)) for chosen in combinations(short, n + 1))
    for turned in sets:
        others = [layer for layer in layers if layer not in turned]
        passed = [replace(layer, word="passes", findings=()) for layer in turned]
        if overall([*others, *passed]) == "ship":
            return (f"If {_turned(turned)}, the verdict would be “ship”.", *_each(turned))
    return ()


def _turned(layers: Sequence[LayerDecision]) -> str:
    """Such as: the benchmark passed and no result of the A/B test stood against it."""
    stood = [f"the {one.name}" for one in layers if one.stands_against]
    passed = [
        f"the {one.name}"
        for one in layers
        if not one.stands_against or (one.required and one.verdict not in {"better", "not worse"})
    ]
    told = [f"{wording.listed(passed)} passed{', all of them' if len(passed) > 2 else ''}"]
    held = [f"no result of {wording.listed(stood)} stood against it"]
    return " and ".join([*(told if passed else []), *(held if stood else [])])


def _each(layers: Sequence[LayerDecision]) -> Iterable[str]:
    for layer in layers:
        for one in layer.missing:
            name, action = (f"{layer.name[:1].upper()}{layer.name[1:]}", one.action)
            yield f"{name}: {action[:1].lower()}{action[1:]} ({one.price})."
