"""MXFP4 from float32: e = the exponent of the largest magnitude, less 2; of two values as near, the smaller.

The exponent is exact, where ggml's quantize_row_mxfp4 takes it of a rounded logarithm: two float32 before a power of two.
"""

from __future__ import annotations

import numpy as np

from quant.fitting.lanes import bits_f32, f32_bits, larger, scatter_u8, spread, store_i32x16, to_i32, where_greater
from quant.fitting.pack import write_nibbles
from quant.fitting.search import extreme_of
from quant.formats.mxfp4 import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import absolute, add, load_f32x16, mul, shift_left, shift_right, splat, sub, to_f32, zero_f32x16

_ONE, _TWO, _HALF, _EIGHT = np.float32(1), np.float32(2), np.float32(0.5), np.float32(8)
_LEAST = np.float32(2.0**-128)  # of a block whose exponent is 0
# Halfway between the values 0, 1, 2, 3, 4, 6, 8 and 12, where value = d * one of them.
MIDDLES = tuple(np.float32(middle) for middle in (0.5, 1.5, 2.5, 3.5, 5, 7, 10))
_Q = 2048  # place in scratch, after float32 [32, 16 lanes] of x: int32 [32, 16]


@inline
def nearest(value, d):
    """The 4-bit code of the multiple of d >= 0 nearest to value; code 0 if d is 0."""
    size, zero, one = absolute(value), zero_f32x16(), splat(_ONE)
    code = zero
    for middle in MIDDLES:
        code = add(code, where_greater(size, mul(d, splat(middle)), one, zero))
    code = where_greater(d, zero, code, zero)
    negative = where_greater(code, zero, where_greater(zero, value, splat(_EIGHT), zero), zero)
    return to_i32(add(code, negative))


@sixteen_blocks
def mxfp4_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    spread(x, 128, 32, scratch)
    _, size = extreme_of(scratch, 32)
    exponent = larger(sub(to_f32(shift_right(f32_bits(size), 23)), splat(_TWO)), zero_f32x16())
    scatter_u8(out + BLOCK.e, BLOCK.bytes, to_i32(exponent))
    d = larger(mul(bits_f32(shift_left(to_i32(exponent), 23)), splat(_HALF)), splat(_LEAST))
    for i in range(32):
        store_i32x16(scratch + _Q + 64 * i, nearest(load_f32x16(scratch + 64 * i), d))
    write_nibbles(scratch + _Q, out, BLOCK)


QUANTIZER = Quantizer(block=BLOCK, kernel=mxfp4_quantize, uses_importance=False)
