"""Safetensors files: a header that is checked in full, and tensors that are read one by one.

Eight bytes of length, that much JSON (name → dtype, shape, offsets), then the values.
"""

import math
import os
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import torch
from backplane_core.errors import ModelError

from backplane_torch.engine.checkpoint.file_start import DOWNLOAD_AGAIN, read_start
from backplane_torch.engine.checkpoint.stored_tensor import Advance, StoredTensor

_LENGTH_BYTES: Final = 8
_MAX_HEADER_BYTES: Final = 100_000_000  # what safetensors itself takes
_CHUNK_BYTES: Final = 32 << 20  # read at once: enough for the disk, and progress is seen to move
_METADATA: Final = "__metadata__"
_DTYPES: Final = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class SafetensorsTensor(StoredTensor):
    """A range of bytes of a file, which is opened for each read: there is nothing to close."""

    def __init__(
        self, name: str, path: Path, dtype: torch.dtype, shape: tuple[int, ...], span: range
    ) -> None:
        super().__init__(name, path, dtype, shape, len(span))
        self._start = span.start

    def read(self, advance: Advance) -> torch.Tensor:
        """See `StoredTensor`. Read and not mapped: pages of a mapped file would count as ours."""
        values = torch.empty(self.num_bytes, dtype=torch.uint8)
        view = values.numpy().data
        done = 0
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self._start)
                while done < self.num_bytes:
                    count = file.readinto(view[done : done + _CHUNK_BYTES])
                    if not count:
                        raise ModelError(
                            f"{self.path} became shorter while it was read: tensor {self.name} "
                            "is cut off",
                            remedy=DOWNLOAD_AGAIN,
                        )
                    done += count
                    advance(count)
        except OSError as error:
            raise ModelError(
                f"{self.path} cannot be read at tensor {self.name}: {error.strerror}",
                remedy="check the disk and the file's permissions",
            ) from error
        return values.view(self.dtype).view(self.shape)


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file, by name; their values are not read.

    Raises:
        ModelError: the file is missing, truncated, something else, or holds what torch has no
            type for; the message names the tensor where it is one's fault.
    """
    start = read_start(path)
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if length > _MAX_HEADER_BYTES or start[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{":
        raise ModelError(
            f"{path} is no safetensors file: it begins with {start[:16]!r}",
            remedy=f"{DOWNLOAD_AGAIN}; an error page may have been saved",
        )
    with path.open("rb") as file:
        file.seek(_LENGTH_BYTES)
        header = file.read(length)
        size = file.seek(0, os.SEEK_END)
    if len(header) < length:
        raise ModelError(
            f"{path} is truncated: it ends at byte {size}, within its header",
            remedy=DOWNLOAD_AGAIN,
        )
    body = _LENGTH_BYTES + length
    entries = _decode(path, header)
    _check_offsets(path, entries, size - body)
    return {
        name: SafetensorsTensor(
            name,
            path,
            _dtype_of(path, name, entry),
            entry.shape,
            range(body + entry.data_offsets[0], body + entry.data_offsets[1]),
        )
        for name, entry in entries.items()
    }


def _decode(path: Path, header: bytes) -> dict[str, _Entry]:
    try:
        fields = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse(path, f"its header is no JSON object ({error})")
    fields.pop(_METADATA, None)
    entries: dict[str, _Entry] = {}
    for name, text in fields.items():
        if not name.isprintable():
            _refuse(path, f"{name!r} is no tensor's name")
        try:
            entries[name] = msgspec.json.decode(text, type=_Entry)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _refuse(path, f"its header describes tensor {name} wrongly ({error})")
    return entries


def _check_offsets(path: Path, entries: dict[str, _Entry], num_bytes: int) -> None:
    """Tensors lie one after the other, without gaps, as long as their shapes say, to the end."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        first, last = entry.data_offsets
        itemsize = _dtype_of(path, name, entry).itemsize
        if min((first, *entry.shape), default=0) < 0 or last < first:
            _refuse(path, f"tensor {name} has negative sizes")
        if last - first != math.prod(entry.shape) * itemsize:
            _refuse(
                path,
                f"tensor {name} takes {last - first} bytes, and shape {list(entry.shape)} of "
                f"{entry.dtype} {math.prod(entry.shape) * itemsize}",
            )
        if last > num_bytes:
            raise ModelError(
                f"{path} is truncated: tensor {name} should end at byte {last} of the values, and "
                f"there are {num_bytes}",
                remedy=DOWNLOAD_AGAIN,
            )
        if first != end:
            _refuse(path, f"tensor {name} begins at byte {first} of the values instead of {end}")
        end = last
    if end != num_bytes:
        _refuse(path, f"{num_bytes - end} bytes after the last tensor belong to none")


def _dtype_of(path: Path, name: str, entry: _Entry) -> torch.dtype:
    if entry.dtype not in _DTYPES:
        raise ModelError(
            f"{path}: tensor {name} is of type {entry.dtype}, which is not supported",
            remedy="choose a checkpoint in BF16, F16 or F32",
        )
    return _DTYPES[entry.dtype]


def _refuse(path: Path, why: str) -> NoReturn:
    raise ModelError(f"{path} is damaged: {why}", remedy=DOWNLOAD_AGAIN)
