"""Whatever JSON a server sends is either an answer or said to be none."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evalkit.answers.reply import NoAnswerError, answer
from evalkit.records import Answer

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["length", "stop"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "type", "content", "message"]), inner)
    ),
    max_leaves=6,
)
MESSAGES = (
    st.fixed_dictionaries({}, optional={"content": VALUES, "refusal": VALUES, "tool_calls": VALUES})
    | VALUES
)
CHOICES = (
    st.fixed_dictionaries({}, optional={"message": MESSAGES, "finish_reason": VALUES}) | VALUES
)
REPLIES = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(CHOICES, max_size=2) | VALUES,
        "usage": VALUES,
        "model": VALUES,
        "error": VALUES,
    },
)


@settings(deadline=None)
@example(reply={"choices": [{"message": {"content": [{"text": "4", "type": []}]}}]})
@given(reply=REPLIES | VALUES)
def test_any_json_is_an_answer_or_no_answer_and_never_another_exception(reply):
    try:
        found = answer(reply)
    except NoAnswerError:
        return
    assert isinstance(found, Answer)
    found.text.encode("utf-8")
    assert (found.outcome == "ok") <= bool(found.text.strip())
    assert all(isinstance(n, int | None) for n in (found.prompt_tokens, found.completion_tokens))


def completed(content, finish_reason="stop", **message):
    return {
        "choices": [{"message": {"content": content, **message}, "finish_reason": finish_reason}]
    }


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (completed("x"), "ok"),
        (completed("x", None), "ok"),  # some servers give no reason
        (completed("x", "length"), "truncated"),
        (completed("", "length"), "truncated"),  # all of it went into thinking
        (completed("\u200b"), "ok"),  # not blank to Python, and shown as a chip
        (completed(None, "tool_calls", tool_calls=[{"id": 1}]), "empty"),
        (completed("x", "content_filter"), "refused"),
        (completed("x", refusal="no"), "refused"),
        (completed("x", refusal=""), "ok"),
        (completed("x", refusal=None), "ok"),
    ],
)
def test_the_outcome_follows_from_text_reason_and_refusal(reply, outcome):
    assert answer(reply).outcome == outcome


def test_thinking_cut_off_by_the_limit_leaves_nothing_to_score():
    found = answer(completed("<think>so it could be R07", "length"), strip_think=True)
    assert (found.text, found.outcome) == ("", "truncated")


@pytest.mark.parametrize("reply", ["<!doctype html><p>log in", "<HTML>", "OK"])
def test_a_page_is_told_from_json_that_is_no_completion(reply):
    with pytest.raises(NoAnswerError) as caught:
        answer(reply)
    assert caught.value.is_page
    with pytest.raises(NoAnswerError, match="no completion") as caught:
        answer([reply])
    assert not caught.value.is_page


@pytest.mark.parametrize(
    "told",
    [
        {"choices": [{"native_finish_reason": "error", "finish_reason": "stop"}]},
        {"choices": [{"finish_reason": "cancelled"}]},
        {"base_resp": {"status_code": 1013, "status_msg": "internal"}},
        {"code": 500, "message": "boom"},
        {"code": "503", "message": "boom"},
    ],
)
def test_an_error_told_beside_an_empty_answer_is_no_answer(told):
    reply = completed("") | told
    reply["choices"] = [completed("")["choices"][0] | reply["choices"][0]]
    with pytest.raises(NoAnswerError, match="told an error instead of an answer"):
        answer(reply)


@pytest.mark.parametrize(
    "told",
    [
        {"base_resp": {"status_code": 0, "status_msg": "success"}},
        {"code": 200, "message": "success"},
        {"code": 0},
        {"code": "gpt-500"},
        {"code": None, "message": "hello"},
    ],
)
def test_what_says_that_nothing_went_wrong_leaves_the_answer(told):
    assert answer(completed("4") | told).text == "4"
