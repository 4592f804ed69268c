"""Choosing a token: a mask of those that are allowed, the highest logits in order, filters that keep a prefix, one draw.

The order is total (higher logit first, equal logits by lower id), so every filter keeps a prefix of it and the k best
need no full sort: a heap of k ids whose root is the last of them, and blocks of logits skipped when none beats it.
Without a top-k the prefix looked at grows until it holds the draw.

Logits come as float32 [blocks, BLOCK], padded with -inf; the heap is int64 [blocks * BLOCK]; a mask is int64 [blocks],
whose bit i of word b allows the token BLOCK * b + i.
"""

from __future__ import annotations

import math

import numpy as np

from quant.atomics import call
from quant.jit import function, inline
from quant.simd import (
    add,
    load_f32,
    load_f32x16,
    load_i64,
    max_lanes,
    maximum,
    mul,
    splat,
    store_f32,
    store_f32x16,
    store_i64,
    sub,
    sum_lanes,
    zero_f32x16,
)
from quant.vector_math import exp

BLOCK = 64
_FIRST_LOOK = 128  # candidates at first, without a top-k
_GROWTH = 8


@inline
def _logit(logits, token):
    return load_f32(logits + 4 * token)


@inline
def _later(logits, a, b):
    return _logit(logits, a) < _logit(logits, b) or (_logit(logits, a) == _logit(logits, b) and a > b)


@inline
def _sink(logits, heap, root, size):
    """Restore the heap below its root: no id comes later in the order than its parent."""
    moving = load_i64(heap + 8 * root)
    child = 2 * root + 1
    while child < size:
        if child + 1 < size and _later(logits, load_i64(heap + 8 * child + 8), load_i64(heap + 8 * child)):
            child += 1
        if _later(logits, moving, load_i64(heap + 8 * child)):
            break
        store_i64(heap + 8 * root, load_i64(heap + 8 * child))
        root, child = child, 2 * child + 1
    store_i64(heap + 8 * root, moving)


@inline
def _highest(block):
    """The highest of BLOCK logits."""
    low = maximum(load_f32x16(block), load_f32x16(block + 64))
    return max_lanes(maximum(low, maximum(load_f32x16(block + 128), load_f32x16(block + 192))))


@function("ppp")
def forbid(logits, blocks, mask):
    """Set the logits of tokens whose bit is not in the mask to -inf, in place."""
    nothing = splat(np.float32(-np.inf))
    for block in range(blocks):
        allowed = load_i64(mask + 8 * block)
        at = logits + 4 * BLOCK * block
        if allowed == 0:
            for i in range(0, 4 * BLOCK, 64):
                store_f32x16(at + i, nothing)
        elif allowed != -1:
            for i in range(BLOCK):
                if not (allowed >> i) & 1:
                    store_f32(at + 4 * i, np.float32(-np.inf))


@function("pppp")
def highest(logits, blocks, heap, size):
    """Put the ids of the `size` highest logits into heap, highest first."""
    for i in range(size):
        store_i64(heap + 8 * i, i)
    for i in range(size // 2 - 1, -1, -1):
        _sink(logits, heap, i, size)
    for block in range(size // BLOCK, blocks):
        if _highest(logits + 4 * BLOCK * block) > _logit(logits, load_i64(heap)):
            for i in range(max(size, block * BLOCK), (block + 1) * BLOCK):
                if _logit(logits, i) > _logit(logits, load_i64(heap)):
                    store_i64(heap, i)
                    _sink(logits, heap, 0, size)
    for last in range(size - 1, 0, -1):
        first = load_i64(heap)
        store_i64(heap, load_i64(heap + 8 * last))
        store_i64(heap + 8 * last, first)
        _sink(logits, heap, 0, last)


@inline
def _mass(logits, blocks, peak, scale):
    """Σ exp((logit - peak) * scale) over all; float32 within a block, float64 from block to block."""
    top, factor = splat(np.float32(peak)), splat(np.float32(min(scale, 1e30)))
    total = 0.0
    for block in range(blocks):
        part = zero_f32x16()
        for i in range(4 * BLOCK * block, 4 * BLOCK * (block + 1), 64):
            part = add(part, exp(mul(sub(load_f32x16(logits + i), top), factor)))
        total += np.float64(sum_lanes(part))
    return total


@inline
def _weight(logits, token, peak, temperature):
    return math.exp((np.float64(_logit(logits, token)) - peak) / temperature)


@inline
def _sum(logits, heap, size, peak, temperature):
    total = 0.0
    for i in range(size):
        total += _weight(logits, load_i64(heap + 8 * i), peak, temperature)
    return total


@inline
def _kept(logits, heap, size, peak, nucleus, min_p):
    """How many of the first `size` ids pass top-p and min-p; `size` also when neither ends within them."""
    floor = peak + math.log(min_p)
    mass = 0.0
    for i in range(size):
        token = load_i64(heap + 8 * i)
        if i > 0 and _logit(logits, token) < floor:
            return i
        mass += _weight(logits, token, peak, 1.0)
        if mass >= nucleus:
            return i + 1
    return size


@inline
def _walk(logits, heap, size, peak, temperature, target):
    """Where the sum of weights passes the target: (id, True), or (the last id of any weight, False)."""
    mass = 0.0
    token = load_i64(heap)
    for i in range(size):
        candidate = load_i64(heap + 8 * i)
        weight = _weight(logits, candidate, peak, temperature)
        if weight > 0:
            token = candidate
        mass += weight
        if mass > target:
            return token, True
    return token, False


@function("ppppdpdddd", returns=True)
def draw_token(highest, logits, blocks, heap, peak, top_k, top_p, min_p, temperature, uniform):
    """Draw one id: top-k, top-p, min-p, then temperature; `uniform` in [0, 1) walks down the order.

    Logits are finite or -inf; peak: the highest, finite. top_k 0, top_p 1 and min_p 0 filter nothing; temperature > 0.
    highest: the address of the function of that name.
    """
    count = BLOCK * blocks
    limited = 0 < top_k < count
    filtered = top_p < 1 or min_p > 0
    size = top_k if limited else min(count, _FIRST_LOOK)
    call(highest, (logits, blocks, heap, size))
    nucleus = np.inf
    if top_p < 1:
        whole = _sum(logits, heap, size, peak, 1.0) if limited else _mass(logits, blocks, peak, 1.0)
        nucleus = top_p * whole
    everything = 0.0
    if not limited and not filtered:
        everything = _mass(logits, blocks, peak, 1 / temperature)
    while True:
        kept = _kept(logits, heap, size, peak, nucleus, min_p)
        complete = limited or size == count or kept < size
        if complete or not filtered:
            mass = everything if everything > 0 else _sum(logits, heap, kept, peak, temperature)
            token, found = _walk(logits, heap, kept, peak, temperature, uniform * mass)
            if found or complete:
                return token
        size = min(size * _GROWTH, count)
        call(highest, (logits, blocks, heap, size))
