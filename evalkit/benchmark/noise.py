"""The noise floor: the same model asked the same question twice. Flaky examples stay in every count."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evalkit import stats, wording
from evalkit.answers import metrics, request
from evalkit.answers.pairs import Pair
from evalkit.benchmark.bench import Bench, can_ask
from evalkit.benchmark.comparison import Comparison
from evalkit.errors import ModelError
from evalkit.records import Brief, EvalResult

if TYPE_CHECKING:
    import pandas as pd

Mark = Literal["flips", "stable", "not re-asked"]
_MARKS = ("flips", "stable", "not re-asked")
Passes = tuple[Sequence[EvalResult], Sequence[EvalResult]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNoise:
    """Two live passes of one model over the drawn examples.

    Attributes:
        n: Drawn examples answered in both passes.
        n_other_words: Of these, answered in other words the second time.
        n_changed: Of these, right once and wrong once.
        text_rate: `n_other_words / n` with its interval.
        flip_rate: `n_changed` of those that can be right or wrong, with its interval: the noise floor.
        recording_rate: Share whose first live answer is the recorded one, word for word: this machine against the recording.
    """

    n: int
    n_other_words: int
    n_changed: int
    text_rate: Any
    flip_rate: Any
    recording_rate: Any

    def changes(self) -> tuple[tuple[str, int, Any], ...]:
        """Each kind of change: its name, how many, and its rate with interval."""
        same = self.recording_rate
        others = stats.rate_interval(same.n - same.successes, same.n, alpha=same.alpha)
        return (
            ("other words", self.n_other_words, self.text_rate),
            ("right or wrong", self.n_changed, self.flip_rate),
            ("not as recorded", same.n - same.successes, others),
        )


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
        import pandas as pd

        rows = [
            (role, change, rate.n, n_changed, rate.estimate, rate.ci_low, rate.ci_high)
            for role, one in self.by_model.items()
            for change, n_changed, rate in one.changes()
        ]
        dtypes = {
            "model": "category",
            "change": "category",
            "n": "Int64",
            "n_changed": "Int64",
            "rate": "Float64",
            "ci_low": "Float64",
            "ci_high": "Float64",
        }
        return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)

    def asked_again(self) -> pd.DataFrame:
        """What became of each regressed example when it was asked again, by `example_id`; to be joined to a frame.

        Columns: `asked_again`: category "flips", "stable" or "not re-asked"; `flaky`: nullable boolean, True where it
        flips, so that sorting by it puts those last.
        """
        import pandas as pd

        marks = pd.Categorical(self.marks.values(), categories=_MARKS)
        flaky = pd.array([one == "flips" for one in marks], dtype="boolean")
        index = pd.Index(list(self.marks), name="example_id", dtype="str")
        return pd.DataFrame({"asked_again": marks, "flaky": flaky}, index=index)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the evidence file."""
        models = {
            role: {
                "n": one.n,
                "n_other_words": one.n_other_words,
                "n_changed": one.n_changed,
                "flip_rate": one.flip_rate.to_dict(),
                "text_rate": one.text_rate.to_dict(),
                "recording_rate": one.recording_rate.to_dict(),
            }
            for role, one in self.by_model.items()
        }
        return {
            "n": self.n,
            "by_model": models,
            "marks": dict(self.marks),
            "n_gone": self.n_gone,
            "notes": [*self.notes],
        }

    def __str__(self) -> str:
        if not self.n:
            return f"The noise floor was not measured. {' '.join(self.notes)}".strip()
        parts = (
            f"{role}: {_flipped(one)}{wording.share(one.n_other_words, one.n)} changed a word, "
            f"{wording.share(one.recording_rate.successes, one.n)} equal the recording"
            for role, one in self.by_model.items()
        )
        return f"Asked twice on this machine, {'; '.join(parts)}."

    def _repr_html_(self) -> str:
        return wording.html_table({"noise floor": str(self), "notes": " ".join(self.notes)})


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
    drawn = set(drawn)
    recorded = {"base": {one.example_id: one.base.predicted for one in comparison.pairs}}
    recorded["fine-tuned"] = {one.example_id: one.fine_tuned.predicted for one in comparison.pairs}
    both = {role: _answered_twice(two) for role, two in passes.items()}
    marks, n_gone = _marks(comparison, both)
    return NoiseFloor(
        by_model={
            role: _model_noise(
                {i: two for i, two in found.items() if i in drawn},
                recorded[role],
                comparison.status_metric,
            )
            for role, found in both.items()
        },
        marks=marks,
        n_gone=n_gone,
    )


def draw(pairs: Iterable[Pair], n: int, *, seed: int = 0) -> list[str]:
    """A seeded draw of example ids that does not depend on their order."""
    ids = sorted(one.example_id for one in pairs)
    return random.Random(seed).sample(ids, min(n, len(ids)))


def ask_twice(
    bench: Bench,
    comparison: Comparison,
    folder: Path,
    *,
    n: int,
    seed: int = 0,
    n_regressed: int | None = None,
    now: datetime | None = None,
) -> NoiseFloor:
    """Asks both models twice: a seeded draw and the regressed examples, into journals of their own in `folder`.

    Args:
        bench: The study's benchmark.
        comparison: The comparison of the recorded answers.
        folder: The run's folder.
        n: Examples to draw; 0 asks nothing.
        seed: Seed of the draw.
        n_regressed: At most so many regressed examples are asked besides; `n` by default.
        now: Time in the journals' names.

    Returns:
        With no endpoint in the environment, or one that cannot be used: nothing measured, and a note that says why.
    """
    if not n or not can_ask():
        return _unmeasured(
            comparison, "No endpoint is named in the environment." if n else "reask_n is 0."
        )
    drawn = draw(comparison.pairs, n, seed=seed)
    regressed = draw(comparison.regressed, n if n_regressed is None else n_regressed, seed=seed)
    place = folder / f"noise-{now or datetime.now(UTC):%Y%m%dT%H%M%S}"
    rows = _write_rows(bench, {*drawn, *regressed}, place / "rows.jsonl")
    passes: dict[str, list[list[EvalResult]]] = {"base": [], "fine-tuned": []}
    try:
        for number in (1, 2):
            about = {"noise pass": number}
            for role in request.ROLES:
                name = role.replace("_", "-")
                path = place / f"{name}-{number}.jsonl"
                passes[name].append(
                    bench.ask(role, path, rows, samples=1, progress=False, about=about)
                )
    except ModelError as why:
        return _unmeasured(comparison, wording.redacted(str(why)))
    return noise_floor(comparison, {role: (two[0], two[1]) for role, two in passes.items()}, drawn)


def _unmeasured(comparison: Comparison, why: str) -> NoiseFloor:
    return NoiseFloor(marks=_marks(comparison, {})[0], notes=(why,))


def _write_rows(bench: Bench, ids: set[str], path: Path) -> Path:
    """The rows of the test file with these ids, each with its id written down, so that a content hash stays the same."""
    lines = {one.line: one.example_id for one in bench.test_set.examples if one.example_id in ids}
    path.parent.mkdir(parents=True, exist_ok=True)
    with bench.path.open("rb") as old, path.open("w", encoding="utf-8") as new:
        for number, line in enumerate(
            old, start=1
        ):  # as bytes: only a newline ends a line, as in the dataset
            if number in lines:
                new.write(
                    json.dumps({**json.loads(line.decode("utf-8-sig")), "id": lines[number]}) + "\n"
                )
    return path


def _answered_twice(passes: Passes) -> dict[str, tuple[EvalResult, EvalResult]]:
    first, second = (
        {str(one.example_id): one for one in results if one.outcome != "error"}
        for results in passes
    )
    return {name: (one, second[name]) for name, one in first.items() if name in second}


def _model_noise(
    twice: Mapping[str, tuple[EvalResult, EvalResult]], recorded: Mapping[str, str], metric: str
) -> ModelNoise:
    n = len(twice)
    n_other = sum(a.predicted != b.predicted for a, b in twice.values())
    known = [
        one for one in twice.values() if all(metrics.value(x, metric) is not None for x in one)
    ]
    n_changed = sum(_right(a, metric) != _right(b, metric) for a, b in known)
    n_same = sum(a.predicted == recorded.get(name) for name, (a, _) in twice.items())
    text_rate, recording_rate = (stats.rate_interval(k, n) for k in (n_other, n_same))
    return ModelNoise(
        n=n,
        n_other_words=n_other,
        n_changed=n_changed,
        text_rate=text_rate,
        flip_rate=stats.rate_interval(n_changed, len(known)),
        recording_rate=recording_rate,
    )


def _marks(
    comparison: Comparison, both: Mapping[str, Mapping[str, tuple[EvalResult, EvalResult]]]
) -> tuple[dict[str, Mark], int]:
    marks: dict[str, Mark] = {}
    n_gone = 0
    for name in (one.example_id for one in comparison.regressed):
        verdicts = [
            [_right(one, comparison.status_metric) for one in found[name]]
            for found in both.values()
            if name in found
        ]
        if len(verdicts) < 2:
            marks[name] = "not re-asked"
            continue
        marks[name] = "flips" if any(a != b for a, b in verdicts) else "stable"
        (base, _), (tuned, _) = verdicts
        n_gone += marks[name] == "stable" and not (base and not tuned)
    return marks, n_gone


def _flipped(one: ModelNoise) -> str:
    """Nothing where no answer can be right or wrong."""
    n = one.flip_rate.n
    return f"{wording.share(one.n_changed, n)} changed between right and wrong, " if n else ""


def _right(result: EvalResult, metric: str) -> bool:
    return (metrics.value(result, metric) or 0) > 0.5
