"""What the notebooks 05 and 06 need around a plan and its log: opened when there, said when not, and the evidence written."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evalkit import ledger, wording
from evalkit.abtest import frames
from evalkit.abtest.analysis import Log
from evalkit.abtest.assignment import Hash
from evalkit.abtest.guardrails import FROM_EXPOSURES
from evalkit.abtest.lock import LockedPlan, lock, read_lock
from evalkit.abtest.log import is_elsewhere, place_of
from evalkit.abtest.looks import Look, read_looks
from evalkit.abtest.plan import ABPlan, Better, Kind, Metric, read_guardrails
from evalkit.abtest.reading import Reading, read_health
from evalkit.abtest.source import open_log
from evalkit.errors import DataError, DesignError
from evalkit.records import Against, EvalResult, Evidence, Missing
from evalkit.settings import named
from evalkit.study import Study

if TYPE_CHECKING:
    import pandas as pd

PLAN_FILE, LEDGER, SIMULATED_LOG = "plan.lock.json", ledger.FILE, "events.sqlite"
UNNAMED = "(not named)"  # the experiment of a plan that is only thought about
NOT_ASKED = (
    "Nothing is locked: a plan is locked when you say so, and before the first user comes. Read it above; when it stands, "
    "set lock_plan: true in study.yaml and run notebook 05 again. From then on its looks read the effect as they fall due."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoReading:
    """Nothing to read yet, and what to do about it; stands where a `Reading` would."""

    missing: tuple[Missing, ...]
    plan: LockedPlan | None = None
    simulated: bool = False
    findings: None = None
    guardrails: tuple[()] = ()
    verdict: str = "too early"
    valid: bool = True
    is_read: bool = True
    notes: tuple[str, ...] = ()

    def effect(self) -> NoReading:
        """Itself: there is nothing to read an effect from."""
        return self

    def to_frame(self) -> pd.DataFrame:
        """As of a `Reading`, without a row."""
        return frames.daily(None, {}, None)

    def sums(self) -> pd.DataFrame:
        """As of a `Reading`, with nothing known."""
        return frames.sums(None, None)

    def users(self) -> Any:
        """As of a `Reading`, without a user."""
        return frames.users(None)

    @property
    def why(self) -> str:
        """The first thing missing, as a sentence."""
        return f"{self.missing[0].why}. {self.missing[0].action}."


def make_plan(home: Study, *, margin: float | None = None) -> ABPlan:
    """The plan that a study's settings describe; a draft when they name no experiment.

    Args:
        home: The study.
        margin: The loss still accepted where the question is whether treatment is no worse; None asks for better.
    """
    said = home.settings
    guardrails = home.named_file(said.guardrails_file)
    return ABPlan(
        experiment_name=said.experiment_name.strip() or UNNAMED,
        control_model=said.control,
        treatment_model=said.treatment,
        traffic_split=said.traffic_split,
        min_samples=said.min_samples,
        hash=cast(Hash, said.ab_hash),
        hash_seed=said.ab_hash_seed,
        coverage=said.ab_coverage,
        primary=Metric(
            name=said.ab_metric,
            kind=cast(Kind, said.ab_metric_kind),
            expected=said.expected_rate,
            detectable_difference=said.detectable_difference,
            sd=said.metric_sd or None,
            better=cast(Better | None, said.ab_metric_better or None),
            margin=margin,
        ),
        covariate=said.ab_covariate.strip(),
        design_effect=said.design_effect,
        cap_per_user=said.cap_per_user or None,
        control_variant=said.control_variant.strip(),
        treatment_variant=said.treatment_variant.strip(),
        guardrails=read_guardrails(guardrails) if guardrails else (),
        outcome_window_days=said.outcome_window_days,
        users_per_day=said.users_per_day,
        looks=said.looks,
        alpha=said.alpha,
        power=said.power,
    )


def plan_differs(
    home: Study, locked: LockedPlan, *, margin: float | None = None
) -> tuple[dict[str, Any], ...]:
    """What a study's settings say otherwise than its locked plan, which counts; `margin` as for `make_plan`.

    Returns:
        A mapping a setting: `name`, `study` and `plan` (the two values), `amended` (whether the study still says what was
        locked first). Nothing for a study that names no experiment: it plans nothing.
    """
    draft = make_plan(home, margin=margin)
    if draft.experiment_name == UNNAMED:
        return ()
    says, counts, first = (_in_settings(one) for one in (draft, locked.plan, locked.first))
    return tuple(
        {"name": name, "study": value, "plan": counts[name], "amended": value == first[name]}
        for name, value in says.items()
        if value != counts[name]
    )


def _in_settings(plan: ABPlan) -> dict[str, Any]:
    """A plan in the names and values of study.yaml."""
    metric = plan.primary
    same = (
        "experiment_name",
        "control_model",
        "treatment_model",
        "traffic_split",
        "min_samples",
        "design_effect",
        "outcome_window_days",
        "users_per_day",
        "looks",
        "alpha",
        "power",
    )
    rails = [
        f"{one.name} {one.kind}, {one.better} is better, at most {one.margin:g} worse"
        for one in plan.guardrails
    ]
    return {
        "ab_metric": metric.name,
        "ab_metric_kind": metric.kind,
        "ab_metric_better": metric.better,
        "expected_rate": metric.expected,
        "detectable_difference": metric.detectable_difference,
        "metric_sd": metric.sd or 0.0,
        "question": "no_worse" if metric.margin else "better",
        "question_margin": metric.margin or 0.0,
        **{name: getattr(plan, name) for name in same},
        "ab_covariate": plan.covariate,
        "cap_per_user": plan.cap_per_user or 0.0,
        "guardrails_file": "; ".join(rails) or "none",
    }


def _both_said(differs: Sequence[Mapping[str, object]]) -> str:
    told = [f"{one['name']} is {one['study']} there and {one['plan']} here" for one in differs]
    return wording.visible(wording.listed(told))


def settle_plan(home: Study, plan: ABPlan) -> tuple[ABPlan, str]:
    """The plan in force, and what happened: a named plan is locked when the study says `lock_plan`, a draft never."""
    path = home.path(PLAN_FILE)
    draft = plan.changed(experiment_name=UNNAMED)
    if plan.experiment_name != UNNAMED:
        if not path.exists() and not home.settings.lock_plan:
            return draft, NOT_ASKED
        try:
            locked, said = lock_plan(home, plan)
        except DataError as why:
            if path.exists():
                raise
            return draft, f"Not locked: {why}"
        return locked.plan, said
    if path.exists():
        locked = read_lock(path)
        return (
            locked.plan,
            f"experiment_name is empty; the plan locked on {locked.locked_at[:10]} stays as it is.",
        )
    return plan, (
        "Nothing is locked: put your own expected_rate, detectable_difference, users_per_day and traffic_split into "
        "study.yaml, then give the test an experiment_name and say lock_plan: true."
    )


def lock_plan(home: Study, plan: ABPlan) -> tuple[LockedPlan, str]:
    """Locks the study's plan, and says what happened; a plan locked before stays as it is."""
    path = home.path(PLAN_FILE)
    new = not path.exists()
    try:
        locked = lock(plan, path)
    except DesignError:
        locked = read_lock(path)
        differs = plan_differs(home, locked, margin=plan.primary.margin)
        return locked, (
            f"Not locked: the plan locked on {locked.locked_at[:10]} counts, not study.yaml: "
            f"{_both_said(differs)}. Write the locked values into study.yaml; to change a running test say "
            "why, with evalkit.abtest.lock.amend(path, reason, ...); a new test takes another experiment_name and study."
        )
    said = (
        "Locked now" if new else f"Locked already on {locked.locked_at[:10]}; nothing was changed"
    )
    return (
        locked,
        f"{said}: sha256 {locked.sha256[:16]}..., {wording.plural(len(locked.amendments), 'amendment')}.",
    )


def simulate(home: Study, answers: Sequence[Sequence[EvalResult]]) -> str:
    """Fills a simulated log of the study through the real router, once; returns a sentence, "" when there is nothing to do.

    Args:
        home: The study, with a locked plan.
        answers: Recorded and scored answers of control and treatment; none = don't simulate.
    """
    said = home.settings
    if not answers or not home.path(PLAN_FILE).exists() or is_elsewhere(said.event_log):
        return ""
    from evalkit.abtest.log import EventLog
    from evalkit.abtest.simulate import simulate_traffic

    try:
        log = EventLog(home.path(said.event_log or SIMULATED_LOG))
    except DataError as why:  # such as a folder that may only be read
        return f"Nothing was simulated: {why}."
    try:
        traffic = simulate_traffic(
            log,
            read_lock(home.path(PLAN_FILE)).config,
            *answers,
            n_users=said.simulate_users,
            seed=said.ab_seed,
            metric=said.ab_metric,
            slice_field=next(iter(named(said.slice_fields)), ""),
        )
    except DesignError as why:
        return f"Nothing was simulated: {why}."
    finally:
        log.close()
    sent = "sent through the router just now" if traffic.added else "in the log already"
    users, requests = wording.count(traffic.n_users), wording.count(traffic.n_requests)
    return f"Simulated: {users} users with {requests} requests, answered by the recorded models, {sent}."


def model_names(found: Reading | NoReading) -> dict[str, str]:
    """The two models of the plan."""
    plan = found.plan.plan if found.plan else None
    return {"base": plan.control_model, "fine_tuned": plan.treatment_model} if plan else {}


def plan_in_force(home: Study) -> LockedPlan | NoReading:
    """The study's locked plan with its amendments, or what is missing.

    Raises:
        DataError: It is not the plan that the study's ledger knows.
    """
    ledger.check(home.folder, PLAN_FILE)
    return _plan(home)


def _plan(home: Study) -> LockedPlan | NoReading:
    path = home.path(PLAN_FILE)
    if path.exists():
        return read_lock(path)
    action = "Fill in the A/B plan, its experiment_name and lock_plan: true in study.yaml, then run notebook 05"
    missing = Missing(action=action, why="No A/B plan is locked", price="minutes")
    return NoReading(missing=(missing,))


def open_reading(home: Study, *, now: float | None = None) -> Reading | NoReading:
    """Reads the study's test, or says what is missing; each look at it goes to the ledger.

    Args:
        home: The study, opened for a run; its `event_log` is a file or folder in it, a URL, or the name of an
            environment variable that holds one.
        now: Seconds since 1970; the present when not given.
    """
    plan = plan_in_force(home)
    if isinstance(plan, NoReading):
        return plan
    opened = _opened(home, plan)
    if isinstance(opened, NoReading):
        return opened
    with closing(opened):
        found = read_health(opened, plan, ledger=home.path(LEDGER), run=home.run, now=now).effect()
        return replace(found, opened=None)


def read_up_to_the_effect(
    home: Study, plan: LockedPlan | NoReading, *, now: float | None = None
) -> Reading | NoReading:
    """As `open_reading`, without the effect: the log stays open for it, and for questions about users, until the end."""
    if isinstance(plan, NoReading):
        return plan
    opened = _opened(home, plan)
    if isinstance(opened, NoReading):
        return opened
    if (connection := getattr(opened.engine, "con", None)) is not None:
        weakref.finalize(opened.engine, connection.close)  # as long as any table of it is in use
    return read_health(opened, plan, ledger=home.path(LEDGER), run=home.run, now=now)


def design_effect_seen(home: Study) -> float | None:
    """`prospect.design_effect_in` of the study's log and the metric that decides; None where there is no such log or rate.

    It reads control users alone, so it shows no effect and is no look.
    """
    from evalkit.abtest.prospect import design_effect_in

    plan = _plan(home)
    opened = None if isinstance(plan, NoReading) else _opened(home, plan)
    if isinstance(plan, NoReading) or isinstance(opened, NoReading | None):
        return None
    with closing(opened):
        primary, name = plan.plan.primary, plan.plan.experiment_name
        known = primary.kind == "rate" and opened.recorded(name).get(primary.name)
        return design_effect_in(opened, name, primary.name) if known else None


def _opened(home: Study, plan: LockedPlan) -> Log | NoReading:
    """The study's log, or what is missing."""
    event_log = home.settings.event_log
    if (where := _place(home, event_log)) is not None:
        return open_log(where, **_columns(home, plan.plan), variants=plan.plan.variants)
    action = "Route users through evalkit.run_ab_request, or name the log in event_log"
    price = f"{plan.n_users:,} users, about {plan.days} days"
    why = "No user has been logged yet"
    if event_log not in {"", SIMULATED_LOG}:
        what = "The variable" if is_elsewhere(event_log) else "The log"
        why = f"{what} {event_log} that event_log names is not there"
        action = "Put it there, or correct event_log in study.yaml"
    return NoReading(plan=plan, missing=(Missing(action=action, why=why, price=price),))


def _columns(home: Study, plan: ABPlan) -> dict[str, Any]:
    """Which tables and columns are read: those the settings name, and outcomes that the plan speaks of."""
    said, rails = home.settings, (one.name for one in plan.guardrails)
    planned = [one.name for one in (plan.primary, *plan.secondary)]
    watched = [name for name in rails if name not in FROM_EXPOSURES]
    return {
        "user": said.log_user,
        "variant": said.log_variant,
        "outcomes": list(dict.fromkeys([*planned, *watched, *named(said.log_outcomes)])),
        "before": [plan.covariate] if plan.covariate else [],
        "time": said.log_time,
        "experiment": said.log_experiment,
        "exposures": said.log_exposures,
        "events": said.log_events,
    }


def results_against(home: Study) -> tuple[Against, ...]:
    """What a look at any A/B test of this study has shown against its treatment, from the ledger of looks.

    The ledger outlives the plan and the log: neither another plan, nor a log that is gone or another one, takes back
    what users have shown. Looks at simulated users show nothing.
    """
    now = read_lock(home.path(PLAN_FILE)).plan if home.path(PLAN_FILE).exists() else None
    return tuple(
        Against(
            layer="ab_test",
            source=one.experiment,
            models=_models_seen(one, now),
            said=f"worse at look {one.look}, {one.n_control:,} users of control against {one.n_treatment:,} of treatment",
            at=one.at,
        )
        for one in read_looks(home.path(LEDGER))
        if one.effect_shown and one.verdict == "worse" and not one.simulated
    )


def _models_seen(look: Look, plan: ABPlan | None) -> dict[str, str]:
    """The models a look was about; those of the plan for a line that does not name them, if it is of this plan."""
    if look.treatment_model:
        return {"base": look.control_model, "fine_tuned": look.treatment_model}
    if plan is not None and plan.experiment_name == look.experiment:
        return {"base": plan.control_model, "fine_tuned": plan.treatment_model}
    return {}


def ab_evidence(
    found: Reading | NoReading,
    *,
    study: str,
    differs: Sequence[Mapping[str, object]] = (),
) -> Evidence:
    """The layer's record; a withheld effect stands nowhere in it.

    It is bound to the models of its plan by name: users never saw the test set, so no change of it touches what they showed.

    Args:
        found: The reading, or what is missing for one.
        study: The study's name.
        differs: From `plan_differs`.
    """
    metric = found.plan.plan.primary.name if found.plan else ""
    return Evidence(
        layer="ab_test",
        study=study,
        made_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        models=model_names(found),
        bound_to={},
        simulated=found.simulated,
        metric=metric.replace("_", " "),
        unit="users",
        missing=found.missing,
        primary=found.primary_dict() if isinstance(found, Reading) else None,
        details=(found.to_dict() if isinstance(found, Reading) else {"why": found.why})
        | ({"plan_differs": list(differs)} if differs else {}),
    )


def _place(home: Study, event_log: str) -> str | Path | None:
    """Where the log is; None when it is not there yet."""
    where = place_of(home, event_log or SIMULATED_LOG)
    there = where.exists() if isinstance(where, Path) else "://" in where or os.environ.get(where)
    return where if there else None
