import csv
import json
from dataclasses import replace

import pytest

from evalkit.benchmark import frames
from evalkit.benchmark.benchmark import FILE, amended, evidence_of
from evalkit.benchmark.comparison import compare_models
from evalkit.benchmark.slices import slice_table
from evalkit.evidence import Evidence, as_json
from evalkit.records import EvalResult, Missing
from evalkit.show.lacking import in_words

ABOUT = {
    "study": "small",
    "bound_to": {"test_set": "0"},
    "costs": {},
}


@pytest.fixture
def undecided(cells):
    return compare_models(*cells(20, 12, 8, 20, slices={"kind": "one"}))


def test_what_the_decision_reads_is_there_and_is_plain_json(undecided, tmp_path):
    path = evidence_of(undecided, **ABOUT).write(tmp_path / "comparison.json")
    found = Evidence.read(path)
    assert found.layer == "benchmark"
    assert found.primary.verdict == "no difference shown"
    wanted = {"metrics", "slices", "fragile", "noise_floor", "outcomes", "cells", "costs"}
    assert wanted <= as_json(found.details).keys()
    assert as_json(found.details.cells) == {
        "both_right": 20,
        "fixed": 12,
        "regressed": 8,
        "both_wrong": 20,
    }
    assert as_json(found.details.metrics["exact_match"]).keys() == {"base", "fine_tuned", "test"}


def test_an_open_question_has_a_price(undecided):
    # Connor: psi = 20/60, d = 4/60, 80% power
    import math

    psi, d = 20 / 60, 4 / 60
    n = math.ceil(((1.959964 * math.sqrt(psi) + 0.841621 * math.sqrt(psi - d * d)) / d) ** 2)
    missing = evidence_of(undecided, **ABOUT).missing[0]
    assert in_words(missing).price == f"about {n - 60:,} more examples, {n:,} in all"
    assert in_words(missing).why.endswith(
        "; the price shows it 4 times in 5, if the rates seen are the true ones; test fresh examples alone"
    )


def test_a_settled_question_has_none(cells):
    assert evidence_of(compare_models(*cells(20, 40, 2, 20)), **ABOUT).missing == ()


def test_no_examples_make_a_record_too(tmp_path):
    record = evidence_of(compare_models([], []), **ABOUT)
    found = Evidence.read(record.write(tmp_path / "comparison.json"))
    assert found.primary.verdict == "too early"
    assert in_words(found.missing[0]).price


def test_amending_twice_is_amending_once(undecided, tmp_path):
    path = evidence_of(undecided, **ABOUT).write(tmp_path / FILE)
    table = slice_table(undecided, margin=0.05)
    first = amended(path, bound_to=ABOUT["bound_to"], slices=table, noise=None, settle="x")
    first.write(path)
    again = amended(path, bound_to=ABOUT["bound_to"], slices=table, noise=None, settle="x")
    assert first == again == Evidence.read(path)
    assert [in_words(one).action for one in again.missing] == [
        "Answer more held-out examples",
        "Collect more examples with kind = one",
    ]
    assert again.details.slices[0].slice == "kind = one"
    assert as_json(again.details.cells)["fixed"] == 12  # what the first chapter wrote stays


def test_what_is_missing_is_told_by_its_kind_not_by_its_words(undecided, tmp_path):
    made = evidence_of(undecided, **ABOUT)
    like_ours = Missing(kind="slices_warned")
    path = replace(made, missing=(like_ours,)).write(tmp_path / FILE)
    table = slice_table(undecided, margin=0.05)
    for _ in range(2):
        again = amended(path, bound_to=ABOUT["bound_to"], slices=table, noise=None)
        assert again is not None
        again.write(path)
        assert [one.kind for one in again.missing] == ["slices_warned", "open_slices"]
        assert "kind = one" in in_words(again.missing[1]).action


def test_open_slices_are_one_line_and_rows_without_the_field_are_none_of_them(cells, tmp_path):
    kinds = ["one"] * 30 + ["two"] * 30 + ["three"] * 30 + ["four"] * 30 + [None] * 2
    base, tuned = cells(62, 20, 20, 20)
    mixed = [list(range(i, len(kinds), 11)) for i in range(11)]
    sides = []
    for side in (base, tuned):
        order = [place for part in mixed for place in part]
        sides.append(
            [
                replace(side[at], slices={"kind": kind} if kind else {})
                for at, kind in zip(order, kinds, strict=True)
            ]
        )
    found = compare_models(*sides)
    path = evidence_of(found, **ABOUT).write(tmp_path / FILE)
    table = slice_table(found, margin=0.05)
    assert sum(row.safety == "not shown" for row in table) == 5
    open_slices = amended(path, bound_to=ABOUT["bound_to"], slices=table, noise=None).missing[1:]
    assert len(open_slices) == 1
    assert "(not given)" not in str(open_slices)
    assert in_words(open_slices[0]).action.endswith(" and 1 more slice")
    worst, price = (
        min((row for row in table if row.n_to_settle), key=lambda row: row.estimate),
        in_words(open_slices[0]).price,
    )
    assert in_words(open_slices[0]).action.startswith(f"Collect more examples with {worst.slice}")
    assert price.startswith(f"about {worst.n_to_settle - worst.n:,}, about ")
    assert price.endswith("more examples; the rest stands in the table of slices")


def test_what_was_found_about_other_answers_is_not_added(undecided, tmp_path):
    path = evidence_of(undecided, **ABOUT).write(tmp_path / FILE)
    before, table = path.read_text(encoding="utf-8"), slice_table(undecided)
    assert amended(path, bound_to={"test_set": "1"}, slices=table, noise=None) is None
    assert (
        amended(tmp_path / "absent.json", bound_to=ABOUT["bound_to"], slices=table, noise=None)
        is None
    )
    assert path.read_text(encoding="utf-8") == before


HOSTILE = [
    "=1+1",
    "@x",
    "+1",
    "-1",
    "\t=1",
    "nul\x00esc\x1b",
    "\u202eabc",
    "half \ud83d",
    'line\nbreak,"quote"',
]


def test_files_for_people_run_no_formula_and_files_for_programs_are_raw(tmp_path):
    base = [EvalResult(i, text, "yes", "yes", True, True) for i, text in enumerate(HOSTILE)]
    tuned = [EvalResult(i, text, "yes", text, False, True) for i, text in enumerate(HOSTILE)]
    pairs = compare_models(base, tuned).regressed
    table, lines = frames.write_examples(pairs, {"0": "flips"}, tmp_path)
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(HOSTILE)
    assert all(row["fine_tuned"][:1] not in set("=+-@\t\r") for row in rows)
    assert not any("\x00" in cell or "\x1b" in cell for row in rows for cell in row.values())
    assert rows[0]["asked_again"] == "flips"
    raw = [json.loads(line) for line in lines.read_text(encoding="utf-8").split("\n") if line]
    assert [row["fine_tuned"] for row in raw] == HOSTILE
