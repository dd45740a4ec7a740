"""A test set: chat JSONL becomes examples; every problem of a file is listed at once, with its line and its remedy."""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from evalkit.answers import shapes
from evalkit.answers.shapes import NOTHING, REQUEST, ROLES, SYSTEM, UnusableError
from evalkit.conversation import spoken, thoughts_and_answer
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, canonical, from_json
from evalkit.records import Brief, Example
from evalkit.wording import cleaned, count, flattened, listed, plural, visible

SystemPromptMode = Literal["auto", "prepend", "replace"]
FEW = 100  # below this single rows have too much influence
MAX_LINE_BYTES = 16 * 2**20  # some 4 million tokens: no model reads that, and it fills no memory
NOT_SENT = {  # what is asked of all rows alike; a row that says otherwise would be asked something else than it says
    *("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "stop"),
    *("logit_bias", "frequency_penalty", "presence_penalty", "reasoning_effort"),
    *("modalities", "web_search_options", *SYSTEM),
}
_NO_TEXT = {"role", "content", "name", "weight", "id", "type", "text"}
_LISTED = 100
_ALIKE = 3  # rows with the very same fault, from which only the first is named
_FORM = (
    f'a row is {{"messages": [{{"role": ..., "content": "..."}}, ...]}} with roles {listed([*ROLES])}; '
    "docs/data-formats.md names what else it may hold"
)
_Text = Annotated[str, msgspec.Meta(pattern=r"\S")]


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Any] | None = None


class _Row(msgspec.Struct):
    """What a row may hold, of which type."""

    messages: list[_Message]
    id: _Text | int | None = None
    also_right: list[_Text] = []
    tools: list[JsonObject] = []
    tool_choice: str | JsonObject = ""
    parallel_tool_calls: bool = False
    response_format: JsonObject = {}
    functions: list[JsonObject] = []
    function_call: str | JsonObject = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A row that cannot be used: where, what is wrong, how to mend it."""

    line: int
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TestSet(Brief):
    """The examples of a file, and what there is to know about them.

    Attributes:
        examples: The usable rows in file order, at most `limit`; empty when they were not kept.
        again: Reads the same rows from the file once more.
        n_rows: Usable rows in the whole file, whatever the limit.
        fingerprint: SHA-256 hex over ids and messages of the whole file; row order, key order, BOM and CRLF don't matter.
        problems: Rows left out (`strict=False` only).
        notes: What is no obstacle but should be known: repeated rows, few rows, blank lines.
        system_prompt_mode: Which system prompt the rows have: none, the row's own, or what became of the given one (prepended,
            replaced), or how many rows of each.
        fields: Names that rows have beside messages, id and metadata: what may be cut or clustered by.
        requests: What rows add to the request (tools, response_format ...), and how many do.
    """

    __test__ = False  # pytest: not a test class

    path: Path
    examples: tuple[Example, ...]
    n_rows: int
    fingerprint: str
    again: Callable[[], Iterator[Example]] = field(repr=False, compare=False)
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    system_prompt_mode: str = "none"
    requests: Mapping[str, int] = field(default_factory=dict)
    fields: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Example]:
        """The examples; those that were not kept come from the file, one at a time."""
        return iter(self.examples) if self.examples else self.again()


def read_examples(
    path: str | Path,
    *,
    system_prompt: str = "",
    system_prompt_mode: SystemPromptMode = "auto",
    slice_fields: tuple[str, ...] | list[str] = (),
    cluster_field: str | None = None,
    limit: int | None = None,
    strict: bool = True,
    keep: bool = True,
) -> TestSet:
    """Reads a chat JSONL file; a row's last message, when the assistant's, is the expected answer, all before it the prompt.

    A row that ends otherwise is open-ended: nothing is expected of its answer.

    The whole file is checked and fingerprinted, also when `limit` keeps the first rows only.

    Args:
        path: One JSON object a line with `messages`, and if you like `id` and `metadata`.
        system_prompt: Given, it is sent with every row.
        system_prompt_mode: auto: replaces a row's own system message, else stands in front; prepend; replace.
        slice_fields: Names, in the row's `metadata` or in the row, by which results may be cut.
        cluster_field: Name of the field that rows from one source share.
        limit: Keep the first so many usable rows; None or 0 keeps all.
        strict: Stop when any row cannot be used; False leaves such rows out and lists them in `problems`.
        keep: False checks and counts without holding the rows, for files larger than the memory; the test set reads them again.

    Raises:
        DataError: Rows cannot be used: all of them are listed, with line, problem and remedy.
        DesignError: An unknown mode, a limit that is no whole number of 0 or more, a
            prompt that is no text, or a cluster field that is no name.
    """
    is_limit = limit is None or (isinstance(limit, Integral) and limit >= 0)
    modes = get_args(SystemPromptMode)
    for name, given, fits, need in (
        ("system_prompt", system_prompt, isinstance(system_prompt, str), "a text, '' for none"),
        (
            "system_prompt_mode",
            system_prompt_mode,
            system_prompt_mode in modes,
            "auto, prepend or replace",
        ),
        ("cluster_field", cluster_field, isinstance(cluster_field or "", str), "a field's name"),
        ("limit", limit, is_limit, "a whole number of 0 or more"),
    ):
        if not fits:
            raise DesignError(f"{name} {given!r}: need {need}")
    prompt, cluster = cleaned(system_prompt)[0], cluster_field or None
    how = (Path(path), prompt, system_prompt_mode, tuple(slice_fields), cluster)
    reader, kept = _Reader(*how), list[Example]()
    for n, example in enumerate(reader.examples()):
        if keep and (not limit or n < limit):
            kept.append(example)
    reader.check(strict=strict)
    if reader.repeated:
        warnings.warn(visible(f"{reader.path}: {reader.repeated}"), stacklevel=2)
    uses = [f"{use} in {plural(n, 'row')}" for use, n in sorted(reader.prompt_use.items())]
    return TestSet(
        path=reader.path,
        examples=tuple(kept),
        n_rows=len(reader.digests),
        fingerprint=hashlib.sha256(b"".join(sorted(reader.digests))).hexdigest(),
        again=lambda: itertools.islice(_Reader(*how).examples(), limit or None),
        problems=tuple(reader.problems),
        notes=tuple(reader.notes()),
        system_prompt_mode=listed(uses) if len(uses) > 1 else next(iter(reader.prompt_use), "none"),
        requests=dict(reader.requests),
        fields=tuple(name for name in reader.fields_seen if name not in {"id", "metadata"}),
    )


def looks_otherwise(path: str | Path) -> str:
    """What a file seems to be that is no chat JSONL; "" for chat JSONL, whatever is wrong with its lines.

    Raises:
        DataError: It cannot be read.
    """
    first = next(
        (raw for _, raw in _lines(Path(path)) if not isinstance(raw, bytes) or raw.strip()), b""
    )
    if not isinstance(first, bytes) or not first:
        return ""
    if not first.lstrip().startswith(b"{") or first.strip() == b"{":
        return "a JSON array, a table or a log, not one JSON object a line"
    with suppress(UnusableError):
        return shapes.guess(_parsed(first))
    return ""


@dataclass(slots=True)
class _Reader:
    """One pass over a file: yields examples, collects everything else."""

    path: Path
    system_prompt: str
    mode: SystemPromptMode
    slice_fields: tuple[str, ...]
    cluster_field: str | None
    problems: list[Problem] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)
    open_ended: list[int] = field(default_factory=list)
    lines_by_id: dict[str, int] = field(default_factory=dict)
    prompts: dict[bytes, int] = field(default_factory=dict)
    repeats: Counter[str] = field(default_factory=Counter)
    repeated_prompts: list[str] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    prompt_use: Counter[str] = field(default_factory=Counter)
    fields_seen: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)

    @property
    def labels(self) -> tuple[str, ...]:
        """Fields to cut and to cluster by."""
        return (*self.slice_fields, *([self.cluster_field] if self.cluster_field else []))

    def examples(self) -> Iterator[Example]:
        """Yields the usable rows."""
        for line, raw in _lines(self.path):
            try:
                if not isinstance(raw, bytes):
                    raise raw
                if raw.strip():
                    yield self._example(line, _parsed(raw))
                else:
                    self.blank.append(line)
            except UnusableError as why:
                self.problems.append(Problem(line=line, problem=why.problem, remedy=why.remedy))

    def _example(self, line: int, row: JsonObject) -> Example:
        _check_form(row)
        prompt, last = _messages(row)
        expected = thoughts_and_answer(cleaned(spoken(last))[0])[1] if last else ""
        if last and not expected.strip():
            raise _empty("the expected answer", last)
        also = tuple(dict.fromkeys(row.get("also_right") or list[str]()))
        if also and not last:
            remedy = "end the messages with the first right answer, as the assistant's"
            raise UnusableError("also_right stands beside no expected answer", remedy)
        for name in sorted(NOT_SENT & row.keys() - {*self.labels}):
            if row[name] not in NOTHING:
                raise UnusableError(
                    f"{name} stands beside the messages, from where it is not sent",
                    "say a system prompt in the messages (`evalkit convert` puts it there), a parameter for all rows in "
                    "study.yaml or request.yaml, a label in metadata",
                )
        asked = {name: row[name] for name in REQUEST if row.get(name) not in NOTHING}
        labels = self._labels_of(row)
        example_id = self._identity(line, row, asked)
        self.requests.update(asked.keys())
        more = {**asked, "also_right": [*also]} if also else asked
        whole = [*prompt, last] if last else prompt
        self.digests.append(_digest([example_id, _with(whole, more)]))
        first = self.prompts.setdefault(_digest(_with(prompt, asked))[:16], line)
        if first != line:
            self.repeated_prompts.append(f"{line} repeats {first}")
        if last is None:
            self.open_ended.append(line)
        return Example(
            example_id=example_id,
            messages=self._with_system_prompt(prompt),
            expected=expected,
            slices={name: labels[name] for name in self.slice_fields if name in labels},
            cluster=labels.get(self.cluster_field) if self.cluster_field else None,
            line=line,
            request=asked,
            also_right=also,
            expects=last is not None,
        )

    def _identity(self, line: int, row: JsonObject, asked: JsonObject) -> str:
        own = row.get("id")
        example_id = str(own)
        if own is None:
            digest = _digest(_with(row["messages"], asked)).hex()[:16]
            self.repeats[digest] += 1
            n = self.repeats[digest]
            example_id = digest if n == 1 else f"{digest}-{n}"
        if (first := self.lines_by_id.setdefault(example_id, line)) != line:
            problem = f"id {shapes.shown(own)} stands on line {first} too"
            raise UnusableError(problem, "give each row an id of its own")
        return example_id

    def _labels_of(self, row: JsonObject) -> dict[str, str]:
        metadata = row.get("metadata")
        known = {**row, **(metadata if isinstance(metadata, dict) else {})}
        self.fields_seen.update(name for name in known if name not in {"messages", "also_right"})
        labels = {
            name: value
            if isinstance(value, str)
            else json.dumps(value, sort_keys=True, ensure_ascii=False)
            for name in self.labels
            if (value := known.get(name)) is not None
        }
        if self.cluster_field and self.cluster_field not in labels:
            remedy = "add it to the row's metadata, or cluster by another field"
            raise UnusableError(f"no {self.cluster_field!r} to cluster by", remedy)
        return labels

    def _with_system_prompt(self, prompt: list[JsonObject]) -> tuple[JsonObject, ...]:
        own = [message for message in prompt if message["role"] in {"system", "developer"}]
        if not self.system_prompt:
            self.prompt_use["the row's own" if own else "none"] += 1
            return tuple(prompt)
        replaces = self.mode == "replace" or (self.mode == "auto" and bool(own))
        self.prompt_use["replaced" if replaces and own else "prepended"] += 1
        rest = [message for message in prompt if message not in own] if replaces else prompt
        return ({"role": "system", "content": self.system_prompt}, *rest)

    def check(self, *, strict: bool) -> None:
        """Refuses a file without usable rows, a field that no row has, and when `strict` any problem."""
        problems, path, n_good = self.problems, self.path, len(self.digests)
        if not n_good and problems and (seems := looks_otherwise(path)):
            what = f"no row is chat; this looks like {seems}"
            remedy = f"evalkit convert {path} --to test.jsonl"
            problems[:] = [Problem(line=1, problem=what, remedy=remedy)]
        if not n_good and not problems:
            remedy = "write one JSON object on each line"
            problems.append(Problem(line=1, problem="the file has no rows", remedy=remedy))
        unknown = [repr(one) for one in self.labels if one not in self.fields_seen]
        if unknown and self.fields_seen:
            there = listed(sorted(self.fields_seen))
            raise DataError(f"{path}: no row has {listed(unknown)}; the rows have {there}")
        if problems and strict:
            told = [f"{path}:{one}" for one in _told(problems)]
            more = [f"... and {count(len(told) - _LISTED)} more"] if len(told) > _LISTED else []
            heading = f"{path}: {plural(len(problems), 'problem')}, {plural(n_good, 'usable row')}; nothing was asked"
            remedy = "strict=False leaves these rows out and counts them."
            raise DataError("\n".join([heading, *told[:_LISTED], *more, remedy]))

    @property
    def repeated(self) -> str:
        """That rows without id stand there more than once; "" when none does."""
        copies = sum(times - 1 for times in self.repeats.values())
        said = "without id stand in the file more than once; their ids end in -2, -3 ..."
        return f"{plural(copies, 'row')} {said}" if copies else ""

    def notes(self) -> Iterator[str]:
        """What is no obstacle but should be known."""
        n, n_open = len(self.digests), len(self.open_ended)
        if self.problems:
            yield f"{plural(len(self.problems), 'row')} left out that cannot be used, the first is line {self.problems[0].line}"
        if self.repeated:
            yield self.repeated
        if n_open:
            named = f"{plural(n_open, 'row')} of {count(n)}, the first is line {self.open_ended[0]}"
            yield (
                f"nothing is expected of {named}: they count nowhere in exact match and similarity; people decide, or as "
                "primary_metric format (with a checker) or a scorer of your own"
            )
        if self.repeated_prompts:
            few = listed(self.repeated_prompts[:5])
            yield f"{plural(len(self.repeated_prompts), 'prompt')} asked before (line {few}): such rows are not independent"
        if self.blank:
            yield f"{plural(len(self.blank), 'blank line')} passed over, the first is line {self.blank[0]}"
        if 0 < n < FEW:
            yield f"only {plural(n, 'example')}: below {FEW} single rows have too much influence; 200 to 500 are better"


def _told(problems: list[Problem]) -> Iterator[str]:
    """Each problem with its line; of one that many rows have the first alone, and how many more."""
    alike = Counter((one.problem, one.remedy) for one in problems)
    seen = set[tuple[str, str]]()
    for one in problems:
        same, said = (one.problem, one.remedy), f"{one.line}: {one.problem}; {one.remedy}"
        if alike[same] <= _ALIKE:
            yield said
        elif same not in seen:
            seen.add(same)
            yield f"{said} ({plural(alike[same] - 1, 'more row')} alike)"


def _with(messages: list[JsonObject], asked: JsonObject) -> list[JsonObject] | list[object]:
    """Rows without tools keep the identity they had before any could have them."""
    return [messages, asked] if asked else messages


def _digest(value: object) -> bytes:
    return hashlib.sha256(canonical(value)).digest()


def _lines(path: Path) -> Iterator[tuple[int, bytes | UnusableError]]:
    """Numbered lines as bytes; only a newline ends a line, and one that is too long is never held."""
    try:
        with path.open("rb") as file:
            for number in itertools.count(1):
                if not (line := file.readline(MAX_LINE_BYTES)):
                    return
                if number == 1 and line[:2] in {b"\xff\xfe", b"\xfe\xff"}:
                    yield 1, UnusableError("the file is UTF-16", "save it as UTF-8")
                    return
                if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
                    yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                    continue
                n_bytes = len(line)
                while not line.endswith(b"\n") and (line := file.readline(2**20)):
                    n_bytes += len(line)
                n_mb, most = n_bytes / 2**20, MAX_LINE_BYTES // 2**20
                told = f"the line is {n_mb:.0f} MB long, more than {most} MB, which no model reads"
                remedy = "shorten or remove it; is there a line end after each row?"
                yield number, UnusableError(told, remedy)
    except OSError as why:
        raise DataError(f"{path}: cannot read this file ({why.strerror}); check the path") from why


def _parsed(raw: bytes) -> JsonObject:
    try:
        row = from_json(raw.rstrip().decode())
    except ValueError as why:
        # json counts this line as the first
        told = f"{why.msg}, column {why.colno}" if isinstance(why, json.JSONDecodeError) else why
        remedy = "write one JSON object on each line, as UTF-8, no name twice in it and no NaN"
        raise UnusableError(f"not JSON ({told})", remedy) from why
    if (b"\\ud" in raw or b"\\uD" in raw) and cleaned(json.dumps(row, ensure_ascii=False))[1]:
        problem = "holds half a character (a lone surrogate), which no file can keep"
        raise UnusableError(problem, "mend the export that cut it")
    return row


def _check_form(row: JsonObject) -> None:
    """Every field of its type; one that is null or empty is not said, but an id."""
    said = row
    if isinstance(row, dict):
        said = {k: one for k, one in row.items() if k == "id" or one not in NOTHING}
    try:
        msgspec.convert(said, _Row)
    except msgspec.ValidationError as why:
        told = str(why).replace("`", "").replace(r"str matching regex '\\S'", "a text, not blank")
        told, _, place = told.partition(" - at $.")
        raise UnusableError(f"{place or 'the row'}: {told}", _FORM) from why


def _messages(row: JsonObject) -> tuple[list[JsonObject], JsonObject | None]:
    """The row's prompt, checked, and its last message when that is the expected answer; None when nothing is expected."""
    messages = row["messages"]
    for number, one in enumerate(messages, start=1):
        content = one.get("content")
        is_call = one.get("tool_calls") or one.get("function_call")
        if not (flattened(content).strip() or isinstance(content, list) or is_call):
            raise _empty(f"message {number} (role {one['role']!r})", one)
    said = [  # exports write every name a message may have, most of them null
        {k: v for k, v in one.items() if k == "content" or (k != "weight" and v is not None)}
        for one in messages
    ]
    last = said[-1]
    if last["role"] in {"system", "developer"}:
        raise UnusableError(
            f"last message has role {last['role']!r}, so nothing is asked",
            "end the row with the expected answer, or with a question of which nothing is expected",
        )
    if last["role"] != "assistant":
        return said, None
    if len(said) == 1:
        raise UnusableError("nothing stands before the expected answer", "add the user's message")
    return said[:-1], last


def _empty(what: str, message: JsonObject) -> UnusableError:
    """A message without text or tool call: what it has under another name is no reason to remove the row."""
    content = message.get("content")
    parts = [message, *(content if isinstance(content, list) else [])]
    names = dict.fromkeys(
        k for one in parts if isinstance(one, dict) for k in one if one[k] not in NOTHING
    )
    other = [name for name in names if name not in _NO_TEXT][:5]
    return UnusableError(
        f"{what} has no text, thoughts left out{f'; it has {listed(other)}' if other else ''}",
        'write text as content, or as parts {"type": "text", "text": ...}, a call of a tool as tool_calls; a row of which '
        "nothing is expected ends with the question",
    )
