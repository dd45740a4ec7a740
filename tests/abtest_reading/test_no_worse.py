"""A log read for the question whether treatment is no worse: words, figures, evidence, in both directions."""

import pytest
from matplotlib import pyplot

from evalkit.abtest.experiment import ab_evidence
from evalkit.abtest.reading import read_ab_test
from evalkit.decision import decide
from evalkit.decision.rules import Rules
from evalkit.show import effect, style

pytestmark = pytest.mark.slow  # a log is read in the engine for each case


@pytest.fixture
def reading(make_log, make_people, make_frames, locked, later):
    def made(lift, *, margin=0.05, looks=1, better=None, users=2000):
        exposures, outcomes = make_frames(make_people(users, users, rate=0.3, lift=lift, days=7))
        plan = locked(margin=margin, looks=looks, better=better, min_samples=2000)
        return read_ab_test(make_log(exposures, outcomes), plan, now=later)

    return made


@pytest.mark.parametrize("looks", [1, 3])
@pytest.mark.parametrize(
    ("lift", "margin", "better", "verdict", "said"),
    [
        (0.0, 0.05, None, "not worse", 'Not worse by more than 5 points: "accepted"'),
        (0.0, 0.05, "lower", "not worse", 'Not worse by more than 5 points: "accepted"'),
        (0.0, 0.001, None, "not shown", 'Not shown: a loss of 0.1 points in "accepted" is not ruled out'),
        (0.1, 0.05, None, "better", "Better:"),
        (-0.1, 0.05, None, "worse", "Worse:"),
        (0.1, 0.05, "lower", "worse", "Worse:"),
    ],
)  # fmt: skip
def test_the_interval_against_the_margin_decides(
    lift, margin, better, verdict, said, looks, reading
):
    found = reading(lift, margin=margin, better=better, looks=looks)
    if (
        found.plan.n_users > 4000 and verdict == "not shown"
    ):  # a margin so small needs far more users
        assert found.verdict == "too early"
        return
    assert found.verdict == verdict
    told = [
        effect.headline(found),
        effect.answer_said(found),
        effect.alt(found),
        effect.alt_looks(found),
    ]
    assert said in told[0]
    assert not [one for one in told if "no difference" in one.lower()]
    with style.style():
        for draw in (effect.draw_z_test, effect.draw_looks, effect.draw_over_time):
            draw(found, narrow=True)
            ax = draw(found)
            shown = [one.get_text() for one in ax.texts]
            if draw is effect.draw_over_time:
                assert [one for one in shown if "margin" in one]
        pyplot.close("all")
    evidence = ab_evidence(found, study="toy")
    rules = Rules.read(None, question="no_worse", margin=margin)
    layer = decide({"ab_test": evidence}, study="toy", stage="rollout", rules=rules).layers[-1]
    assert layer.verdict == verdict
