"""Writing a GGUF model as another type. Import-light: llama.cpp is loaded when it is asked to.

Knows the types' names; what they are is llama.cpp's affair.
"""

import re
from collections.abc import Callable
from pathlib import Path

from backplane_core.backend import ProgressSink
from backplane_core.errors import BackendError, ModelError

#: What llama.cpp makes of weights alone, best known first. Those below 2 bits are for models
#: trained as ternary or binary ones.
QUANTIZATIONS = (
    *("q4_k_m", "q4_k_s", "q5_k_m", "q5_k_s", "q6_k", "q8_0", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k"),
    *("iq4_xs", "iq4_nl", "iq3_m", "iq3_s", "q4_0", "q4_1", "q5_0", "q5_1"),
    *("f16", "bf16", "f32", "mxfp4_moe", "tq2_0", "tq1_0", "q2_0", "q1_0"),
)
_ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}
_NEED_IMATRIX = frozenset(
    {"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "iq3_xs", "q2_k_s"}
)
_REQUANTIZING = re.compile(r"requantizing from type (\S+)")
_TENSOR = re.compile(r"\[ *(\d+)/ *(\d+)\] (\S+)")


def canonical(quantization: str) -> str:
    """One of `QUANTIZATIONS`, from any case and from llama.cpp's short names.

    Raises:
        BackendError: it is none that can be made.
    """
    lowered = quantization.lower()
    name = _ALIASES.get(lowered, lowered)
    if name in _NEED_IMATRIX:
        raise _no_imatrix(quantization)
    if name not in QUANTIZATIONS:
        raise BackendError(
            f"llama.cpp makes no {quantization}", remedy=f"it makes: {', '.join(QUANTIZATIONS)}"
        )
    return name


def quantize(source: Path, target: Path, quantization: str, progress: ProgressSink) -> None:
    """Write the model at `source`, the first part of a split one, as the one file `target`.

    Raises:
        ModelError: the source is broken, or quantized already.
        BackendError: the type is unknown, or the disk refuses.
    """
    from backplane_llamacpp.native.quantize import write_as  # noqa: PLC0415 - loads the engine

    name = canonical(quantization)
    partial = target.with_name(f"{target.name}.part")
    try:
        objection = write_as(source, partial, name, _follower(progress))
        if objection is not None:
            raise _failure(source, target, name, objection)
        partial.replace(target)
    except OSError as error:
        raise BackendError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _no_imatrix(quantization: str) -> BackendError:
    return BackendError(
        f"{quantization} needs an importance matrix, measured on texts, which this command does "
        "not have",
        remedy="choose iq3_s or q2_k, or make it with llama.cpp's llama-imatrix and llama-quantize",
    )


def _follower(progress: ProgressSink) -> Callable[[str], None]:
    """Takes llama.cpp's log and tells which tensor of how many it has come to."""

    def follow(line: str) -> None:
        if found := _TENSOR.match(line):
            number, count, tensor = found.groups()
            progress("quantize", int(number) / int(count), tensor)

    return follow


def _failure(source: Path, target: Path, name: str, objection: str) -> ModelError | BackendError:
    if "requires an imatrix" in objection:
        return _no_imatrix(name)
    if found := _REQUANTIZING.search(objection):
        stored = found[1]
        return ModelError(
            f"{source} holds {stored} weights, and quantizing twice would lose more than it saves",
            remedy="start from the model's f16, bf16 or f32 file",
        )
    if "iostream" in objection or "failed to open" in objection:
        return BackendError(
            f"{target} cannot be written: {objection}",
            remedy="check that its folder exists, can be written and has room",
        )
    return ModelError(
        f"llama.cpp cannot write {source} as {name}: {objection}",
        remedy="check that the file is whole and its architecture known to this llama.cpp",
    )
