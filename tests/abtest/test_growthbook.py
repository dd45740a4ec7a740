"""GrowthBook's own vectors (`cases.json` of its SDKs, specification 0.8), and what a plan does with its experiments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.abtest.assignment import (
    ABTestConfig,
    assign_variant,
    assign_variants,
    growthbook_place,
    growthbook_ranges,
    variant_expression,
)
from evalkit.abtest.lock import amend, lock, read_lock
from evalkit.abtest.plan import ABPlan, Metric
from evalkit.errors import DesignError

# seed, user, hash version, place
PLACES = [
    ("", "a", 1, 0.22),
    ("", "b", 1, 0.077),
    ("b", "a", 1, 0.946),
    ("ef", "d", 1, 0.652),
    ("asdf", "8952klfjas09ujk", 1, 0.549),
    ("", "123", 1, 0.011),
    ("", '___)((*":&', 1, 0.563),
    ("seed", "a", 2, 0.0505),
    ("seed", "b", 2, 0.2696),
    ("foo", "ab", 2, 0.2575),
    ("foo", "def", 2, 0.2019),
    ("89123klj", "8952klfjas09ujkasdf", 2, 0.124),
    ("90850943850283058242805", "123", 2, 0.7516),
    ("()**(%$##$%#$#", '___)((*":&', 2, 0.0128),
    # outside ASCII, by the Python SDK 4.0, which counts as charCodeAt does: the face is two units
    ("seed", "é日本", 2, 0.8282),
    ("seed", "u\N{GRINNING FACE}", 1, 0.54),
    ("seed", "u\N{GRINNING FACE}", 2, 0.5964),
]
# share of treatment, coverage, ranges
RANGES = [
    (0.5, 1.0, ((0, 0.5), (0.5, 1))),
    (0.5, 0.5, ((0, 0.25), (0.5, 0.75))),
    (0.5, 0.0, ((0, 0), (0.5, 0.5))),
    (0.6, 1.0, ((0, 0.4), (0.4, 1))),
]
# id -> variation of the experiment "my-test" at coverage 0.4 (hash version 1); the others are not in it
COVERED = {"2": "control", "3": "control", "5": "treatment", "7": "control", "8": "treatment"}


def config(split=0.5, *, name="exp", scheme="growthbook", **fields):
    return ABTestConfig(name, "base", "tuned", split, hash=scheme, **fields)


@pytest.mark.parametrize(("seed", "user", "version", "place"), PLACES)
def test_a_user_stands_where_growthbook_puts_it(seed, user, version, place):
    assert growthbook_place(seed, user, version) == place


@pytest.mark.parametrize(("treated", "coverage", "ranges"), RANGES)
def test_variations_have_growthbooks_ranges(treated, coverage, ranges):
    assert growthbook_ranges(treated, coverage) == ranges


@pytest.mark.parametrize("user", [str(n) for n in range(1, 10)])
def test_an_experiment_leaves_out_whom_its_coverage_leaves_out(user):
    found = assign_variant(user, config(name="my-test", scheme="growthbook-v1", coverage=0.4))
    assert found == COVERED.get(user)


def test_a_seed_and_the_second_hash_give_growthbooks_variation():
    plain = config(name="key", hash_seed="foo")
    assert assign_variant("1", plain) == "treatment"
    assert assign_variant("1", config(name="foo")) == "treatment"  # the key is the default seed


def test_a_rollout_forces_whom_growthbook_forces():
    rollout = config(0.5, name="feature", scheme="growthbook-rollout-v1")
    assert [assign_variant(user, rollout) for user in ("3", "1")] == ["treatment", "control"]


def test_the_end_of_a_rollout_is_within_it_and_of_a_range_is_not():
    # growthbook_place("seed", "a") = 0.0505; treatment of an experiment is [1 - split, 1)
    at = {"name": "seed", "scheme": "growthbook-rollout"}
    assert assign_variant("a", config(0.0505, **at)) == "treatment"
    assert assign_variant("a", config(0.0504, **at)) == "control"
    assert assign_variant("a", config(1 - 0.0505, name="seed")) == "treatment"
    assert assign_variant("a", config(1 - 0.0506, name="seed")) == "control"


def test_weights_are_those_people_typed_not_their_floating_remainders():
    # 1 - 0.7 = 0.30000000000000004; a user at 0.3 is in GrowthBook's second variation of weights 0.3 and 0.7
    user = next(one for one in map(str, range(99_999)) if growthbook_place("exp", one) == 0.3)
    assert assign_variant(user, config(0.7)) == "treatment"


ALL = ["growthbook", "growthbook-v1", "growthbook-rollout", "growthbook-rollout-v1"]


@pytest.mark.filterwarnings(
    "ignore:fetch_arrow_table:DeprecationWarning"
)  # Ibis 12 calls DuckDB 2's old name
@pytest.mark.parametrize("scheme", ALL)
@pytest.mark.parametrize("coverage", [1.0, 0.4])
def test_a_user_a_column_and_an_expression_agree(scheme, coverage):
    import ibis
    import pyarrow as pa

    fields = {} if "rollout" in scheme else {"coverage": coverage}
    known = config(0.3, scheme=scheme, hash_seed="s", **fields)
    ids = [f"Zoë {n}" for n in range(1500)]
    expected = [assign_variant(user, known) for user in ids]
    assert assign_variants(ids, known).tolist() == expected
    users = ibis.duckdb.connect().create_table("users", pa.table({"user_id": ids}))
    assert variant_expression(users.user_id, known).to_pyarrow().to_pylist() == expected
    assert (None in expected) == (fields.get("coverage", 1) < 1)


@given(st.text(min_size=1), st.floats(0, 1), st.floats(0, 1), st.sampled_from(ALL))
def test_raising_the_split_never_takes_a_user_back(user_id, one, other, scheme):
    low, high = sorted([one, other])
    if assign_variant(user_id, config(low, scheme=scheme)) == "treatment":
        assert assign_variant(user_id, config(high, scheme=scheme)) == "treatment"


@given(st.text(min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_raising_the_coverage_never_moves_a_user_of_the_experiment(user_id, one, other):
    low, high = sorted([one, other])
    before = assign_variant(user_id, config(0.3, coverage=low))
    assert before in (None, assign_variant(user_id, config(0.3, coverage=high)))


def test_the_treated_share_is_counted_in_buckets():
    # a roll-out of 10% takes the places 0, 0.001, ..., 0.1: 101 of 1000
    assert config(0.1, scheme="growthbook-rollout-v1").treated_share == 0.101
    assert config(0.1, scheme="growthbook-rollout").treated_share == 0.1001
    assert config(0.1, coverage=0.5).treated_share == pytest.approx(0.1, abs=1e-3)
    users = assign_variants(np.arange(40_000), config(0.3, coverage=0.5))
    n = (users == "treatment").sum() + (users == "control").sum()
    assert abs(n - 20_000) < 4 * 100  # sd = sqrt(40000 * .5 * .5)
    assert abs((users == "treatment").sum() - 0.3 * n) < 4 * (0.21 * n) ** 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"scheme": "growthbook-rollout", "coverage": 0.5},
            "a roll-out's coverage is its traffic_split",
        ),
        ({"scheme": "sha256", "coverage": 0.5}, "need growthbook or growthbook-v1"),
        ({"scheme": "sha256", "hash_seed": "s"}, "no seed but experiment_name"),
        ({"coverage": 1.2}, "coverage is 1.2; need a share from 0 to 1"),
    ],
)
def test_a_coverage_or_a_seed_that_would_do_nothing_is_refused(fields, message):
    with pytest.raises(DesignError, match=message):
        config(**fields)


def plan(**fields):
    primary = Metric(name="accepted", expected=0.3, detectable_difference=0.05)
    common = {"experiment_name": "exp", "control_model": "base", "treatment_model": "tuned"}
    return ABPlan(
        **common | {"primary": primary, "users_per_day": 500.0, "hash": "growthbook"} | fields
    )


def test_a_plan_records_hash_seed_and_coverage_and_hands_them_to_the_router(tmp_path):
    lock(plan(hash_seed="my-seed", coverage=0.5), tmp_path / "plan.lock.json")
    found = read_lock(tmp_path / "plan.lock.json").config
    assert (found.hash, found.hash_seed, found.coverage) == ("growthbook", "my-seed", 0.5)
    record = plan(hash="sha256").to_dict()
    assert not {"hash_seed", "coverage"} & set(record)  # old plans keep their hash


def test_a_ramp_that_would_take_users_back_is_refused_and_the_coverage_may_be_raised(tmp_path):
    path = tmp_path / "plan.lock.json"
    # treatment is [0.9, 0.95) at 10% of half of the users, and [0.8, 0.9) at 20%: nobody stays
    lock(plan(coverage=0.5), path)
    with pytest.raises(DesignError, match="raise the coverage, not the split"):
        amend(path, "ramp", traffic_split=0.2)
    assert amend(path, "ramp", coverage=1.0).config.coverage == 1.0
    assert amend(path, "ramp", traffic_split=0.2).config.phase == 2  # [0.9, 1) lies in [0.8, 1)
    with pytest.raises(DesignError, match="hash_seed cannot be amended"):
        amend(path, "other seed", hash_seed="other")
