"""What every family's grammar, a plugin's too, is given of the functions that may be called."""

from backplane_core.tool_parsers import ToolFunction
from backplane_server.tools.enforceable import enforceable

CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "where"}}}


def schemas(*parameters):
    functions = [
        ToolFunction(name=f"f{number}", parameters=each) for number, each in enumerate(parameters)
    ]
    return [each.parameters for each in enforceable(functions, functions, older=False)]


def test_arguments_are_closed_and_without_words_for_people():
    [schema] = schemas(CITY)
    assert schema == {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "additionalProperties": False,
    }
    assert CITY["properties"]["city"]["description"] == "where", "the request's own is left alone"


def test_what_declares_nothing_takes_nothing():
    nothing = {"type": "object", "properties": {}, "additionalProperties": False}
    assert schemas({}, {"type": "object", "properties": {}}) == [nothing, nothing]


def test_what_is_open_on_purpose_stays_open():
    [schema] = schemas({**CITY, "additionalProperties": True})
    assert schema["additionalProperties"] is True
