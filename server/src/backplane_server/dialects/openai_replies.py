"""How OpenAI's chat and text routes answer, whole or as a stream, but for their choices."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from backplane_core.control import ServerLaunch
from backplane_core.version import __version__

from backplane_server.dialects.json_pieces import json_text
from backplane_server.dialects.openai import usage_of
from backplane_server.dialects.openai_types import StreamOptions, Usage
from backplane_server.services.generation import Generation
from backplane_server.services.generation_group import GenerationGroup
from backplane_server.text.choice_decoder import ChoiceEvent, TokenOut
from backplane_server.web.errors import Dialect
from backplane_server.web.event_stream import DONE

TokensByChoice = dict[tuple[int, int], list[TokenOut]]


@dataclass(frozen=True)
class ReplyHead:
    """What every object of one reply repeats. `strict` is TGI's way: the id is empty."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    strict: bool = False

    @classmethod
    def make(cls, prefix: str, model: str, settings: ServerLaunch) -> "ReplyHead":
        """A fresh id and the time now; the fingerprint is TGI's: version and image."""
        strict = settings.tgi_strict
        return cls(
            id="" if strict else f"{prefix}-{secrets.token_hex(12)}",
            created=int(time.time()),
            model=model,
            system_fingerprint=f"{__version__}-{settings.docker_label or 'native'}",
            strict=strict,
        )


async def run_to_end(generations: Sequence[Generation], *, keep_tokens: bool) -> TokensByChoice:
    """Wait for every sequence; their tokens by prompt and choice number, where they are wanted."""
    tokens: TokensByChoice = {}

    def keep(prompt: int, event: ChoiceEvent) -> None:
        if keep_tokens:
            tokens.setdefault((prompt, event.index), []).extend(event.tokens)

    await GenerationGroup(generations).run(keep)
    return tokens


class ReplyStream:
    """The frame of a stream: `head` begins every event, up to its choices.

    Args:
        object_name: what the events call themselves.
        head: the reply's.
        generations: one a prompt.
        options: whether a last event has the counts, or every event.
    """

    dialect: Dialect = "openai"

    def __init__(
        self,
        object_name: str,
        head: ReplyHead,
        generations: Sequence[Generation],
        options: StreamOptions | None,
    ) -> None:
        self._generations = generations
        self._last_has_usage = options is not None and bool(options.include_usage)
        self._all_have_usage = self._last_has_usage and bool(
            options is not None and options.continuous_usage_stats
        )
        self._head = (
            b'data: {"object":'
            + json_text(object_name)
            + b',"id":'
            + json_text(head.id)
            + b',"created":%d,"model":' % head.created
            + json_text(head.model)
            + b',"system_fingerprint":'
            + json_text(head.system_fingerprint)
            + b',"choices":['
        )

    def usage(self) -> Usage:
        """The counts up to now."""
        return usage_of(self._generations)

    def tail(self) -> bytes:
        """What follows an event's only choice, up to the event's end."""
        if not self._all_have_usage:
            return b'],"usage":null}\n\n'
        return b'],"usage":' + msgspec.json.encode(self.usage()) + b"}\n\n"

    def end(self) -> bytes:
        """The counts, where asked for, and the end marker."""
        if not self._last_has_usage:
            return DONE
        return self._head + b'],"usage":' + msgspec.json.encode(self.usage()) + b"}\n\n" + DONE
