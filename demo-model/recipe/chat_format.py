"""The chat format: special tokens, the Jinja template that ships, and the same rendering in Python.

Training renders in Python, as it must know which tokens are answers; a test holds both equal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
PADDING = "<|pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, PADDING)

_TOOLS_INTRODUCTION = "You can call these functions:"
_TOOLS_RULE = 'To call one, answer with <tool_call>{"name": "...", "arguments": {...}}</tool_call>'

CHAT_TEMPLATE = (
    "{%- set lead = '' -%}"
    "{%- if messages and messages[0]['role'] == 'system' -%}"
    "{%- set lead = messages[0]['content'] -%}"
    "{%- endif -%}"
    "{%- if tools -%}"
    "{%- set ns = namespace(text='" + _TOOLS_INTRODUCTION + "') -%}"
    "{%- for tool in tools -%}"
    "{%- set ns.text = ns.text + '\\n' + ((tool.function if tool.function else tool) | tojson) -%}"
    "{%- endfor -%}"
    "{%- set tool_text = ns.text + '\\n" + _TOOLS_RULE + "' -%}"
    "{%- set lead = (lead + '\\n\\n' + tool_text) if lead else tool_text -%}"
    "{%- endif -%}"
    "{%- if lead -%}"
    "{{- '" + TURN_START + "system\\n' + lead + '" + TURN_END + "\\n' -}}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if not (loop.first and message['role'] == 'system') -%}"
    "{{- '" + TURN_START + "' + message['role'] + '\\n' -}}"
    "{%- if message['content'] -%}{{- message['content'] -}}{%- endif -%}"
    "{%- if message['tool_calls'] -%}"
    "{%- for call in message['tool_calls'] -%}"
    "{%- set f = call.function if call.function else call -%}"
    '{{- \'<tool_call>{"name": "\' + f.name + \'", "arguments": \' -}}'
    "{%- if f.arguments is string -%}{{- f.arguments -}}"
    "{%- else -%}{{- f.arguments | tojson -}}{%- endif -%}"
    "{{- '}</tool_call>' -}}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{{- '" + TURN_END + "\\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '" + TURN_START + "assistant\\n' -}}{%- endif -%}"
)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text; `is_answer` marks what the model is to write itself."""

    text: str
    is_answer: bool


def tools_message(tools: Sequence[dict[str, object]]) -> str:
    """The text by which a system message offers functions."""
    lines = [json.dumps(tool.get("function", tool)) for tool in tools]
    return "\n".join([_TOOLS_INTRODUCTION, *lines, _TOOLS_RULE])


def turn(role: str, content: str) -> list[Segment]:
    """One message; an assistant's content and its end mark are what is learnt."""
    is_answer = role == "assistant"
    return [
        Segment(f"{TURN_START}{role}\n", is_answer=False),
        Segment(f"{content}{TURN_END}", is_answer=is_answer),
        Segment("\n", is_answer=False),
    ]


def raw_text(text: str) -> list[Segment]:
    """Plain text outside any chat: all of it is learnt."""
    return [Segment(text + END_OF_TEXT, is_answer=True)]
