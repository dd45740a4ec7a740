"""One request through the test: assign, ask, write down, answer; and what the log holds of it.

`exposures`, one row a request:

| column | type | meaning |
|---|---|---|
| request_id | text, primary key | the caller's, or a fresh one |
| experiment | text | the plan's experiment name |
| phase | integer | 1, and one more for each change of the split |
| user_id | text | as given, or hashed with the log's salt |
| variant | text | "control" or "treatment", as assigned |
| model | text | the model that gave the answer |
| at_s | double | UTC, seconds since 1970 |
| latency_ms | double | around the model call(s) only |
| outcome | text | ok, error, refused, truncated, empty, oversized |
| error | text or null | what failed, also when a fallback answered |
| fallback | boolean | the control model answered for a failed treatment |
| prompt_tokens, completion_tokens | integer or null | as the endpoint counted |
| slice | text or null | a value to cut the result by |

`outcomes`, one row an event that followed:

| column | type | meaning |
|---|---|---|
| outcome_id | text, primary key | the caller's, or made from what the row says |
| experiment, user_id | text | copied from the exposure when a request is named |
| request_id | text or null | null: the event belongs to the user, not to one request |
| metric | text | what was measured, e.g. "accepted" |
| value | double | 0 or 1 for a rate, a number otherwise |
| at_s | double | UTC, seconds since 1970 |
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, asdict, dataclass, field, fields, replace
from numbers import Real
from typing import Any, Protocol

from evalkit.abtest.assignment import VARIANTS, ABTestConfig, Assign, Variant, assign_variant
from evalkit.answers.reply import NoAnswerError, answer
from evalkit.conversation import Messages
from evalkit.errors import DesignError, ModelError
from evalkit.records import Answer, Outcome
from evalkit.wording import cleaned, known_secrets, redacted


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """One row of `exposures`; the module's docstring explains the columns."""

    request_id: str
    experiment: str
    phase: int = 1
    user_id: str
    variant: str
    model: str
    at_s: float
    latency_ms: float
    outcome: Outcome = "ok"
    error: str | None = None
    fallback: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    slice: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """One row of `outcomes`, its id made from what it says unless given; `user_id` is the stored one."""

    outcome_id: str = ""
    experiment: str
    request_id: str | None = None
    user_id: str
    metric: str
    value: float
    at_s: float

    def __post_init__(self) -> None:
        """Makes the id.

        Raises:
            DesignError: The value is not finite.
        """
        if not isinstance(self.value, Real) or not math.isfinite(self.value):
            raise DesignError(f"outcome {self.metric!r}: {self.value!r} is not a finite number")
        object.__setattr__(self, "value", float(self.value))
        if self.outcome_id:
            return
        of_user = [self.experiment, self.user_id, self.metric, self.value, self.at_s]
        of_request = [self.experiment, self.request_id, self.metric]
        named = json.dumps(of_request if self.request_id else of_user)
        made = hashlib.sha256(named.encode()).hexdigest()[:32]
        object.__setattr__(self, "outcome_id", made)


TOKENS = ("prompt_tokens", "completion_tokens")
TEXTS = {
    one.name
    for record in (Exposure, OutcomeRow)
    for one in fields(record)
    if str(one.type).partition(" | ")[0] in ("str", "Outcome")
}


class ExposureLog(Protocol):
    """What the router needs of a log; `EventLog` is one."""

    def record_exposure(self, exposure: Exposure) -> None: ...


@dataclass(frozen=True, slots=True)
class ABTestResult:
    """What one request came back with; the first six fields are positional, in the article's order.

    Attributes:
        variant: "control" or "treatment", as assigned, also when a fallback answered; None for a user who is not in the test:
            the control model answered, and nothing was logged that an outcome could name.
        latency_ms: Milliseconds around the model call; with a fallback, around both.
        timestamp: Seconds since 1970, at which the request came in.
        request_id: What a later `record_outcome` names.
        error: What failed in treatment, or in the assignment, when the control model had to answer.
    """

    model: str
    variant: str | None
    user_id: str
    response: str
    latency_ms: float
    timestamp: float = field(default_factory=time.time)
    _: KW_ONLY
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    outcome: Outcome = "ok"
    error: str | None = None
    fallback: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def run_ab_request(
    user_id: str,
    messages: Messages,
    config: ABTestConfig,
    client: Any,
    *,
    log: ExposureLog | None = None,
    assign: Assign | None = None,
    request_id: str | None = None,
    fallback: bool = False,
    slice: str | None = None,  # noqa: A002 - the column's name
    now: float | None = None,
    temperature: float = 0.0,
    options: Mapping[str, object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> ABTestResult:
    """Asks the model the user is assigned to, and commits the exposure before the answer is handed over.

    A failed call is logged with outcome "error", then raised again as it came, with the request id in its notes. With
    `fallback`, a failed treatment call goes to the control model once more: the user stays in treatment (intention to
    treat), and the row says that the fallback answered.

    A user who is not in the test (`assign` says None or fails, or the experiment's coverage leaves the user out) is answered by
    the control model and counts nowhere: no exposure is logged, and `error` says what failed.

    Args:
        user_id: Who asks; decides the variant.
        messages: As for the client.
        config: The split; `LockedPlan.config` for a planned test.
        client: `openai.OpenAI` or anything with `client.chat.completions.create(model=, messages=, temperature=)`.
        log: Where the exposure goes; None logs nothing.
        assign: Gives a user id "control", "treatment" or None in place of the hash in `config`; see `openfeature_assigner`.
            What it says at a user's first request is what counts, whatever it says later.
        request_id: The caller's own id, unique for ever; a fresh one when not given.
        fallback: Let the control model answer for a failed treatment.
        slice: A value to cut the result by later.
        now: Seconds since 1970; the present time when not given.
        temperature: Passed on.
        options: Further arguments of `create`, e.g. `{"max_tokens": 96}`.
        clock: Seconds, for the latency.

    Raises:
        DesignError: `user_id` is empty.
        Exception: Whatever the client raised.
    """
    assigned = _assigned(user_id, config, assign)
    request = _Request(
        user_id, config, client, assigned, request_id=request_id, cut=slice, at_s=now, clock=clock
    )
    body = {"messages": messages, "temperature": temperature, **(options or {})}
    try:
        for model in request.to_ask(fallback=fallback):
            with request.asking() as heard:
                heard(client.chat.completions.create(model=model, **body))
                break
    finally:
        request.write(log)
    return request.told


async def run_ab_request_async(
    user_id: str,
    messages: Messages,
    config: ABTestConfig,
    client: Any,
    *,
    log: ExposureLog | None = None,
    assign: Assign | None = None,
    request_id: str | None = None,
    fallback: bool = False,
    slice: str | None = None,  # noqa: A002 - the column's name
    now: float | None = None,
    temperature: float = 0.0,
    options: Mapping[str, object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> ABTestResult:
    """`run_ab_request` for `openai.AsyncOpenAI`; `assign` and the writing of the exposure run in a thread, and are awaited.

    A cancelled request (a timeout of the caller, a closed connection) is logged as an error too, then cancelled.
    """
    who = (user_id, config, assign)
    assigned = await asyncio.to_thread(_assigned, *who) if assign else _assigned(*who)
    request = _Request(
        user_id, config, client, assigned, request_id=request_id, cut=slice, at_s=now, clock=clock
    )
    body = {"messages": messages, "temperature": temperature, **(options or {})}
    try:
        for model in request.to_ask(fallback=fallback):
            with request.asking() as heard:
                heard(await client.chat.completions.create(model=model, **body))
                break
    finally:
        await asyncio.shield(asyncio.to_thread(request.write, log))
    return request.told


def _assigned(
    user_id: str, config: ABTestConfig, assign: Assign | None
) -> tuple[Variant | None, str | None]:
    """The user's variant; none, and why, when whoever assigns could not say it."""
    if user_id is None or not str(user_id).strip():
        raise DesignError("user_id is empty; all users without one would get the same variant")
    if assign is None:
        return assign_variant(str(user_id), config), None
    try:
        found = assign(str(user_id))
    except Exception as why:  # whatever a provider raises, the user gets an answer
        return None, f"assignment: {type(why).__name__}: {why}"
    if found is None or (isinstance(found, str) and found in VARIANTS):
        return found, None
    return None, f"assignment: gave {found!r}; need 'control', 'treatment' or None"


class _Request:
    """A request on its way: becomes the row in the log, and the result."""

    def __init__(
        self,
        user_id: str,
        config: ABTestConfig,
        client: object,
        assigned: tuple[Variant | None, str | None],
        *,
        request_id: str | None,
        cut: str | None,
        at_s: float | None,
        clock: Callable[[], float],
    ) -> None:
        self._config, self._client, self._slice, self._clock = config, client, cut, clock
        variant, why = assigned
        self.models = [config.model(variant)]
        who, named = (self.models[0], variant, str(user_id)), str(request_id or uuid.uuid4().hex)
        at_s = time.time() if at_s is None else at_s
        # what the caller gets, as far as it is known
        self.told = ABTestResult(*who, "", 0.0, at_s, request_id=named, outcome="error")
        if why:
            self._failed(why)

    def to_ask(self, *, fallback: bool) -> Iterator[str]:
        """The models to ask, one after the other."""
        if fallback and self.told.variant == "treatment":
            self.models.append(self._config.control_model)
        for place, model in enumerate(self.models):
            self.told = replace(self.told, model=model, fallback=place > 0)
            yield model

    @contextmanager
    def asking(self) -> Iterator[Callable[[object], None]]:
        """Times one call, from here until its reply is handed to what this gives; its failure is noted down.

        A failure that is not the last word is kept back, for the next model to be asked.
        """
        replies: list[tuple[float, object]] = []
        started = self._clock()
        try:
            try:
                yield lambda reply: replies.append((self._clock() - started, reply))
            finally:
                took_s = replies[0][0] if replies else self._clock() - started
                self.told = replace(self.told, latency_ms=self.told.latency_ms + took_s * 1000)
            found = _answer(replies[0][1])
            tokens = {name: getattr(found, name) for name in TOKENS}
            self.told = replace(self.told, response=found.text, outcome=found.outcome, **tokens)
        except BaseException as why:
            self._failed(f"{self.told.model}: {type(why).__name__}: {why}")
            why.add_note(f"evalkit request_id: {self.told.request_id}")
            if len(self.models) == 1 + self.told.fallback or not isinstance(why, Exception):
                raise

    def write(self, log: ExposureLog | None) -> None:
        """Commits the row of a user who is in the test."""
        if log is None or self.told.variant is None:
            return
        told = {name: one for name, one in asdict(self.told).items() if name in Exposure.__slots__}
        told |= {"experiment": self._config.experiment_name, "phase": self._config.phase}
        log.record_exposure(Exposure(at_s=self.told.timestamp, slice=self._slice, **told))

    def _failed(self, why: str) -> None:
        """A server may quote the key it refuses: the client's own as well as the environment's."""
        given = (str(getattr(self._client, name, "")) for name in ("api_key", "base_url"))
        error = "; then ".join(filter(None, (self.told.error, why)))
        error = redacted(cleaned(error)[0], known_secrets(*given))[:2000]
        self.told = replace(self.told, error=error)


def _answer(reply: Any) -> Answer:
    """Reads a reply object; one without an answer counts as a failed call."""
    try:
        choice = reply.choices[0]
    except (AttributeError, IndexError, TypeError):
        choices = []
    else:
        message = {name: getattr(choice.message, name, None) for name in ("content", "refusal")}
        told = {name: getattr(choice, name, None) for name in ("finish_reason", "error")}
        choices = [{"message": message, **told}]
    usage = getattr(reply, "usage", None)
    tokens = {name: getattr(usage, name, None) for name in TOKENS}
    try:
        return answer({"choices": choices, "usage": tokens, "error": getattr(reply, "error", None)})
    except NoAnswerError as why:
        raise ModelError(str(why)) from why
