"""What is declared after the results are known is told beside the verdict, however often the run is repeated."""

import json

import pytest

from evalkit.decision import Rules, decide, history, read_decision
from evalkit.decision.concerns import changed_after_results, declared
from evalkit.show import verdict as spoken
from evalkit.show.findings import changed
from evalkit.study import Settings
from evalkit.workbench import Study

FIRST = {"slice_fields": "kind,style", "primary_metric": "exact_match", "slice_margin": 0.05}


def row(at="2026-11-20T10:00:00Z", test_set="t1", metrics=("exact_match",), rules=None, **said):
    known = declared(Settings(**FIRST | said), rules or Rules())
    return {
        "run": at, "made_at": at, "bound_to": {"test_set": test_set}, "declared": known,
        "metrics": {name: {} for name in metrics},
    }  # fmt: skip


def told(rows, rules=None, **said):
    now = declared(Settings(**FIRST | said), rules or Rules())
    return changed_after_results(json.loads(json.dumps(rows)), now, test_set="t1")


def in_words(changes):
    return [changed(one) for one in changes]


@pytest.mark.parametrize(
    ("said", "clause"),
    [
        ({"slice_fields": ""}, "this was taken out of slice_fields: kind and style"),
        ({"slice_fields": "style"}, "this was taken out of slice_fields: kind"),
        (
            {"primary_metric": "similarity"},
            "this changed: primary_metric from exact_match to similarity",
        ),
        ({"slice_margin": 0.1}, "this changed: slice_margin from 0.05 to 0.1"),
        ({"slice_margin": 0.0}, "this changed: slice_margin from 0.05 to 0.0"),
        ({"metric_margin": 0.02}, "this changed: metric_margin from 0.0 to 0.02"),
        ({"alpha": 0.1}, "this changed: alpha from 0.05 to 0.1"),
        (
            {"lower_is_better": "similarity"},
            "this changed: lower_is_better from nothing to similarity",
        ),
        ({"rules": Rules(slice_worse="warns")}, "this changed: slice_worse from blocks to warns"),
        (
            {"rules": Rules(benchmark_needs="not worse")},
            "this changed: benchmark_needs from better to not worse",
        ),
        (
            {"rules": Rules(human_before_deployment=False)},
            "this changed: human_before_deployment from true to false",
        ),
    ],
)
def test_what_makes_it_easier_to_pass_is_told_with_both_values(said, clause):
    (found,) = in_words(told([row()], **said))
    assert found == f"after results were seen (2026-11-20) {clause}"
    # a second run of the same does not make it declared beforehand, nor does a trial before the bad run
    assert in_words(told([row(), row(**said)], **said)) == [found]
    assert in_words(told([row(**said), row()], **said)) == [found]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"slice_fields": "style, kind,more"},
        {"slice_margin": 0.02},
        {"alpha": 0.01},
        {"rules": Rules(slice_looks_bad="blocks", noise_not_measured="holds")},
    ],
)
def test_what_is_stricter_or_the_same_is_no_fault(said):
    assert told([row()], **said) == []


def test_a_fresh_test_set_and_a_run_without_results_hold_nothing_against_a_change():
    assert told([row(test_set="t2"), row(metrics=())], slice_fields="") == []
    now = declared(Settings(), Rules())
    assert changed_after_results([row()], now, test_set=None) == []


def test_rows_from_before_this_was_recorded_know_their_parameters_and_metric():
    old = {"made_at": "2026-11-01", "bound_to": {"test_set": "t1"}, "metrics": {"format": {}}}
    assert told([old]) == []
    assert in_words(told([old | {"primary": "format"}]))[0].endswith(
        "this changed: primary_metric from format to exact_match"
    )
    given = {"slice_fields": "lang", "limit": 5}
    assert in_words(told([old | {"parameters": given}]))[0].endswith(
        "taken out of slice_fields: lang"
    )


def test_it_stands_beside_the_verdict_on_the_first_screen(evidence, tmp_path):
    found = {one: evidence(one) for one in ("benchmark", "human")}
    after = told([row()], slice_fields="")
    known = declared(Settings(), Rules())
    decision = decide(found, study="tiny", changed=after, declared=known)
    assert decision.verdict == "ship"
    assert (
        "but after results were seen (2026-11-20) this was taken out of slice_fields: kind and style"
        in spoken.headline(decision)
    )
    assert (
        "After results were seen (2026-11-20) this was taken out of slice_fields: kind and style"
        in spoken.deck(decision)
    )
    assert (spoken.missing(decision)[0]["word"], spoken.missing(decision)[0]["why"]) == (
        "warns",
        changed(after[0]),
    )
    held = decide(found, study="tiny", changed=after, rules=Rules(declared_after_results="holds"))
    assert held.verdict == "not yet"
    lost = decide({"benchmark": evidence("benchmark", "worse")}, study="tiny", changed=after)
    assert "taken out of slice_fields" in spoken.deck(lost)
    spoken.write(decision, tmp_path)
    assert read_decision(tmp_path).declared == json.loads(json.dumps(known))


def test_a_study_that_empties_its_slices_after_a_run_is_told_from_its_own_history(
    evidence, tmp_path
):
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    file = tmp_path / "data/tiny/study.yaml"
    for night, fields in enumerate(["kind", "", ""]):
        file.write_text(f'study: tiny\nslice_fields: "{fields}"\n')
        run = f"20261128T1{night}0000Z-{night:08x}"
        home = Study.open("tiny", root=tmp_path, run=run)
        metrics = {"metrics": {"exact_match": {"test": {}}}}
        evidence("benchmark", details=metrics).write(home.run_folder() / "comparison.json")
        decision = home.decide()
        spoken.write(decision, home.run_folder())
        history.append(home, home.run_folder(), made_at=f"2026-11-28T1{night}:00:00Z", failed={})
        assert ("this was taken out of slice_fields: kind" in spoken.deck(decision)) is bool(night)
