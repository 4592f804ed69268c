"""Q3_K from float32: a scale for 16 columns, then 6-bit numbers for the scales.

Without importance a column weighs x^2, q is improved by rounds (quant.fitting.search.symmetric_by_rounds), and d is the scale of
largest magnitude / -32; with it, scales and d are searched for (quant.fitting.search.symmetric) with the weights
importance * sqrt(2 mean x^2 of the block + x^2) (ggml's quantize_row_q3_K).
"""

from __future__ import annotations

import numpy as np

from quant.fitting.importance import importance_weights
from quant.fitting.lanes import (
    f16_bits,
    inverse_of,
    nearest_between,
    spread,
    store_i32x16,
    to_i32,
    unknown,
    where_equal,
)
from quant.fitting.pack import low_two_bits, third_bits, write_words_d
from quant.fitting.search import extreme_of, sum_of, sum_of_squares, symmetric, symmetric_by_rounds
from quant.formats.q3_k import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import (
    add,
    bit_and,
    bit_or,
    divide,
    load_f32x16,
    load_i32x16,
    low_f16,
    mul,
    shift_left,
    shift_right,
    splat,
    store_f32x16,
    sub,
    to_f32,
    zero_f32x16,
    zero_i32x16,
)

_FOUR, _THIRTY_TWO, _ONE = np.float32(4), np.float32(32), np.float32(1)
# Places in scratch: float32 [256, 16 lanes] of x; [16, 16] of weights and of their stage, or [16, 2, 16] sums of rounds;
# 16 vectors each of scales, of the sums of their weights and of their levels; then what is packed.
_WEIGHTS, _STAGE, _SUMS = 16384, 17408, 16384
_SCALE, _SUM, _LEVEL = 18432, 19456, 20480
_Q, _WORDS = 21504, 37888  # int32 [256, 16], [27, 16]


@inline
def _level(value, half):
    """The nearest whole number in [-half, half - 1], plus half."""
    half = splat(half)
    return add(nearest_between(value, sub(zero_f32x16(), half), sub(half, splat(_ONE))), half)


@inline
def _search(x, importance, scratch):
    """Scales of the 16 sub-blocks, one after the other, and the q they were found with."""
    q = scratch + _Q
    if importance:
        sigma2 = mul(sum_of_squares(x, 256, zero_f32x16()), splat(np.float32(1 / 128)))
        for j in range(unknown(16)):
            _search_sub_block(x + 1024 * j, j, importance, sigma2, q + 1024 * j, scratch)
    else:
        symmetric_by_rounds(x, 16, 16, _FOUR, q, scratch + _SUMS, scratch + _SCALE)
        for i in range(unknown(256)):
            store_i32x16(q + 64 * i, to_i32(add(load_f32x16(q + 64 * i), splat(_FOUR))))


@inline
def _search_sub_block(x, j, importance, sigma2, q, scratch):
    weights, zero = scratch + _WEIGHTS, zero_f32x16()
    importance_weights(importance, 16 * j, 16, x, sigma2, weights, scratch + _STAGE)
    store_f32x16(scratch + _SUM + 64 * j, sum_of(weights, 16))
    scale, inverse = symmetric(x, weights, 16, _FOUR)
    store_f32x16(scratch + _SCALE + 64 * j, scale)
    for i in range(unknown(16)):
        level = _level(mul(inverse, load_f32x16(x + 64 * i)), _FOUR)
        store_i32x16(q + 64 * i, to_i32(where_equal(inverse, zero, zero, level)))


@inline
def _levels(scales, importance, weights, levels):
    """16 scales to levels in [0, 63], which are 32 too large. -> d"""
    zero, least = zero_f32x16(), splat(-_THIRTY_TWO)
    if importance:
        d, inverse = symmetric(scales, weights, 16, _THIRTY_TWO)
    else:
        extreme, _ = extreme_of(scales, 16)
        inverse = where_equal(extreme, zero, zero, divide(least, extreme))
        d = inverse_of(inverse)
    for j in range(unknown(16)):
        level = _level(mul(inverse, load_f32x16(scales + 64 * j)), _THIRTY_TWO)
        store_f32x16(levels + 64 * j, where_equal(inverse, zero, zero, level))
    return d


@inline
def _pack_scales(levels, words):
    """16 levels of 6 bits in 3 words: see quant.formats.q3_k."""
    for part in range(unknown(2)):
        packed = zero_i32x16()
        for back in range(4):
            j = 4 * part + 3 - back
            low, high = to_i32(load_f32x16(levels + 64 * j)), to_i32(load_f32x16(levels + 64 * j + 512))
            both = bit_or(bit_and(low, 15), shift_left(bit_and(high, 15), 4))
            packed = bit_or(shift_left(packed, 8), both)
        store_i32x16(words + 64 * part, packed)
    packed = zero_i32x16()
    for back in range(4):
        both = zero_i32x16()
        for part in range(4):
            level = to_i32(load_f32x16(levels + 64 * (4 * (3 - part) + 3 - back)))
            both = bit_or(shift_left(both, 2), shift_right(level, 4))
        packed = bit_or(shift_left(packed, 8), both)
    store_i32x16(words + 128, packed)


@inline
def _round(x, d, levels, q):
    """q + 4 of every column, the nearest for the scale that is written; if that is 0, it stays what was found."""
    zero = zero_f32x16()
    for j in range(unknown(16)):
        scale = mul(d, sub(load_f32x16(levels + 64 * j), splat(_THIRTY_TWO)))
        for i in range(unknown(16)):
            at = 1024 * j + 64 * i
            level = _level(divide(load_f32x16(x + at), scale), _FOUR)
            store_i32x16(q + at, to_i32(where_equal(scale, zero, to_f32(load_i32x16(q + at)), level)))


@sixteen_blocks
def q3_k_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    levels, words = scratch + _LEVEL, scratch + _WORDS
    spread(x, 1024, 256, scratch)
    _search(scratch, importance, scratch)
    d = f16_bits(_levels(scratch + _SCALE, importance, scratch + _SUM, levels))
    _round(scratch, low_f16(d), levels, scratch + _Q)
    third_bits(scratch + _Q, words)
    low_two_bits(scratch + _Q, words + 16 * BLOCK.qs)
    _pack_scales(levels, words + 16 * BLOCK.scales)
    write_words_d(words, BLOCK, d, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=q3_k_quantize, uses_importance=True)
