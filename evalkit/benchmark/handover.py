"""What the benchmark hands to the decision: comparison.json, written once and amended by what is found out later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from msgspec import structs

from evalkit.benchmark.comparison import Comparison
from evalkit.benchmark.slices import SliceRow, SliceTable, examples_to_settle
from evalkit.evidence import (
    BenchmarkDetails,
    BenchmarkEvidence,
    Cells,
    Evidence,
    Interval,
    Level,
    ReportedMetric,
    ReportedSlice,
    ReportedTest,
)
from evalkit.files import JsonObject, utc
from evalkit.records import OPEN_SLICES, Missing, MissingKind, OpenSlice
from evalkit.wording import scale_of

FILE = "comparison.json"
FIRST_SIZE = 200  # the lower end of the usual 200 to 500
MOST_SLICES = 3  # that a line of what is missing names


def evidence_of(
    comparison: Comparison,
    *,
    study: str,
    models: Mapping[str, str],
    bound_to: Mapping[str, str],
    costs: Mapping[str, JsonObject],
    slices: Iterable[SliceTable] = (),
    power: float = 0.8,
    chance_rate: float | None = None,
    test_set_findings: Mapping[str, int] | None = None,
    own_code: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> BenchmarkEvidence:
    """The comparison as a record of plain numbers.

    Args:
        comparison: The result.
        study: The study's name.
        models: Names of base and fine_tuned.
        bound_to: Hashes it is valid for.
        costs: Tokens, latency and money by role.
        slices: The primary metric's table first.
        power: For the price of a verdict.
        chance_rate: Expected exact match of picking one candidate at random, where that means anything.
        test_set_findings: The doctor's, counted by kind.
        own_code: Files with functions of one's own, and their hashes.
        now: Time of making; the present by default.
    """
    roles = {"base": comparison.base, "fine_tuned": comparison.fine_tuned}
    against, fragility, wide = comparison.noninferiority, comparison.fragility, comparison.widened
    tables = [*slices]
    return BenchmarkEvidence(
        study=study,
        made_at=utc(now),
        models=dict(models),
        bound_to=dict(bound_to),
        simulated=False,
        metric=comparison.primary_metric.replace("_", " "),
        unit="examples",
        primary=ReportedTest.of(comparison.primary.to_dict()),
        missing=tuple(_missing_verdict(comparison, power)),
        details=BenchmarkDetails(
            metrics=_metrics(comparison),
            p_adjusted=dict(comparison.p_adjusted),
            cells=Cells.of(comparison.cells),
            fragile=fragility.fragile,
            slices=_primary_slices(tables),
            widened=wide and Interval(ci_low=wide.ci_low, ci_high=wide.ci_high, alpha=wide.alpha),
            n_compared=comparison.n_compared,
            test_set_findings=test_set_findings or {},
            own_code=own_code or {},
            costs=costs,
            reported={
                "cells_metric": comparison.status_metric,
                "fragility": {
                    "fragile": fragility.fragile,
                    "n_errors": fragility.n_errors,
                    "without_errors": fragility.without_errors.to_dict(),
                    "sentence": str(fragility),
                },
                "noninferiority": against and against.to_dict(),
                "outcomes": {role: dict(one.outcomes) for role, one in roles.items()},
                "n": comparison.n,
                "question": comparison.question,
                "conclusion": comparison.conclusion,
                "clustered": comparison.clustered,
                "unmatched": {
                    "base": [*comparison.unmatched_base],
                    "fine_tuned": [*comparison.unmatched_fine_tuned],
                },
                "notes": [*comparison.notes],
                "slices_other_metrics": _other_slices(tables),
                "chance_rate": chance_rate,
            },
        ),
    )


def amended(
    path: Path,
    *,
    bound_to: Mapping[str, str],
    slices: Sequence[SliceTable],
    noise: JsonObject | None,
    **reported: object,
) -> Evidence | None:
    """What comparison.json holds, with what the regression chapter found; doing it twice changes nothing more.

    Returns:
        None when the benchmark chapter has not written the file for these very answers.
    """
    old = Evidence.read(path) if path.exists() else None
    if not isinstance(old, BenchmarkEvidence) or dict(old.bound_to) != dict(bound_to):
        return None
    kept = [one for one in old.missing if one.kind != OPEN_SLICES]
    rest = {**old.details.reported, "slices_other_metrics": _other_slices(slices), **reported}
    details = structs.replace(
        old.details, slices=_primary_slices(slices), noise_floor=noise, reported=rest
    )
    return replace(old, missing=(*kept, *_missing_slices(slices)), details=details)


def _missing_verdict(comparison: Comparison, power: float) -> Iterable[Missing]:
    if comparison.conclusion not in {"no difference shown", "not shown", "too early"}:
        return
    primary, margin = comparison.primary, comparison.margin
    ruled_out = margin is not None and comparison.n > 0
    if not ruled_out and comparison.expects_nothing and primary.estimate is None:
        yield Missing(kind="no_right_answers")
        return
    kind, more, in_all = _price(comparison, power)
    yield Missing(
        kind=kind,
        n=comparison.n if ruled_out else primary.n,
        more=more,
        needed=in_all,
        margin=margin,
        shown_as=scale_of(primary),
        chance=power,
    )


def needed(comparison: Comparison, power: float) -> int | None:
    """Examples in all that would settle the question at the rates seen; None when no number would."""
    margin, level = comparison.margin or 0.0, comparison.price_level
    return examples_to_settle(comparison.primary, margin=margin, alpha=level, power=power)


def _price(comparison: Comparison, power: float) -> tuple[MissingKind, int | None, int | None]:
    """What would settle it, how many more examples that takes, and how many in all."""
    n, looks = needed(comparison, power), comparison.extension
    if not comparison.n:
        return "first_examples", FIRST_SIZE, None
    if n and looks and not looks.first_look:
        return "second_look", comparison.n, None
    if n:
        return "more_examples", n - comparison.primary.n, n
    if comparison.margin:
        return "no_examples_would", None, None
    return "half_the_difference", 3 * comparison.n, None


def _missing_slices(slices: Sequence[SliceTable]) -> Iterable[Missing]:
    """One line for all open slices, the largest loss first, so that they leave room for what other layers miss."""
    rows = slices[0].rows if slices else ()
    settled = ((row, row.n_to_settle) for row in rows if row.safety or row.gain < 0)
    known = sorted(((row, n) for row, n in settled if n), key=lambda one: one[0].gain)
    if known:
        yield Missing(
            kind=OPEN_SLICES,
            chance=known[0][0].wanted_chance,
            slices=tuple(_open_slice(row, n) for row, n in known[:MOST_SLICES]),
            further=max(0, len(known) - MOST_SLICES),
        )


def _open_slice(row: SliceRow, n: int) -> OpenSlice:
    size = {"estimate": row.estimate, "shown_as": scale_of(row.test)}
    return OpenSlice(name=row.slice, n=row.n, more=n - row.n, **size)


def _metrics(comparison: Comparison) -> dict[str, ReportedMetric]:
    sides = comparison.base.by_metric, comparison.fine_tuned.by_metric
    return {
        name: ReportedMetric(base=base, fine_tuned=tuned, test=ReportedTest.of(test.to_dict()))
        for name, test in comparison.tests.items()
        for base, tuned in [[Level.of(by[name].to_dict()) if name in by else None for by in sides]]
    }


def _primary_slices(tables: Sequence[SliceTable]) -> tuple[ReportedSlice, ...]:
    return tuple(ReportedSlice.of(row) for one in tables[:1] for row in one.to_dict())


def _other_slices(tables: Sequence[SliceTable]) -> list[JsonObject]:
    return [row for one in tables[1:] for row in one.to_dict()]
