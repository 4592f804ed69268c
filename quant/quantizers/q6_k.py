"""Q6_K from float32: a scale for 16 columns by search (quant.fitting.search.symmetric), then d = the largest of them / -128.

A column weighs its importance, or x^2 without (ggml's quantize_row_q6_K).
"""

from __future__ import annotations

import numpy as np

from quant.fitting.importance import importance_lanes, square_weights
from quant.fitting.lanes import (
    f16_bits,
    inverse_of,
    larger,
    nearest_between,
    spread,
    store_i32x16,
    to_i32,
    unknown,
    where_equal,
    where_greater,
)
from quant.fitting.pack import high_two_bits, pack_bytes, pack_nibbles, write_words_d
from quant.fitting.search import NEGLIGIBLE, symmetric
from quant.formats.q6_k import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import absolute, bit_and, divide, load_f32x16, low_f16, mul, splat, store_f32x16, sub, zero_f32x16

_HALF, _ONE = np.float32(32), np.float32(1)
_MOST, _LEAST = np.float32(127), np.float32(-128)
# Places in scratch: float32 [256, 16 lanes] of x, [16, 16] of weights and of their stage, 16 vectors each of the
# search's results and of whole scales; then what is packed.
_WEIGHTS, _STAGE = 16384, 17408
_SCALE, _INVERSE, _WHOLE = 18432, 19456, 20480
_Q, _WORDS = 21504, 37888  # int32 [256, 16], [52, 16]


@inline
def _search(x, importance, scratch):
    """The scales of the 16 sub-blocks, one after the other. -> the scale of largest magnitude"""
    extreme, size = zero_f32x16(), zero_f32x16()
    for j in range(16):
        weights, part = scratch + _WEIGHTS, x + 1024 * j
        if importance:
            importance_lanes(importance, 16 * j, 16, weights, scratch + _STAGE)
        else:
            square_weights(part, 16, weights)
        scale, inverse = symmetric(part, weights, 16, _HALF)
        store_f32x16(scratch + _SCALE + 64 * j, scale)
        store_f32x16(scratch + _INVERSE + 64 * j, inverse)
        extreme = where_greater(absolute(scale), size, scale, extreme)
        size = larger(absolute(scale), size)
    return extreme


@inline
def _pack_scales(extreme, scratch, words):
    """16 scales to signed bytes, in 4 words. -> d as float16 bits"""
    zero, nothing = zero_f32x16(), splat(NEGLIGIBLE)
    inverse = where_greater(nothing, absolute(extreme), zero, divide(splat(_LEAST), extreme))
    for j in range(16):
        whole = mul(inverse, load_f32x16(scratch + _SCALE + 64 * j))
        whole = nearest_between(whole, splat(_LEAST), splat(_MOST))
        store_f32x16(scratch + _WHOLE + 64 * j, whole)
        store_i32x16(scratch + _Q + 64 * j, bit_and(to_i32(whole), 255))
        found = load_f32x16(scratch + _INVERSE + 64 * j)
        store_f32x16(scratch + _INVERSE + 64 * j, where_equal(inverse, zero, zero, found))
    pack_bytes(scratch + _Q, 16, words)
    return f16_bits(inverse_of(inverse))


@inline
def _round(x, d, scratch):
    """q + 32 of every column, int32 [256, 16]: the nearest for the scale that was written; if that is 0, what the search
    had found, or 0 where all was negligible.
    """
    zero, top, bottom = zero_f32x16(), splat(_HALF - _ONE), splat(-_HALF)
    for j in range(16):
        scale, inverse = mul(d, load_f32x16(scratch + _WHOLE + 64 * j)), load_f32x16(scratch + _INVERSE + 64 * j)
        for i in range(unknown(16)):
            value = load_f32x16(x + 1024 * j + 64 * i)
            found = where_equal(scale, zero, mul(inverse, value), divide(value, scale))
            level = sub(nearest_between(found, bottom, top), bottom)
            nothing = where_equal(inverse, zero, zero, level)
            store_i32x16(scratch + _Q + 1024 * j + 64 * i, to_i32(where_equal(scale, zero, nothing, level)))


@sixteen_blocks
def q6_k_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    words = scratch + _WORDS
    spread(x, 1024, 256, scratch)
    d = _pack_scales(_search(scratch, importance, scratch), scratch, words + 16 * BLOCK.scales)
    _round(scratch, low_f16(d), scratch)
    pack_nibbles(scratch + _Q, 256, 64, words)
    high_two_bits(scratch + _Q, words + 16 * BLOCK.qh)
    write_words_d(words, BLOCK, d, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=q6_k_quantize, uses_importance=True)
