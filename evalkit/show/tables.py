"""Tables, sentences and chips as safe HTML that reads well in a notebook, on the report's page and on a phone."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import singledispatch
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit import wording
from evalkit.conversation import Conversation, conversation_css, folded
from evalkit.show.style import kind_of

if TYPE_CHECKING:
    import pandas as pd

_GLYPHS = {"better": "●", "worse": "◆", "unsure": "○"}
_ROOMS = (  # where records learn what they answer
    "evalkit.show.comparison",
    "evalkit.show.regressions",
    "evalkit.show.human",
    "evalkit.show.abtest",
    "evalkit.show.decision",
)
Row = Mapping[str, object]  # of a table: what stands under each name
MADE_HERE = "evalkit"  # in the metadata of an output


@dataclass(frozen=True, slots=True)
class Html:
    """Finished HTML and what it says in plain text.

    Attributes:
        body: The HTML, escaped where it must be.
        text: The same for terminals and for readers without HTML.
    """

    body: str
    text: str

    def __str__(self) -> str:
        return wording.visible(self.text)

    def __repr__(self) -> str:
        return str(self)

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, str], dict[str, bool]]:
        """With a word beside the output that no text inside of it can say: it was made here."""
        del include, exclude
        return {"text/html": self._repr_html_(), "text/plain": str(self)}, {MADE_HERE: True}

    def _repr_html_(self) -> str:
        return f"<style>{notebook_css()}</style>{wording.visible(self.body)}"


def notebook_css() -> str:
    """The few rules that outputs need outside the report, whose page drops them and brings its own."""
    own = Path(__file__).with_name("notebook.css").read_text(encoding="utf-8")
    return own + conversation_css()


def table(
    rows: pd.DataFrame | Iterable[Row],
    *,
    caption: str = "",
    columns: Mapping[str, str] | None = None,
    numeric: Iterable[str] = (),
    open_rows: int | None = None,
) -> Html:
    """A table that scrolls in its own box and turns into labelled blocks on a phone.

    Args:
        rows: A data frame, or an iterable of mappings from name to value.
        caption: What the table says; also the name of its scroll box.
        columns: Names to show, in order, mapped to their headings; all by default.
        numeric: Names whose cells are numbers or intervals: right-aligned and unbroken.
        open_rows: How many rows stand open; the rest is folded away. All by default.

    Example:
        >>> print(table([{"slice": "multi", "n": 96}], columns={"slice": "Slice", "n": "Notes"}))
        Slice  Notes
        multi  96
    """
    made = rows if (frame := getattr(rows, "to_dict", None)) is None else frame("records")
    records: list[Row] = [{str(name): value for name, value in row.items()} for row in made]
    names = columns or {name: name.replace("_", " ") for one in records for name in one}
    right = set(numeric)
    right |= {name for name in names if _all_numbers(record.get(name) for record in records)}
    titles = ((_class(name in right), html.escape(title)) for name, title in names.items())
    head = "".join(f'<th scope="col"{look}>{title}</th>' for look, title in titles)
    body = [_row(record, names, right) for record in records]
    n_shown = len(body) if open_rows is None else open_rows
    nothing = f'<tr><td colspan="{max(len(names), 1)}">None.</td></tr>'
    # A printed page shows a few examples, and caps their height.
    cells = (value for record in records for value in record.values())
    kind = " ek-examples" if any(isinstance(value, Conversation) for value in cells) else ""

    def boxed(name: str, rows: Iterable[str], title: str = "") -> str:
        look = f'class="ek-scroll{kind} tex2jax_ignore mathjax_ignore" tabindex="0" role="region"'
        inside = f"{title}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
        whole = f'<table class="ek-table stack">{inside}</table>'
        return f'<div {look} aria-label="{html.escape(name)}">{whole}</div>'

    name, title = caption or "Table", f"<caption>{html.escape(caption)}</caption>"
    markup = boxed(name, body[:n_shown] or [nothing], title if caption else "")
    if more := body[n_shown:]:
        summary = f"<summary>{wording.count(len(more))} more</summary>"
        rest = boxed(f"{name}, continued", more)
        markup += f'<details class="ek-more">{summary}{rest}</details>'
    return Html(markup, _as_text(records, names))


@singledispatch
def answer(result: object, *more: object) -> Html:
    """The computed answer of a chapter; the report shows it under the chapter's title.

    Args:
        result: The record that answers; or the sentence itself, with `simulated=True` where it rests on simulated raters
            or users: the report marks the whole chapter then.
        *more: Further records that this one's answer needs.

    Raises:
        TypeError: Nothing is known that this kind of record answers.
    """
    for room in _ROOMS:
        import_module(room)
    known = answer.dispatch(type(result))
    if known is answer.dispatch(object):
        raise TypeError(
            f"{type(result).__name__} answers nothing; give a chapter's record or a sentence"
        )
    return known(result, *more)


@answer.register
def _sentence(result: str, *, simulated: bool = False) -> Html:
    return _paragraph("ek-answer ek-simulated" if simulated else "ek-answer", result)


def note(text: str) -> Html:
    """A caveat or a condition, in a smaller voice."""
    return _paragraph("ek-note", text)


def joined(*parts: Html) -> Html:
    """Several displays as one, in this order; nothing at all when there is none."""
    return Html("".join(one.body for one in parts), "\n".join(one.text for one in parts))


def sentences(lines: Iterable[str], *, none: str = "None.") -> Html:
    """Sentences as a list; `none` when there are none."""
    told = list(lines) or [none]
    items = "".join(f"<li>{wording.render_text(line)}</li>" for line in told)
    return Html(f'<ul class="ek-list">{items}</ul>', "\n".join(f"- {line}" for line in told))


def chip(word: str, kind: str = "") -> Html:
    """A verdict as a word with its glyph: kind is better, worse, unsure, simulated, or a verdict (default: the word's own)."""
    said = (kind or word).lower()
    kind = said if said in {*_GLYPHS, "simulated"} else kind_of(said)
    glyph = f'<span aria-hidden="true">{_GLYPHS[kind]}</span> ' if kind in _GLYPHS else ""
    return Html(f'<span class="ek-chip-{kind} ek-verdict">{glyph}{html.escape(word)}</span>', word)


def _paragraph(kind: str, text: str) -> Html:
    return Html(f'<p class="{kind}">{wording.render_text(text)}</p>', text)


def _all_numbers(values: Iterable[object]) -> bool:
    kinds = {type(value) for value in values if value is not None}
    return bool(kinds) and all(issubclass(k, int | float) and k is not bool for k in kinds)


def _class(numeric: bool) -> str:
    return ' class="num"' if numeric else ""


def _row(record: Row, names: Mapping[str, str], right: set[str]) -> str:
    cells = []
    for name, title in names.items():
        tag, more = "td", f' data-l="{html.escape(title)}"'
        if not cells:
            tag, more = "th", ' scope="row"'
        cells.append(f"<{tag}{more}{_class(name in right)}>{_cell(record.get(name))}</{tag}>")
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: object) -> str:
    if isinstance(value, Conversation):
        return value.body
    text = value.text if isinstance(value, Html) else _value_text(value)
    return folded(text, value.body if isinstance(value, Html) else wording.render_text(text))


def _value_text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return wording.NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return wording.count(value)
    return wording.number(value) if isinstance(value, float) else str(value)


def _as_text(records: list[Row], names: Mapping[str, str]) -> str:
    texts = ([_value_text(record.get(name)) for name in names] for record in records)
    lines = [[*names.values()], *texts]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ([one.ljust(n) for one, n in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)
