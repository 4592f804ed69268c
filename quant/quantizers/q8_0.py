"""Q8_0 from float32: d = the largest magnitude / 127, q = x / d rounded, halves away from zero (ggml's quantize_row_q8_0)."""

from __future__ import annotations

import numpy as np

from quant.fitting.lanes import between, round_away, store_f16
from quant.formats.q8_0 import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.simd import absolute, concat, load_f32x16, max_lanes, maximum, mul, splat, store_i8x32, to_i8

_MOST, _LEAST = np.float32(127), np.float32(-127)


@sixteen_blocks
def q8_0_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    for _ in range(16):
        low, high = load_f32x16(x), load_f32x16(x + 64)
        d = max_lanes(maximum(absolute(low), absolute(high))) / _MOST
        inverse = splat(np.float32(1) / d if d != 0 else np.float32(0))
        store_f16(out + BLOCK.d, d)
        store_i8x32(out + BLOCK.qs, concat(_rounded(low, inverse), _rounded(high, inverse)))
        x += 128
        out += BLOCK.bytes


@inline
def _rounded(value, inverse):
    return to_i8(between(round_away(mul(value, inverse)), splat(_LEAST), splat(_MOST)))


QUANTIZER = Quantizer(block=BLOCK, kernel=q8_0_quantize, uses_importance=False)
