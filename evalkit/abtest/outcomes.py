"""What the outcomes say, for the users of the looks that are due; asked only when the plan lets the effect be read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from evalkit import wording
from evalkit.abtest import effects
from evalkit.abtest.analysis import Note, Table, Users, fetched
from evalkit.abtest.effects import Effect, Row, Watched, effect, up_to
from evalkit.abtest.lock import DueLook, LockedPlan, date_of
from evalkit.abtest.plan import DAY_S, ABPlan, Guardrail, Kind, Metric
from evalkit.errors import DataError
from evalkit.files import JsonObject
from evalkit.stats import ProportionTest, confidence_sequence, keeps_margin

Cause = Literal["", "clock", "past", "ids", "unit"]
FROM_EXPOSURES = ("error", "refused", "truncated", "empty", "latency_ms")
SETTLED = {"better", "worse", "not worse"}
WEEK = 7
_USUAL: Mapping[str, Kind] = {"error": "rate", "refused": "rate", "latency_ms": "p95"}
_FEW = 0.01  # share of outcomes from which a loss needs a cause
FEWEST = 5
OTHERS = 5  # names that a sentence holds
_CLOCK_S = 36 * 3600.0  # the furthest that a clock or a time zone is off; beyond lies a past
_FAR = 0.99  # share of the outcomes before the exposure that lies within the shift of the clock
_OFF = 0.25  # share of the expected level from which a reader is told that control lies elsewhere
_ONCE = 1.05  # outcomes for each user that has any, up to which it seems decided once for a user
_SEQUENCE_FROM = 100  # users per variant from which the confidence sequence is trusted


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a reading comes from: the users in the log, while it is open, and where a look goes.

    Attributes:
        users: Whom to ask about; kept by the engine until the effect is read.
        plan: The locked plan.
        at_s: When it is asked, seconds since 1970.
        before: As for `reading.read_ab_test`, and so are `slices`, `ledger` and `run`.
    """

    users: Users
    plan: LockedPlan
    at_s: float
    before: Table = None
    slices: bool = True
    ledger: Path | None = None
    run: str = ""

    @property
    def metric(self) -> Metric:
        """The one that decides."""
        return self.plan.plan.primary

    @property
    def last_closed_day(self) -> float:
        """The last day whose users' windows have all closed."""
        return (self.at_s - self.plan.plan.outcome_window_days * DAY_S) // DAY_S - 1

    def everyone(self, metric: Metric, before: Table = None) -> pd.DataFrame:
        """Sums of one metric over all users in the log; only what `part` leaves of them may be shown."""
        plan, cap = self.plan.plan, None
        if plan.cap_per_user is not None and metric.name == plan.primary.name:
            cap = ("y" if metric.kind == "mean" else "x", plan.cap_per_user)
        return self.users.cells(metric.name, before=before, cap=cap)

    def part(self, everyone: pd.DataFrame, metric: Metric, day: float) -> pd.DataFrame:
        """Those of the users who came until that day.

        Raises:
            DataError: No user has an outcome of that name, or what is there is no rate.
        """
        found = self.users.checked(up_to(everyone, day), metric.name, is_rate=metric.is_rate)
        if not found["n_found"].to_numpy().any():
            why = nothing_counts(joined(self.users, metric.name, everyone), self.users.experiment)
            raise DataError(f"{self.users.log.where}: {why}")
        return found

    def readable(self, everyone: pd.DataFrame, day: float) -> Effect | None:
        """The effect over the users until that day; None where their sums cannot be read, as those of later users may not."""
        try:
            return _test(self.part(everyone, self.metric, day), self.plan.plan)
        except DataError:
            return None

    def covariate(self) -> Table:
        """What users did before, as given or as the plan names it; None without either.

        Raises:
            DataError: It holds values from after a user's first exposure: they may be the treatment's doing.
        """
        name = self.plan.plan.covariate
        if self.before is None:
            return self.users.past(name) if name else None
        if n := self.users.after_exposure(self.before):
            raise DataError(
                f"{self.users.log.where}: {wording.plural(n, 'value')} of the covariate lie after their user's first exposure, "
                f"where the model may have moved them; give what users did before it"
            )
        return self.before

    def sliced(self, day: int) -> tuple[dict[str, pd.DataFrame], int]:
        """Sums in each slice over the users until that day, and outcomes that name no request, for which there are none."""
        known = {"slice", "request_id"} <= set(self.users.log.exposures.columns)
        if not self.slices or self.metric.kind == "mean" or not known:
            return {}, 0
        if lost := self.users.without_request(self.metric.name):
            return {}, lost
        return self.users.until(day).slice_cells(self.metric.name), 0

    def health(self) -> tuple[Watched, ...]:
        """Failed and refused calls and p95 latency: with the plan's margin, or as they are when the plan has none for them."""
        declared = [one for one in self.plan.plan.guardrails if one.name in FROM_EXPOSURES]
        found = [self.watch(self.users, one) for one in declared]
        for name, kind in _USUAL.items():
            if (name, kind) not in {(one.name, one.kind) for one in declared}:
                change = self.change(self.users, name, kind)
                found += [Watched(name=name, kind=kind, change=change)] if change else []
        return tuple(found)

    def watch(self, users: Users, rail: Guardrail) -> Watched:
        """A guardrail against its margin; one that the log says nothing on is too early to tell, never left out."""
        silent = f"the log says nothing on {rail.name!r} of both variants"
        change = self.change(users, rail.name, rail.kind)
        change = change or effects.unknown(0, silent, self.plan.plan.alpha)
        return Watched(**asdict(rail), change=change)

    def change(self, users: Users, name: str, kind: Kind) -> Effect | None:
        """The change of something watched, phases kept apart; None where the log says nothing on it."""
        alpha = self.plan.plan.alpha
        if kind == "p95":
            return effects.latency_change(users, alpha=alpha)
        if name in FROM_EXPOSURES:
            cells = users.exposure_cells(name)
        else:
            cells = users.checked(users.cells(name), name, is_rate=kind == "rate")
        if cells is None or cells.empty:
            return None
        if "n_found" in cells and not cells["n_found"].to_numpy().any():
            return effects.unknown(_n(cells), f"no outcome {name!r} was recorded", alpha)
        of_requests = name == "latency_ms" and kind == "mean"
        return effects.change(cells, "ratio" if of_requests else kind, alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the outcomes say; exists only when the plan lets the effect be read.

    Attributes:
        primary: The metric that decides: at the first look that leaves the limits, else at the latest one due.
        looks: The same at each look due; what comes after the deciding one changes nothing.
        article: The article's z-test over requests, beside it; None over several phases or for a numeric metric.
        days: Days on which the users of that look came; 0 where the log knows no times, and then nothing is by day.
        design_effect: Variance by user over variance by request.
        cuped: The primary adjusted for what users did before, when that was given and the metric is a mean.
        over_time: Per day the difference so far, with its plain interval and its confidence sequence.
        by_day: The difference of each day's new users, Holm; of the look that decides, as are slices and further metrics.
        by_slice: The difference in each slice, Holm; a user with requests in several slices counts in each.
        secondary: Further metrics, Holm.
        guardrails: Those measured by outcomes, of all users who came in time for the latest look due: harm is not left out.
        outcomes: What became of the primary metric's outcomes: how many count, and why the others don't.
        n_later: Users who came after the look that decides; they change nothing.
        over_all: The primary over all users whose window has closed, those who came later too; None before it is decided.
        last_phase: The primary over the users of the last phase alone; None without a change of the split, or undecided.
        whole_weeks: The primary over the whole weeks that the look which decides had begun; None while they are not closed.
        days_to_weeks: Days until they are; 0 when they are.
        notes: What the reader of these numbers must know, beside what became of the outcomes.
        cells: The sums of the look that decides, a phase, variant and day.
        slice_cells: The same in each slice, without the plan's cap.
    """

    primary: Effect
    looks: tuple[Effect, ...]
    article: ProportionTest | None
    days: int
    design_effect: float | None
    cuped: Effect | None
    over_time: tuple[Row, ...]
    by_day: tuple[Row, ...]
    by_slice: tuple[Row, ...]
    secondary: tuple[Row, ...]
    guardrails: tuple[Watched, ...]
    outcomes: Joined
    n_later: int = 0
    over_all: Effect | None = None
    last_phase: Effect | None = None
    whole_weeks: Effect | None = None
    days_to_weeks: int = 0
    notes: tuple[Note, ...] = ()
    cells: pd.DataFrame = field(repr=False, compare=False)
    slice_cells: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    @property
    def uneven(self) -> bool:
        """Whether weekdays may decide: users came on part of a week, and its whole weeks don't (yet) say the same."""
        whole, way = self.whole_weeks, {"better": 1, "worse": -1}.get(self.primary.verdict)
        if not self.days % WEEK or self.primary.verdict == "too early":
            return False
        if whole is not None and self.primary.verdict == "not worse" and self.primary.margin:
            return not keeps_margin(whole, self.primary.margin)
        if whole is None or way is None:
            return whole is None
        turn = -way if self.primary.lower_is_better else way
        ends = [turn * end for end in (whole.ci_low, whole.ci_high) if end is not None]
        return not ends or min(ends) <= 0

    def to_dict(self) -> JsonObject:
        """Plain numbers."""
        tables = ("over_time", "by_day", "by_slice", "secondary")
        return {
            **{name: [dict(row) for row in getattr(self, name)] for name in tables},
            "looks": [one.to_dict() for one in self.looks],
            "article": self.article and self.article.to_dict(),
            **{name: getattr(self, name) for name in ("design_effect", "days", "uneven")},
            "days_to_weeks": self.days_to_weeks,
            "whole_weeks": _numbers(self.whole_weeks),
            "cuped": self.cuped and self.cuped.to_dict(),
            "guardrails": [one.to_dict() for one in self.guardrails],
            "outcomes": asdict(self.outcomes),
            "n_later": self.n_later,
            "over_all": _numbers(self.over_all),
            "last_phase": _numbers(self.last_phase),
        }


def _numbers(one: Effect | None) -> Row | None:
    """Without a verdict: it stands beside the effect that decides."""
    names = ("estimate", "ci_low", "ci_high", "alpha", "n", "control_rate", "treatment_rate")
    return one and {name: getattr(one, name) for name in (*names, "n_control", "n_treatment")}


def findings(ask: Question, due: Sequence[DueLook], bounds: Sequence[float]) -> Findings:
    """All that is read at the looks due; the first one that leaves the limits decides.

    Args:
        ask: The log.
        due: Looks that may be read, in order.
        bounds: Their limits of |z|.
    """
    plan, metric = ask.plan.plan, ask.metric
    everyone = ask.everyone(metric)
    cells = ask.part(everyone, metric, due[-1].day)
    looks = read_looks(cells, ask.plan, due, bounds)
    at, primary = deciding(looks)
    day = due[at].day  # what stands beside the effect is of its users
    decided = up_to(cells, day)
    article = effects.article_test(decided, alpha=plan.alpha) if metric.is_rate else None
    dated = decided if ask.users.log.timed else decided.iloc[:0]
    days = {date_of(one): _test(dated.loc[dated["day"] == one], plan) for one in _days(dated)}
    slices, lost = ask.sliced(day)
    secondary = {
        one.name: _test(ask.part(ask.everyone(one), one, day), plan, one) for one in plan.secondary
    }
    cuped, before = None, ask.covariate()
    if before is not None and metric.kind == "mean":
        adjusted = ask.part(ask.everyone(metric, before), metric, day)
        lower = metric.lower_is_better
        cuped = effects.effect(adjusted, "cuped", alpha=plan.alpha, lower_is_better=lower)
    low = _off(metric, primary.control_rate, low=True)
    outcomes = joined(ask.users, metric.name, everyone, level_is_low=low)
    told = _notes(metric, primary.control_rate, lost, outcomes, decided)
    settled = primary.verdict != "too early"  # else nothing is said of later users
    later = _n(up_to(everyone, ask.last_closed_day)) > _n(decided)
    whole_weeks, days_to_weeks = _in_whole_weeks(ask, everyone, decided)
    of_last = decided.loc[decided["phase"] == max(decided["phase"])]
    return Findings(
        primary=primary,
        looks=looks,
        article=article,
        days=len(_days(dated)),
        design_effect=effects.design_effect(primary, article),
        cuped=cuped,
        over_time=_over_time(dated, ask.plan),
        by_day=effects.side_by_side(days, alpha=plan.alpha),
        by_slice=effects.side_by_side(
            {name: _test(part, plan) for name, part in slices.items()}, alpha=plan.alpha
        ),
        secondary=effects.side_by_side(secondary, alpha=plan.alpha),
        guardrails=tuple(
            ask.watch(ask.users.until(due[-1].day), one)
            for one in plan.guardrails
            if one.name not in FROM_EXPOSURES
        ),
        outcomes=outcomes,
        n_later=_n(everyone) - _n(decided),
        over_all=ask.readable(everyone, ask.last_closed_day) if settled and later else None,
        last_phase=_test(of_last, plan) if settled and len(of_last) < len(decided) else None,
        whole_weeks=whole_weeks if settled else None,
        days_to_weeks=days_to_weeks,
        notes=tuple(told),
        cells=decided,
        slice_cells=slices,
    )


def _days(cells: pd.DataFrame) -> list[int]:
    return sorted(set(cells["day"].tolist()))


def _n(cells: pd.DataFrame) -> int:
    """Users."""
    return int(cells["n"].to_numpy().sum())


def _test(cells: pd.DataFrame, plan: ABPlan, metric: Metric | None = None) -> Effect:
    """The difference of a metric, by default of the one that decides."""
    one = metric or plan.primary
    return effect(cells, one.kind, alpha=plan.alpha, lower_is_better=one.lower_is_better)


def _in_whole_weeks(
    ask: Question, everyone: pd.DataFrame, decided: pd.DataFrame
) -> tuple[Effect | None, int]:
    """The effect over the weeks that the users of the look had begun, and days until those are whole.

    They are whole when users have come until their last day and the windows of all are closed. A log that ended before
    never gets there: nobody knows what its other weekdays would have said.
    """
    days = decided["day"].to_numpy()
    weeks = math.ceil((days.max() - days.min() + 1) / WEEK)
    until = int(days.min()) + weeks * WEEK - 1
    if more := max(0, until - int(min(ask.last_closed_day, everyone["day"].to_numpy().max()))):
        return None, more
    return ask.readable(everyone, until), 0


def _off(metric: Metric, level: float | None, *, low: bool = False) -> bool:
    """Control lies elsewhere than the plan expected."""
    if metric.kind != "rate" or level is None or not metric.expected:
        return False
    off = level / metric.expected - 1
    return off < -_OFF if low else abs(off) > _OFF


def _notes(
    metric: Metric, level: float | None, lost: int, outcomes: Joined, cells: pd.DataFrame
) -> Iterator[Note]:
    if _off(metric, level):
        n, requests, found, within = (
            cells[name].to_numpy().sum() for name in ("n", "sum_x", "n_found", "n_within")
        )
        few = outcomes.lost < _OFF / 2 and within <= _ONCE * found and requests > _ONCE * n
        yield Note(kind="once_a_user" if few else "level_off")
    if lost:
        yield Note(kind="no_slices", n=lost)


def read_looks(
    cells: pd.DataFrame, plan: LockedPlan, due: Sequence[DueLook], bounds: Sequence[float]
) -> tuple[Effect, ...]:
    """The primary metric at each look due."""
    margin, looks = plan.plan.primary.margin, plan.plan.looks
    tests = [replace(_test(up_to(cells, one.day), plan.plan), margin=margin) for one in due]
    if looks == 1:
        return tuple(tests)
    each = zip(tests, bounds, due, strict=False)
    return tuple(effects.at_look(test, bound, one.look, looks) for test, bound, one in each)


def deciding(looks: Sequence[Effect]) -> tuple[int, Effect]:
    """The first look that leaves the limits, else the latest; with its place."""
    return next(
        ((n, one) for n, one in enumerate(looks) if one.verdict in SETTLED),
        (-1, looks[-1]),
    )


def _over_time(cells: pd.DataFrame, plan: LockedPlan) -> tuple[Row, ...]:
    found, n_opt = [], max(1.0, plan.n_users / 2)
    for day in _days(cells):
        test = _test(up_to(cells, day), plan.plan)
        low = high = None
        enough = min(test.n_control, test.n_treatment) >= _SEQUENCE_FROM
        if test.estimate is not None and test.se and enough:
            seen = test.estimate, test.se, test.n
            low, high = confidence_sequence(*seen, n_opt, alpha=plan.plan.alpha)
        names = ("estimate", "ci_low", "ci_high", "n_control", "n_treatment")
        row = {name: getattr(test, name) for name in names}
        row |= {"sequence_low": low, "sequence_high": high}
        found.append({"day": day, "date": date_of(day)} | row)
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Where the outcomes of one metric went.

    Attributes:
        metric: Its name.
        n: Outcomes under this name.
        n_within: Those within their user's outcome window, which count.
        n_before: Before their user's first exposure.
        n_after: After the window.
        n_unknown: Of users who were never exposed.
        n_untimed: Without a time.
        cause: The likeliest cause of a loss, "" where there is none to tell: the clock of the outcomes is behind by
            `behind_s`, they hold a past, their user ids are those of another system, their times are in another unit.
        behind_s: Seconds by which the outcomes' clock seems to be behind.
        others: Outcomes by the names of other metrics in the log.
    """

    metric: str
    n: int
    n_within: int
    n_before: int
    n_after: int
    n_unknown: int
    n_untimed: int = 0
    cause: Cause = ""
    behind_s: float | None = None
    others: Mapping[str, int]

    @property
    def lost(self) -> float:
        """Share of the outcomes that `cause` keeps from counting."""
        n = self.n_unknown if self.cause == "ids" else self.n_before if self.cause else 0
        n = self.n_after if self.cause == "unit" else n
        return n / self.n if self.n else 0.0

    def sentence(self) -> str:
        """What does not count, and why; "" when all do."""
        parts = {
            "before their user's first exposure": self.n_before,
            "after the outcome window": self.n_after,
            "of users who were never exposed": self.n_unknown,
            "without a time": self.n_untimed,
        }
        told = [
            f"{wording.count(n)} ({wording.percent(n / self.n)}) {where}"
            for where, n in parts.items()
            if n
        ]
        if not told:
            return ""
        text = f"of {wording.plural(self.n, 'outcome')} of {name_of(self.metric)} these do not count: {wording.listed(told)}"
        return text + (f"; {self.why()}" if self.cause else "")

    def why(self) -> str:
        """The likeliest cause, in words."""
        return {
            "": "",
            "clock": f"the clock of the outcomes is likely behind by {_span(self.behind_s or 0.0)}: mend at_s and read again",
            "past": "they lie up to days before it: what users did before the test, or the log of an earlier one",
            "ids": "their user ids are likely those of another system: record the id that the router was given",
            "unit": "outcomes.at_s is likely in milliseconds; need seconds since 1970",
        }[self.cause]


def joined(users: Users, metric: str, cells: pd.DataFrame, *, level_is_low: bool = False) -> Joined:
    """Counts what became of a metric's outcomes, from the sums of all users; asks for more only where many are lost.

    Args:
        users: All of them.
        metric: The outcome's name.
        cells: From `Users.cells`.
        level_is_low: Control lies well below what the plan expected, as it does when outcomes do not find their users.
    """
    log = users.log
    recorded = fetched(log.recorded(users.experiment))
    others = {name: int(n) for name, n in recorded[["metric", "n"]].itertuples(index=False)}
    n = others.pop(metric, 0)
    within, before, known = (
        int(cells[name].to_numpy().sum()) for name in ("n_within", "n_before", "n_joined")
    )
    cause, behind = "", None
    if _many(before, known):
        cause, behind = _cause_before(fetched(users.lags(metric)), within)
    elif known and not within:
        first = fetched(users.lags(metric))["lag_s"].to_numpy().min()
        cause = "unit" if first > 1000 * 365 * DAY_S else ""
    untimed = int(fetched(users.untimed(metric))) if n > known else 0
    unknown = max(0, n - known - untimed)
    if not cause and _many(unknown, n):
        by_request = 0
        if all("request_id" in table.columns for table in (log.exposures, log.outcomes)):
            by_request = int(fetched(users.known_by_request(metric)))
        cause = "ids" if level_is_low or not known or 2 * by_request > unknown else ""
    return Joined(
        metric=metric,
        n=n,
        n_within=within,
        n_before=before,
        n_after=known - within - before,
        n_unknown=unknown,
        n_untimed=untimed,
        cause=cause,
        behind_s=behind,
        others=others,
    )


def nothing_counts(found: Joined, experiment: str) -> str:
    """Why no outcome of a metric counts, for an error's message."""
    said = f"no outcome {found.metric!r} of {experiment!r} within any user's outcome window"
    if found.n:
        return f"{said}: {found.sentence()}"
    named = wording.listed(counted(dict(Counter(found.others).most_common())))
    others = f"the log holds {named}" if named else "the log holds no outcome of it"
    return f"{said}: {others}; record it under the plan's name"


def _many(n: int, of: int) -> bool:
    return n >= FEWEST and n >= _FEW * of


def _cause_before(lags: pd.DataFrame, within: int) -> tuple[Cause, float | None]:
    """A clock that is behind shifts all outcomes alike, so those before the exposure have an edge; a past has none near."""
    n, lag = lags["n"].to_numpy(), lags["lag_s"].to_numpy()
    n, lag = n[lag < 0], lag[lag < 0]
    far = float(-lag[(n.cumsum() > (1 - _FAR) * n.sum()).argmax()])
    if far <= _CLOCK_S or within <= _FEW * n.sum():
        return "clock", far
    return "past", None


def _span(seconds: float) -> str:
    """A time to the precision that an estimate has: minutes, half hours, days."""
    if seconds < 5400:
        return f"about {wording.plural(max(1, round(seconds / 60)), 'minute')}"
    if seconds < 2 * DAY_S:
        return f"about {round(seconds / 1800) / 2:g} hours"
    return f"about {round(seconds / DAY_S):,} days"


def counted(by: Mapping[str, int]) -> list[str]:
    """The first names with how often each is there."""
    told = [f"{name_of(one)} ({wording.count(n)})" for one, n in by.items()]
    return [*told[:OTHERS], "others"] if len(told) > OTHERS else told


def name_of(value: str) -> str:
    """A name of the log or the plan, as it may be shown."""
    return wording.visible(repr(value)) if value else "none"
