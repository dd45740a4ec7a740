"""A layer's evidence: a field for what code reads, and the rest kept as it is."""

import json
import re
from pathlib import Path

import pytest

from evalkit.errors import DataError
from evalkit.evidence import (
    ABDetails,
    BenchmarkDetails,
    Evidence,
    Level,
    ReportedMetric,
    ReportedTest,
    as_json,
    details_of,
)

HEAD = {
    "study": "s",
    "made_at": "2026-11-28",
    "models": {"base": "b", "fine_tuned": "f"},
    "bound_to": {"test_set": "t"},
    "simulated": False,
    "metric": "exact match",
    "unit": "examples",
    "missing": [],
}
TEST = {
    "estimate": 0.1,
    "n": 300,
    "ci_low": 0.05,
    "ci_high": 0.15,
    "verdict": "better",
    "p_value": 0.001,
    "lower_is_better": False,
    "method": "McNemar mid-p",
    "fixed": 40,
}
LEVEL = {name: TEST[name] for name in ("estimate", "n", "ci_low", "ci_high", "method")}
DETAILS = {
    "benchmark": {
        "metrics": {
            "exact_match": {"base": LEVEL | {"successes": 3}, "fine_tuned": None, "test": TEST}
        },
        "cells": {"fixed": 40, "regressed": 10},
        "slices": [],
        "marks": {"e1": "stable"},
    },
    "human": {"round": "r1", "raters": [{"rater": "ann", "flags": [], "votes": 4}], "votes": 4},
    "ab_test": {"experiment": "e", "looks": [TEST | {"look": 1, "looks": 4, "z_score": 4.1}]},
}


@pytest.mark.parametrize("layer", DETAILS)
def test_what_no_code_reads_stands_in_the_file_again_where_it_stood(layer, tmp_path):
    told = HEAD | {"layer": layer, "primary": TEST, "details": DETAILS[layer]}
    (path := tmp_path / "one.json").write_text(json.dumps(told))
    again = json.loads(Evidence.read(path).write(tmp_path / "again.json").read_text())

    def within(wanted, found):
        if isinstance(wanted, dict):
            return all(within(one, found[name]) for name, one in wanted.items())
        if isinstance(wanted, list):
            return all(within(*both) for both in zip(wanted, found, strict=True))
        return wanted == found

    assert within(told, again)
    assert "reported" not in path.with_name("again.json").read_text()


def test_code_reads_fields_and_a_field_that_is_unset_stands_in_no_file():
    found = Evidence.of(
        HEAD | {"layer": "benchmark", "primary": TEST, "details": DETAILS["benchmark"]}
    )
    metric = details_of({"benchmark": found}, BenchmarkDetails).metrics["exact_match"]
    assert (metric.levels, metric.is_rate, metric.test.verdict) == ((0.1, None), True, "better")
    assert (found.verdict, found.source) == ("better", "exact match")
    assert (found.primary.p_of_verdict, found.primary.shown_as or "points") == (0.001, "points")
    assert "shown_as" not in as_json(found.primary)
    assert details_of({"benchmark": found}, ABDetails) == ABDetails()


@pytest.mark.parametrize(
    ("numbers", "p_value"),
    [
        ({"p_value": 0.2}, 0.2),
        ({"p_value": 0.2, "p_decides": 0.6}, 0.6),
        ({"p_decides": None}, None),
    ],
)
def test_the_p_value_of_the_verdict_is_the_one_that_decides_where_a_file_tells_it(numbers, p_value):
    assert ReportedTest.of(numbers).p_of_verdict == p_value


def test_a_level_may_be_a_bare_number_as_older_files_have_it():
    bare = ReportedMetric.of({"base": 0.4, "fine_tuned": 0.5, "test": TEST})
    assert (bare.levels, bare.is_rate) == ((0.4, 0.5), False)
    assert ReportedMetric.of({"base": {"estimate": 0.4}}).base == Level(estimate=0.4)


@pytest.mark.parametrize(
    ("details", "place"),
    [
        ({"slices": [{"n": "many"}]}, r"\$\.details\.slices\[0\]\.n"),
        (
            {"metrics": {"exact_match": {"test": {"estimate": "0.1"}}}},
            r"\$\.details\.metrics.*\.test\.estimate",
        ),
        ({"cells": [1]}, r"\$\.details\.cells"),
        ([], r"\$\.details"),
    ],
)
def test_a_field_of_another_type_is_told_with_its_place(details, place, tmp_path):
    told = HEAD | {"layer": "benchmark", "primary": None, "details": details}
    (path := tmp_path / "comparison.json").write_text(json.dumps(told))
    with pytest.raises(
        DataError, match=rf"comparison\.json: not a record .*{place}.*; run its chapter again"
    ):
        Evidence.read(path)


def test_nobody_looks_into_what_is_only_reported():
    import evalkit

    package = Path(evalkit.__file__).parent
    text = "".join(one.read_text(encoding="utf-8") for one in package.rglob("*.py"))
    assert ".reported" in text  # it is written, and added to
    assert not re.findall(r"\.reported(\[|\.get\b)", text)


@pytest.mark.parametrize("layer", ["nothing", None, 3])
def test_a_layer_that_nobody_knows_is_no_evidence(layer):
    with pytest.raises(DataError, match=r"not a record of evidence \(.*\$\.layer"):
        Evidence.of(HEAD | {"layer": layer, "primary": None})


@pytest.mark.parametrize(
    ("one", "lacks"),
    [
        ({"kind": "more_examples", "n": 300, "needed": 900}, "more_examples lacks more"),
        ({"kind": "more_users", "n": 0, "more": 9}, "more_users lacks needed and days"),
        ({"kind": "open_slices"}, "open_slices lacks slices"),
    ],
)
def test_something_missing_without_a_number_it_needs_is_told_with_the_file(one, lacks, tmp_path):
    told = HEAD | {"layer": "benchmark", "primary": None, "missing": [one]}
    (path := tmp_path / "comparison.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match=rf"comparison\.json: .*{lacks}\); run its chapter again"):
        Evidence.read(path)
