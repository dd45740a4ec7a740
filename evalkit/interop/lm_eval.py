"""Samples of lm-evaluation-harness: `samples_<task>_<time>.jsonl`, and what the results file beside it says of the run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import DataError
from evalkit.interop.log import Log, Row, answer_of, chosen, score_name, score_values, text_of


def read(path: Path, lines: list[dict[str, Any]], *, filter_name: str = "") -> Log:
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
    for number, one in enumerate(lines, start=1):
        if str(one.get("filter", "none")) == kept:
            try:
                rows.append(_row(one, task, is_alone=hashes[one.get("doc_hash")] == 1))
            except (KeyError, TypeError, IndexError, ValueError) as why:
                raise DataError(
                    f"{path}:{number}: not a sample of lm-eval ({type(why).__name__}: {why})"
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


def _row(one: Mapping[str, Any], task: str, *, is_alone: bool) -> Row:
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
