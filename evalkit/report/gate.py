"""The commands about a record: a run's answer as an exit code, whether all is whole, and a reason for what was changed.

The gate is for schedulers and deployment pipelines. `verify` looks at the chain, the files it seals, its runs, and the
decision made from their evidence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import takewhile
from pathlib import Path

from evalkit import ledger
from evalkit.decision import Decision, Rules, decide, read_evidence
from evalkit.decision.concerns import concerns
from evalkit.decision.history import changed_files, refuse_changed_run, run_line
from evalkit.decision.layers import FILE as DECISION
from evalkit.decision.rules import CONFIRMED, STANDS_AGAINST, UNCONFIRMED
from evalkit.errors import DataError, DesignError, EvalkitError
from evalkit.ledger import FILE, SEAL_KEY, Ledger, Line
from evalkit.report import manifest
from evalkit.report.manifest import Manifest
from evalkit.show import verdict
from evalkit.show.findings import changed
from evalkit.study import Study, checked_run, project_root, retirement
from evalkit.wording import is_blank, listed, plural

SHIP, DONT_SHIP, NOT_YET, BROKEN = 0, 10, 11, 12
_CODES = {"ship": SHIP, "don't ship": DONT_SHIP, "not yet": NOT_YET}
_HEAD = re.compile(r'(?i)ledger(?: head)?["\s:]*(?:<code[^>]*>)?["\s]*([0-9a-f]{64})')
_SAME = ("verdict", "simulated", "stale", "n", "estimate", "ci_low", "ci_high", "p_value", "alpha")
_Found = Iterator[tuple[bool | None, str]]  # whether it is intact, None for what cannot be said


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The exit code, the sentence that goes with it, and which run of a study was judged ("" when a run was named).

    Attributes:
        head: Head of the study's ledger: who keeps it can show later that nothing before it was written anew.
        warning: That the base model retires soon, or has; "" otherwise.
    """

    code: int
    sentence: str
    judged: str = ""
    head: str = ""
    warning: str = ""


def gate(run_or_study: str, *, root: Path | None = None, today: date | None = None) -> Gate:
    """Reads the decision of a run.

    Args:
        run_or_study: A run's folder, a run's name, or a study, whose newest complete run is meant.
        root: The project's folder; found from here by default.
        today: The day from which a retirement is counted; the present one (UTC) by default.

    Raises:
        DataError: There is no such run or study, or the study has never run.
    """
    folder, judged = _named_run(run_or_study, root), ""
    if folder is None:
        study = Study.open(run_or_study, root=root)
        try:
            kept = ledger.read(study.folder / FILE)
        except DataError as why:
            return Gate(code=BROKEN, sentence=f"Broken record: {why}")
        folder, judged = _newest_run(study, kept)
    of_study = folder.resolve().parent
    root, name = of_study.parent.parent, of_study.name  # "/" is its own parent
    if not (root / "data" / name).is_dir():  # only the folder was brought along
        code, sentence = _answer(folder, None)
        alone = (
            f"judged {folder} by itself: the ledger of its study is not there to check it against"
        )
        return Gate(code=code, sentence=sentence, judged=alone if code == SHIP else "")
    study = Study.open(name, root=root)
    code, sentence = _answer(folder, study)
    if code == SHIP and not judged:
        judged = _newer(folder, study)
    warning = ""
    with suppress(EvalkitError):  # a study file that was broken since: the run's own answer stands
        warning = retirement(study.settings, today or datetime.now(UTC).date())
    head = ledger.head_of(study.folder)
    return Gate(code=code, sentence=sentence, judged=judged, head=head, warning=warning)


def _newer(folder: Path, study: Study) -> str:
    """What stands beside a run that was named and ships: the newest one of its study, where that does not."""
    try:
        newest, _ = _newest_run(study, ledger.read(study.folder / FILE))
    except DataError:  # the sentence says it
        return ""
    code, sentence = _answer(newest, study)
    if code == SHIP:
        return ""
    return f"judged {folder}, as named; the newest complete run of {study.name} is {newest.name}: {sentence}"


def _newest_run(study: Study, kept: Ledger) -> tuple[Path, str]:
    """The newest run that left out no notebook, the newest of all when none is complete, and a sentence that says which.

    Newest is the ledger's last, whatever the clock said that named the folder. A run that did not finish may have been a
    complete one, so it is not passed over; nor is one whose folder is gone.

    Raises:
        DataError: The study has never run.
    """
    ended = {str(line.facts.get("run")): line for line in kept.of("run")}
    runs = _newest_first(study, ended)
    if not runs:
        raise DataError(
            f"{study.reports}: the study has never run; start it with `evalkit run {study.name}`"
        )
    newer = list(takewhile(lambda one: _left_out(one, ended.get(one.name)), runs))
    if len(newer) == len(runs):
        partial = f"a partial run (--only): {study.name} has no complete one yet"
        return runs[0], f"judged {runs[0]}, {partial}"
    names = listed([one.name for one in newer])
    passed = f"; passed over partial runs (--only): {names}" if newer else ""
    return runs[len(newer)], f"judged {runs[len(newer)]}{passed}"


def _newest_first(study: Study, ended: Mapping[str, Line]) -> list[Path]:
    """Newer runs that the ledger does not know, then those it knows, last first, then older ones it does not know.

    A complete run that it knows stands among them though its folder is gone; an earlier version's may have been cleared.
    """
    there = study.runs()
    known = [
        one
        for one, line in reversed([*ended.items()])
        if one in there or (there and line.facts.get("left_out") == [])
    ]
    others = sorted(there.keys() - ended.keys(), reverse=True)
    newer = [one for one in others if one > (known[0] if known else "")]
    return [study.reports / one for one in (*newer, *known, *others[len(newer) :])]


def _answer(folder: Path, study: Study | None) -> tuple[int, str]:
    """Exit code and sentence of one run, once it and all it rests on is what the study's ledger knows."""
    try:
        if study:
            refuse_changed_run(study, folder)
        record = manifest.read(folder)
        _check_place(record, folder)
        if record.failed:
            return BROKEN, f"Broken run: {', '.join(record.failed)} failed; no verdict is given."
        if record.left_out and not (folder / DECISION).is_file():
            why = f"it was a partial run (--only) without {listed(record.left_out)}"
            remedy = f"`evalkit run {folder.parent.name}` runs all"
            return BROKEN, f"No decision in this run: {why}; {remedy}."
        decision = verdict.read(folder)
        if study and decision.study != study.name:
            return BROKEN, f"Broken run: {folder}: its decision is of the study {decision.study}."
        return _CODES[decision.verdict], verdict.headline(decision)
    except (EvalkitError, KeyError, OSError) as why:
        return BROKEN, f"Broken run: {why}"


def _check_place(record: Manifest, folder: Path) -> None:
    """Refuses a run that was copied from another study, or under another name."""
    here = folder.resolve()
    if record.study not in ("", here.parent.name) or record.run not in ("", here.name):
        holds = f"holds study {record.study}, run {record.run}, which is not what its folder says"
        raise DataError(f"{folder}: {holds}; run the study again")


def _left_out(folder: Path, ended: Line | None) -> list[str]:
    """Notebooks that a run did not have, by the ledger where it knows."""
    try:
        if ended and "left_out" in ended.facts:
            return ended.facts["left_out"]
        return manifest.read(folder).left_out
    except DataError:
        return []


def _named_run(text: str, root: Path | None) -> Path | None:
    """The folder of a run that was named; None for a study."""
    folder = Path(text)
    if "/" in text or (folder / manifest.FILE).is_file():
        try:
            checked_run(folder.resolve().name)
        except DesignError:
            remedy = "name a study, or reports/<study>/<run>"
            raise DataError(f"{folder}: not a run's folder; {remedy}") from None
        if not folder.is_dir():
            raise DataError(f"{folder}: no such run; name a study to judge its newest one")
        return folder
    if "Z-" not in text:
        return None
    reports = (root or project_root()) / "reports"
    found = list(reports.glob(f"*/{checked_run(text)}"))
    if not found:
        raise DataError(f"{reports}: holds no run {text}; name a study to judge its newest one")
    return found[0]


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


def _seals(kept: Ledger) -> _Found:
    if not os.environ.get(SEAL_KEY):
        if any(line.is_sealed for line in kept.lines):
            yield None, f"seals are not checked: {SEAL_KEY} is not set"
        return
    odd = ", ".join(str(line.number) for line in kept.lines if not line.seal)
    said = f"not written by the holder of {SEAL_KEY}: line {odd}"
    yield not odd, said if odd else f"every line was written by the holder of {SEAL_KEY}"


def _files(home: Study, kept: Ledger) -> _Found:
    changed = {one.file: one.words for one in ledger.mismatches(home.folder)}
    for name, (_, line) in kept.sealed().items():
        if name not in changed:
            yield True, f"{home.folder / name}: as sealed by line {line.number} ({line.at})"
    for words in changed.values():
        yield False, words
    for one in ledger.lost_heads(home.folder, home.reports):
        yield False, one.words


def _runs(home: Study, kept: Ledger) -> _Found:
    there = home.runs()
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


def _decision(home: Study, kept: Ledger) -> _Found:
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
        found = verdict.read(folder)
        same = {"study": home.name, "stage": found.stage, "rules": Rules(**by.facts["rules"])}
        again = decide(read_evidence(folder), **same)
    except (EvalkitError, TypeError) as why:
        yield False, f"{folder / DECISION}: {why}"
        return
    odd = ", ".join(_differing(found, again))
    said = (
        f"its evidence makes another {odd}" if odd else f"{found.verdict}, as its evidence makes it"
    )
    yield not odd, f"{folder / DECISION}: {said}"


def _differing(found: Decision, again: Decision) -> list[str]:
    """Where a decision is not what its evidence makes; what stands against a model is not in the evidence."""
    odd = []
    for then, now in zip(found.layers, again.layers, strict=True):
        names = [one for one in _SAME if getattr(then, one) != getattr(now, one)]
        held = any(one.rule in {STANDS_AGAINST, UNCONFIRMED} for one in then.findings)
        names += ["word"] if then.word != now.word and not held else []
        odd += [f"{then.name} ({name})" for name in names]
    return odd


def _against(kept: Ledger, against: str) -> _Found:
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
    said = "is none of this ledger's: it was written anew, or is another study's"
    if places:
        said = f"is line {places[0]} of {len(kept.lines)}: what was before it is unchanged"
    yield bool(places), f"the head {text[:16]}... {said}"


def _is_ours(kept: Ledger, report: Path) -> tuple[bool | None, str]:
    sha256 = ledger.sha256_of(report)
    for line in kept.of("run"):
        if line.facts.get("made", {}).get("report.html") == sha256:
            return True, f"{report}: the report of run {line.facts['run']}, unchanged"
    return False, f"{report}: no run of the ledger has left a report with this hash"


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
    keys = {one.key: changed(one.change) for one in found if not one.reason}
    if not keys and not strangers:
        raise DesignError(f"{home.folder}: nothing is open that a reason could confirm")
    if is_blank(reason):
        raise DesignError(f"give a reason in words for: {'; '.join(keys.values())}")
    there = [home.folder / one.file for one in strangers if one.file != ledger.HEAD]
    locks = [one.parent for one in there if one.name == "lock.json"]
    votes = [vote for folder in locks for vote in folder.glob("votes/*.jsonl")]
    facts = {
        "reason": reason.strip(),
        "keys": keys,
        "files": ledger.files_sealed(home.folder, [*there, *votes]),
        "without_head": len(there) < len(strangers),
    }
    ledger.append(home.folder / ledger.FILE, CONFIRMED, facts, without_head=True)
    return (*keys.values(), *(f"{one.file} is taken up as it is" for one in strangers))
