"""Two texts with the words marked in which they differ."""

from __future__ import annotations

import re

from rapidfuzz.distance import Indel

from evalkit.wording import render_text

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_MOST_WORDS = 20_000
_Runs = list[tuple[bool, str, str]]


def marked(old: str, new: str) -> tuple[str, str]:
    """Both texts as HTML: `<del>` around what only the first holds, `<ins>` around what only the second holds.

    Texts with more than 20,000 words and spaces together are shown unmarked: drawing them would take a second.

    Example:
        >>> old, new = marked("I10: Hypertension", "I11: Hypertension")
        >>> "<del>" in old and "<ins>" in new
        True
    """
    if (runs := _runs(old, new)) is None:
        return render_text(old), render_text(new)
    left = "".join(_part(text, "" if same else "del") for same, text, _ in runs)
    return left, "".join(_part(text, "" if same else "ins") for same, _, text in runs)


def merged(old: str, new: str) -> str:
    """The second text as HTML with what it lacks of the first standing in it, in `<del>`, and what it adds in `<ins>`.

    Example:
        >>> merged("I10", "I11").count("<del>"), merged("I10", "I10").count("<del>")
        (1, 0)
    """
    if (runs := _runs(old, new)) is None:
        return render_text(new)
    return "".join(
        _part(left, "") if same else _part(left, "del") + _part(right, "ins")
        for same, left, right in runs
    )


def _runs(old: str, new: str) -> _Runs | None:
    """The texts in runs that are the same in both or not; a space between two changes belongs to them."""
    left, right = _WORDS.findall(old), _WORDS.findall(new)
    if len(left) + len(right) > _MOST_WORDS:
        return None
    steps = Indel.opcodes(left, right)
    runs: _Runs = []
    for place, step in enumerate(steps):
        a = "".join(left[step.src_start : step.src_end])
        b = "".join(right[step.dest_start : step.dest_end])
        between = a.isspace() and 0 < place < len(steps) - 1
        same = step.tag == "equal" and not between
        if runs and runs[-1][0] == same:
            a, b = runs[-1][1] + a, runs.pop()[2] + b
        runs.append((same, a, b))
    return runs


def _part(text: str, tag: str) -> str:
    if not text:
        return ""
    return f"<{tag}>{render_text(text)}</{tag}>" if tag else render_text(text)
