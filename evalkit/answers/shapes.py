"""Rows of test and training data as other tools write them, made into chat rows; what could mean two things is asked."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from evalkit.files import JsonObject
from evalkit.wording import listed

REQUEST = (  # what a row itself may add to the request
    *("tools", "tool_choice", "parallel_tool_calls", "response_format"),
    *("functions", "function_call"),
)
SYSTEM = ("system", "systemInstruction", "system_instruction")  # beside the messages, not in them
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
NOTHING = (None, "", [], {})
COLUMNS = ("input", "expected", "id")
_ROLES = {  # other tools' names for some of them
    "human": "user",
    **dict.fromkeys(("gpt", "model", "bot", "ai", "chatgpt"), "assistant"),
    **dict.fromkeys(("observation", "function_response"), "tool"),
}
_CALL = {"function_call", "tool_call"}
_TALK = ("messages", "conversations", "conversation", "contents")
_INPUT = ("input", "prompt", "question", "instruction", "query", "turns")
_UNDER = ("context",)  # what a question is about (Dolly, SQuAD), asked with it
_EXPECTED = (
    *("output", "completion", "ideal", "expected", "target", "reference", "answer"),
    *("response", "label", "gold", "ground_truth", "chosen", "preferred_output"),
)
_ID = ("id", "question_id", "example_id", "sample_id")
_BESIDE = {"system", "history", "metadata", "rejected", "non_preferred_output", "category"}
_KNOWN = {*_TALK, *_INPUT, *_EXPECTED, *_ID}
Row = Mapping[str, object]


class UnusableError(Exception):
    """Why one row cannot be used."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


class UnclearError(Exception):
    """What could mean two things, with the choices and the option that answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Which fields of a row hold what.

    Attributes:
        talk: The field that holds a conversation; "" where none does.
        question: The fields whose texts, one under the other, are the question.
        expected: The field with the right answer or answers; "" where nothing is expected.
        row_id: The field that names the row; "" where none does.
    """

    talk: str = ""
    question: tuple[str, ...] = ()
    expected: str = ""
    row_id: str = ""

    def __str__(self) -> str:
        asked = f"{listed([*self.question])} {'ask' if len(self.question) > 1 else 'asks'}"
        told = f"{self.talk} is the conversation" if self.talk else asked
        return f"{told}, {self.expected} is the expected answer" if self.expected else told


def spelled(name: str) -> str:
    """A field's name as it is known here, whatever its case and the spaces around it."""
    plain = name.strip()
    return plain.lower() if plain.lower() in _KNOWN else plain


def guess(row: Row) -> str:
    """What a row's fields seem to be, for a hint; "" for chat and for what is not known."""
    with suppress(UnclearError, UnusableError):
        return "" if is_chat(row) else f"rows in which {shape_of(row, row.keys(), {})}"
    return ""


def is_chat(row: Row) -> bool:
    """Whether a row is a chat row already: by its messages' roles, and nothing said to the model stands beside them."""
    said = row.get("messages")
    has_roles = isinstance(said, list) and all(
        isinstance(one, Mapping) and one.get("role") in ROLES for one in said
    )
    return has_roles and not any(_system(row))


def shape_of(row: Row, names: Collection[str], columns: Mapping[str, str]) -> Shape:
    """The form of a file's rows.

    Args:
        row: One of them.
        names: The fields of all of them.
        columns: What was said in so many words: field by `input`, `expected`, `id`; "" for none.

    Raises:
        UnclearError: Two fields could be the question or the right answer, or none is known to be.
    """
    for what, name in columns.items():
        if what not in COLUMNS or (name and name not in names):
            told = f"--columns {what}={name}: no such field"
            raise UnclearError(f"{told}; {listed([*COLUMNS])} may be any of {listed([*names])}")
    row_id = columns.get("id", next((name for name in _ID if name in names), ""))
    talks, given = [name for name in _TALK if name in names], row.get("input")
    if isinstance(given, Mapping) and "messages" in given:
        talks.append("input")
    if len(talks) > 1 and "input" not in columns:
        raise _unclear("the conversation", "input", talks)
    is_talk = bool(talks) and columns.get("input") in {None, *talks}
    talk = (columns.get("input") or talks[0]) if is_talk else ""
    question = [] if is_talk else _question(names, columns)
    taken = {*question, row_id} if question else set[str]()
    expected = columns.get("expected")
    if expected is None:
        is_answered = is_talk and _is_answered(row, talk)
        found = [] if is_answered else [name for name in _EXPECTED if name in {*names} - taken]
        if len(found) > 1:
            raise _unclear("the right answer", "expected", found)
        expected = next(iter(found), "")
    if is_talk:
        return Shape(talk=talk, expected=expected, row_id=row_id)
    others = [name for name in names if name not in {*taken, *_BESIDE, *REQUEST}]
    if not expected and others and "expected" not in columns and "turns" not in question:
        raise _unclear("the right answer", "expected", others)
    return Shape(question=tuple(question), expected=expected, row_id=row_id)


def _unclear(what: str, option: str, could: Iterable[str]) -> UnclearError:
    nothing = " (none where nothing is expected: --columns expected=)" * (option == "expected")
    named = listed([repr(one) for one in could])
    return UnclearError(f"{what} could be {named}{nothing}: say --columns {option}=NAME")


def _question(names: Collection[str], columns: Mapping[str, str]) -> list[str]:
    if named := columns.get("input"):
        return [named]
    found = [name for name in _INPUT if name in names and name not in {*columns.values()}]
    if {*found} == {"instruction", "input"}:
        return ["instruction", "input"]
    if len(found) != 1:
        raise _unclear("the question", "input", found or names)
    return [*found, *(name for name in _UNDER if name in names)]


def _is_answered(row: Row, talk: str) -> bool:
    """Whether the conversation itself ends in an answer, so that other fields are labels."""
    given = _loaded(row.get(talk))
    last = given[-1] if isinstance(given, list) and given else {}
    said = str(last.get("role", last.get("from", ""))) if isinstance(last, Mapping) else ""
    return _ROLES.get(said, said) == "assistant" or said in _CALL


def chat_row(row: Row, shape: Shape, *, columns: Mapping[str, str]) -> JsonObject:
    """A row in chat form: messages, further right answers, tools, and all else as metadata.

    Raises:
        UnusableError: It cannot be said as chat without a guess.
    """
    given = row.get(shape.talk) if shape.talk else None
    nested = given if isinstance(given, Mapping) else {}
    said, also = [*_system(row)], list[str]()
    if shape.talk:
        said += _talk(nested.get("messages", given))
    else:
        said += [*_history(row), *_asked(row, shape.question, columns)]
    if shape.expected and (not said or said[-1]["role"] != "assistant"):
        last, also = _right(row.get(shape.expected))
        said += last
    asked = {name: _loaded(value) for name, value in {**nested, **row}.items() if name in REQUEST}
    if isinstance(tools := asked.get("tools"), list):
        asked["tools"] = [*map(_tool, tools)]
    used = {shape.talk, *shape.question, shape.expected, shape.row_id, "metadata", "history"}
    own = row.get("metadata")
    metadata = {**own} if isinstance(own, Mapping) else {}
    metadata |= {k: one for k, one in row.items() if k not in {*used, *REQUEST, *SYSTEM}}
    made = {
        "id": row.get(shape.row_id),
        "messages": said,
        "also_right": also,
        **asked,
        "metadata": {name: one for name, one in metadata.items() if one not in (None, "")},
    }
    return {name: value for name, value in made.items() if value not in NOTHING}


def _system(row: Row) -> Iterator[JsonObject]:
    for name in SYSTEM:
        given = row.get(name)
        given = given.get("parts") if isinstance(given, Mapping) else given
        parts = given if isinstance(given, list) else [given]
        texts = (str(one.get("text") or "") for one in parts if isinstance(one, Mapping))
        text = given if isinstance(given, str) else "".join(texts)
        if text.strip():
            yield {"role": "system", "content": text}


def _history(row: Row) -> Iterator[JsonObject]:
    history = row.get("history") or []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise UnusableError(f"history has {shown(pair)}", "write pairs of question and answer")
        yield {"role": "user", "content": pair[0]}
        yield {"role": "assistant", "content": pair[1]}


def _asked(row: Row, names: Sequence[str], columns: Mapping[str, str]) -> Iterator[JsonObject]:
    values = [_loaded(row.get(name)) for name in names]
    first = values[0]
    if names == ("turns",) and isinstance(first, list):
        if len(first) > 1 and columns.get("input") != "turns":
            raise UnclearError(
                f"turns holds {len(first)} questions, of which the later ones need the model's own answers: say "
                "--columns input=turns to ask the first alone"
            )
        values = first[:1]
    if len(values) == 1 and isinstance(values[0], list):
        yield from _talk(values[0])
        return
    texts = [_text(value) for value in values if value not in (None, "")]
    if not "".join(texts).strip():
        told = f"{listed([*names])} is empty, so nothing is asked"
        raise UnusableError(told, "write the question")
    yield {"role": "user", "content": "\n\n".join(filter(str.strip, texts))}


def _talk(given: object) -> Iterator[JsonObject]:
    said = _loaded(given)
    if not isinstance(said, list) or not said:
        raise UnusableError(f"the conversation is {shown(given)}", "write a list of messages")
    n_calls = 0
    for number, one in enumerate(said, start=1):
        if not isinstance(one, Mapping):
            raise UnusableError(f"message {number} is {shown(one)}", "write it as an object")
        for message in _message(number, one, n_calls):
            n_calls += len(message.get("tool_calls") or ())
            yield message


def _message(number: int, one: Row, n_calls: int) -> Iterator[JsonObject]:
    said = str(one.get("role", one.get("from", "user" if "parts" in one else "")))
    role = _ROLES.get(said.lower(), said.lower())
    content = one.get("content", one.get("value"))
    if "parts" in one:
        yield from _parts(number, role, one["parts"], n_calls)
    elif role in _CALL:
        call = _loaded(content)
        yield _called([*call] if isinstance(call, list) else [call], n_calls)
    elif role not in ROLES:
        told = f"message {number} has role {shown(said)}"
        raise UnusableError(told, f"use one of {listed([*ROLES])}")
    elif role == "tool" and "tool_call_id" not in one:
        yield _given(n_calls, content)
    else:
        rest = {k: v for k, v in one.items() if k not in {"role", "from", "content", "value"}}
        yield {"role": role, "content": content, **rest}


def _parts(number: int, role: str, given: object, n_calls: int) -> Iterator[JsonObject]:
    """Gemini's parts: texts, calls of functions and what these gave."""
    kinds = {"text", "functionCall", "functionResponse"}
    parts = list[Mapping[str, object]]()
    for one in given if isinstance(given, list) else [given]:
        if not isinstance(one, Mapping) or not kinds & one.keys():
            told = (
                f"message {number} has a part {shown(one)}, which has no place in a chat row here"
            )
            raise UnusableError(told, "write it as OpenAI's parts do")
        parts.append(one)
    calls = [one["functionCall"] for one in parts if "functionCall" in one]
    gave = [one["functionResponse"] for one in parts if "functionResponse" in one]
    text = "".join(str(one["text"]) for one in parts if "text" in one)
    if calls:
        yield {**_called(calls, n_calls), "content": text or None}
    elif text:
        yield {"role": role, "content": text}
    for place, one in enumerate(gave, start=n_calls - len(gave) + 1):
        yield _given(place, one.get("response") if isinstance(one, Mapping) else one)


def _given(place: int, content: object) -> JsonObject:
    """What a tool gave to the call of that place."""
    return {"role": "tool", "tool_call_id": f"call_{place}", "content": _text(content)}


def _called(calls: list[object], n_calls: int) -> JsonObject:
    made = list[JsonObject]()
    for place, call in enumerate(calls, start=n_calls + 1):
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            told = f"a call of a tool is {shown(call)}"
            raise UnusableError(told, "write its name and arguments")
        arguments = call.get("arguments", call.get("args", {}))
        function = {"name": call["name"], "arguments": _text(arguments)}
        made.append({"id": f"call_{place}", "type": "function", "function": function})
    return {"role": "assistant", "content": None, "tool_calls": made}


def _right(given: object) -> tuple[list[JsonObject], list[str]]:
    """The expected answer as a message, and further right ones; neither where the field is empty."""
    value = _loaded(given)
    if value in (None, "", []):
        return [], []
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        return [*_talk(value)][-1:], []
    texts = map(_text, value if isinstance(value, list) else [given])
    first, *also = dict.fromkeys(texts)
    return [{"role": "assistant", "content": first}], also


def _tool(one: object) -> object:
    """A bare function, as LLaMA-Factory writes it, as a tool."""
    is_bare = isinstance(one, Mapping) and "name" in one and "type" not in one
    return {"type": "function", "function": one} if is_bare else one


def _loaded(value: object) -> object:
    """A list or an object that a table or an export keeps as JSON text; any other text stays what it is."""
    if isinstance(value, str) and value[:2] in {"[{", '["', '{"'}:
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shown(value: object) -> str:
    """The beginning of a value, for a message."""
    return json.dumps(value, default=str)[:60]
