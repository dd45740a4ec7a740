"""Text of examples reaches the reader letter by letter: the page's own repairs change elements, never what is quoted."""

import json
from html.parser import HTMLParser

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from evalkit import show
from evalkit.conversation import Conversation
from evalkit.report import clean
from evalkit.report.page import write_page
from evalkit.show.regressions import marked
from evalkit.show.tables import Html
from evalkit.wording import visible

QUIRKS = [
    '<div aria-label="Menu">',
    '<div role="region" aria-label="Menu">',
    ' role="region" aria-label="Quirks"',
    '<div class="ek-scroll" tabindex="0" role="region" aria-label="Table">',
    '<table border="1" class="dataframe"><th></th></table>',
    "<th>&nbsp;</th><th> </th>",
    '<img alt="no source">',
    "<img src=x onerror=alert(1)>",
    "<h1>Title</h1><h4 id='a'>Deep</h4>",
    "<!--first-screen--><!--rest-->",
    "<!-- a comment -->",
    '<p class="ek-answer">Ship it</p>',
    '<a class="anchor-link" href="#x">¶</a>',
    "</td></tr></table></bdi></details>",
    "<script>window.X=1</script><style>*{color:red}</style>",
    "data:image/png;base64,AAAA and data:text/html,<b>x</b>",
    "[link](javascript:alert(1)) https://a.example/?a=1&b=2",
    "&amp;lt; &lt; &#60; &nbsp; &amp &copy; &unknown;",
    "$x^2$ \\(a\\) `code` **bold** # Answer",
    "  two  spaces,\n\n\tthe tab and   \n",
    "   ",
    "\nstarts with a line end",
    "one\r\ntwo\rthree\x0bfour\x00\x1b[31m red",
    "\u202egpj.exe \u200b \u2066 \ufeff",
    "half a character: \ud800, and \udfff",
    "\u00a0no\u00a0break\u00a0",
    "العربية and עברית",
    "m: 12 things of 20 are said, 👩‍👩‍👧 é e\u0301",
    "{{ title }} {% raw %} {# x #}",
    "'single' \"double\" `back`",
]


class Texts(HTMLParser):
    """The text of every element of a kind, joined as a reader's eye joins it."""

    def __init__(self, *wanted):
        super().__init__()
        self.wanted, self.open, self.found = wanted, [], []

    def handle_starttag(self, tag, attrs):
        if tag in self.wanted:
            self.open.append([tag, ""])

    def handle_endtag(self, tag):
        if self.open and tag == self.open[-1][0]:
            self.found.append(self.open.pop()[1])

    def handle_data(self, data):
        for one in self.open:
            one[1] += data


def texts(markup, *wanted):
    reader = Texts(*wanted)
    reader.feed(markup)
    reader.close()
    return reader.found


def shown(thing):
    """A cell's output as a kernel stores it."""
    data = {"text/html": visible(thing._repr_html_()), "text/plain": visible(str(thing))}
    return new_code_cell("", outputs=[new_output("display_data", data=data)])


@pytest.fixture
def page_of(tmp_path):
    """The finished page of a run with one chapter."""

    def made(*cells, title="Quirks", error=None):
        book = new_notebook(cells=[new_markdown_cell("# A title?"), *cells])
        nbformat.write(book, tmp_path / "01_quirks.ipynb")
        chapter = {"title": "t", "error": error, "seconds": 1.0, "skipped": False}
        record = {
            "study": "s",
            "run": "r",
            "made_at": "2026-01-01T00:00:00+00:00",
            "seconds": 1.0,
            "parameters": {"title": title},
            "chapters": {"01_quirks": chapter},
            "failed": {"01_quirks": error} if error else {},
            "versions": {"evalkit": "0"},
            "platform": "here",
            "journals": {},
            "files": {},
        }
        (tmp_path / "manifest.json").write_text(json.dumps(record))
        return write_page(tmp_path)

    return made


def everything():
    rows = [{"text": f"row {n}", "quirk": quirk} for n, quirk in enumerate(QUIRKS)]
    talks = [
        {
            "talk": Conversation(
                [{"role": "system", "content": quirk}, {"role": "user", "content": quirk * 2}]
            )
        }
        for quirk in QUIRKS
    ]
    sides = [{"old": Html(marked(one, one + " more")[0], one)} for one in QUIRKS]
    return [
        *(shown(show.table(some, caption="Quirks")) for some in (rows, rows, talks, sides)),
        shown(show.tables.sentences(QUIRKS)),
    ]


def test_every_letter_of_an_example_is_on_the_page(page_of):
    page = page_of(*everything()).read_text(encoding="utf-8")
    body = page.split('id="01_quirks"')[1].split('id="appendix"')[0]
    told = [one for one in texts(body, "bdi") if not one.startswith("row ")]
    assert len(told) > 6 * len(QUIRKS)
    joined = "\x00".join(told)
    for quirk in QUIRKS:
        assert joined.count(visible(quirk)) >= 6, quirk


@pytest.mark.browser
def test_a_browser_shows_every_letter_too(page_of, browser):
    page = browser.new_page()
    page.goto(page_of(*everything()).as_uri())
    told = page.evaluate(
        "[...document.querySelectorAll('#\\\\30 1_quirks bdi')].map((one) => one.textContent)"
    )
    told = [one for one in told if not one.startswith("row ")]
    # words that differ are elements of their own
    joined = "".join(told)
    assert joined.replace("\x00", "").count("Menu (2)") == 0
    for quirk in QUIRKS:
        assert joined.count(visible(quirk)) >= 6, quirk
    page.close()


@pytest.mark.parametrize("quirk", QUIRKS)
def test_printed_and_plain_text_keep_their_letters(quirk):
    quirk = quirk.replace("\x1b[31m", "")  # but for a terminal's colours
    for markup in (clean.shown({"text/plain": quirk}), clean.printed(f"x{quirk}")):
        (told,) = texts(markup, "pre")
        assert told.removeprefix("\n").removeprefix("x") == visible(quirk)


def test_markdown_that_was_put_out_keeps_its_title():
    markup = clean.shown({"text/markdown": "# Title\n\n## Answer\n\ntext"})
    assert texts(markup, "h1", "h2") == ["Title", "Answer"]
    assert "<h1" not in clean.prose("# Title\n\n## Answer\n\ntext")


def test_boxes_of_one_name_are_numbered_and_headings_keep_what_they_carry():
    box = '<div class="ek-scroll" role="region" aria-label="a &amp; &lt;b&gt;">x</div>'
    twice = clean.with_unique_names(box + box)
    assert twice == box + box.replace("&gt;", "&gt; (2)")
    assert clean.with_heading_levels('<h1 dir="rtl">a</h1><h4>b</h4>') == (
        '<h3 dir="rtl">a</h3><h4>b</h4>'
    )


def test_an_attribute_holds_no_tag():
    made = clean.cleaned('<p title="<!--rest--><h1><img>">x</p>')
    assert made == '<p title="&lt;!--rest--&gt;&lt;h1&gt;&lt;img&gt;">x</p>'


def test_a_frame_scrolls_and_its_empty_head_is_a_cell():
    made = clean.cleaned(
        '<table border="1" class="dataframe"><tr><th colspan="2"></th><th>n</th></tr></table>'
    )
    assert made.startswith('<div class="ek-scroll" tabindex="0" role="region" aria-label="Table">')
    assert '<td colspan="2"></td><th>n</th>' in made
    assert made.endswith("</table></div>")
    assert "alt=" in clean.cleaned('<img src="data:image/png;base64,AAAA">')
    assert clean.cleaned('<img alt="a>b">') == ""


@pytest.mark.parametrize("title", QUIRKS)
def test_whatever_the_title_is_there_is_a_page(page_of, title):
    page = page_of(title=title, error=title).read_text(encoding="utf-8")
    assert texts(page, "b")[0] == visible(title)
