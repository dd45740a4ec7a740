"""A study as a notebook holds it: what its settings ask for, computed on the first call and ready to be looked at."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal

from evalkit import study

if TYPE_CHECKING:
    from pathlib import Path

    from evalkit.benchmark.bench import Bench
    from evalkit.benchmark.comparison import Comparison
    from evalkit.decision import Decision, Rules
    from evalkit.decision.history import History
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

    @cached_property
    def rules(self) -> Rules:
        """The rules of the decision: the study's own, or the defaults."""
        from evalkit.decision import Rules

        return Rules.read(self.named_file(self.settings.rules_file))

    def decide(self, *, rules: Rules | None = None) -> Decision:
        """Joins what the layers of this run have handed over into one decision.

        Args:
            rules: Other rules than the study's, to see what they would take: nothing is written.

        Raises:
            DataError: What a layer handed over is damaged.
        """
        from evalkit.decision import decide, read_evidence
        from evalkit.decision.against import results_against

        folder = self.run_folder()
        return decide(
            read_evidence(folder),
            study=self.name,
            stage=self.settings.stage,
            rules=rules or self.rules,
            against=results_against(self, folder),
        )

    def history(self) -> History:
        """The runs of this study, and the row that this one would add."""
        from evalkit.decision.history import read_history

        return read_history(self, self.run_folder())

    def write(self, decision: Decision) -> Path:
        """Makes a decision this run's own: `decision.json`, and `summary.png` for a chat message, in its folder."""
        from evalkit.show.plots.decision import summary

        path = decision.write(self.run_folder())
        summary(decision, path.with_name("summary.png"), title=self.settings.title or self.name)
        return path
