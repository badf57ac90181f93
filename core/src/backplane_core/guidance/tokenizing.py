"""A vocabulary as llguidance wants it: a trie of bytes, made once per model.

A table of 150 000 tokens takes half a second.
"""

from functools import cached_property

from llguidance import LLTokenizer, TokenizerWrapper

from backplane_core.errors import SetupError
from backplane_core.vocabulary import Vocabulary


def make_tokenizer(vocabulary: Vocabulary) -> LLTokenizer:
    """The trie of a vocabulary. Special tokens are in it by name, never as text.

    Raises:
        SetupError: the model has no end token, so no text could ever be whole.
    """
    if not vocabulary.eos_token_ids:
        raise SetupError(
            "the model has no end token, so it obeys no grammar",
            remedy="use a model file whose metadata names one",
        )
    return LLTokenizer(_Table(vocabulary), eos_token=list(vocabulary.eos_token_ids))


class _Table(TokenizerWrapper):
    """The attributes that llguidance reads; its base class wants a tokenizer of its own kind."""

    def __init__(self, vocabulary: Vocabulary) -> None:  # pyright: ignore[reportMissingSuperCall] -- it wants more
        special = {*vocabulary.special_token_ids, *vocabulary.eos_token_ids}
        self.is_tokenizer_wrapper = True
        self.eos_token_id = vocabulary.eos_token_ids[0]
        self.bos_token_id = vocabulary.bos_token_id
        self.tokens = vocabulary.tokens
        self.special_token_ids = sorted(special)

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        special = frozenset(self.special_token_ids)
        return {
            token: token_id
            for token_id, token in enumerate(self.tokens)
            if token and token_id not in special
        }

    @cached_property
    def _max_bytes(self) -> int:
        return max(map(len, self._ids), default=1)

    def __call__(self, text: bytes | str) -> list[int]:
        """Encode by the longest token that fits: asked only where a grammar forces a text."""
        data = text.encode() if isinstance(text, str) else text
        token_ids: list[int] = []
        start = 0
        while start < len(data):
            for end in range(min(len(data), start + self._max_bytes), start, -1):
                token_id = self._ids.get(data[start:end])
                if token_id is not None:
                    token_ids.append(token_id)
                    start = end
                    break
            else:
                return token_ids  # no token spells this byte
        return token_ids
