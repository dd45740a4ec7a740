"""The first notebook in a real JupyterLab, as somebody meets it: open, Run All, read."""

import re

import pytest
from lab import errors, open_notebook, project_copy, run_all_cells
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]  # a busy machine takes minutes


def test_run_all_with_nothing_changed_shows_the_answer(browser, jupyterlab):
    project = project_copy(jupyterlab.folder / "project", "icd10", notebooks="01_*.ipynb")
    page, requests = browser.new_page(), []
    page.on("request", lambda request: requests.append(request.url))
    open_notebook(page, jupyterlab.url("project/notebooks/01_benchmark.ipynb"))
    run_all_cells(page)
    assert errors(page) == []

    # the answer is a computed sentence, and the evidence stands in the copy
    answer = page.locator(".ek-answer").last
    answer.scroll_into_view_if_needed()
    computed = re.compile(r"of 300|[+−]\d+\.\d points")
    expect(answer).to_have_text(
        computed, use_inner_text=True
    )  # JupyterLab draws what is scrolled to
    assert (project / "reports/icd10/by-hand/comparison.json").exists()

    figures = page.locator("figure.ek-figure")
    assert figures.count() >= 5
    for image in figures.locator("img").all():
        assert len(image.get_attribute("alt")) > 40
        assert image.evaluate("image => image.complete && image.naturalWidth > 100")

    assert page.locator(".ek-table").count() >= 3
    assert page.locator("table mjx-container").count() == 0
    assert [
        one for one in requests if not re.match(r"(https?://127\.0\.0\.1:|data:|blob:)", one)
    ] == []
    page.close()
