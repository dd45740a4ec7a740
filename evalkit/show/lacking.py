"""What is missing, said by its kind and numbers: what to do, why, and its price."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from evalkit.decision import LayerDecision
from evalkit.decision.rules import OnRecord
from evalkit.errors import DataError
from evalkit.evidence import as_json
from evalkit.records import Layer, Missing
from evalkit.show.findings import against_said, found, made_for
from evalkit.wording import amount, capital, count, listed, loss, number, percent, plural, times

ABSENT: dict[Layer, str] = {
    "benchmark": "No benchmark has been run",
    "human": "No person has rated these answers",
    "ab_test": "No user has seen this version",
}
_BEGIN: dict[Layer, str] = {
    "benchmark": "Answer the test set with both models",
    "human": "Have people rate pairs of answers, blind",
    "ab_test": "Run an A/B test on production traffic",
}
_CONFIRM: dict[Layer, str] = {
    "benchmark": "Confirm it on the test set and against the base it was made for",
    "human": "Confirm it under its own rating_round, with the answers it was made from",
    "ab_test": "Confirm it by reading that test again",
}


class Said(NamedTuple):
    """One thing that is missing, for people."""

    action: str
    why: str
    price: str


def in_words(one: Missing, layer: LayerDecision | None = None) -> Said:
    """What is missing in words.

    Args:
        one: It.
        layer: The layer at the gate that lacks it; a layer's own chapter needs none.

    Raises:
        DataError: Only a layer at the gate lacks this.
    """
    if one.kind in _PLAIN:
        return _PLAIN[one.kind]
    if one.kind in _BY_NUMBERS:
        return _BY_NUMBERS[one.kind](one)
    if layer is None:
        raise DataError(f"missing {one.kind!r}: only a layer at the gate lacks this")
    return _at_gate(one, layer)


def written(
    lacking: Sequence[Missing], layer: LayerDecision | None = None
) -> list[dict[str, object]]:
    """Each with its words, for a file that people read."""
    return [in_words(one, layer)._asdict() | as_json(one) for one in lacking]


def next_look(users_more: int, days_more: int) -> str:
    """What the next look of an A/B test costs."""
    days = f"about {plural(days_more, 'day')}"
    if not users_more:
        return f"no more users, {days} until outcome windows have closed"
    return f"{plural(users_more, 'more user')}, {days}"


def _of_examples(one: Missing) -> Said:
    seen, shown = plural(one.n or 0, "example"), "it"
    more = f"about {count(one.more or 0)} more examples"
    if one.margin is None:
        seen += " cannot tell a difference of the size seen from chance"
    else:
        lost = loss(one.margin, one.shown_as)
        seen += f" do not rule out a loss of {lost}"
        shown = f"that it is not worse by more than {lost}"
    match one.kind:
        case "first_examples":
            price = f"{count(one.more or 0)} examples to begin with"
        case "second_look":
            price = f"the second look that was declared: {more}, then first_look: {one.more}"
        case "no_examples_would":
            price = "no number of examples would: the loss seen is as large as the margin"
        case "half_the_difference":
            seen += "; the price finds half as small a difference; test fresh examples alone"
            price = more
        case _:
            often = f"{times(one.chance or 0.0)}, if the rates seen are the true ones"
            seen += f"; the price shows {shown} {often}; test fresh examples alone"
            price = f"{more}, {count(one.needed or 0)} in all"
    return Said("Answer more held-out examples", seen, price)


def _of_slices(one: Missing) -> Said:
    names = [row.name for row in one.slices]
    rest = ""
    if one.further:
        names.append(plural(one.further, "more slice"))
        rest = "; the rest stands in the table of slices"
    seen = [f"{row.name}: {amount(row.estimate, row.shown_as)} over {row.n}" for row in one.slices]
    why = f"{listed(seen)}, not settled; the price settles each {times(one.chance or 0.0)}"
    more = [f"about {count(row.more)}" for row in one.slices]
    return Said(
        f"Collect more examples with {listed(names)}", why, f"{listed(more)} more examples{rest}"
    )


def _of_round(one: Missing) -> Said:
    if one.kind == "open_round":
        first = f"{plural(one.more, 'rating')}, then" if one.more else "one command:"
        return Said(
            "Finish and lock the rating round", "results open only then", f"{first} lock it"
        )
    return Said(
        "Name another rating_round and have the present answers rated",
        f"round {one.key} was made from other answers or another test set",
        _rating(one),
    )


def _of_ratings(one: Missing) -> Said:
    """A round that would show what this one did not."""
    seen = f"{percent(one.estimate)} is not shown to differ from 50%"
    if one.margin is not None:
        seen = f"a win rate below {percent(0.5 - one.margin)} is not ruled out"
    seen += f" with {plural(one.n or 0, 'item')}"
    pairs, price = plural(one.needed or 0, "pair"), _rating(one)
    action = f"Rate {pairs} in another rating_round" if one.needed else "Rate more pairs"
    if one.kind == "no_ratings_would":
        price = "no number of ratings would: the win rate seen is a loss of the margin"
    elif one.kind == "even_split":
        action = "Look for a larger effect"
        price = f"more than {pairs} at so even a split"
    if one.there is not None:
        price += f"; the test set has only {plural(one.there, 'pair')} with different answers"
    return Said(action, seen, price)


def _rating(one: Missing) -> str:
    if not one.needed:
        return "50 pairs for a start"
    pace_s = one.pace_s or 60
    minutes = one.needed * pace_s / 60
    time = f"{number(minutes / 60, 1)} hours"
    if minutes < 90:
        time = plural(max(round(minutes), 1), "minute")
    return f"{plural(one.needed, 'pair')}, about {time} a rater at {pace_s:.0f} s a pair"


def _of_log(one: Missing) -> Said:
    price = f"{count(one.needed or 0)} users, about {one.days} days"
    if one.kind == "no_users":
        action = "Route users through evalkit.run_ab_request, or name the log in event_log"
        return Said(action, "No user has been logged yet", price)
    what = "log" if one.kind == "no_log" else "variable"
    action = "Put it there, or correct event_log in study.yaml"
    return Said(action, f"The {what} {one.key} that event_log names is not there", price)


def _of_users(one: Missing) -> Said:
    action = "More users" if one.more else "Wait for outcomes"
    if one.looks != 1:
        action += f", for look {one.look} of {one.looks}"
    so_far = f"{count(one.n or 0)} of {count(one.needed or 0)} planned users count so far"
    price = next_look(one.more or 0, one.days or 0)
    return Said(action, f"{so_far}: those whose outcome window has closed", price)


def _of_test(one: Missing) -> Said:
    price = "no number of users would: the loss seen is as large as the margin"
    if one.kind == "larger_test":
        price = f"about {count(one.needed or 0)} users, if the difference seen is the true one"
    seen = f"a loss of {loss(one.margin, one.shown_as)} is not ruled out"
    return Said("Run a larger test, under a new plan", seen, price)


_PLAIN: Mapping[str, Said] = {
    "no_right_answers": Said(
        "Declare a primary_metric that needs no right answers: format, or a scorer of your own; where people decide, "
        "benchmark_needs: not worse in the rules",
        "Nothing is expected of these examples, so they have no exact match",
        "a line in study.yaml; nothing is asked again",
    ),
    "no_round": Said(
        "Prepare a rating round",
        "nobody was asked yet: name the raters in study.yaml, then run notebook 03",
        "50 pairs for a start",
    ),
    "nothing_to_rate": Said("Prepare another round", "no example had two answers", "50 pairs"),
    "no_plan": Said(
        "Fill in the A/B plan, its experiment_name and lock_plan: true in study.yaml, then run notebook 05",
        "No A/B plan is locked",
        "minutes",
    ),
    "sample_ratio": Said(
        "Find out why the sample ratio is off, and start again",
        "users do not fit the declared split, so no difference between the variants can be trusted",
        "a new test",
    ),
    "not_read": Said("Read the effect", "a look is due and not read yet", "a line in the ledger"),
    "failed_calls": Said("Ask the failed calls again", "The verdict hangs on them", "one more run"),
}
_BY_NUMBERS: Mapping[str, Callable[[Missing], Said]] = {
    "first_examples": _of_examples,
    "second_look": _of_examples,
    "more_examples": _of_examples,
    "no_examples_would": _of_examples,
    "half_the_difference": _of_examples,
    "open_slices": _of_slices,
    "open_round": _of_round,
    "other_round": _of_round,
    "more_ratings": _of_ratings,
    "even_split": _of_ratings,
    "no_ratings_would": _of_ratings,
    "no_users": _of_log,
    "no_log": _of_log,
    "no_variable": _of_log,
    "more_users": _of_users,
    "open_windows": _of_users,
    "larger_test": _of_test,
    "no_users_would": _of_test,
    "off_record": lambda one: Said(
        f"Make {one.key} writable and read the test again",
        "a look off the record is a peek, so the effect is withheld",
        "minutes",
    ),
    "no_verdict": lambda one: Said(
        "Cap what one user may bring, run longer or split the traffic equally, under a new plan",
        one.said,
        "a new test",
    ),
}


def _at_gate(one: Missing, layer: LayerDecision) -> Said:
    """What a layer lacks at the gate."""
    if one.kind == "worse":
        return _of_loss(one, layer)
    if one.kind == "slices_warned":
        warned, *_ = (row for row in layer.slices if row.effect == "warns")
        price = "no number of examples is known that would settle it at the rates seen"
        return Said("Collect more such examples", capital(found(warned, layer)), price)
    begin = _BEGIN[layer.layer]
    anew = {
        "absent": (begin, ABSENT[layer.layer]),
        "stale": (begin, made_for(layer)),
        "simulated": (begin, "What stands here is simulated and decides nothing"),
        "more_of_it": (f"{begin}, more of it", f"What is there says: {layer.verdict}"),
        "invalid": (f"Mend the {layer.name}, then start it again", "Its result is invalid"),
    }
    if one.kind in anew:
        return Said(*anew[one.kind], _from_the_start(one, layer))
    return _of_finding(one, layer)


def _of_finding(one: Missing, layer: LayerDecision) -> Said:
    """What would settle something that was found."""
    what, reason = _about(one, layer), "a reason in one line, which every report prints"
    retire = f"write `retired_evidence: {{{one.key}: why}}` into the study's rules_file"
    days = f"about {plural(one.days or 0, 'day')}"
    weeks = f"{days} more, when users keep coming"
    said = {
        "stands_against": (
            f"{_CONFIRM[layer.layer]}, or retire it: {retire}",
            f"{what}; nothing at the gate answers it",
            reason,
        ),
        "unconfirmed": (
            'Undo it, or say why it is all right: evalkit confirm STUDY "the reason"',
            capital(what),
            reason,
        ),
        "declared_after_results": (
            "Put it back, or decide on a test set on which nobody has seen results",
            what,
            "one line, or fresh examples",
        ),
        "plan_differs": (
            "Write the locked values into study.yaml, or amend the plan with a reason",
            what,
            "minutes",
        ),
        "plan_after_exposures": (
            "Lock a plan under a new experiment_name before its users come, and run the test",
            what,
            f"{count(one.needed or 0)} users, {days}",
        ),
        "not_whole_weeks": (
            "Let the test run on to whole weeks, then read it again",
            f"{what}; weekdays may differ",
            weeks if one.days else "its whole weeks do not show the same: a new test",
        ),
    }
    return Said(*said[one.kind])


def _from_the_start(one: Missing, layer: LayerDecision) -> str:
    """The price of a layer from its beginning."""
    if layer.layer == "benchmark":
        return "one run over the test set; its cost is printed before it starts"
    needed = one.needed or 0
    if layer.layer == "ab_test":
        return f"about {count(needed)} users to show 30% becoming 35%, half of them on the fine-tuned model"
    what = "show a true 65%"
    if one.margin:
        what = f"rule out a loss of {loss(one.margin)} where both are alike"
    hours = number(needed / 60, 1)
    return f"about {count(needed)} decided ratings to {what}, {hours} rater hours at one a minute"


def _of_loss(one: Missing, layer: LayerDecision) -> Said:
    blocks = layer.told("blocks")
    why, mend = f"The {layer.name} shows the fine-tuned model worse", "Train another version"
    if blocks:
        told, is_loss = listed([found(row, layer) for row in blocks]), blocks[0].is_loss
        why = f"The fine-tuned model is {told}" if is_loss else capital(told)
        mend = "Mend what blocks it"
    n = f"{count(one.n)} {layer.unit}" if one.n else "this layer"
    return Said(f"{mend}, then repeat the {layer.name}", why, f"a training run, then {n} again")


def _about(one: Missing, layer: LayerDecision) -> str:
    """What was found that this would settle: a result against the model, a change, or a rule's finding.

    Raises:
        LookupError: Nothing of the kind was found.
    """
    for finding in layer.findings:
        row = finding.numbers
        if finding.rule == one.kind and isinstance(row, OnRecord) and one.key in row.keys:
            against = [against_said(a) for a in row.against or () if a.key == one.key]
            return [*against, found(finding, layer)][0]
        if finding.missing == one:
            return found(finding, layer)
    raise LookupError(f"{one.kind} is about nothing that was found")
