"""Rows of test and training data as other tools write them, made into chat rows; what could mean two things is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.wording import listed

REQUEST = {  # what a row itself may add to the request, and the type it must have
    "tools": list,
    "tool_choice": str | dict,
    "parallel_tool_calls": bool,
    "response_format": dict,
    "functions": list,
    "function_call": str | dict,
}
SYSTEM = ("system", "systemInstruction", "system_instruction")  # beside the messages, not in them
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "chatgpt": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
_CALL = {"function_call", "tool_call"}
_TALK = ("messages", "conversations", "conversation", "contents")
_INPUT = ("input", "prompt", "question", "instruction", "query", "turns")
_UNDER = ("context",)  # what a question is about (Dolly, SQuAD), asked with it
_EXPECTED = (
    "output",
    "completion",
    "ideal",
    "expected",
    "target",
    "reference",
    "answer",
    "response",
    "label",
    "gold",
    "ground_truth",
    "chosen",
    "preferred_output",
)
_ID = ("id", "question_id", "example_id", "sample_id")
_BESIDE = {"system", "history", "metadata", "rejected", "non_preferred_output", "category"}
COLUMNS = ("input", "expected", "id")
_KNOWN = {*_TALK, *_INPUT, *_EXPECTED, *_ID}


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
        name: As people know it: "Alpaca", "ShareGPT".
        talk: The field that holds a conversation; "" where none does.
        question: The fields whose texts, one under the other, are the question.
        expected: The field with the right answer or answers; "" where nothing is expected.
        row_id: The field that names the row; "" where none does.
    """

    name: str
    talk: str = ""
    question: tuple[str, ...] = ()
    expected: str = ""
    row_id: str = ""

    def __str__(self) -> str:
        asked = self.talk or listed([*self.question])
        asks = "ask" if len(self.question) > 1 else "asks"
        told = f"{asked} {asks}" if not self.talk else f"{asked} is the conversation"
        right = f", {self.expected} is the expected answer" if self.expected else ""
        return f"{self.name}: {told}{right}"


def spelled(name: str) -> str:
    """A field's name as it is known here, whatever its case and the spaces around it."""
    plain = name.strip()
    return plain.lower() if plain.lower() in _KNOWN else plain


def guess(row: Mapping[str, Any]) -> str:
    """The name of the form a row has, for a hint; "" for chat and for what is not known."""
    try:
        found = shape_of(row, row.keys(), {})
    except (UnclearError, UnusableError):
        found = None
    return found.name if found and not is_chat(row) else ""


def is_chat(row: Mapping[str, Any]) -> bool:
    """Whether a row is a chat row already: by its messages' roles, and nothing said to the model stands beside them."""
    return _has_roles(row.get("messages")) and not any(_system(row))


def _has_roles(said: Any) -> bool:
    return isinstance(said, list) and all(
        isinstance(one, Mapping) and one.get("role") in ROLES for one in said
    )


def shape_of(row: Mapping[str, Any], names: Any, columns: Mapping[str, str]) -> Shape:
    """The form of a file's rows.

    Args:
        row: One of them.
        names: The fields of all of them.
        columns: What was said in so many words: field by `input`, `expected`, `id`; "" for none.

    Raises:
        UnclearError: Two fields could be the question or the right answer, or none is known to be.
    """
    _check_columns(columns, names)
    row_id = columns.get("id", next((name for name in _ID if name in names), ""))
    talks = [name for name in _TALK if name in names]
    if nested := isinstance(row.get("input"), Mapping) and "messages" in row["input"]:
        talks.append("input")
    if len(talks) > 1 and "input" not in columns:
        raise UnclearError(_which("the conversation", "input", talks))
    if talks and columns.get("input") in {None, *talks}:
        talk = columns.get("input") or talks[0]
        beside = [name for name in _EXPECTED if name in names and not _is_answered(row, talk)]
        expected = _expected(columns, beside)
        name = "preference data" if nested else _talk_name(talk, row)
        return Shape(name=name, talk=talk, expected=expected, row_id=row_id)
    question = _question(names, columns)
    taken = {*question, row_id}
    beside = [name for name in _EXPECTED if name in names and name not in taken]
    expected = _expected(columns, beside)
    others = [name for name in names if name not in {*taken, *_BESIDE, *REQUEST}]
    if not expected and others and "expected" not in columns and "turns" not in question:
        raise UnclearError(
            f"no field is known to hold the right answer; there are {listed(others)}: say --columns expected=NAME, or "
            "--columns expected= where nothing is expected"
        )
    return Shape(
        name=_plain_name(question, expected), question=question, expected=expected, row_id=row_id
    )


def chat_row(
    row: Mapping[str, object], shape: Shape, *, columns: Mapping[str, str]
) -> dict[str, Any]:
    """A row in chat form: messages, further right answers, tools, and all else as metadata.

    Raises:
        UnusableError: It cannot be said as chat without a guess.
    """
    given = row.get(shape.talk) if shape.talk else None
    nested = given if isinstance(given, Mapping) else {}
    said = [*_system(row)]
    if shape.talk:
        said += _talk(nested.get("messages", given))
    else:
        said += [*_history(row), *_asked(row, shape.question, columns)]
    also: list[str] = []
    if shape.expected and (not said or said[-1]["role"] != "assistant"):
        last, also = _right(row.get(shape.expected))
        said += last
    used = {shape.talk, *shape.question, shape.expected, shape.row_id, *REQUEST, "metadata"}
    used |= {*SYSTEM, "history"}
    own = row.get("metadata")
    rest = {
        **(own if isinstance(own, Mapping) else {}),
        **{k: row[k] for k in row if k not in used},
    }
    metadata = {name: value for name, value in rest.items() if value not in (None, "")}
    asked = {name: _loaded(value) for name, value in {**nested, **row}.items() if name in REQUEST}
    if isinstance(asked.get("tools"), list):
        asked["tools"] = [_tool(one) for one in asked["tools"]]
    return {
        **({"id": row[shape.row_id]} if row.get(shape.row_id) not in (None, "") else {}),
        "messages": said,
        **({"also_right": also} if also else {}),
        **{name: value for name, value in asked.items() if value not in (None, "", [], {})},
        **({"metadata": metadata} if metadata else {}),
    }


def _check_columns(columns: Mapping[str, str], names: Any) -> None:
    for what, name in columns.items():
        if what not in COLUMNS:
            raise UnclearError(f"--columns {what}={name}: {what!r} is none of {listed([*COLUMNS])}")
        if name and name not in names:
            raise UnclearError(
                f"--columns {what}={name}: no such field; there are {listed([*names])}"
            )


def _expected(columns: Mapping[str, str], found: Sequence[str]) -> str:
    named = columns.get("expected")
    return _only("the right answer", "expected", found) if named is None else named


def _only(what: str, option: str, found: Sequence[str]) -> str:
    if len(found) > 1:
        raise UnclearError(_which(what, option, found))
    return next(iter(found), "")


def _which(what: str, option: str, found: Sequence[str]) -> str:
    return f"{what} could be {listed([repr(one) for one in found])}: say --columns {option}=NAME"


def _question(names: Any, columns: Mapping[str, str]) -> tuple[str, ...]:
    if named := columns.get("input"):
        return (named,)
    found = [name for name in _INPUT if name in names and name not in {*columns.values()}]
    if {*found} == {"instruction", "input"}:
        return ("instruction", "input")
    if not found:
        raise UnclearError(
            f"no field is known to hold the question; there are {listed([*names])}: say --columns input=NAME,expected=NAME"
        )
    asked = _only("the question", "input", found)
    return (asked, *(name for name in _UNDER if name in names))


def _is_answered(row: Mapping[str, object], talk: str) -> bool:
    """Whether the conversation itself ends in an answer, so that other fields are labels."""
    given = _loaded(row.get(talk))
    last = given[-1] if isinstance(given, list) and given else {}
    said = str(last.get("role", last.get("from", ""))) if isinstance(last, Mapping) else ""
    return _ROLES.get(said, said) == "assistant" or said in _CALL


def _talk_name(talk: str, row: Mapping[str, object]) -> str:
    if talk == "contents":
        return "Gemini"
    if talk != "messages":
        return "ShareGPT"
    if not _has_roles(_loaded(row[talk])):
        return "chat with other roles"
    return "chat with its system prompt beside" if any(_system(row)) else "chat"


def _plain_name(question: tuple[str, ...], expected: str) -> str:
    known = {
        ("instruction", "output"): "Alpaca",
        ("input", "ideal"): "OpenAI Evals",
        ("prompt", "chosen"): "preference data",
    }
    if question[0] == "turns":
        return "MT-bench"
    return known.get((question[0], expected), " and ".join(filter(None, (question[0], expected))))


def _system(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name in SYSTEM:
        given = row.get(name)
        given = given.get("parts") if isinstance(given, Mapping) else given
        text = given if isinstance(given, str) else _parts_text(given)
        if text.strip():
            yield {"role": "system", "content": text}


def _history(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for pair in row.get("history") or ():
        if not isinstance(pair, list) or len(pair) != 2:
            raise UnusableError(f"history has {shown(pair)}", "write pairs of question and answer")
        yield {"role": "user", "content": pair[0]}
        yield {"role": "assistant", "content": pair[1]}


def _asked(
    row: Mapping[str, object], names: Sequence[str], columns: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    values = [_loaded(row.get(name)) for name in names]
    if names == ("turns",) and isinstance(values[0], list):
        if len(values[0]) > 1 and columns.get("input") != "turns":
            raise UnclearError(
                f"turns holds {len(values[0])} questions, of which the later ones need the model's own answers: say "
                "--columns input=turns to ask the first alone"
            )
        values = values[0][:1]
    if len(values) == 1 and isinstance(values[0], list):
        yield from _talk(values[0])
        return
    texts = [_text(value) for value in values if value not in (None, "")]
    if not "".join(texts).strip():
        raise UnusableError(
            f"{listed([*names])} is empty, so nothing is asked", "write the question"
        )
    yield {"role": "user", "content": "\n\n".join(filter(str.strip, texts))}


def _talk(given: object) -> Iterator[dict[str, Any]]:
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


def _message(number: int, one: Mapping[str, object], n_calls: int) -> Iterator[dict[str, Any]]:
    said = str(one.get("role", one.get("from", "user" if "parts" in one else "")))
    role = _ROLES.get(said.lower(), said.lower())
    content = one.get("content", one.get("value"))
    if "parts" in one:
        yield from _parts(number, role, one["parts"], n_calls)
    elif role in _CALL:
        call = _loaded(content)
        yield _called([*call] if isinstance(call, list) else [call], n_calls)
    elif role not in ROLES:
        raise UnusableError(
            f"message {number} has role {shown(said)}", f"use one of {listed([*ROLES])}"
        )
    elif role == "tool" and "tool_call_id" not in one:
        yield {"role": "tool", "tool_call_id": f"call_{n_calls}", "content": _text(content)}
    else:
        rest = {k: v for k, v in one.items() if k not in {"role", "from", "content", "value"}}
        yield {"role": role, "content": content, **rest}


def _parts(number: int, role: str, parts: Any, n_calls: int) -> Iterator[dict[str, Any]]:
    """Gemini's parts: texts, calls of functions and what these gave."""
    listing = parts if isinstance(parts, list) else [parts]
    other = [
        one
        for one in listing
        if not isinstance(one, Mapping)
        or not {"text", "functionCall", "functionResponse"} & one.keys()
    ]
    if other:
        raise UnusableError(
            f"message {number} has a part {shown(other[0])}, which has no place in a chat row here",
            "write it as OpenAI's parts do",
        )
    calls = [one["functionCall"] for one in listing if "functionCall" in one]
    given = [one["functionResponse"] for one in listing if "functionResponse" in one]
    text = "".join(str(one["text"]) for one in listing if "text" in one)
    if calls:
        yield {**_called(calls, n_calls), "content": text or None}
    elif text:
        yield {"role": role, "content": text}
    for place, one in enumerate(given, start=n_calls - len(given) + 1):
        yield {
            "role": "tool",
            "tool_call_id": f"call_{place}",
            "content": _text(one.get("response")),
        }


def _called(calls: list[Any], n_calls: int) -> dict[str, Any]:
    made = []
    for place, call in enumerate(calls, start=n_calls + 1):
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            raise UnusableError(
                f"a call of a tool is {shown(call)}", "write its name and arguments"
            )
        arguments = call.get("arguments", call.get("args", {}))
        function = {"name": call["name"], "arguments": _text(arguments)}
        made.append({"id": f"call_{place}", "type": "function", "function": function})
    return {"role": "assistant", "content": None, "tool_calls": made}


def _right(given: object) -> tuple[list[dict[str, Any]], list[str]]:
    """The expected answer as a message, and further right ones; neither where the field is empty."""
    value = _loaded(given)
    if value in (None, "", []):
        return [], []
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        return [*_talk(value)][-1:], []
    first, *also = dict.fromkeys(
        _text(one) for one in (value if isinstance(value, list) else [given])
    )
    return [{"role": "assistant", "content": first}], also


def _tool(one: object) -> Any:
    """A bare function, as LLaMA-Factory writes it, as a tool."""
    is_bare = isinstance(one, Mapping) and "name" in one and "type" not in one
    return {"type": "function", "function": one} if is_bare else one


def _loaded(value: object) -> Any:
    """A list or an object that a table or an export keeps as JSON text; any other text stays what it is."""
    if not isinstance(value, str) or value[:2] not in {"[{", '["', '{"'}:
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _parts_text(parts: Any) -> str:
    listing = parts if isinstance(parts, list) else [parts]
    return "".join(str(one.get("text") or "") for one in listing if isinstance(one, Mapping))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shown(value: object) -> str:
    return json.dumps(value, default=str)[:60]
