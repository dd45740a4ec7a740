r"""Characters that nobody sees, shown as marks such as \u202e: they hide text, turn it round, or drive a terminal.

Line ends and tabs stay. So do a variation selector behind the sign it belongs to, as in emoji, and Arabic number signs.
"""

from __future__ import annotations

import re

UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"  # invisible, bidirectional
    "\u2800\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # half characters, and what XML forbids
    "\ufe00-\ufe0d\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # tags, further selectors
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(1, 17))
    + "]|(?<![^\\s\ufe00-\ufe0f])[\ufe0e\ufe0f]"
)


def visible(text: str) -> str:
    """Plain text in which control, bidirectional and invisible characters and half characters stand as visible codes."""
    return UNSEEN.sub(lambda found: mark(found[0]), text)


def is_blank(text: str) -> bool:
    """Whether there is nothing to read in it."""
    return not UNSEEN.sub("", text).strip()


def mark(char: str) -> str:
    r"""The code that stands for a character.

    Example:
        >>> mark("\u202e"), mark("\U000e0041")
        ('\\u202e', '\\U000e0041')
    """
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
