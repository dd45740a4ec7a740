"""What locked rounds of people say against a model is found again, whatever has become of the answers."""

import shutil

import pytest

from evalkit.human.batch import read_batch, read_key
from evalkit.human.preference import results_against
from evalkit.show.findings import against_said
from evalkit.study import Study

MODELS = {"base": "old", "fine_tuned": "new"}


@pytest.fixture
def home(tmp_path):
    (tmp_path / "data" / "toy" / "ratings").mkdir(parents=True)
    return Study.open("toy", root=tmp_path)


@pytest.fixture
def locked(home, new_round, rate, likes):
    """Has a round rated by somebody who likes a word, locks it and puts it into the study."""

    def make(name, word, **options):
        round_ = new_round(models=MODELS, **options)
        rate(round_, "rater1", likes(word))
        round_.lock()
        return shutil.copytree(round_.folder, home.folder / "ratings" / name)

    return make


def test_a_locked_round_that_prefers_the_base_speaks_against_the_fine_tuned_model(home, locked):
    assert results_against(home) == ()
    locked("liked", "tuned")
    assert results_against(home) == ()
    folder = locked("round1", "base")
    (found,) = results_against(home)
    assert (found.layer, found.source, found.models) == ("human", "round1", MODELS)
    assert found.bound_to == read_key(folder, read_batch(folder)).bound_to
    assert (found.win_rate, found.n) == (0.0, 20)  # 20 losses of 20
    assert against_said(found).endswith(": the fine-tuned answers win 0.0%, over 20 items")


def test_simulated_raters_and_an_open_round_say_nothing(home, locked, new_round, rate, likes):
    locked("round1-simulated-1a2b3c4d", "base", simulated=True)
    open_round = new_round(models=MODELS)
    rate(open_round, "rater1", likes("base"))
    shutil.copytree(open_round.folder, home.folder / "ratings" / "open")
    assert results_against(home) == ()


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        *[(file, "gone") for file in ("key.json", "batch.json", "votes/rater1.jsonl")],
        *[
            (file, "changed")
            for file in ("key.json", "batch.json", "votes/rater1.jsonl", "lock.json")
        ],
    ],
)
def test_a_locked_round_that_cannot_be_read_stands_against_whatever_model(home, locked, file, harm):
    path = locked("round1", "base") / file
    path.unlink() if harm == "gone" else path.write_bytes(path.read_bytes()[:-9] + b"\n")
    (found,) = results_against(home)
    assert (found.source, found.models) == ("round1", {})
    assert found.fault
    assert "cannot be read any more" in against_said(found)


def test_a_round_opened_again_by_removing_its_lock_does_not_fall_silent(home, locked):
    (locked("round1", "base") / "lock.json").unlink()
    (found,) = results_against(home)
    assert found.source == "round1"
    assert "still open" in against_said(found)
