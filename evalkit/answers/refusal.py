"""What part of a request a server refuses, by its words, and what to set instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from evalkit.answers.shapes import REQUEST

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
