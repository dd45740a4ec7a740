"""The decision: the layers at the gate, the verdict they make, what they lack, and which of them would turn it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from evalkit.decision.concerns import Concern
from evalkit.decision.findings import Stale, against_of, of_changes, stale_in, standing
from evalkit.decision.layers import LayerDecision, read_layer
from evalkit.decision.rules import STAGES, Rules, Stage
from evalkit.errors import DataError, DesignError
from evalkit.evidence import BenchmarkDetails, Evidence, as_json, details_of
from evalkit.files import JsonObject, read_record, utc
from evalkit.records import Against, Brief, Layer, Missing
from evalkit.wording import effect_text, listed

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["ship", "don't ship", "not yet"]

FILE = "decision.json"
FILES: dict[Layer, str] = {
    "benchmark": "comparison.json",
    "human": "preference.json",
    "ab_test": "ab_test.json",
}


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
        known = json.loads(json.dumps(asdict(self)))  # tuples are lists there
        for layer, made in zip(known["layers"], self.layers, strict=True):
            layer["missing"] = as_json(made.missing)
            for told, finding in zip(layer["findings"], made.findings, strict=True):
                told["missing"] = as_json(finding.missing)
        return known | {"simulated": [*self.simulated]}

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
    changed: Iterable[str] = (),
    now: datetime | None = None,
) -> Decision:
    """Joins the layers' evidence into one decision.

    Args:
        evidence: What there is, by layer.
        study: The study's name.
        stage: "pre_deploy" (benchmark and human rating) or "rollout" (the A/B test too).
        rules: The study's rules; the defaults otherwise.
        against: Results against any model of the study, from any time; see `evalkit.decision.findings`.
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
        n_regressed=seen.cells.regressed or None,
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
    """The kinds and numbers of the decision that was written into a run's folder.

    Raises:
        DataError: It is missing or damaged, lacks a layer, or its verdict is not what its layers make.
    """
    path, remedy = folder / FILE, "run its chapter again"
    if not path.exists():
        raise DataError(f"{folder}: no {FILE}; no decision was made in this run")
    found = read_record(path, Decision, said="not a decision", remedy=remedy)
    if (names := [one.layer for one in found.layers]) != [*FILES]:
        told = f"holds the layers {listed([*names]) or 'none'}; need {listed([*FILES])}"
        raise DataError(f"{path}: {told}; {remedy}")
    if (made := overall(found.layers)) != found.verdict:
        says = f"{path}: says {found.verdict!r}, and its layers make {made!r}"
        raise DataError(f"{says}; {remedy}")
    return found


def _stale_against(
    evidence: Mapping[Layer, Evidence], stale: Mapping[Layer, Stale | None], rules: Rules
) -> Iterable[Against]:
    """Evidence of this run that is not for these answers, where it would have said "don't ship"."""
    for layer, why in stale.items():
        if why:
            read = read_layer(layer, evidence[layer], rules=rules, required=True)
            if found := against_of(evidence[layer], read.word, effect_text(read)):
                yield found
