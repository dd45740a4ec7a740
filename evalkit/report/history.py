"""One row a run in `data/<study>/history.jsonl`: the metrics over training runs and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import DataError
from evalkit.records import Evidence
from evalkit.study import Study
from evalkit.wording import points

FILE = "history.jsonl"


def append(study: Study, folder: Path, *, made_at: str, failed: Mapping[str, str]) -> dict[str, Any]:
    """Adds the row of one run and returns it."""
    row = {"run": folder.name, "made_at": made_at, "failed": sorted(failed), **_decision(folder), **_benchmark(folder)}
    with (study.folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, sort_keys=True) + "\n")
    return row


def read(study: Study) -> list[dict[str, Any]]:
    """All rows, oldest first; a torn last line, left by a killed run, is passed over.

    Raises:
        DataError: Another line is damaged.
    """
    path = study.folder / FILE
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    rows = []
    for place, line in enumerate(lines, start=1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError as why:
            if place < len(lines):
                raise DataError(f"{path}:{place}: not JSON ({why}); mend or remove the line") from why
    return rows


def what_changed(rows: list[Mapping[str, Any]], now: Mapping[str, Any]) -> str:
    """One sentence: what is different from the run before."""
    sound = [row for row in rows if row.get("metrics") and not row.get("failed") and row.get("run") != now.get("run")]
    before = sound[-1] if sound else None
    if before is None:
        return "This is the first run of this study, so there is nothing to compare it with."
    changes = [*_named(before, now), *_metrics(before, now)]
    if not changes:
        return f"Nothing changed since the run of {_day(before)}: same models, same answers, same verdict."
    return f"Since the run of {_day(before)}: {'; '.join(changes)}."


def row_now(folder: Path) -> dict[str, Any]:
    """The row this run would add, from the evidence that stands in its folder."""
    return {"run": folder.name, "made_at": None, "failed": [], **_decision(folder), **_benchmark(folder)}


def _decision(folder: Path) -> dict[str, Any]:
    path = folder / "decision.json"
    if not path.is_file():
        return {"verdict": None, "stage": None, "layers": {}}
    record = json.loads(path.read_text(encoding="utf-8"))
    layers = {layer["layer"]: layer["verdict"] for layer in record["layers"]}
    return {"verdict": record["verdict"], "stage": record["stage"], "layers": layers}


def _benchmark(folder: Path) -> dict[str, Any]:
    path = folder / "comparison.json"
    if not path.is_file():
        return {"models": {}, "bound_to": {}, "metrics": {}, "primary": None}
    evidence = Evidence.read(path)
    metrics = evidence.details.get("metrics", {})
    named = {name: _one(metric) for name, metric in metrics.items()}
    primary = evidence.metric.replace(" ", "_")
    return {"models": evidence.models, "bound_to": evidence.bound_to, "metrics": named, "primary": primary}


def _one(metric: Mapping[str, Any]) -> dict[str, Any]:
    test = metric.get("test") or {}
    levels = {side: _level(metric.get(side)) for side in ("base", "fine_tuned")}
    return levels | {name: test.get(name) for name in ("estimate", "ci_low", "ci_high", "n", "verdict")}


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
        changes.append(f"the verdict went from {before.get('verdict') or 'none'} to {now.get('verdict') or 'none'}")
    return changes


def _metrics(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    changes = []
    for name, metric in now.get("metrics", {}).items():
        old, new = before.get("metrics", {}).get(name, {}).get("estimate"), metric.get("estimate")
        if old is not None and new is not None and points(old) != points(new):
            changes.append(f"the difference in {name.replace('_', ' ')} went from {points(old)} to {points(new)} points")
    return changes


def _day(row: Mapping[str, Any]) -> str:
    return str(row.get("made_at", ""))[:16].replace("T", " ") or str(row.get("run"))
