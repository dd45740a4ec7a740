import json

import yaml

from evalkit.report.new import new_study


def test_the_title_is_the_study_and_outlives_a_change_of_models(tmp_path):
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    (tmp_path / "held_out.jsonl").write_text(json.dumps(row) + "\n")
    path = new_study(
        "mine", test=tmp_path / "held_out.jsonl", base="old", fine_tuned="v1", root=tmp_path
    )
    assert yaml.safe_load(path.read_text())["title"] == "mine"
