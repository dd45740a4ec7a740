"""The served page in a real browser: what a rater does, and what must never happen."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from evalkit.human.batch import prepare_human_eval_batch
from evalkit.human.rater import DEAD
from evalkit.human.round import Round

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror='window.__xss=1'><script>window.__xss=2</script> $5 and $6 abc\u202egpj.exe \ud800"
RUBRIC = "Look\ntwice.\n\n## What counts\n- facts\n- tone"
GUARD_MS = 400  # the page ignores presses for 350 ms after it has drawn a pair
RATERS = ("ann", "bob", "cid", "dan", "eve", "fay", "gil", "hal")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    for name in ("data/s", "notebooks"):
        (root / name).mkdir(parents=True)
    (root / "data" / "s" / "study.yaml").write_text("rating_round: r1\n")
    return root


@pytest.fixture(scope="module")
def round_(root):
    from evalkit.records import EvalResult

    base = [
        EvalResult(i, f"note {i} {HOSTILE}", "x", f"base {i} {HOSTILE}", False, True)
        for i in range(20)
    ]
    tuned = [
        replace(one, predicted=f"tuned {one.example_id} " + "long words " * 200) for one in base
    ]
    folder = root / "data" / "s" / "ratings" / "r1"
    prepare_human_eval_batch(base, tuned, 10, seed=1, raters=RATERS, folder=folder, rubric=RUBRIC)
    return Round.open(folder)


@pytest.fixture(scope="module")
def server(root, round_, free_port):
    code = f"from evalkit.human import rater; rater.serve('s', {free_port()})"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    printed = ""
    while "is running at" not in printed:
        line = process.stdout.readline()
        assert line, printed
        printed += line
    yield process, dict(re.findall(r"(\w+): (http://127\.0\.0\.1:\S+)", printed))
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert [
        child for child in psutil.wait_procs(children, timeout=20)[1] if child.is_running()
    ] == []


class Desk:
    """One rater's page, and the file behind it."""

    def __init__(self, page, round_, rater, url):
        self.page, self.url = page, url
        self.path = round_.votes(rater).path
        self.requests = []
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self):
        self.page.goto(self.url)
        return self.ready()

    def ready(self):
        self.page.locator(".ek-rater .ek-status", has_text=re.compile("Pair|done")).wait_for(
            timeout=60_000
        )
        self.page.wait_for_timeout(GUARD_MS)
        return self

    def rows(self):
        text = self.path.read_text() if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def at(self, number, n_rows):
        """Waits until the page shows this pair, and looks at the disk at once."""
        self.page.locator(".ek-status", has_text=re.compile(rf"Pair {number} of")).wait_for(
            timeout=15_000
        )
        assert len(self.rows()) == n_rows
        self.page.wait_for_timeout(GUARD_MS)


@pytest.fixture
def desk(browser, round_, server):
    pages = []

    def sit(rater, **options):
        page = browser.new_page(**options)
        pages.append(page)
        return Desk(page, round_, rater, server[1][rater]).open()

    yield sit
    for page in pages:
        page.close()


@pytest.mark.parametrize("path", ["/?token=old&rater=x", "/", "/login"])
def test_a_dead_link_ends_in_words_for_raters(browser, server, path):
    origin = server[1]["ann"].split("/?")[0]
    page = browser.new_page()
    answer = page.goto(origin + path)
    assert answer.status == 403
    assert page.locator("[role=alert]").inner_text() == DEAD
    assert page.locator("input, form, img, a").count() == 0
    page.close()


def test_each_click_and_each_key_stores_one_row_before_the_next_pair_shows(desk):
    ann = desk("ann")
    for number, choice in enumerate(("left", "right", "tie", "both_bad"), start=1):
        ann.page.locator(f'[data-choice="{choice}"]').click()
        ann.at(number + 1, number)
    for number, key in enumerate("1234", start=5):
        ann.page.keyboard.press(key)
        ann.at(number + 1, number)
    rows = ann.rows()
    assert [row["choice"] for row in rows] == ["left", "right", "tie", "both_bad"] * 2
    assert [row["via"] for row in rows] == ["click"] * 4 + ["key"] * 4
    ann.page.keyboard.press("u")
    ann.at(8, 9)
    assert ann.rows()[-1]["kind"] == "undo"


def test_typing_a_note_votes_nothing_and_the_note_and_reasons_go_with_the_vote(desk):
    bob = desk("bob")
    bob.page.locator(".ek-note textarea").click()
    bob.page.keyboard.type("note 1 and 2 u", delay=20)
    assert bob.rows() == []
    bob.page.keyboard.press("Escape")
    bob.page.keyboard.press("6")
    bob.page.locator(".ek-reasons button").first.click()
    bob.page.keyboard.press("2")
    bob.at(2, 1)
    row = bob.rows()[0]
    assert (row["choice"], row["note"]) == ("right", "note 1 and 2 u")
    assert row["reasons"] == ["tone", "helpfulness"]
    assert bob.page.locator(".ek-note textarea").input_value() == ""


def test_the_page_explains_itself_and_a_mouse_leaves_no_ring_behind(desk):
    hal = desk("hal", viewport={"width": 1280, "height": 500})
    page, rubric = hal.page, hal.page.locator(".ek-rubric")
    assert [one.inner_text() for one in page.locator(".ek-plain > *").all()] == [
        "Look twice.",
        "What counts",
        "- facts",
        "- tone",
    ]
    assert "which model wrote which stays hidden" in rubric.inner_text()
    assert page.get_by_role("heading", name="Reasons (optional").is_visible()
    choice = page.locator('[data-choice="left"]')
    box = choice.bounding_box()
    assert box["y"] + box["height"] <= 500  # in reach without scrolling, though the page is longer
    ringed = "[...document.querySelectorAll('.ek-rater, .ek-rater *')].filter(one => one.matches(':focus-visible')"
    ringed += " && getComputedStyle(one).outlineStyle !== 'none').map(one => one.dataset.choice ?? one.className)"
    page.locator(".ek-reasons button").first.click()
    choice.click()
    hal.at(2, 1)
    page.keyboard.press("2")
    hal.at(3, 2)
    assert page.evaluate(ringed) == []
    page.keyboard.press("Tab")
    assert len(page.evaluate(ringed)) == 1
    assert rubric.get_attribute("open") is None  # folded after the first pair ...
    rubric.locator("summary").click()
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    hal.at(4, 3)
    assert rubric.get_attribute("open") is not None  # ... and left open by whoever opens it again


def test_a_double_press_votes_once(desk):
    cid = desk("cid")
    cid.page.locator('[data-choice="left"]').dblclick()
    cid.at(2, 1)
    cid.page.keyboard.press("1")
    cid.page.keyboard.press("1")
    cid.at(3, 2)


def test_a_reload_goes_on_at_the_same_pair_and_says_so(desk):
    dan = desk("dan")
    dan.page.keyboard.press("1")
    dan.at(2, 1)
    shown = [dan.page.locator(".ek-text").nth(i).inner_text() for i in range(3)]
    dan.page.reload()
    dan.ready().at(2, 1)
    assert [dan.page.locator(".ek-text").nth(i).inner_text() for i in range(3)] == shown
    assert "1 rating saved" in dan.page.locator(".ek-notice").inner_text()


def test_a_killed_kernel_is_said_and_loses_nothing(desk, server):
    eve = desk("eve")
    eve.page.keyboard.press("1")
    eve.at(2, 1)
    for child in psutil.Process(server[0].pid).children(recursive=True):
        if any("ipykernel_launcher" in word for word in child.cmdline()):
            child.send_signal(signal.SIGKILL)
    eve.page.keyboard.press("1")
    alert = eve.page.get_by_role("alert").filter(has_text="NOT SAVED")
    alert.wait_for(timeout=20_000)
    assert "earlier ratings are kept" in alert.inner_text()
    assert len(eve.rows()) == 1
    eve.page.reload()
    eve.ready().at(2, 1)
    eve.page.keyboard.press("1")
    eve.at(3, 2)


def test_the_last_pair_ends_with_thanks_and_can_still_be_taken_back(desk):
    gil = desk("gil")
    for number in range(2, 12):
        gil.page.keyboard.press("3")
        gil.at(number, number - 1)
    gil.page.keyboard.press("3")
    gil.page.locator(".ek-status", has_text="You are done: all 11 pairs are rated").wait_for(
        timeout=15_000
    )
    assert len(gil.rows()) == 11
    assert not gil.page.locator('[data-choice="left"]').is_visible()
    gil.page.keyboard.press("3")
    gil.page.locator('[data-choice="undo"]').click()
    gil.at(11, 12)


@pytest.mark.parametrize(
    "options",
    [{}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 800}}],
    ids=["light", "dark", "phone"],
)
def test_hostile_text_runs_nothing_nothing_leaves_the_machine_and_axe_is_content(
    desk, server, options
):
    from axe_playwright_python.sync_playwright import Axe

    fay = desk("fay", **options)
    assert "<img src=x" in fay.page.locator(".ek-text").first.inner_text()
    assert "\\u202e" in fay.page.locator(".ek-text").first.inner_text()
    assert fay.page.evaluate("window.__xss") is None
    assert fay.page.locator("mjx-container").count() == 0
    outside = [
        url for url in fay.requests if not re.match(r"(https?://127\.0\.0\.1:|data:|blob:)", url)
    ]
    assert outside == []
    assert fay.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    found = Axe().run(fay.page)
    assert found.violations_count == 0, found.generate_report()


def test_without_token_or_code_there_is_no_rater(browser, server):
    url = server[1]["ann"]
    page = browser.new_page()
    for wrong, expected in (
        (url.split("?")[0], None),
        (re.sub(r"rater=.*", "rater=ann", url), "not complete or not valid"),
    ):
        page.goto(wrong)
        if expected:
            page.get_by_text(expected).wait_for(timeout=60_000)
        assert page.locator(".ek-rater").count() == 0
    page.close()
