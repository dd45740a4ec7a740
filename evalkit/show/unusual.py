"""What is unusual about an A/B test's log and its outcomes, said: each note by its kind and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from msgspec import structs

from evalkit.abtest.analysis import Note
from evalkit.abtest.assignment import VARIANTS
from evalkit.abtest.outcomes import OTHERS, WEEK, counted, name_of
from evalkit.abtest.reading import NoReading, Reading, strays_said
from evalkit.evidence import ABEvidence
from evalkit.show import tables
from evalkit.show.tables import Html
from evalkit.wording import count, listed, percent, plural, visible


def log_notes(found: Reading | NoReading, *, since: Reading | NoReading | None = None) -> Html:
    """Anything unusual about the log; `since` leaves out what was told of that reading."""
    before = [] if since is None else notes(since)
    told = [one for one in notes(found) if one not in before]
    usual = "Nobody was seen in both variants."
    if since is not None:
        usual = (
            "Nothing unusual about the outcomes." if found.findings else "Withheld with the effect."
        )
    elif isinstance(found, NoReading):
        usual = "No log was read."
    return tables.note(" ".join(f"{one[0].upper()}{one[1:]}." for one in told) or usual)


def notes(found: Reading | NoReading) -> list[str]:
    """All of it, a clause each: of the log, then of the plan, then of the outcomes."""
    if isinstance(found, NoReading):
        return []
    told = [_SAID[one.kind](one, found) for one in found.notes]
    told += _of_the_plan(found)
    if done := found.findings:
        if done.days % WEEK:
            came = f"the users of this look came on {plural(done.days, 'day')}"
            told.append(f"{came}, not in whole weeks: weekdays may weigh unevenly")
        told += [text] if (text := done.outcomes.sentence()) else []
        told += [_SAID[one.kind](one, found) for one in done.notes]
    if found.off_record:
        again = "; the same look was recorded before, so its effect is shown"
        why = f"this look could not be put on record ({found.off_record})"
        told.append(why + (again if done else ""))
    return told


def written(record: ABEvidence, found: Reading | NoReading) -> ABEvidence:
    """The record as its file has it: with the notes in words, for people who open it."""
    if isinstance(found, NoReading):
        return record
    reported = record.details.reported | {"notes": notes(found)}
    return replace(record, details=structs.replace(record.details, reported=reported))


def _of_the_plan(found: Reading) -> Iterator[str]:
    plan, primary = found.plan, found.plan.plan.primary
    if not found.n_users:
        yield f"the log has no users of experiment {plan.plan.experiment_name}"
    if found.n_mixed:
        why = "ids shared, or two splits at work"
        if len(plan.phases) > 1:
            why = "the split was raised while they used it"
        share = f"{plural(found.n_mixed, 'user')} of {count(found.n_users)}"
        yield f"{share} seen in both variants ({why}); each counts where seen first"
    if found.came_first:
        yield (
            f"the plan was locked on {plan.locked_at[:10]}, after users had come (from {found.came_first[:10]}): it was not "
            f"made before the facts"
        )
    if primary.detectable_difference < 0 and not primary.lower_is_better:
        yield (
            f"the plan looks for a fall of {primary.name} and counts higher as better; where a fall is good, a new plan says "
            f"better: lower"
        )
    if found.timed and not plan.plan.outcome_window_days:
        yield "no outcome window is planned: outcomes of later days still change what was read, and looks count users seen"


def _other_variants(one: Note, _: Reading) -> str:
    some = [f"{visible(name)} ({count(n)})" for name, n in one.names.items()]
    which = listed(some[:OTHERS] + (["others"] if len(some) > OTHERS else []))
    return f"{_rows(one)} in neither of the two variants are left out: {which}"


def _several_rows(one: Note, _: Reading) -> str:
    how = "each row counts as a request of its own, and errors are taken by user"
    return f"{plural(one.n, 'user')} of {count(one.of)} with several rows: {how}"


def _other_model(one: Note, found: Reading) -> str:
    planned = found.plan.plan.models["base" if one.about == VARIANTS[0] else "fine_tuned"]
    rows = (
        f"{percent(one.n / one.of)} of requests in {one.about} ({count(one.n)} of {count(one.of)})"
    )
    others = listed(counted(one.names)[:OTHERS])
    return (
        f"{rows} were not answered by {name_of(planned)}, as planned, but by {others}: the difference between the models is "
        f"larger than what is shown"
    )


def _level_off(_: Note, found: Reading) -> str:
    metric = found.plan.plan.primary
    level = found.findings.primary.control_rate if found.findings else None
    shown, planned = percent(level), percent(metric.expected)
    return f"{metric.name} is {shown} of requests in control, where the plan expected {planned}"


def _rows(one: Note) -> str:
    return f"{count(one.n)} of {plural(one.of, 'row')} ({percent(one.n / one.of)})"


def _by_variant(one: Note) -> str:
    pairs = zip(VARIANTS, one.by_variant, strict=True)
    return ", ".join(f"{count(n)} in {variant}" for variant, n in pairs)


_SAID: Mapping[str, Callable[[Note, Reading], str]] = {
    "no_times": lambda *_: (
        "the log is a table without times: days and weeks cannot be shown, outcomes count whenever they came, and nobody can "
        "tell whether the plan was made before them"
    ),
    "rows_are_users": lambda *_: (
        "no column of user ids is named, so each row counts as a user of its own"
    ),
    "other_variants": _other_variants,
    "nobody": lambda one, _: f"{_rows(one)} without a user are left out ({_by_variant(one)})",
    "mixed_left_out": lambda one, _: (
        f"{plural(one.n, 'user')} of {count(one.of)} in both variants are left out: without times nobody knows where they were "
        f"first"
    ),
    "several_rows": _several_rows,
    "gaps": lambda one, _: (
        f"{_rows(one)} have no {visible(one.about)} ({_by_variant(one)}) and count as 0"
    ),
    "strays": lambda one, _: f"{strays_said(one)}; they are left out",
    "other_model": _other_model,
    "level_off": _level_off,
    "once_a_user": lambda one, found: (
        f"{_level_off(one, found)}; it is recorded once for a user, not for each request: plan it as a mean"
    ),
    "no_slices": lambda one, found: (
        f"no slices are shown: {plural(one.n, 'outcome')} of {found.plan.plan.primary.name} without a request_id"
    ),
}
