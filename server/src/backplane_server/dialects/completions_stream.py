"""The stream of `/v1/completions`: events of one prompt or several to frames."""

from collections.abc import Sequence
from typing import Final

import msgspec

from backplane_server.dialects.completions import CompletionPlan
from backplane_server.dialects.completions_types import TEXT_COMPLETION
from backplane_server.dialects.json_pieces import json_text
from backplane_server.dialects.openai import FINISH, STRICT_TEXT_STREAM_FINISH
from backplane_server.dialects.openai_replies import ReplyHead, ReplyStream
from backplane_server.dialects.openai_types import StreamOptions
from backplane_server.dialects.text_logprobs import Echo, prompt_tokens, text_logprobs
from backplane_server.services.generation import Generation
from backplane_server.text.choice_decoder import ChoiceEvent, TokenOut

_PLAIN: Final = b',"logprobs":null,"finish_reason":null}'


class CompletionStream(ReplyStream):
    """Writes a text stream; the events of several prompts interleave by index.

    An echoed prompt is a choice's first event. Frames are a prefix rendered once and what is new.
    """

    def __init__(
        self,
        head: ReplyHead,
        asked: CompletionPlan,
        generations: Sequence[Generation],
        echoes: Sequence[Echo],
        options: StreamOptions | None,
    ) -> None:
        super().__init__(TEXT_COMPLETION, head, generations, options)
        self._asked = asked
        self._echoes = echoes
        self._finish = STRICT_TEXT_STREAM_FINISH if head.strict else FINISH
        self._table = generations[0].model.table
        self._prefixes = [
            self._head + b'{"index":%d,"text":' % index
            for index in range(len(generations) * asked.num_choices)
        ]
        self._offsets = [0] * len(self._prefixes)
        self._begun: set[int] = set()

    def event(self, prompt: int, event: ChoiceEvent) -> bytes:
        """Frames for news of a sequence."""
        asked = self._asked
        index = prompt * asked.num_choices + event.index
        frames = b""
        if asked.echo and index not in self._begun:
            self._begun.add(index)
            frames = self._echo(index, prompt)
        if not asked.scores_only:
            for token in event.tokens:
                if asked.logprobs is not None:
                    frames += self._frame(index, token.text, self._logprobs_of(index, [token]))
                elif token.text:
                    frames += self._prefixes[index] + json_text(token.text) + _PLAIN + self.tail()
        if event.finish is not None:
            tail = "" if asked.scores_only else event.tail
            reason = "length" if asked.scores_only else self._finish[event.finish]
            frames += self._frame(index, tail, b"null", json_text(reason))
        return frames

    def _echo(self, index: int, prompt: int) -> bytes:
        echo = self._echoes[prompt]
        logprobs = b"null"
        if self._asked.logprobs is not None:
            logprobs = self._logprobs_of(index, prompt_tokens(self._generations[prompt], echo))
        self._offsets[index] = len(echo.text)
        return self._frame(index, echo.text, logprobs)

    def _frame(self, index: int, text: str, logprobs: bytes, reason: bytes = b"null") -> bytes:
        return b'%b%b,"logprobs":%b,"finish_reason":%b}%b' % (
            self._prefixes[index],
            json_text(text),
            logprobs,
            reason,
            self.tail(),
        )

    def _logprobs_of(self, index: int, tokens: Sequence[TokenOut]) -> bytes:
        if self._asked.logprobs is None:
            return b"null"
        start = self._offsets[index]
        self._offsets[index] = start + sum(len(token.text) for token in tokens)
        logprobs = text_logprobs(self._table, tokens, start, top=self._asked.logprobs)
        return msgspec.json.encode(logprobs)
