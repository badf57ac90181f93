"""Answers as models of each family write them, with what they come to."""

import json
from typing import NamedTuple

from backplane_core.testing.tool_parsers import read_answer
from backplane_core.tool_parsers import ToolFunction
from backplane_server.tools.builtin import FAMILIES

FUNCTIONS = (
    ToolFunction(
        name="get_weather",
        description="Weather in a city.",
        parameters={
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    ),
    ToolFunction(name="now"),
    ToolFunction(name="run-code", parameters={"properties": {"source": {"type": "string"}}}),
)
PARSERS = {family.name: family for family in FAMILIES}


class Answer(NamedTuple):
    """The text, and what it comes to: content, and calls as name and arguments' JSON text."""

    text: str
    content: str
    calls: tuple[tuple[str, str], ...]


OSLO = '{"city": "Oslo"}'
CALL = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
LLAMA = '{"name": "get_weather", "parameters": {"city": "Oslo"}}'
WEATHER = ("get_weather", OSLO)
NOW = ("now", "{}")
ESCAPES = '{"source": "a\\n\\"\\u00e9\\ud83d\\ude00 é"}'
LITERALS = (
    '{"a": true, "b": [false, null], "c": {"x": -1.5e3}, "d": [1, [2]], "e": true, "f": null}'
)
STRINGS = (
    '{"a": "say \\"hi\\"", "b": "it\'s", '
    '"c": "a\\n\\u0041\\u00e9\\ud83d\\ude00\\\\d\'", "d": "é\\n"}'
)
DEEP = "[" * 64 + "]" * 64
LONG_NAME = "a" * 70

ANSWERS = {
    "hermes": {
        "no call": Answer("Hello there.", "Hello there.", ()),
        "no call, with space": Answer(" \n Hi\n\n", " \n Hi\n\n", ()),
        "empty": Answer("", "", ()),
        "demo model": Answer(f"<tool_call>{CALL}</tool_call>", "", (WEATHER,)),
        "qwen": Answer(f"<tool_call>\n{CALL}\n</tool_call>", "", (WEATHER,)),
        "words first": Answer(
            f"Let me look.\n\n<tool_call>\n{CALL}\n</tool_call>", "Let me look.", (WEATHER,)
        ),
        "two": Answer(
            f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n"
            '{"name": "now", "arguments": {}}\n</tool_call>',
            "",
            (WEATHER, NOW),
        ),
        "two in one block": Answer(
            f'<tool_call>\n{CALL}\n{{"name": "now"}}\n</tool_call>', "", (WEATHER, NOW)
        ),
        "words between and after": Answer(
            f"One.\n<tool_call>{CALL}</tool_call>\nTwo.\n<tool_call>{CALL}</tool_call> Three. ",
            "One.\nTwo. Three.",
            (WEATHER, WEATHER),
        ),
        "arguments first": Answer(
            '<tool_call>{"arguments": {"city": "Oslo"}, "name": "get_weather"}</tool_call>',
            "",
            (WEATHER,),
        ),
        "arguments as text": Answer(
            f'<tool_call>{{"name": "get_weather", "arguments": {json.dumps(OSLO)}}}</tool_call>',
            "",
            (WEATHER,),
        ),
        "arguments as other text": Answer(
            '<tool_call>{"name": "now", "arguments": "later"}</tool_call>',
            '{"name": "now", "arguments": "later"}',
            (),
        ),
        "arguments null": Answer(
            '<tool_call>{"name": "now", "arguments": null}</tool_call>', "", (NOW,)
        ),
        "arguments no object": Answer(
            '<tool_call>{"name": "now", "arguments": [1]}</tool_call>',
            '{"name": "now", "arguments": [1]}',
            (),
        ),
        "id and type": Answer(
            '<tool_call>{"id": 1, "type": "function", "name": "now", "arguments": {}}</tool_call>',
            "",
            (NOW,),
        ),
        "spacing is kept": Answer(
            '<tool_call>{"name":"now","arguments":{ "a":1,\n"b" : [ ] }}</tool_call>',
            "",
            (("now", '{ "a":1,\n"b" : [ ] }'),),
        ),
        "escapes are kept": Answer(
            f'<tool_call>{{"name": "run-code", "arguments": {ESCAPES}}}</tool_call>',
            "",
            (("run-code", ESCAPES),),
        ),
        "raw line breaks are escaped": Answer(
            '<tool_call>{"name": "run-code", "arguments": {"source": "a\n\tb"}}</tool_call>',
            "",
            (("run-code", '{"source": "a\\n\\tb"}'),),
        ),
        "marks inside of a string": Answer(
            '<tool_call>{"name": "run-code", "arguments": {"source": "</tool_call>}"}}</tool_call>',
            "",
            (("run-code", '{"source": "</tool_call>}"}'),),
        ),
        "trailing comma": Answer(
            '<tool_call>{"name": "now", "arguments": {"a": [1, 2, ], }}</tool_call>',
            "",
            (("now", '{"a": [1, 2]}'),),
        ),
        "a brace too many": Answer(f"<tool_call>{CALL}}}</tool_call>", "", (WEATHER,)),
        "a brace too few": Answer(f"<tool_call>{CALL[:-1]}</tool_call> Ok", "Ok", (WEATHER,)),
        "no closing mark": Answer(f"<tool_call>{CALL}", "", (WEATHER,)),
        "no closing mark, two": Answer(
            f"<tool_call>{CALL}\n<tool_call>{CALL}", "", (WEATHER, WEATHER)
        ),
        "no such function": Answer(
            '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
            '{"name": "rm", "arguments": {}}',
            (),
        ),
        "no JSON": Answer("<tool_call>now()</tool_call>", "now()", ()),
        "talk of marks": Answer("Write <tool_call> first.", "Write  first.", ()),
        "nearly a mark": Answer("a <tool_cal> b <tool", "a <tool_cal> b <tool", ()),
        "marks from marks": Answer("x<tool_<tool_call>call>y", "xy", ()),
        "key twice": Answer(
            '<tool_call>{"name": "now", "name": "now"}</tool_call>',
            '{"name": "now", "name": "now"}',
            (),
        ),
        "unknown key": Answer('<tool_call>{"nom": "now"}</tool_call>', '{"nom": "now"}', ()),
        "a name too long": Answer(
            f'<tool_call>{{"name": "{LONG_NAME * 6}"}}</tool_call>',
            f'{{"name": "{LONG_NAME * 6}"}}',
            (),
        ),
        "stops being JSON": Answer(
            '<tool_call>{"name": "get_weather", "arguments": {"city": Oslo}}</tool_call>\nOk',
            "Ok",
            (("get_weather", '{"city": '),),
        ),
        "too deep": Answer(
            f'<tool_call>{{"name": "now", "arguments": {{"a": {DEEP}}}}}</tool_call>',
            "",
            (("now", '{"a": ' + "[" * 63),),
        ),
        "cut off in the arguments": Answer(
            f"<tool_call>{CALL[:-5]}", "", (("get_weather", '{"city": "Os'),)
        ),
        "cut off in the name": Answer('<tool_call>{"name": "get_', '{"name": "get_', ()),
        "cut off in another call": Answer(
            f'Hi <tool_call>{CALL}</tool_call><tool_call>{{"name": "get_', "Hi", (WEATHER,)
        ),
    },
    "mistral": {
        "no call": Answer("Hello [1].", "Hello [1].", ()),
        "array": Answer(f"[TOOL_CALLS][{CALL}]", "", (WEATHER,)),
        "array, spaced": Answer(f"[TOOL_CALLS] [ {CALL} ]", "", (WEATHER,)),
        "array of two": Answer(
            f'[TOOL_CALLS][{CALL}, {{"name": "now", "arguments": {{}}, "id": "abcdefghi"}}]',
            "",
            (WEATHER, NOW),
        ),
        "words first": Answer(f"Wait.[TOOL_CALLS][{CALL}]", "Wait.", (WEATHER,)),
        "names": Answer(
            f"[TOOL_CALLS]get_weather[ARGS]{OSLO}[TOOL_CALLS]now[ARGS]{{}}", "", (WEATHER, NOW)
        ),
        "names with ids": Answer(
            f"[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{OSLO}", "", (WEATHER,)
        ),
        "names, mark left out": Answer(f"[TOOL_CALLS]get_weather{OSLO}", "", (WEATHER,)),
        "one object": Answer(f"[TOOL_CALLS]{CALL} Bye", "Bye", (WEATHER,)),
        "no such function": Answer("[TOOL_CALLS]rm[ARGS]{}", "rm{}", ()),
        "no such function in the array": Answer(
            f'[TOOL_CALLS][{CALL}, {{"name": "rm"}}]', '{"name": "rm"}]', (WEATHER,)
        ),
        "an array of something else": Answer("[TOOL_CALLS][1, 2]", "[1, 2]", ()),
        "name alone": Answer("[TOOL_CALLS]now", "now", ()),
        "name and words": Answer("[TOOL_CALLS]now or never", "now or never", ()),
        "name too long": Answer(f"[TOOL_CALLS]{LONG_NAME}", LONG_NAME, ()),
        "nearly a mark": Answer("[TOOL_CALL] [TOOL_C", "[TOOL_CALL] [TOOL_C", ()),
        "stops being JSON": Answer(
            f"[TOOL_CALLS]now[ARGS]{{a}} x [TOOL_CALLS]get_weather[ARGS]{OSLO}",
            "",
            (("now", "{"), WEATHER),
        ),
        "cut off": Answer(
            "[TOOL_CALLS]get_weather[ARGS]" + OSLO[:-1], "", (("get_weather", OSLO[:-1]),)
        ),
        "cut off in the mark": Answer("[TOOL_CALLS]now[AR", "now[AR", ()),
        "cut off in the array": Answer(f'[TOOL_CALLS][{CALL}, {{"name": "', "", (WEATHER,)),
        "cut off in another name": Answer("[TOOL_CALLS]now{}[TOOL_CALLS]no", "", (NOW,)),
        "cut off behind another name": Answer("[TOOL_CALLS]now{}[TOOL_CALLS]now[AR", "", (NOW,)),
    },
    "llama3_json": {
        "no call": Answer("Hello.", "Hello.", ()),
        "one": Answer(LLAMA, "", (WEATHER,)),
        "one, spaced": Answer(f"\n\n{LLAMA}\n", "", (WEATHER,)),
        "tag": Answer(f"<|python_tag|>{LLAMA}", "", (WEATHER,)),
        "llama 4": Answer(f"<|python_start|>{LLAMA}<|python_end|>", "", (WEATHER,)),
        "two": Answer(f'{LLAMA}; {{"name": "now", "parameters": {{}}}}', "", (WEATHER, NOW)),
        "two on lines": Answer(f"{LLAMA}\n{LLAMA}", "", (WEATHER, WEATHER)),
        "type first": Answer('{"type": "function", "name": "now", "parameters": {}}', "", (NOW,)),
        "function for name": Answer(
            '{"type": "function", "function": "now", "parameters": {}}', "", (NOW,)
        ),
        "words first, then the tag": Answer(
            f"I will look. <|python_tag|>{LLAMA}", "I will look.", (WEATHER,)
        ),
        "words first, no tag": Answer(f"So: {LLAMA}", f"So: {LLAMA}", ()),
        "words after": Answer(f"{LLAMA} There.", "There.", (WEATHER,)),
        "no arguments is no call": Answer('{"name": "now"}', '{"name": "now"}', ()),
        "other JSON": Answer('{"city": "Oslo"}', '{"city": "Oslo"}', ()),
        "no such function": Answer(
            '{"name": "rm", "parameters": {}}', '{"name": "rm", "parameters": {}}', ()
        ),
        "built-in tools are not ours": Answer(
            '<|python_tag|>brave_search.call(query="x")', 'brave_search.call(query="x")', ()
        ),
        "cut off": Answer(LLAMA[:-2], "", (("get_weather", OSLO[:-1]),)),
        "cut off in another call": Answer(LLAMA + '; {"na', "", (WEATHER,)),
    },
    "pythonic": {
        "no call": Answer("Hello.", "Hello.", ()),
        "one": Answer('[get_weather(city="Oslo")]', "", (WEATHER,)),
        "two": Answer('[get_weather(city="Oslo"), now()]', "", (WEATHER, NOW)),
        "llama 4": Answer(
            "<|python_start|>[get_weather(city='Oslo')]<|python_end|>", "", (WEATHER,)
        ),
        "spaced": Answer(' [ get_weather ( city = "Oslo" , ) , ] ', "", (WEATHER,)),
        "literals": Answer(
            "[now(a=True, b=[False, None], c={'x': -1.5e3, }, d=(1, (2,)), e=true, f=null)]",
            "",
            (("now", LITERALS),),
        ),
        "strings": Answer(
            """[now(a='say "hi"', b="it's", c="a\\n\\x41\\u00e9\\U0001f600\\d\\'", d='é\n')]""",
            "",
            (("now", STRINGS),),
        ),
        "hyphens": Answer('[run-code(source="x")]', "", (("run-code", '{"source": "x"}'),)),
        "words after": Answer("[now()] There.", "There.", (NOW,)),
        "words first": Answer("So: [now()]", "So: [now()]", ()),
        "a list of something else": Answer("[1, 2, now]", "[1, 2, now]", ()),
        "no such function": Answer("[rm(a=1)]", "[rm(a=1)]", ()),
        "no such function behind one": Answer("[now(), rm(a=1)]", "rm(a=1)]", (NOW,)),
        "positional": Answer('[get_weather("Oslo")]', '[get_weather("Oslo")]', ()),
        "unpacked": Answer('[now(**{"a": 1})]', '[now(**{"a": 1})]', ()),
        "a name, not a call": Answer("[now, then]", "[now, then]", ()),
        "code is not evaluated": Answer("[now(a=__import__('os'))] x", "", (("now", '{"a": '),)),
        "an expression": Answer("[now(a=1+1)]", "", (("now", '{"a": '),)),
        "a keyword twice": Answer("[now(a=1, a=2)]", "", (("now", '{"a": 1'),)),
        "a character beyond Unicode": Answer("[now(a='\\Uffffffff')]", "", (("now", '{"a": "'),)),
        "cut off in a call": Answer("[now(a='x", "", (("now", '{"a": "x'),)),
        "cut off in a name": Answer("[now(), get_wea", "", (NOW,)),
        "cut off in something else": Answer("[now(), get_wet", "get_wet", (NOW,)),
        "cut off in another call": Answer("[now(), get_weather(ci", "", (NOW,)),
        "cut off in a keyword": Answer("[now(a=1, be", "", (("now", '{"a": 1'),)),
    },
    "json": {
        "no call": Answer("Hello.", "Hello.", ()),
        "one": Answer(CALL, "", (WEATHER,)),
        "parameters": Answer(LLAMA, "", (WEATHER,)),
        "array": Answer(f'[{CALL}, {{"name": "now", "arguments": {{}}}}]', "", (WEATHER, NOW)),
        "fence": Answer(f"```json\n{CALL}\n```", "", (WEATHER,)),
        "fence without language": Answer(f"```\n[{CALL}]\n```\n", "", (WEATHER,)),
        "words, then a fence": Answer(
            f"I will look.\n\n```json\n{CALL}\n```\nWait.", "I will look.\nWait.", (WEATHER,)
        ),
        "words, then bare": Answer(f"So: {CALL}", f"So: {CALL}", ()),
        "other JSON": Answer('{"name": "Ann", "age": 7}', '{"name": "Ann", "age": 7}', ()),
        "other JSON in a fence": Answer(
            'Here:\n```json\n{"a": [1]}\n```\n', 'Here:\n```json\n{"a": [1]}\n```\n', ()
        ),
        "other code": Answer("```python\nx = 1\n```", "```python\nx = 1\n```", ()),
        "a list of something else": Answer("[ [1], 2]", "[ [1], 2]", ()),
        "no arguments is no call": Answer('[{"name": "now"}]', '[{"name": "now"}]', ()),
        "no such function": Answer(
            '{"name": "rm", "arguments": {}}', '{"name": "rm", "arguments": {}}', ()
        ),
        "cut off in a fence": Answer("``", "``", ()),
        "cut off in an array": Answer("```json\n[\n", "```json\n[\n", ()),
        "cut off": Answer(CALL[:-2], "", (("get_weather", OSLO[:-1]),)),
        "cut off in another call": Answer(f'[{CALL}, {{"name": "now", ', "", (WEATHER,)),
    },
}
CASES = [(family, case) for family, answers in ANSWERS.items() for case in answers]


def parsed(family, pieces):
    return read_answer(PARSERS[family], FUNCTIONS, pieces)
