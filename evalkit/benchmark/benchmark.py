"""What both models are asked, how answers are scored, and where they are kept: a study's benchmark as one object."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from evalkit import ledger
from evalkit.answers import dataset, evaluation, journal, runner
from evalkit.answers.evaluation import Evaluation, Role, prices_of
from evalkit.answers.journal import Call
from evalkit.answers.metrics import mean, quantile
from evalkit.answers.scoring import checker as named_checker
from evalkit.answers.scoring import own_hashes, scorers_by_name
from evalkit.benchmark.comparison import Comparison, Declared, compare_many
from evalkit.benchmark.frames import typed
from evalkit.conversation import holds_thoughts
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, alone, read_json, to_json, utc
from evalkit.interop.logs import Log, Row
from evalkit.records import EvalResult, Example, answers_hash
from evalkit.study import Settings, Study, named
from evalkit.wording import count, listed, plural, without_secrets_in

if TYPE_CHECKING:
    from evalkit.answers.submission import Submission

FOLDER = "frozen"  # of archives, below the study's
KIND, VERSION = "evalkit-frozen", 1
_HEAD = ("model", "endpoint", "parameters", "system_prompt", "system_prompt_mode", "versions")
UNSCORED: JsonObject = {"checker": "none", "scorers": ()}
_COSTS = {
    "model": "category",
    **dict.fromkeys(("answers", "prompt_tokens", "completion_tokens"), "Int64"),
    **dict.fromkeys(("latency_median_ms", "latency_p95_ms", "money"), "Float64"),
    "currency": "category",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What the answers took.

    Attributes:
        by_model: By role: answers, tokens, latencies and money; None where not known. `with_thoughts` counts the answers
            before which the model thought, `thoughts_scored` those in which its thoughts still stand.
    """

    by_model: Mapping[str, JsonObject]

    def to_frame(self) -> pd.DataFrame:
        """One row a model.

        Columns: `model` ("base", "fine-tuned") and `currency`: categories; `answers`, `prompt_tokens`, `completion_tokens`
        (sums): Int64; `latency_median_ms`, `latency_p95_ms` and `money`: Float64, missing where not known.
        """
        rows = [{"model": role.replace("_", "-"), **one} for role, one in self.by_model.items()]
        return typed(rows, _COSTS)

    def to_dict(self) -> dict[str, JsonObject]:
        """Plain values for the evidence file."""
        return {role: dict(one) for role, one in self.by_model.items()}


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A study's benchmark, by its settings.

    Attributes:
        study: The study.
        asks: This notebook may ask what the journals lack, when the study is `live`; needs OPENAI_BASE_URL or
            OPENAI_API_KEY. False: it only reads.
        margin: The loss still accepted where the study asks whether the fine-tuned model is no worse; None asks for better.
    """

    study: Study
    asks: bool = False
    margin: float | None = None

    @property
    def settings(self) -> Settings:
        """The study's settings."""
        return self.study.settings

    @property
    def fields(self) -> tuple[str, ...]:
        """The declared slice fields."""
        return named(self.settings.slice_fields)

    @property
    def models(self) -> dict[str, str]:
        """Both models' names."""
        return {"base": self.settings.base_model, "fine_tuned": self.settings.fine_tuned_model}

    @property
    def path(self) -> Path:
        """The test file."""
        return self.study.path(self.settings.test_file)

    @property
    def prices(self) -> Path | None:
        """The price file, if there is one."""
        return self.study.optional(self.settings.prices_file)

    @cached_property
    def base(self) -> list[EvalResult]:
        """The base model's scored answers."""
        return self.results("base")

    @cached_property
    def fine_tuned(self) -> list[EvalResult]:
        """The fine-tuned model's."""
        return self.results("fine_tuned")

    @cached_property
    def compared(self) -> dict[str, Comparison]:
        """The fine-tuned model and every checkpoint against base, by a p adjusted for their number where they are several."""
        said = self.settings
        compared, _ = compare_many(
            self.base,
            {said.fine_tuned_model: self.fine_tuned, **self.checkpoints()},
            primary_metric=said.primary_metric,
            lower_is_better=said.lower_is_better,
            metric_margin=self.margin or said.metric_margin or None,
            question="no_worse" if self.margin else "better",
            alpha=said.alpha,
            extension=said.extension,
            first_look=said.first_look,
        )
        return compared

    def compare(self) -> Comparison:
        """Both models' answers, joined and tested, with what the study declared beforehand."""
        said = self.settings
        chance_rate = self.chance_rate()
        compared = self.compared[said.fine_tuned_model]
        sent = self.sent  # once both have been asked
        limits = {
            one.get("max_completion_tokens") or one.get("max_tokens") for one in sent.values()
        }
        declared = Declared(
            models=self.models,
            slice_fields=self.fields,
            slice_margin=said.slice_margin or None,
            power=said.power,
            finder_pattern=said.finder_pattern,
            chance_rate=chance_rate,
            sent=sent,
            max_tokens=(limits.pop() or 0) if len(limits) == 1 else 0,
        )
        return replace(compared, declared=declared)

    @property
    def journals(self) -> dict[str, Path]:
        """Both models' journals."""
        said = self.settings
        files = {"base": said.base_journal, "fine_tuned": said.fine_tuned_journal}
        return {role: self.study.path(file) for role, file in files.items()}

    @property
    def sent(self) -> dict[str, JsonObject]:
        """What each model was asked with, as its journal has it."""
        told = {}
        for role, path in self.journals.items():
            head = journal.read_header(path)
            prompts = {name: head.get(name) for name in ("system_prompt", "system_prompt_mode")}
            told[role] = {**prompts, **head["parameters"]}
        return told

    def costs(self) -> Costs:
        """What both models' answers took."""
        results = {"base": self.base, "fine_tuned": self.fine_tuned}
        return Costs(by_model={k: self.cost(self.models[k], made) for k, made in results.items()})

    @cached_property
    def test_set(self) -> dataset.TestSet:
        """The test set, read and checked once."""
        said = self.settings
        prompt, limit = said.system_prompt, said.limit
        return dataset.read_examples(self.path, system_prompt=prompt, limit=limit, **self._labels)

    def results(self, role: Role) -> list[EvalResult]:
        """A model's scored answers: from its journal, and when it may ask, from the model for what the journal lacks.

        Raises:
            DataError: No journal is there and nothing may be asked.
        """
        path = self.journals[role]
        if journal.is_frozen(path):
            return self._read(path, remedy="it is a frozen archive, so they stay unanswered")
        if self.asks and self.settings.live and can_ask():
            return self.ask(role, path)
        if not path.exists():
            model = self.models[role]
            raise DataError(f"{path}: no such journal; to ask {model!r}, {self._to_ask()}")
        return self._read(path, remedy=f"to ask them, {self._to_ask()}")

    def gaps(self) -> Gaps:
        """What both models' answers still lack of the test set."""
        samples = self.settings.samples
        return gaps(self.test_set.examples, self.base, self.fine_tuned, samples=samples)

    def checkpoints(self) -> dict[str, list[EvalResult]]:
        """Further models' scored answers, by the model's name in the journal's header; journals are read, never asked.

        A model named like one of the two, and one named twice, gets its journal's name added.

        Raises:
            DataError: A journal is not there, or answers none of the rows.
        """
        found: dict[str, list[EvalResult]] = {}
        for name in named(self.settings.checkpoint_journals):
            path = self.study.path(name)
            command = (
                f"evalkit run {self.study.name} --only 01 -p live=true -p fine_tuned_model=MODEL"
            )
            remedy = f"to record a checkpoint's answers: {command} -p fine_tuned_journal={name}"
            if not path.exists():
                raise DataError(
                    f"{path}: no such journal; checkpoint_journals are read, never asked; {remedy}"
                )
            model = str(journal.read_header(path)["model"])
            taken = model in {*found, *self.models.values()}
            found[f"{model} ({name})" if taken else model] = self._read(path, remedy=remedy)
        return found

    def ask(
        self, role: Role, journal_path: Path, test_file: Path | None = None, **options: Any
    ) -> list[EvalResult]:
        """Asks a model with the study's parameters; what the journal holds is not asked again."""
        how = {"journal": journal_path, "prices": self.prices, **self._request(role)}
        how["limit"] = 0 if test_file else self.settings.limit
        how |= options
        return runner.run_automated_eval(self.models[role], test_file or self.path, **how)

    def evaluation(self, role: Role, *, about: Mapping[str, object]) -> Evaluation:
        """What would be asked of a model, call by call; nothing is."""
        how = self._request(role)
        how["about"] = {**(how["about"] or {}), **about}
        return Evaluation(model=self.models[role], test_file=self.path, **how)

    def submission(self, role: Role) -> Submission:
        """The batches by which a model's missing answers may be asked for."""
        from evalkit.answers.submission import Submission  # openai takes most of a second

        asked = self.evaluation(role, about={"asked_through": "batch"})
        asked = replace(asked, journal=self.journals[role], limit=self.settings.limit)
        return Submission(evaluation=asked, path=self.study.path(f"batches/{role}.json"))

    def _request(self, role: Role) -> JsonObject:
        said, study = self.settings, self.study
        is_given = said.request_file != evaluation.REQUEST_FILE
        path = (study.named_file if is_given else study.optional)(said.request_file)
        asked = {"endpoint": said.endpoint, "samples": said.samples}
        return {**evaluation.options(said, role, path), **asked, **self._labels, **self._scoring}

    @property
    def bound_to(self) -> dict[str, str]:
        """Hashes of the test set, of both models' answers to it and of their journals: what the evidence is valid for."""
        bound, said = {"test_set": self.test_set.fingerprint}, self.settings
        how = {"limit": said.limit, "strict": said.strict, "remedy": None, **UNSCORED}
        for role, path in self.journals.items():
            answers = runner.results_from_journal(path, self.path, **how)
            bound |= {role: answers_hash(answers), f"{role}_journal": journal.answers_hash(path)}
        return bound

    def chance_rate(self) -> float | None:
        """Expected exact-match rate of picking one candidate at random, whatever the models do.

        The field `chance_field` holds an example's number of candidates (1 or more), or its chance (below 1). A row
        that expects several lines is never matched by picking one.

        Returns:
            None when no field is named or no row carries it.
        """
        said, field = self.settings, self.settings.chance_field
        if not field:
            return None
        how = {"limit": said.limit, "strict": said.strict}
        rows = dataset.read_examples(self.path, slice_fields=(field,), **how).examples
        if not any(one.slices.get(field) for one in rows):
            return None
        given = [(one.slices.get(field, ""), one.expected) for one in rows if one.expects]
        return mean([_chance(value, expected, field) for value, expected in given])

    def cost(self, model: str, results: Iterable[EvalResult]) -> JsonObject:
        """What a model's answers took: tokens, latency and - where prices are known - money; undefined is None."""
        results, price = list(results), prices_of(self.prices, model)
        read, written = (_total(results, f"{name}_tokens") for name in ("prompt", "completion"))
        money, currency = None, None
        if price is not None and read is not None and written is not None:
            money, currency = price.cost(read, written), price.currency
        latencies = [one.latency_ms for one in results]
        return {
            "answers": len(results),
            "prompt_tokens": read,
            "completion_tokens": written,
            "with_thoughts": sum(one.has_thoughts for one in results),
            "thinking_tokens": _total(results, "thinking_tokens"),
            "thoughts_scored": sum(holds_thoughts(one.predicted) for one in results),
            "latency_median_ms": quantile(latencies, 0.5),
            "latency_p95_ms": quantile(latencies, 0.95),
            "money": money,
            "currency": currency,
        }

    def _read(self, path: Path, *, remedy: str) -> list[EvalResult]:
        how = {"limit": self.settings.limit, **self._labels, **self._scoring}
        return runner.results_from_journal(path, self.path, remedy=remedy, **how)

    def _to_ask(self) -> str:
        """What is missing before a model can be asked."""
        key = "set OPENAI_API_KEY, which is not set (and OPENAI_BASE_URL for a server other than OpenAI's)"
        live = "" if self.settings.live else "set live: true"
        if not self.asks:
            live = (
                f"run notebook 01, which asks: evalkit run {self.study.name} --only 01 -p live=true"
            )
        return " and ".join(filter(None, ["" if can_ask() else key, live]))

    @property
    def _labels(self) -> JsonObject:
        said = self.settings
        cluster = said.cluster_field or None
        return {"slice_fields": self.fields, "cluster_field": cluster, "strict": said.strict}

    @cached_property
    def own_code(self) -> dict[str, str]:
        """SHA-256 of each file of the study that scores answers, by name."""
        said = self.settings
        return own_hashes((said.checker, *named(said.scorers)), self.study.folder)

    @cached_property
    def _scoring(self) -> JsonObject:
        said, folder = self.settings, self.study.folder
        scorers = scorers_by_name(named(said.scorers), folder=folder)
        checker = named_checker(said.checker, folder=folder)
        return {"checker": checker, "scorers": tuple(scorers.values())}


def can_ask() -> bool:
    """True when the environment names an endpoint."""
    return bool(os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_KEY"))


def _chance(value: str, expected: str, field: str) -> float:
    try:
        number = float(value)
    except ValueError:
        need = "need a number of candidates or a chance"
        raise DesignError(f"chance_field {field!r} holds {value!r}; {need}") from None
    if number < 1:
        return number
    return 1 / number if sum(bool(line.strip()) for line in expected.split("\n")) == 1 else 0.0


def _total(results: Iterable[EvalResult], name: str) -> int | None:
    known = [value for one in results if (value := getattr(one, name)) is not None]
    return sum(known) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """What is missing of the answers of both models.

    Attributes:
        n_calls: Answers a complete comparison has.
        base: Answers the base model lacks.
        fine_tuned: Answers the fine-tuned model lacks.
        n_failed: How many of them were asked for and failed; the others stand in no journal.
    """

    n_calls: int
    base: int
    fine_tuned: int
    n_failed: int

    @property
    def n(self) -> int:
        """Answers missing in all; 0 when the comparison is complete."""
        return self.base + self.fine_tuned

    def __str__(self) -> str:
        calls = plural(self.n_calls, "answer")
        if not self.n:
            return f"The comparison is complete: {calls}."
        sides = {"the base model": self.base, "the fine-tuned model": self.fine_tuned}
        who = listed([f"{count(n)} of {name}" for name, n in sides.items() if n])
        failed = f"; {plural(self.n_failed, 'call')} of these failed" if self.n_failed else ""
        lacking = f"{count(self.n)} of {calls} {'is' if self.n == 1 else 'are'} missing"
        return f"The comparison is not complete: {lacking} ({who}{failed})."


def gaps(
    examples: Sequence[Example],
    base: Iterable[EvalResult],
    fine_tuned: Iterable[EvalResult],
    *,
    samples: int = 1,
) -> Gaps:
    """Counts the answers that both models should have given to these examples and have not.

    A refused, truncated or empty answer is an answer; an error is none, as it is asked again.

    Args:
        examples: The test set's rows.
        base: The base model's answers.
        fine_tuned: The fine-tuned model's.
        samples: Answers asked for each row; more when either model has given more to any.
    """
    old, new = list(base), list(fine_tuned)
    asked = max([samples, *(1 + one.sample for one in (*old, *new))])
    wanted = {(one.example_id, sample) for one in examples for sample in range(asked)}
    failed = sum(one.outcome == "error" for one in (*old, *new))
    lacking = [
        len(wanted - {(str(one.example_id), one.sample) for one in made if one.outcome != "error"})
        for made in (old, new)
    ]
    return Gaps(n_calls=2 * len(wanted), base=lacking[0], fine_tuned=lacking[1], n_failed=failed)


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
        if self.unused:
            few = listed([repr(one) for one in self.unused[:3]])
            ids = f"{plural(len(self.unused), 'id')} of the file"
            told.append(f"{ids} stand in no row of the test set, first {few}")
        if self.unanswered:
            rows = f"{plural(self.unanswered, 'row')} of the test set"
            verb = "has" if self.unanswered == 1 else "have"
            told.append(f"{rows} {verb} no answer; a run with live: true asks")
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
    places = list(_places(asked, log))
    if not places:
        answers = plural(len(log.rows), "answer")
        raise DataError(
            f"{log.path}: none of its {answers} is to a row of {benchmark.path}, by id or by question; "
            "is it another test set?"
        )
    with journal.Writer(path, asked.header()) as writer:
        for call, row in places:
            if call.key not in writer:
                writer.append(call.key, call.example.example_id, call.sample, row.scored)
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


def _places(asked: Evaluation, log: Log) -> Iterable[tuple[Call, Row]]:
    by_id = {(row.example_id, row.sample): row for row in log.rows}
    by_question = {(_question(row.messages), row.sample): row for row in log.rows if row.messages}
    for call in asked.calls():
        example = call.example
        row = by_id.get((example.example_id, call.sample))
        row = row or by_question.get((_question(example.messages), call.sample))
        if row:
            yield call, row


def _question(messages: Iterable[Mapping[str, object]]) -> str:
    return "\n".join(
        str(one.get("content")).strip() for one in messages if one.get("role") == "user"
    )


# ---- a model's answers kept for the time when it answers no more


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
        if same := _same(home, record):
            return Frozen(folder=same, record=record, is_new=False)
        return Frozen(folder=_put(study.folder, folder, record, at), record=record, is_new=True)


def _laid_down(
    benchmark: Benchmark,
    role: Role,
    sources: Mapping[str, tuple[Path, Path]],
    folder: Path,
    at: datetime,
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
    limit, strict = (benchmark.settings.limit if is_test else None), benchmark.settings.strict
    how = {"limit": limit, "strict": strict}
    results = runner.results_from_journal(answers, questions, remedy=None, **how, **UNSCORED)
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
