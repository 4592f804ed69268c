"""IQ4_NL from float32: d by search, the number of largest magnitude at one of the values around the first.

A column weighs x^2, or importance * sqrt(2 mean x^2 of the block + x^2) (ggml's quantize_row_iq4_nl).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from quant.fitting.importance import importance_weights, square_weights
from quant.fitting.lanes import (
    f16_bits,
    inverse_of,
    scatter_u16,
    spread,
    staircase,
    store_i32x16,
    to_i32,
    unknown,
    where_greater,
)
from quant.fitting.pack import write_nibbles
from quant.fitting.search import NEGLIGIBLE, extreme_of, sum_of_squares
from quant.formats.iq4_nl import BLOCK, VALUES
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.quantizers.q4_0 import STAGE, WEIGHTS, Q
from quant.simd import add, divide, load_f32x16, mul, splat, zero_f32x16

_FIRST, _ONE = np.float32(VALUES[0]), np.float32(1)
_TRIES = 7  # to each side
_MIDDLES = [(a + b) / 2 for a, b in pairwise(VALUES)]
nearest_value, nearest_index = staircase(_MIDDLES, VALUES), staircase(_MIDDLES, range(16))


@inline
def _sums(x, weights, inverse):
    """The weighted sums of x * value and of value * value."""
    sum_xv, sum_v2 = zero_f32x16(), zero_f32x16()
    for i in range(unknown(32)):
        column = load_f32x16(x + 64 * i)
        value = nearest_value(mul(inverse, column))
        weighted = mul(load_f32x16(weights + 64 * i), value)
        sum_xv, sum_v2 = add(sum_xv, mul(weighted, column)), add(sum_v2, mul(weighted, value))
    return sum_xv, sum_v2


@inline
def search(x, weights):
    """The scale of 32 columns; 0 where all are negligible."""
    extreme, size = extreme_of(x, 32)
    zero, infinite = zero_f32x16(), splat(np.float32(np.inf))
    sum_xv, sum_v2 = _sums(x, weights, divide(splat(_ONE), divide(extreme, splat(-_FIRST))))
    d = where_greater(sum_v2, zero, divide(sum_xv, sum_v2), zero)
    best = mul(d, sum_xv)
    for candidate in range(2 * _TRIES + 1):
        first = np.float32(candidate - _TRIES) + _FIRST
        sum_xv, sum_v2 = _sums(x, weights, divide(splat(first), extreme))
        gain, needed = mul(sum_xv, sum_xv), where_greater(sum_v2, zero, mul(best, sum_v2), infinite)
        solved = divide(sum_xv, sum_v2)
        d = where_greater(gain, needed, solved, d)
        best = where_greater(gain, needed, mul(solved, sum_xv), best)
    return where_greater(splat(NEGLIGIBLE), size, zero, d)


@inline
def write_indices(x, d, q):
    """The index of the value nearest to x / d, or to 0 if d is, of 32 columns: int32 [32, 16 lanes]."""
    inverse = inverse_of(d)
    for i in range(unknown(32)):
        store_i32x16(q + 64 * i, to_i32(nearest_index(mul(inverse, load_f32x16(x + 64 * i)))))


@sixteen_blocks
def iq4_nl_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    weights = scratch + WEIGHTS
    spread(x, 128, 32, scratch)
    if importance:
        sigma2 = mul(sum_of_squares(scratch, 32, zero_f32x16()), splat(np.float32(1 / 16)))
        importance_weights(importance, 0, 32, scratch, sigma2, weights, scratch + STAGE)
    else:
        square_weights(scratch, 32, weights)
    d = search(scratch, weights)
    scatter_u16(out + BLOCK.d, BLOCK.bytes, f16_bits(d))
    write_indices(scratch, d, scratch + Q)
    write_nibbles(scratch + Q, out, BLOCK)


QUANTIZER = Quantizer(block=BLOCK, kernel=iq4_nl_quantize, uses_importance=True)
