"""A real browser and a real JupyterLab, for the tests marked `browser`."""

import lab as laboratory
import pytest


@pytest.fixture(scope="module")  # not longer: while Playwright is open, asyncio.run is refused in this thread
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=laboratory.CHROMIUM, args=laboratory.FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def free_port():
    return laboratory.free_port


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    """JupyterLab over a new folder."""
    with laboratory.jupyterlab(tmp_path_factory.mktemp("lab")) as running:
        yield running
