"""An attempt without an answer: whether the row, the run or only this attempt is lost by it, and what to set instead."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
import httpx2
import openai

from evalkit.answers.refusal import refused
from evalkit.answers.reply import NoAnswerError
from evalkit.answers.waits import seconds_asked
from evalkit.records import Answer, Outcome
from evalkit.wording import told_by

_AWAY = {
    "unreachable": "no connection",
    "dropped": "no connection",
    "timeout": "no answer",
    "gone": "no answer",
}
_LAST: Mapping[str, tuple[Outcome, str | None]] = {
    "row": ("error", None),
    "filtered": ("refused", "content_filter"),
    "oversized": ("oversized", None),
}
_GONE = {502, 503, 504, 529, *range(520, 525)}  # what gateways say of a server behind them
_TOO_LARGE_FOR_THE_RATE = re.compile(
    r"request too large|reduce (?:the|your) (?:prompt|input)", re.I
)
_STOPS = {
    401: "the key is not accepted, check OPENAI_API_KEY",
    402: "the account must be paid for",
    403: "this key may not use it",
    404: "not found, check the model's name; does OPENAI_BASE_URL end in /v1?",
}
_REFUSED = "request refused; a parameter set to None is left out, extra_body adds others"
_NO_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_SPENT = re.compile(  # said at the beginning: further on servers quote what they were sent
    r"insufficient (?:quota|balance|credits?|funds)|out of (?:quota|credits?|funds)"
    r"|exceeded your (?:current|monthly|plan'?s) (?:quota|budget|spend)|(?:credit )?balance is (?:too low|empty)"
    r"|(?:quota|credits?) (?:has|have|is|are) (?:been )?(?:exhausted|used up|depleted|spent)",
    re.IGNORECASE,
)
_SPENT_WITHIN = 100
_FLAGGED = re.compile(r"flagged|moderation|content (?:policy|filter)|safety", re.IGNORECASE)
_WRONG_NAME = {"model_not_found", "invalid_model"}
_WRONG_REQUEST = _WRONG_NAME | {"unsupported_parameter", "unsupported_value", "unknown_parameter"}
_FILTERED = {"content_filter", "content_policy_violation"}
_TOO_LONG = {"context_length_exceeded", "string_above_max_length"}
_WRONG_ROW = {"invalid_request_error", "invalid_argument", "badrequesterror"}
_RATE = {"rate_limit_exceeded", "rate_limit_error", "rate_limited"}
_LIMITED = _RATE | {"too_many_requests", "resource_exhausted"}
_CURELESS = _NO_QUOTA | _WRONG_REQUEST | _FILTERED | _TOO_LONG | _WRONG_ROW  # told without a status


@dataclass(frozen=True, slots=True)
class Fault:
    """An attempt without an answer.

    Attributes:
        said: What the row keeps of it; no key stands in it.
        kind: Worth repeating: limited, gone, unreachable, dropped, timeout, status, reply, page. Only this row fails: row,
            filtered, oversized. No row can be answered: end.
        wait_s: How long the server asks to wait.
    """

    said: str
    kind: str
    wait_s: float | None = None

    @property
    def away(self) -> str:
        """How it shows that the server is away, unless others are answered meanwhile; "" when it does not."""
        return _AWAY.get(self.kind, "")

    def as_answer(self) -> Answer | None:
        """What is kept of a row that no repeating cures; None when it is worth repeating, or no row can be answered."""
        if self.kind not in _LAST:
            return None
        outcome, reason = _LAST[self.kind]
        return Answer(text="", outcome=outcome, error=self.said, finish_reason=reason)


@dataclass(slots=True, kw_only=True)
class Faults:
    """What the exceptions of the SDK mean for the rows of one endpoint, told without a key.

    Attributes:
        sent: What goes with each call besides model and messages.
        has_key: Whether there was one to send.
        secrets: What no message may hold.
        longest_wait_s: The longest that a server may ask to wait; infinite where patience decides.
        has_answered: Whether any row was answered, so that not all of them can be at fault.
    """

    host: str
    model: str
    sent: Mapping[str, object]
    has_key: bool
    secrets: Sequence[str]
    timeout_s: float
    longest_wait_s: float
    has_answered: bool = False

    def of(self, why: Exception) -> Fault:
        """What an exception of the SDK means for the row, without its key and without its past."""
        if isinstance(why, openai.APIStatusError):
            return self._refusal(why)
        if isinstance(why, NoAnswerError):
            return self._told(why)
        if isinstance(why, json.JSONDecodeError | UnicodeDecodeError):
            return Fault("the reply is not JSON", "reply")
        return self._unread(why, [why, *_causes(why)])

    def _unread(self, why: Exception, causes: list[BaseException]) -> Fault:
        """No reply, or one that could not be read."""
        if too_large := next((one for one in causes if isinstance(one, TooLargeError)), None):
            return Fault(str(too_large), "oversized")
        if any(isinstance(cause, httpx2.DecodingError) for cause in causes):
            return Fault("the reply cannot be unpacked", "reply")
        if isinstance(why, TimeoutError) or isinstance(causes[-1], TimeoutError):
            return Fault(f"no answer within {self.timeout_s:g} s", "timeout")
        if isinstance(why, openai.APIConnectionError | aiohttp.ClientError | OSError):
            said = f"no connection ({type(causes[-1]).__name__}: {causes[-1]})"
            is_there = not any(isinstance(one, aiohttp.ClientConnectorError) for one in causes)
            return Fault(self._clean(said), "dropped" if is_there else "unreachable")
        return Fault(self._clean(f"{type(why).__name__}: {why}"), "row")

    def _told(self, why: NoAnswerError) -> Fault:
        """An error inside an HTTP 200: sorted by the status and the names it tells, repeated when they are unknown."""
        message, names = self._clean(str(why)), why.names
        status = 429 if why.status is None and names & _LIMITED else why.status
        if status is None and not names & _CURELESS:
            return Fault(message, "page" if why.is_page else "reply")
        found = self._by_status(status or 400, names, message, seconds_asked({}, message))
        if why.in_choice and found.kind == "end" and not names & _NO_QUOTA:
            # the model was found and had begun: the next row may go well
            return Fault(message, "row")
        return found

    def _refusal(self, why: openai.APIStatusError) -> Fault:
        status, names = why.status_code, {str(name) for name in (why.code, why.type) if name}
        message = f"{status}: {self._clean(message_of(why))}"
        is_about = status in {400, 404, 422} or (status >= 500 and " requires --" in message)
        is_about = is_about and not names & (_FILTERED | _NO_QUOTA | _TOO_LONG)
        if is_about and (told := refused(message, self.sent, param=why.param)):
            told, others_went_well = f"{told} ({message})", self.has_answered
            is_row = others_went_well and not names & _WRONG_REQUEST
            return Fault(told, "row") if is_row else self._end(told)
        if status == 403 and _FLAGGED.search(message):
            return Fault(message, "filtered")  # this prompt, not this key
        wait_s = seconds_asked(why.response.headers, message, status=status)
        return self._by_status(status, names, message, wait_s)

    def _by_status(
        self, status: int, names: set[str] | frozenset[str], message: str, wait_s: float | None
    ) -> Fault:
        says_so = status in {400, 403, 429} and _SPENT.search(message[:_SPENT_WITHIN])
        if names & _NO_QUOTA or (says_so and wait_s is None):
            said = f"{self.host}: no quota left ({message}); top it up and start again"
            return Fault(said, "end")
        if status in _STOPS or names & _WRONG_REQUEST:
            what = _STOPS.get(status, _REFUSED)
            if status == 401 and not self.has_key:
                what = "it wants a key, and OPENAI_API_KEY is not set"
            return self._end(f"{what} ({message})")
        if names & _FILTERED:
            return Fault(message, "filtered")
        if status == 429 and _TOO_LARGE_FOR_THE_RATE.search(message):
            return Fault(message, "row")
        if status not in {408, 409, 425, 429} and status < 500:
            return Fault(message, "row")
        if wait_s is not None and wait_s > self.longest_wait_s:
            limit = f"the limit is {self.longest_wait_s:g} s: start again later"
            message = f"{message}; the server asks to wait {wait_s:g} s, {limit}"
        kind = "limited" if status == 429 else "gone" if status in _GONE else "status"
        return Fault(message, kind, wait_s)

    def _end(self, said: str) -> Fault:
        return Fault(f"{self.host}: model {self.model!r}: {said}", "end")

    def _clean(self, text: str) -> str:
        """A message fit to be kept: secrets go first, then it is cut, lest half a key is left."""
        return told_by(text, self.secrets)


class TooLargeError(Exception):
    """A reply went beyond the limit; the message says how large it is, as far as is known."""


def message_of(why: openai.APIStatusError) -> str:
    """What a server says of its refusal, in one line; of a web page only that it is one."""
    body = why.body[0] if isinstance(why.body, list) and why.body else why.body
    if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
        body = body["error"]
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("error") or body
    text = " ".join(str(body or why.message).split())
    return "a web page" if text.lower().startswith(("<!doctype", "<html")) else text


def _causes(why: BaseException) -> Iterator[BaseException]:
    while (cause := why.__cause__) is not None:
        yield cause
        why = cause
