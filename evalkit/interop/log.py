"""What another tool's run left behind, in our terms: rows answered by one model, with the scores that tool gave."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evalkit.answers import metrics
from evalkit.errors import DataError, DesignError
from evalkit.records import Answer, EvalResult, Example, Outcome
from evalkit.wording import cleaned, listed, plural, visible

_OURS = {"exact_match", "format", *metrics.SCORERS}  # what these names mean is said by this kit
_NO_NAME = re.compile(r"[^\w-]+")
_GRADES = {
    "C": 1.0,
    "P": 0.5,
    "I": 0.0,
    "N": 0.0,
}  # Inspect's CORRECT, PARTIAL, INCORRECT, NOANSWER
_YES_NO = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One answer of another tool's run.

    Attributes:
        sample: 0-based: an epoch or a repeat of the same question.
        messages: The prompt; () where the file does not hold it.
        expected: The right answers, any of which is right; () where the file names none.
        scores: What the tool said of the answer, by our name of its scorer; None where it is no number.
    """

    example_id: str
    answer: Answer
    sample: int = 0
    messages: tuple[Mapping[str, Any], ...] = ()
    expected: tuple[str, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict)
    slices: Mapping[str, str] = field(default_factory=dict)

    @property
    def scored(self) -> Answer:
        """The answer with what the tool said of it."""
        return replace(self.answer, scores=self.scores)

    @property
    def result(self) -> EvalResult:
        """The row as any other answer; a right answer among several is an exact match."""
        right = self.expected or ("",)
        example = Example(
            example_id=self.example_id,
            messages=self.messages,
            expected=right[0],
            also_right=right[1:],
            expects=bool(self.expected),
            slices=self.slices,
        )
        return metrics.score_answer(example, self.scored, self.sample, checker="none", scorers=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One model's answers from another tool's file.

    Attributes:
        tool: Its name, with its version where the file says it: "Inspect 0.3.285".
        run: The tool's own name of the run; "" where it has none.
        made_at: As the file says it.
        lower_is_better: Scores of which the tool says so.
        notes: What was left out or read in a way that a reader should know.
    """

    path: Path
    tool: str
    model: str
    rows: tuple[Row, ...]
    run: str = ""
    made_at: str = ""
    lower_is_better: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def scores(self) -> tuple[str, ...]:
        """The scores of which its rows hold a number, in the order they come."""
        told = (one for row in self.rows for one in row.scores.items())
        return tuple(dict.fromkeys(name for name, value in told if value is not None))

    @property
    def results(self) -> list[EvalResult]:
        """Its rows as any other answers, ready for `compare_models`."""
        return [row.result for row in self.rows]

    @property
    def about(self) -> dict[str, str]:
        """Where the answers came from, for a journal's header and the page."""
        known = {"tool": self.tool, "model": self.model, "run": self.run, "made_at": self.made_at}
        return {"file": self.path.name} | {name: told for name, told in known.items() if told}

    def __str__(self) -> str:
        n = len({row.example_id for row in self.rows})
        run = f", run {visible(self.run)}" if self.run else ""
        scores = f", scored by {listed(list(self.scores))}" if self.scores else ""
        return (
            f"{self.path.name}: {self.tool}{run}, model {visible(self.model) or 'not named'}, "
            f"{plural(len(self.rows), 'answer')} to {plural(n, 'example')}{scores}"
        )


def checked(log: Log) -> Log:
    """The log with its repeated ids told; nothing without rows passes.

    Raises:
        DataError: It holds no answers, or the same sample of one id with different contents.
    """
    if not log.rows:
        raise DataError(
            f"{log.path}: {log.tool}: no sample was finished, so there is nothing to compare; run it to its end"
        )
    seen: dict[tuple[str, int], Row] = {}
    for row in log.rows:
        kept = seen.setdefault((row.example_id, row.sample), row)
        if (kept.answer.text, kept.messages) != (row.answer.text, row.messages):
            raise DataError(
                f"{log.path}: id {row.example_id!r} stands more than once with different contents; give each example "
                "an id of its own"
            )
    n = len(log.rows) - len(seen)
    notes = (f"{plural(n, 'row')} stood twice, word for word; each counts once",) if n else ()
    return replace(log, rows=tuple(seen.values()), notes=(*log.notes, *notes))


def chosen(
    what: str, found: Iterable[str], asked: str, path: Path, option: str, *, by_itself: bool = True
) -> str:
    """The one of several that was asked for; the only one without asking.

    Raises:
        DesignError: There are several and none was named, or the named one is not there.
    """
    names = list(dict.fromkeys(found))
    if asked in names:
        return asked
    if not asked and len(names) == 1 and by_itself:
        return names[0]
    if not names:
        raise DataError(f"{path}: holds no rows; name a run that has some")
    few = listed([repr(visible(name)) for name in names[:20]])
    problem = f"no {what} {asked!r}" if asked else f"several {what}s, none is guessed"
    raise DesignError(f"{path}: {problem}; it holds {few}; name one with {option}")


def score_name(name: str, tool: str) -> str:
    """A score's name among our metrics: one that means something else here has the tool's before it.

    Example:
        >>> score_name("match", "inspect"), score_name("exact_match", "lm_eval"), score_name("F1 (macro)", "table")
        ('match', 'lm_eval_exact_match', 'F1_macro')
    """
    plain = _NO_NAME.sub("_", name).strip("_") or "score"
    return f"{tool}_{plain}" if plain in _OURS else plain


def score_values(name: str, value: object) -> Iterator[tuple[str, float | None]]:
    """A score as numbers: grades and yes or no as Inspect reads them, a mapping key by key; None for other texts."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from score_values(f"{name}_{key}", one)
    else:
        yield name, number(value)


def number(value: Any) -> float | None:
    """A grade, a yes or no or a number as a number; None for all else."""
    if isinstance(value, str):
        told = _GRADES.get(value, _YES_NO.get(value.strip().lower()))
        if told is not None:
            return told
    try:
        told = float(value)
    except (TypeError, ValueError):
        return None
    return told if abs(told) < float("inf") else None


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


def answer_of(
    text: str,
    *,
    error: str = "",
    finish_reason: str | None = None,
    latency_ms: float | None = None,
    prompt_tokens: int | None = None,
    completion_tokens: int | None = None,
    served_model: str | None = None,
) -> Answer:
    """An answer with its outcome, cleaned as any other."""
    told, sanitized = cleaned(text)
    return Answer(
        text=told,
        outcome=_outcome(told, error, finish_reason),
        finish_reason=finish_reason,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        latency_ms=latency_ms,
        served_model=served_model,
        error=cleaned(error)[0][:2_000] or None,
        sanitized=sanitized,
    )


def _outcome(text: str, error: str, finish_reason: str | None) -> Outcome:
    if error:
        return "error"
    if finish_reason in {"length", "max_tokens", "model_length"}:
        return "truncated"
    if finish_reason == "content_filter":
        return "refused"
    return "ok" if text.strip() else "empty"


def matched(log: Log, ids: Sequence[str]) -> str:
    """What of a log has no counterpart, in a sentence; "" when all have."""
    known = set(ids)
    missing = list(dict.fromkeys(row.example_id for row in log.rows if row.example_id not in known))
    if not missing:
        return ""
    some = listed([repr(visible(name)) for name in missing[:3]])
    return f"{plural(len(missing), 'id')} of {log.path.name} stand only there, first {some}; they count nowhere"
