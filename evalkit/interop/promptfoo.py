"""Results of promptfoo (`-o results.json` or `.jsonl`): one arm, which is a provider, a prompt, or both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import DataError
from evalkit.interop.log import Log, Row, answer_of, chosen, score_name, score_values, text_of

_ERROR = 2  # its failureReason; 1 is an assertion that did not hold


def read(
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
        rows = tuple(_row(one) for one, name in zip(lines, arms, strict=True) if name == kept)
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


def _row(one: Mapping[str, Any]) -> Row:
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
