"""The sentences of the decision, computed for every combination of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations

from evalkit import wording
from evalkit.decision.findings import clause
from evalkit.decision.layers import MISSING, LayerDecision
from evalkit.records import Layer

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
