"""From a chat request to what its template is given: messages, tools, variables."""

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from backplane_core.errors import ToolError, ValidationError

from backplane_server.dialects.chat_messages import template_messages, with_words_after
from backplane_server.dialects.chat_types import ChatRequest
from backplane_server.dialects.constraints import constraint_of
from backplane_server.dialects.not_yet import refuse_not_yet
from backplane_server.dialects.openai import refuse_template
from backplane_server.dialects.travelling import can_travel
from backplane_server.services.served_model import ServedModel
from backplane_server.templates.chat_prompt import RESERVED, TemplateOptions
from backplane_server.tools.plan import ToolPlan, mentions_tools, plan_tools

_MAX_VARIABLES: Final = 64
_MAX_NAME_CHARS: Final = 64
_MAX_VARIABLE_BYTES: Final = 64 * 1024
_VARIABLE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A chat request, as far as its prompt goes.

    Attributes:
        messages: as the template takes them.
        options: what else it is given.
        tools: how tools take part; None where they do not.
    """

    messages: list[dict[str, Any]]
    options: TemplateOptions
    tools: ToolPlan | None

    @property
    def open_text(self) -> str | None:
        """The text that the answer goes on with; None where the answer is a new turn."""
        if not self.options.continues(self.messages):
            return None
        return self.messages[-1]["content"] or ""

    async def prompt(self, model: ServedModel) -> str:
        """Render it.

        Raises:
            TemplateError: no template, or it refuses the conversation.
            ValidationError: options that contradict each other.
        """
        return await model.prompter.prompt(self.messages, self.options)


def read_conversation(body: ChatRequest, model: ServedModel) -> Conversation:
    """Understand a request, before anything is rendered.

    Raises:
        ValidationError: or `UnsupportedError`, naming the parameter.
        ToolError: a function that there is not, or tools and another constraint together.
    """
    refuse_template(body)
    refuse_not_yet({"modalities": body.modalities, "audio": body.audio})
    if body.top_logprobs and not body.logprobs:
        raise ValidationError("`top_logprobs` needs `logprobs: true`", parameter="top_logprobs")
    tools = plan_tools(
        body.tools,
        body.tool_choice,
        body.parallel_tool_calls,
        parser=model.tool_parser,
        special_tokens=model.table.special_tokens,
        functions=body.functions,
        function_call=body.function_call,
    )
    if tools is not None and (constraint := constraint_of(body)) is not None:
        raise ToolError(
            f"`{constraint[0]}` and `tools` exclude each other: a call would not obey it",
            parameter=constraint[0],
            remedy="leave one out, or send `tool_choice` none",
        )
    traits = model.prompter.traits(with_tools=tools is not None)
    messages = template_messages(body.messages, traits)
    if tools is not None:
        messages = _with_tools_told(messages, tools, body.tool_prompt, model)
    return Conversation(messages=messages, options=_options(body, tools), tools=tools)


def _with_tools_told(
    messages: list[dict[str, Any]], tools: ToolPlan, tool_prompt: str | None, model: ServedModel
) -> list[dict[str, Any]]:
    """The client's word about tools at the end, as TGI puts it; the tools too, if unsaid."""
    template = model.prompter.template(with_tools=True)
    if template is not None and not mentions_tools(template):
        return with_words_after(messages, tools.prompt(tool_prompt))
    return with_words_after(messages, f"\n---\n{tool_prompt}") if tool_prompt else messages


def _options(body: ChatRequest, tools: ToolPlan | None) -> TemplateOptions:
    template_tools = None if tools is None else tools.template_tools
    for name, value in (("tools", template_tools), ("documents", body.documents)):
        if not can_travel(value):
            raise ValidationError(
                f"`{name}` is nested too deep or holds an integer beyond 64 bits", parameter=name
            )
    return TemplateOptions(
        tools=template_tools,
        documents=body.documents,
        variables=_variables(body),
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
    )


def _variables(body: ChatRequest) -> dict[str, Any]:
    variables = body.chat_template_kwargs or {}
    if len(variables) > _MAX_VARIABLES or not _is_small(variables):
        raise ValidationError(
            f"`chat_template_kwargs` may hold at most {_MAX_VARIABLES} variables in "
            f"{_MAX_VARIABLE_BYTES} bytes, without deep nesting or integers beyond 64 bits",
            parameter="chat_template_kwargs",
        )
    for name in variables:
        if name in RESERVED or not _VARIABLE.fullmatch(name):
            raise ValidationError(
                f"`chat_template_kwargs` may not set {name[:_MAX_NAME_CHARS]!r}",
                parameter="chat_template_kwargs",
                remedy="what the server sets by itself has fields of its own in a request",
            )
    if body.reasoning_effort is None:
        return variables
    return {"reasoning_effort": body.reasoning_effort, **variables}


def _is_small(variables: dict[str, Any]) -> bool:
    return can_travel(variables) and len(msgspec.json.encode(variables)) <= _MAX_VARIABLE_BYTES
