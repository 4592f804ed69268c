"""Writes GGUF files: the header at once, then one tensor after the other, in pieces of any size.

The layout is that of `header.py`; keys are given as bytes, so that those of another file can be copied unchanged.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcli.gguf.types import BLOCKS
from qcli.host.atomic_files import AtomicFiles, output_errors

_U16, _U32, _I32, _F32, _STRING, _ARRAY = 2, 4, 5, 6, 8, 9
ALIGNMENT = 32


@dataclass(frozen=True)
class NewTensor:
    """A row of the table to write; shape in NumPy order."""

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of its data. Raises ValueError for rows that are not whole blocks."""
        block = BLOCKS[self.type]
        if self.shape[-1] % block.columns:
            raise ValueError(f"{self.name}: rows of {self.shape[-1]} are no multiple of {self.type}'s {block.columns}")
        return block.row_bytes(math.prod(self.shape))


class GGUFWriter:
    """Writes one file. Raises OutputError; ValueError if the data do not fit the table of tensors."""

    def __init__(
        self,
        output: AtomicFiles,
        path: Path,
        keys: Mapping[str, bytes],
        tensors: Sequence[NewTensor],
        alignment: int = ALIGNMENT,
    ) -> None:
        """Create one of the output files and write its header; keys: each with its whole entry."""
        self._output, self._path, self._alignment = output, path, alignment
        self._file = output.open(path)
        self._left = [tensor.n_bytes for tensor in reversed(tensors)]  # bytes of each tensor to come
        self._missing = self._left.pop() if self._left else 0  # bytes of the current tensor
        self._at = 0
        self._put(header(keys, tensors, alignment))
        self._pad()

    def write(self, data: NDArray[np.uint8]) -> None:
        """Add bytes, uint8, to the current tensor; when it is complete, the next one of the table becomes the current one."""
        if data.nbytes > self._missing:
            raise ValueError(f"{data.nbytes} bytes for a tensor that lacks {self._missing}")
        self._put(data.reshape(-1).data)
        self._missing -= data.nbytes
        if not self._missing:
            self._pad()
            self._missing = self._left.pop() if self._left else 0

    def finish(self) -> None:
        """Flush the file to the disk. Raises ValueError if a tensor is not complete."""
        if self._missing or self._left:
            raise ValueError(f"{self._path}: tensors are missing")
        self._output.finish(self._path)

    def _pad(self) -> None:
        self._put(bytes(-self._at % self._alignment))

    def _put(self, data: bytes | memoryview) -> None:
        with output_errors(self._path):
            self._file.write(data)
        self._at += len(data)


def header(keys: Mapping[str, bytes], tensors: Sequence[NewTensor], alignment: int = ALIGNMENT) -> bytes:
    """Magic, version, keys and the table of tensors, without the padding that follows."""
    rows, offset = [], 0
    for tensor in tensors:
        shape = tensor.shape[::-1]
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        rows.append(_string(tensor.name) + dimensions + struct.pack("<IQ", BLOCKS[tensor.type].number, offset))
        offset += -(-tensor.n_bytes // alignment) * alignment
    return b"".join([b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(keys)), *keys.values(), *rows])


def file_bytes(keys: Mapping[str, bytes], tensors: Sequence[NewTensor], alignment: int = ALIGNMENT) -> int:
    """Bytes of a file with these keys and tensors."""
    parts = [len(header(keys, tensors, alignment)), *(tensor.n_bytes for tensor in tensors)]
    return sum(-(-part // alignment) * alignment for part in parts)


def u16(key: str, value: int) -> dict[str, bytes]:
    """A key with a whole number of 16 bits, as its name and its bytes in the file."""
    return {key: _string(key) + struct.pack("<IH", _U16, value)}


def u32(key: str, value: int) -> dict[str, bytes]:
    """The same with 32 bits."""
    return {key: _string(key) + struct.pack("<II", _U32, value)}


def i32(key: str, value: int) -> dict[str, bytes]:
    """The same with 32 bits and a sign."""
    return {key: _string(key) + struct.pack("<Ii", _I32, value)}


def f32(key: str, value: float) -> dict[str, bytes]:
    """The same with a float32."""
    return {key: _string(key) + struct.pack("<If", _F32, value)}


def text(key: str, value: str) -> dict[str, bytes]:
    """The same with a string."""
    return {key: _string(key) + struct.pack("<I", _STRING) + _string(value)}


def texts(key: str, values: Sequence[str]) -> dict[str, bytes]:
    """The same with an array of strings."""
    start = struct.pack("<IIQ", _ARRAY, _STRING, len(values))
    return {key: _string(key) + start + b"".join(map(_string, values))}


def split_keys(number: int, count: int, tensors: int) -> dict[str, bytes]:
    """The keys of part `number`, from 0, of a model split into `count` parts; tensors: of all parts."""
    parts = u16("split.no", number) | u16("split.count", count)
    return parts | i32("split.tensors.count", tensors)


def split(tensors: Iterable[NewTensor], most: int) -> list[list[NewTensor]]:
    """Tensors in order, in parts of at most `most` bytes; a larger tensor gets a part of its own."""
    parts: list[list[NewTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if parts[-1] and size + tensor.n_bytes > most:
            parts.append([])
            size = 0
        parts[-1].append(tensor)
        size += tensor.n_bytes
    return parts


def write_small(output: AtomicFiles, keys: Mapping[str, bytes], tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write the one file of `output`: whole, of float32 arrays. Raises OutputError."""
    rows = [NewTensor(name, "F32", array.shape) for name, array in tensors.items()]
    with output:
        writer = GGUFWriter(output, output.paths[0], keys, rows)
        for array in tensors.values():
            writer.write(np.ascontiguousarray(array, "<f4").view(np.uint8).reshape(-1))
        writer.finish()


def _string(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw
