"""A study of one's own, with people and users that are no simulation, from the benchmark to the gate."""

import json
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import yaml

from evalkit.abtest.lock import lock
from evalkit.abtest.plan import ABPlan, Metric
from evalkit.answers.runner import run_automated_eval
from evalkit.human.rater import Session
from evalkit.human.round import Round
from evalkit.report import chain
from evalkit.report.gate import confirm, gate
from evalkit.study import Study

pytestmark = pytest.mark.slow
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
DAY_S = 86_400
STARTED = datetime(2026, 9, 1, tzinfo=UTC)
STUDY = {
    "study": "tickets", "title": "Tickets", "test_file": "test.jsonl", "train_file": "", "base_model": "v0",
    "fine_tuned_model": "v1", "base_journal": "v0.jsonl", "fine_tuned_journal": "v1.jsonl", "live": False, "max_tokens": 1024,
    "checker": "none", "scorers": "similarity", "slice_fields": "channel", "chance_field": "", "prices_file": "",
    "raters": "anna,ben", "sample_size": 40, "rubric_file": "", "simulate_raters": 0, "stage": "rollout", "rules_file": "",
    "experiment_name": "tickets-1", "control_model": "v0", "treatment_model": "v1", "traffic_split": 0.5, "ab_metric": "solved",
    "expected_rate": 0.6, "detectable_difference": 0.1, "users_per_day": 200.0, "outcome_window_days": 1, "looks": 1,
    "guardrails_file": "", "event_log": "log", "simulate_users": 0,
}  # fmt: skip
PLAN = ABPlan(
    experiment_name="tickets-1", control_model="v0", treatment_model="v1", traffic_split=0.5, users_per_day=200.0,
    primary=Metric(name="solved", expected=0.6, detectable_difference=0.1), outcome_window_days=1, looks=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Recorded answers of a model that is right on 9 of 10 tickets, and of one that is right on 4."""
    return _project(tmp_path_factory.mktemp("project"), solved=0.72)


def _project(root, *, solved):
    home = root / "data/tickets"
    home.mkdir(parents=True)
    (root / "notebooks").symlink_to(NOTEBOOKS)
    (home / "study.yaml").write_text(yaml.safe_dump(STUDY))
    rows = [
        {
            "id": f"t{n}",
            "metadata": {"channel": "mail" if n % 2 else "phone"},
            "messages": _turns(n),
        }
        for n in range(200)
    ]
    (home / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for model, right in (("v0", 4), ("v1", 9)):
        run_automated_eval(
            _answering(model, right),
            home / "test.jsonl",
            journal=home / f"{model}.jsonl",
            name=model,
            progress=False,
        )
    lock(PLAN, home / "plan.lock.json", now=STARTED)
    _traffic(home / "log", solved)
    return root


def _turns(number):
    return [
        {"role": "user", "content": f"ticket {number}"},
        {"role": "assistant", "content": f"label {number % 6}"},
    ]


def _answering(name, right):
    def model(messages):
        number = int(messages[-1]["content"].split()[-1])
        return (
            f"label {number % 6}"
            if number // 2 % 10 < right
            else f"another label for ticket {number}"
        )

    model.__name__ = name
    return model


def _traffic(folder, rate):
    """Three thousand users in fifteen days; 60% of control and `rate` of treatment have their ticket solved."""
    draw, exposures, outcomes = random.Random(1), [], []
    for user in range(3000):
        variant, at_s = (
            draw.choice(("control", "treatment")),
            STARTED.timestamp() + 3600 + user * 15 * DAY_S / 3000,
        )
        exposures.append({"request_id": f"r{user}", "experiment": "tickets-1", "user_id": f"u{user}", "variant": variant,
                          "at_s": at_s, "latency_ms": draw.uniform(80, 120), "outcome": "ok"})  # fmt: skip
        solved = float(draw.random() < (rate if variant == "treatment" else 0.6))
        outcomes.append({"outcome_id": f"o{user}", "experiment": "tickets-1", "request_id": f"r{user}", "user_id": f"u{user}",
                         "metric": "solved", "value": solved, "at_s": at_s + 600})  # fmt: skip
    folder.mkdir()
    pd.DataFrame(exposures).to_csv(folder / "exposures.csv", index=False)
    pd.DataFrame(outcomes).to_csv(folder / "outcomes.csv", index=False)


def _rate_everything(folder):
    """Two people prefer the right label."""
    round_ = Round.open(folder)
    for rater in ("anna", "ben"):
        session = Session(round_, rater)
        while session.current:
            item = session.view()["item"]
            left, right = ("another" not in item[side] for side in ("left", "right"))
            session.vote(
                item["id"], "tie" if left == right else "left" if left else "right", seconds=9.0
            )
    round_.lock()


def _run(project, **parameters):
    run = chain.run_study("tickets", root=project, parameters=parameters, say=lambda _: None)
    assert [one.error for one in run.chapters.values()] == [None] * 7
    return json.loads((run.folder / "decision.json").read_text())


def test_what_users_lost_stands_whatever_becomes_of_the_test_set_the_log_and_the_reports(tmp_path):
    root = _project(tmp_path, solved=0.48)
    home = root / "data/tickets"
    assert _run(root, stage="pre_deploy")["verdict"] == "don't ship"

    rows = (home / "test.jsonl").read_text().splitlines(keepends=True)
    (home / "test.jsonl").write_text("".join(rows[:-1]))  # as one would drop a near-duplicate
    again = {"stage": "pre_deploy", "rating_round": "round2"}
    decision = _run(root, **again)
    assert decision["verdict"] == "don't ship", decision["headline"]
    assert decision["layers"][2]["stale"] == ""
    assert gate("tickets", root=root).code == 10
    assert "test.jsonl" in decision["missing"][0]["why"], decision["missing"][0]
    confirm(Study.open("tickets", root=root), "a near-duplicate was dropped")

    _rate_everything(home / "ratings/round2")
    shutil.rmtree(home / "log")
    shutil.rmtree(root / "reports")
    decision = _run(root, **again)
    assert decision["headline"].endswith("but an A/B result against this model stands.")
    assert gate("tickets", root=root).code == 11


def test_benchmark_people_and_users_lead_to_the_gate(project):
    first = chain.run_study("tickets", root=project, say=lambda _: None)
    assert [one.error for one in first.chapters.values()] == [None] * 7
    assert json.loads((first.folder / "decision.json").read_text())["verdict"] == "not yet"
    _rate_everything(next((project / "data/tickets/ratings").iterdir()))

    second = chain.run_study("tickets", root=project, say=lambda _: None)
    assert [one.error for one in second.chapters.values()] == [None] * 7
    decision = json.loads((second.folder / "decision.json").read_text())
    assert decision["verdict"] == "ship", decision["headline"]
    assert decision["simulated"] == []
    assert gate("tickets", root=project).code == 0
    page = (second.folder / "report.html").read_text()
    assert 'class="ch simulated"' not in page
