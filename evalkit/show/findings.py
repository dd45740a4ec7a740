"""What the rules found, said by its kind and numbers: slices, users, raters, results from before, changes after a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from evalkit import ledger
from evalkit.decision import LayerDecision
from evalkit.decision.rules import (
    CONFIRMED,
    RETIRED,
    STANDS_AGAINST,
    UNCONFIRMED,
    Careless,
    Faults,
    Finding,
    FoundMetric,
    FoundSlice,
    LatePlan,
    OnRecord,
    OtherPlan,
)
from evalkit.decision.standing import Differs
from evalkit.errors import DataError
from evalkit.evidence import OfRaters
from evalkit.records import Against, Change, Layer, Plain
from evalkit.wording import (
    amount,
    capital,
    count,
    decimals,
    examples_of,
    listed,
    minute,
    percent,
    plural,
    times,
    visible,
)

_RESULTS: dict[Layer, tuple[str, str]] = {
    "benchmark": ("a benchmark result", "benchmark results"),
    "human": ("a human rating", "human ratings"),
    "ab_test": ("an A/B result", "A/B results"),
}


def found(one: Finding, layer: LayerDecision) -> str:
    """What a rule has found, as the end of a sentence: "worse by 6.2 points on “multi” examples".

    Raises:
        DataError: It was read from a file of an earlier version, which does not have its numbers.
    """
    if one.numbers is None or one.rule not in _FOUND:
        raise too_old(f"what was found in the {layer.name}")
    return _FOUND[one.rule](one.numbers, layer)


def clause(one: Finding, layer: LayerDecision) -> str:
    """Within a sentence: "it is worse by ..." or what was found."""
    return f"it is {found(one, layer)}" if one.is_loss else found(one, layer)


def sentence(text: str) -> str:
    """What was found as a sentence of its own."""
    return f"{capital(text)}."


def _faulty(row: Faults, _: LayerDecision) -> str:
    if row.kind == "leak":
        leaks = plural(row.n, "test example leaks", "test examples leak")
        return f"{leaks} from the training file"
    prompts = plural(row.n, "test prompt has", "test prompts have")
    return f"{prompts} different expected answers"


def _worse_slice(row: FoundSlice, _: LayerDecision) -> str:
    return f"worse by {_size(row)} on {examples_of(row.slice)}"


def _looks_bad(row: FoundSlice, _: LayerDecision) -> str:
    lost = f"look bad, {_size(row)} lost over {count(row.n or 0)}"
    return f"{examples_of(row.slice)} {lost}, though chance alone may do that"


def _unseen(row: FoundSlice, _: LayerDecision) -> str:
    """A slice doubted for its size alone: a gain of few shows no more than a loss."""
    examples, scale, chance = examples_of(row.slice), row.shown_as or "points", row.chance_to_see
    though = ""
    if row.signed > 0:
        few = f"over only {plural(row.n or 0, 'example')}"
        though = f", though {_size(row)} {'were' if scale == 'points' else 'was'} gained {few}"
    if row.standing is None:
        return f"{examples} are not shown safe{though}"
    found = "" if chance is None else f": the test would have found it {times(chance)}"
    could = f"is not ruled out{though}" if though else f"could not have been seen{found}"
    return f"a loss of {amount(row.margin, scale, sign=False)} on {examples} {could}"


def _size(row: FoundSlice | FoundMetric) -> str:
    """The size of a difference: points for rates, a number for scores."""
    digits = decimals(row.estimate, row.ci_low, row.ci_high)
    return amount(row.estimate, row.shown_as or "points", digits=digits, sign=False)


def _careless(row: Careless, _: LayerDecision) -> str:
    names = [visible(one) for one in row.raters]
    verb = "looks" if len(names) == 1 else "look"
    return f"{len(names)} of {plural(row.n, 'rater')} {verb} careless: {listed(names)}"


def _few(row: OfRaters, _: LayerDecision) -> str:
    if row.n_raters == 1:
        return "preferred by one rater, who speaks for nobody else"
    return f"preferred by these {row.n_raters} raters, which is not shown for raters like them"


def _late(row: LatePlan, _: LayerDecision) -> str:
    locked, came = row.locked_at[:10], row.came_first[:10]
    return f"the A/B plan was locked on {locked}, after its users had begun to come ({came})"


def _plan_differs(row: OtherPlan, _: LayerDecision) -> str:
    differs = [f"{one.name} {one.study} instead of {one.plan}" for one in row.differs]
    return visible(f"study.yaml says {listed(differs)} of the locked A/B plan, which counts")


def _stands(row: OnRecord, layer: LayerDecision) -> str:
    one, several = _RESULTS[layer.layer]
    if (n := len(row.keys)) == 1:
        return f"{one} against this model stands"
    return f"{n} {several} against this model stand"


def _retired(row: OnRecord, layer: LayerDecision) -> str:
    one = _RESULTS[layer.layer][0]
    return visible(f"{one} against this model ({row.source}) is retired: {row.reason}")


def _changed(row: OnRecord, _: LayerDecision) -> str:
    if row.change:
        return changed(row.change)
    if row.what:
        return visible(row.what)
    raise too_old("what was changed after a result")


_FOUND: Mapping[str, Callable[..., str]] = {
    "test_set_faulty": _faulty,
    "slice_worse": _worse_slice,
    "slice_looks_bad": _looks_bad,
    "slice_could_not_be_seen": _unseen,
    "other_metric_worse": lambda row, _: f"worse by {_size(row)} in {row.metric.replace('_', ' ')}",
    "fragile": lambda *_: "the verdict hangs on failed calls",
    "noise_not_measured": lambda *_: "how often answers flip by chance was not measured",
    "careless_raters": _careless,
    "length_explains": lambda row, _: (
        f"perhaps preferred for its length: {percent(row.estimate)} at equal length, where no preference is shown"
    ),
    "few_raters": _few,
    "plan_after_exposures": _late,
    "not_whole_weeks": lambda row, _: (
        f"the A/B test’s users came on {plural(row.days, 'day')}, not in whole weeks"
    ),
    "plan_differs": _plan_differs,
    "guardrail_not_shown": lambda row, _: f"guardrail {visible(row.name)}: {row.verdict}",
    "declared_after_results": _changed,
    STANDS_AGAINST: _stands,
    RETIRED: _retired,
    UNCONFIRMED: _changed,
    CONFIRMED: lambda row, layer: f"{_changed(row, layer)}; confirmed: {visible(row.reason)}",
}


def made_for(layer: LayerDecision) -> str:
    """What evidence was made for that does not count now."""
    if layer.stale == "unbound":
        of_users = [one.what for one in layer.differs] == ["model"]
        return (
            f"made for another model, or {'names none' if of_users else 'not bound to any answers'}"
        )
    return f"made for {listed([_other(one) for one in layer.differs])}" if layer.stale else ""


def _other(one: Differs) -> str:
    if one.made_for:
        side = one.what.replace("_", "-")
        return f"another {side} model, {visible(one.made_for)} instead of {visible(one.compared)}"
    side = one.what.removesuffix("_journal").replace("_", "-")
    names = {"test-set": "another test set"}
    return names.get(
        side, f"other answers of the {side} model" if side in {"base", "fine-tuned"} else one.what
    )


def against_said(one: Against) -> str:
    """What a result against the model says: its source, when, and its effect."""
    said = one.said
    if one.fault is not None:
        said = f"the locked round cannot be read any more: {one.fault}"
    elif one.n_control is not None:
        users = f"{one.n_control:,} users of control against {one.n_treatment:,} of treatment"
        said = f"worse at look {one.look}, {users}"
    elif one.n is not None:
        said = f"the fine-tuned answers win {percent(one.win_rate)}, over {plural(one.n, 'item')}"
    when = f", {one.at[:10]}" if one.at else ""
    return visible(f"{one.source}{when}{f': {said}' if said else ''}")


def too_old(what: str = "what is missing") -> DataError:
    return DataError(
        f"{what} was written by an earlier version, without its numbers; run its chapter again"
    )


# ---- what was changed after a result


def changed(one: Change) -> str:
    """What was changed after it could be known how it turns out, as the end of a sentence."""
    return visible(_CHANGED[one.kind](one))


def _another_plan(one: Change) -> str:
    looks = f"{plural(one.n, 'look')} at the same experiment under another plan"
    return f"its plan was locked ({one.at[:10]}) after {looks}, the first on {one.before[:10]}"


def _tried_before(one: Change) -> str:
    shown = f"{listed([*one.names])} showed an effect on {one.at[:10]}"
    return f"these two models had been tested before: {shown}, and another plan counts now"


def _fewer(one: Change) -> str:
    to = 10 if one.before[:10] != one.at[:10] else 16  # within a day the day tells nothing
    then, later = (minute(when)[:to] for when in (one.before, one.at))
    return f"the log held {count(one.n_before)} requests on {then} and {count(one.n)} on {later}"


def _earlier(one: Change) -> str:
    then, later = map(minute, (one.before, one.at))
    return f"the last user of the log came on {then} by one look and on {later} by a later one"


def _locked_again(one: Change) -> str:
    name, *files = one.names
    return f"round {name} was locked again with other votes ({listed(files)})"


def _of_rules(one: Change) -> str:
    told = [f"{name} from {_as_set(old)} to {_as_set(new)}" for name, old, new in one.turned]
    return f"what decides was changed after a result ({one.at[:10]}): {listed(told)}"


def _taken_out(one: Change) -> str:
    name, *lost = one.names
    return f"{_seen(one)}, {listed(lost)} {'was' if len(lost) == 1 else 'were'} taken out of {name}"


def _went(one: Change) -> str:
    ((name, old, new),) = one.turned
    rule = "the rule " if one.kind == "rule" else ""
    return f"{_seen(one)}, {rule}{name} went from {_as_set(old)} to {_as_set(new)}"


def _seen(one: Change) -> str:
    return f"after results were seen (run of {one.at[:10]})"


def _as_set(value: Plain) -> str:
    """A value as study.yaml has it."""
    return str(value).lower() if isinstance(value, bool) else str(value) or "nothing"


_CHANGED: Mapping[str, Callable[[Change], str]] = {
    "another plan": _another_plan,
    "tried before": _tried_before,
    "unmarked": lambda one: (
        f"users of this experiment were marked as simulated on {one.at[:10]}, and are not now"
    ),
    "fewer": _fewer,
    "earlier": _earlier,
    "another effect": lambda one: (
        f"look {one.names[0]} showed another effect on {one.before[:10]} than on {one.at[:10]}: the log has changed"
    ),
    "other outcomes": lambda one: (
        f"look {one.names[0]} rests on other outcomes on {one.at[:10]} than on {one.before[:10]}: the log has changed"
    ),
    "drawn again": lambda one: (
        f"round {one.names[0]} was drawn {one.n} times, each time other pairs or sides"
    ),
    "locked again": _locked_again,
    "rated before": lambda one: (
        f"people had rated these answers before, in {listed([*one.names])}, which does not count now"
    ),
    "rated as well": lambda one: (
        f"people had rated these answers in {listed([*one.names])} as well, which does not count"
    ),
    "input": lambda one: (
        f"the file {one.names[0]} is not what results were read from on {one.at[:10]}: lines were changed or taken out"
    ),
    "rules": _of_rules,
    "without head": lambda one: (
        f"{ledger.HEAD} was gone on {one.at[:10]}: lines were dropped before line {one.n}, or none were"
    ),
    "taken up": lambda one: (
        f"the file {one.names[0]} was sealed elsewhere and taken up on {one.at[:10]}"
    ),
    "taken out": _taken_out,
    "setting": _went,
    "rule": _went,
}
