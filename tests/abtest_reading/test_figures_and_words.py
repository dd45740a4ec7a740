"""Figures and sentences in every state: nothing crashes, nothing withheld is drawn, simulated stands everywhere."""

import dataclasses
import re

import matplotlib.pyplot as plt
import pytest
from grammar import faults

from evalkit import show
from evalkit.abtest.plan import Guardrail, durations, peeking, power_at, power_curve
from evalkit.abtest.reading import NoReading, read_ab_test
from evalkit.records import Missing
from evalkit.show import abtest as words
from evalkit.show import effect, figure, style

OF_A_READING = (
    effect.draw_z_test,
    effect.draw_looks,
    effect.draw_over_time,
    words.draw_sample_ratio,
    words.draw_guardrails,
)
NOTHING = NoReading(missing=(Missing(kind="no_plan"),))


@pytest.fixture
def states(make_log, make_people, make_frames, locked, later):
    """Readings by name."""

    def read(people, log_options=None, **options):
        rails = (
            Guardrail(name="error", margin=0.01),
            Guardrail(name="latency_ms", kind="p95", margin=30),
        )
        log = make_log(*make_frames(people), **(log_options or {}))
        return read_ab_test(log, locked(guardrails=rails, **options), now=later)

    def make(name):
        match name:
            case "nothing":
                return NOTHING
            case "too early":
                return read(make_people(150, 150), min_samples=900)
            case "invalid":
                return read(make_people(150, 300))
            case "better":
                return read(make_people(150, 150, lift=0.3), {"simulated": True})
            case "in between":
                return read(make_people(120, 120), looks=3, min_samples=200)
        raise AssertionError(name)

    return make


@pytest.mark.parametrize("state", ["nothing", "too early", "invalid", "better", "in between"])
def test_every_figure_draws_in_every_state(state, states):
    found = states(state)
    for plot in OF_A_READING:
        for narrow in (False, True):
            with style.style():
                ax = plot(found, narrow=narrow)
                title = ax.get_title("left") or ax.get_title()
                assert title
                if state in {"too early", "nothing"} and plot in {
                    effect.draw_z_test,
                    effect.draw_over_time,
                }:
                    assert not ax.lines
                    assert not re.search(
                        r"[+−]\d|z =",
                        figure.svg(ax.figure).split("<style>")[-1].split("</style>")[-1],
                    )
                plt.close(ax.figure)


@pytest.mark.parametrize("state", ["nothing", "too early", "invalid", "better", "in between"])
def test_no_figure_has_a_library_complain_when_it_is_drawn(state, states):
    # warnings are errors here; in a report they would stand in a box of messages
    found = states(state)
    for plot in OF_A_READING:
        shown = figure.picture(
            plot, found, alt=effect.alt(found), simulated=found.simulated
        )._repr_html_()
        assert shown.count("<img") + shown.count("<source") >= 2


@pytest.mark.parametrize("state", ["nothing", "too early", "invalid", "better", "in between"])
def test_every_sentence_and_table_is_there_in_every_state(state, states):
    found = states(state)
    for say in (
        effect.answer_said, effect.alt, effect.headline, words.watched_said, effect.slices_said, effect.days_said,
        words.sample_ratio_said, effect.article_said, effect.alt_looks,
        effect.alt_over_time,
    ):  # fmt: skip
        assert faults(say(found)) == []
    assert faults(show.log_notes(found).text) == []
    assert isinstance(words.watched_rows(found), list)
    assert faults(show.sample_ratio(found).text.split("\n")[0]) == []
    for which in ("by_slice", "by_day"):
        assert isinstance(effect.part_rows(found, which), list)


def test_nothing_is_claimed_about_a_log_that_is_not_there():
    assert show.log_notes(NOTHING).text == "Nothing unusual is known."
    assert (
        effect.answer_said(NOTHING)
        == "No A/B plan is locked. Missing: Fill in the A/B plan, its experiment_name and lock_plan: true in study.yaml, "
        "then run notebook 05 (minutes)."
    )


def test_simulated_stands_in_all_that_is_said(states):
    found = states("better")
    said = (
        effect.answer_said(found),
        effect.alt(found),
        effect.article_said(found),
        show.sample_ratio(found).text,
        effect.titled("x", found),
    )
    assert all("simulated" in one for one in said)
    shown = figure.picture(
        effect.draw_z_test, found, alt=effect.alt(found), simulated=found.simulated
    )._repr_html_()
    assert shown.count("imulated") >= 2  # chip and alternative text


def test_an_interval_in_between_names_look_and_limit(states):
    found = states("in between")
    assert effect.headline(found).startswith("Too early: at look")
    assert "against a limit of" in effect.alt(found)


def test_each_figure_of_the_effect_is_described_by_what_it_shows(states):
    found = states("better")
    first, *_, last = found.findings.over_time
    assert "Look 1: Difference +" in effect.alt_looks(found)
    assert f"Users up to {first['date']}: " in effect.alt_over_time(found)
    assert (
        f"up to {last['date']}: {effect.difference(found.findings.primary, last['estimate'])}"
        in effect.alt_over_time(found)
    )
    assert (
        effect.alt_looks(states("too early"))
        == effect.alt_over_time(states("too early"))
        == effect.alt(states("too early"))
    )


def with_z(found, z):
    primary = dataclasses.replace(found.findings.primary, z_score=z)
    return dataclasses.replace(found, findings=dataclasses.replace(found.findings, primary=primary))


def marks(ax):
    return [
        (line.get_marker(), line.get_xdata()[0]) for line in ax.lines if len(line.get_xdata()) == 1
    ]


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("z", [2.1, -6.0, 12.43, 14.9])
def test_an_observed_z_is_drawn_where_it_lies(states, z, narrow):
    with style.style():
        ax = effect.draw_z_test(with_z(states("better"), z), narrow=narrow)
    assert [at for _, at in marks(ax)] == [z]
    assert ax.get_xlim()[0] < z < ax.get_xlim()[1]
    plt.close(ax.figure)


@pytest.mark.parametrize(("z", "arrow"), [(24.5, ">"), (-24.5, "<")])
def test_a_z_far_beyond_is_an_arrow_with_its_number_not_a_place_on_the_axis(states, z, arrow):
    with style.style():
        ax = effect.draw_z_test(with_z(states("better"), z))
    assert marks(ax) == [(arrow, ax.get_xlim()[z > 0])]
    assert any(f"{abs(z):.2f},\nfar off this scale" in text.get_text() for text in ax.texts)
    assert not [
        line for line in ax.lines if line.get_linewidth() == 2.4
    ]  # no stem stands at the edge
    plt.close(ax.figure)


def test_a_guardrail_far_beyond_is_an_arrow_at_the_edge_and_one_without_a_limit_has_no_place(
    states,
):
    found = states("better")
    first, *rest = found.health
    change = dataclasses.replace(first.change, estimate=5.0, ci_low=4.0, ci_high=6.0)
    far, free = (
        dataclasses.replace(first, change=change),
        dataclasses.replace(first, margin=None),
    )
    with style.style():
        ax, bare = (
            words.draw_guardrails(dataclasses.replace(found, health=(one, *rest)))
            for one in (far, free)
        )
    assert (">", 2.5) in marks(ax)
    assert len(marks(bare)) == len(marks(ax)) - 1
    plt.close("all")


@pytest.mark.parametrize("plot", [words.draw_guardrails, words.draw_sample_ratio])
def test_on_a_phone_no_zone_lies_behind_words(states, plot):
    with style.style():
        ax = plot(states("better"), narrow=True)
        ax.figure.canvas.draw()
        drawn = [
            one.get_path().transformed(one.get_transform()) for one in (*ax.lines, *ax.patches)
        ]
        drawn += [
            path.transformed(one.get_transform())
            for one in ax.collections
            for path in one.get_paths()
        ]
        for text in ax.texts:
            assert not any(path.intersects_bbox(text.get_window_extent()) for path in drawn), (
                text.get_text()
            )
    plt.close(ax.figure)


def test_power_curve_meets_the_plan(locked):
    plan = locked(expected=0.3, difference=0.05, min_samples=1).plan
    # the textbook: 1,377 a group for 30% against 35%
    assert plan.n_control == 1377
    assert power_at(plan, 0.05) == pytest.approx(0.8, abs=0.002)
    assert power_at(plan, 0.0) == pytest.approx(0.05, abs=1e-9)
    differences, powers = power_curve(plan)
    assert list(powers) == sorted(powers)
    assert differences[-1] == pytest.approx(0.1)


def test_an_uneven_split_takes_longer(locked):
    days = {one.traffic_split: one.days for one in durations(locked(difference=0.05).plan)}
    assert days[0.1] > days[0.5]


def test_figures_of_a_plan_draw(locked):
    plan = locked(difference=0.05).plan
    runs = peeking(plan, n_runs=200)
    for narrow in (False, True):
        with style.style():
            for draw, what in (
                (words.draw_power, plan),
                (words.draw_duration, plan),
                (words.draw_peeking, runs),
            ):
                ax = draw(what, narrow=narrow)
                assert ax.get_title("left") or ax.get_title()
                plt.close(ax.figure)
