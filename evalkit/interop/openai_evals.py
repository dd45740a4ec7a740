"""Output items of OpenAI's hosted Evals, each with what its graders said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from evalkit.files import JsonObject
from evalkit.interop import fields
from evalkit.interop.run_log import Log, Row

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


def read(path: Path, about: JsonObject, items: list[JsonObject]) -> Log:
    """The items; of a list with `has_more` the log says so.

    Raises:
        DataError: An item is not as the service writes it.
    """
    rows = []
    for place, one in enumerate(items, start=1):
        with fields.reading(f"{path}: item {place} is no output item of OpenAI Evals"):
            rows.append(_row(one))
    page = "the list says has_more: this is one page of the items, the rest is in the next"
    return Log(
        path=path,
        tool="OpenAI Evals",
        model=fields.names_of((one.get("sample") or {}).get("model") for one in items),
        run=fields.names_of(one.get("run_id") for one in items),
        rows=tuple(rows),
        notes=(page,) if about.get("has_more") else (),
    )


def _row(one: JsonObject) -> Row:
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
            error=fields.error_of(sample.get("error")),
            finish_reason=sample.get("finish_reason"),
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            served_model=sample.get("model"),
        ),
        scores=fields.scores_of("openai_evals", graded),
        slices=fields.labels_of(given, without=_RIGHT),
    )
