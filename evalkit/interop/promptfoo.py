"""Results of promptfoo (`-o results.json` or `.jsonl`): of its arms - a provider, a prompt, or both - one."""

from __future__ import annotations

import math
from pathlib import Path

from evalkit.errors import DataError
from evalkit.files import JsonObject
from evalkit.interop import fields
from evalkit.interop.run_log import Log, Row, chosen

_FAILED = 2  # its failureReason; 1 is an assertion that did not hold


def read(path: Path, about: JsonObject, results: list[JsonObject], arm: str) -> Log:
    """The rows of one arm.

    Raises:
        DesignError: There are several arms, and none was named.
        DataError: The file is of another version, or not as promptfoo writes it.
    """
    version = (about.get("results") or {}).get("version", 3)
    if version != 3:
        what = f"{path}: promptfoo results of version {version!r}, this evalkit reads 3"
        newer = "update evalkit" if str(version) > "3" else "export with a newer promptfoo"
        raise DataError(f"{what}; {newer}")
    with fields.reading(f"{path}: not the results of promptfoo", "; export them again"):
        arms = _arms(results)
        kept = chosen("arm", arms, arm, path, "--arm, of compare --arms")
        named = zip(results, arms, strict=True)
        made = about.get("metadata") or {}
        return Log(
            path=path,
            tool=f"promptfoo {made.get('promptfooVersion', '')}".strip(),
            model=kept,
            run=str(about.get("evalId") or ""),
            made_at=str(made.get("evaluationCreatedAt") or ""),
            rows=tuple(_row(one) for one, name in named if name == kept),
        )


def _arms(results: list[JsonObject]) -> list[str]:
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


def _row(one: JsonObject) -> Row:
    said, case = one.get("response") or {}, one.get("testCase") or {}
    asserted = [check for check in case.get("assert") or () if check.get("type") == "equals"]
    usage = said.get("tokenUsage") or {}
    given = one.get("namedScores") or {"score": one.get("score")}
    asked = one.get("vars") or {}
    case_text = fields.text_of(next(iter(asked.values())) if len(asked) == 1 else asked)
    has_failed = one.get("failureReason") == _FAILED
    return Row(
        example_id=str(one["testIdx"]),
        messages=fields.user_says(case_text),  # the case, which both arms share; prompts may differ
        expected=tuple(fields.text_of(check["value"]) for check in asserted),
        answer=fields.answered(
            fields.text_of(said.get("output")),
            error=str(one.get("error") or "error") if has_failed else None,
            finish_reason=said.get("finishReason"),
            latency_ms=one.get("latencyMs"),
            prompt_tokens=usage.get("prompt") or None,
            completion_tokens=usage.get("completion") or None,
        ),
        scores=fields.scores_of("promptfoo", {**given, "passed": one.get("success")}.items()),
        slices=fields.labels_of(case.get("metadata") or {}, longest=math.inf),
    )
