"""What was not settled before the first user came holds the decision, and numbers side by side are of the same users."""

import pandas as pd
import pytest
import yaml

from evalkit.abtest.experiment import Experiment, ab_evidence
from evalkit.abtest.lock import amend, lock
from evalkit.abtest.reading import NoReading, read_ab_test
from evalkit.decision import Rules, decide
from evalkit.evidence import Evidence
from evalkit.show import abtest as words
from evalkit.show import effect
from evalkit.show import verdict as spoken
from evalkit.study import Study

DAY = 86400.0
START = 20_000 * DAY
SHOWN = {"verdict": "better", "n": 300, "estimate": 0.1, "ci_low": 0.05, "ci_high": 0.15}
PLAN = {
    "experiment_name": "exp", "control_model": "a", "treatment_model": "b", "expected_rate": 0.3, "users_per_day": 100.0,
    "detectable_difference": 0.4, "traffic_split": 0.5, "min_samples": 100, "outcome_window_days": 2,
}  # fmt: skip
LIFT = {"rate": 0.3, "lift": 0.25}


def decided(found, differs=(), **rules):
    users = ab_evidence(found, study="toy", differs=differs)
    benchmark = Evidence.of(
        {
            "layer": "benchmark",
            "study": "toy",
            "made_at": "",
            "models": users.models,
            "bound_to": {},
            "simulated": False,
            "metric": "exact match",
            "unit": "examples",
            "primary": SHOWN,
        }
    )
    ruled = Rules(human_before_deployment=False, **rules)
    found = {"benchmark": benchmark, "ab_test": users}
    return decide(found, study="toy", stage="rollout", rules=ruled)


def lock_draft(home):
    """Locks the plan that the study's settings describe."""
    experiment = Experiment(study=home)
    return lock(experiment.draft(), experiment.path)


@pytest.fixture
def saying(tmp_path):
    (tmp_path / "data" / "toy").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()

    def _saying(**settings):
        (tmp_path / "data/toy/study.yaml").write_text(yaml.safe_dump(PLAN | settings))
        return Study.open("toy", root=tmp_path)

    return _saying


@pytest.fixture
def log(make_log, make_frames, make_people):
    def _log(days, n=400, **options):
        return make_log(*make_frames(make_people(n, n, days=days, **LIFT | options)))

    return _log


@pytest.mark.parametrize(
    ("days_before", "verdict"), [(-1, "ship"), (0.1, "not yet"), (8, "not yet")]
)
def test_a_plan_locked_after_its_first_users_cannot_pass_by_itself(
    log, locked, later, days_before, verdict
):
    found = read_ab_test(log(7, from_day=0), locked(now=START + days_before * DAY), now=later)
    decision = decided(found)
    assert (found.verdict, decision.verdict) == ("better", verdict)
    told = "the A/B plan was locked on 2024-10-"
    assert (told in spoken.headline(decision)) is (verdict != "ship")
    assert (told.lower() in spoken.deck(decision).lower()) is (verdict != "ship")
    assert decided(found, plan_after_exposures="warns").verdict == "ship"
    if verdict != "ship":
        assert told in spoken.deck(decided(found, plan_after_exposures="warns")).replace(
            "The A/B", "the A/B"
        )
        assert spoken.missing(decision)[0]["price"] == "200 users, about 7 days"


def test_a_loss_under_a_late_plan_is_still_a_loss(log, locked, later):
    found = read_ab_test(log(7, rate=0.6, lift=-0.25), locked(now=START + 8 * DAY), now=later)
    assert decided(found).verdict == "don't ship"


@pytest.mark.parametrize("days", [2, 9])
def test_part_of_a_week_holds_until_its_weeks_are_whole_and_say_the_same(log, locked, days):
    plan = locked(min_samples=400)
    # the log ends with the look: nobody knows the other weekdays, however long one waits
    ended = read_ab_test(log(days), plan, now=START + 300 * DAY)
    decision = decided(ended)
    assert (ended.findings.days, decision.verdict) == (days, "not yet")
    assert f"users came on {days} days, not in whole weeks" in spoken.headline(decision)
    assert f"users came on {days} days, not in whole weeks" in spoken.deck(decision)
    weeks = -(-days // 7) * 7
    assert spoken.missing(decision)[0]["price"].startswith(f"about {weeks - days} days more")
    assert decided(ended, not_whole_weeks="ignored").verdict == "ship"


def test_whole_weeks_that_say_the_same_settle_it_and_others_do_not(
    log, make_log, make_frames, make_people, locked, later
):
    plan = locked(min_samples=100, looks=4)
    same = read_ab_test(log(14, n=1400), plan, now=later)
    assert same.findings.days % 7
    assert (same.findings.whole_weeks.n, same.findings.uneven) == (1400, False)
    assert decided(same).verdict == "ship"
    first = make_people(150, 150, days=2, **LIFT)
    rest = make_people(2000, 2000, days=12, from_day=2, rate=0.45, lift=-0.05, prefix="v", seed=2)
    other = read_ab_test(make_log(*make_frames(pd.concat([first, rest]))), plan, now=later)
    assert (other.verdict, other.findings.uneven) == ("better", True)
    assert "do not show the same" in spoken.missing(decided(other))[0]["price"]


def test_days_slices_and_the_headline_are_of_the_same_users_and_say_so(log, locked, later):
    found = read_ab_test(log(14, n=1400), locked(min_samples=100, looks=4), now=later)
    done, n = found.findings, found.findings.primary.n
    assert done.n_later == 2800 - n
    assert sum(one["n"] for one in done.by_day) == n
    assert max(one["n"] for one in done.by_slice) <= n
    assert found.sums()["users"].sum() == n
    assert (
        found.to_frame().drop_duplicates(["day", "variant", "slice"])["day"].nunique() == done.days
    )
    shown = effect.effect_slices(found).body + effect.days(found).body
    assert f"the {n:,} users of look {done.primary.look}, which decides" in shown
    assert "a user with requests in several slices counts in each" in shown
    deck = spoken.deck(decided(found))
    assert f"That is look {done.primary.look} of 4, {n:,} users" in deck
    assert "over all 2,800 whose outcome window has closed the difference is +" in deck


def test_a_study_file_that_differs_from_the_locked_plan_names_both_and_holds(saying):
    home = saying()
    locked = lock_draft(home)
    assert Experiment(study=home).differs(locked) == ()
    other = saying(detectable_difference=0.2, ab_metric="solved")
    differs = Experiment(study=other).differs(locked)
    assert [(one["name"], one["study"], one["plan"]) for one in differs] == [
        ("ab_metric", "solved", "accepted"),
        ("detectable_difference", 0.2, 0.4),
    ]
    _, said = Experiment(study=other).settle(Experiment(study=other).draft())
    assert "detectable_difference is 0.2 there and 0.4 here" in said
    assert "counts, not study.yaml" in said
    assert "Locked plan, counts" in words.goal(locked.plan, differs).body
    assert "Locked plan" not in words.goal(locked.plan).body
    unnamed = saying(experiment_name="", detectable_difference=0.2)
    assert Experiment(study=unnamed).differs(locked) == ()
    found = NoReading(plan=locked, missing=Experiment(study=home).reading().effect().missing)
    assert decided(found, differs).layers[2].findings[0].rule == "plan_differs"


def test_an_amended_plan_is_told_and_the_value_first_locked_is_no_fault(saying):
    home = saying()
    locked = lock_draft(home)
    amended = amend(locked.path, "fewer users come", users_per_day=50.0)
    (one,) = Experiment(study=home).differs(amended)
    assert (one["name"], one["amended"]) == ("users_per_day", True)
    found = NoReading(plan=amended, missing=Experiment(study=home).reading().effect().missing)
    assert decided(found, [one]).layers[2].findings == ()
