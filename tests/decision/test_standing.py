"""Evidence against a model never vanishes: what nothing at the gate answers holds the decision, until it is retired."""

import pytest

from evalkit.decision import Rules, decide, read_decision
from evalkit.errors import DesignError
from evalkit.records import Against
from evalkit.show import verdict as spoken

LAYERS = ("benchmark", "human", "ab_test")
DETAILS = {
    "benchmark": {"noise_floor": {"n": 1}},
    "human": {"round": "round2"},
    "ab_test": {"experiment": "exp2"},
}
SOURCES = {"benchmark": "exact match", "human": "round1", "ab_test": "exp1"}
MODELS = {"base": "old", "fine_tuned": "new"}
STANDS = {
    "benchmark": "a benchmark result against this model stands",
    "human": "a human rating against this model stands",
    "ab_test": "an A/B result against this model stands",
}


def good(evidence, *layers):
    return {layer: evidence(layer, details=DETAILS[layer]) for layer in layers or LAYERS}


def result(layer, **changes):
    bound = {} if layer == "ab_test" else {"test_set": "t0", "base": "b0", "fine_tuned": "f0"}
    told = {"said": "worse by 0.8 points", "at": "2026-11-02T00:00:00+00:00", "bound_to": bound}
    fields = {"layer": layer, "source": SOURCES[layer], "models": MODELS, **told}
    return Against(**(fields | changes))


@pytest.mark.parametrize("stage", ["pre_deploy", "rollout"])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_result_against_the_model_holds_what_would_ship_at_every_stage(evidence, layer, stage):
    one = result(layer)
    assert decide(good(evidence), study="tiny", stage=stage).verdict == "ship"
    held = decide(good(evidence), study="tiny", stage=stage, against=[one])
    assert held.verdict == "not yet"
    assert spoken.headline(held).endswith(f", but {STANDS[layer]}.")
    (row,) = spoken.missing(held)
    assert (row["layer"], row["kind"]) == (layer, "stands_against")
    assert f"retired_evidence: {{{one.key}: why}}" in row["action"]
    assert "worse by 0.8 points" in row["why"]
    assert "2026-11-02" in row["why"]
    assert "no result stood against this model" in spoken.would_change(held)[0]


@pytest.mark.parametrize("layer", ["human", "ab_test"])
def test_it_holds_where_the_layer_hands_over_nothing_or_something_simulated(evidence, layer):
    lone = good(evidence, "benchmark") | {"human": evidence("human", details=DETAILS["human"])}
    lone.pop(layer, None)
    rules = Rules(human_before_deployment=False)
    assert decide(lone, study="tiny", rules=rules).verdict == "ship"
    assert decide(lone, study="tiny", rules=rules, against=[result(layer)]).verdict == "not yet"
    played = lone | {layer: evidence(layer, simulated=True)}
    told = decide(played, study="tiny", rules=rules, against=[result(layer)])
    assert told.verdict == "not yet"
    assert STANDS[layer] in spoken.headline(told)


@pytest.mark.parametrize("layer", LAYERS)
def test_it_is_retired_by_its_key_with_a_reason_that_is_printed(evidence, layer, tmp_path):
    one = result(layer)
    rules = Rules(retired_evidence={one.key: "that checkpoint is gone"})
    decision = decide(good(evidence), study="tiny", stage="rollout", rules=rules, against=[one])
    assert decision.verdict == "ship"
    (told,) = [warning for warning in spoken.warnings(decision) if "retired" in warning]
    assert "against this model" in told
    assert told.endswith("is retired: that checkpoint is gone.")
    assert f"Retired by this study: {one.key}, because: that checkpoint is gone." in spoken.rules(
        decision
    )
    spoken.write(decision, tmp_path)
    assert read_decision(tmp_path) == decision


def test_retired_evidence_stands_in_the_rules_file(tmp_path):
    (tmp_path / "rules.yaml").write_text(
        "retired_evidence: {human-1a2b3c4d: a checkpoint that is gone}"
    )
    rules = Rules.read(tmp_path / "rules.yaml")
    assert rules.retired_evidence == {"human-1a2b3c4d": "a checkpoint that is gone"}


def test_another_key_retires_nothing_and_a_reason_is_needed(evidence):
    rules = Rules(retired_evidence={result("human").key: "gone"})
    found = [result("human"), result("human", source="round0")]
    assert decide(good(evidence), study="tiny", rules=rules, against=found).verdict == "not yet"
    for without in ({"human-1a2b3c4d": ""}, {"human-1a2b3c4d": None}, ["human-1a2b3c4d"], "all"):
        with pytest.raises(DesignError, match="need a reason in words"):
            Rules(retired_evidence=without)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("layer", LAYERS)
def test_another_fine_tuned_model_is_not_held_unless_its_answers_are_the_same(evidence, layer):
    other = {"base": "old", "fine_tuned": "newer"}
    assert (
        decide(good(evidence), study="tiny", against=[result(layer, models=other)]).verdict
        == "ship"
    )
    renamed = result(layer, models=other, bound_to={"fine_tuned": "f1"})
    assert decide(good(evidence), study="tiny", against=[renamed]).verdict == "not yet"
    of_whom = result(layer, models={})
    assert decide(good(evidence), study="tiny", against=[of_whom]).verdict == "not yet"
    another_base = result(layer, models={"base": "older", "fine_tuned": "new"})
    assert decide(good(evidence), study="tiny", against=[another_base]).verdict == "not yet"


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (
            result("benchmark", bound_to={"test_set": "t1", "fine_tuned": "f0"}),
            "ship",
        ),  # asked again
        (result("benchmark", bound_to={"test_set": "t0", "fine_tuned": "f1"}), "not yet"),
        (result("benchmark", bound_to={"test_set": "t1"}, source="similarity"), "not yet"),
        (
            result("benchmark", bound_to={"test_set": "t1"}, models=MODELS | {"base": "weak"}),
            "not yet",
        ),
        # people were asked twice about the same answers: the first round is not taken back by the second
        (result("human", bound_to={"test_set": "t1", "base": "b1", "fine_tuned": "f1"}), "not yet"),
        (result("ab_test", source="exp2", replaced_by_later=True), "ship"),
        (result("ab_test", source="exp2"), "not yet"),  # a planned look had shown it
    ],
)
def test_only_the_same_question_asked_again_takes_a_result_back(evidence, one, verdict):
    assert decide(good(evidence), study="tiny", stage="rollout", against=[one]).verdict == verdict


def test_what_stands_at_the_gate_itself_is_not_said_twice(evidence):
    found = good(evidence) | {"ab_test": evidence("ab_test", "worse", details=DETAILS["ab_test"])}
    decision = decide(found, study="tiny", against=[result("ab_test", source="exp2")])
    assert decision.verdict == "don't ship"
    assert "stand" not in spoken.deck(decision) + spoken.headline(decision)


@pytest.mark.parametrize("layer", ["human", "ab_test"])
def test_stale_evidence_of_this_run_holds_where_it_speaks_against_and_else_only_does_not_count(
    evidence, layer
):
    others = evidence(layer).bound_to | {"fine_tuned": "f0"}
    rules = Rules(human_before_deployment=False)
    for verdict, expected in (("worse", "not yet"), ("better", "ship"), ("too early", "ship")):
        found = good(evidence, "benchmark") | {layer: evidence(layer, verdict, bound_to=others)}
        decision = decide(found, study="tiny", rules=rules)
        assert decision.verdict == expected
        assert decision.layers[LAYERS.index(layer)].stale == "other_answers"
    simulated = evidence(layer, "worse", bound_to=others, simulated=True)
    assert (
        decide(good(evidence, "benchmark") | {layer: simulated}, study="tiny", rules=rules).verdict
        == "ship"
    )


@pytest.mark.parametrize("verdict", ["worse", "better"])
def test_users_never_saw_the_test_set_so_another_one_changes_nothing_of_what_they_showed(
    evidence, verdict
):
    users = evidence("ab_test", verdict, bound_to=evidence("ab_test").bound_to | {"test_set": "t0"})
    decision = decide(good(evidence) | {"ab_test": users}, study="tiny", stage="rollout")
    assert decision.verdict == {"worse": "don't ship", "better": "ship"}[verdict]


def test_without_a_plan_nothing_is_said_of_another_test_set_or_other_models(evidence):
    nobody = evidence(
        "ab_test", primary=None, metric="", models={"base": "control", "fine_tuned": "treatment"},
        bound_to={"test_set": "t0", "base": "b0", "fine_tuned": "f0"},
    )  # fmt: skip
    layer = decide(good(evidence) | {"ab_test": nobody}, study="tiny", stage="rollout").layers[2]
    assert (layer.verdict, layer.stale) == ("too early", "")
    assert "made for" not in spoken.reason(layer)


@pytest.mark.parametrize(("before", "held"), [([], "ship"), (["2026-11-01T00:00:00Z"], "not yet")])
def test_votes_given_again_after_a_lock_was_removed_do_not_settle_what_they_first_said(
    evidence, before, held
):
    details = {"round": "round1", "lock": {"locked_before": before} if before else {}}
    now = good(evidence, "benchmark") | {"human": evidence("human", details=details)}
    one = result("human", bound_to=dict(now["human"].bound_to))
    assert decide(now, study="tiny", against=[one]).verdict == held
    rules = Rules(retired_evidence={one.key: "closed too early by mistake"})
    assert decide(now, study="tiny", rules=rules, against=[one]).verdict == "ship"
