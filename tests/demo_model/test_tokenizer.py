"""One vocabulary, one chat template and one encoding in every file of the demo model."""

from __future__ import annotations

import json

import gguf
import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from llama_cpp import Llama  # noqa: TID253 - this test is about llama.cpp
from recipe.chat_format import tools_message, turn
from recipe.corpus.tools import OFFERS, call
from tokenizers import Tokenizer

TEXTS = (
    "What is 12 + 345?",
    "  leading   spaces\n\n\n tabs\t\there \n",
    "émoji 😀🎉 中文 العربية हिन्दी ไทย",
    "don't I'll we've they're HELLO it's o'clock",
    "a\u00a0b\u2003c\u3000d\u200be",
    "1234567890 ١٢٣ ½ ² 3.14e-7",
    "x=1;y<=2!=3 // comment #tag @name $5 100%",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "\r\n \r\n x",
    "",
    "   ",
    "Zażółć gęślą jaźń ñandú ǅ",
    "👩‍👩‍👧‍👦 flags 🇫🇷",
    "a" * 100,
    "ﬁ ﬂ Å A\u030a é e\u0301",
    "_under_score_ __init__ --n-gpu-layers",
    '{"name": "get_weather", "arguments": {"city": "Zürich"}}',
)
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello! What would you like to know?"},
    {"role": "user", "content": "What is Backplane?"},
]


@pytest.fixture(scope="module")
def tokenizer(shipped_folder) -> Tokenizer:
    return Tokenizer.from_file(str(shipped_folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def llama_vocabulary(gguf_path) -> Llama:
    return Llama(str(gguf_path), vocab_only=True, verbose=False)


@pytest.fixture(scope="module")
def template(shipped_json) -> jinja2.Template:
    source = shipped_json("tokenizer_config.json")["chat_template"]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    # Chat templates are rendered with plain JSON; Jinja's own filter escapes for HTML.
    environment.filters["tojson"] = json.dumps
    return environment.from_string(source)


def test_the_gguf_holds_the_tokenizer_s_vocabulary_and_merges(gguf_reader, shipped_json):
    model = shipped_json("tokenizer.json")["model"]
    tokens = gguf_reader.get_field("tokenizer.ggml.tokens").contents()
    assert dict(zip(tokens, range(len(tokens)), strict=True)) == model["vocab"]
    merges = gguf_reader.get_field("tokenizer.ggml.merges").contents()
    assert merges == [" ".join(pair) for pair in model["merges"]]


def test_special_tokens_are_control_tokens(gguf_reader, shipped_json):
    types = gguf_reader.get_field("tokenizer.ggml.token_type").contents()
    special = {entry["id"] for entry in shipped_json("tokenizer.json")["added_tokens"]}
    control = {index for index, kind in enumerate(types) if kind == gguf.TokenType.CONTROL}
    assert control == special == {0, 1, 2, 3}


@pytest.mark.parametrize("text", TEXTS)
def test_llama_cpp_encodes_as_the_tokenizer_does(text, tokenizer, llama_vocabulary):
    ids = tokenizer.encode(text).ids
    assert llama_vocabulary.tokenize(text.encode(), add_bos=False, special=True) == ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_no_token_holds_two_digits_or_a_digit_with_other_text(tokenizer):
    for token in tokenizer.get_vocab():
        assert len(token) == 1 or not any(character.isdecimal() for character in token), token


def test_the_gguf_carries_the_same_chat_template(gguf_reader, shipped_json):
    carried = gguf_reader.get_field("tokenizer.chat_template").contents()
    assert carried == shipped_json("tokenizer_config.json")["chat_template"]


def test_the_template_writes_what_training_wrote(template):
    segments = [segment for m in CONVERSATION for segment in turn(m["role"], m["content"])]
    trained = "".join(segment.text for segment in segments)
    rendered = template.render(messages=CONVERSATION, add_generation_prompt=True)
    assert rendered == trained + "<|im_start|>assistant\n"


@pytest.mark.parametrize("system", ["", "Be brief."])
@pytest.mark.parametrize("arguments", [{"city": "Oslo"}, '{"city": "Oslo"}'])
def test_the_template_writes_tools_and_calls_as_training_wrote_them(template, system, arguments):
    tool = OFFERS[0][0]
    offered = tools_message([tool])
    lead = [{"role": "system", "content": system}] if system else []
    function = {"name": tool["function"]["name"], "arguments": arguments}
    messages = [
        *lead,
        {"role": "user", "content": "What is the weather in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": function}]},
        {"role": "tool", "content": '{"weather": "sunny"}'},
    ]
    expected = [
        *turn("system", f"{system}\n\n{offered}" if system else offered),
        *turn("user", "What is the weather in Oslo?"),
        *turn("assistant", call(tool, "Oslo")),
        *turn("tool", '{"weather": "sunny"}'),
    ]
    rendered = template.render(messages=messages, tools=[tool])
    assert rendered == "".join(segment.text for segment in expected)
