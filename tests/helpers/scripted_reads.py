"""Reads of I/O threads that a test answers itself, in place of the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from qcli.streaming.reader import Reader
from quant.system_calls import CALLS

_PREAD = ctypes.CFUNCTYPE(*[ctypes.c_int64] * 5)
_READ_FILE = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int64] * 5)
_LAST_ERROR = ctypes.CFUNCTYPE(ctypes.c_int)
_DISK_FULL = 112  # any number but that of the end of a file


def answer(reader: Reader, read: Callable[[int, int, int, int], int]) -> None:
    """Have I/O threads call read(descriptor, address, size, offset), which gives how many bytes there were."""
    _install(reader, read=_PREAD(read), read_file=None)


def answer_as_windows(reader: Reader, read: Callable[[int, int, int, int], int]) -> None:
    """The same by the signatures of ReadFile and GetLastError: an offset in a structure, the count behind an address."""

    def read_file(handle: int, address: int, size: int, count: int, overlapped: int) -> int:
        low_and_high = ctypes.c_int64.from_address(overlapped + 16).value
        got = read(handle, address, size, low_and_high)
        ctypes.c_uint32.from_address(count).value = max(0, got)
        return got > 0

    _install(reader, read=None, read_file=_READ_FILE(read_file), error=_LAST_ERROR(lambda: _DISK_FULL))


def _install(reader: Reader, **functions: object) -> None:
    for name, function in functions.items():
        address = ctypes.cast(function, ctypes.c_void_p).value or 0 if function else 0
        reader._calls[getattr(CALLS, name) // 8] = address
    reader.keep(functions)
