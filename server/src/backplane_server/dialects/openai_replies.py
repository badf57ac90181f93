"""How OpenAI's chat and text routes answer, whole or as a stream, but for their choices."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from backplane_server.dialects.openai import FINGERPRINT, json_text, usage_of
from backplane_server.services.generation import Generation
from backplane_server.text.choice_decoder import TokenOut
from backplane_server.web.errors import Dialect
from backplane_server.web.event_stream import DONE
from backplane_server.web.merge import merge_batches

TokensByChoice = dict[tuple[int, int], list[TokenOut]]


@dataclass(frozen=True)
class ReplyHead:
    """What every object of one reply repeats."""

    id: str
    created: int
    model: str

    @classmethod
    def make(cls, prefix: str, model: str) -> "ReplyHead":
        """A fresh id and the time now."""
        return cls(f"{prefix}-{secrets.token_hex(12)}", int(time.time()), model)


async def run_to_end(generations: Sequence[Generation], *, keep_tokens: bool) -> TokensByChoice:
    """Wait for every sequence; their tokens by prompt and choice number, where they are wanted."""
    tokens: TokensByChoice = {}
    async for prompt, events in merge_batches(generations):
        for event in events:
            if keep_tokens:
                tokens.setdefault((prompt, event.index), []).extend(event.tokens)
    return tokens


class ReplyStream:
    """The frame of a stream: `head` begins every event, up to its choices.

    Args:
        object_name: what the events call themselves.
        head: the reply's.
        generations: one a prompt.
        include_usage: whether a last event has the counts.
    """

    dialect: Dialect = "openai"

    def __init__(
        self,
        object_name: str,
        head: ReplyHead,
        generations: Sequence[Generation],
        *,
        include_usage: bool,
    ) -> None:
        self._generations = generations
        self._include_usage = include_usage
        self._head = (
            b'data: {"object":'
            + json_text(object_name)
            + b',"id":'
            + json_text(head.id)
            + b',"created":%d,"model":' % head.created
            + json_text(head.model)
            + b',"system_fingerprint":'
            + json_text(FINGERPRINT)
            + b',"choices":['
        )

    def end(self) -> bytes:
        """The counts, where asked for, and the end marker."""
        if not self._include_usage:
            return DONE
        usage = msgspec.json.encode(usage_of(self._generations))
        return self._head + b'],"usage":' + usage + b"}\n\n" + DONE
