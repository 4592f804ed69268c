"""Experts of a decoded token, or of a few: looked up, given slots and asked for, without the interpreter.

Before a layer's experts are multiplied, one record (`request_experts`, or that of `experts_streamed_few`) chooses them, sees
which are in memory, and has the others read. The next record (`quant.kernels.experts_streamed`) takes those first that are
there, then the others as they arrive. It may also guess what the next layer will choose, and have that read, too: whether it
does is decided from one step to the next, by whoever writes the table of TOKEN.
"""

from __future__ import annotations

import numpy as np

from quant.atomics import atomic_add, atomic_load, call, pause, ticks
from quant.jit import function, inline, kernel
from quant.kernels.expert_loads import (
    ARRIVALS,
    CACHED,
    TOKEN,
    cancel_with_lock,
    is_loaded,
    load_with_lock,
    note_arrival,
    read_of,
)
from quant.kernels.expert_slots import SLOTS, add_usage
from quant.kernels.gates import add_scaled
from quant.kernels.partition import start_of
from quant.kernels.router import mark_touched, route_token, routing_scratch_bytes, top_k_of
from quant.layout import Layout
from quant.read_queue import READ, give_processor, is_pending, lock, make_urgent, unlock_and_wake
from quant.simd import load_f32, load_i64, load_u8, store_i64, store_u8
from quant.weights import MATRIX

FOLLOWING = Layout(  # what guesses need of the next layer
    "layer",  # table of CACHED
    "router",  # table of MATRIX
    "weights",  # its first row
    "routing",  # table of quant.kernels.router.ROUTING
    "x",  # this layer's input, as that router takes it
    "logits",  # what it makes of that, float32 [experts]
    "then",  # read_guesses
)
_MISSED = 2  # in `pinned`: was not in memory
_PIECES = 8  # of a guess: a few microseconds each
_SPINS_BEFORE_GIVING_WAY = 2_000  # about 30 us


@inline
def _is_among(expert, experts, count):
    for i in range(count):
        if load_i64(experts + 8 * i) == expert:
            return 1
    return 0


@inline
def _end_guesses(layer, chosen, k):
    """With the lock: take back wrong guesses that have not been begun; gives how many right ones are in memory already."""
    guessed, arrived = load_i64(layer + CACHED.guessed), 0
    for i in range(load_i64(layer + CACHED.guesses)):
        expert = load_i64(guessed + 8 * i)
        if not _is_among(expert, chosen, k):
            cancel_with_lock(layer, expert)
        elif is_loaded(layer, expert):
            arrived += 1
    store_i64(layer + CACHED.guesses, 0)
    return arrived


@inline
def _pin(layer, experts, count, why):
    pinned = load_i64(load_i64(layer + CACHED.slots) + SLOTS.pinned)
    for i in range(count):
        store_u8(pinned + load_i64(experts + 8 * i), why)


@inline
def _await_any(queue):
    """With the lock, which others have meanwhile: a moment later some read may be done."""
    unlock_and_wake(queue)
    give_processor(queue)
    lock(queue)


@inline
def _bring(layer, expert, place, arrivals):
    """With the lock: have an expert noted among the arrivals as soon as it is in memory."""
    queue, read = load_i64(layer + CACHED.queue), read_of(layer, expert)
    while not is_pending(read) and not is_loaded(layer, expert) and not load_with_lock(layer, expert, 1):
        _await_any(queue)  # all other slots are being read into
    if is_pending(read):
        make_urgent(queue, read)
        store_i64(read + READ.place, place)
        store_i64(read + READ.arrivals, arrivals)
    else:
        note_arrival(arrivals, place)


@inline
def _bring_all(layer, chosen, k, arrivals):
    """With the lock: have all chosen experts in memory, or on their way; gives how many were not."""
    pinned, missed = load_i64(load_i64(layer + CACHED.slots) + SLOTS.pinned), 0
    _pin(layer, chosen, k, 1)
    for i in range(k):
        expert = load_i64(chosen + 8 * i)
        if is_loaded(layer, expert):
            note_arrival(arrivals, i)
        else:
            store_u8(pinned + expert, _MISSED)
            missed += 1
    for i in range(k):
        expert = load_i64(chosen + 8 * i)
        if load_u8(pinned + expert) == _MISSED:
            _bring(layer, expert, i, arrivals)
    _pin(layer, chosen, k, 0)
    return missed


@inline
def request(layer, chosen, k, arrivals):
    """Have k different experts in memory, or on their way; arrivals: where it is noted which of them are there."""
    queue, token = load_i64(layer + CACHED.queue), load_i64(layer + CACHED.token)
    for field in (ARRIVALS.taken, ARRIVALS.ready, ARRIVALS.guessed):
        store_i64(arrivals + field, 0)
    lock(queue)
    missed = _end_guesses(layer, chosen, k)
    missed += _bring_all(layer, chosen, k, arrivals)
    unlock_and_wake(queue)
    store_i64(arrivals + ARRIVALS.missed, missed)
    store_i64(token + TOKEN.hits, load_i64(token + TOKEN.hits) + k - missed)
    store_i64(token + TOKEN.misses, load_i64(token + TOKEN.misses) + missed)


@kernel
def request_experts(rank, size, layer, logits, routing, experts, weights, arrivals, touched, scratch, scratch_stride):
    """Choose a token's experts int64 [k] and weights, and have the former in memory, or on their way; one share does it.

    layer: table of CACHED; arrivals: of ARRIVALS; touched uint8 [experts]: 1 for those that were chosen.
    """
    if rank == 0:
        route_token(logits, routing, scratch, experts, weights)
        k = top_k_of(routing)
        mark_touched(touched, experts, k)
        add_usage(load_i64(layer + CACHED.slots), experts, 0, k, load_f32(layer + CACHED.growth))
        request(layer, experts, k, arrivals)


@inline
def _wait_for(queue, arrivals, place):
    """Until so many places and one more are known."""
    spins = 0
    while atomic_load(arrivals + ARRIVALS.ready) <= place:
        pause()
        spins += 1
        if spins > _SPINS_BEFORE_GIVING_WAY:
            give_processor(queue)


@inline
def arrival(layer, arrivals, i, first):
    """The place in the choice of the i-th expert to be in memory, waiting for it; first: whether to count that time."""
    queue, token = load_i64(layer + CACHED.queue), load_i64(layer + CACHED.token)
    if atomic_load(arrivals + ARRIVALS.ready) <= i:
        _wait_for(queue, arrivals, i - 1)  # a time that counts for the one before
        began = ticks()
        _wait_for(queue, arrivals, i)
        if first:
            atomic_add(token + TOKEN.waited, ticks() - began)
    return load_i64(arrivals + ARRIVALS.places + 8 * i)


@inline
def pieces_to_guess(following, arrivals):
    """Into how many pieces a guess is cut; 0 without a next layer, or one that is wanted, or reads to be waited for."""
    if not following or not load_i64(arrivals + ARRIVALS.missed):
        return 0
    return _PIECES * load_i64(load_i64(load_i64(following + FOLLOWING.layer) + CACHED.token) + TOKEN.prefetch)


@inline
def guess(following, arrivals, piece, scratch):
    """A piece of the next layer's router on this layer's input, to which layers add little; the last one has reads begun.

    scratch: guess_scratch_bytes.
    """
    router, x = load_i64(following + FOLLOWING.router), load_i64(following + FOLLOWING.x)
    rows, bias = load_i64(router + MATRIX.rows), load_i64(router + MATRIX.bias)
    first, last = start_of(piece, _PIECES, rows), start_of(piece + 1, _PIECES, rows)
    w = load_i64(following + FOLLOWING.weights) + first * load_i64(router + MATRIX.row_bytes)
    y = load_i64(following + FOLLOWING.logits) + 4 * first
    call(load_i64(router + MATRIX.dot), (w, last - first, load_i64(router + MATRIX.columns), x, y, np.float32(1), 0))
    if bias:
        add_scaled(y, bias + 4 * first, np.float32(1), last - first)
    if atomic_add(arrivals + ARRIVALS.guessed, 1) == _PIECES - 1:
        call(load_i64(following + FOLLOWING.then), (following, scratch))


@inline
def _load_guess(layer, expert):
    if not is_loaded(layer, expert) and not is_pending(read_of(layer, expert)) and load_with_lock(layer, expert, 0):
        guesses = load_i64(layer + CACHED.guesses)
        store_i64(load_i64(layer + CACHED.guessed) + 8 * guesses, expert)
        store_i64(layer + CACHED.guesses, guesses + 1)


@function("pp")
def read_guesses(following, scratch):
    """Have the experts that FOLLOWING.logits choose read in the background."""
    layer, routing = load_i64(following + FOLLOWING.layer), load_i64(following + FOLLOWING.routing)
    k, queue, chosen = top_k_of(routing), load_i64(layer + CACHED.queue), scratch
    route_token(load_i64(following + FOLLOWING.logits), routing, chosen + 12 * k, chosen, chosen + 8 * k)
    lock(queue)
    _pin(layer, chosen, k, 1)
    for i in range(k):
        _load_guess(layer, load_i64(chosen + 8 * i))
    _pin(layer, chosen, k, 0)
    unlock_and_wake(queue)


def guess_scratch_bytes(k: int, experts: int) -> int:
    """Bytes of scratch memory of `guess`; k of so many experts are chosen."""
    return 12 * k + routing_scratch_bytes(experts)
