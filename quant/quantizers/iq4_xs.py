"""IQ4_XS from float32: the scale of 32 columns as in IQ4_NL, then 6-bit numbers for eight of them, d = the largest / -32.

With importance, the mean of x^2 is that of the block (ggml's quantize_row_iq4_nl).
"""

from __future__ import annotations

import numpy as np

from quant.fitting.importance import importance_weights, square_weights
from quant.fitting.lanes import f16_bits, inverse_of, nearest_between, spread, store_i32x16, to_i32, unknown
from quant.fitting.pack import pack_nibbles, write_words
from quant.fitting.search import extreme_of, sum_of_squares
from quant.formats.iq4_xs import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.quantizers.iq4_nl import search, write_indices
from quant.simd import (
    add,
    bit_and,
    bit_or,
    divide,
    load_f32x16,
    mul,
    shift_left,
    shift_right,
    splat,
    store_f32x16,
    zero_f32x16,
    zero_i32x16,
)

_LEAST, _MOST = np.float32(-32), np.float32(31)
# Places in scratch: float32 [256, 16 lanes] of x, [32, 16] of weights and of their stage, eight vectors each of scales
# and of their levels; int32 [32, 16] q; words.
_WEIGHTS, _STAGE, _SCALE, _LEVEL, _Q, _WORDS = 16384, 18432, 20480, 20992, 21504, 23552


@inline
def _search(x, importance, scratch):
    """The scales of the eight sub-blocks, one after the other. -> d"""
    sigma2 = mul(sum_of_squares(x, 256, zero_f32x16()), splat(np.float32(1 / 128)))
    weights = scratch + _WEIGHTS
    for j in range(unknown(8)):
        part = x + 2048 * j
        if importance:
            importance_weights(importance, 32 * j, 32, part, sigma2, weights, scratch + _STAGE)
        else:
            square_weights(part, 32, weights)
        store_f32x16(scratch + _SCALE + 64 * j, search(part, weights))
    extreme, _ = extreme_of(scratch + _SCALE, 8)
    return divide(extreme, splat(_LEAST))


@inline
def _pack_scales(d, scratch, words):
    """Levels of the scales, -32 to 31; words 0 and 1: see quant.formats.iq4_xs."""
    inverse, low, high = inverse_of(d), zero_i32x16(), zero_i32x16()
    for back in range(8):
        j = 7 - back
        level = mul(inverse, load_f32x16(scratch + _SCALE + 64 * j))
        level = nearest_between(level, splat(_LEAST), splat(_MOST))
        store_f32x16(scratch + _LEVEL + 64 * j, level)
        bits = to_i32(add(level, splat(-_LEAST)))
        low = bit_or(shift_left(low, 4), bit_and(bits, 15))
        high = bit_or(shift_left(high, 2), shift_right(bits, 4))
    store_i32x16(words, bit_or(f16_bits(d), shift_left(high, 16)))
    store_i32x16(words + 64, low)


@sixteen_blocks
def iq4_xs_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    words = scratch + _WORDS
    spread(x, 1024, 256, scratch)
    d = _search(scratch, importance, scratch)
    _pack_scales(d, scratch, words)
    for j in range(unknown(8)):
        scale = mul(d, load_f32x16(scratch + _LEVEL + 64 * j))
        write_indices(scratch + 2048 * j, scale, scratch + _Q)
        pack_nibbles(scratch + _Q, 32, 16, words + 16 * (BLOCK.qs + 16 * j))
    write_words(words, BLOCK, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=iq4_xs_quantize, uses_importance=True)
