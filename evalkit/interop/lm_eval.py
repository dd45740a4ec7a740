"""Samples of lm-eval (`samples_<task>_<time>.jsonl`), and what the results file beside them says of the run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from evalkit.errors import DataError
from evalkit.files import JsonObject
from evalkit.interop import fields
from evalkit.interop.run_log import Log, Row, chosen


def read(path: Path, lines: list[JsonObject], filter_name: str) -> Log:
    """The samples of one filter.

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
    run = _run(path)
    task = path.stem.removeprefix("samples_").rsplit("_", 1)[0]
    hashes, rows = Counter(repr(one.get("doc_hash")) for _, one in samples), []
    for place, one in samples:
        with fields.reading(f"{path}:{place}: not a sample of lm-eval"):
            rows.append(_row(one, task, is_alone=hashes[repr(one.get("doc_hash"))] == 1))
    better = (run.get("higher_is_better") or {}).get(task) or {}
    lower = (fields.score_name(name, "lm_eval") for name, is_so in better.items() if is_so is False)
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


def _run(path: Path) -> JsonObject:
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


def _row(one: JsonObject, task: str, *, is_alone: bool) -> Row:
    """One sample; a document that the task holds more than once is known by its place as well."""
    name = str(one.get("doc_hash") or task)
    asked = one.get("arguments") or {}
    requests = list(asked.values() if isinstance(asked, Mapping) else asked)
    names = one.get("metrics") or [name for name, value in one.items() if isinstance(value, float)]
    text, expected = _answer(one["filtered_resps"], requests, one.get("target"))
    return Row(
        example_id=name if is_alone and one.get("doc_hash") else f"{name}-{one['doc_id']}",
        answer=fields.answered(text),
        messages=fields.user_says(_argument(requests[0], 0)) if requests else (),
        expected=expected,
        scores=fields.scores_of("lm_eval", [(name, one[name]) for name in names]),
        slices={"task": task},
    )


def _answer(
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
    return fields.text_of(first).strip(), fields.texts_of(right_ones)


def _argument(request: object, place: int) -> str:
    if isinstance(request, Mapping):
        return fields.text_of(request.get(f"arg_{place}"))
    if isinstance(request, list) and len(request) > place:
        return fields.text_of(request[place])
    return ""
