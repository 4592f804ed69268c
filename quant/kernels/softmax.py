"""The softmax of attention, block by block of positions with a running maximum (Milakov and Gimelshein, arXiv 1805.02867)."""

from __future__ import annotations

import math

import numpy as np

from quant.jit import inline
from quant.simd import (
    add,
    load_f32x16,
    max_lanes,
    maximum,
    mul,
    splat,
    store_f32,
    store_f32x16,
    sub,
    sum_lanes,
    zero_f32x16,
)
from quant.vector_math import exp, sigmoid

BLOCK = 64  # positions whose keys are multiplied together: 32 KiB of keys at 256 wide heads
LOWEST = np.float32(-1e30)


@inline
def exp1(x):
    """exp of one float32."""
    return np.float32(math.exp(x))


@inline
def cap(x, softcap):
    """softcap * tanh(x / softcap) of f32x16."""
    halves = sigmoid(mul(x, splat(np.float32(2) / softcap)))  # tanh(x) = 2 sigmoid(2x) - 1
    return mul(sub(add(halves, halves), splat(np.float32(1))), splat(softcap))


@inline
def softmax_block(scores, first, last, softcap, before):
    """A block of scores -> exp(score - largest) in place, zero outside first to last; the largest with `before`, and the sum.

    A block of which nothing is seen gives a sum that means nothing where nothing was seen before; what is seen later
    takes it off, by the factor exp(LOWEST - largest) = 0.
    """
    if softcap > 0:
        for p in range(0, BLOCK, 16):
            store_f32x16(scores + 4 * p, cap(load_f32x16(scores + 4 * p), softcap))
    for p in range(first):
        store_f32(scores + 4 * p, LOWEST)
    for p in range(last, BLOCK):
        store_f32(scores + 4 * p, LOWEST)
    top = splat(before)
    for p in range(0, BLOCK, 16):
        top = maximum(top, load_f32x16(scores + 4 * p))
    largest = max_lanes(top)
    total = zero_f32x16()
    for p in range(0, BLOCK, 16):
        e = exp(sub(load_f32x16(scores + 4 * p), splat(largest)))
        store_f32x16(scores + 4 * p, e)
        total = add(total, e)
    for p in range(first):
        store_f32(scores + 4 * p, np.float32(0))
    for p in range(last, BLOCK):
        store_f32(scores + 4 * p, np.float32(0))
    return largest, sum_lanes(total)
