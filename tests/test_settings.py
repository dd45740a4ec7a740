"""Settings: one reader, one set of defaults, and errors that name file, setting and remedy."""

import json
from pathlib import Path

import nbformat
import pytest

from evalkit.errors import DataError, DesignError
from evalkit.study import PINNED, Settings, Study, checked, declared_parameters


@pytest.fixture
def study(tmp_path):
    (tmp_path / "data/mine").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()

    def saying(text, **options):
        (tmp_path / "data/mine/study.yaml").write_text(text, encoding="utf-8")
        return Study.open("mine", root=tmp_path, **options)

    return saying


def test_what_the_file_leaves_out_has_the_default(study):
    said = study("study: mine\nmax_tokens: 7\nalpha: 1\n").settings
    assert (said.max_tokens, said.alpha, said.checker) == (7, 1.0, "none")
    assert said.limit == Settings().limit == 0


@pytest.mark.parametrize("left", [None, ""])
def test_an_override_left_empty_is_as_the_study_says(study, left):
    text = "slice_fields: kind\nlive: true\n"
    assert study(text, slice_fields=left).settings.slice_fields == "kind"
    mine = study(text, slice_fields="style", limit=0, live=False).settings
    assert (mine.slice_fields, mine.limit, mine.live) == ("style", 0, False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("slice_feilds: kind\n", "no such setting; did you mean slice_fields?"),
        ("max_tokens: many\n", r"max_tokens: got 'many' \(str\); need int"),
        ("limit: true\n", r"limit: got True \(bool\); need int"),
        ("samples: 2.0\n", r"samples: got 2.0 \(float\); need int"),
        ("title: 3\n", r"title: got 3 \(int\); need str"),
        ("slice_margin: .nan\n", "slice_margin: got nan; need a finite number"),
        ("expected_rate: -.inf\n", "expected_rate: got -inf; need a finite number"),
        ("study: other\n", "write study: mine"),
        ("raters: [a, b]\n", r"raters: got \['a', 'b'\] \(list\); need str"),
        ("limit: [\n", "not YAML"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(study, text, told):
    with pytest.raises(DataError, match=told) as refused:
        _ = study(text).settings
    assert "study.yaml" in str(refused.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(DesignError) as refused:
        checked({"limit": "x", "alhpa": 0.1, "power": float("inf")})
    assert len(str(refused.value).split("\n")) == 4


def test_a_study_without_its_file_says_what_writes_one(tmp_path):
    (tmp_path / "data/mine").mkdir(parents=True)
    with pytest.raises(DataError, match="`evalkit new mine` writes one"):
        _ = Study.open("mine", root=tmp_path).settings


def test_a_run_keeps_what_it_began_with(study):
    here = study("limit: 3\n", run="20261124T000000Z-0a0a0a0a")
    (here.run_folder() / PINNED).write_text(json.dumps({"limit": 5, "slice_fields": ""}))
    assert here.settings.limit == 5
    assert study("limit: 9\n").settings.limit == 9


def test_a_chapter_of_ones_own_brings_its_own_settings(study):
    here = study("threshold: 3\n")
    with pytest.raises(DataError, match="threshold: no such setting"):
        _ = here.settings
    book = nbformat.v4.new_notebook(cells=[parameters("threshold = 1  # how many = enough")])
    nbformat.write(book, here.root / "notebooks/08_mine.ipynb")
    assert study("threshold: 3\n").given["threshold"] == 3
    with pytest.raises(DataError, match=r"threshold: got 'x' \(str\); need int"):
        _ = study("threshold: x\n").settings


def parameters(source):
    cell = nbformat.v4.new_code_cell(source)
    cell.metadata["tags"] = ["parameters"]
    return cell


def test_a_notebook_declares_names_types_and_what_it_leaves_to_the_study(tmp_path):
    source = 'study = "a#b=c"\nlimit = None\nalpha: float = 1\nmine = None\nx, y = 1, 2\n'
    book = nbformat.v4.new_notebook(cells=[parameters(source)])
    nbformat.write(book, tmp_path / "x.ipynb")
    found = declared_parameters(Path(tmp_path / "x.ipynb"))
    assert found == {"study": str, "limit": int, "alpha": float, "mine": str}
