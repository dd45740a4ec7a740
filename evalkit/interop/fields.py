"""What another tool's row holds, as ours: texts, numbers, scores by our names, labels, and an answer with its outcome."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import SupportsFloat

from evalkit.answers.scoring import SCORERS
from evalkit.conversation import Message
from evalkit.errors import DataError, EvalkitError
from evalkit.records import Answer, Outcome
from evalkit.wording import cleaned

_OURS = {"exact_match", "format", *SCORERS}  # what these names mean is said by this kit
_NO_NAME = re.compile(r"[^\w-]+")
_GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # correct, partial, incorrect, no answer
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_ENDED: Mapping[str | None, Outcome] = {
    "length": "truncated",
    "max_tokens": "truncated",
    "model_length": "truncated",
    "content_filter": "refused",
}


@contextmanager
def reading(what: str, remedy: str = "") -> Iterator[None]:
    """Tells what is not as the tool writes it, in place of the fault that Python finds."""
    try:
        yield
    except EvalkitError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as why:
        raise DataError(f"{what} ({type(why).__name__}: {why}){remedy}") from why


def answered(
    text: str,
    *,
    error: str | None = None,
    finish_reason: str | None = None,
    latency_ms: float | None = None,
    prompt_tokens: int | None = None,
    completion_tokens: int | None = None,
    served_model: str | None = None,
) -> Answer:
    """An answer cleaned as any other, with the outcome that its error, its end and its text tell."""
    said, sanitized = cleaned(text)
    error = cleaned(error or "")[0][:2_000] or None
    outcome = _ENDED.get(finish_reason, "ok" if said.strip() else "empty")
    return Answer(
        text=said,
        outcome="error" if error else outcome,
        error=error,
        sanitized=sanitized,
        finish_reason=finish_reason,
        latency_ms=latency_ms,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        served_model=served_model,
    )


def scores_of(tool: str, given: Iterable[tuple[str, object]]) -> dict[str, float | None]:
    """Scores by their names here, as numbers: a mapping key by key; None for what is no number."""
    return {
        score_name(name, tool): number(value)
        for one, values in given
        for name, value in _apart(one, values)
    }


def _apart(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _apart(f"{name}_{key}", one)
    else:
        yield name, value


def score_name(name: str, tool: str) -> str:
    """A score's name among our metrics: one that means something else here has the tool's before it.

    Example:
        >>> score_name("match", "inspect"), score_name("exact_match", "lm_eval"), score_name("F1 (macro)", "table")
        ('match', 'lm_eval_exact_match', 'F1_macro')
    """
    plain = _NO_NAME.sub("_", name).strip("_") or "score"
    return f"{tool}_{plain}" if plain in _OURS else plain


def number(value: object) -> float | None:
    """A grade, a yes or no or a number as a number; None for all else."""
    if isinstance(value, str):
        told = _GRADES.get(value, _WORDS.get(value.strip().lower()))
        value = value if told is None else told
    try:
        found = float(value) if isinstance(value, str | SupportsFloat) else math.nan
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def labels_of(
    given: Mapping[str, object], *, without: Sequence[str] = (), longest: float = 80
) -> dict[str, str]:
    """Short texts, whole numbers and truths, by which results can be cut."""
    return {
        str(name): text_of(value)
        for name, value in given.items()
        if isinstance(value, str | int | bool)
        and len(str(value)) <= longest
        and name not in without
    }


def user_says(text: str) -> tuple[Message, ...]:
    """A prompt of one message."""
    return ({"role": "user", "content": text},)


def texts_of(values: Iterable[object]) -> tuple[str, ...]:
    """Right answers as texts, without blank ones."""
    return tuple(text for text in map(text_of, values) if text.strip())


def text_of(content: object) -> str:
    """A message's text: parts of another kind by their kind, calls of tools as JSON."""
    if isinstance(content, list):
        parts = (one if isinstance(one, str) else _part(one) for one in content)
        return "\n".join(part for part in parts if part)
    if content is None:
        return ""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _part(one: object) -> str:
    if not isinstance(one, Mapping):
        return str(one)
    if isinstance(text := one.get("text"), str):
        return text
    return "" if one.get("type") == "reasoning" else f"[{one.get('type', 'part')}]"
