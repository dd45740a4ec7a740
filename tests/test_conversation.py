"""A whole prompt reaches whoever judges: every message, every role, every image and call by name."""

import base64
import json

import pytest

from evalkit.conversation import (
    Conversation,
    attachments,
    conversation_html,
    conversation_text,
    folded,
    own_messages,
    spoken_text,
    structure,
    turns,
)

CAPITAL = [
    {"role": "system", "content": "You answer in French."},
    {"role": "user", "content": "Capital of Spain?"},
    {"role": "assistant", "content": "Madrid"},
    {"role": "user", "content": "And its population?"},
]


def user(content):
    return [{"role": "user", "content": content}]


def image(content, media="image/png"):
    url = f"data:{media};base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def test_every_message_stands_there_with_its_role():
    assert conversation_text(CAPITAL) == (
        "system: You answer in French.\n\nuser: Capital of Spain?\n\n"
        "assistant: Madrid\n\nuser: And its population?"
    )
    page = conversation_html(CAPITAL)
    for message in CAPITAL:
        assert f">{message['role']}</bdi></b>" in page
        assert f">{message['content']}</bdi></div>" in page
    assert str(Conversation(CAPITAL)) == conversation_text(CAPITAL)


def test_what_a_single_user_message_says_stands_alone_letter_by_letter():
    text = "  two  spaces\n\ttab\n"
    assert conversation_text(user(text)) == text
    assert "user" not in conversation_html(user(text))
    assert conversation_text([{"role": "system", "content": "x"}]) == "system: x"


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (image(b"x" * 12_000), "[image: image/png]"),
        (image(b"x" * 940, "image/webp"), "[image: image/webp]"),
        (image(b"x" * 2_340_000), "[image: image/png]"),
        (
            {"type": "image_url", "image_url": {"url": "https://a.example/dir/cat.png?sig=secret"}},
            "[image: a.example/dir/cat.png]",
        ),
        (
            {"type": "image_url", "image_url": "https://a.example/cat.png"},
            "[image: a.example/cat.png]",
        ),
        ({"type": "input_image", "image_url": "https://u:p@a.example/c"}, "[image: a.example/c]"),
        (
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/gif", "data": "QUJD"},
            },
            "[image: image/gif]",
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
            "[audio: wav]",
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_id": "file-1"}},
            "[file: a.pdf, file-1]",
        ),
        ({"type": "image_url", "image_url": {"url": "http://[broken"}}, "[image: [broken]"),
        ({"type": "tool_use", "name": "look", "input": {"q": "é"}}, '[call of look: {"q": "é"}]'),
        ({"type": "refusal", "refusal": "No."}, "[refusal: No.]"),
        ({"type": "thinking"}, "[thinking]"),
        (7, "[7]"),
        ({}, "[part]"),
    ],
)
def test_what_is_no_text_is_named(part, name):
    assert (
        conversation_text(user(["Look: ", {"type": "text", "text": "here"}, part]))
        == f"Look: here\n{name}"
    )


def test_calls_and_the_tools_that_answer_are_named():
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"at": "Lima"}'},
    }
    asked = [
        *user("Rain?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "yes"},
        {"role": "assistant", "content": "", "function_call": {"name": "old", "arguments": "{}"}},
        {"role": "user", "name": "ann", "content": None},
    ]
    assert conversation_text(asked).split("\n\n") == [
        "user: Rain?",
        'assistant: [call of weather: {"at": "Lima"}]',
        "tool weather: yes",
        "assistant: [call of old: {}]",
        "user ann: [nothing]",
    ]


def test_a_long_message_is_folded_and_the_last_one_only_where_it_is_wished():
    long = [{"role": "system", "content": "rule " * 500}, *user("question " * 500)]
    assert [bool(turn.opening) for turn in turns(long)] == [True, False]
    assert [bool(turn.opening) for turn in turns(long, folds_last=True)] == [True, True]
    page = conversation_html(long)
    assert page.count("<details") == page.count("<summary") == 1
    assert "rule " * 500 in page
    assert "(2,500 characters)" in page


def test_of_many_messages_the_earlier_ones_are_folded_into_one():
    ten = [{"role": "user" if i % 2 else "assistant", "content": f"turn {i}"} for i in range(10)]
    page = conversation_html(ten)
    assert "<summary>6 earlier messages</summary>" in page
    assert page.index("turn 5") < page.index("</details>") < page.index("turn 6")
    assert structure(ten)["n_earlier"] == 6
    assert structure(ten[:6])["n_earlier"] == 0


def test_nothing_in_it_runs_turns_round_or_is_typeset():
    evil = [
        {"role": "system", "name": "<b>", "content": "<script>1</script>" * 40},
        *user(["\u202egpj.exe $x$", {"type": "<img src=x onerror=1>"}]),
    ]
    page = conversation_html(evil)
    for bad in ("<script", "<img", "<b>", "\u202e"):
        assert bad not in page.replace('<b class="ek-role">', "")
    assert page.count("<bdi") == page.count("tex2jax_ignore")
    shown = json.dumps(structure(evil))
    assert "\\\\u202e" in shown


def test_a_half_character_is_shown_and_stops_nothing():
    broken = [{"role": "system", "content": "a\ud800b"}, *user("c")]
    conversation_html(broken).encode()
    json.dumps(structure(broken), ensure_ascii=False).encode()


def test_what_all_prompts_share_is_not_their_own():
    system = {"role": "system", "content": "s"}
    shot = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    asked = [[system, *shot, *user(f"question {i}")] for i in range(10)]
    assert own_messages(asked) == [user(f"question {i}") for i in range(10)]
    # a first turn that two of many have is theirs, and so is a system prompt of one's own
    pair = [
        [*shot, *user("x")],
        [*shot, *user("y")],
        [{"role": "system", "content": "own"}, *user("z")],
    ]
    assert own_messages(pair) == pair
    assert own_messages([user("same")] * 10) == [user("same")] * 10


def test_another_image_is_another_prompt():
    one, other = (user(["Describe.", image(content)]) for content in (b"a" * 99, b"b" * 99))
    assert conversation_text(one) == conversation_text(other)
    assert attachments(one) != attachments(other)
    assert attachments(CAPITAL) == ()
    assert spoken_text(one) == "Describe."


@pytest.mark.parametrize(
    ("text", "opening"),
    [
        ("AAAA " * 30, "AAAA AAAA AAAA AAAA AAAA … (the same again and again)"),
        ("Code: " + "I10." * 25, "Code: I10.I10.I10.I10.I10.I10. … (the same again and again)"),
        ("no\n" * 60, "no no no no no no no no … (the same again and again)"),
        ("<b>" * 40, "&lt;b&gt;" * 8 + " … (the same again and again)"),
        ("A word and another, " + "x" * 300, "x" * 24 + " … (the same again and again)"),
        ("Some words, then others. " * 9 + "The end." * 3, ""),
    ],
)
def test_an_answer_that_says_one_thing_again_and_again_is_folded_and_stays_whole(text, opening):
    made = folded(text, "<bdi>the answer, marked</bdi>")
    assert made.startswith("<details") is bool(opening)
    assert opening in made
    assert made.count("<bdi>the answer, marked</bdi>") == 1


@pytest.mark.parametrize(
    "text",
    [
        "I10: Hypertension",
        "a | b\n" + "-" * 45 + "\n" + "words of a table " * 6,
        "z" * 39,
        " " * 300,
    ],
)
def test_rules_and_short_answers_stand_open(text):
    assert folded(text, "<bdi></bdi>") == "<bdi></bdi>"


@pytest.mark.parametrize("text", ["word after word " * 40, "line\n" * 13])
def test_a_long_answer_is_folded_too(text):
    assert "<details" in folded(text, "<bdi></bdi>")
