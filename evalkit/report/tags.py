"""The tags of a piece of HTML, told apart from what stands between them by a parser; what is not changed stays as it is.

A pattern over a whole page cannot know a tag from a quoted one: an example about HTML would be rewritten with the page.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import accumulate
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """One start or end tag.

    Attributes:
        start: Its first character's place in the markup; `end` is the place after its last one.
        closes: True for an end tag.
    """

    name: str
    attributes: dict[str, str]
    start: int
    end: int
    closes: bool = False

    def written(self, changed: Mapping[str, str] = MappingProxyType({})) -> str:
        """A start tag of this name with some attributes changed; what could end a value or a tag is escaped."""
        known = {**self.attributes, **changed}
        told = "".join(f' {name}="{html.escape(value)}"' for name, value in known.items())
        return f"<{self.name}{told}>"


def read_tags(markup: str) -> list[Tag]:
    """All tags in their order; comments and the content of style and script hold none."""
    reader = _Reader(markup)
    reader.feed(markup)
    reader.close()
    return reader.tags


def with_changes(markup: str, changes: Iterable[tuple[Tag, str]]) -> str:
    """The markup with some of its tags written anew; not one character outside of them is touched."""
    made, done = [], 0
    for tag, new in changes:
        made += [markup[done : tag.start], new]
        done = tag.end
    return "".join([*made, markup[done:]])


class _Reader(HTMLParser):
    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self._lines = [0, *accumulate(len(line) + 1 for line in markup.split("\n"))]
        self._markup = markup
        self.tags: list[Tag] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        start, known = self._place(), {name: value or "" for name, value in attrs}
        end = start + len(self.get_starttag_text() or "")
        self.tags.append(Tag(name=tag, attributes=known, start=start, end=end))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        start = self._place()
        end = self._markup.index(">", start) + 1
        self.tags.append(Tag(name=tag, attributes={}, start=start, end=end, closes=True))

    def _place(self) -> int:
        line, column = self.getpos()
        return self._lines[line - 1] + column
