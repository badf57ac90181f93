"""What the rest of the server asks of a tokenizer, and offsets for those that give none."""

from dataclasses import dataclass
from typing import Protocol

from backplane_core.errors import ValidationError
from backplane_core.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """A token and the bytes `start…stop` of the text it stands for; 0…0 for one added to it."""

    token_id: int
    start: int
    stop: int


class Tokenizer(Protocol):
    """Encodes one text at a time; the implementation may gather several."""

    async def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids; `add_special` adds what the model wants around a text.

        Raises:
            BackplaneError: the text cannot be encoded, or the worker that does it is gone.
        """
        ...

    async def encode_spans(
        self, text: str, max_tokens: int, *, add_special: bool = True, name: str = "inputs"
    ) -> list[TokenSpan]:
        """Tokens with their places in the text, which clients call `name`. Raises as `encode`.

        Raises:
            ValidationError: there are more than `max_tokens`; no place was looked for.
        """
        ...


def check_num_tokens(num_tokens: int, max_tokens: int, name: str) -> None:
    """Refuse what would take long to be placed and to be told.

    Raises:
        ValidationError: there are too many tokens.
    """
    if num_tokens > max_tokens:
        raise ValidationError(
            f"`{name}` must have less than {max_tokens + 1} tokens. Given: {num_tokens}",
            parameter=name,
        )


def align(text: bytes, token_ids: list[int], vocabulary: Vocabulary) -> list[TokenSpan]:
    """Find each token's bytes in the text, walking along both.

    A token whose bytes do not come next (one that was added, or a normalized character) gets
    an empty span at 0, and the walk goes on from where it was.
    """
    spans: list[TokenSpan] = []
    position = 0
    for token_id in token_ids:
        piece = vocabulary.tokens[token_id]
        if position == 0 and vocabulary.strip_leading_space and not text.startswith(piece):
            piece = piece.removeprefix(b" ")
        if piece and text.startswith(piece, position):
            spans.append(TokenSpan(token_id, position, position + len(piece)))
            position += len(piece)
        else:
            spans.append(TokenSpan(token_id, 0, 0))
    return spans
