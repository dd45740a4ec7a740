"""The rater inline in a real JupyterLab, whose own keys must not reach the notebook while somebody rates."""

import json
import re
import signal

import psutil
import pytest
from lab import open_notebook, run_all_cells, write_notebook

from evalkit.human.batch import prepare_human_eval_batch
from evalkit.human.round import Round
from evalkit.records import EvalResult

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]  # a busy machine takes minutes
GUARD_MS = 400
IN_SIGHT = "node => { const at = node.getBoundingClientRect().top; return at > 0 && at < window.innerHeight }"
SOURCE = """
from pathlib import Path
from evalkit.human.rater import in_jupyter, inline_rater
from evalkit.human.round import Round
inline_rater(Round.open(Path("round"))) if in_jupyter() else "headless"
""".strip()


@pytest.fixture(scope="module")
def lab(jupyterlab):
    base = [
        EvalResult(
            i, f"note {i} <img src=x onerror='window.__xss=1'>", "x", f"base {i}", False, True
        )
        for i in range(20)
    ]
    tuned = [
        EvalResult(i, one.input_text, "x", f"tuned {i}", True, True) for i, one in enumerate(base)
    ]
    prepare_human_eval_batch(base, tuned, 12, seed=1, folder=jupyterlab.folder / "round")
    write_notebook(jupyterlab.folder / "rate.ipynb", SOURCE)
    return jupyterlab


def rows(folder):
    path = Round.open(folder / "round").votes("rater1").path
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def at(page, number):
    page.locator(".ek-status", has_text=re.compile(rf"Pair {number} of")).wait_for(timeout=15_000)
    page.wait_for_timeout(GUARD_MS)


def test_rating_in_jupyterlab_from_the_first_pair_to_a_killed_kernel(browser, lab):
    folder, page, requests = lab.folder, browser.new_page(), []
    page.on("request", lambda request: requests.append(request.url))
    open_notebook(page, lab.url("rate.ipynb"))
    run_all_cells(page)
    at(page, 1)
    cells = page.locator(".jp-Notebook .jp-Cell").count()

    # JupyterLab's own keys, with the rater focused: nothing happens to the notebook, and nothing is stored
    page.locator(".ek-rater").focus()
    for key in "abmddx":
        page.keyboard.press(key)
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    assert page.locator(".ek-rater").count() == 1
    assert rows(folder) == []

    # JupyterLab runs widget callbacks in a thread of its own: every later vote must be stored too
    for number, press in enumerate(("1", "click", "3", "click", "4"), start=1):
        if press == "click":
            page.locator('[data-choice="right"]').click()
            assert (
                page.evaluate("document.activeElement.className") == "ek-rater"
            )  # not the button, which a key would ring
            page.keyboard.press("b")
            page.keyboard.press("x")
        else:
            page.keyboard.press(press)
        at(page, number + 1)
        assert len(rows(folder)) == number
        assert page.locator(".ek-status").evaluate(IN_SIGHT)  # though the guide above it has folded
        assert page.locator(".jp-Notebook .jp-Cell").count() == cells
        page.locator(".ek-rater").focus()
    assert [row["choice"] for row in rows(folder)] == ["left", "right", "tie", "right", "both_bad"]

    page.locator(".ek-note textarea").click()
    page.keyboard.type("note 1 and 2 u d d x", delay=10)
    assert len(rows(folder)) == 5
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    page.locator('[data-choice="left"]').dblclick()
    at(page, 7)
    assert len(rows(folder)) == 6
    assert rows(folder)[-1]["note"] == "note 1 and 2 u d d x"
    assert page.evaluate("window.__xss") is None

    # keys outside the rater are the notebook's: no vote
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.keyboard.press("1")
    page.wait_for_timeout(GUARD_MS)
    assert len(rows(folder)) == 6

    for child in psutil.Process(lab.process.pid).children(recursive=True):
        if any("ipykernel_launcher" in word for word in child.cmdline()):
            child.send_signal(signal.SIGKILL)
    page.locator(".ek-rater").focus()
    page.keyboard.press("1")
    page.get_by_role("alert").filter(has_text="NOT SAVED").wait_for(timeout=20_000)
    assert len(rows(folder)) == 6
    assert [
        one
        for one in requests
        if not re.match(r"(https?://(127\.0\.0\.1|localhost):|data:|blob:)", one)
    ] == []
    page.close()
