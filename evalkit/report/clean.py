"""What a notebook put out, made safe for the page: an allow list of tags, data images only, no script, no style."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping
from typing import Any

import nh3

from evalkit.redaction import without_secrets
from evalkit.wording import visible

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
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PROGRESS = re.compile(  # the lines of benchmark.progress; they stay in the notebook
    r"(?m)^[^\n]*: (?:the first answer took [^\n]*|[\d,]+ of [\d,]+ calls? to make[^\n]*|[\d,]+ of [\d,]+ calls? done[^\n]*)\n?"
)
_WIDGET = "application/vnd.jupyter.widget-view+json"


def cleaned(markup: str) -> str:
    """HTML from a notebook without anything that runs, loads, or styles."""
    safe = nh3.clean(
        markup,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_kept,
        clean_content_tags={"script", "style"},
        url_schemes={"http", "https", "mailto", "data"},
    )
    return _framed(re.sub(r"<img(?![^>]*\bsrc=)[^>]*>", "", visible(safe)))


def plain(text: str) -> str:
    """Text as HTML: escaped, terminal colours removed, unseen characters visible, secrets removed."""
    return html.escape(visible(without_secrets(_ANSI.sub("", text))))


def printed(text: str) -> str:
    """What was printed while it ran, folded away, our own progress left out: a chapter shows results, not messages."""
    text = _PROGRESS.sub("", text)
    if not text.strip():
        return ""
    return f'<details><summary>Messages while it ran</summary><pre tabindex="0">{plain(text)}</pre></details>'


def shown(data: Mapping[str, Any]) -> str:
    """One output, in the richest form the page can hold."""
    if _WIDGET in data:
        return '<p class="ek-note">An interactive part stands here in the notebook; the page shows its results only.</p>'
    if "text/html" in data:
        return cleaned(_text(data["text/html"]))
    if "image/svg+xml" in data:
        return _image(
            "svg+xml", base64.b64encode(_text(data["image/svg+xml"]).encode()).decode(), data
        )
    for kind in ("png", "jpeg"):
        if f"image/{kind}" in data:
            return _image(kind, "".join(_text(data[f"image/{kind}"]).split()), data)
    if "text/markdown" in data:
        return prose(_text(data["text/markdown"]))
    return f'<pre tabindex="0">{plain(_text(data.get("text/plain", "")))}</pre>'


def prose(source: str, first: bool = False) -> str:
    """Markdown as safe HTML; the title is left out, and what follows it in the first cell is folded away."""
    from nbconvert.filters import markdown2html_mistune

    title = re.match(r"\s*# [^\n]*\n?", source)
    text = source[title.end() :] if title else source
    text = re.sub(r"(?m)^(#+ *|\*\*)Answer(\*\*)?[.:]?\s*$", "", text)
    if not text.strip():
        return ""
    made = cleaned(
        re.sub(r'<a class="anchor-link".*?</a>', "", markdown2html_mistune(text), flags=re.DOTALL)
    )
    return (
        f'<details class="about"><summary>What goes in, what comes out</summary>{made}</details>'
        if first and title
        else made
    )


def with_heading_levels(markup: str, top: int = 3) -> str:
    """Renumbers headings so that none skips a level below `top - 1`."""
    depth = [top - 1]

    def renumbered(found: re.Match[str]) -> str:
        if found[1]:
            return f"</h{depth[-1]}>"
        depth.append(min(max(int(found[2]) + 1, top), depth[-1] + 1, 6))
        return f"<h{depth[-1]}>"

    return re.sub(r"<(/?)h([1-6])[^>]*>", renumbered, markup)


def with_unique_names(markup: str) -> str:
    """Numbers scroll boxes of the same name, so that each can be told apart."""
    seen: dict[str, int] = {}

    def numbered(found: re.Match[str]) -> str:
        seen[found[2]] = seen.get(found[2], 0) + 1
        return f'{found[1]}{found[2]}{f" ({seen[found[2]]})" if seen[found[2]] > 1 else ""}"'

    return re.sub(r'(role="region" aria-label=")([^"]*)"', numbered, markup)


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


def _framed(markup: str) -> str:
    framed = rf'{_BOX}<table class="dataframe">\1</table></div>'
    markup = re.sub(
        r'<table(?: border="1")? class="dataframe">(.*?)</table>', framed, markup, flags=re.DOTALL
    )
    markup = re.sub(r"<th[^>]*>(?:&nbsp;|\s)*</th>", "<td></td>", markup)
    return re.sub(r"<img(?![^>]*\balt=)", '<img alt="A figure without a description"', markup)


_BOX = '<div class="ek-scroll" tabindex="0" role="region" aria-label="Table">'


def _image(kind: str, content: str, data: Mapping[str, Any]) -> str:
    alt = _text(data.get("text/plain", "")) or "A figure without a description"
    return f'<figure class="ek-figure"><img src="data:image/{kind};base64,{content}" alt="{plain(alt)}"></figure>'


def _text(value: str | Iterable[str]) -> str:
    return value if isinstance(value, str) else "".join(value)
