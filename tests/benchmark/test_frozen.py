"""A model's answers, archived while it still answers, are a study's base when it is gone."""

import json
import shutil
from datetime import UTC, datetime

import pytest
from faulty_server import FaultyServer

from evalkit import ledger
from evalkit.__main__ import main
from evalkit.benchmark.archive import freeze
from evalkit.benchmark.benchmark import Benchmark
from evalkit.errors import DataError, ModelError
from evalkit.records import answers_hash
from evalkit.study import Study

NOW = datetime(2026, 11, 28, 23, tzinfo=UTC)


def rows(*names):
    return "".join(
        json.dumps(
            {
                "id": name,
                "messages": [
                    {"role": "user", "content": f"question {name}"},
                    {"role": "assistant", "content": "R07.0: Pain in throat"},
                ],
            }
        )
        + "\n"
        for name in names
    )


@pytest.fixture
def root(tmp_path, monkeypatch):
    (folder := tmp_path / "data/mine").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (folder / "study.yaml").write_text(
        "base_model: ft:acme/m::1\nfine_tuned_model: new\nlive: true\nattempts: 1\n"
    )
    (folder / "test.jsonl").write_text(rows("a", "b", "c"))
    (tmp_path / "prod.jsonl").write_text(rows("p", "q"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return tmp_path


@pytest.fixture
def server(monkeypatch):
    said = {"question c": "length", "question q": "refusal"}
    with FaultyServer(lambda hit: said.get(hit.asked, "ok")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


def benchmark(root, **settings):
    return Benchmark(study=Study.open("mine", root=root, **settings), asks=True)


def test_what_lacks_is_asked_and_everything_needed_later_is_kept(root, server):
    made = freeze(benchmark(root), "base", prompts=root / "prod.jsonl", samples=2, now=NOW)
    assert made.folder == root / "data/mine/frozen/ft-acme-m-1-2026-11-28"
    assert len(server.hits) == 2 * (3 + 2)
    record = json.loads((made.folder / "frozen.json").read_text())
    test, prompts = record["sets"]["test"], record["sets"]["prompts"]
    assert (record["model"], record["endpoint"], record["role"]) == ("ft:acme/m::1", "openai", "base")  # fmt: skip
    assert record["parameters"] == {"temperature": 0.0, "max_tokens": 1024}
    assert test["outcomes"] == {"ok": 4, "truncated": 2}
    assert test["served_models"] == {"m": 6}
    assert (prompts["outcomes"], prompts["n_examples"]) == ({"ok": 2, "refused": 2}, 2)
    assert test["fingerprint"] == benchmark(root).test_set.fingerprint
    assert test["answers_hash"] == answers_hash(benchmark(root, samples=2).base)
    names = {"base.jsonl", "base_prompts.jsonl", "prompts.jsonl", "test.jsonl"}
    assert record["files"] == {name: ledger.sha256_of(made.folder / name) for name in names}
    assert {one.name for one in made.folder.iterdir()} == {*names, "frozen.json"}
    line = ledger.read(root / "data/mine/ledger.jsonl").lines[-1]
    assert (line.kind, len(line.facts["files"])) == ("frozen", 5)
    assert not ledger.mismatches(root / "data/mine")
    (made.folder / "base.jsonl").write_text("")
    (changed,) = ledger.mismatches(root / "data/mine")
    assert changed.file == "frozen/ft-acme-m-1-2026-11-28/base.jsonl"


def test_nothing_is_overwritten_and_the_same_is_not_kept_twice(root, server):
    first = freeze(benchmark(root), "base", now=NOW)
    again = freeze(benchmark(root), "base", now=NOW)
    assert (first.is_new, again.is_new, again.folder) == (True, False, first.folder)
    more = freeze(benchmark(root), "base", samples=2, now=NOW)
    assert more.folder.name == f"{first.folder.name}-2"
    assert len(server.hits) == 2 * 3
    assert [one.name for one in (root / "data/mine/frozen").iterdir() if one.name[0] == "."] == []


def test_the_archive_is_the_base_when_the_model_is_gone(root, server):
    made = freeze(benchmark(root), "base", now=NOW)
    place = f"frozen/{made.folder.name}/base.jsonl"
    assert f"base_journal: {place}" in str(made)
    shutil.rmtree(root / "data/mine/journals")
    server.behave = lambda hit: "404" if "acme" in hit.body["model"] else "ok"
    before = (made.folder / "base.jsonl").read_bytes()
    later = benchmark(root, base_journal=place, fine_tuned_journal=place)
    assert [one.outcome for one in later.base] == ["ok", "ok", "truncated"]
    assert later.bound_to["base"] == made.record["sets"]["test"]["answers_hash"]
    (root / "data/mine/test.jsonl").write_text(rows("a", "b", "c", "d"))
    with pytest.warns(UserWarning, match="no answer to 1 row of 4.*it is a frozen archive"):
        assert len(benchmark(root, base_journal=place).base) == 3
    with pytest.raises(DataError, match="belongs to a frozen archive, which stays as it is"):
        freeze(benchmark(root, base_journal=place), "base")
    with pytest.raises(DataError, match="belongs to a frozen archive"):
        list(benchmark(root, base_journal=place).submission("base").write(root / "in.jsonl"))
    assert (made.folder / "base.jsonl").read_bytes() == before


def test_a_journal_that_is_whole_is_frozen_without_the_model_and_one_that_is_not_says_so(
    root, server, monkeypatch, capsys
):
    assert main(["freeze", "mine", "--as", "base"]) == 0
    told = capsys.readouterr().out
    assert "test: 3 answers to 3 examples (2 ok and 1 truncated), served by 'm'" in told
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert main(["freeze", "mine", "--as", "base"]) == 0
    assert "holds the same answers already" in capsys.readouterr().out
    assert main(["freeze", "mine", "--as", "base", "--samples", "-1"]) == 1
    assert "--samples -1: need at least 1" in capsys.readouterr().err
    with pytest.raises(ModelError, match="no endpoint"):
        freeze(benchmark(root), "fine_tuned")
    assert len(list((root / "data/mine/frozen").iterdir())) == 1
