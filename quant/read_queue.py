"""Reads of files that any thread asks for, and the I/O threads that do them: compiled code, without the interpreter.

A read is a table of READ with one or more of SPAN behind it, in memory that belongs to whoever asks. It is appended to one of
two lists of the queue: the urgent one, or that of the background, which is read when nothing is urgent. Each span is read
by whichever I/O thread is free. Everything in a queue is changed with its lock held, but for the count of spans that are
left: that may be watched by anybody.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant import system_calls
from quant.atomics import atomic_add, atomic_load, call
from quant.jit import function, inline
from quant.layout import Layout
from quant.plan import aligned
from quant.simd import load_i64, store_i64
from quant.system_calls import CALLS, LOCK_BYTES, acquire, read_at, release, sleep_on

QUEUE = Layout(
    "calls",  # table of quant.system_calls.CALLS
    "closed",  # 1 when I/O threads are to end
    "asleep",  # how many of them wait for a read
    "urgent",  # the first read of each list, and the last; 0 for none
    "urgent_last",
    "background",
    "background_last",
)
READ = Layout(
    "next",  # of the list
    "previous",
    "list",  # the address of the list's first; 0: in no list
    "spans",  # how many it has
    "begun",  # spans that an I/O thread has taken
    "left",  # spans that are not read yet; 0: nobody writes into its memory any more
    "error",  # of the first span that could not be read: the system's number, or ENDED; 0: all bytes are there
    "failed",  # which span that was
    "then",  # a function of the address of the read, called with the lock held before `left` becomes 0; or 0
    "owner",  # for that function
    "number",
    "arrivals",
    "place",
)
SPAN = Layout(
    "file",  # its number in the table of files
    "offset",
    "size",  # bytes
    "address",  # of a page: where the page of the file goes in which the span begins
)
PAGE = 4096  # bytes; unbuffered reads want offsets, sizes and addresses to be multiples of it
ENDED = 1 << 20  # in place of an error: the file is too short
FILE_BYTES = 16  # of an entry of the table of files: descriptors for unbuffered reads, or -1, and for buffered ones
BYTES_PER_READ = 8 << 20  # of one system call
_LOCK = 256  # byte of a queue; behind its lock is the condition that I/O threads sleep on


def new_queue(calls: NDArray[np.int64]) -> NDArray[np.int64]:
    """An empty queue; calls: a table of CALLS, which must live as long."""
    queue: NDArray[np.int64] = aligned((_LOCK + 2 * LOCK_BYTES) // 8, np.int64)
    queue[QUEUE.calls // 8] = calls.ctypes.data
    address = queue.ctypes.data
    system_calls.make_lock(address + _LOCK, address + _LOCK + LOCK_BYTES)
    return queue


@inline
def lock(queue):
    """Have the queue to oneself."""
    acquire(load_i64(queue + QUEUE.calls), queue + _LOCK)


@inline
def unlock(queue):
    """Let others have it."""
    release(load_i64(queue + QUEUE.calls), queue + _LOCK)


@inline
def unlock_and_wake(queue):
    """Let others have it, and wake the I/O threads that sleep, if there are any."""
    asleep = load_i64(queue + QUEUE.asleep)
    unlock(queue)
    if asleep:
        call(load_i64(load_i64(queue + QUEUE.calls) + CALLS.wake_all), (queue + _LOCK + LOCK_BYTES,))


@inline
def give_processor(queue):
    """Let other threads have the processor for a moment."""
    call(load_i64(load_i64(queue + QUEUE.calls) + CALLS.give_way), (0,))


@inline
def _append(first, read):
    last = load_i64(first + 8)
    store_i64(read + READ.next, 0)
    store_i64(read + READ.previous, last)
    store_i64(read + READ.list, first)
    store_i64(last + READ.next if last else first, read)
    store_i64(first + 8, read)


@inline
def _unlink(read):
    first, before, after = load_i64(read + READ.list), load_i64(read + READ.previous), load_i64(read + READ.next)
    store_i64(before + READ.next if before else first, after)
    store_i64(after + READ.previous if after else first + 8, before)
    store_i64(read + READ.list, 0)


@inline
def _is_in_background(queue, read):
    return load_i64(read + READ.list) == queue + QUEUE.background


@inline
def append(queue, read, urgent):
    """With the lock: have a read done; who slept must be woken."""
    store_i64(read + READ.begun, 0)
    store_i64(read + READ.error, 0)
    store_i64(read + READ.left, load_i64(read + READ.spans))
    _append(queue + (QUEUE.urgent if urgent else QUEUE.background), read)


@inline
def make_urgent(queue, read):
    """With the lock: move a read of the background to the end of the urgent ones."""
    if _is_in_background(queue, read):
        _unlink(read)
        _append(queue + QUEUE.urgent, read)


@inline
def remove(queue, read):
    """With the lock: take back a read of the background that no I/O thread has begun; whether there was one."""
    if not _is_in_background(queue, read) or load_i64(read + READ.begun):
        return 0
    _unlink(read)
    store_i64(read + READ.left, 0)
    return 1


@inline
def _read_piece(calls, files, address, size, needed, offset, scratch):
    """Read `size` bytes, of which so many must be there: 0, or an error."""
    direct, buffered = load_i64(files), load_i64(files + 8)
    got = read_at(calls, direct if direct >= 0 else buffered, address, size, offset, scratch)
    done = max(got, 0)
    while got >= 0 and done < needed:  # unbuffered reads may stop at the last whole sector of a file
        got = read_at(calls, buffered, address + done, size - done, offset + done, scratch)
        done += max(got, 0)
        if got == 0:
            got = -ENDED
    return -got if got < 0 else 0


@inline
def _read_span(calls, files, span, scratch):
    """Read a span in whole pages: 0, or an error."""
    offset, error = load_i64(span + SPAN.offset), 0
    begin, end = offset - offset % PAGE, offset + load_i64(span + SPAN.size)
    at = begin
    while at < end and error == 0:
        size = min(BYTES_PER_READ, (end - at + PAGE - 1) // PAGE * PAGE)
        memory = load_i64(span + SPAN.address) + at - begin
        file = files + FILE_BYTES * load_i64(span + SPAN.file)
        error = _read_piece(calls, file, memory, size, min(size, end - at), at, scratch)
        at += size
    return error


@inline
def _first(queue):
    urgent = load_i64(queue + QUEUE.urgent)
    return urgent if urgent else load_i64(queue + QUEUE.background)


@inline
def _take(queue):
    """The read whose next span is to be read, and the number of that span; 0 when the queue is closed."""
    while load_i64(queue + QUEUE.closed) == 0 and _first(queue) == 0:
        atomic_add(queue + QUEUE.asleep, 1)
        sleep_on(load_i64(queue + QUEUE.calls), queue + _LOCK + LOCK_BYTES, queue + _LOCK)
        atomic_add(queue + QUEUE.asleep, -1)
    if load_i64(queue + QUEUE.closed):
        return 0, 0
    read = _first(queue)
    i = load_i64(read + READ.begun)
    store_i64(read + READ.begun, i + 1)
    if i + 1 == load_i64(read + READ.spans):
        _unlink(read)
    return read, i


@inline
def _end_span(read, i, error):
    if error and not load_i64(read + READ.error):
        store_i64(read + READ.error, error)
        store_i64(read + READ.failed, i)
    then = load_i64(read + READ.then)
    if then and load_i64(read + READ.left) == 1:
        call(then, (read,))
    atomic_add(read + READ.left, -1)


@function("ppp")
def serve(queue, files, scratch):
    """What an I/O thread does until the queue is closed. files: FILE_BYTES each; scratch: OVERLAPPED_BYTES of its own."""
    calls = load_i64(queue + QUEUE.calls)
    lock(queue)
    read, i = _take(queue)
    while read:
        unlock(queue)
        error = _read_span(calls, files, read + READ.bytes + i * SPAN.bytes, scratch)
        lock(queue)
        _end_span(read, i, error)
        read, i = _take(queue)
    unlock(queue)


@function("ppp")
def submit(queue, read, urgent):
    """Have a read done."""
    lock(queue)
    append(queue, read, urgent)
    unlock_and_wake(queue)


@function("pp")
def prioritize(queue, read):
    """Move a read of the background to the end of the urgent ones."""
    lock(queue)
    make_urgent(queue, read)
    unlock(queue)


@function("pp", returns=True)
def cancel(queue, read):
    """Take back a read of the background that no I/O thread has begun; whether it was taken back."""
    lock(queue)
    removed = remove(queue, read)
    unlock(queue)
    return removed


@function("p")
def close(queue):
    """Have I/O threads end, each after the span that it is reading."""
    lock(queue)
    store_i64(queue + QUEUE.closed, 1)
    unlock_and_wake(queue)


@inline
def is_pending(read):
    """Whether spans of a read are left."""
    return atomic_load(read + READ.left) != 0


KERNELS = (serve, submit, prioritize, cancel, close)  # what a reader itself runs
