"""What the benchmark hands to the decision: comparison.json, written once and amended by what is found out later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalkit import wording
from evalkit.benchmark.comparison import Comparison
from evalkit.benchmark.slices import SliceTable, examples_to_settle
from evalkit.records import Evidence, Missing

FILE = "comparison.json"
FIRST_SIZE = 200  # the lower end of the usual 200 to 500
MOST_SLICES = 3  # that a line of what is missing names


def evidence_of(
    comparison: Comparison,
    *,
    study: str,
    models: Mapping[str, str],
    bound_to: Mapping[str, str],
    costs: Mapping[str, object],
    slices: Iterable[SliceTable] = (),
    power: float = 0.8,
    now: datetime | None = None,
    **details: Any,
) -> Evidence:
    """The comparison as a record of plain numbers.

    Args:
        comparison: The result.
        study: The study's name.
        models: Names of base and fine_tuned.
        bound_to: Hashes it is valid for.
        costs: Tokens, latency and money by role.
        slices: The primary metric's table first.
        power: For the price of a verdict.
        now: Time of making; the present by default.
        **details: Anything else that was measured.
    """
    return Evidence(
        layer="benchmark",
        study=study,
        made_at=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
        models=dict(models),
        bound_to=dict(bound_to),
        simulated=False,
        metric=comparison.primary_metric.replace("_", " "),
        unit="examples",
        primary=comparison.primary.to_dict(),
        missing=tuple(_missing_verdict(comparison, power)),
        details={
            "metrics": _metrics(comparison),
            "p_adjusted": dict(comparison.p_adjusted),
            "cells": dict(comparison.cells),
            "cells_metric": comparison.status_metric,
            "fragile": comparison.fragility.fragile,
            "fragility": _fragility(comparison),
            "noninferiority": comparison.noninferiority and comparison.noninferiority.to_dict(),
            "noise_floor": None,
            "outcomes": {
                "base": dict(comparison.base.outcomes),
                "fine_tuned": dict(comparison.fine_tuned.outcomes),
            },
            "costs": costs,
            "n": comparison.n,
            "n_compared": comparison.n_compared,
            "question": comparison.question,
            "conclusion": comparison.conclusion,
            "widened": _limits(comparison.widened),
            "clustered": comparison.clustered,
            "unmatched": {
                "base": [*comparison.unmatched_base],
                "fine_tuned": [*comparison.unmatched_fine_tuned],
            },
            "notes": [*comparison.notes],
            **_slices(list(slices)),
            **details,
        },
    )


def amended(
    path: Path,
    *,
    bound_to: Mapping[str, str],
    slices: Sequence[SliceTable],
    noise: Mapping[str, Any] | None,
    **details: Any,
) -> Evidence | None:
    """Adds what the regression chapter found to comparison.json and writes it again; doing it twice changes nothing more.

    Returns:
        None, and nothing is written, when the benchmark chapter has not written the file for these very answers.
    """
    old = Evidence.read(path) if path.exists() else None
    if old is None or dict(old.bound_to) != dict(bound_to):
        return None
    kept = [one for one in old.missing if one.kind != OPEN_SLICES]
    new = replace(
        old,
        missing=(*kept, *_missing_slices(slices)),
        details={**old.details, **_slices(slices), "noise_floor": noise, **details},
    )
    new.write(path)
    return new


OPEN_SLICES = "open_slices"  # what the regression chapter says anew, so an older word of it goes


def _missing_verdict(comparison: Comparison, power: float) -> Iterable[Missing]:
    if comparison.conclusion not in {"no difference shown", "not shown", "too early"}:
        return
    price, then = _price(comparison, power)
    if comparison.margin is not None and comparison.n:
        loss = wording.loss(comparison.margin, wording.scale_of(comparison.primary))
        seen = f"{wording.plural(comparison.n, 'example')} do not rule out a loss of {loss}"
    elif comparison.expects_nothing and comparison.primary.estimate is None:
        yield Missing(
            action="Declare what a benchmark can measure without right answers: primary_metric: format (with a checker), or "
            "a scorer of your own; where people decide which is better, with benchmark_needs: not worse in the rules",
            why="Nothing is expected of these examples, so they have no exact match",
            price="a line in study.yaml, before the answers are looked at; nothing is asked again",
        )
        return
    else:
        n = wording.plural(comparison.primary.n, "example")
        seen = f"{n} cannot tell a difference of the size seen from chance"
    why = f"{seen}; {then}" if then else seen
    yield Missing(action="Answer more held-out examples", why=why, price=price)


def _price(comparison: Comparison, power: float) -> tuple[str, str]:
    """What a verdict costs, and what that buys: a price is read at a glance, its conditions are not."""
    if not comparison.n:
        return f"{FIRST_SIZE} examples to begin with", ""
    margin = comparison.margin or 0.0
    needed = examples_to_settle(
        comparison.primary, margin=margin, alpha=comparison.price_level, power=power
    )
    if needed and _second_look(comparison):
        return more_examples(comparison, needed, power), ""
    if needed:
        what = "it" if comparison.margin is None else _shown(comparison)
        then = f"the price shows {what} {wording.times(power)}, if the rates seen are the true ones"
        return _n_more(comparison, needed), f"{then}; test fresh examples alone"
    if margin:
        return "no number of examples would: the loss seen is as large as the margin", ""
    more = wording.count(3 * comparison.n)
    then = "the price finds half as small a difference as often"
    return f"about {more} more examples", f"{then}; test fresh examples alone"


def _second_look(comparison: Comparison) -> bool:
    return bool(comparison.extension and not comparison.extension.first_look)


def _n_more(comparison: Comparison, needed: int) -> str:
    more = wording.count(needed - comparison.primary.n)
    return f"about {more} more examples, {wording.count(needed)} in all"


def more_examples(comparison: Comparison, needed: int, power: float) -> str:
    """What a verdict costs, how often that many examples bring it, and how to test them without breaking the level."""
    if _second_look(comparison):
        n = comparison.n
        return f"the second look that was declared: {wording.count(n)} more examples, then first_look: {n}"
    found = f"{wording.times(power)} that shows {_shown(comparison)}, if the rates seen are the true ones"
    return f"{_n_more(comparison, needed)}: {found}; {_how(comparison)}"


def _shown(comparison: Comparison) -> str:
    if comparison.margin is None:
        return "a difference of the size seen"
    loss = wording.loss(comparison.margin, wording.scale_of(comparison.primary))
    return f"that it is not worse by more than {loss}"


def _how(comparison: Comparison) -> str:
    """Testing again with the examples already read is a second look, which needs its own bounds."""
    if comparison.extension:
        return "both looks are done, so test fresh examples alone"
    return (
        "test fresh examples alone, or declare `extension: true` before a first look (old and new tested together as if "
        "nobody had looked show a difference in 7 to 10% of studies without one)"
    )


def _missing_slices(slices: Sequence[SliceTable]) -> Iterable[Missing]:
    """One line for all open slices, the largest loss first, so that they leave room for what other layers miss."""
    rows = [
        row
        for row in (slices[0].rows if slices else ())
        if row.n_to_settle and (row.safety or row.gain < 0)
    ]
    rows.sort(key=lambda row: row.gain)
    named, n_more = rows[:MOST_SLICES], len(rows[MOST_SLICES:])
    if rows:
        names = [row.slice for row in named] + (
            [wording.plural(n_more, "more slice")] if n_more else []
        )
        why = wording.listed(
            [
                f"{row.slice}: {wording.amount(row.estimate, wording.scale_of(row.test))} over {row.n}"
                for row in named
            ]
        )
        more = wording.listed(
            [f"about {wording.count((row.n_to_settle or 0) - row.n)}" for row in named]
        )
        one = len(named) == 1 and (named[0].n_to_settle or 0) - named[0].n == 1
        price = f"{more} more {'example' if one else 'examples'}" + (
            "; the rest stands in the table of slices" if n_more else ""
        )
        noun = "example" if named[-1].n == 1 else "examples"
        yield Missing(
            kind=OPEN_SLICES,
            action=f"Collect more examples with {wording.listed(names)}",
            why=f"{why} {noun}, not settled; the price settles each {wording.times(named[0].wanted_chance)}",
            price=price,
        )


def _metrics(comparison: Comparison) -> dict[str, Any]:
    sides = {"base": comparison.base.by_metric, "fine_tuned": comparison.fine_tuned.by_metric}
    return {
        name: {role: by[name].to_dict() if name in by else None for role, by in sides.items()}
        | {"test": test.to_dict()}
        for name, test in comparison.tests.items()
    }


def _limits(test: Any) -> dict[str, Any] | None:
    return test and {name: getattr(test, name) for name in ("ci_low", "ci_high", "alpha")}


def _fragility(comparison: Comparison) -> dict[str, Any]:
    found = comparison.fragility
    without = found.without_errors.to_dict()
    return {
        "fragile": found.fragile,
        "n_errors": found.n_errors,
        "without_errors": without,
        "sentence": str(found),
    }


def _slices(tables: Sequence[SliceTable]) -> dict[str, Any]:
    first, others = (
        (tables[0].to_dict() if tables else []),
        [row for one in tables[1:] for row in one.to_dict()],
    )
    return {"slices": first, "slices_other_metrics": others}
