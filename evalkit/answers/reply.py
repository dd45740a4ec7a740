"""What a server says: a model's answer, that there is none, what of a request it refuses, and how long it asks to wait."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from evalkit.answers.shapes import REQUEST
from evalkit.conversation import spoken, thoughts_and_answer
from evalkit.records import Answer, Outcome, ends_in_error
from evalkit.wording import cleaned, flattened

_THOUGHT_TYPES = {"thinking", "reasoning", "reasoning_content", "thought", "redacted_thinking"}
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought")  # beside a message's content
_THOUGHT_PARTS = ("thinking_blocks", "reasoning_details")
_FINE = {"", "0", "200", "ok", "success", "none", "null"}  # codes that say: nothing went wrong
_CODES = ("code", "status", "status_code", "error_code", "type", "error_type")
_WORDS = ("message", "error_msg", "status_msg", "msg", "detail", "reason")


@dataclass(eq=False)
class NoAnswerError(Exception):
    """The reply holds no answer.

    Attributes:
        said: What it is instead.
        is_page: It is not even JSON.
        status: The HTTP status the server told inside its reply, as a gateway does for a server behind it.
        names: The error's codes and types that are words, e.g. `rate_limit_exceeded`.
        in_choice: The error stands in the answer's place: the model was found and had begun.
    """

    said: str
    is_page: bool = False
    status: int | None = None
    names: frozenset[str] = frozenset()
    in_choice: bool = False

    def __str__(self) -> str:
        return self.said


def answer(reply: object, *, strip_think: bool | None = None) -> Answer:
    """Reads a chat completion; `strip_think=False` leaves thoughts that stand in the content where they stand.

    Raises:
        NoAnswerError: The reply is not one; the message says what it is.
    """
    completion = _completion(reply)
    choice = _choice(completion)
    message, finish_reason = mapping(choice["message"]), _name(choice.get("finish_reason"))
    refusal = flattened(message.get("refusal"))
    thinking, text = _said(message, strip_think=strip_think is not False)
    text, sanitized = cleaned(text or refusal)
    usage = mapping(completion.get("usage"))
    details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    return Answer(
        text=text,
        outcome=_outcome(text, finish_reason, refused=bool(refusal)),
        finish_reason=finish_reason,
        prompt_tokens=whole_number(usage.get("prompt_tokens")),
        completion_tokens=whole_number(usage.get("completion_tokens")),
        served_model=_name(completion.get("model")),
        sanitized=sanitized,
        thinking=cleaned(thinking)[0],
        thinking_tokens=whole_number({**usage, **mapping(details)}.get("reasoning_tokens")) or None,
    )


def _said(message: Mapping[str, object], *, strip_think: bool) -> tuple[str, str]:
    """A message as (thoughts, answer), from fields and parts of its own or from its text."""
    content = message.get("content")
    fields = (_thought(message.get(name)) for name in (*_THOUGHTS, *_THOUGHT_PARTS))
    thoughts = [next(filter(None, fields), "")]
    if isinstance(content, list):
        thoughts += [_thought([one]) for one in content if _is_thought(one)]
        content = [one for one in content if not _is_thought(one)]
    if strip_think:
        inside, text = thoughts_and_answer(written := flattened(content))
        thoughts.append(inside)
        content = content if text == written else text
    return "\n\n".join(filter(None, thoughts)), spoken({**message, "content": content})


def _is_thought(part: object) -> bool:
    kind = mapping(part).get("type")
    is_named = isinstance(kind, str) and kind in _THOUGHT_TYPES
    return is_named or mapping(part).get("thought") is True


def _thought(value: object) -> str:
    """The text of thoughts: plain, or as a list of parts, under `thinking`, `text`, `content` or `summary`."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        names = ("thinking", "text", "content", "summary")
        return next(filter(None, (_thought(value.get(name)) for name in names)), "")
    return "".join(map(_thought, value)) if isinstance(value, list) else ""


def _completion(reply: object) -> Mapping[str, object]:
    """A reply as the object that it is; as text it may be JSON whose content type does not say so."""
    if isinstance(reply, str):
        with suppress(ValueError, RecursionError):
            reply = json.loads(reply)
    if isinstance(reply, Mapping):
        return reply
    if not isinstance(reply, str):
        raise NoAnswerError(f"the reply is JSON but no completion ({type(reply).__name__})")
    is_page = "<html" in reply[:2000].lower() or "<!doctype" in reply[:200].lower()
    what = "a web page" if is_page else "plain text"
    raise NoAnswerError(f"the address answers with {what}, not with JSON", is_page=True)


def _choice(reply: Mapping[str, object]) -> Mapping[str, object]:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:  # some spread an error over the reply itself
        error = reply.get("error") or reply.get("errors") or reply.get("base_resp") or reply
        raise _told("the reply has no choices", error)
    choice = mapping(choices[0])
    if isinstance(choices[0], Mapping) and (error := _error_of(reply, choice)) is not None:
        raise _told("the server told an error instead of an answer", error, in_choice=True)
    if not isinstance(choice.get("message"), Mapping):
        raise NoAnswerError("the reply's first choice has no message")
    return choice


def _error_of(reply: Mapping[str, object], choice: Mapping[str, object]) -> object:
    """The error that stands in a reply with choices; None when there is none."""
    told = [one.get("error") for one in (choice, mapping(choice.get("message")), reply)]
    told += [reply.get("base_resp"), reply if _is_status(reply.get("code")) else None]
    if (error := next((one for one in told if _is_error(one)), None)) is not None:
        return error
    reasons = (choice.get("finish_reason"), choice.get("native_finish_reason"))
    broken = next((one for one in reasons if ends_in_error(one)), None)
    return broken and f"finish_reason {broken!r}"


def _is_error(error: object) -> bool:
    """Some servers send an empty or a "success" error with each good answer."""
    if isinstance(error, list):
        return any(_is_error(one) for one in error)
    if not isinstance(error, Mapping):
        return error is True or _code(error) not in _FINE
    codes = {_code(error.get(name)) for name in _CODES} - {""}
    return not codes <= _FINE if codes else any(error.get(name) for name in _WORDS)


def _told(what: str, error: object, *, in_choice: bool = False) -> NoAnswerError:
    """An error as told, in the server's words, whole: they are cut where they are stored, once keys are out of them.

    Its status is that code which is a number that HTTP knows as an error.
    """
    error = error[0] if isinstance(error, list) and error else error
    codes = [_code(mapping(error).get(name)) for name in _CODES]
    status = next((int(code) for code in codes if _is_status(code)), None)
    if isinstance(error, Mapping):
        words = (error.get(name) for name in _WORDS)
        error = next((one for one in words if isinstance(one, str) and one), None)
    return NoAnswerError(
        (f"{status}: {what}" if status else what)
        + (f": {error}" if isinstance(error, str) else ""),
        status=status,
        names=frozenset(code for code in codes if code and not code.isdigit()),
        in_choice=in_choice,
    )


def _is_status(value: object) -> bool:
    """Whether HTTP knows the number as an error."""
    return re.fullmatch("[45][0-9][0-9]", _code(value)) is not None


def _code(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_code = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value).strip().lower() if is_code else ""


def _outcome(text: str, finish_reason: str | None, *, refused: bool) -> Outcome:
    if refused or finish_reason == "content_filter":
        return "refused"
    if finish_reason == "length":
        return "truncated"
    return "ok" if text.strip() else "empty"


def whole_number(value: object) -> int | None:
    """A count as servers write it; None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return int(value) if 0 <= value < 2**53 else None


def _name(value: object) -> str | None:
    return cleaned(value)[0][:200] if isinstance(value, str) else None


def mapping(value: object) -> Mapping[str, object]:
    """A JSON object as it is; anything else holds nothing."""
    return value if isinstance(value, Mapping) else {}


def message_of(body: object, otherwise: str) -> str:
    """What a server says of its refusal, in one line; of a web page only that it is one."""
    body = body[0] if isinstance(body, list) and body else body
    if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
        body = body["error"]
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("error") or body
    text = " ".join(str(body or otherwise).split())
    return "a web page" if text.lower().startswith(("<!doctype", "<html")) else text


SPENT = re.compile(  # said at the beginning: further on servers quote what they were sent
    r"insufficient (?:quota|balance|credits?|funds)|out of (?:quota|credits?|funds)"
    r"|exceeded your (?:current|monthly|plan'?s) (?:quota|budget|spend)|(?:credit )?balance is (?:too low|empty)"
    r"|(?:quota|credits?) (?:has|have|is|are) (?:been )?(?:exhausted|used up|depleted|spent)",
    re.IGNORECASE,
)


_READ = 600  # characters: further on servers quote what they were sent
_ROW = re.compile(  # about this row's length or messages: another row may go well
    r"context (?:length|window|limit|size)|prompt is too long|messages?(?:\[|\.\d|['\"],)", re.IGNORECASE
)  # fmt: skip
_UNKNOWN = re.compile(
    r"unsupported|(?:not|n't) support|not (?:allowed|permitted|accepted|available|enabled|implemented)|extra_forbidden"
    r"|unrecogni[sz]ed|unknown|unexpected|additional propert|deprecated|cannot (?:both )?be|at the same time"
    r"|that support|requires? --|no such|cannot both",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"too (?:large|high|big|small|low)|at (?:most|least)|(?:must|should) be|may only|supports only|(?:less|greater) than"
    r"|maximum|range|only .{0,40}(?:supported|allowed)|(?:supported|valid|allowed) values|one of|invalid|literal_error|> \d",
    re.IGNORECASE,
)
_MISSING = re.compile(r"field required|missing|is required|must be (?:set|given|provided)", re.I)
_ALSO_CALLED = {
    "tools": r"tools|tool[ _](?:use|calling|call)|function calling",
    "reasoning_effort": r"reasoning[_ .]?effort|thinking",
}
_SETTINGS = {  # of a field of the request: what leaves it out
    "temperature": "send_temperature: false",
    "max_tokens": "max_tokens: 0, in whose place max_completion_tokens may be set",
    "max_completion_tokens": "max_completion_tokens: 0, in whose place max_tokens may be set",
    "seed": "request_seed: 0",
    "reasoning_effort": 'reasoning_effort: ""',
}
_WHERE = "in study.yaml, or for one model alone in request.yaml"


def refused(text: str, sent: Mapping[str, object], *, param: str | None = None) -> str:
    """Says which part of a request a server refuses and what to set instead; "" when its words are about neither.

    Args:
        text: The server's message.
        sent: The request's fields besides model and messages.
        param: The field, where the server names it apart from the message.

    Example:
        >>> refused("Unrecognized property 'top_k'.", {"top_k": 1})
        'the server refuses top_k 1: change or leave it out under extra_body in request.yaml'
    """
    text = text[:_READ]
    if _ROW.search(text) or (param or "").partition("[")[0] in {"messages", "model"}:
        return ""
    is_unknown = bool(_UNKNOWN.search(text))
    name = _named(text, [*sent, *(one for one in REQUEST if one not in sent)], param)
    if not name and _MISSING.search(text) and (wanted := _named(text, _SETTINGS, param)):
        return f"the server wants {wanted}: set it {_WHERE}"
    if name in REQUEST:
        return f"the server refuses {name}, which rows of the test set hold" if is_unknown else ""
    if not name or not (is_unknown or param or _VALUE.search(text)):
        return ""
    where = (
        f"({_SETTINGS[name]}) {_WHERE}" if name in _SETTINGS else "under extra_body in request.yaml"
    )
    return f"the server refuses {name} {sent[name]!r}: change or leave it out {where}"


def _named(text: str, names: Iterable[str], param: str | None) -> str:
    """The field the text speaks of first, as a word or in camelCase."""
    head = re.split(r"[.\[]", param or "")[0]
    if head in names:
        return head
    found = dict[str, int]()
    for name in names:
        spelled = _ALSO_CALLED.get(name) or "[_ ]?".join(map(re.escape, name.split("_")))
        if at := re.search(rf"(?<![a-z0-9])(?:{spelled})(?![a-z0-9_])", text, re.IGNORECASE):
            found[name] = at.start()
    return min(found, key=lambda name: found[name], default="")


_RESET_AT_MOST_S = 60.0  # a limit often resets little by little: to be whole again takes longer than to let one through
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = (
    r"(\d+(?:\.\d+)?)\s*"
    r"(ms|milliseconds?|msecs?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z])"
)
_PARTS = re.compile(_PART, re.IGNORECASE)
_ALL_PARTS = re.compile(rf"(?:{_PART}[\s,]*)+", re.IGNORECASE)
_IN_WORDS = re.compile(
    rf"(?:again|retry(?:ing)?|wait|resets?|available)\W+(?:(?:in|after|for|again|about|at least|another)\W+){{0,3}}"
    rf"((?:{_PART}(?:[\s,]|and)*)+)",
    re.IGNORECASE,
)
_RESET = re.compile(r"(?:x-|[a-z]+-)?ratelimit-(?:.+-)?reset(?:-.+)?")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def seconds_asked(
    headers: Mapping[str, str], words: str = "", *, status: int = 429
) -> float | None:
    """Seconds the server asks to wait: `retry-after-ms` or `retry-after`, its words, or when its limit resets.

    Many servers tell the state of their limits with every reply: with another status than 429 it counts only when nothing
    is left, and with 429 only when nothing is said to be left.

    Example:
        >>> seconds_asked({}, "Please try again in 1m30s."), seconds_asked({"retry-after-ms": "350"})
        (90.0, 0.35)
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if (ms := _number(headers.get(name))) is not None:
            return max(0.0, ms / 1000)
    if (asked := _seconds(headers.get("retry-after") or "")) is not None:
        return asked
    if (asked := seconds_in_words(words)) is not None:
        return asked
    lower = {name.lower(): value for name, value in headers.items()}
    return _until_reset(lower, is_limited=status == 429)


def seconds_in_words(words: str) -> float | None:
    """Seconds from "try again in 4.1s", "retry after 43 seconds", "wait 1m30s"; None where nothing of the kind stands."""
    found = _IN_WORDS.search(words)
    return _sum(found[1]) if found else None


def _until_reset(headers: Mapping[str, str], *, is_limited: bool) -> float | None:
    """Of several limits (requests, tokens) the used-up ones count, the last of them.

    Else, when the rate was refused, the one that resets first: but none of which something is left, for what refused the
    call is another limit then, such as one of calls under way, which ends long before that one resets.
    """
    told = [
        (_number(headers.get(name.replace("reset", "remaining"))), _seconds(value))
        for name, value in headers.items()
        if _RESET.fullmatch(name)
    ]
    limits = [*told, *_combined(headers.get("ratelimit", ""))]
    resets = [(left, asked) for left, asked in limits if asked is not None]
    spent = [asked for left, asked in resets if left == 0]
    unknown = [asked for left, asked in resets if left is None] if is_limited else []
    if not spent and not unknown:
        return None
    found = max(spent) if spent else min(unknown)
    return min(found, _RESET_AT_MOST_S)


def _combined(header: str) -> Iterator[tuple[float | None, float | None]]:
    """Of each limit in one header what is left of it, and the seconds until it resets.

    Source: draft-ietf-httpapi-ratelimit-headers: `"default";r=50;t=30, "daily";r=0;t=900`, and of one limit, before its
    version 08, `limit=100, remaining=50, reset=30`.
    """
    text = _QUOTED.sub("", header.lower())
    for limit in [text] if "reset" in text else text.split(","):
        said = dict(re.findall(r"([a-z]+)\s*=\s*([\d.]+)", limit))
        left, reset = said.get("remaining", said.get("r")), said.get("reset", said.get("t"))
        yield _number(left), _seconds(reset or "")


def _seconds(text: str) -> float | None:
    """A number of seconds, a time of day (as seconds or milliseconds since 1970, ISO or HTTP date), or "6m0s"."""
    now = datetime.now(UTC)
    if (number := _number(text)) is not None:
        since_1970 = number / 1000 if number > 1e11 else number
        return max(0.0, since_1970 - now.timestamp() if since_1970 > 1e9 else number)
    if _ALL_PARTS.fullmatch(text.strip()):
        return _sum(text)
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = read(text.strip())
        except ValueError:
            continue
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
    return None


def _sum(text: str) -> float:
    parts = [(float(number), unit.lower()) for number, unit in _PARTS.findall(text)]
    short = ["ms" if unit.startswith(("ms", "milli")) else unit[0] for _, unit in parts]
    return sum(n * _UNITS[unit] for (n, _), unit in zip(parts, short, strict=True))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
