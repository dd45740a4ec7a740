"""What an A/B test must show, with how many users and until when: decided before the first user."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

import msgspec

from evalkit import stats
from evalkit.abtest.assignment import ABTestConfig, Hash
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, read_yaml
from evalkit.wording import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Kind = Literal["rate", "mean", "ratio", "p95"]
Better = Literal["higher", "lower"]
Text = Annotated[str, msgspec.Meta(min_length=1, description="a text that is not empty")]
Finite = Annotated[float, msgspec.Meta(ge=-1e150, le=1e150, description="a finite number")]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e150, description="a number above 0")]
Share = Annotated[float, msgspec.Meta(gt=0, lt=1, description="a number between 0 and 1")]
Count = Annotated[int, msgspec.Meta(ge=1, le=10**9, description="a whole number of at least 1")]
Days = Annotated[int, msgspec.Meta(ge=0, le=10**9, description="a whole number of at least 0")]
DAY_S = 86400.0
UNNAMED = "(not named)"  # the experiment of a plan that is only thought about
SPLITS = (0.05, 0.1, 0.2, 0.3, 0.5)
_NORMAL = NormalDist()


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

    name: Text
    kind: Literal["rate", "mean", "ratio"] = "rate"
    expected: Finite | None = None
    detectable_difference: Finite
    sd: Finite | None = None
    better: Better | None = None
    margin: Positive | None = None

    def __post_init__(self) -> None:
        """Checks that a number of users follows from it, and which way is better.

        Raises:
            DesignError: It does not.
        """
        said = f"metric {self.name!r}: "
        _check(self, said)
        for fault in self._faults():
            raise DesignError(said + fault)
        object.__setattr__(self, "better", self.better or "higher")

    def _faults(self) -> Iterator[str]:
        difference = self.detectable_difference
        if difference == 0:
            yield "need a detectable_difference other than 0"
        if self.is_rate and (self.expected is None or not 0 < self.expected < 1):
            yield "a rate needs the expected control rate, between 0 and 1"
        if self.better is None and difference < 0:
            yield (
                f"detectable_difference is {difference}, a fall, and nothing says that a fall is good; if it is, say "
                f"better: lower (ab_metric_better in study.yaml), else give the size without a sign"
            )
        if self.is_rate and self.margin is None and not 0 <= self.aimed_at <= 1:
            yield f"from {self.expected} a change of {self.aim} leads to no rate"
        if not self.is_rate and not (self.sd and self.sd > 0):
            yield f"a {self.kind} needs sd, the standard deviation between users (metric_sd in study.yaml)"

    @property
    def is_rate(self) -> bool:
        """Whether it is read in percent and points."""
        return self.kind == "rate"

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

    def rate_after(self, difference: float) -> float:
        """The treatment's rate after a true difference."""
        return min(1.0, max(0.0, (self.expected or 0.0) + difference))

    def variance(self, difference: float = 0.0) -> float:
        """Between users with one request each, after a true difference."""
        level = self.rate_after(difference)
        return level * (1 - level) if self.is_rate else (self.sd or 0.0) ** 2

    def to_dict(self) -> JsonObject:
        """The fields; "higher" and "better" are what a plan means that says nothing, as those of before do."""
        record = asdict(self)
        if not self.lower_is_better:
            del record["better"]
        if self.margin is None:
            del record["margin"]
            return record
        return record | {"question": "no_worse"}

    @classmethod
    def from_dict(cls, record: JsonObject) -> Metric:
        """Reads what `to_dict` made; one locked without a direction was read as "higher" and still is."""
        known = {name: one for name, one in record.items() if name != "question"}  # margin says it
        return cls(**{"better": "higher", **known})


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

    name: Text
    margin: Positive
    kind: Kind = "rate"
    better: Better = "lower"

    def __post_init__(self) -> None:
        """Checks the margin.

        Raises:
            DesignError: It is not a number above 0, or another field has a value unknown here.
        """
        _check(self, f"guardrail {self.name!r}: ")


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

    experiment_name: Text
    control_model: Text
    treatment_model: Text
    primary: Metric
    secondary: tuple[Metric, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    traffic_split: Share = 0.1
    min_samples: Count = 1000
    hash: Hash = "sha256"
    outcome_window_days: Days = 0
    users_per_day: Positive
    looks: Count = 1
    alpha: Share = 0.05
    power: Share = 0.8
    design_effect: Positive = 1.0
    covariate: str = ""
    cap_per_user: Positive | None = None
    control_variant: str = ""
    treatment_variant: str = ""
    hash_seed: str = ""
    coverage: float = 1.0

    def __post_init__(self) -> None:
        """Checks what the metrics and the split have not checked.

        Raises:
            DesignError: A field cannot be used.
        """
        _check(self)
        self.config()
        for fault in self._faults():
            raise DesignError(fault)

    def _faults(self) -> Iterator[str]:
        if self.covariate and self.primary.kind != "mean":
            what = f"only a mean per user can be adjusted by it; {self.primary.name!r} is a {self.primary.kind}"
            yield f"covariate {self.covariate!r}: {what}"
        given = self.control_variant, self.treatment_variant
        if any(given) and (not all(given) or len(set(given)) < 2):
            told = f"control_variant is {given[0]!r} and treatment_variant {given[1]!r}"
            yield f"{told}; need both, and two different names"
        names = [metric.name for metric in (self.primary, *self.secondary)]
        if len(set(names)) < len(names):
            yield f"metrics {names}: each name may stand once"

    @property
    def variants(self) -> tuple[str, str]:
        """What the log calls control and treatment."""
        return self.control_variant or "control", self.treatment_variant or "treatment"

    @property
    def models(self) -> dict[str, str]:
        """Control and treatment as every layer calls the two."""
        return {"base": self.control_model, "fine_tuned": self.treatment_model}

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
        window_days = self.outcome_window_days
        return stats.days_needed(self.n_users, self.users_per_day, outcome_window_days=window_days)

    @property
    def look_fractions(self) -> tuple[float, ...]:
        """Planned looks as fractions of the information, equally spaced; the last is 1."""
        return tuple(look / self.looks for look in range(1, self.looks + 1))

    def config(self, *, phase: int = 1) -> ABTestConfig:
        """What the router needs."""
        shared = {name: getattr(self, name) for name in ABTestConfig.__slots__ if name != "phase"}
        return ABTestConfig(**shared, phase=phase)

    def to_dict(self) -> JsonObject:
        """The fields, and the numbers that follow from them, as JSON has them."""
        own = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name not in _LATER or getattr(self, one.name) != one.default
        }
        needs = ("n_control", "n_treatment", "n_users", "days")
        return own | {
            "primary": self.primary.to_dict(),
            "secondary": [one.to_dict() for one in self.secondary],
            "guardrails": [asdict(one) for one in self.guardrails],
            "needs": {name: getattr(self, name) for name in needs},
        }

    @classmethod
    def from_dict(cls, record: JsonObject) -> ABPlan:
        """Reads what `to_dict` made.

        Raises:
            DataError: The record is not a plan.
        """
        try:
            names = [one for one in _NAMES if one in record or one not in _LATER]
            metrics = {
                "primary": Metric.from_dict(record["primary"]),
                "secondary": tuple(map(Metric.from_dict, record["secondary"])),
                "guardrails": tuple(Guardrail(**one) for one in record["guardrails"]),
            }
            return cls(**{name: record[name] for name in names} | metrics)
        except (KeyError, TypeError) as why:
            raise DataError(f"not a plan: {why}") from why

    def to_frame(self) -> pd.DataFrame:
        """A row a planned look: `look`, `information` (share), users so far by variant, and `z_limit`, which |z| must reach."""
        import pandas as pd

        shares = self.look_fractions
        return pd.DataFrame(
            {
                "look": range(1, self.looks + 1),
                "information": shares,
                "n_control": [round(one * self.n_control) for one in shares],
                "n_treatment": [round(one * self.n_treatment) for one in shares],
                "z_limit": stats.obrien_fleming_bounds(shares, alpha=self.alpha),
            }
        )

    def changed(self, **values: Any) -> ABPlan:
        """A copy with other values.

        Raises:
            DesignError: A plan has no such field, or cannot have such a value.
        """
        for name in values.keys() - {*_NAMES}:
            known = f"it has {', '.join(_NAMES)}{did_you_mean(name, _NAMES)}"
            raise DesignError(f"a plan has no {name}; {known}")
        return replace(self, **values)

    def _users(self) -> tuple[int, int]:
        one, share = self.primary, self.traffic_split
        if one.is_rate and one.expected is not None and not one.margin:
            sized = partial(stats.users_needed, one.expected, one.aimed_at, share)
        else:  # against a margin both are alike, so both groups vary alike
            sized = partial(stats.users_needed_mean, one.variance() ** 0.5, one.aim, share)
        effect, looks = self.design_effect, self.looks
        needed = sized(alpha=self.alpha, power=self.power, design_effect=effect, looks=looks)
        control, treatment = needed.n_control / (1 - share), needed.n_treatment / share
        total = max(control, treatment, self.min_samples / min(share, 1 - share))
        return math.ceil(round(total * (1 - share), 6)), math.ceil(round(total * share, 6))


_NAMES = [one.name for one in fields(ABPlan)]
_LATER = _NAMES[_NAMES.index("covariate") :]  # not in plans locked before


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


def _check(record: Metric | Guardrail | ABPlan, said: str = "") -> None:
    """Each field as it is annotated; numbers of NumPy become Python's, lists become tuples."""
    for name, kind in get_type_hints(type(record), include_extras=True).items():
        given = getattr(record, name)
        try:
            value = given.item() if hasattr(given, "item") else given
            parts = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(one, Mapping) for one in parts):  # it may hold names nobody knows
                raise msgspec.ValidationError
            found = msgspec.convert(value, kind)
        except ValueError:  # as those of msgspec, arrays and broken texts are
            types = (kind, *get_args(kind))
            need = [meta.description for one in types for meta in getattr(one, "__metadata__", ())]
            need += [repr(one) for some in types for one in get_args(some) if isinstance(one, str)]
            wanted = " or ".join(need) or type(record).__annotations__[name]
            raise DesignError(f"{said}{name} is {given!r:.60}; need {wanted}") from None
        object.__setattr__(record, name, value if isinstance(value, int) else found)


def power_at(plan: ABPlan, difference: float) -> float:
    """Chance that the planned users show a true difference of this size, in either direction and at any of the looks.

    Against a margin: that it is shown no worse, z being of the difference and the margin together, within the same limits.

    Source: `stats.users_power` for a rate; two-sample normal formula for means; Jennison & Turnbull 1989 for a margin.
    """
    metric = plan.primary
    if metric.is_rate and metric.expected is not None and not metric.margin:
        users = plan.n_control, plan.n_treatment
        rates = metric.expected, metric.rate_after(difference)
        risks = {"alpha": plan.alpha, "design_effect": plan.design_effect, "looks": plan.looks}
        return stats.users_power(*users, *rates, **risks)
    spread = metric.variance() / plan.n_control + metric.variance(difference) / plan.n_treatment
    se, away = (plan.design_effect * spread) ** 0.5, difference
    if metric.margin:
        away = metric.margin + (-difference if metric.lower_is_better else difference)
    drift, limit = away / se, _NORMAL.inv_cdf(1 - plan.alpha / 2)
    if metric.margin and drift <= 0:
        return _NORMAL.cdf(drift - limit)
    chance = stats.crossing_chance(plan.look_fractions, drift, alpha=plan.alpha)
    # on the wrong side nothing is ruled out; that of one look, for over several it is hardly another
    return chance - _NORMAL.cdf(-drift - limit) if metric.margin else chance


def power_curve(plan: ABPlan, *, points: int = 61) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Sizes of a difference in the direction that is better, 0 to twice the planned one, and the power at each.

    Where the question is whether treatment is no worse: from a loss of the margin to a gain as large.
    """
    aim, expected = plan.primary.aim, plan.primary.expected or 0.0
    most, turn = 2 * abs(aim), math.copysign(1, aim)
    if plan.primary.is_rate:
        most = min(most, 0.999 * expected if aim < 0 else 0.999 - expected)
    sizes = [most * at / (points - 1) for at in range(points)]
    if margin := plan.primary.margin:
        sizes = [margin * (2 * at / (points - 1) - 1) for at in range(points)]
    return tuple(sizes), tuple(power_at(plan, turn * one) for one in sizes)


def durations(plan: ABPlan, splits: Sequence[float] = SPLITS) -> list[ABPlan]:
    """The same plan under other splits, and under its own."""
    return [plan.changed(traffic_split=one) for one in sorted({*splits, plan.traffic_split})]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeking:
    """Simulated A/A tests, in which nothing differs, looked at every day.

    Attributes:
        days: The days looked at.
        naive: Share of tests that had shown p < alpha on any day so far.
        after_minimum: The same when looking begins once both variants have `min_samples` users.
        bounded: The same when each day's look is read against its O'Brien-Fleming limit.
        once: Share that shows p < alpha at the end, looked at once.
        n_runs: Simulated tests.
    """

    days: tuple[int, ...]
    naive: tuple[float, ...]
    after_minimum: tuple[float, ...]
    bounded: tuple[float, ...]
    once: float
    n_runs: int
    alpha: float


def peeking(plan: ABPlan, *, n_runs: int = 10_000, seed: int = 0) -> Peeking:
    """Runs so many A/A tests of the planned size, one request a user, and looks at each of them every day.

    Source: Armitage, McPherson & Rowe 1969, by simulation.
    """
    import numpy as np

    days = max(2, min(plan.days, math.ceil(plan.n_users / plan.users_per_day)))
    rate = (plan.primary.expected if plan.primary.is_rate else None) or 0.5
    rng, a_day = np.random.default_rng(seed), plan.n_users / days
    shares = [1 - plan.traffic_split, plan.traffic_split]
    n = np.outer(shares, np.diff(np.arange(days + 1) * a_day)).round().astype(int)
    hits = rng.binomial(n[:, None, :], rate, (2, n_runs, days)).cumsum(axis=2)
    so_far = n.cumsum(axis=1)[:, None, :]
    pooled = hits.sum(axis=0) / so_far.sum(axis=0)
    se = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12) * (1 / so_far).sum(axis=0))
    z = np.abs(hits[1] / so_far[1] - hits[0] / so_far[0]) / se
    limit, least = _NORMAL.inv_cdf(1 - plan.alpha / 2), so_far.min(axis=0)[0]
    times = [(day + 1) / days for day in range(days)]
    bounds = stats.obrien_fleming_bounds(times, alpha=plan.alpha)

    def ever(shown: np.ndarray) -> tuple[float, ...]:
        return tuple(np.maximum.accumulate(shown, axis=1).mean(axis=0).tolist())

    return Peeking(
        days=tuple(range(1, days + 1)),
        naive=ever(z > limit),
        after_minimum=ever((z > limit) & (least >= min(plan.min_samples, least[-1]))),
        bounded=ever(z > np.array(bounds)),
        once=float((z[:, -1] > limit).mean()),
        n_runs=n_runs,
        alpha=plan.alpha,
    )
