"""Base against fine-tuned on the same examples: joined on id, tested in pairs, every change listed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from evalkit import stats
from evalkit.answers import metrics, scoring
from evalkit.answers.metrics import Metrics, Pair
from evalkit.benchmark import frames
from evalkit.benchmark.slices import Found, SliceTable, find_slices, own_slice, slice_table
from evalkit.errors import DataError, DesignError, need_one_of
from evalkit.files import JsonObject
from evalkit.interop.logs import Log, chosen, read_log, told_apart
from evalkit.records import Brief, EvalResult, Many
from evalkit.stats import NonInferiorityTest, Result
from evalkit.study import named
from evalkit.wording import capital, count, effect, html_table, listed, plural

Question = Literal["better", "no_worse"]
_NAMES = {"base": "base", "fine_tuned": "fine-tuned"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What was said before the answers were looked at, and who was asked.

    Attributes:
        models: Names of base and fine_tuned.
        slice_fields: Fields to cut by; () cuts by all that the examples carry.
        slice_margin: Largest loss, as a fraction, that a slice may show; None asks for no margin.
        power: Chance of finding what is looked for, for the price of a verdict.
        finder_pattern: A regular expression the slice finder tries on the input besides its own traits.
        chance_rate: Expected exact match of picking one candidate at random; None where that means nothing.
        max_tokens: Tokens at which an answer is cut off; 0 when not known, or not the same for both.
        sent: By role, what was sent with each call, as the journal has it.
    """

    models: Mapping[str, str] = field(default_factory=lambda: dict(_NAMES))
    slice_fields: tuple[str, ...] = ()
    slice_margin: float | None = None
    power: float = 0.8
    finder_pattern: str = ""
    chance_rate: float | None = None
    max_tokens: int = 0
    sent: Mapping[str, JsonObject] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragility:
    """Does the verdict hang on calls that failed?

    Attributes:
        n_errors: Pairs in which at least one side is an `error`.
        all_pairs: The primary test, failed calls counted as wrong.
        without_errors: The same test without those pairs.
        margin: The loss still accepted where the question is "no_worse"; None where it is not.
    """

    n_errors: int
    all_pairs: Result
    without_errors: Result
    margin: float | None = None

    @property
    def fragile(self) -> bool:
        """True when leaving the failed calls out changes the verdict."""
        return self._said(self.all_pairs) != self._said(self.without_errors)

    def _said(self, test: Result) -> str:
        if self.margin is None:
            return test.verdict
        return stats.against_margin(test.verdict, stats.keeps_margin(test, self.margin))

    def __str__(self) -> str:
        if not self.n_errors:
            return "No call failed, so the verdict does not hang on failed calls."
        both = self.all_pairs, self.without_errors
        with_all, without = (_effect(one, self._said(one)) for one in both)
        word = "Fragile: the verdict changes" if self.fragile else "Not fragile: the verdict stays"
        calls = f"the {plural(self.n_errors, 'pair')} with a failed call are left out"
        return f"{word} when {calls}: {with_all} with them, {without} without."


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """A test set that may be extended once, by as many examples again: two looks that share the level.

    Attributes:
        first_look: Examples of the first look, once there is a second; 0 at the first.
    """

    first_look: int = 0

    def level(self, n: int, alpha: float) -> float:
        """The two-sided level of this look, at n examples.

        Raises:
            DesignError: The second look has no more examples than the first.
        """
        first = self.first_look
        if first and n <= first:
            raise DesignError(
                f"first_look is {first} but {plural(n, 'example')} were answered by both models; "
                "a second look needs the first look's examples and as many again, or first_look: 0"
            )
        return stats.extension_levels(first / n if first else 0.5, alpha=alpha)[bool(first)]

    def told(self, n: int, level: float, alpha: float) -> str:
        """This look in a sentence."""
        which = f"the first of two looks; the second is due at {count(2 * n)} examples"
        if self.first_look:
            which = f"the second of two looks, after one at {plural(self.first_look, 'example')}"
        return f"This is {which}: it tests at a level of {level * 100:.2g}% of the {alpha * 100:g}% of both (O'Brien-Fleming)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of one metric, and what is said of it.

    Attributes:
        base: The base model's level with its interval; None where it has none.
        fine_tuned: The fine-tuned model's.
        p_value: The p that decides: of the primary metric its own, of the others the one adjusted over them (Holm).
        verdict: By that p; of the primary metric the answer to the question that was asked.
    """

    metric: str
    is_primary: bool
    base: Result | None
    fine_tuned: Result | None
    test: Result
    p_value: float | None
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Comparison(Brief):
    """What changed from base to fine-tuned; differences are fine-tuned minus base, as fractions.

    Attributes:
        base: The base model's metrics over the matched examples.
        primary: The primary metric's test: its verdict is the verdict. Where several models were compared its
            `p_compared` decides, and with an extension its `alpha` is that of the look.
        tests: Every metric's paired test, by name, the primary one included.
        beside: Mid-p tests that ignore a declared cluster, for comparison only.
        p_adjusted: Holm over the metrics that are not primary.
        cells: Examples by status; `fixed` and `regressed` are McNemar's discordant pairs.
        noninferiority: "Not worse" against the margin that was declared, else None.
        extension: The looks that were declared, when the test set may be extended once.
        n_compared: Models compared with the same base; the primary p is adjusted for them.
        widened: The primary test at a level shared by the models compared (Bonferroni): its interval is what counts against
            a margin. None where one model was compared.
        unmatched_base: Ids only the base model answered; they count nowhere.
        declared: What was said beforehand: slices, margin, power.
        question: "better", or "no_worse", which `noninferiority` answers.
    """

    exact_match_improvement: float | None
    format_improvement: float | None
    similarity_improvement: float | None
    base: Metrics
    fine_tuned: Metrics
    n: int
    primary_metric: str
    status_metric: str
    primary: Result
    tests: Mapping[str, Result]
    beside: Mapping[str, Result] = field(default_factory=dict)
    p_adjusted: Mapping[str, float | None] = field(default_factory=dict)
    cells: Mapping[str, int] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()
    fragility: Fragility
    noninferiority: NonInferiorityTest | None = None
    unmatched_base: tuple[str, ...] = ()
    unmatched_fine_tuned: tuple[str, ...] = ()
    clustered: bool = False
    alpha: float = 0.05
    extension: Extension | None = None
    n_compared: int = 1
    widened: Result | None = None
    notes: tuple[str, ...] = ()
    declared: Declared = field(default_factory=Declared)
    question: Question = "better"

    @property
    def verdict(self) -> str:
        """The primary test's."""
        return self.primary.verdict

    @property
    def margin(self) -> float | None:
        """The loss still accepted where the question is "no_worse"; None where it is not."""
        against = self.noninferiority
        return against.margin if against and self.question == "no_worse" else None

    @property
    def conclusion(self) -> str:
        """What is said on the question that was asked: the verdict, or "not worse" and "not shown" against the margin."""
        if self.margin is None or self.noninferiority is None:
            return self.verdict
        return stats.against_margin(self.verdict, self.noninferiority.verdict == "not worse")

    @property
    def changes(self) -> dict[str, Change]:
        """What became of every metric, by name, and what is said of it."""
        found = {}
        for name, test in self.tests.items():
            p_value = self.p_adjusted.get(name, test.p_decides)
            is_primary = name == self.primary_metric
            found[name] = Change(
                metric=name,
                is_primary=is_primary,
                base=self.base.by_metric.get(name),
                fine_tuned=self.fine_tuned.by_metric.get(name),
                test=test,
                p_value=p_value,
                verdict=self.conclusion if is_primary else test.verdict_by(p_value),
            )
        return found

    @property
    def fixed(self) -> tuple[Pair, ...]:
        """Wrong before, right now."""
        return Many(one for one in self.pairs if one.status == "fixed")

    @property
    def regressed(self) -> tuple[Pair, ...]:
        """Right before, wrong now."""
        return Many(one for one in self.pairs if one.status == "regressed")

    @property
    def n_to_settle(self) -> int | None:
        """Examples in all that would settle the question at the rates seen; None when no number would."""
        level = self.primary.alpha / self.n_compared  # that of its look, shared by the models
        how = {"margin": self.margin or 0.0, "alpha": level, "power": self.declared.power}
        return stats.examples_to_settle(self.primary, **how)

    @property
    def expects_nothing(self) -> bool:
        """True when no example has a right answer: people decide, or a metric that needs none."""
        return bool(self.pairs) and all(not one.base.right for one in self.pairs)

    @property
    def disagreement(self) -> float | None:
        """Share of examples on which exactly one model is right; None where it is known of none."""
        n = sum(self.cells.values())
        return (self.cells["fixed"] + self.cells["regressed"]) / n if n else None

    def test_of(self, pairs: Sequence[Pair], metric: str, *, alpha: float | None = None) -> Result:
        """The paired test of some of the examples, made as the comparison's own are."""
        how = {"clustered": self.clustered, "lower_is_better": self.tests[metric].lower_is_better}
        return metrics.paired_test(pairs, metric, alpha=alpha or self.alpha, **how)

    def to_frame(
        self, by: Literal["answer", "example"] = "answer", *, field: str = ""
    ) -> pd.DataFrame:
        """The answers as a tidy frame; with several samples of an example its values are their means.

        `by="answer"` has two rows an example, all of the base model first:

        - `example_id`, `model` ("base" or "fine-tuned"): categories; `fine_tuned`: 0 or 1, for formulas
        - `right`: nullable boolean, by `status_metric`; what makes an example fixed or regressed
        - a column a metric (`exact_match`, `format`, `similarity`, scorers): float, NaN where undefined
        - `slice`: category, `field = value` as in the table of slices (many small values together as there); "all
          examples" where no field is declared
        - a column a slice field, with its values: categories, "(not given)" where an example lacks the field
        - `outcome`: category; `latency_ms`: Float64; `prompt_tokens`, `completion_tokens`: Int64
        - `cluster`: category, the source an example shares with others, else its own id: what errors are clustered by
        - `input_text`, `expected`, `predicted`: text

        `by="example"` has one row an example: `example_id`, `status` (category, missing where undefined), per metric
        `<metric>_base`,
        `<metric>_fine_tuned`, `<metric>_change`, `slice` and the slice fields, `input` (the conversation as text),
        `expected`, `answer_base`, `answer_fine_tuned`, `outcome_base`, `outcome_fine_tuned`, `cluster`, and `messages` (the
        conversation as it was sent). A metric named like one of these columns has "metric_" before it, a slice field "slice_".

        Args:
            by: What a row is.
            field: The slice field of the column `slice`; the first declared by default.

        Raises:
            DesignError: Another `by`, or a field that no example carries.
        """
        need_one_of(("answer", "example"), "by", by)
        made = frames.examples_frame if by == "example" else frames.answers_frame
        names = dict.fromkeys([*self.tests, "similarity"])  # notebooks sort by it, known or not
        return made(self.pairs, tuple(names), field=field)

    def slices(
        self, by: str | Iterable[str] | pd.Series | None = None, *, margin: float | None = None
    ) -> SliceTable:
        """The declared slices, or others: tested on the primary metric, the other metrics in `others`.

        Args:
            by: Slice fields by name, in a text with commas between them; or a series of an own value an example, its
                index the ids, its name the field's.
            margin: Largest loss, as a fraction, that a slice may show; the declared one by default.

        Raises:
            DesignError: A field that no example carries, or a margin that is no number of at least 0.
            DataError: The series has no value for some example, or two.
        """
        said, cut = self.declared, self
        fields = said.slice_fields
        if isinstance(by, pd.Series):
            cut, fields = own_slice(self, by), ()
        elif by is not None:
            fields = tuple(str(one) for one in named(by))
        margin = said.slice_margin if margin is None else margin
        if margin is not None and not (isinstance(margin, Real) and 0 <= margin < inf):
            raise DesignError(f"margin is {margin!r}; need a number of at least 0")
        return slice_table(cut, fields=fields, margin=margin, power=said.power, others=True)

    def find_slices(self) -> Found:
        """Where else the losses lie: found by looking, so a hunch that needs fresh examples."""
        pattern = self.declared.finder_pattern
        own = {f"input matches {pattern}": pattern} if pattern else {}
        return find_slices(self, predicates=own)

    def __str__(self) -> str:
        metric = self.primary_metric.replace("_", " ")
        said = _effect(self.primary, self.conclusion)
        return f"{capital(metric)} over {plural(self.n, 'example')}: {said}."

    def _repr_html_(self) -> str:
        tests = {name.replace("_", " "): _effect(one) for name, one in self.tests.items()}
        cells = {name.replace("_", " "): n for name, n in self.cells.items()}
        notes = {"notes": " ".join(self.notes)} if self.notes else {}
        return html_table({"examples": self.n, **tests, **cells, **notes})


def compare_models(
    base_results: Iterable[EvalResult] | pd.DataFrame,
    ft_results: Iterable[EvalResult] | pd.DataFrame,
    *,
    primary_metric: str = "exact_match",
    lower_is_better: str | Iterable[str] = (),
    metric_margin: float | None = None,
    question: Question = "better",
    alpha: float = 0.05,
    extension: bool = False,
    first_look: int = 0,
) -> Comparison:
    """Compares two models' answers to the same examples.

    Args:
        base_results: The base model's answers; or a data frame, one row an answer, with the columns `example_id`,
            `input_text`, `expected` and `predicted`. Of its other columns `exact_match`, `format_correct`, `outcome`,
            `sample`, `cluster`, `latency_ms`, `prompt_tokens` and `completion_tokens` mean what they mean in `EvalResult`;
            further numbers (0 to 1) are scores by name, further texts and categories are slices.
        ft_results: The fine-tuned model's answers; joined on `example_id`, never by position.
        primary_metric: The one metric declared beforehand: `exact_match`, `format` or a scorer's name.
        lower_is_better: Metrics of which less is better, by name (or names separated by commas): differences stay
            fine-tuned minus base, verdicts, margins and the status of examples turn.
        metric_margin: Largest loss, as a fraction, that would still count as "not worse"; asks that question too.
        question: "no_worse" makes that the question: it needs a margin.
        alpha: Two-sided level of the tests.
        extension: Declared before the first look: if nothing is shown, the test set is extended once by as many
            examples again. The primary metric then has two looks that keep the level together.
        first_look: With an extension, the number of examples of the first look; 0 when this is the first.

    Raises:
        DataError: No example is in both, or rows of one id contradict each other.
        DesignError: An unknown metric or question, a margin outside (0, 1), or a second look without an extension.

    Example:
        >>> old = [EvalResult(i, "q", "a", "a" if i < 2 else "b", i < 2, True) for i in range(10)]
        >>> new = [EvalResult(i, "q", "a", "a" if i > 0 else "b", i > 0, True) for i in range(10)]
        >>> result = compare_models(old, new)
        >>> dict(result.cells), result.regressed[0].example_id, round(result.exact_match_improvement, 6)
        ({'both_right': 1, 'fixed': 8, 'regressed': 1, 'both_wrong': 0}, '0', 0.7)
    """
    need_one_of(("better", "no_worse"), "question", question)
    old = metrics.by_id(_results(base_results, "base"), "base")
    new = metrics.by_id(_results(ft_results, "fine-tuned"), "fine-tuned")
    shared = [name for name in old if name in new]
    metrics.check_matches(old, new, shared)
    before, after = ([one for name in shared for one in side[name]] for side in (old, new))
    names, odd = _metrics_to_test(before, after, primary_metric)
    lower = {str(one) for one in named(lower_is_better)}
    if unknown := sorted(lower - {*names}):
        raise DesignError(
            f"lower_is_better names {', '.join(unknown)}: these results carry {', '.join(names)}"
        )
    values = (metrics.value(one, primary_metric) for one in (*before, *after))
    by = primary_metric if all(one in (0.0, 1.0) for one in values) else "exact_match"
    pairs = tuple(
        metrics.pair_of(name, old[name], new[name], names, by, lower_is_better=by in lower)
        for name in shared
    )
    n = len(pairs)
    clustered = any(
        side.cluster is not None for one in pairs for side in (one.base, one.fine_tuned)
    )
    if first_look and not extension:
        raise DesignError(
            f"first_look is {first_look}, but no extension was declared; set extension: true, or test fresh examples alone"
        )
    looks = Extension(first_look=first_look) if extension else None
    level = looks.level(n, alpha) if looks and n else alpha

    def tested(name: str, some: Sequence[Pair] = pairs) -> Result:
        at, turned = level if name == primary_metric else alpha, name in lower
        how = {"clustered": clustered, "lower_is_better": turned}
        return metrics.paired_test(some, name, alpha=at, **how)

    tests = {name: tested(name) for name in names}
    primary, kept = tests[primary_metric], [one for one in pairs if not one.any_error]
    others = [name for name in names if name != primary_metric]
    adjusted = stats.adjust([tests[name].p_decides for name in others])
    base, tuned = (metrics.compute_metrics(side, alpha=alpha) for side in (before, after))
    beside = {
        name: metrics.paired_test(pairs, name, alpha=alpha, lower_is_better=name in lower)
        for name in (names if clustered else ())
    }
    notes = [*_notes(old, new, pairs, names), *odd]
    if looks and n:
        notes.append(looks.told(n, level, alpha))
    return Comparison(
        exact_match_improvement=_minus(tuned.exact_match_rate, base.exact_match_rate),
        format_improvement=_minus(tuned.format_accuracy, base.format_accuracy),
        similarity_improvement=_minus(tuned.avg_similarity, base.avg_similarity),
        base=base,
        fine_tuned=tuned,
        n=n,
        primary_metric=primary_metric,
        status_metric=by,
        primary=primary,
        tests=tests,
        beside=beside,
        p_adjusted=dict(zip(others, adjusted, strict=True)),
        cells=metrics.cells_of(pairs),
        pairs=pairs,
        fragility=Fragility(
            n_errors=n - len(kept),
            all_pairs=primary,
            without_errors=primary if len(kept) == n else tested(primary_metric, kept),
            margin=metric_margin if question == "no_worse" else None,
        ),
        noninferiority=_noninferiority(primary, metric_margin, question),
        unmatched_base=tuple(name for name in old if name not in new),
        unmatched_fine_tuned=tuple(name for name in new if name not in old),
        clustered=clustered,
        alpha=alpha,
        question=question,
        extension=looks,
        notes=tuple(notes),
    )


def _results(given: Iterable[EvalResult] | pd.DataFrame, side: str) -> Iterable[EvalResult]:
    if isinstance(given, pd.DataFrame):
        return frames.results_of(given, side)
    results = list(given)
    if odd := [one for one in results if not isinstance(one, EvalResult)]:
        raise DataError(
            f"{side} results: got {type(given).__name__} with {type(odd[0]).__name__} in it; need answers as "
            "run_automated_eval gives them, or a data frame. A file is read by ek.read_log and compared by ek.compare_files"
        )
    return results


def compare_many(
    base_results: Iterable[EvalResult],
    others: Mapping[str, Iterable[EvalResult]],
    *,
    alpha: float = 0.05,
    **options: Any,  # of `compare_models`
) -> dict[str, Comparison]:
    """Compares several models with the same base; their primary tests' p, adjusted by Holm, decide their verdicts.

    The best of ten models that are no better than the base shows a p below 0.05 in one study of five. Against a margin,
    each interval is as wide as so many models need (Bonferroni).

    Returns:
        The comparisons, each with the adjusted p in its primary test where there are several.
    """
    base = list(base_results)
    compared = {
        name: compare_models(base, results, alpha=alpha, **options)
        for name, results in others.items()
    }
    if len(compared) == 1:
        return compared
    own, n = {name: one.primary.p_decides for name, one in compared.items()}, len(compared)
    note = f"{n} models were compared with this base on this test set: p is adjusted for them (Holm) and decides."
    adjusted, decided = _holm(own), {}
    for name, one in compared.items():
        without, against = one.fragility.without_errors, one.noninferiority
        p_without = _holm(own | {name: without.p_decides})[name]
        without = replace(without, p_compared=p_without)
        primary = replace(one.primary, p_compared=adjusted[name])
        wide = one.test_of(one.pairs, one.primary_metric, alpha=primary.alpha / n)
        decided[name] = replace(
            one,
            primary=primary,
            tests={**one.tests, one.primary_metric: primary},
            fragility=replace(one.fragility, all_pairs=primary, without_errors=without),
            noninferiority=against and stats.noninferiority_test(wide, against.margin),
            n_compared=n,
            widened=wide,
            notes=(*one.notes, note),
        )
    return decided


def _holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    return dict(zip(p_values, stats.adjust([*p_values.values()]), strict=True))


def _metrics_to_test(
    old: list[EvalResult], new: list[EvalResult], primary_metric: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The metrics that both sides carry, and a note on each that only one does."""
    names, notes, shared = metrics.metric_names([*old, *new]), list[str](), list[str]()
    for name in names:
        lacks = [not metrics.carries(side, name) for side in (old, new)]
        if old and new and any(lacks):
            only = f"only the {'fine-tuned' if lacks[0] else 'base'} answers were scored by it"
            notes.append(f"{name.replace('_', ' ')} is not compared: {only}.")
        else:
            shared.append(name)
    if primary_metric in shared:
        return tuple(shared), tuple(notes)
    is_known = str(primary_metric) in scoring.SCORERS
    if is_known or (primary_metric == "exact_match" and not notes):
        return (*shared, primary_metric), tuple(notes)
    raise DesignError(
        " ".join(
            [f"primary metric {primary_metric!r}: these results carry {', '.join(shared)}.", *notes]
        )
    )


def _noninferiority(
    primary: Result, margin: float | None, question: Question
) -> NonInferiorityTest | None:
    if not 0 < (margin or 0) < 1 and (margin or question == "no_worse"):
        raise DesignError(
            f"metric_margin {margin}: give the largest loss still accepted as a fraction, e.g. 0.02 for 2 points"
        )
    return stats.noninferiority_test(primary, margin) if margin else None


def _notes(
    old: Mapping[str, list[EvalResult]],
    new: Mapping[str, list[EvalResult]],
    pairs: Sequence[Pair],
    names: Iterable[str],
) -> Iterable[str]:
    n = plural(len(pairs), "example")
    if not pairs:
        yield "No examples: nothing can be said."
    lost, gained = len(old.keys() - new.keys()), len(new.keys() - old.keys())
    if lost or gained:
        yield (
            f"Only the {n} both models answered are compared: "
            f"{lost} stand only in the base results and {gained} only in the fine-tuned ones."
        )
    if any(len(side[one.example_id]) > 1 for one in pairs for side in (old, new)):
        yield "Several samples an example were averaged first; right means right in more than half of them."
    if any(side.cluster is not None for one in pairs for side in (one.base, one.fine_tuned)):
        sources = plural(len({one.cluster for one in pairs}), "shared source")
        yield f"Standard errors allow for {sources}."
    for name in names:
        if unknown := sum(one.diff(name) is None for one in pairs):
            yield f"{name.replace('_', ' ')} is undefined for {count(unknown)} of {n}, which count nowhere in it."


def _minus(new: float | None, old: float | None) -> float | None:
    return None if new is None or old is None else new - old


def _effect(test: Result, said: str = "") -> str:
    """Verdict, difference and interval: "better by +5.0 points (95% interval +1.0 to +9.0)"; `said` in the verdict's place."""
    if test.estimate is None:
        return test.verdict
    return f"{said or test.verdict}, {effect(test)}"


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
    old, new = (
        one if isinstance(one, Log) else read_log(one, test_file=test_file)
        for one in (base, fine_tuned)
    )
    new = _aligned(old, new)
    lower = {*old.lower_is_better, *new.lower_is_better} & {*old.scores, *new.scores}
    primary, how = _decides(old, new, metric), {"metric_margin": margin, "alpha": alpha}
    found = compare_models(
        old.results, new.results, primary_metric=primary, lower_is_better=lower, **how
    )
    names = told_apart(old, new, [log.model or log.path.name for log in (old, new)])
    models = {"base": names[0], "fine_tuned": names[1]}
    unmatched = [
        *old.only_here(row.example_id for row in new.rows),
        *new.only_here(row.example_id for row in old.rows),
    ]
    told = [str(old), str(new), *old.notes, *new.notes, *unmatched]
    notes = (*found.notes, *(f"{one}." for one in told))
    return replace(found, declared=Declared(models=models), notes=notes)


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
        scores = " and ".join(listed(list(log.scores)) or "none" for log in (old, new))
        raise DesignError(
            f"{old.path} and {new.path} carry no score in common and name no right answers, so nothing can be compared; "
            f"scores: {scores}"
        )
    return both[0] if both else "exact_match"
