"""Exposures and outcomes in a warehouse, under its own names: the same reading as of the kit's own log."""

from contextlib import closing

import duckdb
import pandas as pd
import pytest
import yaml

from evalkit.abtest.experiment import Experiment
from evalkit.abtest.lock import lock
from evalkit.abtest.reading import read_ab_test
from evalkit.abtest.source import open_log
from evalkit.errors import DataError
from evalkit.report.export import export
from evalkit.study import Study

COLUMNS = {
    "user": "account", "variant": "variation_id", "time": "seen_at", "experiment": "experiment_id",
    "exposures": "analytics.viewed", "events": "analytics.rated",
}  # fmt: skip
OPENED = {**COLUMNS, "variants": ("0", "1"), "outcomes": ["accepted", "spent"]}


@pytest.fixture
def frames(make_people, make_frames):
    return make_frames(make_people(130, 130, lift=0.1))


@pytest.fixture
def tables(frames):
    """As a warehouse has them: numbers for variants, timestamps, another experiment, a column a metric, a user_id of others."""
    exposures, outcomes = frames
    moment = pd.to_datetime(exposures["at_s"], unit="s")
    viewed = pd.DataFrame({
        "experiment_id": "exp", "account": exposures["user_id"], "seen_at": moment, "user_id": "device",
        "variation_id": (exposures["variant"] == "treatment").astype(int),
    })  # fmt: skip
    others = viewed.head(40).assign(experiment_id="another", variation_id=1)
    rated = pd.DataFrame({
        "account": outcomes["user_id"], "seen_at": pd.to_datetime(outcomes["at_s"], unit="s"),
        "accepted": outcomes["value"] == 1, "spent": outcomes["value"].where(outcomes["value"] == 1) * 3,
        "note": "fine",
    })  # fmt: skip
    return pd.concat([viewed, others], ignore_index=True), rated


@pytest.fixture
def warehouse(tables, tmp_path):
    path = tmp_path / "warehouse.duckdb"
    viewed, rated = tables
    with duckdb.connect(path) as engine:
        engine.register("v", viewed)
        engine.register("r", rated)
        engine.execute("CREATE SCHEMA analytics")
        engine.execute("CREATE TABLE analytics.viewed AS SELECT * FROM v")
        engine.execute("CREATE TABLE analytics.rated AS SELECT * FROM r")
    return path


@pytest.fixture
def expected(frames, make_log, locked, later):
    return read_ab_test(make_log(*frames), locked(), now=later).findings.primary


def primary(log, locked, later, **plan):
    with closing(log):
        return read_ab_test(log, locked(**plan), now=later).findings.primary


def test_a_duckdb_file_reads_as_the_kits_own_log(warehouse, expected, locked, later):
    assert primary(open_log(warehouse, **OPENED), locked, later) == expected


def test_a_value_that_is_missing_is_no_outcome(warehouse, frames, make_log, locked, later):
    exposures, outcomes = frames
    spent = outcomes[outcomes["value"] == 1].assign(metric="spent", value=3.0)
    plan = {"name": "spent", "kind": "ratio", "sd": 1.0, "expected": None}
    by_hand = primary(make_log(exposures, spent), locked, later, **plan)
    assert primary(open_log(warehouse, **OPENED), locked, later, **plan) == by_hand


def test_a_folder_of_files_may_have_other_names_too(tables, expected, locked, later, tmp_path):
    viewed, rated = tables
    viewed.assign(account="00" + viewed["account"].str[1:]).to_csv(
        tmp_path / "seen.csv", index=False
    )
    rated.assign(account="00" + rated["account"].str[1:]).to_csv(
        tmp_path / "rated.csv", index=False
    )
    named = OPENED | {"exposures": "seen", "events": "rated"}
    assert primary(open_log(tmp_path, **named), locked, later) == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"time": "seen"}, "exposures: no column 'seen'; it has .*did you mean 'seen_at'"),
        ({"user": "accounts"}, "exposures: no column 'accounts'"),
        ({"outcomes": ["acepted"]}, "outcomes: no column 'acepted'; .* did you mean 'accepted'"),
        ({"outcomes": ["note"]}, "column 'note' holds string, such as 'fine'"),
        ({"exposures": "analytics.seen"}, r"no table analytics\.seen"),
        ({"events": "rated"}, "no table rated"),
        ({"exposures": "shop.viewed"}, r"no table shop\.viewed"),
    ],
)
def test_what_is_not_there_is_said_by_its_name(warehouse, change, said):
    with pytest.raises(DataError, match=said):
        open_log(warehouse, **OPENED | change)


SETTINGS = {
    "experiment_name": "exp", "control_model": "a", "treatment_model": "b", "traffic_split": 0.5, "min_samples": 100,
    "ab_metric": "accepted", "expected_rate": 0.3, "detectable_difference": 0.3, "users_per_day": 50, "looks": 1,
    "outcome_window_days": 2, "event_log": "warehouse.duckdb", "control_variant": "0", "treatment_variant": "1",
    "ab_hash": "external", **{f"log_{name}": value for name, value in COLUMNS.items()},
}  # fmt: skip


def test_a_warehouse_goes_to_the_evidence_by_settings_alone(warehouse, expected, tmp_path, capsys):
    folder = tmp_path / "data/w"
    folder.mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(SETTINGS))
    warehouse.rename(folder / "warehouse.duckdb")
    experiment = Experiment(study=Study.open("w", root=tmp_path))
    lock(experiment.draft(), experiment.path)
    found = experiment.reading().effect()
    assert found.plan.plan.hash == "external"
    assert found.findings.primary.estimate == expected.estimate
    with pytest.raises(DataError, match="nothing to export"):
        export("w", tmp_path / "out", root=tmp_path)
    assert "its tables are not the kit's own" in capsys.readouterr().err
