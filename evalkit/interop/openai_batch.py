"""Lines of an OpenAI batch's output or errors, joined on `custom_id` whatever their order; they hold answers only."""

from __future__ import annotations

import re
from pathlib import Path

from evalkit.answers.reply import NoAnswerError, answer
from evalkit.files import JsonObject
from evalkit.interop import fields
from evalkit.interop.run_log import Log, Row
from evalkit.records import Answer

_SAMPLE = re.compile(r"(.*)#(\d+)\Z", re.DOTALL)  # as `evalkit batch` writes a custom_id


def read(path: Path, lines: list[JsonObject]) -> Log:
    """The replies, as the endpoint reads one.

    Raises:
        DataError: A line is not as the service writes it.
    """
    rows, models = [], []
    for place, one in enumerate(lines, start=1):
        with fields.reading(f"{path}:{place}: not a line of a batch's output"):
            body = (one.get("response") or {}).get("body") or {}
            name, sample = split_id(str(one["custom_id"]))
            rows.append(Row(example_id=name, sample=sample, answer=_answer(one, body)))
            models.append(body.get("model"))
    return Log(path=path, tool="OpenAI Batch", model=fields.names_of(models), rows=tuple(rows))


def _answer(one: JsonObject, body: JsonObject) -> Answer:
    """The reply as the endpoint reads one: its thoughts apart, a refusal and a cut answer as such."""
    told = fields.error_of(one.get("error") or body.get("error"))
    if body.get("object") == "response":
        body = _as_chat(body)
    if not told and not body.get("choices"):
        told = f"HTTP {(one.get('response') or {}).get('status_code', 'without a reply')}"
    try:
        return fields.answered("", error=told) if told else answer(body)
    except NoAnswerError as why:
        return fields.answered("", error=str(why))


def _as_chat(body: JsonObject) -> JsonObject:
    """A reply of the Responses API in the form of a chat completion."""
    turns = [one for one in body.get("output") or () if one.get("type") == "message"]
    parts = [part for turn in turns for part in turn.get("content") or ()]
    calls = [one for one in body.get("output") or () if one.get("type") == "function_call"]
    refusals = [part["refusal"] for part in parts if part.get("type") == "refusal"]
    usage = body.get("usage") or {}
    functions = [{"name": one.get("name"), "arguments": one.get("arguments")} for one in calls]
    message = {
        "role": "assistant",
        "content": "".join(part.get("text") or "" for part in parts),
        "refusal": refusals[0] if refusals else None,
        "tool_calls": [{"type": "function", "function": one} for one in functions] or None,
    }
    why = (body.get("incomplete_details") or {}).get("reason")
    reason = {"max_output_tokens": "length", None: "stop"}.get(why, why)
    tokens = {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
    }
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {"model": body.get("model"), "choices": [choice], "usage": tokens}


def split_id(custom_id: str) -> tuple[str, int]:
    """The example and the sample that a `custom_id` names.

    Example:
        >>> split_id("row-7#2"), split_id("row-7")
        (('row-7', 2), ('row-7', 0))
    """
    found = _SAMPLE.match(custom_id)
    return (found[1], int(found[2])) if found else (custom_id, 0)
