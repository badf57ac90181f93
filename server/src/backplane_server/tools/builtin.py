"""The built-in families, registered through the hook that plugins use."""

from backplane_core.hookspecs import RegisterToolParser, hookimpl

from backplane_server.tools.generic_json import JsonParser
from backplane_server.tools.hermes import HermesParser
from backplane_server.tools.llama3_json import Llama3JsonParser
from backplane_server.tools.mistral import MistralParser
from backplane_server.tools.pythonic import PythonicParser

# "auto" takes the first whose template matches, so the most particular marks come first.
FAMILIES = (HermesParser, MistralParser, PythonicParser, Llama3JsonParser, JsonParser)


@hookimpl
def backplane_register_tool_parsers(register: RegisterToolParser) -> None:
    """Register them, in the order in which "auto" tries them."""
    for family in FAMILIES:
        register(family)
