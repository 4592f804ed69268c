"""A team of threads that replays a plan: the work of every record is cut into shares, which threads take.

Each thread begins with the shares of its own slot; one that has waited for a moment takes what others have not begun. So
nobody waits for a thread that the system keeps off its core, unless it is in the midst of a share, nor much for one on a
slower core. Who does a share never changes its result.

The whole replay is one compiled call without the GIL. Between replays the helpers spin for a moment, for the next token
of an answer, nap for a while, as the next may have to be read from a disk, and then sleep.
"""

from __future__ import annotations

import os
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
from quant.system_calls import CALLS, table

# Byte offsets in the control block; words that different threads write lie on different cache lines.
_NOW, _CLOSED = (
    0,
    8,
)  # the number of the record that is being done << _BITS | shares of a thread; none: it has not begun
_DONE = 128  # shares of it
_PLAN, _COUNT, _FIRST, _SIZE, _TIMES = 256, 264, 272, 280, 288  # of this replay; first: the number of its first record
_CALLS, _SPINS = 384, 392
_SLOTS, _SLOT = 512, 128  # of each thread: the number of the record that it is about << _BITS | shares that were taken
_BITS = 6
_SHARES = (1 << _BITS) - 1  # of a thread, at most

_SPINS_BEFORE_TAKING = 64  # about 1 us: longer than threads are apart on a quiet machine
_SPINS_BEFORE_YIELD = 2_000  # about 30 us: longer than any wait there
SPINS_BEFORE_NAP = 100_000  # about 1.5 ms: longer than sampling and printing a token; read when a team is made
_NAP_US = 50
_NAPS_BEFORE_SLEEP = (
    2_000  # 0.1 s and more: longer than reading experts; waking from sleep takes the interpreter's lock
)


@inline
def _take(slot, now):
    """Take a share of the present record from a slot: its number there; -1 if none is left."""
    while True:
        word = atomic_load(slot)
        about, record = word >> _BITS, now >> _BITS
        if about > record or (about == record and word & _SHARES >= now & _SHARES):
            return -1
        new = word + 1 if about == record else (record << _BITS) + 1
        if compare_exchange(slot, word, new):
            return (new & _SHARES) - 1


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
    i, shares = (now >> _BITS) - load_i64(control + _FIRST), now & _SHARES
    record = load_i64(control + _PLAN) + RECORD_BYTES * i
    _call_record(record, owner * shares + number, size * shares)
    if atomic_add(control + _DONE, 1) == size * shares - 1:
        atomic_add(control + _DONE, -size * shares)
        then = load_i64(record + RECORD_BYTES + 8) if i + 1 < load_i64(control + _COUNT) else 0
        atomic_add(control + _NOW, (1 << _BITS) + then - shares)
    return 1


@inline
def _spin(control, now):
    """Wait for a moment, or until the record is done."""
    for _ in range(_SPINS_BEFORE_TAKING):
        if atomic_load(control + _NOW) != now:
            break
        pause()


@inline
def _wait_for_next(control, now):
    """Wait until the record is done."""
    spins = 0
    while atomic_load(control + _NOW) == now:
        pause()
        spins += 1
        if spins > _SPINS_BEFORE_YIELD:
            call(load_i64(load_i64(control + _CALLS) + CALLS.give_way), (0,))


@function("pp")
def replay(control, rank):
    """One thread's part of a replay, from the record that is being done when it comes.

    The first thread begins it: here, where no signal can come between that and its own part.
    """
    if rank == 0 and load_i64(control + _COUNT) > 0:
        atomic_add(control + _NOW, load_i64(load_i64(control + _PLAN) + 8))
    mode, others_come = flush_denormals(), True
    now = atomic_load(control + _NOW)
    while now & _SHARES:
        times = load_i64(control + _TIMES) if rank == 0 else 0
        entry = times + 16 * ((now >> _BITS) - load_i64(control + _FIRST)) if times else 0
        began = ticks() if entry else 0
        while _do_share(control, rank, now):
            pass
        done = ticks() if entry else 0
        if others_come:
            _spin(control, now)
        if atomic_load(control + _NOW) == now:
            others_come = _do_others(control, rank, now) == 0
            _wait_for_next(control, now)
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


@inline
def _has_come(control):
    """Whether there is a replay, or no team any more."""
    return atomic_load(control + _NOW) & _SHARES or load_i64(control + _CLOSED)


@function("pp", returns=True)
def wait(control, rank):
    """Wait for a replay, awake: spin for a moment, then look again after every nap; 1 if there is one, or no team any more.

    A thread that does not take part does not wait.
    """
    for _ in range(load_i64(control + _SPINS)):
        if rank >= load_i64(control + _SIZE):
            return 0
        if _has_come(control):
            return 1
        pause()
    for _ in range(_NAPS_BEFORE_SLEEP):
        call(load_i64(load_i64(control + _CALLS) + CALLS.nap), (_NAP_US,))
        if rank >= load_i64(control + _SIZE):
            return 0
        if _has_come(control):
            return 1
    return 0


KERNELS = (replay, wait)  # what a team itself runs


class Team:
    """`size` threads, the caller's among them, of the process that made it; one replay at a time.

    active: how many of them take part in the next replay; those that do not, sleep.
    """

    def __init__(self, size: int) -> None:
        self.size = self._active = self._taking_part = size  # the last: of the replay that is under way, or was last
        self._control = aligned((_SLOTS + size * _SLOT) // 8, np.int64)
        self._calls = table()
        self._control[_CALLS // 8] = self._calls.ctypes.data
        self._control[_SPINS // 8] = SPINS_BEFORE_NAP
        self._control[_SIZE // 8] = size
        self._control[_NOW // 8] = 1 << _BITS  # slots are about the record before
        self._address: int = self._control.ctypes.data
        lock = threading.RLock()  # reentrant, for the collector's sake
        self._wake, self._rest = threading.Condition(lock), threading.Condition(lock)  # of those that take part, or not
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
        self._control[_FIRST // 8] = self._control[_NOW // 8] >> _BITS
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
        """Wake who takes part in the next replay, and nobody else."""
        if self._active == self._taking_part == 1:
            return
        with self._wake:
            self._called = True
            self._wake.notify_all()
            if self._active > self._taking_part:
                self._rest.notify_all()
            self._taking_part = self._active

    def _help(self, rank: int) -> None:
        while True:
            came = wait(self._address, rank)
            if self._closed:
                return
            if came:
                replay(self._address, rank)
                continue
            with self._wake:
                while not self._closed and not (self._called and rank < self._taking_part):
                    (self._wake if rank < self._taking_part else self._rest).wait()
