"""`make lab`: what its JupyterLab shows, and what it leaves alone."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from lab import TOKEN, free_port

ROOT = Path(__file__).parents[2]


def recipe() -> tuple[str, list[str]]:
    """What `make lab` prepares and then runs, in this Python's environment, whatever else it would set up."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "-n", "--no-print-directory", "lab"]  # also where make runs the tests
    told = subprocess.run(
        command, cwd=ROOT, env=own, capture_output=True, text=True, check=True
    ).stdout
    prepared, command = told.splitlines()[-2:]
    return prepared.replace(".venv/", f"{shlex.quote(sys.prefix)}/"), shlex.split(command)[1:]


def test_root_is_let_in_and_only_root():
    assert ("--allow-root" in recipe()[1]) is (os.getuid() == 0)


@pytest.mark.slow
def test_lab_reaches_data_and_reports_and_asks_nobody_outside(tmp_path):
    for name in ("data", "notebooks", "reports"):
        (tmp_path / name).mkdir()
    (tmp_path / "notebooks" / "01_x.ipynb").write_text("{}")
    port = free_port()
    options = ["--no-browser", f"--port={port}", f"--IdentityProvider.token={TOKEN}"]
    homes = {
        name: str(tmp_path / ".homes")
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    }
    prepared, command = recipe()
    subprocess.run(prepared, shell=True, check=True)
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter", *command, *options],
        cwd=tmp_path,
        env=os.environ | homes,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        listing = json.loads(_got(f"{address}/api/contents/?token={TOKEN}", server)[1])
        assert {one["name"] for one in listing["content"]} >= {"data", "notebooks", "reports"}
        where, page = _got(f"{address}/?token={TOKEN}", server)
        assert where.startswith(f"{address}/lab/tree/notebooks")
        (found,) = re.findall(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.S)
        config = json.loads(found)
        assert config["news"] == {"disabled": True}
        notification = "@jupyterlab/apputils-extension:notification"
        said = json.loads(
            _got(f"{address}/lab/api/settings/{notification}?token={TOKEN}", server)[1]
        )
        wanted = {
            name: said["schema"]["properties"][name]["default"]
            for name in ("fetchNews", "checkForUpdates")
        }
        assert wanted == {"fetchNews": "false", "checkForUpdates": False}  # "none" would ask
        assert config["extensionManager"]["can_install"] is False
        assert (
            _got(f"{address}/lab/api/update?token={TOKEN}", server)[1] == '{"notification": null}'
        )
    finally:
        server.terminate()
        server.wait()


def _got(address: str, server: subprocess.Popen) -> tuple[str, str]:
    """Where an address leads and what stands there, once the server is up."""
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return answer.url, answer.read().decode()
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{address} does not answer")
