"""A conversation's messages as chat templates expect them."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from backplane_core.errors import UnsupportedError, ValidationError

from backplane_server.dialects.chat_types import FunctionCall, Message, ToolCall
from backplane_server.dialects.travelling import can_travel
from backplane_server.templates.chat_prompt import TemplateTraits

_PLAIN: Final = TemplateTraits()
_SHORT_ID: Final = re.compile(r"[A-Za-z0-9]{9}")
_SHORT_ID_CHARS: Final = 9
# What roles of the older API are called in templates.
_ROLES: Final = {"function": "tool"}


def template_messages(
    messages: Sequence[Message], traits: TemplateTraits = _PLAIN
) -> list[dict[str, Any]]:
    """The conversation as templates expect it: text parts joined, calls with their objects.

    Raises:
        UnsupportedError: a part that is not text.
        ValidationError: a call's arguments are no JSON that other programs read.
    """
    return [
        _template_message(f"messages[{number}]", message, traits)
        for number, message in enumerate(messages)
    ]


def with_words_after(messages: list[dict[str, Any]], words: str) -> list[dict[str, Any]]:
    """Messages with more text at the end of the last one's."""
    last = messages[-1]
    return [*messages[:-1], {**last, "content": f"{last.get('content') or ''}{words}"}]


def _template_message(path: str, message: Message, traits: TemplateTraits) -> dict[str, Any]:
    calls = [
        _template_call(f"{path}.tool_calls[{position}]", call, traits)
        for position, call in enumerate(message.tool_calls or [])
    ]
    if message.function_call is not None and not calls:
        older = ToolCall(id=message.function_call.name, function=message.function_call)
        calls = [_template_call(f"{path}.function_call", older, traits, inner="")]
    fields: dict[str, Any] = {
        "role": _ROLES.get(message.role, message.role),
        "content": None if calls and _has_none(message, traits) else _text(path, message),
    }
    if message.name is not None:
        fields["name"] = message.name
    call_id = message.tool_call_id
    if message.role == "function":
        call_id = call_id or message.name
    if call_id is not None:
        fields["tool_call_id"] = _id(call_id, traits)
    if message.reasoning_content is not None:
        fields["reasoning_content"] = message.reasoning_content
    if calls:
        fields["tool_calls"] = calls
    return fields


def _has_none(message: Message, traits: TemplateTraits) -> bool:
    return message.content is None and traits.knows_no_content


def _text(path: str, message: Message) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    for position, part in enumerate(message.content):
        if part.type != "text":
            name = f"{path}.content[{position}]"
            raise UnsupportedError(
                f"`{name}`: parts of type {part.type[:40]!r} are not available in this version",
                parameter=name,
            )
    return "".join(part.text or "" for part in message.content)


def _template_call(
    path: str, call: ToolCall, traits: TemplateTraits, *, inner: str = ".function"
) -> dict[str, Any]:
    """A call with its arguments as an object; JSON that cannot be one stays the text it is."""
    return {
        "id": _id(call.id or "", traits),
        "type": call.type,
        "function": {
            "name": call.function.name,
            "arguments": _arguments(f"{path}{inner}.arguments", call.function),
        },
    }


def _arguments(name: str, function: FunctionCall) -> Any:
    arguments: Any = "" if function.arguments is None else function.arguments
    if isinstance(arguments, str):
        return _decoded(arguments)
    if not can_travel(arguments):
        raise ValidationError(
            f"`{name}` is nested too deep or holds an integer beyond 64 bits", parameter=name
        )
    return arguments


def _decoded(arguments: str) -> Any:
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    return value if can_travel(value) else arguments


def _id(call_id: str, traits: TemplateTraits) -> str:
    """A call's id as the template wants it; call and result are changed alike."""
    if not traits.wants_short_ids or _SHORT_ID.fullmatch(call_id):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:_SHORT_ID_CHARS]
