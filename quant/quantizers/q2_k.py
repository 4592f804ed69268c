"""Q2_K from float32: a scale and a minimum for 16 columns by search (quant.fitting.search.affine), then 4-bit numbers for both.

Without importance a column weighs |x|, and its error counts as a magnitude; with it, importance * sqrt(mean x^2 of the
block + x^2), and d and dmin are searched for, too (ggml's quantize_row_q2_K).
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
from quant.fitting.lanes import spread, store_i32x16, to_i32, unknown
from quant.fitting.pack import low_two_bits, pack_bytes, write_words
from quant.fitting.search import sum_of_squares
from quant.formats.q2_k import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import absolute, bit_or, load_f32x16, low_f16, mul, shift_left, splat, store_f32x16, zero_f32x16

_FOUR_BITS, _MOST = np.float32(15), np.float32(3)
_FIRST, _STEP = np.float32(-0.5), np.float32(0.1)
_FINE_FIRST, _FINE_STEP = np.float32(-0.9), np.float32(0.05)


@inline
def _search(x, importance, scratch):
    """Scales and minima of the 16 sub-blocks, one after the other."""
    sigma2 = mul(sum_of_squares(x, 256, zero_f32x16()), splat(np.float32(1 / 256)))
    for j in range(unknown(16)):
        part, weights = x + 1024 * j, scratch + WEIGHTS
        if importance:
            importance_weights(importance, 16 * j, 16, part, sigma2, weights, scratch + STAGE)
            search_sub_block(x, j, 16, _MOST, _FINE_FIRST, _FINE_STEP, 36, False, scratch)
        else:
            for i in range(16):
                store_f32x16(weights + 64 * i, absolute(load_f32x16(part + 64 * i)))
            search_sub_block(x, j, 16, _MOST, _FIRST, _STEP, 15, True, scratch)


@inline
def _pack_scales(scratch, words):
    """Levels of the 16 sub-blocks, scale and minimum in a byte: 4 words."""
    for j in range(unknown(16)):
        scale = to_i32(load_f32x16(scratch + SCALE_LEVEL + 64 * j))
        minimum = to_i32(load_f32x16(scratch + MINIMUM_LEVEL + 64 * j))
        store_i32x16(scratch + Q + 64 * j, bit_or(scale, shift_left(minimum, 4)))
    pack_bytes(scratch + Q, 16, words)


@sixteen_blocks
def q2_k_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    words = scratch + WORDS
    spread(x, 1024, 256, scratch)
    _search(scratch, importance, scratch)
    d, dmin = quantize_scales(16, _FOUR_BITS, importance, scratch)
    _pack_scales(scratch, words)
    quantize_columns(scratch, 16, 16, low_f16(d), low_f16(dmin), _MOST, scratch)
    low_two_bits(scratch + Q, words + 16 * BLOCK.qs)
    store_i32x16(words + 16 * BLOCK.d, bit_or(d, shift_left(dmin, 16)))
    write_words(words, BLOCK, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=q2_k_quantize, uses_importance=True)
