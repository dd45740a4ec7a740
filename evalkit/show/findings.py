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
    Finding,
    FoundMetric,
    FoundSlice,
    OnRecord,
    OtherPlan,
)
from evalkit.decision.standing import Differs
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

_RESULTS: dict[Layer, str] = {
    "benchmark": "a benchmark result",
    "human": "a human rating",
    "ab_test": "an A/B result",
}


def found(one: Finding, layer: LayerDecision) -> str:
    """What a rule has found, as the end of a sentence: "worse by 6.2 points on “multi” examples"."""
    if one.rule == STANDS_AGAINST:
        n = len(one.numbers.keys) if isinstance(one.numbers, OnRecord) else 1
        if n == 1:
            return f"{_RESULTS[layer.layer]} against this model stands"
        return f"{plural(n, f'{layer.name} result')} against this model stand"
    return visible(_FOUND[one.rule](one.numbers))


def clause(one: Finding, layer: LayerDecision) -> str:
    """Within a sentence: "it is worse by ..." or what was found."""
    return f"it is {found(one, layer)}" if one.is_loss else found(one, layer)


def sentence(text: str) -> str:
    """What was found as a sentence of its own."""
    return f"{capital(text)}."


def _unseen(row: FoundSlice) -> str:
    """A slice doubted for its size alone: a gain of few shows no more than a loss."""
    examples = examples_of(row.slice)
    if row.signed > 0:
        few = f"{_size(row)} gained over only {plural(row.n or 0, 'example')}"
        return f"a loss on {examples} is not ruled out: {few}"
    lost = f"a loss of {amount(row.margin, row.shown_as or 'points', sign=False)} on {examples}"
    chance = row.chance_to_see
    seen = "" if chance is None else f": the test would have found it {times(chance)}"
    return f"{lost} could not have been seen{seen}"


def _size(row: FoundSlice | FoundMetric) -> str:
    """The size of a difference: points for rates, a number for scores."""
    digits = decimals(row.estimate, row.ci_low, row.ci_high)
    return amount(row.estimate, row.shown_as or "points", digits=digits, sign=False)


def _careless(row: Careless) -> str:
    verb = "looks" if len(row.raters) == 1 else "look"
    return f"{len(row.raters)} of {plural(row.n, 'rater')} {verb} careless: {listed([*row.raters])}"


def _plan_differs(row: OtherPlan) -> str:
    differs = [f"{one.name} {one.study} instead of {one.plan}" for one in row.differs]
    return f"the file study.yaml says {listed(differs)} of the locked A/B plan, which counts"


def _changed(row: OnRecord) -> str:
    told = changed(row.change) if row.change else row.what
    if not told:
        raise LookupError("a change that is not told")
    return f"{told}; confirmed: {row.reason}" if row.reason else told


_FAULTS = {
    "leak": ("example from the training file", "examples from the training file"),
    "conflict": (
        "prompt with different expected answers",
        "prompts with different expected answers",
    ),
}
_FOUND: Mapping[str, Callable[..., str]] = {
    "test_set_faulty": lambda row: f"the test set has {plural(row.n, *_FAULTS[row.kind])}",
    "slice_worse": lambda row: f"worse by {_size(row)} on {examples_of(row.slice)}",
    "slice_looks_bad": lambda row: (
        f"{examples_of(row.slice)} look bad, {_size(row)} lost over {count(row.n or 0)}, though chance alone may do that"
    ),
    "slice_could_not_be_seen": _unseen,
    "other_metric_worse": lambda row: f"worse by {_size(row)} in {row.metric.replace('_', ' ')}",
    "fragile": lambda _: "the verdict hangs on failed calls",
    "noise_not_measured": lambda _: "how often answers flip by chance was not measured",
    "careless_raters": _careless,
    "length_explains": lambda row: (
        f"perhaps preferred for its length: {percent(row.estimate)} at equal length, where no preference is shown"
    ),
    "few_raters": lambda row: (
        f"preferred by {plural(row.n_raters, 'rater')}, which is not shown for others"
    ),
    "plan_after_exposures": lambda row: (
        f"the A/B plan was locked on {row.locked_at[:10]}, after its users had begun to come ({row.came_first[:10]})"
    ),
    "not_whole_weeks": lambda row: (
        f"the A/B test’s users came on {plural(row.days, 'day')}, not in whole weeks"
    ),
    "plan_differs": _plan_differs,
    "guardrail_not_shown": lambda row: f"guardrail {row.name}: {row.verdict}",
    "declared_after_results": _changed,
    RETIRED: lambda row: f"a result against this model ({row.source}) is retired: {row.reason}",
    UNCONFIRMED: _changed,
    CONFIRMED: _changed,
}


def made_for(layer: LayerDecision) -> str:
    """What evidence was made for that does not count now."""
    if layer.stale == "unbound":
        return "made for another model, or bound to none"
    others = listed([_other(one) for one in layer.differs]) or layer.stale.replace("_", " ")
    return f"made for {others}" if layer.stale else ""


def _other(one: Differs) -> str:
    side = one.what.removesuffix("_journal").replace("_", "-")
    if one.made_for:
        return f"another {side} model, {visible(one.made_for)} instead of {visible(one.compared)}"
    return "another test set" if side == "test-set" else f"other answers of the {side} model"


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


# ---- what was changed after a result


def changed(one: Change) -> str:
    """What was changed after it could be known how it turns out, as the end of a sentence."""
    first, *others = one.names or ("",)
    turned = [f"{name} from {_as_set(old)} to {_as_set(new)}" for name, old, new in one.turned]
    parts = {"n": count(one.n), "n_before": count(one.n_before), "turned": listed(turned)}
    parts |= {"first": first, "others": listed(others), "names": listed([*one.names])}
    days = {"on": one.at[:10], "before": one.before[:10]}
    times = {"later": minute(one.at), "then": minute(one.before)}
    return visible(_CHANGED[one.kind].format(**parts, **days, **times))


def _as_set(value: Plain) -> str:
    """A value as study.yaml has it."""
    return str(value).lower() if isinstance(value, bool) else str(value) or "nothing"


_CHANGED = {
    "another plan": "its plan was locked ({on}) after looks under another one: {n}, the first on {before}",
    "tried before": "these two models had been tested before: {names} showed an effect on {on}, and another plan counts now",
    "unmarked": "users of this experiment were marked as simulated on {on}, and are not now",
    "fewer": "the log held {n_before} requests on {then} and {n} on {later}",
    "earlier": "the last user of the log came on {then} by one look and on {later} by a later one",
    "another effect": "look {first} showed another effect on {before} than on {on}: the log has changed",
    "other outcomes": "look {first} rests on other outcomes on {on} than on {before}: the log has changed",
    "drawn again": "round {first} was drawn {n} times, each time other pairs or sides",
    "locked again": "round {first} was locked again with other votes ({others})",
    "rated before": "people had rated these answers before, in {names}, which does not count now",
    "rated as well": "people had rated these answers in {names} as well, which does not count",
    "input": "the file {first} is not what results were read from on {on}: lines were changed or taken out",
    "rules": "after results were seen ({on}) this changed: {turned}",
    "without head": f"the file {ledger.HEAD} was gone on {{on}}: lines were dropped before line {{n}}, or none were",
    "taken up": "the file {first} was sealed elsewhere and taken up on {on}",
    "taken out": "after results were seen ({on}) this was taken out of {first}: {others}",
    "setting": "after results were seen ({on}) this changed: {turned}",
    "rule": "after results were seen ({on}) this changed: {turned}",
}
