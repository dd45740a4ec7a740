"""What an A/B test must show, with how many users and until when: decided before the first user."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evalkit.abtest.assignment import ABTestConfig, Hash
from evalkit.errors import DataError, DesignError
from evalkit.files import no_number, read_yaml
from evalkit.stats import days_needed, users_needed, users_needed_mean

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["rate", "mean", "ratio", "p95"]
Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is measured; the unit is always the user.

    Attributes:
        name: A metric of the outcomes table.
        kind: "rate": share of requests with outcome 1; "ratio": total value per request; "mean": the sum of a
            user's values, 0 for a user without any, as a mean over all users. Rates and ratios count requests, but their
            errors are taken over users.
        expected: The control group's value as expected; a rate needs it.
        detectable_difference: The smallest difference, treatment - control, worth finding; `better` gives its direction.
        sd: Standard deviation between users; a mean or ratio needs it.
        better: Which direction is better: "higher", also when not given, or "lower", as for churn. A negative
            detectable_difference needs it said.
        margin: The largest loss still accepted, where the question is whether treatment is no worse; the users are then those
            who show that when both are alike, whatever the detectable_difference. None asks for better.
    """

    name: str
    kind: Kind = "rate"
    expected: float | None = None
    detectable_difference: float
    sd: float | None = None
    better: Better | None = None
    margin: float | None = None

    def __post_init__(self) -> None:
        """Checks that a number of users follows from it, and which way is better.

        Raises:
            DesignError: It does not.
        """
        if self.kind not in ("rate", "mean", "ratio"):
            raise DesignError(
                f"metric {self.name!r}: kind is {self.kind!r}; need rate, mean or ratio"
            )
        if (
            not self.name
            or no_number(self.detectable_difference)
            or self.detectable_difference == 0
        ):
            raise DesignError(
                f"metric {self.name!r}: need a name and a detectable_difference other than 0"
            )
        _refuse_no_numbers(f"metric {self.name!r}: ", self)
        if self.kind == "rate" and (self.expected is None or not 0 < self.expected < 1):
            raise DesignError(
                f"metric {self.name!r}: a rate needs the expected control rate, between 0 and 1"
            )
        self._check_direction()
        if self.margin is not None and not self.margin > 0:
            raise DesignError(
                f"metric {self.name!r}: margin is {self.margin}; need a number above 0"
            )
        sized = self.expected is not None and self.kind == "rate" and self.margin is None
        if sized and not 0 <= self.aimed_at <= 1:
            size, sign = abs(self.detectable_difference), "-" if self.lower_is_better else "+"
            raise DesignError(f"metric {self.name!r}: {self.expected} {sign} {size} is no rate")
        if self.kind != "rate" and not (self.sd and self.sd > 0):
            raise DesignError(
                f"metric {self.name!r}: a {self.kind} needs sd, the standard deviation between users (metric_sd in study.yaml)"
            )

    @property
    def lower_is_better(self) -> bool:
        """True for churn, cost, waiting times: a fall is the good news."""
        return self.better == "lower"

    @property
    def aim(self) -> float:
        """The difference worth finding, treatment - control, in the direction that is better; or as large as the margin."""
        size = self.margin or abs(self.detectable_difference)
        return -size if self.lower_is_better else size

    @property
    def aimed_at(self) -> float:
        """The level in treatment that would be worth finding."""
        return (self.expected or 0.0) + self.aim

    def to_dict(self) -> dict[str, Any]:
        """The fields; "higher" and "better" are what a plan means that says nothing, as those of before do."""
        record = asdict(self)
        if not self.lower_is_better:
            del record["better"]
        if self.margin is None:
            del record["margin"]
            return record
        return record | {"question": "no_worse"}

    def _check_direction(self) -> None:
        if self.better not in (None, "higher", "lower"):
            raise DesignError(
                f"metric {self.name!r}: better is {self.better!r}; need higher or lower"
            )
        if self.better is None and self.detectable_difference < 0:
            raise DesignError(
                f"metric {self.name!r}: detectable_difference is {self.detectable_difference}, a fall, and nothing says that a "
                f"fall is good; if it is, say better: lower (ab_metric_better in study.yaml), else give the size without a sign"
            )
        object.__setattr__(self, "better", self.better or "higher")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrail:
    """What must not get worse by more than `margin`.

    Attributes:
        name: A metric of the outcomes table, or "error", "refused", "truncated", "empty" (shares of requests) or
            "latency_ms".
        kind: rate, mean, ratio or, for "latency_ms", p95.
        margin: How much worse is still acceptable, in the metric's own unit, above 0.
        better: Which direction is better.
    """

    name: str
    margin: float
    kind: Kind = "rate"
    better: Better = "lower"

    def __post_init__(self) -> None:
        """Checks the margin.

        Raises:
            DesignError: It is not a number above 0, or another field has a value unknown here.
        """
        if no_number(self.margin) or self.margin <= 0:
            raise DesignError(
                f"guardrail {self.name!r}: margin is {self.margin}; need a number above 0"
            )
        if self.kind not in ("rate", "mean", "ratio", "p95") or self.better not in (
            "lower",
            "higher",
        ):
            raise DesignError(
                f"guardrail {self.name!r}: kind is rate, mean, ratio or p95; better is lower or higher"
            )


_LATER: Mapping[str, Any] = {
    "covariate": "",
    "cap_per_user": None,
    "control_variant": "",
    "treatment_variant": "",
    "hash_seed": "",
    "coverage": 1.0,
}  # not in plans locked before


@dataclass(frozen=True, slots=True, kw_only=True)
class ABPlan:
    """A test as planned; `lock.lock` makes it binding.

    Attributes:
        primary: The one metric that decides.
        secondary: Further metrics, reported with Holm's correction; they decide nothing.
        guardrails: What must not get worse; each must pass.
        traffic_split: Share of users in treatment.
        min_samples: Users per variant, whatever the power calculation says.
        outcome_window_days: Days after a user's first request in which outcomes count.
        users_per_day: New users a day.
        looks: How often the effect may be read: 1 = once, at the end; more = O'Brien-Fleming bounds.
        covariate: An outcome whose values from before a user's first exposure sharpen a mean (CUPED), shown beside it; "" for
            none.
        design_effect: How many times more users are needed than with one request of each; 1 is not on the safe side where a few
            heavy users whose requests are alike hold many of the requests. `stats.user_design_effect` estimates it from a log.
        cap_per_user: The most one user may bring to the primary metric: of a mean the sum, of a rate or ratio the requests (the
            user's own level is kept). None = no cap.
        control_variant: What the log calls control, such as "A"; "" for "control".
        treatment_variant: What it calls treatment.
        hash: Who assigns, and how; see `ABTestConfig`.
        hash_seed: GrowthBook's seed; "" for experiment_name.
        coverage: Share of users whom a GrowthBook experiment includes; users_per_day counts those.
        Covariate, cap, names, seed and coverage stand in the record only where they are given: a plan without them has the
        hash it always had.
    """

    experiment_name: str
    control_model: str
    treatment_model: str
    primary: Metric
    secondary: tuple[Metric, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    traffic_split: float = 0.1
    min_samples: int = 1000
    hash: Hash = "sha256"
    outcome_window_days: int = 0
    users_per_day: float
    looks: int = 1
    alpha: float = 0.05
    power: float = 0.8
    design_effect: float = 1.0
    covariate: str = ""
    cap_per_user: float | None = None
    control_variant: str = ""
    treatment_variant: str = ""
    hash_seed: str = ""
    coverage: float = 1.0

    def __post_init__(self) -> None:
        """Checks what the metrics and the split have not checked.

        Raises:
            DesignError: A field cannot be used.
        """
        _refuse_no_numbers("", self)
        config = self.config()
        for name, plain in {
            "traffic_split": config.traffic_split,
            "min_samples": config.min_samples,
            "coverage": config.coverage,
        }.items():
            object.__setattr__(self, name, plain)
        for name in ("secondary", "guardrails"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not 0 < self.traffic_split < 1:
            raise DesignError(
                f"traffic_split is {self.traffic_split}; a comparison needs users on both sides"
            )
        for name in ("users_per_day", "design_effect"):
            if not getattr(self, name) > 0:
                raise DesignError(f"{name} is {getattr(self, name)}; need a number above 0")
        for name in ("alpha", "power"):
            if not 0 < getattr(self, name) < 1:
                raise DesignError(f"{name} is {getattr(self, name)}; need a number between 0 and 1")
        for name, lowest in (("looks", 1), ("outcome_window_days", 0)):
            if not isinstance(n := getattr(self, name), int) or isinstance(n, bool) or n < lowest:
                raise DesignError(f"{name} is {n!r}; need a whole number of at least {lowest}")
        if self.covariate and self.primary.kind != "mean":
            raise DesignError(
                f"covariate {self.covariate!r}: only a mean per user can be adjusted by it; {self.primary.name!r} is a "
                f"{self.primary.kind}"
            )
        if self.cap_per_user is not None and not self.cap_per_user > 0:
            raise DesignError(
                f"cap_per_user is {self.cap_per_user}; need a number above 0, or None"
            )
        self._check_variants()
        names = [metric.name for metric in (self.primary, *self.secondary)]
        if len(set(names)) < len(names):
            raise DesignError(f"metrics {names}: each name may stand once")

    @property
    def variants(self) -> tuple[str, str]:
        """What the log calls control and treatment."""
        return self.control_variant or "control", self.treatment_variant or "treatment"

    @property
    def n_control(self) -> int:
        """Users planned for control: enough for the power, and for `min_samples` in the smaller variant."""
        return self._users()[0]

    @property
    def n_treatment(self) -> int:
        """Users planned for treatment."""
        return self._users()[1]

    @property
    def n_users(self) -> int:
        """Users planned in all."""
        return sum(self._users())

    @property
    def days(self) -> int:
        """Days until the last planned user's window has closed: whole weeks, at least one."""
        return days_needed(
            self.n_users, self.users_per_day, outcome_window_days=self.outcome_window_days
        )

    @property
    def look_fractions(self) -> tuple[float, ...]:
        """Planned looks as fractions of the information, equally spaced; the last is 1."""
        return tuple(look / self.looks for look in range(1, self.looks + 1))

    def config(self, *, phase: int = 1) -> ABTestConfig:
        """What the router needs."""
        return ABTestConfig(
            self.experiment_name,
            self.control_model,
            self.treatment_model,
            self.traffic_split,
            self.min_samples,
            hash=self.hash,
            phase=phase,
            hash_seed=self.hash_seed,
            coverage=self.coverage,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields, and the numbers that follow from them, as JSON has them."""
        needs = {
            "n_control": self.n_control,
            "n_treatment": self.n_treatment,
            "n_users": self.n_users,
            "days": self.days,
        }
        metrics = {
            "primary": self.primary.to_dict(),
            "secondary": [one.to_dict() for one in self.secondary],
            "guardrails": [asdict(one) for one in self.guardrails],
        }
        own = {
            name: value
            for name, value in asdict(self).items()
            if name not in _LATER or value != _LATER[name]
        }
        return {**own, **metrics, "needs": needs}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ABPlan:
        """Reads what `to_dict` made.

        Raises:
            DataError: The record is not a plan.
        """
        try:
            record = {**_LATER, **record}
            known = {field.name: record[field.name] for field in fields(cls)}
            return cls(
                **known
                | {
                    "primary": _metric(record["primary"]),
                    "secondary": tuple(map(_metric, record["secondary"])),
                    "guardrails": tuple(Guardrail(**one) for one in record["guardrails"]),
                }
            )
        except (KeyError, TypeError) as why:
            raise DataError(f"not a plan: {why}") from why

    def to_frame(self) -> pd.DataFrame:
        """A row a planned look: `look`, `information` (share), users so far by variant, and `z_limit`, which |z| must reach."""
        from evalkit.abtest.frames import planned_looks

        return planned_looks(self)

    def changed(self, **values: Any) -> ABPlan:
        """A copy with other values."""
        return replace(self, **values)

    def _check_variants(self) -> None:
        given = self.control_variant, self.treatment_variant
        if any(given) and (not all(given) or len(set(given)) < 2):
            raise DesignError(
                f"control_variant is {given[0]!r} and treatment_variant {given[1]!r}; need both, and two different names"
            )

    def _users(self) -> tuple[int, int]:
        needed = self._needed()
        share = self.traffic_split
        total = max(
            needed.n_treatment / share,
            needed.n_control / (1 - share),
            self.min_samples / min(share, 1 - share),
        )
        return math.ceil(round(total * (1 - share), 6)), math.ceil(round(total * share, 6))

    def _needed(self) -> Any:
        if (
            self.primary.margin
        ):  # alike, so both groups vary alike, and the margin is what lies between
            sd = self.primary.sd or 0.0
            if self.primary.kind == "rate" and self.primary.expected:
                sd = (self.primary.expected * (1 - self.primary.expected)) ** 0.5
            wanted = (sd, self.primary.margin, self.traffic_split)
            return users_needed_mean(*wanted, **self._risks())
        metric, options = self.primary, self._risks()
        if metric.kind == "rate" and metric.expected is not None:
            return users_needed(metric.expected, metric.aimed_at, self.traffic_split, **options)
        return users_needed_mean(
            metric.sd or 0.0, metric.detectable_difference, self.traffic_split, **options
        )

    def _risks(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("alpha", "power", "design_effect", "looks")}


def _metric(record: Mapping[str, object]) -> Metric:
    """A metric as recorded; one locked without a direction was read as "higher" and still is."""
    known = {name: one for name, one in record.items() if name != "question"}  # the margin says it
    return Metric(**{"better": "higher", **known})


def read_guardrails(path: Path) -> tuple[Guardrail, ...]:
    """Guardrails from a YAML list of `{name, margin, kind, better}`.

    Raises:
        DataError: The file is not such a list.
    """
    need = "a list of name, margin, kind (rate, mean, ratio, p95), better"
    rows = read_yaml(path, need=need) or []
    try:
        return tuple(Guardrail(**row) for row in rows)
    except (TypeError, ValueError) as why:
        raise DataError(f"{path}: {why}; need {need}") from why


def _refuse_no_numbers(where: str, record: Metric | ABPlan) -> None:
    """Raises a DesignError for a field that holds a number nobody can compute with."""
    for field in fields(record):
        if told := no_number(getattr(record, field.name)):
            raise DesignError(f"{where}{field.name}: {told}")
