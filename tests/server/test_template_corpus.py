"""Templates as models have them: what a conversation with tools becomes, family by family.

They are this project's own, with the idioms that models' templates are full of.
"""

import json
import re
from pathlib import Path

import msgspec
import pytest
from backplane_core.errors import TemplateError
from backplane_server.dialects.chat_messages import template_messages
from backplane_server.dialects.chat_types import Message
from backplane_server.templates.chat_prompt import ChatPrompter, TemplateOptions
from backplane_server.templates.sandbox import render
from backplane_server.text.reasoning import choose_reasoning
from backplane_server.tools.catalogue import ToolCatalogue

FOLDER = Path(__file__).with_name("chat_templates")
FAMILIES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
SYSTEM = {"role": "system", "content": "Be brief."}
HI = {"role": "user", "content": " Weather? "}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "of <a> city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
TALK = [
    HI,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_0123456789abcdef",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_0123456789abcdef", "content": "rain"},
]
THOUGHT = [
    HI,
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nRain."},
    {"role": "user", "content": "Sure?"},
]


class InProcess:
    """Renders here and now; the process around the sandbox is tested elsewhere."""

    async def render(self, source, variables):
        # What a renderer is sent must travel.
        return render(source, msgspec.msgpack.decode(msgspec.msgpack.encode(variables)))


@pytest.fixture
def renderer():
    return InProcess()


async def prompt(renderer, family, messages, **options):
    source = (FOLDER / f"{family}.jinja").read_text()
    prompter = ChatPrompter(renderer, {"default": source}, bos_token="<s>", eos_token="</s>")  # noqa: S106 - markers
    asked = TemplateOptions(**options)
    traits = prompter.traits(with_tools=bool(asked.tools))
    read = template_messages(msgspec.convert(messages, list[Message]), traits)
    return await prompter.prompt(read, asked)


async def test_qwen_like(renderer):
    text = await prompt(renderer, "qwen_like", [SYSTEM, *TALK], tools=TOOLS)
    assert text.startswith(
        "<|im_start|>system\nBe brief.\n\nFunctions you may use:\n<tools>\n"
        '{"type": "function", "function": {"name": "weather", "description": "of <a> city", '
    )
    assert text.endswith(
        "<|im_start|>user\n Weather? <|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n'
        "</tool_call><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    off = await prompt(renderer, "qwen_like", [HI], variables={"enable_thinking": False})
    assert off.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    on = await prompt(renderer, "qwen_like", [HI], variables={"enable_thinking": True})
    assert on == await prompt(renderer, "qwen_like", [HI])


async def test_qwen_like_forgets_old_thoughts_and_keeps_the_turns(renderer):
    text = await prompt(renderer, "qwen_like", THOUGHT)
    assert "<|im_start|>assistant\nRain.<|im_end|>" in text
    turn = {**TALK[1], "reasoning_content": "look it up"}
    text = await prompt(renderer, "qwen_like", [HI, turn, TALK[2]])
    assert "assistant\n<think>\nlook it up\n</think>\n\n\n<tool_call>" in text


async def test_llama3_like(renderer):
    text = await prompt(
        renderer, "llama3_like", [SYSTEM, *TALK], tools=TOOLS, variables={"date_string": "now"}
    )
    assert text.startswith(
        "<s><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\nToday: now\n\n"
        "Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnswer with"
    )
    assert json.dumps(TOOLS[0], indent=4) + "\n\nWeather?<|eot_id|>" in text
    assert text.endswith(
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        '{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>'
        "<|start_header_id|>ipython<|end_header_id|>\n\nrain<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    dated = await prompt(renderer, "llama3_like", [HI])
    assert re.search(r"Today: \d\d \w+ \d{4}\n", dated)
    two = [HI, {**TALK[1], "tool_calls": TALK[1]["tool_calls"] * 2}]
    with pytest.raises(TemplateError, match="one call a turn"):
        await prompt(renderer, "llama3_like", two)


async def test_mistral_like(renderer):
    text = await prompt(renderer, "mistral_like", [SYSTEM, *TALK], tools=TOOLS)
    # An id that the template would refuse is shortened, the call's and the result's alike.
    found = re.findall(r'"(?:id|call_id)": "([0-9a-f]{9})"', text)
    assert len(found) == 2
    assert len(set(found)) == 1
    assert text == (
        '<s>[AVAILABLE_TOOLS] [{"type": "function", "function": {"name": "weather", '
        '"description": "of <a> city", "parameters": {"type": "object", "properties": '
        '{"city": {"type": "string"}}}}}][/AVAILABLE_TOOLS][INST]  Weather? [/INST]'
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}, '
        f'"id": "{found[0]}"}}]</s>[TOOL_RESULTS] {{"content": "rain", '
        f'"call_id": "{found[0]}"}}[/TOOL_RESULTS]'
    )
    nine = json.loads(json.dumps(TALK).replace("call_0123456789abcdef", "abcDEF123"))
    assert (await prompt(renderer, "mistral_like", nine)).count('"abcDEF123"') == 2
    with pytest.raises(TemplateError, match="take turns"):
        await prompt(renderer, "mistral_like", [HI, HI])


async def test_gemma_like(renderer):
    text = await prompt(renderer, "gemma_like", [HI])
    assert text == "<s><start_of_turn>user\nWeather?<end_of_turn>\n<start_of_turn>model\n"
    with pytest.raises(TemplateError, match="knows no role system"):
        await prompt(renderer, "gemma_like", [SYSTEM, HI])
    open_turn = await prompt(renderer, "gemma_like", [HI, {"role": "assistant", "content": "It"}])
    assert open_turn.endswith("<start_of_turn>model\nIt")


async def test_deepseek_like(renderer):
    text = await prompt(renderer, "deepseek_like", [SYSTEM, *TALK])
    assert text == (
        "<s>Be brief.<|User|> Weather? <|Assistant|><|calls|>weather\n"
        '```json\n{"city": "Oslo"}\n```<|/calls|></s><|result|>rain<|/result|>'
        "<|Assistant|><think>\n"
    )
    text = await prompt(renderer, "deepseek_like", THOUGHT)
    assert "<|Assistant|>Rain.</s><|User|>Sure?" in text


@pytest.mark.parametrize("family", FAMILIES)
async def test_every_family_continues_a_turn_that_is_not_over(renderer, family):
    text = await prompt(renderer, family, [HI, {"role": "assistant", "content": "It will"}])
    assert text.endswith("It will")


@pytest.mark.parametrize("family", FAMILIES)
async def test_every_family_bears_odd_content(renderer, family):
    for content in ("", "{{ 7 * 7 }}", "{% raw %}", "\x00", "é😀", "</think>", "a" * 100_000):
        text = await prompt(renderer, family, [{"role": "user", "content": content}])
        assert content.strip() in text


def test_families_are_known_by_their_templates():
    catalogue = ToolCatalogue.discovered()

    def known(family):
        source = (FOLDER / f"{family}.jinja").read_text()
        thoughts = choose_reasoning("auto", source)
        return catalogue.choose("auto", source).name, thoughts and thoughts.name

    assert {family: known(family) for family in FAMILIES} == {
        "deepseek_like": ("json", "qwen3"),
        "gemma_like": ("json", None),
        "llama3_like": ("llama3_json", None),
        "mistral_like": ("mistral", None),
        "qwen_like": ("hermes", "qwen3"),
    }
