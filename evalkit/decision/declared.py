"""What a study declares, run by run: what became easier to pass, or another, after results on its test set were seen.

A metric, a slice or a margin that is chosen when the results are known proves little: of several, one always looks well.
So each run records what it declared, and a later run on the same test set tells what it declares otherwise. Tightening is
no fault: a slice that is added, or a smaller margin, makes nothing easier. A test set nobody has seen results on is fresh.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from evalkit.decision.rules import Rules
from evalkit.settings import Settings, named
from evalkit.wording import listed, visible

_STRICT_FIRST = (
    ("blocks", "holds", "warns", "ignored"),
    ("better", "not worse"),
    ("rollout", "pre_deploy"),
)


def declared(settings: Settings, rules: Rules) -> dict[str, Any]:
    """What decides, as plain values: the settings and the rules whose change is watched."""
    return {name: getattr(settings, name) for name in _WATCHED} | {"rules": ruled(rules)}


def ruled(rules: Rules) -> dict[str, Any]:
    """The rules as plain values; what was retired stands in each report by itself."""
    return {name: value for name, value in asdict(rules).items() if name != "retired_evidence"}


def is_laxer(old: object, new: object) -> bool:
    """Whether a value asks less than one before it: an effect, a need, a stage, a switch or a margin."""
    for words in _STRICT_FIRST:
        if old in words and new in words:
            return words.index(new) > words.index(old)
    if isinstance(old, bool) or isinstance(new, bool):  # a layer that was needed
        return bool(old) and not new
    return isinstance(old, int | float) and isinstance(new, int | float) and new > old


def asks_less(name: str, old: object, new: object) -> bool:
    """Whether a watched setting asks less than before, or another thing."""
    return bool(_WATCHED[name](name, old, new))


def said(value: object) -> str:
    """A value as study.yaml has it."""
    return str(value).lower() if isinstance(value, bool) else str(value) or "nothing"


def changed_after_results(
    rows: Iterable[Mapping[str, Any]],
    now: Mapping[str, Any],
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
    seen = [
        row
        for row in rows
        if test_set
        and row.get("metrics")
        and (row.get("bound_to") or {}).get("test_set") == test_set
    ]
    told: dict[str, str] = {}
    for row in seen:
        known = {"primary_metric": row["primary"]} if row.get("primary") else {}  # in old rows
        then = known | (row.get("parameters") or {}) | (row.get("declared") or {})
        for name, clause in _changes(then, now):
            if name.removeprefix("rules.") in but:
                continue
            seen_on = str(row.get("made_at"))[:10]
            told[name] = f"after results were seen (run of {seen_on}), {clause}"
    return [visible(one) for one in told.values()]


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, easier in _WATCHED.items():
        if name in then and (clause := easier(name, then[name], now.get(name))):
            yield name, clause
    rules = now.get("rules") or {}
    for name, old in (then.get("rules") or {}).items():
        if name in rules and is_laxer(old, rules[name]):
            clause = f"the rule {name} went from {said(old)} to {said(rules[name])}"
            yield f"rules.{name}", clause


def _another(name: str, old: object, new: object) -> str:
    return "" if _as_set(old) == _as_set(new) else _went(name, old, new)


def _fewer(name: str, old: object, new: object) -> str:
    if lost := [one for one in named(str(old)) if one not in named(str(new))]:
        were = "was" if len(lost) == 1 else "were"
        return f"{listed(lost)} {were} taken out of {name}"
    return ""


def _larger(name: str, old: Any, new: Any) -> str:
    return _went(name, old, new) if new > old else ""


def _larger_or_none(name: str, old: Any, new: Any) -> str:
    """A margin of 0 asks for none, which is the easiest to keep."""
    return _went(name, old, new) if old and (not new or new > old) else ""


def _went(name: str, old: object, new: object) -> str:
    return f"{name} went from {said(old)} to {said(new)}"


def _as_set(value: object) -> set[str]:
    return set(named(str(value)))


_WATCHED: Mapping[str, Callable[[str, Any, Any], str]] = {
    "primary_metric": _another,
    "lower_is_better": _another,
    "cluster_field": _fewer,
    "slice_fields": _fewer,
    "scorers": _fewer,
    "slice_margin": _larger_or_none,
    "metric_margin": _larger,
    "alpha": _larger,
}
