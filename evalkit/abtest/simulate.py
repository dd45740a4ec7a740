"""Simulated users on recorded answers: the demo's traffic, through the real assignment, router and log.

Real: the models' answers, latencies and tokens, as recorded; assignment, routing and the tables. Simulated: the users, when
they come, and whether they accept an answer. One thing is faster than in production: rows are committed 1,000 at a time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from evalkit.abtest.assignment import ABTestConfig, refuse_external
from evalkit.abtest.events import Exposure, OutcomeRow
from evalkit.abtest.routing import ABTestResult, run_ab_request
from evalkit.conversation import Messages
from evalkit.errors import DesignError, ModelError
from evalkit.records import EvalResult

if TYPE_CHECKING:
    from evalkit.abtest.log import EventLog

DAY_S = 86400.0
_BATCH = 1000

# not in the signs of logs simulated before there were these
_UNSAID = ", hash_seed='', coverage=1.0"


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
    client = RecordedClient(
        {config.control_model: base_results, config.treatment_model: ft_results}
    )
    slices = {one.input_text: one.slices.get(slice_field) for one in base_results}
    if start_at_s is None:
        start_at_s = time.time() // DAY_S * DAY_S - behaviour.days * DAY_S
    batch = _Batch(log, config)
    for n, (user, at_s, question, mood, luck) in enumerate(visits):
        text, now = questions[question], start_at_s + at_s
        try:
            result = run_ab_request(
                f"sim-{seed}-{user}",
                [{"role": "user", "content": text}],
                config,
                client,
                log=batch,
                clock=client.clock,
                request_id=f"sim-{config.experiment_name}-{seed}-{n}",
                slice=slices[text],
                now=now,
            )
        except ModelError:
            continue  # the router has logged it; nobody accepts an answer that never came
        if result.variant is None:
            continue  # not in the test
        is_right = client.right(result.model, text)
        share = behaviour.accept_right if is_right else behaviour.accept_wrong
        accepted = float(luck < share + mood)
        batch.record_outcome(result, metric, accepted, at_s=now + result.latency_ms / 1000)
    batch.flush()
    log.set_meta(f"{_name(config)}, complete", "1")
    return Traffic(n_users=n_seen, n_requests=len(visits), added=True)


class _Batch:
    """The router's and the users' side of a log, with commits of 1,000 rows."""

    def __init__(self, log: EventLog, config: ABTestConfig) -> None:
        self._log, self._experiment = log, config.experiment_name
        self._exposures: list[Exposure] = []
        self._outcomes: list[OutcomeRow] = []

    def record_exposure(self, exposure: Exposure) -> None:
        self._exposures.append(exposure)
        if len(self._exposures) >= _BATCH:
            self.flush()

    def record_outcome(self, told: ABTestResult, metric: str, value: float, *, at_s: float) -> None:
        row = OutcomeRow(
            experiment=self._experiment,
            user_id=self._log.stored_user(told.user_id),
            metric=metric,
            value=value,
            at_s=at_s,
            request_id=told.request_id,
        )
        self._outcomes.append(row)

    def flush(self) -> None:
        self._log.record_exposures(self._exposures)
        self._log.record_outcomes(self._outcomes)
        self._exposures, self._outcomes = [], []


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
        raise DesignError(
            f"the event log holds another simulation of {config.experiment_name!r} (other answers, users or split); "
            "delete the simulated log, or take another experiment_name"
        )
    log.set_meta("simulated", "1")
    log.set_meta(_name(config), sign)
    return f"{_name(config)}, complete" in meta


def _name(config: ABTestConfig) -> str:
    return f"simulation of {config.experiment_name}"


def _sign(
    config: ABTestConfig, base: Sequence[EvalResult], tuned: Sequence[EvalResult], *rest: object
) -> str:
    """A hash of all that the simulated rows depend on."""
    said = [
        [(one.input_text, one.predicted, one.exact_match) for one in some] for some in (base, tuned)
    ]
    text = repr((config, said, rest)).replace(_UNSAID, "")
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
