"""A model's vocabulary as bytes, and how prompts become token ids.

A server detokenizes from the table alone, so it needs no tokenizer of the model's family.
"""

import msgspec


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Token id → bytes, and the ids that mean something.

    Attributes:
        tokens: the exact bytes each id stands for; a special token's literal text.
        special_token_ids: control tokens, left out of generated text.
        eos_token_ids: ids that end a generation.
        bos_token_id: first id of a prompt, if the model has one.
        add_bos: whether `tokenize(add_special=True)` puts it there.
        strip_leading_space: SentencePiece style: a text's first piece loses its leading space.
    """

    tokens: list[bytes]
    special_token_ids: tuple[int, ...] = ()
    eos_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None
    add_bos: bool = False
    strip_leading_space: bool = False


class TokenizerFile(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """The server encodes by itself with the `tokenizer.json` at `path`."""

    path: str


class RemoteTokenizer(msgspec.Struct, frozen=True, kw_only=True, tag="remote"):
    """The worker encodes: the server sends `Tokenize`."""


TokenizerSpec = TokenizerFile | RemoteTokenizer
