"""A plan made binding: one JSON file with the plan, its hash and its time; what changes later, and every look, stays for ever.

`plan.lock.json`: `{"kind": "evalkit-plan", "version": 1, "plan": {...}, "sha256": ..., "locked_at": ..., "amendments": [...]}`.
`sha256` is taken over the plan as canonical JSON; an amendment holds the whole plan as it stands from then on, and hashes what
came before it along with itself. The ledger beside the file knows the file's own hash since each lock and amendment, so that no
time in it can be changed and no last amendment dropped unseen; and it has a line for every time somebody read the effect, which
names the hash it was read under.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec

from evalkit import files, ledger, stats
from evalkit.abtest.assignment import ABTestConfig
from evalkit.abtest.plan import DAY_S, ABPlan
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, alone, utc
from evalkit.records import Against, Brief
from evalkit.study import Study
from evalkit.wording import is_blank, without_secrets

if TYPE_CHECKING:
    import pandas as pd


KIND = "evalkit-plan"
PLAN_FILE, LEDGER = "plan.lock.json", ledger.FILE
_REMEDY = "a locked plan is changed by amend() only. Restore the file"
_FIXED = (
    "experiment_name",
    "control_model",
    "treatment_model",
    "primary",
    "hash",
    "hash_seed",
    "alpha",
    "covariate",
    "control_variant",
    "treatment_variant",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment:
    """One change of a locked plan: when, why, and what, as `{name: (old, new)}`."""

    at: str
    reason: str
    changed: Mapping[str, tuple[object, object]]
    phase: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of time with one split."""

    phase: int
    from_at: str
    traffic_split: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LockedPlan(Brief):
    """A plan as locked.

    Attributes:
        plan: As it stands now.
        first: As it was locked.
        n_control: Users planned for control, as locked: a later version of evalkit does not change it.
        n_treatment: Users planned for treatment, as locked.
        days: Days planned, as locked.
        sha256: Hash of the plan and all amendments.
        locked_at: UTC time of the lock, ISO 8601.
        phases: The splits, one after the other.
    """

    path: Path
    plan: ABPlan
    first: ABPlan
    n_control: int
    n_treatment: int
    days: int
    sha256: str
    locked_at: str
    amendments: tuple[Amendment, ...]
    phases: tuple[Phase, ...]

    @property
    def n_users(self) -> int:
        """Users planned in all."""
        return self.n_control + self.n_treatment

    def to_frame(self) -> pd.DataFrame:
        """As of an `ABPlan`, a row a planned look, with the users that were locked."""
        looks = self.plan.to_frame()
        names = ("n_control", "n_treatment")
        users = {name: looks["information"] * getattr(self, name) for name in names}
        return looks.assign(**{name: one.round().astype(int) for name, one in users.items()})

    @property
    def config(self) -> ABTestConfig:
        """What the router needs now: the present split, and its phase."""
        return self.plan.config(phase=self.phases[-1].phase)


def lock(plan: ABPlan, path: str | Path, *, now: datetime | None = None) -> LockedPlan:
    """Locks a plan; the same one again changes nothing.

    Raises:
        DesignError: Another plan is locked there; the message says what differs and what to do.
    """
    path = Path(path)
    if not isinstance(plan, ABPlan):
        raise DesignError(f"got {plan!r:.60} to lock; need an ABPlan")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"kind": KIND, "version": 1, "plan": plan.to_dict(), "locked_at": utc(now)}
        record |= {"sha256": _hash(record["plan"]), "amendments": []}
        with alone(path.parent):  # of several runs at once one locks
            if not path.exists():
                _put(path, "plan locked", record)
    locked = read_lock(path)
    if plan not in (locked.plan, locked.first):
        names = ", ".join(_differences(locked.plan, plan))
        raise DesignError(
            f"{path}: another plan is locked (it differs in {names}); change a running test by amend(path, reason, ...), and "
            f"lock a new one under a new experiment_name in another study or file"
        )
    return locked


def _put(path: Path, kind: str, record: JsonObject) -> None:
    """The plan's file, once the ledger beside it knows its hash: all of it, the times too."""
    text, last = files.to_json(record, sort_keys=True), (record["amendments"] or [record])[-1]
    facts = {"experiment": record["plan"]["experiment_name"], "plan_sha256": last["sha256"]}
    if record["amendments"]:
        facts |= {"before": ledger.sha256_of(path), "amendment": last}
    sealed = {path.name: hashlib.sha256(text).hexdigest()}
    ledger.append(path.with_name(LEDGER), kind, facts | {"files": sealed})
    files.write_whole(path, text)


def amend(
    path: str | Path, reason: str, *, now: datetime | None = None, **changes: Any
) -> LockedPlan:
    """Changes a locked plan from now on, and keeps the change on record; another split opens a new phase.

    Args:
        path: The lock file.
        reason: Why; printed in every report.
        now: Time of the change; the present when not given.
        changes: Fields of `ABPlan` with their new values.

    Raises:
        DesignError: No reason, nothing changed, a field that would make it another test, or a split that would take treated
            users back.
    """
    path = Path(path)
    if fixed := [name for name in changes if name in _FIXED]:
        raise DesignError(
            f"{', '.join(fixed)} cannot be amended: that is another test; lock a new plan under a new name"
        )
    read_lock(path).plan.changed(**changes)  # says what is wrong before a folder is held
    if _completed(path) and (whole := read_lock(path)).plan == whole.plan.changed(**changes):
        return whole
    ledger.check(path.parent, path.name)
    with alone(path.parent):  # so that an amendment of the same moment is not lost
        locked, record = read_lock(path), _read(path)
        old, plan = locked.plan, locked.plan.changed(**changes)
        if not isinstance(reason, str) or is_blank(reason) or plan == old:
            raise DesignError("an amendment needs a reason and at least one changed value")
        if not old.config().keeps(plan.config()):
            raise DesignError(
                f"traffic_split {plan.traffic_split} with coverage {plan.coverage} takes users out of treatment who are in it "
                f"now, as GrowthBook's variations have stretches of their own; raise the coverage, not the split"
            )
        phase = locked.phases[-1].phase + (plan.traffic_split != old.traffic_split)
        entry = {"at": utc(now), "reason": without_secrets(reason), "phase": phase}
        entry |= {"plan": plan.to_dict()}
        record["amendments"].append(entry | {"sha256": _hash([locked.sha256, entry])})
        _put(path, "plan amended", record)
        return read_lock(path)


def _completed(path: Path) -> bool:
    """Whether the last amendment stood in the ledger alone, for a kill kept it from the file, where it is now."""
    with alone(path.parent):
        lines = [*ledger.read(path.with_name(LEDGER)).of("plan locked", "plan amended")]
        last = lines[-1].facts if lines else {}
        if last.get("before") != ledger.sha256_of(path):
            return False
        record = _read(path)
        record["amendments"].append(last["amendment"])
        files.write_whole(path, files.to_json(record, sort_keys=True))
        return True


def read_lock(path: str | Path) -> LockedPlan:
    """Reads a locked plan and checks its hashes.

    Raises:
        DataError: No plan is locked there, or the file was changed by hand.
    """
    path = Path(path)
    record = _read(path)
    head, last, at = record["sha256"], record["plan"], record["locked_at"]
    _check(head, last, path)
    first = plan = _plan(last, path)
    amendments, phases = list[Amendment](), [Phase(1, at, first.traffic_split)]
    for entry in record["amendments"]:
        body = {name: value for name, value in entry.items() if name != "sha256"}
        _check(entry["sha256"], [head, body], path)
        head, last, before = entry["sha256"], entry["plan"], plan
        plan = _plan(last, path)
        own = {name: entry[name] for name in ("at", "reason", "phase", "sha256")}
        amendments.append(Amendment(**own, changed=_differences(before, plan)))
        if entry["phase"] != phases[-1].phase:
            phases.append(Phase(entry["phase"], entry["at"], plan.traffic_split))
    return LockedPlan(
        path=path,
        plan=plan,
        first=first,
        **{name: last["needs"][name] for name in ("n_control", "n_treatment", "days")},
        sha256=head,
        locked_at=at,
        amendments=tuple(amendments),
        phases=tuple(phases),
    )


def plan_hashes(path: str | Path) -> set[str]:
    """The hashes a locked plan has had: as locked, and after each amendment; looks name the one they were read under.

    Raises:
        DataError: As for `read_lock`.
    """
    record = _read(Path(path))
    return {record["sha256"], *(one["sha256"] for one in record["amendments"])}


def _differences(old: ABPlan, new: ABPlan) -> dict[str, tuple[object, object]]:
    both = {name: (getattr(old, name), getattr(new, name)) for name in ABPlan.__slots__}
    return {name: (one, other) for name, (one, other) in both.items() if one != other}


def _hash(value: object) -> str:
    return hashlib.sha256(files.canonical(value)).hexdigest()


def _check(sha256: str, value: object, path: Path) -> None:
    if _hash(value) != sha256:
        raise DataError(f"{path}: the plan no longer matches its hash; {_REMEDY}")


class _Needs(msgspec.Struct):
    n_control: int
    n_treatment: int
    days: int


class _Plan(msgspec.Struct):
    needs: _Needs


_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _Entry(msgspec.Struct):
    at: _Time
    reason: str
    phase: int
    plan: _Plan
    sha256: str


class _Whole(msgspec.Struct):
    """What is relied on before the hashes are checked; `ABPlan` checks the rest."""

    kind: Literal["evalkit-plan"]
    version: Literal[1]
    plan: _Plan
    sha256: str
    locked_at: _Time
    amendments: list[_Entry]


def _plan(record: JsonObject, path: Path) -> ABPlan:
    try:
        return ABPlan.from_dict(record)
    except (DataError, DesignError) as why:
        raise DataError(f"{path}: {why}; {_REMEDY}") from why


def _read(path: Path) -> JsonObject:
    if not path.exists():
        raise DataError(f"{path}: no plan is locked; notebook 05 makes and locks one")
    record = files.read_json(path, said="not JSON", remedy=_REMEDY)
    files.as_record(record, _Whole, f"{path}: not a locked plan", _REMEDY)
    return record


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One reading.

    Attributes:
        at: UTC time, ISO 8601; the present when not given.
        look: Number of the planned look; None for one that was not planned.
        information: Fraction of the planned information at hand.
        effect_shown: False when the plan withheld the effect.
        verdict: As shown.
        run: Name of the run that looked; "" by hand.
        control_model: As the plan names it, so that the result is known even when the plan is not; "" in old lines.
        treatment_model: Likewise.
        simulated: Whether its users were; None in old lines.
        n_requests: Requests of the experiment that the log held; None in old lines.
        last_user: When the last user in the log first came, ISO 8601; "" in old lines, and in a log without times.
        estimate: The effect that was shown, treatment - control; None when withheld.
        sum_control: Sum of the deciding outcome over control's users of this look; None when withheld, and in old lines.
        sum_treatment: Likewise.
    """

    experiment: str
    plan_sha256: str
    look: int | None
    information: float
    n_control: int
    n_treatment: int
    effect_shown: bool
    verdict: str
    run: str = ""
    at: str = ""
    control_model: str = ""
    treatment_model: str = ""
    simulated: bool | None = None
    n_requests: int | None = None
    last_user: str = ""
    estimate: float | None = None
    sum_control: float | None = None
    sum_treatment: float | None = None


def record_look(path: str | Path, look: Look) -> Look:
    """Appends a look and brings it to the disk before anything is shown.

    Raises:
        DataError: It cannot be written.
    """
    look = look if look.at else replace(look, at=utc())
    ledger.append(path, "look", asdict(look), at=look.at)
    return look


def read_looks(path: str | Path) -> tuple[Look, ...]:
    """The looks so far, oldest first; none when nobody has looked. A torn last line is left out with a warning.

    Raises:
        DataError: The ledger is damaged, or a line is not a look.
    """
    found = []
    for line in ledger.read(path, told=files.warned).of("look"):
        try:
            found.append(Look(**line.facts))
        except TypeError as why:
            what = f"{path}:{line.number}: not a look ({why})"
            raise DataError(f"{what}; restore the file from a copy") from why
    return tuple(found)


def looks_frame(looks: Iterable[Look]) -> pd.DataFrame:
    """A row a look, oldest first."""
    import pandas as pd

    table = pd.DataFrame(map(asdict, looks), columns=[one.name for one in fields(Look)])
    kinds = dict.fromkeys(("effect_shown", "simulated"), "boolean")
    kinds |= dict.fromkeys(("look", "n_control", "n_treatment"), "Int64")
    kinds |= dict.fromkeys(("experiment", "verdict"), "category") | {"information": "float64"}
    return table.assign(at=pd.to_datetime(table["at"], utc=True)).astype(kinds)


def results_against(home: Study) -> tuple[Against, ...]:
    """What a look at any A/B test of this study has shown against its treatment, from the ledger of looks.

    The ledger outlives the plan and the log: neither another plan, nor a log that is gone or another one, takes back
    what users have shown. Looks at simulated users show nothing.
    """
    path = home.path(PLAN_FILE)
    now = read_lock(path).plan if path.exists() else None
    return tuple(
        Against(
            layer="ab_test",
            source=one.experiment,
            models=_models_seen(one, now),
            look=one.look,
            n_control=one.n_control,
            n_treatment=one.n_treatment,
            at=one.at,
        )
        for one in read_looks(home.path(LEDGER))
        if one.effect_shown and one.verdict == "worse" and not one.simulated
    )


def _models_seen(look: Look, plan: ABPlan | None) -> dict[str, str]:
    """The models a look was about; those of the plan for a line that does not name them, if it is of this plan."""
    if look.treatment_model:
        return {"base": look.control_model, "fine_tuned": look.treatment_model}
    return plan.models if plan is not None and plan.experiment_name == look.experiment else {}


class _Day(NamedTuple):
    """Users who came on a day, and users and information so far at its end."""

    day: int = 0
    new: int = 0
    information: float = 0.0
    n_control: int = 0
    n_treatment: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DueLook:
    """A planned look whose users are complete.

    Attributes:
        information: Fraction of the planned information it has.
        day: Last UTC day (days since 1970) whose new users belong to it.
    """

    look: int
    information: float
    day: int
    n_control: int
    n_treatment: int

    @property
    def date(self) -> str:
        """That day, ISO 8601."""
        return date_of(self.day)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How far the test has come.

    Attributes:
        closed_control: Control users whose outcome window has closed.
        closed_treatment: The same for treatment.
        information: Closed users over planned users, users of each phase weighted by what its split can tell.
        due: Looks that may be read, in order; each keeps its users for ever, so reading it again shows the same.
        users_more: Users still to come for the next look; 0 after the last.
        days_more: Days until the next look, about; 0 after the last.
    """

    closed_control: int
    closed_treatment: int
    information: float
    due: tuple[DueLook, ...]
    users_more: int
    days_more: int


def schedule(counts: pd.DataFrame, plan: LockedPlan, now_s: float) -> Schedule:
    """Which looks are due, from the users seen per phase, variant and day.

    A day's users count once the window of its last possible user has closed. The last look needs the planned users in
    both variants (after a change of the split: the planned information, and `min_samples` in both).

    Raises:
        DataError: The log holds a phase the plan does not know.
    """
    days = _by_day(counts, plan)
    window_s = plan.plan.outcome_window_days * DAY_S
    closed = [one for one in days if (one.day + 1) * DAY_S + window_s <= now_s]
    due, last = _due(closed, plan), closed[-1] if closed else _Day()
    users_more, days_more = _still(days, due[-1].look if due else 0, plan)
    return Schedule(
        closed_control=last.n_control,
        closed_treatment=last.n_treatment,
        information=min(1.0, last.information),
        due=tuple(due),
        users_more=users_more,
        days_more=days_more,
    )


def limits(state: Schedule, plan: LockedPlan) -> tuple[float, ...]:
    """Limits of |z| at the looks due, at the information they had, and at those to come, as planned."""
    done = [one.information for one in state.due]
    to_come = plan.plan.look_fractions[state.due[-1].look if state.due else 0 :]
    ahead = [one for one in to_come if one > (done[-1] if done else 0)]
    return tuple(stats.obrien_fleming_bounds([*done, *ahead], alpha=plan.plan.alpha))


def date_of(day: int) -> str:
    """The UTC date of a day counted from 1970."""
    return datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()


def _by_day(counts: pd.DataFrame, plan: LockedPlan) -> list[_Day]:
    splits = {phase.phase: phase.traffic_split for phase in plan.phases}
    if unknown := {*counts["phase"].tolist()} - {*splits}:
        told = f"the log holds phases {sorted(unknown)}, the plan knows {sorted(splits)}"
        raise DataError(f"{told}; it is another test's log")
    now = plan.plan.traffic_split
    worth = {phase: split * (1 - split) / (now * (1 - now)) for phase, split in splits.items()}
    so_far, days = _Day(), []
    for day, rows in counts.groupby("day", sort=True):
        users, treated = rows["n"].to_numpy(), rows["treated"].to_numpy() == 1
        told = sum(worth[p] * n for p, n in zip(rows["phase"], users, strict=True))
        so_far = _Day(
            day=int(str(day)),
            new=int(users.sum()),
            information=so_far.information + told / plan.n_users,
            n_control=so_far.n_control + int(users[~treated].sum()),
            n_treatment=so_far.n_treatment + int(users[treated].sum()),
        )
        days.append(so_far)
    return days


def _due(closed: Sequence[_Day], plan: LockedPlan) -> list[DueLook]:
    fractions, due = plan.plan.look_fractions, list[DueLook]()
    for look, fraction in enumerate(fractions, 1):
        final = look == len(fractions)
        so_far = (one for one in closed if one.information >= fraction - 1e-9)
        full = [one for one in so_far if not (final and _short(one, plan))]
        if not full:
            break
        first, reached = full[0], 1.0 if final else min(full[0].information, 0.999)
        # a busy day may jump a look
        due = [x for x in due if x.day < first.day and x.information < reached]
        users = {"n_control": first.n_control, "n_treatment": first.n_treatment}
        due.append(DueLook(look=look, information=reached, day=first.day, **users))
    return due


def _short(seen: _Day, plan: LockedPlan) -> float:
    """Users still missing so that both variants are full."""
    least, share = plan.plan.min_samples, plan.plan.traffic_split
    ramped = len(plan.phases) > 1
    control, treatment = (least, least) if ramped else (plan.n_control, plan.n_treatment)
    of_control, of_treatment = control - seen.n_control, treatment - seen.n_treatment
    return max(0.0, of_control / (1 - share), of_treatment / share)


def _still(days: Sequence[_Day], done: int, plan: LockedPlan) -> tuple[int, int]:
    """Users still to come for the next look, and days until their windows have closed."""
    fractions = plan.plan.look_fractions
    if done == len(fractions):
        return 0, 0
    seen = days[-1] if days else _Day()
    more = max(0.0, (fractions[done] - seen.information) * plan.n_users)
    more = max(more, _short(seen, plan)) if done + 1 == len(fractions) else more
    recent = [one.new for one in days[-8:-1]]  # without today, which is not over
    a_day = sum(recent) / len(recent) if recent else plan.plan.users_per_day
    window_days = max(1, plan.plan.outcome_window_days)
    days_more = math.ceil(round(more / max(a_day, 1e-9), 6)) + window_days
    return math.ceil(round(more, 6)), days_more
