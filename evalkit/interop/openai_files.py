"""What OpenAI's Batch and Evals leave behind: result and error files of a batch, output items of an eval."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evalkit.answers.reply import NoAnswerError, answer
from evalkit.errors import DataError
from evalkit.interop.log import Log, Row, answer_of, score_name, score_values, text_of
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
_LONG = 80


def read_batch(path: Path, lines: list[dict[str, Any]]) -> Log:
    """A batch's results or errors, joined on `custom_id` whatever their order; they hold answers only.

    Raises:
        DataError: A line is none of a batch's.
    """
    rows, models = [], []
    for number, one in enumerate(lines, start=1):
        try:
            body = (one.get("response") or {}).get("body") or {}
            name, sample = split_id(str(one["custom_id"]))
            rows.append(Row(example_id=name, sample=sample, answer=_batch_answer(one, body)))
            models.append(body.get("model"))
        except (KeyError, TypeError, AttributeError, IndexError) as why:
            raise DataError(
                f"{path}:{number}: not a line of a batch's output ({type(why).__name__}: {why})"
            ) from why
    return Log(path=path, tool="OpenAI Batch", model=_one_of(models), rows=tuple(rows))


def _batch_answer(one: Mapping[str, Any], body: Mapping[str, Any]) -> Answer:
    """The reply as the endpoint reads one: its thoughts apart, a refusal and a cut answer as such."""
    told = _told(one.get("error") or body.get("error"))
    if body.get("object") == "response":
        body = _as_chat(body)
    if not told and not body.get("choices"):
        told = f"HTTP {(one.get('response') or {}).get('status_code', 'without a reply')}"
    try:
        return answer_of("", error=told) if told else answer(body)
    except NoAnswerError as why:
        return answer_of("", error=str(why))


def _as_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """A reply of the Responses API in the form of a chat completion."""
    turns = [one for one in body.get("output") or () if one.get("type") == "message"]
    parts = [part for turn in turns for part in turn.get("content") or ()]
    calls = [one for one in body.get("output") or () if one.get("type") == "function_call"]
    refusals = [part["refusal"] for part in parts if part.get("type") == "refusal"]
    usage = body.get("usage") or {}
    message = {
        "role": "assistant",
        "content": "".join(part.get("text") or "" for part in parts),
        "refusal": refusals[0] if refusals else None,
        "tool_calls": [
            {
                "id": one.get("call_id"),
                "type": "function",
                "function": {"name": one.get("name"), "arguments": one.get("arguments")},
            }
            for one in calls
        ]
        or None,
    }
    why = (body.get("incomplete_details") or {}).get("reason")
    reason = {"max_output_tokens": "length", None: "stop"}.get(why, why)
    return {
        "model": body.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {
            "prompt_tokens": usage.get("input_tokens"),
            "completion_tokens": usage.get("output_tokens"),
        },
    }


def split_id(custom_id: str) -> tuple[str, int]:
    """The example and the sample that a `custom_id` names.

    Example:
        >>> split_id("row-7#2"), split_id("row-7")
        (('row-7', 2), ('row-7', 0))
    """
    found = _SAMPLE.match(custom_id)
    return (found[1], int(found[2])) if found else (custom_id, 0)


def read_evals(path: Path, items: list[dict[str, Any]], *, is_page: bool = False) -> Log:
    """Output items of a hosted eval, each with what its graders said; of a list with `has_more` it says so.

    Raises:
        DataError: An item lacks what every one has.
    """
    rows = []
    for number, one in enumerate(items, start=1):
        try:
            rows.append(_item(one))
        except (KeyError, TypeError, AttributeError) as why:
            raise DataError(
                f"{path}: item {number} is no output item of OpenAI Evals ({type(why).__name__}: {why})"
            ) from why
    models = [(one.get("sample") or {}).get("model") for one in items]
    return Log(
        path=path,
        tool="OpenAI Evals",
        model=_one_of(models),
        run=_one_of(one.get("run_id") for one in items),
        rows=tuple(rows),
        notes=("the list says has_more: this is one page of the items, the rest is in the next",)
        if is_page
        else (),
    )


def _item(one: Mapping[str, Any]) -> Row:
    sample, given = one.get("sample") or {}, one.get("datasource_item") or {}
    said = list(sample.get("output") or ())
    usage = sample.get("usage") or {}
    given = given.get("item", given) if isinstance(given.get("item"), Mapping) else given
    scores = {}
    for result in one.get("results") or ():
        value = result.get("score") if result.get("score") is not None else result.get("passed")
        scores |= {
            score_name(name, "openai_evals"): told
            for name, told in score_values(_grader(result), value)
        }
    return Row(
        example_id=str(one.get("datasource_item_id", one["id"])),
        messages=tuple(
            {"role": turn["role"], "content": text_of(turn.get("content"))}
            for turn in sample.get("input") or ()
        ),
        expected=tuple(text_of(given[name]) for name in _RIGHT if given.get(name))[:1],
        answer=answer_of(
            text_of(said[-1].get("content")) if said else "",
            error=_told(sample.get("error")),
            finish_reason=sample.get("finish_reason"),
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            served_model=sample.get("model"),
        ),
        scores=scores,
        slices={
            name: text_of(value)
            for name, value in given.items()
            if isinstance(value, str | int | bool)
            and len(str(value)) <= _LONG
            and name not in _RIGHT
        },
    )


def _grader(result: Mapping[str, object]) -> str:
    """A grader's name without the id that the service adds: `match-1f0c...`."""
    return re.sub(r"-[0-9a-f-]{8,}\Z", "", str(result.get("name") or "grader"))


def _told(error: object) -> str:
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("code")
    return str(error or "")


def _one_of(names: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(name) for name in names if name))
