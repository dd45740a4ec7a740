import json
import re
from itertools import product

import pytest
from grammar import faults

from evalkit.decision import Rules, decide, read_decision, read_evidence
from evalkit.errors import DataError, DesignError
from evalkit.evidence import as_json
from evalkit.records import Missing, OpenSlice
from evalkit.show import verdict as spoken
from evalkit.wording import effect_text

VERDICTS = ("better", "worse", "no difference shown", "too early", "invalid")
STATES = [None, *((verdict, simulated) for verdict in VERDICTS for simulated in (False, True))]
GRAMMAR = re.compile(r"(Ship|Don’t ship|Not yet) this version: [^,.A-Z].+\.\Z")
SLICE = {"slice": "kind = multi", "n": 96, "estimate": -0.0625, "ci_low": -0.13, "ci_high": -0.02}


def passes(state):
    return state == ("better", False)


def fails(state):
    return state == ("worse", False)


@pytest.mark.parametrize("stage", ["pre_deploy", "rollout"])
def test_every_combination_has_a_verdict_by_the_gate_and_a_sentence_by_the_grammar(evidence, stage):
    for benchmark, human, ab_test in product(
        [one for one in STATES if one != ("better", True)], STATES, STATES
    ):
        given = {"benchmark": benchmark, "human": human, "ab_test": ab_test}
        found = {
            name: evidence(name, state[0], simulated=state[1])
            for name, state in given.items()
            if state
        }
        decision = decide(found, study="tiny", stage=stage)
        needed = [benchmark, human] + ([ab_test] if stage == "rollout" else [])
        expected = (
            "don't ship"
            if any(map(fails, given.values()))
            else "ship"
            if all(map(passes, needed))
            else "not yet"
        )
        assert decision.verdict == expected, given
        assert GRAMMAR.match(spoken.headline(decision)), spoken.headline(decision)
        assert spoken.headline(decision).startswith(
            {"ship": "Ship", "don't ship": "Don’t", "not yet": "Not"}[expected]
        )
        assert not re.search(
            r"None|nan|\{|\}|  ", spoken.headline(decision) + spoken.deck(decision)
        ), spoken.deck(decision)
        told = spoken.headline(decision) + spoken.deck(decision) + str(spoken.missing(decision))
        assert not re.search(
            r"shows no (difference|preference)|(no gain|no difference)[^,]*, but", told
        ), told
        assert spoken.headline(decision).count(
            "no difference is shown"
        ) <= 1 or "in the" in spoken.headline(decision)
        assert len(decision.layers) == 3
        for text in (
            spoken.headline(decision),
            spoken.deck(decision),
            *spoken.warnings(decision),
            *spoken.would_change(decision),
        ):
            assert faults(text) == []
        if expected != "ship":
            assert spoken.missing(decision)
            assert spoken.would_change(decision)
            assert all(one["action"] and one["price"] for one in spoken.missing(decision))
        assert expected == "not yet" or "no difference is shown" not in spoken.headline(decision)
        json.dumps(decision.to_dict(), allow_nan=False)


def test_pre_deploy_ships_on_benchmark_and_people_alone(evidence):
    found = {name: evidence(name) for name in ("benchmark", "human")}
    assert decide(found, study="tiny").verdict == "ship"
    assert decide(found, study="tiny", stage="rollout").verdict == "not yet"


def test_without_people_nothing_is_deployed_unless_the_rules_say_so(evidence):
    found = {"benchmark": evidence("benchmark")}
    decision = decide(found, study="tiny")
    assert decision.verdict == "not yet"
    assert "no person has rated these answers" in spoken.headline(decision)
    assert decide(found, study="tiny", rules=Rules(human_before_deployment=False)).verdict == "ship"


@pytest.mark.parametrize("layer", ["benchmark", "human", "ab_test"])
def test_a_simulated_layer_never_leads_to_ship(evidence, layer):
    found = {
        name: evidence(name, simulated=name == layer) for name in ("benchmark", "human", "ab_test")
    }
    decision = decide(found, study="tiny", stage="rollout")
    assert decision.verdict == "not yet"
    assert "simulated" in spoken.headline(decision)
    assert decision.simulated == (layer,)


def test_a_slice_shown_worse_blocks_and_one_not_shown_safe_warns(evidence):
    human = evidence("human")
    worse = evidence(
        "benchmark",
        details={
            "slices": [SLICE | {"verdict": "worse", "safety": "not shown"}],
            "noise_floor": {"n": 1},
        },
    )
    blocked = decide({"benchmark": worse, "human": human}, study="tiny")
    assert blocked.verdict == "don't ship"
    assert spoken.headline(blocked).endswith("but it is worse by 6.2 points on “multi” examples.")
    unsafe = evidence(
        "benchmark",
        details={"slices": [SLICE | {"verdict": "no difference shown", "standing": "looks bad"}]},
    )
    warned = decide({"benchmark": unsafe, "human": human}, study="tiny")
    assert warned.verdict == "ship"
    assert spoken.warnings(warned)[0].startswith("“multi” examples look bad")


def test_a_slice_that_gained_and_is_doubted_says_why_and_what_it_would_cost(evidence):
    gained = {
        "slice": "lang = de", "n": 24, "verdict": "no difference shown", "estimate": 0.125, "gain": 0.125, "ci_low": -0.1,
        "ci_high": 0.35, "standing": "could not have been seen", "margin": 0.05, "chance_to_see": 0.12, "safety": "not shown",
    }  # fmt: skip
    few = OpenSlice(name="lang = de", n=24, estimate=0.125, shown_as="points", more=300)
    price = Missing(kind="open_slices", slices=(few,), chance=0.8)
    found = {"human": evidence("human")}
    details = {"slices": [gained], "noise_floor": {"n": 1}}
    found["benchmark"] = evidence("benchmark", details=details, missing=(price,))
    decision = decide(found, study="tiny")
    assert decision.verdict == "ship"
    assert spoken.headline(decision).endswith(
        "a loss on “de” examples is not ruled out: 12.5 points gained over only 24 examples."
    )
    assert [(one["word"], one["price"]) for one in spoken.missing(decision)] == [
        ("warns", "about 300 more examples")
    ]
    found["benchmark"] = evidence("benchmark", details=details)
    assert spoken.missing(decide(found, study="tiny"))[0]["price"].startswith(
        "no number of examples"
    )
    safe = details | {"slices": [gained | {"standing": "shown safe", "safety": "not worse"}]}
    found["benchmark"] = evidence("benchmark", details=safe, missing=(price,))
    assert spoken.missing(decide(found, study="tiny")) == []


def test_each_of_the_three_words_has_a_rule_and_says_what_it_means(evidence):
    found = {"human": evidence("human")}
    rows = [
        SLICE | {"verdict": "no difference shown", "standing": "shown safe", "safety": "not worse"},
        SLICE | {"slice": "kind = new", "verdict": "no difference shown", "standing": "looks bad"},
        SLICE
        | {
            "slice": "kind = rare",
            "verdict": "no difference shown",
            "standing": "could not have been seen",
            "margin": 0.1,
            "chance_to_see": 0.41,
        },
    ]
    found["benchmark"] = evidence("benchmark", details={"slices": rows, "noise_floor": {"n": 1}})
    decision = decide(found, study="tiny")
    assert decision.verdict == "ship"
    assert spoken.warnings(decision) == [
        "“new” examples look bad, 6.2 points lost over 96, though chance alone may do that.",
        "A loss of 10.0 points on “rare” examples could not have been seen: "
        "the test would have found it 4 times in 10.",
    ]
    levels = {"base": {"estimate": 0.5, "successes": 1}, "fine_tuned": {"estimate": 0.7}}
    details = {"slices": rows, "noise_floor": {"n": 1}, "metrics": {"exact_match": levels}}
    rows[1] |= {"base_rate": 0.5, "fine_tuned_rate": 0.4375}
    told = spoken.deck(
        decide(found | {"benchmark": evidence("benchmark", details=details)}, study="tiny")
    )
    looks = "goes from 50.0% to 43.8% of 96, which looks bad, though chance alone may do that."
    assert f"On “new” examples it {looks}" in told  # who reads the deck alone reads of the loss
    held = decide(found, study="tiny", rules=Rules(slice_looks_bad="holds"))
    assert held.verdict == "not yet"
    assert "“new” examples look bad" in spoken.headline(held)
    blocked = decide(found, study="tiny", rules=Rules(slice_could_not_be_seen="blocks"))
    assert blocked.verdict == "don't ship"


def test_a_difference_that_is_shown_never_reads_as_zero(evidence):
    # 70 of a million
    tiny = {"estimate": 7e-5, "ci_low": 4e-5, "ci_high": 1e-4}
    primary = as_json(evidence("benchmark").primary) | tiny
    decision = decide(
        {"benchmark": evidence("benchmark", primary=primary), "human": evidence("human")},
        study="tiny",
    )
    assert "0.0 points" not in spoken.headline(decision) + spoken.deck(decision)
    assert "better by 0.0070 points" in spoken.headline(decision)


def test_a_score_is_said_as_a_number_and_a_missing_interval_in_words(evidence):
    primary = as_json(evidence("benchmark").primary) | {"shown_as": "number", "estimate": 0.05}
    found = {
        "benchmark": evidence("benchmark", primary=primary, metric="similarity"),
        "human": evidence("human"),
    }
    decision = decide(found, study="tiny")
    assert "better by 0.050 in similarity" in spoken.headline(decision)
    assert "point" not in spoken.headline(decision)
    bare = primary | {"ci_low": None, "ci_high": None, "verdict": "no difference shown"}
    told = decide(
        {"benchmark": evidence("benchmark", primary=bare), "human": evidence("human")}, study="tiny"
    )
    assert "– to –" not in spoken.deck(told) + " ".join(effect_text(one) for one in told.layers)
    assert "interval undefined" in effect_text(told.layers[0])


@pytest.mark.parametrize(
    ("effect", "verdict"),
    [("blocks", "don't ship"), ("holds", "not yet"), ("warns", "ship"), ("ignored", "ship")],
)
def test_what_a_finding_does_is_a_rule(evidence, effect, verdict):
    found = {
        "benchmark": evidence("benchmark", details={"fragile": True, "noise_floor": {"n": 1}}),
        "human": evidence("human"),
    }
    decision = decide(found, study="tiny", rules=Rules(fragile=effect))
    assert decision.verdict == verdict
    assert bool(spoken.warnings(decision)) == (effect == "warns")


LEAKS = {"leak (exact)": 2, "leak (8-gram)": 1, "conflict": 1, "near-duplicate": 27}
RATERS = [
    {"rater": "anna", "flags": ["votes in under 3 s 98% of the time"]},
    {"rater": "ben", "flags": []},
]


def test_leaks_and_careless_raters_stand_beside_the_verdict(evidence):
    found = {
        "benchmark": evidence(
            "benchmark", details={"test_set_findings": LEAKS, "noise_floor": {"n": 1}}
        ),
        "human": evidence("human", details={"raters": RATERS}),
    }
    decision = decide(found, study="tiny")
    assert decision.verdict == "ship"
    assert spoken.headline(decision).endswith(
        "but the test set has 3 examples from the training file."
    )
    assert spoken.warnings(decision) == [
        "The test set has 3 examples from the training file.",
        "The test set has 1 prompt with different expected answers.",
        "1 of 2 raters looks careless: anna.",
    ]
    assert decide(found, study="tiny", rules=Rules(careless_raters="holds")).verdict == "not yet"
    blocked = decide(found, study="tiny", rules=Rules(careless_raters="blocks"))
    assert spoken.missing(blocked)[0]["why"] == "1 of 2 raters looks careless: anna"


def test_a_sound_test_set_and_careful_raters_bring_no_warning(evidence):
    found = {
        "benchmark": evidence(
            "benchmark",
            details={"test_set_findings": {"near-duplicate": 27}, "noise_floor": {"n": 1}},
        ),
        "human": evidence("human", details={"raters": RATERS[1:]}),
    }
    assert spoken.warnings(decide(found, study="tiny")) == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("test_set", "another test set"),
        ("base", "other answers of the base model"),
        ("fine_tuned", "other answers of the fine-tuned model"),
    ],
)
def test_last_months_votes_do_not_approve_tonights_checkpoint(evidence, name, told):
    votes = evidence("human", bound_to=evidence("human").bound_to | {name: "another"})
    decision = decide({"benchmark": evidence("benchmark"), "human": votes}, study="tiny")
    human = decision.layers[1]
    assert (decision.verdict, human.verdict, human.word) == ("not yet", "missing", "not yet")
    assert human.estimate is None
    assert spoken.reason(human) == f"The human rating was made for {told}."


def test_evidence_bound_to_nothing_counts_only_under_the_same_names(evidence):
    same = evidence("human", bound_to={})
    other = evidence("human", bound_to={}, models={"base": "old", "fine_tuned": "older"})
    assert (
        decide({"benchmark": evidence("benchmark"), "human": same}, study="tiny").verdict == "ship"
    )
    assert (
        decide({"benchmark": evidence("benchmark"), "human": other}, study="tiny").verdict
        == "not yet"
    )


@pytest.mark.parametrize(
    ("side", "told"),
    [
        ("fine_tuned", "The A/B test was made for another fine-tuned model, v1 instead of new."),
        ("base", "The A/B test was made for another base model, v1 instead of old."),
    ],
)
def test_users_of_another_model_do_not_approve_this_one_under_tonights_hashes(evidence, side, told):
    users = evidence("ab_test", models={"base": "old", "fine_tuned": "new"} | {side: "v1"})
    found = {"benchmark": evidence("benchmark"), "human": evidence("human"), "ab_test": users}
    decision = decide(found, study="tiny", stage="rollout")
    assert (decision.verdict, decision.layers[2].verdict, decision.layers[2].estimate) == (
        "not yet",
        "missing",
        None,
    )
    assert spoken.reason(decision.layers[2]) == told


def test_without_a_plan_or_names_nobody_is_said_to_have_tested_another_model(evidence):
    for models, metric in (({"base": "control", "fine_tuned": "treatment"}, ""), ({}, "accepted")):
        users = evidence("ab_test", "too early", models=models, metric=metric)
        decision = decide(
            {"benchmark": evidence("benchmark"), "ab_test": users}, study="tiny", stage="rollout"
        )
        assert decision.layers[2].verdict == "too early"


def test_not_worse_is_judged_by_the_interval_against_the_margin(evidence):
    # interval -3 to +7 points: safe within 5, not within 2
    found = {"benchmark": evidence("benchmark", "no difference shown"), "human": evidence("human")}
    safe = decide(
        found, study="tiny", rules=Rules(benchmark_needs="not worse", benchmark_margin=0.05)
    )
    assert (safe.verdict, safe.layers[0].verdict, safe.layers[0].limit) == (
        "ship",
        "not worse",
        -0.05,
    )
    unsafe = decide(
        found, study="tiny", rules=Rules(benchmark_needs="not worse", benchmark_margin=0.02)
    )
    assert (unsafe.verdict, unsafe.layers[0].verdict) == ("not yet", "not shown")


def test_a_guardrail_not_shown_holds_the_rollout(evidence):
    guard = {"name": "latency_ms", "verdict": "not shown"}
    found = {name: evidence(name) for name in ("benchmark", "human")}
    found["ab_test"] = evidence("ab_test", details={"guardrails": [guard]})
    decision = decide(found, study="tiny", stage="rollout")
    assert decision.verdict == "not yet"
    assert "guardrail latency_ms: not shown" in spoken.headline(decision)


def test_too_early_carries_no_effect_anywhere(evidence):
    found = {
        "benchmark": evidence("benchmark"),
        "human": evidence("human"),
        "ab_test": evidence("ab_test", "too early"),
    }
    layer = decide(found, study="tiny", stage="rollout").layers[2]
    assert (layer.estimate, layer.ci_low, layer.p_value) == (None, None, None)
    assert effect_text(layer) == "–"


def test_the_layers_own_price_is_kept(evidence):
    price = Missing(kind="more_examples", n=300, more=412, needed=712, chance=0.8)
    found = {
        "benchmark": evidence("benchmark", "no difference shown", missing=(price,)),
        "human": evidence("human"),
    }
    decision = decide(found, study="tiny")
    assert spoken.missing(decision)[0]["price"] == "about 412 more examples, 712 in all"
    assert (
        spoken.would_change(decision)[0] == "If the benchmark passed, the verdict would be “ship”."
    )


def test_a_decision_survives_its_file(evidence, tmp_path):
    for layer, file in (("benchmark", "comparison"), ("human", "preference")):
        evidence(layer, details={"slices": [SLICE | {"verdict": "worse"}]}).write(
            tmp_path / f"{file}.json"
        )
    decision = decide(read_evidence(tmp_path), study="tiny")
    spoken.write(decision, tmp_path)
    assert read_decision(tmp_path) == spoken.read(tmp_path)
    assert spoken.read(tmp_path).to_dict() == json.loads(json.dumps(decision.to_dict()))


def test_a_file_of_another_layer_is_refused(evidence, tmp_path):
    evidence("human").write(tmp_path / "comparison.json")
    with pytest.raises(DataError, match="holds the layer 'human'; need 'benchmark'"):
        read_evidence(tmp_path)


def test_an_unknown_stage_is_refused(evidence):
    with pytest.raises(DesignError, match="need pre_deploy or rollout"):
        decide({}, study="tiny", stage="canary")


def test_no_evidence_at_all_is_an_answer_not_an_error():
    decision = decide({}, study="tiny")
    assert decision.verdict == "not yet"
    assert spoken.headline(decision).startswith("Not yet this version: no benchmark has been run")


def test_where_no_loss_is_to_be_shown_the_price_of_ratings_is_that_of_ruling_it_out(evidence):
    asked = Rules.read(None, question="no_worse", margin=0.05)
    decision = decide({"benchmark": evidence("benchmark")}, study="tiny", rules=asked)
    # (1.960 + 0.842)^2 * 0.25 / 0.05^2 = 785
    told = "about 785 decided ratings to rule out a loss of 5 points where both are alike, 13.1 rater hours"
    assert told in str(spoken.missing(decision))
    better = decide({"benchmark": evidence("benchmark")}, study="tiny")
    assert "about 90 decided ratings to show a true 65%, 1.5 rater hours" in str(
        spoken.missing(better)
    )


@pytest.mark.parametrize(
    ("benchmark", "human", "told"),
    [
        (
            "no difference shown",
            "too early",
            "no difference is shown so far in the benchmark and the human rating cannot be read yet.",
        ),
        (
            "no difference shown",
            "no difference shown",
            "no difference is shown so far in the benchmark and no difference is shown so far in the human rating.",
        ),
        (
            "no difference shown",
            "invalid",
            "no difference is shown so far in the benchmark and the human rating is invalid.",
        ),
        (
            "too early",
            "too early",
            "the benchmark cannot be read yet and the human rating cannot be read yet.",
        ),
        (
            "better",
            "no difference shown",
            "better by 19.0 points in exact match, but no difference is shown so far in the human rating.",
        ),
    ],
)
def test_what_is_not_shown_is_said_once_and_never_as_no_difference(
    evidence, benchmark, human, told
):
    decision = decide(
        {"benchmark": evidence("benchmark", benchmark), "human": evidence("human", human)},
        study="tiny",
    )
    assert spoken.headline(decision) == f"Not yet this version: {told}"


LEVELS = {
    "exact_match": {
        "base": {"estimate": 0.044, "successes": 22},
        "fine_tuned": {"estimate": 0.234, "successes": 117},
    }
}
FALL = SLICE | {
    "n": 150,
    "estimate": -0.14,
    "base_rate": 0.14,
    "fine_tuned_rate": 0.0,
    "verdict": "worse",
}


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        ("better", "better, +19.0 points (95% interval +14.0 to +25.0)."),
        ("worse", "worse, −10.0 points (95% interval −15.0 to −5.0)."),
        ("no difference shown", "no difference shown, +2.0 points (95% interval −3.0 to +7.0)."),
    ],
)
def test_the_deck_gives_the_levels_then_the_difference(evidence, verdict, told):
    found = {
        "benchmark": evidence("benchmark", verdict, details={"metrics": LEVELS, "slices": [FALL]})
    }
    deck = spoken.deck(decide(found, study="tiny"))
    way = "goes" if verdict == "no difference shown" else "rises"
    assert deck.startswith(f"Exact match {way} from 4.4% to 23.4% of 300 examples: {told}")
    assert "On “multi” examples it falls from 14.0% to 0.0% of 150." in deck


def test_a_numeric_metric_has_levels_of_two_decimals(evidence):
    levels = {"similarity": {"base": {"estimate": 0.4567}, "fine_tuned": {"estimate": 0.4567}}}
    one = evidence(
        "benchmark", "no difference shown", metric="similarity", details={"metrics": levels}
    )
    assert "Similarity stays at 0.46 over 300 examples: no difference shown" in spoken.deck(
        decide({"benchmark": one}, study="tiny")
    )


@pytest.mark.parametrize(
    "metrics", [{}, {"exact_match": {"base": None}}, {"format": LEVELS["exact_match"]}]
)
def test_without_levels_the_deck_gives_the_difference(evidence, metrics):
    decision = decide(
        {"benchmark": evidence("benchmark", details={"metrics": metrics, "slices": [FALL]})},
        study="tiny",
    )
    deck = spoken.deck(decision)
    assert deck.startswith(
        "The benchmark, exact match over 300 examples: better, +19.0 points (95% interval +14.0 to +25.0). "
        "On “multi” examples it falls"
    )


def test_a_difference_not_shown_stands_with_its_interval(evidence):
    found = {"benchmark": evidence("benchmark", "no difference shown")}
    told = "The benchmark, exact match over 300 examples: no difference shown, +2.0 points (95% interval −3.0 to +7.0)."
    assert told in spoken.deck(decide(found, study="tiny"))


def test_people_without_a_preference_and_users_with_one_are_told_in_sentences(evidence):
    found = {
        "human": evidence("human", "no difference shown"),
        "ab_test": evidence("ab_test", metric="solved"),
    }
    decision = decide(
        found | {"benchmark": evidence("benchmark", "no difference shown")},
        study="tiny",
        stage="rollout",
    )
    assert "The human rating, win rate over 300 items: no difference shown, 52.0%" in spoken.deck(
        decision
    )
    assert "The A/B test, “solved” over 300 users: better, +19.0 points" in spoken.deck(decision)
    assert "better by 19.0 points in “solved” with users" in spoken.headline(decision)


def test_people_bring_a_list_of_metrics_of_their_own(evidence):
    people = evidence(
        "human", details={"metrics": [{"metric": "exact_match", "agrees": 12, "n": 20}]}
    )
    decision = decide({"benchmark": evidence("benchmark"), "human": people}, study="tiny")
    assert decision.verdict == "ship"
    assert "The human rating" in spoken.deck(decision)
