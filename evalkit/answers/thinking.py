"""A model's thoughts told from its answer, in the shapes in use; what merely quotes such a tag is left as it is."""

from __future__ import annotations

import re
from itertools import islice

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
