"""The noise floor: the same model asked the same question twice. Flaky examples stay in every count."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pandas as pd

from evalkit import stats
from evalkit.answers import evaluation, metrics
from evalkit.answers.metrics import Pair
from evalkit.benchmark.benchmark import Benchmark, can_ask
from evalkit.benchmark.comparison import Comparison
from evalkit.benchmark.frames import typed
from evalkit.errors import ModelError
from evalkit.files import JsonObject, to_line
from evalkit.records import Brief, EvalResult
from evalkit.stats import RateInterval
from evalkit.wording import cleaned, redacted, share

Mark = Literal["flips", "stable", "not re-asked"]
MARKS: tuple[Mark, ...] = ("flips", "stable", "not re-asked")
Passes = tuple[Sequence[EvalResult], Sequence[EvalResult]]
_Twice = Mapping[str, tuple[EvalResult, EvalResult]]
_DTYPES = {
    **dict.fromkeys(("model", "change"), "category"),
    **dict.fromkeys(("n", "n_changed"), "Int64"),
    **dict.fromkeys(("rate", "ci_low", "ci_high"), "Float64"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNoise:
    """Two live passes of one model over the drawn examples.

    Attributes:
        text_rate: Share answered in other words the second time, with its interval.
        flip_rate: Share right once and wrong once, of those that can be either, with its interval: the noise floor.
        recording_rate: Share whose first live answer is the recorded one, word for word: this machine against the recording.
    """

    text_rate: RateInterval
    flip_rate: RateInterval
    recording_rate: RateInterval

    @property
    def n(self) -> int:
        """Drawn examples answered in both passes."""
        return self.text_rate.n

    @property
    def n_changed(self) -> int:
        """Of these, right once and wrong once."""
        return self.flip_rate.successes

    def to_dict(self) -> JsonObject:
        """Plain values for the evidence file."""
        rates = ("flip_rate", "text_rate", "recording_rate")
        told = {"n_other_words": self.text_rate.successes, "n_changed": self.n_changed}
        return {"n": self.n, **told, **{name: getattr(self, name).to_dict() for name in rates}}

    def __str__(self) -> str:
        rates = (self.text_rate, self.flip_rate, self.recording_rate)
        words, flips, same = (share(one.successes, one.n) for one in rates)
        # nothing flips where no answer can be right or wrong
        flipped = f"{flips} changed between right and wrong, " if self.flip_rate.n else ""
        return f"{flipped}{words} changed a word, {same} equal the recording"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NoiseFloor(Brief):
    """How far answers move when nothing changed.

    Attributes:
        by_model: One entry each for base and fine-tuned.
        marks: Each regressed example: flips, stable (same verdicts in both passes) or not re-asked.
        n_gone: Stable ones among them that were no regression in either pass: the recording's machine differs from this one.
        notes: Why something was not measured.
    """

    by_model: Mapping[str, ModelNoise] = field(default_factory=dict)
    marks: Mapping[str, Mark] = field(default_factory=dict)
    n_gone: int = 0
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Drawn examples behind the rates: the fewer of the two models'."""
        return min((one.n for one in self.by_model.values()), default=0)

    def to_frame(self) -> pd.DataFrame:
        """One row a model and kind of change, none when nothing was measured.

        Columns: `model` ("base", "fine-tuned") and `change` ("other words": the text; "right or wrong": the verdict on it,
        the noise floor; "not as recorded": the first live answer against the recorded one): categories; `n`, `n_changed`:
        Int64; `rate`, `ci_low`, `ci_high`: Float64.
        """
        rows = []
        for role, one in self.by_model.items():
            same = one.recording_rate
            others = stats.rate_interval(same.n - same.successes, same.n, alpha=same.alpha)
            rates = {"other words": one.text_rate, "right or wrong": one.flip_rate}
            for change, rate in (rates | {"not as recorded": others}).items():
                counts = {"n": rate.n, "n_changed": rate.successes, "rate": rate.estimate}
                limits = {"ci_low": rate.ci_low, "ci_high": rate.ci_high}
                rows.append({"model": role, "change": change, **counts, **limits})
        return typed(rows, _DTYPES)

    def asked_again(self) -> pd.DataFrame:
        """What became of each regressed example when it was asked again, by `example_id`; to be joined to a frame.

        Columns: `asked_again`: category "flips", "stable" or "not re-asked"; `flaky`: nullable boolean, True where it
        flips, so that sorting by it puts those last.
        """
        marks = pd.Categorical(self.marks.values(), categories=MARKS)
        flaky = pd.array([one == "flips" for one in marks], dtype="boolean")
        index = pd.Index([cleaned(one)[0] for one in self.marks], name="example_id", dtype="str")
        return pd.DataFrame({"asked_again": marks, "flaky": flaky}, index=index)

    def to_dict(self) -> JsonObject:
        """Plain values for the evidence file."""
        models = {role: one.to_dict() for role, one in self.by_model.items()}
        told = {"marks": dict(self.marks), "n_gone": self.n_gone, "notes": [*self.notes]}
        return {"n": self.n, "by_model": models, **told}

    def __str__(self) -> str:
        if not self.n:
            return f"The noise floor was not measured. {' '.join(self.notes)}".strip()
        told = "; ".join(f"{role}: {one}" for role, one in self.by_model.items())
        return f"Asked twice on this machine, {told}."


def noise_floor(
    comparison: Comparison, passes: Mapping[str, Passes], drawn: Iterable[str]
) -> NoiseFloor:
    """Flip rates over the drawn examples, and a mark for every regressed one.

    Args:
        comparison: The comparison whose regressions are marked; its answers are the recording.
        passes: Two live passes of each model, by `base` and `fine-tuned`.
        drawn: Ids of the seeded draw; regressed examples asked besides do not enter the rates, they were chosen for
            having changed.
    """
    drawn, metric = set(drawn), comparison.status_metric
    both = {role: _answered_twice(two) for role, two in passes.items()}
    marks, n_gone = _marks(comparison, both)
    by_model = {}
    for role, found in both.items():
        side = role.replace("-", "_")
        recorded = {one.example_id: getattr(one, side).predicted for one in comparison.pairs}
        twice = {name: two for name, two in found.items() if name in drawn}
        values = [[metrics.value(one, metric) for one in two] for two in twice.values()]
        turned = [(a > 0.5) != (b > 0.5) for a, b in values if a is not None and b is not None]
        n_other = sum(a.predicted != b.predicted for a, b in twice.values())
        n_same = sum(a.predicted == recorded.get(name) for name, (a, _) in twice.items())
        by_model[role] = ModelNoise(
            text_rate=stats.rate_interval(n_other, len(twice)),
            flip_rate=stats.rate_interval(sum(turned), len(turned)),
            recording_rate=stats.rate_interval(n_same, len(twice)),
        )
    return NoiseFloor(by_model=by_model, marks=marks, n_gone=n_gone)


def draw(pairs: Iterable[Pair], n: int, *, seed: int = 0) -> list[str]:
    """A seeded draw of example ids that does not depend on their order."""
    ids = sorted(one.example_id for one in pairs)
    return random.Random(seed).sample(ids, min(n, len(ids)))


def ask_twice(
    benchmark: Benchmark,
    comparison: Comparison,
    folder: Path,
    *,
    n: int,
    seed: int = 0,
    now: datetime | None = None,
) -> NoiseFloor:
    """Asks both models twice: a seeded draw and the regressed examples, into journals of their own in `folder`.

    Args:
        benchmark: The study's benchmark.
        comparison: The comparison of the recorded answers.
        folder: The run's folder.
        n: Examples to draw; 0 asks nothing.
        seed: Seed of the draw.
        now: Time in the journals' names.

    Returns:
        With no endpoint in the environment, or one that cannot be used: nothing measured, and a note that says why.
    """
    why = "" if n else "reask_n is 0."
    if n and not can_ask():
        why = "No endpoint is named in the environment."
    unmeasured = NoiseFloor(marks=_marks(comparison, {})[0], notes=(why,))
    if why:
        return unmeasured
    drawn, regressed = (
        draw(some, n, seed=seed) for some in (comparison.pairs, comparison.regressed)
    )
    place = folder / f"noise-{now or datetime.now(UTC):%Y%m%dT%H%M%S}"
    rows = _write_rows(benchmark, {*drawn, *regressed}, place / "rows.jsonl")
    asked = {}
    try:
        for number in (1, 2):
            for role in evaluation.ROLES:
                path = place / f"{role.replace('_', '-')}-{number}.jsonl"
                how = {"samples": 1, "progress": False, "about": {"noise pass": number}}
                asked[role, number] = benchmark.ask(role, path, rows, **how)
    except ModelError as fault:
        return replace(unmeasured, notes=(redacted(str(fault)),))
    passes = {r.replace("_", "-"): (asked[r, 1], asked[r, 2]) for r in evaluation.ROLES}
    return noise_floor(comparison, passes, drawn)


def _write_rows(benchmark: Benchmark, ids: set[str], path: Path) -> Path:
    """The rows of the test file with these ids, each with its id written down, so that a content hash stays the same."""
    asked = (one for one in benchmark.test_set.examples if one.example_id in ids)
    lines = {one.line: one.example_id for one in asked}
    path.parent.mkdir(parents=True, exist_ok=True)
    with benchmark.path.open("rb") as old, path.open("wb") as new:
        # as bytes: only a newline ends a line, as in the dataset
        for number, line in enumerate(old, start=1):
            if number in lines:
                row = {**json.loads(line.decode("utf-8-sig")), "id": lines[number]}
                new.write(to_line(row) + b"\n")
    return path


def _answered_twice(passes: Passes) -> _Twice:
    first, second = (
        {str(one.example_id): one for one in results if one.outcome != "error"}
        for results in passes
    )
    return {name: (one, second[name]) for name, one in first.items() if name in second}


def _marks(comparison: Comparison, both: Mapping[str, _Twice]) -> tuple[dict[str, Mark], int]:
    marks, n_gone = dict[str, Mark](), 0
    for name in (one.example_id for one in comparison.regressed):
        asked = [found[name] for found in both.values() if name in found]
        marks[name] = "not re-asked"
        if len(asked) == 2:
            base, tuned = ([_right(one, comparison) for one in two] for two in asked)
            marks[name] = "stable" if len({*base}) == len({*tuned}) == 1 else "flips"
            n_gone += marks[name] == "stable" and not (base[0] and not tuned[0])
    return marks, n_gone


def _right(result: EvalResult, comparison: Comparison) -> bool:
    return (metrics.value(result, comparison.status_metric) or 0) > 0.5
