"""What a chat completion's JSON means: text, outcome, tokens; or that it is no answer at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from evalkit.answers.thinking import split
from evalkit.conversation import spoken
from evalkit.records import Answer, Outcome, ends_in_error
from evalkit.wording import cleaned, flattened

_THOUGHTS = (  # of a message, beside its content: the first that holds any
    "reasoning_content",
    "reasoning",
    "thinking",
    "thought",
    "thinking_blocks",
    "reasoning_details",
)
_THOUGHT_TYPES = {"thinking", "reasoning", "reasoning_content", "thought", "redacted_thinking"}
_FINE = {
    "",
    "0",
    "200",
    "ok",
    "success",
    "none",
    "null",
}  # codes by which a server says that nothing went wrong
_CODES = ("code", "status", "status_code", "error_code", "type", "error_type")
_WORDS = ("message", "error_msg", "status_msg", "msg", "detail", "reason")


class NoAnswerError(Exception):
    """The reply holds no answer.

    Attributes:
        is_page: It is not even JSON.
        status: The HTTP status the server told inside its reply, as a gateway does for a server behind it.
        names: The error's codes and types that are words, e.g. `rate_limit_exceeded`.
        in_choice: The error stands in the answer's place: the model was found and had begun.
    """

    def __init__(
        self,
        message: str,
        *,
        is_page: bool = False,
        status: int | None = None,
        names: frozenset[str] = frozenset(),
        in_choice: bool = False,
    ) -> None:
        super().__init__(message)
        self.is_page, self.status, self.names, self.in_choice = is_page, status, names, in_choice


def answer(reply: Any, *, strip_think: bool | None = None) -> Answer:
    """Reads a chat completion; `strip_think=False` leaves thoughts that stand in the content where they stand.

    Raises:
        NoAnswerError: The reply is not one; the message says what it is.
    """
    reply = _parsed(reply) if isinstance(reply, str) else reply
    message, finish_reason = _first_choice(reply)
    refusal = flattened(message.get("refusal"))
    thinking, text = _said(message, strip_think=strip_think is not False)
    text, sanitized = cleaned(text or refusal)
    usage = reply.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    details = {**usage, **(details if isinstance(details, Mapping) else {})}
    return Answer(
        text=text,
        outcome=_outcome(text, finish_reason, refused=bool(refusal)),
        finish_reason=finish_reason,
        prompt_tokens=_whole(usage.get("prompt_tokens")),
        completion_tokens=_whole(usage.get("completion_tokens")),
        served_model=_name(reply.get("model")),
        sanitized=sanitized,
        thinking=cleaned(thinking)[0],
        thinking_tokens=_whole(details.get("reasoning_tokens")) or None,
    )


def _said(message: Mapping[str, object], *, strip_think: bool) -> tuple[str, str]:
    """A message as (thoughts, answer), from fields and parts of its own or from its text."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    thoughts = [next(filter(None, (_thought(message.get(name)) for name in _THOUGHTS)), "")]
    thoughts += [_thought([one]) for one in parts if _is_thought(one)]
    if parts:
        content = [one for one in parts if not _is_thought(one)]
    if strip_think:
        inside, text = split(written := flattened(content))
        thoughts.append(inside)
        content = content if text == written else text
    return "\n\n".join(filter(None, thoughts)), spoken({**message, "content": content})


def _is_thought(part: object) -> bool:
    if not isinstance(part, Mapping):
        return False
    kind = part.get("type")
    return part.get("thought") is True or (isinstance(kind, str) and kind in _THOUGHT_TYPES)


def _thought(value: object) -> str:
    """The text of thoughts: plain, or as a list of parts, under `thinking`, `text`, `content` or `summary`."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        names = ("thinking", "text", "content", "summary")
        return next(filter(None, (_thought(value.get(name)) for name in names)), "")
    return "".join(map(_thought, value)) if isinstance(value, list) else ""


def _parsed(text: str) -> Any:
    """JSON whose content type does not say so; any other text as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _first_choice(reply: object) -> tuple[Mapping[str, Any], str | None]:
    if not isinstance(reply, Mapping):
        raise NoAnswerError(_not_an_api(reply), is_page=isinstance(reply, str))
    if not isinstance(choices := reply.get("choices"), list) or not choices:
        raise _told("the reply has no choices", reply.get("error") or _flat_error(reply))
    choice = choices[0]
    if (error := _error_of(reply, choice)) is not None:
        raise _told("the server told an error instead of an answer", error, in_choice=True)
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        raise NoAnswerError("the reply's first choice has no message")
    return message, _name(choice.get("finish_reason"))


def _error_of(reply: Mapping[str, object], choice: object) -> Any:
    """The error that stands in a reply with choices; None when there is none."""
    if not isinstance(choice, Mapping):
        return None
    message = choice.get("message")
    places = [choice, message if isinstance(message, Mapping) else {}, reply]
    told = [one.get("error") for one in places]
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
    """An error as told: with its status where one of its codes is a number that HTTP knows."""
    error = error[0] if isinstance(error, list) and error else error
    codes = [_code(error.get(name)) for name in _CODES] if isinstance(error, Mapping) else []
    status = next((int(code) for code in codes if _is_status(code)), None)
    names = frozenset(code for code in codes if code and not code.isdigit())
    text = f"{status}: {what}" if status else what
    return NoAnswerError(text + _own_words(error), status=status, names=names, in_choice=in_choice)


def _is_status(value: object) -> bool:
    """Whether HTTP knows the number as an error."""
    return re.fullmatch("[45][0-9][0-9]", _code(value)) is not None


def _code(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_code = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value).strip().lower() if is_code else ""


def _flat_error(reply: Mapping[str, object]) -> Any:
    """Some servers spread the error over the reply itself: `{"object": "error", "message": ..., "code": ...}`."""
    return reply.get("errors") or reply.get("base_resp") or reply


def _outcome(text: str, finish_reason: str | None, *, refused: bool) -> Outcome:
    if refused or finish_reason == "content_filter":
        return "refused"
    if finish_reason == "length":
        return "truncated"
    return "ok" if text.strip() else "empty"


def _not_an_api(reply: object) -> str:
    if isinstance(reply, str):
        what = (
            "a web page"
            if "<html" in reply[:2000].lower() or "<!doctype" in reply[:200].lower()
            else "plain text"
        )
        return f"the address answers with {what}, not with JSON"
    return f"the reply is JSON but no completion ({type(reply).__name__})"


def _own_words(error: object) -> str:
    """The server's words, whole: they are cut where they are stored, once keys are out of them."""
    if isinstance(error, Mapping):
        error = next((w for name in _WORDS if isinstance(w := error.get(name), str) and w), None)
    return f": {error}" if isinstance(error, str) else ""


def _whole(value: object) -> int | None:
    return (
        int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
        else None
    )


def _name(value: object) -> str | None:
    return cleaned(value)[0][:200] if isinstance(value, str) else None
