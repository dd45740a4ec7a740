"""Votes for other tools: preference pairs to train on, and a file for LLM Comparator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from evalkit.conversation import INSTRUCTIONS
from evalkit.files import JsonObject, to_json, to_line
from evalkit.records import RatedPair
from evalkit.redaction import without_secrets_in

_SCORES = {"fine_tuned": 1.0, "base": -1.0}


def write_dpo(
    pairs: Iterable[RatedPair],
    path: str | Path,
    *,
    system_prompt: str = "",
    style: Literal["trl", "openai"] = "trl",
) -> int:
    """Writes preference pairs as JSONL, the answer most votes prefer as the chosen one; ties are left out.

    Args:
        pairs: From `evalkit.human.ratings.rated_pairs`.
        path: The file to write.
        system_prompt: Put before each input that has none of its own.
        style: "trl" for `prompt`, `chosen`, `rejected`; "openai" for `input`, `preferred_output`, `non_preferred_output`.

    Returns:
        The number of pairs written.
    """
    rows = [_dpo_row(pair, system_prompt, style) for pair in pairs if _mean_score(pair)]
    lines = (to_line(without_secrets_in(row)) + b"\n" for row in rows)
    Path(path).write_bytes(b"".join(lines))
    return len(rows)


def write_llm_comparator(
    pairs: Iterable[RatedPair], path: str | Path, *, models: Mapping[str, str]
) -> int:
    """Writes the JSON that LLM Comparator reads; its A is the fine-tuned model, so a positive score is good news here too.

    Args:
        pairs: From `evalkit.human.ratings.rated_pairs`.
        path: The file to write.
        models: Names, `{"base": ..., "fine_tuned": ...}`.

    Returns:
        The number of pairs written.
    """
    pairs = list(pairs)
    simulated = any(pair.simulated for pair in pairs)
    schema = [{"name": "example_id", "type": "string"}, {"name": "simulated", "type": "category"}]
    record = {
        "metadata": {
            "source_path": "evalkit, simulated raters" if simulated else "evalkit",
            "custom_fields_schema": schema,
        },
        "models": [
            {"name": models.get("fine_tuned", "fine-tuned")},
            {"name": models.get("base", "base")},
        ],
        "examples": [_example(pair) for pair in pairs],
    }
    Path(path).write_bytes(to_json(without_secrets_in(record)))
    return len(pairs)


def _mean_score(pair: RatedPair) -> float:
    scores = [_SCORES.get(vote["label"], 0.0) for vote in pair.votes]
    return sum(scores) / len(scores) if scores else 0.0


def _dpo_row(pair: RatedPair, system_prompt: str, style: str) -> JsonObject:
    prompt = [*pair.messages] or [{"role": "user", "content": pair.input}]
    if system_prompt and not any(message.get("role") in INSTRUCTIONS for message in prompt):
        prompt = [{"role": "system", "content": system_prompt}, *prompt]
    answers = [[{"role": "assistant", "content": text}] for text in (pair.fine_tuned, pair.base)]
    chosen, rejected = answers if _mean_score(pair) > 0 else reversed(answers)
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    if style == "openai":
        row = {
            "input": {"messages": prompt},
            "preferred_output": chosen,
            "non_preferred_output": rejected,
        }
    return row | ({"simulated": True} if pair.simulated else {})


def _example(pair: RatedPair) -> JsonObject:
    return {
        "input_text": pair.input,
        "tags": list(pair.slices.values()),
        "output_text_a": pair.fine_tuned,
        "output_text_b": pair.base,
        "score": _mean_score(pair),
        "individual_rater_scores": [
            {
                "is_flipped": not vote["fine_tuned_left"],
                "score": _SCORES.get(vote["label"], 0.0),
                "rationale": "; ".join(filter(None, [*vote["reasons"], vote["note"]])),
            }
            for vote in pair.votes
        ],
        "custom_fields": {
            "example_id": pair.example_id,
            "simulated": "yes" if pair.simulated else "no",
        },
    }
