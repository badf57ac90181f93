"""JSON of `/v1/chat/completions`."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from backplane_server.dialects.openai import FinishReason
from backplane_server.dialects.openai_types import ChatLogprobs, Count, Reply, SamplingFields, Usage

CHUNK: Final = "chat.completion.chunk"
Role = Annotated[str, Meta(min_length=1, max_length=64)]


class ContentPart(msgspec.Struct, kw_only=True, frozen=True):
    """A piece of a message. Only `text` is taken in this version."""

    type: str
    text: str | None = None


class FunctionCall(msgspec.Struct, kw_only=True, frozen=True):
    """A call the assistant made, as the history tells it; `arguments` is JSON in a string."""

    name: str
    arguments: str | dict[str, Any] | None = None


class ToolCall(msgspec.Struct, kw_only=True, frozen=True):
    """A call with its id."""

    id: str | None = None
    type: str = "function"
    function: FunctionCall


class Message(msgspec.Struct, kw_only=True, frozen=True):
    """One turn. `function_call` is the older form of `tool_calls`."""

    role: Role
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None


class ChatRequest(SamplingFields, kw_only=True, frozen=True):
    """Body of `/v1/chat/completions`. `max_completion_tokens` goes before `max_tokens`.

    `functions` and `function_call` are the older forms of `tools` and `tool_choice`. From
    `add_generation_prompt` on they concern the chat template.
    """

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=1000)] | None = None
    tools: Any = None
    tool_choice: Any = None
    tool_prompt: str | None = None
    parallel_tool_calls: bool | None = None
    functions: Any = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: Any = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    documents: list[dict[str, Any]] | None = None
    reasoning_effort: Annotated[str, Meta(max_length=64)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class AnsweredFunction(msgspec.Struct, frozen=True, kw_only=True):
    """The function that is called; `arguments` is JSON in a string."""

    name: str
    arguments: str


class AnsweredCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of the answer."""

    id: str
    type: Literal["function"] = "function"
    function: AnsweredFunction


class AssistantMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The answer's turn; `content` is null where it is nothing but calls and thoughts."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[AnsweredCall] | UnsetType = UNSET
    function_call: AnsweredFunction | UnsetType = UNSET


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One of `n` answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(
    Reply[ChatChoice], frozen=True, kw_only=True, tag_field="object", tag="chat.completion"
):
    """Answer of `/v1/chat/completions`."""

    usage: Usage


class FunctionDelta(msgspec.Struct, frozen=True, kw_only=True):
    """The function's name with the call's first piece, and the next piece of its arguments."""

    name: str | UnsetType = UNSET
    arguments: str


class CallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """News of call number `index`; its `id` and `type` come with its first piece."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionDelta


class ChatDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What a chunk adds: `role` in a choice's first, nothing in its last."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CallDelta] | UnsetType = UNSET
    function_call: FunctionDelta | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One choice's part of a chunk."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatChunk(Reply[ChatChunkChoice], frozen=True, kw_only=True, tag_field="object", tag=CHUNK):
    """One event of a chat stream; `usage` in the last, or in all, where it was asked for."""

    usage: Usage | None
