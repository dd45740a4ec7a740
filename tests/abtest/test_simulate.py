import pandas as pd
import pytest

from evalkit.abtest.assignment import ABTestConfig, assign_variant
from evalkit.abtest.experiment import Behaviour, RecordedClient, simulate_traffic
from evalkit.abtest.log import OUTCOMES, EventLog
from evalkit.abtest.routing import Exposure
from evalkit.errors import DesignError, ModelError
from evalkit.records import EvalResult

CONFIG = ABTestConfig("demo", "base", "tuned", 0.5)


def results(every, latency_ms, **changes):
    """60 recorded answers, every n-th of them right; the last one is a failed call."""
    some = [
        EvalResult(n, f"note {n}", "right", "right" if n % every == 0 else "wrong", n % every == 0, True,
                   latency_ms=latency_ms, prompt_tokens=9, slices={"kind": "two" if n % 3 else "single"})
        for n in range(59)
    ]  # fmt: skip
    return [
        *some,
        EvalResult(
            59, "note 59", "right", "", False, False, outcome="error", error="500", **changes
        ),
    ]


BASE, TUNED = results(10, 200.0), results(2, 150.0)


@pytest.fixture
def log(tmp_path):
    log = EventLog(tmp_path / "events.sqlite")
    yield log
    log.close()


def simulate(log, config=CONFIG, *, n_users=600, **options):
    return simulate_traffic(
        log, config, BASE, TUNED, n_users=n_users, start_at_s=1_790_000_000.0, **options
    )


def tables(log):
    seen, came = pd.DataFrame(log.rows()), pd.DataFrame(log.rows(OUTCOMES))
    return (
        seen,
        came,
        came.merge(
            seen[["request_id", "variant", "at_s"]], on="request_id", suffixes=("", "_seen")
        ),
    )


def test_the_traffic_is_the_routers_and_says_that_it_is_simulated(log):
    traffic = simulate(log, slice_field="kind")
    seen, came, both = tables(log)
    assert log.meta()["simulated"] == "1"
    assert (traffic.n_requests, traffic.n_users, traffic.added) == (
        len(seen),
        seen["user_id"].nunique(),
        True,
    )
    assert (seen["variant"] == [assign_variant(user, CONFIG) for user in seen["user_id"]]).all()
    assert set(seen["slice"].dropna()) == {"single", "two"}
    assert set(came["value"]) == {0.0, 1.0}
    assert (both["at_s"] > both["at_s_seen"]).all()  # an outcome follows its answer


def test_users_come_back_for_days_and_within_the_time(log):
    simulate(log)
    seen, _, _ = tables(log)
    by_user = seen.groupby("user_id")["at_s"].agg(["count", "min", "max"])
    assert 1.7 < by_user["count"].mean() < 2.4
    assert ((by_user["max"] - by_user["min"]) > 86400).mean() > 0.2
    assert seen["at_s"].between(1_790_000_000.0, 1_790_000_000.0 + 28 * 86400).all()
    assert seen["at_s"].is_monotonic_increasing


def test_right_answers_are_accepted_more_often_so_the_better_model_wins(log):
    simulate(
        log, n_users=3000, behaviour=Behaviour(accept_right=0.9, accept_wrong=0.2, user_sd=0.0)
    )
    _, _, both = tables(log)
    rates = both.groupby("variant")["value"].mean()
    # base: 6 of 59 right -> .2 + .7 * 6/59 = .271; tuned: 30 of 59 -> .2 + .7 * 30/59 = .556; se about .01
    assert rates["control"] == pytest.approx(0.271, abs=0.04)
    assert rates["treatment"] == pytest.approx(0.556, abs=0.04)


def test_latencies_and_failures_are_the_recorded_ones(log):
    simulate(log)
    seen, came, _ = tables(log)
    fine = seen[seen["outcome"] == "ok"]
    assert fine.groupby("variant")["latency_ms"].mean().round(6).to_dict() == {
        "control": 200.0,
        "treatment": 150.0,
    }
    failed = seen[seen["outcome"] == "error"]
    assert 0 < len(failed) < len(seen) / 20  # note 59 is one of 60
    assert not set(failed["request_id"]) & set(came["request_id"])


def test_the_second_night_adds_nothing(log):
    first = simulate(log)
    rows = list(log.rows()), list(log.rows(OUTCOMES))
    again = simulate(log)
    assert (again.added, again.n_requests, again.n_users) == (
        False,
        first.n_requests,
        first.n_users,
    )
    assert (list(log.rows()), list(log.rows(OUTCOMES))) == rows


def test_the_same_seed_gives_the_same_traffic_and_another_seed_another(log, tmp_path):
    simulate(log)
    twin, other = EventLog(tmp_path / "twin.sqlite"), EventLog(tmp_path / "other.sqlite")
    simulate(twin)
    simulate(other, seed=1)
    assert list(twin.rows()) == list(log.rows())
    assert [row["at_s"] for row in other.rows()] != [row["at_s"] for row in log.rows()]
    twin.close()
    other.close()


def test_a_simulation_that_broke_off_is_finished_and_counts_nothing_twice(log, tmp_path):
    class Stops(EventLog):
        def record_outcomes(self, rows):
            raise KeyboardInterrupt

    broken = Stops(tmp_path / "broken.sqlite")
    with pytest.raises(KeyboardInterrupt):
        simulate(broken)
    broken.close()
    mended = EventLog(tmp_path / "broken.sqlite")
    assert mended.count() > 0
    assert simulate(mended).added
    simulate(log)
    assert (list(mended.rows()), mended.count(OUTCOMES)) == (list(log.rows()), log.count(OUTCOMES))
    mended.close()


def test_real_users_and_another_simulation_are_left_alone(log, tmp_path):
    simulate(log)
    with pytest.raises(
        DesignError, match=r"holds another simulation of 'demo'.*another experiment_name"
    ):
        simulate(log, n_users=601)
    real = EventLog(tmp_path / "real.sqlite")
    real.record_exposure(
        Exposure(
            request_id="r",
            experiment="x",
            user_id="ann",
            variant="control",
            model="base",
            at_s=1.0,
            latency_ms=1.0,
        )
    )
    with pytest.raises(DesignError, match="holds real users"):
        simulate(real)
    assert (real.count(), real.meta()) == (1, {})
    real.close()


def test_users_whom_somebody_else_assigns_are_not_simulated(log):
    with pytest.raises(DesignError, match="somebody else assigns"):
        simulate(log, ABTestConfig("demo", "base", "tuned", 0.5, hash="external"))
    assert (log.count(), log.meta()) == (0, {})


def test_users_outside_an_experiments_coverage_leave_no_trace(log):
    simulate(log, ABTestConfig("demo", "base", "tuned", 0.5, hash="growthbook", coverage=0.5))
    seen, came, _ = tables(log)
    assert abs(seen["user_id"].nunique() - 300) < 4 * 150**0.5  # half of 600
    assert set(came["user_id"]) <= set(seen["user_id"])


def test_two_experiments_may_share_a_simulated_log(log):
    simulate(log)
    traffic = simulate(log, ABTestConfig("second", "base", "tuned", 0.2))
    assert traffic.added
    assert log.count() == 2 * traffic.n_requests


def test_the_recorded_client_says_what_was_recorded():
    client = RecordedClient({"base": BASE})
    reply = client.chat.completions.create(
        model="base", messages=[{"role": "user", "content": "note 0"}], temperature=0.0
    )
    assert reply.choices[0].message.content == "right"
    assert client.clock() == 0.2
    with pytest.raises(ModelError, match="500"):
        client.chat.completions.create(
            model="base", messages=[{"role": "user", "content": "note 59"}], temperature=0.0
        )


SHOWS = {
    "broken_split": ("invalid", None),
    "nothing": (None, "no difference shown"),
    "better": (None, "better"),
    "worse": (None, "worse"),
}


@pytest.mark.parametrize(("name", "shows"), SHOWS.items())
def test_the_small_logs_are_in_the_state_their_name_says(scenario_log, name, shows):
    from evalkit.stats import ratio_test, sample_ratio_test

    log = EventLog(scenario_log(name))
    seen, came, _ = tables(log)
    log.close()
    first = seen.groupby("user_id")["variant"].first()
    control, treatment = (first[first == variant].index for variant in ("control", "treatment"))
    split = sample_ratio_test([len(control), len(treatment)], [0.5, 0.5])
    assert (split.verdict == "invalid") == (shows[0] == "invalid")
    if shows[1]:
        sums = came.groupby("user_id")["value"].agg(["count", "sum"])
        arms = [
            (sums.loc[users, "count"].to_numpy(), sums.loc[users, "sum"].to_numpy())
            for users in (control, treatment)
        ]
        assert ratio_test(*arms).verdict == shows[1]


def test_the_ramp_has_two_phases_and_an_effect_of_time_only(scenario_log):
    log = EventLog(scenario_log("ramp"))
    seen, _, both = tables(log)
    log.close()
    first = seen.groupby("user_id")[["phase", "variant"]].first()
    shares = (first["variant"] == "treatment").groupby(first["phase"]).mean()
    assert shares.to_dict() == pytest.approx({1: 0.1, 2: 0.5}, abs=0.03)
    both = both.merge(seen[["request_id", "phase"]], on="request_id")
    rates = both.groupby(["phase", "variant"])["value"].mean()
    assert rates[1].diff().iloc[1] == pytest.approx(0, abs=0.05)
    assert rates[2].diff().iloc[1] == pytest.approx(0, abs=0.05)
    pooled = both.groupby("variant")["value"].mean()
    assert (
        pooled["treatment"] - pooled["control"] > 0.02
    )  # pooled over the ramp, nothing looks like something


def test_the_other_small_logs(scenario_log):
    few, flat, numeric = (
        EventLog(scenario_log(name)) for name in ("too_early", "no_variance", "numeric")
    )
    assert len({row["user_id"] for row in few.rows()}) == 300
    assert {row["value"] for row in flat.rows(OUTCOMES)} == {0.0}
    assert pd.DataFrame(numeric.rows(OUTCOMES))["value"].mean() == pytest.approx(21, abs=1)
    for log in (few, flat, numeric):
        log.close()


@pytest.mark.slow
def test_when_both_models_are_the_same_the_whole_path_finds_a_difference_in_one_of_twenty(log):
    """300 A/A tests of 250 returning users; 5% +- 1.3%. The article's test per request, as a control, must be fooled."""
    from evalkit.stats import proportion_z_test, ratio_test

    often = Behaviour(requests_per_user=6.0, user_sd=0.2)
    p_by_user, p_by_request = [], []
    for run in range(300):
        config = ABTestConfig(f"run {run}", "base", "twin", 0.5)
        simulate_traffic(
            log, config, BASE, BASE, n_users=250, seed=run, start_at_s=1.0, behaviour=often
        )
    seen = pd.DataFrame(log.rows())[["request_id", "variant"]]
    came = pd.DataFrame(log.rows(OUTCOMES)).merge(seen, on="request_id")
    sums = came.groupby(["experiment", "variant", "user_id"])["value"].agg(["count", "sum"])
    for name in came["experiment"].unique():
        arms = [sums.loc[name, variant].to_numpy().T for variant in ("control", "treatment")]
        p_by_user.append(ratio_test(*arms).p_value)
        counts = [int(number) for n, successes in arms for number in (successes.sum(), n.sum())]
        p_by_request.append(proportion_z_test(*counts).p_value)
    assert 0.01 < sum(p < 0.05 for p in p_by_user) / 300 < 0.09
    assert sum(p < 0.05 for p in p_by_request) / 300 > 0.12
