"""The house keeps its own rules: doors, lazy imports, clean notebooks, no secrets of the workshop."""

import ast
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOORS = {
    "openai": ("evalkit/answers/endpoint", "evalkit/answers/submission"),
    "papermill": ("evalkit/report/",),
    "nbconvert": ("evalkit/report/",),
    "matplotlib": ("evalkit/show/",),
    "seaborn": ("evalkit/show/",),
    "fontTools": ("evalkit/show/style",),
    "scipy": ("evalkit/stats/",),
    "statsmodels": ("evalkit/stats/",),
    "ibis": ("evalkit/abtest/",),
    "sqlalchemy": ("evalkit/abtest/log", "evalkit/abtest/source"),
    "anywidget": ("evalkit/human/rater", "evalkit/show/explorer"),
    "ipywidgets": ("evalkit/human/rater", "evalkit/show/"),
    "fcntl": ("evalkit/files",),
    "pickle": (),
}
MODULES = sorted(ROOT.glob("evalkit/**/*.py"))
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_library_has_one_door(module):
    where = module.relative_to(ROOT).as_posix()
    wrong = {name for name in imported(module) & DOORS.keys() if not where.startswith(DOORS[name])}
    assert not wrong, (
        f"{where} imports {wrong}; their doors: { {name: DOORS[name] for name in wrong} }"
    )


@pytest.mark.parametrize(
    "module", ["evalkit", "evalkit.__main__", "evalkit.report.gate", "evalkit.report.chain"]
)
def test_what_a_command_waits_for_loads_no_library(module):
    heavy = ("pandas", "numpy", "openai", "scipy", "matplotlib", "sqlalchemy")
    code = f"import {module}, sys; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def loaded_by(code: str) -> set[str]:
    """Top names of what a fresh process has loaded after some lines."""
    told = "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    run = [sys.executable, "-c", code + told]
    return {
        *subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    }


def test_a_study_is_opened_without_a_library_and_compares_without_those_of_the_ab_test_and_of_figures():
    heavy = {"pandas", "numpy", "scipy", "statsmodels", "openai", "rapidfuzz", "pyarrow"}
    others = {
        "sqlalchemy",
        "ibis",
        "duckdb",
        "matplotlib",
        "seaborn",
        "ipywidgets",
        "anywidget",
        "openai",
    }
    opened = "from evalkit import Study; study = Study.open('icd10'); study.settings"
    assert not loaded_by(opened) & (heavy | others)
    assert not loaded_by(f"{opened}; study.compare()") & others


def test_a_log_in_a_file_is_read_and_a_request_is_routed_without_sqlalchemy():
    assert "sqlalchemy" not in loaded_by("import evalkit.abtest.experiment")
    assert not loaded_by("from evalkit import run_ab_request") & {"sqlalchemy", "pandas", "numpy"}


def test_an_engines_worker_assigns_with_the_standard_library_alone():
    code = (
        "from evalkit.abtest.assignment import growthbook_place; print(growthbook_place('s', 'u'))"
    )
    bare = [sys.executable, "-S", "-c", code]  # -S: no package of anybody's
    told = subprocess.run(bare, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert 0 <= float(told) < 1


def test_the_articles_names_are_importable_from_the_top():
    import evalkit

    assert all(callable(getattr(evalkit, name)) for name in evalkit.__all__)
    later = {"Study", "compare_files", "read_log"}  # what notebooks start from
    twins = {f"{one}_async" for one in ("run_automated_eval", "run_ab_request")}  # these wait
    assert twins < set(evalkit.__all__)
    assert len(set(evalkit.__all__) - later - twins) == 11


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stripped_and_short_celled(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["metadata"]["kernelspec"]["language"] == "python"
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1
    assert "".join(notebook["cells"][0]["source"]).startswith("# ")
    for cell in code:
        source = "".join(cell["source"])
        assert not re.search(r"^\s*(def|class) ", source, re.M)
        if "parameters" not in cell["metadata"].get("tags", []):
            assert len(source.splitlines()) <= 10


def test_all_seven_notebooks_are_there():
    names = [
        "01_benchmark",
        "02_regressions",
        "03_rate",
        "04_preference",
        "05_plan",
        "06_ab_test",
        "07_decision",
        "compare",  # beside the chain: of two files, no study
    ]
    assert [path.stem for path in NOTEBOOKS] == names


def test_no_path_of_one_machine_stands_in_a_file():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    texts = [
        ROOT / name
        for name in files
        if name.endswith((".py", ".md", ".toml", ".yaml", ".yml", ".ipynb", ".json", ".txt"))
    ]
    pattern = re.compile(r"(?<![\w.~}/])/(work|root|home/[a-z]+)/")
    assert [
        str(path)
        for path in texts
        if path != Path(__file__) and pattern.search(path.read_text(encoding="utf-8"))
    ] == []


PROMISED = {
    "openai": {"openai"},
    "pandas": {"pandas"},
    "matplotlib": {"matplotlib"},
    "seaborn": {"seaborn"},
    "statsmodels": {"statsmodels"},
    "ipywidgets": {"ipywidgets", "anywidget"},
    "papermill": {"papermill"},
}


def code_of(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(one["source"]) for one in cells if one["cell_type"] == "code")


def used(path: Path) -> set[str]:
    """The libraries of whose names something is called, subclassed or read: an import alone is no work."""
    tree = ast.parse(code_of(path))
    homes = dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            homes |= {(one.asname or one.name).split(".")[0]: one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            homes |= {one.asname or one.name: node.module or "" for one in node.names}
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return {home.split(".")[0] for name, home in homes.items() if name in read}


@pytest.mark.parametrize("library", PROMISED)
def test_each_promised_library_does_real_work(library):
    assert [path for path in (*MODULES, *NOTEBOOKS) if used(path) & PROMISED[library]]


@pytest.mark.parametrize(
    ("library", "chapters"),
    [
        ("pandas", {"02_regressions", "04_preference", "07_decision"}),
        (
            "seaborn",
            {"01_benchmark", "02_regressions", "04_preference", "06_ab_test", "07_decision"},
        ),
        ("statsmodels", {"02_regressions", "04_preference"}),
    ],
)
def test_chapters_are_analyses_that_a_data_scientist_can_go_on_with(library, chapters):
    found = {path.stem for path in NOTEBOOKS if library in used(path)}
    assert found >= chapters


def test_every_record_that_displays_itself_in_a_notebook_is_there_and_has_its_figure():
    from evalkit import show

    for record, (how, gives) in show.RECORDS.items():
        module, _, name = record.rpartition(".")
        assert import_module(f"evalkit.{module}").__dict__[name].__module__ == f"evalkit.{module}"
        assert callable(getattr(show, how)) if how else gives
