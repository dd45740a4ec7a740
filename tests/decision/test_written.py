"""A decision's file has words for people beside its kinds and numbers; they are made afresh, and never read."""

import json
from pathlib import Path

import pytest

from evalkit.decision import decide, read_decision
from evalkit.errors import DataError
from evalkit.records import Missing
from evalkit.show import verdict

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
    price = "90 pairs, about 1.5 hours a rater at 60 s a pair"
    (lacks,) = found["layers"][1]["missing"]
    assert (lacks["price"], lacks["needed"], lacks["kind"]) == (price, 90, "more_ratings")
    assert found["missing"][1]["price"] == price
    assert decision == read_decision(file.parent)


def test_words_are_made_afresh_whatever_stands_there(file):
    def reworded(found):
        found.update(headline="Don’t ship this version: all is well.", rules=[])
        found["layers"][0].update(reason="All is well.")

    assert verdict.read(edited(file, reworded)) == read_decision(file.parent)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.update(verdict="ship"),
        lambda found: found["layers"][0].update(word="passes"),
        lambda found: found["layers"][1].update(word="passes"),
        lambda found: found["layers"][0].update(verdict="no difference shown", findings=[]),
    ],
)
def test_a_verdict_that_its_layers_do_not_make_is_refused(file, change):
    with pytest.raises(DataError, match=r"decision\.json: says .*, and its layers make .*; run"):
        verdict.read(edited(file, change))


@pytest.mark.parametrize("headline", ["Ship this version: all is well.", "All is well.", None])
def test_a_headline_of_another_verdict_is_refused(file, headline):
    with pytest.raises(DataError, match=r"decision\.json: says .*, and its headline .*; run its"):
        read_decision(edited(file, lambda found: found.update(headline=headline)))


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


@pytest.mark.parametrize(
    "kind", ["plan_differs", "unconfirmed", "slices_warned", "nothing_of_ours"]
)
def test_something_missing_without_what_it_is_about_names_the_file(file, kind):
    def change(found):
        found["layers"][1]["missing"] = [{"kind": kind}]

    with pytest.raises(DataError, match=r"decision\.json: .*; run its chapter"):
        verdict.read(edited(file, change))


def test_a_verdict_of_no_test_is_told_as_it_stands(evidence):
    decision = decide({"benchmark": evidence("benchmark", "{metric} {x}")}, study="tiny")
    assert verdict.reason(decision.layers[0]).startswith("The benchmark {metric} {x}.")


def test_a_file_of_an_earlier_version_is_read_and_its_words_are_those_of_now(tmp_path):
    folder = Path(__file__).parent / "earlier"
    found, decision = json.loads((folder / "decision.json").read_text()), verdict.read(folder)
    rules = {one.rule for layer in decision.layers for one in layer.findings}
    assert {"stands_against", "retired_evidence", "unconfirmed", "confirmed"} <= rules
    assert decision.layers[1].stale == "other_answers"
    told = [(one["kind"], one["word"]) for one in verdict.missing(decision)]
    assert told == [(one["kind"], one["word"]) for one in found["missing"]]
    written = json.loads(verdict.write(decision, tmp_path).read_text())
    assert (written["verdict"], written["headline"]) == ("not yet", verdict.headline(decision))


def test_a_change_that_an_earlier_version_has_in_words_alone_is_told_in_them(tmp_path):
    path = tmp_path / "decision.json"
    path.write_text((Path(__file__).parent / "earlier/decision.json").read_text())

    def older(found):
        found["layers"][0]["findings"][2]["numbers"].pop("change")
        found["layers"][1].pop("differs")

    decision = verdict.read(edited(path, older))
    told = "After results were seen (run of 2026-11-06), slice_margin went from 0.05 to 0.1."
    assert told in verdict.warnings(decision)
    assert "The human rating was made for other answers." in verdict.deck(decision)

    def wordless(found):
        found["layers"][0]["findings"][2]["numbers"].pop("what")

    with pytest.raises(DataError, match=r"decision\.json: its numbers make no words .*; run its"):
        verdict.read(edited(path, wordless))


@pytest.mark.parametrize(
    "change",
    [
        lambda layers: layers[0]["findings"][0].pop("numbers"),
        lambda layers: layers[0]["missing"][0].pop("kind"),
        lambda layers: layers[0].update(findings=7),
        lambda layers: layers.append(7),
    ],
)
def test_a_file_without_its_kinds_and_numbers_is_refused(change, tmp_path):
    path = tmp_path / "decision.json"
    path.write_text((Path(__file__).parent / "earlier/decision.json").read_text())
    with pytest.raises(DataError, match=r"decision\.json: .*; run its chapter again"):
        verdict.read(edited(path, lambda found: change(found["layers"])))
