import re
from itertools import product

import pytest
from matplotlib import pyplot

from evalkit import show
from evalkit.decision import Rules, decide
from evalkit.decision.standing import Concern
from evalkit.evidence import Evidence
from evalkit.records import OPEN_WINDOWS, Change, Missing
from evalkit.show import decision as plots
from evalkit.show import picture, style
from evalkit.show.verdict import reason

LAYERS = ("benchmark", "human", "ab_test")
SLICE = {
    "slice": "kind = multi",
    "n": 96,
    "estimate": -0.0625,
    "ci_low": -0.13,
    "ci_high": -0.02,
    "verdict": "worse",
}


def evidence(layer, verdict, **changes):
    effect = {
        "better": (0.19, 0.14, 0.25),
        "worse": (-0.4, -0.6, -0.2),
        "no difference shown": (0.01, -0.02, 0.04),
    }.get(verdict)
    shift = 0.5 if layer == "human" else 0
    numbers = (
        {
            name: value + shift
            for name, value in zip(("estimate", "ci_low", "ci_high"), effect, strict=True)
        }
        if effect
        else {}
    )
    fields = {
        "layer": layer,
        "study": "x",
        "made_at": "",
        "models": {},
        "bound_to": {"fine_tuned": "1"},
        "simulated": False,
        "metric": "a metric with a rather long name indeed",
        "unit": "examples",
        "primary": {"verdict": verdict, "n": 300} | numbers,
    }
    return Evidence.of(fields | changes)


@pytest.mark.parametrize("narrow", [False, True])
def test_every_combination_can_be_drawn_and_said(narrow):
    verdicts = ("better", "worse", "no difference shown", "too early", None)
    for states in list(product(verdicts, repeat=3))[:: 5 if narrow else 7]:
        found = {
            layer: evidence(layer, state)
            for layer, state in zip(LAYERS, states, strict=True)
            if state
        }
        decision = decide(found, study="x", stage="rollout")
        with style.style():
            plots.tracks(decision, narrow=narrow)
        assert plots.described(decision).count(".") >= 4
        assert len(plots.number_rows(decision)) == 3
        pyplot.close("all")


@pytest.mark.parametrize(
    ("verdict", "word"),
    [("better", "passes"), ("no difference shown", "not yet"), ("worse", "don't ship")],
)
def test_the_slice_that_blocks_has_its_own_track_and_the_layer_keeps_its_own_effect(verdict, word):
    benchmark = evidence("benchmark", verdict, details={"slices": [SLICE]})
    rows = plots.rows_of(
        decide({"benchmark": benchmark, "human": evidence("human", "better")}, study="x")
    )
    assert [(row.name, row.word) for row in rows] == [
        ("1 Benchmark", word),
        ("Its worst slice", "don't ship"),
        ("2 Human rating", "passes"),
        ("3 A/B test", "comes later"),
    ]


def test_what_holds_a_layer_beside_its_slice_stands_on_the_layers_own_track():
    benchmark = evidence("benchmark", "better", details={"slices": [SLICE]})
    changed = Concern(
        "benchmark", Change(kind="rules", turned=(("alpha", 0.01, 0.05),)), ("alpha",)
    )
    rows = plots.rows_of(decide({"benchmark": benchmark}, study="x", concerns=(changed,)))
    assert [row.word for row in rows[:2]] == ["not yet", "don't ship"]


def test_the_slice_that_blocks_is_shown_before_a_greater_loss_that_only_warns():
    unsure = SLICE | {
        "slice": "kind = rare",
        "n": 2,
        "estimate": -0.5,
        "verdict": "no difference shown",
        "standing": "looks bad",
    }
    small = SLICE | {"slice": "kind = small", "estimate": -0.03}
    benchmark = evidence("benchmark", "better", details={"slices": [unsure, small, SLICE]})
    row = plots.rows_of(decide({"benchmark": benchmark}, study="x"))[1]
    assert (row.name, row.under, row.word) == (
        "Its slice that decides",
        "kind = multi",
        "don't ship",
    )


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("effect", ["blocks", "holds", "warns"])
def test_the_limit_of_the_worst_slice_says_what_it_does(effect, narrow):
    found = {"benchmark": evidence("benchmark", "better", details={"slices": [SLICE]})}
    decision = decide(found, study="x", rules=Rules(slice_worse=effect))
    with style.style():
        ax = plots.tracks(decision, narrow=narrow)
    assert [one.get_text() for one in ax.texts].count(f"limit 0, {effect} if shown worse") == 1
    assert [row["Limit"] for row in plots.number_rows(decision)] == [
        "0.0",
        f"0, {effect} if shown worse",
        "50%",
        "0.0",
    ]
    pyplot.close("all")


def test_the_picture_knows_no_old_and_new():
    found = {layer: evidence(layer, "better") for layer in LAYERS}
    told = (
        plots.SUBLINE
        + plots.described(decide(found, study="x"))
        + str(decide(found, study="x").to_dict())
    )
    assert "Fine-tuned minus base" in told
    assert not re.search(r"[Nn]ew version|\bold\b", told)


def test_too_early_shows_no_number_anywhere():
    found = {layer: evidence(layer, "better") for layer in ("benchmark", "human")} | {
        "ab_test": evidence("ab_test", "too early")
    }
    decision = decide(found, study="x", stage="rollout")
    assert plots.number_rows(decision)[2]["Difference (95% interval)"] == "–"
    assert (
        "3 A/B test, a metric with a rather long name indeed: not yet, too early, –."
        in plots.described(decision)
    )
    assert "no effect is shown yet" in _svg_texts(decision)


def test_a_layer_without_data_withholds_nothing():
    found = {
        "human": evidence("human", "too early", primary={"verdict": "too early", "n": 0}),
        "ab_test": evidence("ab_test", "too early", primary=None),
    }
    told = _svg_texts(decide(found, study="x", stage="rollout"))
    assert told.count("nothing recorded yet") == 3  # the benchmark is missing altogether
    assert "withheld" not in told


def test_users_whose_outcomes_are_awaited_are_not_called_nothing():
    waits = Missing(kind=OPEN_WINDOWS, n=0, more=0, needed=9, days=1, look=1, looks=1)
    early = {"verdict": "too early", "n": 0}
    found = {"ab_test": evidence("ab_test", "too early", primary=early, missing=(waits,))}
    assert "users came, none counts yet" in _svg_texts(decide(found, study="x", stage="rollout"))


@pytest.mark.parametrize("high", [-0.02, 0.02])
def test_a_slice_that_warns_though_its_whole_interval_is_a_loss_is_explained(high):
    looks = {"verdict": "no difference shown", "standing": "looks bad", "ci_high": high}
    found = {"benchmark": evidence("benchmark", "better", details={"slices": [SLICE | looks]})}
    shown = show.layers(decide(found, study="x"))._repr_html_()
    assert (plots.ONE_OF_MANY in shown) is (high < 0)


def test_users_of_another_model_are_not_called_nothing():
    found = {
        layer: evidence(layer, "better", models={"fine_tuned": layer})
        for layer in ("benchmark", "ab_test")
    }
    assert "made for other models" in _svg_texts(decide(found, study="x"))


def test_evidence_for_other_answers_is_not_called_nothing():
    found = {
        "benchmark": evidence("benchmark", "better"),
        "human": evidence("human", "better", bound_to={"fine_tuned": "2"}),
    }
    assert "made for other answers" in _svg_texts(decide(found, study="x"))


@pytest.mark.parametrize("narrow", [False, True])
def test_human_rating_has_a_tick_at_half_and_what_is_simulated_is_hatched(narrow):
    decision = decide({"human": evidence("human", "better", simulated=True)}, study="x")
    plain = decide({"human": evidence("human", "better")}, study="x")
    with style.style():
        hatched, bare = (plots.tracks(one, narrow=narrow) for one in (decision, plain))
    assert [one.get_text() for one in hatched.texts].count("50%") == 1
    strokes = [
        line
        for line in hatched.lines
        if len(set(line.get_xdata())) == 2 and len(set(line.get_ydata())) == 2
    ]
    assert len(strokes) == 5  # the hatched strip, inside the picture
    assert all(0 <= x <= hatched.get_xlim()[1] for line in strokes for x in line.get_xdata())
    assert not [
        line
        for line in bare.lines
        if len(set(line.get_xdata())) == 2 and len(set(line.get_ydata())) == 2
    ]
    pyplot.close("all")


def test_simulated_stands_on_its_track():
    decision = decide({"human": evidence("human", "better", simulated=True)}, study="x")
    assert "300 examples, simulated" in _svg_texts(decision)


def test_the_summary_is_one_small_picture(tmp_path):
    path = plots.summary(
        decide({"benchmark": evidence("benchmark", "better")}, study="x"),
        tmp_path / "s.png",
        title="$5 <b>",
    )
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 300_000


def test_history_shows_each_set_of_answers_once():
    metrics = {
        "exact_match": {"estimate": 0.1, "ci_low": 0.05, "ci_high": 0.15, "verdict": "better"}
    }
    night = {
        "made_at": "2026-11-23T00:00",
        "models": {"fine_tuned": "v1"},
        "bound_to": {"fine_tuned": "1"},
        "metrics": metrics,
        "primary": "exact_match",
    }
    other = night | {
        "made_at": "2026-11-24T00:00",
        "bound_to": {"fine_tuned": "2"},
        "metrics": {"exact_match": metrics["exact_match"] | {"estimate": 0.12}},
    }
    assert len(plots.distinct([night, night | {"made_at": "2026-11-23T12:00"}, other])) == 2
    made = picture(plots.differences, [night, other], alt=plots.described_runs([night, other]))
    told = "Exact match is +12.0 (+5.0 to +15.0) points over base, the answers before +10.0 (+5.0"
    assert str(made).startswith(told)  # two runs are not tested against each other
    assert "No run has a primary effect yet" in str(
        picture(plots.differences, [], alt=plots.described_runs([]))
    )


def _svg_texts(decision):
    from evalkit.show.figure import svg

    with style.style():
        ax = plots.tracks(decision)
        text = svg(ax.figure)
        pyplot.close(ax.figure)
    return text


def test_pairs_that_nobody_rated_are_told_apart():
    human = evidence("human", "better", unit="items", details={"identical": 66})
    decision = decide({"human": human}, study="x")
    assert "234 rated, 66 identical" in _svg_texts(decision)
    assert "over 234 items rated and 66 identical" in reason(decision.layers[1])
