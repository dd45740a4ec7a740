"""Files of rows - a table, samples of lm-eval, results of promptfoo, OpenAI's batches and hosted Evals: a reader each."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from evalkit.answers.reply import NoAnswerError, answer
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject
from evalkit.interop import logs
from evalkit.interop.logs import Log, Row, chosen
from evalkit.records import Answer
from evalkit.wording import listed

_FAILED = 2  # promptfoo's failureReason; 1 is an assertion that did not hold
_SAMPLE = re.compile(r"(.*)#(\d+)\Z", re.DOTALL)  # as `evalkit batch` writes a custom_id
_RIGHT = (  # of a row of OpenAI Evals
    "expected",
    "ideal",
    "reference",
    "target",
    "label",
    "answer",
    "correct_label",
    "expected_output",
)

SEPARATORS = {".csv": ",", ".tsv": "\t"}
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
_COUNTS = {"sample", "latency_ms", "prompt_tokens", "completion_tokens"}


def lm_eval(path: Path, lines: list[JsonObject], filter_name: str) -> Log:
    """Samples of lm-eval of one filter (`samples_<task>_<time>.jsonl`), and what the results file beside them says of the run.

    Raises:
        DesignError: There are several filters, and none was named.
        DataError: A line is not as lm-eval writes it.
    """
    filters = [str(one.get("filter", "none")) for one in lines]
    kept = chosen("filter", filters, filter_name, path, "--filter")
    samples = [
        (place, one)
        for place, (one, name) in enumerate(zip(lines, filters, strict=True), start=1)
        if name == kept
    ]
    run = _lm_eval_run(path)
    task = path.stem.removeprefix("samples_").rsplit("_", 1)[0]
    hashes, rows = Counter(repr(one.get("doc_hash")) for _, one in samples), []
    for place, one in samples:
        with logs.reading(f"{path}:{place}: not a sample of lm-eval"):
            rows.append(_lm_eval_row(one, task, is_alone=hashes[repr(one.get("doc_hash"))] == 1))
    better = (run.get("higher_is_better") or {}).get(task) or {}
    lower = (logs.score_name(name, "lm_eval") for name, is_so in better.items() if is_so is False)
    unknown = f"no results_*.json beside {path.name}: model and version are not known"
    return Log(
        path=path,
        tool=f"lm-eval {run.get('lm_eval_version') or ''}".strip(),
        model=str(run.get("model_name") or (run.get("config") or {}).get("model") or ""),
        run=str(run.get("date") or ""),
        rows=tuple(rows),
        lower_is_better=tuple(lower),
        notes=() if run else (unknown,),
    )


def _lm_eval_run(path: Path) -> JsonObject:
    """The results file of the same time, else the only one there."""
    time = path.stem.rsplit("_", 1)[-1]
    beside = sorted(path.parent.glob("results_*.json"))
    found = [one for one in beside if one.stem.endswith(time)]
    found = found or (beside if len(beside) == 1 else [])
    if not found:
        return {}
    try:
        return dict(json.loads(found[0].read_bytes()))
    except ValueError as why:
        raise DataError(f"{found[0]}: not JSON ({why}); copy it again, or move it away") from why


def _lm_eval_row(one: JsonObject, task: str, *, is_alone: bool) -> Row:
    """One sample; a document that the task holds more than once is known by its place as well."""
    name = str(one.get("doc_hash") or task)
    asked = one.get("arguments") or {}
    requests = list(asked.values() if isinstance(asked, Mapping) else asked)
    names = one.get("metrics") or [name for name, value in one.items() if isinstance(value, float)]
    text, expected = _lm_eval_answer(one["filtered_resps"], requests, one.get("target"))
    return Row(
        example_id=name if is_alone and one.get("doc_hash") else f"{name}-{one['doc_id']}",
        answer=logs.answered(text),
        messages=logs.user_says(_argument(requests[0], 0)) if requests else (),
        expected=expected,
        scores=logs.scores_of("lm_eval", [(name, one[name]) for name in names]),
        slices={"task": task},
    )


def _lm_eval_answer(
    said: list[str | list[str | float]], requests: list[object], target: object
) -> tuple[str, tuple[str, ...]]:
    """The answer: the text that was made, or of several options the likeliest, by their logarithms."""
    first = said[0] if isinstance(said, list) and said else said
    # logarithm and is-greedy; lm-eval writes both as texts
    is_scored = isinstance(first, list) and len(first) == 2 and str(first[1]) in {"True", "False"}
    if is_scored and len(requests) == len(said) > 1:
        options = [_argument(one, 1).strip() for one in requests]
        likely = [float(one[0]) for one in said]
        right = int(str(target)) if str(target).lstrip("-").isdigit() else -1
        expected = (options[right],) if 0 <= right < len(options) else ()
        return options[likely.index(max(likely))], expected
    right_ones = target if isinstance(target, list) else [target]
    return logs.text_of(first).strip(), logs.texts_of(right_ones)


def _argument(request: object, place: int) -> str:
    if isinstance(request, Mapping):
        return logs.text_of(request.get(f"arg_{place}"))
    if isinstance(request, list) and len(request) > place:
        return logs.text_of(request[place])
    return ""


def promptfoo(path: Path, about: JsonObject, results: list[JsonObject], arm: str) -> Log:
    """Results of promptfoo (`-o results.json` or `.jsonl`): of its arms - a provider, a prompt, or both - one.

    Raises:
        DesignError: There are several arms, and none was named.
        DataError: The file is of another version, or not as promptfoo writes it.
    """
    version = (about.get("results") or {}).get("version", 3)
    if version != 3:
        what = f"{path}: promptfoo results of version {version!r}, this evalkit reads 3"
        newer = "update evalkit" if str(version) > "3" else "export with a newer promptfoo"
        raise DataError(f"{what}; {newer}")
    with logs.reading(f"{path}: not the results of promptfoo", "; export them again"):
        arms = _promptfoo_arms(results)
        kept = chosen("arm", arms, arm, path, "--arm, of compare --arms")
        named = zip(results, arms, strict=True)
        made = about.get("metadata") or {}
        return Log(
            path=path,
            tool=f"promptfoo {made.get('promptfooVersion', '')}".strip(),
            model=kept,
            run=str(about.get("evalId") or ""),
            made_at=str(made.get("evaluationCreatedAt") or ""),
            rows=tuple(_promptfoo_row(one) for one, name in named if name == kept),
        )


def _promptfoo_arms(results: list[JsonObject]) -> list[str]:
    """Each row's arm: its provider, and its prompt where that is what differs."""
    pairs = []
    places: dict[str, dict[str, int]] = {}  # of each provider's prompts, by their label
    for one in results:
        provider = str(one["provider"].get("label") or one["provider"]["id"])
        prompt = (one.get("prompt") or {}).get("label") or str(one["promptIdx"])
        places.setdefault(provider, {}).setdefault(prompt, one["promptIdx"])
        pairs.append((provider, prompt))
    arms = []
    for provider, prompt in pairs:
        named = f"prompt {places[provider][prompt]}"
        by_prompt = named if len(places) == 1 else f"{provider}, {named}"
        arms.append(provider if len(places[provider]) == 1 else by_prompt)
    return arms


def _promptfoo_row(one: JsonObject) -> Row:
    said, case = one.get("response") or {}, one.get("testCase") or {}
    asserted = [check for check in case.get("assert") or () if check.get("type") == "equals"]
    usage = said.get("tokenUsage") or {}
    given = one.get("namedScores") or {"score": one.get("score")}
    asked = one.get("vars") or {}
    case_text = logs.text_of(next(iter(asked.values())) if len(asked) == 1 else asked)
    has_failed = one.get("failureReason") == _FAILED
    return Row(
        example_id=str(one["testIdx"]),
        messages=logs.user_says(case_text),  # the case, which both arms share; prompts may differ
        expected=tuple(logs.text_of(check["value"]) for check in asserted),
        answer=logs.answered(
            logs.text_of(said.get("output")),
            error=str(one.get("error") or "error") if has_failed else None,
            finish_reason=said.get("finishReason"),
            latency_ms=one.get("latencyMs"),
            prompt_tokens=usage.get("prompt") or None,
            completion_tokens=usage.get("completion") or None,
        ),
        scores=logs.scores_of("promptfoo", {**given, "passed": one.get("success")}.items()),
        slices=logs.labels_of(case.get("metadata") or {}, longest=math.inf),
    )


def openai_batch(path: Path, lines: list[JsonObject]) -> Log:
    """The replies of a batch, as the endpoint reads one, joined on `custom_id` whatever their order.

    Raises:
        DataError: A line is not as the service writes it.
    """
    rows, models = [], []
    for place, one in enumerate(lines, start=1):
        with logs.reading(f"{path}:{place}: not a line of a batch's output"):
            body = (one.get("response") or {}).get("body") or {}
            name, sample = split_id(str(one["custom_id"]))
            rows.append(Row(example_id=name, sample=sample, answer=_batch_answer(one, body)))
            models.append(body.get("model"))
    return Log(path=path, tool="OpenAI Batch", model=_one_of(models), rows=tuple(rows))


def _batch_answer(one: JsonObject, body: JsonObject) -> Answer:
    """The reply as the endpoint reads one: its thoughts apart, a refusal and a cut answer as such."""
    told = _told(one.get("error") or body.get("error"))
    if body.get("object") == "response":
        body = _as_chat(body)
    if not told and not body.get("choices"):
        told = f"HTTP {(one.get('response') or {}).get('status_code', 'without a reply')}"
    try:
        return logs.answered("", error=told) if told else answer(body)
    except NoAnswerError as why:
        return logs.answered("", error=str(why))


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


def openai_evals(path: Path, about: JsonObject, items: list[JsonObject]) -> Log:
    """Output items, each with what its graders said; of a list with `has_more` the log says so.

    Raises:
        DataError: An item is not as the service writes it.
    """
    rows = []
    for place, one in enumerate(items, start=1):
        with logs.reading(f"{path}: item {place} is no output item of OpenAI Evals"):
            rows.append(_evals_row(one))
    page = "the list says has_more: this is one page of the items, the rest is in the next"
    return Log(
        path=path,
        tool="OpenAI Evals",
        model=_one_of((one.get("sample") or {}).get("model") for one in items),
        run=_one_of(one.get("run_id") for one in items),
        rows=tuple(rows),
        notes=(page,) if about.get("has_more") else (),
    )


def _evals_row(one: JsonObject) -> Row:
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
            {"role": turn["role"], "content": logs.text_of(turn.get("content"))}
            for turn in sample.get("input") or ()
        ),
        expected=tuple(logs.text_of(given[name]) for name in _RIGHT if given.get(name))[:1],
        answer=logs.answered(
            logs.text_of(said[-1].get("content")) if said else "",
            error=_told(sample.get("error")),
            finish_reason=sample.get("finish_reason"),
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            served_model=sample.get("model"),
        ),
        scores=logs.scores_of("openai_evals", graded),
        slices=logs.labels_of(given, without=_RIGHT),
    )


def _told(error: object) -> str:
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("code")
    return str(error or "")


def _one_of(given: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(name) for name in given if name))


# ---- a table, as pandas and Hugging Face datasets write one, by the names of its columns


def table(path: Path, columns: Mapping[str, str], rows: list[JsonObject] | None = None) -> Log:
    """The answers of a CSV or Parquet file, as pandas and Hugging Face datasets write them, or of rows of JSON.

    Raises:
        DesignError: A column that was named is not there, or several could be meant.
        DataError: It is no whole table, or no column can be the id, or the answer.
    """
    separator = SEPARATORS.get(path.suffix.lower())
    try:
        if rows is not None:
            frame = pd.DataFrame.from_records(rows)
        elif separator:
            # texts as they stand: "007" is an id and an answer, not 7
            frame = pd.read_csv(
                path, sep=separator, dtype=str, keep_default_na=False, na_values=[""]
            )
        else:
            frame = pd.read_parquet(path)
    except (ValueError, OSError) as why:
        raise DataError(f"{path}: not a whole table ({why}); export it again") from why
    return _table(path, frame, columns)


def _table(path: Path, frame: pd.DataFrame, columns: Mapping[str, str]) -> Log:
    """The answers of a table; further numbers are scores, further short texts slices."""
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    found = _columns_found(path, list(frame.columns), columns)
    others = [name for name in frame.columns if name not in found.values()]
    numbers = [name for name in others if _are_numbers(frame.loc[:, name])]
    texts = [
        name
        for name in others
        if name not in numbers and frame[name].drop_duplicates().size <= len(frame) / 2
    ]
    models = frame[found["model"]].dropna().unique() if "model" in found else ()
    if len(models) > 1:
        names = listed([repr(str(one)) for one in models])
        raise DesignError(f"{path}: answers of several models, {names}; one file a model")
    rows = []
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    for place, one in enumerate(records, start=1):
        known = {what: one[name] for what, name in found.items()}
        if known["id"] is None:
            raise DataError(f"{path}: row {place} has no {found['id']}; give each row an id")
        for what in _COUNTS & known.keys():
            if known[what] is not None and logs.number(known[what]) is None:
                told = f"{found[what]} is {known[what]!r}, need a number"
                raise DataError(f"{path}: row {place}: {told}; name another column with --columns")
        rows.append(_table_row(known, one, numbers, texts))
    return Log(path=path, tool="table", model="".join(map(str, models)), rows=tuple(rows))


def _are_numbers(column: pd.Series) -> bool:
    """Also of a CSV, whose cells are texts: numbers, or true and false; letters may be any label."""
    if column.dtype.kind in "iufb":
        return True
    told = {str(one).lower() for one in column.dropna()}
    return bool(told) and all(
        logs.number(one) is not None and (not one.isalpha() or one in {"true", "false"})
        for one in told
    )


def _columns_found(path: Path, there: list[str], given: Mapping[str, str]) -> dict[str, str]:
    if missing := [column for column in given.values() if column not in there]:
        raise DesignError(f"{path}: no column {missing[0]!r}; it has {listed(there) or 'none'}")
    if unknown := [name for name in given if name not in COLUMNS]:
        raise DesignError(f"{path}: {unknown[0]!r} is none of {listed(list(COLUMNS))}")
    found = dict(given)
    lower = {name.lower(): name for name in reversed(there)}
    for what, usual in COLUMNS.items():
        could_be = [lower[name] for name in usual if name in lower]
        could_be = [name for name in could_be if name not in found.values()]
        if what in found or not could_be:
            continue
        if len(could_be) > 1 and what != "id":
            several = listed([repr(name) for name in could_be])
            told = f"{what} could be {several}; say which: --columns {what}=NAME"
            raise DesignError(f"{path}: {told}")
        found[what] = could_be[0]
    if lacks := next((what for what in ("id", "predicted") if what not in found), ""):
        told = f"no column is known to hold the {lacks}; it has {listed(there) or 'none'}"
        raise DataError(f"{path}: {told}; --columns {lacks}=NAME")
    return found


def _table_row(known: JsonObject, one: JsonObject, numbers: list[str], texts: list[str]) -> Row:
    asked, right = known.get("input"), known.get("expected")
    count = {what: logs.number(known.get(what)) for what in _COUNTS}
    prompt, completion = (
        None if count[name] is None else int(count[name] or 0)
        for name in ("prompt_tokens", "completion_tokens")
    )
    return Row(
        example_id=str(known["id"]),
        sample=int(count["sample"] or 0),
        messages=logs.user_says(logs.text_of(asked)) if asked is not None else (),
        expected=logs.texts_of(right if isinstance(right, list) else [right]),
        answer=logs.answered(
            logs.text_of(known["predicted"]),
            error=logs.text_of(known.get("error")),
            finish_reason=known.get("finish_reason"),
            latency_ms=count["latency_ms"],
            prompt_tokens=prompt,
            completion_tokens=completion,
        ),
        scores=logs.scores_of("table", [(name, one[name]) for name in numbers]),
        slices={name: logs.text_of(one[name]) for name in texts if one[name] is not None},
    )
