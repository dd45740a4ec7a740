"""Files of rows - a table, samples of lm-eval, results of promptfoo, OpenAI's batches and hosted Evals: a reader each."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from evalkit.answers.reply import NoAnswerError, answer
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject
from evalkit.interop import logs
from evalkit.interop.logs import Log, Row, chosen
from evalkit.records import Answer
from evalkit.wording import listed

_FAILED = 2  # promptfoo's failureReason; 1 is an assertion that did not hold
_INDEX = re.compile(r"(__index_level_\d+__)?")  # of pandas, as Parquet names it; a CSV does not
_SAMPLE = re.compile(r"(.*)#(\d+)\Z", re.DOTALL)  # as `evalkit batch` writes a custom_id
_EXPECTED = ("expected", "target", "ideal", "reference", "label", "gold", "ground_truth", "answer")
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("example_id", "id", "question_id", "sample_id", "idx", "index", "key"),
    "input": ("input", "input_text", "prompt", "question", "instruction", "query"),
    "expected": _EXPECTED,
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
    **{name: (name,) for name in ("latency_ms", "prompt_tokens", "completion_tokens")},
}
_Numbers = Mapping[str, float | None]
_COUNTS = ("sample", "latency_ms", "prompt_tokens", "completion_tokens")
_RIGHT = (*_EXPECTED, "correct_label", "expected_output")  # of a row of OpenAI Evals


def lm_eval(path: Path, lines: list[JsonObject], filter_name: str) -> Log:
    """Samples of lm-eval of one filter (`samples_<task>_<time>.jsonl`), and what the results file beside them says of the run.

    Raises:
        DesignError: There are several filters, and none was named.
        DataError: A line is not as lm-eval writes it.
    """
    filters = [str(one.get("filter", "none")) for one in lines]
    kept = chosen("filter", filters, filter_name, path, "--filter")
    run = _lm_eval_run(path)
    task = path.stem.removeprefix("samples_").rsplit("_", 1)[0]
    hashes = Counter(
        (name, str(one.get("doc_hash"))) for name, one in zip(filters, lines, strict=True)
    )
    rows = []
    for place, (name, one) in enumerate(zip(filters, lines, strict=True), start=1):
        is_alone = hashes[name, str(one.get("doc_hash"))] == 1
        with logs.reading(f"{path}:{place}: not a sample of lm-eval"):
            rows += [_lm_eval_row(one, task, is_alone=is_alone)] if name == kept else []
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
    with logs.reading(f"{found[0]}: not JSON", "; copy it again, or move it away"):
        return dict(json.loads(found[0].read_bytes()))


def _lm_eval_row(one: JsonObject, task: str, *, is_alone: bool) -> Row:
    """One sample; a document that the task holds more than once is known by its place as well."""
    name = str(one.get("doc_hash") or task)
    asked = one.get("arguments") or {}
    requests = list(asked.values() if isinstance(asked, Mapping) else asked)
    names = one.get("metrics") or [name for name, value in one.items() if isinstance(value, float)]
    said, target = one["filtered_resps"], one.get("target")
    first = said[0] if isinstance(said, list) and said else said
    # of several options the likeliest: logarithm and is-greedy, which lm-eval writes both as texts
    is_scored = isinstance(first, list) and len(first) == 2 and str(first[1]) in {"True", "False"}
    if is_scored and len(requests) == len(said) > 1:
        options = [_argument(one, 1).strip() for one in requests]
        likely = [float(one[0]) for one in said]
        text = options[likely.index(max(likely))]
        right = int(str(target)) if str(target).lstrip("-").isdigit() else -1
        expected = (options[right],) if 0 <= right < len(options) else ()
    else:
        text = logs.text_of(first).strip()
        expected = logs.texts_of(target if isinstance(target, list) else [target])
    scores = logs.scores_of("lm_eval", [(name, one[name]) for name in names])
    return Row(
        example_id=name if is_alone and one.get("doc_hash") else f"{name}-{one['doc_id']}",
        answer=replace(logs.answered(text), scores=scores),
        messages=logs.user_says(_argument(requests[0], 0)) if requests else (),
        expected=expected,
        slices={"task": task},
    )


def _argument(request: object, place: int) -> str:
    if isinstance(request, Mapping):
        return logs.text_of(request.get(f"arg_{place}"))
    given = request if isinstance(request, list) else []
    return logs.text_of(given[place] if len(given) > place else None)


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
    pairs, places = [], dict[tuple[str, str], int]()  # of a provider's prompts, by their label
    for one in results:
        provider = str(one["provider"].get("label") or one["provider"]["id"])
        pairs.append((provider, str((one.get("prompt") or {}).get("label") or one["promptIdx"])))
        places.setdefault(pairs[-1], one["promptIdx"])
    n_prompts = Counter(provider for provider, _ in places)
    arms = []
    for provider, prompt in pairs:
        named = f"prompt {places[provider, prompt]}"
        by_prompt = named if len(n_prompts) == 1 else f"{provider}, {named}"
        arms.append(provider if n_prompts[provider] == 1 else by_prompt)
    return arms


def _promptfoo_row(one: JsonObject) -> Row:
    said, case = one.get("response") or {}, one.get("testCase") or {}
    asserted = [check for check in case.get("assert") or () if check.get("type") == "equals"]
    usage, asked = said.get("tokenUsage") or {}, one.get("vars") or {}
    given = one.get("namedScores") or {"score": one.get("score")}
    case_text = logs.text_of(next(iter(asked.values())) if len(asked) == 1 else asked)
    error = str(one.get("error") or "error") if one.get("failureReason") == _FAILED else ""
    return Row(
        example_id=str(one["testIdx"]),
        messages=logs.user_says(case_text),  # the case, which both arms share; prompts may differ
        expected=tuple(logs.text_of(check["value"]) for check in asserted),
        answer=replace(
            logs.answered(logs.text_of(said.get("output")), error, said.get("finishReason")),
            latency_ms=one.get("latencyMs"),
            prompt_tokens=usage.get("prompt") or None,
            completion_tokens=usage.get("completion") or None,
            scores=logs.scores_of("promptfoo", {**given, "passed": one.get("success")}.items()),
        ),
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
    told = logs.fault(one.get("error") or body.get("error"))
    if body.get("object") == "response":
        body = _as_chat(body)
    if not told and not body.get("choices"):
        told = f"HTTP {(one.get('response') or {}).get('status_code', 'without a reply')}"
    try:
        return logs.answered("", told) if told else answer(body)
    except NoAnswerError as why:
        return logs.answered("", str(why))


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
    names = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
    tokens = {ours: usage.get(name) for ours, name in names.items()}
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
    said, usage = list(sample.get("output") or ()), sample.get("usage") or {}
    given = given["item"] if isinstance(given.get("item"), Mapping) else given
    graded = []
    for result in one.get("results") or ():
        score = result.get("score")
        # a grader's name without the id that the service adds: `match-1f0c...`
        name = re.sub(r"-[0-9a-f-]{8,}\Z", "", str(result.get("name") or "grader"))
        graded.append((name, result.get("passed") if score is None else score))
    text = logs.text_of(said[-1].get("content")) if said else ""
    return Row(
        example_id=str(one.get("datasource_item_id", one["id"])),
        messages=tuple(
            {"role": turn["role"], "content": logs.text_of(turn.get("content"))}
            for turn in sample.get("input") or ()
        ),
        expected=tuple(logs.text_of(given[name]) for name in _RIGHT if given.get(name))[:1],
        answer=replace(
            logs.answered(text, logs.fault(sample.get("error")), sample.get("finish_reason")),
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            served_model=sample.get("model"),
            scores=logs.scores_of("openai_evals", graded),
        ),
        slices=logs.labels_of(given, without=_RIGHT),
    )


def _one_of(given: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(name) for name in given if name))


# ---- a table, as pandas and Hugging Face datasets write one, by the names of its columns


def table(path: Path, rows: list[JsonObject], columns: Mapping[str, str]) -> Log:
    """The answers of a table's rows; further numbers are scores, further short texts slices.

    Raises:
        DesignError: A column that was named is not there, or several could be meant.
        DataError: No column can be the id, or the answer, or a row lacks one.
    """
    rows = [
        {str(k): _filled(one) for k, one in row.items() if not _INDEX.fullmatch(str(k))}
        for row in rows
    ]
    cells: dict[str, list[object]] = defaultdict(list)
    for row in rows:
        for name, one in row.items():
            cells[name].append(one)
    found = _columns_found(path, [*cells], columns)
    others = {name: seen for name, seen in cells.items() if name not in found.values()}
    numbers = [name for name, seen in others.items() if _are_numbers(seen)]
    kinds = {name: len({*map(str, seen)}) for name, seen in others.items() if name not in numbers}
    texts = [name for name, n in kinds.items() if n <= len(rows) / 2]
    told = cells[found["model"]] if "model" in found else []
    models = dict.fromkeys(str(one) for one in told if one is not None)
    if len(models) > 1:
        names = listed([*map(repr, models)])
        raise DesignError(f"{path}: answers of several models, {names}; one file a model")
    made = []
    for place, one in enumerate(rows, start=1):
        known = {what: one.get(name) for what, name in found.items()}
        if known["id"] is None:
            raise DataError(f"{path}: row {place} has no {found['id']}; give each row an id")
        count = {what: logs.number(known.get(what)) for what in _COUNTS}
        for what in _COUNTS:
            if known.get(what) is not None and count[what] is None:
                told = f"{found[what]} is {known[what]!r}, need a number"
                raise DataError(f"{path}: row {place}: {told}; name another column with --columns")
        scores = logs.scores_of("table", [(name, one.get(name)) for name in numbers])
        labels = {name: logs.text_of(one[name]) for name in texts if one.get(name) is not None}
        made.append(_table_row(known, count, scores, labels))
    return Log(path=path, tool="table", model="".join(models), rows=tuple(made))


def _filled(cell: object) -> object:
    """None for an empty cell: "" in a CSV, NaN in others."""
    return None if cell == "" or cell != cell else cell  # noqa: PLR0124 - NaN alone differs from itself


def _are_numbers(column: list[object]) -> bool:
    """Also of a CSV, whose cells are texts: numbers, or true and false; letters may be any label."""
    told = {str(one).lower() for one in column if one is not None}
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


def _table_row(
    known: JsonObject, count: _Numbers, scores: _Numbers, labels: Mapping[str, str]
) -> Row:
    asked, right = known.get("input"), known.get("expected")
    text, error = logs.text_of(known["predicted"]), logs.text_of(known.get("error"))
    tokens = {name: count[name] for name in ("prompt_tokens", "completion_tokens")}
    return Row(
        example_id=str(known["id"]),
        sample=int(count["sample"] or 0),
        messages=logs.user_says(logs.text_of(asked)) if asked is not None else (),
        expected=logs.texts_of(right if isinstance(right, list) else [right]),
        answer=replace(
            logs.answered(text, error, logs.text_of(known.get("finish_reason")) or None),
            latency_ms=count["latency_ms"],
            scores=scores,
            **{name: None if n is None else int(n) for name, n in tokens.items()},
        ),
        slices=labels,
    )
