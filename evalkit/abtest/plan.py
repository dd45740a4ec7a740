"""What an A/B test must show, with how many users and until when: decided before the first user."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from evalkit.abtest.assignment import ABTestConfig, Hash
from evalkit.errors import DataError, DesignError
from evalkit.stats import days_needed, users_needed, users_needed_mean

Kind = Literal["rate", "mean", "ratio", "p95"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is measured; the unit is always the user.

    Attributes:
        name: A metric of the outcomes table.
        kind: "rate": share of requests with outcome 1; "ratio": total value per request; "mean": the sum of a
            user's values, 0 for a user without any, as a mean over all users. Rates and ratios count requests, but their
            errors are taken over users.
        expected: The control group's value as expected; a rate needs it.
        detectable_difference: The smallest difference, treatment - control, worth finding; its sign does not matter.
        sd: Standard deviation between users; a mean or ratio needs it.
    """

    name: str
    kind: Kind = "rate"
    expected: float | None = None
    detectable_difference: float
    sd: float | None = None

    def __post_init__(self) -> None:
        """Checks that a number of users follows from it.

        Raises:
            DesignError: It does not.
        """
        if self.kind not in ("rate", "mean", "ratio"):
            raise DesignError(
                f"metric {self.name!r}: kind is {self.kind!r}; need rate, mean or ratio"
            )
        if (
            not self.name
            or not math.isfinite(self.detectable_difference)
            or self.detectable_difference == 0
        ):
            raise DesignError(
                f"metric {self.name!r}: need a name and a detectable_difference other than 0"
            )
        if self.kind == "rate" and (self.expected is None or not 0 < self.expected < 1):
            raise DesignError(
                f"metric {self.name!r}: a rate needs the expected control rate, between 0 and 1"
            )
        if self.kind == "rate" and not 0 < self.expected + abs(self.detectable_difference) <= 1:  # type: ignore[operator]
            raise DesignError(
                f"metric {self.name!r}: {self.expected} + {abs(self.detectable_difference)} is no rate"
            )
        if self.kind != "rate" and not (self.sd and self.sd > 0):
            raise DesignError(
                f"metric {self.name!r}: a {self.kind} needs sd, the standard deviation between users (metric_sd in study.yaml)"
            )


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
    better: Literal["lower", "higher"] = "lower"

    def __post_init__(self) -> None:
        """Checks the margin.

        Raises:
            DesignError: It is not a number above 0, or another field has a value unknown here.
        """
        if not math.isfinite(self.margin) or self.margin <= 0:
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
        design_effect: How many times more users are needed than with one request of each; 1 is not on the safe side where a few
            heavy users whose requests are alike hold many of the requests. `stats.user_design_effect` estimates it from a log.
        cap_per_user: The most one user may bring to the primary metric: of a mean the sum, of a rate or ratio the requests (the
            user's own level is kept). None = no cap. A plan without one has the hash it always had.
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
    cap_per_user: float | None = None

    def __post_init__(self) -> None:
        """Checks what the metrics and the split have not checked.

        Raises:
            DesignError: A field cannot be used.
        """
        config = self.config()
        for name, plain in {
            "traffic_split": config.traffic_split,
            "min_samples": config.min_samples,
        }.items():
            object.__setattr__(self, name, plain)
        for name in ("secondary", "guardrails"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not 0 < self.traffic_split < 1:
            raise DesignError(
                f"traffic_split is {self.traffic_split}; a comparison needs users on both sides"
            )
        if not (math.isfinite(self.users_per_day) and self.users_per_day > 0):
            raise DesignError(f"users_per_day is {self.users_per_day}; need a number above 0")
        for name, lowest in (("looks", 1), ("outcome_window_days", 0)):
            if not isinstance(n := getattr(self, name), int) or isinstance(n, bool) or n < lowest:
                raise DesignError(f"{name} is {n!r}; need a whole number of at least {lowest}")
        if self.cap_per_user is not None and not 0 < self.cap_per_user < math.inf:
            raise DesignError(
                f"cap_per_user is {self.cap_per_user}; need a number above 0, or None"
            )
        names = [metric.name for metric in (self.primary, *self.secondary)]
        if len(set(names)) < len(names):
            raise DesignError(f"metrics {names}: each name may stand once")

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
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields, and the numbers that follow from them, as JSON has them."""
        needs = {
            "n_control": self.n_control,
            "n_treatment": self.n_treatment,
            "n_users": self.n_users,
            "days": self.days,
        }
        lists = {
            name: [asdict(one) for one in getattr(self, name)]
            for name in ("secondary", "guardrails")
        }
        record = {**asdict(self), **lists, "needs": needs}
        if self.cap_per_user is None:  # plans locked before there were caps keep their hash
            del record["cap_per_user"]
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ABPlan:
        """Reads what `to_dict` made.

        Raises:
            DataError: The record is not a plan.
        """
        try:
            record = {"cap_per_user": None, **record}
            known = {field.name: record[field.name] for field in fields(cls)}
            return cls(
                **known
                | {
                    "primary": Metric(**record["primary"]),
                    "secondary": tuple(Metric(**one) for one in record["secondary"]),
                    "guardrails": tuple(Guardrail(**one) for one in record["guardrails"]),
                }
            )
        except (KeyError, TypeError) as why:
            raise DataError(f"not a plan: {why}") from why

    def changed(self, **values: Any) -> ABPlan:
        """A copy with other values."""
        return replace(self, **values)

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
        metric, options = (
            self.primary,
            {
                "alpha": self.alpha,
                "power": self.power,
                "design_effect": self.design_effect,
                "looks": self.looks,
            },
        )
        if metric.kind == "rate" and metric.expected is not None:
            p_new = metric.expected + abs(metric.detectable_difference)
            return users_needed(metric.expected, p_new, self.traffic_split, **options)
        return users_needed_mean(
            metric.sd or 0.0, metric.detectable_difference, self.traffic_split, **options
        )


def read_guardrails(path: Path) -> tuple[Guardrail, ...]:
    """Guardrails from a YAML list of `{name, margin, kind, better}`.

    Raises:
        DataError: The file is not such a list.
    """
    import yaml

    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8")) or []
        return tuple(Guardrail(**row) for row in rows)
    except (OSError, TypeError, ValueError, yaml.YAMLError) as why:
        raise DataError(
            f"{path}: {why}; need a list of name, margin, kind (rate, mean, ratio, p95), better"
        ) from why
