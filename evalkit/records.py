"""The records that pass between the wings: plain, frozen, with the article's field names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

from evalkit.files import Record, canonical

Outcome = Literal["ok", "error", "refused", "truncated", "empty", "oversized"]
Layer = Literal["benchmark", "human", "ab_test"]

_Examples = Literal["first_examples", "more_examples", "second_look", "half_the_difference"]
_OfBenchmark = Literal["no_examples_would", "no_right_answers", "open_slices"]
_OfRound = Literal["no_round", "other_round", "open_round", "nothing_to_rate"]
_Ratings = Literal["more_ratings", "even_split", "no_ratings_would"]
_OfLog = Literal["no_plan", "no_users", "no_log", "no_variable", "sample_ratio", "off_record"]
_Users = Literal["not_read", "no_verdict", "larger_test", "no_users_would", "more_users"]
_OfLayer = Literal["absent", "stale", "simulated", "failed_calls", "slices_warned", "more_of_it"]
_Against = Literal["invalid", "worse", "stands_against", "unconfirmed", "declared_after_results"]
_OfPlan = Literal["plan_after_exposures", "not_whole_weeks", "plan_differs"]
_Kinds = _Examples | _OfBenchmark | _OfRound | _Ratings | _OfLog | _Users | _OfLayer | _Against
# "open_windows": users came and none counts yet, which is not the same as an empty log
MissingKind = _Kinds | _OfPlan | Literal["open_windows"]

_NEEDS: Mapping[str, set[str]] = {  # numbers without which a kind cannot be said
    "n": {"first_examples", "second_look", "more_examples", "no_examples_would", "more_ratings"}
    | {"half_the_difference", "even_split", "no_ratings_would", "more_users", "open_windows"},
    "more": {"first_examples", "second_look", "more_examples", "half_the_difference"}
    | {"open_round", "more_users", "open_windows"},
    "needed": {"more_examples", "other_round", "more_ratings", "even_split", "no_users"}
    | {"no_log", "no_variable", "larger_test", "more_users", "open_windows"},
    "days": {"no_users", "no_log", "no_variable", "more_users", "open_windows"},
    "slices": {"open_slices"},
}

# a loss in these slices is not ruled out; the latest chapter's word counts
OPEN_SLICES: MissingKind = "open_slices"
OPEN_WINDOWS: MissingKind = "open_windows"

Plain = str | int | float | bool | None
Held = Mapping[str, Any]  # a JSON object that stays as it is
Message = Held  # of a conversation, as it is sent
Messages = Sequence[Message]
_LONGEST, _LONG_TEXT, _FEW = 1000, 60, 4  # characters of a repr and of a text in it; items shown
_NOTHING: Held = MappingProxyType({})
_BROKEN_OFF = ("abort", "cancel", "failed", "timeout", "overloaded", "insufficient_system_resource")


class Brief:
    """A record that says itself in a line or two, as the last line of a cell: long texts are cut, what it holds is counted."""

    __slots__ = ()

    def __repr__(self) -> str:
        told = [one.name for one in fields(self) if one.repr]  # pyright: ignore[reportArgumentType]
        shown = (f"{name}={_short(getattr(self, name))}" for name in told)
        return _cut(f"{type(self).__name__}({', '.join(shown)})", _LONGEST)


class Many(tuple[Record, ...]):
    """Several records; it says how many, and shows the first."""

    __slots__ = ()

    def __repr__(self) -> str:
        return _several(self)


def _several(records: Sequence[object]) -> str:
    first = f", the first: {_cut(repr(records[0]), _LONGEST)}" if records else ""
    kind = type(records[0]).__name__ if records else "record"
    return f"<{len(records)} x {kind}{first}>"


def _short(value: object) -> str:
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        return repr(_cut(value, _LONG_TEXT))
    if isinstance(value, Mapping | Sequence | set | frozenset):
        inside = [*value, *value.values()] if isinstance(value, Mapping) else [*value]
        said = repr(value) if len(value) <= _FEW and not any(map(_holds, inside)) else ""
        return said if 0 < len(said) <= _LONG_TEXT else f"<{len(value)}>"
    return f"<{type(value).__name__}>"


def _holds(value: object) -> bool:
    """Whether a value is more than a text or a number."""
    return not (value is None or isinstance(value, str | bool | int | float))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Example(Brief):
    """One row of a test set.

    Attributes:
        example_id: The row's own `id`, else a content hash.
        messages: The prompt as sent: every message before the expected answer.
        expected: The last assistant message as text, without its thoughts; a tool call as `conversation.spoken` says it;
            "" where nothing is expected.
        slices: Named values by which results may be cut, e.g. `{"kind": "multi"}`.
        cluster: Examples that share a source share this value; None when not declared.
        line: 1-based line in the file it came from.
        request: What the row itself adds to the request: its tools, tool_choice, response_format ...
        also_right: Further answers that are as right as the expected one.
        expects: False for an open-ended row, which ends in a question: nothing is expected of its answer.
    """

    example_id: str
    messages: tuple[Message, ...]
    expected: str
    slices: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    cluster: str | None = None
    line: int = 0
    request: Held = field(default_factory=lambda: _NOTHING)
    also_right: tuple[str, ...] = ()
    expects: bool = True

    @property
    def right(self) -> tuple[str, ...]:
        """Every right answer, the expected one first; () where nothing is expected."""
        return (self.expected, *self.also_right) if self.expects else ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Answer(Brief):
    """What one call to a model came back with, cleaned once; never an exception.

    Attributes:
        text: The answer as shown and scored, tool calls included; "" when there is none.
        outcome: ok, error (no answer), refused, truncated (hit max_tokens), empty or oversized (a reply too large to read).
        latency_ms: Milliseconds around the successful (or last) attempt only.
        attempts: Calls made, retries included.
        sanitized: True when unstorable characters had to be replaced.
        served_model: The model name in the reply, None when not given.
        thinking: The model's thoughts, which are not scored; "" when it showed none.
        thinking_tokens: Of `completion_tokens`, those spent on thoughts, as the server counted; None when it did not.
        scores: What another tool, which asked, said of the answer, by scorer.
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
    thinking: str = ""
    thinking_tokens: int | None = None
    scores: Mapping[str, float | None] = field(default_factory=lambda: _NOTHING)

    @property
    def has_thoughts(self) -> bool:
        """Whether the model thought before it answered, as far as its server shows."""
        return bool(self.thinking or self.thinking_tokens)

    def tokens_of_thoughts(self) -> int | None:
        """As the server counted, else their share of the characters; None where neither is known."""
        if self.thinking_tokens is not None or not self.thinking:
            return self.thinking_tokens
        n, n_chars = self.completion_tokens, len(self.thinking) + len(self.text)
        return None if n is None else round(n * len(self.thinking) / n_chars)


def ends_in_error(finish_reason: object) -> bool:
    """Whether a server says by its finish reason that it broke the answer off: error, network_error, abort ...

    Example:
        >>> ends_in_error("error"), ends_in_error("stop"), ends_in_error(None)
        (True, False, False)
    """
    reason = finish_reason.strip().lower() if isinstance(finish_reason, str) else ""
    return "error" in reason or reason.startswith(_BROKEN_OFF)


@dataclass(frozen=True, slots=True, repr=False)
class EvalResult(Brief):
    """One example answered and scored; the first six fields are positional, in the article's order.

    Attributes:
        exact_match: Stripped answer equals a stripped right answer, and the outcome is ok; None where nothing is expected.
        format_correct: The study's checker accepts the answer; None with the checker "none".
        sample: 0-based sample number when each example is asked several times.
        scores: Further metrics by name, each in [0, 1] or None when undefined.
        messages: The whole prompt as sent, of which `input_text` is what the user said last; () when it is not known.
        has_thoughts: The model thought before it answered; its thoughts stand in the journal and are not scored.
        thinking_tokens: Tokens of these thoughts, as counted by the server, else by their share of the characters.
        also_right: Further answers that are as right as the expected one.
    """

    example_id: int | str
    input_text: str
    expected: str
    predicted: str
    exact_match: bool | None
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
    messages: tuple[Message, ...] = field(default=(), repr=False)
    has_thoughts: bool = False
    thinking_tokens: int | None = None
    also_right: tuple[str, ...] = ()

    @property
    def right(self) -> tuple[str, ...]:
        """Every right answer, the expected one first; () where nothing is expected."""
        return () if self.exact_match is None else (self.expected, *self.also_right)

    @property
    def expected_text(self) -> str:
        """What is expected, as people read it: every right answer, or that there is none."""
        return "\n or \n".join(self.right) if self.right else "(nothing is expected)"

    @property
    def prompt(self) -> Messages:
        """The messages as sent; the input alone where they are not known."""
        return self.messages or ({"role": "user", "content": self.input_text},)


class Results(list[EvalResult]):
    """One model's scored answers: a list that says how many they are, and shows the first."""

    def __repr__(self) -> str:
        return _several(self)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RatedPair(Brief):
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
    votes: tuple[Held, ...]
    slices: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    simulated: bool = False
    messages: Messages = ()


class Lean:
    """A kind, and numbers of which each kind has a few: those alone stand in files."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSlice:
    """A slice that is not settled: its name, examples, difference, and how many more would settle it."""

    name: str
    n: int
    estimate: float | None
    shown_as: str
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing(Lean):
    """One piece of evidence that is not there yet: its kind, and the numbers of its reason and its price.

    Attributes:
        kind: What it is; `evalkit.show.lacking` says it as an action, why, and a price.
        key: The name of what it is about: a round, a log, a result or a change.
        n: What there is of it.
        more: What it takes beyond that.
        needed: What it takes in all.
        days: About how long that takes.
        look: The look that is waited for, of `looks`.
        estimate: The effect seen.
        margin: The loss that is to be ruled out; None where a difference is to be shown.
        shown_as: Their scale: "points" or "number".
        chance: With which so many settle it.
        pace_s: Seconds a pair, as measured; None where nobody can know.
        there: Pairs with different answers in the test set, where these are fewer than `needed`.
        slices: Open slices, the largest loss first, and `further` ones.
        said: What a test said of itself.
    """

    kind: MissingKind
    key: str = ""
    n: int | None = None
    more: int | None = None
    needed: int | None = None
    days: int | None = None
    look: int | None = None
    looks: int | None = None
    estimate: float | None = None
    margin: float | None = None
    shown_as: str = "points"
    chance: float | None = None
    pace_s: float | None = None
    there: int | None = None
    slices: tuple[OpenSlice, ...] = ()
    further: int = 0
    said: str = ""

    @property
    def lacks(self) -> list[str]:
        """The numbers that a file does not have of it, though its kind needs them."""
        needs = (name for name, kinds in _NEEDS.items() if self.kind in kinds)
        return [name for name in needs if getattr(self, name) in (None, ())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """A result that speaks against a model, from any time of the study: it stands until it is settled or retired.

    Attributes:
        source: What it came from: the metric, the rating round or the experiment.
        models: Names, `{"base": ..., "fine_tuned": ...}`; empty when they are not known.
        bound_to: Hashes of the test set and the answers it was made for, as far as they are known.
        said: Its effect, as the ledger's line of a run has it.
        at: When, ISO 8601.
        replaced_by_later: True when a later reading of the same A/B test takes its place, as with a guardrail that is
            watched day by day; what a planned look has shown stays shown.
        win_rate: Of a rating round, over `n` items.
        look: Of an A/B test, with its users of either variant.
        fault: Why a locked round cannot be read any more.
    """

    layer: Layer
    source: str
    models: Mapping[str, str]
    bound_to: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    said: str = ""
    at: str = ""
    replaced_by_later: bool = False
    win_rate: float | None = None
    n: int | None = None
    look: int | None = None
    n_control: int | None = None
    n_treatment: int | None = None
    fault: str | None = None

    @property
    def key(self) -> str:
        """Its short name, by which a study retires it: the layer and 8 hex digits."""
        whole = json.dumps([self.layer, self.source, sorted(self.bound_to.items())])
        return f"{self.layer}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Lean):
    """Something that was changed after it could be known how it turns out: its kind, and what happened.

    Attributes:
        kind: What it is; `evalkit.show.findings` says it.
        at: When it was done or seen, ISO 8601.
        before: When it was another way, or done first.
        n: How many there are of it, or the number of a look or a line.
        n_before: How many there were.
        names: Of rounds, files, experiments or settings.
        turned: Settings and rules with the value before and after.
    """

    kind: str
    at: str = ""
    before: str = ""
    n: int = 0
    n_before: int = 0
    names: tuple[str, ...] = ()
    turned: tuple[tuple[str, Plain, Plain], ...] = ()


def answers_hash(results: Iterable[EvalResult]) -> str:
    """SHA-256 hex over the sorted (example id, sample, answer, outcome): what evidence on these answers is bound to.

    Only these answers count: not the order, not the scores, nor what else a journal holds.
    """
    return hash_rows(
        [str(one.example_id), one.sample, one.predicted, one.outcome] for one in results
    )


def hash_rows(rows: Iterable[Sequence[object]]) -> str:
    """SHA-256 hex over rows of texts and numbers, whatever their order."""
    return hashlib.sha256(canonical(sorted(map(list, rows)))).hexdigest()
