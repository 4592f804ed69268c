"""Q5_0 from float32: as Q4_0 with q in [0, 31] and d = the number of largest magnitude / -16."""

from __future__ import annotations

import numpy as np

from quant.fitting.importance import mean_squares
from quant.fitting.lanes import scatter_u32
from quant.jit import inline
from quant.quantizers import SCRATCH, Quantizer, quantize_rows
from quant.quantizers.q4_0 import Q, quantize_blocks, write_nibbles
from quant.simd import bit_or, load_i32x16, shift_left, shift_right, zero_i32x16


@inline
def write_fifth_bits(q, out, size):
    """Bit 4 of q: a word of each block, a bit a column."""
    packed = zero_i32x16()
    for back in range(32):
        packed = bit_or(shift_left(packed, 1), shift_right(load_i32x16(q + 64 * (31 - back)), 4))
    scatter_u32(out, size, packed)


@quantize_rows
def q5_0_quantize_rows(x, importance, rows, columns, out, scratch):
    """See quant.quantizers."""
    blocks, per_row = rows * columns // 32, columns // 32
    if importance:
        mean_squares(x, rows, columns, 32, scratch + SCRATCH)
    for group in range((blocks + 15) // 16):
        first = min(16 * group, blocks - 16)
        target = out + 22 * first
        quantize_blocks(x + 128 * first, importance, first, per_row, np.float32(16), target, 22, scratch)
        write_fifth_bits(scratch + Q, target + 2, 22)
        write_nibbles(scratch + Q, target + 6, 22)


QUANTIZER = Quantizer("Q5_0", 32, 22, q5_0_quantize_rows, uses_importance=True)
