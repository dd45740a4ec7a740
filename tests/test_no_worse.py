"""A model is being retired: is the replacement no worse, within a margin declared beforehand?"""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib import pyplot
from scipy.stats import norm

from evalkit import stats
from evalkit.abtest.effects import Effect, at_look
from evalkit.abtest.lock import lock, read_lock
from evalkit.abtest.outcomes import deciding
from evalkit.abtest.plan import ABPlan, Metric, power_at
from evalkit.abtest.reading import _to_keep
from evalkit.answers.runner import run_automated_eval
from evalkit.benchmark.benchmark import evidence_of
from evalkit.benchmark.comparison import compare_models
from evalkit.benchmark.slices import slice_table
from evalkit.decision import decide
from evalkit.decision.rules import Rules
from evalkit.errors import DataError, DesignError
from evalkit.evidence import Evidence
from evalkit.records import EvalResult
from evalkit.report import chain
from evalkit.report.gate import gate
from evalkit.show import comparison as shown
from evalkit.show import regressions
from evalkit.show import verdict as spoken
from evalkit.show.lacking import in_words
from evalkit.study import RETIRES_SOON_DAYS, Settings, Study, retirement
from evalkit.workbench import Study as Workbench

MARGIN = 0.02


def results(right):
    return [
        EvalResult(f"e{i}", f"q{i}", "yes", "yes" if ok else "no", bool(ok), True, slices={"kind": "a" if i % 2 else "b"})
        for i, ok in enumerate(right)
    ]  # fmt: skip


def compared(both_right, fixed, regressed, both_wrong, question="no_worse", margin=MARGIN):
    base = [1] * both_right + [0] * fixed + [1] * regressed + [0] * both_wrong
    tuned = [1] * both_right + [1] * fixed + [0] * regressed + [0] * both_wrong
    sides = results(base), results(tuned)
    return compare_models(*sides, metric_margin=margin, question=question)


# 2,000 examples, 20 fixed and 28 regressed: -0.4 points (-1.1 to +0.3); 300 of which 21 changed cannot tell
CASES = {
    "not worse": (1400, 20, 28, 552),
    "not shown": (200, 10, 11, 79),
    "better": (200, 40, 5, 55),
    "worse": (200, 5, 40, 55),
}


@pytest.mark.parametrize("verdict", CASES)
def test_the_question_is_answered_in_its_own_words(verdict):
    found = compared(*CASES[verdict])
    assert found.conclusion == found.changes["exact_match"].verdict == verdict
    spoken = [
        shown.answer_said(found), shown.settle(found), shown.rates_title(found), str(found), shown.footnotes(found),
        shown.differences_title(found).split(";")[0],
    ]  # fmt: skip
    assert not [one for one in spoken if "no difference" in one.lower()]
    words = {
        "not worse": "The replacement is not worse by more than 2 points on exact match",
        "not shown": "Not shown that the replacement is no worse: a loss of 2 points on exact match is not ruled out",
        "better": "The replacement is better on exact match",
        "worse": "The replacement is worse on exact match",
    }
    assert shown.answer_said(found).startswith(words[verdict])


def test_the_same_answers_with_the_question_better_read_as_before():
    found = compared(*CASES["not worse"], question="better")
    assert (found.conclusion, found.margin) == ("no difference shown", None)
    assert shown.answer_said(found).startswith("No difference between the models is shown")


def test_a_loss_that_is_shown_but_within_the_margin_is_not_worse():
    # 10,000 examples, 50 fixed and 100 regressed: -0.5 points, p < 0.001, at most about -0.8
    found = compared(9000, 50, 100, 850)
    assert (found.verdict, found.conclusion) == ("worse", "not worse")
    assert "not worse by more than 2 points" in shown.rates_title(found)
    assert "falls" not in shown.rates_title(found)


def test_what_is_not_shown_has_its_price():
    found = compared(*CASES["not shown"])
    evidence = evidence_of(found, study="s", bound_to={}, costs={})
    (missing,) = evidence.missing
    # Nam 1997 at 10/300 and 11/300
    needed = stats.examples_needed(10 / 300, 11 / 300, margin=MARGIN)
    assert f"{needed:,} in all" in in_words(missing).price
    assert "not worse by more than 2 points" in in_words(missing).why
    assert "do not rule out a loss of 2 points" in in_words(missing).why
    assert f"{needed:,}" in shown.settle(found)
    lost = compared(200, 6, 13, 81)  # 2.3 points lost: no number would
    assert (
        "no number"
        in in_words(evidence_of(lost, study="s", bound_to={}, costs={}).missing[0]).price
    )


def test_the_question_needs_its_margin():
    with pytest.raises(DesignError, match="metric_margin"):
        compared(10, 1, 1, 1, margin=None)


@pytest.mark.parametrize("draw", [shown.draw_differences, shown.draw_detectable])
def test_figures_draw_the_margin_and_name_it(draw):
    texts = [one.get_text() for one in draw(compared(*CASES["not worse"])).texts]
    assert [one for one in texts if "margin: 2 points" in one]
    pyplot.close("all")


def test_slices_are_read_against_their_margin():
    table = slice_table(compared(*CASES["not worse"]), fields=("kind",), margin=0.05)
    assert regressions.slices_title(table) == (
        "2 of 2 slices are shown not worse by more than 5 points on exact match"
    )
    assert {regressions.slice_verdict(row) for row in table} == {"not worse by more than 5 points"}
    few = slice_table(compared(20, 2, 2, 6), fields=("kind",), margin=0.05)
    assert all(
        "a loss of 5 points is not ruled out" in regressions.slice_verdict(row) for row in few
    )
    (label,) = [
        one.get_text() for one in regressions.draw_forest(table).texts if "margin" in one.get_text()
    ]
    assert label == "margin: 5 points worse"
    pyplot.close("all")


# ---- sample sizes, each with a second way of computing it


def test_the_smallest_loss_ruled_out_is_the_margin_that_needs_so_many_examples():
    for n, psi in ((300, 0.1), (2000, 0.05), (644, 0.2)):
        margin = stats.detectable_margin(n, psi)
        assert stats.examples_needed(psi / 2, psi / 2, margin=margin) in {n, n + 1}
    assert stats.detectable_margin(300, 0.0) is stats.detectable_margin(0, 0.5) is None


def test_ratings_for_no_worse_have_their_power_by_simulation():
    n, rng = stats.ratings_needed_no_worse(0.5, 0.1, 0.2), np.random.default_rng(0)
    scores = rng.choice([0.0, 0.5, 1.0], p=[0.4, 0.2, 0.4], size=(4000, n))
    low = scores.mean(axis=1) - 1.96 * scores.std(axis=1, ddof=1) / n**0.5
    assert 0.77 < (low > 0.4).mean() < 0.83
    with pytest.raises(DesignError, match="no number of ratings"):
        stats.ratings_needed_no_worse(0.4, 0.1)


def plan(looks=1, **metric):
    fields = {"name": "accepted", "expected": 0.3, "detectable_difference": 0.05, "margin": MARGIN}
    return ABPlan(
        experiment_name="exp", control_model="old", treatment_model="new", primary=Metric(**fields | metric),
        traffic_split=0.5, min_samples=100, users_per_day=500.0, looks=looks,
    )  # fmt: skip


def test_users_follow_from_the_margin_as_tost_of_statsmodels_has_it():
    from statsmodels.stats.power import NormalIndPower

    # one-sided 2.5%, 80%, both at 30%: d = 2 points over sqrt(0.3 * 0.7)
    sized = NormalIndPower().solve_power(
        effect_size=0.02 / 0.21**0.5, alpha=0.025, power=0.8, alternative="larger"
    )
    assert plan().n_control == pytest.approx(sized, abs=2)
    assert power_at(plan(), 0.0) == pytest.approx(0.8, abs=0.001)
    assert power_at(plan(looks=4), 0.0) == pytest.approx(0.8, abs=0.001)
    assert power_at(plan(), -MARGIN) == pytest.approx(0.025, abs=0.001)


def test_the_lock_holds_question_and_margin_and_neither_can_be_amended(tmp_path):
    path = tmp_path / "plan.lock.json"
    lock(plan(), path)
    said = read_lock(path)
    assert said.plan.primary.margin == MARGIN
    record = yaml.safe_load(path.read_text())["plan"]["primary"]
    assert (record["question"], record["margin"]) == ("no_worse", 0.02)
    assert "question" not in plan(margin=None).to_dict()["primary"]


def test_a_rate_near_its_end_can_be_asked_for_no_worse():
    assert plan(expected=0.99).n_control > 0  # 0.99 + 0.05 would be no rate
    with pytest.raises(DesignError, match="no rate"):
        plan(expected=0.99, margin=None)


def test_looks_keep_the_level_at_the_margin_and_the_power_at_no_difference():
    """By simulation of the looks themselves, each read as an `Effect` would be: at most 2.5% and 80%."""
    looks, runs, rng = 4, 20_000, np.random.default_rng(1)
    bounds = stats.obrien_fleming_bounds([0.25, 0.5, 0.75, 1.0])
    drift = norm.isf(0.025) + norm.ppf(stats.single_look_power(looks))  # as the plan is sized
    steps = rng.normal(0, 0.5, (runs, looks)).cumsum(axis=1)
    times = np.arange(1, looks + 1) / looks

    def ever(true):  # true difference in margins; z against the margin at each look
        z = (steps + drift * (true + 1) * times) / times**0.5
        return (z > bounds).any(axis=1).mean()

    assert 0.021 < ever(-1.0) < 0.029
    assert 0.79 < ever(0.0) < 0.81


def effect(estimate, se, *, look=4, bound=2.02, lower_is_better=False):
    test = Effect(
        estimate=estimate, n=4000, ci_low=estimate - 1.96 * se, ci_high=estimate + 1.96 * se, p_value=0.5, method="t",
        control_rate=0.3, treatment_rate=0.3 + estimate, n_control=2000, n_treatment=2000, se=se, z_score=estimate / se,
        lift=None, lift_ci_low=None, lift_ci_high=None, margin=MARGIN, lower_is_better=lower_is_better,
    )  # fmt: skip
    return at_look(test, bound, look, 4)


def test_each_look_is_read_by_its_own_widened_interval():
    # the interval of one look, -1.6 to +1.0 points, would do; that of look 1 (limit 4.33) is -3.2 to +2.6
    early = effect(-0.003, 0.0066, look=1, bound=4.33)
    assert (early.verdict, effect(-0.003, 0.0066).verdict) == ("too early", "not worse")
    assert effect(-0.003, 0.02).verdict == "not shown"  # the last look
    assert effect(0.03, 0.005).verdict == "better"
    assert effect(-0.03, 0.005).verdict == "worse"
    assert deciding([early, effect(-0.003, 0.0066, look=2), effect(0.1, 0.001)])[0] == 1
    assert effect(0.003, 0.0066, lower_is_better=True).verdict == "not worse"


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("estimate", [-0.02, -0.005, 0.0, 0.01])
def test_z_against_the_margin_and_the_interval_say_the_same(estimate, lower):
    test = effect(estimate, 0.0066, lower_is_better=lower)
    good = -test.z_read if lower else test.z_read
    assert (good > test.bound) is stats.keeps_margin(test, MARGIN)
    assert good == pytest.approx(((-estimate if lower else estimate) + MARGIN) / 0.0066, abs=0.05)


def test_users_that_rule_out_the_loss_are_priced_at_the_spread_seen():
    # 4,000 users, error 2 points: sd = 0.02 * sqrt(4,000) / 2 = 0.632; 2 * 2.8016^2 * 0.4 / 0.017^2 = 21,728 each
    missing = _to_keep(effect(-0.003, 0.02), MARGIN, 0.8)
    assert in_words(missing).price == "about 43,456 users, if the difference seen is the true one"
    assert in_words(missing).why == "a loss of 2 points is not ruled out"
    assert "no number" in in_words(_to_keep(effect(-0.03, 0.02), MARGIN, 0.8)).price


# ---- the gate


def layer(name, estimate, low, high, verdict="no difference shown", shift=0.0):
    primary = {
        "verdict": verdict,
        "n": 900,
        "estimate": estimate + shift,
        "ci_low": low + shift,
        "ci_high": high + shift,
    }
    return Evidence.of(
        {
            "layer": name,
            "study": "s",
            "made_at": "2026-11-24T00:00:00+00:00",
            "models": {"base": "old", "fine_tuned": "new"},
            "bound_to": {"test_set": "t", "base": "b", "fine_tuned": "f"},
            "simulated": False,
            "metric": "exact match",
            "unit": "examples",
            "primary": primary,
            "details": {"noise_floor": {"flip_rate": 0.0}} if name == "benchmark" else {},
        }
    )


def asked(tmp_path, rules="", margin=0.05):
    path = tmp_path / "rules.yaml"
    path.write_text(rules or "fragile: holds\n")
    return Rules.read(path, question="no_worse", margin=margin)


def test_no_worse_everywhere_ships_and_says_what_was_shown(tmp_path):
    evidence = {
        "benchmark": layer("benchmark", -0.004, -0.016, 0.008),
        "human": layer("human", 0.0, -0.04, 0.04, shift=0.5),
    }
    found = decide(evidence, study="s", rules=asked(tmp_path))
    assert found.verdict == "ship"
    assert spoken.headline(found).startswith(
        "Ship this version: not worse by more than 5 points in exact match"
    )
    assert "no difference" not in spoken.headline(found) + spoken.deck(found)
    assert "not worse by more than 5 points below 50%" in spoken.deck(found)
    assert "not worse by more than 5 points" in " ".join(spoken.rules(found))


def test_what_is_not_ruled_out_is_the_headline(tmp_path):
    evidence = {"benchmark": layer("benchmark", -0.01, -0.06, 0.04)}
    found = decide(evidence, study="s", rules=asked(tmp_path))
    assert spoken.headline(found).startswith(
        "Not yet this version: a loss of 5 points in exact match is not ruled out"
    )
    assert "no gain" not in spoken.headline(found)


def test_the_rules_file_wins_over_the_question_layer_by_layer(tmp_path):
    rules = asked(tmp_path, "human_needs: better\nab_test_margin: 0.01\n", margin=0.02)
    assert (rules.benchmark_needs, rules.benchmark_margin) == ("not worse", 0.02)
    assert rules.human_needs == "better"
    assert (rules.ab_test_needs, rules.ab_test_margin) == ("not worse", 0.01)
    assert Rules.read(None, question="better", margin=0.02) == Rules()


def test_a_question_of_which_the_rules_file_leaves_nothing_is_refused(tmp_path):
    every = "".join(f"{one}_needs: better\n" for one in ("benchmark", "human", "ab_test"))
    with pytest.raises(
        DesignError, match=r"better in every layer.*take benchmark_needs, human_needs and"
    ):
        asked(tmp_path, every)


def test_a_verdict_made_against_another_margin_is_read_again_at_the_gate(tmp_path):
    evidence = {"ab_test": layer("ab_test", -0.01, -0.03, 0.01, verdict="not worse")}
    strict = decide(evidence, study="s", stage="rollout", rules=asked(tmp_path, margin=0.02))
    assert strict.layers[-1].verdict == "not shown"


# ---- settings, and a model that retires


def study(root, **said):
    (root / "data/toy").mkdir(parents=True, exist_ok=True)
    (root / "notebooks").mkdir(exist_ok=True)
    (root / "data/toy/study.yaml").write_text("\n".join(f"{k}: {v}" for k, v in said.items()))
    return root


def test_half_a_question_is_refused_with_what_it_needs(tmp_path):
    for said, told in (
        ({"question": "no_worse"}, "question_margin: got 0; question: no_worse needs"),
        ({"question": "no_worse", "question_margin": 2}, "question_margin: got 2"),
        ({"question": "equal"}, "need 'better' or 'no_worse'"),
        ({"retires_on": "soon"}, "need a date such as 2027-01-15"),
    ):
        with pytest.raises((DesignError, DataError), match=told):
            _ = Study.open("toy", root=study(tmp_path, **said)).settings


def test_the_study_hands_each_layer_its_margin(tmp_path):
    (study(tmp_path, question="no_worse", question_margin=0.02, rules_file="rules.yaml"))
    (tmp_path / "data/toy/rules.yaml").write_text("human_margin: 0.05\nab_test_needs: better\n")
    home = Workbench.open("toy", root=tmp_path)
    layers = ("benchmark", "human", "ab_test")
    assert [home.margin(one) for one in layers] == [0.02, 0.05, None]
    assert (home.benchmark.margin, home.draft().primary.margin) == (0.02, None)
    plain = Workbench.open("toy", root=tmp_path, question="better")
    assert [plain.margin(one) for one in layers] == [None, None, None]


@pytest.mark.parametrize(
    ("today", "told"),
    [
        ("2026-10-01", ""),
        ("2027-01-03", "old retires on 2027-01-15, in 12 days"),
        ("2027-01-14", "old retires on 2027-01-15, in 1 day"),
        ("2027-01-15", "old retires on 2027-01-15, today"),
        ("2027-01-17", "old retired on 2027-01-15, 2 days ago: it may no longer answer"),
    ],
)
def test_a_retirement_is_told_as_the_day_comes_near(today, told):
    said = Settings(base_model="old", retires_on="2027-01-15")
    assert retirement(said, date.fromisoformat(today)) == told
    assert retirement(Settings(), date.fromisoformat(today)) == ""


def test_the_day_may_stand_bare_in_yaml_and_the_gate_tells_it(tmp_path):
    root = study(tmp_path, retires_on="2027-01-15", base_model="old")
    assert Study.open("toy", root=root).settings.retires_on == "2027-01-15"
    (root / "reports/toy/20270101T000000Z-00000000").mkdir(parents=True)
    found = gate("toy", root=root, today=date(2027, 1, 3))
    assert found.warning == "old retires on 2027-01-15, in 12 days"
    assert gate("toy", root=root, today=date(2026, 1, 3)).warning == ""
    assert RETIRES_SOON_DAYS == 60


@pytest.mark.slow
def test_a_study_that_asks_it_says_so_from_the_first_screen_to_the_gate(tmp_path):
    """Three chapters over 600 rows: 6 fixed, 7 regressed, -0.2 points (-1.5 to +1.1); the base retires in a month."""
    home = tmp_path / "data/toy"
    (tmp_path / "notebooks").symlink_to(Path(__file__).parents[1] / "notebooks")
    home.mkdir(parents=True)
    soon = (datetime.now(UTC) + timedelta(days=30)).date()
    said = {
        "study": "toy", "question": "no_worse", "question_margin": 0.02, "retires_on": soon, "scorers": "similarity",
        "base_model": "old", "fine_tuned_model": "new", "base_journal": "old.jsonl", "fine_tuned_journal": "new.jsonl",
        "slice_fields": "kind", "rules_file": "rules.yaml",
    }  # fmt: skip
    (home / "study.yaml").write_text(yaml.safe_dump(said))
    (home / "rules.yaml").write_text("human_before_deployment: false\n")
    rows = [
        {
            "id": f"t{n}",
            "metadata": {"kind": "ab"[n % 2]},
            "messages": [
                {"role": "user", "content": f"ticket {n}"},
                {"role": "assistant", "content": f"label {n % 6}"},
            ],
        }
        for n in range(600)
    ]
    (home / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, first, last in (("old", 10, 100), ("new", 16, 107)):  # 90 and 91 wrong

        def model(messages, first=first, last=last):
            n = int(messages[-1]["content"].split()[-1])
            return "other" if first <= n < last else f"label {n % 6}"

        model.__name__ = name
        run_automated_eval(
            model, home / "test.jsonl", journal=home / f"{name}.jsonl", name=name, progress=False
        )
    lines = []
    run = chain.run_study("toy", root=tmp_path, only=["01", "02", "07"], say=lines.append)
    assert run.failed == {}
    told = f"old retires on {soon}, in 30 days"
    assert f"  {told}" in lines
    found = gate("toy", root=tmp_path)
    assert (found.code, found.warning) == (0, told)
    assert found.sentence.startswith(
        "Ship this version: not worse by more than 2 points in exact match"
    )
    page = run.report.read_text()
    assert f"{told}." in page
    assert "The replacement is not worse by more than 2 points on exact match" in page
    assert "not worse by more than 5 points" in page  # the slices
    frame = Workbench.open("toy", root=tmp_path).compare()
    assert frame.conclusion == "not worse"
