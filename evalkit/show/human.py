"""What people said, shown: sentences, tables and figures of a rating round and of its result, made from the records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps

from msgspec import structs

from evalkit import stats, wording
from evalkit.conversation import Conversation
from evalkit.evidence import HumanEvidence
from evalkit.human.preference import Preference
from evalkit.human.ratings import FAST_S, Check, RaterCheck
from evalkit.human.round import NOT_DRAWN, StudyRound, locked_before
from evalkit.show import tables
from evalkit.show.figure import picture
from evalkit.show.lacking import in_words
from evalkit.show.tables import Html
from evalkit.show.tracks import Intervals

NO_RESULT = "No result yet"
_CURRENT = "The round was made from the current answers (the hashes match)."
_STALE = (
    "The round was made from other answers or another test set: it says nothing for the current ones. "
    "Name another rating_round in study.yaml to have them rated."
)
_STALE_VOTES = "Not compared with the benchmark: the votes are on other answers"
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
    if rating.round is None:
        return tables.note("No round was drawn.")
    batch = rating.round.batch
    left_out = " and ".join(f"{count} with {why}" for why, count in batch.left_out.items() if count)
    people = wording.plural(len(batch.raters), "simulated rater" if batch.simulated else "rater")
    said = (
        f"Round {rating.round.folder.name}: {wording.plural(len(batch), 'pair')} for {people}, {len(batch.repeats)} of them "
        f"shown twice, {len(batch.gold)} with a known winner; {len(batch.identical)} identical, counted as ties"
        f"{f'; left out: {left_out}' if left_out else ''}. Key sealed with sha256 {batch.key_sha256[:16]}...",
        _CURRENT if rating.current else _STALE,
        otherwise_said(rating),
    )
    return tables.note(" ".join(filter(None, said)))


def prospects(rating: StudyRound) -> Html:
    """What so many pairs can show."""
    none = "Without a round there are no pairs to speak of."
    return tables.note(advice(rating.n_pairs) if rating.n_pairs else none)


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


def no_rater() -> Html:
    """What stands where a rater would, when nobody can rate or nobody of several has said who rates."""
    return tables.note(
        "No rater is shown: there is no round, nobody sits in front of this run, or several rate and none is named. "
        "To rate here, set the parameter rater to your code."
    )


@tables.answer.register(StudyRound)
def _of_round(found: StudyRound, gaps: object = None) -> Html:
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


def otherwise_said(rating: StudyRound) -> str:
    """What a study now says otherwise than the round it drew before, and how to change it; "" when nothing."""
    if rating.round is None or not rating.otherwise:
        return ""
    folder = f"data/{rating.round.batch.study}/ratings/{rating.round.folder.name}"
    return (
        f"Since it was drawn the study changed {wording.listed([*rating.otherwise])}. To draw it anew, name another "
        f"rating_round; while nobody has voted, removing {folder} does it too."
    )


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
        return f"{ratings}. {_STALE}"
    if rating.round.locked:
        return f"{ratings}, and the round is locked: see notebook 04 for what they prefer."
    if done < total:
        return f"{ratings}. The round is open. {otherwise_said(rating)}".strip()
    study = rating.round.batch.study
    return f"{ratings}. Lock the round (evalkit rate {study} --lock) to see the result."


# ---- a result


def seal(found: Preference) -> Html:
    """When the round was locked, that nothing changed since, and whether it was made from the present answers."""
    record, bound = found.lock, _STALE if found.stale else _CURRENT if found.round else ""
    if record is None:
        return tables.note(f"{withheld_said(found)} {bound}".strip())
    state = "every rater had finished" if record["complete"] else "some raters had not finished"
    return tables.note(
        f"Locked {wording.minute(record['locked_at'])} UTC, {state}. The key's sha256 {record['key_sha256'][:16]}... matches "
        f"the batch; batch and votes are unchanged since.{locked_before(record)} {bound}"
    )


def votes(found: Preference) -> Html:
    """First-time votes by label."""
    total = sum(found.labels.values())
    rows = [
        {"Said": _SAID[label], "Votes": n, "Share": wording.percent(n / total if total else None)}
        for label, n in found.labels.items()
    ]
    caption = titled("First-time votes, decoded", found)
    return tables.table(rows, caption=caption, numeric=["Share"])


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
    return tables.table(rows, caption=titled(raters_title(found), found), numeric=numeric)


def reasons(found: Preference) -> Html:
    """How often each reason came with a vote for either model; a vote may name several reasons or none."""
    given = sorted(found.reasons, key=lambda one: -(one.fine_tuned + one.base))
    rows = [
        {"Reason": one.reason, "Fine-tuned": one.fine_tuned, "Base": one.base, "Tie": one.neither}
        for one in given
    ]
    return tables.table(rows, caption=titled(reasons_title(found), found))


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
    title = _STALE_VOTES if found.stale else "Agreement of each metric with people"
    numeric = ["Same model", "Interval"]
    return tables.table(rows, caption=titled(title, found), numeric=numeric)


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
    said = "Pairs on which people and the metric prefer different answers"
    return tables.table(rows, caption=titled(_STALE_VOTES if found.stale else said, found))


def titled(title: str, found: Preference) -> str:
    """A title for a figure of one's own: it says so when nothing may be shown yet, and when the raters are simulated."""
    title = f"{title.rstrip('.')}: {NO_RESULT.lower()}" if found.withheld else title
    return f"{title.rstrip('.')} (simulated)" if found.simulated else title


def _figure(of: Callable[[Preference], Intervals]) -> Callable[[Preference], Html]:
    """What shows the figure that is made of a result."""

    @wraps(of)
    def shown(found: Preference) -> Html:
        figure = of(found)
        said = {"alt": figure.alt, "caption": figure.caption, "simulated": found.simulated}
        return picture(figure.draw, **said)

    return shown


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
    result, figures, parted = found.win_rate, "", ""
    if result.estimate is None:
        return f"{headline(found)}. {missing}"
    asked, identical = result.n - found.identical, wording.count(found.identical)
    pairs = wording.plural(asked, "pair")
    pairs += f" rated and {identical} identical, ties unasked" if found.identical else ""
    pairs += f", {wording.plural(len(found.raters), 'rater')}" if found.raters else ""
    figures = f"{wording.interval_of(result)}, {pairs}, p {wording.p_phrase(result.p_decides)}."
    if result.parts_from_interval:
        parted = (
            "Interval and exact test, which leaves ties out, part: the verdict follows the test."
        )
    who = "Simulated raters, not people:" if found.simulated else ""
    return " ".join(filter(None, (who, headline(found), figures, parted, missing)))


def withheld_said(found: Preference) -> str:
    """Why nothing is shown yet."""
    if found.withheld == "no round":
        return "No rating round was drawn yet: name the raters in study.yaml, then run notebook 03_rate."
    done, total = (sum(getattr(one, name) for one in found.progress) for name in ("done", "total"))
    return f"The round is open: {done} of {total} ratings are in. Results open when it is locked."


def headline(found: Preference) -> str:
    """The title of the main figure."""
    result, n_raters = found.win_rate, len(found.raters)
    if found.withheld or result.estimate is None:
        return NO_RESULT
    who = f"{wording.plural(n_raters, 'rater')} prefer{'s' if n_raters == 1 else ''}"
    least = wording.percent(0.5 - (found.margin or 0.0))
    said = {
        "better": f"{who} the fine-tuned answers",
        "worse": f"{who} the base answers",
        "not worse": f"The replacement’s answers win no less than {least} of pairs",
        "not shown": f"Not shown that the replacement is no worse (a win rate below {least} is not ruled out)",
    }.get(found.conclusion, "No preference shown")
    winning = "they" if found.conclusion == "better" else "the fine-tuned answers"
    won = f"{winning} win {wording.percent(result.estimate)} of pairs"
    if not n_raters:
        identical = wording.plural(found.identical, "pair")
        won = f"nobody was asked, as both answers are identical in each of {identical}"
    other = "Votes on other answers, not on the present ones. " if found.stale else ""
    return f"{other}{said}: {won}, a tie counted half."


def _unless_withheld(found: Preference, said: str) -> str:
    return NO_RESULT if found.withheld else said


def reasons_title(found: Preference) -> str:
    """Which reason was named most, and in whose votes? A reason may be a fault, so it speaks for nobody."""
    top = max(found.reasons, key=lambda one: one.fine_tuned + one.base, default=None)
    if top is None or not top.fine_tuned + top.base:
        return "No reasons were given with votes for either answer"
    votes = wording.plural(top.fine_tuned, "vote")
    return f'"{top.reason}" was named most: in {votes} for the fine-tuned answer and {top.base} for the base'


def raters_title(found: Preference) -> str:
    """Which raters look careless, and what the result is without them."""
    names, without = [one.rater for one in found.raters if one.flags], found.without_flagged
    if not names:
        return "No rater looks careless by these checks" if found.raters else "No votes to check"
    rest = "Nobody is left without them"
    if without:
        rest = f"Without them: {wording.percent(without.estimate)}, {found.concluded(without)}"
    return f"Looks careless: {wording.listed(names)}. Nothing was dropped. {rest}"


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
    details = record.details
    raters = tuple(
        structs.replace(
            one,
            flags=tuple(flag_said(rater, flag) for flag in rater.flags),
            reported=one.reported | {"flag_kinds": [*rater.flags]},
        )
        for one, rater in zip(details.raters, found.raters, strict=True)
    )
    why = {"withheld": withheld_said(found)} if found.withheld else {}
    details = structs.replace(details, raters=raters, reported=details.reported | why)
    return replace(record, details=details)


def length(found: Preference) -> Html:
    """What remains at equal length."""
    result = found.length_adjusted
    if result is None or result.estimate is None:
        why = "; ".join(result.notes if result else ()) or "no votes yet"
        unknown = f"The preference at equal length is not known: {why}."
        return tables.note(_unless_withheld(found, unknown))
    votes = wording.plural(result.near_n, "vote")
    doubts = {
        " Length may explain the preference.": result.explains,
        " These are few: the value rests on the fitted curve.": result.near_is_few,
        " The fitted value lies outside the interval of these.": result.off_near,
    }
    return tables.note(
        f"At equal length {wording.percent(result.estimate)} of decided votes would go to the fine-tuned answer "
        f"({wording.interval_of(result)}); as they are, {wording.percent(result.raw_rate)} do. Among the {votes} on pairs of "
        f"nearly equal length {wording.percent(result.near_rate)} do.{''.join(one for one, holds in doubts.items() if holds)}"
    )


def population(found: Preference) -> Html:
    """For whom the result speaks."""
    test, n_raters = found.rater_sample, len(found.raters)
    if not n_raters:
        asked = "The result above speaks of no rater: nobody was asked."
        return tables.note(_unless_withheld(found, asked))
    who = "this rater" if n_raters == 1 else f"these {wording.plural(n_raters, 'rater')}"
    spoken = f"The result above speaks of {who}."
    if test.p_value is None:
        why = "; ".join(test.notes)
        return tables.note(f"{spoken} For others like them nothing can be said: {why}.")
    shown = {"better": "prefer the fine-tuned answers", "worse": "prefer the base answers"}
    said = shown.get(test.verdict, "are not shown to prefer either")
    return tables.note(
        f"{spoken} Taken as a sample, with tastes of their own, raters like them {said}: "
        f"{wording.percent(test.estimate)} of the pairs all of them judged "
        f"({wording.interval_of(test)}, p {wording.p_phrase(test.p_value)})."
    )


# ---- a result, drawn


@_figure
def win_rate(found: Preference) -> Intervals:
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
        caption=f"{found.win_rate.method}; {caption}",
        kinds={name: found.concluded(one) for name, one in rows.items() if one is not None},
        zone=least,
    )


@_figure
def sides(found: Preference) -> Intervals:
    """What a place on the screen did: left chosen, and the fine-tuned model's wins on either side."""
    bias, favoured = found.position, {"better": "left", "worse": "right"}
    side = favoured.get(bias.verdict)
    chosen = f"left was chosen in {wording.percent(bias.estimate)} of {wording.plural(bias.n, 'decided vote')}"
    title = f"No side is shown to be favoured: {chosen}" if bias.n else "No decided votes yet"
    if side:
        title = f"Raters favour the {side}: {chosen}; sides are balanced, so it cancels"
    return Intervals(
        title=_unless_withheld(found, title),
        rows={
            "Left chosen": bias,
            "Fine-tuned wins, on the left": found.as_left,
            "Fine-tuned wins, on the right": found.as_right,
        },
        axis="Share of decided votes",
        caption="Exact binomial test; Wilson intervals.",
        kinds={"Left chosen": "worse" if side else "unsure"},
    )


@_figure
def agreement(found: Preference) -> Intervals:
    """How far raters agree with each other and with themselves."""
    result = found.agreement
    title = "No pair was rated by two people, so agreement is not known"
    if result.percent_agreement is not None:
        shared = wording.percent(result.percent_agreement)
        beyond = wording.number(result.estimate)
        title = f"Raters agree on {shared} of shared judgements, {beyond} beyond chance (Krippendorff's alpha)"
    return Intervals(
        title=_unless_withheld(found, title),
        rows={
            "Between raters, beyond chance": result,
            "With themselves, on repeats": found.self_agreement,
        },
        axis="Agreement; 0% is chance for the first row, 100% is perfect",
        caption="Krippendorff's alpha on decoded labels, bootstrap over pairs; Wilson interval for repeats.",
        low=min(0.0, result.ci_low or 0.0),
        even=None,
    )


@_figure
def preference_slices(found: Preference) -> Intervals:
    """The win rate within each slice; hollow unless shown after Holm."""
    shown = [one for one in found.slices if one.shown]
    names = [f"{one.slice} ({wording.percent(one.result.estimate)})" for one in shown]
    none = f"No single slice shows a preference of its own, of {len(found.slices)}"
    title = f"A preference is shown in {wording.listed(names)}" if shown else none
    return Intervals(
        title=_unless_withheld(found, title if found.slices else "No slices were declared"),
        rows={one.slice: one.result for one in found.slices},
        axis="Share won by the fine-tuned answer",
        caption="Holm over all slices; below 30 pairs the exact sign test on pairs.",
        kinds={one.slice: one.result.verdict if one.shown else "unsure" for one in found.slices},
        zone=0.5,
    )
