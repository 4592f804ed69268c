"""Q4_0 from float32: d = the number of largest magnitude / -8, q = x / d + 8, halves up.

With importance, d by search (quant.fitting.search.symmetric) for the weights importance * sqrt(mean x^2 of the row + x^2)
(ggml's quantize_row_q4_0).
"""

from __future__ import annotations

import numpy as np

from quant.fitting.importance import ROW_MEANS, importance_weights
from quant.fitting.lanes import (
    between,
    f16_bits,
    inverse_of,
    nearest_between,
    scatter_u16,
    spread,
    store_i32x16,
    to_i32,
    where_equal,
)
from quant.fitting.pack import write_nibbles
from quant.fitting.search import extreme_of, symmetric
from quant.formats.q4_0 import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import add, divide, load_f32x16, mul, splat, sub, zero_f32x16

_HALF, _ONE = np.float32(0.5), np.float32(1)
# Places in scratch: float32 [32, 16 lanes] of x, of weights and of their stage; int32 [32, 16] q.
WEIGHTS, STAGE, Q = 2048, 4096, 6144


@inline
def weigh(importance, scratch):
    """The weights of the 32 columns in scratch, to WEIGHTS."""
    sigma2 = load_f32x16(importance + ROW_MEANS)
    importance_weights(importance, 0, 32, scratch, sigma2, scratch + WEIGHTS, scratch + STAGE)


@inline
def _nearest(x, half, q):
    """q in [0, 2 * half - 1], with the number of largest magnitude at 0. -> d"""
    extreme, _ = extreme_of(x, 32)
    d, zero = divide(extreme, splat(-half)), zero_f32x16()
    inverse, most = inverse_of(d), splat(half + half - _ONE)
    for i in range(32):
        level = add(mul(load_f32x16(x + 64 * i), inverse), splat(half + _HALF))
        store_i32x16(q + 64 * i, to_i32(between(level, zero, most)))
    return d


@inline
def _searched(x, weights, half, q):
    """q in [0, 2 * half - 1] by search, 0 where all is negligible. -> d"""
    d, inverse = symmetric(x, weights, 32, half)
    bottom, ceiling, zero = splat(-half), splat(half - _ONE), zero_f32x16()
    for i in range(32):
        level = nearest_between(mul(inverse, load_f32x16(x + 64 * i)), bottom, ceiling)
        store_i32x16(q + 64 * i, to_i32(where_equal(inverse, zero, zero, sub(level, bottom))))
    return d


@inline
def quantize_blocks(x, importance, half, out, block, scratch):
    """16 blocks of 32 columns: d of each block at `out`, and q in [0, 2 * half - 1] at scratch + Q, int32 [32, 16]."""
    spread(x, 128, 32, scratch)
    if importance:
        weigh(importance, scratch)
        d = _searched(scratch, scratch + WEIGHTS, half, scratch + Q)
    else:
        d = _nearest(scratch, half, scratch + Q)
    scatter_u16(out + block.d, block.bytes, f16_bits(d))


@sixteen_blocks
def q4_0_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    quantize_blocks(x, importance, np.float32(8), out, BLOCK, scratch)
    write_nibbles(scratch + Q, out, BLOCK)


QUANTIZER = Quantizer(block=BLOCK, kernel=q4_0_quantize, uses_importance=True, row_means=True)
