"""A real JupyterLab for the browser tests: a server over a folder, notebooks for it, and what a page there shows."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN = "lab-token"
SOURCES = Path(__file__).parents[1]
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_HOMES = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "IPYTHONDIR": "ipython",
}
_PANEL = "window.jupyterapp?.shell.currentWidget"
_KERNEL = f"{_PANEL}?.context?.sessionContext?.session?.kernel"
_CELLS = f"[...{_PANEL}.content.model.cells].filter(cell => cell.type === 'code')"
_ERRORS = (
    f"{_CELLS}.flatMap(cell => cell.outputs.toJSON()).filter(one => one.output_type === 'error')"
)


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab over `folder`."""

    process: subprocess.Popen
    folder: Path
    address: str

    def url(self, notebook: str) -> str:
        """Where one notebook opens, its path relative to `folder`."""
        return f"{self.address}/lab/tree/{notebook}?token={TOKEN}&reset"


@contextmanager
def jupyterlab(folder: Path) -> Iterator[Lab]:
    """JupyterLab over `folder`, with settings of its own and no endpoint in its environment."""
    port = free_port()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    homes = {name: str(folder / ".homes" / place) for name, place in _HOMES.items()}
    options = [
        "--no-browser",
        f"--port={port}",
        f"--IdentityProvider.token={TOKEN}",
        "--allow-root",
        "--expose-app-in-browser",
    ]
    command = [sys.executable, "-m", "jupyter", "lab", *options, f"--ServerApp.root_dir={folder}"]
    with (folder / "lab.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**plain, **homes}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            lab = Lab(process, folder, f"http://127.0.0.1:{port}")
            _wait(lab)
            yield lab
            _ask(lab, "shutdown", method="POST")
            process.wait(timeout=60)
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def project_copy(folder: Path, study: str = "", notebooks: str = "*.ipynb") -> Path:
    """A project in `folder` with copies of the notebooks and of a study's data; without a study, an empty one."""
    (folder / "notebooks").mkdir(parents=True)
    for notebook in (SOURCES / "notebooks").glob(notebooks):
        shutil.copy(notebook, folder / "notebooks")
    if study:
        shutil.copytree(
            SOURCES / "data" / study,
            folder / "data" / study,
            ignore=shutil.ignore_patterns("*.gguf", "recipe"),
        )
    (folder / "data").mkdir(exist_ok=True)
    return folder


def set_parameters(notebook: Path, values: dict[str, str | int]) -> None:
    """Writes other defaults into a copied notebook's parameters, as somebody would by hand."""
    book = json.loads(notebook.read_text())
    (cell,) = (cell for cell in book["cells"] if "parameters" in cell["metadata"].get("tags", []))
    source = "".join(cell["source"])
    for name, value in values.items():
        source, found = re.subn(
            rf"^({name}(?:: \w+)? = ).*?(?=  #)", rf"\g<1>{value!r}", source, flags=re.MULTILINE
        )
        assert found == 1, name
    cell["source"] = source
    notebook.write_text(json.dumps(book))


def write_notebook(path: Path, *sources: str) -> None:
    """A notebook of a heading and code cells."""
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "id": "c0", "metadata": {}, "source": "# A heading"}
    ]
    for number, source in enumerate(sources, start=1):
        code = {
            "id": f"c{number}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        cells.append({"cell_type": "code", **code})
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.write_text(
        json.dumps(
            {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": spec}, "cells": cells}
        )
    )


def open_notebook(page: Any, url: str) -> None:
    """Opens a notebook and waits for its kernel."""
    page.goto(url)
    page.wait_for_function(
        f"{_KERNEL}?.status === 'idle' && {_KERNEL}.connectionStatus === 'connected'",
        timeout=120_000,
    )
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)


def run_all_cells(page: Any, *, timeout_s: float = 180) -> None:
    """Run > Run All Cells, then waits until every cell has run or one has failed."""
    page.evaluate(f"{_CELLS}.forEach(cell => {{ cell.executionCount = null }})")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(
        f"{_ERRORS}.length || ({_KERNEL}?.status === 'idle' && {_CELLS}.every(cell => cell.executionCount !== null))",
        timeout=timeout_s * 1000,
    )


def errors(page: Any) -> list[str]:
    """The errors in the outputs of all cells, also of those out of sight."""
    return page.evaluate(f"{_ERRORS}.map(one => one.traceback.join('\\n'))")


def _wait(lab: Lab, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            return _ask(lab, "status")
        except OSError as why:
            if lab.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(
                    f"JupyterLab did not start:\n{(lab.folder / 'lab.log').read_text()}"
                ) from why
            time.sleep(0.2)


def _ask(lab: Lab, what: str, method: str = "GET") -> None:
    request = urllib.request.Request(
        f"{lab.address}/api/{what}", method=method, headers={"Authorization": f"token {TOKEN}"}
    )
    urllib.request.urlopen(request, timeout=30).close()
