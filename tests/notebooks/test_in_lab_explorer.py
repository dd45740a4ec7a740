"""The explorer in a real JupyterLab: found by filter and search, stepped through, annotated, and never run."""

import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from lab import errors, open_notebook, project_copy, run_all_cells, set_parameters, write_notebook

from evalkit.show.explorer import read_kept

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]  # a busy machine takes minutes
HOSTILE = (
    "<img src=x onerror='window.X=1'><script>window.X=2</script><svg onload='window.X=3'></svg> "
    "[a](javascript:window.X=4) costs $5 and $6 \u202egpj.exe"
)
MATH = "from IPython.display import Markdown; Markdown('$x^2$')"
CELLS = "window.jupyterapp.shell.currentWidget.content.model.cells.length"
N = 5_000
LARGE = f"""
from evalkit.benchmark.comparison import compare_models
from evalkit.records import EvalResult
from evalkit.show.explorer import Explorer
made = lambda i, right: EvalResult(f"e{{i}}", f"note {{i}} " + "words " * 60, "x", "x" if right else "y", right, True,
                                   slices={{"kind": "odd" if i % 2 else "even"}})
base, tuned = [made(i, True) for i in range({N})], [made(i, i % 10 > 0) for i in range({N})]
Explorer(compare_models(base, tuned).pairs, metrics=["exact_match"])
""".strip()


def rows():
    """Forty examples: 0-9 fixed, 10-14 regressed, 15-24 both wrong, 25-39 both right; even ones are big."""
    for i in range(40):
        right = f"answer {i}"
        base = right if 10 <= i < 15 or i >= 25 else f"base wrong {i} {HOSTILE}"
        tuned = right if i < 10 or i >= 25 else f"tuned wrong {i} {HOSTILE}"
        yield f"Question {i} {HOSTILE}", right, base, tuned, "small" if i % 2 else "big"


def choose(page, label, value):
    page.locator(".ek-explorer").get_by_label(label, exact=True).select_option(value)


def place(page, text):
    page.locator(".ek-explorer .ek-place", has_text=re.compile(f"^{text}$")).wait_for(
        timeout=30_000
    )


def press(page, name):
    page.locator(".ek-explorer").get_by_role("button", name=name, exact=True).click()


def tab(page):
    """Presses Tab and says what has the focus then."""
    page.keyboard.press("Tab")
    return page.evaluate(
        "document.activeElement.labels?.[0]?.innerText || document.activeElement.innerText"
    )


def test_a_hostile_study_is_filtered_searched_stepped_through_and_annotated(
    browser, jupyterlab, new_study
):
    project = project_copy(jupyterlab.folder / "project", notebooks="02_*.ipynb")
    new_study(project / "data/hostile", list(rows()))
    notebook = project / "notebooks/02_regressions.ipynb"
    set_parameters(notebook, {"study": "hostile", "slice_fields": "kind"})
    page = browser.new_page()
    open_notebook(page, jupyterlab.url("project/notebooks/02_regressions.ipynb"))
    run_all_cells(page)
    assert errors(page) == []

    explorer, n_cells = page.locator(".ek-explorer"), page.evaluate(CELLS)
    explorer.scroll_into_view_if_needed()
    place(page, "1 of 40")
    choose(page, "Status", "regressed")
    place(page, "1 of 5")
    choose(page, "Slice", "kind = big")
    place(page, "1 of 3")  # 10, 12, 14
    press(page, "Next")
    place(page, "2 of 3")
    assert "case-12" in explorer.inner_text()
    assert "<script>window.X=2</script>" in explorer.inner_text()
    press(page, "Previous")
    press(page, "Previous")
    place(page, "3 of 3")
    choose(page, "Status", "all")
    choose(page, "Slice", "all")
    place(page, "1 of 40")
    explorer.get_by_label("Search", exact=True).fill("TUNED 13")
    place(page, "1 of 1")

    found = Axe().run(page, context=".ek-explorer").response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
    explorer.get_by_label("Status", exact=True).focus()
    controls = ["Slice", "Kept", "Worst first", "Judged by", "Best first", "Search"]
    controls += ["Compare with", "Points", "Note", "Tags"]  # one example: no next one
    assert [tab(page) for _ in controls] == controls

    explorer.get_by_label("Note", exact=True).fill("a note to self")
    press(page, "Save note")
    explorer.locator(".ek-saved", has_text="saved to notes.jsonl").wait_for(timeout=30_000)
    notes = project / "reports/hostile/by-hand/notes.jsonl"
    assert json.loads(notes.read_text())["note"] == "a note to self"

    # against what is expected, a tag, and the selection as a file
    choose(page, "Compare with", "the expected answer")
    explorer.locator(".ek-sides section:nth-child(2) del").first.wait_for(timeout=30_000)
    explorer.get_by_label("Tags", exact=True).fill("slang")
    press(page, "Save note")
    choose(page, "Kept", "tag: slang")
    place(page, "1 of 1")
    press(page, "Export")
    explorer.locator(".ek-saved", has_text="1 example written").wait_for(timeout=30_000)
    (row,) = map(json.loads, notes.with_name("selection.jsonl").read_text().splitlines())
    assert (row["example_id"], row["tags"]) == ("case-13", ["slang"])

    # a click on a mark goes to its row: regressed ones, right before (x = 1) and wrong now (y = 0)
    choose(page, "Kept", "all")
    explorer.get_by_label("Search", exact=True).fill("")
    place(page, "1 of 40")
    press(page, "Points")
    canvas = explorer.locator("canvas.ek-points")
    canvas.click(position={"x": 320 - 28, "y": 320 - 28})
    place(page, "11 of 40")
    assert "case-10" in explorer.inner_text()
    canvas.click(position={"x": 320 - 28, "y": 320 - 28})
    place(page, "12 of 40")  # the next one on the same spot
    press(page, "Points")
    explorer.get_by_label("Search", exact=True).fill("TUNED 13")
    place(page, "1 of 1")

    # JupyterLab's own keys, on a list and on a button: x cuts a cell, b adds one, d d deletes
    for control in (
        explorer.get_by_label("Status", exact=True),
        explorer.get_by_role("button", name="Save note"),
    ):
        control.focus()
        for key in "xbmdd":
            page.keyboard.press(key)
    assert page.evaluate(CELLS) == n_cells
    assert explorer.count() == 1

    # nothing of the study ran, and money is money
    assert page.evaluate("window.X") is None
    assert page.locator("mjx-container").count() == 0

    run_all_cells(page)
    assert errors(page) == []
    place(page, "1 of 40")
    page.locator(".ek-explorer").get_by_label("Search", exact=True).fill("TUNED 13")
    place(page, "1 of 1")
    assert (
        page.locator(".ek-explorer").get_by_label("Note", exact=True).input_value()
        == "a note to self"
    )
    assert {name: one.note for name, one in read_kept(notes).items()} == {
        "case-13": "a note to self"
    }
    assert page.evaluate("window.X") is None
    page.close()


def test_five_thousand_examples_answer_while_somebody_types(browser, jupyterlab):
    write_notebook(jupyterlab.folder / "large.ipynb", MATH, LARGE)
    page = browser.new_page()
    open_notebook(page, jupyterlab.url("large.ipynb"))
    run_all_cells(page)
    assert errors(page) == []
    page.locator("mjx-container").wait_for(
        timeout=30_000
    )  # so its absence elsewhere means something
    place(page, "1 of 5,000")
    choose(page, "Status", "regressed")
    place(page, "1 of 500")
    page.locator(".ek-explorer").get_by_label("Search", exact=True).press_sequentially("note 1230")
    place(page, "1 of 1")
    assert "e1230" in page.locator(".ek-explorer").inner_text()
    page.close()
