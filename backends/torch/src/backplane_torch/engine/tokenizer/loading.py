"""`load_tokenizer`: a model folder's tokenizer, for the server to encode with and to decode by.

Knows nothing of chat templates.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from backplane_core.errors import ModelError
from backplane_core.vocabulary import TokenizerFile, Vocabulary
from tokenizers import Tokenizer
from transformers import PretrainedConfig

from backplane_torch.engine.tokenizer.conversion import TOKENIZER_FILE, convert
from backplane_torch.engine.tokenizer.declared_tokens import (
    SpecialTokens,
    end_token_ids,
    read_generation_defaults,
    read_special_tokens,
)
from backplane_torch.engine.tokenizer.token_bytes import Step, TokenDecoding, read_decoding

# Encoded with and without special tokens, it shows which are put around a text.
_PROBE = "a"


@dataclass(frozen=True, kw_only=True)
class ModelTokenizer:
    """What servers need to know of a model's tokenizer.

    Attributes:
        vocabulary: of as many ids as the model has rows.
        spec: the file to encode with, which is there until `close`.
        suppressed_token_ids: ids that the model's files say must never be generated.
        warnings: for the log, each in one line.
    """

    vocabulary: Vocabulary
    spec: TokenizerFile
    suppressed_token_ids: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    converted: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)

    def close(self) -> None:
        """Remove the file, if it was made here: no server can read it any more."""
        if self.converted is not None:
            self.converted.cleanup()


def load_tokenizer(folder: Path, config: PretrainedConfig) -> ModelTokenizer:
    """Read the tokenizer of a model's folder; one without a `tokenizer.json` is converted first.

    What is put around a text is what the file's post-processor puts there: as in transformers, it
    outweighs `add_bos_token` of `tokenizer_config.json`.

    Raises:
        ModelError: files are missing or broken, a package is missing that reads them, or nothing
            ends a text.
    """
    if (folder / TOKENIZER_FILE).is_file():
        return _read(folder, folder, config)
    converted = convert(folder, config)
    try:
        return _read(folder, Path(converted.name), config, converted)
    except BaseException:
        converted.cleanup()
        raise


class _Model(msgspec.Struct, frozen=True):
    unk_token: str | None = None
    unk_id: int | None = None


class _Document(msgspec.Struct, frozen=True):
    """The parts of a `tokenizer.json` that the library does not tell."""

    model: _Model
    decoder: Step | None = None
    pre_tokenizer: Step | None = None


def _read(
    folder: Path,
    tokenizer_folder: Path,
    config: PretrainedConfig,
    converted: tempfile.TemporaryDirectory[str] | None = None,
) -> ModelTokenizer:
    path = tokenizer_folder / TOKENIZER_FILE
    try:
        tokenizer = Tokenizer.from_file(str(path))
        document = msgspec.json.decode(path.read_bytes(), type=_Document)
    except Exception as error:  # the library raises bare Exceptions
        raise ModelError(
            f"{TOKENIZER_FILE} cannot be read: {error}", remedy="download the model again"
        ) from error
    special = read_special_tokens(tokenizer_folder)
    generation = read_generation_defaults(folder)
    size = _num_rows(config, tokenizer)
    ends = end_token_ids(special, generation, config, tokenizer.token_to_id, size)
    decoding = read_decoding(document.decoder, document.pre_tokenizer)
    first, adds_first = _first_token(tokenizer, special)
    if first is not None and first >= size:
        first, adds_first = None, False
    controls = _control_ids(tokenizer, document.model)
    tokens = _table(tokenizer, decoding, controls, size)
    silent = {*controls, *ends, *([] if first is None else [first])}
    silent |= {token_id for token_id, token in enumerate(tokens) if not token}
    return ModelTokenizer(
        vocabulary=Vocabulary(
            tokens=tokens,
            special_token_ids=tuple(sorted(token_id for token_id in silent if token_id < size)),
            eos_token_ids=ends,
            bos_token_id=first,
            add_bos=adds_first,
            strip_leading_space=decoding.strip_leading_space,
        ),
        spec=TokenizerFile(path=str(path.resolve())),
        suppressed_token_ids=tuple(
            token_id for token_id in generation.suppressed_token_ids if 0 <= token_id < size
        ),
        warnings=_warnings(tokenizer, size),
        converted=converted,
    )


def _num_rows(config: PretrainedConfig, tokenizer: Tokenizer) -> int:
    """How many ids the model knows: often more than the tokenizer has, at times fewer."""
    size = getattr(config.get_text_config(decoder=True), "vocab_size", None)
    if isinstance(size, int):
        return size
    return _num_ids(tokenizer)


def _num_ids(tokenizer: Tokenizer) -> int:
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())


def _warnings(tokenizer: Tokenizer, size: int) -> tuple[str, ...]:
    num_ids = _num_ids(tokenizer)
    if num_ids <= size:
        return ()
    last = tokenizer.id_to_token(num_ids - 1)
    told = f"the tokenizer has {num_ids} ids and the model {size}: a prompt with one of the others"
    return (f"{told}, such as {last!r}, is refused",)


def _control_ids(tokenizer: Tokenizer, model: _Model) -> set[int]:
    """Added tokens that are no text, and the one for what the vocabulary cannot say."""
    added = tokenizer.get_added_tokens_decoder()
    controls = {token_id for token_id, token in added.items() if token.special}
    unknown = model.unk_id
    if unknown is None and model.unk_token is not None:
        unknown = tokenizer.token_to_id(model.unk_token)
    return controls if unknown is None else {*controls, unknown}


def _table(
    tokenizer: Tokenizer, decoding: TokenDecoding, controls: set[int], size: int
) -> list[bytes]:
    """The bytes of each id; none for one that the tokenizer does not have (a padded embedding)."""
    added = tokenizer.get_added_tokens_decoder()
    tokens: list[bytes] = []
    for token_id in range(size):
        text = tokenizer.id_to_token(token_id)
        if text is None:
            tokens.append(b"")
        elif token_id in controls:
            tokens.append(text.encode())
        elif token_id in added:
            tokens.append(decoding.added_token_bytes(text))
        else:
            tokens.append(decoding.token_bytes(text))
    return tokens


def _first_token(tokenizer: Tokenizer, special: SpecialTokens) -> tuple[int | None, bool]:
    """The id that begins a text, if the model has one, and whether encoding puts it there."""
    encoding = tokenizer.encode(_PROBE, add_special_tokens=True)
    if encoding.special_tokens_mask[:1] == [1] and not all(encoding.special_tokens_mask):
        return encoding.ids[0], True
    named = None if special.bos_text is None else tokenizer.token_to_id(special.bos_text)
    return named, False
