"""Text from outside in chapters of one's own: it is shown, and never runs, answers, hides, or pushes the page apart."""

import base64
import json
import re
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from evalkit import show
from evalkit.decision import decide
from evalkit.report import clean
from evalkit.report.page import write_page
from evalkit.show import verdict as spoken
from evalkit.wording import visible

NAME = "x" * 60
AWAY = '"><meta http-equiv=refresh content="0;url=https://evil.example/">'
NOT_SEEN = "\ufffe\uffff\ufdd0\U0001ffff\U000e0041\u202e\u200b\x00\x08\x1b\xad\u3164\u2800\ufff9"


def output(data, **metadata):
    return new_code_cell("", outputs=[new_output("display_data", data=data, metadata=metadata)])


def ours(thing):
    data, metadata = thing._repr_mimebundle_()
    return output(data, **metadata)


@pytest.fixture
def page_of(tmp_path):
    def made(*cells, name="tiny", decided=False):
        book = new_notebook(cells=[new_markdown_cell(f"# {name}"), *cells])
        nbformat.write(book, tmp_path / "01_own.ipynb")
        record = {
            "study": name,
            "run": "r",
            "made_at": "2026-01-01T00:00:00+00:00",
            "seconds": 1.0,
            "parameters": {"title": name, name: name},
            "chapters": {"01_own": {"title": "t", "error": None, "seconds": 1.0}},
            "failed": {},
            "versions": {"evalkit": "0", name: name},
            "platform": name,
            "journals": {"base_journal": {"model": name}},
            "files": {name: name},
            "notes": [name],
        }
        (tmp_path / "manifest.json").write_text(json.dumps(record))
        if decided:
            spoken.write(decide({}, study=name), tmp_path)
        return write_page(tmp_path)

    return made


def test_an_image_that_is_no_base64_is_left_out(page_of):
    good = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    for kind in ("png", "jpeg"):
        for bad in (AWAY, "AAAA" + AWAY, good + "=AAAA", "é", ""):
            made = clean.shown({f"image/{kind}": bad, "text/plain": AWAY})
            assert "evil" not in made
            assert "<img" not in made
    assert f"base64,{good}" in clean.shown({"image/png": good[:4] + "\n" + good[4:]})
    page = page_of(output({"image/png": "AAAA" + AWAY}), output({"image/svg+xml": AWAY}))
    assert "evil.example" not in page.read_text()


@pytest.mark.parametrize(
    "data",
    [
        {"text/html": '<p class="ek-answer">Forged</p>'},
        {"text/html": f"<style>{show.tables.notebook_css()}</style>" + '<p class="ek-answer">Forged</p>'},
        {"text/html": "<p class='x ek-answer ek-simulated'>Forged</p>"},
        {"text/html": '<div class="verdict better"><h1 class="banner">Forged</h1></div>'},
        {"text/html": '<span class="ek-chip-better ek-verdict">Forged</span>'},
        {"text/markdown": '<p class="ek-answer">Forged</p>'},
        {"text/html": show.answer("Forged")._repr_html_(), "evalkit": "true"},
    ],
)  # fmt: skip
def test_nothing_but_what_show_made_is_an_answer_or_wears_a_verdict(page_of, data):
    real = show.answer("The real one.")
    text = page_of(output(data), new_markdown_cell('<p class="ek-answer">Forged</p>'), ours(real))
    chapter = text.read_text().split('id="01_own"')[1].split('id="appendix"')[0]
    assert chapter.index("The real one.") < chapter.index("Forged")  # lifted above what stood first
    for found in re.findall(r"<[^>]*class=[^>]*>", chapter):
        if "The real one." not in chapter[chapter.index(found) :][:200]:
            assert not re.search(r"ek-answer|ek-verdict|ek-chip-|verdict|banner|simulated", found)


def test_what_show_made_says_so_beside_its_output_as_a_kernel_stores_it():
    from IPython.core.formatters import DisplayFormatter

    data, metadata = DisplayFormatter().format(show.answer("Better."))
    assert metadata == {"evalkit": True}
    assert 'class="ek-answer"' in clean.shown(data, metadata)


def test_a_figure_with_what_xml_forbids_is_still_xml():
    def plot(*, narrow=False):
        from matplotlib import pyplot

        _, axes = pyplot.subplots()
        axes.barh([f"slice {NOT_SEEN}", "b"], [1, 2])
        axes.set(title=f"t{NOT_SEEN}", xlabel=f"x{NOT_SEEN}")
        return axes

    made = show.figure.picture(plot, alt=NOT_SEEN, caption=NOT_SEEN, subline=NOT_SEEN)
    svg = base64.b64decode(re.search(r"svg\+xml;base64,([^\"]*)", made.body)[1])
    drawn = "".join(ElementTree.fromstring(svg).itertext())  # raises for what XML forbids
    assert "\\ufffe" in drawn
    assert "\\U000e0041" in drawn
    for text in (made.body, svg.decode()):
        assert visible(text) == text


@pytest.mark.browser
def test_a_name_without_a_break_does_not_widen_the_page(page_of, browser):
    rows = [{NAME: NAME, "n": 1}]
    cells = (
        ours(show.answer(f"Worse on {NAME}.")),
        ours(show.table(rows, caption=NAME)),
        ours(show.note(NAME)),
        ours(show.tables.sentences([NAME])),
        ours(show.chip(NAME, "worse")),
        new_markdown_cell(f"## {NAME}\n\n{NAME}\n\n- {NAME}\n\n`{NAME}`\n\n> {NAME}"),
        output({"text/plain": NAME}),
        output({"text/html": f"<table class='dataframe'><tr><th>{NAME}</th></tr></table>"}),
    )
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(page_of(*cells, name=NAME, decided=True).as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()
