"""The stream of a chat: events to frames, calls and thoughts told apart as they come."""

from typing import Final

import msgspec
from backplane_core.tool_parsers import ToolCallDelta

from backplane_server.dialects.chat import ChatPlan
from backplane_server.dialects.chat_reading import ChoiceReader, new_call_id
from backplane_server.dialects.chat_types import CHUNK
from backplane_server.dialects.json_pieces import json_text
from backplane_server.dialects.openai import (
    FINISH,
    STRICT_FINISH,
    FinishReason,
    chat_logprobs,
    usage_of,
)
from backplane_server.dialects.openai_replies import ReplyHead, ReplyStream
from backplane_server.dialects.openai_types import StreamOptions, Usage
from backplane_server.services.generation import Generation
from backplane_server.text.choice_decoder import ChoiceEvent, TokenOut
from backplane_server.tools.reading import AnswerDelta

_ROLE: Final = b'"role":"assistant"'
_PLAIN_TAIL: Final = b'},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'


class ChatStream(ReplyStream):
    """Writes a chat stream: frames are a prefix rendered once and what is new.

    The role stands in a choice's first chunk only (TGI's strict way: in all); a token without
    text makes no chunk, unless its logprob is asked for. Logprobs of text that is held back, as
    it may become a call, come with the next chunk that there is.
    """

    def __init__(
        self,
        head: ReplyHead,
        asked: ChatPlan,
        generation: Generation,
        options: StreamOptions | None,
    ) -> None:
        super().__init__(CHUNK, head, [generation], options)
        self._asked = asked
        self._strict = head.strict
        self._finish = STRICT_FINISH if head.strict else FINISH
        self._choices = [
            _Choice(
                self._head + b'{"index":%d,"delta":{' % choice.index,
                _ROLE + b"," if head.strict else b"",
                None if asked.reading.plain else asked.reading.reader(),
            )
            for choice in generation.choices
        ]

    def event(self, prompt: int, event: ChoiceEvent) -> bytes:  # noqa: ARG002 - there is one prompt
        """Frames for news of a sequence."""
        choice = self._choices[event.index]
        frames = bytearray()
        for token in event.tokens:
            has_logprob = self._asked.logprobs and not token.silent
            if has_logprob:
                choice.untold.append(token)
            if choice.reader is None:
                if token.text or has_logprob:
                    self._content(frames, choice, token.text)
            else:
                self._delta(frames, choice, choice.reader.push(token.text))
        if event.finish is None:
            return bytes(frames)
        tail = event.tail
        if choice.reader is not None:
            self._delta(frames, choice, choice.reader.finish(tail))
            tail = ""
        reason = self._asked.finish_reason(self._finish, event.finish, choice.reader)
        self._begin(frames, choice, b'""')
        fields = b'"content":' + json_text(tail) if tail or self._strict else b""
        self._frame(frames, choice, fields, reason)
        return bytes(frames)

    def usage(self) -> Usage:
        """The counts up to now, thoughts among them where they are told apart."""
        if self._asked.reading.reasoning is None:
            return super().usage()
        readers = [choice.reader for choice in self._choices if choice.reader is not None]
        num_reasoning = sum(reader.num_reasoning_tokens for reader in readers)
        return usage_of(self._generations, num_reasoning=num_reasoning)

    # ── frames ───────────────────────────────────────────────────────────────────────────

    def _delta(self, frames: bytearray, choice: "_Choice", delta: AnswerDelta) -> None:
        if delta.reasoning:
            self._begin(frames, choice, b"null")
            self._frame(frames, choice, b'"reasoning_content":' + json_text(delta.reasoning))
        if delta.content:
            self._content(frames, choice, delta.content)
        for call in delta.calls:
            self._call(frames, choice, call)

    def _content(self, frames: bytearray, choice: "_Choice", text: str) -> None:
        if choice.begun and not choice.untold and not self._all_have_usage:
            frames += choice.content_prefix + json_text(text) + _PLAIN_TAIL
            return
        self._begin(frames, choice, b'""')
        self._frame(frames, choice, b'"content":' + json_text(text))

    def _call(self, frames: bytearray, choice: "_Choice", call: ToolCallDelta) -> None:
        """The name comes in a chunk without arguments, as OpenAI sends it."""
        self._begin(frames, choice, b"null")
        older = self._asked.tells_older_call
        if call.name is not None:
            function = b'{"name":' + json_text(call.name) + b',"arguments":""}'
            fields = b'"function_call":' + function
            if not older:
                fields = b'"tool_calls":[{"index":%d,"id":%b,"type":"function","function":%b}]' % (
                    call.index,
                    json_text(new_call_id()),
                    function,
                )
            self._frame(frames, choice, fields)
        if call.arguments:
            function = b'{"arguments":' + json_text(call.arguments) + b"}"
            fields = b'"function_call":' + function
            if not older:
                fields = b'"tool_calls":[{"index":%d,"function":%b}]' % (call.index, function)
            self._frame(frames, choice, fields)

    def _begin(self, frames: bytearray, choice: "_Choice", content: bytes) -> None:
        """A choice's first chunk, which holds its role; nothing of it in TGI's strict way."""
        if choice.begun:
            return
        choice.begun = True
        if self._strict:
            return
        frames += choice.prefix + _ROLE + b',"content":' + content
        frames += b'},"logprobs":null,"finish_reason":null}' + self.tail()

    def _frame(
        self,
        frames: bytearray,
        choice: "_Choice",
        fields: bytes,
        reason: FinishReason | None = None,
    ) -> None:
        logprobs = b"null"
        if choice.untold:
            table = self._generations[0].model.table
            logprobs = msgspec.json.encode(chat_logprobs(table, choice.untold))
            choice.untold.clear()
        if self._strict:
            fields = _ROLE + b"," + fields
        finish = b"null" if reason is None else json_text(reason)
        frames += choice.prefix + fields
        frames += b'},"logprobs":' + logprobs + b',"finish_reason":' + finish + b"}"
        frames += self.tail()


class _Choice:
    """What is kept of one choice. `untold` are tokens whose logprobs no chunk has had yet."""

    def __init__(self, prefix: bytes, role: bytes, reader: ChoiceReader | None) -> None:
        self.prefix = prefix
        self.content_prefix = prefix + role + b'"content":'
        self.reader = reader
        self.begun = False
        self.untold: list[TokenOut] = []
