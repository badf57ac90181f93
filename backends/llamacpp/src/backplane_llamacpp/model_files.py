"""Which GGUF files of a repository or folder make the model that is meant. Pure: names only."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from backplane_core.backend import ModelSource
from backplane_core.errors import ModelError
from backplane_core.file_labels import has_label

# The first of these that is there is taken: small enough for most machines, close to the original.
_PREFERENCE = (
    *("Q4_K_M", "Q4_K_L", "Q4_K_XL", "Q4_K_S", "Q4_0", "MXFP4", "IQ4_NL", "IQ4_XS", "Q4_1"),
    *("Q5_K_M", "Q5_K_S", "Q5_0", "Q6_K", "Q8_0", "Q5_1", "F16", "BF16", "F32"),
    *("Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "Q2_K"),
)
# GGUF files that are no model of text by themselves.
_COMPANIONS = re.compile(r"(?i)(^|[-_.])(mmproj|imatrix|lora|adapter|vocab-only)([-_.]|$)")
_MOST_LISTED = 20
_PART = re.compile(r"(?i)^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One model: one file, or all parts of a split one, in order. `name` is without parts."""

    name: str
    files: tuple[str, ...]

    def has_label(self, label: str) -> bool:
        """Whether a quantization's name stands by itself in the file's or folder's name."""
        return has_label(self.name, label)


def is_gguf(name: str) -> bool:
    """Whether a file name says GGUF."""
    return name.lower().endswith(".gguf")


def is_part(name: str) -> bool:
    """Whether a file name is that of a part of a split model."""
    return _PART.match(name) is not None


def candidates_exist(files: Iterable[str]) -> bool:
    """Whether any file is a GGUF model, whole or a part of one."""
    return any(is_gguf(file) and not _is_companion(file) for file in files)


def _is_companion(file: str) -> bool:
    return _COMPANIONS.search(PurePosixPath(file).name) is not None


def candidates(files: Iterable[str]) -> list[Candidate]:
    """The models among file names, sorted by name.

    Raises:
        ModelError: a split model lacks a part.
    """
    whole: dict[str, tuple[str, ...]] = {}
    parts: dict[tuple[str, int], dict[int, str]] = {}
    for file in sorted(filter(is_gguf, files)):
        if _is_companion(file):
            continue
        if match := _PART.match(file):
            key = match["stem"], int(match["count"])
            parts.setdefault(key, {})[int(match["number"])] = file
        else:
            whole[file[: -len(".gguf")]] = (file,)
    for (stem, count), found in parts.items():
        if missing := [number for number in range(1, count + 1) if number not in found]:
            raise ModelError(
                f"{stem} is split into {count} files, but part "
                f"{', '.join(map(str, missing))} is missing",
                remedy="put all parts into one folder, or download them again",
            )
        whole[stem] = tuple(found[number] for number in range(1, count + 1))
    return [Candidate(name, files) for name, files in sorted(whole.items())]


def choose(model: ModelSource) -> Candidate:
    """The candidate that the id, its variant or `--gguf-file` means; else the best default.

    Raises:
        ModelError: nothing fits, or several do equally; the message lists what there is.
    """
    found = candidates(model.files)
    if not found:
        raise ModelError(
            f"{model.model_id} holds no GGUF model; it holds: {_listing(model.files)}",
            remedy="name a model in GGUF: many have a repository whose name ends in -GGUF",
        )
    if model.gguf_file is not None:
        return _by_file(model, model.gguf_file, found)
    if model.variant is not None:
        return _by_variant(model, model.variant, found)
    if len(found) == 1:
        return found[0]
    for label in _PREFERENCE:
        fitting = [candidate for candidate in found if candidate.has_label(label)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise _ambiguous(model, fitting)
    raise _ambiguous(model, found)


def _by_file(model: ModelSource, wanted: str, found: list[Candidate]) -> Candidate:
    fitting = [candidate for candidate in found if wanted in (candidate.name, *candidate.files)]
    fitting = fitting or [
        candidate
        for candidate in found
        if wanted in {PurePosixPath(file).name for file in candidate.files}
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise _ambiguous(model, fitting)
    raise ModelError(
        f"{model.model_id} has no file {wanted}; it has: {_names(found)}",
        remedy="name one of these with --gguf-file",
    )


def _by_variant(model: ModelSource, wanted: str, found: list[Candidate]) -> Candidate:
    fitting = [candidate for candidate in found if candidate.has_label(wanted)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise _ambiguous(model, fitting)
    raise ModelError(
        f"{model.model_id} has no GGUF called {wanted}; it has: {_names(found)}",
        remedy="name one of these after the colon, or with --gguf-file",
    )


def _ambiguous(model: ModelSource, fitting: list[Candidate]) -> ModelError:
    return ModelError(
        f"{model.model_id} holds several GGUF models that fit: {_names(fitting)}",
        remedy="name one: --model-id owner/name:QUANT, or --gguf-file FILE",
    )


def _names(found: list[Candidate]) -> str:
    return _listing(candidate.files[0] for candidate in found)


def _listing(names: Iterable[str]) -> str:
    listed = list(names)
    left_out = len(listed) - _MOST_LISTED
    more = f" and {left_out} more" if left_out > 0 else ""
    return (", ".join(listed[:_MOST_LISTED]) or "nothing") + more
