"""Reads the header of one GGUF file: metadata and the table of tensors, every number checked before it is used.

    magic "GGUF" | version u32 | tensors u64 | keys u64
    per key:     name | type u32 | value; an array is its type u32 | length u64 | values
    per tensor:  name | dimensions u32 | each u64, the fastest first | type u32 | offset u64, in the data
    padding to general.alignment | data

Little-endian throughout; a string is its length u64 and UTF-8 without an end mark.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ModelFileError, UnsupportedModelError
from qcli.gguf.strings import StringArray, find_strings
from qcli.gguf.types import BLOCKS_BY_NUMBER

Value = int | float | bool | str | NDArray[Any] | StringArray

# Limits of time and memory for damaged and hostile files; no known model comes near.
MAX_HEADER = 1 << 26  # bytes; 262,144 tokens and their merges take 15 MB
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_NAME = 1 << 10  # bytes
MAX_DIMENSIONS = 4

_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", _BOOL: "<u1",
            10: "<u8", 11: "<i8", 12: "<f8"}  # fmt: skip
_U32, _U64 = struct.Struct("<I").unpack_from, struct.Struct("<Q").unpack_from
_SHAPES = [struct.Struct(f"<{n}Q").unpack_from for n in range(MAX_DIMENSIONS + 1)]
_TYPE_AND_OFFSET = struct.Struct("<IQ").unpack_from

BIG_ENDIAN = "is a big-endian GGUF file; qcli reads little-endian ones"
_DOWNLOAD_AGAIN = "the file is damaged or incomplete: download it again"
_CONVERT_AGAIN = "convert it again with a current llama.cpp"


class TensorRow(NamedTuple):
    """One row of the table of tensors; its bytes are inside the file and overlap no other row's.

    A tensor that nobody asks for may be odd: of a type that is not known, with rows that are no whole blocks, or empty.
    """

    name: str
    type: str
    shape: tuple[int, ...]  # NumPy order: the fastest last
    n_bytes: int
    offset: int  # from the start of the file
    odd: str = ""  # why no weights can be made of it: then n_bytes is 0, and its bytes are passed over


@dataclass(frozen=True)
class Header:
    """What the header of one file says."""

    version: int
    metadata: dict[str, Value]
    tensors: list[TensorRow]
    entries: dict[str, memoryview] = field(default_factory=dict)  # by key, as the file has it: name, type and value


def read_header(file: mmap.mmap, path: Path) -> Header:
    """Read and check a whole header. Raises ModelFileError if it is damaged, UnsupportedModelError if of an unknown kind."""
    cursor = _Cursor(file, path)
    version = _version(cursor)
    tensor_count = cursor.count("tensors", MAX_TENSORS, least_bytes=32)
    key_count = cursor.count("metadata keys", MAX_KEYS, least_bytes=13)
    metadata, entries = _metadata(cursor, key_count)
    rows = [_tensor_row(cursor, f"tensor {i + 1} of {tensor_count}") for i in range(tensor_count)]
    return Header(version, metadata, _placed(cursor, rows, _alignment(cursor, metadata)), entries)


def printable(text: str) -> str:
    """Text from a file, safe to print: at most 80 characters, none of them a control character."""
    clean = text[:81]
    if not clean.isprintable():
        clean = "".join(c if c.isprintable() else "\ufffd" for c in clean)
    return clean if len(clean) <= 80 else clean[:79] + "…"


class _Cursor:
    """A reading position that moves only over bytes that are there."""

    def __init__(self, file: mmap.mmap, path: Path) -> None:
        self.file = file
        self.path = path
        self.size = len(file)
        self.end = min(self.size, MAX_HEADER)
        self.at = 4  # after the magic

    def fail(self, what: str, hint: str = _DOWNLOAD_AGAIN) -> ModelFileError:
        return ModelFileError(f"{self.path}: {what}", hint)

    def refuse(self, what: str, hint: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self.path}: {what}", hint)

    def take(self, n: int, what: str) -> int:
        """Move over n bytes; returns where they start."""
        start = self.at
        if n > self.size - start:
            raise self.fail(f"{what} needs {n:,} bytes at byte {start:,}, but the file ends at {self.size:,}")
        if n > self.end - start:
            raise self.fail(f"the header is longer than {MAX_HEADER >> 20} MiB (at {what})")
        self.at = start + n
        return start

    def u32(self, what: str) -> int:
        number: int = _U32(self.file, self.take(4, what))[0]
        return number

    def u64(self, what: str) -> int:
        number: int = _U64(self.file, self.take(8, what))[0]
        return number

    def string(self, what: str) -> bytes:
        start = self.take(self.u64(what), what)
        return self.file[start : self.at]

    def count(self, what: str, most: int, least_bytes: int) -> int:
        count = self.u64(f"the number of {what}")
        if count * least_bytes > self.size - self.at:
            raise self.fail(f"claims {count:,} {what}, which {self.size:,} bytes cannot hold")
        if count > most:
            raise self.fail(f"claims {count:,} {what}; qcli accepts {most:,}")
        return count

    def name(self, what: str) -> str:
        """The name of a key or a tensor: printable, 1 to MAX_NAME bytes."""
        raw = self.string(what)
        name = raw[:MAX_NAME].decode("utf-8", "replace")
        if not name or len(raw) > MAX_NAME or not name.isprintable() or "\ufffd" in name:
            raise self.fail(f'{what}: "{printable(name)}" is not a printable name of 1 to {MAX_NAME} bytes')
        return name


def _version(cursor: _Cursor) -> int:
    version = cursor.u32("the version")
    if version and version & 0xFFFF == 0:
        raise cursor.refuse(BIG_ENDIAN, _CONVERT_AGAIN)
    if version not in (2, 3):
        raise cursor.refuse(f"is of GGUF version {version}; qcli reads 2 and 3", _CONVERT_AGAIN)
    return version


def _metadata(cursor: _Cursor, count: int) -> tuple[dict[str, Value], dict[str, memoryview]]:
    metadata: dict[str, Value] = {}
    entries: dict[str, memoryview] = {}
    for i in range(count):
        start = cursor.at
        key = cursor.name(f"key {i + 1} of {count}")
        if key in metadata:
            raise cursor.fail(f'the key "{printable(key)}" appears twice')
        metadata[key] = _value(cursor, f'the value of "{printable(key)}"')
        entries[key] = memoryview(cursor.file)[start : cursor.at]
    return metadata, entries


def _value(cursor: _Cursor, what: str) -> Value:
    kind = cursor.u32(what)
    if kind == _STRING:
        return cursor.string(what).decode("utf-8", "replace")
    if kind == _ARRAY:
        return _array(cursor, what)
    value: int | float = _numbers(cursor, kind, 1, what)[0].item()
    return bool(value) if kind == _BOOL else value


def _array(cursor: _Cursor, what: str) -> Value:
    kind, count = cursor.u32(what), cursor.u64(what)
    if kind == _ARRAY:
        raise cursor.refuse(f"{what} is an array of arrays, which no known model uses", _CONVERT_AGAIN)
    if kind == _STRING:
        return _strings(cursor, count, what)
    numbers = _numbers(cursor, kind, count, what)
    array = numbers != 0 if kind == _BOOL else numbers.astype(numbers.dtype.newbyteorder("="))
    array.setflags(write=False)
    return array


def _numbers(cursor: _Cursor, kind: int, count: int, what: str) -> NDArray[Any]:
    if kind not in _NUMBERS:
        raise cursor.fail(f"{what} is of type {kind}, which GGUF does not define")
    dtype = np.dtype(_NUMBERS[kind])
    start = cursor.take(count * dtype.itemsize, what)
    return np.frombuffer(cursor.file, dtype, count, start)


def _strings(cursor: _Cursor, count: int, what: str) -> StringArray:
    def misfit(index: int, length: int) -> ModelFileError:
        return cursor.fail(f"{what}: string {index + 1:,} of {count:,} ({length:,} bytes) leaves the header")

    start = cursor.take(8 * count, what)  # their lengths alone
    file = np.frombuffer(cursor.file, np.uint8)
    bounds = find_strings(file, start, count, cursor.end, misfit)
    cursor.at = int(bounds[-1])
    return StringArray(file, bounds)


def _alignment(cursor: _Cursor, metadata: dict[str, Value]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 8 or alignment & (alignment - 1):
        raise cursor.fail(f'"general.alignment" is {printable(str(alignment))}, not a power of two from 8')
    return alignment


def _tensor_row(cursor: _Cursor, what: str) -> TensorRow:
    """One row as the file has it: its offset counts from the start of the data."""
    name = cursor.name(what)
    what = f'tensor "{printable(name)}"'
    dimensions = cursor.u32(what)
    if dimensions > MAX_DIMENSIONS:
        raise cursor.fail(f"{what} has {dimensions:,} dimensions; GGUF allows {MAX_DIMENSIONS}")
    shape = _SHAPES[dimensions](cursor.file, cursor.take(8 * dimensions, what))[::-1] or (1,)
    number, offset = _TYPE_AND_OFFSET(cursor.file, cursor.take(12, what))
    if number not in BLOCKS_BY_NUMBER:
        return TensorRow(name, f"type {number}", shape, 0, offset, f"is of type {number}, which qcli does not know")
    block = BLOCKS_BY_NUMBER[number]
    if 0 in shape:
        return TensorRow(name, f"{block.name}?", shape, 0, offset, f"is empty: its shape is {shape}")
    if shape[-1] % block.columns:
        odd = f"has rows of {shape[-1]:,}, no multiple of {block.name}'s {block.columns}"
        return TensorRow(name, f"{block.name}?", shape, 0, offset, odd)
    return TensorRow(name, block.name, shape, block.row_bytes(math.prod(shape)), offset)


def _placed(cursor: _Cursor, rows: list[TensorRow], alignment: int) -> list[TensorRow]:
    """The rows with offsets from the start of the file. Raises ModelFileError if one is unaligned, outside, or overlaps."""
    start = -(-cursor.at // alignment) * alignment
    for row in rows:
        end = start + row.offset + row.n_bytes
        if row.offset % alignment:
            said = f"begins at {row.offset:,}, not a multiple of {alignment}"
            raise cursor.fail(f'tensor "{printable(row.name)}" {said}')
        if end > cursor.size:
            said = f"ends at byte {end:,}, but the file ends at {cursor.size:,}"
            raise cursor.fail(f'tensor "{printable(row.name)}" {said}')
    for one, two in pairwise(sorted(rows, key=attrgetter("offset"))):
        if one.offset + one.n_bytes > two.offset:
            raise cursor.fail(f'tensors "{printable(one.name)}" and "{printable(two.name)}" overlap')
    return [TensorRow(name, type_, shape, n_bytes, start + at, odd) for name, type_, shape, n_bytes, at, odd in rows]
