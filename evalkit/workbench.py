"""A study as a notebook holds it: what its settings ask for, computed on the first call and ready to be looked at."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal

from evalkit import study

if TYPE_CHECKING:
    from evalkit.benchmark.bench import Bench, Costs
    from evalkit.benchmark.comparison import Comparison
    from evalkit.benchmark.doctor import Checkup
    from evalkit.benchmark.finder import Found
    from evalkit.benchmark.noise import NoiseFloor
    from evalkit.benchmark.slices import SliceTable
    from evalkit.records import EvalResult, Evidence
    from evalkit.show.explorer import Explorer


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

    def compare(self, *, ask: bool = False) -> Comparison:
        """Both models' answers, joined on the example and tested in pairs.

        Args:
            ask: A study that is `live` may be asked what its journals lack; otherwise they are only read.

        Raises:
            DataError: A journal is not there and nothing may be asked.
        """
        from evalkit.benchmark.bench import Bench

        if ask:  # what was asked once is what the other methods go on with
            vars(self)["bench"] = Bench(study=self, asks=True)
        return self.bench.compare()

    def checkpoints(self) -> dict[str, Comparison]:
        """The fine-tuned model and every further one the study names, each against base; p is adjusted for their number."""
        return self.bench.compared[0]

    @cached_property
    def checkup(self) -> Checkup:
        """The test set, examined: repeated rows, contradictions, leaks from training, thin slices, size."""
        from evalkit.benchmark import doctor

        return doctor.examine(
            self.bench.path,
            self.optional(self.settings.train_file),
            slice_fields=self.bench.fields,
            limit=self.settings.limit,
            memory=self.reports / doctor.MEMORY,
        )

    @cached_property
    def costs(self) -> Costs:
        """What both models' answers took: tokens, time, money."""
        return self.bench.costs()

    def ask_twice(self, comparison: Comparison) -> NoiseFloor:
        """Asks both models twice, as many examples as `reask_n` says; without an endpoint it says so and goes on."""
        from evalkit.benchmark.noise import ask_twice

        said = self.settings
        return ask_twice(self.bench, comparison, self.run_folder(), n=said.reask_n, seed=said.seed)

    def explore(self, comparison: Comparison, noise: NoiseFloor | None = None) -> Explorer:
        """Steps through the examples in JupyterLab; notes and marks are kept in the run's folder."""
        from evalkit.show.explorer import Explorer

        return Explorer(
            comparison.pairs,
            metrics=tuple(comparison.tests),
            flaky=noise.marks if noise else {},
            notes_file=self.run_folder() / "notes.jsonl",
        )

    def write(
        self,
        comparison: Comparison,
        *,
        slices: SliceTable | None = None,
        noise: NoiseFloor | None = None,
        found: Found | None = None,
    ) -> Evidence | None:
        """Hands the benchmark on to the decision, as `comparison.json` in the run's folder.

        With slices it adds them, the noise floor and what the finder found to the file that the benchmark chapter wrote,
        and writes the regressed examples (`regressed.csv` for people, `regressed.jsonl` for programs).

        Returns:
            None, and no `comparison.json`, when the benchmark chapter has not written it for these answers.
        """
        from evalkit.benchmark import evidence, exports
        from evalkit.show import answers

        path = self.run_folder() / evidence.FILE
        if slices is None:
            record = self._evidence(comparison)
            record.write(path)
            return record
        marks = noise.marks if noise else {}
        exports.write_examples(comparison.regressed, marks, path.parent)
        return evidence.amended(
            path,
            bound_to=self.bench.bound_to,
            slices=(slices, *slices.others),
            noise=noise.to_dict() if noise and noise.n else None,
            noise_notes=noise.notes if noise else (),
            marks=marks,
            finder=(found or comparison.find_slices()).to_dict(),
            settle=answers.settle(comparison, power=self.settings.power),
        )

    def _evidence(self, comparison: Comparison) -> Evidence:
        from evalkit.benchmark.evidence import evidence_of
        from evalkit.benchmark.slices import slice_table

        said = self.settings
        primary = slice_table(
            comparison,
            metric=said.primary_metric,
            fields=self.bench.fields,
            margin=said.slice_margin,
            power=said.power,
        )
        return evidence_of(
            comparison,
            study=self.name,
            models=self.bench.models,
            costs=self.costs.to_dict(),
            slices=[primary],
            bound_to=self.bench.bound_to,
            power=said.power,
            chance_rate=comparison.declared.chance_rate,
            test_set_findings=self.checkup.counts(),
        )
