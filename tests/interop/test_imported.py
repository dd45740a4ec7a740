"""Two files compared without a study, and a file's answers put into one."""

import json
from pathlib import Path

import pandas as pd
import pytest
from lab import SOURCES, project_copy

import evalkit as ek
from evalkit.__main__ import main
from evalkit.answers import journal
from evalkit.benchmark.archive import import_answers
from evalkit.benchmark.benchmark import Benchmark
from evalkit.errors import DataError, DesignError
from evalkit.interop.logs import Log, told_apart
from evalkit.show.comparison import answer_said
from evalkit.study import Study

LOGS = Path(__file__).with_name("logs")
TABLE = {"id": [1, 2, 3], "input": ["p", "q", "r"], "expected": ["a", "b", "c"]}


@pytest.fixture
def table(tmp_path):
    """A CSV of answers to three questions."""

    def made(name, answers, **more):
        path = tmp_path / name
        pd.DataFrame(TABLE | {"predicted": answers} | more).to_csv(path, index=False)
        return path

    return made


def test_the_only_score_decides_and_both_tools_are_named():
    compared = ek.compare_files(LOGS / "inspect_base.eval", LOGS / "inspect_ft.json")
    assert compared.primary_metric == "match"
    assert compared.cells == {"both_right": 6, "fixed": 6, "regressed": 0, "both_wrong": 0}
    assert sum("Inspect 0.3.285, run" in note for note in compared.notes) == 2


def test_a_score_that_is_never_a_number_is_not_compared_and_a_mean_fixes_nothing(tmp_path):
    rows = [
        {"id": n, "epoch": 1, "input": f"q{n}", "output": {"completion": "a"}} for n in range(9)
    ]
    for side in (0, 1):
        said = [
            {"f1": {"value": 0.1 * n + 0.01 * side * n}, "tone": {"value": "warm"}}
            for n in range(9)
        ]
        samples = [row | {"scores": scores} for row, scores in zip(rows, said, strict=True)]
        log = {"version": 2, "status": "success", "eval": {"model": str(side)}, "samples": samples}
        (tmp_path / f"{side}.json").write_text(json.dumps(log))
    compared = ek.compare_files(tmp_path / "0.json", tmp_path / "1.json")  # f1 alone can decide
    assert compared.primary_metric == "f1"
    assert "tone" not in compared.tests
    assert "fixed" not in answer_said(compared)


def test_of_several_scores_none_is_guessed(table):
    more = {"judge": [0.1, 0.2, 0.3], "f1": [0.5, 0.5, 0.5]}
    files = [table(name, ["a", "x", "x"], **more) for name in ("old.csv", "new.csv")]
    with pytest.raises(
        DesignError, match=r"several scores, none is guessed.*'judge', 'f1'.*--metric"
    ):
        ek.compare_files(*files)
    assert ek.compare_files(*files, metric="judge").primary_metric == "judge"
    with pytest.raises(DesignError, match=r"no score 'nope'; it holds 'judge'"):
        ek.compare_files(*files, metric="nope")


def test_without_a_score_the_right_answers_decide_and_without_either_nothing_does(table, tmp_path):
    files = [table("old.csv", ["a", "x", "x"]), table("new.csv", ["a", "b", "x"])]
    assert ek.compare_files(*files).primary_metric == "exact_match"
    for path in files:
        pd.read_csv(path).drop(columns="expected").to_csv(path, index=False)
    with pytest.raises(DesignError, match="carry no score in common and name no right answers"):
        ek.compare_files(*files)


def test_rows_that_only_one_file_has_are_told(table):
    old, new = table("old.csv", ["a", "x", "x"]), table("new.csv", ["a", "b", "x"])
    pd.read_csv(new).assign(id=[1, 2, 9]).to_csv(new, index=False)
    notes = " ".join(ek.compare_files(old, new).notes)
    assert "1 id of old.csv stand only there, first '3'" in notes
    assert "1 id of new.csv stand only there, first '9'" in notes


def test_the_same_id_for_another_question_is_refused(table):
    old, new = table("old.csv", ["a", "x", "x"]), table("new.csv", ["a", "b", "x"])
    pd.read_csv(new).assign(input=["p", "q", "other"]).to_csv(new, index=False)
    with pytest.raises(DataError, match="1 id with different input or expected text"):
        ek.compare_files(old, new)


def test_answers_alone_need_their_questions(tmp_path):
    lines = [
        {
            "custom_id": str(n),
            "response": {"status_code": 200, "body": {"choices": [{"message": {"content": "a"}}]}},
        }
        for n in range(2)
    ]
    path, test = tmp_path / "out.jsonl", tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    rows = [
        {
            "id": n,
            "messages": [
                {"role": "user", "content": f"q{n}"},
                {"role": "assistant", "content": "a"},
            ],
            "metadata": {"kind": "ab"[n], "share": n / 4 + 0.1, "codes": ["A00", n], "one": "x"},
        }
        for n in range(2)
    ]
    test.write_text("".join(json.dumps(one) + "\n" for one in rows))
    compared = ek.compare_files(path, path, test_file=test)
    assert (compared.n, compared.cells["both_right"]) == (2, 2)
    # its kinds of rows are what can be cut by; a measure, a list and what all rows share are not
    assert [row.slice for row in compared.slices()] == ["kind = a", "kind = b"]


def test_a_journal_is_cut_by_the_fields_of_its_test_set():
    places = [SOURCES / f"data/notes/journals/{role}.jsonl" for role in ("base", "fine_tuned")]
    test = SOURCES / "data/notes/test.jsonl"
    found = ek.compare_files(*(ek.read_log(one, test_file=test) for one in places))
    fields = found.slices().to_frame()["field"].unique().tolist()
    assert fields == ["patient", "department", "turns"]


def test_a_field_that_cannot_be_named_is_nothing_to_cut_a_journal_by(tmp_path):
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [{"id": n, "messages": said, " kind ": "ab"[n], "": "ab"[n]} for n in range(2)]
    test, path = tmp_path / "test.jsonl", tmp_path / "j.jsonl"
    test.write_text("".join(json.dumps(one) + "\n" for one in rows))
    ek.run_automated_eval(lambda _: "a", test, journal=path, name="m", progress=False)
    assert not ek.compare_files(path, path, test_file=test).slices()


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (("small", "large"), ["s.jsonl (small)", "s.jsonl (large)"]),
        (("small", "small"), ["s.jsonl (old)", "s.jsonl (new)"]),
        (("small", ""), ["s.jsonl (old)", "s.jsonl (new)"]),
    ],
)
def test_two_files_of_one_name_are_told_apart_by_what_differs(models, told, tmp_path):
    paths = [tmp_path / folder / "seed1/s.jsonl" for folder in ("old", "new")]
    old, new = (
        Log(path=path, tool="lm-eval", model=model, rows=())
        for path, model in zip(paths, models, strict=True)
    )
    assert told_apart(old, new, ["s.jsonl", "s.jsonl"]) == told
    assert told_apart(old, new, ["a", "b"]) == ["a", "b"]
    assert told_apart(old, old, ["s.jsonl", "s.jsonl"]) == ["s.jsonl", "s.jsonl"]


def test_two_files_of_one_name_and_one_model_are_compared_under_two_names(table):
    for folder in ("old", "new"):
        (table("t.csv", ["a", "b", "x"]).parent / folder).mkdir()
    files = [table(f"{folder}/t.csv", ["a", "b", "x"]) for folder in ("old", "new")]
    models = ek.compare_files(*files).declared.models
    assert models == {"base": "t.csv (old)", "fine_tuned": "t.csv (new)"}


@pytest.fixture
def study(tmp_path):
    """A study of three questions, whose models are not asked."""
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    rows = [
        {
            "id": str(n),
            "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}],
        }
        for n, q, a in zip(TABLE["id"], TABLE["input"], TABLE["expected"], strict=True)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (folder / "study.yaml").write_text(
        "base_model: old\nfine_tuned_model: new\nprimary_metric: judge\n"
    )
    return Benchmark(study=Study.open("mine", root=tmp_path))


def test_a_study_goes_on_with_the_answers_and_scores_of_another_tool(study, table):
    for role, scores in (("base", [0.0, 0.0, 1.0]), ("fine_tuned", [1.0, 1.0, 1.0])):
        log = ek.read_log(table(f"{role}.csv", ["a", "x", "x"], judge=scores))
        told = import_answers(study, log, role)
        assert (told.n, told.unused, told.unanswered) == (3, (), 0)
    compared = study.compare()
    assert (compared.primary_metric, compared.cells["fixed"]) == ("judge", 2)
    head = journal.read_header(study.study.path("journals/base.jsonl"))
    assert head["about"]["imported"] == {"file": "base.csv", "tool": "table"}


def test_importing_twice_changes_nothing_and_what_does_not_fit_is_told(study, table):
    path = table("base.csv", ["a", "x", "x"], judge=[0.0, 0.0, 1.0])
    frame = pd.read_csv(path)
    pd.concat([frame.iloc[:2], frame.iloc[2:].assign(id=9, input="unknown")]).to_csv(
        path, index=False
    )
    log = ek.read_log(path)
    first = import_answers(study, log, "base")
    before = first.journal.read_bytes()
    assert (first.n, first.unused, first.unanswered) == (2, ("9",), 1)
    assert "without an answer: 1 row of the test set" in str(first)
    import_answers(study, log, "base")
    assert first.journal.read_bytes() == before


def test_a_file_of_another_test_set_leaves_no_journal(study, table):
    path = table("base.csv", ["a", "x", "x"])
    pd.read_csv(path).assign(id=[7, 8, 9], input=["x", "y", "z"]).to_csv(path, index=False)
    with pytest.raises(DataError, match="is it another test set"):
        import_answers(study, ek.read_log(path), "base")
    assert not study.study.path("journals/base.jsonl").exists()


@pytest.mark.slow
def test_one_command_gives_the_page(tmp_path, monkeypatch, capsys):
    project = project_copy(tmp_path, "icd10", notebooks="compare.ipynb")
    monkeypatch.chdir(project)
    assert main(["compare", str(LOGS / "inspect_base.eval"), str(LOGS / "inspect_ft.eval")]) == 0
    sentence, page = capsys.readouterr().out.splitlines()
    text = Path(page).read_text(encoding="utf-8")
    assert sentence == "Match over 12 examples: better, +50.0 points (95% interval +13.6 to +74.6)."
    assert sentence in text
    assert "Inspect 0.3.285, run FJpfdyM87jZzJtpDM8hopL" in text
