"""What servers say when they refuse a part of the request, and the setting that is told to change."""

import pytest

from evalkit.answers.reply import refused

SENT = {"temperature": 0.0, "max_tokens": 1024}
RICH = {**SENT, "seed": 7, "reasoning_effort": "low", "top_k": 1}
HERE = "in study.yaml, or for one model alone in request.yaml"
OUT = {
    "temperature": "send_temperature: false",
    "max_tokens": "max_tokens: 0, in whose place max_completion_tokens may be set",
    "seed": "request_seed: 0",
    "reasoning_effort": 'reasoning_effort: ""',
}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        # OpenAI, Azure
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "max_tokens",
        ),
        (
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
            "temperature",
        ),
        (
            "Unsupported parameter: 'temperature' is not supported with this model.",
            "temperature",
        ),
        (
            "Unrecognized request argument supplied: reasoning_effort",
            "reasoning_effort",
        ),
        ("Unknown parameter: 'seed'.", "seed"),
        (
            "max_tokens is too large: 1024. This model supports at most 512 completion tokens, whereas you provided 1024.",
            "max_tokens",
        ),
        (
            "Unsupported value: 'reasoning_effort' does not support 'low' with this model. Supported values are: 'medium'.",
            "reasoning_effort",
        ),
        # vLLM, Mistral, SGLang: what pydantic says
        (
            "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted', 'input': 7}]",
            "seed",
        ),
        (
            "1 validation error:\n {'type': 'literal_error', 'loc': ('body', 'reasoning_effort'), 'msg': 'no such effort'}",
            "reasoning_effort",
        ),
        (
            "temperature must be non-negative, got -1.0.",
            "temperature",
        ),
        # Anthropic's and the gateways'
        (
            "`temperature` may only be set to 1 when thinking is enabled.",
            "temperature",
        ),
        (
            "max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens",
            "max_tokens",
        ),
        (
            "`temperature` and `top_p` cannot both be specified for this model.",
            "temperature",
        ),
        (
            "`temperature` is deprecated for this model.",
            "temperature",
        ),
        (
            "litellm.UnsupportedParamsError: openai does not support parameters: ['temperature'], for model=o1",
            "temperature",
        ),
        (
            "O-series models don't support temperature=0.0. Only temperature=1 is supported.",
            "temperature",
        ),
        (
            "Model grok does not support parameter reasoningEffort.",
            "reasoning_effort",
        ),
        ('"gemma3:1b" does not support thinking', "reasoning_effort"),
    ],
)
def test_the_setting_to_change_is_named(text, name):
    sent = RICH if any(one in text.lower() for one in ("seed", "reason", "think")) else SENT
    told = f"the server refuses {name} {sent[name]!r}: change or leave it out ({OUT[name]}) {HERE}"
    assert refused(text, sent) == told


def test_what_stands_under_extra_body_is_to_be_changed_there():
    told = refused("property 'top_k' is unsupported", RICH)
    assert (
        told
        == "the server refuses top_k 1: change or leave it out under extra_body in request.yaml"
    )
    told = refused("top_k must be at least 2", RICH)
    assert (
        told
        == "the server refuses top_k 1: change or leave it out under extra_body in request.yaml"
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("max_tokens: Field required", "max_tokens"),
        ("Missing required parameter: 'reasoning_effort'.", "reasoning_effort"),
        ("temperature must be given", "temperature"),
    ],
)
def test_what_the_server_misses_is_told(text, name):
    assert refused(text, {}) == f"the server wants {name}: set it {HERE}"


@pytest.mark.parametrize(
    "text",
    [
        "registry.ollama.ai/library/gemma:latest does not support tools",
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        "tools param requires --jinja flag",
        "No endpoints found that support tool use.",
        "Unsupported parameter: 'tools' is not supported with this model.",
    ],
)
def test_a_server_without_tools_is_told_by_name(text):
    told = refused(text, SENT)
    assert told.startswith("the server refuses tool")
    assert told.endswith("which rows of the test set hold")


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("This model's maximum context length is 4096 tokens, max_tokens must be less", None),
        ("input length and `max_tokens` exceed context limit: 198000 + 8000 > 200000", None),
        (
            "[{'loc': ('body', 'messages', 0, 'content'), 'msg': 'Input should be text', 'input': 'temperature'}]",
            None,
        ),
        ("Invalid value: 'temperature is high'. Unsupported.", "messages[0].content"),
        ("messages.1.content: must not be empty, whatever the temperature", None),
        ("Invalid schema for function 'x': 'y' is not valid", "tools[0].function.parameters"),
        ("messages with role 'tool' must be a response to a message with 'tool_calls'", None),
        ("'parallel_tool_calls' must be true or false", None),
        ("I will not say what the temperature is", None),
        ("boom", None),
        ("", None),
    ],
)
def test_what_is_only_this_rows_fault_is_no_refusal_of_a_setting(text, param):
    assert refused(text, SENT, param=param) == ""


def test_the_name_of_the_field_may_stand_beside_the_message():
    assert "send_temperature: false" in refused("Unsupported value", SENT, param="temperature")
