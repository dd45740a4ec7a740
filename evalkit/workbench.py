"""A study as a notebook holds it: what its settings ask for, computed on the first call and ready to be looked at."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evalkit import study

if TYPE_CHECKING:
    from evalkit.benchmark.bench import Bench
    from evalkit.benchmark.comparison import Comparison
    from evalkit.benchmark.gaps import Gaps
    from evalkit.human.preference import Preference
    from evalkit.human.study_round import StudyRound
    from evalkit.records import EvalResult


class Study(study.Study):
    """A study's folder and settings, and what a notebook starts from.

    `Study.open(name, run=run, setting=value)` finds it; each method answers by the study's settings, so that a notebook
    opened by hand, plain papermill and the scheduled run come to the same.
    """

    @cached_property
    def bench(self) -> Bench:
        """The benchmark behind the methods below: test set, journals, scoring."""
        from evalkit.benchmark.bench import Bench

        return Bench(study=self)

    def answers(self, role: Literal["base", "fine_tuned"]) -> list[EvalResult]:
        """One model's scored answers, from its journal."""
        return self.bench.base if role == "base" else self.bench.fine_tuned

    def compare(self) -> Comparison:
        """Both models' answers, joined on the example and tested in pairs."""
        return self.bench.compare()

    def gaps(self) -> Gaps:
        """What both models' answers still lack of the test set."""
        return self.bench.gaps(self.bench.base, self.bench.fine_tuned)

    def round(self) -> StudyRound:
        """The rating round: drawn on the first call, opened as it is on every later one; votes already given are kept.

        While answers are missing none is drawn, unless `allow_incomplete` says so.
        """
        from evalkit.human import study_round

        said, bench = self.settings, self.bench
        answers, bound_to = (bench.base, bench.fine_tuned), bench.bound_to
        given = {name: getattr(said, name) for name in ("sample_size", "raters", "rubric_file")}
        found = study_round.open_round(
            self,
            said.rating_round,
            *answers,
            **given,
            bound_to=bound_to,
            models=bench.models,
            seed=said.rating_seed,
            repeat_share=said.repeat_share,
            stratify_by="".join(bench.fields[:1]),
            gold_file=said.gold_file,
            simulate_raters=said.simulate_raters,
            n_unanswered=self.gaps().n,
            allow_incomplete=said.allow_incomplete,
        )
        otherwise = study_round.drawn_otherwise(found, self, *answers, **given)
        return study_round.StudyRound(round=found, bound_to=bound_to, otherwise=otherwise)

    def simulate_votes(self, rating: StudyRound) -> None:
        """Lets the simulated raters of a demo's round finish and lock it; a round of people is left as it is."""
        from evalkit.human.simulate import simulate_votes

        if rating.round and rating.simulated:
            expected = {str(one.example_id): one.expected for one in self.bench.base}
            simulate_votes(rating.round, expected, seed=self.settings.rating_seed)

    def rater(self, rating: StudyRound) -> Any:
        """The rater for a notebook cell, for the code in the setting `rater`; a note where nobody sits, as in a run.

        Raises:
            DesignError: The code is missing or not on the round's list.
        """
        from evalkit.human.study_round import in_jupyter, inline_rater
        from evalkit.show.human import no_rater

        if self.run or rating.round is None or not in_jupyter():
            return no_rater()
        return inline_rater(rating.round, self.settings.rater)

    def preference(self) -> Preference:
        """Everything the rating round says of the present answers; until it is locked how far it is, and no result."""
        from evalkit.human.preference import read_preference
        from evalkit.human.study_round import find_round

        bench, bound_to = self.bench, self.bench.bound_to
        return read_preference(
            find_round(self, self.settings.rating_round, bound_to),
            bound_to=bound_to,
            base_results=bench.base,
            ft_results=bench.fine_tuned,
            slice_fields=bench.fields,
            alpha=self.settings.alpha,
            power=self.settings.power,
        )

    def write(self, preference: Preference) -> Path:
        """Hands a chapter's result to the decision: `preference.json` in the run's folder."""
        from evalkit.human.evidence import human_evidence

        record = human_evidence(
            preference, study=self.name, models=self.bench.models, bound_to=self.bench.bound_to
        )
        return record.write(self.run_folder() / "preference.json")
