"""Answers that a study takes in from another tool's file, and answers kept for the time when a model answers no more."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from evalkit import ledger
from evalkit.answers import dataset, journal, runner
from evalkit.answers.evaluation import Role
from evalkit.answers.journal import Call
from evalkit.benchmark.benchmark import UNSCORED, Benchmark
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, alone, read_json, to_json, utc
from evalkit.interop.logs import Log, Row
from evalkit.records import answers_hash
from evalkit.wording import listed, plural, without_secrets_in

FOLDER = "frozen"  # of archives, below the study's
KIND, VERSION = "evalkit-frozen", 1
_Sources = Mapping[str, tuple[Path, Path]]
_HEAD = ("model", "endpoint", "parameters", "system_prompt", "system_prompt_mode", "versions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What came of a file in a study.

    Attributes:
        n: Answers written.
        unused: Ids of the file that no row of the test set has.
        unanswered: Rows of the test set without an answer now.
        named: The model's name in the study, which the file's may differ from.
    """

    journal: Path
    log: Log
    n: int
    unused: tuple[str, ...]
    unanswered: int
    named: str

    def __str__(self) -> str:
        log = self.log
        told = [f"{log}", f"{plural(self.n, 'answer')} written to {self.journal}"]
        told += log.only_here({row.example_id for row in log.rows} - {*self.unused})
        if self.unanswered:
            rows = f"{plural(self.unanswered, 'row')} of the test set"
            told.append(f"without an answer: {rows}; a run with live: true asks")
        if log.model and log.model != self.named:
            both = f"the study calls this model {self.named!r}, the file {log.model!r}"
            told.append(f"{both}; the journal notes both")
        return "\n".join([*told, *log.notes])


def import_answers(benchmark: Benchmark, log: Log, role: Role) -> Imported:
    """Writes a file's answers into a study's journal, as if the study had asked; it will not ask them again.

    Answers are joined on the id of a row, else on the very same question. All or nothing: the journal is written once
    every answer has its place, and a journal that is there already takes only answers it lacks.

    Raises:
        DataError: No row of the test set is answered, or the journal belongs to other answers.
    """
    path, asked = (
        benchmark.journals[role],
        benchmark.evaluation(role, about={"imported": log.about}),
    )
    by_id = {(row.example_id, row.sample): row for row in log.rows}
    by_question = {(_question(row.messages), row.sample): row for row in log.rows if row.messages}
    places: list[tuple[Call, Row]] = []
    for call in asked.calls():
        question = _question(call.example.messages)
        row = by_id.get((call.example.example_id, call.sample))
        if row := row or by_question.get((question, call.sample)):
            places.append((call, row))
    if not places:
        answers = plural(len(log.rows), "answer")
        raise DataError(
            f"{log.path}: none of its {answers} is to a row of {benchmark.path}, by id or by question; "
            "is it another test set?"
        )
    with journal.Writer(path, asked.header()) as writer:
        for call, row in places:
            if call.key not in writer:
                writer.append(call.key, call.example.example_id, call.sample, row.answer)
    used = {row.example_id for _, row in places}
    answered = {call.example.example_id for call, _ in places}
    ids = dict.fromkeys(row.example_id for row in log.rows)
    return Imported(
        journal=path,
        log=log,
        n=len(places),
        unused=tuple(one for one in ids if one not in used),
        unanswered=sum(one.example_id not in answered for one in asked.test_set),
        named=benchmark.models[role],
    )


def _question(messages: Iterable[Mapping[str, object]]) -> str:
    return "\n".join(
        str(one.get("content")).strip() for one in messages if one.get("role") == "user"
    )


# ---- answers kept for the time when the model answers no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """An archive.

    Attributes:
        folder: Where it is, below the study's folder.
        record: What stands in its `frozen.json`.
        is_new: False when the same answers stood in an archive already.
    """

    folder: Path
    record: JsonObject
    is_new: bool

    def __str__(self) -> str:
        told = [f"{self.folder}: {'frozen' if self.is_new else 'holds the same answers already'}"]
        for name, one in self.record["sets"].items():
            outcomes = listed([f"{n} {outcome}" for outcome, n in one["outcomes"].items()])
            served = listed([repr(model) for model in one["served_models"] if model])
            counts = (
                f"{plural(one['n_answers'], 'answer')} to {plural(one['n_examples'], 'example')}"
            )
            by = f", served by {served}" if served else ""
            told.append(f"{name}: {counts} ({outcomes}){by}")
        home, role = self.folder.parents[1], self.record["role"]
        place = (self.folder / f"{role}.jsonl").relative_to(home).as_posix()
        return "\n".join([*told, f"to go on without the model: {role}_journal: {place}"])


def freeze(
    benchmark: Benchmark,
    role: Role,
    *,
    prompts: Path | None = None,
    samples: int = 0,
    now: datetime | None = None,
) -> Frozen:
    """Asks a model what its journal lacks, and copies questions and answers to `frozen/<model>-<date>`.

    Args:
        benchmark: The study's benchmark.
        role: Which model.
        prompts: Further questions, chat JSONL, such as a sample from production; they get a journal of their own.
        samples: How often each is asked; 0 as the study says.
        now: The date in the archive's name.

    Raises:
        DataError: The journal is in an archive itself, or a file cannot be used.
        DesignError: `samples` is below 0.
        ModelError: Something must be asked, and cannot be.
    """
    if samples < 0:
        raise DesignError(f"--samples {samples}: need at least 1, or leave it out")
    path, study = benchmark.journals[role], benchmark.study
    asked = {"samples": samples or benchmark.settings.samples}
    benchmark.ask(role, path, **asked, **UNSCORED)
    sources = {"test": (benchmark.path, path)}
    if prompts:
        own = study.path(f"journals/{role}_prompts.jsonl")
        benchmark.ask(role, own, prompts, slice_fields=(), cluster_field=None, **asked, **UNSCORED)
        sources["prompts"] = (prompts, own)
    home = study.folder / FOLDER
    home.mkdir(exist_ok=True)
    with alone(home), tempfile.TemporaryDirectory(prefix=".partial-", dir=home) as partial:
        (folder := Path(partial, "archive")).mkdir()
        at = now or datetime.now(UTC)
        record = _laid_down(benchmark, role, sources, folder, at)
        for path in sorted(home.glob(f"*/{journal.ARCHIVE}")):
            said = read_json(path, said="not an archive's record", remedy="restore it from a copy")
            if isinstance(said, dict) and said.get("files") == record["files"]:
                return Frozen(folder=path.parent, record=record, is_new=False)
        return Frozen(folder=_put(study.folder, folder, record, at), record=record, is_new=True)


def _laid_down(
    benchmark: Benchmark, role: Role, sources: _Sources, folder: Path, at: datetime
) -> JsonObject:
    """Copies all files into a folder; what is said of them is said of the copies."""
    sets = {}
    for name, (questions, answers) in sources.items():
        end = "" if name == "test" else f"_{name}"
        copies = (folder / f"{name}.jsonl", folder / f"{role}{end}.jsonl")
        for old, new in zip((questions, answers), copies, strict=True):
            shutil.copyfile(old, new)
        sets[name] = _told(benchmark, *copies, is_test=name == "test")
    head = journal.read_header(folder / f"{role}.jsonl")
    record = {
        "kind": KIND,
        "version": VERSION,
        "study": benchmark.study.name,
        "role": role,
        **{name: head.get(name) for name in _HEAD},
        "frozen_at": utc(at),
        "frozen_with": version("evalkit"),
        "sets": sets,
        "files": ledger.files_sealed(folder, sorted(folder.iterdir())),
    }
    (folder / journal.ARCHIVE).write_bytes(to_json(without_secrets_in(record)))
    return record


def _told(benchmark: Benchmark, questions: Path, answers: Path, *, is_test: bool) -> JsonObject:
    """What there is to know of one set of questions and its answers; all samples count, and errors are counted too."""
    said = benchmark.settings
    how = {"limit": said.limit if is_test else None, "strict": said.strict}
    results = runner.results_from_journal(answers, questions, remedy=None, **how, **UNSCORED)
    entries = journal.read_journal(answers).entries
    times = sorted(one.at for one in entries if one.at) or [""]
    return {
        "questions": questions.name,
        "answers": answers.name,
        "fingerprint": dataset.read_examples(questions, **how).fingerprint,
        "n_examples": len({one.example_id for one in results}),
        "n_answers": len(results),
        "outcomes": dict(Counter(one.outcome for one in results)),
        "served_models": dict(Counter(one.answer.served_model or "" for one in entries)),
        "answers_hash": answers_hash(results),
        "journal_hash": journal.answers_hash(answers),
        "first_at": times[0],
        "last_at": times[-1],
    }


def _put(study: Path, partial: Path, record: Mapping[str, object], at: datetime) -> Path:
    """Seals the files in the study's ledger and puts the folder there, under a name that is free."""
    model = re.sub(r"[^A-Za-z0-9._]+", "-", str(record["model"])).strip("-.")[:60] or "model"
    name = f"{model}-{at.astimezone(UTC):%Y-%m-%d}"
    home, number = study / FOLDER, 1
    while (folder := home / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    files = {folder / one.name: ledger.sha256_of(one) for one in partial.iterdir()}
    facts = {"model": record["model"], "role": record["role"], "folder": folder.name}
    try:
        with ledger.sealing(study, "frozen", facts, files):
            partial.rename(folder)
    except OSError as why:
        raise DataError(f"{folder}: cannot be written ({why.strerror}); free some space") from why
    return folder
