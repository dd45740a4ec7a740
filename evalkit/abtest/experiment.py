"""A study's A/B test as one object: its plan as the settings describe it and as it is locked, its log, its reading."""

from __future__ import annotations

import hashlib
import os
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np

from evalkit import ledger, wording
from evalkit.abtest.analysis import Log, fetched
from evalkit.abtest.assignment import ABTestConfig, Hash, refuse_external
from evalkit.abtest.effects import design_effect_in
from evalkit.abtest.lock import LEDGER, PLAN_FILE, LockedPlan, lock, read_lock
from evalkit.abtest.outcomes import FROM_EXPOSURES
from evalkit.abtest.plan import DAY_S, UNNAMED, ABPlan, Metric, read_guardrails
from evalkit.abtest.reading import NoReading, Reading, read_ab_test
from evalkit.abtest.routing import Exposure, OutcomeRow, run_ab_request
from evalkit.abtest.source import open_log, place_of
from evalkit.conversation import Messages
from evalkit.errors import DataError, DesignError, ModelError
from evalkit.evidence import ABDetails, ABEvidence, ReportedTest
from evalkit.files import utc
from evalkit.records import EvalResult, Missing
from evalkit.study import TYPES, Study, is_elsewhere, named

if TYPE_CHECKING:
    from evalkit.abtest.log import EventLog


SIMULATED_LOG = "events.sqlite"
NOT_ASKED = (
    "Nothing is locked: a plan is locked when you say so, and before the first user comes. Put your own expected_rate, "
    "detectable_difference, users_per_day and traffic_split into study.yaml; when the plan above stands, give the test an "
    "experiment_name, set lock_plan: true and run notebook 05 again."
)

# not in the signs of logs simulated before there were these
_UNSAID = ", hash_seed='', coverage=1.0"
_METRIC = {  # what study.yaml calls the fields of the metric that decides
    "name": "ab_metric",
    "kind": "ab_metric_kind",
    "better": "ab_metric_better",
    "expected": "expected_rate",
    "detectable_difference": "detectable_difference",
    "sd": "metric_sd",
}
_SAME = [name for name in ABPlan.__slots__ if name in TYPES]  # called the same in study.yaml


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The A/B test of a study.

    Attributes:
        study: Whose settings, plan, log and ledger these are.
        margin: The loss still accepted where the question is whether treatment is no worse; None asks for better.
    """

    study: Study
    margin: float | None = None

    @property
    def path(self) -> Path:
        """Where its plan is locked."""
        return self.study.path(PLAN_FILE)

    def draft(self) -> ABPlan:
        """The plan that the settings describe; one without a name when they name no experiment."""
        said = self.study.settings
        metric = {field: getattr(said, name) for field, name in _METRIC.items()}
        metric |= {"sd": said.metric_sd or None, "better": said.ab_metric_better or None}
        guardrails = self.study.named_file(said.guardrails_file)
        names = {name: getattr(said, name) for name in _SAME} | {
            "experiment_name": said.experiment_name.strip() or UNNAMED,
            "control_model": said.control,
            "treatment_model": said.treatment,
            "cap_per_user": said.cap_per_user or None,
            "control_variant": said.control_variant.strip(),
            "treatment_variant": said.treatment_variant.strip(),
        }
        return ABPlan(
            **names,
            hash=cast(Hash, said.ab_hash),
            hash_seed=said.ab_hash_seed,
            coverage=said.ab_coverage,
            covariate=said.ab_covariate.strip(),
            primary=Metric(**metric, margin=self.margin),
            guardrails=read_guardrails(guardrails) if guardrails else (),
        )

    def differs(self, locked: LockedPlan | NoReading | None) -> tuple[dict[str, object], ...]:
        """What the settings say otherwise than the locked plan, which counts.

        Returns:
            A mapping a setting: `name`, `study` and `plan` (the two values), `amended` (whether the study still says what was
            locked first). Nothing before a lock, nor for a study that names no experiment: it plans nothing.
        """
        if not isinstance(locked, LockedPlan) or (draft := self.draft()).experiment_name == UNNAMED:
            return ()
        return _differing(draft, locked)

    def settle(self, plan: ABPlan) -> tuple[ABPlan, str]:
        """The plan in force, and what happened: a named plan is locked when the study says `lock_plan`, a draft never."""
        locked = self._locked()
        if plan.experiment_name == UNNAMED or not (locked or self.study.settings.lock_plan):
            if locked:
                stays = f"the plan locked on {locked.locked_at[:10]} stays as it is"
                return locked.plan, f"experiment_name is empty; {stays}."
            return plan.changed(experiment_name=UNNAMED), NOT_ASKED
        try:
            in_force = lock(plan, self.path)
        except DesignError:
            in_force = read_lock(self.path)
            differing = _differing(plan, in_force)
            told = [
                f"{one['name']} is {one['study']} there and {one['plan']} here" for one in differing
            ]
            return in_force.plan, (
                f"Not locked: the plan locked on {in_force.locked_at[:10]} counts, not study.yaml: "
                f"{wording.visible(wording.listed(told))}. Write the locked values there, or change the test by "
                "evalkit.abtest.lock.amend(path, reason, ...); a new test takes another experiment_name and study."
            )
        except DataError as why:
            if locked:
                raise
            return plan.changed(experiment_name=UNNAMED), f"Not locked: {why}"
        said = "Locked already" if locked else "Locked now"
        amended = wording.plural(len(in_force.amendments), "amendment")
        on, seal = in_force.locked_at[:10], in_force.sha256[:16]
        return in_force.plan, f"{said}, on {on}: sha256 {seal}..., {amended}."

    def simulate(self, answers: Sequence[Sequence[EvalResult]]) -> str:
        """Fills a simulated log through the real router, once; returns a sentence, "" when there is nothing to do.

        Args:
            answers: Recorded and scored answers of control and treatment; none = don't simulate.
        """
        from evalkit.abtest.log import EventLog

        home, said = self.study, self.study.settings
        if not answers or not self.path.exists() or is_elsewhere(said.event_log):
            return ""
        config = read_lock(self.path).config
        try:
            log = EventLog(home.path(said.event_log or SIMULATED_LOG))
        except DataError as why:  # such as a folder that may only be read
            return f"Nothing was simulated: {why}."
        options = {"n_users": said.simulate_users, "seed": said.ab_seed, "metric": said.ab_metric}
        field = next(iter(named(said.slice_fields)), "")
        with closing(log):
            try:
                traffic = simulate_traffic(log, config, *answers, slice_field=field, **options)
            except DesignError as why:
                return f"Nothing was simulated: {why}."
        sent = "sent just now" if traffic.added else "in the log already"
        users, requests = wording.count(traffic.n_users), wording.count(traffic.n_requests)
        return f"Simulated: {users} users with {requests} requests, {sent}."

    def plan(self) -> LockedPlan | NoReading:
        """The locked plan with its amendments, or what is missing.

        Raises:
            DataError: It is not the plan that the study's ledger knows.
        """
        ledger.check(self.study.folder, PLAN_FILE)
        return self._locked() or NoReading(missing=(Missing(kind="no_plan"),))

    def _locked(self) -> LockedPlan | None:
        return read_lock(self.path) if self.path.exists() else None

    def reading(
        self, plan: LockedPlan | NoReading | None = None, *, now: float | None = None
    ) -> Reading | NoReading:
        """Reads the test up to where outcomes begin, or says what is missing; a look at the effect goes to the ledger.

        The log stays open for the effect, and for questions about users, until the end.

        Args:
            plan: From `plan`.
            now: Seconds since 1970; the present when not given.
        """
        plan, home = plan or self.plan(), self.study
        if isinstance(plan, ABPlan):
            raise DesignError(
                "a log is read by the locked plan; change it by evalkit.abtest.lock.amend(path, reason, ...)"
            )
        if isinstance(plan, NoReading):
            return plan
        opened = _opened(home, plan)
        if isinstance(opened, NoReading):
            return opened
        if (connection := getattr(opened.engine, "con", None)) is not None:
            # as long as any table of it is in use
            weakref.finalize(opened.engine, connection.close)
        ledger_path = home.path(LEDGER)
        return read_ab_test(opened, plan, ledger=ledger_path, run=home.run, now=now, effect=False)

    def design_effect(self) -> float | None:
        """`effects.design_effect_in` of the log and the metric that decides; None where there is no such log or rate.

        It reads control users alone, so it shows no effect and is no look.
        """
        plan = self._locked()
        opened = _opened(self.study, plan) if plan else None
        if plan is None or not isinstance(opened, Log):
            return None
        with closing(opened):
            primary, name = plan.plan.primary, plan.plan.experiment_name
            if not primary.is_rate or primary.name not in {
                *fetched(opened.recorded(name))["metric"]
            }:
                return None
            return design_effect_in(opened.users(name, kept=False), primary.name)


def _differing(draft: ABPlan, locked: LockedPlan) -> tuple[dict[str, object], ...]:
    says, counts, first = (_in_settings(one) for one in (draft, locked.plan, locked.first))
    return tuple(
        {"name": name, "study": value, "plan": counts[name], "amended": value == first[name]}
        for name, value in says.items()
        if value != counts[name]
    )


def _in_settings(plan: ABPlan) -> dict[str, object]:
    """A plan in the names and values of study.yaml."""
    metric = plan.primary
    rails = [
        f"{one.name} {one.kind}, {one.better} is better, at most {one.margin:g} worse"
        for one in plan.guardrails
    ]
    return {
        **{name: getattr(metric, field) for field, name in _METRIC.items()},
        "metric_sd": metric.sd or 0.0,
        "question": "no_worse" if metric.margin else "better",
        "question_margin": metric.margin or 0.0,
        **{name: getattr(plan, name) for name in _SAME},
        "ab_covariate": plan.covariate,
        "cap_per_user": plan.cap_per_user or 0.0,
        "guardrails_file": "; ".join(rails) or "none",
    }


def _opened(home: Study, plan: LockedPlan) -> Log | NoReading:
    """The study's log, with the outcomes that the plan speaks of, or what is missing."""
    said, planned = home.settings, plan.plan
    where = place_of(home, said.event_log or SIMULATED_LOG)
    there = where.exists() if isinstance(where, Path) else "://" in where or os.environ.get(where)
    if there:
        metrics = [one.name for one in (planned.primary, *planned.secondary)]
        metrics += [one.name for one in planned.guardrails if one.name not in FROM_EXPOSURES]
        return open_log(
            where,
            user=said.log_user,
            variant=said.log_variant,
            outcomes=list(dict.fromkeys([*metrics, *named(said.log_outcomes)])),
            before=[planned.covariate] if planned.covariate else [],
            variants=planned.variants,
            time=said.log_time,
            experiment=said.log_experiment,
            exposures=said.log_exposures,
            events=said.log_events,
        )
    lacks = Missing(kind="no_users", needed=plan.n_users, days=plan.days)
    if said.event_log not in {"", SIMULATED_LOG}:
        kind = "no_variable" if is_elsewhere(said.event_log) else "no_log"
        lacks = replace(lacks, kind=kind, key=said.event_log)
    return NoReading(plan=plan, missing=(lacks,))


def ab_evidence(
    found: Reading | NoReading, *, study: str, differs: Sequence[Mapping[str, object]] = ()
) -> ABEvidence:
    """The layer's record; a withheld effect stands nowhere in it.

    It is bound to the models of its plan by name: users never saw the test set, so no change of it touches what they showed.

    Args:
        found: The reading, or what is missing for one.
        study: The study's name.
        differs: From `plan_differs`.
    """
    plan = found.plan.plan if found.plan else None
    read = isinstance(found, Reading)
    told = found.to_dict() if read else {}
    details = ABDetails.of(told | ({"plan_differs": list(differs)} if differs else {}))
    return ABEvidence(
        study=study,
        made_at=utc(),
        models=plan.models if plan else {},
        bound_to={},
        simulated=found.simulated,
        metric=plan.primary.name.replace("_", " ") if plan else "",
        unit="users",
        missing=found.missing,
        primary=ReportedTest.of(found.primary_dict()) if read else None,
        details=details,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How the simulated users behave.

    Attributes:
        days: Days over which users arrive; at weekends half as many as on a working day.
        requests_per_user: Mean number of requests of a user, who comes back every few days.
        accept_right: Share of right answers a typical user accepts.
        accept_wrong: Share of wrong answers a typical user accepts.
        user_sd: Standard deviation of these shares between users.
    """

    days: int = 28
    requests_per_user: float = 2.4
    accept_right: float = 0.80
    accept_wrong: float = 0.25
    user_sd: float = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What the log now holds; `added` is False when it held all of it before."""

    n_users: int
    n_requests: int
    added: bool


class RecordedClient:
    """A client that answers with what the models once said, and whose clock moves by what they once took."""

    def __init__(self, results: Mapping[str, Sequence[EvalResult]]) -> None:
        """Takes each model's results by the model's name."""
        self._said = {
            model: {one.input_text: one for one in some} for model, some in results.items()
        }
        self._now_s = 0.0
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    def clock(self) -> float:
        """Seconds the recorded calls have taken so far."""
        return self._now_s

    def right(self, model: str, input_text: str) -> bool:
        """Whether the model's recorded answer was the expected one."""
        return bool(self._said[model][input_text].exact_match)

    def _create(self, *, model: str, messages: Messages, temperature: float) -> SimpleNamespace:
        del temperature  # as recorded
        result = self._said[model][messages[-1]["content"]]
        self._now_s += (result.latency_ms or 0.0) / 1000
        if result.outcome == "error":
            raise ModelError(result.error or "the recorded call failed")
        refusal = result.predicted if result.outcome == "refused" else None
        message = SimpleNamespace(content=result.predicted, refusal=refusal)
        choice = SimpleNamespace(message=message, finish_reason=result.finish_reason)
        return SimpleNamespace(choices=[choice], usage=result)  # which counts tokens by these names


def simulate_traffic(
    log: EventLog,
    config: ABTestConfig,
    base_results: Sequence[EvalResult],
    ft_results: Sequence[EvalResult],
    *,
    n_users: int = 12_000,
    seed: int = 0,
    start_at_s: float | None = None,
    metric: str = "accepted",
    slice_field: str = "",
    behaviour: Behaviour | None = None,
) -> Traffic:
    """Sends simulated users through the router, unless the log holds them already.

    Args:
        log: A log of simulated users only.
        config: The split; its control model said `base_results`, its treatment model `ft_results`.
        base_results: Recorded and scored answers of the control model.
        ft_results: The same examples, answered by the treatment model.
        n_users: Users who arrive.
        seed: The same seed, the same traffic.
        start_at_s: When the first may come, seconds since 1970; so many days ago when not given.
        metric: Name of the outcome, 1 = accepted.
        slice_field: Which of the results' slices goes into the log.
        behaviour: How users behave.

    Raises:
        DesignError: The log holds real users, or another simulation of this experiment, or somebody else assigns.
    """
    refuse_external(config)
    behaviour = behaviour or Behaviour()
    asked = {one.input_text for one in base_results} & {one.input_text for one in ft_results}
    questions = sorted(asked)
    visits = _visits(n_users, len(questions), seed, behaviour)
    n_seen = len({user for user, *_ in visits})
    sign = _sign(config, base_results, ft_results, n_users, seed, metric, behaviour)
    if _is_there(log, config, sign):
        return Traffic(n_users=n_seen, n_requests=len(visits), added=False)
    by_model = {config.control_model: base_results, config.treatment_model: ft_results}
    client = RecordedClient(by_model)
    slices = {one.input_text: one.slices.get(slice_field) for one in base_results}
    if start_at_s is None:
        start_at_s = time.time() // DAY_S * DAY_S - behaviour.days * DAY_S
    exposures, outcomes, experiment = _Exposures(), list[OutcomeRow](), config.experiment_name
    through = {"log": exposures, "clock": client.clock}
    for n, (user, at_s, question, mood, luck) in enumerate(visits):
        text, now = questions[question], start_at_s + at_s
        asked = f"sim-{seed}-{user}", [{"role": "user", "content": text}], config, client
        about = {"request_id": f"sim-{experiment}-{seed}-{n}", "slice": slices[text], "now": now}
        try:
            result = run_ab_request(*asked, **through, **about)
        except ModelError:
            continue  # the router has logged it; nobody accepts an answer that never came
        if result.variant is None:
            continue  # not in the test
        is_right = client.right(result.model, text)
        share = behaviour.accept_right if is_right else behaviour.accept_wrong
        row = OutcomeRow(
            experiment=experiment,
            user_id=log.stored_user(result.user_id),
            metric=metric,
            value=float(luck < share + mood),
            at_s=now + result.latency_ms / 1000,
            request_id=result.request_id,
        )
        outcomes.append(row)
    log.record_exposures(exposures)
    log.record_outcomes(outcomes)
    log.set_meta(f"{_name(config)}, complete", "1")
    return Traffic(n_users=n_seen, n_requests=len(visits), added=True)


class _Exposures(list[Exposure]):
    """The router's side of a log, kept until all users have been."""

    def record_exposure(self, exposure: Exposure) -> None:
        self.append(exposure)


def _visits(
    n_users: int, n_questions: int, seed: int, behaviour: Behaviour
) -> list[tuple[int, float, int, float, float]]:
    """User, seconds since the start, question, mood of the user and luck of the draw; in order of time."""
    rng = np.random.default_rng(seed)
    busy = np.where(np.arange(behaviour.days) % 7 < 5, 1.0, 0.5)
    first = rng.choice(behaviour.days, n_users, p=busy / busy.sum())
    first = first + rng.uniform(0.25, 0.9, n_users)
    n_requests = rng.geometric(1 / behaviour.requests_per_user, n_users)
    user = np.repeat(np.arange(n_users), n_requests)
    gaps = rng.exponential(2.0, len(user))
    starts = np.cumsum(n_requests) - n_requests
    gaps[starts] = 0.0
    since = np.cumsum(gaps)
    at_day = first[user] + since - since[starts][user]
    mood = rng.normal(0.0, behaviour.user_sd, n_users)[user]
    question, luck = rng.integers(n_questions, size=len(user)), rng.uniform(size=len(user))
    seen = np.flatnonzero(at_day < behaviour.days)
    order = seen[np.argsort(at_day[seen], kind="stable")]
    columns = (user, np.round(at_day * DAY_S, 3), question, mood, luck)
    return list(zip(*(column[order].tolist() for column in columns), strict=True))


def _is_there(log: EventLog, config: ABTestConfig, sign: str) -> bool:
    """Whether the log holds all of this simulation; marks it as simulated when not."""
    meta = log.meta()
    if meta.get("simulated") != "1" and log.count():
        raise DesignError("the event log holds real users; simulated ones need a log of their own")
    if meta.get(_name(config), sign) != sign:
        told = f"another simulation of {config.experiment_name!r} (other answers, users or split)"
        remedy = "delete the simulated log, or take another experiment_name"
        raise DesignError(f"the event log holds {told}; {remedy}")
    log.set_meta("simulated", "1")
    log.set_meta(_name(config), sign)
    return f"{_name(config)}, complete" in meta


def _name(config: ABTestConfig) -> str:
    return f"simulation of {config.experiment_name}"


def _sign(
    config: ABTestConfig, base: Sequence[EvalResult], tuned: Sequence[EvalResult], *rest: object
) -> str:
    """A hash of all that the simulated rows depend on."""
    fields = attrgetter("input_text", "predicted", "exact_match")
    said = [[*map(fields, some)] for some in (base, tuned)]
    text = repr((config, said, rest)).replace(_UNSAID, "")
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
