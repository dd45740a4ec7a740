"""What a chat completion's JSON means: text, outcome, tokens; or that it is no answer at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from evalkit.records import Answer, Outcome
from evalkit.wording import cleaned, flattened

_THINKING = re.compile(r"<think>.*?(?:</think>\s*|\Z)", re.DOTALL)


class NoAnswerError(Exception):
    """The reply holds no answer; `is_page` says that it is not even JSON."""

    def __init__(self, message: str, *, is_page: bool = False) -> None:
        super().__init__(message)
        self.is_page = is_page


def answer(reply: Any, *, strip_think: bool = False) -> Answer:
    """Reads a chat completion.

    Raises:
        NoAnswerError: The reply is not one; the message says what it is.
    """
    reply = _parsed(reply) if isinstance(reply, str) else reply
    message, finish_reason = _first_choice(reply)
    refusal = flattened(message.get("refusal"))
    text, sanitized = cleaned(flattened(message.get("content")) or refusal)
    text = without_thinking(text) if strip_think else text
    usage = reply.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    return Answer(
        text=text,
        outcome=_outcome(text, finish_reason, refused=bool(refusal)),
        finish_reason=finish_reason,
        prompt_tokens=_whole(usage.get("prompt_tokens")),
        completion_tokens=_whole(usage.get("completion_tokens")),
        served_model=_name(reply.get("model")),
        sanitized=sanitized,
    )


def without_thinking(text: str) -> str:
    r"""Leaves out what stands between `<think>` and `</think>`, or after a `<think>` that never ends.

    Example:
        >>> without_thinking("<think>hm</think>\n42"), without_thinking("<think>cut off")
        ('42', '')
    """
    return _THINKING.sub("", text)


def _parsed(text: str) -> Any:
    """JSON whose content type does not say so; any other text as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _first_choice(reply: Any) -> tuple[Mapping[str, Any], str | None]:
    if not isinstance(reply, Mapping):
        raise NoAnswerError(_not_an_api(reply), is_page=isinstance(reply, str))
    if not isinstance(choices := reply.get("choices"), list) or not choices:
        raise NoAnswerError(f"the reply has no choices{_own_words(reply.get('error'))}")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        raise NoAnswerError("the reply's first choice has no message")
    return message, _name(choice.get("finish_reason"))


def _outcome(text: str, finish_reason: str | None, *, refused: bool) -> Outcome:
    if refused or finish_reason == "content_filter":
        return "refused"
    if finish_reason == "length":
        return "truncated"
    return "ok" if text.strip() else "empty"


def _not_an_api(reply: Any) -> str:
    if isinstance(reply, str):
        what = (
            "a web page"
            if "<html" in reply[:2000].lower() or "<!doctype" in reply[:200].lower()
            else "plain text"
        )
        return f"the address answers with {what}, not with JSON"
    return f"the reply is JSON but no completion ({type(reply).__name__})"


def _own_words(error: Any) -> str:
    if isinstance(error, Mapping) and isinstance(error.get("message"), str):
        return f": {error['message'][:300]}"
    return f": {error[:300]}" if isinstance(error, str) else ""


def _whole(value: Any) -> int | None:
    return (
        int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
        else None
    )


def _name(value: Any) -> str | None:
    return cleaned(value)[0][:200] if isinstance(value, str) else None
