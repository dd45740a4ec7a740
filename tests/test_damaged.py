"""Whatever a disk, an editor or a merge has done to a file: one line that names it and says what to do."""

import json
from contextlib import suppress
from pathlib import Path

import pytest

from evalkit import ledger
from evalkit.abtest.lock import lock, read_lock
from evalkit.abtest.log import EventLog
from evalkit.abtest.plan import ABPlan, Metric, read_guardrails
from evalkit.abtest.source import open_log
from evalkit.answers.dataset import read_examples
from evalkit.answers.evaluation import prices_of
from evalkit.answers.journal import read_journal
from evalkit.answers.scoring import checker
from evalkit.decision import Rules, decide, history, read_decision, read_evidence
from evalkit.errors import EvalkitError
from evalkit.evidence import Evidence
from evalkit.human import rater
from evalkit.human.batch import prepare_human_eval_batch, read_gold, read_rubric
from evalkit.human.rater import Session
from evalkit.human.round import Round
from evalkit.records import EvalResult
from evalkit.report import manifest
from evalkit.show import verdict as spoken
from evalkit.study import Study, declared_parameters

RUN = "20261124T120000Z-1a2b3c4d"
ROUND = "data/s/ratings/r1"
REPORT = f"reports/s/{RUN}"
PLAN = ABPlan(
    experiment_name="exp",
    control_model="base",
    treatment_model="tuned",
    primary=Metric(name="accepted", expected=0.30, detectable_difference=0.05),
    users_per_day=300,
)
READERS = {  # file -> who reads it first
    "data/s/study.yaml": lambda root, path: Study.open("s", root=root).settings,
    "data/s/rules.yaml": lambda root, path: Rules.read(path),
    "data/s/prices.yaml": lambda root, path: prices_of(path, "m"),
    "data/s/guardrails.yaml": lambda root, path: read_guardrails(path),
    "data/s/rubric.md": lambda root, path: read_rubric(path),
    "data/s/gold.jsonl": lambda root, path: read_gold(path),
    "data/s/schema.json": lambda root, path: checker("schema:schema.json", folder=root / "data/s"),
    "data/s/test.jsonl": lambda root, path: read_examples(path),
    "data/s/journals/base.jsonl": lambda root, path: read_journal(path),
    "data/s/plan.lock.json": lambda root, path: read_lock(path),
    "data/old/looks.jsonl": lambda root, path: ledger.read(path.with_name("ledger.jsonl")),
    "data/old/history.jsonl": lambda root, path: ledger.read(path.with_name("ledger.jsonl")),
    "data/s/ledger.jsonl": lambda root, path: history.read(Study.open("s", root=root)),
    "data/s/events.sqlite": lambda root, path: open_log(path),
    "data/s/log/exposures.parquet": lambda root, path: open_log(path.parent),
    f"{ROUND}/batch.json": lambda root, path: Round.open(path.parent),
    f"{ROUND}/key.json": lambda root, path: Round.open(path.parent).key(),
    f"{ROUND}/lock.json": lambda root, path: Round.open(path.parent).key(),
    f"{ROUND}/locks.jsonl": lambda root, path: Round.open(path.parent).key(),
    f"{ROUND}/links.json": lambda root, path: rater.links(Round.open(path.parent)),
    f"{ROUND}/votes/ann.jsonl": lambda root, path: Round.open(root / ROUND).standing("ann"),
    f"{REPORT}/settings.json": lambda root, path: Study.open("s", root=root, run=RUN).settings,
    f"{REPORT}/manifest.json": lambda root, path: manifest.read(path.parent),
    f"{REPORT}/comparison.json": lambda root, path: read_evidence(path.parent),
    f"{REPORT}/decision.json": lambda root, path: read_decision(path.parent),
    f"{REPORT}/01_x.ipynb": lambda root, path: history.row_now(path.parent),
    "notebooks/01_x.ipynb": lambda root, path: declared_parameters(path),
}
DAMAGE = {
    "binary": b"\xff\xfe\x00\x81 no text\n",
    "empty": b"",
    "list": b'["a", 5]\n',
    "number": b"5\n",
    "null": b"null\n",
    "half": None,
    "deep": b"[" * 100_000 + b"\n",
}
ALL_RIGHT = {  # lines that nobody has written yet; text that is text; comments alone
    *((f"data/s/{name}.jsonl", "empty") for name in ("gold", "ledger")),
    *((f"{ROUND}/{name}", "empty") for name in ("locks.jsonl", "votes/ann.jsonl")),
    *(("data/s/rubric.md", damage) for damage in ("list", "number", "null", "half", "deep")),
    *((f"data/s/{name}.yaml", "half") for name in ("study", "rules", "prices", "guardrails")),
    *((f"data/s/{name}.yaml", "null") for name in ("rules", "guardrails")),
    *((f"data/s/{name}", "half") for name in ("test.jsonl", "journals/base.jsonl")),  # a torn tail
    ("data/s/ledger.jsonl", "half"),
    *(
        (f"data/old/{name}.jsonl", damage)
        for name in ("looks", "history")
        for damage in ("empty", "half")
    ),
    *((f"{ROUND}/{name}", "half") for name in ("locks.jsonl", "votes/ann.jsonl")),
}


@pytest.fixture
def project(tmp_path):
    """One of each file that evalkit reads, all of them sound."""
    root = tmp_path
    for path in READERS:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    texts = {
        "study.yaml": "study: s\nalpha: 0.05\n",
        "rules.yaml": "few_raters: holds\n",
        "prices.yaml": "m: {prompt_per_million: 1, completion_per_million: 2}\n",
        "guardrails.yaml": "- {name: error, margin: 0.01}\n",
        "rubric.md": "# Which?\n\nLook.\n",
        "gold.jsonl": '{"id": "g", "input": "i", "better": "b", "worse": "w"}\n',
        "schema.json": '{"type": "object"}\n',
        "test.jsonl": json.dumps({"messages": chat}) + "\n",
        "journals/base.jsonl": '{"kind": "evalkit-journal", "version": 1, "model": "m", "parameters": {}}\n',
    }
    for name, text in texts.items():
        (root / "data/s" / name).write_text(text)
    for name in ("looks", "history"):  # as a study of an earlier version has them
        (root / f"data/old/{name}.jsonl").write_text('{"run": "r"}\n')
    lock(PLAN, root / "data/s/plan.lock.json")
    _fill_log(root / "data/s")
    _rate(root / ROUND)
    _report(root / REPORT)
    book = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    for path in (root / "notebooks/01_x.ipynb", root / REPORT / "01_x.ipynb"):
        path.write_text(json.dumps(book))
    return root


def _fill_log(folder: Path) -> None:
    log = EventLog(folder / "events.sqlite")
    log.export(folder / "log")
    log.close()


def _rate(folder: Path) -> None:
    base, tuned = (
        [EvalResult(n, f"i{n}", "e", f"{who} {n}", False, None) for n in range(2)]
        for who in ("base", "tuned")
    )
    prepare_human_eval_batch(base, tuned, 2, raters=("ann",), repeat_share=0, folder=folder)
    round_ = Round.open(folder)
    session = Session(round_, "ann")
    while session.current:
        session.vote(session.current, "left", seconds=1.0)
    round_.lock()
    rater.links(round_)


def _report(folder: Path) -> None:
    evidence = Evidence.of(
        {
            "layer": "benchmark",
            "study": "s",
            "made_at": "2026-11-24T12:00:00+00:00",
            "models": {"base": "b", "fine_tuned": "f"},
            "bound_to": {},
            "simulated": False,
            "metric": "exact match",
            "unit": "examples",
            "primary": None,
        }
    )
    evidence.write(folder / "comparison.json")
    spoken.write(decide({"benchmark": evidence}, study="s"), folder)
    (folder / "settings.json").write_text('{"study": "s", "alpha": 0.05}')
    (folder / "manifest.json").write_text('{"failed": {}}')


def test_all_these_files_can_be_read_when_they_are_sound(project):
    for path, read in READERS.items():
        read(project, project / path)


@pytest.mark.parametrize("path", READERS)
def test_a_damaged_file_is_named_in_one_line_with_a_remedy(project, path):
    sound = (project / path).read_bytes()
    for damage, content in DAMAGE.items():
        if (path, damage) in ALL_RIGHT:
            continue
        (project / path).write_bytes(sound[: len(sound) // 2] if content is None else content)
        with pytest.raises(EvalkitError) as caught:
            READERS[path](project, project / path)
        told = str(caught.value)
        assert Path(path).name in told, (damage, told)
        assert "\n" not in told or "test.jsonl" in path, (damage, told)  # it lists all its rows
        assert len(told) < 700, (damage, told)
        assert ";" in told or ". Restore" in told, (damage, told)


@pytest.mark.parametrize("path", [one for one in READERS if one.endswith("n.json")])
def test_a_field_of_another_type_is_damage_too(project, path):
    sound = json.loads((project / path).read_text())
    for field in sound:
        for wrong in ([5], {"a": [5]}, 5.5, None):
            if type(wrong) is type(sound[field]) or (field, wrong) in (("primary", {"a": [5]}),):
                continue
            (project / path).write_text(json.dumps(sound | {field: wrong}))
            with suppress(EvalkitError):  # or it does not matter; nothing else may come
                READERS[path](project, project / path)


@pytest.mark.parametrize("at", ["yesterday", "", 5, None, "2026-11-24"])
def test_a_lock_without_a_time_is_no_lock(project, at):
    for path in ("data/s/plan.lock.json", f"{ROUND}/lock.json"):
        record = json.loads((project / path).read_text())
        (project / path).write_text(json.dumps(record | {"locked_at": at}))
        if (path, at) == (f"{ROUND}/lock.json", "2026-11-24"):
            continue
        with pytest.raises(EvalkitError, match=r"lock\.json: .*[Rr]estore"):
            READERS[path](project, project / path)


def test_a_plan_that_lacks_what_follows_from_it_is_named_though_its_hash_is_right(project):
    import hashlib

    from evalkit.files import canonical

    path = project / "data/s/plan.lock.json"
    record = json.loads(path.read_text())
    for name in ("needs", "primary", "alpha"):
        plan = {key: value for key, value in record["plan"].items() if key != name}
        sha256 = hashlib.sha256(canonical(plan)).hexdigest()
        path.write_text(json.dumps(record | {"plan": plan, "sha256": sha256}))
        with pytest.raises(EvalkitError, match=rf"plan\.lock\.json: .*{name}.*Restore"):
            read_lock(path)
