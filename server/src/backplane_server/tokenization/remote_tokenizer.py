"""Encodes through a worker, for models whose tokenizer only the engine has (GGUF).

Short texts that come together go to the worker in one message, and their tokens come in one.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from backplane_core.vocabulary import Vocabulary

from backplane_server.tokenization.tokenizer import TokenSpan, align, check_num_tokens


class RemoteEncoder(Protocol):
    """The part of a worker's connection that is used here."""

    async def tokenize(
        self, texts: list[str], *, add_special: bool = True, parse_special: bool = False
    ) -> list[list[int]]:
        """One list of token ids per text."""
        ...


# A text that takes the worker longer than a message does nobody waits for but who sent it.
_MAX_GATHERED_CHARS: Final = 4096

_Waiting = tuple[str, "asyncio.Future[list[int]]"]


class RemoteTokenizer:
    """A `Tokenizer` over whichever worker `choose` gives at the time."""

    def __init__(self, choose: Callable[[], RemoteEncoder], vocabulary: Vocabulary) -> None:
        self._choose = choose
        self._vocabulary = vocabulary
        self._waiting: dict[bool, list[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids."""
        if len(text) > _MAX_GATHERED_CHARS:
            return (await self._encode([text], add_special))[0]
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[int]] = loop.create_future()
        waiting = self._waiting.setdefault(add_special, [])
        if not waiting:
            loop.call_soon(self._send, add_special)
        waiting.append((text, future))
        return await future

    def _send(self, add_special: bool) -> None:
        """Have what has gathered in one turn of the loop encoded."""
        batch = self._waiting.pop(add_special)
        task = asyncio.create_task(self._encode_batch(batch, add_special))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _encode_batch(self, batch: list[_Waiting], add_special: bool) -> None:
        try:
            found = await self._encode([text for text, _ in batch], add_special)
            for (_, future), token_ids in zip(batch, found, strict=True):
                if not future.done():
                    future.set_result(token_ids)
        except Exception as error:  # noqa: BLE001 -- raised by whoever waits
            if len(batch) > 1:  # the fault of one of them is not the others'
                for one in batch:
                    await self._encode_batch([one], add_special)
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)

    async def _encode(self, texts: list[str], add_special: bool) -> list[list[int]]:
        return await self._choose().tokenize(texts, add_special=add_special, parse_special=True)

    async def encode_spans(
        self, text: str, max_tokens: int, *, add_special: bool = True, name: str = "inputs"
    ) -> list[TokenSpan]:
        """Tokens with byte offsets, found by the vocabulary's bytes."""
        token_ids = await self.encode(text, add_special=add_special)
        check_num_tokens(len(token_ids), max_tokens, name)
        return await asyncio.to_thread(align, text.encode(), token_ids, self._vocabulary)
