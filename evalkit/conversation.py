"""A conversation as people read it: every message with its role, images and tool calls named, long ones folded.

One structure (`turns`), and from it one plain text and one HTML form; the rating page draws the same structure.
What a model thought before it answered is told apart from its answer (`thoughts_and_answer`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import Literal

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
    opening = _opening(text, is_long=is_long)
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
        _digest(part)
        for message in messages
        for part in _listed(message.get("content"))
        if _part_text(part) is None
    )


def own_messages(conversations: Sequence[Messages]) -> list[Messages]:
    """Each conversation without what the set shares: its system prompts, and examples that many prompts repeat.

    A system message that another conversation has too is left out; any other before the last when more than 3 and more
    than 5% have it, word for word. What is left is never empty.
    """
    n_with = Counter(name for one in conversations for name in {*map(_digest, one)})
    limit = max(3, COMMON * len(conversations))

    def is_own(message: Message) -> bool:
        return n_with[_digest(message)] <= (1 if message.get("role") in INSTRUCTIONS else limit)

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
    opening = _opening(text, is_long=is_long) if may_fold else ""
    return Turn(role=f"{role} {name}" if name else role, parts=parts, opening=opening)


def _opening(text: str, *, is_long: bool) -> str:
    """How a text begins that is long, or says one thing again and again; "" for any other."""
    least = min(max(_SHORT_RUN, len(text) // 2), _LONG_RUN)
    runs = _RUN.finditer(text[:_SEARCHED])
    run = next((one for one in runs if len(one[0]) >= least and one[1].strip()), None)
    if run:
        opening = text[max(0, run.start() - OPENING) : run.start() + 24]
        return " ".join(opening.split()) + " … (the same again and again)"
    return " ".join(text[: 4 * OPENING].split())[:OPENING] + " …" if is_long else ""


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
    """What something that is no text is: "image: image/png", "image: example.org/cat.png"."""
    if not isinstance(part, Mapping):
        return _json(part)[:80]
    kind = str(part.get("type") or next(iter(part), "part"))
    if _is_call(part):
        _, name, given = _tool_calls({"tool_calls": [part]})[0]
        return f"call of {name or 'a tool'}: {given}"
    if isinstance(part.get("refusal"), str):
        return f"refusal: {part['refusal']}"
    noun = kind.removeprefix("input_").removesuffix("_url").replace("_", " ")
    told = filter(None, (_field(part, "filename", "name", "title"), _source(part, kind)))
    return ": ".join(filter(None, (noun, ", ".join(told))))


def _source(part: Message, kind: str) -> str:
    """Media type or address."""
    found = _field(part, *_SOURCES, kind, kind.removeprefix("input_"))
    if found.startswith("data:"):
        return re.split("[;,]", found[5:])[0] or "data"
    if "://" in found[:12]:
        host, slash, path = re.split("[?#]", found.partition("://")[2])[0].partition("/")
        return f"{host.rpartition('@')[2]}{slash}{path}"[:120]
    return _field(part, "media_type", "mime_type", "format") or found[:80]


def _field(part: Message, *names: str) -> str:
    """The first text under one of these names, here or deeper."""
    for name in names:
        if isinstance(value := part.get(name), str) and value:
            return value
    deeper = (_field(one, *names) for one in part.values() if isinstance(one, Mapping))
    return next((one for one in deeper if one), "")


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


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


MOST = 50  # tags looked at: a text made of nothing else must not take minutes
_NAME = r"(?:[a-z]{1,20}[:_-]){0,3}(?:think(?:ing)?|thoughts?|reasoning|scratchpad)"
_TAG = re.compile(rf"<({_NAME})(?:\s[^<>]{{0,200}})?>", re.IGNORECASE)
_FIXED = (  # opening, closing; of these, too, the opening one may stand in the prompt
    (r"\[THINK\]", r"\[/THINK\]"),  # Mistral
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),  # OpenThinker, Sky-T1
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),  # Cohere
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),  # Apertus
    (r"◁think▷", r"◁/think▷"),  # Kimi
    (r"<unused94>", r"<unused95>"),  # MedGemma
    (r"<\|channel>thought", r"<channel\|>"),  # Gemma
)
_SPOKEN = (r"Here(?:'s| is) my thought process:", r"Here(?:'s| is) my response:")  # Granite
_WRAPPED = re.compile(
    r"\s*(?:<(?:answer|response)>|<\|begin_of_solution\|>|<\|START_RESPONSE\|>)", re.IGNORECASE
)
_UNWRAPPED = re.compile(
    r"(?:</(?:answer|response)>|<\|end_of_solution\|>|<\|END_RESPONSE\|>)\s*\Z", re.IGNORECASE
)
_CHANNELS = re.compile(r"\s*(?:(?:<\|start\|>assistant)?<\|channel\|>|analysis(?=.*assistantfinal))", re.DOTALL)  # fmt: skip
_MARKS = re.compile(r"<\|start\|>assistant|<\|channel\|>[a-z]+|<\|[a-z]+\|>|\A\s*analysis")
_FINAL = re.compile(r"<\|channel\|>final[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>|assistantfinal")
_END = re.compile(r"<\|(?:return|end|call)\|>")
_FENCED = re.compile(r"^[ \t]*(```|~~~).*?^[ \t]*\1", re.DOTALL | re.MULTILINE)
_SHOWN = re.compile(r"(?: {4}|\t| *>)")  # how lines of code and of a quotation begin
_INLINE = re.compile(r"(`{1,3})[^`\n]+\1")
_LEADS_TO_IT = re.compile(  # a word that wants another one: the sentence goes on with the tag
    r"(?<![\w'’])(the|this|its|each|every|with|by|of|to|in|on|at|as|for|from|after|before|until|than|like|without|and|or"
    r"|is|are|was|called|named|closing|ending|tags?|tokens?|markers?|strings?|elements?|delimiters?|using|writing|printing"
    r"|emitting|(?:add|append|close|contain|emit|expect|insert|output|print|see|use|write)s?)\s*\Z",
    re.IGNORECASE,
)
_QUOTES = {"*": "*", "_": "_", '"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "„": "“"}


def thoughts_and_answer(text: str) -> tuple[str, str]:
    r"""A model's text as (its thoughts, its answer); an unfinished thought has no answer after it.

    A thought stands at the beginning: between its tags, or before a closing tag alone, where the chat template opened it.

    Example:
        >>> thoughts_and_answer("<think>hm</think>\n42")
        ('hm', '42')
        >>> thoughts_and_answer("so it is 42\n</think>\n\n42"), thoughts_and_answer("<think>cut off")
        (('so it is 42', '42'), ('cut off', ''))
        >>> thoughts_and_answer("Close the block with `</think>`.")
        ('', 'Close the block with `</think>`.')
    """
    if _CHANNELS.match(text):
        return _of_channels(text)
    thoughts, rest = [], text
    while len(thoughts) < MOST and (cut := _first(rest)) is not None:
        thought, rest = cut
        thoughts.append(thought.strip())
        rest = rest.lstrip()
    if thoughts and (wrapped := _WRAPPED.match(rest)):
        rest = _UNWRAPPED.sub("", rest[wrapped.end() :]).strip()
    return "\n\n".join(filter(None, thoughts)), rest


def holds_thoughts(text: str) -> bool:
    """Whether a text begins with thoughts, or is nothing else."""
    return thoughts_and_answer(text)[1] != text


def _first(text: str) -> tuple[str, str] | None:
    """The first thought and what follows it; None when the text does not begin with one."""
    start = len(text) - len(text.lstrip())
    if _SHOWN.match(text[:start].rpartition("\n")[2]):
        return None
    if tag := _TAG.match(text, start):
        own, any_name = (rf"</{name}\s*>" for name in (re.escape(tag[1]), _NAME))
        is_closed = re.search(own, text, re.IGNORECASE)
        return _closed(text, tag.end(), own if is_closed else any_name)
    for opening, closing in (*_FIXED, _SPOKEN):
        if tag := re.compile(opening, re.IGNORECASE).match(text, start):
            return _closed(text, tag.end(), closing)
    return _template_opened(text)


def _closed(text: str, start: int, closing: str) -> tuple[str, str]:
    """A thought may speak of its own tag: one in inline code never ends it, a quoted one only when no other does."""
    found = islice(re.compile(closing, re.IGNORECASE).finditer(text, start), MOST)
    bare = [one for one in found if not _within(one, _spans(_INLINE, text))]
    end = next((one for one in bare if not _is_quoted(text, one)), next(iter(bare), None))
    return (text[start : end.start()], text[end.end() :]) if end else (text[start:], "")


def _template_opened(text: str) -> tuple[str, str] | None:
    closings = [(rf"<({_NAME})(?:\s[^<>]{{0,200}})?>", rf"</(?P<name>{_NAME})\s*>"), *_FIXED]
    for opening, closing in closings:
        for tag in islice(re.finditer(closing, text, re.IGNORECASE), MOST):
            name = tag.groupdict().get("name")
            opener = rf"<{re.escape(name)}(?:\s[^<>]{{0,200}})?>" if name else opening
            if not _is_quoted(text, tag) and _ends_a_thought(text, tag, opener):
                return text[: tag.start()], text[tag.end() :]
    return None


def _ends_a_thought(text: str, tag: re.Match[str], opener: str) -> bool:
    """Whether a closing tag ends what came before, rather than being spoken of in the middle of a sentence."""
    before, after = text[: tag.start()], text[tag.end() :]
    line = before.rpartition("\n")[2]
    is_shown = _SHOWN.match(line) and line.strip() in {"", ">"}
    if is_shown or after[:1] in set(",.;:)?!"):
        return False
    ends_line = after.lstrip(" \t")[:1] in {"", "\n", "\r"}
    begins_line = not line.strip()
    # a thought may mention the tag it began with
    at = r"^[ \t]*" if begins_line and ends_line else ""
    if re.search(at + opener, before, re.IGNORECASE | re.MULTILINE):
        return False
    if begins_line:
        return True
    abuts = line[-1].isalnum() or line[-1] in ".!?…:;,)]}\"'*$"
    after_sentence = line.rstrip()[-1] in ".!?…"
    if abuts or after_sentence:
        return True
    leads = _LEADS_TO_IT.search(line)  # unless the answer says it again, as a label
    says_again = leads and after.lstrip().lower().startswith(leads[1].lower())
    return ends_line and bool(after.strip()) and (not leads or bool(says_again))


def _is_quoted(text: str, tag: re.Match[str]) -> bool:
    if _within(tag, _spans(_FENCED, text)) or _within(tag, _spans(_INLINE, text)):
        return True
    before, after = text[tag.start() - 1 : tag.start()], text[tag.end() : tag.end() + 1]
    if before in _QUOTES and _QUOTES[before] == after:
        return True
    line = text[: tag.start()].rpartition("\n")[2]
    return line.count('"') % 2 == 1 and '"' in text[tag.end() :].partition("\n")[0]


@lru_cache(maxsize=4)
def _spans(pattern: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    return [one.span() for one in pattern.finditer(text)]


def _within(tag: re.Match[str], spans: list[tuple[int, int]]) -> bool:
    return any(start <= tag.start() < end for start, end in spans)


def _of_channels(text: str) -> tuple[str, str]:
    """Harmony: the last channel named final is the answer, all before it are thoughts."""
    channels = [*_FINAL.finditer(text)]
    start, end = channels[-1].span() if channels else (len(text), len(text))
    return _MARKS.sub(" ", text[:start]).strip(), _END.split(text[end:])[0].strip()
