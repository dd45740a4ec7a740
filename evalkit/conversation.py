"""A prompt as people read it: every message with its role, images and tool calls named, long ones folded.

One structure (`turns`), and from it one plain text and one HTML form; the rating page draws the same structure.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from evalkit import wording
from evalkit.records import Message, Messages

INSTRUCTIONS = ("system", "developer")
LONG, LONG_LINES = 400, 6  # characters and lines from which a message before the last is folded
OPENING = 120  # characters of a folded message that stand in its summary
_RUN = re.compile(r"(.{1,16}?)\1{9,}", re.DOTALL)
_SHORT_RUN, _LONG_RUN = 40, 200  # characters; a short one folds where it is half of the text
_SEARCHED = 4000
RECENT = 6  # of more messages than this, all but the last four are folded into one
COMMON = 0.05  # a message in more conversations than this is the template of the set, not one's own
_CALL = re.compile(r"^\[call of ([^\s:\]]+): (.*)\]$", re.MULTILINE)
_SOURCES = ("url", "image_url", "file_url", "data", "file_data", "file_id", "id", "source")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a message: its text, or what names something that is no text."""

    kind: Literal["text", "named"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message as shown.

    Attributes:
        role: Its role, with the speaker's or tool's name where one is given.
        opening: The first words of a long message that is folded; "" for one that stands open.
    """

    role: str
    parts: tuple[Part, ...]
    opening: str = ""

    @property
    def text(self) -> str:
        """All its parts, one under the other."""
        return "\n".join(part.text for part in self.parts)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt, for a table's cell or a page.

    Example:
        >>> print(Conversation([{"role": "user", "content": "2+2?"}]))
        2+2?
    """

    messages: Messages

    @property
    def body(self) -> str:
        """The safe HTML form, as rows of a table hold it: a long last message is folded too."""
        return conversation_html(self.messages, folds_last=True)

    def __str__(self) -> str:
        return conversation_text(self.messages)


def turns(messages: Messages, *, folds_last: bool = False) -> tuple[Turn, ...]:
    """The messages as shown: one turn a message, in order.

    Args:
        messages: As sent: `role`, `content` (text or a list of parts), `tool_calls`.
        folds_last: Fold the last message too when it is long, and instructions, which rows of a table mostly share, when
            their first words would not hold them; else the last stands open, as it is what was answered.
    """
    calls = [call for message in messages for call in _tool_calls(message)]
    called, last = {call_id: name for call_id, name, _ in calls if call_id}, len(messages) - 1
    return tuple(
        _turn(message, called, may_fold=folds_last or place < last, tight=folds_last)
        for place, message in enumerate(messages)
    )


def structure(messages: Messages) -> dict[str, object]:
    """The conversation for a page's script: `turns`, and how many of the first of them are folded into one.

    Everything in it is plain text in which unseen characters stand as visible codes.
    """
    made = turns(messages)
    shown = [
        {
            "role": wording.visible(turn.role),
            "parts": [{"kind": one.kind, "text": wording.visible(one.text)} for one in turn.parts],
            "opening": wording.visible(turn.opening),
        }
        for turn in made
    ]
    return {"turns": shown, "n_earlier": _n_earlier(made), "bare": _is_bare(made)}


def conversation_text(messages: Messages) -> str:
    """The whole conversation as plain text: "role: text", a blank line between messages.

    What a single user message says stands alone, without its role.

    Example:
        >>> print(conversation_text([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]))
        system: Be brief.
        <BLANKLINE>
        user: Hi
    """
    made = turns(messages)
    if _is_bare(made):
        return made[0].text
    return "\n\n".join(f"{turn.role}: {turn.text}" for turn in made)


def conversation_html(messages: Messages, *, folds_last: bool = False) -> str:
    """The whole conversation as safe HTML: roles marked, long messages and the earlier ones of many folded."""
    made = turns(messages, folds_last=folds_last)
    if _is_bare(made) and not made[0].opening:
        return _said(made[0])
    shown, n_earlier = [_shown(turn) for turn in made], _n_earlier(made)
    if n_earlier:
        name = f"<summary>{wording.plural(n_earlier, 'earlier message')}</summary>"
        earlier = f'<details class="ek-turn">{name}{"".join(shown[:n_earlier])}</details>'
        shown = [earlier, *shown[n_earlier:]]
    return f'<div class="ek-talk">{"".join(shown)}</div>'


def folded(text: str, markup: str) -> str:
    """An answer's markup, behind its first words where it is long or says one thing again and again.

    Args:
        text: The answer.
        markup: The same as safe HTML.

    Example:
        >>> folded("I10", "<bdi>I10</bdi>")
        '<bdi>I10</bdi>'
    """
    is_long = len(text) > LONG or text.count("\n") >= 2 * LONG_LINES
    opening = _run_opening(text) or (_opening(text) if is_long else "")
    return _fold(wording.render_text(opening), text, markup) if opening else markup


def conversation_css() -> str:
    """The rules of `conversation_html` and of the rating page's drawing of `structure`."""
    return Path(__file__).with_name("conversation.css").read_text(encoding="utf-8")


def spoken(message: Message) -> str:
    """What one message says, as one text: its words, then a line for each tool call, its arguments as canonical JSON.

    Example:
        >>> spoken({"tool_calls": [{"function": {"name": "weather", "arguments": '{"n": 1.0, "city": "Oslo"}'}}]})
        '[call of weather: {"city": "Oslo", "n": 1}]'
    """
    parts = [one for one in _listed(message.get("content")) if _is_call(one)]
    made = [*_tool_calls({"tool_calls": parts}), *_tool_calls(message)]
    calls = [
        f"[call of {' '.join(name.split())}: {_arguments(given)}]"
        for _, name, given in made
        if name
    ]
    return "\n".join(filter(None, [wording.flattened(message.get("content")), *calls]))


def calls_in(text: str) -> list[tuple[str, str]]:
    """Name and arguments of the tool calls in a text that `spoken` made, in order."""
    return _CALL.findall(text)


def spoken_text(messages: Messages) -> str:
    """What is written in the messages, without roles and without what is no text."""
    return "\n".join(wording.flattened(message.get("content")) for message in messages)


def attachments(messages: Messages) -> tuple[str, ...]:
    """A SHA-256 for every image, file and the like, in order: two prompts with other images are not the same."""
    return tuple(
        hashlib.sha256(_canonical(part)).hexdigest()
        for message in messages
        for part in _listed(message.get("content"))
        if _part_text(part) is None
    )


def own_messages(conversations: Sequence[Messages]) -> list[Messages]:
    """Each conversation without what the set shares: its system prompts, and examples that many prompts repeat.

    A system message that another conversation has too is left out; any other before the last when more than 3 and more
    than 5% have it, word for word. What is left is never empty.
    """
    n_with = Counter(name for one in conversations for name in {*map(_identity, one)})
    limit = max(3, COMMON * len(conversations))

    def is_own(message: Message) -> bool:
        return n_with[_identity(message)] <= (1 if message.get("role") in INSTRUCTIONS else limit)

    return [
        [*(message for message in one[:-1] if is_own(message)), *one[-1:]] for one in conversations
    ]


def without_instructions(messages: Messages) -> list[Message]:
    """The messages without those by which the model was instructed."""
    return [message for message in messages if message.get("role") not in INSTRUCTIONS]


def _turn(message: Message, called: Mapping[str, str], *, may_fold: bool, tight: bool) -> Turn:
    name = message.get("name") or called.get(str(message.get("tool_call_id")))
    role = str(message.get("role") or "message")
    calls = [
        Part(kind="named", text=f"[call of {tool or 'a tool'}{given and f': {given}'}]")
        for _, tool, given in _tool_calls(message)
    ]
    parts = (*_parts(message), *calls) or (Part(kind="named", text="[nothing]"),)
    text = " ".join(part.text for part in parts)
    most = OPENING if tight and role in INSTRUCTIONS else LONG
    is_long = len(text) > most or text.count("\n") >= LONG_LINES
    opening = _run_opening(text) or (_opening(text) if is_long else "")
    return Turn(
        role=f"{role} {name}" if name else role,
        parts=parts,
        opening=opening if may_fold else "",
    )


def _opening(text: str) -> str:
    return " ".join(text[: 4 * OPENING].split())[:OPENING] + " …"


def _run_opening(text: str) -> str:
    """How a text begins that says one thing again and again; "" for any other."""
    least = min(max(_SHORT_RUN, len(text) // 2), _LONG_RUN)
    runs = _RUN.finditer(text[:_SEARCHED])
    run = next((one for one in runs if len(one[0]) >= least and one[1].strip()), None)
    if run is None:
        return ""
    opening = text[max(0, run.start() - OPENING) : run.start() + 24]
    return " ".join(opening.split()) + " … (the same again and again)"


def _is_bare(made: Sequence[Turn]) -> bool:
    return len(made) == 1 and made[0].role == "user"


def _n_earlier(made: Sequence[Turn]) -> int:
    return len(made) - 4 if len(made) > RECENT else 0


def _parts(message: Message) -> tuple[Part, ...]:
    """Texts that follow each other are one text, as they are for the model."""
    parts: list[Part] = []
    listed = _listed(message.get("content"))
    for is_text, several in groupby(listed, lambda one: _part_text(one) is not None):
        if is_text:
            parts.append(Part(kind="text", text="".join(_part_text(one) or "" for one in several)))
        else:
            parts += [Part(kind="named", text=f"[{_name_of(one)}]") for one in several]
    return tuple(parts)


def _listed(content: object) -> list[object]:
    if isinstance(content, list | tuple):
        return [*content]
    return [] if content is None or content == "" else [content]


def _part_text(part: object) -> str | None:
    text = part.get("text") if isinstance(part, Mapping) else part
    return text if isinstance(text, str) else None


def _tool_calls(message: Message) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call, in any of the spellings in use."""
    calls = _listed(message.get("tool_calls")) + _listed(message.get("function_call"))
    made = []
    for call in calls:
        outer = call if isinstance(call, Mapping) else {"name": str(call)}
        nested = (outer.get(spelling) for spelling in ("function", "custom"))
        inner = {**outer, **next((one for one in nested if isinstance(one, Mapping)), {})}
        given = inner.get("arguments", inner.get("input"))
        text = given if isinstance(given, str) else "" if given is None else _json(given)
        name = inner.get("name") or inner.get("function")  # the latter is a text in Inspect's logs
        called = name if isinstance(name, str) else ""
        made.append((str(inner.get("id") or ""), called, text))
    return made


def _is_call(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("tool_use", "function_call")


def _arguments(given: str) -> str:
    """Arguments by their meaning: the order of names, spaces and 1.0 for 1 make no difference; what is no JSON is a text."""
    try:
        found = json.loads(given, parse_float=_whole_or_not) if given.strip() else {}
    except (ValueError, RecursionError):
        found = given
    return json.dumps(found, ensure_ascii=False, sort_keys=True)


def _whole_or_not(digits: str) -> float:
    number = float(digits)
    return int(number) if number.is_integer() else number


def _name_of(part: object) -> str:
    """What something that is no text is: "image: image/png, 12 kB", "image: example.org/cat.png"."""
    if not isinstance(part, Mapping):
        return _json(part)[:80]
    kind = str(part.get("type") or next(iter(part), "part"))
    if _is_call(part):
        _, name, given = _tool_calls({"tool_calls": [part]})[0]
        return f"call of {name or 'a tool'}: {given}"
    if isinstance(part.get("refusal"), str):
        return f"refusal: {part['refusal']}"
    noun = kind.removeprefix("input_").removesuffix("_url").replace("_", " ")
    told = [one for one in (_field(part, "filename", "name", "title"), *_source(part)) if one]
    return f"{noun}: {', '.join(told)}" if told else noun


def _source(part: Message) -> tuple[str, str]:
    """Media type or address, and size."""
    kind = str(part.get("type") or "")
    found = _field(part, *_SOURCES, kind, kind.removeprefix("input_"))
    media = _field(part, "media_type", "mime_type", "format")
    if found.startswith("data:"):
        head, _, content = found[5:].partition(",")
        is_coded = head.endswith(";base64")
        return head.split(";")[0] or "data", _size(content, is_coded=is_coded)
    if "://" in found[:12]:
        return _address(found), ""
    return (media, _size(found, is_coded=True)) if media else (found[:80], "")


def _field(part: Message, *names: str) -> str:
    """The first text under one of these names, here or deeper."""
    for name in names:
        if isinstance(value := part.get(name), str) and value:
            return value
    deeper = (_field(one, *names) for one in part.values() if isinstance(one, Mapping))
    return next((one for one in deeper if one), "")


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or ''}{parts.path}"[:120]
    except ValueError:
        return url[:80]


def _size(content: str, *, is_coded: bool) -> str:
    n = len(content.rstrip("=")) * 3 // 4 if is_coded else len(content)
    if n < 1_000:
        return f"{n} B"
    return f"{n / 1e3:.0f} kB" if n < 999_500 else f"{n / 1e6:.1f} MB"


def _shown(turn: Turn) -> str:
    role = f'<b class="ek-role">{wording.render_text(turn.role)}</b>'
    if not turn.opening:
        return f'<div class="ek-turn">{role}{_said(turn)}</div>'
    return _fold(f"{role} {wording.render_text(turn.opening)}", turn.text, _said(turn))


def _fold(head: str, text: str, markup: str) -> str:
    n = wording.plural(len(text), "character")
    summary = f"<summary>{head} <small>({n})</small></summary>"
    return f'<details class="ek-turn">{summary}{markup}</details>'


def _said(turn: Turn) -> str:
    return "".join(
        f'<div class="ek-said{" ek-named" if part.kind == "named" else ""}">{wording.render_text(part.text)}</div>'
        for part in turn.parts
    )


def _identity(message: Message) -> bytes:
    return hashlib.sha256(_canonical(message)).digest()


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
