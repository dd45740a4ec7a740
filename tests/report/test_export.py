"""Nothing half-made stays behind when an export fails."""

import json

import pandas as pd
import pytest

from evalkit.abtest.log import EventLog
from evalkit.answers.runner import run_automated_eval
from evalkit.errors import DataError
from evalkit.human.rater import Session
from evalkit.human.round import Round, open_round
from evalkit.records import EvalResult
from evalkit.report.export import export
from evalkit.study import Study

BOUND = {"test_set": "t", "base": "b", "fine_tuned": "f"}


@pytest.fixture
def root(project):
    return project("01_fine")


@pytest.fixture
def closed_round(root):
    base, tuned = (
        [EvalResult(i, f"q{i}", "x", f"{who} {i}", False, True) for i in range(4)]
        for who in ("base", "tuned")
    )
    study = Study.open("tiny", root=root, sample_size=3, raters="rater1")
    round_ = open_round(study, base, tuned, bound_to=BOUND, models={}).round
    session = Session(round_, "rater1")
    while session.current:
        session.vote(session.current, "left", seconds=1)
    round_.lock()
    return Round.open(round_.folder)


def test_a_closed_round_and_a_log_are_written_and_nothing_else(root, closed_round):
    EventLog(root / "data/tiny/events.sqlite").close()
    made = export("tiny", root / "out/deep", root=root)
    assert [path.name for path in made] == [
        *("exposures.parquet", "outcomes.parquet", "log_meta.parquet"),
        *("round1.dpo.jsonl", "round1.llm_comparator.json"),
    ]
    assert sorted(made) == sorted((root / "out/deep").iterdir())
    assert [path.name for path in (root / "out").iterdir()] == ["deep"]
    assert export("tiny", root / "out/deep", root=root) == made  # again, over the old files


def test_a_log_elsewhere_is_found_by_its_variable(root, monkeypatch):
    EventLog(root / "elsewhere.sqlite").close()
    monkeypatch.setenv("TINY_LOG_URL", f"sqlite:///{root / 'elsewhere.sqlite'}")
    (root / "data/tiny/study.yaml").write_text("study: tiny\nevent_log: TINY_LOG_URL\n")
    assert len(export("tiny", root / "out", root=root)) == 3


def test_a_log_of_csv_files_is_left_where_it_is_and_said(root, closed_round, capsys):
    (root / "data/tiny/log").mkdir()
    (root / "data/tiny/study.yaml").write_text("study: tiny\nevent_log: log\n")
    made = export("tiny", root / "out", root=root)
    assert [path.name for path in made] == ["round1.dpo.jsonl", "round1.llm_comparator.json"]
    assert (
        "log: not exported, its tables are not the kit's own and can be read as they are"
        in capsys.readouterr().err
    )


def test_nothing_to_export_leaves_no_folder(root):
    with pytest.raises(DataError, match="nothing to export"):
        export("tiny", root / "out", root=root)
    assert not (root / "out").exists()
    (root / "taken").write_text("")
    with pytest.raises(DataError, match="is a file; name a folder with --to"):
        export("tiny", root / "taken", root=root)


def test_votes_changed_after_the_lock_leave_the_folder_as_it_was(root, closed_round):
    EventLog(root / "data/tiny/events.sqlite").close()
    with closed_round.votes("rater1").path.open("a") as file:
        file.write(json.dumps({"kind": "undo"}) + "\n")
    (root / "out").mkdir()
    (root / "out/mine.txt").write_text("kept")
    with pytest.raises(DataError, match=r"votes/rater1.jsonl: was sha256 .* \(round locked"):
        export("tiny", root / "out", root=root)
    assert [path.name for path in (root / "out").iterdir()] == ["mine.txt"]


def test_both_models_answers_are_written_as_one_tidy_table(root):
    rows = [
        {
            "id": str(n),
            "messages": [
                {"role": "user", "content": f"q{n}"},
                {"role": "assistant", "content": "a"},
            ],
            "metadata": {"kind": "single" if n else "multi"},
        }
        for n in range(3)
    ]
    folder = root / "data/tiny"
    (folder / "test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (folder / "study.yaml").write_text("study: tiny\nslice_fields: kind\n")
    for name, said in (("base", "ab"), ("fine_tuned", "aa")):
        run_automated_eval(
            lambda messages, said=said: said[messages[-1]["content"] == "q0"],
            folder / "test.jsonl",
            journal=folder / f"journals/{name}.jsonl",
            name=name,
            progress=False,
        )
        if name == "base":
            with pytest.raises(DataError, match="both models' answers"):
                export("tiny", root / "out", root=root)
    (made,) = export("tiny", root / "out", root=root)
    frame = pd.read_parquet(made)
    assert made.name == "answers.parquet"
    assert frame.groupby("model", observed=True)["right"].sum().to_dict() == {
        "base": 2,
        "fine-tuned": 3,
    }
    assert set(frame["kind"]) == {"single", "multi"}
    assert frame["predicted"].tolist() == ["b", "a", "a", "a", "a", "a"]
