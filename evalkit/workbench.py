"""A study as a notebook holds it: what its settings ask for, computed on the first call and ready to be looked at."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from evalkit import study
from evalkit.abtest import lock
from evalkit.decision import Decision, Rules, concerns, decide, history, read_evidence
from evalkit.errors import DesignError, need_one_of
from evalkit.evidence import Evidence
from evalkit.human.round import StudyRound, find_round, open_round
from evalkit.records import EvalResult
from evalkit.study import Value, settings_of

if TYPE_CHECKING:
    import pandas as pd

    from evalkit.abtest.experiment import Experiment
    from evalkit.abtest.plan import ABPlan
    from evalkit.abtest.reading import NoReading, Reading
    from evalkit.benchmark.benchmark import Benchmark, Costs, Gaps
    from evalkit.benchmark.comparison import Comparison
    from evalkit.benchmark.doctor import Checkup
    from evalkit.benchmark.noise import NoiseFloor
    from evalkit.benchmark.slices import Found, SliceTable
    from evalkit.human.preference import Preference
    from evalkit.show.explorer import Explorer


# What a chapter's answer rests on; the stage is the decision's own, which reads what is there.
_ASKED = {"power", "question", "question_margin", "rating_round"}
_TURNS = ({*history.DECIDING} - {"stage"}) | _ASKED


class Study(study.Study):
    """A study's folder and settings, and what a notebook starts from.

    `Study.open(name, run=run, setting=value)` finds it; each method answers by the study's settings, so that a notebook
    opened by hand, plain papermill and the scheduled run come to the same.
    """

    @classmethod
    def open(
        cls, name: str, *, root: Path | None = None, run: str = "", **overrides: Value | None
    ) -> Self:
        """As the study below; in an IPython shell what it gives shows itself, whether or not `show` is imported."""
        if "IPython" in sys.modules and sys.modules["IPython"].get_ipython():
            import_module("evalkit.show")
        return super().open(name, root=root, run=run, **overrides)

    @cached_property
    def benchmark(self) -> Benchmark:
        """The benchmark behind the methods below: test set, journals, scoring."""
        from evalkit.benchmark.benchmark import Benchmark

        return Benchmark(study=self, margin=self.margin("benchmark"))

    def answers(self, role: Literal["base", "fine_tuned"]) -> list[EvalResult]:
        """One model's scored answers, from its journal.

        Raises:
            DesignError: Another role.
        """
        need_one_of(("base", "fine_tuned"), "role", role)
        return self.benchmark.base if role == "base" else self.benchmark.fine_tuned

    def compare(self, *, ask: bool = False) -> Comparison:
        """Both models' answers, joined on the example and tested in pairs.

        Args:
            ask: A study that is `live` may be asked what its journals lack; otherwise they are only read.

        Raises:
            DataError: A journal is not there and nothing may be asked.
        """
        if ask:  # what was asked once is what the other methods go on with
            vars(self)["benchmark"] = replace(self.benchmark, asks=True)
        return self.benchmark.compare()

    def checkpoints(self) -> dict[str, Comparison]:
        """The fine-tuned model and every further one the study names, each against base; p is adjusted for their number."""
        return self.benchmark.compared

    def checkup(self) -> Checkup:
        """The test set, examined: repeated rows, contradictions, leaks from training, thin slices, size."""
        return self._checkup

    @cached_property
    def _checkup(self) -> Checkup:
        from evalkit.benchmark import doctor

        return doctor.examine(
            self.benchmark.path,
            self.named_file(self.settings.train_file),
            slice_fields=self.benchmark.fields,
            cluster_field=self.settings.cluster_field or None,
            limit=self.settings.limit,
            memory=self.reports / doctor.MEMORY,
        )

    def costs(self) -> Costs:
        """What both models' answers took: tokens, time, money."""
        return self.benchmark.costs()

    def ask_twice(self, comparison: Comparison) -> NoiseFloor:
        """Asks both models twice, as many examples as `reask_n` says; without an endpoint it says so and goes on."""
        from evalkit.benchmark.noise import ask_twice

        said = self.settings
        return ask_twice(
            self.benchmark, comparison, self.run_folder(), n=said.reask_n, seed=said.seed
        )

    def explore(self, comparison: Comparison, noise: NoiseFloor | None = None) -> Explorer:
        """Steps through the examples in JupyterLab, checkpoints beside the two models; notes are kept in the run's folder."""
        from evalkit.show.explorer import Explorer

        said = self.settings
        further = self.checkpoints() if said.checkpoint_journals else {}
        return Explorer(
            comparison.pairs,
            metrics=tuple(comparison.tests),
            flaky=noise.marks if noise else {},
            notes_file=self.run_folder() / "notes.jsonl",
            others={k: one.pairs for k, one in further.items() if k != said.fine_tuned_model},
            lower_is_better=[k for k, one in comparison.tests.items() if one.lower_is_better],
        )

    @cached_property
    def _experiment(self) -> Experiment:
        """The A/B test behind the methods below: plan, log, reading."""
        from evalkit.abtest.experiment import Experiment

        return Experiment(study=self, margin=self.margin("ab_test"))

    def draft(self) -> ABPlan:
        """The A/B plan that the settings describe; nothing is locked by it."""
        return self._experiment.draft()

    def plan_differs(self) -> Sequence[Mapping[str, object]]:
        """What the study's settings say otherwise than its locked plan: `name`, `study`, `plan`; nothing before a lock."""
        return self._experiment.differs(self.plan())

    def lock(self, draft: ABPlan) -> tuple[ABPlan, str]:
        """Locks a plan that names its experiment; returns the plan in force, and what happened."""
        return self._experiment.settle(draft)

    def plan(self) -> lock.LockedPlan | NoReading:
        """The locked A/B plan with its amendments, or what is missing."""
        return self._experiment.plan()

    def simulate_users(self) -> str:
        """Fills the demo's log once: simulated users get recorded answers through the real router. Says what was done.

        Only where the settings ask for it (`simulate_users`), a plan is locked, and the log is a file of the study.
        """
        is_asked, benchmark = self.settings.simulate_users, self.benchmark
        answers = [benchmark.base, benchmark.fine_tuned] if is_asked else []
        told = self._experiment.simulate(answers)
        return told or "The log is read as it stands; nothing is simulated."

    def reading(self, plan: lock.LockedPlan | NoReading | None = None) -> Reading | NoReading:
        """The log as the plan allows it to be read, up to where outcomes begin; its `effect()` is a look, on record.

        Args:
            plan: What `plan()` gave; the locked one by default.
        """
        return self._experiment.reading(plan)

    def design_effect(self) -> float | None:
        """What the plan's `design_effect` would be by the control users in the study's log; None without such a log.

        It changes no plan: it is for the next one.
        """
        return self._experiment.design_effect()

    def ledger(self, kind: Literal["look"] = "look") -> pd.DataFrame:
        """A row a look at the A/B test, oldest first.

        Columns: `at` (UTC), `run` ("" by hand), `look` (missing for one not planned), `information` (share of the planned),
        users by variant, `effect_shown`, `verdict`, `experiment`, `plan_sha256`, the models, `simulated`.

        Raises:
            DesignError: Another kind.
        """
        need_one_of(("look",), "kind", kind)
        return lock.looks_frame(lock.read_looks(self.path(lock.LEDGER)))

    def gaps(self) -> Gaps:
        """What both models' answers still lack of the test set."""
        return self.benchmark.gaps()

    def round(self) -> StudyRound:
        """The rating round: drawn on the first call, opened as it is on every later one; votes already given are kept.

        None is drawn before raters are named, nor while answers are missing, unless `allow_incomplete` says so.
        """
        benchmark = self.benchmark
        return open_round(
            self,
            benchmark.base,
            benchmark.fine_tuned,
            bound_to=benchmark.bound_to,
            models=benchmark.models,
            stratify_by="".join(benchmark.fields[:1]),
            n_unanswered=self.gaps().n,
        )

    def simulate_votes(self, rating: StudyRound) -> None:
        """Lets the simulated raters of a demo's round finish and lock it; a round of people is left as it is."""
        from evalkit.human.rater import simulate_votes

        if rating.round and rating.simulated:
            expected = {str(one.example_id): one.expected for one in self.benchmark.base}
            simulate_votes(rating.round, expected, seed=self.settings.rating_seed)

    def rater(self, rating: StudyRound) -> object:
        """The rater for a notebook cell, for the code in the setting `rater`; a note where nobody sits, as in a run.

        Where several rate and no code is given, it is a note too: who runs all cells goes on to the answer.

        Raises:
            DesignError: The code is not on the round's list.
        """
        from evalkit.human.rater import in_jupyter, inline_rater
        from evalkit.show.human import no_rater

        if self.run or rating.round is None or not in_jupyter():
            return no_rater()
        batch, code = rating.round.batch, self.settings.rater
        is_known = code or batch.simulated or len(batch.raters) == 1
        return inline_rater(rating.round, code) if is_known else no_rater()

    def preference(self) -> Preference:
        """Everything the rating round says of the present answers; until it is locked how far it is, and no result."""
        from evalkit.human.preference import read_preference

        benchmark, bound_to = self.benchmark, self.benchmark.bound_to
        found = find_round(self, bound_to)
        if found:
            found.check()
        return read_preference(
            found,
            bound_to=bound_to,
            base_results=benchmark.base,
            ft_results=benchmark.fine_tuned,
            slice_fields=benchmark.fields,
            alpha=self.settings.alpha,
            power=self.settings.power,
            margin=self.margin("human"),
        )

    @cached_property
    def rules(self) -> Rules:
        """The rules of the decision: the study's own, or the defaults."""
        return Rules.of(self)

    def margin(self, layer: Literal["benchmark", "human", "ab_test"]) -> float | None:
        """The loss a layer may show where the study asks `no_worse`, rules_file included; None where it must be better."""
        asked = self.settings.question == "no_worse"
        return (asked and -self.rules.limit(layer)) or None

    @cached_property
    def _handed_on(self) -> Path:
        """Where chapters hand on what they found.

        Work by hand under other settings than the study's has a folder of its own, so that trying one turns no answer.
        """
        folder, own = self.run_folder(), settings_of(replace(self, overrides={}).given)
        now = ((name, getattr(self.settings, name)) for name in sorted(_TURNS))
        tried = [[name, said] for name, said in now if said != getattr(own, name)]
        if self.run or not tried:
            return folder
        return folder / f"tried-{hashlib.sha256(json.dumps(tried).encode()).hexdigest()[:8]}"

    def decide(self, *, rules: Rules | None = None) -> Decision:
        """Joins what the layers of this run have handed over into one decision.

        Args:
            rules: Other rules than the study's, to see what they would take: nothing is written.

        Raises:
            DataError: What a layer handed over is damaged, or a sealed file is not what the ledger knows.
            DesignError: Rules that are none.
        """
        if rules is None:
            history.refuse_changed(self)
        elif not isinstance(rules, Rules):
            given = type(rules).__name__
            raise DesignError(
                f"rules is a {given}; need Rules, such as dataclasses.replace(here.rules, fragile='warns')"
            )
        folder, rules = self._handed_on, rules or self.rules
        found, says = read_evidence(folder), concerns.declared(self.settings, rules)
        test_set = found["benchmark"].bound_to.get("test_set") if "benchmark" in found else None
        open_ = concerns.concerns(self, self.rules)
        told = {name for one in open_ for name in one.names}
        return decide(
            found,
            study=self.name,
            stage=self.settings.stage,
            rules=rules,
            against=history.results_against(self, folder),
            concerns=open_,
            declared=says,
            changed=concerns.changed_after_results(
                history.read(self), says, test_set=test_set, but=told
            ),
        )

    def history(self) -> history.History:
        """The runs of this study, and the row that this one would add."""
        return history.read_history(self, self._handed_on)

    def write(
        self,
        found: Comparison | Preference | Reading | NoReading | Decision,
        *,
        slices: SliceTable | None = None,
        noise: NoiseFloor | None = None,
        segments: Found | None = None,
    ) -> Evidence | Path | None:
        """Hands what a chapter found on to the decision, as a JSON file in the run's folder.

        A comparison with slices adds them, the noise floor and what the finder found to the file that the benchmark chapter
        wrote, and writes the regressed examples (`regressed.csv` for people, `regressed.jsonl` for programs). A decision
        also draws `summary.png`, for a chat message.

        Returns:
            The benchmark's record (None, and no file, when its chapter has not written it for these answers), else the file.

        Raises:
            DesignError: It is no result of a chapter.
        """
        from evalkit.abtest.experiment import ab_evidence
        from evalkit.abtest.reading import NoReading, Reading
        from evalkit.benchmark.benchmark import FILE
        from evalkit.benchmark.comparison import Comparison
        from evalkit.human.preference import Preference, human_evidence
        from evalkit.show.abtest import written as noted

        folder = self._handed_on
        if isinstance(found, Comparison):
            if slices is not None:
                return self._amended(found, slices, noise, segments)
            record = self._evidence(found)
            _written(record, folder / FILE)
            return record
        if isinstance(found, Preference):
            from evalkit.show.human import written

            said = {"models": self.benchmark.models, "bound_to": self.benchmark.bound_to}
            record = written(human_evidence(found, study=self.name, **said), found)
            return _written(record, folder / "preference.json")
        if isinstance(found, Decision):
            from evalkit.show import decision, verdict

            path = verdict.write(found, folder)
            title = self.settings.title or self.name
            decision.summary(found, path.with_name("summary.png"), title=title)
            return path
        if not isinstance(found, Reading | NoReading):
            raise DesignError(
                f"{type(found).__name__} is no result of a chapter; need what compare, preference, reading or decide gave"
            )
        differs = self._experiment.differs(found.plan)
        record = noted(ab_evidence(found, study=self.name, differs=differs), found)
        return _written(record, folder / "ab_test.json")

    def _amended(
        self,
        found: Comparison,
        slices: SliceTable,
        noise: NoiseFloor | None,
        segments: Found | None,
    ) -> Evidence | None:
        from evalkit.benchmark.benchmark import FILE, amended
        from evalkit.benchmark.frames import write_examples
        from evalkit.show.comparison import settle

        path, marks = self._handed_on / FILE, noise.marks if noise else {}
        write_examples(found.regressed, marks, path.parent)
        record = amended(
            path,
            bound_to=self.benchmark.bound_to,
            slices=slices,
            noise=noise.to_dict() if noise and noise.n else None,
            noise_notes=noise.notes if noise else (),
            marks=marks,
            finder=(segments or found.find_slices()).to_dict(),
            settle=settle(found),
        )
        if record is not None:
            _written(record, path)
        return record

    def _evidence(self, found: Comparison) -> Evidence:
        from evalkit.benchmark.benchmark import evidence_of
        from evalkit.benchmark.slices import slice_table

        said, benchmark = self.settings, self.benchmark
        declared = replace(found.declared, models=benchmark.models, power=said.power)
        found = replace(found, declared=declared)  # what the study says, also of one's own
        fields, margin = benchmark.fields, said.slice_margin
        return evidence_of(
            found,
            study=self.name,
            costs=self.costs().by_model,
            slices=slice_table(found, fields=fields, margin=margin, power=said.power),
            bound_to=benchmark.bound_to,
            test_set_findings=self.checkup().counts(),
            own_code=benchmark.own_code,
        )


def _written(record: Evidence, path: Path) -> Path:
    """A layer's record on disk, with what is missing in words too, for people who open it."""
    from evalkit.show.lacking import written

    return record.write(path, missing=written(record.missing))
