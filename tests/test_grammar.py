"""The test of the tests: each fault is seen, and sound sentences are let through."""

import pytest
from grammar import faults

from evalkit.wording import article


@pytest.mark.parametrize(
    "text",
    [
        "A A/B test that shows it worse would stop it.",
        "Done in 12 s, 1 chapters.",
        "about 1 more “cardiology” examples",
        "120 example both answered.",
        "The the model.",
        "An benchmark.",
        "better by , but no.",
        "Nothing  here.",
        "lost (), over 4.",
        "",
        "It went from None to 3.",
    ],
)
def test_a_fault_is_seen(text):
    assert faults(text)


@pytest.mark.parametrize(
    "text",
    [
        "An A/B test that shows it worse would stop it.",
        "1 example fixed, 0 regressed, 21 still wrong",
        "At look 1 of 4 the difference is +12.9 points (95% interval 8.1 to 17.7), 1,500 users.",
        "1.1 users a day; rows 1 to 3; 11 days of 21 users each.",
    ],
)
def test_a_sound_sentence_is_let_through(text):
    assert faults(text) == []


def test_an_article_fits_its_noun():
    nouns = ("benchmark", "human rating", "A/B test", "user")
    assert [article(one) for one in nouns] == [
        "A benchmark",
        "A human rating",
        "An A/B test",
        "A user",
    ]
