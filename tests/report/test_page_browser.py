"""The page in Debian's Chromium: nothing runs, nothing is loaded, everybody can read it."""

import os
import re
import shutil
from pathlib import Path

import lab as laboratory
import matplotlib
import pytest
from matplotlib import pyplot

from evalkit.decision import decide
from evalkit.report import chain
from evalkit.report.page import write_page
from evalkit.show import style
from evalkit.show import verdict as spoken

pytestmark = pytest.mark.browser
UNFOLD = "document.querySelectorAll('details').forEach(one => one.open = true)"
VIEWS = [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390), ("light", 320)]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    """A run of a fine, a hostile and two drawn chapters with a decision that quotes hostile names."""
    root = tmp_path_factory.mktemp("project")
    (root / "data/tiny").mkdir(parents=True)
    (root / "data/tiny/study.yaml").write_text(
        "study: tiny\ntitle: '<script>window.X=1</script> study'\n"
    )
    (root / "notebooks").mkdir()
    for name in ("01_fine", "03_hostile", "05_drawn", "06_own_plots"):
        source = Path(__file__).with_name("notebooks") / f"{name}.ipynb"
        (root / "notebooks" / source.name).write_bytes(source.read_bytes())
    run = chain.run_study("tiny", root=root, say=lambda _: None, cold=True)
    spoken.write(decide({}, study="tiny"), run.folder)
    return write_page(run.folder)


@pytest.fixture
def opened(browser, page_file):
    def made(scheme="light", width=1280, *, bypass_csp=False):
        page = browser.new_page(
            viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=bypass_csp
        )
        page.requests = []
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(page_file.as_uri())
        return page

    return made


@pytest.mark.parametrize("bypass_csp", [False, True])
def test_hostile_text_neither_runs_nor_loads_with_and_without_the_policy(
    opened, page_file, bypass_csp
):
    page = opened(bypass_csp=bypass_csp)
    assert page.evaluate("window.X") is None
    assert page.requests == [page_file.as_uri()] + [
        url for url in page.requests if url.startswith("data:")
    ]
    assert page.locator("script, iframe, form, link, svg, [onerror], [onload]").count() == 0
    assert page.locator("a[href^='javascript']").count() == 0
    assert page.url == page_file.as_uri()
    page.close()


def test_the_file_is_small_and_carries_its_policy(page_file):
    text = page_file.read_text()
    assert len(text) < 2_000_000
    assert len("".join(re.findall(r"data:font/woff;base64,[^)]*", text))) < 80_000
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; form-action 'none'"
    assert policy in text
    assert not re.search(r"@import|<script|src=\"(?!data:)", text)


@pytest.mark.parametrize(("scheme", "width"), VIEWS)
def test_axe_finds_nothing_and_nothing_scrolls_sideways(opened, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(scheme, width, bypass_csp=True)  # axe is a script itself
    for depth in ("as it comes", "unfolded"):
        assert page.evaluate("document.documentElement.scrollWidth") <= width, depth
        page.evaluate(UNFOLD)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.close()


@pytest.mark.parametrize(("width", "lines"), [(1280, 1), (390, 2)])
def test_a_number_in_a_narrow_cell_stays_in_one_line_but_on_a_phone(opened, width, lines):
    page = opened(width=width)
    number = '<td class="num"><bdi class="ek-text">+36.6 (+31.7)</bdi></td>'
    cell = f'<table class="stack" style="width:70px"><tr>{number}</tr></table>'
    page.evaluate(
        "cell => document.querySelector('main').insertAdjacentHTML('beforeend', cell)", cell
    )
    assert (
        page.evaluate("[...document.querySelectorAll('td.num bdi')].at(-1).getClientRects().length")
        == lines
    )
    page.close()


def test_what_is_hidden_shows_itself(opened):
    page = opened()
    page.evaluate(UNFOLD)
    text = page.locator("main").inner_text()
    assert "\\u202e" in text
    assert "\\u200b" in text
    assert "$5 and $6" in text


def test_every_image_has_words_and_every_contents_link_a_target(opened):
    page = opened()
    assert page.evaluate("[...document.images].every(image => image.alt.length > 3)")
    assert page.evaluate(
        "[...document.querySelectorAll('nav a')].every(link => document.getElementById(link.hash.slice(1)))"
    )
    assert page.evaluate(
        "new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size === document.querySelectorAll('[id]').length"
    )


def test_it_prints_landscape_with_the_decision_alone_on_page_one(opened):
    page = opened()
    pdf = page.pdf(prefer_css_page_size=True)
    sizes = {
        tuple(round(float(one)) for one in box.split()[2:])
        for box in re.findall(r"/MediaBox \[([^\]]*)\]", pdf.decode("latin-1"))
    }
    assert sizes == {(842, 595)}  # A4 landscape in points
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()


def test_a_link_or_a_search_for_text_opens_what_is_folded(opened, page_file):
    page = opened()
    assert page.locator(".fold[open]").count() == 0
    for part in ("#01_fine-numbers", "#:~:text=Both%20models%20answered"):
        page.goto("about:blank")
        page.goto(page_file.as_uri() + part)
        page.wait_for_function("document.querySelectorAll('.fold[open]').length === 1")
        assert page.locator("[id='01_fine'] .fold[open]").count() == 1
    page.locator(".back a").first.click()
    assert page.url.endswith("#decision")
    page.close()


FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<include ignore_missing="yes">/etc/fonts/conf.d</include><dir>{0}</dir><cachedir>{0}/cache</cachedir></fontconfig>"""


@pytest.fixture
def browser_without_fonts(browser, tmp_path):
    """A browser whose machine has one font that nobody writes with: without any, Chromium draws no text in images."""
    foreign = Path(matplotlib.get_data_path()) / "fonts/ttf/cmss10.ttf"
    shutil.copy(foreign, tmp_path)
    (tmp_path / "fonts.conf").write_text(FONTS.format(tmp_path))
    alone = browser.browser_type.launch(
        executable_path=laboratory.CHROMIUM,
        args=laboratory.FLAGS,
        env=os.environ | {"FONTCONFIG_FILE": str(tmp_path / "fonts.conf")},
    )
    yield alone
    alone.close()


@pytest.mark.parametrize(("scheme", "width"), VIEWS[:3])
@pytest.mark.parametrize("part", ["decision", "01_fine", "05_drawn"])
def test_the_page_is_the_same_picture_with_and_without_the_machines_fonts(
    browser, browser_without_fonts, page_file, part, scheme, width
):
    pictures = []
    for one in (browser, browser_without_fonts):
        page = one.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page.goto(page_file.as_uri())
        page.evaluate(UNFOLD.replace("details", f"[id=\\'{part}\\'] details"))
        pictures.append(page.locator(f"[id='{part}']").screenshot())
        page.close()
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("weight", [400, 700])
def test_words_are_drawn_as_wide_as_they_were_measured(browser, weight):
    words = [
        "With themselves, on repeats",
        "+36.6 (+31.7 to +41.5)",
        "AVATAR, Typed: 0 ↔ 1",
        "kind = x",
    ]
    with style.style():
        figure = pyplot.figure()
        drawn = [figure.text(0, 0, text, weight=weight, fontsize=20) for text in words]
        figure.canvas.draw()
        wide = [one.get_window_extent().width * 72 / 96 for one in drawn]  # 96 dots an inch
        pyplot.close(figure)
    page = browser.new_page()
    text = "".join(f"<text>{one}</text>" for one in words)
    look = f"text{{font:{weight} 20px {style.STACK}}}"
    page.set_content(
        f"<style>{style.font_css({weight: ''.join(words)})}{look}</style><svg>{text}</svg>"
    )
    page.evaluate("document.fonts.ready")
    found = page.evaluate(
        "[...document.querySelectorAll('text')].map(text => text.getComputedTextLength())"
    )
    page.close()
    assert found == pytest.approx(wide, rel=0.02)


def test_a_plot_of_ones_own_can_be_read_in_light_and_dark(opened):
    for scheme, paper in (("light", "#ffffff"), ("dark", style.PALETTE["paper"][1])):
        page = opened(scheme)
        images = page.locator("[id='06_own_plots'] img").all()
        assert len(images) == 5
        assert all(image.get_attribute("alt").count(".") >= 2 for image in images), paper
        assert all(image.evaluate("image => image.naturalWidth > 300") for image in images)
