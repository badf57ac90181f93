"""Bodies nobody thought of: whatever is sent, the answer is one of those that were meant."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXPECTED = {200, 400, 422}

NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
# Mostly what may be right, so that requests also come through.
LIKELY = st.sampled_from([None, 0, 1, 2, 3, 0.5, 0.9, 1.0, True, False, "a", ["a"], [1], {"1": 2}])
FIELD = st.one_of(LIKELY, LIKELY, LIKELY, VALUES)
TEXT = st.text(min_size=1, max_size=20)
NATIVE = [
    "best_of",
    "temperature",
    "repetition_penalty",
    "frequency_penalty",
    "top_k",
    "top_p",
    "typical_p",
    "do_sample",
    "return_full_text",
    "stop",
    "truncate",
    "watermark",
    "details",
    "decoder_input_details",
    "seed",
    "top_n_tokens",
    "grammar",
    "adapter_id",
    "max_new_tokens",
]
OPENAI = [
    "model",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "n",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "top_k",
    "min_p",
    "repetition_penalty",
    "ignore_eos",
    "min_tokens",
    "stop_token_ids",
    "chat_template",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "response_format",
    "echo",
    "suffix",
    "best_of",
    "max_tokens",
    "max_completion_tokens",
    "parallel_tool_calls",
    "tool_prompt",
    "functions",
    "function_call",
    "typical_p",
    "include_stop_str_in_output",
    "skip_special_tokens",
    "add_special_tokens",
    "truncate_prompt_tokens",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "add_generation_prompt",
    "continue_final_message",
    "documents",
    "reasoning_effort",
    "chat_template_kwargs",
    "metadata",
]
# Values that mean something to some of them.
FITTING = st.sampled_from(
    [
        [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        [{"name": "f"}],
        {"type": "function", "function": {"name": "f"}},
        "required",
        "f",
        {"type": "json_object"},
        {"type": "regex", "value": "a+"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
        {"type": "object", "properties": {"a": {"type": "integer"}}},
        {"regex": "[ab]"},
        {"choice": ["a", "b"]},
        "start: /a/",
        [{"text": "a"}],
    ]
)


def check(stack, path, body):
    response = stack.post_raw(path, json.dumps(body).encode())
    expected = EXPECTED | ({404} if "model" in body else set())
    assert response.status_code in expected, (path, body, response.text)
    if response.status_code == 200:
        assert b"internal error" not in response.content, (path, body, response.text)
    elif response.status_code == 400:
        # The only way from valid JSON to 400: lone surrogates, which UTF-8 does not have.
        assert "\\ud" in json.dumps(body).lower()
    assert "0x" not in response.headers.get("x-ignored-parameters", "")


OPENAI_FIELD = st.one_of(LIKELY, FITTING, FITTING, VALUES)

ROLES = st.sampled_from(["user", "assistant", "system", "tool"])
CHAT = st.lists(st.fixed_dictionaries({"role": ROLES, "content": TEXT}), min_size=1, max_size=3)
ODD_CHAT = st.lists(
    st.fixed_dictionaries(
        {"role": ROLES},
        optional={
            "content": VALUES,
            "name": SCALARS,
            "tool_calls": VALUES,
            "function_call": VALUES,
            "reasoning_content": SCALARS,
        },
    ),
    max_size=3,
)

FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FUZZ
@given(
    parameters=st.dictionaries(st.sampled_from(NATIVE), FIELD, max_size=3),
    inputs=st.one_of(TEXT, TEXT, TEXT, VALUES),
    path=st.sampled_from(["/generate", "/generate_stream", "/", "/tokenize"]),
)
def test_native_bodies(stack, parameters, inputs, path):
    check(stack, path, {"inputs": inputs, "parameters": {"max_new_tokens": 3, **parameters}})


@FUZZ
@given(
    fields=st.dictionaries(st.sampled_from(OPENAI), OPENAI_FIELD, max_size=3),
    messages=st.one_of(CHAT, CHAT, CHAT, ODD_CHAT, VALUES),
)
def test_chat_bodies(stack, fields, messages):
    check(stack, "/v1/chat/completions", {"max_tokens": 3, **fields, "messages": messages})


@FUZZ
@given(
    fields=st.dictionaries(st.sampled_from(OPENAI), OPENAI_FIELD, max_size=3),
    prompt=st.one_of(TEXT, TEXT, st.lists(st.integers(0, 259), min_size=1, max_size=9), VALUES),
)
def test_completion_bodies(stack, fields, prompt):
    check(stack, "/v1/completions", {"max_tokens": 3, **fields, "prompt": prompt})


def test_the_server_is_well_after_all_that(stack):
    assert stack.get("/health").status_code == 200
    assert "Traceback" not in stack.log()
