import gc
import json
from dataclasses import replace

import pytest

import evalkit as ek
from evalkit.errors import DataError, DesignError
from evalkit.human import batch as batches
from evalkit.human import rater as raters
from evalkit.human import round as rounds
from evalkit.human.preference import read_preference
from evalkit.human.rater import PRACTICE, inline_rater
from evalkit.human.round import StudyRound, read_standing
from evalkit.show import human
from evalkit.study import Study

BOUND = {"test_set": "t", "base": "b", "fine_tuned": "f"}


@pytest.fixture
def study(tmp_path):
    (tmp_path / "data" / "s").mkdir(parents=True)
    (tmp_path / "data" / "s" / "study.yaml").write_text("study: s\n")
    said = {"rating_round": "r1", "sample_size": 10, "rating_seed": 3}
    return Study(name="s", root=tmp_path, overrides=said)


@pytest.fixture
def open_round(study, results):
    def make(bound_to=BOUND, n_unanswered=0, **said):
        home = replace(study, overrides={**study.overrides, **said})
        answers = results(), results(who="tuned")
        given = {"bound_to": bound_to, "models": {}, "n_unanswered": n_unanswered}
        return rounds.open_round(home, *answers, **given).round

    return make


def test_a_round_is_made_once_and_its_votes_are_kept(open_round, rate):
    first = open_round(raters="ann, bob")
    assert first.batch.raters == ("ann", "bob")
    rate(first, "ann", lambda _: "left")
    again = open_round(raters="someone-else", rating_seed=99)
    assert again.batch == first.batch
    assert len(read_standing(again.votes("ann").path)) == 11


def test_a_round_for_other_answers_is_not_touched_and_says_so(open_round):
    first = open_round(raters="ann")
    other = {**BOUND, "fine_tuned": "newer"}
    assert open_round(bound_to=other).batch == first.batch
    stale = StudyRound(round=first, bound_to=other)
    for said in (human.rating_round(stale).text, human.state_said(stale)):
        assert "other answers" in said
        assert "Name another rating_round" in said
    assert "hashes match" in human.rating_round(StudyRound(round=first, bound_to=BOUND)).text
    assert "No round" in human.rating_round(StudyRound(round=None, bound_to=BOUND)).text


def test_what_a_study_changed_after_the_round_was_drawn_is_said(open_round, study, results, rate):
    round_ = open_round(raters="ann, bob")

    def kept(sample_size=10, raters="bob,ann", rubric_file="", same=()):
        answers = results(same=same), results(who="tuned", same=same)
        said = {"sample_size": sample_size, "raters": raters, "rubric_file": rubric_file}
        home = replace(study, overrides={**study.overrides, **said})
        rating = rounds.open_round(home, *answers, bound_to=BOUND, models={})
        assert rating.round.batch == round_.batch
        return human.otherwise_said(rating)

    assert kept() == ""
    remedy = (
        "name another rating_round; while nobody has voted, removing data/s/ratings/r1 does it too."
    )
    for changed, name in (({"raters": "cid"}, "raters"), ({"sample_size": 20}, "sample_size")):
        assert (
            kept(**changed)
            == f"Since it was drawn the study changed {name}. To draw it anew, {remedy}"
        )
    assert kept(sample_size=20, same=range(30)) == ""  # 10 pairs are all that differ
    study.path("guide.md").write_text("# Which?\n\nLook twice.\n\n## Reasons\n\n- tone\n")
    assert "changed raters and rubric_file." in kept(raters="cid", rubric_file="guide.md")
    changed = StudyRound(round=round_, bound_to=BOUND, otherwise=("raters",))
    rate(round_, "ann", lambda _: "left")
    assert "is open. Since it was drawn the study changed raters." in human.state_said(changed)


def test_nothing_is_drawn_for_raters_nobody_named(open_round, study):
    for nobody in ("", " , "):
        assert open_round(raters=nobody) is None
        assert open_round(raters=nobody, n_unanswered=3) is None
    assert not study.path("ratings").exists()
    rating = StudyRound(round=None, bound_to=BOUND, not_drawn="nobody named")
    assert human.state_said(rating, "2 answers are missing.") == rounds.NOT_DRAWN["nobody named"]
    assert human.prospects(rating).text == "Without a round there are no pairs to speak of."
    with pytest.raises(DesignError, match="Name the raters in study"):
        rating.lock()


def test_a_simulated_round_stands_apart_and_follows_the_answers(open_round, study):
    first = open_round(simulate_raters=2)
    assert first.folder.name.startswith("r1-simulated-")
    other = {**BOUND, "fine_tuned": "newer"}
    second = open_round(simulate_raters=2, bound_to=other)
    assert second.folder != first.folder
    assert rounds.find_round(study, other).folder == second.folder
    assert rounds.find_round(study, BOUND).folder == first.folder
    assert open_round(simulate_raters=2, bound_to=other).folder == second.folder


def test_a_simulated_round_without_a_seed_is_the_same_on_every_machine(open_round):
    import shutil

    first = open_round(simulate_raters=2, rating_seed=0)
    shutil.rmtree(first.folder)
    assert open_round(simulate_raters=2, rating_seed=0).batch.items == first.batch.items
    people = open_round(raters="ann", rating_seed=0)
    shutil.rmtree(people.folder)
    assert open_round(raters="ann", rating_seed=0).batch.items != people.batch.items


def test_named_raters_are_people_whatever_the_demo_would_simulate(open_round, study):
    open_round(simulate_raters=2)
    people = open_round(raters="ann", simulate_raters=2)
    assert not people.batch.simulated
    assert rounds.find_round(study, BOUND).folder == people.folder


def test_a_run_whose_round_another_run_finishes_goes_on(open_round):
    round_ = open_round(simulate_raters=1)

    class Overtaken(dict):
        """The expected answers; while they are looked up, another run finishes the round."""

        def get(self, *_):
            raters.simulate_votes(round_, {})
            return ""

    raters.simulate_votes(round_, Overtaken())
    assert round_.locked
    assert round_.lock_record()["complete"]


def test_simulated_raters_finish_lock_and_are_labelled(open_round):
    round_ = open_round(simulate_raters=3, sample_size=30)
    expected = {str(i): f"tuned answer {i}" for i in range(40)}
    raters.simulate_votes(round_, expected, seed=1)
    assert round_.locked
    assert all(one.done == one.total == 33 for one in round_.progress())
    votes = [
        vote
        for rater in round_.batch.raters
        for vote in read_standing(round_.votes(rater).path).values()
    ]
    assert all(vote.simulated and vote.via == "simulated" for vote in votes)
    before = [round_.votes(rater).path.read_bytes() for rater in round_.batch.raters]
    raters.simulate_votes(round_, expected, seed=1)
    assert [round_.votes(rater).path.read_bytes() for rater in round_.batch.raters] == before
    assert (
        read_preference(round_).win_rate.verdict == "better"
    )  # they like what is close to the expected answer
    rating = StudyRound(round=round_, bound_to=BOUND)
    assert human.state_said(rating).startswith("Simulated raters have given 99 of 99 ratings")


def test_a_round_of_people_is_never_simulated(open_round):
    round_ = open_round(raters="ann")
    with pytest.raises(DesignError, match="for people"):
        raters.simulate_votes(round_, {})
    with pytest.raises(DesignError, match="a round of people"):
        open_round(simulate_raters=2)


def test_a_study_brings_its_question_guidance_and_reasons(tmp_path):
    path = tmp_path / "rubric.md"
    path.write_text(
        "# Which is right?\n\nLook twice.\n\n## Reasons\n\n- wrong_code: a code too many\n* tone\n\n## More\n\n- no tag\n"
    )
    said = batches.read_rubric(path)
    assert said["question"] == "Which is right?"
    assert said["rubric"].startswith("Look twice.")
    assert said["reasons"] == ["wrong code", "tone"]
    path.write_text("Just look.")
    assert batches.read_rubric(path) == {"rubric": "Just look."}
    assert batches.read_rubric(None) == {}
    with pytest.raises(DataError, match="cannot read the rubric"):
        batches.read_rubric(tmp_path / "absent.md")


def test_gold_pairs_are_read_line_by_line(tmp_path):
    path = tmp_path / "gold.jsonl"
    row = {"id": "g1", "input": "q", "better": "yes", "worse": "no"}
    path.write_text(json.dumps(row) + "\n\n")
    assert batches.read_gold(path) == [row]
    path.write_text(json.dumps(row) + '\n{"id": "g2"}\n')
    with pytest.raises(DataError, match=r"gold\.jsonl:2"):
        batches.read_gold(path)


def test_practice_leaves_no_folder_behind(open_round):
    copy = open_round(simulate_raters=1).practice_copy()
    folder = copy.folder
    assert (folder / "batch.json").exists()
    del copy
    gc.collect()
    assert not folder.exists()


def test_practice_is_a_copy_without_votes(open_round, rate):
    round_ = open_round(simulate_raters=1)
    copy = round_.practice_copy()
    rate(copy, "simulated-1", lambda _: "left")
    assert not round_.votes("simulated-1").path.exists()


def test_a_rater_is_shown_only_where_somebody_sits():
    assert raters.in_jupyter({"JPY_SESSION_NAME": "notebooks/03_rate.ipynb"})
    assert not raters.in_jupyter({"HOME": "/home"})


def test_the_description_counts_everything(open_round):
    text = human.rating_round(StudyRound(round=open_round(raters="ann"), bound_to=BOUND)).text
    assert "10 pairs for 1 rater, 1 of them shown twice, 0 with a known winner; 0 identical" in text


def test_in_a_notebook_a_simulated_round_is_practice_and_one_of_many_raters_says_who_he_is(
    open_round,
):
    shown = inline_rater(open_round(simulate_raters=2))
    assert shown.view["banner"] == PRACTICE
    people = open_round(raters="ann,bob")
    assert inline_rater(people, "bob").view["banner"] == ""
    for code in ("", "cid"):
        with pytest.raises(DesignError):
            inline_rater(people, code)


def test_all_cells_of_a_notebook_run_on_where_no_rater_of_several_has_said_who_he_is(
    open_round, study, monkeypatch
):
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/03_rate.ipynb")
    found = StudyRound(round=open_round(raters="ann,bob"), bound_to=BOUND)

    def rater(code):
        return ek.Study(name="s", root=study.root, overrides={"rater": code}).rater(found)

    assert "set the parameter rater to your code" in str(rater(""))
    assert rater("bob").view["banner"] == ""
    with pytest.raises(DesignError, match="cid"):
        rater("cid")


def test_a_rubric_that_is_named_must_be_there(open_round, study):
    with pytest.raises(DataError, match="cannot read the rubric"):
        open_round(rubric_file="guide.md", raters="ann")
    assert open_round(raters="ann").batch.question == "Which answer is better?"
