"""When the effect may be read: a matter of users, days and the plan, decided before any outcome is looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import pandas as pd

from evalkit.abtest.lock import LockedPlan
from evalkit.errors import DataError
from evalkit.stats import obrien_fleming_bounds

DAY_S = 86400.0


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
    return tuple(obrien_fleming_bounds([*done, *ahead], alpha=plan.plan.alpha))


def date_of(day: int) -> str:
    """The UTC date of a day counted from 1970."""
    return datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()


def _by_day(counts: pd.DataFrame, plan: LockedPlan) -> list[_Day]:
    splits = {phase.phase: phase.traffic_split for phase in plan.phases}
    if unknown := set(counts["phase"].tolist()) - set(splits):
        raise DataError(
            f"the log holds phases {sorted(unknown)}, the plan knows {sorted(splits)}; it is another test's log"
        )
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
        full = [one for one in closed if one.information >= fraction - 1e-9]
        full = [one for one in full if not (final and _short(one, plan))]
        if not full:
            break
        first = full[0]._replace(information=1.0 if final else min(full[0].information, 0.999))
        # a busy day may jump a look
        due = [x for x in due if x.day < first.day and x.information < first.information]
        named = {"n_control": first.n_control, "n_treatment": first.n_treatment}
        due.append(DueLook(look=look, information=first.information, day=first.day, **named))
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
