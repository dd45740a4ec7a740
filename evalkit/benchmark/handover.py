"""What the benchmark hands to the decision: comparison.json, written once and amended by what is found out later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from msgspec import structs

from evalkit.benchmark.comparison import Comparison
from evalkit.benchmark.slices import SliceTable
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
from evalkit.files import JsonObject
from evalkit.records import OPEN_SLICES, Missing, MissingKind, OpenSlice
from evalkit.wording import scale_of

FILE = "comparison.json"
FIRST_SIZE = 200  # the lower end of the usual 200 to 500
MOST_SLICES = 3  # that a line of what is missing names


def evidence_of(
    comparison: Comparison,
    *,
    study: str,
    bound_to: Mapping[str, str],
    costs: Mapping[str, JsonObject],
    slices: SliceTable | None = None,
    test_set_findings: Mapping[str, int] | None = None,
    own_code: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> BenchmarkEvidence:
    """The comparison as a record of plain numbers.

    Args:
        comparison: The result.
        study: The study's name.
        bound_to: Hashes it is valid for.
        costs: Tokens, latency and money by role.
        slices: The primary metric's table.
        test_set_findings: The doctor's, counted by kind.
        own_code: Files with functions of one's own, and their hashes.
        now: Time of making; the present by default.
    """
    roles = {"base": comparison.base, "fine_tuned": comparison.fine_tuned}
    against, fragility, wide = comparison.noninferiority, comparison.fragility, comparison.widened
    return BenchmarkEvidence(
        study=study,
        made_at=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
        models=dict(comparison.declared.models),
        bound_to=dict(bound_to),
        simulated=False,
        metric=comparison.primary_metric.replace("_", " "),
        unit="examples",
        primary=ReportedTest.of(comparison.primary.to_dict()),
        missing=tuple(_missing_verdict(comparison)),
        details=BenchmarkDetails(
            metrics=_metrics(comparison),
            p_adjusted=dict(comparison.p_adjusted),
            cells=Cells.of(comparison.cells),
            fragile=fragility.fragile,
            slices=_reported(slices),
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
                "slices_other_metrics": [],
                "chance_rate": comparison.declared.chance_rate,
            },
        ),
    )


def amended(
    path: Path,
    *,
    bound_to: Mapping[str, str],
    slices: SliceTable,
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
    others = [row for one in slices.others for row in one.to_dict()]
    rest = {**old.details.reported, "slices_other_metrics": others, **reported}
    details = structs.replace(
        old.details, slices=_reported(slices), noise_floor=noise, reported=rest
    )
    return replace(old, missing=(*kept, *_missing_slices(slices)), details=details)


def _missing_verdict(comparison: Comparison) -> Iterable[Missing]:
    if comparison.conclusion not in {"no difference shown", "not shown", "too early"}:
        return
    primary, margin = comparison.primary, comparison.margin
    ruled_out = margin is not None and comparison.n > 0
    if not ruled_out and comparison.expects_nothing and primary.estimate is None:
        yield Missing(kind="no_right_answers")
        return
    kind, more, in_all = _price(comparison)
    yield Missing(
        kind=kind,
        n=comparison.n if ruled_out else primary.n,
        more=more,
        needed=in_all,
        margin=margin,
        shown_as=scale_of(primary),
        chance=comparison.declared.power,
    )


def _price(comparison: Comparison) -> tuple[MissingKind, int | None, int | None]:
    """What would settle it, how many more examples that takes, and how many in all."""
    n, looks = comparison.n_to_settle, comparison.extension
    if not comparison.n:
        return "first_examples", FIRST_SIZE, None
    if n and looks and not looks.first_look:
        return "second_look", comparison.n, None
    if n:
        return "more_examples", n - comparison.primary.n, n
    if comparison.margin:
        return "no_examples_would", None, None
    return "half_the_difference", 3 * comparison.n, None


def _missing_slices(slices: SliceTable) -> Iterable[Missing]:
    """One line for all open slices, the largest loss first, so that they leave room for what other layers miss."""
    settled = ((row, row.n_to_settle) for row in slices if row.safety or row.gain < 0)
    known = sorted(((row, n) for row, n in settled if n), key=lambda one: one[0].gain)
    told = [
        OpenSlice(
            name=row.slice,
            n=row.n,
            more=n - row.n,
            estimate=row.estimate,
            shown_as=scale_of(row.test),
        )
        for row, n in known[:MOST_SLICES]
    ]
    if told:
        yield Missing(
            kind=OPEN_SLICES,
            chance=known[0][0].wanted_chance,
            slices=tuple(told),
            further=len(known) - len(told),
        )


def _metrics(comparison: Comparison) -> dict[str, ReportedMetric]:
    return {
        name: ReportedMetric(
            base=one.base and Level.of(one.base.to_dict()),
            fine_tuned=one.fine_tuned and Level.of(one.fine_tuned.to_dict()),
            test=ReportedTest.of(one.test.to_dict()),
        )
        for name, one in comparison.changes.items()
    }


def _reported(slices: SliceTable | None) -> tuple[ReportedSlice, ...]:
    return tuple(ReportedSlice.of(row) for row in (slices.to_dict() if slices else ()))
