"""TQ2_0 from float32: d = the largest magnitude, q = x / d rounded, halves away from zero (ggml's quantize_row_tq2_0)."""

from __future__ import annotations

import numpy as np

from quant.fitting.lanes import between, f16_bits, inverse_of, round_away, spread, store_i32x16, to_i32
from quant.fitting.pack import low_two_bits, write_words_d
from quant.fitting.search import extreme_of
from quant.formats.tq2_0 import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import add, load_f32x16, mul, splat, zero_f32x16

_ONE, _TWO = np.float32(1), np.float32(2)
Q, WORDS = 16384, 32768  # places in scratch, after float32 [256, 16 lanes] of x: int32 [256, 16], [16, 16]


@inline
def ternary(x, scratch):
    """16 blocks of 256 columns: q + 1, as 0, 1 or 2, at scratch + Q. -> d as float16 bits"""
    spread(x, 1024, 256, scratch)
    _, d = extreme_of(scratch, 256)
    inverse, zero, one = inverse_of(d), zero_f32x16(), splat(_ONE)
    for i in range(256):
        level = add(round_away(mul(load_f32x16(scratch + 64 * i), inverse)), one)
        store_i32x16(scratch + Q + 64 * i, to_i32(between(level, zero, splat(_TWO))))
    return f16_bits(d)


@sixteen_blocks
def tq2_0_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    d = ternary(x, scratch)
    low_two_bits(scratch + Q, scratch + WORDS)
    write_words_d(scratch + WORDS, BLOCK, d, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=tq2_0_quantize, uses_importance=False)
