"""Token ids to text from a vocabulary's bytes table, a token at a time.

Knows nothing of stop strings or of any model's tokenizer library.
"""

import codecs
from collections.abc import Mapping, Sequence
from typing import Final

from backplane_core.vocabulary import Vocabulary

_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class TokenTable:
    """A vocabulary prepared for looking up. Shared by all requests; never changes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary: Final = vocabulary
        self.special_token_ids: Final = frozenset(vocabulary.special_token_ids)
        self.eos_token_ids: Final = frozenset(vocabulary.eos_token_ids)
        self.max_token_bytes: Final = max(map(len, vocabulary.tokens), default=0) or 1
        self._tokens = vocabulary.tokens
        self._special_ids = {
            self.literal(token_id): token_id for token_id in vocabulary.special_token_ids
        }
        self._whole_texts: dict[int, str | None] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of a token; none for an id outside the table (padding rows of a model)."""
        return self._tokens[token_id] if 0 <= token_id < len(self._tokens) else b""

    def literal(self, token_id: int) -> str:
        """A token's own text, with U+FFFD where its bytes are not whole characters."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def whole_text(self, token_id: int) -> str | None:
        """A token's text; None where its bytes are not whole characters."""
        try:
            return self._whole_texts[token_id]
        except KeyError:
            text = self.literal(token_id)
            is_whole = text.encode() == self.token_bytes(token_id)
            return self._whole_texts.setdefault(token_id, text if is_whole else None)

    def is_special(self, token_id: int) -> bool:
        """Whether the token is a control token, which generated text leaves out."""
        return token_id in self.special_token_ids

    def ids_shown(self, literals: frozenset[str], *, everything: bool) -> frozenset[int]:
        """Special tokens that are to be text: those with one of these literals, or all."""
        if everything:
            return self.special_token_ids
        return frozenset(self._special_ids[text] for text in literals & self._special_ids.keys())

    def silent_ids(self, shown: frozenset[int]) -> frozenset[int]:
        """Special tokens that are no text, where those in `shown` are."""
        return self.special_token_ids - shown if shown else self.special_token_ids

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """The special tokens' ids by their own texts."""
        return self._special_ids

    @property
    def special_literals(self) -> frozenset[str]:
        """The special tokens' own texts."""
        return frozenset(self._special_ids)

    def text_of_all(self, token_ids: Sequence[int], *, skip_special: bool) -> str:
        """What tokens stand for together, as a text of its own: not as one that goes on."""
        pieces: list[bytes] = []
        begun = not self.vocabulary.strip_leading_space
        for token_id in token_ids:
            special = self.is_special(token_id)
            if special and skip_special:
                continue
            piece = self.token_bytes(token_id)
            pieces.append(piece if begun or special else piece.removeprefix(b" "))
            begun = begun or not special
        return b"".join(pieces).decode("utf-8", "replace")

    def text_of(self, token_id: int | None) -> str:
        """Like `literal`, for an id a model may not have: then empty."""
        return "" if token_id is None else self.literal(token_id)


class IncrementalDetokenizer:
    """Decodes one sequence. Text of an unfinished character comes with the token that ends it.

    The pieces, joined and finished, are the decoding of all bytes joined: cutting changes
    nothing. A continuation keeps its leading space, as it follows a prompt.
    """

    def __init__(self, table: TokenTable, shown_special_ids: frozenset[int] = frozenset()) -> None:
        self._table = table
        self._silent_ids = table.silent_ids(shown_special_ids)
        self._decoder = _utf8_decoder("replace")
        self._between = True  # between two characters

    def push(self, token_id: int) -> str:
        """The characters that this token completes; none for a special token not to be shown."""
        if token_id in self._silent_ids:
            return ""
        if self._between and (text := self._table.whole_text(token_id)) is not None:
            return text
        text = self._decoder.decode(self._table.token_bytes(token_id))
        self._between = not self._decoder.getstate()[0]
        return text

    def finish(self) -> str:
        """U+FFFD if the sequence ended inside a character, else nothing."""
        return self._decoder.decode(b"", final=True)
