"""One reading: the numbers, and what it refuses to show."""

import json
import math
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalkit import show
from evalkit.abtest.lock import read_looks
from evalkit.abtest.plan import Guardrail, Metric
from evalkit.abtest.reading import read_ab_test
from evalkit.errors import DataError
from evalkit.show import abtest as words
from evalkit.show import effect
from evalkit.show.abtest import notes as told_of
from evalkit.show.lacking import in_words
from evalkit.stats import combine_phases, ratio_test

DAY = 86400.0
START = 20_000 * DAY


def frames_of(table):
    """(user, variant, requests, successes) as exposures and outcomes, all on the first day."""
    exposures, outcomes = [], []
    for user, variant, n, k in table:
        for i in range(n):
            request = f"{user}-{i}"
            exposures.append(
                {
                    "request_id": request,
                    "user_id": user,
                    "variant": variant,
                    "at_s": START + 60 + i,
                    "phase": 1,
                }
            )
            outcomes.append(
                {
                    "request_id": request,
                    "user_id": user,
                    "metric": "accepted",
                    "value": float(i < k),
                    "at_s": START + 100 + i,
                }
            )
    return pd.DataFrame(exposures), pd.DataFrame(outcomes)


def test_a_hand_worked_ratio(make_log, locked, later):
    # control: requests 4 1 3 2, accepted 1 0 2 1: 4/10 = 0.4; treatment: 2 2 4 1, accepted 2 1 3 1: 7/9
    control, treatment = ([4, 1, 3, 2], [1, 0, 2, 1]), ([2, 2, 4, 1], [2, 1, 3, 1])
    table = [(f"c{i}", "control", n, k) for i, (n, k) in enumerate(zip(*control, strict=True))]
    table += [(f"t{i}", "treatment", n, k) for i, (n, k) in enumerate(zip(*treatment, strict=True))]
    plan = locked(min_samples=4, expected=0.05, difference=0.94)
    assert plan.n_control == 4
    test = read_ab_test(make_log(*frames_of(table)), plan, now=later).findings.primary
    assert (test.control_rate, test.treatment_rate) == (0.4, 7 / 9)
    # residuals y - 0.4 x: -0.6 -0.4 0.8 0.2, squares 1.2; se^2 = 4 * 1.2 / 3 / 10^2 = 0.016; the treatment's likewise
    residuals = [y - 7 / 9 * x for x, y in zip(*treatment, strict=True)]
    assert test.se == pytest.approx(
        math.sqrt(0.016 + 4 / 3 * sum(r * r for r in residuals) / 81), rel=1e-12
    )
    assert (test.n, test.estimate) == (8, pytest.approx(7 / 9 - 0.4))


def test_the_articles_numbers(make_log, locked, later):
    table = [(f"c{i}", "control", 1, i < 300) for i in range(1000)]
    table += [(f"t{i}", "treatment", 1, i < 345) for i in range(1000)]
    found = read_ab_test(make_log(*frames_of(table)), locked(min_samples=1000), now=later)
    pooled = 645 / 2000
    z = (0.345 - 0.300) / math.sqrt(pooled * (1 - pooled) * (2 / 1000))
    article = found.findings.article
    assert article.z_score == pytest.approx(z, abs=1e-9)
    assert article.p_value == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), abs=1e-9)
    assert (article.control_rate, article.treatment_rate) == pytest.approx((0.3, 0.345), abs=1e-9)
    assert article.lift == pytest.approx(0.15, abs=1e-9)
    # one request a user: by user and by request differ by n / (n - 1) only
    assert found.findings.design_effect == pytest.approx(1000 / 999, rel=1e-9)
    assert found.verdict == "better"


def test_users_in_both_variants_count_where_first_seen(
    make_log, make_people, make_frames, locked, later
):
    exposures, outcomes = make_frames(make_people(150, 150))
    late = (
        exposures[exposures["user_id"] == "u0"]
        .iloc[[0]]
        .assign(request_id="x", variant="treatment")
    )
    late["at_s"] += 1000.0
    found = read_ab_test(make_log(pd.concat([exposures, late]), outcomes), locked(), now=later)
    assert found.n_mixed == 1
    assert (found.sample_ratio[0].n_control, found.sample_ratio[0].n_treatment) == (150, 150)
    assert "1 user of 300 seen in both variants" in show.log_notes(found).text


def test_only_outcomes_within_the_users_window_count(make_log, locked, later):
    table = [(f"c{i}", "control", 1, 0) for i in range(4)] + [
        (f"t{i}", "treatment", 1, 0) for i in range(4)
    ]
    exposures, base = frames_of(table)
    # the window is two days: one outcome inside, one a second after it, one before the first exposure
    inside = base.iloc[[4]].assign(value=1.0, at_s=START + 60 + 2 * DAY - 1)
    outside = base.iloc[[5]].assign(value=1.0, at_s=START + 60 + 2 * DAY)
    before = base.iloc[[6]].assign(value=1.0, at_s=START)
    log = make_log(exposures, pd.concat([base, inside, outside, before]))
    test = read_ab_test(
        log, locked(min_samples=4, expected=0.05, difference=0.94), now=later
    ).findings.primary
    assert (test.control_rate, test.treatment_rate) == (0.0, 0.25)


def test_phases_are_kept_apart_and_combined_by_inverse_variance(
    make_log, make_people, make_frames, locked, later
):
    one = make_people(900, 100, rate=0.3, prefix="a", seed=2)
    two = make_people(500, 500, rate=0.5, prefix="b", phase=2, from_day=7, seed=3)
    exposures, outcomes = make_frames(pd.concat([one, two], ignore_index=True))
    plan = locked(traffic_split=0.1, ramp=0.5, outcome_window_days=7, min_samples=500)
    found = read_ab_test(make_log(exposures, outcomes), plan, now=later)
    assert [(part.phase, part.test.verdict) for part in found.sample_ratio] == [
        (1, "no difference shown"),
        (2, "no difference shown"),
    ]
    tests = []
    sums = outcomes.groupby("user_id")["value"].agg(["size", "sum"])
    kept = found.schedule.due[-1].day - 20_000
    for people in (one, two[two["day"] <= kept]):
        arms = [
            sums.loc[people.loc[people["variant"] == arm, "user_id"]]
            for arm in ("control", "treatment")
        ]
        tests.append(ratio_test(*((arm["size"], arm["sum"]) for arm in arms)))
    expected = combine_phases(tests)
    assert found.findings.primary.estimate == pytest.approx(expected.estimate, abs=1e-12)
    assert found.findings.primary.se == pytest.approx(expected.se, rel=1e-9)
    assert found.findings.article is None


def everything_said(found):
    """All that a report would show of a reading."""
    said = [
        effect.answer_said(found),
        effect.headline(found),
        effect.alt(found),
        effect.article_said(found),
        effect.slices_said(found),
    ]
    tables = [
        words.watched_rows(found),
        effect.part_rows(found, "by_slice"),
        effect.part_rows(found, "by_day"),
        show.sample_ratio(found).text,
    ]
    return json.dumps([found.to_dict(), found.primary_dict(), said, tables], allow_nan=False)


@pytest.mark.parametrize("state", ["too early", "invalid"])
def test_a_withheld_effect_stands_nowhere(state, make_log, make_people, make_frames, locked, later):
    n = (150, 150) if state == "too early" else (150, 300)
    exposures, outcomes = make_frames(make_people(*n))
    reversed_ = outcomes.assign(value=1 - outcomes["value"])
    plan = locked(min_samples=5000 if state == "too early" else 100)
    said = [
        everything_said(read_ab_test(make_log(exposures, one), plan, now=later))
        for one in (outcomes, reversed_)
    ]
    # other outcomes, the same words and numbers: nothing shown depends on an outcome
    assert said[0] == said[1]
    assert f'"verdict": "{state}"' in said[0]
    assert "findings" not in json.loads(said[0])[0]


def test_too_early_names_users_and_days(make_log, make_people, make_frames, locked, later):
    found = read_ab_test(
        make_log(*make_frames(make_people(150, 150))), locked(min_samples=500), now=later
    )
    assert found.primary_dict() == {"verdict": "too early", "n": 300}
    # 350 a variant are missing, 700 in all; 300 users came in 7 days, without the last 43 a day: 17 days and the window
    assert in_words(found.missing[0]).price == "700 more users, about 19 days"


def test_a_broken_split_is_invalid_and_names_causes(
    make_log, make_people, make_frames, locked, later
):
    found = read_ab_test(make_log(*make_frames(make_people(1000, 1200))), locked(), now=later)
    # chi-square = 100^2 / 1100 * 2 = 18.18, p = 2e-5
    assert found.sample_ratio[0].test.statistic == pytest.approx(18.1818, abs=1e-4)
    assert (found.verdict, found.findings) == ("invalid", None)
    assert "bots on one side" in show.sample_ratio(found).text
    assert found.primary_dict() == {"verdict": "invalid", "n": 2200}


def test_reading_again_later_shows_the_same(make_log, make_people, make_frames, locked, later):
    exposures, outcomes = make_frames(make_people(400, 400, days=14, lift=0.05))
    plan, log = locked(min_samples=200), make_log(exposures, outcomes)
    first = read_ab_test(log, plan, now=START + 12 * DAY)
    assert first.findings.primary.n < 800
    assert first.findings.primary == read_ab_test(log, plan, now=later).findings.primary


def test_the_days_users_wait_for_their_window(make_log, make_people, make_frames, locked):
    log, plan = make_log(*make_frames(make_people(150, 150))), locked()
    # users of the seventh day close with the ninth: at its last second they do not count yet
    assert read_ab_test(log, plan, now=START + 9 * DAY - 1).schedule.closed_control < 150
    assert read_ab_test(log, plan, now=START + 9 * DAY).schedule.closed_control == 150


def test_the_first_look_that_leaves_the_limits_decides(
    make_log, make_people, make_frames, locked, later
):
    log = make_log(*make_frames(make_people(400, 400, days=8, lift=0.35)))
    found = read_ab_test(log, locked(looks=4, min_samples=400), now=later)
    primary = found.findings.primary
    assert [one.look for one in found.findings.looks] == [1, 2, 3, 4]
    assert (primary.look, primary.verdict, primary.p_value) == (1, "better", None)
    # a quarter of the information: sqrt(1/4) of the way to the end costs 4.33
    assert primary.bound == pytest.approx(4.333, abs=0.001)
    assert primary.ci_low == pytest.approx(primary.estimate - primary.bound * primary.se)


def test_a_sequential_test_in_between_is_too_early_with_its_interval(
    make_log, make_people, make_frames, locked, later
):
    found = read_ab_test(
        make_log(*make_frames(make_people(110, 110))), locked(looks=2, min_samples=200), now=later
    )
    assert (found.verdict, found.findings.primary.look) == ("too early", 1)
    assert found.findings.primary.ci_low < found.findings.primary.ci_high
    assert in_words(found.missing[0]).action == "More users, for look 2 of 2"


def test_a_worse_treatment_is_worse(make_log, make_people, make_frames, locked, later):
    found = read_ab_test(
        make_log(*make_frames(make_people(400, 400, rate=0.5, lift=-0.2))), locked(), now=later
    )
    assert found.verdict == "worse"
    assert found.findings.article.significant
    assert "lower in treatment" in effect.headline(found)


def test_no_variance_gives_none_not_a_verdict(make_log, locked, later):
    table = [(f"c{i}", "control", 2, 0) for i in range(50)] + [
        (f"t{i}", "treatment", 2, 0) for i in range(50)
    ]
    found = read_ab_test(make_log(*frames_of(table)), locked(min_samples=50), now=later)
    assert (found.verdict, found.findings.primary.p_value) == ("no difference shown", None)
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_a_mean_counts_users_without_an_outcome_as_zero(make_log, locked, later):
    table = [(f"c{i}", "control", 1, 0) for i in range(4)] + [
        (f"t{i}", "treatment", 1, 0) for i in range(4)
    ]
    exposures, _ = frames_of(table)
    spent = [("c0", 2.0), ("c0", 4.0), ("t0", 3.0), ("t1", 5.0), ("t2", 4.0)]
    outcomes = pd.DataFrame([
        {"request_id": None, "user_id": user, "metric": "spent", "value": value, "at_s": START + 500} for user, value in spent
    ])  # fmt: skip
    plan = locked(kind="mean", name="spent", sd=0.1, expected=None, difference=1.0, min_samples=4)
    test = read_ab_test(make_log(exposures, outcomes), plan, now=later).findings.primary
    # control (6 + 0 + 0 + 0) / 4, treatment (3 + 5 + 4 + 0) / 4
    assert (test.control_rate, test.treatment_rate, test.shown_in()) == (1.5, 3.0, "number")


def test_cuped_is_the_regression_on_what_users_did_before(make_log, locked, later):
    import statsmodels.formula.api as smf

    rng = np.random.default_rng(4)
    x = rng.normal(10, 2, 400)
    data = pd.DataFrame(
        {"t": np.arange(400) >= 200, "x": x, "y": x + rng.normal(0, 1, 400)}
    ).assign(xc=x - x.mean())
    users = [f"u{i}" for i in range(400)]
    exposures = pd.DataFrame(
        {"user_id": users, "variant": np.where(data["t"], "treatment", "control"), "at_s": START}
    )
    outcomes = pd.DataFrame(
        {"user_id": users, "metric": "spent", "value": data["y"], "at_s": START + 60}
    )
    earlier = outcomes.assign(value=x, at_s=START - 60)
    before = make_log(exposures, earlier).outcomes.select("user_id", "value", "at_s")
    plan = locked(kind="mean", name="spent", sd=1.0, expected=None, difference=1.0, min_samples=200)
    found = read_ab_test(make_log(exposures, outcomes), plan, now=later, before=before).findings
    fit = smf.ols("y ~ t + xc", data.astype(float)).fit(cov_type="HC1")
    assert found.cuped.estimate == pytest.approx(fit.params["t"], abs=1e-9)
    assert found.cuped.se == pytest.approx(fit.bse["t"], rel=0.01)
    assert found.cuped.se < found.primary.se / 1.8


def test_guardrails_hold_fail_or_wait(make_log, make_people, make_frames, locked, later):
    exposures, outcomes = make_frames(make_people(500, 500, requests=3))
    treated = (exposures["variant"] == "treatment").to_numpy()
    exposures["latency_ms"] += 400.0 * treated
    exposures.loc[np.flatnonzero(treated)[::10], "outcome"] = "refused"
    flags = outcomes.assign(metric="flagged", value=0.0, outcome_id="f" + outcomes["outcome_id"])
    rails = (
        Guardrail(name="error", margin=0.01),
        Guardrail(name="refused", margin=0.02),
        Guardrail(name="latency_ms", kind="p95", margin=50),
        Guardrail(name="flagged", margin=0.02),
        Guardrail(name="never", margin=0.02),
    )
    log = make_log(exposures, pd.concat([outcomes, flags]))
    found = {
        one.name: one
        for one in read_ab_test(
            log, locked(guardrails=rails, min_samples=500), now=later
        ).guardrails
    }
    assert {name: one.verdict for name, one in found.items()} == {
        "error": "not worse",  # none at all in some 3,000 requests
        "refused": "worse",  # 10 points, margin 2
        "latency_ms": "worse",  # 400 ms, margin 50
        "flagged": "not worse",
        "never": "too early",  # nothing was recorded, which is not the same as 0
    }
    assert found["refused"].change.estimate == pytest.approx(0.1, abs=0.001)


def test_p95_latency_is_as_from_the_requests_themselves(
    make_log, make_people, make_frames, locked, later
):
    from evalkit.stats import quantile_by_user

    exposures, outcomes = make_frames(make_people(400, 400, requests=3))
    arms = [exposures[exposures["variant"] == arm] for arm in ("control", "treatment")]
    whole = quantile_by_user(*((arm["user_id"], arm["latency_ms"]) for arm in arms))
    health = {
        one.name: one.change
        for one in read_ab_test(make_log(exposures, outcomes), locked(), now=later).health
    }
    found = health["latency_ms"]
    assert (found.control_rate, found.treatment_rate) == pytest.approx(
        (whole.control, whole.treatment), rel=0.002
    )
    assert (found.ci_low, found.ci_high) == pytest.approx(
        (whole.ci_low, whole.ci_high), abs=3.0
    )  # ms, of 380


def test_slices_and_days_add_up(make_log, make_people, make_frames, locked, later):
    exposures, outcomes = make_frames(make_people(700, 700))
    found = read_ab_test(make_log(exposures, outcomes), locked(min_samples=700), now=later).findings
    joined = exposures.merge(outcomes[["request_id", "value"]])
    short = joined[joined["slice"] == "short"].groupby("variant")["value"].mean()
    row = next(one for one in found.by_slice if one["name"] == "short")
    assert (row["control_rate"], row["treatment_rate"]) == pytest.approx(
        (short["control"], short["treatment"]), abs=1e-12
    )
    assert sum(one["n"] for one in found.by_day) == 1400
    assert all(one["p_adjusted"] >= one["p_value"] for one in (*found.by_day, *found.by_slice))


@pytest.mark.parametrize("lost", ["the column", "one request"])
def test_outcomes_whose_slice_is_not_known_show_no_slices(
    lost, make_log, make_people, make_frames, locked, later
):
    exposures, outcomes = make_frames(make_people(200, 200))
    outcomes.loc[3, "request_id"] = None
    outcomes = outcomes.drop(columns="request_id") if lost == "the column" else outcomes
    log, plan = make_log(exposures, outcomes), locked(min_samples=200)
    found = read_ab_test(log, plan, now=later)
    assert found.findings.by_slice == ()
    n = len(outcomes) if lost == "the column" else 1
    assert not any(
        "no slices" in note for note in told_of(read_ab_test(log, plan, now=later, slices=False))
    )
    assert any(f"no slices are shown: {n} outcome" in note for note in told_of(found))


def test_a_rate_far_from_the_planned_one_is_told(make_log, make_people, make_frames, locked, later):
    frames, told = make_frames(make_people(150, 150)), "where the plan expected"
    for expected, notes in ((0.3, 0), (0.6, 1)):
        found = read_ab_test(
            make_log(*frames), locked(expected=expected, difference=0.3), now=later
        )
        assert sum(told in note for note in told_of(found)) == notes
    withheld = read_ab_test(
        make_log(*frames), locked(expected=0.6, difference=0.3, min_samples=500), now=later
    )
    assert not any(told in note for note in told_of(withheld))


@pytest.mark.parametrize(("simulated", "told"), [(False, 1), (True, 0)])
def test_a_plan_locked_after_users_had_come_is_told(
    simulated, told, make_log, make_people, make_frames, locked, later
):
    exposures, outcomes = (
        one.assign(at_s=one["at_s"] - 3 * 86400.0) for one in make_frames(make_people(150, 150))
    )
    found = read_ab_test(make_log(exposures, outcomes, simulated=simulated), locked(), now=later)
    assert sum("after users had come" in note for note in told_of(found)) == told


def test_secondary_metrics_get_holm(make_log, make_people, make_frames, locked, later):
    exposures, outcomes = make_frames(make_people(300, 300))
    more = [
        outcomes.assign(metric=name, outcome_id=name + outcomes["outcome_id"])
        for name in ("kept", "shared")
    ]
    others = tuple(
        Metric(name=name, expected=0.3, detectable_difference=0.1) for name in ("kept", "shared")
    )
    log, plan = make_log(exposures, pd.concat([outcomes, *more])), locked(secondary=others)
    found = read_ab_test(log, plan, now=later).findings.secondary
    assert [one["p_adjusted"] for one in found] == [min(1.0, 2 * one["p_value"]) for one in found]


@given(seed=st.integers(0, 1000))
@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_row_order_does_not_matter(seed, make_log, make_people, make_frames, locked, later):
    exposures, outcomes = make_frames(make_people(120, 120))
    plan, options = locked(), {"now": later, "slices": False}
    first = read_ab_test(make_log(exposures, outcomes), plan, **options).findings.primary
    shuffled = make_log(
        exposures.sample(frac=1, random_state=seed), outcomes.sample(frac=1, random_state=seed + 1)
    )
    again = read_ab_test(shuffled, plan, **options).findings.primary
    assert (again.estimate, again.se, again.n) == pytest.approx(
        (first.estimate, first.se, first.n), rel=1e-12
    )


def test_each_look_goes_to_the_ledger(make_log, make_people, make_frames, locked, later, tmp_path):
    log, ledger = make_log(*make_frames(make_people(150, 150))), tmp_path / "ledger.jsonl"
    for min_samples in (150, 500):
        read_ab_test(log, locked(min_samples=min_samples), now=later, ledger=ledger, run="night")
    looks = read_looks(ledger)
    assert [(one.look, one.effect_shown, one.verdict) for one in looks][1] == (
        None,
        False,
        "too early",
    )
    assert (looks[0].look, looks[0].effect_shown, looks[0].n_control, looks[0].run) == (
        1,
        True,
        150,
        "night",
    )


def test_an_aware_time_is_as_good_as_seconds(make_log, make_people, make_frames, locked, later):
    log, plan = make_log(*make_frames(make_people(150, 150))), locked()
    by_date = read_ab_test(log, plan, now=datetime.fromtimestamp(later, UTC))
    assert by_date.read_at == read_ab_test(log, plan, now=later).read_at


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda e, o: (e.assign(variant="B"), o), "a variant other than control and treatment"),
        (lambda e, o: (e.assign(phase=3), o), "the plan knows \\[1\\]"),
        (lambda e, o: (e.drop(columns="at_s"), o), "exposures lacks the columns at_s"),
        (lambda e, o: (e, o.assign(metric="other")), "no outcome 'accepted'"),
        (
            lambda e, o: (e.assign(user_id=e["user_id"].where(e["user_id"] != "u1")), o),
            "no user_id",
        ),
    ],
)
def test_a_log_that_cannot_be_read_says_why(
    spoil, said, make_log, make_people, make_frames, locked, later
):
    log = make_log(*spoil(*make_frames(make_people(150, 150))))
    with pytest.raises(DataError, match=said):
        read_ab_test(log, locked(), now=later)


def test_an_empty_log_is_too_early(make_log, make_people, make_frames, locked, later):
    exposures, outcomes = make_frames(make_people(150, 150))
    found = read_ab_test(
        make_log(exposures.assign(experiment="another"), outcomes), locked(), now=later
    )
    assert (found.verdict, found.n_users) == ("too early", 0)
    assert "the log has no users" in told_of(found)[0]
