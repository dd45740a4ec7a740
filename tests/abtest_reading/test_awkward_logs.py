"""Logs from elsewhere: what can be read is read the same, what cannot is named, and nothing is read wrongly in silence."""

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from evalkit.abtest.analysis import fetched
from evalkit.abtest.plan import Guardrail
from evalkit.abtest.reading import read_ab_test
from evalkit.abtest.source import open_log
from evalkit.errors import DataError
from evalkit.records import OPEN_WINDOWS
from evalkit.show import abtest as words
from evalkit.show import effect, style
from evalkit.show.lacking import in_words

DAY = 86400.0


@pytest.fixture
def small(make_people, make_frames):
    return make_frames(make_people(130, 130, lift=0.1))


@pytest.fixture
def read(make_log, locked, later):
    def _read(exposures, outcomes, **options):
        return read_ab_test(make_log(exposures, outcomes), locked(**options), now=later)

    return _read


def with_times(frame, form):
    times = pd.to_datetime(frame["at_s"].round(), unit="s", utc=True)
    return frame.assign(at_s={"aware": times, "naive": times.dt.tz_localize(None)}[form])


@pytest.mark.parametrize("form", ["aware", "naive"])
def test_timestamps_are_seconds(form, small, read):
    expected = read(*(one.assign(at_s=one["at_s"].round()) for one in small)).findings.primary
    assert read(*(with_times(one, form) for one in small)).findings.primary == expected


def test_timestamps_of_csv_files_are_seconds(small, read, locked, later, tmp_path):
    expected = read(*(one.assign(at_s=one["at_s"].round()) for one in small)).findings.primary
    for name, one in zip(("exposures", "outcomes"), small, strict=True):
        one.assign(at_s=with_times(one, "aware")["at_s"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_csv(
            tmp_path / f"{name}.csv"
        )
    found = read_ab_test(open_log(tmp_path), locked(), now=later)
    assert found.primary_dict() == expected.to_dict()


@pytest.mark.parametrize("form", ["aware", "naive"])
def test_timestamps_of_parquet_files_are_seconds(form, small, read, locked, later, tmp_path):
    expected = read(*(one.assign(at_s=one["at_s"].round()) for one in small)).findings.primary
    for name, one in zip(("exposures", "outcomes"), small, strict=True):
        frame = with_times(one, form).assign(at_s=lambda frame: frame["at_s"].dt.as_unit("ns"))
        frame.to_parquet(tmp_path / f"{name}.parquet")
    assert read_ab_test(open_log(tmp_path), locked(), now=later).findings.primary == expected


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_columns_without_a_value_are_as_good_as_none(form, small, read, locked, later, tmp_path):
    empty = dict.fromkeys(("latency_ms", "outcome", "error", "slice"))
    for name, one in zip(
        ("exposures", "outcomes"), (small[0].assign(**empty), small[1]), strict=True
    ):
        getattr(one, f"to_{form}")(tmp_path / f"{name}.{form}", index=False)
    found = read_ab_test(open_log(tmp_path), locked(), now=later)
    assert found.primary_dict() == read(*small).primary_dict()
    assert not [one.name for one in found.health if one.name == "latency_ms"]


def test_models_that_are_called_by_fractions_stay_two(small, make_log):
    exposures, outcomes = small
    versions = exposures["variant"].map({"control": 3.5, "treatment": 4.0})
    found = fetched(make_log(exposures.assign(model=versions), outcomes).answered("exp"))
    assert set(zip(found["variant"], found["model"], strict=True)) == {
        ("control", "3.5"),
        ("treatment", "4.0"),
    }


def test_ids_that_a_gap_made_fractions_still_meet(small, read):
    exposures, outcomes = small
    outcomes = outcomes.assign(user_id=outcomes["user_id"].str[1:].astype(float))
    found = read(exposures.assign(user_id=exposures["user_id"].str[1:]), outcomes)
    assert found.findings.primary == read(*small).findings.primary


@pytest.mark.parametrize(
    "form", [pd.DataFrame, lambda frame: ibis.memtable(pa.Table.from_pandas(frame))]
)
def test_the_past_of_users_by_number_from_a_data_frame(form, small, make_log, locked, later):
    exposures, outcomes = (one.assign(user_id=one["user_id"].str[1:].astype(int)) for one in small)
    plan = locked(kind="mean", sd=1.0, expected=None, difference=1.0)
    before = form(pd.DataFrame({"user_id": range(260), "value": np.arange(260.0) % 7}))
    found = read_ab_test(make_log(exposures, outcomes), plan, now=later, before=before).findings
    assert found.cuped.estimate != found.primary.estimate


def test_ids_of_two_types_still_meet(small, read):
    exposures, outcomes = small
    numbers = exposures.assign(user_id=exposures["user_id"].str[1:].astype(int))
    texts = outcomes.assign(user_id=outcomes["user_id"].str[1:])
    assert read(numbers, texts).findings.primary == read(*small).findings.primary


@pytest.mark.parametrize("kind", [bool, int])
def test_a_rate_in_booleans_or_integers(kind, small, read):
    exposures, outcomes = small
    found = read(exposures, outcomes.assign(value=outcomes["value"].astype(kind)))
    assert found.findings.primary == read(*small).findings.primary


def spoilt(table, column, change):
    def spoil(exposures, outcomes):
        frames = {"exposures": exposures, "outcomes": outcomes}
        frames[table] = frames[table].assign(**{column: change(frames[table][column])})
        return frames["exposures"], frames["outcomes"]

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            spoilt("exposures", "at_s", lambda at: at.astype(str)),
            r"exposures\.at_s is text; need seconds since 1970",
        ),
        (spoilt("outcomes", "at_s", lambda at: at.astype(str)), r"outcomes\.at_s is text"),
        (
            spoilt("outcomes", "value", lambda v: v.map({1.0: "yes", 0.0: "no"})),
            r"outcomes\.value is text; need a number",
        ),
        (spoilt("exposures", "at_s", lambda at: at * 1000), "not ms"),
        (
            spoilt("exposures", "at_s", lambda at: at.where(at.index > 3)),
            "no time, or a variant other",
        ),
        (spoilt("exposures", "user_id", lambda ids: ids.where(ids.index > 3, "")), "no user_id"),
        (
            spoilt("exposures", "variant", lambda arm: arm == "treatment"),
            "a variant other than control and treatment",
        ),
        (
            spoilt("exposures", "at_s", lambda at: at.where(at.index > 3, np.inf)),
            "no time, or a variant other",
        ),
        (spoilt("outcomes", "value", lambda v: v.where(v.index > 3, np.inf)), "no finite numbers"),
        (spoilt("outcomes", "value", lambda v: v.where(v.index > 3)), "no finite numbers"),
        (spoilt("outcomes", "value", lambda v: -v), "is no rate for"),
        (
            spoilt("outcomes", "at_s", lambda at: at - 30 * DAY),
            "no outcome 'accepted' of 'exp' within any user's outcome window",
        ),
    ],
)
def test_what_cannot_be_read_is_named(spoil, said, small, read):
    with pytest.raises(DataError, match=said):
        read(*spoil(*small))


def test_outcomes_recorded_twice_are_no_rate(small, read):
    exposures, outcomes = small
    # a user with one accepted request of one would count two of one
    with pytest.raises(DataError, match="remove outcomes recorded twice"):
        read(exposures, pd.concat([outcomes, outcomes]))
    flags = pd.concat([outcomes, outcomes]).assign(metric="flagged", value=1.0)
    with pytest.raises(DataError, match="'flagged' is no rate for 223 users"):
        read(
            exposures,
            pd.concat([outcomes, flags]),
            guardrails=(Guardrail(name="flagged", margin=0.02),),
        )


def test_fractions_are_no_counts_for_the_simple_z_test(small, read):
    exposures, outcomes = small
    found = read(exposures, outcomes.assign(value=outcomes["value"] * 0.7))
    assert found.findings.article is None
    assert "counted in 0 and 1" in effect.article_said(found)


@pytest.mark.parametrize("users", [0, 130])
def test_csv_files_of_a_header_only(users, small, locked, later, tmp_path):
    exposures, outcomes = small
    exposures[exposures["user_id"].isin([f"u{i}" for i in range(users)])].to_csv(
        tmp_path / "exposures.csv", index=False
    )
    outcomes.iloc[:0].to_csv(tmp_path / "outcomes.csv", index=False)
    found = read_ab_test(open_log(tmp_path), locked(min_samples=1000), now=later)
    assert (found.verdict, found.n_users) == (("too early", 0) if not users else ("invalid", 130))


def test_a_file_of_another_kind_is_said(tmp_path):
    (tmp_path / "exposures.csv").write_text("user_id,variant,at_s\na,control,1\n", encoding="utf-8")
    with pytest.raises(
        DataError,
        match=r"exposures\.csv: no SQLite file; a log in Parquet or CSV is named by its folder",
    ):
        open_log(tmp_path / "exposures.csv")


def test_open_windows_are_waited_for_not_more_users(make_log, small, locked):
    found = read_ab_test(make_log(*small), locked(), now=20_000 * DAY + 3 * DAY)
    (missing,) = found.missing
    assert (
        in_words(missing).price == "no more users, about 2 days until outcome windows have closed"
    )
    assert in_words(missing).action == "Wait for outcomes"
    assert missing.kind != OPEN_WINDOWS  # some count already
    at_once = read_ab_test(make_log(*small), locked(), now=20_000 * DAY + DAY)
    assert (
        at_once.missing[0].kind == OPEN_WINDOWS
    )  # users came and none counts: the log is not empty


def test_nothing_varied_is_said_without_an_empty_interval(small, read):
    exposures, outcomes = small
    found = read(exposures.assign(latency_ms=200.0), outcomes.assign(value=0.0))
    # 0 of 100 requests by 100 users and more: how much is left open has an interval, though there is no test
    assert "Difference 0.0 points (95% interval −" in effect.answer_said(found)
    shown = [row["Difference (95% interval)"] for row in words.watched_rows(found)] + [
        row["Difference (95% interval)"] for row in effect.part_rows(found, "by_day")
    ]
    assert not [text for text in shown if "– to –" in text]
    with style.style():
        for plot in (effect.draw_z_test, effect.draw_looks):
            ax = plot(found)
            assert (
                ax.get_title("left") or ax.get_title()
            ) == "z is undefined: the outcome never varied"
            close(ax)


def close(ax):
    import matplotlib.pyplot as plt

    plt.close(ax.figure)


def test_a_plan_without_guardrails_says_so_where_the_figure_stands(small, read):
    found = read(*small)
    with style.style():
        ax = words.draw_guardrails(found)
        assert (ax.get_title("left") or ax.get_title()) == "The plan declares no guardrail"
        close(ax)


@pytest.mark.parametrize("name", ["latency_ms", "error"])
def test_a_guardrail_that_nobody_logged_is_not_left_out(name, small, read):
    exposures, outcomes = small
    rail = Guardrail(name=name, kind="p95" if name == "latency_ms" else "rate", margin=50.0)
    found = read(exposures.drop(columns=["latency_ms", "outcome"]), outcomes, guardrails=(rail,))
    assert [(one.name, one.verdict, one.change.estimate) for one in found.guardrails] == [
        (name, "too early", None)
    ]
    assert words.watched_said(found).startswith("Not shown to hold yet")
    assert words.watched_rows(found)


def test_mean_latency_is_not_called_a_percentile(small, read):
    found = read(*small, guardrails=(Guardrail(name="latency_ms", kind="mean", margin=50.0),))
    assert words.watched_rows(found)[0]["What is watched"] == "Mean waiting time"
