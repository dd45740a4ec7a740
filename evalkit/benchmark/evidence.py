"""What the benchmark hands to the decision: comparison.json, written once and amended by what is found out later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from msgspec import structs

from evalkit.benchmark.comparison import Comparison
from evalkit.benchmark.slices import SliceTable, examples_to_settle
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
from evalkit.records import OPEN_SLICES, Missing
from evalkit.wording import amount, count, listed, loss, plural, scale_of, times

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
        made_at=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
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
    """Adds what the regression chapter found to comparison.json and writes it again; doing it twice changes nothing more.

    Returns:
        None, and nothing is written, when the benchmark chapter has not written the file for these very answers.
    """
    old = Evidence.read(path) if path.exists() else None
    if not isinstance(old, BenchmarkEvidence) or dict(old.bound_to) != dict(bound_to):
        return None
    kept = [one for one in old.missing if one.kind != OPEN_SLICES]
    rest = {**old.details.reported, "slices_other_metrics": _other_slices(slices), **reported}
    details = structs.replace(
        old.details, slices=_primary_slices(slices), noise_floor=noise, reported=rest
    )
    new = replace(old, missing=(*kept, *_missing_slices(slices)), details=details)
    new.write(path)
    return new


def _missing_verdict(comparison: Comparison, power: float) -> Iterable[Missing]:
    if comparison.conclusion not in {"no difference shown", "not shown", "too early"}:
        return
    primary, n = comparison.primary, comparison.n
    if comparison.margin is not None and n:
        seen = f"{plural(n, 'example')} do not rule out a loss of {_loss(comparison)}"
    elif comparison.expects_nothing and primary.estimate is None:
        yield Missing(
            action="Declare what a benchmark can measure without right answers: primary_metric: format (with a checker), or "
            "a scorer of your own; where people decide which is better, with benchmark_needs: not worse in the rules",
            why="Nothing is expected of these examples, so they have no exact match",
            price="a line in study.yaml, before the answers are looked at; nothing is asked again",
        )
        return
    else:
        seen = (
            f"{plural(primary.n, 'example')} cannot tell a difference of the size seen from chance"
        )
    price, then = _price(comparison, power)
    why = f"{seen}; {then}" if then else seen
    yield Missing(action="Answer more held-out examples", why=why, price=price)


def needed(comparison: Comparison, power: float) -> int | None:
    """Examples in all that would settle the question at the rates seen; None when no number would."""
    margin, level = comparison.margin or 0.0, comparison.price_level
    return examples_to_settle(comparison.primary, margin=margin, alpha=level, power=power)


def _price(comparison: Comparison, power: float) -> tuple[str, str]:
    """What a verdict costs, and what that buys: a price is read at a glance, its conditions are not."""
    n, fresh = needed(comparison, power), "test fresh examples alone"
    if not comparison.n:
        return f"{FIRST_SIZE} examples to begin with", ""
    if n and _second_look(comparison):
        return more_examples(comparison, n, power), ""
    if n:
        what = "it" if comparison.margin is None else _shown(comparison)
        then = f"the price shows {what} {times(power)}, if the rates seen are the true ones"
        return _n_more(comparison, n), f"{then}; {fresh}"
    if comparison.margin:
        return "no number of examples would: the loss seen is as large as the margin", ""
    more = f"about {count(3 * comparison.n)} more examples"
    return more, f"the price finds half as small a difference as often; {fresh}"


def _second_look(comparison: Comparison) -> bool:
    return bool(comparison.extension and not comparison.extension.first_look)


def _n_more(comparison: Comparison, n: int) -> str:
    return f"about {count(n - comparison.primary.n)} more examples, {count(n)} in all"


def more_examples(comparison: Comparison, needed: int, power: float) -> str:
    """What a verdict costs, how often that many examples bring it, and how to test them without breaking the level."""
    if _second_look(comparison):
        n = comparison.n
        return f"the second look that was declared: {count(n)} more examples, then first_look: {n}"
    found = f"{times(power)} that shows {_shown(comparison)}, if the rates seen are the true ones"
    # testing again with the examples already read is a second look, which needs its own bounds
    how = (
        "test fresh examples alone, or declare `extension: true` before a first look (old and new tested together as if "
        "nobody had looked show a difference in 7 to 10% of studies without one)"
    )
    if comparison.extension:
        how = "both looks are done, so test fresh examples alone"
    return f"{_n_more(comparison, needed)}: {found}; {how}"


def _shown(comparison: Comparison) -> str:
    if comparison.margin is None:
        return "a difference of the size seen"
    return f"that it is not worse by more than {_loss(comparison)}"


def _loss(comparison: Comparison) -> str:
    return loss(comparison.margin, scale_of(comparison.primary))


def _missing_slices(slices: Sequence[SliceTable]) -> Iterable[Missing]:
    """One line for all open slices, the largest loss first, so that they leave room for what other layers miss."""
    rows = slices[0].rows if slices else ()
    settled = ((row, row.n_to_settle) for row in rows if row.safety or row.gain < 0)
    known = sorted(((row, n) for row, n in settled if n), key=lambda one: one[0].gain)
    if not known:
        return
    named, rest = known[:MOST_SLICES], len(known) - MOST_SLICES
    names = [row.slice for row, _ in named]
    names += [plural(rest, "more slice")] if rest > 0 else []
    seen = [
        f"{row.slice}: {amount(row.estimate, scale_of(row.test))} over {row.n}" for row, _ in named
    ]
    more = listed([f"about {count(n - row.n)}" for row, n in named])
    last, often = named[-1][0], times(named[0][0].wanted_chance)
    one_more = len(named) == 1 and named[0][1] - last.n == 1
    price = f"{more} more {'example' if one_more else 'examples'}"
    nouns = "example" if last.n == 1 else "examples"
    yield Missing(
        kind=OPEN_SLICES,
        action=f"Collect more examples with {listed(names)}",
        why=f"{listed(seen)} {nouns}, not settled; the price settles each {often}",
        price=f"{price}; the rest stands in the table of slices" if rest > 0 else price,
    )


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
