"""TQ1_0 from float32: the numbers of TQ2_0, five to a byte: in base 3, as a fraction of 256, rounded up, so that the
digits come out again by multiplying with 3 (ggml's quantize_row_tq1_0).
"""

from __future__ import annotations

import numpy as np

from quant.fitting.lanes import store_i32x16, to_i32
from quant.fitting.pack import pack_bytes, write_words_d
from quant.formats.tq1_0 import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.quantizers.tq2_0 import WORDS, Q, ternary
from quant.simd import add, divide, load_i32x16, mul, splat, to_f32, zero_f32x16

_THREE, _BYTE, _ALL, _UP = np.float32(3), np.float32(256), np.float32(243), np.float32(242)
_BYTES = 33792  # place in scratch: int32 [52, 16 lanes]


@inline
def _pack(q, column, step, digits, target):
    """A byte of five digits: those of `digits` columns, `step` apart; missing ones are 0."""
    value = zero_f32x16()
    for n in range(5):
        value = mul(value, splat(_THREE))
        if n < digits:
            value = add(value, to_f32(load_i32x16(q + 64 * (column + n * step))))
    fraction = divide(add(mul(value, splat(_BYTE)), splat(_UP)), splat(_ALL))
    store_i32x16(target, to_i32(fraction))


@sixteen_blocks
def tq1_0_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    q, packed, words = scratch + Q, scratch + _BYTES, scratch + WORDS
    d = ternary(x, scratch)
    for byte in range(32):
        _pack(q, byte, 32, 5, packed + 64 * byte)
    for byte in range(16):
        _pack(q, 160 + byte, 16, 5, packed + 64 * (32 + byte))
    for byte in range(4):
        _pack(q, 240 + byte, 4, 4, packed + 64 * (48 + byte))
    pack_bytes(packed, 52, words)
    write_words_d(words, BLOCK, d, out)


QUANTIZER = Quantizer(block=BLOCK, kernel=tq1_0_quantize, uses_importance=False)
