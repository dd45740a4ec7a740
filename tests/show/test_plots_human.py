import pytest
from matplotlib import pyplot

from evalkit.human.batch import prepare_human_eval_batch
from evalkit.human.preference import read_preference
from evalkit.human.rater import Session
from evalkit.human.round import Round
from evalkit.records import EvalResult
from evalkit.show import human
from evalkit.show.style import style

FIGURES = {
    "win_rate": human.win_rate.__wrapped__,
    "sides": human.sides.__wrapped__,
    "agreement": human.agreement.__wrapped__,
    "slices": human.preference_slices.__wrapped__,
}


def drawn(name, found, *, narrow=False):
    return FIGURES[name](found).draw(narrow=narrow)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("round")
    slices = {"kind": "<b>$5 and $6</b>"}
    base, tuned = (
        [EvalResult(i, f"q{i}", "x", f"{who} {i}", False, True, slices=slices) for i in range(40)]
        for who in ("base", "tuned")
    )
    prepare_human_eval_batch(
        base, tuned, 30, seed=1, folder=folder, raters=("ann", "bob"), simulated=True
    )
    round_ = Round.open(folder)
    for rater, word in (("ann", "tuned"), ("bob", "1")):
        session = Session(round_, rater)
        while session.current:
            item = session.view()["item"]
            session.vote(
                item["id"], "left" if word in item["left"] else "right", seconds=5, reasons=["tone"]
            )
    round_.lock()
    return read_preference(round_, slice_fields=["kind"])


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("narrow", [False, True])
def test_a_figures_title_is_its_conclusion(found, name, narrow):
    with style():
        ax = drawn(name, found, narrow=narrow)
    assert ax.get_title(loc="left").replace("\n", " ") == FIGURES[name](found).title
    pyplot.close("all")


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_without_votes_says_so_and_does_not_fail(name):
    with style():
        ax = drawn(name, read_preference(None))
    assert ax.get_title(loc="left")
    pyplot.close("all")


def test_the_picture_says_simulated_and_names_every_number(found):
    figure = human.win_rate(found)
    html = figure._repr_html_()
    assert "simulated" in html
    assert "Simulated." in html
    assert "All pairs: " in figure.text
    assert "Only pairs shown: " in figure.text


def test_the_win_rate_stands_at_its_place_beside_an_even_split(found):
    with style():
        ax = drawn("win_rate", found)
    dots = [line.get_xdata()[0] for line in ax.lines if line.get_marker() in {"o", "D"}]
    assert found.win_rate.estimate in dots
    assert any(list(line.get_xdata()) == [0.5, 0.5] for line in ax.lines)
    pyplot.close("all")


def test_reasons_are_counted_and_speak_for_nobody(found):
    # "tone" is the reason of all 60 votes
    n = {
        model: sum(getattr(one, model) for one in found.reasons if one.reason == "tone")
        for model in ("fine_tuned", "base")
    }
    told = f'"tone" was named most: in {n["fine_tuned"]} votes for the fine-tuned answer and {n["base"]} for the base'
    assert human.reasons_title(found) == told
    assert sum(n.values()) > 1


@pytest.mark.parametrize("name", FIGURES)
def test_on_a_phone_no_line_and_no_zone_passes_through_words(found, name, words_crossed):
    with style():
        assert words_crossed(drawn(name, found, narrow=True)) == []


def test_agreement_is_drawn_with_the_number_its_title_says(found):
    with style():
        texts = [text.get_text() for text in drawn("agreement", found).texts]
    assert any(
        text.startswith(f"{found.agreement.estimate:.2f} (".replace("-", "−")) for text in texts
    )
    pyplot.close("all")


def test_the_advice_comes_from_the_sign_tests_power():
    advice = human.advice(50)
    assert "probability 24%" in advice  # 50 decisive ratings, a true win rate of 60%
    assert "199 pairs at 60%, 90 at 65%, 49 at 70%" in advice
