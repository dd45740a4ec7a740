"""The records that pass between the wings: plain, frozen, with the article's field names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from evalkit.files import read_record, write_whole
from evalkit.redaction import without_secrets_in

Outcome = Literal["ok", "error", "refused", "truncated", "empty"]
Layer = Literal["benchmark", "human", "ab_test"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_BROKEN_OFF = {
    "abort",
    "aborted",
    "cancelled",
    "canceled",
    "failed",
    "timeout",
    "overloaded",
    "insufficient_system_resource",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row of a test set.

    Attributes:
        example_id: The row's own `id`, else a content hash.
        messages: The prompt as sent: every message before the expected answer.
        expected: The last assistant message, as written.
        slices: Named values by which results may be cut, e.g. `{"kind": "multi"}`.
        cluster: Examples that share a source share this value; None when not declared.
        line: 1-based line in the file it came from.
    """

    example_id: str
    messages: tuple[Mapping[str, Any], ...]
    expected: str
    slices: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    cluster: str | None = None
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one call to a model came back with, cleaned once; never an exception.

    Attributes:
        text: The answer as shown and scored; "" when there is none.
        outcome: ok, error (no answer), refused, truncated (hit max_tokens) or empty.
        latency_ms: Milliseconds around the successful (or last) attempt only.
        attempts: Calls made, retries included.
        sanitized: True when unstorable characters had to be replaced.
        served_model: The model name in the reply, None when not given.
    """

    text: str
    outcome: Outcome
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_ms: float | None = None
    served_model: str | None = None
    error: str | None = None
    attempts: int = 1
    sanitized: bool = False


def ends_in_error(finish_reason: Any) -> bool:
    """Whether a server says by its finish reason that it broke the answer off: error, network_error, abort ...

    Example:
        >>> ends_in_error("error"), ends_in_error("stop"), ends_in_error(None)
        (True, False, False)
    """
    reason = finish_reason.strip().lower() if isinstance(finish_reason, str) else ""
    return "error" in reason or reason in _BROKEN_OFF


@dataclass(frozen=True, slots=True)
class EvalResult:
    """One example answered and scored; the first six fields are positional, in the article's order.

    Attributes:
        exact_match: Stripped answer equals stripped expectation, and the outcome is ok.
        format_correct: The study's checker accepts the answer; None with the checker "none".
        sample: 0-based sample number when each example is asked several times.
        scores: Further metrics by name, each in [0, 1] or None when undefined.
        messages: The whole prompt as sent, of which `input_text` is what the user said last; () when it is not known.
    """

    example_id: int | str
    input_text: str
    expected: str
    predicted: str
    exact_match: bool
    format_correct: bool | None
    _: KW_ONLY
    outcome: Outcome = "ok"
    sample: int = 0
    scores: Mapping[str, float | None] = field(default_factory=lambda: _NOTHING)
    slices: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    cluster: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_ms: float | None = None
    error: str | None = None
    messages: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def prompt(self) -> Sequence[Mapping[str, Any]]:
        """The messages as sent; the input alone where they are not known."""
        return self.messages or ({"role": "user", "content": self.input_text},)


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedPair:
    """One example with both answers and what people said about them, decoded.

    Attributes:
        input: The conversation as plain text.
        messages: The conversation as it was sent; empty when the batch did not hold it.
        votes: A mapping a rater: `rater`, `label` (fine_tuned, base, tie or both_bad), `reasons`, `note`, `fine_tuned_left`.
        simulated: True when the raters are simulated.
    """

    example_id: str
    input: str
    base: str
    fine_tuned: str
    votes: tuple[Mapping[str, Any], ...]
    slices: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    simulated: bool = False
    messages: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """One piece of evidence that is not there yet: an action, why, and its price in words.

    Attributes:
        kind: What code may tell it by, "" where nothing has to; the words are for people only.
    """

    action: str
    why: str
    price: str
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """A result that speaks against a model, from any time of the study: it stands until it is settled or retired.

    Attributes:
        source: What it came from: the metric, the rating round or the experiment.
        models: Names, `{"base": ..., "fine_tuned": ...}`; empty when they are not known.
        bound_to: Hashes of the test set and the answers it was made for, as far as they are known.
        said: What it says, for people.
        at: When, ISO 8601.
        replaced_by_later: True when a later reading of the same A/B test takes its place, as with a guardrail that is
            watched day by day; what a planned look has shown stays shown.
    """

    layer: Layer
    source: str
    models: Mapping[str, str]
    bound_to: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    said: str = ""
    at: str = ""
    replaced_by_later: bool = False

    @property
    def key(self) -> str:
        """Its short name, by which a study retires it: the layer and 8 hex digits."""
        whole = json.dumps([self.layer, self.source, sorted(self.bound_to.items())])
        return f"{self.layer}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one layer hands to the decision, as a JSON file in the run's folder.

    Attributes:
        layer: benchmark, human or ab_test.
        models: Names, `{"base": ..., "fine_tuned": ...}`.
        bound_to: Hashes this evidence is valid for: `test_set`; `base` and `fine_tuned` (answers, see `answers_hash`);
            `base_journal` and `fine_tuned_journal` (all that the journals hold).
        simulated: True when any rating or user in it is simulated.
        metric: What `primary` measures, in words, e.g. "exact match".
        unit: What `primary["n"]` counts: examples, items or users.
        primary: The primary test result as a dict of plain numbers (with `verdict`); None when withheld.
        missing: What would settle it, priced.
        details: Everything else the layer reports.
    """

    layer: Layer
    study: str
    made_at: str
    models: Mapping[str, str]
    bound_to: Mapping[str, str]
    simulated: bool
    metric: str
    unit: str
    primary: Mapping[str, Any] | None
    missing: tuple[Missing, ...] = ()
    details: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    def write(self, path: Path) -> Path:
        """Writes the evidence as JSON; refuses NaN, which is not JSON."""
        record = without_secrets_in({name: _plain(getattr(self, name)) for name in self.__slots__})
        text = json.dumps(record, indent=1, ensure_ascii=True, allow_nan=False)
        return write_whole(path, text.encode() + b"\n")

    @classmethod
    def read(cls, path: Path) -> Evidence:
        """Reads what `write` wrote.

        Raises:
            DataError: The file is not such a record.
        """
        return read_record(
            path, cls, said="not a record of evidence", remedy="run its chapter again"
        )


def answers_hash(results: Iterable[EvalResult]) -> str:
    """SHA-256 hex over the sorted (example id, sample, answer, outcome): what evidence on these answers is bound to.

    Only these answers count: not the order, not the scores, nor what else a journal holds.
    """
    return hash_rows(
        [str(one.example_id), one.sample, one.predicted, one.outcome] for one in results
    )


def hash_rows(rows: Iterable[Sequence[Any]]) -> str:
    """SHA-256 hex over rows of texts and numbers, whatever their order."""
    text = json.dumps(sorted(map(list, rows)), separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, Missing):
        return asdict(value)
    return value
