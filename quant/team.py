"""A team of threads that replays a plan: every thread runs every record on its share, with a barrier between records.

The whole replay is one compiled call without the GIL. Between replays the helpers spin for a moment, for the next token
of an answer, nap for a while, as the next may have to be read from a disk, and then sleep.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from quant.atomics import atomic_add, atomic_load, call, flush_denormals, pause, restore_mode, ticks
from quant.jit import function, inline, intrinsic
from quant.plan import OPERANDS, RECORD_BYTES, aligned
from quant.simd import I64, load_i64, pointer, store_i64

# Byte offsets in the control block; words that different threads write lie on different cache lines.
_ARRIVED, _PHASE, _EPOCH = 0, 128, 256
_PLAN, _COUNT, _YIELD, _TIMES, _NAP, _SPINS, _SIZE = 384, 392, 400, 408, 416, 424, 512
_SPINS_BEFORE_YIELD = 2_000  # about 30 us: longer than any wait on a quiet machine
SPINS_BEFORE_NAP = 100_000  # about 1.5 ms: longer than sampling and printing a token; read when a team is made
_NAP_US = 50
_NAPS_BEFORE_SLEEP = (
    2_000  # 0.1 s and more: longer than reading experts; waking from sleep takes the interpreter's lock
)


def _system_calls() -> tuple[int, int]:
    """The addresses of the calls that give the rest of a time slice away, and that nap for some microseconds."""
    if sys.platform == "win32":  # where Sleep counts in milliseconds
        calls = ctypes.windll.kernel32.SwitchToThread, ctypes.windll.kernel32.SwitchToThread
    else:
        library = ctypes.CDLL(None)
        calls = library.sched_yield, library.usleep
    give, nap = (ctypes.cast(function, ctypes.c_void_p).value or 0 for function in calls)
    return give, nap


@inline
def _barrier(control, size):
    phase = atomic_load(control + _PHASE)
    if atomic_add(control + _ARRIVED, 1) == size - 1:
        atomic_add(control + _ARRIVED, -size)
        atomic_add(control + _PHASE, 1)
        return
    spins = 0
    while atomic_load(control + _PHASE) == phase:
        pause()
        spins += 1
        if spins > _SPINS_BEFORE_YIELD:
            call(load_i64(control + _YIELD), (0,))


@intrinsic
def _call_record(record: Any, rank: Any, size: Any) -> Any:
    """Call a record's kernel with rank, size and all operands that a record has room for; a kernel may take fewer."""

    def generate(builder: Any, record: Any, rank: Any, size: Any) -> None:
        address, *operands = (
            builder.load(pointer(builder, builder.add(record, I64(8 * i)), I64)) for i in range(1 + OPERANDS)
        )
        kind = ir.FunctionType(ir.VoidType(), [I64] * (2 + OPERANDS))
        builder.call(pointer(builder, address, kind), [rank, size, *operands])

    return None, generate


@function("ppp")
def replay(control, rank, size):
    """One thread's part of a replay: every record on its share, a barrier after each; size: threads of the team.

    The first thread lets the others begin: here, where no signal can come between that and its own part.
    """
    if rank == 0:
        atomic_add(control + _EPOCH, 1)
    plan, count = load_i64(control + _PLAN), load_i64(control + _COUNT)
    times = load_i64(control + _TIMES) if rank == 0 else 0
    mode = flush_denormals()
    for i in range(count):
        p = plan + RECORD_BYTES * i
        began = ticks() if times else 0
        _call_record(p, rank, size)
        done = ticks() if times else 0
        if size > 1:
            _barrier(control, size)
        if times:
            _note(times + 16 * i, done - began, ticks() - done)
    restore_mode(mode)


@inline
def _note(entry, work, wait):
    store_i64(entry, load_i64(entry) + work)
    store_i64(entry + 8, load_i64(entry + 8) + wait)


@function("pp", returns=True)
def wait(control, epoch):
    """Spin until the epoch changes, or for a moment, then look again after every nap; gives the epoch last seen."""
    for _ in range(load_i64(control + _SPINS)):
        now = atomic_load(control + _EPOCH)
        if now != epoch:
            return now
        pause()
    for _ in range(_NAPS_BEFORE_SLEEP):
        call(load_i64(control + _NAP), (_NAP_US,))
        now = atomic_load(control + _EPOCH)
        if now != epoch:
            return now
    return epoch


KERNELS = (replay, wait)  # what a team itself runs


class Team:
    """`size` threads, the caller's among them, of the process that made it; one replay at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._control = aligned(_SIZE // 8, np.int64)
        self._control[_YIELD // 8], self._control[_NAP // 8] = _system_calls()
        self._control[_SPINS // 8] = SPINS_BEFORE_NAP
        self._address: int = self._control.ctypes.data
        self._wake = threading.Condition()  # reentrant, for the collector's sake
        self._awake = False  # whether a replay is about to begin, so that helpers stay awake
        self._closed = False
        self._process = os.getpid()
        self._helpers = [threading.Thread(target=self._help, args=(r,), daemon=True) for r in range(1, size)]
        for helper in self._helpers:
            helper.start()

    def run(self, plan: NDArray[np.int64], times: NDArray[np.int64] | None = None) -> None:
        """Replay a compiled plan, int64 [records, 1 + OPERANDS]; returns when every thread has done its last record.

        times int64 [records, 2]: the first thread adds there, in ticks, how long it worked and how long it waited.
        Raises RuntimeError where there are no helpers any more: after close(), and in a child after os.fork().
        """
        if self._closed or os.getpid() != self._process:
            raise RuntimeError("the threads of this team have ended")
        self._control[_TIMES // 8] = 0 if times is None else times.ctypes.data
        self._control[_PLAN // 8] = plan.ctypes.data
        self._control[_COUNT // 8] = len(plan)
        try:
            self._wake_helpers()
            replay(self._address, 0, self.size)
        finally:
            self._awake = False

    def close(self) -> None:
        """End the helpers; closing twice does no harm."""
        self.dismiss()
        if os.getpid() == self._process:
            for helper in self._helpers:
                helper.join()

    def dismiss(self) -> None:
        """Let the helpers end without waiting for them, as the garbage collector must: one of them may be running it."""
        if not self._closed and os.getpid() == self._process:
            self._closed = True
            self._control[_EPOCH // 8] += 1
            self._wake_helpers()

    def _wake_helpers(self) -> None:
        if self._helpers:
            with self._wake:
                self._awake = True
                self._wake.notify_all()

    def _help(self, rank: int) -> None:
        epoch = 0
        while True:
            now = wait(self._address, epoch)
            if self._closed:
                return
            if now != epoch:
                epoch = now
                replay(self._address, rank, self.size)
                continue
            with self._wake:
                while not self._awake and self._control[_EPOCH // 8] == epoch:
                    self._wake.wait()
