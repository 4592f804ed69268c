"""NVFP4 from float32: for 16 columns the scale that puts the largest magnitude at the largest value, as an 8-bit float
without sign (4 bits of exponent, 3 of fraction); of two values as near, the smaller (ggml's quantize_row_nvfp4).
"""

from __future__ import annotations

import numpy as np

from quant.fitting.lanes import bits_f32, f32_bits, smaller, spread, store_i32x16, to_i32, where_greater
from quant.fitting.pack import pack_nibbles, write_words
from quant.fitting.search import extreme_of
from quant.formats.nvfp4 import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.quantizers.mxfp4 import nearest
from quant.simd import (
    add,
    bit_or,
    bit_xor,
    divide,
    load_f32x16,
    mul,
    shift_left,
    shift_right,
    splat,
    sub,
    to_f32,
    zero_i32x16,
)

_SIX, _HALF, _SEVEN, _EIGHT = (np.float32(number) for number in (6, 0.5, 7, 8))
_BIAS = np.float32(8 * (127 - 7))  # code of 1.0, less that of the same bits of a float32
_LEAST_NORMAL, _STEPS = np.float32(2.0**-6), np.float32(2.0**9)  # below it, codes are whole multiples of 1 / steps
_LARGEST, _LARGEST_CODE, _LAST_CODE = np.float32(448), np.float32(0x7E), np.float32(0x77)
_HALF_BIT = 1 << 19  # of the fraction's three, in a float32
_Q, _WORDS = 4096, 8192  # places in scratch, after float32 [64, 16 lanes] of x: int32 [64, 16], [9, 16]


@inline
def _code_of(scale):
    """The code of a scale >= 0, halves up; what is 256 and more has the largest, 448."""
    scale = smaller(scale, splat(_LARGEST))
    rounded = add(f32_bits(scale), bit_xor(zero_i32x16(), _HALF_BIT))
    code = sub(to_f32(shift_right(rounded, 20)), splat(_BIAS))
    code = where_greater(code, splat(_LAST_CODE), splat(_LARGEST_CODE), code)
    small = smaller(to_f32(to_i32(add(mul(scale, splat(_STEPS)), splat(_HALF)))), splat(_SEVEN))
    return where_greater(splat(_LEAST_NORMAL), scale, small, code)


@inline
def _scale_of(code):
    """The scale that a code stands for."""
    normal = bits_f32(shift_left(to_i32(add(code, splat(_BIAS))), 20))
    return where_greater(splat(_EIGHT), code, divide(code, splat(_STEPS)), normal)


@sixteen_blocks
def nvfp4_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    words = scratch + _WORDS
    spread(x, 256, 64, scratch)
    codes = zero_i32x16()
    for back in range(4):
        part, q = scratch + 1024 * (3 - back), scratch + _Q + 1024 * (3 - back)
        _, size = extreme_of(part, 16)
        code = _code_of(divide(size, splat(_SIX)))
        codes = bit_or(shift_left(codes, 8), to_i32(code))
        d = mul(_scale_of(code), splat(_HALF))
        for i in range(16):
            store_i32x16(q + 64 * i, nearest(load_f32x16(part + 64 * i), d))
    store_i32x16(words, codes)
    pack_nibbles(scratch + _Q, 64, 8, words + 16 * BLOCK.qs)
    write_words(words, BLOCK, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=nvfp4_quantize, uses_importance=False)
