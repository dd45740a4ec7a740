import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

TICKING = """import time
while True:
    with open(f"ticks-{name}", "a") as file:
        file.write(".")
    time.sleep(0.1)"""


def ticking(path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in (f"name = {path.stem!r}", TICKING)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def size(root: Path) -> int:
    return sum(file.stat().st_size for file in root.glob("ticks-*"))


def until(true, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


@pytest.mark.parametrize(
    ("sent", "options"),
    [
        pytest.param(signal.SIGKILL, (), marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, (), marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, (), marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, ("--cold",), marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, ("--cold",), marks=pytest.mark.slow),
    ],
)
def test_no_kernel_outlives_the_command_that_was_stopped(project, sent, options):
    root = project(study="study: tiny\n")
    for name in ("01_ticks", "03_waits"):  # two, so that kernels are forked
        ticking(root / "notebooks" / f"{name}.ipynb")
    command = [sys.executable, "-m", "evalkit", "run", "tiny", *options]
    ran = subprocess.Popen(
        command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert until(lambda: size(root) > 0, 60)
        ran.send_signal(sent)
        time.sleep(2)
        before = size(root)
        time.sleep(0.5)  # five ticks, if it lived
        assert size(root) == before
        _, told = ran.communicate(timeout=10)  # one signal is enough
    finally:
        ran.kill()
    if sent != signal.SIGKILL:
        assert ran.returncode == 130
        assert told.endswith("evalkit: stopped; what was finished is kept\n")
        assert "Traceback" not in told
