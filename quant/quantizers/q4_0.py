"""Q4_0 from float32: d = the number of largest magnitude / -8, q = x / d + 8, halves up.

With importance, d by search (quant.fitting.search.symmetric) for the weights importance * sqrt(mean x^2 of the row + x^2)
(ggml's quantize_row_q4_0).
"""

from __future__ import annotations

import numpy as np

from quant.fitting.importance import importance_rows, importance_weights, mean_squares
from quant.fitting.lanes import (
    f16_bits,
    larger,
    scatter_u16,
    scatter_u32,
    smaller,
    spread,
    store_i32x16,
    to_i32,
    where_equal,
)
from quant.fitting.pack import two_nibbles
from quant.fitting.search import extreme_of, symmetric
from quant.jit import inline
from quant.quantizers import SCRATCH, Quantizer, quantize_rows
from quant.simd import (
    add,
    divide,
    load_f32x16,
    mul,
    round_even,
    splat,
    sub,
    zero_f32x16,
)

_HALF, _ONE = np.float32(0.5), np.float32(1)
# Places in scratch: float32 [32, 16 lanes] of x, of weights and of their stage; int32 [32, 16] q.
WEIGHTS, STAGE, TABLE, Q = 2048, 4096, 6144, 6400


@inline
def weigh(importance, first, per_row, scratch):
    """The weights of the 32 columns in scratch, of 16 blocks from block `first` on."""
    importance_rows(importance, first, per_row, 32, scratch + TABLE)
    sigma2 = load_f32x16(scratch + SCRATCH + 4 * first)
    importance_weights(scratch + TABLE, 0, 32, scratch, sigma2, scratch + WEIGHTS, scratch + STAGE)


@inline
def _nearest(x, half, q):
    """q in [0, 2 * half - 1], for the number of largest magnitude at 0. -> d"""
    extreme, _ = extreme_of(x, 32)
    d, zero = divide(extreme, splat(-half)), zero_f32x16()
    inverse = where_equal(d, zero, zero, divide(splat(_ONE), d))
    most = splat(half + half - _ONE)
    for i in range(32):
        level = add(mul(load_f32x16(x + 64 * i), inverse), splat(half + _HALF))
        store_i32x16(q + 64 * i, to_i32(larger(smaller(level, most), zero)))
    return d


@inline
def _searched(x, weights, half, q):
    """q in [0, 2 * half - 1] by search, 0 where all is negligible. -> d"""
    d, inverse = symmetric(x, weights, 32, half)
    bottom, ceiling, zero = splat(-half), splat(half - _ONE), zero_f32x16()
    for i in range(32):
        level = larger(smaller(round_even(mul(inverse, load_f32x16(x + 64 * i))), ceiling), bottom)
        store_i32x16(q + 64 * i, to_i32(where_equal(inverse, zero, zero, sub(level, bottom))))
    return d


@inline
def quantize_blocks(x, importance, first, per_row, half, out, size, scratch):
    """16 blocks of 32 columns: d at `out`, `size` apart, and q in [0, 2 * half - 1] at scratch + Q, int32 [32, 16]."""
    spread(x, 128, 32, scratch)
    if importance:
        weigh(importance, first, per_row, scratch)
        d = _searched(scratch, scratch + WEIGHTS, half, scratch + Q)
    else:
        d = _nearest(scratch, half, scratch + Q)
    scatter_u16(out, size, f16_bits(d))


@inline
def write_nibbles(q, out, size):
    """The low four bits of q: 16 bytes of each block, column i beside column i + 16."""
    for word in range(4):
        packed = two_nibbles(q, 4 * word, 4 * word + 16)
        scatter_u32(out + 4 * word, size, packed)


@quantize_rows
def q4_0_quantize_rows(x, importance, rows, columns, out, scratch):
    """See quant.quantizers."""
    blocks, per_row = rows * columns // 32, columns // 32
    if importance:
        mean_squares(x, rows, columns, 32, scratch + SCRATCH)
    for group in range((blocks + 15) // 16):
        first = min(16 * group, blocks - 16)
        target = out + 18 * first
        quantize_blocks(x + 128 * first, importance, first, per_row, np.float32(8), target, 18, scratch)
        write_nibbles(scratch + Q, target + 2, 18)


QUANTIZER = Quantizer("Q4_0", 32, 18, q4_0_quantize_rows, uses_importance=True)
