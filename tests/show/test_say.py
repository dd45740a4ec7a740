from dataclasses import replace

import numpy as np
import pytest
from grammar import faults

from evalkit import show, stats, wording
from evalkit.benchmark.benchmark import Benchmark, Costs
from evalkit.benchmark.comparison import compare_many, compare_models
from evalkit.benchmark.doctor import examine
from evalkit.benchmark.frames import examples_frame
from evalkit.benchmark.noise import NoiseFloor
from evalkit.benchmark.slices import (
    find_slices,
    regression_frame,
    slice_table,
)
from evalkit.records import EvalResult
from evalkit.show import comparison as shown
from evalkit.show import doctor, regressions, table
from evalkit.study import Study

SENTENCES = {
    "rates title": shown.rates_title,
    "differences title": shown.differences_title,
    "cells title": shown.cells_title,
    "similarity title": shown.similarity_title,
    "scatter title": lambda found: regressions.scatter_title(found, "similarity"),
    "detectable": shown.detectable_title,
    "slices": lambda found: told_of_slices(slice_table(found, margin=0.05)),
    "spread": lambda found: shown.spread_title(found, "latency_ms"),
    "answer": lambda found: shown.answer_said(with_chance(found, 0.2)),
    "regressions": lambda found: regressions.answer_said(found.slices(), marked(found)),
    "settle": shown.settle,
    "asked": lambda found: show.asked(found).text,
    "chance": lambda found: shown.chance(with_chance(found, 0.2)),
    "footnotes": shown.footnotes,
    "wrong": shown.wrong,
    "accident": lambda found: wording.rewarded_by_accident(found.tests),
}
FIGURES = ["rates", "differences", "cells", "similarity", "scatter", "spread", "detectable"]


def told_of_slices(table):
    """What the figure of slices says to those who cannot see it."""
    each = [regressions.slice_sentence(row) for row in table]
    return " ".join([f"{regressions.slices_title(table)}.", *each])


def with_chance(found, rate):
    """The comparison of a study that declares this chance level."""
    return replace(found, declared=replace(found.declared, chance_rate=rate))


def marked(found):
    """A noise floor that was not measured: its regressions are counted all the same."""
    return NoiseFloor(marks={one.example_id: "not re-asked" for one in found.regressed})


def test_what_was_not_answered_is_not_called_answered(comparison_in):
    models = {"base": "old", "fine_tuned": "new"}
    whole, fragile = (
        replace(found, declared=replace(found.declared, models=models))
        for found in map(comparison_in, ("better", "fragile"))
    )
    assert show.asked(whole).text == "old against new on 100 examples both answered."
    assert show.asked(fragile).text == (
        "old against new on 100 examples both were asked. Counted as wrong: base 20 error; fine-tuned none."
    )


def test_what_was_sent_otherwise_is_said(comparison_in):
    sent = {"base": {"temperature": 0.0}, "fine_tuned": {"reasoning_effort": "low"}}
    found = comparison_in("better")
    told = show.asked(replace(found, declared=replace(found.declared, sent=sent))).text
    assert told.endswith(
        "Asked differently: temperature 0.0 of base, none of fine-tuned; reasoning effort none of base, low of fine-tuned."
    )


@pytest.mark.parametrize("name", FIGURES)
def test_the_words_for_those_who_cannot_see_are_whole_in_every_state(state, name):
    title, alt = getattr(show, name)(state[1]).text.split("\n")
    assert alt.startswith(f"{title}.")
    assert faults(alt) == []
    assert not any(word in alt for word in ("None", "nan", "  ", "..", " ,", "inf", "0.0000"))


@pytest.mark.parametrize("name", SENTENCES)
def test_every_sentence_is_whole_in_every_state(state, name):
    text = SENTENCES[name](state[1])
    assert faults(text) == []
    assert not any(
        word in text for word in ("None", "nan", "  ", "..", " ,", "inf", "0.0000", "significant")
    )
    assert text[0].isupper() or text[0].isdigit() or text.startswith("base against")


@pytest.mark.parametrize(
    ("state", "start"),
    [
        (
            "better",
            "The fine-tuned model is better on exact match: 25.0% to 60.0% over 100 examples, +35.0 points (95%",
        ),
        (
            "worse",
            "The fine-tuned model is worse on exact match: 60.0% to 25.0% over 100 examples, −35.0 points (95%",
        ),
        (
            "no difference shown",
            "No difference between the models is shown on exact match: 30.0% to 32.0%",
        ),
        ("no examples", "Nothing can be said: no example was answered by both models."),
    ],
)
def test_the_answer_says_the_verdict_of_the_test(comparison_in, state, start):
    assert shown.answer_said(comparison_in(state)).startswith(start)


def test_a_metric_known_of_no_example_is_said_to_be_so(comparison_in):
    unknown = stats.paired_mean_test([])
    found = replace(comparison_in("better"), primary=unknown, tests={"exact_match": unknown})
    assert (
        shown.answer_said(found) == "Nothing can be said: exact match is not known of any example."
    )
    assert shown.settle(found).startswith("Nothing was seen")


def test_no_difference_always_comes_with_its_interval(comparison_in):
    for text in (
        shown.answer_said(comparison_in("no difference shown")),
        wording.stated(stats.paired_binary_test(5, 3, 3, 5)),
    ):
        assert "95% interval" in text


def test_fragile_gives_both_results_in_one_sentence(comparison_in):
    text = shown.answer_said(comparison_in("fragile"))
    assert (
        "Fragile: the verdict changes when the 20 pairs with a failed call are left out: better, +20.0 points"
        in text
    )
    assert "with them, no difference shown, 0.0 points" in text


def test_the_margin_is_answered_in_its_own_words(comparison_in):
    assert "not worse" in shown.answer_said(comparison_in("better"))
    assert "not shown to be safe" in shown.answer_said(comparison_in("worse"))


def test_a_model_no_better_than_chance_is_told(comparison_in):
    assert "not above the 65.0%" in shown.answer_said(with_chance(comparison_in("better"), 0.65))
    assert "random" not in shown.answer_said(with_chance(comparison_in("better"), 0.1))


def test_what_it_takes_to_settle_is_a_number(comparison_in):
    found = comparison_in("no difference shown")
    needed = stats.examples_needed(0.12, 0.10)
    assert f"about {needed - 100:,} more examples" in shown.settle(found)
    assert "no number of examples" in shown.settle(comparison_in("identical"))


def test_what_it_takes_counts_from_the_examples_the_metric_is_known_of(comparison_in):
    known = stats.paired_binary_test(5, 3, 1, 1)  # 10 of the 100 examples
    found = replace(comparison_in("no difference shown"), primary=known)
    needed = stats.examples_to_settle(known)
    assert needed is not None
    assert f"about {needed - 10} more" in shown.settle(found)


def test_slices_that_lost_are_named_with_interval_and_adjusted_p(comparison_in):
    found = comparison_in("worse")
    text = regressions.answer_said(found.slices(), marked(found))
    assert text.startswith("40 examples got worse. Worse on “big” examples: exact match falls from")
    assert "over 90 examples (" in text
    assert "adjusted p" in text
    assert "asked again was not measured" in text
    # kind = small has 10 examples: it shows no p but its price
    assert "more “small” examples" in text


def test_slices_nobody_declared_are_not_said_to_be_no_worse(comparison_in):
    found = comparison_in("worse")
    slices = found.slices()
    undeclared = [replace(one, rows=(), others=()) for one in (slices, *slices.others)]
    for others in (undeclared[1:], []):
        told = regressions.answer_said(replace(undeclared[0], others=tuple(others)), marked(found))
        assert told.startswith("40 examples got worse. Whether")


def test_what_nobody_knows_a_metric_to_reward_is_not_said():
    assert (
        wording.rewarded_by_accident(["normalised_exact"]) == wording.rewarded_by_accident([]) == ""
    )
    assert wording.rewarded_by_accident(["normalised_exact", "similarity"]).endswith(
        "an answer, right or wrong."
    )


def test_ignoring_shared_sources_is_called_optimistic_only_where_it_is(comparison_in):
    found = comparison_in("no difference shown")
    beside, said = found.primary, []
    for factor in (0.5, 1.5):
        primary = replace(
            beside, p_value=beside.p_value / factor
        )  # the clustered p is larger, then smaller
        changed = replace(found, primary=primary, beside={"exact_match": beside})
        said.append("too optimistic" in shown.footnotes(changed))
    assert said == [True, False]


def test_the_notes_of_a_test_are_sentences(comparison_in):
    few = stats.paired_binary_test(20, 2, 1, 2)  # 3 examples decide, which the test notes
    said = shown.footnotes(replace(comparison_in("no difference shown"), primary=few))
    assert said.endswith(f" Only{few.notes[-1].removeprefix('only')}.")


def test_marks_are_counted():
    floor = NoiseFloor(
        marks={"a": "flips", "b": "stable", "c": "stable", "d": "not re-asked"}, n_gone=1
    )
    assert regressions.marks(floor) == (
        "Of 4 regressions: 1 flips, 2 stable and 1 not re-asked. Of the stable ones 1 are no regression on this machine."
    )


def test_an_outcome_that_counts_as_wrong_is_said(comparison_in):
    assert (
        shown.wrong(comparison_in("fragile")) == "Counted as wrong: base 20 error; fine-tuned none."
    )


def test_the_metric_table_names_the_primary_and_adjusts_the_rest(comparison_in):
    found = shown.metric_rows(comparison_in("better"))
    assert [row["Metric"] for row in found] == ["exact match (primary)", "format", "similarity"]
    assert [row["p"].endswith("adjusted") for row in found] == [False, True, True]


@pytest.mark.parametrize(
    ("metrics", "title"),
    [
        (["exact_match"], "Better in exact match"),
        (["exact_match", "format"], "Better in exact match and format"),
    ],
)
def test_titles_are_sentences(comparison_in, metrics, title):
    found = comparison_in("better")
    primary = found.tests["exact_match"]
    found = replace(found, tests=dict.fromkeys(metrics, primary), p_adjusted={})
    assert shown.differences_title(found).startswith(title)
    assert regressions.slices_title(slice_table(comparison_in("better"))).endswith(
        "1 of 2 slices is better"
    )
    none = regressions.slices_title(slice_table(comparison_in("no difference shown")))
    assert none == "No slice shown worse on exact match; none of 2 slices is better"


def test_the_table_of_slices_says_what_its_prices_buy(comparison_in):
    found = comparison_in("better")
    with_margin, without = (
        regressions.slices_caption(slice_table(found, margin=margin)) for margin in (0.05, None)
    )
    assert with_margin == (
        "Every slice, exact match (differences of rates in points); to settle it: shows it no worse than 5.0 points, or worse, "
        "with power 80% at the rates seen"
    )
    assert "shows the difference, with power 80%" in without


def test_small_slices_show_no_p_in_the_regression_either(comparison_in):
    frame = regression_frame(comparison_in("worse"), field="kind")
    found = regressions.regression_rows(
        stats.linear_probability_table(frame), stats.gee_odds_table(frame)
    )
    assert [row["term"] for row in found][1:] == [
        "Fine-tuned, kind = big", "Fine-tuned, kind = small", "Fine-tuned, kind = small against kind = big",
    ]  # fmt: skip
    assert [row["p"] == "n < 30" for row in found] == [False, False, True, True]


def test_the_example_table_marks_words_and_what_became_of_a_row_asked_again(comparison_in):
    found = comparison_in("worse")
    first = found.regressed[0].example_id
    frame = examples_frame(found.regressed, ("similarity",))
    marks = ["flips" if one == first else "regressed again" for one in frame["example_id"]]
    listed = regressions.frame_rows(frame.assign(asked_again=marks))
    assert len(listed) == len(found.regressed) == found.primary.regressed
    assert (listed[0]["Example"], listed[0]["Asked again"]) == (first, "flips")
    assert "<del>" in listed[0]["Base"].body
    assert "<ins>" in listed[0]["Fine-tuned"].body
    assert listed[0]["Similarity"] == "−1.00"  # similarity runs from 0 to 1


def test_long_texts_are_cut_in_tables(comparison_in):
    one = comparison_in("worse").regressed[0]
    long = replace(one, base=replace(one.base, predicted="x" * 5000))
    assert (
        len(regressions.frame_rows(examples_frame([long], ("similarity",)))[0]["Base"].text) < 900
    )


TABLES = {
    "examples": lambda c, s, n: show.examples(c.to_frame(by="example")),
    "slices": lambda c, s, n: table(regressions.slice_rows(s), caption=regressions.slices_title(s)),
    "metrics": lambda c, s, n: table(shown.metric_rows(c)),
    "comparison": lambda c, s, n: c,
    "metrics of one model": lambda c, s, n: c.base,
    "slice table": lambda c, s, n: show.slices(s),
    "noise": lambda c, s, n: show.note(f"{n} {regressions.marks(n)}"),
    "segments": lambda c, s, n: show.segments(find_slices(c, min_support=5)),
}


@pytest.mark.parametrize("name", TABLES)
def test_hostile_text_is_text_wherever_it_shows(hostile, name):
    html = TABLES[name](*hostile)._repr_html_()
    html.encode("utf-8")
    for danger in ("<script", "<img", "<svg onload", "\u202e", "\x00", "\x1b"):
        assert danger not in html


def test_a_doctors_findings_are_text_too(tmp_path):
    path = tmp_path / "<img src=x onerror=1>.jsonl"
    path.write_text('{"messages": [{"role": "<script>", "content": "x"}]}\n', encoding="utf-8")
    found = examine(path)
    html = show.checkup(found)._repr_html_()
    assert "<script" not in html
    assert "<img" not in html


def test_the_doctors_caption_counts_what_it_found(tmp_path):
    path = tmp_path / "test.jsonl"
    row = '"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    path.write_text(f'{{"id": 1, {row}{{"id": 2, {row}', encoding="utf-8")
    assert doctor.title(examine(path)).startswith("2 rows; found: duplicate 1 and size 1; ")


def test_costs_without_prices_are_a_dash(comparison_in, tmp_path):
    (tmp_path / "data/s").mkdir(parents=True)
    (tmp_path / "data/s/study.yaml").write_text("study: s\n")
    found = [one.base for one in comparison_in("better").pairs]
    benchmark = Benchmark(study=Study(name="s", root=tmp_path, overrides={"prices_file": ""}))
    cost = benchmark.cost("m", found)
    assert (cost["answers"], cost["money"], cost["prompt_tokens"]) == (100, None, None)
    assert show.costs(Costs(by_model={"base": cost})).text.split()[-2:] == ["–", "–"]


def test_training_is_spoken_of_only_as_searched():
    from evalkit.benchmark.doctor import Checkup, Finding

    def told(train, *kinds):
        found = tuple(Finding(kind=kind, lines=(1,)) for kind in kinds)
        return doctor.title(
            Checkup(path="x", n=50, findings=found, detectable={0.1: None}, slices={}, train=train)
        )

    assert told(None) == "50 rows; found: nothing; no training file was searched for leaks"
    assert told("t") == "50 rows; found: nothing; no leak from t found"
    assert told("t", "leak (exact)") == "50 rows; found: leak (exact) 1; leaks from t found"


def scored(values):
    return [
        EvalResult(
            i, "q", "a", "a", True, True, scores={"similarity": value}, slices={"kind": f"k{i % 2}"}
        )
        for i, value in enumerate(values)
    ]


def test_similarity_is_no_percentage():
    found = compare_models(
        scored([0.2, 0.4, 0.6] * 20), scored([0.3, 0.45, 0.7] * 20), primary_metric="similarity"
    )
    table_of = slice_table(found, margin=0.05)
    told = " ".join(
        [
            *(regressions.slice_sentence(row) for row in table_of),
            str(regressions.slice_rows(table_of)),
            shown.answer_said(found),
            shown.similarity_title(found),
            wording.stated(found.primary),
            shown.settle(found),
        ]
    )
    assert "%" not in told.replace("95% interval", "")
    assert "point" not in told
    assert "on similarity: 0.40 to 0.48" in told
    assert "better by 0.083 (95% interval +0.077 to +0.089" in told


def test_a_slice_says_what_its_test_could_have_seen(comparison_in):
    table_of = slice_table(comparison_in("no difference shown"), margin=0.1)
    told = {row.value: regressions.slice_verdict(row) for row in table_of}
    assert "would have found a loss of 10.0 points" in told["small"]
    assert "less than 1 time in 20" in told["small"]
    assert regressions.slice_sentence(table_of.rows[1]).startswith("kind = small, 10 examples: ")


def test_the_adjusted_p_is_said_where_several_models_were_compared(comparison_in):
    found = comparison_in("better")
    base, tuned = ([getattr(one, side) for one in found.pairs] for side in ("base", "fine_tuned"))
    several = compare_many(base, {"v1": tuned, "v2": base})
    assert "adjusted for 2 models compared" in shown.answer_said(several["v1"])
    assert shown.metric_rows(several["v1"])[0]["p"].endswith("adjusted")


def test_a_price_names_its_chance_and_how_to_test_again(comparison_in):
    told = shown.settle(comparison_in("no difference shown"))
    assert "4 times in 5" in told
    assert "fresh examples alone" in told
    assert "extension: true" in told


def timed(latencies, clusters=None):
    """An answer an example, all right; its latency as given."""
    return [
        EvalResult(
            i, "q", "a", "a", True, True, latency_ms=ms, cluster=clusters[i] if clusters else None
        )
        for i, ms in enumerate(latencies)
    ]


def test_two_equal_laws_of_latency_are_no_fall():
    # medians 90.7 and 88.5: the title once read "Median latency falls from 91 to 88 ms"
    draws = np.random.default_rng(3).lognormal(4.5, 0.5, (2, 200))
    assert np.median(draws[0]) - np.median(draws[1]) > 2
    found = compare_models(*(timed(one.tolist()) for one in draws))
    test = stats.paired_mean_test(draws[1] - draws[0], largest=None)
    title = shown.spread_title(found, "latency_ms")
    assert title.startswith(f"No difference in latency shown: {wording.signed(test.estimate)} ms")
    assert "95% interval" in title
    assert "Median (middle 90%): Base 92" in show.spread(found, "latency_ms").text


def test_a_shift_of_every_example_is_a_fall_whatever_the_spread_between_examples():
    # base 100 ... 1,090 ms; fine-tuned 12 ms (11 to 13) less on each: the paired difference is -12
    base = [100.0 + 10 * i for i in range(100)]
    tuned = [ms - 11 - i % 3 for i, ms in enumerate(base)]
    title = shown.spread_title(compare_models(timed(base), timed(tuned)), "latency_ms")
    assert title.startswith("Latency falls: −11.99 ms an answer (95% interval −12.15 to −11.83)")


def test_latency_that_sources_share_is_tested_by_source():
    # 6 sources of 30 alike: 4 up by 40, 2 down by 40 is what chance does with six coins
    clusters = [str(i // 30) for i in range(180)]
    tuned = [140.0 if i // 30 < 4 else 60.0 for i in range(180)]
    found = compare_models(timed([100.0] * 180, clusters), timed(tuned, clusters))
    assert shown.spread_title(found, "latency_ms").startswith("No difference in latency shown")


def test_similarity_and_nearness_claim_no_more_than_the_adjusted_test(comparison_in):
    found = comparison_in("no difference shown")
    assert regressions.scatter_title(found, "similarity").endswith(": no difference shown")
    # a raw p of .03 is .06 after Holm over two metrics: no figure may call it a shift
    adjusted = dict.fromkeys(found.p_adjusted, 0.06)
    shifted = replace(comparison_in("better"), p_adjusted=adjusted)
    assert shown.similarity_title(shifted).startswith("No difference in similarity shown")
