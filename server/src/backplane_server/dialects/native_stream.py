"""TGI's native streams: one event a token, the last with the whole text."""

from typing import Final

import msgspec
from msgspec import UNSET

from backplane_server.dialects.json_pieces import json_number, json_text
from backplane_server.dialects.native import NativePlan
from backplane_server.dialects.native_tokens import FINISH, token_of, top_tokens_of
from backplane_server.dialects.native_types import FinishReason, StreamDetails, StreamResponse
from backplane_server.errors import IncompleteGenerationError
from backplane_server.services.generation import Generation
from backplane_server.text.choice_decoder import ChoiceEvent, Finish, TokenOut
from backplane_server.web.errors import Dialect
from backplane_server.web.event_stream import frame

# What a `StreamResponse` of a token with others to come is encoded to.
_PLAIN: Final = frame(
    b'{"index":%d,"token":{"id":%d,"text":%b,"logprob":%b,"special":%b},'
    b'"generated_text":null,"details":null}'
)


class NativeStream:
    """Writes a native stream: one event a token, the last with the whole text."""

    dialect: Dialect = "native"

    def __init__(self, native: NativePlan, generation: Generation) -> None:
        self._plan = native
        self._generation = generation
        self._index = 0
        self._last: TokenOut | None = None

    def event(self, prompt: int, event: ChoiceEvent) -> bytes:  # noqa: ARG002 - there is one prompt
        """Frames for news of the sequence.

        Raises:
            IncompleteGenerationError: it ended before its first token.
        """
        tokens = event.tokens
        if event.finish is not None and not tokens:
            # A runner may tell the end after the last token, which had an event already. That
            # token comes once more: to hold each back until the next is there would cost every
            # stream a step.
            tokens = [self._repeated(event.tail)]
        last = len(tokens) - 1
        return b"".join(
            self._frame(token, event.finish if position == last else None)
            for position, token in enumerate(tokens)
        )

    def end(self) -> bytes:
        """Native streams have no end marker."""
        return b""

    def _repeated(self, text: str) -> TokenOut:
        if self._last is None:
            raise IncompleteGenerationError("the sequence ended before its first token")
        self._index -= 1
        return msgspec.structs.replace(self._last, text=text, silent=False)

    def _frame(self, token: TokenOut, finish: Finish | None) -> bytes:
        self._index += 1
        self._last = token
        table = self._generation.model.table
        if finish is None and not self._plan.top_tokens:
            return _PLAIN % (
                self._index,
                token.token_id,
                json_text(table.literal(token.token_id) if token.silent else token.text),
                json_number(token.logprob),
                b"true" if table.is_special(token.token_id) else b"false",
            )
        choice = self._generation.choices[0]
        response = StreamResponse(
            index=self._index,
            token=token_of(table, token),
            top_tokens=top_tokens_of(table, token) if self._plan.top_tokens else UNSET,
            generated_text=None if finish is None else self._plan.prefix + choice.text,
            details=None if finish is None else self._details(FINISH[finish]),
        )
        return frame(msgspec.json.encode(response))

    def _details(self, reason: FinishReason) -> StreamDetails | None:
        if not self._plan.details:
            return None
        return StreamDetails(
            finish_reason=reason,
            generated_tokens=self._generation.choices[0].num_tokens,
            seed=self._generation.seed,
            input_length=self._generation.num_prompt_tokens,
        )
