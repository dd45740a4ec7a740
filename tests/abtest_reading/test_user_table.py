"""A finished experiment of other people, a row a user and no times: read, counted by hand, and told what is odd in it."""

from contextlib import closing

import numpy as np
import pandas as pd
import pytest
import yaml

from evalkit import stats
from evalkit.abtest.experiment import Experiment, ab_evidence
from evalkit.abtest.lock import lock
from evalkit.abtest.plan import ABPlan, Metric
from evalkit.abtest.reading import read_ab_test
from evalkit.abtest.source import open_log
from evalkit.errors import DataError, DesignError
from evalkit.evidence import as_json
from evalkit.show import effect
from evalkit.show.abtest import notes as told_of
from evalkit.show.abtest import written as noted
from evalkit.study import Study

GATES = ("gate_30", "gate_40")
COLUMNS = {"user": "userid", "variant": "version", "outcomes": ["came_back"], "variants": GATES}


def table(n=400, *, rates=(0.3, 0.5), seed=0):
    """Half of the users at each gate; who came back, and how many rounds they played."""
    rng = np.random.default_rng(seed)
    arm = np.arange(n) % 2
    return pd.DataFrame(
        {
            "userid": [f"00{i}" for i in range(n)],
            "version": np.array(GATES)[arm],
            "came_back": rng.uniform(size=n) < np.array(rates)[arm],
            "rounds": rng.poisson(5 + arm, n),
        }
    )


def written(frame, path):
    getattr(frame, "to_csv" if path.suffix == ".csv" else "to_parquet")(path, index=False)
    return path


def read(path, locked, *, variants=GATES, user="userid", **plan):
    known = locked(**{"name": "came_back", **plan})
    outcomes = [known.plan.primary.name]
    columns = {"user": user, "variant": "version", "outcomes": outcomes, "variants": variants}
    with closing(open_log(path, **columns)) as log:
        return read_ab_test(log, known)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_users_rates_and_the_test_are_those_of_the_table(suffix, locked, tmp_path):
    frame = table()
    found = read(written(frame, tmp_path / f"cats{suffix}"), locked)
    by = frame.groupby("version")["came_back"]
    effect = found.findings.primary
    assert (effect.n_control, effect.n_treatment) == (200, 200)
    assert (effect.control_rate, effect.treatment_rate) == tuple(by.mean())
    old, new = (int(by.sum()[gate]) for gate in GATES)
    by_hand = stats.proportion_z_test(old, 200, new, 200)
    assert effect.z_score == pytest.approx(by_hand.z_score, rel=0.01)
    assert found.verdict == "better"
    assert found.sample_ratio[0].test.verdict != "invalid"


def test_a_mean_a_user_is_that_of_the_table(locked, tmp_path):
    frame = table()
    path = written(frame, tmp_path / "cats.csv")
    found = read(path, locked, kind="mean", name="rounds", sd=2.3, difference=1.0, expected=None)
    means = frame.groupby("version")["rounds"].mean()
    assert found.findings.primary.estimate == pytest.approx(means[GATES[1]] - means[GATES[0]])


def test_a_column_from_before_sharpens_a_mean(locked, tmp_path):
    frame = table()
    frame["before"] = frame["rounds"] + np.random.default_rng(1).normal(0, 0.1, len(frame))
    path = written(frame, tmp_path / "cats.csv")
    metric = {"kind": "mean", "name": "rounds", "sd": 2.3, "difference": 1.0, "expected": None}
    plan = locked(**metric, covariate="before")
    columns = COLUMNS | {"outcomes": ["rounds"], "before": ["before"]}
    with closing(open_log(path, **columns)) as log:
        done = read_ab_test(log, plan).findings
    assert done.cuped.se < 0.1 * done.primary.se  # what they did before explains nearly all of it


def test_days_and_weeks_are_not_shown_and_that_is_said(locked, tmp_path):
    found = read(written(table(), tmp_path / "cats.csv"), locked)
    done = found.findings
    assert (done.over_time, done.by_day, done.days, found.days_seen) == ((), (), 0, 0)
    assert found.to_frame()["day"].isna().all()
    told = " ".join(told_of(found))
    assert "a table without times: days and weeks cannot be shown" in told
    assert "not in whole weeks" not in told
    assert "1970" not in told
    said = "The log is a table without times, so nothing is shown by day"
    for shown in (effect.days(found), effect.over_time(found)):
        assert said in shown._repr_html_()


@pytest.mark.parametrize(
    ("values", "variants"),
    [
        ((0, 1), ("0", "1")),
        ((False, True), ("False", "true")),
        ((False, True), ("0", "1")),
        ((1.0, 2.0), ("1", "2")),
        ((" A", "b "), ("a", "B")),
        (("control", "treatment"), ("control", "treatment")),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_variants_may_be_numbers_truths_or_any_names(values, variants, suffix, locked, tmp_path):
    frame = table()
    frame["version"] = frame["version"].map(dict(zip(GATES, values, strict=True)))
    found = read(written(frame, tmp_path / f"t{suffix}"), locked, variants=variants)
    assert found.findings.primary.n_control == 200
    assert found.findings.primary.control_rate < found.findings.primary.treatment_rate


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_odd_in_a_table_is_left_out_or_counted_and_told(suffix, locked, tmp_path):
    frame = table().astype({"came_back": object})
    odd = [
        ("00399", "gate_30", True, 1),  # 00399 is in gate_40 too
        ("00398", "gate_30", False, 1),  # a second row of the same variant
        (None, "gate_40", True, 1),
        ("x1", None, True, 1),
        ("x2", "gate_50", True, 1),
        ("x3", "gate_40", None, 1),
        ("x4", "none", True, 1),
    ]
    frame = pd.concat([frame, pd.DataFrame(odd, columns=list(frame.columns))])
    frame["came_back"] = frame["came_back"].astype("boolean")
    found = read(written(frame, tmp_path / f"odd{suffix}"), locked)
    # control 200; treatment 200, without 00399, with x3
    assert [found.sample_ratio[0].n_control, found.sample_ratio[0].n_treatment] == [200, 200]
    assert found.n_requests == 401
    told = " | ".join(told_of(found))
    strays = next(one for one in found.notes if one.kind == "strays")
    assert (strays.names, strays.n, strays.of) == ({"": 1, "none": 1, "gate_50": 1}, 3, 407)
    assert "3 of 407 (0.7%) rows are in neither of the two variants and left out: " in told
    assert "1 of 407 (0.2%) rows without a user are left out (0 in control, 1 in treatment)" in told
    assert "1 of 401 (0.2%) users in both variants are left out" in told
    assert (
        "1 of 401 (0.2%) users with several rows: each row counts as a request of its own" in told
    )
    assert "have no came_back (0 in control, 1 in treatment) and count as 0" in told


def test_a_table_without_user_ids_has_a_user_a_row(locked, tmp_path):
    frame = table().drop(columns="userid")
    found = read(written(frame, tmp_path / "rows.csv"), locked, user="")
    assert found.n_users == 400
    assert "each row is a user of its own" in " ".join(told_of(found))


def test_a_broken_split_is_an_alarm_in_a_table_too(locked, tmp_path):
    frame = table(800)
    lost = frame[(frame["version"] == GATES[1]) & (np.arange(800) % 3 == 0)].index
    found = read(written(frame.drop(lost), tmp_path / "lost.csv"), locked)
    assert found.verdict == "invalid"
    assert found.findings is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"variants": ("A", "B")},
            r"'A' is in no row; column 'version' holds 'gate_\d0' \(200\) and",
        ),
        ({"variant": "Version"}, "no column 'Version'; it has .* did you mean 'version'"),
        ({"user": "uid"}, "no column 'uid'; it has 'userid'"),
    ],
)
def test_what_is_named_wrongly_is_told_with_what_is_there(change, said, tmp_path):
    path = written(table(), tmp_path / "cats.csv")
    with pytest.raises(DataError, match=said):
        open_log(path, **COLUMNS | change)


def test_an_outcome_in_words_is_refused_by_name_and_example(tmp_path):
    frame = table().assign(came_back="often")
    path = written(frame, tmp_path / "words.csv")
    with pytest.raises(DataError, match="column 'came_back' holds string, such as 'often'"):
        open_log(path, **COLUMNS)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("truths", [("yes", "no"), ("True", "False"), ("1 ", "0"), ("1.0", "0.0")])
def test_an_outcome_may_be_told_in_truths_or_numbers_as_text(suffix, truths, locked, tmp_path):
    frame = table()
    said = frame.assign(came_back=np.where(frame.came_back, *truths))
    found = read(written(said, tmp_path / f"cats{suffix}"), locked).findings.primary
    rates = tuple(frame.groupby("version")["came_back"].mean())
    assert (found.control_rate, found.treatment_rate) == rates


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("cap", [None, ("y", 9.0)])
def test_one_value_that_is_no_number_is_named(cap, suffix, tmp_path):
    words = ["1"] * 399 + ["n.d."]
    with pytest.raises(DataError, match=r"'came_back' holds string, such as 'n\.d\.'"):
        open_log(written(table().assign(came_back=words), tmp_path / f"x{suffix}"), **COLUMNS)
    endless = written(table().assign(came_back=np.inf), tmp_path / f"y{suffix}")
    with closing(open_log(endless, **COLUMNS)) as log:
        users = log.users("any", kept=False)
        cells = users.cells("came_back", cap=cap)
        with pytest.raises(DataError, match="'came_back': outcomes hold values that are no finite"):
            users.checked(cells, "came_back", is_rate=True)


def test_one_variant_is_not_both_sides(tmp_path):
    path = written(table(), tmp_path / "cats.csv")
    with pytest.raises(DataError, match="'GATE_30' is named as control and as treatment"):
        open_log(path, **COLUMNS | {"variants": ("gate_30", "GATE_30")})


def test_a_file_without_named_columns_says_what_is_missing(tmp_path):
    path = written(table(), tmp_path / "cats.csv")
    with pytest.raises(DataError, match=r"log_variant, log_user and log_outcomes in study\.yaml"):
        open_log(path)


def test_a_log_with_times_may_name_its_variants_too(
    make_people, make_frames, locked, later, tmp_path
):
    exposures, outcomes = make_frames(make_people(130, 130, lift=0.1))
    named = {"control": "A", "treatment": "B"}
    for folder, frame in (
        ("plain", exposures),
        ("named", exposures.assign(variant=exposures["variant"].map(named))),
    ):
        (tmp_path / folder).mkdir()
        frame.to_parquet(tmp_path / folder / "exposures.parquet")
        outcomes.to_parquet(tmp_path / folder / "outcomes.parquet")
    plan = locked()
    first = read_ab_test(open_log(tmp_path / "plain"), plan, now=later)
    second = read_ab_test(open_log(tmp_path / "named", variants=("A", "B")), plan, now=later)
    turned = read_ab_test(open_log(tmp_path / "named", variants=("B", "A")), plan, now=later)
    assert first.findings.primary == second.findings.primary
    assert turned.findings.primary.estimate == pytest.approx(-first.findings.primary.estimate)
    with pytest.raises(DataError, match=r"control_variant and treatment_variant in study\.yaml"):
        read_ab_test(open_log(tmp_path / "named"), plan, now=later)


def test_a_plan_needs_both_names_and_keeps_its_hash_without_them():
    metric = Metric(name="accepted", expected=0.3, detectable_difference=0.05)
    models = {"control_model": "a", "treatment_model": "b"}
    plain = ABPlan(experiment_name="e", **models, primary=metric, users_per_day=100)
    assert "control_variant" not in plain.to_dict()
    named = plain.changed(control_variant="A", treatment_variant="B")
    assert ABPlan.from_dict(named.to_dict()) == named
    for pair in (("A", ""), ("A", "A")):
        with pytest.raises(DesignError, match="need both, and two different names"):
            plain.changed(control_variant=pair[0], treatment_variant=pair[1])


SETTINGS = {
    "experiment_name": "gates", "control_model": "a", "treatment_model": "b", "traffic_split": 0.5, "min_samples": 100,
    "ab_metric": "came_back", "expected_rate": 0.3, "detectable_difference": 0.2, "users_per_day": 50, "looks": 1,
    "event_log": "cats.csv", "log_user": "userid", "log_variant": "version",
    "control_variant": "gate_30", "treatment_variant": "gate_40",
}  # fmt: skip


def test_a_table_goes_from_its_file_to_the_evidence_by_settings_alone(tmp_path):
    folder = tmp_path / "data/cats"
    folder.mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(SETTINGS))
    written(table(), folder / "cats.csv")
    home = Study.open("cats", root=tmp_path)
    experiment = Experiment(study=home)
    lock(experiment.draft(), experiment.path)
    found = experiment.reading().effect()
    assert found.verdict == "better"
    assert found.plan.plan.variants == GATES
    record = ab_evidence(found, study="cats")
    assert record.primary.verdict == "better"
    assert [one["kind"] for one in as_json(record.details)["notes"]] == ["no_times"]
    assert "without times" in " ".join(as_json(noted(record, found).details)["notes"])
