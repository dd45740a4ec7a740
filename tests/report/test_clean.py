"""What a page leaves out of a chapter, and what makes a chapter simulated."""

import pytest

from evalkit import show
from evalkit.answers.evaluation import Estimate
from evalkit.answers.runner import Tally
from evalkit.report import clean
from evalkit.report.page import Chapter


def test_our_own_progress_is_left_out_and_other_messages_stay():
    estimate = Estimate(n_calls=20, n_to_ask=20, concurrency=2)
    tally = Tally(n_calls=20)
    lines = [f"m: {estimate}", f"m: the first answer took 0.0 s; {estimate}", f"m: {tally}"]
    assert clean.printed("\n".join(lines) + "\n") == ""
    assert "3 rows left out" in clean.printed("\n".join([lines[0], "m: 3 rows left out", lines[2]]))


def simulated(body):
    """Whether a chapter of this body counts as simulated."""
    words = {"id": "05_plan", "title": "t", "first": ""}
    parts = {"answer": "", "picture": "", "limits": "", "rest": body}
    return Chapter(**words, **parts, error=None).simulated


def test_a_chapter_is_simulated_by_its_answer_not_by_one_figure():
    figure = '<span class="ek-chip-simulated">simulated</span>'
    assert not simulated(f'<p class="ek-answer">The plan needs 10 users.</p>{figure}')
    assert simulated('<p class="ek-answer ek-simulated">Better. Users are simulated.</p>')
    assert simulated(figure)


@pytest.mark.parametrize(
    "name",
    ["simulated patients", "Users are simulated.", 'class="ek-chip-simulated"', "ek-simulated"],
)
def test_a_slice_whose_name_is_a_word_of_ours_makes_no_chapter_simulated(name):
    for body in (show.answer(f"Worse on “{name}” examples.").body, show.note(name).body):
        assert not simulated(body)
    assert simulated(show.answer("Better.", simulated=True).body)
