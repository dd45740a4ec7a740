"""A study as a notebook holds it: what its settings ask for, computed on the first call and ready to be looked at."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal

from evalkit import study

if TYPE_CHECKING:
    from evalkit.benchmark.bench import Bench
    from evalkit.benchmark.comparison import Comparison
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
