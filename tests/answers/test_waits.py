"""How long a server asks to be left alone, in the forms that servers were seen to use."""

from datetime import UTC, datetime, timedelta

import pytest

from evalkit.answers.reply import seconds_asked, seconds_in_words


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Rate limit reached for m. Please try again in 4.1s. Visit the page", 4.1),
        ("Please try again in 1m30s.", 90),
        ("Please try again in 350ms.", 0.35),
        ("Please try again in 7m6.528s. Need more tokens?", 426.528),
        ("Please try again in 1h12m3.5s", 4323.5),
        ("Please retry after 43 seconds.", 43),
        ("Please wait 30 seconds and try again", 30),
        ("wait for 1 minute and 5 seconds", 65),
        ("Try again in about 2 minutes", 120),
        ("Please try again later", None),
        ("try again in 5 months", None),
        ("Limit 30000, Used 29000, Requested 1200", None),
        ("", None),
    ],
)
def test_a_wait_told_in_words_is_understood(words, seconds):
    assert seconds_in_words(words) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "350", "retry-after": "9"}, 0.35),
        ({"x-ms-retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "20"}, 20),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        # of two limits the one that is used up counts
        (
            {
                "x-ratelimit-reset-requests": "120ms",
                "x-ratelimit-reset-tokens": "0m30s",
                "x-ratelimit-remaining-tokens": "0",
            },
            30,
        ),
        ({"x-ratelimit-reset-requests": "8h", "x-ratelimit-reset-tokens": "2s"}, 2),
        ({"x-ratelimit-reset": "7"}, 7),
        (
            {"x-ratelimit-reset-requests": "8h"},
            60,
        ),  # till it is whole again; one gets through before
        ({"x-ratelimit-limit-requests": "60"}, None),
        ({"RateLimit": '"default";r=50;t=30'}, None),
        ({"x-ratelimit-reset": "3600", "x-ratelimit-remaining": "5000"}, None),
        ({"RateLimit": '"default";t=30'}, 30),
        ({"RateLimit": '"burst";r=5;t=2, "daily";r=0;t=12'}, 12),
        ({"RateLimit": '"a;r=0;t=50,b"; r=0; t=7; pk=:MTIz:'}, 7),
        ({"ratelimit": "limit=100, remaining=0, reset=5"}, 5),
        ({"ratelimit": "limit=100;w=60, remaining=50, reset=9"}, None),
        ({"ratelimit": "limit=100;w=60, remaining=0, reset=9"}, 9),
        ({"ratelimit": '"daily";r=0;t=86400'}, 60),
        ({"ratelimit": '"default";r=0', "ratelimit-policy": '"default";q=100;w=60'}, None),
        ({"ratelimit": "unlimited"}, None),
        ({}, None),
    ],
)
def test_a_wait_told_in_headers_is_understood(headers, seconds):
    assert seconds_asked(headers) == seconds


@pytest.mark.parametrize("form", ["iso", "seconds", "milliseconds"])
def test_a_limit_that_resets_at_a_time_of_day_is_waited_for(form):
    at = datetime.now(UTC) + timedelta(seconds=30)
    text = {
        "iso": at.isoformat().replace("+00:00", "Z"),
        "seconds": f"{at.timestamp():.0f}",
        "milliseconds": f"{at.timestamp() * 1000:.0f}",
    }[form]
    name = "anthropic-ratelimit-requests-reset" if form == "iso" else "X-RateLimit-Reset"
    assert seconds_asked({name: text}) == pytest.approx(30, abs=1)


def test_headers_are_believed_before_words_and_words_before_the_reset_of_a_limit():
    words, reset = "try again in 4s", {"x-ratelimit-reset-requests": "9s"}
    assert seconds_asked({"retry-after": "2", **reset}, words) == 2
    assert seconds_asked(reset, words) == 4


@pytest.mark.parametrize(
    ("header", "value", "seconds"),
    [
        ("ratelimit", '"default";r=50;t=30', None),
        ("ratelimit", '"default";r=0;t=30', 30),
        ("ratelimit", "limit=9, remaining=8, reset=30", None),
        ("x-ratelimit-reset-requests", "30s", None),
        ("retry-after", "30", 30),
    ],
)
def test_a_failed_server_that_tells_the_state_of_its_limits_asks_for_no_wait(
    header, value, seconds
):
    assert seconds_asked({header: value}, status=500) == seconds
