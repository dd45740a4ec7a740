"""What a study without a way to ask is told: exactly what is missing."""

import json
from pathlib import Path

import pytest

from evalkit.answers.runner import run_automated_eval
from evalkit.benchmark.benchmark import Benchmark
from evalkit.errors import DataError
from evalkit.study import Study


@pytest.fixture
def study(tmp_path, monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "data" / "small"
    home.mkdir(parents=True)
    (home / "study.yaml").write_text("study: small\n", encoding="utf-8")
    rows = (
        [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": "yes"}]
        for i in range(20)
    )
    (home / "test.jsonl").write_text(
        "\n".join(json.dumps({"messages": row}) for row in rows), encoding="utf-8"
    )
    return Study(root=tmp_path, name="small")


def saying(study, **settings):
    return Study(root=study.root, name=study.name, overrides=settings)


def refusal(study, live=None):
    """With `live` None: what a notebook that never asks is told."""
    mine = saying(study, live=bool(live), base_model="m", base_journal="m.jsonl")
    with pytest.raises(DataError) as refused:
        Benchmark(study=mine, asks=live is not None).results("base")
    return str(refused.value)


@pytest.mark.parametrize("live", [True, False, None])
@pytest.mark.parametrize("with_journal", [True, False])
def test_a_forgotten_key_is_named(study, live, with_journal):
    if with_journal:  # written by a run that broke off before its first answer
        header = {
            "kind": "evalkit-journal",
            "version": 1,
            "model": "m",
            "endpoint": "openai",
            "parameters": {},
        }
        study.path("m.jsonl").write_text(json.dumps(header) + "\n", encoding="utf-8")
    said = refusal(study, live=live)
    assert ("no answer to 20 rows of 20" in said) is with_journal
    assert said.endswith(
        "to ask 'm', set OPENAI_API_KEY or OPENAI_BASE_URL and call evalkit run small --only 01 -p live=true"
    )


def test_the_notebook_that_is_named_is_the_one_that_asks():
    for book in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb"):
        assert ("ask=True" in book.read_text(encoding="utf-8")) is book.stem.startswith("01")


def ticket_v2(messages):
    return "yes"


@pytest.mark.parametrize("live", [True, False])
def test_checkpoints_are_read_and_named_after_the_model_that_answered(study, monkeypatch, live):
    monkeypatch.setenv("OPENAI_API_KEY", "local")
    names = {"base_model": "base", "fine_tuned_model": "tuned", "live": live}
    several = "v2.jsonl, again.jsonl"
    benchmark = Benchmark(study=saying(study, checkpoint_journals=several, **names), asks=True)
    for file in ("v2.jsonl", "again.jsonl"):
        run_automated_eval(ticket_v2, benchmark.path, journal=study.path(file), progress=False)
    found = benchmark.checkpoints()
    assert {name: len(results) for name, results in found.items()} == {
        "ticket_v2": 20,
        "ticket_v2 (again.jsonl)": 20,
    }
    names["base_model"] = "ticket_v2"
    taken = Benchmark(study=saying(study, checkpoint_journals="v2.jsonl", **names))
    assert list(taken.checkpoints()) == ["ticket_v2 (v2.jsonl)"]
    assert Benchmark(study=study).checkpoints() == {}


@pytest.mark.parametrize("live", [True, False])
def test_a_missing_checkpoint_is_not_asked_and_says_how_to_record_it(study, monkeypatch, live):
    monkeypatch.setenv("OPENAI_API_KEY", "local")
    record = "evalkit run small --only 01 -p live=true -p fine_tuned_model=MODEL -p fine_tuned_journal=v2.jsonl"
    with pytest.raises(DataError, match=record):
        Benchmark(study=saying(study, checkpoint_journals="v2.jsonl", live=live)).checkpoints()
    assert not study.path("v2.jsonl").exists()
