import json
from pathlib import Path

import nbformat
import pytest

from evalkit.errors import DesignError
from evalkit.report.notebook import execute
from evalkit.study import checked, declared_parameters

FINE = Path(__file__).with_name("notebooks") / "01_fine.ipynb"
DECLARED = {
    "study": str,
    "run": str,
    "alpha": float,
    "limit": int,
    "live": bool,
    "max_tokens": int,
    "seed": int,
}


def test_a_notebook_declares_its_parameters_with_their_types():
    assert declared_parameters(FINE) == {
        "study": str,
        "run": str,
        "alpha": float,
        "limit": int,
        "live": bool,
    }


def test_values_that_fit_pass():
    checked(
        {"study": "tiny", "alpha": 0.1, "limit": 3, "live": True, "max_tokens": 96}, types=DECLARED
    )
    checked({"alpha": 1}, types=DECLARED)  # an int is a float too


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("alhpa", 0.1, "no such setting; did you mean alpha?"),
        ("limit", "007", r"got '007' \(str\); need int"),
        ("limit", True, r"got True \(bool\); need int"),
        ("live", 1, "need bool"),
        ("study", False, r"got False \(bool\); need str"),  # YAML's `study: no`
        ("alpha", "2026-11-24", "need float"),
        ("limit_token", "100", "no such setting"),
        ("api_key", "x", "looks like a secret"),
        ("OPENAI_API_KEY", "x", "looks like a secret"),
        ("access_token", "x", "looks like a secret"),
        ("study", "sk-proj-abcdef0123456789", "looks like a secret"),
        ("study", "Bearer abcdefgh12345", "looks like a secret"),
        ("study", "postgresql://me:hunter2@host/db", "looks like a secret"),
    ],
)
def test_what_is_wrong_is_refused_by_name(name, value, told):
    with pytest.raises(DesignError, match=told):
        checked({name: value}, types=DECLARED)


def test_the_key_of_the_environment_is_refused_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "plain-local-key")
    with pytest.raises(DesignError, match="looks like a secret"):
        checked({"study": "x plain-local-key"}, types=DECLARED)


def test_all_problems_are_told_at_once():
    with pytest.raises(DesignError) as told:
        checked({"alhpa": 0.1, "limit": "x", "password": "y"}, types=DECLARED)
    assert len(str(told.value).split("\n")) == 4


def test_an_undeclared_type_is_refused(tmp_path):
    book = nbformat.read(FINE, as_version=4)
    book.cells[1].source = "names: list = []"
    nbformat.write(book, tmp_path / "x.ipynb")
    with pytest.raises(DesignError, match=r"names = \[\]; use str, int, float or bool"):
        declared_parameters(tmp_path / "x.ipynb")


def test_a_notebook_gets_what_it_declares_and_the_source_stays_as_it_is(project):
    root, before = project("01_fine"), FINE.read_bytes()
    output = root / "out.ipynb"
    done = execute(
        root / "notebooks/01_fine.ipynb",
        output,
        {"study": "tiny", "alpha": 0.01, "unknown": 3},
        folder=root,
    )
    assert done.error is None
    assert done.title == "Which model answers better?"
    assert "at alpha 0.01, limit 0, live False" in output.read_text()
    assert "unknown" not in output.read_text()
    assert (root / "notebooks/01_fine.ipynb").read_bytes() == before
    assert not list(root.glob("*.partial.ipynb"))


def test_a_failing_notebook_leaves_itself_with_the_exception_and_without_the_key(
    project, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "canary-key-1234567")
    root = project("02_failing")
    source = (root / "notebooks/02_failing.ipynb").read_text()
    (root / "notebooks/02_failing.ipynb").write_text(
        source.replace("before the fault", "canary-key-1234567")
    )
    printed = []
    done = execute(
        root / "notebooks/02_failing.ipynb",
        root / "out.ipynb",
        {"study": "tiny"},
        folder=root,
        say=printed.append,
    )
    assert printed == ["[key removed]"]
    assert done.error == "ValueError: the test set <b>is</b> gone, key [key removed]"
    book = json.loads((root / "out.ipynb").read_text())
    assert book["metadata"]["papermill"]["exception"] is True
    assert "[key removed]" in str(book["cells"])
    assert "canary-key-1234567" not in json.dumps([cell.get("outputs") for cell in book["cells"]])


@pytest.mark.slow
def test_a_dead_kernel_still_leaves_a_notebook_that_says_so(project):
    root = project("02_failing")
    book = nbformat.read(root / "notebooks/02_failing.ipynb", as_version=4)
    book.cells[3].source = "import os\nos._exit(3)"
    nbformat.write(book, root / "notebooks/02_failing.ipynb")
    done = execute(
        root / "notebooks/02_failing.ipynb", root / "out.ipynb", {"study": "tiny"}, folder=root
    )
    assert done.error is not None
    assert "Kernel died" in done.error
    assert "Kernel died" in (root / "out.ipynb").read_text()
