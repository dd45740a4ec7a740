"""A plan made binding: one JSON file with the plan, its hash and its time; what changes later is appended for ever.

`plan.lock.json`: `{"kind": "evalkit-plan", "version": 1, "plan": {...}, "sha256": ..., "locked_at": ..., "amendments": [...]}`.
`sha256` is taken over the plan as canonical JSON; an amendment holds the whole plan as it stands from then on, and hashes what
came before it along with itself, so that none can be changed, or dropped from among others, unseen; each look in the ledger
names the hash it was read under.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalkit.abtest.assignment import ABTestConfig
from evalkit.abtest.plan import ABPlan
from evalkit.errors import DataError, DesignError
from evalkit.files import alone, write_new, write_whole

KIND = "evalkit-plan"
_ENTRY = {"at", "reason", "phase", "plan", "sha256"}
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
    changed: Mapping[str, tuple[Any, Any]]
    phase: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of time with one split."""

    phase: int
    from_at: str
    traffic_split: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedPlan:
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
    if not path.exists():
        record = {
            "kind": KIND,
            "version": 1,
            "plan": plan.to_dict(),
            "sha256": _hash(plan.to_dict()),
        }
        record |= {"locked_at": _utc(now), "amendments": []}
        if write_new(path, _as_json(record)):
            return read_lock(path)
    locked = read_lock(path)
    if plan not in (locked.plan, locked.first):
        names = ", ".join(_differences(locked.plan, plan))
        raise DesignError(
            f"{path}: another plan is locked (it differs in {names}). To change a running test, say why: "
            f"amend(path, reason, ...). For a new test, take a new experiment_name and another study or file"
        )
    return locked


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
    if unknown := [name for name in changes if name not in ABPlan.__slots__]:
        raise DesignError(
            f"a plan has no {', '.join(unknown)}; it has {', '.join(ABPlan.__slots__)}"
        )
    read_lock(path)  # says what is wrong before a folder is held
    with alone(path.parent):  # so that an amendment of the same moment is not lost
        _append(path, read_lock(path), reason, changes, now)
        return read_lock(path)


def _append(
    path: Path,
    locked: LockedPlan,
    reason: str,
    changes: Mapping[str, Any],
    now: datetime | None,
) -> None:
    plan = locked.plan.changed(**changes)
    if not reason.strip() or plan == locked.plan:
        raise DesignError("an amendment needs a reason and at least one changed value")
    if not locked.plan.config().keeps(plan.config()):
        raise DesignError(
            f"traffic_split {plan.traffic_split} with coverage {plan.coverage} takes users out of treatment who are in it now: "
            f"below a coverage of 1 each of GrowthBook's variations has a stretch of buckets of its own. Raise the coverage, "
            f"not the split"
        )
    phase = locked.phases[-1].phase + (plan.traffic_split != locked.plan.traffic_split)
    entry = {"at": _utc(now), "reason": reason, "phase": phase, "plan": plan.to_dict()}
    record = _read(path)
    record["amendments"].append(entry | {"sha256": _hash([locked.sha256, entry])})
    write_whole(path, _as_json(record))


def read_lock(path: str | Path) -> LockedPlan:
    """Reads a locked plan and checks its hashes.

    Raises:
        DataError: No plan is locked there, or the file was changed by hand.
    """
    path = Path(path)
    record = _read(path)
    head, plan = record["sha256"], record["plan"]
    _check(head, plan, path)
    first = now = ABPlan.from_dict(plan)
    phases, amendments = (
        [Phase(phase=1, from_at=record["locked_at"], traffic_split=first.traffic_split)],
        [],
    )
    for entry in record["amendments"]:
        body = {name: value for name, value in entry.items() if name != "sha256"}
        _check(entry["sha256"], [head, body], path)
        before, now, head, plan = (
            now,
            ABPlan.from_dict(entry["plan"]),
            entry["sha256"],
            entry["plan"],
        )
        changed = _differences(before, now)
        amendments.append(
            Amendment(
                at=entry["at"],
                reason=entry["reason"],
                changed=changed,
                phase=entry["phase"],
                sha256=head,
            )
        )
        if entry["phase"] != phases[-1].phase:
            phases.append(
                Phase(phase=entry["phase"], from_at=entry["at"], traffic_split=now.traffic_split)
            )
    needs = {name: plan["needs"][name] for name in ("n_control", "n_treatment", "days")}
    return LockedPlan(
        path=path,
        plan=now,
        first=first,
        **needs,
        sha256=head,
        locked_at=record["locked_at"],
        amendments=tuple(amendments),
        phases=tuple(phases),
    )


def canonical(value: Any) -> str:
    """JSON that is the same for the same value: sorted keys, no spaces, ASCII."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def _differences(old: ABPlan, new: ABPlan) -> dict[str, tuple[Any, Any]]:
    names = [name for name in ABPlan.__slots__ if getattr(old, name) != getattr(new, name)]
    return {name: (getattr(old, name), getattr(new, name)) for name in names}


def _hash(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _check(sha256: str, value: Any, path: Path) -> None:
    if _hash(value) != sha256:
        raise DataError(
            f"{path}: the plan no longer matches its hash; a locked plan is changed by amend() only. Restore the file"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no plan is locked; notebook 05 makes and locks one") from None
    except (OSError, ValueError) as why:
        raise DataError(f"{path}: not JSON ({why}); restore the file") from why
    needed = {"plan", "sha256", "locked_at", "amendments"}
    if (
        not isinstance(record, dict)
        or record.get("kind") != KIND
        or record.get("version") != 1
        or needed - set(record)
    ):
        raise DataError(f"{path}: not a locked plan of version 1")
    entries = record["amendments"]
    if not isinstance(entries, list) or any(
        not isinstance(one, dict) or _ENTRY - set(one) for one in entries
    ):
        raise DataError(
            f"{path}: an amendment is not whole; a locked plan is changed by amend() only. Restore the file"
        )
    return record


def _as_json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, indent=1, ensure_ascii=True, allow_nan=False).encode() + b"\n"


def _utc(now: datetime | None) -> str:
    return (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
