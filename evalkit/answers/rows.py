"""One line of a test set: read safely, and checked until what is wrong with it can be said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from evalkit.conversation import spoken
from evalkit.errors import DataError
from evalkit.wording import cleaned, flattened, listed

REQUEST = {  # what a row itself may add to the request, and the type it must have
    "tools": list,
    "tool_choice": str | dict,
    "parallel_tool_calls": bool,
    "response_format": dict,
    "functions": list,
    "function_call": str | dict,
}
NOT_SENT = {  # what is asked of all rows alike; a row that says otherwise would be asked something else than it says
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "logit_bias",
    "frequency_penalty",
    "presence_penalty",
    "reasoning_effort",
    "modalities",
    "web_search_options",
}
SYSTEM = ("system", "systemInstruction", "system_instruction")  # beside the messages, not in them
_NO_TEXT = {"role", "content", "name", "weight", "id", "type"}
_NOTHING = (None, "", [], {})
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_LINE_BYTES = (
    16 * 2**20
)  # some 4 million tokens: no model reads that, and a file without line ends would fill the memory


class UnusableError(Exception):
    """Why one row cannot be used."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


def lines(path: Path) -> Iterator[tuple[int, bytes | UnusableError]]:
    """Numbered lines as bytes; only a newline ends a line, and one that is too long is never held."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                if number == 1 and line[:2] in {b"\xff\xfe", b"\xfe\xff"}:
                    yield 1, UnusableError("the file is UTF-16", "save it as UTF-8")
                    return
                if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    yield number, _too_long(len(line) + _skipped(file))
                else:
                    yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except OSError as why:
        raise DataError(f"{path}: cannot read this file ({why.strerror}); check the path") from why


def _skipped(file: Any) -> int:
    n = 0
    while chunk := file.readline(2**20):
        n += len(chunk)
        if chunk.endswith(b"\n"):
            break
    return n


def _too_long(n_bytes: int) -> UnusableError:
    return UnusableError(
        f"the line is {n_bytes / 2**20:.0f} MB long, more than {MAX_LINE_BYTES // 2**20} MB, which no model reads",
        "shorten or remove it; is there a line end after each row?",
    )


def parsed(raw: bytes) -> dict[str, Any]:
    try:
        row = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except UnicodeDecodeError as why:
        raise UnusableError(
            f"not UTF-8 (byte {why.start + 1} is 0x{raw[why.start]:02x})", "save the file as UTF-8"
        ) from why
    except json.JSONDecodeError as why:
        raise UnusableError(
            f"not JSON: {why.msg}, column {why.colno}", "write one JSON object on each line"
        ) from why
    except RecursionError as why:
        raise UnusableError(
            "nested too deeply", "write one JSON object with a list of messages"
        ) from why
    except ValueError as why:
        raise UnusableError("a number too long to read", "write it as text") from why
    if not isinstance(row, dict):
        raise UnusableError(
            f"{_kind(row)}, not a JSON object", 'write {"messages": [...]} on each line'
        )
    if (b"\\ud" in raw or b"\\uD" in raw) and cleaned(json.dumps(row, ensure_ascii=False))[1]:
        raise UnusableError(
            "holds half a character (a lone surrogate), which no file can keep",
            "mend the export that cut it",
        )
    return row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        raise UnusableError(
            f"the name {shown(twice)} stands twice in one object", "keep one of them"
        )
    return found


def _no_constant(name: str) -> Any:
    raise UnusableError(f"{name} is not JSON", "write null, or leave it out")


def messages(row: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The row's prompt, checked, and its last message when that is the expected answer; None when nothing is expected."""
    messages = row.get("messages")
    if messages is None:
        raise UnusableError(
            f"no 'messages'; the row has {listed(list(row)[:5]) or 'nothing'}",
            "write the chat as a list named messages",
        )
    if not isinstance(messages, list) or not messages:
        raise UnusableError(
            "messages is empty" if messages == [] else f"messages is {_kind(messages)}",
            "write a list of messages",
        )
    for number, message in enumerate(messages, start=1):
        _check_message(number, message)
    said = [
        {name: one for name, one in message.items() if name != "weight" and _is_said(name, one)}
        for message in messages
    ]
    if messages[-1]["role"] in {"system", "developer"}:
        raise UnusableError(
            f"last message has role {messages[-1]['role']!r}, so nothing is asked",
            "end the row with the expected answer, or with a question of which nothing is expected",
        )
    if messages[-1]["role"] != "assistant":
        return said, None
    if len(messages) == 1:
        raise UnusableError("nothing stands before the expected answer", "add the user's message")
    if not spoken(messages[-1]).strip():
        raise _empty("the expected answer", messages[-1])
    return said[:-1], said[-1]


def also_right(row: dict[str, Any], *, expects: bool) -> tuple[str, ...]:
    """Further right answers, which a row lists beside the expected one."""
    given = row.get("also_right")
    if given in (None, []):
        return ()
    if not isinstance(given, list) or not all(isinstance(x, str) and x.strip() for x in given):
        raise UnusableError(
            f"also_right is {shown(given)}", "write a list of texts, none of them empty"
        )
    if not expects:
        raise UnusableError(
            "also_right stands beside no expected answer",
            "end the messages with the first right answer, as the assistant's",
        )
    return tuple(dict.fromkeys(given))


def request(row: dict[str, Any], labels: Collection[str] = ()) -> dict[str, Any]:
    """What the row adds to the request: tools and the like; null and empty ones are not said.

    Args:
        row: The row.
        labels: Its fields by which results are cut, which are no part of a request whatever their names.
    """
    for name in sorted(NOT_SENT & row.keys() - set(labels)):
        raise UnusableError(
            f"the row has its own {name}, which cannot be sent for one row alone",
            "move it into metadata if it is a label; say it for all rows in study.yaml or request.yaml",
        )
    for name in SYSTEM:
        if name not in labels and row.get(name) not in _NOTHING:
            raise UnusableError(
                f"{name} stands beside the messages, where nothing is sent",
                "`evalkit convert` puts it in front of them; move it into metadata if it is a label",
            )
    said = {name: row[name] for name in REQUEST if row.get(name) not in (None, [], {}, "")}
    for name, value in said.items():
        if not isinstance(value, REQUEST[name]):
            need = {list: "a list of objects", bool: "true or false"}.get(
                REQUEST[name], "an object"
            )
            raise UnusableError(f"{name} is {_kind(value)}, which cannot be sent", f"write {need}")
    for name in {"tools", "functions"} & said.keys():
        if wrong := [one for one in said[name] if not isinstance(one, dict)]:
            raise UnusableError(
                f"{name} has {_kind(wrong[0])} in it, which cannot be sent",
                "write each as an object",
            )
    return said


def _is_said(name: str, value: object) -> bool:
    """Exports write every name a message may have, most of them null; a tool call's content may be null indeed."""
    return value is not None or name == "content"


def _check_message(number: int, message: object) -> None:
    if not isinstance(message, dict):
        raise UnusableError(
            f"message {number} is {_kind(message)}", "write it as an object with role and content"
        )
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise UnusableError(
            f"message {number} has role {shown(role)}", f"use one of {listed(list(ROLES))}"
        )
    if content is not None and not isinstance(content, str | list):
        raise UnusableError(
            f"message {number} has content that is {_kind(content)}", "write it as text"
        )
    if (
        not flattened(content).strip()
        and not isinstance(content, list)
        and not (message.get("tool_calls") or message.get("function_call"))
    ):
        raise _empty(f"message {number} (role {role!r})", message)


def _empty(what: str, message: dict[str, Any]) -> UnusableError:
    """A message without text or tool call: what it has under another name is no reason to remove the row."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    names = [name for name in message if name not in _NO_TEXT and message[name] not in _NOTHING]
    names += [str(name) for part in parts if isinstance(part, dict) for name in part]
    names = [*dict.fromkeys(name for name in names if name not in {"type", "text"})]
    if names:
        return UnusableError(
            f"{what} has no text in its content; it has {listed(names[:5])}",
            'write text as content, or as parts {"type": "text", "text": ...}; a call of a tool as tool_calls',
        )
    return UnusableError(
        f"{what} is empty",
        "write its content; a row of which nothing is expected ends with the question"
        if message["role"] == "assistant"
        else "write its content, or remove the row",
    )


def _kind(value: object) -> str:
    """What it is, with its article."""
    known = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    return known.get(type(value), "a number")


def shown(value: object) -> str:
    return json.dumps(value, default=str)[:60]
