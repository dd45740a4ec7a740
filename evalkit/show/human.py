"""What people said, shown: sentences, tables and figures of a rating round and of its result, made from the records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from textwrap import fill
from typing import TYPE_CHECKING

import pandas as pd
import seaborn as sns
from msgspec import structs

from evalkit import stats, wording
from evalkit.conversation import Conversation
from evalkit.evidence import HumanEvidence
from evalkit.human.preference import Preference
from evalkit.human.ratings import FAST_S, Check, RaterCheck
from evalkit.human.round import NOT_DRAWN, Otherwise, StudyRound, locked_before
from evalkit.show import style, tables
from evalkit.show.figure import picture
from evalkit.show.lacking import in_words
from evalkit.show.tables import Html, Row
from evalkit.show.tracks import Intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evalkit.benchmark.benchmark import Gaps

NO_RESULT = "No result yet"
_NO_ROUND = "There is no rating round yet."
_CURRENT = "The round was made from the current answers (the hashes match)."
_STALE = (
    "The round was made from other answers or another test set: it says nothing for the current ones. "
    "Name another rating_round in study.yaml to have them rated."
)
_PARTED = {
    True: "The interval reaches even, but the exact test shows a difference: the verdict follows the test.",
    False: "The interval lies on one side of even, but the exact test, which leaves ties out, shows no difference: "
    "the verdict follows the test.",
}
_SAID = {
    "fine_tuned": "Fine-tuned is better",
    "base": "Base is better",
    "tie": "About the same",
    "both_bad": "Both bad",
}
_RATER_RATES = {
    "Known winners found": "gold_rate",
    "Same on repeats": "self_agreement",
    "With the others": "others_rate",
    "Left chosen": "left_rate",
    "Under 3 s": "fast_rate",
}

# ---- a round


def rating_round(rating: StudyRound) -> Html:
    """What stands in a round, whether it was made from the present answers, and what it has otherwise than the study."""
    said = (described(rating), binding_said(rating), otherwise_said(rating))
    return tables.note(" ".join(one for one in said if one))


def prospects(rating: StudyRound) -> Html:
    """What so many pairs can show."""
    nothing = "Without a round there are no pairs to speak of."
    return tables.note(advice(rating.n_pairs) if rating.round else nothing)


def progress(rating: StudyRound) -> Html:
    """How far each rater is."""
    rows = [
        {
            "Rater": one.rater,
            "Rated": one.done,
            "Pairs": one.total,
            "Last vote (UTC)": wording.minute(one.last_at or "") or None,
        }
        for one in rating.progress()
    ]
    return tables.table(rows, caption="Progress by rater")


def no_rater(n_codes: int = 0) -> Html:
    """What stands where a rater would, when nobody can rate, or nobody of so many has said who rates."""
    if n_codes:
        which = f"your code, one of the {n_codes} on this round's list"
        return tables.note(f"To rate here, set the parameter rater to {which}, and run this again.")
    nobody = "Nobody sits in front of this run, or there is no round yet, so no rater is shown."
    return tables.note(nobody)


@tables.answer.register(StudyRound)
def _of_round(found: StudyRound, gaps: Gaps | None = None) -> Html:
    """`gaps` says what a round that was not drawn waits for."""
    return tables.answer(state_said(found, str(gaps or "")), simulated=found.simulated)


def advice(n_pairs: int) -> str:
    """What this many pairs can show, from the exact sign test's power."""
    shown = stats.sign_test_power(n_pairs, 0.6)
    needed = {rate: stats.ratings_needed(rate) for rate in (0.6, 0.65, 0.7)}
    return (
        f"{wording.plural(n_pairs, 'pair')} without ties can show a true win rate of 60% "
        f"with probability {wording.percent(shown, 0)}; "
        f"80% would need {needed[0.6]} pairs at 60%, {needed[0.65]} at 65%, {needed[0.7]} at 70%."
    )


def described(rating: StudyRound) -> str:
    """One sentence on what stands in a round."""
    if rating.round is None:
        return "No round was drawn."
    batch = rating.round.batch
    left_out = " and ".join(f"{count} with {why}" for why, count in batch.left_out.items() if count)
    people = wording.plural(len(batch.raters), "simulated rater" if batch.simulated else "rater")
    return (
        f"Round {rating.round.folder.name}: {wording.plural(len(batch), 'pair')} for {people}, {len(batch.repeats)} of them "
        f"shown twice, {len(batch.gold)} with a known winner; {len(batch.identical)} identical, counted as ties"
        f"{f'; left out: {left_out}' if left_out else ''}. Key sealed with sha256 {batch.key_sha256[:16]}..."
    )


def binding_said(rating: StudyRound) -> str:
    """Whether a round was made from the present answers."""
    return _NO_ROUND if rating.round is None else _CURRENT if rating.current else _STALE


def otherwise_said(rating: StudyRound) -> str:
    """What a study now says otherwise than the round it drew before, and how to change it; "" when nothing."""
    if rating.round is None or rating.otherwise == Otherwise():
        return ""
    now, batch, told = rating.otherwise, rating.round.batch, []
    if now.raters:
        raters = [wording.listed(list(one)) for one in (batch.raters, now.raters)]
        told.append(f"for {raters[0]} (not {raters[1]})")
    if now.n_pairs is not None:
        told.append(f"with {wording.plural(len(batch), 'pair')} (not {wording.count(now.n_pairs)})")
    if now.rubric:
        told.append("with another rubric")
    folder = f"data/{batch.study}/ratings/{rating.round.folder.name}"
    fresh = f"; nobody has voted yet: remove {folder} and run notebook 03, or"
    remedy = ";" if _voted(rating) else fresh
    return f"It was drawn {wording.listed(told)}{remedy} name another rating_round to change that."


def _voted(rating: StudyRound) -> bool:
    return any(one.done for one in rating.progress())


def state_said(rating: StudyRound, missing: str = "") -> str:
    """Where the round stands, and what comes next; `missing` says what a round that was not drawn waits for."""
    if rating.round is None:
        waits = missing if rating.not_drawn == "unanswered" else ""
        return f"{waits} {NOT_DRAWN[rating.not_drawn]}".strip()
    seen = rating.progress()
    done, total = sum(one.done for one in seen), sum(one.total for one in seen)
    who = "Simulated raters" if rating.simulated else "Raters"
    ratings = f"{who} have given {wording.count(done)} of {wording.plural(total, 'rating')}"
    if not rating.current:
        return f"{ratings}. {binding_said(rating)}"
    if not _voted(rating) and (otherwise := otherwise_said(rating)):
        return f"{ratings}. The round is not as study.yaml says now. {otherwise}"
    if rating.round.locked:
        return f"{ratings}, and the round is locked: see notebook 04 for what they prefer."
    if done < total:
        return f"{ratings}. The round is open."
    study = rating.round.batch.study
    return f"{ratings}. Lock the round (evalkit rate {study} --lock) to see the result."


# ---- a result


def seal(found: Preference) -> Html:
    """When the round was locked, that nothing changed since, and whether it was made from the present answers."""
    bound = _STALE if found.stale else _CURRENT if found.round else _NO_ROUND
    return tables.note(f"{seal_said(found)} {bound}")


def win_rate(found: Preference) -> Html:
    """The win rate in every way it was counted, against an even split."""
    return _figure(found, win_rates(found))


def votes(found: Preference) -> Html:
    """First-time votes by label."""
    total = sum(found.labels.values())
    rows = [
        {"Said": _SAID[label], "Votes": n, "Share": wording.percent(n / total if total else None)}
        for label, n in found.labels.items()
    ]
    return _table(found, "First-time votes, decoded", rows, numeric=["Share"])


def length(found: Preference) -> Html:
    """What remains at equal length."""
    return tables.note(length_said(found))


def population(found: Preference) -> Html:
    """For whom the result speaks."""
    return tables.note(population_said(found))


def sides(found: Preference) -> Html:
    """What a place on the screen did."""
    return _figure(found, side_rates(found))


def agreement(found: Preference) -> Html:
    """How far raters agree with each other and with themselves."""
    return _figure(found, agreements(found))


def raters(found: Preference) -> Html:
    """Each rater with everything that is checked."""
    rows = [
        {
            "Rater": one.rater,
            "Votes": one.votes,
            "Fine-tuned wins": wording.percent(found.by_rater[one.rater].estimate, 0),
            **{told: wording.percent(getattr(one, name), 0) for told, name in _RATER_RATES.items()},
            "Median seconds": wording.number(one.median_s, 1),
            "Flags": "; ".join(flag_said(one, flag) for flag in one.flags) or "nothing stands out",
        }
        for one in found.raters
    ]
    numeric = ["Fine-tuned wins", *_RATER_RATES, "Median seconds"]
    return _table(found, raters_title(found), rows, numeric=numeric)


def preference_slices(found: Preference) -> Html:
    """The win rate within each slice."""
    return _figure(found, slice_rates(found))


def reasons(found: Preference) -> Html:
    """How often each reason came with a vote for either model."""
    title = f"{reasons_title(found)}."
    if not any(one.fine_tuned + one.base for one in found.reasons):
        return tables.note(title)
    counts = [
        f"{one.reason}: {one.fine_tuned} fine-tuned, {one.base} base." for one in found.reasons
    ]
    caption = "Counts of votes; a vote may name several reasons or none."
    alt = " ".join([title, *counts])
    return picture(draw_reasons, found, alt=alt, caption=caption, simulated=found.simulated)


def metric_agreement(found: Preference) -> Html:
    """How often each metric names the model that people name."""
    rows = [
        {
            "Metric": wording.label(one.metric),
            "Same model": wording.share(one.agreement.successes, one.agreement.n),
            "Interval": wording.ends_of(one.agreement) if one.agreement.n else wording.NOTHING,
            "Metric undecided": one.undecided_by_metric,
        }
        for one in found.metrics
    ]
    return _table(found, metrics_title(found), rows, numeric=["Same model", "Interval"])


def disagreements(found: Preference) -> Html:
    """The pairs on which people and the metric part most, side by side."""
    rows = [
        {
            "Example": one.example_id,
            "Input": Conversation(one.base.prompt),
            "Expected": one.base.expected_text,
            "Base answer": one.base.predicted,
            "Fine-tuned answer": one.fine_tuned.predicted,
            "People prefer": "fine-tuned" if one.people > 0 else "base",
            "Metric's gain, points": wording.points(one.metric),
        }
        for one in found.disagreements
    ]
    return _table(found, disagreements_title(found), rows)


def titled(title: str, found: Preference) -> str:
    """A title for a figure of one's own: it says so when nothing may be shown yet, and when the raters are simulated."""
    title = f"{title}: {NO_RESULT.lower()}" if found.withheld else title
    return f"{title.rstrip('.')} (simulated)" if found.simulated else title


def _table(
    found: Preference, title: str, rows: Iterable[Row], *, numeric: Sequence[str] = ()
) -> Html:
    caption = f"{title.rstrip('.')} (simulated)" if found.simulated else title
    return tables.table(rows, caption=caption, numeric=numeric)


@tables.answer.register(Preference)
def _of_preference(found: Preference) -> Html:
    return tables.answer(answer_said(found), simulated=found.simulated)


# ---- a result, in sentences


def answer_said(found: Preference) -> str:
    """The chapter's answer."""
    lacks = map(in_words, found.missing)
    missing = " ".join(f"{one.action}: {one.why}. Price: {one.price}." for one in lacks)
    if found.withheld:
        return f"{withheld_said(found)} {missing}" if found.stale else withheld_said(found)
    result = found.win_rate
    if result.estimate is None:
        return f"{headline(found)}. {missing}"
    parted = _PARTED[result.verdict != "no difference shown"] if result.parts_from_interval else ""
    asked = result.n - found.identical
    raters = f" {wording.plural(len(found.raters), 'rater')}," if found.raters else ""
    same = (
        f" rated and {wording.count(found.identical)} identical, ties unasked"
        if found.identical
        else ""
    )
    pairs = f"{wording.plural(asked, 'pair')}{same}"
    figures = (
        f"{wording.interval_of(result)}, {pairs},{raters} p {wording.p_phrase(result.p_decides)}."
    )
    who = "Simulated raters, not people:" if found.simulated else ""
    said = (who, headline(found), figures, parted, missing)
    return " ".join(part for part in said if part)


def withheld_said(found: Preference) -> str:
    """Why nothing is shown yet."""
    if found.withheld == "no round":
        return "No rating round was drawn yet: name the raters in study.yaml, then run notebook 03_rate."
    done, total = (sum(getattr(one, name) for one in found.progress) for name in ("done", "total"))
    return f"The round is open: {done} of {total} ratings are in. Results open when it is locked."


def headline(found: Preference) -> str:
    """The title of the main figure."""
    result = found.win_rate
    if found.withheld or result.estimate is None:
        return NO_RESULT
    said = _preferred(found) if found.raters else _nobody_asked(found)
    return f"Votes on other answers, not on the present ones. {said}" if found.stale else said


def _preferred(found: Preference) -> str:
    rate, least = wording.percent(found.win_rate.estimate), _least(found)
    who, s = wording.plural(len(found.raters), "rater"), "" if len(found.raters) > 1 else "s"
    won = f"they win {rate} of pairs, a tie counted half."
    return {
        "not worse": f"{who} prefer{s} the replacement’s answers in no less than {least} of pairs: {won}",
        "not shown": f"Not shown that the replacement is no worse: that {who} prefer{s} its answers in less than {least} "
        f"of pairs is not ruled out; {won}",
        "better": f"{who} prefer{s} the fine-tuned answers: {won}",
        "worse": f"{who} prefer{s} the base answers: the fine-tuned ones win {rate} of pairs, a tie counted half.",
    }.get(
        found.conclusion,
        f"No preference of {who} shown: the fine-tuned answers win {rate} of pairs, a tie counted half.",
    )


def _nobody_asked(found: Preference) -> str:
    """Where ties alone make the result."""
    pairs = wording.plural(found.identical, "pair")
    why = f"nobody was asked, as both answers are identical in each of {pairs}, a tie counted half."
    return {
        "not worse": f"The replacement’s answers win no less than {_least(found)} of pairs: {why}",
        "not shown": f"Not shown that the replacement is no worse: a win rate below {_least(found)} is not ruled out; {why}",
    }.get(found.conclusion, f"No preference shown: {why}")


def _least(found: Preference) -> str:
    """The win rate that is still accepted."""
    return wording.percent(0.5 - (found.margin or 0.0))


def sides_title(found: Preference) -> str:
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


def agreement_title(found: Preference) -> str:
    """How far do raters agree?"""
    if found.withheld:
        return NO_RESULT
    result = found.agreement
    if result.percent_agreement is None:
        return "No pair was rated by two people, so agreement is not known"
    pairs = f"Raters agree on {wording.percent(result.percent_agreement)} of shared judgements"
    return f"{pairs}, {wording.number(result.estimate)} beyond chance (Krippendorff's alpha)"


def reasons_title(found: Preference) -> str:
    """Which reason was named most, and in whose votes? A reason may be a fault, so it speaks for nobody."""
    if found.withheld:
        return NO_RESULT
    top = max(found.reasons, key=lambda one: one.fine_tuned + one.base, default=None)
    if top is None or not top.fine_tuned + top.base:
        ties = any(one.neither for one in found.reasons)
        neither = "Reasons were given only with votes for neither answer"
        return neither if ties else "No reasons were given"
    votes = wording.plural(top.fine_tuned, "vote")
    return f'"{top.reason}" was named most: in {votes} for the fine-tuned answer and {top.base} for the base'


def slices_title(found: Preference) -> str:
    """Where does the preference differ?"""
    if found.withheld:
        return NO_RESULT
    if not found.slices:
        return "No slices were declared"
    shown = [one for one in found.slices if one.shown]
    if not shown:
        return f"No single slice shows a preference of its own, of {len(found.slices)}"
    names = [f"{one.slice} ({wording.percent(one.result.estimate)})" for one in shown]
    return f"A preference is shown in {wording.listed(names)}"


def raters_title(found: Preference) -> str:
    """Which raters look careless, and what the result is without them."""
    if found.withheld:
        return f"{NO_RESULT}."
    if not found.raters:
        return "No votes to check."
    names, without = [one.rater for one in found.raters if one.flags], found.without_flagged
    if not names:
        return "No rater looks careless by these checks."
    rest = "Nobody is left without them"
    if without:
        rest = f"Without them: {wording.percent(without.estimate)}, {found.concluded(without)}"
    return f"Looks careless: {wording.listed(names)}. Nothing was dropped. {rest}."


def flag_said(rater: RaterCheck, flag: Check) -> str:
    """What a check found that looks careless."""
    test = rater.tests[flag]
    counted, rate = wording.share(test.successes, test.n), wording.percent(test.rate, 0)
    told = {
        "gold": f"finds {counted} of the known winners",
        "repeats": f"judges the same again on {counted} repeats",
        "left": f"chooses left in {rate} of decided votes",
        "fast": f"votes in under {FAST_S:g} s {rate} of the time",
        "others": f"agrees with the others on {counted}, no more than by chance",
    }
    return f"{told[flag]} (p {wording.p_phrase(test.p_value)})"


def written(record: HumanEvidence, found: Preference) -> HumanEvidence:
    """The record as its file has it: with words beside the kinds, for people who open it."""
    told, details = {one.rater: one for one in found.raters}, record.details
    raters = tuple(
        structs.replace(
            one,
            flags=tuple(flag_said(told[one.rater], flag) for flag in told[one.rater].flags),
            reported=one.reported | {"flag_kinds": [*one.flags]},
        )
        for one in details.raters
    )
    why = {"withheld": withheld_said(found)} if found.withheld else {}
    details = structs.replace(details, raters=raters, reported=details.reported | why)
    return replace(record, details=details)


def length_said(found: Preference) -> str:
    """What remains at equal length."""
    if found.withheld:
        return f"{NO_RESULT}."
    result = found.length_adjusted
    if result is None or result.estimate is None:
        why = "; ".join(result.notes if result else ()) or "no votes yet"
        return f"The preference at equal length is not known: {why}."
    votes = wording.plural(result.near_n, "vote")
    near = f" Among the {votes} on pairs of nearly equal length {wording.percent(result.near_rate)} do."
    doubts = {
        f"only {votes} on pairs of nearly equal length: the value rests on the fitted curve": result.near_is_few,
        "the fitted value lies outside the interval of the pairs of nearly equal length": result.off_near,
    }
    unsure = [doubt for doubt, holds in doubts.items() if holds]
    explained = " Length may explain the preference." if result.explains else ""
    return (
        f"At equal length {wording.percent(result.estimate)} of decided votes would go to the fine-tuned answer "
        f"({wording.interval_of(result)}); as they are, {wording.percent(result.raw_rate)} do.{explained}{near}"
        f"{f' Read with care: {wording.listed(unsure)}.' if unsure else ''}"
    )


def population_said(found: Preference) -> str:
    """For whom the result speaks."""
    if found.withheld:
        return f"{NO_RESULT}."
    test, n_raters = found.rater_sample, len(found.raters)
    if not n_raters:
        return "The result above speaks of no rater: nobody was asked."
    who = "this rater" if n_raters == 1 else f"these {wording.plural(n_raters, 'rater')}"
    spoken = f"The result above speaks of {who}."
    if test.p_value is None:
        return f"{spoken} For others like them nothing can be said: {'; '.join(test.notes)}."
    shown = {"better": "prefer the fine-tuned answers", "worse": "prefer the base answers"}
    said = shown.get(test.verdict, "are not shown to prefer either")
    return (
        f"{spoken} Taken as a sample, with tastes of their own, raters like them {said}: "
        f"{wording.percent(test.estimate)} of the pairs all of them judged "
        f"({wording.interval_of(test)}, p {wording.p_phrase(test.p_value)})."
    )


def seal_said(found: Preference) -> str:
    """When the round was locked and that nothing changed since."""
    record = found.lock
    if record is None:
        return withheld_said(found)
    state = "every rater had finished" if record["complete"] else "some raters had not finished"
    return (
        f"Locked {wording.minute(record['locked_at'])} UTC, {state}. The key's sha256 {record['key_sha256'][:16]}... matches "
        f"the batch; batch and votes are unchanged since.{locked_before(record)}"
    )


def metrics_title(found: Preference) -> str:
    """The title above the metrics' agreement with people."""
    return _not_compared(found) or "Agreement of each metric with people"


def disagreements_title(found: Preference) -> str:
    """The title above the pairs on which people and the metric part."""
    part = "eople and the metric prefer different answers"
    return _not_compared(found) or (f"P{part}" if found.disagreements else f"On no pair do p{part}")


def _not_compared(found: Preference) -> str:
    if found.withheld:
        return "Not compared with the benchmark before the round is locked"
    return "Not compared with the benchmark: the votes are on other answers" if found.stale else ""


# ---- a result, drawn


def _figure(found: Preference, figure: Intervals) -> Html:
    said = {"alt": figure.alt, "caption": figure.caption, "simulated": found.simulated}
    return picture(figure.draw, **said)


def win_rates(found: Preference) -> Intervals:
    """The fine-tuned model's win rate against an even split, in every way it was counted."""
    rows = {
        "All pairs": found.win_rate,
        "Only pairs shown": found.asked_only,
        "Without flagged raters": found.without_flagged,
        "At equal length": found.length_adjusted,
        "Raters like these": found.rater_sample,
    }
    least = 0.5 - (found.margin or 0.0)
    caption = "the interval is for display, the verdict follows the test."
    if found.margin is not None:
        caption = f"the whole interval must keep above the margin, {wording.percent(least)}."
    return Intervals(
        title=headline(found),
        rows=rows,
        axis="Share won by the fine-tuned answer, a tie counted half",
        axis_narrow="Share won by the fine-tuned answer",
        caption=f"{found.win_rate.method}; {caption}",
        kinds={name: found.concluded(one) for name, one in rows.items() if one is not None},
        zone=least,
    )


def side_rates(found: Preference) -> Intervals:
    """What a place on the screen did: left chosen, and the fine-tuned model's wins on either side."""
    fair = found.position.verdict in {"no difference shown", "too early"}
    return Intervals(
        title=sides_title(found),
        rows={
            "Left chosen": found.position,
            "Fine-tuned wins, on the left": found.as_left,
            "Fine-tuned wins, on the right": found.as_right,
        },
        axis="Share of decided votes",
        caption="Exact binomial test; Wilson intervals.",
        kinds={"Left chosen": "unsure" if fair else "worse"},
    )


def agreements(found: Preference) -> Intervals:
    """How far raters agree with each other and with themselves."""
    return Intervals(
        title=agreement_title(found),
        rows={
            "Between raters, beyond chance": found.agreement,
            "With themselves, on repeats": found.self_agreement,
        },
        axis="Agreement; 0% is chance for the first row, 100% is perfect",
        axis_narrow="0% is chance for the first row",
        caption="Krippendorff's alpha on decoded labels, bootstrap over pairs; Wilson interval for repeats.",
        low=min(0.0, found.agreement.ci_low or 0.0),
        even=None,
    )


def slice_rates(found: Preference) -> Intervals:
    """The win rate within each slice; hollow unless shown after Holm."""
    return Intervals(
        title=slices_title(found),
        rows={one.slice: one.result for one in found.slices},
        axis="Share won by the fine-tuned answer",
        caption="Holm over all slices; below 30 pairs the exact sign test on pairs.",
        kinds={one.slice: one.result.verdict if one.shown else "unsure" for one in found.slices},
        zone=0.5,
    )


def draw_reasons(found: Preference, *, narrow: bool = False) -> Axes:
    """How often each reason came with a vote for either model."""
    given = sorted(found.reasons, key=lambda one: -(one.fine_tuned + one.base))
    width = 18 if narrow else 34
    rows = [
        (fill(wording.visible(one.reason), width, break_on_hyphens=False), role, votes)
        for one in given
        for role, votes in (("fine-tuned", one.fine_tuned), ("base", one.base))
    ]
    data = pd.DataFrame(rows, columns=["reason", "model", "votes"]).astype({"votes": int})
    _, ax = style.canvas(0.9 + 0.62 * max(len(given), 1), narrow=narrow)
    models = {"fine-tuned": style.COLOURS["fine_tuned"], "base": style.COLOURS["base"]}
    look = {"saturation": 1, "width": 0.64, "gap": 0.08, "legend": False, "errorbar": None}
    sns.barplot(data, x="votes", y="reason", hue="model", palette=models, **look, ax=ax)
    for bars, model in zip(ax.containers, models, strict=False):
        ax.bar_label(bars, fmt=f"%d {model}", padding=3, size=9, color=style.COLOURS["muted"])  # pyright: ignore[reportArgumentType]
    ax.set_xlim(0, max([*data["votes"], 1]) * (1.5 if narrow else 1.2))
    ax.locator_params(axis="x", integer=True)
    ax.set(xlabel="Votes that name the reason", ylabel="")
    return style.titled(ax, reasons_title(found), narrow=narrow)
