import pandas as pd
import pytest

from evalkit import show

PAYLOADS = ["<script>x</script>", "<img src=x onerror=x>", "a\u202eb", '"><b>']


@pytest.mark.parametrize("text", PAYLOADS)
def test_whatever_stands_in_a_table_is_escaped(text):
    made = show.table([{text: text}], caption=text).body
    assert "<script" not in made
    assert "<img" not in made
    assert "<b>" not in made
    assert "\u202e" not in made.split("<tbody>")[1]


def test_numbers_go_right_without_being_told_and_undefined_is_a_dash():
    made = show.table(
        [{"name": "a", "n": 3764, "rate": 0.5}, {"name": "b", "n": 2, "rate": None}]
    ).body
    assert (
        '<td data-l="n" class="num"><bdi class="ek-text tex2jax_ignore mathjax_ignore">3,764</bdi></td>'
        in made
    )
    assert ">–<" in made
    assert '<th scope="row">' in made


def test_a_data_frame_reads_like_rows():
    rows = [{"slice": "multi", "n": 96}]
    assert show.table(pd.DataFrame(rows)).body == show.table(rows).body


def test_columns_choose_order_and_headings():
    made = show.table([{"a": 1, "b": 2, "c": 3}], columns={"c": "Third", "a": "First"})
    assert str(made) == "Third  First\n3      1"


def test_chips_stay_html_and_text_does_not():
    made = show.table([{"a": "<em>x</em>", "b": show.chip("worse")}]).body
    assert "<em>" not in made
    assert 'class="ek-chip-worse ek-verdict"' in made


def test_an_empty_table_says_so():
    assert ">None.<" in show.table([], columns={"a": "A"}).body


@pytest.mark.parametrize(
    ("word", "kind"),
    [("better", "better"), ("not worse", "better"), ("worse", "worse"), ("invalid", "worse"), ("too early", "unsure"),
     ("no difference shown", "unsure"), ("simulated", "simulated")],
)  # fmt: skip
def test_a_verdict_has_its_own_shape(word, kind):
    assert f"ek-chip-{kind}" in show.chip(word).body


def test_sentences_are_escaped_and_plain_in_a_terminal():
    assert str(show.answer("Better by 5.0 points.")) == "Better by 5.0 points."
    for made in (show.answer("<b>"), show.note("<b>"), show.sentences(["<b>"])):
        assert "<b>" not in made.body
    assert str(show.sentences([], none="Nothing.")) == "- Nothing."


def test_rows_beyond_the_open_ones_are_folded_away_and_lost_nowhere():
    rows = [{"name": f"row {n}"} for n in range(7)]
    made = show.table(rows, caption="Names", open_rows=5)
    shown, folded = made.body.split("<details")
    assert "<summary>2 more</summary>" in folded
    assert [f"row {n}" in shown for n in range(7)] == [True] * 5 + [False] * 2
    assert all(f"row {n}" in folded for n in (5, 6))
    assert "row 6" in made.text
    assert "<details" not in show.table(rows[:5], open_rows=5).body
    assert "None." in show.table([], columns={"name": "Name"}, open_rows=5).body
