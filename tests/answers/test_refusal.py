"""What servers say when they refuse a part of the request, and the setting that is told to change."""

import pytest

from evalkit.answers.reply import refused

SENT = {"temperature": 0.0, "max_tokens": 1024}
RICH = {**SENT, "seed": 7, "reasoning_effort": "low", "top_k": 1}
HERE = " in study.yaml (or in request.yaml for this model alone)"
MORE = "set max_tokens: 0 and max_completion_tokens: 1024"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # OpenAI, Azure
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            f"max_tokens: {MORE}",
        ),
        (
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
            "temperature: set temperature: 1",
        ),
        (
            "Unsupported parameter: 'temperature' is not supported with this model.",
            "temperature: set send_temperature: false",
        ),
        (
            "Unrecognized request argument supplied: reasoning_effort",
            'reasoning_effort: set reasoning_effort: ""',
        ),
        ("Unknown parameter: 'seed'.", "seed: set request_seed: 0"),
        (
            "max_tokens is too large: 1024. This model supports at most 512 completion tokens, whereas you provided 1024.",
            "max_tokens: change max_tokens, now 1024,",
        ),
        (
            "Unsupported value: 'reasoning_effort' does not support 'low' with this model. Supported values are: 'medium'.",
            "reasoning_effort: change reasoning_effort, now 'low',",
        ),
        # vLLM, Mistral, SGLang: what pydantic says
        (
            "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted', 'input': 7}]",
            "seed: set request_seed: 0",
        ),
        (
            "1 validation error:\n {'type': 'literal_error', 'loc': ('body', 'reasoning_effort'), 'msg': 'no such effort'}",
            "reasoning_effort: change reasoning_effort, now 'low',",
        ),
        (
            "temperature must be non-negative, got -1.0.",
            "temperature: change temperature, now 0.0,",
        ),
        # Anthropic's and the gateways'
        (
            "`temperature` may only be set to 1 when thinking is enabled.",
            "temperature: set temperature: 1",
        ),
        (
            "max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens",
            "max_tokens: change max_tokens, now 1024,",
        ),
        (
            "`temperature` and `top_p` cannot both be specified for this model.",
            "temperature: set send_temperature: false",
        ),
        (
            "`temperature` is deprecated for this model.",
            "temperature: set send_temperature: false",
        ),
        (
            "litellm.UnsupportedParamsError: openai does not support parameters: ['temperature'], for model=o1",
            "temperature: set send_temperature: false",
        ),
        (
            "O-series models don't support temperature=0.0. Only temperature=1 is supported.",
            "temperature: set temperature: 1",
        ),
        (
            "Model grok does not support parameter reasoningEffort.",
            'reasoning_effort: set reasoning_effort: ""',
        ),
        ('"gemma3:1b" does not support thinking', 'reasoning_effort: set reasoning_effort: ""'),
    ],
)
def test_the_setting_to_change_is_named(text, told):
    sent = RICH if any(name in text.lower() for name in ("seed", "reason", "think")) else SENT
    assert refused(text, sent).startswith(f"the server refuses {told}"), refused(text, sent)
    assert refused(text, sent).endswith(HERE)


def test_what_stands_under_extra_body_is_to_be_changed_there():
    told = refused("property 'top_k' is unsupported", RICH)
    assert told == "the server refuses top_k: take out top_k under extra_body in request.yaml"
    told = refused("top_k must be at least 2", RICH)
    assert told == "the server refuses top_k: change top_k under extra_body in request.yaml"


def test_of_two_limits_one_is_left_out_and_no_third_is_told():
    both = {**SENT, "max_completion_tokens": 96}
    text = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
    assert refused(text, both) == f"the server refuses max_tokens: set max_tokens: 0{HERE}"
    only = {"max_completion_tokens": 96}
    told = refused("Unrecognized request argument supplied: max_completion_tokens", only)
    assert told.startswith(
        "the server refuses max_completion_tokens: set max_completion_tokens: 0 and max_tokens: 96"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_tokens: Field required", "max_tokens: set max_tokens: 1024"),
        ("Missing required parameter: 'reasoning_effort'.", "reasoning_effort: set reasoning_effort: low"),
        ("temperature must be given", "temperature: set send_temperature: true"),
    ],
)  # fmt: skip
def test_what_the_server_misses_is_told(text, told):
    assert refused(text, {}).startswith(f"the server wants {told}{HERE}")


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
