"""What a request asks of tools, from its JSON: who may be called, and whether someone has to be.

Knows the request values of OpenAI and of TGI, older forms included; nothing of HTTP.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import msgspec
from backplane_core.errors import ToolError
from backplane_core.messages import Grammar
from backplane_core.tool_parsers import ToolFunction, ToolParser

from backplane_server.tools.choice import Choice, read_choice, read_older_choice
from backplane_server.tools.enforceable import enforceable
from backplane_server.tools.functions import read_functions, read_tools
from backplane_server.tools.json_values import refuse

_CHOICE: Final = "tool_choice"
_MAX_NAME_CHARS: Final = 64
_MAX_NAMES_TOLD: Final = 20
_OPENING: Final = re.compile(r"\{[{%]")
_CLOSING: Final = re.compile(r"[%}]\}")
_TOOLS: Final = re.compile(r"\btools\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPlan:
    """How tools take part in one request.

    Attributes:
        functions: those that may be called; a call to any other is content.
        parser_class: the family that reads them.
        parallel: whether there may be several calls.
        grammar: of an answer that has to be calls; None where the model chooses.
        special_literals: marks that are to be decoded into the text.
        template_tools: what the chat template is given as `tools`: OpenAI's shape.
        forced_name: the function that has to be called, where one was named.
        older: asked for as `functions`, so the answer's call is told as `function_call`.
    """

    functions: tuple[ToolFunction, ...]
    parser_class: type[ToolParser]
    parallel: bool
    grammar: Grammar | None
    special_literals: frozenset[str]
    template_tools: list[dict[str, Any]]
    forced_name: str | None = None
    older: bool = False

    @property
    def required(self) -> bool:
        """Whether the answer has to be a call."""
        return self.grammar is not None

    def parser(self) -> ToolParser:
        """A parser for one answer."""
        return self.parser_class(self.functions)

    def prompt(self, tool_prompt: str | None = None) -> str:
        """The tools in words, for the end of the last message, as TGI adds them.

        For models whose chat template says nothing of tools (`mentions_tools`).

        Args:
            tool_prompt: the client's words on how to call; None or empty is the family's.
        """
        described = msgspec.json.encode([tool["function"] for tool in self.template_tools])
        instruction = tool_prompt or self.parser_class.instruction
        return f"\n---\n{described.decode()}\n{instruction}"


def plan_tools(
    tools: Any,
    tool_choice: Any,
    parallel_tool_calls: bool | None,
    *,
    parser: type[ToolParser],
    special_tokens: Mapping[str, int],
    functions: Any = None,
    function_call: Any = None,
) -> ToolPlan | None:
    """Read what a request says of tools, as it came from JSON.

    Args:
        tools: OpenAI's list; TGI's `arguments` for `parameters` is taken.
        tool_choice: "auto", "none", "required", a function's name or OpenAI's objects.
        parallel_tool_calls: whether there may be several calls; None is yes.
        parser: the model's family.
        special_tokens: the vocabulary's special tokens by their literals.
        functions: the older form of `tools`, unwrapped.
        function_call: the older form of `tool_choice`, which goes with `functions`.

    Returns:
        None where no tools take part: none were given, or the choice is "none". The model is not
        shown them then, so it cannot write calls that nobody reads.

    Raises:
        ValidationError: a value is wrong; names its field.
        ToolError: a function that is not among the tools is chosen.
    """
    older = not tools and bool(functions)
    newer_choice, older_choice = read_choice(tool_choice), read_older_choice(function_call)
    if tools and functions:
        refuse("functions", "and `tools` exclude each other")
    if older and newer_choice.required:
        refuse(_CHOICE, "goes with `tools`; with `functions` it is `function_call`")
    if not older and older_choice.required:
        refuse("function_call", "goes with `functions`; with `tools` it is `tool_choice`")
    choice = older_choice if older else newer_choice
    offered = read_functions(functions) if older else read_tools(tools)
    if not offered:
        if choice.names or choice.required:
            refuse(_CHOICE, "asks for a call, but there are no `tools`")
        return None
    if choice.none:
        return None
    allowed = _allowed(offered, choice, older=older)
    forced_name = allowed[0].name if choice.named else None
    parallel = parallel_tool_calls is not False and forced_name is None and not older
    special = {
        literal: special_tokens[literal]
        for literal in parser.special_literals
        if literal in special_tokens
    }
    grammar = None
    if choice.required:
        grammar = parser.grammar(
            enforceable(offered, allowed, older=older), parallel=parallel, special_tokens=special
        )
    return ToolPlan(
        functions=allowed,
        parser_class=parser,
        parallel=parallel,
        grammar=grammar,
        special_literals=frozenset(special),
        template_tools=[_template_tool(function) for function in offered],
        forced_name=forced_name,
        older=older,
    )


@lru_cache(maxsize=8)
def mentions_tools(template: str) -> bool:
    """Whether a chat template shows a model its tools. Words of its text do not count."""
    position = 0
    while opening := _OPENING.search(template, position):
        closing = _CLOSING.search(template, opening.end())
        position = len(template) if closing is None else closing.end()
        if _TOOLS.search(template, opening.end(), position):
            return True
    return False


def _allowed(
    offered: list[ToolFunction], choice: Choice, *, older: bool
) -> tuple[ToolFunction, ...]:
    if not choice.names:
        return tuple(offered)
    by_name = {function.name: function for function in offered}
    for name in choice.names:
        if name not in by_name:
            field = "function_call" if older else _CHOICE
            raise ToolError(
                f"`{field}`: no function is called {name[:_MAX_NAME_CHARS]!r}; "
                f"offered are: {_shown(by_name)}",
                parameter=field,
            )
    return tuple(by_name[name] for name in choice.names)


def _shown(names: Iterable[str]) -> str:
    """The first few, cut."""
    first = [name[:_MAX_NAME_CHARS] for name in islice(names, _MAX_NAMES_TOLD + 1)]
    if len(first) > _MAX_NAMES_TOLD:
        first[-1] = "…"
    return ", ".join(first)


def _template_tool(function: ToolFunction) -> dict[str, Any]:
    described: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        described["description"] = function.description
    described["parameters"] = function.parameters
    return {"type": "function", "function": described}
