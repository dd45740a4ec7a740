"""What the outcomes say, for the users of the looks that are due; asked only when the plan lets the effect be read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd

from evalkit import wording
from evalkit.abtest import effects
from evalkit.abtest.analysis import (
    Joined,
    Log,
    Table,
    cells_fault,
    joined,
    nothing_counts,
)
from evalkit.abtest.effects import Effect, Row, Watched, effect, up_to
from evalkit.abtest.lock import DueLook, LockedPlan, date_of
from evalkit.abtest.logged import DAY_S
from evalkit.abtest.plan import ABPlan, Guardrail, Kind, Metric
from evalkit.errors import DataError
from evalkit.files import JsonObject
from evalkit.stats import ProportionTest, confidence_sequence, keeps_margin

FROM_EXPOSURES = ("error", "refused", "truncated", "empty", "latency_ms")
SETTLED = {"better", "worse", "not worse"}
WEEK = 7
_USUAL: Mapping[str, Kind] = {"error": "rate", "refused": "rate", "latency_ms": "p95"}
_OFF = 0.25  # share of the expected level from which a reader is told that control lies elsewhere
_ONCE = 1.05  # outcomes for each user that has any, up to which it seems decided once for a user
_SEQUENCE_FROM = 100  # users per variant from which the confidence sequence is trusted


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a reading comes from: the log, while it is open, and where a look goes.

    Attributes:
        log: Where to ask.
        plan: The locked plan.
        users: From `Log.users`, kept by the engine until the effect is read; then None.
        at_s: When it is asked, seconds since 1970.
        before: As for `reading.read_ab_test`, and so are `slices`, `ledger` and `run`.
    """

    log: Log
    plan: LockedPlan
    users: Table
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
    def experiment(self) -> str:
        """Its name."""
        return self.plan.plan.experiment_name

    @property
    def window_s(self) -> float:
        """Length of the outcome window; endless when none is planned."""
        return self.plan.plan.outcome_window_days * DAY_S or math.inf

    @property
    def last_closed_day(self) -> float:
        """The last day whose users' windows have all closed."""
        return (self.at_s - self.plan.plan.outcome_window_days * DAY_S) // DAY_S - 1

    def until(self, day: int) -> Table:
        """Users who came until that day."""
        return self.users.filter(self.users.day <= day)

    def everyone(self, metric: Metric, before: Table = None) -> pd.DataFrame:
        """Sums of one metric over all users in the log; only what `part` leaves of them may be shown."""
        plan, cap = self.plan.plan, None
        if plan.cap_per_user is not None and metric.name == plan.primary.name:
            cap = ("y" if metric.kind == "mean" else "x", plan.cap_per_user)
        options = {"window_s": self.window_s, "before": before, "cap": cap, "is_rate": None}
        return self.log.cells(self.users, self.experiment, metric.name, **options)

    def part(self, everyone: pd.DataFrame, metric: Metric, day: int) -> pd.DataFrame:
        """Those of the users who came until that day.

        Raises:
            DataError: No user has an outcome of that name, or what is there is no rate.
        """
        found = up_to(everyone, day)
        if fault := cells_fault(found, metric.name, is_rate=metric.is_rate):
            raise DataError(f"{self.log.where}: {fault}")
        if not found["n_found"].to_numpy().any():
            tally = joined(self.log, self.users, self.experiment, metric.name, everyone)
            raise DataError(f"{self.log.where}: {nothing_counts(tally, self.experiment)}")
        return found

    def covariate(self) -> Table:
        """What users did before, as given or as the plan names it; None without either.

        Raises:
            DataError: It holds values from after a user's first exposure: they may be the treatment's doing.
        """
        name = self.plan.plan.covariate
        if self.before is None:
            return self.log.past(self.users, self.experiment, name) if name else None
        if n := self.log.after_exposure(self.users, self.before):
            raise DataError(
                f"{self.log.where}: {wording.plural(n, 'value')} of the covariate lie after their user's first exposure, where "
                f"the model may have moved them; give what users did before it"
            )
        return self.before

    def sliced(self, day: int) -> tuple[dict[str, pd.DataFrame], int]:
        """Sums in each slice over the users until that day, and outcomes that name no request, for which there are none."""
        known = {"slice", "request_id"} <= set(self.log.exposures.columns)
        if not self.slices or self.metric.kind == "mean" or not known:
            return {}, 0
        asked = self.experiment, self.metric.name
        if lost := self.log.without_request(*asked):
            return {}, lost
        return self.log.slice_cells(self.until(day), *asked, window_s=self.window_s), 0

    def health(self) -> tuple[Watched, ...]:
        """Failed and refused calls and p95 latency: with the plan's margin, or as they are when the plan has none for them."""
        declared = [one for one in self.plan.plan.guardrails if one.name in FROM_EXPOSURES]
        found = [self.watch(self.users, one) for one in declared]
        for name, kind in _USUAL.items():
            if (name, kind) not in {(one.name, one.kind) for one in declared}:
                change = self.change(self.users, name, kind)
                found += [Watched(name=name, kind=kind, change=change)] if change else []
        return tuple(found)

    def watch(self, users: Table, rail: Guardrail) -> Watched:
        """A guardrail against its margin; one that the log says nothing on is too early to tell, never left out."""
        silent = f"the log says nothing on {rail.name!r} of both variants"
        change = self.change(users, rail.name, rail.kind)
        change = change or effects.unknown(0, silent, self.plan.plan.alpha)
        return effects.against_its_margin(change, rail)

    def change(self, users: Table, name: str, kind: Kind) -> Effect | None:
        """The change of something watched, phases kept apart; None where the log says nothing on it."""
        alpha = self.plan.plan.alpha
        if kind == "p95":
            return effects.latency_change(self.log, users, self.experiment, alpha=alpha)
        if name in FROM_EXPOSURES:
            cells = self.log.exposure_cells(users, self.experiment, name)
        else:
            options = {"window_s": self.window_s, "is_rate": kind == "rate"}
            cells = self.log.cells(users, self.experiment, name, **options)
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
        notes: What the reader of these numbers must know.
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
    notes: tuple[str, ...] = ()
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
    dated = decided if ask.log.timed else decided.iloc[:0]
    days = {date_of(one): _test(dated.loc[dated["day"] == one], plan) for one in _days(dated)}
    slices, lost = ask.sliced(day)
    secondary = {
        one.name: _test(ask.part(ask.everyone(one), one, day), plan, one) for one in plan.secondary
    }
    cuped, before = None, ask.covariate()
    if before is not None and metric.kind == "mean":
        adjusted = ask.part(ask.everyone(metric, before), metric, day)
        cuped = effects.cuped_effect(adjusted, alpha=plan.alpha)
        cuped = replace(cuped, lower_is_better=metric.lower_is_better)
    low = _off(metric, primary.control_rate, low=True)
    asked = ask.log, ask.users, ask.experiment, metric.name
    outcomes = joined(*asked, everyone, level_is_low=low)
    told = _notes(metric, primary.control_rate, lost, outcomes, decided)
    settled = primary.verdict != "too early"  # else nothing is said of later users
    closed, last = up_to(everyone, ask.last_closed_day), max(decided["phase"])
    whole_weeks, days_to_weeks = _in_whole_weeks(ask, everyone, decided)
    of_last = decided.loc[decided["phase"] == last]
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
            ask.watch(ask.until(due[-1].day), one)
            for one in plan.guardrails
            if one.name not in FROM_EXPOSURES
        ),
        outcomes=outcomes,
        n_later=_n(everyone) - _n(decided),
        over_all=_readable(closed, plan) if settled and _n(closed) > _n(decided) else None,
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


def _readable(cells: pd.DataFrame, plan: ABPlan) -> Effect | None:
    """The same where the sums can be read, as those of users who came later may not."""
    one = plan.primary
    return None if cells_fault(cells, one.name, is_rate=one.is_rate) else _test(cells, plan)


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
    return _readable(up_to(everyone, until), ask.plan.plan), 0


def _off(metric: Metric, level: float | None, *, low: bool = False) -> bool:
    """Control lies elsewhere than the plan expected."""
    if metric.kind != "rate" or level is None or not metric.expected:
        return False
    off = level / metric.expected - 1
    return off < -_OFF if low else abs(off) > _OFF


def _notes(
    metric: Metric, level: float | None, lost: int, outcomes: Joined, cells: pd.DataFrame
) -> Iterator[str]:
    if told := outcomes.sentence():
        yield told
    if _off(metric, level):
        shown, planned = wording.percent(level), wording.percent(metric.expected)
        text = f"{metric.name} is {shown} of requests in control, where the plan expected {planned}"
        n, requests, found, within = (
            cells[name].to_numpy().sum() for name in ("n", "sum_x", "n_found", "n_within")
        )
        if outcomes.lost < _OFF / 2 and within <= _ONCE * found and requests > _ONCE * n:
            text += "; it is recorded once for a user, not for each request: plan it as a mean"
        yield text
    if lost:
        yield f"no slices are shown: {wording.plural(lost, 'outcome')} of {metric.name} without a request_id"


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
