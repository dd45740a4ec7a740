"""A decision's file has words for people beside its kinds and numbers; they are made afresh, and never read."""

import json
from pathlib import Path

import pytest

from evalkit.decision import Rules, decide, read_decision
from evalkit.decision.history import row_now
from evalkit.errors import DataError
from evalkit.records import Missing
from evalkit.show import verdict
from evalkit.show.lacking import in_words

SLICE = {"slice": "kind = multi", "n": 96, "estimate": -0.06, "ci_low": -0.1, "ci_high": -0.02}


@pytest.fixture
def file(evidence, tmp_path):
    lost = evidence("benchmark", details={"slices": [SLICE | {"verdict": "worse"}]})
    short = Missing(kind="more_ratings", n=60, needed=90, estimate=0.55, chance=0.8)
    open_ = evidence("human", "no difference shown", missing=(short,))
    decision = decide({"benchmark": lost, "human": open_}, study="tiny")
    return verdict.write(decision, tmp_path)


def edited(file, change):
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))
    return file.parent


def test_the_file_has_words_and_numbers_and_reads_back(file):
    found, decision = json.loads(file.read_text()), verdict.read(file.parent)
    assert found["headline"] == verdict.headline(decision)
    assert found["layers"][0]["reason"] == verdict.reason(decision.layers[0])
    assert found["layers"][0]["findings"][0]["text"] == "worse by 6.0 points on “multi” examples"
    price = "90 pairs, about 1.5 hours a rater at one a minute"
    (lacks,) = found["layers"][1]["missing"]
    assert (lacks["price"], lacks["needed"], lacks["kind"]) == (price, 90, "more_ratings")
    assert found["missing"][1]["price"] == price
    assert decision == read_decision(file.parent)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda found: found.update(headline="Don’t ship this version: all is well."), "headline"),
        (lambda found: found.update(deck="All is well."), "deck"),
        (lambda found: found["layers"][0].update(reason="All is well."), "layers"),
        (lambda found: found["layers"][1]["missing"][0].update(price="nothing"), "layers"),
        (lambda found: found["missing"][0].update(price="nothing"), "missing"),
        (lambda found: found.update(rules=[]), "rules"),
        (lambda found: found["layers"][0]["findings"][0].update(text="fine"), "layers"),
    ],
)
def test_a_word_that_its_numbers_do_not_make_is_refused(file, change, what):
    with pytest.raises(
        DataError, match=f"its .*{what}.* not what its numbers make; run its chapter"
    ):
        verdict.read(edited(file, change))


@pytest.mark.parametrize(
    ("number", "value", "said"),
    [
        ("estimate", [0.1], r"not a decision .*\$\.estimate.*findings\[0\]"),
        ("estimate", 1e308, "its numbers make no words"),
        ("slice", 7, r"not a decision .*\$\.slice"),
        ("gain", "much", r"not a decision .*\$\.gain"),
        ("if_worse", 1, r"not a decision .*\$\.if_worse"),
    ],
)
def test_numbers_that_make_no_words_are_a_damaged_file(file, number, value, said):
    def change(found):
        found["layers"][0]["findings"][0]["numbers"][number] = value

    with pytest.raises(DataError, match=rf"decision\.json: {said}.*; run its"):
        verdict.read(edited(file, change))


@pytest.mark.parametrize(
    "change", [lambda rows: rows.pop(), lambda rows: rows.reverse(), lambda rows: rows.clear()]
)
def test_a_decision_has_its_three_layers_in_order(file, change):
    with pytest.raises(DataError, match=r"holds the layers .*; need benchmark, human and ab_test;"):
        read_decision(edited(file, lambda found: change(found["layers"])))


@pytest.mark.parametrize("kind", ["plan_differs", "slices_warned", "more_examples"])
def test_something_missing_without_what_it_is_about_names_the_file(file, kind):
    def change(found):
        found["layers"][1]["missing"] = [{"kind": kind}]

    with pytest.raises(DataError, match=r"decision\.json: .*without its numbers; run its chapter"):
        verdict.read(edited(file, change))


def test_a_verdict_of_no_test_is_told_as_it_stands(evidence):
    decision = decide({"benchmark": evidence("benchmark", "{metric} {x}")}, study="tiny")
    assert verdict.reason(decision.layers[0]).startswith("The benchmark {metric} {x}")


@pytest.mark.parametrize("rules", [None, [7], "all", {"a": 1}])
def test_rules_that_are_no_sentences_are_refused_where_runs_are_compared(file, rules):
    folder = edited(file, lambda found: found.update(rules=rules))
    with pytest.raises(DataError, match=r"decision\.json: .*its rules.*; run its chapter again"):
        row_now(folder)


def of_an_earlier_version(found):
    for name in ("ruled_by", "sliced", "n_regressed"):
        del found[name]
    for layer in found["layers"]:
        words = ("action", "why", "price")
        layer["missing"] = [{name: one[name] for name in words} for one in layer["missing"]]


def test_a_file_of_an_earlier_version_is_read_as_far_as_its_numbers_go(file):
    folder = edited(file, of_an_earlier_version)
    decision = verdict.read(folder)
    assert verdict.headline(decision).startswith("Don’t ship this version: ")
    with pytest.raises(DataError, match="earlier version, without its numbers; run its chapter"):
        verdict.missing(decision)
    wrong = "Don’t ship this version: no gain is shown."
    edited(file, lambda found: found.update(headline=wrong))
    with pytest.raises(DataError, match=r"of an earlier version, .*; run its chapter again"):
        verdict.read(folder)
    assert verdict.read(folder, earlier=True) == decision


def test_a_headline_needs_only_the_numbers_that_it_tells(evidence, tmp_path):
    details = {"test_set_findings": {"conflict": 1}, "slices": [SLICE | {"verdict": "worse"}]}
    warned, human = evidence("benchmark", details=details), evidence("human")
    rules = Rules(slice_worse="warns")
    decision = decide({"benchmark": warned, "human": human}, study="tiny", rules=rules)
    folder = edited(verdict.write(decision, tmp_path), of_an_earlier_version)
    edited(folder / "decision.json", lambda one: one["layers"][0]["findings"][1].pop("numbers"))
    told = verdict.headline(verdict.read(folder))
    assert told.endswith("but 1 test prompt has different expected answers.")


@pytest.mark.parametrize("rule", ["noise_not_measured", "fragile"])
def test_what_is_told_without_numbers_needs_none_in_a_file_of_an_earlier_version(
    rule, evidence, tmp_path
):
    details = {"fragile": True, "noise_floor": {"n": 1} if rule == "fragile" else None}
    held = evidence("benchmark", details=details)
    rules = Rules(noise_not_measured="holds", fragile="holds" if rule == "fragile" else "ignored")
    decision = decide({"benchmark": held, "human": evidence("human")}, study="tiny", rules=rules)
    folder = edited(verdict.write(decision, tmp_path), of_an_earlier_version)
    edited(folder / "decision.json", lambda one: one["layers"][0]["findings"][0].pop("numbers"))
    assert verdict.headline(verdict.read(folder)) == verdict.headline(decision)


def test_words_of_an_earlier_version_are_not_words_of_this_one():
    with pytest.raises(DataError, match="run its chapter again"):
        in_words(Missing())
    with pytest.raises(DataError, match="run its chapter again"):
        in_words(Missing(kind="open_slices"))


def test_a_file_of_the_version_before_says_what_it_said():
    """It has words alone for what stands against, was changed after a result, or was made for other answers."""
    folder = Path(__file__).parent / "earlier"
    found, decision = json.loads((folder / "decision.json").read_text()), verdict.read(folder)
    words = (verdict.headline, verdict.deck, verdict.warnings, verdict.missing, verdict.rules)
    assert {one.__name__: one(decision) for one in words} == {
        one.__name__: found[one.__name__] for one in words
    }
    rules = {one.rule for layer in decision.layers for one in layer.findings}
    kinds = {"stands_against", "retired_evidence", "unconfirmed", "confirmed"}
    assert rules == kinds | {"declared_after_results"}
    assert decision.layers[1].stale == "other_answers"


@pytest.mark.parametrize(
    "change",
    [
        lambda layers: layers[1].pop("made_for"),
        lambda layers: layers[2]["findings"][1]["numbers"].pop("what"),
        lambda layers: layers[2]["missing"][0].pop("said"),
        lambda layers: layers[1].update(stale=""),
        lambda layers: layers[0].update(findings=7),
        lambda layers: layers.append(7),
    ],
)
def test_a_file_of_the_version_before_without_its_words_is_refused(change, tmp_path):
    path = tmp_path / "decision.json"
    path.write_text((Path(__file__).parent / "earlier/decision.json").read_text())
    with pytest.raises(DataError, match=r"decision\.json: .*; run its chapter again"):
        verdict.read(edited(path, lambda found: change(found["layers"])))
