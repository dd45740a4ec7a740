"""A study's benchmark as one object: what both models are asked, how answers are scored, what the decision is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from msgspec import structs

from evalkit import evidence, records
from evalkit.answers import dataset, evaluation, journal, runner, scoring
from evalkit.answers.evaluation import ROLES, Evaluation, Role, prices_of
from evalkit.answers.metrics import mean, quantile
from evalkit.benchmark.comparison import Comparison, Declared, compare_many
from evalkit.benchmark.frames import typed
from evalkit.benchmark.slices import SliceTable
from evalkit.conversation import holds_thoughts
from evalkit.errors import DataError, DesignError
from evalkit.files import JsonObject, utc
from evalkit.records import EvalResult, Missing
from evalkit.study import Settings, Study, named
from evalkit.wording import count, listed, plural, scale_of

if TYPE_CHECKING:
    from evalkit.answers.submission import Submission

FILE = "comparison.json"
FIRST_SIZE = 200  # the lower end of the usual 200 to 500
MOST_SLICES = 3  # that a line of what is missing names
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
        return {role: getattr(self.settings, f"{role}_model") for role in ROLES}

    @property
    def path(self) -> Path:
        """The test file."""
        return self.study.path(self.settings.test_file)

    @property
    def prices(self) -> Path | None:
        """The price file, if one is named."""
        return self.study.named_file(self.settings.prices_file)

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
        return compare_many(
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

    def compare(self) -> Comparison:
        """Both models' answers, joined and tested, with what the study declared beforehand."""
        said = self.settings
        compared = self.compared[said.fine_tuned_model]
        sent = self.sent  # once both have been asked
        names = ("max_completion_tokens", "max_tokens")
        limits = {next(filter(None, map(one.get, names)), 0) for one in sent.values()}
        declared = Declared(
            models=self.models,
            slice_fields=self.fields,
            slice_margin=said.slice_margin or None,
            power=said.power,
            finder_pattern=said.finder_pattern,
            chance_rate=self.chance_rate(),
            sent=sent,
            max_tokens=limits.pop() if len(limits) == 1 else 0,
        )
        return replace(compared, declared=declared)

    @property
    def journals(self) -> dict[str, Path]:
        """Both models' journals."""
        files = {role: getattr(self.settings, f"{role}_journal") for role in ROLES}
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
        how = {"system_prompt": said.system_prompt, "system_prompt_mode": "auto"}
        return self._read_rows(self.path, **how, limit=said.limit, **self._labels)

    @cached_property
    def _read_rows(self) -> Callable[..., dataset.TestSet]:
        """Reads the test file once for each way of reading it."""
        known: dict[tuple[object, ...], dataset.TestSet] = {}

        def read(path: Path, **how: Any) -> dataset.TestSet:
            if (key := (path, *sorted(how.items()))) not in known:  # `cache` minds the order
                known[key] = dataset.read_examples(path, **how)
            return known[key]

        return read

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
        to_ask = (
            f"to ask {self.models[role]!r}, set OPENAI_API_KEY or OPENAI_BASE_URL and call "
            f"evalkit run {self.study.name} --only 01 -p live=true"
        )
        if not path.exists():
            raise DataError(f"{path}: no such journal; {to_ask}")
        return self._read(path, remedy=to_ask)

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
            remedy = (
                f"to record a checkpoint's answers: evalkit run {self.study.name} --only 01 -p live=true "
                f"-p fine_tuned_model=MODEL -p fine_tuned_journal={name}"
            )
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
        how |= {"limit": 0 if test_file else self.settings.limit, **options}
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
        bound = {"test_set": self.test_set.fingerprint}
        for role, path in self.journals.items():
            answers = records.answers_hash(self._read(path, remedy=None, **UNSCORED))
            bound |= {role: answers, f"{role}_journal": journal.answers_hash(path)}
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
        chances = []
        for one in (row for row in rows if row.expects):
            given = one.slices.get(field, "")
            try:
                number = float(given)
            except ValueError:
                need = "need a number of candidates or a chance"
                raise DesignError(f"chance_field {field!r} holds {given!r}; {need}") from None
            n_lines = sum(bool(line.strip()) for line in one.expected.split("\n"))
            by_picking = 1 / number if number >= 1 and n_lines == 1 else 0.0
            chances.append(number if number < 1 else by_picking)
        return mean(chances)

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

    def _read(self, path: Path, *, remedy: str | None, **scored: Any) -> list[EvalResult]:
        how = {"read": self._read_rows, "limit": self.settings.limit, **self._labels}
        how |= scored or self._scoring
        return runner.results_from_journal(path, self.path, remedy=remedy, **how)

    @property
    def _labels(self) -> JsonObject:
        said = self.settings
        cluster = said.cluster_field or None
        return {"slice_fields": self.fields, "cluster_field": cluster, "strict": said.strict}

    @cached_property
    def own_code(self) -> dict[str, str]:
        """SHA-256 of each file of the study that scores answers, by name."""
        said = self.settings
        return scoring.own_hashes((said.checker, *named(said.scorers)), self.study.folder)

    @cached_property
    def _scoring(self) -> JsonObject:
        said, folder = self.settings, self.study.folder
        scorers = scoring.scorers_by_name(named(said.scorers), folder=folder)
        checker = scoring.checker(said.checker, folder=folder)
        return {"checker": checker, "scorers": tuple(scorers.values())}


def can_ask() -> bool:
    """True when the environment names an endpoint."""
    return bool(os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_KEY"))


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
    examples: Iterable[records.Example],
    *sides: Sequence[EvalResult],
    samples: int = 1,
) -> Gaps:
    """Counts the answers that both models should have given to these examples and have not.

    A refused, truncated or empty answer is an answer; an error is none, as it is asked again.

    Args:
        examples: The test set's rows.
        sides: The base model's answers and the fine-tuned model's.
        samples: Answers asked for each row; more when either model has given more to any.
    """
    asked = max([samples, *(1 + one.sample for made in sides for one in made)])
    wanted = {(one.example_id, sample) for one in examples for sample in range(asked)}
    failed = sum(one.outcome == "error" for made in sides for one in made)
    base, tuned = (
        len(wanted - {(str(one.example_id), one.sample) for one in made if one.outcome != "error"})
        for made in sides
    )
    return Gaps(n_calls=2 * len(wanted), base=base, fine_tuned=tuned, n_failed=failed)


# ---- what the benchmark hands to the decision: written once, amended by what is found out later


def evidence_of(
    comparison: Comparison,
    *,
    study: str,
    bound_to: Mapping[str, str],
    costs: Mapping[str, JsonObject],
    slices: SliceTable | None = None,
    test_set_findings: Mapping[str, int] | None = None,
    own_code: Mapping[str, str] | None = None,
) -> evidence.BenchmarkEvidence:
    """The comparison as a record of plain numbers.

    Args:
        comparison: The result.
        study: The study's name.
        bound_to: Hashes it is valid for.
        costs: Tokens, latency and money by role.
        slices: The primary metric's table.
        test_set_findings: The doctor's, counted by kind.
        own_code: Files with functions of one's own, and their hashes.
    """
    fragility, wide, against = comparison.fragility, comparison.widened, comparison.noninferiority
    roles = {"base": comparison.base, "fine_tuned": comparison.fine_tuned}
    unmatched = comparison.unmatched_base, comparison.unmatched_fine_tuned
    limits = ("ci_low", "ci_high", "alpha")
    interval = wide and evidence.Interval(**{name: getattr(wide, name) for name in limits})
    metrics = {
        name: evidence.ReportedMetric(
            base=one.base and evidence.Level.of(one.base.to_dict()),
            fine_tuned=one.fine_tuned and evidence.Level.of(one.fine_tuned.to_dict()),
            test=evidence.ReportedTest.of(one.test.to_dict()),
        )
        for name, one in comparison.changes.items()
    }
    reported = {
        "cells_metric": comparison.status_metric,
        "fragility": {
            "fragile": fragility.fragile,
            "n_errors": fragility.n_errors,
            "without_errors": fragility.without_errors.to_dict(),
            "sentence": str(fragility),
        },
        "noninferiority": against and against.to_dict(),
        "outcomes": {role: dict(one.outcomes) for role, one in roles.items()},
        **{
            name: getattr(comparison, name) for name in ("n", "question", "conclusion", "clustered")
        },
        "unmatched": {role: [*ids] for role, ids in zip(roles, unmatched, strict=True)},
        "notes": [*comparison.notes],
        "slices_other_metrics": [],
        "chance_rate": comparison.declared.chance_rate,
    }
    return evidence.BenchmarkEvidence(
        study=study,
        made_at=utc(),
        models=dict(comparison.declared.models),
        bound_to=dict(bound_to),
        simulated=False,
        metric=comparison.primary_metric.replace("_", " "),
        unit="examples",
        primary=evidence.ReportedTest.of(comparison.primary.to_dict()),
        missing=tuple(_missing_verdict(comparison)),
        details=evidence.BenchmarkDetails(
            metrics=metrics,
            p_adjusted=dict(comparison.p_adjusted),
            cells=comparison.cells,
            fragile=fragility.fragile,
            slices=_reported(slices),
            widened=interval,
            n_compared=comparison.n_compared,
            test_set_findings=test_set_findings or {},
            own_code=own_code or {},
            costs=costs,
            reported=reported,
        ),
    )


def amended(
    path: Path,
    *,
    bound_to: Mapping[str, str],
    slices: SliceTable,
    noise: JsonObject | None,
    **reported: object,
) -> evidence.Evidence | None:
    """What comparison.json holds, with what the regression chapter found; doing it twice changes nothing more.

    Returns:
        None when the benchmark chapter has not written the file for these very answers.
    """
    old = evidence.Evidence.read(path) if path.exists() else None
    if not isinstance(old, evidence.BenchmarkEvidence) or dict(old.bound_to) != dict(bound_to):
        return None
    kept = [one for one in old.missing if one.kind != records.OPEN_SLICES]
    others = [row for one in slices.others for row in one.to_dict()]
    rest = {**old.details.reported, "slices_other_metrics": others, **reported}
    details = structs.replace(
        old.details, slices=_reported(slices), noise_floor=noise, reported=rest
    )
    return replace(old, missing=(*kept, *_missing_slices(slices)), details=details)


def _missing_verdict(comparison: Comparison) -> Iterable[Missing]:
    """What would settle the question: how many more examples that takes, and how many in all."""
    if comparison.conclusion not in {"no difference shown", "not shown", "too early"}:
        return
    primary, margin, n = comparison.primary, comparison.margin, comparison.n
    ruled_out = margin is not None and n > 0
    if not ruled_out and comparison.expects_nothing and primary.estimate is None:
        yield Missing(kind="no_right_answers")
        return
    needed, looks = comparison.n_to_settle, comparison.extension
    price: tuple[records.MissingKind, int | None, int | None] = "half_the_difference", 3 * n, None
    if not n:
        price = "first_examples", FIRST_SIZE, None
    elif needed and looks and not looks.first_look:
        price = "second_look", n, None
    elif needed:
        price = "more_examples", needed - primary.n, needed
    elif margin:
        price = "no_examples_would", None, None
    yield Missing(
        kind=price[0],
        n=n if ruled_out else primary.n,
        more=price[1],
        needed=price[2],
        margin=margin,
        shown_as=scale_of(primary),
        chance=comparison.declared.power,
    )


def _missing_slices(slices: SliceTable) -> Iterable[Missing]:
    """One line for all open slices, the largest loss first, so that they leave room for what other layers miss."""
    settled = ((row, row.n_to_settle) for row in slices if row.safety or row.gain < 0)
    known = sorted(((row, n) for row, n in settled if n), key=lambda one: one[0].gain)
    told = tuple(
        records.OpenSlice(
            name=row.slice,
            n=row.n,
            more=n - row.n,
            estimate=row.estimate,
            shown_as=scale_of(row.test),
        )
        for row, n in known[:MOST_SLICES]
    )
    if told:
        chance, further = known[0][0].wanted_chance, len(known) - len(told)
        yield Missing(kind=records.OPEN_SLICES, chance=chance, slices=told, further=further)


def _reported(slices: SliceTable | None) -> tuple[evidence.ReportedSlice, ...]:
    return tuple(evidence.ReportedSlice.of(row) for row in (slices.to_dict() if slices else ()))
