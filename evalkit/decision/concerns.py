"""What was changed after it could be known how it turns out: allowed, as there may be a reason, and never silent.

Each `Concern` stands in the ledger's own lines, so nobody has to remember it. A layer with one does not pass until somebody
confirms it with a reason (`evalkit confirm STUDY "reason"`), which is a line of the ledger and stands in every report from
then on. Beside them, run by run: what a study declares otherwise than when results on its test set were seen. A metric, a
slice or a margin that is chosen when the results are known proves little: of several, one always looks well. Tightening is
no fault: a slice that is added, or a smaller margin, makes nothing easier. A test set nobody has seen results on is fresh.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from evalkit import ledger
from evalkit.abtest.lock import PLAN_FILE, Look, plan_hashes, read_lock, read_looks
from evalkit.decision.history import DECIDING, changed_inputs, in_force, plain
from evalkit.decision.rules import CONFIRMED, Rules
from evalkit.decision.standing import Concern
from evalkit.files import JsonObject
from evalkit.human.batch import read_batch
from evalkit.ledger import Ledger
from evalkit.records import Change, Layer
from evalkit.study import Settings, Study, named
from evalkit.wording import minute

_LISTS = ("cluster_field", "slice_fields", "scorers")  # what is added to them is asked as well
_MARGINS = ("slice_margin", "metric_margin")
_WATCHED = ("primary_metric", "lower_is_better", *_LISTS, *_MARGINS, "alpha")
_STRICT_FIRST = (
    ("blocks", "holds", "warns", "ignored"),
    ("better", "not worse"),
    ("rollout", "pre_deploy"),
)
_NO_RESULT = {"missing", "too early", "invalid"}
_OF_LAYER: dict[str, Layer] = {
    "human_needs": "human",
    "human_margin": "human",
    "length_explains": "human",
    "few_raters": "human",
    "careless_raters": "human",
    "ab_test_needs": "ab_test",
    "ab_test_margin": "ab_test",
    "guardrail_not_shown": "ab_test",
}


def concerns(home: Study, rules: Rules) -> tuple[Concern, ...]:
    """What the ledger of a study tells of the plan, the round and the rules it decides by now.

    Raises:
        DataError: The ledger or the plan is damaged.
    """
    kept, name = ledger.read(home.folder / ledger.FILE), home.settings.rating_round
    found = [
        *_of_plan(home),
        *_of_round(kept, name),
        *_of_other_rounds(home, kept),
        *_of_rules(kept, in_force(rules, home)),
        *(
            Concern("benchmark", Change(kind="input", at=at, names=(name,)), (name, then, later))
            for name, at, then, later in changed_inputs(home, kept)
        ),
        *_taken_up(kept, name),
    ]
    reasons = {
        key: line.facts["reason"] for line in kept.of(CONFIRMED) for key in line.facts["keys"]
    }
    return tuple(replace(one, reason=one.reason or reasons.get(one.key, "")) for one in found)


def declared(settings: Settings, rules: Rules) -> JsonObject:
    """What decides, as plain values: the settings and the rules whose change is watched from run to run."""
    return {name: getattr(settings, name) for name in _WATCHED} | {"rules": plain(rules)}


def changed_after_results(
    rows: Iterable[JsonObject],
    now: JsonObject,
    *,
    test_set: str | None,
    but: Container[str] = (),
) -> list[Change]:
    """What is declared otherwise than in earlier runs that showed results on this test set, one a name, which comes first.

    Args:
        rows: The study's runs, oldest first, as `history` keeps them.
        now: From `declared`.
        test_set: Hash of the present test set; without one nothing was seen.
        but: Names of which a concern tells already, with what it takes to go on.
    """
    told: dict[str, Change] = {}
    for row in rows:
        on = (row.get("bound_to") or {}).get("test_set")
        if not test_set or on != test_set or not row.get("metrics"):
            continue
        known = {"primary_metric": row["primary"]} if row.get("primary") else {}  # in old rows
        then = known | (row.get("parameters") or {}) | (row.get("declared") or {})
        for one in _declared_otherwise(then, now):
            if one.names[0] not in but:
                told[one.names[0]] = replace(one, at=str(row.get("made_at")))
    return [*told.values()]


def _declared_otherwise(then: JsonObject, now: JsonObject) -> Iterator[Change]:
    for name in _WATCHED:
        if name in then and _asks_less(name, old := then[name], new := now.get(name)):
            lost = _lost(old, new) if name in _LISTS else ()
            kind = "taken out" if lost else "setting"
            yield Change(kind=kind, names=(name, *lost), turned=((name, old, new),))
    rules = now.get("rules") or {}
    for name, old in (then.get("rules") or {}).items():
        if name in rules and _is_laxer(old, rules[name]):
            yield Change(kind="rule", names=(name,), turned=((name, old, rules[name]),))


def _lost(old: object, new: object) -> tuple[str, ...]:
    """What a list of names has no longer."""
    before, today = (named(str(value)) for value in (old, new))
    return tuple(one for one in before if one not in today)


def _asks_less(name: str, old: Any, new: Any) -> bool:
    """Whether a watched setting asks less than before, or another thing."""
    if name in _LISTS:
        return bool(_lost(old, new))
    if name in {"primary_metric", "lower_is_better"}:
        return {*named(str(old))} != {*named(str(new))}
    if name == "slice_margin":  # a margin of 0 asks for none, which is the easiest to keep
        return bool(old) and (not new or new > old)
    return new > old


def _is_laxer(old: object, new: object) -> bool:
    """Whether a value asks less than one before it: an effect, a need, a stage, a switch or a margin."""
    for words in _STRICT_FIRST:
        if old in words and new in words:
            return words.index(new) > words.index(old)
    if isinstance(old, bool) or isinstance(new, bool):  # a layer that was needed
        return bool(old) and not new
    return isinstance(old, int | float) and isinstance(new, int | float) and new > old


def _is_turned(name: str, old: Any, new: Any) -> bool:
    """Whether a setting is no longer what it was, or for those that only add to what is asked, asks less."""
    if name in (*_LISTS, *_MARGINS):
        return _asks_less(name, old, new)
    if name == "limit":  # fewer rows, 0 being all of them
        return bool(new) and (not old or new < old)
    if name == "allow_incomplete":
        return bool(new) and not old
    if name in {"strict", "train_file"}:  # rows left out; leaks not looked for
        return bool(old) and not new
    if name == "checker":
        return old != new and old not in {"", "none"}
    return _is_laxer(old, new) if name == "stage" else old != new


def _of_plan(home: Study) -> Iterator[Concern]:
    path = home.path(PLAN_FILE)
    if not path.exists():
        return
    locked, known, every = read_lock(path), plan_hashes(path), read_looks(home.folder / ledger.FILE)
    plan = locked.plan
    ours = [one for one in every if one.experiment == plan.experiment_name]
    if others := [one for one in ours if not one.simulated and one.plan_sha256 not in known]:
        change = Change(
            kind="another plan", at=locked.locked_at, before=others[0].at, n=len(others)
        )
        about = (sorted(known)[0], sorted({one.plan_sha256 for one in others}))
        yield Concern("ab_test", change, about)
    models = (plan.control_model, plan.treatment_model)
    if tried := [
        one
        for one in every
        if one.experiment != plan.experiment_name and one.effect_shown and not one.simulated
        if (one.control_model, one.treatment_model) == models
    ]:
        names = sorted({one.experiment for one in tried})
        change = Change(kind="tried before", at=tried[0].at, names=tuple(names))
        yield Concern("ab_test", change, (plan.experiment_name, names))
    if ours and not ours[-1].simulated and (marked := [one for one in ours if one.simulated]):
        change = Change(kind="unmarked", at=marked[-1].at)
        yield Concern("ab_test", change, (marked[-1].experiment,))
    yield from _of_log([one for one in ours if not one.simulated and one.n_requests is not None])


def _of_log(looks: Sequence[Look]) -> Iterator[Concern]:
    """What the log held at one look and no longer holds at a later one."""
    for before, now in pairwise(looks):
        had, has = before.n_requests or 0, now.n_requests or 0
        if has < had:
            change = Change(kind="fewer", at=now.at, before=before.at, n=has, n_before=had)
            yield Concern("ab_test", change, (had, has))
        elif now.last_user and now.last_user < before.last_user:
            change = Change(kind="earlier", at=now.last_user, before=before.last_user)
            then, later = map(minute, (change.before, change.at))
            yield Concern("ab_test", change, (then, later))
    shown: dict[tuple[str, int | None], Look] = {}
    for one in looks:
        if not one.effect_shown or one.estimate is None:
            continue
        place = (one.plan_sha256, one.look)
        first = shown.setdefault(place, one)
        if abs((first.estimate or 0.0) - one.estimate) > 1e-6:
            kind, about = "another effect", (first.estimate, one.estimate)
        elif not _same_sums(first, one):
            kind, about = "other outcomes", (one.sum_control, one.sum_treatment)
        else:
            continue
        change = Change(kind=kind, at=one.at, before=first.at, names=(str(one.look),))
        yield Concern("ab_test", change, about)
        shown[place] = one


def _same_sums(first: Look, later: Look) -> bool:
    """Whether two readings of a look summed the same, as far as both lines say it."""
    both = ((first.sum_control, later.sum_control), (first.sum_treatment, later.sum_treatment))
    return all(a is None or b is None or math.isclose(a, b, rel_tol=1e-6) for a, b in both)


def _of_round(kept: Ledger, name: str) -> Iterator[Concern]:
    """Files of a round of people that were sealed twice, and not the same."""
    seen: dict[str, dict[str, None]] = {}
    for line in kept.lines:
        for file, sha256 in line.facts.get("files", {}).items():
            if file.startswith(f"ratings/{name}/") and not line.facts.get("simulated"):
                seen.setdefault(file.removeprefix(f"ratings/{name}/"), {})[sha256] = None
    if len(drawn := [*seen.get("batch.json", {})]) > 1:
        change = Change(kind="drawn again", names=(name,), n=len(drawn))
        yield Concern("human", change, (name, drawn))
    again = sorted(
        file for file, all_ in seen.items() if file.startswith("votes/") and len(all_) > 1
    )
    if again:
        change = Change(kind="locked again", names=(name, *again))
        yield Concern("human", change, (name, [[*seen[file]] for file in again]))


def _of_other_rounds(home: Study, kept: Ledger) -> Iterator[Concern]:
    """Rounds in which people judged these very answers before, and which do not count."""
    name, lines = home.settings.rating_round, [*kept.of("round locked")]
    real = (str(one.facts["round"]) for one in lines if not one.facts.get("simulated"))
    locked = [*dict.fromkeys(real)]
    if not (now := _answers_of(home, name)):
        return
    others = [one for one in locked if one != name and _answers_of(home, one) == now]
    earlier = locked[: [*locked, name].index(name)]  # all of them while this one is open
    before = sorted(one for one in others if one in earlier)
    later = sorted(one for one in others if one not in earlier)
    for kind, names in (("rated before", before), ("rated as well", later)):
        if names:
            yield Concern("human", Change(kind=kind, names=tuple(names)), (name, names))


def _answers_of(home: Study, name: str) -> str:
    folder = home.folder / "ratings" / name
    is_there = (folder / "batch.json").is_file()
    return read_batch(folder).bound_to.get("answers", "") if is_there else ""


def _of_rules(kept: Ledger, now: Mapping[str, JsonObject]) -> Iterator[Concern]:
    """Rules that are looser, and settings that are others, than those by which the first result was read."""
    if (first := _at_first_result(kept)) is None:
        return
    old, new = first.facts["rules"], now["rules"]
    was, is_now = first.facts["settings"], now["settings"]
    changed: dict[Layer, list[tuple[str, Any, Any]]] = {}
    for name in old.keys() & new.keys():
        if _is_laxer(old[name], new[name]):
            row = (name, old[name], new[name])
            changed.setdefault(_OF_LAYER.get(name, "benchmark"), []).append(row)
    for name in DECIDING:
        if name in was and name in is_now and _is_turned(name, was[name], is_now[name]):
            changed.setdefault("benchmark", []).append((name, was[name], is_now[name]))
    for layer, rows in changed.items():
        turned = tuple(sorted(rows, key=lambda row: row[0]))
        names = tuple(name for name, *_ in turned)
        change = Change(kind="rules", at=first.at, turned=turned)
        yield Concern(layer, change, (sorted(map(str, rows)),), names=names)


def _at_first_result(kept: Ledger) -> ledger.Line | None:
    rules = None
    for line in kept.of("rules", "decision", "run"):
        shown = {*(line.facts.get("layers") or {}).values()} - _NO_RESULT
        if line.kind == "rules":
            rules = line
        elif rules and (line.facts.get("metrics") or shown):
            return rules
    return None


def _taken_up(kept: Ledger, round_name: str) -> Iterator[Concern]:
    """Files that no line knew when somebody took them up with a reason."""
    for line in kept.of(CONFIRMED):
        reason = line.facts["reason"]
        if line.facts.get("without_head"):
            change = Change(kind="without head", at=line.at, n=line.number)
            yield Concern("benchmark", change, (line.number,), reason=reason)
        for file in line.facts.get("files", {}):
            if file in {PLAN_FILE, f"ratings/{round_name}/lock.json"}:
                layer: Layer = "ab_test" if file == PLAN_FILE else "human"
                change = Change(kind="taken up", at=line.at, names=(file,))
                yield Concern(layer, change, (file,), reason=reason)
