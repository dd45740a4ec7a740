"""The same answers are the same answers: to the article's functions, to a study, and to the people who rated them."""

import json

import pytest

from evalkit.answers.journal import answers_hash
from evalkit.answers.runner import run_automated_eval
from evalkit.benchmark.benchmark import Benchmark
from evalkit.human.batch import prepare_human_eval_batch
from evalkit.human.preference import human_evidence, read_preference
from evalkit.human.rater import Session
from evalkit.human.round import Round, find_round
from evalkit.study import Study

JOURNALS = ("base.jsonl", "tuned.jsonl")


def row(n, *, expected="yes"):
    asked = {"role": "user", "content": f"question {n}"}
    return {"messages": [asked, {"role": "assistant", "content": expected}]}


def base(messages):
    return "base: " + messages[-1]["content"]


def tuned(messages):
    return f"  tuned: {messages[-1]['content']} \n\n"  # white space at the ends is not scored


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "data/s"
    folder.mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    rows = [row(n) for n in range(40)]
    (folder / "test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (folder / "study.yaml").write_text(
        "study: s\nbase_journal: base.jsonl\nfine_tuned_journal: tuned.jsonl\n"
    )
    return Study.open("s", root=tmp_path)


def answered(study, *, n=40, more=(), **options):
    """Both models' answers, in journals of the study, by the article's function."""
    lines = (study.folder / "test.jsonl").read_text().splitlines()[:n]
    rows = [*lines, *map(json.dumps, more)]
    (study.folder / "test.jsonl").write_text("".join(f"{one}\n" for one in rows))
    test = study.folder / "test.jsonl"
    return [
        run_automated_eval(model, test, journal=study.folder / path, progress=False, **options)
        for model, path in zip((base, tuned), JOURNALS, strict=True)
    ]


def rated(study, results, **options):
    folder = study.folder / "ratings/round1"
    prepare_human_eval_batch(*results, 20, seed=1, folder=folder, **options)
    round_ = Round.open(folder)
    session = Session(round_, "rater1")
    while session.current:
        item = session.view()["item"]
        session.vote(session.current, "left" if "tuned" in item["left"] else "right", seconds=9)
    round_.lock()


def read(study, *, limit=0):
    bound_to = Benchmark(study=Study.open("s", root=study.root, limit=limit)).bound_to
    round_ = find_round(study, bound_to)
    return read_preference(round_, bound_to=bound_to), bound_to


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({}, 0),
        ({"limit": 30}, 30),
        ({"samples": 3}, 0),
        ({"more": [row(7, expected="no")]}, 0),  # a question twice is one call in the journal
    ],
)
def test_votes_through_the_articles_function_count_for_the_same_answers(study, options, limit):
    rated(study, answered(study, **options))
    found, bound_to = read(study, limit=limit)
    assert (found.stale, found.win_rate.estimate) == (False, 1.0)
    record = human_evidence(found, study="s", models={}, bound_to={})
    assert record.bound_to == bound_to  # so the decision sees one set of answers too


def test_what_else_a_journal_holds_changes_no_hash(study):
    results = answered(study, limit=30)
    rated(study, results)
    answered(study)  # ten more rows
    assert read(study, limit=30)[0].stale is False
    assert read(study)[0].stale is True


def test_one_other_answer_makes_votes_stale(study):
    rated(study, answered(study))
    path = study.folder / "tuned.jsonl"
    path.write_text(path.read_text().replace("tuned: question 5 ", "tuned: question five "))
    assert read(study)[0].stale is True


def test_results_and_study_agree_on_the_hash(study):
    found = prepare_human_eval_batch(*answered(study), 1).key.bound_to
    assert found.items() <= Benchmark(study=study).bound_to.items()


def test_one_reading_of_the_test_file_serves_both_models_and_the_hashes(study):
    answered(study)
    benchmark = Benchmark(study=study)
    rows = {one.example_id: one.messages for one in benchmark.test_set.examples}
    for result in (*benchmark.base, *benchmark.fine_tuned):
        assert result.messages is rows[result.example_id]


def test_a_round_bound_to_whole_journals_as_earlier_versions_did_still_counts(study):
    results = answered(study)
    paths = (study.folder / path for path in JOURNALS)
    earlier = dict(zip(("base", "fine_tuned"), map(answers_hash, paths), strict=True))
    fingerprint = Benchmark(study=study).test_set.fingerprint
    rated(study, results, bound_to={"test_set": fingerprint, **earlier})
    assert read(study)[0].stale is False


def test_another_test_set_is_told_where_a_round_names_one(study):
    results = answered(study)
    rated(study, results, bound_to=Benchmark(study=study).bound_to | {"test_set": "another"})
    assert read(study)[0].stale is True
