"""What changed, in words: since the run before, and what decides after a result was seen; and how worn the test set is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from evalkit import ledger
from evalkit.decision.history import FILE, History
from evalkit.decision.rules import NAMES
from evalkit.files import JsonObject as Run  # a row of the history, as it was read
from evalkit.records import Change, Plain
from evalkit.wording import count, decimals, listed, plural, points, visible

_BOUND = {
    "test_set": "the test set",
    "base": "the base model's answers",
    "fine_tuned": "the fine-tuned model's answers",
}


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
    then, later = (when[:to].replace("T", " ") for when in (one.before, one.at))
    return f"the log held {count(one.n_before)} requests on {then} and {count(one.n)} on {later}"


def _earlier(one: Change) -> str:
    then, later = (when[:16].replace("T", " ") for when in (one.before, one.at))
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


# ---- since the run before


def told(history: History) -> str:
    """All there is to say, in a few sentences."""
    said = [what_changed(history.rows, history.now), worn_out(history.rows, history.now)]
    if history.torn:
        torn = f"The last line of {FILE} is unfinished and was left out"
        said.append(f"{torn}; the end of this run removes it.")
    return " ".join(one for one in said if one)


def what_changed(rows: Sequence[Run], now: Run) -> str:
    """One sentence: what is different from the run before."""
    earlier = [row for row in rows if row.get("run") != now.get("run")]
    sound = [row for row in earlier if row.get("metrics") and not row.get("failed")]
    if not earlier:
        return "This is the first run of this study, so there is nothing to compare it with."
    if not sound:
        n = plural(len(earlier), "earlier run")
        return f"There is nothing to compare it with: of {n}, none finished without a failure and with a benchmark."
    before = sound[-1]
    if changes := [*_named(earlier, before, now), *_outcomes(before, now), *_given(before, now)]:
        return f"Since the run of {_day(before)}: {'; '.join(changes)}."
    return f"Nothing changed since the run of {_day(before)}: same parameters, same answers, same layers, same verdict."


def worn_out(rows: Sequence[Run], now: Run) -> str:
    """What it means that one test set has judged several sets of answers; "" when this is its first.

    Each look at a test set to choose by it makes the chosen model look better on it than it is.
    """
    bounds = [row.get("bound_to") or {} for row in (*rows, now)]
    test_set = bounds[-1].get("test_set")
    judged = {one.get("fine_tuned") for one in bounds if one.get("test_set") == test_set}
    n = max(len(judged - {None}) if test_set else 0, now.get("n_compared") or 1)
    if n < 2:
        return ""
    return (
        f"This test set has judged {n} sets of answers. One used for choosing wears out: the best of several looks better "
        "on it than it is, so keep a fresh test set for the last word."
    )


def _named(earlier: Sequence[Run], before: Run, now: Run) -> Iterator[str]:
    """The test set, the answers and the verdict."""
    for name, words in _BOUND.items():
        old, new = (row.get("bound_to", {}).get(name) for row in (before, now))
        if old and new and old != new:
            yield f"{words} {_otherwise(name, earlier, before, now)}"
    old, new = (row.get("verdict") for row in (before, now))
    if old != new:
        yield f"the verdict went from {old or 'none'} to {new or 'none'}"


def _otherwise(name: str, earlier: Sequence[Run], before: Run, now: Run) -> str:
    """What became of a hash; answers are new when no earlier run has seen them, and the model is the same."""
    if name == "test_set":
        return "is another"
    hash_ = now["bound_to"][name]
    if known := [row for row in earlier if (row.get("bound_to") or {}).get(name) == hash_]:
        return f"are those of the run of {_day(known[-1])}"
    old, new = ((row.get("models") or {}).get(name) for row in (before, now))
    return "are another model's" if old and new and old != new else "are new"


def _outcomes(before: Run, now: Run) -> Iterator[str]:
    """What the layers say; the benchmark's effects follow metric by metric, and older rows know no effects."""
    for layer in now.get("layers") or {}:
        if layer in (before.get("layers") or {}):
            told = layer != "benchmark" and "effects" in before
            was, is_now = (_said(row, layer, with_effect=told) for row in (before, now))
            if was != is_now:
                yield f"the {NAMES[layer]} went from {was} to {is_now}"
    for name, metric in now.get("metrics", {}).items():
        old, new = before.get("metrics", {}).get(name, {}).get("estimate"), metric.get("estimate")
        if old is None or new is None:
            continue
        digits = max(decimals(old), decimals(new))
        was, is_now = points(old, digits), points(new, digits)
        if was != is_now:
            words = f"the difference in {name.replace('_', ' ')}"
            yield f"{words} went from {was} to {is_now} points (not tested)"


def _said(row: Run, layer: str, *, with_effect: bool) -> str:
    word, effect = row["layers"][layer], row.get("effects", {}).get(layer)
    return f"{word}, {effect}" if with_effect and effect else word


def _given(before: Run, now: Run) -> Iterator[str]:
    """Parameters, the stage, own code that scores, and rules."""
    old, new = (row.get("parameters") or {} for row in (before, now))
    for name in new:
        if name in old and old[name] != new[name]:
            yield f"{name} went from {_value(old[name])} to {_value(new[name])}"
    stages = [row.get("stage") for row in (before, now)]
    if all(stages) and stages[0] != stages[1]:
        yield f"stage went from {stages[0]} to {stages[1]}"
    old, new = (row.get("own_code") or {} for row in (before, now))
    for name in new:
        if name in old and old[name] != new[name]:
            yield f"{_value(name)}, which scores answers, is another"
    for rule in now.get("rules") or ():
        if before.get("rules") and rule not in before["rules"]:
            yield f"a rule is new: {rule.rstrip('.')}"


def _value(value: object) -> str:
    return visible(str(value)) or "nothing"


def _day(row: Run) -> str:
    return str(row.get("made_at", ""))[:16].replace("T", " ") or str(row.get("run"))
