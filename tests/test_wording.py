import pytest

from evalkit import wording


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.5, "0.50"),
        (0.10, "0.10"),
        (0.0999, "0.100"),
        (0.031, "0.031"),
        (0.00049, "0.0005"),
        (1e-49, "< 0.0001"),
        (None, "–"),
    ],
)
def test_a_p_value_is_never_four_zeros(p, text):
    assert wording.p_text(p) == text


def test_points_have_a_true_minus_and_no_sign_on_zero():
    # 0.0004 is 0.04 points, which rounds to 0.0: no sign
    assert [wording.points(x) for x in (0.193, -0.365, 0.0004, -0.0004, None)] == [
        "+19.3",
        "−36.5",
        "0.0",
        "0.0",
        "–",
    ]


@pytest.mark.parametrize(
    "payload",
    ["<script>window.X=1</script>", "<img src=x onerror=window.X=1>", "<svg onload=window.X=1>"],
)
def test_markup_in_model_text_is_text(payload):
    assert (
        "<"
        not in wording.render_text(payload)
        .replace("<bdi", "")
        .replace("</bdi>", "")
        .split(">", 1)[1]
    )


def test_unseen_characters_are_shown():
    html = wording.render_text("abc\u202egpj.exe a\u200bb \x1b[31m \ud800")
    assert r"\u202e" in html
    assert r"\u200b" in html
    assert r"\u001b" in html
    assert r"\ud800" in html
    assert "\u202e" not in html


def test_keys_are_hidden_from_messages():
    text = wording.redacted(
        "Incorrect API key provided: sk-abcdef1234567890. Authorization: Bearer abcdefgh12345"
    )
    assert "abcdef" not in text
    assert text.count("[key removed]") == 2


def test_spreadsheets_run_no_formula():
    assert [wording.for_spreadsheet(x) for x in ("=1+1", "@x", "+1", "-1", "plain", "")] == [
        "'=1+1",
        "'@x",
        "'+1",
        "'-1",
        "plain",
        "",
    ]


def test_a_share_shows_its_count_first_when_small():
    assert wording.share(6, 96) == "6 of 96 (6.2%)"
    assert wording.share(66, 300) == "22.0% (66 of 300)"
    assert wording.share(0, 0) == "0 of 0"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kind = two diagnoses", "“two diagnoses” examples"),
        ("has_table = yes", "examples with has table yes"),
        ("length = 3", "examples with length 3"),
        ("kind = (not given)", "examples with kind (not given)"),
        ("formula = a = b", "“a = b” examples"),
        ("multi", "“multi” examples"),
        ("kind = a\u202eb", "“a\\u202eb” examples"),
    ],
)
def test_a_slice_is_named_as_people_say_it(name, said):
    assert wording.examples_of(name) == said


def test_digits_follow_the_size_of_a_difference_that_is_shown():
    # 70 of a million, +40 to +100: three figures of a point, not 0.0
    assert wording.points(7e-5, wording.decimals(7e-5, 4e-5, 1e-4)) == "+0.0070"
    assert wording.decimals(7e-5, -0.03, 0.03) == 1  # not shown: its interval says enough
    assert wording.decimals(0.0, 0.0, 0.0) == 1
    assert wording.amount(0.00004, "number") == "+0.00004"


def test_an_interval_that_does_not_exist_is_said_in_words():
    assert wording.interval(None, None) == wording.limits(None, None) == "interval undefined"
    assert wording.interval(0.1, None) == "95% interval +10.0 to –"
    assert wording.interval(0.01, 0.02, alpha=0.00305) == "99.69% interval +1.0 to +2.0"


@pytest.mark.parametrize(("chance", "text"), [(0.8, "4 times in 5"), (0.12, "1 time in 10")])
def test_a_chance_in_words(chance, text):
    assert wording.times(chance) == text
