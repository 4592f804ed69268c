"""Q5_0 from float32: as Q4_0 with q in [0, 31] and d = the number of largest magnitude / -16 (ggml's quantize_row_q5_0)."""

from __future__ import annotations

import numpy as np

from quant.fitting.lanes import scatter_u32
from quant.fitting.pack import write_nibbles
from quant.formats.q5_0 import BLOCK
from quant.jit import inline
from quant.quantizers import Quantizer, sixteen_blocks
from quant.quantizers.q4_0 import Q, quantize_blocks
from quant.simd import bit_or, load_i32x16, shift_left, shift_right, zero_i32x16


@inline
def write_fifth_bits(q, out, block):
    """Bit 4 of q, int32 [32, 16 lanes], to the field qh of the 16 blocks at `out`: a word each, a bit a column."""
    packed = zero_i32x16()
    for back in range(32):
        packed = bit_or(shift_left(packed, 1), shift_right(load_i32x16(q + 64 * (31 - back)), 4))
    scatter_u32(out + block.qh, block.bytes, packed)


@sixteen_blocks
def q5_0_quantize(x, importance, out, scratch):
    """See quant.quantizers."""
    quantize_blocks(x, importance, np.float32(16), out, BLOCK, scratch)
    write_fifth_bits(scratch + Q, out, BLOCK)
    write_nibbles(scratch + Q, out, BLOCK)


QUANTIZER = Quantizer(block=BLOCK, kernel=q5_0_quantize, uses_importance=True, row_means=True)
