"""One reading of an A/B test: health first, the effect only when the plan allows it, every look on record."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pandas as pd

from evalkit import wording
from evalkit.abtest.analysis import Log, Note, Table, fetched, quiet
from evalkit.abtest.assignment import VARIANTS
from evalkit.abtest.effects import Effect, Watched
from evalkit.abtest.lock import LEDGER, LockedPlan, Look, Schedule, limits, read_looks, record_look
from evalkit.abtest.lock import schedule as scheduled
from evalkit.abtest.outcomes import FEWEST, Findings, Question, counted, findings
from evalkit.abtest.plan import DAY_S, ABPlan
from evalkit.errors import DataError
from evalkit.evidence import as_json
from evalkit.files import JsonObject, utc
from evalkit.records import OPEN_WINDOWS, Brief, Missing
from evalkit.stats import SampleRatioTest, sample_ratio_test, users_needed_mean

STRAY = 0.01  # share of exposures in no variant from which the log is refused: more than a handful is a fault of the router
CAUSES = (
    "rows lost on one side: one model's failures or time-outs are not logged",
    "users filtered after they were assigned, or bots on one side",
    "the split was changed without an amendment of the plan, or two routers run with different splits",
    "user ids that change (signed out, several devices), or two logs joined",
)
_SUMS = {
    "users": "n",
    "requests": "sum_x",
    "successes": "sum_y",
    "requests_squared": "sum_xx",
    "successes_requests": "sum_xy",
    "successes_squared": "sum_yy",
    "users_with_success": "n_hit",
    "users_with_failure": "n_miss",
}
_DAILY = ["day", "slice", "variant", "users", "requests", "successes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseUsers:
    """Users first seen in one phase, and whether the split is as declared."""

    phase: int
    traffic_split: float
    n_control: int
    n_treatment: int
    test: SampleRatioTest

    def to_dict(self) -> JsonObject:
        """Plain numbers."""
        names = ("phase", "traffic_split", "n_control", "n_treatment")
        tested = {"p_value": self.test.p_value, "verdict": self.test.verdict}
        return {name: getattr(self, name) for name in names} | tested


@dataclass(frozen=True, slots=True, kw_only=True)
class NoReading:
    """Nothing to read yet, and what to do about it; stands where a `Reading` would."""

    missing: tuple[Missing, ...]
    plan: LockedPlan | None = None
    simulated: bool = False
    timed: bool = True
    findings: None = None
    sample_ratio: tuple[()] = ()
    health: tuple[()] = ()
    guardrails: tuple[()] = ()
    verdict: str = "too early"
    valid: bool = True
    is_read: bool = True

    def effect(self) -> NoReading:
        """Itself: there is nothing to read an effect from."""
        return self

    def to_frame(self) -> pd.DataFrame:
        """As of a `Reading`, without a row."""
        return _daily(None, None)

    def sums(self) -> pd.DataFrame:
        """As of a `Reading`, with nothing known."""
        return _sums(None, None)

    def users(self) -> Table:
        """As of a `Reading`, without a user."""
        import ibis

        kinds = {"user_id": "string", "variant": "string", "phase": "int64"}
        kinds |= {"first_at_s": "float64", "requests": "int64", "in_both": "boolean"}
        with quiet():
            return ibis.memtable([], schema=ibis.schema(kinds))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Reading(Brief):
    """An A/B test as it may be read now.

    `read_ab_test` makes one whose effect has not been read too; its `effect()` is the same with the effect, if a look is due.

    Attributes:
        sample_ratio: Users against the declared split, phase by phase, before anything else.
        schedule: How far the test has come, and which looks are due.
        health: Failures, refusals and latency: from exposures alone, so always there.
        findings: The effect; None while it is withheld.
        notes: What is unusual about the log's exposures.
        recorded: False when the effect was due and is withheld, as this look could not be put on record.
        off_record: Why it could not be; "" when it could.
        is_read: False before `effect()`: no outcome has been looked at.
        timed: False where the log knows no times, so that nothing is shown by day.
        counts: Users and requests a phase, variant and day.
        opened: The log behind it.
    """

    plan: LockedPlan
    simulated: bool
    read_at: str
    sample_ratio: tuple[PhaseUsers, ...]
    schedule: Schedule
    health: tuple[Watched, ...]
    findings: Findings | None = None
    notes: tuple[Note, ...] = ()
    recorded: bool = True
    off_record: str = ""
    is_read: bool = False
    timed: bool = True
    counts: pd.DataFrame = field(repr=False, compare=False)
    opened: Question = field(repr=False, compare=False)

    def effect(self) -> Reading:
        """Reads the effect if a look is due, and puts the look on record; where it is withheld, says why in `missing`.

        Raises:
            DataError: The outcomes cannot be read.
        """
        ask, due = self.opened, self.schedule.due
        if self.is_read:
            return self
        found = findings(ask, due, self.bounds) if self.valid and due else None
        users = ask.users
        opened = replace(ask, users=users.log.users(users.experiment, kept=False))
        read = replace(self, findings=found, is_read=True, opened=opened)
        return read if ask.ledger is None else _on_record(read, ask.ledger)

    def to_frame(self) -> pd.DataFrame:
        """A row a day, slice and variant, of the users of the look that decides, as in the tables of days and slices.

        Columns: `day` (of a user's first request, UTC; missing where the log knows no times), `slice` (of the request; missing
        where the log has none), `variant`, `users` (who came that day; one with requests in two slices is in both), `requests`
        and `successes` (the sum of the outcome of the metric that decides). While the effect is withheld or not read: all
        users seen, not by slice, and no successes.
        """
        found = _daily(self.findings, self.counts)
        return found if self.timed else found.assign(day=found["day"].mask(found["day"].notna()))

    def sums(self) -> pd.DataFrame:
        """A row a variant: what the database summed over the users of the look that decides, phases together.

        Index: `variant`. Columns: `users`, `requests`, `successes` (the sum of the outcome, capped as planned); summed with a
        term a user, `requests_squared`, `successes_requests`, `successes_squared`; `users_with_success` and
        `users_with_failure` (users with at least one; one with both is in both). While the effect is withheld or not read:
        users and requests of all seen, the rest missing.
        """
        return _sums(self.findings, self.counts)

    def users(self) -> Table:
        """All users seen, as an Ibis table of the log's database; it holds no outcome, so it adds no look.

        Columns: `user_id`, `variant` and `phase` of the first request, `first_at_s` (its time, seconds since 1970; missing
        where the log knows none), `requests`, `in_both` (seen in both variants).
        """
        import ibis

        table = self.opened.users.table
        return table.select(
            "user_id",
            variant=(table.treated == 1).ifelse(VARIANTS[1], VARIANTS[0]),
            phase=table.phase,
            # not every engine makes a time of it
            first_at_s=table.first_at if self.timed else ibis.null("float64"),
            requests=table.n_rows,
            in_both=table.mixed == 1,
        )

    @property
    def valid(self) -> bool:
        """False when a phase's users do not fit the declared split."""
        return all(one.test.verdict != "invalid" for one in self.sample_ratio)

    @property
    def verdict(self) -> str:
        """Invalid, too early, or what the primary metric shows."""
        if not self.valid:
            return "invalid"
        return self.findings.primary.verdict if self.findings else "too early"

    @property
    def bounds(self) -> tuple[float, ...]:
        """Limits of |z| at the looks due and, as planned, at those to come."""
        return limits(self.schedule, self.plan)

    @property
    def guardrails(self) -> tuple[Watched, ...]:
        """Every declared guardrail that may be shown now."""
        declared = [one for one in self.health if one.margin is not None]
        return (*declared, *(self.findings.guardrails if self.findings else ()))

    @property
    def n_users(self) -> int:
        """Users seen."""
        return _total(self.counts, "n")

    @property
    def n_requests(self) -> int:
        """Their requests."""
        return _total(self.counts, "requests")

    @property
    def n_mixed(self) -> int:
        """Users seen in both variants; they count where they were seen first."""
        return _total(self.counts, "mixed")

    @property
    def days_seen(self) -> int:
        """Days on which users came; 0 where no times are known."""
        return len(set(self.counts["day"])) if self.timed else 0

    @property
    def came_first(self) -> str:
        """When the first user came, if that was before the plan was locked; "" when the plan was first."""
        if not self.n_users or not self.timed or self.simulated:
            return ""
        first = self.counts["first_at"].to_numpy().min()
        locked_s = datetime.fromisoformat(self.plan.locked_at).timestamp()
        return "" if first >= locked_s else utc(first)

    @property
    def missing(self) -> tuple[Missing, ...]:
        """What would settle it, and the numbers of its price."""
        test = self.findings.primary if self.findings else None
        if not self.valid:
            lacks = Missing(kind="sample_ratio")
        elif not self.recorded:
            lacks = Missing(kind="off_record", key=LEDGER)
        elif self.schedule.due and not self.is_read:
            lacks = Missing(kind="not_read")
        elif test and test.no_verdict:
            lacks = Missing(kind="no_verdict", said=test.no_verdict)
        elif test and test.verdict == "not shown" and test.margin:
            lacks = _to_keep(test, test.margin, self.plan.plan.power)
        elif test and test.verdict != "too early":
            return ()
        else:
            lacks = self._next_look()
        return (lacks,)

    def _next_look(self) -> Missing:
        state, closed = self.schedule, self.schedule.closed_control + self.schedule.closed_treatment
        return Missing(
            kind=OPEN_WINDOWS if self.n_users and not closed else "more_users",
            n=closed,
            more=state.users_more,
            needed=self.plan.n_users,
            days=state.days_more,
            look=(state.due[-1].look if state.due else 0) + 1,
            looks=self.plan.plan.looks,
        )

    def primary_dict(self) -> JsonObject:
        """The primary result as plain numbers; without any effect while that is withheld."""
        if self.findings and self.valid:
            return self.findings.primary.to_dict()
        closed = self.schedule.closed_control + self.schedule.closed_treatment
        return {"verdict": self.verdict, "n": closed}

    def to_dict(self) -> JsonObject:
        """Everything as plain numbers; where the effect is withheld nothing in it depends on an outcome."""
        plan, primary = self.plan, self.plan.plan.primary
        own = ("simulated", "read_at", "n_requests", "days_seen", "n_mixed", "n_users", "verdict")
        sizes = {name: getattr(plan, name) for name in ("n_control", "n_treatment", "days")}
        due = [asdict(one) | {"date": one.date} for one in self.schedule.due]
        looks = self.findings.looks if self.findings else ()
        return {
            **{name: getattr(self, name) for name in (*own, "recorded", "came_first")},
            "experiment": plan.plan.experiment_name,
            "plan_hash": plan.sha256,
            "locked_at": plan.locked_at,
            "planned": sizes | {"looks": plan.plan.looks},
            "metric": {"name": primary.name, "kind": primary.kind},
            "amendments": [asdict(one) for one in plan.amendments],
            "sample_ratio": [one.to_dict() for one in self.sample_ratio],
            "schedule": asdict(self.schedule) | {"due": due},
            "bounds": list(self.bounds),
            "health": [one.to_dict() for one in self.health],
            "guardrails": [one.to_dict() for one in self.guardrails],
            "primary": self.primary_dict(),
            "missing": as_json(self.missing),
            "notes": [asdict(one) for one in self.notes],
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
    effect: bool = True,
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
        effect: False stops where outcomes begin, with the sample ratio and what exposures say: no look, none on record.

    Raises:
        DataError: The log has no users of this experiment, or is not this test's log.
    """
    at = now.timestamp() if isinstance(now, datetime) else time.time() if now is None else now
    notes = (*log.notes, *_exposed(log, plan.plan))
    window_s = plan.plan.outcome_window_days * DAY_S or math.inf
    users = log.users(plan.plan.experiment_name, window_s=window_s)
    counts = users.counts()
    options = {"before": before, "slices": slices, "ledger": ledger, "run": run}
    ask = Question(plan=plan, users=users, at_s=at, **options)
    found = Reading(
        plan=plan,
        simulated=log.simulated,
        read_at=utc(at),
        sample_ratio=_sample_ratio(counts, plan),
        schedule=scheduled(counts, plan, at),
        health=ask.health() if len(counts) else (),
        notes=notes,
        timed=log.timed,
        counts=counts,
        opened=ask,
    )
    return found.effect() if effect else found


def _on_record(reading: Reading, path: Path) -> Reading:
    """The reading, once its look is on record.

    Where the ledger cannot be written (a read-only folder, a full disk) the effect is withheld, as a look that is not on
    record is a peek; not so when this very look, planned and of the same plan, was recorded before: it keeps its users.
    """
    look = _ledger_line(reading)
    try:
        record_look(path, look)
        return reading
    except DataError as why:
        read = replace(reading, off_record=str(why))
    same = ("experiment", "plan_sha256", "look")
    before = [one for one in read_looks(path) if one.effect_shown] if look.look is not None else []
    known = any(all(getattr(one, k) == getattr(look, k) for k in same) for one in before)
    withheld = reading.findings is not None and not known
    return replace(read, findings=None, recorded=False) if withheld else read


def _exposed(log: Log, plan: ABPlan) -> Iterator[Note]:
    """What a reader must know of a plan's exposures: those in no variant, and those another model answered.

    A variant that never names its own model, nor the other one's, goes by another name in the log and is no fault.

    Raises:
        DataError: More than `STRAY` of them are in no variant; the message names the values.
    """
    found = fetched(log.answered(plan.experiment_name)).fillna({"variant": "", "model": ""})
    total = int(found["total"].max()) if len(found) else 0
    inside = found["variant"].isin(VARIANTS)
    if n := total - int(found.loc[inside, "n"].sum()):
        strays = found.loc[~inside].groupby("variant", sort=False)["n"].sum().to_dict()
        if n > max(STRAY * total, min(FEWEST, total / 10)):
            raise DataError(
                f"{log.where}: {wording.count(n)} of {wording.plural(total, 'exposure')} have a variant other than control and "
                f"treatment: {wording.listed(counted(strays))}; name the variants so before the test is read, or say what they "
                f"are called: control_variant and treatment_variant in study.yaml"
            )
        yield Note(kind="strays", n=n, of=total, names=strays)
    models = plan.control_model, plan.treatment_model
    for variant, own in zip(VARIANTS, models, strict=True):
        rows = found.loc[(found["variant"] == variant) & (found["model"] != "")]
        named = dict(zip(rows["model"], rows["n"].tolist(), strict=True))
        others = {name: n for name, n in named.items() if name != own}
        if others and models[0] != models[1] and {*models} & {*named}:
            wrong, of = sum(others.values()), sum(named.values())
            yield Note(kind="other_model", n=wrong, of=of, names=others, about=variant)


def _sample_ratio(counts: pd.DataFrame, plan: LockedPlan) -> tuple[PhaseUsers, ...]:
    found = []
    for one in plan.phases:
        rows = counts.loc[counts["phase"] == one.phase]
        old, new = (_total(rows.loc[rows["treated"] == arm], "n") for arm in (0, 1))
        if old or new or one.phase == 1:
            split = one.traffic_split
            share = plan.plan.changed(traffic_split=split).config().treated_share
            test = sample_ratio_test([old, new], [1 - share, share])
            users = {"n_control": old, "n_treatment": new, "test": test}
            found.append(PhaseUsers(phase=one.phase, traffic_split=split, **users))
    return tuple(found)


def _to_keep(test: Effect, margin: float, power: float) -> Missing:
    """A test that rules out a loss of the margin, at the difference and the spread seen."""
    gain = -(test.estimate or 0.0) if test.lower_is_better else test.estimate or 0.0
    size = {"margin": margin, "shown_as": test.shown_as}
    if gain + margin <= 0 or not test.se:
        return Missing(kind="no_users_would", **size)
    sd = test.se * test.n**0.5 / 2  # of two equal groups with this error
    n = users_needed_mean(sd, gain + margin, alpha=test.alpha, power=power).total
    return Missing(kind="larger_test", needed=n, **size)


def _ledger_line(reading: Reading) -> Look:
    state, done, plan = reading.schedule, reading.findings, reading.plan
    look = done.primary.look if done else None
    due = next((one for one in state.due if one.look == look), None)
    last = reading.counts["last_at"].to_numpy() if reading.timed else ()
    control, treatment = reading.sums()["successes"].to_numpy(dtype=float).tolist()
    return Look(
        experiment=plan.plan.experiment_name,
        plan_sha256=plan.sha256,
        look=look,
        run=reading.opened.run,
        information=due.information if due else state.information,
        verdict=reading.verdict,
        n_control=due.n_control if due else state.closed_control,
        n_treatment=due.n_treatment if due else state.closed_treatment,
        effect_shown=done is not None,
        control_model=plan.plan.control_model,
        treatment_model=plan.plan.treatment_model,
        simulated=reading.simulated,
        n_requests=reading.n_requests,
        last_user=utc(max(last)) if len(last) else "",
        estimate=done.primary.estimate if done else None,
        sum_control=control if done else None,
        sum_treatment=treatment if done else None,
    )


def _total(counts: pd.DataFrame, column: str) -> int:
    return int(counts[column].to_numpy().sum())


def _sums(found: Findings | None, counts: pd.DataFrame | None) -> pd.DataFrame:
    """A row a variant: what the database summed over users; while the effect is withheld, only what `counts` has."""
    variants = pd.CategoricalIndex(VARIANTS, categories=VARIANTS, name="variant")
    sums = pd.DataFrame(math.nan, index=variants, columns=list(_SUMS))
    table = found.cells if found else counts
    for name, column in (_SUMS if found else {"users": "n", "requests": "requests"}).items():
        if table is not None:
            values, treated = table[column].to_numpy(dtype=float), table["treated"].to_numpy()
            sums[name] = [values[treated == arm].sum() for arm in (0, 1)]
    return sums.fillna({"users": 0.0}).astype({"users": "int64"})


def _daily(found: Findings | None, counts: pd.DataFrame | None) -> pd.DataFrame:
    """A row a day, slice and variant; arguments as for `_sums`."""
    slices = dict(sorted(found.slice_cells.items())) if found else {}
    whole = found.cells if found else counts
    if whole is None:
        whole = pd.DataFrame(columns=["day", "treated", "n", "requests"])
    parts = [one.assign(slice=name) for name, one in (slices or {None: whole}).items()]
    cells: pd.DataFrame = pd.concat(parts)
    if "sum_y" not in cells.columns:  # counts: no outcome has been looked at
        cells = cells.assign(sum_x=cells["requests"], sum_y=math.nan)
    by_day = cells.groupby(["slice", "day", "treated"], dropna=False)
    table = pd.DataFrame({name: by_day[_SUMS[name]].sum(min_count=1) for name in _DAILY[3:]})
    table = table.reset_index()
    table = table.assign(
        day=pd.to_datetime(table["day"].astype(float) * DAY_S, unit="s", utc=True),
        slice=pd.Categorical(table["slice"], categories=list(slices)),
        variant=pd.Categorical.from_codes(table["treated"].astype(int), categories=VARIANTS),
    ).astype({"users": "Int64", "requests": float, "successes": float})
    table = table.reindex(columns=_DAILY)
    return table.sort_values(by=["day", "slice", "variant"], ignore_index=True)
