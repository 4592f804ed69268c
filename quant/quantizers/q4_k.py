"""Q4_K from float32: a scale and a minimum for 32 columns by search (quant.fitting.search.affine), then 6-bit numbers for both.

Without importance a column weighs sqrt(mean x^2) + |x|, and d and dmin are the largest scale and minimum / 63; with it,
importance * sqrt(2 mean x^2 of the block + x^2), and d and dmin are searched for, too (ggml's quantize_row_q4_K).
"""

from __future__ import annotations

import numpy as np

from quant.fitting.affine_sub_blocks import (
    MINIMUM_LEVEL,
    SCALE_LEVEL,
    STAGE,
    WEIGHTS,
    WORDS,
    Q,
    quantize_columns,
    quantize_scales,
    search_sub_block,
)
from quant.fitting.importance import importance_weights
from quant.fitting.lanes import spread, sqrt, store_i32x16, to_i32, unknown
from quant.fitting.pack import pack_nibbles, write_words
from quant.fitting.search import sum_of_squares
from quant.formats.q4_k import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import (
    absolute,
    add,
    bit_and,
    bit_or,
    load_f32x16,
    low_f16,
    mul,
    shift_left,
    shift_right,
    splat,
    store_f32x16,
    zero_f32x16,
    zero_i32x16,
)

_SIX_BITS, _PART = np.float32(63), np.float32(1 / 32)


@inline
def _weigh(x, j, importance, sigma2, scratch):
    """The weights of the columns of sub-block j, to WEIGHTS."""
    weights, x = scratch + WEIGHTS, x + 2048 * j
    if importance:
        importance_weights(importance, 32 * j, 32, x, sigma2, weights, scratch + STAGE)
    else:
        mean = mul(sum_of_squares(x, 32, zero_f32x16()), splat(_PART))
        for i in range(unknown(32)):
            store_f32x16(weights + 64 * i, add(sqrt(mean), absolute(load_f32x16(x + 64 * i))))


@inline
def _pack_scales(scratch, words):
    """Levels of the 8 sub-blocks to words 1 to 3 of a block: see quant.formats.q4_k."""
    low, middle, high = zero_i32x16(), zero_i32x16(), zero_i32x16()
    for back in range(4):
        scales, minima = scratch + SCALE_LEVEL + 64 * (3 - back), scratch + MINIMUM_LEVEL + 64 * (3 - back)
        scale, minimum = to_i32(load_f32x16(scales)), to_i32(load_f32x16(minima))
        scale4, minimum4 = to_i32(load_f32x16(scales + 256)), to_i32(load_f32x16(minima + 256))
        low = bit_or(shift_left(low, 8), bit_or(scale, shift_left(shift_right(scale4, 4), 6)))
        middle = bit_or(shift_left(middle, 8), bit_or(minimum, shift_left(shift_right(minimum4, 4), 6)))
        both = bit_or(bit_and(scale4, 15), shift_left(bit_and(minimum4, 15), 4))
        high = bit_or(shift_left(high, 8), both)
    store_i32x16(words + 64, low)
    store_i32x16(words + 128, middle)
    store_i32x16(words + 192, high)


@inline
def quantize_blocks(x, importance, most, first, step, steps, scratch):
    """16 blocks of 256 columns: in scratch their first four WORDS, and Q (see quant.fitting.affine_sub_blocks).

    most: of q; first, step, steps: see quant.fitting.search.affine, without importance; with it, they are ggml's for all types.
    """
    if importance:
        first, step, steps = np.float32(-0.9), np.float32(0.05), 36
    spread(x, 1024, 256, scratch)
    sigma2 = mul(sum_of_squares(scratch, 256, zero_f32x16()), splat(np.float32(1 / 128)))
    for j in range(unknown(8)):
        _weigh(scratch, j, importance, sigma2, scratch)
        search_sub_block(scratch, j, 32, most, first, step, steps, False, scratch)
    d, dmin = quantize_scales(8, _SIX_BITS, importance, scratch)
    store_i32x16(scratch + WORDS, bit_or(d, shift_left(dmin, 16)))
    _pack_scales(scratch, scratch + WORDS)
    quantize_columns(scratch, 8, 32, low_f16(d), low_f16(dmin), most, scratch)


@sixteen_blocks
def q4_k_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    most, begin, step = np.float32(15), np.float32(-1), np.float32(0.1)
    quantize_blocks(x, importance, most, begin, step, 20, scratch)
    pack_nibbles(scratch + Q, 256, 32, scratch + WORDS + 16 * BLOCK.qs)
    write_words(scratch + WORDS, BLOCK, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=q4_k_quantize, uses_importance=True)
