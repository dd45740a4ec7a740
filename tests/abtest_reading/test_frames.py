"""Readings, plans and looks as frames; the z that notebook 06 writes out is the kit's; nothing withheld stands in a frame."""

import json
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest

from evalkit.abtest.analysis import fetched
from evalkit.abtest.lock import Look, looks_frame, read_looks, record_look
from evalkit.abtest.reading import read_ab_test
from evalkit.errors import DataError
from evalkit.show import abtest as show
from evalkit.show import effect as words
from evalkit.stats import ratio_test

BOOK = Path(__file__).parents[2] / "notebooks/06_ab_test.ipynb"


def z_of_the_notebook(effect):
    """What the cell of notebook 06 that writes z out computes."""
    cells = json.loads(BOOK.read_text(encoding="utf-8"))["cells"]
    (lines,) = [cell["source"] for cell in cells if cell["id"] == "hand-z"]
    names = {"effect": effect, "np": np}
    exec("".join(lines[:-1]), names)
    return names["z"]


def by_user(exposures, outcomes, variant):
    """Requests and successes of each user."""
    who = exposures[exposures["variant"] == variant]
    hits = outcomes.set_index("request_id")["value"].reindex(who["request_id"]).to_numpy()
    table = who.assign(hit=hits).groupby("user_id")["hit"].agg(["size", "sum"])
    return table["size"], table["sum"]


@pytest.mark.parametrize("lift", [0.0, 0.05, 0.3])
def test_the_z_written_out_in_the_notebook_is_the_kits(
    lift, make_log, make_people, make_frames, locked, later
):
    exposures, outcomes = make_frames(make_people(400, 400, lift=lift))
    effect = read_ab_test(
        make_log(exposures, outcomes), locked(outcome_window_days=7, min_samples=400), now=later
    )
    z = z_of_the_notebook(effect)
    kit = ratio_test(*(by_user(exposures, outcomes, arm) for arm in ("control", "treatment")))
    assert kit.expected_events > 100  # each variant's own clustering
    assert z == pytest.approx(kit.z_score, rel=1e-9)
    assert z == pytest.approx(effect.findings.primary.z_score, rel=0.005, abs=0.005)
    assert ": the same." in words.by_hand(effect, z).text


def test_where_an_exact_test_decides_the_notebook_says_so(
    make_log, make_people, make_frames, locked, later
):
    exposures, outcomes = make_frames(make_people(150, 150))
    outcomes["value"] = (outcomes.index < 2).astype(float)
    effect = read_ab_test(make_log(exposures, outcomes), locked(), now=later)
    assert effect.findings.primary.is_exact
    assert "Fisher's exact test on users decides" in words.by_hand(effect, 1.0).text


@pytest.mark.parametrize("state", ["too early", "invalid", "not read"])
def test_a_withheld_effect_is_in_no_frame(state, make_log, make_people, make_frames, locked, later):
    log = make_log(*make_frames(make_people(150, 300 if state == "invalid" else 150)))
    plan = locked(min_samples=5000 if state == "too early" else 100)
    found = read_ab_test(log, plan, now=later, effect=False)
    found = found if state == "not read" else found.effect()
    frame, sums = found.to_frame(), found.sums()
    assert frame["successes"].isna().all()
    assert frame["users"].sum() == sums["users"].sum() == found.n_users
    known = {"users", "requests"}
    assert sums.drop(columns=list(known)).isna().all(axis=None)
    assert np.isnan(z_of_the_notebook(found))
    assert "z =" not in words.by_hand(found, float("nan")).text
    assert "value" not in found.users().columns


def test_a_frame_has_a_row_a_day_slice_and_variant(
    make_log, make_people, make_frames, locked, later
):
    exposures, outcomes = make_frames(make_people(200, 200, lift=0.2))
    found = read_ab_test(
        make_log(exposures, outcomes), locked(outcome_window_days=7, min_samples=200), now=later
    )
    frame = found.to_frame()
    assert list(frame) == ["day", "slice", "variant", "users", "requests", "successes"]
    assert str(frame["day"].dt.tz) == "UTC"
    assert list(frame["variant"].cat.categories) == ["control", "treatment"]
    assert list(frame["slice"].cat.categories) == ["long", "short"]
    assert len(frame) == 7 * 2 * 2
    summed = frame.groupby("variant", observed=True)[["requests", "successes"]].sum()
    rows = exposures.assign(hit=outcomes["value"]).groupby("variant")["hit"].agg(["size", "sum"])
    assert summed.to_numpy().tolist() == rows.to_numpy().tolist()
    assert found.sums()[["requests", "successes"]].to_numpy().tolist() == summed.to_numpy().tolist()


def test_health_reads_no_outcome_and_adds_no_look(
    make_log, make_people, make_frames, locked, later, tmp_path
):
    exposures, _ = make_frames(make_people(150, 150))
    nothing = pd.DataFrame({"no": ["outcomes"]})
    ledger = tmp_path / "ledger.jsonl"
    reading = read_ab_test(
        make_log(exposures, nothing), locked(), now=later, ledger=ledger, effect=False
    )
    assert (reading.valid, reading.is_read, reading.findings) == (True, False, None)
    assert words.headline(reading).startswith("A look is due and not read yet. Missing: ")
    assert words.by_hand(reading, 2.0).text == "Withheld with the effect."
    users = reading.users()
    several = fetched(users.group_by("variant").aggregate(n=users.count()))
    assert several.set_index("variant")["n"].to_dict() == {"control": 150, "treatment": 150}
    assert read_looks(ledger) == ()
    with pytest.raises(DataError, match="lacks the columns"):
        reading.effect()


def test_health_then_effect_is_the_whole_reading(
    make_log, make_people, make_frames, locked, later, tmp_path
):
    log, plan = make_log(*make_frames(make_people(150, 150, lift=0.3))), locked()
    ledger = tmp_path / "ledger.jsonl"
    effect = read_ab_test(log, plan, now=later, ledger=ledger, run="r", effect=False).effect()
    assert effect.to_dict() == read_ab_test(log, plan, now=later).to_dict()
    assert effect.effect() is effect
    (look,) = read_looks(ledger)
    assert (look.run, look.effect_shown) == ("r", True)
    assert isinstance(effect.users(), ibis.Table)


def test_looks_are_a_frame_with_times_and_gaps(tmp_path):
    one = {
        "experiment": "e",
        "plan_sha256": "0",
        "information": 0.5,
        "n_control": 1,
        "n_treatment": 2,
    }
    ledger = tmp_path / "ledger.jsonl"
    record_look(ledger, Look(**one, look=None, effect_shown=False, verdict="too early"))
    record_look(ledger, Look(**one, look=1, effect_shown=True, verdict="better", simulated=True))
    table = looks_frame(read_looks(ledger))
    assert (str(table["at"].dt.tz), str(table["look"].dtype)) == ("UTC", "Int64")
    assert table["simulated"].isna().tolist() == [True, False]
    assert table["effect_shown"].tolist() == [False, True]
    assert "(simulated users)" in show.ledger(table).body
    assert looks_frame(()).empty
    assert "None." in show.ledger(looks_frame(())).body


def test_a_plan_is_a_frame_of_its_looks(locked):
    whole = locked(looks=4)
    plan, table = whole.plan, whole.plan.to_frame()
    assert table.equals(whole.to_frame())
    assert table["information"].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert table["n_control"].iloc[-1] == plan.n_control
    assert table["z_limit"].is_monotonic_decreasing
