"""What people said, shown: sentences, tables and figures of a rating round and of its result, made from the records."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import TYPE_CHECKING

from evalkit import wording
from evalkit.conversation import Conversation
from evalkit.human.preference import Preference
from evalkit.human.rounds import locked_before
from evalkit.human.study_round import NO_RATER, NOT_DRAWN, Otherwise, StudyRound
from evalkit.show import say, style, tables
from evalkit.show.plots.tracks import Mark, Track, spans, tracks_axes
from evalkit.show.tables import Html, Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

    from evalkit.benchmark.bench import Gaps
    from evalkit.stats.result import Result

# ---- a round


def rating_round(rating: StudyRound) -> Html:
    """What stands in a round, whether it was made from the present answers, and what it has otherwise than the study."""
    said = (described(rating), binding_said(rating), otherwise_said(rating))
    return tables.note(" ".join(one for one in said if one))


def prospects(rating: StudyRound) -> Html:
    """What so many pairs can show."""
    return tables.note(
        rating.round.batch.advice
        if rating.round
        else "Without a round there are no pairs to speak of."
    )


def progress(rating: StudyRound) -> Html:
    """How far each rater is."""
    rows = [
        {
            "Rater": one.rater,
            "Rated": one.done,
            "Pairs": one.total,
            "Last vote (UTC)": (one.last_at or "").replace("T", " ")[:16] or None,
        }
        for one in rating.progress()
    ]
    return tables.table(rows, caption="Progress by rater")


def no_rater() -> Html:
    """What stands where a rater would, when nobody can rate."""
    return tables.note(NO_RATER)


# ---- a result


def seal(found: Preference) -> Html:
    """When the round was locked, that nothing changed since, and whether it was made from the present answers."""
    return tables.note(f"{seal_said(found)} {_bound(found)}")


def win_rate(found: Preference) -> Html:
    """The win rate in every way it was counted, against an even split."""
    caption = f"{found.win_rate.method}; the interval is for display, the verdict follows the test."
    if found.margin is not None:
        least = wording.percent(0.5 - found.margin)
        caption = (
            f"{found.win_rate.method}; the whole interval must keep above the margin, {least}."
        )
    return _figure(draw_win_rate, found, _spoken(headline(found), _win_rate_rows(found)), caption)


def votes(found: Preference) -> Html:
    """First-time votes by label."""
    title = _titled("First-time votes, decoded", found)
    return tables.table(_label_rows(found), caption=title, numeric=("Share",))


def length(found: Preference) -> Html:
    """What remains at equal length."""
    return tables.note(length_said(found))


def population(found: Preference) -> Html:
    """For whom the result speaks."""
    return tables.note(population_said(found))


def sides(found: Preference) -> Html:
    """What a place on the screen did."""
    caption = "Exact binomial test; Wilson intervals."
    return _figure(draw_sides, found, _spoken(sides_title(found), _side_rows(found)), caption)


def agreement(found: Preference) -> Html:
    """How far raters agree with each other and with themselves."""
    caption = (
        "Krippendorff's alpha on decoded labels, bootstrap over pairs; Wilson interval for repeats."
    )
    spoken = _spoken(agreement_title(found), _agreement_rows(found))
    return _figure(draw_agreement, found, spoken, caption)


def raters(found: Preference) -> Html:
    """Each rater with everything that is checked."""
    numeric = ("Fine-tuned wins", *_RATER_RATES, "Median seconds")
    title = _titled(raters_title(found), found)
    return tables.table(_rater_rows(found), caption=title, numeric=numeric)


def preference_slices(found: Preference) -> Html:
    """The win rate within each slice."""
    caption = "Holm over all slices; below 30 pairs the exact sign test on pairs."
    return _figure(draw_slices, found, _spoken(slices_title(found), _slice_rows(found)), caption)


def reasons(found: Preference) -> Html:
    """How often each reason came with a vote for either model."""
    if not any(one.fine_tuned + one.base for one in found.reasons):
        return tables.note(f"{reasons_title(found)}.")
    caption = "Counts of votes; a vote may name several reasons or none."
    counts = [
        f"{one.reason}: {one.fine_tuned} fine-tuned, {one.base} base." for one in found.reasons
    ]
    return _figure(draw_reasons, found, " ".join([f"{reasons_title(found)}.", *counts]), caption)


def metric_agreement(found: Preference) -> Html:
    """How often each metric names the model that people name."""
    title = _titled(metrics_title(found), found)
    return tables.table(_metric_rows(found), caption=title, numeric=("Same model", "Interval"))


def disagreements(found: Preference) -> Html:
    """The pairs on which people and the metric part most, side by side."""
    title = _titled(disagreements_title(found), found)
    return tables.table(_disagreement_rows(found), caption=title)


def titled(title: str, found: Preference) -> str:
    """A title for a figure of one's own: it says so when nothing may be shown yet, and when the raters are simulated."""
    return _titled(f"{title}: {NO_RESULT.lower()}" if found.withheld else title, found)


@tables.answer.register(StudyRound)
def _of_round(found: StudyRound, gaps: Gaps | None = None) -> Html:
    """`gaps` says what a round that was not drawn waits for."""
    return tables.answer(state_said(found, str(gaps or "")), simulated=found.simulated)


@tables.answer.register(Preference)
def _of_preference(found: Preference) -> Html:
    return tables.answer(answer_said(found), simulated=found.simulated)


def _figure(draw: Callable[..., Axes], found: Preference, alt: str, caption: str) -> Html:
    from evalkit.show.figure import picture

    return picture(draw, found, alt=alt, caption=caption, simulated=found.simulated)


# ---- a round, in sentences


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
    now, batch = rating.otherwise, rating.round.batch
    kept = {
        f"for {wording.listed(list(batch.raters))} (not {wording.listed(list(now.raters))})": now.raters,
        f"with {wording.plural(len(batch), 'pair')} (not {wording.count(now.n_pairs or 0)})": now.n_pairs
        is not None,
        "with another rubric": now.rubric,
    }
    told = wording.listed([what for what, differs in kept.items() if differs])
    folder = f"data/{batch.study}/ratings/{rating.round.folder.name}"
    fresh = (
        "" if _voted(rating) else f"; nobody has voted yet: remove {folder} and run notebook 03, or"
    )
    return f"It was drawn {told}{fresh or ';'} name another rating_round to change that."


def _voted(rating: StudyRound) -> bool:
    return any(one.done for one in rating.progress())


def state_said(rating: StudyRound, missing: str = "") -> str:
    """Where the round stands, and what comes next; `missing` says what a round that was not drawn waits for."""
    if rating.round is None:
        return (
            f"{missing} {rating.not_drawn}".strip()
            if rating.not_drawn == NOT_DRAWN
            else rating.not_drawn
        )
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
    return f"{ratings}. " + (
        f"Lock the round (evalkit rate {rating.round.batch.study} --lock) to see the result."
        if done == total
        else "The round is open."
    )


_NO_ROUND = "There is no rating round yet."
_CURRENT = "The round was made from the current answers (the hashes match)."
_STALE = (
    "The round was made from other answers or another test set: it says nothing for the current ones. "
    "Name another rating_round in study.yaml to have them rated."
)


def _bound(found: Preference) -> str:
    return _STALE if found.stale else _CURRENT if found.round else _NO_ROUND


# ---- a result, in sentences

NO_RESULT = "No result yet"


def answer_said(found: Preference) -> str:
    """The chapter's answer."""
    if found.withheld:
        return f"{found.withheld} {missing_said(found)}" if found.stale else found.withheld
    if found.win_rate.estimate is None:
        return f"{headline(found)}. {missing_said(found)}"
    parted = " ".join(
        f"{note[:1].upper()}{note[1:]}."
        for note in found.win_rate.notes
        if "verdict follows" in note
    )
    said = (_who(found), headline(found), _figures(found), parted, missing_said(found))
    return " ".join(part for part in said if part)


def headline(found: Preference) -> str:
    """The title of the main figure."""
    result = found.win_rate
    if found.withheld or result.estimate is None:
        return NO_RESULT
    rate = wording.percent(result.estimate)
    who, s = wording.plural(len(found.raters), "rater"), "" if len(found.raters) > 1 else "s"
    least = wording.percent(0.5 - (found.margin or 0.0))
    won = f"they win {rate} of pairs, a tie counted half."
    said = {
        "not worse": f"{who} prefer{s} the replacement’s answers in no less than {least} of pairs: {won}",
        "not shown": f"Not shown that the replacement is no worse: that {who} prefer{s} its answers in less than {least} "
        f"of pairs is not ruled out; {won}",
        "better": f"{who} prefer{s} the fine-tuned answers: they win {rate} of pairs, a tie counted half.",
        "worse": f"{who} prefer{s} the base answers: the fine-tuned ones win {rate} of pairs, a tie counted half.",
    }.get(
        found.conclusion,
        f"No preference{f' of {who}' if found.raters else ''} shown: "
        f"the fine-tuned answers win {rate} of pairs, a tie counted half.",
    )
    return f"Votes on other answers, not on the present ones. {said}" if found.stale else said


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


def slices_title(found: Preference) -> str:
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


def raters_title(found: Preference) -> str:
    """Which raters look careless, and what the result is without them."""
    if found.withheld:
        return f"{NO_RESULT}."
    if not found.raters:
        return "No votes to check."
    names, without = [one.rater for one in found.raters if one.flags], found.without_flagged
    if not names:
        return "No rater looks careless by these checks."
    rest = (
        f"Without them: {wording.percent(without.estimate)}, {found.concluded(without)}"
        if without
        else "Nobody is left without them"
    )
    return f"Looks careless: {wording.listed(names)}. Nothing was dropped. {rest}."


def length_said(found: Preference) -> str:
    """What remains at equal length."""
    if found.withheld:
        return f"{NO_RESULT}."
    result = found.length_adjusted
    if result is None or result.estimate is None:
        return f"The preference at equal length is not known: {'; '.join(getattr(result, 'notes', ())) or 'no votes yet'}."
    votes = wording.plural(result.near_n, "vote")
    near = f" Among the {votes} on pairs of nearly equal length {wording.percent(result.near_rate)} do."
    unsure = [note for note in result.notes if "equal length" in note]
    explained = " Length may explain the preference." if result.explains else ""
    return (
        f"At equal length {wording.percent(result.estimate)} of decided votes would go to the fine-tuned answer "
        f"({_limits(result)}); as they are, {wording.percent(result.raw_rate)} do.{explained}{near}"
        f"{f' Read with care: {wording.listed(unsure)}.' if unsure else ''}"
    )


def population_said(found: Preference) -> str:
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


def missing_said(found: Preference) -> str:
    """What would settle it, priced."""
    return " ".join(f"{one.action}: {one.why}. Price: {one.price}." for one in found.missing)


def _spoken(title: str, rows: Mapping[str, Result | None]) -> str:
    """A figure's alternative text: its title, and each row's name with its numbers."""
    spoken = [
        f"{name}: {_level(one, one.estimate)} ({_limits(one)}, n = {wording.count(one.n)})."
        for name, one in rows.items()
        if one is not None and one.estimate is not None
    ]
    return " ".join([title.rstrip(".") + ".", *spoken])


def _win_rate_rows(found: Preference) -> dict[str, Result | None]:
    """The win rate in every way it was counted."""
    return {
        "All pairs": found.win_rate,
        "Only pairs shown": found.asked_only,
        "Without flagged raters": found.without_flagged,
        "At equal length": found.length_adjusted,
        "Raters like these": found.rater_sample,
    }


def _side_rows(found: Preference) -> dict[str, Result | None]:
    """What a place on the screen did."""
    rows = {"Left chosen": found.position, "Fine-tuned wins, on the left": found.as_left}
    return {**rows, "Fine-tuned wins, on the right": found.as_right}


def _agreement_rows(found: Preference) -> dict[str, Result | None]:
    """Agreement of raters with each other and with themselves."""
    return {
        "Between raters, beyond chance": found.agreement,
        "With themselves, on repeats": found.self_agreement,
    }


def _slice_rows(found: Preference) -> dict[str, Result | None]:
    """The win rate within each slice."""
    return {f"{one.slice} (n = {one.result.n})": one.result for one in found.slices}


def seal_said(found: Preference) -> str:
    """When the round was locked and that nothing changed since."""
    record = found.lock
    if record is None:
        return found.withheld
    state = "every rater had finished" if record["complete"] else "some raters had not finished"
    return (
        f"Locked {record['locked_at']}, {state}. The key's sha256 {record['key_sha256'][:16]}... matches the batch; "
        f"batch and votes are unchanged since.{locked_before(record)}"
    )


def _titled(title: str, found: Preference) -> str:
    return f"{title.rstrip('.')} (simulated)" if found.simulated else title


def metrics_title(found: Preference) -> str:
    """The title above the metrics' agreement with people."""
    return _not_compared(found) or "Agreement of each metric with people"


def disagreements_title(found: Preference) -> str:
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


# ---- a result, row by row

_RATER_RATES = {
    "Known winners found": "gold_rate",
    "Same on repeats": "self_agreement",
    "With the others": "others_rate",
    "Left chosen": "left_rate",
    "Under 3 s": "fast_rate",
}


def _label_rows(found: Preference) -> list[Row]:
    """First-time votes by label."""
    names = {
        "fine_tuned": "Fine-tuned is better",
        "base": "Base is better",
        "tie": "About the same",
        "both_bad": "Both bad",
    }
    total = sum(found.labels.values())
    return [
        {
            "Said": names[label],
            "Votes": votes,
            "Share": wording.percent(votes / total if total else None),
        }
        for label, votes in found.labels.items()
    ]


def _rater_rows(found: Preference) -> list[Row]:
    """One row a rater with everything that is checked."""
    return [
        {
            "Rater": one.rater,
            "Votes": one.votes,
            "Fine-tuned wins": wording.percent(found.by_rater[one.rater].estimate, 0),
            **{told: wording.percent(getattr(one, name), 0) for told, name in _RATER_RATES.items()},
            "Median seconds": wording.number(one.median_s, 1),
            "Flags": "; ".join(one.flags) or "nothing stands out",
        }
        for one in found.raters
    ]


def _metric_rows(found: Preference) -> list[Row]:
    """One row a metric: how often it names the model people name."""
    return [
        {
            "Metric": say.label(one.metric),
            "Same model": wording.share(one.agreement.successes, one.agreement.n),
            "Interval": f"{wording.percent(one.agreement.ci_low)} to {wording.percent(one.agreement.ci_high)}"
            if one.agreement.n
            else wording.NOTHING,
            "Metric undecided": one.undecided_by_metric,
        }
        for one in found.metrics
    ]


def _disagreement_rows(found: Preference) -> list[Row]:
    """The pairs on which people and the metric part most."""
    return [
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


# ---- a result, drawn


def draw_win_rate(found: Preference, *, narrow: bool = False) -> Axes:
    """The fine-tuned model's win rate against an even split, in every way it was counted."""
    rows = _win_rate_rows(found)
    kinds = {name: found.concluded(one) for name, one in rows.items() if one is not None}
    least = 0.5 - (found.margin or 0.0)
    ax = _intervals(rows, kinds, headline(found), narrow=narrow, zone=least)
    ax.set_xlabel(
        "Share won by the fine-tuned answer"
        if narrow
        else "Share won by the fine-tuned answer, a tie counted half"
    )
    return ax


def draw_sides(found: Preference, *, narrow: bool = False) -> Axes:
    """What a place on the screen did: left chosen, and the fine-tuned model's wins on either side."""
    rows = _side_rows(found)
    kinds = dict.fromkeys(rows, "fine_tuned")
    kinds["Left chosen"] = (
        "unsure" if found.position.verdict in {"no difference shown", "too early"} else "worse"
    )
    ax = _intervals(rows, kinds, sides_title(found), narrow=narrow)
    ax.set_xlabel("Share of decided votes")
    return ax


def draw_agreement(found: Preference, *, narrow: bool = False) -> Axes:
    """How far raters agree with each other and with themselves."""
    rows = _agreement_rows(found)
    low = min(0.0, found.agreement.ci_low or 0.0)
    ax = _intervals(
        rows,
        dict.fromkeys(rows, "fine_tuned"),
        agreement_title(found),
        narrow=narrow,
        low=low,
        even=None,
    )
    ax.set_xlabel(
        "0% is chance for the first row"
        if narrow
        else "Agreement; 0% is chance for the first row, 100% is perfect"
    )
    return ax


def draw_slices(found: Preference, *, narrow: bool = False) -> Axes:
    """The win rate within each slice; hollow unless shown after Holm."""
    rows = {one.slice: one.result for one in found.slices}
    kinds = {one.slice: one.result.verdict if one.shown else "unsure" for one in found.slices}
    ax = _intervals(rows, kinds, slices_title(found), narrow=narrow, zone=0.5)
    ax.set_xlabel("Share won by the fine-tuned answer")
    return ax


def draw_reasons(found: Preference, *, narrow: bool = False) -> Axes:
    """How often each reason came with a vote for either model."""
    import pandas as pd
    import seaborn as sns

    given = sorted(found.reasons, key=lambda one: -(one.fine_tuned + one.base))
    rows = [
        {"reason": _wrapped(one.reason, 18 if narrow else 34), "model": role, "votes": votes}
        for one in given
        for role, votes in (("fine-tuned", one.fine_tuned), ("base", one.base))
    ]
    data = pd.DataFrame(rows, columns=["reason", "model", "votes"]).astype({"votes": int})
    _, ax = style.canvas(0.9 + 0.62 * max(len(given), 1), narrow=narrow)
    models = {"fine-tuned": style.COLOURS["fine_tuned"], "base": style.COLOURS["base"]}
    look = {
        "palette": models,
        "saturation": 1,
        "width": 0.64,
        "gap": 0.08,
        "legend": False,
        "errorbar": None,
    }
    sns.barplot(data, x="votes", y="reason", hue="model", **look, ax=ax)
    for bars, model in zip(ax.containers, models, strict=False):
        ax.bar_label(bars, fmt=f"%d {model}", padding=3, size=9, color=style.COLOURS["muted"])  # pyright: ignore[reportArgumentType]
    ax.set_xlim(0, max([*data["votes"], 1]) * (1.5 if narrow else 1.2))
    ax.locator_params(axis="x", integer=True)
    ax.set(xlabel="Votes that name the reason", ylabel="")
    return style.titled(ax, reasons_title(found), narrow=narrow)


def _wrapped(text: str, width: int) -> str:
    return fill(wording.visible(text), width, break_on_hyphens=False)


def _intervals(
    rows: Mapping[str, Result | None],
    kinds: Mapping[str, str],
    title: str,
    *,
    narrow: bool,
    zone: float | None = None,
    low: float = 0.0,
    even: float | None = 0.5,
) -> Axes:
    shown = {
        name: one for name, one in rows.items() if one is not None and one.estimate is not None
    }
    tracks = [
        Track(
            name=name,
            under=f"n = {wording.count(one.n)}",
            marks=_marks(one, kinds[name]),
            value=_value(one),
        )
        for name, one in shown.items()
    ]
    ticks = [tick for tick in (-1, -0.5, 0, 0.25, 0.5, 0.75, 1) if tick >= low]
    ax = tracks_axes(tracks, (low, 1), ticks, lambda at: wording.percent(at, 0), narrow=narrow)
    if zone is not None:
        style.pass_zone(ax, zone, 1, spans=spans(tracks, narrow=narrow))
    if zone is not None and zone < (even or 0.0):
        style.threshold(ax, zone, spans=spans(tracks, narrow=narrow))
        told, top = f"margin: {wording.percent(zone)}", ax.get_ylim()[1]
        ax.text(zone, top, told, va="bottom", ha="right", fontsize=9, color=style.COLOURS["muted"])
    if even is not None:
        style.zero_line(ax, even, spans=spans(tracks, narrow=narrow))
    return style.titled(ax, title, narrow=narrow)


def _marks(result: Result, kind: str) -> tuple[Mark, ...]:
    return (
        Mark(estimate=result.estimate or 0.0, low=result.ci_low, high=result.ci_high, kind=kind),
    )


def _value(result: Result) -> str:
    text = wording.number if result.scale == "number" else wording.percent
    low, high = (text(end).rstrip("%") for end in (result.ci_low, result.ci_high))
    return f"{text(result.estimate)} ({low} to {high})"
