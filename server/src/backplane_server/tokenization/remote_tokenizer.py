"""Encodes through a worker, for models whose tokenizer only the engine has (GGUF)."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from backplane_core.vocabulary import Vocabulary

from backplane_server.tokenization.tokenizer import TokenSpan, align, check_num_tokens


class RemoteEncoder(Protocol):
    """The part of a worker's connection that is used here."""

    async def tokenize(
        self, texts: list[str], *, add_special: bool = True, parse_special: bool = False
    ) -> list[list[int]]:
        """One list of token ids per text."""
        ...


class RemoteTokenizer:
    """A `Tokenizer` over whichever worker `choose` gives at the time."""

    def __init__(self, choose: Callable[[], RemoteEncoder], vocabulary: Vocabulary) -> None:
        self._choose = choose
        self._vocabulary = vocabulary

    async def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids."""
        encoder = self._choose()
        return (await encoder.tokenize([text], add_special=add_special, parse_special=True))[0]

    async def encode_spans(
        self, text: str, max_tokens: int, *, add_special: bool = True, name: str = "inputs"
    ) -> list[TokenSpan]:
        """Tokens with byte offsets, found by the vocabulary's bytes."""
        token_ids = await self.encode(text, add_special=add_special)
        check_num_tokens(len(token_ids), max_tokens, name)
        return await asyncio.to_thread(align, text.encode(), token_ids, self._vocabulary)
