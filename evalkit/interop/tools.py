"""Samples of lm-evaluation-harness: `samples_<task>_<time>.jsonl`, and what the results file beside it says of the run."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.answers.reply import NoAnswerError, answer
from evalkit.errors import DataError, DesignError
from evalkit.interop import Log, Row, answer_of, chosen, number, score_name, score_values, text_of
from evalkit.records import Answer
from evalkit.wording import listed

if TYPE_CHECKING:
    import pandas as pd


def read_lm_eval(path: Path, lines: list[dict[str, Any]], *, filter_name: str = "") -> Log:
    """The rows of one filter.

    Raises:
        DesignError: Several filters and none named.
        DataError: A line lacks what every sample has.
    """
    kept = chosen(
        "filter", (str(one.get("filter", "none")) for one in lines), filter_name, path, "--filter"
    )
    lines_kept = [one for one in lines if str(one.get("filter", "none")) == kept]
    hashes = Counter(one.get("doc_hash") for one in lines_kept)
    run = _run(path)
    task = path.stem.removeprefix("samples_").rsplit("_", 1)[0]
    better = (run.get("higher_is_better") or {}).get(task) or {}
    rows = []
    for place, one in enumerate(lines, start=1):
        if str(one.get("filter", "none")) == kept:
            try:
                rows.append(_lm_row(one, task, is_alone=hashes[one.get("doc_hash")] == 1))
            except (KeyError, TypeError, IndexError, ValueError) as why:
                raise DataError(
                    f"{path}:{place}: not a sample of lm-eval ({type(why).__name__}: {why})"
                ) from why
    return Log(
        path=path,
        tool=" ".join(filter(None, ["lm-eval", str(run.get("lm_eval_version") or "")])),
        model=str(run.get("model_name") or (run.get("config") or {}).get("model") or ""),
        run=str(run.get("date") or ""),
        rows=tuple(rows),
        lower_is_better=tuple(
            score_name(name, "lm_eval") for name, is_so in better.items() if is_so is False
        ),
        notes=()
        if run
        else (f"no results_*.json beside {path.name}: model and version are not known",),
    )


def _run(path: Path) -> Mapping[str, Any]:
    """The results file of the same time, else the only one there."""
    time = path.stem.rsplit("_", 1)[-1]
    beside = sorted(path.parent.glob("results_*.json"))
    found = [one for one in beside if one.stem.endswith(time)] or (
        beside if len(beside) == 1 else []
    )
    if not found:
        return {}
    try:
        return dict(json.loads(found[0].read_bytes()))
    except ValueError as why:
        raise DataError(f"{found[0]}: not JSON ({why}); copy it again, or move it away") from why


def _lm_row(one: Mapping[str, Any], task: str, *, is_alone: bool) -> Row:
    """One sample; a document that the task holds more than once is known by its place as well."""
    name = str(one.get("doc_hash") or task)
    said = one["filtered_resps"]
    asked = one.get("arguments") or {}
    requests = list(asked.values() if isinstance(asked, Mapping) else asked)
    names = one.get("metrics") or [name for name, value in one.items() if isinstance(value, float)]
    scores = {
        score_name(key, "lm_eval"): number
        for name in names
        for key, number in score_values(name, one[name])
    }
    text, expected = _picked(said, requests, one.get("target"))
    return Row(
        example_id=name if is_alone and one.get("doc_hash") else f"{name}-{one['doc_id']}",
        answer=answer_of(text),
        messages=({"role": "user", "content": text_of(_argument(requests[0], "arg_0"))},)
        if requests
        else (),
        expected=tuple(expected),
        scores=scores,
        slices={"task": task},
    )


def _picked(said: Any, requests: list[Any], target: Any) -> tuple[str, list[str]]:
    """The answer: the text that was made, or of several options the likeliest, by their logarithms."""
    first = said[0] if isinstance(said, list) and said else said
    is_scored = (
        isinstance(first, list) and len(first) == 2 and str(first[1]) in {"True", "False"}
    )  # logarithm and is-greedy; lm-eval writes both as texts
    if is_scored and len(requests) == len(said) > 1:
        options = [text_of(_argument(one, "arg_1")).strip() for one in requests]
        best = max(range(len(said)), key=lambda n: float(said[n][0]))
        right = int(target) if str(target).lstrip("-").isdigit() else -1
        return options[best], [options[right]] if 0 <= right < len(options) else []
    targets = target if isinstance(target, list) else [target]
    return text_of(first).strip(), [text for text in map(text_of, targets) if text.strip()]


def _argument(request: object, name: str) -> Any:
    if isinstance(request, Mapping):
        return request.get(name)
    return (
        request[int(name[-1])]
        if isinstance(request, list) and len(request) > int(name[-1])
        else None
    )


_ERROR = 2  # its failureReason; 1 is an assertion that did not hold


def read_promptfoo(
    path: Path, record: Mapping[str, Any], lines: list[dict[str, Any]], *, arm: str = ""
) -> Log:
    """The rows of one arm.

    Raises:
        DesignError: Several arms and none named.
        DataError: A newer version, or a row that is none.
    """
    whole = record.get("results") or {}
    version = whole.get("version", 3) if isinstance(whole, Mapping) else 3
    if version != 3:
        raise DataError(
            f"{path}: promptfoo results of version {version!r}, this evalkit reads 3; "
            + ("update evalkit" if str(version) > "3" else "export with a newer promptfoo")
        )
    try:
        arms = _arms(lines)
        kept = chosen("arm", arms, arm, path, "--arm, of compare --arms")
        rows = tuple(
            _promptfoo_row(one) for one, name in zip(lines, arms, strict=True) if name == kept
        )
    except (KeyError, TypeError, AttributeError) as why:
        raise DataError(
            f"{path}: not the results of promptfoo ({type(why).__name__}: {why}); export them again"
        ) from why
    about = record.get("metadata") or {}
    return Log(
        path=path,
        tool=" ".join(filter(None, ["promptfoo", str(about.get("promptfooVersion", ""))])),
        model=kept,
        run=str(record.get("evalId") or ""),
        made_at=str(about.get("evaluationCreatedAt") or ""),
        rows=rows,
    )


def _arms(lines: list[dict[str, Any]]) -> list[str]:
    """Each row's arm: its provider, and its prompt where that is what differs."""
    providers = [str(one["provider"].get("label") or one["provider"]["id"]) for one in lines]
    prompts = [(one.get("prompt") or {}).get("label") or str(one["promptIdx"]) for one in lines]
    of_one: dict[str, dict[str, int]] = {}
    for provider, prompt, one in zip(providers, prompts, lines, strict=True):
        of_one.setdefault(provider, {}).setdefault(prompt, one["promptIdx"])
    return [
        provider
        if len(of_one[provider]) == 1
        else f"prompt {of_one[provider][prompt]}"
        if len(of_one) == 1
        else f"{provider}, prompt {of_one[provider][prompt]}"
        for provider, prompt in zip(providers, prompts, strict=True)
    ]


def _promptfoo_row(one: Mapping[str, Any]) -> Row:
    said, case = one.get("response") or {}, one.get("testCase") or {}
    failed = one.get("failureReason") == _ERROR
    asserted = [check for check in case.get("assert") or () if check.get("type") == "equals"]
    usage = said.get("tokenUsage") or {}
    given = one.get("namedScores") or {"score": one.get("score")}
    scores = {
        score_name(key, "promptfoo"): number
        for name, value in {**given, "passed": one.get("success")}.items()
        for key, number in score_values(name, value)
    }
    asked = one.get("vars") or {}
    text = text_of(next(iter(asked.values()))) if len(asked) == 1 else text_of(asked)
    return Row(
        example_id=str(one["testIdx"]),
        messages=(
            {"role": "user", "content": text},
        ),  # the case, which both arms share; prompts may differ
        expected=tuple(text_of(check["value"]) for check in asserted),
        answer=answer_of(
            text_of(said.get("output")),
            error=str(one.get("error") or "error") if failed else "",
            finish_reason=said.get("finishReason"),
            latency_ms=one.get("latencyMs"),
            prompt_tokens=usage.get("prompt") or None,
            completion_tokens=usage.get("completion") or None,
        ),
        scores=scores,
        slices={
            str(name): text_of(value)
            for name, value in (case.get("metadata") or {}).items()
            if isinstance(value, str | int | bool)
        },
    )


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
    for place, one in enumerate(lines, start=1):
        try:
            body = (one.get("response") or {}).get("body") or {}
            name, sample = split_id(str(one["custom_id"]))
            rows.append(Row(example_id=name, sample=sample, answer=_batch_answer(one, body)))
            models.append(body.get("model"))
        except (KeyError, TypeError, AttributeError, IndexError) as why:
            raise DataError(
                f"{path}:{place}: not a line of a batch's output ({type(why).__name__}: {why})"
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
    for place, one in enumerate(items, start=1):
        try:
            rows.append(_item(one))
        except (KeyError, TypeError, AttributeError) as why:
            raise DataError(
                f"{path}: item {place} is no output item of OpenAI Evals ({type(why).__name__}: {why})"
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


COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("example_id", "id", "question_id", "sample_id", "idx", "index", "key"),
    "input": ("input", "input_text", "prompt", "question", "instruction", "query"),
    "expected": (
        "expected",
        "target",
        "ideal",
        "reference",
        "label",
        "gold",
        "ground_truth",
        "answer",
    ),
    "predicted": (
        "predicted",
        "prediction",
        "output",
        "response",
        "completion",
        "generated_text",
        "model_output",
    ),
    "sample": ("sample", "epoch", "repeat"),
    "error": ("error",),
    "model": ("model", "model_name"),
    "finish_reason": ("finish_reason", "stop_reason"),
    "latency_ms": ("latency_ms",),
    "prompt_tokens": ("prompt_tokens",),
    "completion_tokens": ("completion_tokens",),
}
_NEEDED = ("id", "predicted")
_COUNTS = {"sample", "latency_ms", "prompt_tokens", "completion_tokens"}


def read_table(path: Path, frame: pd.DataFrame, columns: Mapping[str, str]) -> Log:
    """The answers of a table; further numbers are scores, further short texts slices.

    Args:
        path: The file, for messages.
        frame: Its rows.
        columns: Names of columns by what they hold (`id`, `input`, `expected`, `predicted` ...), where they are not the usual.

    Raises:
        DesignError: A column that was named is not there, or several could be meant.
        DataError: No column can be the id, or the answer.
    """
    found = _columns_found(path, [str(name) for name in frame.columns], columns)
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    others = [name for name in frame.columns if name not in found.values()]
    numbers = [name for name in others if _are_numbers(frame[name])]
    texts: list[str] = [
        name
        for name in others
        if name not in numbers and frame[name].drop_duplicates().size <= len(frame) / 2
    ]
    models = frame[found["model"]].dropna().unique() if "model" in found else ()
    if len(models) > 1:
        raise DesignError(
            f"{path}: answers of several models, {listed([repr(str(one)) for one in models])}; one file a model"
        )
    return Log(
        path=path,
        tool="table",
        model="".join(map(str, models)),
        rows=tuple(
            _table_row({name: one[column] for name, column in found.items()}, one, numbers, texts)
            for one in _with_ids(path, records, found)
        ),
    )


def _are_numbers(column: Any) -> bool:
    """Also of a CSV, whose cells are texts: numbers, or true and false; letters may be any label."""
    if column.dtype.kind in "iufb":
        return True
    told = {str(one).lower() for one in column.dropna()}
    return bool(told) and all(
        number(one) is not None and (not one.isalpha() or one in {"true", "false"}) for one in told
    )


def _columns_found(path: Path, there: list[str], given: Mapping[str, str]) -> dict[str, str]:
    unknown = [name for name in given if name not in COLUMNS]
    missing = [column for column in given.values() if column not in there]
    if unknown or missing:
        what = (
            f"no column {missing[0]!r}; it has {listed(there)}"
            if missing
            else f"{unknown[0]!r} is none of {listed(list(COLUMNS))}"
        )
        raise DesignError(f"{path}: {what}")
    found = dict(given)
    lower = {name.lower(): name for name in reversed(there)}
    for what, usual in COLUMNS.items():
        could_be = [
            lower[name] for name in usual if name in lower and lower[name] not in found.values()
        ]
        if what not in found and could_be:
            if len(could_be) > 1 and what != "id":
                several = listed([repr(name) for name in could_be])
                raise DesignError(
                    f"{path}: {what} could be {several}; say which: --columns {what}=NAME"
                )
            found[what] = could_be[0]
    lacks = [what for what in _NEEDED if what not in found]
    if lacks:
        raise DataError(
            f"{path}: no column is known to hold the {lacks[0]}; it has {listed(there)}; --columns {lacks[0]}=NAME"
        )
    return found


def _with_ids(
    path: Path, records: list[dict[Any, Any]], found: Mapping[str, str]
) -> Iterator[dict[Any, Any]]:
    """Each row, once its id is there and its counts are numbers."""
    for n, one in enumerate(records, start=1):
        if one[found["id"]] is None:
            raise DataError(f"{path}: row {n} has no {found['id']}; give each row an id")
        for what in _COUNTS & found.keys():
            if one[found[what]] is not None and number(one[found[what]]) is None:
                told = f"{found[what]} is {one[found[what]]!r}, need a number"
                raise DataError(f"{path}: row {n}: {told}; name another column with --columns")
        yield one


def _table_row(
    known: Mapping[str, Any], one: Mapping[str, Any], numbers: list[str], texts: list[str]
) -> Row:
    asked, expected = known.get("input"), known.get("expected")
    right = expected if isinstance(expected, list) else [expected]
    return Row(
        example_id=str(known["id"]),
        sample=int(number(known.get("sample")) or 0),
        messages=({"role": "user", "content": text_of(asked)},) if asked is not None else (),
        expected=tuple(text for text in map(text_of, right) if text.strip()),
        answer=answer_of(
            text_of(known["predicted"]),
            error=text_of(known.get("error")),
            finish_reason=known.get("finish_reason"),
            latency_ms=number(known.get("latency_ms")),
            prompt_tokens=_whole(known.get("prompt_tokens")),
            completion_tokens=_whole(known.get("completion_tokens")),
        ),
        scores={
            score_name(key, "table"): told
            for name in numbers
            for key, told in score_values(name, one[name])
        },
        slices={name: text_of(one[name]) for name in texts if one[name] is not None},
    )


def _whole(value: Any) -> int | None:
    told = number(value)
    return None if told is None else int(told)
