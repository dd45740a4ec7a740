"""Nothing leaves an A/B log without a count: outcomes, users, stray rows, answers of another model; and the cause is right."""

import json

import ibis
import numpy as np
import pandas as pd
import pytest

from evalkit.abtest.analysis import Log, Users
from evalkit.abtest.reading import read_ab_test
from evalkit.errors import DataError
from evalkit.show import effect
from evalkit.show.abtest import notes as told_of

pytestmark = pytest.mark.slow  # a log is read in the engine for each case

HOUR, DAY = 3600.0, 86400.0
START = 20_000 * DAY


@pytest.fixture
def frames(make_people, make_frames):
    return make_frames(make_people(400, 400))


@pytest.fixture
def read(make_log, locked, later):
    def _read(exposures, outcomes, *, now=later, **options):
        plan = locked(**{"min_samples": 400, **options})
        return read_ab_test(make_log(exposures, outcomes), plan, now=now)

    return _read


def exponential(exposures, mean_h, seed=5):
    """One outcome a request, so many hours after it on average."""
    rng = np.random.default_rng(seed)
    at = exposures["at_s"].to_numpy() + rng.exponential(mean_h * HOUR, len(exposures))
    return pd.DataFrame({
        "outcome_id": [f"o{i}" for i in range(len(exposures))], "experiment": "exp",
        "request_id": exposures["request_id"], "user_id": exposures["user_id"], "metric": "accepted",
        "value": (rng.uniform(size=len(exposures)) < 0.3).astype(float), "at_s": at,
    })  # fmt: skip


def told(found):
    return " ".join(told_of(found))


def test_a_whole_log_has_nothing_to_tell(frames, read):
    found = read(*frames, outcome_window_days=7)
    tally = found.findings.outcomes
    assert (tally.n, tally.n_within, tally.cause) == (len(frames[1]), len(frames[1]), "")
    assert "do not count" not in told(found)
    assert json.dumps(found.to_dict()["findings"]["outcomes"])


@pytest.mark.parametrize(
    ("behind_h", "said"),
    [
        (5.0, "about 5 h"),
        (1.0, "about 1 h"),
        (11.0, "about 11 h"),
        (5.5, "about 5.5 h"),
    ],
)
def test_a_clock_that_is_behind_is_named_with_its_hours(behind_h, said, frames, read):
    exposures = frames[0]
    outcomes = exponential(exposures, 20)
    shifted = outcomes.assign(at_s=outcomes["at_s"] - behind_h * HOUR)
    found = read(exposures, shifted, outcome_window_days=14)
    tally = found.findings.outcomes
    first = exposures.groupby("user_id")["at_s"].min()
    early = (shifted["at_s"] < shifted["user_id"].map(first)).sum()
    assert (tally.n_before, tally.cause) == (early, "clock")
    assert f"{early:,} (" in told(found)
    assert f"likely behind by {said}" in told(found)
    assert "plan it as a mean" not in told(found)


def test_outcomes_of_every_kind_are_counted(frames, read):
    exposures, outcomes = frames
    extra = outcomes.iloc[[0] * 12].reset_index(drop=True)
    at = exposures["at_s"].iloc[0]  # the window is two days
    extra["at_s"] = [at - 1] * 3 + [at + 2 * DAY] * 4 + [np.nan] * 2 + [at] * 3
    extra.loc[9:, "user_id"] = "nobody"
    tally = read(exposures, pd.concat([outcomes, extra]), outcome_window_days=2).findings.outcomes
    n = (tally.n_before, tally.n_after, tally.n_untimed, tally.n_unknown)
    assert n == (3, 4, 2, 3)
    assert tally.n == tally.n_within + sum(n)
    assert tally.cause == ""  # 3 of some 1,600 need no cause


@pytest.mark.parametrize("with_requests", [True, False])
def test_ids_of_another_system_are_named_not_a_mean(with_requests, frames, read):
    exposures, outcomes = frames
    foreign = outcomes.index % 2 == 0
    outcomes = outcomes.assign(
        user_id=outcomes["user_id"].where(~foreign, "crm-" + outcomes["user_id"])
    )
    outcomes = outcomes if with_requests else outcomes.drop(columns="request_id")
    found = read(exposures, outcomes)
    assert found.findings.outcomes.n_unknown == foreign.sum()
    assert (
        "of users who were never exposed; their user ids are likely those of another system"
        in told(found)
    )
    assert "where the plan expected 30.0%" in told(found)
    assert "plan it as a mean" not in told(found)


def test_users_outside_the_test_are_counted_and_no_fault(frames, read):
    exposures, outcomes = frames
    others = outcomes.assign(user_id="else-" + outcomes["user_id"], request_id=None)
    found = read(exposures, pd.concat([outcomes, others]))
    assert (found.findings.outcomes.n_unknown, found.findings.outcomes.cause) == (len(others), "")
    assert "of users who were never exposed" in told(found)
    assert "another system" not in told(found)


def test_a_past_is_not_a_clock(frames, read):
    exposures, outcomes = frames
    rng = np.random.default_rng(1)
    past = outcomes.assign(
        request_id=None, at_s=outcomes["at_s"] - rng.uniform(2, 60, len(outcomes)) * DAY
    )
    found = read(exposures, pd.concat([outcomes, past]), outcome_window_days=7)
    assert found.findings.outcomes.cause == ""
    assert found.findings.outcomes.n_before > 0


def once_a_user(exposures, outcomes):
    """The rate is decided once for a user who comes often: recorded with the first request only."""
    return exposures, outcomes[~outcomes["user_id"].duplicated()]


def test_a_mean_is_advised_where_a_user_decides_once(make_people, make_frames, read):
    often = make_frames(make_people(400, 400, requests=4))
    assert "plan it as a mean" in told(read(*once_a_user(*often)))
    # as many outcomes as requests: another level, and no word of means
    low = read(*make_frames(make_people(400, 400, rate=0.15, requests=4)))
    assert "where the plan expected 30.0%" in told(low)
    assert "plan it as a mean" not in told(low)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda o: o.assign(at_s=o["at_s"] - 5 * DAY), r"before .*; the clock .* behind by about 120 h"),
        (lambda o: o.assign(user_id="crm-" + o["user_id"]), r"\(100.0%\) of users who were never .* another system"),
        (lambda o: o.assign(at_s=o["at_s"] * 1000), r"after the outcome window; outcomes\.at_s is likely in milliseconds"),
        (lambda o: o.assign(at_s=np.nan), r"\(100.0%\) without a time"),
        (lambda o: o.assign(at_s=o["at_s"] + 30 * DAY), r"\(100.0%\) after the outcome window$"),
    ],
)  # fmt: skip
def test_when_all_are_lost_the_cause_is_named_and_not_the_name(spoil, said, frames, read):
    with pytest.raises(DataError, match=said) as caught:
        read(frames[0], spoil(frames[1]))
    assert "under the plan's name" not in str(caught.value)


def test_another_name_is_told_with_the_names_that_are_there(frames, read):
    exposures, outcomes = frames
    other = pd.concat(
        [outcomes.assign(metric="Accepted"), outcomes.iloc[:7].assign(metric="clicked")]
    )
    said = rf"the log holds 'Accepted' \({len(outcomes):,}\) and 'clicked' \(7\); record it under the plan's name"
    with pytest.raises(DataError, match=said):
        read(exposures, other)


# --- users after the look that decides -----------------------------------------------------------------------------------


def test_users_after_the_deciding_look_are_counted_and_shown_beside(make_people, make_frames, read):
    users = make_people(800, 800, days=14, lift=0.1)
    exposures, outcomes = make_frames(users)
    found = read(exposures, outcomes)
    done = found.findings
    assert done.primary.n + done.n_later == 1600
    assert 0 < done.n_later < 900
    # over all: the plain difference of everybody, by user
    plan_of_all = read(exposures, outcomes, min_samples=800)
    assert done.over_all.estimate == pytest.approx(plan_of_all.findings.primary.estimate, abs=1e-12)
    assert done.over_all.n == 1600
    assert (
        f"{done.n_later} users of 1,600 came after this look and change nothing: over all 1,600"
        in effect.answer_said(found)
    )
    assert effect.later_said(plan_of_all) == ""
    # while windows are open, only those that have closed
    early = read(exposures, outcomes, now=START + 12 * DAY).findings
    assert early.primary == done.primary
    assert early.primary.n < early.over_all.n < 1600


def test_an_undecided_look_shows_nothing_of_later_users(make_people, make_frames, read):
    exposures, outcomes = make_frames(make_people(600, 600, days=14))
    options = {"looks": 2, "min_samples": 900}
    found = read(exposures, outcomes, **options)
    assert (found.verdict, found.findings.over_all) == ("too early", None)
    assert found.findings.n_later > 0
    last = exposures[
        exposures["at_s"] >= START + found.schedule.due[-1].day * DAY - 20_000 * DAY + DAY
    ]
    flipped = outcomes.assign(
        value=outcomes["value"].where(~outcomes["user_id"].isin(last_only(exposures, last)), 1.0)
    )
    again = read(exposures, flipped, **options)
    assert json.dumps(again.to_dict()) == json.dumps(found.to_dict())
    assert effect.later(again).text == effect.later(found).text


def last_only(exposures, late):
    """Users whose first exposure is late."""
    return set(late["user_id"]) - set(exposures.loc[~exposures.index.isin(late.index), "user_id"])


def test_bad_values_of_later_users_do_not_stop_what_is_decided(make_people, make_frames, read):
    exposures, outcomes = make_frames(make_people(800, 800, days=14))
    late = set(exposures.loc[exposures["at_s"] > START + 13 * DAY, "user_id"])
    late &= set(
        exposures.groupby("user_id")["at_s"].min().loc[lambda at: at > START + 13 * DAY].index
    )
    bad = outcomes.assign(value=outcomes["value"].where(~outcomes["user_id"].isin(late), np.inf))
    found, clean = read(exposures, bad), read(exposures, outcomes)
    assert found.findings.primary == clean.findings.primary
    assert found.findings.over_all is None


def test_a_ramp_says_its_direction_and_shows_the_last_phase(
    make_people, make_frames, make_log, locked, later
):
    # phase 1 at 10%: its control users get the new model from day 7 on, so their outcomes are lifted too
    one = make_people(900, 100, rate=0.3, lift=0.1, prefix="a", seed=2)
    one.loc[one["variant"] == "control", "rate"] += 0.05
    two = make_people(500, 500, rate=0.3, lift=0.1, prefix="b", phase=2, from_day=7, seed=3)
    exposures, outcomes = make_frames(pd.concat([one, two], ignore_index=True))
    plan = locked(traffic_split=0.1, ramp=0.5, outcome_window_days=2, min_samples=500)
    found = read_ab_test(make_log(exposures, outcomes), plan, now=later)
    done = found.findings
    kept = two[two["day"] <= found.schedule.due[-1].day - 20_000]  # those of the look that decides
    assert done.last_phase.n == len(kept)
    assert done.primary.estimate < done.last_phase.estimate
    alone = outcomes.merge(kept[["user_id", "variant"]])
    rates = alone.groupby("variant")["value"].mean()
    assert done.last_phase.estimate == pytest.approx(
        rates["treatment"] - rates["control"], abs=1e-12
    )
    assert "understated" in effect.ramp_said(found)
    assert (
        f"Over the {len(kept)} users of phase 2 alone the difference is +"
        in effect.later(found).text
    )


# --- exposures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["B", None, "Control ", "<b>"])
def test_a_handful_of_stray_rows_is_left_out_and_told(value, frames, read):
    exposures, outcomes = frames
    stray = exposures.iloc[:4].assign(variant=value, request_id=["x1", "x2", "x3", "x4"])
    found = read(pd.concat([exposures, stray]), outcomes)
    assert found.findings.primary == read(exposures, outcomes).findings.primary
    assert (found.n_users, found.n_requests) == (800, len(exposures))
    name = repr(value) if value else "none"
    rows = (
        f"4 of {len(exposures) + 4:,} (0.3%) rows are in neither of the two variants and left out"
    )
    assert f"{rows}: {name} (4)" in told(found)


def test_many_stray_rows_are_refused_with_their_names(frames, read):
    exposures, outcomes = frames
    spoilt = exposures["variant"].where(exposures.index % 20 != 0, "C")
    n = int((exposures.index % 20 == 0).sum())
    few = exposures["variant"].where(~exposures.index.isin([5, 9, 13]), "C")  # 3 of 160: a handful
    small = exposures.assign(variant=few)[
        exposures["user_id"].isin(exposures["user_id"].unique()[::10])
    ]
    read(
        small.assign(user_id=small["user_id"]),
        outcomes,
        min_samples=30,
        expected=0.05,
        difference=0.9,
    )
    with pytest.raises(DataError, match=rf"{n} of .* exposures .* 'C' \({n}\); name the variants"):
        read(exposures.assign(variant=spoilt), outcomes)


def with_models(exposures, share, *, seed=1):
    """Each variant's own model, but for a share of treatment's requests."""
    own = exposures["variant"].map({"control": "a", "treatment": "b"})
    swap = (exposures["variant"] == "treatment") & (
        np.random.default_rng(seed).uniform(size=len(own)) < share
    )
    return exposures.assign(model=own.where(~swap, "a")), int(swap.sum())


def test_answers_of_the_other_model_are_told(frames, read):
    exposures, outcomes = frames
    mixed, n = with_models(exposures, 0.2)
    found, treated = read(mixed, outcomes), int((mixed["variant"] == "treatment").sum())
    assert f"{n} of {treated} (" in told(found)
    assert (
        f"requests in treatment were not answered by the planned model, but by 'a' ({n})"
        in told(found)
    )
    assert "in control (" not in told(found)
    # a fallback is the router's own doing, and counts as a failed call
    fallen = read(
        mixed.assign(fallback=mixed["variant"].eq("treatment") & mixed["model"].eq("a")), outcomes
    )
    assert "not answered by" not in told(fallen)
    assert "not answered by" not in told(read(with_models(exposures, 0.0)[0], outcomes))


def test_a_third_model_among_the_planned_one_is_told_and_another_name_for_all_is_not(frames, read):
    exposures, outcomes = frames
    third = with_models(exposures, 0.0)[0]
    third.loc[third["variant"].eq("control") & (third.index % 3 == 0), "model"] = "old"
    assert "in control were not answered by the planned model, but by 'old'" in told(
        read(third, outcomes)
    )
    assert "not answered by" not in told(read(exposures.assign(model="gpt-x"), outcomes))
    assert "not answered by" not in told(read(exposures.drop(columns="model"), outcomes))


@pytest.mark.parametrize(
    "dialect", ["bigquery", "snowflake", "trino", "clickhouse", "postgres", "sqlite", "duckdb"]
)
def test_the_tallies_compile(dialect):
    kinds = {"user_id": "string", "at_s": "float64", "request_id": "string"}
    more = {"variant": "string", "model": "string", "fallback": "boolean"}
    numbers = dict.fromkeys(("n_rows", "phase", "treated", "day"), "int64")
    users = ibis.table({"user_id": "string", "first_at": "float64", **numbers}, name="users")
    log = Log(
        exposures=ibis.table(kinds | more, name="e"),
        outcomes=ibis.table(kinds | {"metric": "string", "value": "float64"}, name="o"),
    )
    asked = Users(log=log, experiment="exp", table=users, window_s=DAY)
    queries = (
        log.answered("exp"),
        log.recorded("exp"),
        asked.lags("accepted"),
        asked.known_by_request("accepted"),
        asked.cells_query("accepted"),
    )
    assert all("SELECT" in ibis.to_sql(query, dialect=dialect) for query in queries)


def test_tables_still_show(frames, read):
    assert effect.part_rows(read(*frames), "by_day")


# --- what users did before -----------------------------------------------------------------------------------------------


@pytest.fixture
def spending(make_log):
    """400 users whose spending follows what they spent before; times of the past relative to the first exposure."""
    rng = np.random.default_rng(4)
    x = rng.gamma(4, 3, 400)
    users = [f"u{i}" for i in range(400)]
    arm = np.where(np.arange(400) >= 200, "treatment", "control")
    exposures = pd.DataFrame({"user_id": users, "variant": arm, "at_s": START})
    now = pd.DataFrame({"user_id": users, "metric": "spent", "at_s": START + 60})
    now["value"] = x + rng.normal(0, 1, 400)
    past = pd.DataFrame({"user_id": users, "metric": "spent", "value": x / 2, "at_s": START - DAY})
    return exposures, now, pd.concat([past, past.assign(at_s=START - 9 * DAY)])


def test_the_plans_covariate_sharpens_a_mean(spending, make_log, locked, later):
    import statsmodels.formula.api as smf

    exposures, now, past = spending
    fields = {"kind": "mean", "name": "spent", "sd": 1.0, "expected": None, "difference": 1.0}
    plan = locked(**fields, min_samples=200, covariate="spent", outcome_window_days=2)
    found = read_ab_test(make_log(exposures, pd.concat([now, past])), plan, now=later)
    x = past.groupby("user_id")["value"].sum().reindex(exposures["user_id"]).to_numpy()
    data = {
        "t": exposures["variant"].eq("treatment").astype(float),
        "x": x - x.mean(),
        "y": now["value"],
    }
    fit = smf.ols("y ~ t + x", pd.DataFrame(data)).fit(cov_type="HC1")
    assert found.findings.cuped.estimate == pytest.approx(fit.params["t"], abs=1e-9)
    assert found.findings.cuped.se < found.findings.primary.se / 3
    assert (
        "Adjusted for what users did before (CUPED) the difference is" in effect.cuped(found).text
    )
    plain = read_ab_test(make_log(exposures, now), locked(**fields, min_samples=200), now=later)
    assert found.findings.primary.estimate == pytest.approx(
        plain.findings.primary.estimate, abs=1e-9
    )
    assert plain.findings.cuped is None
    assert "Nothing from before" in effect.cuped(plain).text


@pytest.mark.parametrize("form", ["table", "frame", "timestamps"])
def test_a_covariate_from_after_the_exposure_is_refused(form, spending, make_log, locked, later):
    exposures, now, past = spending
    late = pd.concat([past, past.iloc[:3].assign(at_s=START)])
    before = {
        "table": make_log(exposures, late).outcomes.select("user_id", "value", "at_s"),
        "frame": late[["user_id", "value", "at_s"]],
        "timestamps": late.assign(at_s=pd.to_datetime(late["at_s"], unit="s", utc=True))[
            ["user_id", "value", "at_s"]
        ],
    }[form]
    plan = locked(kind="mean", name="spent", sd=1.0, expected=None, difference=1.0, min_samples=200)
    with pytest.raises(
        DataError, match="3 values of the covariate lie after their user's first exposure"
    ):
        read_ab_test(make_log(exposures, now), plan, now=later, before=before)


def test_only_a_mean_takes_a_covariate(locked):
    from evalkit.errors import DesignError

    with pytest.raises(DesignError, match="only a mean per user can be adjusted"):
        locked(covariate="spent")


def test_sqlite_counts_the_same(frames, read, locked, later, tmp_path):
    import sqlite3
    from contextlib import closing

    from evalkit.abtest.source import open_log

    exposures = frames[0]
    shifted = exponential(exposures, 20).assign(at_s=lambda one: one["at_s"] - 5 * HOUR)
    foreign = shifted.iloc[::3].assign(user_id="crm")
    stray = exposures.iloc[:3].assign(variant="C")
    whole = pd.concat([exposures, stray]), pd.concat([shifted, foreign])
    with closing(sqlite3.connect(tmp_path / "events.sqlite")) as file:
        for name, frame in zip(("exposures", "outcomes"), whole, strict=True):
            frame.to_sql(name, file, index=False)
    with closing(open_log(tmp_path / "events.sqlite")) as log:
        found = read_ab_test(log, locked(min_samples=400), now=later)
    expected = read(*whole)
    assert found.findings.outcomes == expected.findings.outcomes
    assert found.findings.outcomes.cause == "clock"
    assert [one for one in told_of(found) if "variant" in one] == [
        one for one in told_of(expected) if "variant" in one
    ]
