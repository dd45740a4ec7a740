"""What a notebook put out, made safe for the page: an allow list of tags, data images only, no script, no style.

Tags are told apart from what stands between them by a parser, and what is not changed stays as it is: a pattern over a
whole page cannot know a tag from a quoted one, and an example about HTML would be rewritten with the page.
"""

from __future__ import annotations

import base64
import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import accumulate, pairwise

import nh3

from evalkit.files import JsonObject
from evalkit.show.tables import MADE_HERE
from evalkit.wording import plural, visible, without_secrets

_TAGS = nh3.ALLOWED_TAGS | {"picture", "source", "section", "tfoot"}
_ATTRIBUTES = {
    **nh3.ALLOWED_ATTRIBUTES,
    "*": {"class", "title", "lang", "dir"},
    "span": {"aria-hidden"},
    "div": {"aria-label"},
    "img": {"src", "alt", "width", "height"},
    "source": {"media", "srcset"},
    "td": {"colspan", "rowspan", "data-l"},
    "th": {"colspan", "rowspan", "scope"},
    "details": {"open"},
}
_VALUES = {"div": {"tabindex": {"0"}, "role": {"region", "group", "img"}}}
_IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]+\Z")
_PLAIN_CLASSES = {"dataframe", "num", "ek-chip", "ek-result", "ek-text"}
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PROGRESS = re.compile(  # the lines of benchmark.progress; they stay in the notebook
    r"(?m)^[^\n]*: (?:the first answer took [^\n]*|[\d,]+ of [\d,]+ calls? to make[^\n]*|[\d,]+ of [\d,]+ calls? done[^\n]*)\n?"
)
_OBJECT = re.compile(  # what plotting calls return besides the picture: an address in memory is no result
    r"\s*(?:\[|array\(\[)?\s*(?:<(?:matplotlib|seaborn)\.[^\n>]* at 0x[0-9a-f]+>|<Axes|<Figure size|Text\()"
)
_FIGURE = re.compile(r"<Figure size [\dx.]+ with (\d+) Axes>")
_WIDGET = "application/vnd.jupyter.widget-view+json"
_BOX = '<div class="ek-scroll" tabindex="0" role="region" aria-label="Table">'
_UNDESCRIBED = "A figure without a description"


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

    def written(self, name: str = "", changed: Mapping[str, str] = {}) -> str:
        """The tag with another name or some attributes changed; what could end a value or a tag is escaped."""
        if self.closes:
            return f"</{name or self.name}>"
        known = {**self.attributes, **changed}
        told = "".join(f' {key}="{html.escape(value)}"' for key, value in known.items())
        return f"<{name or self.name}{told}>"


_END = Tag(name="", attributes={}, start=-1, end=-1)


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

    def handle_endtag(self, tag: str) -> None:
        start = self._place()
        end = self._markup.index(">", start) + 1
        self.tags.append(Tag(name=tag, attributes={}, start=start, end=end, closes=True))

    def _place(self) -> int:
        line, column = self.getpos()
        return self._lines[line - 1] + column


def cleaned(markup: str, *, ours: bool = False) -> str:
    """HTML from a notebook without anything that runs, loads, or styles; only `ours` keeps the classes that say something."""
    safe = nh3.clean(
        visible(markup),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        tag_attribute_values=_VALUES,
        attribute_filter=_kept if ours else _kept_of_others,
        clean_content_tags={"script", "style"},
        url_schemes={"http", "https", "mailto", "data"},
    )
    return _mended(visible(safe))


def plain(text: str) -> str:
    """Text as HTML: escaped, terminal colours removed, unseen characters visible, secrets removed."""
    return html.escape(visible(without_secrets(_ANSI.sub("", text))))


def printed(text: str) -> str:
    """What was printed while it ran, folded away, our own progress left out: a chapter shows results, not messages."""
    text = _PROGRESS.sub("", text)
    if not text.strip():
        return ""
    return f"<details><summary>Messages while it ran</summary>{_preformatted(text)}</details>"


def shown(data: JsonObject, metadata: JsonObject | None = None) -> str:
    """One output, in the richest form the page can hold; its metadata say whether `show` has made it."""
    if _WIDGET in data:
        return '<p class="ek-note">An interactive part stands here in the notebook; the page shows its results only.</p>'
    known = {kind: one for kind, one in data.items() if kind.startswith(("text/", "image/"))}
    said = {kind: one if isinstance(one, str) else "".join(one) for kind, one in known.items()}
    text = said.get("text/plain", "")
    if "text/html" in said:
        return cleaned(said["text/html"], ours=(metadata or {}).get(MADE_HERE) is True)
    if "image/svg+xml" in said:
        svg = base64.b64encode(said["image/svg+xml"].encode())
        return _image("svg+xml", svg.decode(), text)
    for kind in ("png", "jpeg"):
        if f"image/{kind}" in said:
            return _image(kind, "".join(said[f"image/{kind}"].split()), text)
    if "text/markdown" in said:
        return _from_markdown(said["text/markdown"])
    return "" if _OBJECT.match(text) else _preformatted(text)


def prose(source: str, first: bool = False) -> str:
    """A Markdown cell as safe HTML; the title is left out, and what follows it in the first cell is folded away."""
    title = re.match(r"\s*# [^\n]*\n?", source)
    text = source[title.end() :] if title else source
    text = re.sub(r"(?m)^(#+ *|\*\*)Answer(\*\*)?[.:]?\s*$", "", text)
    if not text.strip():
        return ""
    made = _from_markdown(text)
    return (
        f'<details class="about"><summary>What goes in, what comes out</summary>{made}</details>'
        if first and title
        else made
    )


def with_heading_levels(markup: str) -> str:
    """Renumbers headings so that they begin at the third level and none skips one."""
    depth, changes = 2, []
    for tag in read_tags(markup):
        if not re.fullmatch("h[1-6]", tag.name):
            continue
        if not tag.closes:
            depth = min(max(int(tag.name[1]) + 1, 3), depth + 1, 6)
        changes.append((tag, tag.written(f"h{depth}")))
    return with_changes(markup, changes)


def with_unique_names(markup: str) -> str:
    """Numbers scroll boxes of the same name, so that each can be told apart."""
    seen, changes = Counter[str](), []
    for tag in read_tags(markup):
        name = tag.attributes.get("aria-label")
        if name is None or tag.attributes.get("role") != "region":
            continue
        seen[name] += 1
        if seen[name] > 1:
            changes.append((tag, tag.written(changed={"aria-label": f"{name} ({seen[name]})"})))
    return with_changes(markup, changes)


def _kept(tag: str, name: str, value: str) -> str | None:
    if tag in {"img", "source"} and name in {"src", "srcset"}:
        return value if _IMAGE.match(value) else None
    if name == "href":
        return value if value.startswith(("http://", "https://", "mailto:")) else None
    return value


def _kept_of_others(tag: str, name: str, value: str) -> str | None:
    """No text from outside is an answer or a verdict of ours, or looks like one."""
    if name == "class":
        return " ".join(one for one in value.split() if one in _PLAIN_CLASSES) or None
    return _kept(tag, name, value)


def _preformatted(text: str) -> str:
    """A parser drops a line end that follows the tag at once, so one is put there for it to drop."""
    return f'<pre tabindex="0">\n{plain(text)}</pre>'


def _from_markdown(text: str) -> str:
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    renderer = IPythonRenderer(escape=False, exclude_anchor_links=True)
    return cleaned(MarkdownWithMath(renderer=renderer).render(text))


def _mended(markup: str) -> str:
    """Words for each image, none without a source; and no "<" but at the start of a tag, not in an attribute either."""
    changes = []
    for tag in read_tags(markup):
        if tag.name == "img":
            alt = {"alt": tag.attributes.get("alt", _UNDESCRIBED)}
            changes.append((tag, tag.written(changed=alt) if "src" in tag.attributes else ""))
        elif not tag.closes:
            changes.append((tag, tag.written()))
    return _with_tables_mended(with_changes(markup, changes))


def _with_tables_mended(markup: str) -> str:
    """Data frames scroll in a box of their own, and heads that are empty become cells: pandas has one above its index."""
    tags, changes, boxed = read_tags(markup), [], list[bool]()
    for tag, after in pairwise([*tags, _END]):
        is_frame = tag.name == "table" and tag.attributes.get("class") == "dataframe"
        if tag.name == "table" and not tag.closes:
            boxed.append(is_frame)
        if tag.name == "table" and tag.closes and boxed.pop():
            changes.append((tag, "</table></div>"))
        elif is_frame:
            changes.append((tag, f'{_BOX}<table class="dataframe">'))
        between = html.unescape(markup[tag.end : after.start])
        if tag.name == after.name == "th" and after.closes and not between.strip():
            changes += [(tag, tag.written("td")), (after, "</td>")]
    return with_changes(markup, changes)


def _image(kind: str, content: str, alt: str) -> str:
    try:
        is_image = base64.b64decode(content, validate=True) != b""
    except ValueError:
        is_image = False
    if not is_image:
        return '<p class="ek-note">An image that is damaged stands here in the notebook.</p>'
    if plain_figure := _FIGURE.match(alt):
        alt = f"A figure with {plural(int(plain_figure[1]), 'panel')}, drawn without a description"
    source = f"data:image/{kind};base64,{content}"
    return f'<figure class="ek-figure"><img src="{source}" alt="{plain(alt or _UNDESCRIBED)}"></figure>'
