"""Q4_1 from float32: d = range / 15, m = the least, q = (x - m) / d, halves up.

With importance, d and m <= 0 by search (quant.fitting.search.affine) for the weights of Q4_0 (ggml's quantize_row_q4_1).
"""

from __future__ import annotations

import numpy as np

from quant.fitting.lanes import (
    between,
    f16_bits,
    inverse_of,
    larger,
    nearest_between,
    scatter_u32,
    smaller,
    spread,
    store_i32x16,
    to_i32,
)
from quant.fitting.pack import write_nibbles
from quant.fitting.search import affine
from quant.formats.q4_1 import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.quantizers.q4_0 import WEIGHTS, Q, weigh
from quant.simd import add, bit_or, divide, load_f32x16, mul, shift_left, splat, sub, zero_f32x16

_HALF, _FIRST, _STEP = np.float32(0.5), np.float32(-0.9), np.float32(0.05)


@inline
def _nearest(x, most, q):
    """q in [0, most] from the least to the largest. -> d, m"""
    least, largest, zero = load_f32x16(x), load_f32x16(x), zero_f32x16()
    for i in range(32):
        value = load_f32x16(x + 64 * i)
        least, largest = smaller(value, least), larger(value, largest)
    d = divide(sub(largest, least), splat(most))
    inverse = inverse_of(d)
    for i in range(32):
        level = add(mul(sub(load_f32x16(x + 64 * i), least), inverse), splat(_HALF))
        store_i32x16(q + 64 * i, to_i32(between(level, zero, splat(most))))
    return d, least


@inline
def _searched(x, weights, most, q):
    """q in [0, most] by search. -> d, m"""
    d, minimum, inverse, begin = affine(x, weights, 32, most, _FIRST, _STEP, 36, False, q)
    for i in range(32):
        level = mul(inverse, sub(load_f32x16(x + 64 * i), begin))
        store_i32x16(q + 64 * i, to_i32(nearest_between(level, zero_f32x16(), splat(most))))
    return d, sub(zero_f32x16(), minimum)


@inline
def quantize_blocks(x, importance, most, out, block, scratch):
    """16 blocks of 32 columns: d and m of each block at `out`, and q in [0, most] at scratch + Q, int32 [32, 16]."""
    spread(x, 128, 32, scratch)
    if importance:
        weigh(importance, scratch)
        d, m = _searched(scratch, scratch + WEIGHTS, most, scratch + Q)
    else:
        d, m = _nearest(scratch, most, scratch + Q)
    scatter_u32(out + block.d, block.bytes, bit_or(f16_bits(d), shift_left(f16_bits(m), 16)))


@sixteen_blocks
def q4_1_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    quantize_blocks(x, importance, np.float32(15), out, BLOCK, scratch)
    write_nibbles(scratch + Q, out, BLOCK)


QUANTIZER = Quantizer(block=BLOCK, kernel=q4_1_quantize, uses_importance=True, row_means=True)
