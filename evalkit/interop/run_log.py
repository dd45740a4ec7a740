"""One model's answers from a file: the log of a run, an answer a row, as every reader here makes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evalkit.answers import dataset, scoring
from evalkit.conversation import Message
from evalkit.errors import DataError, DesignError
from evalkit.records import Answer, EvalResult, Example
from evalkit.wording import listed, plural, visible


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One answer of another tool's run.

    Attributes:
        sample: 0-based: an epoch or a repeat of the same question.
        messages: The prompt; () where the file does not hold it.
        expected: The right answers, any of which is right; () where the file names none.
        scores: What the tool said of the answer, by our name of its scorer; None where it is no number.
    """

    example_id: str
    answer: Answer
    sample: int = 0
    messages: tuple[Message, ...] = ()
    expected: tuple[str, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict)
    slices: Mapping[str, str] = field(default_factory=dict)

    @property
    def scored(self) -> Answer:
        """The answer with what the tool said of it."""
        return replace(self.answer, scores=self.scores)

    @property
    def result(self) -> EvalResult:
        """The row as any other answer; a right answer among several is an exact match."""
        right = self.expected or ("",)
        example = Example(
            example_id=self.example_id,
            messages=self.messages,
            expected=right[0],
            also_right=right[1:],
            expects=bool(self.expected),
            slices=self.slices,
        )
        return scoring.score_answer(example, self.scored, self.sample, checker="none", scorers=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One model's answers from another tool's file.

    Attributes:
        tool: Its name, with its version where the file says it: "Inspect 0.3.285".
        run: The tool's own name of the run; "" where it has none.
        made_at: As the file says it.
        lower_is_better: Scores of which the tool says so.
        notes: What was left out or read in a way that a reader should know.
    """

    path: Path
    tool: str
    model: str
    rows: tuple[Row, ...]
    run: str = ""
    made_at: str = ""
    lower_is_better: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def scores(self) -> tuple[str, ...]:
        """The scores of which its rows hold a number, in the order they come."""
        told = (one for row in self.rows for one in row.scores.items())
        return tuple(dict.fromkeys(name for name, value in told if value is not None))

    @property
    def results(self) -> list[EvalResult]:
        """Its rows as any other answers, ready for `compare_models`."""
        return [row.result for row in self.rows]

    @property
    def about(self) -> dict[str, str]:
        """Where the answers came from, for a journal's header and the page."""
        known = {"tool": self.tool, "model": self.model, "run": self.run, "made_at": self.made_at}
        return {"file": self.path.name} | {name: told for name, told in known.items() if told}

    def __str__(self) -> str:
        n = len({row.example_id for row in self.rows})
        run = f", run {visible(self.run)}" if self.run else ""
        scores = f", scored by {listed(list(self.scores))}" if self.scores else ""
        return (
            f"{self.path.name}: {self.tool}{run}, model {visible(self.model) or 'not named'}, "
            f"{plural(len(self.rows), 'answer')} to {plural(n, 'example')}{scores}"
        )

    def only_here(self, ids: Iterable[str]) -> tuple[str, ...]:
        """What of it has no counterpart among the ids, in a sentence; () when all have."""
        known = set(ids)
        lone = dict.fromkeys(one.example_id for one in self.rows if one.example_id not in known)
        if not lone:
            return ()
        some = listed([repr(visible(name)) for name in list(lone)[:3]])
        what = f"{plural(len(lone), 'id')} of {self.path.name} stand only there, first {some}"
        return (f"{what}; they count nowhere",)

    def with_questions(self, test_file: Path | None) -> Log:
        """The log with the questions and right answers of a test set, where its rows have none."""
        if test_file is None or all(row.messages for row in self.rows):
            return self
        examples = {one.example_id: one for one in dataset.read_examples(test_file).examples}
        rows = tuple(
            replace(row, messages=one.messages, expected=one.right, slices=one.slices)
            for row in self.rows
            if (one := examples.get(row.example_id))
        )
        if not rows:
            raise DataError(f"{self.path}: none of its ids is the id of a row of {test_file}")
        return replace(self, rows=rows, notes=(*self.notes, *self.only_here(examples)))

    def checked(self) -> Log:
        """The log with its repeated ids told; nothing without rows passes, nor one id with different contents."""
        if not self.rows:
            raise DataError(
                f"{self.path}: {self.tool}: no sample was finished, so there is nothing to compare; run it to its end"
            )
        seen: dict[tuple[str, int], Row] = {}
        for row in self.rows:
            kept = seen.setdefault((row.example_id, row.sample), row)
            if (kept.answer.text, kept.messages) != (row.answer.text, row.messages):
                raise DataError(
                    f"{self.path}: id {row.example_id!r} stands more than once with different contents; "
                    "give each example an id of its own"
                )
        n = len(self.rows) - len(seen)
        notes = (f"{plural(n, 'row')} stood twice, word for word; each counts once",) if n else ()
        return replace(self, rows=tuple(seen.values()), notes=(*self.notes, *notes))


def told_apart(old: Log, new: Log, names: Sequence[str]) -> list[str]:
    """A name for each of two logs; of one name each with what differs first: the model, the file's name, a folder."""
    places = zip(*(reversed(log.path.resolve().parts) for log in (old, new)), strict=False)
    pairs = [(old.model, new.model), *places] if len({*names}) == 1 else []
    differ = next((pair for pair in pairs if all(pair) and pair[0] != pair[1]), None)
    if differ is None:
        return [*names]
    return [f"{name} ({visible(one)})" for name, one in zip(names, differ, strict=True)]


def chosen(
    what: str, found: Iterable[str], asked: str, path: Path, option: str, *, by_itself: bool = True
) -> str:
    """The one of several that was asked for; the only one without asking.

    Raises:
        DesignError: There are several and none was named, or the named one is not there.
    """
    names = list(dict.fromkeys(found))
    if asked in names:
        return asked
    if not asked and len(names) == 1 and by_itself:
        return names[0]
    if not names:
        raise DataError(f"{path}: holds no rows; name a run that has some")
    few = listed([repr(visible(name)) for name in names[:20]])
    problem = f"no {what} {asked!r}" if asked else f"several {what}s, none is guessed"
    raise DesignError(f"{path}: {problem}; it holds {few}; name one with {option}")
