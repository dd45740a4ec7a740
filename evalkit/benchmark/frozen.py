"""A model's answers kept for the time when it answers no more: journals and questions in a folder that stays as it is."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from evalkit import ledger
from evalkit.answers import dataset, journal
from evalkit.answers.evaluation import Role
from evalkit.answers.runner import results_from_journal
from evalkit.benchmark.bench import UNSCORED, Bench
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, alone, read_json
from evalkit.records import answers_hash
from evalkit.redaction import without_secrets_in
from evalkit.wording import listed, plural

FOLDER = "frozen"
KIND, VERSION = "evalkit-frozen", 1
_HEAD = ("model", "endpoint", "parameters", "system_prompt", "system_prompt_mode", "versions")


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
        told = [
            f"{self.folder}: {'frozen' if self.is_new else 'holds the same answers already'}",
            *(f"{name}: {_counted(one)}" for name, one in self.record["sets"].items()),
        ]
        home, role = self.folder.parents[1], self.record["role"]
        place = (self.folder / f"{role}.jsonl").relative_to(home).as_posix()
        return "\n".join([*told, f"to go on without the model: {role}_journal: {place}"])


def freeze(
    bench: Bench,
    role: Role,
    *,
    prompts: Path | None = None,
    samples: int = 0,
    now: datetime | None = None,
) -> Frozen:
    """Asks a model what its journal lacks, and copies questions and answers to `frozen/<model>-<date>`.

    Args:
        bench: The study's benchmark.
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
    path, study = bench.journals[role], bench.study
    asked = {"samples": samples or bench.settings.samples}
    bench.ask(role, path, **asked, **UNSCORED)
    sources = {"test": (bench.path, path)}
    if prompts:
        own = study.path(f"journals/{role}_prompts.jsonl")
        bench.ask(role, own, prompts, slice_fields=(), cluster_field=None, **asked, **UNSCORED)
        sources["prompts"] = (prompts, own)
    home = study.folder / FOLDER
    home.mkdir(exist_ok=True)
    with alone(home), tempfile.TemporaryDirectory(prefix=".partial-", dir=home) as partial:
        (folder := Path(partial, "archive")).mkdir()
        at = now or datetime.now(UTC)
        record = _laid_down(bench, role, sources, folder, at)
        if same := _same(home, record):
            return Frozen(folder=same, record=record, is_new=False)
        return Frozen(folder=_put(study.folder, folder, record, at), record=record, is_new=True)


def _laid_down(
    bench: Bench, role: Role, sources: Mapping[str, tuple[Path, Path]], folder: Path, at: datetime
) -> JsonObject:
    """Copies all files into a folder; what is said of them is said of the copies."""
    sets = {}
    for name, (questions, answers) in sources.items():
        end = "" if name == "test" else f"_{name}"
        copies = (folder / f"{name}.jsonl", folder / f"{role}{end}.jsonl")
        for old, new in zip((questions, answers), copies, strict=True):
            shutil.copyfile(old, new)
        sets[name] = _told(bench, *copies, is_test=name == "test")
    head = journal.read_header(folder / f"{role}.jsonl")
    record = {
        "kind": KIND,
        "version": VERSION,
        "study": bench.study.name,
        "role": role,
        **{name: head.get(name) for name in _HEAD},
        "frozen_at": at.astimezone(UTC).isoformat(timespec="seconds"),
        "frozen_with": version("evalkit"),
        "sets": sets,
        "files": ledger.files_sealed(folder, sorted(folder.iterdir())),
    }
    text = json.dumps(without_secrets_in(record), indent=1, ensure_ascii=True, allow_nan=False)
    (folder / journal.ARCHIVE).write_text(text + "\n", encoding="utf-8")
    return record


def _told(bench: Bench, questions: Path, answers: Path, *, is_test: bool) -> JsonObject:
    """What there is to know of one set of questions and its answers; all samples count, and errors are counted too."""
    limit, strict = (bench.settings.limit if is_test else None), bench.settings.strict
    how = {"limit": limit, "strict": strict}
    results = results_from_journal(answers, questions, remedy=None, **how, **UNSCORED)
    entries = journal.read_journal(answers).entries
    times = sorted(one.at for one in entries if one.at)
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
        "first_at": times[0] if times else "",
        "last_at": times[-1] if times else "",
    }


def _same(home: Path, record: Mapping[str, object]) -> Path | None:
    """The archive that holds the very same files."""
    for path in sorted(home.glob(f"*/{journal.ARCHIVE}")):
        said = read_json(path, said="not an archive's record", remedy="restore it from a copy")
        if isinstance(said, dict) and said.get("files") == record["files"]:
            return path.parent
    return None


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


def _counted(told: JsonObject) -> str:
    outcomes = [f"{n} {outcome}" for outcome, n in told["outcomes"].items()]
    served = [repr(name) for name in told["served_models"] if name]
    by = f", served by {listed(served)}" if served else ""
    return f"{plural(told['n_answers'], 'answer')} to {plural(told['n_examples'], 'example')} ({listed(outcomes)}){by}"
