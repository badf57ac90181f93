"""How each API is asked and how its answers read: three dialects behind one face."""

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

import msgspec

from backplane_launcher.bench.reply import REFUSED_IN_STREAM, Reply

_DONE: Final = b"[DONE]"

Role = Literal["system", "user", "assistant"]


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation."""

    role: Role
    content: str


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request before it is in anybody's words.

    `prompt` is a text, or token ids where the API takes them; a chat has `messages` instead.
    """

    prompt: str | list[int] = ""
    messages: list[Message] = []
    num_output: int


class Dialect(Protocol):
    """One API. `takes_ids`: a prompt may be token ids; `is_chat`: it is messages."""

    takes_ids: bool
    is_chat: bool

    @property
    def path(self) -> str:
        """Where it is asked."""
        ...

    def body(self, ask: Ask, model: str | None) -> bytes:
        """The request in JSON."""
        ...

    def read_event(self, data: bytes, reply: Reply, now: float) -> None:
        """Note what an event of a stream says.

        Raises:
            msgspec.DecodeError: it is not what this API sends.
        """
        ...

    def read_whole(self, body: bytes, reply: Reply) -> None:
        """Note what a whole answer says; same errors."""
        ...


# ── OpenAI's two ─────────────────────────────────────────────────────────────────────────────


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Timings(msgspec.Struct):
    """llama-server's own: prompt tokens found in the cache."""

    cache_n: int | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Any = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: Any = None


_read_chunk = msgspec.json.Decoder(_Chunk).decode


class OpenAi:
    """`/v1/completions` or, where `is_chat`, `/v1/chat/completions`."""

    def __init__(
        self, *, is_chat: bool, streams: bool, ignore_eos: bool, extra: Mapping[str, Any]
    ) -> None:
        self.is_chat = is_chat
        self.takes_ids = not is_chat
        self._streams = streams
        options: dict[str, Any] = {"temperature": 0}
        if ignore_eos:
            options["ignore_eos"] = True
        if streams:
            options |= {"stream": True, "stream_options": {"include_usage": True}}
        self._options = options | dict(extra)

    @property
    def path(self) -> str:
        """Where it is asked."""
        return "/v1/chat/completions" if self.is_chat else "/v1/completions"

    def body(self, ask: Ask, model: str | None) -> bytes:
        """The request in JSON."""
        fields: dict[str, Any] = {} if model is None else {"model": model}
        if self.is_chat:
            fields["messages"] = ask.messages
        else:
            fields["prompt"] = ask.prompt
        fields["max_tokens"] = ask.num_output
        return msgspec.json.encode(fields | self._options)

    def read_event(self, data: bytes, reply: Reply, now: float) -> None:
        """Note what an event of a stream says."""
        if data == _DONE:
            reply.finished = True
            return
        chunk = _read_chunk(data)
        if chunk.choices:
            choice = chunk.choices[0]
            text = choice.text if choice.delta is None else _said(choice.delta)
            if text:
                reply.arrived(now, text)
            if choice.finish_reason is not None:
                reply.finished = True
        self._count(chunk, reply)

    def read_whole(self, body: bytes, reply: Reply) -> None:
        """Note what a whole answer says."""
        chunk = _read_chunk(body)
        if chunk.choices:
            choice = chunk.choices[0]
            reply.texts.append(
                (choice.text or "") if choice.message is None else _said(choice.message)
            )
            reply.finished = True
        self._count(chunk, reply)

    @staticmethod
    def _count(chunk: _Chunk, reply: Reply) -> None:
        if chunk.error is not None:
            reply.fail(REFUSED_IN_STREAM, message_of(chunk.error))
        if (usage := chunk.usage) is not None:
            reply.num_prompt, reply.num_output = usage.prompt_tokens, usage.completion_tokens
            if usage.prompt_tokens_details is not None:
                reply.num_cached = usage.prompt_tokens_details.cached_tokens
        # Its prompt_tokens_details stand still at 0 in some versions.
        if (timings := chunk.timings) is not None and timings.cache_n is not None:
            reply.num_cached = timings.cache_n


def _said(delta: _Delta) -> str:
    text = (delta.content or "") + (delta.reasoning_content or delta.reasoning or "")
    if delta.tool_calls:
        text += msgspec.json.encode(delta.tool_calls).decode()
    return text


# ── TGI's own ────────────────────────────────────────────────────────────────────────────────


class _TgiToken(msgspec.Struct):
    text: str = ""


class _TgiDetails(msgspec.Struct):
    generated_tokens: int | None = None
    input_length: int | None = None
    prefill: list[Any] = []


class _TgiEvent(msgspec.Struct):
    token: _TgiToken | None = None
    generated_text: str | None = None
    details: _TgiDetails | None = None
    error: Any = None


_read_tgi = msgspec.json.Decoder(_TgiEvent).decode


class Tgi:
    """`/generate_stream`, or `/generate` where not `streams`."""

    takes_ids = False
    is_chat = False

    def __init__(self, *, streams: bool, extra: Mapping[str, Any]) -> None:
        self._streams = streams
        self._parameters: dict[str, Any] = {"details": True} | dict(extra)

    @property
    def path(self) -> str:
        """Where it is asked."""
        return "/generate_stream" if self._streams else "/generate"

    def body(self, ask: Ask, model: str | None) -> bytes:
        """The request in JSON."""
        del model  # a server of this API has one
        parameters = {"max_new_tokens": ask.num_output} | self._parameters
        return msgspec.json.encode({"inputs": ask.prompt, "parameters": parameters})

    def read_event(self, data: bytes, reply: Reply, now: float) -> None:
        """Note what an event of a stream says."""
        event = _read_tgi(data)
        if event.error is not None:
            reply.fail(REFUSED_IN_STREAM, message_of(event.error))
        if event.token is not None and event.token.text:
            reply.arrived(now, event.token.text)
        if event.generated_text is not None:
            reply.finished = True
        self._count(event, reply)

    def read_whole(self, body: bytes, reply: Reply) -> None:
        """Note what a whole answer says."""
        event = _read_tgi(body)
        if event.generated_text is not None:
            reply.texts.append(event.generated_text)
            reply.finished = True
        self._count(event, reply)

    @staticmethod
    def _count(event: _TgiEvent, reply: Reply) -> None:
        if (details := event.details) is not None:
            reply.num_output = details.generated_tokens
            reply.num_prompt = details.input_length
            if details.input_length is None and details.prefill:
                reply.num_prompt = len(details.prefill)


def make_dialect(api: str, *, streams: bool, ignore_eos: bool, extra: Mapping[str, Any]) -> Dialect:
    """The dialect that `--api` names."""
    if api == "tgi":
        return Tgi(streams=streams, extra=extra)
    return OpenAi(is_chat=api == "openai-chat", streams=streams, ignore_eos=ignore_eos, extra=extra)


# ── refusals ─────────────────────────────────────────────────────────────────────────────────

_MAX_MESSAGE: Final = 300


def refusal_of(body: bytes) -> str:
    """What a body with another status than 200 says, in a line."""
    try:
        said = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return " ".join(body.decode(errors="replace").split())[:_MAX_MESSAGE]
    return message_of(said)


def message_of(said: Any) -> str:
    """The sentence within an error document of any server's."""
    for name in ("error", "message", "detail"):
        if isinstance(said, dict) and said.get(name):  # pyright: ignore[reportUnknownMemberType] -- JSON of strangers
            inner: Any = said[name]  # pyright: ignore[reportUnknownVariableType] -- JSON of strangers
            return message_of(inner)
    text = said if isinstance(said, str) else msgspec.json.encode(said).decode()
    return " ".join(text.split())[:_MAX_MESSAGE]
