"""`/v1/chat/completions`: a conversation to a `GenerationRequest`, events to answers and frames."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from backplane_core.control import ServerLaunch
from backplane_core.errors import UnsupportedError, ValidationError

from backplane_server.dialects.chat_types import (
    CHUNK,
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    ChatRequest,
    Message,
    ToolCall,
)
from backplane_server.dialects.constraints import grammar_of
from backplane_server.dialects.not_yet import refuse_not_yet
from backplane_server.dialects.openai import (
    FINGERPRINT,
    FINISH,
    chat_logprobs,
    generation_request,
    json_text,
    refuse_template,
    usage_of,
)
from backplane_server.dialects.openai_replies import ReplyHead, ReplyStream, TokensByChoice
from backplane_server.dialects.openai_types import StreamOptions
from backplane_server.services.generation import Generation
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.services.served_model import ServedModel
from backplane_server.text.choice_decoder import ChoiceEvent, Finish, TokenOut

_SPARE_LEVELS: Final = 64


def check(body: ChatRequest) -> None:
    """Refuse what this version does not have, before anything is rendered.

    Raises:
        ValidationError: or `UnsupportedError`, naming the parameter.
    """
    refuse_template(body)
    refuse_not_yet(
        {
            "tools": body.tools,
            "tool_choice": body.tool_choice,
            "tool_prompt": body.tool_prompt,
            "functions": body.functions,
            "function_call": body.function_call,
            "modalities": body.modalities,
            "audio": body.audio,
            "chat_template_kwargs": body.chat_template_kwargs,
        }
    )
    if body.top_logprobs and not body.logprobs:
        raise ValidationError("`top_logprobs` needs `logprobs: true`", parameter="top_logprobs")


def template_messages(messages: list[Message]) -> list[dict[str, Any]]:
    """The conversation as templates expect it: text parts joined, calls with their objects.

    Raises:
        UnsupportedError: a part that is not text.
        ValidationError: a call's arguments are no JSON that other programs read.
    """
    return [_template_message(number, message) for number, message in enumerate(messages)]


def _template_message(number: int, message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": _text(number, message)}
    if message.name is not None:
        fields["name"] = message.name
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        fields["tool_calls"] = [
            _template_call(f"messages[{number}].tool_calls[{position}]", call)
            for position, call in enumerate(message.tool_calls)
        ]
    return fields


def _text(number: int, message: Message) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    for position, part in enumerate(message.content):
        if part.type != "text":
            name = f"messages[{number}].content[{position}]"
            raise UnsupportedError(
                f"`{name}`: parts of type {part.type[:40]!r} are not available in this version",
                parameter=name,
            )
    return "".join(part.text or "" for part in message.content)


def _template_call(name: str, call: ToolCall) -> Mapping[str, Any]:
    """A call with its arguments as an object; JSON that cannot be one stays the text it is."""
    arguments: Any = "" if call.function.arguments is None else call.function.arguments
    if isinstance(arguments, str):
        arguments = _decoded(arguments)
    elif not _can_travel(arguments):
        raise ValidationError(
            f"`{name}.function.arguments` is nested too deep or holds an integer beyond 64 bits",
            parameter=f"{name}.function.arguments",
        )
    return {
        "id": call.id or "",
        "type": call.type,
        "function": {"name": call.function.name, "arguments": arguments},
    }


def _decoded(arguments: str) -> Any:
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    return value if _can_travel(value) else arguments


def _can_travel(value: Any) -> bool:
    """Whether the renderer can be sent a value, inside of messages and with room to spare."""
    for _ in range(_SPARE_LEVELS):
        value = [value]
    try:
        msgspec.msgpack.encode(value)
    except (OverflowError, RecursionError):
        return False
    return True


def plan(
    body: ChatRequest, prompt: str, model: ServedModel, settings: ServerLaunch
) -> GenerationRequest:
    """Translate a request whose conversation is rendered. The template has the special tokens."""
    return generation_request(
        body,
        model,
        prompt=prompt,
        add_special=False,
        max_new_tokens=body.max_completion_tokens or body.max_tokens,
        top_logprobs=body.top_logprobs or 0 if body.logprobs else None,
        grammar=grammar_of(body),
        keep_stop=settings.tgi_strict,
        names={
            "prompt": "messages",
            "max_new_tokens": (
                "max_completion_tokens" if body.max_completion_tokens else "max_tokens"
            ),
        },
    )


def completion(head: ReplyHead, generation: Generation, tokens: TokensByChoice) -> ChatCompletion:
    """The answer, once every sequence has ended; `tokens` where their logprobs are wanted."""
    table = generation.model.table
    return ChatCompletion(
        id=head.id,
        created=head.created,
        model=head.model,
        system_fingerprint=FINGERPRINT,
        choices=[
            ChatChoice(
                index=choice.index,
                message=AssistantMessage(content=choice.text),
                logprobs=(
                    chat_logprobs(table, tokens[0, choice.index])
                    if (0, choice.index) in tokens
                    else None
                ),
                finish_reason=FINISH[choice.finish or Finish.LENGTH],
            )
            for choice in generation.choices
        ],
        usage=usage_of([generation]),
    )


_PLAIN_TAIL: Final = b',"logprobs":null,"finish_reason":null}],"usage":null}\n\n'


class ChatStream(ReplyStream):
    """Writes a chat stream: frames are a prefix rendered once and what is new.

    The role stands in a choice's first chunk only; a token without text makes no chunk, unless
    its logprob is asked for.
    """

    def __init__(
        self,
        head: ReplyHead,
        generation: Generation,
        *,
        logprobs: bool,
        options: StreamOptions | None,
    ) -> None:
        super().__init__(CHUNK, head, [generation], options)
        self._logprobs = logprobs
        self._table = generation.model.table
        self._begun: set[int] = set()
        self._prefixes = [
            self._head + b'{"index":%d,"delta":' % choice.index for choice in generation.choices
        ]

    def event(self, prompt: int, event: ChoiceEvent) -> bytes:  # noqa: ARG002 - there is one prompt
        """Frames for news of a sequence."""
        prefix = self._prefixes[event.index]
        frames: list[bytes] = []
        if event.index not in self._begun:
            self._begun.add(event.index)
            frames.append(prefix + b'{"role":"assistant","content":""}' + _PLAIN_TAIL)
        for token in event.tokens:
            if token.text or (self._logprobs and not token.silent):
                delta = prefix + b'{"content":' + json_text(token.text) + b"}"
                frames.append(delta + self._tail_of(token))
        if event.finish is not None:
            delta = b'{"content":' + json_text(event.tail) + b"}" if event.tail else b"{}"
            reason = json_text(FINISH[event.finish])
            frames.append(
                prefix
                + delta
                + b',"logprobs":null,"finish_reason":'
                + reason
                + b'}],"usage":null}\n\n'
            )
        return b"".join(frames)

    def _tail_of(self, token: TokenOut) -> bytes:
        if not self._logprobs or token.silent:
            return _PLAIN_TAIL
        logprobs = msgspec.json.encode(chat_logprobs(self._table, [token]))
        return b',"logprobs":' + logprobs + b',"finish_reason":null}],"usage":null}\n\n'
