"""JSON of `/v1/chat/completions`."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

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
    """One turn."""

    role: Role
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class ChatRequest(SamplingFields, kw_only=True, frozen=True):
    """Body of `/v1/chat/completions`. `max_completion_tokens` goes before `max_tokens`.

    `parallel_tool_calls` says how tools are called, so without tools it asks for nothing.
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
    chat_template_kwargs: Any = None


class AssistantMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The answer's turn."""

    role: Literal["assistant"] = "assistant"
    content: str


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


class ChatDelta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a chunk adds: `role` in a choice's first, nothing in its last."""

    role: str | None = None
    content: str | None = None


class ChatChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One choice's part of a chunk."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatChunk(Reply[ChatChunkChoice], frozen=True, kw_only=True, tag_field="object", tag=CHUNK):
    """One event of a chat stream; `usage` only in the last, where it was asked for."""

    usage: Usage | None
