"""A chapter of one's own joins the chain by its name; the one that docs/notebooks.md shows is the one that runs here."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest

from evalkit.errors import DesignError
from evalkit.report import chain

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/notebooks.md").read_text(encoding="utf-8")


def written(path: Path, title: str, *cells: str, tags: tuple[str, ...] = ()) -> Path:
    """A notebook whose first code cell holds its parameters."""
    made = [nbformat.v4.new_code_cell(cell, metadata={"tags": list(tags)}) for cell in cells]
    made[0].metadata["tags"] = ["parameters"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {title}"), *made])
    book.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbformat.write(book, path)
    return path


@pytest.fixture
def mine(tmp_path):
    """A project with chapter 07's stand-in and a chapter 08 with a parameter of its own."""
    (tmp_path / "data/tiny").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data/tiny/study.yaml").write_text("study: tiny\nthreshold: 0.8\n")
    shown = "from IPython.display import HTML\nHTML(f'<p>{}</p>')"
    start = 'study = "x"\nrun = ""'
    first = (
        "from evalkit.decision import decide\ndecide({}, study=study).write(__import__('pathlib').Path('reports', study, run))",
    )
    written(
        tmp_path / "notebooks/07_decision.ipynb",
        "Ship?",
        start,
        *first,
        shown.format("the picture"),
        tags=("first-screen",),
    )
    own = shown.format("over {threshold} of {study}")
    written(
        tmp_path / "notebooks/08_mine.ipynb",
        "Mine?",
        f"{start}\nthreshold = 0.5",
        own,
        tags=("first-screen",),
    )
    return tmp_path


@pytest.mark.slow
def test_it_runs_last_with_its_own_parameter_from_the_study_and_stays_off_the_first_screen(mine):
    run = chain.run_study("tiny", root=mine, cold=True, say=lambda _: None)
    assert not run.failed
    assert list(run.chapters) == ["07_decision", "08_mine"]
    page = run.report.read_text(encoding="utf-8")
    chapters = page.index('<section class="ch')
    assert "<p>the picture</p>" in page[:chapters]
    assert "over 0.8 of tiny" in page[chapters:]
    assert "over 0.8" not in page[:chapters]


def test_its_parameter_is_checked_like_any_setting(mine):
    for given, told in (
        ({"treshold": 0.9}, "did you mean threshold"),
        ({"threshold": "x"}, "need float"),
    ):
        with pytest.raises(DesignError, match=told):
            chain.run_study("tiny", root=mine, parameters=given, say=lambda _: None)


def guide_cells(heading: str) -> list[str]:
    part = re.search(rf"## {heading}\n(.*?)(?:\n## |\Z)", GUIDE, re.DOTALL)[1]
    return re.findall(r"```python\n(.*?)\n```", part, re.DOTALL)


def test_each_recipe_takes_ten_lines():
    for heading in ("Fork a chapter", "Add a metric", "Add a plot", "Write a chapter of your own"):
        part = re.search(rf"## {heading}\n(.*?)(?:\n## |\Z)", GUIDE, re.DOTALL)[1]
        blocks = re.findall(r"```\w*\n(.*?)\n```", part, re.DOTALL)
        assert blocks
        assert all(len(block.splitlines()) <= 10 for block in blocks), heading


@pytest.mark.slow
def test_the_guides_chapter_metric_and_plot_run_in_a_copy_of_the_demo(tmp_path):
    (tmp_path / "notebooks").mkdir()
    left = shutil.ignore_patterns(
        "ratings", "*.gguf", "events.sqlite*", "*.lock", "recipe", "*.pyc"
    )
    shutil.copytree(ROOT / "data/icd10", tmp_path / "data/icd10", ignore=left)
    with (tmp_path / "data/icd10/study.yaml").open("a") as file:
        file.write("long_input: 45\n")
    parameters, *rest = guide_cells("Write a chapter of your own")
    cells = [parameters, *rest, *guide_cells("Add a plot"), *guide_cells("Add a metric")]
    written(tmp_path / "notebooks/08_mine.ipynb", "Are long inputs harder?", *cells)
    run = chain.run_study("icd10", root=tmp_path, cold=True, say=lambda _: None)
    assert not run.failed
    book = json.loads((run.folder / "08_mine.ipynb").read_text(encoding="utf-8"))
    shown = str([cell.get("outputs") for cell in book["cells"]])
    assert "Of inputs of more than 45 characters" in shown
    assert shown.count("Drawn: ") >= 2
    assert "as long" in shown.lower()
