"""What the notebooks 05 and 06 need around a plan and its log: opened when there, said when not, and the evidence written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from evalkit import journal, wording
from evalkit.abtest.lock import LockedPlan, lock, read_lock
from evalkit.abtest.looks import read_looks
from evalkit.abtest.plan import ABPlan, Better, Kind, Metric, read_guardrails
from evalkit.abtest.reading import Reading, read_ab_test
from evalkit.abtest.source import open_log
from evalkit.errors import DesignError
from evalkit.records import EvalResult, Evidence, Missing
from evalkit.study import Study

PLAN_FILE, LEDGER, SIMULATED_LOG = "plan.lock.json", "looks.jsonl", "events.sqlite"
UNNAMED = "(not named)"  # the experiment of a plan that is only thought about


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

    @property
    def why(self) -> str:
        """The first thing missing, as a sentence."""
        return f"{self.missing[0].why}. {self.missing[0].action}."


def make_plan(
    *,
    experiment_name: str,
    control_model: str,
    treatment_model: str,
    ab_metric: str,
    ab_metric_kind: Kind,
    expected_rate: float,
    detectable_difference: float,
    metric_sd: float = 0.0,
    ab_metric_better: Better | Literal[""] = "",
    ab_covariate: str = "",
    guardrails_file: Path | None = None,
    **options: Any,
) -> ABPlan:
    """A plan from a notebook's flat parameters, a draft without a name.

    `metric_sd` is 0, `ab_metric_better` and `ab_covariate` are "" when not given, `options` are other fields of `ABPlan`.
    """
    metric = Metric(
        name=ab_metric,
        kind=ab_metric_kind,
        expected=expected_rate,
        detectable_difference=detectable_difference,
        sd=metric_sd or None,
        better=ab_metric_better or None,
    )
    guardrails = read_guardrails(guardrails_file) if guardrails_file else ()
    return ABPlan(
        experiment_name=experiment_name.strip() or UNNAMED,
        control_model=control_model,
        treatment_model=treatment_model,
        primary=metric,
        guardrails=guardrails,
        covariate=ab_covariate.strip(),
        **options,
    )


def settle_plan(home: Study, plan: ABPlan) -> tuple[ABPlan, str]:
    """The plan in force, and what happened: a named plan is locked, a draft never."""
    path = home.path(PLAN_FILE)
    if plan.experiment_name != UNNAMED:
        locked, said = lock_plan(home, plan)
        return locked.plan, said
    if path.exists():
        locked = read_lock(path)
        return (
            locked.plan,
            f"experiment_name is empty; the plan locked on {locked.locked_at[:10]} stays as it is.",
        )
    return plan, (
        "Nothing is locked: put your own expected_rate, detectable_difference, users_per_day and traffic_split into "
        "study.yaml, then give the test an experiment_name."
    )


def lock_plan(home: Study, plan: ABPlan) -> tuple[LockedPlan, str]:
    """Locks the study's plan, and says what happened; a plan locked before stays as it is."""
    path = home.path(PLAN_FILE)
    new = not path.exists()
    try:
        locked = lock(plan, path)
    except DesignError as why:
        return read_lock(path), f"Not locked: {why}"
    said = (
        "Locked now" if new else f"Locked already on {locked.locked_at[:10]}; nothing was changed"
    )
    return (
        locked,
        f"{said}: sha256 {locked.sha256[:16]}..., {wording.plural(len(locked.amendments), 'amendment')}.",
    )


def simulate(
    home: Study, answers: Sequence[Sequence[EvalResult]], *, event_log: str = "", **options: Any
) -> str:
    """Fills a simulated log of the study through the real router, once; returns a sentence, "" when there is nothing to do.

    Args:
        home: The study, with a locked plan.
        answers: Recorded and scored answers of control and treatment; none = don't simulate.
        event_log: A file in the study.
        options: As `simulate_traffic` takes them.
    """
    if not answers or not home.path(PLAN_FILE).exists() or _is_elsewhere(event_log):
        return ""
    from evalkit.abtest.log import EventLog
    from evalkit.abtest.simulate import simulate_traffic

    log = EventLog(home.path(event_log or SIMULATED_LOG))
    try:
        traffic = simulate_traffic(log, read_lock(home.path(PLAN_FILE)).config, *answers, **options)
    except DesignError as why:
        return f"Nothing was simulated: {why}."
    finally:
        log.close()
    said = "sent through the router just now" if traffic.added else "in the log already"
    users, requests = wording.count(traffic.n_users), wording.count(traffic.n_requests)
    return f"Simulated: {users} users with {requests} requests, answered by the recorded models, {said}."


def model_names(found: Reading | NoReading) -> dict[str, str]:
    """The two models of the plan."""
    plan = found.plan.plan if found.plan else None
    return {"base": plan.control_model, "fine_tuned": plan.treatment_model} if plan else {}


def open_reading(
    home: Study, *, event_log: str = "", run: str = "", now: float | None = None
) -> Reading | NoReading:
    """Reads the study's test, or says what is missing; each look at it goes to the ledger.

    Args:
        home: The study.
        event_log: A file or folder in the study, a URL, or the name of an environment variable that holds one; the
            simulated log when empty.
        run: Name of the run.
        now: Seconds since 1970; the present when not given.
    """
    path = home.path(PLAN_FILE)
    if not path.exists():
        action = "Fill in the A/B plan and its experiment_name in study.yaml, then run notebook 05"
        return NoReading(
            missing=(Missing(action=action, why="No A/B plan is locked", price="minutes"),)
        )
    plan, where = read_lock(path), _place(home, event_log)
    if where is None:
        action = "Route users through evalkit.run_ab_request, or name the log in event_log"
        price, why = (
            f"{plan.n_users:,} users, about {plan.days} days",
            "No user has been logged yet",
        )
        if event_log not in {"", SIMULATED_LOG}:
            why = f"{'The variable' if _is_elsewhere(event_log) else 'The log'} {event_log} that event_log names is not there"
            action = "Put it there, or correct event_log in study.yaml"
        return NoReading(plan=plan, missing=(Missing(action=action, why=why, price=price),))
    with closing(open_log(where)) as log:
        return read_ab_test(log, plan, ledger=home.path(LEDGER), run=run, now=now)


def looks_so_far(home: Study) -> list[dict[str, Any]]:
    """The ledger, oldest first."""
    return [asdict(one) for one in read_looks(home.path(LEDGER))]


def bound_to(base_journal: Path, fine_tuned_journal: Path) -> dict[str, str]:
    """The hashes that evidence on these two models is valid for; none when no answers of theirs are recorded."""
    if not (base_journal.is_file() and fine_tuned_journal.is_file()):
        return {}
    return {
        "test_set": journal.read_header(base_journal)["test_set"],
        "base": journal.answers_hash(base_journal),
        "fine_tuned": journal.answers_hash(fine_tuned_journal),
    }


def ab_evidence(
    found: Reading | NoReading,
    *,
    study: str,
    models: Mapping[str, str],
    bound_to: Mapping[str, str],
) -> Evidence:
    """The layer's record; a withheld effect stands nowhere in it."""
    metric = found.plan.plan.primary.name if found.plan else ""
    return Evidence(
        layer="ab_test",
        study=study,
        made_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        models=models,
        bound_to=bound_to,
        simulated=found.simulated,
        metric=metric.replace("_", " "),
        unit="users",
        missing=found.missing,
        primary=found.primary_dict() if isinstance(found, Reading) else None,
        details=found.to_dict() if isinstance(found, Reading) else {"why": found.why},
    )


def _place(home: Study, event_log: str) -> str | Path | None:
    """Where the log is; None when it is not there yet."""
    if _is_elsewhere(event_log):
        return event_log if "://" in event_log or os.environ.get(event_log) else None
    path = home.path(event_log or SIMULATED_LOG)
    return path if path.exists() else None


def _is_elsewhere(event_log: str) -> bool:
    return "://" in event_log or re.fullmatch(r"[A-Z][A-Z0-9_]{2,}", event_log) is not None
