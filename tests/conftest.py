"""A home of the tests' own, a real browser and JupyterLab for those marked `browser`, a local Spark."""

import os
import shutil
import signal
import tempfile
import warnings
from pathlib import Path

import lab as laboratory
import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a slow one is no failure
settings.load_profile("any machine")

PLACE = pytest.StashKey[Path]()

SPARK = {
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.session.timeZone": "UTC",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "1g",
}


def pytest_configure(config: pytest.Config) -> None:
    """Gives this run, and every process it starts, a home and a temporary folder that go with it.

    So no test reads what a machine has in its home (a stale list of fonts, a profile of IPython) or needs to write there.
    """
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist stands in its controller's place
        return
    config.stash[PLACE] = place = Path(tempfile.mkdtemp(prefix="evalkit-tests-"))
    for name in [one for one in os.environ if one.startswith(("XDG_", "JUPYTER_"))]:
        del os.environ[name]
    os.environ.pop("IPYTHONDIR", None)
    for name in ("HOME", "TMPDIR"):
        (place / name.lower()).mkdir()
        os.environ[name] = str(place / name.lower())
    tempfile.tempdir = None  # it is asked for again


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """After a failure the place stays to be looked at."""
    if PLACE in session.config.stash and exitstatus != pytest.ExitCode.OK:
        print(f"\nwhat the tests wrote is kept in {session.config.stash[PLACE]}")
        del session.config.stash[PLACE]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Takes the place away; by now no worker is left to write there."""
    if PLACE in config.stash:
        shutil.rmtree(config.stash[PLACE], ignore_errors=True)


@pytest.fixture(
    scope="module"
)  # not longer: while Playwright is open, asyncio.run is refused in this thread
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=laboratory.CHROMIUM, args=laboratory.FLAGS
        )
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


@pytest.fixture(scope="session")
def spark():
    """One Spark session on this machine; it leaves the interrupt handler as it was, which Spark replaces by its own."""
    handler = signal.getsignal(signal.SIGINT)
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyspark on pandas 3
        from pyspark.sql import SparkSession

        builder = SparkSession.builder.master("local[2]").appName("evalkit")
        for name, value in SPARK.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
    signal.signal(signal.SIGINT, handler)
    yield session
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session.stop()
