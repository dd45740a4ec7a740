"""The decision: the layers at the gate, the overall verdict, what is missing and what would change it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evalkit import wording
from evalkit.decision.concerns import Concern
from evalkit.decision.findings import clause, of_changes, sentence
from evalkit.decision.layers import MISSING, Finding, LayerDecision, Word, read_layer
from evalkit.decision.rules import STAGES, Rules, Stage
from evalkit.decision.standing import Stale, standing
from evalkit.errors import DataError, DesignError
from evalkit.files import read_record, write_whole
from evalkit.records import Against, Brief, Evidence, Layer, Missing
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
_OTHERS = {
    "test_set": "another test set",
    "base": "other answers of the base model",
    "fine_tuned": "other answers of the fine-tuned model",
    "base_journal": "other answers of the base model",
    "fine_tuned_journal": "other answers of the fine-tuned model",
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
    declared: Mapping[str, Any] = field(default_factory=dict)

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

        names = (
            "layer",
            "verdict",
            "metric",
            "unit",
            "n",
            "estimate",
            "ci_low",
            "ci_high",
            "limit",
            "p_value",
            "alpha",
        )
        more = ("lower_is_better", "required", "simulated", "reason")
        rows = [
            {"gate": one.word} | {name: getattr(one, name) for name in (*names, *more)}
            for one in self.layers
        ]
        numbers = dict.fromkeys(
            ("estimate", "ci_low", "ci_high", "limit", "p_value", "alpha"), float
        )
        gate = pd.CategoricalDtype(["don't ship", "not yet", "passes"], ordered=True)
        kinds = {
            "layer": pd.CategoricalDtype(list(FILES)),
            "gate": gate,
            "n": "Int64",
            "verdict": "category",
        }
        frame = pd.DataFrame(rows, columns=[names[0], "gate", *names[1:], *more])
        return frame.astype(kinds | numbers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__} | {
            "simulated": list(self.simulated)
        }

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
    declared: Mapping[str, Any] | None = None,
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
    rules, at = rules or Rules(), now or datetime.now(UTC)
    required, changes = rules.required(stage), tuple(concerns)
    stale: dict[Layer, Stale | None] = {name: _stale(evidence, name) for name in FILES}
    stood = standing(
        [*against, *_stale_against(evidence, stale, rules)],
        evidence,
        stale=stale,
        retired=rules.retired_evidence,
    )
    told = tuple(of_changes(changed, rules))
    layers = tuple(
        read_layer(
            name,
            evidence.get(name),
            rules=rules,
            required=name in required,
            stale=stale[name],
            standing=stood.get(name),
            concerns=changes,
            told=told if name == "benchmark" else (),
        )
        for name in FILES
    )
    verdict = overall(layers)
    about = evidence.get("benchmark") or next(iter(evidence.values()), None)
    return Decision(
        study=study,
        stage=stage,
        made_at=at.isoformat(timespec="seconds"),
        verdict=verdict,
        headline=headline(verdict, layers, _regressed(evidence.get("benchmark"))),
        deck=deck(layers),
        layers=layers,
        warnings=tuple(
            sentence(one.text)
            for layer in layers
            for one in layer.findings
            if one.effect == "warns"
        ),
        missing=tuple(_missing(layers)),
        would_change=would_change(verdict, layers, overall),
        rules=tuple(rules.sentences(stage, sliced=_sliced(evidence.get("benchmark")))),
        models=dict(about.models) if about else {},
        bound_to=dict(about.bound_to) if about else {},
        declared=dict(declared or {}),
    )


def overall(layers: tuple[LayerDecision, ...]) -> Verdict:
    """Any layer against it: don't ship. All required layers for it, and nothing standing against it: ship. Else: not yet."""
    gate: set[Word] = {layer.word for layer in layers}
    if "don't ship" in gate:
        return "don't ship"
    if any(layer.stands_against for layer in layers):
        return "not yet"
    needed = [layer.word for layer in layers if layer.required]
    return "ship" if needed and all(word == "passes" for word in needed) else "not yet"


def read_evidence(folder: Path) -> dict[Layer, Evidence]:
    """The evidence that stands in a run's folder.

    Raises:
        DataError: A file is damaged or holds another layer.
    """
    found: dict[Layer, Evidence] = {}
    for layer, file in FILES.items():
        if (folder / file).is_file():
            found[layer] = Evidence.read(folder / file)
            if found[layer].layer != layer:
                raise DataError(
                    f"{folder / file}: holds the layer {found[layer].layer!r}; need {layer!r}"
                )
    return found


def read_decision(folder: Path) -> Decision:
    """Reads what `Decision.write` wrote.

    Raises:
        DataError: It is missing or damaged, or its verdict is not what its layers make and its sentence says.
    """
    path = folder / FILE
    if not path.exists():
        raise DataError(f"{folder}: no {FILE}; no decision was made in this run")
    found = read_record(path, Decision, said="not a decision", remedy="run its chapter again")
    return _consistent(found, path)


def _consistent(found: Decision, path: Path) -> Decision:
    """The decision, if its verdict is what its layers make and what its sentence says."""
    made, said = overall(found.layers), VERDICTS[found.verdict]
    if made != found.verdict:
        raise DataError(
            f"{path}: says {found.verdict!r}, and its layers make {made!r}; run its chapter again"
        )
    if not found.headline.startswith(said):
        raise DataError(
            f"{path}: says {found.verdict!r}, and its sentence “{wording.visible(found.headline)}”; run its chapter again"
        )
    return found


def against_of(evidence: Evidence, word: str, said: str = "") -> Against | None:
    """A layer's evidence as a result against the model; None when it says nothing against it, or is simulated."""
    if word != "don't ship" or evidence.simulated:
        return None
    of_users = evidence.layer == "ab_test"
    named = {"human": "round", "ab_test": "experiment"}.get(evidence.layer)
    return Against(
        layer=evidence.layer,
        source=str(evidence.details.get(named, "")) if named else evidence.metric,
        models=dict(evidence.models),
        bound_to={} if of_users else dict(evidence.bound_to),
        said=said,
        at=evidence.made_at,
        replaced_by_later=of_users and (evidence.primary or {}).get("verdict") != "worse",
    )


def _stale_against(
    evidence: Mapping[Layer, Evidence], stale: Mapping[Layer, Stale | None], rules: Rules
) -> Iterable[Against]:
    """Evidence of this run that is not for these answers, where it would have said "don't ship"."""
    for layer, why in stale.items():
        if why:
            read = read_layer(layer, evidence[layer], rules=rules, required=True)
            if found := against_of(evidence[layer], read.word, read.effect_text()):
                yield found


def _stale(evidence: Mapping[Layer, Evidence], layer: Layer) -> Stale | None:
    """Why a layer's evidence is not about what the benchmark compared; None when it is."""
    this, benchmark = evidence.get(layer), evidence.get("benchmark")
    if this is None or benchmark is None or layer == "benchmark":
        return None
    return _stale_users(this, benchmark) if layer == "ab_test" else _stale_votes(this, benchmark)


def _stale_votes(this: Evidence, benchmark: Evidence) -> Stale | None:
    """Raters saw these very answers, so all the hashes that both know must agree."""
    if differ := _differing(this, benchmark, tuple(benchmark.bound_to)):
        return Stale(kind="other_answers", words=f"made for {wording.listed(differ)}")
    named, compared = this.models.get("fine_tuned"), benchmark.models.get("fine_tuned")
    if not _bound(this, benchmark) and named != compared:
        return Stale(kind="unbound", words="made for another model, or not bound to any answers")
    return None


def _stale_users(this: Evidence, benchmark: Evidence) -> Stale | None:
    """Users saw the models that the plan names, never the test set; without a plan (no metric) nothing can be stale."""
    if not this.metric:
        return None
    if told := _other_models(this, benchmark):
        return Stale(kind="other_models", words=f"made for {wording.listed(told)}")
    if differ := _differing(this, benchmark, ("base", "fine_tuned")):
        return Stale(kind="other_answers", words=f"made for {wording.listed(differ)}")
    shown = (this.primary or {}).get("estimate") is not None
    if shown and not this.models.get("fine_tuned") and not _bound(this, benchmark):
        return Stale(kind="unbound", words="made for another model, or names none")
    return None


def _bound(this: Evidence, benchmark: Evidence) -> bool:
    return bool(this.bound_to.get("fine_tuned") and benchmark.bound_to.get("fine_tuned"))


def _differing(this: Evidence, benchmark: Evidence, names: tuple[str, ...]) -> list[str]:
    """What both are bound to, and not to the same."""
    ours, theirs = this.bound_to, benchmark.bound_to
    both = [name for name in names if ours.get(name) and theirs.get(name)]
    return [_OTHERS.get(name, name) for name in both if ours[name] != theirs[name]]


def _other_models(ab_test: Evidence, benchmark: Evidence) -> list[str]:
    """The log holds no answers to hash, so the plan's names say who answered."""
    named, compared = ab_test.models, benchmark.models
    return [
        f"another {words} model, {wording.visible(named[side])} instead of {wording.visible(compared[side])}"
        for side, words in (("base", "base"), ("fine_tuned", "fine-tuned"))
        if named.get(side) and compared.get(side) and named[side] != compared[side]
    ]


def _missing(layers: tuple[LayerDecision, ...]) -> list[dict[str, str]]:
    """What the verdict waits for, then what would settle a warning."""
    open_ = [
        (layer, one, "warns" if layer.word == "passes" else layer.word)
        for layer in layers
        for one in layer.missing
    ]
    warned = [
        (layer, one.missing, "warns")
        for layer in layers
        for one in layer.findings
        if one.effect == "warns" and one.missing
    ]
    return [
        {
            "layer": layer.layer,
            "name": layer.name,
            "word": word,
            "simulated": "yes" if layer.simulated else "",
            **asdict(one),
        }
        for layer, one, word in sorted([*open_, *warned], key=lambda row: row[2] == "warns")
        if layer.speaks
    ]


def _sliced(benchmark: Evidence | None) -> bool:
    return benchmark is None or bool(benchmark.details.get("slices"))


def _regressed(benchmark: Evidence | None) -> int | None:
    cells = benchmark.details.get("cells") if benchmark else None
    return cells.get("regressed") if cells else None


def _plain(value: object) -> Any:
    if isinstance(value, LayerDecision):
        return {name: _plain(getattr(value, name)) for name in value.__slots__}
    if isinstance(value, Finding | Missing):
        return {name: _plain(getattr(value, name)) for name in value.__slots__}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


VERDICTS = {"ship": "Ship", "don't ship": "Don’t ship", "not yet": "Not yet"}
_OPEN = "no difference shown"
_GAINS: dict[Layer, str] = {
    "benchmark": "better by {amount} in {metric}",
    "human": "people prefer it ({percent} against 50%)",
    "ab_test": "better by {amount} in {metric} with users",
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
    "benchmark": "it is worse by {amount} in {metric}",
    "human": "people prefer the base ({percent} against 50%)",
    "ab_test": "users lose {amount} in {metric}",
}
_LOWER_IS_BETTER = "it is worse by {amount} in {metric} with users"  # nobody "loses" churn
_UNKNOWN: dict[Layer, dict[str, str]] = {
    "benchmark": {
        MISSING: "no benchmark of these answers is there",
        "too early": "the benchmark cannot be read yet",
    },
    "human": {MISSING: "no person has rated these answers", "too early": "too few ratings are in"},
    "ab_test": {
        MISSING: "no user has seen it",
        "too early": "it is too early to read the A/B test",
    },
}


def headline(verdict: str, layers: Iterable[LayerDecision], n_regressed: int | None) -> str:
    """`<Ship | Don't ship | Not yet> this version: <gain>, but <cost>.`; "and" where there is no gain to set against it."""
    layers = list(layers)
    gained, joint, undecided = gain(layers), "but", False
    if not gained and any(one.required and one.need == "not worse" for one in layers):
        spoken = cost(layers, n_regressed)  # a gain was not asked for, so none is missed
        return f"{VERDICTS[verdict]} this version: {spoken}."
    if not gained:
        shown = {layer.verdict for layer in layers if layer.required and not layer.simulated}
        undecided = _OPEN in shown and verdict == "not yet"
        gained, joint = "no difference is shown so far" if undecided else "no gain is shown", "and"
    spoken = cost(layers, n_regressed, undecided=undecided)
    return f"{VERDICTS[verdict]} this version: {gained}{f', {joint} {spoken}' if spoken else ''}."


def gain(layers: Iterable[LayerDecision]) -> str:
    """The best thing that is shown, and not by simulation; "" when there is none."""
    for layer in layers:
        if layer.verdict == "better" and not layer.simulated:
            return _filled(_GAINS[layer.layer], layer)
    kept = next(
        (layer for layer in layers if layer.verdict == "not worse" and not layer.simulated), None
    )
    return _filled(_KEPT[kept.layer], kept) if kept else ""


def cost(layers: list[LayerDecision], n_regressed: int | None, *, undecided: bool = False) -> str:
    """The first thing that speaks against it: a loss, then what is not known, then what to watch.

    Args:
        layers: All layers.
        n_regressed: Answers that were right and are now wrong.
        undecided: Whether it is said already that no difference is shown.
    """
    for layer in layers:
        if layer.word == "don't ship":
            return _against(layer)
    short = [layer for layer in _standing_first(layers) if layer.word != "passes"]
    if short:
        told = [_unknown(layer) for layer in short if not (undecided and _says_open(layer))]
        return wording.listed(told[:2])
    warned = [one.text for layer in layers for one in layer.findings if one.effect == "warns"]
    if warned:
        return warned[0]
    if n_regressed:
        lost = ("answer that was right is", "answers that were right are")
        return f"{wording.plural(n_regressed, *lost)} now wrong"
    n = next((layer.n for layer in layers if layer.n), 0)
    return f"only as far as {wording.count(n or 0)} examples can tell"


def _standing_first(layers: list[LayerDecision]) -> list[LayerDecision]:
    return sorted((one for one in layers if one.speaks), key=lambda one: not one.stands_against)


def deck(layers: Iterable[LayerDecision]) -> str:
    """The reasons of the layers that the stage needs, and of any that speaks against it."""
    return " ".join(layer.reason for layer in layers if layer.speaks)


def would_change(
    verdict: str,
    layers: tuple[LayerDecision, ...],
    overall: Callable[[tuple[LayerDecision, ...]], str],
) -> tuple[str, ...]:
    """What would turn the verdict, found by turning each layer and asking the gate again."""
    if verdict == "ship":
        return tuple(
            f"{wording.article(layer.name)} that shows it worse would stop it."
            for layer in layers
            if layer.required
        )
    short = [layer for layer in layers if layer.word != "passes" and layer.speaks]
    for size in range(1, len(short) + 1):
        for turned in combinations(short, size):
            then = overall(
                tuple(
                    replace(layer, word="passes", findings=()) if layer in turned else layer
                    for layer in layers
                )
            )
            if then == "ship":
                return (f"If {_turned(turned)}, the verdict would be “ship”.", *_each(turned))
    return ()


def _turned(layers: Iterable[LayerDecision]) -> str:
    """Such as: the benchmark passed and no result of the A/B test stood against it."""
    good = {"better", "not worse"}
    stood = [f"the {one.name}" for one in layers if one.stands_against]
    passed = [
        f"the {one.name}"
        for one in layers
        if not one.stands_against or (one.required and one.verdict not in good)
    ]
    told = [f"{wording.listed(passed)} passed{', all of them' if len(passed) > 2 else ''}"]
    held = [f"no result of {wording.listed(stood)} stood against it"]
    return " and ".join([*(told if passed else []), *(held if stood else [])])


def _each(layers: Iterable[LayerDecision]) -> Iterable[str]:
    for layer in layers:
        for one in layer.missing:
            yield f"{layer.name[:1].upper()}{layer.name[1:]}: {one.action[:1].lower()}{one.action[1:]} ({one.price})."


def _against(layer: LayerDecision) -> str:
    blocks = [one for one in layer.findings if one.effect == "blocks"]
    if layer.verdict == "worse" or not blocks:
        falls = layer.layer == "ab_test" and layer.lower_is_better
        return _filled(_LOWER_IS_BETTER if falls else _LOSSES[layer.layer], layer)
    return clause(blocks[0]) + (
        f" and {wording.plural(len(blocks) - 1, 'more loss', 'more losses')}"
        if len(blocks) > 1
        else ""
    )


def _unknown(layer: LayerDecision) -> str:
    held = [one.text for one in layer.findings if one.effect == "holds"]
    shown = layer.verdict in {"better", "not worse"} and not layer.simulated
    if held and (shown or layer.stands_against):
        return held[0]
    if layer.simulated:
        return f"the {layer.name} is simulated"
    if layer.verdict == "invalid":
        return f"the {layer.name} is invalid"
    if layer.verdict == _OPEN:
        return f"no difference is shown so far in the {layer.name}"
    if layer.verdict == "not shown":
        return _filled(_NOT_KEPT[layer.layer], layer)
    return _UNKNOWN[layer.layer].get(layer.verdict, f"the {layer.name} says: {layer.verdict}")


def _says_open(layer: LayerDecision) -> bool:
    """Whether all that `_unknown` has to say is that no difference is shown."""
    return layer.verdict == _OPEN and not layer.simulated and not layer.stands_against


def _filled(text: str, layer: LayerDecision) -> str:
    diff = layer.estimate or 0.0
    digits = wording.decimals(diff, layer.ci_low, layer.ci_high)
    amount = wording.amount(diff, layer.scale, digits=digits, sign=False)
    return text.format(
        amount=amount,
        percent=wording.percent(0.5 + diff),
        metric=layer.metric_text,
        margin=layer.margin_text,
        level=wording.percent(0.5 + layer.limit),
    )
