import json
import math
import random
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Indel

from evalkit.answers import metrics, scoring
from evalkit.errors import DesignError, EvalkitError
from evalkit.records import Answer, EvalResult, Example

EXAMPLE = Example(
    example_id="a", messages=({"role": "user", "content": "note"},), expected="E11.65: x\n"
)


def result(i, expected="a", predicted="a", **more):
    exact = more.get("outcome", "ok") == "ok" and expected == predicted
    return EvalResult(i, f"q{i}", expected, predicted, exact, True, **more)


@pytest.mark.parametrize("code", ["I10", "E11.649", "S72.001A", "M1A.0110"])
def test_the_articles_regex_rejects_codes_that_the_icd10cm_checker_accepts(code):
    assert not scoring.check_format(f"{code}: description")
    assert scoring.checker("icd10cm")(f"{code}: description")


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("E11.65: Type 2 diabetes", True),
        ("  E11.65: x\nR07.0: y\n", True),  # stripped as a whole
        ("E11.65: x\n\nR07.0: y", False),  # a blank line
        ("E11.65: ", False),  # stripped, nothing stands after the colon
        ("", False),
        ("E11.65", False),
        ("e11.65: x", False),
    ],
)
def test_check_format_does_what_the_article_does(output, right):
    assert scoring.check_format(output) is right


@pytest.mark.parametrize(
    ("output", "right"),
    [("\n \n", False), ("I10\n\nE11.649: x", True), ("10: x", False), ("I10x", False)],
)
def test_the_icd10cm_checker_wants_a_code_on_every_line_that_is_not_blank(output, right):
    assert scoring.checker("icd10cm")(output) is right


def test_a_regex_must_match_the_whole_answer():
    check = scoring.checker(r"regex:\d+")
    assert (check(" 42 "), check("about 42"), check("42\n43")) == (True, False, False)


def test_a_schema_checks_json_and_nothing_is_fetched(tmp_path):
    schema = {"type": "object", "required": ["code"], "properties": {"code": {"type": "string"}}}
    (tmp_path / "s.json").write_text(json.dumps(schema), encoding="utf-8")
    check = scoring.checker("schema:s.json", folder=tmp_path)
    deep = "[" * 100_000
    assert [check(text) for text in ('{"code": "I10"}', '{"code": 1}', "I10", "", deep)] == [
        True,
        False,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("name", ["nonsense", "regex:", "regex:(", "schema:absent.json", "schema:"])
def test_an_unusable_checker_says_what_is_needed(name, tmp_path):
    with pytest.raises(EvalkitError, match="checker"):
        scoring.checker(name, folder=tmp_path)


def test_an_unknown_scorer_lists_those_there_are():
    with pytest.raises(DesignError, match="all_lines_present"):
        scoring.scorer("bleu")


def test_one_changed_character_in_400_costs_a_400th_not_half():
    # 2 * 399 / 800 = 0.9975; with autojunk on difflib says 0.50 or less for such texts
    text = "ab" * 200
    changed = text[:200] + "c" + text[201:]
    assert scoring.article_similarity(text, changed) == pytest.approx(0.9975)
    assert scoring.similarity(text, changed) == pytest.approx(0.9975)


def test_two_empty_texts_are_the_same():
    assert scoring.similarity("", "") == scoring.article_similarity("", "") == 1.0


@given(st.text(max_size=40), st.text(max_size=40))
def test_indel_similarity_is_never_below_the_articles(a, b):
    # both are 2M / T; Indel takes the longest common subsequence, difflib a greedy one
    assert scoring.similarity(a, b) >= scoring.article_similarity(a.strip(), b.strip()) - 1e-12


def test_expected_is_stripped_like_the_prediction():
    scored = scoring.score_answer(
        EXAMPLE, Answer(text=" E11.65: x ", outcome="ok"), scorers=("exact", "similarity")
    )
    assert scored.exact_match
    assert scored.format_correct
    assert scored.scores == {"exact": 1.0, "similarity": 1.0}


@pytest.mark.parametrize("outcome", ["error", "refused", "empty", "truncated"])
def test_every_outcome_but_ok_is_wrong(outcome):
    answer = Answer(text="E11.65: x", outcome=outcome)
    scored = scoring.score_answer(EXAMPLE, answer, scorers=("all_lines_present", "similarity"))
    assert not scored.exact_match
    assert not scored.format_correct
    assert scored.scores["all_lines_present"] == 0.0
    assert scored.scores["similarity"] == (
        1.0 if outcome == "truncated" else 0.0
    )  # cut off: its text still counts for something


def test_normalised_exact_levels_what_the_eye_does_not_see():
    composed = unicodedata.normalize("NFC", "Café\u200b  au lait")
    split = unicodedata.normalize("NFD", "café au LAIT")
    assert scoring.normalised_exact(composed, split)
    assert not scoring.exact(composed, split)


def test_all_lines_present_rewards_listing_everything():
    assert scoring.all_lines_present("A\nB", "C\nB\nA\nD")
    assert not scoring.all_lines_present("A\nB", "A")


@pytest.mark.parametrize("outcome", ["ok", "error"])
def test_where_no_form_is_checked_there_is_no_metric_of_it(outcome):
    scored = scoring.score_answer(EXAMPLE, Answer(text="x", outcome=outcome), checker="none")
    assert scored.format_correct is None
    assert metrics.metric_names([scored]) == ("exact_match", "similarity")
    found = metrics.compute_metrics([scored])
    assert (found.format_accuracy, list(found.by_metric)) == (None, ["exact_match", "similarity"])
    assert "format" not in str(found) + found._repr_html_()


def test_a_scorer_of_ones_own_may_find_nothing_to_say():
    scored = scoring.score_answer(
        EXAMPLE, Answer(text="x", outcome="ok"), scorers=(lambda expected, predicted: math.nan,)
    )
    assert list(scored.scores.values()) == [None]


def test_input_text_survives_short_rows_and_content_parts():
    assert scoring.input_text(()) == ""
    assert scoring.input_text(({"role": "system", "content": None},)) == ""
    assert (
        scoring.input_text(({"role": "user", "content": [{"type": "text", "text": "a"}]},)) == "a"
    )


def test_no_results_are_a_result():
    found = metrics.compute_metrics([])
    assert found.total_examples == 0
    rates = (
        found.exact_match_rate,
        found.format_accuracy,
        found.avg_similarity,
        found.min_similarity,
    )
    assert rates == (None, None, None, None)
    assert found.notes
    json.dumps(found.to_dict(), allow_nan=False)


def test_metrics_by_hand():
    # exact: 2 of 4; similarities 1, 1, 0.8 (2*2/5: "ab" of "abc"), 0 (error) -> 0.7
    results = [result(0), result(1), result(2, "abc", "ab"), result(3, "abc", "", outcome="error")]
    found = metrics.compute_metrics(results)
    assert found.total_examples == 4
    assert found.exact_match_rate == 0.5
    assert found.avg_similarity == pytest.approx(0.7)
    assert found.min_similarity == 0.0
    assert found.outcomes == {"ok": 3, "error": 1}
    wilson = found.by_metric["exact_match"]
    # Wilson 2/4: centre (0.5 + 1.92/4) / (1 + 3.84/4) = 0.5, half 0.3499
    assert (wilson.ci_low, wilson.ci_high) == pytest.approx((0.1500, 0.8500), abs=1e-3)


def test_samples_of_one_example_are_averaged_not_counted():
    # example 0: right in 1 of 4 samples, example 1: in all; (0.25 + 1) / 2 = 0.625 over 2 examples
    results = [result(0, predicted="a" if s == 0 else "b", sample=s) for s in range(4)] + [
        result(1, sample=s) for s in range(4)
    ]
    found = metrics.compute_metrics(results)
    assert (found.total_examples, found.total_answers, found.exact_match_rate) == (2, 8, 0.625)


def test_repeated_ids_stay_examples_of_their_own_and_are_told():
    found = metrics.compute_metrics([result(7), result(7), result(8)])
    assert found.total_examples == 3
    assert "more than once" in found.notes[0]


def test_long_texts_are_matched_piece_by_piece_and_never_beyond_the_similarity():
    draw = random.Random(5)
    one = "".join(draw.choices("abcdefgh ", k=40_000))
    for other in (
        one[:20_000] + "inserted " * 100 + one[20_000:],  # one place: exact
        "".join("x" if draw.random() < 0.05 else char for char in one),
        one[500:],
        one[:35_000],
    ):
        whole = Indel.normalized_similarity(one, other)
        assert whole - 0.06 <= scoring.similarity(one, other) <= whole + 1e-12
    assert scoring.similarity(one, one[:20_000] + "inserted " * 100 + one[20_000:]) == (
        pytest.approx(
            Indel.normalized_similarity(one, one[:20_000] + "inserted " * 100 + one[20_000:])
        )
    )
    assert scoring.similarity(one, one) == 1.0


def test_a_million_characters_take_no_second():
    draw = random.Random(5)
    one, other = ("".join(draw.choices("abcdefgh ", k=1_000_000)) for _ in range(2))
    began = time.process_time()
    assert 0.3 < scoring.similarity(one, other) < 1
    assert time.process_time() - began < 1.5
