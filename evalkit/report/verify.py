"""Whether a study's record is whole: the chain, the files it seals, its runs, and the decision made from their evidence."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evalkit import ledger
from evalkit.decision import Decision, Rules, decide, read_decision, read_evidence
from evalkit.decision.findings import STANDS_AGAINST, UNCONFIRMED
from evalkit.decision.intact import changed_files, run_line
from evalkit.decision.record import FILE as DECISION
from evalkit.errors import DataError, DesignError, EvalkitError
from evalkit.ledger import FILE, SEAL_KEY, Ledger
from evalkit.study import Study
from evalkit.wording import plural

BROKEN = 12
_HEAD = re.compile(r'(?i)ledger(?: head)?["\s:]*(?:<code[^>]*>)?["\s]*([0-9a-f]{64})')
_NUMBERS = (
    "verdict",
    "simulated",
    "stale",
    "n",
    "estimate",
    "ci_low",
    "ci_high",
    "p_value",
    "alpha",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was looked at, in the order of looking.

    Attributes:
        told: Whether it is intact, None for what cannot be said, and a sentence.
        head: Head of the chain; "" where there is none.
    """

    told: tuple[tuple[bool | None, str], ...]
    head: str = ""

    @property
    def code(self) -> int:
        """Exit code: 0 when nothing is amiss, else 12."""
        return BROKEN if any(one is False for one, _ in self.told) else 0

    def __str__(self) -> str:
        words = {True: "intact      ", False: "NOT INTACT  ", None: "            "}
        return "\n".join(f"{words[one]}{said}" for one, said in self.told)


def verify(name: str, *, against: str = "", root: Path | None = None) -> Verified:
    """Recomputes every hash of a study's ledger, and its last decision from the evidence.

    Args:
        name: The study.
        against: A head of the ledger as somebody kept it (at least 8 hex digits), or a report or manifest that names one.
        root: The project's folder; found from here by default.

    Raises:
        DesignError: `against` is neither.
        DataError: There is no such study.
    """
    home = Study.open(name, root=root)
    path = home.folder / FILE
    try:
        kept = ledger.read(path)
    except DataError as why:
        return Verified(told=((False, str(why)),))
    if not kept.head:
        return Verified(told=((False, f"{path}: holds no line, so nothing can be verified"),))
    n = plural(len(kept.lines), "line")
    return Verified(
        told=(
            (True, f"{path}: {n}, each names the one before; head {kept.head}"),
            *_seals(kept),
            *_files(home, kept),
            *_runs(home, kept),
            *_decision(home, kept),
            *(_against(kept, against) if against else ()),
        ),
        head=kept.head,
    )


def _seals(kept: Ledger) -> Iterator[tuple[bool | None, str]]:
    if not os.environ.get(SEAL_KEY):
        if any(line.is_sealed for line in kept.lines):
            yield None, f"seals are not checked: {SEAL_KEY} is not set"
        return
    odd = [str(line.number) for line in kept.lines if not line.seal]
    if odd:
        yield False, f"not written by the holder of {SEAL_KEY}: line {', '.join(odd)}"
    else:
        yield True, f"every line was written by the holder of {SEAL_KEY}"


def _files(home: Study, kept: Ledger) -> Iterator[tuple[bool | None, str]]:
    changed = {one.file: one.words for one in ledger.mismatches(home.folder)}
    for name, (_, line) in kept.sealed().items():
        if name not in changed:
            yield True, f"{home.folder / name}: as sealed by line {line.number} ({line.at})"
    for words in changed.values():
        yield False, words
    for one in ledger.lost_heads(home.folder, home.reports):
        yield False, one.words


def _runs(home: Study, kept: Ledger) -> Iterator[tuple[bool | None, str]]:
    there = {path.name: path for path in home.reports.glob("*T*Z-*") if path.is_dir()}
    ended = {str(line.facts.get("run")): line for line in kept.of("run")}
    last = next(reversed(ended), "")
    for run, folder in sorted(there.items()):
        if run not in ended:  # the gate passes over one that is older than the last that ended
            said = f"{folder}: stands in no line of the ledger: it did not end, or was copied"
            yield (False, said) if run > last else (None, f"{said}; nothing rests on it")
        elif told := [*changed_files(folder, ended[run])]:
            yield from ((False, one) for one in told)
        elif "made" in ended[run].facts:
            yield True, f"{folder}: every file as the run left it"
    if gone := len(ended.keys() - there.keys()):
        yield None, f"{plural(gone, 'run')} of the ledger without a folder in {home.reports}"


def _decision(home: Study, kept: Ledger) -> Iterator[tuple[bool | None, str]]:
    """The last decision, made again from its evidence by the rules that the ledger has for it."""
    rules = by = decision = None
    for line in kept.of("rules", "decision"):
        if line.kind == "rules":
            rules = line
        else:
            decision, by = line, rules
    if decision is None or by is None:
        return
    folder = home.reports / str(decision.facts["run"])
    if not (folder / DECISION).is_file() or run_line(kept, folder.name) is None:
        return
    try:
        found = read_decision(folder)
        same = {"study": home.name, "stage": found.stage, "rules": Rules(**by.facts["rules"])}
        again = decide(read_evidence(folder), **same)
    except (EvalkitError, TypeError) as why:
        yield False, f"{folder / DECISION}: {why}"
        return
    if odd := _differing(found, again):
        yield False, f"{folder / DECISION}: its evidence makes another {', '.join(odd)}"
    else:
        yield True, f"{folder / DECISION}: {found.verdict}, as its evidence makes it"


def _differing(found: Decision, again: Decision) -> list[str]:
    """Where a decision is not what its evidence makes; what stands against a model is not in the evidence."""
    odd = []
    for then, now in zip(found.layers, again.layers, strict=True):
        names = [one for one in _NUMBERS if getattr(then, one) != getattr(now, one)]
        held = any(one.rule in {STANDS_AGAINST, UNCONFIRMED} for one in then.findings)
        names += ["word"] if then.word != now.word and not held else []
        odd += [f"{then.name} ({name})" for name in names]
    return odd


def _against(kept: Ledger, against: str) -> Iterator[tuple[bool | None, str]]:
    text, place = against.strip().lower(), Path(against)
    if not re.fullmatch(r"[0-9a-f]{8,64}", text):
        try:
            found = _HEAD.search(place.read_text(encoding="utf-8"))
        except (OSError, ValueError) as why:
            raise DesignError(
                f"--against {against}: need a head of at least 8 hex digits, or a report.html ({why})"
            ) from why
        if found is None:
            raise DesignError(f"--against {against}: names no head of a ledger")
        text = found[1].lower()
        if place.suffix == ".html":
            yield _is_ours(kept, place)
    places = [number for head, number in kept.heads.items() if head.startswith(text)]
    said = f"the head {text[:16]}..."
    if places:
        yield (
            True,
            f"{said} is line {places[0]} of {len(kept.lines)}: what was before it is unchanged",
        )
    else:
        yield False, f"{said} is none of this ledger's: it was written anew, or is another study's"


def _is_ours(kept: Ledger, report: Path) -> tuple[bool | None, str]:
    sha256 = ledger.sha256_of(report)
    for line in kept.of("run"):
        if line.facts.get("made", {}).get("report.html") == sha256:
            return True, f"{report}: the report of run {line.facts['run']}, unchanged"
    return False, f"{report}: no run of the ledger has left a report with this hash"
