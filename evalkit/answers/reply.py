"""What a server replies: a chat completion's text, outcome and tokens, or that it is no answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from evalkit.answers.thinking import split
from evalkit.conversation import spoken
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
        inside, text = split(written := flattened(content))
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
