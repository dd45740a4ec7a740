import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.abtest.assignment import (
    ABTestConfig,
    assign_variant,
    assign_variants,
    variant_expression,
)
from evalkit.errors import DesignError

HASHES = ["sha256", "md5-1000"]
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def config(split=0.5, *, name="exp", scheme="sha256"):
    return ABTestConfig(name, "base", "tuned", split, hash=scheme)


# int(md5("exp:" + id), 16) % 1000, worked out with `md5sum` and `bc`
MD5_BUCKETS = {"ann": 940, "bob": 991, "user-42": 301, "Zoë": 856, "": 759}


@pytest.mark.parametrize(("user_id", "bucket"), MD5_BUCKETS.items())
def test_md5_1000_puts_users_into_the_articles_buckets(user_id, bucket):
    # a user is treated when bucket / 1000 < split: so not at bucket / 1000, but at the next thousandth
    assert assign_variant(user_id, config(bucket / 1000, scheme="md5-1000")) == "control"
    assert assign_variant(user_id, config((bucket + 1) / 1000, scheme="md5-1000")) == "treatment"


@pytest.mark.parametrize("split", [0.0, 0.001, 0.0005, 0.1, 0.29, 0.3, 0.57, 0.7, 0.9999, 1.0])
def test_md5_1000_is_the_articles_line_of_code_for_users_and_columns(split):
    ids = [f"u{n}" for n in range(3000)]
    buckets = [int(hashlib.md5(f"exp:{user}".encode()).hexdigest(), 16) % 1000 for user in ids]
    expected = ["treatment" if bucket / 1000 < split else "control" for bucket in buckets]
    assert [assign_variant(user, config(split, scheme="md5-1000")) for user in ids] == expected
    assert assign_variants(ids, config(split, scheme="md5-1000")).tolist() == expected


# sha256("3:exp:" + id)[:8] as a share of 2^64, worked out with `sha256sum` and `bc`: these must never change
SHARES = {
    "ann": 0.1980912420747548,
    "bob": 0.6072756815106697,
    "user-42": 0.3297791360713693,
    "Zoë": 0.8204471482343353,
}


@pytest.mark.parametrize(("user_id", "share"), SHARES.items())
def test_the_default_hash_never_moves_a_running_experiment(user_id, share):
    assert assign_variant(user_id, config(share - 1e-9)) == "control"
    assert assign_variant(user_id, config(share + 1e-9)) == "treatment"


@given(texts, st.floats(0, 1), st.floats(0, 1), st.sampled_from(HASHES))
def test_raising_the_split_never_takes_a_user_back(user_id, one, other, scheme):
    low, high = sorted([one, other])
    if assign_variant(user_id, config(low, scheme=scheme)) == "treatment":
        assert assign_variant(user_id, config(high, scheme=scheme)) == "treatment"


@given(texts, st.sampled_from(HASHES))
def test_nobody_is_treated_at_0_and_everybody_at_1(user_id, scheme):
    assert assign_variant(user_id, config(0.0, scheme=scheme)) == "control"
    assert assign_variant(user_id, config(1.0, scheme=scheme)) == "treatment"
    assert assign_variant(user_id, config(1, scheme=scheme)) == "treatment"


def test_experiment_and_user_cannot_be_confused():
    """The article hashes the same text for ("exp:1", "2") and ("exp", "1:2"): they always agree; by default they do not."""
    pairs = [(f"exp:{n}", "2", "exp", f"{n}:2") for n in range(400)]

    def n_agreeing(scheme):
        return sum(
            assign_variant(u, config(name=a, scheme=scheme))
            == assign_variant(v, config(name=b, scheme=scheme))
            for a, u, b, v in pairs
        )

    assert n_agreeing("md5-1000") == 400
    assert 150 < n_agreeing("sha256") < 250  # 200 +- 5 standard deviations of 10


@pytest.mark.parametrize("scheme", HASHES)
def test_experiments_are_independent_of_each_other(scheme):
    ids = np.arange(40_000)
    one, other = (
        assign_variants(ids, config(name=name, scheme=scheme)) == "treatment"
        for name in ("spring", "summer")
    )
    # both treated: expected 10,000, standard deviation sqrt(40000 * .25 * .75) = 87
    assert abs((one & other).sum() - 10_000) < 4 * 87


def test_a_split_of_half_a_thousandth_is_kept_by_the_default_and_doubled_by_the_articles_hash():
    ids = np.arange(400_000)
    treated = {
        scheme: (assign_variants(ids, config(0.0005, scheme=scheme)) == "treatment").sum()
        for scheme in HASHES
    }
    assert abs(treated["sha256"] - 200) < 4 * 200**0.5
    assert abs(treated["md5-1000"] - 400) < 4 * 400**0.5


@pytest.mark.parametrize("scheme", HASHES)
def test_a_column_in_any_wrapping_keeps_its_order_and_equals_one_by_one(scheme):
    import pyarrow as pa

    ids = [f"Zoë {n}'\n" for n in range(2000)]
    expected = [assign_variant(user, config(0.3, scheme=scheme)) for user in ids]
    for column in (
        ids,
        tuple(ids),
        iter(ids),
        pd.Series(ids),
        np.array(ids),
        np.array(ids, dtype=object),
        pa.array(ids),
    ):
        assert assign_variants(column, config(0.3, scheme=scheme)).tolist() == expected


def test_a_long_column_keeps_its_order():
    ids = np.arange(500_000)
    found = assign_variants(ids, config(0.3))
    assert all(found[n] == assign_variant(str(n), config(0.3)) for n in range(0, 500_000, 997))


def test_columns_with_gaps_or_fractions_are_refused():
    with pytest.raises(DesignError, match="1 of them missing"):
        assign_variants(["ann", None], config())
    with pytest.raises(DesignError, match="need texts or whole numbers"):
        assign_variants(pd.Series([1, None]), config())
    assert assign_variants([], config()).tolist() == []


@pytest.mark.filterwarnings(
    "ignore:fetch_arrow_table:DeprecationWarning"
)  # Ibis 12 calls DuckDB 2's old name
@pytest.mark.parametrize("scheme", HASHES)
def test_the_expression_gives_the_same_in_the_engine(scheme):
    import ibis
    import pyarrow as pa

    ids = [f"Zoë {n}" for n in range(2000)]
    users = ibis.duckdb.connect().create_table("users", pa.table({"user_id": ids}))
    for split in (0.0, 0.3, 1.0):
        found = variant_expression(users.user_id, config(split, scheme=scheme)).to_pyarrow()
        assert found.to_pylist() == assign_variants(ids, config(split, scheme=scheme)).tolist()


@pytest.mark.parametrize("scheme", HASHES)
@pytest.mark.parametrize("engine", ["pyspark", "duckdb"])
def test_the_expression_compiles_for_engines_that_hash(engine, scheme):
    import ibis

    users = ibis.table({"user_id": "string"}, name="users")
    sql = ibis.to_sql(variant_expression(users.user_id, config(0.3, scheme=scheme)), dialect=engine)
    assert scheme.partition("-")[0] in sql.lower() or "sha2" in sql.lower()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"traffic_split": 1.1}, "traffic_split is 1.1; need a share from 0 to 1"),
        ({"traffic_split": -0.1}, "traffic_split"),
        ({"traffic_split": float("nan")}, "traffic_split"),
        ({"traffic_split": "10%"}, "traffic_split is '10%'"),
        ({"traffic_split": True}, "traffic_split is True"),
        ({"min_samples": 0}, "min_samples is 0; need a whole number of at least 1"),
        ({"min_samples": 10.5}, "min_samples"),
        ({"phase": 0}, "phase"),
        ({"experiment_name": ""}, "experiment_name is ''; need a text"),
        ({"control_model": None}, "control_model is None"),
        ({"hash": "md5"}, "hash is 'md5'; need one of sha256, md5-1000"),
    ],
)
def test_a_config_that_cannot_work_is_refused(fields, message):
    good = {"experiment_name": "exp", "control_model": "base", "treatment_model": "tuned"}
    with pytest.raises(DesignError, match=message):
        ABTestConfig(**good | fields)


@pytest.mark.spark
@pytest.mark.filterwarnings("ignore")  # pyspark and Ibis on pandas 3
@pytest.mark.parametrize("scheme", [*HASHES, "growthbook"])
def test_the_expression_gives_the_same_in_spark(spark, scheme):
    import ibis

    ids = [f"Zoë {n}" for n in range(500)]
    spark.createDataFrame([(user,) for user in ids], "user_id string").createOrReplaceTempView(
        "people"
    )
    people = ibis.pyspark.connect(spark).table("people")
    found = people.select(
        "user_id", variant=variant_expression(people.user_id, config(0.3, scheme=scheme))
    ).to_pandas()
    assert dict(zip(found["user_id"], found["variant"], strict=True)) == {
        user: assign_variant(user, config(0.3, scheme=scheme)) for user in ids
    }


def test_numbers_of_numpy_are_numbers():
    config = ABTestConfig("exp", "base", "tuned", np.float32(0.5), np.int64(10))
    assert config == ABTestConfig("exp", "base", "tuned", 0.5, 10)
    assert (type(config.traffic_split), type(config.min_samples)) == (float, int)


def test_a_categorical_column_is_a_column_of_texts():
    config, users = ABTestConfig("exp", "base", "tuned", 0.5), ["ann", "bob", "ann"]
    assert assign_variants(pd.Series(users, dtype="category"), config).tolist() == [
        assign_variant(u, config) for u in users
    ]


@pytest.mark.parametrize("users", [["ann", 1], ["\ud800"]])
def test_a_column_that_no_engine_can_hold_is_refused(users):
    with pytest.raises(DesignError, match="need texts or whole numbers"):
        assign_variants(users, ABTestConfig("exp", "base", "tuned"))
