"""A team of threads that replays a plan: the work of every record is cut into shares, which threads take.

Each thread begins with the shares of its own slot; one that has waited for a moment takes what others have not begun. So
nobody waits for a thread that the system keeps off its core, unless it is in the midst of a share, nor much for one on a
slower core. Who does a share never changes its result.

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

from quant.atomics import (
    atomic_add,
    atomic_load,
    call,
    compare_exchange,
    flush_denormals,
    pause,
    restore_mode,
    ticks,
)
from quant.jit import function, inline, intrinsic
from quant.plan import OPERANDS, RECORD_BYTES, aligned
from quant.simd import I64, load_i64, pointer, store_i64

# Byte offsets in the control block; words that different threads write lie on different cache lines.
_NOW, _CLOSED = 0, 8  # the number of the record that is being done << 6 | shares of a thread; no shares: there is none
_DONE = 128  # shares of it
_PLAN, _COUNT, _FIRST, _SIZE, _TIMES = 256, 264, 272, 280, 288  # of this replay; first: the number of its first record
_YIELD, _NAP, _SPINS = 384, 392, 400
_SLOTS, _SLOT = 512, 128  # of each thread: the number of the record that it is about << 6 | shares that were taken
_SHARES = 63  # of a thread, at most

_SPINS_BEFORE_TAKING = 64  # about 1 us: longer than threads are apart on a quiet machine
_SPINS_BEFORE_YIELD = 2_000  # about 30 us: longer than any wait there
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
def _take(slot, now):
    """Take a share of the present record from a slot: its number there; -1 if none is left."""
    while True:
        word = atomic_load(slot)
        if word >> 6 > now >> 6 or (word >> 6 == now >> 6 and word & 63 >= now & 63):
            return -1
        new = word + 1 if word >> 6 == now >> 6 else (now & ~63) + 1
        if compare_exchange(slot, word, new):
            return (new & 63) - 1


@intrinsic
def _call_record(record: Any, rank: Any, size: Any) -> Any:
    """Call a record's kernel with rank, size and all operands that a record has room for; a kernel may take fewer."""

    def generate(builder: Any, record: Any, rank: Any, size: Any) -> None:
        words = [builder.add(record, I64(8 * i)) for i in (0, *range(2, 2 + OPERANDS))]
        address, *operands = (builder.load(pointer(builder, word, I64)) for word in words)
        kind = ir.FunctionType(ir.VoidType(), [I64] * (2 + OPERANDS))
        builder.call(pointer(builder, address, kind), [rank, size, *operands])

    return None, generate


@inline
def _do_share(control, owner, now):
    """Take a share from a slot and do it; gives 0 if none was left. The one that is done last begins the next record.

    A slot may be about more threads than take part in this replay: then nothing was taken. Everything else about the
    replay is read when a share is taken, as only then the replay cannot end meanwhile.
    """
    number = _take(control + _SLOTS + owner * _SLOT, now)
    if number < 0:
        return 0
    size = atomic_load(control + _SIZE)
    if atomic_load(control + _NOW) != now or owner >= size:
        return 0
    i, shares = (now >> 6) - load_i64(control + _FIRST), now & 63
    record = load_i64(control + _PLAN) + RECORD_BYTES * i
    _call_record(record, owner * shares + number, size * shares)
    if atomic_add(control + _DONE, 1) == size * shares - 1:
        atomic_add(control + _DONE, -size * shares)
        then = load_i64(record + RECORD_BYTES + 8) if i + 1 < load_i64(control + _COUNT) else 0
        atomic_add(control + _NOW, 64 + then - shares)
    return 1


@inline
def _wait_for_next(control, now, spins, most):
    """Wait until the record is done; for `most` rounds at most, unless that is 0."""
    while atomic_load(control + _NOW) == now and (most == 0 or spins < most):
        pause()
        spins += 1
        if spins > _SPINS_BEFORE_YIELD:
            call(load_i64(control + _YIELD), (0,))


@function("pp")
def replay(control, rank):
    """One thread's part of a replay, from the record that is being done when it comes.

    The first thread begins it: here, where no signal can come between that and its own part.
    """
    if rank == 0 and load_i64(control + _COUNT) > 0:
        atomic_add(control + _NOW, load_i64(load_i64(control + _PLAN) + 8))
    mode, patience = flush_denormals(), _SPINS_BEFORE_TAKING
    now = atomic_load(control + _NOW)
    while now & 63:
        times = load_i64(control + _TIMES) if rank == 0 else 0
        entry = times + 16 * ((now >> 6) - load_i64(control + _FIRST)) if times else 0
        began = ticks() if entry else 0
        while _do_share(control, rank, now):
            pass
        done = ticks() if entry else 0
        if patience:
            _wait_for_next(control, now, 0, patience)
        if atomic_load(control + _NOW) == now:
            patience = _SPINS_BEFORE_TAKING
            if _do_others(control, rank, now):
                patience = 0
            _wait_for_next(control, now, 0, 0)
        if entry:
            store_i64(entry, load_i64(entry) + done - began)
            store_i64(entry + 8, load_i64(entry + 8) + ticks() - done)
        now = atomic_load(control + _NOW)
    restore_mode(mode)


@inline
def _do_others(control, rank, now):
    """Take the shares that other threads have not begun; gives how many there were."""
    size, taken = load_i64(control + _SIZE), 0
    for other in range(1, size):
        while _do_share(control, (rank + other) % size, now):
            taken += 1
    return taken


@function("pp", returns=True)
def wait(control, rank):
    """Wait for a replay, awake: spin for a moment, then look again after every nap; 1 if there is one, or no team any more.

    A thread that does not take part does not wait.
    """
    for _ in range(load_i64(control + _SPINS)):
        if rank >= load_i64(control + _SIZE):
            return 0
        if atomic_load(control + _NOW) & 63 or load_i64(control + _CLOSED):
            return 1
        pause()
    for _ in range(_NAPS_BEFORE_SLEEP):
        call(load_i64(control + _NAP), (_NAP_US,))
        if rank >= load_i64(control + _SIZE):
            return 0
        if atomic_load(control + _NOW) & 63 or load_i64(control + _CLOSED):
            return 1
    return 0


KERNELS = (replay, wait)  # what a team itself runs


class Team:
    """`size` threads, the caller's among them, of the process that made it; one replay at a time.

    active: how many of them take part in the next replay; those that do not, sleep.
    """

    def __init__(self, size: int) -> None:
        self.size = self._active = size
        self._control = aligned((_SLOTS + size * _SLOT) // 8, np.int64)
        self._control[_YIELD // 8], self._control[_NAP // 8] = _system_calls()
        self._control[_SPINS // 8] = SPINS_BEFORE_NAP
        self._control[_SIZE // 8] = size
        self._control[_NOW // 8] = 1 << 6  # slots are about the record before
        self._address: int = self._control.ctypes.data
        self._wake = threading.Condition()  # reentrant, for the collector's sake
        self._called = False  # whether a replay is about to begin, so that helpers stay awake
        self._closed = False
        self._process = os.getpid()
        self._helpers = [threading.Thread(target=self._help, args=(r,), daemon=True) for r in range(1, size)]
        for helper in self._helpers:
            helper.start()

    @property
    def active(self) -> int:
        """How many threads take part in a replay: 1 to size."""
        return self._active

    @active.setter
    def active(self, count: int) -> None:
        self._active = max(1, min(count, self.size))

    def run(self, plan: NDArray[np.int64], times: NDArray[np.int64] | None = None) -> None:
        """Replay a compiled plan, int64 [records, RECORD]; returns when every record is done.

        times int64 [records, 2]: the first thread adds there, in ticks, how long it did its own shares, and how long it
        waited or did others'.
        Raises RuntimeError where there are no helpers any more: after close(), and in a child after os.fork().
        """
        if self._closed or os.getpid() != self._process:
            raise RuntimeError("the threads of this team have ended")
        self._control[_TIMES // 8] = 0 if times is None else times.ctypes.data
        self._control[_PLAN // 8] = plan.ctypes.data
        self._control[_COUNT // 8] = len(plan)
        self._control[_FIRST // 8] = self._control[_NOW // 8] >> 6
        self._control[_SIZE // 8] = self._active
        try:
            self._wake_helpers()
            replay(self._address, 0)
        finally:
            self._called = False

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
            self._control[_CLOSED // 8] = 1
            self._active = self.size
            self._wake_helpers()

    def _wake_helpers(self) -> None:
        if self._active > 1:
            with self._wake:
                self._called = True
                self._wake.notify_all()

    def _help(self, rank: int) -> None:
        while True:
            came = wait(self._address, rank)
            if self._closed:
                return
            if came:
                replay(self._address, rank)
                continue
            with self._wake:
                while not self._closed and not (self._called and rank < self._active):
                    self._wake.wait()
