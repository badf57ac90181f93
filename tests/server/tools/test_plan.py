"""What requests say of tools, in every form clients write it in, and what is wrong said by name."""

import tracemalloc

import pytest
from backplane_core.errors import ToolError, ValidationError
from backplane_server.grammars.sources import MAX_SOURCE_BYTES
from backplane_server.tools.enforceable import MAX_BYTES_WITH_WORDS
from backplane_server.tools.hermes import HermesParser
from backplane_server.tools.mistral import MistralParser
from backplane_server.tools.plan import mentions_tools, plan_tools

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather.", "parameters": SCHEMA},
}
NOW = {"type": "function", "function": {"name": "now"}}


def plan(tools=None, choice=None, parallel=None, *, parser=HermesParser, special=None, **older):
    return plan_tools(tools, choice, parallel, parser=parser, special_tokens=special or {}, **older)


def names(made):
    return [function.name for function in made.functions]


@pytest.mark.parametrize("tools", [None, []])
@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_without_tools_there_is_no_plan(tools, choice):
    assert plan(tools, choice) is None


@pytest.mark.parametrize("choice", [None, "auto", {"type": "auto"}])
def test_auto_leaves_the_choice_to_the_model(choice):
    made = plan([WEATHER, NOW], choice)
    assert names(made) == ["get_weather", "now"]
    assert (made.grammar, made.forced_name, made.parallel, made.required) == (
        None,
        None,
        True,
        False,
    )
    assert isinstance(made.parser(), HermesParser)


def test_with_none_the_model_is_not_shown_tools():
    assert plan([WEATHER], "none") is None


@pytest.mark.parametrize("choice", ["required", "any", {"type": "required"}])
def test_required_is_enforced_by_a_grammar_of_all(choice):
    made = plan([WEATHER, NOW], choice)
    assert made.required
    assert made.forced_name is None
    assert "get_weather" in made.grammar.source
    assert "now" in made.grammar.source


NAMED = [
    "now",
    {"type": "function", "function": {"name": "now"}},
    {"function": {"name": "now"}},
    {"type": "function", "name": "now"},
    {"name": "now"},
]


@pytest.mark.parametrize("choice", NAMED)
def test_a_named_function_is_the_only_one_and_called_once(choice):
    made = plan([WEATHER, NOW], choice, True)
    assert (names(made), made.forced_name, made.parallel) == (["now"], "now", False)
    assert "get_weather" not in made.grammar.source
    assert len(made.template_tools) == 2, "the template is shown all"


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_are_some_of_them(mode):
    choice = {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": mode,
            "tools": [{"type": "function", "function": {"name": "now"}}],
        },
    }
    made = plan([WEATHER, NOW], choice)
    assert (names(made), made.required, made.forced_name) == (["now"], mode == "required", None)


def test_calls_are_one_where_that_is_asked_for():
    assert plan([NOW], "auto", False).parallel is False
    assert "{0," not in plan([NOW], "required", False).grammar.source
    assert "{0," in plan([NOW], "required", True).grammar.source


def test_the_template_gets_openais_shape():
    bare = {"function": {"name": "a", "arguments": SCHEMA}}
    assert plan([WEATHER, NOW, bare]).template_tools == [
        WEATHER,
        {
            "type": "function",
            "function": {"name": "now", "parameters": {"type": "object", "properties": {}}},
        },
        {"type": "function", "function": {"name": "a", "parameters": SCHEMA}},
    ]


def test_the_older_forms_are_the_same():
    made = plan(functions=[WEATHER["function"], NOW["function"]], function_call={"name": "now"})
    assert (names(made), made.forced_name, made.older) == (["now"], "now", True)
    assert made.template_tools[0] == WEATHER
    assert plan(functions=[NOW["function"]], function_call="none") is None
    auto = plan(functions=[NOW["function"]], function_call="auto")
    assert (auto.required, auto.older, auto.parallel) == (False, True, False)


def test_special_tokens_of_the_family_are_shown_and_named():
    special = {"[TOOL_CALLS]": 5, "[ARGS]": 32, "<s>": 1}
    made = plan([NOW], "required", parser=MistralParser, special=special)
    assert made.special_literals == {"[TOOL_CALLS]", "[ARGS]"}
    assert '<[5]> "now" <[32]>' in made.grammar.source


def test_schemas_that_are_enforced_are_prepared_and_the_clients_stays_as_it_is():
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **SCHEMA}
    tool = {"type": "function", "function": {"name": "now", "parameters": schema}}
    made = plan([tool], "required")
    assert "$schema" not in made.grammar.source
    assert made.template_tools[0]["function"]["parameters"] == schema


def tool(**function):
    return [{"type": "function", "function": {"name": "a", **function}}]


DEEP = {"type": "object"}
for _ in range(70):
    DEEP = {"type": "object", "properties": {"a": DEEP}}
WRONG = {
    "tools no list": ({"tools": {"a": 1}}, "tools"),
    "tools of text": ({"tools": ["now"]}, "tools[0]"),
    "too many": ({"tools": [NOW] * 1025}, "tools"),
    "another type": ({"tools": [NOW, {"type": "web_search"}]}, "tools[1].type"),
    "no function": ({"tools": [{"type": "function"}]}, "tools[0].function"),
    "function no object": ({"tools": [{"function": "now"}]}, "tools[0].function"),
    "no name": ({"tools": [{"function": {}}]}, "tools[0].function.name"),
    "name no text": ({"tools": tool(name=1)}, "tools[0].function.name"),
    "name with a space": ({"tools": tool(name="a b")}, "tools[0].function.name"),
    "name with a line break": ({"tools": tool(name="a\n")}, "tools[0].function.name"),
    "name too long": ({"tools": tool(name="a" * 65)}, "tools[0].function.name"),
    "name twice": ({"tools": [WEATHER, NOW, NOW]}, "tools[2].function.name"),
    "description no text": ({"tools": tool(description=1)}, "tools[0].function.description"),
    "parameters no object": ({"tools": tool(parameters=[])}, "tools[0].function.parameters"),
    "parameters of text": (
        {"tools": tool(parameters={"type": "string"})},
        "tools[0].function.parameters.type",
    ),
    "properties no object": (
        {"tools": tool(parameters={"properties": []})},
        "tools[0].function.parameters.properties",
    ),
    "TGI's arguments": ({"tools": tool(arguments=3)}, "tools[0].function.arguments"),
    "too deep": ({"tools": tool(parameters=DEEP)}, "tools[0].function.parameters"),
    "schema wrong, enforced": (
        {"tools": tool(parameters={"properties": {"a": 1}}), "choice": "required"},
        "tools[0].function.parameters",
    ),
    "schema elsewhere, enforced": (
        {"tools": tool(parameters={"$ref": "https://a.b/c"}), "choice": "a"},
        "tools[0].function.parameters",
    ),
    "required of nothing": ({"choice": "required"}, "tool_choice"),
    "named of nothing": ({"tools": [], "choice": "now"}, "tool_choice"),
    "choice a number": ({"tools": [NOW], "choice": 1}, "tool_choice"),
    "choice empty": ({"tools": [NOW], "choice": ""}, "tool_choice"),
    "choice a list": ({"tools": [NOW], "choice": ["now"]}, "tool_choice"),
    "choice of another type": ({"tools": [NOW], "choice": {"type": "mcp"}}, "tool_choice.type"),
    "choice without a name": ({"tools": [NOW], "choice": {"type": "function"}}, "tool_choice.name"),
    "choice without its name": (
        {"tools": [NOW], "choice": {"function": {}}},
        "tool_choice.function.name",
    ),
    "allowed nothing": (
        {"tools": [NOW], "choice": {"type": "allowed_tools", "tools": []}},
        "tool_choice.allowed_tools.tools",
    ),
    "allowed in no mode": (
        {"tools": [NOW], "choice": {"type": "allowed_tools", "mode": "none", "tools": [NOW]}},
        "tool_choice.allowed_tools.mode",
    ),
    "allowed text": (
        {"tools": [NOW], "choice": {"type": "allowed_tools", "tools": ["now"]}},
        "tool_choice.allowed_tools.tools[0]",
    ),
    "both forms": ({"tools": [NOW], "functions": [NOW["function"]]}, "functions"),
    "older choice of tools": (
        {"tools": [NOW], "function_call": {"name": "now"}},
        "function_call",
    ),
    "older choice of nothing": ({"function_call": {"name": "now"}}, "function_call"),
    "newer choice of functions": (
        {"functions": [NOW["function"]], "choice": "required"},
        "tool_choice",
    ),
    "older name twice": ({"functions": [NOW["function"]] * 2}, "functions[1].name"),
    "older wrapped": ({"functions": [NOW]}, "functions[0].name"),
    "older choice": (
        {"functions": [NOW["function"]], "function_call": "required"},
        "function_call",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_its_field(case):
    values, field = WRONG[case]
    with pytest.raises(ValidationError) as caught:
        plan(**values)
    assert caught.value.parameter == field
    assert field.split(".")[0] in caught.value.message


# ── what it may cost ─────────────────────────────────────────────────────────────────────


def most_memory(make):
    """Bytes at most while a plan is made, and what was said against it."""
    tracemalloc.start()
    try:
        with pytest.raises(ValidationError) as caught:
            make()
        return tracemalloc.get_traced_memory()[1], caught.value
    finally:
        tracemalloc.stop()


def test_a_long_key_above_many_schemas_costs_no_more_than_its_length():
    many = {f"p{number}": True for number in range(4000)} | {"last": 5}
    tools = tool(parameters={"properties": {"A" * 60_000: {"properties": many}}})
    most, error = most_memory(lambda: plan(tools, "required"))
    assert "must be a JSON schema" in error.message
    assert len(error.message) < 300
    assert most < 5_000_000


@pytest.mark.parametrize(
    ("words", "limit"),
    [({}, MAX_SOURCE_BYTES), ({"description": "x" * 4000}, MAX_BYTES_WITH_WORDS)],
)
@pytest.mark.parametrize("field", ["tools", "functions"])
def test_schemas_that_are_enforced_are_bounded_together(field, words, limit):
    properties = {f"p{number}": {"type": "integer", **words} for number in range(50)}
    functions = [{"name": f"f-{n}", "parameters": {"properties": properties}} for n in range(200)]
    huge = {"name": "huge", "parameters": {"properties": properties, "enum": ["x"] * (limit // 4)}}
    if field == "functions":
        made = plan(functions=[*functions, huge], function_call={"name": "f-7"})
        assert made.required, "those that are not allowed do not count"
        asked = {"functions": [*functions, huge], "function_call": {"name": "huge"}}
    else:
        tools = [{"function": function} for function in functions]
        assert plan(tools, "auto").grammar is None, "what is not enforced is not bounded"
        asked = {"tools": tools, "choice": "required"}
    most, error = most_memory(lambda: plan(**asked))
    assert error.parameter == field
    assert f"`{field}`" in error.message
    assert f"more than {limit} bytes" in error.message
    assert most < 3_000_000, "nothing is built of them"


def test_words_for_people_do_not_count():
    parameters = {
        "description": "x" * MAX_SOURCE_BYTES,
        "properties": {"a": {"description": "y" * MAX_SOURCE_BYTES}},
    }
    made = plan(tool(parameters=parameters), "required")
    assert len(made.grammar.source) < 1000
    assert made.template_tools[0]["function"]["parameters"] == parameters


@pytest.mark.parametrize("choice", ["later", {"function": {"name": "later"}}])
def test_a_function_that_there_is_not_is_a_tool_error(choice):
    with pytest.raises(ToolError) as caught:
        plan([NOW], choice)
    assert str(caught.value) == (
        f"`tool_choice`: no function is called 'later'; offered are: {NOW['function']['name']}"
    )


def test_of_many_functions_the_first_are_named_and_cut():
    many = [NOW | {"function": {"name": f"f{number}_x"}} for number in range(30)]
    with pytest.raises(ToolError) as caught:
        plan(many, "later")
    message = str(caught.value)
    assert "f19_" in message
    assert "f20_" not in message
    assert message.endswith(", …")


def test_tools_are_told_in_words_where_the_template_says_nothing_of_them():
    told = plan([WEATHER]).prompt()
    assert told.startswith('\n---\n[{"name":"get_weather","description":"Weather.","parameters":{')
    assert told.endswith("once for each call.")
    assert plan([WEATHER]).prompt("Call!").endswith("]\nCall!")
    assert plan([WEATHER]).prompt("") == told


@pytest.mark.parametrize(
    ("template", "mentioned"),
    [
        ("{% for t in tools %}{% endfor %}", True),
        ("{%- if messages and\n tools -%}", True),
        ("{{ tools | tojson }}", True),
        ("You have no tools. {{ messages }}", False),
        ("{{ messages }} tools {{ x }}", False),
        ("{% if builtin_tools %}", False),
    ],
)
def test_whether_a_template_shows_tools(template, mentioned):
    assert mentions_tools(template) is mentioned
