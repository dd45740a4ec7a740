"""What a notebook put out, made safe for the page: an allow list of tags, data images only, no script, no style."""

from __future__ import annotations

import base64
import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import nh3

from evalkit.redaction import without_secrets
from evalkit.report.tags import read_tags, with_changes
from evalkit.show.tables import MADE_HERE
from evalkit.wording import plural, visible

_TAGS = nh3.ALLOWED_TAGS | {
    "figure",
    "figcaption",
    "picture",
    "source",
    "details",
    "summary",
    "caption",
    "bdi",
    "section",
    "tfoot",
}
_EVERYWHERE = {"class", "title", "lang", "dir"}
_ATTRIBUTES = {
    **nh3.ALLOWED_ATTRIBUTES,
    "*": _EVERYWHERE,
    "div": {"tabindex", "role", "aria-label"},
    "span": {"aria-hidden"},
    "img": {"src", "alt", "width", "height"},
    "source": {"media", "srcset"},
    "td": {"colspan", "rowspan", "data-l"},
    "th": {"colspan", "rowspan", "scope"},
    "details": {"open"},
}
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


def cleaned(markup: str, *, ours: bool = False) -> str:
    """HTML from a notebook without anything that runs, loads, or styles; only `ours` keeps the classes that say something."""
    safe = nh3.clean(
        visible(markup),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
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


def shown(data: Mapping[str, Any], metadata: Mapping[str, Any] = MappingProxyType({})) -> str:
    """One output, in the richest form the page can hold; its metadata say whether `show` has made it."""
    if _WIDGET in data:
        return '<p class="ek-note">An interactive part stands here in the notebook; the page shows its results only.</p>'
    if "text/html" in data:
        return cleaned(_text(data["text/html"]), ours=metadata.get(MADE_HERE) is True)
    if "image/svg+xml" in data:
        return _image(
            "svg+xml", base64.b64encode(_text(data["image/svg+xml"]).encode()).decode(), data
        )
    for kind in ("png", "jpeg"):
        if f"image/{kind}" in data:
            return _image(kind, "".join(_text(data[f"image/{kind}"]).split()), data)
    if "text/markdown" in data:
        return _from_markdown(_text(data["text/markdown"]))
    text = _text(data.get("text/plain", ""))
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
        changes.append(
            (tag, f"</h{depth}>" if tag.closes else replace(tag, name=f"h{depth}").written())
        )
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
            changes.append((tag, tag.written({"aria-label": f"{name} ({seen[name]})"})))
    return with_changes(markup, changes)


def _kept(tag: str, name: str, value: str) -> str | None:
    if tag in {"img", "source"} and name in {"src", "srcset"}:
        return value if _IMAGE.match(value) else None
    if name == "href":
        return value if value.startswith(("http://", "https://", "mailto:")) else None
    if name == "tabindex":
        return value if value == "0" else None
    if name == "role":
        return value if value in {"region", "group", "img"} else None
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
    return _in_boxes(_with_heads_that_say_something(_with_images_described(markup)))


def _with_images_described(markup: str) -> str:
    """Words for each image, none without a source; and no "<" but at the start of a tag, not in an attribute either."""
    changes = []
    for tag in read_tags(markup):
        if tag.name == "img":
            described = {"alt": "A figure without a description"} | tag.attributes
            changes.append((tag, tag.written(described) if "src" in described else ""))
        elif not tag.closes:
            changes.append((tag, tag.written()))
    return with_changes(markup, changes)


def _with_heads_that_say_something(markup: str) -> str:
    """Heads of rows and columns that are empty become cells: a table of pandas has one above its index."""
    tags, changes = read_tags(markup), []
    for tag, after in pairwise(tags):
        between = html.unescape(markup[tag.end : after.start])
        if tag.name == after.name == "th" and after.closes and not between.strip():
            changes += [(tag, replace(tag, name="td").written()), (after, "</td>")]
    return with_changes(markup, changes)


def _in_boxes(markup: str) -> str:
    """Data frames scroll in a box of their own."""
    changes, opened = [], list[bool]()
    for tag in read_tags(markup):
        if tag.name != "table":
            continue
        is_frame = tag.attributes.get("class") == "dataframe"
        if not tag.closes:
            opened.append(is_frame)
        if tag.closes and opened.pop():
            changes.append((tag, "</table></div>"))
        elif is_frame:
            changes.append((tag, f'{_BOX}<table class="dataframe">'))
    return with_changes(markup, changes)


_BOX = '<div class="ek-scroll" tabindex="0" role="region" aria-label="Table">'


def _image(kind: str, content: str, data: Mapping[str, Any]) -> str:
    if not _is_base64(content):
        return '<p class="ek-note">An image that is damaged stands here in the notebook.</p>'
    alt = _text(data.get("text/plain", "")) or "A figure without a description"
    if plain_figure := _FIGURE.match(alt):
        alt = f"A figure with {plural(int(plain_figure[1]), 'panel')}, drawn without a description"
    return f'<figure class="ek-figure"><img src="data:image/{kind};base64,{content}" alt="{plain(alt)}"></figure>'


def _is_base64(content: str) -> bool:
    try:
        return bool(base64.b64decode(content, validate=True))
    except ValueError:
        return False


def _text(value: str | Iterable[str]) -> str:
    return value if isinstance(value, str) else "".join(value)
