"""Two texts with the words in which they differ marked; everything escaped."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from evalkit.wording import render_text

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_LONGEST = 4_000


def marked(old: str, new: str) -> tuple[str, str]:
    """Both texts as HTML: `<del>` around what only the first holds, `<ins>` around what only the second holds.

    Texts with more than 4,000 words together are shown unmarked: the comparison would take seconds.

    Example:
        >>> old, new = marked("I10: Hypertension", "I11: Hypertension")
        >>> "<del>" in old and "<ins>" in new
        True
    """
    left, right = _WORDS.findall(old), _WORDS.findall(new)
    if len(left) + len(right) > _LONGEST:
        return render_text(old), render_text(new)
    steps = SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    return (
        "".join(_part("".join(left[a:b]), "del", kind != "equal") for kind, a, b, _, _ in steps),
        "".join(_part("".join(right[c:d]), "ins", kind != "equal") for kind, _, _, c, d in steps),
    )


def _part(text: str, tag: str, differs: bool) -> str:
    if not text:
        return ""
    return f"<{tag}>{render_text(text)}</{tag}>" if differs else render_text(text)
