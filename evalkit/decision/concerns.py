"""What was changed after it could be known how it turns out: allowed, as there may be a reason, and never silent.

Each stands in the ledger's own lines, so nobody has to remember it. A layer with one does not pass until somebody confirms
it with a reason (`evalkit confirm STUDY "reason"`), which is a line of the ledger and stands in every report from then on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from evalkit import ledger
from evalkit.abtest.chapter import PLAN_FILE
from evalkit.abtest.lock import plan_hashes, read_lock
from evalkit.abtest.looks import Look, read_looks
from evalkit.decision.rules import Rules
from evalkit.errors import DesignError
from evalkit.ledger import Ledger
from evalkit.records import Layer
from evalkit.settings import named
from evalkit.study import Study
from evalkit.wording import count, listed, plural, visible

CONFIRMED = "confirmed"
DECIDING = (  # settings that turn a verdict; the A/B test's stand in its plan
    *("alpha", "primary_metric", "lower_is_better", "metric_margin", "checker", "cluster_field"),
    *("slice_fields", "slice_margin", "stage"),
)
_MARGINS = ("metric_margin", "slice_margin")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """One such change.

    Attributes:
        text: What happened, as the end of a sentence.
        about: What tells it from others: the same change keeps its key.
        reason: Why it is all right, once confirmed; "" until then.
    """

    layer: Layer
    text: str
    about: tuple[Any, ...]
    reason: str = ""

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
    kept = ledger.read(home.folder / ledger.FILE)
    found = [
        *_of_plan(home),
        *_of_round(kept, home.settings.rating_round),
        *_of_rules(kept, in_force(rules, asdict_settings(home))),
        *_taken_up(kept, home.settings.rating_round),
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
    rules = Rules.read(home.named_file(home.settings.rules_file))
    found = () if only_files else concerns(home, rules)
    keys = {one.key: one.text for one in found if not one.reason}
    if not keys and not strangers:
        raise DesignError(f"{home.folder}: nothing is open that a reason could confirm")
    if not reason.strip():
        raise DesignError(f"give a reason in words for: {'; '.join(keys.values())}")
    paths = [path for one in strangers for path in _with_votes(home, one.file)]
    facts = {
        "reason": reason.strip(),
        "keys": keys,
        "files": ledger.files_sealed(home.folder, paths),
    }
    ledger.append(home.folder / ledger.FILE, CONFIRMED, facts)
    return (*keys.values(), *(f"{one.file} is taken up as it is" for one in strangers))


def in_force(rules: Rules, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The rules and the settings that decide, for the ledger."""
    plain = {name: value for name, value in asdict(rules).items() if name != "retired_evidence"}
    return {"rules": plain, "settings": {one: settings[one] for one in DECIDING if one in settings}}


def asdict_settings(home: Study) -> dict[str, Any]:
    """The settings that decide, by name."""
    return {name: getattr(home.settings, name) for name in DECIDING}


def _of_plan(home: Study) -> Iterator[Concern]:
    path = home.path(PLAN_FILE)
    if not path.exists():
        return
    plan, known = read_lock(path), plan_hashes(path)
    experiment = plan.plan.experiment_name
    looks = [one for one in read_looks(home.folder / ledger.FILE) if one.experiment == experiment]
    if others := [one for one in looks if one.plan_sha256 not in known and not one.simulated]:
        text = (
            f"its plan was locked ({plan.locked_at[:10]}) after {plural(len(others), 'look')} at the same experiment under "
            f"another plan, the first on {others[0].at[:10]}"
        )
        about = ("another plan", sorted(known)[0], sorted({one.plan_sha256 for one in others}))
        yield Concern(layer="ab_test", text=text, about=about)
    yield from _of_log(looks)


def _of_log(looks: list[Look]) -> Iterator[Concern]:
    """What the log held at one look and no longer holds at a later one."""
    if looks and not looks[-1].simulated and (marked := [one for one in looks if one.simulated]):
        text = f"users of this experiment were marked as simulated on {marked[-1].at[:10]}, and are not now"
        yield Concern(layer="ab_test", text=text, about=("unmarked", marked[-1].experiment))
    real = [one for one in looks if not one.simulated and one.n_requests is not None]
    for before, now in pairwise(real):
        had, has = before.n_requests or 0, now.n_requests or 0
        if has < had:
            to = 10 if before.at[:10] != now.at[:10] else 16  # within a day the day tells nothing
            then, later = (one.at[:to].replace("T", " ") for one in (before, now))
            text = f"the log held {count(had)} requests on {then} and {count(has)} on {later}"
            yield Concern(layer="ab_test", text=text, about=("fewer", had, has))
    shown: dict[tuple[str, int | None], Look] = {}
    for one in real:
        if one.effect_shown and one.estimate is not None:
            first = shown.setdefault((one.plan_sha256, one.look), one)
            if abs((first.estimate or 0.0) - one.estimate) > 1e-6:
                text = f"look {one.look} showed another effect on {first.at[:10]} than on {one.at[:10]}: the log has changed"
                yield Concern(
                    layer="ab_test",
                    text=text,
                    about=("another effect", first.estimate, one.estimate),
                )
                shown[(one.plan_sha256, one.look)] = one


def _of_round(kept: Ledger, name: str) -> Iterator[Concern]:
    """Files of a round of people that were sealed twice, and not the same."""
    seen: dict[str, list[str]] = {}
    for line in kept.lines:
        for file, sha256 in line.facts.get("files", {}).items():
            if file.startswith(f"ratings/{name}/") and not line.facts.get("simulated"):
                hashes = seen.setdefault(file.removeprefix(f"ratings/{name}/"), [])
                hashes += [sha256] if sha256 not in hashes else []
    if len(drawn := seen.get("batch.json", [])) > 1:
        text = f"round {visible(name)} was drawn {len(drawn)} times, each time other pairs or sides"
        yield Concern(layer="human", text=text, about=("drawn again", name, drawn))
    votes = {file: hashes for file, hashes in seen.items() if file.startswith("votes/")}
    if changed := sorted(file for file, hashes in votes.items() if len(hashes) > 1):
        text = (
            f"round {visible(name)} was locked again with other votes ({visible(listed(changed))})"
        )
        about = ("locked again", name, [votes[file] for file in changed])
        yield Concern(layer="human", text=text, about=about)


def _of_rules(kept: Ledger, now: Mapping[str, Mapping[str, Any]]) -> Iterator[Concern]:
    """Rules that are looser, and settings that are others, than those by which the first result was read."""
    if (first := _at_first_result(kept)) is None:
        return
    old, new = first.facts["rules"], now["rules"]
    changed: dict[Layer, list[tuple[str, Any, Any]]] = {}
    for name in old.keys() & new.keys():
        if _looser(old[name], new[name]):
            changed.setdefault(_OF_LAYER.get(name, "benchmark"), []).append(
                (name, old[name], new[name])
            )
    was, is_now = first.facts["settings"], now["settings"]
    both = [one for one in DECIDING if one in was and one in is_now]
    others = [(one, was[one], is_now[one]) for one in both if _turned(one, was[one], is_now[one])]
    if others:
        changed.setdefault("benchmark", []).extend(others)
    for layer, rows in changed.items():
        told = [
            f"{name} from {_said(then)} to {_said(today)}" for name, then, today in sorted(rows)
        ]
        text = f"what decides was changed after a result ({first.at[:10]}): {listed(told)}"
        yield Concern(layer=layer, text=text, about=("rules", sorted(map(str, rows))))


def _at_first_result(kept: Ledger) -> ledger.Line | None:
    rules = None
    for line in kept.of("rules", "decision"):
        if line.kind == "rules":
            rules = line
        elif set(line.facts["layers"].values()) - _NO_RESULT:
            return rules
    return None


def _turned(name: str, old: Any, new: Any) -> bool:
    """Whether a setting is no longer what it was, or for those that only add to what is asked, asks less."""
    if name == "slice_fields":
        return bool(set(named(old)) - set(named(new)))
    if name in {"checker", "cluster_field"}:
        return old != new and old not in {"", "none"}
    return _looser(old, new) if name in {"stage", *_MARGINS} else old != new


def _looser(old: Any, new: Any) -> bool:
    for words in _STRICT_FIRST:
        if old in words and new in words:
            return words.index(new) > words.index(old)
    if isinstance(old, bool):  # a layer that was needed
        return old and not new
    return isinstance(new, int | float) and isinstance(old, int | float) and new > old


def _said(value: Any) -> str:
    return visible(str(value).lower() if isinstance(value, bool) else str(value)) or "nothing"


def _taken_up(kept: Ledger, round_name: str) -> Iterator[Concern]:
    """Files that no line knew when somebody took them up with a reason."""
    for line in kept.of(CONFIRMED):
        for file in line.facts.get("files", {}):
            layer: Layer = "ab_test" if file == PLAN_FILE else "human"
            if file in {PLAN_FILE, f"ratings/{round_name}/lock.json"}:
                text = f"{visible(file)} was sealed elsewhere and taken up on {line.at[:10]}"
                yield Concern(
                    layer=layer, text=text, about=("taken up", file), reason=line.facts["reason"]
                )


def _with_votes(home: Study, file: str) -> Iterable[Any]:
    path = home.folder / file
    return [path, *(path.parent.glob("votes/*.jsonl") if path.name == "lock.json" else ())]
