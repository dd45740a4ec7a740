"""One reading of an A/B test: health first, the effect only when the plan allows it, every look on record."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit import wording
from evalkit.abtest import frames
from evalkit.abtest.analysis import Log, exposed
from evalkit.abtest.effects import Effect
from evalkit.abtest.findings import WEEK, Findings, Question, findings
from evalkit.abtest.guardrails import Watched, watch_health
from evalkit.abtest.lock import LockedPlan
from evalkit.abtest.looks import Look, read_looks, record_look
from evalkit.abtest.schedule import Schedule, limits, schedule
from evalkit.errors import DataError
from evalkit.records import Brief, Missing
from evalkit.stats import SampleRatioTest, sample_ratio_test, users_needed_mean

if TYPE_CHECKING:
    import pandas as pd

OPEN_WINDOWS = "open_windows"  # users came, and none counts yet: not the same as an empty log
CAUSES = (
    "rows lost on one side: one model's failures or time-outs are not logged",
    "users filtered after they were assigned, or bots on one side",
    "the split was changed without an amendment of the plan, or two routers run with different splits",
    "user ids that change (signed out, several devices), or two logs joined",
)
_LARGER = "Run a larger test, under a new plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseUsers:
    """Users first seen in one phase, and whether the split is as declared."""

    phase: int
    traffic_split: float
    n_control: int
    n_treatment: int
    test: SampleRatioTest


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a reading came from: the log, while it is open, and where a look goes.

    Attributes:
        users: From `Log.users`, kept by the engine until the effect is read; then None.
        at_s: When it is read, seconds since 1970.
        counts: Users and requests a phase, variant and day.
        before: As for `read_ab_test`, and so are `slices`, `ledger` and `run`.
    """

    log: Log
    users: Any
    at_s: float
    counts: pd.DataFrame
    before: Any = None
    slices: bool = True
    ledger: Path | None = None
    run: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Reading(Brief):
    """An A/B test as it may be read now.

    `read_health` makes one whose effect has not been read; its `effect()` is the same with the effect, if a look is due.

    Attributes:
        sample_ratio: Users against the declared split, phase by phase, before anything else.
        n_mixed: Users seen in both variants; they count where they were seen first.
        schedule: How far the test has come, and which looks are due.
        bounds: Limits of |z| at the looks due and, as planned, at those to come.
        health: Failures, refusals and latency: from exposures alone, so always there.
        findings: The effect; None while it is withheld.
        missing: What would settle it, and its price.
        recorded: False when the effect was due and is withheld, as this look could not be put on record.
        is_read: False before `effect()`: no outcome has been looked at.
        timed: False where the log knows no times, so that nothing is shown by day.
        came_first: When the first user came, if that was before the plan was locked; "" when the plan was first.
        opened: The log behind it.
    """

    plan: LockedPlan
    simulated: bool
    read_at: str
    n_requests: int
    days_seen: int
    sample_ratio: tuple[PhaseUsers, ...]
    n_mixed: int
    schedule: Schedule
    bounds: tuple[float, ...]
    health: tuple[Watched, ...]
    findings: Findings | None
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]
    recorded: bool = True
    is_read: bool = True
    timed: bool = True
    came_first: str = ""
    opened: Opened | None = field(default=None, repr=False, compare=False)

    def effect(self) -> Reading:
        """Reads the effect if a look is due, and puts the look on record; where it is withheld, says why in `missing`.

        Raises:
            DataError: The outcomes cannot be read.
        """
        ask = self.opened
        if self.is_read or ask is None:
            return self
        found = None
        if self.valid and self.schedule.due:
            question = Question(
                ask.log, ask.users, self.plan, self.schedule.due, self.bounds, ask.at_s
            )
            found = findings(question, before=ask.before, slices=ask.slices)
        read = replace(
            self,
            findings=found,
            is_read=True,
            missing=_missing(self.sample_ratio, self.schedule, found, self.plan),
            notes=(*self.notes, *_notes_on_effect(found)),
            opened=replace(ask, users=None),
        )
        return read if ask.ledger is None else _on_record(read, ask.ledger, ask.run)

    def to_frame(self) -> pd.DataFrame:
        """A row a day, slice and variant, of the users of the look that decides, as in the tables of days and slices.

        Columns: `day` (of a user's first request, UTC; missing where the log knows no times), `slice` (of the request; missing
        where the log has none), `variant`, `users` (who came that day; one with requests in two slices is in both), `requests`
        and `successes` (the sum of the outcome of the metric that decides). While the effect is withheld or not read: all
        users seen, not by slice, and no successes.
        """
        done = self.findings
        counts = self.opened.counts if self.opened else None
        found = frames.daily(done.cells if done else None, done.slice_cells if done else {}, counts)
        return found if self.timed else found.assign(day=found["day"].mask(found["day"].notna()))

    def sums(self) -> pd.DataFrame:
        """A row a variant: what the database summed over the users of the look that decides, phases together.

        Index: `variant`. Columns: `users`, `requests`, `successes` (the sum of the outcome, capped as planned); summed with a
        term a user, `requests_squared`, `successes_requests`, `successes_squared`; `users_with_success` and
        `users_with_failure` (users with at least one; one with both is in both). While the effect is withheld or not read:
        users and requests of all seen, the rest missing.
        """
        return frames.sums(self._decided(), self.opened.counts if self.opened else None)

    def _decided(self) -> pd.DataFrame | None:
        """The cells of the look that decides."""
        return None if self.findings is None else self.findings.cells

    def users(self) -> Any:
        """All users seen, as an Ibis table of the log's database; it holds no outcome, so it adds no look.

        Columns: `user_id`, `variant` and `phase` of the first request, `first_at_s` (its time, seconds since 1970; missing
        where the log knows none), `requests`, `in_both` (seen in both variants).
        """
        ask = self.opened
        if ask is None:
            return frames.users(None)
        known = (
            ask.users
            if ask.users is not None
            else ask.log.users_query(self.plan.plan.experiment_name)
        )
        return frames.users(known, timed=self.timed)

    @property
    def valid(self) -> bool:
        """False when a phase's users do not fit the declared split."""
        return _is_valid(self.sample_ratio)

    @property
    def verdict(self) -> str:
        """Invalid, too early, or what the primary metric shows."""
        if not self.valid:
            return "invalid"
        return self.findings.primary.verdict if self.findings else "too early"

    @property
    def guardrails(self) -> tuple[Watched, ...]:
        """Every declared guardrail that may be shown now."""
        return (
            *(one for one in self.health if one.margin is not None),
            *(self.findings.guardrails if self.findings else ()),
        )

    @property
    def n_users(self) -> int:
        """Users seen."""
        return sum(one.n_control + one.n_treatment for one in self.sample_ratio)

    def primary_dict(self) -> dict[str, Any]:
        """The primary result as plain numbers; without any effect while that is withheld."""
        if self.findings and self.valid:
            return self.findings.primary.to_dict()
        return {
            "verdict": self.verdict,
            "n": self.schedule.closed_control + self.schedule.closed_treatment,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers; where the effect is withheld nothing in it depends on an outcome."""
        own = (
            "simulated",
            "read_at",
            "n_requests",
            "days_seen",
            "n_mixed",
            "n_users",
            "verdict",
            "recorded",
            "came_first",
        )
        looks = self.findings.looks if self.findings else ()
        plan = self.plan
        return {
            **{name: getattr(self, name) for name in own},
            "experiment": plan.plan.experiment_name,
            "plan_hash": plan.sha256,
            "locked_at": plan.locked_at,
            "planned": {
                "n_control": plan.n_control,
                "n_treatment": plan.n_treatment,
                "days": plan.days,
                "looks": plan.plan.looks,
            },
            "metric": {"name": plan.plan.primary.name, "kind": plan.plan.primary.kind},
            "amendments": [asdict(one) for one in plan.amendments],
            "sample_ratio": [
                {
                    name: getattr(one, name)
                    for name in ("phase", "traffic_split", "n_control", "n_treatment")
                }
                | {"p_value": one.test.p_value, "verdict": one.test.verdict}
                for one in self.sample_ratio
            ],
            "schedule": {
                **asdict(self.schedule),
                "due": [asdict(one) | {"date": one.date} for one in self.schedule.due],
            },
            "bounds": list(self.bounds),
            "health": [one.to_dict() for one in self.health],
            "guardrails": [one.to_dict() for one in self.guardrails],
            "primary": self.primary_dict(),
            "missing": [asdict(one) for one in self.missing],
            "notes": list(self.notes),
            "causes": list(CAUSES) if not self.valid else [],
            "looks": [one.to_dict() for one in looks],
            "days": self.days_seen,
            "users": self.n_users,
            **({"findings": self.findings.to_dict()} if self.findings else {}),
        }


def read_ab_test(
    log: Log,
    plan: LockedPlan,
    *,
    now: datetime | float | None = None,
    before: object = None,
    slices: bool = True,
    ledger: Path | None = None,
    run: str = "",
) -> Reading:
    """Reads a test as its plan allows: sample ratio first, then health, then the effect if a look is due.

    While the effect is withheld no outcome is read at all. A look that is due keeps its users: reading it again, however
    late, shows the same difference.

    Args:
        log: From `open_log`, or any Ibis tables as `Log(exposures=..., outcomes=...)`.
        plan: The locked plan.
        now: Time of reading; the present when not given.
        before: For CUPED: a table of user_id and value from before the experiment, with at_s where it is known; instead of
            the covariate that the plan names.
        slices: Also by slice, when the log has any.
        ledger: File to which this look is appended before anything is returned; where it cannot be, no effect is.
        run: Name of the run, for the ledger.

    Raises:
        DataError: The log has no users of this experiment, or is not this test's log.
    """
    opened = {"before": before, "slices": slices, "ledger": ledger, "run": run}
    return read_health(log, plan, now=now, **opened).effect()


def read_health(
    log: Log,
    plan: LockedPlan,
    *,
    now: datetime | float | None = None,
    before: object = None,
    slices: bool = True,
    ledger: Path | None = None,
    run: str = "",
) -> Reading:
    """As `read_ab_test`, up to where outcomes begin: the sample ratio and what exposures say; no look, none on record."""
    at = now.timestamp() if isinstance(now, datetime) else time.time() if now is None else now
    seen = exposed(log, plan.plan.experiment_name)
    users = log.users(plan.plan.experiment_name)
    counts = log.counts(users)
    ratio = _sample_ratio(counts, plan)
    state = schedule(counts, plan, at)
    watched = {"experiment": plan.plan.experiment_name, "alpha": plan.plan.alpha}
    health = watch_health(log, users, plan.plan.guardrails, **watched) if len(counts) else ()
    came_first = _came_first(counts, plan) if log.timed and not log.simulated else ""
    return Reading(
        plan=plan,
        simulated=log.simulated,
        read_at=datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds"),
        n_requests=_total(counts, "requests"),
        days_seen=len(set(counts["day"].tolist())) if log.timed else 0,
        sample_ratio=ratio,
        n_mixed=_total(counts, "mixed"),
        schedule=state,
        bounds=limits(state, plan),
        health=tuple(health),
        findings=None,
        missing=_unread(ratio, state, plan),
        notes=(
            *log.notes,
            *seen.notes(plan.plan),
            *_notes(counts, plan, came_first, timed=log.timed),
        ),
        is_read=False,
        timed=log.timed,
        came_first=came_first,
        opened=Opened(
            log=log,
            users=users,
            at_s=at,
            counts=counts,
            before=before,
            slices=slices,
            ledger=ledger,
            run=run,
        ),
    )


def _on_record(reading: Reading, ledger: Path, run: str) -> Reading:
    """The reading, once its look is on record.

    Where the ledger cannot be written (a read-only folder, a full disk) the effect is withheld, as a look that is not on
    record is a peek; not so when this very look, planned and of the same plan, was recorded before: it keeps its users.
    """
    look = _ledger_line(reading, run)
    try:
        record_look(ledger, look)
        return reading
    except DataError as why:
        told = f"this look could not be put on record ({why})"
    if reading.findings is None:
        return replace(reading, notes=(*reading.notes, told))
    if look.look is not None and any(_same(one, look) for one in read_looks(ledger)):
        told += "; the same look was recorded before, so its effect is shown"
        return replace(reading, notes=(*reading.notes, told))
    action, why = (
        f"Make {ledger.name} writable and read the test again",
        "a look off the record is a peek",
    )
    return replace(
        reading,
        findings=None,
        recorded=False,
        missing=(Missing(action=action, why=f"{why}, so the effect is withheld", price="minutes"),),
        notes=(*reading.notes, told),
    )


def _same(one: Look, other: Look) -> bool:
    return one.effect_shown and all(
        getattr(one, name) == getattr(other, name) for name in ("experiment", "plan_sha256", "look")
    )


def _sample_ratio(counts: pd.DataFrame, plan: LockedPlan) -> tuple[PhaseUsers, ...]:
    found = []
    for phase in plan.phases:
        rows = counts[counts["phase"] == phase.phase]
        control, treatment = (_total(rows[rows["treated"] == arm], "n") for arm in (0, 1))
        if control + treatment or phase.phase == 1:
            share = plan.plan.changed(traffic_split=phase.traffic_split).config().treated_share
            test = sample_ratio_test([control, treatment], [1 - share, share])
            users = {"n_control": control, "n_treatment": treatment}
            found.append(
                PhaseUsers(phase=phase.phase, traffic_split=phase.traffic_split, test=test, **users)
            )
    return tuple(found)


def _unread(
    ratio: tuple[PhaseUsers, ...], state: Schedule, plan: LockedPlan
) -> tuple[Missing, ...]:
    if state.due and _is_valid(ratio):
        why, price = "a look is due, and the effect is not read yet", "a line in the ledger"
        return (Missing(action="Read the effect", why=why, price=price),)
    return _missing(ratio, state, None, plan)


def _missing(
    ratio: tuple[PhaseUsers, ...], state: Schedule, found: Findings | None, plan: LockedPlan
) -> tuple[Missing, ...]:
    if not _is_valid(ratio):
        why = "users do not fit the declared split, so no difference between the variants can be trusted"
        return (
            Missing(
                action="Find out why the sample ratio is off, and start again",
                why=why,
                price="a new test",
            ),
        )
    if found and found.primary.no_verdict:
        action = (
            "Cap what one user may bring, run longer or split the traffic equally, under a new plan"
        )
        return (Missing(action=action, why=found.primary.no_verdict, price="a new test"),)
    if found and found.primary.verdict == "not shown" and found.primary.margin:
        return (_to_keep(found.primary, found.primary.margin, plan.plan.power),)
    if found and found.primary.verdict != "too early":
        return ()
    looks, done = plan.plan.looks, state.due[-1].look if state.due else 0
    action = "More users" if state.users_more else "Wait for outcomes"
    action += "" if looks == 1 else f", for look {done + 1} of {looks}"
    closed = state.closed_control + state.closed_treatment
    count = f"{wording.count(closed)} of {wording.count(plan.n_users)} planned users count so far"
    why = f"{count}: those whose outcome window has closed"
    came = sum(one.n_control + one.n_treatment for one in ratio)
    kind = OPEN_WINDOWS if came and not closed else ""
    return (Missing(action=action, why=why, price=state.price, kind=kind),)


def _is_valid(ratio: tuple[PhaseUsers, ...]) -> bool:
    return all(one.test.verdict != "invalid" for one in ratio)


def _to_keep(test: Effect, margin: float, power: float) -> Missing:
    """A test that rules out a loss of the margin, at the difference and the spread seen."""
    why, action = f"a loss of {wording.loss(margin, test.shown_as)} is not ruled out", _LARGER
    gain = -(test.estimate or 0.0) if test.lower_is_better else test.estimate or 0.0
    if gain + margin <= 0 or not test.se:
        price = "no number of users would: the loss seen is as large as the margin"
        return Missing(action=action, why=why, price=price)
    sd = test.se * test.n**0.5 / 2  # of two equal groups with this error
    n = users_needed_mean(sd, gain + margin, alpha=test.alpha, power=power).total
    price = f"about {wording.count(n)} users, if the difference seen is the true one"
    return Missing(action=action, why=why, price=price)


def _came_first(counts: pd.DataFrame, plan: LockedPlan) -> str:
    """The time of the first user who came before the plan was locked; "" when nobody did."""
    first = counts["first_at"].to_numpy().min() if _total(counts, "n") else math.inf
    return "" if first >= datetime.fromisoformat(plan.locked_at).timestamp() else _utc(first)


def _utc(at_s: float) -> str:
    return datetime.fromtimestamp(float(at_s), UTC).isoformat(timespec="seconds")


def _notes(
    counts: pd.DataFrame, plan: LockedPlan, came_first: str, *, timed: bool
) -> tuple[str, ...]:
    notes, n, mixed = [], _total(counts, "n"), _total(counts, "mixed")
    if not n:
        notes.append(f"the log has no users of experiment {plan.plan.experiment_name}")
    if mixed:
        why = (
            "the split was raised while they used it"
            if len(plan.phases) > 1
            else "ids shared, or two splits at work"
        )
        share = f"{wording.plural(mixed, 'user')} of {wording.count(n)}"
        notes.append(f"{share} seen in both variants ({why}); each counts where seen first")
    if came_first:
        notes.append(
            f"the plan was locked on {plan.locked_at[:10]}, after users had come (from {came_first[:10]}): it was not made "
            f"before the facts"
        )
    primary = plan.plan.primary
    if primary.detectable_difference < 0 and not primary.lower_is_better:
        notes.append(
            f"the plan looks for a fall of {primary.name} and counts higher as better; where a fall is good, a new plan says "
            f"better: lower"
        )
    if timed and not plan.plan.outcome_window_days:
        notes.append(
            "no outcome window is planned: outcomes of later days still change what was read, and looks count users seen"
        )
    return tuple(notes)


def _notes_on_effect(found: Findings | None) -> tuple[str, ...]:
    if found is None:
        return ()
    came = wording.plural(found.days, "day")
    weeks = (
        f"the users of this look came on {came}, not in whole weeks: weekdays may weigh unevenly"
    )
    return (*((weeks,) if found.days % WEEK else ()), *found.notes)


def _total(counts: Any, column: str) -> int:
    return int(counts[column].to_numpy().sum())


def _ledger_line(reading: Reading, run: str) -> Look:
    state, look = reading.schedule, reading.findings.primary.look if reading.findings else None
    due = next((one for one in state.due if one.look == look), None)
    came = reading.opened.counts["last_at"].to_numpy() if reading.opened and reading.timed else ()
    summed: list[float | None] = [None, None]
    if reading.findings:
        summed = reading.sums()["successes"].to_numpy(dtype=float).tolist()
    return Look(
        experiment=reading.plan.plan.experiment_name,
        plan_sha256=reading.plan.sha256,
        look=look,
        run=run,
        information=due.information if due else state.information,
        verdict=reading.verdict,
        n_control=due.n_control if due else state.closed_control,
        n_treatment=due.n_treatment if due else state.closed_treatment,
        effect_shown=reading.findings is not None,
        control_model=reading.plan.plan.control_model,
        treatment_model=reading.plan.plan.treatment_model,
        simulated=reading.simulated,
        n_requests=reading.n_requests,
        last_user=_utc(max(came)) if len(came) else "",
        estimate=reading.findings.primary.estimate if reading.findings else None,
        sum_control=summed[0],
        sum_treatment=summed[1],
    )
