"""Notebooks 01 and 02, their cells run one after another in this process over small studies of every kind."""

import ast
import json
from pathlib import Path

import matplotlib
import pytest
import statsmodels.formula.api as smf
import yaml
from matplotlib import pyplot

from evalkit import stats
from evalkit.answers.runner import run_automated_eval
from evalkit.benchmark.slices import regression_frame
from evalkit.evidence import Evidence, as_json
from evalkit.workbench import Study

matplotlib.use("agg")
ROOT = Path(__file__).parents[2]
BOOKS = {name: ROOT / "notebooks" / f"{name}.ipynb" for name in ("01_benchmark", "02_regressions")}
SCORERS = "similarity,normalised_exact,all_lines_present"
HOSTILE = "<img src=x onerror=window.x=1> $5 and $6 \u202eabc <script>window.x=1</script>"


def cells(name):
    notebook = json.loads(BOOKS[name].read_text(encoding="utf-8"))
    return [
        ("".join(one["source"]), one["metadata"].get("tags", []))
        for one in notebook["cells"]
        if one["cell_type"] == "code"
    ]


def run(name, parameters):
    """Runs a notebook's cells on a study that says this; returns its names and the HTML its cells showed."""
    Path("data", parameters["study"], "study.yaml").write_text(yaml.safe_dump(parameters))
    space, shown = {}, []
    for source, tags in cells(name):
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), space)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), space)
            shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else "")
        if "parameters" in tags:
            space["study"] = parameters["study"]
        pyplot.close("all")
    return space, "".join(one for one in shown if one)


def said(role, text):
    return {"role": role, "content": text}


def study(
    folder,
    *,
    n=60,
    samples=1,
    text=lambda i: f"question {i}",
    slices=lambda i: {"kind": "even" if i % 2 == 0 else "odd"},
):
    """A study in which fine-tuned is right where base is wrong, except on every fifth row, where it is the other way."""
    home = folder / "data" / "small"
    home.mkdir(parents=True)
    (folder / "notebooks").mkdir()
    rows = [
        {
            "id": f"r{i}",
            "metadata": slices(i),
            "messages": [said("user", text(i)), said("assistant", "yes")],
        }
        for i in range(n)
    ]
    (home / "test.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    place = {text(i): i for i in range(n)}

    def base(messages):
        return "yes" if place[messages[-1]["content"]] % 5 == 0 else f"no {messages[-1]['content']}"

    def fine_tuned(messages):
        return f"no {messages[-1]['content']}" if place[messages[-1]["content"]] % 5 == 0 else "yes"

    for model in (base, fine_tuned):
        path = home / "journals" / f"{model.__name__}.jsonl"
        path.parent.mkdir(exist_ok=True)
        run_automated_eval(
            model,
            home / "test.jsonl",
            journal=path,
            name=model.__qualname__,
            samples=samples,
            progress=False,
            concurrency=2,
        )
    return {"study": "small", "slice_fields": "kind", "scorers": SCORERS}


@pytest.fixture
def alone(tmp_path, monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_benchmark_is_handed_on_and_amended(alone):
    parameters = study(alone)
    first, _ = run("01_benchmark", parameters)
    written = Evidence.read(first["here"].run_folder() / "comparison.json")
    # 60 rows: base right on the 12 with i % 5 == 0, fine-tuned on the other 48
    assert as_json(written.details.cells) == {
        "both_right": 0,
        "fixed": 48,
        "regressed": 12,
        "both_wrong": 0,
    }
    assert written.primary.estimate == pytest.approx(36 / 60)
    assert written.details.noise_floor is None
    second, html = run("02_regressions", parameters)
    amended = Evidence.read(first["here"].run_folder() / "comparison.json")
    assert {row.slice for row in amended.details.slices} == {"kind = even", "kind = odd"}
    assert "12 examples got worse" in html
    lines = (
        (alone / "reports" / "small" / "by-hand" / "regressed.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    assert len(lines) == len(second["comparison"].regressed) == 12
    assert "not measured" in html


def test_hostile_text_is_shown_as_text(alone):
    parameters = study(
        alone,
        n=40,
        text=lambda i: f"{HOSTILE} {i}",
        slices=lambda i: {"kind": HOSTILE if i % 2 else "odd"},
    )
    for name in BOOKS:
        html = run(name, parameters)[1]
        assert "<img src=x" not in html
        assert "<script" not in html
        assert "\u202e" not in html


@pytest.mark.parametrize(
    ("made", "more"),
    [
        ({"n": 1}, {}),
        ({"n": 30}, {"slice_fields": ""}),
        ({"n": 30, "samples": 3}, {"metric_margin": 0.05}),
        (
            {"n": 60, "slices": lambda i: {"kind": "x", "doc": str(i // 3)}},
            {"cluster_field": "doc", "scorers": ""},
        ),
        ({"n": 30}, {"primary_metric": "similarity", "alpha": 0.1}),
    ],
    ids=[
        "one row",
        "no slices",
        "several samples and a margin",
        "clusters and one metric",
        "numeric primary metric",
    ],
)
def test_both_notebooks_run_on_every_kind_of_study(alone, made, more):
    parameters = study(alone, **made) | more
    for name in BOOKS:
        space, html = run(name, parameters)
        assert "ek-answer" in html
        assert space["comparison"].n == made["n"]


def test_run_by_itself_the_second_says_what_to_run_first(alone):
    html = run("02_regressions", study(alone, n=20))[1]
    assert "the benchmark chapter has not written it" in html


def test_several_checkpoints_are_compared(alone):
    parameters = study(alone, n=30) | {
        "checkpoint_journals": "journals/base.jsonl,journals/fine_tuned.jsonl"
    }
    space, _ = run("01_benchmark", parameters)
    compared = space["here"].checkpoints()
    assert list(compared) == [
        "fine-tuned",
        "study.<locals>.base",
        "study.<locals>.fine_tuned",
    ]
    assert compared["study.<locals>.base"].exact_match_improvement == 0


def test_what_was_not_declared_is_said_once_and_not_drawn(alone):
    parameters = study(alone) | {"slice_fields": ""}
    html = run("01_benchmark", parameters)[1]
    assert "dashed line is the level of picking" not in html
    assert "no training file was searched for leaks" in html
    assert "used in training" not in html
    html = run("02_regressions", parameters)[1]
    assert html.count("No slices were declared") == 1


def test_the_formula_and_the_counts_agree_with_the_tables_beside_them(alone):
    """What stands in plain sight in a notebook is what the kit says in the cell above it."""
    parameters = study(alone)
    first, _ = run("01_benchmark", parameters)
    # 48 fixed, 12 regressed: mid-p = 2 P(X <= 12) - P(X = 12), X ~ Bin(60, 1/2)
    assert first["p_value"] == pytest.approx(first["comparison"].primary.p_value, rel=1e-9)
    second, _ = run("02_regressions", parameters)
    frame = second["answers"].astype({"cluster": str}).assign(correct=lambda one: one["right"] * 1)
    for table in (stats.linear_probability_table(frame, cluster="cluster"),):
        for row in [one for one in table if one.slice]:
            name, (low, high) = (
                f"C(slice)[{row.slice}]:fine_tuned",
                second["fit"].conf_int().loc[f"C(slice)[{row.slice}]:fine_tuned"],
            )
            assert second["fit"].params[name] == pytest.approx(row.estimate)
            assert (low, high) == pytest.approx((row.ci_low, row.ci_high))
            assert second["fit"].pvalues[name] == pytest.approx(row.p_value)


def test_the_regression_by_hand_agrees_on_the_recorded_answers():
    comparison = Study.open("icd10", root=ROOT).compare()
    for field in ("kind", "style"):
        answers = comparison.to_frame(field=field)
        model = smf.ols("right.astype(float) ~ C(slice) + C(slice):fine_tuned", answers)
        by_hand = model.fit(
            cov_type="cluster", cov_kwds={"groups": answers["cluster"].cat.codes}, use_t=True
        )
        frame = regression_frame(comparison, field=field)
        told = {row.slice: row for row in stats.linear_probability_table(frame) if row.slice}
        assert len(told) >= 2
        for name, row in told.items():
            term = f"C(slice)[{name}]:fine_tuned"
            assert by_hand.params[term] == pytest.approx(row.estimate)
            assert tuple(by_hand.conf_int().loc[term]) == pytest.approx((row.ci_low, row.ci_high))


def test_what_was_selected_comes_back_as_a_frame_with_notes_and_marks(alone):
    space, _ = run("02_regressions", study(alone))
    explorer = space["explorer"]
    assert len(space["picked"]) == 60
    explorer._status.value = "regressed"
    explorer._note.value = "odd"
    explorer._mark.value = True
    explorer._go(explorer._at + 1)
    frame = explorer.selected.to_frame()
    assert len(frame) == 12
    assert frame["note"].tolist()[:2] == ["odd", None] or frame["note"].isna()[1]
    assert frame["marked"].tolist() == [True] + [False] * 11
    assert set(frame["asked_again"]) == {"not re-asked"}
    again = space["here"].explore(space["comparison"], space["noise"])
    assert again.selected.to_frame()["marked"].sum() == 1
