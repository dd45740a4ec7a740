"""A real browser and a real JupyterLab for the tests marked `browser`, a real local Spark for those marked `spark`."""

import os
import signal
import warnings

import lab as laboratory
import pytest

SPARK = {
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.session.timeZone": "UTC",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "1g",
}


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
