"""A row a run in the study's ledger: the metrics over training runs and checkpoints, and what speaks against a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from evalkit import ledger
from evalkit.abtest import lock
from evalkit.decision.concerns import in_force, inputs, made_in
from evalkit.decision.findings import against_of
from evalkit.decision.record import FILE as DECISION
from evalkit.decision.record import Decision, read_decision, read_evidence
from evalkit.decision.rules import Rules
from evalkit.evidence import BenchmarkDetails, Evidence, ReportedMetric, details_of
from evalkit.files import JsonObject, Told, as_record, warned
from evalkit.ledger import FILE, Ledger
from evalkit.records import Against, Brief, Layer
from evalkit.study import PINNED, Settings, Study, read_notebook, read_pinned
from evalkit.wording import decimals, effect_text, points

if TYPE_CHECKING:
    import pandas as pd

# nor the journals: their answers are compared
_OF_NO_STUDY = ("run", "study", "title", "stage", "concurrency")
_NUMBERS = ("estimate", "ci_low", "ci_high", "n")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class History(Brief):
    """The runs of a study, oldest first, and the one that is being made.

    Attributes:
        rows: The runs that ended.
        now: The row this run would add; it has no time yet.
        torn: Whether a killed run or a full disk left the last line unfinished; it is left out.
    """

    rows: tuple[JsonObject, ...]
    now: JsonObject
    torn: bool = False

    @property
    def runs(self) -> tuple[JsonObject, ...]:
        """All of them, this one last."""
        return (*self.rows, self.now)

    def to_frame(self) -> pd.DataFrame:
        """A row a run and metric, oldest first, this run last.

        Returns:
            Columns: `run`, `made_at` (UTC; missing for this run), `stage`, `decision` (ship, don't ship, not yet), `base` and
            `fine_tuned` (models), `answers` (hash of the fine-tuned model's), `metric`, `is_primary`, `estimate`, `ci_low`,
            `ci_high` (fine-tuned minus base), `n`, `base_value`, `fine_tuned_value`, `verdict` (of the metric's test) and
            `failed` (whether a chapter of the run did). A run without a benchmark has one row, with no metric.
        """
        import pandas as pd

        frame = pd.DataFrame([one for run in self.runs for one in _observed(run)])
        texts = ("stage", "decision", "base", "fine_tuned", "answers", "metric", "verdict")
        numbers = ("estimate", "ci_low", "ci_high", "base_value", "fine_tuned_value")
        kinds = dict.fromkeys(texts, "category") | dict.fromkeys(numbers, "float") | {"n": "Int64"}
        times = pd.to_datetime(frame["made_at"], utc=True, format="ISO8601").dt.as_unit("us")
        return frame.astype(kinds).assign(made_at=times)


def _observed(run: JsonObject) -> Iterable[JsonObject]:
    """A row of the frame for each metric of a run."""
    models, bound_to = run.get("models") or {}, run.get("bound_to") or {}
    for name, metric in (run.get("metrics") or {None: {}}).items():
        yield {
            "run": run.get("run"),
            "made_at": run.get("made_at"),
            "stage": run.get("stage"),
            "decision": run.get("verdict"),
            "base": models.get("base"),
            "fine_tuned": models.get("fine_tuned"),
            "answers": bound_to.get("fine_tuned"),
            "metric": name,
            "is_primary": name is not None and name == run.get("primary"),
            **{one: metric.get(one) for one in _NUMBERS},
            "base_value": metric.get("base"),
            "fine_tuned_value": metric.get("fine_tuned"),
            "verdict": metric.get("verdict"),
            "failed": bool(run.get("failed")),
        }


def read_history(study: Study, folder: Path) -> History:
    """The history as it stands, and the row that the run in `folder` would add.

    Raises:
        DataError: A line but the last is damaged.
    """
    kept = ledger.read(study.folder / FILE)
    return History(rows=tuple(_rows(kept)), now=row_now(folder), torn=kept.torn)


def append_decision(study: Study, folder: Path, *, told: Told = warned) -> None:
    """Adds the decision of one run, and before it the rules and settings that decide where they are others than before.

    A run that shows results and decides nothing binds these as well.

    Raises:
        DataError: It cannot be written; what was there stays whole.
    """
    path, row, home = study.folder / FILE, row_now(folder), replace(study, run=folder.name)
    if not row["metrics"] and not row["verdict"]:
        return
    now = in_force(Rules.of(home), home)
    before = [*ledger.read(path).of("rules")]
    if not before or before[-1].facts != now:
        ledger.append(path, "rules", now, told=told)
    if row["verdict"]:
        facts = {name: row[name] for name in ("run", "verdict", "stage", "layers")}
        made = {DECISION: ledger.sha256_of(folder / DECISION)}
        ledger.append(path, "decision", facts | {"made": made}, told=told)


def append(
    study: Study,
    folder: Path,
    *,
    made_at: str,
    failed: Mapping[str, str],
    left_out: Sequence[str] = (),
    told: Told = warned,
) -> str:
    """Adds the row of one run and returns the ledger's head; `told` hears of an unfinished line that it removed.

    Raises:
        DataError: It cannot be written; what was there stays whole.
    """
    path, home = study.folder / FILE, replace(study, run=folder.name)
    row = row_now(folder) | {"made_at": made_at, "failed": sorted(failed)}
    row |= {"left_out": list(left_out), "made": made_in(folder)}
    row |= {"inputs": inputs(home, ledger.read(path))}
    return ledger.append(path, "run", row, told=told)


def read(study: Study) -> list[JsonObject]:
    """All rows, oldest first; a torn last line, left by a killed run, is passed over.

    Raises:
        DataError: The ledger is damaged.
    """
    return _rows(ledger.read(study.folder / FILE))


def _rows(kept: Ledger) -> list[JsonObject]:
    return [line.facts for line in kept.of("run")]


def results_against(home: Study, folder: Path) -> tuple[Against, ...]:
    """Every result against a model that a study's own folder knows of, so that nothing in `reports/` has to be kept for it.

    From the ledger of looks, the locked rating rounds and the history of runs in `data/<study>`.

    Args:
        home: The study.
        folder: The folder of the run that decides now.
    """
    from evalkit.human import preference

    return (
        *lock.results_against(home),
        *preference.results_against(home, alpha=home.settings.alpha),
        *against_in(read(home), row_now(folder)),
    )


def against_in(rows: Iterable[JsonObject], now: JsonObject) -> tuple[Against, ...]:
    """What earlier runs of a study have found against its models, whatever has become of their reports.

    A benchmark that was asked again later - the same metric on the same test set against the same base - counts by its
    latest answer: that is how one checkpoint follows another. One on fewer of the same rows (`limit`) was a trial and
    does not outlive a run on more of them, and does not answer one either. Whether the rest still stands,
    `evalkit.decision.findings` says.
    """
    latest: dict[tuple[object, ...], list[Against]] = {}
    others: list[Against] = []
    for row in rows:
        found = _of_row(row)
        others += [one for one in found if one.layer != "benchmark"]
        benchmarks = [one for one in found if one.layer == "benchmark"]
        if (bound := row.get("bound_to")) and not _is_trial(row, now):
            models, of_all = row.get("models", {}), _is_trial(now, row)
            sides = (models.get("base"), models.get("fine_tuned"))
            place = (row.get("primary"), bound.get("test_set"), *sides, of_all)
            latest[place] = [*map(_of_more_rows, benchmarks)] if of_all else benchmarks
    return (*others, *(one for found in latest.values() for one in found))


def _is_trial(row: JsonObject, now: JsonObject) -> bool:
    then, today = ((one.get("parameters") or {}).get("limit") or 0 for one in (row, now))
    return bool(then) and (not today or today > then)


def _of_more_rows(one: Against) -> Against:
    """A result on more rows of the test set than are asked now: as one on another test set, so fewer do not settle it."""
    more = {"test_set": f"more rows of {one.bound_to.get('test_set', '')}"}
    return replace(one, bound_to={**one.bound_to, **more})


def _of_row(row: JsonObject) -> list[Against]:
    """A row's results against; older rows name none, and know only what the benchmark's own test said."""
    if "against" in row:
        said = f"{FILE}: the row of run {row.get('run')} names a result against that is not whole"
        return as_record(row["against"], list[Against], said, "restore the file from a copy")
    primary = (row.get("metrics") or {}).get(row.get("primary")) or {}
    if primary.get("verdict") != "worse":
        return []
    ends = [primary.get(name) for name in _NUMBERS[:3]]
    found = Against(
        layer="benchmark",
        source=str(row["primary"]).replace("_", " "),
        models=row.get("models") or {},
        bound_to=row.get("bound_to") or {},
        said=points(ends[0], decimals(*ends)),
        at=str(row.get("made_at") or ""),
    )
    return [found]


def row_now(folder: Path) -> JsonObject:
    """The row this run would add, from the evidence that stands in its folder."""
    evidence = read_evidence(folder)
    made = read_decision(folder) if (folder / DECISION).is_file() else None
    known = {"run": folder.name, "made_at": None, "failed": [], "parameters": _given(folder)}
    return known | _decided(made) | _compared(evidence) | {"against": _against(evidence, made)}


def _given(folder: Path) -> JsonObject:
    """Every setting of a run: what it began with, the defaults for the rest, and what its notebooks were given."""
    given: JsonObject = {}
    if (pinned := folder / PINNED).is_file():
        given = msgspec.structs.asdict(Settings()) | read_pinned(pinned)
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        if ".partial" not in path.suffixes:
            metadata = read_notebook(path)["metadata"]
            given |= metadata.get("papermill", {}).get("parameters", {})
    return {
        name: value
        for name, value in given.items()
        if name not in _OF_NO_STUDY and not name.endswith("_journal")
    }


def _decided(made: Decision | None) -> JsonObject:
    if made is None:
        return {"verdict": None, "stage": None, "layers": {}}
    shown = [one for one in made.layers if one.estimate is not None]
    return {
        "verdict": made.verdict,
        "stage": made.stage,
        "layers": {one.layer: one.verdict for one in made.layers},
        "effects": {one.layer: effect_text(one) for one in shown},
        "rules": made.ruled_by.sentences(made.stage, sliced=made.sliced),
        "declared": made.declared,
    }


def _compared(evidence: Mapping[Layer, Evidence]) -> JsonObject:
    found, seen = evidence.get("benchmark"), details_of(evidence, BenchmarkDetails)
    if not found:
        return {"models": {}, "bound_to": {}, "metrics": {}, "primary": None}
    return {
        "models": found.models,
        "bound_to": found.bound_to,
        "metrics": {name: _metric(one) for name, one in seen.metrics.items()},
        "primary": found.metric.replace(" ", "_"),
        "n_compared": seen.n_compared,
        "own_code": seen.own_code,
    }


def _metric(metric: ReportedMetric) -> JsonObject:
    """Both levels, and the test."""
    test = {name: getattr(metric.test, name) for name in (*_NUMBERS, "verdict")}
    return dict(zip(("base", "fine_tuned"), metric.levels, strict=True)) | test


def _against(evidence: Mapping[Layer, Evidence], made: Decision | None) -> list[JsonObject]:
    """What this run finds against its models, also where it is not for the present answers.

    By the rules where they have judged it, else by the layer's own test.
    """
    gate = {one.layer: one for one in (made.layers if made else ()) if not one.stale}
    rows = []
    for layer, one in evidence.items():
        word, said = "don't ship" if one.verdict == "worse" else "", ""
        if judged := gate.get(layer):
            word, said = judged.word, effect_text(judged)
        if found := against_of(one, word, said):
            rows.append(asdict(found))
    return rows
