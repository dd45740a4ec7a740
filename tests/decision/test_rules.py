import pytest

from evalkit.decision import Rules, decide
from evalkit.errors import DataError, DesignError
from evalkit.show import verdict as spoken


def test_a_file_replaces_only_what_it_names(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("slice_worse: warns\nbenchmark_needs: not worse\nbenchmark_margin: 0.02\n")
    rules = Rules.read(path)
    assert (rules.slice_worse, rules.limit("benchmark"), rules.human_before_deployment) == (
        "warns",
        -0.02,
        True,
    )
    told = spoken.rules(decide({}, study="tiny", rules=rules))
    assert "not worse by more than 2 points" in told[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("slices_worse: warns", "no rule is called slices_worse"),
        ("slice_worse: shout", "need blocks or holds or warns or ignored"),
        ("human_before_deployment: maybe", "need true or false"),
        ("human_before_deployment: 1", "need true or false"),
        ("benchmark_margin: 5", "need a fraction"),
        ("benchmark_margin: true", "need a fraction"),
        ("benchmark_needs: best", "need better or not worse"),
    ],
)
def test_a_wrong_rule_is_refused_by_name(tmp_path, text, told):
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(DesignError, match=told):
        Rules.read(tmp_path / "rules.yaml")


def test_an_old_rule_is_understood_by_the_names_it_has_now(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("slice_not_shown_safe: holds\n")
    rules = Rules.read(path)
    assert (rules.slice_looks_bad, rules.slice_could_not_be_seen) == ("holds", "holds")
    path.write_text("slice_not_shown_safe: holds\nslice_looks_bad: warns\n")
    with pytest.raises(DesignError, match="remove slice_not_shown_safe"):
        Rules.read(path)


@pytest.mark.parametrize("text", ["- a\n- b", "a: [", "just words"])
def test_a_file_that_is_no_list_of_rules_is_refused(tmp_path, text):
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(DataError):
        Rules.read(tmp_path / "rules.yaml")


def test_every_rule_stands_in_the_report():
    told = " ".join(spoken.rules(decide({}, study="tiny", stage="rollout")))
    words = (
        "benchmark",
        "human rating",
        "A/B test",
        "slice",
        "metric",
        "failed calls",
        "noise",
        "guardrail",
        "simulated",
    )
    for word in (*words, "leaks", "careless"):
        assert word in told
