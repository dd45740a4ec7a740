"""What a server says: a model's thoughts and its answer, that there is none, and what of a request it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from evalkit.answers.shapes import REQUEST
from evalkit.conversation import spoken
from evalkit.records import Answer, Outcome, ends_in_error
from evalkit.wording import cleaned, flattened

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


def split(text: str) -> tuple[str, str]:
    r"""A model's text as (its thoughts, its answer); an unfinished thought has no answer after it.

    A thought stands at the beginning: between its tags, or before a closing tag alone, where the chat template opened it.

    Example:
        >>> split("<think>hm</think>\n42"), split("so it is 42\n</think>\n\n42"), split("<think>cut off")
        (('hm', '42'), ('so it is 42', '42'), ('cut off', ''))
        >>> split("Close the block with `</think>`.")
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
    return split(text)[1] != text


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
    found = list(islice(re.compile(closing, re.IGNORECASE).finditer(text, start), MOST))
    spans = _spans(_INLINE, text) if found else []
    bare = [one for one in found if not _within(one, spans)]
    spans += _spans(_FENCED, text) if bare else []
    end = next((one for one in bare if not _is_quoted(text, one, spans)), next(iter(bare), None))
    return (text[start : end.start()], text[end.end() :]) if end else (text[start:], "")


def _template_opened(text: str) -> tuple[str, str] | None:
    closings = [(rf"<({_NAME})(?:\s[^<>]{{0,200}})?>", rf"</(?P<name>{_NAME})\s*>"), *_FIXED]
    spans: list[tuple[int, int]] | None = None
    for opening, closing in closings:
        for tag in islice(re.finditer(closing, text, re.IGNORECASE), MOST):
            if spans is None:
                spans = _spans(_FENCED, text) + _spans(_INLINE, text)
            name = tag.groupdict().get("name")
            opener = rf"<{re.escape(name)}(?:\s[^<>]{{0,200}})?>" if name else opening
            if not _is_quoted(text, tag, spans) and _ends_a_thought(text, tag, opener):
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


def _is_quoted(text: str, tag: re.Match[str], spans: list[tuple[int, int]]) -> bool:
    if _within(tag, spans):
        return True
    before, after = text[tag.start() - 1 : tag.start()], text[tag.end() : tag.end() + 1]
    if before in _QUOTES and _QUOTES[before] == after:
        return True
    line = text[: tag.start()].rpartition("\n")[2]
    return line.count('"') % 2 == 1 and '"' in text[tag.end() :].partition("\n")[0]


def _spans(pattern: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    return [one.span() for one in pattern.finditer(text)]


def _within(tag: re.Match[str], spans: list[tuple[int, int]]) -> bool:
    return any(start <= tag.start() < end for start, end in spans)


def _of_channels(text: str) -> tuple[str, str]:
    """Harmony: the last channel named final is the answer, all before it are thoughts."""
    channels = [*_FINAL.finditer(text)]
    start, end = channels[-1].span() if channels else (len(text), len(text))
    return _MARKS.sub(" ", text[:start]).strip(), _END.split(text[end:])[0].strip()


_THOUGHT_TYPES = {"thinking", "reasoning", "reasoning_content", "thought", "redacted_thinking"}
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought")  # beside a message's content
_THOUGHT_PARTS = ("thinking_blocks", "reasoning_details")
_FINE = {"", "0", "200", "ok", "success", "none", "null"}  # codes that say: nothing went wrong
_CODES = ("code", "status", "status_code", "error_code", "type", "error_type")
_WORDS = ("message", "error_msg", "status_msg", "msg", "detail", "reason")


@dataclass(eq=False)
class NoAnswerError(Exception):
    """The reply holds no answer.

    Attributes:
        said: What it is instead.
        is_page: It is not even JSON.
        status: The HTTP status the server told inside its reply, as a gateway does for a server behind it.
        names: The error's codes and types that are words, e.g. `rate_limit_exceeded`.
        in_choice: The error stands in the answer's place: the model was found and had begun.
    """

    said: str
    is_page: bool = False
    status: int | None = None
    names: frozenset[str] = frozenset()
    in_choice: bool = False

    def __str__(self) -> str:
        return self.said


def answer(reply: object, *, strip_think: bool | None = None) -> Answer:
    """Reads a chat completion; `strip_think=False` leaves thoughts that stand in the content where they stand.

    Raises:
        NoAnswerError: The reply is not one; the message says what it is.
    """
    completion = _completion(reply)
    choice = _choice(completion)
    message, finish_reason = mapping(choice["message"]), _name(choice.get("finish_reason"))
    refusal = flattened(message.get("refusal"))
    thinking, text = _said(message, strip_think=strip_think is not False)
    text, sanitized = cleaned(text or refusal)
    usage = mapping(completion.get("usage"))
    details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    return Answer(
        text=text,
        outcome=_outcome(text, finish_reason, refused=bool(refusal)),
        finish_reason=finish_reason,
        prompt_tokens=whole_number(usage.get("prompt_tokens")),
        completion_tokens=whole_number(usage.get("completion_tokens")),
        served_model=_name(completion.get("model")),
        sanitized=sanitized,
        thinking=cleaned(thinking)[0],
        thinking_tokens=whole_number({**usage, **mapping(details)}.get("reasoning_tokens")) or None,
    )


def _said(message: Mapping[str, object], *, strip_think: bool) -> tuple[str, str]:
    """A message as (thoughts, answer), from fields and parts of its own or from its text."""
    content = message.get("content")
    fields = (_thought(message.get(name)) for name in (*_THOUGHTS, *_THOUGHT_PARTS))
    thoughts = [next(filter(None, fields), "")]
    if isinstance(content, list):
        thoughts += [_thought([one]) for one in content if _is_thought(one)]
        content = [one for one in content if not _is_thought(one)]
    if strip_think:
        inside, text = split(written := flattened(content))
        thoughts.append(inside)
        content = content if text == written else text
    return "\n\n".join(filter(None, thoughts)), spoken({**message, "content": content})


def _is_thought(part: object) -> bool:
    kind = mapping(part).get("type")
    is_named = isinstance(kind, str) and kind in _THOUGHT_TYPES
    return is_named or mapping(part).get("thought") is True


def _thought(value: object) -> str:
    """The text of thoughts: plain, or as a list of parts, under `thinking`, `text`, `content` or `summary`."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        names = ("thinking", "text", "content", "summary")
        return next(filter(None, (_thought(value.get(name)) for name in names)), "")
    return "".join(map(_thought, value)) if isinstance(value, list) else ""


def _completion(reply: object) -> Mapping[str, object]:
    """A reply as the object that it is; as text it may be JSON whose content type does not say so."""
    if isinstance(reply, str):
        with suppress(ValueError, RecursionError):
            reply = json.loads(reply)
    if isinstance(reply, Mapping):
        return reply
    if not isinstance(reply, str):
        raise NoAnswerError(f"the reply is JSON but no completion ({type(reply).__name__})")
    is_page = "<html" in reply[:2000].lower() or "<!doctype" in reply[:200].lower()
    what = "a web page" if is_page else "plain text"
    raise NoAnswerError(f"the address answers with {what}, not with JSON", is_page=True)


def _choice(reply: Mapping[str, object]) -> Mapping[str, object]:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:  # some spread an error over the reply itself
        error = reply.get("error") or reply.get("errors") or reply.get("base_resp") or reply
        raise _told("the reply has no choices", error)
    choice = mapping(choices[0])
    if isinstance(choices[0], Mapping) and (error := _error_of(reply, choice)) is not None:
        raise _told("the server told an error instead of an answer", error, in_choice=True)
    if not isinstance(choice.get("message"), Mapping):
        raise NoAnswerError("the reply's first choice has no message")
    return choice


def _error_of(reply: Mapping[str, object], choice: Mapping[str, object]) -> object:
    """The error that stands in a reply with choices; None when there is none."""
    told = [one.get("error") for one in (choice, mapping(choice.get("message")), reply)]
    told += [reply.get("base_resp"), reply if _is_status(reply.get("code")) else None]
    if (error := next((one for one in told if _is_error(one)), None)) is not None:
        return error
    reasons = (choice.get("finish_reason"), choice.get("native_finish_reason"))
    broken = next((one for one in reasons if ends_in_error(one)), None)
    return broken and f"finish_reason {broken!r}"


def _is_error(error: object) -> bool:
    """Some servers send an empty or a "success" error with each good answer."""
    if isinstance(error, list):
        return any(_is_error(one) for one in error)
    if not isinstance(error, Mapping):
        return error is True or _code(error) not in _FINE
    codes = {_code(error.get(name)) for name in _CODES} - {""}
    return not codes <= _FINE if codes else any(error.get(name) for name in _WORDS)


def _told(what: str, error: object, *, in_choice: bool = False) -> NoAnswerError:
    """An error as told, in the server's words, whole: they are cut where they are stored, once keys are out of them.

    Its status is that code which is a number that HTTP knows as an error.
    """
    error = error[0] if isinstance(error, list) and error else error
    codes = [_code(mapping(error).get(name)) for name in _CODES]
    status = next((int(code) for code in codes if _is_status(code)), None)
    if isinstance(error, Mapping):
        words = (error.get(name) for name in _WORDS)
        error = next((one for one in words if isinstance(one, str) and one), None)
    return NoAnswerError(
        (f"{status}: {what}" if status else what)
        + (f": {error}" if isinstance(error, str) else ""),
        status=status,
        names=frozenset(code for code in codes if code and not code.isdigit()),
        in_choice=in_choice,
    )


def _is_status(value: object) -> bool:
    """Whether HTTP knows the number as an error."""
    return re.fullmatch("[45][0-9][0-9]", _code(value)) is not None


def _code(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_code = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value).strip().lower() if is_code else ""


def _outcome(text: str, finish_reason: str | None, *, refused: bool) -> Outcome:
    if refused or finish_reason == "content_filter":
        return "refused"
    if finish_reason == "length":
        return "truncated"
    return "ok" if text.strip() else "empty"


def whole_number(value: object) -> int | None:
    """A count as servers write it; None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return int(value) if 0 <= value < 2**53 else None


def _name(value: object) -> str | None:
    return cleaned(value)[0][:200] if isinstance(value, str) else None


def mapping(value: object) -> Mapping[str, object]:
    """A JSON object as it is; anything else holds nothing."""
    return value if isinstance(value, Mapping) else {}


_READ = 600  # characters: further on servers quote what they were sent
_ROW = re.compile(  # about this row's length or messages: another row may go well
    r"context (?:length|window|limit|size)|prompt is too long|messages?(?:\[|\.\d|['\"],)", re.IGNORECASE
)  # fmt: skip
_UNKNOWN = re.compile(
    r"unsupported|(?:not|n't) support|not (?:allowed|permitted|accepted|available|enabled|implemented)|extra_forbidden"
    r"|unrecogni[sz]ed|unknown|unexpected|additional propert|deprecated|cannot (?:both )?be|at the same time"
    r"|that support|requires? --|no such|cannot both",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"too (?:large|high|big|small|low)|at (?:most|least)|(?:must|should) be|may only|supports only|(?:less|greater) than"
    r"|maximum|range|only .{0,40}(?:supported|allowed)|(?:supported|valid|allowed) values|one of|invalid|literal_error|> \d",
    re.IGNORECASE,
)
_MISSING = re.compile(r"field required|missing|is required|must be (?:set|given|provided)", re.I)
_ONLY_ONE = re.compile(
    r"\(1\)|temperature ?= ?1(?:\.0)?\b|set to 1\b|be 1\b|only 1\b|to 1 when", re.IGNORECASE
)
_ALSO_CALLED = {
    "tools": r"tools|tool[ _](?:use|calling|call)|function calling",
    "reasoning_effort": r"reasoning[_ .]?effort|thinking",
}
_SETTINGS = {  # of a field of the request: what leaves it out, and what sends it
    "temperature": ("send_temperature: false", "send_temperature: true"),
    "max_tokens": ("max_tokens: 0", "max_tokens: 1024"),
    "max_completion_tokens": ("max_completion_tokens: 0", "max_completion_tokens: 1024"),
    "seed": ("request_seed: 0", "request_seed: 1"),
    "reasoning_effort": ('reasoning_effort: ""', "reasoning_effort: low"),
}
_LIMITS = ("max_tokens", "max_completion_tokens")
_WHERE = "in study.yaml (or in request.yaml for this model alone)"


def refused(text: str, sent: Mapping[str, object], *, param: str | None = None) -> str:
    """Says which part of a request a server refuses and what to set instead; "" when its words are about neither.

    Args:
        text: The server's message.
        sent: The request's fields besides model and messages.
        param: The field, where the server names it apart from the message.

    Example:
        >>> refused("Unsupported parameter: 'seed' is not supported with this model.", {"seed": 1})
        'the server refuses seed: set request_seed: 0 in study.yaml (or in request.yaml for this model alone)'
    """
    text = text[:_READ]
    if _ROW.search(text) or (param or "").partition("[")[0] in {"messages", "model"}:
        return ""
    is_unknown = bool(_UNKNOWN.search(text))
    name = _named(text, [*sent, *(one for one in REQUEST if one not in sent)], param)
    if not name and _MISSING.search(text) and (wanted := _named(text, _SETTINGS, param)):
        return f"the server wants {wanted}: set {_SETTINGS[wanted][1]} {_WHERE}"
    if name in REQUEST:
        return f"the server refuses {name}, which rows of the test set hold" if is_unknown else ""
    if not name or not (is_unknown or param or _VALUE.search(text)):
        return ""
    return f"the server refuses {name}: {_remedy(name, text, sent, is_unknown=is_unknown)}"


def _named(text: str, names: Iterable[str], param: str | None) -> str:
    """The field the text speaks of first, as a word or in camelCase."""
    head = re.split(r"[.\[]", param or "")[0]
    if head in names:
        return head
    found = dict[str, int]()
    for name in names:
        spelled = _ALSO_CALLED.get(name) or "[_ ]?".join(map(re.escape, name.split("_")))
        if at := re.search(rf"(?<![a-z0-9])(?:{spelled})(?![a-z0-9_])", text, re.IGNORECASE):
            found[name] = at.start()
    return min(found, key=lambda name: found[name], default="")


def _remedy(name: str, text: str, sent: Mapping[str, object], *, is_unknown: bool) -> str:
    if name == "temperature" and _ONLY_ONE.search(text) and sent[name] != 1:
        return f"set temperature: 1 {_WHERE}"
    by_value = _VALUE.search(text) and not (is_unknown and name in _LIMITS)
    if name not in _SETTINGS:
        what = "change" if by_value else "take out"
        return f"{what} {name} under extra_body in request.yaml"
    if by_value and not (is_unknown and name == "temperature"):
        setting = "request_seed" if name == "seed" else name
        return f"change {setting}, now {sent[name]!r}, {_WHERE}"
    other = next((one for one in _LIMITS if name in _LIMITS and one != name), None)
    instead = f" and {other}: {sent[name]}" if other and other not in sent else ""
    return f"set {_SETTINGS[name][0]}{instead} {_WHERE}"
