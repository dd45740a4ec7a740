"""The sentences of the decision, computed for every combination of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations

from evalkit import wording
from evalkit.decision.layers import MISSING, LayerDecision
from evalkit.records import Layer

_VERDICTS = {"ship": "Ship", "don't ship": "Don’t ship", "not yet": "Not yet"}
_OPEN = "no difference shown"
_GAINS: dict[Layer, str] = {
    "benchmark": "better by {amount} in {metric}",
    "human": "people prefer it ({percent} against 50%)",
    "ab_test": "better by {amount} in {metric} with users",
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
        "too early": "the benchmark has no answers to compare",
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
    gained, joint = gain(layers), "but"
    if not gained:
        shown = {layer.verdict for layer in layers if layer.required and not layer.simulated}
        undecided = _OPEN in shown and verdict == "not yet"
        gained, joint = "no difference is shown so far" if undecided else "no gain is shown", "and"
    spoken = cost(layers, n_regressed, said=gained)
    return f"{_VERDICTS[verdict]} this version: {gained}{f', {joint} {spoken}' if spoken else ''}."


def gain(layers: Iterable[LayerDecision]) -> str:
    """The best thing that is shown, and not by simulation; "" when there is none."""
    for layer in layers:
        if layer.verdict == "better" and not layer.simulated:
            return _filled(_GAINS[layer.layer], layer)
    kept = next(
        (layer for layer in layers if layer.verdict == "not worse" and not layer.simulated), None
    )
    return f"not worse in {kept.metric_text}" if kept else ""


def cost(layers: list[LayerDecision], n_regressed: int | None, *, said: str = "") -> str:
    """The first thing that speaks against it: a loss, then what is not known and not said yet, then what to watch."""
    for layer in layers:
        if layer.word == "don't ship":
            return _against(layer)
    unknown = [_unknown(layer) for layer in layers if layer.required and layer.word != "passes"]
    if unknown:
        return wording.listed([one for one in unknown if not one.startswith(said or "-")][:2])
    warned = [one.text for layer in layers for one in layer.findings if one.effect == "warns"]
    if warned:
        return warned[0]
    if n_regressed:
        lost = ("answer that was right is", "answers that were right are")
        return f"{wording.plural(n_regressed, *lost)} now wrong"
    n = next((layer.n for layer in layers if layer.n), 0)
    return f"only as far as {wording.count(n or 0)} examples can tell"


def deck(layers: Iterable[LayerDecision]) -> str:
    """The reasons of the layers that the stage needs, and of any that speaks against it."""
    return " ".join(
        layer.reason for layer in layers if layer.required or layer.word == "don't ship"
    )


def would_change(
    verdict: str,
    layers: tuple[LayerDecision, ...],
    overall: Callable[[tuple[LayerDecision, ...]], str],
) -> tuple[str, ...]:
    """What would turn the verdict, found by turning each layer and asking the gate again."""
    if verdict == "ship":
        return tuple(
            f"A {layer.name} that shows it worse would stop it."
            for layer in layers
            if layer.required
        )
    short = [
        layer
        for layer in layers
        if layer.word != "passes" and (layer.required or layer.word == "don't ship")
    ]
    for size in range(1, len(short) + 1):
        for turned in combinations(short, size):
            then = overall(
                tuple(
                    replace(layer, word="passes") if layer in turned else layer for layer in layers
                )
            )
            if then == "ship":
                names = wording.listed([f"the {layer.name}" for layer in turned])
                return (
                    f"If {names} passed{', all of them' if size > 2 else ''}, the verdict would be “ship”.",
                    *_each(turned),
                )
    return ()


def _each(layers: Iterable[LayerDecision]) -> Iterable[str]:
    for layer in layers:
        for one in layer.missing:
            yield f"{layer.name[:1].upper()}{layer.name[1:]}: {one.action[:1].lower()}{one.action[1:]} ({one.price})."


def _against(layer: LayerDecision) -> str:
    blocks = [one.text for one in layer.findings if one.effect == "blocks"]
    if layer.verdict == "worse" or not blocks:
        falls = layer.layer == "ab_test" and layer.lower_is_better
        return _filled(_LOWER_IS_BETTER if falls else _LOSSES[layer.layer], layer)
    first = f"it is {blocks[0]}" if blocks[0].startswith("worse") else blocks[0]
    return first + (
        f" and {wording.plural(len(blocks) - 1, 'more loss', 'more losses')}"
        if len(blocks) > 1
        else ""
    )


def _unknown(layer: LayerDecision) -> str:
    if layer.simulated:
        return f"the {layer.name} is simulated"
    held = [one.text for one in layer.findings if one.effect == "holds"]
    if layer.verdict in {"better", "not worse"} and held:
        return held[0]
    if layer.verdict == "invalid":
        return f"the {layer.name} is invalid"
    if layer.verdict == _OPEN:
        return f"no difference is shown so far in the {layer.name}"
    if layer.verdict == "not shown":
        return f"the {layer.name} does not show it within its margin"
    return _UNKNOWN[layer.layer].get(layer.verdict, f"the {layer.name} says: {layer.verdict}")


def _filled(text: str, layer: LayerDecision) -> str:
    diff = layer.estimate or 0.0
    amount = (
        wording.number(abs(diff))
        if layer.scale == "number"
        else f"{wording.points(diff, sign=False)} points"
    )
    return text.format(amount=amount, percent=wording.percent(0.5 + diff), metric=layer.metric_text)
