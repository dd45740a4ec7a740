"""The rules of the decision as data: defaults here, a study's own in the YAML file that `rules_file` names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, read_yaml
from evalkit.records import Layer
from evalkit.study import Study
from evalkit.wording import is_blank, listed, visible

Effect = Literal["blocks", "holds", "warns", "ignored"]
Need = Literal["better", "not worse"]
Stage = Literal["pre_deploy", "rollout"]

NAMES: dict[str, str] = {"benchmark": "benchmark", "human": "human rating", "ab_test": "A/B test"}
STAGES: dict[Stage, str] = {"pre_deploy": "before deployment", "rollout": "rollout"}
_WORDS = {
    "blocks": "blocks shipping",
    "holds": "holds the decision until it is settled",
    "warns": "is printed as a warning",
    "ignored": "is ignored",
}


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

    def sentences(self, stage: Stage, *, sliced: bool = True) -> list[str]:
        """The rules in words, for the report.

        Args:
            stage: Which layers are needed.
            sliced: Whether any slice is declared; without one the rule about slices shown worse has nothing to stop.
        """
        shown = []
        for layer in self.required(stage):
            margin = f"not worse by more than {-self.limit(layer) * 100:g} points"
            must = "better" if self.needs(layer) == "better" else margin
            shown.append(f"The {NAMES[layer]} must show the fine-tuned model {must}.")
        effects = [f"{words} {_WORDS[getattr(self, name)]}." for name, words in _SUBJECTS.items()]
        if not sliced:
            effects[0] = f"{effects[0][:-1]}: no slice is declared, so this rule stops nothing."
        fixed = [
            "A simulated layer never leads to “ship”.",
            "Evidence counts only for the answers it was made for; their hashes must agree.",
            "An A/B test counts only for the models that its plan names, whatever the test set is.",
            "A result against this model stands, whatever changed since, until it is asked again or retired with a reason.",
        ]
        retired = [
            f"Retired by this study: {visible(key)}, because: {visible(why).strip().rstrip('.')}."
            for key, why in self.retired_evidence.items()
        ]
        return [*shown, *effects, *fixed, *retired]


_SUBJECTS = {
    "slice_worse": "A declared slice shown worse (Holm over all slices, or its interval beyond the margin)",
    "slice_looks_bad": "A slice that looks bad, its loss larger than the margin but not shown,",
    "slice_could_not_be_seen": "A slice in which a loss of the margin could not have been seen",
    "other_metric_worse": "Another metric shown worse",
    "fragile": "A benchmark verdict that hangs on failed calls",
    "noise_not_measured": "A noise floor that was not measured",
    "test_set_faulty": "A test set with leaks from training, or different expected answers to one prompt,",
    "length_explains": "A preference that length explains",
    "few_raters": "A preference that is not shown beyond these raters",
    "careless_raters": "A rater who looks careless",
    "guardrail_not_shown": "A guardrail of the A/B test that is not shown to hold",
    "plan_after_exposures": "An A/B plan that was locked after its users had begun to come",
    "not_whole_weeks": "An A/B result of users who did not come in whole weeks",
    "plan_differs": "A study.yaml that says otherwise than the locked A/B plan, which counts,",
    "declared_after_results": "What was declared otherwise after results on this test set were seen",
}


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
