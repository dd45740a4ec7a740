"""What a notebook put out, made safe for the page: an allow list of tags, data images only, no script, no style.

Once cleaned, a "<" stands at the start of a tag and nowhere else, not in a text and not in an attribute. So a pattern knows
a tag from one that an example quotes, and what it does not change stays as it is.
"""

from __future__ import annotations

import base64
import html
import re
from collections import Counter

import nh3

from evalkit.files import JsonObject
from evalkit.show.tables import MADE_HERE
from evalkit.wording import visible, without_secrets

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
_IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/\s]+={0,2}\s*\Z")
_PLAIN_CLASSES = {"dataframe", "num", "ek-chip", "ek-result", "ek-text"}
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PROGRESS = re.compile(  # the lines of benchmark.progress; they stay in the notebook
    r"(?m)^[^\n]*: (?:the first answer took [^\n]*|[\d,]+ of [\d,]+ calls? to make[^\n]*|[\d,]+ of [\d,]+ calls? done[^\n]*)\n?"
)
_OBJECT = re.compile(  # what plotting calls return besides the picture: an address in memory is no result
    r"\s*(?:\[|array\(\[)?\s*(?:<(?:matplotlib|seaborn)\.[^\n>]* at 0x[0-9a-f]+>|<Axes|<Figure size|Text\()"
)
_WIDGET = "application/vnd.jupyter.widget-view+json"
_BOX = '<div class="ek-scroll" tabindex="0" role="region" aria-label="Table">'
_TAG = re.compile(r'<((?:[^"<>]|"[^"]*")*)>')  # as nh3 writes one: each value in double quotes
_REGION = re.compile(r'<\w+\b(?=[^<>]* role="region")[^<>]* aria-label="([^"<>]*)')
_EMPTY_HEAD = re.compile(r"<th\b([^<>]*)>((?:\s|&nbsp;)*)</th>")
_UNDESCRIBED = "A figure without a description"


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
    made, about = _from_markdown(text), "What goes in, what comes out"
    if not (first and title):
        return made
    return f'<details class="about"><summary>{about}</summary>{made}</details>'


def with_heading_levels(markup: str) -> str:
    """Renumbers headings so that they begin at the third level and none skips one."""
    depth = 2

    def renumbered(tag: re.Match[str]) -> str:
        nonlocal depth
        if not tag[1]:
            depth = min(max(int(tag[2]) + 1, 3), depth + 1, 6)
        return f"<{tag[1]}h{depth}"

    return re.sub(r"<(/?)h([1-6])\b", renumbered, markup)


def with_unique_names(markup: str) -> str:
    """Numbers scroll boxes of the same name, so that each can be told apart."""
    seen = Counter[str]()

    def numbered(box: re.Match[str]) -> str:
        seen[box[1]] += 1
        return box[0] + (f" ({seen[box[1]]})" if seen[box[1]] > 1 else "")

    return _REGION.sub(numbered, markup)


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
    markup = _TAG.sub(lambda tag: f"<{tag[1].replace('<', '&lt;').replace('>', '&gt;')}>", markup)
    return _with_tables_mended(re.sub(r"<img\b[^<>]*>", _described, markup))


def _described(image: re.Match[str]) -> str:
    if ' src="' not in image[0]:
        return ""
    return image[0] if ' alt="' in image[0] else f'{image[0][:-1]} alt="{_UNDESCRIBED}">'


def _with_tables_mended(markup: str) -> str:
    """Data frames scroll in a box of their own, and heads that are empty become cells: pandas has one above its index."""
    are_frames: list[bool] = []

    def boxed(tag: re.Match[str]) -> str:
        if tag[1]:
            return "</table></div>" if are_frames.pop() else tag[0]
        are_frames.append(' class="dataframe"' in tag[0])
        return f'{_BOX}<table class="dataframe">' if are_frames[-1] else tag[0]

    return _EMPTY_HEAD.sub(r"<td\1>\2</td>", re.sub(r"<(/?)table\b[^<>]*>", boxed, markup))


def _image(kind: str, content: str, alt: str) -> str:
    source = f"data:image/{kind};base64,{content}"
    if not _IMAGE.match(source):
        return '<p class="ek-note">An image that is damaged stands here in the notebook.</p>'
    said = _UNDESCRIBED if not alt or alt.startswith("<Figure size") else plain(alt)
    return f'<figure class="ek-figure"><img src="{source}" alt="{said}"></figure>'
