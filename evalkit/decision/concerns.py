"""What was changed after it could be known how it turns out: allowed, as there may be a reason, and never silent.

Each `Concern` stands in the ledger's own lines, so nobody has to remember it. A layer with one does not pass until somebody
confirms it with a reason (`evalkit confirm STUDY "reason"`), which is a line of the ledger and stands in every report from
then on. Beside them, run by run: what a study declares otherwise than when results on its test set were seen. A metric, a
slice or a margin that is chosen when the results are known proves little: of several, one always looks well. Tightening is
no fault: a slice that is added, or a smaller margin, makes nothing easier. A test set nobody has seen results on is fresh.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from evalkit import ledger
from evalkit.abtest.lock import PLAN_FILE, Look, plan_hashes, read_lock, read_looks
from evalkit.answers.scoring import own_hashes
from evalkit.decision.rules import Rules
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject
from evalkit.human.batch import read_batch
from evalkit.ledger import Ledger, Line
from evalkit.records import Layer
from evalkit.settings import Settings, named
from evalkit.study import Study
from evalkit.wording import count, is_blank, listed, plural, visible

CONFIRMED = "confirmed"
DECIDING = (  # settings that turn a verdict; the A/B test's stand in its plan
    *("alpha", "primary_metric", "lower_is_better", "metric_margin", "checker", "cluster_field"),
    *("slice_fields", "slice_margin", "stage", "scorers", "limit", "allow_incomplete"),
    *("strict", "train_file"),
)
_ADDED = {
    "cluster_field",
    "slice_fields",
    "scorers",
    "slice_margin",
    "metric_margin",
}  # to what is asked
_WATCHED = (
    "primary_metric",
    "lower_is_better",
    "cluster_field",
    "slice_fields",
    "scorers",
    "slice_margin",
    "metric_margin",
    "alpha",
)
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
_MADE = {".json", ".ipynb", ".html"}
_JOURNAL = b'{"kind": "evalkit-journal"'


@dataclass(frozen=True, slots=True)
class Concern:
    """One such change.

    Attributes:
        text: What happened, as the end of a sentence.
        about: What tells it from others: the same change keeps its key.
        names: Settings and rules that it tells of.
        reason: Why it is all right, once confirmed; "" until then.
    """

    layer: Layer
    text: str
    about: tuple[object, ...]
    _: KW_ONLY
    reason: str = ""
    names: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its short name: the layer and 8 hex digits."""
        whole = json.dumps([self.layer, *self.about], sort_keys=True, default=str)
        return f"{self.layer}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


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
        *_of_inputs(home, kept),
        *_taken_up(kept, name),
    ]
    reasons = {
        key: line.facts["reason"] for line in kept.of(CONFIRMED) for key in line.facts["keys"]
    }
    return tuple(replace(one, reason=one.reason or reasons.get(one.key, "")) for one in found)


def confirm(home: Study, reason: str, *, only_files: bool = False) -> tuple[str, ...]:
    """Puts a reason on record for all that is open, and takes up files that no line knows; returns what was confirmed.

    Args:
        home: The study.
        reason: In words, for every report from now on.
        only_files: Only take up files; nothing is done, and nothing said, where there are none.

    Raises:
        DesignError: There is no reason, or nothing to confirm.
        DataError: A file is not what the ledger knows: that is restored, not confirmed.
    """
    told = ledger.mismatches(home.folder)
    strangers = [one for one in told if one.is_unknown]
    if only_files and not strangers:
        return ()
    if len(strangers) < len(told):
        ledger.check(home.folder)
    found = () if only_files else concerns(home, Rules.of(home))
    keys = {one.key: one.text for one in found if not one.reason}
    if not keys and not strangers:
        raise DesignError(f"{home.folder}: nothing is open that a reason could confirm")
    if is_blank(reason):
        raise DesignError(f"give a reason in words for: {'; '.join(keys.values())}")
    there = [home.folder / one.file for one in strangers if one.file != ledger.HEAD]
    votes = [
        vote
        for one in there
        if one.name == "lock.json"
        for vote in one.parent.glob("votes/*.jsonl")
    ]
    facts = {
        "reason": reason.strip(),
        "keys": keys,
        "files": ledger.files_sealed(home.folder, [*there, *votes]),
        "without_head": len(there) < len(strangers),
    }
    ledger.append(home.folder / ledger.FILE, CONFIRMED, facts, without_head=True)
    return (*keys.values(), *(f"{one.file} is taken up as it is" for one in strangers))


def in_force(rules: Rules, home: Study) -> JsonObject:
    """The rules and the settings that decide, for the ledger."""
    return {
        "rules": _plain(rules),
        "settings": {one: getattr(home.settings, one) for one in DECIDING},
    }


def declared(settings: Settings, rules: Rules) -> JsonObject:
    """What decides, as plain values: the settings and the rules whose change is watched from run to run."""
    return {name: getattr(settings, name) for name in _WATCHED} | {"rules": _plain(rules)}


def changed_after_results(
    rows: Iterable[JsonObject],
    now: JsonObject,
    *,
    test_set: str | None,
    but: Container[str] = (),
) -> list[str]:
    """What is declared otherwise than in earlier runs that showed results on this test set, as clauses, one a name.

    Args:
        rows: The study's runs, oldest first, as `history` keeps them.
        now: From `declared`.
        test_set: Hash of the present test set; without one nothing was seen.
        but: Names of which a concern tells already, with what it takes to go on.
    """
    told: dict[str, str] = {}
    for row in rows:
        on = (row.get("bound_to") or {}).get("test_set")
        if not test_set or on != test_set or not row.get("metrics"):
            continue
        known = {"primary_metric": row["primary"]} if row.get("primary") else {}  # in old rows
        then = known | (row.get("parameters") or {}) | (row.get("declared") or {})
        for name, clause in _declared_otherwise(then, now):
            if name not in but:
                seen_on = str(row.get("made_at"))[:10]
                told[name] = f"after results were seen (run of {seen_on}), {clause}"
    return [visible(one) for one in told.values()]


def _declared_otherwise(then: JsonObject, now: JsonObject) -> Iterator[tuple[str, str]]:
    for name in _WATCHED:
        if name in then and (clause := _asks_less(name, then[name], now.get(name))):
            yield name, clause
    rules = now.get("rules") or {}
    for name, old in (then.get("rules") or {}).items():
        if name in rules and _is_laxer(old, rules[name]):
            yield name, f"the rule {name} went from {_said(old)} to {_said(rules[name])}"


def _plain(rules: Rules) -> JsonObject:
    """The rules as plain values; what was retired stands in each report by itself."""
    return {name: value for name, value in asdict(rules).items() if name != "retired_evidence"}


def _said(value: object) -> str:
    """A value as study.yaml has it."""
    return str(value).lower() if isinstance(value, bool) else str(value) or "nothing"


def _asks_less(name: str, old: Any, new: Any) -> str:
    """How a watched setting asks less than before, or another thing, as a clause; "" when it does not."""
    before, today = (named(str(value)) for value in (old, new))
    if name in {"cluster_field", "slice_fields", "scorers"}:
        lost = [one for one in before if one not in today]
        were = "was" if len(lost) == 1 else "were"
        return f"{listed(lost)} {were} taken out of {name}" if lost else ""
    if name in {"primary_metric", "lower_is_better"}:
        is_less = set(before) != set(today)
    elif name == "slice_margin":  # a margin of 0 asks for none, which is the easiest to keep
        is_less = bool(old) and (not new or new > old)
    else:
        is_less = new > old
    return f"{name} went from {_said(old)} to {_said(new)}" if is_less else ""


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
    if name in _ADDED:
        return bool(_asks_less(name, old, new))
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
        text = (
            f"its plan was locked ({locked.locked_at[:10]}) after {plural(len(others), 'look')} at the same experiment under "
            f"another plan, the first on {others[0].at[:10]}"
        )
        about = ("another plan", sorted(known)[0], sorted({one.plan_sha256 for one in others}))
        yield Concern("ab_test", text, about)
    models = (plan.control_model, plan.treatment_model)
    if tried := [
        one
        for one in every
        if one.experiment != plan.experiment_name and one.effect_shown and not one.simulated
        if (one.control_model, one.treatment_model) == models
    ]:
        names = sorted({one.experiment for one in tried})
        text = (
            f"these two models had been tested before: {visible(listed(names))} showed an effect on {tried[0].at[:10]}, and "
            "another plan counts now"
        )
        yield Concern("ab_test", text, ("tried before", plan.experiment_name, names))
    if ours and not ours[-1].simulated and (marked := [one for one in ours if one.simulated]):
        text = f"users of this experiment were marked as simulated on {marked[-1].at[:10]}, and are not now"
        yield Concern("ab_test", text, ("unmarked", marked[-1].experiment))
    yield from _of_log([one for one in ours if not one.simulated and one.n_requests is not None])


def _of_log(looks: Sequence[Look]) -> Iterator[Concern]:
    """What the log held at one look and no longer holds at a later one."""
    for before, now in pairwise(looks):
        had, has = before.n_requests or 0, now.n_requests or 0
        if has < had:
            to = 10 if before.at[:10] != now.at[:10] else 16  # within a day the day tells nothing
            then, later = (one.at[:to].replace("T", " ") for one in (before, now))
            text = f"the log held {count(had)} requests on {then} and {count(has)} on {later}"
            yield Concern("ab_test", text, ("fewer", had, has))
        elif now.last_user and now.last_user < before.last_user:
            then, later = (one.last_user[:16].replace("T", " ") for one in (before, now))
            text = (
                f"the last user of the log came on {then} by one look and on {later} by a later one"
            )
            yield Concern("ab_test", text, ("earlier", then, later))
    shown: dict[tuple[str, int | None], Look] = {}
    for one in looks:
        if not one.effect_shown or one.estimate is None:
            continue
        place = (one.plan_sha256, one.look)
        first = shown.setdefault(place, one)
        if abs((first.estimate or 0.0) - one.estimate) > 1e-6:
            text = f"look {one.look} showed another effect on {first.at[:10]} than on {one.at[:10]}"
            about = ("another effect", first.estimate, one.estimate)
        elif not _same_sums(first, one):
            text = (
                f"look {one.look} rests on other outcomes on {one.at[:10]} than on {first.at[:10]}"
            )
            about = ("other outcomes", one.sum_control, one.sum_treatment)
        else:
            continue
        yield Concern("ab_test", f"{text}: the log has changed", about)
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
        text = f"round {visible(name)} was drawn {len(drawn)} times, each time other pairs or sides"
        yield Concern("human", text, ("drawn again", name, drawn))
    again = sorted(
        file for file, all_ in seen.items() if file.startswith("votes/") and len(all_) > 1
    )
    if again:
        text = f"round {visible(name)} was locked again with other votes ({visible(listed(again))})"
        yield Concern("human", text, ("locked again", name, [[*seen[file]] for file in again]))


def _of_other_rounds(home: Study, kept: Ledger) -> Iterator[Concern]:
    """Rounds in which people judged these very answers before, and which do not count."""
    name, lines = home.settings.rating_round, [*kept.of("round locked")]
    real = (str(one.facts["round"]) for one in lines if not one.facts.get("simulated"))
    locked = [*dict.fromkeys(real)]
    if not (now := _answers_of(home, name)):
        return
    others = [one for one in locked if one != name and _answers_of(home, one) == now]
    earlier = locked[: [*locked, name].index(name)]  # all of them while this one is open
    if before := sorted(one for one in others if one in earlier):
        text = f"people had rated these answers before, in {visible(listed(before))}, which does not count now"
        yield Concern("human", text, ("rated before", name, before))
    if later := sorted(one for one in others if one not in earlier):
        text = f"people had rated these answers in {visible(listed(later))} as well, which does not count"
        yield Concern("human", text, ("rated as well", name, later))


def _answers_of(home: Study, name: str) -> str:
    folder: Path = home.folder / "ratings" / name
    is_there = (folder / "batch.json").is_file()
    return read_batch(folder).bound_to.get("answers", "") if is_there else ""


def _of_inputs(home: Study, kept: Ledger) -> Iterator[Concern]:
    for name, at, then, later in changed_inputs(home, kept):
        text = f"the file {visible(name)} is not what results were read from on {at[:10]}: lines were changed or taken out"
        yield Concern("benchmark", text, ("input", name, then, later))


def _of_rules(kept: Ledger, now: Mapping[str, JsonObject]) -> Iterator[Concern]:
    """Rules that are looser, and settings that are others, than those by which the first result was read."""
    if (first := _at_first_result(kept)) is None:
        return
    old, new = first.facts["rules"], now["rules"]
    was, is_now = first.facts["settings"], now["settings"]
    changed: dict[Layer, list[tuple[str, object, object]]] = {}
    for name in old.keys() & new.keys():
        if _is_laxer(old[name], new[name]):
            row = (name, old[name], new[name])
            changed.setdefault(_OF_LAYER.get(name, "benchmark"), []).append(row)
    for name in DECIDING:
        if name in was and name in is_now and _is_turned(name, was[name], is_now[name]):
            changed.setdefault("benchmark", []).append((name, was[name], is_now[name]))
    for layer, rows in changed.items():
        told = [
            f"{name} from {visible(_said(then))} to {visible(_said(today))}"
            for name, then, today in sorted(rows, key=lambda row: row[0])
        ]
        text = f"what decides was changed after a result ({first.at[:10]}): {listed(told)}"
        names = tuple(name for name, *_ in rows)
        yield Concern(layer, text, ("rules", sorted(map(str, rows))), names=names)


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
            text = f"{ledger.HEAD} was gone on {line.at[:10]}: lines were dropped before line {line.number}, or none were"
            yield Concern("benchmark", text, ("without head", line.number), reason=reason)
        for file in line.facts.get("files", {}):
            if file in {PLAN_FILE, f"ratings/{round_name}/lock.json"}:
                text = (
                    f"the file {visible(file)} was sealed elsewhere and taken up on {line.at[:10]}"
                )
                layer: Layer = "ab_test" if file == PLAN_FILE else "human"
                yield Concern(layer, text, ("taken up", file), reason=reason)


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
