"""Who gets which model: decided by a hash of the user's id, so that a user keeps it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

from evalkit.errors import DesignError

if TYPE_CHECKING:
    import numpy as np

Variant = Literal["control", "treatment"]
Hash = Literal["sha256", "md5-1000"]

_BUCKETS = 2**64


@dataclass(frozen=True, slots=True)
class ABTestConfig:
    """A running split; the first five fields are positional, in the article's order.

    Attributes:
        traffic_split: Share of users in treatment, 0..1.
        min_samples: Users each variant needs before the effect may be read, whatever the power calculation says.
        hash: "sha256": 2^64 buckets, and no two pairs of experiment and user hash the same text. "md5-1000": the
            article's 1000 buckets, bit for bit, for an experiment that already runs on them.
        phase: Counts the splits of a ramp; a plan hands it out.
    """

    experiment_name: str
    control_model: str
    treatment_model: str
    traffic_split: float = 0.1
    min_samples: int = 1000
    _: KW_ONLY
    hash: Hash = "sha256"
    phase: int = 1

    def __post_init__(self) -> None:
        """Checks each field.

        Raises:
            DesignError: One of them cannot be used.
        """
        for name in ("experiment_name", "control_model", "treatment_model"):
            if not isinstance(text := getattr(self, name), str) or not text.strip():
                raise DesignError(f"{name} is {text!r}; need a text that is not empty")
        split = self.traffic_split
        if not isinstance(split, Real) or isinstance(split, bool) or not 0 <= split <= 1:
            raise DesignError(f"traffic_split is {split!r}; need a share from 0 to 1, e.g. 0.1")
        object.__setattr__(self, "traffic_split", float(split))
        for name in ("min_samples", "phase"):
            if not isinstance(n := getattr(self, name), Integral) or isinstance(n, bool) or n < 1:
                raise DesignError(f"{name} is {n!r}; need a whole number of at least 1")
            object.__setattr__(self, name, int(n))
        if self.hash not in ("sha256", "md5-1000"):
            raise DesignError(f"hash is {self.hash!r}; need 'sha256' or 'md5-1000'")

    def model(self, variant: Variant) -> str:
        """The model that serves a variant."""
        return self.treatment_model if variant == "treatment" else self.control_model


def assign_variant(user_id: str, config: ABTestConfig) -> Variant:
    """The user's variant: the same on every call, in every process, and never taken back when the split is raised.

    Example:
        >>> config = ABTestConfig("new-coder", "base", "tuned", 0.1)
        >>> assign_variant("user-7", config), assign_variant("user-8", config)
        ('control', 'control')
    """
    text = (_prefix(config) + str(user_id)).encode("utf-8", "backslashreplace")
    if config.hash == "md5-1000":
        bucket = int(hashlib.md5(text, usedforsecurity=False).hexdigest(), 16) % 1000
        return "treatment" if bucket / 1000 < config.traffic_split else "control"
    bucket = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    return "treatment" if bucket < _threshold(config) else "control"


def assign_variants(user_ids: Iterable[str], config: ABTestConfig) -> np.ndarray:
    """The variants of a whole column, in its order, as `assign_variant` gives them; DuckDB does the hashing.

    Args:
        user_ids: A list, pandas Series, numpy or Arrow array of texts or whole numbers.
        config: The split.

    Raises:
        DesignError: An id is missing, or the column holds fractions.

    Example:
        >>> assign_variants(["user-1", "user-2"], ABTestConfig("new-coder", "base", "tuned", 1.0)).tolist()
        ['treatment', 'treatment']
    """
    import duckdb
    import numpy as np

    table = _column(user_ids)
    with duckdb.connect() as engine:
        engine.register("users", table)
        found = engine.execute(_sql(config), [_prefix(config)]).fetchnumpy()
    return np.array(["control", "treatment"], dtype=object)[found["treated"].astype(int)]


def variant_expression(user_id: Any, config: ABTestConfig) -> Any:
    """The variant as an expression over an Ibis text column, for engines in which Ibis can hash (DuckDB, Spark).

    Args:
        user_id: An Ibis column of texts, with ids as they were assigned: not hashed by the log.
        config: The split.
    """
    name = "md5" if config.hash == "md5-1000" else "sha256"
    digest = (_prefix(config) + user_id).hexdigest(name)
    treated = (
        _article_bucket(digest) < _n_treated_buckets(config)
        if name == "md5"
        else digest < _hex_threshold(config)
    )
    return treated.ifelse("treatment", "control")


def _prefix(config: ABTestConfig) -> str:
    """What stands before the user id; its length makes "exp:1" + "2" and "exp" + "1:2" different texts."""
    name = config.experiment_name
    return f"{name}:" if config.hash == "md5-1000" else f"{len(name)}:{name}:"


def _threshold(config: ABTestConfig) -> int:
    return int(config.traffic_split * _BUCKETS)  # exact: a power of two only moves the exponent


def _hex_threshold(config: ABTestConfig) -> str:
    """Digests below this text are treated; "g" comes after every hexadecimal digit."""
    return f"{threshold:016x}" if (threshold := _threshold(config)) < _BUCKETS else "g"


def _n_treated_buckets(config: ABTestConfig) -> int:
    return sum(bucket / 1000 < config.traffic_split for bucket in range(1000))


def _sql(config: ABTestConfig) -> str:
    if config.hash == "sha256":
        return f"SELECT sha256(? || user_id) < '{_hex_threshold(config)}' AS treated FROM users"  # noqa: S608
    halves = [f"CAST('0x' || digest[{start}:{start + 15}] AS UBIGINT) % 1000" for start in (1, 17)]
    bucket = f"({halves[0]} * 616 + {halves[1]}) % 1000"  # 2^64 % 1000 = 616
    digests = "SELECT md5(? || user_id) AS digest FROM users"
    return f"SELECT {bucket} < {_n_treated_buckets(config)} AS treated FROM ({digests})"  # noqa: S608


def _article_bucket(digest: Any) -> Any:
    """A 128-bit digest modulo 1000, digit by digit, since few engines know numbers that large."""
    digits = (digest.substr(place, 1) for place in range(32))
    return sum(_digit(one) * pow(16, 31 - place, 1000) for place, one in enumerate(digits)) % 1000


def _digit(char: Any) -> Any:
    return char.ascii_str() - (char >= "a").ifelse(87, 48)


def _column(user_ids: Iterable[str]) -> Any:
    import pyarrow as pa

    values = (
        user_ids
        if hasattr(user_ids, "__array__") or hasattr(user_ids, "__arrow_array__")
        else list(user_ids)
    )
    try:
        column = pa.array(values)
    except (pa.ArrowException, UnicodeEncodeError) as why:
        raise DesignError(
            f"the user ids are no column of texts or of whole numbers: {why}"
        ) from why
    column = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    column = (
        column.cast(pa.string()) if pa.types.is_null(column.type) and not len(column) else column
    )
    if not (
        pa.types.is_integer(column.type)
        or pa.types.is_string(column.type)
        or pa.types.is_large_string(column.type)
    ):
        raise DesignError(
            f"user ids are {column.type}; need texts or whole numbers (a gap turns whole numbers into fractions)"
        )
    if column.null_count:
        raise DesignError(
            f"{column.null_count} user ids are missing; drop or name these rows first"
        )
    return pa.table({"user_id": column.cast(pa.large_string())})
