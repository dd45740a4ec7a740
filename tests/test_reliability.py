"""What is changed by hand in a study that would ship: the rows of docs/reliability.md, each tried out here."""

import hashlib
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from evalkit import ledger
from evalkit.__main__ import main
from evalkit.abtest.experiment import Experiment
from evalkit.abtest.lock import Look, amend, lock, read_lock, record_look
from evalkit.decision import history
from evalkit.errors import DataError, DesignError
from evalkit.evidence import Evidence
from evalkit.files import canonical
from evalkit.human.batch import prepare_human_eval_batch
from evalkit.human.rater import Session
from evalkit.human.round import Round
from evalkit.records import EvalResult
from evalkit.report import manifest
from evalkit.report.gate import confirm, gate, verify
from evalkit.show import verdict as spoken
from evalkit.workbench import Study

DOC = Path(__file__).parents[1] / "docs/reliability.md"
SETTINGS = {
    "study": "tiny", "stage": "rollout", "experiment_name": "exp", "base_model": "old", "fine_tuned_model": "new",
    "expected_rate": 0.3, "detectable_difference": 0.4, "users_per_day": 100.0, "traffic_split": 0.5, "min_samples": 100,
    "rules_file": "rules.yaml", "raters": "ann", "train_file": "train.jsonl", "scorers": "mine.py:half",
}  # fmt: skip
BOUND = {"test_set": "t", "base": "b", "fine_tuned": "f"}
MODELS = {"base": "old", "fine_tuned": "new"}
FILES = {"benchmark": "comparison", "human": "preference", "ab_test": "ab_test"}
DETAILS = {
    "benchmark": {"noise_floor": {"n": 1}, "metrics": {"exact_match": {"test": {}}}},
    "human": {"round": "round1"},
    "ab_test": {"experiment": "exp"},
}
RUN = "202611{:02}T100000Z-0a0a0a0a"


class Project:
    """A study with a locked round of people, a locked plan and looks, and runs without notebooks."""

    def __init__(self, root, name="tiny"):
        self.root, self.name, self.folder = root, name, root / "data" / name
        self.folder.mkdir(parents=True)
        self.round_name = "round1"
        self.say()
        (self.folder / "rules.yaml").write_text("slice_worse: blocks\n")
        (self.folder / "mine.py").write_text("def half(example, text): return 0.5\n")
        (self.folder / "test.jsonl").write_text("1\n2\n3\n")
        self.journal.parent.mkdir()
        self.journal.write_text('{"kind": "evalkit-journal", "at": 1}\n{"text": "yes"}\n')
        self.draw()
        self.lock()
        self.plan_locked()
        self.look()

    def plan_locked(self):
        experiment = Experiment(study=self.home())
        lock(experiment.draft(), experiment.path)

    @property
    def plan(self):
        return self.folder / "plan.lock.json"

    @property
    def journal(self):
        return self.folder / "journals/base.jsonl"

    @property
    def round(self):
        return self.folder / "ratings" / self.round_name

    @property
    def ledger(self):
        return self.folder / ledger.FILE

    @property
    def head(self):
        return self.folder / ledger.HEAD

    def say(self, **settings):
        said = SETTINGS | {"study": self.name} | settings
        (self.folder / "study.yaml").write_text(yaml.safe_dump(said))

    def home(self, run=""):
        return Study.open(self.name, root=self.root, run=run)

    def draw(self, seed=7):
        base, tuned = (
            [EvalResult(i, f"q{i}", "x", f"{who} {i}", True, True) for i in range(10)]
            for who in ("base", "tuned")
        )
        options = {"seed": seed, "raters": ("ann",), "bound_to": BOUND, "models": MODELS}
        prepare_human_eval_batch(base, tuned, 10, folder=self.round, **options)

    def lock(self, liked="tuned"):
        session = Session(Round.open(self.round), "ann")
        while session.current:
            item = session.view()["item"]
            session.vote(item["id"], "left" if liked in item["left"] else "right", seconds=9.0)
        Round.open(self.round).lock()

    def look(self, **changes):
        plan = read_lock(self.plan)
        look = {"experiment": "exp", "plan_sha256": plan.sha256, "look": 1, "information": 1.0, "n_control": 100,
                "n_treatment": 100, "effect_shown": True, "verdict": "better", "control_model": "old",
                "treatment_model": "new", "simulated": False, "n_requests": 1000, "estimate": 0.1,
                "sum_control": 50.0, "sum_treatment": 60.0,
                "last_user": "2026-11-24T10:00:00+00:00"}  # fmt: skip
        record_look(self.ledger, Look(**look | changes))

    def run(self, day=1, *, worse=False, left_out=()):
        """One run with all its evidence; returns its decision."""
        home = self.home(RUN.format(day))
        folder = home.run_folder()
        (folder / "settings.json").write_text(json.dumps(dict(home.given)))
        for layer, file in FILES.items():
            said = "worse" if worse and layer == "benchmark" else "better"
            evidence(layer, said, self.name).write(folder / f"{file}.json")
        decision = home.decide()
        spoken.write(decision, folder)
        history.append_decision(home, folder)
        made = {"study": self.name, "run": folder.name, "failed": {}, "left_out": list(left_out),
                "ledger": ledger.read(self.ledger).head}  # fmt: skip
        (folder / manifest.FILE).write_text(json.dumps(made))
        (folder / "report.html").write_text(f"Ledger head <code>{made['ledger']}</code>")
        history.append(home, folder, made_at="2026-11-28T10:00:00+00:00", failed={}, left_out=left_out)  # fmt: skip
        return decision

    def reports(self, day=1):
        return self.root / "reports" / self.name / RUN.format(day)


def evidence(layer, verdict, study):
    effect = 0.1 if verdict == "better" else -0.1
    level = effect + (0.5 if layer == "human" else 0.0)
    primary = {"verdict": verdict, "n": 300, "estimate": level, "alpha": 0.05, "p_value": 0.01}
    return Evidence.of(
        {
            "layer": layer,
            "study": study,
            "made_at": "2026-11-28",
            "models": MODELS,
            "bound_to": BOUND,
            "simulated": False,
            "metric": layer,
            "unit": "items",
            "primary": primary | {"ci_low": level - 0.05, "ci_high": level + 0.05},
            "details": DETAILS[layer],
        }
    )


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path)
    assert made.run().verdict == "ship"
    assert gate("tiny", root=tmp_path).code == 0
    return made


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def rehashed(record):
    record["sha256"] = hashlib.sha256(canonical(record["plan"])).hexdigest()


def alpha_changed(project):
    def change(record):
        record["plan"]["alpha"] = 0.9
        rehashed(record)

    edit(project.plan, change)


def votes_flipped(project):
    path = project.round / "votes/ann.jsonl"
    text = path.read_text().replace('"left",', '"x",').replace('"right",', '"left",')
    path.write_text(text.replace('"x",', '"right",'))


def vote_edited(project):
    path = project.round / "votes/ann.jsonl"
    path.write_text(path.read_text().replace('"choice":"left"', '"choice":"tie"', 1))


def lines_doubled(project):
    path = project.round / "votes/ann.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")


def item_edited(project):
    edit(project.round / "batch.json", lambda record: record.update(question="Which is worse?"))


def whole_round_forged(project):
    """Votes flipped, and every hash in the round's own files made to fit."""
    votes_flipped(project)
    sha256 = ledger.sha256_of(project.round / "votes/ann.jsonl")
    edit(project.round / "lock.json", lambda record: record["votes"]["ann"].update(sha256=sha256))
    text = (project.round / "lock.json").read_bytes()
    line = {"locked_at": "2026-11-28", "lock_sha256": hashlib.sha256(text).hexdigest()}
    (project.round / "locks.jsonl").write_text(json.dumps(line) + "\n")


def amended_then(change):
    def act(project):
        amend(project.plan, "fewer users a day", users_per_day=80.0)
        project.look()
        assert project.run(2).verdict == "ship"
        edit(project.plan, change)

    return act


def another_studys_run(project):
    other = Project(project.root, "other")
    other.run(3)
    shutil.copytree(other.reports(3), project.reports(3))


def same_studys_run_renamed(project):
    shutil.copytree(project.reports(), project.reports(3))


def evidence_edited(project):
    edit(project.reports() / "preference.json", lambda record: record["primary"].update(n=3000))


def says_ship(project):
    project.run(2, worse=True)
    edit(project.reports(2) / "decision.json", lambda record: record.update(verdict="ship"))


def wholly_another_decision(project):
    project.run(2, worse=True)
    shutil.copy(project.reports() / "decision.json", project.reports(2) / "decision.json")


def clock_was_ahead(project):
    project.run(28)
    project.run(2, worse=True)


def last_run_removed(project):
    project.run(2, worse=True)
    shutil.rmtree(project.reports(2))


def called_partial(project):
    project.run(2, worse=True)
    edit(project.reports(2) / "manifest.json", lambda record: record.update(left_out=["01"]))


def cut(n):
    def act(project):
        lines = project.ledger.read_bytes().splitlines(keepends=True)
        project.ledger.write_bytes(b"".join(lines[:-n]))

    return act


def last_line(change):
    """The last line of a run that does not ship, changed: no line behind it tells."""

    def act(project):
        project.run(2, worse=True)
        lines = project.ledger.read_bytes().splitlines(keepends=True)
        record = json.loads(lines[-1])
        change(project, record["facts"])
        lines[-1] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        project.ledger.write_bytes(b"".join(lines))

    return act


def another_decision(project, facts, *names):
    for name in names or ("decision.json",):
        shutil.copy(project.reports() / name, project.reports(2) / name)
        facts["made"][name] = ledger.sha256_of(project.reports(2) / name)


def all_made_to_fit(project, facts):
    another_decision(project, facts, "comparison.json", "decision.json")


def exchanged(project):
    project.run(2, worse=True)
    kept = project.reports(1).rename(project.reports(9))
    project.reports(2).rename(project.reports(1))
    kept.rename(project.reports(2))


def key_turned(project):
    def turn(record):
        sides = record["fine_tuned_side"]
        record["fine_tuned_side"] = {one: "ab"["ba".index(side)] for one, side in sides.items()}

    edit(project.round / "key.json", turn)


def another_studys_round(project):
    other = Project(project.root, "other")
    shutil.rmtree(other.round)
    other.draw(seed=9)
    other.lock("base")
    shutil.rmtree(project.round)
    shutil.copytree(other.round, project.round)


def another_plan(project):
    other = Project(project.root, "other")
    another_experiment(other)
    shutil.copy(other.plan, project.plan)


def look_changed(change):
    def act(project):
        lines = project.ledger.read_bytes().splitlines(keepends=True)
        at = next(i for i, one in enumerate(lines) if b'"kind":"look"' in one)
        lines[at : at + 1] = change(lines[at])
        project.ledger.write_bytes(b"".join(lines))

    return act


BROKEN = {
    "one vote edited": (vote_edited, r"votes/ann\.jsonl: was sha256 \w+\.\.\. by line \d+ .*round locked.*, is sha256"),
    "vote lines doubled": (lines_doubled, r"votes/ann\.jsonl: was"),
    "a votes file deleted": (lambda p: (p.round / "votes/ann.jsonl").unlink(), r"votes/ann\.jsonl: was .* is gone"),
    "a batch item edited": (item_edited, r"batch\.json: was"),
    "votes, lock and record of locks forged together": (whole_round_forged, r"lock\.json: was"),
    "lock.json deleted": (lambda p: (p.round / "lock.json").unlink(), r"lock\.json: was .* is gone; .*lock it again"),
    "a whole round deleted": (lambda p: shutil.rmtree(p.round), r"batch\.json: was .* is gone"),
    "alpha changed in the plan, its own hash recomputed": (alpha_changed, r"plan\.lock\.json: was .*plan locked"),
    "locked_at backdated":
        (lambda p: edit(p.plan, lambda r: r.update(locked_at="2026-01-01T00:00:00+00:00")), r"plan\.lock\.json: was"),
    "the plan deleted": (lambda p: p.plan.unlink(), r"plan\.lock\.json: was .* is gone; .*lock it again"),
    "the only amendment deleted": (amended_then(lambda r: r["amendments"].clear()), r"plan\.lock\.json: was .*plan amended"),
    "an amendment's reason edited": (amended_then(lambda r: r["amendments"][0].update(reason="x")), r"plan\.lock\.json: was"),
    "a run folder of another study copied in": (another_studys_run, r"stands in no line of"),
    "an older run copied under a newer name": (same_studys_run_renamed, r"stands in no line of"),
    "an evidence file of a run edited": (evidence_edited, r"preference\.json: was sha256 .*\(run, "),
    "a decision that says ship over layers and a sentence that don't": (says_ship, r"decision\.json: was"),
    "the decision of an older run put into a newer one": (wholly_another_decision, r"decision\.json: was"),
    "the last run's folder removed": (last_run_removed, r"is gone|did not finish"),
    "a run called partial in its manifest": (called_partial, r"manifest\.json: was"),
    "the ledger deleted": (lambda p: p.ledger.unlink(), r"has not the head \w+\.\.\. that the run"),
    "the last lines of the ledger dropped": (cut(3), r"has not the head|stands in no line"),
    "the ledger emptied and a run's manifest deleted":
        (lambda p: [p.ledger.write_text(""), (p.reports() / "manifest.json").unlink()], r"manifest\.json: is gone"),
    "the last line of the ledger dropped": (cut(1), r"has not the head \w+\.\.\. that stands in ledger\.head"),
    "a look that was the last line dropped": (lambda p: [p.look(), cut(1)(p)], r"has not the head"),
    "the last line of the ledger without its line end":
        (lambda p: p.ledger.write_bytes(p.ledger.read_bytes()[:-1]), r"has not the head"),
    "the last line calls its complete run partial": (last_line(lambda p, f: f.update(left_out=["01"])), r"has not the head"),
    "the last line knows another decision": (last_line(another_decision), r"has not the head"),
    "the last line knows other evidence and its decision": (last_line(all_made_to_fit), r"has not the head"),
    "the last line holds no facts of a run": (last_line(lambda p, f: f.update(made=7, inputs=[1])), r"not a line of a ledger"),
    "the ledger written with other line ends":
        (lambda p: p.ledger.write_bytes(p.ledger.read_bytes().replace(b"\n", b"\r\n")), r"does not follow line 1"),
    "two runs' folders exchanged": (exchanged, r"comparison\.json: was .*decision\.json: was"),
    "the key of a round turned round": (key_turned, r"key\.json: was"),
    "the round of another study in its place": (another_studys_round, r"batch\.json: was .*lock\.json: was"),
    "the plan of another experiment in its place": (another_plan, r"plan\.lock\.json: was"),
    "a look dropped": (look_changed(lambda _: []), r"ledger\.jsonl:\d+: does not follow line"),
    "a look rewritten":
        (look_changed(lambda one: [one.replace(b'"better"', b'"worse"')]), r"ledger\.jsonl:\d+: does not follow"),
    "a look doubled": (look_changed(lambda one: [one, one]), r"ledger\.jsonl:\d+: follows the same line"),
    "two branches of the ledger merged":
        (look_changed(lambda one: [b"<<<<<<< HEAD\n", one, b"=======\n", one, b">>>>>>> b\n"]), r"a git merge of two branches"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_the_ledger_does_not_know_breaks_the_gate_and_verify(project, name):
    tamper, said = BROKEN[name]
    tamper(project)
    found = gate("tiny", root=project.root)
    assert (found.code, bool(re.search(said, found.sentence))) == (12, True), found.sentence
    if name not in GATE_ONLY:
        assert verify("tiny", root=project.root).code == 12


GATE_ONLY = {
    "the last run's folder removed"
}  # reports may be thrown away; only the gate needs the last


@pytest.mark.parametrize(
    "name",
    [one for one in BROKEN if ("run" not in one and "decision" not in one) or "last line" in one],
)
def test_and_no_further_run_decides(project, name):
    BROKEN[name][0](project)
    with pytest.raises(DataError):
        project.run(5)


@pytest.mark.parametrize("name", ["one vote edited", "lock.json deleted"])
def test_chapter_4_refuses_a_round_and_chapter_6_a_plan(project, name):
    BROKEN[name][0](project)
    with pytest.raises(DataError, match=r"by line \d+ of the ledger"):
        Round.open(project.round).check()
    alpha_changed(project)
    with pytest.raises(DataError, match=r"plan\.lock\.json: was"):
        Experiment(study=project.home()).plan()


def another_metric_locked(project):
    project.plan.unlink()
    project.say(ab_metric="clicked")
    project.plan_locked()


def locked_again(project):
    (project.round / "lock.json").unlink()
    (project.round / "votes/ann.jsonl").unlink()
    project.lock("base")
    (project.round / "lock.json").unlink()
    (project.round / "votes/ann.jsonl").unlink()
    project.lock("tuned")


def drawn_again(project):
    shutil.rmtree(project.round)
    project.draw(seed=8)
    project.lock()


def another_round(project):
    project.round_name = "round2"
    project.say(rating_round="round2")
    project.draw(seed=8)
    project.lock()


def first_round_chosen(project):
    project.round_name = "round2"
    project.draw(seed=8)
    project.lock()


def another_experiment(project):
    project.plan.unlink()
    project.say(experiment_name="exp2")
    project.plan_locked()


def edited(name, old, new):
    def act(project):
        path = project.folder / name
        path.write_text(path.read_text().replace(old, new))

    return act


def loosened(text):
    return lambda project: (project.folder / "rules.yaml").write_text(text)


ALLOWED = {
    "a plan deleted and another locked after looks":
        (another_metric_locked, "A/B test", r"after looks under another one: 1, the first on"),
    "lock.json deleted, votes changed, locked again": (locked_again, "human rating", r"locked again with other votes"),
    "a round deleted and drawn again": (drawn_again, "human rating", r"was drawn 2 times"),
    "rules loosened after a result": (loosened("slice_worse: ignored"), "benchmark", r"slice_worse from blocks to ignored"),
    "a layer no longer needed after a result":
        (loosened("human_before_deployment: false"), "benchmark", r"human_before_deployment from true to false"),
    "a margin added after a result":
        (loosened("human_needs: not worse\nhuman_margin: 0.1"), "human rating", r"human_margin from 0.0 to 0.1 and human"),
    "a stage that needs fewer layers after a result":
        (lambda p: p.say(stage="pre_deploy"), "benchmark", r"stage from rollout to pre_deploy"),
    "alpha changed after a result": (lambda p: p.say(alpha=0.1), "benchmark", r"alpha from 0.05 to 0.1"),
    "another metric named after a result":
        (lambda p: p.say(primary_metric="format"), "benchmark", r"primary_metric from exact_match to format"),
    "the mark of simulated users deleted from the log":
        (lambda p: [p.look(simulated=True), p.look()], "A/B test", r"were marked as simulated on .*, and are not now"),
    "another round of people on the same answers":
        (another_round, "human rating", r"people had rated these answers before, in round1, which does not count"),
    "another experiment with the same models after looks":
        (another_experiment, "A/B test", r"these two models had been tested before: exp showed an effect"),
    "a test row edited after a result": (edited("test.jsonl", "2", "4"), "benchmark", r"test.jsonl is not what results"),
    "a test row taken out after a result": (edited("test.jsonl", "2\n", ""), "benchmark", r"test.jsonl is not what results"),
    "an answer edited in a journal":
        (edited("journals/base.jsonl", "yes", "no"), "benchmark", r"journals/base.jsonl is not what results"),
    "a scorer of one's own edited after a result": (edited("mine.py", "0.5", "1"), "benchmark", r"mine.py is not what"),
    "rows that cannot be used left out after a result":
        (lambda p: p.say(strict=False), "benchmark", r"strict from true to false"),
    "the training file no longer named after a result":
        (lambda p: p.say(train_file=""), "benchmark", r"train_file from train.jsonl to nothing"),
    "the first of two rounds chosen when both are locked":
        (first_round_chosen, "human rating", r"people had rated these answers in round2 as well, which does not count"),
    "fewer rows of the test set after a result": (lambda p: p.say(limit=2), "benchmark", r"limit from 0 to 2"),
    "the latest users taken out of the log, and others put in":
        (lambda p: p.look(last_user="2026-11-20T10:00:00+00:00"), "A/B test", r"last user .*11-24 10:00 .*11-20"),
    "rows deleted from the log": (lambda p: p.look(n_requests=900), "A/B test", r"the log held 1,000 requests .* and 900"),
    "outcomes of both variants edited alike in the log":
        (lambda p: p.look(sum_control=60.0, sum_treatment=70.0), "A/B test", r"look 1 rests on other outcomes"),
    "outcomes edited in the log": (lambda p: p.look(estimate=0.2), "A/B test", r"look 1 showed another effect"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_what_may_have_a_reason_holds_until_it_is_given_and_is_told_for_ever(project, name):
    act, layer, said = ALLOWED[name]
    act(project)
    held = project.run(2)
    assert held.verdict == "not yet"
    assert (
        len([one for one in spoken.missing(held) if re.search(said, str(one), re.IGNORECASE)]) == 1
    )
    assert any(
        re.search(said, one["why"], re.IGNORECASE) and "evalkit confirm" in one["action"]
        for one in spoken.missing(held)
    )
    assert {one.name for one in held.layers if one.word == "not yet"} == {layer}
    assert gate("tiny", root=project.root).code == 11
    for nothing in (" ", "\u200b\u2800\x1b"):
        with pytest.raises(DesignError, match="give a reason"):
            confirm(project.home(), nothing)
    confirm(project.home(), "told to the board on 3 March")
    for day in (3, 4):
        decision = project.run(day)
        assert decision.verdict == "ship"
        told = [one for one in spoken.warnings(decision) if re.search(said, one, re.IGNORECASE)]
        assert [one.endswith("confirmed: told to the board on 3 March.") for one in told] == [True]
    with pytest.raises(DesignError, match="nothing is open"):
        confirm(project.home(), "again")


def test_what_only_grows_or_is_begun_anew_needs_no_reason(project):
    for path, line in ((project.folder / "test.jsonl", "5\n"), (project.journal, '{"text": "more"}\n')):  # fmt: skip
        with path.open("a") as file:
            file.write(line)
    assert project.run(2).verdict == "ship"
    project.journal.write_text('{"kind": "evalkit-journal", "at": 2}\n')
    assert project.run(3).verdict == "ship"
    (project.folder / "test.jsonl").write_text("9\n")
    assert project.run(4).verdict == "not yet"
    assert project.run(5).verdict == "not yet"
    confirm(project.home(), "a wrong label was mended")
    assert project.run(6).verdict == "ship"


def test_rules_loosened_between_a_benchmark_alone_and_the_first_decision_are_held(tmp_path):
    project = Project(tmp_path)
    home = project.home(RUN.format(1))
    evidence("benchmark", "better", "tiny").write(home.run_folder() / "comparison.json")
    history.append_decision(home, home.run_folder())
    history.append(home, home.run_folder(), made_at="2026-11-28", failed={}, left_out=["07"])
    loosened("slice_worse: ignored")(project)
    held = project.run(2)
    assert held.verdict == "not yet"
    assert "slice_worse from blocks to ignored" in str(spoken.missing(held))


def test_a_run_that_was_killed_does_not_break_the_record_for_ever(project):
    killed = project.reports(2)
    killed.mkdir()
    (killed / "settings.json").write_text("{}")
    assert verify("tiny", root=project.root).code == gate("tiny", root=project.root).code == 12
    assert project.run(3).verdict == "ship"
    found = verify("tiny", root=project.root)
    assert (found.code, "nothing rests on it" in str(found)) == (0, True)


def test_a_run_that_shipped_is_judged_by_name_with_what_the_newest_says(project):
    assert gate(str(project.reports()), root=project.root).judged == ""
    project.run(2, worse=True)
    found = gate(str(project.reports()), root=project.root)
    assert found.code == 0
    assert f"the newest complete run of tiny is {RUN.format(2)}: Don’t ship" in found.judged


def test_every_row_of_the_page_is_tried_and_every_trial_is_a_row():
    rows = re.findall(r"^\| ([^|]+?) \| (broken run|held)", DOC.read_text(), re.MULTILINE)
    tried = dict.fromkeys(BROKEN, "broken run") | dict.fromkeys(ALLOWED, "held")
    assert dict(rows) == tried | {"a plan or lock that no line of the ledger knows": "broken run"}


def test_tighter_rules_and_those_from_before_any_result_need_no_reason(project, tmp_path):
    (project.folder / "rules.yaml").write_text("slice_worse: blocks\nfragile: blocks\n")
    assert project.run(2).verdict == "ship"
    (project.folder / "rules.yaml").write_text("slice_worse: blocks\n")
    assert project.run(3).verdict == "ship"


def test_an_amendment_that_a_kill_kept_from_the_file_is_completed_when_it_is_made_again(project):
    before = project.plan.read_bytes()
    amended = amend(project.plan, "fewer users a day", users_per_day=80.0)
    project.plan.write_bytes(before)
    assert verify("tiny", root=project.root).code == 12
    assert amend(project.plan, "fewer users a day", users_per_day=80.0) == amended
    assert verify("tiny", root=project.root).code == 0
    assert project.run(2).verdict == "ship"


@pytest.mark.parametrize(
    ("then", "now", "verdict"),
    [
        ({}, {"slice_fields": "kind", "checker": "icd10cm", "slice_margin": 0.01}, "ship"),
        ({"slice_fields": "kind,who"}, {"slice_fields": "who"}, "not yet"),
        ({}, {"slice_margin": 0.2}, "not yet"),
        ({}, {"slice_margin": 0.0}, "not yet"),  # 0 asks for none, the easiest to keep
        ({"checker": "icd10cm"}, {}, "not yet"),
    ],
)
def test_asking_more_needs_no_reason_and_asking_less_does(tmp_path, then, now, verdict):
    project = Project(tmp_path)
    project.say(**then)
    assert project.run().verdict == "ship"
    project.say(**now)
    assert project.run(2).verdict == verdict


def test_the_ledgers_last_run_is_judged_whatever_the_clock_said(project):
    clock_was_ahead(project)
    found = gate("tiny", root=project.root)
    assert (found.code, RUN.format(2) in found.judged) == (10, True)


def test_a_lock_that_no_line_knows_is_broken_until_it_is_taken_up_with_a_reason(project):
    lines = project.ledger.read_bytes().splitlines(keepends=True)
    project.ledger.write_bytes(b"".join(lines[:2]))  # as in a ledger of another branch
    project.head.write_text(hashlib.sha256(lines[1].rstrip()).hexdigest())
    shutil.rmtree(project.root / "reports")
    with pytest.raises(DataError, match=r"plan\.lock\.json: stands in no line .* evalkit confirm"):
        project.run(2)
    confirm(project.home(), "locked on Ann's machine")
    decision = project.run(2)
    assert any("taken up on" in one and "Ann's machine" in one for one in spoken.warnings(decision))
    votes_flipped(project)
    with pytest.raises(DataError, match="by line 2"):
        project.run(3)


def test_a_head_that_is_gone_is_broken_until_a_reason_says_why_and_the_layer_tells_it(project):
    project.head.unlink()
    assert gate("tiny", root=project.root).code == verify("tiny", root=project.root).code == 12
    with pytest.raises(DataError, match=r"ledger\.head: is gone, .* evalkit confirm tiny"):
        project.run(2)
    with pytest.raises(DataError, match=r"ledger\.head: is gone"):
        project.look()
    confirm(project.home(), "the cache kept one of the two")
    decision = project.run(2)
    assert decision.verdict == "ship"
    assert any(
        "lines were dropped" in one and "the cache kept" in one for one in spoken.warnings(decision)
    )


def test_verify_says_what_is_intact_and_knows_the_heads_of_before(project, capsys, monkeypatch):
    report = project.reports() / "report.html"
    kept = shutil.copy(report, project.root / "kept.html")
    head = ledger.read(project.ledger).head
    project.run(2)
    found = verify("tiny", root=project.root, against=str(kept))
    assert found.code == 0, str(found)
    assert str(found).count("every file as the run left it") == 2
    assert "decision.json: ship, as its evidence makes it" in str(found)
    assert "what was before it is unchanged" in str(found)
    assert verify("tiny", root=project.root, against=head[:12]).code == 0
    assert verify("tiny", root=project.root, against="0" * 64).code == 12
    with pytest.raises(DesignError, match="need a head"):
        verify("tiny", root=project.root, against="nothing")
    kept.write_text(kept.read_text() + " ")
    assert "no run of the ledger has left a report" in str(verify("tiny", root=project.root, against=str(kept)))  # fmt: skip
    monkeypatch.chdir(project.root)
    (project.root / "notebooks").mkdir()
    assert main(["verify", "tiny"]) == 0
    assert capsys.readouterr().out.startswith("intact      ")
    assert main(["gate", "tiny"]) == 0
    assert f"evalkit: ledger head {found.head}" in capsys.readouterr().err
    alpha_changed(project)
    assert main(["verify", "tiny"]) == 12
    assert "NOT INTACT" in capsys.readouterr().out
    assert main(["confirm", "tiny", "a reason"]) == 1


def test_a_ledger_written_anew_is_shown_by_a_report_that_somebody_kept(project, tmp_path):
    kept = shutil.copy(project.reports() / "report.html", tmp_path / "kept.html")
    shutil.rmtree(project.root / "reports")
    project.ledger.unlink()
    project.head.unlink()
    alpha_changed(project)
    project.run(2)
    assert verify("tiny", root=project.root).code == 0  # who may write all of it can
    found = verify("tiny", root=project.root, against=str(kept))
    assert (found.code, "written anew" in str(found)) == (12, True)


def test_verify_makes_the_decision_again_from_its_evidence(project):
    folder = project.reports()
    edit(folder / "comparison.json", lambda record: record["primary"].update(p_value=0.9))
    lines = [json.loads(one) for one in project.ledger.read_text().splitlines()]
    lines[-1]["facts"]["made"]["comparison.json"] = ledger.sha256_of(folder / "comparison.json")
    project.ledger.write_text(
        "".join(json.dumps(one, sort_keys=True, separators=(",", ":")) + "\n" for one in lines)
    )
    found = verify("tiny", root=project.root)
    assert "its evidence makes another benchmark (p_value)" in str(found)
    assert found.code == 12


def test_a_seal_shows_who_wrote_the_lines(project, monkeypatch):
    monkeypatch.setenv(ledger.SEAL_KEY, "q7Vx-2Lr9-Kt4w-88Zp")
    project.run(2)
    n = len(ledger.read(project.ledger).lines)
    told = str(verify("tiny", root=project.root))
    assert "not written by the holder of EVALKIT_SEAL_KEY: line 1, 2, 3, 4, 5, 6, 7" in told
    monkeypatch.delenv(ledger.SEAL_KEY)
    found = verify("tiny", root=project.root)
    assert (found.code, "seals are not checked" in str(found), n > 7) == (0, True, True)


def test_three_looks_and_a_run_at_once_leave_one_chain(project):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: project.look(), range(9)))
    assert project.run(2).verdict == "ship"
    assert verify("tiny", root=project.root).code == 0
    assert asdict(Experiment(study=project.home()).plan())["locked_at"] <= datetime.now(UTC).isoformat()  # fmt: skip


@pytest.mark.parametrize(
    ("day", "said"),
    [
        ("2026-11-28", "1,000 requests on 2026-11-28 10:00 and 900 on 2026-11-28 11:30"),
        ("2026-11-29", "1,000 requests on 2026-11-28 10:00 and 900 on 2026-11-29 11:30"),
    ],
)
def test_a_log_that_shrank_within_a_day_is_told_with_its_times(project, day, said):
    project.look(at="2026-11-28T10:00:00+00:00")
    project.look(at=f"{day}T11:30:00+00:00", n_requests=900)
    assert any(said in one["why"] for one in spoken.missing(project.run(2)))
