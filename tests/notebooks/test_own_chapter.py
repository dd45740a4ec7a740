"""A chapter of one's own joins the chain by its name; the one that docs/notebooks.md shows is the one that runs here."""

import base64
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
        "from pathlib import Path\nfrom evalkit.decision import decide\nfrom evalkit.show import verdict\n"
        "verdict.write(decide({}, study=study), Path('reports', study, run))",
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


@pytest.mark.slow
def test_a_setting_the_notebook_says_holds_against_the_study_but_not_against_the_command(mine):
    shown = "from IPython.display import HTML\nHTML(f'<p>alpha {alpha}</p>')"
    for stem, start in (("09_own", "alpha = 0.02"), ("10_left", "alpha = None")):
        written(mine / f"notebooks/{stem}.ipynb", "Own?", f'study = "x"\nrun = ""\n{start}', shown)
    (mine / "data/tiny/study.yaml").write_text("study: tiny\nalpha: 0.01\n")
    for given, told in (({}, ("0.02", "0.01")), ({"alpha": 0.1}, ("0.1", "0.1"))):
        run = chain.run_study(
            "tiny", root=mine, only=["09", "10"], parameters=given, say=lambda _: None
        )
        assert not run.failed
        books = [(run.folder / f"{stem}.ipynb").read_text() for stem in ("09_own", "10_left")]
        assert all(f"alpha {one}</p>" in book for one, book in zip(told, books, strict=True))


def guide_cells(heading: str) -> list[str]:
    part = re.search(rf"## {heading}\n(.*?)(?:\n## |\Z)", GUIDE, re.DOTALL)[1]
    return re.findall(r"```python\n(.*?)\n```", part, re.DOTALL)


def test_each_recipe_takes_ten_lines():
    for heading in (
        "Fork a chapter",
        "Add a metric",
        "Try another regression",
        "Add a plot",
        "Three changes tried",
        "Ask a model something else",
        "Write a chapter of your own",
    ):
        part = re.search(rf"## {heading}\n(.*?)(?:\n## |\Z)", GUIDE, re.DOTALL)[1]
        blocks = re.findall(r"```\w*\n(.*?)\n```", part, re.DOTALL)
        assert blocks
        assert all(len(block.splitlines()) <= 10 for block in blocks), heading


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A run of the demo and of the guide's own chapter, from a copy without its ratings, log and locked plan."""
    root = tmp_path_factory.mktemp("copy")
    (root / "notebooks").mkdir()
    left = shutil.ignore_patterns(
        "ratings", "*.gguf", "events.sqlite*", "*.lock", "recipe", "*.pyc"
    )
    shutil.copytree(ROOT / "data/icd10", root / "data/icd10", ignore=left)
    with (root / "data/icd10/study.yaml").open("a") as file:
        file.write("long_input: 45\n")
    parameters, *rest = guide_cells("Write a chapter of your own")
    more = ("Add a plot", "Add a metric", "Try another regression")
    cells = [parameters, *rest, *(one for heading in more for one in guide_cells(heading))]
    for book in (ROOT / "notebooks").glob("0*.ipynb"):
        shutil.copy(book, root / "notebooks")
    written(root / "notebooks/08_mine.ipynb", "Are long inputs harder?", *cells)
    return chain.run_study("icd10", root=root, say=lambda _: None)


@pytest.mark.slow
def test_the_guides_chapter_metric_and_plot_run_in_a_copy_of_the_demo(copied):
    assert not copied.failed
    book = json.loads((copied.folder / "08_mine.ipynb").read_text(encoding="utf-8"))
    shown = str([cell.get("outputs") for cell in book["cells"]])
    assert "Of inputs of more than 45 characters" in shown
    assert shown.count("Drawn: ") >= 2
    assert "as long" in shown.lower()
    assert "fine_tuned:C(kind)[T.one diagnosis]" in shown


def forked(chapter: str, path: Path, cells: list[str]) -> None:
    """A copy of a chapter as the guide makes one: other parameters, nothing handed on, cells of one's own at the end."""
    book = nbformat.read(ROOT / f"notebooks/{chapter}.ipynb", as_version=4)
    start = next(one for one in book.cells if one.metadata.get("tags") == ["parameters"])
    for one in book.cells:
        lines = one.source.splitlines()
        kept = [line for line in lines if "here.write(" not in line and "handed_on" not in line]
        one.source = "\n".join(kept)
    for cell in cells:
        if re.fullmatch(r"(\w+) = \S+", cell):
            name = cell.split(" = ", maxsplit=1)[0]
            assert f"\n{name} = None" in start.source
            start.source += f"\n{cell}"
        else:
            book.cells.append(nbformat.v4.new_code_cell(cell))
    nbformat.write(book, path)


@pytest.mark.slow
def test_the_changes_the_guide_tried_run_in_copies_of_the_chapters(tmp_path):
    made = ("ratings", "events.sqlite*", "plan.lock.json", "ledger.*")  # by runs in this checkout
    left = shutil.ignore_patterns(*made, "*.gguf", "recipe", "*.pyc")
    shutil.copytree(ROOT / "data/icd10", tmp_path / "data/icd10", ignore=left)
    (tmp_path / "notebooks").mkdir()
    for name in ("05_plan.ipynb", "06_ab_test.ipynb"):  # users need a plan
        shutil.copy(ROOT / "notebooks" / name, tmp_path / "notebooks")
    slices, means, metric, changes, plot, test = guide_cells("Three changes tried")
    forked("02_regressions", tmp_path / "notebooks/08_slice.ipynb", [slices, means, plot])
    forked("01_benchmark", tmp_path / "notebooks/09_metric.ipynb", [metric, changes])
    forked("06_ab_test", tmp_path / "notebooks/10_test.ipynb", [test])
    run = chain.run_study(
        "icd10", root=tmp_path, only=["05", "06", "08", "09", "10"], say=lambda _: None
    )
    assert not run.failed
    shown = {
        path.stem: str([cell.get("outputs") for cell in json.loads(path.read_text())["cells"]])
        for path in run.folder.glob("*.ipynb")
    }
    assert "distractors = near" in shown["08_slice"]
    assert "Do the distractors matter?" in shown["08_slice"]
    assert "better on similarity" in shown["09_metric"]
    assert "of users: z = " in shown["10_test"]
    assert "RuntimeWarning" not in str(shown)


@pytest.fixture(scope="module")
def opened(browser, copied):
    """The demo's page at a width."""

    def made(width):
        page = browser.new_page(viewport={"width": width, "height": 844})
        page.goto(copied.report.as_uri())
        return page

    return made


@pytest.mark.slow
@pytest.mark.browser
def test_the_demos_page_is_short_before_unfolding_and_small_in_print(opened, copied):
    page = opened(1280)
    assert page.evaluate("document.documentElement.scrollHeight") <= 6000
    assert page.locator("nav .rows a").count() == 5
    assert page.locator(".fold").count() == 8
    printed = page.pdf(prefer_css_page_size=True).decode("latin-1")
    assert len(re.findall(r"/Type /Page\b", printed)) <= 12
    own = page.locator("[id='08_mine']").inner_html()
    assert copied.report.stat().st_size - len(own) <= 1_500_000


SIZES = """[...document.images].map(image => [image.alt, image.currentSrc, image.getBoundingClientRect().width])"""


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_no_text_of_the_demos_figures_is_drawn_below_eleven_pixels(opened, width):
    page = opened(width)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = page.evaluate(SIZES)
    assert len(found) > 15
    for alt, source, drawn in found:
        kind, _, content = source.partition(",")
        assert "svg" in kind, alt
        svg = base64.b64decode(content).decode()
        scale = drawn / float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])
        smallest = min(
            float(size) for size in re.findall(r"font(?:-size)?: (?:\d+ )?([\d.]+)px", svg)
        )
        assert smallest * scale >= 11, f"{alt}: {smallest * scale:.1f} px"
