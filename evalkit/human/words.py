"""What a round says, in sentences: titles, alternative texts and the answer, all computed from the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.human.preference import Preference

if TYPE_CHECKING:
    from evalkit.stats.result import Result

NO_RESULT = "No result yet"


def answer(found: Preference) -> str:
    """The chapter's answer."""
    if found.withheld:
        return f"{found.withheld} {missing(found)}" if found.stale else found.withheld
    if found.win_rate.estimate is None:
        return f"{headline(found)}. {missing(found)}"
    parted = " ".join(
        f"{note[:1].upper()}{note[1:]}."
        for note in found.win_rate.notes
        if "verdict follows" in note
    )
    said = (_who(found), headline(found), _figures(found), parted, missing(found))
    return " ".join(part for part in said if part)


def headline(found: Preference) -> str:
    """The title of the main figure."""
    result = found.win_rate
    if found.withheld or result.estimate is None:
        return NO_RESULT
    rate = wording.percent(result.estimate)
    who, s = wording.plural(len(found.raters), "rater"), "" if len(found.raters) > 1 else "s"
    said = {
        "better": f"{who} prefer{s} the fine-tuned answers: they win {rate} of pairs, a tie counted half.",
        "worse": f"{who} prefer{s} the base answers: the fine-tuned ones win {rate} of pairs, a tie counted half.",
    }.get(
        result.verdict,
        f"No preference{f' of {who}' if found.raters else ''} shown: "
        f"the fine-tuned answers win {rate} of pairs, a tie counted half.",
    )
    return f"Votes on other answers, not on the present ones. {said}" if found.stale else said


def sides(found: Preference) -> str:
    """Did it matter which side an answer stood on?"""
    if found.withheld:
        return NO_RESULT
    bias = found.position
    if bias.estimate is None:
        return "No decided votes yet"
    left = f"left was chosen in {wording.percent(bias.estimate)} of {wording.plural(bias.n, 'decided vote')}"
    if bias.verdict == "no difference shown":
        return f"No side is shown to be favoured: {left}"
    return f"Raters favour the {'left' if bias.verdict == 'better' else 'right'}: {left}; sides are balanced, so it cancels"


def agreement(found: Preference) -> str:
    """How far do raters agree?"""
    if found.withheld:
        return NO_RESULT
    result = found.agreement
    if result.percent_agreement is None:
        return "No pair was rated by two people, so agreement is not known"
    pairs = f"Raters agree on {wording.percent(result.percent_agreement)} of shared judgements"
    return f"{pairs}, {wording.number(result.estimate)} beyond chance (Krippendorff's alpha)"


def reasons(found: Preference) -> str:
    """Which reason was named most, and in whose votes? A reason may be a fault, so it speaks for nobody."""
    if found.withheld:
        return NO_RESULT
    given = [one for one in found.reasons if one.fine_tuned + one.base]
    if not given:
        ties = any(one.neither for one in found.reasons)
        return (
            "Reasons were given only with votes for neither answer"
            if ties
            else "No reasons were given"
        )
    top = max(given, key=lambda one: one.fine_tuned + one.base)
    votes = wording.plural(top.fine_tuned, "vote")
    return f'"{top.reason}" was named most: in {votes} for the fine-tuned answer and {top.base} for the base'


def reasons_to_draw(found: Preference) -> bool:
    """Whether any reason came with a vote for either answer."""
    return any(one.fine_tuned + one.base for one in found.reasons)


def slices(found: Preference) -> str:
    """Where does the preference differ?"""
    if found.withheld:
        return NO_RESULT
    names = [
        f"{one.slice} ({wording.percent(one.result.estimate)})" for one in found.slices if one.shown
    ]
    if not found.slices:
        return "No slices were declared"
    if not names:
        return f"No single slice shows a preference of its own, of {len(found.slices)}"
    return f"A preference is shown in {wording.listed(names)}"


def flagged(found: Preference) -> str:
    """Which raters look careless, and what the result is without them."""
    if found.withheld:
        return f"{NO_RESULT}."
    if not found.raters:
        return "No votes to check."
    names, without = [one.rater for one in found.raters if one.flags], found.without_flagged
    if not names:
        return "No rater looks careless by these checks."
    rest = (
        f"Without them: {wording.percent(without.estimate)}, {without.verdict}"
        if without
        else "Nobody is left without them"
    )
    return f"Looks careless: {wording.listed(names)}. Nothing was dropped. {rest}."


def length(found: Preference) -> str:
    """What remains at equal length."""
    if found.withheld:
        return f"{NO_RESULT}."
    result = found.length_adjusted
    if result is None or result.estimate is None:
        return f"The preference at equal length is not known: {'; '.join(getattr(result, 'notes', ())) or 'no votes yet'}."
    votes = wording.plural(result.near_n, "vote")
    near = f" Among the {votes} on pairs of nearly equal length {wording.percent(result.near_rate)} do."
    unsure = [note for note in result.notes if "equal length" in note]
    explained = " Length explains the preference." if result.explains else ""
    return (
        f"At equal length {wording.percent(result.estimate)} of decided votes would go to the fine-tuned answer "
        f"({_limits(result)}); as they are, {wording.percent(result.raw_rate)} do.{explained}{near}"
        f"{f' Read with care: {wording.listed(unsure)}.' if unsure else ''}"
    )


def population(found: Preference) -> str:
    """For whom the result speaks."""
    if found.withheld:
        return f"{NO_RESULT}."
    test, who = found.rater_sample, wording.plural(len(found.raters), "rater")
    spoken = (
        f"The result above speaks of {'this rater' if len(found.raters) == 1 else f'these {who}'}."
    )
    if test.p_value is None:
        return f"{spoken} For others like them nothing can be said: {'; '.join(test.notes)}."
    shown = {"better": "prefer the fine-tuned answers", "worse": "prefer the base answers"}
    said = shown.get(test.verdict, "are not shown to prefer either")
    return (
        f"{spoken} Taken as a sample, with tastes of their own, raters like them {said}: "
        f"{wording.percent(test.estimate)} of the pairs all of them judged "
        f"({_limits(test)}, p {wording.p_phrase(test.p_value)})."
    )


def missing(found: Preference) -> str:
    """What would settle it, priced."""
    return " ".join(f"{one.action}: {one.why}. Price: {one.price}." for one in found.missing)


def alt(title: str, rows: Mapping[str, Result | None]) -> str:
    """A figure's alternative text: its title, and each row's name with its numbers."""
    spoken = [
        f"{name}: {_level(one, one.estimate)} ({_limits(one)}, n = {wording.count(one.n)})."
        for name, one in rows.items()
        if one is not None and one.estimate is not None
    ]
    return " ".join([title.rstrip(".") + ".", *spoken])


def win_rate_rows(found: Preference) -> dict[str, Result | None]:
    """The win rate in every way it was counted."""
    return {
        "All pairs": found.win_rate,
        "Only pairs shown": found.asked_only,
        "Without flagged raters": found.without_flagged,
        "At equal length": found.length_adjusted,
        "Raters like these": found.rater_sample,
    }


def side_rows(found: Preference) -> dict[str, Result | None]:
    """What a place on the screen did."""
    rows = {"Left chosen": found.position, "Fine-tuned wins, on the left": found.as_left}
    return {**rows, "Fine-tuned wins, on the right": found.as_right}


def agreement_rows(found: Preference) -> dict[str, Result | None]:
    """Agreement of raters with each other and with themselves."""
    return {
        "Between raters, beyond chance": found.agreement,
        "With themselves, on repeats": found.self_agreement,
    }


def slice_rows(found: Preference) -> dict[str, Result | None]:
    """The win rate within each slice."""
    return {f"{one.slice} (n = {one.result.n})": one.result for one in found.slices}


def lock(found: Preference) -> str:
    """When the round was locked and that nothing changed since."""
    if found.withheld:
        return found.withheld
    record = found.lock
    state = "every rater had finished" if record["complete"] else "some raters had not finished"
    return (
        f"Locked {record['locked_at']}, {state}. The key's sha256 {record['key_sha256'][:16]}... matches the batch; "
        f"batch and votes are unchanged since.{locked_before(record)}"
    )


def locked_before(record: Mapping[str, Any]) -> str:
    """What a lock tells of an earlier one that was removed; "" when there was none."""
    times = record.get("locked_before", ())
    return (
        f" It had been locked before ({wording.listed(list(times))}) and was opened again by removing that lock: "
        "votes may have been given after results were seen."
        if times
        else ""
    )


def titled(title: str, found: Preference) -> str:
    """A table's caption, which says so when the raters are simulated."""
    return f"{title.rstrip('.')} (simulated)" if found.simulated else title


def metrics(found: Preference) -> str:
    """The title above the metrics' agreement with people."""
    return _not_compared(found) or "Agreement of each metric with people"


def disagreements(found: Preference) -> str:
    """The title above the pairs on which people and the metric part."""
    some = "People and the metric prefer different answers"
    return _not_compared(found) or (
        some
        if found.disagreements
        else "On no pair do people and the metric prefer different answers"
    )


def _who(found: Preference) -> str:
    return "Simulated raters, not people:" if found.simulated else ""


def _not_compared(found: Preference) -> str:
    if found.withheld:
        return "Not compared with the benchmark before the round is locked"
    return "Not compared with the benchmark: the votes are on other answers" if found.stale else ""


def _figures(found: Preference) -> str:
    result = found.win_rate
    identical = (
        f"; {wording.plural(found.identical, 'pair')} with identical answers counted as ties unasked"
        if found.identical
        else ""
    )
    return (
        f"{_limits(result)}, {wording.plural(result.n, 'pair')}, {wording.plural(len(found.raters), 'rater')}, "
        f"p {wording.p_phrase(result.p_decides)}{identical}."
    )


def _limits(result: Result) -> str:
    low, high = _level(result, result.ci_low), _level(result, result.ci_high)
    return f"{(1 - result.alpha) * 100:g}% interval {low} to {high}"


def _level(result: Result, value: float | None) -> str:
    return wording.number(value) if result.scale == "number" else wording.percent(value)
