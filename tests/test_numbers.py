"""Numbers that are none are refused by name wherever a person may write one."""

import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.abtest.plan import ABPlan, Guardrail, Metric, read_guardrails
from evalkit.answers.evaluation import prices_of
from evalkit.decision import Rules
from evalkit.errors import DataError, DesignError
from evalkit.files import LARGEST, read_yaml
from evalkit.study import Study, checked

NONE = [".nan", ".NaN", ".inf", "-.inf", str(10**400), "1.0e+400", str(-(2**64))]


@pytest.mark.parametrize("number", NONE)
def test_a_file_with_a_number_that_is_none_is_refused_by_name(tmp_path, number):
    home = tmp_path / "data" / "toy"
    home.mkdir(parents=True)
    files = {
        "study.yaml": f"study: toy\nslice_margin: {number}\n",
        "rules.yaml": f"benchmark_margin: {number}\n",
        "prices.yaml": f"gpt: {{prompt_per_million: {number}, completion_per_million: 1}}\n",
        "guardrails.yaml": f"- {{name: a, margin: 1}}\n- {{name: b, margin: {number}}}\n",
    }
    for name, text in files.items():
        (home / name).write_text(text)
    with pytest.raises(DataError, match=r"study\.yaml: slice_margin: got .*; need"):
        _ = Study.open("toy", root=tmp_path).given
    with pytest.raises(DataError, match=r"rules\.yaml: benchmark_margin: got"):
        Rules.read(home / "rules.yaml")
    with pytest.raises(DataError, match=r"prices\.yaml: gpt\.prompt_per_million: got"):
        prices_of(home / "prices.yaml", "gpt")
    with pytest.raises(DataError, match=r"guardrails\.yaml: 2\.margin: got"):
        read_guardrails(home / "guardrails.yaml")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 10**400, -(2**60)])
def test_a_parameter_that_is_no_number_is_refused_before_anything_runs(value):
    for kind in (float, int) if isinstance(value, int) else (float,):
        with pytest.raises(DesignError, match=r"slice_margin: got .*; need"):
            checked({"slice_margin": value}, types={"slice_margin": kind})
    checked({"seed": LARGEST}, types={"seed": int})


@pytest.mark.parametrize("price", ["nan", "inf", float("nan"), 10**400, -1])
def test_a_price_that_is_no_number_is_refused_also_from_a_mapping(price):
    with pytest.raises(DataError, match="price"):
        prices_of({"gpt": {"prompt_per_million": 1, "completion_per_million": price}}, "gpt")


def test_a_number_of_more_digits_than_python_reads_is_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "a.yaml").write_text("limit: " + "9" * 5000)
    with pytest.raises(DataError, match=r"a\.yaml: not YAML .* need"):
        read_yaml(tmp_path / "a.yaml", need="lines")


@pytest.mark.parametrize("number", [".nan", "9" * 5000])
def test_the_command_line_refuses_it_in_one_line(tmp_path, number):
    root = tmp_path
    (root / "notebooks").mkdir()
    (root / "data" / "toy").mkdir(parents=True)
    (root / "data" / "toy" / "study.yaml").write_text("study: toy\n")
    source = Path(__file__).parents[1] / "notebooks" / "07_decision.ipynb"
    text = source.read_text().replace('stage: str = \\"pre_deploy\\"', "slice_margin: float = 0.05")
    (root / "notebooks" / "07_decision.ipynb").write_text(text)
    command = [sys.executable, "-m", "evalkit", "run", "toy", "-p", f"slice_margin={number}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "slice_margin: got" in done.stderr
    assert "Traceback" not in done.stderr


PLAN = {"experiment_name": "e", "control_model": "a", "treatment_model": "b", "users_per_day": 9.0,
        "primary": Metric(name="m", expected=0.5, detectable_difference=0.1)}  # fmt: skip
METRIC = {"name": "m", "kind": "mean", "expected": 0.5, "detectable_difference": 0.1, "sd": 1.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 10**400])
def test_a_plan_made_by_hand_holds_finite_numbers_only(value):
    for name in ("users_per_day", "alpha", "power", "design_effect", "cap_per_user", "looks"):
        with pytest.raises(DesignError, match=f"{name} is .*; need a"):
            ABPlan(**(PLAN | {name: value}))
    with pytest.raises(DesignError, match=r"detectable_difference is .*; need a finite number"):
        Metric(**(METRIC | {"detectable_difference": value}))
    for name in ("expected", "sd"):
        with pytest.raises(DesignError, match=f"metric 'm': {name} is .*; need a finite number"):
            Metric(**(METRIC | {name: value}))
    with pytest.raises(DesignError, match="margin"):
        Guardrail(name="error", margin=value)


@pytest.mark.parametrize("value", [0, 1, 2, -0.05])
def test_a_level_of_a_plan_lies_between_0_and_1(value):
    for name in ("alpha", "power"):
        with pytest.raises(DesignError, match=f"{name} is {value}; need a number between 0 and 1"):
            ABPlan(**(PLAN | {name: value}))
