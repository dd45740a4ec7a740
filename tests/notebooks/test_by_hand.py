"""A notebook opened by hand answers what the run answers: settings come from the study, not from the notebook."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.report import chain

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
BOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(scope="module", params=["icd10", "notes"])
def ran(request, tmp_path_factory):
    """A copy of a demo study, and its run."""
    root, name = tmp_path_factory.mktemp("project"), request.param
    (root / "notebooks").symlink_to(ROOT / "notebooks")
    left = shutil.ignore_patterns("ratings", "*.gguf", "events.sqlite*", "*.jsonl.lock", "recipe")
    shutil.copytree(ROOT / "data" / name, root / "data" / name, ignore=left)
    for ledger in ("ledger.jsonl", "ledger.head", "plan.lock.json"):
        (root / "data" / name / ledger).unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as alone:
        for variable in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
            alone.delenv(variable, raising=False)
        run = chain.run_study(name, root=root, say=lambda _: None)
        assert not run.failed
        yield root, name, run


def answer(notebook):
    """What stands in the cell below "Answer", as text without the times that pass."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    at = next(i for i, one in enumerate(cells) if "".join(one["source"]).startswith("## Answer"))
    outputs = [out for one in cells[at + 1 : at + 2] for out in one["outputs"] if "data" in out]
    text = " ".join("".join(out["data"].get("text/html", "")) for out in outputs)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)).strip()


@pytest.mark.parametrize("book", BOOKS)
def test_opened_by_hand_a_notebook_answers_what_the_run_answered(ran, book, tmp_path):
    root, name, run = ran
    out = tmp_path / f"{book}.ipynb"
    command = [sys.executable, "-m", "papermill", f"notebooks/{book}.ipynb", str(out)]
    options = ["-p", "study", name, "-k", "python3", "--no-progress-bar"]
    done = subprocess.run(
        [*command, *options], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert answer(out)
    assert answer(out) == answer(run.folder / f"{book}.ipynb")


def test_by_hand_nothing_of_the_demo_gets_into_another_study(ran):
    root, name, _ = ran
    kept = {path.name for path in (root / "data" / name).iterdir()}
    assert ("plan.lock.json" in kept, "events.sqlite" in kept) == (name == "icd10",) * 2


def test_the_last_chapters_of_a_study_without_a_benchmark_run_through(ran):
    root, name, _ = ran
    run = chain.run_study(name, root=root, only=["04", "07"], say=lambda _: None)
    assert not run.failed
