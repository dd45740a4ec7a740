import dataclasses

import pytest
from matplotlib import pyplot

from evalkit import show
from evalkit.benchmark.comparison import compare_models
from evalkit.benchmark.noise import NoiseFloor, noise_floor
from evalkit.benchmark.slices import slice_table
from evalkit.records import EvalResult
from evalkit.show import plots, style

OF_A_COMPARISON = ("rates", "differences", "cells", "similarity", "spread", "scatter", "detectable")


def drawn(plot, *args, **options):
    with style.style():
        ax = plot(*args, **options)
        ax.figure.canvas.draw()
        found = (
            " ".join(ax.get_title("left").split()),
            [text.get_text() for text in ax.texts],
            ax.figure.get_size_inches()[0],
        )
    pyplot.close("all")
    return found


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("name", OF_A_COMPARISON)
def test_every_figure_says_something_in_every_state(state, name, narrow):
    title, _, width = drawn(getattr(plots, name), state[1], narrow=narrow)
    assert title
    assert "None" not in title
    assert "nan" not in title
    assert width <= (style.NARROW if narrow else style.WIDE)


@pytest.mark.parametrize(
    ("state", "title"),
    [
        ("better", "Exact match rises from 25.0% to 60.0%"),
        ("worse", "Exact match falls from 60.0% to 25.0%"),
        ("no difference shown", "Exact match goes from 30.0% to 32.0%, no difference shown"),
        ("no examples", "No examples were answered by both models"),
        ("fragile", "Exact match rises from 50.0% to 70.0%, but fragile"),
    ],
)
def test_the_title_is_the_conclusion(comparison_in, state, title):
    assert drawn(plots.rates, comparison_in(state))[0] == title


def test_the_numbers_stand_beside_the_marks(comparison_in):
    found = comparison_in("better")
    texts = drawn(plots.differences, found)[1]
    # 60% - 25% = 35 points; Tango's limits come from the same result
    test = found.primary
    assert any(text.startswith("+35.0 (") for text in texts)
    assert f"+35.0 ({test.ci_low * 100:+.1f} to {test.ci_high * 100:+.1f})" in texts


def test_one_square_is_one_example_and_many_become_bars(comparison_in):
    with style.style():
        few, many = plots.cells(comparison_in("better")), plots.cells(comparison_in("large"))
        assert sum(len(dots.get_offsets()) for dots in few.collections) == 100
        assert [bar.get_width() for bar in many.patches] == [1500, 500, 2000, 1000]
    pyplot.close("all")


def test_worse_is_a_diamond_and_not_shown_is_hollow(comparison_in):
    with style.style():
        worse, unsure = (
            plots.differences(comparison_in("worse")),
            plots.differences(comparison_in("no difference shown")),
        )
        assert any(line.get_marker() == "D" for line in worse.lines)
        hollow = [line for line in unsure.lines if line.get_marker() == "o"]
        assert hollow
        assert all(line.get_markerfacecolor() == style.COLOURS["paper"] for line in hollow)
    pyplot.close("all")


@pytest.mark.parametrize("narrow", [False, True])
def test_a_slice_table_is_drawn_with_its_worst_slice_in_the_title(comparison_in, narrow):
    worse = drawn(plots.forest, slice_table(comparison_in("worse"), margin=0.05), narrow=narrow)
    assert worse[0] == "Exact match falls on “big” examples"
    assert (
        drawn(plots.forest, slice_table(comparison_in("no examples")), narrow=narrow)[0]
        == "No slices were declared"
    )
    texts = drawn(plots.forest, slice_table(comparison_in("better")))[1]
    assert "10 examples, adjusted p = 0.38" in texts


@pytest.mark.parametrize("narrow", [False, True])
def test_the_flip_picture_counts_both_models(comparison_in, narrow):
    found = comparison_in("better")
    base, tuned = [one.base for one in found.pairs], [one.fine_tuned for one in found.pairs]
    floor = noise_floor(
        found,
        {"base": (base, tuned), "fine-tuned": (tuned, tuned)},
        [one.example_id for one in found.pairs],
    )
    # base answers once as itself, once as the other: 40 fixed + 5 regressed of 100 change
    title = drawn(plots.flips, floor, narrow=narrow)[0]
    assert "base: 45.0% (45 of 100)" in title
    assert "fine-tuned: 0.0% (0 of 100)" in title
    assert drawn(plots.flips, NoiseFloor(), narrow=narrow)[0] == "The noise floor was not measured"


def test_what_this_run_could_find_is_marked(comparison_in):
    # psi = 22/100 at n = 100: Connor's detectable difference is 13.0 points; 2 were seen
    title, texts, _ = drawn(plots.detectable, comparison_in("no difference shown"))
    assert (
        title
        == "100 examples find a difference of 13.0 points or more in exact match 4 times in 5; 2.0 were seen"
    )
    assert any("this run: 13.0 points" in text for text in texts)


def test_a_chance_level_is_drawn_and_named(comparison_in):
    assert "at random 23%" in drawn(plots.rates, comparison_in("better"), chance=0.227)[1]


@pytest.mark.parametrize("name", OF_A_COMPARISON)
def test_hostile_text_reaches_no_figure(hostile, name):
    html = show.picture(getattr(plots, name), hostile[0], alt="Levels.")._repr_html_()
    assert "onerror" not in html
    assert "<script" not in html


def test_hostile_slice_names_are_drawn_as_text(hostile):
    html = show.picture(plots.forest, hostile[1], alt="Slices.")._repr_html_()
    assert "<img src=x" not in html
    assert "<script" not in html


@pytest.mark.parametrize("plot", [plots.rates, plots.differences])
def test_on_a_phone_no_line_passes_through_words(comparison_in, plot, words_crossed):
    options = {"chance": 0.227} if plot is plots.rates else {}
    with style.style():
        assert words_crossed(plot(comparison_in("worse"), narrow=True, **options)) == []


def test_a_long_slice_name_and_its_numbers_do_not_overlap_on_a_phone(comparison_in, words_crossed):
    table = slice_table(comparison_in("worse"), margin=0.05)
    long = dataclasses.replace(
        table.rows[0], slice="department = infectious diseases and tropical medicine"
    )
    with style.style():
        ax = plots.forest(dataclasses.replace(table, rows=(long, *table.rows[1:])), narrow=True)
        assert any(
            text.get_text().startswith(f"{long.n} examples") for text in ax.texts
        )  # n stands there too
        assert words_crossed(ax) == []


def test_this_runs_label_keeps_clear_of_its_mark_and_curve(comparison_in, words_crossed):
    with style.style():
        assert words_crossed(plots.detectable(comparison_in("no difference shown"))) == []


def scored(score, n=60):
    return [
        EvalResult(
            i, f"q {i}", "x", "x", True, True, scores={"toxic": score(i)}, slices={"half": "a" if i % 2 else "b"}
        )
        for i in range(n)
    ]  # fmt: skip


@pytest.mark.parametrize("less", [False, True])
def test_the_margin_lies_on_the_side_of_a_loss_and_the_axis_says_which_that_is(less):
    old, new = scored(lambda i: 0.3 + 0.01 * (i % 5)), scored(lambda i: 0.3 + 0.01 * (i % 7))
    found = compare_models(
        old,
        new,
        primary_metric="toxic",
        lower_is_better="toxic" if less else "",
        metric_margin=0.04,
    )
    with style.style():
        ax = plots.forest(slice_table(found, margin=0.04))
        sides = ax.get_xlabel().split("fine-tuned − base")
        ends = [float(x) for line in ax.lines for x in line.get_xdata()]
        ends += [
            float(s[0][0])
            for c in ax.collections
            for s in getattr(c, "get_segments", list)()
            if len(s)
        ]
        pyplot.close(ax.figure)
    assert ("worse" in sides[1]) is less
    assert "points" not in sides[0]  # a score is no percentage
    assert (0.04 in ends, -0.04 in ends) == (less, not less)


def test_a_figure_of_rates_and_scores_names_both_units():
    found = compare_models(scored(lambda i: 0.3), scored(lambda i: 0.1), lower_is_better="toxic")
    with style.style():
        label = plots.differences(found).get_xlabel()
        pyplot.close("all")
    assert label == "points (of scores: hundredths), fine-tuned − base"
