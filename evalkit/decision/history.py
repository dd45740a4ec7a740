"""The runs of a study in its ledger: a row a run, what decided, what it wrote and what its results were read from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from evalkit import ledger
from evalkit.abtest import lock
from evalkit.answers.scoring import own_hashes
from evalkit.decision.layers import FILE as DECISION
from evalkit.decision.layers import Decision, read_decision, read_evidence
from evalkit.decision.rules import Rules
from evalkit.decision.standing import against_in, against_of
from evalkit.errors import DataError
from evalkit.evidence import BenchmarkDetails, Evidence, ReportedMetric, details_of
from evalkit.files import JsonObject, Told, warned
from evalkit.ledger import FILE, Ledger, Line
from evalkit.records import Against, Brief, Layer
from evalkit.study import PINNED, Settings, Study, named, read_notebook, read_pinned
from evalkit.wording import effect_text

if TYPE_CHECKING:
    import pandas as pd

DECIDING = (  # settings that turn a verdict; the A/B test's stand in its plan
    *("alpha", "primary_metric", "lower_is_better", "metric_margin", "checker", "cluster_field"),
    *("slice_fields", "slice_margin", "stage", "scorers", "limit", "allow_incomplete"),
    *("strict", "train_file"),
)
_MADE = {".json", ".ipynb", ".html"}
_JOURNAL = b'{"kind": "evalkit-journal"'
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
            metadata = read_notebook(path).metadata
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
            rows.append({name: one for name, one in asdict(found).items() if one is not None})
    return rows


# ---- whether what decides is what the ledger knows: sealed files, a run's own, and what its results were read from


def refuse_changed(home: Study) -> None:
    """Refuses to decide on files that are not what the ledger knows, or by a ledger that was cut.

    Raises:
        DataError: The message names each file, what it was, what it is, and since when.
    """
    found = (*ledger.mismatches(home.folder), *ledger.lost_heads(home.folder, home.reports))
    if found:
        raise DataError("; ".join(one.words for one in found))


def made_in(folder: Path) -> dict[str, str]:
    """Hashes of what a run wrote: its evidence, its notebooks, its report."""
    paths = sorted(one for one in folder.iterdir() if one.suffix in _MADE and one.is_file())
    return ledger.files_sealed(folder, paths)


def run_line(kept: Ledger, run: str) -> Line | None:
    """The line of a run that ended; None when no line speaks of it."""
    return next((one for one in reversed([*kept.of("run")]) if one.facts.get("run") == run), None)


def changed_files(folder: Path, line: Line, *, but: str = "none") -> Iterator[str]:
    """What of a run is not as its line in the ledger has it; nothing is known of runs of earlier versions.

    Files whose name ends in `but` are passed over: a notebook that somebody goes on with has no say in the decision.
    """
    for name, sha256 in line.facts.get("made", {}).items():
        if not name.endswith(but) and (is_now := ledger.sha256_of(folder / name)) != sha256:
            now = f"sha256 {is_now[:12]}..." if is_now else "gone"
            yield (
                f"{folder / name}: was sha256 {sha256[:12]}... by line {line.number} of the ledger (run, {line.at}), is "
                f"{now}; run the study again"
            )


def refuse_changed_run(home: Study, folder: Path) -> None:
    """Refuses a run that is not as it ended: another study's, edited, or one that the ledger never saw.

    Raises:
        DataError: The message says what differs.
    """
    refuse_changed(home)
    kept = ledger.read(home.folder / ledger.FILE)
    line = run_line(kept, folder.name)
    if line is None and kept.head:
        raise DataError(
            f"{folder}: stands in no line of {home.folder / ledger.FILE}: it did not end, was copied here, or the ledger could "
            f"not be written; run the study again: evalkit run {home.name}"
        )
    if line and (told := [*changed_files(folder, line, but=".ipynb")]):
        raise DataError("; ".join(told))


def inputs(home: Study, kept: Ledger) -> JsonObject:
    """Size and hashes of what a run read, for its line in the ledger; `as_before` where one only grew.

    A test file and journals grow, and what they held when results were seen stays as it was; own code that scores does too.
    """
    said, known = home.settings, {name: one for _, name, one in _seen(kept)}
    names = [said.test_file, said.base_journal, said.fine_tuned_journal]
    names += own_hashes((said.checker, *named(said.scorers)), home.folder)
    names += [said.checker.removeprefix("schema:")] if said.checker.startswith("schema:") else []
    found = {name: _read(home.path(name), known.get(name) or {}) for name in names}
    return {name: one for name, one in found.items() if one}


def changed_inputs(home: Study, kept: Ledger) -> Iterator[tuple[str, str, str, str]]:
    """Name, when results were seen, hash then and hash later, of each input that was changed and did not only grow."""
    known: dict[str, tuple[str, str]] = {}
    now = [("", name, one) for name, one in inputs(home, kept).items()]
    for at, name, one in (*_seen(kept), *now):
        if name in known and not one["as_before"]:
            yield name, *known[name], one["sha256"]
        known[name] = at, one["sha256"]


def _seen(kept: Ledger) -> Iterator[tuple[str, str, JsonObject]]:
    """Each input as a run with results left it, oldest first."""
    for line in kept.of("run"):
        if line.facts.get("metrics"):
            for name, one in (line.facts.get("inputs") or {}).items():
                yield line.at, name, one


def _read(path: Path, before: JsonObject) -> JsonObject:
    """Nothing of a file that is not there: its chapter says so."""
    if not path.is_file():
        return {}
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1] or text  # without what a kill left of a last line
    sha256, first = _sha256(whole), _sha256(whole.split(b"\n", 1)[0])
    # A journal with another header was begun anew: its answers are others, which their hash tells.
    anew = bool(before) and whole.startswith(_JOURNAL) and before["first"] != first
    then = text[: before["size"]] if before and path.suffix == ".jsonl" else whole
    as_before = not before or anew or _sha256(then) == before["sha256"]
    return {"size": len(whole), "sha256": sha256, "first": first, "as_before": as_before}


def _sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


# ---- what decides


def in_force(rules: Rules, home: Study) -> JsonObject:
    """The rules and the settings that decide, for the ledger."""
    return {
        "rules": plain(rules),
        "settings": {one: getattr(home.settings, one) for one in DECIDING},
    }


def plain(rules: Rules) -> JsonObject:
    """The rules as plain values; what was retired stands in each report by itself."""
    return {name: value for name, value in asdict(rules).items() if name != "retired_evidence"}
