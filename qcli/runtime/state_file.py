"""A file of a state: a header that tells all that is in it, the bytes of arrays, a checksum; it appears whole or not at all.

    {"version": 2, "node": …, "arrays": [["<f2", 2, 512, 256], …], …}\\n   what a reader must expect, byte for byte
    int32 …                                                              token ids, of files of rows
    …                                                                    the arrays, one after the other, in C's order
    uint32                                                               CRC-32 of all before it

As a reader knows which header it needs, nothing of a file is parsed, and no size that a file tells is believed.
"""

from __future__ import annotations

import io
import json
import os
import stat
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from quant.renaming import PART, keep_first

STATE_VERSION = 2  # to be raised when what states hold, or mean, changes

_PIECE = 1 << 20  # bytes; a checksum of what was just read or written finds it in the processor's cache
_BUFFER = 1 << 18
_CHECKSUM_BYTES = 4

Arrays = Sequence[NDArray[Any]]


def header(node: str, arrays: Arrays, parent: str = "", ids: bytes = b"") -> bytes:
    """What a file begins with that holds these arrays of a node; parent and ids: of a file of rows."""
    layout = [[array.dtype.str, *array.shape] for array in arrays]
    told = {"version": STATE_VERSION, "node": node, "parent": parent, "ids": len(ids), "arrays": layout}
    return json.dumps(told).encode() + b"\n" + ids


def size(header: bytes, arrays: Arrays) -> int:
    """Bytes of a file."""
    return len(header) + sum(array.nbytes for array in arrays) + _CHECKSUM_BYTES


def write(path: Path, header: bytes, arrays: Arrays) -> None:
    """Write a file for this user alone, beside, then rename it. Raises OSError, and leaves nothing.

    Nothing waits for the disk: a file that a power failure cuts off fails its checksum.
    """
    descriptor, temporary = tempfile.mkstemp(PART, path.name[:24], path.parent)
    try:
        with open(descriptor, "wb", _BUFFER) as file:
            write_to(file, header, arrays)
        keep_first(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def write_to(file: BinaryIO, header: bytes, arrays: Arrays) -> None:
    """Write what such a file holds."""
    file.write(header)
    checksum = zlib.crc32(header)
    for piece in _pieces(arrays):
        checksum = zlib.crc32(piece, checksum)
        file.write(piece)
    file.write(checksum.to_bytes(_CHECKSUM_BYTES, "little"))


def read(path: Path, header: bytes, arrays: Arrays) -> bool:
    """Fill the arrays from a file; False if it is not whole, or another. Raises OSError.

    What the arrays hold after anything but True is of no use.
    """
    with io.BufferedReader(io.FileIO(path), _BUFFER) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size != size(header, arrays):
            return False
        if file.read(len(header)) != header:
            return False
        checksum = zlib.crc32(header)
        for piece in _pieces(arrays):
            if file.readinto(piece) != len(piece):
                return False
            checksum = zlib.crc32(piece, checksum)
        return file.read() == checksum.to_bytes(_CHECKSUM_BYTES, "little")


def _pieces(arrays: Arrays) -> Iterator[memoryview]:
    """The bytes of arrays in C's order as views, each of at most _PIECE bytes."""
    for array in arrays:
        for part in _contiguous(array):
            for first in range(0, len(part), _PIECE):
                yield part[first : first + _PIECE]


def _contiguous(array: NDArray[Any]) -> Iterator[memoryview]:
    """The contiguous parts of an array, in order: of rows cache[:, a:b] one for each head."""
    if array.flags.c_contiguous:
        yield array.reshape(-1).view(np.uint8).data
    else:
        for part in array:
            yield from _contiguous(part)
