"""Notebook 04's own lines of pandas, statsmodels and seaborn hold for every state of a round, the odd ones too."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from grammar import faults
from matplotlib import pyplot

from evalkit.human.preference import read_preference
from evalkit.show import human

NOTEBOOK = Path(__file__).parents[2] / "notebooks/04_preference.ipynb"
ONE, TWO = ("rater1",), ("ann", "bob")
STATES = {
    "none": None,
    "open": (ONE, "open"),
    "one rater, all won": (ONE, "tuned"),
    "two raters, all lost": (TWO, "base"),
    "all ties": (TWO, "neither"),
    "always left": (TWO, "left"),
    "nothing to ask": (TWO, "identical"),
}


@pytest.fixture(params=STATES.values(), ids=STATES.keys())
def found(request, new_round, rate, likes):
    if request.param is None:
        return read_preference(None)
    raters, what = request.param
    round_ = new_round(raters=raters, same=range(40) if what == "identical" else ())
    if what == "open":
        return read_preference(round_, slice_fields=["kind"])
    for rater in raters:
        rate(round_, rater, (lambda _: "left") if what == "left" else likes(what))
    round_.lock()
    return read_preference(round_, slice_fields=["kind"])


def cells():
    """The code below the cell that reads the round, and the imports above it."""
    code = [
        "".join(cell["source"])
        for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    start = next(n for n, source in enumerate(code) if "here.preference()" in source)
    return [code[start - 1], *code[start + 1 :]]


def test_every_headline_is_a_sentence_in_every_state_of_a_round(found):
    titles = (
        human.headline, human.answer_said, human.reasons_title, human.raters_title,
        lambda found: human.sides.__wrapped__(found).title, lambda found: human.agreement.__wrapped__(found).title,
        lambda found: human.preference_slices.__wrapped__(found).title, lambda found: human.length(found).text,
        lambda found: human.population(found).text, lambda found: human.seal(found).text,
    )  # fmt: skip
    for title in titles:
        assert faults(title(found)) == []


def test_the_notebooks_cells_run_in_every_state_of_a_round(found):
    names = {"preference": found, "here": SimpleNamespace(write=lambda _: None)}
    for source in cells():
        exec(compile(source, NOTEBOOK.name, "exec"), names)
    pyplot.close("all")
    assert len(names["won"]) == found.win_rate.n
    if found.win_rate.estimate is not None:
        assert names["won"].mean() == pytest.approx(found.win_rate.estimate)
        by_hand = names["by_hand"].loc["by hand", ["p of t", "p of signs"]].astype(float)
        assert any(p == pytest.approx(found.win_rate.p_decides) for p in by_hand)
