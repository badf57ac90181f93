"""A model's configuration: `config.json`, as a class of transformers or of the repository."""

from pathlib import Path
from typing import Any, Final

import msgspec
import torch
import transformers
from backplane_core.errors import ModelError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from backplane_torch.model_files import CONFIG

TRUST_FLAG: Final = "--trust-remote-code"

_GENERATION: Final = "generation_config.json"
_POSITIONS: Final = ("max_position_embeddings", "max_seq_len")
_MAX_ERROR_CHARS: Final = 300


def read_config(folder: Path, *, trust_remote_code: bool) -> PreTrainedConfig:
    """The configuration in a model's folder.

    Args:
        folder: local.
        trust_remote_code: run the repository's code where it brings a class of its own, even if
            transformers has one too.

    Raises:
        ModelError: it is missing or broken, or of a model that transformers does not know and
            whose code may not be run or does not run.
    """
    path = folder / CONFIG
    fields = _read_fields(path)
    model_type = fields.get("model_type")
    has_code = "AutoConfig" in (fields.get("auto_map") or {})
    is_known = isinstance(model_type, str) and model_type in CONFIG_MAPPING
    if not is_known and not (has_code and trust_remote_code):
        raise _unknown(path, model_type, has_code=has_code)
    _check_dtype(path, fields)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # a configuration is code: of transformers, or of anybody
        raise ModelError(
            f"{path} makes no configuration: {in_one_line(error)}",
            remedy="repair it, or download it again"
            + (f"; or try it without {TRUST_FLAG}" if has_code and trust_remote_code else ""),
        ) from error


def max_positions(config: PreTrainedConfig) -> int | None:
    """How many tokens a model's positions reach; None where they have no end, also said as -1."""
    text = config.get_text_config(decoder=True)
    found = (getattr(text, name, None) for name in _POSITIONS)
    return next((value for value in found if isinstance(value, int) and value > 0), None)


class DecoderStart(msgspec.Struct, frozen=True):
    """What a decoder beside an encoder begins with, by transformers' names; None is unsaid."""

    decoder_start_token_id: int | list[int] | None = None
    forced_bos_token_id: int | None = None


def read_decoder_start(folder: Path) -> DecoderStart:
    """As `generation_config.json` says or, in an older model without it, `config.json`.

    Raises:
        ModelError: the file is broken.
    """
    path = folder / (_GENERATION if (folder / _GENERATION).is_file() else CONFIG)
    try:
        return msgspec.convert(_read_fields(path), DecoderStart)
    except msgspec.ValidationError as error:
        raise ModelError(
            f"{path} does not say what answers begin with: {error}",
            remedy="repair it, or download it again",
        ) from error


def in_one_line(error: Exception) -> str:
    """What happened, with the exception's kind, where its text alone often says little."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_MAX_ERROR_CHARS]}" if text else type(error).__name__


def _read_fields(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        raise ModelError(
            f"{path.parent} holds no {path.name}, which says what kind of model it is",
            remedy="name the folder of a model in Hugging Face's format",
        ) from None
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}", remedy="check its permissions"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(
            f"{path} is no JSON object: {error}", remedy="repair it, or download it again"
        ) from error


def _unknown(path: Path, model_type: object, *, has_code: bool) -> ModelError:
    if has_code:
        return ModelError(
            f"{path}: models of type {model_type} are computed by code of their repository",
            remedy=f"if you trust that code, have it run with {TRUST_FLAG}",
        )
    if model_type is None:
        return ModelError(
            f"{path} says no model_type", remedy="name the folder of a model for transformers"
        )
    return ModelError(
        f"{path}: transformers {transformers.__version__} knows no models of type {model_type}",
        remedy="upgrade transformers if a newer one does, or choose another model",
    )


def _check_dtype(path: Path, fields: dict[str, Any]) -> None:
    for key in ("dtype", "torch_dtype"):
        name = fields.get(key)
        if name is None:
            continue
        dtype = getattr(torch, name, None) if isinstance(name, str) else None
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ModelError(
                f"{path}: {key} {name!r} is no floating-point type",
                remedy="write bfloat16, float16 or float32",
            )
