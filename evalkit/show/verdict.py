"""The decision in words: its headline, the numbers behind it, what it warns of, what is missing and what would change it.

In its file the words stand beside the kinds and numbers of which they are made, for people who open it: they are made afresh
whenever it is read, and never read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from evalkit import wording
from evalkit.decision import Decision, LayerDecision, read_decision
from evalkit.decision.findings import sentence
from evalkit.decision.layers import MISSING
from evalkit.decision.record import FILE
from evalkit.errors import DataError
from evalkit.files import JsonObject, read_json, write_whole
from evalkit.records import Layer
from evalkit.redaction import without_secrets_in
from evalkit.show.lacking import in_words, written

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


def headline(decision: Decision) -> str:
    """`<Ship | Don't ship | Not yet> this version: <gain>, but <cost>.`; "and" where there is no gain to set against it."""
    layers, n = decision.layers, decision.n_regressed
    begin = f"{VERDICTS[decision.verdict]} this version"
    gained, joint, undecided = _gain(layers), "but", False
    if not gained and any(one.required and one.need == "not worse" for one in layers):
        return f"{begin}: {_cost(layers, n)}."  # a gain was not asked for, so none is missed
    if not gained:
        shown = {layer.verdict for layer in layers if layer.required and not layer.simulated}
        undecided = _OPEN in shown and decision.verdict == "not yet"
        gained, joint = "no difference is shown so far" if undecided else "no gain is shown", "and"
    spoken = _cost(layers, n, undecided=undecided)
    return f"{begin}: {gained}{f', {joint} {spoken}' if spoken else ''}."


def deck(decision: Decision) -> str:
    """The numbers behind the headline, in two or three sentences."""
    return " ".join(layer.reason for layer in decision.layers if layer.speaks)


def warnings(decision: Decision) -> list[str]:
    """What does not stop the decision but must be read."""
    return [sentence(one.text) for layer in decision.layers for one in layer.told("warns")]


def missing(decision: Decision) -> list[dict[str, str]]:
    """What is missing, a row each: the layer, what to do, why, and its price."""
    return [
        {
            "layer": layer.layer,
            "name": layer.name,
            "word": word,
            "simulated": "yes" if layer.simulated else "",
            **in_words(one, layer)._asdict(),
            "kind": one.kind,
        }
        for layer, one, word in decision.lacks
    ]


def would_change(decision: Decision) -> list[str]:
    """What would turn the verdict."""
    if decision.verdict == "ship":
        needed = (wording.article(layer.name) for layer in decision.layers if layer.required)
        return [f"{one} that shows it worse would stop it." for one in needed]
    if turned := decision.turned_by:
        return [f"If {_turned(turned)}, the verdict would be “ship”.", *_each(turned)]
    return []


def rules(decision: Decision) -> list[str]:
    """The rules it was made by."""
    return decision.ruled_by.sentences(decision.stage, sliced=decision.sliced)


def write(decision: Decision, folder: Path) -> Path:
    """Writes `decision.json` into a run's folder: its kinds and numbers, and its words for people."""
    text = json.dumps(_written(decision), indent=1, allow_nan=False)
    return write_whole(folder / FILE, text.encode() + b"\n")


def read(folder: Path, *, earlier: bool = False) -> Decision:
    """Reads what `write` wrote.

    Args:
        folder: The run's folder.
        earlier: Take a decision of an earlier version as well, which has its words alone.

    Raises:
        DataError: It is missing or damaged, or it says another thing than its kinds and numbers make.
    """
    path, remedy = folder / FILE, "run its chapter again"
    found, file = read_decision(folder), read_json(path, said="not a decision", remedy=remedy)
    told, is_earlier = str(file.get("headline")), "ruled_by" not in file
    if not told.startswith(VERDICTS[found.verdict]):
        says = f"{path}: says {found.verdict!r}, and its sentence “{wording.visible(told)}”"
        raise DataError(f"{says}; {remedy}")
    if is_earlier and not earlier and told != headline(found):
        raise DataError(f"{path}: of an earlier version, without numbers that it needs; {remedy}")
    if is_earlier:
        return found
    made = json.loads(json.dumps(_written(found)))  # tuples are lists there
    if odd := [name for name, value in made.items() if file.get(name) != value]:
        raise DataError(f"{path}: its {wording.listed(odd)} is not what its numbers make; {remedy}")
    return found


def _written(decision: Decision) -> JsonObject:
    """A decision as its file has it."""
    known = decision.to_dict()
    for layer, made in zip(known["layers"], decision.layers, strict=True):
        layer["missing"] = written(made.missing, made)
        for told, one in zip(layer["findings"], made.findings, strict=True):
            told["missing"] = written([one.missing], made)[0] if one.missing else None
    words = (headline, deck, warnings, missing, would_change, rules)
    first = {name: known.pop(name) for name in ("study", "stage", "made_at", "verdict")}
    return without_secrets_in(first | {one.__name__: one(decision) for one in words} | known)


def _gain(layers: Sequence[LayerDecision]) -> str:
    """The best thing that is shown, and not by simulation; "" when there is none."""
    for verdict, said in (("better", _GAINS), ("not worse", _KEPT)):
        for layer in layers:
            if layer.verdict == verdict and not layer.simulated:
                return layer.fill(said[layer.layer])
    return ""


def _cost(
    layers: Sequence[LayerDecision], n_regressed: int | None, *, undecided: bool = False
) -> str:
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
            action, _, price = in_words(one, layer)
            name = f"{layer.name[:1].upper()}{layer.name[1:]}"
            yield f"{name}: {action[:1].lower()}{action[1:]} ({price})."
