"""What the rules found in a layer and what it lacks, said: each by its kind and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from evalkit.decision.rules import (
    STANDS_AGAINST,
    UNCONFIRMED,
    OnRecord,
)
from evalkit.evidence import as_json
from evalkit.records import Layer, Missing, OpenSlice
from evalkit.show.findings import against_said, changed, found, made_for, too_old
from evalkit.wording import (
    amount,
    capital,
    count,
    listed,
    loss,
    number,
    percent,
    plural,
    points,
    times,
    visible,
)

if TYPE_CHECKING:
    from evalkit.decision import LayerDecision

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
_ANSWER, _FIRST_ROUND = "Answer more held-out examples", "50 pairs for a start"
_LOG = ("Put it there, or correct event_log in study.yaml", "that event_log names is not there")
_PLANNED, _REASON = "{p.planned}", "a reason in one line, which every report prints"
_SAID = {  # what to do, why, and its price
    "first_examples": (
        _ANSWER,
        "{p.examples} cannot tell a difference of the size seen from chance",
        "{p.more} examples to begin with",
    ),
    "second_look": (
        _ANSWER,
        "{p.seen}",
        "the second look that was declared: {p.more} more examples, then first_look: {one.more}",
    ),
    "more_examples": (
        _ANSWER,
        "{p.seen}; the price shows {p.it} {p.often}, if the rates seen are the true ones; test fresh examples alone",
        "about {p.more} more examples, {p.needed} in all",
    ),
    "no_examples_would": (
        _ANSWER,
        "{p.seen}",
        "no number of examples would: the loss seen is as large as the margin",
    ),
    "half_the_difference": (
        _ANSWER,
        "{p.seen}; the price finds half as small a difference as often; test fresh examples alone",
        "about {p.more} more examples",
    ),
    "no_right_answers": (
        "Declare what a benchmark can measure without right answers: primary_metric: format (with a checker), or a scorer of "
        "your own; where people decide which is better, with benchmark_needs: not worse in the rules",
        "Nothing is expected of these examples, so they have no exact match",
        "a line in study.yaml, before the answers are looked at; nothing is asked again",
    ),
    "open_slices": (
        "Collect more examples with {p.slices}",
        "{p.losses}, not settled; the price settles each {p.often}",
        "{p.more_of_each}",
    ),
    "no_round": (
        "Prepare a rating round",
        "nobody was asked yet: name the raters in study.yaml, then run notebook 03",
        _FIRST_ROUND,
    ),
    "other_round": (
        "Name another rating_round and have the present answers rated",
        "round {one.key} was made from other answers or another test set, and is never drawn anew",
        "{p.rating}",
    ),
    "open_round": (
        "Finish and lock the rating round",
        "results open only then",
        "{p.first} lock the round",
    ),
    "nothing_to_rate": (
        "Prepare another rating round",
        "no example had two answers to show",
        _FIRST_ROUND,
    ),
    "more_ratings": (
        "{p.rate} {p.pairs} in another rating_round",
        "{p.preferred}",
        "{p.rating}{p.only}",
    ),
    "even_split": (
        "Look for a larger effect",
        "{p.preferred}",
        "more than {p.pairs} at so even a split{p.only}",
    ),
    "no_ratings_would": (
        "Rate more pairs",
        "{p.preferred}",
        "a true win rate of {p.rate_seen} is a loss of the margin; no number of ratings shows it safe",
    ),
    "no_plan": (
        "Fill in the A/B plan, its experiment_name and lock_plan: true in study.yaml, then run notebook 05",
        "No A/B plan is locked",
        "minutes",
    ),
    "no_users": (
        "Route users through evalkit.run_ab_request, or name the log in event_log",
        "No user has been logged yet",
        _PLANNED,
    ),
    "no_log": (_LOG[0], "The log {one.key} " + _LOG[1], _PLANNED),
    "no_variable": (_LOG[0], "The variable {one.key} " + _LOG[1], _PLANNED),
    "sample_ratio": (
        "Find out why the sample ratio is off, and start again",
        "users do not fit the declared split, so no difference between the variants can be trusted",
        "a new test",
    ),
    "off_record": (
        "Make {one.key} writable and read the test again",
        "a look off the record is a peek, so the effect is withheld",
        "minutes",
    ),
    "not_read": (
        "Read the effect",
        "a look is due, and the effect is not read yet",
        "a line in the ledger",
    ),
    "no_verdict": (
        "Cap what one user may bring, run longer or split the traffic equally, under a new plan",
        "{one.said}",
        "a new test",
    ),
    "larger_test": (
        "Run a larger test, under a new plan",
        "a loss of {p.loss} is not ruled out",
        "about {p.needed} users, if the difference seen is the true one",
    ),
    "no_users_would": (
        "Run a larger test, under a new plan",
        "a loss of {p.loss} is not ruled out",
        "no number of users would: the loss seen is as large as the margin",
    ),
    "more_users": ("{p.wait}", "{p.counted}", "{p.next_look}"),
    "open_windows": ("{p.wait}", "{p.counted}", "{p.next_look}"),
    "absent": ("{p.begin}", "{p.nothing}", "{p.of_layer}"),
    "stale": ("{p.begin}", "{p.made_for}", "{p.of_layer}"),
    "simulated": ("{p.begin}", "What stands here is simulated and decides nothing", "{p.of_layer}"),
    "failed_calls": (
        "Ask the failed calls again",
        "The verdict hangs on them",
        "one more run; only failed calls are made",
    ),
    "slices_warned": (
        "Collect more such examples",
        "{p.warned}",
        "no number of examples is known that would settle it at the rates seen",
    ),
    "more_of_it": (
        "{p.begin}, more of it",
        "What is there says: {p.layer.verdict}",
        "{p.of_layer}",
    ),
    "invalid": (
        "Mend the {p.layer.name}, then start it again",
        "Its result is invalid",
        "{p.of_layer}",
    ),
    "worse": ("{p.mend}, then repeat the {p.layer.name}", "{p.lost}", "{p.trained}"),
    "stands_against": (
        "{p.confirm}, or retire it: write `retired_evidence: {{{one.key}: why}}` into the study's rules_file",
        "{p.on_record}; nothing at the gate answers it",
        _REASON,
    ),
    "unconfirmed": (
        'Undo it, or say why it is all right: evalkit confirm STUDY "the reason"',
        "{p.changed}",
        _REASON,
    ),
    "declared_after_results": (
        "Put it back, or decide on a test set on which nobody has seen results",
        "{p.on_record}",
        "one line, or fresh examples",
    ),
    "plan_after_exposures": (
        "Lock a plan under a new experiment_name before its users come, and run the test",
        "{p.found}",
        "{p.again}",
    ),
    "not_whole_weeks": (
        "Let the test run on to whole weeks, then read it again",
        "{p.found}; weekdays may differ",
        "{p.weeks}",
    ),
    "plan_differs": (
        "Write the locked values into study.yaml, or amend the plan with a reason",
        "{p.found}",
        "minutes",
    ),
}


_ON_RECORD = (STANDS_AGAINST, UNCONFIRMED, "declared_after_results")


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
        DataError: It was read from a file of an earlier version, which does not have its numbers.
    """
    if one.kind == "":
        raise too_old(f"what the {layer.name} lacks" if layer else "what is missing")
    return Said(*(text.format(one=one, p=_Parts(one, layer)) for text in _SAID[one.kind]))


def written(
    lacking: Sequence[Missing], layer: LayerDecision | None = None
) -> list[dict[str, object]]:
    """Each with its words, for a file that people read."""
    return [
        in_words(one, layer)._asdict()
        | as_json(one)
        | ({"said": _Parts(one, layer).on_record} if one.kind in _ON_RECORD else {})
        for one in lacking
    ]


def next_look(users_more: int, days_more: int) -> str:
    """What the next look of an A/B test costs."""
    days = f"about {plural(days_more, 'day')}"
    if not users_more:
        return f"no more users, {days} until outcome windows have closed"
    return f"{plural(users_more, 'more user')}, {days}"


def _known(value: int | None) -> int:
    if value is None:
        raise too_old()
    return value


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of its sentences, made only where a sentence has them."""

    one: Missing
    of: LayerDecision | None

    @property
    def layer(self) -> LayerDecision:
        if self.of is None:
            raise too_old()
        return self.of

    @property
    def more(self) -> str:
        return count(_known(self.one.more))

    @property
    def needed(self) -> str:
        return count(_known(self.one.needed))

    @property
    def examples(self) -> str:
        return plural(_known(self.one.n), "example")

    @property
    def loss(self) -> str:
        return loss(self.one.margin, self.one.shown_as)

    @property
    def seen(self) -> str:
        if self.one.margin is not None:
            return f"{self.examples} do not rule out a loss of {self.loss}"
        return f"{self.examples} cannot tell a difference of the size seen from chance"

    @property
    def it(self) -> str:
        lossless = self.one.margin is None
        return "it" if lossless else f"that it is not worse by more than {self.loss}"

    @property
    def often(self) -> str:
        return times(self.one.chance or 0.0)

    # ---- slices

    @property
    def _open(self) -> tuple[OpenSlice, ...]:
        if not self.one.slices:
            raise too_old()
        return self.one.slices

    @property
    def slices(self) -> str:
        further = [plural(self.one.further, "more slice")] if self.one.further else []
        return listed([*(slice_.name for slice_ in self._open), *further])

    @property
    def losses(self) -> str:
        seen = [f"{a.name}: {amount(a.estimate, a.shown_as)} over {a.n}" for a in self._open]
        return f"{listed(seen)} {'example' if self._open[-1].n == 1 else 'examples'}"

    @property
    def more_of_each(self) -> str:
        more = [slice_.more for slice_ in self._open]
        noun = "example" if more == [1] else "examples"
        price = f"{listed([f'about {count(n)}' for n in more])} more {noun}"
        rest = "; the rest stands in the table of slices" if self.one.further else ""
        return price + rest

    # ---- people

    @property
    def preferred(self) -> str:
        items = plural(_known(self.one.n), "item")
        if self.one.margin is None:
            return f"{percent(self.one.estimate)} is not shown to differ from 50% with {items}"
        return f"a win rate below {percent(0.5 - self.one.margin)} is not ruled out with {items}"

    @property
    def pairs(self) -> str:
        return plural(_known(self.one.needed), "pair")

    @property
    def rate(self) -> str:
        return "Rate" if self.one.there is None else "Add examples to the test set, then rate"

    @property
    def only(self) -> str:
        if self.one.there is None:
            return ""
        return f"; the test set has only {plural(self.one.there, 'pair')} with different answers"

    @property
    def rating(self) -> str:
        if not _known(self.one.needed):
            return _FIRST_ROUND
        pace_s = self.one.pace_s
        minutes = _known(self.one.needed) * (pace_s or 60) / 60
        time = f"{number(minutes / 60, 1)} hours"
        if minutes < 90:
            time = plural(max(round(minutes), 1), "minute")
        pace = f"the {number(pace_s, 0)} s a pair of this round" if pace_s else "one a minute"
        return f"{self.pairs}, about {time} a rater at {pace}"

    @property
    def rate_seen(self) -> str:
        return f"{0.5 if self.one.estimate is None else self.one.estimate:g}"

    @property
    def first(self) -> str:
        left = _known(self.one.more)
        return f"{plural(left, 'rating')}, then" if left else "one command:"

    # ---- users

    @property
    def planned(self) -> str:
        return f"{self.needed} users, about {self.one.days} days"

    @property
    def wait(self) -> str:
        one = self.one
        action = "More users" if one.more else "Wait for outcomes"
        return action if one.looks == 1 else f"{action}, for look {one.look} of {one.looks}"

    @property
    def counted(self) -> str:
        so_far = f"{count(_known(self.one.n))} of {self.needed} planned users count so far"
        return f"{so_far}: those whose outcome window has closed"

    @property
    def next_look(self) -> str:
        return next_look(_known(self.one.more), _known(self.one.days))

    @property
    def again(self) -> str:
        days = self.one.days
        return f"{self.needed} users" + (f", about {plural(days, 'day')}" if days else "")

    @property
    def weeks(self) -> str:
        if not self.one.days:
            return "its whole weeks do not show the same: a new test"
        return f"about {plural(self.one.days, 'day')} more, when users keep coming"

    # ---- a layer at the gate

    @property
    def nothing(self) -> str:
        return ABSENT[self.layer.layer]

    @property
    def begin(self) -> str:
        return _BEGIN[self.layer.layer]

    @property
    def confirm(self) -> str:
        return _CONFIRM[self.layer.layer]

    @property
    def of_layer(self) -> str:
        """The price of a layer from its beginning."""
        if self.layer.layer == "benchmark":
            return "one run over the test set; its cost is printed before it starts"
        if self.layer.layer == "ab_test":
            return f"about {self.needed} users to show 30% becoming 35%, half of them on the fine-tuned model"
        what = "show a true 65%"
        if self.one.margin:
            lost = points(self.one.margin, sign=False)
            what = f"rule out a loss of {lost} points where both are alike"
        hours = f"{_known(self.one.needed) / 60:,.1f} rater hours at one a minute"
        return f"about {self.needed} decided ratings to {what}, {hours}"

    @property
    def warned(self) -> str:
        """The first slice that warns."""
        warned = [one for one in self.layer.slices if one.effect == "warns"]
        if not warned:
            raise too_old()
        return capital(found(warned[0], self.layer)).rstrip(".")

    @property
    def made_for(self) -> str:
        return made_for(self.layer)

    @property
    def on_record(self) -> str:
        """The result against the model, or the change, of this key."""
        for finding in self.layer.findings:
            row = finding.numbers
            if finding.rule != self.one.kind or not isinstance(row, OnRecord):
                continue
            if self.one.key in row.keys and row.change:
                return changed(row.change)
            for one in row.against or ():
                if one.key == self.one.key:
                    return against_said(one)
        if not self.one.said:
            raise too_old()
        return visible(self.one.said)  # all that earlier files have of it

    @property
    def changed(self) -> str:
        return capital(self.on_record).rstrip(".")

    @property
    def found(self) -> str:
        """What it would settle."""
        known = [a for a in self.layer.findings if a.missing == self.one]
        if not known:
            raise too_old()
        return found(known[0], self.layer)

    @property
    def mend(self) -> str:
        blocks = self.layer.told("blocks")
        if not blocks:
            return "Train another version"
        lost = any(a.is_loss or getattr(a.numbers, "verdict", "") == "worse" for a in blocks)
        return "Mend what got worse: train again" if lost else "Mend that"

    @property
    def lost(self) -> str:
        """What the layer shows worse."""
        blocks = self.layer.told("blocks")
        if not blocks:
            return f"The {self.layer.name} shows the fine-tuned model worse"
        told = listed([found(a, self.layer) for a in blocks])
        return f"The fine-tuned model is {told}" if blocks[0].is_loss else capital(told)

    @property
    def trained(self) -> str:
        n, unit = self.one.n, self.layer.unit
        then = f"then {count(n)} {unit} again" if n else "then this layer again"
        return f"a training run, {then}"
