"""tea-tasting as second implementation: users reduced by pandas and tested by another library give the kit's numbers.

The kit's come the whole way: a log, its database's sums, `read_ab_test` or `effect`; one look, so that no interval is widened.
"""

import math
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tea_tasting as tt

from evalkit.abtest.effects import effect
from evalkit.abtest.experiment import simulate_traffic
from evalkit.abtest.lock import lock
from evalkit.abtest.log import OUTCOMES, EventLog
from evalkit.abtest.plan import ABPlan, Metric
from evalkit.abtest.reading import read_ab_test
from evalkit.abtest.source import open_log
from evalkit.answers.runner import results_from_journal
from evalkit.stats import sample_ratio_test
from evalkit.stats.result import two_sided_p

DEMO = Path(__file__).parents[2] / "data" / "icd10"
DAY_S = 86400.0
START_S = 20_000 * DAY_S
RATE = tt.RatioOfMeans("y", "x", equal_var=False, use_t=False)
WELCH = tt.Mean("y", equal_var=False, use_t=True)
CUPED = tt.Mean("y", "before", equal_var=False, use_t=True)
Z_TEST = tt.Proportion("hit", method="norm", correction=False)
FISHER = tt.Proportion("hit", method="fisher")


def same(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def by(metric, users):
    return metric.analyze(users, "control", "treatment", variant="variant")


def assert_same_difference(ours, theirs):
    ends = theirs.effect_size_ci_lower, theirs.effect_size_ci_upper
    assert ours.estimate == same(theirs.effect_size)
    assert (ours.control_rate, ours.treatment_rate) == same((theirs.control, theirs.treatment))
    assert (ours.ci_low, ours.ci_high) == same(ends)
    assert ours.estimate / ours.se == same(theirs.statistic)
    assert ours.lift == same(theirs.rel_effect_size)


def assert_same_lift_interval(ours, theirs):
    ends = theirs.rel_effect_size_ci_lower, theirs.rel_effect_size_ci_upper
    assert (ours.lift_ci_low, ours.lift_ci_high) == same(ends)


def within(rows, first, window_days):
    """Rows from their user's first request until the window closes."""
    since = rows["at_s"] - rows["user_id"].map(first["at_s"])
    return rows[(since >= 0) & (since < window_days * DAY_S)]


def reduced(exposures, outcomes, window_days=math.inf, until=math.inf):
    """One row a user who came until a day: variant and phase of the first request, requests x and outcomes y in the window."""
    first = exposures.sort_values("at_s").drop_duplicates("user_id").set_index("user_id")
    first = first[first["at_s"] // DAY_S <= until]
    x = within(exposures, first, window_days).groupby("user_id").size()
    y = within(outcomes, first, window_days).groupby("user_id")["value"].sum()
    users = first[["variant", "phase"]].assign(x=x, y=y).fillna({"y": 0.0})
    return users.assign(hit=(users["y"] > 0).astype(int))


def answered(exposures, outcomes, window_days, until):
    """One row a request that counts, with the outcome that followed, 0 without one."""
    first = exposures.sort_values("at_s").drop_duplicates("user_id").set_index("user_id")
    first = first[first["at_s"] // DAY_S <= until]
    requests = within(exposures, first, window_days)
    values = within(outcomes, first, window_days).set_index("request_id")["value"]
    hit = requests["request_id"].map(values).fillna(0).astype(int)
    return requests.assign(variant=requests["user_id"].map(first["variant"]), hit=hit)


def cells_of(log, *, window_s=math.inf, **options):
    """The kit's sums of a log made of frames."""
    return log.users("exp", window_s=window_s).cells("accepted", **options)


@pytest.fixture
def random_log(make_people, make_log, make_frames):
    """`random_log(seed)` -> a log with user-level rates, and its exposures and outcomes."""

    def make(seed, n_control=240, n_treatment=320, **options):
        people = make_people(n_control, n_treatment, lift=0.05, requests=3, seed=seed, **options)
        rows = make_frames(people, seed=seed)
        return make_log(*rows), *rows

    return make


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A small log of the demo as it is read, and its rows: simulated users, answered as the two models were recorded."""
    folder = tmp_path_factory.mktemp("demo")
    journals = (DEMO / "journals" / f"{name}.jsonl" for name in ("base", "fine_tuned"))
    said = [results_from_journal(one, DEMO / "test.jsonl", scorers=()) for one in journals]
    plan = ABPlan(
        experiment_name="exp",
        control_model="base",
        treatment_model="fine-tuned",
        primary=Metric(name="accepted", expected=0.3, detectable_difference=0.4),
        traffic_split=0.5,
        min_samples=300,
        outcome_window_days=7,
        users_per_day=100.0,
    )
    with closing(EventLog(folder / "events.sqlite")) as log:
        simulate_traffic(log, plan.config(), *said, n_users=800, seed=3, start_at_s=START_S)
        rows = pd.DataFrame(log.rows()), pd.DataFrame(log.rows(OUTCOMES))
    locked = lock(plan, folder / "plan.json", now=datetime.fromtimestamp(START_S, UTC))
    with closing(open_log(folder / "events.sqlite")) as log:
        return read_ab_test(log, locked, now=START_S + 365 * DAY_S), *rows


def test_the_demo_by_the_delta_method(demo):
    found, *rows = demo
    test, users = found.findings.primary, reduced(*rows, 7, until=found.schedule.due[-1].day)
    assert test.n == len(users) < found.n_users
    theirs = by(RATE, users)
    assert_same_difference(test, theirs)
    assert_same_lift_interval(test, theirs)
    # Theirs is Wald's p, by the interval's error. The kit tests by the error that both variants share when nothing differs,
    # skewness included; of one request a user the two tests are one (below).
    assert two_sided_p(test.estimate / test.se) == same(theirs.pvalue)


def test_the_demo_by_the_articles_test_over_requests(demo):
    found, *rows = demo
    article, requests = found.findings.article, answered(*rows, 7, found.schedule.due[-1].day)
    theirs = by(Z_TEST, requests)
    assert (article.p_value, article.diff) == same((theirs.pvalue, theirs.effect_size))


@pytest.mark.parametrize("split", [0.5, 0.45])
def test_the_sample_ratio(demo, split):
    found, *rows = demo
    users, (phase,) = reduced(*rows), found.sample_ratio
    ours = sample_ratio_test([phase.n_control, phase.n_treatment], [1 - split, split])
    assert split != 0.5 or ours == phase.test
    # the kit's chi-square has no continuity correction
    metric = tt.SampleRatio(split / (1 - split), method="norm", correction=False)
    assert ours.p_value == same(by(metric, users).pvalue)


def test_the_sample_ratio_of_few_users_is_the_exact_one():
    users = pd.DataFrame({"variant": ["control"] * 2 + ["treatment"] * 6})
    theirs = by(tt.SampleRatio(1 / 3, method="binom"), users)
    assert sample_ratio_test([2, 6], [0.75, 0.25]).p_value == same(theirs.pvalue)


@pytest.mark.parametrize("seed", range(2))
def test_rates_and_ratios_of_random_logs(random_log, seed):
    log, exposures, outcomes = random_log(seed)
    theirs, cells = by(RATE, reduced(exposures, outcomes)), cells_of(log)
    for kind in ("rate", "ratio"):
        ours = effect(cells, kind)
        assert_same_difference(ours, theirs)
        assert_same_lift_interval(ours, theirs)
    # a ratio counts no events: its null has each variant's own errors too, about the common ratio
    assert ours.z_score == pytest.approx(theirs.statistic, rel=0.02)


def test_a_rate_in_the_window_of_a_random_log(random_log):
    log, exposures, outcomes = random_log(7)
    ours = effect(cells_of(log, window_s=DAY_S), "rate")
    assert_same_difference(ours, by(RATE, reduced(exposures, outcomes, 1)))
    assert ours.estimate != same(by(RATE, reduced(exposures, outcomes)).effect_size)


@pytest.mark.parametrize("seed", range(2))
def test_one_request_a_user_of_an_equal_split_has_the_z_test_of_proportions(
    make_people, make_log, make_frames, seed
):
    # Here skewness is 0 and nothing is clustered, so the kit's score test is the pooled z-test, but for n - 1 in place of n:
    # with 800 users a variant z^2 differs by 799/800.
    people = make_people(800, 800, lift=0.06, requests=1, seed=seed).assign(requests=1)
    exposures, outcomes = make_frames(people, seed=seed)
    users = reduced(exposures, outcomes)
    ours, theirs = effect(cells_of(make_log(exposures, outcomes)), "rate"), by(Z_TEST, users)
    assert two_sided_p(ours.z_score / (799 / 800) ** 0.5) == same(theirs.pvalue)
    assert ours.p_value == same(two_sided_p(ours.z_score))


def test_few_events_are_decided_by_fishers_test_on_users(make_people, make_log, make_frames):
    exposures, outcomes = make_frames(make_people(200, 200, seed=5), seed=5)
    treated = exposures.loc[exposures["variant"] == "treatment", "request_id"]
    hits = [*treated.iloc[[0, 40, 90]], exposures["request_id"].iloc[3]]
    outcomes = outcomes.assign(value=outcomes["request_id"].isin(hits).astype(float))
    users, ours = (
        reduced(exposures, outcomes),
        effect(cells_of(make_log(exposures, outcomes)), "rate"),
    )
    assert ours.is_exact
    assert ours.p_value == same(by(FISHER, users).pvalue)
    # the interval is Newcombe's then, which theirs has not: the difference is the same
    assert ours.estimate == same(by(RATE, users).effect_size)


@pytest.mark.parametrize("seed", range(2))
def test_means_per_user_by_welch(random_log, seed):
    log, exposures, outcomes = random_log(seed)
    ours, theirs = effect(cells_of(log), "mean"), by(WELCH, reduced(exposures, outcomes))
    assert_same_difference(ours, theirs)
    assert ours.p_value == same(theirs.pvalue)
    # the interval of the lift takes another number of degrees of freedom there
    assert ours.lift_ci_low == pytest.approx(theirs.rel_effect_size_ci_lower, abs=1e-3)


@pytest.mark.parametrize("seed", range(2))
def test_phases_are_tested_each_alone_and_lie_around_their_mean(
    make_people, make_log, make_frames, seed
):
    ramp = make_people(400, 60, prefix="a", seed=seed), make_people(
        250, 250, rate=0.6, phase=2, from_day=7, prefix="b", seed=seed + 50
    )  # fmt: skip
    exposures, outcomes = make_frames(pd.concat(ramp, ignore_index=True), seed=seed)
    users, cells = reduced(exposures, outcomes), cells_of(make_log(exposures, outcomes))
    theirs = [by(RATE, users[users["phase"] == phase]) for phase in (1, 2)]
    for phase, one in enumerate(theirs, 1):
        assert_same_difference(effect(cells[cells["phase"] == phase], "rate"), one)
    # tea-tasting knows no phases: pooled over a ramp its difference mixes the split with the calendar
    apart = sorted(one.effect_size for one in theirs)
    assert apart[0] <= effect(cells, "rate").estimate <= apart[1]
    assert not apart[0] <= by(RATE, users).effect_size <= apart[1]


def before_of(users, seed):
    """What users did before: as lively as they are later."""
    noise = np.random.default_rng(seed).normal(0, 1, len(users))
    return users.assign(before=users["x"] + noise)


def cuped_of(log, users):
    before = users["before"].rename("value").reset_index()
    return effect(cells_of(log, before=before), "cuped")


@pytest.mark.parametrize("seed", range(2))
def test_cuped_with_a_covariate_centred_in_each_variant(random_log, seed):
    # Centred so, both take the slope within the variants; unequal means of the covariate move their slope (next test).
    log, exposures, outcomes = random_log(seed)
    users = before_of(reduced(exposures, outcomes), seed)
    middle = users.groupby("variant")["before"].transform("mean")
    users = users.assign(before=users["before"] - middle)
    ours, theirs = cuped_of(log, users), by(CUPED, users)
    assert_same_difference(ours, theirs)
    assert ours.p_value == same(theirs.pvalue)
    assert ours.se < 0.95 * effect(cells_of(log), "mean").se


@pytest.mark.parametrize("seed", range(2))
def test_cuped_as_drawn_differs_by_the_slope_between_variants_alone(random_log, seed):
    log, exposures, outcomes = random_log(seed)
    users = before_of(reduced(exposures, outcomes), seed)
    ours, theirs = cuped_of(log, users), by(CUPED, users)
    assert ours.estimate == pytest.approx(theirs.effect_size, abs=0.05 * ours.se)
    assert ours.estimate / ours.se == pytest.approx(theirs.statistic, abs=0.05)
    # y - slope x, with the slope within the variants: the kit's adjusted means, by Welch's test of theirs
    middle = users.groupby("variant")[["before", "y"]].transform("mean")
    x, y = (users[name] - middle[name] for name in ("before", "y"))
    adjusted = users.assign(y=users["y"] - (x @ y) / (x @ x) * users["before"])
    plain = by(WELCH, adjusted)
    assert (ours.estimate, ours.p_value) == same((plain.effect_size, plain.pvalue))
