"""Thoughts are told from answers in every shape in use, and an answer that quotes a tag is left whole."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.conversation import holds_thoughts, thoughts_and_answer

NAMES = ("think", "Thinking", "thought", "reasoning", "seed:think", "longcat_think", "scratchpad")
SHAPES = [
    *(f"<{name}>throat, so R07</{name}>\n\nR07" for name in NAMES),
    "throat, so R07\n</think>\n\nR07",  # the chat template had opened it
    "throat, so R07</think>R07",
    "throat, so R07. </think> R07",
    "throat, so R07\n</thinking>\nR07",
    "throat, so R07[/THINK]R07",
    "they say:\n    throat, so R07</think>R07",
    "[THINK]throat, so R07[/THINK]R07",
    "<|begin_of_thought|>throat, so R07<|end_of_thought|>\n<|begin_of_solution|>R07<|end_of_solution|>",
    "<|START_THINKING|>throat, so R07<|END_THINKING|><|START_RESPONSE|>R07<|END_RESPONSE|>",
    "◁think▷throat, so R07◁/think▷R07",
    "<|channel>thought\nthroat, so R07<channel|>R07",
    "Here is my thought process:\nthroat, so R07\n\nHere is my response:\nR07",
    "<think>throat, so R07</think><response>R07</response>",
    "<think>throat, so R07</think>\n<answer>\nR07\n</answer>",
    "<|channel|>analysis<|message|>throat, so R07<|end|><|start|>assistant<|channel|>final<|message|>R07<|return|>",
    "<|channel|>analysis<|message|>throat, so R07<|end|><|start|>assistant<|channel|>final <|constrain|>text<|message|>R07",
    "analysisthroat, so R07assistantfinalR07",  # the same with its special tokens left out
    "\n <think mode='long'>throat, so R07</think> R07",
]


@pytest.mark.parametrize("text", SHAPES)
def test_each_shape_in_use_is_told_from_the_answer(text):
    thoughts, answer = thoughts_and_answer(text)
    assert answer == "R07"
    assert "throat, so R07" in thoughts


@pytest.mark.parametrize(
    "text",
    [
        "R07",
        "Close the block with `</think>`, then answer.",
        'The tag "</think>" ends it.',
        "It ends with “</think>” and goes on.",
        "A model writes <think>hm</think> before it answers.",
        "Each block must end with </think>",
        "R1 wraps its thoughts in </think> tags, at times.",
        "Use this format:\n```\n<think>\nhm\n</think>\n42\n```",
        "Use this format:\n<think>\nhm\n</think>\n42",
        '{"text": "hm</think>42", "n": 1}',
        "- <think>\n- </think>\n",
        "`<think>` opens a thought, `</think>` closes it.",
        "The channel <|channel|>analysis<|message|> holds thoughts.",
        "analysis of variance\nassistant",
        "I think so. Reasoning: none.",
        "<thing>x</thing>",
        "Write:\n\n    </think>\n\nto close it.",
        "    <think>hm</think>\n",
        "~~~\n<think>hm\n~~~\n",
        "> hm\n> </think>\n\nis how it ends.",
        "It is **</think>** that ends it.",
        "Two tags:\n</think>, </answer>.",
        "DeepSeek ends its thoughts with </think>\nand answers then.",
        "The closing tag is </think>\n\nWhat follows is the answer.",
        "Strip all before the token </think> \nand score the rest.",
        "To stop it early, write </think>\r\nyourself.",
        "Mistral closes with [/THINK]\nand not with a tag.",
        "x = text.split('</think>')[-1]",
        "",
    ],
)
def test_an_answer_that_quotes_a_tag_is_left_whole(text):
    assert thoughts_and_answer(text) == ("", text)
    assert not holds_thoughts(text)


@pytest.mark.parametrize(
    "text",
    [
        "<think>so it could be",
        "[THINK]so it could be",
        "<|channel|>analysis<|message|>so it could be",
        "Here is my thought process:\nso it could be",
        "<think>so it could be</think>",
        "so it could be\n</think>\n\n",
        "<think>so it could be what `</think>` ends, which",
    ],
)
def test_a_thought_that_does_not_come_to_an_end_is_no_answer(text):
    thoughts, answer = thoughts_and_answer(text)
    assert answer == ""
    assert "so it could be" in thoughts


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>what does `</think>` mean?</think>It ends a thought.", "It ends a thought."),
        ('<think>what does "</think>" mean?\n</think>\nAn end.', "An end."),
        ('<think>"a"</think>"b"', '"b"'),
        ("<think>a</think>\n<think>b</think>\nc", "c"),
        ("<think>a <think>b</think> c</think> d", "d"),
        ("<think>\n```py\nx\n</think>\n```py\ny\n```", "```py\ny\n```"),
        ("they ask of the <think> tag, so\n</think>\n\nIt opens one.", "It opens one."),
        ("<think></think>Write `<think>` first.", "Write `<think>` first."),
        ("<think>a</thinking>b", "b"),
        ("it is 42 </think>\n\n42", "42"),
        ("so it is option A </think>\nA", "A"),
        ("a text, so its type is string </think>\n\nString", "String"),  # the answer says it again
        ("<answer>R07</answer>", "<answer>R07</answer>"),  # no thought: the answer's own form
    ],
)
def test_thoughts_that_speak_of_their_own_tag_end_where_they_end(text, answer):
    assert thoughts_and_answer(text)[1] == answer


@given(st.text(alphabet='</think>\n `"ab[]THINK|', max_size=60))
def test_what_is_kept_as_answer_is_the_end_of_the_text_or_all_of_it(text):
    thoughts, answer = thoughts_and_answer(text)
    assert answer.strip() in text
    assert thoughts or answer == text or holds_thoughts(text)


@pytest.mark.parametrize(
    "text", ["<think>a</think>", "say </think> x ", "`", "<", "<|channel|>analysis", "\n```\n"]
)
def test_a_text_of_nothing_but_tags_takes_no_time(text):
    started = time.perf_counter()
    thoughts_and_answer(text * (300_000 // len(text)))
    assert time.perf_counter() - started < 3
