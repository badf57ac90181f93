"""Which ids begin, end and never stand in a text, as the files of a model folder declare it.

Several files say so and need not agree: what ends a text is what any of them names.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from backplane_core.errors import ModelError
from transformers import PretrainedConfig

_Document = TypeVar("_Document", bound=msgspec.Struct)


class TokenText(msgspec.Struct, frozen=True):
    """A token with its options, of which only its text matters here."""

    content: str


class SpecialTokens(msgspec.Struct, frozen=True):
    """`tokenizer_config.json`, or `special_tokens_map.json` where the former names none."""

    bos_token: str | TokenText | None = None
    eos_token: str | TokenText | None = None

    @property
    def bos_text(self) -> str | None:
        """The first token's text."""
        return _text(self.bos_token)

    @property
    def eos_text(self) -> str | None:
        """The end token's text."""
        return _text(self.eos_token)


class GenerationDefaults(msgspec.Struct, frozen=True):
    """What `generation_config.json` says of ids. Sampling parameters are the clients' affair."""

    eos_token_id: int | list[int] | None = None
    suppress_tokens: list[int] | None = None
    bad_words_ids: list[list[int]] | None = None

    @property
    def suppressed_token_ids(self) -> list[int]:
        """Ids never to be generated; bad words of several tokens are none, as parts are fine."""
        single = [ids[0] for ids in self.bad_words_ids or [] if len(ids) == 1]
        return [*(self.suppress_tokens or []), *single]


def read_special_tokens(folder: Path) -> SpecialTokens:
    """The special tokens by their texts.

    Raises:
        ModelError: a file is there and cannot be read.
    """
    config = _read(folder / "tokenizer_config.json", SpecialTokens)
    older = _read(folder / "special_tokens_map.json", SpecialTokens)
    return SpecialTokens(
        bos_token=config.bos_token or older.bos_token,
        eos_token=config.eos_token or older.eos_token,
    )


def read_generation_defaults(folder: Path) -> GenerationDefaults:
    """The ids of `generation_config.json`; none where there is no such file.

    Raises:
        ModelError: it is there and cannot be read.
    """
    return _read(folder / "generation_config.json", GenerationDefaults)


def end_token_ids(
    special: SpecialTokens,
    generation: GenerationDefaults,
    config: PretrainedConfig,
    find: Callable[[str], int | None],
    vocabulary_size: int,
) -> tuple[int, ...]:
    """Every id that ends a text: the tokenizer's own first, since templates call it `eos_token`.

    Args:
        special: by text.
        generation: by id.
        config: the model's, which names ids too.
        find: the id of a text, if there is one.
        vocabulary_size: ids from here on have no row in the model.

    Raises:
        ModelError: there is none, so no text would ever end.
    """
    named: list[int | None] = []
    if special.eos_text is not None:
        named.append(find(special.eos_text))
    named += as_ids(generation.eos_token_id)
    named += as_ids(getattr(config.get_text_config(decoder=True), "eos_token_id", None))
    ids = (token_id for token_id in named if token_id is not None)
    found = tuple(dict.fromkeys(token_id for token_id in ids if 0 <= token_id < vocabulary_size))
    if not found:
        raise ModelError(
            "the model names no end token, so no text would ever end",
            remedy="put its id into generation_config.json as eos_token_id",
        )
    return found


def as_ids(value: int | list[int] | None) -> list[int]:
    """One id, several or none, as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)


def _text(token: str | TokenText | None) -> str | None:
    return token.content if isinstance(token, TokenText) else token


def _read(path: Path, kind: type[_Document]) -> _Document:
    if not path.is_file():
        return kind()
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(
            f"{path.name} cannot be read: {error}", remedy="download the model again"
        ) from error
