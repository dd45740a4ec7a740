"""The recipes of docs/scheduling.md say what the programs understand."""

import ast
import re
import subprocess
from pathlib import Path, PurePath

import yaml

DOCS = Path(__file__).parents[2] / "docs"


def test_the_workflow_keeps_the_report_of_a_failed_run_and_ends_with_the_gate():
    job = yaml.safe_load((DOCS / "nightly.yml").read_text())["jobs"]["evaluate"]
    upload = next(step for step in job["steps"] if "upload-artifact" in step.get("uses", ""))
    assert upload["if"] == "always()"
    assert job["steps"][-1]["run"] == 'python -m evalkit gate "$STUDY"'
    for step in job["steps"]:
        subprocess.run(["bash", "-n"], input=step.get("run", ""), text=True, check=True)
        assert "OPENAI_API_KEY" not in step.get(
            "run", ""
        )  # keys come from secrets through the environment


def test_the_workflow_keeps_what_a_run_adds_even_when_the_gate_fails_the_job_and_never_the_study_file():
    flow = yaml.safe_load((DOCS / "nightly.yml").read_text())
    steps = flow["jobs"]["evaluate"]["steps"]
    used = [step.get("uses", step.get("name", "")).split("@")[0] for step in steps]
    assert "actions/cache" not in used  # it saves nothing after a failed job
    restore, save = (steps[used.index(f"actions/cache/{what}")] for what in ("restore", "save"))
    assert (
        used.index("actions/cache/restore") < used.index("Run") < used.index("actions/cache/save")
    )
    assert save["if"] == "always()"
    assert (save["with"]["path"], save["with"]["key"]) == (
        restore["with"]["path"],
        restore["with"]["key"],
    )
    kept = [PurePath(line).name for line in flow["env"]["STATE"].split()]
    assert {"journals", "ratings", "plan.lock.json", "ledger.jsonl", "ledger.head"} <= set(kept)
    assert not {"study.yaml", "test.jsonl", "*"} & set(kept)


def test_shell_and_python_in_the_page_parse_and_name_the_notebooks_that_exist():
    text = (DOCS / "scheduling.md").read_text()
    (airflow,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ast.parse(airflow)
    books = sorted(path.stem for path in (DOCS.parent / "notebooks").glob("[0-9]*.ipynb"))
    assert re.findall(r'"(\d\d_\w+)"', airflow) == books
    assert (
        '"simulate_raters": 0' in airflow
    )  # papermill would leave a notebook's own default, the demo's
    assert 'kernel_name="evalkit"' in airflow  # python3 is Airflow's own environment
    assert "--name evalkit" in text
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if not language and not block.startswith("0 3 "):  # but for the crontab line
            subprocess.run(["bash", "-n"], input=block, text=True, check=True)
