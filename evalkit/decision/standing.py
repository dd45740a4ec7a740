"""What still stands against the model: results from before, and changes after a result; and what evidence is not about it.

Evidence for a model counts only for the answers it was made for. Evidence against it is the other way round: that the
answers, the test set or the plan changed since does not take it back. So a result against stands until

- the same question has been asked again and its present answer is at the gate (a benchmark in the same metric, against
  the same base, on the same test set; the same rating round, unless its lock was removed to vote again; the same A/B
  test, unless a planned look had decided it),
- or the study retires it by its key, with a reason, in `retired_evidence` of its rules file; the report prints that.

Whom it is about is told by names, because names are what a plan, a round and a log know of a model: a fine-tuned model
of another name is another model, unless its recorded answers are the very same. A result that names no model stands.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

from evalkit.decision.rules import (
    CONFIRMED,
    RETIRED,
    STANDS_AGAINST,
    UNCONFIRMED,
    Finding,
    OnRecord,
    Rules,
)
from evalkit.evidence import Evidence, HumanDetails
from evalkit.files import JsonObject, as_record
from evalkit.ledger import FILE
from evalkit.records import Against, Change, Layer, Missing
from evalkit.wording import decimals, points

StaleKind = Literal["other_answers", "other_models", "unbound"]


def standing(
    layer: Layer,
    found: Iterable[Against],
    evidence: Mapping[Layer, Evidence],
    *,
    retired: Mapping[str, str],
) -> Iterator[Finding]:
    """What stands against the model in a layer, each result once: it holds, and what of it the study has retired is told.

    Args:
        layer: Which.
        found: Results against any model of the study, from any time.
        evidence: What is at the gate now.
        retired: Reasons by key, from the study's rules.
    """
    at_gate = None if stale_in(evidence, layer) else evidence.get(layer)
    ours = (one for one in found if one.layer == layer and _is_about(one, evidence))
    once = {one.key: one for one in ours if not _settled(one, at_gate)}
    if kept := {key: one for key, one in once.items() if key not in retired}:
        numbers = OnRecord(keys=(*kept,), against=(*kept.values(),))
        yield Finding(rule=STANDS_AGAINST, effect="holds", numbers=numbers)
    for key, one in once.items():
        if key in retired:
            numbers = OnRecord(keys=(key,), source=one.source, reason=retired[key])
            yield Finding(rule=RETIRED, effect="warns", numbers=numbers)


@dataclass(frozen=True, slots=True)
class Concern:
    """A change that could turn the decision, after it could be known how it turns out.

    Attributes:
        about: What tells it from others: the same change keeps its key.
        names: Settings and rules that it tells of.
        reason: Why it is all right, once confirmed; "" until then.
    """

    layer: Layer
    change: Change
    about: tuple[object, ...]
    _: KW_ONLY
    reason: str = ""
    names: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its short name: the layer and 8 hex digits."""
        whole = json.dumps([self.layer, self.change.kind, *self.about], default=str)
        return f"{self.layer}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"

    @property
    def finding(self) -> Finding:
        """It holds until a reason is on record, which is told."""
        numbers = OnRecord(keys=(self.key,), change=self.change, reason=self.reason)
        if self.reason:
            return Finding(rule=CONFIRMED, effect="warns", numbers=numbers)
        return Finding(rule=UNCONFIRMED, effect="holds", numbers=numbers)


def after_results(changed: Iterable[Change], rules: Rules) -> Iterator[Finding]:
    """What is declared otherwise than when results on this test set were seen, as `concerns` tells it."""
    for one in changed:
        name, rule = one.names[0], "declared_after_results"
        numbers, settle = OnRecord(keys=(name,), change=one), Missing(kind=rule, key=name)
        yield Finding(rule=rule, effect=getattr(rules, rule), numbers=numbers, missing=settle)


def _is_about(one: Against, evidence: Mapping[Layer, Evidence]) -> bool:
    """Same name of the fine-tuned model, same recorded answers of it, or no way to tell."""
    now = evidence.get("benchmark") or next(iter(evidence.values()), None)
    name, hash_ = one.models.get("fine_tuned"), one.bound_to.get("fine_tuned")
    if now is None or not name or not now.models.get("fine_tuned"):
        return True
    same_answers = bool(hash_) and hash_ == now.bound_to.get("fine_tuned")
    return name == now.models["fine_tuned"] or same_answers


def _settled(one: Against, now: Evidence | None) -> bool:
    """Whether what is at the gate is the present answer to the question that this result answered."""
    if now is None or now.simulated or not now.primary or now.primary.estimate is None:
        return False
    is_worse, same_source = now.verdict == "worse", one.source == now.source
    if one.layer == "benchmark":
        same_base = one.models.get("base") == now.models.get("base")
        same_test = one.bound_to.get("test_set") == now.bound_to.get("test_set")
        return same_base and same_test and same_source
    if isinstance(now.details, HumanDetails):
        same, lock = dict(one.bound_to) == dict(now.bound_to), now.details.lock
        return same and same_source and (is_worse or not (lock and lock.get("locked_before")))
    return (one.replaced_by_later or is_worse) and same_source


def against_of(evidence: Evidence, word: str, said: str = "") -> Against | None:
    """A layer's evidence as a result against the model; None when it says nothing against it, or is simulated."""
    if word != "don't ship" or evidence.simulated:
        return None
    of_users = evidence.layer == "ab_test"
    return Against(
        layer=evidence.layer,
        source=evidence.source,
        models=dict(evidence.models),
        bound_to={} if of_users else dict(evidence.bound_to),
        said=said,
        at=evidence.made_at,
        replaced_by_later=of_users and evidence.verdict != "worse",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Differs:
    """One thing that evidence was made for and that is another now: its name, and the names of two models."""

    what: str
    made_for: str = ""
    compared: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """Why a layer's evidence is not about what the benchmark compared."""

    kind: StaleKind
    differs: tuple[Differs, ...] = ()


def stale_in(evidence: Mapping[Layer, Evidence], layer: Layer) -> Stale | None:
    """Why a layer's evidence is not about what the benchmark compared; None when it is.

    Raters saw these very answers, so all the hashes that both know must agree. Users saw the models that the plan names,
    never the test set; without a plan (no metric) nothing can be stale.
    """
    this, benchmark, of_users = evidence.get(layer), evidence.get("benchmark"), layer == "ab_test"
    if this is None or benchmark is None or layer == "benchmark" or (of_users and not this.metric):
        return None
    if of_users and (others := _other_models(this, benchmark)):
        return Stale(kind="other_models", differs=others)
    ours, theirs = this.bound_to, benchmark.bound_to
    names = ("base", "fine_tuned") if of_users else [*theirs]
    both = [name for name in names if ours.get(name) and theirs.get(name)]
    if differ := tuple(Differs(what=name) for name in both if ours[name] != theirs[name]):
        return Stale(kind="other_answers", differs=differ)
    if ours.get("fine_tuned") and theirs.get("fine_tuned"):
        return None
    named = this.models.get("fine_tuned")
    is_unbound = named != benchmark.models.get("fine_tuned")
    if of_users:
        is_unbound = bool(not named and this.primary and this.primary.estimate is not None)
    return Stale(kind="unbound") if is_unbound else None


def _other_models(ab_test: Evidence, benchmark: Evidence) -> tuple[Differs, ...]:
    """The log holds no answers to hash, so the plan's names say who answered."""
    named, compared = ab_test.models, benchmark.models
    return tuple(
        Differs(what=side, made_for=named[side], compared=compared[side])
        for side in ("base", "fine_tuned")
        if named.get(side) and compared.get(side) and named[side] != compared[side]
    )


# ---- results against in the rows of earlier runs


def against_in(rows: Iterable[JsonObject], now: JsonObject) -> tuple[Against, ...]:
    """What earlier runs of a study have found against its models, whatever has become of their reports.

    A benchmark that was asked again later - the same metric on the same test set against the same base - counts by its
    latest answer: that is how one checkpoint follows another. One on fewer of the same rows (`limit`) was a trial and
    does not outlive a run on more of them, and does not answer one either. Whether the rest still stands,
    `standing` says.
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
            latest[place] = benchmarks
            if of_all:  # as one on another test set, so fewer rows do not settle it
                more = {"test_set": f"more rows of {bound.get('test_set', '')}"}
                latest[place] = [
                    replace(one, bound_to={**one.bound_to, **more}) for one in benchmarks
                ]
    return (*others, *(one for found in latest.values() for one in found))


def _is_trial(row: JsonObject, now: JsonObject) -> bool:
    then, today = ((one.get("parameters") or {}).get("limit") or 0 for one in (row, now))
    return bool(then) and (not today or today > then)


def _of_row(row: JsonObject) -> list[Against]:
    """A row's results against; older rows name none, and know only what the benchmark's own test said."""
    if "against" in row:
        said = f"{FILE}: the row of run {row.get('run')} names a result against that is not whole"
        return as_record(row["against"], list[Against], said, "restore the file from a copy")
    primary = (row.get("metrics") or {}).get(row.get("primary")) or {}
    if primary.get("verdict") != "worse":
        return []
    ends = [primary.get(name) for name in ("estimate", "ci_low", "ci_high")]
    found = Against(
        layer="benchmark",
        source=str(row["primary"]).replace("_", " "),
        models=row.get("models") or {},
        bound_to=row.get("bound_to") or {},
        said=points(ends[0], decimals(*ends)),
        at=str(row.get("made_at") or ""),
    )
    return [found]
