"""Functions of the operating system that compiled code calls by their addresses: it needs no interpreter for them."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from quant.atomics import call
from quant.jit import inline, intrinsic
from quant.layout import Layout
from quant.simd import I64, load_i64, load_u32, pointer, store_i64

CALLS = Layout(
    "read",  # pread(descriptor, address, bytes, offset); 0 where there is read_file
    "read_file",  # ReadFile(handle, address, bytes, address of the bytes read, address of OVERLAPPED)
    "error",  # gives the address of errno; where there is read_file, GetLastError
    "lock",  # (address of a lock)
    "unlock",
    "sleep",  # (address of a condition, of a lock that is held): until woken
    "wake_all",  # (address of a condition)
    "give_way",  # the rest of a time slice
    "nap",  # (microseconds); on Windows, where Sleep counts in milliseconds, as `give_way`
)
LOCK_BYTES = 128  # that a lock takes, or a condition: at least what any system wants
OVERLAPPED_BYTES = 64  # scratch of `read_at`: the structure of this name, and how many bytes were read
_INTERRUPTED, _END_OF_FILE = 4, 38  # EINTR; ERROR_HANDLE_EOF
_FOREVER = 0xFFFFFFFF  # milliseconds


def addresses() -> dict[str, int]:
    """The fields of CALLS on this system."""
    if sys.platform == "win32":
        kernel = ctypes.windll.kernel32
        functions: dict[str, Any] = {
            "read_file": kernel.ReadFile,
            "error": kernel.GetLastError,
            "lock": kernel.AcquireSRWLockExclusive,
            "unlock": kernel.ReleaseSRWLockExclusive,
            "sleep": kernel.SleepConditionVariableSRW,
            "wake_all": kernel.WakeAllConditionVariable,
            "give_way": kernel.SwitchToThread,
            "nap": kernel.SwitchToThread,
        }
    else:
        library = ctypes.CDLL(None)
        functions = {
            "read": library.pread,
            "error": library.__error if sys.platform == "darwin" else library.__errno_location,
            "lock": library.pthread_mutex_lock,
            "unlock": library.pthread_mutex_unlock,
            "sleep": library.pthread_cond_wait,
            "wake_all": library.pthread_cond_broadcast,
            "give_way": library.sched_yield,
            "nap": library.usleep,
        }
    found = {name: ctypes.cast(function, ctypes.c_void_p).value or 0 for name, function in functions.items()}
    return dict.fromkeys(CALLS.names, 0) | found


@cache
def _in_order() -> tuple[int, ...]:
    """Looked up once: each time makes classes of functions, which the collector must find again."""
    return CALLS.in_order(addresses())


def table() -> NDArray[np.int64]:
    """A new table of CALLS for this system."""
    return np.array(_in_order(), np.int64)


def make_lock(lock: int, condition: int) -> None:
    """Make a lock and a condition of zeroed memory at two addresses, LOCK_BYTES each; they need not be given back."""
    if sys.platform != "win32":  # where zeros are both
        library = ctypes.CDLL(None)
        library.pthread_mutex_init(ctypes.c_void_p(lock), None)
        library.pthread_cond_init(ctypes.c_void_p(condition), None)


def describe(error: int) -> str:
    """What the system says of an error's number."""
    if sys.platform == "win32":
        return ctypes.FormatError(error)
    return os.strerror(error)


@intrinsic
def call_for_result(address: Any, operands: Any) -> Any:
    """As `quant.atomics.call`; gives the integer that the function returns."""

    def generate(builder: Any, at: Any, values: list[Any]) -> Any:
        kind = ir.FunctionType(I64, [value.type for value in values])
        return builder.call(pointer(builder, at, kind), values)

    return "i64", generate


@inline
def acquire(calls, lock):
    """Wait for a lock and take it."""
    call(load_i64(calls + CALLS.lock), (lock,))


@inline
def release(calls, lock):
    """Give a lock back."""
    call(load_i64(calls + CALLS.unlock), (lock,))


@inline
def sleep_on(calls, condition, lock):
    """Give a lock back until the condition is woken; it may return for no reason, with the lock."""
    call(load_i64(calls + CALLS.sleep), (condition, lock, _FOREVER, 0))  # the last two for Windows alone


@inline
def _read_file(calls, file, address, size, offset, scratch):
    store_i64(scratch, 0)
    store_i64(scratch + 8, 0)
    store_i64(scratch + 16, offset)
    store_i64(scratch + 24, 0)
    store_i64(scratch + 32, 0)
    read = load_i64(calls + CALLS.read_file)
    if call_for_result(read, (file, address, size, scratch + 32, scratch)) & 0xFFFFFFFF:
        return load_u32(scratch + 32)
    error = call_for_result(load_i64(calls + CALLS.error), (0,)) & 0xFFFFFFFF
    return 0 if error == _END_OF_FILE else -error


@inline
def _pread(calls, file, address, size, offset):
    read, error = load_i64(calls + CALLS.read), _INTERRUPTED
    got = 0
    while error == _INTERRUPTED:
        got, error = call_for_result(read, (file, address, size, offset)), 0
        if got < 0:
            error = load_u32(call_for_result(load_i64(calls + CALLS.error), (0,)))
    return -error if got < 0 else got


@inline
def read_at(calls, file, address, size, offset, scratch):
    """Read from an offset of a file: how many bytes there were, or the number of an error, below zero.

    scratch: OVERLAPPED_BYTES of the calling thread.
    """
    if load_i64(calls + CALLS.read_file):
        return _read_file(calls, file, address, size, offset, scratch)
    return _pread(calls, file, address, size, offset)
