"""What other tools' files hold, compared without a study, or put into one as a model's answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from evalkit.answers import journal
from evalkit.answers.runner import Call, Evaluation
from evalkit.benchmark.bench import Bench
from evalkit.benchmark.comparison import Comparison, Declared, compare_models
from evalkit.errors import DataError, DesignError
from evalkit.interop import Log, Row, chosen, matched, read_log
from evalkit.wording import listed, plural

Role = Literal["base", "fine_tuned"]


def compare_files(
    base: str | Path | Log,
    fine_tuned: str | Path | Log,
    *,
    metric: str = "",
    test_file: str | Path | None = None,
    margin: float | None = None,
    alpha: float = 0.05,
) -> Comparison:
    """Compares the answers of two files - logs of other tools, tables, journals - joined on the example; nothing is asked.

    Args:
        base: The base model's file, or a `Log` that `read_log` made of it (with an arm, a filter or columns named).
        fine_tuned: The fine-tuned model's.
        metric: What decides: a score that both files carry, or `exact_match`. "" takes the only score there is.
        test_file: Chat JSONL with the questions, for files that hold answers only (a batch's output, a journal).
        margin: Largest loss, as a fraction, that would still count as "not worse"; asks that question too.
        alpha: Two-sided level of the tests.

    Raises:
        DataError: A file cannot be read, or no example is in both.
        DesignError: Several scores could decide, and none was named.
    """
    logs = [
        _with_numbers(one if isinstance(one, Log) else read_log(one, test_file=test_file))
        for one in (base, fine_tuned)
    ]
    old, new = logs[0], _aligned(*logs)
    decides = _decides(old, new, metric)
    lower = {*old.lower_is_better, *new.lower_is_better} & {*old.scores, *new.scores}
    compared = compare_models(
        old.results,
        new.results,
        primary_metric=decides,
        lower_is_better=lower,
        metric_margin=margin,
        alpha=alpha,
    )
    names = {role: log.model or log.path.name for role, log in (("base", old), ("fine_tuned", new))}
    if names["base"] == names["fine_tuned"]:
        names = {
            "base": f"{names['base']} ({old.path.name})",
            "fine_tuned": f"{names['fine_tuned']} ({new.path.name})",
        }
    told = [str(old), str(new), *old.notes, *new.notes, *_unmatched(old, new)]
    notes = (*compared.notes, *(f"{one}." for one in told))
    return replace(compared, declared=Declared(models=names), notes=notes)


def _unmatched(old: Log, new: Log) -> Iterable[str]:
    ids = [[row.example_id for row in log.rows] for log in (new, old)]
    return filter(None, (matched(old, ids[0]), matched(new, ids[1])))


def _with_numbers(log: Log) -> Log:
    """The log without the scores that are never a number: nothing can be compared on them."""
    there = set(log.scores)
    scores = ({name: row.scores[name] for name in row.scores if name in there} for row in log.rows)
    rows = zip(log.rows, scores, strict=True)
    return replace(log, rows=tuple(replace(row, scores=kept) for row, kept in rows))


def _aligned(old: Log, new: Log) -> Log:
    """The second log under the first one's prompts where the tool vouches for the question: templates may differ by model."""
    if not all(log.tool.startswith("lm-eval") for log in (old, new)):
        return new
    asked = {row.example_id: row.messages for row in old.rows}
    rows = tuple(replace(row, messages=asked.get(row.example_id, row.messages)) for row in new.rows)
    n = sum(one.messages != other.messages for one, other in zip(rows, new.rows, strict=True))
    note = f"{plural(n, 'prompt')} of {new.path.name} are worded otherwise than the base model's (a template?)"
    return replace(new, rows=rows, notes=(*new.notes, *([note] if n else [])))


def _decides(old: Log, new: Log, metric: str) -> str:
    both = [name for name in old.scores if name in new.scores]
    expects = any(row.expected for row in old.rows)
    if metric or len(both) > 1:
        named = [*both, *(["exact_match", "similarity"] if expects else [])]
        return chosen("score", named, metric, new.path, "--metric", by_itself=False)
    if not both and not expects:
        raise DesignError(
            f"{old.path} and {new.path} carry no score in common and name no right answers, so nothing can be compared; "
            f"scores: {listed(list(old.scores)) or 'none'} and {listed(list(new.scores)) or 'none'}"
        )
    return both[0] if both else "exact_match"


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
        told = [f"{self.log}", f"{plural(self.n, 'answer')} written to {self.journal}"]
        if self.unused:
            few = listed([repr(one) for one in self.unused[:3]])
            told.append(
                f"{plural(len(self.unused), 'id')} of the file stand in no row of the test set, first {few}"
            )
        if self.unanswered:
            verb = "has" if self.unanswered == 1 else "have"
            rows = plural(self.unanswered, "row")
            told.append(f"{rows} of the test set {verb} no answer; a run with live: true asks")
        if self.log.model and self.log.model != self.named:
            told.append(
                f"the study calls this model {self.named!r}, the file {self.log.model!r}; the journal notes both"
            )
        return "\n".join([*told, *self.log.notes])


def import_answers(bench: Bench, log: Log, role: Role) -> Imported:
    """Writes a file's answers into a study's journal, as if the study had asked; it will not ask them again.

    Answers are joined on the id of a row, else on the very same question. All or nothing: the journal is written once
    every answer has its place, and a journal that is there already takes only answers it lacks.

    Raises:
        DataError: No row of the test set is answered, or the journal belongs to other answers.
    """
    said = bench.settings
    path = bench.study.path(said.base_journal if role == "base" else said.fine_tuned_journal)
    asked = bench.evaluation(role, about={"imported": log.about})
    places = list(_places(asked, log))
    if not places:
        raise DataError(
            f"{log.path}: none of its {plural(len(log.rows), 'answer')} is to a row of {bench.path}, by id or by question; "
            "is it another test set?"
        )
    with journal.Writer(path, asked.header()) as writer:
        for call, row in places:
            if call.key not in writer:
                writer.append(call.key, call.example.example_id, call.sample, row.scored)
    used = {row.example_id for _, row in places}
    answered = {call.example.example_id for call, _ in places}
    return Imported(
        journal=path,
        log=log,
        n=len(places),
        unused=tuple(
            dict.fromkeys(row.example_id for row in log.rows if row.example_id not in used)
        ),
        unanswered=sum(one.example_id not in answered for one in asked.test_set),
        named=bench.models[role],
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
