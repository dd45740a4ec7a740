"""What OpenAI's services leave: a batch's output or errors, which hold answers only, and items of the hosted Evals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from evalkit.answers.reply import NoAnswerError, answer
from evalkit.files import JsonObject
from evalkit.interop import fields
from evalkit.interop.run_log import Log, Row
from evalkit.records import Answer

_SAMPLE = re.compile(r"(.*)#(\d+)\Z", re.DOTALL)  # as `evalkit batch` writes a custom_id
_RIGHT = (
    "expected",
    "ideal",
    "reference",
    "target",
    "label",
    "answer",
    "correct_label",
    "expected_output",
)


def read_batch(path: Path, lines: list[JsonObject]) -> Log:
    """The replies of a batch, as the endpoint reads one, joined on `custom_id` whatever their order.

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
    return Log(path=path, tool="OpenAI Batch", model=_one_of(models), rows=tuple(rows))


def _answer(one: JsonObject, body: JsonObject) -> Answer:
    """The reply as the endpoint reads one: its thoughts apart, a refusal and a cut answer as such."""
    told = _told(one.get("error") or body.get("error"))
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


def read_evals(path: Path, about: JsonObject, items: list[JsonObject]) -> Log:
    """Output items, each with what its graders said; of a list with `has_more` the log says so.

    Raises:
        DataError: An item is not as the service writes it.
    """
    rows = []
    for place, one in enumerate(items, start=1):
        with fields.reading(f"{path}: item {place} is no output item of OpenAI Evals"):
            rows.append(_item(one))
    page = "the list says has_more: this is one page of the items, the rest is in the next"
    return Log(
        path=path,
        tool="OpenAI Evals",
        model=_one_of((one.get("sample") or {}).get("model") for one in items),
        run=_one_of(one.get("run_id") for one in items),
        rows=tuple(rows),
        notes=(page,) if about.get("has_more") else (),
    )


def _item(one: JsonObject) -> Row:
    sample, given = one.get("sample") or {}, one.get("datasource_item") or {}
    said = list(sample.get("output") or ())
    usage = sample.get("usage") or {}
    given = given["item"] if isinstance(given.get("item"), Mapping) else given
    graded = []
    for result in one.get("results") or ():
        score = result.get("score")
        # a grader's name without the id that the service adds: `match-1f0c...`
        name = re.sub(r"-[0-9a-f-]{8,}\Z", "", str(result.get("name") or "grader"))
        graded.append((name, result.get("passed") if score is None else score))
    return Row(
        example_id=str(one.get("datasource_item_id", one["id"])),
        messages=tuple(
            {"role": turn["role"], "content": fields.text_of(turn.get("content"))}
            for turn in sample.get("input") or ()
        ),
        expected=tuple(fields.text_of(given[name]) for name in _RIGHT if given.get(name))[:1],
        answer=fields.answered(
            fields.text_of(said[-1].get("content")) if said else "",
            error=_told(sample.get("error")),
            finish_reason=sample.get("finish_reason"),
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            served_model=sample.get("model"),
        ),
        scores=fields.scores_of("openai_evals", graded),
        slices=fields.labels_of(given, without=_RIGHT),
    )


def _told(error: object) -> str:
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("code")
    return str(error or "")


def _one_of(given: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(name) for name in given if name))
