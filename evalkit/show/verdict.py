"""The decision in words: its headline, the numbers behind it, what it warns of, what is missing and what would change it.

In its file the words stand beside the kinds and numbers of which they are made, for people who open it: they are made afresh
whenever it is read, and never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evalkit import wording
from evalkit.decision import Decision, LayerDecision, read_decision
from evalkit.decision.layers import FILE, MISSING
from evalkit.decision.rules import NAMES, STANDS_AGAINST, UNCONFIRMED, Finding
from evalkit.errors import DataError
from evalkit.files import JsonObject, to_json, write_whole
from evalkit.show.findings import clause, found, made_for, sentence
from evalkit.show.lacking import ABSENT, in_words, written
from evalkit.wording import effect_and_ends, without_secrets_in

VERDICTS = {"ship": "Ship", "don't ship": "Don’t ship", "not yet": "Not yet"}
_OPEN = "no difference shown"
_SHORT = {  # what a layer shows, in the headline: of a metric, of people
    "better": ("better by {size} in {where}", "people prefer it ({level} against 50%)"),
    "not worse": (
        "not worse by more than {margin} in {where}",
        "people prefer it in no less than {limit}",
    ),
    "not shown": (
        "a loss of {margin} in {where} is not ruled out",
        "that people prefer it in less than {limit} is not ruled out",
    ),
    "worse": ("it is worse by {size} in {where}", "people prefer the base ({level} against 50%)"),
}
_LONG = {  # and behind it
    "better": "better, {effect}",
    "worse": "worse, {effect}",
    "not worse": "not worse by more than {margin}, {effect}",
    "not shown": "a loss of {margin} is not ruled out, {effect}",
    "no difference shown": "no difference shown, {effect}",
    "too early": "cannot be read yet",
    "invalid": "is invalid, so no winner can be named",
}
_BEFORE_THE_FACTS = (
    "plan_after_exposures",
    "not_whole_weeks",
    "plan_differs",
    "declared_after_results",
)
_UNSAFE = {
    "looks bad": ", which looks bad, though chance alone may do that",
    "could not have been seen": ", too few to see a loss of the margin",
}
_EFFECTS = {
    "blocks": "blocks shipping",
    "holds": "holds the decision until it is settled",
    "warns": "is printed as a warning",
    "ignored": "is ignored",
}
_RULES = {
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
_FIXED = (
    "A simulated layer never leads to “ship”.",
    "Evidence counts only for the answers it was made for; their hashes must agree.",
    "An A/B test counts only for the models that its plan names, whatever the test set is.",
    "A result against this model stands, whatever changed since, until it is asked again or retired with a reason.",
)


def headline(decision: Decision) -> str:
    """`<Ship | Don't ship | Not yet> this version: <gain>, but <cost>.`, or the cost alone."""
    told = [_gain(decision.layers), _cost(decision.layers, decision.n_regressed)]
    return f"{VERDICTS[decision.verdict]} this version: {', but '.join(filter(None, told))}."


def deck(decision: Decision) -> str:
    """The numbers behind the headline, in two or three sentences."""
    return " ".join(reason(layer) for layer in decision.layers if layer.speaks)


def warnings(decision: Decision) -> list[str]:
    """What does not stop the decision but must be read."""
    return [sentence(found(one, layer)) for layer in decision.layers for one in layer.told("warns")]


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
    turned = decision.turned_by
    names = wording.listed([f"the {layer.name}" for layer in turned])
    stood = any(layer.stands_against for layer in turned)
    passed = f"{names} passed{', and no result stood against this model' if stood else ''}"
    told = [f"If {passed}, the verdict would be “ship”."] if turned else []
    for layer in turned:
        for one in layer.missing:
            action, _, price = in_words(one, layer)
            told.append(
                f"{wording.capital(layer.name)}: {action[0].lower()}{action[1:]} ({price})."
            )
    return told


def rules(decision: Decision) -> list[str]:
    """The rules it was made by; without any slice the rule about slices shown worse has nothing to stop."""
    asked = decision.ruled_by
    must = []
    for layer in asked.required(decision.stage):
        margin = f"not worse by more than {-asked.limit(layer) * 100:g} points"
        shown = "better" if asked.needs(layer) == "better" else margin
        must.append(f"The {NAMES[layer]} must show the fine-tuned model {shown}.")
    effects = [f"{words} {_EFFECTS[getattr(asked, name)]}." for name, words in _RULES.items()]
    if not decision.sliced:
        effects[0] = f"{effects[0][:-1]}: no slice is declared, so this rule stops nothing."
    retired = [
        f"Retired by this study: {wording.visible(key)}, because: {wording.visible(why).strip().rstrip('.')}."
        for key, why in asked.retired_evidence.items()
    ]
    return [*must, *effects, *_FIXED, *retired]


def write(decision: Decision, folder: Path) -> Path:
    """Writes `decision.json` into a run's folder: its kinds and numbers, and its words for people."""
    return write_whole(folder / FILE, to_json(_written(decision)))


def read(folder: Path) -> Decision:
    """Reads what `write` wrote: its kinds and numbers, whose words are made afresh.

    Raises:
        DataError: It is missing or damaged, says another thing than its layers make, or its numbers make no words.
    """
    found = read_decision(folder)
    try:
        _written(found)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as why:
        said = f"{folder / FILE}: its numbers make no words ({why}); run its chapter again"
        raise DataError(said) from why
    return found


def _written(decision: Decision) -> JsonObject:
    """A decision as its file has it."""
    known = decision.to_dict()
    for layer, made in zip(known["layers"], decision.layers, strict=True):
        layer |= {"reason": reason(made), "made_for": made_for(made)}
        layer["missing"] = written(made.missing, made)
        for told, one in zip(layer["findings"], made.findings, strict=True):
            told["text"] = found(one, made)
            told["missing"] = written([one.missing], made)[0] if one.missing else None
    words = (headline, deck, warnings, missing, would_change, rules)
    first = {name: known.pop(name) for name in ("study", "stage", "made_at", "verdict")}
    return without_secrets_in(first | {one.__name__: one(decision) for one in words} | known)


def _gain(layers: Sequence[LayerDecision]) -> str:
    """The best thing that is shown, and not by simulation; "" when there is none."""
    for verdict in ("better", "not worse"):
        for layer in layers:
            if layer.verdict == verdict and not layer.simulated:
                return _short(layer)
    return ""


def _cost(layers: Sequence[LayerDecision], n_regressed: int | None) -> str:
    """The first thing that speaks against it: a loss, then what is not known, then what to watch."""
    for layer in layers:
        if layer.word == "don't ship":
            return _loss(layer)
    first = sorted((one for one in layers if one.speaks), key=lambda one: not one.stands_against)
    if short := [_unknown(layer) for layer in first if layer.word != "passes"]:
        return wording.listed(short[:2])
    if warned := [(one, layer) for layer in layers for one in layer.told("warns")]:
        return found(*warned[0])
    if n_regressed:
        lost = ("answer that was right is", "answers that were right are")
        return f"{wording.plural(n_regressed, *lost)} now wrong"
    n = next((layer.n for layer in layers if layer.n), 0)
    return f"only as far as {wording.count(n or 0)} examples can tell"


def _loss(layer: LayerDecision) -> str:
    blocks = layer.told("blocks")
    if layer.verdict == "worse" or not blocks:
        return _short(replace(layer, verdict="worse"))
    more = wording.plural(len(blocks) - 1, "more loss", "more losses")
    return clause(blocks[0], layer) + (f" and {more}" if len(blocks) > 1 else "")


def _unknown(layer: LayerDecision) -> str:
    held, verdict, name = layer.told("holds"), layer.verdict, f"the {layer.name}"
    shown = verdict in {"better", "not worse"} and not layer.simulated
    if held and (shown or layer.stands_against):
        change = f"a change after results of {name} is not confirmed"
        return change if held[0].rule == UNCONFIRMED else clause(held[0], layer)
    if layer.simulated or verdict == "invalid":
        return f"{name} is {'simulated' if layer.simulated else 'invalid'}"
    if verdict == "not shown":
        return _short(layer)
    said = {
        MISSING: f"{ABSENT[layer.layer][0].lower()}{ABSENT[layer.layer][1:]}",
        _OPEN: f"no difference is shown so far in {name}",
        "too early": f"{name} cannot be read yet",
    }
    return said.get(verdict, f"{name} says: {verdict}")


def reason(layer: LayerDecision) -> str:
    """Why a layer stands where it stands, in a sentence or two: levels first, then the difference."""
    if layer.verdict == MISSING:
        stood = [sentence(found(one, layer)) for one in layer.told("holds")]
        other = f"The {layer.name} was {made_for(layer)}."
        return " ".join([other if layer.stale else f"{ABSENT[layer.layer]}.", *stood])
    if layer.simulated:
        stands = [one for one in layer.findings if one.rule == STANDS_AGAINST]
        told = (sentence(found(one, layer)) for one in stands)
        return " ".join([f"The {layer.name} is simulated, so it decides nothing.", *told])
    # What was not settled before the facts belongs beside the verdict, also where it only warns.
    beside = [one for one in layer.told("warns") if one.rule in _BEFORE_THE_FACTS]
    told = (_measured(layer), _later(layer))
    return " ".join([*filter(None, told), *(sentence(found(one, layer)) for one in beside)])


def _later(layer: LayerDecision) -> str:
    """Whose numbers the A/B test's are, when more users are in its log than the look had that decides."""
    later = layer.later
    if later is None or layer.estimate is None:
        return ""
    several = later.looks > 1
    look = f"look {later.look} of {later.looks}" if several else "the one look planned"
    first = _fill(layer, f"That is {look}, {{n}}")
    if several and layer.verdict in {"better", "worse"}:
        first += ": the first look that leaves its limits decides, whenever it is read"
    if later.over_all is None:
        came = f"{wording.plural(later.n, 'user')} came"
        return f"{first}; {came} later, and their outcome windows are still open."
    ends = {"estimate": later.estimate, "ci_low": later.ci_low, "ci_high": later.ci_high}
    difference = _difference(replace(layer, **ends))
    return (
        f"{first}; over all {wording.count(later.over_all)} whose outcome window has closed the difference is {difference}, "
        "and decides nothing."
    )


def _measured(layer: LayerDecision) -> str:
    """Levels of both models where they are known, the difference, then what stops it."""
    levels, rate = layer.levels, layer.levels is not None and layer.levels.is_rate
    said = _fill(layer, _LONG[layer.verdict]) if layer.verdict in _LONG else layer.verdict
    n = _fill(layer, "{n}")
    if layer.estimate is None:
        whole = f"The {layer.name} {said}."
    elif levels is None:
        whole = f"The {layer.name}, {_metric(layer)} over {n}: {said}."
    else:
        shown = layer.verdict in {"better", "worse"}
        moves = _moves(levels.base, levels.fine_tuned, rate=rate, shown=shown)
        whole = f"{wording.capital(layer.metric)} {moves} {'of' if rate else 'over'} {n}: {said}."
    # The slice that looks worst is told where it only warns, too: some read the deck alone.
    bad = [one for one in layer.told("warns") if one.rule == "slice_looks_bad"]
    worst = sorted(bad, key=lambda one: one.slice.signed if one.slice else 0.0)[:1]
    stops = [*layer.told("blocks", "holds"), *worst]
    return " ".join([whole, *(_stop(one, layer, rate=rate) for one in stops)])


def _stop(one: Finding, layer: LayerDecision, *, rate: bool) -> str:
    row = one.slice
    if row is None or row.base_rate is None or row.fine_tuned_rate is None:
        return sentence(clause(one, layer))
    rate = row.shown_as != "number" if row.shown_as else rate
    shown = one.rule == "slice_worse"
    moves = _moves(row.base_rate, row.fine_tuned_rate, rate=rate, shown=shown)
    size = f"{'of' if rate else 'over'} {wording.count(row.n or 0)}"
    unsafe = _UNSAFE.get(row.standing or "", "" if shown else ", not shown safe")
    return f"On {wording.examples_of(row.slice)} it {moves} {size}{unsafe}."


def _moves(base: float, tuned: float, *, rate: bool, shown: bool) -> str:
    """From level to level; it rises or falls only where a test has shown it."""
    text = wording.percent if rate else wording.number
    if text(base) == text(tuned):
        return f"stays at {text(base)}"
    way = "goes" if not shown else "rises" if tuned > base else "falls"
    return f"{way} from {text(base)} to {text(tuned)}"


def _short(layer: LayerDecision) -> str:
    """What a layer shows, within the headline."""
    of_metric, of_people = _SHORT[layer.verdict]
    return _fill(layer, of_people if layer.layer == "human" else of_metric)


def _metric(layer: LayerDecision) -> str:
    return f"“{layer.metric}”" if layer.layer == "ab_test" else layer.metric  # the study's own name


def _fill(layer: LayerDecision, text: str) -> str:
    """A sentence with this layer's metric, n, margin and effect in the places that it names."""
    same = f" rated and {wording.count(layer.identical)} identical" if layer.identical else ""
    digits = wording.decimals(layer.estimate, layer.ci_low, layer.ci_high)
    shift = " below 50%" if layer.layer == "human" else ""
    return text.format(
        where=_metric(layer) + (" with users" if layer.layer == "ab_test" else ""),
        n=wording.plural(layer.asked, layer.unit.removesuffix("s")) + same,
        effect=_difference(layer),
        size=wording.amount(layer.estimate or 0.0, layer.scale, digits=digits, sign=False),
        level=wording.percent(0.5 + (layer.estimate or 0.0)),
        margin=f"{wording.loss(abs(layer.limit), layer.scale)}{shift}",
        limit=wording.percent(0.5 + layer.limit),
    )


def _difference(layer: LayerDecision) -> str:
    """The difference with its sign: "+2.0 points (95% interval −3.0 to +7.0)"."""
    effect, ends = effect_and_ends(layer)
    if layer.estimate is None:
        return effect
    said = "" if ends == wording.UNDEFINED else f"{wording.confidence(layer.alpha)} interval "
    unit = " points" if layer.layer != "human" and layer.scale == "points" else ""
    return f"{effect}{unit} ({said}{ends})"
