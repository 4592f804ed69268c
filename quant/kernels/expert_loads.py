"""Experts of a layer that come and go: slots for them, reads into these, and the addresses at which kernels find them.

A layer's cache is a table of CACHED. An expert is loaded by a read of the queue that has a span for each of its matrices:
gate, unless experts have none, up and down. When the last one is there, `end_load` lets kernels find it, in the I/O thread.
An expert that is evicted loses its addresses at once.
"""

from __future__ import annotations

from quant.atomics import atomic_add, ticks
from quant.jit import function, inline
from quant.kernels.expert_slots import FREE, SLOTS, free_or_least_used
from quant.kernels.partition import COUNTER_WORDS
from quant.layout import Layout
from quant.read_queue import PAGE, READ, SPAN, append, lock, remove, unlock, unlock_and_wake
from quant.simd import load_i64, store_i64, store_u8

CACHED = Layout(  # the cached experts of a layer
    "token",  # table of TOKEN
    "queue",  # see quant.read_queue
    "slots",  # table of SLOTS
    "reads",  # EXPERT_READ_BYTES for every expert: its read, with a span for each matrix
    "memory",  # of all slots
    "slot_bytes",
    "expert_bytes",  # in the file
    "parts",  # a table of PART for each matrix of an expert, one behind the other
    "part_count",  # 2 or 3
    "growth",  # float32, see `add_usage`, of one token
    "guessed",  # int64 [experts]: experts whose reads were begun as a guess,
    "guesses",  # and how many they are
)
PART = Layout(  # gate, up or down of every expert
    "addresses",  # int64 [experts] of MATRIX; 0: not in memory
    "start",  # byte of a slot at which its span begins
)
TOKEN = Layout(
    "prefetch",  # 1: guess what the next layers choose
    "hits",  # experts chosen that were in memory
    "misses",  # and those that were not, or only because of a right guess
    "bytes_read",  # of reads that were begun, and not taken back
    "waited",  # ticks that kernels had nothing to do but wait for a read
    "failed",  # experts that are needed and could not be read
)
ARRIVALS = Layout(  # of one layer: places in the token's choice, those in memory first, then as they arrive
    "taken",  # blocks of work that shares have begun
    *(f"unused{i}" for i in range(COUNTER_WORDS - 1)),  # as that has cache lines of its own
    "ready",  # how many of the places are known, whose experts are in memory
    "guessed",  # pieces of a guess that are done
    "missed",  # how many experts had to be read for this token
    "places",  # int64 [k]
)
EXPERT_READ_BYTES = READ.bytes + 3 * SPAN.bytes


@inline
def read_of(layer, expert):
    """The table of READ of an expert."""
    return load_i64(layer + CACHED.reads) + expert * EXPERT_READ_BYTES


@inline
def is_loaded(layer, expert):
    """Not 0 if kernels find the expert in memory."""
    return load_i64(load_i64(load_i64(layer + CACHED.parts) + PART.addresses) + 8 * expert)


@inline
def _data(read, i):
    """Where the bytes of a span of an expert's read begin."""
    span = read + READ.bytes + i * SPAN.bytes
    return load_i64(span + SPAN.address) + load_i64(span + SPAN.offset) % PAGE


@inline
def _part(layer, i):
    return load_i64(layer + CACHED.parts) + i * PART.bytes


@inline
def _set_addresses(layer, expert, read):
    """Let kernels find an expert where its read puts it; or nowhere, if that is 0."""
    for i in range(load_i64(layer + CACHED.part_count)):
        store_i64(load_i64(_part(layer, i) + PART.addresses) + 8 * expert, _data(read, i) if read else 0)


@inline
def _free_slot_of(slots, expert):
    slot_of = load_i64(slots + SLOTS.slot_of) + 8 * expert
    store_i64(load_i64(slots + SLOTS.expert_in) + 8 * load_i64(slot_of), FREE)
    store_i64(slot_of, -1)


@inline
def _slot_for(layer, expert):
    """The slot of an expert, if need be that of another one which leaves; -1 if no other can."""
    slots = load_i64(layer + CACHED.slots)
    slot_of, expert_in = load_i64(slots + SLOTS.slot_of), load_i64(slots + SLOTS.expert_in)
    slot = load_i64(slot_of + 8 * expert)
    if slot < 0:
        slot = free_or_least_used(slots)
        if slot >= 0:
            evicted = load_i64(expert_in + 8 * slot)
            if evicted >= 0:
                _set_addresses(layer, evicted, 0)
                store_i64(slot_of + 8 * evicted, -1)
            store_i64(expert_in + 8 * slot, expert)
            store_i64(slot_of + 8 * expert, slot)
    return slot


@inline
def load_with_lock(layer, expert, urgent):
    """With the lock: have an expert read into a slot, with the queue's I/O threads to be woken; whether there is one."""
    slot, read = _slot_for(layer, expert), read_of(layer, expert)
    if slot < 0:
        return 0
    memory, spans = load_i64(layer + CACHED.memory) + slot * load_i64(layer + CACHED.slot_bytes), read + READ.bytes
    for i in range(load_i64(layer + CACHED.part_count)):
        store_i64(spans + i * SPAN.bytes + SPAN.address, memory + load_i64(_part(layer, i) + PART.start))
    store_i64(read + READ.arrivals, 0)
    store_u8(load_i64(load_i64(layer + CACHED.slots) + SLOTS.loading) + expert, 1)
    append(load_i64(layer + CACHED.queue), read, urgent)
    token = load_i64(layer + CACHED.token)
    store_i64(token + TOKEN.bytes_read, load_i64(token + TOKEN.bytes_read) + load_i64(layer + CACHED.expert_bytes))
    return 1


@inline
def cancel_with_lock(layer, expert):
    """With the lock: take back the read of an expert that is in the background and not begun; whether there was one."""
    if not remove(load_i64(layer + CACHED.queue), read_of(layer, expert)):
        return 0
    slots, token = load_i64(layer + CACHED.slots), load_i64(layer + CACHED.token)
    store_u8(load_i64(slots + SLOTS.loading) + expert, 0)
    _free_slot_of(slots, expert)
    store_i64(token + TOKEN.bytes_read, load_i64(token + TOKEN.bytes_read) - load_i64(layer + CACHED.expert_bytes))
    return 1


@inline
def note_arrival(arrivals, place):
    """With the lock: the expert at a place of the token's choice is in memory."""
    store_i64(arrivals + ARRIVALS.places + 8 * load_i64(arrivals + ARRIVALS.ready), place)
    atomic_add(arrivals + ARRIVALS.ready, 1)


@function("p")
def end_load(read):
    """What ends the read of an expert: kernels find it in memory. If it failed, its slot is free again.

    But if kernels wait for it they do find it, and what they make of it is not to be used: TOKEN.failed says so.
    """
    layer, expert, arrivals = load_i64(read + READ.owner), load_i64(read + READ.number), load_i64(read + READ.arrivals)
    slots, token, failed = load_i64(layer + CACHED.slots), load_i64(layer + CACHED.token), load_i64(read + READ.error)
    store_u8(load_i64(slots + SLOTS.loading) + expert, 0)
    if failed and not arrivals:
        _free_slot_of(slots, expert)
    else:
        _set_addresses(layer, expert, read)
    if arrivals:
        note_arrival(arrivals, load_i64(read + READ.place))
        if failed:
            store_i64(token + TOKEN.failed, 1)


@function("ppp", returns=True)
def begin_load(layer, expert, urgent):
    """Have an expert that is not in memory read into a slot; whether there is one that another expert can leave."""
    queue = load_i64(layer + CACHED.queue)
    lock(queue)
    begun = load_with_lock(layer, expert, urgent)
    unlock_and_wake(queue)
    return begun


@function("pp", returns=True)
def cancel_load(layer, expert):
    """Take back the read of an expert that is in the background and not begun; whether there was one."""
    queue = load_i64(layer + CACHED.queue)
    lock(queue)
    cancelled = cancel_with_lock(layer, expert)
    unlock(queue)
    return cancelled


@function("", returns=True)
def clock():
    """The counter in whose ticks `TOKEN.waited` is."""
    return ticks()


KERNELS = (begin_load, cancel_load, end_load, clock)  # what is called through an address, or from outside of plans
