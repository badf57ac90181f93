"""Makes a `tokenizer.json` of older files: those of SentencePiece, GPT-2's BPE and tiktoken.

transformers does the work; what it needs for that is named beforehand, since its own errors are not
about what is missing.
"""

import importlib.util
import tempfile
from pathlib import Path
from typing import Final

from backplane_core.errors import ModelError
from transformers import AutoTokenizer, PretrainedConfig

TOKENIZER_FILE: Final = "tokenizer.json"

# Where a model's folder has none of these, nothing can be made of it.
_SOURCES: Final = (
    *("*.model", "*.tiktoken", "tekken.json"),  # SentencePiece, tiktoken under several names
    *("vocab.json", "vocab.txt"),
)
_SENTENCE_PIECE: Final = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}
_TIKTOKEN: Final = {"tiktoken": "tiktoken"}
# The first byte of a SentencePiece model: its first field is a list of pieces. tiktoken's is text.
_PIECES_FIELD: Final = b"\x0a"


def convert(folder: Path, config: PretrainedConfig) -> tempfile.TemporaryDirectory[str]:
    """Write the tokenizer of `folder` into a folder only this user can enter, and hand that out.

    It holds `tokenizer.json` and `tokenizer_config.json`, until it is cleaned up.

    Raises:
        ModelError: there is no tokenizer, a package is missing, or the files are broken.
    """
    sources = [path for pattern in _SOURCES for path in sorted(folder.glob(pattern))]
    if not sources:
        raise ModelError(
            f"the model has no {TOKENIZER_FILE}, nor any older file to make one of",
            remedy="take it from the model that this one was made from",
        )
    _check_packages(sources[0])
    target = tempfile.TemporaryDirectory(prefix="backplane-tokenizer-")
    try:
        # Code in a model's folder is for the model alone: a tokenizer is data.
        tokenizer = AutoTokenizer.from_pretrained(
            folder, config=config, trust_remote_code=False, local_files_only=True
        )
        tokenizer.save_pretrained(target.name)
    except Exception as error:  # the library lets out whatever befalls it
        target.cleanup()
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{sources[0].name} cannot be made into a {TOKENIZER_FILE}: {reason}",
            remedy=f"download the model again, or name one with a {TOKENIZER_FILE}",
        ) from error
    if not (Path(target.name) / TOKENIZER_FILE).is_file():
        target.cleanup()
        raise ModelError(
            f"{type(tokenizer).__name__} encodes in Python and has no {TOKENIZER_FILE}",
            remedy="name a model that has one",
        )
    return target


def _check_packages(source: Path) -> None:
    if source.suffix == ".model":
        with source.open("rb") as file:
            is_sentence_piece = file.read(1) == _PIECES_FIELD
        needed = _SENTENCE_PIECE if is_sentence_piece else _TIKTOKEN
    else:
        needed = _TIKTOKEN if source.suffix == ".tiktoken" else {}
    if missing := [name for module, name in needed.items() if not _is_installed(module)]:
        raise ModelError(
            f"{source.name} is read by {' and '.join(missing)}, not installed here",
            remedy=f"pip install {' '.join(missing)}, or name a model with a {TOKENIZER_FILE}",
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is not there
        return False
