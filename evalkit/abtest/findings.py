"""What the outcomes say, for the users of the looks that are due; asked only when the plan lets the effect be read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.abtest.analysis import DAY_S, Joined, Log, cells_fault, joined, nothing_counts
from evalkit.abtest.effects import (
    Effect,
    article_test,
    at_look,
    cuped_effect,
    design_effect,
    effect,
    side_by_side,
    up_to,
)
from evalkit.abtest.guardrails import FROM_EXPOSURES, Watched, watch
from evalkit.abtest.lock import LockedPlan
from evalkit.abtest.plan import Guardrail, Metric
from evalkit.abtest.schedule import DueLook, date_of
from evalkit.errors import DataError
from evalkit.stats import ProportionTest, confidence_sequence, keeps_margin

if TYPE_CHECKING:
    import pandas as pd

_OFF = 0.25  # share of the expected level from which a reader is told that control lies elsewhere
_ONCE = 1.05  # outcomes for each user that has any, up to which it seems decided once for a user
SETTLED = {"better", "worse", "not worse"}
WEEK = 7
_SEQUENCE_FROM = 100  # users per variant from which the confidence sequence is trusted


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
    over_time: tuple[Mapping[str, Any], ...]
    by_day: tuple[Mapping[str, Any], ...]
    by_slice: tuple[Mapping[str, Any], ...]
    secondary: tuple[Mapping[str, Any], ...]
    guardrails: tuple[Watched, ...]
    outcomes: Joined
    n_later: int = 0
    over_all: Effect | None = None
    last_phase: Effect | None = None
    whole_weeks: Effect | None = None
    days_to_weeks: int = 0
    notes: tuple[str, ...] = ()
    cells: Any = field(default=None, repr=False, compare=False)
    slice_cells: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

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

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        tables = {
            name: [dict(row) for row in getattr(self, name)]
            for name in ("over_time", "by_day", "by_slice", "secondary")
        }
        return tables | {
            "looks": [one.to_dict() for one in self.looks],
            "article": self.article and self.article.to_dict(),
            "design_effect": self.design_effect,
            "days": self.days,
            "uneven": self.uneven,
            "days_to_weeks": self.days_to_weeks,
            "whole_weeks": _numbers(self.whole_weeks),
            "cuped": self.cuped and self.cuped.to_dict(),
            "guardrails": [one.to_dict() for one in self.guardrails],
            "outcomes": asdict(self.outcomes),
            "n_later": self.n_later,
            "over_all": _numbers(self.over_all),
            "last_phase": _numbers(self.last_phase),
        }


@dataclass(frozen=True, slots=True)
class Question:
    """The log, cut to the users of the latest look due.

    Attributes:
        log: Where to ask.
        all_users: From `Log.users`.
        plan: The locked plan.
        due: Looks that may be read, in order.
        bounds: Their limits of |z|.
        now_s: When it is asked, seconds since 1970.
    """

    log: Log
    all_users: Any
    plan: LockedPlan
    due: tuple[DueLook, ...]
    bounds: tuple[float, ...]
    now_s: float = math.inf

    @property
    def users(self) -> Any:
        """Users who came in time for the latest look due."""
        return self.all_users.filter(self.all_users.day <= self.due[-1].day)

    def until(self, place: int) -> Question:
        """The same, cut to the users of the look in this place of those due."""
        return replace(
            self, due=self.due[: place + 1 or None], bounds=self.bounds[: place + 1 or None]
        )

    @property
    def window_s(self) -> float:
        """Length of the outcome window; endless when none is planned."""
        return self.plan.plan.outcome_window_days * DAY_S or math.inf

    @property
    def experiment(self) -> str:
        """Its name."""
        return self.plan.plan.experiment_name

    def everyone(self, metric: Metric, before: object = None) -> pd.DataFrame:
        """Sums of one metric over all users in the log; only what `due_part` leaves of them may be shown."""
        plan, options = self.plan.plan, {"window_s": self.window_s, "before": before}
        if plan.cap_per_user is not None and metric.name == plan.primary.name:
            options["cap"] = ("y" if metric.kind == "mean" else "x", plan.cap_per_user)
        return self.log.cells(self.all_users, self.experiment, metric.name, is_rate=None, **options)

    def cells(self, metric: Metric, before: object = None) -> pd.DataFrame:
        """Sums of one metric over the users of the latest look due."""
        return self.due_part(self.everyone(metric, before), metric)

    def due_part(self, everyone: pd.DataFrame, metric: Metric) -> pd.DataFrame:
        """Those of the users of the latest look due.

        Raises:
            DataError: No user has an outcome of that name, or what is there is no rate.
        """
        found = up_to(everyone, self.due[-1].day)
        if fault := cells_fault(found, metric.name, is_rate=metric.kind == "rate"):
            raise DataError(f"{self.log.where}: {fault}")
        if not found["n_found"].to_numpy().any():
            tally = joined(self.log, self.all_users, self.experiment, metric.name, everyone)
            raise DataError(f"{self.log.where}: {nothing_counts(tally, self.experiment)}")
        return found

    def covariate(self, given: object) -> Any:
        """What users did before, as given or as the plan names it; None without either.

        Raises:
            DataError: It holds values from after a user's first exposure: they may be the treatment's doing.
        """
        name = self.plan.plan.covariate
        if given is None:
            return self.log.past(self.all_users, self.experiment, name) if name else None
        if n := self.log.after_exposure(self.all_users, given):
            raise DataError(
                f"{self.log.where}: {wording.plural(n, 'value')} of the covariate lie after their user's first exposure, where "
                f"the model may have moved them; give what users did before it"
            )
        return given

    @property
    def last_closed_day(self) -> float:
        """The last day whose users' windows have all closed."""
        window_s = self.plan.plan.outcome_window_days * DAY_S
        return (self.now_s - window_s) // DAY_S - 1 if math.isfinite(self.now_s) else math.inf

    def slices(self, metric: str) -> dict[str, pd.DataFrame]:
        """Sums of one metric in each slice."""
        return self.log.slice_cells(self.users, self.experiment, metric, window_s=self.window_s)

    @property
    def sliced(self) -> bool:
        """True when requests have slices, and outcomes can be counted in them."""
        plan = self.plan.plan
        return plan.primary.kind != "mean" and {"slice", "request_id"} <= set(
            self.log.exposures.columns
        )

    def guardrail(self, guardrail: Guardrail) -> Watched | None:
        """One guardrail measured by outcomes."""
        if guardrail.name in FROM_EXPOSURES:
            return None
        options: dict[str, Any] = {
            "experiment": self.experiment,
            "window_s": self.window_s,
            "alpha": self.plan.plan.alpha,
        }
        return watch(self.log, self.users, guardrail, **options)


def findings(ask: Question, *, before: object = None, slices: bool = True) -> Findings:
    """All that is read at the looks due; the first one that leaves the limits decides."""
    plan = ask.plan.plan
    kind, alpha = plan.primary.kind, plan.alpha
    facing = {"alpha": alpha, "lower_is_better": plan.primary.lower_is_better}
    everyone = ask.everyone(plan.primary)
    cells = ask.due_part(everyone, plan.primary)
    looks = read_looks(cells, ask.plan, ask.due, ask.bounds)
    at, primary = deciding(looks)
    decided = up_to(cells, ask.due[at].day)
    article = article_test(decided, alpha=alpha) if kind == "rate" else None
    same = ask.until(at)  # what stands beside the effect is of its users
    dated = decided if ask.log.timed else decided.iloc[:0]
    by_day = {date_of(day): effect(part, kind, **facing) for day, part in dated.groupby("day")}  # type: ignore[arg-type]
    sliced = slices and ask.sliced
    lost = ask.log.without_request(ask.experiment, plan.primary.name) if sliced else 0
    parts = same.slices(plan.primary.name) if sliced and not lost else {}
    by_slice = {name: effect(part, kind, **facing) for name, part in parts.items()}
    secondary = {
        one.name: effect(
            same.cells(one), one.kind, alpha=alpha, lower_is_better=one.lower_is_better
        )
        for one in plan.secondary
    }
    before = ask.covariate(before)
    cuped = (
        cuped_effect(same.cells(plan.primary, before), **facing)
        if before is not None and kind == "mean"
        else None
    )
    outcomes = joined(
        ask.log,
        ask.all_users,
        ask.experiment,
        plan.primary.name,
        everyone,
        level_is_low=_off(plan.primary, primary.control_rate, low=True),
    )
    over_all, last_phase = _beside(ask, everyone, decided, primary, facing)
    whole_weeks, days_to_weeks = _in_whole_weeks(ask, everyone, decided, facing)
    if primary.verdict == "too early":  # nothing of later users before the plan has decided
        whole_weeks = None
    return Findings(
        primary=primary,
        looks=looks,
        article=article,
        days=len(set(decided["day"])) if ask.log.timed else 0,
        design_effect=design_effect(primary, article),
        cuped=cuped,
        over_time=_over_time(dated, ask.plan),
        by_day=side_by_side(by_day, alpha=alpha),
        by_slice=side_by_side(by_slice, alpha=alpha),
        secondary=side_by_side(secondary, alpha=alpha),
        guardrails=tuple(one for one in map(ask.guardrail, plan.guardrails) if one),
        outcomes=outcomes,
        n_later=int(everyone["n"].to_numpy().sum() - decided["n"].to_numpy().sum()),
        over_all=over_all,
        last_phase=last_phase,
        whole_weeks=whole_weeks,
        days_to_weeks=days_to_weeks,
        notes=tuple(_notes(plan.primary, primary.control_rate, lost, outcomes, decided)),
        cells=decided,
        slice_cells=parts,
    )


def _beside(
    ask: Question,
    everyone: pd.DataFrame,
    decided: pd.DataFrame,
    primary: Effect,
    facing: Mapping[str, Any],
) -> tuple[Effect | None, Effect | None]:
    """The effect over all users, and over those of the last phase: only once the plan has decided."""
    metric = ask.plan.plan.primary
    if primary.verdict == "too early":
        return None, None
    closed, phases = up_to(everyone, ask.last_closed_day), set(decided["phase"])
    later = closed["n"].to_numpy().sum() > decided["n"].to_numpy().sum()
    fault = cells_fault(closed, metric.name, is_rate=metric.kind == "rate")
    over_all = effect(closed, metric.kind, **facing) if later and not fault else None
    last = decided.loc[decided["phase"] == max(phases)]
    return over_all, effect(last, metric.kind, **facing) if len(phases) > 1 else None


def _in_whole_weeks(
    ask: Question, everyone: pd.DataFrame, decided: pd.DataFrame, facing: Mapping[str, Any]
) -> tuple[Effect | None, int]:
    """The effect over the weeks that the users of the look had begun, and days until those are whole.

    They are whole when users have come until their last day and the windows of all are closed. A log that ended before
    never gets there: nobody knows what its other weekdays would have said.
    """
    metric, days = ask.plan.plan.primary, decided["day"].to_numpy()
    weeks = math.ceil((days.max() - days.min() + 1) / WEEK)
    until = int(days.min()) + weeks * WEEK - 1
    if more := max(0, until - int(min(ask.last_closed_day, everyone["day"].to_numpy().max()))):
        return None, more
    whole = up_to(everyone, until)
    fault = cells_fault(whole, metric.name, is_rate=metric.kind == "rate")
    return (None if fault else effect(whole, metric.kind, **facing)), 0


def _numbers(one: Effect | None) -> dict[str, Any] | None:
    """Without a verdict: it stands beside the effect that decides."""
    names = ("estimate", "ci_low", "ci_high", "alpha", "n", "control_rate", "treatment_rate")
    return one and {name: getattr(one, name) for name in (*names, "n_control", "n_treatment")}


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
    metric, looks = plan.plan.primary, plan.plan.looks
    facing = {"alpha": plan.plan.alpha, "lower_is_better": metric.lower_is_better}
    tests = [
        (
            one.look,
            replace(effect(up_to(cells, one.day), metric.kind, **facing), margin=metric.margin),
        )
        for one in due
    ]
    if looks == 1:
        return tuple(test for _, test in tests)
    return tuple(
        at_look(test, bound, look, looks)
        for (look, test), bound in zip(tests, bounds, strict=False)
    )


def deciding(looks: Sequence[Effect]) -> tuple[int, Effect]:
    """The first look that leaves the limits, else the latest; with its place."""
    return next(
        ((n, one) for n, one in enumerate(looks) if one.verdict in SETTLED),
        (-1, looks[-1]),
    )


def _over_time(cells: pd.DataFrame, plan: LockedPlan) -> tuple[Mapping[str, Any], ...]:
    found = []
    for day in sorted(set(cells["day"].tolist())):
        test = effect(up_to(cells, day), plan.plan.primary.kind, alpha=plan.plan.alpha)
        low = high = None
        if (
            test.estimate is not None
            and test.se
            and min(test.n_control, test.n_treatment) >= _SEQUENCE_FROM
        ):
            n_opt = max(1.0, plan.n_users / 2)
            low, high = confidence_sequence(
                test.estimate, test.se, test.n, n_opt, alpha=plan.plan.alpha
            )
        names = ("estimate", "ci_low", "ci_high", "n_control", "n_treatment")
        row = {name: getattr(test, name) for name in names} | {
            "sequence_low": low,
            "sequence_high": high,
        }
        found.append({"day": day, "date": date_of(day)} | row)
    return tuple(found)
