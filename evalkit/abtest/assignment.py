"""Who gets which model: decided by a hash of the user's id, so that a user keeps it.

An engine's workers import this module, and have no package but the standard library's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from evalkit.errors import DataError, DesignError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Variant = Literal["control", "treatment"]
Assign = Callable[[str], Variant | None]
Hash = Literal[
    "sha256",
    "md5-1000",
    "growthbook",
    "growthbook-v1",
    "growthbook-rollout",
    "growthbook-rollout-v1",
    "external",
]
Column: TypeAlias = Any  # of Ibis: its type is known when the query runs

VARIANTS: tuple[Variant, Variant] = ("control", "treatment")
_BUCKETS, _ARTICLES = 2**64, 1000
_GROWTHBOOKS = {1: 1_000, 2: 10_000}  # by its hash version
_OFFSET, _PRIME, _MASK = 0x811C9DC5, 0x01000193, 0xFFFFFFFF  # of FNV-1a
_DIGITS = 10  # 1 - 0.7 is 0.30000000000000004, where people gave GrowthBook the weight 0.3
_NOBODY = ""  # no flag's variant: comes back when nobody decided


@dataclass(frozen=True, slots=True)
class ABTestConfig:
    """A running split; the first five fields are positional, in the article's order.

    Attributes:
        traffic_split: Share of users in treatment, 0..1.
        min_samples: Users each variant needs before the effect may be read, whatever the power calculation says.
        hash: "sha256": 2^64 buckets, and no two pairs of experiment and user hash the same text. "md5-1000": the
            article's 1000 buckets, bit for bit, for an experiment that already runs on them. "growthbook": a GrowthBook
            experiment of two variations, control first, by its hash version 2; "growthbook-rollout": a roll-out, a forced
            value with a coverage (here traffic_split) for whom it is treatment; "-v1" behind either: its hash version 1.
            "external": somebody else assigns, by `run_ab_request(..., assign=...)` or before the log was made.
        hash_seed: GrowthBook's seed, by default the experiment's tracking key or the roll-out's feature key; "" for
            experiment_name.
        coverage: Share of users whom a GrowthBook experiment includes; the others are not in the test.
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
    hash_seed: str = ""
    coverage: float = 1.0

    def __post_init__(self) -> None:
        """Checks each field.

        Raises:
            DesignError: One of them cannot be used.
        """
        for name in ("experiment_name", "control_model", "treatment_model"):
            if not isinstance(text := getattr(self, name), str) or not text.strip():
                raise DesignError(f"{name} is {text!r}; need a text that is not empty")
        for name in ("traffic_split", "coverage"):
            share = getattr(self, name)
            if not isinstance(share, Real) or isinstance(share, bool) or not 0 <= float(share) <= 1:
                raise DesignError(f"{name} is {share!r}; need a share from 0 to 1, e.g. 0.1")
            object.__setattr__(self, name, float(share))
        for name in ("min_samples", "phase"):
            if not isinstance(n := getattr(self, name), Integral) or isinstance(n, bool) or n < 1:
                raise DesignError(f"{name} is {n!r}; need a whole number of at least 1")
            object.__setattr__(self, name, int(n))
        if self.hash not in get_args(Hash):
            raise DesignError(f"hash is {self.hash!r}; need one of {', '.join(get_args(Hash))}")
        if self.coverage < 1 and not self._is_experiment:
            need = "growthbook or growthbook-v1; a roll-out's coverage is its traffic_split"
            raise DesignError(f"coverage is {self.coverage} with hash {self.hash!r}; need {need}")
        if self.hash_seed and not self._is_growthbook:
            need = "a GrowthBook hash; the others have no seed but experiment_name"
            raise DesignError(f"hash_seed is {self.hash_seed!r} with {self.hash!r}; need {need}")

    @property
    def treated_share(self) -> float:
        """Share of the test's users who come into treatment: traffic_split, as far as the hash has buckets for it."""
        if self.hash == "md5-1000":
            return _n_treated_buckets(self) / _ARTICLES
        if not self._is_growthbook:
            return self.traffic_split
        found = [*self._places().values()]
        control, treatment = map(found.count, VARIANTS)
        return treatment / (control + treatment) if control + treatment else self.traffic_split

    def keeps(self, later: ABTestConfig) -> bool:
        """True when nobody treated under the smaller of two splits is out of treatment under the larger."""
        if not (self._is_growthbook and later._is_growthbook):
            return True
        one, other = (
            {place for place in self._places() if config._placed(place) == "treatment"}
            for config in (self, later)
        )
        return one <= other or other <= one

    @property
    def _is_growthbook(self) -> bool:
        return self.hash.startswith("growthbook")

    @property
    def _is_experiment(self) -> bool:
        return self._is_growthbook and "rollout" not in self.hash

    @property
    def _version(self) -> int:
        return 1 if self.hash.endswith("-v1") else 2

    def _places(self) -> dict[float, Variant | None]:
        """All of GrowthBook's places, each with its variant."""
        n = _GROWTHBOOKS[self._version]
        return {bucket / n: self._placed(bucket / n) for bucket in range(n)}

    def _placed(self, place: float) -> Variant | None:
        """The variant at one of GrowthBook's places."""
        if not self._is_experiment:  # a roll-out treats one bucket more than it says, but for 0
            return "treatment" if self.traffic_split and place <= self.traffic_split else "control"
        ranges = growthbook_ranges(self.traffic_split, self.coverage)
        for variant, (start, end) in zip(VARIANTS, ranges, strict=True):
            if start <= place < end:
                return variant
        return None

    def model(self, variant: Variant | None) -> str:
        """The model that serves a variant; whoever is not in the test gets control's."""
        return self.treatment_model if variant == "treatment" else self.control_model


def assign_variant(user_id: str, config: ABTestConfig) -> Variant | None:
    """The user's variant: the same on every call, in every process, and never taken back when the split is raised.

    None for a user whom a GrowthBook experiment with a coverage below 1 leaves out. Below it, only the coverage may be raised,
    not the split: each variation has its own stretch of buckets, and those of treatment would move.

    Raises:
        DesignError: Somebody else assigns.

    Example:
        >>> config = ABTestConfig("new-coder", "base", "tuned", 0.1)
        >>> assign_variant("user-7", config), assign_variant("user-8", config)
        ('control', 'control')
    """
    if config._is_growthbook:
        seed = config.hash_seed or config.experiment_name
        return config._placed(growthbook_place(seed, str(user_id), config._version))
    refuse_external(config)
    text = (_prefix(config) + str(user_id)).encode("utf-8", "backslashreplace")
    if config.hash == "md5-1000":
        bucket = int(hashlib.md5(text, usedforsecurity=False).hexdigest(), 16) % _ARTICLES
        return "treatment" if bucket / _ARTICLES < config.traffic_split else "control"
    bucket = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    return "treatment" if bucket < _threshold(config) else "control"


def assign_variants(user_ids: Iterable[str], config: ABTestConfig) -> np.ndarray:
    """The variants of a whole column, in its order, as `assign_variant` gives them; DuckDB does the hashing where it can.

    Args:
        user_ids: A list, pandas Series, numpy or Arrow array of texts or whole numbers.
        config: The split.

    Raises:
        DesignError: An id is missing, the column holds fractions, or somebody else assigns.

    Example:
        >>> assign_variants(["user-1", "user-2"], ABTestConfig("new-coder", "base", "tuned", 1.0)).tolist()
        ['treatment', 'treatment']
    """
    import duckdb
    import numpy as np

    table = _column(user_ids)
    if config._is_growthbook:
        found = [assign_variant(user, config) for user in table["user_id"].to_pylist()]
        return np.array(found, dtype=object)
    refuse_external(config)
    with duckdb.connect() as engine:
        engine.register("users", table)
        found = engine.execute(_sql(config), [_prefix(config)]).fetchnumpy()
    return np.array(VARIANTS, dtype=object)[found["treated"].astype(int)]


def variant_expression(user_id: Column, config: ABTestConfig) -> Column:
    """The variant as an expression over an Ibis text column, for engines in which Ibis can hash (DuckDB, Spark).

    GrowthBook's hash is no function of any engine: there Ibis hands the engine a Python function.

    Args:
        user_id: An Ibis column of texts, with ids as they were assigned: not hashed by the log.
        config: The split.
    """
    if config._is_growthbook:
        import ibis

        def growthbook_variant(user: str) -> str:
            return assign_variant(user, config) or ""  # DuckDB takes no null from a function

        return ibis.udf.scalar.python(growthbook_variant)(user_id).nullif(ibis.literal(""))
    refuse_external(config)
    text = _prefix(config) + user_id
    if config.hash == "md5-1000":
        treated = _article_bucket(text.hexdigest("md5")) < _n_treated_buckets(config)
    else:
        treated = text.hexdigest("sha256") < _hex_threshold(config)
    return treated.ifelse("treatment", "control")


def refuse_external(config: ABTestConfig) -> None:
    """Raises a DesignError where the kit cannot say who gets which model."""
    if config.hash == "external":
        remedy = "pass run_ab_request(..., assign=...), or read the variants from the log"
        raise DesignError(f"hash is 'external', so somebody else assigns; {remedy}")


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
    return sum(bucket / _ARTICLES < config.traffic_split for bucket in range(_ARTICLES))


def _sql(config: ABTestConfig) -> str:
    if config.hash == "sha256":
        return f"SELECT sha256(? || user_id) < '{_hex_threshold(config)}' AS treated FROM users"  # noqa: S608
    halves = [f"CAST('0x' || digest[{start}:{start + 15}] AS UBIGINT) % 1000" for start in (1, 17)]
    bucket = f"({halves[0]} * 616 + {halves[1]}) % 1000"  # 2^64 % 1000 = 616
    digests = "SELECT md5(? || user_id) AS digest FROM users"
    return f"SELECT {bucket} < {_n_treated_buckets(config)} AS treated FROM ({digests})"  # noqa: S608


def _article_bucket(digest: Column) -> Column:
    """A 128-bit digest modulo 1000, digit by digit, since few engines know numbers that large."""
    digits = [digest.substr(place, 1) for place in range(32)]
    values = [one.ascii_str() - (one >= "a").ifelse(87, 48) for one in digits]
    return sum(one * pow(16, 31 - place, 1000) for place, one in enumerate(values)) % 1000


def _column(user_ids: Iterable[str]) -> pa.Table:
    import pyarrow as pa

    is_array = hasattr(user_ids, "__array__") or hasattr(user_ids, "__arrow_array__")
    need = "texts or whole numbers without a gap"
    try:
        column = pa.array(user_ids if is_array else list(user_ids))
    except (pa.ArrowException, UnicodeEncodeError) as why:
        raise DesignError(f"user ids are no column ({why}); need {need}") from why
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kinds = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)
    if len(column) and (column.null_count or not any(known(column.type) for known in kinds)):
        told = f"{column.type}, {column.null_count} of them missing"
        raise DesignError(f"user ids are {told}; need {need}")
    return pa.table({"user_id": column.cast(pa.large_string())})


# Users as GrowthBook's SDKs spread them, so that an experiment or a roll-out that runs there can be read and served here.
# Source: GrowthBook's SDK specification (hash, getBucketRanges, inRange, isIncludedInRollout); the tests hold its vectors.
# Its SDKs differ: here characters outside ASCII count by their UTF-16 units, and the last bucket of a roll-out is within it,
# as in JavaScript (the Python SDK leaves it out from 4.0 on).


def growthbook_place(seed: str, user_id: str, version: int = 2) -> float:
    """The user's place, 0..1, in thousandths (hash version 1) or ten thousandths (2).

    Example:
        >>> growthbook_place("seed", "a"), growthbook_place("", "a", 1)
        (0.0505, 0.22)
    """
    hashed = _fnv1a(user_id + seed) if version == 1 else _fnv1a(str(_fnv1a(user_id, _seeded(seed))))
    return hashed % _GROWTHBOOKS[version] / _GROWTHBOOKS[version]


def growthbook_ranges(
    treated: float, coverage: float = 1.0
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where control and treatment of an experiment lie, each a part of its own weight; the end is outside."""
    control = round(1 - treated, _DIGITS)
    return (0.0, coverage * control), (control, control + coverage * treated)


@lru_cache(maxsize=64)
def _seeded(seed: str) -> int:
    return _fnv1a(seed)


def _fnv1a(text: str, state: int = _OFFSET) -> int:
    """FNV-1a of 32 bits, over UTF-16 units as JavaScript's charCodeAt gives them."""
    units = text.encode("utf-16-le", "surrogatepass")
    for low, high in zip(units[::2], units[1::2], strict=True):
        state = (state ^ (low | high << 8)) * _PRIME & _MASK
    return state


def openfeature_assigner(
    client: Any,
    flag: str,
    *,
    treatment: str | bool = True,
    control: str | bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> Assign:
    """What an OpenFeature flag says of a user, for `run_ab_request(..., assign=...)`; the user's id is the targeting key.

    A flag that is off, unknown or not served, and a client without a provider, decide nothing: then the function raises, and
    the router counts no exposure. An undecided flag of True and False comes back as the default value, like one that was
    decided so; to tell them apart, a flag that gives `control` is asked once more with the other default.

    Args:
        client: `openfeature.api.get_client()`, or anything with its `get_boolean_details` and `get_string_details`.
        flag: The flag's key.
        treatment: The flag's value for treatment: True, or a text for a flag of texts.
        control: The flag's value for control.
        attributes: Of the evaluation context, the same for all users.

    Raises:
        DesignError: The two values are not two texts or True and False.
    """
    if type(treatment) is not type(control) or treatment == control:
        need = "True and False, or two different texts"
        raise DesignError(f"treatment is {treatment!r} and control {control!r}; need {need}")
    is_text = isinstance(treatment, str)
    ask = client.get_string_details if is_text else client.get_boolean_details
    defaults = (_NOBODY,) if is_text else (control, treatment)

    def assign(user_id: str) -> Variant:
        from openfeature.evaluation_context import EvaluationContext

        context = EvaluationContext(targeting_key=user_id, attributes=dict(attributes or {}))
        for default in defaults:
            value = _decided(ask(flag, default, context), flag)
            if value != default:
                break
        else:
            raise DataError(f"flag {flag!r}: nobody decided, the default value came back")
        if value not in (treatment, control):
            raise DataError(f"flag {flag!r} gave {value!r}; need {treatment!r} or {control!r}")
        return "treatment" if value == treatment else "control"

    return assign


def _decided(details: Any, flag: str) -> object:
    """The value of an evaluation that did not fail."""
    failed = details.error_code is not None
    if failed or details.reason in ("DISABLED", "ERROR"):
        code = getattr(details.error_code, "value", details.error_code)
        what = f"{code}: {details.error_message or ''}" if failed else f"reason {details.reason}"
        raise DataError(f"flag {flag!r}: {what.removesuffix(': ')}")
    return details.value
