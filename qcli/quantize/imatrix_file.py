"""Importance matrices: how large the inputs of every weight are, in the formats that llama.cpp reads and writes.

GGUF: for each weight two F32 tensors, `<weight>.in_sum2` [experts, columns], the sums of squares, and `<weight>.counts`
[experts], of how many rows; keys `general.type` "imatrix", `imatrix.datasets`, `.chunk_count` and `.chunk_size`.

The older .dat: entries u32, then of each the length of its name, the name, calls i32, values i32, float32 [values], which
hold the mean of squares times the calls; then, or not, the calls of the last entry and the data set's name.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ModelFileError, ModelNotFoundError
from qcli.gguf.file import GGUFFile
from qcli.gguf.header import printable
from qcli.gguf.strings import StringArray
from qcli.gguf.writer import text, texts, u32, write_small
from qcli.host.atomic_files import AtomicFiles
from qcli.wording import quantity

_SUMS, _COUNTS = ".in_sum2", ".counts"
_MEASURE = "`qcli imatrix MODEL TEXT -o FILE` makes one"
_MAX_NAME = 1 << 10  # bytes
_MAX_DAT = 1 << 33  # bytes: those of the largest models have 2 GB
_I32 = struct.Struct("<i")


@dataclass(frozen=True, eq=False)
class Entry:
    """Of one weight: sums of squares float32 [experts, columns] and rows counted int64 [experts]; dense: one expert."""

    sums: NDArray[np.float32]
    counts: NDArray[np.int64]

    def means(self) -> NDArray[np.float32]:
        """float32 [experts, columns]: the mean square; 1 for every column of an expert that no token was routed to."""
        counts = self.counts[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(counts > 0, self.sums / counts, 1).astype(np.float32)


@dataclass(frozen=True)
class Imatrix:
    """A whole importance matrix, measured on `chunks` chunks of `chunk_size` tokens of the data sets."""

    entries: Mapping[str, Entry]
    datasets: list[str]
    chunks: int
    chunk_size: int

    def importance(self, name: str, experts: int, columns: int) -> NDArray[np.float32] | None:
        """float32 [experts, columns] for a weight, or None if there is nothing about it; ValueError if it does not fit."""
        entry = self.entries.get(name)
        if entry is None:
            return None
        means = entry.means()
        if means.size != experts * columns:
            raise ValueError(f"importance of {means.size} columns for {experts} x {columns}")
        return means.reshape(experts, columns)


def read(path: Path) -> Imatrix:
    """A file of either format. Raises ModelNotFoundError, ModelFileError."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, and some devices never end
            raise ModelFileError(f"{path}: is not a file", _MEASURE)
        with open(path, "rb") as file:
            is_gguf = file.read(4) == b"GGUF"
        return _read_gguf(path) if is_gguf else _read_dat(path)
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path}: no such file", _MEASURE) from None
    except OSError as error:
        raise ModelFileError(
            f"{path}: cannot be read: {error.strerror}", "check the path and its permissions"
        ) from None


def write(output: AtomicFiles, imatrix: Imatrix) -> None:
    """As GGUF, into the one file of `output`. Raises OutputError."""
    keys = text("general.type", "imatrix") | texts("imatrix.datasets", imatrix.datasets)
    keys |= u32("imatrix.chunk_count", imatrix.chunks) | u32("imatrix.chunk_size", imatrix.chunk_size)
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, entry in sorted(imatrix.entries.items()):
        tensors[name + _SUMS] = entry.sums
        tensors[name + _COUNTS] = entry.counts.astype(np.float32).reshape(-1, 1)
    write_small(output, keys, tensors)


def _read_gguf(path: Path) -> Imatrix:
    with GGUFFile.open(path) as file:
        named = [name.removesuffix(_SUMS) for name in file.tensors if name.endswith(_SUMS)]
        if not named:
            raise ModelFileError(f"{path}: is a GGUF file, but no importance matrix", _MEASURE)
        datasets = file.metadata.get("imatrix.datasets")
        return Imatrix(
            {name: _entry(file, name) for name in named},
            datasets.tolist() if isinstance(datasets, StringArray) else [],
            file.get_int("imatrix.chunk_count", 0),
            file.get_int("imatrix.chunk_size", 0),
        )


def _entry(file: GGUFFile, name: str) -> Entry:
    sums, counts = (_floats(file, name + suffix) for suffix in (_SUMS, _COUNTS))
    if sums.size % counts.size:
        raise ModelFileError(f'{file.path}: {sums.size} sums of "{name}" for {counts.size} experts', _MEASURE)
    return _checked(file.path, name, sums.reshape(counts.size, -1), counts)


def _floats(file: GGUFFile, name: str) -> NDArray[np.float32]:
    tensor = file.tensor(name)
    if tensor.type != "F32":
        raise ModelFileError(f'{file.path}: "{name}" is of type {tensor.type}, not F32', _MEASURE)
    return np.frombuffer(tensor.data.tobytes(), "<f4").astype(np.float32)


def _checked(path: Path, name: str, sums: NDArray[np.float32], counts: NDArray[np.float32]) -> Entry:
    for numbers in (sums, counts):
        if not (np.isfinite(numbers).all() and (numbers >= 0).all()):
            message = f'{path}: "{printable(name)}" holds numbers that are negative or not finite'
            raise ModelFileError(message, "measure it again")
    return Entry(sums, np.rint(np.minimum(counts, 2.0**62)).astype(np.int64))


def _read_dat(path: Path) -> Imatrix:
    if (n_bytes := path.stat().st_size) > _MAX_DAT:
        raise ModelFileError(f"{path}: is not an importance matrix: it has {quantity(n_bytes, 'B')}", _MEASURE)
    cursor = _Dat(path, path.read_bytes())
    entries = {}
    for i in range(cursor.number("the number of entries", 1 << 17)):
        name = cursor.take(cursor.number(f"entry {i + 1}", _MAX_NAME), f"entry {i + 1}").decode("utf-8", "replace")
        calls, count = cursor.integer(name), cursor.number(name, 1 << 30)
        values = np.frombuffer(cursor.take(4 * count, name), "<f4").astype(np.float32)
        entries[name] = _checked(path, name, values[None], np.array([max(calls, 1)], np.float32))
    chunks = 0
    datasets: list[str] = []
    if cursor.left() >= 4:
        chunks = max(cursor.integer("the chunks"), 0)
    if cursor.left() >= 4:
        size = cursor.number("the data set", cursor.left() - 4)
        datasets = [cursor.take(size, "the data set").decode("utf-8", "replace")] if size else []
    return Imatrix(entries, datasets, chunks, 0)


class _Dat:
    """A place in a .dat file that moves only over bytes that are there."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path, self._data, self._at = path, data, 0

    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int, what: str) -> bytes:
        if size > self.left():
            raise self._not_one(f'"{printable(what)}" reaches beyond its end')
        self._at += size
        return self._data[self._at - size : self._at]

    def integer(self, what: str) -> int:
        return int(_I32.unpack(self.take(4, what))[0])

    def number(self, what: str, most: int) -> int:
        """A count from 0 (of entries, 1) to `most`."""
        value = self.integer(what)
        if not 0 <= value <= most or (self._at == 4 and not value):
            raise self._not_one(f'"{printable(what)}" is {value}')
        return value

    def _not_one(self, why: str) -> ModelFileError:
        return ModelFileError(f"{self._path}: is not an importance matrix: {why}", _MEASURE)
