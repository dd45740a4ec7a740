"""Names that a study gives are never taken for words of ours: what is decided follows kinds, not sentences."""

import pytest

from evalkit.decision import Rules, decide
from evalkit.show import verdict as spoken

NAMES = [
    "worse by 3 points", "made for", "no difference is shown so far", "simulated patients", "a (b", "not shown", "a: b",
    "this version",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_rater_who_is_called_worse_is_careless_and_no_loss(evidence, name):
    raters = [{"rater": name, "flags": ["fast"]}, {"rater": "ben", "flags": []}]
    found = {
        "benchmark": evidence("benchmark", details={"noise_floor": {"n": 1}}),
        "human": evidence("human", details={"raters": raters}),
    }
    decision = decide(found, study="tiny", rules=Rules(careless_raters="blocks"))
    assert (
        spoken.missing(decision)[0]["action"] == "Mend what blocks it, then repeat the human rating"
    )
    assert "it is 1 of 2" not in spoken.headline(decision) + spoken.deck(decision)


@pytest.mark.parametrize("name", NAMES)
def test_a_guardrail_that_is_called_like_a_verdict_keeps_its_own(evidence, name):
    found = {one: evidence(one) for one in ("benchmark", "human")}
    guards = {"guardrails": [{"name": name, "verdict": "not shown"}]}
    rules = Rules(guardrail_not_shown="blocks")
    held = decide(found | {"ab_test": evidence("ab_test", details=guards)}, study="x", rules=rules)
    assert spoken.missing(held)[0]["action"] == "Mend what blocks it, then repeat the A/B test"
    guards = {"guardrails": [{"name": name, "verdict": "worse"}]}
    lost = decide(found | {"ab_test": evidence("ab_test", details=guards)}, study="x")
    assert f"guardrail {name}: worse" in spoken.headline(lost)


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_called_like_our_sentences_hides_nothing_that_is_missing(evidence, name):
    found = {
        "benchmark": evidence("benchmark", metric=name),
        "human": evidence("human", "too early", metric=name),
    }
    decision = decide(found, study="tiny")
    assert spoken.headline(decision) == (
        f"Not yet this version: better by 19.0 points in {name}, but the human rating cannot be read yet."
    )


@pytest.mark.parametrize("stale", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_called_like_our_words_makes_evidence_neither_stale_nor_fresh(
    evidence, name, stale
):
    models = {"base": "old", "fine_tuned": name}
    users = evidence("ab_test", models=models | ({"fine_tuned": "other"} if stale else {}))
    found = {one: evidence(one, models=models) for one in ("benchmark", "human")}
    decision = decide(found | {"ab_test": users}, study="tiny", stage="rollout")
    assert (decision.layers[2].stale == "other_models") is stale
    assert (decision.verdict == "ship") is not stale
