import json
import subprocess

import yaml

from evalkit.report.new import new_study, next_step


def test_the_title_is_the_study_and_outlives_a_change_of_models(tmp_path):
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    (tmp_path / "held_out.jsonl").write_text(json.dumps(row) + "\n")
    path = new_study(
        "mine", test=tmp_path / "held_out.jsonl", base="old", fine_tuned="v1", root=tmp_path
    )
    assert yaml.safe_load(path.read_text())["title"] == "mine"


def test_git_takes_the_study_and_leaves_its_users_out(tmp_path):
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    (tmp_path / "held_out.jsonl").write_text(json.dumps(row) + "\n")
    path = new_study(
        "mine", test=tmp_path / "held_out.jsonl", base="old", fine_tuned="v1", root=tmp_path
    )
    for name in ("events.sqlite", "events.sqlite-wal", "log.db", "events/exposures.parquet"):
        (path.parent / name).parent.mkdir(exist_ok=True)
        (path.parent / name).write_text("u1")
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "data/mine"], check=True)
    staged = subprocess.run([*git, "ls-files"], check=True, capture_output=True, text=True).stdout
    assert staged.split() == [
        f"data/mine/{name}" for name in (".gitignore", "study.yaml", "test.jsonl")
    ]
    assert "keeps the A/B log out" in next_step(path)
