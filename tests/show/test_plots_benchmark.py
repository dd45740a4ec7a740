import dataclasses

import pytest
from matplotlib import pyplot

from evalkit import show
from evalkit.benchmark.comparison import compare_models
from evalkit.benchmark.noise import NoiseFloor, noise_floor
from evalkit.benchmark.slices import slice_table
from evalkit.records import EvalResult
from evalkit.show import comparison, regressions, style

OF_A_COMPARISON = ("rates", "differences", "cells", "similarity", "spread", "scatter", "detectable")


def drawn(plot, *args, **options):
    with style.style():
        ax = plot(*args, **options)
        ax.figure.canvas.draw()
        found = [text.get_text() for text in ax.texts], ax.figure.get_size_inches()[0]
    pyplot.close("all")
    return found


def plot_of(name):
    room = regressions if name == "scatter" else comparison
    return getattr(room, f"draw_{name}")


def test_regressed_examples_lie_on_top_and_both_wrong_ones_are_hollow(comparison_in):
    with style.style():
        marks = regressions.draw_scatter(comparison_in("better")).collections
    wrong, *_, regressed = marks
    assert len(regressed.get_paths()[0].vertices) < len(wrong.get_paths()[0].vertices)
    assert wrong.get_facecolor().tolist() != wrong.get_edgecolor().tolist()
    assert regressed.get_facecolor().tolist() == regressed.get_edgecolor().tolist()
    pyplot.close("all")


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("name", OF_A_COMPARISON)
def test_every_figure_is_drawn_in_every_state(state, name, narrow):
    texts, width = drawn(plot_of(name), state[1], narrow=narrow)
    assert not [one for one in texts if "None" in one or "nan" in one]
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
    assert show.rates(comparison_in(state)).text.splitlines()[0] == title


def test_the_numbers_stand_beside_the_marks(comparison_in):
    found = comparison_in("better")
    texts = drawn(comparison.draw_differences, found)[0]
    # 60% - 25% = 35 points; Tango's limits come from the same result
    test = found.primary
    assert any(text.startswith("+35.0 (") for text in texts)
    assert f"+35.0 ({test.ci_low * 100:+.1f} to {test.ci_high * 100:+.1f})" in texts


def test_the_four_cells_are_bars_with_their_numbers(comparison_in):
    with style.style():
        bars = comparison.draw_cells(comparison_in("large"))
        assert [bar.get_width() for bar in bars.patches] == [1500, 500, 2000, 1000]
    pyplot.close("all")


def test_worse_is_a_diamond_and_not_shown_is_hollow(comparison_in):
    with style.style():
        worse, unsure = (
            comparison.draw_differences(comparison_in("worse")),
            comparison.draw_differences(comparison_in("no difference shown")),
        )
        assert any(line.get_marker() == "D" for line in worse.lines)
        hollow = [line for line in unsure.lines if line.get_marker() == "o"]
        assert hollow
        assert all(line.get_markerfacecolor() == style.COLOURS["paper"] for line in hollow)
    pyplot.close("all")


@pytest.mark.parametrize("narrow", [False, True])
def test_a_slice_table_is_drawn_with_its_worst_slice_in_the_title(comparison_in, narrow):
    worse = slice_table(comparison_in("worse"), margin=0.05)
    title = show.forest(worse).text.splitlines()[0]
    assert title == "Exact match falls on “big” examples"
    better = slice_table(comparison_in("better"))
    texts = drawn(regressions.draw_forest, better, narrow=narrow)[0]
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
    assert drawn(regressions.draw_flips, floor, narrow=narrow)
    title = show.flips(floor).text.splitlines()[1]
    assert "base: 45.0% (45 of 100)" in title
    assert "fine-tuned: 0.0% (0 of 100)" in title
    assert "<figure" not in show.flips(NoiseFloor()).body


def test_what_this_run_could_find_is_marked(comparison_in):
    # psi = 22/100 at n = 100: Connor's detectable difference is 13.0 points; 2 were seen
    found = comparison_in("no difference shown")
    texts, _ = drawn(comparison.draw_detectable, found)
    assert (
        show.detectable(found).text.splitlines()[0]
        == "100 examples find a difference of 13.0 points or more in exact match 4 times in 5; 2.0 were seen"
    )
    assert any("this run: 13.0 points" in text for text in texts)


def test_a_chance_level_is_drawn_and_named(comparison_in):
    found = with_chance(comparison_in("better"))
    assert "primary metric, at random 23%" in drawn(comparison.draw_rates, found)[0]


@pytest.mark.parametrize("name", OF_A_COMPARISON)
def test_hostile_text_reaches_no_figure(hostile, name):
    html = getattr(show, name)(hostile[0])._repr_html_()
    assert "onerror" not in html
    assert "<script" not in html


def test_hostile_slice_names_are_drawn_as_text(hostile):
    html = show.forest(hostile[1])._repr_html_()
    assert "<img src=x" not in html
    assert "<script" not in html


def with_chance(found):
    """The comparison of a study that declares a chance level."""
    return dataclasses.replace(
        found, declared=dataclasses.replace(found.declared, chance_rate=0.227)
    )


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("name", ["rates", "differences"])
def test_no_line_passes_through_words(comparison_in, name, narrow, words_crossed):
    with style.style():
        plot = plot_of(name)(with_chance(comparison_in("worse")), narrow=narrow)
        assert words_crossed(plot) == []


def test_a_long_slice_name_and_its_numbers_do_not_overlap_on_a_phone(comparison_in, words_crossed):
    table = slice_table(comparison_in("worse"), margin=0.05)
    long = dataclasses.replace(
        table.rows[0], slice="department = infectious diseases and tropical medicine"
    )
    with style.style():
        ax = regressions.draw_forest(
            dataclasses.replace(table, rows=(long, *table.rows[1:])), narrow=True
        )
        assert any(
            text.get_text().startswith(f"{long.n} examples") for text in ax.texts
        )  # n stands there too
        assert words_crossed(ax) == []


def test_this_runs_label_keeps_clear_of_its_mark_and_curve(comparison_in, words_crossed):
    with style.style():
        assert words_crossed(comparison.draw_detectable(comparison_in("no difference shown"))) == []


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
        ax = regressions.draw_forest(slice_table(found, margin=0.04))
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
        label = comparison.draw_differences(found).get_xlabel()
        pyplot.close("all")
    assert label == "points (of scores: hundredths), fine-tuned − base"
