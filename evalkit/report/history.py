"""One row a run in `data/<study>/history.jsonl`: the metrics over training runs and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec

from evalkit.decision import LayerDecision, read_decision, read_evidence
from evalkit.decision.record import FILE as DECISION
from evalkit.decision.record import against_of
from evalkit.decision.rules import NAMES
from evalkit.errors import DataError
from evalkit.files import Told, append_line, kept_quiet, lines, warned
from evalkit.records import Against, Evidence
from evalkit.settings import Settings
from evalkit.study import PINNED, Study
from evalkit.wording import plural, points, visible

FILE = "history.jsonl"
_OF_NO_STUDY = (
    "run",
    "study",
    "title",
    "stage",
    "concurrency",
)  # nor the journals: their answers are compared


def append(
    study: Study, folder: Path, *, made_at: str, failed: Mapping[str, str], told: Told = warned
) -> dict[str, Any]:
    """Adds the row of one run and returns it; `told` hears of an unfinished line that it removed.

    Raises:
        DataError: It cannot be written; what was there stays whole.
    """
    row = row_now(folder) | {"made_at": made_at, "failed": sorted(failed)}
    append_line(study.folder / FILE, json.dumps(row, sort_keys=True).encode(), told=told)
    return row


def read(study: Study) -> list[dict[str, Any]]:
    """All rows, oldest first; a torn last line, left by a killed run, is passed over.

    Raises:
        DataError: Another line is damaged.
    """
    path = study.folder / FILE
    whole = lines(path, told=kept_quiet)  # `torn` tells
    return [_row(line, path, number) for number, _, line in whole if line.strip()]


def torn(study: Study) -> str:
    """A sentence on a last line that a killed run or a full disk left unfinished; "" when all are whole."""
    told: list[str] = []
    list(lines(study.folder / FILE, told=told.append))
    return (
        f"The last line of {FILE} is unfinished and was left out; the end of this run removes it."
        if told
        else ""
    )


def what_changed(rows: list[Mapping[str, Any]], now: Mapping[str, Any]) -> str:
    """One sentence: what is different from the run before."""
    earlier = [row for row in rows if row.get("run") != now.get("run")]
    sound = [row for row in earlier if row.get("metrics") and not row.get("failed")]
    if not earlier:
        return "This is the first run of this study, so there is nothing to compare it with."
    if not sound:
        n = plural(len(earlier), "earlier run")
        return f"There is nothing to compare it with: of {n}, none finished without a failure and with a benchmark."
    before = sound[-1]
    changes = [
        *_named(before, now),
        *_layers(before, now),
        *_metrics(before, now),
        *_parameters(before, now),
    ]
    if not changes:
        return f"Nothing changed since the run of {_day(before)}: same parameters, same answers, same layers, same verdict."
    return f"Since the run of {_day(before)}: {'; '.join(changes)}."


def _row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (TypeError, ValueError) as why:
        raise DataError(f"{path}:{number}: not JSON ({why}); mend or remove the line") from why


def worn_out(rows: list[Mapping[str, Any]], now: Mapping[str, Any]) -> str:
    """What it means that one test set has judged several sets of answers; "" when this is its first.

    Each look at a test set to choose by it makes the chosen model look better on it than it is.
    """
    test_set = (now.get("bound_to") or {}).get("test_set")
    judged = {
        bound.get("fine_tuned")
        for row in [*rows, now]
        if (bound := row.get("bound_to") or {}).get("test_set") == test_set and test_set
    } - {None}
    n = max(len(judged), now.get("n_compared") or 1)
    if n < 2:
        return ""
    return (
        f"This test set has judged {n} sets of answers. One used for choosing wears out: the best of several looks better "
        "on it than it is, so keep a fresh test set for the last word."
    )


def row_now(folder: Path) -> dict[str, Any]:
    """The row this run would add, from the evidence that stands in its folder."""
    known = {"run": folder.name, "made_at": None, "failed": [], "parameters": _given(folder)}
    return known | _decision(folder) | _benchmark(folder) | {"against": _against(folder)}


def results_against(
    rows: Iterable[Mapping[str, Any]], now: Mapping[str, Any]
) -> tuple[Against, ...]:
    """What earlier runs of a study have found against its models, whatever has become of their reports.

    A benchmark that was asked again later - the same metric on the same test set against the same base - counts by its
    latest answer: that is how one checkpoint follows another. One on fewer of the same rows (`limit`) was a trial and
    does not outlive a run on more of them, and does not answer one either. Whether the rest still stands,
    `evalkit.decision.standing` says.
    """
    latest: dict[tuple[Any, ...], tuple[Against, ...]] = {}
    others: list[Against] = []
    for row in rows:
        found = _of_row(row)
        others += [one for one in found if one.layer != "benchmark"]
        if row.get("bound_to") and not _is_trial(row, now):
            place = (
                row.get("primary"),
                row["bound_to"].get("test_set"),
                row.get("models", {}).get("base"),
            )
            name, of_all = row.get("models", {}).get("fine_tuned"), _is_trial(now, row)
            benchmarks = (one for one in found if one.layer == "benchmark")
            latest[(*place, name, of_all)] = tuple(
                _of_more_rows(one) if of_all else one for one in benchmarks
            )
    return (*others, *(one for found in latest.values() for one in found))


def _of_more_rows(one: Against) -> Against:
    """A result on more rows of the test set than are asked now: as one on another test set, so fewer do not settle it."""
    bound = dict(one.bound_to)
    return replace(one, bound_to=bound | {"test_set": f"more rows of {bound.get('test_set', '')}"})


def _of_row(row: Mapping[str, Any]) -> list[Against]:
    """A row's results against; older rows name none, and know only what the benchmark's own test said."""
    if "against" in row:
        try:
            return [Against(**one) for one in row["against"]]
        except TypeError as why:
            told = (
                f"{FILE}: the row of run {row.get('run')} names a result against that is not whole"
            )
            raise DataError(f"{told} ({why}); mend the row") from why
    primary = (row.get("metrics") or {}).get(row.get("primary")) or {}
    if primary.get("verdict") != "worse":
        return []
    return [
        Against(
            layer="benchmark",
            source=str(row["primary"]).replace("_", " "),
            models=row.get("models") or {},
            bound_to=row.get("bound_to") or {},
            said=points(primary.get("estimate")),
            at=str(row.get("made_at") or ""),
        )
    ]


def _is_trial(row: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    then, today = ((one.get("parameters") or {}).get("limit") or 0 for one in (row, now))
    return bool(then) and (not today or today > then)


def _against(folder: Path) -> list[dict[str, Any]]:
    """What this run finds against its models, also where it is not for the present answers."""
    decided = read_decision(folder).layers if (folder / DECISION).is_file() else ()
    gate = {one.layer: one for one in decided if not one.stale}
    found = (
        against_of(one, *_word(one, gate.get(layer)))
        for layer, one in read_evidence(folder).items()
    )
    return [asdict(one) for one in found if one]


def _word(one: Evidence, gate: LayerDecision | None) -> tuple[str, str]:
    """By the rules where they have judged it, else by the layer's own test."""
    if gate:
        return gate.word, gate.effect_text()
    return "don't ship" if (one.primary or {}).get("verdict") == "worse" else "", ""


def _decision(folder: Path) -> dict[str, Any]:
    if not (folder / DECISION).is_file():
        return {"verdict": None, "stage": None, "layers": {}}
    made = read_decision(folder)
    layers = {one.layer: one.verdict for one in made.layers}
    effects = {one.layer: one.effect_text() for one in made.layers if one.estimate is not None}
    return {
        "verdict": made.verdict,
        "stage": made.stage,
        "layers": layers,
        "effects": effects,
        "rules": list(made.rules),
    }


def _given(folder: Path) -> dict[str, Any]:
    """Every setting of a run: what it began with, the defaults for the rest, and what its notebooks were given."""
    pinned = folder / PINNED
    given = json.loads(pinned.read_text(encoding="utf-8")) if pinned.is_file() else {}
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        if ".partial" not in path.suffixes:
            given |= (
                json.loads(path.read_text(encoding="utf-8"))["metadata"]
                .get("papermill", {})
                .get("parameters", {})
            )
    defaults = msgspec.structs.asdict(Settings()) if pinned.is_file() else {}
    return {
        name: value
        for name, value in (defaults | given).items()
        if name not in _OF_NO_STUDY and not name.endswith("_journal")
    }


def _benchmark(folder: Path) -> dict[str, Any]:
    path = folder / "comparison.json"
    if not path.is_file():
        return {"models": {}, "bound_to": {}, "metrics": {}, "primary": None}
    evidence = Evidence.read(path)
    metrics = evidence.details.get("metrics", {})
    named = {name: _one(metric) for name, metric in metrics.items()}
    primary = evidence.metric.replace(" ", "_")
    return {
        "models": evidence.models,
        "bound_to": evidence.bound_to,
        "metrics": named,
        "primary": primary,
        "n_compared": evidence.details.get("n_compared") or 1,
    }


def _one(metric: Mapping[str, Any]) -> dict[str, Any]:
    test = metric.get("test") or {}
    levels = {side: _level(metric.get(side)) for side in ("base", "fine_tuned")}
    return levels | {
        name: test.get(name) for name in ("estimate", "ci_low", "ci_high", "n", "verdict")
    }


def _level(rate: Any) -> Any:
    return rate.get("estimate") if isinstance(rate, Mapping) else rate


def _named(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    changes = []
    for name, words in (
        ("test_set", "the test set"),
        ("base", "the base model's answers"),
        ("fine_tuned", "the fine-tuned model's answers"),
    ):
        old, new = (row.get("bound_to", {}).get(name) for row in (before, now))
        if old and new and old != new:
            changes.append(f"{words} are new" if "answers" in words else f"{words} is another")
    if before.get("verdict") != now.get("verdict"):
        changes.append(
            f"the verdict went from {before.get('verdict') or 'none'} to {now.get('verdict') or 'none'}"
        )
    return changes


def _parameters(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = (row.get("parameters") or {} for row in (before, now))
    changed = [name for name in new if name in old and old[name] != new[name]]
    rules = [
        one for one in now.get("rules") or () if before.get("rules") and one not in before["rules"]
    ]
    given = [f"{name} went from {_value(old[name])} to {_value(new[name])}" for name in changed]
    if before.get("stage") and now.get("stage") and before["stage"] != now["stage"]:
        given.append(f"stage went from {before['stage']} to {now['stage']}")
    return [*given, *(f"a rule is new: {one.rstrip('.')}" for one in rules)]


def _value(value: Any) -> str:
    return visible(str(value)) or "nothing"


def _layers(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What the layers say; the benchmark's effects follow metric by metric, and older rows know no effects."""
    changes = []
    for layer in now.get("layers") or {}:
        if layer in (before.get("layers") or {}):
            told = layer != "benchmark" and "effects" in before
            old, new = (_said(row, layer, with_effect=told) for row in (before, now))
            changes += [f"the {NAMES[layer]} went from {old} to {new}"] if old != new else []
    return changes


def _said(row: Mapping[str, Any], layer: str, *, with_effect: bool) -> str:
    effect = row.get("effects", {}).get(layer)
    return f"{row['layers'][layer]}, {effect}" if with_effect and effect else row["layers"][layer]


def _metrics(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    changes = []
    for name, metric in now.get("metrics", {}).items():
        old, new = before.get("metrics", {}).get(name, {}).get("estimate"), metric.get("estimate")
        if old is not None and new is not None and points(old) != points(new):
            changes.append(
                f"the difference in {name.replace('_', ' ')} went from {points(old)} to {points(new)} points"
            )
    return changes


def _day(row: Mapping[str, Any]) -> str:
    return str(row.get("made_at", ""))[:16].replace("T", " ") or str(row.get("run"))
