"""Notebooks 03 and 04 by plain papermill, in a copy of the demo."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    (root / "notebooks").mkdir()
    (root / "reports").mkdir()
    for name in ("03_rate", "04_preference"):
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", root / "notebooks")
    keep = shutil.ignore_patterns("ratings", "*.gguf", "train.jsonl", "events.sqlite*", "recipe")
    shutil.copytree(ROOT / "data" / "icd10", root / "data" / "icd10", ignore=keep)
    return root


@pytest.fixture(scope="module")
def papermill(project):
    def run(name, *more):
        out = project / f"{name}.out.ipynb"
        command = [
            sys.executable,
            "-m",
            "papermill",
            f"notebooks/{name}.ipynb",
            str(out),
            "-f",
            "data/icd10/study.yaml",
        ]
        done = subprocess.run(
            [*command, "-k", "python3", *more],
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return [
            output
            for cell in json.loads(out.read_text())["cells"]
            for output in cell.get("outputs", [])
        ]

    return run


def texts(outputs):
    return "\n".join("".join(output.get("data", {}).get("text/plain", "")) for output in outputs)


def test_the_chapter_runs_headless_twice_and_keeps_its_votes(project, papermill):
    open_yet = texts(papermill("04_preference"))
    assert "No rating round was drawn yet" in open_yet
    assert (
        json.loads((project / "reports/icd10/by-hand/preference.json").read_text())["primary"]
        is None
    )

    first = papermill("03_rate")
    assert not any("widget-view" in kind for output in first for kind in output.get("data", {}))
    assert "simulated-1" in texts(first)
    votes = {path: path.read_bytes() for path in project.glob("data/icd10/ratings/*/votes/*.jsonl")}
    assert len(votes) == 3
    papermill("03_rate")
    assert {path: path.read_bytes() for path in votes} == votes

    outputs = papermill("04_preference")
    record = json.loads((project / "reports/icd10/by-hand/preference.json").read_text())
    assert record["simulated"] is True
    assert (
        record["primary"]["n"]
        == len(
            json.loads(next(project.glob("data/icd10/ratings/*/batch.json")).read_text())["items"]
        )
        + (record["details"]["identical"])
    )
    pictures = [
        one for one in outputs if "<figure" in "".join(one.get("data", {}).get("text/html", ""))
    ]
    assert len(pictures) == 6  # four of the kit, two plots of the chapter's own
    assert all("imulated" in "".join(one["data"]["text/html"]) for one in pictures)
